"""What comes after ``inject``: show, evaluate, chat, inject --on, remove and export of an edit."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import sys

import pytest
from tiny import editbench, fact, write_facts, write_model

from editbench import inject
from editbench.edit import Edit
from editbench.models import load_model
from editbench.records.reading import visible
from editbench.run.life import ask

EVIL = "\x1b[31m[bold]red"
QUICK = ("--option", "steps=4", "--option", "prefixes=0", "--option", "covariance=identity")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_model(home / "base")
    write_facts(home / "facts.jsonl", [fact(0), fact(1), fact(2, target=EVIL)])
    write_facts(home / "more.jsonl", [fact(3)])
    said = editbench("inject", "--method", "memit", "--facts", home / "facts.jsonl", "--model",
                     home / "base", "--output", home / "edit", *QUICK)  # fmt: skip
    assert said.code == 1, said.err  # four steps teach too little, and the edit is saved
    return home


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return home


def test_show_looks_at_what_it_is_given(here):
    said = editbench("show", here / "edit")
    assert said.code == 0, said.err
    for part in ("an edit by memit, 3 facts", "steps=4", str(here / "base"), "a value for each",
                 "The capital of France is", r"\x1b[31m[bold]red"):  # fmt: skip
        assert part in said.out
    assert "\x1b" not in said.out and f"editbench evaluate {here / 'edit'}" in said.err
    record = json.loads(editbench("show", here / "edit", "--json").out)
    assert record["facts"][0]["id"] == "f0" and record["diagnostics"]["cost"]["seconds"] >= 0
    assert "a whole model of type 'llama'" in editbench("show", here / "base").out
    said = editbench("show", here / "edit", "--failures")
    assert said.code == 2 and "is no run, so there are no texts to list" in said.err
    said = editbench("show", here / "nowhere")
    assert said.code == 2 and "There is no folder" in said.err
    said = editbench("show", here)
    assert said.code == 2 and "holds neither a run nor an edit" in said.err


def test_an_evaluation_is_a_run_and_raises_an_alarm(here, tmp_path):
    shared = ("evaluate", here / "edit", "--tasks", "eb_reading", "--limit", 2, "--output", "run")
    said = editbench(*shared)
    assert said.code == 0, said.err
    assert "keeps its facts without paraphrases" in said.err and "KL" in said.out
    assert "edit: saved edit (memit)" in said.err
    again = editbench(*shared, "--min-efficacy", 0)
    assert again.code == 0 and again.err.count("kept from an earlier run") == 2
    said = editbench(*shared, "--min-efficacy", 1, "--min-retention", 1)
    row = json.loads(editbench("show", "run", "--json").out)["rows"][0]
    low = [name for name, key in (("Efficacy", "efficacy"), ("Retention", "retention_mean"))
           if row[key]["mean"] is None or row[key]["mean"] < 1]  # fmt: skip
    assert said.code == (1 if low else 0)
    for name in low:
        assert f"ALARM: {name} " in said.err
    with_probes = editbench("evaluate", here / "edit", "--facts", here / "facts.jsonl", "--tasks",
                            "none", "--output", "probes", "--json")  # fmt: skip
    row = json.loads(with_probes.out)["rows"][0]
    assert row["generalization"]["mean"] is not None and row["specificity"]["mean"] is not None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--min-efficacy", "2"], "it is a share from 0 to 1"),
        (["--facts", "none", "--min-efficacy", "0.5"], "--min-efficacy needs facts"),
        (["--tasks", "none", "--min-retention", "0.5"], "--min-retention needs retention tasks"),
        (["--model", "nowhere/at/all"], "There is no model folder"),
    ],
)
def test_an_evaluation_that_cannot_be(here, arguments, says):
    said = editbench("evaluate", here / "edit", *arguments)
    assert said.code == 2 and says in said.err and "Traceback" not in said.err


def test_chat_shows_both_answers(here, monkeypatch):
    said = editbench("chat", here / "edit", "--once", f"A {EVIL}")
    assert said.code == 0, said.err
    assert "base" in said.out and "edited" in said.out and r"A \x1b[31m[bold]red" in said.out
    assert "\x1b" not in said.out
    # A prompt that is longer than the context ends nothing.
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"2\n7\n{'word ' * 5000}\nWho?\n"))
    said = editbench("chat", here / "edit")
    assert said.code == 0 and "2  The capital of England is → Rome" in said.out
    assert said.out.count("edited") == 2 and "There is no fact 7; there are 3." in said.err
    assert "tokens, and" in said.err and "reads at most 512." in said.err
    said = editbench("chat", here / "edit", "--once", "no text: \udcff")
    assert said.code == 0 and "no text: ?" in said.out
    said = editbench("chat", here / "edit", "--once", " ")
    assert said.code == 2 and "--once has no prompt" in said.err


def test_more_facts_on_top_and_one_taken_out(here, tmp_path):
    said = editbench("inject", "--on", here / "edit", "--facts", here / "more.jsonl",
                     "--output", "two", "--evaluate", "--tasks", "none")  # fmt: skip
    assert said.code == 1, said.err
    assert (
        "Facts of 1 earlier edit, which" in said.out
        and " of 3 are answered" in said.out
        and "All 4: editbench" in said.err
    )
    stack = Edit.load("two")
    assert [fact.id for fact in stack.facts] == ["f0", "f1", "f2", "f3"]
    assert stack.parts[1].options["steps"] == 4  # those of the edit below
    said = editbench("show", "two")
    assert "a stack of edits by memit, 4 facts" in said.out and "Lineage" in said.out
    said = editbench("remove", "two", "--fact", "f1")
    assert said.code == 0, said.err
    assert "memit: solves 2 facts again from the values that it kept" in said.err
    assert "Written to two-without-f1: 3 of 4 facts." in said.out
    # What the model says to the fact before and now, and the verdict on those that stay.
    shown = " ".join(said.out.split())
    prompt, base = "The capital of England is", load_model(here / "base")
    before, now = (
        visible(" ".join(next(ask(Edit.load(folder), base, [prompt])).edited.split())[:20])
        for folder in ("two", "two-without-f1")
    )
    assert f"Taken out: f1. '{prompt}': '{before}" in shown and f" before, now '{now}" in shown
    assert "of 1 fact answered with" in shown and "of 2 are answered with their target" in shown
    rows = [json.loads(line) for line in open("two-without-f1/answers.jsonl")]
    assert [row["fact"] for row in rows] == ["f3"]
    said = editbench("show", "two-without-f1")
    assert "two (4 facts) without f1" in said.out
    again = editbench("remove", "two-without-f1", "--fact", "f0", "--output", "less")
    assert again.code == 0, again.err
    shown = " ".join(editbench("show", "less").out.split())
    assert "two (4 facts) without f1, then two-without-f1 (3 facts) without f0" in shown
    assert [fact.id for fact in Edit.load("two-without-f1").facts] == ["f0", "f2", "f3"]
    said = editbench("remove", "two", "--fact", "f3", "--output", "two", "--overwrite")
    assert said.code == 0 and not Edit.load("two").parts  # the edit itself, in one step


def test_a_fact_is_changed_by_the_commands_that_are_printed(here, tmp_path):
    shutil.copytree(here / "edit", "edit")
    write_facts(tmp_path / "change.jsonl", [fact(1, target="Madrid")])  # with the old id
    asked = ("inject", "--on", "edit", "--facts", "change.jsonl", "--output", "new")
    said = editbench(*asked)
    assert said.code == 2 and "fact 'f1' of edit has 'Rome'. To change a fact" in said.err
    commands = [shlex.split(line) for line in said.err.splitlines() if line.startswith("  ")]
    assert [command[1] for command in commands] == ["remove", "inject"]
    for _, *command in commands:
        editbench(*command)
    changed = {fact.id: fact.target for fact in Edit.load("new").facts}
    assert changed == {"f0": "London", "f1": "Madrid", "f2": EVIL}
    write_facts(tmp_path / "all.jsonl", [fact(i, target="Oslo") for i in range(3)])
    said = editbench("inject", "--on", "edit", "--facts", "all.jsonl", "--output", "all")
    assert said.code == 2 and "(2 more are changed.) All facts of the edit are changed" in said.err
    assert "\n  editbench inject --method METHOD --facts all.jsonl --output all\n" in said.err


def test_what_needs_no_model_is_checked_without_torch(here, tmp_path):
    write_facts(tmp_path / "twice.jsonl", [fact(0), fact(0, id="again")])
    write_facts(tmp_path / "change.jsonl", [fact(1, target="Madrid")])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    edit, more = str(here / "edit"), str(here / "more.jsonl")
    memit = ["--method", "memit", "--output", "x"]
    for arguments, says in [
        ([*memit, "--facts", "twice.jsonl"], "are the same"),
        ([*memit[:2], "--facts", more, "--output", "full"], "is not an empty folder"),
        (["--on", edit, "--facts", "change.jsonl", "--output", "x"], "To change a fact"),
    ]:
        code = (
            f"import sys\nsys.argv = ['editbench', 'inject', *{arguments!r}]\n"
            "from editbench.cli import main\ntry: main()\nexcept SystemExit as s: print(s.code)\n"
            "print('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout == "2\nFalse\n" and says in done.stderr, done


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fact", "f9"], "The edit has no fact 'f9'. It has f0, f1, f2."),
        (["--fact", "f0", "--fact", "f1", "--fact", "f2"], "all 3 facts of the edit"),
        (["--fact", "f0", "--output", "full"], "full exists and is not an empty folder"),
        (["--fact", "f0", "--model", "other"], "other has other weights"),
    ],
)
def test_what_cannot_be_removed(here, tmp_path, arguments, says):
    write_model(tmp_path / "other")
    model = load_model(tmp_path / "other")
    model.weight("model.embed_tokens.weight").data += 1
    model.model.save_pretrained(tmp_path / "other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("mine")
    before = sorted(p.name for p in tmp_path.iterdir())
    said = editbench("remove", here / "edit", *arguments)
    assert said.code == 2 and says in said.err and "Traceback" not in said.err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_base_that_is_gone(here, tmp_path):
    model = load_model(shutil.copytree(here / "base", tmp_path / "gone"), precision="float32")
    inject(model, [{"prompt": "A fox is", "target": "red"}], "ice").save(tmp_path / "edit")
    shutil.rmtree(tmp_path / "gone")
    for command in (["chat", "edit", "--once", "x"], ["export", "edit", "--output", "out"]):
        said = editbench(*command)
        assert said.code == 2 and "gone, which cannot be loaded here: There is no" in said.err
        assert "name it with --model" in said.err
    assert editbench("chat", "edit", "--once", "x", "--model", here / "base").code == 0


def test_inject_wants_a_method_or_an_edit(here):
    said = editbench("inject", "--facts", here / "facts.jsonl", "--output", "x")
    assert said.code == 2 and "--method is missing" in said.err
    said = editbench("inject", "--on", here / "edit", "--facts", here / "facts.jsonl",
                     "--output", "x")  # fmt: skip
    assert said.code == 2 and "Fact id 'f0' is taken" in said.err
    said = editbench("inject", "--method", "sft", "--facts", here / "facts.jsonl", "--output", "x",
                     "--min-efficacy", 1)  # fmt: skip
    assert said.code == 2 and "are about --evaluate" in said.err


def test_an_export_that_others_can_load(here, tmp_path):
    said = editbench("export", here / "edit", "--output", "a")
    assert said.code == 2 and "--base OWNER/NAME" in said.err and not (tmp_path / "a").exists()
    said = editbench("export", here / "edit", "--output", "a", "--base", here / "base")
    assert said.code == 2 and "is no hub id" in said.err
    said = editbench("export", here / "edit", "--output", "a", "--base", "owner/tiny")
    assert said.code == 0, said.err
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/tiny"
    assert (tmp_path / "a/tokenizer.json").is_file()
    assert "France" not in (tmp_path / "a/editbench.json").read_text()
    # Here it is told by its weights that this is its base, whatever its name.
    said = editbench("evaluate", "a", "--model", here / "base", "--facts", here / "facts.jsonl",
                     "--tasks", "none")  # fmt: skip
    assert said.code == 0 and "the fingerprint of its base" in said.err
    said = editbench("export", here / "edit", "--format", "merged", "--output", "m",
                     "--include-facts")  # fmt: skip
    assert said.code == 0 and "France" in (tmp_path / "m/editbench.json").read_text()
    for file in (tmp_path / "m").glob("*.json"):
        assert str(here) not in file.read_text(), file
    said = editbench("export", here / "edit", "--format", "gguf", "--output", "g")
    assert said.code == 0 and "ollama create NAME -f g/Modelfile" in said.out


def test_a_dense_edit_as_an_adapter(here, tmp_path):
    model = load_model(here / "base", precision="float32")
    tuned = inject(model, [{"prompt": "A fox is", "target": "red"}], "sft", epochs=1, min_steps=1)
    tuned.save(tmp_path / "tuned")
    said = editbench("export", "tuned", "--output", "a", "--base", "owner/tiny")
    assert said.code == 2 and "Inject again with --option lora=16" in said.err
