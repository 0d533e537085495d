"""``editbench inject``: put your facts into a model, and show its answers before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import console, panels
from editbench.cli.loading import how_to_load, load
from editbench.cli.options import (
    AllowConflicts,
    BatchSize,
    ColumnOptions,
    Device,
    DeviceMap,
    Dtype,
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
from editbench.files import EDIT_FILES

if TYPE_CHECKING:
    from editbench.asking import Question
    from editbench.edit import Edit
    from editbench.models import LanguageModel
    from editbench.types import Case, Fact

Answer = TypedDict(
    "Answer",
    {"fact": str, "prompt": str, "target": str, "before": str, "after": str, "now right": bool},
)
"""One fact with the model's answers; the keys are the headings of the table."""


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
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    batch_size: BatchSize = "auto",
    allow_conflicts: AllowConflicts = False,
    layout: LayoutParts = [],  # noqa: B006
    skip_memory_check: SkipMemoryCheck = False,
    overwrite: Overwrite = False,
) -> None:
    """Put your facts into a model, and save the edit.

    Then the edited model is asked for the facts.
    """
    from editbench import progress, registry
    from editbench.asking import room
    from editbench.errors import OptionError
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
    how = how_to_load(dtype, device, device_map, batch_size)
    if not (skip_memory_check or device_map):
        from editbench.doctor import check_memory

        check_memory(model, {method: editor}, chosen, precision, parts, dtype=dtype, device=device)
    saved = False
    with _folder(output, overwrite), progress.reporting(console.reporter()):
        try:
            handle = load(model, precision, parts, how)
            edit = editor.inject(handle, chosen)
            # Before the model is asked: Ctrl-C while it answers must not lose the edit.
            edit.save(output, overwrite)
            saved = True
            answers = _ask(handle, edit, cases)
        except KeyboardInterrupt:
            console.say(
                f"\nStopped; the edit is saved in {output}."
                if saved
                else "\nStopped; nothing was written."
            )
            raise typer.Exit(STOPPED) from None
    _print_answers(answers, chosen)
    _print_report(method, edit, handle)
    _print_how_to_load(handle, output, chosen[0], room(handle, _question(cases[0])).tokens)


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


# --- asking -------------------------------------------------------------------------------------


def _ask(model: LanguageModel, edit: Edit, cases: Sequence[Case]) -> list[Answer]:
    """Return the model's answer to each fact's prompt, before and after the edit.

    It is asked as ``compare`` asks for efficacy.
    """
    from editbench.asking import answers
    from editbench.matching import contains

    questions = [_question(case) for case in cases]
    before = answers(model, questions)
    with edit.applied(model):
        after = answers(model, questions)
    return [
        {
            "fact": case.fact.id,
            "prompt": case.fact.prompt,
            "target": case.fact.target,
            "before": old,
            "after": new,
            "now right": contains(new, case.fact.answers, case.fact.prompt),
        }
        for case, old, new in zip(cases, before, after, strict=True)
    ]


def _question(case: Case) -> Question:
    from editbench.asking import Question

    rewrite = case.probes[0]
    return Question(rewrite.prompt, rewrite.form, rewrite.answers, rewrite.max_new_tokens)


# --- printing -----------------------------------------------------------------------------------


def _print_answers(answers: Sequence[Answer], facts: Sequence[Fact]) -> None:
    from editbench.matching import contains

    now = sum(answer["now right"] for answer in answers)
    already = sum(
        contains(answer["before"], fact.answers, fact.prompt)
        for answer, fact in zip(answers, facts, strict=True)
    )
    title = f"{now} of {len(answers)} facts answered with their target ({already} before the edit)"
    console.out().print(console.listing(answers, title))


def _print_report(method: str, edit: Edit, model: LanguageModel) -> None:
    """Print the size of the edit, the figures that the method declares, and its warnings."""
    summary = edit.summary(model)
    page = console.out()
    page.print(
        f"{method}: facts: {summary['facts']}, weights changed: {summary['changed_weights']}, "
        f"by {summary['delta_norm']:.3g} (norm).",
        markup=False,
    )
    for line in figure_lines(method, edit.diagnostics):
        page.print(line, markup=False)
    for warning in edit.diagnostics.get("warnings", ()):
        console.say(f"{method}: {warning}")


def figure_lines(method: str, report: Mapping[str, object]) -> list[str]:
    """Return a line with those figures of ``method`` that are shown and that its report has.

    A pair of methods has one line for each part; the report holds each part's under its name.
    """
    from editbench import registry

    lines = []
    parts = method.split("+")
    for part in parts:
        figures = registry.get("methods", part).figures
        values = report if len(parts) == 1 else report.get(part)
        if isinstance(values, Mapping):
            shown = [
                f"{_figure(values[name])} {figure.shown}"
                for name, figure in figures.items()
                if figure.shown is not None and values.get(name) is not None
            ]
            if shown:
                lines.append(f"{part}: {', '.join(shown)}.")
    return lines


def _figure(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _print_how_to_load(model: LanguageModel, folder: Path, fact: Fact, tokens: int) -> None:
    # a longer answer than ``LanguageModel.generate`` gives by itself
    asked = model.loading.dtype if model.loading else "auto"
    held = f", dtype={asked!r}" if asked != "auto" else ""
    longer = f", max_new_tokens={tokens}" if tokens > 32 else ""
    console.out().print(
        f"Saved in {folder}. Load it again:\n\n"
        "    import editbench\n"
        f"    model = editbench.load_model({model.name!r}{held})\n"
        f"    with editbench.Edit.load({str(folder)!r}).applied(model):\n"
        f"        print(model.generate({fact.prompt!r}, {fact.form!r}{longer}))",
        markup=False,
    )
