"""What can be asked of a model, by name; each function imports only what it needs."""

from __future__ import annotations


def task_names() -> dict[str, str]:
    """The bundled retention tasks and one line on each. Imports no torch."""
    from editbench.eval.retention import task_names as names

    return names()


def diagnostic_names() -> tuple[str, ...]:
    """What ``--diagnostics all`` means."""
    from editbench.eval.diagnostics import NAMES

    return NAMES
