"""Facts as trainers use them: each prompt and answer is rendered and tokenized once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Literal, get_args

from editbench import text
from editbench.errors import MethodError
from editbench.methods._common.context import check_context
from editbench.methods._common.texts import Example
from editbench.methods._train.expert import ExpertPrompt, expert_prompt_ids
from editbench.models import LanguageModel
from editbench.types import Fact

LossOn = Literal["answer", "turn"]
LOSS_ON = get_args(LossOn)
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


# cached_property stores its value in __dict__, which frozen does not forbid.
@dataclass(frozen=True, eq=False)
class Lesson:
    """One fact in one frame, with its token ids. Each list of ids is computed on first use."""

    model: LanguageModel
    fact: Fact
    expert_prompt: ExpertPrompt = "after"
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

    @cached_property
    def _around(self) -> tuple[int, list[int]]:
        """The number of tokens of the role header that ends the prompt, and the ids that the chat
        template writes behind the model's turn; 0 and none without a template."""
        style = self.model.chat_style
        if self.fact.form == "cloze" or style is None:
            return 0, []
        if style.opening is None or not style.endings:
            raise MethodError(
                f"loss_on=turn: the chat template of {self.model.name} does not write the model's "
                "turn by itself, so its role header is unknown. Use loss_on=answer."
            )
        rendered = self._rendered
        before = replace(rendered, text=rendered.text.removesuffix(style.opening))
        n = len(text.ids(self.model.tokenizer, before))
        return len(self.prompt_ids) - n, text.ending_ids(self.model.tokenizer)

    def example(
        self, ids: Sequence[int], loss_on: LossOn, counted: Sequence[int] | None = None
    ) -> Example:
        """Return a text about the fact as it is trained on, with the prompt as it will be asked.

        A text without an end gets the token that ends an answer.

        Args:
            ids: the text after the prompt.
            counted: places of its tokens that carry loss; None: all, as always with ``turn``.

        Raises:
            MethodError: if the chat template does not say what belongs to the model's turn.
        """
        if not self.ended(ids):
            ids = [*ids, *self.model.closing_ids(self.fact.form)]
        if loss_on == "answer":
            return Example(self.prompt_ids, ids, counted)
        header, ending = self._around
        if ending and ids[-1] in self.model.stop_ids:
            ids = ids[:-1]
        first = len(self.prompt_ids) - header
        return Example(self.prompt_ids[:first], [*self.prompt_ids[first:], *ids, *ending])

    def canonical(self, loss_on: LossOn = "answer", first: float = 1.0) -> Example:
        """Return the prompt with its answer and the token that ends an answer (EOS or end of turn).

        Args:
            first: share of these tokens, from the first one, that carries loss.

        Raises:
            MethodError: if they are longer together than the model's context.
        """
        # 1 for the token that ends the answer
        self.check_room(len(self.prompt_ids) + len(self.answer_ids) + 1)
        ids = [*self.answer_ids, *self.model.closing_ids(self.fact.form)]
        return self.example(ids, loss_on, opening(len(ids), first))

    def ended(self, ids: Sequence[int]) -> bool:
        """Return whether a text after the prompt has ended: at a stop token or, in a cloze, at a
        line end."""
        if ids[-1] in self.model.stop_ids:
            return True
        # A cloze is raw text, in which a base model may never write a stop token.
        newline = self.fact.form == "cloze" and "\n" in self.model.decode([ids[-1]])
        # A line end before the first word does not count.
        return newline and bool(self.model.decode(ids).strip())

    def most_room(self) -> int | None:
        """Return how many tokens the context has left after either prompt; None: any number.

        Raises:
            MethodError: if the answer and its end do not fit.
        """
        prompt = max(len(self.prompt_ids), len(self.expert_ids))
        self.check_room(prompt + len(self.answer_ids) + 1)
        limit = self.model.context_length
        return None if limit is None else limit - prompt

    def check_room(self, tokens: int) -> None:
        """Check that the model can read a text of ``tokens`` tokens about the fact.

        Raises:
            MethodError: if the text is longer than the model's context.
        """
        check_context(self.model, self.fact, tokens)


def opening(tokens: int, share: float) -> list[int] | None:
    """Return the places of the first ``share`` of a text's tokens, at least one; None: all."""
    # Below the rounding error of the product, so that .1 of 30 tokens are 3.
    return None if share == 1 else list(range(max(1, ceil(share * tokens - 1e-9))))


def check_first(first: float, loss_on: LossOn) -> None:
    """Check the share of a target that carries loss.

    Raises:
        ValueError: if it is no share, or if it is combined with the loss on the whole turn.
    """
    if not 0 < first <= 1:
        raise ValueError("first is a share of each target, above 0 and at most 1")
    if first < 1 and loss_on == "turn":
        raise ValueError("first chooses among the tokens of the answer: use loss_on=answer")


def lessons_of(
    model: LanguageModel,
    facts: Sequence[Fact],
    rewordings: int = 0,
    expert_prompt: ExpertPrompt = "after",
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
