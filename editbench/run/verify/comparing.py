"""Compare stored values, rows and tables with computed ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from editbench.run.verify.report import Report

CLOSE = 1e-12
"""Largest difference allowed between numbers that are computed from the same rows."""
ROUNDING = 1e-2
"""Largest difference allowed between log-probabilities (nats) when a model is asked again."""
PLACE: dict[str, tuple[str, ...]] = {
    "probes": ("case", "probe"),
    "retention": ("task", "member", "doc_id"),
    "scores": ("evaluator", "case"),
    "curve_probes": ("facts", "case", "probe"),
    "curve_samples": ("facts", "task", "member", "doc_id"),
    "right_after": ("case", "probe"),
}
"""Table that numbers are computed from -> the columns that name the item of a row."""
ALWAYS = ("probes", "retention")
"""Tables that every cell has."""

Row = Mapping[str, object]


def compare(
    key: str,
    what: str,
    stored: object,
    found: object,
    report: Report,
    same: Callable[[object, object], bool] | None = None,
) -> int:
    """Compare two trees of numbers and texts, and return the number of stored numbers.

    A field that only one of the trees has is compared with ``None``.
    """
    if isinstance(stored, Mapping) and isinstance(found, Mapping):
        names = dict.fromkeys((*stored, *found))
        return sum(
            compare(key, f"{what}.{name}", stored.get(name), found.get(name), report, same)
            for name in names
        )
    if not (same or is_same)(stored, found):
        report.differ(key, what, stored, found)
    return int(isinstance(stored, float | int))


def is_same(one: object, other: object, close: float = CLOSE) -> bool:
    """Return whether two values are equal, floats up to ``close``.

    Where a continuation is scored, the stored output is a text that ends with its log-probability
    (``eval/retention.py``). This number may differ by ``ROUNDING``.
    """
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=0, abs_tol=close)
    if isinstance(one, str) and isinstance(other, str) and one != other:
        first, second = (
            re.fullmatch(r"(.*log-probability )(-?[0-9.]+)", text) for text in (one, other)
        )
        return (
            first is not None
            and second is not None
            and first[1] == second[1]
            and is_same(float(first[2]), float(second[2]), ROUNDING)
        )
    return one == other


def is_near(one: object, other: object) -> bool:
    """Return whether two vital signs are equal up to ``ROUNDING``, absolute or relative.

    Unlike scores, vital signs are ratios of any size.
    """
    if isinstance(one, float | int) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)
    return one == other


def compare_table(
    key: str, name: str, stored: Sequence[Row], found: Sequence[Row], report: Report
) -> int:
    """Compare the stored columns of a table row by row, and return the number of rows.

    Each column adds at most one difference, which names the first row that differs.
    """
    if [place(row, name) for row in stored] != [place(row, name) for row in found]:
        report.differ(key, f"{name}: which items were asked", len(stored), len(found))
        return 0
    # Only stored columns: an older record lacks columns that this version adds.
    columns = dict.fromkeys(column for row in stored for column in row)
    for column in columns:
        if column == "judge":  # a judge is not asked again
            continue
        close = ROUNDING if column.endswith("logprob") else CLOSE
        pairs = zip(stored, found, strict=True)
        odd = [(a, b) for a, b in pairs if not is_same(a[column], b.get(column), close)]
        if odd:
            before, after = odd[0]
            where = f"{len(odd)} of {len(stored)} rows, the first {words(before, name)}"
            report.differ(key, f"{name}, {column}: {where}", before[column], after.get(column))
    return len(stored)


def place(row: Row, name: str) -> tuple[object, ...]:
    """Return the values that name the item of a row of table ``name``."""
    return tuple(row[column] for column in PLACE[name])


def words(row: Row, name: str) -> str:
    """Return the item of a row in words, such as ``case f1 probe 0``.

    The member of a group of tasks is among them. A task that is no group is its own member.
    """
    return " ".join(
        f"{column} {row[column]}"
        for column in PLACE[name]
        if not (column == "member" and row[column] == row["task"])
    )
