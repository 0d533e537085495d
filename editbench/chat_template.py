"""A tokenizer's chat template: where the model's turn begins, and how it is written.

Templates differ in more than their tokens. Some open a thought before every answer, have no
generation prompt, put a space before the answer, print today's date, want a system turn, or read
content as a list of parts. ``style_of`` therefore lets the template write a user's and a model's
turn once, and works out how to get the same text from a prompt and a target. Probes, training,
conversations and lm-eval tasks all write their prompts with ``prompt``.

Models that can think are asked for an immediate answer: the flag ``enable_thinking=False`` is
passed to every template, and a thought that the template opens by itself is closed at once, empty.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from editbench.errors import ModelError
from editbench.loops import limited_templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THOUGHTS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|channel>thought": "<channel|>",
}
"""What opens a thought -> what closes it, in the models that think before they answer."""
DATE = datetime(2024, 7, 26)
"""What a template gets that asks for today's date. Otherwise all prompts would change overnight. It
is the date that the templates of Llama 3 write by themselves where there is no clock."""
SYSTEM = "You are a helpful assistant."
"""The system turn for a template that cannot do without one."""
ADVICE = (
    "To ask questions without it, load a copy of the model's folder that has no chat template, or "
    "in Python give load_model() chat=False."
)

Message = Mapping[str, object]
"""A turn, with its ``role`` and ``content``."""

# What the template is tried with: words that no template contains or changes.
_USER, _ANSWER, _NEXT = "Which vowel opens it", "Ozymandias opens it", "Does another vowel fit"


@dataclass(frozen=True)
class Style:
    """How a template is used so that a prompt and an answer give the text that it would write."""

    parts: bool = False
    """Whether content is a list of ``{"type": "text", "text": ...}``."""
    system: bool = False
    """Whether ``SYSTEM`` goes first where a conversation has no system turn."""
    dropped: str = ""
    """What is cut from the end of the template's generation prompt."""
    added: str = ""
    """What is added in its place."""
    separator: str = ""
    """The white space between a prompt and the model's answer. The model writes it."""
    after: str = ""
    """What stands in a prompt after the user's text."""
    opening: str | None = None
    """The end of ``after``: the role header of the model's turn. None where the template does not
    write the turn by itself."""
    endings: tuple[str, ...] = ()
    """What the template writes after the model's turn: after a last one, then after one that a
    user's turn follows."""
    conversations: bool = True
    """Whether the template can write the model's own earlier turns."""
    thinking: str | None = None
    """``off`` where the prompt keeps a model from thinking, ``free`` where the template only names
    thoughts, ``None`` where it does not."""
    dated: bool = False
    """Whether the template asks for the date."""

    def record(self) -> dict[str, str]:
        """Return what a record says of it: the parts that most templates do without."""
        parts = {
            "thinking": self.thinking,
            "date": DATE.date().isoformat() if self.dated else None,
            "system": SYSTEM if self.system else None,
            "content": "parts" if self.parts else None,
            "dropped": self.dropped,
            "added": self.added,
            "separator": self.separator,
        }
        return {name: part for name, part in parts.items() if part}


_STYLES: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[str, Style]] = WeakKeyDictionary()


def style_of(tokenizer: PreTrainedTokenizerBase) -> Style:
    """Return how the tokenizer's chat template is used. It is worked out once.

    Raises:
        ModelError: The template fails, does not repeat the user's text, or begins the model's turn
            in two different ways, so that it is unclear where an answer belongs.
    """
    source = _source(tokenizer)
    known = _STYLES.get(tokenizer)
    if known is None or known[0] != source:
        known = _STYLES[tokenizer] = source, _derive(tokenizer, source)
    return known[1]


def prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """Return a conversation as text, up to where the model's answer begins.

    Raises:
        ModelError: As ``style_of``, or if the template rejects these turns.
    """
    style = style_of(tokenizer)
    opened = _write(tokenizer, messages, style, opens=True)
    return opened.removesuffix(style.dropped) + style.added


def answer_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of ``ids`` without special tokens and without thoughts."""
    # What opens and closes a thought may itself be a special token, so these stay in at first.
    if not _thinks(_decoded(tokenizer, ids, skip=False)):
        return _decoded(tokenizer, ids, skip=True)
    marks = [mark for pair in THOUGHTS.items() for mark in pair]
    special = {
        i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    kept = [i for i in ids if i not in special or any(special[i] in mark for mark in marks)]
    return without_thoughts(_decoded(tokenizer, kept, skip=False))


def without_thoughts(text: str) -> str:
    """Return what a model says after its thoughts: nothing where they do not end."""
    for opening, closing in THOUGHTS.items():
        # A closing without an opening ends a thought that the prompt has opened.
        if closing in text and (opening not in text or text.index(closing) < text.index(opening)):
            text = text.partition(closing)[2]
        while opening in text:
            before, _, rest = text.partition(opening)
            text = before + rest.partition(closing)[2]
    return text


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], skip: bool) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    return str(text)  # for one list of ids it is a string


# --- working out the style --------------------------------------------------------------------


class _TwoWays(ModelError):
    """The template begins the model's turn in two ways."""


def _derive(tokenizer: PreTrainedTokenizerBase, source: str) -> Style:
    """Return the first way of using the template that fits what it writes itself."""
    dated = "strftime_now" in source
    ways = [
        Style(parts, system, dated=dated) for system in (False, True) for parts in (False, True)
    ]
    errors: list[ModelError] = []
    for fit in (_conversing, _single):
        for style in ways:
            try:
                return fit(tokenizer, source, style)
            except ModelError as error:
                errors.append(error)
        if unclear := [error for error in errors if isinstance(error, _TwoWays)]:
            raise unclear[0]
    raise errors[0]


def _conversing(tokenizer: PreTrainedTokenizerBase, source: str, style: Style) -> Style:
    """Complete the style of a template that writes the model's turns.

    Raises:
        ModelError: The template does not write them, or begins them in two ways.
    """
    turns = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}]
    alone = True
    opened = _opened(tokenizer, style)
    following = {"role": "user", "content": _NEXT}
    try:
        whole = _write(tokenizer, turns, style, opens=False)
    except ModelError:  # some templates take no conversation that ends with the model's turn
        whole = _write(tokenizer, [*turns, following], style, opens=True)
        alone = False
    own, found, ending = whole.partition(_NEXT)[0].rpartition(_ANSWER)
    if not found or _USER not in own:
        raise ModelError(f"The chat template leaves out the model's own turns. {ADVICE}")
    asked = _write(tokenizer, turns[:1], style, opens=False)
    start, separator = _start(opened, own, opened != asked)
    style = _completed(tokenizer, source, style, opened, start, separator, (ending,))
    begun = f"{opened.removesuffix(style.dropped)}{style.added}"
    if alone and begun.startswith(asked):
        style = replace(style, opening=begun.removeprefix(asked))
    try:
        longer = _write(tokenizer, [*turns, following], style, opens=True)
    except ModelError:  # some templates take one question only
        longer = ""
    places = [longer.find(words) for words in (_USER, _ANSWER, _NEXT)]
    if -1 in places or places != sorted(places):
        return replace(style, conversations=False)
    between = longer[places[1] + len(_ANSWER) : places[2]]
    return replace(style, endings=(ending, between))


def _single(tokenizer: PreTrainedTokenizerBase, source: str, style: Style) -> Style:
    """Complete the style of a template that writes one question only.

    What it writes before an answer can then not be compared, so it must have a generation prompt.

    Raises:
        ModelError: It has none.
    """
    opened = _opened(tokenizer, style)
    if opened == _write(tokenizer, [{"role": "user", "content": _USER}], style, opens=False):
        raise ModelError(
            f"The chat template does not say where the model's answer begins. {ADVICE}"
        )
    style = replace(style, conversations=False)
    return _completed(tokenizer, source, style, opened, opened, "", ())


def _opened(tokenizer: PreTrainedTokenizerBase, style: Style, thinking: bool = False) -> str:
    """Return one question with the template's generation prompt."""
    turn = {"role": "user", "content": _USER}
    opened = _write(tokenizer, [turn], style, opens=True, thinking=thinking)
    # A template that takes texts prints a list of parts as Python or JSON writes it.
    if _USER not in opened or (style.parts and ("'type'" in opened or '"type"' in opened)):
        raise ModelError(f"The chat template does not repeat the user's text. {ADVICE}")
    return opened


def _start(opened: str, own: str, has_opening: bool) -> tuple[str, str]:
    """Return the prompt, and the white space between it and the answer.

    Args:
        opened: the question with the template's generation prompt.
        own: what the template writes before the model's turn when it is given that turn.
        has_opening: whether there is a generation prompt.

    Raises:
        ModelError: The texts differ in more than white space, a thought, or text that is missing.
    """
    common = len(os.path.commonprefix([opened, own]))
    # What only one of the two has. A generation prompt is complete if the other adds white space.
    more_opened, more_own = opened[common:], own[common:]
    if not more_own.strip():
        if not more_opened:
            return opened, more_own
        # The template drops the thoughts of earlier turns, so it writes none of them here either.
        if not more_opened.strip() or _thinks(more_opened):
            return opened, ""
    elif "".join(opened.split()) == "".join(own.split()):  # they differ in white space alone
        return opened, ""
    elif not has_opening or not more_opened.strip() or _open_thought(opened):
        start = own.rstrip(" ")  # a space is a part of the answer's first token
        return start, own[len(start) :]
    raise _TwoWays(
        "The chat template begins the model's turn in two ways, so it is unclear where an answer "
        f"belongs: {opened[-60:]!r} to ask for it, {own[-60:]!r} in a conversation. {ADVICE}"
    )


def _completed(
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    style: Style,
    opened: str,
    start: str,
    separator: str,
    endings: tuple[str, ...],
) -> Style:
    """Return ``style`` with all that follows from where the answer begins."""
    if opening := _open_thought(start):
        # As the template of Qwen3 does when it is told not to think.
        start, separator = f"{start.rstrip()}\n\n{THOUGHTS[opening]}\n\n", ""
    common = len(os.path.commonprefix([opened, start]))
    after = start[start.rindex(_USER) + len(_USER) :]
    thinking = None
    if _thinks(after) or opened != _opened(tokenizer, style, thinking=True):
        thinking = "off"
    elif _thinks(source):
        thinking = "free"
    return replace(
        style,
        dropped=opened[common:],
        added=start[common:],
        separator=separator,
        after=after,
        endings=endings,
        thinking=thinking,
    )


def _thinks(text: str) -> bool:
    return any(mark in text for pair in THOUGHTS.items() for mark in pair)


def _open_thought(text: str) -> str | None:
    """Return what opens the thought that ``text`` ends in, if it does."""
    return next((opening for opening in THOUGHTS if text.rstrip().endswith(opening)), None)


# --- calling the template ---------------------------------------------------------------------


def _source(tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:  # several templates under other names, none of them the default
        names = ", ".join(map(repr, tokenizer.chat_template or ()))
        raise ModelError(
            f"The tokenizer has several chat templates ({names}) and no default one. {ADVICE}"
        ) from error


def _write(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    style: Style,
    *,
    opens: bool,
    thinking: bool = False,
) -> str:
    """Return what the template writes; with its generation prompt if ``opens``.

    Raises:
        ModelError: The template fails.
    """
    turns = list(messages)
    if style.system and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": SYSTEM})
    if style.parts:
        turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    source = _source(tokenizer)
    try:
        # Other templates ignore the flag.
        with limited_templates():
            text = tokenizer.apply_chat_template(
                cast("list[dict[str, str]]", turns),
                chat_template=_CLOCK + source if style.dated else source,
                tokenize=False,
                add_generation_prompt=opens,
                enable_thinking=thinking,
            )
    except Exception as error:  # a template is a program of somebody else's, and may raise anything
        raise ModelError(f"The chat template fails ({error}). {ADVICE}") from error
    return cast("str", text)  # with tokenize=False it is a string


def _clock() -> str:
    """Return a definition of ``strftime_now`` for the head of a template, with the date fixed.

    transformers lets no function be passed to a template, so it is a macro that replaces each code
    of the format.
    """
    codes = ("-d", "-m", *"aAbBcdeFHIjmMpSuUVwWxXyYZ")
    replaced = "".join(f" | replace('%{code}', '{DATE.strftime('%' + code)}')" for code in codes)
    # The line break after a block is not printed, and what follows it still begins a line.
    return "{% macro strftime_now(format) %}{{ format" + replaced + " }}{% endmacro %}\n"


_CLOCK = _clock()
