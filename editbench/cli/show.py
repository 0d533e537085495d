"""``editbench show``: print the table of a stored run, the texts behind it, or a saved edit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editbench.cli import console, ranking
from editbench.cli.edits import is_shown_here, show_artifact
from editbench.cli.options import AsJson
from editbench.cli.output import write_text
from editbench.errors import OptionError, RecordError, listed
from editbench.files import check_output
from editbench.records.reading import visible
from editbench.slices import ALL

if TYPE_CHECKING:
    import pandas

    from editbench.leaderboard.schema import Row, Summary
    from editbench.leaderboard.sections import Sections
    from editbench.records.schema import CellSummary

SHOWN = 3
"""Most methods that a shared warning names."""


def show(
    run: Annotated[
        Path,
        typer.Argument(help="A run folder; or a saved edit, a PEFT adapter or a fine-tuned model."),
    ],
    method: Annotated[
        str | None, typer.Argument(help="With --failures: only those of this method.")
    ] = None,
    failures: Annotated[
        bool,
        typer.Option("--failures", help="List the failed probes of METHOD, or of all methods."),
    ] = False,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="METHOD METHOD",
            help="List the probes and samples that two methods score differently.",
        ),
    ] = None,
    case: Annotated[
        str | None, typer.Option(metavar="ID", help="Show one case in full, across all methods.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write the texts as one page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the table of a stored run, or the texts behind it; or what a saved edit holds."""
    texts = failures + sum(option is not None for option in (diff, case, html))
    if is_shown_here(run):
        if texts or method is not None:
            raise OptionError(
                f"{run} is no run, so there are no texts to list. editbench evaluate {run} makes"
                " one of it."
            )
        show_artifact(run, as_json)
        return
    if texts > 1:
        raise OptionError(
            "--failures, --diff, --case and --html exclude each other. Give one of them."
        )
    if method is not None and not failures:
        raise OptionError(f"METHOD ({method!r}) is only used with --failures.")
    if html is not None:
        if as_json:
            raise OptionError("--html writes a page, not JSON. Leave --json out.")
        check_output(html)
        print(_write_texts(run, html))
    elif failures:
        _print_failures(run, method, as_json)
    elif diff is not None:
        _print_differences(run, diff, as_json)
    elif case is not None:
        _print_case(run, case, as_json)
    else:
        show_run(run, as_json)
    console.say_remarks([run])


# --- the table ----------------------------------------------------------------------------------


def show_run(run: Path, as_json: bool) -> None:
    """Print the tables of a stored run, of one seed or of several.

    Raises:
        RecordError: the run cannot be read.
    """
    from editbench.records.reading import load_run, seeds_of

    if not any((run / name).is_file() for name in ("run.json", "seeds.json")):
        raise RecordError(
            f"{run} holds neither a run nor an edit."
            if run.exists()
            else f"There is no folder {run}."
        )
    if seeds_of(run):
        print_seeds(run, as_json)
    else:
        print_run(run, load_run(run)[1], as_json)


def print_run(folder: Path, summaries: Sequence[CellSummary], as_json: bool) -> None:
    """Print the ranking of the run in ``folder``, with the tables below it."""
    from editbench.leaderboard.comparisons import items
    from editbench.records.reading import not_asked

    tables = {summary["key"]: items(folder, summary) for summary in summaries}
    _print_ranking(folder, summaries, tables, not_asked(folder), as_json)


def print_seeds(folder: Path, as_json: bool) -> None:
    """Print the ranking of a run of several seeds, a row for each method.

    Methods that not all seeds have yet are in a table of their own.

    Raises:
        RecordError: the run cannot be read, or ``as_json`` and it is not finished.
    """
    from editbench.leaderboard.sections import read_sections

    read = read_sections([folder])
    if not as_json:
        print_sections(read)
        return
    if len(read.sections) > 1:
        raise RecordError(
            f"The seeds of {folder} have not finished the same methods, so they have no common "
            "table. Run the same command again to resume it."
        )
    (section,) = read.sections
    _print_ranking(folder, section.summaries, read.tables, section.not_asked, as_json)


def print_sections(read: Sections) -> None:
    """Print the ranking of each section of runs, with the tables below it."""
    for i, section in enumerate(read.sections):
        if i:
            console.out().print()
        _print_ranking(Path(), section.summaries, read.tables, section.not_asked, False)


def _print_ranking(
    folder: Path,
    summaries: Sequence[Summary],
    tables: Mapping[str, pandas.DataFrame | None],
    missing: Mapping[str, str],
    as_json: bool,
) -> None:
    from editbench.leaderboard.comparisons import RETENTION, judge
    from editbench.leaderboard.rows import rivals, rows

    ranked = rows(summaries)
    verdicts = {part: judge(rivals(ranked), tables, part) for part in ("generation", RETENTION)}
    if as_json:
        value = {
            "run": str(folder),
            "rows": ranked,
            "comparisons": verdicts,
            "protocols": _other_protocols(summaries),
        }
        _print_json({**value, **({"not_asked": missing} if missing else {})})
        return
    page = console.out()
    page.print(conditions(summaries[0]), style="bold", markup=False)
    scores, *others = ranking.results(ranked, verdicts["generation"], verdicts[RETENTION])
    twice = ranking.right_after(ranked)
    for table in (scores, *([twice] if twice else []), *others):
        page.print()
        console.fit(page, table)
        page.print(table)
    _print_details(summaries, ranked)
    _say_notes(ranked, missing)


def _other_protocols(summaries: Sequence[Summary]) -> dict[str, Sequence[Row]]:
    """Return the rankings under each protocol, other than generation, that has scores."""
    from editbench.leaderboard.comparisons import PROTOCOLS
    from editbench.leaderboard.rows import has, rows

    scored = {
        protocol: [summary for summary in summaries if has(summary, protocol)]
        for protocol in PROTOCOLS
        if protocol != "generation"
    }
    return {protocol: rows(cells, protocol) for protocol, cells in scored.items() if cells}


def conditions(summary: Summary) -> str:
    """Return the line above a ranking: model, facts, regime, seeds, protocol."""
    from editbench.leaderboard.rows import setting

    shared = setting(summary)
    seed = shared["seed"]
    several = isinstance(seed, list)
    seeds = f"seeds {', '.join(map(str, seed))}" if isinstance(seed, list) else f"seed {seed}"
    if shared["n"] == 0:
        return (
            f"{shared['model']} ({shared['precision']}), no facts: retention alone,"
            f" {seeds}, 95% intervals"
        )
    # Facts of the user's own are one file, which is not parted unless something is tuned on it.
    part = "" if shared["slice"] == ALL else f" {shared['slice']} slice"
    return (
        f"{shared['model']} ({shared['precision']}), {shared['corpus']}{part},"
        f" n={shared['n']}{' a seed' * several}, regime {shared['regime']}, {seeds},"
        f" protocol generation, 95% intervals{', ± standard deviation of the seeds' * several}"
    )


def _print_details(summaries: Sequence[Summary], ranked: Sequence[Row]) -> None:
    """Print the diagnostics and the curve, where the run has them."""
    from editbench.leaderboard import details
    from editbench.leaderboard.rows import diagnostics

    labels = {row["key"]: row["label"] for row in ranked}
    page = console.out()
    if measured := diagnostics(summaries, labels):
        # A method has many figures, and a terminal is narrow: they go down, the methods across.
        turned = [
            {"": title, **{row["method"]: row[title] for row in measured}}
            for title in measured[0]
            if title != "method"
        ]
        table = console.listing(turned, "Diagnostics; definitions in eval/DEFINITIONS.md")
        console.fit(page, table)
        page.print(table)
    if points := details.curve(summaries, labels, "generation"):
        title = "Curve over facts; scores of the facts injected so far"
        table = console.listing(points, title)
        console.fit(page, table)
        page.print(table)


def _say_notes(ranked: Sequence[Row], missing: Mapping[str, str]) -> None:
    from editbench.leaderboard.rows import row_notes
    from editbench.records.reading import heading

    for note in row_notes(ranked):
        console.say(note)
    for row in ranked:
        if row["status"] != "done":
            console.say(f"{row['method']}: {row['status']}: {row['note']}")
    warned: dict[str, list[str]] = {}
    for row in ranked:
        for warning in row["warnings"]:
            warned.setdefault(warning, []).append(row["method"])
    for warning, methods in warned.items():  # several methods may share one
        console.say(f"{listed(dict.fromkeys(methods), SHOWN)}: {warning}")
    for task, reason in missing.items():
        console.say(f"{heading(task)}: not asked: {reason}")


def _print_json(value: object) -> None:
    from editbench.files import jsonable

    print(json.dumps(jsonable(value), indent=2))


# --- the texts ----------------------------------------------------------------------------------


def _write_texts(run: Path, page: Path) -> Path:
    from editbench.leaderboard.website import texts_page

    return write_text(texts_page(run), page)


def _print_failures(run: Path, method: str | None, as_json: bool) -> None:
    from editbench.leaderboard.failures import failures

    probes = failures(run, method)
    title = (
        f"{len(probes)} failed probes; a neighborhood or distracted probe fails where the answer"
        " of the base is not kept"
    )
    _print_records(probes, {title: probes}, as_json)


def _print_differences(run: Path, methods: tuple[str, str], as_json: bool) -> None:
    from editbench.leaderboard.failures import differences

    items = differences(run, *methods)
    title = f"{len(items)} probes and samples that {methods[0]} and {methods[1]} score differently"
    _print_records(items, {title: items}, as_json)


def _print_case(run: Path, name: str, as_json: bool) -> None:
    from editbench.leaderboard import failures

    case = failures.case(run, name)
    tables: dict[str, list[Mapping[str, object]]] = {
        f"case {name}": [case["fact"]],
        "answers": list(case["answers"]),
    }
    for record in case["edit_records"]:
        tables.setdefault(f"{record['method']}'s notes", []).append(record)
    _print_records(case, tables, as_json)


def _print_records(
    value: object, tables: Mapping[str, Sequence[Mapping[str, object]]], as_json: bool
) -> None:
    """Print ``value`` as JSON, or ``tables`` by title; of one without rows the title alone."""
    if as_json:
        print(json.dumps(value, indent=2))
        return
    page = console.out()
    for title, records in tables.items():
        if records:
            page.print(console.listing(list(map(console.shortened, records)), title))
        else:
            page.print(visible(title), style="bold", markup=False)
