"""The options that commands share; ``ColumnOptions`` and ``RunOptions`` hold groups of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Annotated, get_type_hints

import typer
from typer.models import OptionInfo

from editbench.aliases import DEFAULT as DEFAULT_MODEL
from editbench.cli import completion, panels

DEFAULT_CORPUS = "demo-counterfact"
DEFAULT_N = 50

Model = Annotated[
    str,
    typer.Option(
        help="Alias (see 'editbench list models'), hub id (owner/name), local folder or"
        " .gguf file.",
        rich_help_panel=panels.MODEL,
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option(
        help="The base model.  [default: the one that the edit names]",
        rich_help_panel=panels.MODEL,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="Precision of all forward passes: auto, float32 or bfloat16.",
        rich_help_panel=panels.MODEL,
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="In which type weights are held: auto (the checkpoint's own), float32, bfloat16 or"
        " float16.",
        rich_help_panel=panels.MODEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|cuda:N|mps|xpu",
        help="Where the model is; auto: on a GPU of NVIDIA or AMD if there is one, else cpu.",
        rich_help_panel=panels.MODEL,
    ),
]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        metavar="auto",
        help="Spread the model over all GPUs, the CPU and the disk, by Accelerate.",
        rich_help_panel=panels.MODEL,
    ),
]
BatchSize = Annotated[
    str,
    typer.Option(
        metavar="auto|N",
        help="Texts that are scored or written together, and facts that are solved together."
        " Where they do not fit into memory, half as many.",
        rich_help_panel=panels.MODEL,
    ),
]
LayoutParts = Annotated[
    list[str],
    typer.Option(
        "--layout",
        metavar="PART=PATH",
        help="Name a module of an architecture that editbench does not know; repeatable.",
        rich_help_panel=panels.MODEL,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Seed of the slice of facts, of the methods and of the draw of retention items.",
        rich_help_panel=panels.FACTS,
    ),
]
SkipMemoryCheck = Annotated[
    bool,
    typer.Option(
        "--skip-memory-check",
        help="Load the model even if a method is predicted to need more memory than there is.",
        rich_help_panel=panels.MODEL,
    ),
]
AllowConflicts = Annotated[
    bool,
    typer.Option(
        help="Accept facts that give one prompt two targets.", rich_help_panel=panels.FACTS
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace the files of an earlier output in that folder.",
        rich_help_panel=panels.OUTPUT,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON value on stdout and nothing else.",
        rich_help_panel=panels.OUTPUT,
    ),
]
Diagnostics = Annotated[
    str,
    typer.Option(
        metavar="NAME,NAME",
        help="Also measure: supervision, positions, mixing, fisher, drift, errors; or all.",
        rich_help_panel=panels.RETENTION,
    ),
]


Tasks = Annotated[
    str,
    typer.Option(
        help="Retention tasks, separated by commas: default, none, names of lm-eval tasks,"
        " or PATH.yaml.",
        rich_help_panel=panels.RETENTION,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        help="Items per retention task (per member of a task group), drawn with the seed;"
        " 0 for all.",
        rich_help_panel=panels.RETENTION,
    ),
]
TaskData = Annotated[
    list[str],
    typer.Option(
        metavar="TASK=PATH",
        help="Local data of a standard task; repeatable.",
        rich_help_panel=panels.RETENTION,
    ),
]


def _column(contents: str) -> OptionInfo:
    option: OptionInfo = typer.Option(metavar="NAME", help=contents, rich_help_panel=panels.COLUMNS)
    return option


@dataclass(frozen=True)
class ColumnOptions:
    """The options that name the columns of a file of facts, for every command that reads one.

    A field ``prompt_column`` is the option ``--prompt-column`` (``with_options``).
    """

    prompt_column: Annotated[str | None, _column("Prompt.")] = None
    target_column: Annotated[str | None, _column("Target: the new answer.")] = None
    subject_column: Annotated[str | None, _column("Subject: a span of the prompt.")] = None
    original_column: Annotated[str | None, _column("Answer before the edit.")] = None
    aliases_column: Annotated[str | None, _column("Other wordings of the target.")] = None
    paraphrases_column: Annotated[str | None, _column("Other wordings of the prompt.")] = None
    relation_column: Annotated[str | None, _column("Name of the relation.")] = None
    id_column: Annotated[str | None, _column("Name of the fact.")] = None

    @property
    def columns(self) -> dict[str, str]:
        """Return field of a fact -> name of its column, for the options that were given."""
        given = {shared.name: getattr(self, shared.name) for shared in fields(ColumnOptions)}
        return {name.removesuffix("_column"): column for name, column in given.items() if column}


@dataclass(frozen=True)
class RunOptions(ColumnOptions):
    """The options that ``compare``, ``tune`` and ``sweep`` share.

    Each field is an option of these commands (``with_options``); its annotation holds the help.
    """

    model: Model = DEFAULT_MODEL
    precision: Precision = "auto"
    dtype: Dtype = "auto"
    device: Device = "auto"
    device_map: DeviceMap = None
    batch_size: BatchSize = "auto"
    layout: LayoutParts = field(default_factory=list)
    skip_memory_check: SkipMemoryCheck = False
    corpus: Annotated[
        str | None,
        typer.Option(
            help=f"Corpus of facts (see 'editbench list corpora').  [default: {DEFAULT_CORPUS}]",
            autocompletion=completion.corpora,
            rich_help_panel=panels.FACTS,
        ),
    ] = None
    facts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Your own facts, instead of a --corpus; short for --corpus local --data FILE."
            " With compare --artifact also none: retention alone.",
            rich_help_panel=panels.FACTS,
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            help="File, hub id or URL of a corpus that is not built in.",
            rich_help_panel=panels.FACTS,
        ),
    ] = None
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            help=f"Number of facts to inject.  [default: {DEFAULT_N}; of your own facts, all]",
            rich_help_panel=panels.FACTS,
        ),
    ] = None
    regime: Annotated[
        str,
        typer.Option(
            help="How facts arrive: all at once (batch), in chunks on one model"
            " (sequential:CHUNK), or each on a fresh model (single).",
            rich_help_panel=panels.FACTS,
        ),
    ] = "batch"
    seed: Seed = 0
    allow_conflicts: AllowConflicts = False
    tasks: Tasks = "default"
    limit: Limit = 100
    task_data: TaskData = field(default_factory=list)
    output: Annotated[
        Path | None,
        typer.Option(
            help="Run folder. An unfinished run in it is resumed.", rich_help_panel=panels.OUTPUT
        ),
    ] = None
    track: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Also tell another system of each cell, such as wandb (see 'editbench list"
            " trackers').",
            rich_help_panel=panels.OUTPUT,
        ),
    ] = ""
    as_json: AsJson = False
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Compute cells in N processes at once, by Ray; auto: one for each GPU, or without"
            " GPUs one a machine. Needs editbench[ray].",
            rich_help_panel=panels.WORKERS,
        ),
    ] = None
    gpus_per_cell: Annotated[
        float | None,
        typer.Option(
            metavar="G",
            help="GPUs of each process; below 1 they share one.  [default: 1 if there are any]",
            rich_help_panel=panels.WORKERS,
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT",
            help="The Ray cluster; auto: the one that runs here, or one that is started for this"
            " run.",
            rich_help_panel=panels.WORKERS,
        ),
    ] = None


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command``, whose first parameter is a dataclass, one option for each of its fields.

    Typer reads options off a function's signature. The returned function therefore has the fields
    of the dataclass and the command's own parameters in its signature. When called, it makes an
    instance of the fields and passes it on.
    """
    hints = get_type_hints(command, include_extras=True)
    first, *own = inspect.signature(command).parameters.values()
    collect: type[ColumnOptions] = hints[first.name]
    shared = _shared_parameters(collect)

    @functools.wraps(command)
    def expanded(**given: object) -> None:
        own = {p.name: given.pop(p.name) for p in shared}
        command(collect(**own), **given)  # type: ignore[arg-type]

    # Keyword-only parameters may come in any order, whichever of them have defaults.
    keyword = inspect.Parameter.KEYWORD_ONLY
    # inspect.signature, which Typer calls, prefers this attribute to the real parameters.
    expanded.__dict__["__signature__"] = inspect.Signature(
        [*shared, *(p.replace(kind=keyword, annotation=hints[p.name]) for p in own)]
    )
    return expanded


def _shared_parameters(collect: type[ColumnOptions]) -> list[inspect.Parameter]:
    hints = get_type_hints(collect, include_extras=True)
    return [
        inspect.Parameter(
            shared.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(shared),
            annotation=hints[shared.name],
        )
        for shared in fields(collect)
    ]


def _default(shared: Field[object]) -> object:
    return shared.default if shared.default_factory is MISSING else shared.default_factory()
