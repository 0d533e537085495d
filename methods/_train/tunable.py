"""What a trainer may change: all weights, or low-rank adapters (LoRA) beside them, by PEFT.

Either way the model is, after the ``with``, bit for bit what it was.

    # r rank, f inputs of a layer, d outputs, U directions of the null space
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from editbench.edit import Change
from editbench.errors import MethodError
from editbench.methods.statistics import second_moments
from editbench.models import LanguageModel

NULL_TOKENS = 20_000
"""Of the model's own text, on which the null space is measured."""


class FullWeights:
    """All parameters."""

    def __init__(self, model: LanguageModel):
        self.parameters = dict(model.model.named_parameters())
        for name, p in self.parameters.items():
            if p.dtype not in (torch.float32, torch.float64):
                raise MethodError(
                    f"{model.name} is stored in {p.dtype} ({name}), in which a step of training is mostly lost to rounding. "
                    "Load it in float32 (from_pretrained(..., dtype=torch.float32)), or train adapters (lora=16)."
                )
        self.before = {name: p.detach().clone() for name, p in self.parameters.items()}

    def constrain(self) -> None:
        """Nothing is forbidden."""

    @torch.no_grad()
    def changes(self) -> dict[str, Change]:
        """The change of each weight, float32, CPU."""
        return {
            name: (p.detach() - self.before[name]).float().cpu()
            for name, p in self.parameters.items()
        }

    @torch.no_grad()
    def restore(self) -> None:
        for name, p in self.parameters.items():
            p.copy_(self.before[name])


class Adapters:
    """LoRA on all linear layers; with ``null_space`` on the MLP output projections, and there only on that share of their
    input directions which the model's own text uses least: dW k = 0 for the keys k of ordinary text, nearly."""

    def __init__(self, model: LanguageModel, rank: int, null_space: float | None, seed: int):
        from peft import LoraConfig, get_peft_model  # takes seconds to import
        from peft.tuners.lora import LoraLayer

        self.model = model
        layers = range(model.layout.depth)
        outputs = {
            model.layout.weight_name(layer).removesuffix(".weight"): layer for layer in layers
        }
        moments = (
            second_moments(model, tuple(layers), "self", NULL_TOKENS, seed) if null_space else {}
        )
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,
            lora_dropout=0.0,
            target_modules=list(outputs) if null_space else "all-linear",
        )
        with (
            torch.random.fork_rng(),
            warnings.catch_warnings(),
        ):  # LoRA's first A is random; of Conv1D it warns
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            self.wrapped = get_peft_model(model.model, config)
        self.layers = {
            name: module
            for name, module in model.model.named_modules()
            if isinstance(module, LoraLayer) and module.lora_A
        }
        self.free_fU: dict[str, torch.Tensor] = {}
        for name in self.layers if null_space else ():
            _values, vectors_ff = moments[outputs[name]].eigen
            width = max(1, round(null_space * len(vectors_ff)))
            self.free_fU[name] = vectors_ff[:, :width].float().to(model.device)
        self.parameters = {
            name: p for name, p in self.wrapped.named_parameters() if "lora_" in name
        }
        self.before: Mapping[str, torch.Tensor] = {}
        self.constrain()

    @torch.no_grad()
    def constrain(self) -> None:
        """Projects each A (r, f) onto the null space."""
        for name, free_fU in self.free_fU.items():
            a_rf = self.layers[name].lora_A["default"].weight
            a_rf.copy_((a_rf @ free_fU) @ free_fU.T)

    @torch.no_grad()
    def changes(self) -> dict[str, Change]:
        """The factors of each adapted weight's change, in its own orientation, float32, CPU."""
        found: dict[str, Change] = {}
        for name, module in self.layers.items():
            a_rf = module.lora_A["default"].weight.detach().float().cpu().clone()
            b_dr = (
                module.scaling["default"] * module.lora_B["default"].weight.detach().float().cpu()
            )
            transposed = type(module.get_base_layer()).__name__ == "Conv1D"
            found[f"{name}.weight"] = (
                (a_rf.T.contiguous(), b_dr.T.contiguous()) if transposed else (b_dr, a_rf)
            )
        return found

    def restore(self) -> None:
        self.wrapped.unload()
        for name in ("peft_config", "_hf_peft_config_loaded"):
            self.model.model.__dict__.pop(name, None)


@contextmanager
def tunable(
    model: LanguageModel, rank: int | None, null_space: float | None, seed: int
) -> Iterator[FullWeights | Adapters]:
    """What is trained, with gradients on; weights, ``requires_grad`` and modules are put back at the end."""
    parameters = dict(model.model.named_parameters())
    wanted_grad = {name: p.requires_grad for name, p in parameters.items()}
    found = FullWeights(model) if rank is None else Adapters(model, rank, null_space, seed)
    try:
        for p in found.parameters.values():
            p.requires_grad_(True)
        yield found
    finally:
        found.restore()
        for name, p in parameters.items():
            p.requires_grad_(wanted_grad[name])
            p.grad = None
