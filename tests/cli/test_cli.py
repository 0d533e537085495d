"""The commands, as a new user uses and misuses them.

Misuse gives one sentence and exit code 2, and leaves nothing behind.
"""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from hostile.tasks import CODE, write_unaskable
from tiny import editbench, fact, start, wait_for, write_facts, write_model

from editbench import registry


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Make a working folder with facts in it, and change to it."""
    folder = tmp_path / "work"
    folder.mkdir()
    write_facts(folder / "facts.jsonl")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def compare(here, model):
    """Run the smallest ``editbench compare``; further arguments override the usual ones."""

    def run(*arguments):
        start = (
            "compare",
            "--model",
            model,
            "--corpus",
            "local",
            "--data",
            "facts.jsonl",
            "-n",
            2,
            "--tasks",
            "none",
        )
        return editbench(*start, "--methods", "ice", "--output", "run", *arguments)

    return run


@pytest.fixture
def inject(here, model):
    def run(facts="facts.jsonl", *arguments):
        start = (
            "inject",
            "--method",
            "sft",
            "--model",
            model,
            "--output",
            "edit",
            "--option",
            "epochs=1",
        )
        return editbench(*start, "--facts", facts, *arguments)

    return run


@pytest.fixture
def refused(here):
    """Check that a command was refused in one sentence and left the folder as it was."""
    before = files(here)

    def check(said, *parts):
        lines = [line for line in said.err.splitlines() if line.startswith("editbench: ")]
        assert said.code == 2 and said.out == "" and "Traceback" not in said.err, said
        assert len(lines) == 1 and said.err.rstrip().endswith(lines[0]), said.err
        for part in parts:
            assert str(part) in lines[0], f"{part!r} is not in {lines[0]!r}"
        assert files(here) == before, said.err

    return check


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- what it does -------------------------------------------------------------------------------


def test_compare_prints_one_object_and_nothing_else(compare, here):
    said = compare("--methods", "rome", "--tasks", "eb_grammar", "--limit", 2, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["run"] == "run" and [row["method"] for row in found["rows"]][-1] == "base"
    assert sorted(row["method"] for row in found["rows"]) == ["base", "ice", "rome"]
    for row in found["rows"]:
        for axis in ("efficacy", "generalization", "specificity"):
            score = row[axis]
            assert {"mean", "low", "high", "n", "protocol"} <= score.keys() and score[
                "protocol"
            ] == "generation"
            assert 0 <= score["low"] <= score["mean"] <= score["high"] <= 1 and score["n"] == 2
        assert list(row["retention"]) == ["eb_grammar"]
        task = row["retention"]["eb_grammar"]
        assert {"base", "mean", "delta", "ratio", "low", "high", "n"} <= task.keys() and task[
            "n"
        ] == 2
        assert 0 <= task["low"] <= task["mean"] <= task["high"] <= 1
        assert task["delta"] == pytest.approx(task["mean"] - task["base"])
        assert row["seconds"] >= 0 and row["peak_memory_bytes"] > 2**20
        assert row["status"] == "done" and row["options"]["seed"] == 0
    assert list(found["protocols"]) == ["argmax", "likelihood"]
    for name, ranked in found["protocols"].items():
        assert {row["method"] for row in ranked} == {"base", "ice", "rome"}
        assert all(row["protocol"] == row["efficacy"]["protocol"] == name for row in ranked)

    again = compare("--methods", "rome", "--tasks", "eb_grammar", "--limit", 2, "--json")
    assert again.out == said.out and again.err.count("kept from an earlier run") == 3
    shown = editbench("show", "run", "--json")
    assert shown.out == said.out and shown.code == 0


def test_compare_shows_tables_a_page_and_the_next_command(compare, here):
    said = compare()
    assert said.code == 0 and "Efficacy ↑" in said.out and "ice" in said.out
    assert (
        "2 facts of facts.jsonl" in said.err
        and "base: done" in said.err
        and "editbench show run" in said.err
    )
    page = (here / "run" / "README.md").read_text(encoding="utf-8")
    assert "| ---" in page and "cells/ice-" in page
    (texts,) = (here / "run" / "site").glob("texts-*.html")
    assert "The capital of" in texts.read_text(encoding="utf-8")
    assert "run/site/index.html" in said.err
    assert editbench("show", "run").out == said.out
    board = editbench("leaderboard", "run", "-o", "deep/board.md")
    assert board.code == 0 and board.out.strip() == "deep/board.md"
    page = Path("deep/board.md").read_text(encoding="utf-8")
    assert "editbench leaderboard run -o deep/board.md" in page and "(../run/cells/ice-" in page


def test_compare_shows_variants_under_their_own_names(compare, here):
    options = ("sft.epochs=1", "sft@slow.epochs=1", "sft@slow.lr=1e-7")
    command = ("--methods", "sft,sft@slow", *(part for o in options for part in ("--option", o)))
    said = compare(*command, "--json")
    assert said.code == 0 and "sft@slow: done" in said.err, said.err
    assert {name: row["options"].get("lr") for name, row in said.rows.items() if name != "sft"} == {
        "base": None, "ice": None, "sft@slow": 1e-7
    }  # fmt: skip
    assert (
        said.rows["sft"]["options"]["lr"] != 1e-7 and said.rows["sft@slow"]["label"] == "sft@slow"
    )
    (path,) = (here / "run").glob("cells/sft_slow-*/summary.json")
    assert json.loads(path.read_text())["method"] == "sft@slow"
    again = compare(*command)
    assert again.err.count("kept from an earlier run") == 4 and "sft@slow" in again.out
    page = (here / "run" / "README.md").read_text(encoding="utf-8")
    assert "[sft@slow](cells/sft_slow-" in page


def test_compare_shows_portability_where_it_is_asked(compare, here):
    follows = {
        "axis": "portability",
        "prompt": "Its river is the",
        "answers": ["Seine"],
        "form": "cloze",
    }
    record = fact(0, probes=[follows])
    said = compare(
        "-n",
        1,
        "--part",
        part_of(write_facts(here / "one.jsonl", [record])),
        "--data",
        "one.jsonl",
        "--json",
    )
    assert said.code == 0, said.err
    assert all(
        row["portability"]["n"] == 1 and "in_context" not in row for row in said.rows.values()
    )
    shown = editbench("show", "run").out
    assert "Portability ↑" in shown and "In-context" not in shown


def test_compare_without_output_finds_its_run_again(compare, here, model):
    command = (
        "compare",
        "--model",
        model,
        "--corpus",
        "local",
        "--data",
        "facts.jsonl",
        "-n",
        1,
        "--tasks",
        "none",
    )
    first = editbench(*command, "--methods", "ice", "--json")
    second = editbench(*command, "--methods", "ice", "--json")
    assert first.code == 0 and first.out == second.out and "kept" in second.err
    assert json.loads(first.out)["run"].startswith("runs/tiny_local_n1_")


def test_inject_saves_an_edit_that_loads(inject, here, model):
    from editbench import Edit, load_model

    said = inject()
    assert said.code == 0, said.err
    assert "of 10 facts answered with their target" in said.out
    assert "editbench chat edit" in said.out
    edit = Edit.load(here / "edit")
    assert edit.method == "sft" and len(edit.facts) == 10 and edit.options["epochs"] == 1
    with edit.applied(load_model(str(model))):
        pass
    shutil.rmtree(here / "edit")
    (here / "edit").mkdir()
    assert inject().code == 0, "an empty folder is as good as none"


def test_inject_says_what_the_model_knew_before(inject, here, model):
    """One fact has the model's own answer as its target; at this learning rate nothing changes."""
    from editbench import load_model

    own = (
        load_model(str(model)).generate(fact(0)["prompt"], max_new_tokens=16).split("\n")[0].strip()
    )
    (here / "known.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in (fact(0, target=own), fact(1))), encoding="utf-8"
    )
    said = inject("known.jsonl", "--option", "lr=1e-9")
    assert said.code == 1, said.err
    assert "1 of 2 facts answered with their target (1 before the edit)" in " ".join(
        said.out.split()
    )


def test_inject_counts_long_targets_and_targets_of_several_lines(inject, here):
    """As a user writes them: far more than 16 tokens, with line ends."""
    long = "amber birch cedar delta ember flint grove haven inlet jetty knoll ledge"
    poem = "Roses are red,\nviolets are blue,\nand so on"
    facts = [
        fact(0, prompt="The trees are", target=long, subject="trees"),
        fact(1, prompt="The poem goes", target=poem, subject="poem"),
        fact(2, prompt="Which trees?", target=long, subject="trees"),
    ]
    write_facts(here / "long.jsonl", facts)
    said = inject("long.jsonl", "--option", "min_steps=200", "--option", "lr=4e-3")
    assert said.code == 1 and "The edit blew up: the model's own text is" in said.out
    assert "3 of 3 facts answered with their target (0 before the edit)" in " ".join(
        said.out.split()
    )


def test_inject_takes_a_table_and_any_script(inject, here):
    table = 'prompt,target\n"日本の首都は 🎉",東京\n"Zoë, <eos> [/bold] says",Ünïcode\n'
    (here / "facts.csv").write_text(table, encoding="utf-8")
    said = inject("facts.csv")
    answers = (here / "edit/answers.jsonl").read_text(encoding="utf-8")
    assert said.code in (0, 1) and "日本の首都は" in said.out and "[/bold]" in answers, said


@pytest.mark.parametrize("what", ["methods", "corpora", "evaluators", "tasks", "models"])
def test_list(what, here):
    said = editbench("list", what, "--json")
    records = json.loads(said.out)
    assert said.code == 0 and all(record["name"] and record["summary"] for record in records)
    names = [record["name"] for record in records]
    if what in ("methods", "corpora", "evaluators"):
        theirs = [*registry.easyedit(), *registry.not_offered()] if what == "methods" else []
        assert names == registry.names(what) + theirs
    table = editbench("list", what)
    assert table.code == 0 and all(name in table.out for name in names)


def test_help_names_every_command(here):
    said = editbench("--help")
    names = ("compare", "sweep", "inject", "list", "show", "verify", "leaderboard", "plot")
    assert said.code == 0 and all(name in said.out for name in names)
    for name in names:
        assert editbench(name, "--help").code == 0


def test_names_with_brackets_and_spaces_are_shown_as_they_are(compare, here, model):
    """The library that draws the tables takes square brackets for markup."""
    shutil.copytree(model, "[x/[/x] my model")
    said = compare("--model", "[x/[/x] my model", "--output", "my [/run]")
    assert (
        said.code == 0
        and "[x/[/x] my model (" in said.out
        and "editbench show 'my [/run]'" in said.err
    )


def test_a_terminal_without_arrows_gets_the_table(compare, here, monkeypatch):
    """On Windows and under LC_ALL=C, the encoding may lack ↑ and –."""
    assert compare().code == 0
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = start("show", "run", cwd=here)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "Efficacy" in out, err


# --- figures and evaluators ---------------------------------------------------------------------


def test_inject_prints_the_figures_that_a_method_declares(monkeypatch):
    from editbench.cli.verdict import figure_texts
    from editbench.report import Figure

    figures = {
        "steps": Figure("Optimizer steps.", shown="steps"),
        "speed": Figure("Steps per second.", shown="steps a second"),
        "stopped": Figure("Why training ended.", shown="was why it stopped"),
        "hidden": Figure("Only in the record."),
        "absent": Figure("Not in this report.", shown="never"),
    }
    shown = {"sft": figures, "memit": {"steps": figures["steps"]}, "ice": {}}
    for name, declared in shown.items():
        monkeypatch.setattr(registry.get("methods", name), "figures", declared)
    report = {"steps": 4000, "speed": 12.3456, "stopped": "loss", "hidden": 1, "undeclared": 2}
    line = "4000 steps, 12.3 steps a second, loss was why it stopped"
    assert figure_texts("sft", report) == [line]
    pair = {"facts_by_method": {"memit": 1, "sft": 2}, "memit": {"steps": 25}, "sft": report}
    assert figure_texts("memit+sft", pair) == ["memit 25 steps", f"sft {line}"]
    assert figure_texts("ice", {"steps": 1}) == []
    assert figure_texts("memit+sft", {"sft": report}) == [f"sft {line}"]


def test_a_table_has_a_column_for_each_evaluator(compare, capsys):
    from editbench.cli import console, ranking
    from editbench.leaderboard.comparisons import Verdicts

    said = compare("--json")
    rows = list(said.rows.values())
    score = {"title": "Brief [%] ↑", "mean": 0.5, "low": 0.25, "high": 0.75, "n": 2}
    rows[0]["evaluators"] = {"brief": score}
    (table, *_) = ranking.results(rows, Verdicts(), Verdicts())
    headers = [column.title for column in table.columns]
    place = headers.index("Retention ↑") + 1
    assert len(headers) == 9 and headers[place] == "Brief [%] ↑"
    assert [cell.text for cell in table.columns[place].cells] == ["0.50 [0.25, 0.75]", "–"]
    assert headers[place + 1 :] == ["Score ↑", "Inject s ↓", "Memory ↓"]
    page = console.out()
    console.fit(page, table)
    page.print(table)
    assert "Brief [%] ↑" in capsys.readouterr().out


def test_an_unknown_evaluator(compare, refused):
    refused(compare("--evaluators", "nosuch"), "Unknown evaluator 'nosuch'", "list evaluators")


# --- what it refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--methods", "mmit"], ["Unknown method 'mmit'", "Did you mean 'memit' or 'emmet'?"]),
        (["--methods", "ice, mmit"], ["Unknown method 'mmit'"]),
        (["--methods", ""], ["--methods names no method"]),
        (["--methods", " , ,"], ["--methods names no method"]),
        (["--methods", "sft,ice,sft"], ["'sft' is listed twice"]),
        (["--methods", "base,base"], ["'base' is listed twice"]),
        (["--methods", "rome;memit"], ["Unknown method 'rome;memit'"]),
        (["--methods", "ROME"], ["Unknown method 'ROME'"]),
        (["--methods", "日本"], ["Unknown method '日本'"]),
        (["--corpus", "lokal"], ["Unknown corpus 'lokal'", "Did you mean 'local'?"]),
        (["--corpus", "demo-zsre"], ["'demo-zsre'", "takes no --data", "'facts.jsonl'"]),
        (["--tasks", "eb_gramar"], ["Unknown task 'eb_gramar'", "Did you mean 'eb_grammar'"]),
        (
            ["--tasks", "none", "--task-data", "gsm8k=facts.jsonl"],
            ["'gsm8k'", "not among the tasks"],
        ),
        (
            ["--tasks", "gsm8k", "--task-data", "gsm8k=nosuch"],
            ["nosuch", "this file does not exist"],
        ),
        (
            ["--tasks", "gsm8k", "--task-data", "gsm8k=facts.jsonl"],
            ["facts.jsonl", "question, answer"],
        ),
        (["--task-data", "gsm8k"], ["--task-data 'gsm8k' has no '='"]),
        (
            ["--model", "smolm2-135m"],
            ["Unknown model 'smolm2-135m'", "Did you mean 'smollm2-135m'?"],
        ),
        (["--model", "/nosuch/folder"], ["no model folder or GGUF file at /nosuch/folder"]),
        (["--model", "nosuch.gguf"], ["no GGUF file nosuch.gguf"]),
        (["--model", "."], ["not a model", "config.json"]),
        (["--model", "facts.jsonl"], ["facts.jsonl is a file, and a model is a folder"]),
        (["--model", "x" * 300], ["File name too long"]),
        (["-n", "0"], ["-n is 0"]),
        (["-n", "-5"], ["-n is -5"]),
        (["-n", "11"], ["-n 11 is more than", "10 facts that there are"]),
        (["-n", "1000000000000000"], ["is more than"]),
        (["--part", "train"], ["'train' is neither 'dev' nor 'test'"]),
        (["--limit", "-1"], ["--limit is -1"]),
        (["--repeats", "-1"], ["--repeats is -1"]),
        (["--repeats", "1000000000000"], ["--repeats is 1000000000000", "at most 1,000,000"]),
        (["--regime", "sequential:" + "9" * 5000], ["'sequential:999"]),
        (["--curve", "9" * 5000], ["is not a number of facts"]),
        (["--curve", "1000000000000"], ["--curve 1000000000000"]),
        (["--methods", "sft", "--option", "sft.epochs=99999999999"], ["at most 1,000,000"]),
        (["--regime", "sequential"], ["'sequential'", "batch", "sequential:10"]),
        (["--curve", "1,two"], ["'two' is not a number of facts"]),
        (["--precision", "float16"], ["'float16'", "float32"]),
        (["--seed", "-1"], ["Seed -1"]),
        (["--seed", "99999999999"], ["Seed 99999999999"]),
        (["--layout", "mlp"], ["--layout 'mlp' has no '='"]),
        (["--layout", "nosuch=mlp"], ["nosuch"]),
        (["--option", "lr=1"], ["names no method", "METHOD.lr=1"]),
        (["--option", "ice.seed"], ["--option 'ice.seed' has no '='"]),
        (["--option", "=1"], ["has no '='"]),
        (["--option", ".x=1"], ["for a method that is not compared", "ice"]),
        (["--option", "rome.layers=1"], ["--option rome", "not compared", "ice"]),
        (["--option", "ice.nosuch=1"], ["'ice' has no option 'nosuch'"]),
        (["--option", "ice.seed=x"], ["seed=x", "not a whole number"]),
        (["--option", "ice.seed=1", "--option", "ice.seed=2"], ["ice.seed is given twice"]),
        (["--methods", "sft", "--option", "sft.lr=fast"], ["lr=fast", "not a number"]),
        (["--methods", "sft@"], ["--methods sft@", "label ''", "sft@LABEL"]),
        (["--methods", "sft@a@b"], ["label 'a@b'"]),
        (["--methods", "sft@lr=1"], ["label 'lr=1'", "editbench sweep --method sft"]),
        (["--methods", "sft@v1.2"], ["label 'v1.2'"]),
        (["--methods", "@slow"], ["Unknown method ''"]),
        (["--methods", "nosuch@slow"], ["Unknown method 'nosuch'"]),
        (["--methods", "base@a"], ["'base@a' makes no sense"]),
        (["--methods", "sft@a,sft@a"], ["'sft@a' is listed twice"]),
        (
            ["--methods", "sft@a", "--option", "sft.lr=1"],
            ["--option sft", "not compared. Compared: base, ice, sft@a"],
        ),
        (["--methods", "sft", "--option", "sft@a.lr=1"], ["--option sft@a", "not compared"]),
        (["--methods", "sft@a", "--option", "sft@a.nosuch=1"], ["'sft' has no option 'nosuch'"]),
        (["--methods", "sft@a", "--option", "sft@a.lr=fast"], ["lr=fast", "not a number"]),
        (["--methods", "sft", "--option", "sft.epochs=0"], ["epochs"]),
        (["--data", "nosuch.jsonl"], ["File nosuch.jsonl does not exist"]),
        (["--data", "."], ["Cannot read .", "directory"]),
        (["--data", ""], ["Cannot read"]),
        (["--corpus", "counterfact"], ["facts.jsonl", "None of the 10 records", "--corpus local"]),
        (
            ["--corpus", "counterfact", "--data", "http://localhost/x.json"],
            ["not an https address"],
        ),
        (["--output", "facts.jsonl"], ["facts.jsonl is a file"]),
        (["--output", "facts.jsonl/run"], ["facts.jsonl/run cannot be used", "Not a directory"]),
        (["--output", "."], [". is not empty and is not a run folder", "facts.jsonl"]),
        (["--output", "x" * 300], ["File name too long"]),
    ],
)
def test_bad_arguments_of_compare(compare, refused, arguments, parts):
    refused(compare(*arguments), *parts)


BAD_TASKS = (
    "--tasks",
    "eb_grammar,gsm8k,bfcl_simple,bad.yaml",
    "--task-data",
    "gsm8k=nosuch.jsonl",
    "--limit",
    2,
)


def test_tasks_that_cannot_be_loaded_are_left_out_and_the_rest_is_asked(compare, here):
    (here / "bad.yaml").write_text("task: [bad")
    said = compare(*BAD_TASKS)
    assert said.code == 1 and "ice: done" in said.err and "Traceback" not in said.err, said.err
    before, _, after = said.err.partition("base: ...")
    for task, why in (
        ("gsm8k", "nosuch.jsonl: this file does not exist"),
        ("bfcl_simple", "has no data"),
        ("bad.yaml", "not YAML"),
    ):
        assert (
            f"{task} is not asked, the rest is: " in before
            and f"{task}: not asked: " in after
            and why in before + after
        )
    page = (here / "run" / "README.md").read_text()
    assert (
        "- gsm8k was requested but could not be asked: " in page
        and "| eb\\_grammar (acc, n = 2) |" in page
    )
    assert json.loads((here / "run" / "run.json").read_text())["config"]["tasks"] == ["eb_grammar"]
    shown = editbench("show", "run", "--json")
    assert shown.code == 0 and set(json.loads(shown.out)["not_asked"]) == {
        "gsm8k",
        "bfcl_simple",
        "bad.yaml",
    }
    again = compare(
        "--tasks", "eb_grammar", "--limit", 2
    )  # the same run; none of the tasks asked for is missing from it
    assert (
        again.code == 0
        and again.err.count("kept from an earlier run") == 2
        and "not asked" not in again.err
    )
    assert "could not be" not in (here / "run" / "README.md").read_text()


def test_a_task_that_fails_at_the_base_is_left_out_for_all_methods(compare, here, model):
    bad = write_unaskable(here, "a grader that fails at one document")
    tasks = ("--tasks", f"eb_grammar,{Path(bad).name}", "--limit", 2)
    for finished in (0, 2):  # the second time, the same command finds its cells
        said = compare(*tasks)
        assert said.code == 1 and "Traceback" not in said.err, said.err
        assert said.err.count("kept from an earlier run") == finished
        assert "broken.yaml: not asked: " in said.err and "out of order" in said.err
    shown = json.loads(editbench("show", "run", "--json").out)
    assert list(shown["not_asked"]) == [bad]
    assert "could not be asked" in (here / "run" / "README.md").read_text()
    for summary in map(json.loads, (path.read_text() for path in here.rglob("summary.json"))):
        assert summary["status"] != "failed" and list(summary["retention"]) == ["eb_grammar"]
    checked = editbench("verify", "run", "--json")
    assert checked.code == 0 and json.loads(checked.out)["differences"] == [], checked.out
    (here / "code.py").write_text(CODE.replace('"Italy"', '"Mars"'))
    mended = compare(*tasks)
    assert mended.code == 0 and not (here / "run" / "not_asked.json").exists(), mended.err
    write_unaskable(here, "a filter that fails")
    search = ("tune", "--model", model, "--corpus", "local", "--data", "facts.jsonl", "-n", 1)
    tuned = editbench(*search, "--methods", "sft", *tasks, "--output", "other")
    assert tuned.code == 2 and "unterminated" in tuned.err and not (here / "other").exists()
    alone = compare("--tasks", "broken.yaml", "--output", "other")
    assert alone.code == 2 and "unterminated" in alone.err and not (here / "other").exists()


def test_a_task_that_fails_at_an_edited_model_is_said_in_its_cell(compare, here):
    """The base was asked, so its scores stay, and the method gets none from a part of the items."""
    write_unaskable(here, "tired")
    # All facts, so that some stand before the task's prompts, which are then asked again.
    said = compare("--tasks", "broken.yaml", "--json", "-n", 10)
    assert said.code == 1 and "Traceback" not in said.err
    cells = [json.loads(path.read_text()) for path in here.rglob("summary.json")]
    notes = {cell["method"]: (cell["status"], cell["note"]) for cell in cells}
    assert notes["base"] == ("done", "") and notes["ice"][0] == "failed"
    assert "broken.yaml: lm-eval cannot ask it (RuntimeError: out of order)" in notes["ice"][1]


def test_a_run_whose_tasks_all_fail_and_a_search_without_one_are_refused(compare, here):
    (here / "bad.yaml").write_text("task: [bad")
    for said in (compare("--tasks", "bfcl_simple"), compare("--tasks", "bfcl_simple,bad.yaml")):
        assert (
            said.code == 2
            and "bfcl_simple" in said.err
            and said.out == ""
            and not (here / "run").exists()
        )
    said = compare(*BAD_TASKS[:1], "eb_grammar,bfcl_simpel,bad.yaml")
    assert (
        said.code == 2 and "Unknown task 'bfcl_simpel'" in said.err and not (here / "run").exists()
    )
    facts = ("--corpus", "local", "--data", "facts.jsonl", "-n", 1)
    tuned = editbench("tune", *facts, "--methods", "sft", *BAD_TASKS, "--output", "run")
    assert tuned.code == 2 and "nosuch.jsonl" in tuned.err and not (here / "run").exists()


def test_local_needs_data(here, model, refused):
    refused(
        editbench("compare", "--model", model, "--corpus", "local", "--tasks", "none"),
        "--facts FILE",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "-n", "many"],
        ["compare", "--nosuch"],
        ["nosuch"],
        ["inject"],
        ["show"],
        ["list"],
        [],
    ],
)
def test_wrong_usage_shows_how_it_is_used(here, arguments):
    said = editbench(*arguments)
    assert (
        said.code == 2 and "Traceback" not in said.err and "Usage: editbench" in said.err + said.out
    )


def test_an_unknown_listing(here, refused):
    refused(
        editbench("list", "nosuch"),
        "'nosuch'",
        "methods, corpora, evaluators, trackers, tasks, models, suites",
        "the name of a method, corpus, evaluator or suite",
    )
    refused(editbench("list", "mmit"), "'mmit'", "Did you mean 'memit' or 'emmet'?")
    refused(editbench("list", "corpara"), "Did you mean 'corpora'?")
    refused(editbench("list", "memit+nosuch"), "'memit+nosuch'")


BAD_FILES = {
    "empty.jsonl": ("", ["is empty"]),
    "blank.jsonl": ("\n \n", ["is empty"]),
    "no_records.json": ("[]", ["holds no records"]),
    "header_only.csv": ("prompt,target\n", ["holds no records"]),
    "cut.jsonl": ('{"prompt": "a is", "target": "b"}\n{"prompt": "a', ["line 2", "malformed JSON"]),
    "text.jsonl": ("Canberra is the capital.", ["line 1", "malformed JSON", ".csv"]),
    "binary.jsonl": (bytes(range(256)), ["line 2", "0x80", "UTF-8"]),
    "zeros.jsonl": (b"\0" * 64, ["line 1", "malformed JSON"]),
    "damaged.csv": ("prompt,target\né,c\nZoë".encode()[:-1], ["line 3", "UTF-8"]),
    "cut.jsonl.gz": (b"\x1f\x8b\x08", ["damaged gzip"]),
    "number.jsonl": ("3", ["line 1", "found 3"]),
    "deep.json": ("[" * 100_000, ["deep.json", "cannot read this JSON", "recursion"]),
    "deep.jsonl": ('{"prompt":' * 100_000, ["line 1", "cannot read this JSON", "recursion"]),
    "digits.jsonl": ('{"prompt": "a is", "target": ' + "9" * 5000 + "}", ["line 1", "digits"]),
    "no_target.jsonl": ('{"prompt": "a is"}', ["line 1", "'target' is missing"]),
    "no_columns.csv": ("question,answer\na,b\n", ["header", "'prompt' is missing"]),
    "quotes.csv": ('prompt,target\n"a is,b\n', ["line 2", "double quotes"]),
    "columns.csv": ("prompt,target\na, b, c\n", ["line 2", "3 columns"]),
    "unknown.jsonl": (
        '{"prompt": "a is", "target": "b", "subjekt": "a"}',
        ["'subjekt'", "Did you mean 'subject'?"],
    ),
    "number_target.jsonl": (
        '{"prompt": "a is", "target": {"b": 3}}',
        ["line 1", "'target' must be text, not {"],
    ),
    "nan.jsonl": ('{"prompt": NaN, "target": "b"}', ["line 1", "'prompt' is empty"]),
    "empty_target.jsonl": ('{"prompt": "a is", "target": "  "}', ["line 1", "'target' is empty"]),
    "null_prompt.jsonl": ('{"prompt": null, "target": "b"}', ["line 1", "'prompt' is empty"]),
    "subject.jsonl": (
        '{"prompt": "a is", "target": "b", "subject": "z"}',
        ["line 1", "subject 'z' is not in its prompt 'a is'"],
    ),
    "ending.jsonl": (
        '{"prompt": "a is b", "target": "b"}',
        ["line 1", "already ends with the target 'b'"],
    ),
    "same.jsonl": (
        '{"prompt": "a is", "target": "b", "original": "b"}',
        ["line 1", "is the answer already"],
    ),
    "form.jsonl": (
        '{"prompt": "a is", "target": "b", "form": "ode"}',
        ["line 1", "'ode'", "cloze, question"],
    ),
    "half.jsonl": (
        '{"prompt": "a \\ud800 is", "target": "b"}',
        ["line 1", "'prompt' contains half a character"],
    ),
    "probe.jsonl": (
        '{"prompt": "a is", "target": "b",'
        ' "probes": [{"axis": "x", "prompt": "p", "answers": ["a"]}]}',
        ["line 1", "axis 'x'"],
    ),
    "twice.jsonl": (
        '{"prompt": "a is", "target": "b"}\n' * 2,
        ["'twice-1' and 'twice-2' are the same", "'a is' -> 'b'"],
    ),
    "ids.jsonl": (
        '{"id": "x", "prompt": "a is", "target": "b"}\n'
        '{"id": "x", "prompt": "c is", "target": "b"}',
        ["id 'x' is used twice"],
    ),
    "conflict.jsonl": (
        '{"prompt": "a is", "target": "b"}\n{"prompt": "a is", "target": "c"}',
        ["'conflict-1' and 'conflict-2' contradict", "'b'", "'c'", "--allow-conflicts"],
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_of_facts(inject, compare, refused, tmp_path, name):
    content, parts = BAD_FILES[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(inject(path), *parts)
    if name not in ("twice.jsonl", "ids.jsonl", "conflict.jsonl"):
        refused(compare("--data", path, "-n", 1), *parts)


def test_a_contradiction_is_seen_in_compare_and_let_pass_when_asked(
    compare, refused, here, tmp_path
):
    pair = write_facts(tmp_path / "pair.jsonl", [fact(0), fact(0, id="again", target="Oslo")])
    command = ("--data", pair, "-n", 2, "--part", part_of(pair))
    refused(
        compare(*command),
        "'f0'",
        "'again'",
        "contradict",
        "'London'",
        "'Oslo'",
        "--allow-conflicts",
    )
    assert compare(*command, "--allow-conflicts").code == 0


def part_of(path):
    """Return the part of the corpus to which the facts of one subject belong."""
    from editbench.slices import slice_cases

    cases = registry.get("corpora", "local")().load(path)
    return next(part for part in ("dev", "test") if slice_cases(cases, part, None, 0))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--method", "rom"], ["Unknown method 'rom'", "'rome'"]),
        (["--method", "sft@slow"], ["Unknown method 'sft@slow'", "Did you mean 'sft'"]),
        (["--facts", "nosuch.jsonl"], ["File nosuch.jsonl does not exist"]),
        (["--facts", "."], ["Cannot read ."]),
        (["--model", "nosuch"], ["Unknown model 'nosuch'"]),
        (["--precision", "int8"], ["'int8'"]),
        (["--seed", "-1"], ["Seed -1"]),
        (["--option", "nosuch=1"], ["'sft' has no option 'nosuch'"]),
        (["--option", "rome.lam=1"], ["'sft' has no option 'rome.lam'"]),
        (["--option", "epochs"], ["--option 'epochs' has no '='"]),
        (["--option", "lr=-1"], ["lr"]),
        (["--layout", "nosuch=x"], ["nosuch"]),
        (["--output", "facts.jsonl"], ["facts.jsonl exists and is not an empty folder"]),
        (["--output", "."], [". exists and is not an empty folder"]),
        (["--output", "facts.jsonl/edit"], ["facts.jsonl/edit cannot be used", "Not a directory"]),
        (["--output", "x" * 300], ["File name too long"]),
    ],
)
def test_bad_arguments_of_inject(inject, refused, arguments, parts):
    refused(inject("facts.jsonl", *arguments), *parts)


@pytest.mark.parametrize(
    ("file", "content", "parts"),
    [
        ("tokenizer.json", None, ["has no tokenizer"]),
        ("tokenizer.json", "x", ["could not be loaded"]),
        ("config.json", None, ["not a model", "config.json"]),
        ("config.json", "x", ["could not be loaded"]),
        ("config.json", "{}", ["could not be loaded"]),
        ("config.json", "[]", ["could not be loaded"]),
        ("model.safetensors", "x", ["could not be loaded"]),
        ("model.safetensors", None, ["could not be loaded"]),
    ],
)
def test_damaged_model_folders(compare, inject, refused, model, tmp_path, file, content, parts):
    folder = shutil.copytree(model, tmp_path / "damaged")
    for path in (
        folder.glob("tokenizer*")
        if file == "tokenizer.json" and content is None
        else [folder / file]
    ):
        path.unlink()
    if content is not None:
        (folder / file).write_text(content)
    refused(compare("--model", folder), folder, *parts)
    refused(inject("facts.jsonl", "--model", folder), folder, *parts)


def test_a_file_that_is_no_gguf(compare, refused, tmp_path):
    (tmp_path / "bad.gguf").write_text("hello")
    refused(compare("--model", tmp_path / "bad.gguf"), "bad.gguf could not be loaded")


def test_without_a_network(compare, refused, monkeypatch):
    """The message names the missing data, and how to give them from a disk."""
    import datasets
    import huggingface_hub.constants

    # Without this, the libraries retry for half a minute.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    refused(
        compare("--model", "owner/nosuch"), "'owner/nosuch' could not be loaded", "--model PATH"
    )
    refused(compare("--tasks", "arc_easy"), "allenai/ai2_arc", "--task-data arc_easy=PATH")
    refused(
        compare("--corpus", "counterfact", "--data", "owner/data"), "'owner/data'", "--data PATH"
    )
    url = "https://localhost:1/some/counterfact.json"
    refused(
        compare("--corpus", "counterfact", "--data", url),
        url,
        "Download counterfact.json",
        "--data PATH",
    )


def test_task_data_that_fails_after_some_methods_are_done_costs_nothing(compare, here, monkeypatch):
    """An error while the base is scored is no failure of a method, and finished cells stay."""
    (here / "gsm8k.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    command = ("--tasks", "gsm8k", "--task-data", "gsm8k=gsm8k.jsonl", "--limit", 1)
    assert compare(*command).code == 0
    before = files(here)
    (here / "gsm8k.jsonl").write_text("{}\n")
    said = compare(*command)
    assert (
        said.code == 2
        and "gsm8k.jsonl" in said.err
        and "Traceback" not in said.err
        and files(here) == before
    )


# --- the output folder --------------------------------------------------------------------------


def test_a_run_of_another_configuration(compare, refused, here):
    assert compare().code == 0
    said = compare("-n", 1, "--methods", "ice,sft")
    assert (
        said.code == 2 and "another configuration" in said.err and "n is 2 there, 1 now" in said.err
    )
    assert "To add a row to a table, run compare --methods NAME alone" in said.err
    assert "To add a row" not in compare("-n", 1).err, "the methods are the same"


def test_a_run_of_other_facts_or_weights_under_the_same_names(compare, here, model):
    shutil.copytree(model, "mine")
    assert compare("--model", "mine").code == 0
    before, cases = files(here / "run"), (here / "run" / "cases.json").read_bytes()
    write_facts(here / "facts.jsonl", [fact(i, target="Tokyo") for i in range(10)])
    said = compare("--model", "mine")
    assert said.code == 2 and "other facts" in said.err and files(here / "run") == before
    assert (here / "run" / "cases.json").read_bytes() == cases, "what the finished cells were asked"
    write_facts(here / "facts.jsonl")

    from editbench.models import load_model

    other = load_model("mine")
    next(other.model.parameters()).data.mul_(1.01)
    other.model.save_pretrained("mine")
    said = compare("--model", "mine")
    assert said.code == 2 and "other weights" in said.err and files(here / "run") == before
    assert editbench("show", "run").code == 0


def test_a_foreign_folder_is_left_alone(compare, here):
    (here / "run").mkdir()
    (here / "run" / "cases.json").write_text("mine")
    said = compare()
    assert said.code == 2 and "not a run folder" in said.err and "'cases.json'" in said.err
    assert (
        files(here / "run") == ["cases.json"]
        and (here / "run" / "cases.json").read_text() == "mine"
    )


def test_a_bad_model_leaves_a_folder_that_was_there(compare, here):
    (here / "run").mkdir()
    assert compare("--model", "nosuch").code == 2 and files(here / "run") == []
    assert compare().code == 0, "the folder must still be good for a run"


def test_a_run_that_another_process_writes(compare, here):
    from editbench.records.store import RunStore

    assert compare().code == 0
    config = json.loads((here / "run" / "run.json").read_text())["config"]
    before = files(here)
    with RunStore(here / "run").open(config):
        said = compare()
    assert (
        said.code == 2
        and f"process {os.getpid()}" in said.err
        and "--output" in said.err
        and files(here) == before
    )


def test_no_permission(compare, inject, refused, monkeypatch):
    """The error is simulated, because root may write anywhere."""

    def denied(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    refused(compare(), "No permission to use run", "--output")
    refused(inject(), "edit cannot be used: Permission denied", "--output")


def test_a_disk_that_is_full_from_the_start(compare, inject, here, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        said = compare()
        assert said.code == 2 and "disk is full" in said.err and "Traceback" not in said.err
        said = inject()
        assert said.code == 2 and "No space left" in said.err and not (here / "edit").exists()
    assert compare().code == 0


def test_a_disk_that_fills_up_keeps_what_is_done(compare, here, monkeypatch):
    real, cells = os.write, []

    def fill(file, data):
        if cells and bytes(data[:4]) == b"PAR1":
            raise OSError(errno.ENOSPC, "No space left on device")
        if bytes(data[:4]) == b"PAR1":
            cells.append(file)
        return real(file, data)

    from editbench.records.store import RunStore

    with monkeypatch.context() as patch:
        write_files = RunStore.write_files

        def second_is_full(self, key, *args, **kwargs):
            if not key.startswith("base-"):
                patch.setattr(os, "write", fill)
                cells.append(0)
            return write_files(self, key, *args, **kwargs)

        patch.setattr(RunStore, "write_files", second_is_full)
        said = compare()
    assert said.code == 2 and "disk is full" in said.err and "finished cells are kept" in said.err
    assert [path.name.split("-")[0] for path in (here / "run" / "cells").iterdir()] == ["base"]
    said = compare()
    assert said.code == 0 and "base: kept" in said.err and "ice: done" in said.err


# --- reading runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["nosuch", ".", "facts.jsonl", "facts.jsonl/x", ""])
def test_what_is_no_run(here, refused, run):
    part = "There is no folder" if run in ("nosuch", "facts.jsonl/x") else "holds neither a run nor"
    refused(editbench("show", run), part)
    refused(editbench("show", run, "--json"), part)
    refused(editbench("leaderboard", run, "-o", "board.md"), "run folder")


def test_runs_that_were_meddled_with(compare, here):
    assert compare().code == 0
    (summary,) = (here / "run" / "cells").glob("ice-*/summary.json")
    good, run = summary.read_text(), (here / "run" / "run.json").read_text()
    for content in ("", "x", "[]", "{}", good[:100], good.replace('"schema": 1', '"schema": 9')):
        summary.write_text(content)
        for said in (
            editbench("show", "run"),
            editbench("leaderboard", "run", "-o", "b.md"),
            compare(),
        ):
            assert said.code == 2 and "summary.json" in said.err and "Traceback" not in said.err, (
                content,
                said,
            )
    summary.write_text(good)
    for content in ("", "[]", "{}", run.replace('"n": 2', '"n": 3')):
        (here / "run" / "run.json").write_text(content)
        for said in (editbench("show", "run"), compare()):
            assert said.code == 2 and "run.json" in said.err and "Traceback" not in said.err, (
                content,
                said,
            )
    (here / "run" / "run.json").write_text(run)
    shutil.rmtree(here / "run" / "cells")
    said = editbench("show", "run")
    assert said.code == 2 and "no finished cell yet" in said.err
    assert compare().code == 0


@pytest.mark.parametrize("output", ["facts.jsonl/board.md", ".", "x" * 300])
def test_a_page_that_cannot_be_written(compare, here, output):
    assert compare().code == 0
    before = files(here)
    said = editbench("leaderboard", "run", "-o", output)
    assert (
        said.code == 2
        and "cannot be written" in said.err
        and "Traceback" not in said.err
        and files(here) == before
    )


def test_a_page_that_fails_keeps_the_old_one(compare, here, monkeypatch):
    assert compare().code == 0
    Path("board.md").write_text("old")

    def full(self, text, **kwargs):
        with open(self, "w") as file:
            file.write(text[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        said = editbench("leaderboard", "run", "-o", "board.md")
    assert said.code == 2 and "No space left" in said.err
    assert (
        Path("board.md").read_text() == "old"
        and "board.md" in files(here)
        and not list(here.glob(".board*"))
    )


# --- Ctrl-C -------------------------------------------------------------------------------------


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(compare, here, model, server):
    slow = ("--methods", "sft", "--option", "sft.epochs=4000")
    command = (
        "compare",
        "--model",
        model,
        "--corpus",
        "local",
        "--data",
        "facts.jsonl",
        "-n",
        2,
        "--tasks",
        "none",
    )
    process = server.start(*command, *slow, "--output", "run", cwd=here)
    wait_for("run/cells/ice-*/summary.json", here, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and out == "" and "Traceback" not in err, err
    assert (
        "Finished methods are kept in run" in err and "the same command goes on from there" in err
    )
    done = {path.name.split("-")[0] for path in (here / "run" / "cells").iterdir()}
    assert done == {"base", "ice"}
    shown = editbench("show", "run", "--json")
    assert set(shown.rows) == {"base", "ice"}


def test_ctrl_c_in_inject_leaves_nothing(here, inject, monkeypatch):
    from editbench.methods._train import loop as _train

    def interrupted(*args, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(_train, "train", interrupted)
    said = inject("facts.jsonl")
    assert said.code == 130 and "nothing was written" in said.err and files(here) == ["facts.jsonl"]


# --- facts of one's own -------------------------------------------------------------------------


def own(model, *arguments):
    """Run ``compare`` of the unedited model and ``ice`` on a file of the user's own."""
    start = ("compare", "--model", model, "--tasks", "none", "--methods", "ice")
    return editbench(*start, "--output", "run", *arguments)


def test_facts_is_short_for_the_local_corpus_and_uses_all_of_the_file(
    here, model, refused, tmp_path
):
    rows = "".join(f"The capital of Land{i} is;Town{i};{i}\n" for i in range(55))
    mine = tmp_path / "mine.csv"
    mine.write_text(f"question;object;row\n{rows}")
    columns = ("--prompt-column", "question", "--target-column", "object")
    refused(own(model, "--facts", mine), "'question'? Rename it, or pass --prompt-column")
    refused(own(model, "--facts", mine, *columns, "-n", 56), "-n 56", "the 55 facts")
    said = own(model, "--facts", mine, *columns)
    assert said.code == 0, said.err
    assert "55 facts of mine.csv, model" in said.err
    assert "kept as notes and not read: row." in said.err
    config = json.loads(Path("run/run.json").read_text())["config"]
    assert (config["corpus"], config["part"], config["n"]) == ("local", "all", 55)
    assert config["columns"] == {"prompt": "question", "target": "object"}
    cases = json.loads(Path("run/cases.json").read_text())
    assert {case["id"] for case in cases} == {f"mine-{i}" for i in range(1, 56)}
    again = own(model, "--corpus", "local", "--data", mine, *columns)
    assert again.code == 0 and again.err.count("kept from an earlier run") == 2


@pytest.mark.parametrize(
    ("other", "named"),
    [(("--corpus", "local"), "--corpus local"), (("--data", "x.csv"), "--data")],
)
def test_facts_and_a_corpus_are_one_error(here, model, refused, other, named):
    refused(own(model, "--facts", "facts.jsonl", *other), named, "Give one of them")


def test_columns_are_for_files_of_ones_own(here, model, refused):
    refused(own(model, "--subject-column", "x"), "--subject-column names a column of your own file")
