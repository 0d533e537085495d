"""A Python session: compare, evaluate and load_run give tables; reprs are short."""

import json
import math

import pandas
import pytest
from rich.console import Console
from tiny import editbench as command
from tiny import fact, write_facts, write_model

import editbench
from editbench.errors import EditbenchError, OptionError, RecordError

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    write_model(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def model(here):
    return editbench.load_model("tiny")


@pytest.fixture(scope="module")
def results(here, model):
    facts = [fact(i) for i in range(4)]
    facts[0]["prompt"] = facts[0]["prompt"].replace("The capital", f"{HOSTILE} The capital")
    return editbench.compare(
        ["sft"],
        model=model,
        facts=facts,
        tasks="eb_arithmetic",
        limit=4,
        options={"sft": {"epochs": 2}},
    )


def test_the_table_is_the_ranking_of_the_command(results, here):
    table = results.table()
    assert table.index.tolist()[-1] == "base" and set(table.index) == {"sft", "ice", "base"}
    rows = {row["method"]: row for row in results.rows}
    for method, row in rows.items():
        assert table.loc[method, "efficacy"] == row["efficacy"]["mean"]
        high = row["retention_mean"]["high"]
        assert math.isnan(table.loc[method, "retention_high"]) == (high is None)
        assert table.loc[method, "status"] == row["status"]
    shown = command("show", results.folder).out
    assert f"{table.loc['sft', 'efficacy']:.2f} [" in shown
    argmax = results.table("argmax")
    assert argmax.loc["base", "specificity"] == 1
    for wrong in ("judge", "nosuch"):
        with pytest.raises(OptionError, match="generation, argmax, likelihood, judge"):
            results.table(wrong)


def test_probes_and_retention_are_the_rows_behind_the_table(results):
    probes, retention = results.probes, results.retention
    assert isinstance(probes, pandas.DataFrame) and isinstance(retention, pandas.DataFrame)
    rewrites = probes[(probes["method"] == "sft") & (probes["axis"] == "rewrite")]
    assert rewrites["generation"].mean() == results.table().loc["sft", "efficacy"]
    assert len(retention) == 3 * 4 and set(retention["task"]) == {"eb_arithmetic"}
    assert {"method", "seed", "score"} <= set(retention.columns)


def test_a_run_looks_the_same_in_a_terminal_and_in_a_notebook(results):
    assert repr(results) == f"Results(3 methods, 4 facts, folder={str(results.folder)!r})"
    page = Console(width=80)
    with page.capture() as captured:
        page.print(results)
    said = captured.get()
    assert "Efficacy" in said and "n=4" in said and "eb_arithmetic" in said
    assert "Efficacy" in str(results)
    html = results._repr_html_()
    assert html.count("<table>") == 2 and "Efficacy ↑" in html and "<td" in html


def test_nothing_of_a_record_is_markup_in_a_notebook(here):
    from editbench.cli.sheet import Cell, Column, Sheet

    sheet = Sheet([Column(HOSTILE, [Cell(HOSTILE)])], title=HOSTILE, caption=HOSTILE)
    assert "<script" not in sheet.html() and sheet.html().count("&lt;script&gt;") == 4


def test_a_stored_run_is_loaded(results, here):
    loaded = editbench.load_run(results.folder)
    pandas.testing.assert_frame_equal(loaded.table(), results.table())
    assert loaded.warnings == results.warnings
    with pytest.raises(RecordError):
        editbench.load_run(here / "nowhere")


def test_seeds_are_one_row_with_their_spread(here, model):
    write_facts(here / "facts.jsonl")
    several = editbench.compare(
        "ice", model=model, facts="facts.jsonl", n=3, part="test", tasks="none", seeds=[0, 1]
    )
    table = several.table()
    assert table.index.is_unique and "efficacy_spread" in table and "retention" in table
    assert set(several.probes["seed"]) == {0, 1}
    assert "±" in str(several) and (several.folder / "seed1").is_dir()


def test_the_same_call_resumes_its_run(results, here, model, capsys):
    again = editbench.compare(
        "sft",
        model=model,
        facts=results_facts(results),
        tasks="eb_arithmetic",
        limit=4,
        options={"sft": {"epochs": 2}},
    )
    assert again.folder == results.folder
    assert capsys.readouterr().err.count("kept from an earlier run") == 3


def test_a_loaded_model_has_its_own_dtype(here):
    write_facts(here / "facts.jsonl")
    asked = {"facts": "facts.jsonl", "n": 2, "part": "test", "tasks": "none"}
    loaded = editbench.load_model("tiny", dtype="bfloat16")
    held = editbench.compare("ice", model=loaded, **asked)
    assert json.loads((held.folder / "run.json").read_text())["config"]["dtype"] == "bfloat16"
    named = {"model": "tiny", "dtype": "bfloat16", "precision": loaded.precision}
    assert editbench.compare("ice", **named, **asked).folder == held.folder


def results_facts(results):
    (file,) = results.folder.parent.glob("facts_*.jsonl")
    return file


def test_an_edit_is_evaluated_as_it_is(here, model):
    facts = [fact(i) for i in range(3)]
    taught = [{k: f[k] for k in ("id", "prompt", "target", "subject")} for f in facts]
    edit = editbench.inject(model, taught, method="sft", epochs=1)
    scored = editbench.evaluate(edit, model=model, tasks="none")
    assert scored.table().index.tolist() == ["edit", "base"]
    saved = edit.save(here / "mine")
    again = editbench.evaluate(saved, facts=facts, model="tiny", tasks="none")
    assert "generalization" in again.table() and len(again.probes) > len(scored.probes)


def test_wrong_input_is_one_sentence(here, model):
    for wrong in (
        {"methods": "mmit"},
        {"facts": "nowhere.csv"},
        {"facts": []},
        {"tasks": "nosuch"},
        {"options": {"memit": {"lam": 1}}},
        {"regime": "both"},
        {"dtype": "int8", "model": "tiny"},
        {"workers": 2},
    ):
        with pytest.raises(EditbenchError) as error:
            editbench.compare(**{"methods": "ice", "model": model, "tasks": "none", **wrong})
        assert "\n" not in str(error.value)


def test_reprs_are_short(model):
    facts = [editbench.Fact("f1", "The capital of France is", "Rome")]
    edit = editbench.inject(model, facts, method="sft", epochs=1)
    assert repr(facts[0]) == "Fact('f1': 'The capital of France is' -> 'Rome')"
    assert repr(edit).startswith("Edit('sft', 1 fact, ") and len(repr(edit)) < 120
    assert repr(model) == f"LanguageModel('tiny', 2 layers, {model.precision}, cpu)"
    with edit.applied(model):
        assert repr(model).endswith("cpu, 1 applied edit)")


def test_the_public_names_are_listed():
    assert dir(editbench) == sorted(editbench.__all__)
    assert {"compare", "evaluate", "inject", "load_model", "load_run"} <= set(dir(editbench))


def test_a_question_is_asked_as_on_the_command_line():
    from editbench.testing import tiny_model

    chat = tiny_model("llama", chat=True)
    question = "What is the capital of France?"
    assert chat.generate(question) == chat.generate(question, "question")
    assert chat.generate("The capital is") == chat.generate("The capital is", "cloze")
    assert chat.prompt_ids(question, "question") != chat.prompt_ids(question, "cloze")
