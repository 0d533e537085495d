"""Texts as a ``LanguageModel`` reads and writes them: prompts and targets to ids, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from editbench import chat_template, text
from editbench.types import Fact

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ModelPrompts:
    """The part of ``LanguageModel`` that knows tokenizer and chat template."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: bool
    context_for: Callable[[str], str | None] | None
    """Maps a prompt to the text to put before it. Set while an in-context edit is applied."""
    _closing: dict[str, list[int]]

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return text.stop_ids(self.tokenizer, self.model)

    @property
    def chat_style(self) -> chat_template.Style | None:
        """How the chat template is used; ``None`` where questions go without it.

        Raises:
            ModelError: The template cannot be used.
        """
        return chat_template.style_of(self.tokenizer) if self.chat else None

    def render(
        self, prompt: str, form: str = "cloze", context: str | None = None, prefix: str = ""
    ) -> text.Rendered:
        """Return the prompt as the model reads it.

        ``context`` becomes a paragraph before it; ``prefix`` stands before it on the same line.
        Without a ``context``, an applied in-context edit adds its own.
        """
        if context is None and self.context_for is not None:
            context = self.context_for(prompt)
        return text.render(self.tokenizer, prompt, form, context, prefix)

    def prompt_ids(self, prompt: str, form: str = "cloze", context: str | None = None) -> list[int]:
        """Return the ids of the rendered prompt."""
        return text.ids(self.tokenizer, self.render(prompt, form, context))

    def chat_ids(self, turns: Sequence[str]) -> list[int]:
        """Return the ids of a conversation up to where the model's next turn begins.

        ``turns`` are the user's and the model's, alternately.
        """
        # an in-context edit retrieves by the first question, and its note opens the conversation
        note = self.context_for(turns[0]) if self.context_for else None
        first = f"{note}\n\n{turns[0]}" if note else turns[0]
        return text.ids(self.tokenizer, text.render_chat(self.tokenizer, [first, *turns[1:]]))

    def pair_ids(
        self,
        prompt: str,
        target: str,
        form: str = "cloze",
        context: str | None = None,
        prefix: str = "",
    ) -> tuple[list[int], list[int]]:
        """Return the ids of the prompt and of the target after it, without ``closing_ids``."""
        rendered = self.render(prompt, form, context, prefix)
        prompt_ids = text.ids(self.tokenizer, rendered)
        return prompt_ids, text.target_ids(self.tokenizer, rendered, prompt_ids, target)

    def closing_ids(self, form: str = "cloze") -> list[int]:
        """Return the id that ends an answer to a prompt of ``form``, if there is one.

        It is the chat template's end of turn, or EOS.
        """
        if form not in self._closing:
            self._closing[form] = text.closing_ids(self.tokenizer, form, self.stop_ids)
        return self._closing[form]

    def subject_last(self, fact: Fact, prefix: str = "") -> int:
        """Return the index of the subject's last token in the fact's prompt, after ``prefix``."""
        rendered = self.render(fact.prompt, fact.form, prefix=prefix)
        return text.subject_last(self.tokenizer, rendered, fact)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids`` without special tokens."""
        decoded = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(decoded)  # for one list of ids it is a string

    def answer(self, ids: Sequence[int]) -> str:
        """Return the text of an answer without special tokens, thoughts and white space around it.

        An answer that ends inside a thought is empty.
        """
        return chat_template.answer_text(self.tokenizer, ids).strip()
