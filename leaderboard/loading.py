"""Load the cells and the tables of a run as typed records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editbench.records.reading import load_run, read_rows
from editbench.records.schema import CellSummary
from editbench.rows import ProbeRow, SampleRow, ScoreRow


def load_cells(run: Path) -> tuple[Mapping[str, object], list[CellSummary]]:
    """Return the configuration and the finished cells of ``run``.

    Raises:
        RecordError: if ``run`` is not readable.
    """
    config, summaries = load_run(run)
    # ``load_run`` has checked the fields, so the untyped records are taken as typed ones.
    cells: Sequence[Any] = summaries
    return config, list(cells)


def load_probes(run: Path, cell: CellSummary) -> list[ProbeRow]:
    """Return the probe rows of ``cell``.

    Raises:
        RecordError: if the table is missing, is corrupt, or lacks a column.
    """
    rows: Sequence[Any] = read_rows(run, cell["key"], "probes")
    return list(rows)


def load_right_after(run: Path, cell: CellSummary) -> list[ProbeRow]:
    """Return the rows that a sequence was asked right after each chunk; none for other cells.

    Raises:
        RecordError: as ``load_probes``.
    """
    if "right_after" not in cell.get("tables", {}):
        return []
    rows: Sequence[Any] = read_rows(run, cell["key"], "right_after")
    return list(rows)


def load_samples(run: Path, cell: CellSummary) -> list[SampleRow]:
    """Return the retention samples of ``cell``.

    Raises:
        RecordError: if the table is missing, is corrupt, or lacks a column.
    """
    rows: Sequence[Any] = read_rows(run, cell["key"], "retention")
    return list(rows)


def load_scores(run: Path, cell: CellSummary) -> list[ScoreRow]:
    """Return what evaluator plug-ins said of the cases of ``cell``.

    Raises:
        RecordError: if the table is missing, is corrupt, or lacks a column.
    """
    rows: Sequence[Any] = read_rows(run, cell["key"], "scores")
    return list(rows)
