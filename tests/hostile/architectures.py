"""Small random models of many architectures, for the tests of passes, layouts and editors."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from editbench.checkpoints import quiet_transformers
from editbench.models import LanguageModel
from editbench.testing import tiny_tokenizer

_LLAMA: dict[str, object] = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
_NEOX = {k: v for k, v in _LLAMA.items() if k not in ("head_dim", "num_key_value_heads")}
_GPT: dict[str, object] = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256}
_BART: dict[str, object] = {
    "d_model": 32,
    "decoder_layers": 4,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 256,
    "is_decoder": True,
    "is_encoder_decoder": False,
}
_MAMBA: dict[str, object] = {"hidden_size": 32, "num_hidden_layers": 4, "state_size": 8}
_MAMBA2: dict[str, object] = {**_MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 1}
_HYBRID: dict[str, object] = {
    "mamba_d_ssm": 64,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_chunk_size": 16,
}
_EXPERTS: dict[str, object] = {"num_local_experts": 2, "num_experts_per_tok": 1}
ROUTED: dict[str, object] = {
    **_LLAMA,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_num_experts": 4,
    "moe_k": 2,
    "moe_topk": 2,
    "moe_intermediate_size": 24,
    "n_group": 1,
    "topk_group": 1,
}
"""Four experts, under each name that an architecture has for their number."""
LATENT: dict[str, object] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
"""Multi-head latent attention, as in DeepSeek."""
_SHARED: dict[str, object] = {"n_shared_experts": 1, "first_k_dense_replace": 1}
_DELTA: dict[str, object] = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
_BERT: dict[str, object] = {**_NEOX, "is_decoder": True}

ARCHITECTURES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", _LLAMA),
    "mistral": ("mistral", {**_LLAMA, "sliding_window": 8}),
    "mixtral": ("mixtral", {**_LLAMA, **_EXPERTS}),
    "qwen2": ("qwen2", _LLAMA),
    "qwen3": ("qwen3", _LLAMA),
    "gemma": ("gemma", _LLAMA),
    "gemma2": ("gemma2", {**_LLAMA, "sliding_window": 8}),
    "gemma3": ("gemma3_text", {**_LLAMA, "sliding_window": 8}),
    "gemma3n": (
        "gemma3n_text",
        {
            **_LLAMA,
            "num_hidden_layers": 5,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "altup_num_inputs": 2,
            "num_kv_shared_layers": 0,
            "activation_sparsity_pattern": [0.0] * 5,
        },
    ),
    "gemma4": (
        "gemma4_text",
        {
            **_LLAMA,
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "sliding_window": 8,
            "global_head_dim": 8,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 2,
        },
    ),
    "gpt2": ("gpt2", _GPT),
    "gptj": ("gptj", {**_GPT, "rotary_dim": 4}),
    "gpt_neo": (
        "gpt_neo",
        {
            "hidden_size": 32,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "max_position_embeddings": 256,
        },
    ),
    "gpt_neox": ("gpt_neox", {**_NEOX, "use_parallel_residual": True}),
    "gpt_bigcode": ("gpt_bigcode", _GPT),
    "codegen": ("codegen", {**_GPT, "rotary_dim": 4, "n_ctx": 256}),
    "phi": ("phi", _NEOX),
    "phi3": ("phi3", _LLAMA),
    "opt": (
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "word_embed_proj_dim": 32,
        },
    ),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 4, "n_head": 4}),
    "mpt": ("mpt", {"d_model": 32, "n_layers": 4, "n_heads": 4, "expansion_ratio": 2}),
    "falcon": ("falcon", {**_NEOX, "alibi": False, "new_decoder_architecture": False}),
    "falcon_alibi": ("falcon", {**_NEOX, "alibi": True, "parallel_attn": False}),
    "cohere": ("cohere", _LLAMA),
    "cohere2": ("cohere2", {**_LLAMA, "sliding_window": 8}),
    "granite": ("granite", {**_LLAMA, "logits_scaling": 4.0, "residual_multiplier": 0.5}),
    "olmo2": ("olmo2", _LLAMA),
    "stablelm": ("stablelm", _LLAMA),
    "starcoder2": ("starcoder2", _LLAMA),
    "xglm": (
        "xglm",
        {
            "d_model": 32,
            "num_layers": 4,
            "attention_heads": 4,
            "ffn_dim": 64,
            "max_position_embeddings": 256,
        },
    ),
    "biogpt": ("biogpt", _NEOX),
    "bart": ("bart", _BART),
    "mbart": ("mbart", _BART),
    "trocr": ("trocr", _BART),
    "mamba": ("mamba", _MAMBA),
    "mamba2": ("mamba2", _MAMBA2),
    "falcon_mamba": ("falcon_mamba", _MAMBA),
    "rwkv": (
        "rwkv",
        {
            "hidden_size": 32,
            "attention_hidden_size": 32,
            "num_hidden_layers": 4,
            "context_length": 256,
        },
    ),
    "recurrent_gemma": (
        "recurrent_gemma",
        {**_LLAMA, "lru_width": 32, "attention_window_size": 16, "num_hidden_layers": 3},
    ),
    "falcon_h1": ("falcon_h1", {**_LLAMA, **_HYBRID}),
    "bamba": ("bamba", {**_LLAMA, **_HYBRID, "mamba_expand": 2, "attn_layer_indices": [1]}),
    "jamba": (
        "jamba",
        {
            **_LLAMA,
            "num_experts": 1,
            "num_experts_per_tok": 1,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
    "zamba": (
        "zamba",
        {
            **_LLAMA,
            "num_key_value_heads": 4,
            "attention_head_dim": 16,
            "n_mamba_heads": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
            # two hybrid layers at least, as they share weights
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        },
    ),
    "lfm2": ("lfm2", {**_LLAMA, "layer_types": ["conv", "full_attention"] * 2, "block_ff_dim": 56}),
    "qwen3_next": (
        "qwen3_next",
        {
            **_LLAMA,
            "num_experts": 0,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"] * 2,
        },
    ),
    "bert": ("bert", {**_NEOX, "is_decoder": False}),
    "bert_decoder": ("bert", {**_NEOX, "is_decoder": True}),
    "openai-gpt": ("openai-gpt", _GPT),
    "xlnet": ("xlnet", {"d_model": 32, "n_layer": 4, "n_head": 4, "d_inner": 64}),
    "ctrl": ("ctrl", {**_GPT, "dff": 64}),
    "minicpm3": ("minicpm3", {**_LLAMA, **LATENT}),
    # transformers clears the embedding of its padding token whenever it loads one
    "youtu": ("youtu", {**_LLAMA, **LATENT, "pad_token_id": None}),
    "qwen2_moe": ("qwen2_moe", {**ROUTED, "shared_expert_intermediate_size": 24}),
    "qwen3_moe_dense": ("qwen3_moe", {**ROUTED, "mlp_only_layers": [0, 2]}),
    "deepseek_v2": ("deepseek_v2", {**ROUTED, **LATENT, **_SHARED, "topk_method": "greedy"}),
    "deepseek_v3": ("deepseek_v3", {**ROUTED, **LATENT, **_SHARED}),
    "glm4_moe_lite": ("glm4_moe_lite", {**ROUTED, **LATENT, **_SHARED}),
    "longcat_flash": (
        "longcat_flash",
        {
            **ROUTED,
            **LATENT,
            "num_layers": 2,
            "ffn_hidden_size": 56,
            "expert_ffn_hidden_size": 24,
            "zero_expert_num": 1,
        },
    ),
    "dots1": ("dots1", {**ROUTED, **_SHARED}),
    "lfm2_moe": (
        "lfm2_moe",
        {**ROUTED, "layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    ),
    "dbrx": (
        "dbrx",
        {
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 4,
            "max_seq_len": 256,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
            "ffn_config": {
                "hidden_size": 32,
                "ffn_hidden_size": 32,
                "moe_num_experts": 4,
                "moe_top_k": 2,
            },
        },
    ),
    "granitemoehybrid": (
        "granitemoehybrid",
        {
            **ROUTED,
            **_HYBRID,
            "shared_intermediate_size": 24,
            "layer_types": ["mamba", "attention"] * 2,
            "mamba_expand": 2,
        },
    ),
    "nemotron_h": (
        "nemotron_h",
        {
            **_LLAMA,
            "hybrid_override_pattern": "M*-M-",
            "num_hidden_layers": 5,
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "n_groups": 1,
            "ssm_state_size": 8,
            "chunk_size": 16,
        },
    ),
    "zamba2": (
        "zamba2",
        {
            **_LLAMA,
            "num_key_value_heads": 4,
            "attention_head_dim": 16,
            "mamba_d_state": 8,
            "mamba_expand": 2,
            "mamba_headdim": 16,
            "mamba_ngroups": 1,
            "n_mamba_heads": 4,
            "chunk_size": 16,
            "num_mem_blocks": 1,
            "adapter_rank": 4,
            "use_mamba_kernels": False,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        },
    ),
    "qwen3_5": ("qwen3_5_text", {**_LLAMA, **_DELTA}),
    "qwen3_5_moe": (
        "qwen3_5_moe_text",
        {**ROUTED, **_DELTA, "shared_expert_intermediate_size": 24},
    ),
    "qwen3_next_moe": (
        "qwen3_next",
        {**ROUTED, **_DELTA, "shared_expert_intermediate_size": 24},
    ),
    "bailing_hybrid": ("bailing_hybrid", {**ROUTED, **LATENT}),
    "xlstm": (
        "xlstm",
        {"hidden_size": 32, "num_heads": 4, "num_hidden_layers": 4, "num_blocks": 4},
    ),
    "modernbert_decoder": (
        "modernbert-decoder",
        {**_NEOX, "pad_token_id": 2, "local_attention": 16},
    ),
    "roberta_decoder": ("roberta", _BERT),
    "xlm_roberta_decoder": ("xlm-roberta", _BERT),
    "camembert_decoder": ("camembert", _BERT),
    "electra_decoder": ("electra", {**_BERT, "embedding_size": 32}),
    "megatron_bert_decoder": ("megatron-bert", _BERT),
    "bert_generation_decoder": ("bert-generation", _BERT),
    "roformer_decoder": ("roformer", _BERT),
    "rembert_decoder": (
        "rembert",
        {**_BERT, "input_embedding_size": 32, "output_embedding_size": 32},
    ),
    "xlm": (
        "xlm",
        {
            "emb_dim": 32,
            "n_layers": 4,
            "n_heads": 4,
            "causal": True,
            "max_position_embeddings": 256,
        },
    ),
    "pegasus": ("pegasus", _BART),
    "mvp": ("mvp", _BART),
    "plbart": ("plbart", _BART),
    "blenderbot": ("blenderbot", _BART),
    "marian": ("marian", _BART),
    "whisper": ("whisper", {**_BART, "max_target_positions": 256}),
    "prophetnet": (
        "prophetnet",
        {
            "hidden_size": 32,
            "num_decoder_layers": 4,
            "num_decoder_attention_heads": 4,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 256,
            "is_decoder": True,
            "is_encoder_decoder": False,
        },
    ),
}
ARCHITECTURES |= {
    name: (name, _LLAMA)
    for name in (
        "apertus arcee bitnet cwm diffllama doge ernie4_5 exaone4 glm glm4 gpt_neox_japanese "
        "granite_swa helium hunyuan_v1_dense hyperclovax internlm3 iquestcoder jais2 lfm3 "
        "ministral ministral3 nanochat nemotron olmo olmo3 olmo_hybrid persimmon seed_oss smollm3 "
        "vaultgemma"
    ).split()
}
ARCHITECTURES |= {
    name: (name, ROUTED)
    for name in (
        "afmoe aria_text cohere2_moe ernie4_5_moe exaone_moe flex_olmo glm4_moe gpt_oss granitemoe "
        "granitemoe_swa granitemoeshared hunyuan_v1_moe hy_v3 jetmoe laguna llama4_text mellum "
        "mimo_v2_flash minimax minimax_m2 olmoe phimoe qwen3_moe solar_open"
    ).split()
}
"""Architectures, with their Hugging Face model type and the settings of a small model."""


def build(name: str, seed: int = 0, **config: object) -> LanguageModel:
    """Return a random float32 model of ``ARCHITECTURES``; ``config`` overrides its settings."""
    tokenizer = tiny_tokenizer()
    return LanguageModel(
        bare(name, seed, vocab_size=len(tokenizer), **config),
        tokenizer,
        name=f"tiny-{name}",
        precision="float32",
    )


def bare(name: str, seed: int = 0, **config: object) -> PreTrainedModel:
    """Return the model of ``build`` without its tokenizer."""
    kind, settings = ARCHITECTURES[name]
    tokenizer = tiny_tokenizer()
    ends = {
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": None,
    }
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **{**ends, **settings, **config})
        )
        with torch.no_grad():
            for path, parameter in model.named_parameters():
                # Peaked distributions, in which a wrong state shows; what a state-space layer
                # decays by keeps its initial values.
                if parameter.dim() > 1 and not any(
                    part in path for part in ("A_log", "conv1d", "time_", "rg_lru")
                ):
                    embeds = "emb" in path or "wte" in path or "wpe" in path
                    parameter.normal_(std=0.5 if embeds else 0.25)
    return model.eval()
