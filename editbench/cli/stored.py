"""The commands that read stored runs: show, verify, leaderboard, plot."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from editbench.cli.tools import AsJson, load_handle, tell_cell
from editbench.errors import OptionError, RecordError


def show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    method: Annotated[
        str | None, typer.Argument(help="With --failures: of this method only.")
    ] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="The probes that failed: of METHOD, else of all.")
    ] = False,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="METHOD METHOD",
            help="The probes and samples that two methods score differently.",
        ),
    ] = None,
    case: Annotated[
        str | None, typer.Option(metavar="ID", help="All about one case, across the methods.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write the failures as one page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The table of a stored run, or the texts behind it."""
    from editbench.records.reading import load_run

    if failures + sum(what is not None for what in (diff, case, html)) > 1:
        raise OptionError(
            "--failures, --diff, --case and --html show different things. Give one of them."
        )
    if method is not None and not failures:
        raise OptionError(f"A method ({method!r}) goes with --failures only.")
    if html is not None and as_json:
        raise OptionError("--html writes a page, which is no JSON. Leave --json out.")
    if html is not None:
        print(write(failures_page(run), html))
    elif failures or diff or case is not None:
        _print_texts(run, method, failures, diff, case, as_json)
    else:
        _, summaries = load_run(run)
        print_table(run, summaries, as_json)


def verify(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    rerun: Annotated[
        int,
        typer.Option(metavar="K", help="Compute so many cells anew, drawn at random; 0 for none."),
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Recompute a run's numbers from its records, and some of its cells from nothing; exit 1 where something differs."""
    from editbench import progress
    from editbench.cli import console
    from editbench.files import jsonable
    from editbench.leaderboard.markdown import render
    from editbench.run import verify as checking

    with progress.reporting(console.reporter()):
        report = checking.verify(
            run, rerun, seed, load_handle, tell_cell, lambda run: render([run], run / "README.md")
        )
    if as_json:
        print(json.dumps(jsonable(report), indent=2))
    else:
        page = console.out()
        if report.differences:
            page.print(
                console.listing(list(map(console.shortened, report.differences)), "What differs")
            )
        for line in report.words():
            page.print(line, markup=False)
    if report.differences:
        raise typer.Exit(1)


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The markdown file to write.")],
) -> None:
    """Render stored runs to one markdown page."""
    command = shlex.join(["editbench", "leaderboard", *map(str, runs), "-o", str(output)])
    print(write_page(runs, output, command))


def plot(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one model, corpus and slice.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="FILE.png; FILE.svg is written beside it.")
    ],
    over_facts: Annotated[
        bool, typer.Option("--over-facts", help="One run with --curve: scores by number of facts.")
    ] = False,
) -> None:
    """Draw stored runs, such as sweeps: what is memorized against what is retained."""
    if output.suffix != ".png":
        raise OptionError(
            f"--output {output} is no .png file. Name one; the .svg is written beside it."
        )
    if over_facts and len(runs) > 1:
        raise OptionError(f"--over-facts draws one run; {len(runs)} are given.")
    print(draw_over_facts(runs[0], output) if over_facts else draw_trade_off(runs, output))


def print_table(folder: Path, summaries: list[dict[str, Any]], as_json: bool) -> None:
    from editbench.cli import console
    from editbench.files import jsonable
    from editbench.leaderboard import details
    from editbench.leaderboard.comparisons import PROTOCOLS, RETENTION, items, judge
    from editbench.leaderboard.rows import diagnostics, has, rivals, rows, setting
    from editbench.records.reading import heading, not_asked

    ranked = rows(summaries)
    found = {summary["key"]: items(folder, summary) for summary in summaries}
    verdicts = {part: judge(rivals(ranked), found, part) for part in ("generation", RETENTION)}
    lost = not_asked(folder)
    if as_json:
        scored = {
            name: [s for s in summaries if has(s, name)]
            for name in PROTOCOLS
            if name != "generation"
        }
        others = {name: rows(found, name) for name, found in scored.items() if found}
        whole = {"run": str(folder), "rows": ranked, "comparisons": verdicts, "protocols": others}
        whole |= {"not_asked": lost} if lost else {}
        print(json.dumps(jsonable(whole), indent=2))
        return
    one = setting(summaries[0])
    about = (
        f"{one['model']} ({one['precision']}), {one['corpus']} {one['slice']} slice, "
        f"n={one['n']}, regime {one['regime']}, seed {one['seed']}, protocol generation, 95% intervals"
    )
    page = console.out()
    page.print(about, style="bold", markup=False)
    scores, *others = console.results(ranked, *verdicts.values())
    console.fit(page, scores)
    for table in (scores, *others):
        page.print(table)
    labels = {row["key"]: row["label"] for row in ranked}
    if found := diagnostics(summaries, labels):
        page.print(console.listing(found, "Diagnostics; definitions in eval/diagnostics.py"))
    if found := details.curve(summaries, labels, "generation"):
        page.print(console.listing(found, "Curve over facts; scores of those injected by then"))
    for row in ranked:
        if row["status"] != "done":
            console.say(f"{row['method']}: {row['status']}: {row['note']}")
        for warning in row["warnings"]:
            console.say(f"{row['method']}: {warning}")
    for task, why in lost.items():
        console.say(f"{heading(task)}: not asked: {why}")


def _print_texts(
    run: Path,
    method: str | None,
    failures: bool,
    diff: tuple[str, str] | None,
    case: str | None,
    as_json: bool,
) -> None:
    from editbench.cli import console
    from editbench.leaderboard import failures as texts

    if failures:
        found: Any = texts.failures(run, method)
        tables = {
            f"{len(found)} probes that failed; neighborhood, distracted: where the base's answer is not kept": found
        }
    elif diff:
        found = texts.differences(run, *diff)
        tables = {
            f"{len(found)} probes and samples that {diff[0]} and {diff[1]} score differently": found
        }
    else:
        found = texts.case(run, case)
        notes = {}
        for note in found["edit_records"]:
            notes.setdefault(f"what {note['method']} noted on it", []).append(note)
        tables = {f"case {case}": [found["fact"]], "answers": found["answers"], **notes}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    page = console.out()
    for title, records in tables.items():
        page.print(console.listing(list(map(console.shortened, records)), title))


def failures_page(run: Path) -> str:
    from editbench.leaderboard.failures import page

    return page(run)


def draw_trade_off(runs: list[Path], output: Path) -> str:
    """Draws memorization against retention, and names the files."""
    from editbench.leaderboard.plots import trade_off

    return _drawn(trade_off, runs, output)


def draw_over_facts(run: Path, output: Path) -> str:
    """Draws the curve of ``run``, and names the files."""
    from editbench.leaderboard.curves import over_facts

    return _drawn(over_facts, run, output)


def _drawn(draw: Callable[[Any, Path], list[Path]], runs: Path | list[Path], output: Path) -> str:
    try:
        return " and ".join(map(str, draw(runs, output)))
    except OSError as error:
        raise RecordError(
            f"{output} cannot be written: {error.strerror}. Choose another file."
        ) from error


def write_page(runs: list[Path], output: Path, command: str | None) -> Path:
    from editbench.leaderboard.markdown import render

    return write(render(runs, output, command), output)


def write(text: str, output: Path) -> Path:
    """Writes ``text`` as a whole, or leaves what was there."""
    temporary = (
        output.parent / f".tmp-{output.name}-{os.getpid()}"
    )  # cleared with the run's own when it is resumed
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", errors="replace")
        os.replace(temporary, output)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RecordError(
            f"{output} cannot be written: {error.strerror}. Choose another file."
        ) from error
    return output
