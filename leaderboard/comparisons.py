"""Compare every pair of methods in every column of a table, on the items that the cells store.

Two methods answer the same probes and documents, so they are compared case by case: by the mean
difference and the p-value of a sign-flip permutation test (``stats.paired_p``). Holm's method
adjusts all p-values of one table. A method is ahead in a column if it is better there than every
other method at a family-wise error rate of 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pandas

from editbench.leaderboard.schema import Row
from editbench.records.reading import read_table, table_path
from editbench.records.schema import CellSummary
from editbench.stats import detectable, holm, paired_delta, paired_p
from editbench.types import METRICS, MORE_METRICS

PROTOCOLS = {
    "generation": "does the model write it?",
    "argmax": "is each token of the target the most probable, the target given up to there?",
    "likelihood": "is the target more probable than the old answer?",
    "judge": "does another language model say that the answer means the same?",
}
"""Protocol -> the question it asks. The first one that was scored is the headline of a page."""
RETENTION = "retention"
"""Stands in the place of a protocol if items are documents and columns are retention tasks."""
EVALUATORS = "evaluators"
"""Stands in the place of a protocol if columns are evaluator plug-ins."""
RIGHT_AFTER = "right after: "
"""Stands before a protocol if items are probes asked right after their fact's chunk."""
LEVEL = 0.05
"""Family-wise error rate of one table."""


@dataclass(frozen=True)
class Comparison:
    """One method against another in one column. Methods are named by the keys of their cells."""

    column: str
    one: str
    other: str
    difference: float
    """Mean over cases of ``one`` minus ``other``."""
    p: float
    """Two-sided p-value, adjusted for all pairs and columns of the table."""


@dataclass(frozen=True)
class Verdicts:
    """The comparisons of one table."""

    comparisons: Sequence[Comparison] = ()
    detectable: Mapping[str, float] = field(default_factory=dict)
    """Column -> the difference that any pair would show with 80 % power at the corrected level."""
    missing: Sequence[str] = ()
    """Labels of rows whose record has no tables. If there are any, no method is ahead."""

    def ahead(self, key: str, column: str) -> bool:
        """Return whether ``key`` was compared and is better than all others."""
        return self._beyond_all(key, column, 1)

    def behind(self, key: str, column: str) -> bool:
        """Return whether ``key`` was compared and is worse than all others."""
        return self._beyond_all(key, column, -1)

    def _beyond_all(self, key: str, column: str, sign: int) -> bool:
        # A comparison holds one minus other, so the sign turns round if ``key`` is the other.
        signs = [
            (sign * (c.difference if c.one == key else -c.difference), c.p)
            for c in self.comparisons
            if c.column == column and key in (c.one, c.other)
        ]
        return bool(signs) and not self.missing and all(d > 0 and p <= LEVEL for d, p in signs)


def items(path: Path, summary: CellSummary) -> pandas.DataFrame | None:
    """Return every item on which the cell in the run folder ``path`` was scored.

    Columns: ``protocol``, ``column``, ``seed``, ``case``, ``item``, ``score``; for probes also
    ``kind``, for documents also ``base``. ``None`` if the record was moved without its tables.

    Raises:
        RecordError: if a table is corrupt; names the file.
    """
    key = summary["key"]
    needed = [
        name
        for name, scored in (
            ("probes", summary.get("metrics")),
            ("retention", summary.get("retention")),
        )
        if scored
    ]
    if not all(table_path(path, key, name).is_file() for name in needed):
        return None
    parts: list[pandas.DataFrame] = []
    if "probes" in needed:
        parts += _probe_items(read_table(path, key, "probes"))
    if "retention" in needed:
        parts.append(_document_items(read_table(path, key, "retention")))
    # Methods are not compared by these two, so a record without the tables still has verdicts.
    if summary.get("evaluators") and table_path(path, key, "scores").is_file():
        parts.append(_evaluator_items(read_table(path, key, "scores")))
    if summary.get("right_after") and table_path(path, key, "right_after").is_file():
        first = read_table(path, key, "right_after")
        parts += [
            part.assign(protocol=RIGHT_AFTER + part["protocol"])
            for part in _probe_items(first[~first["replaced"]])
        ]
    return pandas.concat(parts, ignore_index=True).assign(seed=summary["seed"]) if parts else None


def _probe_items(probes: pandas.DataFrame) -> list[pandas.DataFrame]:
    """Return one frame for each metric and protocol that the probes were scored under."""
    by_axis = {str(axis): chosen for axis, chosen in probes.groupby("axis", sort=False)}
    parts = []
    for metric, axis in METRICS.items():
        if (chosen := by_axis.get(axis)) is not None:
            parts += [
                _scored(chosen, chosen[protocol], protocol, metric).assign(kind=chosen.get("kind"))
                for protocol in PROTOCOLS
                if protocol in chosen
            ]
    for metric, (axis, protocol, source) in MORE_METRICS.items():
        if (chosen := by_axis.get(axis)) is not None and source in chosen:
            parts.append(_scored(chosen, chosen[source].astype(float), protocol, metric))
    return parts


def _scored(
    probes: pandas.DataFrame, score: pandas.Series, protocol: str, metric: str
) -> pandas.DataFrame:
    # One constructor: a run's table needs some thirty of these frames for each cell.
    return pandas.DataFrame(
        {
            "case": probes["case"],
            "item": probes["probe"],
            "score": score,
            "protocol": protocol,
            "column": metric,
        }
    )


def _document_items(samples: pandas.DataFrame) -> pandas.DataFrame:
    # The base's own cell has no base_score, because its score is the base's.
    base = samples["base_score"] if "base_score" in samples else samples["score"]
    frame = pandas.DataFrame(
        {
            "column": samples["task"],
            "case": samples["member"] + " " + samples["doc_id"].astype(str),
            "score": samples["score"],
            "base": base,
        }
    )
    return frame.assign(item=0, protocol=RETENTION)


def _evaluator_items(scores: pandas.DataFrame) -> pandas.DataFrame:
    base = scores["base_score"] if "base_score" in scores else scores["score"]
    frame = pandas.DataFrame(
        {
            "column": scores["evaluator"],
            "case": scores["case"],
            "score": scores["score"],
            "base": base,
        }
    )
    return frame.assign(item=0, protocol=EVALUATORS)


def judge(
    rivals: Sequence[Row], tables: Mapping[str, pandas.DataFrame | None], protocol: str
) -> Verdicts:
    """Compare all pairs of ``rivals``, which are rows of one table.

    Args:
        tables: the ``items`` of each row, by its key.
        protocol: selects the columns: the metrics of all protocols or, for ``RETENTION``, the
            tasks.
    """
    measured = [r for r in rivals if (r["retention"] if protocol == RETENTION else r["score_of"])]
    if len(measured) < 2:
        return Verdicts()
    missing = [r.get("label", r["method"]) for r in measured if tables.get(r["key"]) is None]
    scores = {
        row["key"]: _scores(table, protocol)
        for row in measured
        if (table := tables.get(row["key"])) is not None
    }
    pairs = [pair for one, other in combinations(scores, 2) for pair in _pairs(scores, one, other)]
    # All pairs and columns of the table are one family: more columns make a stricter test.
    adjusted = holm(
        [paired_p(pair.one_scores, pair.other_scores, pair.cases, pair.seeds) for pair in pairs]
    )
    comparisons = []
    widest: dict[str, float] = {}
    for pair, p in zip(pairs, adjusted, strict=True):
        scored = pair.one_scores, pair.other_scores, pair.cases, pair.seeds
        comparisons.append(
            Comparison(pair.column, pair.one, pair.other, paired_delta(*scored).mean, p)
        )
        difference = detectable(*scored, comparisons=len(pairs))
        if not math.isnan(difference):
            # The pair with the widest spread decides: this difference any pair would have shown.
            widest[pair.column] = max(widest.get(pair.column, 0.0), difference)
    return Verdicts(comparisons, widest, missing)


@dataclass(frozen=True)
class _Pair:
    """The items that two methods share in one column."""

    column: str
    one: str
    other: str
    one_scores: list[float]
    other_scores: list[float]
    cases: list[str]
    seeds: list[int]


def _scores(table: pandas.DataFrame, protocol: str) -> pandas.Series:
    chosen = table[(table["protocol"] == protocol) & table["score"].notna()]
    if protocol != RETENTION:
        chosen = chosen[chosen["column"].isin(list(METRICS))]
    return chosen.set_index(["column", "seed", "case", "item"])["score"]


def _pairs(scores: Mapping[str, pandas.Series], one: str, other: str) -> list[_Pair]:
    # An inner join: items that only one of the two was asked cannot be compared.
    both = pandas.concat([scores[one], scores[other]], axis=1, join="inner", keys=["one", "other"])
    return [
        _Pair(
            str(column),
            one,
            other,
            shared["one"].tolist(),
            shared["other"].tolist(),
            shared["case"].tolist(),
            shared["seed"].tolist(),
        )
        for column, shared in both.reset_index().groupby("column", sort=False)
    ]
