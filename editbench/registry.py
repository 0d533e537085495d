"""Names to plug-ins, imported on first use.

Built-ins are one dict of strings in each room (``editbench.methods.BUILTINS``), third-party plug-ins are entry
points of the same group. ``names`` imports no plug-in; ``get`` imports exactly one module.
``EDITBENCH_PLUGINS=none`` leaves third-party plug-ins out.
"""

from __future__ import annotations

import importlib
import os
from importlib.metadata import entry_points
from typing import Any

from editbench.errors import PluginError, UnknownNameError

KINDS = {"methods": "method", "corpora": "corpus", "eval": "evaluator"}


def _table(group: str) -> dict[str, str]:
    """Name to ``module:Class`` of every plug-in of ``group``."""
    table = dict(importlib.import_module(f"editbench.{group}").BUILTINS)
    origin = {name: "editbench" for name in table}
    if os.environ.get("EDITBENCH_PLUGINS") == "none":
        return table
    for point in entry_points(group=f"editbench.{group}"):
        dist = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
        if point.name in table:
            raise PluginError(
                f"{KINDS[group].capitalize()} name {point.name!r} is provided twice: by {origin[point.name]} ({table[point.name]}) "
                f"and by {dist} ({point.value}). Uninstall one, or rename its entry point."
            )
        table[point.name], origin[point.name] = point.value, dist
    return table


def names(group: str) -> list[str]:
    """The installed names of ``group`` (``methods`` or ``corpora``), sorted."""
    return sorted(_table(group))


def baselines() -> tuple[str, ...]:
    """The methods that every table shows, in the order in which they run."""
    return importlib.import_module("editbench.methods").BASELINES


def check(group: str, name: str) -> str:
    """``module:Class`` of the plug-in called ``name``; imports nothing of it.

    Raises:
        UnknownNameError: no such name; suggests the nearest ones.
    """
    table = _table(group)
    if name not in table:
        raise UnknownNameError(KINDS[group], name, table, f"See 'editbench list {group}'.")
    return table[name]


def get(group: str, name: str) -> Any:
    """The plug-in class called ``name``.

    Raises:
        UnknownNameError: no such name; suggests the nearest ones.
        PluginError: the plug-in's module fails to import, or lacks the class.
    """
    module, _, attribute = check(group, name).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        if module.startswith("editbench."):
            raise
        raise PluginError(f"The {KINDS[group]} {name!r} ({module}:{attribute}) is broken: {type(error).__name__}: {error}") from error
