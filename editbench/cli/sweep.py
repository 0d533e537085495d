"""``editbench sweep``: run one method with several values of its options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from editbench.cli import console, panels, parsing, running
from editbench.cli.options import Diagnostics, RunOptions, with_options
from editbench.cli.plot import draw_trade_off
from editbench.errors import RecordError


@with_options
def sweep(
    options: RunOptions,
    method: Annotated[
        str,
        typer.Option(
            help="The method whose options vary; base and ice are always added.",
            rich_help_panel=panels.METHODS,
        ),
    ],
    over: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE,VALUE",
            help="An option and its values; give it again for every combination with another.",
            rich_help_panel=panels.METHODS,
        ),
    ],
    option: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="An option that all points share; repeatable.",
            rich_help_panel=panels.METHODS,
        ),
    ] = [],  # noqa: B006 - Typer reads it, nothing changes it
    part: Annotated[
        str,
        typer.Option(
            help="Slice of the corpus: dev, because a sweep chooses hyper-parameters, or test for"
            " a curve to report.",
            rich_help_panel=panels.FACTS,
        ),
    ] = "dev",
    diagnostics: Diagnostics = "",
) -> None:
    """Vary options of one method: memorization against retention."""
    from editbench import registry

    registry.check("methods", method)
    points = parsing.variants(method, over, option)
    console.begin()
    config = replace(
        running.request(options, tuple(points), points, part),
        diagnostics=parsing.diagnostic_names(diagnostics),
    )
    folder, summaries = running.run_and_show(config, options)
    _draw(folder)
    running.exit_if_incomplete(folder, summaries)


def _draw(folder: Path) -> None:
    try:
        files = draw_trade_off([folder], folder / "trade_off.png")
    except RecordError as error:  # the run itself is done and kept
        console.say(f"No picture: {error}")
    else:
        console.say(f"Memorization against retention: {files}")
