"""``editbench verify``: check that a stored run's numbers follow from its records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from editbench.cli import console
from editbench.cli.board import STATES
from editbench.cli.loading import load
from editbench.cli.options import AsJson


def verify(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    rerun: Annotated[
        int,
        typer.Option(metavar="K", help="Recompute K random cells from scratch; 0 for none."),
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Recompute a run's numbers from its records.

    Some of its cells are also computed again from scratch. Exits with 1 if anything differs.
    """
    from editbench import progress
    from editbench.files import jsonable
    from editbench.leaderboard.markdown import render
    from editbench.run import verify as checking

    # The page is rendered by a function from here, since ``editbench.run`` may not import the
    # leaderboard.
    with progress.reporting(console.reporter()):
        report = checking.verify(
            run,
            rerun,
            seed,
            load,
            lambda name, state: console.say(f"{name}: {STATES[state]}"),
            lambda run: render([run], run / "README.md"),
        )
    if as_json:
        print(json.dumps(jsonable(report), indent=2))
    else:
        page = console.out()
        if report.differences:
            differences = list(map(console.shortened, report.differences))
            page.print(console.listing(differences, "What differs"))
        for line in report.words():
            page.print(line, markup=False)
    if report.differences:
        raise typer.Exit(1)
