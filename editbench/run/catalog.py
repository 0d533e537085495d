"""The names of what a model can be asked, without importing anything heavy."""

from __future__ import annotations


def task_names() -> dict[str, str]:
    """Return the bundled retention tasks, each with one line about it. Imports no torch."""
    from editbench.eval.retention import task_names as names

    return names()


def diagnostic_names() -> tuple[str, ...]:
    """Return what ``--diagnostics all`` stands for."""
    from editbench.eval.diagnostics import NAMES

    return NAMES
