"""``editbench doctor``: say what fits on this machine, from a model's configuration alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editbench.cli import console, parsing
from editbench.cli.options import AsJson, Device, Dtype, LayoutParts, Precision
from editbench.errors import OptionError

if TYPE_CHECKING:
    from editbench.doctor import Report


def doctor(
    model: Annotated[
        str,
        typer.Argument(help="Alias, hub id (owner/name), local folder or .gguf file."),
    ],
    methods: Annotated[
        str,
        typer.Option(help="Method names, separated by commas.  [default: all but EasyEdit's]"),
    ] = "",
    option: Annotated[
        list[str],
        typer.Option(metavar="METHOD.KEY=VALUE", help="Option of a method; repeatable."),
    ] = [],  # noqa: B006 - Typer reads it, nothing changes it
    facts: Annotated[
        int, typer.Option(min=1, help="Number of facts that are injected together.")
    ] = 50,
    precision: Precision = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    layout: LayoutParts = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Say what each method needs on this machine, what would make it fit, and what else is wrong.

    Only the model's configuration is read. The exit code is 1 if a method that --methods names
    does not fit or cannot edit the model.
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
    report = examine(outline, chosen, Texts(facts), Path.cwd())
    if as_json:
        print(json.dumps({**report, "facts": facts}, indent=2))
    else:
        _print(report, facts)
    if names and not all(row["fits"] for row in report["methods"]):
        raise typer.Exit(1)


def _print(report: Report, facts: int) -> None:
    """Print the sizes of the model, a line for each method, and what else is wrong."""
    from editbench.memory import gibibytes

    page = console.out()
    page.print(
        f"{report['model']}: {report['parameters']:,} parameters, "
        f"{gibibytes(report['weights'])} in {report['dtype']}. {report['device']}: "
        f"{gibibytes(report['free'])} of memory, passes in {report['precision']}.",
        markup=False,
    )
    table = console.listing(
        list(_rows(report)), f"Predicted peak memory of one edit, {facts} facts"
    )
    console.fit(page, table)
    page.print(table)
    for sentence in report["findings"]:
        page.print(f"- {sentence}", markup=False)


def _rows(report: Report) -> Iterator[Mapping[str, object]]:
    from editbench.memory import gibibytes

    for row in report["methods"]:
        if row["needed"] is None:
            yield {"method": row["method"], "held at once": row["note"]}
            continue
        yield {
            "method": row["method"],
            "needs": gibibytes(row["needed"]),
            "fits": "yes" if row["fits"] else "no",
            "held at once": ", ".join(_largest(row["held"])),
            "edit": gibibytes(row["edit"]),
            "would fit with": _flags(row["fits_with"]),
        }


def _largest(held: Mapping[str, int]) -> Sequence[str]:
    """Return the largest parts, and what the others add up to."""
    from editbench.memory import gibibytes

    pairs = list(held.items())
    rest = sum(size for _, size in pairs[4:])
    shown = [f"{what} {gibibytes(size)}" for what, size in pairs[:4]]
    return [*shown, f"other {gibibytes(rest)}"] if rest else shown


def _flags(flags: Sequence[str] | None) -> str:
    return "nothing here" if flags is None else " ".join(flags)
