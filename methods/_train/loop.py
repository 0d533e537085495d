"""The one training loop: sft, mixsd, opsd and pd are losses on it.

It trains all weights or adapters (``weights.py``, ``adapters.py``), with or without terms that hold
the model near its base (``anchor.py``). Where several processes were launched, each computes its
share of a batch, and of all weights it keeps its share, too (``sharded.py``).

    # B rows, T tokens, D model width, V vocabulary, N label positions of a batch
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from math import ceil
from statistics import fmean
from typing import TYPE_CHECKING

import accelerate  # type: ignore[import-untyped]  # it ships no type information
import torch
import torch.nn.functional as F

from editbench import processes, progress
from editbench.changes import Change
from editbench.errors import ModelError
from editbench.methods._common.texts import Example, label_states
from editbench.methods._train.checkpointing import recomputable_layers, recomputed
from editbench.methods._train.outcome import check_diverged, exploded, hardly_fell, is_finite
from editbench.methods._train.resume import Course, kept
from editbench.methods._train.step_size import OwnText, fitted_lr, moved_far, own_text
from editbench.methods._train.trainer import Trainer, TrainingReport
from editbench.methods._train.weights import Trainable, trainable
from editbench.models import LanguageModel, NotFiniteError, batched
from editbench.types import digest

if TYPE_CHECKING:
    from editbench.methods._train.anchor import Anchor

BUCKET = 8
"""Number of batches whose texts are sorted by length together."""
Loss = Callable[[list[int]], tuple[torch.Tensor, int]]
"""Indices of a batch -> mean loss over its label tokens, and their number."""


def train_on_examples(
    options: Trainer, model: LanguageModel, examples: Sequence[Example]
) -> tuple[dict[str, Change], TrainingReport]:
    """Train on the negative log-likelihood of ``examples``; see ``train``.

    The report also has the tokens of all steps, as ``forwarded_tokens``.
    """
    lengths = [len(e.prompt_ids) + len(e.target_ids) for e in examples]

    def loss_of(batch: list[int]) -> tuple[torch.Tensor, int]:
        return target_nll(model, [examples[i] for i in batch])

    texts = digest([[[*e.prompt_ids], [*e.target_ids], e.counted] for e in examples])
    return train(options, model, len(examples), loss_of, lengths, texts=texts)


def train(
    options: Trainer,
    model: LanguageModel,
    n: int,
    loss_of: Loss,
    lengths: Sequence[int] | None = None,
    before_step: Callable[[int], None] | None = None,
    probe: Loss | None = None,
    comparable: bool = True,
    texts: str | None = None,
) -> tuple[dict[str, Change], TrainingReport]:
    """Minimize ``loss_of`` and the terms of the anchor, then restore the weights.

    Args:
        n: number of training texts.
        lengths: the texts' lengths in tokens. If given, texts of similar length share a batch.
        before_step: called with the index of each optimizer step, from 0, before it is made. A step
            may call ``loss_of`` several times.
        probe: the loss that a learning rate is fitted to, if it is not ``loss_of``.
        comparable: whether two steps' losses compare. If not, nothing is said of a loss that did
            not fall.
        texts: the hash of the training texts, if a step depends on nothing but its batch and the
            steps before. Such a training can be killed and go on (``resume.py``), and its report
            has the tokens of all steps, by ``lengths``.

    Returns:
        The change of each trained weight, and the report of the training.

    A batch whose loss is below ``options.enough`` is learnt and has no gradient. Without an anchor
    it makes no step, and the first epoch whose mean loss is below it ends the training. With an
    anchor the training then goes on for as many steps again, at most to the last planned one.

    Raises:
        MethodError: if the loss or a weight became infinite or NaN, if the loss rose too far, if
            the model does not support the requested ``checkpointing``, or if several processes were
            launched and the method trains in one.
    """
    if n == 0:
        return {}, {}
    processes.check_may(options.name, options.over_processes)
    planned = list(_batches(n, options, lengths))
    # From all planned steps: stop_after then cuts the training short and changes no earlier step.
    warmup = max(1, round(options.warmup * len(planned)))
    batches = planned[: max(1, round(options.stop_after * len(planned)))]
    per_epoch = ceil(n / options.batch_size)
    state = kept(options, model, texts)
    # Before adapters are attached: the anchor and the own text read the plain base model.
    anchor = _anchor(options, model)
    own, unmeasured = _own_text(model)
    with (
        processes.peers(),
        _trainable(options, model) as trained,
        # The layers that are trained: several processes train copies of the model's own.
        recomputed(recomputable_layers(model) if options.checkpointing else []),
    ):
        optimization = _Optimization(options, model, trained, anchor)
        weights, adam = trained.parameters, optimization.optimizer.optimizer
        course = state.read(weights, adam) if state else None
        if course is None:
            course = Course(len(batches))
            course.lr = options.lr or optimization.fitted_lr(planned[:per_epoch], probe or loss_of)
        elif anchor and course.anchor:
            anchor.order = course.anchor
        lr, losses, begun, made = course.lr, course.losses, len(course.losses), course.steps
        started = time.perf_counter()  # one-time preparation is not part of a step
        with (
            progress.task(f"{options.name}: training", len(batches), "steps") as bar,
            torch.enable_grad(),
        ):
            if begun:
                bar.advance(begun)
            for step, batch in enumerate(batches[begun : course.end], start=begun):
                try:
                    if before_step:
                        before_step(step)
                    rate = lr * min(1.0, (step + 1) / warmup)
                    loss, labels, moved = optimization.step(batch, rate, loss_of)
                except NotFiniteError as error:
                    raise exploded(options, lr, f"{error} at step {step + 1}") from error
                losses.append(loss)
                course.steps += moved
                course.tokens += labels
                course.forwarded += sum(lengths[i] for i in batch) if lengths else 0
                check_diverged(options, lr, losses, len(batches))
                bar.advance()
                whole = len(losses) % per_epoch == 0  # an epoch has ended
                if whole and not course.learnt and fmean(losses[-per_epoch:]) < options.enough:
                    course.learnt = True
                    course.end = min(course.end, 2 * len(losses)) if anchor else len(losses)
                if len(losses) == course.end < len(batches):
                    bar.advance(len(batches) - course.end)
                    break
                if state:
                    course.anchor = anchor.order if anchor else None
                    state.write(course, weights, adam)
        seconds = time.perf_counter() - started
        if options.interpolation < 1:
            trained.interpolate(options.interpolation)
        trained.settle()
        del optimization, adam  # AdamW keeps two numbers per weight; the changes need one more
        own_kl = trained.run(partial(own.kl, model)) if own else 0.0
        changes = trained.changes()
        if not all(map(is_finite, changes.values())):
            raise exploded(options, lr, "the last step left weights that are not finite")
    final = fmean(losses[-per_epoch:])
    return changes, {
        "steps": course.steps,
        "planned_steps": len(planned),
        "learning_rate": lr,
        **({"own_text_kl": own_kl} if own and math.isfinite(own_kl) else {}),
        **({"rounding_lost": lost} if (lost := trained.rounding_lost) is not None else {}),
        **({"processes": processes.count()} if processes.count() > 1 else {}),
        "trained_tokens": course.tokens,
        **({"forwarded_tokens": course.forwarded} if texts is not None else {}),
        "first_loss": losses[0],
        "final_loss": final,
        "steps_per_second": (course.steps - made) / seconds,
        "warnings": [
            *trained.warnings,
            *(hardly_fell(options, lr, losses, final) if comparable else ()),
            *moved_far(own_kl, options.kl),
            *unmeasured,
        ],
    }


def _trainable(options: Trainer, model: LanguageModel) -> AbstractContextManager[Trainable]:
    names = options.trained_weights(model)
    several = processes.count() > 1
    return trainable(model, options.lora, options.null_space, options.seed, names, several)


class _Optimization:
    """AdamW over the trained parameters, one step at a time, each at its own rate."""

    def __init__(
        self, options: Trainer, model: LanguageModel, trained: Trainable, anchor: Anchor | None
    ):
        self.options, self.model, self.trained, self.anchor = options, model, trained, anchor
        self.weights = list(trained.parameters.values())
        if anchor:
            anchor.cut(trained.shard)
        # Accelerate keeps one state for the whole process, so num_steps=1 is set here: backward()
        # divides the loss by it. Precision and device stay the model's own (model.compute()).
        self.accelerator = accelerate.Accelerator(
            device_placement=False,
            gradient_accumulation_plugin=accelerate.utils.GradientAccumulationPlugin(num_steps=1),
        )
        # Other code in this process may have left it False, and then step() would do nothing.
        self.accelerator.sync_gradients = True
        self.optimizer = self.accelerator.prepare_optimizer(
            torch.optim.AdamW(
                self.weights,
                # The values of MixSD's reference configuration; PyTorch's default is (0.9, 0.999).
                betas=(0.9, 0.95),
                eps=1e-8,
                weight_decay=options.weight_decay,
                fused=True,
            )
        )

    def fitted_lr(self, batches: Iterable[list[int]], loss_of: Loss) -> float:
        """Return the learning rate that suits the model; 0 if it knows all facts.

        It is fitted by the gradient on the first of ``batches`` that is not learnt yet.
        """
        for batch in batches:
            with torch.enable_grad():
                loss, _ = self._backward(batch, loss_of)
            self._average()
            # ``not <=``, so that NaN is refused below.
            learnt = loss <= self.options.enough
            rate = (
                0.0 if learnt else fitted_lr(self.options.fall, loss, self.weights, self.model.name)
            )
            self.optimizer.zero_grad()
            if not learnt:
                return rate
        return 0.0

    def step(self, batch: list[int], rate: float, loss_of: Loss) -> tuple[float, int, bool]:
        """Make one step at learning rate ``rate``, unless there is nothing to learn.

        Returns:
            The mean loss of the batch, the label tokens that were trained on, and whether a step
            was made.

        Raises:
            NotFiniteError: if the loss is infinite or NaN.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Its graph is freed before the anchor's is built, so memory holds one of them at a time.
        loss, labels = self._backward(batch, loss_of, self.options.enough)
        if loss < self.options.enough:
            self.optimizer.zero_grad()
            labels = 0
            if not self.anchor:
                return loss, labels, False
        with self.model.compute():
            held = self.trained.run(self.anchor.loss) if self.anchor else None
        total = loss
        if held is not None:
            # Each process has a part of it, n-fold, since gradients are averaged.
            total += processes.summed(held.item())[0] / processes.count()
        if not math.isfinite(total):
            raise NotFiniteError(f"the loss became {total}")
        if held is not None:
            self.accelerator.backward(held)
        self._average()
        if self.anchor:
            # Before clipping, so that the bound holds for the loss and all terms together.
            self.anchor.pull(self.trained.parameters, self.trained.before)
        self.accelerator.clip_grad_norm_(self.weights, self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.trained.constrain()
        return loss, labels, True

    def _parts(self, batch: list[int]) -> list[list[int]]:
        """Return the parts of a batch that this process computes, as many as each other process.

        Where it has fewer texts than another, some of its parts are empty.
        """
        # The first process has most texts: every n-th one, beginning with the first.
        largest = ceil(len(batch) / processes.count())
        size = self.options.micro_batch or largest
        parts = list(batched(processes.share(batch), size))
        return parts + [[]] * (ceil(largest / size) - len(parts))

    def _backward(self, batch: list[int], loss_of: Loss, enough: float = 0.0) -> tuple[float, int]:
        """Compute the gradient of the mean loss over all label tokens of a step, part by part.

        Each process computes its share of them. Their gradients are averaged, over n processes,
        by FSDP2 or by ``_average``; so each counts n-fold.

        ``accelerator.accumulate`` would not do: it weights all parts equally, whatever their number
        of tokens.

        Args:
            enough: a step of one part whose loss is below it needs no gradient and gets none.

        Returns:
            The mean loss, and the number of label tokens.
        """
        parts, several = self._parts(batch), processes.count()
        total, labels = 0.0, 0
        for part in parts:
            with self.model.compute():
                # With nothing to compute, a process still takes part in each pass of the others.
                loss, n = self.trained.run(partial(loss_of, part or batch[:1]))
            n = n if part else 0
            value, all_n = loss.item(), n
            if several > 1:
                value, all_n = _mean(value, n)
            if len(parts) == 1 and value < enough:
                return value, all_n
            # The sum over the part's tokens; the division by all tokens of the step comes last.
            if len(parts) > 1:
                loss = loss * (n * several)
            elif several > 1:
                loss = loss * (n * several / max(all_n, 1))
            self.accelerator.backward(loss)
            total, labels = total + value * all_n, labels + all_n
        if len(parts) > 1:
            for p in self.weights:
                if p.grad is not None:
                    p.grad.div_(max(labels, 1))
        return total / max(labels, 1), labels

    def _average(self) -> None:
        """Average the gradients of adapters over the processes; FSDP2 did so for shards."""
        if processes.count() > 1 and self.options.lora is not None:
            processes.average([p.grad for p in self.weights if p.grad is not None])


def _mean(loss: float, n: int) -> tuple[float, int]:
    """Return the mean loss over the label tokens of all processes, and their number."""
    total, labels = processes.summed(loss * n if n else 0.0, n)
    return total / max(labels, 1), int(labels)


def _anchor(options: Trainer, model: LanguageModel) -> Anchor | None:
    """Return the terms that hold the training near ``model`` as it is now; None if all are off."""
    if not (options.replay or options.kl or options.l2 or options.ewc):
        return None
    from editbench.methods._train.anchor import Anchor  # most trainings need none

    return Anchor(
        model,
        replay=options.replay,
        kl=options.kl,
        l2=options.l2,
        ewc=options.ewc,
        seed=options.seed,
    )


def _own_text(model: LanguageModel) -> tuple[OwnText | None, list[str]]:
    """Return text of the model's own, or a sentence that says why it has none."""
    try:
        return own_text(model), []
    except ModelError as error:
        return None, [f"How far the model's own text moved was not measured. {error}"]


def _batches(n: int, options: Trainer, lengths: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Yield the batches of all epochs, each epoch in a new order.

    Given ``lengths``, texts of similar length share a batch, so that little of it is padding.
    """
    shuffled = random.Random(options.seed)
    for _ in range(options.steps(n) // ceil(n / options.batch_size)):
        order = list(range(n))
        shuffled.shuffle(order)
        if lengths is None:
            yield from batched(order, options.batch_size)
            continue
        # Sorted within windows and not as a whole, so that batches still differ between epochs.
        by_length = [
            i
            for window in batched(order, BUCKET * options.batch_size)
            for i in sorted(window, key=lengths.__getitem__)
        ]
        batches = list(batched(by_length, options.batch_size))
        # Otherwise training would go through each window from its shortest texts to its longest.
        shuffled.shuffle(batches)
        yield from batches


def target_nll(model: LanguageModel, batch: Sequence[Example]) -> tuple[torch.Tensor, int]:
    """Return the mean negative log-likelihood of all counted target tokens, and their number.

    Logits are computed at label positions only.
    """
    rows = [[*e.prompt_ids, *e.target_ids] for e in batch]
    hidden_ND = label_states(model, rows, [len(e.target_ids) for e in batch])
    labels_N = torch.tensor([token for e in batch for token in e.target_ids], device=model.device)
    if any(e.counted is not None for e in batch):
        # In the order of label_states(): text after text, position after position.
        counts_N = torch.tensor(
            [e.counted is None or t in e.counted for e in batch for t in range(len(e.target_ids))]
        )
        hidden_ND, labels_N = hidden_ND[counts_N], labels_N[counts_N]
    return F.cross_entropy(model.logits(hidden_ND), labels_N), len(labels_N)
