"""Turn prompts and targets into token ids. This is the only tokenizing code.

A ``cloze`` is raw text, and its target follows after one space, except where its script or a mark
takes none (``writing.gap``). A ``question`` is the user turn of
the model's chat template, and its target opens the assistant turn. A tokenizer without a template
gets ``Question: ...\\nAnswer:`` instead.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch

from editbench import chat_template
from editbench.errors import ModelError, NoTokenError
from editbench.subjects import find_subject
from editbench.types import Fact
from editbench.writing import gap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<end_of_turn>", "<|end|>")
"""Tokens that end a turn in the common chat templates, where the tokenizer has them."""


@dataclass(frozen=True)
class Rendered:
    """A prompt as the model reads it. ``text[start:]`` begins with the prompt itself."""

    text: str
    start: int
    special: bool
    """Whether the tokenizer adds its special tokens. A chat template has already written them."""
    separator: str
    """The string between the text and a target. A space is left out where ``writing.gap`` says so,
    but not after a chat template, which wrote the text."""


def render(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    form: str,
    context: str | None = None,
    prefix: str = "",
) -> Rendered:
    """Return ``prompt`` ready for tokenizing.

    ``context`` becomes a paragraph before it. ``prefix`` goes before it on the same line.

    Raises:
        ModelError: The chat template fails or changes the user's text.
    """
    body = (f"{context}\n\n" if context else "") + prefix + prompt
    if form == "cloze":
        return Rendered(body, len(body) - len(prompt), True, " ")
    if tokenizer.chat_template is None:
        opening = "Question: "
        return Rendered(
            f"{opening}{body}\nAnswer:", len(opening) + len(body) - len(prompt), True, " "
        )
    rendered = render_chat(tokenizer, [body])
    # What follows the user's text is known, so equal words in a context or in the template's own
    # text are not taken for the prompt.
    end = len(rendered.text.removesuffix(chat_template.style_of(tokenizer).after))
    start = rendered.text.rfind(prompt, 0, end)
    if start < 0:
        raise ModelError(
            f"The chat template does not repeat the user's text. {chat_template.ADVICE}"
        )
    return replace(rendered, start=start)


def render_chat(tokenizer: PreTrainedTokenizerBase, turns: Sequence[str]) -> Rendered:
    """Return a conversation up to where the model's next turn begins.

    ``turns`` are the user's and the model's, alternately.

    Raises:
        ModelError: The chat template rejects the turns.
    """
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)
    ]
    text = chat_template.prompt(tokenizer, messages)
    return Rendered(text, len(text), False, chat_template.style_of(tokenizer).separator)


def ids(tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> list[int]:
    """Return the token ids of a rendered prompt, without an EOS that the tokenizer may add."""
    return _ids(tokenizer, rendered.text, rendered.special)


def ids_and_index(
    tokenizer: PreTrainedTokenizerBase, rendered: Rendered, character: int, first: int | None = None
) -> tuple[list[int], int]:
    """Return ``ids`` and the index in them of the last token that covers a character.

    Where no token covers it, the nearest one before it counts, back to the character ``first``. A
    tokenizer that composes letters and accents, as Qwen's does, maps no token to an accent that
    is a character of its own. Both results come from one call of the tokenizer. Characters count
    from the start of ``rendered.text``.

    Raises:
        NoTokenError: No token covers these characters.
        ModelError: The tokenizer has no character offsets.
    """
    if not tokenizer.is_fast:
        raise ModelError("This tokenizer gives no character offsets. Load it with use_fast=True.")
    encoded = tokenizer(
        rendered.text, add_special_tokens=rendered.special, return_offsets_mapping=True
    )
    offsets = cast("list[tuple[int, int]]", encoded["offset_mapping"])
    # The last one: a character of several bytes may be split over several tokens.
    # Special tokens that the tokenizer adds have an empty span and cover nothing.
    earliest = character if first is None else first
    covering = [
        i
        for i, (start, end) in enumerate(offsets)
        if start <= character and max(start, earliest) < end
    ]
    if not covering:
        part = rendered.text[earliest : character + 1]
        raise NoTokenError(
            f"The tokenizer maps no token to {part!a} in {rendered.text!r}: it normalises it away."
        )
    token_ids = cast("list[int]", encoded["input_ids"])
    return _without_added_eos(tokenizer, token_ids, rendered.text, rendered.special), covering[-1]


def token_at(tokenizer: PreTrainedTokenizerBase, rendered: Rendered, character: int) -> int:
    """Return the index in ``ids(tokenizer, rendered)`` of the last token that covers a character.

    Raises:
        ModelError: As ``ids_and_index``.
    """
    return ids_and_index(tokenizer, rendered, character)[1]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, special: bool) -> list[int]:
    token_ids = cast("list[int]", tokenizer(text, add_special_tokens=special)["input_ids"])
    return _without_added_eos(tokenizer, token_ids, text, special)


def _without_added_eos(
    tokenizer: PreTrainedTokenizerBase, token_ids: list[int], text: str, special: bool
) -> list[int]:
    """Drop an EOS that the tokenizer put behind ``text``, since a prompt must go on."""
    eos = tokenizer.eos_token_id
    added = (
        special
        and eos is not None
        and len(token_ids) > 1
        and token_ids[-1] == eos
        and not text.endswith(cast("str", tokenizer.eos_token))
    )
    return token_ids[:-1] if added else token_ids


def target_ids(
    tokenizer: PreTrainedTokenizerBase, rendered: Rendered, prompt_ids: Sequence[int], target: str
) -> list[int]:
    """Return the ids of ``target`` as they follow ``prompt_ids``.

    Prompt and target are tokenized together and the prompt's ids are cut off. Where the tokenizer
    merges across the border, the target is tokenized behind a line end instead.
    """
    separator = rendered.separator
    # A chat template's separator is exact.
    if rendered.special:
        # A prompt that ends in a space gets no second one.
        spaced = rendered.text[-1:].isspace()
        separator = "" if spaced else gap(rendered.text[rendered.start :], target)
    joint = _ids(tokenizer, rendered.text + separator + target, rendered.special)
    # A merge across the border would change the prompt's ids, from which keys are read.
    n = len(prompt_ids)
    if joint[:n] == list(prompt_ids) and len(joint) > n:
        return joint[n:]
    # By itself, a tokenizer of words with spaces (Llama 2) would put a space before the target.
    line = _ids(tokenizer, "\n", False)
    behind = _ids(tokenizer, "\n" + separator + target, False)
    if behind[: len(line)] == line:
        return behind[len(line) :]
    return _ids(tokenizer, separator + target, False)


def subject_last(tokenizer: PreTrainedTokenizerBase, rendered: Rendered, fact: Fact) -> int:
    """Return the index of the last token of the fact's subject in ``ids(tokenizer, rendered)``.

    Raises:
        MethodError: The subject occurs twice.
        ModelError: As ``ids_and_index``.
    """
    subject = find_subject(fact)
    first, last = rendered.start + subject.start, rendered.start + subject.last
    return ids_and_index(tokenizer, rendered, last, first)[1]


def stop_ids(
    tokenizer: PreTrainedTokenizerBase, model: torch.nn.Module | None = None
) -> frozenset[int]:
    """Return the ids that end an answer.

    These are the EOS of the tokenizer and of the generation config, and known end-of-turn tokens.
    """
    candidates: set[int | None] = {tokenizer.eos_token_id}
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    # The generation config has one id, a list of ids, or none.
    candidates.update(configured if isinstance(configured, (list, tuple)) else [configured])
    vocabulary = tokenizer.get_added_vocab()
    candidates.update(vocabulary.get(token) for token in END_OF_TURN)
    return frozenset(i for i in candidates if i is not None)


def closing_ids(tokenizer: PreTrainedTokenizerBase, form: str, stops: Container[int]) -> list[int]:
    """Return the one id that ends an answer, as a list; empty where the tokenizer has none.

    After a question it is the first of ``stops`` that the chat template writes after the model's
    turn, else EOS.
    """
    if form == "question" and tokenizer.chat_template is not None:
        for ending in chat_template.style_of(tokenizer).endings:
            if written := [i for i in _ids(tokenizer, ending, False) if i in stops]:
                return written[:1]
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def ending_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of all that the chat template writes behind the model's last turn."""
    return _ids(tokenizer, chat_template.style_of(tokenizer).endings[0], False)


def pad_left(
    rows: Sequence[Sequence[int]], device: torch.device | str, fill: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows of ids as one left-padded batch: ids (B, T) and mask (B, T), both int64."""
    width = max(len(row) for row in rows)
    ids_BT = torch.full((len(rows), width), fill, dtype=torch.long)
    mask_BT = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids_BT[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask_BT[i, width - len(row) :] = 1
    return ids_BT.to(device), mask_BT.to(device)


def pad_right(rows: Sequence[Sequence[int]], device: torch.device | str) -> torch.Tensor:
    """Return rows of ids as one batch (B, T), int64, whose shorter rows end with zeros.

    A causal model needs no mask for them: no token of a row sees what stands behind it.
    """
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
