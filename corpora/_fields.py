"""Find the fields of a fact in a user's own record, and read their values as texts."""

from __future__ import annotations

import ast
import datetime
import decimal
import difflib
import io
import json
import math
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import fields

from editbench.corpora._read import Record
from editbench.corpora._tables import Converted, Unreadable, iso, whole
from editbench.errors import DataError, listed
from editbench.types import Fact

FACT_FIELDS = tuple(field.name for field in fields(Fact))
FIELDS = (*FACT_FIELDS, "paraphrases", "neighborhoods", "probes", "drafted")
OPTIONS = (
    "prompt",
    "target",
    "subject",
    "original",
    "aliases",
    "paraphrases",
    "relation",
    "id",
)
"""Fields whose columns an option of the command line names (``editbench.cli.options``)."""
OTHER_NAMES = {
    "prompt": "question query src sentence statement cloze text input instruction",
    "target": "object target_new alt answer answers new_answer output response completion value",
    "aliases": "alias synonyms",
    "paraphrases": "paraphrase rephrase rephrases rephrased paraphrase_prompts rephrase_prompt",
    "neighborhoods": "neighborhood neighbourhood neighbors neighbours neighborhood_prompts",
}
"""Field -> names under which other data sets have it."""
TRUE, FALSE = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0", "")
"""What ``drafted`` may hold, in any case."""


# --- names --------------------------------------------------------------------------------------


def fields_of(
    record: Record, columns: Mapping[str, str], what: str
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the fields of a fact in ``record``, and everything else in it.

    A field is found under its name, in any case, or under the one in ``columns``. A record without
    a target may have ``answers`` or ``answer`` instead.

    Args:
        columns: field -> its name in the record.
        what: ``column`` or ``field``, for messages.

    Raises:
        DataError: if a field is there twice, prompt or target is missing, or a name looks like a
            misspelt field.
    """
    found: dict[str, object] = {}
    notes: dict[str, object] = {}
    for field, column in columns.items():
        if (name := _same_name(column, record)) is not None:
            found[field] = record[name]
        elif what == "column" and len(record) == 1:
            raise DataError(f"{what} {column!r} (for {field!r}) is missing; {_one_name(record)}")
        elif what == "column" or field in ("prompt", "target"):
            raise DataError(
                f"{what} {column!r} (for {field!r}) is missing. Found: {listed(record)}."
                f"{nearest(column, record)}"
            )
    taken = {_same_name(column, record) for column in columns.values()}
    for name, value in record.items():
        field = _folded(name)
        if name in taken:
            continue
        if field not in FIELDS or field in columns:
            notes[name] = value
        elif field in found and found[field] != value:
            raise DataError(
                f"{what} {field!r} is there twice, written differently. Keep one of them."
            )
        else:
            found[field] = value
    if "target" not in found and "target" not in columns:
        _answers_as_target(found, notes)
    for field in ("prompt", "target"):
        if field not in found:
            raise DataError(_missing(field, record, what))
    for name in notes:
        if (meant := _misspelt(name)) and meant not in found:
            raise DataError(
                f"{what} {name!r} would not be read. Did you mean {meant!r}? Call it so"
                f"{f', pass --{meant}-column {name!r},' if meant in OPTIONS else ''} or give it "
                "another name to keep it as a note."
            )
    return found, notes


def _folded(name: object) -> str:
    return " ".join(str(name).split()).casefold()


def _same_name(column: str, record: Record) -> str | None:
    """Return the name in ``record`` that is ``column``, if need be in another case."""
    if column in record:
        return column
    return next((name for name in record if _folded(name) == _folded(column)), None)


def _answers_as_target(found: dict[str, object], notes: dict[str, object]) -> None:
    """Move the note ``answers`` or ``answer`` to the field ``target``.

    Not where ``alt`` or ``target_new`` is there too: in zsRE ``answers`` are then the old ones.
    """
    names = {_folded(name): name for name in notes}
    if not {"alt", "target_new"} & set(names):
        for other in ("answers", "answer"):
            if other in names:
                found["target"] = notes.pop(names[other])
                return


def _missing(field: str, record: Record, what: str) -> str:
    if len(record) == 1 and what == "column":
        return f"{what} {field!r} is missing; {_one_name(record)}"
    message = f"{what} {field!r} is missing. Found: {listed(record)}."
    names = {_folded(name): str(name) for name in record}
    others = [names[other] for other in OTHER_NAMES[field].split() if other in names]
    if not others:
        others = [names[close] for close in difflib.get_close_matches(field, names, n=1)]
    if others:
        return (
            f"{message} Did you mean {others[0]!r}? Rename it, or pass "
            f"--{field}-column {others[0]!r}."
        )
    option = f"pass --{field}-column NAME if it is called otherwise"
    return f"{message} Add it; {option}."


def _one_name(record: Record) -> str:
    """Return what to do about a header that is a single name."""
    return (
        f"the header is one name, {str(next(iter(record)))[:60]!r}. If that is a title, take it "
        "out, so that the names of the columns come first; else separate the columns with commas, "
        "semicolons or tabs."
    )


def _misspelt(name: object) -> str | None:
    """Return the field that a name seems to mean."""
    folded = _folded(name)
    for field in ("aliases", "paraphrases", "neighborhoods"):
        if folded in OTHER_NAMES[field].split():
            return field
    # A short name is near many others: "idx" is no misspelt "id", "from" no "form".
    close = difflib.get_close_matches(folded, [f for f in FIELDS if len(f) > 4], 1, cutoff=0.85)
    return close[0] if close else None


def check_columns(columns: Mapping[str, str]) -> None:
    """Check that ``columns`` names fields.

    Raises:
        DataError: if it does not.
    """
    for field in columns:
        if field not in FIELDS:
            raise DataError(
                f"A column is named for {field!r}, which is no field.{nearest(field, FIELDS)} "
                f"Known: {', '.join(FIELDS)}."
            )


def check_names(
    record: Record, known: Iterable[str], what: str, needed: Iterable[str] = ()
) -> None:
    """Check the names in a probe.

    Raises:
        DataError: if one is unknown, or a needed one missing.
    """
    for name in needed:
        if name not in record:
            raise DataError(
                f"{what} {name!r} is missing. Found: {listed(record)}.{nearest(name, record)}"
            )
    for name in record:
        if name not in known:
            raise DataError(
                f"unknown {what} {name!r}.{nearest(name, known)} Known: {', '.join(known)}."
            )


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the sentence that suggests the one of ``names`` nearest to ``name``, or nothing."""
    folded = {_folded(other): other for other in names}
    close = difflib.get_close_matches(_folded(name), folded, n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


# --- values -------------------------------------------------------------------------------------


def is_empty(value: object) -> bool:
    """Return whether a cell or field holds nothing, as pandas and JSON write that."""
    return value in ("", None) or (isinstance(value, float) and math.isnan(value))


def text(values: Record, name: str) -> str:
    """Return the value of a field as the text that a person sees: 2024, not 2024.0.

    Raises:
        DataError: if it has no such text.
    """
    return _text(values[name], name)


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Unreadable):
        raise DataError(f"field {name!r}: {value.reason}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)) and math.isfinite(value):
        if (number := whole(value)) is None:
            raise DataError(
                f"field {name!r} is the number {value}, which would be written with an exponent. "
                "Write it as text, with all its digits."
            )
        return number
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return iso(value)
    raise DataError(f"field {name!r} must be text, not {shown(value)}.")


def is_converted(value: object) -> bool:
    """Return whether a value is no text, but a number, a date or a truth value."""
    kinds = (Converted, int, float, decimal.Decimal, datetime.date, datetime.time)
    return isinstance(value, kinds)


def texts(values: Record, name: str) -> tuple[str, ...]:
    """Return the texts of a list, or of one text that holds a list or separates them with ``|``.

    The result is empty if the field is missing.

    Raises:
        DataError: if the field holds something else.
    """
    value = values.get(name)
    if isinstance(value, str):
        in_brackets = texts_in_brackets(value, name)
        value = in_brackets if in_brackets is not None else value.split("|")
        value = [part for part in value if part.strip()]
    if is_empty(value):
        return ()
    if not isinstance(value, list):
        value = [value]
    if any(is_empty(item) for item in value):
        raise DataError(f"field {name!r} must be a list of texts, not {shown(value)}.")
    try:
        return tuple(_text(item, name) for item in value)
    except DataError:
        if any(isinstance(item, Unreadable) for item in value):
            raise
        raise DataError(f"field {name!r} must be a list of texts, not {shown(value)}.") from None


def texts_in_brackets(value: str, name: str) -> list[str] | None:
    """Return the texts of a list that is written as JSON or Python in a text; ``None`` if none is.

    Raises:
        DataError: if it holds lists in turn, or has texts without a comma between them.
    """
    if not value.strip().startswith(("[", "(", "{")):
        return None
    try:
        node = ast.parse(value.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    if not isinstance(node, (ast.List, ast.Tuple, ast.Set)) or not all(map(_is_text, node.elts)):
        return None
    found = [str(item.value) for item in node.elts if isinstance(item, ast.Constant)]
    tokens = tokenize.generate_tokens(io.StringIO(value.strip()).readline)
    # Python joins texts without a comma, and so numpy's ['a' 'b'] would be one text.
    if sum(token.type == tokenize.STRING for token in tokens) != len(node.elts):
        raise DataError(
            f"field {name!r} holds a list that cannot be told apart, {value}. Separate several "
            "texts with |, without brackets and quotes."
        )
    return found


def _is_text(node: ast.expr) -> bool:
    """Return whether an item of a list is a text or, in turn, a list of texts."""
    if isinstance(node, ast.List):
        return all(map(_is_text, node.elts))
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def objects(values: Record, name: str) -> list[Record]:
    """Return the objects in a field; none if it is missing.

    Raises:
        DataError: if the field holds something else.
    """
    value = values.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"field {name!r} must be a list of objects, not {shown(value)}.")
    return value


def is_true(values: Record, name: str) -> bool:
    """Return whether a field says yes; no if it is missing.

    Raises:
        DataError: if it says neither yes nor no.
    """
    said = _text(values.get(name, ""), name).strip().casefold()
    if said not in (*TRUE, *FALSE):
        raise DataError(f"field {name!r} is {said!r}; write yes or no.")
    return said in TRUE


def shown(value: object) -> str:
    """Return ``value`` as JSON writes it, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
