"""``benchmarks/mixing_speed.py`` copies the reference's schedule faithfully."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import torch

from editbench.retrieval import guidance
from editbench.testing import FACTS, tiny_model
from editbench.types import digest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "mixing_speed.py"


def test_a_text_begun_anew_reads_nothing_of_the_last_one():
    """Each token is the argmax of the coin's branch in one forward pass without a cache."""
    spec = importlib.util.spec_from_file_location("mixing_speed", BENCHMARK)
    speed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speed)
    model = tiny_model("llama")
    done, *_ = speed.reference(model, FACTS, 0.5, 3)
    assert len(done) == len(FACTS) and all(slot.attempt == 3 for slot in done)
    for slot in done:
        coins = random.Random(digest([0, slot.fact.id, 2]))
        for t, token in enumerate(slot.ids):
            context = None if coins.random() < 0.5 else guidance(slot.fact)
            coins.random()
            prompt = model.prompt_ids(slot.fact.prompt, slot.fact.form, context=context)
            with torch.no_grad():
                logits_V = model.model(
                    input_ids=torch.tensor([prompt + slot.ids[:t]]), use_cache=False
                ).logits[0, -1]
            assert token == int(logits_V.argmax())
