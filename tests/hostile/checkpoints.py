"""Small model folders and GGUF files that are damaged, incomplete or unusual."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from editbench.models import LanguageModel, quiet_transformers
from editbench.testing import tiny_model, tiny_tokenizer

Tensors = dict[str, torch.Tensor]


def saved(folder: Path, family: str = "llama", **config: Any) -> LanguageModel:
    """Save a tiny model and its tokenizer to ``folder``, and return the model."""
    model = tiny_model(family, **config)
    with quiet_transformers():
        model.model.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    return model


def saved_in_parts(folder: Path, **config: Any) -> LanguageModel:
    """Save a tiny model in several files with an index, and return it."""
    model = tiny_model("llama", **config)
    with quiet_transformers():
        model.model.save_pretrained(folder, max_shard_size="60KB")
        model.tokenizer.save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").is_file()
    return model


IMAGES: dict[str, tuple[str, dict[str, int]]] = {
    "gemma3": (
        "gemma3_text",
        {
            "mm_tokens_per_image": 4,
            "image_token_index": 5,
            "boi_token_index": 6,
            "eoi_token_index": 7,
        },
    ),
    "llava": ("llama", {"image_token_index": 5}),
    "mistral3": ("mistral", {"image_token_index": 5}),
    "qwen3_vl": ("qwen3_vl_text", {}),
}
"""Models for images and text: the type of their text model, and settings of their own."""


def saved_with_images(folder: Path, kind: str) -> None:
    """Save a tiny random model of ``IMAGES`` with the tiny tokenizer."""
    text, settings = IMAGES[kind]
    tokenizer = tiny_tokenizer()
    width = {"hidden_size": 16, "intermediate_size": 32, "image_size": 28, "patch_size": 14}
    config = AutoConfig.for_model(
        kind,
        text_config={
            "model_type": text,
            "hidden_size": 32,
            "intermediate_size": 56,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 256,
            "pad_token_id": None,
        },
        vision_config={
            **width,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "depth": 2,
            "num_heads": 2,
            "out_hidden_size": 32,
        },
        **settings,
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def set_field(file: Path, **changes: object) -> None:
    """Change fields of a JSON file; paths are written as text."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}, default=str))


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Replace the stored tensors of a model folder by ``change`` of them."""
    file = folder / "model.safetensors"
    tensors = change(load_file(file))
    save_file({name: t.contiguous() for name, t in tensors.items()}, file, {"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    """Change fields of ``config.json``."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    if "num_hidden_layers" in changes:
        config.pop("layer_types", None)
    file.write_text(json.dumps(config))


def add_adapter(folder: Path, model: LanguageModel, **options: Any) -> None:
    """Write a LoRA adapter with random weights for ``model`` to ``folder``."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"r": 2, "lora_alpha": 8, "task_type": "CAUSAL_LM", **options})
    with torch.random.fork_rng(devices=[]), quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of tied weights
        torch.manual_seed(0)
        adapted = get_peft_model(model.model, config)
        for _, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        adapted.save_pretrained(str(folder))


LLAMA_GGUF = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Names of a Llama checkpoint, or parts of them, in a GGUF file."""


def write_gguf(
    path: Path,
    family: str = "llama",
    *,
    change: Callable[[Tensors], Tensors] = lambda tensors: tensors,
    metadata: Mapping[str, int] = {},  # noqa: B006 - nothing changes it
    part: tuple[int, int] | None = None,
    **config: Any,
) -> LanguageModel:
    """Write a tiny model as a GGUF file, and return it.

    Args:
        family: ``llama`` or ``qwen2``.
        change: maps the stored tensors, by their GGUF names, to those that are written.
        metadata: 32-bit numbers to write in addition, or instead.
        part: number (from 0) of this part and the count of parts, for a file that was split.
        config: fields of the model's configuration.
    """
    import gguf

    model = tiny_model(family, **config)
    cfg = model.model.config
    core = json.loads(tiny_tokenizer().backend_tokenizer.to_str())["model"]
    vocab = sorted(core["vocab"], key=core["vocab"].get)
    writer = gguf.GGUFWriter(path, family)
    numbers = {
        f"{family}.block_count": cfg.num_hidden_layers,
        f"{family}.context_length": cfg.max_position_embeddings,
        f"{family}.embedding_length": cfg.hidden_size,
        f"{family}.feed_forward_length": cfg.intermediate_size,
        f"{family}.attention.head_count": cfg.num_attention_heads,
        f"{family}.attention.head_count_kv": cfg.num_key_value_heads,
        f"{family}.vocab_size": len(vocab),
        "tokenizer.ggml.eos_token_id": vocab.index("<|endoftext|>"),
        "tokenizer.ggml.bos_token_id": vocab.index("<s>"),
        **metadata,
    }
    for key, number in numbers.items():
        writer.add_uint32(key, number)
    writer.add_float32(f"{family}.attention.layer_norm_rms_epsilon", cfg.rms_norm_eps)
    writer.add_float32(f"{family}.rope.freq_base", 10000.0)
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_array("tokenizer.ggml.tokens", vocab)
    writer.add_array("tokenizer.ggml.merges", [" ".join(pair) for pair in core["merges"]])
    if part is not None:
        writer.add_uint16("split.no", part[0])
        writer.add_uint16("split.count", part[1])
    stored = {}
    for name, parameter in model.model.named_parameters():
        weight = parameter.detach()
        if family == "llama" and ("q_proj" in name or "k_proj" in name):
            # llama.cpp keeps the two halves of each rotary pair next to each other
            heads = cfg.num_attention_heads if "q_proj" in name else cfg.num_key_value_heads
            weight = weight.view(heads, 2, -1, cfg.hidden_size).transpose(1, 2)
            weight = weight.reshape(parameter.shape)
        name = name.replace("model.layers.", "blk.")
        for old, new in LLAMA_GGUF.items():
            name = name.replace(old, new)
        stored[name] = weight
    for name, weight in change(stored).items():
        writer.add_tensor(name, weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model
