"""Load weights, and refuse a model whose numbers would not be those of its checkpoint."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)

from editbench.errors import ModelError
from editbench.placing import offloaded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 3
"""So many names stand in an error message; of the rest, it gives the count."""
_IN_LAYER = re.compile(r"(.+?)\.(\d+)\.(.+)")
"""stack.INDEX.rest: the stack of layers, the number of the layer, the weight inside the layer."""
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def load_weights(
    folder: str | Path, source: str, dtype: str = "float32", **options: Any
) -> PreTrainedModel:
    """Return the causal LM in ``folder``, without any adapter, if it is complete.

    Args:
        folder: a folder or hub id.
        source: what to call it in a message.
        dtype: in which type to hold the weights; ``auto``: the checkpoint's own.
        options: further options of ``from_pretrained``.

    Raises:
        ModelError: as ``check_weights``. transformers raises other errors if it cannot load it.
    """
    # their types do not know output_loading_info
    trusted = options.get("trust_remote_code", False)
    gguf = {"gguf_file": options["gguf_file"]} if "gguf_file" in options else {}
    load: Any = _auto_class(folder, trust_remote_code=trusted, **gguf).from_pretrained
    model, info = load(
        folder,
        dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        # No adapter is found there. See editbench.adapters, which adds them to the weights.
        adapter_kwargs={"subfolder": "no-adapter"},
        # reported below, with their names
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **options,
    )
    check_weights(model, info, source)
    loaded: PreTrainedModel = model
    return loaded


def empty_model(folder: str | Path, **options: Any) -> PreTrainedModel:
    """Return the causal LM that the configuration in ``folder`` describes, on the meta device.

    It has modules and shapes, no weights and no adapter. The arguments are those of
    ``load_weights``; transformers raises errors if there is no such architecture.
    """
    config = AutoConfig.from_pretrained(folder, **options)
    with torch.device("meta"):
        model: PreTrainedModel = _auto_class(folder, **options).from_config(config)
    return model


def _auto_class(folder: str | Path, **options: Any) -> Any:
    """Return the class that loads the checkpoint in ``folder`` as a language model.

    Some models for images and text have no class for text alone. They read texts just as well.
    """
    if "gguf_file" in options:
        return AutoModelForCausalLM
    trusted = options.get("trust_remote_code", False)
    config = type(AutoConfig.from_pretrained(folder, trust_remote_code=trusted))
    reads_images = config in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if config not in MODEL_FOR_CAUSAL_LM_MAPPING and reads_images:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def check_weights(model: PreTrainedModel, info: Mapping[str, Any], source: str) -> None:
    """Refuse a model whose numbers would not be those of its checkpoint.

    Args:
        info: what ``from_pretrained(..., output_loading_info=True)`` returned. Tied weights and
            those that transformers itself ignores for this architecture (the attention masks in old
            GPT-2 checkpoints, for instance) are not in it.
        source: the model or file, for the message.

    It is an error

    - if a weight is missing or has another shape, because it would be random;
    - if the checkpoint holds a whole decoder layer after the model's last one. A layer for the
      prediction of several tokens, which has more weights than a decoder layer, is none;
    - if the checkpoint holds a weight for a place inside the model where the configuration has
      none: the bias of a linear layer without bias, or a ``.weight`` within a decoder layer.

    All else that the model does not use may stay: vision towers, classification heads, prediction
    heads, masks and rotary frequencies.

    Raises:
        ModelError: the message names the weights.
    """
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    # where both names of a tied weight are missing, one of them is enough
    missing = sorted(set(info["missing_keys"]) - tied) or sorted(info["missing_keys"])
    unexpected = sorted(info["unexpected_keys"])
    name = type(model).__name__
    if missing:
        raise ModelError(
            f"{source} lacks {_count(missing)} of {name}, which would be random: {_some(missing)}."
            f"{_reason(model, missing, unexpected)}"
        )
    if mismatched := sorted(info["mismatched_keys"]):
        shapes = [
            f"{key} {tuple(stored)} instead of {tuple(wanted)}"
            for key, stored, wanted in mismatched
        ]
        raise ModelError(
            f"{source} stores {_count(mismatched)} in other shapes than its configuration says: "
            f"{_some(shapes)}."
        )
    if extra := _extra_layers(model, unexpected):
        raise ModelError(
            f"{source} stores decoder layers after the last one that its configuration counts: "
            f"{_some(extra)}. The model would be cut off there. Correct the number of layers."
        )
    if unused := _unused(model, unexpected):
        raise ModelError(
            f"{source} stores {_count(unused)} that {name} with this configuration leaves out: "
            f"{_some(unused)}. The model would compute something else."
        )


@torch.no_grad()
def check_object(model: PreTrainedModel) -> None:
    """Refuse a model object of another kind, or one without layers or values.

    Raises:
        ModelError: the message says what it is, and what to pass instead.
    """
    kind = type(model).__name__
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        raise ModelError(
            f"A {kind} is no language model of transformers. Load one with "
            "AutoModelForCausalLM.from_pretrained."
        )
    if hasattr(model, "get_base_model"):
        raise ModelError(
            f"This model is wrapped by PEFT ({kind}). Pass what its merge_and_unload() returns, or "
            "save the adapter and load its folder; an adapter that is a prompt cannot be used."
        )
    # Llama 4 names itself as its base model, but has a head
    if getattr(model, "base_model", None) is model and model.get_output_embeddings() is None:
        raise ModelError(
            f"A {kind} has no language model head. Load the model with "
            "AutoModelForCausalLM.from_pretrained."
        )
    check_depth(model)
    for name, weight in model.named_parameters():
        if weight.is_meta and name in getattr(model, "all_tied_weights_keys", {}):
            continue  # the values of the weight that it is tied to
        values = offloaded(model, name) if weight.is_meta else weight
        # quantized weights are no numbers of their own; aminmax() needs no copy, isfinite() does
        if values.dtype in _FLOATS and values.numel():
            if not all(end.isfinite() for end in values.aminmax()):
                raise ModelError(
                    f"Weight {name!r} of this {kind} has values that are infinite or NaN. Its file "
                    "is damaged, or the training that wrote it diverged."
                )


def check_depth(model: PreTrainedModel) -> None:
    """Check that a model has layers.

    Raises:
        ModelError: its configuration counts none.
    """
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    if isinstance(depth, int) and depth < 1:
        kind = type(model).__name__
        raise ModelError(f"The configuration of this {kind} counts {depth} layers.")


def _reason(model: PreTrainedModel, missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Return the probable reason why weights are missing, as a sentence after a space, or ''."""
    lost = set(missing)
    for name in unexpected:
        parts = name.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in lost:
                prefix = ".".join(parts[:cut]) + "."
                return f" It stores them with {prefix!r} before their names: save it without that."
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if len(missing) == 1 and head is not None and head.weight is not embeddings.weight:
        if dict(model.named_parameters()).get(missing[0]) is head.weight:
            return (
                " If the model shares this weight with its input embeddings, set "
                "tie_word_embeddings to true in config.json."
            )
    own = _layers(name for name, _ in model.named_parameters())
    if any(own.get(layer) == inside for layer, inside in _layers(missing).items()):
        return " Whole layers are missing: is their number wrong, or is a part of the files lost?"
    return ""


def _extra_layers(model: PreTrainedModel, unexpected: Iterable[str]) -> list[str]:
    """Return the decoder layers among the ``unexpected`` names, as ``stack.INDEX``."""
    own = _layers(name for name, _ in model.named_parameters())
    within: defaultdict[str, set[str]] = defaultdict(set)
    for (stack, _), inside in own.items():
        within[stack] |= inside
    return [
        f"{stack}.{index}"
        for (stack, index), inside in _layers(_full(model, name) for name in unexpected).items()
        if stack in within and (stack, index) not in own and inside <= within[stack]
    ]


def _unused(model: PreTrainedModel, unexpected: Iterable[str]) -> list[str]:
    """Return those ``unexpected`` names that belong inside a part of the model."""
    if getattr(model, "hf_quantizer", None) is not None:
        return []  # the scales of quantized weights are not weights of their own
    modules = dict(model.named_modules())
    layers = _layers(name for name, _ in model.named_parameters())
    unused = []
    for name in unexpected:
        full = _full(model, name)
        parent = modules.get(full.rpartition(".")[0])
        match = _IN_LAYER.fullmatch(full)
        in_layer = match is not None and (match[1], int(match[2])) in layers
        if (parent is not None and any(True for _ in parent.parameters(recurse=False))) or (
            in_layer and full.endswith(".weight")
        ):
            unused.append(name)
    return unused


def _full(model: PreTrainedModel, name: str) -> str:
    """Return a stored name as the model has it.

    A checkpoint of the base model alone has names without the base model's prefix.
    """
    prefix = model.base_model_prefix
    base = getattr(model, prefix, None)
    first = name.partition(".")[0]
    return f"{prefix}.{name}" if base is not None and hasattr(base, first) else name


def _layers(names: Iterable[str]) -> dict[tuple[str, int], set[str]]:
    """Return what is inside each layer, by stack and number."""
    layers = defaultdict(set)
    for name in names:
        if match := _IN_LAYER.fullmatch(name):
            layers[match[1], int(match[2])].add(match[3])
    return layers


def _count(names: Collection[object]) -> str:
    return "one weight" if len(names) == 1 else f"{len(names)} weights"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
