"""``editbench export``: write an edit in a form that other tools load."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from editbench.cli import console
from editbench.cli.loading import how_to_load, load
from editbench.cli.options import Device, DeviceMap, LayoutParts, Overwrite
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
    dtype: Annotated[
        str,
        typer.Option(help="In which type weights are held. auto: as they were for the edit."),
    ] = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
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
    how = how_to_load(stored.model_dtype if dtype == "auto" else dtype, device, device_map)
    handle = load(model or stored.model_name, "auto", pairs(layout, "--layout"), how)
    folder = exporting.export(stored, handle, form, output, overwrite)
    loader = (
        f"PeftModel.from_pretrained(model, {str(folder)!r})"
        if form == "peft"
        else f"AutoModelForCausalLM.from_pretrained({str(folder)!r})"
    )
    console.out().print(f"Written to {folder}. Load it with {loader}.", markup=False)
