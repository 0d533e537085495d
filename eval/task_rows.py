"""Read rows for lm-eval's tasks from local files.

A file may have the fields of the hub's dataset or those of another common form. In either case the
task's own YAML (prompt, choices, filters) applies to the rows unchanged.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path
from typing import TypeGuard, cast

from editbench.errors import DataError

Row = dict[str, object]
"""One record of a file or of the hub's dataset."""
MISTAKES = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What lm-eval, and the code of a task, raise for a row or a task file with a mistake in it.
``jinja2.TemplateError`` comes on top."""


KINDS = {
    "true or false": bool,
    "a number": int | float,
    "a text": str,
    "a list": list,
    "an object": dict,
}
"""The types of JSON; a truth value comes first, since it is a number for Python."""


@dataclass(frozen=True)
class Form:
    """A task's dataset, the fields that a file may have, and how they become the hub's."""

    dataset: str
    fields: str
    """The fields that a file may have, in words for messages."""
    hub: tuple[str, ...]
    """Fields of the dataset on the hub."""
    convert: Callable[[Row], Row]
    """Turns a row with other fields into one with the hub's."""
    beside: str = ""
    """Name of a folder next to the file. The file of the same name in it adds fields to the rows,
    matched by ``id``."""


def form(task: str) -> Form | None:
    """Return the form of a task's dataset, if it is known here."""
    # By the file: the tasks of MMLU-Pro, MMLU-Redux and others are called mmlu_... as well.
    root = lm_eval_tasks() if task.startswith("mmlu_") else None
    is_mmlu = root is not None and (root / "mmlu" / "default" / f"{task}.yaml").is_file()
    return FORMS.get("mmlu" if is_mmlu else task)


def lm_eval_tasks() -> Path | None:
    """Return lm-eval's folder of tasks without importing it; ``None`` if it is not installed."""
    spec = find_spec("lm_eval")
    return Path(spec.origin).parent / "tasks" if spec and spec.origin else None


def files_of(task: str, path: Path) -> list[Path]:
    """Return the files that the rows of ``task`` are read from, ``path`` first."""
    known = form(task)
    return [path, path.parent / known.beside / path.name] if known and known.beside else [path]


def hub_rows(task: str, path: Path) -> list[Row]:
    """Return the records of ``path`` with the fields that ``task`` has on the hub.

    Raises:
        DataError: if the file cannot be read or a record lacks a field; names both.
    """
    rows, known = read_rows(path), form(task)
    if known is None:
        return rows
    for extra in files_of(task, path)[1:]:
        added = _by_id(extra, read_rows(extra))
        rows = [{**row, **added.get(key, {})} for key, row in _by_id(path, rows).items()]
    return [_converted(known, row, path, i) for i, row in enumerate(rows, 1)]


def _by_id(path: Path, rows: Sequence[Row]) -> dict[object, Row]:
    """Return rows by their ``id``.

    Raises:
        DataError: if a row has none, or that of another; names both rows. One of them would get the
            answer to another question.
    """
    places: dict[object, int] = {}
    for i, row in enumerate(rows, 1):
        key = row.get("id")
        if not isinstance(key, str | int):
            raise DataError(f"{path}, record {i}: the id is {key!r}. Give each record its own.")
        if (first := places.setdefault(key, i)) != i:
            raise DataError(
                f"{path}: records {first} and {i} have the same id {key!r}. Give each its own."
            )
    return {row["id"]: row for row in rows}


def read_rows(path: Path) -> list[Row]:
    """Return the records of a JSON-lines, JSON-list, CSV (with a header) or parquet file.

    Text files may be gzipped.

    Raises:
        DataError: if the file cannot be read; names the line.
    """
    if path.suffix == ".parquet":
        import pandas
        from pyarrow import ArrowException

        try:
            # By way of JSON, so that arrays become lists and NaN becomes ``None``.
            records: list[Row] = json.loads(pandas.read_parquet(path).to_json(orient="records"))
            return records
        except (OSError, ArrowException, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({first_line(error)}).") from error
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode("utf-8-sig")  # drops a byte order mark
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)}).") from error
    rows = (
        _table(path, text) if path.name.removesuffix(".gz").endswith(".csv") else _json(path, text)
    )
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"{path}: expected one record a line (a JSON object, or a CSV row under a header), "
            "and at least one."
        )
    return cast("list[Row]", rows)


def _table(path: Path, text: str) -> Sequence[object]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        return list(reader)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error}).") from error


def _json(path: Path, text: str) -> Sequence[object]:
    rows: list[object] = []
    # Not splitlines(): it also splits at Unicode's line separators, which a JSON string may hold.
    lines = [text] if text.lstrip().startswith("[") else text.split("\n")
    for number, line in enumerate(lines, 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number + error.lineno - 1}: not JSON ({error.msg})."
            ) from error
    return rows[0] if rows and isinstance(rows[0], list) else rows


def check_types(path: Path, rows: Sequence[Row]) -> None:
    """Check that each field holds values of one type, as a column of a dataset must.

    Raises:
        DataError: if one does not; names the field and two records.
    """
    first: dict[str, tuple[int, str]] = {}
    for i, row in enumerate(rows, 1):
        for field, value in row.items():
            if value is None:
                continue
            kind = next((name for name, types in KINDS.items() if isinstance(value, types)), "")
            number, before = first.setdefault(field, (i, kind))
            if before != kind:
                raise DataError(
                    f"{path}: the field {field!r} is {before} in record {number} and {kind} in "
                    f"record {i}. Give it one type."
                )


def is_index(value: object) -> TypeGuard[int]:
    """Return whether ``value`` is a whole number; the code of some tasks gives one of numpy's."""
    return isinstance(value, Integral)


def first_line(error: BaseException) -> str:
    """Return the first line of the message of ``error``, cut to 160 characters."""
    return (str(error).strip().split("\n") or [""])[0][:160] or type(error).__name__


def _converted(known: Form, row: Row, path: Path, number: int) -> Row:
    if all(field in row for field in known.hub):
        return {field: row[field] for field in known.hub}
    try:
        return known.convert(row)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"{path}, record {number}: expected {known.fields}; found {', '.join(map(str, row))}."
        ) from error


def _same(row: Row) -> Row:
    """Refuse a row: for this dataset only the hub's form is known.

    Raises:
        KeyError: always. ``_converted`` turns it into a message with the expected fields.
    """
    raise KeyError


def _text(row: Row, field: str) -> str:
    """Return the text in a field.

    Raises:
        TypeError: if it is not text. ``_converted`` turns it into a message with the expected
            fields.
    """
    value = row[field]
    if not isinstance(value, str):
        raise TypeError(field)
    return value


def _list(row: Row, field: str) -> list[object]:
    value = row[field]
    if not isinstance(value, list):
        raise TypeError(field)
    return value


def _hellaswag(row: Row) -> Row:
    """Undo lm-eval's ``process_docs``, which joins the fields and capitalizes ``ctx_b``."""
    label, _, text = _text(row, "query").partition(": ")
    # A last sentence that starts with a lower-case letter is the unfinished one.
    start, dot, end = text.rpartition(". ")
    start, end = (start + ".", end) if dot and end[:1].islower() else (text, "")
    return {
        "activity_label": label,
        "ctx_a": start,
        "ctx_b": end,
        "endings": row["endings"],
        "label": str(row["label"]),
    }


def _arc(row: Row) -> Row:
    choices = _list(row, "choices")
    labels = [chr(ord("A") + i) for i in range(len(choices))]
    question = _text(row, "query").removeprefix("Question: ").removesuffix("Answer:").rstrip()
    return {
        "question": question,
        "choices": {"text": choices, "label": labels},
        "answerKey": labels[_index(row, "gold")],
    }


def _mmlu(row: Row) -> Row:
    choices = [row[f"choice{i}"] for i in range(4)]
    answer = range(4)[_index(row, "answer")]
    return {"question": row["question"], "choices": choices, "answer": answer}


def _index(row: Row, field: str) -> int:
    """Return the index of a choice. In a table it is text.

    Raises:
        TypeError, ValueError: if it is no whole number from 0. ``_converted`` turns them into a
            message with the expected fields.
    """
    value = row[field]
    if not isinstance(value, str | int | float):
        raise TypeError(field)
    index = int(value)
    # -1 would be the last choice, and 1.7 the second
    if index < 0 or index != float(value):
        raise ValueError(field)
    return index


def _truthfulqa(row: Row) -> Row:
    """Build the two lists of the hub's ``multiple_choice``.

    mc1 sets the best answer against the wrong ones; mc2 sets all right answers against all wrong
    ones.
    """
    right, wrong = (_parts(_text(row, f"{kind} Answers")) for kind in ("Correct", "Incorrect"))
    if not right or not wrong:
        raise ValueError("Without wrong answers, or without right ones, there is nothing to score.")
    lists = {"mc1_targets": [_text(row, "Best Answer").strip()], "mc2_targets": right}
    targets = {
        key: {"choices": good + wrong, "labels": [1] * len(good) + [0] * len(wrong)}
        for key, good in lists.items()
    }
    return {"question": row["Question"], **targets}


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _bfcl(row: Row) -> Row:
    ((message,),) = cast("list[list[dict[str, object]]]", _list(row, "question"))
    # As JSON text, because a column of a dataset has one type and arguments have many.
    functions, answers = json.dumps(row["function"]), json.dumps(row["ground_truth"])
    return {"question": message["content"], "functions": functions, "answers": answers}


_ARC = Form(
    "allenai/ai2_arc, ARC-Easy (test)",
    "the hub's fields, or query, choices, gold",
    ("question", "choices", "answerKey"),
    _arc,
)
_TRUTHFULQA = Form(
    "truthfulqa/truthful_qa, multiple_choice (validation)",
    "the hub's fields, or Question, Best Answer, Correct Answers, Incorrect Answers",
    ("question", "mc1_targets", "mc2_targets"),
    _truthfulqa,
)
FORMS = {
    "hellaswag": Form(
        "Rowan/hellaswag (validation)",
        "the hub's fields, or query, endings, label",
        ("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        _hellaswag,
    ),
    "arc_easy": _ARC,
    "arc_challenge": replace(_ARC, dataset="allenai/ai2_arc, ARC-Challenge (test)"),
    "lambada_openai": Form("EleutherAI/lambada_openai (test)", "text", ("text",), _same),
    "gsm8k": Form(
        "openai/gsm8k (test; train for the examples)",
        "question, answer",
        ("question", "answer"),
        _same,
    ),
    "mmlu": Form(
        "cais/mmlu (test)",
        "the hub's fields, or question, choice0 to choice3, answer (0 to 3)",
        ("question", "choices", "answer"),
        _mmlu,
    ),
    "truthfulqa_mc1": _TRUTHFULQA,
    "truthfulqa_mc2": _TRUTHFULQA,
    "ifeval": Form(
        "google/IFEval (train)",
        "key, prompt, instruction_id_list, kwargs",
        ("key", "prompt", "instruction_id_list", "kwargs"),
        _same,
    ),
    "bfcl_simple": Form(
        "BFCL, BFCL_v4_simple_python.json of ShishirPatil/gorilla with its possible_answer/",
        "question (one turn), function, and a ground_truth of the same id in possible_answer/",
        ("question", "functions", "answers"),
        _bfcl,
        beside="possible_answer",
    ),
}
"""Task (or group) -> form of its dataset."""
