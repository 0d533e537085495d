"""The report of ``editbench verify``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypedDict


class Difference(TypedDict):
    """Something that is not as it is recorded."""

    cell: str
    """Key of the cell, or the name of the run folder."""
    what: str
    stored: object
    found: object
    """What the check computed, or ``None``."""


@dataclass
class Report:
    """What was checked, and where it differs from the records."""

    differences: list[Difference] = field(default_factory=list)
    """Empty if everything is as it is recorded."""
    notes: list[str] = field(default_factory=list)
    """What the reader should know about how far the check went."""
    cells: int = 0
    numbers: int = 0
    """Numbers that were recomputed from rows."""
    rerun: list[str] = field(default_factory=list)
    """Keys of the cells that were computed anew."""
    rows: int = 0
    """Rows of these cells that were compared."""
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
            yield f"{self.rows} rows of {', '.join(self.rerun)} computed anew and compared."
        yield f"{len(self.differences)} differences." if self.differences else "Nothing differs."
