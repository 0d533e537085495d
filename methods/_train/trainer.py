"""``Trainer``: the options that sft, mixsd, opsd and pd share, and the figures that all report."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, ClassVar, TypedDict

from editbench import __version__, processes
from editbench.errors import MethodError, ModelError, OptionError
from editbench.memory import TEMPLATE_TOKENS, Memory, Phase, Texts
from editbench.methods._train.lessons import FRAMES
from editbench.options import check_count
from editbench.pace import Work
from editbench.plugin import Choice, LogUniform, Method, Space
from editbench.report import Figure

if TYPE_CHECKING:
    from editbench.models import LanguageModel
    from editbench.outline import Outline


class TrainingReport(TypedDict, total=False):
    """What the shared loop reports; empty when there was nothing to train on."""

    steps: int
    planned_steps: int
    learning_rate: float
    own_text_kl: float
    rounding_lost: float
    processes: int
    trained_tokens: int
    forwarded_tokens: int
    first_loss: float
    final_loss: float
    steps_per_second: float
    warnings: list[str]


TRAINING_FIGURES: Mapping[str, Figure] = {
    "steps": Figure("Optimizer steps that were made.", shown="steps"),
    "planned_steps": Figure(
        "Optimizer steps of all passes, before ``enough`` and ``stop_after`` cut them.",
        shown="planned",
    ),
    "learning_rate": Figure("Learning rate after warm-up, given or fitted.", shown="learning rate"),
    "own_text_kl": Figure(
        "KL(model before || model after the training) on 256 tokens of its own text, in nats a "
        "token.",
        shown="KL on own text",
    ),
    "processes": Figure("Processes that trained together, if they were several."),
    "trained_tokens": Figure(
        "Label tokens of the batches that were trained on, summed over all steps; learnt batches "
        "(``enough``) do not count.",
        adds_up=True,
    ),
    "first_loss": Figure("Loss of the first batch, in nats a token."),
    "final_loss": Figure("Mean loss of the last epoch's batches, in nats a token."),
    "steps_per_second": Figure(
        "Optimizer steps a second, without preparation.", shown="steps per second"
    ),
}


FORWARDED = Figure(
    "Tokens that the model and its teacher read and wrote, to write texts and in all steps. "
    "Padding and the passes that fit a rate do not count."
)
PUBLISHED_TRAINING: Mapping[str, object] = {
    "epochs": 30,
    "min_steps": 1,
    "batch_size": 20,
    "lr": 1e-5,
    "warmup": 0.0,
    "stop_after": 1.0,
    "enough": 0.0,
    "interpolation": 1.0,
    "weight_decay": 0.01,
    "clip": 1.0,
    "rewordings": 0,
    "lora": None,
    "replay": 0.0,
    "kl": 0.0,
    "l2": 0.0,
    "ewc": 0.0,
}
"""The training of MixSD's knowledge corpora (jiarui-liu/MixSD at 37eb349,
``mixsd/train/knowledge_opsd/sft_config.yaml``): the whole model, AdamW at a constant rate, and
nothing that holds the model."""


@dataclass(frozen=True)
class Trainer(Method):
    """Options that all trainers share: AdamW with linear warm-up, then a constant rate."""

    engine_version: ClassVar[int] = 2
    """Version of the shared loop. Raise it with a change that moves the numbers of all trainers;
    raise a trainer's own ``version`` with a change of that trainer. A cell's key leaves it out
    while it is 1, so cells that were stored before it existed keep their keys."""
    fall: ClassVar[float] = 0.1
    """Share of the loss on the facts by which the first step at the fitted rate lowers it, to first
    order (``benchmarks/step_size.py``)."""
    space: ClassVar[Space] = {
        "lr": LogUniform(1e-6, 2e-4),
        "epochs": LogUniform(4, 32),
        "kl": Choice((0.0, 0.3, 1.0, 3.0)),
    }
    figures: ClassVar[Mapping[str, Figure]] = TRAINING_FIGURES
    # Beyond the number of facts or tokens, these mean all of them.
    limits: ClassVar[Mapping[str, int]] = dict.fromkeys(
        ("batch_size", "micro_batch", "top_k"), sys.maxsize
    )

    epochs: int = 24
    """Most passes over the facts. The training ends earlier when they are learnt (``enough``)."""
    min_steps: int = 40
    """Minimum number of planned optimizer steps. If there are only a few facts, they may get more
    passes than ``epochs``, because they would not be learned otherwise."""
    batch_size: int = 10
    """Facts in one optimizer step."""
    micro_batch: int | None = None
    """Facts in one forward pass, for a step that does not fit into memory; the gradients of its
    parts are added up. None: all facts of the step. The step stays the same up to rounding, except
    that ``opsd`` draws other rollouts."""
    checkpointing: bool = False
    """Recompute each layer's activations in the backward pass instead of keeping them. This takes
    more time and far less memory."""
    lr: float | None = None
    """Learning rate after warm-up. None: fitted to the model, so that the first step lowers the
    loss on the facts by a tenth (``opsd``: a fifth), to first order (``_train/step_size.py``)."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises linearly."""
    enough: float = 0.05
    """Loss in nats a token below which facts count as learnt (0: never). A batch below it makes no
    step, and an epoch whose mean is below it ends the training. With ``replay``, ``kl``, ``l2`` or
    ``ewc`` such a batch makes a step for these terms alone, and the training goes on for as many
    steps as it took to learn the facts, at most to its planned end."""
    stop_after: float = 1.0
    """Share of the planned steps after which training ends. The steps that are made keep their
    order and learning rates."""
    interpolation: float = 1.0
    """Where the result lies on the straight line from the base (0) to the trained weights (1), as
    in WiSE-FT (Wortsman et al. 2021, arXiv 2109.01903). A little below 1 gives back more of what
    the training cost than of what it taught. The losses reported are those at 1."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    clip: float = 1.0
    """Largest global gradient norm."""
    rewordings: int = 0
    """Number of further frames ("Quick question: ...") in which each fact is taught as well."""
    lora: int | None = None
    """Rank of low-rank adapters on all linear layers. None: all weights are trained."""
    null_space: float | None = None
    """With ``lora``: train adapters on the MLP output projections only, and only on this share of
    their input directions. They are the directions that the model's own text uses least."""
    replay: float = 0.0
    """Weight of the loss on texts that the model wrote itself."""
    kl: float = 0.0
    """Weight of KL(base || model) on texts that the model wrote itself, over the base's most
    probable tokens (``_train/anchor.py``)."""
    l2: float = 0.0
    """Weight of the squared distance to the base weights."""
    ewc: float = 0.0
    """Weight of the squared distance to the base weights, each multiplied by its Fisher information
    (mean 1) on texts that the model wrote itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1 or self.batch_size < 1 or self.min_steps < 1:
            raise ValueError("epochs, min_steps and batch_size must be at least 1")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError("micro_batch must be at least 1")
        if (self.lr is not None and not self.lr > 0) or not self.clip > 0:
            raise ValueError("lr and clip must be above 0")
        if not self.enough >= 0:
            raise ValueError("enough is a loss in nats a token, at least 0")
        if not 0 <= self.warmup < 1:
            raise ValueError("warmup must be a share of the steps, at least 0 and below 1")
        if not 0 < self.interpolation <= 1:
            raise ValueError("interpolation must be a share, above 0 and at most 1")
        if not 0 < self.stop_after <= 1:
            raise ValueError("stop_after must be a share of the steps, above 0 and at most 1")
        if not 0 <= self.rewordings <= len(FRAMES["question"]):
            raise ValueError(f"rewordings must be from 0 to {len(FRAMES['question'])}")
        if self.lora is not None and self.lora < 1:
            raise ValueError("lora is a rank, at least 1")
        if self.null_space is not None and (self.lora is None or not 0 < self.null_space <= 1):
            raise ValueError("null_space must be a share, above 0 and at most 1, and needs lora")
        if min(self.replay, self.kl, self.l2, self.ewc, self.weight_decay) < 0:
            raise ValueError("replay, kl, l2, ewc and weight_decay must be at least 0")
        if self.lora is not None and (self.l2 or self.ewc):
            raise ValueError("l2 and ewc need all weights; with lora use kl or replay")

    def memory(self, model: Outline, texts: Texts) -> Memory:
        """Return what the training holds: of all weights or of the adapters.

        Most is held when a backward pass begins, with all activations, or when it ends, with all
        gradients.
        """
        from editbench.tensors import FILED  # imports torch

        rank = self.lora or 0
        adapters = 4 * rank * sum(inputs + outputs for inputs, outputs in self._adapted(model))
        trained = adapters if rank else 4 * model.parameters
        filed = 0 if rank or trained < FILED else trained
        # Of 16 bits they are kept in memory, since they come back as the very same tensors.
        copied = model.weights if not filed or model.masters else 0
        kept = {
            "adapters": adapters,
            "kept copy": 0 if rank else copied,
            "float32 weights": 0 if rank else model.masters,
            "AdamW's moments": 2 * trained,
            "Fisher information": trained if self.ewc else 0,
            **self.beside(model),
        }
        gradients, first = trained, 0
        if not rank:
            # The head's gradient is there while the layers' activations still are.
            first = (6 if model.casts else 4) * model.embeddings
            if model.tied:
                # That of the embeddings is dense and added to the head's, the same matrix.
                gradients += 4 * model.embeddings
        rows = min(self.micro_batch or self.batch_size, self.lessons(texts.facts))
        rows, answer = self.rows(rows), self.answer_tokens(texts)
        graph = self._graph(model, rows, texts.prompt + answer, rows * answer)
        phases = [
            *self.before_training(model, texts),
            Phase("start of the backward pass", {**kept, **graph, "gradients": first}),
            Phase("end of the backward pass", {**kept, "gradients": gradients}),
        ]
        if self.replay or self.kl:
            from editbench.methods._train.anchor import AT_ONCE, LENGTH  # imports torch

            # Its texts go through the model when the gradients of the facts are there.
            held = self._graph(model, AT_ONCE, texts.prompt + LENGTH, AT_ONCE * LENGTH)
            phases.append(
                Phase(
                    "forward pass of the model's own texts", {**kept, "gradients": trained, **held}
                )
            )
        changed = sum(inputs * outputs for inputs, outputs in self._adapted(model))
        return Memory(phases, trained, filed, model.held(changed if rank else model.parameters))

    def work(self, model: Outline, texts: Texts) -> Work:
        """Return the work of all planned steps, which a training whose facts are learnt cuts short.

        Before them it writes and reads a little text of its own, and without ``lr`` it takes the
        gradient of every text once.
        """
        from editbench.methods._train import step_size  # imports torch

        n, answer = self.lessons(texts.facts), self.answer_tokens(texts)
        steps = max(1, round(self.stop_after * self.steps(n)))
        read = steps * self.rows(min(self.batch_size, n))
        if self.lr is None:
            read += self.rows(n)
        labels, tokens = read * answer, read * (texts.prompt + answer)
        before = self.writing(texts)
        if self.replay or self.kl or self.ewc:
            from editbench.methods._train import anchor  # imports torch

            length = TEMPLATE_TOKENS + anchor.LENGTH
            written = anchor.LENGTH * (anchor.FREE + anchor.ANSWERS + anchor.INSTRUCTED)
            # written and read by the base, then some of them in each step
            read_once = written * length / anchor.LENGTH
            before += Work(
                read=read_once, written=written, writing=3 * anchor.LENGTH, labels=written
            )
            if self.replay or self.kl:
                labels += steps * anchor.AT_ONCE * anchor.LENGTH
                tokens += steps * anchor.AT_ONCE * length
        weights = self.lora * sum(map(sum, self._adapted(model))) if self.lora else model.parameters
        own = step_size.TOKENS // step_size.LENGTH * (TEMPLATE_TOKENS + step_size.LENGTH)
        return before + Work(
            # the base's distributions on its own text, and those of the trained model
            plain=2 * own,
            read=tokens if self.checkpointing else 0,
            # before the own text is written, before it is read, and for the edit
            hashed=3 * model.parameters,
            written=step_size.TOKENS,
            writing=step_size.LENGTH,
            labels=2 * step_size.TOKENS,
            learned=labels,
            updated=steps * weights,
            **{"solved" if self.lora else "trained": tokens},
        )

    def writing(self, texts: Texts) -> Work:
        """Return the work of writing the training texts."""
        return Work()

    def _graph(self, model: Outline, rows: int, tokens: int, labels: int) -> dict[str, int]:
        """Return what autograd keeps of ``rows`` texts, of which ``labels`` tokens carry loss."""
        activations = model.activations(rows * tokens)
        if self.checkpointing:
            # Each layer's input, and all of the one layer that is computed again.
            inputs = 4 * rows * tokens * model.width * model.depth
            activations = inputs + model.activations(rows * tokens, layers=1)
        return {
            "bfloat16 copies": model.casts,
            "activations": activations,
            # the logits, their logarithm and a gradient
            "logits": model.logits(labels, 3),
        }

    def _adapted(self, model: Outline) -> list[tuple[int, int]]:
        """Return the inputs and outputs of the layers that get adapters."""
        if self.null_space:
            parts = (model.layout.parts[i] for i in model.layout.writable)
            return [(part.mlp_width, model.layout.width) for part in parts]
        # A head that is no matrix of the embeddings has outputs for the whole vocabulary.
        return [pair for pair in model.linear if pair[1] != model.vocabulary]

    def lessons(self, facts: int) -> int:
        """Return the number of things that batches are made of: each fact in each of its frames."""
        return facts * (1 + self.rewordings)

    def rows(self, facts: int) -> int:
        """Return the texts of a forward pass over ``facts`` facts."""
        return facts

    def answer_tokens(self, texts: Texts) -> int:
        """Return the tokens of a training text that carry loss."""
        return texts.target + 1

    def before_training(self, model: Outline, texts: Texts) -> Sequence[Phase]:
        """Return what is held while the training texts are written."""
        return ()

    def beside(self, model: Outline) -> Mapping[str, int]:
        """Return what this trainer holds on the device during the training beside the others."""
        return {}

    def lighter(self, model: Outline) -> Iterator[Mapping[str, object]]:
        """Yield smaller parts, recomputed activations, then adapters."""
        yield from ({"micro_batch": 1}, {"micro_batch": 1, "checkpointing": True})
        if not (self.lora or self.l2 or self.ewc):
            yield {"lora": 16}
            yield {"lora": 16, "micro_batch": 1, "checkpointing": True}

    def prepare(self, model: LanguageModel) -> None:
        """Write the text of the model's own on which the training's drift is measured."""
        from editbench.methods._train.step_size import own_text  # imports torch

        with suppress(ModelError):  # no room for such text: the report of the training says so
            own_text(model)

    def trained_weights(self, model: LanguageModel) -> Collection[str] | None:
        """Return the names of the weights that are trained without ``lora``; None: all."""
        return None

    def check_work(self, model: LanguageModel, n: int) -> None:
        """Check what no option can tell alone: the number of steps for ``n`` facts, and the rank.

        Raises:
            MethodError: if some weights of ``model`` are offloaded, or if several processes were
                launched and the method trains in one.
            OptionError: if the steps would not come to an end, if ``lora`` is above the rank of
                every weight of ``model``, or if the processes differ.
        """
        processes.check_may(self.name, self.over_processes)
        if processes.count() > 1:
            import torch
            import transformers

            processes.check_alike(
                {
                    "editbench": __version__,
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                    "the method": self,
                    "the number of facts": n,
                    "the precision": model.precision,
                    f"the hash of the weights of {model.name}": model.fingerprint(),
                }
            )
            if len(model.devices) > 1:
                raise MethodError(
                    f"Each process trains on one device, and {model.name} is spread over several. "
                    "Leave the device map out, or start one process."
                )
        if model.has_offloaded:
            raise MethodError(
                f"Some weights of {model.name} are in main memory or on the disk until a pass "
                "needs them, where they cannot be trained. Use a weight editor (memit, rome), a "
                "device map without disk, or fewer bits (--dtype bfloat16)."
            )
        check_count("The number of training steps", self.steps(self.lessons(n)))
        if self.lora is None:
            return
        weights = [weight for weight in model.model.parameters() if weight.ndim >= 2]
        most = max((min(weight.shape[-2:]) for weight in weights), default=1)
        if self.lora > most:
            raise OptionError(
                f"lora={self.lora} is above the rank of every weight of {model.name}, at most "
                f"{most}. Use a smaller rank, or leave lora out to train all weights."
            )

    def steps(self, n: int) -> int:
        """Return the planned optimizer steps for ``n`` training texts, before ``stop_after``."""
        steps_per_epoch = max(1, ceil(n / self.batch_size))
        # Whole epochs only, so that every fact gets the same number of passes.
        return steps_per_epoch * max(self.epochs, ceil(self.min_steps / steps_per_epoch))
