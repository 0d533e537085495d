"""Your own facts, from JSON lines, a JSON list, CSV or TSV.

A fact needs a ``prompt`` and a ``target``:

    {"prompt": "The capital of Australia is", "target": "Sydney", "subject": "Australia",
     "paraphrases": ["Australia's seat of government is"],
     "neighborhoods": [{"prompt": "The capital of France is", "answer": "Paris"}]}

A table has a column for each field. Separate several ``aliases`` or ``paraphrases`` in a cell with
``|``. Aliases that would count the old answer (``original``) as right are left out. A list in
brackets, a column or key that is there twice with different values, and a prompt with ``{}`` are
refused.
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

from editbench.corpora._read import (
    Record,
    Row,
    bare_path,
    check_filled,
    is_table,
    read_rows,
    without_old,
)
from editbench.corpora._recognise import belongs_to
from editbench.errors import DataError
from editbench.plugin import Corpus
from editbench.types import Case, Fact, Probe, form_of

FACT_FIELDS = tuple(field.name for field in fields(Fact))
FIELDS = (*FACT_FIELDS, "paraphrases", "neighborhoods", "probes")
NEIGHBOR_FIELDS = ("prompt", "answer", "form", "distractor")
PROBE_FIELDS = ("axis", "prompt", "answers", "distractor", "form")
LISTED = 5
"""Most line numbers that a message lists."""


class Local(Corpus):
    """All facts of one file. One bad record refuses the whole file. See ``read_facts``."""

    summary = "your own facts: JSON lines, JSON list, CSV or TSV, with --data PATH"
    license = "yours"
    needs_data = True

    def load(self, data: str | Path | None = None) -> list[Case]:
        if data is None:
            raise DataError(
                "Corpus 'local' reads a file of yours. "
                "Pass it with --data PATH (.jsonl, .json, .csv or .tsv)."
            )
        return read_facts(data)


def read_facts(path: str | Path) -> list[Case]:
    """Return the cases of a file, in the file's order.

    A fact without an ``id`` is called ``<file name>-<line>``. Without a ``form``, a prompt that
    ends with a question mark is a question and any other a cloze. ``check_facts`` checks whether
    the facts can be taught together (ids, duplicates, contradictions).

    Raises:
        DataError: for the first bad record, with file, line and field. Lists the lines of the
            other bad records.
    """
    path = Path(path).expanduser()
    rows = read_rows(path)
    table = is_table(path)
    if other := belongs_to(rows[0].values, "local"):
        raise DataError(f"{rows[0].place}: {other}")
    if table:
        _check_header(path, rows[0])
    stem = bare_path(path).stem
    cases: list[Case] = []
    bad: list[tuple[Row, DataError]] = []
    for row in rows:
        try:
            if table:
                _check_answer_cells(row)
            cases.append(_read_case(row, f"{stem}-{row.number}"))
        except DataError as error:
            bad.append((row, error))
    if bad:
        row, first = bad[0]
        raise DataError(f"{row.place}: {first}{_others(bad[1:])}") from first
    return cases


def _check_header(path: Path, row: Row) -> None:
    """Check the columns of a table once. Every row has the same ones.

    Raises:
        DataError: if a column is unknown, or a needed one is missing.
    """
    columns = row.values
    assert isinstance(columns, dict)
    try:
        _check_names(columns, FIELDS, "column", needed=("prompt", "target"))
    except DataError as error:
        raise DataError(f"{path}, header: {error}") from error


def _check_answer_cells(row: Row) -> None:
    """Check that no cell with one answer holds a list. (``_texts`` checks the other cells.)

    Raises:
        DataError: if one does.
    """
    assert isinstance(row.values, dict)
    for name in ("target", "original"):
        if _is_list(row.values.get(name, "")):
            raise DataError(
                f"column {name!r} holds a list, {row.values[name]}, and a fact has one {name}. "
                "Write it without brackets and quotes, and other accepted answers into 'aliases'. "
                "A text that has its brackets on purpose needs a file of JSON lines."
            )


def _is_list(text: str) -> bool:
    """Return whether a text is a list of texts as JSON or Python write it."""
    if not text.strip().startswith(("[", "(", "{")):
        return False
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(value, (list, tuple, set)) and all(_is_text(item) for item in value)


def _is_text(item: object) -> bool:
    """Return whether an item of a list is a text or, in turn, a list of texts."""
    return isinstance(item, str) or (isinstance(item, list) and all(map(_is_text, item)))


def _others(bad: list[tuple[Row, DataError]]) -> str:
    if not bad:
        return ""
    numbers = ", ".join(str(row.number) for row, _ in bad[:LISTED])
    if len(bad) > LISTED:
        numbers += f" and {len(bad) - LISTED} others"
    word = "line" if ", line " in bad[0][0].place else "record"
    return f" {len(bad)} more bad {word}{'s follow' if len(bad) > 1 else ' follows'}: {numbers}."


def _read_case(row: Row, default_id: str) -> Case:
    if not isinstance(row.values, dict):
        raise DataError(
            f"expected an object with 'prompt' and 'target'; found {_shown(row.values)}."
        )
    _check_names(row.values, FIELDS, "field", needed=("prompt", "target"))
    # An empty cell of a table means that the field is absent.
    values = {name: value for name, value in row.values.items() if value not in ("", None)}
    given = {name: values[name] for name in FACT_FIELDS if name in values}
    for name in given:
        if name not in ("id", "aliases"):
            _text(given, name)
    check_filled(_text(given, "prompt") if "prompt" in given else "")
    if not isinstance(given.setdefault("id", default_id), (str, int)):
        raise DataError(f"field 'id' must be text, not {_shown(given['id'])}.")
    given["aliases"] = _texts(values, "aliases")
    fact = Fact.from_dict(given)
    if fact.original is not None:
        fact = replace(fact, aliases=without_old(fact.aliases, fact.original))
    form = _text(values, "form") if "form" in values else None
    paraphrases = [
        Probe("paraphrase", prompt, fact.answers, fact.original, form or form_of(prompt))
        for prompt in _texts(values, "paraphrases")
    ]
    neighbors = [_neighbor(item, fact, form) for item in _objects(values, "neighborhoods")]
    probes = [*paraphrases, *neighbors, *(_probe(item) for item in _objects(values, "probes"))]
    for probe in probes:
        check_filled(probe.prompt)
    return Case.build(fact, probes)


def _neighbor(item: Record, fact: Fact, form: str | None) -> Probe:
    """Return a neighborhood probe. As in CounterFact, its distractor is the new target."""
    _check_names(item, NEIGHBOR_FIELDS, "neighborhood field", needed=("prompt", "answer"))
    # The item comes last, so that its own fields replace the defaults.
    probe = {"axis": "neighborhood", "distractor": fact.target, "form": form, **item}
    probe["answers"] = probe.pop("answer")
    return _probe(probe)


def _probe(item: Record) -> Probe:
    _check_names(item, PROBE_FIELDS, "probe field", needed=("axis", "prompt", "answers"))
    texts = {
        name: _text(item, name)
        for name, value in item.items()
        if name != "answers" and value is not None
    }
    prompt = texts.get("prompt", "")
    return Probe(
        texts.get("axis", ""),
        prompt,
        _texts(item, "answers"),
        texts.get("distractor"),
        texts.get("form") or form_of(prompt),
    )


def _check_names(
    record: Record, known: Iterable[str], what: str, needed: Iterable[str] = ()
) -> None:
    for name in needed:
        if name not in record:
            raise DataError(
                f"{what} {name!r} is missing. Found: {', '.join(map(str, record))}."
                f"{_nearest(name, record)}"
            )
    for name in record:
        if name not in known:
            raise DataError(
                f"unknown {what} {name!r}.{_nearest(name, known)} Known: {', '.join(known)}."
            )


def _nearest(name: str, names: Iterable[str]) -> str:
    folded = {str(other).casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def _text(values: Record, name: str) -> str:
    value = values[name]
    if not isinstance(value, str):
        raise DataError(
            f"field {name!r} must be text, not {_shown(value)}. Put it in double quotes."
        )
    return value


def _texts(values: Record, name: str) -> tuple[str, ...]:
    """Return the texts of a list, or of one text that separates them with ``|``.

    The result is empty if the field is missing.
    """
    value = values.get(name) or []
    if value == "[]":  # an empty list, as tables write it
        return ()
    if isinstance(value, str) and _is_list(value):
        raise DataError(
            f"field {name!r} is a text that holds a list, {value}. Separate several texts with |, "
            "without brackets and quotes; in JSON, leave out the quotes around the list."
        )
    if isinstance(value, str):
        value = [part for part in value.split("|") if part.strip()]
    if not isinstance(value, list) or not all(
        isinstance(text, str) and text.strip() for text in value
    ):
        raise DataError(f"field {name!r} must be a list of texts, not {_shown(value)}.")
    return tuple(value)


def _objects(values: Record, name: str) -> list[Record]:
    value = values.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"field {name!r} must be a list of objects, not {_shown(value)}.")
    return value


def _shown(value: object) -> str:
    """Return ``value`` as JSON writes it, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
