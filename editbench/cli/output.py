"""Write whole files, and make the folders that a command fills later."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from editbench.errors import RecordError
from editbench.files import (
    EDIT_FILES,
    PARTS,
    check_folder,
    check_output,
    missing_folders,
    replacing,
)


def write_text(text: str, path: Path) -> Path:
    """Write ``text`` to ``path`` as a whole; if that fails, the old file stays.

    Raises:
        RecordError: the file cannot be written, or is not to be replaced (``files.check_output``).
    """
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return path


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; at the end that file takes the place of ``path``.

    Raises:
        RecordError: as ``write_text``.
    """
    check_output(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> RecordError:
    """Return the error that says why ``path`` cannot be written."""
    return RecordError(f"{path} cannot be written: {error.strerror}. Choose another file.")


def make_folder(path: Path, names: Collection[str] = (), overwrite: bool = False) -> list[Path]:
    """Make ``path`` or accept an empty folder there; return the new folders, innermost first.

    ``names`` and ``overwrite`` are those of ``files.check_folder``.

    Raises:
        RecordError: there is a file or a folder with files in it, or the folder cannot be made.
    """
    check_folder(path, overwrite, names)
    made = missing_folders(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(
            f"{path} cannot be used: {error.strerror}. Choose another --output."
        ) from error
    return made


@contextmanager
def saving_folder(path: Path, overwrite: bool) -> Iterator[None]:
    """Make the folder of an edit before the work, so that a bad --output is refused at once.

    A new folder is removed again if no edit was saved in it.

    Raises:
        RecordError: the folder is not empty (unless ``overwrite``), or cannot be made.
    """
    made = make_folder(path, (*EDIT_FILES, PARTS), overwrite)
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()  # fails unless it is empty
