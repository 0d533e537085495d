"""Read tables: text with separators, Excel workbooks and Parquet files.

The standard library, openpyxl and pyarrow read them. ``pandas.read_csv`` would not do: it forgets
the lines of the rows, renames a repeated column and fills up a row that is too short.
"""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from editbench.errors import DataError, listed

if TYPE_CHECKING:
    from openpyxl.cell import Cell, MergedCell
    from openpyxl.worksheet.worksheet import Worksheet

Found = tuple[str, dict[str, object]]
"""Where a row stands in its file (``line 3``), and its cells by column."""

SEPARATORS = (",", ";", "\t")
MOST_DIGITS = 1e15
"""Numbers from here on have more digits than Excel keeps."""
SEPARATOR_LINE = re.compile(r'"?sep=(\t|\\t|[^\w\s"])"?[;,\t]*\r?\n', re.IGNORECASE)
"""Matches the first line by which Excel is told the separator."""
INDEX = re.compile(r"(?:Unnamed: \d+(?:[._]\w+)?|__index_level_\d+__)?")
"""Matches the header of a column that pandas wrote for the numbers of the rows, or an empty one."""


@dataclass(frozen=True)
class Unreadable:
    """A cell without a certain text. It matters only if its column is asked for."""

    reason: str
    value: object
    """What the cell stores: the number behind a format, or a formula."""


class Converted(str):
    """The text of a cell that holds a number, a date or a truth value."""


# --- text ---------------------------------------------------------------------------------------


def separator_of(text: str, usual: str) -> str:
    """Return the separator that parts the header into the most columns; if in doubt, ``usual``."""
    candidates = (usual, *(separator for separator in SEPARATORS if separator != usual))
    return max(candidates, key=lambda separator: len(header_of(text, separator)))


def header_of(text: str, separator: str) -> list[str]:
    """Return the names in the header of a table, without empty ones."""
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if any(cell.strip() for cell in cells):
                return [cell for cell in cells if cell.strip()]
    except csv.Error:  # reported by ``delimited``, with its line
        pass
    return []


def delimited(path: Path, text: str, usual: str) -> Iterator[Found]:
    """Yield the rows of a table in text form.

    Args:
        usual: the separator, unless the first line or the header says otherwise.

    Raises:
        DataError: if the table is malformed, a row has another number of columns than the header,
            or a repeated column has two values.
    """
    line = 1
    if given := SEPARATOR_LINE.match(text):
        separator = "\t" if given[1] == "\\t" else given[1]
        text, line = text[given.end() :], 2
    else:
        separator = separator_of(text, usual)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    skipped = line - 1
    header: list[str] = []
    try:
        for cells in reader:
            # A quoted cell may span lines. A row is named by its first line, and line_num is its
            # last.
            spot, line = f"line {line}", skipped + reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [name.strip() for name in cells]
                continue
            while len(cells) > len(header) and not cells[-1].strip():
                cells.pop()  # a separator at the end of the line, which the header lacks
            if len(header) == 1 < len(cells):
                raise DataError(
                    f"{path}, {spot}: {len(cells)} columns, but the header is one name, "
                    f"{header[0][:60]!r}. If that is a title, take it out, so that the names "
                    "of the columns come first."
                )
            if len(cells) != len(header):
                raise DataError(
                    f"{path}, {spot}: {len(cells)} columns, but the header has {len(header)} "
                    f"({listed(header)}). "
                    "Put values that contain the separator in double quotes."
                )
            yield spot, by_column(path, spot, header, cells)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: malformed table: {error}. Check the double quotes."
        ) from error


def by_column(
    path: Path, spot: str, header: Sequence[str], cells: Sequence[object]
) -> dict[str, object]:
    """Return the cells of a row by the names of their columns, without pandas' row numbers.

    Raises:
        DataError: if a column is there twice with two values.
    """
    values: dict[str, object] = {}
    for name, cell in zip(header, cells, strict=True):
        if INDEX.fullmatch(name):
            continue
        if values.get(name, cell) != cell:
            raise DataError(
                f"{path}, {spot}: column {name!r} is there twice, with {values[name]!r} and "
                f"{cell!r}. Keep one of the columns."
            )
        values[name] = cell
    return values


# --- Excel --------------------------------------------------------------------------------------


def workbook(path: Path, raw: bytes, remarks: list[str]) -> list[Found]:
    """Return the rows of the first visible sheet that is not empty. Its first row is the header.

    A formula counts as the value that Excel stored with it, a number as the text that is shown. A
    cell where that is not certain becomes ``Unreadable``.

    Args:
        remarks: gets a sentence if there are other sheets or hidden rows.

    Raises:
        DataError: if it is no workbook, or cells are merged.
    """
    import openpyxl  # slow to import

    try:
        book = openpyxl.load_workbook(io.BytesIO(raw), data_only=True)
        formulas = openpyxl.load_workbook(io.BytesIO(raw))
    except Exception as error:  # openpyxl raises exceptions of any type on a damaged file
        raise DataError(
            f"{path} cannot be read as an Excel workbook ({error}). Save it again as .xlsx, or as "
            "CSV UTF-8; unpack it if it is a zip archive."
        ) from error
    filled = [
        sheet
        for sheet in book.worksheets
        if sheet.sheet_state == "visible" and _last(formulas[sheet.title])[0]
    ]
    if not filled:
        return []
    sheet, *others = filled
    if others:
        unread = listed(repr(other.title) for other in others)
        remarks.append(f"{path}: only the first sheet, {sheet.title!r}, is read; not {unread}.")
    if sheet.merged_cells.ranges:
        merged = min(str(area) for area in sheet.merged_cells.ranges)
        raise DataError(
            f"{path}: cells {merged} are merged, so it is not clear to which rows and columns "
            "their text belongs. Unmerge them, and fill in each cell."
        )
    written = formulas[sheet.title]
    header: list[str] = []
    found: list[Found] = []
    hidden = 0
    last_row, last_column = _last(written)
    rows = sheet.iter_rows(min_row=1, max_row=last_row, max_col=last_column)
    for number, row in enumerate(rows, start=1):
        cells = [_cell(cell, written) for cell in row]
        if not any(isinstance(cell, Unreadable) or cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() if isinstance(cell, str) else cell.reason for cell in cells]
            continue
        hidden += bool(sheet.row_dimensions[number].hidden)
        found.append((f"row {number}", by_column(path, f"row {number}", header, cells)))
    if hidden:
        remarks.append(f"{path}: hidden rows are read like the others; there are {hidden}.")
    return found


def _last(sheet: Worksheet) -> tuple[int, int]:
    """Return the last row and the last column with something written in it; zeros if none has.

    A sheet may go on for a million rows that only have a format.
    """
    written = [(c.row, c.column) for c in sheet._cells.values() if c.value is not None]
    return max((row for row, _ in written), default=0), max((n for _, n in written), default=0)


def _cell(cell: Cell | MergedCell, formulas: Worksheet) -> str | Unreadable:
    """Return the text that a person sees in a cell."""
    value, shown = cell.value, cell.number_format or "General"
    if cell.data_type == "e":
        reason = f"cell {cell.coordinate} holds the error {value}. Mend it in Excel."
        return Unreadable(reason, value)
    if value is None:
        formula = formulas[cell.coordinate].value
        if formula is None:
            return ""
        return Unreadable(
            f"cell {cell.coordinate} is a formula without a stored value. Open the file in Excel "
            "and save it there, or write the value in its place.",
            formula,
        )
    if isinstance(value, bool):
        return Converted(str(value).upper())
    if isinstance(value, (int, float)):
        text = _number(value, shown)
    elif isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        text = _date(value, shown)
    else:
        return str(value)
    if text is None:
        return Unreadable(
            f"cell {cell.coordinate} is the number or date {value}, shown in the format {shown!r}, "
            "and its text is not certain. Format the cell as text, and write there what it should "
            "say.",
            value,
        )
    return Converted(text)


def _number(value: float, shown: str) -> str | None:
    """Return a number as a cell of the format ``shown`` has it; ``None`` for unusual formats."""
    if abs(value) >= MOST_DIGITS and isinstance(value, float):
        return None  # Excel keeps 15 digits, so that the others are not those that were typed
    if shown in ("General", "@"):
        return whole(value)
    known = re.fullmatch(r"(#,##)?0(?:\.(0+))?(%)?", shown)
    if known is None:
        return None
    comma, places, percent = known.groups()
    return f"{value:{',' if comma else ''}.{len(places or '')}{'%' if percent else 'f'}}"


def whole(value: float) -> str | None:
    """Return a number as text, a whole one without its ``.0``; ``None`` if it has an exponent."""
    is_whole = isinstance(value, int) or (value.is_integer() and abs(value) < MOST_DIGITS)
    text = str(int(value)) if is_whole else f"{value:.15g}"
    return None if "e" in text else text


def _date(value: datetime.datetime | datetime.date | datetime.time, shown: str) -> str | None:
    """Return a date as ``2024-05-01``; ``None`` if the cell shows a part of it only."""
    if isinstance(value, datetime.time):
        return iso(value)
    if (plain := re.sub(r"\[[^]]*\]|[\\;@]", "", shown).lower()) in ("yyyy", "yy"):
        return str(value.year) if plain == "yyyy" else None
    return iso(value) if "d" in plain else None


def iso(value: datetime.datetime | datetime.date | datetime.time) -> str:
    """Return a date or time in ISO 8601, without a time of midnight and without zero seconds."""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    text = value.isoformat(*([" "] if isinstance(value, datetime.datetime) else []))
    return re.sub(r"(\d\d:\d\d):00$", r"\1", text)


# --- Parquet ------------------------------------------------------------------------------------


def parquet(path: Path, raw: bytes) -> list[Found]:
    """Return the rows of a Parquet file, with values of their own types.

    Raises:
        DataError: if the file is damaged.
    """
    import pyarrow  # slow to import
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(raw))
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is a damaged Parquet file: {error}. Copy or write it again."
        ) from error
    return [
        (f"row {number}", by_column(path, f"row {number}", table.column_names, cells))
        for number, cells in enumerate(zip(*columns, strict=True), start=1)
    ]
