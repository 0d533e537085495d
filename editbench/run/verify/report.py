"""The report of ``editbench verify``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypedDict


class Difference(TypedDict):
    """One value that is not as it is recorded."""

    cell: str
    """Key of the cell, or the name of the run folder."""
    what: str
    stored: object
    found: object
    """The value that the check computed, or ``None`` if it computes none."""


@dataclass
class Report:
    """The result of a check: how much was checked, and where it differs from the records."""

    differences: list[Difference] = field(default_factory=list)
    """Empty if everything is as recorded."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what the check could not cover, or what the reader should know about it."""
    cells: int = 0
    numbers: int = 0
    """Numbers that were recomputed from rows."""
    rerun: list[str] = field(default_factory=list)
    """Keys of the cells that were computed again."""
    rows: int = 0
    """Number of rows of these cells that were compared."""
    taken: dict[str, int] = field(default_factory=dict)
    """Task and reason -> number of its samples whose scores were taken as they stand."""

    def differ(self, cell: str, what: str, stored: object, found: object) -> None:
        """Add a difference."""
        self.differences.append({"cell": cell, "what": what, "stored": stored, "found": found})

    def words(self) -> Iterator[str]:
        """Yield the lines that the terminal shows."""
        yield from self.notes
        for task, count in self.taken.items():
            yield f"{count} scores of samples are taken as they stand, {task}."
        yield f"{self.numbers} numbers of {self.cells} cells recomputed from their rows."
        if self.rerun:
            yield f"{self.rows} rows of {', '.join(self.rerun)} computed again and compared."
        yield f"{len(self.differences)} differences." if self.differences else "Nothing differs."
