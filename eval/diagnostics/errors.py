"""What became of the answers that the base had right: how many are lost, and how.

The classes are those of MixSD (arXiv 2605.16865; ``mixsd/eval/error_analysis.py`` at 37eb349), and
the first that fits decides: format > leakage > collapse > genuine. Its rules are for long boxed
answers about invented names. ``kind_of`` says what it adds to them, so that they also hold for
short answers and real facts. MixSD counts all wrong answers. Here only those count that the base
had right, since the others say nothing about the edit.
"""

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
ANSWER_CLAUSE = re.compile(r"\\boxed\{[^{}]*\}|^[ \t]*the answer is\b.*$", re.I | re.M)
"""Matches what only states an answer: a box, or a line that begins with "The answer is"."""
STUB_CHARACTERS, STUB_LINE_ENDS = 80, 4
"""A collapsed answer has at most as many characters and line ends beside its ``ANSWER_CLAUSE``."""


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
    names = ((fact.subject, *fact.answers) for fact in facts)
    taught = list(dict.fromkeys(name for group in names for name in group if name))
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
    """Return the class of a lost answer. The first rule that holds decides:

    - ``format``: nothing to grade: the answer is empty, or has no digit although a number was
      expected, or no brace although a JSON object was (MixSD: no box that can be read);
    - ``leakage``: a taught subject, target or alias is in the answer and not in the prompt. Added:
      nor in the expected answers or the base's answer, since real facts have names that may belong
      there. Names match as whole words (MixSD: letter for letter, names of two words or more);
    - ``collapse``: without its ``ANSWER_CLAUSE`` at most ``STUB_CHARACTERS`` characters and
      ``STUB_LINE_ENDS`` line ends are left. Added: and at most a quarter of the words that are left
      of the base's answer, and at least 4 fewer, since most of our tasks are answered in few words;
    - ``genuine``: none of these. Every wrong choice among given texts is genuine.
    """
    if not item.free:
        return "genuine"
    if not _can_be_graded(item):
        return "format"
    if _leaks(item, taught):
        return "leakage"
    return "collapse" if _has_collapsed(item) else "genuine"


def _can_be_graded(item: Lost) -> bool:
    """Whether the answer has the form of the expected one, right or wrong."""
    expected = item.expected[0]
    if NUMBER.fullmatch(expected):
        return re.search(r"\d", item.after) is not None
    if expected.lstrip().startswith("{"):
        return "{" in item.after
    return bool(item.after.strip())


def _has_collapsed(item: Lost) -> bool:
    """Whether little more than an answer is left, where the base wrote more."""
    left, left_before = (ANSWER_CLAUSE.sub("", text).strip() for text in (item.after, item.before))
    words, words_before = len(left.split()), len(left_before.split())
    is_stub = len(left) <= STUB_CHARACTERS and left.count("\n") <= STUB_LINE_ENDS
    return is_stub and 4 * words <= words_before and words_before - words >= 4


def _leaks(item: Lost, taught: Sequence[str]) -> bool:
    """Whether the answer states something taught that nothing in the question suggests."""
    if not mentions(item.after, taught):  # matching all at once is much faster than one by one
        return False
    known = (item.prompt, *item.expected, item.before)
    return any(
        mentions(item.after, [name]) and not any(mentions(text, [name]) for text in known)
        for name in taught
    )
