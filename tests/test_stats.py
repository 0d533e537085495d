"""Coverage and edge cases of the intervals."""

import math

import numpy as np
import pytest

from editbench.stats import Interval, cells_text, clustered_mean, paired_delta, ratio, wilson


def test_mean_counts_every_case_the_same():
    interval = clustered_mean([1, 1, 1, 1, 0], ["a", "a", "a", "a", "b"])
    assert (interval.mean, interval.n, interval.clusters) == (0.5, 5, 2)


def test_unscored_items_are_left_out_and_empty_clusters_drop_out():
    interval = clustered_mean([1, None, math.nan, 0.5], ["a", "a", "b", "c"])
    assert (interval.mean, interval.n, interval.clusters) == (0.75, 2, 2)


def test_nothing_scored_is_nan_never_zero():
    for scores in ([], [math.nan, None]):
        interval = clustered_mean(scores, ["a", "b"][: len(scores)])
        assert math.isnan(interval.mean) and math.isnan(interval.low) and math.isnan(interval.high)
        assert (interval.n, interval.clusters) == (0, 0)


def test_one_cluster_has_no_interval():
    for interval in (clustered_mean([1, 0], ["a", "a"]), paired_delta([1], [0]), ratio([1], [1])):
        assert math.isfinite(interval.mean) and math.isnan(interval.low) and math.isnan(interval.high)


def test_all_right_or_all_wrong_is_not_certainty():
    right, wrong = clustered_mean([1] * 50), clustered_mean([0] * 50)
    assert right.high == 1 and right.low == pytest.approx(0.9286, abs=1e-4)
    assert wrong.low == 0 and wrong.high == pytest.approx(0.0714, abs=1e-4)
    # The sample size is the cases, not the probes.
    assert clustered_mean([1] * 100, np.repeat(range(50), 2)).low == right.low


def test_one_miss_never_raises_the_lower_end():
    lows = [clustered_mean([1] * (50 - misses) + [0] * misses).low for misses in range(6)]
    assert lows == sorted(lows, reverse=True)


def test_wilson_against_known_values():
    # Newcombe 1998, table I: 81/263 and 15/148.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert all(math.isnan(end) for end in wilson(0, 0))


def test_same_seed_same_interval_in_any_order():
    generator = np.random.default_rng(1)
    scores, clusters = generator.random(60), np.repeat(range(20), 3)
    order = generator.permutation(60)
    one, two = clustered_mean(scores, clusters, seed=3), clustered_mean(scores[order], clusters[order], seed=3)
    assert (one.mean, one.low, one.high) == pytest.approx((two.mean, two.low, two.high))
    assert one == clustered_mean(scores, clusters, seed=3) != clustered_mean(scores, clusters, seed=4)
    before = generator.random(60)
    one, two = ratio(scores, before), ratio(scores[order], before[order])
    assert (one.low, one.high) == pytest.approx((two.low, two.high))


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].tolist()
    clustered_mean([0.1, 0.5, 0.9])
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize(("rate", "probes"), [(0.6, 3), (0.8, 2), (0.95, 1)])
def test_interval_covers_the_truth(rate, probes):
    generator = np.random.default_rng(0)
    runs, cases, spread = 500, 50, 2.0
    hits = 0
    for run in range(runs):
        # Probes of one case share a probability, so they are correlated.
        chance = generator.beta(rate * spread, (1 - rate) * spread, (cases, 1))
        scores = generator.random((cases, probes)) < chance
        interval = clustered_mean(scores.ravel(), np.repeat(range(cases), probes), seed=run, resamples=1000)
        hits += interval.low <= rate <= interval.high
    assert 0.92 <= hits / runs <= 0.98


def test_delta_is_paired():
    after, before = [1, 0, 1, 1, 0.0, None], [1, 1, 1, 1, 1, 1]
    interval = paired_delta(after, before)
    assert interval.mean == pytest.approx(-0.4) and interval.n == 5
    assert interval.low < -0.4 < interval.high <= 0
    shifted = paired_delta(np.arange(30) + 5.0, np.arange(30))
    assert (shifted.mean, shifted.low, shifted.high) == (5, 5, 5)


def test_delta_of_nothing_changed_keeps_a_width():
    base = [1, 0] * 25
    same = paired_delta(base, base)
    assert same.mean == 0 and same.high == -same.low == pytest.approx(0.0714, abs=1e-4)
    lost = paired_delta([0] * 50, [1] * 50)
    assert (lost.mean, lost.low) == (-1, -1) and lost.high == pytest.approx(-0.857, abs=1e-3)
    won = paired_delta([1] * 50, [0] * 50)
    assert (won.mean, won.high, won.low) == (1, 1, -lost.high)


def test_ratio_is_of_the_means():
    interval = ratio([1, 0, 0, 1] * 10, [1, 1, 0, 1] * 10)
    assert interval.mean == pytest.approx(2 / 3)
    assert 0 < interval.low < 2 / 3 < interval.high < 1
    assert math.isnan(ratio([1, 1], [0, 0]).mean)
    same = ratio([1, 0] * 25, [1, 0] * 25)
    assert same.mean == 1 and same.low == pytest.approx(1 - 0.1427, abs=1e-3) and same.high > 1


def test_ratio_ignores_resamples_without_a_denominator():
    interval = ratio([1, 1, 0], [1, 0, 0])
    assert math.isfinite(interval.low) and math.isfinite(interval.high)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="one length, got 2, 2, 1"):
        paired_delta([1, 2], [1, 2], ["a"])


def test_large_samples_are_resampled_in_blocks():
    scores = np.random.default_rng(0).random(30_000)
    interval = clustered_mean(scores, resamples=200)
    assert interval.low < interval.mean < interval.high and interval.high - interval.low < 0.01


def test_text_of_a_cell():
    assert cells_text(Interval(0.95, 0.88, 1.0, 50)) == "0.95 [0.88, 1.00]"
    assert cells_text({"mean": -0.001, "low": -0.1, "high": 0.02}, sign=True) == "+0.00 [-0.10, +0.02]"
    assert cells_text({"mean": 0.5, "low": None, "high": None}) == "0.50"
    for nothing in (None, {}, {"mean": None}, Interval(math.nan, math.nan, math.nan, 0)):
        assert cells_text(nothing) == "–"


def test_interval_is_json_ready():
    assert Interval(math.nan, math.nan, math.nan, 0).to_dict(protocol="generation") == {
        "mean": None,
        "low": None,
        "high": None,
        "n": 0,
        "clusters": 0,
        "protocol": "generation",
    }
