"""The run folder around the cells: what an empty run leaves, and the facts beside the records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from editbench.errors import (
    EditbenchError,
    RecordError,
)
from editbench.files import write_json_atomic
from editbench.records.reading import read_cases
from editbench.run.plan import Plan
from editbench.types import digest


def no_empty_run(path: Path) -> AbstractContextManager[None]:
    """To be called before the run folder is opened, and entered after, when its lock is held: where an error comes before
    the first finished cell of a new run, nothing of it stays."""
    fresh = not os.path.exists(path / "run.json")
    made = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]

    @contextmanager
    def guard() -> Iterator[None]:
        try:
            yield
        except (EditbenchError, OSError):
            if fresh and not any((path / "cells").glob("*/summary.json")):
                with suppress(OSError):
                    for name in ("cases.json", "cells.json", "not_asked.json", "run.json", ".lock"):
                        (path / name).unlink(missing_ok=True)
                    (path / "cells").rmdir()
                    for folder in made:
                        folder.rmdir()
            raise

    return guard()


def save_cases(path: Path, plan: Plan) -> None:
    """Writes the slice's facts beside the run, so that every record can be traced to what was injected, and which tasks are
    not asked.

    Raises:
        RecordError: those of other facts are there.
    """
    if plan.not_asked:
        write_json_atomic(path / "not_asked.json", plan.not_asked)
    else:
        (path / "not_asked.json").unlink(missing_ok=True)
    stored = None
    with suppress(
        RecordError
    ):  # none, or a damaged one, is written anew: the cells hold the hash of theirs
        stored = digest(read_cases(path))[:16]
    if stored == plan.slice_hash:
        return
    if stored is not None:
        raise RecordError(
            f"{path} holds results for other facts under the same names ({stored} there, {plan.slice_hash} now). "
            "Use another --output."
        )
    write_json_atomic(path / "cases.json", [case.to_dict() for case in plan.cases])
