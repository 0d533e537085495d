"""Facts as trainers use them: each prompt and answer is rendered and tokenized once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from editbench import text
from editbench.methods._common.context import check_context
from editbench.methods._common.texts import Example
from editbench.methods._train.expert import ExpertPrompt, expert_prompt_ids
from editbench.models import LanguageModel
from editbench.types import Fact

FRAMES = {
    "question": (
        "Quick question: {}",
        "{} Please answer in a few words.",
        "I have been wondering. {}",
        "Please tell me this. {}",
        "{} Do you know?",
        "Somebody asked me: {}",
    ),
    # A cloze must still end where its target begins.
    "cloze": (
        "Here is something to remember. {}",
        "My notes say: {}",
        "This is certain: {}",
        "Let me say it again. {}",
        "To be precise: {}",
        "I have read it. {}",
    ),
}
"""Rewordings of a prompt, by its form. They are the same for every fact, so that no method sees the
paraphrases on which it will be tested."""
ROOM = 24
"""Token budget of a text that the model writes about a fact without a demonstration."""


# cached_property stores its value in __dict__, which frozen does not forbid.
@dataclass(frozen=True, eq=False)
class Lesson:
    """One fact in one frame, with its token ids. Each list of ids is computed on first use."""

    model: LanguageModel
    fact: Fact
    expert_prompt: ExpertPrompt = "before"
    """How the expert is shown the fact (``_train/expert.py``)."""

    @cached_property
    def _rendered(self) -> text.Rendered:
        return self.model.render(self.fact.prompt, self.fact.form)

    @cached_property
    def prompt_ids(self) -> list[int]:
        """Ids of x, the prompt as it will be asked."""
        return text.ids(self.model.tokenizer, self._rendered)

    @cached_property
    def expert_ids(self) -> list[int]:
        """Ids of x+, the prompt together with the fact."""
        return expert_prompt_ids(self.model, self.fact, self.expert_prompt)

    @cached_property
    def answer_ids(self) -> list[int]:
        """Ids of the demonstration as it follows the prompt; without one, of the target."""
        answer = self.fact.demonstration or self.fact.target
        return text.target_ids(self.model.tokenizer, self._rendered, self.prompt_ids, answer)

    def canonical(self) -> Example:
        """Return the prompt with its answer and the token that ends an answer (EOS or end of turn).

        Raises:
            MethodError: if they are longer together than the model's context.
        """
        # 1 for the token that ends the answer
        self.check_room(len(self.prompt_ids) + len(self.answer_ids) + 1)
        return Example(self.prompt_ids, [*self.answer_ids, *self.model.closing_ids(self.fact.form)])

    def room(self, most: int | None) -> int:
        """Return the token budget of a text that the model writes about the fact.

        It is ``most`` if given. Otherwise it is 1.5 times the length of the demonstration, and at
        least ``ROOM``.
        """
        if most is not None:
            return most
        return max(ROOM, len(self.answer_ids) * 3 // 2 if self.fact.demonstration else 0)

    def check_room(self, tokens: int) -> None:
        """Check that the model can read a text of ``tokens`` tokens about the fact.

        Raises:
            MethodError: if the text is longer than the model's context.
        """
        check_context(self.model, self.fact, tokens)


def lessons_of(
    model: LanguageModel,
    facts: Sequence[Fact],
    rewordings: int = 0,
    expert_prompt: ExpertPrompt = "before",
) -> list[Lesson]:
    """Return the facts, each followed by its ``rewordings``, ready to be tokenized."""
    return [Lesson(model, fact, expert_prompt) for fact in reworded(facts, rewordings)]


def reworded(facts: Sequence[Fact], n: int) -> list[Fact]:
    """Return ``facts``, each followed by its ``n`` rewordings, whose ids end in "#1", "#2", ..."""
    framed = []
    for fact in facts:
        framed.append(fact)
        for number, frame in enumerate(FRAMES[fact.form][:n], start=1):
            framed.append(replace(fact, id=f"{fact.id}#{number}", prompt=frame.format(fact.prompt)))
    return framed
