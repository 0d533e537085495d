"""Factors of written values: facts stay said, at the least norm that this takes."""

from __future__ import annotations

import pytest
import torch

from editbench.changes import dense
from editbench.errors import OptionError
from editbench.methods._edit.refine import Written
from editbench.methods._edit.shrink import FACTORS, least_factors, probabilities
from editbench.methods.alphaedit import AlphaEdit
from editbench.methods.emmet import Emmet
from editbench.methods.memit import Memit
from editbench.methods.pmet import Pmet
from editbench.testing import FACTS, tiny_options, unchanged


def made(method, model, facts=FACTS, **options):
    chosen = {**tiny_options(method), "layers": (1,) if method is Emmet else (0, 1), **options}
    return method(**chosen).inject(model, facts)


def least_token(model, edit):
    """Return the probability of each fact's least probable token at its bare prompt."""
    with edit.applied(model, check=False):
        pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in edit.facts]
        return torch.stack([logp_T.min().exp() for logp_T in model.target_logprobs(pairs)])


def floor_of(model, plain):
    """Return a probability that ``plain`` is well above, since a tiny model learns little."""
    return least_token(model, plain).min().item() / 100


def columns(model, edit):
    """Yield the factors of each changed weight: values (d, N), and directions (f, N)."""
    for first, second in edit.changes.values():
        yield (second.T, first) if model.layout.transposed else (first, second.T)


def size(edit):
    return sum(dense(change).double().square().sum() for change in edit.changes.values())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("method", [Memit, AlphaEdit, Emmet, Pmet])
def test_facts_stay_above_the_floor_at_a_smaller_norm(method, family, reader):
    model = reader(family)
    plain = made(method, model)
    floor = floor_of(model, plain)
    with unchanged(model, "inject"):
        shrunk = made(method, model, shrink=floor)
    assert size(shrunk) < 0.95 * size(plain)
    assert (least_token(model, shrunk) >= floor).all()
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
    plain, shrunk = (made(Memit, model, shrink=floor) for floor in (0.0, 0.999))
    assert "shrunk" not in plain.diagnostics
    assert shrunk.diagnostics["shrunk"] == {
        "mean": 1.0,
        "least": 1.0,
        "largest": 1.0,
        "never_said": len(FACTS),
        "rounds": len(FACTORS),
    }
    assert all(
        torch.equal(dense(one), dense(shrunk.changes[name])) for name, one in plain.changes.items()
    )


def test_each_fact_gets_its_own_least_factor():
    """Facts that need 0.7, 1.1 and 2 times their values."""
    needed_N = torch.tensor([0.7, 1.1, 2.0])
    factors_N, figures = least_factors(lambda s_N: s_N >= needed_N, 3)
    assert factors_N.tolist() == [FACTORS[4], FACTORS[9], 1.0]
    assert FACTORS[3] < 0.7 <= FACTORS[4] and FACTORS[8] < 1.1 <= FACTORS[9] < 2
    assert figures["never_said"] == 1


def test_facts_that_disturb_each_other_rise_together():
    """The first fact needs more for what the second has, which needs 0.9: both end where said."""

    def said(s_N):
        return torch.stack([s_N[0] - 0.3 * s_N[1] >= 0.4, s_N[1] >= 0.9])

    factors_N, figures = least_factors(said, 2)
    assert said(factors_N).all() and figures["never_said"] == 0
    first = FACTORS.index(factors_N[0].item())
    assert not said(torch.tensor([FACTORS[first - 1], factors_N[1].item()]))[0]


def test_facts_that_are_said_at_once_get_the_least_factor():
    factors_N, figures = least_factors(lambda s_N: torch.ones(3, dtype=torch.bool), 3)
    assert factors_N.tolist() == [FACTORS[0]] * 3 and figures["rounds"] == 1


def test_facts_of_a_sequence_are_shrunk_beside_those_before_them(reader):
    """Also alone, one edit for each fact; the last fact is a question."""
    model = reader("llama")
    first = made(Memit, model, FACTS[:2], shrink=1e-9)
    with first.applied(model), unchanged(model, "inject"):
        second = made(Memit, model, FACTS[2:], shrink=1e-9)
    assert second.diagnostics["shrunk"]["mean"] < 1
    with first.applied(model):
        assert (least_token(model, second) >= 1e-9).all()
    editor = Memit(**tiny_options(Memit), layers=(0, 1), shrink=1e-9)
    for edit in editor.inject_each(model, FACTS[2:]):
        assert edit.diagnostics["shrunk"]["largest"] < 1


def test_shrunk_values_can_be_refined_and_the_paper_has_factor_1(reader, monkeypatch):
    monkeypatch.setattr("editbench.methods._edit.refine.MIN_STEPS", 2)
    monkeypatch.setattr("editbench.methods.memit.TEXT_TOKENS", 200)
    model = reader("llama")
    edit = made(Memit, model, shrink=1e-9, refine=1)
    assert edit.diagnostics["shrunk"]["mean"] < 1 and "refined" in edit.diagnostics
    assert all(
        each.from_options(each.name, {"recipe": "paper"}).shrink == 0
        for each in (Memit, AlphaEdit, Pmet)
    )


def test_what_shrink_cannot_be_is_refused():
    with pytest.raises(OptionError, match="shrink is a probability: at least 0 and below 1"):
        Memit.from_options("memit", {"shrink": 1.0})
    with pytest.raises(OptionError, match="shrink changes the norms that norm_anchor sets"):
        Memit.from_options("memit", {"shrink": 0.5, "norm_anchor": True})


def test_facts_are_asked_as_the_scaled_edit_answers(reader):
    """Beside the model, without writing."""
    model = reader("llama")
    editor = Memit(**tiny_options(Memit), layers=(0, 1))
    bench = editor.bench(model, FACTS, {})
    edit = editor.write(bench)
    written = {
        layer: Written(values.double(), directions.double())
        for layer, (values, directions) in zip((0, 1), columns(model, edit), strict=True)
    }
    factors_N = torch.tensor([0.5, 1.0, 1.2, 0.8]).double()
    none_goes_on = torch.zeros(model.model.config.vocab_size, dtype=torch.bool)
    tokens_N, with_ends_N = (
        probabilities(model, bench.prepared, written, factors_N, goes_on_V)
        for goes_on_V in (none_goes_on, ~none_goes_on.index_fill(0, torch.tensor([5]), True))
    )
    # with nearly every token going on, the end is what is least probable
    assert (with_ends_N < tokens_N).any() and (with_ends_N <= tokens_N).all()
    scaled = {name: (values * factors_N, kept) for name, (values, kept) in edit.changes.items()}
    with editor.edit(model, FACTS, scaled).applied(model, check=False):
        prompts = [each.prompts[0] for each in bench.prepared]
        pairs = [(prompt.ids, prompt.target_ids) for prompt in prompts]
        answered = [logp_T.min().exp().item() for logp_T in model.target_logprobs(pairs)]
    assert tokens_N.tolist() == pytest.approx(answered, rel=1e-3)
