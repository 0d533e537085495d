"""lm-eval's command line and ``retention.evaluate`` give the same numbers, sample by sample."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from editbench.testing import tiny_model

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "lm_eval_parity.py"


@pytest.fixture(scope="module")
def parity():
    spec = importlib.util.spec_from_file_location("lm_eval_parity", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(task, i):
    word = "red blue green black white brown".split()[i]
    if task == "hellaswag":
        endings = [f"he paints it {word}.", "he eats a tree.", f"{word} sings loudly.", "the end."]
        return {
            "query": f"Painting: A man has a {word} door. he",
            "endings": endings,
            "label": i % 4,
        }
    if task == "gsm8k":
        return {
            "question": f"Tom has {i} {word} pens and buys {i} more. How many?",
            "answer": f"So {i}.\n#### {2 * i}",
        }
    return {"text": f"The door was {word} and the wall was {word}"}


@pytest.mark.slow
def test_lm_evals_own_command_gives_the_same_samples(parity, tmp_path):
    files = {}
    for task, (file, _) in parity.TASKS.items():
        files[task] = file and tmp_path / f"{task}.jsonl"
        if file:
            files[task].write_text("\n".join(json.dumps(rows(task, i)) for i in range(6)))
    found = parity.compare(
        tiny_model("llama", chat=True, num_hidden_layers=2), files, dict.fromkeys(files, 4)
    )
    assert list(found) == ["hellaswag", "lambada_openai", "gsm8k", "eb_arithmetic", "eb_instruct"]
    for task, row in found.items():
        counts = {
            row[key] for key in ("n", "same document", "same prompt", "same answer", "same score")
        }
        assert counts == {4}, (task, row)
        assert row["ours"] == row["lm_eval"]
