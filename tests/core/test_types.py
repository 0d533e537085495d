"""Facts, probes, cases: what is refused, and how it is said."""

import dataclasses
import subprocess
import sys

import pytest

from editbench.errors import DataError, EditbenchError, FactError
from editbench.types import DERIVED_AXES, Case, Fact, Probe, check_facts, digest

FACT = Fact(
    "a",
    "The capital of Australia is",
    "Sydney",
    subject="Australia",
    original="Canberra",
    aliases=("Sydney City",),
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": ""}, "'prompt' is empty"),
        ({"prompt": None}, "'prompt' is empty"),
        ({"prompt": 3}, "'prompt' is empty"),
        ({"target": " \t"}, "'target' is empty"),
        ({"target": "\u200b\u00ad"}, "'target' is empty"),
        (
            {"subject": "Austria"},
            "subject 'Austria' is not in its prompt 'The capital of Australia is'",
        ),
        ({"subject": "australia"}, "letter for letter"),
        ({"subject": 3}, "'subject' must be text, not int"),
        ({"original": ["x"]}, "'original' must be text, not list"),
        ({"demonstration": 1.5}, "'demonstration' must be text, not float"),
        ({"relation": {}}, "'relation' must be text, not dict"),
        ({"aliases": "Sydney"}, "'aliases' must be a list of texts"),
        ({"aliases": (1,)}, "'aliases' must be a list of texts"),
        ({"aliases": 5}, "'aliases' must be a list of texts"),
        ({"form": "riddle"}, "form is 'riddle'; it must be one of cloze, question"),
        ({"target": "is"}, "the prompt already ends with the target 'is'"),
        ({"prompt": "Sydney", "subject": None}, "the prompt already ends with the target"),
        ({"original": "Sydney"}, "the target 'Sydney' is the answer already"),
        ({"original": " Sydney "}, "the target 'Sydney' is the answer already"),
        ({"prompt": "The \ud800 of Australia is"}, "'prompt' contains half a character"),
        ({"target": "\udfff"}, "'target' contains half a character"),
        ({"aliases": ("\ud800",)}, "'aliases' contains half a character"),
    ],
)
def test_a_bad_fact_is_refused_by_name_and_field(changes, said):
    with pytest.raises(FactError) as error:
        dataclasses.replace(FACT, **changes)
    assert said in str(error.value) and "'a'" in str(error.value)
    assert isinstance(error.value, DataError) and isinstance(error.value, EditbenchError)


def test_aliases_from_a_file_are_a_list_of_texts():
    for wrong in (5, {"a": 1}, "Sydney"):
        with pytest.raises(FactError, match="'aliases' must be a list of texts"):
            Fact.from_dict({**FACT.to_dict(), "aliases": wrong})


def test_near_misses_are_facts():
    assert (
        dataclasses.replace(FACT, original="sydney").original == "sydney"
    )  # capitals may be what is taught
    assert (
        dataclasses.replace(FACT, target="tralia is").target == "tralia is"
    )  # the end of a word is no ending
    assert dataclasses.replace(FACT, subject=" Australia ").subject == "Australia"
    assert dataclasses.replace(FACT, subject="", original="  ").subject is None
    assert dataclasses.replace(FACT, aliases=(" x ", " ")).answers == ("Sydney", "x")


def test_a_fact_is_stripped_frozen_and_stated():
    fact = Fact("a", " Where is it? ", " Here. ", form="question")
    assert (fact.prompt, fact.target) == ("Where is it?", "Here.")
    assert fact.statement == "Question: Where is it? Answer: Here."
    assert FACT.statement == "The capital of Australia is Sydney."
    assert Fact("a", "He said", "No!").statement == "He said No!"
    assert Fact("a", "日本の首都は", "東京").statement == "日本の首都は東京。"
    assert Fact("a", "The capital of Japan is", "東京").statement == "The capital of Japan is 東京."
    assert Fact("a", 'He said "', "No").statement == 'He said "No.'
    with pytest.raises(dataclasses.FrozenInstanceError):
        FACT.target = "Perth"


def test_a_fact_round_trips_and_names_itself():
    assert Fact.from_dict(FACT.to_dict()) == FACT
    assert "demonstration" not in FACT.to_dict()
    one = Fact.from_dict({"prompt": "a is", "target": "b"})
    assert one == Fact.from_dict({"prompt": "a is", "target": "b"}) and one.id.startswith("fact-")
    assert one.id != Fact.from_dict({"prompt": "a is", "target": "c"}).id
    assert Fact.from_dict({"id": 7, "prompt": "a is", "target": "b"}).id == "7"
    assert (
        one.form == "cloze"
        and Fact.from_dict({"prompt": "Who? ", "target": "b"}).form == "question"
    )
    assert Fact.from_dict({"prompt": "Who?", "target": "b", "form": "cloze"}).form == "cloze"
    assert Fact.from_dict({"prompt": "首都是哪里？", "target": "b"}).form == "question"
    for record, said in (
        ({"prompt": "a", "target": "b", "zz": 1}, "Unknown field 'zz'"),
        ({"prompt": "a"}, "'target' is empty"),
        ({}, "'prompt' is empty"),
        ({"prompt": "a", "target": "b", "aliases": "c"}, "list of texts"),
    ):
        with pytest.raises(FactError, match=said):
            Fact.from_dict(record)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axis": "rewrites"}, "axis 'rewrites' is not one of rewrite, paraphrase"),
        ({"form": "riddle"}, "form 'riddle' is not one of"),
        ({"prompt": " "}, "prompt is empty"),
        ({"prompt": None}, "prompt must be text, not NoneType"),
        ({"prompt": 3}, "prompt must be text, not int"),
        ({"answers": ()}, "The paraphrase probe 'It is' has no expected answer"),
        ({"answers": (" ",)}, "has no expected answer"),
        ({"answers": ("\ufeff",)}, "has no expected answer"),
        ({"answers": "Sydney"}, "answers must be a list of texts"),
        ({"answers": (3,)}, "answers must be a list of texts"),
        ({"answers": (None,)}, "answers must be a list of texts"),
        ({"answers": None}, "answers must be a list of texts"),
        ({"references": "a text"}, "references must be a list of texts"),
        ({"distractor": 3}, "distractor must be text, not int"),
        ({"prompt": "\ud800"}, "prompt contains half a character"),
        ({"answers": ("\ud800",)}, "answer contains half a character"),
        ({"distractor": "\ud800"}, "distractor contains half a character"),
    ],
)
def test_a_bad_probe_is_refused(changes, said):
    good = {"axis": "paraphrase", "prompt": "It is", "answers": ("so",)}
    with pytest.raises(DataError) as error:
        Probe(**{**good, **changes})
    assert said in str(error.value)


def test_a_case_begins_with_its_rewrite_and_round_trips():
    case = Case.build(
        FACT,
        [
            Probe("neighborhood", " By ", (" x ", ""), distractor=" y "),
            Probe("paraphrase", "Par", ["z"]),
        ],
    )
    rewrite = case.probes[0]
    assert rewrite == Probe("rewrite", FACT.prompt, ("Sydney", "Sydney City"), "Canberra")
    assert case.probes[1] == Probe("neighborhood", "By", ("x",), "y")
    assert Case.from_dict(case.to_dict()) == case and len(case.to_dict()["probes"]) == 2


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        (
            {"axis": "paraphrase", "prompt": "p", "answers": "Sydney"},
            "answers must be a list of texts",
        ),
        ({"axis": "paraphrase", "prompt": "p", "answers": [1]}, "answers must be a list of texts"),
        ({"axis": "paraphrase", "prompt": 1, "answers": ["a"]}, "prompt must be text"),
        ({"axis": "paraphrase", "prompt": "p", "answers": None}, "malformed"),
        ({"axis": "paraphrase", "prompt": "p"}, "malformed"),
        ({"axis": "paraphrase", "answers": ["a"]}, "malformed"),
        ({"axis": "paraphrase", "prompt": "p", "answers": ["a"], "zz": 1}, "malformed"),
        ("text", "malformed"),
    ],
)
def test_a_case_with_a_bad_probe_is_a_data_error(probe, said):
    with pytest.raises(DataError, match=said):
        Case.from_dict({"id": "a", "prompt": "a is", "target": "b", "probes": [probe]})


@pytest.mark.parametrize("axis", DERIVED_AXES)
def test_a_corpus_cannot_bring_what_the_evaluation_makes(axis):
    with pytest.raises(
        DataError, match=f"Fact '{FACT.id}' has a probe of axis '{axis}'.* by itself"
    ):
        Case.build(FACT, [Probe(axis, "It is", ("so",))])


def test_references_of_a_probe_round_trip():
    case = Case.build(
        FACT, [Probe("fluency", "Sydney lies", ("Sydney",), references=["One text.", "Another."])]
    )
    assert (
        case.probes[1].references == ("One text.", "Another.")
        and Case.from_dict(case.to_dict()) == case
    )


def test_facts_that_cannot_be_taught_together():
    one, two = Fact("one", "a is", "b"), Fact("two", "a is", "c")
    assert check_facts(iter([one])) == [one] and check_facts([]) == []
    with pytest.raises(FactError, match="'one' is used twice"):
        check_facts([one, Fact("one", "x is", "y")])
    with pytest.raises(FactError, match="'one' and 'three' are the same: 'a is' -> 'b'"):
        check_facts([one, Fact("three", "a is", "b")], allow_conflicts=True)
    with pytest.raises(
        FactError,
        match="'one' and 'two' contradict each other: 'a is' -> 'b' and -> 'c'.*--allow-conflicts",
    ):
        check_facts([one, two])
    assert check_facts([one, two], allow_conflicts=True) == [one, two]
    asked = Fact("asked", "a is", "c", form="question")
    assert check_facts([one, asked]) == [one, asked]
    # Only case and spaces differ.
    with pytest.raises(FactError, match="'one' and 'two' .*: 'a is' -> 'b' and 'A  is' -> 'c'"):
        check_facts([one, Fact("two", "A  is", "c")])
    same = [one, Fact("two", "A  is", "B")]
    assert check_facts(same) == same


def test_a_digest_is_the_same_in_another_process_and_takes_any_text():
    value = {"b": [1, 2.5, None], "a": "é\u2028日"}
    code = (
        "from editbench.types import digest; "
        "print(digest({'a': 'é\\u2028日', 'b': [1, 2.5, None]}))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert digest(value) == there and len(there) == 64
    assert digest("\ud800") != digest("?")
