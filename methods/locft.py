"""LocFT-BF: localized fine-tuning in mini-batches, a preset of ``sft`` for one matrix.

    L(theta) = - (1 / sum_i |y_i|) sum_i sum_t log p_theta(y_it | x_i, y_i<t)

as in ``sft``, where theta is the output projection of one layer's MLP alone. Batches and epochs
instead of one fact after another, and an end token behind each target, are what the paper adds to
the fine-tuning of earlier editing papers. A batch whose loss is below .01 makes no step, and an
epoch whose mean is below it ends the training (``enough``).

Yang et al. 2025, "Fine-tuning Done Right in Model Editing", arXiv 2509.22072; code ICT-STAR/LocFT
at 51db785, ``fine-tune.py``. ``recipe=paper`` writes out its settings file for Qwen2.5-7B without
the layer, which is each model's own: 6 of 28 there and 22 of 32 in Llama-3-8B; in Mistral-7B its
code trains the whole of layer 23 at 5e-5.

Differs from the code:

- AdamW has beta_2 = .95 (Adam: .999), as in all trainers here.
- The loss is the mean over all target tokens of a batch; there it is the mean over facts of each
  fact's mean.
- A question is asked through the chat template; there, prompts are raw text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from editbench.memory import Memory, Phase, Texts
from editbench.methods._edit.layers import check_layers, nearest
from editbench.methods._train.trainer import PUBLISHED_TRAINING
from editbench.methods.sft import Sft
from editbench.models import LanguageModel
from editbench.outline import Outline
from editbench.pace import Work
from editbench.plugin import LogUniform, Space

DEPTH = 0.7
"""Where in the depth the default layer lies: 22 of 32 layers."""


@dataclass(frozen=True)
class LocFT(Sft):
    """Fine-tuning of one MLP's output projection."""

    name: ClassVar[str] = "locft"
    summary: ClassVar[str] = "fine-tuning of one layer's MLP output projection, in mini-batches"
    paper: ClassVar[str] = "arXiv 2509.22072"
    version: ClassVar[int] = 1
    space: ClassVar[Space] = {"lr": LogUniform(5e-5, 5e-3), "epochs": LogUniform(4, 32)}
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {
            **PUBLISHED_TRAINING,
            "epochs": 25,
            "batch_size": 100,
            "lr": 5e-4,
            "enough": 0.01,
            "weight_decay": 0.0,
            # there is no clipping
            "clip": 1e9,
            "loss_on": "answer",
        }
    }

    enough: float = 0.01
    """Loss in nats a token below which facts count as learnt (0: never). A batch below it makes no
    step, and an epoch whose mean is below it ends the training."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    layer: int | None = None
    """The layer whose MLP output projection is trained, from 0. None: the writable layer nearest to
    seven tenths of the depth."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora is not None:
            raise ValueError("locft trains one matrix itself; for adapters (lora) use sft")

    def chosen_layer(self, model: LanguageModel | Outline) -> int:
        """Return the layer that is trained.

        Raises:
            MethodError: the model has no such layer.
            ModelError: that layer, or every layer, has no matrix that writes its MLP's output.
        """
        layout = model.layout
        layout.check_writable()
        if self.layer is None:
            return nearest(layout.writable, [round(DEPTH * layout.depth)])[0]
        return check_layers(model, (self.layer,))[0]

    def trained_weights(self, model: LanguageModel) -> Collection[str]:
        """Return the name of the one weight that is trained."""
        return [model.layout.weight_name(self.chosen_layer(model))]

    def memory(self, model: Outline, texts: Texts) -> Memory:
        """Return what the training holds: what ``sft`` does, of one matrix."""
        weights = self._sizes(model)[0]
        own = {
            "kept copy": 4 * weights,
            "float32 weights": 4 * weights if model.masters else 0,
            "AdamW's moments": 8 * weights,
            "Fisher information": 4 * weights if self.ewc else 0,
            "gradients": 4 * weights,
        }
        phases = [
            Phase(p.name, {what: own.get(what, size) for what, size in p.device.items()})
            for p in super().memory(model, texts).phases
        ]
        return Memory(phases, edit=4 * weights)

    def _graph(self, model: Outline, rows: int, tokens: int, labels: int) -> dict[str, int]:
        """Return what autograd keeps: the layers below the trained one need no gradient."""
        graph = super()._graph(model, rows, tokens, labels)
        if not self.checkpointing:
            above = self._sizes(model)[1]
            graph["activations"] = model.activations(rows * tokens, layers=above, frozen=True)
        return graph

    def work(self, model: Outline, texts: Texts) -> Work:
        """Return the work of all planned steps; states have gradients, and one weight has."""
        every = super().work(model, texts)
        steps = self.steps(texts.facts * (1 + self.rewordings))
        updated = max(1, round(self.stop_after * steps)) * self._sizes(model)[0]
        return Work(**{**vars(every), "trained": 0, "solved": every.trained, "updated": updated})

    def _sizes(self, model: Outline) -> tuple[int, int]:
        """Return the number of trained weights, and how many layers the gradient passes."""
        layer = self.chosen_layer(model)
        weights = model.layout.width * model.layout.parts[layer].mlp_width
        return weights, model.layout.depth - layer

    def lighter(self, model: Outline) -> Iterator[Mapping[str, object]]:
        """Yield smaller parts, then recomputed activations."""
        yield from ({"micro_batch": 1}, {"micro_batch": 1, "checkpointing": True})
