"""Tables in a terminal: at 80 and 100 columns no name and no interval is cut."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from editbench.cli import console, ranking
from editbench.cli.sheet import Cell, Column, Sheet, wrapped
from editbench.leaderboard.comparisons import Comparison, Verdicts
from editbench.leaderboard.rows import rows

METHODS = (
    "base",
    "ice",
    "sft",
    "mixsd",
    "memit@quick",
    "memit+mixsd",
    "easyedit-memit-fe",
    "easyedit-memit-fe@layers8",
    "easyedit-ultraedit",
    "easyedit-alphaedit",
    "a-plugin-with-a-name-of-34-letters",
    "rome",
)
TASKS = ("eb_arithmetic", "eb_instruct", "hellaswag", "mmlu_high_school_european_history")


def score(mean, spread):
    return {"mean": mean, "low": mean - 0.11, "high": mean + 0.09, "n": 50, **spread}


def summaries(**spread):
    """Return twelve cells with all axes, four tasks, one option that differs, and a warning."""
    tasks = {
        name: {**score(0.5, spread), "base": 0.6, "ratio": 0.8, "metric": "acc", "n": 100}
        | {"delta": -0.1, "delta_low": -0.21, "delta_high": -0.01, "lost": 12, "gained": 2}
        for name in TASKS
    }
    axes = ("efficacy", "generalization", "specificity", "portability")
    return [
        {
            "key": name.replace("@", "-"),
            "method": name,
            "options": {},
            "model": {"name": "tiny"},
            "corpus": {"name": "local", "n": 50},
            "regime": "batch",
            "seed": [0, 1, 2],
            "status": "stopped" if name == "rome" else "done",
            "note": "",
            "metrics": {axis: {"generation": score(0.55, spread)} for axis in axes},
            "retention": tasks,
            "retention_spread": 0.02,
            "seconds": {"inject": 1234.5},
            "peak_memory_bytes": 12 * 2**30,
            "edit": {},
        }
        for name in METHODS
    ]


def drawn(sheet, width, **terminal):
    page = Console(width=width, file=io.StringIO(), **terminal)
    page.print(sheet)
    return page.file.getvalue()


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("spread", [{}, {"spread": 0.03}])
def test_a_ranking_of_twelve_methods_cuts_nothing(width, spread):
    ranked = rows(summaries(**spread))
    scores, tasks = ranking.results(ranked, Verdicts(), Verdicts())
    said = drawn(scores, width)
    assert max(map(cell_len, said.splitlines())) <= width and "…" not in said
    words = said.split()
    for name in METHODS:  # a longer name than 24 letters goes on in a second line
        assert name in words if len(name) <= 24 else name[:20] in said, name
    assert said.count("[0.44, 0.64]") == 4 * 12, "the axes"
    assert said.count("0.55 ±0.03" if spread else "0.55") == 4 * 12
    assert f"Left out at {width} columns: Inject s, Memory, Score. The page README.md" in said
    said = drawn(tasks, width)
    assert max(map(cell_len, said.splitlines())) <= width
    assert said.count("[-0.21, -0.01]") == 4 * 11, "the base has no change"
    assert all(f"{task}," in said.split() for task in TASKS[:3]) and TASKS[3][:24] in said


def test_a_score_that_nobody_has_is_left_out_before_seconds_and_memory():
    cells = summaries()
    for cell in cells:
        del cell["metrics"]["generalization"], cell["metrics"]["portability"]
    scores, _ = ranking.results(rows(cells), Verdicts(), Verdicts())
    assert "Left out at 80 columns: Memory, Score, Generalization." in drawn(scores, 80)


def test_a_wide_terminal_shows_all_columns_in_single_lines():
    scores, _ = ranking.results(rows(summaries(spread=0.03)), Verdicts(), Verdicts())
    said = drawn(scores, 250)
    assert said.count("0.55 [0.44, 0.64] ±0.03") == 4 * 12
    assert "Left out" not in said and "12.0 GiB" in said


def test_a_pipe_has_every_column(capsys):
    scores, _ = ranking.results(rows(summaries(spread=0.03)), Verdicts(), Verdicts())
    page = console.out()
    console.fit(page, scores)
    page.print(scores)
    assert "12.0 GiB" in capsys.readouterr().out


def test_green_is_ahead_of_all_and_red_behind_all_and_a_pipe_has_neither(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    ranked = [row for row in rows(summaries()) if row["method"] in ("sft", "mixsd", "rome")]
    pairs = [("sft", "mixsd", 0.3, 0.01), ("sft", "rome", 0.4, 0.01), ("mixsd", "rome", 0.1, 0.2)]
    verdicts = Verdicts([Comparison("efficacy", *pair) for pair in pairs])
    scores, tasks = ranking.results(ranked, verdicts, Verdicts())
    efficacy = {
        row["method"]: cell.style for row, cell in zip(ranked, scores.columns[1].cells, strict=True)
    }
    assert efficacy == {"sft": "green", "mixsd": "", "rome": ""}, "mixsd may be no better than rome"
    assert all(cell.style == "red" for cell in tasks.columns[1].cells), "the interval excludes 0"
    said = drawn(scores, 100, force_terminal=True, color_system="standard")
    assert "\x1b[32m" in said and "Green: ahead of every other method" in said
    for plain in ({}, {"force_terminal": True, "no_color": True}):
        said = drawn(scores, 100, **plain)
        assert "[32m" not in said and "Green" not in said and "0.55 *" in said
    monkeypatch.setenv("NO_COLOR", "1")
    assert "[32m" not in drawn(scores, 100, force_terminal=True, color_system="standard")


@pytest.mark.parametrize(("high", "style"), [(-0.01, "red"), (-0.004, ""), (0.0, ""), (None, "")])
def test_a_change_whose_interval_reads_zero_has_no_colour(high, style):
    cells = summaries()
    for cell in cells:
        cell["retention"] = {"a": {**cell["retention"]["hellaswag"], "delta_high": high}}
    _, tasks = ranking.results(rows(cells), Verdicts(), Verdicts())
    assert {cell.style for cell in tasks.columns[1].cells[:-1]} == {style}


@pytest.mark.parametrize("width", [80, 100])
def test_a_listing_breaks_texts_at_words_and_names_nowhere(width):
    text = "a sentence of several words " * 6
    record = {"method": METHODS[7], "options": "clamp=0.75, layers=3,4,5", "about": text, "n": 1}
    said = drawn(console.listing([record] * 12, "title"), width)
    assert max(map(cell_len, said.splitlines())) <= width
    assert METHODS[7] in said and set(text.split()) <= set(said.split())


def test_the_least_column_goes_first_and_is_named():
    columns = [Column(f"column {i}", [Cell("x" * 20)], number=True, least=i) for i in range(6)]
    said = drawn(Sheet(columns, where_else=" See README.md."), 80)
    assert "Left out at 80 columns: column 3, column 4, column 5. See README.md." in said
    assert "column 2" in said.splitlines()[0]


def test_what_no_terminal_holds_is_continued_below():
    columns = [Column("who", [Cell("memit")]), *(Column(str(i), [Cell("0.5")]) for i in range(40))]
    said = drawn(Sheet(columns), 80)
    heads = [line.split() for line in said.splitlines() if line.startswith("who")]
    assert [title for head in heads for title in head[1:]] == [str(i) for i in range(40)]
    assert said.count("memit") == len(heads) > 1


def test_texts_without_blanks_and_in_wide_letters_are_broken_within_the_width():
    for text in ("改変" * 60, "x" * 200, "a/b" * 60, "  indented " + "word " * 40):
        lines = wrapped(text, 40)
        assert max(map(cell_len, lines)) <= 40
        assert "".join("".join(lines).split()) == "".join(text.split())
    assert wrapped("one two", 3) == ["one", "two"] and wrapped("", 3) == [""]
