"""Progress of long steps.

Methods and evaluators report here. A caller that shows the progress, such as the command line,
installs a reporter.

    with progress.task("covariance", total=20_000, unit="tokens") as bar:
        bar.advance(512)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol


class Bar(Protocol):
    """One step that is under way."""

    def advance(self, n: float = 1) -> None:
        """Count ``n`` more units as done."""

    def rename(self, name: str) -> None:
        """Call the step ``name`` from now on."""


class Reporter(Protocol):
    """Shows steps to the user."""

    def task(self, name: str, total: float | None, unit: str) -> AbstractContextManager[Bar]:
        """Show a step until the context ends; ``total`` is ``None`` if it is unknown."""
        ...


class _Silent:
    """A reporter that shows nothing, and is its own bar."""

    def advance(self, n: float = 1) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    @contextmanager
    def task(self, name: str, total: float | None, unit: str) -> Iterator[Bar]:
        yield self


_SILENT = _Silent()
# A context variable: a reporter set in one thread or task does not show in another.
_reporter: ContextVar[Reporter] = ContextVar("reporter", default=_SILENT)  # noqa: B039 - stateless


def task(name: str, total: float | None = None, unit: str = "") -> AbstractContextManager[Bar]:
    """Open a step called ``name`` of ``total`` units, shown by the current reporter."""
    return _reporter.get().task(name, total, unit)


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Inside, show steps through ``reporter``."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)
