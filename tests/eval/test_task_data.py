"""Tasks beside the pack: files in other forms, groups from a folder, task files, and failures."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zipfile
from pathlib import Path

import pytest
from hostile.tasks import CHOICE, write_task

from editbench.errors import DataError, OptionError
from editbench.eval import retention, standard_tasks, task_rows
from editbench.eval.tasks import bfcl
from editbench.testing import tiny_model

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def tiny():
    model = tiny_model("llama", num_hidden_layers=2, max_position_embeddings=2048)
    return model.model, model.tokenizer


def shared(name):
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not in ../shared/data")
    return SHARED / name


def as_csv(path, *rows):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# Forms


def test_a_damaged_file_is_named(tmp_path):
    whole = gzip.compress(b'{"a": 1}\n' * 100)
    for name, content in (
        ("cut.jsonl.gz", whole[:-9]),
        ("bent.jsonl.gz", whole[:12] + b"\xff" * 9),
        ("no.parquet", b"PAR1"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            task_rows.read_rows(tmp_path / name)


def test_a_csv_with_numbered_choices_is_asked_as_mmlu(tiny, tmp_path):
    row = {
        "question": "What is hot, says the cook?",
        "choice0": "ice",
        "choice1": "snow, rain",
        "choice2": "fire",
        "choice3": "fog",
    }
    path = as_csv(tmp_path / "anatomy_test.csv", {**row, "answer": 2})
    assert task_rows.hub_rows("mmlu_anatomy", path) == [
        {"question": row["question"], "choices": ["ice", "snow, rain", "fire", "fog"], "answer": 2}
    ]
    as_csv(path, {**row, "answer": "C"})
    with pytest.raises(
        DataError,
        match=r"anatomy_test.csv, record 1: expected .*answer \(0 to 3\); found question, choice0",
    ):
        task_rows.hub_rows("mmlu_anatomy", path)


@pytest.mark.parametrize("field", ['"hot, and so on', "x" * 200_000])
def test_a_csv_that_is_none_is_refused(tmp_path, field):
    """An open quote would swallow all further rows; a field may not be of any length."""
    path = tmp_path / "anatomy_test.csv"
    path.write_text(
        f"question,choice0,choice1,choice2,choice3,answer\nWhat?,a,b,c,{field},1\nWhat?,a,b,c,d,2\n"
    )
    with pytest.raises(DataError, match=r"anatomy_test.csv, line \d: not CSV"):
        task_rows.hub_rows("mmlu_anatomy", path)


def test_truthfulqa_puts_the_best_answer_against_the_wrong_ones(tmp_path):
    row = {
        "Question": "Why?",
        "Best Answer": "So",
        "Correct Answers": "So; Thus",
        "Incorrect Answers": "No; Never; ",
    }
    (found,) = task_rows.hub_rows("truthfulqa_mc1", as_csv(tmp_path / "t.csv", row))
    assert found["mc1_targets"] == {"choices": ["So", "No", "Never"], "labels": [1, 0, 0]}
    assert found["mc2_targets"] == {
        "choices": ["So", "Thus", "No", "Never"],
        "labels": [1, 1, 0, 0],
    }


CALL = {"area": {"base": [10], "height": [5], "unit": ["units", ""]}}


def call_files(folder, answers=CALL):
    """One question and its possible answers, as the original's repository has them."""
    (folder / "possible_answer").mkdir()
    parameters = {
        "type": "dict",
        "properties": {"base": {"type": "integer"}},
        "required": ["base", "height"],
    }
    question = [[{"role": "user", "content": "Base 10, height 5?"}]]
    row = {
        "id": "simple_0",
        "question": question,
        "function": [{"name": "area", "parameters": parameters}],
    }
    (folder / "simple.json").write_text(json.dumps(row))
    (folder / "possible_answer" / "simple.json").write_text(
        json.dumps({"id": "simple_0", "ground_truth": [answers]})
    )
    return folder / "simple.json"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("[area(base=10, height=5)]", 1),
        ("area(height=5, base=10, unit='Units')", 1),
        ("```python\n[area(base=10, height=5)]\n```", 1),
        ("[area(base=10)]", 0),
        ("[area(base=10, height='5')]", 0),
        ("[area(base=10, height=True)]", 0),
        ("[area(base=10, height=5, depth=1)]", 0),
        ("[area(10, 5)]", 0),
        ("[area(base=10, height=5), area(base=10, height=5)]", 0),
        ("[shape.area(base=10, height=5)]", 0),
        ("The area is 25.", 0),
        ("[area(base=10, height=", 0),
        ("[area(base=__import__('os'), height=5)]", 0),
        ("", 0),
    ],
)
def test_a_python_call_is_matched_with_the_possible_answers(tmp_path, text, score):
    (doc,) = task_rows.hub_rows("bfcl_simple", call_files(tmp_path))
    assert "Base 10, height 5?" in bfcl.asked(doc) and '"area"' in bfcl.asked(doc)
    assert bfcl.called(doc, [text]) == {"call": score}


def test_nested_arguments_are_matched_key_by_key():
    answers = [{"name": ["Tom", "tom b."], "tags": [["a", "b"]], "age": [3, ""]}]
    assert bfcl._among({"name": "Tom B", "tags": ("A", "b")}, answers)
    assert not bfcl._among({"name": "Tom", "tags": ["b", "a"]}, answers)
    assert not bfcl._among({"tags": ["a", "b"]}, answers)
    assert bfcl._among([{"x": 1}, {"x": 2}], [[{"x": [1]}, {"x": [2, 3]}]])
    assert not bfcl._among([{"x": 1}], [[{"x": [1]}, {"x": [2]}]])


def test_every_possible_answer_of_bfcl_passes_its_own_check():
    docs = task_rows.hub_rows("bfcl_simple", shared("bfcl/BFCL_v4_simple_python.json"))
    assert len(docs) == 400
    for doc in docs:
        ((name, possible),) = json.loads(doc["answers"])[0].items()
        required = json.loads(doc["functions"])[0]["parameters"]["required"]
        said = {
            key: [v for v in values if v != ""] if key in required else values
            for key, values in possible.items()
        }
        given = {key: _first(values) for key, values in said.items() if values[0] != ""}
        text = f"[{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})]"
        assert bfcl.called(doc, [text]) == {"call": 1}, text
        assert bfcl.called(doc, [text.replace(name, "other")]) == {"call": 0}


def _first(values):
    """A call's argument out of its possible answers."""
    value = values[0]
    if isinstance(value, dict):
        return {key: _first(inner) for key, inner in value.items() if inner[0] != ""}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_first([item]) for item in value]
    return value


def test_the_answers_of_bfcl_count_as_its_data(tmp_path):
    path = call_files(tmp_path)
    before = retention.data_digest("bfcl_simple", path)
    (tmp_path / "possible_answer" / "simple.json").write_text(
        json.dumps({"id": "simple_0", "ground_truth": [{"area": {}}]})
    )
    assert retention.data_digest("bfcl_simple", path) != before
    (tmp_path / "possible_answer" / "simple.json").write_text('{"id": "other", "ground_truth": []}')
    with pytest.raises(DataError, match=r"simple.json, record 1: expected .*possible_answer"):
        task_rows.hub_rows("bfcl_simple", path)


def test_a_task_of_ours_without_data_says_what_to_give():
    assert retention.resolve_tasks("bfcl_simple", {}) == ["bfcl_simple"]
    with pytest.raises(
        DataError, match=r"BFCL_v4_simple_python.json.*--task-data bfcl_simple=PATH"
    ):
        standard_tasks.from_hub("bfcl_simple")


def test_ifeval_needs_its_graders(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(standard_tasks, "find_spec", lambda name: None)
    path = tmp_path / "if.jsonl"
    path.write_text("{}")
    assert "langdetect" in retention.unloadable(["ifeval"], {"ifeval": path})["ifeval"]
    with pytest.raises(OptionError, match=r'langdetect.*pip install "lm_eval\[ifeval\]"'):
        standard_tasks.from_file("ifeval", path)


def test_ifeval_runs_from_a_local_file_through_the_chat_template(tmp_path, monkeypatch):
    pytest.importorskip("langdetect")
    pytest.importorskip("immutabledict")
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    path = tmp_path / "if.jsonl"
    many = {"relation": "at least", "num_words": 2000}
    asked = [
        ("No comma.", ["punctuation:no_comma"], [{}]),
        ("Much.", ["length_constraints:number_words"], [many]),
    ]
    fields = ("key", "prompt", "instruction_id_list", "kwargs")
    path.write_text(
        "\n".join(
            json.dumps(dict(zip(fields, (i, *row), strict=True))) for i, row in enumerate(asked)
        )
    )
    with pytest.raises(
        OptionError,
        match="NLTK's punkt_tab.*nltk.downloader punkt_tab.*llama-index-core.*NLTK_DATA",
    ):
        standard_tasks.from_file("ifeval", path)
    (tmp_path / "tokenizers" / "punkt_tab").mkdir(parents=True)
    model = tiny_model("llama", chat=True, num_hidden_layers=2, max_position_embeddings=2048)
    samples = retention.evaluate(
        model.model, model.tokenizer, ["ifeval"], task_data={"ifeval": path}
    )["ifeval"]
    assert [s.metric for s in samples] == ["prompt_level_strict_acc,chat"] * 2
    turns = [[{"role": "user", "content": prompt}] for prompt, *_ in asked]
    assert [s.prompt for s in samples] == [
        model.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        for turn in turns
    ]
    assert [s.score for s in samples] == [
        float(bool(samples[0].output.strip()) and "," not in samples[0].output),
        0.0,
    ]


# Names that begin alike


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *((name, True) for name in ("mmlu", "mmlu_anatomy", "arc_easy", "arc_challenge", "gsm8k")),
        *((name, True) for name in ("hellaswag", "truthfulqa_mc1", "truthfulqa_mc2")),
        *((name, False) for name in ("mmlu_pro", "mmlu_pro_biology", "mmlu_redux_anatomy")),
        *((name, False) for name in ("mmlu_stem", "mmlu_anatomy_generative", "mmlu_")),
        *((name, False) for name in ("arc_challenge_chat", "gsm8k_cot", "gsm8k_platinum")),
        *((name, False) for name in ("hellaswag_de", "truthfulqa_gen", "truthfulqa")),
    ],
)
def test_a_form_is_of_one_dataset_whatever_begins_alike(name, known):
    assert (task_rows.form(name) is not None) == known


PRO = {"question": "Which?", "options": ["a", "b"], "answer": "B", "answer_index": 1}
SUBJECTS = (
    "biology business chemistry economics engineering health history law math other philosophy "
    "physics psychology"
).split()


def rows_of(folder, name, *rows):
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def index(monkeypatch):
    """Make lm-eval's index of a few folders instead of all, which takes ten seconds."""
    from lm_eval.tasks import TaskManager

    names = ("mmlu_pro", "mmlu/default", "arc", "truthfulqa", "gsm8k", "gsm8k_platinum")
    folders = [task_rows.lm_eval_tasks() / name for name in names]
    manager = TaskManager(include_defaults=False, include_path=folders)
    monkeypatch.setattr(standard_tasks, "_manager", lambda: manager)


def test_mmlu_pro_is_fed_by_one_file_and_asked_by_subject(tmp_path, index):
    thought = {"cot_content": "A: Let's think step by step. The answer is (B)."}
    rows = [
        {**PRO, **thought, "category": category} for category in (*SUBJECTS, "computer science")
    ]
    path = rows_of(tmp_path, "test", *rows)
    assert retention.unloadable(["mmlu_pro"], {"mmlu_pro": path}) == {}
    tasks = standard_tasks.from_file("mmlu_pro", path)
    assert len(tasks) == 14 and "mmlu_pro_computer_science" in tasks
    assert [doc["category"] for doc in tasks["mmlu_pro_law"].eval_docs] == ["law"]
    # The examples come from the training split, and never from the documents that are asked.
    rows_of(tmp_path, "train", *(row for row in rows for _ in range(5)))
    task = standard_tasks.from_file("mmlu_pro_law", tmp_path)["mmlu_pro_law"]
    assert task.get_config("num_fewshot") == 5 and len(list(task.fewshot_docs())) == 5
    assert len(task.eval_docs) == 1


@pytest.mark.parametrize("name", ["mmlu_stem", "ai2_arc", "truthfulqa"])
def test_a_group_of_several_datasets_says_so(tmp_path, name, index):
    path = rows_of(tmp_path, "rows", PRO)
    with pytest.raises(
        DataError, match="is a group, and one file cannot feed all its tasks. Name its tasks"
    ):
        standard_tasks.from_file(name, path)


def test_a_task_that_reads_its_data_itself_says_so(tmp_path):
    path = rows_of(tmp_path, "rows", PRO)
    with pytest.raises(DataError, match="'squadv2' reads its data by its own code"):
        standard_tasks.from_file("squadv2", path)


def test_examples_in_a_task_file_stay_and_lost_ones_are_said(tiny, tmp_path, index):
    path = rows_of(tmp_path, "rows", {"question": "1 + 1?", "answer": "It is 2. #### 2"})
    prompts, metrics = {}, {}
    for name in ("gsm8k", "gsm8k_platinum", "gsm8k_cot", "gsm8k_cot_zeroshot"):
        (sample,) = retention.evaluate(*tiny, [name], task_data={name: path})[name]
        prompts[name], metrics[name] = sample.prompt, sample.metric
    assert prompts["gsm8k"] == prompts["gsm8k_platinum"] == "Question: 1 + 1?\nAnswer:"
    assert prompts["gsm8k_cot"].count("Q: ") == 9
    assert metrics == {
        "gsm8k": "exact_match,flexible-extract,0-shot",
        "gsm8k_platinum": "exact_match,strict-match,0-shot",
        "gsm8k_cot": "exact_match,strict-match",
        "gsm8k_cot_zeroshot": "exact_match,strict-match",
    }


def test_a_task_file_with_the_name_of_a_known_task_has_its_own_fields(tmp_path):
    rows = [{"land": "France", "choices": ["Paris", "Rome"], "label": 0}]
    name = write_task(tmp_path, CHOICE, rows, "hellaswag")
    path = rows_of(tmp_path, "other", *rows)
    assert retention.unloadable([name], {name: path}) == {}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((1, [1]), "the field 'label' is a number in record 1 and a list in record 2"),
        ((None, "yes", 1), "the field 'label' is a text in record 2 and a number in record 3"),
        ((1, {"a": 1}), "a number in record 1 and an object in record 2"),
    ],
)
def test_a_field_of_two_types_is_named(tmp_path, labels, said):
    row = {"goal": "To get wet,", "sol1": "go out", "sol2": "stay in"}
    path = rows_of(tmp_path, "rows", *({**row, "label": label} for label in labels))
    assert said in retention.unloadable(["piqa"], {"piqa": path})["piqa"]
    whole = rows_of(tmp_path, "whole", *({**row, "label": label} for label in (1, 0)))
    assert retention.unloadable(["piqa"], {"piqa": whole}) == {}


def test_whole_numbers_of_numpy_are_numbers(tmp_path):
    path = rows_of(tmp_path, "rows", {"text": "Hi", "toxicity_ai": 1.0, "toxicity_human": 1.0})
    assert retention.unloadable(["toxigen"], {"toxigen": path}) == {}


# Groups


def sentences(folder, *left_out):
    """A folder of BLiMP files, one pair each, without the subjects ``left_out``."""
    folder.mkdir()
    root = task_rows.lm_eval_tasks() / "blimp"
    for yaml in root.glob("[!_]*.yaml"):
        if yaml.stem not in left_out:
            pair = {
                "sentence_good": f"Tom saw {yaml.stem}.",
                "sentence_bad": f"saw Tom {yaml.stem}.",
            }
            (folder / f"{yaml.stem}.jsonl").write_text(json.dumps(pair))
    return folder


def test_a_group_is_asked_from_a_folder_or_a_zip(tiny, tmp_path):
    folder = sentences(tmp_path / "data")
    packed = tmp_path / "data.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"data/{file.name}")
    assert retention.resolve_tasks("blimp", {"blimp": packed}) == ["blimp"]
    found = retention.evaluate(*tiny, ["blimp"], task_data={"blimp": packed})["blimp"]
    assert len(found) == 67 and {s.task for s in found} >= {
        "blimp_causative",
        "blimp_adjunct_island",
    }
    assert next(s.expected for s in found if s.task == "blimp_causative") == "Tom saw causative."
    assert retention.evaluate(*tiny, ["blimp"], task_data={"blimp": folder})["blimp"] == found


def test_a_group_with_a_missing_file_is_refused(tmp_path):
    folder = sentences(tmp_path / "data", "causative", "adjunct_island")
    with pytest.raises(DataError, match=r"lacks 2 of 67 files, such as adjunct_island.jsonl"):
        standard_tasks.from_file("blimp", folder)
    with pytest.raises(DataError, match=r"expected a folder or a zip with SUBJECT_test.csv"):
        standard_tasks.from_file("mmlu", folder / "principle_A_case_2.jsonl")


@pytest.mark.parametrize(
    ("name", "path", "members"), [("blimp", "blimp/BLiMP.zip", 67), ("mmlu", "mmlu", 57)]
)
def test_real_groups_are_read_whole(name, path, members):
    tasks = standard_tasks.from_file(name, shared(path))
    assert (
        len(tasks) == members
        and sum(len(task.eval_docs) for task in tasks.values())
        == {"blimp": 67_000, "mmlu": 14_042}[name]
    )


# A task file of one's own

TASK = """\
task: capitals
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{{{land}}}} is"
doc_to_choice: ["Paris", "Rome"]
doc_to_target: answer
process_docs: !function mine.kept
metric_list:
  - metric: acc
"""
CODE = "def kept(docs):\n    return docs.filter(lambda doc: doc['land'] != 'Spain')\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with ``task.yaml``, its code and its data."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [
        {"land": "France", "answer": 0},
        {"land": "Italy", "answer": 1},
        {"land": "Spain", "answer": 0},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "task.yaml").write_text(TASK.format(data=tmp_path / "rows.jsonl"))
    return tmp_path


def test_a_task_file_is_asked_by_its_path(own, tiny):
    name = str(own / "task.yaml")
    assert retention.resolve_tasks(f"eb_grammar,{name}", {}) == ["eb_grammar", name]
    samples = retention.evaluate(*tiny, [name])[name]
    assert [(s.task, s.prompt, s.expected) for s in samples] == [
        ("capitals", "The capital of France is", "Paris"),
        ("capitals", "The capital of Italy is", "Rome"),
    ]
    (own / "more.jsonl").write_text('{"land": "Latium", "answer": 1}')
    (sample,) = retention.evaluate(*tiny, [name], task_data={name: own / "more.jsonl"})[name]
    assert sample.prompt == "The capital of Latium is"


@pytest.mark.parametrize("part", ["task.yaml", "mine.py", "rows.jsonl", "base"])
def test_whatever_a_task_file_names_is_in_its_digest(own, part):
    (own / "base").write_text("tag: mine\n")
    (own / "task.yaml").write_text("include: base\n" + (own / "task.yaml").read_text())
    before = retention.data_digest(str(own / "task.yaml"))
    with (own / part).open("a") as file:
        file.write("\n# changed\n")
    assert retention.data_digest(str(own / "task.yaml")) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("test_split: test", "test_split: [test"), r"task.yaml, line \d: not YAML \(expected"),
        (
            ("task: capitals", "include: absent.yaml"),
            r"Cannot read task file .*absent.yaml \(.*No such file",
        ),
    ],
)
def test_a_task_file_that_is_no_yaml_is_told_before_anything_runs(own, change, message):
    name = str(own / "task.yaml")
    assert retention.unloadable([name, "eb_grammar"], {}) == {}
    (own / "task.yaml").write_text((own / "task.yaml").read_text().replace(*change))
    (why,) = retention.unloadable([name, "eb_grammar"], {}).values()
    assert re.search(message, why)
    (own / "task.yaml").write_text("- a list")
    assert "is not an lm-eval task" in retention.unloadable([name], {})[name]
    (own / "task.yaml").unlink()
    with pytest.raises(DataError, match="task.yaml does not exist"):  # a slip, as a wrong name is
        retention.resolve_tasks(name, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{{land}}", "{{land"), "TemplateSyntaxError"),
        (("mine.kept", "mine.dropped"), "no function 'dropped'"),
        (("doc_to_target: answer", "doc_to_target: '{{answer.nothing.at_all}}'"), "Error"),
        (("task: capitals", "group_alias: capitals"), "ValueError"),
    ],
)
def test_a_mistake_in_a_task_file_is_one_sentence(own, tiny, change, message):
    name = str(own / "task.yaml")
    (own / "task.yaml").write_text((own / "task.yaml").read_text().replace(*change))
    with pytest.raises(
        DataError, match=rf"Task file .*task.yaml: lm-eval cannot ask it \(.*{message}"
    ):
        retention.evaluate(*tiny, [name])


def test_a_task_whose_filter_leaves_nothing_is_named(own, tiny):
    (own / "mine.py").write_text(CODE.replace("!= 'Spain'", "== 'Peru'"))
    with pytest.raises(DataError, match="Task '.*task.yaml' has no documents"):
        retention.evaluate(*tiny, [str(own / "task.yaml")])


def test_missing_data_of_a_task_file_is_named(own, tiny):
    (own / "rows.jsonl").unlink()
    with pytest.raises(
        DataError,
        match=r"its data file /.*/rows.jsonl does not exist.*--task-data .*task.yaml=PATH",
    ):
        retention.evaluate(*tiny, [str(own / "task.yaml")])
