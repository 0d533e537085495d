"""From a file of facts without probes to a table: ``facts --write-probes``, ``compare --facts``."""

from __future__ import annotations

import datetime
import io
import json
from contextlib import redirect_stdout, suppress
from dataclasses import replace

import pandas
import pytest
from tiny import editbench

from editbench import inject
from editbench.cli.app import main
from editbench.registry import get
from editbench.run.write_facts import write_facts
from editbench.testing import tiny_model
from editbench.types import Case, Fact, Probe

HEADER = "prompt,target,subject,paraphrases,source\n"
FACT = {"id": "1", "prompt": "A is", "target": "B"}
FACTS = HEADER + (
    "The city of Bergen lies in,Chile,Bergen,,page 3\n"
    "Who runs Velmora?,Jane Okafor,Velmora,Velmora is run by whom?,\n"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny model that has learned to say some answers, and is sure of them."""
    folder, tiny = tmp_path_factory.mktemp("model") / "merged", tiny_model("llama")
    names = ("Lyon", "Munich", "Nagoya", "Seville")
    answers = ("France", "Germany", "Japan", "Spain")
    taught = [
        {"prompt": prompt.format(name), "target": answer}
        for name, answer in zip(names, answers, strict=True)
        for prompt in ("The city of {} lies in", "Who runs {}?")
    ]
    inject(tiny, taught, "sft", epochs=60, lr=3e-3).merge(tiny, folder)
    return folder


def read(path):
    return get("corpora", "local")().load(path)


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.xlsx", "out.json", "out.jsonl"])
def test_drafts_are_written_and_read_again(tmp_path, model, name):
    facts, out = tmp_path / "facts.csv", tmp_path / name
    facts.write_text(FACTS)
    said = editbench("facts", facts, "--model", model, "--write-probes", out)
    assert said.code == 0, said.err
    shown = " ".join(said.out.split())  # however the lines were broken
    assert "2 facts, with 2 drafted paraphrases and 4 drafted neighborhood prompts" in shown
    assert f"editbench compare --facts {out}" in shown
    assert "behind a lead-in, the same words and no rewording. Write at least one of your" in shown
    first, second = read(out)
    assert [case.fact for case in (first, second)] == [case.fact for case in read(facts)]
    assert first.notes == {"source": "page 3"}
    assert [p.kind for p in first.probes[1:]] == ["drafted"] * 4
    # What the user wrote is not drafted, although the same row has drafts.
    assert [(p.axis, p.kind) for p in second.probes[1:]] == [
        ("paraphrase", None),
        ("neighborhood", "drafted"),
        ("neighborhood", "drafted"),
    ]


def test_found_subjects_and_a_column_for_neighbors_are_written(tmp_path, model, monkeypatch):
    monkeypatch.setattr("editbench.run.drafts.CONFIDENCE", 1.1)  # the model is sure of nothing
    facts, out = tmp_path / "facts.csv", tmp_path / "out.csv"
    facts.write_text("prompt,target\nThe city of Bergen lies in,Chile\nthe use of karsk is,art\n")
    said = editbench("facts", facts, "--model", model, "--write-probes", out)
    shown = " ".join(said.out.split())
    assert said.code == 0 and "1 of them may be wrong: facts-2." in shown, said
    table = pandas.read_csv(out)
    assert list(table["subject"]) == ["Bergen", "karsk"]
    assert table["neighborhoods"].isna().all()  # to be filled in
    # With these subjects, the pair divides the facts.
    assert all(case.fact.subject for case in read(out))


def test_a_table_can_be_edited_and_keeps_a_text_that_looks_like_a_formula(tmp_path):
    fact = Fact.from_dict({"prompt": "Two and two are written", "target": "=2+2"})
    path = tmp_path / "facts.xlsx"
    write_facts(path, [Case.build(fact)])
    assert read(path)[0].fact.target == "=2+2"
    table = pandas.read_excel(path)
    assert list(table.columns) == ["id", "prompt", "target"]  # no empty columns


def test_what_a_table_cannot_hold_is_refused(tmp_path):
    fact = Fact.from_dict({"prompt": "A is", "target": "B"})
    case = Case.build(fact, [Probe("portability", "A leads to", ("C",))])
    with pytest.raises(Exception, match="A table cannot hold all of fact .* Name a .jsonl file"):
        write_facts(tmp_path / "facts.csv", [case])
    assert not list(tmp_path.iterdir())
    write_facts(tmp_path / "facts.jsonl", [case])
    assert read(tmp_path / "facts.jsonl") == [case]


@pytest.mark.parametrize("name", ["out.csv", "out.xlsx", "out.json"])
def test_a_mended_target_is_that_of_the_drafts_as_well(tmp_path, name):
    neighbor = Probe("neighborhood", "C is", ("D",), "B", "cloze")
    drafted = Probe("paraphrase", "So, A is", ("B",), None, "cloze", kind="drafted")
    path = tmp_path / name
    # A fact with neighbors of its own gets its drafted paraphrases after them.
    write_facts(path, [Case.build(Fact.from_dict(FACT), [neighbor, drafted])])
    if name == "out.json":
        path.write_text(path.read_text().replace('"target": "B"', '"target": "E"'))
    else:
        table = pandas.read_csv(path) if name == "out.csv" else pandas.read_excel(path)
        write = (
            table.assign(target="E").to_csv
            if name == "out.csv"
            else table.assign(target="E").to_excel
        )
        write(path, index=False)
    (case,) = read(path)
    assert [(p.axis, p.answers, p.distractor, p.kind) for p in case.probes] == [
        ("rewrite", ("E",), None, None),
        ("paraphrase", ("E",), None, "drafted"),
        ("neighborhood", ("D",), "E", None),
    ]


@pytest.mark.parametrize("name", ["out.csv", "out.xlsx", "out.json"])
def test_notes_of_any_kind_are_written_and_take_no_field_s_place(tmp_path, name):
    day = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
    notes = {"Prompt": "system text", "when": day, "tags": ["x", {"y": 1}], "pages": 3}
    without = Case.build(Fact.from_dict({**FACT, "id": "2", "prompt": "C is"}))
    write_facts(tmp_path / name, [replace(Case.build(Fact.from_dict(FACT)), notes=notes), without])
    first, second = read(tmp_path / name)
    assert first.fact.prompt == "A is" and not second.notes
    assert first.notes["Prompt (note)"] == "system text" and str(first.notes["pages"]) == "3"
    assert first.notes["when"] == "2024-05-01 00:00:00+00:00" and "y" in str(first.notes["tags"])


def test_no_file_is_overwritten(tmp_path, model):
    facts, out = tmp_path / "facts.csv", tmp_path / "out.csv"
    facts.write_text(FACTS)
    out.write_text("mine")
    again = editbench("facts", facts, "--model", model, "--write-probes", out)
    assert again.code == 2 and "the file exists" in again.err and out.read_text() == "mine"
    same = editbench("facts", facts, "--model", model, "--write-probes", facts, "--overwrite")
    assert same.code == 2 and facts.read_text() == FACTS
    odd = editbench("facts", facts, "--model", model, "--write-probes", tmp_path / "out.docx")
    assert odd.code == 2 and ".xlsx" in odd.err
    lost = editbench("facts", facts, "--model", model, "--write-probes", tmp_path / "no" / "a.csv")
    assert lost.code == 2 and "there is no folder" in lost.err
    none = editbench("facts", facts, "--model", "none", "--write-probes", tmp_path / "a.csv")
    assert none.code == 2 and "--model none" in none.err
    assert (
        editbench("facts", facts, "--model", model, "--write-probes", out, "--overwrite").code == 0
    )


def test_nothing_is_drafted_for_a_file_that_must_be_mended(tmp_path, model):
    facts, out = tmp_path / "facts.csv", tmp_path / "out.csv"
    facts.write_text(HEADER + "A is,B,,,\nA is,C,,,\n")
    said = editbench("facts", facts, "--model", model, "--write-probes", out)
    assert said.code == 1 and "Nothing was drafted" in said.err and not out.exists()


class Terminal(io.StringIO):
    """A text that takes itself for a terminal."""

    def isatty(self):
        return True


def shown_at_80(monkeypatch, run):
    """Return what a terminal of 80 columns shows of a run."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["editbench", "show", str(run)])
    terminal = Terminal()
    with redirect_stdout(terminal), suppress(SystemExit):
        main()
    return terminal.getvalue()


def test_scores_of_drafts_are_marked_and_those_of_checked_probes_are_not(
    tmp_path, monkeypatch, model
):
    facts, out = tmp_path / "facts.csv", tmp_path / "out.csv"
    facts.write_text(FACTS)
    said = editbench("facts", facts, "--model", model, "--write-probes", out, "--json")
    assert json.loads(said.out)["drafted"] == {
        "file": str(out),
        "paraphrases": 2,
        "neighborhoods": 4,
        "missing": {},
    }
    given = ("compare", "--model", model, "--methods", "rome", "--tasks", "none")
    shown = editbench(*given, "--facts", out, "--output", tmp_path / "run")
    assert shown.code == 0, shown.err
    assert "Specificity ↑ ¶" in shown.out and "4 of 4 for specificity" in shown.err
    # In a narrow terminal the scores are broken over lines, but never cut.
    narrow = shown_at_80(monkeypatch, tmp_path / "run")
    assert "[0.00, 0.99]" in narrow and "…" not in narrow
    assert "local, n=2," in narrow
    table = pandas.read_csv(out).assign(drafted="no")
    table.to_csv(out, index=False)
    checked = editbench(*given, "--facts", out, "--output", tmp_path / "checked")
    assert checked.code == 0 and "¶" not in checked.out + checked.err
