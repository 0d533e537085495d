"""Who is ahead of whom: every pair of methods in every column of a table, from the items that the cells keep.

Two methods answer the same probes and documents, so they are compared by case: the mean difference with the p of a sign-flip
permutation test (``stats.paired_p``), all p of one table adjusted by Holm. A method is ahead in a column if it is better
than every other one there at a family-wise 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas

from editbench.records.reading import read_table, summary_path
from editbench.stats import detectable, holm, paired_delta, paired_p
from editbench.types import METRICS, MORE_METRICS

PROTOCOLS = {
    "generation": "does the model write it?",
    "argmax": "is each token of the target the most probable, the target given up to there?",
    "likelihood": "is the target more probable than the old answer?",
    "judge": "does another language model say that the answer means the same?",
}
"""The first that was scored makes the headline."""
RETENTION = "retention"
"""What stands for a protocol where the items are documents of retention tasks; its columns are the tasks."""
LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """One method against another in one column: the mean difference, and its p adjusted for all pairs of the table."""

    column: str
    one: str
    other: str
    difference: float
    p: float


@dataclass(frozen=True)
class Verdicts:
    """The comparisons of one table; methods are named by the keys of their cells."""

    comparisons: Sequence[Comparison] = ()
    detectable: Mapping[str, float] = field(default_factory=dict)
    """Column -> the difference that any pair would show with 80 % power at the corrected level."""
    missing: Sequence[str] = ()
    """Methods whose record has no tables: while there are any, nobody is ahead."""

    def ahead(self, key: str, column: str) -> bool:
        """Whether ``key`` is better than every method it was compared with, at least one."""
        signs = [
            (c.difference if c.one == key else -c.difference, c.p)
            for c in self.comparisons
            if c.column == column and key in (c.one, c.other)
        ]
        return bool(signs) and not self.missing and all(d > 0 and p <= LEVEL for d, p in signs)


def items(path: Path, summary: Mapping[str, Any]) -> pandas.DataFrame | None:
    """All that the cell was scored on in the run folder ``path``: ``protocol``, ``column``, ``seed``, ``case``, ``item``,
    ``score``, of probes ``kind`` and, of documents, ``base``. ``None`` if the record was moved without its tables.

    Raises:
        RecordError: a table is corrupt; names the file.
    """
    tables = {
        name: summary_path(path, summary["key"]).with_name(f"{name}.parquet")
        for name in ("probes", "retention")
    }
    needed = [
        name
        for name, part in (("probes", "metrics"), ("retention", "retention"))
        if summary.get(part)
    ]
    if not all(tables[name].is_file() for name in needed):
        return None
    found = []
    if "probes" in needed:
        probes = read_table(path, summary["key"], "probes")
        for column, axis in METRICS.items():
            chosen = probes[probes["axis"] == axis]
            for protocol in PROTOCOLS:
                if protocol in chosen:
                    named = {
                        "case": chosen["case"],
                        "item": chosen["probe"],
                        "score": chosen[protocol],
                    }
                    found.append(
                        pandas.DataFrame(named).assign(
                            protocol=protocol, column=column, kind=chosen.get("kind")
                        )
                    )
        for name, (axis, protocol, column) in MORE_METRICS.items():
            chosen = probes[probes["axis"] == axis]
            if column in chosen and len(chosen):
                named = {
                    "case": chosen["case"],
                    "item": chosen["probe"],
                    "score": chosen[column].astype(float),
                }
                found.append(pandas.DataFrame(named).assign(protocol=protocol, column=name))
    if "retention" in needed:
        kept = read_table(path, summary["key"], "retention")
        documents = kept["member"] + " " + kept["doc_id"].astype(str)
        base = kept["base_score"] if "base_score" in kept else kept["score"]  # base itself
        named = {
            "column": kept["task"],
            "case": documents,
            "item": 0,
            "score": kept["score"],
            "base": base,
        }
        found.append(pandas.DataFrame(named).assign(protocol=RETENTION))
    return pandas.concat(found, ignore_index=True).assign(seed=summary["seed"]) if found else None


def judge(
    rivals: Sequence[Mapping[str, Any]],
    tables: Mapping[str, pandas.DataFrame | None],
    protocol: str,
) -> Verdicts:
    """Compares all pairs of ``rivals``, rows of one table, under ``protocol`` in the metrics of all protocols, or in
    ``RETENTION``."""
    measured = [r for r in rivals if (r["retention"] if protocol == RETENTION else r["score_of"])]
    if len(measured) < 2:
        return Verdicts()
    missing = [r["label"] for r in measured if tables.get(r["key"]) is None]
    scores = {}
    for row in measured:
        if (table := tables.get(row["key"])) is not None:
            chosen = table[(table["protocol"] == protocol) & table["score"].notna()]
            chosen = chosen if protocol == RETENTION else chosen[chosen["column"].isin(METRICS)]
            scores[row["key"]] = chosen.set_index(["column", "seed", "case", "item"])["score"]
    pairs = []
    for one, other in combinations(scores, 2):
        both = pandas.concat(
            [scores[one], scores[other]], axis=1, join="inner", keys=["one", "other"]
        )
        for column, found in both.reset_index().groupby("column", sort=False):
            pairs.append(
                (column, one, other, [found[name] for name in ("one", "other", "case", "seed")])
            )
    adjusted = holm([paired_p(*scored) for *_, scored in pairs])
    comparisons, widest = [], {}
    for (column, one, other, scored), p in zip(pairs, adjusted, strict=True):
        comparisons.append(Comparison(column, one, other, paired_delta(*scored).mean, p))
        seen = detectable(*scored, comparisons=len(pairs))
        if not math.isnan(seen):
            widest[column] = max(widest.get(column, 0.0), seen)
    return Verdicts(comparisons, widest, missing)
