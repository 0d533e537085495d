"""``editbench doctor``: say what fits on this machine, from a model's configuration alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import console, parsing
from editbench.cli.loading import read_batch_size
from editbench.cli.options import (
    AsJson,
    BatchSize,
    Device,
    Dtype,
    LayoutParts,
    Limit,
    Precision,
    TaskData,
)
from editbench.errors import OptionError
from editbench.options import MAX_COUNT

if TYPE_CHECKING:
    from editbench.asked import Evaluation
    from editbench.doctor import Report


def doctor(
    model: Annotated[
        str,
        typer.Argument(help="Alias, hub id (owner/name), local folder or .gguf file."),
    ] = DEFAULT_MODEL,
    methods: Annotated[
        str,
        typer.Option(help="Method names, separated by commas.  [default: all but EasyEdit's]"),
    ] = "",
    option: Annotated[
        list[str],
        typer.Option(metavar="METHOD.KEY=VALUE", help="Option of a method; repeatable."),
    ] = [],  # noqa: B006 - Typer reads it, nothing changes it
    facts: Annotated[
        int,
        typer.Option(min=1, max=MAX_COUNT, help="Number of facts that are injected together."),
    ] = 50,
    tasks: Annotated[
        str,
        typer.Option(
            help="Also say what 'editbench compare' takes with these retention tasks, as given"
            " there: default, none, or names."
        ),
    ] = "",
    limit: Limit = 100,
    task_data: TaskData = [],  # noqa: B006
    batch_size: BatchSize = "auto",
    precision: Precision = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    layout: LayoutParts = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Say what each method needs on this machine, what would make it fit, and what else is wrong.

    Only the model's configuration is read, with --tasks its tokenizer as well. The exit code is 1
    if a method that --methods names does not fit or cannot edit the model.
    """
    names = parsing.method_names(methods) if methods else ()
    parts = parsing.pairs(layout, "--layout")

    from editbench import registry
    from editbench.doctor import examine
    from editbench.memory import Texts
    from editbench.outline import read_outline

    options = parsing.method_options(option)
    chosen = {
        name: registry.get("methods", name.partition("@")[0]).from_options(
            name.partition("@")[0], options.pop(name, {})
        )
        for name in names or registry.names("methods")
    }
    if options:
        raise OptionError(
            f"--option {next(iter(options))} is of a method that --methods does not name."
        )
    outline = read_outline(model, precision, parts, dtype, device)
    if parts:
        outline.layout  # noqa: B018 - a wrong name is refused, as where a model is loaded
    asked = None
    if tasks:
        asked = _asked(
            model, tasks, limit or None, parsing.pairs(task_data, "--task-data"), batch_size
        )
    report = examine(outline, chosen, Texts(facts), Path.cwd(), timed=True, asked=asked)
    if as_json:
        print(json.dumps({**report, "facts": facts}, indent=2))
    else:
        _print(report, facts)
    if names and not all(row["fits"] in (True, None) for row in report["methods"]):
        raise typer.Exit(1)


def _asked(
    model: str, tasks: str, limit: int | None, task_data: Mapping[str, str], batch_size: str
) -> Evaluation:
    """Return what the retention tasks that ``--tasks`` names ask of ``model``.

    Raises:
        EditbenchError: a task is unknown, or cannot be asked.
    """
    from editbench.run.loading import asked_by_name

    return asked_by_name(model, tasks, limit, task_data, read_batch_size(batch_size))


def _print(report: Report, facts: int) -> None:
    """Print the sizes of the model, a line for each method, and what else is wrong."""
    from editbench.memory import gibibytes

    page = console.out()
    page.print(
        f"{report['model']}: {report['parameters']:,} parameters, "
        f"{gibibytes(report['weights'])} in {report['dtype']}. {report['device']}: "
        f"{gibibytes(report['free'])} of memory free, passes in {report['precision']}.",
        markup=False,
    )
    if rows := list(_rows(report)):
        title = f"Predicted for one edit, {facts:,} facts: peak memory, and minutes at most"
        table = console.listing(rows, title)
        console.fit(page, table)
        page.print(table)
    for sentence in (*_compared(report, facts), *_notes(report), *report["findings"]):
        page.print(f"- {sentence}", markup=False)


def _rows(report: Report) -> Iterator[Mapping[str, object]]:
    """Yield the rows of the methods that say what they need."""
    from editbench.memory import gibibytes

    said = [row for row in report["methods"] if row["needed"] is not None]
    for row in said:
        yield {
            "method": row["method"],
            "needs": gibibytes(row["needed"] or 0),
            "fits": "yes" if row["fits"] else "no",
            "minutes": "" if row["minutes"] is None else _few_digits(row["minutes"]),
            "held at once": ", ".join(_largest(row["held"])),
            "edit": gibibytes(row["edit"]),
            # no column of blanks where all fit
            **({} if all(r["fits"] for r in said) else {"fits with": _flags(row["fits_with"])}),
        }


def _compared(report: Report, facts: int) -> Iterator[str]:
    """Yield how long a comparison takes, where it was asked for."""
    compared = report["compare"]
    if compared is None or compared["probes"] is None or compared["tasks"] is None:
        return
    yield (
        f"Asked once, a model takes {_few_digits(compared['probes'])} minutes for the probes of "
        f"{facts:,} facts and {_few_digits(compared['tasks'])} for the "
        f"{compared['requests']:,} requests of the retention tasks, at most."
    )
    if compared["total"] is None:
        yield "How long 'editbench compare' takes is not known: a method does not say it of itself."
    else:
        yield (
            f"'editbench compare' with these methods takes {_few_digits(compared['total'])} "
            "minutes at most, base and ice included, loading apart."
        )


def _notes(report: Report) -> Iterator[str]:
    """Yield what is to say of the other methods, a sentence for all of which the same is true."""
    methods: dict[str, list[str]] = {}
    for row in report["methods"]:
        if row["note"]:
            methods.setdefault(row["note"], []).append(row["method"])
    for note, names in methods.items():
        yield f"{', '.join(names)}: {note}{'' if note.endswith('.') else '.'}"


def _few_digits(minutes: float) -> str:
    """Return a number that is true to a factor of two: "0.03", "0.4", "3", "120"."""
    if minutes < 0.005:
        return "0"
    digits = max(0, -math.floor(math.log10(minutes)))
    return f"{minutes:.{digits}f}" if digits else f"{float(f'{minutes:.2g}'):,.0f}"


def _largest(held: Mapping[str, int]) -> Sequence[str]:
    """Return the largest parts, and what the others add up to."""
    from editbench.memory import gibibytes

    pairs = list(held.items())
    rest = sum(size for _, size in pairs[4:])
    shown = [f"{what} {gibibytes(size)}" for what, size in pairs[:4]]
    return [*shown, f"other {gibibytes(rest)}"] if rest else shown


def _flags(flags: Sequence[str] | None) -> str:
    return "nothing here" if flags is None else " ".join(flags)
