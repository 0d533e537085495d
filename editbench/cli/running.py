"""The steps of ``compare``, ``tune`` and ``sweep``: check the request, open the run folder, run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from editbench.cli import console, tracking, workers
from editbench.cli.leaderboard import write_page
from editbench.cli.loading import check_is_here, how_to_load, read_batch_size
from editbench.cli.options import DEFAULT_CORPUS, DEFAULT_N, RunOptions
from editbench.cli.parsing import pairs
from editbench.cli.show import print_run, print_seeds
from editbench.cli.site import write_site
from editbench.errors import OptionError
from editbench.slices import ALL, NO_FACTS

if TYPE_CHECKING:
    from editbench.models import LanguageModel
    from editbench.records.schema import CellSummary
    from editbench.records.store import RunStore
    from editbench.run.config import RunConfig
    from editbench.run.plan import Plan
    from editbench.run.worker import Identity

STOPPED = 130
"""Exit code after Ctrl-C."""


class Check(Protocol):
    """What a run must agree with, before anything is computed."""

    def check_facts(self, plan: Plan) -> None:
        """Raise an ``EditbenchError`` unless ``plan`` has the right facts and tasks."""

    def check_model(self, model: Identity, name: str) -> None:
        """Raise an ``EditbenchError`` unless the model called ``name`` is the right one."""


def request(
    options: RunOptions,
    methods: Sequence[str],
    method_options: Mapping[str, Mapping[str, object]],
    part: str | None,
    artifacts: Mapping[str, str] = {},  # noqa: B006 - nothing changes it
) -> RunConfig:
    """Return the configuration that the options ask for, with the baselines and without tasks.

    Args:
        part: ``dev`` or ``test``; ``None`` for ``test``, but for all of the user's own facts.
        artifacts: row -> folder of what was made elsewhere.

    Raises:
        OptionError: a value is out of range, or options exclude each other.
    """
    from editbench import registry
    from editbench.run.config import RunConfig, with_baselines

    # Before anything is read: a device that is not there must not cost minutes. Workers may have
    # devices that this machine lacks.
    if workers.in_this_process(options):
        how_to_load(options.dtype, options.device, options.device_map, options.batch_size)
    corpus, data = _source(options)
    if corpus == NO_FACTS and not artifacts:
        raise OptionError(
            "--facts none scores what was made elsewhere. Name it: editbench compare --facts none"
            " --artifact mine=FOLDER."
        )
    if corpus != NO_FACTS:
        registry.check("corpora", corpus)
    if corpus == NO_FACTS and part:
        raise OptionError(
            f"--part {part} is about facts, and --facts none asks none. Leave it out."
        )
    # Without facts all there are count, and the facts in context are no reference.
    is_own = corpus == NO_FACTS or registry.get("corpora", corpus).own_file
    others = [name for name in methods if name != "base"]
    rows = ("base", *others) if corpus == NO_FACTS else with_baselines(methods)
    return RunConfig(
        methods=(*rows, *artifacts),
        model=options.model,
        corpus=corpus,
        data=data,
        part=part or (ALL if is_own else "test"),
        n=DEFAULT_N if options.n is None and not is_own else options.n,
        limit=options.limit or None,
        regime=options.regime,
        seed=options.seed,
        precision=options.precision,
        dtype=None if options.dtype == "auto" else options.dtype,
        device_map=options.device_map,
        batch_size=read_batch_size(options.batch_size),
        options=method_options,
        task_data=pairs(options.task_data, "--task-data"),
        allow_conflicts=options.allow_conflicts,
        layout=pairs(options.layout, "--layout"),
        columns=options.columns,
        artifacts=artifacts,
    )


def scoring(folder: Path, options: RunOptions) -> RunConfig:
    """Return the configuration of a run that scores what is in ``folder`` beside its base.

    Args:
        options: their ``facts`` are asked; none are asked without.

    Raises:
        EditbenchError: as ``request``, or ``folder`` holds no artifact.
    """
    from editbench.run.evaluation import ROW, evaluation

    facts = options.facts or NO_FACTS
    options = replace(options, facts=facts)
    return evaluation(request(options, (), {}, None, {ROW: str(folder)}), folder, facts)


def _source(options: RunOptions) -> tuple[str, str | None]:
    """Return the corpus and its data: of ``--facts``, or of ``--corpus`` and ``--data``.

    Raises:
        OptionError: both are given.
    """
    if options.facts is None:
        return options.corpus or DEFAULT_CORPUS, options.data
    if options.corpus is None and options.data is None:
        return (NO_FACTS, None) if options.facts == NO_FACTS else ("local", options.facts)
    other = "--data" if options.corpus is None else f"--corpus {options.corpus}"
    raise OptionError(
        f"--facts {options.facts} names the facts, and so does {other}. Give one of them."
    )


def checked_plan(config: RunConfig, tasks: str) -> Plan:
    """Return the plan of ``config`` with the retention tasks that ``--tasks`` names.

    Report on stderr how many records of the corpus were left out, and why the first one was.

    Raises:
        EditbenchError: a name, option or record is wrong, or none of the tasks can be loaded.
    """
    from editbench.run.plan import resolve

    if config.regime == "single" and tasks == "default":
        console.say(
            "--regime single edits a fresh model for each fact, so retention tasks are not asked."
        )
    plan = resolve(config, _tasks_of(config, tasks))
    for remark in plan.remarks:
        console.say(remark)
    if plan.left_out:
        console.say(
            f"{len(plan.left_out)} records or probes of {config.corpus} cannot be used and were"
            f" left out; the first: {plan.left_out[0]}"
        )
    return plan


def _tasks_of(config: RunConfig, tasks: str) -> str:
    return "none" if config.regime == "single" and tasks == "default" else tasks


def _plans(config: RunConfig, seeds: Sequence[int], tasks: str) -> list[Plan]:
    """Return a plan for each seed, as ``checked_plan``. A task that one cannot load leaves all."""
    from editbench.run.plan import resolve

    plans = [checked_plan(replace(config, seed=seeds[0]), tasks)]
    plans += [resolve(replace(config, seed=seed), _tasks_of(config, tasks)) for seed in seeds[1:]]
    lost = {task: why for plan in plans for task, why in plan.not_asked.items()}
    return [plan.without(lost) for plan in plans] if lost else plans


def check_memory(plans: Sequence[Plan], options: RunOptions) -> None:
    """Refuse a run whose methods clearly do not fit into the memory, unless told to go on.

    Raises:
        MethodError: the message says which, and what would make them fit.
    """
    from editbench.run import loading

    # A model that is spread over devices and the disk takes what there is.
    for plan in () if options.skip_memory_check or options.device_map else plans:
        loading.check_memory(plan, options.device)


@contextmanager
def open_run(plan: Plan, identity: dict[str, object], output: Path | None) -> Iterator[RunStore]:
    """Open the run folder of ``plan`` for its cells. Ctrl-C inside keeps finished cells, and exits.

    Raises:
        RecordError: the folder holds another run, is in use, or cannot be written.
    """
    from editbench.run.config import default_output

    folder = output or default_output(plan.config, identity)
    with _reporting(folder), _store(folder, plan, identity) as store:
        yield store


@contextmanager
def open_runs(plans: Sequence[Plan], output: Path | None) -> Iterator[tuple[Path, list[RunStore]]]:
    """Open the run folder of ``plans``, which differ by their seed alone, as ``open_run`` does.

    Yield the folder, and the store of each plan. Several seeds have folders of their own in it.

    Raises:
        RecordError: as ``open_run``, or the folder holds other seeds.
    """
    from editbench.records.reading import seed_folder
    from editbench.run.config import default_output, run_identity
    from editbench.run.folder import claim_seeds, name_seeds, no_empty_run

    identities = [run_identity(plan.config) for plan in plans]
    if len(plans) == 1:
        with open_run(plans[0], identities[0], output) as store:
            yield store.path, [store]
        return
    seeds = [plan.config.seed for plan in plans]
    folder = output or default_output(plans[0].config, {**identities[0], "seed": seeds})
    with ExitStack() as stack:
        stack.enter_context(no_empty_run(folder))
        stack.enter_context(_reporting(folder))
        claim_seeds(folder, seeds)
        # All at once, so that a run of another configuration is refused before anything is
        # computed.
        stores = [
            stack.enter_context(_store(seed_folder(folder, plan.config.seed), plan, identity))
            for plan, identity in zip(plans, identities, strict=True)
        ]
        name_seeds(folder, seeds)
        yield folder, stores


@contextmanager
def _store(folder: Path, plan: Plan, identity: dict[str, object]) -> Iterator[RunStore]:
    from editbench.records.store import RunStore
    from editbench.run.folder import no_empty_run, save_cases

    # This notes what exists before the folder is opened, so that a run that fails at once leaves
    # nothing behind.
    kept = no_empty_run(folder)
    with RunStore(folder).open(identity) as store, kept:
        if not store.locked:
            console.say(
                f"{folder} cannot be locked (its drive has no locks)."
                " Do not start a second run there."
            )
        save_cases(folder, plan)
        yield store


@contextmanager
def _reporting(folder: Path) -> Iterator[None]:
    """Show progress. Ctrl-C says how to go on, and exits."""
    from editbench import progress

    try:
        with progress.reporting(console.reporter()):
            yield
    except KeyboardInterrupt:
        console.say(
            f"\nStopped. Finished methods are kept in {folder};"
            " the same command goes on from there."
        )
        raise  # the command exits with 130, and a Python session has its own exception


def run_and_show(
    config: RunConfig,
    options: RunOptions,
    checks: Sequence[Check] = (),
    seeds: Sequence[int] = (),
) -> tuple[Path, Sequence[CellSummary]]:
    """Run the cells of ``config``, as ``run_cells`` does, and show the results.

    Returns:
        The run folder and the summaries.
    """
    folder, summaries = run_cells(config, options, checks, seeds)
    if len(seeds) < 2:
        print_run(folder, summaries, options.as_json)
    else:
        print_seeds(folder, options.as_json)
    console.say_remarks([folder])  # such as a table that was lost since an earlier run
    if not options.as_json:
        _write_pages(folder)
    return folder, summaries


def run_cells(
    config: RunConfig,
    options: RunOptions,
    checks: Sequence[Check] = (),
    seeds: Sequence[int] = (),
    handle: LanguageModel | None = None,
) -> tuple[Path, Sequence[CellSummary]]:
    """Run the cells of ``config``; return the run folder and the summaries.

    Args:
        checks: what must accept the run: the tune runs whose options it uses, and its suite.
        seeds: the seeds to run ``config`` with; without any, it is run with its own.
        handle: the model of ``config``, if it is loaded already.

    Raises:
        EditbenchError: something is wrong; where possible, this is found before weights are loaded.
    """
    from editbench.records.reading import heading

    request = workers.request_of(options)
    if request is None and handle is None:
        check_is_here(options.model)  # before the tasks are read, which takes seconds
    tracker = tracking.tracker_of(options.track)
    plans = _plans(config, seeds or [config.seed], options.tasks)
    for task, reason in plans[0].not_asked.items():
        console.say(f"{heading(task)} is not asked, the rest is: {reason}")
    for check in checks:
        for plan in plans:
            check.check_facts(plan)
    if request is None:  # else each worker makes the check on its machine
        check_memory(plans, options)

    from editbench.run import runner

    with open_runs(plans, options.output) as (folder, stores):
        if not options.as_json:
            _announce(plans, options.model, folder)
        with workers.crew(options, plans, request, handle) as crew:
            for check in checks:
                check.check_model(crew.workers.identity, options.model)
            jobs = [
                runner.Job(plan, store, crew.on_cell(_prefix(plan, plans)))
                for plan, store in zip(plans, stores, strict=True)
            ]
            with tracking.telling(tracker, folder, config) as told:
                told.of(jobs, crew.workers.identity)
                return folder, runner.run_jobs(jobs, crew.workers, leave_out=True)


def _prefix(plan: Plan, plans: Sequence[Plan]) -> str:
    return f"seed {plan.config.seed}, " if len(plans) > 1 else ""


def _announce(plans: Sequence[Plan], model: str, folder: Path) -> None:
    plan, config = plans[0], plans[0].config
    n = len(plan.cases)
    facts = f"{n} fact{'s' * (n != 1)} of {named_facts(config)}" if n else "No facts"
    several = f" for each of the seeds {', '.join(str(plan.config.seed) for plan in plans)}"
    facts += several if len(plans) > 1 else ""
    methods = [name for name in config.methods if name not in config.artifacts]
    made = f", artifacts {', '.join(config.artifacts)}" if config.artifacts else ""
    tasks = f"{len(config.tasks)} retention task{'s' * (len(config.tasks) != 1)}"
    suite = f"Suite {config.suite['name']}: " if config.suite else ""
    console.say(
        f"{suite}{facts}, model {model}, methods {', '.join(methods)}{made}, {tasks}."
        f" Record: {folder}"
    )


def named_facts(config: RunConfig) -> str:
    """Return what the facts of a run are called: the file if all of it is used, or corpus, part."""
    if config.part == ALL and config.data:
        file = Path(config.data)
        # A saved edit's own facts are in its manifest.
        return file.parent.name if file.name == "manifest.json" else file.name
    if config.part == ALL:
        return config.corpus
    return f"{config.corpus} ({config.part})"


def _write_pages(folder: Path) -> None:
    pages = folder / "site"
    command = shlex.join(["editbench", "site", str(folder), "-o", str(pages)])
    site = write_site([folder], pages, command)
    page = write_page([folder], folder / "README.md", None, "site/index.html")
    console.say(
        f"\nThe same as markdown: {page}\nTo sort, filter and read every answer, open: {site}"
        f"\nTo see this again:\n  editbench show {shlex.quote(str(folder))}"
    )


def exit_if_incomplete(folder: Path, summaries: Sequence[CellSummary]) -> None:
    """Exit with 1 if a cell failed or a retention task could not be asked."""
    from editbench.records.reading import not_asked, run_folders

    failed = [summary for summary in summaries if summary["status"] == "failed"]
    folders = run_folders(folder)
    for summary in failed:
        written = [each / "cells" / summary["key"] / "summary.json" for each in folders]
        for file in filter(Path.exists, written):
            console.say(f"{summary['method']} failed; its traceback is in {file}")
    if failed or any(map(not_asked, folders)):
        raise typer.Exit(1)
