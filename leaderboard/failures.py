"""Collect the texts behind a run's numbers: failed probes, differences of two methods, one case.

Under protocol ``generation`` a probe fails with score 0: its text lacks the expected answer or, for
a neighborhood or distracted probe, differs from the base's answer. A denial or reversion probe
fails with score 1: the fact is denied or taken back. A ``fluency`` probe has an entropy and never
fails. Texts are raw here. Code that shows them must escape them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

from editbench.errors import RecordError
from editbench.leaderboard.comparisons import PROTOCOLS
from editbench.leaderboard.loading import load_cells, load_probes, load_right_after, load_samples
from editbench.leaderboard.rows import BASE
from editbench.records.reading import heading, read_cases, read_rows
from editbench.records.schema import CellSummary
from editbench.rows import ProbeRow, SampleRow

WORST = {"denial": 1.0, "reversion": 1.0, "fluency": None}
"""Axis -> the score of a failed probe, if that is not 0; ``None`` if such probes cannot fail."""


class ShownProbe(TypedDict):
    """One probe as it is shown: the question, and the answers before and after the edit."""

    method: str
    case: str
    axis: str
    prompt: str
    expected: str
    base: str
    edited: str
    scores: dict[str, object]
    """Protocol -> score."""
    right_after: NotRequired[str]
    """In a sequence: the answer right after the fact's own chunk. ``edited`` is that of the end."""


class CaseStory(TypedDict):
    """Everything about one case, across the methods."""

    fact: dict[str, object]
    answers: list[ShownProbe]
    edit_records: list[dict[str, object]]
    """The notes of each edit on the fact, with its method."""


def failures(run: Path, method: str | None = None) -> list[ShownProbe]:
    """Return the failed probes, in the order of the methods and of the cases.

    Args:
        method: a method or the key of a cell; ``None`` means all methods except the base.

    Raises:
        RecordError: if ``run`` is not readable, or has no such method.
    """
    if method is None:
        cells = [cell for cell in _answered(run) if cell["method"] != BASE]
    else:
        cells = [_cell(run, method)]
    return [
        _shown(cell, probe) for cell in cells for probe in load_probes(run, cell) if _failed(probe)
    ]


def differences(run: Path, one: str, other: str) -> list[dict[str, object]]:
    """Return the probes and retention samples that two methods score differently.

    Each record has both texts and both scores under the methods' names. ``what`` is the axis or
    task, ``item`` the case or document. Fluency is left out, because two entropies are never equal.

    Raises:
        RecordError: if ``run`` is not readable, lacks one of the methods, or asked them different
            items.
    """
    cells = [_cell(run, one), _cell(run, other)]
    probes, samples = (
        [[_probe_item(row) for row in load_probes(run, cell)] for cell in cells],
        [[_sample_item(row) for row in load_samples(run, cell)] for cell in cells],
    )
    return [
        {
            "what": heading(a.what),
            "item": a.item,
            "prompt": a.prompt,
            "expected": a.expected,
            "base": a.base,
            one: a.text,
            f"{one} scores": a.score,
            other: b.text,
            f"{other} scores": b.score,
        }
        for name, (left, right) in (("probes", probes), ("retention", samples))
        for a, b in _matched(run, name, (one, left), (other, right))
        if a.score != b.score and WORST.get(a.what, 0.0) is not None
    ]


class _Item(NamedTuple):
    """A probe or a retention sample, under the names that ``differences`` shows."""

    place: tuple[str, str | int, str | int]
    """Identifies the item within its table. Equal for the same item of two methods."""
    what: str
    item: str
    prompt: str
    expected: str
    base: str | None
    text: str
    score: float | None


def _probe_item(row: ProbeRow) -> _Item:
    place = row["axis"], row["case"], row["probe"]
    return _Item(
        place, row["axis"], row["case"], row["prompt"], (*row["answers"], "")[0],
        row.get("base_text"), row["text"], row["generation"],
    )  # fmt: skip


def _sample_item(row: SampleRow) -> _Item:
    place = row["task"], row["doc_id"], row["member"]
    return _Item(
        place, row["task"], str(row["doc_id"]), row["prompt"], row["expected"],
        row.get("base_output"), row["output"], row["score"],
    )  # fmt: skip


def _matched(
    run: Path, name: str, one: tuple[str, list[_Item]], other: tuple[str, list[_Item]]
) -> list[tuple[_Item, _Item]]:
    """Return the items of two methods in pairs.

    Raises:
        RecordError: if one of them has an item that the other lacks.
    """
    left, right = ({item.place: item for item in items} for _, items in (one, other))
    if left.keys() != right.keys():
        raise RecordError(
            f"{one[0]} and {other[0]} were not asked the same {name} in {run}, so they cannot be "
            "compared there."
        )
    return [(item, right[place]) for place, item in left.items()]


def case(run: Path, name: str) -> CaseStory:
    """Return the case called ``name``: its fact, the answers of all methods, and the edits' notes.

    Raises:
        RecordError: if ``run`` is not readable, or has no such case; suggests the nearest ids.
    """
    facts = {str(fact.get("id")): fact for fact in read_cases(run) if isinstance(fact, dict)}
    if not facts:
        raise RecordError(f"{run} is a run without facts, so it has no cases.")
    if name not in facts:
        near = difflib.get_close_matches(name, facts, n=3) or list(facts)[:3]
        raise RecordError(
            f"{run} has no case {name!r}. Some of its {len(facts)}: {', '.join(near)}."
        )
    answers: list[tuple[int, ShownProbe]] = []
    notes: list[dict[str, object]] = []
    for cell in _answered(run):
        first = {
            row["probe"]: row["text"] for row in load_right_after(run, cell) if row["case"] == name
        }
        for probe in load_probes(run, cell):
            if probe["case"] == name:
                shown = _shown(cell, probe)
                if probe["probe"] in first:
                    shown["right_after"] = first[probe["probe"]]
                answers.append((probe["probe"], shown))
        records = read_rows(run, cell["key"], "edit_records")
        # In older records of a pair of methods, a note names the part that made it. It belongs to
        # the pair.
        notes += [{**r, "method": cell["method"]} for r in records if r.get("fact") == name]
    # By probe, so that the answers to one question come together. The sort is stable: within a
    # question the methods keep their order.
    answers.sort(key=lambda answer: answer[0])
    return {
        "fact": {key: value for key, value in facts[name].items() if key != "probes"},
        "answers": [shown for _, shown in answers],
        "edit_records": notes,
    }


def _failed(probe: ProbeRow) -> bool:
    score: float | None = probe["generation"]  # None where the probe could not be scored
    return score is not None and score == WORST.get(probe["axis"], 0.0)


def _shown(cell: CellSummary, probe: ProbeRow) -> ShownProbe:
    fields: Mapping[str, object] = probe
    return {
        "method": cell["method"],
        "case": probe["case"],
        "axis": probe["axis"],
        "prompt": probe["prompt"],
        "expected": (*probe["answers"], "")[0],  # a neighbor may have no published answer
        "base": probe["base_text"],
        "edited": probe["text"],
        "scores": {protocol: fields[protocol] for protocol in PROTOCOLS if protocol in fields},
    }


def _answered(run: Path) -> list[CellSummary]:
    """Return the cells that have answers: all but the failed ones."""
    return [summary for summary in load_cells(run)[1] if summary.get("status") != "failed"]


def _cell(run: Path, name: str) -> CellSummary:
    """Return the cell whose method or key is ``name``.

    Raises:
        RecordError: if no cell or several cells have that name, or if the cell failed.
    """
    _, summaries = load_cells(run)
    named = [summary for summary in summaries if name in (summary["method"], summary["key"])]
    if not named:
        methods = ", ".join(summary["method"] for summary in summaries)
        raise RecordError(f"{run} holds no method {name!r}. It holds: {methods}.")
    if len(named) > 1:
        keys = ", ".join(summary["key"] for summary in named)
        raise RecordError(
            f"{run} holds {len(named)} cells of {name!r}. Name one by its key: {keys}."
        )
    if named[0].get("status") == "failed":
        raise RecordError(
            f"{name!r} failed in {run}, so it has no answers ({named[0].get('note')})."
        )
    return named[0]
