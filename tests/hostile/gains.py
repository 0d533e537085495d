"""Models whose layers weigh their own outputs differently."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from editbench.models import LanguageModel
from editbench.testing import FAMILIES, tiny_tokenizer


def tiny_granite(*gains: float) -> LanguageModel:
    """Return a random Granite of four layers with these residual multipliers, one a layer."""
    tokenizer = tiny_tokenizer()
    settings = {name: value for name, value in FAMILIES["llama"][1].items() if name != "head_dim"}
    config = AutoConfig.for_model("granite", **settings, vocab_size=len(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.25)
    for layer, gain in zip(model.model.layers, gains, strict=True):
        layer.residual_multiplier = gain
    return LanguageModel(model, tokenizer, name="tiny-granite", precision="float32")
