"""Tables that fit a terminal: no name and no interval is cut, and nothing is lost without a word.

A sheet that is too wide has its intervals on a second line. If that is not enough, it leaves out
its least important columns and names them below. What is still too wide is continued below, with
the first column repeated.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

GAP = 2
"""Blanks between two columns."""
NARROWEST = 24
"""A word with more characters may be broken, where whole words leave no room for other columns."""
_PIECES = re.compile(r"[^\s,@+/=]*[,@+/=]+|[^\s,@+/=]+|\s+")
"""Where a text may be broken: at blanks, and inside a name after a mark that joins two names."""


@dataclass(frozen=True)
class Cell:
    """One cell of a sheet."""

    text: str
    narrow: str | None = None
    """The same for a narrow terminal, in more lines; ``None``: ``text``."""
    style: str = ""
    """A style of rich, such as ``green``. A pipe gets none."""

    def lines(self, narrow: bool) -> list[str]:
        """Return the lines of the cell."""
        text = self.narrow if narrow and self.narrow is not None else self.text
        return text.split("\n")


@dataclass(frozen=True)
class Column:
    """One column of a sheet."""

    title: str
    cells: Sequence[Cell]
    number: bool = False
    """Numbers are aligned to the right, and no line of them is broken."""
    least: int = 0
    """In a narrow terminal the column with the highest number is left out first; 0: none is."""

    def widths(self, narrow: bool) -> tuple[int, int]:
        """Return the least width that breaks no name and no interval, and that of whole lines."""
        lines = [line for cell in self.cells for line in cell.lines(narrow)]
        longest = max(map(cell_len, lines), default=0)
        title = max(map(cell_len, _words(self.title)), default=0)
        words = longest if self.number else max((_least(line) for line in lines), default=0)
        return max(title, words, 1), max(cell_len(self.title), longest, 1)


@dataclass
class Sheet:
    """A table that lays itself out for the width that it is printed in."""

    columns: Sequence[Column]
    title: str = ""
    caption: str = ""
    colours: str = ""
    """What the colours of its cells mean, for a terminal that shows them."""
    where_else: str = ""
    """Where the columns are that a narrow terminal leaves out, after a blank."""
    apart: bool = False
    """A blank line between the rows: their texts are long."""

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield the title, the table in one or more parts, and the caption."""
        width = options.max_width
        if self.title:
            yield Text("\n".join(wrapped(self.title, width)), style="bold")
        parts, left_out, narrow = self.laid_out(width)
        for i, part in enumerate(parts):
            if i:
                yield Text("")
            yield _table(part, _shares(part, width, narrow), narrow, self.apart)
        caption = [self.caption] if self.caption else []
        if console.color_system and not console.no_color and self._is_coloured():
            caption.append(self.colours)
        if left_out:
            names = ", ".join(re.sub(r"\s*[↑↓]", "", column.title) for column in left_out)
            caption.append(f"Left out at {width} columns: {names}.{self.where_else}")
        for paragraph in caption:
            yield Text("\n".join(wrapped(paragraph, width)))

    def html(self) -> str:
        """Return the table as HTML, with all text escaped."""
        head = "".join(f"<th>{_escaped(column.title)}</th>" for column in self.columns)
        body = "".join(
            f"<tr>{''.join(_html_cell(column, i) for column in self.columns)}</tr>"
            for i in range(len(self.columns[0].cells))
        )
        title = f"<p><b>{_escaped(self.title)}</b></p>" if self.title else ""
        legend = self.colours if self._is_coloured() else ""
        note = "".join(f"<p>{_escaped(text)}</p>" for text in (self.caption, legend) if text)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return title + table + note

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the width at which nothing is broken, left out or continued."""
        full = _total([column.widths(narrow=False)[1] for column in self.columns])
        return Measurement(min(full, options.max_width), min(full, options.max_width))

    def _is_coloured(self) -> bool:
        return any(cell.style for column in self.columns for cell in column.cells)

    def laid_out(self, width: int) -> tuple[list[list[Column]], list[Column], bool]:
        """Return the columns of each part, those left out, and whether the cells are narrow."""
        columns, left_out = list(self.columns), []
        if _total([column.widths(narrow=False)[0] for column in columns]) <= width:
            return [columns], [], False
        while _least_total(columns) > width and any(column.least for column in columns[1:]):
            left_out.append(max(columns[1:], key=lambda column: column.least))
            columns.remove(left_out[-1])
        return _parts(columns, width), left_out[::-1], True


def _parts(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """Return the columns in parts that fit, each of which begins with the first column."""
    first, *rest = columns
    parts = [[first]]
    for column in rest:
        if len(parts[-1]) > 1 and _least_total([*parts[-1], column]) > width:
            parts.append([first])
        parts[-1].append(column)
    return parts


def _least_total(columns: Sequence[Column]) -> int:
    return _total([column.widths(narrow=True)[0] for column in columns])


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _shares(columns: Sequence[Column], width: int, narrow: bool) -> list[int]:
    """Return the width of each column: the least, and what is left for those that need little."""
    bounds = [column.widths(narrow) for column in columns]
    shares = [least for least, _ in bounds]
    room = width - _total(shares)
    wanting = sorted(range(len(bounds)), key=lambda i: bounds[i][1] - bounds[i][0])
    for place, i in enumerate(wanting):
        more = min(bounds[i][1] - bounds[i][0], max(0, room) // (len(wanting) - place))
        shares[i] += more
        room -= more
    # A terminal that is narrower than two columns: the widest gives, and its words are broken.
    while _total(shares) > width and max(shares) > 1:
        shares[shares.index(max(shares))] -= 1
    return shares


def _table(columns: Sequence[Column], shares: Sequence[int], narrow: bool, apart: bool) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, GAP - 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        leading=int(apart),
    )
    for column, share in zip(columns, shares, strict=True):
        table.add_column(
            Text("\n".join(wrapped(column.title, share))),
            justify="right" if column.number else "left",
            width=share,
            no_wrap=True,
            vertical="top",
        )
    for i in range(len(columns[0].cells)):
        table.add_row(
            *(
                _text(column.cells[i], share, narrow)
                for column, share in zip(columns, shares, strict=True)
            )
        )
    return table


def _text(cell: Cell, share: int, narrow: bool) -> Text:
    lines = [part for line in cell.lines(narrow) for part in wrapped(line, share)]
    return Text("\n".join(lines), style=cell.style)


def _escaped(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def _html_cell(column: Column, i: int) -> str:
    cell = column.cells[i]
    align = "right" if column.number else "left"
    colour = f"; color: {cell.style}" if cell.style else ""
    return f'<td style="text-align: {align}{colour}">{_escaped(cell.text)}</td>'


# --- text of a given width ----------------------------------------------------------------------


def wrapped(text: str, width: int) -> list[str]:
    """Return ``text`` in lines of at most ``width`` columns, broken at words.

    A name is broken after a mark that joins two names, and elsewhere only if it is longer than a
    line.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        lines += _filled(paragraph, width)
    return lines


def _filled(text: str, width: int) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    indent = text[: len(text) - len(text.lstrip())]
    lines, line = [], ""
    for word in re.findall(r"\s+|\S+", text):
        pieces = [word] if cell_len(word) <= width else _pieces(word, width)
        for piece in pieces:
            if line.strip() and cell_len(line) + cell_len(piece) > width:
                lines.append(line.rstrip())
                line = indent + piece.lstrip() if cell_len(indent + piece) <= width else piece
            else:
                line += piece
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(word: str, width: int) -> list[str]:
    pieces = _PIECES.findall(word)
    return [part for piece in pieces for part in chop_cells(piece, width)]


def _words(text: str) -> list[str]:
    return text.split() or [""]


def _least(line: str) -> int:
    """Return the width of the longest part that is not to be broken."""
    return min(max(map(cell_len, _words(line))), NARROWEST)
