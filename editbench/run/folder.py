"""Keep a run folder in order: remove an empty run, name its seeds, store its facts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from editbench.errors import EditbenchError, RecordError
from editbench.files import check_outside_cells, in_plain_words, write_json_atomic
from editbench.records.reading import read_cases, seeds_of
from editbench.run.plan import Plan
from editbench.types import digest

FILES = ("seeds.json", "cases.json", "cells.json", "not_asked.json", "run.json", ".lock")
"""The files of a run without a finished cell."""


def no_empty_run(path: Path) -> AbstractContextManager[None]:
    """Return a context manager that removes a new run that ends in an error before its first cell.

    Call this before the run folder is opened, because it notes which folders exist at that time.
    Enter the context manager once the folder's lock is held.
    """
    is_new = not any(os.path.exists(path / name) for name in ("run.json", "seeds.json"))
    new_folders = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]

    @contextmanager
    def guard() -> Iterator[None]:
        try:
            yield
        # Not Ctrl-C: the user may want to resume.
        except (EditbenchError, OSError):
            cells = ("cells/*/summary.json", "seed*/cells/*/summary.json")
            if is_new and not any(any(path.glob(pattern)) for pattern in cells):
                _remove(path, new_folders)
            raise

    return guard()


def _remove(path: Path, folders: list[Path]) -> None:
    """Remove the files of a run, and then those of ``folders`` that are empty."""
    # rmdir fails on a folder with other files in it, and its parents are then kept as well.
    with suppress(OSError):
        for name in FILES:
            (path / name).unlink(missing_ok=True)
        if (path / "cells").exists():
            (path / "cells").rmdir()
        for folder in folders:
            folder.rmdir()


def claim_seeds(path: Path, seeds: Sequence[int]) -> None:
    """Make ``path`` the folder of a run of ``seeds``. Seeds may be added to an earlier run.

    Raises:
        RecordError: the folder holds something else, or other seeds than these, or cannot be
            written.
    """
    check_outside_cells(path)
    with in_plain_words(path):
        path.mkdir(parents=True, exist_ok=True)
        stored = seeds_of(path)
        foreign = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
        if foreign and not stored:
            what = (
                "holds a run of one seed."
                if (path / "run.json").exists()
                else f"is not empty and holds no run of several seeds: it has {foreign[0]!r} and "
                "no seeds.json."
            )
            raise RecordError(f"{path} {what} Use another --output.")
        if left_out := [seed for seed in stored if seed not in seeds]:
            raise RecordError(
                f"{path} also holds seed {left_out[0]}. Name all its seeds, to which more can be "
                f"added (--seeds {','.join(map(str, stored))}), or use another --output."
            )
        if not stored:
            name_seeds(path, seeds)


def name_seeds(path: Path, seeds: Sequence[int]) -> None:
    """Write the seeds of the run in ``path``.

    Those that are added to an earlier run are named once its folders are open: a run that is
    refused there must not leave seeds behind that then have to be run.
    """
    with in_plain_words(path):
        write_json_atomic(path / "seeds.json", {"seeds": list(seeds)})


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
