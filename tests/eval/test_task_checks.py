"""Tasks with rows that make no sense are refused, by name and row; all others are asked."""

from __future__ import annotations

import json
import math
import socket

import pytest
from hostile.tasks import (
    CHOICE,
    CLOZE,
    TEXT,
    UNASKABLE,
    UNLOADABLE,
    choice,
    text,
    write_task,
    write_unaskable,
)

from editbench.errors import DataError, EditbenchError
from editbench.eval import retention, task_rows
from editbench.testing import tiny_model


@pytest.fixture(scope="module")
def tiny():
    model = tiny_model("llama", num_hidden_layers=2, max_position_embeddings=2048)
    return model.model, model.tokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


GOOD, SAID = choice("Italy", label=1), text("Italy", answer="Rome")
PRINTED = {**TEXT, "doc_to_target": "{{answer}}"}
SENSELESS = {
    "a label beyond the choices": (CHOICE, [GOOD, choice(label=3)], r"document 2.* is 3"),
    "in the first row": (CHOICE, [choice(label=3), GOOD], "document 1.*beyond the choices"),
    "a hidden label": (CHOICE, [choice(label=-1)], "document 1.* is -1"),
    "a null label": (CHOICE, [GOOD, choice(label=None)], "document 2.* is None"),
    "NaN": (CHOICE, [GOOD, choice(label=math.nan)], "not the index"),
    "no label": (CHOICE, [choice(label=..., gold=0)], "the field 'label'.*land, choices, gold"),
    "an index as text": (CHOICE, [choice(label="1")], "'1' is none of the choices"),
    "a letter": (CHOICE, [choice(label="A")], "'A' is none of the choices"),
    "no labels": (CHOICE, [choice(label=[0]), choice(label=[])], "document 2.*list of targets"),
    "one beyond": (CHOICE, [choice(label=[0]), choice(label=[1, 7])], "document 2.* is 7"),
    "no choices": (CHOICE, [GOOD, choice(choices=[])], r"document 2, the choices are \[\]"),
    "null choices": (CHOICE, [GOOD, choice(choices=None)], "document 2, the choices are None"),
    "a null choice": (CHOICE, [GOOD, choice(choices=["Paris", None])], "document 2.* is None"),
    "an empty choice": (CHOICE, [GOOD, choice(choices=["Paris", " "])], "document 2.* is ' '"),
    "an empty one first": (CHOICE, [choice(choices=["", "Rome"])], "document 1.*choice is empty"),
    "equal choices": (CHOICE, [choice(choices=["Paris", "Paris"])], "two different choices"),
    "one choice": (CHOICE, [choice(choices=["Paris"])], "two different choices"),
    "a null prompt": (CHOICE, [GOOD, choice(land=None)], "document 2.*null"),
    "a null answer": (TEXT, [SAID, text(answer=None)], "document 2, the target is None"),
    "a printed null": (PRINTED, [SAID, text(answer=None)], "document 2.*null"),
    "an empty answer": (TEXT, [SAID, text(answer=" ")], "document 2, the target is ' '"),
    "no answers": (PRINTED, [text(answer=["Paris"]), text(answer=[])], "document 2.*empty"),
    "no answer field": (TEXT, [text(answer=..., target="Paris")], "the field 'answer'.*target"),
    "a NaN answer": (TEXT, [text(answer=1.5), text(answer=math.nan)], "document 2.* is nan"),
    "no metric": ({**TEXT, "metric_list": []}, [SAID], "no score between 0 and 1"),
    "perplexity": (
        {**CLOZE, "output_type": "loglikelihood_rolling", "metric_list": [{"metric": "acc"}]},
        [SAID],
        "perplexity",
    ),
    "a null text": (CLOZE, [SAID, text(answer=None)], "document 2, the target is None"),
    "an empty text": (CLOZE, [SAID, text(answer="")], "document 2, the target is ''"),
    "a number": (CLOZE, [text(answer=5)], "document 1, the target is 5"),
}


@pytest.mark.parametrize(("task", "rows", "message"), SENSELESS.values(), ids=SENSELESS)
def test_a_task_with_a_row_that_makes_no_sense_is_refused_alone(tmp_path, task, rows, message):
    bad = write_task(tmp_path, task, rows)
    good = write_task(tmp_path, CHOICE, [GOOD, choice()], "good")
    found = retention.unloadable([bad, good, "eb_grammar"], {})
    assert list(found) == [bad] and "capitals.yaml" in found[bad]
    with pytest.raises(DataError, match=message):
        raise DataError(found[bad].replace("\n", " "))


def refused(*args, **kwargs):
    raise OSError("no network in tests")


@pytest.mark.parametrize("name", UNLOADABLE)
def test_a_task_that_cannot_be_loaded_is_left_out_alone(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", refused)  # a metric is looked for on the hub
    bad = write_unaskable(tmp_path, name)
    good = write_task(tmp_path, CHOICE, [GOOD, choice()], "good")
    found = retention.unloadable([bad, good], {})
    assert list(found) == [bad] and "broken.yaml" in found[bad] and "\n" not in found[bad]
    with pytest.raises(DataError, match=UNLOADABLE[name][1]):
        raise DataError(found[bad])


@pytest.mark.parametrize("name", UNASKABLE)
def test_what_shows_while_a_task_is_asked_is_one_sentence(tiny, tmp_path, name):
    bad = write_unaskable(tmp_path, name)
    assert retention.unloadable([bad], {}) == {}
    with pytest.raises(EditbenchError, match=UNASKABLE[name][1]) as error:
        retention.evaluate(*tiny, [bad])
    assert "broken" in str(error.value) and "\n" not in str(error.value)


def test_it_is_refused_when_asked_as_well(tiny, tmp_path):
    name = write_task(tmp_path, CHOICE, [GOOD, choice(label=3)])
    with pytest.raises(EditbenchError, match="in document 2, the target is 3"):
        retention.evaluate(*tiny, [name])


def test_only_the_documents_that_are_asked_must_make_sense(tiny, tmp_path):
    name = write_task(tmp_path, CHOICE, [GOOD] * 9 + [choice(label=3)])
    seed = next(s for s in range(99) if 9 not in retention.draw("capitals", 10, 4, s))
    assert retention.unloadable([name], {}, 4, seed) == {} != retention.unloadable([name], {})
    assert len(retention.evaluate(*tiny, [name], limit=4, seed=seed)[name]) == 4


SENSIBLE = {
    "a target by its text": (CHOICE, [choice(label="Rome"), choice()], ["Rome", "Paris"]),
    "true and false": (
        {**CHOICE, "doc_to_choice": ["no", "yes"]},
        [choice(label=True), choice(label=False)],
        ["yes", "no"],
    ),
    "equal wrong choices": (CHOICE, [GOOD, choice(choices=["Oslo", "Rome", "Rome"])], None),
    "a row with equal choices": (CHOICE, [GOOD, choice(choices=["Oslo", "Oslo"])], None),
    "several targets": (CHOICE, [choice(label=[0, 1]), choice(label=[2])], ["[0, 1]", "[2]"]),
    "the same row twice": (CHOICE, [GOOD, GOOD], ["Rome", "Rome"]),
    "an index in a template": (
        {**CHOICE, "doc_to_target": "{{label}}"},
        [choice(label="1"), choice(label="2")],
        ["Rome", "Oslo"],
    ),
    "a number as answer": (TEXT, [text(answer=5), text(answer=0)], ["5", "0"]),
    "a field that nobody needs": (TEXT, [SAID, text(note=None)], ["Rome", "Paris"]),
    "an empty prompt": ({**CHOICE, "doc_to_text": ""}, [GOOD], ["Rome"]),
}


@pytest.mark.parametrize(("task", "rows", "expected"), SENSIBLE.values(), ids=SENSIBLE)
def test_what_makes_sense_is_asked(tiny, tmp_path, task, rows, expected):
    name = write_task(tmp_path, task, rows)
    assert retention.unloadable([name], {}) == {}
    samples = retention.evaluate(*tiny, [name])[name]
    assert expected in (None, [sample.expected for sample in samples])


def lm_eval_task(path):
    return str(task_rows.lm_eval_tasks() / path)


def test_boolq_with_another_gold_field_is_refused(tmp_path):
    name, data = lm_eval_task("super_glue/boolq/default.yaml"), tmp_path / "rows.jsonl"
    row = {"passage": "It rains.", "question": "is it wet"}
    data.write_text(json.dumps({**row, "answer": True}))
    (why,) = retention.unloadable([name], {name: data}).values()
    assert "the field 'label'" in why and "passage, question, answer" in why
    data.write_text(json.dumps({**row, "label": 1}) + "\n" + json.dumps({**row, "label": 2}))
    (why,) = retention.unloadable([name], {name: data}).values()
    assert "in document 2, the target is 2" in why
    data.write_text(json.dumps({"passage": "It rains.", "label": 1}))
    (why,) = retention.unloadable([name], {name: data}).values()
    assert "'question' is undefined" in why
    data.write_text(json.dumps({**row, "label": 1}))
    assert retention.unloadable([name], {name: data}) == {}


WINO = {
    "sentence": "The cup did not fit in the bag because _ was too large.",
    "option1": "the cup",
    "option2": "the bag",
}


def test_winogrande_expects_the_right_option(tiny, tmp_path):
    name, data = lm_eval_task("winogrande/default.yaml"), tmp_path / "rows.jsonl"
    rows = [{**WINO, "answer": answer} for answer in ("1", "2")]
    data.write_text("\n".join(map(json.dumps, rows)))
    first, second = retention.evaluate(*tiny, [name], task_data={name: data})[name]
    start = "The cup did not fit in the bag because "
    assert (first.expected, second.expected) == (f"{start}the cup", f"{start}the bag")
    assert first.output == second.output
    for sample in (first, second):
        assert sample.score == float(sample.output == sample.expected)
    data.write_text(json.dumps({**WINO, "answer": ""}))  # as in its test split
    (why,) = retention.unloadable([name], {name: data}).values()
    assert "lm-eval cannot read its rows (KeyError: '')" in why


def test_the_preferred_choice_is_one_of_the_choices_under_mutual_information(tiny, tmp_path):
    """There lm-eval asks each choice once more, without the prompt."""
    metrics = [{"metric": "acc"}, {"metric": "acc_mutual_info"}]
    name = write_task(tmp_path, {**CHOICE, "metric_list": metrics}, [GOOD, choice()])
    for sample in retention.evaluate(*tiny, [name])[name]:
        assert sample.output in GOOD["choices"] and sample.expected in GOOD["choices"]
        assert sample.score == float(sample.output == sample.expected)


@pytest.mark.parametrize("label", [-1, 1.7, "-1", "1.5", None])
def test_an_index_in_another_form_of_file_is_a_whole_number_from_0(tmp_path, label):
    path = tmp_path / "rows.jsonl"
    easy = {"query": "Question: What is hot?", "choices": ["ice", "fire"], "gold": label}
    path.write_text(json.dumps(easy))
    with pytest.raises(DataError, match="record 1: expected"):
        task_rows.hub_rows("arc_easy", path)
    numbered = {"question": "What is hot?", **{f"choice{i}": str(i) for i in range(4)}}
    path.write_text(json.dumps({**numbered, "answer": label}))
    with pytest.raises(DataError, match="record 1: expected"):
        task_rows.hub_rows("mmlu_anatomy", path)


@pytest.mark.parametrize("kind", ["Correct Answers", "Incorrect Answers"])
def test_truthfulqa_without_right_or_without_wrong_answers_is_refused(tmp_path, kind):
    row = {"Question": "Why?", "Best Answer": "So", "Correct Answers": "So"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**row, "Incorrect Answers": "No", kind: " ; "}))
    with pytest.raises(DataError, match="record 1: expected"):
        task_rows.hub_rows("truthfulqa_mc2", path)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (("a", "a"), "records 1 and 2 have the same id 'a'"),
        (("a", None), "record 2: the id is None"),
    ],
)
@pytest.mark.parametrize("place", ["", "possible_answer/"])
def test_an_answer_of_bfcl_belongs_to_one_question(tmp_path, ids, message, place):
    (tmp_path / "possible_answer").mkdir()
    questions = [{"id": i, "question": [[{"content": "Q?"}]], "function": []} for i in "ab"]
    answers = [{"id": i, "ground_truth": []} for i in "ab"]
    for row, key in zip(answers if place else questions, ids, strict=True):
        row["id"] = key
    for folder, rows in (("", questions), ("possible_answer/", answers)):
        (tmp_path / f"{folder}b.json").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=message):
        task_rows.hub_rows("bfcl_simple", tmp_path / "b.json")
