"""The results of a run in Python: its table, its rows as DataFrames, and how it looks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from editbench.cli.ranking import results as sheets_of
from editbench.cli.show import conditions
from editbench.errors import OptionError
from editbench.leaderboard.comparisons import PROTOCOLS, RETENTION, judge
from editbench.leaderboard.flat import flat
from editbench.leaderboard.rows import has, rivals, rows
from editbench.leaderboard.sections import read_sections
from editbench.records.reading import load_run, read_table, run_folders

if TYPE_CHECKING:
    import pandas

    from editbench.cli.sheet import Sheet
    from editbench.leaderboard.schema import Row

HEADLINE = "generation"
"""The protocol of the ranking."""


class Results:
    """A finished run, of one seed or of several.

    Printed, it is the table of ``editbench show``; in a notebook, the same in HTML. Nothing is
    cached on disk: the DataFrames are read from the run folder when they are asked for.

    Args:
        folder: a run folder.

    Raises:
        RecordError: ``folder`` is no readable run, or no cell is finished yet.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._read = read_sections([self.folder])

    @property
    def rows(self) -> list[Row]:
        """The ranking under protocol ``generation``, best first, as ``compare --json`` has it."""
        return [row for section in self._read.sections for row in rows(section.summaries)]

    @property
    def warnings(self) -> dict[str, list[str]]:
        """Method -> what its edit warns of, or why it failed; only methods with any."""
        told = {
            row["label"]: [*([row["note"]] if row["note"] else []), *row["warnings"]]
            for row in self.rows
        }
        return {label: sentences for label, sentences in told.items() if sentences}

    def table(self, protocol: str = HEADLINE) -> pandas.DataFrame:
        """Return the ranking, best first: one row for each method, with 95 % intervals.

        Columns: for each of efficacy, generalization, specificity (and others that were asked) and
        for retention the mean and, with ``_low`` and ``_high``, the ends of its interval; for
        several seeds ``_spread``, their standard deviation; ``score``, ``seconds`` of the
        injection, ``peak_memory`` in bytes, ``status``. What was not measured is NaN.

        Args:
            protocol: ``generation``, ``argmax``, ``likelihood`` or ``judge``.

        Raises:
            OptionError: no method was scored under ``protocol``.
        """
        import pandas

        if protocol not in PROTOCOLS:
            raise OptionError(_unscored(protocol))
        records = []
        for section in self._read.sections:
            # A failed method has no scores under any protocol, and stays in the headline's table.
            scored = [s for s in section.summaries if has(s, protocol) or protocol == HEADLINE]
            ranked = rows(scored, protocol) if scored else []
            records += [flat(row, ranked) for row in ranked]
        if not records:
            raise OptionError(_unscored(protocol))
        table = pandas.DataFrame(records).set_index("method")
        numbers = [column for column in table if column != "status"]
        return table.astype(dict.fromkeys(numbers, float))

    @cached_property
    def probes(self) -> pandas.DataFrame:
        """Each probe that each method was asked: its prompt, the text, and the score by protocol.

        Columns of the tables ``probes.parquet``, after ``method`` and ``seed``.
        """
        return self._tables("probes")

    @cached_property
    def retention(self) -> pandas.DataFrame:
        """Each item of the retention tasks that each method was asked, with the base's score.

        Columns of the tables ``retention.parquet``, after ``method`` and ``seed``.
        """
        return self._tables("retention")

    def _tables(self, name: str) -> pandas.DataFrame:
        import pandas

        scored = {"probes": "metrics", "retention": "retention"}[name]
        parts = []
        for run in run_folders(self.folder):
            for summary in load_run(run)[1]:
                if summary.get(scored):
                    table = read_table(run, summary["key"], name)
                    table.insert(0, "method", summary["method"])
                    table.insert(1, "seed", summary["seed"])
                    parts.append(table)
        return pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame()

    # --- how it looks ----------------------------------------------------------------------------

    def __repr__(self) -> str:
        """Return the number of methods and facts, and the folder, on one line."""
        cells = [summary for section in self._read.sections for summary in section.summaries]
        n = cells[0]["corpus"].get("n", 0)
        shown = f"{len(cells)} method{'s' * (len(cells) != 1)}, {n} fact{'s' * (n != 1)}"
        return f"Results({shown}, folder={str(self.folder)!r})"

    def __str__(self) -> str:
        """Return the table as text."""
        page = Console(width=100, file=None, record=False, no_color=True)
        with page.capture() as captured:
            page.print(self)
        return captured.get()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield the conditions and the tables, as ``editbench show`` prints them."""
        for title, sheets in self._drawn():
            yield Text(title, style="bold")
            yield from sheets

    def _repr_html_(self) -> str:
        """Return the same as HTML. All text of models and records in it is escaped."""
        import html

        return "".join(
            f"<p><b>{html.escape(title)}</b></p>{''.join(sheet.html() for sheet in sheets)}"
            for title, sheets in self._drawn()
        )

    def _drawn(self) -> Iterator[tuple[str, list[Sheet]]]:
        for section in self._read.sections:
            ranked = rows(section.summaries)
            scores, kept = (
                judge(rivals(ranked), self._read.tables, part) for part in (HEADLINE, RETENTION)
            )
            yield conditions(section.summaries[0]), sheets_of(ranked, scores, kept)


def _unscored(protocol: str) -> str:
    names = ", ".join(PROTOCOLS)
    return f"No method was scored under protocol {protocol!r}. Protocols: {names}."
