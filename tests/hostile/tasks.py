"""Retention tasks whose rows make no sense, as lm-eval scores them without a word.

And tasks that lm-eval cannot load or ask, or whose templates hardly come to an end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "The capital of {{land}} is",
    "doc_to_choice": "choices",
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc"}],
}
"""A row has ``land``, ``choices`` and ``label``."""
TEXT = {
    "output_type": "generate_until",
    "doc_to_text": "The capital of {{land}} is",
    "doc_to_target": "answer",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match"}],
}
"""A row has ``land`` and ``answer``."""
CLOZE = {**TEXT, "output_type": "loglikelihood", "metric_list": [{"metric": "acc"}]}
CLOZE.pop("generation_kwargs")


def choice(land: str = "France", **changes: object) -> dict[str, object]:
    """Return a good row of ``CHOICE`` with ``changes``; a value of ``...`` drops the field."""
    row = {"land": land, "choices": ["Paris", "Rome", "Oslo"], "label": 0, **changes}
    return {key: value for key, value in row.items() if value is not ...}


def text(land: str = "France", **changes: object) -> dict[str, object]:
    """Return a good row of ``TEXT`` or ``CLOZE`` with ``changes``."""
    row = {"land": land, "answer": "Paris", **changes}
    return {key: value for key, value in row.items() if value is not ...}


def write_task(
    folder: Path, task: Mapping[str, object], rows: Sequence[object], name: str = "capitals"
) -> str:
    """Write a task file and its rows, and return the path of the task file."""
    import yaml

    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    content = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        **task,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


CODE = """
from pathlib import Path

def fails(*args):
    raise RuntimeError("out of order")

def leaves(*args):
    raise SystemExit(3)

def picky(doc, results):
    if doc["land"] == "Italy":
        raise RuntimeError("out of order")
    return {"acc": 1.0}

def tired(doc, results):
    calls = Path(__file__).with_name("calls")
    calls.write_text(calls.read_text() + "." if calls.exists() else ".")
    if len(calls.read_text()) > 2:
        raise RuntimeError("out of order")
    return {"acc": 1.0}

def unequipped(doc, results):
    import nosuch_judge
"""
"""A module ``code`` beside the task file, named by the tasks below."""
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
SCRIPT = {"dataset_path": "script.py", "dataset_kwargs": None}
UNLOADABLE = {
    "a script": ({**CHOICE, **SCRIPT}, "Dataset scripts are no longer supported"),
    "broken data": (CHOICE, "JSON parse error"),
    "no data": (CHOICE, "it has no documents"),
    "no split": ({**CHOICE, "test_split": None}, "must have valid or test docs"),
    "another split": (
        {**CHOICE, "test_split": "dev"},
        "looks up 'dev', and its data have no split",
    ),
    "another field": ({**CHOICE, "doc_to_text": "{{country}} is"}, "'country' is undefined"),
    "a group": ({"group": "lands", "task": ["capitals", {"group": "x"}]}, r"group.*\(capitals\)"),
    "a list": ({"task": ["capitals"]}, "is a group of tasks"),
    "a group as of old": ({**CHOICE, "group": "lands"}, "Write 'tag' in its place"),
    "an included group": ({"include": "old.yaml"}, "finds no tasks"),
    "no module": ({**CHOICE, "process_docs": "!function nosuch.load"}, "'nosuch'"),
    "no function": ({**CHOICE, "process_docs": "!function code.nosuch"}, "'nosuch'"),
    "code that fails": ({**CHOICE, "process_docs": "!function code.fails"}, "out of order"),
    "code that exits": ({**CHOICE, "process_docs": "!function code.leaves"}, "SystemExit: 3"),
    "a prompt that fails": ({**CHOICE, "doc_to_text": "!function code.fails"}, "out of order"),
    "no such filter": (
        {**TEXT, "filter_list": [{"name": "x", "filter": [{"function": "nosuch"}]}]},
        "Unknown filter 'nosuch'",
    ),
    "no such metric": ({**TEXT, "metric_list": [{"metric": "nosuch"}]}, "a metric that lm-eval"),
    "no such type": ({**CHOICE, "output_type": "nosuch"}, "output_type 'nosuch'"),
    "no such key": ({**CHOICE, "nosuch": 1}, "'nosuch'"),
    "too few examples": ({**CHOICE, "num_fewshot": 3}, "shows 3 examples .* has 2"),
    "a loop": ({**CHOICE, "doc_to_text": LOOP}, "more than 1,000,000 steps"),
    "a long loop": (
        {**CHOICE, "doc_to_text": "{% for i in range(10**9) %}{% endfor %}"},
        "Range too big",
    ),
}
"""Tasks that are refused before they are asked -> what is said. ``broken data`` and ``no data`` are
made so by ``write_unaskable``."""
UNASKABLE = {
    "a grader that fails at one document": (
        {**CHOICE, "process_results": "!function code.picky"},
        "out of order",
    ),
    "a grader without its package": (
        {**CHOICE, "process_results": "!function code.unequipped"},
        "No module named 'nosuch_judge'",
    ),
    "a filter that fails": (
        {
            **TEXT,
            "filter_list": [{"name": "x", "filter": [{"function": "regex", "regex_pattern": "("}]}],
        },
        "unterminated subpattern",
    ),
    "no score of each document": (
        {**TEXT, "metric_list": [{"metric": "bleu"}]},
        "no score between 0 and 1",
    ),
}
"""Tasks that show only when they are asked that they cannot be -> what is said."""
TIRED = {**CHOICE, "process_results": "!function code.tired"}
"""A task whose grader fails at the third answer."""


def write_unaskable(folder: Path, name: str) -> str:
    """Write the task ``name`` of those above with two rows, and return its path."""
    (folder / "code.py").write_text(CODE, encoding="utf-8")
    (folder / "script.py").write_text("", encoding="utf-8")
    (folder / "old.yaml").write_text("group: lands", encoding="utf-8")
    task, _ = {**UNLOADABLE, **UNASKABLE, "tired": (TIRED, "")}[name]
    rows = [{**choice(land), "answer": "Rome"} for land in ("France", "Italy")]
    path = Path(write_task(folder, task, [] if name == "no data" else rows, "broken"))
    # The dump quotes the tag of a function.
    content = re.sub(r"'(!function [\w.]+)'", r"\1", path.read_text(encoding="utf-8"))
    path.write_text(content, encoding="utf-8")
    if name == "broken data":
        (folder / "broken.jsonl").write_text('{"land": "France", \n oops', encoding="utf-8")
    return str(path)
