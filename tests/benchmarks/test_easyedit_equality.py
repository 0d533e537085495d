"""Our editors against EasyEdit's at equal settings, on tiny models, and the stored comparison."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import easyedit as benchmark  # noqa: E402

from editbench import registry  # noqa: E402
from editbench.testing import FACTS  # noqa: E402

CLOZE = [fact for fact in FACTS if fact.form == "cloze"]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("label", benchmark.PAIRS)
def test_our_change_of_weights_is_easyedits(label, family, reader):
    pair = benchmark.PAIRS[label]
    if why := registry.get("methods", f"easyedit-{pair.ours}").lacks():
        pytest.skip(why)
    row = benchmark.compare(reader(family), CLOZE, pair, benchmark.tiny_options(pair))
    assert row["difference"] < benchmark.GOAL, row


def test_the_stored_differences_reach_the_goal_or_have_a_cause():
    stored = benchmark.stored()["equal"]
    assert {"tiny llama", "tiny gpt2"} <= set(stored)
    for model, rows in stored.items():
        for label, row in rows.items():
            assert row["difference"] < benchmark.GOAL or row["cause"], (model, label)
