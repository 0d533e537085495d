"""Where things are in a model, derived from the model itself: no per-model files, no tests of model names.

The map names the decoder layers, each layer's attention, the MLP module whose output is added to the residual
stream, and that MLP's output projection W (``d x f``: its input is a key, its output a value).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from editbench.errors import ModelError

PARTS = ("layers", "attention", "mlp", "mlp_out")


@dataclass(frozen=True)
class Layout:
    """Module paths and sizes of one model. ``attention``, ``mlp`` and ``mlp_out`` are relative to a layer."""

    layers: str
    attention: str
    mlp: str
    mlp_out: str
    transposed: bool
    """True where W is stored ``(f, d)`` (GPT-2's Conv1D) instead of ``(d, f)`` (nn.Linear)."""
    depth: int
    """Number of layers L."""
    width: int
    """Residual width d."""
    mlp_width: int
    """Inner width f of the MLP."""

    def layer(self, model: nn.Module, index: int) -> nn.Module:
        return model.get_submodule(self.layers)[index]

    def mlp_module(self, model: nn.Module, index: int) -> nn.Module:
        return self.layer(model, index).get_submodule(self.mlp)

    def out_projection(self, model: nn.Module, index: int) -> nn.Module:
        return self.layer(model, index).get_submodule(self.mlp_out)

    def weight_name(self, index: int) -> str:
        """Parameter name of W at layer ``index``."""
        return f"{self.layers}.{index}.{self.mlp_out}.weight"


def derive(model: nn.Module, overrides: Mapping[str, str] | None = None) -> Layout:
    """The layout of ``model``; ``overrides`` name single parts by hand.

    Raises:
        ModelError: a part that was not found, with how to name it; mixture-of-experts MLPs.
    """
    named = dict(overrides or {})
    if unknown := set(named) - set(PARTS):
        raise ModelError(
            f"Layout part {sorted(unknown)[0]!r} is unknown. Parts: {', '.join(PARTS)}."
        )
    config = model.config.get_text_config()
    width = config.hidden_size
    layers = named.get("layers") or _find_layers(model, config.num_hidden_layers)
    stack = _submodule(model, layers, "layers")
    layer = stack[0]
    attention = named.get("attention") or _find_attention(layer)
    mlp_out = named.get("mlp_out") or _find_mlp_out(layer, attention, width)
    projection = _submodule(layer, mlp_out, "mlp_out")
    transposed = type(projection).__name__ == "Conv1D"
    if not transposed and not isinstance(projection, nn.Linear):
        raise ModelError(
            f"The MLP output projection {mlp_out!r} is a {type(projection).__name__}, neither Linear nor Conv1D."
        )
    d_f = projection.weight.shape[::-1] if transposed else projection.weight.shape
    mlp = named.get("mlp") or (mlp_out.split(".")[0] if "." in mlp_out else mlp_out)
    return Layout(layers, attention, mlp, mlp_out, transposed, len(stack), int(d_f[0]), int(d_f[1]))


def _missing(part: str, what: str) -> ModelError:
    return ModelError(
        f"Unknown architecture: {what}. Name it yourself: --layout {part}=PATH on the command line, or "
        f"load_model(..., layout={{{part!r}: 'PATH'}}); parts: {', '.join(PARTS)}; print(model) shows the paths."
    )


def _submodule(root: nn.Module, path: str, part: str) -> Any:
    try:
        return root.get_submodule(path)
    except AttributeError:
        raise _missing(part, f"the model has no module {path!r} for part {part!r}") from None


def _find_layers(model: nn.Module, depth: int) -> str:
    lists = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if not lists:
        raise _missing("layers", f"no list of {depth} decoder layers was found (part 'layers')")
    return min(lists, key=lambda name: name.count("."))


def _find_attention(layer: nn.Module) -> str:
    for name, module in layer.named_children():
        if "attn" in name.lower() or "attention" in name.lower():
            # GPT-NeoX has a post_attention_dropout, others norms
            if any(p.dim() > 1 for p in module.parameters()):
                return name
    children = [name for name, _ in layer.named_children()]
    raise _missing(
        "attention", f"no attention module was found in a layer with {children} (part 'attention')"
    )


def _find_mlp_out(layer: nn.Module, attention: str, width: int) -> str:
    """The last projection onto the residual width that is not part of the attention."""
    if any("expert" in name.lower() for name, _ in layer.named_modules()):
        raise ModelError(
            "This model's MLPs are mixtures of experts; weight editors that write one MLP matrix cannot edit it."
        )
    found = None
    for name, module in layer.named_modules():
        weight = getattr(module, "weight", None)
        if (
            name == attention
            or name.startswith(attention + ".")
            or weight is None
            or weight.dim() != 2
        ):
            continue
        if weight.shape[1 if type(module).__name__ == "Conv1D" else 0] == width:
            found = name
    if found is None:
        raise _missing(
            "mlp_out",
            f"no MLP projection onto the residual width {width} was found in a layer (part 'mlp_out')",
        )
    return found


@torch.no_grad()
def mlp_gain(model: nn.Module, layout: Layout, index: int) -> float | None:
    """How the MLP's output at layer ``index`` enters the residual stream: the constant it is multiplied by (1.0 for
    most models), or ``None`` where it is normalised first (Gemma 2/3, OLMo 2) and so no constant exists.

    Measured: a small change is added to the MLP's output, and the change of the layer's output is compared.
    """
    device = next(model.parameters()).device
    shift = torch.zeros((), device=device)

    def add(_module: nn.Module, _args: Any, output: Any) -> Any:
        states = hidden_of(output)  # OPT's has no dimension for the rows
        return replace_hidden(
            output, states + (shift.reshape(states.shape) if shift.dim() else shift).to(states)
        )

    seen: list[torch.Tensor] = []
    hooks = [
        layout.mlp_module(model, index).register_forward_hook(add),
        layout.layer(model, index).register_forward_hook(
            lambda _m, _a, output: seen.append(hidden_of(output).double())
        ),
    ]
    try:
        ids_BT = torch.arange(4, device=device)[None]
        model(input_ids=ids_BT, use_cache=False)
        # as large as each state: beside one that is hundreds of times larger a common shift is lost to rounding
        size = 4 * seen[0].abs().clamp(min=seen[0].abs().mean().item() or 1.0)
        size[..., 1::2] *= -2
        shift = size.to(next(model.parameters()).dtype)
        model(input_ids=ids_BT, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    gains = (seen[1] - seen[0]) / shift.double()
    gain = gains.mean().item()
    return gain if (gains - gain).abs().max().item() < 0.02 * max(abs(gain), 1e-6) else None


def hidden_of(output: Any) -> torch.Tensor:
    """The hidden states in a module's output, which some architectures wrap in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def replace_hidden(output: Any, hidden: torch.Tensor) -> Any:
    """``output`` with its hidden states replaced."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
