"""Names to plug-ins: one lookup for methods, corpora and evaluators, built in or installed by others.

Built-ins are one dict of strings in each room (``editbench.methods.BUILTINS``), third-party plug-ins are entry
points of the same group. ``names`` imports no plug-in; ``get`` imports exactly one module.
``EDITBENCH_PLUGINS=none`` leaves third-party plug-ins out.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from importlib.metadata import entry_points
from typing import Literal, overload

from editbench.errors import PluginError, UnknownNameError
from editbench.plugin import Corpus, Evaluator, Method

Group = Literal["methods", "corpora", "evaluators"]
KINDS: dict[str, str] = {"methods": "method", "corpora": "corpus", "evaluators": "evaluator"}
ROOMS = {"methods": "methods", "corpora": "corpora", "evaluators": "eval"}
"""Group -> the room whose ``BUILTINS`` has its built-in plug-ins."""
CONTRACTS: dict[str, type] = {"methods": Method, "corpora": Corpus, "evaluators": Evaluator}


def _table(group: Group) -> dict[str, str]:
    """Name to ``module:Class`` of every plug-in of ``group``."""
    table = dict(importlib.import_module(f"editbench.{ROOMS[group]}").BUILTINS)
    origin = {name: "editbench" for name in table}
    if os.environ.get("EDITBENCH_PLUGINS") == "none":
        return table
    for point in entry_points(group=f"editbench.{group}"):
        dist = (
            f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
        )
        if point.name in table:
            raise PluginError(
                f"{KINDS[group].capitalize()} name {point.name!r} is provided twice: by {origin[point.name]} "
                f"({table[point.name]}) and by {dist} ({point.value}). Uninstall one, or rename its entry point."
            )
        table[point.name], origin[point.name] = point.value, dist
    return table


def names(group: Group) -> list[str]:
    """The installed names of ``group`` (``methods`` or ``corpora``), sorted."""
    return sorted(_table(group))


def baselines() -> tuple[str, ...]:
    """The methods that every table shows, in the order in which they run."""
    return importlib.import_module("editbench.methods").BASELINES


def check(group: Group, name: str) -> str:
    """``module:Class`` of the plug-in called ``name`` (of a pair of methods, ``ONE+OTHER``, those of both); imports nothing.

    Raises:
        UnknownNameError: no such name; suggests the nearest ones.
        PluginError: a name that cannot stand between commas or in a path.
    """
    if group == "methods" and "+" in name:
        return "+".join(check(group, part) for part in name.split("+"))
    table = _table(group)
    if name not in table:
        raise UnknownNameError(KINDS[group], name, table, f"See 'editbench list {group}'.")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise PluginError(
            f"The {KINDS[group]} name {name!r} ({table[name]}) is not lower-case letters, digits and hyphens. "
            "Rename its entry point."
        )
    return table[name]


@overload
def get(group: Literal["methods"], name: str) -> type[Method]: ...
@overload
def get(group: Literal["corpora"], name: str) -> type[Corpus]: ...
@overload
def get(group: Literal["evaluators"], name: str) -> type[Evaluator]: ...
def get(group: Group, name: str) -> type[Method] | type[Corpus] | type[Evaluator]:
    """The plug-in class called ``name``; ``ONE+OTHER`` is a pair of methods as one (``compose.py``).

    Raises:
        OptionError: a pair that is none.
        UnknownNameError: no such name; suggests the nearest ones.
        PluginError: the plug-in's module fails to import, or lacks the class, or the class is not complete.
    """
    if group == "methods" and "+" in name:
        pair = importlib.import_module("editbench.methods").PAIR
        compose = getattr(importlib.import_module(pair.partition(":")[0]), pair.partition(":")[2])
        return compose(name, [(part, get(group, part)) for part in name.split("+")])
    module, _, attribute = check(group, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
        _check_contract(group, found)
    except Exception as error:
        if module.startswith("editbench."):
            raise
        what = f"The {KINDS[group]} {name!r} ({module}:{attribute})"
        raise PluginError(f"{what} is broken: {type(error).__name__}: {error}") from error
    return found


def _check_contract(group: Group, found: object) -> None:
    contract = CONTRACTS[group]
    if not (isinstance(found, type) and issubclass(found, contract)):
        raise TypeError(f"it is no subclass of editbench.plugin.{contract.__name__}")
    if inspect.isabstract(found):
        raise TypeError(f"it does not define {', '.join(sorted(found.__abstractmethods__))}")
