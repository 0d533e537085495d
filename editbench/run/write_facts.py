"""Write facts with their probes as a file that people edit and the corpus ``local`` reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import pandas
from openpyxl.utils.exceptions import IllegalCharacterError

from editbench import registry
from editbench.errors import DataError
from editbench.files import in_plain_words, replacing
from editbench.types import DRAFTED, Case, Probe, form_of

TABLES = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".jsonl", ".json", *TABLES, ".xlsx")
AXES = {"paraphrases": "paraphrase", "neighborhoods": "neighborhood"}
"""Field of a file of facts -> the axis of its probes."""


def write_facts(path: Path, cases: Sequence[Case], columns: Container[str] = ()) -> None:
    """Write ``cases`` to ``path``, a table or JSON by its suffix, so that reading gives them again.

    Only the order of a fact's probes may be another one.

    Args:
        columns: fields that get a column in a table even if no fact has them, to be filled in.

    Raises:
        DataError: if the suffix is not one of ``SUFFIXES``, or a table cannot hold a case, such as
            a neighbor with several answers or a text with the separator ``|``.
        RecordError: if the file cannot be written.
    """
    check_suffix(path)
    with in_plain_words(path), replacing(path) as temporary:
        try:
            _write(temporary, cases, columns=columns)
        except IllegalCharacterError as error:
            raise DataError(f"Excel cannot hold this text: {error}. Name a .jsonl file.") from error
        lost = _lost(temporary, cases)
        if lost and path.suffix.lower() in (".json", ".jsonl"):
            _write(temporary, cases, in_full=lost)
            lost = _lost(temporary, cases)
        if lost:
            raise DataError(f"A table cannot hold all of fact {lost[0]!r}. Name a .jsonl file.")


def _lost(path: Path, cases: Sequence[Case]) -> list[str]:
    """Return the ids of the facts that reading ``path`` does not give again with their probes."""
    again = registry.get("corpora", "local")().load(path)
    return [
        case.fact.id
        for case, read in zip(cases, again, strict=True)
        if (case.fact, Counter(case.probes)) != (read.fact, Counter(read.probes))
    ]


def check_suffix(path: Path) -> None:
    """Check that facts can be written to a file of this name.

    Raises:
        DataError: if its suffix is none of ``SUFFIXES``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"The name {path} does not say how to write the facts. "
            f"End it with one of {', '.join(SUFFIXES)}."
        )


def _write(
    path: Path,
    cases: Sequence[Case],
    in_full: Container[str] = (),
    columns: Container[str] = (),
) -> None:
    """Write ``cases``.

    Args:
        in_full: ids of the facts whose probes JSON writes out with all that they have. Those of
            other facts take the fact's target, so that they need no mending when it is mended.
    """
    suffix = path.suffix.lower()
    rows = [_row(case) for case in cases]
    if suffix in (".json", ".jsonl"):
        records = [
            _with_notes(case.to_dict() if case.fact.id in in_full else _filled(row), case)
            for row, case in zip(rows, cases, strict=True)
        ]
        lines = [json.dumps(record, ensure_ascii=False, default=str) for record in records]
        whole = "[\n" + ",\n".join(lines) + "\n]\n"
        text = whole if suffix == ".json" else "".join(line + "\n" for line in lines)
        path.write_text(text, encoding="utf-8")
        return
    used = [name for name in rows[0] if name in columns or any(row[name] for row in rows)]
    table = pandas.DataFrame(
        [
            _with_notes({name: _cell(row[name]) for name in used}, case)
            for row, case in zip(rows, cases, strict=True)
        ],
        dtype=object,  # whole numbers among the notes stay whole in a column with gaps
    )
    if suffix == ".xlsx":
        _write_workbook(path, table)
    else:
        # With a byte order mark, by which Excel knows that the file is UTF-8.
        table.to_csv(path, sep=TABLES[suffix], index=False, encoding="utf-8-sig")


def _row(case: Case) -> dict[str, object]:
    """Return the fields of ``case`` as the corpus ``local`` names them; empty ones as well."""
    fact = case.fact
    by_field = {
        field: [probe for probe in case.probes if probe.axis == axis]
        for field, axis in AXES.items()
    }
    return {
        "id": fact.id,
        "prompt": fact.prompt,
        "target": fact.target,
        "subject": fact.subject,
        "original": fact.original,
        "aliases": list(fact.aliases),
        "relation": fact.relation,
        "demonstration": fact.demonstration,
        "form": None if fact.form == form_of(fact.prompt) else fact.form,
        "paraphrases": [probe.prompt for probe in by_field["paraphrases"]],
        "neighborhoods": [
            {"prompt": probe.prompt, "answer": probe.answers[0]}
            for probe in by_field["neighborhoods"]
        ],
        "drafted": _drafted(by_field),
    }


def _filled(row: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if value}


def _cell(value: object) -> object:
    """Return the value of a field as a cell holds it."""
    if not isinstance(value, list):
        return value
    return " | ".join(
        f"{item['prompt']} => {item['answer']}" if isinstance(item, Mapping) else item
        for item in value
    )


def _with_notes(row: dict[str, object], case: Case) -> dict[str, object]:
    """Return ``row`` with the notes of ``case`` after it; none takes the name of a field."""
    fields = {*_row(case), "probes"}
    notes = {
        f"{name} (note)" if name.strip().casefold() in fields else name: note
        for name, note in case.notes.items()
    }
    return {**row, **notes}


def _drafted(by_field: dict[str, list[Probe]]) -> str:
    """Return ``yes`` if all of a fact's probes are drafted, else the fields of those that are."""
    asked = {field: probes for field, probes in by_field.items() if probes}
    drafted = [field for field, probes in asked.items() if all(p.kind == DRAFTED for p in probes)]
    return "yes" if drafted and len(drafted) == len(asked) else " | ".join(drafted)


def _write_workbook(path: Path, table: pandas.DataFrame) -> None:
    # A note may be of any type, and a workbook takes no list and no time zone.
    table = table.map(
        lambda value: value if isinstance(value, (str, int, float, type(None))) else str(value)
    )
    with pandas.ExcelWriter(path, engine="openpyxl") as book:
        table.to_excel(book, sheet_name="facts", index=False)
        for row in book.sheets["facts"].iter_rows():
            for cell in row:
                if cell.data_type == "f":  # a text that begins with "=" would become a formula
                    cell.data_type = "s"
