"""Ask prompts, and give each answer the room that it needs.

This is the only rule for the length of an answer. It depends on the prompt and on the texts that
are looked for in the answer, never on the model's weights, so base and edited model get the same
room, whatever else they are asked.

- **Tokens.** Usually 16 for a cloze and 32 for a question, or the number that the corpus gives. A
  longest wanted text of more than half of that gets its own length in tokens plus that half, so
  that some room is left for the words around it.
- **Lines.** The answer to a cloze ends at the first line end or, if a wanted text has several
  lines, after as many lines as that text has. Empty lines do not count. The answer to a question
  may have any number of lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from editbench.models import LanguageModel

USUAL_TOKENS = {"cloze": 16, "question": 32}
"""Form of a prompt -> the new tokens of its answer, unless a wanted text is long."""


class Question(NamedTuple):
    """A prompt, and what its answer is searched for."""

    prompt: str
    form: str
    wanted: tuple[str, ...]
    """All texts that are looked for in the answer; none if nobody looks."""
    least: int | None = None
    """The least room in tokens; ``None``: the usual one of the form."""

    @property
    def usual(self) -> int:
        """Tokens of the answer, unless a wanted text is long."""
        return self.least or USUAL_TOKENS[self.form]


class Room(NamedTuple):
    """The most that an answer may take."""

    tokens: int
    lines: int | None
    """Lines that are not empty; ``None``: any number."""


def room(model: LanguageModel, question: Question) -> Room:
    """Return the room of the answer to ``question``, by this model's tokenizer.

    It exceeds ``question.usual`` only as far as prompt and answer fit into the model's context.
    """
    prompt, form, wanted, _ = question
    # context="": without the note of an in-context edit, so that the base gets the same room
    pairs = [model.pair_ids(prompt, text, form, context="") for text in wanted]
    tokens = max((len(target) for _, target in pairs), default=0) + question.usual // 2
    if model.context_length is not None and pairs:
        tokens = min(tokens, model.context_length - len(pairs[0][0]))
    lengths = (sum(bool(line.strip()) for line in text.split("\n")) for text in wanted)
    lines = max(lengths, default=1)
    return Room(max(question.usual, tokens), lines if form == "cloze" else None)


def answers(model: LanguageModel, questions: Sequence[Question]) -> list[str]:
    """Return the model's greedy answer to each question, without surrounding white space.

    An answer does not depend on the other questions (in bfloat16: up to rounding).
    """
    rooms = [room(model, question) for question in questions]
    texts: dict[tuple[str, str, Room], str] = {}
    # answers of about the same length share a batch
    for form, usual in dict.fromkeys((question.form, question.usual) for question in questions):
        # Many cases may ask the same prompt. The model answers it once for each room.
        asked = list(
            dict.fromkeys(
                (question.prompt, form, space)
                for question, space in zip(questions, rooms, strict=True)
                if (question.form, question.usual) == (form, usual)
            )
        )
        written = model.generate_ids(
            [model.prompt_ids(prompt, form) for prompt, _, _ in asked],
            [space.tokens for _, _, space in asked],
            lines=[space.lines for _, _, space in asked],
            what=f"answering {form} prompts",
        )
        for key, ids in zip(asked, written, strict=True):
            texts[key] = model.answer(ids)
    return [
        texts[question.prompt, question.form, space]
        for question, space in zip(questions, rooms, strict=True)
    ]
