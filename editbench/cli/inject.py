"""``editbench inject``: put your facts into a model, and show its answers before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import console
from editbench.cli.loading import load
from editbench.cli.options import (
    AllowConflicts,
    LayoutParts,
    Model,
    Precision,
    Seed,
)
from editbench.cli.output import make_empty_folder
from editbench.cli.parsing import own_options, pairs
from editbench.cli.running import STOPPED

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel
    from editbench.types import Fact

ANSWER_TOKENS = {"cloze": 16, "question": 32}
"""Form of a prompt -> maximum length of an answer in tokens, as ``compare`` has it for efficacy."""

Answer = TypedDict(
    "Answer",
    {"fact": str, "prompt": str, "target": str, "before": str, "after": str, "now right": bool},
)
"""One fact with the model's answers; the keys are the headings of the table."""


def inject(
    method: Annotated[str, typer.Option(help="See 'editbench list methods'.")],
    facts: Annotated[
        Path,
        typer.Option(help="Your facts: JSONL, JSON or CSV with at least prompt and target."),
    ],
    output: Annotated[Path, typer.Option(help="A new folder for the edit.")],
    model: Model = DEFAULT_MODEL,
    option: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of the method (see 'editbench list METHOD'); repeatable.",
        ),
    ] = [],  # noqa: B006 - Typer reads it, nothing changes it
    seed: Seed = 0,
    precision: Precision = "auto",
    allow_conflicts: AllowConflicts = False,
    layout: LayoutParts = [],  # noqa: B006
) -> None:
    """Put your facts into a model, and save the edit.

    Then the edited model is asked for the facts.
    """
    from editbench import progress, registry
    from editbench.types import check_facts

    # Names and files are checked first, because importing the method loads torch.
    registry.check("methods", method)
    options: dict[str, object] = {"seed": seed, **own_options(option, method, "--option")}
    chosen = [case.fact for case in registry.get("corpora", "local")().load(facts)]
    check_facts(chosen, allow_conflicts)
    _warn_of_same_answers(chosen)
    parts = pairs(layout, "--layout")
    editor = registry.get("methods", method).from_options(method, options)
    editor.check_subjects(method, chosen)
    with _new_folder(output), progress.reporting(console.reporter()):
        try:
            handle = load(model, precision, parts)
            edit = editor.inject(handle, chosen)
            # Before the model is asked: Ctrl-C while it answers must not lose the edit.
            edit.save(output)
            answers = _ask(handle, edit, chosen)
        except KeyboardInterrupt:
            console.say(
                f"\nStopped; the edit is saved in {output}."
                if _is_saved(output)
                else "\nStopped; nothing was written."
            )
            raise typer.Exit(STOPPED) from None
    _print_answers(answers, chosen)
    _print_report(method, edit, handle)
    _print_how_to_load(model, output, chosen[0])


def _warn_of_same_answers(facts: Sequence[Fact]) -> None:
    """Name the facts whose new answer cannot be told from the old one. They are taught anyway."""
    from editbench.types import same_answer_already

    for fact in facts:
        if same := same_answer_already(fact):
            console.say(f"Fact {fact.id!r}: {same} The answers cannot show whether it was taught.")


def _is_saved(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()  # ``Edit.save`` writes it last


@contextmanager
def _new_folder(path: Path) -> Iterator[None]:
    """Make the folder before the work, so that a bad --output is refused at once.

    The folder is removed again if no edit was saved in it.

    Raises:
        RecordError: the folder is not empty, or cannot be made.
    """
    made = make_empty_folder(path)
    try:
        yield
    finally:
        if not _is_saved(path):
            # Saving may have been interrupted before the manifest.
            with suppress(OSError):
                for name in ("edit.safetensors", "records.jsonl"):
                    (path / name).unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()


# --- asking -------------------------------------------------------------------------------------


def _ask(model: LanguageModel, edit: Edit, facts: Sequence[Fact]) -> list[Answer]:
    """Return the model's answer to each fact's prompt, before and after the edit."""
    from editbench.matching import contains

    before = _answers(model, facts)
    with edit.applied(model):
        after = _answers(model, facts)
    return [
        {
            "fact": fact.id,
            "prompt": fact.prompt,
            "target": fact.target,
            "before": old,
            "after": new,
            "now right": contains(new, fact.answers),
        }
        for fact, old, new in zip(facts, before, after, strict=True)
    ]


def _answers(model: LanguageModel, facts: Sequence[Fact]) -> list[str]:
    """Ask as ``compare`` asks for efficacy. The answer to a cloze ends at the end of the line."""
    texts: dict[str, str] = {}
    for form, most in ANSWER_TOKENS.items():
        asked = [fact for fact in facts if fact.form == form]
        if not asked:
            continue
        answers = model.generate_ids(
            [model.prompt_ids(fact.prompt, form) for fact in asked],
            most,
            stop_at_newline=form == "cloze",
            what=f"asking for each {form}",
        )
        for fact, ids in zip(asked, answers, strict=True):
            texts[fact.id] = model.decode(ids).strip()
    return [texts[fact.id] for fact in facts]


# --- printing -----------------------------------------------------------------------------------


def _print_answers(answers: Sequence[Answer], facts: Sequence[Fact]) -> None:
    from editbench.matching import contains

    now = sum(answer["now right"] for answer in answers)
    already = sum(
        contains(answer["before"], fact.answers)
        for answer, fact in zip(answers, facts, strict=True)
    )
    title = f"{now} of {len(answers)} facts answered with their target ({already} before the edit)"
    console.out().print(console.listing(answers, title))


def _print_report(method: str, edit: Edit, model: LanguageModel) -> None:
    """Print the size of the edit, the figures that the method declares, and its warnings."""
    summary = edit.summary(model)
    page = console.out()
    page.print(
        f"{method}: {summary['facts']} facts, {summary['changed_weights']} weights changed by"
        f" {summary['delta_norm']:.3g} (norm).",
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


def _print_how_to_load(model: str, folder: Path, fact: Fact) -> None:
    console.out().print(
        f"Saved in {folder}. Load it again:\n\n"
        "    import editbench\n"
        f"    model = editbench.load_model({model!r})\n"
        f"    with editbench.Edit.load({str(folder)!r}).applied(model):\n"
        f"        print(model.generate({fact.prompt!r}, {fact.form!r}))",
        markup=False,
    )
