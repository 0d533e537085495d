"""``editbench leaderboard``: the tables of stored runs, in the terminal or as a markdown page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from editbench.cli import console
from editbench.cli.output import write_text
from editbench.cli.show import print_sections
from editbench.files import check_output


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="A markdown file to write.  [default: print the tables]"
        ),
    ] = None,
) -> None:
    """Print the tables of stored runs, or render them as one markdown page.

    Cells of one setting share a table, and those that differ only by their seed are one row.
    """
    if output is None:
        from editbench.leaderboard.sections import read_sections

        print_sections(read_sections(runs))
        console.say_remarks(runs)
        return
    command = shlex.join(["editbench", "leaderboard", *map(str, runs), "-o", str(output)])
    print(write_page(runs, output, command))
    console.say_remarks(runs)


def write_page(
    runs: list[Path], output: Path, command: str | None, site: str | None = None
) -> Path:
    """Write the page of ``runs``. It names ``command`` as its origin and links to ``site``."""
    from editbench.leaderboard.markdown import render

    check_output(output)
    return write_text(render(runs, output, command, site), output)
