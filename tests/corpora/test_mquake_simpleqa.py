"""MQuAKE and SimpleQA against small files written here, and against the real sets if present."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from editbench.corpora.mquake import MQuAKE
from editbench.corpora.simpleqa import SimpleQA
from editbench.errors import DataError
from editbench.matching import contains
from editbench.slices import slice_cases
from editbench.types import check_facts

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
TEMPLATES = {
    "home": ("{} lives in the town of", "Where does {} live?"),
    "mayor": ("The mayor of {} is", "Who runs {}?"),
}
TEMPLATES["wife"] = ("{} is married to", "Who is {} married to?")


def hop(relation, subject, answer, *aliases):
    cloze, question = (text.replace("{}", subject) for text in TEMPLATES[relation])
    return {"question": question, "cloze": cloze, "answer": answer, "answer_alias": list(aliases)}


def edit(relation, subject, new, old):
    prompt, question = TEMPLATES[relation]
    values = {"target_new": {"str": new, "id": "Q1"}, "target_true": {"str": old, "id": "Q2"}}
    return {
        "prompt": prompt,
        "relation_id": relation,
        **values,
        "subject": subject,
        "question": question,
    }


def chain(case_id, edits, hops, old="Bertram"):
    """A record about the last hop's answer, with arguments of the functions above."""
    hops = [hop(*one) for one in hops]
    new = {"new_answer": hops[-1]["answer"], "new_answer_alias": hops[-1]["answer_alias"]}
    texts = [f"{case_id}: who is it?", f"{case_id}: which one?", f"{case_id}: name the one."]
    rewrites = [edit(*one) for one in edits]
    record = {
        "case_id": case_id,
        "requested_rewrite": rewrites,
        "questions": texts,
        "answer": old,
        "answer_alias": ["Bert"],
    }
    return {**record, **new, "single_hops": "not read", "new_single_hops": hops, "orig": {}}


# Ann moves to Lund, whose mayor is Cleo.
ANN = chain(
    1,
    [("home", "Ann", "Lund", "Bath")],
    [("home", "Ann", "Lund"), ("mayor", "Lund", "Cleo", "Cleopatra")],
)
# Eve marries Fay, and Fay moves to Graz: two edits.
EVE_MARRIES, FAY_MOVES = ("wife", "Eve", "Fay", "Gus"), ("home", "Fay", "Graz", "Oslo")
EVE = chain(
    2,
    [EVE_MARRIES, FAY_MOVES],
    [("wife", "Eve", "Fay", "Faye"), ("home", "Fay", "Graz")],
    old="Oslo",
)


def without(record, *fields):
    return {key: value for key, value in record.items() if key not in fields}


def load(corpus, path, records):
    path.write_text(json.dumps(records))
    return corpus.load(path)


@pytest.fixture
def mquake(tmp_path):
    def read(*records):
        corpus = MQuAKE()
        return load(corpus, tmp_path / "mquake.json", records), corpus.skipped

    return read


def probes(case, axis):
    return [
        (p.prompt, p.answers, p.distractor, p.form, p.needs) for p in case.probes if p.axis == axis
    ]


def test_a_record_with_one_edit_is_one_case(mquake):
    (case,), skipped = mquake(ANN)
    assert case.fact.to_dict() == {
        "id": "mquake-1-1",
        "prompt": "Ann lives in the town of",
        "target": "Lund",
        "subject": "Ann",
        "original": "Bath",
        "relation": "home",
        "form": "cloze",
    }
    assert case.group == "mquake-1" and skipped == []
    assert probes(case, "paraphrase") == [
        ("Where does Ann live?", ("Lund",), "Bath", "question", ())
    ]
    assert probes(case, "neighborhood") == [
        ("Who runs Lund?", ("Cleo", "Cleopatra"), None, "question", ())
    ]
    answers = ("Cleo", "Cleopatra")
    assert probes(case, "portability") == [
        (text, answers, "Bertram", "question", ()) for text in ANN["questions"]
    ]
    assert [p.kind for p in case.probes if p.axis == "portability"] == ["2 hops, 1 edited"] * 3


def test_questions_need_the_other_edits_and_are_asked_at_the_first(mquake):
    (first, second), _ = mquake(EVE)
    assert (first.fact.id, second.fact.id, first.group, second.group) == (
        "mquake-2-1",
        "mquake-2-2",
        "mquake-2",
        "mquake-2",
    )
    assert first.fact.aliases == ("Faye",)
    assert [needs for *_, needs in probes(first, "portability")] == [("mquake-2-2",)] * 3
    assert {p.kind for p in first.probes if p.axis == "portability"} == {"2 hops, 2 edited"}
    assert [p.axis for p in second.probes] == ["rewrite", "paraphrase"]
    assert probes(first, "neighborhood") == [], "every hop is edited"


def test_an_edit_that_was_requested_before_becomes_a_need(mquake):
    again = chain(
        3,
        [FAY_MOVES, ("wife", "Hal", "Fay", "Ida")],
        [("wife", "Hal", "Fay"), FAY_MOVES[:3]],
        old="Oslo",
    )
    cases, skipped = mquake(EVE, again)
    assert [case.fact.id for case in cases] == [
        "mquake-2-1",
        "mquake-2-2",
        "mquake-3-2",
    ] and skipped == []
    assert {case.group for case in cases} == {"mquake-2"}
    assert [needs for *_, needs in probes(cases[-1], "portability")] == [("mquake-2-2",)] * 3


LUND_VOTES = ("mayor", "Lund", "Dora", "Cleo")
BEA = [("home", "Bea", "Lund", "Bath")]
LEFT_OUT = {
    # what the second of two records is left out for, after ANN or EVE
    "Edits 'Ann lives in the town of' to 'Rome', but 'mquake-1-1' edits it to 'Lund'.": (
        ANN,
        chain(
            3,
            [("home", "Ann", "Rome", "Bath")],
            [("home", "Ann", "Rome"), ("mayor", "Rome", "Leo")],
        ),
    ),
    "Edits 'The mayor of Lund is', which is an unedited hop of 'mquake-1'.": (
        ANN,
        chain(3, [*BEA, LUND_VOTES], [("home", "Bea", "Lund"), LUND_VOTES[:3]]),
    ),
    "The unedited hop 'Fay lives in the town of' is edited by 'mquake-2-2'.": (
        EVE,
        chain(
            3, [("wife", "Hal", "Fay", "Ida")], [("wife", "Hal", "Fay"), ("home", "Fay", "Kiel")]
        ),
    ),
    "Edits nothing new: mquake-2-2.": (
        EVE,
        chain(3, [FAY_MOVES], [FAY_MOVES[:3], ("mayor", "Graz", "Max")]),
    ),
    "The case_id is already that of an earlier record, 'mquake-1'.": (
        ANN,
        chain(1, BEA, [("home", "Bea", "Lund"), ("mayor", "Lund", "Cleo")]),
    ),
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_what_contradicts_repeats_or_contaminates_is_left_out(mquake, reason):
    first, second = LEFT_OUT[reason]
    cases, skipped = mquake(first, second)
    assert {case.group for case in cases} == {f"mquake-{first['case_id']}"}
    assert skipped == [f"record 1 (case_id {second['case_id']}): {reason}"]


def test_a_record_never_joins_two_groups(mquake):
    edits = [FAY_MOVES, ("home", "Ann", "Lund", "Bath"), ("wife", "Ann", "Eve", "Jo")]
    both = chain(3, edits, [one[:3] for one in edits])
    cases, skipped = mquake(ANN, EVE, both)
    assert len(cases) == 3 and skipped == [
        "record 2 (case_id 3): The edits belong to several groups: mquake-2, mquake-1."
    ]


def test_a_record_that_is_left_out_stands_in_no_later_ones_way(mquake):
    bad = chain(
        3, [("home", "Ann", "Rome", "Bath")], [("home", "Ann", "Rome"), ("mayor", "Oslo", "Leo")]
    )
    votes = chain(4, [("mayor", "Oslo", "Kim", "Leo")], [("mayor", "Oslo", "Kim")])
    cases, skipped = mquake(ANN, bad, votes)
    assert [case.fact.id for case in cases] == ["mquake-1-1", "mquake-4-1"] and len(skipped) == 1


def test_loading_again_starts_anew(tmp_path):
    corpus = MQuAKE()
    assert (
        load(corpus, tmp_path / "a.json", [ANN]) == load(corpus, tmp_path / "a.json", [ANN])
        and corpus.skipped == []
    )


def test_aliases_that_match_anything_or_the_old_answer_are_dropped(mquake):
    aliases = [
        "IN",
        "it",
        "UK",
        "U.K.",
        "🇬🇧",
        "city of Bath",
        "Bath Spa",
        "Lund",
        "CAN",
        "Lunden",
        "USA",
    ]
    hops = [("home", "Ann", "Lund", *aliases), ("mayor", "Lund", "Cleo", "Bert", "Cleopatra", "is")]
    (case,), _ = mquake(
        chain(1, [("home", "Ann", "Lund", "the city of Bath")], hops, old="Bert Bertram")
    )
    assert case.fact.aliases == ("UK", "U.K.", "Bath Spa", "Lunden", "USA")
    assert probes(case, "portability")[0][1] == ("Cleo", "Cleopatra")
    assert probes(case, "neighborhood")[0][1] == ("Cleo", "Bert", "Cleopatra"), (
        "a neighbor has no old answer"
    )


def test_the_hubs_flat_rewrites_are_read_too(mquake):
    (rewrite,) = ANN["requested_rewrite"]
    flat = {
        **without(rewrite, "target_new", "target_true"),
        "target_new_str": "Lund",
        "target_true_str": "Bath",
    }
    assert mquake({**ANN, "requested_rewrite": [flat]}) == mquake(ANN)


def changed(**fields):
    return {**ANN, "requested_rewrite": [{**ANN["requested_rewrite"][0], **fields}]}


BAD_RECORDS = {
    "Field 'requested_rewrite' must be a list of objects.": {**ANN, "requested_rewrite": {}},
    "Field 'new_single_hops' must be a list of objects.": {**ANN, "new_single_hops": ["hop"]},
    "requested_rewrite 1: Field 'prompt' is missing.": {
        **ANN,
        "requested_rewrite": [without(ANN["requested_rewrite"][0], "prompt")],
    },
    "requested_rewrite 1: The prompt 'Ann lives in' has no {} in place of the subject.": changed(
        prompt="Ann lives in"
    ),
    "requested_rewrite 1: Field 'subject' must be text, not int.": changed(subject=3),
    "requested_rewrite 1: Field 'target_new.str' is missing.": changed(target_new={}),
    "requested_rewrite 1: 'Ann lives in the town of' -> 'Rome' is not "
    "a hop of the new chain.": changed(target_new={"str": "Rome"}),
    "requested_rewrite 1: The old answer 'Lund upon Thames' contains "
    "the new answer 'Lund'.": changed(target_true={"str": "Lund upon Thames"}),
    "requested_rewrite 1: Field 'relation_id' must be text, not int.": changed(relation_id=5),
    "The record requests one edit twice.": {
        **ANN,
        "requested_rewrite": ANN["requested_rewrite"] * 2,
    },
    "new_single_hops 2: Field 'cloze' is missing.": {
        **ANN,
        "new_single_hops": [
            ANN["new_single_hops"][0],
            without(hop("mayor", "Lund", "Cleo"), "cloze"),
        ],
    },
    "new_single_hops 1: Field 'answer_alias' must be a list of texts.": {
        **ANN,
        "new_single_hops": [{**ANN["new_single_hops"][0], "answer_alias": [1]}],
    },
    "Field 'questions' must hold texts, not int.": {**ANN, "questions": [1]},
    "Field 'questions' is empty or has an empty text.": {**ANN, "questions": []},
    "Field 'new_answer' is empty.": {**ANN, "new_answer": " "},
    "Field 'new_answer_alias' must be a list of texts.": {**ANN, "new_answer_alias": "Cleopatra"},
    "The old answer 'Cleo II' contains the new answer 'Cleo'.": {**ANN, "answer": "Cleo II"},
    "Not a MQuAKE record: expected the fields requested_rewrite, questions, answer, new_answer, "
    "new_single_hops; found the fields case_id.": {"case_id": 1},
}


def test_a_bad_record_is_left_out_with_its_reason(mquake):
    cases, skipped = mquake(*BAD_RECORDS.values(), "text", EVE)
    assert [case.fact.id for case in cases] == ["mquake-2-1", "mquake-2-2"]
    assert skipped[:-1] == [
        f"record {i} (case_id 1): {reason}" for i, reason in enumerate(BAD_RECORDS)
    ]
    assert (
        skipped[-1]
        == f"record {len(BAD_RECORDS)}: Not a MQuAKE record: expected an object; found a str."
    )


@pytest.mark.parametrize("corpus", [MQuAKE, SimpleQA])
def test_a_foreign_file_is_one_error_that_names_its_fields(tmp_path, corpus):
    with pytest.raises(
        DataError,
        match=r"foreign\.json, record 1: Not a .* record: expected the fields .*; found the fields "
        r"query, reply\. None of the 2 records is a usable .* record\. .*--corpus local",
    ):
        load(corpus(), tmp_path / "foreign.json", [{"query": "?", "reply": "!"}] * 2)


def test_mquake_real_set():
    path = REAL / "mquake" / "MQuAKE-CF-3k.json.gz"
    if not path.is_file():
        pytest.skip("shared/data/mquake lies beside the repository on developers' machines only")
    corpus = MQuAKE()
    cases = corpus.load(path)
    axes = Counter(probe.axis for case in cases for probe in case.probes)
    assert (len(cases), len(corpus.skipped)) == (1881, 1684 + 5)
    assert axes == {
        "rewrite": 1881,
        "paraphrase": 1881,
        "portability": 3 * 1316,
        "neighborhood": 730,
    }
    moved = [reason for reason in corpus.skipped if "must not move" in reason]
    assert len(moved) == 5 and 1316 + len(corpus.skipped) - len(moved) == 3000
    facts = {fact.id: fact for fact in check_facts(case.fact for case in cases)}
    assert all(fact.subject and fact.original and fact.relation for fact in facts.values())
    groups = {case.fact.id: case.group for case in cases}
    assert max(Counter(groups.values()).values()) == 63
    for case in cases:
        for probe in case.probes:
            assert (
                all(groups[need] == case.group for need in probe.needs)
                and case.fact.id not in probe.needs
            )
            assert probe.distractor is None or not contains(probe.distractor, probe.answers)
    edited = {probe.prompt for case in cases for probe in case.probes if probe.axis == "paraphrase"}
    assert not any(
        p.prompt in edited for case in cases for p in case.probes if p.axis == "neighborhood"
    )
    dev, test = (slice_cases(cases, part, None, 0) for part in ("dev", "test"))
    assert len(dev) + len(test) == len(cases) and len(dev) > 0.2 * len(cases)
    assert sum(len(case.probes) for part in (dev, test) for case in part) == sum(axes.values()), (
        "a need is in the other part"
    )


# SimpleQA


def table(path, *rows, header=("metadata", "problem", "answer")):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


META = "{'topic': 'Sports', 'answer_type': 'Person', 'urls': ['https://example.org']}"


def test_simpleqa_is_a_question_with_its_true_answer(tmp_path):
    (case,) = SimpleQA().load(table(tmp_path / "qa.csv", (META, "Who won, in 1901?", " Ann\n")))
    wanted = {
        "id": "simpleqa-0",
        "prompt": "Who won, in 1901?",
        "target": "Ann",
        "relation": "Sports",
        "form": "question",
    }
    assert case.to_dict() == {**wanted, "probes": []}


@pytest.mark.parametrize(
    "answer, aliases",
    [
        ("120,000", ("120000",)),
        ("$1,234,567.89", ("$1234567.89",)),
        ("1,2, and 3", ()),
        ("1,2345", ()),
        ("May 4, 1999", ()),
        ("4.5 m (15 ft)", ("4.5 m",)),
        ("1,000 feet (300 m).", ("1,000 feet", "1000 feet (300 m).", "1000 feet")),
        ("Nocturne (A Moon Landing)", ()),
        ('"Right Here (Human Nature Remix)"', ()),
        ("ValPaL (Valency Patterns) database", ()),
        ("Ann and Bea", ()),
    ],
)
def test_simpleqa_aliases(tmp_path, answer, aliases):
    (case,) = SimpleQA().load(table(tmp_path / "qa.csv", (META, "What is it?", answer)))
    assert case.fact.target == answer and case.fact.aliases == aliases


@pytest.mark.parametrize(
    "metadata",
    ["", "{'topic':", "__import__('os')", "{'topic': 3}", "['topic']", "{'subject': 'x'}"],
)
def test_simpleqa_metadata_that_cannot_be_read_costs_the_topic_only(tmp_path, metadata):
    (case,) = SimpleQA().load(table(tmp_path / "qa.csv", (metadata, "Who won?", "Ann")))
    assert case.fact.relation is None


def test_simpleqa_long_answers_get_room(tmp_path):
    short, long = SimpleQA().load(
        table(tmp_path / "qa.csv", (META, "Who?", "a" * 65), (META, "What?", "b" * 300))
    )
    assert short.probes[0].max_new_tokens is None and long.probes[0].max_new_tokens == 150


def test_simpleqa_leaves_out_what_cannot_be_a_fact(tmp_path):
    rows = [
        (META, "Who won?", ""),
        (META, " ", "Ann"),
        (META, "Who won?", "Ann"),
        (META, "Who won?", "Bea"),
    ]
    corpus = SimpleQA()
    (case,) = corpus.load(table(tmp_path / "qa.csv", *rows))
    assert case.fact.id == "simpleqa-2"
    assert corpus.skipped == [
        "record 0: Field 'answer' is empty.",
        "record 1: Field 'problem' is empty.",
        "record 3: The prompt 'Who won?' is already that of record 2.",
    ]
    with pytest.raises(
        DataError,
        match="Field 'answer' must be text, not int. "
        "None of the 1 records is a usable SimpleQA record",
    ):
        load(corpus, tmp_path / "qa.json", [{"problem": "Who?", "answer": 3}])


def test_simpleqa_real_set():
    path = REAL / "simpleqa" / "simple_qa_test_set.csv"
    if not path.is_file():
        pytest.skip("shared/data/simpleqa lies beside the repository on developers' machines only")
    corpus = SimpleQA()
    cases = corpus.load(path)
    assert (len(cases), corpus.skipped) == (4326, [])
    facts = check_facts(case.fact for case in cases)
    assert len({fact.relation for fact in facts}) == 10 and all(
        fact.relation and fact.form == "question" for fact in facts
    )
    assert sum(bool(fact.aliases) for fact in facts) == 96
    assert all(len(case.probes) == 1 for case in cases)
    assert 0.25 < len(slice_cases(cases, "dev", None, 0)) / len(cases) < 0.35
