"""``editbench trace``: trace the answer to one prompt causally."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import console
from editbench.cli.loading import how_to_load, load
from editbench.cli.options import (
    AsJson,
    BatchSize,
    Device,
    DeviceMap,
    Dtype,
    LayoutParts,
    Model,
    Precision,
    Seed,
)
from editbench.cli.output import new_file
from editbench.cli.parsing import pairs
from editbench.errors import OptionError, check_package
from editbench.files import check_output

if TYPE_CHECKING:
    from editbench.methods.trace import Trace

PICTURES = (".png", ".svg", ".pdf")


def trace(
    prompt: Annotated[str, typer.Argument(help='Such as "The Eiffel Tower is in the city of".')],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Heat map: a .png, .svg or .pdf file.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Span of the prompt to corrupt. Default: found by rule.")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="Number of layers restored together, for mlp and attention."
            " Default: a fifth of the depth."
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    seed: Seed = 0,
    precision: Precision = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    batch_size: BatchSize = "auto",
    layout: LayoutParts = [],  # noqa: B006 - Typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Find the hidden states that carry the answer to a prompt.

    Causal tracing, as in section 2 of the ROME paper (arXiv 2202.05262).
    """
    if output is not None:
        check_package("--output", "matplotlib", "plot")

    from editbench import progress
    from editbench.methods import trace as tracing
    from editbench.options import check_seed
    from editbench.subjects import find_subject
    from editbench.types import Fact, form_of

    # Tracing uses the model's own answer. The target is never read, but a fact must have one.
    fact = Fact("traced", prompt, "(what the model says)", subject, form=form_of(prompt))
    if (found := find_subject(fact)).doubt:
        console.say(
            f"The subject {found.text!r} was found by rule and may be wrong: {found.doubt}."
            " Give it with --subject."
        )
    if output is not None and output.suffix not in PICTURES:
        raise OptionError(f"--output {output} is not a .png, .svg or .pdf file.")
    if window is not None and window < 1:
        raise OptionError(f"--window {window} must be at least 1.")
    if output is not None:
        check_output(output)
    check_seed(seed)
    how = how_to_load(dtype, device, device_map, batch_size)
    handle = load(model, precision, pairs(layout, "--layout"), how)
    with progress.reporting(console.reporter()):
        traced = tracing.trace(handle, fact, window=window, seed=seed)
    # Print first: a picture that cannot be written must not cost the results.
    if as_json:
        print(json.dumps(traced.to_dict()))
    else:
        _print_best_layers(traced)
    if output is not None:
        _draw(traced, output)
        if not as_json:
            console.out().print(f"Heat map: {output}", markup=False)


def _print_best_layers(traced: Trace) -> None:
    from editbench.methods.trace import LEAST_EFFECT

    first, last = traced.subject
    rows = [
        {
            "token": token + (" *" if first <= i <= last else ""),
            **{f"{kind}: best layer": _best_layer(traced, kind, i) for kind in traced.scores},
        }
        for i, token in enumerate(traced.tokens)
    ]
    title = (
        f"p({traced.answer!r}) {traced.high:.3f}, with noise on the subject (*) {traced.low:.3f}"
    )
    console.out().print(console.listing(rows, title))
    if traced.high - traced.low < LEAST_EFFECT:
        console.say(
            "The noise hardly changes the answer, so there is little to find."
            " Ask for something that the model knows."
        )


def _best_layer(traced: Trace, kind: str, token: int) -> str:
    effect_L = traced.effect(kind)[token]
    layer = int(effect_L.argmax())
    return f"{layer} ({effect_L[layer]:+.3f})"


def _draw(traced: Trace, output: Path) -> None:
    """Write the heat map.

    Raises:
        RecordError: the file cannot be written.
    """
    from editbench.methods import trace as tracing

    with new_file(output) as picture:
        tracing.heat_map(traced, str(picture))
