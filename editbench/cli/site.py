"""``editbench site``: stored runs as static pages to explore."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from editbench.cli import console
from editbench.cli.output import write_text
from editbench.errors import PluginError
from editbench.files import TEMPORARY, check_output


def site(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The folder for the pages; index.html is first.")
    ],
) -> None:
    """Write stored runs as pages with sortable tables, a plot, and the texts behind each number.

    They open from disk, without a server and without a network.
    """
    command = shlex.join(["editbench", "site", *map(str, runs), "-o", str(output)])
    print(write_site(runs, output, command))
    console.say_remarks(runs)


def write_site(runs: list[Path], output: Path, command: str) -> Path:
    """Write the pages of ``runs`` into the folder ``output``; return the first page.

    Raises:
        RecordError: a run cannot be read, or a page not be written.
    """
    from editbench import __version__
    from editbench.leaderboard.website import INDEX, pages

    check_output(output / INDEX)
    for stale in output.glob(f"{TEMPORARY}*"):  # of a process that was killed
        stale.unlink(missing_ok=True)
    for name, text in pages(runs, _kinds(), command, __version__).items():
        write_text(text, output / name)
    return output / INDEX


def _kinds() -> dict[str, str]:
    """Return the family of each method that is installed."""
    from editbench import registry

    kinds = dict.fromkeys(registry.easyedit(), "EasyEdit")
    for name in registry.names("methods"):
        try:
            kinds[name] = str(registry.about("methods", name, ("kind",))["kind"])
        except PluginError:  # of another author, and broken; the records can be read all the same
            kinds[name] = "other"
    return kinds
