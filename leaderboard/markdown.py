"""Render run folders as one markdown page: a table for each setting, with links to the records."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas

from editbench.errors import RecordError
from editbench.leaderboard import details
from editbench.leaderboard.comparisons import PROTOCOLS, RETENTION, Verdicts, items, judge
from editbench.leaderboard.definitions import (
    ABOUT_MORE,
    DEFINITIONS,
    DEFINITIONS_WITHOUT_FACTS,
    DIAGNOSTICS_DEFINITIONS,
    EVALUATOR_DEFINITIONS,
    MIXING_DEFINITION,
    MORE_DEFINITIONS,
    SEEDS,
    TWICE,
)
from editbench.leaderboard.loading import load_cells
from editbench.leaderboard.notes import notes
from editbench.leaderboard.pooling import pooled, without_seed
from editbench.leaderboard.rows import (
    MORE_AXES,
    diagnostics,
    has,
    keyed_options,
    mixing,
    more,
    rivals,
    rows,
    setting,
)
from editbench.leaderboard.schema import Row, Summary
from editbench.leaderboard.tables import (
    Links,
    detectable_line,
    escape,
    kinds_table,
    label_of,
    listing,
    main_table,
    named,
    pairs_table,
    protocol_table,
    retention_table,
    table,
)
from editbench.records.reading import heading, not_asked, summary_path
from editbench.records.schema import CellSummary
from editbench.types import digest

HEADINGS = {
    True: "## {model} · {corpus} ({slice}, n = {n}) · {regime}",
    False: "## {model} · no facts: retention alone",
}
"""Whether facts were asked -> the heading of a table."""


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


def render(run_paths: Sequence[Path], output: Path, command: str | None = None) -> str:
    """Return the page for ``run_paths``, to be written to ``output``.

    Cells that differ only by their seed make one row. If cells differ only by what was measured
    besides the scores (diagnostics, points of a curve, repeated injections), the page shows the one
    with the most measurements and names the others. Cells of different models, chat templates,
    corpora, slices, regimes, (sets of) seeds, task data, retention limits or scoring versions get
    separate tables.

    Args:
        output: where links to the records start.
        command: the command that makes the page, to be quoted at its top.

    Raises:
        RecordError: if there is no run, a path is not a readable run, or cells of one table cannot
            be compared.
    """
    if not run_paths:
        raise RecordError("A leaderboard needs at least one run folder.")
    cells: dict[str, Cell] = {}
    links: dict[str, list[tuple[int, str]]] = {}
    tables: dict[str, pandas.DataFrame | None] = {}
    for path in map(Path, run_paths):
        for cell in _cells(path):
            key = cell.summary["key"]
            # A key is the hash of a cell's inputs, so another run with it holds the same cell.
            if key not in cells or cells[key].summary.get("status") == "failed":
                cells[key] = cell
                links[key] = [(cell.summary["seed"], _link(summary_path(path, key), output))]
                tables[key] = items(path, cell.summary)
    sections = _sections(cells.values(), links, tables)
    parts = ["# Leaderboard"]
    if command:
        # A fence must be longer than any run of backticks that it encloses.
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
        parts.append(f"{fence}sh\n{command}\n{fence}")
    for section in sections:
        parts += _section(section, links, tables)
    return "\n\n".join([*parts, "## What the columns mean", _definitions(sections)]) + "\n"


def _cells(path: Path) -> list[Cell]:
    config, summaries = load_cells(path)
    lost = not_asked(path)
    return [
        Cell(summary, config.get("limit"), _tasks(summaries, summary), config.get("data"), lost)
        for summary in summaries
    ]


def _sections(
    cells: Iterable[Cell],
    links: dict[str, list[tuple[int, str]]],
    tables: dict[str, pandas.DataFrame | None],
) -> list[Section]:
    """Return the sections of the page. Adds the pooled cells to ``links`` and ``tables``."""
    sections: dict[str, Section] = {}
    for group, again in _by_seed(cells):
        summary: Summary = group[0].summary
        if len(group) > 1:
            keys = [cell.summary["key"] for cell in group]
            summary, merged = pooled(
                [cell.summary for cell in group], [tables[key] for key in keys]
            )
            tables[summary["key"]] = merged
            links[summary["key"]] = [place for key in keys for place in links[key]]
        where = {**setting(summary), **group[0].run_conditions}
        section = sections.setdefault(json.dumps(where, sort_keys=True), Section(where, [], [], {}))
        section.summaries.append(summary)
        section.measured_again += [cell.summary["key"] for cell in again]
        for cell in group:
            section.not_asked.update(cell.not_asked)
    return list(sections.values())


def _definitions(sections: Sequence[Section]) -> str:
    """Return the definitions of the columns that the page has."""
    has_facts = any(section.where["n"] != 0 for section in sections)
    text = DEFINITIONS if has_facts else DEFINITIONS_WITHOUT_FACTS
    summaries = [summary for section in sections for summary in section.summaries]
    if any(axis in (s.get("metrics") or {}) for s in summaries for axis in MORE_AXES):
        text += MORE_DEFINITIONS
    if any(map(mixing, summaries)):
        text += MIXING_DEFINITION
    if any(summary.get("diagnostics") for summary in summaries):
        text += DIAGNOSTICS_DEFINITIONS
    plugins = {
        name: score["title"] or name
        for summary in summaries
        for name, score in (summary.get("evaluators") or {}).items()
    }
    if plugins:
        text += EVALUATOR_DEFINITIONS.format(
            titles=", ".join(map(escape, plugins.values())),
            names=", ".join(map(escape, plugins)),
            s="s" * (len(plugins) > 1),
        )
    if any(isinstance(section.where["seed"], list) for section in sections):
        text += SEEDS
    return text


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


def _section(
    section: Section, links: Links, tables: Mapping[str, pandas.DataFrame | None]
) -> list[str]:
    """Return the blocks of one setting: its conditions, its ranking, and the tables below it."""
    where, summaries = section.where, section.summaries
    scored = {p: [s for s in summaries if has(s, p)] for p in PROTOCOLS}
    protocol = next((p for p in PROTOCOLS if scored[p]), "generation")
    # Failed cells have no scores under any protocol. They stay visible in the headline table.
    ranked = rows([s for s in summaries if s in scored[protocol] or not s.get("metrics")], protocol)
    labels = {row["key"]: row.get("label", row["method"]) for row in ranked}
    verdicts, kept = (judge(rivals(ranked), tables, part) for part in (protocol, RETENTION))
    parts = [
        HEADINGS[where["n"] != 0].format(**{k: escape(v) for k, v in where.items()}),
        _conditions(where, protocol, ranked),
        main_table(ranked, links, verdicts),
        *detectable_line(verdicts),
    ]
    parts += _remarks(section, ranked, verdicts, links)
    parts += _twice(ranked, protocol)
    if any(row["retention"] for row in ranked):
        parts += [
            "### Retention by task: change against the base, paired ↑",
            retention_table(ranked, links, kept),
            *detectable_line(kept),
        ]
    if any("/" in metric for s in summaries for metric in s.get("metrics") or ()):
        parts += ["### By kind of probe ↑", kinds_table(ranked, summaries, protocol, links)]
    parts += _more(ranked, summaries, protocol, links)
    for other in PROTOCOLS:
        if other != protocol and scored[other]:
            parts += _other_protocol(other, scored[other], summaries, labels, links, tables)
    if verdicts.comparisons or kept.comparisons:
        parts += [
            f"### Every pair, protocol {protocol}: mean difference by case, and p adjusted by Holm "
            "in each table",
            pairs_table([*verdicts.comparisons, *kept.comparisons], labels),
        ]
    parts += _details(summaries, labels, protocol)
    left = [s["method"] for s in summaries if s.get("metrics") and not has(s, protocol)]
    if left:
        parts.append(f"Not scored under {protocol}: {', '.join(map(escape, left))}.")
    return parts


def _remarks(
    section: Section, ranked: Sequence[Row], verdicts: Verdicts, links: Links
) -> list[str]:
    """Return the notes and the warnings below the ranking."""
    remarks = notes(ranked, section.summaries, verdicts)
    if section.measured_again:
        left = ", ".join(f"[{escape(key)}]({links[key][0][1]})" for key in section.measured_again)
        remarks.append(
            "Left out, because a row shows the same cell with at least as many other "
            f"measurements: {left}."
        )
    remarks += [
        f"{escape(heading(task))} was requested but could not be asked: {escape(why)}"
        for task, why in section.not_asked.items()
    ]
    parts = ["\n".join(f"- {remark}" for remark in remarks)] if remarks else []
    warnings = [
        f"- {label_of(row)}: {escape(warning)}" for row in ranked for warning in row["warnings"]
    ]
    return parts + (["Warnings:", "\n".join(warnings)] if warnings else [])


def _other_protocol(
    protocol: str,
    scored: Sequence[Summary],
    summaries: Sequence[Summary],
    labels: Mapping[str, str],
    links: Links,
    tables: Mapping[str, pandas.DataFrame | None],
) -> list[str]:
    """Return the blocks of a protocol other than the headline's."""
    ranked = rows(scored, protocol)
    for row in ranked:
        # The headline's label: here fewer rows may need fewer options to differ.
        row["label"] = labels.get(row["key"], row.get("label", row["method"]))
    verdicts = judge(rivals(ranked), tables, protocol)
    return [
        f"### Protocol {protocol}: {PROTOCOLS[protocol]}",
        "Not comparable with the table above, and ranked apart from it.",
        protocol_table(ranked, links, verdicts),
        *detectable_line(verdicts),
        *_twice(ranked, protocol),
        *_more(ranked, summaries, protocol, links),
    ]


def _twice(ranked: Sequence[Row], protocol: str) -> list[str]:
    """Return the blocks on a sequence's facts right after their chunk and at the end, if any."""
    lines = details.right_after(ranked)
    title = f"### Right after each chunk, and at the end (protocol {protocol})"
    return [title, TWICE, listing(lines)] if lines else []


def _more(
    ranked: Sequence[Row], summaries: Sequence[Summary], protocol: str, links: Links
) -> list[str]:
    """Return the second table of ``protocol``; nothing if none of its metrics was measured."""
    titles, texts = more(summaries, [row["key"] for row in ranked], protocol)
    if not titles:
        return []
    return [
        f"### More under {protocol}",
        "None of it enters the score; definitions in `eval/DEFINITIONS.md`. "
        f"{ABOUT_MORE[protocol]}",
        table(["Method", *titles], [[named(row, links), *texts[row["key"]]] for row in ranked]),
    ]


def _details(summaries: Sequence[Summary], labels: Mapping[str, str], protocol: str) -> list[str]:
    """Return the tables of diagnostics, of the curve over facts and of the cost."""
    parts = []
    if lines := diagnostics(summaries, labels):
        parts += [
            "### Diagnostics",
            "What the edits did besides the scores; definitions in `eval/DEFINITIONS.md`. They do "
            "not affect the ranking.",
            listing(lines),
        ]
    if lines := details.curve(summaries, labels, protocol):
        parts += [
            f"### Curve over facts (protocol {protocol})",
            "Scores of the facts injected so far, retention as a mean over the tasks; × against "
            "the base.",
            listing(lines),
        ]
    has_facts = summaries[0]["corpus"].get("n") != 0
    if has_facts and (lines := details.costs(summaries, labels)):
        parts += [
            "### Cost",
            "Seconds by phase; forward passes and tokens through the decoder layers while "
            "injecting, and tokens trained on; peak memory.",
            listing(lines),
        ]
    return parts


def _conditions(where: Mapping[str, object], protocol: str, ranked: Sequence[Row]) -> str:
    """Return the line below a heading that states the conditions of a table."""
    seed, hashes = where["seed"], where["corpus hash"]
    seeds = seed if isinstance(seed, list) else [seed]
    several = isinstance(seed, list)
    known = hashes if isinstance(hashes, list) else [hashes]
    corpora = ", ".join(str(each)[:12] for each in known)
    template, data, scoring = where["chat template"], where["task data"], where["scoring version"]
    has_facts = where["n"] != 0
    facts = [
        f"n = {escape(where['n'])} cases{' a seed' * several} ({escape(where['form'])})",
        f"protocol {protocol}",
    ]
    conditions = [
        *(facts if has_facts else ()),
        f"seed{'s' * several} {escape(', '.join(map(str, seeds)))}",
        f"precision {escape(where['precision'])}",
        _samples(where["limit"], len(seeds), ranked),
        f"model {escape(str(where['model hash'])[:12])}",
        *([f"corpus {escape(corpora)}"] if has_facts else []),
        *([f"chat template {escape(str(template)[:12])}"] if template else []),
        *([f"task data {digest(data)[:12]}"] if data else []),
        *([f"scoring version {escape(scoring)}"] if scoring else []),
    ]
    return " · ".join(conditions)


def _samples(limit: object, seeds: int, ranked: Sequence[Row]) -> str:
    """Return how many samples were asked.

    The limit holds for each member of a group of tasks, so a group has more.
    """
    if not isinstance(limit, int):
        return "all retention samples"
    groups = any(
        (values.get("n") or 0) > limit * seeds
        for row in ranked
        for values in row["retention"].values()
    )
    return f"at most {limit} retention samples a task{', of a group each member' * groups}"


def _link(target: Path, output: Path) -> str:
    relative = os.path.relpath(target.resolve(), Path(output).resolve().parent)
    return quote(Path(relative).as_posix(), safe="/.")


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
