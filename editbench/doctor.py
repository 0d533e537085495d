"""Say before a weight is loaded whether a model and its edits fit on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, cast

import psutil
import torch

from editbench import chat_template
from editbench.checkpoints import damaged, located
from editbench.errors import EditbenchError, MethodError, ModelError
from editbench.hub import cache_dir
from editbench.memory import Memory, Phase, Texts, free_bytes, gibibytes
from editbench.models import native_precision
from editbench.outline import Outline, read_outline, read_tokenizer
from editbench.pace import Pace, measure
from editbench.plugin import Method
from editbench.types import Fact

CLEARLY = 1.15
"""A run is refused when it would need this many times what is free: so far off a prediction may be
(``benchmarks/doctor.py``)."""


GO_ON = "--skip-memory-check goes on nevertheless, and the system may then kill the process."


class Unsaid(MethodError):
    """What a method declares of its needs cannot be used: a plug-in has a fault."""


@dataclass(frozen=True)
class Place:
    """The memory of a device: what a phase holds there, and what there is."""

    name: str
    """``cpu``, ``cuda``, ..."""
    held: Mapping[str, int]
    """Bytes by what they are, largest first."""
    free: int
    """Bytes that this process can have there, those that it has already included."""

    @property
    def needed(self) -> int:
        """Bytes that are held in all."""
        return sum(self.held.values())

    @property
    def share(self) -> float:
        """Needed bytes as a share of those that are free."""
        return self.needed / max(self.free, 1)


@dataclass(frozen=True)
class Prediction:
    """What a method needs of the memory."""

    phase: str
    """The phase that needs most, measured by what is free."""
    places: Sequence[Place]
    """The devices in that phase: where the model is, and the main memory if that is another."""
    edit: int
    """Bytes of the edit on the disk."""

    @property
    def tightest(self) -> Place:
        """The device that is filled most."""
        return max(self.places, key=lambda place: place.share)

    @property
    def fits(self) -> bool:
        """Whether it needs no more than there is, by this prediction."""
        return self.tightest.share <= 1


def predict(method: Method, model: Outline, texts: Texts) -> Prediction | None:
    """Return what ``method`` needs for ``texts``; ``None`` if it does not say.

    Raises:
        ModelError, MethodError: it cannot edit such a model; ``Unsaid``: it fails to say.
    """
    try:
        memory = method.memory(model, texts)
        if memory is None:
            return None
        # Without phases, as the baselines, it holds what the answers to a batch of prompts take.
        moments = (*memory.phases, _asking(model, memory, texts))
        phases = [_places(phase, model) for phase in moments]
        name, places = max(phases, key=lambda phase: max(place.share for place in phase[1]))
    except EditbenchError:
        raise
    except Exception as error:  # of a plug-in, whose option may also be called ``memory``
        raise Unsaid(f"{type(method).__name__}.memory: {type(error).__name__}: {error}") from error
    return Prediction(name, places, memory.edit)


ASKED_AT_ONCE, ANSWER = 96, 32
"""Prompts that are answered together (``LanguageModel.generate_ids``), and tokens of an answer."""


def _asking(model: Outline, memory: Memory, texts: Texts) -> Phase:
    """Return the phase in which the edited model is asked; its unedited weights are kept."""
    rows = min(ASKED_AT_ONCE, 4 * texts.facts)  # a fact has several probes
    changed = min(memory.edit, model.weights)
    device = {"kept copy": changed, **model.writing(rows, texts.prompt, ANSWER)}
    return Phase("asking the edited model", device, {"edit": memory.edit})


def _places(phase: Phase, model: Outline) -> tuple[str, list[Place]]:
    """Return the name of a phase, and what it holds on each device."""
    # What Python and the libraries take is there already; it is measured, not predicted.
    process = psutil.Process().memory_info().rss
    main = {"this process": process, **phase.main}
    device = {"weights": model.weights, **phase.device}
    cpu = torch.device("cpu")
    if model.device.type == "cpu":
        both = {**device}
        for what, size in main.items():
            both[what] = both.get(what, 0) + size
        return phase.name, [_place(cpu, both, model.free + process)]
    return phase.name, [
        _place(model.device, device, model.free),
        _place(cpu, main, free_bytes(cpu) + process),
    ]


def _place(device: torch.device, held: Mapping[str, int], free: int) -> Place:
    largest = sorted(held.items(), key=lambda pair: -pair[1])
    return Place(device.type, {what: size for what, size in largest if size}, free)


def remedy(label: str, method: Method, model: Outline, texts: Texts) -> list[str] | None:
    """Return the mildest flags with which ``method`` fits; ``None`` if none do.

    Its own options come first. Without bfloat16 there are no copies of the weights in it.
    """
    widths = {"": model}
    if model.casts:
        widths["--precision float32"] = replace(model, precision="float32")
    for flag, outline in widths.items():
        for options in ({}, *_lighter(method, outline)):
            # Not together with its others, or not an option of a plug-in.
            with suppress(ValueError, TypeError, MethodError, ModelError):
                changed = replace(method, **cast("dict[str, Any]", options))
                lighter = predict(changed, outline, texts)
                if lighter is not None and lighter.fits:
                    given = [f"--option {label}.{option}" for option in as_typed(options)]
                    return [*given, *filter(None, [flag])]
    return None


def _lighter(method: Method, model: Outline) -> list[Mapping[str, object]]:
    """Return ``method.lighter``; nothing where a plug-in fails to say it."""
    with suppress(Exception):
        return list(method.lighter(model))
    return []


def check_memory(
    name: str,
    methods: Mapping[str, Method],
    facts: Sequence[Fact],
    precision: str = "auto",
    layout: Mapping[str, str] | None = None,
    at_once: int = 0,
    dtype: str = "auto",
    device: str = "auto",
) -> None:
    """Refuse methods that clearly do not fit into the memory, before ``name`` is loaded.

    Nothing is said of a model whose configuration cannot be read, which loading it will report, nor
    of a method that does not say what it holds, or that cannot edit such a model.

    Args:
        at_once: most facts of one injection; 0: all.

    Raises:
        MethodError: one clearly does not fit. The message says what it needs, what there is, and
            with which options it would fit.
    """
    try:
        model = read_outline(name, precision, layout, dtype, device)
    except EditbenchError:
        return
    weights = _places(Phase("loading"), model)[1][0]
    if weights.share > CLEARLY:
        raise MethodError(
            f"{name} takes {gibibytes(model.weights)} in {model.dtype}, and "
            f"{gibibytes(weights.free)} of {_memory_of(weights)} are there. Use a smaller model, "
            f"or a machine with more memory. {GO_ON}"
        )
    texts = Texts.of(facts)
    texts = replace(texts, facts=min(texts.facts, at_once or texts.facts))
    too_large: dict[str, str] = {}
    for label, method in methods.items():
        with suppress(ModelError, MethodError):
            predicted = predict(method, model, texts)
            if predicted and predicted.tightest.share > CLEARLY:
                # One sentence a method: the trials of a search are many.
                key = label.partition("@")[0]
                too_large.setdefault(key, refusal(label, method, model, texts, predicted))
    if too_large:
        raise MethodError("\n".join([*too_large.values(), GO_ON]))


def refusal(label: str, method: Method, model: Outline, texts: Texts, predicted: Prediction) -> str:
    """Return why ``method`` does not fit, and what would, in one or two sentences."""
    place = predicted.tightest
    parts = ", ".join(f"{what} {gibibytes(size)}" for what, size in list(place.held.items())[:4])
    flags = remedy(label, method, model, texts)
    advice = (
        f"It fits with {' '.join(flags)}."
        if flags
        else "None of its options makes it fit; use a smaller model or another method."
    )
    return (
        f"{label} would need {gibibytes(place.needed)} of {_memory_of(place)} for {model.name} "
        f"({parts}), and {gibibytes(place.free)} are there. {advice}"
    )


def _memory_of(place: Place) -> str:
    return "memory" if place.name == "cpu" else f"memory of {place.name}"


def as_typed(options: Mapping[str, object]) -> Iterator[str]:
    """Yield options as they are typed: KEY=VALUE."""
    for key, value in options.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        yield f"{key}={text.lower() if isinstance(value, bool) else text}"


class MethodReport(TypedDict):
    """What the doctor says of a method; sizes in bytes."""

    method: str
    needed: int | None
    """``None``: not known, or the method cannot edit this model; ``note`` says which."""
    held: Mapping[str, int]
    phase: str
    fits: bool | None
    """``None``: it does not say what it needs."""
    fits_with: list[str] | None
    """Flags with which it would fit, if it does not; ``None`` if none would do."""
    edit: int
    minutes: float | None
    """Of ``prepare`` and ``inject`` with nothing in the cache; ``None``: not known."""
    note: str


class Report(TypedDict):
    """What the doctor says; sizes in bytes."""

    model: str
    parameters: int
    weights: int
    dtype: str
    device: str
    free: int
    precision: str
    methods: list[MethodReport]
    findings: list[str]


def examine(
    model: Outline,
    methods: Mapping[str, Method],
    texts: Texts,
    folder: Path,
    timed: bool = False,
) -> Report:
    """Return what is known of ``model`` and of ``methods`` with it on this machine.

    Args:
        folder: where edits would be written.
        timed: measure how fast this machine is, and say how long each method takes.
    """
    rows = [_examined(label, method, model, texts) for label, method in methods.items()]
    lines = list(findings(model, [row["edit"] for row in rows], folder))
    if timed:
        pace = measure(model)  # after the memory was predicted, since it takes some itself
        if pace is None:
            lines.append(NOT_TIMED)
        for row in rows:
            if row["needed"] is not None:
                row["minutes"] = _minutes(methods[row["method"]], model, texts, pace)
    notes = " ".join(row["note"] for row in rows)
    return {
        "model": model.name,
        "parameters": model.parameters,
        "weights": model.weights,
        "dtype": model.dtype,
        "device": model.device.type,
        "free": model.free,
        "precision": model.precision,
        "methods": rows,
        "findings": [
            line
            for line in lines
            # why weight editors cannot edit it stands beside each of them already
            if not (line.startswith(UNWRITABLE) and line.removeprefix(UNWRITABLE) in notes)
        ],
    }


def _examined(label: str, method: Method, model: Outline, texts: Texts) -> MethodReport:
    nothing: MethodReport = {
        "method": label,
        "needed": None,
        "held": {},
        "phase": "",
        "fits": False,
        "fits_with": None,
        "edit": 0,
        "minutes": None,
        "note": "",
    }
    try:
        predicted = predict(method, model, texts)
    except Unsaid as error:
        return {**nothing, "fits": None, "note": f"fails to say what it needs ({error})"}
    except (ModelError, MethodError) as error:
        return {**nothing, "note": f"cannot edit this model. {error}"}
    if predicted is None:
        return {**nothing, "fits": None, "note": "does not say what it needs"}
    return {
        **nothing,
        "needed": predicted.tightest.needed,
        "held": predicted.tightest.held,
        "phase": predicted.phase,
        "fits": predicted.fits,
        "fits_with": [] if predicted.fits else remedy(label, method, model, texts),
        "edit": predicted.edit,
    }


def _minutes(method: Method, model: Outline, texts: Texts, pace: Pace | None) -> float | None:
    """Return how long the method takes at most; ``None`` where that is not known."""
    with suppress(Exception):  # of a plug-in, whose option may also be called ``work``
        work = method.work(model, texts)
        if work is not None and pace is not None:
            return pace.seconds(work) / 60
    return None


# --- what else is wrong ---------------------------------------------------------------------------


def findings(model: Outline, edits: Sequence[int], folder: Path) -> Iterator[str]:
    """Yield what to know about ``model`` on this machine, in plain sentences.

    Args:
        edits: bytes of each edit on the disk.
        folder: where edits and runs would be written.
    """
    yield from _of_files(model)
    yield from _of_architecture(model)
    yield from _of_tokenizer(model)
    yield from _of_disk(model, edits, folder)


def _of_files(model: Outline) -> Iterator[str]:
    place = located(model.name)
    if isinstance(place, Path) and place.is_dir() and (flaw := damaged(place)):
        yield f"A file of weights cannot be read: {flaw}."
    if quantized := getattr(model.model.config, "quantization_config", None):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        yield f"The weights are quantized ({method}), and the sizes here are those of float32."


NOT_TIMED = (
    "How long a method takes is not said: one layer of this model is too large to be timed here, "
    "or does not run alone."
)
UNWRITABLE = "Weight editors cannot edit it. "


def _of_architecture(model: Outline) -> Iterator[str]:
    try:
        model.layout.check_writable()
    except ModelError as error:
        yield f"{UNWRITABLE}{error}"
    stored = str(getattr(model.model.config, "dtype", None) or "").removeprefix("torch.")
    if stored in ("bfloat16", "float16") and model.dtype == "float32":
        yield (
            f"It is stored in {stored} and held in float32: {gibibytes(model.weights)} in memory, "
            f"twice its files. --dtype {stored} takes half."
        )
    if native_precision(model.device) == "float32":
        wanted = " as --precision bfloat16 wants" if model.precision == "bfloat16" else ""
        yield (
            f"The {model.device.type} here has no bfloat16 units{wanted}, so passes are faster in "
            "float32 than in bfloat16."
        )


def _of_tokenizer(model: Outline) -> Iterator[str]:
    try:
        tokenizer = read_tokenizer(model.name)
    except ModelError as error:
        yield str(error)
        return
    if len(tokenizer) > model.vocabulary:
        yield (
            f"The tokenizer has {len(tokenizer)} tokens and the model embeddings for "
            f"{model.vocabulary}, so some texts are refused."
        )
    if not tokenizer.chat_template:
        yield "Its tokenizer has no chat template, so questions are asked as plain text."
        return
    try:
        thinking = chat_template.style_of(tokenizer).thinking
    except ModelError as error:
        yield f"Its chat template cannot be used. {error}"
        return
    if thinking:
        kept = "keeps it from that" if thinking == "off" else "does not keep it from that"
        yield f"It can think before it answers; editbench asks for answers alone, and {kept}."


def _of_disk(model: Outline, edits: Sequence[int], folder: Path) -> Iterator[str]:
    largest = max(edits, default=0)
    place = located(model.name)
    converted = model.weights if isinstance(place, Path) and place.suffix == ".gguf" else 0
    for what, needed, where in (
        ("the edit", largest, folder),
        ("the unpacked model, which is kept,", converted, cache_dir()),
    ):
        free = shutil.disk_usage(_existing(where)).free
        if needed > free:
            yield f"{where} has {gibibytes(free)} free, and {what} takes {gibibytes(needed)}."


def _existing(folder: Path) -> Path:
    """Return the nearest folder above that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
