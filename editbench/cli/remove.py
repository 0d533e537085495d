"""``editbench remove``: take facts out of a saved edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from editbench.cli import console, panels
from editbench.cli.loading import how_to_load, load_base, read_edit
from editbench.cli.options import BaseModel, Device, DeviceMap, LayoutParts, Overwrite, Precision
from editbench.cli.output import saving_folder
from editbench.cli.parsing import pairs
from editbench.cli.running import STOPPED
from editbench.cli.verdict import print_removed, print_verdict


def remove(
    edit: Annotated[Path, typer.Argument(help="A folder that 'editbench inject' wrote.")],
    fact: Annotated[
        list[str],
        typer.Option(
            metavar="ID",
            help="Id of a fact (see 'editbench show EDIT'); repeatable.",
            rich_help_panel=panels.FACTS,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="A new folder for the edit without the fact.  [default: EDIT-without-ID]",
            rich_help_panel=panels.OUTPUT,
        ),
    ] = None,
    model: BaseModel = None,
    precision: Precision = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    layout: LayoutParts = [],  # noqa: B006 - Typer reads it, nothing changes it
    overwrite: Overwrite = False,
) -> None:
    """Take facts out of an edit. EDIT itself stays, unless --output names it with --overwrite.

    A weight editor keeps a value for each fact, and is solved again from those of the rest. A
    trainer trains on the rest anew. Then the model is asked for all facts. What it says to those
    that were taken out is shown before and after.
    """
    from editbench import progress
    from editbench.run.life import steps_without, without
    from editbench.run.verdict import judge_removal

    how = how_to_load(device=device, device_map=device_map)
    stored = read_edit(edit)
    steps = steps_without(stored, fact)
    folder = output or beside(edit, fact)
    saved = False
    with saving_folder(folder, overwrite), progress.reporting(console.reporter()):
        for step in steps:
            console.say(step.words())
        try:
            base = load_base(edit, stored, model, precision, pairs(layout, "--layout"), how)
            left = without(stored, fact, base, edit)
            # Before the model is asked, as in inject.
            left.save(folder, overwrite)
            saved = True
            verdict, removed = judge_removal(base, stored, left, fact)
            verdict.write(folder)
        except KeyboardInterrupt:
            console.say(
                f"\nStopped; the edit is saved in {folder}."
                if saved
                else "\nStopped; nothing was written."
            )
            raise typer.Exit(STOPPED) from None
    print_removed(removed)
    print_verdict(verdict, left, base, folder)
    n = len(left.facts)
    console.out().print(
        f"Written to {folder}: {n} of {len(stored.facts)} fact{'s' * (len(stored.facts) != 1)}.\n"
        f"See it: editbench show {quote(str(folder))}",
        markup=False,
        soft_wrap=True,
    )


def beside(edit: Path, facts: Sequence[str]) -> Path:
    """Return the folder next to ``edit`` that is named after the facts that are taken out."""
    safe = ["".join(c if c.isalnum() or c in "-_." else "_" for c in fact)[:40] for fact in facts]
    more = f"-and-{len(safe) - 1}-more" if len(safe) > 1 else ""
    whole = edit.absolute()
    return edit.parent / f"{whole.name}-without-{safe[0]}{more}"
