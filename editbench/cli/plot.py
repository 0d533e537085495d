"""``editbench plot``: draw pictures of stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editbench.cli import console
from editbench.cli.output import unwritable
from editbench.errors import OptionError
from editbench.files import check_output


def plot(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one model, corpus and slice.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="FILE.png; FILE.svg is written beside it.")
    ],
    over_facts: Annotated[
        bool,
        typer.Option("--over-facts", help="Draw the scores of one --curve run by number of facts."),
    ] = False,
) -> None:
    """Draw memorization against retention of stored runs."""
    if output.suffix != ".png":
        raise OptionError(
            f"--output {output} is not a .png file. Name one; the .svg is written beside it."
        )
    if over_facts and len(runs) > 1:
        raise OptionError(f"--over-facts draws one run, but {len(runs)} are given.")
    print(draw_over_facts(runs[0], output) if over_facts else draw_trade_off(runs, output))
    console.say_remarks(runs)


def draw_trade_off(runs: list[Path], output: Path) -> str:
    """Draw memorization against retention; return the names of the files.

    Raises:
        RecordError: the runs cannot be drawn together, or a file may not or cannot be written.
    """
    from editbench.leaderboard.plots import trade_off

    check_output(output)
    try:
        return " and ".join(map(str, trade_off(runs, output)))
    except OSError as error:
        raise unwritable(output, error) from error


def draw_over_facts(run: Path, output: Path) -> str:
    """Draw scores against the number of facts; return the names of the files.

    Raises:
        RecordError: the run has no curve, or a file may not or cannot be written.
    """
    from editbench.leaderboard.curves import over_facts

    check_output(output)
    try:
        return " and ".join(map(str, over_facts(run, output)))
    except OSError as error:
        raise unwritable(output, error) from error
