"""Write files and folders so that a crash leaves the old ones or the whole new ones.

Nothing here writes over stored results: see ``check_output`` for files, ``check_folder`` for
folders.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editbench.errors import RecordError

RUN_FILES = ("run.json", "cases.json", "cells.json", "not_asked.json", "tuned.json", ".lock")
"""The files of a run, beside its folder ``cells``."""
EDIT_FILES = ("edit.safetensors", "records.jsonl", "manifest.json")
"""The files of a saved edit."""
ANSWERS = "answers.jsonl"
"""Beside a saved edit: what the model answered before and after it. Who replaces the edit replaces
it, too."""
PARTS = "parts"
"""The folder of a saved stack of edits that holds each of them."""
DATA = (".csv", ".gguf", ".json", ".jsonl", ".parquet", ".safetensors", ".yaml", ".yml")
"""Endings of files that hold data, which no page or picture may replace."""
LAST = ("manifest.json", "adapter_config.json", "config.json")
"""A folder without such a file is no edit, adapter or model. So it is written last."""
TEMPORARY = ".tmp-"
"""How the names of unfinished files and folders begin."""
CHOOSE = "Choose another --output."


def write_json_atomic(path: str | Path, value: object) -> None:
    """Write ``value`` as JSON; even after a power cut the file is the old one or the whole new one.

    Raises:
        OSError: if the system cannot write the file.
        TypeError: if ``value`` holds anything that ``jsonable`` cannot convert.
    """
    path, data = Path(path), json_bytes(value)
    with replacing(path) as temporary:
        write_synced(temporary, data)
    sync_folder(path.parent)


def json_bytes(value: object) -> bytes:
    """Return ``value`` as the text of a JSON file.

    Raises:
        TypeError: if ``value`` holds anything that ``jsonable`` cannot convert.
    """
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to. At the end that file takes the place of ``path``.

    If an error ends the ``with``, the old file stays. The yielded name ends as ``path`` does.
    """
    # Named after the process, so that two processes do not write the same temporary file, and in
    # the same folder, because a rename is atomic only within one file system.
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{path.name}"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def whole_folder(
    folder: str | Path, overwrite: bool = False, also: Collection[str] = ()
) -> Iterator[Path]:
    """Yield a folder to write files into. At the end they are moved into ``folder``, all or none.

    ``also`` names what an earlier output may have had that the new one lacks; it is removed.

    Until then, and if an error ends the ``with``, ``folder`` stays as it was: absent, empty, or
    with its old files, which only ``overwrite`` allows to be replaced.

    Raises:
        RecordError: as ``check_folder``, or if the files cannot be written.
    """
    folder = Path(folder)
    check_folder(folder, overwrite)
    made = missing_folders(folder)
    # Inside the folder and not next to it: that is the same disk, even for a mounted folder, and
    # the current folder of a shell stays what it is.
    new, old = (folder / f"{TEMPORARY}{state}-{os.getpid()}" for state in ("new", "old"))
    try:
        new.mkdir(parents=True)
        yield new
        check_folder(folder, overwrite, {*also, *(file.name for file in new.iterdir())})
        _swap(folder, new, old)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()  # fails unless it is empty
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error
        raise RecordError(
            f"{folder} could not be written: {reason}. Nothing in it was changed."
        ) from error
    # also what a process that was killed left here
    for leftover in (old, *folder.glob(f"{TEMPORARY}new-*")):
        shutil.rmtree(leftover, ignore_errors=True)


def _swap(folder: Path, new: Path, old: Path) -> None:
    """Move the files of ``folder`` to ``old``, and those of ``new`` to ``folder``."""
    for file in new.rglob("*"):
        if file.is_file():
            with file.open("rb+") as written:
                os.fsync(written.fileno())  # a full disk may show only now
    old.mkdir()
    moves = [(file, old / file.name) for file in _ordered(_entries(folder))[::-1]]
    moves += [(file, folder / file.name) for file in _ordered(_entries(new))]
    done = []
    try:
        for source, target in moves:
            os.replace(source, target)
            done.append((source, target))
        sync_folder(folder)
    except BaseException:
        for source, target in reversed(done):
            os.replace(target, source)
        with contextlib.suppress(OSError):
            old.rmdir()  # fails if it still holds a file, which must not be lost
        raise


def _entries(folder: Path) -> list[Path]:
    """Return what ``folder`` holds, without what a process that died left unfinished."""
    return [entry for entry in folder.iterdir() if not entry.name.startswith(TEMPORARY)]


def _ordered(files: list[Path]) -> list[Path]:
    return sorted(files, key=lambda file: (file.name in LAST, file.name))


def missing_folders(folder: Path) -> list[Path]:
    """Return ``folder`` and its parents as far as they do not exist, innermost first."""
    return [path for path in (folder, *folder.parents) if not os.path.exists(path)]


def check_folder(
    folder: Path, overwrite: bool = False, names: Collection[str] | None = None
) -> None:
    """Check that files may be written into ``folder``: it is new or empty, and not part of a run.

    Args:
        folder: where the files go.
        overwrite: also accept a folder in which files of the same names are to be replaced.
        names: the names of the files, once they are known.

    Raises:
        RecordError: the folder may not be used, it is a file, or it is read-only.
    """
    check_outside_cells(folder)
    try:
        entries = _entries(folder) if folder.exists() else []
    except NotADirectoryError:
        raise RecordError(f"{folder} exists and is not an empty folder. {CHOOSE}") from None
    except OSError as error:
        raise RecordError(f"{folder} cannot be used: {error.strerror}. {CHOOSE}") from error
    if folder.exists() and not os.access(folder, os.W_OK):
        raise RecordError(f"{folder} cannot be used: it is read-only. {CHOOSE}")
    if not entries:
        return
    known = {*(names or ()), *([ANSWERS] if set(EDIT_FILES) <= set(names or ()) else [])}
    lost = sorted(e.name for e in entries if names is not None and e.name not in known)
    if overwrite and lost:
        raise RecordError(f"{folder} also holds {lost[0]}, which would be lost. {CHOOSE}")
    if overwrite:
        return
    hint = "" if lost else " (--overwrite replaces the files in it)"
    raise RecordError(f"{folder} exists and is not an empty folder. {CHOOSE[:-1]}{hint}.")


def check_output(path: Path) -> None:
    """Check that a page or picture may be written to ``path``.

    Raises:
        RecordError: it would replace a part of a run or of an edit, or a file of data, or it would
            lie among the cells of a run.
    """
    real = Path(os.path.realpath(path))  # a link may lead to a record
    check_outside_cells(real)
    for what, names in (("run", RUN_FILES), ("edit", EDIT_FILES)):
        beside = [name for name in names if (real.parent / name).is_file()]
        if real.name in names and beside:
            raise RecordError(
                f"{path} is part of the {what} in {real.parent}. Choose another file."
            )
    if real.suffix.lower() in DATA and real.exists():
        raise RecordError(
            f"{path} exists and holds data, which would be lost. Choose another file."
        )


def check_outside_cells(path: Path) -> None:
    """Raise a ``RecordError`` if ``path`` lies in the folder ``cells`` of a run."""
    for parent in (path, *path.absolute().parents):
        # The other files of a run have names that a folder of the user's may hold, too.
        beside = [parent.parent / name for name in ("run.json", "cells.json")]
        if parent.name == "cells" and any(file.exists() for file in beside):
            raise RecordError(
                f"{path} lies among the records of the run in {parent.parent}. "
                "Choose another place."
            )


def jsonable(value: Any) -> Any:
    """Return ``value`` as plain JSON types.

    NaN and infinity become ``None``, tuples and sets lists, NumPy scalars numbers, paths text, and
    dataclasses objects.

    Raises:
        TypeError: if ``value`` holds anything else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        # JSON has no NaN or infinity; Python would write tokens that other readers reject.
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        # A lone surrogate cannot be encoded. In a model's text it must not fail a whole cell.
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, set | frozenset):
        # Sorted, so that equal sets give equal files.
        return sorted(jsonable(v) for v in value)
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, Path):
        return value.as_posix()
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    raise TypeError(f"A {type(value).__name__} cannot be written as JSON: {value!r}.")


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` to ``path`` and wait until the disk has it."""
    # O_BINARY exists on Windows only, where text mode would change line ends.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o644)
    try:
        rest = memoryview(data)
        while rest:
            # os.write() may write only a part.
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in the folder ``path``, such as a renamed file's."""
    if os.name != "posix":
        return  # Windows cannot open a folder.
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def in_plain_words(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a ``RecordError`` that says what to do.

    The message names ``path`` if the error names no file.
    """
    try:
        yield
    except OSError as error:
        place = error.filename or path
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            text = (
                f"The disk is full: {place} could not be written. Free some space and run again; "
                "finished cells are kept."
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            text = f"No permission to use {place} ({error.strerror}). Use another --output."
        else:
            text = f"{place} cannot be used: {error.strerror or error}."
        raise RecordError(text) from error
