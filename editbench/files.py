"""Write JSON and other files so that a crash leaves either the old file or the whole new one."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editbench.errors import RecordError


def write_json_atomic(path: str | Path, value: object) -> None:
    """Write ``value`` as JSON; even after a power cut the file is the old one or the whole new one.

    Raises:
        OSError: if the system cannot write the file.
        TypeError: if ``value`` holds anything that ``jsonable`` cannot convert.
    """
    path = Path(path)
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Named after the process, so that two processes do not write the same temporary file, and in
    # the same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        write_synced(temporary, text.encode())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


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
