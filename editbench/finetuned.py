"""Compare a folder of weights with a model, tensor by tensor, without loading a second model.

A fine-tuned folder has the base's architecture and other values. What it changes is the difference
of both, weight by weight.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from editbench.checkpoints import has_tokenizer, quiet_transformers
from editbench.errors import ModelError
from editbench.models import LanguageModel
from editbench.weights import load_weights

ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
SAME_COMPUTATION = re.compile(
    r"_name_or_path|architectures|(torch_)?dtype|transformers_version|use_cache|.*token_ids?"
    r"|.*drop(out)?|initializer_range|id2label|label2id|problem_type|return_dict|output_.*"
    r"|_attn_implementation.*"
)
"""Fields of a configuration that do not change what a model computes."""
SAMPLE = "In 2024, Zoë said:\n\n  \"It's 7.5 km — don't walk!\"\t<b>naïve</b> 東京 🙂"
"""A text on which two tokenizers must agree: digits, white space, accents, other scripts."""


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of the model in ``folder``, in the order of their names.

    Raises:
        ModelError: there are none, one is missing, or the weights are pickled.
    """
    if (folder / ONE_FILE).is_file():
        return [folder / ONE_FILE]
    if (folder / INDEX).is_file():
        shards = read_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ModelError(f"{folder / INDEX} lists no files of weights.")
        for shard in sorted(set(map(str, shards.values()))):
            # A name from a file must not lead out of the folder.
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise ModelError(
                    f"{folder} lacks {shard!r}, which {INDEX} lists. Copy all files of the model."
                )
        return [folder / shard for shard in sorted(set(shards.values()))]
    if any(folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"{folder} has its weights as a pickle (.bin), which could run code while it is read. "
            "Save them again with model.save_pretrained(FOLDER), which writes safetensors."
        )
    raise ModelError(f"{folder} has no weights: {ONE_FILE} is missing.")


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in ``file``.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{file} holds a {type(value).__name__} instead of an object.")
    return value


def changes_of(folder: Path, model: LanguageModel) -> dict[str, torch.Tensor]:
    """Return what ``folder`` adds to each weight of ``model`` that it has otherwise.

    The changes are on the CPU, one for each weight that differs. They are float32 where that gives
    the stored weight bit for bit (of bfloat16 weights it does), else float64.

    Raises:
        ModelError: names or shapes of the weights differ, a weight is quantized, infinite or NaN.
    """
    changes: dict[str, torch.Tensor | None] = {}
    for name, stored in _weights(folder, model):
        change = change_of(model, name, stored, str(folder))
        # A tied weight may be stored under both of its names.
        if name in changes and not _same(changes[name], change):
            raise ModelError(
                f"{folder} stores two different weights for {name!r}, which {model.name} uses as "
                "its embeddings and as its head. Only an untied base can be compared with it."
            )
        changes[name] = change
    return {name: change for name, change in changes.items() if change is not None}


def has_weights_of(folder: Path, model: LanguageModel) -> bool:
    """Return whether ``folder`` holds exactly the weights of ``model``.

    Raises:
        ModelError: as ``changes_of``.
    """
    return all(
        change_of(model, name, stored, str(folder)) is None
        for name, stored in _weights(folder, model)
    )


@torch.no_grad()
def change_of(
    model: LanguageModel, name: str, stored: torch.Tensor, source: str
) -> torch.Tensor | None:
    """Return ``stored`` minus the weight ``name`` of ``model``; ``None`` if they are equal.

    Raises:
        ModelError: the shapes differ, or ``stored`` is quantized, infinite or NaN.
    """
    weight = model.weight(name)
    if not stored.is_floating_point():
        kind = str(stored.dtype).removeprefix("torch.")
        raise ModelError(f"{source} stores {name!r} as {kind}. Quantized weights are not compared.")
    if stored.shape != weight.shape:
        raise ModelError(
            f"{source} stores {name!r} with shape {tuple(stored.shape)}, and in {model.name} it "
            f"has shape {tuple(weight.shape)}: they are different models."
        )
    if stored.numel() and not all(bool(end.isfinite()) for end in stored.aminmax()):
        raise ModelError(f"{source} has values in {name!r} that are infinite or NaN.")
    stored, own = stored.cpu(), weight.cpu()
    if torch.equal(stored.to(own.dtype), own):
        return None
    change = stored.double() - own.double()
    single = change.float()
    is_exact = torch.equal((own.double() + single.double()).to(own.dtype), stored.to(own.dtype))
    return single if is_exact else change


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


def _weights(folder: Path, model: LanguageModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each stored weight under its name in ``model``.

    Raises:
        ModelError: the folder has not the weights of this model.
    """
    files = weight_files(folder)
    own = {id(weight): name for name, weight in model.model.named_parameters()}
    both_names = {
        name: own[id(weight)]
        for name, weight in model.model.named_parameters(remove_duplicate=False)
    }
    stored = {name for file in files for name in _names(file)}
    stored -= {name for name, _ in model.model.named_buffers()}
    if stored <= both_names.keys() and {both_names[name] for name in stored} == set(own.values()):
        for file in files:
            with safe_open(file, "pt") as opened:
                for name in sorted(stored & set(opened.keys())):
                    yield both_names[name], opened.get_tensor(name)
        return
    # Some checkpoints have names of their own, which only transformers can read. That takes a
    # second model. It refuses one that lacks weights.
    with quiet_transformers():
        loaded = load_weights(folder, f"The model in {folder}", use_safetensors=True)
    if names := set(own.values()) ^ {name for name, _ in loaded.named_parameters()}:
        raise ModelError(f"{folder} and {model.name} do not both have a weight {min(names)!r}.")
    yield from loaded.named_parameters()


def _names(file: Path) -> list[str]:
    with safe_open(file, "pt") as opened:
        return list(opened.keys())


def check_config(folder: Path, model: LanguageModel) -> None:
    """Check that the model in ``folder`` computes as ``model`` does, but for its weights.

    Raises:
        ModelError: the architecture or a field of the configuration differs; names both models.
    """
    if "quantization_config" in read_json(folder / "config.json"):
        raise ModelError(f"{folder} holds quantized weights, which are not compared.")
    with quiet_transformers():
        there = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    here = model.model.config
    if there.model_type != here.model_type:
        raise ModelError(
            f"{folder} is a model of type {there.model_type!r}, and {model.name} is of type "
            f"{here.model_type!r}: it was not made from this base."
        )
    fields, own = _computing(there.to_dict()), _computing(here.to_dict())
    for name in sorted(fields.keys() & own.keys()):
        if fields[name] != own[name]:
            raise ModelError(
                f"{folder} has {name} {fields[name]!r} in its config.json, and {model.name} has "
                f"{own[name]!r}: they are different models, or compute differently."
            )


def _computing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration that decide what a model computes."""
    return {
        name: _computing(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if not SAME_COMPUTATION.fullmatch(name)
    }


def check_tokenizer(folder: Path, model: LanguageModel) -> tuple[str, list[str]]:
    """Check that a tokenizer in ``folder`` is that of ``model``.

    Returns:
        The end of a list of what was checked, and a warning if its chat template is another one.

    Raises:
        ModelError: it has other tokens, or splits a text differently.
    """
    if not has_tokenizer(folder):
        return " (it has no tokenizer)", []
    with quiet_transformers():
        theirs = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    ours = model.tokenizer
    unlike = sorted(dict(theirs.get_vocab().items() ^ ours.get_vocab().items()))
    if unlike or theirs(SAMPLE)["input_ids"] != ours(SAMPLE)["input_ids"]:
        example = f" (token {unlike[0]!r})" if unlike else ""
        raise ModelError(
            f"The tokenizer in {folder} is not that of {model.name}{example}, so the two models "
            "read different texts and cannot be compared."
        )
    if (theirs.chat_template or None) == (ours.chat_template or None):
        return ", tokenizer", []
    return ", tokenizer", [
        f"{folder} has a chat template of its own; questions are asked with that of {model.name}, "
        "as those to every row"
    ]
