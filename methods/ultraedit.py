"""UltraEdit: one pass of gradients, and a closed-form update: no subject, no covariance.

For the input h and the output's gradient g of a projection W, at each token that predicts a token
of a target, with the loss the negative log-likelihood of all targets:

    [h^; g^] = ([h; g] - mean) / std          over all tokens of these and of earlier facts
    V = - lr ||h^||^2 g^                      the wanted change of W's output
    Delta = V^T (H H^T + I)^-1 H              the ridge solution of Delta h = v

Gu et al. 2025, "UltraEdit: Training-, Subject-, and Memory-Free Lifelong Editing in Language
Models", arXiv 2505.14679; reference code XiaojieGu/UltraEdit at 0beb222, ``editor/ultraedit.py``.

Differences from the reference:
- lr follows the width of h, since ||h^||^2 is that width on average: lr is one of ``STEPS`` divided
  by it. ``recipe=paper`` has the published 1e-6, which is 0.004 divided by the 4096 of Llama 3.
- Mean and std are those of all tokens. The reference adds up the variances of batches of 10 facts
  with a factor of n / (n - 1) each, and divides the loss by the tokens of a batch.
- An edit keeps the sums of its tokens (``Edit.sums``), so that mean and std go on in a sequence,
  also from a file. EasyEdit's copy of the method starts anew with every batch (``is_init`` is never
  set).
- The reference names the projections of each model: gate and up projections of layers 18 to 26 of
  28 (Qwen2.5), or output projections of such layers (GPT-J, Phi). Here ``projections`` says which,
  and the layers are at the same share of the depth.

    # N tokens, D output width, F input width of a projection
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from editbench import progress
from editbench.batching import in_batches
from editbench.changes import Change, dense
from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.layout import Output, hidden_of
from editbench.memory import Memory, Phase, Texts
from editbench.methods._common.context import check_context
from editbench.methods._edit.layers import given_or_usual
from editbench.models import LanguageModel, float64_device
from editbench.outline import Outline
from editbench.pace import Work
from editbench.plugin import LogUniform, Method, Space
from editbench.report import Figure
from editbench.types import Fact

Projections = Literal["in", "out"]
STEPS: Mapping[Projections, float] = {"in": 0.115, "out": 0.75}
"""lr times the width of h. ``in``: of three settings on 20 dev facts of CounterFact (SmolLM2,
protocol ``generation``) 0.115 had the best score, .40; twice that had .24, and ``out`` with 1.5 had
.24: both say other subjects' targets. ``out`` with 0.75 was not searched."""
AT_ONCE = 16
"""Texts of one pass, unless ``--batch-size`` says how many."""
Pair = tuple[list[int], list[int]]
Read = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Weight -> h (N, F) and g (N, D) of its projection, float32, on the CPU."""


@dataclass(frozen=True)
class UltraEdit(Method):
    """Training-, subject- and memory-free editing."""

    name: ClassVar[str] = "ultraedit"
    kind: ClassVar[str] = "weight editor"
    summary: ClassVar[str] = "closed-form update from one pass of gradients: no subject needed"
    paper: ClassVar[str] = "arXiv 2505.14679"
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {
        # config/editor/ultraedit.yaml, config/model/llama-3-instruct.yaml
        "paper": {"lr": 1e-6, "projections": "in"}
    }
    space: ClassVar[Space] = {"lr": LogUniform(1e-7, 1e-3)}
    figures: ClassVar[Mapping[str, Figure]] = {
        "layers": Figure("Layers that were written, ascending."),
        "projections": Figure("The option projections, given or derived."),
        "learning_rate": Figure("The option lr, given or derived.", shown="learning rate"),
        "tokens": Figure("Target tokens whose gradients were read.", shown="tokens"),
        "earlier_tokens": Figure("Tokens of earlier edits that mean and std go on from."),
        "target_nll_before": Figure("Nats a token of the targets before the edit, their mean."),
        "relative_update": Figure(
            "Norm of the update as a share of the weight's, the largest over the weights."
        ),
    }

    layers: tuple[int, ...] | None = None
    """Edited layers. None: those from two thirds of the depth on, but for the last one in 28."""
    projections: Projections | None = None
    """Which matrices of the MLP are written: those that read the residual stream (``in``: gate and
    up projections), or the one that writes it (``out``). None: ``in``, where there are any."""
    lr: float | None = None
    """Size of the step (eta). None: 0.115 (``in``) or 0.75 (``out``) divided by the width of the
    projection's input."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projections not in (None, "in", "out"):
            raise ValueError("projections must be in or out")
        if self.lr is not None and not self.lr > 0:
            raise ValueError("lr must be above 0")

    def edited_layers(self, model: LanguageModel | Outline) -> tuple[int, ...]:
        """Return the layers that are written, ascending.

        Raises:
            MethodError, ModelError: As ``given_or_usual``.
        """
        return given_or_usual(model, self.layers, published_layers)

    def which(self, model: LanguageModel | Outline, layers: Sequence[int]) -> Projections:
        """Return which projections of ``layers`` are written."""
        if self.projections is not None:
            return self.projections
        return "in" if all(reading(model, layer) for layer in layers) else "out"

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        if not facts:
            return self.edit(model, facts)
        layers = self.edited_layers(model)
        pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in facts]
        for fact, (prompt, target) in zip(facts, pairs, strict=True):
            check_context(model, fact, len(prompt) + len(target))
        which = self.which(model, layers)
        modules = edited_modules(model, layers, which)
        read, nll = read_tokens(model, modules, pairs)
        changes, sums, earlier = {}, {}, 0
        with progress.task("ultraedit: solving", len(read), "weights") as bar:
            for name, (h_NF, g_ND) in read.items():
                sums[name], before = token_sums(h_NF, g_ND), earlier_sums(model, name)
                if before is not None:
                    earlier = int(before[0, 0])
                together = sums[name] if before is None else sums[name] + before
                delta = update(h_NF, g_ND, together, self.rate(which, h_NF.shape[1]))
                changes[name] = oriented(model, name, modules[name], delta)
                bar.advance()
        largest = self.check_changes(model, changes)
        n = sum(len(target) for _, target in pairs)
        warnings = []
        if n + earlier < 2:
            warnings.append(
                "The edit does nothing: ultraedit divides by the spread over target tokens, and "
                "there is only one. Inject more facts at once."
            )
        if largest > 1:
            warnings.append(
                f"The edit blew up: an update is {largest:.1f} times as large as its weight. Lower "
                "ultraedit.lr."
            )
        width = next(iter(read.values()))[0].shape[1]
        figures = {
            "layers": list(layers),
            "projections": which,
            "learning_rate": self.rate(which, width),
            "tokens": n,
            "earlier_tokens": earlier,
            "target_nll_before": nll / n,
            "relative_update": largest,
            "warnings": [*warnings, *dict.fromkeys(model.batches.notes)],
        }
        return self.edit(model, facts, changes, sums=sums, diagnostics=figures)

    def rate(self, which: Projections, width: int) -> float:
        """Return the size of the step for a projection that reads ``width`` numbers."""
        return self.lr if self.lr is not None else STEPS[which] / width

    def check_changes(self, model: LanguageModel, changes: Mapping[str, Change]) -> float:
        """Return the largest ||Delta|| / ||W||, after making sure that all weights stay finite.

        Raises:
            MethodError: One does not.
        """
        largest = 0.0
        for name, change in changes.items():
            weight = model.weight(name).detach()
            place = float64_device(weight.device)
            delta = dense(change).to(place, torch.float64)
            if not (weight.to(place).double() + delta).to(weight.dtype).isfinite().all():
                raise MethodError(
                    f"The update of {name} is not finite in {weight.dtype}. Lower ultraedit.lr, or "
                    "load the model in float32."
                )
            size = weight.to(place).double().norm().clamp(min=1e-12)
            largest = max(largest, (delta.norm() / size).item())
        return largest

    def memory(self, model: Outline, texts: Texts) -> Memory:
        """Return what is held: a pass with its graph, then all tokens' states and gradients."""
        layers = self.edited_layers(model)
        d, f = model.layout.width, model.layout.mlp_width
        rows, n = min(AT_ONCE, texts.facts), texts.facts * texts.target
        matrices = len(edited_modules(model, layers, self.which(model, layers)))
        read = 4 * n * (d + f) * matrices
        passed = rows * (texts.prompt + texts.target)
        graph = {
            "bfloat16 copies": model.casts,
            "activations": model.activations(passed, model.depth - layers[0], frozen=True),
            "logits": model.logits(rows * texts.target, 3),
        }
        # the matrix of the equations, its factor, and one update in float64
        solve = 8 * (2 * min(n, f) ** 2 + 2 * d * f)
        return Memory(
            [
                Phase("gradients of the targets", graph, {"states and gradients": read}),
                Phase("solving", {}, {"states and gradients": read, "equations": solve}),
            ],
            edit=matrices * (4 * min(n * (d + f), d * f) + 8 * 3 * (d + f)),
        )

    def work(self, model: Outline, texts: Texts) -> Work:
        """Return the work of one pass over the facts, with gradients, and of the equations."""
        layers = self.edited_layers(model)
        n, f, d = texts.facts * texts.target, model.layout.mlp_width, model.layout.width
        matrices = len(edited_modules(model, layers, self.which(model, layers)))
        small = min(n, f)
        return Work(
            solved=texts.facts * (texts.prompt + texts.target),
            learned=n,
            products=matrices * (small**3 / 3 + 2 * small * n * f + n * d * f),
        )

    def lighter(self, model: Outline) -> Iterator[Mapping[str, object]]:
        """Yield fewer layers, the last ones."""
        layers = self.edited_layers(model)
        for kept in dict.fromkeys((len(layers) // 2 + 1, 1)):
            if kept < len(layers):
                yield {"layers": layers[-kept:]}


def published_layers(depth: int) -> tuple[int, ...]:
    """Return layers 18 to 26 of 28, and as many by share of other depths."""
    first = round(depth * 18 / 28)
    return tuple(range(first, max(first + 1, round(depth * 27 / 28))))


def edited_modules(
    model: LanguageModel | Outline, layers: Sequence[int], which: Projections
) -> dict[str, nn.Module]:
    """Return the projections to write, by the name of their weight.

    Raises:
        MethodError: The MLP of a layer has no projection of its own that reads the residual.
    """
    layout = model.layout
    modules: dict[str, nn.Module] = {}
    for i in layers:
        if which == "out":
            modules[layout.weight_name(i)] = layout.out_projection(model.model, i)
        elif found := reading(model, i):
            modules |= found
        else:
            raise MethodError(
                f"The MLP at layer {i} of {model.name} has no projection that reads the residual "
                "stream. Use ultraedit.projections=out."
            )
    return modules


def reading(model: LanguageModel | Outline, layer: int) -> dict[str, nn.Module]:
    """Return the projections of a layer's MLP that read the residual stream.

    Routers and routed experts are not among them, nor is W where it is as wide.
    """
    layout = model.layout
    last, f = layout.out_projection(model.model, layer), layout.parts[layer].mlp_width
    mlp = layout.mlp_module(model.model, layer)
    path = f"{layout.layers}.{layer}.{layout.parts[layer].mlp}"
    return {
        f"{path}.{name}.weight": module
        for name, module in mlp.named_modules()
        if name
        and module is not last
        and not re.search(r"\bexperts\.\d", name)
        and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        # Some models keep gate and up in one matrix.
        and sizes(module) in ((layout.width, f), (layout.width, 2 * f))
    }


def sizes(module: nn.Module) -> tuple[int, int]:
    """Return the inputs and outputs of a linear layer; GPT-2's Conv1D stores the inputs first."""
    first, second = module.get_parameter("weight").shape
    return (second, first) if isinstance(module, nn.Linear) else (first, second)


def oriented(model: LanguageModel, name: str, module: nn.Module, delta: Change) -> Change:
    """Return Delta (D, F) in the orientation in which the weight is stored."""
    if isinstance(module, nn.Linear):
        return delta
    if isinstance(delta, torch.Tensor):
        return delta.T.contiguous()
    left_DN, right_NF = delta
    return right_NF.T.contiguous(), left_DN.T.contiguous()


def update(h_NF: torch.Tensor, g_ND: torch.Tensor, sums_3Z: torch.Tensor, lr: float) -> Change:
    """Return Delta (D, F), as factors where these are smaller."""
    h_NF, g_ND = h_NF.double(), g_ND.double()
    n, f = h_NF.shape
    mean_Z, std_Z = spread(sums_3Z)
    # As in the reference: what does not vary is divided by float32's eps, and stays zero.
    hat_NZ = (torch.cat([h_NF, g_ND], dim=1) - mean_Z) / (std_Z + torch.finfo(torch.float).eps)
    hat_h_NF, hat_g_ND = hat_NZ[:, :f], hat_NZ[:, f:]
    v_ND = -lr * hat_h_NF.square().sum(1, keepdim=True) * hat_g_ND
    one = torch.eye(min(n, f), dtype=torch.float64)
    if n > f:
        delta_FD: torch.Tensor = torch.linalg.solve(h_NF.T @ h_NF + one, h_NF.T @ v_ND)
        return delta_FD.T.float()
    # Push-through: F x F becomes N x N.
    right_NF = torch.linalg.solve(h_NF @ h_NF.T + one, h_NF)
    smaller = n * (f + g_ND.shape[1]) < f * g_ND.shape[1]
    factors = v_ND.T.float().contiguous(), right_NF.float().contiguous()
    return factors if smaller else (v_ND.T @ right_NF).float()


def token_sums(h_NF: torch.Tensor, g_ND: torch.Tensor) -> torch.Tensor:
    """Return (3, F + D), float64: the number of tokens, their sum, and that of their squares."""
    z_NZ = torch.cat([h_NF, g_ND], dim=1).double()
    return torch.stack([torch.full_like(z_NZ[0], len(z_NZ)), z_NZ.sum(0), z_NZ.square().sum(0)])


def earlier_sums(model: LanguageModel, name: str) -> torch.Tensor | None:
    """Return the sums of all applied edits for the weight ``name``; ``None`` if none has any."""
    kept = [edit.sums[name].double() for edit in model.applied if name in edit.sums]
    return torch.stack(kept).sum(0) if kept else None


def spread(sums_3Z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation (Z,) of the tokens behind ``token_sums``."""
    n, sum_Z, square_Z = sums_3Z[0, 0], sums_3Z[1], sums_3Z[2]
    mean_Z = sum_Z / n
    # Below 0 by rounding only, where nothing varies.
    variance_Z = (square_Z - n * mean_Z.square()).clamp(min=0) / (n - 1).clamp(min=1)
    return mean_Z, variance_Z.sqrt()


def read_tokens(
    model: LanguageModel, modules: Mapping[str, nn.Module], pairs: Sequence[Pair]
) -> tuple[Read, float]:
    """Return h and g of each projection at all tokens that predict a target, and their nll's sum.

    Raises:
        MethodError: A gradient is not finite.
        ModelError: The memory does not suffice for one text.
    """
    model.check_head()  # it runs forward passes, which must not meet the hooks
    parts: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in modules}
    total = 0.0
    order = sorted(range(len(pairs)), key=lambda i: sum(map(len, pairs[i])))

    def read(chunk: list[int]) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], float]:
        return _read(model, modules, [pairs[i] for i in chunk])

    def describe(i: int) -> str:
        return f"read the gradients of a text of {sum(map(len, pairs[i]))} tokens"

    with progress.task("ultraedit: reading gradients", len(pairs), "facts") as bar:
        for chunk, (states, nll) in in_batches(
            model.batches, "texts to read", order, AT_ONCE, read, model.device, describe
        ):
            total += nll
            for name, pair in states.items():
                parts[name].append(pair)
            bar.advance(len(chunk))
    joined = {
        name: (torch.cat([h for h, _ in some]), torch.cat([g for _, g in some]))
        for name, some in parts.items()
    }
    if not all(h.isfinite().all() and g.isfinite().all() for h, g in joined.values()):
        dtype = next(model.model.parameters()).dtype
        raise MethodError(
            f"The states or gradients of {model.name} are not finite in {dtype}. Load the model in "
            "float32 or bfloat16."
        )
    return joined, total


def _read(
    model: LanguageModel, modules: Mapping[str, nn.Module], pairs: Sequence[Pair]
) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], float]:
    """Do ``read_tokens`` for the texts of one pass."""
    ids_BT, mask_BT, own_BT = model.in_one_pass([prompt + target for prompt, target in pairs])
    place_BT = own_BT.cumsum(-1)
    prompt_B1 = torch.tensor([len(prompt) for prompt, _ in pairs], device=model.device)[:, None]
    length_B1 = own_BT.sum(-1, keepdim=True)
    # The token before a target token predicts it.
    counted_BT = own_BT.bool() & (place_BT >= prompt_B1) & (place_BT < length_B1)
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}
    with ExitStack() as hooks, torch.enable_grad(), model.compute(weights_fixed=True):
        for name, module in modules.items():

            def keep(
                _module: nn.Module, args: Output, output: torch.Tensor, name: str = name
            ) -> None:
                inputs[name], outputs[name] = hidden_of(args).detach(), output
                # The first of them begins the graph.
                if not output.requires_grad:
                    output.requires_grad_(True)

            hooks.callback(module.register_forward_hook(keep).remove)
        hidden_BTD = model.hidden(ids_BT, mask_BT)
        logits_NV = model.logits(hidden_BTD[:, :-1][counted_BT[:, :-1]])
        labels_N = ids_BT[:, 1:][counted_BT[:, :-1]]
        nll = F.cross_entropy(logits_NV.float(), labels_N, reduction="sum")
        gradients = torch.autograd.grad(nll, list(outputs.values()))
    states = {}
    for (name, h), g in zip(inputs.items(), gradients, strict=True):
        # OPT flattens (B, T) before its MLP.
        counted_N = counted_BT.reshape(-1).to(h.device)
        h_NF, g_ND = (each.reshape(-1, each.shape[-1])[counted_N] for each in (h, g))
        states[name] = (h_NF.float().cpu(), g_ND.float().cpu())
    return states, nll.item()
