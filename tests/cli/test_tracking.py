"""``--track``: another system is told of each cell, and its failure costs no result."""

import importlib.util
import json
import os
import subprocess
import sys
import types

import pytest
from tiny import editbench, write_facts, write_model

from editbench import registry
from editbench.plugin import Tracker

TOLD = []


class Journal(Tracker):
    """Keep in a list what it is told."""

    name, summary = "journal", "what it was told, in a list"
    fails_at = ""

    def start(self, run):
        self._tell("start", run)

    def cell(self, row):
        self._tell("cell", row)

    def finish(self):
        self._tell("finish", {})

    def _tell(self, what, record):
        if what == self.fails_at:
            raise OSError("no network\nand more")
        TOLD.append((what, record))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny")
    write_facts(tmp_path / "facts.jsonl")
    plugin = types.ModuleType("journal_plugin")
    plugin.Journal = Journal
    monkeypatch.setitem(sys.modules, "journal_plugin", plugin)
    builtins = {**registry._table("trackers"), "journal": "journal_plugin:Journal"}
    monkeypatch.setattr("editbench.trackers.BUILTINS", builtins)
    TOLD.clear()
    return tmp_path


def compare(*more):
    return editbench(
        *("compare", "--model", "tiny", "--facts", "facts.jsonl", "-n", 2, "--output", "run"),
        *("--tasks", "eb_arithmetic", "--limit", 2, "--methods", "ice", *more),
    )


def test_a_plugin_is_told_of_the_run_and_of_each_cell(here):
    said = compare("--track", "journal", "--json")
    assert said.code == 0, said.err
    assert [what for what, _ in TOLD] == ["start", "cell", "cell", "finish"]
    run = TOLD[0][1]
    assert run["folder"] == "run" and run["methods"] == ["base", "ice"] and run["n"] == 2
    for _, row in TOLD[1:-1]:
        shown = said.rows[row["method"]]
        assert row["efficacy"] == shown["efficacy"]["mean"] and row["seed"] == 0
        assert row["retention/eb_arithmetic"] == shown["retention"]["eb_arithmetic"]["mean"]
        assert row["status"] == "done" and row["seconds"] == shown["seconds"]
    assert "capital of" not in json.dumps(TOLD), "no fact is told"
    TOLD.clear()
    assert compare("--track", "journal").code == 0, "the tracker is no part of the run's identity"
    assert [what for what, _ in TOLD] == ["start", "cell", "cell", "finish"], "kept cells, too"


@pytest.mark.parametrize("step", ["start", "cell", "finish"])
def test_a_tracker_that_fails_costs_no_result(here, monkeypatch, step):
    monkeypatch.setattr(Journal, "fails_at", step)
    said = compare("--track", "journal")
    assert said.code == 0 and "Efficacy" in said.out
    assert said.err.count("journal: ") == 1 and "OSError: no network)" in said.err
    assert "told no more of this run. The record is complete." in said.err


def test_an_unknown_tracker_is_refused_before_anything_is_made(here):
    said = compare("--track", "jornal")
    assert said.code == 2 and "Did you mean 'journal'?" in said.err
    assert not (here / "run").exists()
    assert "journal" in editbench("list", "trackers").out


def test_wandb_offline_or_what_to_install(here):
    if importlib.util.find_spec("wandb") is None:
        said = compare("--track", "wandb")
        assert said.code == 2 and 'pip install "editbench[wandb]"' in said.err
        pytest.skip("wandb is not installed")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    command = ("-m", "editbench", "compare", "--model", "tiny", "--facts", "facts.jsonl")
    done = subprocess.run(
        [sys.executable, *command, "--tasks", "none", "--methods", "ice", "--track", "wandb"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "told no more" not in done.stderr, done.stderr
    assert list(here.glob("wandb/offline-run-*"))


def test_the_module_the_version_and_the_completion():
    run = [sys.executable, "-m", "editbench"]
    said = subprocess.run([*run, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"editbench {importlib.import_module('editbench').__version__}\n"
    for words, place, expected in (
        ("editbench inj", 1, {"inject"}),
        ("editbench compare --methods sft,alpha", 3, {"sft,alphaedit"}),
        ("editbench compare --corpus demo-z", 3, {"demo-zsre"}),
    ):
        environment = {
            **os.environ,
            "_EDITBENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(place),
        }
        said = subprocess.run(run, env=environment, capture_output=True, text=True)
        assert set(said.stdout.split()) == expected, said
