"""Add a PEFT adapter that lies in a model's folder to the weights.

transformers would apply such an adapter beside the weights: a model saved later would then be the
adapter alone, without any edit.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils.peft_utils import find_adapter_config_file

from editbench.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WITHOUT: dict[str, Any] = {"subfolder": "no-adapter"}
"""``adapter_kwargs`` with which ``from_pretrained`` finds no adapter, and loads the base alone."""


def adapter_base(name: str) -> str | None:
    """Return the model that the adapter of ``name`` belongs to; ``None`` if ``name`` has none.

    A local folder that holds a model as well is the base itself.
    """
    file = find_adapter_config_file(name)
    if file is None:
        return None
    if (Path(name) / "config.json").is_file():
        return name
    base: str = json.loads(Path(file).read_text(encoding="utf-8"))["base_model_name_or_path"]
    return base


def fold_adapter(model: PreTrainedModel, name: str) -> str:
    """Add the adapter in ``name`` to the weights of ``model``; return its description.

    Raises:
        ModelError: if weights of the adapter are missing, or it cannot be added to the weights
            without a change of the logits.
    """
    info = model.load_adapter(name, dtype=torch.float32)
    lost = sorted(info.missing_keys) + sorted(key for key, *_ in info.mismatched_keys)
    odd = sorted(info.unexpected_keys)
    for keys, what in ((lost, "lacks the weight"), (odd, "has no place in this model for")):
        if keys:
            raise ModelError(f"The adapter in {name} {what} {keys[0]} ({len(keys)} in all).")
    kind = str(next(iter(model.peft_config.values())).peft_type.value)
    wanted = _logits(model)
    paths = _adapted(model)
    _separate(model, paths)
    for path in paths:
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, _merged(model.get_submodule(path)))
    del model.peft_config
    model._hf_peft_config_loaded = False
    model.requires_grad_(True)  # the adapter had frozen the weights
    if model.get_input_embeddings().weight is not model.get_output_embeddings().weight:
        model.config.tie_word_embeddings = False
        model.config.get_text_config().tie_word_embeddings = False
        model.all_tied_weights_keys = {}
    have = _logits(model)
    if not torch.allclose(have, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item()):
        raise ModelError(
            f"The {kind} adapter in {name} cannot be added to the weights: the logits change. "
            "Merge it with the library that made it, and load the result."
        )
    return f"{kind} adapter of {name}, added to the weights"


def _adapted(model: PreTrainedModel) -> list[str]:
    """Return the paths of the modules that PEFT has wrapped, without those inside another one."""
    paths: list[str] = []
    for path, module in model.named_modules():
        # the two kinds of wrappers that PEFT itself tells apart when it merges
        wrapped = hasattr(module, "unload_and_optionally_merge_module") or (
            hasattr(module, "base_layer") and hasattr(module, "merge")
        )
        if wrapped and not any(path.startswith(f"{outer}.") for outer in paths):
            paths.append(path)
    return paths


def _separate(model: PreTrainedModel, paths: list[str]) -> None:
    """Give each wrapped module weights of its own.

    Otherwise the adapter of a head that shares its weight would change the embeddings as well.
    """
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    for path in paths:
        for module in model.get_submodule(path).modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                if uses[id(weight)] > 1:
                    setattr(module, name, torch.nn.Parameter(weight.detach().clone()))


def _merged(module: Any) -> torch.nn.Module:
    """Return the plain module that a wrapped one computes."""
    if hasattr(module, "unload_and_optionally_merge_module"):
        plain = module.unload_and_optionally_merge_module(
            merge=True, safe_merge=True, adapter_names=None
        )
    else:
        module.merge(safe_merge=True)
        plain = module.get_base_layer()
    assert isinstance(plain, torch.nn.Module)
    return plain


@torch.no_grad()
def _logits(model: PreTrainedModel) -> torch.Tensor:
    """Return the logits of a few arbitrary tokens."""
    ids_BT = torch.arange(3, 11)[None]
    logits: torch.Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return logits
