"""The fields of EasyEdit's hyper-parameters that name layers, modules and places of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from editbench.errors import ModelError
from editbench.layout import ranges
from editbench.methods._easyedit.algorithm import Algorithm
from editbench.models import LanguageModel


def derived(algorithm: Algorithm, model: LanguageModel, layers: Sequence[int]) -> dict[str, Any]:
    """Return the fields that follow from the model, whether the algorithm has them or not.

    Raises:
        ModelError: EasyEdit cannot edit this architecture.
    """
    layout = model.layout
    if layout.transposed and algorithm.linear_only:
        raise ModelError(
            f"{algorithm.title} of EasyEdit works on weights of nn.Linear only "
            f"({algorithm.linear_only}), and those of {model.name} are stored transposed."
        )
    if len({layout.parts[layer] for layer in layers}) > 1:
        raise ModelError(
            f"EasyEdit names the modules of all layers alike, and layers {ranges(list(layers))} of "
            f"{model.name} are of several kinds. Name layers of one kind (option layers)."
        )
    return {
        "alg_name": algorithm.title,
        # Its code looks for these texts to learn how weights are stored.
        "model_name": "gpt2-xl" if layout.transposed else "llama",
        "tokenizer_name": "llama",
        "device": str(model.device),
        "stats_dir": "stats",
        "model_parallel": False,
        "fp16": False,
        "half": False,
        "layers": list(layers),
        "v_loss_layer": layout.depth - 1,
        "batch_size": 1,
        **_modules(algorithm, model, layers),
    }


def _modules(algorithm: Algorithm, model: LanguageModel, layers: Sequence[int]) -> dict[str, Any]:
    """Return the fields that name modules."""
    layout = model.layout
    at = layers[0] if layers else next(iter(layout.writable), 0)
    template, part = f"{layout.layers}.{{}}", layout.parts[at]
    rewrite, attention = f"{template}.{part.mlp_out}", f"{template}.{part.attention}"
    mlp = f"{template}.{part.mlp}"
    if algorithm.at_projections:
        mlp, attention = rewrite, f"{attention}.{_attention_output(model, at)}"
    inner = [_bracketed(layout.weight_name(layer)) for layer in layers]
    return {
        "rewrite_module_tmp": rewrite + algorithm.weight_suffix,
        "rewrite_module_tmps": [rewrite],
        "layer_module_tmp": template,
        "mlp_module_tmp": mlp,
        "attn_module_tmp": attention,
        "ln_f_module": _final_norm(model),
        "lm_head_module": _head(model),
        "target_modules": _attention_inputs(model, at),
        "inner_params": _mlp_inputs(model, layers) if algorithm.mlp_inputs else inner,
    }


def _bracketed(name: str) -> str:
    """Return a parameter's name as EasyEdit evaluates it: ``model.layers[3].mlp.weight``."""
    parts: list[str] = []
    for part in name.split("."):
        if part.isdigit():
            parts[-1] += f"[{part}]"
        else:
            parts.append(part)
    return ".".join(parts)


def _final_norm(model: LanguageModel) -> str:
    """Return the path of the norm behind the layers."""
    parent, _, _ = model.layout.layers.rpartition(".")
    names = [
        name
        for name, module in model.model.get_submodule(parent).named_children()
        if "norm" in type(module).__name__.lower()
    ]
    if not names:
        raise ModelError(
            f"EasyEdit reads logits as head(norm(state)), and {model.name} has no norm behind its "
            "layers, so EasyEdit cannot edit this architecture."
        )
    return f"{parent}.{names[-1]}" if parent else names[-1]


def _head(model: LanguageModel) -> str:
    """Return the module of the head, by the name under which its weight is listed."""
    head = model.model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    for name, parameter in model.model.named_parameters():
        if parameter is weight:
            return name.removesuffix(".weight")
    raise ModelError(f"EasyEdit needs a matrix that gives the logits, and {model.name} has none.")


def _is_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.dim() == 2


def _attention_matrices(model: LanguageModel, layer: int) -> list[str]:
    if model.layout.parts[layer].attention is None:
        return []
    attention = model.layout.attention_module(model.model, layer)
    return [name for name, module in attention.named_modules() if name and _is_matrix(module)]


def _attention_output(model: LanguageModel, layer: int) -> str:
    """Return the path of the attention's output projection, its last matrix."""
    matrices = _attention_matrices(model, layer)
    if not matrices:
        raise ModelError(
            f"The algorithm needs the attention of layer {layer}, and {model.name} has none."
        )
    return matrices[-1]


def _attention_inputs(model: LanguageModel, layer: int) -> list[str]:
    """Return the names of the projections that adapters go to: q and v, or what holds them."""
    names = [name.rpartition(".")[2] for name in _attention_matrices(model, layer)]
    return [name for name in names if name in ("q_proj", "v_proj")] or names[:1]


def _mlp_inputs(model: LanguageModel, layers: Sequence[int]) -> list[str]:
    """Return the gate and up projections of ``layers``, or W where an MLP has no gate.

    These are what hparams/UltraEdit has for Qwen 2.5, and for GPT-J.
    """
    found: list[str] = []
    for kind in ("gate_proj", "up_proj"):
        for layer in layers:
            part = model.layout.parts[layer].mlp
            path = f"{model.layout.layers}.{layer}.{part}.{kind}"
            found += [path] if has_module(model, path) else []
    weights = [model.layout.weight_name(layer).removesuffix(".weight") for layer in layers]
    return found if len(found) == 2 * len(layers) else weights


def has_module(model: LanguageModel, path: str) -> bool:
    """Return whether the model has a module at ``path``."""
    try:
        model.model.get_submodule(path)
    except AttributeError:
        return False
    return True
