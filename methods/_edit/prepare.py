"""Facts as the weight editors read them.

Each fact is rendered, tokenized and searched for its subject once, in every context that an
injection needs. Checks, keys, the target optimisation, the refinement and the report all read the
result.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from editbench import text
from editbench.errors import NoTokenError
from editbench.models import LanguageModel
from editbench.own_text import document_start
from editbench.subjects import Subject, find_subject
from editbench.types import Fact

# As in MEMIT's code: one prefix per seed word, of 10 tokens with it, sampled with top-k 5.
SEED_WORDS = ("The", "Therefore", "Because", "I", "You")
PREFIX_TOKENS = 10
FactToken = Literal["subject_last", "last"]
"""Where a fact's key is read and its value written, by EasyEdit's names: at the last token of the
subject, or at that of the prompt's last word."""
STAND_IN = "I have read this. "
"""Text put before a prompt whose subject would otherwise be the first token."""


@dataclass(frozen=True)
class PreparedPrompt:
    """A fact's prompt behind one prefix, as token ids."""

    prefix: str
    ids: list[int]
    place: int
    """Index in ``ids`` of the token whose key is read and whose value is written."""
    target_ids: list[int]
    """The target as it follows this prompt."""

    @property
    def length(self) -> int:
        """Tokens of the prompt and its target."""
        return len(self.ids) + len(self.target_ids)


@dataclass(frozen=True)
class PreparedFact:
    """A fact with its subject and with its prompt in every context."""

    fact: Fact
    subject: Subject
    token: FactToken
    bare: PreparedPrompt
    """The prompt with nothing before it."""
    prompts: tuple[PreparedPrompt, ...]
    """All prompts that are used: ``bare`` or its stand-in first, then one prompt per prefix."""
    kl_ids: list[int]
    """The ids of "{subject} is a" up to the subject's last token, where the KL is read."""

    @property
    def has_stand_in(self) -> bool:
        """Whether the first of ``prompts`` is the prompt behind ``STAND_IN``, not the bare one.

        That is so where the edited token would be the first of the text: a subject of one token, at
        the start, in a model without BOS. The state there is an attention sink and much
        the same for all texts, so an edit of that key changes all of them (Yang et al. 2024, arXiv
        2406.11263).
        """
        return self.prompts[0] is not self.bare


def prepare_facts(
    model: LanguageModel,
    facts: Sequence[Fact],
    prefixes: Sequence[str],
    at: FactToken | Literal["auto"] = "subject_last",
) -> list[PreparedFact]:
    """Return ``facts`` with their prompts bare (or behind the stand-in) and behind each prefix.

    ``at`` says at which token facts are written. ``auto``: at the last word for facts that share a
    subject (``sharing``), at the subject's last token for all others.

    Raises:
        MethodError: A given subject occurs twice in its prompt.
        NoTokenError: No token of a prompt covers its subject.
        ModelError: The tokenizer gives no character offsets.
    """
    tokens = _tokens(model, facts, at)
    return [
        _prepared(model, fact, prefixes, token) for fact, token in zip(facts, tokens, strict=True)
    ]


def prepare_readable(
    model: LanguageModel,
    facts: Sequence[Fact],
    prefixes: Sequence[str],
    at: FactToken | Literal["auto"] = "subject_last",
) -> tuple[list[PreparedFact], list[str]]:
    """Return ``prepare_facts`` of the facts whose subjects have a token, and warnings about others.

    Raises:
        NoTokenError: No fact is left.
        MethodError: A given subject occurs twice in its prompt.
        ModelError: The tokenizer gives no character offsets.
    """
    prepared: list[PreparedFact] = []
    left_out: list[str] = []
    for fact, token in zip(facts, _tokens(model, facts, at), strict=True):
        try:
            prepared.append(_prepared(model, fact, prefixes, token))
        except NoTokenError as reason:
            left_out.append(f"Fact {fact.id!r} was left out and is not taught. {reason}")
    if not prepared:
        none = f"None of {len(facts)} facts has a subject that {model.name} reads. "
        raise NoTokenError((none if len(facts) > 1 else "") + left_out[0])
    return prepared, left_out


def _tokens(
    model: LanguageModel, facts: Sequence[Fact], at: FactToken | Literal["auto"]
) -> list[FactToken]:
    if at != "auto":
        return [at] * len(facts)
    shared = sharing(facts, [fact for edit in model.applied for fact in edit.facts])
    return ["last" if one else "subject_last" for one in shared]


def sharing(facts: Sequence[Fact], earlier: Sequence[Fact] = ()) -> list[bool]:
    """Return, for each of ``facts``, whether another fact asks something else about its subject.

    That is a fact, of ``facts`` or ``earlier``, with the same subject, another prompt and another
    target. With the same prompt it is an update of the same fact.
    """
    about: dict[str, set[tuple[str, str]]] = {}
    for fact in (*earlier, *facts):
        about.setdefault(_subject_text(fact), set()).add((fact.prompt, fact.target))
    return [
        any(
            prompt != fact.prompt and target != fact.target
            for prompt, target in about[_subject_text(fact)]
        )
        for fact in facts
    ]


def _subject_text(fact: Fact) -> str:
    # A given subject may occur twice in a prompt that a trainer taught, so it is not looked for.
    return find_subject(fact).text if fact.subject is None else fact.subject


def _prepared(
    model: LanguageModel, fact: Fact, prefixes: Sequence[str], token: FactToken
) -> PreparedFact:
    subject = find_subject(fact)
    bare = _prompt(model, fact, subject, "", token)
    # Behind a BOS the subject is never the first token, so no stand-in is needed.
    first = bare if bare.place > 0 else _prompt(model, fact, subject, STAND_IN, token)
    others = (_prompt(model, fact, subject, prefix, token) for prefix in prefixes)
    return PreparedFact(fact, subject, token, bare, (first, *others), _kl_ids(model, subject))


def _prompt(
    model: LanguageModel, fact: Fact, subject: Subject, prefix: str, token: FactToken
) -> PreparedPrompt:
    rendered = model.render(fact.prompt, fact.form, prefix=prefix)
    last = subject.last
    if token == "last":
        # A question mark behind the last word tells hardly one question from another.
        last = max(last, _last_of_a_word(fact.prompt))
    first, end = rendered.start + subject.start, rendered.start + last
    ids, place = text.ids_and_index(model.tokenizer, rendered, end, first)
    target_ids = text.target_ids(model.tokenizer, rendered, ids, fact.target)
    return PreparedPrompt(prefix, ids, place, target_ids)


def _last_of_a_word(prompt: str) -> int:
    """Return the index of the last character of ``prompt`` that belongs to a word, 0 without one.

    Combining marks do (category M): many scripts write vowels with them.
    """
    of_words = (
        i for i, char in enumerate(prompt) if char.isalnum() or unicodedata.category(char)[0] == "M"
    )
    return max(of_words, default=0)


def _kl_ids(model: LanguageModel, subject: Subject) -> list[int]:
    """Return the ids of "{subject} is a" up to the subject's last token, never the first one."""
    # The subject opens this prompt, so in a model without BOS a subject of one token comes first.
    for prefix in ("", STAND_IN):
        rendered = model.render(f"{subject.text} is a", prefix=prefix)
        end = rendered.start + len(subject.text) - 1
        ids, last = text.ids_and_index(model.tokenizer, rendered, end, rendered.start)
        if last > 0:
            break
    # ROME's code reads the KL at the subject, not at "a"; causal attention hides the rest.
    return ids[: last + 1]


def key_rows(prompts: Sequence[PreparedPrompt]) -> tuple[list[list[int]], list[int]]:
    """Return the ids of ``prompts`` and the places of their keys, for ``read_at``."""
    return [prompt.ids for prompt in prompts], [prompt.place for prompt in prompts]


def context_prefixes(
    model: LanguageModel, n: int, seed: int, style: Literal["memit", "rome"] = "memit"
) -> list[str]:
    """Return ``n`` short beginnings of text that the model wrote (top-k 5), each ended by ". ".

    ``memit``: 10 tokens that begin with one of ``SEED_WORDS``. ``rome``: 5 tokens of the first
    half, 10 of the second, from the start of a document. The same seed gives the same prefixes.
    """
    if n == 0:
        return []
    if style == "memit":
        starts = [SEED_WORDS[i % len(SEED_WORDS)] for i in range(n)]
        prompts = [model.prompt_ids(word) for word in starts]
        lengths = [PREFIX_TOKENS] * n
    else:
        starts = [""] * n
        prompts = [[document_start(model.tokenizer)]] * n
        lengths = [PREFIX_TOKENS // 2] * (n // 2) + [PREFIX_TOKENS] * (n - n // 2)
    texts = model.generate_ids(
        prompts,
        # The seed word, or the token at the start, counts as one token.
        [length - 1 for length in lengths],
        generator=torch.Generator().manual_seed(seed),
        top_k=5,
        # Even a text that the model would end here has the full length.
        stop=False,
    )
    # One line each, ended by a full stop, whatever the model wrote.
    written = [
        " ".join((word + model.decode(ids)).split())
        for word, ids in zip(starts, texts, strict=True)
    ]
    return [words.rstrip(".") + ". " for words in written]


def kept_prefixes(model: LanguageModel, n: int) -> list[str]:
    """Return the first ``n`` prefixes that ``model`` wrote before its edits.

    They are in the report of the first applied edit, if it has as many. Otherwise the list is
    empty.
    """
    for edit in model.applied:
        if edit.model_hash != model.applied[0].model_hash:
            break  # made for a model that was already edited
        # A pair of methods has one report for each of them.
        for report in (edit.diagnostics, *edit.diagnostics.values()):
            kept = report.get("prefixes") if isinstance(report, Mapping) else None
            if isinstance(kept, list) and len(kept) >= n:
                return kept[:n]
    return []
