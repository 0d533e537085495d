"""MEMIT: many facts at once, spread over the MLPs of several layers, by a closed-form update of each.

For the facts' keys K (f x N, the MLP inner activations at the subject's last token), the residual R = Z - Z_cur (d x N)
between the wanted and the present hidden states at the last edited layer, and the second moment C of ordinary keys:

    for layer l = l_1 < ... < l_m:   Delta_l = R_l K_l^T (lambda C_l + K_l K_l^T)^-1,   R_l = (Z - Z_cur) / (m - i)

Keys and Z_cur are read anew after each layer has been written. Meng et al. 2023, "Mass-Editing Memory in a Transformer",
arXiv 2210.07229, eqs. 14-20, algorithm 1; reference code kmeng01/memit at 80426fd.

Differs from the reference:
- lambda follows the MLP width (f / 3): the usual 15000 belongs to f = 16384, and edits hardly anything on a small model;
- the solve is done on the smaller side where there are fewer facts than f, by the push-through identity
  K^T (lambda C + K K^T)^-1 = (lambda I + K^T C^-1 K)^-1 K^T C^-1, in float64;
- see ``_value.py`` for the target optimisation and ``_covariance.py`` for C.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.layout import mlp_gain
from editbench.methods._covariance import Moment, second_moments
from editbench.methods._hooks import read_at
from editbench.methods._value import Solver, context_prefixes, key_rows, optimize
from editbench.models import LanguageModel
from editbench.plugin import Method
from editbench.types import Fact

# N facts, d residual width, f MLP inner width


@dataclass(frozen=True)
class WeightEditor(Method):
    """Options that the locate-then-edit methods share."""

    kind: ClassVar[str] = "weight editor"
    needs_subject: ClassVar[bool] = True
    needs_covariance: ClassVar[bool] = True

    steps: int = 25
    """Forward passes of the target optimisation; one fewer update."""
    v_lr: float = 0.5
    """Adam's rate for the target optimisation."""
    kl_factor: float = 0.0625
    v_weight_decay: float = 1e-3
    prefixes: int = 5
    """Generated texts before the prompt, so that the fact holds in more than one context."""
    covariance: str = "self"
    """What C is measured on: ``self`` (the model's own text) or a path to a text file."""
    covariance_tokens: int = 20_000

    def __post_init__(self) -> None:
        if self.steps < 2 or self.v_lr <= 0 or self.prefixes < 0 or self.covariance_tokens < 2:
            raise ValueError("steps must be at least 2, v_lr above 0, prefixes at least 0, covariance_tokens at least 2")

    @abstractmethod
    def edited_layers(self, model: LanguageModel) -> tuple[int, ...]:
        """The layers that this method writes, ascending."""

    def prepare(self, model: LanguageModel) -> None:
        self.moments(model)

    def moments(self, model: LanguageModel) -> dict[int, Moment]:
        return second_moments(model, self.edited_layers(model), self.covariance, self.covariance_tokens, self.seed)

    def solver(self, clamp: float) -> Solver:
        return Solver(self.steps, self.v_lr, clamp, self.kl_factor, self.v_weight_decay)


@dataclass(frozen=True)
class Memit(WeightEditor):
    """Mass-Editing Memory in a Transformer."""

    name: ClassVar[str] = "memit"
    summary: ClassVar[str] = "closed-form update of several MLPs, all facts at once"
    paper: ClassVar[str] = "arXiv 2210.07229"

    layers: tuple[int, ...] | None = None
    """Edited layers, ascending. None: five layers around a fifth of the depth."""
    lam: float | None = None
    """lambda, the weight of C against the facts' keys. None: a third of the MLP width."""
    clamp: float = 0.75
    """Largest ||delta|| as a share of ||h_0||."""

    def edited_layers(self, model: LanguageModel) -> tuple[int, ...]:
        return check_layers(model, self.layers if self.layers is not None else default_layers(model.layout.depth))

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        if not facts:
            return self.edit(model, facts)
        layers = self.edited_layers(model)
        lam = self.lam if self.lam is not None else model.layout.mlp_width / 3
        gain = additive_gain(model, layers)
        moments = self.moments(model)
        prefixes = context_prefixes(model, self.prefixes, self.seed)
        rows, positions = key_rows(model, facts, prefixes)
        bare = slice(None, None, 1 + len(prefixes))
        last = model.layout.layer(model.model, layers[-1])

        targets = optimize(model, facts, layers[-1], "residual", prefixes, self.solver(self.clamp), "memit: solving targets")
        z_dN = targets.value_ND.T.double()
        factors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        left_over = []
        originals = {name: model.weight(name).detach().clone() for name in map(model.layout.weight_name, layers)}
        try:
            for i, layer in enumerate(layers):
                k_fN = fact_keys(model, layer, rows, positions, len(facts)).T
                z_current_dN = read_at(model, last, "output", rows[bare], positions[bare]).T.double().cpu()
                residual_dN = z_dN - z_current_dN
                left_over.append(residual_dN.norm(dim=0).mean().item())
                r_dN = residual_dN / (len(layers) - i) / gain
                a_fN = memit_solve(moments[layer], k_fN, lam)
                factors[model.layout.weight_name(layer)] = write(model, layer, r_dN, a_fN)
            z_current_dN = read_at(model, last, "output", rows[bare], positions[bare]).T.double().cpu()
            left_over.append((z_dN - z_current_dN).norm(dim=0).mean().item())
        finally:
            restore(model, originals)
        report = {
            "layers": list(layers),
            "lambda": lam,
            "residual_by_layer": left_over,
            "prefixes": prefixes,
            **targets.report(),
        }
        return self.edit(model, facts, factors, diagnostics={**report, "covariance_tokens": moments[layers[0]].tokens})


def memit_solve(moment: Moment, k_fN: torch.Tensor, lam: float) -> torch.Tensor:
    """(lambda C + K K^T)^-1 K, shape (f, N), float64, solved on the N x N side."""
    c_inverse_k_fN = moment.solve(k_fN)
    gram_NN = k_fN.double().T @ c_inverse_k_fN
    return torch.linalg.solve(gram_NN + lam * torch.eye(len(gram_NN), dtype=torch.float64), c_inverse_k_fN, left=False)


def fact_keys(model: LanguageModel, layer: int, rows: list[list[int]], positions: list[int], n: int) -> torch.Tensor:
    """Keys (N, f), float64: the bare prompt counts one half, the prefixed ones share the other half (MEMIT's grouping)."""
    keys_NTf = read_at(model, model.layout.out_projection(model.model, layer), "input", rows, positions)
    keys_NTf = keys_NTf.double().cpu().reshape(n, len(rows) // n, -1)
    if keys_NTf.shape[1] == 1:
        return keys_NTf[:, 0]
    return (keys_NTf[:, 0] + keys_NTf[:, 1:].mean(dim=1)) / 2


@torch.no_grad()
def write(model: LanguageModel, layer: int, left_dN: torch.Tensor, right_fN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Adds left @ right^T to W at ``layer``; returns the factors in W's stored orientation."""
    factors = (right_fN, left_dN.T) if model.layout.transposed else (left_dN, right_fN.T)
    weight = model.weight(model.layout.weight_name(layer))
    weight.copy_((weight.double() + (factors[0] @ factors[1]).to(weight.device)).to(weight.dtype))
    return factors[0].contiguous(), factors[1].contiguous()


@torch.no_grad()
def restore(model: LanguageModel, originals: dict[str, Any]) -> None:
    for name, weight in originals.items():
        model.weight(name).copy_(weight)


def default_layers(depth: int) -> tuple[int, ...]:
    """Five layers (fewer in shallow models) centred at a fifth of the depth: 4-8 of 28 to 32 layers, as published."""
    window = max(1, min(5, depth // 3))
    first = max(0, round(0.2 * depth) - window // 2)
    return tuple(range(first, first + window))


def check_layers(model: LanguageModel, layers: Sequence[int]) -> tuple[int, ...]:
    """``layers``, ascending.

    Raises:
        MethodError: none given, or one that the model does not have.
    """
    if not layers or min(layers) < 0 or max(layers) >= model.layout.depth:
        raise MethodError(f"Layers {list(layers)} are not layers of {model.name}, which has 0 to {model.layout.depth - 1}.")
    return tuple(sorted(set(layers)))


def additive_gain(model: LanguageModel, layers: Sequence[int]) -> float:
    """The constant with which the MLP's output enters the residual stream.

    Raises:
        MethodError: the output is normalised before it is added, so no linear share of the residual can be written.
    """
    gain = mlp_gain(model.model, model.layout, layers[0])
    if gain is None or gain == 0:
        raise MethodError(
            f"{type(model.model).__name__} normalises the MLP's output before adding it, so memit's residual shares do not "
            "add up there. Use rome, which writes the MLP's own output, or a trainer (sft, mixsd, opsd)."
        )
    return gain
