"""Compute cells again and compare them with the stored ones, row by row."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast
from unittest import mock

from editbench.errors import RecordError
from editbench.models import PRECISIONS, LanguageModel
from editbench.placing import Loading
from editbench.records.reading import read_rows
from editbench.records.schema import CellSummary, StoredConfig
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.keys import template_digest, versions_of
from editbench.run.plan import Plan, make_plan
from editbench.run.verify.comparing import ALWAYS, PLACE, Row, compare, compare_table, is_near
from editbench.run.verify.report import Report
from editbench.run.verify.stored import asked_twice


def rerun(
    run: Path,
    config: StoredConfig,
    chosen: Sequence[CellSummary],
    load: Callable[[str, str, Mapping[str, str], Loading], LanguageModel],
    on_cell: runner.OnCell,
    report: Report,
) -> None:
    """Compute the ``chosen`` cells again and compare their rows.

    Raises:
        EditbenchError: the model, the corpus, a plug-in, an artifact or the data of a task cannot
            be loaded.
    """
    plans = [make_plan(_config_of(run, config, summary)) for summary in chosen]
    asked = plans[0].config
    model = load(asked.model, asked.precision, asked.layout, asked.loading())
    # With a cache of its own, since cached answers of the base and covariances would prove nothing.
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, {"EDITBENCH_CACHE": f"{folder}/cache"}),
    ):
        for summary, plan in zip(chosen, plans, strict=True):
            _compare_conditions(summary, plan, model, report)
            other = Path(folder) / summary["key"]
            with RunStore(other).open(run_identity(plan.config)) as store:
                (again,) = runner.run(plan, model, store, on_cell)
            _compare_cell(run, summary, other, again, report)


def _config_of(run: Path, config: StoredConfig, summary: CellSummary) -> RunConfig:
    """Return the configuration of the one cell of ``summary``, with the options that it records.

    Raises:
        RecordError: ``run.json`` has a field that this version does not know.
    """
    # ``tune`` describes a search and is no field of ``RunConfig``; its trials are ordinary cells.
    given: dict[str, Any] = {name: value for name, value in config.items() if name != "tune"}
    if unknown := sorted(set(given) - {field.name for field in fields(RunConfig)}):
        raise RecordError(
            f"{run / 'run.json'} has {unknown[0]!r}, which this editbench does not know. "
            "Use --rerun 0."
        )
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    method = summary["method"]
    made = {name: path for name, path in given.get("artifacts", {}).items() if name == method}
    given |= {"methods": (method,), "artifacts": made}
    given["options"] = {} if made else {method: summary["options"]}
    # None of these is compared, so none is computed.
    given |= {"diagnostics": (), "judge": None, "judge_model": None, "repeats": 0}
    # A task that the base could not be asked is in run.json, and not in the cell.
    given["tasks"] = tuple(
        task for task in given["tasks"] if task in summary.get("tasks", given["tasks"])
    )
    # Where nothing is written, weights were float32.
    dtype = summary["model"].get("dtype", "float32")
    precision = summary["model"]["precision"]
    if precision not in PRECISIONS:  # float16, in which such weights compute by themselves
        precision = "auto"
    return RunConfig(**{**given, "precision": precision, "dtype": dtype})


def _compare_conditions(
    summary: CellSummary, plan: Plan, model: LanguageModel, report: Report
) -> None:
    """Compare the hashes of the model, the cases, the files that options name and plug-ins.

    An older record may lack the template, the files or the plug-ins, which then count as equal.
    """
    stored, template = summary["model"], template_digest(model)
    method = plan.methods[summary["method"]]
    files = method.sources()
    plugins = versions_of(plan, summary["method"], method).get("plugins")
    for what, there, now in (
        ("hash of the weights", stored.get("hash"), model.fingerprint()),
        ("chat template", stored.get("chat_template", template), template),
        ("hash of the corpus's cases", summary["corpus"].get("hash"), plan.slice_hash),
        ("hashes of the files that its options name", summary.get("sources", files), files),
        ("code of plug-ins", summary.get("versions", {}).get("plugins", plugins), plugins),
    ):
        if there != now:
            report.differ(summary["key"], what, there, now)


def _compare_cell(
    run: Path, summary: CellSummary, other: Path, again: CellSummary, report: Report
) -> None:
    """Compare a cell with the one that was computed again in the run folder ``other``."""
    key, before = summary["key"], len(report.differences)
    report.rerun.append(key)
    if again["status"] != summary["status"]:
        report.differ(key, "status", summary["status"], f"{again['status']}: {again['note']}")
    else:
        tables = [name for name in PLACE if name != "right_after" or asked_twice(summary)]
        for name in tables:
            stored, found = _rows(run, summary, name), _rows(other, again, name)
            report.rows += compare_table(key, name, stored, found, report)
        signs, signs_again = (
            {str(at["facts"]): at for at in cell.get("trajectory", [])} for cell in (summary, again)
        )
        compare(key, "trajectory", signs, signs_again, report, is_near)
    if len(report.differences) > before:
        _note_environment(summary, again, report)


def _rows(run: Path, summary: CellSummary, name: str) -> Sequence[Row]:
    """Return the rows of a table, or none where the cell has no such table."""
    if name not in (*ALWAYS, *summary.get("tables", {})):
        return []
    return read_rows(run, summary["key"], name, altered=True)


def _note_environment(summary: CellSummary, again: CellSummary, report: Report) -> None:
    """Note which parts of the environment differ between a cell and its rerun."""
    there = cast("Row", summary.get("environment", {}))
    here = cast("Row", again.get("environment", {}))
    if changed := [name for name in here if there.get(name) != here[name]]:
        report.notes.append(
            f"{summary['key']} was computed in another environment: {', '.join(changed)} differ."
        )
