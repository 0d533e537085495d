"""Factors of written values: facts stay said, at the least norm that this takes."""

from __future__ import annotations

import pytest
import torch

from editbench.changes import dense
from editbench.errors import OptionError
from editbench.methods._edit.refine import Written, goes_on
from editbench.methods._edit.shrink import DOWN, ROUNDS, STEP, UP, least_factors
from editbench.methods._edit.shrink import losses as _losses
from editbench.methods.alphaedit import AlphaEdit
from editbench.methods.emmet import Emmet
from editbench.methods.memit import Memit
from editbench.methods.pmet import Pmet
from editbench.testing import FACTS, tiny_options, unchanged


def made(method, model, facts=FACTS, **options):
    chosen = {**tiny_options(method), "layers": (1,) if method is Emmet else (0, 1), **options}
    return method(**chosen).inject(model, facts)


def losses(model, edit):
    """Return each fact's nats a token at its bare prompt."""
    with edit.applied(model, check=False):
        pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in edit.facts]
        return torch.stack([-logp_T.mean() for logp_T in model.target_logprobs(pairs)])


def columns(model, edit):
    """Return the factors of each weight: values (d, N), then directions (N, f)."""
    for first, second in edit.changes.values():
        yield (second.T, first.T) if model.layout.transposed else (first, second)


def size(edit):
    return sum(dense(change).double().square().sum() for change in edit.changes.values())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("method", [Memit, AlphaEdit, Emmet, Pmet])
def test_facts_stay_below_the_bar_at_a_smaller_norm(method, family, reader):
    """The bar is one that the plain edit is well below, since a tiny model learns little."""
    model = reader(family)
    plain = made(method, model)
    bar = losses(model, plain).max().item() + 3
    with unchanged(model, "inject"):
        shrunk = made(method, model, shrink=bar)
    assert size(shrunk) < 0.95 * size(plain)
    assert (losses(model, shrunk) <= bar).all()
    said = shrunk.diagnostics["shrunk"]
    assert said["never_said"] == 0 and said["least"] <= said["mean"] < 1
    assert "shrink" in shrunk.diagnostics["seconds_by_phase"]
    # one factor for each fact, the same in every layer, along the same directions
    factors = []
    for (values, kept), (smaller, same) in zip(
        columns(model, plain), columns(model, shrunk), strict=True
    ):
        assert torch.equal(kept, same)
        factors.append(smaller.norm(dim=0) / values.norm(dim=0))
        assert torch.allclose(smaller, values * factors[-1])
    assert all(torch.allclose(each, factors[0]) for each in factors)


def test_a_fact_that_is_never_said_keeps_its_value(reader):
    model = reader("llama")
    plain, shrunk = (made(Memit, model, shrink=bar) for bar in (0.0, 1e-4))
    assert "shrunk" not in plain.diagnostics
    assert shrunk.diagnostics["shrunk"] == {
        "mean": 1.0,
        "least": 1.0,
        "largest": 1.0,
        "never_said": len(FACTS),
        "rounds": UP + 1,
    }
    assert all(
        torch.equal(dense(one), dense(shrunk.changes[name])) for name, one in plain.changes.items()
    )


def test_each_fact_gets_its_own_least_factor():
    """Facts that need 0.7, 1.1 and 2 times their values."""
    needed_N = torch.tensor([0.7, 1.1, 2.0])
    factors_N, figures = least_factors(lambda s_N: s_N >= needed_N, 3)
    assert factors_N.tolist() == pytest.approx([STEP**2, STEP**-1, 1.0])
    assert figures["never_said"] == 1


def test_facts_that_need_each_other_are_stepped_back():
    """Each is said while the mean of all factors is above 0.8: none ends where it is not said."""
    factors_N, figures = least_factors(lambda s_N: (s_N.mean() >= 0.8).expand(3), 3)
    assert 0.8 <= factors_N.mean() < 1 and figures["rounds"] < ROUNDS


def test_no_fact_goes_further_than_the_last_step():
    factors_N, _ = least_factors(lambda s_N: torch.ones(3, dtype=torch.bool), 3)
    assert factors_N.tolist() == pytest.approx([STEP**DOWN] * 3)


def test_facts_of_a_sequence_are_shrunk_beside_those_before_them(reader):
    """Also alone, one edit for each fact; the last fact is a question."""
    model = reader("llama")
    first = made(Memit, model, FACTS[:2], shrink=20.0)
    with first.applied(model), unchanged(model, "inject"):
        second = made(Memit, model, FACTS[2:], shrink=20.0)
    assert second.diagnostics["shrunk"]["mean"] < 1
    with first.applied(model):
        assert (losses(model, second) <= 20).all()
    editor = Memit(**tiny_options(Memit), layers=(0, 1), shrink=20.0)
    for edit in editor.inject_each(model, FACTS[2:]):
        assert edit.diagnostics["shrunk"]["largest"] < 1


def test_shrunk_values_can_be_refined_and_the_paper_has_factor_1(reader, monkeypatch):
    monkeypatch.setattr("editbench.methods._edit.refine.MIN_STEPS", 2)
    monkeypatch.setattr("editbench.methods.memit.TEXT_TOKENS", 200)
    model = reader("llama")
    edit = made(Memit, model, shrink=20.0, refine=1)
    assert edit.diagnostics["shrunk"]["mean"] < 1 and "refined" in edit.diagnostics
    assert all(
        each.from_options(each.name, {"recipe": "paper"}).shrink == 0
        for each in (Memit, AlphaEdit, Pmet)
    )


def test_what_shrink_cannot_be_is_refused():
    with pytest.raises(OptionError, match="shrink must be at least 0"):
        Memit.from_options("memit", {"shrink": -1})
    with pytest.raises(OptionError, match="shrink changes the norms that norm_anchor sets"):
        Memit.from_options("memit", {"shrink": 0.5, "norm_anchor": True})


def test_the_loss_is_that_of_the_scaled_edit(reader):
    """Asked beside the model, without writing, as the edit with these factors answers."""
    model = reader("llama")
    editor = Memit(**tiny_options(Memit), layers=(0, 1))
    bench = editor.bench(model, FACTS, {})
    edit = editor.write(bench)
    written = {
        layer: Written(values.double(), directions.T.double())
        for layer, (values, directions) in zip((0, 1), columns(model, edit), strict=True)
    }
    factors_N = torch.tensor([0.5, 1.0, 1.2, 0.8]).double()
    loss_N = _losses(model, bench.prepared, written, factors_N, goes_on(model))
    none_goes_on = torch.zeros(model.model.config.vocab_size, dtype=torch.bool)
    nll_N = _losses(model, bench.prepared, written, factors_N, none_goes_on)
    assert (nll_N <= loss_N).all()
    scaled = {name: (change[0] * factors_N, change[1]) for name, change in edit.changes.items()}
    with editor.edit(model, FACTS, scaled).applied(model, check=False):
        for each, nll in zip(bench.prepared, nll_N, strict=True):
            prompt = each.prompts[0]
            (logp_T,) = model.target_logprobs([(prompt.ids, prompt.target_ids)])
            assert -logp_T.mean().item() == pytest.approx(nll.item(), rel=1e-3)
