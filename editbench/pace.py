"""How long work takes on this machine: what a method computes, and how fast one layer is here.

A method counts in ``Method.work`` what it computes, as ``cost.Meter`` does. The machine is measured
on the model's own first layer with made-up weights, which takes about two seconds and reads nothing
of the model but its configuration. All else is multiplication; nothing is fitted.

    # R rows, T tokens, D model width, V vocabulary, f MLP inner width
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from editbench.decoding import decoding_cache

if TYPE_CHECKING:
    from editbench.outline import Outline


@dataclass(frozen=True)
class Work:
    """What ``prepare`` and ``inject`` compute at most; tokens go through all layers."""

    read: float = 0
    """Tokens that are read without gradients."""
    trained: float = 0
    """Tokens that are read with gradients of the weights."""
    solved: float = 0
    """Tokens that are read with gradients of states or adapters alone."""
    written: float = 0
    """Tokens that are written, one of each text at a time."""
    writing: float = 0
    """Passes in which they are written: the tokens of the longest text."""
    labels: float = 0
    """Tokens whose logits are computed without gradients; those that are written are not in it."""
    learned: float = 0
    """Tokens whose logits are computed with gradients."""
    updated: float = 0
    """Weights that the optimizer moves, summed over its steps."""
    products: float = 0
    """Multiplications of square matrices, in float32 or float64: products, factors, solutions."""
    plain: float = 0
    """Tokens that are read without gradients in the type of the weights, whatever the precision."""
    hashed: float = 0
    """Weights that are hashed, for ``LanguageModel.fingerprint``."""

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Pace:
    """Seconds that each unit of ``Work`` takes; the fields are named as there."""

    read: float
    trained: float
    solved: float
    written: float
    writing: float
    labels: float
    learned: float
    updated: float
    products: float
    plain: float
    hashed: float

    def seconds(self, work: Work) -> float:
        """Return how long ``work`` takes."""
        parts: list[float] = [getattr(self, f.name) * getattr(work, f.name) for f in fields(self)]
        # Each token that is written has logits.
        return sum(parts) + self.labels * work.written


LENGTH, FEW, MANY = 64, 4, 96
"""Tokens of a row; rows of the small and the large batch in which texts are written."""
OPERATIONS = 5e10
"""Multiplications of a timed pass, about: so many that its overhead does not count."""
TIMED = 0.15
"""Seconds for which one kind of work is repeated."""
LEAST, MOST = 3, 32
"""Times that it is repeated. Each token that is written has a position, and a model has few."""
UPDATED, HASHED = 2**24, 2**22
"""Weights that an optimizer moves, more than a processor keeps near it, as with a whole model; and
weights that are hashed."""
SQUARE, SLICE = 768, 8192
"""Sizes of the matrix that is multiplied, and of the part of the vocabulary whose logits are."""


def measure(model: Outline) -> Pace | None:
    """Return the pace of ``model`` on its device; ``None`` where one layer cannot be run there.

    That is so where its weights, their gradients and moments take more than half of what is free,
    or where the architecture does not run cut to one layer.
    """
    try:
        weights = sum(p.numel() for p in model.layout.layer(model.model, 0).parameters())
        if 16 * weights > model.free // 2:
            return None
        return _measured(model, weights)
    except Exception:  # libraries raise errors of any type where their model is not whole
        return None


def _measured(model: Outline, weights: int) -> Pace:
    base, layer = _first_layer(model)
    rows = int(min(max(OPERATIONS / (6 * weights * LENGTH), 1), 8))
    tokens, depth = rows * LENGTH, model.depth
    embedded = torch.zeros(rows, LENGTH, model.width, device=model.device).requires_grad_()

    def forward(plain: bool = False) -> torch.Tensor:
        with nullcontext() if plain else _compute(model):
            states: torch.Tensor = base(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return states

    def backward() -> None:
        forward().float().sum().backward()

    def read(plain: bool = False) -> None:
        with torch.no_grad():
            forward(plain)

    each = depth / tokens
    base.requires_grad_(False)
    read_s, solved_s = _timed(read), _timed(backward)
    plain_s = read_s if model.precision == "float32" else _timed(lambda: read(plain=True))
    layer.requires_grad_(True)
    trained_s = _timed(backward)
    few, many = (_timed_writing(model, base, n) * depth for n in (FEW, MANY))
    labels, learned = _timed_head(model)
    return Pace(
        read=read_s * each,
        trained=trained_s * each,
        solved=solved_s * each,
        written=max(many - few, 0) / (MANY - FEW),
        writing=max(few - FEW * max(many - few, 0) / (MANY - FEW), 0),
        labels=labels,
        learned=learned,
        updated=_timed_update(model) / UPDATED,
        products=_timed_product(model) / SQUARE**3,
        plain=plain_s * each,
        hashed=_timed_hash() / HASHED,
    )


def _first_layer(model: Outline) -> tuple[Any, nn.Module]:
    """Return the base model, cut to its first layer with made-up weights, and that layer."""
    whole = copy.deepcopy(model.model)
    stack: Any = whole.get_submodule(model.layout.layers)
    del stack[1:]
    whole.config.get_text_config().num_hidden_layers = 1
    base: Any = whole.base_model
    # not used here, and large
    base.get_input_embeddings().weight = nn.Parameter(torch.empty(1, 1, device="meta"))
    base.to_empty(device=model.device)
    with torch.no_grad():
        for tensor in (*base.parameters(), *base.buffers()):
            tensor.fill_(0.01 if tensor.is_floating_point() else 0)
    return base, stack[0]


def _compute(model: Outline, weights_fixed: bool = False) -> AbstractContextManager[object]:
    """Return the context of passes, as ``LanguageModel.compute``."""
    if model.precision == "float32":
        return nullcontext()
    return torch.autocast(model.device.type, dtype=torch.bfloat16, cache_enabled=weights_fixed)


def _timed(work: Callable[[], object]) -> float:
    """Return the seconds of ``work``, the shortest of several times.

    Without a GPU it is no more than the processor's own time: while other processes have their
    turns, the clock goes on.
    """
    work()  # the first time allocates memory and chooses kernels
    taken: list[float] = []
    while len(taken) < LEAST or (sum(taken) < TIMED and len(taken) < MOST):
        started, used = time.perf_counter(), time.process_time()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            used = -math.inf
        taken.append(min(time.perf_counter() - started, time.process_time() - used))
    return min(taken)


@torch.no_grad()
def _timed_writing(model: Outline, base: Any, rows: int) -> float:
    """Return the seconds in which one layer writes a token of each of ``rows`` texts."""
    with _compute(model, weights_fixed=True):
        cache = decoding_cache(model.model)
        cache.layers = cache.layers[:1]
        start = torch.zeros(rows, LENGTH, model.width, device=model.device)
        base(inputs_embeds=start, past_key_values=cache, use_cache=True)
        return _timed(
            lambda: base(inputs_embeds=start[:, :1], past_key_values=cache, use_cache=True)
        )


def _timed_head(model: Outline) -> tuple[float, float]:
    """Return the seconds of the logits of a token, without gradients and with them."""
    size = min(model.vocabulary, SLICE)
    head = torch.full((size, model.width), 0.01, device=model.device).requires_grad_()
    states = torch.full((LENGTH, model.width), 0.01, device=model.device).requires_grad_()

    def loss() -> torch.Tensor:
        with _compute(model):
            logits = functional.linear(states, head)
        return logits.float().log_softmax(-1).sum()

    def forward() -> None:
        with torch.no_grad():
            loss()

    each = model.vocabulary / size / LENGTH
    return _timed(forward) * each, _timed(lambda: loss().backward()) * each


def _timed_update(model: Outline) -> float:
    """Return the seconds of a step of AdamW over ``UPDATED`` weights, with new gradients."""
    weights = nn.Parameter(torch.full((UPDATED,), 0.01, device=model.device))
    optimizer = torch.optim.AdamW([weights], fused=True)

    def update() -> None:
        # The training frees them after each step, so that each step allocates them.
        weights.grad = torch.full_like(weights, 0.01)
        nn.utils.clip_grad_norm_([weights], 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return _timed(update)


def _timed_hash() -> float:
    """Return the seconds of the hash of ``HASHED`` weights in float32."""
    values = torch.full((HASHED,), 0.01).view(torch.uint8).numpy().data
    return _timed(lambda: hashlib.sha256(values))


def _timed_product(model: Outline) -> float:
    """Return the seconds of a product of two matrices of ``SQUARE`` x ``SQUARE``, in float64."""
    # On the CPU, where statistics are solved with, whatever the model's device.
    matrix = torch.full((SQUARE, SQUARE), 0.01, dtype=torch.float64)
    return _timed(lambda: matrix @ matrix)
