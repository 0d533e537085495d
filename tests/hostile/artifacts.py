"""Folders that are offered as what somebody made elsewhere, and are not, or not of this base."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from hostile.checkpoints import add_adapter, configure, rewrite, saved, saved_in_parts, set_field
from safetensors.torch import load_file, save_file

from editbench import inject
from editbench.models import load_model
from editbench.testing import FACTS, tiny_model, tiny_tokenizer


def adapter(folder: Path, base: object = "", **options: object) -> Path:
    """Write a LoRA adapter of ``tiny_model()`` to ``folder``; it names ``base`` as its base."""
    add_adapter(folder, tiny_model(), **{"target_modules": ["q_proj"], **options})
    set_field(folder / "adapter_config.json", base_model_name_or_path=base)
    return folder


def with_nan(file: Path) -> None:
    """Put a NaN into the last tensor of a safetensors file."""
    tensors = load_file(file)
    tensors[max(tensors)].view(-1)[0] = float("nan")
    save_file(tensors, file, {"format": "pt"})


def other_base(folder: Path) -> Path:
    """Write a tiny model of other weights next to ``folder``."""
    saved(folder.parent / "other-base", seed=7)
    return folder.parent / "other-base"


def weights(folder: Path, **config: object) -> Path:
    """Write ``tiny_model()`` as a folder."""
    saved(folder, **config)
    return folder


def _no_such(folder: Path, base: Path) -> None:
    pass


def _pickled_adapter(folder: Path, base: Path) -> None:
    adapter(folder, base)
    tensors = load_file(folder / "adapter_model.safetensors")
    torch.save(tensors, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def _pickled_weights(folder: Path, base: Path) -> None:
    weights(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _lost_shard(folder: Path, base: Path) -> None:
    saved_in_parts(folder)
    min(folder.glob("model-*.safetensors")).unlink()


def _shard_elsewhere(folder: Path, base: Path) -> None:
    saved_in_parts(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    names = {name: "../base/model.safetensors" for name in index["weight_map"]}
    set_field(folder / "model.safetensors.index.json", weight_map=names)


def _prompt(folder: Path, base: Path) -> None:
    from peft import PrefixTuningConfig, get_peft_model

    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(tiny_model().model, config).save_pretrained(str(folder))
    set_field(folder / "adapter_config.json", base_model_name_or_path=str(base))


def _truncated(folder: Path, base: Path) -> None:
    adapter(folder, base)
    os.truncate(folder / "adapter_model.safetensors", 200)


def _renamed(folder: Path, base: Path) -> None:
    weights(folder)
    rewrite(folder, lambda tensors: {name.replace("q_proj", "x"): t for name, t in tensors.items()})


def _incomplete_edit(folder: Path, base: Path) -> None:
    inject(load_model(base), FACTS[:1], "sft", epochs=1).save(folder)
    (folder / "records.jsonl").unlink()


def _damaged_edit(folder: Path, base: Path) -> None:
    inject(load_model(base), FACTS[:1], "sft", epochs=1).save(folder)
    os.truncate(folder / "edit.safetensors", 200)


def _edit_of_another(folder: Path, base: Path) -> None:
    inject(load_model(other_base(folder)), FACTS[:1], "sft", epochs=1).save(folder)


def _tokens(folder: Path, base: Path) -> None:
    weights(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)


def _model_and_adapter(folder: Path, base: Path) -> None:
    shutil.copytree(base, folder)
    adapter(folder, base)


def _nan_adapter(folder: Path, base: Path) -> None:
    with_nan(adapter(folder, base) / "adapter_model.safetensors")


def _nan_weights(folder: Path, base: Path) -> None:
    with_nan(weights(folder) / "model.safetensors")


Maker = Callable[[Path, Path], object]
REFUSED: dict[str, tuple[Maker, str]] = {
    "nothing": (_no_such, "There is no folder"),
    "an empty folder": (lambda folder, _: folder.mkdir(), "holds none of adapter_config.json"),
    "a file": (lambda folder, _: folder.write_text("x"), "is a file. An artifact is a folder"),
    "a GGUF file": (lambda folder, _: folder.write_bytes(b"GGUF\3"), "pass it as --model"),
    "an adapter without a base": (
        lambda folder, _: adapter(folder, None),
        "does not name its base",
    ),
    "an adapter of another name": (
        lambda folder, _: adapter(folder, "org/other-model"),
        "trained on 'org/other-model', and this is '.*base'",
    ),
    "an adapter of other weights": (
        lambda folder, _: adapter(folder, other_base(folder)),
        "trained on .*other-base, whose weights are not those of .*base",
    ),
    "an adapter whose config is no JSON": (
        lambda folder, base: (adapter(folder, base) / "adapter_config.json").write_text("{"),
        "adapter_config.json cannot be read",
    ),
    "an adapter without weights": (
        lambda folder, base: (adapter(folder, base) / "adapter_model.safetensors").unlink(),
        "has no weights: adapter_model.safetensors is missing",
    ),
    "a pickled adapter": (_pickled_adapter, r"as a pickle \(.bin\)"),
    "a truncated adapter": (_truncated, "could not be read: adapter_model.safetensors is damaged"),
    "an adapter of an unknown type": (
        lambda folder, base: set_field(
            adapter(folder, base) / "adapter_config.json", peft_type="UNHEARD_OF"
        ),
        "could not be read: .*UNHEARD_OF",
    ),
    "an adapter with NaN": (_nan_adapter, "The adapter .* infinite or NaN"),
    "an adapter of a tied head": (
        lambda folder, base: adapter(folder, base, target_modules=["lm_head"]),
        "one weight for both, .*2972",
    ),
    "an adapter of tied embeddings": (
        lambda folder, base: adapter(folder, base, target_modules=["embed_tokens"]),
        "one weight for both, .*2972",
    ),
    "an adapter that is a prompt": (_prompt, "is a prompt, so no weights hold it"),
    "a model and an adapter": (_model_and_adapter, "holds both a model and an adapter"),
    "pickled weights": (_pickled_weights, r"as a pickle \(.bin\)"),
    "weights without a file": (
        lambda folder, _: (weights(folder) / "model.safetensors").unlink(),
        "has no weights: model.safetensors is missing",
    ),
    "weights of which a part is lost": (_lost_shard, "lacks 'model-00001-of"),
    "weights outside of the folder": (_shard_elsewhere, "lacks '../base/model.safetensors'"),
    "weights with NaN": (_nan_weights, "infinite or NaN"),
    "weights of another architecture": (
        lambda folder, _: weights(folder, family="gpt2"),
        "'gpt2', and .*base is of type 'llama': it was not made from this base",
    ),
    "weights of another width": (
        lambda folder, _: weights(folder, intermediate_size=48),
        "intermediate_size 48 .*base has 56",
    ),
    "weights of another computation": (
        lambda folder, _: configure(weights(folder), rms_norm_eps=0.5),
        "rms_norm_eps 0.5",
    ),
    "weights with other names": (_renamed, "lacks 4 weights|leaves out"),
    "quantized weights": (
        lambda folder, _: configure(weights(folder), quantization_config={"bits": 4}),
        "holds quantized weights",
    ),
    "another tokenizer": (_tokens, "tokenizer in .* is not that of .*<new>"),
    "an edit that lacks a file": (_incomplete_edit, "incomplete edit: records.jsonl is missing"),
    "a damaged edit": (_damaged_edit, "is damaged"),
    "an edit of another base": (
        _edit_of_another,
        r"made for .*other-base \(weights \w+\), and this is .*base \(weights",
    ),
}
"""What is refused -> who makes it at a path for a base, and the words of the refusal."""
