"""``--suite``: the options of ``compare`` that a suite fixes, and what its records will need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from editbench.cli import console
from editbench.cli.options import RunOptions

if TYPE_CHECKING:
    from editbench.run.suite import Suite

FREE = {
    "suite", "methods", "option", "tuned",
    "device", "device_map", "batch_size", "skip_memory_check", "workers", "gpus_per_cell", "ray",
    "output", "track", "as_json",
}  # fmt: skip
"""Options that change no number of a record but those of its methods."""


def check_given(context: typer.Context, suite: Suite) -> None:
    """Check that no option on the command line contradicts ``suite``.

    Raises:
        OptionError: one does; the message names it.
    """
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if name not in FREE and source is not None and source.name != "DEFAULT":
            suite.check_option(name, value)


def with_suite(options: RunOptions, suite: Suite) -> RunOptions:
    """Return ``options`` with what ``suite`` fixes."""
    return replace(
        options,
        model=suite.model["name"],
        dtype=suite.model["dtype"],
        precision=suite.model["precision"],
        corpus=suite.facts["corpus"],
        n=suite.facts["n"],
        regime=suite.facts["regime"],
        tasks=",".join(suite.retention["tasks"]),
        limit=suite.retention["limit"],
    )


def say_what_is_missing(methods: Sequence[str]) -> None:
    """Tell of methods whose packages name no repository, before hours are spent on their record."""
    from editbench.run.config import method_of
    from editbench.run.origin import origins

    for name in methods:
        for origin in origins(method_of(name)):
            if not origin["url"]:
                console.say(
                    f"{name} comes from the package {origin['package']}, which names no repository."
                    ' A submission needs one: add [project.urls] with repository = "https://..."'
                    " to its pyproject.toml, and install it again."
                )
