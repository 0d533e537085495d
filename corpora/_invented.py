"""Invented names, and the base class of corpora that are written in code: no file, no download."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from editbench.errors import DataError
from editbench.plugin import Corpus
from editbench.types import Case

# Stems and endings. Every combination is one name.
PLACES = (
    "Tolver Quenn Velm Norv Elwin Brask Dunmor Ostr Kelb Myrr Sarn Tholl Wexim Yarr Zell Fenr "
    "Galdr Hask Ildr Corv Lund Pell",
    "ane eth ova umby oria esk alden ister",
)
SURNAMES = (
    "Mar Holl Brand Kest Lind Orv Pell Rusk Stav Tamm Ulf Vint Wend Yost Zorn Dray Eck Fald Grim "
    "Hebb Jand Nist",
    "ebur idal omer ander essen arvo",
)
GIVEN = (
    "Ann Ivo Dana Pavel Mira Otto Lena Hugo Petra Karl Nadia Emil Rosa Felix Irene Marek Olga "
    "Simon Vera Jonas Clara Bruno "
    "Edith Anton Hilda Oscar Tilda Viktor Agnes Ruben Selma"
)


class Invented(Corpus):
    """A corpus that is written in code. Every process and machine gets the same cases."""

    license = "Apache-2.0"
    name: ClassVar[str]

    def load(self, data: str | Path | None = None) -> list[Case]:
        if data is not None:
            raise DataError(
                f"Corpus {self.name!r} is built in and takes no --data (got {str(data)!r}). "
                "Leave it out."
            )
        return self.cases()

    @abstractmethod
    def cases(self) -> list[Case]: ...


def places(rng: random.Random) -> Iterator[str]:
    """Yield invented names for towns, ships and firms ("Tolverane"), each only once."""
    return iter(_compose(PLACES, rng))


def people(rng: random.Random) -> Iterator[str]:
    """Yield invented full names ("Ann Marebur"), each surname only once."""
    given = GIVEN.split()
    return iter(
        [f"{given[i % len(given)]} {surname}" for i, surname in enumerate(_compose(SURNAMES, rng))]
    )


def accepted(text: str) -> tuple[str, ...]:
    """Return the wordings of a value, the canonical one first. Tables separate them: "eight/8"."""
    return tuple(text.split("/"))


def _compose(parts: tuple[str, str], rng: random.Random) -> list[str]:
    stems, endings = (part.split() for part in parts)
    names = [stem + ending for stem in stems for ending in endings]
    rng.shuffle(names)
    return names
