"""The one training loop: sft, mixsd and opsd are losses on it.

# B rows, T tokens, D model width, V vocabulary, N label positions of a batch
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F

from editbench import progress
from editbench.errors import MethodError
from editbench.models import LanguageModel, NotFiniteError, batched
from editbench.plugin import Method
from editbench.text import pad_left


@dataclass(frozen=True)
class Trainer(Method):
    """Options that all trainers share: full-parameter AdamW with linear warm-up, then a constant rate."""

    epochs: int = 8
    """Passes over the facts."""
    min_steps: int = 40
    """Fewest optimizer steps: a few facts are passed over more often than ``epochs``, or they would not be learned."""
    batch_size: int = 10
    """Facts in one optimizer step."""
    lr: float = 2e-5
    """Learning rate after warm-up."""
    warmup: float = 0.1
    """Share of the steps over which the rate rises linearly."""
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest global gradient norm."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.min_steps < 1:
            raise ValueError("epochs, min_steps and batch_size must be at least 1")
        if not self.lr > 0 or not self.clip > 0:
            raise ValueError("lr and clip must be above 0")
        if not 0 <= self.warmup < 1:
            raise ValueError("warmup is a share of the steps, from 0 to below 1")


@dataclass(frozen=True)
class Example:
    """One training text: loss on the target's tokens only."""

    prompt_ids: Sequence[int]
    target_ids: Sequence[int]


def train_on_examples(
    options: Trainer, model: LanguageModel, examples: Sequence[Example]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains on the negative log-likelihood of ``examples``; see ``train``."""
    return train(options, model, len(examples), lambda batch: target_nll(model, [examples[i] for i in batch]))


def train(
    options: Trainer, model: LanguageModel, n: int, loss_of: Callable[[list[int]], tuple[torch.Tensor, int]]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Minimises ``loss_of(indices of a batch) -> (mean loss, label tokens)`` over all weights, then restores them.

    Returns:
        The change of each weight (float32, CPU), and the training's diagnostics.

    Raises:
        MethodError: the loss or a weight became infinite or NaN.
    """
    if n == 0:
        return {}, {}
    parameters = dict(model.model.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    wanted_grad = {name: p.requires_grad for name, p in parameters.items()}
    steps = list(_batches(n, options))
    warmup = max(1, round(options.warmup * len(steps)))
    losses, tokens, started = [], 0, time.perf_counter()
    try:
        for p in parameters.values():
            p.requires_grad_(True)
        optimizer = torch.optim.AdamW(
            parameters.values(), lr=options.lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=options.weight_decay, fused=True
        )
        with progress.task(f"{options.name}: training", len(steps), "steps") as bar, torch.enable_grad():
            for step, batch in enumerate(steps):
                for group in optimizer.param_groups:
                    group["lr"] = options.lr * min(1.0, (step + 1) / warmup)
                try:
                    with model.compute():
                        loss, labels = loss_of(batch)
                except NotFiniteError as error:
                    raise exploded(options, f"{error} at step {step + 1}") from error
                if not torch.isfinite(loss):
                    raise exploded(options, f"the loss became {loss.item()} at step {step + 1}")
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters.values(), options.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(loss.item())
                tokens += labels
                bar.advance()
        del optimizer  # two numbers a weight, freed before the changes need one
        with torch.no_grad():
            changes = {name: (p.detach() - before[name]).float().cpu() for name, p in parameters.items()}
        if not all(change.isfinite().all() for change in changes.values()):
            raise exploded(options, "the last step left weights that are not finite")
    finally:
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(before[name])
                p.requires_grad_(wanted_grad[name])
                p.grad = None
    seconds = time.perf_counter() - started
    last = losses[-ceil(n / options.batch_size) :]
    return changes, {
        "steps": len(steps),
        "trained_tokens": tokens,
        "first_loss": losses[0],
        "final_loss": sum(last) / len(last),
        "steps_per_second": len(steps) / seconds,
    }


def exploded(options: Trainer, what: str) -> MethodError:
    return MethodError(f"{options.name}: {what}. Use a smaller lr than {options.lr}.")


def _batches(n: int, options: Trainer) -> Iterator[list[int]]:
    shuffled = random.Random(options.seed)
    for _ in range(max(options.epochs, ceil(options.min_steps / ceil(n / options.batch_size)))):
        order = list(range(n))
        shuffled.shuffle(order)
        yield from batched(order, options.batch_size)


def target_nll(model: LanguageModel, batch: Sequence[Example]) -> tuple[torch.Tensor, int]:
    """Mean negative log-likelihood over all target tokens of the batch, and their number. Logits only at labels."""
    rows = [[*e.prompt_ids, *e.target_ids] for e in batch]
    hidden_ND = label_states(model, rows, [len(e.target_ids) for e in batch])
    labels_N = torch.tensor([token for e in batch for token in e.target_ids], device=model.device)
    return F.cross_entropy(model.logits(hidden_ND), labels_N), len(labels_N)


def label_states(model: LanguageModel, rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> torch.Tensor:
    """Hidden states (N, D) that predict the last ``lengths[i]`` tokens of each row, row after row."""
    ids_BT, mask_BT = pad_left(rows, model.device)
    hidden_BTD = model.hidden(ids_BT[:, :-1], mask_BT[:, :-1])
    width = hidden_BTD.shape[1]
    return torch.cat([hidden_BTD[i, width - length :] for i, length in enumerate(lengths)])
