"""Claims on stored rows: pooled seeds, differences, correlations, the rule, and the picture."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from editbench.stats import clustered_mean, retained

FOLDER = Path(__file__).parents[2] / "benchmarks"
STORED = FOLDER / "results" / "kgfact_test.json"


@pytest.fixture(scope="module")
def claims():
    spec = importlib.util.spec_from_file_location("claims", FOLDER / "claims.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["claims"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    module.DRAWS = 300  # enough for the wide bounds below
    return module


def row(name, seed=0, recall=1.0, kept=1.0, nll=None, ratio=None, lost=None, **more):
    """One row as ``published.py`` stores it: 100 facts, and 100 items of two tasks."""
    right = [1.0] * round(100 * recall) + [0.0] * round(100 * (1 - recall))
    after = [1.0] * round(80 * kept) + [0.0] * (100 - round(80 * kept))
    task = {**retained(after, [1.0] * 80 + [0.0] * 20), "metric": "exact"}
    supervision = {} if nll is None else {"nll": nll, "nll_low": nll - 0.1, "nll_high": nll + 0.1}
    fisher = {"displacement": 1.0, "squared_norm": 2.0, "alignment_ratio": ratio}
    counts = None if lost is None else {"t": {"lost": sum(lost.values()), **lost}}
    return {
        "name": name,
        "seed": seed,
        "metrics": {
            axis: {"generation": clustered_mean(right).to_dict("generation")}
            for axis in ("efficacy", "generalization")
        },
        "retention": {"t": task, "u": {**task, "ratio": 1.0, "ratio_low": 0.9, "ratio_high": 1.1}},
        "edit": {},
        "diagnostics": {
            "supervision": supervision,
            "fisher": fisher,
            "drift": {"kl": {"mean": 0.1, "low": 0.0, "high": 0.2}},
            **({"errors": {"retention": counts}} if counts else {}),
        },
        **more,
    }


def stored(path, *rows):
    path.write_text(json.dumps(rows))
    return path


def told(claims, path):
    (world,) = claims.report(claims.load([path])).values()
    return world


def verdicts(world):
    return {(one["claim"], one["row"]): one["verdict"] for one in world["claims"]}


def counted(leakage=0, collapse=0, genuine=0):
    return {"format": 0, "leakage": leakage, "collapse": collapse, "genuine": genuine}


def test_the_verdicts_on_rows_of_three_seeds(claims, tmp_path):
    sft = [row("sft", s, 1.0, 0.5 + s / 100, 6.0, 1.1, counted(20, 20, 20)) for s in range(3)]
    mixsd = [row("mixsd", s, 1.0, 0.9, 3.0, 1.1, counted(1, 1, 30)) for s in range(3)]
    memit = [row("memit", s, 0.1, 1.0) for s in range(3)]
    found = verdicts(told(claims, stored(tmp_path / "rows.json", *sft, *mixsd, *memit)))
    seen = (
        "The targets have a lower NLL",
        "Nearly all facts are recalled (0.95)",
        "Recall is no more than 0.05 below sft's",
        "More is retained at equal recall",
        "Fewer of the lost answers leak",
        "Fewer of the lost answers collapse",
    )
    for claim in seen:
        assert found[claim, "mixsd"] == claims.SEEN, claim
    assert found["A weight editor recalls less than sft", "memit"] == claims.SEEN
    assert found["R is smaller", "mixsd"] == claims.OPEN
    for claim in ("Fewer target tokens have an NLL above 5", "Fewer of the lost neighbors leak"):
        assert found[claim, "mixsd"] == claims.ABSENT, claim
    alone = verdicts(told(claims, stored(tmp_path / "one.json", sft[0], mixsd[0])))
    assert alone["The targets have a lower NLL", "mixsd"] == claims.SEEN
    assert alone["R is smaller", "mixsd"] == claims.ALONE


def test_the_opposite_is_not_seen_and_unequal_recalls_decide_nothing(claims, tmp_path):
    rows = [row("sft", recall=1.0, kept=0.9, nll=3.0), row("mixsd", recall=0.5, kept=0.4, nll=6.0)]
    found = verdicts(told(claims, stored(tmp_path / "rows.json", *rows)))
    assert found["The targets have a lower NLL", "mixsd"] == claims.NOT_SEEN
    assert found["Nearly all facts are recalled (0.95)", "mixsd"] == claims.NOT_SEEN
    assert found["Recall is no more than 0.05 below sft's", "mixsd"] == claims.NOT_SEEN
    assert "recalls differ" in found["More is retained at equal recall", "mixsd"]


def test_rows_are_compared_under_the_same_options(claims, tmp_path):
    rows = [row("sft, kl 1"), row("mixsd 0.3, kl 1"), row("mixsd 0.5"), row("mixsd paper, kl 4")]
    found = verdicts(told(claims, stored(tmp_path / "rows.json", *rows)))
    assert {name for _, name in found} == {"mixsd 0.3, kl 1"}


def test_pooled_figures_against_the_formulas(claims):
    def made(*values):
        return claims._estimate(values)

    alone = made((0.9, 0.2, 0.1))
    assert (alone.mean, alone.low, alone.high) == pytest.approx((0.9, 0.7, 1.0))
    assert alone.spread is None and made((0.9, None, None)).low is None
    seeds = made((0.8, 0.2, 0.1), (0.9, 0.2, 0.1), (1.0, 0.2, 0.1))
    across = 1.96 * 0.1 / math.sqrt(3)
    assert seeds.low == pytest.approx(0.9 - math.hypot(0.2, across))
    assert seeds.high == pytest.approx(0.9 + math.hypot(0.1, across)) and seeds.seeds == 3
    bare = made((1.0, None, None), (2.0, None, None), (3.0, None, None))
    assert bare.high == pytest.approx(2 + 4.302653 / math.sqrt(3)) and bare.spread == 1
    # Newcombe's: the lower end of a - b takes a's lower and b's upper width.
    gap = claims._minus((0.9, 0.3, 0.1), (0.5, 0.2, 0.4))
    assert gap == pytest.approx((0.4, 0.5, math.hypot(0.1, 0.2)))


def test_a_difference_is_paired_by_seed(claims, tmp_path):
    path = stored(
        tmp_path / "rows.json",
        *(row("sft", s, ratio=float(s)) for s in range(3)),
        *(row("mixsd", s, ratio=s - 0.5) for s in range(1, 4)),
    )
    named = claims.settings(claims.load([path]))
    ratio = claims.diagnostic("fisher", "alignment_ratio")
    gap = claims.difference(named["mixsd"], named["sft"], ratio)
    assert (gap.mean, gap.low, gap.high, gap.seeds) == (-0.5, -0.5, -0.5, 2)


def test_correlations_over_settings_with_their_seeds_together(claims, tmp_path):
    generator = np.random.default_rng(1)
    rows = []
    for i in range(9):
        for seed in range(2):
            one = row(f"sft {i}", seed, kept=1 - i / 20, nll=3.0, ratio=1 + i / 10)
            one["diagnostics"]["fisher"] |= {
                "displacement": float(generator.random()),
                "squared_norm": float(generator.random()),
            }
            rows.append(one)
    rows.append(row("base"))
    world = told(claims, stored(tmp_path / "rows.json", *rows))
    found = {one["predictor"]: one for one in world["correlations"]}
    assert (found["R"]["rows"], found["R"]["settings"]) == (18, 9)
    drop = [1 - (1 + 1 - i // 2 / 20) / 2 for i in range(18)]  # of the tasks t and u
    chance = [one["diagnostics"]["fisher"]["squared_norm"] for one in rows[:18]]
    for name, measure in (("pearson", pearsonr), ("spearman", spearmanr)):
        wanted = measure(chance, drop).statistic
        assert found["squared distance"][name]["mean"] == pytest.approx(wanted)
    assert found["R"]["spearman"]["mean"] == pytest.approx(1)
    assert found["R"]["pearson"]["low"] > 0.95
    wide = found["squared distance"]["spearman"]
    assert wide["low"] < 0 < wide["high"]
    size = "18 rows of 9 settings"
    assert verdicts(world)["R predicts the drop", size] == claims.SEEN
    few = told(claims, stored(tmp_path / "few.json", *rows[:8]))
    assert verdicts(few)["R predicts the drop", "8 rows of 4 settings"] == claims.OPEN


def test_the_rows_of_the_study_are_read(claims, tmp_path, capsys):
    """Stored before R had its name: no row names its method, its seed or its model."""
    claims.main(["check", str(STORED), "-o", str(tmp_path / "claims.json")])
    said = capsys.readouterr().out
    assert "## smollm2-135m, kgfact" in said and "10 rows of 10 settings" in said
    kept = json.loads((tmp_path / "claims.json").read_text())
    lines = {one["row"]: one for one in kept["smollm2-135m, kgfact"]["rows"]}
    assert lines["sft"]["R"] == "1.12" and lines["sft"]["NLL > 5"] == "–"
    assert lines["sft"]["recall"] == "1.00 [0.96, 1.00]"


def test_rows_that_do_not_name_their_model_have_that_of_their_file(claims, tmp_path):
    paths = [stored(tmp_path / f"published_{of}.json", row("sft")) for of in ("kgfact", "gemma")]
    assert [one.world for one in claims.load(paths)] == [
        ("smollm2-135m", "kgfact"),
        ("gemma-3-270m", "demo-counterfact"),
    ]


def test_models_are_kept_apart(claims, tmp_path):
    rows = [row("sft", model="a"), row("sft", model="b"), row("memit", 0, 0.5, model="b")]
    found = claims.report(claims.load([stored(tmp_path / "rows.json", *rows)]))
    assert list(found) == ["a, kgfact", "b, kgfact"]
    assert [one["row"] for one in found["b, kgfact"]["claims"]] == ["memit"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "no list of rows"),
        ('[{"metrics": {"a": 1}}]', "no list of rows"),
        (json.dumps([row("sft"), row("sft")]), "two rows 'sft' with seed 0"),
        ("[]", "no row has scores"),
    ],
)
def test_files_without_rows_are_refused_in_a_sentence(claims, tmp_path, text, reason):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(SystemExit, match=reason):
        claims.main(["check", str(tmp_path / "rows.json"), "-o", str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()


def test_the_picture(claims, tmp_path):
    new = stored(tmp_path / "new.json", *(row("sft, kl 4", s, 0.97, 0.9) for s in range(3)))
    picture = tmp_path / "frontier.png"
    arguments = ["--before", str(STORED), "--after", str(new), "-o", str(picture)]
    with pytest.raises(SystemExit, match="no retention task in common"):
        claims.main(["frontier", *arguments])
    arguments[1] = str(stored(tmp_path / "old.json", row("sft", kept=0.3), row("base")))
    claims.main(["frontier", *arguments])
    assert picture.read_bytes().startswith(b"\x89PNG")
    other = stored(tmp_path / "other.json", row("sft", model="b"))
    with pytest.raises(SystemExit, match="one model and corpus.*smollm2-135m, kgfact; b, kgfact"):
        claims.main(["frontier", *arguments[:3], str(new), str(other), "-o", str(picture)])
