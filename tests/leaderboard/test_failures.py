"""The texts behind the numbers: what failed, where methods differ, one case. No text does harm."""

import itertools
import json
from pathlib import Path

import pytest
from tiny import editbench
from written import HOSTILE, PARTS, probe, sample, write_hostile, write_run

from editbench.cli import console
from editbench.errors import RecordError
from editbench.files import write_json_atomic
from editbench.leaderboard.failures import case, differences, failures
from editbench.leaderboard.website import texts_page
from editbench.records.reading import visible
from editbench.records.store import RunStore


def test_a_denial_is_the_failure_and_a_text_has_none(tmp_path):
    talks = [
        probe("a", 4, "denial", "No.", "Yes.", 1.0),
        probe("a", 5, "reversion", "Yes, Rome.", "Paris", 0.0),
        probe("a", 6, "fluency", "la la la", "a text", 0.0),
        probe("a", 7, "reversion", "", "", None),
    ]
    run = write_run(tmp_path / "run", {"base": (talks, [], []), "sft": (talks, [], [])})
    assert [one["axis"] for one in failures(run)] == ["denial"]


@pytest.fixture
def run(tmp_path):
    base = [
        probe("a", 0, "rewrite", "Paris", "Paris", 0.0),
        probe("a", 1, "paraphrase", "Paris", "Paris", 0.0),
        probe("a", 2, "neighborhood", "Oslo", "Oslo", 1.0),
    ]
    cells = {
        "base": (base, [sample(0, "blue", 1.0), sample(1, "blue", 1.0)], []),
        "sft": (
            [
                {**base[0], "text": "Rome", "generation": 1.0},
                {**base[1], "text": "Lyon", "generation": 0.0},
                {**base[2], "text": "Rome", "generation": 0.0},
            ],
            [sample(0, "blue", 1.0), sample(1, "red", 0.0)],
            [{"fact": "a", "steps": 3}, {"fact": "b", "steps": 4}],
        ),
        "rome": (
            [
                {**base[0], "text": "Rome", "generation": 1.0},
                {**base[1], "text": "Rome", "generation": 1.0},
                base[2],
            ],
            [sample(0, "blue", 1.0), sample(1, "blue", 1.0)],
            [],
        ),
        "memit": "no third layer",
    }
    return write_run(tmp_path / "run", cells)


def test_failures_are_the_probes_that_score_nothing(run):
    found = failures(run)
    assert [(one["method"], one["axis"], one["base"], one["edited"]) for one in found] == [
        ("sft", "paraphrase", "Paris", "Lyon"),
        ("sft", "neighborhood", "Oslo", "Rome"),
    ]
    assert (
        found[0]["expected"] == "Rome"
        and found[0]["prompt"] == "paraphrase of a is"
        and found[0]["case"] == "a"
    )
    assert found[0]["scores"] == {"generation": 0.0, "argmax": 1.0, "likelihood": None}
    assert failures(run, "sft") == failures(run, "sft-0") == found and failures(run, "rome") == []
    assert [one["axis"] for one in failures(run, "base")] == ["rewrite", "paraphrase"]


def test_what_a_conversation_shows_fails_where_it_happened_and_a_free_text_never(run):
    rows = [
        probe("a", 3 + i, axis, "text", "text", score)
        for i, (axis, score) in enumerate(
            [
                ("denial", 0.0),
                ("denial", 1.0),
                ("reversion", None),
                ("reversion", 0.0),
                ("fluency", 0.0),
            ]
        )
    ]
    folder = write_run(run.parent / "talked", {"sft": (rows, [], [])})
    assert [(one["axis"], one["scores"]["generation"]) for one in failures(folder)] == [
        ("denial", 1.0)
    ]


def test_differences_are_what_two_methods_score_differently(run):
    found = differences(run, "sft", "rome")
    assert [(one["what"], one["item"], one["base"], one["sft"], one["rome"]) for one in found] == [
        ("paraphrase", "a", "Paris", "Lyon", "Rome"),
        ("neighborhood", "a", "Oslo", "Rome", "Oslo"),
        ("arc", "1", "blue", "red", "blue"),
    ]
    assert [(one["sft scores"], one["rome scores"]) for one in found] == [(0.0, 1.0)] * 3
    assert differences(run, "sft", "sft") == []


def test_entropies_are_no_difference(tmp_path):
    one, other = (
        [probe("a", 0, "fluency", "la", "", bits), probe("a", 1, "rewrite", "Rome", "", 1.0)]
        for bits in (1.5, 2.5)
    )
    run = write_run(tmp_path / "run", {"sft": (one, [], []), "rome": (other, [], [])})
    assert differences(run, "sft", "rome") == []


def test_a_case_across_the_methods(run):
    found = case(run, "a")
    assert found["fact"]["target"] == "Rome" and "probes" not in found["fact"]
    asked = [(one["axis"], one["method"]) for one in found["answers"]]
    assert asked == [
        (axis, m)
        for axis in ("rewrite", "paraphrase", "neighborhood")
        for m in ("base", "sft", "rome")
    ]
    assert found["edit_records"] == [{"method": "sft", "fact": "a", "steps": 3}]


def test_what_a_pair_noted_is_the_pairs(run):
    noted = [{"method": "memit", "fact": "a", "steps": 24}]  # as older pairs kept their parts
    folder = write_run(
        run.parent / "paired",
        {"memit": ([], [], [{"fact": "a", "steps": 25}]), "memit+sft": ([], [], noted)},
    )
    assert [(one["method"], one["steps"]) for one in case(folder, "a")["edit_records"]] == [
        ("memit", 25),
        ("memit+sft", 24),
    ]
    said = editbench("show", folder, "--case", "a").out
    assert said.count("memit's notes") == said.count("memit+sft's notes") == 1


def test_a_listing_has_the_columns_of_all_its_records(capsys):
    console.out().print(
        console.listing([{"name": "one", "steps": 3}, {"loss": 0.5, "name": "two"}], "noted")
    )
    _, header, _, *body = capsys.readouterr().out.splitlines()
    ends = (0, 6, 13, None)
    words = [[line[a:b] for a, b in itertools.pairwise(ends)] for line in (header, *body)]
    assert [[word.strip() for word in line] for line in words] == [
        ["name", "steps", "loss"],
        ["one", "3", ""],
        ["two", "", "0.5"],
    ]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda run: failures(run, "sfd"),
            "holds no method 'sfd'. It holds: base, sft, rome, memit",
        ),
        (lambda run: failures(run, "memit"), r"'memit' failed in .* \(no third layer\)"),
        (lambda run: differences(run, "sft", "nosuch"), "holds no method 'nosuch'"),
        (lambda run: case(run, "z"), "has no case 'z'. Some of its 1: a"),
    ],
)
def test_what_is_not_in_a_run(run, ask, said):
    with pytest.raises(RecordError, match=said):
        ask(run)


def test_two_cells_of_one_method_are_told_apart_by_key(run):
    with RunStore(run).open({"methods": ["base", "sft", "rome", "memit"]}) as store:
        store.write_cell(
            "sft-1", {**PARTS, "method": "sft", "status": "done"}, {"probes": [], "retention": []}
        )
    with pytest.raises(
        RecordError, match="holds 2 cells of 'sft'. Name one by its key: sft-0, sft-1"
    ):
        failures(run, "sft")
    assert len(failures(run, "sft-0")) == 2
    with pytest.raises(RecordError, match="sft-0 and sft-1 were not asked the same probes"):
        differences(run, "sft-0", "sft-1")


def test_foreign_and_missing_tables_are_named(run):
    table = run / "cells" / "sft-0" / "probes.parquet"
    table.write_bytes((run / "cells" / "sft-0" / "retention.parquet").read_bytes())
    for option in (
        ("--html", "x.html"),
        ("--failures",),
        ("--diff", "sft", "rome"),
        ("--case", "a"),
    ):
        said = editbench("show", run, *option)
        assert (
            said.code == 2
            and "sft-0/probes.parquet is corrupt: it is not the table that was" in said.err
        ), option
    summary = json.loads(table.with_name("summary.json").read_text())
    del (
        summary["tables"],
        summary["digest"],
        summary["environment"]["code"],
    )  # as it was before there were digests
    write_json_atomic(table.with_name("summary.json"), summary)
    with pytest.raises(
        RecordError, match="sft-0/probes.parquet is no table of probes: it has no column 'case'"
    ):
        failures(run)
    table.write_bytes(b"PAR1")
    with pytest.raises(RecordError, match="sft-0/probes.parquet is corrupt"):
        texts_page(run)
    table.unlink()
    with pytest.raises(RecordError, match="sft-0/probes.parquet does not exist"):
        case(run, "a")
    (run / "cases.json").write_text("{}")
    with pytest.raises(RecordError, match="cases.json is corrupt: it is not a JSON list"):
        case(run, "a")


# --- shown --------------------------------------------------------------------------------------


def test_visible_escapes_what_is_not_shown():
    assert visible("a b é 字 ñ") == "a b é 字 ñ"
    assert visible("\x1b[1m\n\u202e\u200b\x00\u2028") == r"\x1b[1m\n\u202e\u200b\x00\u2028"
    assert all(visible(text).isprintable() for text in HOSTILE)


@pytest.fixture
def hostile(tmp_path):
    return write_hostile(tmp_path / "hostile")


def test_a_task_file_is_shown_by_its_name(tmp_path):
    sft, rome = ([sample(0, "red", kept, task="/home/me/mine.yaml")] for kept in (0.0, 1.0))
    run = write_run(tmp_path / "run", {"sft": ([], sft, []), "rome": ([], rome, [])})
    assert "task:mine.yaml" in texts_page(run) and "/home/me" not in texts_page(run)
    (one,) = differences(run, "sft", "rome")
    assert one["what"] == "mine.yaml"


def test_show_writes_the_page(run, tmp_path):
    said = editbench("show", run, "--html", tmp_path / "deep" / "page.html")
    assert said.code == 0 and said.out.strip() == str(tmp_path / "deep" / "page.html")
    assert Path(said.out.strip()).read_text(encoding="utf-8") == texts_page(run)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--failures"],
        ["--failures", "sft@<b>[x]"],
        ["--case", HOSTILE[3]],
        ["--case", HOSTILE[5]],
        ["--diff", "sft-0", "sft-0"],
    ],
)
def test_the_terminal_shows_hostile_texts_as_texts(hostile, arguments):
    said = editbench("show", hostile, *arguments)
    assert said.code == 0, said.err
    assert all(c.isprintable() or c == "\n" for c in said.out) and len(said.out) < 60_000
    if "--failures" in arguments:
        assert all(
            shown in said.out for shown in ("<script>", "\\x1b", "\\u202e", "[bold", ":warning:")
        )


def test_json_holds_the_whole_texts(hostile, run):
    said = editbench("show", hostile, "--failures", "--json")
    assert [one["edited"] for one in json.loads(said.out)] == list(HOSTILE) and said.out.isascii()
    assert json.loads(editbench("show", run, "--diff", "sft", "rome", "--json").out) == differences(
        run, "sft", "rome"
    )
    assert json.loads(editbench("show", run, "--case", "a", "--json").out) == case(run, "a")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--failures", "--case", "a"], "Give one of them"),
        (["sft"], "METHOD ('sft') is only used with --failures"),
        (["--html", "x.html", "--json"], "not JSON"),
        (["--failures", "nosuch"], "holds no method 'nosuch'"),
        (["--html", "cases.json/x.html"], "cannot be written"),
    ],
)
def test_bad_arguments_of_show(run, monkeypatch, arguments, said):
    monkeypatch.chdir(run)
    found = editbench("show", run, *arguments)
    assert (
        found.code == 2 and said in found.err and found.out == "" and "Traceback" not in found.err
    )
