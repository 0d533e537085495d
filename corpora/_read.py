"""Read rows from files: JSON lists, JSON lines, CSV and TSV, gzipped or not.

Every row knows its place in the file, for error messages.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from editbench.errors import DataError
from editbench.matching import contains, normalise

TABLES = {".csv": ",", ".tsv": "\t"}
"""Suffix of a table -> its separator."""
CODE = re.compile(r"[a-z0-9]{0,3}")
"""Matches an alias of up to three characters, which is likely to be a code."""
KNOWN_CODES = ("uk", "usa", "uae", "nyc")
"""Codes that are no English words."""
UNFILLED = re.compile(r"(?<!`)\{(?:0|subject)?\}(?!`)")
"""Matches the placeholder of a template."""

Item = TypeVar("Item")
Record = Mapping[str, object]
"""One object of a JSON file, or one row of a table."""


@dataclass(frozen=True)
class Row:
    """One record of a file."""

    place: str
    """``facts.jsonl, line 3``, or ``record 3`` in a JSON list."""
    number: int
    """The line, or the position in a JSON list; both from 1."""
    values: object
    """The JSON value at that place; for a table, a dict with every column."""


def bare_path(path: Path) -> Path:
    """Return ``path`` without a final ``.gz``."""
    return path.with_suffix("") if path.suffix == ".gz" else path


def is_table(path: Path) -> bool:
    """Whether the name of ``path`` says CSV or TSV."""
    return bare_path(path).suffix.lower() in TABLES


def read_rows(path: Path) -> list[Row]:
    """Return the rows of ``path``, at least one.

    Raises:
        DataError: if the file cannot be opened, unpacked, decoded or parsed (names the line), or
            if it has no row.
    """
    text = _read_text(path)
    if is_table(path):
        rows = _table(path, text)
    elif text.lstrip().startswith("["):
        rows = _json_list(path, text)
    else:
        rows = _json_lines(path, text)
    if not rows:
        raise DataError(f"{path} holds no records. Add at least one.")
    return rows


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"File {path} does not exist.") from error
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    if raw.startswith(b"\x1f\x8b"):  # gzip, whatever the file is called
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} is a damaged gzip file: {error}. Copy or download it again."
            ) from error
    try:
        text = raw.decode("utf-8-sig")  # drops a byte order mark
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise DataError(
            f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8. Save the file as UTF-8 text."
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty. Add at least one record.")
    return text


def _json_list(path: Path, text: str) -> list[Row]:
    try:
        records, repeated = _parse(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: malformed JSON: {error.msg}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot read this JSON: {error}.") from error
    assert isinstance(records, list)  # the text begins with a bracket
    rows = [
        Row(f"{path}, record {number}", number, record)
        for number, record in enumerate(records, start=1)
    ]
    for record, key in repeated:
        raise _repeated_key(next(row.place for row in rows if _holds(row.values, record)), key)
    return rows


def _json_lines(path: Path, text: str) -> list[Row]:
    rows = []
    # Not splitlines(): it also splits at U+2028 and similar, which JSON allows inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values, repeated = _parse(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number}, column {error.colno}: malformed JSON: {error.msg}. "
                "Write one JSON object a line, or one list of objects; name a table .csv or .tsv."
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: cannot read this JSON: {error}.") from error
        row = Row(f"{path}, line {number}", number, values)
        for _, key in repeated:
            raise _repeated_key(row.place, key)
        rows.append(row)
    return rows


def _parse(text: str) -> tuple[object, list[tuple[Record, str]]]:
    """Return the JSON value in ``text``, and each object in it that gives a key two values.

    Python's reader keeps the last of the values without a word.
    """
    repeated: list[tuple[Record, str]] = []

    def as_object(pairs: list[tuple[str, object]]) -> Record:
        record: dict[str, object] = {}
        for key, value in pairs:
            if key in record and record[key] != value:
                repeated.append((record, key))
            record[key] = value
        return record

    return json.loads(text, object_pairs_hook=as_object), repeated


def _holds(value: object, record: Record) -> bool:
    """Whether ``record`` is ``value`` itself or lies somewhere in it."""
    if isinstance(value, Mapping):
        return value is record or any(_holds(item, record) for item in value.values())
    return isinstance(value, list) and any(_holds(item, record) for item in value)


def _repeated_key(place: str, key: str) -> DataError:
    return DataError(
        f"{place}: an object has {key!r} twice, with different values. Keep one of them."
    )


def _table(path: Path, text: str) -> list[Row]:
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=TABLES[bare_path(path).suffix.lower()], strict=True
    )
    rows: list[Row] = []
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            # A quoted cell may span lines. A row is named by its first line, and line_num is its
            # last.
            place, number, line = f"{path}, line {line}", line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [name.strip() for name in cells]
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{place}: {len(cells)} columns, but the header has {len(header)} "
                    f"({', '.join(header)}). "
                    "Put values that contain the separator in double quotes."
                )
            rows.append(Row(place, number, _by_column(place, header, cells)))
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: malformed table: {error}. Check the double quotes."
        ) from error
    return rows


def _by_column(place: str, header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, cell in zip(header, cells, strict=True):
        # Columns without a name are read by nobody.
        if name and values.get(name, cell) != cell:
            raise DataError(
                f"{place}: column {name!r} is there twice, with {values[name]!r} and {cell!r}. "
                "Keep one of the columns."
            )
        values[name] = cell
    return values


class ForeignRecord(DataError):
    """A value is not a record of the data set that was asked for."""


def foreign(source: str, expected: str, value: object) -> ForeignRecord:
    """Return the error for a value that is not a record of ``source``.

    Args:
        expected: the fields of such a record, or its type.
    """
    if isinstance(value, Mapping):
        found = f"the fields {', '.join(map(str, value))}" if value else "no fields"
    else:
        found = f"a {type(value).__name__}"
    return ForeignRecord(f"Not a {source} record: expected {expected}; found {found}.")


def text_at(record: object, *path: str) -> str:
    """Return the text at ``record[path[0]][path[1]]...``, stripped.

    Raises:
        DataError: if a field is missing, empty or not text.
    """
    value = record
    for depth, key in enumerate(path, start=1):
        if not isinstance(value, Mapping) or key not in value:
            raise DataError(f"Field {'.'.join(path[:depth])!r} is missing.")
        value = value[key]
    if not isinstance(value, str):
        raise DataError(f"Field {'.'.join(path)!r} must be text, not {type(value).__name__}.")
    if not value.strip():
        raise DataError(f"Field {'.'.join(path)!r} is empty.")
    return value.strip()


def optional_text(record: Record, field: str) -> str | None:
    """Return the text in a field; ``None`` if the field is missing or null.

    Raises:
        DataError: if the field holds something else.
    """
    value = record.get(field)
    if value is not None and not isinstance(value, str):
        raise DataError(f"Field {field!r} must be text, not {type(value).__name__}.")
    return value


def texts_in(value: object, field: str) -> list[str]:
    """Return the texts in ``value``, a text or nested lists of texts, in order, stripped.

    Args:
        field: the name of the field, for messages.

    Raises:
        DataError: if there is no text, an empty one, or anything else.
    """
    if isinstance(value, list) and value:
        return [text for item in value for text in texts_in(item, field)]
    if not isinstance(value, str) and value not in (None, []):
        raise DataError(f"Field {field!r} must hold texts, not {type(value).__name__}.")
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        raise DataError(f"Field {field!r} is empty or has an empty text.")
    return [text]


def list_at(record: Record, field: str, item: type[Item], items: str) -> list[Item]:
    """Return the list in a field; empty if the field is missing or empty.

    Args:
        item: type of every item.
        items: the items in words, for messages ("objects").

    Raises:
        DataError: if the field holds something else.
    """
    value = record.get(field) or []
    if not isinstance(value, list) or not all(isinstance(entry, item) for entry in value):
        raise DataError(f"Field {field!r} must be a list of {items}.")
    return value


def fill(template: str, subject: str, what: str = "prompt") -> str:
    """Return ``template`` with the subject in place of its {}.

    Raises:
        DataError: if it has no {}.
    """
    if "{}" not in template:
        raise DataError(f"The {what} {template!r} has no {{}} in place of the subject.")
    return template.replace("{}", subject)


def check_filled(prompt: str) -> None:
    """Check that a prompt is no template whose subject was never filled in.

    Raises:
        DataError: if it has {}, {0} or {subject}, except as code between backticks.
    """
    if place := UNFILLED.search(prompt):
        raise DataError(
            f"The prompt {prompt!r} has {place[0]} in place of the subject. Write the subject "
            "there, or put backticks around braces that are meant as such."
        )


def matchable(answers: Iterable[str]) -> tuple[str, ...]:
    """Return the first answer and the aliases that are not mistaken for other words, each once.

    Codes of up to three letters are dropped, except for UK, USA, UAE and NYC. In small letters many
    codes are English words ("IN" for India, "it" for Italian). With full stops ("U.S.") they are
    none.
    """
    first, *aliases = answers
    usable = [
        a.strip()
        for a in aliases
        if not CODE.fullmatch(word := normalise(a))
        or word in KNOWN_CODES
        or "." in a.strip().rstrip(".")
    ]
    return tuple(dict.fromkeys([first, *usable]))


def told_apart(answers: tuple[str, ...], old: str | None) -> tuple[str, ...]:
    """Return ``answers`` without the aliases that would count the old answer as right.

    Raises:
        DataError: if the first answer would.
    """
    if old is None:
        return answers
    if contains(old, answers[:1]):
        raise DataError(f"The old answer {old!r} contains the new answer {answers[0]!r}.")
    return without_old(answers, old)


def without_old(answers: Iterable[str], old: str) -> tuple[str, ...]:
    """Return ``answers`` without those that would count the old answer as right."""
    return tuple(answer for answer in answers if not contains(old, [answer]))
