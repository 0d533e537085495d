"""Write the notes below a ranking: what limits it, and what a reader could misunderstand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from editbench.leaderboard.comparisons import Verdicts
from editbench.leaderboard.definitions import (
    INFEASIBLE,
    NO_BASE,
    OTHER_MACHINES,
    PARTIAL,
    UNTUNED,
)
from editbench.leaderboard.rows import BASE, look_up, row_notes
from editbench.leaderboard.schema import Row, Summary
from editbench.leaderboard.tables import (
    escape,
    is_infeasible,
    is_partial,
    is_untuned,
    label_of,
)
from editbench.records.reading import heading

SEARCH = {"budget": "trials", "retention": "minimum retention", "n": "dev facts", "tasks": "tasks"}
"""Field that equal searches share -> its name in a note."""
MACHINE = ("platform", "cpu_count", "device", "threads", "hardware")
"""Fields of an environment on which seconds and memory depend. Older records lack some of them."""
SOFTWARE = {"code": ("code",), "torch": ("packages", "torch"), "lm\\_eval": ("packages", "lm_eval")}
"""Software that can change a number slightly -> its path in a record's environment."""


def notes(ranked: Sequence[Row], summaries: Sequence[Summary], verdicts: Verdicts) -> list[str]:
    """Return the notes on a ranking, each of one or two sentences."""
    texts = [UNTUNED] if any(map(is_untuned, ranked)) else []
    texts += [INFEASIBLE] if any(map(is_infeasible, ranked)) else []
    texts += _unequal_searches(ranked)
    texts += [PARTIAL] if any(map(is_partial, ranked)) else []
    texts += map(escape, row_notes(ranked))
    texts += [_status(row) for row in ranked if row["status"] != "done"]
    if verdicts.missing:
        who = ", ".join(map(escape, verdicts.missing))
        texts.append(
            f"Nothing is bold: methods are compared by their tables, and the records hold none "
            f"of {who}."
        )
    if all(row["method"] != BASE for row in ranked):
        texts.append(NO_BASE)
    machines = [machine for summary in summaries for machine in _environments(summary)]
    # A field that a record lacks is no difference.
    if any(len({repr(m.get(field)) for m in machines if m.get(field) is not None}) > 1
           for field in MACHINE):  # fmt: skip
        texts.append(OTHER_MACHINES)
    return texts + _mixed_software(machines)


def _environments(summary: Summary) -> list[Mapping[str, object]]:
    """Return the environment of a cell, or those of all seeds of a pooled one."""
    several = look_up(summary, ("environments",))
    if isinstance(several, list) and several:
        return several
    return [summary.get("environment") or {}]


def _unequal_searches(ranked: Sequence[Row]) -> list[str]:
    texts = []
    for part, words in SEARCH.items():
        searches: dict[str, list[str]] = {}
        for row in ranked:
            if row["tuning"]:
                value = row["tuning"].get(part)
                text = ", ".join(map(heading, value)) if isinstance(value, list) else str(value)
                searches.setdefault(text, []).append(row.get("label", row["method"]))
        if len(searches) > 1:
            listed = "; ".join(f"{text} ({', '.join(who)})" for text, who in searches.items())
            texts.append(f"The searches were not equal: {words} {escape(listed)}.")
    return texts


def _status(row: Row) -> str:
    reason = f". {escape(row['note'])}" if row["note"] else "."
    return f"{label_of(row)}: {escape(row['status'].replace('_', ' '))}{reason}"


def _mixed_software(machines: Sequence[Mapping[str, object]]) -> list[str]:
    versions = {
        name: sorted({str(version) for m in machines if (version := look_up(m, path))})
        for name, path in SOFTWARE.items()
    }
    mixed = [
        f"{name} {escape(', '.join(several))}"
        for name, several in versions.items()
        if len(several) > 1
    ]
    if not mixed:
        return []
    return [
        "The cells were computed with different software, which can move a number a little: "
        f"{'; '.join(mixed)}."
    ]
