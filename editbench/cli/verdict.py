"""Print the verdict on an injection, in at most ten lines; the record has the details."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from editbench.cli import console
from editbench.cli.sheet import wrapped
from editbench.records.reading import visible

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel
    from editbench.run.verdict import Answer, Verdict

LINES = 10
"""Most lines of a verdict at ``WIDTH`` columns."""
WIDTH = 80
ANSWER = 32
"""Most letters of an answer that the verdict quotes."""
SPARED = 12
"""How many more letters are not worth a cut."""
WARNED = 3
"""Lines that are kept free for warnings."""
REMOVED = 10
"""Most facts taken out whose answers are shown."""
LONG_WORD = 12
"""Letters of a long word."""


def print_verdict(verdict: Verdict, edit: Edit, model: LanguageModel, folder: Path) -> None:
    """Print what the edit in ``folder`` did, whether that is as it should be, and what is next."""
    page = console.out()
    width = page.width if page.is_terminal else console.PLAIN_WIDTH
    for line in verdict_lines(verdict, edit, model, folder):
        page.print("\n".join(wrapped(line, width)), markup=False, soft_wrap=True)


def print_removed(removed: Sequence[Answer]) -> None:
    """Print what the model says to the facts that were taken out, with them and without."""
    page = console.out()
    width = page.width if page.is_terminal else console.PLAIN_WIDTH
    for answer in removed[:REMOVED]:
        still = " It still has the target." if answer["right"] else ""
        line = f"Taken out: {answer['fact']}. {_example(answer)}{still}"
        page.print("\n".join(wrapped(visible(line), width)), markup=False, soft_wrap=True)
    if (more := len(removed) - REMOVED) > 0:
        page.print(f"And {more} more were taken out.")


def verdict_lines(verdict: Verdict, edit: Edit, model: LanguageModel, folder: Path) -> list[str]:
    """Return the verdict in lines that take at most ``LINES`` lines at ``WIDTH`` columns.

    What does not fit is left out, the least important first.
    """
    from editbench.stack import parts_of

    *below, new = parts_of(edit)
    n, faults, missed = len(verdict.answers), verdict.faults(), verdict.missed()
    head = [
        f"{verdict.taught} of {n} fact{'s' * (n != 1)} answered with their target"
        f" ({verdict.known} before the edit).",
        *([f"NOT AS IT SHOULD BE. {' '.join(faults)}"] if faults else []),
        *([f"Not taught: {missed}."] if missed else []),
    ]
    if below:
        earlier = len(edit.facts) - len(new.facts)
        head.append(
            f"Facts of {len(below)} earlier edit{'s' * (len(below) > 1)}, which the folder holds,"
            f" too: {verdict.kept} of {earlier} are answered with their target."
        )
    saved = f"Saved in {folder}, with all answers (answers.jsonl) and notes (records.jsonl)."
    size, use = _size(verdict, edit, model), f"Try it: editbench chat {shlex.quote(str(folder))}"
    warnings = list(map(str, new.diagnostics.get("warnings", ())))
    room = LINES - _height([*head, saved])
    kept: list[str] = []
    # One that was not taught, else the first.
    shown = next((each for each in verdict.answers if not each["right"]), verdict.answers[0])
    for line in (size, use, _example(shown)):
        if _height([*kept, line]) + min(WARNED, _height(warnings)) <= room:
            kept.append(line)
    warned = _warned(warnings, room - _height(kept))
    last = [line for line in kept if line == use]
    more = [line for line in kept if line != use]
    return list(map(visible, [*head, *more, *warned, saved, *last]))


def _height(lines: Sequence[str]) -> int:
    return sum(len(wrapped(line, WIDTH)) for line in lines)


def _example(shown: Answer) -> str:
    """Return one fact's answers."""
    before, after = _quoted(shown["before"]), _quoted(shown["after"])
    prompt = _quoted(shown["prompt"], end=True)
    return f"{prompt}: {before} before, now {after}."


def _quoted(text: str, end: bool = False) -> str:
    """Return a text in quotes on one line, without its ``end`` or its beginning if it is long."""
    words = " ".join(text.split())
    if len(words) > ANSWER + SPARED:
        words = f"…{words[-ANSWER:]}" if end else f"{words[:ANSWER]}…"
    return f"'{words}'"


def _size(verdict: Verdict, edit: Edit, model: LanguageModel) -> str:
    from editbench.stack import parts_of

    new, summary = parts_of(edit)[-1], edit.summary(model)
    count = summary["changed_weights"]
    parts = [
        f"{count} weight{'s' * (count != 1)} changed, by {summary['delta_norm']:.3g} (norm)",
        *figure_texts(new.method, new.diagnostics),
    ]
    if verdict.perplexity is not None:
        growth = f"{verdict.perplexity:.2f} times that of the base"
        parts.append(f"perplexity of the model's own text {growth}")
    return f"{new.method}: {'; '.join(parts)}."


def _warned(warnings: list[str], room: int) -> list[str]:
    """Return as many warnings as ``room`` lines hold, and how many more the record has."""
    lines: list[str] = []
    for i, warning in enumerate(warnings):
        rest = len(warnings) - i
        if _height([*lines, warning]) + (rest > 1) > room:
            what = f"{rest} {'more ' * bool(lines)}warning{'s' * (rest > 1)} in manifest.json: "
            # At a word's end a line may be left with as many free columns as a word is long.
            most = (WIDTH - LONG_WORD) * max(1, room - _height(lines)) - len(what)
            return [*lines, what + _cut(warning, most)]
        lines.append(warning)
    return lines


def _cut(warning: str, most: int) -> str:
    return warning if len(warning) <= most else f"{warning[:most].rsplit(' ', 1)[0]} …"


def figure_texts(method: str, report: Mapping[str, object]) -> list[str]:
    """Return those figures of ``method`` that are shown and that its report has, in words.

    A pair of methods has a text for each part; the report holds each part's under its name.
    """
    from editbench import registry

    parts = method.split("+")
    texts = []
    for part in parts:
        values = report if len(parts) == 1 else report.get(part)
        if not isinstance(values, Mapping):
            continue
        shown = [
            f"{_figure(values[name])} {figure.shown}"
            for name, figure in registry.get("methods", part).figures.items()
            if figure.shown is not None and values.get(name) is not None
        ]
        if shown:
            texts.append(f"{f'{part} ' * (len(parts) > 1)}{', '.join(shown)}")
    return texts


def _figure(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
