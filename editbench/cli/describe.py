"""Describe a method, corpus or evaluator from its class: options, types, defaults, docstrings.

Python keeps no docstrings of fields, so the strings under them are read from the source.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING, Field, fields
from functools import cache
from types import NoneType, UnionType
from typing import Literal, TypedDict, Union, get_args, get_origin, get_type_hints

from editbench.plugin import Choice, Corpus, Evaluator, LogUniform, Method, Uniform

NONE = "none"
"""Word for ``None`` on the command line. It mostly stands for a value derived from the model."""
WORDS: dict[object, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    NoneType: NONE,
}
"""Type -> its name on the command line."""


class OptionDescription(TypedDict):
    """One option of a method."""

    name: str
    type: str
    default: object
    choices: list[object]
    """Named values that are allowed, possibly among others; empty if there are none."""
    searched: str | None
    """The values that ``editbench tune`` tries; ``None`` if it does not search the option."""
    about: str


class MethodDescription(TypedDict):
    """What ``editbench list METHOD --json`` prints."""

    name: str
    kind: str
    summary: str
    paper: str
    version: int
    needs_subject: bool
    needs_covariance: bool
    about: str
    options: list[OptionDescription]
    recipes: dict[str, dict[str, object]]
    """What names a recipe, ``recipe=NAME``, -> the options that it stands for."""


class CorpusDescription(TypedDict):
    """What ``editbench list CORPUS --json`` prints."""

    name: str
    summary: str
    form: str
    license: str
    needs_data: bool
    url: str | None
    sha256: str | None
    about: str


class EvaluatorDescription(TypedDict):
    """What ``editbench list EVALUATOR --json`` prints."""

    name: str
    title: str
    summary: str
    version: int
    about: str


def describe_method(name: str) -> MethodDescription:
    """Describe the method called ``name``; a pair's options and recipes are written PART.KEY.

    Raises:
        EditbenchError: no method has the name, or it cannot be loaded.
    """
    from editbench import registry

    method = registry.get("methods", name)
    parts = name.split("+")
    if len(parts) == 1:
        options, recipes = options_of(method), recipes_of(method)
    else:
        options, recipes = [], {}
        for part in parts:
            each = registry.get("methods", part)
            options += [
                {**option, "name": f"{part}.{option['name']}"} for option in options_of(each)
            ]
            recipes |= recipes_of(each, f"{part}.")
    return {
        "name": name,
        "kind": method.kind,
        "summary": method.summary,
        "paper": method.paper,
        "version": method.version,
        "needs_subject": method.needs_subject,
        "needs_covariance": method.needs_covariance,
        "about": docstring(method),
        "options": options,
        "recipes": recipes,
    }


def describe_corpus(name: str) -> CorpusDescription:
    """Describe the corpus called ``name``.

    Raises:
        EditbenchError: no corpus has the name, or it cannot be loaded.
    """
    from editbench import registry

    corpus: type[Corpus] = registry.get("corpora", name)
    return {
        "name": name,
        "summary": corpus.summary,
        "form": corpus.form,
        "license": corpus.license,
        "needs_data": corpus.needs_data,
        "url": corpus.url,
        "sha256": corpus.sha256,
        "about": docstring(corpus),
    }


def describe_evaluator(name: str) -> EvaluatorDescription:
    """Describe the evaluator called ``name``.

    Raises:
        EditbenchError: no evaluator has the name, or it cannot be loaded.
    """
    from editbench import registry

    evaluator: type[Evaluator] = registry.get("evaluators", name)
    return {
        "name": name,
        "title": evaluator.title,
        "summary": evaluator.summary,
        "version": evaluator.version,
        "about": docstring(evaluator),
    }


def docstring(plugin: type) -> str:
    """Return the class's own docstring, else that of its module."""
    own = vars(plugin).get("__doc__") or ""
    if not own or own.startswith(f"{plugin.__name__}("):  # dataclasses write a signature there
        own = getattr(inspect.getmodule(plugin), "__doc__", None) or ""
    return inspect.cleandoc(own)


# --- options ------------------------------------------------------------------------------------


def options_of(method: type[Method]) -> list[OptionDescription]:
    """Return the options of ``method``, its fields, in alphabetical order."""
    hints = get_type_hints(method)
    docs = field_docs(method)
    return [
        {
            "name": option.name,
            "type": type_words(hints[option.name]),
            "default": _default(option),
            "choices": choices(hints[option.name]),
            "searched": searched(method.space[option.name])
            if option.name in method.space
            else None,
            "about": docs.get(option.name, ""),
        }
        for option in sorted(fields(method), key=lambda option: option.name)
    ]


def recipes_of(method: type[Method], prefix: str = "") -> dict[str, dict[str, object]]:
    """Return ``recipe=NAME`` -> options for each recipe; ``prefix`` stands before all names."""
    return {
        f"{prefix}recipe={recipe}": {
            f"{prefix}{key}": list(value) if isinstance(value, tuple) else value
            for key, value in options.items()
        }
        for recipe, options in method.recipes.items()
    }


def _default(option: Field[object]) -> object:
    if option.default is not MISSING:
        default = option.default
    else:
        default = None if option.default_factory is MISSING else option.default_factory()
    # A list, because that is what JSON makes of a tuple.
    return list(default) if isinstance(default, tuple) else default


def type_words(kind: object) -> str:
    """Say in words which values an option of the annotated type ``kind`` takes."""
    return " or ".join(
        ", ".join(str(value) for value in get_args(member))
        if get_origin(member) is Literal
        else _simple_type(member)
        for member in _members(kind)
    )


def _simple_type(kind: object) -> str:
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        example = " (4-8, or 3,5)" if item is int else ""
        return f"{WORDS.get(item, 'value')}s separated by commas{example}"
    return WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def choices(kind: object) -> list[object]:
    """Return the named values of the annotated type ``kind``."""
    return [
        value
        for member in _members(kind)
        if get_origin(member) is Literal
        for value in get_args(member)
    ]


def _members(kind: object) -> tuple[object, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def searched(values: Uniform | Choice) -> str:
    """Say in words which values ``editbench tune`` tries."""
    if isinstance(values, Choice):
        return ", ".join(NONE if value is None else str(value) for value in values.values)
    scale = ", on a logarithmic scale" if isinstance(values, LogUniform) else ""
    return f"{values.low:g} to {values.high:g}{scale}"


# --- docstrings of fields -----------------------------------------------------------------------


def field_docs(plugin: type) -> dict[str, str]:
    """Return the docstring under each field of a class, or of the nearest base that has one."""
    docs: dict[str, str] = {}
    for cls in plugin.__mro__:
        # From the class to its bases, so that the nearest docstring is kept.
        for name, text in _own_field_docs(cls).items():
            docs.setdefault(name, text)
    return docs


@cache
def _own_field_docs(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # no source: a built-in, or a class made at run time
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs = {}
    # The docstring of a field is a text that stands alone as the next statement.
    for statement, after in zip(body, body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            docs[statement.target.id] = " ".join(after.value.value.split())
    return docs
