"""Check that a record may be compared with those that other people made of the same suite.

``verify`` shows that a record's numbers follow from its texts. This shows that nothing is missing:
the suite's present version, its model, facts, tasks and seeds, the unedited model, a text for each
question, and where each method comes from. Neither can show that the texts are those of the
method; for that a cell must be computed again (``--rerun``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from editbench import registry
from editbench.errors import DataError, OptionError, RecordError, UnknownNameError, listed
from editbench.records.reading import (
    incomplete,
    load_run,
    not_asked,
    read_cases,
    read_rows,
    run_folders,
    seed_folder,
    seeds_of,
)
from editbench.records.schema import CellSummary, StoredConfig
from editbench.rows import ProbeRow, SampleRow
from editbench.run.config import method_of
from editbench.run.origin import is_own
from editbench.run.suite import Suite
from editbench.run.suite import names as suite_names
from editbench.run.verify.report import Difference
from editbench.types import Case

BESIDE = (
    "artifacts", "columns", "curve", "data", "diagnostics", "evaluators", "judge", "layout",
    "repeats", "task_data",
)  # fmt: skip
"""Fields of ``run.json`` that no suite has."""
SHORT = 80
"""Most characters of a value in a sentence."""


def faults(folder: Path, file: str | None = None) -> list[str]:
    """Return a sentence for each thing that the record in ``folder`` lacks to be a submission.

    Args:
        folder: a run folder, of all seeds of a suite.
        file: the file of a suite that editbench does not ship.

    Raises:
        OptionError: ``file`` is no suite.
    """
    given = Suite.read(file) if file else None
    try:
        runs = {run: load_run(run, altered=True) for run in run_folders(folder)}
        suite = _suite(next(iter(runs.values()))[0], given)
    except (OptionError, RecordError, UnknownNameError) as error:
        return [str(error)]
    found = list(_seeds(folder, suite, [config for config, _ in runs.values()]))
    for run, (config, cells) in runs.items():
        name = f"seed {config.get('seed')}"
        found += [f"{name}: {line}" for line in _run(run, config, cells, suite)]
    return found


def sentence(difference: Difference) -> str:
    """Return a difference that ``verify`` found as a sentence."""
    stored, computed = (
        text if len(text) <= SHORT else f"{text[: SHORT - 1]}…"
        for text in (
            json.dumps(difference[side], ensure_ascii=False, default=str)
            for side in ("stored", "found")
        )
    )
    said = f"{difference['cell']}: {difference['what'].rstrip('.')}"
    if difference["stored"] is None and difference["found"] is None:
        return f"{said}."
    return f"{said}: {stored} is stored, and {computed} was found."


def _suite(config: StoredConfig, given: Suite | None) -> Suite:
    """Return the suite of a run.

    Raises:
        RecordError: the run is of none.
        UnknownNameError: this editbench does not have it.
    """
    named = config.get("suite")
    if not isinstance(named, Mapping) or not isinstance(name := named.get("name"), str):
        raise RecordError(
            "The record is of no suite. Make it with 'editbench compare --suite NAME'; 'editbench "
            "list suites' shows the names."
        )
    if given and given.name == name:
        return given
    if name not in suite_names():  # which may be a path: the record is another person's
        raise UnknownNameError("suite", name, suite_names())
    return Suite.read(name)


def _seeds(folder: Path, suite: Suite, configs: Sequence[StoredConfig]) -> Iterator[str]:
    """Yield what is wrong with the seeds and the methods of a record."""
    begun = [config.get("seed") for config in configs]
    named = seeds_of(folder) or begun
    for seed in suite.numbers:
        if seed not in named:
            yield f"Seed {seed} is missing; suite {suite.name} has {', '.join(suite.seeds)}."
        elif seed not in begun:
            yield f"Seed {seed} is not finished: {seed_folder(folder, seed)} has no finished cell."
    for other in named:
        if other not in suite.numbers:
            yield f"Seed {other} is none of suite {suite.name}, which has {', '.join(suite.seeds)}."
    methods = [config.get("methods", []) for config in configs]
    if any(names != methods[0] for names in methods):
        yield "The seeds have different methods, and a row needs all seeds."
    if all(method_of(name) in registry.baselines() for name in methods[0]):
        yield "There is no method beside the baselines."


def _run(
    run: Path, config: StoredConfig, cells: Sequence[CellSummary], suite: Suite
) -> Iterator[str]:
    """Yield what is wrong with the record of one seed."""
    if (made := config.get("suite", {})) != suite.stored:
        yield (
            f"run.json was made with {made.get('name', 'no suite')} of digest "
            f"{made.get('digest', 'none')[:12]}; the present one has {suite.digest[:12]}."
        )
    for name in BESIDE:
        if config.get(name):
            yield f"run.json has {name}, which is not part of suite {suite.name}."
    for task, why in not_asked(run).items():
        yield f"{task} was not asked: {why}"
    yield from incomplete(run, config, cells)
    base = next((c for c in cells if c["method"] == "base" and c["status"] != "failed"), None)
    if base is None:
        yield "The row of the unedited model (base) is missing."
    try:
        cases = [Case.from_dict(case) for case in read_cases(run)]
    except (DataError, RecordError, AttributeError, TypeError, ValueError) as error:
        yield f"cases.json does not hold the facts that were asked ({error})."
        return
    for cell in cells:
        try:
            for line in _cell(run, cell, base, cases, suite):
                yield f"{cell['method']}: {line}"
        # The record is another person's, and may hold anything.
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            yield f"{cell['method']}: its record is malformed ({type(error).__name__}: {error})."


def _cell(
    run: Path,
    cell: CellSummary,
    base: CellSummary | None,
    cases: Sequence[Case],
    suite: Suite,
) -> Iterator[str]:
    """Yield what is wrong with one cell."""
    if cell["status"] == "failed":
        yield f"it failed ({cell.get('note', '')})."
        return
    yield from _conditions(cell, suite)
    yield from _source(cell)
    try:
        probes = read_rows(run, cell["key"], "probes", altered=True)
        samples = read_rows(run, cell["key"], "retention", altered=True)
        yield from _probes(probes, cases)
        yield from _samples(samples, suite)
        if cell is base:
            yield from _unedited(probes, samples)
        elif base is not None:
            there = read_rows(run, base["key"], "probes", altered=True)
            if _asked(probes) != _asked(there):
                yield "it was not asked what the unedited model was asked."
            there_too = read_rows(run, base["key"], "retention", altered=True)
            if _documents(samples) != _documents(there_too):
                yield "it was not given the items of the tasks that the unedited model was given."
    except RecordError as error:
        yield str(error)


def _conditions(cell: CellSummary, suite: Suite) -> Iterator[str]:
    """Yield the conditions of a cell that are not those of the suite."""
    model, corpus, versions = cell["model"], cell["corpus"], cell.get("versions", {})
    for what, stored, wanted in (
        ("weights", model.get("hash"), suite.model["weights"]),
        ("precision", model.get("precision"), suite.model["precision"]),
        ("chat template", model.get("chat_template") or "", suite.model["chat_template"]),
        ("facts", corpus.get("hash"), suite.seeds.get(str(cell["seed"]))),
        ("part of the corpus", corpus.get("part"), suite.facts["part"]),
        ("number of facts", corpus.get("n"), suite.facts["n"]),
        ("regime", cell.get("regime"), suite.facts["regime"]),
        ("items of a task", cell.get("limit"), suite.retention["limit"]),
        ("scoring version", versions.get("scoring"), suite.scoring),
    ):
        if stored != wanted:
            yield f"{what}: {stored or 'none'}, and suite {suite.name} has {wanted or 'none'}."
    tasks: Mapping[str, str | None] = cell.get("tasks", {})
    for task, data in suite.retention["tasks"].items():
        if task not in tasks:
            yield f"{task} is missing."
        elif tasks[task] != data:
            yield f"the data of {task}: {tasks[task]}, and suite {suite.name} has {data}."
    for task in tasks:
        if task not in suite.retention["tasks"]:
            yield f"{task} is no task of suite {suite.name}."


def _source(cell: CellSummary) -> Iterator[str]:
    """Yield what is not known of a cell's method, its version and its code."""
    method = method_of(cell["method"])
    if "method" not in cell.get("versions", {}):
        yield "the version of the method is missing."
    made = cell.get("environment") or {}
    if not made.get("code") or not (made.get("packages") or {}).get("editbench"):
        yield "nothing says which version of editbench computed it."
    known = {origin["method"]: origin for origin in cell.get("origins", [])}
    for part in method.split("+"):
        if part in known:
            if not known[part]["url"].startswith("https://"):
                yield (
                    f"{part} comes from the package {known[part]['package']}, which names no "
                    'repository. Add [project.urls] with repository = "https://..." to its '
                    "pyproject.toml, install it again, delete the cell and run again."
                )
        elif not is_own(part):
            yield f"{part} is no method of editbench, and its record names no package."
    for file in cell.get("sources", {}):
        yield f"its options name the file {Path(file).name}, which others do not have."


def _probes(rows: Sequence[ProbeRow], cases: Sequence[Case]) -> Iterator[str]:
    """Yield the questions of the facts that have no answer."""
    answered = {(row["case"], row["probe"]) for row in rows if isinstance(row["text"], str)}
    missing = [
        f"{case.fact.id} probe {i}"
        for case in cases
        for i in range(len(case.probes))
        if (case.fact.id, i) not in answered
    ]
    if missing:
        yield f"{len(missing)} questions have no text: {listed(missing, 3)}."


def _samples(rows: Sequence[SampleRow], suite: Suite) -> Iterator[str]:
    """Yield the tasks that do not have a text for each of their items."""
    limit = suite.retention["limit"]
    texts = Counter(task for task, *_ in set(_documents(rows)))
    silent = Counter(row["task"] for row in rows if not isinstance(row["output"], str))
    for task in suite.retention["tasks"]:
        if (count := texts[task] - silent[task]) != limit:
            yield f"{task} has {count} texts, and suite {suite.name} asks {limit} items."


def _unedited(probes: Sequence[ProbeRow], samples: Sequence[SampleRow]) -> Iterator[str]:
    """Yield a sentence if the base's row says something else than the base said."""
    changed = sum(row["text"] != row["base_text"] for row in probes)
    changed += sum(row["output"] != row.get("base_output") for row in samples)
    if changed:
        yield f"{changed} texts are not those of the unedited model."


def _asked(rows: Sequence[ProbeRow]) -> list[tuple[str, int, str]]:
    return sorted((row["case"], row["probe"], row["prompt"]) for row in rows)


def _documents(rows: Sequence[SampleRow]) -> list[tuple[str, str, int]]:
    return sorted((row["task"], row["member"], row["doc_id"]) for row in rows)
