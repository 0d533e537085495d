"""SFT, MixSD and OPSD: training texts, the law of mixed texts, divergences, and the way back."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from hostile.architectures import build
from transformers import AutoConfig, AutoModelForCausalLM

from editbench import progress, registry
from editbench.changes import dense
from editbench.errors import MethodError, ModelError, OptionError
from editbench.eval.retention import evaluate
from editbench.eval.standard_tasks import PACK
from editbench.methods import mixsd as mixsd_module
from editbench.methods import opsd as opsd_module
from editbench.methods._common.texts import Example, label_states
from editbench.methods._train import anchor as anchor_module
from editbench.methods._train import rooms as rooms_module
from editbench.methods._train import step_size as step_size_module
from editbench.methods._train.adapters import NULL_TOKENS
from editbench.methods._train.anchor import LENGTH, Anchor, _scaled_fisher
from editbench.methods._train.branches import Branches
from editbench.methods._train.checkpointing import recomputable_layers, recomputed
from editbench.methods._train.divergence import Divergence, divergence
from editbench.methods._train.exposure import LEAST, AdaptiveExposure
from editbench.methods._train.lessons import Lesson, lessons_of, reworded
from editbench.methods._train.loop import _batches, target_nll, train
from editbench.methods._train.rooms import rooms
from editbench.methods._train.step_size import moved_far
from editbench.methods._train.trainer import Trainer
from editbench.methods.mixsd import ON_FAIL, MixSD
from editbench.methods.opsd import OPSD, Teacher, all_but_last_word, follow_slowly, frozen_copy
from editbench.methods.sft import Sft
from editbench.methods.statistics import second_moments
from editbench.models import LanguageModel
from editbench.own_text import TASKS
from editbench.report import FAR, MOVED_FAR
from editbench.retrieval import guidance
from editbench.testing import (
    FACTS,
    target_logp,
    teach_to_read,
    tiny_model,
    tiny_options,
    unchanged,
)
from editbench.types import Fact

TRAINERS = [
    name for name in registry.names("methods") if issubclass(registry.get("methods", name), Trainer)
]
# locft trains one matrix itself, and the teacher of sdft follows all weights.
WITH_ADAPTERS = [name for name in TRAINERS if name not in ("locft", "sdft")]


def options(method, **changed):
    return method(**{**tiny_options(method), **changed})


def noted(model, facts):
    """The facts for an expert that reads the note before them, as ``teach_to_read`` taught it."""
    return lessons_of(model, facts, expert_prompt="before")


def canonical(model, fact):
    return Lesson(model, fact).canonical()


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_only_target_tokens_count(family):
    model = tiny_model(family)
    batch = [canonical(model, fact) for fact in FACTS]
    loss, count = target_nll(model, batch)
    nlls = []
    for example in batch:
        ids = [*example.prompt_ids, *example.target_ids]
        logp_TV = (
            model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        )
        first = len(example.prompt_ids) - 1
        nlls += [-logp_TV[first + t, token] for t, token in enumerate(example.target_ids)]
    assert count == len(nlls) == sum(len(e.target_ids) for e in batch)
    torch.testing.assert_close(loss, torch.stack(nlls).mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chat", [True, False])
def test_sft_ends_targets_as_the_model_ends_an_answer(chat):
    """A question's with the end of turn that the chat template writes, all others with EOS."""
    model = tiny_model("llama", chat=chat)
    turn, eos = model.tokenizer.convert_tokens_to_ids("<|im_end|>"), model.tokenizer.eos_token_id
    assert {fact.form for fact in FACTS} == {"cloze", "question"}
    for fact in FACTS:
        example, last = canonical(model, fact), turn if chat and fact.form == "question" else eos
        assert example.target_ids[-1] == last and not model.stop_ids & {*example.target_ids[:-1]}
        assert example.prompt_ids == model.prompt_ids(fact.prompt, fact.form)
        assert model.decode(example.target_ids).strip() == fact.target
    worked = replace(FACTS[0], demonstration="It is Karsk, since 1997.")
    assert model.decode(canonical(model, worked).target_ids).strip() == "It is Karsk, since 1997."


def test_sft_counts_its_tokens():
    model = tiny_model("llama")
    edit = options(Sft, epochs=3).inject(model, FACTS)
    assert edit.diagnostics["trained_tokens"] == 3 * sum(
        len(canonical(model, fact).target_ids) for fact in FACTS
    )
    assert edit.diagnostics["steps"] == 3 * math.ceil(len(FACTS) / 2)
    assert edit.diagnostics["final_loss"] < edit.diagnostics["first_loss"]


def test_one_step_is_adamw():
    """One step from rest moves each weight by lr against its gradient's sign, and decays it."""
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


def test_texts_of_like_length_stand_together():
    chosen = Sft(epochs=2, min_steps=1, batch_size=4, seed=5)
    lengths = [(7 * i) % 40 + 1 for i in range(70)]
    batches = list(_batches(70, chosen, lengths))
    assert [sorted(sum(batches[i : i + 18], [])) for i in (0, 18)] == [list(range(70))] * 2

    def padded(batches):
        return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches) / (
            2 * sum(lengths)
        )

    assert padded(batches) < 1.25 < padded(_batches(70, chosen))
    assert (
        batches
        == list(_batches(70, chosen, lengths))
        != list(_batches(70, replace(chosen, seed=6), lengths))
    )
    shortest = [min(lengths[i] for i in batch) for batch in batches[:18]]
    assert shortest != sorted(shortest)


class Watcher:
    """A reporter that keeps the weights after each training step."""

    def __init__(self, model):
        self.model, self.training, self.states = model.model, False, []

    @contextmanager
    def task(self, name, total, unit):
        self.training = unit == "steps"
        yield self
        self.training = False

    def advance(self, n=1):
        if self.training:
            self.states.append(
                {name: p.detach().clone() for name, p in self.model.named_parameters()}
            )


@pytest.mark.parametrize(
    ("name", "changed"),
    [*((name, {}) for name in TRAINERS), ("opsd", {"exposure": "adaptive", "teacher": "ema"})],
)
def test_a_training_that_stops_early_is_the_whole_one_up_to_there(name, changed, reader):
    model = reader("llama")
    whole = options(registry.get("methods", name), epochs=5, warmup=0.5, enough=0, **changed)
    watcher = Watcher(model)
    with progress.reporting(watcher):
        assert whole.inject(model, FACTS).diagnostics["steps"] == len(watcher.states) == 10
    for share, steps in ((0.01, 1), (0.3, 3), (0.5, 5)):
        edit = replace(whole, stop_after=share).inject(model, FACTS)
        assert edit.diagnostics["steps"] == steps
        for weight, change in edit.changes.items():
            assert torch.equal(
                change, watcher.states[steps - 1][weight] - model.weight(weight).detach()
            )


def of_the_loss(report):
    """Return the warnings of a report that are about its loss."""
    return [warning for warning in report["warnings"] if warning.startswith("The loss")]


def constant_losses(model, losses):
    """Return a loss whose value at each call is the next of ``losses``, with sft's gradient."""
    values = iter(losses)

    def loss_of(batch):
        loss, count = target_nll(model, [canonical(model, FACTS[i]) for i in batch])
        return loss - loss.detach() + next(values), count

    return loss_of


def test_a_training_ends_when_the_facts_are_learnt():
    """Two batches an epoch: the first epoch's mean is too high, the second's is not."""
    model = tiny_model("llama")
    method = options(Sft, epochs=9, enough=0.1)
    losses = [3.0, 0.05, 0.15, 0.02]
    watcher = Watcher(model)
    with progress.reporting(watcher):
        _, report = train(method, model, len(FACTS), constant_losses(model, losses))
    assert (report["steps"], report["planned_steps"]) == (2, 18)
    after = [sum(p.sum().item() for p in state.values()) for state in watcher.states]
    # a learnt batch moves no weight
    assert after[0] == after[1] != after[2] == after[3]
    assert report["final_loss"] == pytest.approx(0.085) and not report["warnings"]


def test_enough_of_0_trains_to_the_end():
    model = tiny_model("llama")
    _, report = train(
        options(Sft, epochs=3, enough=0.0), model, len(FACTS), constant_losses(model, [0.0] * 6)
    )
    assert report["steps"] == report["planned_steps"] == 6


def test_facts_that_the_model_knows_change_nothing():
    model = tiny_model("llama")
    edit = options(Sft, enough=1e9).inject(model, FACTS)
    assert edit.diagnostics["steps"] == 0 and edit.diagnostics["warnings"] == []
    assert not any(change.any() for change in edit.changes.values())


@pytest.mark.parametrize(("losses", "fitted"), [([0.0, 0.0], False), ([0.0, 3.0], True)])
def test_the_rate_is_fitted_to_facts_that_the_model_does_not_know(losses, fitted):
    """A loss of exactly 0 has no gradient that a rate could be fitted to."""
    model = tiny_model("llama")
    method = options(Sft, epochs=1, lr=None, enough=0.1)
    _, report = train(method, model, len(FACTS), constant_losses(model, losses * 2))
    assert (report["learning_rate"] > 0) is fitted and report["steps"] == fitted


@pytest.mark.parametrize("held", [{"kl": 1.0}, {"replay": 1.0}, {"l2": 1.0}], ids=str)
def test_what_holds_the_model_goes_on_when_the_facts_are_learnt(held):
    """From the third step on, the facts have no gradient."""
    model = tiny_model("llama")
    method = options(Sft, epochs=3, enough=0.1, **held)
    losses = [3.0, 3.0, *[0.01] * 4]
    watcher = Watcher(model)
    with progress.reporting(watcher):
        _, report = train(method, model, len(FACTS), constant_losses(model, losses))
    assert report["steps"] == 6
    assert report["trained_tokens"] == sum(len(canonical(model, f).target_ids) for f in FACTS)
    assert any(
        not torch.equal(before, after)
        for before, after in zip(
            watcher.states[-2].values(), watcher.states[-1].values(), strict=True
        )
    )


def test_what_holds_the_model_goes_on_as_long_as_the_learning_took():
    """Two epochs of two steps teach the facts; 18 steps are planned."""
    method = options(Sft, epochs=9, enough=0.1, kl=1.0)
    model, losses = tiny_model("llama"), [3.0, 3.0, *[0.01] * 6]
    _, report = train(method, model, len(FACTS), constant_losses(model, losses))
    assert (report["steps"], report["planned_steps"]) == (8, 18)
    assert (
        train(replace(method, stop_after=1 / 3), model, len(FACTS), constant_losses(model, losses))[
            1
        ]["steps"]
        == 6
    )


def test_no_gradient_is_computed_for_a_learnt_batch():
    model, computed = tiny_model("llama"), []
    constant = constant_losses(model, [3.0, 0.01, 3.0, 0.01])

    def loss_of(batch):
        loss, count = constant(batch)
        loss.register_hook(lambda _: computed.append(batch))
        return loss, count

    train(options(Sft, epochs=2, enough=0.1), model, len(FACTS), loss_of)
    assert len(computed) == 2


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        *((name, changed) for name in TRAINERS for changed in ({}, {"micro_batch": 1})),
        *((name, {"lora": 3}) for name in WITH_ADAPTERS),
    ],
    ids=str,
)
def test_the_rate_is_fitted_before_training(name, changed, reader):
    """A training at the fitted rate is that at the same rate, given."""
    model = reader("llama")
    chosen = options(registry.get("methods", name), lr=None, epochs=1, **changed)
    with unchanged(model, "inject"):
        edit = chosen.inject(model, FACTS)
    given = replace(chosen, lr=edit.diagnostics["learning_rate"]).inject(model, FACTS)
    for weight, change in edit.changes.items():
        torch.testing.assert_close(dense(change), dense(given.changes[weight]), rtol=0, atol=0)


@pytest.mark.parametrize("lora", [None, 3])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_first_step_at_the_fitted_rate_lowers_the_loss_by_a_fixed_share(family, lora):
    model = tiny_model(family)
    chosen = options(Sft, lr=None, batch_size=4, epochs=1, warmup=0.0, lora=lora, weight_decay=0.0)
    edit = chosen.inject(model, FACTS)
    examples = [canonical(model, fact) for fact in FACTS]
    with torch.no_grad(), edit.applied(model):
        after = target_nll(model, examples)[0].item()
    first = edit.diagnostics["first_loss"]
    assert edit.diagnostics["steps"] == 1
    assert 1 - after / first == pytest.approx(Sft.fall, rel=0.3)


def test_a_loss_without_a_gradient_fits_no_rate():
    model = tiny_model("llama")

    def loss_of(batch):
        loss, count = target_nll(model, [canonical(model, FACTS[i]) for i in batch])
        return 0 * loss + 5.0, count

    with (
        unchanged(model, "a failed inject"),
        pytest.raises(MethodError, match="is 5, and its gradient sums to 0. Give lr."),
    ):
        train(options(Sft, lr=None), model, len(FACTS), loss_of)


# One matrix of a tiny model moves its text less than that.
@pytest.mark.parametrize("name", [name for name in TRAINERS if name != "locft"])
def test_a_model_that_moved_far_on_its_own_text_is_told(name, reader):
    chosen = options(registry.get("methods", name), warmup=0.0)
    near, far = (replace(chosen, lr=lr).inject(reader("llama"), FACTS) for lr in (1e-6, 1e-2))
    assert near.diagnostics["own_text_kl"] < FAR < far.diagnostics["own_text_kl"]
    assert not any(MOVED_FAR in warning for warning in near.diagnostics["warnings"])
    (told,) = [warning for warning in far.diagnostics["warnings"] if MOVED_FAR in warning]
    assert "KL above 0.15 nats a token" in told and "kl=1 holds it near the base" in told


def test_a_model_that_is_held_already_is_told_to_be_held_more():
    (told,) = moved_far(0.2, 3.0)
    assert "A kl above 3 holds it near the base" in told and "kl=1 " not in told


def test_own_text_is_written_once_for_each_base(monkeypatch):
    written = []
    own = step_size_module.own_texts
    monkeypatch.setattr(
        step_size_module, "own_texts", lambda *args: written.append(args) or own(*args)
    )
    model, method = tiny_model("llama"), options(Sft)
    edits = [method.inject(model, [fact]) for fact in FACTS[:2]]
    assert len(written) == 1
    with edits[0].applied(model):
        again = method.inject(model, FACTS[1:2])
    assert len(written) == 2
    assert again.diagnostics["own_text_kl"] != edits[1].diagnostics["own_text_kl"]


def test_a_model_without_room_for_own_text_trains():
    model = tiny_model("llama", max_position_embeddings=8)
    report = options(Sft, lr=None).inject(model, [Fact("f", "A b", "c")]).diagnostics
    (told,) = report["warnings"]
    assert told.startswith("How far the model's own text moved was not measured. ")
    assert "own_text_kl" not in report


def test_label_states_of_an_empty_target():
    model = tiny_model("llama")
    assert label_states(model, [[5, 6, 7], [5, 6]], [0, 1]).shape == (1, 32)


# --- the way back ---------------------------------------------------------------------------------


# Whatever one matrix writes, the norm behind it keeps the loss finite.
@pytest.mark.parametrize("name", [name for name in TRAINERS if name != "locft"])
def test_a_loss_that_explodes_is_reported_and_leaves_nothing(name):
    model, method = tiny_model("llama"), registry.get("methods", name)
    chosen = method(**{**tiny_options(method), "lr": 1e30, "clip": 1e30})
    with (
        unchanged(model, "a failed inject"),
        pytest.raises(MethodError, match=f"{name}: .*Use a smaller lr than 1e\\+30"),
    ):
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
        ("sft", {"interpolation": "0"}),
        ("sft", {"interpolation": "1.5"}),
        ("sft", {"stop_after": "0"}),
        ("sft", {"stop_after": "1.5"}),
        ("sft", {"checkpointing": "maybe"}),
        ("sft", {"clip": "-1"}),
        ("mixsd", {"lam": "1.1"}),
        ("mixsd", {"on_fail": "retry"}),
        ("mixsd", {"temperature": "-1"}),
        ("mixsd", {"attempts": "0"}),
        ("mixsd", {"mode": "coin"}),
        ("mixsd", {"threshold": "0"}),
        ("mixsd", {"signal": "1.5"}),
        ("mixsd", {"top_k": "0"}),
        ("mixsd", {"max_new_tokens": "0"}),
        ("opsd", {"divergence": "js"}),
        ("opsd", {"teacher": "wise"}),
        ("opsd", {"teacher": "ema", "lora": "4"}),
        ("opsd", {"ema": "1"}),
        ("opsd", {"exposure": "0"}),
        ("opsd", {"exposure": "some"}),
        ("sft", {"lora": "0"}),
        ("sft", {"null_space": "0.5"}),
        ("sft", {"lora": "4", "null_space": "2"}),
        ("sft", {"lora": "4", "ewc": "1"}),
        ("sft", {"kl": "-1"}),
        ("sft", {"weight_decay": "-1"}),
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
    assert all(
        change.dtype == torch.float32 and change.abs().max() > 0 for change in edit.changes.values()
    )
    with edit.applied(model):
        assert target_logp(model, FACTS) > before + 0.1


# --- Accelerate, whose state is one for the whole process -----------------------------------------


@pytest.fixture
def fresh_accelerate():
    """As in a new process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.mark.parametrize("first", ["ours", "lm-eval"])
def test_two_precisions_and_lm_eval_in_one_process(first, fresh_accelerate):
    exact = tiny_model("llama")
    rough = LanguageModel(exact.model, exact.tokenizer, precision="bfloat16")
    method = options(Sft)
    if first == "lm-eval":
        Accelerator()  # what lm-eval makes of a model that it loads by name
    want = {model: method.inject(model, FACTS).changes for model in (exact, rough)}
    evaluate(exact.model, exact.tokenizer, ["eb_grammar"], limit=2)
    Accelerator()
    for model, changes in want.items():
        with unchanged(model, "inject"):
            again = method.inject(model, FACTS).changes
        assert all(torch.equal(again[name], change) for name, change in changes.items())
    assert any(not torch.equal(want[exact][name], want[rough][name]) for name in want[exact])


@pytest.mark.parametrize(
    ("method", "error", "says"),
    [
        (OPSD, MethodError, "opsd computes in one process, and 2 were launched"),
        # tests/methods/test_over_processes.py has two that do
        (Sft, OptionError, "2 processes were launched and did not find each other"),
    ],
)
def test_processes_that_cannot_train_together(method, error, says, monkeypatch):
    """As something that sets WORLD_SIZE alone starts each of them."""
    model = tiny_model("llama")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with unchanged(model, "a refused inject"), pytest.raises(error, match=says):
        options(method).inject(model, FACTS)


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_a_training_of_the_callers_own_does_not_matter(precision, fresh_accelerate):
    model, method = tiny_model("llama"), options(Sft)
    want = method.inject(model, FACTS).changes
    AcceleratorState._reset_state(reset_partial_state=True)
    theirs = Accelerator(mixed_precision=precision, gradient_accumulation_steps=4)
    with theirs.accumulate(model.model):
        assert not theirs.sync_gradients, "in the middle of a step"
    found = method.inject(model, FACTS).changes
    assert all(torch.equal(found[name], change) for name, change in want.items())


# --- MixSD ----------------------------------------------------------------------------------------


def once(method, model, facts):
    """One text for each fact, without a second try."""
    return replace(method, attempts=1).mix(noted(model, facts), Branches(model, 400))


def targets(method, model, facts):
    return method.targets(model, noted(model, facts))[0]


def greedy(model, fact, context, n):
    """The model's own greedy text, with the token that ended it."""
    ids = model.prompt_ids(fact.prompt, fact.form, context=context)
    text = []
    for _ in range(n):
        with torch.no_grad():
            token = int(
                model.model(input_ids=torch.tensor([ids + text]), use_cache=False)
                .logits[0, -1]
                .argmax()
            )
        text.append(token)
        if token in model.stop_ids or (
            fact.form == "cloze" and "\n" in model.decode([token]) and model.decode(text).strip()
        ):
            break
    return text


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("taught", [True, False])
def test_the_pure_branches(family, taught, reader):
    model = reader(family) if taught else tiny_model(family)
    method = MixSD(max_new_tokens=10)
    for lam, context in ((0.0, guidance), (1.0, lambda fact: None)):
        for draft in once(replace(method, lam=lam), model, FACTS):
            assert draft.ids == greedy(model, draft.fact, context(draft.fact), 10)
            assert draft.naive_picked == [lam == 1.0] * len(draft.ids)
            assert len(draft.logp[0]) == len(draft.logp[1]) == len(draft.ids)


def test_both_branches_log_probabilities_are_recorded(reader):
    model = reader("llama")
    methods = [
        MixSD(max_new_tokens=10, temperature=1.0, lam=0.5),
        MixSD(max_new_tokens=10, lam=0.0),
        MixSD(mode="adaptive"),
    ]
    drafts = [draft for method in methods for draft in once(method, model, FACTS)]
    drafts += targets(MixSD(max_new_tokens=10, lam=0.6, on_fail="keep"), model, FACTS)
    for draft in drafts:
        for context, kept in ((None, draft.logp[0]), (guidance(draft.fact), draft.logp[1])):
            prompt = model.prompt_ids(draft.fact.prompt, draft.fact.form, context=context)
            (logp,) = model.target_logprobs([(prompt, draft.ids)])
            np.testing.assert_allclose(kept, logp.numpy(), rtol=1e-3, atol=1e-3)


def test_texts_do_not_depend_on_slots_or_order():
    model = tiny_model("mistral")
    method = MixSD(lam=0.5, temperature=1.0, max_new_tokens=8, attempts=3, on_fail="keep")

    def written(method, facts):
        with unchanged(model, "targets"):
            drafts = targets(method, model, facts)
        assert [d.fact for d in drafts] == list(facts)
        return {d.fact.id: (d.ids, d.naive_picked, d.attempt) for d in drafts}

    one = written(method, FACTS)
    assert (
        one
        == written(method, FACTS)
        == written(replace(method, slots=1), FACTS)
        == written(replace(method, slots=3), FACTS)
    )
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
    method = options(MixSD, lam=1.0, on_fail=on_fail, enough=0.0)
    edit = method.inject(model, FACTS)
    source = {
        "drop": "dropped",
        "target": "target",
        "keep": "unverified",
        "expert": "expert" if taught else "target",
    }[on_fail]
    assert edit.diagnostics["target_sources"] == {source: 4}
    assert [record["source"] for record in edit.records] == [source] * 4
    assert [record["fact"] for record in edit.records] == [fact.id for fact in FACTS]
    said = {
        "dropped": "left out",
        "target": "canonical target",
        "unverified": "as they are",
        "expert": None,
    }[source]
    told = [warning for warning in edit.diagnostics["warnings"] if MOVED_FAR not in warning]
    assert len(told) == bool(said)
    assert not said or said in told[0] and "4 of 4" in told[0]
    # said of the texts that are trained on, and of no others
    measured = {"target_nll", "effective_lambda"} & edit.diagnostics.keys()
    assert len(measured) == (2 if source in ("unverified", "expert") else 0)
    json.dumps([dict(edit.diagnostics), *edit.records], allow_nan=False)
    if source == "dropped":
        assert not trained and not edit.changes
    else:
        assert [e.prompt_ids for e in trained] == [
            model.prompt_ids(fact.prompt, fact.form) for fact in FACTS
        ]
        assert edit.diagnostics["trained_tokens"] == method.epochs * sum(
            len(e.target_ids) for e in trained
        )
    if source == "target":
        assert trained == [canonical(model, fact) for fact in FACTS]
    elif source in ("expert", "unverified"):
        assert [list(e.target_ids) for e in trained] == [
            record["ids"] + ([] if record["ended"] else model.closing_ids(fact.form))
            for record, fact in zip(edit.records, FACTS, strict=True)
        ], "re-tokenised"
        assert [record["verified"] for record in edit.records] == [source == "expert"] * 4


def test_verified_texts_are_trained_on_as_written(reader):
    model = reader("llama")
    method = options(MixSD, lam=0.0)
    drafts = targets(method, model, FACTS)
    assert [d.source for d in drafts] == ["mixed"] * 4 and all(
        d.verified and d.attempt == 0 for d in drafts
    )
    for draft in drafts:
        assert draft.fact.target in model.decode(draft.ids)
        assert method._example(draft) == Example(
            model.prompt_ids(draft.fact.prompt, draft.fact.form), draft.ids
        )


def test_no_text_is_trained_on_without_an_end(reader):
    """The reader ends what it says with EOS, where there is room for that."""
    model = reader("llama")
    edit = options(MixSD, lam=0.0).inject(model, FACTS)
    assert [r["ended"] for r in edit.records] == [True] * 4 and edit.diagnostics["cut_off"] == 0
    assert all(r["ids"][-1] in model.stop_ids for r in edit.records)
    room = min(len(r["ids"]) for r in edit.records) - 1
    edit = options(MixSD, lam=0.0, max_new_tokens=room, on_fail="target").inject(model, FACTS)
    assert edit.diagnostics["target_sources"] == {"target": 4}
    assert edit.diagnostics["cut_off"] == 0, "not trained on"
    assert "4 of them reached their token budget" in edit.diagnostics["warnings"][0]
    method = options(MixSD, lam=0.0, max_new_tokens=room, on_fail="keep")
    drafts = targets(method, model, FACTS)
    assert not any(d.ended for d in drafts)
    for d in drafts:
        end = model.closing_ids(d.fact.form)
        assert list(method._example(d).target_ids) == [*d.ids, *end]
    assert method.inject(model, FACTS).diagnostics["cut_off"] == 4


def test_half_a_word_of_a_rollout_states_nothing(reader):
    edit = options(OPSD, max_new_tokens=1).inject(reader("llama"), FACTS[:2])
    said = edit.diagnostics
    assert (said["cut_off_share"], said["stated_at_first"]) == (1.0, 0.0)
    assert all_but_last_word("He lives in Ham") == "He lives in "
    assert all_but_last_word("He lives in Ham.") == "He lives in Ham."
    assert all_but_last_word("\u4ed6\u4f4f\u5728\u6771\u4eac") == "\u4ed6\u4f4f\u5728\u6771\u4eac"


def test_a_fact_is_tried_until_it_is_stated(reader):
    model = reader("llama")
    drafts = targets(
        MixSD(lam=0.2, temperature=1.0, attempts=30, max_new_tokens=8, on_fail="drop"), model, FACTS
    )
    assert all(d.verified for d in drafts) and max(d.attempt for d in drafts) > 0
    # a pure greedy branch would repeat itself, so it is tried once
    drafts = targets(MixSD(lam=1.0, attempts=30, max_new_tokens=8, on_fail="drop"), model, FACTS)
    assert {(d.source, d.attempt) for d in drafts} == {("dropped", 0)}
    # the expert, asked where that failed, is one more try
    drafts = targets(MixSD(lam=1.0, attempts=30, max_new_tokens=8, on_fail="expert"), model, FACTS)
    assert {(d.source, d.attempt) for d in drafts} == {("expert", 1)}


@pytest.fixture(scope="module")
def hesitant():
    """A model that gives the old answer to a note three times of five, else the note's."""
    model = tiny_model("llama")
    optimizer = torch.optim.Adam(model.model.parameters(), lr=4e-3)
    answers = [
        (fact, answer) for fact in FACTS for answer in 3 * [fact.original] + 2 * [fact.target]
    ]
    pairs = [
        model.pair_ids(fact.prompt, answer, fact.form, context=guidance(fact))
        for fact, answer in answers
    ]
    examples = [Example(prompt, target + model.closing_ids()) for prompt, target in pairs]
    for _ in range(60):
        optimizer.zero_grad()
        target_nll(model, examples)[0].backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


@pytest.mark.parametrize(
    "chosen", [{"lam": 0.0}, {"lam": 0.3}, {"mode": "adaptive"}, {"lam": 1.0}], ids=str
)
def test_an_expert_whose_best_text_fails_is_sampled(chosen, hesitant):
    method = MixSD(**chosen, expert_prompt="before")
    assert not any(d.verified for d in once(MixSD(lam=0.0), hesitant, FACTS))

    def written(method, facts=FACTS):
        return {d.fact.id: (d.ids, d.source, d.attempt) for d in targets(method, hesitant, facts)}

    found = written(method)
    for fact in FACTS:
        ids, source, attempt = found[fact.id]
        assert source == "expert" and fact.target in hesitant.decode(ids) and attempt > 0
    assert found == written(replace(method, slots=1)) == written(method, FACTS[::-1])
    shares = replace(method, epochs=1, min_steps=1).inject(hesitant, FACTS).diagnostics
    assert (
        shares["target_sources"] == {"expert": 4}
        and shares["verified"] == shares["verified_at_once"] == 0
    )
    assert shares["mean_attempts"] == 1 + np.mean([attempt for _, _, attempt in found.values()])


def test_the_failed_text_itself_is_not_written_again():
    """The expert alone writes its best text, then a sample.

    The naive branch alone writes its best; then come the expert's best and a sample.
    """
    model = tiny_model("llama")
    for lam, temperature, texts in ((0.0, 0.0, 2), (1.0, 0.0, 3), (0.0, 1.0, 2), (1.0, 1.0, 2)):
        method = MixSD(lam=lam, temperature=temperature, attempts=1, max_new_tokens=8)
        drafts, cost = method.targets(model, noted(model, FACTS))
        assert {(d.source, d.attempt) for d in drafts} == {("target", texts - 1)}
        assert cost["decoded_tokens"] <= 8 * texts * len(FACTS)


@pytest.mark.parametrize(("lam", "temperature"), [(0.3, 1.0), (0.7, 1.0), (0.5, 0.6)])
def test_the_law_of_the_mixture(lam, temperature):
    """The first token follows lam p + (1 - lam) p+ at the temperature: chi-square in 5 sigma."""
    model, n = tiny_model("llama"), 4000
    facts = [replace(FACTS[0], id=f"copy-{i}") for i in range(n)]
    method = MixSD(lam=lam, temperature=temperature, max_new_tokens=1)
    drafts = once(method, model, facts)

    def p(context):
        ids = model.prompt_ids(FACTS[0].prompt, context=context)
        with torch.no_grad():
            return (
                (model.model(input_ids=torch.tensor([ids])).logits[0, -1].double() / temperature)
                .softmax(-1)
                .numpy()
            )

    mixture = lam * p(None) + (1 - lam) * p(guidance(FACTS[0]))
    assert abs(p(None) - p(guidance(FACTS[0]))).sum() > 0.5, (
        "the branches agree too much for this test to tell them apart"
    )
    assert abs(sum(d.naive_picked[0] for d in drafts) - n * lam) < 4 * math.sqrt(
        n * lam * (1 - lam)
    )
    seen = Counter(d.ids[0] for d in drafts)
    often = [v for v in range(len(mixture)) if n * mixture[v] >= 5]
    observed = np.array([seen[v] for v in often] + [n - sum(seen[v] for v in often)])
    expected = n * np.array([*mixture[often], 1 - mixture[often].sum()])
    assert len(often) > 10
    chi_square, freedom = ((observed - expected) ** 2 / expected).sum(), len(often)
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_the_second_token_continues_the_shared_text():
    """Both branches read the first token: p(y_2 | x, y_1) and p(y_2 | x+, y_1) mix."""
    model, n = tiny_model("llama"), 3000
    facts = [replace(FACTS[0], id=f"copy-{i}") for i in range(n)]
    drafts = once(MixSD(lam=0.5, temperature=1.0, max_new_tokens=2), model, facts)
    (first, _), *_ = Counter(d.ids[0] for d in drafts).most_common()
    seconds = Counter(d.ids[1] for d in drafts if d.ids[0] == first and len(d.ids) > 1)
    total = sum(seconds.values())
    mixture = np.zeros(len(model.tokenizer))
    for context in (None, guidance(FACTS[0])):
        ids = model.prompt_ids(FACTS[0].prompt, context=context) + [first]
        with torch.no_grad():
            mixture += (
                0.5
                * model.model(input_ids=torch.tensor([ids]))
                .logits[0, -1]
                .double()
                .softmax(-1)
                .numpy()
            )
    assert total > 100
    for token in np.argsort(-mixture)[:5]:
        q = mixture[token]
        assert abs(seconds[int(token)] - total * q) < 4 * math.sqrt(total * q * (1 - q))


# --- modes and second tries -----------------------------------------------------------------------


def conditional(model, fact, context, ids):
    """p(. | prompt, ids), from one forward pass without a cache."""
    prompt = model.prompt_ids(fact.prompt, fact.form, context=context)
    with torch.no_grad():
        return (
            model.model(input_ids=torch.tensor([prompt + list(ids)]), use_cache=False)
            .logits[0, -1]
            .double()
            .softmax(-1)
        )


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
@pytest.mark.parametrize("slots", [1, 2, 48])
def test_adaptive_texts_follow_the_rule(family, slots, reader):
    """The naive token stands if the expert finds it at least half as probable as its own best."""
    model = reader(family)
    for draft in MixSD(mode="adaptive", max_new_tokens=8, attempts=1).mix(
        noted(model, FACTS), Branches(model, slots)
    ):
        for t, (token, picked) in enumerate(zip(draft.ids, draft.naive_picked, strict=True)):
            naive, expert = (
                conditional(model, draft.fact, c, draft.ids[:t])
                for c in (None, guidance(draft.fact))
            )
            stands = expert[naive.argmax()] >= 0.5 * expert.max()
            assert picked == stands and token == (naive if stands else expert).argmax()


def test_a_threshold_of_one_is_the_expert(reader):
    model = reader("llama")
    expert, strict = (
        once(m, model, FACTS) for m in (MixSD(lam=0.0), MixSD(mode="adaptive", threshold=1.0))
    )
    assert [d.ids for d in expert] == [d.ids for d in strict] and all(d.verified for d in strict)


@pytest.mark.parametrize(("lam", "pattern"), [(0.5, "010101"), (0.25, "000100"), (0.75, "011101")])
def test_alternate_is_a_fixed_pattern(lam, pattern):
    drafts = once(MixSD(mode="alternate", lam=lam, max_new_tokens=6), tiny_model("llama"), FACTS)
    assert all(d.naive_picked == [p == "1" for p in pattern][: len(d.ids)] for d in drafts)
    assert max(len(d.ids) for d in drafts) == 6


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "gemma3"])
@pytest.mark.parametrize(
    "method",
    [MixSD(lam=0.7), MixSD(mode="adaptive", threshold=1e-9), MixSD(mode="alternate", lam=0.8)],
)
def test_a_failed_text_goes_on_from_where_the_fact_was_lost(family, method, reader):
    """Before the place stands the earlier text, at the place the expert's own token.

    What follows is what a forward pass without a cache gives: taking tokens back leaves no trace.
    """
    model = reader(family)
    method = replace(method, max_new_tokens=8, attempts=20)
    branches = Branches(model, 3)
    first, final = once(method, model, FACTS), method.mix(noted(model, FACTS), branches)
    again = [(a, b) for a, b in zip(first, final, strict=True) if b.attempt]
    assert all(b.verified for b in final) and again, "nothing was tried again"
    for before, after in again:
        assert not before.verified and before.ids != after.ids
        place = next(
            t for t, (a, b) in enumerate(zip(before.ids, after.ids, strict=False)) if a != b
        )
        assert before.naive_picked[place] and not after.naive_picked[place]
        for t, token in enumerate(after.ids):
            naive, expert = (
                conditional(model, after.fact, c, after.ids[:t])
                for c in (None, guidance(after.fact))
            )
            assert token == (naive if after.naive_picked[t] else expert).argmax()
            assert after.logp[0][t] == pytest.approx(naive[token].log().item(), abs=2e-3)
            assert after.logp[1][t] == pytest.approx(expert[token].log().item(), abs=2e-3)
    written = sum(d.written for d in final)
    assert branches.decoded_tokens <= 2 * written, "a token was encoded twice"
    assert branches.prompt_tokens == sum(len(prompt) for d in final for prompt in d.prompts)


# a state that takes back no token; no cache; no padding and no cache; layers that share keys
@pytest.mark.parametrize(
    ("name", "slots"), [("lfm2", 2), ("lfm2", 48), ("openai-gpt", 2), ("trocr", 2), ("gemma4", 2)]
)
def test_texts_of_models_that_take_no_token_back_are_read_again(name, slots):
    """Every token is what a plain pass without a cache gives, after failed attempts as well."""
    # by default Gemma 4 has a second embedding of 262144 rows
    small = {"vocab_size_per_layer_input": 512} if name == "gemma4" else {}
    model = teach_to_read(build(name, **small), FACTS)
    method = MixSD(lam=0.7, max_new_tokens=8, attempts=6)
    branches = Branches(model, slots)
    drafts = method.mix(noted(model, FACTS), branches)
    assert any(draft.attempt for draft in drafts), "nothing was tried again"
    assert (branches.reread_tokens > 0) == (not model.keeps_tokens) == (name != "gemma4")
    for draft in drafts:
        for t, token in enumerate(draft.ids):
            naive, expert = (
                conditional(model, draft.fact, c, draft.ids[:t])
                for c in (None, guidance(draft.fact))
            )
            assert draft.logp[0][t] == pytest.approx(naive[token].log().item(), abs=2e-3)
            assert draft.logp[1][t] == pytest.approx(expert[token].log().item(), abs=2e-3)


def test_what_was_read_again_is_in_the_report():
    for name, again in (("trocr", True), ("llama", False)):
        model = build(name)
        edit = MixSD(max_new_tokens=6, attempts=3, epochs=1, lam=0.7).inject(model, FACTS[:2])
        assert ("reread_tokens" in edit.diagnostics) == again


def test_a_text_that_only_repeats_itself_is_given_up(reader):
    """All of the expert's own words and no fact: a second try would be the first one."""
    model = tiny_model("llama")
    for method in (
        MixSD(lam=0.5, attempts=50),
        MixSD(mode="adaptive", attempts=50),
        MixSD(mode="alternate", attempts=50),
    ):
        for draft in replace(method, max_new_tokens=4).mix(noted(model, FACTS), Branches(model, 8)):
            assert not draft.verified and draft.attempt < 49


@pytest.mark.parametrize(
    "method",
    [MixSD(lam=0.5), MixSD(mode="adaptive"), MixSD(lam=0.5, temperature=1.0), MixSD(lam=0.0)],
)
def test_forwards_a_token_count_what_failed_too(method):
    """Texts that are given up count: two forwards a token, one if a branch is asked alone."""
    model = tiny_model("llama")
    _, cost = replace(method, attempts=3, max_new_tokens=6).targets(model, noted(model, FACTS))
    assert 0 < cost["forwards_per_token"] <= (1 if method.pure else 2)


def test_draws_stay_among_the_top_k():
    model = tiny_model("llama")
    for draft in once(MixSD(temperature=5.0, top_k=3, max_new_tokens=6, lam=0.5), model, FACTS):
        for t, token in enumerate(draft.ids):
            context = None if draft.naive_picked[t] else guidance(draft.fact)
            assert token in conditional(model, draft.fact, context, draft.ids[:t]).topk(3).indices


def test_loss_on_the_signal_only(reader):
    """The places where the branches disagree most; the others carry no loss."""
    model = reader("llama")
    method = MixSD(signal=0.4)
    (draft, *_) = targets(method, model, FACTS)
    example = method._example(draft)
    gaps = [abs(a - b) for a, b in zip(*draft.logp, strict=True)]
    assert len(example.counted) == math.ceil(0.4 * len(gaps))
    assert min(gaps[t] for t in example.counted) >= max(
        gaps[t] for t in range(len(gaps)) if t not in example.counted
    )
    loss, count = target_nll(model, [example])
    (logp,) = model.target_logprobs([(list(example.prompt_ids), list(example.target_ids))])
    assert count == len(example.counted)
    assert loss.item() == pytest.approx(-logp[list(example.counted)].mean().item(), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_the_token_budget_follows_the_experts_answer(family, reader, monkeypatch):
    model = reader(family)
    worked = replace(FACTS[0], id="worked", demonstration="so it goes on " * 8)
    lessons = noted(model, [*FACTS, worked])
    texts = [
        greedy(model, lesson.fact, guidance(lesson.fact), most_alone(lesson)) for lesson in lessons
    ]
    monkeypatch.setattr(rooms_module, "LEAST", 4)
    branches = Branches(model, 2)
    assert rooms(lessons, None, branches) == [
        max(4, 2 * len(text)) if lesson.ended(text) else most_alone(lesson)
        for lesson, text in zip(lessons, texts, strict=True)
    ]
    assert all(lesson.ended(text) for lesson, text in zip(lessons[:4], texts, strict=False))
    assert branches.prompt_tokens == sum(len(lesson.expert_ids) for lesson in lessons)
    assert branches.decoded_tokens == sum(len(text) - 1 for text in texts)
    assert rooms(lessons, 7, branches) == [7] * 5, "what the user says"
    again = Branches(model, 2)
    assert rooms([one for one in lessons for _ in range(3)], None, again)[::3] == rooms(
        lessons, None, branches
    )
    assert again.prompt_tokens == sum(len(lesson.expert_ids) for lesson in lessons)


def most_alone(lesson):
    return max(rooms_module.ALONE, 2 * len(lesson.answer_ids))


def test_the_context_limits_the_token_budget():
    model = tiny_model("llama", max_position_embeddings=72)
    lessons = noted(model, FACTS)
    left = [72 - len(lesson.expert_ids) for lesson in lessons]
    assert max(left) < rooms_module.LEAST
    for most in (None, 8192):
        found = rooms(lessons, most, Branches(model, 3))
        assert all(0 < a <= b for a, b in zip(found, left, strict=True))
    for method in (options(MixSD, max_new_tokens=8192), options(OPSD, max_new_tokens=None)):
        method.inject(model, FACTS)


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
        assert counting.bars and all(
            bar.done == pytest.approx(bar.total) for bar in counting.bars.values() if bar.total
        )


# --- OPSD -----------------------------------------------------------------------------------------


def numpy_divergence(teacher, student, k, kind):
    def kl(p, q):
        return (p * np.log(p / q)).sum()

    total = 0.0
    for t, s in zip(teacher, student, strict=True):
        top = np.argsort(-t)[:k]
        p = np.exp(t[top]) / np.exp(t[top]).sum()
        q = np.exp(s[top]) / np.exp(s[top]).sum()
        m = (p + q) / 2
        total += {"forward": kl(p, q), "reverse": kl(q, p), "jsd": (kl(p, m) + kl(q, m)) / 2}[kind]
    return total / len(teacher)


@pytest.mark.parametrize("k", [1, 3, 16, 40, 400, None])
@pytest.mark.parametrize("kind", get_args(Divergence))
def test_the_divergence_equals_the_formula(kind, k):
    dice = torch.Generator().manual_seed(0)
    teacher, student = (
        2 * torch.randn(7, 40, generator=dice, dtype=torch.float64) for _ in range(2)
    )
    have = divergence(teacher, student, k, kind).item()
    assert have == pytest.approx(
        numpy_divergence(teacher.numpy(), student.numpy(), k, kind), abs=1e-12
    )
    assert divergence(teacher, teacher + 3.0, k, kind).item() == pytest.approx(0, abs=1e-12)
    if k != 1:
        others = [
            divergence(teacher, student, k, other).item()
            for other in get_args(Divergence)
            if other != kind
        ]
        assert have > 0 and all(have != pytest.approx(other, rel=1e-3) for other in others)
    if kind == "jsd":
        assert have <= math.log(2)
        assert k is not None or have == pytest.approx(
            divergence(student, teacher, None, kind).item()
        )


def test_the_gradient_goes_to_the_student_only():
    teacher, student = torch.randn(3, 9, requires_grad=True), torch.randn(3, 9, requires_grad=True)
    for kind in get_args(Divergence):
        (gradient,) = torch.autograd.grad(divergence(teacher.detach(), student, 4, kind), student)
        top = teacher.topk(4).indices
        outside = torch.ones(3, 9).scatter(1, top, 0.0).bool()
        assert gradient[outside].abs().max() == 0 and gradient.abs().sum() > 0


def test_a_teacher_that_reads_nothing_new_teaches_nothing(monkeypatch):
    """Without a note, teacher and student are one model on one prompt: the loss is zero."""
    monkeypatch.setattr("editbench.methods._train.expert.guidance", lambda fact: None)
    edit = options(OPSD, weight_decay=0.0, epochs=1).inject(tiny_model("llama"), FACTS)
    assert abs(edit.diagnostics["first_loss"]) < 1e-6


def test_the_recipe_keep_is_the_training_that_was_measured():
    """The row "sft, 3 frames, kl 4, instructed" of benchmarks/frontier.py."""
    keep = Sft.from_options("sft", {"recipe": "keep"})
    measured = Sft(lr=5e-5, enough=0.0, epochs=5, rewordings=2, kl=4.0)
    assert keep == measured


def test_advice_to_use_a_trainer_names_those_that_need_no_choice():
    needs_one = type("NeedsOne", (Sft,), {"needs_subject": True})
    with pytest.raises(MethodError) as told:
        needs_one.check_subjects("plugin", [Fact("f", "A b", "c")])
    advice = str(told.value).rsplit("(", 1)[1].rstrip(").").split(", ")
    assert advice == ["sft", "mixsd", "opsd", "pd"] and set(advice) <= set(TRAINERS)


def test_the_canonical_answer_is_taught_besides(reader):
    model = reader("llama")
    once = options(MixSD, epochs=1)
    mixed, both = (method.inject(model, FACTS) for method in (once, replace(once, canonical=True)))
    texts, plain = both.records[: len(FACTS)], both.records[len(FACTS) :]
    assert [r["ids"] for r in texts] == [r["ids"] for r in mixed.records]
    assert [(r["fact"], r["source"], r["ids"]) for r in plain] == [
        (fact.id, "canonical", canonical(model, fact).target_ids) for fact in FACTS
    ]
    more = sum(len(r["ids"]) for r in plain)
    assert both.diagnostics["trained_tokens"] == mixed.diagnostics["trained_tokens"] + more


def test_each_text_of_a_fact_has_coins_of_its_own(reader):
    model, method = reader("llama"), options(MixSD, epochs=1, rewordings=1, lam=0.5)
    (one, many) = (replace(method, texts=n).inject(model, FACTS).records for n in (1, 6))
    assert [r["fact"] for r in many] == [fact.id for fact in FACTS for _ in range(6 * 2)]
    assert [r["frame"] for r in many] == [0, 1] * 6 * len(FACTS)
    for number, fact in enumerate(FACTS):
        of_fact = many[12 * number : 12 * (number + 1)]
        assert of_fact[0]["ids"] == one[2 * number]["ids"], "the first text is the only one's"
        assert len({tuple(r["naive_picked"]) for r in of_fact}) > 2, fact.id
    for bad in ({"mode": "adaptive"}, {"lam": 0.0}, {"mode": "alternate"}):
        with pytest.raises(ValueError, match="need coins"):
            MixSD(texts=2, **bad)


@pytest.mark.parametrize("kind", get_args(Divergence))
@pytest.mark.parametrize(
    "more",
    [{"teacher": t} for t in get_args(Teacher)] + [{"top_k": None}, {"verified": True}],
    ids=str,
)
def test_opsd_teaches(kind, more, reader):
    model = reader("llama")
    before = target_logp(model, FACTS)
    with unchanged(model, "inject"):
        edit = options(OPSD, divergence=kind, epochs=6, **more).inject(model, FACTS)
    with edit.applied(model):
        assert target_logp(model, FACTS) > before + 0.1
    assert math.isfinite(edit.diagnostics["final_loss"])
    assert 0 <= edit.diagnostics["stated_at_first"] <= 1


def test_rollouts_have_the_room_of_their_fact(monkeypatch):
    """Also where facts of different rooms share a batch; a random model hardly ends by itself."""
    model, seen = tiny_model("llama"), {}
    monkeypatch.setattr(rooms_module, "ALONE", 24)
    monkeypatch.setattr(rooms_module, "LEAST", 24)
    shown = "First this, then that. " + "so " * 40
    worked = replace(FACTS[0], id="worked", subject=None, prompt="Once more:", demonstration=shown)
    facts = [*FACTS, worked]
    of = {tuple(model.prompt_ids(fact.prompt, fact.form)): fact for fact in facts}
    own = opsd_module.label_states

    def watched(asked, rows, lengths):
        if torch.is_grad_enabled():
            for row, n in zip(rows, lengths, strict=True):
                fact = of[tuple(row[:-n])]
                seen.setdefault(fact.id, []).append(n)
        return own(asked, rows, lengths)

    monkeypatch.setattr(opsd_module, "label_states", watched)
    short = {"epochs": 1, "min_steps": 1, "batch_size": len(facts)}
    method = OPSD(**short, rollouts=8, expert_prompt="before")
    method.inject(model, facts)
    budgets = rooms(noted(model, facts), None, Branches(model, 8))
    assert [max(seen[fact.id]) for fact in facts] == budgets
    assert budgets[-1] > budgets[0]


def test_rollouts_of_raw_text_end_with_their_line(reader):
    model = reader("llama")
    method = OPSD(rollouts=40, temperature=3.0)
    asked = [(lesson, 60) for lesson in noted(model, FACTS)]
    rollouts = method._rollouts(model, asked, torch.Generator().manual_seed(0))
    lines = [
        r for r in rollouts if r.lesson.fact.form == "cloze" and r.ids[-1] not in model.stop_ids
    ]
    assert any(r.ended for r in lines)
    for r in lines:
        assert r.ended == ("\n" in model.decode(r.ids[-1:])) == (len(r.ids) < 60)
        assert not model.decode(r.ids[:-1]).lstrip().count("\n")


def test_an_ema_teacher_follows_slowly():
    student = tiny_model("llama")
    teacher = frozen_copy(student)
    name = "model.layers.0.mlp.up_proj.weight"
    with torch.no_grad():
        student.weight(name).add_(1.0)
    for n in (1, 2):
        follow_slowly(teacher, student, 0.9)
        gap = (student.weight(name) - teacher.weight(name)).detach()
        torch.testing.assert_close(gap, torch.full_like(gap, 0.9**n), rtol=1e-5, atol=1e-5)


def test_the_frozen_teacher_stays():
    model = tiny_model("llama")
    teacher = frozen_copy(model)
    assert teacher.fingerprint() == model.fingerprint()
    with torch.no_grad():
        model.weight("model.layers.0.mlp.up_proj.weight").add_(1)
    assert teacher.fingerprint() != model.fingerprint()
    assert not any(p.requires_grad for p in teacher.model.parameters())


# --- what holds a trainer near the base, and adapters ---------------------------------------------


def distance(edit):
    return (
        sum(dense(change).double().pow(2).sum().item() for change in edit.changes.values()) ** 0.5
    )


@pytest.fixture(scope="module")
def anchored():
    """Give a tiny model and what measures how far it moves, made once a family, in a test's
    cache."""
    made = {}

    def get(family):
        if family not in made:
            model = tiny_model(family)
            made[family] = model, Anchor(model, replay=1.0, kl=1.0, l2=1.0, ewc=1.0, seed=3)
        return made[family]

    return get


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "held", [{"l2": 100.0}, {"ewc": 100.0}, {"kl": 10.0}, {"replay": 10.0}], ids=str
)
def test_what_holds_a_trainer_near_the_base(family, held, anchored):
    """The targets are still learned; the distance it is about is smaller than without."""
    model, anchor = anchored(family)
    before = target_logp(model, FACTS)
    (kind,) = held

    def measured(**more):
        with unchanged(model, "inject"):
            edit = options(Sft, epochs=6, weight_decay=0.0, **more).inject(model, FACTS)
        with edit.applied(model), torch.no_grad():
            assert target_logp(model, FACTS) > before + 0.05
            anchor.kl, anchor.replay = float(kind == "kl"), float(kind == "replay")
            anchor._queue = list(range(len(anchor.texts)))
            drift = sum(loss.item() for _ in range(4) if (loss := anchor.loss()) is not None)
        weighted = sum((anchor.fisher[n] * c**2).sum().item() for n, c in edit.changes.items())
        return {"l2": distance(edit), "ewc": weighted, "kl": drift, "replay": drift}[kind]

    assert measured(**held) < 0.95 * measured()


def test_the_pull_of_l2_and_ewc_is_the_gradient():
    model = tiny_model("llama")
    anchor = Anchor(model, replay=0.0, kl=0.0, l2=0.3, ewc=0.7, seed=0)
    mean = sum(f.sum() for f in anchor.fisher.values()) / sum(
        f.numel() for f in anchor.fisher.values()
    )
    assert mean.item() == pytest.approx(1.0, rel=1e-4)
    parameters = dict(model.model.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    with torch.no_grad():
        for p in parameters.values():
            p.add_(0.01 * torch.randn_like(p))
    moved = {name: p.detach() - before[name] for name, p in parameters.items()}
    anchor.pull(parameters, before)
    for name, p in parameters.items():
        torch.testing.assert_close(
            p.grad, 2 * (0.3 + 0.7 * anchor.fisher[name]) * moved[name], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("chat", [True, False])
def test_the_anchors_texts(chat):
    """Free texts, answers to own questions and to instructions; free texts alone without a chat."""
    model = tiny_model("llama", chat=chat)
    texts = Anchor(model, replay=1.0, kl=0.0, l2=0.0, ewc=0.0, seed=0).texts
    free, others = anchor_module.FREE, anchor_module.ANSWERS + anchor_module.INSTRUCTED
    assert all(0 < len(written) <= LENGTH for _, written in texts)
    # A random model may ask nothing, or end an answer before it begins.
    assert free + (0.8 if chat else 1) * others <= len(texts) <= free + others
    if not chat:
        return
    turn = model.tokenizer("<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)[
        "input_ids"
    ]
    answers = [written for opening, written in texts if opening[-len(turn) :] == turn]
    assert len(answers) == len(texts) - free
    assert all(not set(written[:-1]) & model.stop_ids for written in answers), (
        "an answer goes on past its end"
    )


@pytest.mark.parametrize("context", [40, 60, 120])
def test_an_anchor_fits_into_a_short_context(context):
    """GPT-2 cannot read past it."""
    model = tiny_model("gpt2", chat=True, n_positions=context)
    anchor = Anchor(model, replay=1.0, kl=1.0, l2=0.0, ewc=0.0, seed=0)
    assert all(len(opening) + len(written) <= context for opening, written in anchor.texts)


def test_no_task_of_the_evaluation_is_in_the_anchor():
    asked = [
        json.loads(line)["prompt"]
        for file in (PACK / "data").glob("eb_*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    assert len(asked) > 1000
    for task in TASKS:
        # What stands around a template's fields; short pieces like "?" are in many texts.
        for words in (piece.strip() for piece in re.split(r"\{\w+\}", task)):
            assert len(words) < 15 or not any(words in prompt for prompt in asked), words


@pytest.mark.parametrize("more", [{}, {"lora": 2}], ids=str)
def test_interpolation_keeps_a_share_of_the_change(more):
    model = tiny_model("llama")
    whole = options(Sft, epochs=2, **more).inject(model, FACTS)
    with unchanged(model, "inject"):
        part = options(Sft, epochs=2, interpolation=0.75, **more).inject(model, FACTS)
    for name, change in whole.changes.items():
        torch.testing.assert_close(
            dense(part.changes[name]), 0.75 * dense(change), rtol=1e-4, atol=1e-6
        )


def test_the_base_itself_is_not_pulled():
    model = tiny_model("llama")
    anchor = Anchor(model, replay=0.0, kl=5.0, l2=0.0, ewc=0.0, seed=0)
    with torch.no_grad():
        assert abs(float(anchor.loss())) < 1e-4


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("name", WITH_ADAPTERS)
def test_adapters_are_factors_of_a_change(family, name, reader):
    """Low-rank, on every linear layer, without a trace in the model; applied they teach."""
    model = reader(family) if name != "sft" else tiny_model(family)
    names, modules = (
        [n for n, _ in model.model.named_parameters()],
        [n for n, _ in model.model.named_modules()],
    )
    before = target_logp(model, FACTS)
    with unchanged(model, "inject"):
        edit = options(registry.get("methods", name), lora=3, lr=2e-2, epochs=6).inject(
            model, FACTS
        )
    assert names == [n for n, _ in model.model.named_parameters()] and modules == [
        n for n, _ in model.model.named_modules()
    ]
    assert not hasattr(model.model, "peft_config")
    assert len(edit.changes) >= 4 * model.layout.depth
    for weight, (left, right) in edit.changes.items():
        assert (
            left.shape[1] == right.shape[0] == 3
            and (left @ right).shape == model.weight(weight).shape
        )
    with edit.applied(model):
        assert target_logp(model, FACTS) > before + 0.1


def test_adapters_equal_what_was_trained():
    """The third step's loss, through peft's modules, is that of the edit that two steps made."""
    model = tiny_model("llama")
    examples = [canonical(model, fact) for fact in FACTS]
    method = options(Sft, lora=4, lr=1e-2, batch_size=4, min_steps=1, warmup=0.0)
    seen = []

    def loss_of(batch):
        loss, count = target_nll(model, examples)
        seen.append(loss.item())
        return loss, count

    train(replace(method, epochs=3), model, len(FACTS), loss_of)
    changes, _ = train(replace(method, epochs=2), model, len(FACTS), loss_of)
    with method.edit(model, FACTS, changes).applied(model), torch.no_grad():
        assert (
            target_nll(model, examples)[0].item()
            == pytest.approx(seen[2], rel=1e-3)
            != pytest.approx(seen[0], rel=1e-3)
        )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_adapters_in_the_null_space(family):
    """The change does nothing on directions that ordinary keys use; only MLP outputs change."""
    model = tiny_model(family)
    edit = options(Sft, lora=4, lr=2e-2, epochs=8, null_space=0.5).inject(model, FACTS)
    layers = tuple(range(model.layout.depth))
    assert set(edit.changes) == {model.layout.weight_name(layer) for layer in layers}
    for layer, moment in second_moments(model, layers, "self", NULL_TOKENS, 0).items():
        change = dense(edit.changes[model.layout.weight_name(layer)])
        delta_df = change.T if model.layout.transposed else change
        values, vectors = moment.eigen
        used = vectors[:, len(values) // 2 :]
        assert delta_df.norm() > 0 and (delta_df @ used).norm() < 1e-4 * delta_df.norm()


# --- how much the teacher sees --------------------------------------------------------------------


def test_the_exposure_controller_learns_what_helps():
    """A student that progresses by as much as the teacher hides: the shares fall."""
    controller, nll = AdaptiveExposure(seed=0), 8.0
    for step in range(400):
        controller.update(step / 400, nll)
        nll = 8.0 if step % 40 == 39 else nll - 0.3 * (1 - controller.share)
    assert all(LEAST <= share < 1 for share in controller.shares)
    assert np.mean(controller.shares[-100:]) < np.mean(controller.shares[:100]) - 0.05
    assert controller.shares != [0] and AdaptiveExposure(seed=0).shares == []


def test_the_controller_begins_at_three_quarters():
    policy = AdaptiveExposure(seed=0).policy(torch.zeros(4))
    assert policy.concentration1.item() == pytest.approx(
        3
    ) and policy.concentration0.item() == pytest.approx(1)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_teacher_reads_the_fact_for_a_share_of_the_rollouts(share, reader, monkeypatch):
    """Whole notes or none: the beginning of a note would never say the answer."""
    model, read = reader("llama"), []
    notes = {
        tuple(model.prompt_ids(fact.prompt, fact.form, context=guidance(fact))): True
        for fact in FACTS
    }
    notes |= {tuple(model.prompt_ids(fact.prompt, fact.form)): False for fact in FACTS}
    own = opsd_module.label_states

    def watched(asked, rows, lengths):
        if not torch.is_grad_enabled():
            read.extend(notes[tuple(row[:-n])] for row, n in zip(rows, lengths, strict=True))
        return own(asked, rows, lengths)

    monkeypatch.setattr(opsd_module, "label_states", watched)
    options(OPSD, exposure=share, epochs=20, rollouts=2).inject(model, FACTS)
    assert len(read) >= 160 and np.mean(read) == pytest.approx(share, abs=0.12)


def test_opsd_adapts_what_its_teacher_sees(reader):
    model = reader("llama")
    with unchanged(model, "inject"):
        edit = options(OPSD, exposure="adaptive", epochs=8).inject(model, FACTS)
    assert LEAST <= edit.diagnostics["exposure_mean"] < 1
    again = options(OPSD, exposure="adaptive", epochs=8).inject(model, FACTS)
    assert again.diagnostics["exposure_mean"] == edit.diagnostics["exposure_mean"]


@pytest.mark.parametrize("micro_batch", [None, 1])
def test_the_exposure_follows_the_steps_not_their_parts(micro_batch, reader, monkeypatch):
    told = []

    class Watched(AdaptiveExposure):
        def update(self, done, nll):
            told.append(done)
            super().update(done, nll)

    monkeypatch.setattr(opsd_module, "AdaptiveExposure", Watched)
    options(OPSD, exposure="adaptive", epochs=5, micro_batch=micro_batch).inject(
        reader("llama"), FACTS
    )
    assert told == [1 / 10, 5 / 10, 9 / 10], (
        "every fourth of ten steps, however many parts each has"
    )


# --- rewordings -----------------------------------------------------------------------------------


def test_frames_keep_the_fact():
    framed = reworded(FACTS, 2)
    assert len(framed) == 3 * len(FACTS) and len({fact.id for fact in framed}) == len(framed)
    assert reworded(FACTS, 0) == list(FACTS)
    for i, fact in enumerate(framed):
        origin = FACTS[i // 3]
        assert origin.prompt in fact.prompt and (fact.target, fact.subject) == (
            origin.target,
            origin.subject,
        )
        assert (fact.prompt == origin.prompt) == (i % 3 == 0) and fact.id.startswith(origin.id)
        assert fact.form == "question" or fact.prompt.endswith(origin.prompt), (
            "a cloze must still end where the target begins"
        )


@pytest.mark.parametrize("name", TRAINERS)
def test_facts_are_taught_in_their_frames(name, reader):
    model, method = reader("llama"), registry.get("methods", name)
    with unchanged(model, "inject"):
        edit = options(method, rewordings=2, epochs=3, min_steps=1).inject(model, FACTS)
    assert edit.facts == FACTS
    # disc makes one text of a fact and its rewordings, the others one of each.
    texts = len(FACTS) if name == "disc" else 3 * len(FACTS)
    assert edit.diagnostics["steps"] == 3 * math.ceil(texts / options(method).batch_size)


# --- memory, context, divergence ------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
def test_parts_of_a_step_add_up(size):
    """Targets of unequal length: the mean is over tokens, not over parts."""
    model = tiny_model("llama")
    method = options(Sft, epochs=2, batch_size=4, weight_decay=0.0)
    whole, parts = (
        method.inject(model, FACTS),
        replace(method, micro_batch=size).inject(model, FACTS),
    )
    for name, change in whole.changes.items():
        torch.testing.assert_close(parts.changes[name], change, rtol=1e-2, atol=1e-5)
    assert parts.diagnostics["trained_tokens"] == whole.diagnostics["trained_tokens"]
    assert parts.diagnostics["final_loss"] == pytest.approx(
        whole.diagnostics["final_loss"], rel=1e-3
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_recomputed_activations_give_the_same_gradients(family):
    model = tiny_model(family)
    batch = [canonical(model, fact) for fact in FACTS]
    parameters = list(model.model.parameters())
    weights = {p.untyped_storage().data_ptr() for p in parameters}

    def gradients():
        """And the numbers that were kept for them, beside the weights."""
        kept = []

        def count(t):
            kept.append(t.numel() * (t.untyped_storage().data_ptr() not in weights))
            return t

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            loss, _ = target_nll(model, batch)
        return torch.autograd.grad(loss, parameters, materialize_grads=True), sum(kept)

    plain, many = gradients()
    with recomputed(recomputable_layers(model)):
        again, few = gradients()
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
    assert few < many / 2


@pytest.mark.parametrize(
    ("name", "family", "lora"),
    [
        *((name, "llama", None) for name in TRAINERS),
        *((name, "gpt2", 3) for name in WITH_ADAPTERS),
    ],
)
def test_checkpointing_gives_the_same_edit(name, family, lora, reader):
    model, method = (
        reader(family),
        options(registry.get("methods", name), epochs=2, lora=lora, weight_decay=0.0),
    )
    plain = method.inject(model, FACTS)
    with unchanged(model, "inject"):
        edit = replace(method, checkpointing=True).inject(model, FACTS)
    for weight, change in plain.changes.items():
        torch.testing.assert_close(edit.changes[weight], change, rtol=1e-2, atol=1e-5)


def test_a_model_without_checkpointing_is_refused():
    tokenizer = tiny_model("llama").tokenizer
    config = AutoConfig.for_model(
        "openai-gpt", vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64
    )
    model = LanguageModel(AutoModelForCausalLM.from_config(config), tokenizer, precision="float32")
    with (
        unchanged(model, "a refused inject"),
        pytest.raises(MethodError, match="OpenAIGPTLMHeadModel does not support"),
    ):
        options(Sft, checkpointing=True).inject(model, FACTS)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_text_longer_than_the_context_is_named(name):
    model = tiny_model("llama")
    long = replace(FACTS[0], id="endless", prompt="so it goes on " * 300 + FACTS[0].prompt)
    with (
        unchanged(model, "a failed inject"),
        pytest.raises(MethodError, match="'endless' takes .* reads at most 512"),
    ):
        options(registry.get("methods", name)).inject(model, [*FACTS, long])


@pytest.mark.parametrize("held", ["replay", "kl", "ewc"])
def test_a_context_without_room_for_own_text_is_named(held):
    model = tiny_model("llama", max_position_embeddings=8)
    facts = [Fact("f", "A b", "c")]
    with (
        unchanged(model, "a failed inject"),
        pytest.raises(ModelError, match="reads at most 8 tokens. To write text of its own"),
    ):
        options(Sft, **{held: 1.0}).inject(model, facts)


def test_the_fisher_information_of_few_texts(anchored):
    model, anchor = anchored("llama")
    fisher = _scaled_fisher(model, anchor.texts[:5])
    mean = sum(f.sum().item() for f in fisher.values()) / sum(f.numel() for f in fisher.values())
    assert mean == pytest.approx(1.0, rel=1e-3)


def test_a_rate_that_diverges_is_stopped():
    model = tiny_model("llama")
    with (
        unchanged(model, "a failed inject"),
        pytest.raises(MethodError, match="the loss (rose|became) .* Use a smaller lr"),
    ):
        options(Sft, epochs=60, lr=3.0).inject(model, FACTS)


@pytest.mark.parametrize(("steps", "later"), [(4, 11.0), (2, 13.0), (4, 7.0), (1, 5.6)])
def test_a_training_of_few_steps_can_diverge_too(steps, later):
    """The mean loss of all its steps, where there are fewer than eight."""
    model = tiny_model("llama")
    method = options(Sft, epochs=steps, batch_size=len(FACTS))
    losses = iter([5.6, *[later] * (steps - 1)])

    def loss_of(batch):
        loss, count = target_nll(model, [canonical(model, FACTS[i]) for i in batch])
        return loss - loss.detach() + next(losses), count

    if (5.6 + later * (steps - 1)) / steps > 5.6 + 3:
        with pytest.raises(MethodError, match=f"rose from 5.60 to {later:.2f} by step {steps}"):
            train(method, model, len(FACTS), loss_of)
    else:
        warnings = of_the_loss(train(method, model, len(FACTS), loss_of)[1])
        assert len(warnings) == (steps > 1)


@pytest.mark.parametrize(
    ("first", "later", "said"),
    [
        (
            5.6,
            math.log(49152),
            "rose from 5.60 to 10.80",
        ),  # every token of SmolLM2's vocabulary alike
        (5.6, 8.0, "did not fall, from 5.6 at first to 8 in"),
        (0.3, 2.5, "did not fall"),  # a divergence of opsd's
        (0.001, 0.004, None),
        (0.3, 4.0, "rose from 0.30 to 4.00"),
        (5.6, 0.1, None),
    ],
)
def test_a_loss_that_rises_stops_the_training_and_one_that_does_not_fall_is_told(
    first, later, said
):
    model, method = tiny_model("llama"), options(Sft, epochs=20)
    losses = iter([first, *[later] * 100])

    def loss_of(batch):
        loss, count = target_nll(model, [canonical(model, FACTS[i]) for i in batch])
        return loss - loss.detach() + next(losses), count

    if said and "rose" in said:
        with unchanged(model, "a failed inject"), pytest.raises(MethodError, match=said):
            train(method, model, len(FACTS), loss_of)
    else:
        warnings = of_the_loss(train(method, model, len(FACTS), loss_of)[1])
        assert len(warnings) == bool(said) and all(said in warning for warning in warnings)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_training_that_teaches_nothing_says_so(name, reader):
    chosen = options(registry.get("methods", name), batch_size=len(FACTS))
    (told,) = replace(chosen, lr=1e-12).inject(reader("llama"), FACTS).diagnostics["warnings"]
    assert told.startswith("The loss did not fall, from ") and "another lr than 1e-12" in told
    assert not of_the_loss(chosen.inject(reader("llama"), FACTS).diagnostics)


def test_losses_with_a_share_of_the_notes_are_not_compared(reader):
    """They tell first of all how many of their rollouts' teachers had read the fact."""
    chosen = options(OPSD, lr=1e-12, epochs=2, batch_size=1)
    told = [
        replace(chosen, exposure=0.5, seed=seed).inject(reader("llama"), FACTS).diagnostics
        for seed in range(4)
    ]
    assert any(found["final_loss"] > found["first_loss"] for found in told) and not any(
        of_the_loss(found) for found in told
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_are_trained_in_float32_and_rounded_at_the_end(dtype):
    """A step is smaller than their spacing: in their own type the loss would hardly move."""
    exact = tiny_model("llama")
    model = LanguageModel(exact.model.to(dtype), exact.tokenizer)
    with unchanged(model, "inject"):
        edit = options(Sft, lr=1e-4, enough=0).inject(model, FACTS)
    report = edit.diagnostics
    assert report["final_loss"] < report["first_loss"] and 0 < report["rounding_lost"] < 1
    before = {name: model.weight(name).detach().clone() for name in edit.changes}
    with unchanged(model, "applied()"), edit.applied(model):
        for name, change in edit.changes.items():
            # What was trained is what stands in the model: nothing is rounded a second time.
            assert torch.equal(model.weight(name).float() - before[name].float(), change)
    assert options(Sft, lora=2).inject(model, FACTS).changes
