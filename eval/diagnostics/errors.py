"""What became of the answers that the base had right: how many are lost, and how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

from editbench.matching import mentions
from editbench.rows import ProbeRow, SampleRow
from editbench.types import Fact

KINDS = ("format", "leakage", "collapse", "genuine")
AXES = ("in_context", "neighborhood")
"""Axes of probes whose answers an edit should leave alone."""
EXAMPLE = 200
"""Most characters of each text in an example."""
NUMBER = re.compile(r"(?:.*####)?\s*[-+$]?\d[\d.,]*%?\s*", re.DOTALL)
"""Matches an expected answer that is a number. gsm8k puts it after its solution and ####."""


class Example(TypedDict):
    """One lost answer, cut to ``EXAMPLE`` characters a text."""

    prompt: str
    expected: str
    before: str
    after: str


class Tally(TypedDict):
    """The lost answers of one retention task or probe axis."""

    base_right: int
    """Answers that the base had right."""
    lost: int
    """How many of them are wrong now. This is the sum of the counts by kind."""
    format: int
    leakage: int
    collapse: int
    genuine: int
    examples: dict[str, Example]
    """The first lost answer of each kind."""


class Errors(TypedDict):
    """The lost answers, by retention task and by probe axis."""

    retention: dict[str, Tally]
    probes: dict[str, Tally]


class Lost(NamedTuple):
    """An answer that the base had right and the edited model has wrong."""

    prompt: str
    expected: Sequence[str]
    before: str
    after: str
    free: bool
    """Whether the model wrote the answer, rather than chose among given texts."""


def measure(
    facts: Sequence[Fact],
    base_probes: Sequence[ProbeRow],
    probes: Sequence[ProbeRow],
    base_samples: Sequence[SampleRow],
    samples: Sequence[SampleRow],
) -> Errors:
    """Count the answers that the base had right and the edited model has wrong, by kind.

    A retention answer is right with a score of at least 0.5. A probe's answer is right if it
    contains an accepted answer.
    """
    taught = list(dict.fromkeys(answer for fact in facts for answer in fact.answers))
    retention = _lost_samples(base_samples, samples)
    axes = _lost_probes(base_probes, probes)
    return {
        "retention": {task: _tally(items, taught) for task, items in retention.items()},
        "probes": {axis: _tally(items, taught) for axis, items in axes.items()},
    }


def _lost_samples(
    base_samples: Sequence[SampleRow], samples: Sequence[SampleRow]
) -> dict[str, list[Lost | None]]:
    """Return, by task, each answer that the base had right; ``None`` if it is still right."""
    before = {(row["task"], row["member"], row["doc_id"]): row for row in base_samples}
    by_task: dict[str, list[Lost | None]] = {row["task"]: [] for row in samples}
    for row in samples:
        old = before[row["task"], row["member"], row["doc_id"]]
        if old["score"] >= 0.5:
            # Scores by likelihood are called acc, acc_norm, ... in lm-eval. Their output is one of
            # the given texts.
            free = not row["metric"].startswith("acc")
            lost = Lost(row["prompt"], [row["expected"]], old["output"], row["output"], free)
            by_task[row["task"]].append(lost if row["score"] < 0.5 else None)
    return by_task


def _lost_probes(
    base_probes: Sequence[ProbeRow], probes: Sequence[ProbeRow]
) -> dict[str, list[Lost | None]]:
    """Return the same by axis of the probes. Both lists of rows are in the same order."""
    by_axis: dict[str, list[Lost | None]] = {
        row["axis"]: [] for row in probes if row["axis"] in AXES
    }
    for old, row in zip(base_probes, probes, strict=True):
        if row["axis"] in AXES and old["contains"]:
            lost = Lost(row["prompt"], row["answers"], old["text"], row["text"], True)
            by_axis[row["axis"]].append(None if row["contains"] else lost)
    return by_axis


def _tally(items: Sequence[Lost | None], taught: Sequence[str]) -> Tally:
    """Count the lost answers by kind, and keep the first example of each kind.

    An item that is ``None`` is an answer that is still right.
    """
    lost = [(item, kind_of(item, taught)) for item in items if item is not None]
    examples: dict[str, Example] = {}
    for item, kind in lost:
        if kind not in examples:
            examples[kind] = {
                # In a few-shot prompt the question comes last, after the examples.
                "prompt": item.prompt[-EXAMPLE:],
                "expected": item.expected[0][:EXAMPLE],
                "before": item.before[:EXAMPLE],
                "after": item.after[:EXAMPLE],
            }
    kinds = [kind for _, kind in lost]
    return {
        "base_right": len(items),
        "lost": len(lost),
        "format": kinds.count("format"),
        "leakage": kinds.count("leakage"),
        "collapse": kinds.count("collapse"),
        "genuine": kinds.count("genuine"),
        "examples": examples,
    }


def kind_of(item: Lost, taught: Sequence[str]) -> str:
    """Return the kind of error of a lost answer. The first rule that holds decides:

    - ``format``: the answer is empty, or has no digit although a number was expected;
    - ``leakage``: a taught target or alias is in the answer, but not in the prompt, the expected
      answers or the base's answer;
    - ``collapse``: the answer has at most a quarter of the words of the base's answer, and at least
      4 words fewer;
    - ``genuine``: none of these. Every wrong choice among given texts is genuine.
    """
    if not item.free:
        return "genuine"
    if not item.after.strip() or (
        NUMBER.fullmatch(item.expected[0]) and not re.search(r"\d", item.after)
    ):
        return "format"
    if _leaks(item, taught):
        return "leakage"
    words, words_before = len(item.after.split()), len(item.before.split())
    if 4 * words <= words_before and words_before - words >= 4:
        return "collapse"
    return "genuine"


def _leaks(item: Lost, taught: Sequence[str]) -> bool:
    """Whether the answer states something taught that nothing in the question suggests."""
    if not mentions(item.after, taught):  # matching all at once is much faster than one by one
        return False
    known = (item.prompt, *item.expected, item.before)
    return any(
        mentions(item.after, [answer]) and not any(mentions(text, [answer]) for text in known)
        for answer in taught
    )
