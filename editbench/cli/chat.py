"""``editbench chat``: ask the base and the edited model the same, side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from editbench.cli import console
from editbench.cli.loading import how_to_load, load_base, read_edit
from editbench.cli.options import BaseModel, Device, DeviceMap, LayoutParts, Precision
from editbench.cli.parsing import pairs
from editbench.errors import ModelError, OptionError
from editbench.records.reading import visible

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel
    from editbench.run.life import Answers
    from editbench.types import Fact

SHOWN = 20
"""Most facts that are listed to pick from; the others can be picked as well."""
HELP = (
    "Type the number of a fact, or a prompt of your own: one that ends with ? is asked, any other"
    " is continued. An empty line ends."
)


def chat(
    edit: Annotated[Path, typer.Argument(help="A folder that 'editbench inject' wrote.")],
    once: Annotated[
        str | None,
        typer.Option(metavar="PROMPT", help="Print both answers to this prompt, and end."),
    ] = None,
    model: BaseModel = None,
    precision: Precision = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    layout: LayoutParts = [],  # noqa: B006 - Typer reads it, nothing changes it
) -> None:
    """Ask the base and the edited model the same, and show their answers side by side."""
    from editbench import progress

    if once is not None and not once.strip():
        raise OptionError("--once has no prompt. Write --once 'The capital of Australia is'.")
    how = how_to_load(device=device, device_map=device_map)
    stored = read_edit(edit)
    with progress.reporting(console.reporter()):
        base = load_base(edit, stored, model, precision, pairs(layout, "--layout"), how)
    if once is not None:
        _answer(stored, base, once)
        return
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text end nothing
    _list(stored.facts)
    console.say(HELP)
    while line := _read():
        if (prompt := _picked(line, stored.facts)) is None:
            continue
        try:
            _answer(stored, base, prompt)
        except ModelError as error:  # such as a prompt that is too long; the next one may not be
            console.say(str(error))


def _read() -> str:
    """Return the next line of the user's; empty at the end."""
    print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        print(file=sys.stderr)
    return line.strip()


def _picked(line: str, facts: Sequence[Fact]) -> str | None:
    """Return the prompt that a line means; ``None`` for the number of no fact, which is said."""
    if not line.isdecimal():
        return line
    if len(line) < 10 and 0 < int(line) <= len(facts):
        return facts[int(line) - 1].prompt
    console.say(f"There is no fact {line[:20]}; there are {len(facts)}.")
    return None


def _list(facts: Sequence[Fact]) -> None:
    page = console.out()
    for number, fact in enumerate(facts[:SHOWN], start=1):
        line = Text(f"{number:3}  {visible(fact.prompt)} → {visible(fact.target)}")
        page.print(line, overflow="ellipsis", no_wrap=True)
    if len(facts) > SHOWN:
        page.print(f"     and {len(facts) - SHOWN} more", markup=False)


def _answer(edit: Edit, model: LanguageModel, prompt: str) -> None:
    from editbench import progress
    from editbench.run.life import ask

    prompt = prompt.encode("utf-8", "replace").decode()  # bytes that are no text, as "?"
    with progress.reporting(console.reporter()), progress.task("asking base and edited model"):
        said = list(ask(edit, model, [prompt]))
    for each in said:
        console.out().print(side_by_side(each))


def side_by_side(said: Answers) -> Table:
    """Return both answers as a table; no text in it is read as markup."""
    table = Table(title=Text(visible(said.prompt)), title_justify="left", title_style="bold")
    cells = [_lines(said.base), _lines(said.edited)]
    for name in ("base", "edited"):
        table.add_column(name, overflow="fold", ratio=1)
    table.add_row(*cells)
    table.expand = True
    return table


def _lines(answer: str) -> Text:
    # Control characters are shown as escapes, but an answer may have lines.
    return Text("\n".join(map(visible, answer.split("\n"))) or "(nothing)")
