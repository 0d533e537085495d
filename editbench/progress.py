"""Progress of long steps. Methods and evaluators report here; who shows it (the CLI) plugs in a reporter.

with progress.task("covariance", total=20_000, unit="tokens") as bar:
    bar.advance(512)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol


class Bar(Protocol):
    def advance(self, n: float = 1) -> None: ...


class Reporter(Protocol):
    def task(self, name: str, total: float | None, unit: str) -> AbstractContextManager[Bar]: ...


class _Silent:
    def advance(self, n: float = 1) -> None:
        pass

    @contextmanager
    def task(self, name: str, total: float | None, unit: str) -> Iterator[Bar]:
        yield self


_SILENT = _Silent()
_reporter: ContextVar[Reporter] = ContextVar("reporter", default=_SILENT)  # noqa: B039 - it has no state


def task(name: str, total: float | None = None, unit: str = "") -> AbstractContextManager[Bar]:
    """A step called ``name`` of ``total`` units, shown by the current reporter."""
    return _reporter.get().task(name, total, unit)


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Shows the tasks opened inside through ``reporter``."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)
