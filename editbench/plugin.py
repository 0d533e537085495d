"""The plug-in contracts on one page: what a method, a corpus and an evaluator are.

A plug-in is a class named in an entry-point group: ``editbench.methods``, ``editbench.corpora`` or
``editbench.evaluators``. A user's
whole method is one file: a frozen dataclass derived from ``Method`` whose fields are its options.
"""

from __future__ import annotations

import difflib
import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from editbench.errors import DataError, MethodError, OptionError
from editbench.report import Figure
from editbench.types import Case, Fact, digest

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel


@dataclass(frozen=True)
class Uniform:
    """The values from ``low`` to ``high``; whole numbers where both are."""

    low: float
    high: float

    def __contains__(self, value: Any) -> bool:
        return value is not None and self.low <= value <= self.high


@dataclass(frozen=True)
class LogUniform(Uniform):
    """The same on a logarithmic scale; ``low`` is above 0."""


@dataclass(frozen=True)
class Choice:
    """One of ``values`` (numbers, texts, None), which have no order."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.values


Space = Mapping[str, Uniform | Choice]


KEYWORDS = {"lambda": "lam"}
"""Options that cannot be called by their own name in Python."""


@dataclass(frozen=True)
class Method(ABC):
    """Facts in, edit out.

    ``inject`` promises: weights, hooks, ``requires_grad``, train/eval mode and the global random state of
    ``model`` are left as found; the same seed gives the same edit; an empty list of facts gives an empty edit.
    """

    name: ClassVar[str] = ""
    """The name it is registered under."""
    kind: ClassVar[str] = "trainer"
    """``baseline``, ``trainer`` or ``weight editor``."""
    summary: ClassVar[str] = ""
    """One line for ``editbench list methods``."""
    paper: ClassVar[str] = ""
    version: ClassVar[int] = 1
    """Raised by a change of the algorithm that can move its numbers: stored cells are then computed anew."""
    engine_version: ClassVar[int] = 1
    """Version of the engine that the method shares with others; left out of a cell's key while it is 1."""
    needs_subject: ClassVar[bool] = False
    needs_covariance: ClassVar[bool] = False
    space: ClassVar[Space] = {}
    """The options that ``editbench tune`` searches, and the values it tries; empty where there is nothing to tune."""
    figures: ClassVar[Mapping[str, Figure]] = {}
    """What this method puts into an edit's report beside the fields of ``report.EditReport``, by name."""

    seed: int = 0
    """Seed of all random choices."""

    def __post_init__(self) -> None:
        """Refuses NaN and infinity; a method with checks of its own calls this first.

        Raises:
            ValueError: an option has such a value.
        """
        for key, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{key}={value} is not finite")

    def prepare(self, model: LanguageModel) -> None:  # noqa: B027 - most methods have nothing to prepare
        """Computes and caches what does not depend on the facts (covariance). ``inject`` works without it, too."""

    @abstractmethod
    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """The edit that makes ``facts`` true in ``model``; ``model`` itself stays as it was."""

    def edit(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        changes: dict[str, Any] | None = None,
        **rest: Any,
    ) -> Edit:
        """An ``Edit`` of ``facts`` that names this method, its options and the model."""
        from editbench.edit import Edit

        return Edit(
            self.name,
            self.options(),
            model.name,
            model.fingerprint(),
            tuple(facts),
            changes or {},
            **rest,
        )

    @classmethod
    def from_options(cls, name: str, options: dict[str, Any]) -> Method:
        """The method with ``options``, whose values may be texts from a command line.

        Raises:
            OptionError: an unknown option, or a value of the wrong type or range.
        """
        known = {f.name for f in fields(cls)}
        if len(named := {KEYWORDS.get(key, key): value for key, value in options.items()}) < len(
            options
        ):
            raise OptionError(f"Method {name!r}: lam and lambda are one option. Give it once.")
        options = named
        for key in options:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                meant = f" Did you mean {close[0]!r}?" if close else ""
                raise OptionError(
                    f"Method {name!r} has no option {key!r}.{meant} Its options: {', '.join(sorted(known))}."
                )
        hints = get_type_hints(cls)
        values = {}
        for key, value in options.items():
            try:
                values[key] = parse_option(value, hints[key])
            except (ValueError, TypeError) as error:
                raise OptionError(f"Bad option for {name}: {key}={value}: {error}.") from error
        check_seed(values.get("seed", 0))
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:
            raise OptionError(f"Bad option for {name}: {error}.") from error

    @classmethod
    def check_subjects(cls, name: str, facts: Iterable[Fact]) -> None:
        """Makes sure that each fact has the subject that this method, registered as ``name``, may need.

        Raises:
            MethodError: it needs one and a fact has none.
        """
        if not cls.needs_subject:
            return
        for fact in facts:
            if fact.subject is None:
                raise MethodError(
                    f"Fact {fact.id!r} has no subject, and {name} reads its key at the last subject token. "
                    'Add "subject", or use a method that needs none (sft, mixsd, opsd).'
                )

    def options(self) -> dict[str, Any]:
        """All options with their values, JSON-ready."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def sources(self) -> dict[str, str]:
        """The local files that the options name, as they stand there, with the SHA-256 of each: part of a cell's key."""
        return {}


def parse_option(value: Any, kind: Any) -> Any:
    """``value`` as the annotated type ``kind``; texts are converted, other values are passed on.

    Raises:
        ValueError: a text that is not of that type.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if not isinstance(value, str):
        return _typed(tuple(value) if isinstance(value, list) else value, kinds)
    text = value.strip()
    for one in kinds:
        if get_origin(one) is Literal and text.lower() in get_args(one):
            return text.lower()
    if type(None) in kinds and text.lower() in ("none", "auto", ""):
        return None
    for one in kinds:
        if one is bool:
            if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
                raise ValueError(f"{value!r} is neither true nor false")
            return text.lower() in ("true", "1", "yes")
        if one in (int, float):
            return _number(text, one)
        if get_origin(one) is tuple:
            inner = get_args(one)[0]
            if span := re.fullmatch(r"(\d+)\s*-\s*(\d+)", text) if inner is int else None:
                return tuple(range(int(span[1]), int(span[2]) + 1))
            return tuple(
                _number(part, inner) if inner in (int, float) else part.strip()
                for part in text.split(",")
            )
    return value


def _typed(value: Any, kinds: Sequence[Any]) -> Any:
    """A value that is no text; a number where several are wanted is one, and one that is whole an integer."""
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and tuple in map(get_origin, kinds)
        and int not in kinds
    ):
        return (value,)
    if isinstance(value, float) and int in kinds and float not in kinds:
        if not value.is_integer():
            raise ValueError(f"{value!r} is not a whole number")
        return int(value)
    return value


def _number(text: str, kind: type) -> Any:
    try:
        number = kind(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not {'a whole number' if kind is int else 'a number'}"
        ) from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not finite")
    return number


def check_seed(seed: Any) -> None:
    """Makes sure that every random generator takes ``seed``.

    Raises:
        OptionError: it is no whole number from 0 to 2**32 - 1, which is what NumPy takes.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise OptionError(f"Seed {seed!r} is not a whole number from 0 to {2**32 - 1}.")


class Corpus(ABC):
    """A named source of cases."""

    summary: ClassVar[str] = ""
    license: ClassVar[str] = ""
    form: ClassVar[str] = "cloze"
    needs_data: ClassVar[bool] = False
    """True where ``--data`` (a path, a hub id or a URL) must be given or the published file fetched."""
    url: ClassVar[str | None] = None
    sha256: ClassVar[str | None] = None

    skipped: Sequence[str] = ()
    """After ``load``: the records and probes that were left out, one reason each."""

    @abstractmethod
    def load(self, data: str | Path | None = None) -> list[Case]:
        """All cases, validated, in the order of the source.

        Raises:
            DataError: a missing or malformed file; names file, record and field.
        """


@dataclass(frozen=True)
class Score:
    """What an evaluator says of one case."""

    case: str
    """Id of the case's fact."""
    value: float
    """From 0 to 1; NaN where the case cannot be scored."""
    text: str = ""
    """What the score rests on, such as the model's answer; kept in the record."""


class Evaluator(ABC):
    """A column of the table: applied model in, one score a case out.

    It is asked once of the unedited model and once of each edited one, with the same cases, and sees
    neither the method nor the edit. The table shows the mean over cases with its 95 % interval. It is
    no part of the ranking score. It leaves the model as it found it, and the same model and cases give
    the same scores.

    A whole plug-in:

        class Brief(Evaluator):
            name, title, summary = "brief", "Brief ↑", "share of answers of at most three words"

            def score(self, model, cases):
                texts = [model.generate(case.fact.prompt, case.fact.form) for case in cases]
                return [
                    Score(case.fact.id, float(len(text.split()) <= 3), text)
                    for case, text in zip(cases, texts)
                ]
    """

    name: ClassVar[str] = ""
    """The name it is registered under, and that its protocol has in the record."""
    title: ClassVar[str] = ""
    """Heading of its column, with an arrow that says which way is better."""
    summary: ClassVar[str] = ""
    """One line for ``editbench list evaluators``."""
    version: ClassVar[int] = 1
    """Raised by a change that can move a score: stored cells are then computed anew."""

    @abstractmethod
    def score(self, model: LanguageModel, cases: Sequence[Case]) -> list[Score]:
        """One score for each of ``cases``, in their order, of the model as it is now."""


DEV_SHARE = 0.3


def slice_cases(cases: Sequence[Case], part: str, n: int | None, seed: int) -> list[Case]:
    """``n`` cases of the ``dev`` or ``test`` part, chosen by ``seed``; the parts never share a group, nor a
    subject of cases without one.

    A case's place is decided by the hash of its group, else its subject, else its id, so adding a case moves no other one;
    the order within a part depends on ``seed``, the parts do not. Groups stay together, in the corpus's order. Smaller
    ``n`` give prefixes of larger ones. Probes that need a fact which is not among the chosen ones are left out.

    Raises:
        DataError: ``n`` cases are asked of a part that is empty or smaller.
    """
    if part not in ("dev", "test"):
        raise DataError(f"Slice {part!r} is neither 'dev' nor 'test'.")

    def share(case: Case) -> float:
        return (
            int(digest(["split", case.group or case.fact.subject or case.fact.id])[:8], 16) / 16**8
        )

    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if (share(case) < DEV_SHARE) == (part == "dev"):
            groups.setdefault(
                ("group", case.group) if case.group else ("case", case.fact.id), []
            ).append(case)
    order = sorted(groups.values(), key=lambda group: group[0].fact.id)
    random.Random(seed).shuffle(order)
    chosen = [case for group in order for case in group]
    if n is not None and not chosen:
        other = "test" if part == "dev" else "dev"
        raise DataError(
            f"The {part} slice is empty: the {len(cases)} cases of the corpus are all in the {other} slice, or there are none. "
            f"Use the {other} slice, or a larger corpus."
        )
    if n is not None and n > len(chosen):
        raise DataError(
            f"-n {n} is more than the {len(chosen)} cases of the {part} slice ({len(cases)} in the corpus). Use a smaller -n."
        )
    chosen = chosen if n is None else chosen[:n]
    taught = {case.fact.id for case in chosen}
    return [askable(case, taught) for case in chosen]


def askable(case: Case, taught: set[str]) -> Case:
    """``case`` without the probes that need a fact whose id is not among ``taught``."""
    return replace(
        case, probes=tuple(probe for probe in case.probes if taught.issuperset(probe.needs))
    )
