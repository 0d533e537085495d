"""``editbench inject``: put your facts into a model, and show its answers before and after."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editbench import processes, unfinished
from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import completion, console, panels
from editbench.cli.evaluate import MinEfficacy, MinRetention, Tasks, score
from editbench.cli.loading import how_to_load, load, load_base, read_edit
from editbench.cli.options import (
    AllowConflicts,
    BatchSize,
    ColumnOptions,
    Device,
    DeviceMap,
    Dtype,
    LayoutParts,
    Overwrite,
    Precision,
    RunOptions,
    SkipMemoryCheck,
    with_options,
)
from editbench.cli.output import saving_folder
from editbench.cli.parsing import own_options, pairs
from editbench.cli.remove import beside
from editbench.cli.running import STOPPED
from editbench.cli.verdict import print_verdict
from editbench.errors import FactError, OptionError
from editbench.files import EDIT_FILES, PARTS, check_folder
from editbench.types import check_facts

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.plugin import Method
    from editbench.types import Case, Fact


@with_options
def inject(
    columns: ColumnOptions,
    facts: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Your facts: a table (CSV, Excel, Parquet) or JSON with at least prompt and"
            " target.",
            rich_help_panel=panels.FACTS,
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="A new folder for the edit.", rich_help_panel=panels.OUTPUT)
    ],
    method: Annotated[
        str | None,
        typer.Option(
            help="See 'editbench list methods'.  [with --on by default that of the edit, with its"
            " options]",
            autocompletion=completion.methods,
            rich_help_panel=panels.METHODS,
        ),
    ] = None,
    on: Annotated[
        Path | None,
        typer.Option(
            metavar="EDIT",
            help="Inject on top of this saved edit. The new folder holds the facts of both.",
            rich_help_panel=panels.METHODS,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Alias (see 'editbench list models'), hub id (owner/name), local folder or .gguf"
            f" file.  [default: {DEFAULT_MODEL}; with --on, the one that the edit names]",
            rich_help_panel=panels.MODEL,
        ),
    ] = None,
    option: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of the method (see 'editbench list METHOD'); repeatable.",
            rich_help_panel=panels.METHODS,
        ),
    ] = [],  # noqa: B006 - Typer reads it, nothing changes it
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the method.  [default: 0; with --on, that of the edit]",
            rich_help_panel=panels.METHODS,
        ),
    ] = None,
    precision: Precision = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    batch_size: BatchSize = "auto",
    allow_conflicts: AllowConflicts = False,
    layout: LayoutParts = [],  # noqa: B006
    skip_memory_check: SkipMemoryCheck = False,
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate",
            help="Then score the edit, as 'editbench evaluate' does.",
            rich_help_panel=panels.RETENTION,
        ),
    ] = False,
    tasks: Tasks = "default",
    min_efficacy: MinEfficacy = None,
    min_retention: MinRetention = None,
    overwrite: Overwrite = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep the state of a long training there. If it is killed, the same command goes"
            " on from there.",
            rich_help_panel=panels.OUTPUT,
        ),
    ] = None,
) -> None:
    """Put your facts into a model, and save the edit.

    Then the edited model is asked for the facts, and a verdict is given. The exit code is 1 if
    fewer than 80% of the facts are answered with their target, or if the edit blew up: the model's
    own text has become 10 times as perplexing to it, or a weight 10 times as large. The edit is
    saved all the same.

    In several processes (accelerate launch, torchrun) they train together, and the first one saves
    the edit and asks the model.
    """
    processes.join()
    # Names and files are checked first, because importing the method loads torch.
    _check_names(method, on, option)
    cases = _cases(facts, columns)
    chosen = [case.fact for case in cases]
    check_folder(output, overwrite, (*EDIT_FILES, PARTS))
    check_facts(chosen, allow_conflicts)
    if on is not None:
        _check_on(on, chosen, allow_conflicts, facts, columns, model, output)
    console.begin()

    from editbench import progress
    from editbench.run.evaluation import Least
    from editbench.run.life import injected
    from editbench.run.verdict import judge

    least = Least(min_efficacy, min_retention)
    if not evaluate and (tasks != "default" or least != Least()):
        raise OptionError("--tasks and --min-... are about --evaluate. Add it, or leave them out.")
    below = None if on is None else read_edit(on)
    _warn_of_same_answers(chosen)
    parts = pairs(layout, "--layout")
    editor = _editor(method, option, seed, below, facts)
    editor.check_subjects(editor.name, chosen)
    _check_processes(editor, chosen, device_map)
    # What several processes can share depends on the batch alone, and so does what can go on.
    if checkpoint and not editor.over_processes:
        raise OptionError(
            f"{editor.name} has no long training whose state could be kept. Leave --checkpoint out."
        )
    name = model or (DEFAULT_MODEL if below is None else below.model_name)
    how = how_to_load(dtype, device, device_map, batch_size)
    # The prediction is for one process, which trains all weights alone.
    if not (skip_memory_check or device_map or processes.count() > 1):
        from editbench.doctor import check_memory

        held = below.model_dtype if below and dtype == "auto" else dtype
        check_memory(name, {editor.name: editor}, chosen, precision, parts, 0, held, device)
    saved = False
    first = processes.is_first()
    folder = saving_folder(output, overwrite) if first else nullcontext()
    state = unfinished.kept_in(checkpoint) if checkpoint else nullcontext()
    with folder, progress.reporting(console.reporter()), state:
        try:
            if on is None or below is None:
                handle = load(name, precision, parts, how)
            else:
                handle = load_base(on, below, model, precision, parts, how)
            edit = injected(handle, chosen, editor, below)
            if not first:
                return
            # Before the model is asked: Ctrl-C while it answers must not lose the edit.
            edit.save(output, overwrite)
            saved = True
            verdict = judge(handle, edit, cases)
            verdict.write(output)
        except KeyboardInterrupt:
            console.say(
                f"\nStopped; the edit is saved in {output}."
                if saved
                else "\nStopped; nothing was written."
            )
            raise typer.Exit(STOPPED) from None
    print_verdict(verdict, edit, handle, output)
    if evaluate:
        del handle  # it is loaded again, and need not be held twice
        options = RunOptions(
            **vars(columns),
            model=name,
            precision=precision,
            device=device,
            device_map=device_map,
            batch_size=batch_size,
            layout=layout,
            skip_memory_check=skip_memory_check,
            facts=str(facts),
            allow_conflicts=allow_conflicts,
            tasks=tasks,
        )
        if below is not None:
            console.say(
                f"Asked about the {len(chosen)} new facts. All {len(edit.facts)}:"
                f" editbench evaluate {shlex.quote(str(output))}"
            )
        score(output, options, least)
    if verdict.faults():
        raise typer.Exit(1)


def _check_names(method: str | None, on: Path | None, option: Sequence[str]) -> None:
    """Check what can be checked without torch.

    Raises:
        EditbenchError: there is no such method, none is named, or an option is no KEY=VALUE.
    """
    from editbench import registry

    if method is not None:
        registry.check("methods", method)
    elif on is None:
        raise OptionError(
            "--method is missing. Name one, such as memit or sft; see 'editbench list methods'."
        )
    own_options(option, method or "", "--option")


def _check_on(
    on: Path,
    chosen: Sequence[Fact],
    allow_conflicts: bool,
    facts: Path,
    columns: ColumnOptions,
    model: str | None,
    output: Path,
) -> None:
    """Check that the new facts go with those of the edit ``on``.

    Raises:
        FactError: they contradict each other. The message has the commands that change a fact.
        OptionError: the edit has an id already.
    """
    from editbench.run.on_top import changed, check_on, clash, facts_in

    taught = facts_in(on)
    clashes = [] if allow_conflicts else changed(taught, chosen)
    if not clashes:
        check_on(taught, chosen, allow_conflicts)
        return
    old = list(dict.fromkeys(earlier.id for earlier, _ in clashes))
    names = [
        each for name, column in columns.columns.items() for each in (f"--{name}-column", column)
    ]
    base = [] if model is None else ["--model", model]
    new = ["--facts", str(facts), *names, *base, "--output", str(output)]
    left = beside(on, old)
    if len(old) == len(taught):
        what = "All facts of the edit are changed, so inject them into the base instead:"
        commands = [["inject", "--method", "METHOD", *new]]
    else:
        what = "To change a fact, take the old one out, and inject the new one on what is left:"
        gone = [each for name in old for each in ("--fact", name)]
        commands = [
            ["remove", str(on), *gone, *base, "--output", str(left)],
            ["inject", "--on", str(left), *new],
        ]
    lines = "".join(f"\n  editbench {shlex.join(command)}" for command in commands)
    more = f" ({len(clashes) - 1} more are changed.)" if len(clashes) > 1 else ""
    raise FactError(
        f"{clash(*clashes[0], str(on))}{more} {what}{lines}\nTo teach both, pass --allow-conflicts."
    )


def _cases(facts: Path, columns: ColumnOptions) -> list[Case]:
    from editbench import registry

    corpus = registry.get("corpora", "local")()
    corpus.columns = columns.columns
    cases = corpus.load(facts)
    for remark in corpus.remarks:
        console.say(remark)
    return cases


def _editor(
    method: str | None, option: Sequence[str], seed: int | None, below: Edit | None, facts: Path
) -> Method:
    """Return the method that is asked for, or that of the edit below.

    Raises:
        OptionError: an option is wrong, or its edits cannot be saved.
    """
    from editbench.run.life import method_for
    from editbench.stack import parts_of

    name = method or parts_of(below)[-1].method if below else str(method)
    given: dict[str, object] = {} if seed is None else {"seed": seed}
    given |= own_options(option, name, "--option")
    editor = method_for(method, given, below)
    if editor.live:
        raise OptionError(
            f"An edit by {name} is a model in a process of its own and no change of weights, so "
            "it cannot be saved. See what it does with 'editbench compare --methods "
            f"{name} --facts {facts}'."
        )
    return editor


def _check_processes(editor: Method, facts: Sequence[Fact], device_map: str | None) -> None:
    """Check that the processes, if there are several, can share the work and have the same one.

    Raises:
        EditbenchError: they cannot, or they differ.
    """
    processes.check_may(editor.name, editor.over_processes)
    if processes.count() == 1:
        return
    from editbench.run.keys import code_digest
    from editbench.types import digest

    if device_map:
        raise OptionError(
            "--device-map spreads the model of one process over devices, and "
            f"{processes.count()} processes were launched, each with a device of its own. Leave "
            "one of them out."
        )
    processes.check_alike(
        {
            "editbench (its code)": code_digest(),
            "the method": editor,
            "the facts": digest([asdict(fact) for fact in facts])[:16],
        }
    )


def _warn_of_same_answers(facts: Sequence[Fact]) -> None:
    """Name the facts whose new answer cannot be told from the old one. They are taught anyway."""
    from editbench.types import same_answer_already

    for fact in facts:
        if same := same_answer_already(fact):
            console.say(f"Fact {fact.id!r}: {same} The answers cannot show whether it was taught.")
