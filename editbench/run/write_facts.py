"""Write facts with their probes as a file that people edit and the corpus ``local`` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
"""Column of a table -> the axis of its probes."""


def write_facts(path: Path, cases: Sequence[Case]) -> None:
    """Write ``cases`` to ``path``, a table or JSON by its suffix, so that reading gives them again.

    Raises:
        DataError: if the suffix is not one of ``SUFFIXES``, or a table cannot hold a case, such as
            a neighbor with several answers or a text with the separator ``|``.
        RecordError: if the file cannot be written.
    """
    check_suffix(path)
    with in_plain_words(path), replacing(path) as temporary:
        try:
            _write(temporary, cases)
        except IllegalCharacterError as error:
            raise DataError(f"Excel cannot hold this text: {error}. Name a .jsonl file.") from error
        again = registry.get("corpora", "local")().load(temporary)
        for case, read in zip(cases, again, strict=True):
            if case != read:
                raise DataError(
                    f"A table cannot hold all of fact {case.fact.id!r}. Name a .jsonl file."
                )


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


def _write(path: Path, cases: Sequence[Case]) -> None:
    suffix = path.suffix.lower()
    if suffix == ".xlsx":
        _write_workbook(path, pandas.DataFrame(_rows(cases)))
    elif suffix in TABLES:
        # With a byte order mark, by which Excel knows that the file is UTF-8.
        table = pandas.DataFrame(_rows(cases))
        table.to_csv(path, sep=TABLES[suffix], index=False, encoding="utf-8-sig")
    else:
        records = [{**case.notes, **case.to_dict()} for case in cases]
        lines = [json.dumps(record, ensure_ascii=False, default=str) for record in records]
        whole = "[\n" + ",\n".join(lines) + "\n]\n"
        text = whole if suffix == ".json" else "".join(line + "\n" for line in lines)
        path.write_text(text, encoding="utf-8")


def _rows(cases: Sequence[Case]) -> list[dict[str, object]]:
    """Return a row for each case, all with the same columns, none of them empty; notes last."""
    rows = [_row(case) for case in cases]
    used = [name for name in rows[0] if any(row[name] for row in rows)]
    return [
        {**{name: row[name] for name in used}, **case.notes}
        for row, case in zip(rows, cases, strict=True)
    ]


def _row(case: Case) -> dict[str, str]:
    fact = case.fact
    by_column = {
        column: [probe for probe in case.probes if probe.axis == axis]
        for column, axis in AXES.items()
    }
    return {
        "id": fact.id,
        "prompt": fact.prompt,
        "target": fact.target,
        "subject": fact.subject or "",
        "original": fact.original or "",
        "aliases": " | ".join(fact.aliases),
        "relation": fact.relation or "",
        "demonstration": fact.demonstration or "",
        "form": "" if fact.form == form_of(fact.prompt) else fact.form,
        "paraphrases": " | ".join(probe.prompt for probe in by_column["paraphrases"]),
        "neighborhoods": " | ".join(
            f"{probe.prompt} => {probe.answers[0]}" for probe in by_column["neighborhoods"]
        ),
        "drafted": _drafted(by_column),
    }


def _drafted(by_column: dict[str, list[Probe]]) -> str:
    """Return ``yes`` if all of a row's probes are drafted, else the columns of those that are."""
    asked = {column: probes for column, probes in by_column.items() if probes}
    drafted = [column for column, probes in asked.items() if all(p.kind == DRAFTED for p in probes)]
    return "yes" if drafted and len(drafted) == len(asked) else " | ".join(drafted)


def _write_workbook(path: Path, table: pandas.DataFrame) -> None:
    with pandas.ExcelWriter(path, engine="openpyxl") as book:
        table.to_excel(book, sheet_name="facts", index=False)
        for row in book.sheets["facts"].iter_rows():
            for cell in row:
                if cell.data_type == "f":  # a text that begins with "=" would become a formula
                    cell.data_type = "s"
