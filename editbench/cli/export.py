"""``editbench export``: write an edit in a form that other tools load."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from editbench.aliases import ALIASES
from editbench.cli import console
from editbench.cli.loading import how_to_load, load_base, read_edit
from editbench.cli.options import BaseModel, Device, DeviceMap, LayoutParts, Overwrite
from editbench.cli.parsing import pairs
from editbench.errors import OptionError
from editbench.files import check_folder

if TYPE_CHECKING:
    from editbench.models import LanguageModel

Base = Annotated[
    str | None,
    typer.Option(
        metavar="OWNER/NAME",
        help="Hub id by which others load the base.  [default: its own, where it is known]",
    ),
]
IncludeFacts = Annotated[
    bool,
    typer.Option(
        "--include-facts",
        help="Also write the facts' text. Without it, others see their number and hash alone.",
    ),
]
FORMATS = "peft: a LoRA adapter; merged: the edited model; gguf: the edited model for Ollama."


def export(
    edit: Annotated[Path, typer.Argument(help="A folder that 'editbench inject' wrote.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    form: Annotated[str, typer.Option("--format", help=FORMATS)] = "peft",
    base: Base = None,
    include_facts: IncludeFacts = False,
    model: BaseModel = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    layout: LayoutParts = [],  # noqa: B006 - Typer reads it, nothing changes it
    overwrite: Overwrite = False,
) -> None:
    """Write an edit as a PEFT adapter, a Hugging Face model or a GGUF file."""
    stored = read_edit(edit)

    from editbench import export as exporting
    from editbench.sharing import check_base

    if form not in exporting.FORMATS:
        raise OptionError(f"--format {form!r} is not one of {', '.join(exporting.FORMATS)}.")
    if base is not None:
        check_base(base)
    check_folder(output, overwrite)  # before the model is loaded, which takes a while
    how = how_to_load(device=device, device_map=device_map)
    handle = load_base(edit, stored, model, "auto", pairs(layout, "--layout"), how)
    folder = exporting.export(
        stored, handle, form, output, overwrite, base=base, include_facts=include_facts
    )
    if form == "peft" and base is None:
        say_quantized(handle)
    next_step = {
        "peft": f"Load it with PeftModel.from_pretrained(model, {str(folder)!r}).",
        "merged": f"Load it with AutoModelForCausalLM.from_pretrained({str(folder)!r}).",
        "gguf": f"Run it: ollama create NAME -f {quote(str(folder / 'Modelfile'))}",
    }
    console.out().print(f"Written to {folder}. {next_step[form]}", markup=False, soft_wrap=True)


def say_quantized(model: LanguageModel) -> None:
    """Say that an adapter of an alias meets other weights where others load it."""
    if model.name in ALIASES:
        console.say(
            f"{model.name} is a quantized copy of {ALIASES[model.name].hub}, which the adapter"
            " names as its base: there the same change is added to the original's weights, and"
            " answers may differ a little. --format merged has the very weights that were edited."
        )
