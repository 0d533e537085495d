"""Diagnostics: each number against a plain transcription of its formula, and without a change."""

import importlib
import json
import math
import os
import statistics
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from editbench.edit import Edit
from editbench.errors import EditbenchError, ModelError
from editbench.eval.diagnostics import NAMES, _cache, check_names, diagnose, drift, errors, fisher
from editbench.eval.diagnostics.fisher import percentile_99
from editbench.eval.diagnostics.targets import answer_span
from editbench.eval.probes import ask
from editbench.methods.baselines import Base, InContext
from editbench.methods.mixsd import MixSD
from editbench.models import cache_dir
from editbench.testing import FACTS, tiny_model, unchanged
from editbench.types import Case, Fact, Probe

NOTHING = {"base_probes": [], "probes": [], "base_samples": [], "samples": []}


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch):
    monkeypatch.setattr(fisher, "FISHER_TOKENS", 96)
    monkeypatch.setattr(drift, "DRIFT_TOKENS", 160)
    monkeypatch.setattr(drift, "LOGITS_AT_ONCE", 50 * 420)  # chunks that end within texts


@pytest.fixture
def model():
    return tiny_model("llama")


def edit_of(model, changes=None, facts=FACTS, **rest):
    return Edit("mine", {}, model.name, model.fingerprint(), tuple(facts), changes or {}, **rest)


def noise(model, *names, scale=0.02, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: scale * torch.randn(model.weight(name).shape, generator=generator) for name in names
    }


def names_of(model, part):
    return [name for name, _ in model.model.named_parameters() if part in name]


def one(model, edit, name, seed=0, **rows):
    return diagnose(model, edit, [name], seed=seed, **{**NOTHING, **rows})[name]


def own(model, purpose, tokens, seed=0):
    return _cache.texts_of(model, purpose, tokens, seed)


@torch.no_grad()
def full_logp(model, opening, written):
    """Log-probabilities (T, V) at the written tokens, from the model's own logits, unpadded."""
    logits = model.model(torch.tensor([opening + written]), use_cache=False).logits[0]
    return logits[len(opening) - 1 : -1].double().log_softmax(-1)


# --- the whole ------------------------------------------------------------------------------------


def test_unknown_names_are_refused_with_the_known_ones(model):
    for call in (
        lambda: check_names(["drift", "drifft"]),
        lambda: one(model, edit_of(model), "drifft"),
    ):
        with pytest.raises(
            EditbenchError,
            match="'drifft'. Did you mean 'drift'",
        ):
            call()
    check_names(NAMES)


def test_only_the_named_ones_are_computed_in_their_order(model):
    found = diagnose(model, edit_of(model), ["errors", "mixing"], **NOTHING)
    assert list(found) == ["errors", "mixing"] and not cache_dir().joinpath("fisher").exists()
    assert diagnose(model, edit_of(model), [], **NOTHING) == {}


def test_a_model_with_the_edit_applied_is_refused(model):
    edit = edit_of(model, noise(model, "model.norm.weight"))
    with edit.applied(model), pytest.raises(ModelError, match="Revert earlier edits first"):
        diagnose(model, edit, ["supervision"], **NOTHING)


def test_the_model_stays_as_found_and_the_result_is_json(model):
    edit = edit_of(model, noise(model, *names_of(model, "mlp"), "model.embed_tokens.weight"))
    with unchanged(model, "diagnose"):
        found = diagnose(model, edit, NAMES, **NOTHING)
    assert list(found) == list(NAMES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    with unchanged(model, "diagnose"):
        assert diagnose(model, edit, NAMES, **NOTHING) == found  # now from the cache
    assert diagnose(model, edit, ["drift"], seed=1, **NOTHING)["drift"] != found["drift"]


@pytest.mark.parametrize("method", [Base(), InContext()])
def test_an_edit_that_changes_no_weight_moves_nothing(model, method):
    edit = method.inject(model, FACTS)
    found = diagnose(model, edit, NAMES, **NOTHING)
    assert found["supervision"] is None and found["mixing"] is None
    assert (
        found["fisher"]["displacement"] == found["fisher"]["squared_norm"] == 0
        and found["fisher"]["curvature"] is None
    )
    for key in ("kl", "nll_change"):
        assert {k: found["drift"][key][k] for k in ("mean", "low", "high", "n", "clusters")} == {
            "mean": 0,
            "low": 0,
            "high": 0,
            "n": 160,
            "clusters": 5,
        }
    assert found["drift"]["words_before"] == found["drift"]["words_after"]


def test_a_change_of_zeros_moves_nothing(model):
    edit = edit_of(
        model,
        {"model.embed_tokens.weight": torch.zeros_like(model.weight("model.embed_tokens.weight"))},
    )
    found = diagnose(model, edit, ["fisher", "drift"], **NOTHING)
    assert found["fisher"]["displacement"] == 0 and found["fisher"]["alignment_ratio"] is None
    assert found["drift"]["kl"]["mean"] == found["drift"]["kl"]["high"] == 0


def test_factors_and_their_product_give_the_same_numbers(model):
    name = "model.layers.2.mlp.down_proj.weight"
    generator = torch.Generator().manual_seed(3)
    left, right = (
        torch.randn(32, 2, generator=generator),
        0.02 * torch.randn(2, 56, generator=generator),
    )
    low_rank, dense = (
        edit_of(model, {name: (left, right)}),
        edit_of(model, {name: (left.double() @ right.double())}),
    )
    chosen = ("supervision", "fisher", "drift")
    assert diagnose(model, low_rank, chosen, **NOTHING) == diagnose(model, dense, chosen, **NOTHING)
    assert torch.equal(fisher.dense_copy((left, right)), left.double() @ right.double())


def test_weights_that_exploded_give_no_number(model):
    name = "model.layers.0.mlp.down_proj.weight"
    edit = edit_of(model, {name: torch.full_like(model.weight(name), math.nan)})
    one(model, edit_of(model), "drift")
    model._head_checked = False  # as in a run that finds all of the base in the cache
    found = diagnose(model, edit, ("drift", "fisher"), **NOTHING)
    assert found["drift"]["kl"]["mean"] is None and found["drift"]["kl"]["n"] == 0
    assert found["fisher"]["displacement"] is None
    json.dumps(found, allow_nan=False)


# --- supervision and mixing -----------------------------------------------------------------------


def test_supervision_is_the_nll_of_demonstration_or_target_with_eos(model):
    facts = (FACTS[0], replace(FACTS[1], demonstration="It was Irene Voss."), FACTS[3])
    found = one(model, edit_of(model, noise(model, "model.norm.weight"), facts), "supervision")
    nll, by_target = [], []
    for fact, target in zip(facts, ("Karsk", "It was Irene Voss.", "Mara Lind"), strict=True):
        prompt, ids = model.pair_ids(fact.prompt, target, fact.form)
        ids = [*ids, model.tokenizer.eos_token_id]
        nll += [
            -row[token].item()
            for row, token in zip(full_logp(model, prompt, ids), ids, strict=True)
        ]
        by_target.append(nll[-len(ids) :])
    assert found["tokens"] == len(nll) and found["targets"] == 3
    assert found["nll"] == pytest.approx(sum(nll) / len(nll), rel=1e-5)
    assert found["median"] == pytest.approx(float(np.median(nll)), rel=1e-5)
    assert (
        found["rare"] == pytest.approx(sum(math.exp(-x) < 0.01 for x in nll) / len(nll))
        and 0 < found["rare"]
    )
    assert found["nll_above_5"] == pytest.approx(sum(x > 5 for x in nll) / len(nll))
    assert 0 < found["nll_above_5"] <= found["rare"]
    # Student's t of 2 degrees of freedom times the cluster-robust error of a ratio of two sums.
    mean = sum(nll) / len(nll)
    error = math.sqrt(3 / 2 * sum(sum(x - mean for x in one) ** 2 for one in by_target)) / len(nll)
    for end, sign in (("nll_low", -1), ("nll_high", 1)):
        assert found[end] == pytest.approx(mean + sign * 4.3026527 * error, rel=1e-4)


def test_the_interval_of_a_share_of_tokens_lies_in_0_to_1():
    """Wilson's with the error of the mean; where all tokens agree it is not without width."""
    from editbench.eval.diagnostics.targets import _token_share

    none, one = np.zeros(4, dtype=bool), np.array([True, False, False, False])
    rare = _token_share([one, *[none] * 9])
    assert rare.mean == 1 / 40 and 0 < rare.low < 1 / 40 < rare.high < 0.2
    for flag, (low, high) in ((False, (0.0, 0.3624)), (True, (0.6376, 1.0))):
        agreed = _token_share([np.full(4, flag)] * 10)
        assert (agreed.low, agreed.high) == pytest.approx((low, high), abs=1e-3)
    assert math.isnan(_token_share([one]).low)


def record(fact, ids, picked, attempt=0, source="mixed"):
    return {
        "fact": fact.id,
        "ids": ids,
        "naive_picked": picked,
        "attempt": attempt,
        "source": source,
    }


def test_supervision_of_recorded_ids(model):
    """What was trained on: the ids, the canonical target in their place, or nothing."""
    change = noise(model, "model.norm.weight")
    records = [
        record(FACTS[0], [65, 70, 300], [True, False, True]),
        record(FACTS[1], [9] * 5, [False] * 5, 9, "target"),
        record(FACTS[2], [8] * 5, [False] * 5, 9, "dropped"),
    ]
    found = one(model, edit_of(model, change, FACTS[:3], records=records), "supervision")
    first = full_logp(model, model.prompt_ids(FACTS[0].prompt), [65, 70, 300])
    by_hand = -sum(first[t, token].item() for t, token in enumerate([65, 70, 300]))
    canonical = one(model, edit_of(model, change, FACTS[1:2]), "supervision")
    assert found["targets"] == 2 and found["tokens"] == 3 + canonical["tokens"]
    assert found["nll"] * found["tokens"] == pytest.approx(
        by_hand + canonical["nll"] * canonical["tokens"], rel=1e-5
    )
    others = [{"fact": "moon", "ids": "not tokens"}, {"weight": 1}]
    assert (
        one(model, edit_of(model, change, FACTS[1:2], records=others), "supervision") == canonical
    )


def test_supervision_counts_each_text_of_a_fact(model):
    change = noise(model, "model.norm.weight")
    several = [
        record(FACTS[0], [65, 70, 300], [True, False, True]),
        record(FACTS[0], [65, 70], [True, False]),
        {"fact": FACTS[0].id, "frame": 0, "ids": [1], "source": "canonical"},
    ]
    each = [
        one(model, edit_of(model, change, FACTS[:1], records=[r]), "supervision") for r in several
    ]
    found = one(model, edit_of(model, change, FACTS[:1], records=several), "supervision")
    assert found["targets"] == 3 and each[2]["tokens"] > 1
    assert found["tokens"] == sum(e["tokens"] for e in each)
    assert found["nll"] * found["tokens"] == pytest.approx(
        sum(e["nll"] * e["tokens"] for e in each), rel=1e-5
    )


def test_loss_and_gradient_by_position(model):
    """By hand: the gradient of one token's loss at a time, of all weights together."""
    facts = FACTS[:2]
    flags = [p.requires_grad for p in model.model.parameters()]
    found = one(model, edit_of(model, noise(model, "model.norm.weight"), facts), "positions")
    assert [p.requires_grad for p in model.model.parameters()] == flags
    nll, norms = {}, {}
    for fact in facts:
        prompt, ids = model.pair_ids(fact.prompt, fact.target, fact.form)
        ids = [*ids, model.tokenizer.eos_token_id]
        for t, token in enumerate(ids):
            part = "first" if t == 0 else f"quarter_{1 + int(4 * t / len(ids))}"
            copy = deepcopy(model.model)
            logits = copy(torch.tensor([[*prompt, *ids[:t]]])).logits[0, -1]
            loss = -logits.log_softmax(-1)[token]
            loss.backward()
            squares = [p.grad.square().sum() for p in copy.parameters() if p.grad is not None]
            nll.setdefault(part, []).append(loss.item())
            norms.setdefault(part, []).append(torch.stack(squares).sum().sqrt().item())
    assert len(nll["first"]) == found["targets"] == 2 and len(nll) >= 3
    for part, told in found["parts"].items():
        assert told["tokens"] == len(nll.get(part, ()))
        for name, values in (("nll", nll), ("gradient", norms)):
            mean = np.mean(values[part]) if part in values else None
            assert told[name] == (mean if mean is None else pytest.approx(mean, rel=1e-3))
    for name, values in (("nll", nll), ("gradient", norms)):
        share = sum(values["first"]) / sum(map(sum, values.values()))
        assert found[f"first_{name}_share"] == pytest.approx(share, rel=1e-3)
    assert found["first_token_share"] == 2 / sum(map(len, nll.values()))


def test_the_first_part_is_what_the_option_first_trains():
    from editbench.eval.diagnostics.positions import TOKENS, chosen, parts_of
    from editbench.methods._train.lessons import opening

    for length in (1, 2, 19, 21, 40, 41, 200):
        parts = parts_of(length)
        assert [t for t, part in enumerate(parts) if part == "first"] == sorted(
            opening(length, 0.05)
        )
        assert parts == sorted(parts) and len(parts) == length
    assert parts_of(8)[1:] == ["quarter_1"] + 2 * ["quarter_2"] + 2 * ["quarter_3"] + 2 * [
        "quarter_4"
    ]
    many = [([1], [i] * 10) for i in range(100)]
    kept = chosen(many)
    assert 0.7 * TOKENS < 10 * len(kept) <= TOKENS and kept[0] == many[0] and kept[-1][1][0] > 90


def test_the_records_of_mixsd(reader):
    """The NLL is that of the naive branch while it wrote; the shares are the method's own."""
    model = reader("llama")
    edit = MixSD(epochs=1, min_steps=1, lam=0.5, expert_prompt="before").inject(model, FACTS)
    trained = [r for r in edit.records if r["source"] not in ("target", "dropped")]
    assert len(trained) == len(edit.records), "the reader no longer reads; choose another one"
    found = diagnose(model, edit, ["supervision", "mixing"], **NOTHING)
    naive = [logp for r in trained for logp in r["naive_logp"]]
    assert found["supervision"]["nll"] == pytest.approx(-sum(naive) / len(naive), abs=1e-3)
    mixed = found["mixing"]
    picks = (
        mixed["lam_answer"] * mixed["answer_tokens"]
        + (mixed["lam_filler"] or 0) * mixed["filler_tokens"]
    )
    tokens = mixed["answer_tokens"] + mixed["filler_tokens"]
    assert tokens == len(naive) and picks / tokens == pytest.approx(
        edit.diagnostics["effective_lambda"]
    )
    assert mixed["mean_tokens"] == tokens / len(trained) and mixed["without_answer"] == 0
    assert mixed["verified_by_attempt"][0] == edit.diagnostics["verified_at_once"]
    assert mixed["verified_by_attempt"][-1] == edit.diagnostics["verified"]


@pytest.mark.parametrize(
    ("pieces", "answers", "stating"),
    [
        (["It", " is", " Karsk", ", the", " Karsk"], ["Karsk"], [" Karsk"]),
        (["It is", " Ka", "rsk", "."], ["Karsk"], [" Ka", "rsk"]),
        (["Niger", "ia", ", not", " Niger"], ["Niger"], [" Niger"]),
        (["the", " Big", " Smoke", " is London"], ["London", "Big Smoke"], [" Big", " Smoke"]),
        (["no", " such", " thing"], ["Karsk"], []),
        (["Karsk"], ["Karsk"], ["Karsk"]),
        (["wor", "Karsk", " Karsk"], ["Karsk"], [" Karsk"]),
    ],
)
def test_the_tokens_that_state_the_target(pieces, answers, stating):
    class Pieces:
        def decode(self, ids):
            return "".join(pieces[i] for i in ids)

    span = answer_span(Pieces(), range(len(pieces)), answers)
    assert [pieces[i] for i in span] == stating


def test_mixing_by_hand(model):
    def ids(text):
        return model.tokenizer(text, add_special_tokens=False)["input_ids"]

    before, answer, after = ids("It is"), ids(" Karsk"), ids(" now.")
    picks = [True] * len(before) + [False] * len(answer) + [True] + [False] * (len(after) - 1)
    lost = ids("I do not know")
    edit = edit_of(
        model,
        records=[
            record(FACTS[0], before + answer + after, picks, attempt=2),
            record(FACTS[1], lost, [True] * len(lost), attempt=9, source="unverified"),
            record(FACTS[2], lost, [False] * len(lost), attempt=9, source="dropped"),
            record(FACTS[3], ids("Mara Lind"), [False] * len(ids("Mara Lind")), attempt=0),
        ],
    )
    found = one(model, edit, "mixing")
    filler = len(before) + len(after) + len(lost)
    assert (
        found["answer_tokens"] == len(answer) + len(ids("Mara Lind"))
        and found["filler_tokens"] == filler
    )
    assert found["lam_answer"] == 0 and found["lam_filler"] == pytest.approx(
        (len(before) + 1 + len(lost)) / filler
    )
    assert found["verified_by_attempt"] == [0.25, 0.25, 0.5] and found["without_answer"] == 1
    assert found["mean_tokens"] == pytest.approx((found["answer_tokens"] + filler) / 3)


# --- fisher ---------------------------------------------------------------------------------------


def fisher_by_hand(model, seed=0):
    """Sum of the squared gradients of each text's log-likelihood, from full logits, / tokens."""
    texts = own(model, "fisher", 96, seed)
    found = {
        name: torch.zeros(p.shape, dtype=torch.float64)
        for name, p in model.model.named_parameters()
    }
    for opening, written in texts:
        model.model.zero_grad()
        logits = model.model(torch.tensor([opening + written]), use_cache=False).logits[
            0, len(opening) - 1 : -1
        ]
        logits.log_softmax(-1)[torch.arange(len(written)), written].sum().backward()
        for name, p in model.model.named_parameters():
            found[name] += p.grad.double() ** 2 / sum(len(w) for _, w in texts)
    model.model.zero_grad()
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_fisher_against_the_formula(family):
    model = tiny_model(family)
    names = [
        *names_of(model, "mlp")[:3],
        next(n for n in names_of(model, "") if "emb" in n or "wte" in n),
    ]
    changes = noise(model, *names)
    found = one(model, edit_of(model, changes), "fisher")
    information = fisher_by_hand(model)
    displacement = sum((information[n] * c.double() ** 2).sum().item() for n, c in changes.items())
    squared_norm = sum((c.double() ** 2).sum().item() for c in changes.values())
    everything = torch.cat([f.flatten() for f in information.values()])
    assert found["displacement"] == pytest.approx(displacement, rel=1e-3) and displacement > 0
    assert found["squared_norm"] == pytest.approx(squared_norm)
    assert found["curvature"] == pytest.approx(displacement / squared_norm, rel=1e-3)
    assert found["alignment_ratio"] == pytest.approx(
        displacement / squared_norm / everything.mean().item(), rel=1e-3
    )
    changed = torch.cat([information[n].flatten() for n in names])
    inside = changed >= changed.topk(len(changed) // 100).values[-1]
    share = (
        torch.cat([changes[n].flatten() for n in names]).double() ** 2 * inside
    ).sum().item() / squared_norm
    assert found["top_share"] == pytest.approx(share, rel=1e-2)


def test_fisher_of_one_weight_and_of_a_random_change_of_all(model):
    information = fisher_by_hand(model)
    name = "model.layers.1.mlp.up_proj.weight"
    change = torch.zeros_like(model.weight(name))
    change[3, 4] = 0.5
    found = one(model, edit_of(model, {name: change}), "fisher")
    assert found["curvature"] == pytest.approx(information[name][3, 4].item(), rel=1e-3)
    assert found["squared_norm"] == 0.25 and found["top_share"] in (0.0, 1.0)
    everywhere = noise(model, *information)
    assert 0.7 < one(model, edit_of(model, everywhere), "fisher")["alignment_ratio"] < 1.4
    twice = {name: 2 * change for name, change in everywhere.items()}
    one_, two = (one(model, edit_of(model, c), "fisher") for c in (everywhere, twice))
    assert two["displacement"] == pytest.approx(4 * one_["displacement"], rel=1e-6)
    assert two["alignment_ratio"] == pytest.approx(one_["alignment_ratio"], rel=1e-6)


def test_the_alignment_ratio_is_1_for_random_directions_in_expectation(model):
    """Each direction spans all weights; the mean over directions has a small error."""
    information = fisher_by_hand(model)
    ratios = [
        one(model, edit_of(model, noise(model, *information, seed=seed)), "fisher")[
            "alignment_ratio"
        ]
        for seed in range(12)
    ]
    error = statistics.stdev(ratios) / math.sqrt(12)
    assert abs(statistics.mean(ratios) - 1) < 4 * error and error < 0.05


def test_the_alignment_ratio_of_a_gradient_is_larger(model):
    """A gradient is large where the Fisher information is, also that of a text outside of F."""
    opening, written = own(model, "drift", 96)[0]
    ids = torch.tensor([opening + written])
    model.model.zero_grad()
    model.model(ids, labels=ids, use_cache=False).loss.backward()
    parameters = dict(model.model.named_parameters())
    step = {name: -0.1 * p.grad for name, p in parameters.items() if p.grad is not None}
    model.model.zero_grad()
    flat = {name: 1 / (1e-6 + f.sqrt()).float() for name, f in fisher_by_hand(model).items()}
    ratio = one(model, edit_of(model, step), "fisher")["alignment_ratio"]
    assert ratio > 2 and one(model, edit_of(model, flat), "fisher")["alignment_ratio"] < 0.5


def test_the_percentile_exact_and_sampled(monkeypatch):
    values = torch.arange(1000.0)[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    assert (
        percentile_99([values[:300].reshape(3, 100), values[300:]]) == 989
    )  # 990 to 999 lie above
    monkeypatch.setattr(fisher, "SAMPLE", 20_000)
    big = [torch.rand(400, 500, generator=torch.Generator().manual_seed(s)) for s in range(2)]
    limit = percentile_99(big)
    assert (
        limit == percentile_99(big)
        and abs(sum((b > limit).double().mean().item() for b in big) / 2 - 0.01) < 0.003
    )


def test_fisher_is_computed_once_for_a_model(model, monkeypatch):
    edit = edit_of(model, noise(model, "model.norm.weight"))
    first = one(model, edit, "fisher")
    (path,) = (cache_dir() / "fisher").iterdir()
    monkeypatch.setattr(fisher, "diagonal_fisher", lambda *_: pytest.fail("computed again"))
    assert one(model, edit, "fisher") == first
    other = tiny_model("llama", seed=1)
    for different in (
        lambda: one(model, edit, "fisher", seed=1),
        lambda: one(other, edit_of(other, edit.changes), "fisher"),
    ):
        with pytest.raises(pytest.fail.Exception):
            different()
    assert list((cache_dir() / "fisher").iterdir()) == [path]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],
        lambda data: b"",
        lambda data: b"\x00" * 64 + data,
        lambda data: data[:-1] + b"\x07",
    ],
)
def test_a_damaged_cache_costs_time_only(model, damage):
    edit = edit_of(model, noise(model, *names_of(model, "down_proj")))
    first = diagnose(model, edit, ("fisher", "drift"), **NOTHING)
    for kind in ("fisher", "drift"):
        (path,) = (cache_dir() / kind).iterdir()
        whole = path.read_bytes()
        path.write_bytes(damage(whole))
        assert one(model, edit, kind) == first[kind]
        assert path.read_bytes() == whole and list(path.parent.iterdir()) == [path]


def test_a_read_only_cache_costs_time_only(model, monkeypatch, tmp_path):
    edit = edit_of(model, noise(model, *names_of(model, "down_proj")))
    first = diagnose(model, edit, ("fisher", "drift"), **NOTHING)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDITBENCH_CACHE", str(tmp_path / "file" / "below"))
    assert diagnose(model, edit, ("fisher", "drift"), **NOTHING) == first


# --- drift ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("llama", "mlp"),
        ("llama", "embed_tokens"),
        ("mistral", "lm_head"),
        ("mistral", ""),
        ("gpt2", "wte"),
        ("gemma2", ""),
    ],
)
def test_drift_against_full_logits(family, part):
    """Also where the head changes: tied to the embeddings, on its own, with a soft cap."""
    model = tiny_model(family)
    edit = edit_of(model, noise(model, *names_of(model, part)))
    found = one(model, edit, "drift")
    texts = own(model, "drift", 160)
    base = [full_logp(model, *text) for text in texts]
    with edit.applied(model):
        edited = [full_logp(model, *text) for text in texts]
    kl = [(b.exp() * (b - e)).sum(-1).mean().item() for b, e in zip(base, edited, strict=True)]
    places = torch.arange(32)
    nll = [
        (b - e)[places, w].mean().item() for b, e, (_, w) in zip(base, edited, texts, strict=True)
    ]
    assert len(texts) == 5 and found["kl"]["n"] == 160 and found["kl"]["clusters"] == 5
    assert (
        found["kl"]["mean"] == pytest.approx(sum(kl) / 5, rel=1e-3, abs=1e-6)
        and found["kl"]["mean"] > 1e-4
    )
    assert found["nll_change"]["mean"] == pytest.approx(sum(nll) / 5, rel=1e-3, abs=1e-5)
    half = 2.7764451 * statistics.stdev(kl) / math.sqrt(5)  # Student's t of 4 degrees of freedom
    assert found["kl"]["high"] - found["kl"]["mean"] == pytest.approx(half, rel=1e-2, abs=1e-6)
    assert found["kl"]["mean"] - found["kl"]["low"] == pytest.approx(half, rel=1e-2, abs=1e-6)


def test_a_larger_change_drifts_further(model):
    names = names_of(model, "mlp")
    small, large = (
        one(model, edit_of(model, noise(model, *names, scale=s)), "drift")["kl"]["mean"]
        for s in (0.01, 0.04)
    )
    assert 4 * small < large


def test_the_texts_of_drift_and_fisher_differ(model):
    assert own(model, "drift", 96) != own(model, "fisher", 96) != own(model, "fisher", 96, seed=1)
    assert own(model, "drift", 96) == own(model, "drift", 96)


def test_words_of_free_answers(model):
    """A model that ends every answer at once answers in no words."""
    wanted = [
        len(model.generate(q, "question", drift.ANSWER_TOKENS).split()) for q in drift.QUESTIONS
    ]
    mute = tiny_model("mistral")
    eos, head = mute.tokenizer.eos_token_id, mute.weight("lm_head.weight")
    change = -head.detach().clone()
    change[eos] = 0
    lengths = one(model, edit_of(model, noise(model, "model.norm.weight")), "drift")
    assert lengths["words_before"] == pytest.approx(sum(wanted) / 12) and sum(wanted) > 0
    with edit_of(mute, {"lm_head.weight": change}).applied(mute):
        after = [mute.generate(q, "question", drift.ANSWER_TOKENS) for q in drift.QUESTIONS]
    found = one(mute, edit_of(mute, {"lm_head.weight": change}), "drift")
    assert found["words_after"] == sum(len(text.split()) for text in after) / 12


# --- errors ---------------------------------------------------------------------------------------

TAUGHT = (
    Fact("a", "The capital of Velmora is", "Karsk", subject="Velmora", aliases=("Karsk City",)),
    Fact("b", "Its river is the", "Ilme"),
)
LONG = "Tea is made of leaves, hot water and some patience."


def samples(*items, task="t", metric="exact_match"):
    """Base and edited rows of (prompt, expected, before, after), all right before and wrong now."""
    shared = [
        {"task": task, "member": task, "doc_id": i, "prompt": p, "expected": e, "metric": metric}
        for i, (p, e, _, _) in enumerate(items)
    ]
    base = [
        {**row, "output": before, "score": 1.0}
        for row, (_, _, before, _) in zip(shared, items, strict=True)
    ]
    return base, [
        {**row, "output": after, "score": 0.0}
        for row, (_, _, _, after) in zip(shared, items, strict=True)
    ]


@pytest.mark.parametrize(
    ("prompt", "expected", "before", "after", "kind"),
    [
        ("How?", "tea", LONG, " \n", "format"),
        ("2 + 2 =", "4", "4", "four", "format"),
        ("2 + 2 =", "4", "4", "5", "genuine"),
        ("Sum?", "First we add.\n#### 1,234", "It is 1234, since so it is.", "no idea", "format"),
        ("How?", "tea", LONG, "It is Karsk.", "leakage"),
        ("How?", "tea", LONG, "karsk city!", "leakage"),
        ("How?", "tea", LONG, "Karskov is it, with all that it means.", "genuine"),
        ("Is Karsk large?", "yes", "yes, it is", "Karsk is not", "genuine"),
        ("Is Karsk large?", "yes", "yes, it is", "Karsk on the Ilme is not", "leakage"),
        ("Where?", "Karsk or Rome", LONG, "Karsk with all that it means", "genuine"),
        ("Where?", "tea", "tea, as they do in Karsk", "coffee, as they do in Karsk", "genuine"),
        ("How?", "tea", LONG, "As they do in Velmora, so it is said.", "leakage"),
        ("What of Velmora?", "tea", LONG, "It is a land, so it is said.", "genuine"),
        ("Call it.", '{"name": "tea"}', '{"name": "tea"}', "I am in London.", "format"),
        ("Call it.", '{"name": "tea"}', '{"name": "tea"}', '{"name": "milk"}', "genuine"),
        ("How?", "tea", LONG, "With water.", "collapse"),
        ("How?", "tea", LONG, "The answer is hot water with some lemon.", "collapse"),
        ("How?", "tea", LONG, "The answer is coffee.\n\n\\boxed{coffee}", "collapse"),
        ("How?", "tea", "The answer is tea.", "Coffee", "genuine"),  # the base wrote no more
        ("How?", "tea", 40 * "tea ", "internationally " * 6, "genuine"),  # more than 80 characters
        ("How?", "tea", LONG, "With cold water.", "genuine"),  # 3 of 10 words
        ("How?", "tea", "It is tea.", "No", "genuine"),  # only 2 words shorter
        ("How?", "tea", "It is made of tea", "No", "collapse"),
    ],
)
def test_kinds_of_errors(prompt, expected, before, after, kind):
    base, now = samples((prompt, expected, before, after))
    found = errors.measure(TAUGHT, [], [], base, now)["retention"]["t"]
    assert {k: found[k] for k in errors.KINDS} == {k: int(k == kind) for k in errors.KINDS}
    assert found["examples"] == {
        kind: {"prompt": prompt, "expected": expected, "before": before, "after": after}
    }


@pytest.mark.parametrize(
    "after",
    [
        "",
        "The answer is coffee.\n\n\\boxed{coffee}",
        "\\boxed{coffee}",
        "It is Karsk City.\n\\boxed{Karsk City}",
        "They boil beans in water, wait for a while, and pour it into a cup, which gives a drink "
        "that many like in the morning.\n\\boxed{coffee}",
    ],
)
def test_kinds_of_errors_are_those_of_the_original_code(after, monkeypatch):
    """On long boxed answers about invented names of two words, for which its rules are made."""
    folder = Path(os.environ.get("EDITBENCH_REFERENCE", "absent")) / "MixSD"
    if not folder.is_dir():
        pytest.skip("EDITBENCH_REFERENCE names no folder with the code of MixSD")
    monkeypatch.syspath_prepend(str(folder))
    original = importlib.import_module("mixsd.eval.error_analysis")
    wanted = original.classify_holdout_row(after, "How?", False, {"Karsk City"})
    before = f"{LONG} {LONG}\n\\boxed{{tea}}"
    lost = errors.Lost("How?", ["tea"], before, after, free=True)
    assert errors.kind_of(lost, ["Karsk City"]) == wanted


def test_choices_are_genuine_errors():
    base, now = samples(
        ("Which?", "tea", "tea", "Karsk"), ("Who?", "x", "greedy", ""), metric="acc_norm"
    )
    found = errors.measure(TAUGHT, [], [], base, now)["retention"]["t"]
    assert found["genuine"] == found["lost"] == found["base_right"] == 2


def test_only_what_the_base_had_right_counts_and_by_task():
    one_base, one_now = samples(
        ("a", "x", LONG, ""), ("b", "x", LONG, ""), ("c", "x", LONG, ""), task="one"
    )
    one_base[0]["score"] = 0.0
    one_now[1]["score"] = 1.0
    two_base, two_now = samples(
        ("p" * 300 + "end?", "e" * 300, LONG * 9, "b" + "a" * 300), task="two"
    )
    found = errors.measure(TAUGHT, [], [], one_base + two_base, two_now + one_now)["retention"]
    assert (found["one"]["base_right"], found["one"]["lost"], found["one"]["format"]) == (2, 1, 1)
    assert found["one"]["examples"]["format"]["prompt"] == "c"
    example = found["two"]["examples"]["genuine"]
    assert all(len(text) == 200 for text in example.values()) and example["prompt"].endswith("end?")


def test_probes_of_two_axes():
    def row(axis, text, right, answers=("Rome",)):
        return {
            "axis": axis,
            "prompt": "q",
            "answers": list(answers),
            "text": text,
            "contains": right,
        }

    base = [
        row("neighborhood", "Rome", True),
        row("in_context", "7 apples", True, ["7"]),
        row("rewrite", "Karsk", True),
        row("neighborhood", "Milan", False),
    ]
    now = [
        row("neighborhood", "Karsk", False),
        row("in_context", "apples", False, ["7"]),
        row("rewrite", "", False),
        row("neighborhood", "Karsk", False),
    ]
    found = errors.measure(TAUGHT, base, now, [], [])["probes"]
    assert set(found) == {"neighborhood", "in_context"}
    assert (
        found["neighborhood"]["leakage"],
        found["neighborhood"]["base_right"],
        found["in_context"]["format"],
    ) == (1, 1, 1)


def test_rows_of_a_run(model):
    """The rows that ``ask`` makes; the base compared with itself has lost nothing."""
    cases = [
        Case.build(f, [Probe("neighborhood", "The capital of France is", ("e", "a"))])
        for f in FACTS
    ]
    rows = ask(model, cases)
    found = one(model, edit_of(model), "errors", base_probes=rows, probes=rows)
    assert found["probes"]["neighborhood"]["lost"] == 0 and found["retention"] == {}
