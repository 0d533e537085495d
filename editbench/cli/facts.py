"""``editbench facts``: show what a file of facts would teach, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import console, panels
from editbench.cli.facts_page import NO_MODEL, Commands, print_drafts, print_report
from editbench.cli.loading import how_to_load, load
from editbench.cli.options import (
    AsJson,
    BatchSize,
    ColumnOptions,
    Device,
    DeviceMap,
    Dtype,
    LayoutParts,
    Precision,
    with_options,
)
from editbench.cli.parsing import pairs

if TYPE_CHECKING:
    from editbench.models import LanguageModel
    from editbench.run.drafts import Drafts
    from editbench.types import Case


@with_options
def facts(
    columns: ColumnOptions,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Your facts: a table (CSV, Excel, Parquet) or JSON with at least prompt and"
            " target.",
            rich_help_panel=panels.FACTS,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="The model that is asked what it knows: alias, hub id (owner/name), local folder"
            " or .gguf file. 'none' asks no model, which takes a second and leaves out tokens and"
            " known facts.",
            rich_help_panel=panels.MODEL,
        ),
    ] = DEFAULT_MODEL,
    precision: Precision = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    batch_size: BatchSize = "auto",
    layout: LayoutParts = [],  # noqa: B006 - Typer reads it, nothing changes it
    write_probes: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Draft prompts with a lead-in, as paraphrases, and neighborhood prompts for the"
            " facts that have none, and write all to OUT (.csv, .tsv, .xlsx, .json or .jsonl), to"
            " be read and mended.",
            rich_help_panel=panels.OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace an earlier OUT, and what was mended in it.",
            rich_help_panel=panels.OUTPUT,
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a file of facts would teach, before anything is trained.

    Nothing is changed, and nothing is written without --write-probes. Exit code 0: all of it can be
    taught. 1: something must be mended first, such as facts that contradict each other; the output
    marks it. 2: the file or the model cannot be used at all. The keys of --json are documented at
    Report.to_dict in editbench/run/facts.py.
    """
    parts = pairs(layout, "--layout")
    given = {
        "--precision": precision,
        "--dtype": dtype,
        "--device": device,
        "--device-map": device_map or "auto",
        "--batch-size": batch_size,
    }
    how = None
    if model != NO_MODEL:
        how = how_to_load(dtype, device, device_map, batch_size)
    if write_probes:
        _check_output(write_probes, file, model, overwrite)
    cases, bad, places = _read(file, columns)

    from editbench import progress
    from editbench.run.facts import report

    with progress.reporting(console.reporter()):
        handle = None if model == NO_MODEL else load(model, precision, parts, how)
        found = report(cases, handle, bad)
        drafts = None
        if write_probes and handle and found.ready:
            drafts = _draft(handle, cases, write_probes)
    commands = Commands(file, columns, model, given, parts, write_probes)
    if as_json:
        made = {"drafted": {"file": str(write_probes), **drafts.to_dict()}} if drafts else {}
        print(json.dumps({"file": str(file), **found.to_dict(), **made}))
    elif drafts:
        print_drafts(drafts, commands, found)
    else:
        print_report(found, commands, places)
    if not found.ready:
        if write_probes:
            console.say(f"Nothing was drafted: {write_probes} was not written.")
        raise typer.Exit(1)


def _check_output(path: Path, file: Path, model: str, overwrite: bool) -> None:
    """Check, before the work, that drafts can be written to ``path``.

    Raises:
        OptionError: no model is asked, ``path`` exists, or its folder does not.
        DataError: its name does not say how to write it.
    """
    from editbench.errors import OptionError
    from editbench.run.write_facts import check_suffix

    if model == NO_MODEL:
        raise OptionError("--write-probes asks the model about neighbors. Leave out --model none.")
    check_suffix(path)
    if not path.parent.is_dir():
        raise OptionError(
            f"--write-probes {path}: there is no folder {path.parent}. Make it first."
        )
    if path.exists() and (not overwrite or path.samefile(file)):
        raise OptionError(
            f"--write-probes {path}: the file exists. Name another one"
            f"{'' if path.samefile(file) else ', or pass --overwrite'}."
        )


def _draft(model: LanguageModel, cases: Sequence[Case], path: Path) -> Drafts:
    """Draft the missing probes, and write all facts to ``path``."""
    from editbench.run.drafts import draft
    from editbench.run.write_facts import AXES, write_facts

    drafts = draft(model, cases)
    write_facts(path, drafts.cases, columns=("subject", *AXES))
    return drafts


def _read(
    file: Path, columns: ColumnOptions
) -> tuple[list[Case], tuple[str, ...], Mapping[str, str]]:
    """Return the facts of a file, a sentence for each record that is none, and places by id.

    Raises:
        DataError: nothing of the file can be read.
    """
    from editbench import registry
    from editbench.types import BadRecordsError

    corpus = registry.get("corpora", "local")()
    corpus.columns = columns.columns
    try:
        return corpus.load(file), (), corpus.places
    except BadRecordsError as error:
        return error.cases, error.problems, corpus.places
    finally:
        for remark in corpus.remarks:
            console.say(remark)
