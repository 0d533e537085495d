"""``editbench facts``: show what a file of facts would teach, before anything is trained."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import console, panels
from editbench.cli.loading import load
from editbench.cli.options import AsJson, LayoutParts, Precision
from editbench.cli.parsing import pairs
from editbench.records.reading import visible

if TYPE_CHECKING:
    from editbench.run.facts import Item, Note, Report, Row

NO_MODEL = "none"
NAMED = 5
"""How many ids or lines of a note are shown; ``--json`` has them all."""
COMPARED = ("mixsd", "memit", "sft")
"""The methods of ``compare``, unless others are named."""


def facts(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Your facts, with at least prompt and target.",
            rich_help_panel=panels.FACTS,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="The model that is asked what it knows: alias, hub id (owner/name), local folder"
            " or .gguf file. 'none': ask none, which takes a second and leaves out tokens and"
            " known facts.",
            rich_help_panel=panels.MODEL,
        ),
    ] = DEFAULT_MODEL,
    precision: Precision = "auto",
    layout: LayoutParts = [],  # noqa: B006 - Typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Show what a file of facts would teach, before anything is trained.

    Nothing is changed or written. Exit code 0: all can be taught; 1: something must be mended
    first (facts that repeat or contradict each other, records that cannot be read, ...), and it is
    marked in the output; 2: the file or the model cannot be used at all.
    """
    from editbench import progress, registry
    from editbench.run.facts import report

    parts = pairs(layout, "--layout")
    cases, unreadable = registry.get("corpora", "local")().load(file), ()
    with progress.reporting(console.reporter()):
        handle = None if model == NO_MODEL else load(model, precision, parts)
        found = report(cases, handle, unreadable)
    if as_json:
        print(json.dumps({"file": str(file), **found.to_dict()}))
    else:
        options = [] if model == DEFAULT_MODEL else ["--model", model]
        _print(found, file, options)
    if not found.ready:
        raise typer.Exit(1)


# --- printing -----------------------------------------------------------------------------------


def _print(found: Report, file: Path, options: Sequence[str]) -> None:
    page = console.out()
    for line in (*_summary(found, file), *_next(found, file, options), ""):
        # a command may be longer than the line, but must not be broken
        page.print(Text(visible(line)), soft_wrap=line.startswith("  editbench"))
    if found.rows:
        page.print(console.listing([_listed(row) for row in found.rows], "What would be taught"))
    for note in found.notes:
        _print_note(page, note, len(found.rows))


def _summary(found: Report, file: Path) -> Iterator[str]:
    from editbench.run.facts import KINDS

    n = len(found.rows)
    asked = f"asked of {found.model}" if found.model else "asked of no model"
    yield f"{file}: {n} {'fact' if n == 1 else 'facts'}, {asked}."
    if found.model is None:
        yield "Tokens, and what is known already, are left out: both need a model."
    forms = [row.fact.form for row in found.rows]
    sources = [row.subject.source for row in found.rows]
    yield (
        f"Prompts: {forms.count('cloze')} to be continued, {forms.count('question')} to be answered"
        " (they end with a question mark, or a column 'form' says so)."
    )
    yield (
        f"Subjects: {sources.count('given')} given, {sources.count('rule')} found by rule (a name"
        f" or quotation), {sources.count('last word')} the last word."
    )
    yield ""
    for note in found.notes:
        yield f"{'*' if note.mend else ' '}{note.count:4}  {KINDS[note.kind].label}"
    if found.notes:
        yield ""


def _next(found: Report, file: Path, options: Sequence[str]) -> Iterator[str]:
    """Yield what to do next, with the commands."""
    if not found.ready:
        yield "Mend what is marked with * first; it is listed below. Then:"
    else:
        yield "All of it can be taught. Next:"
    name = str(file)
    if found.note("no_paraphrases").items or found.note("no_neighborhoods").items:
        drafts = file.with_name(f"{file.stem}-probes.jsonl")
        command = ["editbench", "facts", name, "--write-probes", str(drafts), *options]
        yield f"  {shlex.join(command)}"
        yield "drafts paraphrases and neighbors, without which a table shows efficacy alone."
    if found.methods != COMPARED:
        options = ["--methods", ",".join(found.methods), *options]
    yield f"  {shlex.join(['editbench', 'compare', '--facts', name, *options])}"


def _listed(row: Row) -> dict[str, object]:
    """Return a fact as a row of the table; the keys are the headings."""
    fact, subject, heard = row.fact, row.subject, row.heard
    source = subject.source + ("?" if subject.doubt else "")
    shown: dict[str, object] = {
        "fact": fact.id,
        "prompt": fact.prompt,
        "target": fact.target,
        "subject": subject.text if source == "given" else f"{subject.text} ({source})",
        "suits": row.suits,
    }
    if heard is not None:
        shown["tokens"] = f"{heard.prompt_tokens}+{heard.target_tokens}"
        shown["the model says"] = "" if heard.answer is None else first_line(heard.answer)
        shown["known"] = heard.known
        shown["p"] = "" if heard.probability is None else f"{heard.probability:.2f}"
    return console.shortened(shown)


def first_line(answer: str) -> str:
    """Return the beginning of an answer, for a table."""
    return answer.split("\n")[0][:40]


def _print_note(page: Console, note: Note, n: int) -> None:
    """Print what a note means and which facts it is about, the first ones by name."""
    from editbench.run.facts import KINDS

    kind = KINDS[note.kind]
    mark = "* " if note.mend else ""
    page.print()
    page.print(Text(f"{mark}{note.count} {kind.label}", style="bold"))
    page.print(Text(kind.advice))
    for line in _lines(note.items, n):
        page.print(Padding(Text(visible(line)), (0, 0, 0, 2)))


def _lines(items: Sequence[Item], n: int) -> Iterator[str]:
    """Yield the items, one in a line; ids without a detail together."""
    if all(not item.detail for item in items):
        names = [name for item in items for name in item.facts]
        yield "all facts" if len(names) == n > NAMED else _listed_names(names)
        return
    for item in items[:NAMED]:
        names = _listed_names(item.facts)
        yield f"{names}: {item.detail}" if names else item.detail
    if len(items) > NAMED:
        yield f"and {len(items) - NAMED} more"


def _listed_names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
