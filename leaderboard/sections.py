"""Read runs as the sections of a page: cells that share a table, those of several seeds pooled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas

from editbench.errors import RecordError, listed
from editbench.leaderboard.comparisons import PROTOCOLS, items
from editbench.leaderboard.loading import load_cells
from editbench.leaderboard.pooling import pooled, without_seed
from editbench.leaderboard.rows import BASELINES, family, has, keyed_options, look_up, setting
from editbench.leaderboard.schema import Summary
from editbench.records.reading import not_asked, run_folders, summary_path
from editbench.records.schema import CellSummary


@dataclass(frozen=True)
class Cell:
    """One cell of one run, with the facts about that run that the page needs."""

    summary: CellSummary
    limit: object
    """``--limit`` of the run: samples of each retention task."""
    tasks: list[str]
    """The run's retention tasks with their metrics. They come from the whole run, so that a failed
    cell, which has none, gets into the right table."""
    data: object
    """``--data`` of the run."""
    not_asked: Mapping[str, str]
    """Retention task that the run skipped -> why."""
    suite: str
    """Name of the run's suite, empty without one."""

    @property
    def run_conditions(self) -> dict[str, object]:
        """Return the conditions that a summary alone does not show."""
        return {"limit": self.limit, "tasks": self.tasks}


@dataclass
class Section:
    """The cells that share a table."""

    where: dict[str, object]
    """Their conditions, by the names in ``rows.SETTING``, with ``limit`` and ``tasks``."""
    summaries: list[Summary]
    measured_again: list[str]
    """Keys of cells that are left out, because a row shows the same cell with more measurements."""
    not_asked: dict[str, str]
    also_in: dict[str, list[Path]] = field(default_factory=dict)
    """Method that is no baseline -> the folders of further runs that hold a cell of it that is
    shown: a key is the hash of a cell's inputs, so one of them is enough."""
    suites: set[str] = field(default_factory=set)
    """Suites of the cells' runs; an empty name stands for none."""

    @property
    def suite(self) -> str:
        """The suite that all cells are of, empty if there is none."""
        return min(self.suites) if len(self.suites) == 1 else ""

    @property
    def repeats(self) -> list[str]:
        """A sentence for each method of which several runs hold the same cells."""
        return [
            f"{method}: {listed(folders, 3)} {'have' if len(folders) > 1 else 'has'} the same "
            "cells once more, and they are shown once."
            for method, folders in self.also_in.items()
        ]

    def by_protocol(self) -> dict[str, list[Summary]]:
        """Return the cells that each protocol has scored, the headline's first.

        Failed cells have no scores under any protocol. They stay visible in the headline's table.
        """
        scored = {p: [s for s in self.summaries if has(s, p)] for p in PROTOCOLS}
        headline = next((p for p in PROTOCOLS if scored[p]), "generation")
        shown = [s for s in self.summaries if s in scored[headline] or not s.get("metrics")]
        others = {p: cells for p, cells in scored.items() if cells and p != headline}
        return {headline: shown, **others}


@dataclass
class Sections:
    """The sections of runs, with what their rows rest on."""

    sections: list[Section] = field(default_factory=list)
    records: dict[str, list[tuple[int, Path]]] = field(default_factory=dict)
    """Key of a row -> the seed and the ``summary.json`` of each of its cells."""
    tables: dict[str, pandas.DataFrame | None] = field(default_factory=dict)
    """Key of a row -> its ``comparisons.items``."""


def read_sections(run_paths: Iterable[Path]) -> Sections:
    """Return the cells of ``run_paths`` by section. Cells that differ only by seed are one row.

    If cells differ only by what was measured besides the scores (diagnostics, points of a curve,
    repeated injections), a section has the one with the most measurements, and names the others.

    Raises:
        RecordError: if there is no run, or a path is not a readable run.
    """
    folders = [folder for path in run_paths for folder in run_folders(path)]
    if not folders:
        raise RecordError("A leaderboard needs at least one run folder.")
    cells: dict[str, Cell] = {}
    also_in: dict[str, list[Path]] = {}
    read = Sections()
    for path in folders:
        for cell in _cells(path):
            key = cell.summary["key"]
            if key in cells:
                _check_same_package(cells[key].summary, cell.summary)
                also_in.setdefault(key, []).append(path)
            # A key is the hash of a cell's inputs, so another run with it holds the same cell.
            if key not in cells or cells[key].summary.get("status") == "failed":
                cells[key] = cell
                read.records[key] = [(cell.summary["seed"], summary_path(path, key))]
                read.tables[key] = items(path, cell.summary)
    sections: dict[str, Section] = {}
    for group, again in _by_seed(cells.values()):
        summary = _one_row(group, read)
        where = {**setting(summary), **group[0].run_conditions}
        section = sections.setdefault(json.dumps(where, sort_keys=True), Section(where, [], [], {}))
        section.summaries.append(summary)
        section.measured_again += [cell.summary["key"] for cell in again]
        for cell in group:
            section.not_asked.update(cell.not_asked)
            section.suites.add(cell.suite)
            if more := also_in.get(cell.summary["key"]):
                if family(cell.summary["method"]) not in BASELINES:
                    section.also_in.setdefault(cell.summary["method"], []).extend(more)
    read.sections = list(sections.values())
    return read


def _one_row(group: Sequence[Cell], read: Sections) -> Summary:
    """Return the summary of cells that make one row; what it rests on is added to ``read``."""
    if len(group) == 1:
        return group[0].summary
    keys = [cell.summary["key"] for cell in group]
    summary, merged = pooled([cell.summary for cell in group], [read.tables[key] for key in keys])
    read.tables[summary["key"]] = merged
    read.records[summary["key"]] = [place for key in keys for place in read.records[key]]
    return summary


def _cells(path: Path) -> list[Cell]:
    config, summaries = load_cells(path)
    lost, suite = not_asked(path), look_up(config, ("suite", "name"))
    return [
        Cell(
            summary,
            config.get("limit"),
            _tasks(summaries, summary),
            config.get("data"),
            lost,
            suite if isinstance(suite, str) else "",
        )
        for summary in summaries
    ]


def _check_same_package(one: CellSummary, other: CellSummary) -> None:
    """Check that two cells of one key are of one method.

    The key has a method's name and version, and two authors may choose the same.

    Raises:
        RecordError: the method comes from two packages.
    """
    packages = [
        {origin["package"]: origin["url"] for origin in cell.get("origins", [])}
        for cell in (one, other)
    ]
    if packages[0] != packages[1]:
        first, second = (
            " and ".join(f"{name} ({url or 'no address'})" for name, url in each.items())
            or "editbench"
            for each in packages
        )
        raise RecordError(
            f"{one['method']} comes from {first} in one run, and from {second} in another, so no "
            "row can be called so. Rename one of the methods, and run it again."
        )


def _by_seed(cells: Iterable[Cell]) -> Iterator[tuple[list[Cell], list[Cell]]]:
    """Yield the cells that make one row, and the cells that measured one of them again.

    Cells make one row if they differ only by their seed and by the facts that the seed chose. If a
    seed has two cells (different facts under one corpus name), it is unclear which of them belongs
    with the other seeds, so each cell gets its own row.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        summary = cell.summary
        shared = {
            name: value
            for name, value in setting(summary).items()
            if name not in ("seed", "corpus hash")
        }
        identity = [
            shared,
            cell.run_conditions,
            cell.data,
            summary["method"],
            without_seed(keyed_options(summary)),
            # The same name, but other code: a plug-in that was changed between two seeds.
            look_up(summary, ("versions", "plugins")),
        ]
        groups.setdefault(json.dumps(identity, sort_keys=True), []).append(cell)
    for group in groups.values():
        kept = _fullest(group)
        kept.sort(key=lambda cell: cell.summary["seed"])
        again = [cell for cell in group if cell not in kept]
        one_a_seed = len({cell.summary["seed"] for cell in kept}) == len(kept)
        for row in [kept] if one_a_seed else [[cell] for cell in kept]:
            yield row, again
            again = []  # the group's repeated cells are named once


def _fullest(group: Sequence[Cell]) -> list[Cell]:
    """Return, for each seed, facts and versions, the first of the cells that measured most."""

    def measured(cell: Cell) -> tuple[bool, int]:
        summary = cell.summary
        beside = [bool(summary.get("curve")), bool(summary.get("inject_seconds"))]
        diagnosed = len(summary.get("diagnostics") or ())
        return summary.get("status") != "failed", sum(beside) + diagnosed

    same: dict[str, list[Cell]] = {}
    for cell in group:
        summary = cell.summary
        identity = [
            summary["seed"],
            summary["corpus"].get("hash"),
            # Old records have no versions. They are the same cell if their scores are the same.
            summary.get("versions") or summary.get("metrics"),
        ]
        same.setdefault(json.dumps(identity, sort_keys=True), []).append(cell)
    return [max(cells, key=measured) for cells in same.values()]


def _tasks(summaries: Sequence[CellSummary], like: CellSummary) -> list[str]:
    """Return the retention tasks and metrics of the run under the conditions of ``like``."""
    same = [s for s in summaries if setting(s) == setting(like)]
    return sorted(
        {
            f"{task} {values.get('metric')}"
            for s in same
            for task, values in (s.get("retention") or {}).items()
        }
    )
