"""Convert option values, given as text on a command line or as JSON, to the annotated types."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from numbers import Integral, Real
from types import UnionType
from typing import Literal, TypeVar, Union, cast, get_args, get_origin

from editbench.errors import OptionError

T = TypeVar("T")
TRUE = ("true", "1", "yes")
FALSE = ("false", "0", "no")
UNSET = ("none", "auto", "")
"""Texts that mean ``None`` where an option may be ``None``."""
MAX_COUNT = 1_000_000
"""The most steps, texts, repetitions and the like that an option may ask for. More of them would
not end within days, or not fit into memory."""
MAX_CELLS = 10_000
"""The most methods and variants in a run, or trials of a method."""
MAX_TOKENS = 1_000_000_000
"""The most tokens of text that statistics are measured on."""
MAX_FLOAT = 3.4e38
"""About the largest number of float32."""
MAX_SEED = 2**32 - 1
"""NumPy's generators take no larger seed."""


def parse_option(value: object, kind: type[T]) -> T:
    """Return ``value`` as the annotated type ``kind``, which may be a union.

    Texts are converted: ``1,2`` and ``3-5`` are tuples of whole numbers, ``none`` and ``auto`` are
    ``None`` where the option may be ``None``. Other values keep their type, with these exceptions:
    a JSON list becomes a tuple, so does a single whole number where a tuple is expected, a number
    of NumPy's becomes one of Python's, and a whole float, True and False become integers where an
    integer is expected.

    Raises:
        ValueError: if the value does not fit that type.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if isinstance(value, str):
        return cast(T, _from_text(value, kinds))
    return cast(T, _fitted(value, kinds))


def _from_text(value: str, kinds: Sequence[object]) -> object:
    text = value.strip()
    # Literals first: a word such as "adaptive" is neither a number nor a spelling of None.
    for kind in kinds:
        if get_origin(kind) is Literal and text.lower() in get_args(kind):
            return text.lower()
    if type(None) in kinds and text.lower() in UNSET:
        return None
    for kind in kinds:
        if kind is bool:
            return _boolean(value)
        if kind is int or kind is float:
            return _number(text, kind is int)
        if get_origin(kind) is tuple:
            return _items(text, get_args(kind)[0])
    return value


def _boolean(value: str) -> bool:
    text = value.strip().lower()
    if text not in TRUE + FALSE:
        raise ValueError(f"{value!r} is neither true nor false")
    return text in TRUE


def _items(text: str, kind: object) -> tuple[object, ...]:
    """Return the items of ``1,2`` or of the range ``3-5``, which includes both ends."""
    if kind is int and (span := re.fullmatch(r"(\d+)\s*-\s*(\d+)", text)):
        first, last = (int(_number(end, True)) for end in span.groups())
        if last - first >= MAX_COUNT:
            raise ValueError(f"{shortened(text)} names more than {MAX_COUNT:,} numbers")
        return tuple(range(first, last + 1))
    parts = text.split(",")
    if kind is int or kind is float:
        return tuple(_number(part, kind is int) for part in parts)
    return tuple(part.strip() for part in parts)


def _fitted(value: object, kinds: Sequence[object]) -> object:
    if isinstance(value, list):
        value = tuple(value)
    if not isinstance(value, int | float) and isinstance(value, Real):  # one of NumPy's
        value = int(value) if isinstance(value, Integral) else float(value)
    several = any(get_origin(kind) is tuple for kind in kinds)
    # bool is a subclass of int, but True is not a layer number
    if several and int not in kinds and isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    # JSON may hold a whole number as 3.0.
    if isinstance(value, float) and int in kinds and float not in kinds:
        if not value.is_integer():
            raise ValueError(f"{value!r} is not a whole number")
        return int(value)
    if isinstance(value, bool) and bool not in kinds and (int in kinds or float in kinds):
        return int(value)
    # torch takes whole numbers up to 2**63 only.
    if isinstance(value, int) and float in kinds and int not in kinds and 2**53 < value < MAX_FLOAT:
        return float(value)
    if not any(_fits(value, kind) for kind in kinds):
        found = "None" if value is None else type(value).__name__
        raise ValueError(f"it is {found}, not {' or '.join(map(_name, kinds))}")
    return value


def _fits(value: object, kind: object) -> bool:
    """Return whether ``value`` is of ``kind``; a kind of which nothing is known fits all."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        items = (first, *others) if others and others != [...] else itertools.repeat(first)
        return isinstance(value, tuple) and all(map(_fits, value, items))
    # 0 and 1 pass for bool, and whole numbers for float.
    known = {int: int, bool: int, float: int | float, str: str, type(None): type(None)}
    expected = known.get(kind) if isinstance(kind, type) else None
    return expected is None or isinstance(value, expected)


def _name(kind: object) -> str:
    if kind is type(None):
        return "None"
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)


def _number(text: str, whole: bool) -> int | float:
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        what = "a whole number" if whole else "a number"
        raise ValueError(f"{shortened(text)!r} is not {what}") from None
    if not math.isfinite(number):
        raise ValueError(f"{shortened(text)!r} is not finite")
    return number


def check_size(value: object, kind: object, most: float) -> None:
    """Check that a value of an option of the annotated type ``kind`` is not too large.

    Args:
        most: the largest whole number where the option takes whole numbers only.

    Raises:
        ValueError: if a count is larger, or another number too large for float32.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for one in value if isinstance(value, tuple) else (value,):
        if not isinstance(one, int | float):
            continue
        if float in kinds and not abs(one) <= MAX_FLOAT:
            raise ValueError(f"it must be at most {MAX_FLOAT}")
        if float not in kinds and one > most:
            raise ValueError(f"it must be at most {most:,}")


def check_count(name: str, value: int, most: int = MAX_COUNT) -> None:
    """Check that a number of things is not so large that work on them would never end.

    Raises:
        OptionError: if it is above ``most``.
    """
    if value > most:
        raise OptionError(f"{name} is {shortened(value)}; it must be at most {most:,}.")


def shortened(value: object) -> str:
    """Return ``value`` as it stands in a message; what is long is cut."""
    # Python refuses to write numbers of thousands of digits.
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"a number of about {round(value.bit_length() * 0.30103)} digits"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:30]}..."


def check_seed(seed: object) -> None:
    """Check that all random generators accept ``seed``.

    Raises:
        OptionError: if it is not a whole number from 0 to 2**32 - 1.
    """
    if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        shown = shortened(seed if isinstance(seed, int) else repr(seed))
        raise OptionError(f"Seed {shown} is not a whole number from 0 to {MAX_SEED}.")
