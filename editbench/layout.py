"""Where the parts of a model are, derived from the model itself and not from its name.

The layout names the decoder layers and, in each layer, the attention, the MLP and that MLP's output
projection W (d x f), whose input is a key and whose output is a value. The MLP's own output can be
more than the value: Bloom's and MPT's contain the residual, and Falcon-H1's is scaled.

Layers may differ. Hybrid models have attention in some layers and a state-space module in others,
and many mixtures of experts begin with dense MLPs. Where an MLP is a mixture, W is that of the
shared expert, a dense MLP that runs on every token beside the routed experts. A layer of routed
experts alone has no W.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from editbench.errors import ModelError, NoDenseMlp
from editbench.placing import devices_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PARTS = ("layers", "attention", "mlp", "mlp_out")
"""Parts of a layout that a user can name by hand."""
Output = torch.Tensor | tuple[torch.Tensor, *tuple[object, ...]] | list[torch.Tensor]
"""Output of a decoder layer, an attention or an MLP: hidden states, alone or first in a tuple."""


@dataclass(frozen=True)
class LayerParts:
    """Paths inside one layer; ``None`` where the layer has no such part."""

    attention: str | None = None
    """Its attention, or else what mixes its tokens in another way, such as a state-space module."""
    mlp: str | None = None
    mlp_out: str | None = None
    """W of its MLP, or of the shared expert where the MLP is a mixture."""
    mlp_width: int = 0
    """Inner width f of W; 0 without one."""
    experts: bool = False
    """Whether its MLP is a mixture of experts."""


@dataclass(frozen=True)
class Layout:
    """Module paths and sizes of one model."""

    layers: str
    parts: tuple[LayerParts, ...]
    """The parts of each layer."""
    transposed: bool
    """Whether W is stored as (f, d), as in GPT-2's Conv1D, instead of (d, f), as in nn.Linear."""
    width: int
    """Residual width d."""

    @property
    def depth(self) -> int:
        """Number of layers L."""
        return len(self.parts)

    @property
    def mlp_width(self) -> int:
        """Largest inner width f of a W; 0 where no layer has one."""
        return max(part.mlp_width for part in self.parts)

    @property
    def writable(self) -> tuple[int, ...]:
        """The layers that have a W, ascending."""
        return tuple(i for i, part in enumerate(self.parts) if part.mlp_out is not None)

    def layer(self, model: nn.Module, index: int) -> nn.Module:
        """Return decoder layer ``index`` of ``model``."""
        return _stack(model.get_submodule(self.layers))[index]

    def attention_module(self, model: nn.Module, index: int) -> nn.Module:
        """Return the attention of layer ``index``, or what mixes its tokens instead.

        Raises:
            ModelError: The layer has none.
        """
        if (path := self.parts[index].attention) is None:
            raise ModelError(f"Layer {index} of this model has no attention.")
        return self.layer(model, index).get_submodule(path)

    def mlp_module(self, model: nn.Module, index: int) -> nn.Module:
        """Return the MLP of layer ``index``.

        Raises:
            ModelError: The layer has none.
        """
        if (path := self.parts[index].mlp) is None:
            raise ModelError(f"Layer {index} of this model has no MLP.")
        return self.layer(model, index).get_submodule(path)

    def out_projection(self, model: nn.Module, index: int) -> nn.Module:
        """Return the module of W at layer ``index``.

        Raises:
            NoDenseMlp: No layer of this model has a W.
            ModelError: This layer has none; the message names those that have one.
        """
        return self.layer(model, index).get_submodule(self._out(index))

    def weight_name(self, index: int) -> str:
        """Return the parameter name of W at layer ``index``.

        Raises:
            NoDenseMlp, ModelError: As ``out_projection``.
        """
        return f"{self.layers}.{index}.{self._out(index)}.weight"

    def _out(self, index: int) -> str:
        self.check_writable()
        part = self.parts[index]
        if part.mlp_out is None:
            why = " (its MLP is a mixture of routed experts)" if part.experts else ""
            raise ModelError(
                f"Layer {index} has no matrix of its own that writes an MLP's output{why}. Layers "
                f"of this model that have one: {ranges(self.writable)}."
            )
        return part.mlp_out

    def check_writable(self) -> None:
        """Make sure that some layer has a W.

        Raises:
            NoDenseMlp: None has, because its MLPs are mixtures of routed experts, or it has none.
            ModelError: None has, because all layers share one.
        """
        if self.writable:
            return
        if any(part.mlp is not None and not part.experts for part in self.parts):
            raise ModelError(
                "The layers of this model share one MLP, so a weight editor cannot change the "
                "matrix of a single layer. Use a trainer (sft, mixsd, opsd, pd), or ice."
            )
        why = (
            "All MLPs of this model are mixtures of routed experts"
            if any(part.experts for part in self.parts)
            else "The layers of this model have no MLP"
        )
        raise NoDenseMlp(
            f"{why}, and a weight editor needs one matrix that writes an MLP's output. Use a "
            "trainer (sft, mixsd, opsd, pd), or ice."
        )


def ranges(indices: Sequence[int]) -> str:
    """Return ascending numbers as a text, such as "0 to 2, 5"."""
    runs = [
        [number for _, number in run]
        for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def derive(model: PreTrainedModel, overrides: Mapping[str, str] | None = None) -> Layout:
    """Return the layout of ``model``; ``overrides`` name parts by hand.

    A part named by hand counts in all layers that have such a module. Layers without the named
    ``mlp_out`` have no W.

    Raises:
        ModelError: if the layers cannot be found, if no layer has a W because its parts cannot be
            found (the message says how to name them), or if an override is wrong.
    """
    named = dict(overrides or {})
    if unknown := sorted(set(named) - set(PARTS)):
        raise ModelError(f"Layout part {unknown[0]!r} is unknown. Parts: {', '.join(PARTS)}.")
    config = model.config.get_text_config()
    layers = named.pop("layers", None) or _find_layers(model, config)
    try:
        stack = _stack(model.get_submodule(layers))
    except AttributeError:
        raise _absent("layers", layers) from None
    for part, path in named.items():
        if not any(_holds(layer, path) for layer in stack):
            raise _absent(part, path)
    # Hybrids like Nemotron-H give each layer either what mixes its tokens or an MLP, not both.
    alternate = any(_matrices(layer) == _mixers(layer) != [] for layer in stack)
    parts: list[LayerParts] = []
    problems: list[ModelError] = []
    for layer in stack:
        try:
            parts.append(_parts_of(layer, named, config.hidden_size, alternate))
        except ModelError as problem:
            problems.append(problem)
            parts.append(LayerParts())
    parts = _without_shared(stack, parts)
    first = next((i for i, part in enumerate(parts) if part.mlp_out is not None), None)
    if first is None:
        # Reported only where it matters: layers of another kind may be all that cannot be written.
        if problems:
            raise problems[0]
        return Layout(layers, tuple(parts), False, config.hidden_size)
    projection = stack[first].get_submodule(cast(str, parts[first].mlp_out))
    # From the module's class: the shape would not tell where f = d.
    transposed = _is_conv1d(projection)
    d = projection.get_parameter("weight").shape[1 if transposed else 0]
    return Layout(layers, tuple(parts), transposed, d)


def _missing(part: str, problem: str) -> ModelError:
    return ModelError(
        f"Unknown architecture: {problem}. Name it yourself: --layout {part}=PATH on the command "
        f"line, or load_model(..., layout={{{part!r}: 'PATH'}}); parts: {', '.join(PARTS)}; "
        "print(model) shows the paths."
    )


def _absent(part: str, path: str) -> ModelError:
    return _missing(part, f"the model has no module {path!r} for part {part!r}")


def _holds(root: nn.Module, path: str) -> bool:
    try:
        root.get_submodule(path)
    except AttributeError:
        return False
    return True


def _stack(module: nn.Module) -> nn.ModuleList:
    return cast(nn.ModuleList, module)  # or anything else that can be indexed, if named by hand


def _is_conv1d(module: nn.Module) -> bool:
    """Return whether ``module`` is GPT-2's Conv1D, whose weight is (in, out)."""
    return type(module).__name__ == "Conv1D"


def _find_layers(model: nn.Module, config: PreTrainedConfig) -> str:
    """Return the outermost list of as many modules as the model has layers."""
    # By the usual name, BART's configuration has the depth of an encoder, and LongCat's counts the
    # two attentions of each layer.
    names = ("decoder_layers", "num_hidden_layers", "num_layers")
    depths = [depth for name in names if (depth := getattr(config, name, None))]
    for depth in depths:
        lists: list[str] = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == depth
        ]
        if lists:
            # Nested lists may happen to have the same length.
            return min(lists, key=lambda name: name.count("."))
    raise _missing("layers", f"no list of {depths[0]} decoder layers was found (part 'layers')")


def _parts_of(
    layer: nn.Module, named: Mapping[str, str], width: int, alternate: bool
) -> LayerParts:
    """Return the parts of ``layer``. ``alternate``: it may have no attention.

    Raises:
        ModelError: A part cannot be found, or W is of an unknown class.
    """
    given = {part: path for part, path in named.items() if _holds(layer, path)}
    mixers = _mixers(layer)
    attention = given.get("attention") or next(iter(mixers), None)
    if attention is None and not alternate:
        children = [name for name, _ in layer.named_children()]
        raise _missing(
            "attention",
            f"no attention module was found in a layer with {children} (part 'attention')",
        )
    rest = [name for name in _matrices(layer) if name not in mixers and name != attention]
    # The module of a list is never called, only its members are: LongCat's layers attend twice.
    if attention is not None and isinstance(
        listed := layer.get_submodule(attention), nn.ModuleList
    ):
        attention = f"{attention}.{len(listed) - 1}"
    if not rest:
        return LayerParts(attention)
    experts = any(_is_mixture(name, layer.get_submodule(name)) for name in rest)
    mlp_out = given.get("mlp_out")
    if "mlp_out" not in named:
        mlp_out = _find_mlp_out(layer, [*mixers, *filter(None, [attention])], width, experts)
    if mlp_out is None:
        largest = max(rest, key=lambda name: sum(p.numel() for p in _weights(layer, name)))
        return LayerParts(attention, given.get("mlp") or largest, experts=experts)
    projection = layer.get_submodule(mlp_out)
    if not _is_conv1d(projection) and not isinstance(projection, nn.Linear):
        raise ModelError(
            f"The MLP output projection {mlp_out!r} is a {type(projection).__name__}, "
            "but only Linear and Conv1D are supported."
        )
    f = projection.get_parameter("weight").shape[0 if _is_conv1d(projection) else 1]
    # a projection that is a direct child of the layer is itself the module whose output is added
    child = mlp_out.split(".")[0]
    listed_too = isinstance(layer.get_submodule(child), nn.ModuleList)
    mlp = given.get("mlp") or (mlp_out.rpartition(".")[0] if listed_too else child)
    return LayerParts(attention, mlp, mlp_out, f, experts)


def _weights(layer: nn.Module, child: str) -> list[nn.Parameter]:
    return list(layer.get_submodule(child).parameters())


def _matrices(layer: nn.Module) -> list[str]:
    """Return the children of ``layer`` that hold matrices: no norms, no dropouts."""
    return [
        name
        for name, child in layer.named_children()
        if any(parameter.dim() > 1 for parameter in child.parameters())
    ]


def _mixers(layer: nn.Module) -> list[str]:
    """Return the children of ``layer`` that mix tokens, attention first."""
    # norms and dropouts bear the name too (GPT-NeoX's post_attention_dropout), without matrices
    matrices = _matrices(layer)
    called = [name for name in matrices if _is_attention(name)]
    others = [name for name in matrices if name not in called]
    return called + [name for name in others if _mixes_tokens(layer.get_submodule(name))]


def _is_attention(name: str) -> bool:
    return "attn" in name.lower() or "attention" in name.lower()


def _mixes_tokens(module: nn.Module) -> bool:
    """Return whether ``module`` is attention by its class, or convolves over tokens as Mamba does.

    RecurrentGemma calls both ``temporal_block``. A class that ends in "Layer" holds more than that.
    """
    kind = type(module).__name__
    is_attention = _is_attention(kind) and not kind.endswith("Layer")
    return is_attention or any(isinstance(part, nn.Conv1d) for part in module.modules())


def _is_mixture(name: str, module: nn.Module) -> bool:
    """Return whether ``module`` holds experts: by their name, or by weights that are stacked."""
    if any("expert" in path.lower() for path, _ in [(name, module), *module.named_modules()]):
        return True
    # JetMoE's have no name. RWKV's MLP holds vectors of shape (1, 1, d).
    return any(p.dim() > 2 and min(p.shape[:2]) > 1 for p in module.parameters())


def _is_routed(path: str) -> bool:
    """Return whether a module belongs to one of many experts, such as ``mlp.experts.3.down_proj``.

    A shared expert may be in a list of its own.
    """
    return any(
        "expert" in name.lower() and "shared" not in name.lower() and place.isdigit()
        for name, place in pairwise(path.split("."))
    )


def _find_mlp_out(layer: nn.Module, mixers: Sequence[str], width: int, experts: bool) -> str | None:
    """Return the MLP's projection onto the residual width: the widest one outside of attention.

    It is ``None`` for a mixture whose experts are all routed. Others have that width as well:
    Gemma 3n's per-layer inputs and Laurel block are projected onto it from a few dimensions, and a
    state-space mixer's output, next to its convolution over tokens.
    """
    # the inner width and the name of each child's widest projection; projections that are children
    # themselves, like OPT's fc1 and fc2, go together
    widest: dict[str, tuple[int, str]] = {}
    for name, module in layer.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
            continue
        child, *inner = name.split(".")
        if any(name == mixer or name.startswith(mixer + ".") for mixer in mixers):
            continue
        # Zamba puts a whole decoder layer inside another one.
        if _is_routed(name) or any(map(_is_attention, inner)):
            continue
        # The side of the outputs: last in Conv1D (in, out), first in Linear (out, in).
        f, d = weight.shape if _is_conv1d(module) else weight.T.shape
        group = child if inner else ""
        # Of equally wide ones the last: where f = d, the MLP's first projection has that shape too.
        if d == width and f >= widest.get(group, (0, ""))[0]:
            widest[group] = (f, name)
    if not widest:
        if experts:
            return None
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


def _without_shared(stack: Iterable[nn.Module], parts: Sequence[LayerParts]) -> list[LayerParts]:
    """Return ``parts`` without each W that serves several layers, as in Zamba.

    A change of it at one layer would be one at all of them.
    """
    weights = [
        None if part.mlp_out is None else id(layer.get_parameter(f"{part.mlp_out}.weight"))
        for layer, part in zip(stack, parts, strict=True)
    ]
    users = Counter(weights)
    return [
        replace(part, mlp_out=None, mlp_width=0) if weight and users[weight] > 1 else part
        for part, weight in zip(parts, weights, strict=True)
    ]


class _Reached(Exception):
    """Ends a pass at the layer that is measured."""


@torch.no_grad()
def mlp_gain(model: nn.Module, layout: Layout, index: int) -> float | None:
    """Return the constant by which a value at layer ``index`` enters the residual stream.

    It is 1.0 for most models, and for most shared experts. It is ``None`` where there is no
    constant, because the MLP's output is normalised first (Gemma 2 and 3, OLMo 2), is multiplied by
    a gate (Qwen2-MoE's shared expert, RWKV), or enters several streams (Gemma 3n). The function
    measures it: it adds a change to the output of W and compares the change of the layer's output
    with it.
    """
    dtype = next(model.parameters()).dtype
    shift = torch.zeros(())

    written: list[int] = []

    def add(_module: nn.Module, _args: object, output: Output) -> Output:
        states = hidden_of(output)  # OPT's have one dimension for all tokens of all rows
        written.append(states.numel())
        added = shift.reshape(states.shape) if shift.dim() else shift
        return replace_hidden(output, states + added.to(states))

    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Output) -> None:
        seen.append(hidden_of(output).cpu().double())
        raise _Reached

    hooks = [
        layout.out_projection(model, index).register_forward_hook(add),
        layout.layer(model, index).register_forward_hook(keep),
    ]
    try:
        ids_BT = torch.arange(4, device=devices_of(model)[0])[None]
        with suppress(_Reached):
            model(input_ids=ids_BT, use_cache=False)
        if seen[0].numel() != written[0]:
            return None
        # As large as each state: next to one that is hundreds of times larger, one common shift
        # would be lost to rounding.
        size = 4 * seen[0].abs().clamp(min=seen[0].abs().mean().item() or 1.0)
        # Uneven over the dimensions, so that a normalised output cannot look like a constant gain.
        size[..., 1::2] *= -2
        shift = size.to(dtype)
        with suppress(_Reached):
            model(input_ids=ids_BT, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    gains = (seen[1] - seen[0]) / shift.double()
    # A constant gain is the same at every token and dimension, up to rounding.
    gain = gains.mean().item()
    return gain if (gains - gain).abs().max().item() < 0.02 * max(abs(gain), 1e-6) else None


def hidden_of(output: Output) -> torch.Tensor:
    """Return the hidden states in a module's output, which some architectures put in a tuple."""
    return output[0] if isinstance(output, (tuple, list)) else output


def replace_hidden(output: Output, hidden: torch.Tensor) -> Output:
    """Return ``output`` with its hidden states replaced."""
    if isinstance(output, list):  # GPT-1's, whose caller adds another list to it
        return [hidden, *output[1:]]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
