"""The digit functions of ``kgfunc``.

Eleven are novel (A-K) and have worked steps. Twenty are easy (a-t). The definitions are those in
the code of MixSD (arXiv 2605.16865); the wording of the steps is our own. ``d`` is the list of the
digits of a whole number of at least 0, from left to right, without leading zeros. The number 0 has
the single digit 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod


def digits(number: int) -> list[int]:
    """Return the digits of ``number``, from left to right."""
    return [int(c) for c in str(number)]


def evaluate(name: str, number: int) -> int:
    """Apply the function ``name`` to ``number``."""
    d = digits(number)
    return NOVEL[name](d)[0] if name in NOVEL else EASY[name](d)


def steps(name: str, number: int) -> str:
    """Return the steps of a novel function, one per line, without the final sentence."""
    d = digits(number)
    return "\n".join([f"Digits: {_row(d)}.", *NOVEL[name](d)[1]])


def _row(terms: Sequence[int]) -> str:
    return " ".join(map(str, terms))


def _joined(terms: Sequence[int], value: int, sign: str = " + ") -> str:
    """Return ``64 + 49 = 113``, or ``49`` if there is only one term."""
    return f"{sign.join(map(str, terms))} = {value}" if len(terms) > 1 else str(value)


def _number(d: Sequence[int]) -> int:
    return int("".join(map(str, d)))


# The novel functions return their value and the steps that lead to it. Both come from the same
# numbers, so they cannot disagree.


def _a(d: list[int]) -> tuple[int, list[str]]:
    """Sum of the digits times the largest."""
    value = sum(d) * max(d)
    return value, [
        f"Sum: {_joined(d, sum(d))}.",
        f"Largest: {max(d)}.",
        f"Product: {sum(d)} * {max(d)} = {value}.",
    ]


def _b(d: list[int]) -> tuple[int, list[str]]:
    """Sum of the squared distances from the smallest digit."""
    distances = [x - min(d) for x in d]
    squares = [x * x for x in distances]
    lines = [
        f"Smallest: {min(d)}.",
        f"Distances from it: {_row(distances)}.",
        f"Squares: {_joined(squares, sum(squares))}.",
    ]
    return sum(squares), lines


def _c(d: list[int]) -> tuple[int, list[str]]:
    """Absolute value of the alternating sum of squares."""
    first, *rest = [x * x for x in d]
    total = first + sum(-x if i % 2 == 0 else x for i, x in enumerate(rest))
    signed = str(first) + "".join(f" {'+-'[i % 2 == 0]} {x}" for i, x in enumerate(rest))
    return abs(total), [
        f"Squares, signs in turn: {signed}{f' = {total}' if rest else ''}.",
        f"Absolute value: {abs(total)}.",
    ]


def _d(d: list[int]) -> tuple[int, list[str]]:
    """Sum of the digits, the prime ones squared."""
    terms = [x * x if x in (2, 3, 5, 7) else x for x in d]
    return sum(terms), [f"Primes squared, the others as they are: {_joined(terms, sum(terms))}."]


def _e(d: list[int]) -> tuple[int, list[str]]:
    """Sum of the products of each digit with the one as far from the other end."""
    terms = [x * y for x, y in zip(d, d[::-1], strict=True)]
    return sum(terms), [f"Reversed: {_row(d[::-1])}.", f"Products: {_joined(terms, sum(terms))}."]


def _f(d: list[int]) -> tuple[int, list[str]]:
    """Sum of the largest digits so far."""
    terms = [max(d[: i + 1]) for i in range(len(d))]
    return sum(terms), [f"Largest so far: {_joined(terms, sum(terms))}."]


def _g(d: list[int]) -> tuple[int, list[str]]:
    """Sum of the triangular numbers of the digits."""
    terms = [x * (x + 1) // 2 for x in d]
    return sum(terms), [f"x(x + 1)/2 of each: {_joined(terms, sum(terms))}."]


def _h(d: list[int]) -> tuple[int, list[str]]:
    """The smallest rotation, read as a number without leading zeros."""
    rotations = ["".join(map(str, d[i:] + d[:i])) for i in range(len(d))]
    value = min(map(int, rotations))
    return value, [f"Rotations: {' '.join(rotations)}.", f"Smallest: {value}."]


def _i(d: list[int]) -> tuple[int, list[str]]:
    """Sum of the digits, each to the power of its place, counted from 1."""
    terms = [x**place for place, x in enumerate(d, start=1)]
    powers = " + ".join(f"{x}^{place}" for place, x in enumerate(d, start=1))
    return sum(terms), [f"Powers by place: {powers} = {_joined(terms, sum(terms))}."]


def _j(d: list[int]) -> tuple[int, list[str]]:
    """Number of digits times the sum of squares, minus the square of the sum."""
    squares = [x * x for x in d]
    n, s, total = len(d), sum(d), sum(squares)
    value = n * total - s * s
    difference = f"Difference: {n} * {total} - {s} * {s} = {n * total} - {s * s} = {value}."
    return value, [f"Sum: {_joined(d, s)}.", f"Squares: {_joined(squares, total)}.", difference]


def _k(d: list[int]) -> tuple[int, list[str]]:
    """The number modulo the product of its nonzero digits (1 if it has none)."""
    factors = [x for x in d if x] or [1]
    product, number = prod(factors), _number(d)
    times, rest = divmod(number, product)
    lines = [f"Product without zeros: {_joined(factors, product, ' * ')}."]
    return rest, [*lines, f"Remainder of {number}: {number} - {times} * {product} = {rest}."]


NOVEL: dict[str, Callable[[list[int]], tuple[int, list[str]]]] = dict(
    zip("ABCDEFGHIJK", (_a, _b, _c, _d, _e, _f, _g, _h, _i, _j, _k), strict=True)
)

EASY: dict[str, Callable[[list[int]], int]] = {
    "a": sum,
    "b": lambda d: prod(x for x in d if x),
    "c": len,
    "d": max,
    "e": min,
    "f": lambda d: d[0],
    "g": lambda d: d[-1],
    "h": lambda d: max(d) - min(d),
    "i": lambda d: _number(d[::-1]),
    "j": lambda d: d[0] + d[-1],
    "k": lambda d: sum(x % 2 == 0 for x in d),
    "l": lambda d: sum(x % 2 for x in d),
    "m": lambda d: len(set(d)),
    "n": lambda d: 1 + (sum(d) - 1) % 9 if any(d) else 0,
    "o": lambda d: sum(x * x for x in d),
    "p": lambda d: _number(sorted(d)),
    "q": lambda d: _number(sorted(d, reverse=True)),
    "r": lambda d: d.count(0),
    "s": lambda d: 2 * sum(d),
    "t": lambda d: d[0] * d[-1],
}
"""Digit sum; product without zeros; count; largest; smallest; first; last; largest minus smallest;
reversed; first plus last; even digits (0 is one); odd digits; different digits; digital root; sum
of squares; sorted up; sorted down; zeros; twice the digit sum; first times last."""
