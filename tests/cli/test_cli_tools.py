"""The commands around an edit or a stored run, as a user types them: stats, trace, export, show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hostile.files import as_format_1, contents, full_disk, rewrite, times_ten, wrong_rank
from tiny import editbench, fact, write_facts, write_model

from editbench.methods import statistics
from editbench.models import quiet_transformers
from editbench.testing import tiny_model
from editbench.types import digest


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def edit(model, tmp_path):
    write_facts(tmp_path / "facts.jsonl", [fact(i) for i in range(3)])
    options = ("covariance_tokens=300", "steps=4", "prefixes=0")
    said = editbench(
        "inject", "--method", "memit", "--facts", tmp_path / "facts.jsonl",
        "--model", model, "--output", tmp_path / "edit",
        *(part for option in options for part in ("--option", option)),
    )  # fmt: skip
    assert said.code == 1, "four steps teach too little, and the edit is saved"
    return tmp_path / "edit"


def inject_again(edit, *more):
    """Run a quick injection into the folder of ``edit``."""
    return editbench(
        "inject", "--method", "ice", "--facts", edit.parent / "facts.jsonl",
        "--model", edit.parent / "model", "--output", edit, *more,
    )  # fmt: skip


def test_inject_replaces_an_edit_only_when_told(edit, model, tmp_path):
    (tmp_path / "model").symlink_to(model)
    before = contents(edit)
    refused = inject_again(edit)
    assert refused.code == 2 and "--overwrite replaces the files in it" in refused.err
    assert contents(edit) == before
    own = inject_again(tmp_path / "model", "--overwrite")
    assert own.code == 2 and "which would be lost" in own.err
    with full_disk(1_000):
        full = inject_again(edit, "--overwrite")
    assert full.code == 2 and "Nothing in it was changed" in full.err
    assert contents(edit) == before
    assert inject_again(edit, "--overwrite").code == 1, "a random model reads no context"
    assert json.loads((edit / "manifest.json").read_text())["method"] == "ice"


def test_damaged_edits_are_not_exported(edit, tmp_path):
    for spoil in (times_ten, wrong_rank):
        shutil.copytree(edit, tmp_path / "copy")
        rewrite(tmp_path / "copy", spoil)
        said = editbench("export", tmp_path / "copy", "--output", tmp_path / "adapter")
        assert said.code == 2 and "edit.safetensors is not the file that was saved" in said.err
        shutil.rmtree(tmp_path / "copy")
    assert not (tmp_path / "adapter").exists()
    named = ("--output", tmp_path / "adapter", "--base", "owner/tiny")
    said = editbench("export", as_format_1(edit), *named)
    assert said.code == 0 and "without hashes of its files" in said.err, "older edits still work"
    again = editbench("export", edit, *named)
    assert again.code == 2 and "--overwrite" in again.err
    again = editbench("export", edit, *named, "--overwrite")
    assert again.code == 0, again.err


# --- stored runs ----------------------------------------------------------------------------------

STORED = Path(__file__).parents[2] / "leaderboard/results/smollm2-135m_demo-counterfact_n50"


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(STORED, tmp_path / "run"))


def cell_of(run, method):
    return next((run / "cells").glob(f"{method}-*"))


def tools(run, page, picture):
    """Return the commands that write a page or a picture of a run."""
    return [
        ("leaderboard", run, "-o", page),
        ("show", run, "--html", page),
        ("plot", run, "-o", picture),
    ]


@pytest.mark.parametrize(
    "name", ["run.json", "cases.json", "cells.json", "tuned.json", ".lock", "cells/new.md"]
)
def test_pages_never_replace_a_part_of_a_run(run, tmp_path, name):
    before = contents(tmp_path)
    for command in tools(run, run / name, run / "cells" / "picture.png"):
        said = editbench(*command)
        assert said.code == 2 and "Choose another" in said.err and not said.out
    traced = editbench("trace", "The capital of France is", "-o", run / "cells" / "map.png")
    assert traced.code == 2 and "among the records" in traced.err
    assert contents(tmp_path) == before


def test_pages_never_replace_an_edit_or_data(run, edit, tmp_path):
    link = tmp_path / "page.md"
    link.symlink_to(run / "run.json")
    before = contents(tmp_path)
    for page in (edit / "manifest.json", edit / "records.jsonl", tmp_path / "facts.jsonl", link):
        for command in tools(run, page, run / "cells" / "picture.png")[:2]:
            said = editbench(*command)
            assert said.code == 2 and "Choose another" in said.err and not said.out
    assert contents(tmp_path) == before


def test_an_edit_or_a_run_among_the_records_of_a_run_is_refused(run, edit, tmp_path):
    place = run / "cells" / "new"
    injected = editbench(
        "inject", "--method", "ice", "--facts", tmp_path / "facts.jsonl", "--output", place
    )
    compared = editbench(
        "compare", "--methods", "ice", "-n", 1, "--tasks", "none", "--output", place
    )
    exported = editbench("export", edit, "--output", place)
    for said in (injected, compared, exported):
        assert said.code == 2 and "among the records of the run" in said.err, said.err
    assert not place.exists()


def test_a_folder_called_cells_that_is_no_run_may_be_written_to(run, tmp_path):
    (tmp_path / "lab" / "cells").mkdir(parents=True)
    (tmp_path / "lab" / "cases.json").write_text("[]")
    said = editbench("leaderboard", run, "-o", tmp_path / "lab" / "cells" / "page.md")
    assert said.code == 0 and (tmp_path / "lab" / "cells" / "page.md").is_file(), said.err


def test_pages_beside_the_records_are_written_again(run):
    for _ in range(2):
        for command in tools(run, run / "README.md", run / "trade_off.png"):
            said = editbench(*command)
            assert said.code == 0 and not said.err, said.err


def test_a_picture_that_fails_keeps_the_old_one(run, tmp_path):
    assert editbench("plot", run, "-o", tmp_path / "picture.png").code == 0
    before = contents(tmp_path)
    with full_disk(5_000):
        said = editbench("plot", run, "-o", tmp_path / "picture.png")
    assert said.code == 2 and "picture.png cannot be written" in said.err
    assert contents(tmp_path) == before


def test_a_run_that_goes_on_says_that_a_table_was_lost(edit, model, tmp_path):
    compare = (
        "compare", "--methods", "base", "--corpus", "local", "--data", tmp_path / "facts.jsonl",
        "-n", 2, "--tasks", "none", "--model", model, "--output", tmp_path / "tiny",
    )  # fmt: skip
    whole = editbench(*compare)
    assert whole.code == 0 and "probes.parquet" not in whole.err, whole.err
    (cell_of(tmp_path / "tiny", "base") / "probes.parquet").unlink()
    assert "probes.parquet is missing" in editbench(*compare, "--json").err


@pytest.mark.parametrize("name", ["probes", "retention"])
def test_a_missing_table_is_named(run, tmp_path, name):
    (cell_of(run, "memit") / f"{name}.parquet").unlink()
    for command in (("show", run), *tools(run, tmp_path / "page.md", tmp_path / "page.png")):
        said = editbench(*command)
        assert f"{name}.parquet" in said.err and "memit" in said.err
    assert editbench("verify", run, "--rerun", 0).code == 1


def test_a_foreign_table_facts_and_seed_are_named(run, tmp_path):
    shutil.copy(cell_of(run, "sft") / "probes.parquet", cell_of(run, "memit"))
    drawn = editbench("plot", run, "-o", tmp_path / "page.png")
    assert drawn.code == 0 and "not the table that was written with the cell" in drawn.err
    assert editbench("leaderboard", run, "-o", tmp_path / "page.md").code == 2
    cases = json.loads((run / "cases.json").read_text())
    (run / "cases.json").write_text(json.dumps(cases[1:]))
    drawn = editbench("plot", run, "-o", tmp_path / "page.png")
    assert drawn.err.count("its facts are not those of") == 5
    (run / "cases.json").unlink()
    assert "cases.json does not exist" in editbench("plot", run, "-o", tmp_path / "page.png").err


def test_a_foreign_cells_json_is_refused_or_named(run, tmp_path):
    path = run / "cells.json"
    own = json.loads(path.read_text())
    swapped = {**own, "sft": own["memit"], "memit": own["sft"]}
    for foreign in (swapped, {**own, "rome": "rome-0123456789ab"}, {"rome": "rome-0123456789ab"}):
        path.write_text(json.dumps(foreign))
        commands = [("show", run), ("verify", run, "--rerun", 0)]
        for command in (*commands, *tools(run, tmp_path / "page.md", tmp_path / "page.png")):
            said = editbench(*command)
            assert said.code == 2 and "cells.json is not of this run" in said.err, command
    # of a run with the same methods but another seed, say
    path.write_text(json.dumps({**own, "memit": "memit-0123456789ab"}))
    for command in (("show", run), *tools(run, tmp_path / "page.md", tmp_path / "page.png")):
        said = editbench(*command)
        assert said.code == 0 and "memit: no record" in said.err
        assert f"{own['memit']}: not of this run" in said.err


def test_cells_of_another_seed_are_named(run):
    config = json.loads((run / "run.json").read_text())["config"] | {"seed": 1}
    record = {"schema": 1, "digest": digest(config), "config": config}
    (run / "run.json").write_text(json.dumps(record))
    assert editbench("show", run).err.count("computed with seed 0; the run has seed 1") == 5
    report = json.loads(editbench("verify", run, "--rerun", 0, "--json").out)
    assert sum("seed" in found["what"] for found in report["differences"]) == 5


# --- statistics -----------------------------------------------------------------------------------


def test_statistics(model):
    assert json.loads(editbench("stats", "list", "--json").out) == []
    said = editbench(
        "stats", "compute", "--model", model, "--layers", "0-1", "--tokens", 300, "--json"
    )
    assert said.code == 0, said.err
    rows = json.loads(said.out)
    assert [row["layer"] for row in rows] == [0, 1] and all(row["tokens"] >= 300 for row in rows)
    listed = json.loads(editbench("stats", "list", "--json").out)
    assert [row["layer"] for row in listed] == [0, 1] and listed[0]["text"] == "self"
    shown = json.loads(editbench("stats", "show", listed[0]["file"][:12], "--json").out)
    assert (
        shown["width"] == 56
        and shown["condition"] > 1
        and 1 <= shown["directions_for_90_percent"] <= 56
    )
    assert str(shown["counted"]) in editbench("stats", "show", listed[0]["file"]).out
    assert (
        "300" in editbench("stats", "list").out
        or str(shown["counted"]) in editbench("stats", "list").out
    )


def test_statistics_are_those_that_inject_reads(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The river runs to the sea.\nNobody has read the book.\n")
    assert editbench("stats", "compute", "--model", model, "--source", text).code == 0
    listed = editbench("stats", "list", "--json").out
    write_facts(tmp_path / "facts.jsonl", [fact(0)])
    said = editbench(
        "inject", "--method", "memit", "--facts", tmp_path / "facts.jsonl",
        "--model", model, "--output", tmp_path / "edit",
        "--option", f"covariance={text}", "--option", "steps=2", "--option", "prefixes=0",
    )  # fmt: skip
    assert said.code == 1, "two steps teach too little"
    assert editbench("stats", "list", "--json").out == listed, "measured anew, under another key"


def test_statistics_on_texts(model, tmp_path):
    plain, lines = tmp_path / "text.txt", tmp_path / "text.jsonl"
    plain.write_text("The river runs to the sea.\nNobody has read the book.\n")
    lines.write_text(
        '{"text": "The river runs to the sea."}\n{"text": "Nobody has read the book."}\n'
    )
    counts = []
    for source in (plain, lines, f"{plain},{lines}"):
        said = editbench(
            "stats", "compute", "--model", model, "--layers", "1", "--source", source, "--json"
        )
        assert said.code == 0, said.err
        counts.append(json.loads(said.out)[0]["tokens"])
    assert counts[0] == counts[1] and counts[2] == 2 * counts[0]
    listed = json.loads(editbench("stats", "list", "--json").out)
    assert len(listed) == 1, "the same text measured once, whatever file it stands in"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["compute", "--layers", "7"], ["layers 0 to 1"]),
        (["compute", "--layers", "x"], ["--layers x", "not a whole number"]),
        (["compute", "--tokens", "1"], ["--tokens 1"]),
        (["compute", "--seed", "99999999999999999999"], ["Seed 99999999999999999999"]),
        (["compute", "--method", "sft"], ["sft needs no covariance"]),
        (["compute", "--method", "memit+sft"], ["memit+sft needs no covariance"]),
        (["compute", "--layers=-1"], ["--layers -1"]),
        (["compute", "--source", "null.jsonl"], ["null.jsonl, line 1"]),
        (["compute", "--source", "nosuch.txt"], ["'nosuch.txt' is neither"]),
        (["compute", "--source", "broken.jsonl"], ["broken.jsonl, line 2"]),
        (["compute", "--source", "nosuch/dataset"], ["nosuch/dataset", "local text or JSONL file"]),
        (["compute", "--tokens", "1000000000000"], ["--tokens is 1000000000000"]),
        (["compute", "--layers", "0-99999999999"], ["names more than 1,000,000 numbers"]),
        (["show", "*"], ["No file of the cache begins with '*'"]),
        (["show", ""], ["No file of the cache begins with ''"]),
        (["show", "../"], ["No file of the cache begins with '../'"]),
        (["show", "x" * 300], ["No file of the cache begins with 'xxx"]),
        (["show", "nosuch"], ["No file of the cache begins with 'nosuch'"]),
        (["show", "broken.jsonl"], ["no statistics of editbench"]),
    ],
)
def test_bad_input_of_stats(model, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    statistics.folder().mkdir(parents=True, exist_ok=True)
    (statistics.folder() / "only.safetensors").write_text("")
    (tmp_path / "null.jsonl").write_text('{"text": null}\n')
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"words": 1}\n')
    said = editbench(
        "stats", *arguments, *(["--model", model] if arguments[0] == "compute" else [])
    )
    assert said.code == 2 and not said.out
    for part in parts:
        assert part in said.err


def test_trace(model, tmp_path):
    picture = tmp_path / "pictures" / "map.png"
    prompt = "The capital of France is"
    said = editbench("trace", prompt, "--model", model, "-o", picture)
    assert said.code == 0, said.err
    assert (
        picture.read_bytes()[:4] == b"\x89PNG"
        and "*" in said.out
        and str(picture) in said.out.replace("\n", "")
    )
    found = json.loads(editbench("trace", prompt, "--model", model, "--json").out)
    tokens, (first, last) = found["tokens"], found["subject"]
    assert "".join(tokens[first : last + 1]).strip() == "France"
    assert all(
        len(found["scores"][kind]) == len(tokens) for kind in ("residual", "mlp", "attention")
    )
    other = json.loads(
        editbench("trace", prompt, "--subject", "capital", "--model", model, "--json").out
    )
    assert other["subject"] != found["subject"]
    (tmp_path / "file").write_text("")
    kept = editbench(
        "trace", prompt, "--model", model, "--json", "-o", tmp_path / "file" / "map.png"
    )
    assert (
        kept.code == 2
        and json.loads(kept.out) == found
        and "map.png cannot be written" in kept.err.replace("\n", " ")
    )
    spaced = editbench("trace", "Is the capital of France ?", "--model", model, "--json")
    assert spaced.code == 0 and json.loads(spaced.out)["tokens"], spaced.err


def test_trace_says_where_the_subject_may_be_wrong(model):
    weak = "The queen of Spain married a man from France in"
    said = editbench("trace", weak, "--model", model)
    assert said.code == 0 and "was found by rule and may be wrong: one of 2 names" in " ".join(
        said.err.split()
    )
    for arguments in ([weak, "--subject", "Spain"], ["The capital of France is"]):
        said = editbench("trace", *arguments, "--model", model)
        assert said.code == 0 and "may be wrong" not in said.err


def test_only_editors_that_read_a_subject_say_where_it_may_be_wrong(model, tmp_path):
    weak = fact(0, prompt="The queen of Spain married a man from France in", subject=None)
    facts = write_facts(tmp_path / "facts.jsonl", [weak])
    quick = {"memit": ("covariance_tokens=300", "steps=4", "prefixes=0"), "sft": ("epochs=1",)}
    for method, options in quick.items():
        said = editbench(
            "inject", "--method", method, "--facts", facts, "--model", model,
            "--output", tmp_path / method,
            *(part for option in options for part in ("--option", option)),
        )  # fmt: skip
        assert said.code in (0, 1), said.err
        found = " ".join((said.out + said.err).split())
        assert ("may be wrong" in found) == (method == "memit")
        assert ("of f0: one of 2 names" in found) == (method == "memit")


def test_inject_names_facts_whose_new_answer_is_the_old_one(model, tmp_path):
    same = fact(0, target="mezzo soprano", original="Mezzo-soprano")
    facts = write_facts(tmp_path / "facts.jsonl", [same, fact(1)])
    said = editbench(
        "inject",
        "--method",
        "ice",
        "--facts",
        facts,
        "--model",
        model,
        "--output",
        tmp_path / "edit",
    )
    assert said.code in (0, 1), said.err
    assert "The answers cannot show whether it was taught." in " ".join(said.err.split())
    assert "'f0'" in said.err and "'f1'" not in said.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--subject", "Spain"], "'Spain' is not in its prompt"),
        (["-o", "map.txt"], "map.txt is not a .png"),
        (["--window", "0"], "--window 0"),
        (["--seed", "99999999999999999999"], "Seed 99999999999999999999"),
    ],
)
def test_bad_input_of_trace(model, arguments, part):
    said = editbench("trace", "The capital of France is", "--model", model, *arguments)
    assert said.code == 2 and part in said.err and not said.out


def test_export(model, edit, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for form in ("peft", "merged"):
        base = ("--base", "owner/tiny") if form == "peft" else ()
        said = editbench("export", edit, "--format", form, "--output", tmp_path / form, *base)
        assert said.code == 0 and str(tmp_path / form) in said.out.replace("\n", ""), said.err
        assert "Writing model" not in said.err
    ids = torch.tensor([[5, 80, 200]])
    with torch.no_grad():
        merged = (
            AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()(input_ids=ids).logits
        )
        base = AutoModelForCausalLM.from_pretrained(model).eval()
        plain = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, tmp_path / "peft").eval()(input_ids=ids).logits
    torch.testing.assert_close(adapted, merged, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(plain, merged, atol=1e-3)


def test_bad_input_of_export(edit, tmp_path):
    for arguments, part in [
        ((tmp_path, "--output", tmp_path / "x"), "holds no edit"),
        ((edit, "--output", tmp_path / "x", "--format", "onnx"), "peft, merged"),
        ((edit, "--output", edit), "not an empty folder"),
        ((edit, "--output", tmp_path / "x", "--model", "nosuch"), "Unknown model 'nosuch'"),
    ]:
        said = editbench("export", *arguments)
        assert said.code == 2 and part in said.err and not said.out, said
    assert not (tmp_path / "x").exists()


def test_export_of_an_edit_of_another_model(edit, model, tmp_path):
    other = tiny_model("llama", seed=1, num_hidden_layers=2)
    with quiet_transformers():
        other.model.save_pretrained(tmp_path / "other")
        other.tokenizer.save_pretrained(tmp_path / "other")
    said = editbench("export", edit, "--output", tmp_path / "x", "--model", tmp_path / "other")
    assert (
        said.code == 2
        and "has other weights" in said.err
        and "Name the right model with --model." in said.err
    )
