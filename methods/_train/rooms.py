"""The token budget of the texts that a model writes about a fact, from the expert's own answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from editbench.memory import Texts
from editbench.methods._train.branches import Branches, Move, Text
from editbench.methods._train.lessons import Lesson

LEAST = 48
"""Smallest token budget of a text: a sentence or two, also where the expert says a word."""
ALONE = 128
"""Token budget of the text that the expert writes alone to measure the budget of the others."""


class ExpertText(Text):
    """The most probable text of the expert alone."""

    def __init__(self, lesson: Lesson, room: int):
        self.lesson, self.room = lesson, room
        self.prompts = [lesson.expert_ids]
        self.ids: list[int] = []

    def step(self, logp_kV: torch.Tensor) -> Move | None:
        """Write the most probable token."""
        self.ids.append(int(logp_kV[0].argmax()))
        full = len(self.ids) == self.room
        return None if full or self.ended else Move(len(self.ids) - 1, self.ids[-1])

    @property
    def ended(self) -> bool:
        return self.lesson.ended(self.ids)


def rooms(lessons: Sequence[Lesson], most: int | None, branches: Branches) -> list[int]:
    """Return the token budget of a text about each fact.

    It is ``most`` if given. Otherwise the expert first writes its most probable text, in at most
    ``ALONE`` tokens or twice the demonstration's, and the budget is twice the length of that text,
    at least ``LEAST``. Where the expert finds no end, the budget is what it had itself. No budget
    is longer than what the context has left. Lessons with one expert prompt share its text.

    Args:
        branches: writes the expert's texts and counts their tokens.

    Raises:
        MethodError: if a fact's answer does not fit into the context.
    """
    left = [lesson.most_room() for lesson in lessons]

    def within(wanted: Iterable[int]) -> list[int]:
        return [
            room if free is None else min(room, free)
            for room, free in zip(wanted, left, strict=True)
        ]

    if most is not None:
        return within(most for _ in lessons)
    alone = within(max(ALONE, 2 * len(lesson.answer_ids)) for lesson in lessons)
    text_of: dict[tuple[int, ...], ExpertText] = {}
    for lesson, room in zip(lessons, alone, strict=True):
        text_of.setdefault(tuple(lesson.expert_ids), ExpertText(lesson, room))
    for _ in branches.write(list(text_of.values())):
        pass
    texts = [text_of[tuple(lesson.expert_ids)] for lesson in lessons]
    return within(max(LEAST, 2 * len(text.ids)) if text.ended else text.room for text in texts)


def usual_length(most: int | None, texts: Texts) -> int:
    """Return the tokens of a text about a fact, about: most end by themselves within ``LEAST``."""
    return max(texts.target + 1, min(most or LEAST, LEAST))
