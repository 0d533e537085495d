"""The life of an edit after ``inject``: facts on top, facts taken out, answers side by side."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from editbench import registry
from editbench.asking import Question, answers
from editbench.cost import Meter
from editbench.edit import Edit
from editbench.errors import ModelError, OptionError, listed
from editbench.models import LanguageModel, load_model
from editbench.report import Removal
from editbench.stack import applied_parts, parts_of, stacked
from editbench.types import Fact, form_of

if TYPE_CHECKING:
    from editbench.plugin import Method

CHAT_TOKENS = 100
"""Most tokens of the answer to a prompt of the user's own; that to a fact's prompt gets the room
that it has everywhere (``editbench.asking``)."""


def as_edit(edit: Edit | str | Path) -> Edit:
    """Return ``edit``, loaded if it is a folder.

    Raises:
        RecordError: as ``Edit.load``.
    """
    return edit if isinstance(edit, Edit) else Edit.load(edit)


def base_of(edit: Edit, model: LanguageModel | str | None = None) -> LanguageModel:
    """Return the model that ``edit`` was made for: ``model``, or the one that the edit names.

    Raises:
        ModelError: it is another model, or cannot be loaded.
    """
    base = load_model(edit.model_name if model is None else model, dtype=edit.model_dtype)
    parts_of(edit)[0].check(base)
    return base


# --- more facts ---------------------------------------------------------------------------------


def method_for(name: str | None, options: Mapping[str, object], below: Edit | None) -> Method:
    """Return the method of an edit, on top of ``below`` if there is one.

    It is ``name`` with ``options``. Without a name, it is the method of the last edit below, with
    that one's options where ``options`` has no others, or ``mixsd``.

    Raises:
        EditbenchError: there is no such method or option.
    """
    if name is None and below is not None:
        last = parts_of(below)[-1]
        name, options = last.method, {**last.options, **options}
    name = name or "mixsd"
    return registry.get("methods", name).from_options(name, options)


def injected(
    model: LanguageModel, facts: Sequence[Fact], method: Method, below: Edit | None = None
) -> Edit:
    """Return the edit of ``facts``, on top of ``below`` if there is one, with what it cost.

    Raises:
        ModelError: an edit of ``below`` was made for another model.
        EditbenchError: as ``Method.inject``.
    """
    edits = () if below is None else parts_of(below)
    with applied_parts(edits, model):
        edit = _measured(model, lambda: method.inject(model, facts))
    return stacked([*edits, edit])


def _measured(model: LanguageModel, inject: Callable[[], Edit]) -> Edit:
    """Return what ``inject`` returns, with its seconds and its memory in the report."""
    with Meter(model) as meter, meter.phase("inject"):
        edit = inject()
    cost = {"seconds": round(meter.seconds["inject"], 3), "peak_memory_bytes": meter.peak}
    return replace(edit, diagnostics={**edit.diagnostics, "cost": cost})


# --- facts taken out ----------------------------------------------------------------------------


class Step(NamedTuple):
    """One edit of a stack, and what becomes of it when facts are taken out."""

    part: Edit
    kept: tuple[Fact, ...]
    """The facts that it keeps."""
    again: bool
    """Whether it is made again: it loses a fact, or one below it does."""

    def words(self) -> str:
        """Return what is done, as a sentence."""
        method, n = self.part.method, len(self.kept)
        facts = f"{n} fact{'s' * (n != 1)}"
        if not n:
            return f"{method}: no fact is left of its {len(self.part.facts)}, so it goes."
        if not self.again:
            return f"{method}: {facts}, left as they are."
        if self.part.values is not None:
            return f"{method}: solves {facts} again from the values that it kept for each."
        return f"{method}: keeps nothing for single facts, so {facts} are injected anew."


def steps_without(edit: Edit, facts: Iterable[str]) -> list[Step]:
    """Return what becomes of each edit of a stack when ``facts`` are taken out.

    Args:
        facts: their ids.

    Raises:
        OptionError: the edit has no such fact, or would have none left.
    """
    gone, ids = list(dict.fromkeys(facts)), [fact.id for fact in edit.facts]
    if unknown := [each for each in gone if each not in ids]:
        close = difflib.get_close_matches(unknown[0], ids, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise OptionError(f"The edit has no fact {unknown[0]!r}.{hint} It has {listed(ids)}.")
    if len(gone) == len(ids):
        what = "the only fact" if len(ids) == 1 else f"all {len(ids)} facts"
        raise OptionError(
            f"This would take out {what} of the edit, and nothing would be left. Use the base "
            f"({edit.model_name}) instead, and delete the folder."
        )
    steps: list[Step] = []
    again = False
    for part in parts_of(edit):
        kept = tuple(fact for fact in part.facts if fact.id not in gone)
        again = again or len(kept) < len(part.facts)
        steps.append(Step(part, kept, again))
    return steps


def without(
    edit: Edit, facts: Iterable[str], model: LanguageModel, folder: str | Path = ""
) -> Edit:
    """Return ``edit`` as it would be had ``facts`` never been in it; ``model`` stays as it is.

    An edit that keeps a value for each fact (``Edit.values``) is solved again from those of the
    rest. The others, such as those of trainers, are injected anew with their own options. In a
    stack, the edits above are made again too, since they were made for a model with that fact.

    Args:
        facts: the ids of what is taken out.
        model: the base.
        folder: where ``edit`` is saved. The report of the new edit names it (``removals``).

    Raises:
        OptionError: as ``steps_without``.
        ModelError: an edit was made for another model.
    """
    gone = list(dict.fromkeys(facts))
    steps = steps_without(edit, gone)
    # Of the whole stack, before anything is made again.
    with applied_parts([step.part for step in steps], model):
        pass
    made: list[Edit] = []
    with ExitStack() as applied:
        for part, kept, again in steps:
            if not kept:
                continue
            made.append(_made_again(part, kept, model) if again else part)
            applied.enter_context(made[-1].applied(model))
    left = stacked(made)
    removal: Removal = {"edit": str(folder), "facts": len(edit.facts), "without": gone}
    removals = [*edit.diagnostics.get("removals", ()), removal]
    return replace(left, diagnostics={**left.diagnostics, "removals": removals})


def _made_again(part: Edit, facts: Sequence[Fact], model: LanguageModel) -> Edit:
    method = registry.get("methods", part.method).from_options(part.method, part.options)
    return _measured(model, lambda: method.inject_again(model, facts, part))


def remove(
    edit: Edit | str | Path,
    facts: str | Iterable[str],
    model: LanguageModel | str | None = None,
) -> Edit:
    """Return ``edit`` without ``facts``, which are named by their ids; see ``without``.

    Args:
        edit: an edit, or the folder of one. It stays as it is.
        model: its base; by default the model that the edit names.

    Raises:
        EditbenchError: as ``without``, or the edit or its base cannot be loaded.
    """
    folder = "" if isinstance(edit, Edit) else edit
    edit = as_edit(edit)
    gone = [facts] if isinstance(facts, str) else list(facts)
    steps_without(edit, gone)  # before the model is loaded
    return without(edit, gone, base_of(edit, model), folder)


# --- answers side by side -----------------------------------------------------------------------


class Answers(NamedTuple):
    """What the base and the edited model say to one prompt."""

    prompt: str
    base: str
    edited: str


def questions_of(facts: Iterable[Fact]) -> dict[str, Question]:
    """Return how each fact's prompt is asked, by the prompt: as ``compare`` asks it."""
    return {fact.prompt: Question(fact.prompt, fact.form, fact.answers) for fact in facts}


def ask(edit: Edit, model: LanguageModel, prompts: Sequence[str]) -> Iterator[Answers]:
    """Yield what ``model`` says to each prompt without and with ``edit``.

    Raises:
        ModelError: the edit was made for another model, or a prompt is longer than its context.
    """
    known = questions_of(edit.facts)
    asked = [known.get(p) or Question(p, form_of(p), (), CHAT_TOKENS) for p in prompts]
    for question in asked:
        length, limit = len(model.prompt_ids(question.prompt, question.form)), model.context_length
        if limit is not None and length >= limit:
            raise ModelError(
                f"The prompt has {length} tokens, and {model.name} reads at most {limit}."
            )
    base = answers(model, asked)
    with edit.applied(model, check=False):
        edited = answers(model, asked)
    yield from map(Answers, prompts, base, edited)


def chat(
    edit: Edit | str | Path, *prompts: str, model: LanguageModel | str | None = None
) -> list[Answers]:
    """Return what the base and the edited model say to each prompt.

    A prompt that ends with a question mark is asked, any other is continued.

    Args:
        edit: an edit, or the folder of one.
        model: its base; by default the model that the edit names.

    Raises:
        EditbenchError: the edit or its base cannot be loaded, or do not belong together.
    """
    edit = as_edit(edit)
    return list(ask(edit, base_of(edit, model), prompts))
