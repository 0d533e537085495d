"""What ``editbench facts`` prints: its report, what it drafted, and the commands that come next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import console
from editbench.cli.options import ColumnOptions
from editbench.errors import listed
from editbench.records.reading import visible

if TYPE_CHECKING:
    from editbench.run.drafts import Drafts
    from editbench.run.facts import Item, Note, Report, Row

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
    "last word": "taken from the end of the prompt, for want of a name",
}
LISTED = 100
"""Most facts in the table; ``--json`` has them all."""
SHOWN, SPARED = 32, 12
"""Characters of an answer in the table, and how many more are not worth a cut."""
NAMED, LINES, TO_MEND = 5, 15, 50
"""Most ids in a line, most lines of a note, and of one that must be mended. ``--json`` has all."""


@dataclass(frozen=True)
class Commands:
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


def print_report(found: Report, commands: Commands, places: Mapping[str, str]) -> None:
    """Print the report: a summary, what must be mended, what is next, the facts, other notes.

    Args:
        places: where each fact stands in the file, by its id.
    """
    page = console.out()
    n = len(found.rows)
    _print_lines(page, _summary(found, commands.file))
    for note in found.notes:
        if note.mend:
            _print_note(page, note, n, places)
            page.print()
    _print_lines(page, _next(found, commands))
    if found.rows:
        page.print()
        page.print(_table(found.rows, places))
        if legend := _legend(found):
            page.print(Text(legend), style="dim")
    for note in found.notes:
        # What holds for all facts is in the summary.
        if not note.mend and not (note.count == n > NAMED and _without_details(note.items)):
            page.print()
            _print_note(page, note, n, places)


def _print_lines(page: Console, lines: Iterable[str]) -> None:
    for line in lines:
        # A command may be longer than the line; a line end inside would break it.
        page.print(Text(visible(line)), soft_wrap=line.startswith("  editbench"))


def print_drafts(drafts: Drafts, commands: Commands, found: Report) -> None:
    """Print what was drafted, what could not be, and what to do next."""
    made = drafts.to_dict()
    counts = [
        (len(drafts.cases), "fact"),
        (made["paraphrases"], "drafted paraphrase"),
        (made["neighborhoods"], "drafted neighborhood prompt"),
    ]
    facts, paraphrases, neighbors = (f"{n} {what}{'s' * (n != 1)}" for n, what in counts)
    lines = [f"{commands.drafts}: {facts}, with {paraphrases} and {neighbors}."]
    if made["paraphrases"]:
        lines.append(
            "A drafted paraphrase is the fact's own prompt behind a lead-in, the same words and no"
            " rewording. Write at least one of your own for each fact; a table cannot show"
            " otherwise whether the fact is known in other words."
        )
    lines.append(
        "They are drafts. Read them, mend them, and empty the column 'drafted' of the facts whose"
        " probes you have checked: scores from drafted probes are marked in every table."
    )
    if any(row.fact.subject is None for row in found.rows):
        doubtful = [name for item in found.note("doubtful_subject").items for name in item.facts]
        doubt = f" {len(doubtful)} of them may be wrong: {listed(doubtful, LINES)}."
        lines.append(
            "The column 'subject' has the subjects that were found, where none was given. Read"
            f" them as well.{doubt if doubtful else ''}"
        )
    if drafts.missing:
        lines += [
            f"Fewer than two neighbors: {listed(drafts.missing, NAMED)}. The model is not sure"
            " enough of its answers about other subjects there. Write some yourself, as"
            " PROMPT => ANSWER.",
        ]
    methods = found.with_subjects().methods
    _print_lines(console.out(), (*lines, "Next:", f"  {commands.compare(methods, True)}"))


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


def _next(found: Report, commands: Commands) -> Iterator[str]:
    """Yield what to do next, with the commands."""
    missing = bool(found.note("no_paraphrases").items or found.note("no_neighborhoods").items)
    if not found.ready:
        yield "Mend what is marked with * first. Then:"
    else:
        yield "All of it can be taught. Next:"
    if missing:
        yield f"  {commands.draft()}"
        yield (
            "drafts prompts with a lead-in and neighborhood prompts, and fills in the subjects;"
            " without probes a table shows efficacy alone. Read and mend that file, write"
            " paraphrases of your own, and then:"
        )
    # The drafts give all subjects, by which memit+mixsd divides the facts.
    methods = (found.with_subjects() if missing else found).methods
    yield f"  {commands.compare(methods, missing)}"


def _table(rows: Sequence[Row], places: Mapping[str, str]) -> Table:
    """Return the first facts as a table whose rows have two or three lines in 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", row_styles=("", "dim"))
    table.add_column("fact", overflow="fold", max_width=16)
    table.add_column("prompt\n→ target", ratio=9, overflow="fold")
    table.add_column("subject", ratio=5, overflow="fold")
    if rows[0].heard is not None:
        table.add_column("tokens\np", no_wrap=True)
        table.add_column("the model\nsays now", ratio=6, overflow="fold")
    for row in rows[:LISTED]:
        table.add_row(*(Text("\n".join(map(console.cut, cell))) for cell in _cells(row, places)))
    return table


def _legend(found: Report) -> str:
    """Return how many facts the table leaves out, and what the signs in it mean."""
    rest, rows = len(found.rows) - LISTED, found.rows
    parts = [
        (rest > 0, f"And {rest} more; --json has them all."),
        (found.model is not None, "tokens: of prompt and target. p: probability of the target."),
        (any(row.subject.source == "rule" for row in rows), "(rule): found by rule."),
        (any(row.subject.doubt for row in rows), "?: doubtful."),
        (any(row.suits == "trainer" for row in rows), "trainer: rather than a weight editor."),
    ]
    return " ".join(text for applies, text in parts if applies)


def _cells(row: Row, places: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of each cell."""
    fact, subject, heard = row.fact, row.subject, row.heard
    about = (places.get(fact.id, ""), "trainer" * (row.suits == "trainer"))
    yield (fact.id, *filter(None, about))
    yield fact.prompt, f"→ {fact.target}"
    how = "" if subject.source == "given" else f" ({subject.source}{'?' if subject.doubt else ''})"
    yield (subject.text + how,)
    if heard is not None:
        chance = "" if heard.probability is None else f"{heard.probability:.2f}"
        yield f"{heard.prompt_tokens}+{heard.target_tokens}", chance
        answer = " ".join((heard.answer or "").split())
        if len(answer) > SHOWN + SPARED:  # not between words, as there may be none
            answer = f"{answer[: SHOWN - 1].rstrip()}…"
        yield (f"{answer} (known)",) if heard.known else (answer,)


def _print_note(page: Console, note: Note, n: int, places: Mapping[str, str]) -> None:
    """Print what a note means, and the first of the facts that it is about."""
    from editbench.run.facts import KINDS

    kind = KINDS[note.kind]
    page.print(Text(f"{'* ' if note.mend else ''}{note.count} {kind.label}", style="bold"))
    page.print(Text(kind.advice))
    for line in _lines(note.items, n, TO_MEND if note.mend else LINES, places):
        page.print(Padding(Text(console.cut(line)), (0, 0, 0, 2), expand=False))


def _without_details(items: Sequence[Item]) -> bool:
    return not any(item.detail for item in items)


def _lines(items: Sequence[Item], n: int, most: int, places: Mapping[str, str]) -> Iterator[str]:
    """Yield the items, one in a line; ids without a detail together."""
    if _without_details(items):
        names = [name for item in items for name in item.facts]
        yield "all facts" if len(names) == n > NAMED else listed(names, NAMED)
        return
    for item in items[:most]:
        # "facts-8 (row 9)": the header makes the third fact of a sheet its fourth row.
        names = [f"{name} ({places[name]})" if name in places else name for name in item.facts]
        yield f"{listed(names, NAMED)}: {item.detail}" if names else item.detail
    if len(items) > most:
        yield f"and {len(items) - most} more"
