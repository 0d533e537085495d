"""Add a PEFT adapter that lies in a model's folder to the weights.

transformers would apply such an adapter beside the weights: a model saved later would then be the
adapter alone, without any edit.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers.utils.peft_utils import find_adapter_config_file

from editbench.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
"""Where PEFT stores the weights of an adapter."""


def adapter_base(name: str) -> str | None:
    """Return the model that the adapter of ``name`` belongs to; ``None`` if ``name`` has none.

    A local folder that holds a model as well is the base itself. The name is empty where the
    adapter does not say.
    """
    file = find_adapter_config_file(name)
    if file is None:
        return None
    if (Path(name) / "config.json").is_file():
        return name
    base = json.loads(Path(file).read_text(encoding="utf-8")).get("base_model_name_or_path")
    return base if isinstance(base, str) else ""


def fold_adapter(model: PreTrainedModel, name: str) -> str:
    """Add the adapter in ``name`` to the weights of ``model``; return its description.

    Raises:
        ModelError: if weights of the adapter are missing or have no place in the model, or if it
            cannot be added to the weights without a change of the logits.
    """
    from peft import PeftConfig, PeftModel

    folder = Path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in WEIGHT_FILES):
        raise ModelError(f"Adapter folder {name} has no weights ({WEIGHT_FILES[0]}).")
    config = PeftConfig.from_pretrained(name)
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if config.is_prompt_learning:
        raise ModelError(f"The {kind} adapter in {name} is a prompt, so no weights hold it.")
    config.inference_mode = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PEFT warns of is checked here
        adapted = PeftModel(model, config)
        result = adapted.load_adapter(name, "default", torch_device="cpu")
    # PEFT itself does without these: they are stored elsewhere
    lost = [key for key in result.missing_keys if "vblora_vector_bank" not in key]
    for keys, what in (
        (lost, "lacks weights"),
        (result.unexpected_keys, "has weights that find no place in its model"),
    ):
        if keys:
            raise ModelError(f"The adapter in {name} {what}: {keys[0]} ({len(keys)} in all).")
    wanted = _logits(model)
    _separate(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.merge_and_unload(safe_merge=True)
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


def _separate(model: PreTrainedModel) -> None:
    """Give each module with an adapter a weight of its own.

    Otherwise the adapter of a head that shares its weight would change the embeddings as well.
    """
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    for wrapped in model.modules():
        base = getattr(wrapped, "base_layer", None)
        if isinstance(base, torch.nn.Module):
            for name, weight in list(base.named_parameters(recurse=False)):
                if uses[id(weight)] > 1:
                    setattr(base, name, torch.nn.Parameter(weight.detach().clone()))


@torch.no_grad()
def _logits(model: PreTrainedModel) -> torch.Tensor:
    """Return the logits of a few arbitrary tokens."""
    ids_BT = torch.arange(3, 11)[None] % model.config.get_text_config().vocab_size
    logits: torch.Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return logits
