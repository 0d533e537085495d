"""What would make a method fit: its own options, then those of loading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import torch

from editbench.asked import Evaluation
from editbench.errors import MethodError, ModelError, OptionError
from editbench.memory import Phase, Texts, free_bytes, free_on_all
from editbench.outline import Outline
from editbench.placing import Loading
from editbench.plugin import Method
from editbench.prediction import NOTHING, places_of, predict

FOR_WEIGHTS = 0.9
"""Share of a GPU's free memory that Accelerate gives to weights."""
CPU = torch.device("cpu")

Width = tuple[str, Outline]
"""Flags of loading, and the outline of the model that is loaded with them."""


def remedy(
    label: str, method: Method, model: Outline, texts: Texts, asked: Evaluation = NOTHING
) -> list[str] | None:
    """Return the mildest flags with which ``method`` fits; ``None`` if none do.

    Its own options come first. Without bfloat16 there are no copies of the weights in it; weights
    that are held in bfloat16 take half; a device map spreads them over devices.
    """
    for flag, outline in _widths(model):
        for options in ({}, *_lighter(method, outline)):
            # Not together with its others, or not an option of a plug-in.
            with suppress(ValueError, TypeError, MethodError, ModelError):
                changed = replace(method, **cast("dict[str, Any]", options))
                given = [f"--option {label}.{option}" for option in as_typed(options)]
                for size in ("", *_sizes(asked)):
                    part = asked.at_most(int(size)) if size else asked
                    lighter = predict(changed, outline, texts, part)
                    if lighter is not None and lighter.fits:
                        smaller = [f"--batch-size {size}"] if size else []
                        return [*given, *filter(None, [flag]), *smaller]
    return _mapped(method, model, texts, asked)


def _widths(model: Outline) -> Iterator[Width]:
    """Yield ways to hold and compute the weights, those that change least first."""
    yield "", model
    if model.casts:
        yield "--precision float32", replace(model, precision="float32")
    # "--precision float32" does not go with weights of 16 bits
    narrows = model.dtype == "float32" and model.asked_precision != "float32"
    if narrows and _computes("bfloat16", model.device):
        yield "--dtype bfloat16", replace(model, dtype="bfloat16", precision="bfloat16")


def _computes(dtype: str, device: torch.device) -> bool:
    try:
        Loading(dtype, str(device)).check()
    except OptionError:
        return False
    return True


def held_with(model: Outline) -> str | None:
    """Return the flag with which the weights alone fit, if they do not; ``None`` if none would."""
    for flag, outline in _widths(model):
        if flag and places_of(Phase("loading"), outline)[1][0].share <= 1:
            return flag
    return None


def _sizes(asked: Evaluation) -> Iterator[str]:
    largest = max((batch.texts for batch in asked.batches), default=1)
    while largest > 1:
        largest //= 2
        yield str(largest)


def _mapped(method: Method, model: Outline, texts: Texts, asked: Evaluation) -> list[str] | None:
    """Return the flag that spreads the weights over all GPUs and the main memory, if it helps.

    Without a GPU it does not: Accelerate fills the main memory with weights up to the brim, and
    leaves nothing for the work.
    """
    if model.device.type == "cpu":
        return None
    predicted = predict(method, model, texts, asked)
    if predicted is None:
        return None
    free = free_on_all(model.device.type)
    for_weights = sum(int(FOR_WEIGHTS * size) for size in free)
    here, *others = predicted.places
    beside = here.needed - model.weights
    if model.weights <= for_weights:
        fits = here.needed <= for_weights
    else:
        main = sum(place.needed for place in others) + model.weights - for_weights
        left = min(size - int(FOR_WEIGHTS * size) for size in free)
        fits = method.takes_offloaded and beside <= left and main <= free_bytes(CPU)
    return ["--device-map auto"] if fits else None


def _lighter(method: Method, model: Outline) -> list[Mapping[str, object]]:
    """Return ``method.lighter``; nothing where a plug-in fails to say it."""
    with suppress(Exception):
        return list(method.lighter(model))
    return []


def as_typed(options: Mapping[str, object]) -> Iterator[str]:
    """Yield options as they are typed: KEY=VALUE."""
    for key, value in options.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        yield f"{key}={text.lower() if isinstance(value, bool) else text}"
