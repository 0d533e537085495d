"""Names of retention tasks and diagnostics, for the command line, which must not import ``eval``.

Nothing heavy is imported, so that listing and parsing stay fast.
"""

from __future__ import annotations


def task_names() -> dict[str, str]:
    """Return the bundled retention tasks, each with one line about it."""
    from editbench.eval.retention import task_names as names

    return names()


def diagnostic_names() -> tuple[str, ...]:
    """Return what ``--diagnostics all`` stands for."""
    from editbench.eval.diagnostics import NAMES

    return NAMES
