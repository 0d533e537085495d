"""Whether a stored run says the truth: its numbers computed again from its rows, and some of its cells from nothing.

From the rows: the scores of the probes by their texts, tokens and log-probabilities; those of the retention samples by their
outputs, where a task's data are at hand and the output is all that it grades (how many are taken as they stand, and why, is
said); every metric and every retention score with its interval, also at the points of a curve, at most ``CLOSE`` apart; that
each row quotes the base's record as it is; the digests of tables and summaries; the key of each cell, which is the hash of its
options and conditions; the trials of ``tuned.json`` and what was chosen of them; the tables of ``README.md`` and what
differences they could detect.

From nothing: a cell drawn at random is injected and asked again in a folder and a cache of its own, and each of its rows must
come out the same, those of a curve's points and the trajectory of a sequence included: texts, tokens and scores equal,
log-probabilities (and vital signs, or their share) at most ``ROUNDING`` apart, since another number of threads adds in another
order. Seconds, memory and diagnostics are measurements that nothing recomputes, and a judge is not asked again: its verdicts
drift, and each has its price.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any
from unittest import mock

from editbench.errors import DataError, OptionError, RecordError
from editbench.eval import probes, rescoring
from editbench.files import jsonable
from editbench.records.reading import (
    alteration,
    heading,
    load_run,
    read_cases,
    read_rows,
    strangers,
    table_path,
)
from editbench.records.schema import COLUMNS
from editbench.records.store import RunStore
from editbench.run import runner, tune
from editbench.run.config import RunConfig, run_identity
from editbench.run.keys import code_digest, key_of, template_digest
from editbench.run.plan import make_plan
from editbench.run.regimes import Point, Rows
from editbench.run.scores import curve_scores, retention_scores
from editbench.types import Case, digest

CLOSE = 1e-12
ROUNDING = 1e-2
PLACE = {
    "probes": ("case", "probe"),
    "retention": ("task", "member", "doc_id"),
    "curve_probes": ("facts", "case", "probe"),
    "curve_samples": ("facts", "task", "member", "doc_id"),
}
"""The tables that numbers rest on, and the columns that tell which item a row is of."""


@dataclass
class Report:
    """What was checked, and what was found."""

    differences: list[dict[str, Any]] = field(default_factory=list)
    """``cell``, ``what``, ``stored``, ``found``; empty where all is as it is recorded."""
    notes: list[str] = field(default_factory=list)
    """What the reader must know of how far the check went."""
    cells: int = 0
    numbers: int = 0
    rerun: list[str] = field(default_factory=list)
    """Keys of the cells that were computed anew."""
    rows: int = 0
    """Rows of these that were compared."""
    taken: dict[str, int] = field(default_factory=dict)
    """Task, and why the scores of so many of its samples were taken as they stand."""

    def differ(self, cell: str, what: str, stored: Any, found: Any) -> None:
        self.differences.append({"cell": cell, "what": what, "stored": stored, "found": found})

    def words(self) -> Iterator[str]:
        """What the terminal says."""
        yield from self.notes
        for task, count in self.taken.items():
            yield f"{count} scores of samples are taken as they stand, {task}."
        yield f"{self.numbers} numbers of {self.cells} cells recomputed from their rows."
        if self.rerun:
            yield f"{self.rows} rows of {', '.join(self.rerun)} computed anew and compared."
        yield f"{len(self.differences)} differences." if self.differences else "Nothing differs."


def verify(
    run: Path,
    rerun: int,
    seed: int,
    load: Callable[[str, str, Mapping[str, str]], Any],
    on_cell: Callable[[str, str], None],
    page: Callable[[Path], str],
) -> Report:
    """Checks all cells of ``run`` by their rows, and ``rerun`` of them, drawn by ``seed``, by computing them anew.

    ``load(model, precision, layout)`` gives the model; it is called only where something is computed anew, as is
    ``on_cell(method, state)`` of ``runner.run``. ``page(run)`` is the ``README.md`` that the records give.

    Raises:
        RecordError: no readable run.
        OptionError: ``rerun`` is negative.
        EditbenchError: the model, the corpus or the data of a task is not to be had for computing anew.
    """
    if rerun < 0:
        raise OptionError(f"--rerun is {rerun}; it is a number of cells, 0 for none.")
    config, summaries = load_run(run, altered=True)
    report = Report(cells=len(summaries))
    base = next((s for s in summaries if s["method"] == "base" and s["status"] != "failed"), None)
    if missing := [
        name for name in config.get("methods", ()) if name not in {s["method"] for s in summaries}
    ]:
        report.notes.append(
            f"{', '.join(missing)}: no record; the run was not finished, or it was taken away."
        )
    if others := strangers(run):
        report.notes.append(
            f"{', '.join(others)}: not of this run, and read by nothing; older cells, or copied here."
        )
    _note_code(summaries, report)
    facts = read_cases(run)
    cases, now = _cases(run, facts, report), digest(facts)[:16]
    for summary in summaries:
        if summary["corpus"].get("hash") != now:
            report.differ(summary["key"], "hash of cases.json", summary["corpus"].get("hash"), now)
        try:
            _check_digests(run, summary, report)
            _check_key(summary, config, report)
            if summary["status"] != "failed":
                _check_numbers(run, summary, config, base, cases, report)
        except RecordError as error:
            report.differ(summary["key"], str(error), None, None)
    _check_tuned(run, summaries, report)
    if not report.differences:
        _check_page(run, page, summaries, report)
    done = [summary for summary in summaries if summary["status"] != "failed"]
    if chosen := random.Random(seed).sample(done, min(rerun, len(done))):
        _rerun(run, config, chosen, load, on_cell, report)
    return report


def _cases(run: Path, facts: Sequence[Any], report: Report) -> list[Case] | None:
    """The cases of ``cases.json``; None, and a difference, where something else stands there."""
    try:
        return [Case.from_dict(fact) for fact in facts]
    except (DataError, AttributeError, TypeError, ValueError) as error:
        report.differ(run.name, f"cases.json: not the cases that were asked ({error})", None, None)
        return None


def _note_code(summaries: Sequence[Mapping[str, Any]], report: Report) -> None:
    """Says which cells are of other code than this, and which of so old a one that they have no digests."""
    now, reasons = code_digest(), {}
    for summary in summaries:
        made = summary.get("environment") or {}
        if (code := made.get("code")) != now:
            what = f"{code or 'unknown'}, commit {made.get('commit') or 'unknown'}; here {now}"
            reasons.setdefault(
                f"made by other code ({what}), which may score otherwise", []
            ).append(summary["method"])
        if "digest" not in summary:
            why = (
                "from before digests were stored: a changed text is noticed only by computing anew"
            )
            reasons.setdefault(why, []).append(summary["method"])
        elif "versions" not in summary:
            why = "from before versions were stored: whether the key is that of the options cannot be said"
            reasons.setdefault(why, []).append(summary["method"])
    report.notes += [f"{', '.join(methods)}: {reason}." for reason, methods in reasons.items()]


def _check_digests(run: Path, summary: Mapping[str, Any], report: Report) -> None:
    """The summary and the tables are those that were written."""
    key = summary["key"]
    if how := alteration(summary):
        report.differ(key, f"digest of summary.json: {how}", summary.get("digest"), None)
    for name, stored in summary.get("tables", {}).items():
        try:
            found = hashlib.sha256(table_path(run, key, name).read_bytes()).hexdigest()
        except OSError as error:
            raise RecordError(
                f"{table_path(run, key, name)} cannot be read: {error.strerror}."
            ) from error
        if found != stored:
            report.differ(
                key, f"digest of {name}.parquet: it was changed after it was written", stored, found
            )


def _check_key(summary: Mapping[str, Any], config: Mapping[str, Any], report: Report) -> None:
    """The key of a cell is that of what it says it was made with, and tuned is what the run was told is."""
    if "versions" not in summary or alteration(summary):
        return
    try:
        found = key_of(summary, config)
    except (AttributeError, KeyError, TypeError) as error:
        raise RecordError(
            f"The key of {summary['key']} cannot be computed ({type(error).__name__}: {error})."
        ) from error
    if found != summary["key"]:
        report.differ(
            summary["key"],
            "key: not that of the options and conditions that stand there",
            summary["key"],
            found,
        )
    tuned = (config.get("tuned") or {}).get(summary["method"])
    if (summary.get("tuned"), summary.get("tuning")) != (tuned is not None, tuned):
        report.differ(summary["key"], "tuned: not what run.json says", summary.get("tuning"), tuned)


def _check_tuned(run: Path, summaries: Sequence[Mapping[str, Any]], report: Report) -> None:
    """The trials of ``tuned.json``, where there is one, are worth what their cells say, and of each method the best is the
    chosen one."""
    if not (run / "tuned.json").exists():
        return
    record, cells = (
        tune.Tuned.read(run).record,
        {summary["method"]: summary for summary in summaries},
    )
    for method, stored in record["methods"].items():
        found = []
        for trial in stored["trials"]:
            cell = cells.get(f"{method}@trial{trial['trial']}")
            if cell is None:
                report.differ(
                    run.name,
                    f"tuned.json: {method}@trial{trial['trial']} has no record",
                    trial["key"],
                    None,
                )
                return
            options = {name: cell["options"].get(name) for name in trial["options"]}
            found.append(
                {
                    **trial,
                    "key": cell["key"],
                    "options": options,
                    **tune.judge(cell, record["retention"]),
                }
            )
        for what, there, now in (
            ("trials", stored["trials"], found),
            ("chosen", [stored["chosen"]], [tune.chosen(found)]),
        ):
            for one, other in zip(there, jsonable(now), strict=True):
                report.numbers += _compare(
                    run.name, f"tuned.json, {method}, {what}", one, other, report
                )


def _check_page(
    run: Path, page: Callable[[Path], str], summaries: Sequence[Mapping[str, Any]], report: Report
) -> None:
    """The tables of ``README.md`` and the lines of what they could detect are those of the records; of cells by other code that
    is only noted: so may the page be."""
    file = run / "README.md"
    if not file.is_file():
        return
    texts = (file.read_text(encoding="utf-8", errors="replace"), page(run))
    stored, found = (
        [line for line in text.splitlines() if line.startswith(("|", "Detectable "))]
        for text in texts
    )
    if stored == found:
        return
    odd = next((one, other) for one, other in zip_longest(stored, found) if one != other)
    if all((s.get("environment") or {}).get("code") == code_digest() for s in summaries):
        report.differ(run.name, "README.md: its tables are not those of the records", *odd)
    else:
        report.notes.append(
            f"{file}: its tables are not those that this editbench makes of the records."
        )


def _check_numbers(
    run: Path,
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
    base: Mapping[str, Any] | None,
    cases: Sequence[Case] | None,
    report: Report,
) -> None:
    """The numbers of a cell are those of its rows, the scores of its rows those of their texts, and the base is quoted; without
    ``cases`` only what can be told without them."""
    key = summary["key"]
    rows = {name: _rows(run, summary, name) for name in PLACE}
    before = [{**row, "score": row.get("base_score", row["score"])} for row in rows["retention"]]
    points = _points(summary, rows)
    try:
        found = {
            "metrics": probes.metrics(rows["probes"]),
            "retention": retention_scores(rows["retention"], before),
        }
        if cases is not None:
            for asked in (*(point.probes for point in points[:-1]), rows["probes"]):
                _check_scores(key, asked, cases, report)
            found["curve"] = {
                f"{at['facts']} facts": at for at in curve_scores(points, cases, before)
            }
        _check_samples(summary, config, [*rows["curve_samples"], *rows["retention"]], report)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RecordError(
            f"The rows of {key} cannot be scored ({type(error).__name__}: {error})."
        ) from error
    for name, numbers in found.items():
        stored = summary.get(name) or {}
        stored = {f"{at['facts']} facts": at for at in stored} if name == "curve" else stored
        report.numbers += _compare(key, name, stored, jsonable(numbers), report)
    if base is not None:
        for name, quoting in rows.items():
            _check_quotes(key, name, quoting, base["key"], _rows(run, base, name), report)


def _check_quotes(key: str, name: str, rows: Rows, base: str, said: Rows, report: Report) -> None:
    """Each ``base_COLUMN`` is the COLUMN of the base's row; one difference a column, its first row named."""
    there = {_place(row, name): row for row in said}
    quoted = [column for column in (rows[0] if rows else ()) if column.startswith("base_")]
    for column in quoted:
        really = [
            there.get(_place(row, name), {}).get(column.removeprefix("base_")) for row in rows
        ]
        odd = [
            (row, value) for row, value in zip(rows, really, strict=True) if row[column] != value
        ]
        if odd:
            row, value = odd[0]
            where = f"in {len(odd)} of {len(rows)} rows, the first {_words(row, name)}"
            report.differ(
                key, f"{name}: {column} is not that of {base} {where}", row[column], value
            )


def _check_scores(
    key: str, rows: Sequence[Mapping[str, Any]], cases: Sequence[Case], report: Report
) -> None:
    """The scores of probes are those of their texts and log-probabilities; one difference a column, its first row named."""
    again = rescoring.rescore(rows, cases)
    for column in dict.fromkeys(column for scores in again for column in scores):
        known = [(row, new[column]) for row, new in zip(rows, again, strict=True) if column in row]
        odd = [(row, score) for row, score in known if not _same(row[column], score)]
        if odd:
            row, score = odd[0]
            where = f"{len(odd)} of {len(rows)} rows, the first {_words(row, 'probes')}"
            report.differ(
                key, f"probes, {column}: not what the text gives in {where}", row[column], score
            )


def _check_samples(
    summary: Mapping[str, Any], config: Mapping[str, Any], rows: Rows, report: Report
) -> None:
    """The scores of retention samples are those of their outputs; one difference a task, its first sample named."""
    for task in dict.fromkeys(row["task"] for row in rows):
        asked = [row for row in rows if row["task"] == task]
        data = (config.get("task_data") or {}).get(task)
        digest_then = (summary.get("tasks") or {}).get(task)
        again, why = rescoring.rescore_samples(
            task, asked, Path(data) if data else None, digest_then
        )
        if untold := again.count(None):
            what = f"{heading(task)}: {why.rstrip('.')}"
            report.taken[what] = report.taken.get(what, 0) + untold
        odd = [
            (row, score)
            for row, score in zip(asked, again, strict=True)
            if score not in (None, row["score"])
        ]
        if odd:
            row, score = odd[0]
            where = f"{len(odd)} of {len(asked)} samples, the first {_words(row, 'retention')}"
            report.differ(
                summary["key"],
                f"retention, score: not what the output gives in {where}",
                row["score"],
                score,
            )


def _rows(run: Path, summary: Mapping[str, Any], name: str) -> Rows:
    """The rows of table ``name``; of a curve none where the cell has no such table."""
    known = name in COLUMNS or name in summary.get("tables", {})
    return read_rows(run, summary["key"], name, altered=True) if known else []


def _points(summary: Mapping[str, Any], rows: Mapping[str, Rows]) -> list[Point]:
    """The points of ``summary["curve"]`` with the rows of each."""
    counts = [at["facts"] for at in summary.get("curve") or ()]
    earlier = [rows["curve_probes"], rows["curve_samples"]]
    points = [
        Point(count, *([row for row in asked if row["facts"] == count] for asked in earlier))
        for count in counts[:-1]
    ]
    return points + [Point(count, rows["probes"], rows["retention"]) for count in counts[-1:]]


def _compare(
    key: str,
    what: str,
    stored: Any,
    found: Any,
    report: Report,
    same: Callable[[Any, Any], bool] | None = None,
) -> int:
    """Compares two trees of numbers and texts; returns how many numbers were there."""
    if isinstance(stored, Mapping) and isinstance(found, Mapping):
        names = dict.fromkeys((*stored, *found))
        return sum(
            _compare(key, f"{what}.{name}", stored.get(name), found.get(name), report, same)
            for name in names
        )
    if not (same or _same)(stored, found):
        report.differ(key, what, stored, found)
    return int(isinstance(stored, float | int))


def _same(one: Any, other: Any, close: float = CLOSE) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=0, abs_tol=close)
    if isinstance(one, str) and isinstance(other, str) and one != other:
        texts = [
            re.fullmatch(r"(.*log-probability )(-?[0-9.]+)", text) for text in (one, other)
        ]  # of eval/retention.py
        return (
            all(texts)
            and texts[0][1] == texts[1][1]
            and _same(float(texts[0][2]), float(texts[1][2]), ROUNDING)
        )
    return one == other


def _near(one: Any, other: Any) -> bool:
    """As ``_same``, of ratios of any size."""
    return one == other or (
        None not in (one, other) and math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)
    )


def _rerun(
    run: Path,
    config: Mapping[str, Any],
    chosen: Sequence[Mapping[str, Any]],
    load: Callable[[str, str, Mapping[str, str]], Any],
    on_cell: Callable[[str, str], None],
    report: Report,
) -> None:
    """Computes the ``chosen`` cells anew and compares each row."""
    plans = [make_plan(_config(run, config, summary)) for summary in chosen]
    asked = plans[0].config
    model = load(asked.model, asked.precision, asked.layout)
    weights, template = model.fingerprint(), template_digest(model)
    # A cache of its own: what was computed before, such as the base's answers and covariances, would prove nothing.
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, {"EDITBENCH_CACHE": f"{folder}/cache"}),
    ):
        for summary, plan in zip(chosen, plans, strict=True):
            key, other, files = (
                summary["key"],
                Path(folder) / summary["key"],
                plan.methods[summary["method"]].sources(),
            )
            for what, there, now in (
                ("hash of the weights", summary["model"].get("hash"), weights),
                ("chat template", summary["model"].get("chat_template", template), template),
                ("hash of the corpus's cases", summary["corpus"].get("hash"), plan.slice_hash),
                ("hashes of the files that its options name", summary.get("sources", files), files),
            ):
                if there != now:
                    report.differ(key, what, there, now)
            with RunStore(other).open(run_identity(plan.config)) as store:
                (again,) = runner.run(plan, model, store, on_cell)
            _compare_rows(run, summary, other, again, report)


def _config(run: Path, config: Mapping[str, Any], summary: Mapping[str, Any]) -> RunConfig:
    """What was asked, for the one cell of ``summary`` and with the options that stand there."""
    unknown = sorted(
        set(config) - {f.name for f in fields(RunConfig)} - {"tune"}
    )  # a trial is a cell like any other
    if unknown:
        raise RecordError(
            f"{run / 'run.json'} has {unknown[0]!r}, which this editbench does not know. Use --rerun 0."
        )
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.items()
        if name != "tune"
    }
    one = {
        "methods": (summary["method"],),
        "options": {summary["method"]: summary["options"]},
        "diagnostics": (),
    }
    one |= {"judge": None, "judge_model": None, "repeats": 0}
    return RunConfig(**{**given, **one, "precision": summary["model"]["precision"]})


def _compare_rows(
    run: Path, summary: Mapping[str, Any], other: Path, again: Mapping[str, Any], report: Report
) -> None:
    """Compares the tables of a cell with those of the one that was computed anew in the run folder ``other``."""
    key = summary["key"]
    report.rerun.append(key)
    before = len(report.differences)
    if again["status"] != summary["status"]:
        report.differ(key, "status", summary["status"], f"{again['status']}: {again['note']}")
    else:
        for name in PLACE:
            report.rows += _compare_table(
                key, name, _rows(run, summary, name), _rows(other, again, name), report
            )
        signs, anew = (
            {str(at["facts"]): at for at in one.get("trajectory") or ()} for one in (summary, again)
        )
        _compare(key, "trajectory", signs, anew, report, _near)
    if len(report.differences) > before:
        there, here = summary.get("environment") or {}, again["environment"]
        changed = [name for name in here if there.get(name) != here[name]]
        if changed:
            report.notes.append(
                f"{key} was made elsewhere or otherwise: {', '.join(changed)} of its environment differ."
            )


def _compare_table(
    key: str,
    name: str,
    stored: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    report: Report,
) -> int:
    """Compares the stored columns row by row; one difference a column, with the first row that has it."""
    if [_place(row, name) for row in stored] != [_place(row, name) for row in found]:
        report.differ(key, f"{name}: which items were asked", len(stored), len(found))
        return 0
    for column in dict.fromkeys(column for row in stored for column in row if column != "judge"):
        close = ROUNDING if column.endswith("logprob") else CLOSE
        odd = [
            i for i, row in enumerate(stored) if not _same(row[column], found[i].get(column), close)
        ]
        if odd:
            what = f"{name}, {column}: {len(odd)} of {len(stored)} rows, the first {_words(stored[odd[0]], name)}"
            report.differ(key, what, stored[odd[0]][column], found[odd[0]].get(column))
    return len(stored)


def _place(row: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    return tuple(row[column] for column in PLACE[name])


def _words(row: Mapping[str, Any], name: str) -> str:
    return " ".join(f"{column} {row[column]}" for column in PLACE[name] if column != "member")
