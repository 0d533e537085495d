"""Files to rows: JSON lists, JSON lines, CSV and TSV, gzipped or not. Every row knows its place for error messages."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editbench.errors import DataError
from editbench.matching import contains, normalise

TABLES = {".csv": ",", ".tsv": "\t"}
CODE = re.compile(r"[a-z0-9]{0,3}")
KNOWN_CODES = ("uk", "usa", "uae", "nyc")


@dataclass(frozen=True)
class Row:
    """One record of a file."""

    place: str
    """``facts.jsonl, line 3``, or ``record 3`` in a JSON list."""
    number: int
    """The line, or the position in a JSON list; both from 1."""
    values: Any
    """What the file holds there; in a table a dict that has every column."""


def bare_path(path: Path) -> Path:
    """``path`` without the ``.gz`` at its end."""
    return path.with_suffix("") if path.suffix == ".gz" else path


def is_table(path: Path) -> bool:
    """Whether the name of ``path`` says CSV or TSV."""
    return bare_path(path).suffix.lower() in TABLES


def read_rows(path: Path) -> list[Row]:
    """The rows of ``path``, at least one.

    Raises:
        DataError: a file that cannot be opened, unpacked, decoded or parsed, or that holds no row; names the line.
    """
    text = _read_text(path)
    if is_table(path):
        rows = _table(path, text)
    elif text.lstrip().startswith("["):
        rows = _json_list(path, text)
    else:
        rows = _json_lines(path, text)
    if not rows:
        raise DataError(f"{path} holds no records. Give it at least one.")
    return rows


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    if raw.startswith(b"\x1f\x8b"):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} is a damaged gzip file: {error}. Copy or download it again."
            ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise DataError(
            f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8. Save the file as UTF-8 text."
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty. Give it at least one record.")
    return text


def _json_list(path: Path, text: str) -> list[Row]:
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: malformed JSON: {error.msg}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: JSON that cannot be read: {error}.") from error
    return [
        Row(f"{path}, record {number}", number, record)
        for number, record in enumerate(records, start=1)
    ]


def _json_lines(path: Path, text: str) -> list[Row]:
    rows = []
    # Not splitlines(): it also splits at U+2028 and the like, which JSON allows inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(Row(f"{path}, line {number}", number, json.loads(line)))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number}, column {error.colno}: malformed JSON: {error.msg}. "
                "Write one JSON object a line, or one list of objects; name a table .csv or .tsv."
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: JSON that cannot be read: {error}.") from error
    return rows


def _table(path: Path, text: str) -> list[Row]:
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=TABLES[bare_path(path).suffix.lower()], strict=True
    )
    rows: list[Row] = []
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            place, number, line = f"{path}, line {line}", line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [name.strip() for name in cells]
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{place}: {len(cells)} columns where the header has {len(header)} ({', '.join(header)}). "
                    "Put values that hold the separator in double quotes."
                )
            rows.append(Row(place, number, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: malformed table: {error}. Check the double quotes."
        ) from error
    return rows


def text_at(record: Mapping[str, Any], *path: str) -> str:
    """The text at ``record[path[0]][path[1]]...``, stripped.

    Raises:
        DataError: a field that is missing, empty or not text.
    """
    value: Any = record
    for depth, key in enumerate(path, start=1):
        if not isinstance(value, Mapping) or key not in value:
            raise DataError(f"Field {'.'.join(path[:depth])!r} is missing.")
        value = value[key]
    if not isinstance(value, str):
        raise DataError(f"Field {'.'.join(path)!r} must be text, not {type(value).__name__}.")
    if not value.strip():
        raise DataError(f"Field {'.'.join(path)!r} is empty.")
    return value.strip()


def texts_in(value: Any, field: str) -> list[str]:
    """The texts in ``value``, a text or (nested) lists of texts, in order, stripped.

    Raises:
        DataError: an empty text or something else in it, or nothing at all.
    """
    if isinstance(value, list) and value:
        return [text for item in value for text in texts_in(item, field)]
    if not isinstance(value, str) and value not in (None, []):
        raise DataError(f"Field {field!r} must hold texts, not {type(value).__name__}.")
    if not (value or "").strip():
        raise DataError(f"Field {field!r} is empty or has an empty text.")
    return [value.strip()]


def matchable(answers: Iterable[str]) -> tuple[str, ...]:
    """The first of ``answers``, and those of its aliases that can be told from other words, each once, stripped.

    Codes of up to three letters are dropped but for UK, USA, UAE and NYC: many are words of English when case is ignored ("IN"
    for India, "it" for Italian).
    """
    first, *aliases = answers
    usable = [
        a.strip()
        for a in aliases
        if not CODE.fullmatch(word := normalise(a)) or word in KNOWN_CODES
    ]
    return tuple(dict.fromkeys([first, *usable]))


def told_apart(answers: tuple[str, ...], old: str | None) -> tuple[str, ...]:
    """``answers`` but for the aliases that would count the old answer as right.

    Raises:
        DataError: the first answer would.
    """
    if old is None:
        return answers
    if contains(old, answers[:1]):
        raise DataError(f"The old answer {old!r} has the new one, {answers[0]!r}, in it.")
    return tuple(answer for answer in answers if not contains(old, [answer]))
