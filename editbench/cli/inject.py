"""``editbench inject``: put your facts into a model, and show its answers before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import console, panels
from editbench.cli.loading import load
from editbench.cli.options import (
    AllowConflicts,
    ColumnOptions,
    LayoutParts,
    Model,
    Overwrite,
    Precision,
    Seed,
    SkipMemoryCheck,
    with_options,
)
from editbench.cli.output import make_folder
from editbench.cli.parsing import own_options, pairs
from editbench.cli.running import STOPPED
from editbench.cli.verdict import print_verdict
from editbench.files import EDIT_FILES

if TYPE_CHECKING:
    from editbench.types import Fact


@with_options
def inject(
    columns: ColumnOptions,
    method: Annotated[
        str,
        typer.Option(help="See 'editbench list methods'.", rich_help_panel=panels.METHODS),
    ],
    facts: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Your facts: a table (CSV, Excel, Parquet) or JSON with at least prompt and"
            " target.",
            rich_help_panel=panels.FACTS,
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="A new folder for the edit.", rich_help_panel=panels.OUTPUT)
    ],
    model: Model = DEFAULT_MODEL,
    option: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of the method (see 'editbench list METHOD'); repeatable.",
            rich_help_panel=panels.METHODS,
        ),
    ] = [],  # noqa: B006 - Typer reads it, nothing changes it
    seed: Seed = 0,
    precision: Precision = "auto",
    allow_conflicts: AllowConflicts = False,
    layout: LayoutParts = [],  # noqa: B006
    skip_memory_check: SkipMemoryCheck = False,
    overwrite: Overwrite = False,
) -> None:
    """Put your facts into a model, and save the edit.

    Then the edited model is asked for the facts, and a verdict is given. The exit code is 1 if
    fewer than 80% of the facts are answered with their target, or if the edit blew up: the model's
    own text has become 10 times as perplexing to it, or a weight 10 times as large. The edit is
    saved all the same.
    """
    from editbench import progress, registry
    from editbench.errors import OptionError
    from editbench.run.verdict import judge
    from editbench.types import check_facts

    # Names and files are checked first, because importing the method loads torch.
    registry.check("methods", method)
    options: dict[str, object] = {"seed": seed, **own_options(option, method, "--option")}
    corpus = registry.get("corpora", "local")()
    corpus.columns = columns.columns
    cases = corpus.load(facts)
    for remark in corpus.remarks:
        console.say(remark)
    chosen = [case.fact for case in cases]
    check_facts(chosen, allow_conflicts)
    _warn_of_same_answers(chosen)
    parts = pairs(layout, "--layout")
    editor = registry.get("methods", method).from_options(method, options)
    if editor.live:
        raise OptionError(
            f"An edit by {method} is a model in a process of its own and no change of weights, so "
            "it cannot be saved. See what it does with 'editbench compare --methods "
            f"{method} --facts {facts}'."
        )
    editor.check_subjects(method, chosen)
    if not skip_memory_check:
        from editbench.doctor import check_memory

        check_memory(model, {method: editor}, chosen, precision, parts)
    saved = False
    with _folder(output, overwrite), progress.reporting(console.reporter()):
        try:
            handle = load(model, precision, parts)
            edit = editor.inject(handle, chosen)
            # Before the model is asked: Ctrl-C while it answers must not lose the edit.
            edit.save(output, overwrite)
            saved = True
            verdict = judge(handle, edit, cases)
            verdict.write(output)
        except KeyboardInterrupt:
            console.say(
                f"\nStopped; the edit is saved in {output}."
                if saved
                else "\nStopped; nothing was written."
            )
            raise typer.Exit(STOPPED) from None
    print_verdict(verdict, edit, handle, output)
    if verdict.faults():
        raise typer.Exit(1)


def _warn_of_same_answers(facts: Sequence[Fact]) -> None:
    """Name the facts whose new answer cannot be told from the old one. They are taught anyway."""
    from editbench.types import same_answer_already

    for fact in facts:
        if same := same_answer_already(fact):
            console.say(f"Fact {fact.id!r}: {same} The answers cannot show whether it was taught.")


@contextmanager
def _folder(path: Path, overwrite: bool) -> Iterator[None]:
    """Make the folder before the work, so that a bad --output is refused at once.

    A new folder is removed again if no edit was saved in it.

    Raises:
        RecordError: the folder is not empty (unless ``overwrite``), or cannot be made.
    """
    made = make_folder(path, EDIT_FILES, overwrite)
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()  # fails unless it is empty
