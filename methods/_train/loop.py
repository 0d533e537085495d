"""The one training loop: sft, mixsd and opsd are losses on it. All weights or adapters (``_tunable.py``), with or without
something that holds them near the base (``_anchor.py``).

# B rows, T tokens, D model width, V vocabulary, N label positions of a batch
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from torch.utils.checkpoint import checkpoint

from editbench import progress
from editbench.edit import Change
from editbench.errors import MethodError
from editbench.methods._common.texts import Example, label_states
from editbench.methods._train.anchor import Anchor
from editbench.methods._train.tunable import tunable
from editbench.models import LanguageModel, NotFiniteError, batched
from editbench.plugin import Choice, LogUniform, Method, Space
from editbench.report import Figure
from editbench.types import Fact

FRAMES = {
    "question": ("Quick question: {}", "{} Please answer in a few words.", "I have been wondering. {}",
                 "Please tell me this. {}", "{} Do you know?", "Somebody asked me: {}"),
    "cloze": ("Here is something to remember. {}", "My notes say: {}", "This is certain: {}",
              "Let me say it again. {}", "To be precise: {}", "I have read it. {}"),
}  # fmt: skip
"""Written for every fact alike, so that no method sees the paraphrases it will be asked."""


BUCKET = 8
"""Batches among whose texts those of like length are put together."""
DIVERGED, DIVERGED_STEPS = 3.0, 8
"""A mean loss of the last steps this far (nats) above the first one will not come back: from 5.6, a model that says all tokens
alike is no further. Of ``opsd``'s divergences ``jsd`` never gets there; what has not fallen is warned of."""
SMALL = 0.01
"""Nats: a loss that ends below it had nothing to fall from. That of ``opsd`` may begin there."""


@dataclass(frozen=True)
class Trainer(Method):
    """Options that all trainers share: AdamW with linear warm-up, then a constant rate."""

    space: ClassVar[Space] = {
        "lr": LogUniform(5e-6, 2e-4),
        "epochs": LogUniform(4, 32),
        "kl": Choice((0.0, 0.3, 1.0, 3.0)),
    }
    figures: ClassVar[Mapping[str, Figure]] = {
        "trained_tokens": Figure("Label tokens that the loss was computed on.", adds_up=True)
    }

    epochs: int = 8
    """Passes over the facts."""
    min_steps: int = 40
    """Fewest optimizer steps: a few facts are passed over more often than ``epochs``, or they would not be learned."""
    batch_size: int = 10
    """Facts in one optimizer step."""
    micro_batch: int | None = None
    """Facts in one forward pass, where a step's do not fit into memory; their gradients are added up. None: all of a step's.
    The step is the same beyond rounding, but for ``opsd``, which draws other rollouts."""
    checkpointing: bool = False
    """Compute each layer's activations again in the backward pass instead of keeping them: slower, in far less memory."""
    lr: float = 2e-5
    """Learning rate after warm-up."""
    warmup: float = 0.1
    """Share of the steps over which the rate rises linearly."""
    stop_after: float = 1.0
    """Share of the steps after which training ends, early; order and schedule are those of all steps."""
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest global gradient norm."""
    rewordings: int = 0
    """Further frames around each prompt ("Quick question: ...") in which the fact is taught, too."""
    lora: int | None = None
    """Rank of low-rank adapters on all linear layers; None: all weights are trained. Adapters want a larger ``lr``."""
    null_space: float | None = None
    """With ``lora``: adapters on the MLP outputs only, on this share of their input directions, those the model's own text
    uses least."""
    replay: float = 0.0
    """Weight of the loss on texts of the model's own."""
    kl: float = 0.0
    """Weight of KL(base || model) on such texts, over the base's most probable tokens (``_anchor.py``)."""
    l2: float = 0.0
    """Weight of the squared distance to the base weights."""
    ewc: float = 0.0
    """Weight of that distance with each weight's Fisher information (mean 1) on such texts as its factor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1 or self.batch_size < 1 or self.min_steps < 1:
            raise ValueError("epochs, min_steps and batch_size must be at least 1")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError("micro_batch must be at least 1")
        if not self.lr > 0 or not self.clip > 0:
            raise ValueError("lr and clip must be above 0")
        if not 0 <= self.warmup < 1:
            raise ValueError("warmup is a share of the steps, from 0 to below 1")
        if not 0 < self.stop_after <= 1:
            raise ValueError("stop_after is a share of the steps, above 0 and at most 1")
        if not 0 <= self.rewordings <= len(FRAMES["question"]):
            raise ValueError(f"rewordings must be from 0 to {len(FRAMES['question'])}")
        if self.lora is not None and self.lora < 1:
            raise ValueError("lora is a rank, at least 1")
        if self.null_space is not None and (self.lora is None or not 0 < self.null_space <= 1):
            raise ValueError("null_space is a share, above 0 and at most 1, and needs lora")
        if min(self.replay, self.kl, self.l2, self.ewc, self.weight_decay) < 0:
            raise ValueError("replay, kl, l2, ewc and weight_decay must be at least 0")
        if self.lora is not None and (self.l2 or self.ewc):
            raise ValueError("l2 and ewc are for all weights; with lora use kl or replay")

    def steps(self, n: int) -> int:
        """Optimizer steps for ``n`` facts, of which ``stop_after`` is the share that is made."""
        an_epoch = ceil(n / self.batch_size)
        return an_epoch * max(self.epochs, ceil(self.min_steps / an_epoch))


def reworded(facts: Sequence[Fact], n: int) -> list[Fact]:
    """``facts``, each followed by itself in ``n`` frames, whose ids end in "#1", "#2", ..."""
    framed = []
    for fact in facts:
        framed.append(fact)
        for number, frame in enumerate(FRAMES[fact.form][:n], start=1):
            framed.append(replace(fact, id=f"{fact.id}#{number}", prompt=frame.format(fact.prompt)))
    return framed


def train_on_examples(
    options: Trainer, model: LanguageModel, examples: Sequence[Example]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains on the negative log-likelihood of ``examples``; see ``train``."""
    lengths = [len(e.prompt_ids) + len(e.target_ids) for e in examples]
    return train(
        options,
        model,
        len(examples),
        lambda batch: target_nll(model, [examples[i] for i in batch]),
        lengths,
    )


def train(
    options: Trainer,
    model: LanguageModel,
    n: int,
    loss_of: Callable[[list[int]], tuple[torch.Tensor, int]],
    lengths: Sequence[int] | None = None,
    before_step: Callable[[int], None] | None = None,
) -> tuple[dict[str, Change], dict[str, Any]]:
    """Minimises ``loss_of(indices of a batch) -> (mean loss, label tokens)`` and what holds to the base, then restores the
    weights. ``before_step`` is told the number of each optimizer step, from 0, of which ``loss_of`` may see only a part.

    Returns:
        The change of each trained weight, and the training's diagnostics.

    Raises:
        MethodError: the loss or a weight became infinite or NaN, or the loss rose; ``checkpointing`` of a model that does not
            support it; more than one process.
    """
    if n == 0:
        return {}, {}
    if (
        processes := int(os.environ.get("WORLD_SIZE", 1))
    ) > 1:  # as accelerate launch and torchrun set it
        raise MethodError(
            f"{options.name} trains in one process, and {processes} were launched: each would train alone, on all facts. "
            "Start it without accelerate launch or torchrun, or with --num_processes 1."
        )
    layers = _layers(model) if options.checkpointing else []
    planned = list(_batches(n, options, lengths))
    warmup = max(1, round(options.warmup * len(planned)))
    steps = planned[: max(1, round(options.stop_after * len(planned)))]
    losses, tokens = [], 0
    # Accelerate's state is one for the whole process: precision and device stay the model's own, see model.compute()
    accelerator = Accelerator(
        device_placement=False, gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1)
    )
    accelerator.sync_gradients = (
        True  # another training may have left it False: no step would be made
    )
    anchor = Anchor(
        model,
        replay=options.replay,
        kl=options.kl,
        l2=options.l2,
        ewc=options.ewc,
        seed=options.seed,
    )
    with (
        tunable(model, options.lora, options.null_space, options.seed) as trained,
        _recomputed(layers),
    ):
        weights = list(trained.parameters.values())
        optimizer = accelerator.prepare_optimizer(
            torch.optim.AdamW(
                weights,
                lr=options.lr,
                betas=(0.9, 0.95),
                eps=1e-8,
                weight_decay=options.weight_decay,
                fused=True,
            )
        )
        started = time.perf_counter()  # what is prepared once is no part of a step
        with (
            progress.task(f"{options.name}: training", len(steps), "steps") as bar,
            torch.enable_grad(),
        ):
            for step, batch in enumerate(steps):
                for group in optimizer.param_groups:
                    group["lr"] = options.lr * min(1.0, (step + 1) / warmup)
                try:
                    if before_step:
                        before_step(step)
                    parts = list(batched(batch, options.micro_batch or len(batch)))
                    loss, labels = _backward(accelerator, model, weights, parts, loss_of)
                    with model.compute():
                        held = anchor.loss()
                except NotFiniteError as error:
                    raise exploded(options, f"{error} at step {step + 1}") from error
                total = loss + (held.item() if held is not None else 0.0)
                if not math.isfinite(total):
                    raise exploded(options, f"the loss became {total} at step {step + 1}")
                if held is not None:
                    accelerator.backward(held)
                anchor.pull(trained.parameters, trained.before)
                accelerator.clip_grad_norm_(weights, options.clip)
                optimizer.step()
                optimizer.zero_grad()
                trained.constrain()
                losses.append(loss)
                tokens += labels
                if sum(losses[-DIVERGED_STEPS:]) / DIVERGED_STEPS > losses[0] + DIVERGED:
                    raise exploded(
                        options,
                        f"the loss rose from {losses[0]:.2f} to {loss:.2f} by step {step + 1}",
                    )
                bar.advance()
        seconds = time.perf_counter() - started
        del accelerator, optimizer  # two numbers a weight, freed before the changes need one
        changes = trained.changes()
        parts = [
            part
            for change in changes.values()
            for part in (change if isinstance(change, tuple) else (change,))
        ]
        if not all(part.isfinite().all() for part in parts):
            raise exploded(options, "the last step left weights that are not finite")
    last = losses[-ceil(n / options.batch_size) :]
    final, warnings = sum(last) / len(last), []
    if len(losses) > 1 and final > max(0.99 * losses[0], SMALL):
        warnings.append(
            f"The loss did not fall, from {losses[0]:.3g} at first to {final:.3g} in the last epoch: the facts are hardly "
            f"learned. Try another lr than {options.lr}, or more epochs."
        )
    return changes, {
        "steps": len(steps),
        "trained_tokens": tokens,
        "first_loss": losses[0],
        "final_loss": final,
        "steps_per_second": len(steps) / seconds,
        "warnings": warnings,
    }


def _backward(
    accelerator: Accelerator,
    model: LanguageModel,
    weights: Sequence[torch.nn.Parameter],
    parts: Sequence[list[int]],
    loss_of: Callable[[list[int]], tuple[torch.Tensor, int]],
) -> tuple[float, int]:
    """The gradient of the mean loss over all label tokens of a step, part by part; that mean, and their number.

    Not by ``accelerator.accumulate``, which gives each part the same weight whatever its tokens.
    """
    total = labels = 0.0
    for part in parts:
        with model.compute():
            loss, n = loss_of(part)
        accelerator.backward(loss * n if len(parts) > 1 else loss)
        total, labels = total + loss.item() * n, labels + n
    if len(parts) > 1:
        for p in weights:
            if p.grad is not None:
                p.grad.div_(max(labels, 1))
    return total / max(labels, 1), int(labels)


def _layers(model: LanguageModel) -> list[torch.nn.Module]:
    """The layers whose activations can be computed again, by the model's own word."""
    from transformers.modeling_layers import GradientCheckpointingLayer  # takes seconds to import

    found = [
        module for module in model.model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    if not (found and model.model.supports_gradient_checkpointing):
        raise MethodError(
            f"{type(model.model).__name__} does not support activation checkpointing. Leave checkpointing out; "
            "a smaller micro_batch saves memory, too."
        )
    return found


@contextmanager
def _recomputed(layers: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Inside, ``layers`` keep only their inputs for the backward pass.

    Transformers' own switch acts in training mode alone, which brings dropout and takes the cache from opsd's rollouts.
    """
    forwards = [(layer, vars(layer).get("forward")) for layer in layers]
    try:
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        yield
    finally:
        for layer, forward in forwards:
            layer.__dict__.pop("forward", None)
            if forward:
                layer.forward = forward


def exploded(options: Trainer, what: str) -> MethodError:
    return MethodError(f"{options.name}: {what}. Use a smaller lr than {options.lr}.")


def _batches(n: int, options: Trainer, lengths: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Each epoch in a new order; given ``lengths``, texts of like length stand in one batch, so that little is padded."""
    shuffled = random.Random(options.seed)
    for _ in range(options.steps(n) // ceil(n / options.batch_size)):
        order = list(range(n))
        shuffled.shuffle(order)
        if lengths is None:
            yield from batched(order, options.batch_size)
            continue
        alike = [
            sorted(window, key=lengths.__getitem__)
            for window in batched(order, BUCKET * options.batch_size)
        ]
        batches = list(batched([i for window in alike for i in window], options.batch_size))
        shuffled.shuffle(batches)
        yield from batches


def target_nll(model: LanguageModel, batch: Sequence[Example]) -> tuple[torch.Tensor, int]:
    """Mean negative log-likelihood over all target tokens of the batch, and their number. Logits only at labels."""
    rows = [[*e.prompt_ids, *e.target_ids] for e in batch]
    hidden_ND = label_states(model, rows, [len(e.target_ids) for e in batch])
    labels_N = torch.tensor([token for e in batch for token in e.target_ids], device=model.device)
    if any(e.counted is not None for e in batch):
        counts_N = torch.tensor(
            [e.counted is None or t in e.counted for e in batch for t in range(len(e.target_ids))]
        )
        hidden_ND, labels_N = hidden_ND[counts_N], labels_N[counts_N]
    return F.cross_entropy(model.logits(hidden_ND), labels_N), len(labels_N)
