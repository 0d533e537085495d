"""Where the parts of a model are, derived from the model itself and not from its name.

The layout names the decoder layers, each layer's attention, its MLP, and that MLP's output
projection W (d x f), whose input is a key and whose output is a value. The MLP's own output can be
more than the value: Bloom's and MPT's contain the residual, and Falcon-H1's is scaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from editbench.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARTS = ("layers", "attention", "mlp", "mlp_out")
"""Parts of a layout that a user can name by hand."""
Output = torch.Tensor | tuple[torch.Tensor, *tuple[object, ...]]
"""Output of a decoder layer, an attention or an MLP: hidden states, alone or first in a tuple."""


@dataclass(frozen=True)
class Layout:
    """Module paths and sizes of one model; all but ``layers`` are paths inside a layer."""

    layers: str
    attention: str
    mlp: str
    mlp_out: str
    transposed: bool
    """Whether W is stored as (f, d), as in GPT-2's Conv1D, instead of (d, f), as in nn.Linear."""
    depth: int
    """Number of layers L."""
    width: int
    """Residual width d."""
    mlp_width: int
    """Inner width f of the MLP."""

    def layer(self, model: nn.Module, index: int) -> nn.Module:
        """Return decoder layer ``index`` of ``model``."""
        return _stack(model.get_submodule(self.layers))[index]

    def mlp_module(self, model: nn.Module, index: int) -> nn.Module:
        """Return the MLP of layer ``index``."""
        return self.layer(model, index).get_submodule(self.mlp)

    def out_projection(self, model: nn.Module, index: int) -> nn.Module:
        """Return the module of W at layer ``index``."""
        return self.layer(model, index).get_submodule(self.mlp_out)

    def weight_name(self, index: int) -> str:
        """Return the parameter name of W at layer ``index``."""
        return f"{self.layers}.{index}.{self.mlp_out}.weight"


def derive(model: PreTrainedModel, overrides: Mapping[str, str] | None = None) -> Layout:
    """Return the layout of ``model``; ``overrides`` name parts by hand.

    Raises:
        ModelError: if a part cannot be found (the message says how to name it), if an override is
            wrong, or if the MLPs are mixtures of experts.
    """
    named = dict(overrides or {})
    if unknown := sorted(set(named) - set(PARTS)):
        raise ModelError(f"Layout part {unknown[0]!r} is unknown. Parts: {', '.join(PARTS)}.")
    config = model.config.get_text_config()
    layers = named.get("layers") or _find_layers(model, config.num_hidden_layers)
    stack = _stack(_submodule(model, layers, "layers"))
    layer = stack[0]
    attention = named.get("attention") or _find_attention(layer)
    mlp_out = named.get("mlp_out") or _find_mlp_out(layer, attention, config.hidden_size)
    projection = _submodule(layer, mlp_out, "mlp_out")
    # From the module's class: the shape would not tell where f = d.
    transposed = _is_conv1d(projection)
    if not transposed and not isinstance(projection, nn.Linear):
        raise ModelError(
            f"The MLP output projection {mlp_out!r} is a {type(projection).__name__}, "
            "but only Linear and Conv1D are supported."
        )
    rows, columns = projection.get_parameter("weight").shape
    d, f = (columns, rows) if transposed else (rows, columns)
    # a projection that is a direct child of the layer is itself the module whose output is added
    mlp = named.get("mlp") or (mlp_out.split(".")[0] if "." in mlp_out else mlp_out)
    return Layout(layers, attention, mlp, mlp_out, transposed, len(stack), d, f)


def _missing(part: str, problem: str) -> ModelError:
    return ModelError(
        f"Unknown architecture: {problem}. Name it yourself: --layout {part}=PATH on the command "
        f"line, or load_model(..., layout={{{part!r}: 'PATH'}}); parts: {', '.join(PARTS)}; "
        "print(model) shows the paths."
    )


def _submodule(root: nn.Module, path: str, part: str) -> nn.Module:
    try:
        return root.get_submodule(path)
    except AttributeError:
        raise _missing(part, f"the model has no module {path!r} for part {part!r}") from None


def _stack(module: nn.Module) -> nn.ModuleList:
    return cast(nn.ModuleList, module)  # or anything else that can be indexed, if named by hand


def _is_conv1d(module: nn.Module) -> bool:
    """Return whether ``module`` is GPT-2's Conv1D, whose weight is (in, out)."""
    return type(module).__name__ == "Conv1D"


def _find_layers(model: nn.Module, depth: int) -> str:
    """Return the outermost list of ``depth`` modules."""
    lists: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if not lists:
        raise _missing("layers", f"no list of {depth} decoder layers was found (part 'layers')")
    # Nested lists may happen to have the same length.
    return min(lists, key=lambda name: name.count("."))


def _find_attention(layer: nn.Module) -> str:
    for name, module in layer.named_children():
        # norms and dropouts bear the name too (GPT-NeoX's post_attention_dropout), without matrices
        has_matrix = any(parameter.dim() > 1 for parameter in module.parameters())
        if has_matrix and ("attn" in name.lower() or "attention" in name.lower()):
            return name
    children = [name for name, _ in layer.named_children()]
    raise _missing(
        "attention", f"no attention module was found in a layer with {children} (part 'attention')"
    )


def _find_mlp_out(layer: nn.Module, attention: str, width: int) -> str:
    """Return the MLP's projection onto the residual width: the widest one outside of attention.

    Others have that width as well: Gemma 3n's per-layer inputs and Laurel block are projected onto
    it from a few dimensions, and a state-space mixer's output, next to its convolution over tokens.
    """
    if any("expert" in name.lower() for name, _ in layer.named_modules()):
        raise ModelError(
            "This model's MLPs are mixtures of experts. Weight editors write one MLP matrix, "
            "so they cannot edit it."
        )
    # the inner width and the name of each child's widest projection; projections that are children
    # themselves, like OPT's fc1 and fc2, go together
    widest: dict[str, tuple[int, str]] = {}
    for name, module in layer.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
            continue
        child = name.split(".")[0]
        if name == attention or name.startswith(attention + ".") or _mixes_tokens(layer, child):
            continue
        # The side of the outputs: last in Conv1D (in, out), first in Linear (out, in).
        f, d = weight.shape if _is_conv1d(module) else weight.T.shape
        group = child if "." in name else ""
        # Of equally wide ones the last: where f = d, the MLP's first projection has that shape too.
        if d == width and f >= widest.get(group, (0, ""))[0]:
            widest[group] = (f, name)
    if not widest:
        raise _missing(
            "mlp_out",
            f"no MLP projection onto the residual width {width} was found in a layer "
            "(part 'mlp_out')",
        )
    most = max(widest.values())[0]
    first, *others = [name for f, name in widest.values() if f == most]
    if others:
        raise _missing(
            "mlp_out",
            f"{first!r} and {others[0]!r} project onto the residual width {width} from the same "
            f"inner width {most}, so either may be the MLP's (part 'mlp_out')",
        )
    return first


def _mixes_tokens(layer: nn.Module, child: str) -> bool:
    """Return whether a child of ``layer`` is attention, or convolves over tokens as Mamba does."""
    is_attention = "attn" in child.lower() or "attention" in child.lower()
    convolves = any(
        isinstance(module, nn.Conv1d) for module in layer.get_submodule(child).modules()
    )
    return is_attention or convolves


@torch.no_grad()
def mlp_gain(model: nn.Module, layout: Layout, index: int) -> float | None:
    """Return the constant by which a value at layer ``index`` enters the residual stream.

    It is 1.0 for most models. It is ``None`` where there is no constant, because the MLP's output
    is normalised first (Gemma 2 and 3, OLMo 2) or enters several streams (Gemma 3n). The function
    measures it: it adds a change to the output of W and compares the change of the layer's output
    with it.
    """
    weight = next(model.parameters())
    shift = torch.zeros((), device=weight.device)

    written: list[int] = []

    def add(_module: nn.Module, _args: object, output: Output) -> Output:
        states = hidden_of(output)  # OPT's have one dimension for all tokens of all rows
        written.append(states.numel())
        added = shift.reshape(states.shape) if shift.dim() else shift
        return replace_hidden(output, states + added.to(states))

    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Output) -> None:
        seen.append(hidden_of(output).cpu().double())

    hooks = [
        layout.out_projection(model, index).register_forward_hook(add),
        layout.layer(model, index).register_forward_hook(keep),
    ]
    try:
        ids_BT = torch.arange(4, device=weight.device)[None]
        model(input_ids=ids_BT, use_cache=False)
        if seen[0].numel() != written[0]:
            return None
        # As large as each state: next to one that is hundreds of times larger, one common shift
        # would be lost to rounding.
        size = 4 * seen[0].abs().clamp(min=seen[0].abs().mean().item() or 1.0)
        # Uneven over the dimensions, so that a normalised output cannot look like a constant gain.
        size[..., 1::2] *= -2
        shift = size.to(weight.dtype).to(weight.device)
        model(input_ids=ids_BT, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    gains = (seen[1] - seen[0]) / shift.cpu().double()
    # A constant gain is the same at every token and dimension, up to rounding.
    gain = gains.mean().item()
    return gain if (gains - gain).abs().max().item() < 0.02 * max(abs(gain), 1e-6) else None


def hidden_of(output: Output) -> torch.Tensor:
    """Return the hidden states in a module's output, which some architectures put in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def replace_hidden(output: Output, hidden: torch.Tensor) -> Output:
    """Return ``output`` with its hidden states replaced."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
