"""Your own facts: JSON lines, a JSON list, CSV or TSV; ``prompt`` and ``target`` are all that a fact needs.

    {"prompt": "The capital of Australia is", "target": "Sydney", "subject": "Australia",
     "paraphrases": ["Australia's seat of government is"],
     "neighborhoods": [{"prompt": "The capital of France is", "answer": "Paris"}]}

A table has one column a field; several ``aliases`` or ``paraphrases`` in one cell are separated by ``|``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from editbench.corpora._read import Row, bare_path, is_table, read_rows
from editbench.errors import DataError
from editbench.plugin import Corpus
from editbench.types import Case, Fact, Probe, form_of

FACT_FIELDS = tuple(field.name for field in fields(Fact))
FIELDS = (*FACT_FIELDS, "paraphrases", "neighborhoods", "probes")
NEIGHBOR_FIELDS = ("prompt", "answer", "form", "distractor")
PROBE_FIELDS = ("axis", "prompt", "answers", "distractor", "form")
LISTED = 5


class Local(Corpus):
    """The facts of one file, all or none: see ``read_facts``."""

    summary = "your own facts: JSON lines, JSON list, CSV or TSV, with --data PATH"
    license = "yours"
    needs_data = True

    def load(self, data: str | Path | None = None) -> list[Case]:
        if data is None:
            raise DataError(
                "Corpus 'local' reads a file of yours. Give it with --data PATH (.jsonl, .json, .csv or .tsv)."
            )
        return read_facts(data)


def read_facts(path: str | Path) -> list[Case]:
    """The cases of a file, in its order; facts without an ``id`` are called ``<file name>-<line>``.

    Without a ``form``, prompts that end with "?" are questions and all others clozes. Whether the facts can be taught
    together (ids, duplicates, contradictions) is for ``check_facts`` to say.

    Raises:
        DataError: the first bad record, with file, line and field, and the places of those after it.
    """
    path = Path(path).expanduser()
    rows = read_rows(path)
    if is_table(path):
        _check_header(path, rows[0].values)
    stem = bare_path(path).stem
    cases: list[Case] = []
    bad: list[tuple[Row, DataError]] = []
    for row in rows:
        try:
            cases.append(_read_case(row, f"{stem}-{row.number}"))
        except DataError as error:
            bad.append((row, error))
    if bad:
        row, error = bad[0]
        raise DataError(f"{row.place}: {error}{_others(bad[1:])}") from error
    return cases


def _check_header(path: Path, columns: Mapping[str, Any]) -> None:
    try:
        _check_names(columns, FIELDS, "column", needed=("prompt", "target"))
    except DataError as error:
        raise DataError(f"{path}, header: {error}") from error


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
            f"a fact is an object with 'prompt' and 'target', not {_shown(row.values)}."
        )
    _check_names(row.values, FIELDS, "field", needed=("prompt", "target"))
    values = {name: value for name, value in row.values.items() if value not in ("", None)}
    given = {name: values[name] for name in FACT_FIELDS if name in values}
    for name in [name for name in given if name not in ("id", "aliases")]:
        _text(given, name)
    if not isinstance(given.setdefault("id", default_id), (str, int)):
        raise DataError(f"field 'id' must be text, not {_shown(given['id'])}.")
    given["aliases"] = _texts(values, "aliases")
    fact = Fact.from_dict(given)
    paraphrases = _texts(values, "paraphrases")
    return Case.build(
        fact,
        [
            *(
                Probe(
                    "paraphrase", p, fact.answers, fact.original, values.get("form") or form_of(p)
                )
                for p in paraphrases
            ),
            *(
                _neighbor(item, fact, values.get("form"))
                for item in _objects(values, "neighborhoods")
            ),
            *(_probe(item) for item in _objects(values, "probes")),
        ],
    )


def _neighbor(item: Mapping[str, Any], fact: Fact, form: str | None) -> Probe:
    """A neighborhood probe; as in CounterFact its distractor is the new target."""
    _check_names(item, NEIGHBOR_FIELDS, "neighborhood field", needed=("prompt", "answer"))
    probe = {"axis": "neighborhood", "distractor": fact.target, "form": form, **item}
    probe["answers"] = probe.pop("answer")
    return _probe(probe)


def _probe(item: Mapping[str, Any]) -> Probe:
    _check_names(item, PROBE_FIELDS, "probe field", needed=("axis", "prompt", "answers"))
    for name in [name for name in item if name != "answers"]:
        if item[name] is not None:
            _text(item, name)
    return Probe(
        item["axis"],
        item["prompt"] or "",
        _texts(item, "answers"),
        item.get("distractor"),
        item.get("form") or form_of(item["prompt"] or ""),
    )


def _check_names(
    found: Mapping[str, Any], known: Iterable[str], what: str, needed: Iterable[str] = ()
) -> None:
    for name in needed:
        if name not in found:
            raise DataError(
                f"{what} {name!r} is missing; found: {', '.join(map(str, found))}.{_nearest(name, found)}"
            )
    for name in found:
        if name not in known:
            raise DataError(
                f"unknown {what} {name!r}.{_nearest(name, known)} Known: {', '.join(known)}."
            )


def _nearest(name: str, names: Iterable[str]) -> str:
    folded = {str(other).casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def _text(values: Mapping[str, Any], name: str) -> str:
    if not isinstance(values[name], str):
        raise DataError(
            f"field {name!r} must be text, not {_shown(values[name])}. Put it in double quotes."
        )
    return values[name]


def _texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The texts of a list, or of one text with ``|`` between them; none where the field is missing."""
    value = values.get(name) or []
    if isinstance(value, str):
        value = [part for part in value.split("|") if part.strip()]
    if not isinstance(value, list) or not all(
        isinstance(text, str) and text.strip() for text in value
    ):
        raise DataError(f"field {name!r} must be a list of texts, not {_shown(value)}.")
    return tuple(value)


def _objects(values: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = values.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"field {name!r} must be a list of objects, not {_shown(value)}.")
    return value


def _shown(value: Any) -> str:
    """``value`` as the file writes it, cut to one line's worth."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
