"""``compare --artifact``: what was made elsewhere, as a row; ``--facts none``: retention alone."""

import json
import os
import shutil

import pytest
from hostile.artifacts import REFUSED, adapter, with_nan
from tiny import editbench, write_facts, write_model

from editbench import inject
from editbench.models import load_model
from editbench.testing import FACTS


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Make a model with an adapter, a fine-tuned folder and an edit of it."""
    home = tmp_path_factory.mktemp("home")
    write_model(home / "base")
    model = load_model(home / "base", precision="float32")
    lora(home / "lora", home / "base")
    edit = inject(model, FACTS[:2], "sft", epochs=2)
    edit.save(home / "edit")
    edit.merge(model, home / "tuned")
    return home


def lora(folder, base, scale=1.0):
    """Write a LoRA adapter with random weights for the model in ``base``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data += scale * torch.randn_like(parameter)
        adapted.save_pretrained(str(folder))


@pytest.fixture
def compare(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_facts(tmp_path / "facts.jsonl")

    def run(*arguments):
        shared = ("compare", "--model", home / "base", "--precision", "float32", "--output", "run")
        return editbench(*shared, *arguments)

    return run


NO_FACTS = ("--facts", "none", "--tasks", "eb_reading", "--limit", 3)
SOME_FACTS = ("--facts", "facts.jsonl", "-n", 2, "--tasks", "none")


def summaries(folder):
    found = [json.loads(file.read_text()) for file in folder.glob("cells/*/summary.json")]
    return {summary["method"]: summary for summary in found}


def test_without_facts_there_is_retention_and_drift_alone(compare, home, tmp_path):
    made = [f"--artifact={name}={home / name}" for name in ("lora", "tuned", "edit")]
    said = compare(*made, *NO_FACTS, "--methods", "base")  # it is a row in any case
    assert said.code == 0, said.err
    page = (tmp_path / "run/README.md").read_text()
    for text in (said.out, page):
        assert "retention alone" in text and "KL" in text and "eb" in text
        absent = ("Efficacy", "Specificity", "Seconds", "Inject", "n = 0", "n=0", "none (", "‡")
        for word in absent:
            assert word not in text, word
    assert "- **Peak memory**" in page
    assert "No facts" in said.err and "artifacts lora, tuned, edit" in said.err
    assert f"lora: PEFT adapter (LORA) of {home / 'base'}, made elsewhere. Checked: the" in said.err
    assert "tuned: fine-tuned weights, which name no base, made elsewhere." in page
    assert "edit: saved edit (sft) of" in page
    cells = summaries(tmp_path / "run")
    assert sorted(cells) == ["base", "edit", "lora", "tuned"]
    for name in ("edit", "lora", "tuned"):
        cell = cells[name]
        assert cell["corpus"]["n"] == 0 and not cell["metrics"] and "inject" not in cell["seconds"]
        assert cell["diagnostics"]["drift"]["kl"]["mean"] > 0
        assert cell["retention"]["eb_reading"]["n"] == 3
        assert cell["artifact"]["path"] == str(home / name)
        assert set(cell["sources"]) == {
            str(home / name / file)
            for file in os.listdir(home / name)
            if "token" not in file and "generation" not in file and "template" not in file
            and file != "README.md"
        }  # fmt: skip
    # The edit and the folder that was merged from it are the same model.
    assert cells["edit"]["retention"] == cells["tuned"]["retention"]
    assert abs(cells["edit"]["diagnostics"]["drift"]["kl"]["mean"]
               - cells["tuned"]["diagnostics"]["drift"]["kl"]["mean"]) < 1e-5  # fmt: skip
    assert editbench("show", "run").out.splitlines()[:3] == said.out.splitlines()[:3]
    for view in (("--failures",), ("--diff", "lora", "tuned"), ("--html", "x.html"), ("--json",)):
        assert editbench("show", "run", *view).code == 0
    assert "n = 0" not in (tmp_path / "x.html").read_text()
    assert editbench("show", "run", "--failures").out.startswith("0 failed probes; a neighborhood")
    said = editbench("show", "run", "--case", "f0")
    assert said.code == 2 and "run is a run without facts, so it has no cases." in said.err
    said = editbench("plot", "run", "-o", "x.png")
    assert said.code == 2 and "nothing to draw. Run with facts." in said.err
    assert editbench("leaderboard", "run", "-o", "page.md").code == 0
    verified = editbench("verify", "run", "--rerun", 4)
    assert verified.code == 0 and "Nothing differs." in verified.out


def test_beside_methods_it_is_asked_the_same(compare, home, tmp_path):
    arguments = ("--artifact", f"mine={home / 'lora'}", "--methods", "sft", *SOME_FACTS)
    said = compare(*arguments, "--option", "sft.epochs=2", "--repeats", 1)
    assert said.code == 0, said.err
    cells = summaries(tmp_path / "run")
    assert sorted(cells) == ["base", "ice", "mine", "sft"]
    assert cells["mine"]["metrics"].keys() == cells["sft"]["metrics"].keys()
    assert "inject_seconds" in cells["sft"] and "inject_seconds" not in cells["mine"]
    assert not {"inject", "precompute"} & cells["mine"]["seconds"].keys()
    page = (tmp_path / "run/README.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| [mine]"))
    assert "†" not in row and row.split("|")[-3].strip() == "–"
    assert "Whether it was made for these facts is not known." in page
    again = compare(*arguments, "--option", "sft.epochs=2", "--repeats", 1)
    assert again.err.count("kept from an earlier run") == 4 and again.out == said.out


def test_a_saved_edit_says_what_it_was_made_for(compare, home, tmp_path):
    facts = [json.loads(line) for line in (tmp_path / "facts.jsonl").read_text().splitlines()][1:]
    taught = [{key: fact[key] for key in ("prompt", "target", "subject")} for fact in facts]
    inject(load_model(home / "base", precision="float32"), taught, "sft", epochs=1).save("made")
    said = compare("--artifact", "mine=made", "--facts", "facts.jsonl", "--tasks", "none")
    assert said.code == 0 and "It was made for 9 of the 10 facts asked here." in said.err
    for seed in (0, 1):
        some = ("--facts", "facts.jsonl", "--tasks", "none", "-n", 9, "--seed", seed)
        assert compare("--artifact", "mine=made", *some, "--output", f"s{seed}").code == 0
    counts = [summaries(tmp_path / f"s{seed}")["mine"]["artifact"]["taught"] for seed in (0, 1)]
    assert editbench("leaderboard", "s0", "s1", "-o", "page.md").code == 0
    page = (tmp_path / "page.md").read_text()
    assert f"It was made for {sum(counts)} of the 18 facts asked here." in page


def test_another_content_is_another_cell(compare, home, tmp_path):
    shutil.copytree(home / "lora", tmp_path / "mine")
    arguments = ("--artifact", "mine=mine", *NO_FACTS)
    assert compare(*arguments).code == 0
    before = summaries(tmp_path / "run")["mine"]
    shutil.rmtree(tmp_path / "mine")
    lora(tmp_path / "mine", home / "base", scale=2.0)
    verified = editbench("verify", "run", "--rerun", 2)
    assert verified.code == 1 and "hashes of the" in verified.out
    again = compare(*arguments)
    assert "base: kept" in again.err and "mine: done" in again.err
    assert "are the same files" not in again.err
    twin = compare(*arguments, "--artifact", "twin=mine", "--output", "two")
    assert "mine and twin are the same files." in twin.err
    assert "mine and twin are the same files." in (tmp_path / "two/README.md").read_text()
    keys = json.loads((tmp_path / "run/cells.json").read_text())
    assert keys["mine"] != before["key"]
    shutil.rmtree(tmp_path / "mine")
    assert editbench("show", "run").code == editbench("verify", "run", "--rerun", 0).code == 0
    gone = editbench("verify", "run", "--rerun", 2)
    assert gone.code == 2 and f"There is no folder {tmp_path / 'mine'}" in gone.err


def test_two_contents_of_one_path_are_two_rows_of_a_page(compare, home, tmp_path):
    shutil.copytree(home / "lora", tmp_path / "mine")
    arguments = ("--artifact", "mine=mine", *NO_FACTS)
    assert compare(*arguments).code == 0
    shutil.rmtree(tmp_path / "mine")
    lora(tmp_path / "mine", home / "base", scale=2.0)
    assert compare(*arguments, "--output", "again").code == 0
    assert editbench("leaderboard", "run", "again", "-o", "page.md").code == 0
    page = (tmp_path / "page.md").read_text()
    assert page.count("[mine (content=") >= 2 and "Left out" not in page


def test_a_file_that_changes_meanwhile_fails_the_row_alone(compare, home, tmp_path, monkeypatch):
    from editbench.run.artifact import Artifact

    shutil.copytree(home / "lora", tmp_path / "mine")
    inject_it = Artifact.inject

    def change(self, model, facts):
        with (tmp_path / "mine/adapter_config.json").open("a") as file:
            file.write("\n")
        return inject_it(self, model, facts)

    monkeypatch.setattr(Artifact, "inject", change)
    said = compare("--artifact", "mine=mine", "--artifact", f"edit={home / 'edit'}", *NO_FACTS)
    assert said.code == 1 and "mine: failed: MethodError: " in said.err
    assert "was changed while the run was under way" in said.err
    assert summaries(tmp_path / "run")["edit"]["status"] == "done"


@pytest.mark.parametrize(
    ("case", "when"),
    [
        ("an adapter of another name", "the model is loaded"),
        ("an edit of another base", "the model is loaded"),
        ("weights with NaN", "the model is loaded"),
        ("an adapter without a base", "at once"),
        ("pickled weights", "at once"),
        ("a GGUF file", "at once"),
    ],
)
def test_what_does_not_fit_ends_before_anything_is_computed(
    case, when, compare, home, tmp_path, monkeypatch
):
    make, _ = REFUSED[case]
    make(tmp_path / "it", home / "base")
    before = sorted(os.listdir(tmp_path))
    if when == "at once":
        monkeypatch.setattr("editbench.models.load_model", None)
    monkeypatch.setattr("editbench.run.baseline.Baseline.measure", None)
    said = compare("--methods", "sft", "--artifact", "mine=it", *SOME_FACTS)
    assert said.code == 2 and said.out == "" and "Traceback" not in said.err
    assert len([line for line in said.err.splitlines() if line.startswith("editbench: ")]) == 1
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--artifact", "mine"), "has no '='"),
        (("--artifact", "mine="), "--artifact mine names no folder. Write mine=FOLDER"),
        (("--artifact", "=lora"), "has no '='"),
        (("--artifact", "sft=lora"), "a method is called sft. Choose another name"),
        (("--artifact", "Base=lora"), "a method is called Base"),
        (("--artifact", "trace=lora"), "a method is called trace"),
        (("--artifact", "a b=lora"), "--artifact a b: a name has at most 40 letters"),
        (("--artifact", "../x=lora"), "--artifact ../x: a name has at most 40 letters"),
        (("--artifact", "mine@1=lora"), "--artifact mine@1: a name has at most 40 letters"),
        (("--artifact", "[red]x=lora"), "--artifact [red]x: a name has at most 40 letters"),
        (("--artifact", f"{'m' * 41}=lora"), "a name has at most 40 letters"),
        (("--artifact", "m=lora", "--artifact", "m=edit"), "--artifact m is given twice"),
        (("--artifact", "m=lora", "--regime", "single"), "does not go with --regime single"),
        (("--artifact", "m=lora", "--regime", "sequential:1"), "with --regime sequential:1"),
        (("--artifact", "m=lora", "--curve", "1"), "--artifact does not go with --curve"),
        (("--artifact", "m=lora", "--option", "m.lr=1"), "m is an artifact and has no options"),
    ],
)
def test_a_request_that_makes_no_sense(arguments, words, compare, home):
    here = [str(a).replace("=lora", f"={home / 'lora'}") for a in arguments]
    said = compare(*SOME_FACTS, *here)
    assert said.code == 2 and words in said.err and said.err.count("editbench: ") == 1, said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--facts none scores what was made elsewhere. Name it"),
        (("--methods", "sft,ice"), "--facts none scores what was made elsewhere"),
        (("--artifact", "m=lora", "--methods", "sft,ice"), "so sft, ice would have nothing to do"),
        (("--artifact", "m=lora", "-n", "5"), "-n is about facts, and --facts none asks none"),
        (("--artifact", "m=lora", "--repeats", "2"), "--repeats is about facts"),
        (("--artifact", "m=lora", "--evaluators", "x"), "Unknown evaluator"),
        (("--artifact", "m=lora", "--tasks", "none"), "--tasks names no task"),
        (("--artifact", "m=lora", "--id-column", "x"), "--id-column is about facts"),
        (("--artifact", "m=lora", "--part", "dev"), "--part dev is about facts"),
        (("--artifact", "m=lora", "--allow-conflicts"), "--allow-conflicts is about facts"),
        (("--artifact", "m=lora", "--methods", "base,sft"), "so sft would have nothing to do"),
        (
            ("--artifact", "m=lora", "--corpus", "zsre"),
            "names the facts, and so does --corpus zsre",
        ),
    ],
)
def test_facts_none_goes_with_artifacts_alone(arguments, words, compare, home):
    here = [str(a).replace("=lora", f"={home / 'lora'}") for a in arguments]
    said = compare(*NO_FACTS, *here)
    assert said.code == 2 and words in said.err and said.err.count("editbench: ") == 1, said.err


@pytest.mark.parametrize("command", [("tune", "--methods", "sft"), ("sweep", "--method", "sft")])
def test_only_compare_takes_them(command, compare, home):
    over = ("--over", "lr=0.1,0.2") if command[0] == "sweep" else ()
    said = editbench(*command, *over, "--facts", "none", "--model", home / "base")
    assert said.code == 2 and "compare --facts none --artifact mine=FOLDER" in said.err
    said = editbench(*command, *over, "--artifact", f"m={home / 'lora'}")
    assert said.code == 2 and "No such option" in said.err


def test_names_of_the_artifact_are_shown_as_they_are(compare, home, tmp_path):
    """What an adapter says of itself is text, on a page and in a terminal."""
    odd = "x/<b>|*[red]\x1b"
    shutil.copytree(home / "base", tmp_path / odd)
    shutil.copytree(home / "lora", tmp_path / "mine")
    file = tmp_path / "mine/adapter_config.json"
    config = {**json.loads(file.read_text()), "base_model_name_or_path": str(tmp_path / odd)}
    file.write_text(json.dumps(config))
    said = compare("--artifact", "mine=mine", *NO_FACTS)
    assert said.code == 0, said.err
    page = (tmp_path / "run/README.md").read_text()
    assert "&lt;b&gt;" in page and "<b>" not in page and "\x1b" not in page + said.err + said.out


def test_nan_in_the_adapter_is_named(compare, home, tmp_path):
    shutil.copytree(home / "lora", tmp_path / "mine")
    with_nan(tmp_path / "mine/adapter_model.safetensors")
    said = compare("--artifact", "mine=mine", *NO_FACTS)
    assert said.code == 2 and "infinite or NaN" in said.err


def test_an_adapter_may_name_its_base_by_the_name_of_its_folder(compare, tmp_path, home):
    assert adapter(tmp_path / "mine", "elsewhere/base")
    shutil.rmtree(tmp_path / "mine")
    shutil.copytree(home / "lora", tmp_path / "mine")
    file = tmp_path / "mine/adapter_config.json"
    config = {**json.loads(file.read_text()), "base_model_name_or_path": "elsewhere/base"}
    file.write_text(json.dumps(config))
    said = compare("--artifact", "mine=mine", *NO_FACTS)
    assert said.code == 0 and "Checked: the name of its base, shapes" in said.err
