"""``editbench compare``: inject the same facts by each method, and show gains and damage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from editbench.cli import completion, console, panels, parsing, running
from editbench.cli.options import Diagnostics, RunOptions, with_options
from editbench.cli.plot import draw_over_facts
from editbench.cli.suites import check_given, say_what_is_missing, with_suite
from editbench.errors import RecordError, check_package
from editbench.slices import NO_FACTS

DEFAULT_METHODS = "mixsd,memit,sft"


@with_options
def compare(
    options: RunOptions,
    context: typer.Context,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="Measure on a suite (see 'editbench list suites'), which fixes model, facts, tasks"
            " and seeds, so that records of different people compare.",
            autocompletion=completion.suites,
            rich_help_panel=panels.METHODS,
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Method names, separated by commas; base and ice are always added. NAME@LABEL is"
            f" a variant of NAME with options of its own.  [default: {DEFAULT_METHODS}; with"
            " --artifact, none]",
            autocompletion=completion.methods,
            rich_help_panel=panels.METHODS,
        ),
    ] = None,
    artifact: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=FOLDER",
            help="A row for what was made elsewhere: a PEFT adapter, a fine-tuned model or a saved"
            " edit, scored against its base; repeatable.",
            rich_help_panel=panels.METHODS,
        ),
    ] = [],  # noqa: B006 - Typer reads it, nothing changes it
    option: Annotated[
        list[str],
        typer.Option(
            metavar="METHOD.KEY=VALUE",
            help="Option of a method or variant (see 'editbench list METHOD'); repeatable.",
            rich_help_panel=panels.METHODS,
        ),
    ] = [],  # noqa: B006 - Typer reads it, nothing changes it
    tuned: Annotated[
        list[Path],
        typer.Option(
            metavar="FOLDER",
            help="Folder of an 'editbench tune' run, whose methods get the options chosen there;"
            " repeatable.",
            rich_help_panel=panels.METHODS,
        ),
    ] = [],  # noqa: B006
    repeats: Annotated[
        int,
        typer.Option(
            metavar="K",
            help="Inject K more times only to time it; the table shows the median.",
            rich_help_panel=panels.METHODS,
        ),
    ] = 0,
    part: Annotated[
        str | None,
        typer.Option(
            help="Slice of the corpus: test, or dev for choosing hyper-parameters."
            "  [default: test; of your own facts all, unless --tuned]",
            rich_help_panel=panels.FACTS,
        ),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            help="Seeds of several runs in one, such as 0,1,2: a method is one row, with the"
            " spread of the seeds. Each seed draws facts and documents and seeds the methods, as"
            " --seed does.",
            rich_help_panel=panels.FACTS,
        ),
    ] = "",
    curve: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            help="Also ask the model after the first N facts, and draw the curve.",
            rich_help_panel=panels.FACTS,
        ),
    ] = "",
    diagnostics: Diagnostics = "",
    evaluators: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Evaluator plug-ins; each adds a column (see 'editbench list evaluators').",
            rich_help_panel=panels.RETENTION,
        ),
    ] = "",
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="OpenAI-compatible endpoint of a model that also judges the answers.",
            rich_help_panel=panels.RETENTION,
        ),
    ] = None,
    judge_model: Annotated[
        str | None,
        typer.Option(
            help="Name of the judge at that endpoint; the key is read from OPENAI_API_KEY.",
            rich_help_panel=panels.RETENTION,
        ),
    ] = None,
) -> None:
    """Show what each method gains and destroys on the same facts."""
    # Before the slow imports, so that a misspelt name is reported at once.
    if curve:
        check_package("--curve", "matplotlib", "plot")
    fixed = None
    if suite:
        from editbench.run.suite import Suite

        fixed = Suite.read(suite)
        check_given(context, fixed)
        options, part = with_suite(options, fixed), fixed.facts["part"]
    named_seeds = fixed.numbers if fixed else parsing.seeds(seeds, options.seed)
    made = parsing.pairs(artifact, "--artifact")
    if methods is None:
        methods = "" if made else DEFAULT_METHODS
    names = parsing.method_names(methods) if methods or not made else ()
    console.begin()
    if fixed:
        say_what_is_missing(names)

    from editbench.records.reading import run_folders
    from editbench.run.tune import Tuned, chosen_options

    method_options = parsing.method_options(option)
    searches = [Tuned.read(folder) for folder in tuned]
    all_options, records = chosen_options(searches, names, method_options)
    config = replace(
        running.request(options, names, all_options, part or ("test" if tuned else None), made),
        seed=named_seeds[0],
        tuned=records,
        curve=parsing.fact_counts(curve),
        diagnostics=parsing.diagnostic_names(diagnostics or default_diagnostics(options)),
        evaluators=parsing.evaluator_names(evaluators),
        judge=judge,
        judge_model=judge_model,
        repeats=repeats,
        suite=fixed.stored if fixed else {},
    )
    checks: list[running.Check] = [*searches, *([fixed] if fixed else [])]
    folder, summaries = running.run_and_show(config, options, checks, named_seeds)
    for run in run_folders(folder) if curve else ():
        _draw_curve(run)
    running.exit_if_incomplete(folder, summaries)


def default_diagnostics(options: RunOptions) -> str:
    """Return ``drift`` for a run without facts, which has little else to show."""
    return "drift" if options.facts == NO_FACTS else ""


def _draw_curve(folder: Path) -> None:
    try:
        files = draw_over_facts(folder, folder / "curve.png")
    except RecordError as error:  # the run itself is done and kept
        console.say(f"No picture: {error}")
    else:
        console.say(f"Scores against the number of facts: {files}")
