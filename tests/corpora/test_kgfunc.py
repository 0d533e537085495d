"""The digit functions against MixSD's code, and what the corpus promises of slices and probes."""

import os
import random
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from math import prod

import pytest

from editbench.corpora.kgfunc import (
    CHAIN_ROOM,
    DEV,
    DIRECT_ROOM,
    MAX_EXAMPLES,
    SHOTS,
    STEPS_ROOM,
    TEST,
    KGFunc,
)
from editbench.corpora.kgfunc_operations import EASY, NOVEL, digits, evaluate, steps
from editbench.errors import DataError
from editbench.matching import contains
from editbench.slices import slice_cases
from editbench.types import Case, check_facts

INPUTS = (0, 7, 305, 2679, 87960, 90210)
VECTORS = {  # read off MixSD's own functions
    "A": (0, 49, 40, 216, 270, 108),
    "B": (0, 0, 34, 90, 230, 86),
    "C": (0, 49, 34, 64, 60, 84),
    "D": (0, 49, 34, 68, 72, 14),
    "E": (0, 49, 30, 120, 165, 4),
    "F": (0, 7, 11, 24, 43, 45),
    "G": (0, 28, 21, 97, 130, 49),
    "H": (0, 7, 53, 2679, 8796, 2109),
    "I": (0, 7, 128, 6942, 2082, 18),
    "J": (0, 0, 38, 104, 250, 286),
    "K": (0, 0, 5, 411, 264, 12),
    "b": (1, 7, 15, 756, 3024, 18),
    "i": (0, 7, 503, 9762, 6978, 1209),
    "k": (1, 0, 1, 2, 3, 3),
    "n": (0, 7, 8, 6, 3, 3),
    "p": (0, 7, 35, 2679, 6789, 129),
    "q": (0, 7, 530, 9762, 98760, 92100),
    "j": (0, 14, 8, 11, 8, 9),
}
BY_HAND = {
    "a": (0, 7, 8, 24, 30, 12),
    "c": (1, 1, 3, 4, 5, 5),
    "d": (0, 7, 5, 9, 9, 9),
    "e": (0, 7, 0, 2, 0, 0),
    "f": (0, 7, 3, 2, 8, 9),
    "g": (0, 7, 5, 9, 0, 0),
    "h": (0, 0, 5, 7, 9, 9),
    "l": (0, 1, 2, 2, 2, 2),
    "m": (1, 1, 3, 4, 5, 4),
    "o": (0, 49, 34, 170, 230, 86),
    "r": (1, 0, 1, 0, 1, 2),
    "s": (0, 14, 16, 48, 60, 24),
    "t": (0, 49, 15, 18, 0, 0),
}
FORMULAS = {  # a second transcription of the definitions; x is the number, d its digits
    "A": lambda x, d: sum(d) * max(d),
    "B": lambda x, d: sum((v - min(d)) ** 2 for v in d),
    "C": lambda x, d: abs(sum((-1) ** i * v**2 for i, v in enumerate(d))),
    "D": lambda x, d: sum(v ** (2 if v in {2, 3, 5, 7} else 1) for v in d),
    "E": lambda x, d: sum(d[i] * d[-1 - i] for i in range(len(d))),
    "F": lambda x, d: sum(max(d[:i]) for i in range(1, len(d) + 1)),
    "G": lambda x, d: sum(sum(range(v + 1)) for v in d),
    "H": lambda x, d: min(int(str(x)[i:] + str(x)[:i]) for i in range(len(d))),
    "I": lambda x, d: sum(v ** (i + 1) for i, v in enumerate(d)),
    "J": lambda x, d: sum((v - w) ** 2 for i, v in enumerate(d) for w in d[:i]),
    "K": lambda x, d: x % prod(v for v in d if v),
}
QUESTION = re.compile(r"What is the output of (\S+?)\((?:(\w)\((\d+)\) ([+-]) (\d+)|(\d+))\)\? ")
PARTS = (TEST, DEV)


@pytest.fixture(scope="module")
def cases():
    return KGFunc().load()


@cache
def slices():
    return {group: [c for c in KGFunc().load() if c.group == group] for group, _, _ in PARTS}


def probes_of(cases, axis):
    return [probe for case in cases for probe in case.probes if probe.axis == axis]


def asked(prompt):
    """The functions that the question of ``prompt`` applies, inner first, each with its input."""
    outer, inner, number, sign, offset, plain = QUESTION.search(prompt).groups()
    if plain:
        return [(outer, int(plain))]
    return [(inner, int(number)), (outer, evaluate(inner, int(number)) + int(sign + offset))]


# Functions


def test_every_function_has_a_vector():
    assert [*NOVEL] == list("ABCDEFGHIJK") and [*EASY] == list("abcdefghijklmnopqrst")
    assert not set(VECTORS) & set(BY_HAND) and set(VECTORS) | set(BY_HAND) == set(NOVEL) | set(EASY)


@pytest.mark.parametrize("name, values", [*VECTORS.items(), *BY_HAND.items()])
def test_a_function_gives_the_values_of_its_vector(name, values):
    assert tuple(evaluate(name, number) for number in INPUTS) == values


@pytest.mark.parametrize("name", NOVEL)
def test_worked_steps_end_in_the_right_answer(name):
    rng = random.Random(name)
    for number in [*range(10), *(rng.randrange(10 ** rng.randint(1, 5)) for _ in range(500))]:
        value = FORMULAS[name](number, digits(number))
        assert evaluate(name, number) == value
        assert re.findall(r"-?\d+", steps(name, number))[-1] == str(value)


@pytest.mark.parametrize("name", NOVEL)
def test_every_equation_in_the_steps_holds(name):
    rng, n_equations = random.Random(name), 0
    for _ in range(100):
        for line in steps(name, rng.randrange(10_000, 100_000)).split("\n"):
            sides = line.partition(": ")[2].rstrip(".").split(" = ")
            if len(sides) > 1:
                assert len({eval(side.replace("^", "**")) for side in sides}) == 1, line
                n_equations += 1
    assert n_equations >= 100 or name == "H"


# Facts


def test_the_slices_are_those_of_their_groups(cases):
    for (group, functions, count), part in zip(PARTS, ("test", "dev"), strict=True):
        chosen = slice_cases(cases, part, None, 0)
        assert len(chosen) == count and chosen == slices()[group]
        assert [case.fact.relation for case in chosen] == [
            functions[i % len(functions)] for i in range(count)
        ]
    assert (
        set(TEST[1]) == set("BCDEFGH")
        and not set(TEST[1]) & set(DEV[1])
        and set(TEST[1] + DEV[1]) == set(NOVEL)
    )


def test_a_fact_is_a_worked_example(cases):
    facts = check_facts(case.fact for case in cases)
    for fact in facts:
        ((name, number),) = asked(fact.prompt)
        assert (
            fact.relation == name
            and fact.subject == f"{name}({number})"
            and fact.prompt.count(fact.subject) == 1
        )
        assert fact.target == f"The answer is {evaluate(name, number)}" and fact.form == KGFunc.form
        for shot in SHOTS:
            assert f"Input: {shot}\nOutput: {evaluate(name, shot)}\n" in fact.prompt
        worked, _, last = fact.demonstration.rpartition("\n")
        assert last == f"{fact.target}." and not contains(worked, fact.answers)
        assert contains(fact.demonstration, [fact.target]) and not contains(
            fact.prompt, fact.answers
        )


def test_a_large_answer_may_have_a_separator(cases):
    for case in cases:
        number = int(case.fact.target.rpartition(" ")[2])
        assert case.fact.aliases == ((f"The answer is {number:,}",) if number > 999 else ())


def test_inputs_are_new_and_of_all_lengths(cases):
    for group, functions, _ in PARTS:
        chosen = slices()[group]
        probed = {
            number for case in chosen for p in case.probes[1:] for _, number in asked(p.prompt)
        }
        inputs = [asked(case.fact.prompt)[0] for case in chosen]
        assert not {number for _, number in inputs} & (probed | set(SHOTS)) and not probed & set(
            SHOTS
        )
        assert {name for name, _ in inputs} == set(functions) and len(set(inputs)) == len(inputs)
        lengths = Counter(len(str(number)) for _, number in inputs)
        assert sorted(lengths) == [1, 2, 3, 4, 5] and lengths[4] + lengths[5] > 0.7 * len(inputs)


def test_the_room_is_enough_for_every_worked_answer(cases):
    def tokens(text):  # where each digit is a token, as for Qwen; a word is taken as one
        return len(
            re.findall(r"[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s+", text)
        )

    longest = max(tokens(case.fact.demonstration) for case in cases)
    assert longest <= 110 and longest * 1.4 < STEPS_ROOM == cases[0].probes[0].max_new_tokens
    assert 2 * longest * 1.4 < CHAIN_ROOM and 2 * tokens("The answer is 98,765.") <= DIRECT_ROOM


# Probes


@pytest.mark.parametrize("group, functions, count", PARTS)
def test_the_probes_stand_in_the_first_cases_and_do_not_grow(group, functions, count):
    chosen = slices()[group]
    axes = Counter(probe.axis for case in chosen[:50] for probe in case.probes[1:])
    assert axes == {"paraphrase": 4 * len(functions), "portability": 14, "in_context": 20}
    assert all(len(case.probes) == 1 for case in chosen[50:])
    assert all(max(Counter(p.axis for p in case.probes).values()) == 1 for case in chosen)
    for case in chosen:
        for probe in case.probes[1:]:
            own = probe.axis == "in_context" or asked(probe.prompt)[-1][0] == case.fact.relation
            assert own and not probe.needs and probe.form == "question"
    assert Counter(asked(p.prompt)[0][0] for p in probes_of(chosen, "paraphrase")) == dict.fromkeys(
        functions, 4
    )


@pytest.mark.parametrize("group, functions, count", PARTS)
def test_every_probe_has_the_answer_of_its_functions(group, functions, count):
    for axis, room in (
        ("paraphrase", STEPS_ROOM),
        ("portability", CHAIN_ROOM),
        ("in_context", DIRECT_ROOM),
    ):
        for probe in probes_of(slices()[group], axis):
            name, number = asked(probe.prompt)[-1]
            assert contains(f"... The answer is {evaluate(name, number)}.", probe.answers)
            assert contains(f"The answer is {evaluate(name, number):,}", probe.answers)
            assert re.fullmatch(r"The answer is \d+", probe.distractor) and not contains(
                probe.distractor, probe.answers
            )
            assert probe.max_new_tokens == room


@pytest.mark.parametrize("group, functions, count", PARTS)
def test_chains_use_two_taught_functions_and_show_both(group, functions, count):
    pairs = []
    for probe in probes_of(slices()[group], "portability"):
        (inner, _), (outer, middle) = asked(probe.prompt)
        pairs.append((outer, inner))
        assert 0 <= middle < 100_000
        shown = [
            (name, shot, evaluate(name, shot)) for name in sorted({outer, inner}) for shot in SHOTS
        ]
        found = re.findall(r"Input: (\d+)\nOutput: (\d+)", probe.prompt)
        assert [(shot, value) for _, shot, value in shown] == [(int(x), int(y)) for x, y in found]
        assert re.findall(r"Examples of (\w):", probe.prompt) == sorted({outer, inner})
    assert len(set(pairs)) == len(pairs) and {name for pair in pairs for name in pair} == set(
        functions
    )
    assert {pair for pair in pairs if pair[0] == pair[1]} == {(name, name) for name in functions}


@pytest.mark.parametrize("group, functions, count", PARTS)
def test_easy_functions_are_asked_once_each_without_a_zero(group, functions, count):
    found = [asked(probe.prompt)[0] for probe in probes_of(slices()[group], "in_context")]
    assert [name for name, _ in found] == [*EASY]
    assert not any("0" in str(number) for number in (*SHOTS, *(number for _, number in found)))


def test_the_parts_ask_different_questions():
    test, dev = (
        {p.prompt for case in slices()[group] for p in case.probes} for group, _, _ in PARTS
    )
    assert not test & dev


# Loading


def test_fewer_examples_are_a_prefix_and_keep_all_probes():
    full, small = slices()[TEST[0]], [case for case in KGFunc().load("28") if case.group == TEST[0]]
    assert small == full[:28]
    assert sum(len(case.probes) - 1 for case in small) == sum(len(case.probes) - 1 for case in full)
    more = KGFunc().load(2000)
    assert more[:1600] == full and len(more) == 2400


@pytest.mark.parametrize(
    "data", ["many", "", "27", "-100", "1e3", "43751", "9" * 5000, "²", "functions.jsonl"]
)
def test_a_bad_number_is_an_error(data):
    with pytest.raises(
        DataError,
        match=rf"whole number from 28 to {MAX_EXAMPLES}, not '.*'\. Pass such a number, or leave",
    ):
        KGFunc().load(data)


def test_the_largest_number_can_be_drawn():
    cases = KGFunc().load(str(MAX_EXAMPLES))
    assert len({case.fact.id for case in cases}) == MAX_EXAMPLES + DEV[2]


def test_a_case_survives_its_json_form(cases):
    for case in cases[:50]:
        again = Case.from_dict(case.to_dict())
        assert (
            again == case
            and again.group == TEST[0]
            and again.probes[0].max_new_tokens == STEPS_ROOM
        )


def test_the_cases_do_not_depend_on_the_hash_seed():
    code = (
        "from editbench.corpora.kgfunc import KGFunc; from editbench.types import digest; "
        "print(digest([case.to_dict() for case in KGFunc().load()]))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "77")
    }
    assert len(digests) == 1
