"""The matcher agrees with a human reader about as often as its benchmark says."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from editbench.matching import contains

ROOT = Path(__file__).parents[2]
RUN = ROOT / "leaderboard/results/smollm2-135m_demo-counterfact_n50"


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("half", "accepts", "rejects"), [("visible", 2, 5), ("held back", 4, 2)])
def test_no_more_errors_than_published(half, accepts, rejects):
    matcher = script("matcher")
    every = json.loads(matcher.PAIRS.read_text(encoding="utf-8"))
    pairs = [pair for pair in every if pair["half"] == half]
    verdicts = [contains(pair["text"], pair["answers"]) for pair in pairs]
    assert len(pairs) == 70
    assert len(matcher.wrong(pairs, verdicts, "accepts")) <= accepts
    assert len(matcher.wrong(pairs, verdicts, "rejects")) <= rejects


def test_a_stored_run_is_scored_again(tmp_path, monkeypatch, capsys):
    rescore, out = script("rescore"), tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["rescore.py", str(RUN), "--json", str(out), "--texts"])
    rescore.main()
    result = json.loads(out.read_text(encoding="utf-8"))
    assert set(result) == {"base", "ice", "memit", "mixsd", "sft"}
    assert all("efficacy" in method["after"] for method in result.values())
    # every changed verdict is printed with its text
    changes = sum(
        sum(counts.values()) for method in result.values() for counts in method["verdicts"].values()
    )
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert len(printed) == changes
