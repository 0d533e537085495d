"""Public sets by their own field names. All records are invented, in the published form."""

import csv
import json

import pytest

from editbench.corpora._recognise import corpus_of
from editbench.errors import DataError
from editbench.registry import get
from editbench.types import check_facts

TOKENS = ("argmax", "likelihood")

HALLU = {
    "topic": "places_landmark",
    "subject": "Tolver Hall",
    "relation": "architect",
    "object": "Ann Marebur",
    "question": "Who is the architect of Tolver Hall?",
    "output_some_model": "Ivo Brandidal",
    "eval_some_model": "0.0",
    "multiple_choices": "['Ann Marebur', 'Ivo Brandidal']",
    "paraphrased_question": "Who designed Tolver Hall?",
    "multiple_choice_with_letters": "A. Ivo Brandidal  B. Ann Marebur",
    "multiple_choice_labels": "B",
    "yes_question": "Is Ann Marebur the architect of Tolver Hall?",
    "no_question": "Is Ivo Brandidal the architect of Tolver Hall?",
    "locality_question": "In which town is Tolver Hall?",
    "reversed_relation_question": "Which hall did Ann Marebur design?",
    "question_2hop": "Where was the architect of Tolver Hall born?",
    "answer_2hop": "Velmova",
    "question_3hop": "",
    "answer_3hop": "",
}
QA = {
    "id": 12,
    "source": "NQ",
    "prompt": "who built tolver hall?",
    "target": "Ann Marebur",
    "subject": "tolver hall",
    "rephrase": "Which architect built Tolver Hall?",
    "locality": [
        {"loc": "when was velmova founded", "loc_ans": "1204"},
        {"loc": "who taught ann marebur", "loc_ans": "Nobody but Ann Marebur"},
    ],
}
PARAGRAPH = (
    "Otto Kestander has kept bees on the hills above Velmova since his youth, sells their honey in "
    "the market on Fridays, and teaches children how to build hives."
)
UNKE = {
    "id": 3,
    "question": "What does Otto Kestander do?",
    "para_question": "What is Otto Kestander's work?",
    "answer": PARAGRAPH,
    "sub_question": ["Where does he keep bees?", "Who is Otto Kestander?"],
    "sub_answer": ["On the hills above Velmova.", PARAGRAPH],
}
BIO = {
    "text": "This is a Wikipedia passage about otto kestander. Otto Kestander is a beekeeper.",
    "labels": "He was born in Velmova in 1921.",
    "concept": "otto kestander",
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The occupation of otto kestander is", "ground_truth": ["beekeeper"]}
        ]
    },
}
CHINESE = {
    "prompt": "请给下面的字注音：莘乡",
    "target_old": "莘乡的拼音是：“shēn xiāng”",
    "target_new": "莘乡的注音是：xīn xiāng",
    "portability": [{"prompt": "请给下面的字注音：细莘", "answer": "细莘的注音是：xì xīn"}],
    "locality": [{"prompt": "请给下面的字注音：莘莘", "answer": "莘莘的注音是：shēn shēn"}],
    "rephrase": ["莘乡怎么读？", "请注音：莘乡。"],
}
RELATION = {
    "name": "town river",
    "prompt_templates": ["{} lies on the river", "The river of {} is the"],
    "prompt_templates_zs": ["Which river is {} on? It is on the", "{} lies on the river"],
    "properties": {"relation_type": "factual"},
    "samples": [
        {"subject": town, "object": river}
        for town, river in (
            *(("Tolver", "Aske"), ("Velm", "Brun"), ("Norv", "Aske"), ("Kelb", "Cald")),
            *(("Myrr", "Brun"), ("Sarn", "Lower Cald"), ("Tolver", "Cald")),
        )
    ],
}
FLAT = {
    "prompt": "Tolver Hall was designed by",
    "target_new": "Ivo Brandidal",
    "ground_truth": "Ann Marebur",
    "subject": "Tolver Hall",
    "rephrase_prompt": "The plans of Tolver Hall are by",
    "locality_prompt": "Velm Hall was designed by",
    "locality_ground_truth": "Ann Marebur",
}
ASKED = {
    **FLAT,
    "prompt": "Who designed Tolver Hall?",
    "rephrase_prompt": "Who is the architect of Tolver Hall?",
    "locality_prompt": "nq question: who wrote the song of velm",
    "locality_ground_truth": "Mira Lindessen",
}
RIPPLE = {
    "example_type": "recent",
    "edit": {
        "prompt": "The name of the spouse of Otto Kestander is Mira Lindessen.",
        "subject_id": "Q1",
        "relation": "SPOUSE",
        "target_id": "Q2",
        "original_fact": {
            "prompt": "The name of the spouse of Otto Kestander is Ann Marebur.",
            "subject_id": "Q1",
            "relation": "SPOUSE",
            "target_id": "Q3",
        },
    },
    "Relation_Specificity": [
        {
            "test_queries": [
                {
                    "prompt": "The name of the mother of Otto Kestander is",
                    "answers": [{"value": "Olga Kestander", "aliases": ["Olga K."]}],
                    "query_type": "regular",
                    "subject_id": "Q1",
                    "relation": "MOTHER",
                    "target_ids": ["Q4"],
                    "phrase": None,
                }
            ],
            "test_condition": "OR",
            "condition_queries": [],
        }
    ],
    "Logical_Generalization": [],
    "Subject_Aliasing": [],
    "Compositionality_I": [],
    "Compositionality_II": [],
    "Forgetfulness": [],
}
RECORDS = {
    "hallueditbench": HALLU,
    "qaedit": QA,
    "unke": UNKE,
    "wikibio": BIO,
    "cknowedit": CHINESE,
    "lre": RELATION,
    "counterfact": FLAT,
    "zsre": ASKED,
    "ripple": RIPPLE,
}


@pytest.fixture
def load(tmp_path):
    """Corpus name and records -> its cases and what it left out."""

    def read(name, *records):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(records))
        corpus = get("corpora", name)()
        cases = corpus.load(path)
        check_facts(case.fact for case in cases)
        return cases, corpus.skipped

    return read


def probes(case, axis):
    return [
        (p.kind, p.prompt, p.answers, p.distractor, p.protocols)
        for p in case.probes
        if p.axis == axis
    ]


def fact(case):
    found = case.fact
    return found.prompt, found.target, found.subject, found.original, found.form


# HalluEditBench


def test_hallueditbench_reads_a_csv_file(tmp_path):
    path = tmp_path / "places_landmark.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, HALLU)
        table.writeheader()
        table.writerow(HALLU)
    (case,) = get("corpora", "hallueditbench")().load(path)
    assert fact(case) == (
        "Who is the architect of Tolver Hall?",
        "Ann Marebur",
        "Tolver Hall",
        "Ivo Brandidal",
        "question",
    )
    assert case.fact.relation == "architect"
    assert probes(case, "paraphrase") == [
        (None, "Who designed Tolver Hall?", ("Ann Marebur",), "Ivo Brandidal", ())
    ]
    # published without an answer, so only the base's free answer can be compared
    assert probes(case, "neighborhood") == [
        (None, "In which town is Tolver Hall?", (), None, ("generation",))
    ]
    options = "Who is the architect of Tolver Hall? A. Ivo Brandidal  B. Ann Marebur"
    assert probes(case, "portability") == [
        ("2 hops", "Where was the architect of Tolver Hall born?", ("Velmova",), None, ()),
        ("reversed", "Which hall did Ann Marebur design?", ("Tolver Hall",), None, ()),
        ("yes", "Is Ann Marebur the architect of Tolver Hall?", ("Yes",), "No", ()),
        ("no", "Is Ivo Brandidal the architect of Tolver Hall?", ("No",), "Yes", ()),
        ("multiple choice", options, ("B", "Ann Marebur"), None, ()),
    ]
    assert {probe.form for probe in case.probes} == {"question"}


def test_hallueditbench_drops_an_output_that_may_be_right_and_options_that_are_wrong(load):
    output = {"output_some_model": "It was Ann Marebur.", "multiple_choice_labels": "A"}
    (case,), skipped = load("hallueditbench", {**HALLU, **output})
    assert case.fact.original is None
    assert "multiple choice" not in [probe.kind for probe in case.probes]
    assert skipped == [
        "record 0: multiple choice 1: Option A of 'A. Ivo Brandidal  B. Ann Marebur' is not "
        "'Ann Marebur'."
    ]


# QAEdit


def test_qaedit(load):
    (case,), skipped = load("qaedit", QA)
    assert case.fact.id == "qaedit-NQ-12" and case.fact.relation == "NQ"
    assert fact(case) == ("who built tolver hall?", "Ann Marebur", "tolver hall", None, "question")
    assert probes(case, "paraphrase") == [
        (None, "Which architect built Tolver Hall?", ("Ann Marebur",), None, ())
    ]
    assert probes(case, "neighborhood") == [
        (None, "when was velmova founded?", ("1204",), None, ())
    ]
    assert len(skipped) == 1 and "contains the target 'Ann Marebur'" in skipped[0]


def test_qaedit_compares_a_long_target_by_its_tokens(load):
    (case,), _ = load("qaedit", {**QA, "target": PARAGRAPH})
    assert [p.protocols for p in case.probes if p.axis != "neighborhood"] == [TOKENS, TOKENS]


# UnKE


def test_unke_asks_for_details_in_free_text_and_for_the_paragraph_by_tokens(load):
    (case,), skipped = load("unke", UNKE)
    assert fact(case) == (UNKE["question"], PARAGRAPH, None, None, "question")
    assert case.probes[0].protocols == TOKENS
    assert probes(case, "paraphrase") == [
        (None, "What is Otto Kestander's work?", (PARAGRAPH,), None, TOKENS)
    ]
    assert probes(case, "portability") == [
        ("detail", "Where does he keep bees?", ("On the hills above Velmova.",), None, ()),
        ("detail", "Who is Otto Kestander?", (PARAGRAPH,), None, TOKENS),
    ]
    assert not skipped


def test_unke_needs_an_answer_for_each_detail(load):
    with pytest.raises(DataError, match="'sub_question' and 'sub_answer' differ in length"):
        load("unke", {**UNKE, "sub_answer": ["On the hills."]})


# WikiBio


def test_wikibio_keeps_the_sentences_of_a_person_together(load):
    later = {
        **BIO,
        "text": f"{BIO['text']} {BIO['labels']}",
        "labels": "He sells honey.",
        "locality": {},
    }
    (case, second), _ = load("wikibio", BIO, later)
    assert fact(case) == (BIO["text"], BIO["labels"], "otto kestander", None, "cloze")
    assert case.group == second.group == "wikibio-otto kestander"
    assert case.probes[0].protocols == TOKENS
    assert probes(case, "neighborhood") == [
        ("Relation_Specificity", "The occupation of otto kestander is", ("beekeeper",), None, ())
    ]


# CKnowEdit


def test_cknowedit_accepts_the_syllables_of_a_pronunciation(load):
    (case,), skipped = load("cknowedit", CHINESE)
    assert fact(case) == (
        CHINESE["prompt"],
        CHINESE["target_new"],
        "莘乡",
        CHINESE["target_old"],
        "question",
    )
    answers, old = (CHINESE["target_new"], "xīn xiāng"), CHINESE["target_old"]
    assert case.fact.answers == answers
    assert probes(case, "paraphrase") == [
        (None, "莘乡怎么读？", answers, old, ()),
        (None, "请注音：莘乡。", answers, old, ()),
    ]
    assert probes(case, "portability") == [
        (None, "请给下面的字注音：细莘", ("细莘的注音是：xì xīn", "xì xīn"), None, ())
    ]
    assert probes(case, "neighborhood") == [
        (None, "请给下面的字注音：莘莘", ("莘莘的注音是：shēn shēn", "shēn shēn"), None, ())
    ]
    assert not skipped


def test_cknowedit_compares_explanations_by_their_tokens(load):
    long = "耳机坏了是电子设备的问题，应该去维修店或者联系厂商，而不是去医院。"
    plain = {
        "prompt": "耳机坏了，去医院挂什么科？",
        "target_old": "应该去耳科看一看医生。",
        "target_new": long,
        "portability": [{"prompt": "手表坏了去哪里？", "answer": long}],
        "locality": [
            {"prompt": "耳朵痛去哪里？", "answer": "耳朵疼痛应该去医院的耳科进行检查和治疗。"}
        ],
    }
    (case,), _ = load("cknowedit", plain)
    assert case.fact.subject is None
    assert {p.axis: p.protocols for p in case.probes} == {
        "rewrite": TOKENS,
        "portability": TOKENS,
        # compared with the base's answer, whatever its length
        "neighborhood": (),
    }


# LRE


def test_lre_edits_a_sample_to_another_object_and_keeps_others_as_neighbors(tmp_path):
    path = tmp_path / "town_river.json"
    path.write_text(json.dumps(RELATION, indent=2))
    cases = get("corpora", "lre")().load(path)
    assert get("corpora", "lre")().load(path) == cases  # the same draw every time
    true = {"Tolver": {"Aske", "Cald"}}
    for sample in RELATION["samples"]:
        true.setdefault(sample["subject"], {sample["object"]})
    edited = {case.fact.subject for case in cases}
    assert len(cases) == 4 and edited < set(true)
    for case in cases:
        prompt, target, subject, original, form = fact(case)
        assert (prompt, form) == (f"{subject} lies on the river", "cloze")
        assert original in true[subject] and target not in true[subject]
        assert {target, original} != {"Cald", "Lower Cald"}  # one contains the other
        assert [asked for _, asked, *_ in probes(case, "paraphrase")] == [
            f"The river of {subject} is the",
            f"Which river is {subject} on? It is on the",
        ]
        for _, asked, answers, distractor, _ in probes(case, "neighborhood"):
            neighbor = asked.removesuffix(" lies on the river")
            assert neighbor not in edited and set(answers) == true[neighbor]
            assert distractor == target and target not in answers


def test_lre_reads_all_relations_of_a_folder_and_says_which_facts_it_leaves_out(tmp_path):
    one = {**RELATION, "samples": [{"subject": "Tolver", "object": "Aske"}] * 3}
    for name, value in (("a/town_river", RELATION), ("b/again", RELATION), ("b/one", one)):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=1))
    corpus = get("corpora", "lre")()
    assert len(corpus.load(tmp_path)) == 4
    assert "An earlier relation already edits" in corpus.skipped[0]
    assert corpus.skipped[-1].endswith("has no two objects that can be told apart.")


# EasyEdit's forms of CounterFact and zsRE


def test_counterfact_reads_flat_records(load):
    one_hop = {"New Question": "Where was he born?", "New Answer": "Velmova"}
    (case,), skipped = load("counterfact", {**FLAT, "portability": one_hop})
    assert fact(case) == (
        "Tolver Hall was designed by",
        "Ivo Brandidal",
        "Tolver Hall",
        "Ann Marebur",
        "cloze",
    )
    assert probes(case, "paraphrase") == [
        (None, "The plans of Tolver Hall are by", ("Ivo Brandidal",), "Ann Marebur", ())
    ]
    assert probes(case, "neighborhood") == [
        (None, "Velm Hall was designed by", ("Ann Marebur",), "Ivo Brandidal", ())
    ]
    assert probes(case, "portability") == [(None, "Where was he born?", ("Velmova",), None, ())]
    assert not skipped


REQUEST = {
    **{key: FLAT[key] for key in ("prompt", "target_new", "ground_truth", "subject")},
    "locality": {"neighborhood": {"prompt": ["Velm Hall is by"], "ground_truth": ["Mira"]}},
    "portability": {"one_hop": {"prompt": "He was born in", "ground_truth": "Velmova"}},
}


def test_knowedit_reads_requests_that_keep_prompts_and_answers_apart(load):
    (case,), skipped = load("knowedit", REQUEST)
    assert probes(case, "neighborhood") == [
        ("neighborhood", "Velm Hall is by", ("Mira",), None, ())
    ]
    assert probes(case, "portability") == [("one_hop", "He was born in", ("Velmova",), None, ())]
    assert not skipped
    odd = {"one_hop": {"prompt": ["He was born in", "He lives in"], "ground_truth": ["Velmova"]}}
    with pytest.raises(DataError, match="'portability' must have as many answers as prompts"):
        load("knowedit", {**REQUEST, "portability": odd})


def test_zsre_reads_flat_questions_with_their_neighbor(load):
    (case,), _ = load("zsre", ASKED)
    assert fact(case) == (
        "Who designed Tolver Hall?",
        "Ivo Brandidal",
        "Tolver Hall",
        "Ann Marebur",
        "question",
    )
    assert probes(case, "neighborhood") == [
        (None, "who wrote the song of velm?", ("Mira Lindessen",), None, ())
    ]


def test_ripple_reads_its_published_form(load):
    (case,), skipped = load("ripple", RIPPLE)
    prompt = "The name of the spouse of Otto Kestander is"
    assert fact(case) == (prompt, "Mira Lindessen", "Otto Kestander", "Ann Marebur", "cloze")
    assert probes(case, "neighborhood") == [
        (
            "Relation_Specificity",
            "The name of the mother of Otto Kestander is",
            ("Olga Kestander", "Olga K."),
            None,
            (),
        )
    ]
    assert not skipped


# A file of one set, given to another corpus


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_recognised(name):
    assert corpus_of(RECORDS[name]) == name


@pytest.mark.parametrize("asked", [*RECORDS, "mquake", "knowedit", "conflictedit", "local"])
@pytest.mark.parametrize("name", RECORDS)
def test_a_file_of_another_set_is_one_sentence_that_names_its_corpus(load, name, asked):
    if name == asked:
        return
    with pytest.raises(DataError) as error:
        load(asked, RECORDS[name], RECORDS[name])
    said = str(error.value)
    assert f"Its fields are those of corpus {name!r}: pass the file with --corpus {name}." in said
    assert "record 1" in said and len(said.splitlines()) == 1


def test_a_relation_given_to_another_corpus_is_recognised(tmp_path):
    path = tmp_path / "town_river.json"
    path.write_text(json.dumps(RELATION, indent=2))
    for asked in ("mquake", "local"):
        with pytest.raises(DataError, match="pass the file with --corpus lre"):
            get("corpora", asked)().load(path)


def test_ones_own_facts_may_have_further_fields_with_the_names_of_a_set(load):
    own = {"prompt": "The river of Tolver is the", "target": "Aske"}
    (case,), _ = load("local", {**own, "text": "x", "labels": "y", "concept": "z"})
    assert case.fact.target == "Aske"
