"""What commands write: whole files, and folders that did not exist or were empty."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from editbench.errors import RecordError


def write_text(text: str, path: Path) -> Path:
    """Write ``text`` to ``path`` as a whole, or leave what was there.

    Raises:
        RecordError: The file cannot be written.
    """
    # In a run folder, a leftover of this name is removed when the run is resumed.
    temporary = path.parent / f".tmp-{path.name}-{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", errors="replace")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise unwritable(path, error) from error
    return path


def unwritable(path: Path, error: OSError) -> RecordError:
    """Return the error that says why ``path`` cannot be written."""
    return RecordError(f"{path} cannot be written: {error.strerror}. Choose another file.")


def make_empty_folder(path: Path) -> list[Path]:
    """Make ``path``, or accept an empty folder there; return the folders made, innermost first.

    Raises:
        RecordError: Something is in the way, or the folder cannot be made.
    """
    made = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]
    occupied = f"{path} exists and is not an empty folder. Choose another --output."
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RecordError(occupied)
    except FileExistsError:
        raise RecordError(occupied) from None
    except OSError as error:
        raise RecordError(
            f"{path} cannot be used: {error.strerror}. Choose another --output."
        ) from error
    return made
