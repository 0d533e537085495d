"""Small random mixtures of experts that have dense MLPs: whole ones, or shared experts."""

from __future__ import annotations

import torch
from hostile.architectures import LATENT, ROUTED
from transformers import AutoConfig, AutoModelForCausalLM

from editbench.checkpoints import quiet_transformers
from editbench.models import LanguageModel
from editbench.testing import tiny_tokenizer

_DENSE, _SHARED = "mlp.down_proj", "mlp.shared_experts.down_proj"

MIXTURES: dict[str, tuple[str, dict[str, object], list[str | None]]] = {
    "deepseek_v3": (
        "deepseek_v3",
        {**LATENT, "n_shared_experts": 1, "first_k_dense_replace": 1},
        [_DENSE, _SHARED, _SHARED, _SHARED],
    ),
    "glm4_moe": ("glm4_moe", {}, [_DENSE, _SHARED, _SHARED, _SHARED]),
    "ernie4_5_moe": ("ernie4_5_moe", {}, [_DENSE, _SHARED, _SHARED, _SHARED]),
    "qwen2_moe": (
        "qwen2_moe",
        {"shared_expert_intermediate_size": 24},
        ["mlp.shared_expert.down_proj"] * 4,
    ),
    "qwen3_moe": ("qwen3_moe", {"mlp_only_layers": [1, 3]}, [None, _DENSE, None, _DENSE]),
    "granitemoeshared": (
        "granitemoeshared",
        {"shared_intermediate_size": 40, "residual_multiplier": 0.5},
        ["shared_mlp.output_linear"] * 4,
    ),
    "llama4": (
        "llama4_text",
        {"intermediate_size_mlp": 40, "moe_layers": [0, 2]},
        ["feed_forward.shared_expert.down_proj", "feed_forward.down_proj"] * 2,
    ),
}
"""Model type, settings, and the matrix that can be written in each layer."""


def mixture(name: str) -> LanguageModel:
    """Return a random float32 model of ``MIXTURES``."""
    kind, settings, _ = MIXTURES[name]
    tokenizer = tiny_tokenizer()
    config = AutoConfig.for_model(
        kind,
        **{**ROUTED, **settings},
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=1,
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.25)
    return LanguageModel(model.eval(), tokenizer, name=f"tiny-{name}", precision="float32")
