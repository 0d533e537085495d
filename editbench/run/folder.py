"""Keep the run folder in order: remove an empty run, and store the facts next to the records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from editbench.errors import EditbenchError, RecordError
from editbench.files import write_json_atomic
from editbench.records.reading import read_cases
from editbench.run.plan import Plan
from editbench.types import digest

FILES = ("cases.json", "cells.json", "not_asked.json", "run.json", ".lock")
"""The files of a run without a finished cell."""


def no_empty_run(path: Path) -> AbstractContextManager[None]:
    """Return a context manager that removes a new run that ends in an error before its first cell.

    Call this before the run folder is opened, because it notes which folders exist at that time.
    Enter the context manager once the folder's lock is held.
    """
    is_new = not os.path.exists(path / "run.json")
    new_folders = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]

    @contextmanager
    def guard() -> Iterator[None]:
        try:
            yield
        # Not Ctrl-C: the user may want to resume.
        except (EditbenchError, OSError):
            if is_new and not any((path / "cells").glob("*/summary.json")):
                _remove(path, new_folders)
            raise

    return guard()


def _remove(path: Path, folders: list[Path]) -> None:
    """Remove the files of a run, and then those of ``folders`` that are empty."""
    # rmdir fails on a folder with other files in it, and its parents are then kept as well.
    with suppress(OSError):
        for name in FILES:
            (path / name).unlink(missing_ok=True)
        (path / "cells").rmdir()
        for folder in folders:
            folder.rmdir()


def save_cases(path: Path, plan: Plan) -> None:
    """Write the run's facts, and the retention tasks that cannot be asked, next to its records.

    Thus every record can be traced to the facts that were injected.

    Raises:
        RecordError: the folder holds other facts.
    """
    if plan.not_asked:
        write_json_atomic(path / "not_asked.json", plan.not_asked)
    else:
        (path / "not_asked.json").unlink(missing_ok=True)
    stored = None
    # A missing or damaged file may be replaced, since each cell holds the hash of its facts.
    with suppress(RecordError):
        stored = digest(read_cases(path))[:16]
    if stored == plan.slice_hash:
        return
    if stored is not None:
        raise RecordError(
            f"{path} holds results for other facts under the same names ({stored} there, "
            f"{plan.slice_hash} now). Use another --output."
        )
    write_json_atomic(path / "cases.json", [case.to_dict() for case in plan.cases])
