"""Write a model as a GGUF file, in float32, for Llama, Qwen 2 and Qwen 3 shapes.

llama.cpp and Ollama read the file, and so does ``editbench.gguf``, which gets the same weights.
Names and layout are those of llama.cpp's ``convert_hf_to_gguf.py``: rows of Llama's query and key
projections are stored in another order (its rotary embedding pairs neighbors), all else as it is.

A base that was a GGUF file itself gives its own description of the tokenizer. Otherwise a
byte-level BPE is written out, with the name that llama.cpp has for its rule of splitting texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoTokenizer

from editbench.errors import ModelError
from editbench.finetuned import SAMPLE
from editbench.models import LanguageModel, quiet_transformers

if TYPE_CHECKING:
    from gguf import GGUFWriter

SHAPES = ("llama", "qwen2", "qwen3")
"""Types of models that can be written; each is also the name of llama.cpp's architecture."""
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?", 1)
SPLITS = {QWEN2_SPLIT: "qwen2", LLAMA3_SPLIT: "llama-bpe"}
"""Regular expression of a tokenizer -> llama.cpp's name of it."""
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens, as llama.cpp numbers them."""


def check_shape(model: LanguageModel) -> None:
    """Check that ``write_gguf`` can write ``model``.

    Raises:
        ModelError: its architecture, or a part of it, has no place in the file.
    """
    config = model.model.config
    if config.model_type not in SHAPES:
        raise ModelError(
            f"A GGUF file is written for models of type {', '.join(SHAPES)}, and {model.name} is of"
            f" type {config.model_type!r}. Use --format merged, and llama.cpp's"
            " convert_hf_to_gguf.py."
        )
    rope = getattr(config, "rope_parameters", None) or {}
    odd = {
        "rope scaling": rope.get("rope_type", "default") != "default",
        "a sliding window": bool(getattr(config, "use_sliding_window", False)),
        f"the activation {config.hidden_act!r}": config.hidden_act != "silu",
        "biases": config.model_type != "qwen2"
        and any(name.endswith(".bias") for name, _ in model.model.named_parameters()),
    }
    if unusual := next((what for what, there in odd.items() if there), None):
        raise ModelError(
            f"{model.name} has {unusual}, which editbench does not write into a GGUF file. Use "
            "--format merged, and llama.cpp's convert_hf_to_gguf.py."
        )
    _tokenizer_fields(model)


@torch.no_grad()
def write_gguf(model: LanguageModel, path: Path, name: str) -> None:
    """Write the weights that ``model`` has now, with its tokenizer, to ``path``.

    Args:
        model: a model that ``check_shape`` accepts.
        name: what the file calls itself.

    Raises:
        ModelError: a weight has no place in the file, or is infinite or NaN.
    """
    import gguf

    arch = model.model.config.model_type
    writer = gguf.GGUFWriter(path, arch)
    _write_shape(writer, model, name)
    for key, (value, kind, inner) in _tokenizer_fields(model).items():
        of_items = None if inner is None else gguf.GGUFValueType(inner)
        writer.add_key_value(key, value, gguf.GGUFValueType(kind), of_items)
    number = next(key for key, label in gguf.MODEL_ARCH_NAMES.items() if label == arch)
    names = gguf.get_tensor_name_map(number, model.model.config.num_hidden_layers)
    for own, weight in model.model.named_parameters():
        base, _, part = own.rpartition(".")
        array = _stored(model, own, weight.detach().cpu().float())
        if (there := names.get_name(base)) is None:
            raise ModelError(f"A GGUF file has no place for {own!r} of {model.name}.")
        if not np.isfinite(array).all():
            raise ModelError(
                f"{own!r} of {model.name} would be infinite or NaN, so the file is not written."
            )
        writer.add_tensor(f"{there}.{part}", array)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _write_shape(writer: GGUFWriter, model: LanguageModel, name: str) -> None:
    import gguf

    config = model.model.config
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    width = _head_width(config)
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _head_width(config: Any) -> int:
    width = getattr(config, "head_dim", None)
    return int(width or config.hidden_size // config.num_attention_heads)


def _stored(model: LanguageModel, name: str, weight: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a weight as the file has it."""
    config = model.model.config
    heads = {
        "q_proj.weight": config.num_attention_heads,
        "k_proj.weight": config.num_key_value_heads,
    }
    count = heads.get(".".join(name.split(".")[-2:]))
    if config.model_type == "llama" and count:
        # Each head's rows are two halves that are rotated together; llama.cpp wants pairs.
        rows, columns = weight.shape
        halves = weight.reshape(count, 2, rows // count // 2, columns)
        weight = halves.swapaxes(1, 2).reshape(rows, columns)
    return np.ascontiguousarray(weight.numpy())


def check_reading(model: LanguageModel, path: Path, texts: Sequence[str]) -> None:
    """Check that the tokenizer of the file at ``path`` splits ``texts`` as that of ``model``.

    transformers reads SmolLM's rule without its splitting of numbers, which llama.cpp knows, so
    for this rule numbers are left out.

    Raises:
        ModelError: it splits one otherwise.
    """
    with quiet_transformers():
        read = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    without_numbers = _tokenizer_fields(model)["tokenizer.ggml.pre"][0] == "smollm"
    for text in (SAMPLE, *texts):
        if without_numbers:
            text = "".join(c for c in text if not c.isdigit())
        if read(text)["input_ids"] != model.tokenizer(text)["input_ids"]:
            raise ModelError(
                f"The tokenizer of {model.name}, read back from the GGUF file, splits {text!r} in"
                " another way, so the file is not written. Use --format merged."
            )


# --- the tokenizer ------------------------------------------------------------------------------

Fields = dict[str, tuple[Any, int, int | None]]
"""Key of the file -> value, its type, and the type of its items."""


def _tokenizer_fields(model: LanguageModel) -> Fields:
    """Return what the file says about the tokenizer.

    Raises:
        ModelError: it is of another kind than can be written.
    """
    from editbench.checkpoints import located

    try:
        place = located(model.name)
    except Exception:  # a model object of the user's has no such name
        place = ""
    if isinstance(place, Path) and place.suffix == ".gguf":
        return _fields_of(place)
    return _fields_from(model)


def _fields_of(path: Path) -> Fields:
    """Return the fields of another GGUF file's tokenizer."""
    import gguf

    return {
        name: (
            field.contents(),
            int(field.types[0]),
            int(field.types[1]) if field.types[1:] else None,
        )
        for name, field in gguf.GGUFReader(path).fields.items()
        if name.startswith("tokenizer.")
    }


def _fields_from(model: LanguageModel) -> Fields:
    """Return the fields of a byte-level BPE."""
    from gguf import GGUFValueType as T

    tokenizer: Any = model.tokenizer
    written = json.loads(tokenizer.backend_tokenizer.to_str())
    if written["model"]["type"] != "BPE" or written.get("normalizer") not in (
        None,
        {"type": "NFC"},
    ):
        raise _other_tokenizer(model, f"a {written['model']['type']} with a normalizer of its own")
    rows = model.model.config.vocab_size
    tokens, kinds = _tokens(written, rows)
    merges = [
        each if isinstance(each, str) else " ".join(each) for each in written["model"]["merges"]
    ]
    fields: Fields = {
        "tokenizer.ggml.model": ("gpt2", T.STRING, None),
        "tokenizer.ggml.pre": (_split_name(model, written["pre_tokenizer"]), T.STRING, None),
        "tokenizer.ggml.tokens": (tokens, T.ARRAY, T.STRING),
        "tokenizer.ggml.token_type": (kinds, T.ARRAY, T.INT32),
        "tokenizer.ggml.merges": (merges, T.ARRAY, T.STRING),
        "tokenizer.ggml.add_bos_token": (adds_bos(tokenizer), T.BOOL, None),
        "tokenizer.ggml.add_space_prefix": (False, T.BOOL, None),
    }
    for key, special in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        if (number := getattr(tokenizer, f"{special}_token_id")) is not None:
            fields[f"tokenizer.ggml.{key}_token_id"] = (number, T.UINT32, None)
    if isinstance(tokenizer.chat_template, str):
        fields["tokenizer.chat_template"] = (tokenizer.chat_template, T.STRING, None)
    return fields


def _tokens(written: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Return the tokens and their types, one for each of the model's embeddings."""
    tokens, kinds = [f"[PAD{i}]" for i in range(rows)], [UNUSED] * rows
    for token, number in written["model"]["vocab"].items():
        if number < rows:
            tokens[number], kinds[number] = token, NORMAL
    for added in written["added_tokens"]:
        if added["id"] < rows:
            tokens[added["id"]] = added["content"]
            kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    return tokens, kinds


def adds_bos(tokenizer: Any) -> bool:
    """Return whether the tokenizer itself puts BOS before a text."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("x")["input_ids"][:1] == [bos]


def _split_name(model: LanguageModel, rule: Mapping[str, Any] | None) -> str:
    """Return llama.cpp's name of the rule by which a tokenizer splits texts.

    Raises:
        ModelError: it is none of those that are known here.
    """
    steps: Sequence[Mapping[str, Any]] = [rule] if rule else []
    if rule and rule["type"] == "Sequence":
        steps = rule["pretokenizers"]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and not steps[0]["add_prefix_space"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        regex = steps[0]["pattern"].get("Regex")
        if regex in SPLITS:
            return SPLITS[regex]
    raise _other_tokenizer(model, f"one that splits texts by {' and '.join(kinds) or 'nothing'}")


def _other_tokenizer(model: LanguageModel, what: str) -> ModelError:
    return ModelError(
        f"The tokenizer of {model.name} is {what}, and editbench writes the byte-level BPEs of"
        " GPT-2, SmolLM, Llama 3 and Qwen into a GGUF file. Use --format merged, and llama.cpp's"
        " convert_hf_to_gguf.py."
    )
