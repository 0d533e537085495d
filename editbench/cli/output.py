"""Write whole files, and make folders that must not exist yet or be empty."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from editbench.errors import RecordError


def write_text(text: str, path: Path) -> Path:
    """Write ``text`` to ``path`` as a whole; if that fails, the old file stays.

    Raises:
        RecordError: the file cannot be written.
    """
    # ``RunStore.open`` removes leftovers of this name when a run is resumed.
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
    """Make ``path`` or accept an empty folder there; return the new folders, innermost first.

    Raises:
        RecordError: there is a file or a folder with files in it, or the folder cannot be made.
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
