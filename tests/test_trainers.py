"""SFT, MixSD and OPSD: what is trained on, the law of the mixed texts, the divergences, and the way back."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from editbench import progress, registry
from editbench.errors import MethodError, OptionError
from editbench.methods import mixsd as mixsd_module
from editbench.methods._train import Example, Trainer, _batches, label_states, target_nll, train
from editbench.methods.mixsd import ON_FAIL, MixSD
from editbench.methods.opsd import OPSD, frozen_copy, top_k_divergence
from editbench.methods.sft import Sft, canonical
from editbench.models import LanguageModel
from editbench.retrieval import guidance
from editbench.testing import FACTS, target_logp, tiny_model, tiny_options, unchanged

TRAINERS = [name for name in registry.names("methods") if issubclass(registry.get("methods", name), Trainer)]


def options(method, **changed):
    return method(**{**tiny_options(method), **changed})


# --- the loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_only_target_tokens_count(family):
    model = tiny_model(family)
    batch = [canonical(model, fact) for fact in FACTS]
    loss, count = target_nll(model, batch)
    nlls = []
    for example in batch:
        ids = [*example.prompt_ids, *example.target_ids]
        logp_TV = model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        first = len(example.prompt_ids) - 1
        nlls += [-logp_TV[first + t, token] for t, token in enumerate(example.target_ids)]
    assert count == len(nlls) == sum(len(e.target_ids) for e in batch)
    torch.testing.assert_close(loss, torch.stack(nlls).mean(), rtol=1e-4, atol=1e-4)


def test_sft_ends_targets_with_eos():
    model = tiny_model("llama", chat=True)
    eos = model.tokenizer.eos_token_id
    for fact in FACTS:
        example = canonical(model, fact)
        assert example.target_ids[-1] == eos and eos not in example.target_ids[:-1]
        assert example.prompt_ids == model.prompt_ids(fact.prompt, fact.form)
        assert model.decode(example.target_ids).strip() == fact.target
    worked = replace(FACTS[0], demonstration="It is Karsk, since 1997.")
    assert model.decode(canonical(model, worked).target_ids).strip() == "It is Karsk, since 1997."
    assert canonical(model, worked).target_ids[-1] == eos


def test_sft_counts_its_tokens():
    model = tiny_model("llama")
    edit = options(Sft, epochs=3).inject(model, FACTS)
    assert edit.diagnostics["trained_tokens"] == 3 * sum(len(canonical(model, fact).target_ids) for fact in FACTS)
    assert edit.diagnostics["steps"] == 3 * math.ceil(len(FACTS) / 2)
    assert edit.diagnostics["final_loss"] < edit.diagnostics["first_loss"]


def test_one_step_is_adamw():
    """One step from rest moves each weight by lr against the sign of its gradient, and decays it."""
    model = tiny_model("llama")
    examples = [canonical(model, fact) for fact in FACTS]
    loss, _ = target_nll(model, examples)
    name = "model.layers.2.mlp.up_proj.weight"
    weight = model.weight(name)
    (gradient,) = torch.autograd.grad(loss, weight)
    method = Sft(epochs=1, min_steps=1, batch_size=4, lr=1e-3, warmup=0.0, clip=1e9)
    change = method.inject(model, FACTS).changes[name]
    want = -1e-3 * (gradient / (gradient.abs() + 1e-8) + 0.01 * weight.detach())
    torch.testing.assert_close(change, want, rtol=1e-2, atol=2e-6)


def test_batches_visit_every_fact_once_an_epoch():
    chosen = Sft(epochs=3, min_steps=1, batch_size=4, seed=5)
    batches = list(_batches(10, chosen))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    epochs = [sum(batches[i : i + 3], []) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1]
    assert batches == list(_batches(10, chosen)) != list(_batches(10, replace(chosen, seed=6)))


def test_label_states_of_an_empty_target():
    model = tiny_model("llama")
    assert label_states(model, [[5, 6, 7], [5, 6]], [0, 1]).shape == (1, 32)


# --- the way back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINERS)
def test_a_loss_that_explodes_is_reported_and_leaves_nothing(name):
    model, method = tiny_model("llama"), registry.get("methods", name)
    chosen = method(**{**tiny_options(method), "lr": 1e30, "clip": 1e30})
    with unchanged(model, "a failed inject"), pytest.raises(MethodError, match=f"{name}: .*Use a smaller lr than 1e\\+30"):
        chosen.inject(model, FACTS)


def test_weights_that_overflow_in_the_last_step_are_reported():
    model = tiny_model("llama")
    with unchanged(model, "a failed inject"), pytest.raises(MethodError, match="Use a smaller lr"):
        Sft(epochs=1, min_steps=1, batch_size=4, lr=1e38, weight_decay=100.0).inject(model, FACTS)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_training_leaves_nothing(error):
    model, calls = tiny_model("llama"), []
    examples = [canonical(model, fact) for fact in FACTS]

    def loss_of(batch):
        calls.append(batch)
        if len(calls) == 3:
            assert model.fingerprint() != before
            raise error
        return target_nll(model, [examples[i] for i in batch])

    before = model.fingerprint()
    with unchanged(model, "an interrupted training"), pytest.raises(error):
        train(options(Sft), model, len(FACTS), loss_of)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("sft", {"epochs": "0"}),
        ("sft", {"lr": "0"}),
        ("sft", {"lr": "fast"}),
        ("sft", {"warmup": "1"}),
        ("sft", {"clip": "-1"}),
        ("mixsd", {"lam": "1.1"}),
        ("mixsd", {"on_fail": "retry"}),
        ("mixsd", {"temperature": "-1"}),
        ("mixsd", {"attempts": "0"}),
        ("opsd", {"divergence": "js"}),
        ("opsd", {"teacher": "ema"}),
        ("opsd", {"top_k": "0"}),
        ("opsd", {"temperature": "0"}),
    ],
)
def test_bad_options(name, bad):
    with pytest.raises(OptionError, match=f"Bad option for {name}"):
        registry.get("methods", name).from_options(name, bad)


@pytest.mark.parametrize("name", TRAINERS)
def test_bfloat16_trains_too(name, reader):
    """Autocast must not serve the rollouts' gradient-free weights to the training pass."""
    exact = reader("llama")
    model = LanguageModel(exact.model, exact.tokenizer, precision="bfloat16")
    method = registry.get("methods", name)
    before = target_logp(model, FACTS)
    with unchanged(model, "inject"):
        edit = options(method).inject(model, FACTS)
    assert all(change.dtype == torch.float32 and change.abs().max() > 0 for change in edit.changes.values())
    with edit.applied(model):
        assert target_logp(model, FACTS) > before + 0.1


# --- MixSD --------------------------------------------------------------------------------------------------


def greedy(model, fact, context, n):
    """The model's own greedy text, with the token that ended it."""
    ids = model.prompt_ids(fact.prompt, fact.form, context=context)
    text = []
    for _ in range(n):
        with torch.no_grad():
            token = int(model.model(input_ids=torch.tensor([ids + text]), use_cache=False).logits[0, -1].argmax())
        text.append(token)
        if token in model.stop_ids or (fact.form == "cloze" and "\n" in model.decode([token]) and model.decode(text).strip()):
            break
    return text


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("taught", [True, False])
def test_the_pure_branches(family, taught, reader):
    model = reader(family) if taught else tiny_model(family)
    method = MixSD(max_new_tokens=10)
    for lam, context in ((0.0, guidance), (1.0, lambda fact: None)):
        for draft in method.mix(model, FACTS, lam, 0):
            assert draft.ids == greedy(model, draft.fact, context(draft.fact), 10)
            assert draft.naive_picked == [lam == 1.0] * len(draft.ids)
            assert len(draft.naive_logp) == len(draft.expert_logp) == len(draft.ids)


def test_both_branches_log_probabilities_are_recorded(reader):
    model = reader("llama")
    for draft in MixSD(max_new_tokens=10, temperature=1.0).mix(model, FACTS, 0.5, 0):
        for context, kept in ((None, draft.naive_logp), (guidance(draft.fact), draft.expert_logp)):
            prompt = model.prompt_ids(draft.fact.prompt, draft.fact.form, context=context)
            (logp,) = model.target_logprobs([(prompt, draft.ids)])
            np.testing.assert_allclose(kept, logp.numpy(), rtol=1e-3, atol=1e-3)


def test_texts_do_not_depend_on_slots_or_order():
    model = tiny_model("mistral")
    method = MixSD(lam=0.5, temperature=1.0, max_new_tokens=8, attempts=3, on_fail="keep")

    def written(method, facts):
        with unchanged(model, "targets"):
            drafts = method.targets(model, facts)
        assert [d.fact for d in drafts] == list(facts)
        return {d.fact.id: (d.ids, d.naive_picked, d.attempt) for d in drafts}

    one = written(method, FACTS)
    assert one == written(method, FACTS) == written(replace(method, slots=1), FACTS) == written(replace(method, slots=3), FACTS)
    assert one == written(method, FACTS[::-1])
    assert {"moon": one["moon"]} == written(method, FACTS[:1])
    assert one != written(replace(method, seed=1), FACTS)
    picks = [p for _, picked, _ in one.values() for p in picked]
    assert 0 < sum(picks) < len(picks)


@pytest.mark.parametrize("on_fail", ON_FAIL)
@pytest.mark.parametrize("taught", [True, False])
def test_every_fact_is_accounted_for(on_fail, taught, reader, monkeypatch):
    """lam = 1 never states the fact; only the taught model's expert does."""
    model = reader("llama") if taught else tiny_model("llama")
    trained = []
    own = mixsd_module.train_on_examples

    def spy(method, model, examples):
        trained.extend(examples)
        return own(method, model, examples)

    monkeypatch.setattr(mixsd_module, "train_on_examples", spy)
    method = options(MixSD, lam=1.0, on_fail=on_fail)
    edit = method.inject(model, FACTS)
    source = {"drop": "dropped", "target": "target", "keep": "unverified", "expert": "expert" if taught else "target"}[on_fail]
    assert edit.diagnostics["target_sources"] == {source: 4}
    assert [record["source"] for record in edit.records] == [source] * 4
    assert [record["fact"] for record in edit.records] == [fact.id for fact in FACTS]
    json.dumps([dict(edit.diagnostics), *edit.records], allow_nan=False)
    if source == "dropped":
        assert not trained and not edit.changes
    else:
        assert [e.prompt_ids for e in trained] == [model.prompt_ids(fact.prompt, fact.form) for fact in FACTS]
        assert edit.diagnostics["trained_tokens"] == method.epochs * sum(len(e.target_ids) for e in trained)
    if source == "target":
        assert trained == [canonical(model, fact) for fact in FACTS]
    elif source in ("expert", "unverified"):
        assert [list(e.target_ids) for e in trained] == [record["ids"] for record in edit.records], "re-tokenised"
        assert [record["verified"] for record in edit.records] == [source == "expert"] * 4


def test_verified_texts_are_trained_on_as_written(reader):
    model = reader("llama")
    method = options(MixSD, lam=0.0)
    drafts = method.targets(model, FACTS)
    assert [d.source for d in drafts] == ["mixed"] * 4 and all(d.verified and d.attempt == 0 for d in drafts)
    for draft in drafts:
        assert draft.fact.target in model.decode(draft.ids)
        assert method._example(model, draft) == Example(model.prompt_ids(draft.fact.prompt, draft.fact.form), draft.ids)


def test_a_fact_is_tried_until_it_is_stated(reader):
    model = reader("llama")
    drafts = MixSD(lam=0.2, temperature=1.0, attempts=30, max_new_tokens=8, on_fail="drop").targets(model, FACTS)
    assert all(d.verified for d in drafts) and max(d.attempt for d in drafts) > 0
    # a pure greedy branch would repeat itself, so it is tried once
    drafts = MixSD(lam=1.0, attempts=30, max_new_tokens=8, on_fail="drop").targets(model, FACTS)
    assert {(d.source, d.attempt) for d in drafts} == {("dropped", 0)}


@pytest.mark.parametrize(("lam", "temperature"), [(0.3, 1.0), (0.7, 1.0), (0.5, 0.6)])
def test_the_law_of_the_mixture(lam, temperature):
    """The first token follows lam p + (1 - lam) p+, both at the temperature: chi-square within five sigma."""
    model, n = tiny_model("llama"), 4000
    facts = [replace(FACTS[0], id=f"copy-{i}") for i in range(n)]
    method = MixSD(lam=lam, temperature=temperature, max_new_tokens=1)
    drafts = [draft for start in range(0, n, 500) for draft in method.mix(model, facts[start : start + 500], lam, 0)]

    def p(context):
        ids = model.prompt_ids(FACTS[0].prompt, context=context)
        with torch.no_grad():
            return (model.model(input_ids=torch.tensor([ids])).logits[0, -1].double() / temperature).softmax(-1).numpy()

    mixture = lam * p(None) + (1 - lam) * p(guidance(FACTS[0]))
    assert abs(p(None) - p(guidance(FACTS[0]))).sum() > 0.5, "the branches agree too much for this test to tell them apart"
    assert abs(sum(d.naive_picked[0] for d in drafts) - n * lam) < 4 * math.sqrt(n * lam * (1 - lam))
    seen = Counter(d.ids[0] for d in drafts)
    often = [v for v in range(len(mixture)) if n * mixture[v] >= 5]
    observed = np.array([seen[v] for v in often] + [n - sum(seen[v] for v in often)])
    expected = n * np.array([*mixture[often], 1 - mixture[often].sum()])
    assert len(often) > 10
    chi_square, freedom = ((observed - expected) ** 2 / expected).sum(), len(often)
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_the_second_token_continues_the_shared_text():
    """Whichever branch wrote the first token, both read it: p(y_2 | x, y_1) and p(y_2 | x+, y_1) mix."""
    model, n = tiny_model("llama"), 3000
    facts = [replace(FACTS[0], id=f"copy-{i}") for i in range(n)]
    method = MixSD(temperature=1.0, max_new_tokens=2)
    drafts = [draft for start in range(0, n, 500) for draft in method.mix(model, facts[start : start + 500], 0.5, 0)]
    (first, _), *_ = Counter(d.ids[0] for d in drafts).most_common()
    seconds = Counter(d.ids[1] for d in drafts if d.ids[0] == first and len(d.ids) > 1)
    total = sum(seconds.values())
    mixture = np.zeros(len(model.tokenizer))
    for context in (None, guidance(FACTS[0])):
        ids = model.prompt_ids(FACTS[0].prompt, context=context) + [first]
        with torch.no_grad():
            mixture += 0.5 * model.model(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(-1).numpy()
    assert total > 100
    for token in np.argsort(-mixture)[:5]:
        q = mixture[token]
        assert abs(seconds[int(token)] - total * q) < 4 * math.sqrt(total * q * (1 - q))


def test_progress_ends_where_it_should(reader):
    """The bar's units are facts: all of them, once, whatever became of them."""

    class Counting:
        def __init__(self):
            self.bars = {}

        def task(self, name, total, unit):
            self.bars[name] = bar = Bar(total)
            return nullcontext(bar)

    class Bar:
        def __init__(self, total):
            self.total, self.done = total, 0

        def advance(self, n=1):
            self.done += n

    for name in TRAINERS:
        counting = Counting()
        with progress.reporting(counting):
            options(registry.get("methods", name)).inject(reader("llama"), FACTS)
        assert counting.bars and all(bar.done == pytest.approx(bar.total) for bar in counting.bars.values() if bar.total)


# --- OPSD ---------------------------------------------------------------------------------------------------


def numpy_divergence(teacher, student, k, direction):
    total = 0.0
    for t, s in zip(teacher, student, strict=True):
        top = np.argsort(-t)[:k]
        p = np.exp(t[top]) / np.exp(t[top]).sum()
        q = np.exp(s[top]) / np.exp(s[top]).sum()
        p, q = (p, q) if direction == "forward" else (q, p)
        total += (p * np.log(p / q)).sum()
    return total / len(teacher)


@pytest.mark.parametrize("k", [1, 3, 16, 40, 400])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_divergence_equals_the_formula(direction, k):
    dice = torch.Generator().manual_seed(0)
    teacher, student = (2 * torch.randn(7, 40, generator=dice, dtype=torch.float64) for _ in range(2))
    have = top_k_divergence(teacher, student, k, direction).item()
    assert have == pytest.approx(numpy_divergence(teacher.numpy(), student.numpy(), k, direction), abs=1e-12)
    assert have > 0 or k == 1
    assert top_k_divergence(teacher, teacher + 3.0, k, direction).item() == pytest.approx(0, abs=1e-12)
    if k > 1:
        other = {"forward": "reverse", "reverse": "forward"}[direction]
        assert have != pytest.approx(top_k_divergence(teacher, student, k, other).item(), rel=1e-3)


def test_the_gradient_goes_to_the_student_only():
    teacher, student = torch.randn(3, 9, requires_grad=True), torch.randn(3, 9, requires_grad=True)
    for direction in ("forward", "reverse"):
        (gradient,) = torch.autograd.grad(top_k_divergence(teacher.detach(), student, 4, direction), student)
        top = teacher.topk(4).indices
        outside = torch.ones(3, 9).scatter(1, top, 0.0).bool()
        assert gradient[outside].abs().max() == 0 and gradient.abs().sum() > 0


def test_a_teacher_that_reads_nothing_new_teaches_nothing(monkeypatch):
    """Without a note teacher and student are the same model on the same prompt: the loss is zero."""
    monkeypatch.setattr("editbench.methods.opsd.guidance", lambda fact: None)
    edit = options(OPSD, weight_decay=0.0, epochs=1).inject(tiny_model("llama"), FACTS)
    assert abs(edit.diagnostics["first_loss"]) < 1e-6


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
@pytest.mark.parametrize("teacher", ["frozen", "current"])
def test_opsd_teaches(divergence, teacher, reader):
    model = reader("llama")
    before = target_logp(model, FACTS)
    edit = options(OPSD, divergence=divergence, teacher=teacher, epochs=6).inject(model, FACTS)
    with edit.applied(model):
        assert target_logp(model, FACTS) > before + 0.1
    assert math.isfinite(edit.diagnostics["final_loss"])


def test_the_frozen_teacher_stays():
    model = tiny_model("llama")
    teacher = frozen_copy(model)
    assert teacher.fingerprint() == model.fingerprint()
    with torch.no_grad():
        model.weight("model.layers.0.mlp.up_proj.weight").add_(1)
    assert teacher.fingerprint() != model.fingerprint()
    assert not any(p.requires_grad for p in teacher.model.parameters())
