"""Render run folders as one markdown page: a table for each setting, with links to the records."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pandas

from editbench.leaderboard import details
from editbench.leaderboard.comparisons import PROTOCOLS, RETENTION, Verdicts, judge
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
from editbench.leaderboard.notes import notes
from editbench.leaderboard.rows import (
    MORE_AXES,
    diagnostics,
    has,
    mixing,
    more,
    rivals,
    rows,
)
from editbench.leaderboard.schema import Row, Summary
from editbench.leaderboard.sections import Section, read_sections
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
from editbench.records.reading import heading
from editbench.types import digest

HEADINGS = {
    True: "## {model} · {corpus} ({slice}, n = {n}) · {regime}",
    False: "## {model} · no facts: retention alone",
}
"""Whether facts were asked -> the heading of a table."""


def render(
    run_paths: Sequence[Path],
    output: Path,
    command: str | None = None,
    site: str | None = None,
) -> str:
    """Return the page for ``run_paths``, to be written to ``output``.

    Cells that differ only by their seed make one row. If cells differ only by what was measured
    besides the scores (diagnostics, points of a curve, repeated injections), the page shows the one
    with the most measurements and names the others. Cells of different models, chat templates,
    corpora, slices, regimes, (sets of) seeds, task data, retention limits or scoring versions get
    separate tables.

    Args:
        output: where links to the records start.
        command: the command that makes the page, to be quoted at its top.
        site: the link to the same tables as pages to explore (``website.py``).

    Raises:
        RecordError: if there is no run, a path is not a readable run, or cells of one table cannot
            be compared.
    """
    read = read_sections(run_paths)
    links = {
        key: [(seed, _link(record, output)) for seed, record in records]
        for key, records in read.records.items()
    }
    # A page that no command made is that of one run, in its folder.
    parts = ["# Leaderboard" if command else "# Results of a run"]
    if command:
        # A fence must be longer than any run of backticks that it encloses.
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
        parts.append(f"{fence}sh\n{command}\n{fence}")
    if site:
        parts.append(f"To sort, filter and read every answer: [{site}]({site})")
    for section in read.sections:
        parts += _section(section, links, read.tables)
    return "\n\n".join([*parts, "## What the columns mean", _definitions(read.sections)]) + "\n"


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


def _section(
    section: Section, links: Links, tables: Mapping[str, pandas.DataFrame | None]
) -> list[str]:
    """Return the blocks of one setting: its conditions, its ranking, and the tables below it."""
    where, summaries = section.where, section.summaries
    scored = section.by_protocol()
    protocol, *others = scored
    ranked = rows(scored[protocol], protocol)
    labels = {row["key"]: row.get("label", row["method"]) for row in ranked}
    verdicts, kept = (judge(rivals(ranked), tables, part) for part in (protocol, RETENTION))
    parts = [
        title_of(where),
        conditions(where, protocol, ranked, section.suite),
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
    for other in others:
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
    remarks += map(escape, section.repeats)
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


def title_of(where: Mapping[str, object]) -> str:
    """Return the heading of a table."""
    return HEADINGS[where["n"] != 0].format(**{k: escape(v) for k, v in where.items()})


def conditions(
    where: Mapping[str, object], protocol: str, ranked: Sequence[Row], suite: str = ""
) -> str:
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
        *([f"suite {escape(suite)}"] if suite else []),
        *(facts if has_facts else ()),
        f"seed{'s' * several} {escape(', '.join(map(str, seeds)))}",
        f"precision {escape(where['precision'])}",
        *([f"weights in {escape(where['dtype'])}"] if where["dtype"] else []),
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
