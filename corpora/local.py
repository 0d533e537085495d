"""Your own facts, from a table (CSV, Excel, Parquet) or JSON.

A fact needs a ``prompt`` and a ``target``:

    {"prompt": "The capital of Australia is", "target": "Sydney", "subject": "Australia",
     "paraphrases": ["Australia's seat of government is"],
     "neighborhoods": [{"prompt": "The capital of France is", "answer": "Paris"}]}

A table has a column for each field. Separate several ``aliases`` or ``paraphrases`` in a cell with
``|``, or write a list: ``["a", "b"]``. ``neighborhoods`` is ``PROMPT => ANSWER | PROMPT => ANSWER``
there. A list as the target is the target and its aliases. ``{}`` in a prompt stands for the
subject. Aliases that would count the old answer (``original``) as right are left out. With
``drafted`` true, the probes of this fact's ``paraphrases`` and ``neighborhoods`` are of the kind
``drafted``, or only those of the one that it names. Other columns are kept as notes. A column or
key that is there twice with different values is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from editbench.corpora._fields import (
    FACT_FIELDS,
    check_columns,
    check_names,
    fields_of,
    is_converted,
    is_empty,
    is_true,
    objects,
    shown,
    text,
    texts,
    texts_in_brackets,
)
from editbench.corpora._read import (
    UNFILLED,
    Record,
    Row,
    bare_path,
    check_filled,
    read_rows,
    without_old,
)
from editbench.corpora._recognise import belongs_to
from editbench.corpora._tables import Unreadable
from editbench.errors import DataError, listed
from editbench.plugin import Corpus
from editbench.types import DRAFTED, BadRecordsError, Case, Fact, Probe, form_of

NEIGHBOR_FIELDS = ("prompt", "answer", "form", "distractor", "kind")
PROBE_FIELDS = ("axis", "prompt", "answers", "distractor", "form", "kind")
NO_COLUMNS: Mapping[str, str] = MappingProxyType({})
CONVERTED = 15
"""Most targets that a remark lists."""
DRAFTABLE = ("paraphrases", "neighborhoods")
"""Fields whose probes the field ``drafted`` is about."""


class Local(Corpus):
    """All facts of one file. One bad record refuses the whole file. See ``read_facts``."""

    summary = "your own facts: a table (CSV, Excel, Parquet) or JSON, with --facts FILE"
    license = "yours"
    needs_data = True
    own_file = True

    def load(self, data: str | Path | None = None) -> list[Case]:
        if data is None:
            raise DataError(
                "Corpus 'local' reads a file of yours. "
                "Pass it with --facts FILE (.csv, .tsv, .xlsx, .parquet, .json or .jsonl)."
            )
        remarks: list[str] = []
        self.remarks = remarks
        places: dict[str, str] = {}
        self.places = places
        return read_facts(data, self.columns, remarks, places)


def read_facts(
    path: str | Path,
    columns: Mapping[str, str] = NO_COLUMNS,
    remarks: list[str] | None = None,
    places: dict[str, str] | None = None,
) -> list[Case]:
    """Return the cases of a file, in the file's order.

    The third fact of ``facts.csv`` is called ``facts-3`` if it has no ``id``. Without a ``form``, a
    prompt that ends with a question mark is a question and any other a cloze. ``check_facts``
    checks whether the facts can be taught together (ids, duplicates, contradictions).

    Args:
        columns: field -> the column of a table, or field of a JSON object, that holds it
            (``{"prompt": "question"}``); for fields whose columns have other names.
        remarks: gets a sentence for each thing that the user should know about how the file was
            read. Without it, a file in Windows-1252 is refused.
        places: gets the place of each fact in the file by its id, such as ``row 9``.

    Raises:
        BadRecordsError: for the first bad record, with file, line and field. Lists the lines of the
            other bad records.
        DataError: the file or its header cannot be read.
    """
    path = Path(path).expanduser()
    check_columns(columns)
    rows = read_rows(path, remarks)
    if not columns and (other := belongs_to(rows[0].values, "local")):
        raise DataError(f"{rows[0].place}: {other}")
    rows = _unwrapped(path, rows, columns)
    _check_header(path, rows, columns)
    stem = bare_path(path).stem
    cases: list[Case] = []
    bad: list[tuple[Row, DataError]] = []
    converted: list[str] = []
    for row in rows:
        try:
            cases.append(_read_case(row, f"{stem}-{row.number}", columns))
        except DataError as error:
            bad.append((row, error))
            continue
        spot, name = row.place.rpartition(", ")[2], cases[-1].fact.id
        if is_converted(_value(row, "target", columns)):
            converted.append(f"{cases[-1].fact.target!r} ({spot})")
        if places is not None:
            places[name] = f"{places[name]}, {spot}" if name in places else spot
    if converted and remarks is not None:
        n = len(converted)
        what = "1 target was a number, a date" if n == 1 else f"{n} targets were numbers, dates"
        taught = listed(converted, CONVERTED)
        remarks.append(f"{path}: {what} or true/false; taught as text: {taught}.")
    if bad:
        first = bad[0][1]
        problems = [f"{row.place}: {error}" for row, error in bad]
        raise BadRecordsError(problems[0] + _others(bad[1:]), problems, cases) from first
    notes = dict.fromkeys(name for case in cases for name in case.notes)
    if notes and remarks is not None:
        names = listed(" ".join(name.split()) for name in notes)
        remarks.append(f"{path}: kept as notes and not read: {names}.")
    return cases


def _unwrapped(path: Path, rows: list[Row], columns: Mapping[str, str]) -> list[Row]:
    """Return the records of the one list in a JSON object that is no fact itself.

    Raises:
        DataError: if there are several such lists.
    """
    values = rows[0].values
    if len(rows) > 1 or rows[0].is_table or not isinstance(values, dict):
        return rows
    prompt = columns.get("prompt", "prompt")
    if prompt in values and not isinstance(values[prompt], dict):
        return rows
    lists = {
        name: value
        for name, value in values.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    }
    if not lists and (way := _pandas_way(values, prompt)):
        raise DataError(
            f"{path} is one object with parts of the facts in it, as pandas' "
            f"to_json(orient={way!r}) writes it. Write a list of objects, one for each fact; in "
            "pandas with orient='records'."
        )
    if len(lists) > 1:
        raise DataError(
            f"{path} holds several lists of objects: {listed(lists)}. Write the facts into a file "
            "of their own."
        )
    return [
        Row(f"{path}, record {number}", number, record)
        for records in lists.values()
        for number, record in enumerate(records, start=1)
    ] or rows


def _pandas_way(values: Record, prompt: str) -> str | None:
    """Return how pandas was told to write an object that is no record; ``None`` if it was not."""
    if {"columns", "data"} <= values.keys():
        return "split"
    parts = list(values.values())
    if not parts or not all(isinstance(part, dict) for part in parts):
        return None
    first = parts[0]
    return "index" if isinstance(first, dict) and prompt in first else "columns"


def _check_header(path: Path, rows: list[Row], columns: Mapping[str, str]) -> None:
    """Check the names of a table once, since every row has the same, and the ``columns``.

    Raises:
        DataError: if a needed column is missing, or one looks like a misspelt field.
    """
    if rows[0].is_table:
        assert isinstance(rows[0].values, dict)
        try:
            fields_of(dict.fromkeys(rows[0].values), columns, "column")
        except DataError as error:
            raise DataError(f"{path}, header: {error}") from error
        return
    names = {str(name) for row in rows if isinstance(row.values, dict) for name in row.values}
    for field, column in columns.items():
        if column not in names:
            raise DataError(
                f"{path}: no record has a field {column!r} (for {field!r}). "
                f"Found: {listed(sorted(names))}."
            )


def _others(bad: list[tuple[Row, DataError]]) -> str:
    if not bad:
        return ""
    *_, word, _ = bad[0][0].place.split(" ")  # "facts.csv, line 7"
    places = listed((row.place.rpartition(" ")[2] for row, _ in bad), 5)
    return f" {len(bad)} more bad {word}{'s follow' if len(bad) > 1 else ' follows'}: {places}."


def _read_case(row: Row, default_id: str, columns: Mapping[str, str]) -> Case:
    if not isinstance(row.values, dict):
        raise DataError(
            f"expected an object with 'prompt' and 'target'; found {shown(row.values)}."
        )
    found, notes = fields_of(row.values, columns, "column" if row.is_table else "field")
    # An empty cell of a table means that the field is absent.
    values = {name: value for name, value in found.items() if not is_empty(value)}
    given: dict[str, object] = {
        name: text(values, name)
        for name in FACT_FIELDS
        if name in values and name not in ("target", "aliases", "original")
    }
    given.setdefault("id", default_id)
    if (original := _one(values, "original", row.is_table)) is not None:
        given["original"] = original
    target, *more = _target(values, row.is_table)
    given["target"] = target
    given["aliases"] = (*more, *texts(values, "aliases"))
    subject = given.get("subject")
    if "prompt" in given:
        given["prompt"] = _filled(str(given["prompt"]), subject)
    fact = Fact.from_dict(given)
    if fact.original is not None:
        fact = replace(fact, aliases=without_old(fact.aliases, fact.original))
    form = text(values, "form") if "form" in values else None
    ours, theirs = (DRAFTED if field in _drafted(values) else None for field in DRAFTABLE)
    paraphrases = [
        Probe("paraphrase", prompt, fact.answers, fact.original, form or form_of(prompt), kind=ours)
        for prompt in texts(values, "paraphrases")
    ]
    neighbors = [_neighbor(item, fact, form, theirs) for item in _neighbors(values)]
    probes = [*paraphrases, *neighbors, *(_probe(item) for item in objects(values, "probes"))]
    return replace(
        Case.build(fact, [replace(p, prompt=_filled(p.prompt, fact.subject)) for p in probes]),
        notes={
            str(name): value.value if isinstance(value, Unreadable) else value
            for name, value in notes.items()
            if not is_empty(value)
        },
    )


def _value(row: Row, field: str, columns: Mapping[str, str]) -> object:
    assert isinstance(row.values, dict)
    return fields_of(row.values, columns, "column" if row.is_table else "field")[0][field]


def _drafted(values: Record) -> tuple[str, ...]:
    """Return which of ``DRAFTABLE`` hold drafted probes.

    Raises:
        DataError: if the field says neither yes nor no, and names none of them.
    """
    said = texts(values, "drafted")
    names = tuple(name for name in DRAFTABLE if name in {part.strip().casefold() for part in said})
    if said and len(names) == len(said):
        return names
    return DRAFTABLE if is_true(values, "drafted") else ()


def _filled(prompt: str, subject: object) -> str:
    """Return ``prompt`` with the subject in place of ``{}``, unless it has the subject already.

    Raises:
        DataError: if a ``{}`` remains.
    """
    if isinstance(subject, str) and subject.strip() and subject.strip() not in prompt:
        # a function, because a backslash in the subject means nothing
        prompt = UNFILLED.sub(lambda _: subject.strip(), prompt)
    check_filled(prompt)
    return prompt


def _target(values: Record, is_table: bool) -> tuple[str, ...]:
    """Return the target and the aliases that its field adds as a list."""
    value = values.get("target")
    if isinstance(value, str) and is_table:
        value = texts_in_brackets(value, "target") or value
    if isinstance(value, list):
        return texts({"target": value}, "target")
    return (text(values, "target"),) if "target" in values else ("",)


def _one(values: Record, name: str, is_table: bool) -> str | None:
    """Return the text of a field, which may be a list of one text.

    Raises:
        DataError: if it is a list of several.
    """
    value = values.get(name)
    if isinstance(value, str) and is_table:
        value = texts_in_brackets(value, name) or value
    if isinstance(value, list):
        if len(value) > 1:
            raise DataError(
                f"field {name!r} holds a list, {shown(value)}, and a fact has one {name}. "
                "Keep one of them."
            )
        return next(iter(texts({name: value}, name)), None)
    return text(values, name) if name in values else None


def _neighbors(values: Record) -> list[Record]:
    """Return the neighborhood probes of a fact; a cell has ``PROMPT => ANSWER | PROMPT => ANSWER``.

    Raises:
        DataError: if the field or the cell has another form.
    """
    cell = values.get("neighborhoods")
    if not isinstance(cell, str):
        return objects(values, "neighborhoods")
    pairs = [part.partition("=>") for part in cell.split("|") if part.strip()]
    for prompt, _, answer in pairs:
        if not prompt.strip() or not answer.strip() or "=>" in answer:
            raise DataError(
                f"field 'neighborhoods' is {shown(cell)}; write PROMPT => ANSWER, and | between "
                "several."
            )
    return [{"prompt": prompt.strip(), "answer": answer.strip()} for prompt, _, answer in pairs]


def _neighbor(item: Record, fact: Fact, form: str | None, kind: str | None) -> Probe:
    """Return a neighborhood probe. As in CounterFact, its distractor is the new target."""
    item = _renamed(item, "answers", "answer")
    check_names(item, NEIGHBOR_FIELDS, "neighborhood field", needed=("prompt", "answer"))
    # The item comes last, so that its own fields replace the defaults.
    probe = {
        "axis": "neighborhood",
        "distractor": fact.target,
        "form": form,
        "kind": kind,
        **item,
    }
    return _probe(probe)


def _probe(item: Record) -> Probe:
    item = _renamed(item, "answer", "answers")
    check_names(item, PROBE_FIELDS, "probe field", needed=("axis", "prompt", "answers"))
    given = {
        name: text(item, name)
        for name, value in item.items()
        if name != "answers" and not is_empty(value)
    }
    prompt = given.get("prompt", "")
    return Probe(
        given.get("axis", ""),
        prompt,
        texts(item, "answers"),
        given.get("distractor"),
        given.get("form") or form_of(prompt),
        kind=given.get("kind"),
    )


def _renamed(item: Record, old: str, new: str) -> Record:
    """Return ``item`` with ``new`` for the name ``old``, unless it has both."""
    if old not in item or new in item:
        return item
    return {new if name == old else name: value for name, value in item.items()}
