"""Progress with and without a terminal: no long silence, a line for each cell, the time left."""

import io
import sys
import time

import pytest

from editbench import progress
from editbench.cli import console
from editbench.cli.board import Board
from editbench.cli.console import Lines, duration


class Plan:
    def __init__(self, *methods):
        self.methods = dict.fromkeys(methods)


def wait_for(capsys, text):
    """Return what stderr has once ``text`` is in it."""
    said, end = "", time.monotonic() + 30
    while text not in said and time.monotonic() < end:
        said += capsys.readouterr().err
        time.sleep(0.01)
    assert text in said
    return said


def test_a_step_that_counts_nothing_is_told_of(capsys):
    with progress.reporting(Lines(every=0.02)), progress.task("loading tiny"):
        wait_for(capsys, "  loading tiny: ")
    assert "  loading tiny: done in " in capsys.readouterr().err


def test_a_step_that_counts_tells_how_far_it_is_and_what_is_left(capsys):
    with progress.reporting(Lines(every=0.02)), progress.task("outer", 2, "cells"):
        with progress.task("training", total=10, unit="steps") as bar:
            time.sleep(0.05)
            bar.advance(4)
            said = wait_for(capsys, "4 of 10 steps")
            assert " left" in said and "outer" not in said, "the innermost step is told of"
        bar_is_closed = wait_for(capsys, "outer: ")
    assert "so far" in bar_is_closed


def test_a_quick_step_has_no_line(capsys):
    with progress.reporting(Lines()), progress.task("quick", 3, "texts") as bar:
        bar.advance(3)
    assert capsys.readouterr().err == ""


def test_each_cell_has_a_line_with_its_seconds_and_the_rest_of_the_run(capsys):
    with Board(1) as board:
        tell = board.of([Plan("base", "ice", "memit", "sft", "mixsd")])("seed 1, ")
        tell("base", "kept")
        for name in ("ice", "memit"):
            tell(name, "start")
            tell(name, "done")
        tell("sft", "start")
        tell("sft", "failed")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "seed 1, base: kept from an earlier run"
    assert lines[2].startswith("seed 1, ice: done in ") and lines[2].endswith("(2 of 5 done)")
    assert "left" in lines[4] and "(3 of 5 done, about " in lines[4], "a method is done"
    assert lines[-1].startswith("seed 1, sft: FAILED in ") and "4 of 5 done, 1 failed" in lines[-1]


def test_a_terminal_has_one_display_of_cells_and_steps(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.reporting(console.reporter()), Board(1) as board:
        tell = board.of([Plan("memit", "sft")])("")
        tell("memit", "start")
        with progress.task("memit: solving", total=4, unit="facts") as bar:
            bar.advance(2)
        tell("memit", "done")
        tell("sft", "start")
    said = terminal.getvalue()
    assert "memit: done in " in said and "1 of 2 done" in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.32, "0.3 s"), (42.4, "42 s"), (200, "3 min"), (7500, "2 h 5 min")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text
