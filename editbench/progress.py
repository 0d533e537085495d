"""Progress of long steps.

Methods and evaluators report here. A caller that shows the progress, such as the command line,
installs a reporter.

    with progress.task("covariance", total=20_000, unit="tokens") as bar:
        bar.advance(512)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol


class Notice(UserWarning):
    """What a user should know at once, where no reporter shows it."""


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

    def say(self, sentence: str) -> None:
        """Show what a user should know at once, such as a batch that did not fit."""


class Silent:
    """A reporter that shows no steps, and is its own bar. What is said becomes a Python warning."""

    def advance(self, n: float = 1) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    @contextmanager
    def task(self, name: str, total: float | None, unit: str) -> Iterator[Bar]:
        yield self

    def say(self, sentence: str) -> None:
        warnings.warn(sentence, Notice, stacklevel=4)


_SILENT = Silent()
# A context variable: a reporter set in one thread or task does not show in another.
_reporter: ContextVar[Reporter] = ContextVar("reporter", default=_SILENT)  # noqa: B039 - stateless


def task(name: str, total: float | None = None, unit: str = "") -> AbstractContextManager[Bar]:
    """Open a step called ``name`` of ``total`` units, shown by the current reporter."""
    return _reporter.get().task(name, total, unit)


def say(sentence: str) -> None:
    """Show a sentence through the current reporter; without one it is a Python warning."""
    _reporter.get().say(sentence)


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Inside, show steps through ``reporter``."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)
