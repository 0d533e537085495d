"""Coverage and edge cases of the intervals, and the paired tests against hand-computed values."""

import math

import numpy as np
import pytest

from editbench.stats import (
    Interval,
    asked_twice,
    cells_text,
    clustered_mean,
    detectable,
    holm,
    paired_delta,
    paired_p,
    ratio,
    retained,
    unbounded_mean,
    wilson,
)

Z2 = 1.959964**2
T49 = 2.0095752  # Student's t of 49 degrees of freedom at 0.975


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
        assert (
            math.isfinite(interval.mean) and math.isnan(interval.low) and math.isnan(interval.high)
        )


def test_all_right_or_all_wrong_is_not_certainty():
    right, wrong = clustered_mean([1] * 50), clustered_mean([0] * 50)
    assert right.high == 1 and right.low == pytest.approx(49 / (49 + T49**2), abs=1e-6)
    assert wrong.low == 0 and wrong.high == pytest.approx(1 - right.low)
    # The sample size is the cases, not the probes.
    assert clustered_mean([1] * 100, np.repeat(range(50), 2)).low == right.low


def test_one_miss_never_raises_the_lower_end():
    lows = [clustered_mean([1] * (50 - misses) + [0] * misses).low for misses in range(6)]
    assert lows == sorted(lows, reverse=True)


def test_wilson_against_known_values():
    # Newcombe 1998, table I: 81/263 and 15/148.
    assert wilson(81 / 263, Z2 / 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15 / 148, Z2 / 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)


def test_a_rate_against_the_formula():
    # Eight cases of two probes. Five cases differ from the majority, which is wrong: V comes from
    # their spread, and t has 5 degrees of freedom.
    scores = [0, 0] * 3 + [0, 1] * 4 + [1, 1]
    means = np.array([0, 0, 0, 0.5, 0.5, 0.5, 0.5, 1])
    variance = means.var(ddof=1) / 8
    spread = 2.5705818**2 * variance / (0.375 * 0.625)
    assert spread < 2.3646243**2 / 7, "else it would be that of cases wholly right or wrong"
    interval = clustered_mean(scores, np.repeat(range(8), 2))
    assert interval.mean == 0.375 and (interval.low, interval.high) == pytest.approx(
        wilson(0.375, spread)
    )


def test_the_sample_is_no_larger_than_the_number_of_items():
    """Cases that are all half right show no spread, and yet the rate is not known for certain."""
    few, many = (
        clustered_mean([1, 0, 1, 0], ["a", "a", "b", "b"]),
        clustered_mean([1, 0] * 50, np.repeat(range(50), 2)),
    )
    assert few.mean == many.mean == 0.5 and few.high - few.low > 0.9
    assert (many.low, many.high) == pytest.approx(wilson(0.5, T49**2 / 100))
    # graded scores vary less than yes and no of the same mean
    graded = clustered_mean([0.4, 0.6] * 50, np.repeat(range(50), 2))
    assert (graded.low, graded.high) == pytest.approx(wilson(0.5, T49**2 / 100 * 0.01 / 0.25))


@pytest.mark.parametrize("cases", [2, 3, 10, 50])
def test_probes_that_are_not_related_are_covered_too(cases):
    generator = np.random.default_rng(0)
    for rate in (0.3, 0.5, 0.8):
        found = (
            clustered_mean(
                (generator.random((cases, 2)) < rate).ravel(), np.repeat(range(cases), 2)
            )
            for _ in range(400)
        )
        assert sum(one.low <= rate <= one.high for one in found) / 400 >= 0.94


def test_any_order_gives_the_same_interval():
    generator = np.random.default_rng(1)
    scores, before, clusters = generator.random(60), generator.random(60), np.repeat(range(20), 3)
    order = generator.permutation(60)
    for one, two in (
        (clustered_mean(scores, clusters), clustered_mean(scores[order], clusters[order])),
        (ratio(scores, before), ratio(scores[order], before[order])),
    ):
        assert (one.mean, one.low, one.high) == pytest.approx((two.mean, two.low, two.high))
    assert paired_p(scores, before, clusters) == paired_p(
        scores[order], before[order], clusters[order]
    )


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].tolist()
    paired_p([0.1, 0.5, 0.9], [0, 0.1, 0.2], range(3))
    assert np.random.get_state()[1].tolist() == before


# With few cases on the rarer side the interval errs on the wide side, so only a lower bound is
# claimed (benchmarks/coverage.md).
@pytest.mark.parametrize(
    ("rate", "probes", "cases", "most"),
    [(0.6, 3, 50, 0.98), (0.95, 1, 50, 1), (0.95, 10, 50, 1), (0.9, 2, 20, 1)],
)
def test_interval_of_a_rate_covers_the_truth(rate, probes, cases, most):
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        # Probes of one case share a chance, so they are correlated, by 1 / 3.
        chance = generator.beta(rate * 2, (1 - rate) * 2, (cases, 1))
        interval = clustered_mean(
            (generator.random((cases, probes)) < chance).ravel(), np.repeat(range(cases), probes)
        )
        hits += interval.low <= rate <= interval.high
    assert 0.93 <= hits / 500 <= most


@pytest.mark.parametrize(("gain", "loss"), [(0.05, 0.1), (0.02, 0.3), (0.0, 0.1)])
def test_intervals_of_a_change_cover_the_truth(gain, loss):
    generator = np.random.default_rng(0)
    deltas = ratios = 0
    for _ in range(500):
        before, luck = generator.random(100) < 0.6, generator.random(100)
        after = np.where(before, luck >= loss, luck < gain)
        delta, share = paired_delta(after, before), ratio(after, before)
        truth = 0.4 * gain - 0.6 * loss
        deltas += delta.low <= truth <= delta.high
        ratios += share.low <= 1 + truth / 0.6 <= share.high
    assert deltas / 500 >= 0.93 and ratios / 500 >= 0.93


def test_delta_is_paired():
    after, before = [1, 0, 1, 1, 0.0, None], [1, 1, 1, 1, 1, 1]
    interval = paired_delta(after, before)
    assert interval.mean == pytest.approx(-0.4) and interval.n == 5
    assert interval.low < -0.4 < interval.high


def test_delta_of_nothing_changed_keeps_a_width():
    base = [1, 0] * 25
    same = paired_delta(base, base)
    # Of 52 differences, 50 are 0, one is 1 and one -1: variance 2 / 51; t of 51 degrees.
    assert same.mean == 0 and same.high == -same.low == pytest.approx(
        2.0075838 * math.sqrt(2 / 51 / 52)
    )
    won, lost = paired_delta([1] * 50, [0] * 50), paired_delta([0] * 50, [1] * 50)
    assert (won.mean, won.high, lost.mean, lost.low) == (
        1,
        1,
        -1,
        -1,
    ) and 0.85 < won.low == -lost.high < 0.9


def test_ratio_is_of_the_means():
    interval = ratio([1, 0, 0, 1] * 10, [1, 1, 0, 1] * 10)
    assert interval.mean == pytest.approx(2 / 3)
    assert 0 < interval.low < 2 / 3 < interval.high < 1
    assert math.isnan(ratio([1, 1], [0, 0]).mean)
    base = [1, 0] * 25
    same, change = ratio(base, base), paired_delta(base, base)
    assert same.mean == 1 and same.high - 1 == 1 - same.low == pytest.approx(change.high / 0.5)


def test_a_task_is_stored_with_its_intervals():
    after, before = [1, 0, 0, 1] * 10, [1, 1, 0, 1] * 10
    found, delta = retained(after, before), paired_delta(after, before)
    assert (found["base"], found["mean"], found["n"], found["delta"]) == (0.75, 0.5, 40, -0.25)
    assert (found["delta_low"], found["delta_high"]) == (delta.low, delta.high)
    assert (
        found["ratio_low"] == ratio(after, before).low and found["low"] == clustered_mean(after).low
    )


def test_scores_that_are_no_shares():
    found = unbounded_mean([3.0, 5.0, 4.0, 8.0], ["a", "a", "b", "c"])
    half = 4.3026527 * math.sqrt(16 / 3 / 3)
    assert found.mean == pytest.approx(16 / 3) and (found.low, found.high) == pytest.approx(
        (16 / 3 - half, 16 / 3 + half)
    )
    assert unbounded_mean([0.0] * 6, range(6)).high == 0
    wide = unbounded_mean([3.0, 5.0, 4.0, 6.0], [0, 1, 0, 1], [0, 0, 1, 1])
    assert wide.mean == 4.5 and wide.high - 4.5 == pytest.approx(
        12.7062047 * math.sqrt(1 + 0.25)
    ), "of cases and of seeds"
    with pytest.raises(ValueError, match="between 0 and 1"):
        clustered_mean([0.5, 1.5])


@pytest.mark.parametrize("cases", [2, 3, 8])
def test_the_mean_of_a_few_unbounded_scores_is_covered(cases):
    generator = np.random.default_rng(0)
    found = (unbounded_mean(generator.normal(size=cases), range(cases)) for _ in range(1000))
    assert sum(one.low <= 0 <= one.high for one in found) / 1000 == pytest.approx(0.95, abs=0.02)


def test_seeds_weigh_the_same_and_share_their_cases():
    # Seed 0 asked a and b, seed 1 b alone.
    scores, cases, seeds = [1, 0, 1], ["a", "b", "b"], [0, 0, 1]
    found = clustered_mean(scores, cases, seeds)
    assert (found.mean, found.n, found.clusters) == (0.75, 3, 2)
    assert retained(scores, [1, 1, 1], cases, seeds)["delta"] == -0.25
    one, two = np.array([1, 0] * 20), np.array([1, 1, 0, 0] * 10)
    alone = clustered_mean(one, range(40), [3] * 40)
    assert alone == clustered_mean(one, range(40))
    # the same cases again are no new cases; other cases are
    shared = clustered_mean([*one, *one], [*range(40)] * 2, [0] * 40 + [1] * 40)
    apart = clustered_mean([*one, *two], range(80), [0] * 40 + [1] * 40)
    assert (shared.low, shared.high) == pytest.approx((alone.low, alone.high))
    assert apart.high - apart.low < 0.75 * (alone.high - alone.low)


def test_seeds_that_disagree_widen_the_interval():
    half, most = [1, 0] * 20, [1, 1, 1, 0] * 10
    labels = [*range(80)], [0] * 40 + [1] * 40
    agree, differ = (
        clustered_mean([*half, *half], *labels),
        clustered_mean([*most, *(1 - np.array(most))], *labels),
    )
    assert agree.mean == differ.mean == 0.5 and differ.high - differ.low > 2 * (
        agree.high - agree.low
    )


def test_p_of_a_sign_flip_test():
    # Five cases, all better: 2 of the 32 sign patterns are as extreme.
    assert paired_p([1] * 5, [0] * 5, range(5)) == pytest.approx(2 / 32, abs=0.01)
    assert paired_p([1, 0], [1, 0], range(2)) == 1
    # Ten probes of one case say no more than one.
    assert paired_p([1] * 50, [0] * 50, np.repeat(range(5), 10)) == paired_p(
        [1] * 5, [0] * 5, range(5)
    )
    assert paired_p([1] * 40, [0] * 40, range(40)) == 1 / 20_001
    # McNemar's exact test: 9 gained, 1 lost.
    assert paired_p([1] * 9 + [0] * 21, [0] * 9 + [1] + [0] * 20, range(30)) == pytest.approx(
        22 / 1024, abs=0.005
    )


def test_holm_against_hand_computed_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1] and holm([]) == []


def test_equal_methods_are_rarely_told_apart():
    generator = np.random.default_rng(0)
    false = 0
    for _ in range(100):
        chance = generator.beta(1, 1, (30, 1))
        one, two, three = ((generator.random((30, 2)) < chance).ravel() for _ in range(3))
        cases = np.repeat(range(30), 2)
        false += (
            min(
                holm(
                    [
                        paired_p(one, two, cases),
                        paired_p(one, three, cases),
                        paired_p(two, three, cases),
                    ]
                )
            )
            <= 0.05
        )
    assert false / 100 <= 0.1


def test_detectable_differences_are_detected():
    generator = np.random.default_rng(0)

    def pair(loss):
        one = generator.random(100) < 0.7
        return one, one & (generator.random(100) >= loss / 0.7), range(100)

    loss = 0.12
    for _ in range(5):
        loss = np.mean([detectable(*pair(loss), comparisons=9) for _ in range(20)])
    found = np.mean([paired_p(*pair(loss)) <= 0.05 / 9 for _ in range(200)])
    assert 0.7 <= found <= 0.95
    assert detectable(*pair(0.1), comparisons=9) > detectable(*pair(0.1), comparisons=1)
    assert math.isnan(detectable([1], [0], [0], comparisons=1))


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="one length, got 2, 2, 1"):
        paired_delta([1, 2], [1, 2], ["a"])


def test_text_of_a_cell():
    assert cells_text(Interval(0.95, 0.88, 1.0, 50)) == "0.95 [0.88, 1.00]"
    assert (
        cells_text({"mean": -0.001, "low": -0.1, "high": 0.02}, sign=True) == "+0.00 [-0.10, +0.02]"
    )
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


def test_what_was_asked_twice_is_compared_on_the_same_items():
    cases = ["a", "a", "b", "c", "d"]
    twice = asked_twice([1, 1, 1, None, 1], [0, 1, 0, 1, math.nan], cases, "argmax")
    assert [twice[when]["n"] for when in ("right_after", "at_end", "change")] == [3, 3, 3]
    assert twice["right_after"]["mean"] == 1 and twice["at_end"]["mean"] == 0.25
    assert twice["change"] == paired_delta([0, 1, 0], [1, 1, 1], ["a", "a", "b"]).to_dict("argmax")
    forgotten = asked_twice([1] * 10, [0] * 10, range(10), "generation")["change"]
    assert (forgotten["mean"], forgotten["low"]) == (-1, -1) and -0.7 < forgotten["high"] < -0.3
    empty = asked_twice([None], [1], ["a"], "argmax")
    assert empty["change"]["mean"] is None and empty["at_end"]["n"] == 0
