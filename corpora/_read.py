"""Read rows from files: JSON, tables as text, Excel and Parquet, gzipped or not.

Every row knows its place in the file, for error messages.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from editbench.corpora._tables import (
    Found,
    delimited,
    header_of,
    parquet,
    separator_of,
    workbook,
)
from editbench.errors import DataError, listed
from editbench.matching import contains, normalise

TABLES = {".csv": ",", ".tsv": "\t"}
"""Suffix of a table -> its usual separator."""
WORKBOOK, OLD_WORKBOOK, PARQUET = b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1"
"""First bytes of the files of Excel and of Parquet."""
BEGINS_LIKE_JSON = re.compile(r'\s*(?:\{\s*"|\[\s*\{)')
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
    """``facts.jsonl, line 3``, ``record 3`` in a JSON list, ``row 3`` of a sheet."""
    number: int
    """The position among the records, from 1."""
    values: object
    """The JSON value at that place; for a table, a dict with every column."""
    is_table: bool = False


def bare_path(path: Path) -> Path:
    """Return ``path`` without a final ``.gz``."""
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def read_rows(path: Path, remarks: list[str] | None = None) -> list[Row]:
    """Return the rows of ``path``, at least one. The content says what the file is.

    Text is UTF-8, or UTF-16 as Excel writes it.

    Args:
        remarks: gets a sentence for each thing that the user should know about how the file was
            read. Only with it, text in Windows-1252 is read at all.

    Raises:
        DataError: if the file cannot be opened, unpacked, decoded or parsed (names the line), or
            if it has no row.
    """
    raw = _unpacked(path)
    found: Iterable[Found]
    if raw.startswith(WORKBOOK):
        found = workbook(path, raw, [] if remarks is None else remarks)
    elif raw.startswith(PARQUET):
        found = parquet(path, raw)
    elif raw.startswith(OLD_WORKBOOK):
        raise DataError(f"{path} is an Excel file of the old form (.xls). Save it as .xlsx or CSV.")
    else:
        text = _decoded(path, raw, remarks)
        separator = _separator(path, text)
        if separator is None:
            is_list = text.lstrip().startswith("[")
            rows = _json_list(path, text) if is_list else _json_values(path, text)
            return _at_least_one(path, rows)
        found = delimited(path, text, separator)
    rows = [
        Row(f"{path}, {spot}", number, values, is_table=True)
        for number, (spot, values) in enumerate(found, start=1)
    ]
    return _at_least_one(path, rows)


def _at_least_one(path: Path, rows: list[Row]) -> list[Row]:
    if not rows:
        raise DataError(f"{path} holds no records. Add at least one.")
    return rows


def _unpacked(path: Path) -> bytes:
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
    return raw


def _decoded(path: Path, raw: bytes, remarks: list[str] | None) -> str:
    try:
        if codec := _utf_16(raw):
            text = raw.decode(codec).removeprefix("\ufeff")
        else:
            text = raw.decode("utf-8-sig")  # drops a byte order mark
    except UnicodeDecodeError as error:
        if error.encoding != "utf-8":
            raise DataError(
                f"{path} begins like UTF-16 text but is damaged ({error.reason}). Save it again."
            ) from error
        text = _as_windows_1252(path, error, remarks)
    if not text.strip():
        raise DataError(f"{path} is empty. Add at least one record.")
    return text


def _utf_16(raw: bytes) -> str | None:
    """Return the name of the UTF-16 variant that ``raw`` is in, with or without its mark."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    start = raw[:200]
    # A header or a brace in Latin letters has a zero in every second byte.
    if len(start) > 1 and len(start) % 2 == 0:
        for zeros, codec in ((start[1::2], "utf-16-le"), (start[::2], "utf-16-be")):
            if not any(zeros):
                return codec
    return None


def _as_windows_1252(path: Path, error: UnicodeDecodeError, remarks: list[str] | None) -> str:
    """Return text that is not UTF-8 as Excel's older encoding has it, and say so in ``remarks``.

    Raises:
        DataError: if there are no ``remarks``, or if it is rather a damaged UTF-8 file.
    """
    raw: bytes = error.object
    line, byte = raw.count(b"\n", 0, error.start) + 1, raw[error.start]
    # Other letters that are whole in UTF-8 show that the file is meant as UTF-8.
    is_other = not raw.decode("utf-8", "ignore").isascii()
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        is_other = True
    # No language of Western Europe has four of its letters in a row: this is Japanese or Russian.
    if is_other or re.search(r"[^\x00-\x7f]{4}", text) or remarks is None:
        raise DataError(
            f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8. Save the file as UTF-8 text, "
            "from Excel as 'CSV UTF-8' or .xlsx."
        ) from error
    word = re.search(r"\S*[^\x00-\x7f]\S*", text)
    assert word is not None  # every byte that is not UTF-8 becomes such a character
    remarks.append(
        f"{path} is not UTF-8 and is read as Windows-1252, as older Excel writes it: line {line} "
        f"has {word[0]!r}. If that is wrong, save the file as 'CSV UTF-8' or .xlsx."
    )
    return text


def _separator(path: Path, text: str) -> str | None:
    """Return the usual separator of the table in ``text``; ``None`` for JSON."""
    suffix = bare_path(path).suffix.lower()
    if BEGINS_LIKE_JSON.match(text):
        return None
    if suffix in TABLES:
        return TABLES[suffix]
    # Excel calls its text with tabs .txt.
    if suffix in (".json", ".jsonl") or text.lstrip()[0] in "[{":
        return None
    return "," if len(header_of(text, separator_of(text, ","))) > 1 else None


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


def _json_values(path: Path, text: str) -> list[Row]:
    """Return the JSON values that stand one after the other: one a line, or indented over many."""
    try:
        return _json_lines(path, text)
    except DataError as by_line:
        try:
            return _json_stream(path, text)
        except DataError as error:
            is_indented = text.lstrip().split("\n", 1)[0].strip() == "{"
            raise (error if is_indented else by_line) from error


def _json_lines(path: Path, text: str) -> list[Row]:
    rows: list[Row] = []
    # Not splitlines(): it also splits at U+2028 and similar, which JSON allows inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values, repeated = _parse(line)
        except (ValueError, RecursionError) as error:
            raise _malformed(path, number, error) from error
        rows.append(_json_row(path, number, len(rows) + 1, values, repeated))
    return rows


def _json_stream(path: Path, text: str) -> list[Row]:
    rows: list[Row] = []
    position = _after_space(text, 0)
    while position < len(text):
        line = text.count("\n", 0, position) + 1
        try:
            values, repeated, position = _parse_first(text, position)
        except (ValueError, RecursionError) as error:
            at = error.lineno if isinstance(error, json.JSONDecodeError) else line
            raise _malformed(path, at, error) from error
        rows.append(_json_row(path, line, len(rows) + 1, values, repeated))
        position = _after_space(text, position)
    return rows


def _malformed(path: Path, line: int, error: Exception) -> DataError:
    if not isinstance(error, json.JSONDecodeError):
        return DataError(f"{path}, line {line}: cannot read this JSON: {error}.")
    return DataError(
        f"{path}, line {line}, column {error.colno}: malformed JSON: {error.msg}. "
        "Write one JSON object a line, or one list of objects; name a table .csv or .tsv."
    )


def _json_row(
    path: Path, line: int, number: int, values: object, repeated: Sequence[tuple[Record, str]]
) -> Row:
    row = Row(f"{path}, line {line}", number, values)
    for _, key in repeated:
        raise _repeated_key(row.place, key)
    return row


def _after_space(text: str, position: int) -> int:
    """Return the first position from ``position`` on that is no white space."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _parse(text: str) -> tuple[object, list[tuple[Record, str]]]:
    """Return the JSON value in ``text``, and each object in it that gives a key two values."""
    start = _after_space(text, 0)
    value, repeated, end = _parse_first(text, start)
    if (rest := _after_space(text, end)) < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)
    return value, repeated


def _parse_first(text: str, start: int) -> tuple[object, list[tuple[Record, str]], int]:
    """Return the JSON value that begins at ``start``, its repeated keys, and where it ends.

    Python's reader keeps the last of a key's values without a word.
    """
    repeated: list[tuple[Record, str]] = []

    def as_object(pairs: list[tuple[str, object]]) -> Record:
        record: dict[str, object] = {}
        for key, value in pairs:
            if key in record and record[key] != value:
                repeated.append((record, key))
            record[key] = value
        return record

    value, end = json.JSONDecoder(object_pairs_hook=as_object).raw_decode(text, start)
    return value, repeated, end


def _holds(value: object, record: Record) -> bool:
    """Whether ``record`` is ``value`` itself or lies somewhere in it."""
    if isinstance(value, Mapping):
        return value is record or any(_holds(item, record) for item in value.values())
    return isinstance(value, list) and any(_holds(item, record) for item in value)


def _repeated_key(place: str, key: str) -> DataError:
    return DataError(
        f"{place}: an object has {key!r} twice, with different values. Keep one of them."
    )


class ForeignRecord(DataError):
    """A value is not a record of the data set that was asked for."""


def foreign(source: str, expected: str, value: object) -> ForeignRecord:
    """Return the error for a value that is not a record of ``source``.

    Args:
        expected: the fields of such a record, or its type.
    """
    if isinstance(value, Mapping):
        found = f"the fields {listed(value)}" if value else "no fields"
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
