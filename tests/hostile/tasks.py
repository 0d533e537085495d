"""Retention tasks whose rows make no sense, as lm-eval scores them without a word."""

from __future__ import annotations

import json
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
