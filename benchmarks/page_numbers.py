"""Compare the tables of two pages: the same numbers, columns and links, in the same order.

    python benchmarks/page_numbers.py BEFORE.md AFTER.md

Run it before and after a change of wording. It reads table rows only, so headings, captions and
notes may change. Links are compared relative to the page, so both pages must lie in one folder.
Exit code 1, with the first rows that differ, where a number, a column or a link moved.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

NUMBER = re.compile(r"[-+−]?\d+(?:[.,]\d+)*")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class TableRow:
    """What must stay of one row of a table."""

    numbers: tuple[str, ...]
    columns: int
    links: tuple[str, ...]


def table_rows(page: str) -> list[TableRow]:
    """Return the table rows of a markdown page, headings and rulers included."""
    rows = []
    for line in page.splitlines():
        if line.startswith("|"):
            text = LINK.sub("]", line)  # a link holds numbers of its own
            rows.append(
                TableRow(
                    tuple(NUMBER.findall(text)), line.count("|") - 1, tuple(LINK.findall(line))
                )
            )
    return rows


def differences(before: str, after: str) -> list[str]:
    """Return one sentence for each table row that differs between two pages."""
    pairs = zip_longest(table_rows(before), table_rows(after))
    return [
        f"Table row {i}: {one} before, {other} after."
        for i, (one, other) in enumerate(pairs, 1)
        if one != other
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    given = parser.parse_args()
    before, after = (path.read_text(encoding="utf-8") for path in (given.before, given.after))
    found = differences(before, after)
    print("\n".join(found[:10]))
    rows = table_rows(after)
    numbers = sum(len(row.numbers) for row in rows)
    print(f"{len(rows)} table rows, {numbers} numbers after; {len(found)} rows differ")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
