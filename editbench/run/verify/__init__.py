"""Check that a stored run tells the truth.

Every cell is checked against its rows (``stored``), and cells drawn at random are computed again
(``rerun``).

These numbers are recomputed from the rows, and may differ by at most ``CLOSE``:

- the scores of probes, from their texts, tokens and log-probabilities;
- the scores of retention samples, from their outputs, if the task's data are at hand and the task
  grades nothing but the output (the report counts the scores that are taken as they stand, and
  says why);
- all metrics, retention scores and evaluator means with their intervals, also at the points of a
  curve and right after each chunk of a sequence. Which facts were asked there and when, and
  whether a later one replaced them, must follow from the order of the facts.

Each row must quote the base's record as it is. The digests of tables and summaries must match, and
the key of each cell must be the hash of its options and conditions. The trials of ``tuned.json``
with the chosen ones, and the tables of ``README.md``, must agree with the cells.

A cell that is computed again is injected and asked in a folder and a cache of its own. All of its
rows must come out the same, including those of a curve's points, of a sequence's chunks and of
evaluators, and so must the trajectory of a sequence. Texts, tokens and scores must be equal.
Log-probabilities and vital signs may differ by ``ROUNDING``, since another number of threads adds
in another order. Seconds, memory and diagnostics are measurements that nothing recomputes. A judge
is not asked again, because its verdicts drift and each one has a price.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from editbench.errors import DataError, OptionError, RecordError
from editbench.models import LanguageModel
from editbench.placing import Loading
from editbench.records.reading import (
    incomplete,
    load_run,
    read_cases,
    run_folders,
    seed_folder,
    seeds_of,
)
from editbench.records.schema import CellSummary, StoredConfig
from editbench.run.runner import OnCell
from editbench.run.verify import rerun as rerunning
from editbench.run.verify import stored
from editbench.run.verify.report import Report
from editbench.types import Case, digest

__all__ = ["Report", "verify"]


def verify(
    run: Path,
    rerun: int,
    seed: int,
    load: Callable[[str, str, Mapping[str, str], Loading], LanguageModel],
    on_cell: OnCell,
    page: Callable[[Path], str],
) -> Report:
    """Check all cells of a run against their rows, and some of them by computing them again.

    Args:
        run: the run folder, of one seed or of several.
        rerun: number of cells to compute again.
        seed: seed of the draw of these cells.
        load: ``load(model, precision, layout, how)`` returns the model; called only for a rerun.
        on_cell: as for ``runner.run``; called only for a rerun.
        page: ``page(run)`` returns the ``README.md`` that the records give.

    Raises:
        RecordError: there is no readable run.
        OptionError: ``rerun`` is negative.
        EditbenchError: cells are to be computed again, and the model, the corpus, a plug-in or the
            data of a task cannot be loaded.
    """
    if rerun < 0:
        raise OptionError(f"--rerun is {rerun}; it is a number of cells, 0 for none.")
    report = Report()
    configs: dict[Path, StoredConfig] = {}
    cells: list[tuple[Path, CellSummary]] = []
    for folder in run_folders(run):
        configs[folder], summaries = _check_folder(folder, page, report)
        cells += [(folder, cell) for cell in summaries]
    if seeds := seeds_of(run):
        late = [seed for seed in seeds if seed_folder(run, seed) not in configs]
        report.notes += [f"Seed {seed} has no finished cell." for seed in late]
        if not report.differences:
            stored.check_page(run, page, [cell for _, cell in cells], report)
    done = [(folder, cell) for folder, cell in cells if cell["status"] != "failed"]
    drawn = random.Random(seed).sample(done, min(rerun, len(done)))
    for folder, config in configs.items():
        if chosen := [cell for its_folder, cell in drawn if its_folder == folder]:
            rerunning.rerun(folder, config, chosen, load, on_cell, report)
    return report


def _check_folder(
    run: Path, page: Callable[[Path], str], report: Report
) -> tuple[StoredConfig, list[CellSummary]]:
    """Check the cells and the page of one run folder, and return its configuration and cells."""
    config, summaries = load_run(run, altered=True)
    before = len(report.differences)
    report.cells += len(summaries)
    report.notes += incomplete(run, config, summaries)
    stored.note_code(summaries, report)
    _check_cells(run, config, summaries, report)
    stored.check_tuned(run, summaries, report)
    # Where the records differ, the page would differ only because of them.
    if len(report.differences) == before:
        stored.check_page(run, page, summaries, report)
    return config, summaries


def _check_cells(
    run: Path, config: StoredConfig, summaries: Sequence[CellSummary], report: Report
) -> None:
    """Check each cell against its own files and ``cases.json``."""
    facts = read_cases(run)
    cases, cases_hash = _cases(run, facts, report), digest(facts)[:16]
    unedited = [s for s in summaries if s["method"] == "base" and s["status"] != "failed"]
    base = unedited[0] if unedited else None
    for summary in summaries:
        key, its_hash = summary["key"], summary["corpus"].get("hash")
        if its_hash != cases_hash:
            report.differ(key, "hash of cases.json", its_hash, cases_hash)
        try:
            stored.check_digests(run, summary, report)
            stored.check_key(summary, config, report)
            if summary["status"] != "failed":  # a failed cell has no rows and no scores
                stored.check_numbers(run, summary, config, base, cases, report)
        # One unreadable cell must not hide what is wrong with the others.
        except RecordError as error:
            report.differ(key, str(error), None, None)


def _cases(run: Path, facts: Sequence[Mapping[str, object]], report: Report) -> list[Case] | None:
    """Return the cases of ``cases.json``, or add a difference and return ``None``."""
    try:
        return [Case.from_dict(fact) for fact in facts]
    except (DataError, AttributeError, TypeError, ValueError) as error:
        report.differ(run.name, f"cases.json: not the cases that were asked ({error})", None, None)
        return None
