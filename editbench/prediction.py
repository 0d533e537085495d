"""What a method holds on each device, and whether that fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch

from editbench.asked import Evaluation, answering, with_edit
from editbench.errors import EditbenchError, MethodError
from editbench.memory import Phase, Texts, free_bytes
from editbench.outline import Outline
from editbench.plugin import Method

NOTHING = Evaluation()
"""No retention task is asked."""


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


def predict(
    method: Method, model: Outline, texts: Texts, asked: Evaluation = NOTHING
) -> Prediction | None:
    """Return what ``method`` needs for ``texts``, and to be ``asked`` then; ``None`` if it does not
    say.

    Raises:
        ModelError, MethodError: it cannot edit such a model; ``Unsaid``: it fails to say.
    """
    try:
        memory = method.memory(model, texts)
        if memory is None:
            return None
        # Without phases, as the baselines, it holds what the answers to a batch of prompts take.
        moments = [*memory.phases, answering(model, memory, texts)]
        moments += [with_edit(phase, model, memory) for phase in asked.phases(model)]
        phases = [places_of(phase, model) for phase in moments]
        name, there = max(phases, key=lambda phase: max(place.share for place in phase[1]))
    except EditbenchError:
        raise
    except Exception as error:  # of a plug-in, whose option may also be called ``memory``
        raise Unsaid(f"{type(method).__name__}.memory: {type(error).__name__}: {error}") from error
    return Prediction(name, there, memory.edit)


def places_of(phase: Phase, model: Outline) -> tuple[str, list[Place]]:
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
