"""``editbench verify``: check that a stored run's numbers follow from its records.

With ``--submission`` also that the record may stand beside those of other people.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editbench.cli import console
from editbench.cli.board import STATES
from editbench.cli.loading import load
from editbench.cli.options import AsJson
from editbench.errors import OptionError, RecordError
from editbench.files import jsonable

if TYPE_CHECKING:
    from editbench.run.verify import Report


def verify(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    rerun: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Recompute K random cells from scratch; 0 for none."
            "  [default: 1; with --submission 0]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    submission: Annotated[
        bool,
        typer.Option(
            "--submission",
            help="Also check that the record is complete and of a suite, so that it can stand"
            " beside those of others.",
        ),
    ] = False,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.toml",
            help="With --submission: the file of a suite that editbench does not ship.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute a run's numbers from its records.

    Some of its cells are also computed again from scratch. Exits with 1 if anything differs.
    """
    if suite and not submission:
        raise OptionError("--suite is about a submission. Add --submission, or leave it out.")
    if rerun is None:
        rerun = 0 if submission else 1
    if submission:
        _submission(run, rerun, seed, suite, as_json)
        return
    report = _report(run, rerun, seed)
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


def _submission(run: Path, rerun: int, seed: int, suite: str | None, as_json: bool) -> None:
    """Print a sentence for each fault of a submission, and exit with 1 if there is one."""
    from editbench.run.verify import submission

    found, notes, report = submission.faults(run, suite), [], None
    try:
        report = _report(run, rerun, seed)
        found += map(submission.sentence, report.differences)
        notes = report.notes
    except RecordError as error:  # ``faults`` has found the same, or what comes before it
        found += [str(error)]
    found = list(dict.fromkeys(found))
    if as_json:
        told = {"faults": found, "notes": notes, "numbers": report.numbers if report else 0}
        print(json.dumps(jsonable(told), indent=2))
    else:
        page = console.out()
        for line in (*notes, *found):
            page.print(line, markup=False, soft_wrap=True)
        if found:
            page.print(f"{len(found)} fault{'s' * (len(found) != 1)}: it cannot be submitted yet.")
        elif report:
            page.print(
                f"Nothing is missing, and {report.numbers} numbers of {report.cells} cells follow "
                "from their texts."
            )
    if found:
        raise typer.Exit(1)


def _report(run: Path, rerun: int, seed: int) -> Report:
    from editbench import progress
    from editbench.leaderboard.markdown import render
    from editbench.run import verify as checking

    # The page is rendered by a function from here, since ``editbench.run`` may not import the
    # leaderboard.
    with progress.reporting(console.reporter()):
        return checking.verify(
            run,
            rerun,
            seed,
            load,
            lambda name, state: console.say(f"{name}: {STATES[state]}"),
            lambda run: render([run], run / "README.md"),
        )
