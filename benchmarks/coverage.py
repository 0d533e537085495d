"""Measure how often the 95 % intervals of ``editbench.stats`` hold the truth, and how often its
tests err, on drawn data like ours.

    python benchmarks/coverage.py          # some minutes on one core

Writes ``benchmarks/results/coverage.json``, and ``benchmarks/coverage.md`` from it.

The probes of a case share its chance (a beta distribution in which two of them correlate by
``icc``). The two sides of a pair share its chances to gain and to lose (Dirichlet). The truth is
the mean of that distribution, so the cases are drawn, too. In the published records, neighborhood
probes correlate by 0 to 0.2 and paraphrases by 0.1 to 0.7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from editbench.files import write_json_atomic
from editbench.stats import FLIPS, clustered_mean, detectable, holm, paired_delta, paired_p, ratio

DRAWS = 2000
CASES = (20, 50, 100, 200)
RATES = (0.05, 0.1, 0.2, 0.5, 0.8, 0.95, 0.98)
PROBES = ((1, 0.0), (2, 0.3), (2, 0.7), (10, 0.05), (10, 0.2), (10, 0.5))
"""Probes a case, and the correlation of two of them."""
FLIPPED = (
    (0.02, 0.02),
    (0.0, 0.05),
    (0.05, 0.1),
    (0.02, 0.3),
    (0.2, 0.2),
    (0.01, 0.6),
    (0.0, 0.95),
)
"""Chances that an item is gained, and that it is lost."""
BASES = (0.25, 0.5, 0.85)
SHIFTS = (0.0, 0.5, 1.0, 2.0)
"""Standard deviation of the seeds' means, in standard errors of one seed's mean over cases."""
HERE = Path(__file__).parent
RESULT, PAGE = HERE / "results" / "coverage.json", HERE / "coverage.md"
Floats = np.ndarray


def main() -> None:
    tables: dict[str, list[dict[str, Any]]] = {}
    for number, study in enumerate((rates, deltas, ratios, seeds, errors)):
        tables[study.__name__] = list(study(np.random.default_rng(number)))
        print(study.__name__, "done", flush=True)
    write_json_atomic(RESULT, {"draws": DRAWS, "flips": FLIPS, **tables})
    PAGE.write_text(page(tables), encoding="utf-8")


def rates(generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    for (probes, icc), n, rate in ((p, n, r) for p in PROBES for n in CASES for r in RATES):
        cases = np.repeat(range(n), probes)

        def draw(probes=probes, icc=icc, n=n, rate=rate):
            chance_N1 = beta(generator, rate, icc, (n, 1))
            return (generator.random((n, probes)) < chance_N1).ravel()

        drawn = [draw() for _ in range(DRAWS)]
        row = {"n": n, "probes": probes, "icc": icc, "rate": rate}
        row |= covered(rate, (clustered_mean(scores, cases) for scores in drawn))
        row["percentile"] = np.mean(
            [bootstrapped(s.reshape(n, probes).mean(axis=1), rate, generator) for s in drawn[:400]]
        )
        yield row


def deltas(generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    for (probes, icc), n, (gain, loss) in (
        (p, n, f) for p in ((1, 0.0), (10, 0.2)) for n in CASES for f in FLIPPED
    ):
        cases = np.repeat(range(n), probes)

        def interval(probes=probes, icc=icc, n=n, gain=gain, loss=loss, cases=cases):
            change = flips(generator, gain, loss, icc, n, probes).ravel()
            before = np.where(
                change == 0, 0.5, change < 0
            )  # what an unchanged item scored has no say in a difference
            return paired_delta(before + change, before, cases)

        yield {"n": n, "probes": probes, "gain": gain, "loss": loss} | covered(
            gain - loss, (interval() for _ in range(DRAWS))
        )


def ratios(generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    for base, n, (gain, loss) in ((b, n, f) for b in BASES for n in CASES for f in FLIPPED):

        def interval(base=base, n=n, gain=gain, loss=loss):
            before, luck = generator.random(n) < base, generator.random(n)
            return ratio(np.where(before, luck >= loss, luck < gain), before)

        truth = (base * (1 - loss) + (1 - base) * gain) / base
        yield {"n": n, "base": base, "gain": gain, "loss": loss} | covered(
            truth, (interval() for _ in range(DRAWS))
        )


def seeds(generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    """50 cases a seed, 2 probes each, rate 0.5 on average; seeds share all cases, or none."""
    n, probes, icc = 50, 2, 0.3
    error = np.sqrt(0.25 * (1 + icc) / 2 / n)
    for shared, count, shift in (
        (o, s, f) for o in (False, True) for s in (2, 3, 5) for f in SHIFTS
    ):
        labels = np.repeat(np.arange(n), probes)
        cases = np.concatenate([labels if shared else labels + n * s for s in range(count)])
        runs = np.repeat(range(count), n * probes)

        def interval(shared=shared, count=count, shift=shift, cases=cases, runs=runs):
            chance_SN = (
                np.tile(beta(generator, 0.5, icc, n), (count, 1))
                if shared
                else beta(generator, 0.5, icc, (count, n))
            )
            chance_SN = np.clip(chance_SN + generator.normal(0, shift * error, (count, 1)), 0, 1)
            return clustered_mean(
                (generator.random((count, n, probes)) < chance_SN[:, :, None]).ravel(), cases, runs
            )

        yield {"seeds": count, "shared": shared, "shift": shift} | covered(
            0.5, (interval() for _ in range(DRAWS))
        )


def errors(generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Measure false verdicts and power.

    Four methods of equal rate, three columns of 1, 2 and 4 probes: how often do any two seem to
    differ? Then a pair that differs by what ``detectable`` says of it: how often is that seen?
    """
    comparisons = 3 * 6
    for n, rate in ((n, r) for n in (20, 50, 100) for r in (0.5, 0.9)):

        def table(n=n, rate=rate):
            found = []
            for probes in (1, 2, 4):
                cases = np.repeat(range(n), probes)
                chance_N1 = beta(generator, rate, 0.3, (n, 1))
                methods = [(generator.random((n, probes)) < chance_N1).ravel() for _ in range(4)]
                found += [paired_p(one, other, cases) for one, other in combinations(methods, 2)]
            return min(holm(found)) <= 0.05

        false = np.mean([table() for _ in range(DRAWS // 20)])
        cases = np.repeat(range(n), 2)

        def pair(difference, n=n, rate=rate, cases=cases):
            chance_N1 = beta(generator, rate, 0.3, (n, 1))
            change = generator.random((n, 2)) < difference / rate
            one = generator.random((n, 2)) < chance_N1
            return one.ravel(), ((generator.random((n, 2)) < chance_N1) & ~change).ravel(), cases

        difference = 0.3
        for _ in range(
            20
        ):  # the spread depends on the difference, and the difference on the spread
            difference = min(
                rate,
                np.mean(
                    [detectable(*pair(difference), comparisons=comparisons) for _ in range(50)]
                ),
            )
        pairs = [pair(difference) for _ in range(DRAWS // 10)]
        power = np.mean([paired_p(*scored) <= 0.05 / comparisons for scored in pairs])
        yield {"n": n, "rate": rate, "family_wise": false, "detectable": difference, "power": power}


def beta(generator: np.random.Generator, mean: float, icc: float, size: Any) -> Floats:
    if icc == 0:
        return np.full(size, mean)
    return generator.beta(mean * (1 / icc - 1), (1 - mean) * (1 / icc - 1), size)


def flips(
    generator: np.random.Generator, gain: float, loss: float, icc: float, n: int, probes: int
) -> Floats:
    """+1, -1 or 0 for each probe of each case."""
    chances_N3 = np.tile([gain, loss, 1 - gain - loss], (n, 1))
    if icc:
        chances_N3 = generator.gamma(np.maximum(chances_N3 * (1 / icc - 1), 1e-9)) + 1e-300
        chances_N3 /= chances_N3.sum(axis=1, keepdims=True)
    luck = generator.random((n, probes))
    gained, lost = chances_N3[:, :1], chances_N3[:, 1:2]
    return (luck < gained) * 1.0 - ((luck >= gained) & (luck < gained + lost))


def bootstrapped(means: Floats, truth: float, generator: np.random.Generator) -> bool:
    """Whether the percentile bootstrap over cases holds ``truth``."""
    values, counts = np.unique(means, return_counts=True)
    drawn = generator.multinomial(means.size, counts / means.size, 1000) @ values / means.size
    low, high = np.percentile(drawn, (2.5, 97.5))
    return bool(low <= truth <= high)


def covered(truth: float, intervals: Iterator[Any]) -> dict[str, float]:
    ends = np.array([(found.low, found.high) for found in intervals])
    inside = (ends[:, 0] <= truth + 1e-9) & (ends[:, 1] >= truth - 1e-9)
    return {"coverage": float(inside.mean()), "width": float((ends[:, 1] - ends[:, 0]).mean())}


def page(tables: dict[str, list[dict[str, Any]]]) -> str:
    two_sided = [
        r
        for r in tables["rates"]
        if r["n"] >= 50 and r["n"] * min(r["rate"], 1 - r["rate"]) >= 10 - 1e-9
    ]
    flipped = [
        r for r in tables["deltas"] + tables["ratios"] if "probes" not in r or r["probes"] == 1
    ]
    often = [
        r for r in flipped if 10 - 1e-9 <= r["n"] * (r["gain"] + r["loss"]) <= r["n"] - 10 + 1e-9
    ]
    clustered = [r for r in tables["deltas"] if r["probes"] > 1]
    verdicts = [r | {"what": what} for what in ("false", "found") for r in tables["errors"]]
    return f"""# Do the intervals hold?

Made by `python benchmarks/coverage.py`: {DRAWS} data sets a cell, which leaves each coverage an
error of 1 point ({DRAWS // 5} for the bootstrap, {DRAWS // 20} tables and {DRAWS // 10} pairs for
the verdicts: 2 to 6 points). The numbers are in `results/coverage.json`. The tables show the
coverage of the nominal 95 % intervals, in per cent; ranges are the lowest and the highest cell. The
claims:

- **Rates**: {span(two_sided)} with 50 or more cases of which 10 are expected on the rarer side,
  right or wrong. With fewer the interval errs on the wide side: {span(tables["rates"])} over the
  whole grid. Where a case has a single yes or no, coverage changes in steps.
- **Changes of retention** (one score a document) and **ratios**: {span(often)} where 10 or more
  documents are expected to change, and as many not to; {span(flipped)} in all.
- **Differences of clustered scores**: {span(clustered)}: too wide with few cases, never too narrow.
- **Several seeds**: {span([r for r in tables["seeds"] if r["shift"] <= 1])} as long as seeds move
  the mean by no more than the standard error that the cases give to one seed's mean. Two or three
  seeds cannot bound more: {span([r for r in tables["seeds"] if r["shift"] > 1])} where they move it
  twice as much.
- **Who is ahead**: four equal methods, three columns: a table with a false verdict in
  {span(tables["errors"], "family_wise")} of the draws (5 allowed). A pair that differs by what the
  table calls detectable is seen in {span(tables["errors"], "power")} (80 meant).

How the formulas were chosen: about twenty were tried on draws of the same kind (Wilson's with z or
t, Jeffreys', Korn and Graubard's, added cases, Newcombe's square-and-add, Fieller's, other degrees
of freedom), and the simplest kept that never fell below 93 %. The draws here are new, but of the
same kind: other correlations or skews may do worse.

## Rates; in brackets the percentile bootstrap that was used before

{grid(tables["rates"], ("probes", "icc", "n"), "rate", with_percentile)}

## Changes of retention, by the chances of a gain and of a loss

{grid(tables["deltas"], ("probes", "n"), "flips", show)}

## Ratios of retention, by the same and the base's score

{grid(tables["ratios"], ("base", "n"), "flips", show)}

## Several seeds of 50 cases, by the spread of the seeds in standard errors of the cases

{grid(tables["seeds"], ("shared", "seeds"), "shift", show)}

## Verdicts: a false one in a table, and the share seen of pairs with the detectable difference

{grid(verdicts, ("n", "rate"), "what", verdict)}
"""


def grid(
    rows: list[dict[str, Any]],
    down: tuple[str, ...],
    across: str,
    text: Callable[[dict[str, Any]], str],
) -> str:
    """Return a markdown table: a line for each combination of ``down``, a column for each value of
    ``across``."""

    def column(row):
        return f"+{row['gain']:g} -{row['loss']:g}" if across == "flips" else str(row[across])

    columns = list(dict.fromkeys(map(column, rows)))
    lines = {}
    for row in rows:
        lines.setdefault(tuple(str(row[name]) for name in down), {})[column(row)] = text(row)
    table = [[*down, *columns], ["---:"] * (len(down) + len(columns))]
    table += [[*name, *(cells[c] for c in columns)] for name, cells in lines.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def with_percentile(row: dict[str, Any]) -> str:
    return f"{percent(row['coverage'])} ({percent(row['percentile'])})"


def show(row: dict[str, Any]) -> str:
    return percent(row["coverage"])


def verdict(row: dict[str, Any]) -> str:
    return (
        percent(row["family_wise"])
        if row["what"] == "false"
        else f"{percent(row['power'])} ({row['detectable']:.2f})"
    )


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def span(rows: list[dict[str, Any]], key: str = "coverage") -> str:
    values = [row[key] for row in rows]
    return f"{percent(min(values))} to {percent(max(values))} %"


if __name__ == "__main__":
    main()
