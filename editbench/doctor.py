"""Say before a weight is loaded whether a model and its edits fit on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from editbench.asked import Evaluation, probing
from editbench.errors import EditbenchError, MethodError, ModelError
from editbench.findings import NOT_TIMED, UNWRITABLE, findings
from editbench.memory import Phase, Texts, gibibytes
from editbench.outline import Outline, read_outline
from editbench.pace import Pace, measure
from editbench.plugin import Method
from editbench.prediction import NOTHING, Place, Prediction, Unsaid, places_of, predict
from editbench.remedies import held_with, remedy
from editbench.types import Fact

CLEARLY = 1.15
"""A run is refused when it would need this many times what is free: so far off a prediction may be
(``benchmarks/doctor.py``)."""


GO_ON = "--skip-memory-check goes on nevertheless, and the system may then kill the process."


def check_memory(
    name: str,
    methods: Mapping[str, Method],
    facts: Sequence[Fact],
    precision: str = "auto",
    layout: Mapping[str, str] | None = None,
    at_once: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    asked: Evaluation = NOTHING,
) -> None:
    """Refuse methods that clearly do not fit into the memory, before ``name`` is loaded.

    Nothing is said of a model whose configuration cannot be read, which loading it will report, nor
    of a method that does not say what it holds, or that cannot edit such a model.

    Args:
        at_once: most facts of one injection; 0: all.
        asked: the retention tasks that follow each injection.

    Raises:
        MethodError: one clearly does not fit. The message says what it needs, what there is, and
            with which options it would fit.
    """
    try:
        model = read_outline(name, precision, layout, dtype, device)
    except EditbenchError:
        return
    weights = places_of(Phase("loading"), model)[1][0]
    if weights.share > CLEARLY:
        lighter = held_with(model)
        advice = f"{lighter}, a smaller model" if lighter else "a smaller model"
        raise MethodError(
            f"{name} takes {gibibytes(model.weights)} in {model.dtype}, and "
            f"{gibibytes(weights.free)} of {_memory_of(weights)} are there. Use {advice}, "
            f"or a machine with more memory. {GO_ON}"
        )
    texts = Texts.of(facts)
    texts = replace(texts, facts=min(texts.facts, at_once or texts.facts))
    too_large: dict[str, str] = {}
    for label, method in methods.items():
        with suppress(ModelError, MethodError):
            predicted = predict(method, model, texts, asked)
            if predicted and predicted.tightest.share > CLEARLY:
                # One sentence a method: the trials of a search are many.
                key = label.partition("@")[0]
                flags = remedy(label, method, model, texts, asked)
                too_large.setdefault(key, refusal(label, model, predicted, flags))
    if too_large:
        raise MethodError("\n".join([*too_large.values(), GO_ON]))


def refusal(label: str, model: Outline, predicted: Prediction, flags: Sequence[str] | None) -> str:
    """Return why a method does not fit, and that it would with ``flags``, in two sentences."""
    place = predicted.tightest
    parts = ", ".join(f"{what} {gibibytes(size)}" for what, size in list(place.held.items())[:4])
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


class Comparison(TypedDict):
    """How long ``compare`` takes with an empty cache, in minutes; loading is not in it."""

    requests: int
    """Of all retention tasks."""
    probes: float | None
    """Asking a model the probes of the facts; ``None``, here and below: not known."""
    tasks: float | None
    """Asking it the retention tasks."""
    total: float | None
    """With the unedited model and the facts in context, which ``compare`` adds."""


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
    compare: Comparison | None
    """``None``: it was not asked for."""
    findings: list[str]


def examine(
    model: Outline,
    methods: Mapping[str, Method],
    texts: Texts,
    folder: Path,
    timed: bool = False,
    asked: Evaluation | None = None,
) -> Report:
    """Return what is known of ``model`` and of ``methods`` with it on this machine.

    Args:
        folder: where edits would be written.
        timed: measure how fast this machine is, and say how long each method takes.
        asked: the retention tasks of a comparison of the methods, to say what that takes as well.
    """
    rows = [
        _examined(label, method, model, texts, asked or NOTHING)
        for label, method in methods.items()
    ]
    compared: Comparison | None = None
    lines = list(findings(model, [row["edit"] for row in rows], folder))
    if timed:
        pace = measure(model)  # after the memory was predicted, since it takes some itself
        if pace is None:
            lines.append(NOT_TIMED)
        for row in rows:
            if row["needed"] is not None:
                row["minutes"] = _minutes(methods[row["method"]], model, texts.usual, pace)
        if asked is not None:
            compared = _comparison(rows, asked, texts.usual, pace)
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
        "compare": compared,
        "findings": [
            line
            for line in lines
            # why weight editors cannot edit it stands beside each of them already
            if not (line.startswith(UNWRITABLE) and line.removeprefix(UNWRITABLE) in notes)
        ],
    }


def _examined(
    label: str, method: Method, model: Outline, texts: Texts, asked: Evaluation
) -> MethodReport:
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
        predicted = predict(method, model, texts, asked)
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
        "fits_with": [] if predicted.fits else remedy(label, method, model, texts, asked),
        "edit": predicted.edit,
    }


def _minutes(method: Method, model: Outline, texts: Texts, pace: Pace | None) -> float | None:
    """Return how long the method takes at most; ``None`` where that is not known."""
    with suppress(Exception):  # of a plug-in, whose option may also be called ``work``
        work = method.work(model, texts)
        if work is not None and pace is not None:
            return pace.seconds(work) / 60
    return None


def _comparison(
    rows: Sequence[MethodReport], asked: Evaluation, texts: Texts, pace: Pace | None
) -> Comparison:
    """Return how long a comparison of ``rows`` takes.

    The unedited model is asked once. So is each edited one; where no weight changes, the answers to
    most tasks stay.
    """
    if pace is None:
        return {"requests": asked.requests, "probes": None, "tasks": None, "total": None}
    probes, tasks = (pace.seconds(work) / 60 for work in (probing(texts), asked.work))
    able = [row for row in rows if row["needed"] is not None]
    edits = [row for row in able if row["edit"]]
    minutes = [row["minutes"] for row in able]
    # the base and the facts in context are rows of every comparison
    total = probes * (len(edits) + 2) + tasks * (len(edits) + 1)
    known = None if None in minutes else total + sum(filter(None, minutes))
    return {"requests": asked.requests, "probes": probes, "tasks": tasks, "total": known}
