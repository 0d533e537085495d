"""``editbench export``: write an edit in a form that other tools load."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from editbench.cli import console
from editbench.cli.loading import load
from editbench.cli.options import LayoutParts, Overwrite
from editbench.cli.parsing import pairs
from editbench.errors import OptionError
from editbench.files import check_folder


def export(
    edit: Annotated[Path, typer.Argument(help="A folder that 'editbench inject' wrote.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    form: Annotated[
        str, typer.Option("--format", help="peft: a LoRA adapter; merged: the edited model.")
    ] = "peft",
    model: Annotated[
        str | None, typer.Option(help="The base model. Default: the one that the edit names.")
    ] = None,
    layout: LayoutParts = [],  # noqa: B006 - Typer reads it, nothing changes it
    overwrite: Overwrite = False,
) -> None:
    """Write an edit as a PEFT adapter or a Hugging Face model."""
    from editbench.edit import Edit, UncheckedEdit

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UncheckedEdit)
        stored = Edit.load(edit)
    for note in notes:
        console.say(str(note.message))

    from editbench import export as exporting

    if form not in exporting.FORMATS:
        raise OptionError(f"--format {form!r} is not one of {', '.join(exporting.FORMATS)}.")
    check_folder(output, overwrite)  # before the model is loaded, which takes a while
    handle = load(model or stored.model_name, "auto", pairs(layout, "--layout"))
    folder = exporting.export(stored, handle, form, output, overwrite)
    loader = (
        f"PeftModel.from_pretrained(model, {str(folder)!r})"
        if form == "peft"
        else f"AutoModelForCausalLM.from_pretrained({str(folder)!r})"
    )
    console.out().print(f"Written to {folder}. Load it with {loader}.", markup=False)
