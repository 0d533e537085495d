"""The nouns of knowledge editing: facts, probes, cases. Frozen, validated on construction, free of torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from editbench.errors import DataError, FactError

AXES = ("rewrite", "paraphrase", "neighborhood", "portability", "in_context", "fluency")
"""What a probe of a corpus can ask."""
DERIVED_AXES = ("distracted", "denial", "reversion")
"""What ``eval/`` makes of a case by itself, so that no corpus has to."""
METRICS = {
    "efficacy": "rewrite",
    "generalization": "paraphrase",
    "specificity": "neighborhood",
    "portability": "portability",
    "in_context": "in_context",
}
"""Metric -> the axis of the probes that it is the mean over."""
KEPT = ("neighborhood", "distracted")
"""Axes on which the base's own answer is the one to give."""
MORE_METRICS = {
    **{
        f"{name}_exact": (METRICS[name], "generation", "exact")
        for name in METRICS
        if METRICS[name] not in KEPT
    },
    **{
        f"{name}_tokens": (METRICS[name], "argmax", "token_accuracy")
        for name in METRICS
        if METRICS[name] not in KEPT
    },
    "specificity_tokens_rome": ("neighborhood", "argmax", "token_accuracy"),
    "specificity_tokens_easyedit": ("neighborhood", "argmax", "token_agreement"),
    "neighborhood_accuracy": ("neighborhood", "generation", "contains"),
    "target_leak": ("neighborhood", "generation", "target_leaked"),
    "distracted": ("distracted", "generation", "generation"),
    "distracted_accuracy": ("distracted", "generation", "contains"),
    "distracted_leak": ("distracted", "generation", "target_leaked"),
    "distracted_argmax": ("distracted", "argmax", "argmax"),
    "distracted_likelihood": ("distracted", "likelihood", "likelihood"),
    "denial": ("denial", "generation", "generation"),
    "reversion": ("reversion", "generation", "generation"),
    "fluency": ("fluency", "generation", "generation"),
    "consistency": ("fluency", "generation", "consistency"),
}
"""Metrics of one protocol: their axis, the protocol, and the column of the rows that each is the mean of."""
FORMS = ("cloze", "question")


@dataclass(frozen=True)
class Fact:
    """One thing to be made true, and all that a method may see of it.

    Raises:
        FactError: empty prompt or target, a subject that is not in the prompt, a target that the prompt
            already ends with or that is the original answer, an unknown form.
    """

    id: str
    prompt: str
    """A cloze to complete ("The capital of Australia is") or a question to answer; no trailing space."""
    target: str
    """What the edited model should say after the prompt; no leading space."""
    subject: str | None = None
    """A span of the prompt, verbatim. Optional: methods that need one say so."""
    original: str | None = None
    """The answer before the edit, where it is known."""
    aliases: tuple[str, ...] = ()
    """Other accepted wordings of the target."""
    demonstration: str | None = None
    """A longer worked answer for trainers and teachers; ``None`` means the target itself."""
    relation: str | None = None
    form: str = "cloze"
    """``cloze``: continued as raw text; ``question``: asked through the model's chat template."""

    def __post_init__(self) -> None:
        for field in ("prompt", "target"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value.strip():
                raise FactError(
                    f"Fact {self.id!r}: field {field!r} is empty. Every fact needs a prompt and a target."
                )
            object.__setattr__(
                self, field, _clean(value, f"Fact {self.id!r}: field {field!r}", FactError)
            )
        for field in ("subject", "original", "demonstration", "relation"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise FactError(
                    f"Fact {self.id!r}: field {field!r} must be text, not {type(value).__name__}."
                )
            object.__setattr__(
                self,
                field,
                _clean(value or "", f"Fact {self.id!r}: field {field!r}", FactError) or None,
            )
        if not _are_texts(self.aliases):
            raise FactError(f"Fact {self.id!r}: field 'aliases' must be a list of texts.")
        aliases = tuple(
            _clean(a, f"Fact {self.id!r}: field 'aliases'", FactError)
            for a in self.aliases
            if a.strip()
        )
        object.__setattr__(self, "aliases", aliases)
        if self.form not in FORMS:
            raise FactError(
                f"Fact {self.id!r}: form is {self.form!r}; it must be one of {', '.join(FORMS)}."
            )
        if self.subject and self.subject not in self.prompt:
            raise FactError(
                f"Fact {self.id!r}: subject {self.subject!r} is not in its prompt {self.prompt!r}. "
                "Copy it from the prompt letter for letter, or leave it out."
            )
        if self.prompt == self.target or self.prompt.endswith(" " + self.target):
            raise FactError(
                f"Fact {self.id!r}: the prompt already ends with the target {self.target!r}. "
                "End the prompt where the target should begin."
            )
        if self.target == self.original:
            raise FactError(
                f"Fact {self.id!r}: the target {self.target!r} is the answer already, its 'original'. "
                "Give the new answer as the target."
            )

    @property
    def answers(self) -> tuple[str, ...]:
        """The target and its aliases."""
        return (self.target, *self.aliases)

    @property
    def statement(self) -> str:
        """The fact as one declarative text: ``prompt target.`` or ``Question: ... Answer: ...``."""
        if self.form == "question":
            return f"Question: {self.prompt} Answer: {self.target}"
        return f"{self.prompt} {self.target}" + (
            "" if self.target.endswith((".", "!", "?")) else "."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; empty fields left out."""
        return {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in asdict(self).items()
            if v not in (None, ())
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Fact:
        """Inverse of ``to_dict``; without an ``id`` the fact is named by the hash of prompt and target, without a ``form`` it
        has that of its prompt.

        Raises:
            FactError: an unknown field, or any failure of validation.
        """
        record = dict(record)
        unknown = set(record) - {f.name for f in fields(cls)}
        if unknown:
            known = ", ".join(f.name for f in fields(cls))
            raise FactError(f"Unknown field {sorted(unknown)[0]!r} in a fact. Fields: {known}.")
        record.setdefault("prompt", "")
        record.setdefault("target", "")
        if isinstance(record["prompt"], str):
            record.setdefault("form", form_of(record["prompt"]))
        record.setdefault("id", "fact-" + digest([record["prompt"], record["target"]])[:8])
        record["id"] = str(record["id"])
        record["aliases"] = record.get("aliases") or ()
        if isinstance(record["aliases"], list):
            record["aliases"] = tuple(record["aliases"])
        return cls(**record)


@dataclass(frozen=True)
class Probe:
    """One question put to the edited model, with its expected answers and its axis."""

    axis: str
    """``rewrite``, ``paraphrase``, ``neighborhood`` (must not move), ``portability`` (what follows from the fact),
    ``in_context`` (a skill: everything needed stands in the prompt, and no fact of the corpus helps) or ``fluency``
    (the opening of a free text about the subject)."""
    prompt: str
    answers: tuple[str, ...]
    """Accepted answers; the first is the canonical one."""
    distractor: str | None = None
    """The answer that must be less probable than ``answers[0]`` under protocol ``likelihood``."""
    form: str = "cloze"
    needs: tuple[str, ...] = ()
    """Ids of the further facts that it takes to answer (a second hop); it is asked only where they are taught, too."""
    max_new_tokens: int | None = None
    """Room for the answer, where the protocol's own does not do."""
    kind: str | None = None
    """What the question takes within its axis, in the source's words ("Subject_Aliasing"); metrics are split by it."""
    references: tuple[str, ...] = ()
    """Real texts about the target, with which a free text is compared; only of ``fluency`` probes."""

    def __post_init__(self) -> None:
        if self.axis not in AXES + DERIVED_AXES:
            raise DataError(f"Probe axis {self.axis!r} is not one of {', '.join(AXES)}.")
        if self.form not in FORMS:
            raise DataError(f"Probe form {self.form!r} is not one of {', '.join(FORMS)}.")
        what = f"A {self.axis} probe's"
        for field in ("prompt", "distractor", "kind"):
            if not isinstance(value := getattr(self, field), str) and (
                value is not None or field == "prompt"
            ):
                raise DataError(f"{what} {field} must be text, not {type(value).__name__}.")
        if not _are_texts(self.answers):
            raise DataError(f"{what} answers must be a list of texts, got {self.answers!r}.")
        if not _are_texts(self.needs):
            raise DataError(f"{what} needs must be a list of fact ids, got {self.needs!r}.")
        if not _are_texts(self.references):
            raise DataError(f"{what} references must be a list of texts, got {self.references!r}.")
        object.__setattr__(self, "needs", tuple(self.needs))
        object.__setattr__(self, "references", tuple(self.references))
        if self.max_new_tokens is not None and (
            not isinstance(self.max_new_tokens, int) or self.max_new_tokens < 1
        ):
            raise DataError(
                f"{what} max_new_tokens must be a whole number of at least 1, got {self.max_new_tokens!r}."
            )
        answers = tuple(_clean(a, f"{what} answer", DataError) for a in self.answers if a.strip())
        if not self.prompt.strip():
            raise DataError(
                f"{what} prompt is empty. Give it the question, or leave the probe out."
            )
        if not answers:
            raise DataError(
                f"The {self.axis} probe {self.prompt!r} has no expected answer. Give it at least one in 'answers'."
            )
        object.__setattr__(self, "prompt", _clean(self.prompt, f"{what} prompt", DataError))
        object.__setattr__(self, "answers", answers)
        if self.distractor is not None:
            object.__setattr__(
                self, "distractor", _clean(self.distractor, f"{what} distractor", DataError) or None
            )


@dataclass(frozen=True)
class Case:
    """A fact with its probes. Only ``eval/`` sees the probes. The rewrite probe is always the first."""

    fact: Fact
    probes: tuple[Probe, ...]
    group: str | None = None
    """Cases of one group are never split between dev and test (the facts of a chain, of an invented world)."""

    @classmethod
    def build(
        cls,
        fact: Fact,
        probes: Iterable[Probe] = (),
        group: str | None = None,
        max_new_tokens: int | None = None,
    ) -> Case:
        """The case of ``fact``: its rewrite probe, derived from the fact, then ``probes``.

        Raises:
            DataError: a probe of an axis that the evaluation makes by itself.
        """
        rewrite = Probe(
            "rewrite",
            fact.prompt,
            fact.answers,
            fact.original,
            fact.form,
            max_new_tokens=max_new_tokens,
        )
        probes = tuple(probes)
        if own := next((probe.axis for probe in probes if probe.axis in DERIVED_AXES), None):
            raise DataError(
                f"Fact {fact.id!r} has a probe of axis {own!r}, which editbench makes of every fact by itself. Leave it out; "
                f"a corpus gives {', '.join(AXES)}."
            )
        return cls(fact, (rewrite, *probes), group)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, the rewrite probe left out (it follows from the fact)."""
        probes = [
            {
                k: list(v) if isinstance(v, tuple) else v
                for k, v in asdict(p).items()
                if v not in (None, ())
            }
            for p in self.probes[1:]
        ]
        room = (
            {"max_new_tokens": self.probes[0].max_new_tokens}
            if self.probes[0].max_new_tokens
            else {}
        )
        return {
            **self.fact.to_dict(),
            "probes": probes,
            **({"group": self.group} if self.group else {}),
            **room,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Case:
        """Inverse of ``to_dict``.

        Raises:
            DataError: a fact or a probe that does not validate.
        """
        record = dict(record)
        group, room = record.pop("group", None), record.pop("max_new_tokens", None)
        try:
            probes = [
                Probe(
                    **{
                        **p,
                        "answers": p["answers"]
                        if isinstance(p["answers"], str)
                        else tuple(p["answers"]),
                    }
                )
                for p in record.pop("probes", ())
            ]
        except (TypeError, KeyError) as error:
            raise DataError(
                f"A probe of fact {record.get('id')!r} is malformed: {error}."
            ) from error
        return cls.build(Fact.from_dict(record), probes, group, room)


def check_facts(facts: Iterable[Fact], allow_conflicts: bool = False) -> list[Fact]:
    """``facts`` as a list, after making sure that they can be taught together.

    Raises:
        FactError: an id used twice, a fact given twice, or one prompt with two targets (``allow_conflicts``
            lets the last kind pass).
    """
    facts = list(facts)
    ids: set[str] = set()
    seen: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        if fact.id in ids:
            raise FactError(f"Fact id {fact.id!r} is used twice. Ids must be unique.")
        ids.add(fact.id)
        earlier = seen.setdefault((fact.form, fact.prompt), fact)
        if earlier is fact:
            continue
        if earlier.target == fact.target:
            same = f"{fact.prompt!r} -> {fact.target!r}"
            raise FactError(
                f"Facts {earlier.id!r} and {fact.id!r} are the same: {same}. Remove one."
            )
        if not allow_conflicts:
            raise FactError(
                f"Facts {earlier.id!r} and {fact.id!r} contradict each other: {fact.prompt!r} -> {earlier.target!r} "
                f"and -> {fact.target!r}. Remove one, or pass --allow-conflicts."
            )
    return facts


def form_of(prompt: str) -> str:
    """``question`` for a prompt that ends with a question mark, else ``cloze``."""
    return "question" if prompt.rstrip().endswith("?") else "cloze"


def _are_texts(values: Any) -> bool:
    return (
        not isinstance(values, str | Mapping)
        and isinstance(values, Iterable)
        and all(isinstance(v, str) for v in values)
    )


def _clean(text: str, what: str, error: type[DataError]) -> str:
    """``text`` without the space around it; refused where no tokenizer and no file could take it."""
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise error(
            f"{what} holds half a character ({text[cause.start]!r}). Write the whole one."
        ) from cause
    return text.strip()


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``: the same in every process, on every machine."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
