"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685), made with PEFT.

They are on linear layers wherever these are, so no layout is needed: in mixtures of experts and in
state-space models as well. A router, which chooses among experts, stays as it is. So do experts
that are kept in one tensor for each layer, since PEFT's adapters for those make another kind of
edit; the report says so.

With ``null_space`` the change of a weight has little effect on the keys of ordinary text:

    dW = B A,   A <- A P P^T     P: the eigenvectors of C = E[k k^T] with the smallest eigenvalues

    # r rank, f inputs of a layer, d outputs, U directions of the null space
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from editbench.changes import Change
from editbench.errors import MethodError
from editbench.models import LanguageModel

T = TypeVar("T")

NULL_TOKENS = 20_000
"""Tokens of the model's own text on which the null space is measured."""
ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
"""Names, within a layer, of what chooses among experts. An MLP's gate has as many outputs as the
MLP is wide, a router fewer than inputs."""


class Adapters:
    """LoRA on all linear layers, or with ``null_space`` on the MLP output projections only.

    ``null_space`` is the share of a projection's input directions that the adapters may read. They
    are the directions that the model's own text uses least.

    Raises:
        MethodError: if there is no linear layer to adapt, or with ``null_space`` no projection.
    """

    def __init__(self, model: LanguageModel, rank: int, null_space: float | None, seed: int):
        self.model = model
        # The statistics are those of the plain model, so measure them before adapters are attached.
        self.free_fU = _null_spaces(model, null_space, seed) if null_space else {}
        self.warnings = [] if null_space else _left_out(model, rank)
        config = LoraConfig(
            r=rank,
            # LoRA scales B A by alpha / r, which is 1 here.
            lora_alpha=rank,
            lora_dropout=0.0,
            target_modules=[f"model.{name}" for name in self.free_fU or _linear_layers(model)],
        )
        # PEFT changes the targets of the model types that it knows (fused experts, Mamba), so it
        # gets a plain module that holds the model.
        holder = nn.Module()
        holder.model = model.model
        # LoRA draws the first A from the CPU's global generator, whose state a method must leave as
        # it was; torch.manual_seed would seed those of all GPUs, too. B starts at 0, so training
        # starts at the base model. PEFT warns about GPT-2's Conv1D.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.default_generator.manual_seed(seed)
            self.wrapped = get_peft_model(holder, config)
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
        self.rounding_lost: float | None = None
        self.constrain()

    def run(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns."""
        return compute()

    def shard(self, whole: torch.Tensor) -> torch.Tensor:
        """Return ``whole``: each process has all adapters."""
        return whole

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

    @torch.no_grad()
    def interpolate(self, share: float) -> None:
        """Scale each change B A, by scaling B."""
        for layer in self.layers.values():
            _weight(layer.lora_B).mul_(share)

    def settle(self) -> None:
        """Do nothing: the factors stay as they are, and their product is rounded when applied."""

    def restore(self) -> None:
        """Remove the adapters."""
        self.wrapped.unload()


def _linear_layers(model: LanguageModel) -> list[str]:
    """Return the names of the linear layers to adapt: all but the head and routers.

    A weight that several modules share belongs to none of them alone, so it is left out.

    Raises:
        MethodError: if there are none.
    """
    head = model.model.get_output_embeddings()
    uses = Counter(id(p) for _, p in model.model.named_parameters(remove_duplicate=False))
    # A module that occurs twice has one name here, that of its parameters.
    names = [
        name
        for name, module in model.model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and module is not head
        and not _is_router(name, module)
        and uses[id(module.weight)] == 1
    ]
    if not names:
        raise MethodError(
            f"{type(model.model).__name__} has no linear layers to put adapters on. Leave lora out."
        )
    return names


def _is_router(name: str, module: nn.Module) -> bool:
    few = isinstance(module, nn.Linear) and module.out_features < module.in_features
    return few and not ROUTERS.isdisjoint(name.split("."))


def _left_out(model: LanguageModel, rank: int) -> list[str]:
    """Return a sentence about experts without adapters, if there are any."""
    experts = [
        parameter
        for name, module in model.model.named_modules()
        for parameter in module.parameters(recurse=False)
        if parameter.dim() > 1
        and "expert" in f"{name}.{type(module).__name__}".lower()
        and not isinstance(module, nn.Linear)
    ]
    if not experts:
        return []
    share = sum(p.numel() for p in experts) / sum(p.numel() for p in model.model.parameters())
    return [
        f"The experts of {type(model.model).__name__} ({share:.0%} of its weights) are kept in one "
        f"tensor for each layer, on which lora={rank} puts no adapters, so they stay as they are. "
        "Leave lora out to train them."
    ]


def _null_spaces(model: LanguageModel, share: float, seed: int) -> dict[str, torch.Tensor]:
    """Return the directions (f, U) that the model's text uses least, by MLP output projection."""
    from editbench.methods.statistics import second_moments  # only null-space adapters need it

    layers = model.layout.writable
    if not layers:
        raise MethodError(
            f"null_space is measured at matrices that write an MLP's output, and no layer of "
            f"{type(model.model).__name__} has one. Leave null_space out; lora needs none."
        )
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
