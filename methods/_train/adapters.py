"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685), made with PEFT.

With ``null_space`` the change of a weight has little effect on the keys of ordinary text:

    dW = B A,   A <- A P P^T     P: the eigenvectors of C = E[k k^T] with the smallest eigenvalues

    # r rank, f inputs of a layer, d outputs, U directions of the null space
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from editbench.edit import Change
from editbench.models import LanguageModel

NULL_TOKENS = 20_000
"""Tokens of the model's own text on which the null space is measured."""


class Adapters:
    """LoRA on all linear layers, or with ``null_space`` on the MLP output projections only.

    ``null_space`` is the share of a projection's input directions that the adapters may read. They
    are the directions that the model's own text uses least.
    """

    def __init__(self, model: LanguageModel, rank: int, null_space: float | None, seed: int):
        self.model = model
        # The statistics are those of the plain model, so measure them before adapters are attached.
        self.free_fU = _null_spaces(model, null_space, seed) if null_space else {}
        config = LoraConfig(
            r=rank,
            # LoRA scales B A by alpha / r, which is 1 here.
            lora_alpha=rank,
            lora_dropout=0.0,
            target_modules=list(self.free_fU) if null_space else "all-linear",
        )
        # LoRA draws the first A from the CPU's global generator, whose state a method must leave as
        # it was; torch.manual_seed would seed those of all GPUs, too. B starts at 0, so training
        # starts at the base model. PEFT warns about GPT-2's Conv1D.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.default_generator.manual_seed(seed)
            self.wrapped = get_peft_model(model.model, config)
        self.layers: dict[str, LoraLayer] = {
            name: module
            for name, module in model.model.named_modules()
            if isinstance(module, LoraLayer) and module.lora_A
        }
        self.parameters = {
            name: p for name, p in self.wrapped.named_parameters() if "lora_" in name
        }
        # Empty: the terms l2 and ewc, which need a start, are refused together with lora.
        self.before: Mapping[str, torch.Tensor] = {}
        self.constrain()

    @torch.no_grad()
    def constrain(self) -> None:
        """Project each A (r, f) onto the null space: A P P^T."""
        # Each optimizer step moves A out of the subspace again, so the loop calls this after it.
        for name, free_fU in self.free_fU.items():
            a_rf = _weight(self.layers[name].lora_A)
            a_rf.copy_((a_rf @ free_fU) @ free_fU.T)

    @torch.no_grad()
    def changes(self) -> dict[str, Change]:
        """Return the factors of each weight's change, in its orientation, float32, on the CPU."""
        changes: dict[str, Change] = {}
        for name, layer in self.layers.items():
            # A clone, since on a float32 CPU model .float().cpu() returns the parameter itself.
            a_rf = _weight(layer.lora_A).detach().float().cpu().clone()
            b_dr = layer.scaling["default"] * _weight(layer.lora_B).detach().float().cpu()
            # GPT-2's Conv1D stores its weight as (inputs, outputs): (B A)^T = A^T B^T.
            transposed = type(layer.get_base_layer()).__name__ == "Conv1D"
            changes[f"{name}.weight"] = (
                (a_rf.T.contiguous(), b_dr.T.contiguous()) if transposed else (b_dr, a_rf)
            )
        return changes

    def restore(self) -> None:
        """Remove the adapters, and the attributes that PEFT leaves on the model."""
        self.wrapped.unload()
        for name in ("peft_config", "_hf_peft_config_loaded"):
            self.model.model.__dict__.pop(name, None)


def _null_spaces(model: LanguageModel, share: float, seed: int) -> dict[str, torch.Tensor]:
    """Return the directions (f, U) that the model's text uses least, by MLP output projection."""
    from editbench.methods.statistics import second_moments  # only null-space adapters need it

    layers = tuple(range(model.layout.depth))
    moments = second_moments(model, layers, "self", NULL_TOKENS, seed)
    free_fU = {}
    for layer in layers:
        # eigen sorts ascending: the first columns are the directions that carry the least text.
        _values, vectors_ff = moments[layer].eigen
        width = max(1, round(share * len(vectors_ff)))
        name = model.layout.weight_name(layer).removesuffix(".weight")
        free_fU[name] = vectors_ff[:, :width].float().to(model.device)
    return free_fU


def _weight(adapters: torch.nn.ModuleDict) -> torch.Tensor:
    """Return the weight of a layer's only adapter."""
    weight = adapters["default"].weight
    assert isinstance(weight, torch.Tensor)
    return weight
