"""The plug-in contracts on one page: what a method and a corpus are.

A plug-in is a class named in an entry-point group, ``editbench.methods`` or ``editbench.corpora``. A user's
whole method is one file: a frozen dataclass derived from ``Method`` whose fields are its options.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from editbench.errors import DataError, OptionError, UnknownNameError
from editbench.types import Case, Fact, digest

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel


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
    needs_subject: ClassVar[bool] = False
    needs_covariance: ClassVar[bool] = False

    seed: int = 0
    """Seed of all random choices."""

    def prepare(self, model: LanguageModel) -> None:
        """Computes and caches what does not depend on the facts (covariance). ``inject`` works without it, too."""

    @abstractmethod
    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """The edit that makes ``facts`` true in ``model``; ``model`` itself stays as it was."""

    def edit(self, model: LanguageModel, facts: Sequence[Fact], changes: dict[str, Any] | None = None, **rest: Any) -> Edit:
        """An ``Edit`` of ``facts`` that names this method, its options and the model."""
        from editbench.edit import Edit

        return Edit(self.name, self.options(), model.name, model.fingerprint(), tuple(facts), changes or {}, **rest)

    @classmethod
    def from_options(cls, name: str, options: dict[str, Any]) -> Method:
        """The method with ``options``, whose values may be texts from a command line.

        Raises:
            OptionError: an unknown option, or a value of the wrong type or range.
        """
        known = {f.name for f in fields(cls)}
        for key in options:
            if key not in known:
                raise OptionError(str(UnknownNameError(f"option of {name}", key, known)))
        hints = get_type_hints(cls)
        try:
            return cls(**{key: parse_option(value, hints[key]) for key, value in options.items()})
        except (ValueError, TypeError) as error:
            raise OptionError(f"Bad option for {name}: {error}") from error

    def options(self) -> dict[str, Any]:
        """All options with their values, JSON-ready."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def parse_option(value: Any, kind: Any) -> Any:
    """``value`` as the annotated type ``kind``; texts are converted, other values are passed on.

    Raises:
        ValueError: a text that is not of that type.
    """
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    text = value.strip()
    kinds = getattr(kind, "__args__", None) if not hasattr(kind, "__origin__") else None
    kinds = kinds or (kind,)
    if type(None) in kinds and text.lower() in ("none", "auto", ""):
        return None
    for one in kinds:
        if one is bool:
            if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
                raise ValueError(f"{value!r} is neither true nor false")
            return text.lower() in ("true", "1", "yes")
        if one in (int, float):
            return one(text)
        if getattr(one, "__origin__", None) is tuple:
            inner = one.__args__[0]
            if "-" in text and inner is int and "," not in text:
                first, last = text.split("-")
                return tuple(range(int(first), int(last) + 1))
            return tuple(inner(part) for part in text.split(","))
    return value


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
    """After ``load``: the records that were left out, one reason each."""

    @abstractmethod
    def load(self, data: str | Path | None = None) -> list[Case]:
        """All cases, validated, in the order of the source.

        Raises:
            DataError: a missing or malformed file; names file, record and field.
        """


DEV_SHARE = 0.3


def slice_cases(cases: Sequence[Case], part: str, n: int | None, seed: int) -> list[Case]:
    """``n`` cases of the ``dev`` or ``test`` part, chosen by ``seed``; the parts never share a subject.

    A case's place is decided by the hash of its subject (else its id), so adding a case moves no other one; the
    order within a part depends on ``seed``, the parts do not. Smaller ``n`` give prefixes of larger ones.

    Raises:
        DataError: ``n`` is larger than the part.
    """
    if part not in ("dev", "test"):
        raise DataError(f"Slice {part!r} is neither 'dev' nor 'test'.")

    def share(case: Case) -> float:
        return int(digest(["split", case.fact.subject or case.fact.id])[:8], 16) / 16**8

    chosen = [c for c in cases if (share(c) < DEV_SHARE) == (part == "dev")]
    chosen.sort(key=lambda c: c.fact.id)
    random.Random(seed).shuffle(chosen)
    if n is not None and n > len(chosen):
        raise DataError(f"-n {n} is more than the {len(chosen)} cases of the {part} slice ({len(cases)} in the corpus). Use a smaller -n.")
    return chosen if n is None else chosen[:n]
