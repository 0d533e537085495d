"""``editbench stats``: measure, list and inspect the covariance statistics of weight editors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

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
from editbench.cli.parsing import pairs
from editbench.errors import OptionError, RecordError

if TYPE_CHECKING:
    from editbench.models import LanguageModel

stats = typer.Typer(
    help="Compute, list and inspect covariance statistics.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@runtime_checkable
class LayerEditor(Protocol):
    """A method that reads statistics of the layers that it edits."""

    covariance_tokens: int

    def edited_layers(self, model: LanguageModel) -> tuple[int, ...] | None:
        """Return the edited layers, or ``None`` if they depend on the facts."""


@stats.command("compute")
def compute(
    source: Annotated[
        str,
        typer.Option(
            help="Text to measure on: self (written by the model), a text or JSONL file, or a hub"
            " data set; several separated by commas."
        ),
    ] = "self",
    tokens: Annotated[
        int | None,
        typer.Option(
            help="Approximate number of tokens. From 40,000 on, fewer are used if the update is"
            " stable before. Default: as in inject, 20,000."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Without --layers: measure the layers that this method edits.")
    ] = "memit",
    layers: Annotated[str | None, typer.Option(help="Layers, such as 4-8 or 3,5.")] = None,
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
    """Measure the second moments of a model's keys in one pass, and cache them."""
    from editbench import progress
    from editbench.methods import statistics
    from editbench.options import MAX_TOKENS, check_count, check_seed

    if tokens is not None and tokens < 2:
        raise OptionError(f"--tokens {tokens} is too few. Give at least 2.")
    check_count("--tokens", tokens or 2, MAX_TOKENS)
    check_seed(seed)
    how = how_to_load(dtype, device, device_map, batch_size)
    editor = _editor(method)
    wanted = _layers(layers)
    handle = load(model, precision, pairs(layout, "--layout"), how)
    if wanted is None:
        wanted = _edited_layers(editor, method, handle)
    elif not wanted or min(wanted) < 0 or max(wanted) >= handle.layout.depth:
        raise OptionError(f"--layers {layers}: {model} has layers 0 to {handle.layout.depth - 1}.")
    # The number of tokens is part of the cache key, so the default must be the one of inject.
    count = editor.covariance_tokens if tokens is None else tokens
    with progress.reporting(console.reporter()):
        moments = statistics.second_moments(handle, wanted, source, count, seed)
    records = [
        {
            "layer": layer,
            "tokens": moment.tokens,
            "width": len(moment.c_ff),
            "made": moment.origin.get("made"),
        }
        for layer, moment in moments.items()
    ]
    _print(records, f"statistics of {model} on {source}", as_json)


def _editor(name: str) -> LayerEditor:
    from editbench import registry

    method = registry.get("methods", name)
    editor: object = method.from_options(name, {}) if method.needs_covariance else None
    if not isinstance(editor, LayerEditor):  # a pair of methods has no layers of its own
        raise OptionError(
            f"{name} needs no covariance, so it names no layers. Use --layers, or --method memit."
        )
    return editor


def _layers(text: str | None) -> tuple[int, ...] | None:
    from editbench.options import parse_option

    try:
        return tuple(parse_option(text, tuple[int, ...])) if text else None
    except ValueError as error:
        raise OptionError(f"--layers {text}: {error}.") from error


def _edited_layers(editor: LayerEditor, method: str, model: LanguageModel) -> tuple[int, ...]:
    layers = editor.edited_layers(model)
    if layers is None:
        raise OptionError(f"{method} chooses its layers by the facts. Name them with --layers.")
    return layers


@stats.command("list")
def list_cached(as_json: AsJson = False) -> None:
    """List the cached statistics."""
    from editbench.methods import statistics

    _print(statistics.listing(), "statistics", as_json)
    if not as_json:
        console.say(f"in {statistics.folder()}")


@stats.command("show")
def show_one(
    file: Annotated[
        str,
        typer.Argument(
            help="A file, or the beginning of a name that 'editbench stats list' shows."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Describe one matrix: its source, trace and condition, and where most of it lies."""
    from editbench.methods import statistics

    path = Path(file)
    if not os.path.isfile(file):  # unlike Path.is_file, it is False for a name that is too long
        cached = sorted(statistics.folder().glob("*.safetensors"))
        matches = [one for one in cached if path.name and one.name.startswith(path.name)]
        if len(matches) != 1:
            count = f"{len(matches)} files" if matches else "No file"
            verb = "begin" if matches else "begins"
            raise RecordError(
                f"{count} of the cache {verb} with {file!r}. See 'editbench stats list'."
            )
        (path,) = matches
    record = statistics.inspect(path)
    if as_json:
        print(json.dumps(record, indent=2))
    else:
        lines = [{"what": key, "value": value} for key, value in record.items()]
        _print(lines, str(path), as_json)


def _print(records: Sequence[Mapping[str, object]], title: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(records, indent=2))
    else:
        console.out().print(console.listing(records, title))
