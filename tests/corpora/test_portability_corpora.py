"""RippleEdits, KnowEdit, ConflictEdit and TempLAMA, and an audit of every corpus."""

import json
from collections import Counter
from pathlib import Path

import pytest

from editbench.corpora import BUILTINS
from editbench.errors import DataError
from editbench.matching import contains
from editbench.registry import get
from editbench.types import Case, Fact, Probe, check_facts

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def load(tmp_path):
    """Corpus name and records -> its cases and what it left out."""

    def read(name, *records):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(records))
        corpus = get("corpora", name)()
        return corpus.load(path), corpus.skipped

    return read


def probes(case, axis):
    return [
        (p.kind, p.prompt, p.answers, p.distractor, p.form, p.needs)
        for p in case.probes
        if p.axis == axis
    ]


# The kind of a probe


def test_a_kind_survives_a_file_and_is_left_out_where_there_is_none():
    case = Case.build(
        Fact("f", "The capital of France is", "London"),
        [Probe("portability", "Its river", ("Thames",), kind="hop")],
    )
    assert case.to_dict()["probes"] == [
        {
            "axis": "portability",
            "prompt": "Its river",
            "answers": ["Thames"],
            "form": "cloze",
            "kind": "hop",
        }
    ]
    assert Case.from_dict(case.to_dict()) == case
    with pytest.raises(DataError, match="portability probe's kind must be text, not int"):
        Probe("portability", "Its river", ("Thames",), kind=3)


# RippleEdits


def query(prompt, *answers, target_ids=("Q9",)):
    named = [{"value": value, "aliases": list(aliases)} for value, *aliases in answers]
    return {
        "prompt": prompt,
        "answers": named,
        "query_type": "regular",
        "subject_id": "Q1",
        "target_ids": list(target_ids),
    }


def ask(*queries):
    return {
        "test_queries": list(queries),
        "test_condition": "OR",
        "condition_queries": [query("not read", ("x",))],
    }


ANN = {
    "example_type": "popular",
    "edit": {
        "prompt": "The name of the spouse of Ann of Lund is Bob Kay.",
        "subject_id": "Q1",
        "relation": "SPOUSE",
        "target_id": "Q2",
        "previous_fact": {
            "prompt": "The name of the spouse of Ann of Lund is Gus.",
            "subject_id": "Q1",
            "relation": "SPOUSE",
            "target_id": "Q3",
        },
    },
    "Relation_Specificity": [ask(query("The gender of Ann of Lund is", ("female", "lady", "fem")))],
    "Logical_Generalization": [ask(query("Is Ann of Lund still alive?", ("no",), ("is dead",)))],
    "Subject_Aliasing": [
        ask(
            query(
                "The name of the spouse of Annie is",
                ("Bob Kay", "Bobby", "BK", "Gus"),
                target_ids=["Q2"],
            )
        ),
    ],
    "Compositionality_I": [
        ask(query("The name of the child of the spouse of Ann of Lund is", ("Cleo",))),
        ask(query("The name of the child of the spouse of Ann of Lund is", ("Dora", "Dorothy"))),
    ],
    "Compositionality_II": [
        ask(query("The name of the spouse of the mother of Eve is", ("Bob Kay",)))
    ],
    "Forgetfulness": [
        ask(
            query(
                "The name of the spouse of Ann of Lund, which is not Bob Kay, is", ("Gus", "Gustav")
            )
        )
    ],
}


def test_ripple_reads_the_edit_sentence_and_all_six_criteria(load):
    (case,), skipped = load("ripple", ANN)
    assert case.fact.to_dict() == {
        "id": "ripple-0",
        "prompt": "The name of the spouse of Ann of Lund is",
        "target": "Bob Kay",
        "subject": "Ann of Lund",
        "original": "Gus",
        "aliases": ["Bobby"],
        "relation": "SPOUSE",
        "form": "cloze",
    }
    assert probes(case, "portability") == [
        (
            "Logical_Generalization",
            "Is Ann of Lund still alive?",
            ("no", "is dead"),
            None,
            "question",
            (),
        ),
        (
            "Compositionality_I",
            "The name of the child of the spouse of Ann of Lund is",
            ("Cleo", "Dora", "Dorothy"),
            None,
            "cloze",
            (),
        ),
        (
            "Compositionality_II",
            "The name of the spouse of the mother of Eve is",
            ("Bob Kay",),
            None,
            "cloze",
            (),
        ),
        (
            "Subject_Aliasing",
            "The name of the spouse of Annie is",
            ("Bob Kay", "Bobby"),
            "Gus",
            "cloze",
            (),
        ),
    ]
    stays = "The name of the spouse of Ann of Lund, which is not Bob Kay, is"
    assert probes(case, "neighborhood") == [
        (
            "Relation_Specificity",
            "The gender of Ann of Lund is",
            ("female", "lady"),
            None,
            "cloze",
            (),
        ),
        ("Forgetfulness", stays, ("Gus", "Gustav"), None, "cloze", ()),
    ]
    assert skipped == []


@pytest.mark.parametrize(
    "relation, prompt, subject, target",
    [
        ("SIBLING", "The names of the siblings of Ann are", "Ann", "Eve"),
        (
            "CAST_MEMBER",
            "The names of the cast members of Who is of Age are",
            "Who is of Age",
            "Eve",
        ),
        (
            "COUNTRY_OF_CITIZENSHIP",
            "The name of the country of citizenship of Ann is",
            "Ann",
            "Isle of Man",
        ),
        ("PLACE_OF_BIRTH", "The place of birth of Ann is", "Ann", "Is is is"),
        (
            "COUNTRY",
            "The name of the country which Cup of Lund is associated with is",
            "Cup of Lund",
            "Chad",
        ),
        ("AWARD_RECEIVED", "The name of the award Ann won is", "Ann", "St. Ann's Prize"),
        ("FOLLOWED_BY", "Part 1 is followed by", "Part 1", "Part 2. The End"),
        ("FOLLOWS", "Part 2 follows", "Part 2", "Part 1"),
    ],
)
def test_ripple_finds_subject_and_target_in_every_kind_of_sentence(
    load, relation, prompt, subject, target
):
    edit = {"prompt": f"{prompt} {target}.", "relation": relation, "target_id": "Q2"}
    (case,), _ = load("ripple", {"edit": edit, "Forgetfulness": []})
    fact = case.fact
    assert (fact.prompt, fact.subject, fact.target, fact.original) == (
        prompt,
        subject,
        target,
        None,
    )


def test_ripple_leaves_out_what_cannot_be_asked_and_says_so(load):
    spouse = ANN["edit"]["prompt"]
    edits = {
        f"The edit {spouse!r} does not follow the prompt of relation MOTHER (.": {
            **ANN["edit"],
            "relation": "MOTHER (",
        },
        "Field 'relation' is missing.": {"prompt": spouse},
        "The old answer 'Gus Kay' contains the new answer 'Gus'.": {
            "prompt": "The name of the spouse of Ann is Gus.",
            "relation": "SPOUSE",
            "original_fact": {
                "prompt": "The name of the spouse of Ann is Gus Kay.",
                "relation": "SPOUSE",
            },
        },
    }
    tests = {
        "Field 'Forgetfulness' must be a list of objects with test_queries.": [{"test_query": []}],
        "Field 'Forgetfulness' has a test query that is not an object.": [ask("Who?")],
    }
    records = [{**ANN, "edit": edit} for edit in edits.values()] + [
        {**ANN, "Forgetfulness": wrong} for wrong in tests.values()
    ]
    broken = {
        "Logical_Generalization": [
            ask(query("The aunt of Ann is")),
            ask(query("The uncle of Ann is", ("",))),
        ],
        "Compositionality_I": [ask({**query("The child of Ann is"), "answers": "Cleo"})],
        "Relation_Specificity": [ask(query("The friend of Ann is", ("Bob Kay Junior",)))],
    }
    (case,), skipped = load("ripple", *records, {"question": "?"}, {**ANN, **broken})
    assert [p.kind for p in case.probes] == [
        None,
        "Compositionality_II",
        "Subject_Aliasing",
        "Forgetfulness",
    ]
    wanted = [*edits, *tests]
    assert skipped[: len(wanted)] == [f"record {i}: {reason}" for i, reason in enumerate(wanted)]
    fields = (
        "Not a RippleEdits record: expected the field edit, and criteria such as "
        "Compositionality_I; "
        "found the fields question."
    )
    assert skipped[len(wanted) :] == [
        f"record 5: {fields}",
        "record 6: Logical_Generalization 1: 'The aunt of Ann is' has no answer.",
        "record 6: Logical_Generalization 2: 'The uncle of Ann is' has no answer.",
        "record 6: Compositionality_I 1: Field 'answers' must be a list of objects.",
        "record 6: 'The friend of Ann is' must not move, but its answer 'Bob Kay Junior' contains "
        "the target 'Bob Kay'.",
    ]


# KnowEdit

COUNTERFACT = {
    "subject": "Ann",
    "prompt": "The country of Ann is",
    "target_new": "Syria",
    "ground_truth": "Chad",
    "portability": {
        "Reasoning": [
            {
                "prompt": "The capital of the country of Ann is",
                "ground_truth": [["Damascus", "DAM", "Sham city"], ["Homs"]],
            }
        ],
        "Subject_Aliasing": [
            {
                "prompt": "The country of Annie is",
                "ground_truth": [["Syria", "Syrian Republic", "Chad"]],
            }
        ],
        "Logical_Generalization": [{"prompt": "Is Ann at home?", "ground_truth": "yes"}],
    },
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The gender of Ann is", "ground_truth": [["female"], []]}
        ],
        "Forgetfulness": [
            {
                "prompt": "The country of Ann, which is not Syria, is",
                "ground_truth": [["Chad", "once Syria"]],
            }
        ],
    },
}
ZSRE = {
    **{
        "subject": "Bob",
        "prompt": "Whose son is Bob?",
        "rephrase_prompt": "Who has the son Bob?",
        "target_new": "Eve",
    },
    **{"ground_truth": ["Ida"], "cond": "not read", "portability": {}, "locality": None},
}


def test_knowedit_keeps_the_published_kinds(load):
    (case, question), skipped = load("knowedit", COUNTERFACT, ZSRE)
    fact = case.fact
    assert (fact.id, fact.prompt, fact.target, fact.subject) == (
        "knowedit-0",
        "The country of Ann is",
        "Syria",
        "Ann",
    )
    assert (fact.original, fact.form) == ("Chad", "cloze")
    assert probes(case, "portability") == [
        (
            "Reasoning",
            "The capital of the country of Ann is",
            ("Damascus", "Sham city", "Homs"),
            None,
            "cloze",
            (),
        ),
        (
            "Subject_Aliasing",
            "The country of Annie is",
            ("Syria", "Syrian Republic"),
            "Chad",
            "cloze",
            (),
        ),
        ("Logical_Generalization", "Is Ann at home?", ("yes",), None, "question", ()),
    ]
    assert probes(case, "neighborhood") == [
        ("Relation_Specificity", "The gender of Ann is", ("female",), None, "cloze", ()),
        (
            "Forgetfulness",
            "The country of Ann, which is not Syria, is",
            ("Chad",),
            None,
            "cloze",
            (),
        ),
    ]
    assert (question.fact.prompt, question.fact.form, question.fact.original) == (
        "Whose son is Bob?",
        "question",
        "Ida",
    )
    assert [(p.axis, p.prompt) for p in question.probes[1:]] == [
        ("paraphrase", "Who has the son Bob?")
    ]
    assert skipped == []


def test_knowedits_recent_facts_have_no_old_answer(load):
    recent = {key: value for key, value in COUNTERFACT.items() if key != "ground_truth"}
    (case,), _ = load("knowedit", recent)
    assert case.fact.original is None
    assert probes(case, "portability")[1][2:4] == (("Syria", "Syrian Republic", "Chad"), None)


def test_knowedit_leaves_out_what_cannot_be_asked_and_says_so(load):
    def changed(field, kind, **item):
        return {**COUNTERFACT, field: {kind: [{"prompt": "It is", **item}]}}

    records = {
        "record 0: Field 'locality' must be an object of lists.": {
            **COUNTERFACT,
            "locality": ["x"],
        },
        "record 1: The old answer 'film actor' contains the new answer 'actor'.": {
            **COUNTERFACT,
            "target_new": "actor",
            "ground_truth": "film actor",
        },
        "record 2: Not a KnowEdit wiki_recent, wiki_counterfact or ZsRE record: expected the "
        "fields "
        "subject, prompt, target_new, portability and locality; found the fields text, labels.": {
            "text": "A long passage.",
            "labels": "A long answer.",
        },
    }
    partly = {
        "record 3: portability Reasoning 1: Field 'ground_truth' is empty.": changed(
            "portability", "Reasoning", ground_truth=[[]]
        ),
        "record 4: locality Forgetfulness 1: Field 'ground_truth' must hold "
        "texts, not int.": changed("locality", "Forgetfulness", ground_truth=[[3]]),
        "record 5: 'It is' must not move, but its answer 'Syria' contains "
        "the target 'Syria'.": changed(
            "locality", "Relation_Specificity", ground_truth=[["Syria"]]
        ),
    }
    partly = {
        reason: {**record, "prompt": f"Land {i} of Ann is"}
        for i, (reason, record) in enumerate(partly.items())
    }
    cases, skipped = load("knowedit", *records.values(), *partly.values())
    assert [case.fact.id for case in cases] == ["knowedit-3", "knowedit-4", "knowedit-5"]
    assert skipped == [*records, *partly]


def test_knowedit_asks_no_neighbor_that_another_record_edits(load):
    other = {
        **COUNTERFACT,
        "prompt": "The gender of Ann is",
        "target_new": "male",
        "ground_truth": "female",
    }
    (first, second), skipped = load("knowedit", COUNTERFACT, {**other, "locality": {}})
    assert [p.kind for p in first.probes if p.axis == "neighborhood"] == ["Forgetfulness"]
    assert skipped == ["record 0: 'The gender of Ann is' must not move, but record 1 edits it."]


# ConflictEdit


def triple(relation, subject, **objects):
    found = {name: {"id": "Q1", "label": label} for name, label in objects.items()}
    wordings = {
        "id": "P1",
        "prompt": f"The {relation} of {{}} is",
        "query": f"Who is the {relation} of {{}}?",
        "label": relation,
    }
    return {"relation": wordings, "subject": {"id": "Q0", "label": subject}, **found}


COMPOSITE = {
    "rule": "not read",
    "triples": [triple("mother", "Ann", object="Eve"), triple("spouse", "Eve", object="Gus")],
    "prerequisites": [0],
    "type": "composite",
    "edits": [
        triple("spouse", "Eve", object="Gus", new_object="Bob"),
        triple("father", "Ann", object="Gus", true_object="Bob", new_object="Max"),
    ],
}
COVERAGE = {
    "triples": [triple("student", "Jo", object="Kim")],
    "prerequisites": [],
    "type": "coverage",
    "edits": [
        triple("student", "Jo", object="Kim", new_object="Lea"),
        triple("student", "Jo", object="Lea", new_object="Mia"),
    ],
}


def test_conflictedit_lets_the_later_of_two_win(load):
    (earlier, later), skipped = load("conflictedit", COMPOSITE)
    assert (earlier.fact.prompt, earlier.fact.target, earlier.fact.original) == (
        "The spouse of Eve is",
        "Bob",
        "Gus",
    )
    assert [p.axis for p in earlier.probes] == [
        "rewrite"
    ] and earlier.group == later.group == "conflictedit-0"
    assert (later.fact.prompt, later.fact.target, later.fact.original) == (
        "The father of Ann is",
        "Max",
        "Bob",
    )
    needs = ("conflictedit-0-1",)
    assert probes(later, "portability") == [
        ("composite", "Who is the father of Ann?", ("Max",), "Bob", "question", needs)
    ]
    assert probes(later, "neighborhood") == [
        (None, "The mother of Ann is", ("Eve",), None, "cloze", ())
    ]
    assert skipped == []


def test_conflictedit_teaches_one_prompt_twice_in_two_forms(load):
    cases, _ = load("conflictedit", COVERAGE)
    facts = check_facts(case.fact for case in cases)
    assert [(fact.prompt, fact.form, fact.target, fact.original) for fact in facts] == [
        ("The student of Jo is", "cloze", "Lea", "Kim"),
        ("Who is the student of Jo?", "question", "Mia", "Lea"),
    ]
    asked = ("coverage", "The student of Jo is", ("Mia",), "Lea", "cloze", ("conflictedit-0-1",))
    assert probes(cases[1], "portability") == [asked]


def test_conflictedit_leaves_out_whole_pairs(load):
    bad = {
        "Not a ConflictEdit record: expected two edits, and a type out of reverse, composite, "
        "coverage; found the fields type, edit.": {
            "type": "1-3@P366",
            "edit": {},
        },
        "The prerequisites are not indices of the triples.": {**COMPOSITE, "prerequisites": [7]},
        "Field 'new_object' is missing.": {**COMPOSITE, "edits": COMPOSITE["triples"]},
        "The old answer 'Kim Lea' contains the new answer 'Lea'.": {
            **COVERAGE,
            "edits": [
                triple("student", "Jo", object="Kim Lea", new_object="Lea"),
                COVERAGE["edits"][1],
            ],
        },
    }
    cases, skipped = load(
        "conflictedit", *bad.values(), COVERAGE, {**COVERAGE, "edits": COVERAGE["edits"]}
    )
    assert [case.fact.id for case in cases] == ["conflictedit-4-1", "conflictedit-4-2"]
    repeated = "record 5: The prompt 'The student of Jo is' is already that of record 4."
    assert skipped == [*(f"record {i}: {reason}" for i, reason in enumerate(bad)), repeated]


# TempLAMA


def entry(year, answer, recent="Lund FC", query="Ann plays for _X_."):
    return {
        **{
            "query": query,
            "answer": [{"wikidata_id": "Q5", "name": answer}],
            "date": year,
            "id": f"Q7_P54_{year}",
        },
        **{"most_recent_answer": {"wikidata_id": "Q6", "name": recent}, "relation": "P54"},
    }


def test_templama_dates_its_facts_and_asks_what_holds_now(load):
    cases, skipped = load("templama", [entry("2019", "Lund FC"), entry("2012", "Bath FC")])
    facts = [
        (case.fact.id, case.fact.prompt, case.fact.target, case.fact.subject, case.group)
        for case in cases
    ]
    assert facts == [
        ("templama-Q7_P54_2012", "In 2012, Ann plays for", "Bath FC", "Ann", "templama-Q7"),
        ("templama-Q7_P54_2019", "In 2019, Ann plays for", "Lund FC", "Ann", "templama-Q7"),
    ]
    assert [p.axis for p in cases[0].probes] == ["rewrite"]
    now = ("now", "Ann plays for", ("Lund FC",), "Bath FC", "cloze", ("templama-Q7_P54_2012",))
    assert probes(cases[1], "portability") == [now] and skipped == []


def test_templama_asks_for_now_only_where_the_last_year_is_the_present(load):
    cases, _ = load(
        "templama", [entry("2012", "Bath FC", "Oslo FC"), entry("2019", "Lund FC", "Oslo FC")]
    )
    assert [p.axis for case in cases for p in case.probes] == ["rewrite", "rewrite"]


def test_templama_leaves_out_what_is_no_cloze_with_a_date(load):
    head = "_X_ is the head coach of Lund FC."
    bad = {
        f"The years do not share one query that ends with the answer; the first is {head!r}.": [
            entry("2012", "Ann", query=head)
        ],
        "The years do not share one query that ends with the answer; "
        "the first is 'Ann plays for _X_.'.": [
            entry("2012", "Bath FC"),
            entry("2013", "Oslo FC", query="Bea plays for _X_."),
        ],
        "Not a TempLAMA record: expected a list of years; found the fields "
        "query, answer, date, id, most_recent_answer, relation.": entry("2012", "Bath FC"),
        "Field 'date' is missing.": [{"query": "Ann plays for _X_."}],
        "Field 'answer' must be a list of objects.": [{**entry("2012", ""), "answer": []}],
    }
    cases, skipped = load("templama", *bad.values(), [entry("2020", "Kiel FC")])
    assert [case.fact.id for case in cases] == ["templama-Q7_P54_2020"]
    assert skipped == [f"record {i}: {reason}" for i, reason in enumerate(bad)]


# Every corpus


@pytest.mark.parametrize("name", ["ripple", "knowedit", "conflictedit", "templama"])
@pytest.mark.parametrize(
    "record", [{"query": "Who?", "reply": "I"}, [{"query": "Who?"}], [], ["x"], "x", None]
)
def test_a_foreign_file_is_one_error(load, name, record):
    with pytest.raises(DataError, match=r"None of the 2 records is a usable .*--corpus local"):
        load(name, record, record)


SHIPPED = ("demo-counterfact", "demo-zsre", "kgfact", "kgfunc", "conflicts", "time")
UNPUBLISHED = tuple("local ripple wikibio hallueditbench qaedit cknowedit unke lre".split())
"""Corpora that no file here can be had for: a user's own, and those of test_public_sets.py."""
SETS = {
    # corpus and file: cases, left out
    ("counterfact", "counterfact/counterfact.json"): (1129, 0),
    ("counterfact", "counterfact/counterfact-edit.json"): (9917, 83),
    ("zsre", "zsre/zsre_mend_eval_portability_gpt4.json"): (1002, 35),
    ("zsre", "zsre/ZsRE-test-all.json"): (1240, 69),
    ("zsre", "zsre/zsre_mend_train-1k.json"): (971, 29),
    ("knowedit", "zsre/ZsRE-test-all.json"): (1240, 68),
    ("knowedit", "knowedit/wiki_counterfact_test_cf-generate-10.json"): (864, 279),
    ("mquake", "mquake/MQuAKE-CF-3k.json.gz"): (1881, 1689),
    ("conflictedit", "conflictedit/GPT2-XL/composite_edit.json"): (2430, 866),
    ("templama", "templama_time_editing/time_editing.json"): (2067, 7),
    ("simpleqa", "simpleqa/simple_qa_test_set.csv"): (4326, 0),
}
KINDS = {
    "knowedit/wiki_counterfact_test_cf-generate-10.json": {
        ("portability", "Reasoning"): 2159,
        ("portability", "Subject_Aliasing"): 2346,
        ("portability", "Logical_Generalization"): 442,
        ("neighborhood", "Relation_Specificity"): 5172,
        ("neighborhood", "Forgetfulness"): 460,
    },
    "conflictedit/GPT2-XL/composite_edit.json": {("portability", "composite"): 1215},
    "templama_time_editing/time_editing.json": {("portability", "now"): 882},
}


def audit(cases):
    """What must hold for the probes of any corpus."""
    assert {case.fact.id for case in cases} == {
        fact.id for fact in check_facts(case.fact for case in cases)
    }
    for case in cases:
        for probe in case.probes:
            # only a neighbor that is compared with the base alone may have no answer
            assert probe.answers or probe.protocols == ("generation",), (case.fact.id, probe)
            assert all(answer.strip() for answer in probe.answers), (case.fact.id, probe)
            moved = probe.axis == "neighborhood" and any(
                contains(answer, case.fact.answers) for answer in probe.answers[:1]
            )
            assert not moved, (case.fact.id, probe)


def test_no_corpus_escapes_the_audit():
    assert {*SHIPPED, *UNPUBLISHED, *(name for name, _ in SETS)} == set(BUILTINS)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_corpora_pass_the_audit(name):
    audit(get("corpora", name)().load())


@pytest.mark.parametrize("name, file", SETS, ids=[f"{name}-{file}" for name, file in SETS])
def test_published_corpora_pass_the_audit(name, file):
    if not (REAL / file).is_file():
        pytest.skip(f"shared/data/{file} lies beside the repository on developers' machines only")
    corpus = get("corpora", name)()
    cases = corpus.load(REAL / file)
    audit(cases)
    assert (len(cases), len(corpus.skipped)) == SETS[name, file]
    assert all(reason.startswith("record ") and reason.endswith(".") for reason in corpus.skipped)
    kinds = Counter(
        (probe.axis, probe.kind) for case in cases for probe in case.probes if probe.kind
    )
    if file in KINDS:
        assert kinds == KINDS[file]
    if corpus.one_at_a_time:
        edited = {(case.fact.form, case.fact.prompt) for case in cases}
        assert not any(
            p.axis == "neighborhood" and (p.form, p.prompt) in edited
            for case in cases
            for p in case.probes
        )
