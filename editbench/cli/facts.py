"""``editbench facts``: show what a file of facts would teach, before anything is trained."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import console, panels
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
from editbench.errors import listed
from editbench.records.reading import visible

if TYPE_CHECKING:
    from editbench.models import LanguageModel
    from editbench.run.drafts import Drafts
    from editbench.run.facts import Item, Note, Report, Row
    from editbench.types import Case

NO_MODEL = "none"
COMPARED = ("mixsd", "memit", "sft")
"""The methods of ``compare``, unless others are named."""
FORMS = {
    "cloze": "to be continued",
    "question": "to be answered (a question mark, or a column 'form', says so)",
}
SOURCES = {
    "given": "given",
    "rule": "found by rule (a quotation or the longest name)",
    "last word": "the last word, for want of a name",
}
LISTED = 100
"""Most facts in the table; ``--json`` has them all."""
SHOWN = 32
"""Most characters of an answer in the table."""
NAMED, TO_MEND = 5, 50
"""Most ids in a line, and most lines of a note; more of what must be mended. ``--json`` has all."""


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
            help="Draft paraphrases and neighborhood prompts for the facts that have none, and"
            " write all to OUT (.csv, .tsv, .xlsx, .json or .jsonl), to be read and mended.",
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
    cases, bad = _read(file, columns)

    from editbench import progress
    from editbench.run.facts import report

    with progress.reporting(console.reporter()):
        handle = None if model == NO_MODEL else load(model, precision, parts, how)
        found = report(cases, handle, bad)
        drafts = None
        if write_probes and handle and found.ready:
            drafts = _draft(handle, cases, write_probes)
    commands = _Commands(file, columns, model, given, parts, write_probes)
    if as_json:
        made = {"drafted": {"file": str(write_probes), **drafts.to_dict()}} if drafts else {}
        print(json.dumps({"file": str(file), **found.to_dict(), **made}))
    elif drafts:
        _print_drafts(drafts, commands, found.methods)
    else:
        _print(found, commands)
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
    from editbench.run.write_facts import write_facts

    drafts = draft(model, cases)
    write_facts(path, drafts.cases)
    return drafts


def _read(file: Path, columns: ColumnOptions) -> tuple[list[Case], tuple[str, ...]]:
    """Return the facts of a file, and a sentence for each record that is none.

    Raises:
        DataError: nothing of the file can be read.
    """
    from editbench import registry
    from editbench.types import BadRecordsError

    corpus = registry.get("corpora", "local")()
    corpus.columns = columns.columns
    try:
        return corpus.load(file), ()
    except BadRecordsError as error:
        return error.cases, error.problems
    finally:
        for remark in corpus.remarks:
            console.say(remark)


@dataclass(frozen=True)
class _Commands:
    """Writes commands about the same file and model."""

    file: Path
    columns: ColumnOptions
    model: str
    given: Mapping[str, str]
    """Options of the model, each with its value; ``auto`` was not given."""
    layout: Mapping[str, str]
    written: Path | None = None
    """The file with drafted probes, if the user named one."""

    @property
    def drafts(self) -> Path:
        """A file for the facts with drafted probes."""
        return self.written or self.file.with_name(f"{self.file.name.partition('.')[0]}-probes.csv")

    def draft(self) -> str:
        """Return the command that drafts probes."""
        where = [str(self.file), *self._columns(), "--write-probes", str(self.drafts)]
        return shlex.join(["editbench", "facts", *where, *self._model()])

    def compare(self, methods: Sequence[str], drafted: bool) -> str:
        """Return the command that compares methods on the facts, with drafted probes or without."""
        # The drafts have the usual names of columns.
        where = [str(self.drafts)] if drafted else [str(self.file), *self._columns()]
        chosen = [] if tuple(methods) == COMPARED else ["--methods", ",".join(methods)]
        return shlex.join(["editbench", "compare", "--facts", *where, *chosen, *self._model()])

    def _columns(self) -> Iterator[str]:
        for name, column in self.columns.columns.items():
            yield from (f"--{name}-column", column)

    def _model(self) -> Iterator[str]:
        if self.model not in (NO_MODEL, DEFAULT_MODEL):
            yield from ("--model", self.model)
        for name, value in self.given.items():
            if value != "auto":
                yield from (name, value)
        for part, path in self.layout.items():
            yield from ("--layout", f"{part}={path}")


# --- printing -----------------------------------------------------------------------------------


def _print(found: Report, commands: _Commands) -> None:
    page = console.out()
    for line in (*_summary(found, commands.file), *_next(found, commands)):
        # A command may be longer than the line; a line end inside would break it.
        page.print(Text(visible(line)), soft_wrap=line.startswith("  editbench"))
    if found.rows:
        page.print()
        page.print(_table(found.rows))
        if legend := _legend(found):
            page.print(Text(legend), style="dim")
    for note in found.notes:
        _print_note(page, note, len(found.rows))


def _print_drafts(drafts: Drafts, commands: _Commands, methods: Sequence[str]) -> None:
    """Print what was drafted, what could not be, and what to do next."""
    page = console.out()
    made = drafts.to_dict()
    lines = [
        f"{commands.drafts}: {len(drafts.cases)} facts, with {made['paraphrases']} drafted"
        f" paraphrases and {made['neighborhoods']} drafted neighborhood prompts.",
        "They are drafts. Read them, mend them, and empty the column 'drafted' of the facts whose"
        " probes you have checked: scores from drafted probes are marked in every table.",
    ]
    if drafts.missing:
        lines += [
            f"Fewer than two neighbors: {listed(drafts.missing, NAMED)}. The model is not sure"
            " enough of its answers about other subjects there. Write some yourself, as"
            " PROMPT => ANSWER.",
        ]
    for line in (*lines, "Next:", f"  {commands.compare(methods, True)}"):
        page.print(Text(visible(line)), soft_wrap=line.startswith("  editbench"))


def _summary(found: Report, file: Path) -> Iterator[str]:
    from editbench.run.facts import KINDS

    n = len(found.rows)
    asked = f"asked of {found.model}" if found.model else "asked of no model"
    yield f"{file}: {n} {'fact' if n == 1 else 'facts'}, {asked}."
    if found.model is None:
        yield "Tokens, and what is known already, are left out: both need a model."
    forms = Counter(FORMS[row.fact.form] for row in found.rows)
    sources = Counter(SOURCES[row.subject.source] for row in found.rows)
    for title, counted in (("Prompts", forms), ("Subjects", sources)):
        if counted:
            yield f"{title}: {', '.join(f'{n} {what}' for what, n in counted.most_common())}."
    if found.no_weight_editor:
        yield f"Methods: trainers (mixsd, sft); no weight editor. {found.no_weight_editor}"
    bulk = [row.suits for row in found.rows].count("trainer")
    if bulk and not found.no_weight_editor:
        yield (
            f"Methods: any for {n - bulk} of them; for {bulk} a trainer (mixsd, sft) rather than a"
            " weight editor, marked 'trainer' below."
        )
    yield ""
    for note in found.notes:
        yield f"{'*' if note.mend else ' '}{note.count:4}  {KINDS[note.kind].label}"
    if found.notes:
        yield ""


def _next(found: Report, commands: _Commands) -> Iterator[str]:
    """Yield what to do next, with the commands."""
    missing = bool(found.note("no_paraphrases").items or found.note("no_neighborhoods").items)
    if not found.ready:
        yield "Mend what is marked with * first (listed at the end). Then:"
    else:
        yield "All of it can be taught. Next:"
    if missing:
        yield f"  {commands.draft()}"
        yield (
            "drafts paraphrases and neighborhood prompts; without them a table shows efficacy"
            " alone. Read and mend that file, and then:"
        )
    yield f"  {commands.compare(found.methods, missing)}"


def _table(rows: Sequence[Row]) -> Table:
    """Return the first facts as a table whose rows have two or three lines in 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", row_styles=("", "dim"))
    table.add_column("fact", overflow="fold", max_width=16)
    table.add_column("prompt\n→ target", ratio=9, overflow="fold")
    table.add_column("subject", ratio=5, overflow="fold")
    if rows[0].heard is not None:
        table.add_column("tokens\np", no_wrap=True)
        table.add_column("the model\nsays now", ratio=6, overflow="fold")
    for row in rows[:LISTED]:
        table.add_row(*(Text("\n".join(map(console.cut, cell))) for cell in _cells(row)))
    return table


def _legend(found: Report) -> str:
    """Return how many facts the table leaves out, and what the signs in it mean."""
    rest, rows = len(found.rows) - LISTED, found.rows
    parts = [
        (rest > 0, f"And {rest} more; --json has them all."),
        (found.model is not None, "tokens: of prompt and target. p: probability of the target."),
        (any(row.subject.source != "given" for row in rows), "(rule): found by rule."),
        (any(row.subject.doubt for row in rows), "?: doubtful."),
        (any(row.suits == "trainer" for row in rows), "trainer: rather than a weight editor."),
    ]
    return " ".join(text for applies, text in parts if applies)


def _cells(row: Row) -> Iterator[tuple[str, ...]]:
    """Yield the lines of each cell."""
    fact, subject, heard = row.fact, row.subject, row.heard
    yield (fact.id, "trainer") if row.suits == "trainer" else (fact.id,)
    yield fact.prompt, f"→ {fact.target}"
    how = "" if subject.source == "given" else f" ({subject.source}{'?' if subject.doubt else ''})"
    yield (subject.text + how,)
    if heard is not None:
        chance = "" if heard.probability is None else f"{heard.probability:.2f}"
        yield f"{heard.prompt_tokens}+{heard.target_tokens}", chance
        answer = " ".join((heard.answer or "").split())
        if len(answer) > SHOWN:  # not between words, as there may be none
            answer = f"{answer[: SHOWN - 1].rstrip()}…"
        yield (f"{answer} (known)",) if heard.known else (answer,)


def _print_note(page: Console, note: Note, n: int) -> None:
    """Print what a note means, and the first of the facts that it is about."""
    from editbench.run.facts import KINDS

    kind = KINDS[note.kind]
    page.print()
    page.print(Text(f"{'* ' if note.mend else ''}{note.count} {kind.label}", style="bold"))
    page.print(Text(kind.advice))
    for line in _lines(note.items, n, TO_MEND if note.mend else NAMED):
        page.print(Padding(Text(console.cut(line)), (0, 0, 0, 2), expand=False))


def _lines(items: Sequence[Item], n: int, most: int) -> Iterator[str]:
    """Yield the items, one in a line; ids without a detail together."""
    if all(not item.detail for item in items):
        names = [name for item in items for name in item.facts]
        yield "all facts" if len(names) == n > NAMED else listed(names, NAMED)
        return
    for item in items[:most]:
        yield f"{listed(item.facts, NAMED)}: {item.detail}" if item.facts else item.detail
    if len(items) > most:
        yield f"and {len(items) - most} more"
