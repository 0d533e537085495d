"""Which layers an editor writes where the user names none.

The rules fit models that nobody configured (evidence: ``benchmarks/weight_editors.md``). MEMIT and
its descendants write five layers around a fifth of the depth: 4 to 8 of 28 to 32 layers, as
published. ROME and EMMET write one layer, at a sixth of the depth. The loss is always read at the
last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from editbench.errors import MethodError
from editbench.methods.trace import layer_curve
from editbench.models import LanguageModel
from editbench.outline import Outline
from editbench.types import Fact

AUTO_FACTS = 20
"""How many prompts the causal trace of ``auto`` reads."""


def default_layers(depth: int) -> tuple[int, ...]:
    """Return five layers, fewer in shallow models, centred at a fifth of the depth."""
    # 4 to 8 for 28 to 32 layers, as published.
    window = max(1, min(5, depth // 3))
    first = max(0, round(0.2 * depth) - window // 2)
    return tuple(range(first, first + window))


def middle_layers(depth: int) -> tuple[int, ...]:
    """Return a third of the layers, for keys at a prompt's last word.

    They are centred at two fifths of the depth, where the keys there differ most between facts.
    Each takes a share of the update, so that many layers disturb other text less than few.
    """
    window = max(1, depth // 3)
    first = max(0, round(0.4 * depth) - window // 2)
    return tuple(range(first, first + window))


def single_layer(depth: int) -> int:
    """Return the layer of the methods that write only one: a sixth of the depth."""
    # 5 for 28 to 32 layers, as published.
    return round(depth / 6)


def nearest(layers: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """Return as many of ``layers`` as ``wanted`` has, the nearest to its middle, ascending.

    Of ``wanted`` itself nothing is changed where ``layers`` has all of it.
    """
    if set(wanted) <= set(layers):
        return tuple(wanted)
    middle = sum(wanted) / len(wanted)
    by_distance = sorted(layers, key=lambda layer: (abs(layer - middle), layer))
    return tuple(sorted(by_distance[: len(wanted)]))


def traced_layers(
    model: LanguageModel, facts: Sequence[Fact], count: int, seed: int
) -> tuple[tuple[int, ...], list[float]]:
    """Return the ``count`` neighbouring layers whose MLPs carry most of the model's answers.

    A causal trace of the first ``AUTO_FACTS`` prompts finds them, among the layers that have a
    matrix to write. The second value is its curve, one number per layer.

    Raises:
        MethodError: No prompt has an answer that depends on its subject.
    """
    curve = layer_curve(model, facts[:AUTO_FACTS], seed)
    # Neighbours only: MEMIT spreads an update over consecutive layers.
    writable = model.layout.writable
    windows = [writable[first : first + count] for first in range(len(writable) - count + 1)]
    sums = [sum(curve[layer] for layer in window) for window in windows]
    if max(sums) <= 0:
        raise MethodError(
            f"The causal trace of {min(len(facts), AUTO_FACTS)} prompts found no layer: noise on "
            "their subjects does not change what the model says. Leave layers unset for the "
            "default, or name them."
        )
    return windows[sums.index(max(sums))], [round(value, 4) for value in curve]


def check_layers(model: LanguageModel | Outline, layers: Sequence[int]) -> tuple[int, ...]:
    """Return ``layers`` once each and ascending.

    Raises:
        MethodError: None are given, or the model lacks one of them.
        ModelError: One of them has no matrix that writes its MLP's output; the message lists those
            that have one.
    """
    if not layers or min(layers) < 0 or max(layers) >= model.layout.depth:
        raise MethodError(
            f"Layers {list(layers)} are not layers of {model.name}, "
            f"which has 0 to {model.layout.depth - 1}."
        )
    for layer in layers:
        model.layout.weight_name(layer)
    return tuple(sorted(set(layers)))


def given_or_usual(
    model: LanguageModel | Outline,
    given: Sequence[int] | None,
    usual: Callable[[int], tuple[int, ...]],
) -> tuple[int, ...]:
    """Return the layers of the option, or those of the rule ``usual`` for the model's depth.

    Raises:
        MethodError, ModelError: As ``check_layers``, and where no layer can be written.
    """
    if given is not None:
        return check_layers(model, given)
    model.layout.check_writable()
    return nearest(model.layout.writable, usual(model.layout.depth))
