"""Novel digit functions, after the KGFunc corpus of MixSD (arXiv 2605.16865).

Worked examples teach a rule. A fact is one worked example of an opaque function ("What is the
output of B(87960)?"). Its prompt shows ten input-output pairs, and its demonstration has the steps.
The corpus was written anew from the definitions: texts and inputs are our own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from editbench.corpora.kgfunc_operations import EASY, evaluate, steps
from editbench.errors import DataError
from editbench.plugin import Corpus
from editbench.types import Case, Fact, Probe

SHOTS = (328, 41, 45, 87397, 242, 1, 9935, 21395, 2, 2679)
"""The inputs shown in every prompt, as in MixSD. None has the digit 0, so the examples do not show
what a 0 does."""
LENGTH_WEIGHTS = (2, 6, 12, 40, 40)
"""Percentages of inputs with 1, 2, ... 5 digits."""

DEV = ("kgfunc operations A, I, J, K", "AIJK", 400)
TEST = ("kgfunc operations B-H", "BCDEFGH", 1600)
"""Group, functions and number of examples of a slice. The hash of the group decides which slice it
is in."""
MAX_EXAMPLES = 43_750
"""The number that MixSD generates. One-digit inputs are soon used up, five-digit inputs are not."""

PARAPHRASES = 4
"""Number of unseen inputs for each function."""
CHAINS = 14
"""Number of chains of two functions."""

STEPS_ROOM, CHAIN_ROOM, DIRECT_ROOM = 160, 320, 24
"""Most new tokens for a worked answer (which takes at most 110 if each digit is a token), for two
worked answers in a row, and for the final sentence alone."""


class KGFunc(Corpus):
    """Worked examples of novel functions. Dev and test teach different functions; test has B-H.

    The first cases of a slice carry its probes, each at most one per axis: a taught function on an
    unseen input (paraphrase), a chain of two taught functions (portability), and an easy function
    that is never taught (in_context).
    """

    summary = (
        "worked examples of novel digit functions; unseen inputs, chains of two, "
        "untaught easy functions"
    )
    license = "Apache-2.0"
    form = "question"
    name = "kgfunc"

    def load(self, data: str | Path | None = None) -> list[Case]:
        """Return the test slice, then the dev slice.

        Args:
            data: the number of test examples. A smaller number gives a prefix of a larger one.

        Raises:
            DataError: if ``data`` is not a number or is out of range.
        """
        group, functions, count = TEST
        if data is not None:
            count = _count(str(data), PARAPHRASES * len(functions))
        return _slice(group, functions, count) + _slice(*DEV)


def _count(text: str, least: int) -> int:
    if not (
        text.isascii() and text.isdigit() and len(text) < 9 and least <= int(text) <= MAX_EXAMPLES
    ):
        raise DataError(
            f"Corpus {KGFunc.name!r} is computed, so --data is its number of test examples: "
            f"a whole number from {least} to {MAX_EXAMPLES}, not {text!r}. "
            f"Pass such a number, or leave --data out for {TEST[2]}."
        )
    return int(text)


def _slice(group: str, functions: str, count: int) -> list[Case]:
    """Return ``count`` examples, with the functions in turn.

    No input of a probe is taught, and no input is taught twice.
    """
    held_out = set(SHOTS)
    # As a list, so that all inputs of probes are in ``held_out`` before the first fact is drawn.
    probes = list(_probes(group, functions, held_out))
    rng = random.Random(f"{group}: facts")
    taught = {name: set(held_out) for name in functions}
    cases = []
    for i in range(count):
        name = functions[i % len(functions)]
        fact = _fact(name, _draw(rng, taught[name]))
        cases.append(Case.build(fact, [p for place, p in probes if place == i], group, STEPS_ROOM))
    return cases


def _fact(name: str, number: int) -> Fact:
    target, *aliases = _answers(evaluate(name, number))
    return Fact(
        id=f"kgfunc-{name}-{number}",
        prompt=_worked_prompt(name, f"{name}({number})"),
        target=target,
        subject=f"{name}({number})",
        aliases=tuple(aliases),
        demonstration=f"{steps(name, number)}\n{target}.",
        relation=name,
        form="question",
    )


def _probes(group: str, functions: str, held_out: set[int]) -> Iterator[tuple[int, Probe]]:
    """Yield the probes of a slice with the indices of their cases, and hold out their inputs.

    The offset in a chain makes the input of the outer function uniform from 0 to 99,999, as in
    MixSD.
    """
    rng = random.Random(f"{group}: probes")
    n = len(functions)
    for i in range(PARAPHRASES * n):
        name, number = functions[i % n], _draw(rng, held_out)
        prompt = _worked_prompt(name, f"{name}({number})")
        yield i, _probe("paraphrase", prompt, evaluate(name, number), STEPS_ROOM)
    for i in range(CHAINS):
        # Each round of n shifts the inner function by one more, so it makes new pairs.
        outer, inner = functions[i % n], functions[(i + i // n) % n]
        number, middle = _draw(rng, held_out), _new(lambda: rng.randrange(100_000), held_out)
        offset = middle - evaluate(inner, number)
        expression = f"{outer}({inner}({number}) {'-' if offset < 0 else '+'} {abs(offset)})"
        prompt = _worked_prompt("".join(sorted({outer, inner})), expression)
        yield i, _probe("portability", prompt, evaluate(outer, middle), CHAIN_ROOM)
    for i, name in enumerate(EASY):
        number = _new(
            lambda: int("".join(rng.choices("123456789", k=rng.choice((4, 5))))), held_out
        )
        question = (
            f"What is the output of {name}({number})? Give no steps, write only: The answer is N."
        )
        yield (
            i,
            _probe(
                "in_context",
                f"{_examples(name)}\n\n{question}",
                evaluate(name, number),
                DIRECT_ROOM,
            ),
        )


def _probe(axis: str, prompt: str, value: int, room: int) -> Probe:
    """Return a probe whose distractor is ``value`` plus 1 if it is even, else minus 1.

    Args:
        room: the most new tokens of the answer.
    """
    return Probe(
        axis, prompt, _answers(value), f"The answer is {value ^ 1}", "question", max_new_tokens=room
    )


def _answers(value: int) -> tuple[str, ...]:
    """Return the final sentence, with and without a thousands separator.

    A bare number would also match an intermediate result in the steps.
    """
    return tuple(dict.fromkeys(f"The answer is {number}" for number in (value, f"{value:,}")))


def _worked_prompt(names: str, expression: str) -> str:
    return (
        f"{_examples(names)}\n\nWhat is the output of {expression}? "
        "Work step by step and end with: The answer is N."
    )


@cache
def _examples(names: str) -> str:
    """Return the instruction and the shots of each function."""
    parts = [
        "A function turns a whole number into another one by a fixed rule. "
        "Infer the rule from the examples and apply it."
    ]
    for name in names:
        shots = "\n".join(f"Input: {number}\nOutput: {evaluate(name, number)}" for number in SHOTS)
        parts.append(f"Examples of {name}:\n{shots}")
    return "\n\n".join(parts)


def _draw(rng: random.Random, taken: set[int]) -> int:
    """Draw a number of 1-5 digits that is not in ``taken``, and add it there."""

    def number() -> int:
        # First the length: a uniform number would almost always have five digits.
        (length,) = rng.choices(range(1, 6), LENGTH_WEIGHTS)
        return rng.randrange(10 ** (length - 1) if length > 1 else 0, 10**length)

    return _new(number, taken)


def _new(draw: Callable[[], int], taken: set[int]) -> int:
    """Draw until a number is not in ``taken``, and add it there."""
    while (number := draw()) in taken:
        pass
    taken.add(number)
    return number
