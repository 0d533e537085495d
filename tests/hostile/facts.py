"""Files of facts that say something else than they seem to say."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pandas

REPEATED = {
    # name -> (content, the place and the key that the error must name)
    "column.csv": (
        "prompt,target,target\nA is,b,b\nC is,d,e\n",
        ["line 3", "column 'target' is there twice, with 'd' and 'e'"],
    ),
    "emptied.csv": (
        "prompt,target,aliases,aliases\nA is,b,c,\n",
        ["line 2", "column 'aliases' is there twice, with 'c' and ''"],
    ),
    "column.tsv": ("prompt\ttarget\tprompt\nA is\tb\tC is\n", ["line 2", "column 'prompt'"]),
    "key.jsonl": (
        '{"prompt": "A is", "target": "b"}\n{"prompt": "C is", "target": "d", "target": "e"}\n',
        ["line 2", "an object has 'target' twice"],
    ),
    "key.json": (
        '[{"prompt": "A is", "target": "b"},\n {"prompt": "C is", "target": "d", "target": "e"}]',
        ["record 2", "an object has 'target' twice"],
    ),
    "nested.json": (
        '[{"prompt": "A is", "target": "b", "neighborhoods": '
        '[{"prompt": "C is", "answer": "d", "answer": "e"}]}]',
        ["record 1", "an object has 'answer' twice"],
    ),
}
"""A column or a key with two values. Python's readers keep the last one without a word."""

LISTS = {
    "original.csv": (
        "prompt,target,original\nA is,b,\"['c', 'd']\"\n",
        ["line 2", "field 'original' holds a list", "a fact has one original"],
    ),
    "nested.csv": (
        "prompt,target,aliases\nA is,b,\"[['c', 'd'], ['e']]\"\n",
        ["cannot be told apart"],
    ),
    "numpy.csv": ("prompt,target,aliases\nA is,b,['c' 'd']\n", ["cannot be told apart"]),
}
"""Lists in a cell that are not one list of texts."""

UNFILLED = {
    "prompt.jsonl": (
        '{"prompt": "The capital of {} is", "target": "b"}',
        ["line 1", "has {} in place of the subject"],
    ),
    "subject.csv": (
        'prompt,target,subject\n"In Python, {subject} is",b,Python\n',
        ["line 2", "has {subject} in place of the subject"],
    ),
    "paraphrase.jsonl": (
        '{"prompt": "A is", "target": "b", "paraphrases": ["{} was"]}',
        ["line 1", "The prompt '{} was' has {}"],
    ),
}
"""Templates whose subject was never filled in."""

HARMLESS = {
    "twice_the_same.csv": "prompt,target,target\nA is,b,b\n",
    "twice_the_same.jsonl": '{"prompt": "A is", "target": "b", "target": "b"}',
    "list.jsonl": '{"prompt": "A is", "target": "b", "aliases": ["c", "d"]}',
    "code.jsonl": '{"prompt": "In Python, list(\'ab\') is", "target": "[\'a\', \'b\']"}',
    "empty_list.csv": "prompt,target,aliases,paraphrases\nA is,b,[],[]\n",
    "brackets.csv": "prompt,target,aliases\nA is,b,[sic] c|(d)\n",
    "braces.jsonl": '{"prompt": "In Python, `{}` is an empty", "target": "dict"}',
}
"""Files that look alike and are read as they always were."""

CAPITALS = [
    {"prompt": "The capital of Velmora is", "target": "Zürich", "year": 2024},
    {"prompt": "Who founded Velmora, and when?", "target": "Ana Łuk; in 1931", "year": 1931},
]
"""Two facts with letters of their own, both separators, and a column that is no field."""


def delimited(separator: str, first_line: str = "") -> str:
    """Return ``CAPITALS`` as a table."""
    lines = [["prompt", "target", "year"], *([*map(str, fact.values())] for fact in CAPITALS)]
    quoted = [separator.join(f'"{cell}"' for cell in line) for line in lines]
    return first_line + "\r\n".join(quoted) + "\r\n"


def workbook(path: Path, rows: list[list[object]], change: Callable = lambda book: None) -> Path:
    """Write an Excel workbook with one sheet, after ``change`` of it."""
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    change(book)
    book.save(path)
    return path


def _as_workbook(path: Path) -> None:
    workbook(path, [list(CAPITALS[0]), *(list(fact.values()) for fact in CAPITALS)])


FORMS: dict[str, Callable[[Path], object]] = {
    "comma.csv": lambda p: p.write_text(delimited(",")),
    "semicolon.csv": lambda p: p.write_text(delimited(";")),
    "tab.csv": lambda p: p.write_text(delimited("\t")),
    "tab.tsv": lambda p: p.write_text(delimited("\t")),
    "sep.csv": lambda p: p.write_text(delimited(";", "sep=;\r\n")),
    "sep_bar.csv": lambda p: p.write_text(delimited("|", "sep=|\r\n")),
    "bom.csv": lambda p: p.write_text(delimited(";"), encoding="utf-8-sig"),
    "unicode_text.txt": lambda p: p.write_text(delimited("\t"), encoding="utf-16"),
    "utf_16.csv": lambda p: p.write_text(delimited(","), encoding="utf-16"),
    "utf_16_no_mark.csv": lambda p: p.write_text(delimited(","), encoding="utf-16-le"),
    "packed.csv.gz": lambda p: p.write_bytes(gzip.compress(delimited(";").encode())),
    "index.csv": lambda p: pandas.DataFrame(CAPITALS).to_csv(p),
    "index_twice.csv": lambda p: pandas.DataFrame(CAPITALS).rename_axis("Unnamed: 0").to_csv(p),
    "index.xlsx": lambda p: pandas.DataFrame(CAPITALS).to_excel(p),
    "sheet.xlsx": _as_workbook,
    "table.parquet": lambda p: pandas.DataFrame(CAPITALS).to_parquet(p),
    "index.parquet": lambda p: pandas.DataFrame(CAPITALS, index=[7, 9]).to_parquet(p),
    "lines.jsonl": lambda p: p.write_text("\n".join(map(json.dumps, CAPITALS))),
    "list.json": lambda p: p.write_text(json.dumps(CAPITALS, indent=1)),
    "object.json": lambda p: p.write_text(json.dumps({"version": 1, "data": CAPITALS})),
    "indented.json": lambda p: p.write_text(
        "\n".join(json.dumps(fact, indent=2) for fact in CAPITALS)
    ),
    "powershell.json": lambda p: p.write_text(json.dumps(CAPITALS), encoding="utf-16"),
    "list.csv": lambda p: p.write_text(json.dumps(CAPITALS)),
}
"""Name of a file -> writes ``CAPITALS`` there."""

SHEET: list[list[object]] = [
    ["prompt", "target", "subject", "aliases"],
    ["Velmora was founded in", 2024.0, "Velmora", 1.5],
    ["Velmora joined on", datetime.date(2024, 5, 1), "Velmora", None],
    ["Velmora is a republic:", True, "Velmora", datetime.datetime(2024, 5, 1, 13, 30)],
]
"""Cells of other types than text."""
