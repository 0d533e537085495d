"""Look up methods, corpora, evaluators and trackers by name, built in or installed by others.

``editbench.methods``, ``corpora``, ``eval`` and ``trackers`` list their built-ins in one dict of
strings each (``BUILTINS``). Third-party plug-ins are entry points of the same group. ``names``
imports no plug-in, and ``get`` imports one module only. ``EDITBENCH_PLUGINS=none`` leaves
third-party plug-ins out.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Literal, overload

from editbench.declared import declared
from editbench.errors import OptionError, PluginError, UnknownNameError
from editbench.plugin import Corpus, Evaluator, Method, Tracker

Group = Literal["methods", "corpora", "evaluators", "trackers"]
Plugin = type[Method] | type[Corpus] | type[Evaluator] | type[Tracker]
KINDS: dict[Group, str] = {
    "methods": "method",
    "corpora": "corpus",
    "evaluators": "evaluator",
    "trackers": "tracker",
}
"""Group -> the word for one of its plug-ins."""
ROOMS: dict[Group, str] = {
    "methods": "methods",
    "corpora": "corpora",
    "evaluators": "eval",
    "trackers": "trackers",
}
"""Group -> the folder whose ``BUILTINS`` lists its built-in plug-ins."""
CONTRACTS: dict[Group, Plugin] = {
    "methods": Method,
    "corpora": Corpus,
    "evaluators": Evaluator,
    "trackers": Tracker,
}


def _table(group: Group) -> dict[str, str]:
    """Return ``module:Class`` of every plug-in of ``group``, by name.

    Raises:
        PluginError: if two distributions provide the same name.
    """
    # By name, because the core imports no folder of plug-ins.
    room = importlib.import_module(f"editbench.{ROOMS[group]}")
    table = {**room.BUILTINS, **getattr(room, "EASYEDIT", {})}
    if os.environ.get("EDITBENCH_PLUGINS") == "none":
        return table
    origin = dict.fromkeys(table, "editbench")
    for point in entry_points(group=f"editbench.{group}"):
        distribution = (
            f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
        )
        # An error and not an override: which plug-in ran would depend on what is installed.
        if point.name in table:
            raise PluginError(
                f"{KINDS[group].capitalize()} name {point.name!r} is provided twice: "
                f"by {origin[point.name]} ({table[point.name]}) and by {distribution} "
                f"({point.value}). Uninstall one, or rename its entry point."
            )
        table[point.name], origin[point.name] = point.value, distribution
    return table


def names(group: Group) -> list[str]:
    """Return the installed names of ``group``, sorted, but for those of ``easyedit``."""
    return sorted(_table(group).keys() - set(easyedit()))


def easyedit() -> tuple[str, ...]:
    """Return the names of the methods that run an algorithm of the user's EasyEdit."""
    return tuple(importlib.import_module("editbench.methods").EASYEDIT)


def easyedit_records() -> list[dict[str, object]]:
    """Return what a listing says of each of them; ``lacks`` says why one cannot run here."""
    listing = importlib.import_module("editbench.methods._easyedit.listing")
    records: list[dict[str, object]] = listing.records()
    return records


def about(group: Group, name: str, attributes: Sequence[str]) -> dict[str, object]:
    """Return class attributes of a plug-in. A built-in one that shows them is not imported.

    Raises:
        PluginError: as ``get``.
    """
    module, _, cls = _table(group)[name].partition(":")
    if module.startswith("editbench."):
        try:
            return {attribute: declared(module, cls, attribute) for attribute in attributes}
        except LookupError:  # computed when it is imported
            pass
    plugin: type = get(group, name)
    return {attribute: getattr(plugin, attribute) for attribute in attributes}


def baselines() -> tuple[str, ...]:
    """Return the names of the methods that every table has, in the order in which they run."""
    listed: tuple[str, ...] = importlib.import_module("editbench.methods").BASELINES
    return listed


def _tools() -> dict[str, str]:
    """Return what to say about each command, or algorithm, that may be taken for a method."""
    said: dict[str, str] = importlib.import_module("editbench.methods").TOOLS
    return {**said, **not_offered()}


def not_offered() -> dict[str, str]:
    """Return the algorithms of EasyEdit that are no methods here, and why."""
    said: dict[str, str] = importlib.import_module("editbench.methods").NOT_OFFERED
    return said


def is_taken(name: str) -> bool:
    """Return whether a method, or a command that may be taken for one, has the name."""
    return name.lower() in {*_table("methods"), *_tools()}


def check(group: Group, name: str) -> str:
    """Return ``module:Class`` of the plug-in called ``name``, without importing it.

    For a pair of methods, ``ONE+OTHER``, return those of both, joined by ``+``.

    Raises:
        UnknownNameError: if there is no such plug-in. The message suggests the nearest names.
        OptionError: if it is a command that edits nothing, such as ``trace``, or an algorithm of
            EasyEdit that is not offered.
        PluginError: if the name cannot be part of a comma-separated list or a path.
    """
    if group == "methods" and "+" in name:
        return "+".join(check(group, part) for part in name.split("+"))
    table = _table(group)
    if name not in table:
        if group == "methods" and name in (tools := _tools()):
            raise OptionError(tools[name])
        shown = names(group)
        more = f"{len(table) - len(shown)} more run EasyEdit. " if len(table) > len(shown) else ""
        hint = f"{more}See 'editbench list {group}'."
        raise UnknownNameError(KINDS[group], name, table, hint, shown)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise PluginError(
            f"The {KINDS[group]} name {name!r} ({table[name]}) must consist of lower-case letters, "
            "digits and hyphens. Rename its entry point."
        )
    return table[name]


@overload
def get(group: Literal["methods"], name: str) -> type[Method]: ...
@overload
def get(group: Literal["corpora"], name: str) -> type[Corpus]: ...
@overload
def get(group: Literal["evaluators"], name: str) -> type[Evaluator]: ...
@overload
def get(group: Literal["trackers"], name: str) -> type[Tracker]: ...
def get(group: Group, name: str) -> Plugin:
    """Return the plug-in class called ``name``; ``ONE+OTHER`` is a pair of methods as one method.

    Raises:
        OptionError: if two methods cannot be paired, or as ``check``.
        UnknownNameError: if there is no such plug-in. The message suggests the nearest names.
        PluginError: if the plug-in's module fails to import, or its class is missing or incomplete.
    """
    if group == "methods" and "+" in name:
        return _pair(name)
    module, _, attribute = check(group, name).partition(":")
    try:
        return _load(group, module, attribute)
    except Exception as error:
        if module.startswith("editbench."):  # our own bug: keep the traceback
            raise
        raise PluginError(
            f"The {KINDS[group]} {name!r} ({module}:{attribute}) is broken: "
            f"{type(error).__name__}: {error}"
        ) from error


def _load(group: Group, module: str, attribute: str) -> Plugin:
    contract = CONTRACTS[group]
    plugin: object = getattr(importlib.import_module(module), attribute)
    if not (isinstance(plugin, type) and issubclass(plugin, contract)):
        raise TypeError(f"it is not a subclass of editbench.plugin.{contract.__name__}")
    # Now, and not when a run is under way and first makes an object of it.
    if inspect.isabstract(plugin):
        raise TypeError(f"it does not define {', '.join(sorted(plugin.__abstractmethods__))}")
    if issubclass(plugin, Method) and (lost := plugin.lost_options()):
        raise TypeError(lost)
    return plugin


def _pair(name: str) -> type[Method]:
    """Return the class that ``methods/compose.py`` makes of the methods in ``name``."""
    module, _, attribute = importlib.import_module("editbench.methods").PAIR.partition(":")
    compose = getattr(importlib.import_module(module), attribute)
    paired: type[Method] = compose(name, [(part, get("methods", part)) for part in name.split("+")])
    return paired
