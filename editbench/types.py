"""The nouns of knowledge editing: facts, probes and cases.

All are frozen, validated on construction, and free of torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from dataclasses import field as dataclass_field
from typing import Any, NamedTuple

from editbench.errors import DataError, FactError
from editbench.matching import contains
from editbench.normal_form import plain
from editbench.writing import full_stop, gap, is_question, looks_alike

AXES = ("rewrite", "paraphrase", "neighborhood", "portability", "in_context", "fluency")
"""Axes that a corpus can give its probes."""
DERIVED_AXES = ("distracted", "denial", "reversion")
"""Axes of the probes that ``eval/`` derives from a case itself, so no corpus supplies them."""
METRICS = {
    "efficacy": "rewrite",
    "generalization": "paraphrase",
    "specificity": "neighborhood",
    "portability": "portability",
    "in_context": "in_context",
}
"""Headline metrics: each is the mean over the probes of one axis."""
KEPT = ("neighborhood", "distracted")
"""Axes whose correct answer is the one that the unedited model gave."""
DRAFTED = "drafted"
"""Kind of the probes that editbench drafted for a user's facts. Their scores are marked."""


class Measure(NamedTuple):
    """A metric that exists under one protocol only."""

    axis: str
    """Axis of the probes that are averaged."""
    protocol: str
    """How the answers are obtained: ``generation``, ``argmax`` or ``likelihood``."""
    column: str
    """Column of the probe rows (``editbench.rows.ProbeRow``) that is averaged."""


TAUGHT = {name: axis for name, axis in METRICS.items() if axis not in KEPT}
"""The headline metrics whose answer the edit is meant to change."""
MORE_METRICS: dict[str, Measure] = {
    **{f"{name}_exact": Measure(axis, "generation", "exact") for name, axis in TAUGHT.items()},
    **{
        f"{name}_tokens": Measure(axis, "argmax", "token_accuracy") for name, axis in TAUGHT.items()
    },
    "specificity_tokens_rome": Measure("neighborhood", "argmax", "token_accuracy"),
    "specificity_tokens_easyedit": Measure("neighborhood", "argmax", "token_agreement"),
    "neighborhood_accuracy": Measure("neighborhood", "generation", "contains"),
    "target_leak": Measure("neighborhood", "generation", "target_leaked"),
    "distracted": Measure("distracted", "generation", "generation"),
    "distracted_accuracy": Measure("distracted", "generation", "contains"),
    "distracted_leak": Measure("distracted", "generation", "target_leaked"),
    "distracted_argmax": Measure("distracted", "argmax", "argmax"),
    "distracted_likelihood": Measure("distracted", "likelihood", "likelihood"),
    "denial": Measure("denial", "generation", "generation"),
    "reversion": Measure("reversion", "generation", "generation"),
    "fluency": Measure("fluency", "generation", "generation"),
    "consistency": Measure("fluency", "generation", "consistency"),
}
"""Further metrics by name. ``eval/DEFINITIONS.md`` defines each of them."""
FORMS = ("cloze", "question")
PROTOCOLS = ("generation", "argmax", "likelihood")
"""How answers are obtained, without the judging model."""


@dataclass(frozen=True)
class Fact:
    """One thing to be made true. It is all that a method sees: probes are kept from it.

    Raises:
        FactError: if the prompt or the target is empty, the subject is not in the prompt, the
            prompt already ends with the target, the target equals the original answer, or the form
            is unknown.
    """

    id: str
    prompt: str
    """A cloze to complete ("The capital of Australia is") or a question to answer, without a
    trailing space."""
    target: str
    """What the edited model should say after the prompt, without a leading space."""
    subject: str | None = None
    """A span of the prompt, verbatim. Optional, but a method that needs it raises an error if it is
    missing."""
    original: str | None = None
    """The answer before the edit, if known."""
    aliases: tuple[str, ...] = ()
    """Other wordings of the target that count as correct."""
    demonstration: str | None = None
    """A longer worked answer for trainers and teachers to use; ``None``: the target itself."""
    relation: str | None = None
    """Name of the relation in the source (``P36``, ``capital``), if it has one."""
    form: str = "cloze"
    """``cloze``: continued as raw text. ``question``: asked through the model's chat template."""

    def __post_init__(self) -> None:
        self._clean_texts()
        if self.form not in FORMS:
            raise FactError(
                f"Fact {self.id!r}: form is {self.form!r}; it must be one of {', '.join(FORMS)}."
            )
        self._find_subject()
        if self.prompt == self.target or self.prompt.endswith(" " + self.target):
            raise FactError(
                f"Fact {self.id!r}: the prompt already ends with the target {self.target!r}. "
                "End the prompt where the target should begin."
            )
        if self.target == self.original:
            raise FactError(
                f"Fact {self.id!r}: the target {self.target!r} is the answer already: it equals "
                "'original'. Give the new answer as the target."
            )

    def __repr__(self) -> str:
        """Return id, prompt and target, on one line."""
        return f"Fact({self.id!r}: {self.prompt!r} -> {self.target!r})"

    def _find_subject(self) -> None:
        """Check that the subject is in the prompt, and write it as it is written there."""
        if not self.subject or self.subject in self.prompt:
            return
        # The same letters may be written in two ways, such as u-umlaut as one character or two.
        for form in ("NFC", "NFD"):
            if (same := unicodedata.normalize(form, self.subject)) in self.prompt:
                object.__setattr__(self, "subject", same)
                return
        raise FactError(
            f"Fact {self.id!r}: subject {self.subject!r} is not in its prompt {self.prompt!r}"
            f"{looks_alike(self.subject, self.prompt)}. "
            "Copy it from the prompt letter for letter, or leave it out."
        )

    def _clean_texts(self) -> None:
        """Strip every text field, after checking that it is text."""
        for field in ("prompt", "target"):
            value = getattr(self, field)
            if not isinstance(value, str) or _is_blank(value):
                raise FactError(
                    f"Fact {self.id!r}: field {field!r} is empty. "
                    "Every fact needs a prompt and a target."
                )
            # object.__setattr__, because the class is frozen
            object.__setattr__(self, field, self._clean(field, value))
        for field in ("subject", "original", "demonstration", "relation"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise FactError(
                    f"Fact {self.id!r}: field {field!r} must be text, not {type(value).__name__}."
                )
            # An empty text in a file means the same as a missing field.
            object.__setattr__(self, field, self._clean(field, value or "") or None)
        if not _are_texts(self.aliases):
            raise FactError(f"Fact {self.id!r}: field 'aliases' must be a list of texts.")
        aliases = tuple(
            self._clean("aliases", alias) for alias in self.aliases if not _is_blank(alias)
        )
        object.__setattr__(self, "aliases", aliases)

    def _clean(self, field: str, value: str) -> str:
        return _clean(value, f"Fact {self.id!r}: field {field!r}", FactError)

    @property
    def answers(self) -> tuple[str, ...]:
        """Return the target and its aliases."""
        return (self.target, *self.aliases)

    @property
    def statement(self) -> str:
        """Return the fact as one text: ``prompt target.`` or ``Question: ... Answer: ...``."""
        if self.form == "question":
            return f"Question: {self.prompt} Answer: {self.target}"
        # "U.S." and the like end the sentence themselves.
        stop = full_stop(self.prompt, self.target)
        return f"{self.prompt}{gap(self.prompt, self.target)}{self.target}{stop}"

    def to_dict(self) -> dict[str, object]:
        """Return the fact as a JSON object without its empty fields."""
        return _filled(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Fact:
        """Build a fact from a JSON object; the inverse of ``to_dict``.

        Without an ``id``, the fact is named after the hash of its prompt and target. Without a
        ``form``, it is a question if its prompt ends with a question mark, else a cloze.

        Raises:
            FactError: if a field is unknown or not valid.
        """
        values = dict(record)
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise FactError(
                f"Unknown field {unknown[0]!r} in a fact. Its fields are {', '.join(known)}."
            )
        values.setdefault("prompt", "")
        values.setdefault("target", "")
        if isinstance(values["prompt"], str):
            values.setdefault("form", form_of(values["prompt"]))
        # Hashed, so that the id does not depend on the fact's place in a file.
        values.setdefault("id", "fact-" + digest([values["prompt"], values["target"]])[:8])
        values["id"] = str(values["id"])
        values["aliases"] = values.get("aliases") or ()
        if isinstance(values["aliases"], list):
            values["aliases"] = tuple(values["aliases"])
        return cls(**values)


@dataclass(frozen=True)
class Probe:
    """One question for the edited model, with its expected answers and its axis.

    Raises:
        DataError: if a field is missing or not valid.
    """

    axis: str
    """What is tested: ``rewrite`` (the fact as taught), ``paraphrase`` (the fact in other words),
    ``neighborhood`` (a similar question whose answer must not change), ``portability`` (a
    consequence of the fact), ``in_context`` (a skill: the prompt holds all the information needed,
    and no fact of the corpus helps) or ``fluency`` (the opening of a free text about the
    subject)."""
    prompt: str
    answers: tuple[str, ...]
    """Accepted answers; the first one is canonical. A neighborhood probe that only protocol
    ``generation`` scores may have none: its answer is compared with the base's alone."""
    distractor: str | None = None
    """An answer that must be less probable than ``answers[0]`` under protocol ``likelihood``."""
    form: str = "cloze"
    """``cloze`` or ``question``, as for a fact."""
    needs: tuple[str, ...] = ()
    """Ids of the other facts on which the answer depends (the second hop of a chain). The probe is
    asked only if these are taught as well."""
    max_new_tokens: int | None = None
    """Room of the answer in tokens, unless an accepted answer needs more; ``None``: the usual room
    of the form (``editbench.asking``)."""
    kind: str | None = None
    """Subdivision of the axis, in the source's words ("Subject_Aliasing"). Metrics are reported for
    each kind as well."""
    references: tuple[str, ...] = ()
    """Real texts about the target, to compare a free text with; for ``fluency`` probes only."""
    protocols: tuple[str, ...] = ()
    """The protocols that can score the probe; empty: all. A long text, say, is never found word for
    word in a free answer, but ``argmax`` can compare its tokens."""

    def __post_init__(self) -> None:
        if self.axis not in AXES + DERIVED_AXES:
            raise DataError(f"Probe axis {self.axis!r} is not one of {', '.join(AXES)}.")
        if self.form not in FORMS:
            raise DataError(f"Probe form {self.form!r} is not one of {', '.join(FORMS)}.")
        self._check_types()
        object.__setattr__(self, "protocols", tuple(self.protocols))
        owner = f"A {self.axis} probe's"
        if _is_blank(self.prompt):
            raise DataError(
                f"{owner} prompt is empty. Give it the question, or leave the probe out."
            )
        answers = tuple(
            _clean(answer, f"{owner} answer", DataError)
            for answer in self.answers
            if not _is_blank(answer)
        )
        if not answers and not (self.axis in KEPT and self.protocols == ("generation",)):
            raise DataError(
                f"The {self.axis} probe {self.prompt!r} has no expected answer. "
                "Give it at least one in 'answers'."
            )
        object.__setattr__(self, "prompt", _clean(self.prompt, f"{owner} prompt", DataError))
        object.__setattr__(self, "answers", answers)
        object.__setattr__(self, "needs", tuple(self.needs))
        object.__setattr__(self, "references", tuple(self.references))
        if self.distractor is not None:
            distractor = _clean(self.distractor, f"{owner} distractor", DataError) or None
            object.__setattr__(self, "distractor", distractor)

    def _check_types(self) -> None:
        """Raise ``DataError`` if a field has another type than declared, as it may in a file."""
        owner = f"A {self.axis} probe's"
        for field in ("prompt", "distractor", "kind"):
            value = getattr(self, field)
            if not isinstance(value, str) and (value is not None or field == "prompt"):
                raise DataError(f"{owner} {field} must be text, not {type(value).__name__}.")
        for field, items in (
            ("answers", "texts"),
            ("needs", "fact ids"),
            ("references", "texts"),
            ("protocols", "protocols"),
        ):
            value = getattr(self, field)
            if not _are_texts(value):
                raise DataError(f"{owner} {field} must be a list of {items}, got {value!r}.")
        if unknown := sorted(set(self.protocols) - set(PROTOCOLS)):
            known = ", ".join(PROTOCOLS)
            raise DataError(f"{owner} protocol {unknown[0]!r} is not one of {known}.")
        limit: object = self.max_new_tokens
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise DataError(
                f"{owner} max_new_tokens must be a whole number of at least 1, got {limit!r}."
            )

    def scored_by(self, protocol: str) -> bool:
        """Return whether ``protocol`` can score the probe."""
        return not self.protocols or protocol in self.protocols


@dataclass(frozen=True)
class Case:
    """A fact with its probes. The first probe is always the rewrite probe.

    Only ``eval/`` sees the probes; a method is given the fact alone.
    """

    fact: Fact
    probes: tuple[Probe, ...]
    group: str | None = None
    """Cases of one group, such as the facts of one chain or of one invented world, stay together
    when a corpus is split into dev and test."""
    notes: Mapping[str, object] = dataclass_field(default_factory=dict, compare=False)
    """What else the source says about the fact, such as the other columns of a table. Nothing is
    taught or asked with it, and records leave it out."""

    @classmethod
    def build(
        cls,
        fact: Fact,
        probes: Iterable[Probe] = (),
        group: str | None = None,
        max_new_tokens: int | None = None,
        protocols: tuple[str, ...] = (),
    ) -> Case:
        """Return the case of ``fact``: a rewrite probe derived from the fact, then ``probes``.

        ``max_new_tokens`` and ``protocols`` are those of the rewrite probe.

        Raises:
            DataError: if a probe has an axis whose probes the evaluation derives by itself.
        """
        rewrite = Probe(
            "rewrite",
            fact.prompt,
            fact.answers,
            fact.original,
            fact.form,
            max_new_tokens=max_new_tokens,
            protocols=protocols,
        )
        probes = tuple(probes)
        for probe in probes:
            if probe.axis in DERIVED_AXES:
                raise DataError(
                    f"Fact {fact.id!r} has a probe of axis {probe.axis!r}, which editbench derives "
                    "from each fact by itself. Leave it out; "
                    f"a corpus may give {', '.join(AXES)}."
                )
        return cls(fact, (rewrite, *probes), group)

    def to_dict(self) -> dict[str, object]:
        """Return the case as a JSON object. The rewrite probe is left out: ``build`` derives it."""
        rewrite, *others = self.probes
        values = {**self.fact.to_dict(), "probes": [_filled(probe) for probe in others]}
        if self.group:
            values["group"] = self.group
        if rewrite.max_new_tokens:
            values["max_new_tokens"] = rewrite.max_new_tokens
        if rewrite.protocols:
            values["protocols"] = list(rewrite.protocols)
        return values

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Case:
        """Build a case from a JSON object; the inverse of ``to_dict``.

        Raises:
            DataError: if the fact or a probe is not valid.
        """
        values = dict(record)
        group, max_new_tokens = values.pop("group", None), values.pop("max_new_tokens", None)
        protocols = tuple(values.pop("protocols", ()))
        try:
            probes = [_probe(fields_of_probe) for fields_of_probe in values.pop("probes", ())]
        except (TypeError, KeyError) as error:
            raise DataError(
                f"A probe of fact {values.get('id')!r} is malformed: {error}."
            ) from error
        return cls.build(Fact.from_dict(values), probes, group, max_new_tokens, protocols)


class BadRecordsError(DataError):
    """Some records of a file are no facts. The message is about the first of them."""

    def __init__(self, message: str, problems: Iterable[str], cases: Iterable[Case]):
        super().__init__(message)
        self.problems = tuple(problems)
        """A sentence for each bad record, with its place."""
        self.cases = list(cases)
        """The other records."""


def _probe(record: Mapping[str, Any]) -> Probe:
    # ``_filled`` leaves an empty tuple out, and only such probes may have none.
    answers = record.get("answers", ()) if "protocols" in record else record["answers"]
    # A text is left as it is, so that the probe refuses it: tuple() would make each of its letters
    # an answer.
    return Probe(**{**record, "answers": answers if isinstance(answers, str) else tuple(answers)})


def _filled(value: Fact | Probe) -> dict[str, object]:
    """Return the fields that are set. Tuples become lists, as which JSON reads them back."""
    return {
        name: list(field) if isinstance(field, tuple) else field
        for name, field in asdict(value).items()
        if field not in (None, ())
    }


def check_facts(facts: Iterable[Fact], allow_conflicts: bool = False) -> list[Fact]:
    """Return ``facts`` as a list, after checking that they can be taught together.

    Raises:
        FactError: if an id is used twice, a fact is given twice, or one prompt (``same_prompt``)
            has two targets and ``allow_conflicts`` is not set.
    """
    facts = list(facts)
    ids: set[str] = set()
    seen: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        if fact.id in ids:
            raise FactError(f"Fact id {fact.id!r} is used twice. Ids must be unique.")
        ids.add(fact.id)
        earlier = seen.setdefault((fact.form, fact.prompt), fact)
        if earlier is not fact and earlier.target == fact.target:
            same = f"{fact.prompt!r} -> {fact.target!r}"
            raise FactError(
                f"Facts {earlier.id!r} and {fact.id!r} are the same: {same}. Remove one."
            )
    if not allow_conflicts and (clash := next(contradictions(facts), None)):
        earlier, fact = clash
        also = f"{fact.prompt!r} " if fact.prompt != earlier.prompt else ""
        raise FactError(
            f"Facts {earlier.id!r} and {fact.id!r} contradict each other: "
            f"{earlier.prompt!r} -> {earlier.target!r} and {also}-> {fact.target!r}. "
            "Remove one, or pass --allow-conflicts."
        )
    return facts


def contradictions(facts: Iterable[Fact]) -> Iterator[tuple[Fact, Fact]]:
    """Yield each fact that gives a prompt another target than an earlier fact, after that one."""
    seen: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        earlier = seen.setdefault((fact.form, same_prompt(fact.prompt)), fact)
        if earlier.prompt == fact.prompt:
            differ = earlier.target != fact.target
        else:
            differ = same_prompt(earlier.target) != same_prompt(fact.target)
        if differ:
            yield earlier, fact


def same_prompt(prompt: str) -> str:
    """Return what is equal for prompts that differ only in case and in spaces, also before "?"."""
    return re.sub(r" (?=[?\uff1f\u061f]$)", "", " ".join(prompt.split()).casefold())


def same_answer_already(fact: Fact) -> str:
    """Return why no answer can show that ``fact`` was taught; empty if one can.

    That is so where the matcher takes the old answer for the target or one of its aliases: "mezzo
    soprano" for "mezzo-soprano". The unedited model would be right before the edit.
    """
    if fact.original is None or not contains(fact.original, fact.answers):
        return ""
    accepted = next(answer for answer in fact.answers if contains(fact.original, [answer]))
    return f"the old answer {fact.original!r} already counts as the new answer {accepted!r}."


def form_of(prompt: str) -> str:
    """Return ``question`` for a prompt that ends with a question mark, else ``cloze``.

    The mark may be that of any script. Languages that write questions without a mark,
    such as Thai, need the form to be given.
    """
    return "question" if is_question(prompt) else "cloze"


def _is_blank(text: str) -> bool:
    """Return whether ``text`` has nothing but white space and characters that are not seen."""
    return not plain(text).strip()


def _are_texts(values: object) -> bool:
    """Return whether ``values`` is a collection of strings and not itself a string."""
    return (
        not isinstance(values, str | Mapping)
        and isinstance(values, Iterable)
        and all(isinstance(value, str) for value in values)
    )


def _clean(text: str, what: str, error: type[DataError]) -> str:
    """Return ``text`` without surrounding white space; raise ``error`` if it cannot be encoded.

    JSON can spell a lone surrogate, which neither a tokenizer nor a UTF-8 file can hold.
    """
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise error(
            f"{what} contains half a character ({text[cause.start]!r}). Write the whole character."
        ) from cause
    return text.strip()


def digest(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of ``value`` as 64 hex digits.

    It is the same in every process and on every machine, unlike Python's ``hash``.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # surrogatepass: a value that holds a lone surrogate still gets a digest, not an error.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
