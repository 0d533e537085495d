"""Check a cell by what is stored: its digests, its key, and its numbers against its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from editbench.errors import RecordError
from editbench.eval import probes, rescoring
from editbench.files import jsonable
from editbench.records.reading import alteration, heading, read_rows, table_path
from editbench.records.schema import CellSummary, CurvePoint, StoredConfig
from editbench.rows import ProbeRow, SampleRow, ScoreRow
from editbench.run import evaluators, regimes, tune
from editbench.run.keys import code_digest, key_of
from editbench.run.regimes import Point
from editbench.run.scores import curve_scores, retention_scores, right_after_scores
from editbench.run.verify.comparing import ALWAYS, Row, compare, is_same, place, words
from editbench.run.verify.report import Report
from editbench.slices import replaced
from editbench.types import Case


def asked_twice(summary: CellSummary) -> bool:
    """Return whether the cell was computed by code that asks the facts of a sequence twice."""
    return summary.get("versions", {}).get("regime", 0) >= regimes.ASKED_TWICE


def note_code(summaries: Sequence[CellSummary], report: Report) -> None:
    """Note the cells that other code computed, and those from before digests or versions."""
    code_here = code_digest()
    reasons: dict[str, list[str]] = {}
    for summary in summaries:
        made = summary.get("environment") or {}
        code, commit = made.get("code"), made.get("commit")
        if code != code_here:
            there = f"{code or 'unknown'}, commit {commit or 'unknown'}; here {code_here}"
            reason = f"computed by other code ({there}), which may give other scores"
            reasons.setdefault(reason, []).append(summary["method"])
        if "digest" not in summary:
            reason = "from before digests were stored, so only --rerun notices a changed text"
            reasons.setdefault(reason, []).append(summary["method"])
        elif "versions" not in summary:
            reason = "from before versions were stored, so the key cannot be computed"
            reasons.setdefault(reason, []).append(summary["method"])
    report.notes += [f"{', '.join(methods)}: {reason}." for reason, methods in reasons.items()]


def check_digests(run: Path, summary: CellSummary, report: Report) -> None:
    """Check that the summary and the tables are as they were written.

    Raises:
        RecordError: a table cannot be read.
    """
    key = summary["key"]
    if how := alteration(summary):
        report.differ(key, f"digest of summary.json: {how}", summary.get("digest"), None)
    for name, stored in summary.get("tables", {}).items():
        file = table_path(run, key, name)
        try:
            now = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise RecordError(f"{file} cannot be read: {error.strerror}.") from error
        if now != stored:
            what = f"digest of {name}.parquet: it was changed after it was written"
            report.differ(key, what, stored, now)


def check_key(summary: CellSummary, config: StoredConfig, report: Report) -> None:
    """Check that the key is the hash of the options and conditions, and which search tuned them.

    Raises:
        RecordError: the key cannot be computed.
    """
    # Without versions no key can be computed, and an altered summary is reported already.
    if "versions" not in summary or alteration(summary):
        return
    key = summary["key"]
    try:
        computed = key_of(summary, config)
    except (AttributeError, KeyError, TypeError) as error:
        raise RecordError(
            f"The key of {key} cannot be computed ({type(error).__name__}: {error})."
        ) from error
    if computed != key:
        what = "key: not the hash of the recorded options and conditions"
        report.differ(key, what, key, computed)
    elif (seed := config.get("seed", summary["seed"])) != summary["seed"]:
        # a cell that was copied here from a run with another seed
        report.differ(key, "seed: not that of run.json", summary["seed"], seed)
    tuned = (config.get("tuned") or {}).get(summary["method"])
    if (summary.get("tuned"), summary.get("tuning")) != (tuned is not None, tuned):
        what = "tuned: differs from run.json"
        report.differ(key, what, summary.get("tuning"), tuned)


def check_tuned(run: Path, summaries: Sequence[CellSummary], report: Report) -> None:
    """Check the trials of ``tuned.json``, if there is one, and its choices against the cells."""
    if not (run / "tuned.json").exists():
        return
    record = tune.Tuned.read(run).record
    cells = {summary["method"]: summary for summary in summaries}
    for method, search in record["methods"].items():
        trials: list[tune.Trial] = []
        for trial in search["trials"]:
            name = f"{method}@trial{trial['trial']}"
            # Where one trial is missing, nothing can be said about the choice, so the check ends.
            if name not in cells:
                what = f"tuned.json: {name} has no record"
                report.differ(run.name, what, trial["key"], None)
                return
            cell = cells[name]
            options = {option: cell["options"].get(option) for option in trial["options"]}
            judged = tune.judge(cell, record["retention"])
            trials.append(
                {"trial": trial["trial"], "key": cell["key"], "options": options, **judged}
            )
        # As JSON on both sides: the file has null for NaN, and lists for tuples.
        what = f"tuned.json, {method}"
        for before, after in zip(search["trials"], jsonable(trials), strict=True):
            report.numbers += compare(run.name, f"{what}, trials", before, after, report)
        # Earlier versions also chose among trials none of which taught anything.
        best = jsonable(tune.chosen(trials) or (search["chosen"] and tune.highest(trials)))
        report.numbers += compare(run.name, f"{what}, chosen", search["chosen"], best, report)


def check_page(
    run: Path, page: Callable[[Path], str], summaries: Sequence[CellSummary], report: Report
) -> None:
    """Check that the tables and detectable differences in ``README.md`` follow from the records.

    If other code computed a cell, a difference is only noted, since that code may also have
    rendered the page.
    """
    file = run / "README.md"
    if not file.is_file():
        return
    stored, rendered = (
        [line for line in text.splitlines() if line.startswith(("|", "Detectable "))]
        for text in (file.read_text(encoding="utf-8", errors="replace"), page(run))
    )
    if stored == rendered:
        return
    if all((s.get("environment") or {}).get("code") == code_digest() for s in summaries):
        lines = zip_longest(stored, rendered)
        before, after = next((a, b) for a, b in lines if a != b)
        what = "README.md: its tables are not those of the records"
        report.differ(run.name, what, before, after)
    else:
        report.notes.append(
            f"{file}: its tables are not those that this editbench renders from the records."
        )


@dataclass(frozen=True)
class Tables:
    """The rows of a cell, by table."""

    probes: list[ProbeRow]
    retention: list[SampleRow]
    scores: list[ScoreRow]
    curve_probes: list[ProbeRow]
    curve_samples: list[SampleRow]
    right_after: list[ProbeRow]

    @classmethod
    def read(cls, run: Path, summary: CellSummary) -> Tables:
        """Read the tables of a cell, even if they were changed after they were written.

        A cell without evaluators, a curve or a sequence lacks their tables, which then have no
        rows.

        Raises:
            RecordError: a table is missing or corrupt.
        """
        key = summary["key"]
        has = {*ALWAYS, *summary.get("tables", {})}
        return cls(
            read_rows(run, key, "probes", altered=True),
            read_rows(run, key, "retention", altered=True),
            read_rows(run, key, "scores", altered=True) if "scores" in has else [],
            read_rows(run, key, "curve_probes", altered=True) if "curve_probes" in has else [],
            read_rows(run, key, "curve_samples", altered=True) if "curve_samples" in has else [],
            read_rows(run, key, "right_after", altered=True) if "right_after" in has else [],
        )

    def by_name(self) -> dict[str, Sequence[Row]]:
        """Return the rows by the names of the tables."""
        return dict(vars(self))


def check_numbers(
    run: Path,
    summary: CellSummary,
    config: StoredConfig,
    base: CellSummary | None,
    cases: Sequence[Case] | None,
    report: Report,
) -> None:
    """Check a cell's numbers by its rows, the scores of the rows by their texts, and the quotes.

    Without ``cases``, only numbers that do not depend on them are checked.

    Raises:
        RecordError: the rows cannot be read or scored.
    """
    key, tables = summary["key"], Tables.read(run, summary)
    try:
        numbers = _recompute(summary, tables, cases)
        if cases is not None:
            points = _points(summary, tables)
            # The last point of a curve is the cell's own table of probes.
            for asked in (*(point.probes for point in points[:-1]), tables.probes):
                _check_scores(key, "probes", asked, cases, report)
            _check_scores(key, "right_after", tables.right_after, cases, report)
            if asked_twice(summary):
                _check_asked(summary, tables, cases, report)
                _check_chunks(summary, tables.right_after, cases, report)
        _check_samples(summary, config, [*tables.curve_samples, *tables.retention], report)
    # An altered table can hold anything, so scoring its rows can fail in any of these ways.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RecordError(
            f"The rows of {key} cannot be scored ({type(error).__name__}: {error})."
        ) from error
    for name, (stored, computed) in numbers.items():
        report.numbers += compare(key, name, stored, jsonable(computed), report)
    if base is not None:
        there = Tables.read(run, base).by_name()
        for name, rows in tables.by_name().items():
            _check_quotes(key, name, rows, base["key"], there[name], report)


def _recompute(
    summary: CellSummary, tables: Tables, cases: Sequence[Case] | None
) -> dict[str, tuple[object, object]]:
    """Return the stored and the recomputed value of each field that follows from the rows."""
    before = [_unedited(row) for row in tables.retention]
    numbers: dict[str, tuple[object, object]] = {
        "metrics": (summary["metrics"], probes.metrics(tables.probes)),
        "denied": (summary.get("denied", {}), probes.denied_answers(tables.probes)),
        "retention": (summary["retention"], retention_scores(tables.retention, before)),
        "evaluators": (summary.get("evaluators", {}), _evaluated(summary, tables.scores)),
    }
    if asked_twice(summary):
        n = summary["corpus"]["n"]
        twice = right_after_scores(tables.right_after, tables.probes, n)
        numbers["right_after"] = (summary.get("right_after"), twice)
    if cases is not None:
        curve = curve_scores(_points(summary, tables), cases, before)
        numbers["curve"] = (_by_facts(summary.get("curve", [])), _by_facts(curve))
    return numbers


def _by_facts(curve: Sequence[CurvePoint]) -> dict[str, CurvePoint]:
    return {f"{at['facts']} facts": at for at in curve}


def _unedited(row: SampleRow) -> SampleRow:
    """Return a copy of a sample, scored as the unedited model was."""
    before = row.copy()
    before["score"] = row.get("base_score", row["score"])
    return before


def _evaluated(summary: CellSummary, rows: Sequence[ScoreRow]) -> Mapping[str, object]:
    """Return the evaluators' means from their rows, with the stored headings."""
    stored = summary.get("evaluators", {})
    names = summary.get("versions", {}).get("evaluators", {})
    titles = {name: stored[name]["title"] if name in stored else name for name in names}
    base: list[ScoreRow] = [{**row, "score": row.get("base_score", row["score"])} for row in rows]
    return evaluators.summarize(titles, rows, base)


def _points(summary: CellSummary, tables: Tables) -> list[Point]:
    """Return the points of the cell's curve with their rows."""
    counts = [at["facts"] for at in summary.get("curve", [])]
    earlier = [
        Point(
            count,
            [row for row in tables.curve_probes if row.get("facts") == count],
            [row for row in tables.curve_samples if row.get("facts") == count],
        )
        for count in counts[:-1]
    ]
    last = [Point(count, tables.probes, tables.retention) for count in counts[-1:]]
    return earlier + last


def _check_quotes(
    key: str, name: str, rows: Sequence[Row], base: str, said: Sequence[Row], report: Report
) -> None:
    """Check that each ``base_COLUMN`` equals COLUMN in the base's row of the same item.

    Each column adds at most one difference, which names the first row that differs.
    """
    there = {place(row, name): row for row in said}
    quotes = [column for column in (rows[0] if rows else ()) if column.startswith("base_")]
    for column in quotes:
        own = column.removeprefix("base_")
        really = [(row, there.get(place(row, name), {}).get(own)) for row in rows]
        odd = [(row, value) for row, value in really if row[column] != value]
        if odd:
            row, value = odd[0]
            where = f"in {len(odd)} of {len(rows)} rows, the first {words(row, name)}"
            what = f"{name}: {column} is not that of {base} {where}"
            report.differ(key, what, row[column], value)


def _check_asked(
    summary: CellSummary, tables: Tables, cases: Sequence[Case], report: Report
) -> None:
    """Check that all facts of a sequence were asked right after their chunk, the last at the end.

    Of a sequence that was stopped, the facts of the last chunk have no such answers.
    """
    key, stopped = summary["key"], summary["status"] == "stopped"
    counts = [0, *(signs["facts"] for signs in summary.get("trajectory", []))]
    taught = {case.fact.id for case in cases[: counts[-2 if stopped else -1]]}
    at_end = {
        place(row, "probes"): row
        for row in tables.probes
        if row["axis"] in regimes.TWICE and row["case"] in taught
    }
    asked = sorted(place(row, "right_after") for row in tables.right_after)
    if asked != sorted(at_end):
        what = "right_after: not all probes of the facts that were injected"
        report.differ(key, what, len(asked), len(at_end))
    elif not stopped:
        ids = {case.fact.id for case in regimes.chunks(summary["regime"], cases)[-1]}
        last: list[Row] = [row for row in tables.right_after if row["case"] in ids]
        ends = [at_end[place(row, "right_after")] for row in last]
        odd = [row for row, end in zip(last, ends, strict=True) if row["text"] != end["text"]]
        if odd:
            where = f"{len(odd)} of {len(last)} rows, the first {words(odd[0], 'right_after')}"
            what = f"right_after, text: of the last chunk not that of the end in {where}"
            report.differ(key, what, odd[0]["text"], at_end[place(odd[0], "right_after")]["text"])


def _check_chunks(
    summary: CellSummary, rows: Sequence[ProbeRow], cases: Sequence[Case], report: Report
) -> None:
    """Check after how many facts each fact of a sequence was asked, and which facts are replaced.

    Each column adds at most one difference, which names the first row that differs.
    """
    injected, counts = 0, {}
    for chunk in regimes.chunks(summary["regime"], cases):
        injected += len(chunk)
        counts.update({case.fact.id: injected for case in chunk})
    taught = {row["case"] for row in rows}
    gone = replaced([case for case in cases if case.fact.id in taught])
    for column, wanted in (
        ("facts", [counts.get(row["case"]) for row in rows]),
        ("replaced", [row["case"] in gone for row in rows]),
    ):
        stored: list[Row] = list(rows)
        odd = [(row, v) for row, v in zip(stored, wanted, strict=True) if row[column] != v]
        if odd:
            row, value = odd[0]
            where = f"{len(odd)} of {len(rows)} rows, the first {words(row, 'right_after')}"
            what = f"right_after, {column}: not that of the facts' order in {where}"
            report.differ(summary["key"], what, row[column], value)


def _check_scores(
    key: str, name: str, rows: Sequence[ProbeRow], cases: Sequence[Case], report: Report
) -> None:
    """Check the scores of probes in table ``name`` against their texts and log-probabilities.

    Each column adds at most one difference, which names the first row that differs.
    """
    stored: Sequence[Row] = rows
    again: Sequence[Row] = rescoring.rescore(rows, cases)
    for column in dict.fromkeys(column for scores in again for column in scores):
        # An older record lacks columns that this version computes.
        known = [
            (row, scores[column])
            for row, scores in zip(stored, again, strict=True)
            if column in row
        ]
        odd = [(row, score) for row, score in known if not is_same(row[column], score)]
        if odd:
            row, score = odd[0]
            where = f"{len(odd)} of {len(rows)} rows, the first {words(row, name)}"
            what = f"{name}, {column}: not what the text gives in {where}"
            report.differ(key, what, row[column], score)


def _check_samples(
    summary: CellSummary, config: StoredConfig, rows: Sequence[SampleRow], report: Report
) -> None:
    """Check the scores of retention samples against their outputs.

    Each task adds at most one difference, which names the first sample that differs.
    """
    for task in dict.fromkeys(row["task"] for row in rows):
        asked = [row for row in rows if row["task"] == task]
        data = config.get("task_data", {}).get(task)
        stored_hash = summary.get("tasks", {}).get(task)
        again, why = rescoring.rescore_samples(
            task, asked, Path(data) if data else None, stored_hash
        )
        # None: this score cannot be recomputed, and ``why`` says for what reason.
        if taken := again.count(None):
            reason = f"{heading(task)}: {why.rstrip('.')}"
            report.taken[reason] = report.taken.get(reason, 0) + taken
        pairs = zip(asked, again, strict=True)
        odd = [(row, score) for row, score in pairs if score not in (None, row["score"])]
        if odd:
            row, score = odd[0]
            where = f"{len(odd)} of {len(asked)} samples, the first {words(row, 'retention')}"
            what = f"retention, score: not what the output gives in {where}"
            report.differ(summary["key"], what, row["score"], score)
