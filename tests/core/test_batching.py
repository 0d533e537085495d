"""Batches that do not fit into memory are computed again in halves, with equal results."""

from __future__ import annotations

import pytest
import torch

from editbench import progress
from editbench.batching import BatchSizes
from editbench.beginnings import Beginnings
from editbench.errors import ModelError, OptionError
from editbench.eval import retention
from editbench.models import LanguageModel, load_model
from editbench.testing import tiny_model

PROMPTS = [[5 + i, 6, 7 + i % 3] for i in range(11)]


@pytest.fixture
def scarce(monkeypatch):
    """Return a function that lets no pass have more than so many rows."""
    sizes = []

    def limit(most):
        # Rows that are read each for itself, and rows that share their beginnings.
        for owner, name in ((LanguageModel, "hidden"), (Beginnings, "read")):
            monkeypatch.setattr(owner, name, shortened(getattr(owner, name), most))
        return sizes

    def shortened(read, most):
        def short(self, rows, *arguments):
            sizes.append(len(rows))
            if len(rows) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return read(self, rows, *arguments)

        return short

    return limit


def written(model, **settings):
    generator = torch.Generator().manual_seed(3) if settings.pop("drawn", False) else None
    return model.generate_ids(PROMPTS, 6, generator=generator, stop=False, **settings)


def test_scores_and_texts_are_those_of_one_batch(scarce):
    """Also texts that are drawn, whose random numbers are shared by the batch."""
    pairs = [(prompt, [8, 9]) for prompt in PROMPTS]
    model = tiny_model("llama")
    want = model.target_scores(pairs), written(model), written(model, drawn=True)
    sizes = scarce(3)
    with pytest.warns(UserWarning) as said:
        have = model.target_scores(pairs), written(model), written(model, drawn=True)
    assert have[1:] == want[1:] and max(sizes) == 11
    for one, other in zip(have[0], want[0], strict=True):
        torch.testing.assert_close(one[0], other[0], rtol=1e-4, atol=1e-4)
        assert one[1] == other[1]
    assert "11 texts to score at once do not fit into memory" in str(said[0].message)
    # what did not fit is not tried again
    sizes.clear()
    model.target_scores(pairs)
    written(model)
    assert max(sizes) == 2


def test_what_is_said_reaches_the_reporter(scarce):
    said = []

    class Reporter:
        def task(self, *_):
            raise AssertionError("no step is named here")

        def say(self, sentence):
            said.append(sentence)

    model = tiny_model("llama")
    scarce(6)
    with progress.reporting(Reporter()):
        written(model)
        written(model)
    assert len(said) == 1 and "goes on with 5" in said[0]


def test_memory_for_no_text_at_all_is_an_error(scarce):
    model = tiny_model("llama")
    model.check_head()
    scarce(0)
    with pytest.warns(progress.Notice), pytest.raises(ModelError, match="no memory to continue a"):
        written(model)
    with pytest.raises(ModelError, match="no memory to score a text of 4 tokens"):
        model.target_scores([(PROMPTS[0], [8])])


def test_another_error_goes_on(monkeypatch):
    model = tiny_model("llama")
    model.check_head()

    def broken(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(LanguageModel, "hidden", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        written(model)


def test_the_size_is_the_users(scarce):
    model = tiny_model("llama")
    want = written(model)
    mine = load_model(model.model, model.tokenizer, precision="float32", batch_size=4)
    mine.check_head()
    sizes = scarce(100)
    assert written(mine) == want and max(sizes) == 4
    for wrong in (0, -3):
        with pytest.raises(OptionError, match="at least 1"):
            BatchSizes(wrong)


@pytest.mark.parametrize("task", ["eb_grammar", "eb_arithmetic"])
def test_retention_goes_on(task, monkeypatch):
    model = tiny_model("llama")
    want = retention.evaluate(model.model, model.tokenizer, [task], limit=9)
    forward, sizes = type(model.model).forward, []

    def short(self, input_ids=None, **named):
        sizes.append(len(input_ids))
        if len(input_ids) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, input_ids=input_ids, **named)

    monkeypatch.setattr(type(model.model), "forward", short)
    steps = []
    with pytest.warns(UserWarning, match="retention requests at once"):
        have = retention.evaluate(
            model.model,
            model.tokenizer,
            [task],
            limit=9,
            batches=model.batches,
            progress=lambda _, done, total: steps.append((done, total)),
        )
    assert have[task] == want[task]
    assert [done for done, _ in steps] == list(range(1, steps[-1][1] + 1)) and max(sizes) > 4
