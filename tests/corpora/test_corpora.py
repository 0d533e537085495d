"""Loaders against small files written here, and against the real sets where there are any."""

import gzip
import json
from pathlib import Path

import pytest
from hostile.facts import HARMLESS, LISTS, REPEATED, UNFILLED

from editbench.errors import DataError, FactError
from editbench.registry import get
from editbench.slices import slice_cases, with_new_answers
from editbench.types import Case, check_facts

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"

ROME = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Darrieux",
    },
    "paraphrase_prompts": ["Danielle Darrieux, a native", "Danielle Darrieux spoke the language"],
    "neighborhood_prompts": [
        "Michel Rocard is a native speaker of",
        "The native language of Montesquieu is",
    ],
    "attribute_prompts": ["not read"],
    "generation_prompts": [
        "Danielle Darrieux was born in",
        "She grew up in",
        "Danielle Darrieux was born in",
    ],
}
EASYEDIT = {
    "case_id": 7,
    "prompt": "The mother tongue of Danielle Darrieux is",
    "target_new": "English",
    "subject": "Danielle Darrieux",
    "ground_truth": "French",
    "rephrase_prompt": "Where Danielle Darrieux is from, people speak",
    "locality_prompt": "Michel Rocard is a native speaker of",
    "locality_ground_truth": "French",
}
ONE_HOP = {
    "portability": {
        "Recalled Relation": "(a, b, c)",
        "New Question": "Which food is it known for?",
        "New Answer": "Pie",
    }
}
MEND = {
    "subject": "UniFirst",
    "src": "What is the product made by UniFirst?",
    "pred": "uniform",
    "rephrase": "What will be the product of UniFirst?",
    "alt": "aircraft",
    "answers": ["uniform", "workwear"],
    "loc": "nq question: who played john goodman's friend in the big lebowski",
    "loc_ans": "Jeff Bridges",
    "cond": "uniform >> aircraft || What is the product made by UniFirst?",
}
KNOWEDIT = {
    "subject": "Epaspidoceras",
    "target_new": "Noctuidae",
    "prompt": "Which family does Epaspidoceras belong to?",
    "ground_truth": ["Aspidoceratidae"],
    "rephrase_prompt": "What family are Epaspidoceras?",
    "cond": "not read",
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The taxon rank of Epaspidoceras is", "ground_truth": [["genus", "genera"]]}
        ]
    },
    "portability": {
        "Reasoning": [{"prompt": "What is it commonly called?", "ground_truth": "Owlet moths"}]
    },
}


def without(record: dict, *fields: str) -> dict:
    return {key: value for key, value in record.items() if key not in fields}


def write(path: Path, records: list) -> Path:
    """``records`` as a JSON list, or one a line, as the name of ``path`` says."""
    text = "\n".join(map(json.dumps, records)) if ".jsonl" in path.name else json.dumps(records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def load(name: str, path: Path, records: list):
    corpus = get("corpora", name)()
    return corpus.load(write(path, records)), corpus


def probes(case: Case, axis: str) -> list[tuple]:
    return [(p.prompt, p.answers, p.distractor, p.form) for p in case.probes if p.axis == axis]


# CounterFact


@pytest.mark.parametrize("name", ["cf.json", "cf.jsonl", "cf.json.gz", "cf.jsonl.gz"])
def test_counterfact_reads_rome_records(tmp_path, name):
    (case,), corpus = load("counterfact", tmp_path / name, [{**ROME, **ONE_HOP}])
    fact = case.fact
    assert (fact.id, fact.prompt, fact.target) == (
        "counterfact-7",
        "The mother tongue of Danielle Darrieux is",
        "English",
    )
    assert (fact.subject, fact.original, fact.relation, fact.form) == (
        "Danielle Darrieux",
        "French",
        "P103",
        "cloze",
    )
    assert probes(case, "paraphrase")[1] == (
        "Danielle Darrieux spoke the language",
        ("English",),
        "French",
        "cloze",
    )
    assert probes(case, "neighborhood")[0] == (
        "Michel Rocard is a native speaker of",
        ("French",),
        "English",
        "cloze",
    )
    assert probes(case, "portability") == [
        ("Which food is it known for?", ("Pie",), None, "question")
    ]
    assert corpus.skipped == [] and len(corpus.digest) == 64


def test_counterfact_passes_openings_once_and_reference_texts_where_there_are_some(tmp_path):
    texts = ["English is spoken in Kent.", "Many speak it."]
    (bare, rich), _ = load(
        "counterfact", tmp_path / "cf.json", [ROME, _another(ROME, attribute_snippets=texts)]
    )
    openings = [
        ("Danielle Darrieux was born in", ("English",), None, "cloze"),
        ("She grew up in", ("English",), None, "cloze"),
    ]
    assert probes(bare, "fluency") == probes(rich, "fluency") == openings
    assert [p.references for p in bare.probes if p.axis == "fluency"] == [(), ()]
    assert [p.references for p in rich.probes if p.axis == "fluency"] == [tuple(texts)] * 2


def _another(record, **changes):
    rewrite = {**record["requested_rewrite"], "subject": "Jean Gabin"}
    return {**record, "case_id": 8, "requested_rewrite": rewrite, **changes}


def test_counterfact_reads_easyedit_records(tmp_path):
    (case,), _ = load("counterfact", tmp_path / "cf.json", [EASYEDIT])
    (rome,), _ = load("counterfact", tmp_path / "rome.json", [without(ROME, "relation_id")])
    assert case.fact.to_dict() == without(rome.fact.to_dict(), "relation")
    assert probes(case, "paraphrase") == [
        ("Where Danielle Darrieux is from, people speak", ("English",), "French", "cloze")
    ]
    assert probes(case, "neighborhood") == [
        ("Michel Rocard is a native speaker of", ("French",), "English", "cloze")
    ]


def test_records_that_cannot_be_facts_are_counted_with_reasons(tmp_path):
    def changed(case_id, **rewrite):
        return {
            **ROME,
            "case_id": case_id,
            "requested_rewrite": {**ROME["requested_rewrite"], **rewrite},
        }

    bad = {
        "Fact 'counterfact-1': the prompt already ends with": changed(
            1, prompt="{} speaks English"
        ),
        "has no {} in place of the subject": changed(2, prompt="He speaks"),
        "Field 'requested_rewrite.target_new.str' is empty": changed(3, target_new={"str": " "}),
        "Field 'requested_rewrite.target_true' is missing": {
            "case_id": 4,
            "requested_rewrite": without(ROME["requested_rewrite"], "target_true"),
        },
        "Field 'requested_rewrite.subject' must be text, not int": changed(5, subject=3),
        "subject 'Rocard' is not in its prompt": {**EASYEDIT, "case_id": 6, "subject": "Rocard"},
        "Field 'paraphrase_prompts' is empty or has an empty text": {
            **changed(8, prompt="{} knew"),
            "paraphrase_prompts": [""],
        },
        "the target 'French' is the answer already": changed(9, target_new={"str": "French"}),
        "The id 'counterfact-7' is already that of record 0": changed(7, prompt="{} wrote in"),
        "The prompt 'The mother tongue of Danielle Darrieux is' is already "
        "that of record 0": changed(11),
        "Not a CounterFact record: expected the field requested_rewrite (ROME), or prompt, "
        "target_new, "
        "ground_truth and locality_prompt (EasyEdit); found the fields case_id, question.": {
            "case_id": 12,
            "question": "?",
        },
        "Not a CounterFact record: expected an object; found a str.": "text",
    }
    cases, corpus = load("counterfact", tmp_path / "cf.json", [ROME, *bad.values()])
    assert [case.fact.id for case in cases] == ["counterfact-7"]
    assert len(corpus.skipped) == len(bad)
    for index, (reason, record) in enumerate(bad.items(), start=1):
        place = (
            f"record {index} (case_id {record['case_id']}): "
            if isinstance(record, dict)
            else f"record {index}: "
        )
        assert corpus.skipped[index - 1].startswith(place) and reason in corpus.skipped[index - 1]


def test_loading_again_forgets_what_was_skipped(tmp_path):
    _, corpus = load("counterfact", tmp_path / "cf.json", [ROME, {}])
    corpus.load(write(tmp_path / "good.json", [ROME]))
    assert corpus.skipped == []


@pytest.mark.parametrize("name", ["counterfact", "zsre"])
def test_a_foreign_file_is_one_error_that_names_its_fields(tmp_path, name):
    with pytest.raises(
        DataError,
        match=r"foreign\.json, record 1: Not a .* record: expected the fields? .*; found "
        r"the fields question, answer\. None of the 2 records is a usable .* record\. "
        r".*--corpus local",
    ):
        load(name, tmp_path / "foreign.json", [{"question": "?", "answer": "!"}] * 2)


@pytest.mark.parametrize(
    "text, message",
    [("[]", "holds no records"), (" ", "is empty"), ("[{]", "line 1, column 3: malformed")],
)
def test_a_published_file_without_records_is_an_error(tmp_path, text, message):
    path = tmp_path / "cf.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        get("corpora", "counterfact")().load(path)


# zsRE


def test_zsre_reads_mend_records(tmp_path):
    (case,), _ = load("zsre", tmp_path / "zsre.json", [{**MEND, **ONE_HOP}])
    fact = case.fact
    assert (fact.id, fact.prompt, fact.target, fact.form) == (
        "zsre-0",
        MEND["src"],
        "aircraft",
        "question",
    )
    assert (fact.subject, fact.original) == ("UniFirst", "uniform")
    assert probes(case, "paraphrase") == [
        ("What will be the product of UniFirst?", ("aircraft",), "uniform", "question")
    ]
    loc = "who played john goodman's friend in the big lebowski?"
    assert probes(case, "neighborhood") == [(loc, ("Jeff Bridges",), None, "question")]
    assert probes(case, "portability") == [
        ("Which food is it known for?", ("Pie",), None, "question")
    ]


def test_zsre_reads_knowedit_records(tmp_path):
    (case,), _ = load("zsre", tmp_path / "zsre.jsonl", [KNOWEDIT])
    fact = case.fact
    assert (fact.prompt, fact.target, fact.original) == (
        KNOWEDIT["prompt"],
        "Noctuidae",
        "Aspidoceratidae",
    )
    assert probes(case, "paraphrase") == [
        ("What family are Epaspidoceras?", ("Noctuidae",), "Aspidoceratidae", "question")
    ]
    assert probes(case, "neighborhood") == [
        ("The taxon rank of Epaspidoceras is", ("genus", "genera"), None, "cloze")
    ]
    assert probes(case, "portability") == [
        ("What is it commonly called?", ("Owlet moths",), None, "question")
    ]


def test_zsre_leaves_out_what_cannot_be_an_edit(tmp_path):
    bad = {
        "Field 'alt' is empty": {**MEND, "alt": ""},
        "The target 'workwear' is among the true answers already": {**MEND, "alt": "workwear"},
        "The target 'Work-wear' is among the true answers already": {
            **MEND,
            "alt": "Work-wear",
            "answers": ["uniform", "work wear"],
        },
        "The old answer 'school uniform' already counts as the new answer 'uniform'": {
            **MEND,
            "alt": "uniform",
            "answers": ["school uniform"],
        },
        "has {} in place of the subject": {
            **without(MEND, "subject"),
            "src": "What is made by {}?",
        },
        "Field 'answers' is empty": {**MEND, "answers": []},
        "Field 'loc_ans' is empty": {**MEND, "loc_ans": None},
        "Field 'locality' must be an object": {**KNOWEDIT, "locality": ["x"]},
    }
    cases, corpus = load(
        "zsre", tmp_path / "zsre.json", [*bad.values(), without(MEND, "loc", "loc_ans", "rephrase")]
    )
    assert [case.fact.id for case in cases] == [f"zsre-{len(bad)}"]
    assert [p.axis for p in cases[0].probes] == ["rewrite"]
    for index, reason in enumerate(bad):
        assert (
            corpus.skipped[index].startswith(f"record {index}: ")
            and reason in corpus.skipped[index]
        )


# Local


def local(path: Path, content: str | bytes) -> list[Case]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return get("corpora", "local")().load(path)


def error_of(path: Path, content: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        local(path, content)
    assert str(path) in str(caught.value)
    return str(caught.value)


SYDNEY = {"prompt": "The capital of Australia is", "target": "Sydney"}


@pytest.mark.parametrize(
    "name, content",
    [
        ("facts.jsonl", '{"prompt": "The capital of Australia is", "target": "Sydney"}\n\n'),
        ("facts.json", json.dumps([SYDNEY], indent=2)),
        ("facts.csv", "prompt,target\nThe capital of Australia is,Sydney\n"),
        ("facts.csv", b"\xef\xbb\xbfprompt, target\r\nThe capital of Australia is,Sydney\r\n,\r\n"),
        ("facts.tsv", "target\tprompt\nSydney\tThe capital of Australia is\n"),
        (
            "facts.csv.gz",
            gzip.compress(b"prompt,target\nThe capital of Australia is,Sydney\n", mtime=0),
        ),
    ],
)
def test_local_needs_no_more_than_prompt_and_target(tmp_path, name, content):
    (case,) = local(tmp_path / name, content)
    assert case.fact.to_dict() == {"id": "facts-1", **SYDNEY, "form": "cloze"}
    assert [p.axis for p in case.probes] == ["rewrite"]


def test_local_reads_every_field(tmp_path):
    record = {
        "id": 12,
        **SYDNEY,
        "subject": "Australia",
        "original": "Canberra",
        "aliases": ["Sydney, NSW"],
        "demonstration": "Since 2031 it is Sydney.",
        "relation": "P36",
        "paraphrases": ["Where does Australia's government sit?", "Australia is governed from"],
        "neighborhoods": [
            {"prompt": "The capital of France is", "answer": "Paris"},
            {
                "prompt": "What is the capital of Chad?",
                "answer": ["N'Djamena", "Ndjamena"],
                "distractor": "Abeche",
            },
        ],
        "probes": [
            {"axis": "portability", "prompt": "Its parliament is in", "answers": ["Sydney"]}
        ],
    }
    (case,) = local(tmp_path / "facts.jsonl", json.dumps(record))
    assert case.fact.to_dict() == {
        **without(record, "paraphrases", "neighborhoods", "probes"),
        "id": "12",
        "form": "cloze",
    }
    answers = ("Sydney", "Sydney, NSW")
    assert probes(case, "paraphrase") == [
        ("Where does Australia's government sit?", answers, "Canberra", "question"),
        ("Australia is governed from", answers, "Canberra", "cloze"),
    ]
    assert probes(case, "neighborhood") == [
        ("The capital of France is", ("Paris",), "Sydney", "cloze"),
        ("What is the capital of Chad?", ("N'Djamena", "Ndjamena"), "Abeche", "question"),
    ]
    assert probes(case, "portability") == [("Its parliament is in", ("Sydney",), None, "cloze")]
    assert local(tmp_path / "again.jsonl", json.dumps(case.to_dict())) == [case]


def test_local_form_follows_the_question_mark_unless_given(tmp_path):
    asked = local(tmp_path / "asked.csv", "prompt,target\n法国的首都是哪里？,巴黎\n")
    assert asked[0].fact.form == "question"
    lines = [
        '{"prompt": "Who won?", "target": "Us"}',
        '{"prompt": "Who won? It was", "target": "us", "paraphrases": ["Who?"]}',
    ]
    lines.append(
        '{"prompt": "Name the winner", "target": "us", "form": "question", '
        '"paraphrases": ["Tell the winner"]}'
    )
    cases = local(tmp_path / "facts.jsonl", "\n".join(lines))
    assert [[p.form for p in case.probes] for case in cases] == [
        ["question"],
        ["cloze", "question"],
        ["question", "question"],
    ]


def test_local_leaves_out_aliases_that_the_old_answer_contains(tmp_path):
    record = {
        "prompt": "It is in",
        "target": "New York City",
        "original": "the State of New York",
        "aliases": ["NYC", "New York", "State of New York"],
        "paraphrases": ["One finds it in"],
    }
    (case,) = local(tmp_path / "facts.jsonl", json.dumps(record))
    assert [probe.answers for probe in case.probes] == [("New York City", "NYC")] * 2
    assert with_new_answers([case]) == ([case], [])


def test_local_table_cells_hold_several_texts(tmp_path):
    text = (
        'prompt,target,aliases,paraphrases,subject\n"Bonn, then","Rhine\ncity",A|B,,\n'
        "X is,y,,X was|Is X?,X\n"
    )
    first, second = local(tmp_path / "facts.csv", text)
    assert (
        first.fact.prompt == "Bonn, then"
        and first.fact.aliases == ("A", "B")
        and first.fact.subject is None
    )
    assert second.fact.id == "facts-2" and [p.form for p in second.probes] == [
        "cloze",
        "cloze",
        "question",
    ]


def test_local_json_text_may_hold_a_line_separator(tmp_path):
    (case,) = local(tmp_path / "facts.jsonl", '{"prompt": "a\u2028b", "target": "c"}\r\n')
    assert case.fact.prompt == "a\u2028b"


@pytest.mark.parametrize(
    "name, content, parts",
    [
        ("f.jsonl", "\n \n", ["is empty"]),
        ("f.json", "[]", ["holds no records"]),
        ("f.csv", "prompt,target\n\n", ["holds no records"]),
        (
            "f.jsonl",
            b'{"prompt": "\xc3\xa9", "target": "b"}\n{"prompt": "caf\xe9"}',
            ["line 2: byte 0xe9 is not UTF-8", "from Excel as 'CSV UTF-8' or .xlsx"],
        ),
        ("f.csv", "prompt,target\na,b".encode("utf-16")[:-1], ["begins like UTF-16", "damaged"]),
        (
            "f.jsonl",
            '{"prompt": "a", "target": "b"}\n{"prompt": "a" "target"}',
            ["line 2, column 16: malformed JSON"],
        ),
        ("f.json", '[{"prompt": "a"},\n {"prompt" 1}]', ["line 2, column 12: malformed JSON"]),
        (
            "f.txt",
            "Sydney is big",
            ["line 1, column 1: malformed JSON", "name a table .csv or .tsv"],
        ),
        ("f.csv.gz", gzip.compress(b"prompt,target\na,b\n", mtime=0)[:-9], ["damaged gzip"]),
        (
            "f.csv",
            "promt,target\na,b\n",
            [
                "header: column 'prompt' is missing. Found: promt, target. Did you mean 'promt'? "
                "Rename it, or pass --prompt-column 'promt'."
            ],
        ),
        ("f.csv", "question,object\na,b\n", ["Did you mean 'question'? Rename it, or pass --pro"]),
        ("f.csv", "prompt,object\na,b\n", ["pass --target-column 'object'"]),
        (
            "f.csv",
            "prompt|target\na|b\n",
            ["the header is one name, 'prompt|target'", "semicolons"],
        ),
        (
            "f.csv",
            "prompt,target,alias\na,b,c\n",
            ["header: column 'alias' would not be read. Did you mean 'aliases'?"],
        ),
        (
            "f.csv",
            "prompt,target\na,b\nx, y, z\n",
            ["line 3: 3 columns, but the header has 2 (prompt, target)"],
        ),
        ("f.csv", 'prompt,target\na,b\n"x,y\n', ["line 3: malformed table"]),
        ("f.csv", 'prompt,target\n"a\nb",c\nx,\n', ["line 4: ", "field 'target' is empty"]),
        ("f.jsonl", '{"prompt": "a"}', ["line 1: field 'target' is missing. Found: prompt."]),
        (
            "f.jsonl",
            '{"prompt": "a", "target": ""}',
            ["line 1: ", "'f-1'", "field 'target' is empty"],
        ),
        ("f.jsonl", '{"prompt": "a", "target": null}', ["field 'target' is empty"]),
        (
            "f.jsonl",
            '{"prompt": "a", "target": {"b": 1998}}',
            ["line 1: field 'target' must be text, not {\"b\": 1998}."],
        ),
        ("f.jsonl", '{"prompt": "a", "target": "b", "id": ["x"]}', ["field 'id' must be text"]),
        (
            "f.jsonl",
            '{"prompt": "a", "target": "b", "aliases": [null]}',
            ["field 'aliases' must be a list of texts, not [null]"],
        ),
        (
            "f.jsonl",
            '{"prompt": "a", "target": "b", "aliases": {"c": 1}}',
            ["field 'aliases' must be a list of texts"],
        ),
        (
            "f.jsonl",
            '{"prompt": "a", "target": "b", "subjet": "a"}',
            ["field 'subjet' would not be read. Did you mean 'subject'?"],
        ),
        (
            "f.jsonl",
            '{"prompt": "a", "target": "b", "form": "poem"}',
            ["form is 'poem'; it must be one of cloze, question"],
        ),
        (
            "f.jsonl",
            '{"prompt": "a is", "target": "b", "subject": "A"}',
            ["line 1: ", "subject 'A' is not in its prompt 'a is'"],
        ),
        (
            "f.jsonl",
            '{"prompt": "a is b", "target": "b"}',
            ["the prompt already ends with the target 'b'"],
        ),
        (
            "f.jsonl",
            '["a", "b"]',
            ["record 1: expected an object with 'prompt' and 'target'; found \"a\""],
        ),
        (
            "f.jsonl",
            '{"prompt": "a", "target": "b", "neighborhoods": ["c"]}',
            ["'neighborhoods' must be a list of objects"],
        ),
        (
            "f.csv",
            "prompt,target,neighborhoods\na,b,c\n",
            ["field 'neighborhoods' is \"c\"; write PROMPT => ANSWER"],
        ),
        (
            "f.jsonl",
            '{"prompt": "a", "target": "b", "neighborhoods": [{"prompt": "c", "anser": "d"}]}',
            [
                "line 1: neighborhood field 'answer' is missing. Found: prompt, anser. Did you "
                "mean 'anser'?"
            ],
        ),
        (
            "f.jsonl",
            '{"prompt": "a", "target": "b", "neighborhoods": [{"prompt": "c", "answer": ""}]}',
            ["The neighborhood probe 'c' has no expected answer"],
        ),
        (
            "f.jsonl",
            '{"prompt": "a", "target": "b", '
            '"probes": [{"axis": "far", "prompt": "c", "answers": ["d"]}]}',
            ["line 1: Probe axis 'far' is not one of"],
        ),
        (
            "f.jsonl",
            '{"prompt": "a", "target": "b", '
            '"probes": [{"axis": "portability", "prompt": [5], "answers": ["d"]}]}',
            ["field 'prompt' must be text, not [5]"],
        ),
    ],
)
def test_local_errors_name_file_line_and_field(tmp_path, name, content, parts):
    message = error_of(tmp_path / name, content)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", [*REPEATED, *LISTS, *UNFILLED])
def test_a_file_that_says_two_things_is_refused(tmp_path, name):
    content, parts = (REPEATED | LISTS | UNFILLED)[name]
    message = error_of(tmp_path / name, content)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", HARMLESS)
def test_a_file_that_says_one_thing_is_read(tmp_path, name):
    (case,) = local(tmp_path / name, HARMLESS[name])
    assert case.fact.target in ("b", "dict", "['a', 'b']")
    wanted = {"list.jsonl": ("c", "d"), "brackets.csv": ("[sic] c", "(d)")}
    assert case.fact.aliases == wanted.get(name, ())
    assert [probe.axis for probe in case.probes] == ["rewrite"]


def test_a_published_file_with_a_repeated_key_names_the_record(tmp_path):
    twice = json.dumps(ROME).replace('"case_id": 7', '"case_id": 7, "case_id": 8')
    path = tmp_path / "cf.json"
    path.write_text(f"[{json.dumps(EASYEDIT)}, {twice}]")
    with pytest.raises(DataError, match="record 2: an object has 'case_id' twice"):
        get("corpora", "counterfact")().load(path)


def test_local_lists_the_bad_lines_after_the_first(tmp_path):
    lines = ['{"prompt": "a", "target": "b"}'] + ['{"prompt": "a", "target": ""}'] * 8
    message = error_of(tmp_path / "f.jsonl", "\n".join(lines))
    assert "line 2: " in message and message.endswith(
        " 7 more bad lines follow: 3, 4, 5, 6, 7 and 2 more."
    )
    assert error_of(tmp_path / "f.jsonl", "\n".join(lines[:3])).endswith(
        " 1 more bad line follows: 3."
    )


def test_local_ids_of_duplicates_count_the_rows(tmp_path):
    cases = local(tmp_path / "f.csv", "prompt,target\na,b\n\na,c\n")
    with pytest.raises(FactError, match="'f-1' and 'f-2' contradict"):
        check_facts(case.fact for case in cases)


def test_local_wants_a_file(tmp_path):
    corpus = get("corpora", "local")()
    with pytest.raises(DataError, match="--facts FILE"):
        corpus.load()
    with pytest.raises(DataError, match="File .*nowhere.jsonl does not exist"):
        corpus.load(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="Cannot read .*: Is a directory"):
        corpus.load(str(tmp_path))


# Real sets

CF, CF_EDIT = "counterfact/counterfact.json", "counterfact/counterfact-edit.json"
REAL_SETS = [
    # corpus, file, cases, left out, least number of paraphrase, neighborhood and portability probes
    ("counterfact", CF, 1129, 0, (2, 10, 0)),
    ("counterfact", CF_EDIT, 9917, 83, (1, 1, 0)),
    ("counterfact", "counterfact/counterfact_portability_gpt4.json", 1031, 0, (2, 10, 1)),
    ("counterfact", "counterfact/counterfact_distracting_neighbor.json", 804, 0, (2, 10, 1)),
    ("zsre", "zsre/zsre_mend_eval_portability_gpt4.json", 1002, 35, (1, 1, 1)),
    ("zsre", "zsre/zsre_mend_train-1k.json", 971, 29, (1, 1, 0)),
    ("zsre", "zsre/ZsRE-test-all.json", 1240, 69, (1, 0, 1)),
]


@pytest.mark.parametrize(
    "name, file, n_cases, n_skipped, n_probes", REAL_SETS, ids=[row[1] for row in REAL_SETS]
)
def test_real_sets_load(name, file, n_cases, n_skipped, n_probes):
    if not (REAL / file).is_file():
        pytest.skip(f"shared/data/{file} lies beside the repository on developers' machines only")
    corpus = get("corpora", name)()
    cases = corpus.load(REAL / file)
    assert (len(cases), len(corpus.skipped)) == (n_cases, n_skipped)
    facts = check_facts(case.fact for case in cases)
    assert all(fact.subject and fact.original and fact.form == corpus.form for fact in facts)
    for axis, least in zip(("paraphrase", "neighborhood", "portability"), n_probes, strict=True):
        assert min(len(probes(case, axis)) for case in cases) == least
    dev, test = (slice_cases(cases, part, None, 0) for part in ("dev", "test"))
    assert len(dev) + len(test) == len(cases) and len(dev) > 0.2 * len(cases)
    assert not {case.fact.subject for case in dev} & {case.fact.subject for case in test}
