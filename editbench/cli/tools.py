"""The commands around an edit: ``stats``, ``trace``, ``export``; and the options and loading that commands share."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from editbench.errors import EditbenchError, ModelError, OptionError, RecordError

Model = Annotated[
    str,
    typer.Option(
        help="Alias (see 'editbench list models'), hub id (owner/name), local folder, .gguf file."
    ),
]
Seed = Annotated[
    int, typer.Option(help="Seed of the slice, the methods and the draw of retention items.")
]
Precision = Annotated[
    str, typer.Option(help="auto, float32 or bfloat16: of all forward passes; recorded.")
]
LayoutParts = Annotated[
    list[str],
    typer.Option("--layout", metavar="PART=PATH", help="Name a module of an unknown architecture."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else.")
]

# of the commands that run methods
CorpusName = Annotated[
    str, typer.Option("--corpus", help="See 'editbench list corpora'; 'local' reads your --data.")
]
Data = Annotated[
    str | None, typer.Option(help="File, hub id or URL for a corpus that is not built in.")
]
Count = Annotated[int, typer.Option("-n", help="Facts to inject.")]
Tasks = Annotated[
    str,
    typer.Option(
        help="Retention tasks: default, none, names of lm-eval or PATH.yaml, between commas."
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(help="Items per retention task, of a group per member, by the seed; 0 for all."),
]
TaskData = Annotated[
    list[str], typer.Option(metavar="TASK=PATH", help="Local data of a standard task.")
]
Regime = Annotated[
    str,
    typer.Option(
        help="Facts arrive all at once (batch), some at a time (sequential:CHUNK), or each alone (single)."
    ),
]
Curve = Annotated[
    str,
    typer.Option(
        metavar="N,N", help="Ask the model after the first N facts, too, and draw the curve."
    ),
]
Diagnostics = Annotated[
    str,
    typer.Option(
        help="Beside the scores, between commas: supervision, mixing, fisher, drift, errors; or all."
    ),
]
RunFolder = Annotated[Path | None, typer.Option(help="Run folder; the same folder again resumes.")]
AllowConflicts = Annotated[bool, typer.Option(help="Let one prompt have two targets.")]

stats = typer.Typer(
    help="Covariance statistics of weight editors: compute, list and inspect them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@stats.command("compute")
def stats_compute(
    source: Annotated[
        str,
        typer.Option(help="self, a text or JSONL file, a hub data set; several between commas."),
    ] = "self",
    tokens: Annotated[
        int | None,
        typer.Option(
            help="About so many; of 40,000 or more fewer where the update is stable. Default: inject's, 20,000."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="Whose layers, where --layers names none.")] = "memit",
    layers: Annotated[str | None, typer.Option(help="Such as 4-8 or 3,5.")] = None,
    model: Model = "smollm2-135m",
    seed: Seed = 0,
    precision: Precision = "auto",
    layout: LayoutParts = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Measure the second moments of a model's keys, for all layers in one pass, and keep them in the cache."""
    from editbench import progress, registry
    from editbench.cli import console
    from editbench.methods import statistics
    from editbench.options import check_seed, parse_option

    if tokens is not None and tokens < 2:
        raise OptionError(f"--tokens {tokens} is too few. Give at least 2.")
    check_seed(seed)
    editor = registry.get("methods", method)
    if not (
        editor.needs_covariance and hasattr(editor, "edited_layers")
    ):  # a pair of methods has none of its own
        raise OptionError(
            f"{method} needs no covariance, so it names no layers. Use --layers, or --method memit."
        )
    try:
        wanted = parse_option(layers, tuple[int, ...]) if layers else None
    except ValueError as error:
        raise OptionError(f"--layers {layers}: {error}.") from error
    handle = load_handle(model, precision, pairs(layout, "--layout"))
    usual = editor.from_options(method, {})
    tokens = tokens if tokens is not None else usual.covariance_tokens  # a part of the cache key
    if wanted is None:
        wanted = usual.edited_layers(handle)
    elif not wanted or min(wanted) < 0 or max(wanted) >= handle.layout.depth:
        raise OptionError(f"--layers {layers}: {model} has layers 0 to {handle.layout.depth - 1}.")
    with progress.reporting(console.reporter()):
        found = statistics.second_moments(handle, wanted, source, tokens, seed)
    records = [
        {
            "layer": layer,
            "tokens": moment.tokens,
            "width": len(moment.c_ff),
            "made": moment.origin.get("made"),
        }
        for layer, moment in found.items()
    ]
    _show(records, f"statistics of {model} on {source}", as_json)


@stats.command("list")
def stats_list(as_json: AsJson = False) -> None:
    """What is in the cache."""
    from editbench.cli import console
    from editbench.methods import statistics

    _show(statistics.listing(), "statistics", as_json)
    if not as_json:
        console.say(f"in {statistics.folder()}")


@stats.command("show")
def stats_show(
    file: Annotated[
        str,
        typer.Argument(
            help="A file, or the beginning of a name that 'editbench stats list' shows."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """One matrix: what it was measured on, its trace and condition, and how many directions hold most of it."""
    from editbench.methods import statistics

    path = Path(file)
    if not path.is_file():
        found = sorted(statistics.folder().glob(f"{path.name}*.safetensors"))
        if len(found) != 1:
            many = (
                f"{len(found)} files of the cache begin with"
                if found
                else "No file of the cache begins with"
            )
            raise RecordError(f"{many} {file!r}. See 'editbench stats list'.")
        (path,) = found
    record = statistics.inspect(path)
    _show(
        [{"what": key, "value": value} for key, value in record.items()] if not as_json else record,
        str(path),
        as_json,
    )


def trace(
    prompt: Annotated[str, typer.Argument(help='Such as "The Eiffel Tower is in the city of".')],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The heat map: a .png, .svg or .pdf file.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="A span of the prompt. Default: found by rule.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Layers restored together for mlp and attention.")
    ] = None,
    model: Model = "smollm2-135m",
    seed: Seed = 0,
    precision: Precision = "auto",
    layout: LayoutParts = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Causal tracing: which hidden states carry the model's answer to a prompt (ROME, section 2)."""
    from editbench import progress
    from editbench.cli import console
    from editbench.methods import trace as tracing
    from editbench.options import check_seed
    from editbench.types import Fact, form_of

    fact = Fact("traced", prompt, "(what the model says)", subject, form=form_of(prompt))
    if output is not None and output.suffix not in (".png", ".svg", ".pdf"):
        raise OptionError(f"--output {output} is no .png, .svg or .pdf file.")
    if window is not None and window < 1:
        raise OptionError(f"--window {window} must be at least 1.")
    check_seed(seed)
    handle = load_handle(model, precision, pairs(layout, "--layout"))
    with progress.reporting(console.reporter()):
        found = tracing.trace(handle, fact, window=window, seed=seed)
    if as_json:
        print(json.dumps(found.to_dict()))
        _heat_map(found, output)
        return
    first, last = found.subject
    rows = [
        {
            "token": token + (" *" if first <= i <= last else ""),
            **{f"{kind}: best layer": _best(found.effect(kind)[i]) for kind in found.scores},
        }
        for i, token in enumerate(found.tokens)
    ]
    page = console.out()
    page.print(
        console.listing(
            rows,
            f"p({found.answer!r}) {found.high:.3f}, with noise on the subject (*) {found.low:.3f}",
        )
    )
    if found.high - found.low < 0.02:
        console.say(
            "The noise hardly changes the answer, so there is little to find. Ask for something that the model knows."
        )
    _heat_map(found, output)
    if output is not None:
        page.print(f"Heat map: {output}", markup=False)


def _heat_map(found: Any, output: Path | None) -> None:
    """Draws ``output``, after what was found is said: a folder that cannot be written costs only the picture.

    Raises:
        RecordError: it cannot be written.
    """
    if output is None:
        return
    from editbench.methods import trace as tracing

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        tracing.heat_map(found, str(output))
    except OSError as error:
        raise RecordError(f"{output} cannot be written: {error.strerror}.") from error


def _best(effect_L: Any) -> str:
    layer = int(effect_L.argmax())
    return f"{layer} ({effect_L[layer]:+.3f})"


def export(
    edit: Annotated[Path, typer.Argument(help="A folder that 'editbench inject' wrote.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    form: Annotated[
        str, typer.Option("--format", help="peft: a LoRA adapter; merged: the edited model.")
    ] = "peft",
    model: Annotated[
        str | None, typer.Option(help="The base model. Default: the one that the edit names.")
    ] = None,
    layout: LayoutParts = [],  # noqa: B006
) -> None:
    """Write an edit for other tools: a PEFT adapter, or a plain Hugging Face folder."""
    from editbench.cli import console
    from editbench.edit import Edit

    stored = Edit.load(edit)

    from editbench import export as exporting

    if form not in exporting.FORMATS:
        raise OptionError(f"--format {form!r} is not one of {', '.join(exporting.FORMATS)}.")
    handle = load_handle(model or stored.model_name, "auto", pairs(layout, "--layout"))
    folder = exporting.export(stored, handle, form, output)
    use = (
        f"PeftModel.from_pretrained(model, {str(folder)!r})"
        if form == "peft"
        else f"AutoModelForCausalLM.from_pretrained({str(folder)!r})"
    )
    console.out().print(f"Written to {folder}. Load it with {use}.", markup=False)


# --- what all commands share --------------------------------------------------------------------------------


def _show(records: list[dict[str, Any]] | dict[str, Any], title: str, as_json: bool) -> None:
    from editbench.cli import console

    if as_json:
        print(json.dumps(records, indent=2))
    else:
        console.out().print(console.listing(records, title))


def load_handle(model: str, precision: str, layout: dict[str, str]) -> Any:
    """The model, its layout checked where parts of it are named.

    Raises:
        ModelError: whatever the files hold that no library expects.
    """
    from editbench.models import load_model

    try:
        handle = load_model(model, precision=precision, layout=layout)
    except (EditbenchError, MemoryError):
        raise
    except Exception as error:  # transformers and safetensors raise what they like on damaged files
        reason = (str(error).strip().splitlines() or [""])[0]
        what = f"{type(error).__name__}: {reason}"
        raise ModelError(
            f"Model {model!r} could not be loaded ({what}). Is a file damaged?"
        ) from error
    if layout:
        handle.layout  # noqa: B018 - derived on first use, and a wrong name is better told now
    return handle


def whole_path(text: str | None) -> str | None:
    """``text``, where it names a local file or folder as its absolute path: a record must not depend on where it was made.
    Links are left as they are, since what they lead to may have another ending."""
    return (
        os.path.abspath(Path(text).expanduser())
        if text and Path(text).expanduser().exists()
        else text
    )


def pairs(texts: list[str], flag: str) -> dict[str, str]:
    """``["a=b"]`` as a dict.

    Raises:
        OptionError: a text without '=', or a key given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"{flag} {text!r} has no '='. Write it as {flag} NAME=VALUE.")
        if key.strip() in found:
            raise OptionError(f"{flag} {key.strip()} is given twice.")
        found[key.strip()] = value.strip()
    return found


def method_names(text: str) -> tuple[str, ...]:
    """The methods and variants that ``--methods`` names; imports none of them.

    Raises:
        OptionError: no name, or a label that METHOD.KEY=VALUE could not be read with.
        UnknownNameError: no such method.
    """
    from editbench import registry

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise OptionError("--methods names no method. See 'editbench list methods'.")
    for name in names:
        method, at, label = name.partition("@")
        registry.check("methods", method)
        if at and not re.fullmatch(r"[A-Za-z0-9_-]+", label):
            raise OptionError(
                f"--methods {name}: the label {label!r} is not letters, digits, - and _. Write it as {method}@LABEL, "
                f"with --option {method}@LABEL.KEY=VALUE; to try values of an option use 'editbench sweep --method {method}'."
            )
    return names


def diagnostic_names(text: str) -> tuple[str, ...]:
    """The diagnostics between the commas of ``text``, ``all`` or none; whether there are such, the runner says."""
    from editbench.run.catalog import diagnostic_names as names

    if text.strip() == "all":
        return names()
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def tell_cell(name: str, state: str) -> None:
    """Says how far the cell ``name`` is."""
    from editbench.cli import console

    words = {"start": "...", "done": "done", "kept": "kept from an earlier run", "failed": "FAILED"}
    console.say(f"{name}: {words[state]}")


def fact_counts(text: str) -> tuple[int, ...]:
    """The numbers between the commas of ``text``.

    Raises:
        OptionError: something that is no number of facts.
    """
    counts = [part.strip() for part in text.split(",") if part.strip()]
    for count in counts:
        if not count.isdecimal():
            raise OptionError(
                f"--curve {text}: {count!r} is no number of facts. Write --curve 1,10,100."
            )
    return tuple(sorted({int(count) for count in counts}))


def method_options(texts: list[str]) -> dict[str, dict[str, str]]:
    """``["METHOD.KEY=VALUE"]`` by method or variant."""
    options: dict[str, dict[str, str]] = {}
    for key, value in pairs(texts, "--option").items():
        method, dot, name = key.partition(".")
        if not dot:
            raise OptionError(
                f"--option {key}={value} names no method. Write it as --option METHOD.{key}={value}."
            )
        options.setdefault(method, {})[name] = value
    return options


def own_options(texts: list[str], method: str, flag: str) -> dict[str, str]:
    """``["KEY=VALUE"]`` of one method, whose name may stand in front: ``METHOD.KEY=VALUE``."""
    return pairs([text.strip().removeprefix(f"{method}.") for text in texts], flag)


def variants(method: str, over: list[str], option: list[str]) -> dict[str, dict[str, str]]:
    """``METHOD@KEY=VALUE`` to the options of that point: every combination of the values in ``over``, beside ``option``.

    Raises:
        OptionError: an option without values, or one that both name.
    """
    fixed, axes = own_options(option, method, "--option"), own_options(over, method, "--over")
    grid = []
    for key, text in axes.items():
        if key in fixed:
            raise OptionError(f"Both --over and --option set {key!r}. Give one of them.")
        values = [value.strip() for value in text.split(",") if value.strip()]
        if not values:
            raise OptionError(f"--over {key} names no value. Write it as --over {key}=VALUE,VALUE.")
        twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
        if twice:
            raise OptionError(f"--over {key} names {twice} twice. Name it once.")
        grid.append([(key, value) for value in values])
    return {
        f"{method}@{','.join(f'{key}={value}' for key, value in point)}": {**fixed, **dict(point)}
        for point in itertools.product(*grid)
    }
