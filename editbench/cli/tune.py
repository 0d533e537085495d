"""``editbench tune``: search options with the same number of trials for each method."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import console, panels, parsing, running, workers
from editbench.cli.loading import check_is_here
from editbench.cli.options import RunOptions, with_options
from editbench.errors import DataError, OptionError, check_package

Record = Mapping[str, Any]
"""The record of a tune run, or a part of it; ``editbench.run.tune`` declares its fields."""


@with_options
def tune(
    options: RunOptions,
    methods: Annotated[
        str,
        typer.Option(
            help="Method names, separated by commas; each gets the same number of trials.",
            rich_help_panel=panels.METHODS,
        ),
    ] = "mixsd,memit,sft",
    budget: Annotated[
        int,
        typer.Option(
            help="Trials of each method; the first uses its defaults.",
            rich_help_panel=panels.METHODS,
        ),
    ] = 8,
    option: Annotated[
        list[str],
        typer.Option(
            metavar="METHOD.KEY=VALUE",
            help="An option that all trials of a method share and that is not searched, or its"
            " recipe, which the search starts from; repeatable.",
            rich_help_panel=panels.METHODS,
        ),
    ] = [],  # noqa: B006 - Typer reads it, nothing changes it
    retention: Annotated[
        float,
        typer.Option(
            help="Minimum mean ratio of edited to base score over the tasks. Among trials above"
            " it, the one with the highest recall wins.",
            rich_help_panel=panels.RETENTION,
        ),
    ] = 0.95,
) -> None:
    """Search each method's options on dev facts, at equal budgets.

    'editbench compare --tuned' uses the options that are chosen here.
    """
    # Before the slow imports, so that a misspelt name is reported at once.
    names = parsing.method_names(methods)
    check_package("editbench tune", "optuna", "tune")
    console.begin()

    from editbench.run import tune as tuning

    if options.regime == "single":
        raise OptionError(
            "tune does not go with --regime single: that regime measures no retention."
            " Use batch or sequential:CHUNK."
        )
    request = workers.request_of(options)
    if request is None:
        check_is_here(options.model)
    search = tuning.Search(names, budget, retention, parsing.method_options(option))
    trials = tuple(trial for method in search.methods for trial in search.trials(method))
    plan = running.checked_plan(running.request(options, trials, {}, "dev"), options.tasks)
    if plan.not_asked:  # without one of its tasks, the search would have another objective
        raise DataError(next(iter(plan.not_asked.values())))
    if not plan.config.tasks:
        raise OptionError(
            "tune maximizes recall subject to retention, but no retention task is asked."
            " Name some --tasks."
        )
    if request is None:  # else each worker makes the check on its machine
        running.check_memory([plan], options)
    with running.open_run(plan, search.identity(plan.config), options.output) as store:
        if not options.as_json:
            console.say(
                f"{len(plan.cases)} facts of {running.named_facts(plan.config)},"
                f" model {options.model}, {budget} trials each of {', '.join(names)}."
                f" Record: {store.path}"
            )
        with workers.crew(options, [plan], request) as crew:
            record = tuning.tune(search, plan, crew.workers, store, crew.on_cell(""))
    if options.as_json:
        print(json.dumps({"run": str(store.path), **record}, indent=2))
    else:
        show_trials(record, store.path, options)
    if not all(tried["chosen"] for tried in record["methods"].values()):
        raise typer.Exit(1)


def show_trials(record: Record, folder: Path, options: RunOptions) -> None:
    """Print the trials of a tune run, mark the chosen ones, and report what went wrong."""
    title = (
        f"{record['budget']} trials each, the first with the defaults, on {record['corpus']['n']}"
        f" dev facts; keeps enough: a retention of at least {record['retention']}"
    )
    rows = [
        _trial_row(method, trial, trial == tried["chosen"])
        for method, tried in record["methods"].items()
        for trial in tried["trials"]
    ]
    page = console.out()
    table = console.listing(rows, title, ("keeps enough", "inject s"), f" {folder} has them.")
    console.fit(page, table)
    page.print(table)
    for note in _notes(record):
        console.say(note)
    chosen = ",".join(method for method, tried in record["methods"].items() if tried["chosen"])
    if chosen:
        given = ["--methods", chosen, "--tuned", str(folder), *_same(options)]
        console.say(f"\nOn test facts:\n  {shlex.join(['editbench', 'compare', *given])}")


def _same(options: RunOptions) -> list[str]:
    """Return the options by which ``compare`` gets the model, facts and tasks of ``options``."""
    named = {
        "--facts": options.facts,
        "--corpus": options.corpus,
        "--data": options.data,
        **{f"--{name}-column": column for name, column in options.columns.items()},
        "--regime": options.regime,
        "--tasks": options.tasks,
        "--limit": str(options.limit or 0),
        "--model": options.model,
        "--precision": options.precision,
        "--dtype": options.dtype,
        "--device": options.device,
        "--device-map": options.device_map,
        "--batch-size": options.batch_size,
    }
    usual = {"--regime": "batch", "--model": DEFAULT_MODEL}
    usual |= {"--tasks": RunOptions.tasks, "--limit": str(RunOptions.limit)}
    usual |= dict.fromkeys(("--precision", "--dtype", "--device", "--batch-size"), "auto")
    pairs = [(name, value) for name, value in named.items() if value != usual.get(name)]
    pairs += [("--layout", part) for part in options.layout]
    pairs += [("--task-data", data) for data in options.task_data]
    return [text for name, value in pairs if value is not None for text in (name, value)]


def _trial_row(method: str, trial: Record, chosen: bool) -> dict[str, object]:
    options = (
        f"{key}={'auto' if value is None else value}" for key, value in trial["options"].items()
    )
    return {
        "method": method,
        "trial": trial["trial"],
        "options": ", ".join(options),
        "recall ↑": _two_decimals(trial["recall"]),
        "retention ↑": _two_decimals(trial["retention"]),
        "keeps enough": trial["feasible"],
        "inject s": _two_decimals(trial["seconds"]),
        "chosen": chosen,
    }


def _two_decimals(value: float | None) -> str:
    return console.MISSING if value is None else f"{value:.2f}"


def _notes(record: Record) -> Iterator[str]:
    """Yield one line for shared options, each failed trial, each method without a feasible one."""
    for method, tried in record["methods"].items():
        if shared := tried.get("options"):
            given = ", ".join(f"{key}={value}" for key, value in shared.items())
            yield f"{method}: all trials start from {given}."
        for trial in tried["trials"]:
            if trial["status"] != "done":
                yield f"{method}@trial{trial['trial']}: {trial['status']}: {trial['note']}"
        if not tried["chosen"]:
            if any(trial["recall"] is not None for trial in tried["trials"]):
                yield f"{method}: no trial taught anything; the defaults stand."
            else:
                yield f"{method}: every trial failed, so nothing is chosen."
        elif not tried["chosen"]["feasible"]:
            yield (
                f"{method}: no trial keeps a retention of {record['retention']};"
                f" the nearest one, with {tried['chosen']['retention']:.2f}, is chosen."
            )
