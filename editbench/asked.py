"""What a model is asked after an edit, counted before it is loaded: probes and retention tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING

from editbench.asking import USUAL_TOKENS
from editbench.beginnings import TOKENS, TOKENS_ELSEWHERE
from editbench.memory import Memory, Phase, Texts
from editbench.pace import Work

if TYPE_CHECKING:
    from editbench.outline import Outline

QUESTIONS = 8
"""Questions about a fact, as the built-in corpora have them: its own, two paraphrases, four
neighbors, one of which is asked again after the fact."""
AT_ONCE, ANSWER = 96, 32
"""Prompts that are answered together (``LanguageModel.generate_ids``), and tokens of an answer."""


@dataclass(frozen=True)
class Batch:
    """Requests of a retention task that are asked together; lengths in tokens."""

    texts: int
    length: int
    """Of the longest text that is read. The others are padded to it."""
    room: int = 0
    """Most tokens that are written after each; 0: its own likelihood is asked for."""

    @property
    def work(self) -> Work:
        """What it computes at most."""
        read = self.texts * self.length
        if self.room:
            return Work(read=read, written=self.texts * self.room, writing=self.room)
        return Work(read=read, labels=read)

    def phase(self, model: Outline) -> Phase:
        """Return what is held beside the weights while it is asked."""
        if self.room:
            held = model.writing(self.texts, self.length, self.room)
        else:
            # Most models read them in passes of so many tokens, beginnings that they share once.
            # Others read whole batches, which are halved where they do not fit.
            most = TOKENS.get(model.device.type, TOKENS_ELSEWHERE)
            tokens = min(self.texts * self.length, max(self.length, most))
            held = {
                "bfloat16 copies": model.casts,
                "activations": model.activations(tokens, layers=1, frozen=True),
                # as the head gives them, in float32, and their logarithm
                "logits": model.logits(tokens, 3),
            }
        return Phase("asking the retention tasks", held)


@dataclass(frozen=True)
class Evaluation:
    """The retention tasks that a run asks of each model."""

    batches: Sequence[Batch] = field(default=())

    @property
    def requests(self) -> int:
        """Number of requests; a multiple-choice document has one for each choice."""
        return sum(batch.texts for batch in self.batches)

    @property
    def work(self) -> Work:
        """What the tasks compute at most."""
        return sum((batch.work for batch in self.batches), Work())

    def at_most(self, size: int) -> Evaluation:
        """Return the tasks in batches of at most ``size``, as ``--batch-size`` makes them."""
        return Evaluation([replace(b, texts=min(b.texts, size)) for b in self.batches])

    def phases(self, model: Outline) -> list[Phase]:
        """Return what is held in the batch that needs most."""
        phases = [batch.phase(model) for batch in self.batches]
        return [max(phases, key=lambda phase: sum(phase.device.values()))] if phases else []


def probing(texts: Texts) -> Work:
    """Return what the probes of the facts compute at most, under all three protocols."""
    asked, room = QUESTIONS * texts.facts, USUAL_TOKENS["cloze"]
    return Work(
        # the prompt, then the prompt with the right answer and with a wrong one
        read=asked * (3 * texts.prompt + 2 * texts.target),
        labels=2 * asked * texts.target,
        written=asked * room,
        writing=ceil(asked / AT_ONCE) * room,
    )


def answering(model: Outline, memory: Memory, texts: Texts) -> Phase:
    """Return the phase in which an edited model answers; its unedited weights are kept."""
    rows = min(AT_ONCE, QUESTIONS * texts.facts)
    return with_edit(
        Phase("asking the edited model", model.writing(rows, texts.prompt, ANSWER)), model, memory
    )


def with_edit(phase: Phase, model: Outline, memory: Memory) -> Phase:
    """Return ``phase`` while an edit is applied: the unedited weights are kept beside it."""
    changed = memory.changed
    if changed is None:
        changed = min(memory.edit, model.weights)
    return replace(
        phase,
        device={"kept copy": changed, **phase.device},
        main={**phase.main, "edit": memory.edit - memory.filed},
    )
