"""Where the state of a long training is kept, so that it can go on after it was killed.

    with unfinished.kept_in("state"):
        edit = editbench.inject(model, facts, method="sft")

The same lines, run again, go on from there. At the end of the ``with`` the state is removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

FILE = "training.safetensors"
_file: ContextVar[Path | None] = ContextVar("unfinished", default=None)


def file() -> Path | None:
    """Return the file in which a training keeps its state; ``None`` if it keeps none."""
    return _file.get()


@contextmanager
def kept_in(folder: str | Path) -> Iterator[None]:
    """Inside, a training keeps its state in ``folder`` from time to time, and goes on from it."""
    path = Path(folder) / FILE
    token = _file.set(path)
    try:
        yield
    finally:
        _file.reset(token)
    with suppress(OSError):
        path.unlink()
        path.parent.rmdir()  # fails unless it is empty
