"""``editbench leaderboard``: render stored runs as one markdown page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from editbench.cli import console
from editbench.cli.output import write_text
from editbench.files import check_output


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The markdown file to write.")],
) -> None:
    """Render stored runs as one markdown page."""
    command = shlex.join(["editbench", "leaderboard", *map(str, runs), "-o", str(output)])
    print(write_page(runs, output, command))
    console.say_remarks(runs)


def write_page(runs: list[Path], output: Path, command: str | None) -> Path:
    """Write the page of ``runs``; the page names ``command`` as its origin, if there is one."""
    from editbench.leaderboard.markdown import render

    check_output(output)
    return write_text(render(runs, output, command), output)
