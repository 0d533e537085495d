"""``editbench evaluate``: score the very edit that is to be shipped, and raise an alarm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editbench.cli import console, panels, running
from editbench.cli.options import (
    AllowConflicts,
    AsJson,
    BaseModel,
    BatchSize,
    ColumnOptions,
    Device,
    DeviceMap,
    LayoutParts,
    Precision,
    RunOptions,
    Seed,
    SkipMemoryCheck,
    with_options,
)

if TYPE_CHECKING:
    from editbench.run.evaluation import Least

Tasks = Annotated[
    str,
    typer.Option(
        help="Retention tasks, separated by commas: default, none, names of lm-eval tasks, or"
        " PATH.yaml.",
        rich_help_panel=panels.RETENTION,
    ),
]
MinEfficacy = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Exit with 1 if less than this share of the facts is answered with its target.",
        rich_help_panel=panels.RETENTION,
    ),
]
MinRetention = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Exit with 1 if less than this share of the base's scores is kept, as the mean over"
        " the retention tasks.",
        rich_help_panel=panels.RETENTION,
    ),
]


@with_options
def evaluate(
    columns: ColumnOptions,
    edit: Annotated[
        Path,
        typer.Argument(help="A saved edit. A PEFT adapter or a fine-tuned model works as well."),
    ],
    facts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Facts with their probes; none: retention alone.  [default: the facts of the edit,"
            " which has no paraphrases and neighbors of them]",
            rich_help_panel=panels.FACTS,
        ),
    ] = None,
    tasks: Tasks = "default",
    limit: Annotated[
        int,
        typer.Option(
            help="Items per retention task, drawn with the seed; 0 for all.",
            rich_help_panel=panels.RETENTION,
        ),
    ] = 100,
    min_efficacy: MinEfficacy = None,
    min_retention: MinRetention = None,
    model: BaseModel = None,
    precision: Precision = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    batch_size: BatchSize = "auto",
    layout: LayoutParts = [],  # noqa: B006 - Typer reads it, nothing changes it
    skip_memory_check: SkipMemoryCheck = False,
    seed: Seed = 0,
    allow_conflicts: AllowConflicts = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Run folder. An unfinished run in it is resumed.", rich_help_panel=panels.OUTPUT
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a saved edit beside its base: its facts, retention and drift.

    Exits with 1 if it falls below --min-efficacy or --min-retention.
    """
    console.begin()

    from editbench.run.evaluation import Least, base_name, own_facts
    from editbench.slices import NO_FACTS

    asked = own_facts(edit) if facts is None else facts
    if facts is None and asked != NO_FACTS:
        console.say(
            "The edit keeps its facts without paraphrases and neighbors. With --facts FILE, which"
            " has them, generalization and specificity are measured too."
        )
    options = RunOptions(
        **vars(columns),
        model=base_name(edit, model),
        precision=precision,
        device=device,
        device_map=device_map,
        batch_size=batch_size,
        layout=layout,
        skip_memory_check=skip_memory_check,
        facts=asked,
        seed=seed,
        allow_conflicts=allow_conflicts,
        tasks=tasks,
        limit=limit,
        output=output,
        as_json=as_json,
    )
    score(edit, options, Least(min_efficacy, min_retention))


def score(edit: Path, options: RunOptions, least: Least) -> None:
    """Score what is in ``edit``, and print the tables and the alarms.

    Raises:
        OptionError: ``least`` asks for what the run does not measure.
        typer.Exit: with 1, if a limit is not reached or a row failed.
    """
    from editbench.run.evaluation import ROW

    config = running.scoring(edit, options)
    least.check(config, options.tasks)
    folder, summaries = running.run_and_show(config, options)
    running.exit_if_incomplete(folder, summaries)
    (edited,) = (summary for summary in summaries if summary["method"] == ROW)
    if alarms := least.alarms(edited):
        for alarm in alarms:
            console.say(f"ALARM: {alarm}")
        raise typer.Exit(1)
