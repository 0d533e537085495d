"""Parse the texts of options: NAME=VALUE pairs, comma-separated lists, the points of a sweep."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from editbench.errors import OptionError
from editbench.options import MAX_CELLS, check_count, check_seed, shortened

MethodOptions = dict[str, dict[str, str]]
"""Method or variant (NAME@LABEL) -> option -> value, as typed."""


def names_between_commas(text: str) -> tuple[str, ...]:
    """Return the names in ``text`` without surrounding blanks, and without empty ones."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Return ``["a=b"]`` as a dict.

    Raises:
        OptionError: a text has no '=', or a key is given twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise OptionError(f"{flag} {text!r} has no '='. Write it as {flag} NAME=VALUE.")
        if key in values:
            raise OptionError(f"{flag} {key} is given twice.")
        values[key] = value.strip()
    return values


def method_names(text: str) -> tuple[str, ...]:
    """Return the methods and variants that ``--methods`` names, without importing any of them.

    Raises:
        OptionError: no name is given, or a variant's label has characters that would not be read
            back from METHOD@LABEL.KEY=VALUE.
        UnknownNameError: no method has the name.
    """
    from editbench import registry

    names = names_between_commas(text)
    if not names:
        raise OptionError("--methods names no method. See 'editbench list methods'.")
    for name in names:
        method, at, label = name.partition("@")
        registry.check("methods", method)
        if at and not re.fullmatch(r"[A-Za-z0-9_-]+", label):
            raise OptionError(
                f"--methods {name}: the label {label!r} may only have letters, digits, - and _."
                f" Write it as {method}@LABEL, with --option {method}@LABEL.KEY=VALUE. To try"
                f" several values of an option, use 'editbench sweep --method {method}'."
            )
    return names


def evaluator_names(text: str) -> tuple[str, ...]:
    """Return the evaluator plug-ins that ``--evaluators`` names, without importing any of them.

    Raises:
        UnknownNameError: no evaluator has the name.
    """
    from editbench import registry

    names = tuple(dict.fromkeys(names_between_commas(text)))
    for name in names:
        registry.check("evaluators", name)
    return names


def diagnostic_names(text: str) -> tuple[str, ...]:
    """Return the diagnostics in ``text``; ``all`` stands for every one.

    Unknown names are not refused here, but when the run is planned.
    """
    from editbench.run.catalog import diagnostic_names as all_names

    if text.strip() == "all":
        return all_names()
    return tuple(dict.fromkeys(names_between_commas(text)))


def fact_counts(text: str) -> tuple[int, ...]:
    """Return the numbers of facts that ``--curve`` names, ascending.

    Raises:
        OptionError: an entry is not a number of facts.
    """
    counts = names_between_commas(text)
    for count in counts:
        if not count.isdecimal() or len(count) > 18:
            raise OptionError(
                f"--curve {shortened(text)}: {shortened(count)!r} is not a number of facts. Write "
                "--curve 1,10,100."
            )
    return tuple(sorted({int(count) for count in counts}))


def seeds(text: str, seed: int) -> tuple[int, ...]:
    """Return the seeds that ``--seeds`` names, in their order; without it that of ``--seed``.

    Raises:
        OptionError: both are given, or an entry is no seed or is named twice.
    """
    entries = names_between_commas(text)
    if not text:
        return (seed,)
    if seed:
        raise OptionError(f"--seed {seed} and --seeds {shortened(text)} exclude each other.")
    if odd := [entry for entry in entries if not entry.isdecimal() or len(entry) > 18]:
        raise OptionError(
            f"--seeds {shortened(text)}: {shortened(odd[0])!r} is not a seed. Write --seeds 0,1,2."
        )
    named = tuple(map(int, entries))
    if not named:
        raise OptionError(f"--seeds {shortened(text)} names no seed. Write --seeds 0,1,2.")
    if twice := next((each for i, each in enumerate(entries) if int(each) in named[:i]), None):
        raise OptionError(f"--seeds names {twice} twice. Name it once.")
    for each in named:
        check_seed(each)
    return named


def method_options(texts: Sequence[str]) -> MethodOptions:
    """Return ``["METHOD.KEY=VALUE"]`` by method or variant.

    Raises:
        OptionError: as for ``pairs``, or a key names no method.
    """
    options: MethodOptions = {}
    for key, value in pairs(texts, "--option").items():
        method, dot, name = key.partition(".")
        if not dot:
            raise OptionError(
                f"--option {key}={value} names no method."
                f" Write it as --option METHOD.{key}={value}."
            )
        options.setdefault(method, {})[name] = value
    return options


def own_options(texts: Sequence[str], method: str, flag: str) -> dict[str, str]:
    """Return ``["KEY=VALUE"]`` of one method as a dict; ``METHOD.KEY=VALUE`` works as well."""
    return pairs([text.strip().removeprefix(f"{method}.") for text in texts], flag)


def variants(method: str, over: Sequence[str], option: Sequence[str]) -> MethodOptions:
    """Return the points of a sweep: every combination of the values in ``over``.

    Each point is a variant METHOD@KEY=VALUE, which also gets the options in ``option``.

    Raises:
        OptionError: an option has no values, one value twice, or is set by both arguments.
    """
    fixed = own_options(option, method, "--option")
    axes = []
    for key, text in own_options(over, method, "--over").items():
        if key in fixed:
            raise OptionError(f"Both --over and --option set {key!r}. Give one of them.")
        axes.append([(key, value) for value in _values(key, text)])
    check_count("The number of combinations of --over", math.prod(map(len, axes)), MAX_CELLS)
    return {
        f"{method}@{','.join(f'{key}={value}' for key, value in point)}": {**fixed, **dict(point)}
        for point in itertools.product(*axes)
    }


def _values(key: str, text: str) -> tuple[str, ...]:
    values = names_between_commas(text)
    if not values:
        raise OptionError(f"--over {key} names no value. Write it as --over {key}=VALUE,VALUE.")
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice:
        raise OptionError(f"--over {key} names {twice} twice. Name it once.")
    return values
