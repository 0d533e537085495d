"""lm-eval's own tasks: found by name, fed from the hub or from a file.

A file may have the hub's fields, or for the four tasks in ``KNOWN`` a processed form in common use; the task's own YAML
(prompt, choices, filters) applies unchanged either way.
"""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from editbench.errors import DataError
from editbench.hub import offline_if_unreachable

SHOTS = {"gsm8k": 5}
"""Tasks that ask with examples from their training split; a file without one means no examples."""


@cache
def find(name: str) -> Path | None:
    """lm-eval's YAML of the task ``name`` where the file has the task's name; nothing is imported."""
    spec = find_spec("lm_eval")
    root = Path(spec.origin).parent / "tasks" if spec and spec.origin else None
    if root is None or not re.fullmatch(r"[\w.+-]+", name):
        return None
    for path in sorted(root.rglob(f"{name}.yaml")):
        if re.search(rf"^task:\s*[\"']?{re.escape(name)}[\"']?\s*$", path.read_text(encoding="utf-8"), re.MULTILINE):
            return path
    return None


@cache
def _manager() -> Any:
    # Reads 14,000 files: some ten seconds, so only for names that `find` does not know.
    from lm_eval.tasks import TaskManager

    return TaskManager()


def all_names() -> list[str]:
    """Every task, group and tag of lm-eval."""
    return _manager().all_tasks


def from_hub(name: str) -> dict[str, Any]:
    """The task objects of ``name`` with data from the hub or its cache.

    Raises:
        DataError: the hub cannot be reached, or does not give the data.
    """
    path = find(name)
    try:
        with offline_if_unreachable():
            if path is None:
                return _manager().load([name])["tasks"]
            from lm_eval.tasks import TaskManager

            return TaskManager(include_defaults=False).load([str(path)])["tasks"]
    except (OSError, ConnectionError) as error:
        dataset = KNOWN[name].dataset if name in KNOWN else _dataset(path)
        fields = (
            f" JSON lines with {KNOWN[name].fields}." if name in KNOWN else " JSON lines or parquet with the dataset's fields."
        )
        raise DataError(
            f"Task {name!r} needs the dataset {dataset}, which the Hugging Face Hub did not give ({_first_line(error)}). "
            f"Give it as a file: --task-data {name}=PATH.{fields}"
        ) from error


def from_file(name: str, path: Path) -> dict[str, Any]:
    """The task objects of ``name`` with its documents from ``path``.

    ``path`` is a file with the documents to ask, or a folder with ``test.*`` (or ``validation.*``) and ``train.*``;
    without a training split the task is asked with no examples.

    Raises:
        DataError: the file cannot be read, or lacks a field.
    """
    from lm_eval.tasks import TaskManager

    yaml = find(name) or getattr(_manager().task_index.get(name), "yaml_path", None)
    if yaml is None:
        raise DataError(f"--task-data {name}={path}: {name!r} is a group of tasks; give one of its tasks and a file for it.")
    files = _files(Path(path))
    kwargs = {"task_name": name, "files": {split: str(file.resolve()) for split, file in files.items()}}
    lines = [f"include: {json.dumps(str(yaml))}", "custom_dataset: !function editbench.eval.standard_tasks.splits"]
    lines.append(f"dataset_kwargs: {json.dumps(kwargs)}")
    if "train" not in files:
        lines += ["training_split: null", "fewshot_split: null", "num_fewshot: 0"]
    with tempfile.TemporaryDirectory() as folder:
        derived = Path(folder) / f"{name}.yaml"
        derived.write_text("\n".join(lines), encoding="utf-8")
        try:
            return TaskManager(include_defaults=False).load([str(derived)])["tasks"]
        except KeyError as error:
            raise DataError(
                f"--task-data {name}={path}: the task wants the field {error}, which the rows do not have."
            ) from error


class _Splits(dict):
    """Splits by name; whichever split a task asks (``test``, ``validation``), it gets the file given."""

    def __missing__(self, split: str) -> Any:
        return self["asked"]


def splits(task_name: str, files: Mapping[str, str], **_: Any) -> _Splits:
    """Called by lm-eval for the data of a task: its rows in the hub's form."""
    from datasets import Dataset

    known = KNOWN.get(task_name)
    found = _Splits()
    for split, file in files.items():
        rows = read_rows(Path(file))
        if known:
            rows = [_converted(known, row, file, i) for i, row in enumerate(rows, 1)]
        found[split] = Dataset.from_list(rows)
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines, JSON-list or parquet file; text files may be gzipped.

    Raises:
        DataError: a file that cannot be read; names the line.
    """
    if path.suffix == ".parquet":
        import pandas

        return json.loads(pandas.read_parquet(path).to_json(orient="records"))
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({_first_line(error)}).") from error
    # Not splitlines: a JSON string may hold a line separator of Unicode.
    lines = [text] if text.lstrip().startswith("[") else text.split("\n")
    rows: list[Any] = []
    for number, line in enumerate(lines, 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number + error.lineno - 1}: not JSON ({error.msg}).") from error
    if rows and isinstance(rows[0], list):
        rows = rows[0]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: wants one JSON object a line, and at least one.")
    return rows


def _files(path: Path) -> dict[str, Path]:
    """``{"asked": file, "train": file}`` out of a file or a folder."""
    if path.is_file():
        return {"asked": path}
    endings = (".jsonl", ".json", ".parquet", ".jsonl.gz")
    found = {}
    for split, stems in (("asked", ("test", "validation", "val")), ("train", ("train",))):
        candidates = [path / f"{stem}{ending}" for stem in stems for ending in endings]
        if present := [c for c in candidates if c.is_file()]:
            found[split] = present[0]
    if "asked" not in found:
        raise DataError(
            f"{path}: a folder for --task-data holds test.jsonl (or validation.jsonl) and, for examples, train.jsonl."
        )
    return found


class _Form:
    """What a task's dataset is called on the hub, which fields its file may have, and how they become the hub's."""

    def __init__(self, dataset: str, fields: str, hub: tuple[str, ...], convert: Callable[[dict[str, Any]], dict[str, Any]]):
        self.dataset, self.fields, self.hub, self.convert = dataset, fields, hub, convert


def _converted(form: _Form, row: dict[str, Any], file: str, line: int) -> dict[str, Any]:
    if all(field in row for field in form.hub):
        return {field: row[field] for field in form.hub}
    try:
        return form.convert(row)
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}, record {line}: wants {form.fields}; has {', '.join(row)}.") from error


def _hellaswag(row: dict[str, Any]) -> dict[str, Any]:
    """Undo what lm-eval's own ``process_docs`` does: it capitalizes the unfinished sentence at the end (``ctx_b``)."""
    label, _, text = row["query"].partition(": ")
    start, dot, end = text.rpartition(". ")
    start, end = (start + ".", end) if dot and end[:1].islower() else (text, "")
    return {"activity_label": label, "ctx_a": start, "ctx_b": end, "endings": row["endings"], "label": str(row["label"])}


def _arc(row: dict[str, Any]) -> dict[str, Any]:
    labels = [chr(ord("A") + i) for i in range(len(row["choices"]))]
    question = row["query"].removeprefix("Question: ").removesuffix("Answer:").rstrip()
    return {"question": question, "choices": {"text": row["choices"], "label": labels}, "answerKey": labels[int(row["gold"])]}


def _same(row: dict[str, Any]) -> dict[str, Any]:
    raise KeyError


KNOWN = {
    "hellaswag": _Form("Rowan/hellaswag (validation)", "the hub's fields, or query, endings, label",
                       ("activity_label", "ctx_a", "ctx_b", "endings", "label"), _hellaswag),
    "arc_easy": _Form("allenai/ai2_arc, ARC-Easy (test)", "the hub's fields, or query, choices, gold",
                      ("question", "choices", "answerKey"), _arc),
    "lambada_openai": _Form("EleutherAI/lambada_openai (test)", "text", ("text",), _same),
    "gsm8k": _Form("openai/gsm8k (test; train for the examples)", "question, answer", ("question", "answer"), _same),
}  # fmt: skip


def _dataset(yaml: Path | None) -> str:
    """The dataset that a task's YAML names, as well as can be told without resolving it."""
    named = re.search(r"^dataset_path:\s*(\S+)", yaml.read_text(encoding="utf-8"), re.MULTILINE) if yaml else None
    return named.group(1) if named else "named in its lm-eval YAML"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().split("\n") or [""])[0][:160] or type(error).__name__
