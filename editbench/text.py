"""Prompts and targets to token ids: the only tokenizing code.

A ``cloze`` is raw text, its target follows after one space. A ``question`` is the user turn of the model's chat
template, its target opens the assistant turn; a tokenizer without a template gets ``Question: ...\\nAnswer:``.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError

from editbench.errors import MethodError, ModelError
from editbench.types import Fact

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<end_of_turn>", "<|end|>")


@dataclass(frozen=True)
class Rendered:
    """A prompt as the model reads it: ``text[start:]`` begins with the prompt itself."""

    text: str
    start: int
    special: bool
    """Whether the tokenizer adds its own special tokens (a chat template has written them already)."""
    separator: str
    """What stands between the text and a target."""


def render(
    tokenizer: Any, prompt: str, form: str, context: str | None = None, prefix: str = ""
) -> Rendered:
    """``prompt`` ready for tokenizing; ``context`` stands before it as a paragraph, ``prefix`` on the same line."""
    body = (f"{context}\n\n" if context else "") + prefix + prompt
    if form == "cloze":
        return Rendered(body, len(body) - len(prompt), True, " ")
    if tokenizer.chat_template is None:
        opening = "Question: "
        return Rendered(
            f"{opening}{body}\nAnswer:", len(opening) + len(body) - len(prompt), True, " "
        )
    text = render_chat(tokenizer, [body]).text
    if prompt not in text:
        raise ModelError(
            "The chat template does not repeat the user's text. Pass chat=False to ask questions without it."
        )
    return Rendered(text, text.rindex(prompt), False, "")


def render_chat(tokenizer: Any, turns: Sequence[str]) -> Rendered:
    """A conversation up to where the model's next turn begins; ``turns`` are the user's and the model's alternately.

    Raises:
        ModelError: the template does not take them.
    """
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)
    ]
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    except TemplateError as error:
        raise ModelError(
            f"The chat template fails ({error}). Pass chat=False to ask questions without it."
        ) from error
    return Rendered(text, len(text), False, "")


def ids(tokenizer: Any, rendered: Rendered) -> list[int]:
    """Token ids of a rendered prompt; an EOS that the tokenizer adds is left out, since the text goes on."""
    return _ids(tokenizer, rendered.text, rendered.special)


def _ids(tokenizer: Any, text: str, special: bool) -> list[int]:
    found = tokenizer(text, add_special_tokens=special)["input_ids"]
    eos = tokenizer.eos_token_id
    added = (
        special
        and eos is not None
        and len(found) > 1
        and found[-1] == eos
        and not text.endswith(tokenizer.eos_token)
    )
    return found[:-1] if added else found


def target_ids(
    tokenizer: Any, rendered: Rendered, prompt_ids: Sequence[int], target: str
) -> list[int]:
    """Ids of ``target`` as they follow ``prompt_ids``, cut from the tokenization of both together.

    Where the tokenizer merges across the border, the target is tokenized by itself.
    """
    separator = "" if rendered.text[-1:].isspace() else rendered.separator
    joint = _ids(tokenizer, rendered.text + separator + target, rendered.special)
    n = len(prompt_ids)
    if joint[:n] == list(prompt_ids) and len(joint) > n:
        return joint[n:]
    return tokenizer(separator + target, add_special_tokens=False)["input_ids"]


@dataclass(frozen=True)
class Subject:
    """Where a fact's subject stands in its prompt: ``prompt[start:start + len(text)]``."""

    text: str
    start: int
    source: str
    """``given``, ``rule`` (the longest name or quotation in the prompt) or ``last word``."""


def find_subject(fact: Fact) -> Subject:
    """The subject of ``fact``: the given one; else the prompt's longest quotation, else its longest name (a run of
    capitalised words, small connecting words inside it allowed), else the prompt's last word.

    Raises:
        MethodError: the given subject occurs twice, so that its place is a guess.
    """
    prompt = fact.prompt
    if fact.subject is not None:
        starts = places(fact.subject, prompt)
        if len(starts) > 1:
            raise MethodError(
                f"Fact {fact.id!r}: subject {fact.subject!r} occurs {len(starts)} times in its prompt {prompt!r}, and "
                "weight editors read their key at one place. Give the longer form that occurs once, or reword the prompt."
            )
        return Subject(fact.subject, starts[0], "given")
    found = [match.span(1) for match in QUOTED.finditer(prompt)] or _names(prompt)
    if found:
        start, end = max(found, key=lambda span: span[1] - span[0])
        return Subject(prompt[start:end], start, "rule")
    start = max(prompt.rfind(" "), prompt.rfind("\n"), prompt.rfind("\t")) + 1
    return Subject(prompt[start:], start, "last word")


def places(subject: str, prompt: str) -> list[int]:
    """Where ``subject`` begins in ``prompt``: as words of its own, else anywhere."""
    starts = [match.start() for match in re.finditer(re.escape(subject), prompt)]
    words = [
        i
        for i in starts
        if not (prompt[i - 1 : i].isalnum() or prompt[i + len(subject) :][:1].isalnum())
    ]
    return words or starts


QUOTED = re.compile(r"[\"\u201c\u00ab]\s*([^\"\u201c\u201d\u00ab\u00bb]+?)\s*[\"\u201d\u00bb]")
CONNECTING = frozenset(
    "al da de del della di do dos du el for from in la las le les of on the to van von y &".split()
)
OPENING = frozenset(
    "a after an and are at by did do does for from has have how if in is it its of on or that the their there they this to "
    "was were what when where which who whom whose why with".split()
)


def _names(prompt: str) -> list[tuple[int, int]]:
    """Spans of the runs of capitalised words in ``prompt``, the words that open a sentence left out."""
    spans: list[tuple[int, int]] = []
    open_run, last_end = False, 0
    for match in re.finditer(r"[^\s,;:!?()\[\]\"]+", prompt):
        word = re.sub(r"(['\u2019]s)?\.?$", "", match[0])
        start, end = match.start(), match.start() + len(word)
        open_run = (
            open_run and prompt[last_end:start].isspace()
        )  # punctuation or a possessive ends a name
        last_end = end
        if word[:1].isupper() or (open_run and word[:1].isdigit()):
            if open_run:
                spans[-1] = (spans[-1][0], end)
            elif word.lower() not in OPENING:
                spans.append((start, end))
                open_run = True
        elif word.lower() not in CONNECTING:
            open_run = False
    return spans


def subject_last(tokenizer: Any, rendered: Rendered, fact: Fact) -> int:
    """Index of the last token of the fact's subject (``find_subject``) in ``ids(tokenizer, rendered)``.

    Raises:
        MethodError: the subject occurs twice.
        ModelError: as ``token_at``.
    """
    subject = find_subject(fact)
    return token_at(tokenizer, rendered, rendered.start + subject.start + len(subject.text) - 1)


def token_at(tokenizer: Any, rendered: Rendered, character: int) -> int:
    """Index in ``ids(tokenizer, rendered)`` of the last token that covers a character of the text.

    Raises:
        ModelError: no token does, or a tokenizer without character offsets (a "slow" one).
    """
    if not tokenizer.is_fast:
        raise ModelError("This tokenizer gives no character offsets. Load it with use_fast=True.")
    offsets = tokenizer(
        rendered.text, add_special_tokens=rendered.special, return_offsets_mapping=True
    )["offset_mapping"]
    covering = [i for i, (first, end) in enumerate(offsets) if first <= character < end]
    if not covering:
        raise ModelError(
            f"The tokenizer maps no token to character {character} of {rendered.text!r}."
        )
    return covering[-1]


def stop_ids(tokenizer: Any, model: Any = None) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's and the generation config's EOS, and known end-of-turn tokens."""
    found = {tokenizer.eos_token_id}
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found.update(configured if isinstance(configured, (list, tuple)) else [configured])
    found.update(tokenizer.get_added_vocab().get(token) for token in END_OF_TURN)
    return frozenset(i for i in found if i is not None)


def closing_ids(tokenizer: Any, form: str, stops: Container[int]) -> list[int]:
    """What ends an answer, as a list of one id: after a question the first of ``stops`` that the chat template writes after
    the model's turn, else EOS; empty for a tokenizer without either."""
    if form == "question" and tokenizer.chat_template is not None:
        answer = "an answer"
        with suppress(ModelError):  # a template for one turn only
            rest = render_chat(tokenizer, ["x", answer, "x"]).text.rpartition(answer)[2]
            if written := [i for i in _ids(tokenizer, rest, False) if i in stops]:
                return written[:1]
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def pad_left(
    rows: Sequence[Sequence[int]], device: Any, fill: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as one left-padded batch: ids (B, T) and mask (B, T), int64; the last tokens are aligned."""
    width = max(len(row) for row in rows)
    ids_BT = torch.full((len(rows), width), fill, dtype=torch.long)
    mask_BT = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids_BT[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask_BT[i, width - len(row) :] = 1
    return ids_BT.to(device), mask_BT.to(device)
