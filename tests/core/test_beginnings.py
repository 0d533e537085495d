"""Texts that share beginnings give what texts that are read whole give."""

from __future__ import annotations

import random

import pytest

from editbench.testing import FAMILIES, tiny_model

WHOLE = {"gemma2", "gptj"}
"""Families whose attention is not known: they read every text whole."""


def texts(model):
    draw = random.Random(0)

    def ids(least, most):
        size = model.model.config.vocab_size
        return [draw.randrange(3, size) for _ in range(draw.randrange(least, most))]

    openings = [ids(3, 9) for _ in range(3)]
    pairs = [(draw.choice(openings) + ids(1, 5), ids(1, 5)) for _ in range(60)]
    return [*pairs, *pairs[:5]]


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_beginnings_change_nothing(family, monkeypatch):
    model, plain = tiny_model(family), tiny_model(family)
    plain.__dict__["_can_share"] = False
    # so few tokens that beginnings are carried from one pass to the next
    monkeypatch.setattr("editbench.beginnings.TOKENS", {"cpu": 40})
    assert model.shares(40) == (family not in WHOLE)
    pairs = texts(model)
    for (logp, best), (want, best_want) in zip(
        model.target_scores(pairs), plain.target_scores(pairs), strict=True
    ):
        # relative, as log-probabilities of these peaked models reach -20
        assert (logp - want).abs().max() <= 1e-5 * max(1, want.abs().max())
        assert best == best_want
    prompts = [prompt for prompt, _ in pairs]
    assert model.generate_ids(prompts, 6) == plain.generate_ids(prompts, 6)


def test_a_window_that_texts_exceed_is_not_shared():
    model = tiny_model("gemma3", sliding_window=8)
    plain = tiny_model("gemma3", sliding_window=8)
    plain.__dict__["_can_share"] = False
    assert model.shares(8)
    assert not model.shares(9)
    prompts = [prompt for prompt, _ in texts(model)]
    assert model.generate_ids(prompts, 6) == plain.generate_ids(prompts, 6)


def test_a_text_ends_where_it_says_a_stop():
    model = tiny_model()
    prompts = [prompt for prompt, _ in texts(model)]
    whole = model.generate_ids(prompts, 12, stop=False)
    stop = model.decode(whole[0][3:5])
    ended = model.generate_ids(prompts, 12, stop=False, stops=[stop])
    for ids, all_ids in zip(ended, whole, strict=True):
        assert ids == all_ids[: len(ids)]
        assert stop not in model.decode(ids[:-1])
        assert len(ids) == 12 or stop in model.decode(ids)
