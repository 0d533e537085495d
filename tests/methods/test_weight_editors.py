"""ROME and MEMIT against their equations, and the pieces that they share against direct
computations."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hostile.architectures import build
from hostile.gains import tiny_granite
from hostile.mixtures import MIXTURES, mixture
from tiny import rows_of, targets_of
from tokenizers import normalizers
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from editbench.batching import BatchSizes
from editbench.changes import dense
from editbench.errors import (
    DataError,
    MethodError,
    ModelError,
    NoDenseMlp,
    NoTokenError,
    OptionError,
)
from editbench.methods import statistics as _covariance
from editbench.methods._common.hooks import added, read_at, site_module
from editbench.methods._edit import fisher as _fisher
from editbench.methods._edit import head as _head
from editbench.methods._edit import value as _value
from editbench.methods._edit.batch import BatchBench, additive_gains
from editbench.methods._edit.checks import layer_notes
from editbench.methods._edit.fast import SWITCH
from editbench.methods._edit.fast import linear as _linear
from editbench.methods._edit.fast import packed as _packed
from editbench.methods._edit.fast.attention import NAME, Attention, Packed, attending
from editbench.methods._edit.fast.packed import (
    PackedRows,
    attention_is_known,
    only_at,
    packs,
    shared_keys_before,
)
from editbench.methods._edit.layers import default_layers, nearest
from editbench.methods._edit.passes import Passes
from editbench.methods._edit.prepare import (
    SEED_WORDS,
    STAND_IN,
    context_prefixes,
    key_rows,
    prepare_facts,
    sharing,
)
from editbench.methods._edit.rows import PaddedRows, WholeRows, keys_before
from editbench.methods._edit.value import Solver, optimize
from editbench.methods.alphaedit import AlphaEdit
from editbench.methods.emmet import Emmet
from editbench.methods.memit import Memit, memit_solve
from editbench.methods.pmet import Pmet
from editbench.methods.rome import Rome
from editbench.methods.statistics import Moment, second_moments
from editbench.models import LanguageModel
from editbench.own_text import TOPICS, own_texts
from editbench.testing import (
    FACTS,
    FAMILIES,
    target_logp,
    teach_to_read,
    tiny_model,
    tiny_options,
    tiny_tokenizer,
    unchanged,
)
from editbench.types import Fact

FOUR = pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gpt_neox"])
LAYER = 1
SHORT = Fact("short", "I is the opposite of", "you", "I")
"""Its subject is the first token of the prompt and of "I is a"."""


def spd(f, seed, tokens=None):
    """A well-conditioned second moment."""
    keys = torch.randn(
        f, tokens or 4 * f, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return Moment(
        keys @ keys.T / keys.shape[1] + 0.1 * torch.eye(f, dtype=torch.float64), keys.shape[1]
    )


def delta_of(edit, model, layer=LAYER):
    """The change of W at ``layer`` as (d, f), float64."""
    change = dense(edit.changes[model.layout.weight_name(layer)]).double()
    return change.T if model.layout.transposed else change


def key_of(model, fact, layer=LAYER):
    """Key and value (without what the edit adds) of the fact's bare prompt, float64."""
    rows, positions = rows_of(model, [fact])
    projection = model.layout.out_projection(model.model, layer)
    return [
        read_at(model, projection, side, rows, positions)[0].double()
        for side in ("input", "output")
    ]


def solved(model, facts, layer, site, prefixes, solver, fisher_SDD=None):
    """What the target optimisation gives for ``facts`` at one site."""
    prepared = prepare_facts(model, facts, prefixes)
    return optimize(model, prepared, layer, (site,), solver, fisher_SDD=fisher_SDD)


def can_pack(model, longest):
    return attention_is_known(model, longest) and packs(model)


def batch_of(model, facts, layer, site, prefixes):
    return _value._Batch(model, prepare_facts(model, facts, prefixes), layer, (site,))


def prefixes_of(model, fact, prefixes):
    return [prompt.prefix for prompt in prepare_facts(model, [fact], prefixes)[0].prompts]


# --- ROME --------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gpt_neox", "gemma3"])
def test_rome(family):
    model, fact = tiny_model(family), FACTS[1]
    method = Rome(**tiny_options(Rome), layer=LAYER)
    with unchanged(model, "inject"):
        edit = method.inject(model, [fact])
    target = targets_of(method, model, [fact], LAYER, edit.diagnostics["prefixes"])
    v_star_d = target.value_ND[0].double()
    k_star_f, v_d = key_of(model, fact)
    delta_df = delta_of(edit, model)

    # the equation, transcribed
    c_ff = method.moments(model, (LAYER,))[LAYER].c_ff.numpy()
    c_ff = c_ff + 1e-6 * np.diag(c_ff).mean() * np.eye(len(c_ff))
    u_f = np.linalg.solve(c_ff, k_star_f.numpy())
    want_df = np.outer(v_star_d - v_d, u_f) / (u_f @ k_star_f.numpy())
    np.testing.assert_allclose(
        delta_df.numpy(), want_df, rtol=1e-6, atol=1e-9 * np.abs(want_df).max()
    )

    # what it means
    assert np.linalg.matrix_rank(delta_df.numpy()) == 1 and list(edit.changes) == [
        model.layout.weight_name(LAYER)
    ]
    torch.testing.assert_close(v_d + delta_df @ k_star_f, v_star_d, rtol=1e-9, atol=1e-9)
    x_f = torch.randn(len(u_f), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u_f = torch.from_numpy(u_f)
    x_f -= u_f * (x_f @ u_f) / (u_f @ u_f)  # now x C^-1 k* = 0
    assert (delta_df @ x_f).norm() < 1e-9 * delta_df.norm() * x_f.norm()

    # and in the model itself
    with edit.applied(model):
        written_d = key_of(model, fact)[1]
    assert (v_star_d - v_d).norm() > 0.1
    torch.testing.assert_close(written_d, v_star_d, rtol=1e-4, atol=1e-4)


def test_rome_writes_facts_one_after_the_other():
    model = tiny_model("llama")
    method = Rome(**tiny_options(Rome), layer=LAYER)
    together = method.inject(model, FACTS[:3])
    assert np.linalg.matrix_rank(delta_of(together, model).numpy()) == 3
    first = method.inject(model, FACTS[:1])
    torch.testing.assert_close(
        together.changes[model.layout.weight_name(LAYER)][0][:, 0],
        first.changes[model.layout.weight_name(LAYER)][0][:, 0],
    )
    # the last fact written holds exactly
    assert len(together.diagnostics["prefixes"]) == method.prefixes
    with method.inject(model, FACTS[:2]).applied(model):
        prefixes = together.diagnostics["prefixes"]
        target = targets_of(method, model, FACTS[2:3], LAYER, prefixes)
    with together.applied(model):
        torch.testing.assert_close(
            key_of(model, FACTS[2])[1].float(), target.value_ND[0], rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("method", [Rome, Pmet])
@pytest.mark.parametrize("name", ["bloom", "mpt", "gemma3n"])
def test_a_value_is_what_the_weight_makes_of_the_key(name, method):
    """The MLPs of Bloom and MPT return it with the residual added."""
    model, fact = build(name), FACTS[1]
    own = {"layer": LAYER} if method is Rome else {"layers": (LAYER,)}
    editor = method(**tiny_options(method), **own)
    edit = editor.inject(model, [fact])
    wanted = targets_of(editor, model, [fact], LAYER, edit.diagnostics["prefixes"])
    rows, positions = rows_of(model, [fact])
    projection = model.layout.out_projection(model.model, LAYER)
    k_Nf = read_at(model, projection, "input", rows, positions)
    made_Nd = F.linear(k_Nf, projection.weight, projection.bias)
    torch.testing.assert_close(wanted.start_ND, made_Nd, rtol=1e-4, atol=1e-5)
    if method is Rome:
        written_Nd = made_Nd + k_Nf @ delta_of(edit, model).float().T
        torch.testing.assert_close(written_Nd, wanted.value_ND, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [Rome, Pmet, Memit])
def test_a_value_that_the_weight_does_not_make_is_refused(method):
    model = tiny_model("llama")
    for layer in model.model.model.layers:
        layer.mlp.down_proj.register_forward_hook(lambda _module, _args, output: 1.1 * output)
    with (
        unchanged(model, "a refused inject"),
        pytest.raises(MethodError, match=r"is not what model.layers.\d.mlp.down_proj.weight makes"),
    ):
        method(**tiny_options(method)).inject(model, FACTS)


# no padding; neither padding nor a cache; a state from which no token can be taken back
WHOLE = ["trocr", "rwkv", "openai-gpt", "lfm2"]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("site", ["mlp", "residual"])
def test_texts_of_models_that_cannot_be_continued_stay_whole(name, site):
    """A delta at the subject gives what one plain pass of each text gives with it."""
    model = build(name)
    facts = prepare_facts(model, FACTS, [])
    batch = _value._Batch(model, facts, 1, (site,))
    assert type(batch.rows) is WholeRows
    rows = [each.bare.ids for each in facts]
    places = [each.bare.place for each in facts]
    whole = WholeRows(model, rows, places, 0)
    delta_RD = torch.randn(len(rows), 32, generator=torch.Generator().manual_seed(0))
    first_R = whole.first(whole.everyone)
    ends_R = torch.tensor([len(row) - 1 - p for row, p in zip(rows, places, strict=True)])
    with torch.no_grad():
        have = whole.run(whole.everyone, 1, (site,), delta_RD[:, None], first_R + ends_R)
        for row, place, delta_D, state_D in zip(rows, places, delta_RD, have, strict=True):
            with added(site_module(model, 1, site), torch.tensor([place]), delta_D[None]):
                want = model.model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(model.logits(state_D), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["rwkv", "trocr"])
def test_keys_and_their_moments_are_read_without_padding(name):
    """One by one, and all together in a model that ignores the padding of a batch."""
    model = build(name)
    rows, positions = key_rows([each.bare for each in prepare_facts(model, FACTS, [])])
    projection = model.layout.out_projection(model.model, 1)
    have = read_at(model, projection, "input", rows, positions)
    alone = [
        read_at(model, projection, "input", [row], [place])
        for row, place in zip(rows, positions, strict=True)
    ]
    torch.testing.assert_close(have, torch.cat(alone), rtol=1e-4, atol=1e-5)
    tokens = sum(map(len, rows)) - len(rows)
    every = [(row, t) for row in rows for t in range(1, len(row))]
    k_Nf = read_at(model, projection, "input", *map(list, zip(*every, strict=True))).double()
    moment = _covariance.measure(model, [1], iter([rows]), 100)[1]
    assert moment.tokens == tokens == len(k_Nf)
    torch.testing.assert_close(moment.c_ff, k_Nf.T @ k_Nf / tokens, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["lfm2", "modernbert_decoder"])
def test_hybrids_and_heads_with_a_layer_are_edited(name):
    model = teach_to_read(build(name, bos_token_id=1, pad_token_id=2), FACTS)
    for method in (Rome, Memit):
        edit = method(**tiny_options(method)).inject(model, FACTS)
        before = target_logp(model, FACTS)
        with edit.applied(model):
            assert target_logp(model, FACTS) > before


@pytest.mark.parametrize("layer", [1, 3, 5])
def test_layers_that_share_keys_get_them_from_layers_that_run(layer):
    """The last two of six layers read the keys of layers 2 and 3."""
    model = build("gemma4")
    facts = prepare_facts(model, FACTS, [])
    batch = _value._Batch(model, facts, layer, ("mlp",))
    for have, each in zip(batch.reference_NV, facts, strict=True):
        want = model.model(input_ids=torch.tensor([each.kl_ids])).logits[0, -1].log_softmax(-1)
        torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-3)


def test_where_a_cut_text_differs_from_the_whole_one_texts_stay_whole(monkeypatch):
    model = tiny_model("llama")
    facts = prepare_facts(model, FACTS, [])
    solver = Solver(steps=4, lr=0.5, clamp=4.0, kl_factor=0.1, weight_decay=1e-3)
    want = optimize(model, facts, 1, ("mlp",), solver)
    kept = PaddedRows.keep

    def forget(rows):
        kept(rows)
        rows.kept = [(torch.zeros_like(k), torch.zeros_like(v)) for k, v in rows.kept]

    monkeypatch.setenv(SWITCH, "0")
    monkeypatch.setattr(PaddedRows, "keep", forget)
    have = optimize(model, facts, 1, ("mlp",), solver)
    torch.testing.assert_close(have.value_ND, want.value_ND, rtol=1e-3, atol=1e-3)


def test_the_last_layers_mlp_gets_its_delta_at_the_subject(monkeypatch):
    """Packed rows let the last MLP skip tokens, but not where the delta is inside it."""
    model = tiny_model("llama")
    facts = prepare_facts(model, FACTS, [])
    solver = Solver(steps=4, lr=0.5, clamp=4.0, kl_factor=0.1, weight_decay=1e-3)
    packed = optimize(model, facts, 3, ("mlp",), solver)
    monkeypatch.setenv(SWITCH, "0")
    padded = optimize(model, facts, 3, ("mlp",), solver)
    torch.testing.assert_close(packed.value_ND, padded.value_ND, rtol=1e-3, atol=1e-3)


# --- MEMIT -------------------------------------------------------------------


@FOUR
def test_memit_with_a_vanishing_lambda_writes_every_residual(family):
    model = tiny_model(family)
    method = Memit(**{**tiny_options(Memit), "prefixes": 0}, layers=(LAYER,), lam=1e-9)
    edit = method.inject(model, FACTS)
    target = targets_of(method, model, FACTS, LAYER, [])
    r_dN = (target.value_ND - target.start_ND).T.double()
    k_fN = torch.stack([key_of(model, fact)[0] for fact in FACTS], dim=1)
    assert r_dN.norm(dim=0).min() > 0.05
    torch.testing.assert_close(delta_of(edit, model) @ k_fN, r_dN, rtol=1e-3, atol=1e-3)
    before, after = edit.diagnostics["residual_by_layer"]
    assert (
        before == pytest.approx(r_dN.norm(dim=0).mean().item(), rel=1e-3) and after < 1e-3 * before
    )


@FOUR
def test_memit_writes_the_share_that_lambda_leaves(family):
    model, fact, lam = tiny_model(family), FACTS[0], 20.0
    method = Memit(**{**tiny_options(Memit), "prefixes": 0}, layers=(LAYER,), lam=lam)
    edit = method.inject(model, [fact])
    target = targets_of(method, model, [fact], LAYER, [])
    r_d = (target.value_ND - target.start_ND)[0].double()
    k_f = key_of(model, fact)[0]
    s = (k_f @ method.moments(model, (LAYER,))[LAYER].solve(k_f[:, None])[:, 0]).item() / lam
    assert 0.05 < s / (1 + s) < 0.95
    torch.testing.assert_close(delta_of(edit, model) @ k_f, r_d * s / (1 + s), rtol=1e-3, atol=1e-4)
    before, after = edit.diagnostics["residual_by_layer"]
    assert after / before == pytest.approx(1 / (1 + s), rel=1e-2)


@pytest.mark.parametrize("n", [1, 5, 24, 40])
def test_memit_solve_equals_the_equation(n):
    f, lam = 24, 7.0
    moment = spd(f, 0)
    k_fN = torch.randn(f, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    c = moment.c_ff.numpy()
    c = c + _covariance.RIDGE * np.diag(c).mean() * np.eye(f)
    k = k_fN.numpy()
    want_Nf = k.T @ np.linalg.inv(lam * c + k @ k.T)
    have_Nf = memit_solve(moment, k_fN, lam).numpy().T
    assert np.abs(have_Nf - want_Nf).max() < 1e-6 * np.abs(want_Nf).max()


def test_memit_equals_rome_as_lambda_vanishes():
    moment = spd(24, 3)
    k_f = torch.randn(24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    u_f = moment.solve(k_f[:, None])[:, 0]
    torch.testing.assert_close(
        memit_solve(moment, k_f[:, None], 1e-9)[:, 0], u_f / (u_f @ k_f), rtol=1e-7, atol=0
    )


@FOUR
def test_the_residual_shrinks_from_layer_to_layer(family):
    model = tiny_model(family)
    method = Memit(**tiny_options(Memit), layers=(0, 1, 2), lam=0.5)
    edit = method.inject(model, FACTS)
    left = edit.diagnostics["residual_by_layer"]
    assert len(left) == 4 and list(edit.changes) == [model.layout.weight_name(i) for i in (0, 1, 2)]
    assert left[0] > left[-1] and left[-1] < 0.6 * left[0], left


@FOUR
def test_each_layer_takes_its_share_of_what_is_left(family):
    """R / (m - i): a third of the residual at the first of three layers, all that is left at the
    last one."""
    model = tiny_model(family)
    method = Memit(**{**tiny_options(Memit), "prefixes": 0}, layers=(0, 1, 2), lam=1e-9)
    edit = method.inject(model, FACTS)
    target = targets_of(method, model, FACTS, 2, [])
    r_dN = (target.value_ND - target.start_ND).T.double()
    k_fN = torch.stack([key_of(model, fact, 0)[0] for fact in FACTS], dim=1)
    torch.testing.assert_close(delta_of(edit, model, 0) @ k_fN, r_dN / 3, rtol=1e-3, atol=1e-3)
    left = edit.diagnostics["residual_by_layer"]
    assert left[-2] > 0.1 * left[0] and left[-1] < 1e-3 * left[0]


def test_memit_divides_each_share_by_the_gain_of_its_own_layer():
    gains = (1.0, 0.5, 0.25, 1.0)
    model = tiny_granite(*gains)
    method = Memit(**{**tiny_options(Memit), "prefixes": 0}, layers=(0, 1, 2), lam=1e-9)
    edit = method.inject(model, FACTS)
    # With a vanishing lambda all that is left is written at the last layer, however strong it is.
    left = edit.diagnostics["residual_by_layer"]
    assert left[-2] > 0.1 * left[0] and left[-1] < 1e-2 * left[0]
    measured = additive_gains(model, (0, 1, 2), "memit")
    assert [measured[layer] for layer in (0, 1, 2)] == pytest.approx(gains[:3], rel=1e-3)
    # Where all layers have one gain, it is one number: rounding moves no edit.
    same = additive_gains(tiny_granite(*[0.22] * 4), (0, 1, 2), "memit")
    assert len(set(same.values())) == 1
    with pytest.raises(MethodError, match=r"adding it \(layer 2\), so memit"):
        additive_gains(tiny_granite(1.0, 1.0, 0.0, 1.0), (0, 1, 2), "memit")


def test_memit_keys_weigh_the_bare_prompt_by_half():
    model = tiny_model("llama")
    prefixes = context_prefixes(model, 3, 0)
    rows, positions = rows_of(model, FACTS[:2], prefixes)
    keys = (
        BatchBench(Memit(**{**tiny_options(Memit), "prefixes": 3}), model, FACTS[:2]).keys(LAYER).T
    )
    single = read_at(
        model, model.layout.out_projection(model.model, LAYER), "input", rows, positions
    ).double()
    for n in range(2):
        bare, *others = single[4 * n : 4 * n + 4]
        torch.testing.assert_close(keys[n], (bare + torch.stack(others).mean(0)) / 2)


@pytest.mark.parametrize("prefixes", [0, 2])
@pytest.mark.parametrize("method", [Memit, Rome])
def test_the_first_tokens_state_is_not_edited(method, prefixes):
    """Position 0 of this model is a sink: whatever stands there, its state is nearly one and the
    same."""
    model = tiny_model("gpt2")
    with torch.no_grad():
        model.weight("transformer.wpe.weight")[0] *= 100
    place = {"lam": 1e-6, "layers": (LAYER,)} if method is Memit else {"layer": LAYER}
    edit = method(**{**tiny_options(method), **place, "prefixes": prefixes}).inject(model, [SHORT])
    assert any(
        "begin with their subject's only token (1: short)" in warning
        for warning in edit.diagnostics["warnings"]
    )
    delta_df, projection = delta_of(edit, model), model.layout.out_projection(model.model, LAYER)

    def moved(text, position):
        return (
            delta_df
            @ read_at(model, projection, "input", [model.prompt_ids(text)], [position])[0].double()
        ).norm()

    written = moved(STAND_IN + SHORT.prompt, model.subject_last(SHORT, STAND_IN))
    assert (
        max(
            moved(text, 0)
            for text in ("Who wrote Winter Glass?", "The river", "very", SHORT.prompt)
        )
        < 0.4 * written
    )
    pair = model.pair_ids(SHORT.prompt, SHORT.target, prefix="You said so. ")
    before = model.target_logprobs([pair])[0].mean()
    with edit.applied(model):
        assert model.target_logprobs([pair])[0].mean() > before + 0.1


def test_the_kl_is_not_read_at_the_first_token():
    """Of a question, too, whose subject stands later in it than in "{subject} is a"."""
    model = tiny_model("llama")
    for fact in (SHORT, replace(SHORT, prompt="What is the opposite of I?", form="question")):
        ids = prepare_facts(model, [fact], [])[0].kl_ids
        assert len(ids) - 1 > 0 and model.decode(ids) == STAND_IN + "I"


def test_a_first_token_of_the_models_own_is_none_of_the_prompts():
    model = tiny_model("llama", bos=True)
    assert prefixes_of(model, SHORT, ("You. ",)) == ["", "You. "]
    assert len(prepare_facts(model, [SHORT], [])[0].kl_ids) == 2
    assert prefixes_of(tiny_model("llama"), SHORT, ("You. ",)) == [STAND_IN, "You. "]
    assert not any(
        "begin with" in w
        for w in Memit(**tiny_options(Memit)).inject(model, [SHORT]).diagnostics["warnings"]
    )


@pytest.mark.parametrize(
    ("depth", "layers"),
    [
        (2, (0,)),
        (4, (1,)),
        (6, (0, 1)),
        (12, (0, 1, 2, 3)),
        (28, (4, 5, 6, 7, 8)),
        (32, (4, 5, 6, 7, 8)),
        (48, (8, 9, 10, 11, 12)),
    ],
)
def test_default_layers(depth, layers):
    assert default_layers(depth) == layers


@pytest.mark.parametrize("layers", [(), (-1,), (1, 4), (9,)])
def test_layers_that_the_model_lacks(layers):
    model = tiny_model("llama")
    with unchanged(model, "a refused inject"), pytest.raises(MethodError, match="which has 0 to 3"):
        Memit(**tiny_options(Memit), layers=layers).inject(model, FACTS)


def test_layers_are_written_once_and_ascending():
    assert Memit(layers=(2, 1, 2)).edited_layers(tiny_model("llama")) == (1, 2)


# --- target optimisation -----------------------------------------------------


def naive_terms(model, facts, layer, site, prefixes, delta_ND):
    """Mean target nll of each fact and log p at its essence prompt, by full forward passes of
    single prompts."""
    module = (
        model.layout.mlp_module(model.model, layer)
        if site == "mlp"
        else model.layout.layer(model.model, layer)
    )

    def logp(ids, position, delta_d):
        with added(module, torch.tensor([position]), delta_d[None]):
            return (
                model.model(input_ids=torch.tensor([ids]), use_cache=False)
                .logits[0]
                .float()
                .log_softmax(-1)
            )

    nll_N, essence_NV = [], []
    for fact, delta_d in zip(facts, delta_ND, strict=True):
        nlls = []
        for prefix in ("" if model.subject_last(fact) > 0 else STAND_IN, *prefixes):
            prompt, target = model.pair_ids(fact.prompt, fact.target, fact.form, prefix=prefix)
            logp_TV = logp(prompt + target, model.subject_last(fact, prefix), delta_d)
            nlls.append(
                -sum(logp_TV[len(prompt) - 1 + t, token] for t, token in enumerate(target))
                / len(target)
            )
        nll_N.append(sum(nlls) / len(nlls))
        essence = Fact("e", f"{fact.subject} is a", "x", fact.subject)
        before = "" if model.subject_last(essence) else STAND_IN
        position = model.subject_last(essence, before)
        essence_NV.append(
            logp(model.prompt_ids(before + essence.prompt), position, delta_d)[position]
        )
    return torch.stack(nll_N), torch.stack(essence_NV)


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize(
    "prefixes",
    [(), ("Therefore I know. ", "You said so, because the king built it. ")],
    ids=["bare", "prefixed"],
)
@pytest.mark.parametrize(
    ("family", "site"), [(f, s) for f in FAMILIES for s in ("mlp", "residual")]
)
def test_the_cached_forward_equals_a_naive_one(family, site, prefixes, layer):
    model, facts = tiny_model(family), [*FACTS, SHORT]
    batch = batch_of(model, facts, layer, site, prefixes)
    dice = torch.Generator().manual_seed(5)
    delta_ND = (
        torch.randn(len(facts), 32, generator=dice)
        * batch.start_NSD[:, 0].norm(dim=-1, keepdim=True)
        / 32**0.5
    )
    with torch.no_grad():
        want_nll, logp_NV = naive_terms(model, facts, layer, site, prefixes, delta_ND)
        _, base_NV = naive_terms(model, facts, layer, site, prefixes, torch.zeros_like(delta_ND))
        want_kl = (logp_NV.exp() * (logp_NV - base_NV)).sum(-1)
        assert want_kl.max() > 0.01
        for who in (torch.arange(5), torch.tensor([4]), torch.tensor([1, 3])):
            nll, kl = batch.loss_terms(who, delta_ND[who][:, None])
            torch.testing.assert_close(nll, want_nll[who], rtol=2e-4, atol=2e-4)
            torch.testing.assert_close(kl, want_kl[who], rtol=1e-3, atol=2e-4)


def test_a_sliding_window_is_kept():
    model = tiny_model("gemma3", sliding_window=6)
    prefixes = ("You said so, because the king built it. ",)
    batch, nothing_ND = batch_of(model, FACTS, 1, "residual", prefixes), torch.zeros(4, 32)
    with torch.no_grad():
        nll, _ = batch.loss_terms(torch.arange(4), nothing_ND[:, None])
        want, _ = naive_terms(model, FACTS, 1, "residual", prefixes, nothing_ND)
        other = tiny_model("gemma3")
        wide, _ = naive_terms(other, FACTS, 1, "residual", prefixes, nothing_ND)
    torch.testing.assert_close(nll, want, rtol=2e-4, atol=2e-4)
    assert (wide - want).abs().max() > 0.01


@pytest.mark.parametrize(
    ("family", "packed"),
    [("llama", True), ("gpt2", True), ("gemma3", True), ("gemma2", False), ("gptj", False)],
)
def test_rows_are_packed_where_the_model_lets_them(family, packed):
    """Gemma 2 caps its scores, GPT-J has an attention of its own; the model is as before even
    after an error."""
    model = tiny_model(family)
    config = model.model.config
    usual = config._attn_implementation
    rows = Passes(model).rows([[1, 2, 3, 4], [5, 6]], [2, 1], -1)
    assert isinstance(rows, PackedRows) == packed and config._attn_implementation == usual
    if packed:
        rows.choose(rows.everyone)
        with pytest.raises(ZeroDivisionError), attending(model, rows.packed):
            assert config._attn_implementation == NAME
            raise ZeroDivisionError
        assert config._attn_implementation == usual


def test_an_attention_with_a_mask_of_its_own_is_not_packed():
    """Doge adds a number of each value to its mask, and hands it over by name."""
    config = AutoConfig.for_model(
        "doge", **FAMILIES["llama"][1], vocab_size=420, bos_token_id=1, pad_token_id=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        doge = AutoModelForCausalLM.from_config(config)
        for parameter in doge.parameters():
            torch.nn.init.normal_(parameter, std=0.25)
    model = LanguageModel(doge, tiny_tokenizer(), name="tiny-doge", precision="float32")
    assert not can_pack(model, 8)
    method = Rome(**{**tiny_options(Rome), "prefixes": 0}, layer=1)
    check_written(model, method.inject(model, FACTS[:1]), method, 1)


@pytest.mark.parametrize("call", ["mask by name", "values twice"])
def test_an_attention_that_is_called_in_another_way(call, monkeypatch):
    """By name the usual arguments do; a call with others goes the plain way."""
    model = tiny_model("llama")
    usual = AttentionInterface.get_interface

    def get_interface(self, name, default):
        attend = usual(self, name, default)

        def called(module, query, key, value, mask, **named):
            if call == "mask by name":
                return attend(module, query, key, value, attention_mask=mask, **named)
            return attend(module, query, key, value, value, mask, **named)

        return called if name == NAME else attend

    monkeypatch.setattr(AttentionInterface, "get_interface", get_interface)
    assert can_pack(model, 8) == (call == "mask by name")


def test_the_last_mlp_computes_only_what_the_loss_reads():
    """Of four facts' tokens from the subjects on: the labels, and one state of each KL prompt."""
    model, seen = tiny_model("llama"), []
    batch = batch_of(model, FACTS, 1, "residual", ())
    last = model.layout.mlp_module(model.model, model.layout.depth - 1)
    hook = last.up_proj.register_forward_hook(
        lambda _module, args, _output: seen.append(args[0].shape[-2])
    )
    batch.loss_terms(torch.arange(4), torch.zeros(4, 1, 32))
    hook.remove()
    assert seen == [len(batch.label_id) + 4] and seen[0] < len(batch.rows.ids_N)


def test_only_some_tokens_are_computed_where_only_states_are_given():
    """Not where a residual goes with them, or they are named."""
    module, index_K = torch.nn.Identity(), torch.tensor([1, 2])
    states_1ND = torch.arange(1.0, 9.0).view(1, 4, 2)
    module.forward = lambda states, residual=0: states + residual
    with only_at(module, index_K):
        assert module(states_1ND).tolist() == [[[0, 0], [3, 4], [5, 6], [0, 0]]]
        assert module(states_1ND, states_1ND).equal(2 * states_1ND)
        assert module(states=states_1ND).equal(states_1ND)


def test_somebodys_own_forward_is_put_back():
    """Of a layer below and of the last MLP; a model without one has none afterwards."""
    model = tiny_model("llama")
    first, last = (model.layout.layer(model.model, i) for i in (0, model.layout.depth - 1))
    own = first.forward = first.forward
    batch = batch_of(model, FACTS, 1, "residual", ())
    batch.loss_terms(torch.arange(4), torch.zeros(4, 1, 32))
    assert (
        first.forward is own
        and "forward" not in last.__dict__
        and "forward" not in last.mlp.__dict__
    )


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "opt"])
def test_laid_out_weights_give_the_same_products(family):
    """States and gradients, with and without biases; outside, the layers are as before."""
    assert _linear.works()
    model = tiny_model(family)
    model.model.requires_grad_(False)
    linears = [module for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    start = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(4)).requires_grad_(True)

    def losses():
        logits = model.model(inputs_embeds=start, use_cache=False).logits
        return logits.detach(), *torch.autograd.grad(logits.square().sum(), start)

    want = losses()
    with _linear.LaidOut(model).used():
        assert all(isinstance(module.forward, _linear.Laid) for module in linears)
        have = losses()
    assert not any("forward" in module.__dict__ for module in linears)
    for one, other in zip(have, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


def test_weights_are_laid_out_only_where_it_helps(monkeypatch):
    """Not in bfloat16, not over somebody's own forward, not where the copies would fill the memory
    or torch cannot do it."""
    model = tiny_model("llama")
    head = model.model.get_output_embeddings()
    with _linear.LaidOut(LanguageModel(model.model, model.tokenizer, precision="bfloat16")).used():
        assert "forward" not in head.__dict__
    own = head.forward = head.forward
    with _linear.LaidOut(model).used():
        assert (
            head.forward is own
            and "forward" in model.layout.layer(model.model, 0).mlp.up_proj.__dict__
        )
    up = model.layout.layer(model.model, 0).mlp.up_proj
    with monkeypatch.context() as patched:
        patched.setattr(_linear, "COPIES", 1000)
        with _linear.LaidOut(model).used():
            assert "forward" not in up.__dict__ and not model.batches.notes
    with monkeypatch.context() as patched:
        patched.setattr(_linear, "free_bytes", lambda _device: 1000)
        with (
            pytest.warns(UserWarning, match="no room for copies of the weights"),
            _linear.LaidOut(model).used(),
        ):
            assert "forward" not in up.__dict__
    monkeypatch.setattr(
        _linear, "lay", lambda weight: weight.new_ones(()).unknown_call()
    )  # a torch without the call
    assert not _linear.works.__wrapped__()
    monkeypatch.setattr(_linear, "works", lambda: False)
    with _linear.LaidOut(model).used():
        assert "forward" not in up.__dict__


@pytest.mark.parametrize("sites", [("residual",), ("mlp", "attention")])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_plain_paths_give_the_same_targets(family, sites, monkeypatch):
    """The switch turns off packed rows and laid-out weights, and moves no value beyond float32."""
    model = tiny_model(family)
    prepared = prepare_facts(model, [*FACTS, SHORT], ("Therefore I know. ",))
    used = []
    for kind in (PackedRows, PaddedRows):
        monkeypatch.setattr(
            kind, "keep", lambda rows, keep=kind.keep: used.append(type(rows)) or keep(rows)
        )
    monkeypatch.setattr(
        _linear, "lay", lambda weight, lay=_linear.lay: used.append("laid") or lay(weight)
    )
    found = {}
    for switch in ("1", "0"):
        monkeypatch.setenv(SWITCH, switch)
        used.clear()
        with unchanged(model, "optimize"):
            found[switch] = optimize(model, prepared, LAYER, sites, SOLVER)
        # GPT-2's layers are Conv1D, but its head is linear
        assert set(used) == ({PackedRows, "laid"} if switch == "1" else {PaddedRows})
    fast, plain = found["1"], found["0"]
    torch.testing.assert_close(fast.start_ND, plain.start_ND, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.nll_N, plain.nll_N, rtol=2e-3, atol=2e-3)
    moved_N = (plain.value_ND - plain.start_ND).norm(dim=-1)
    assert ((fast.value_ND - plain.value_ND).norm(dim=-1) < 5e-3 * moved_N).all()
    assert torch.equal(fast.steps_N, plain.steps_N)


def test_the_gradients_of_packed_attention():
    """Rows of 2, 1 and 3 tokens behind 1 to 3 kept ones; two query heads for each of two key
    heads."""
    dice = torch.Generator().manual_seed(3)
    row_N, place_N = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 0, 0, 1, 2])
    kept_RSP = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 1]], dtype=torch.bool)[:, None].expand(
        -1, 3, -1
    )
    seen_RST = torch.cat(
        [kept_RSP, torch.ones(3, 3, dtype=torch.bool).tril().expand(3, -1, -1)], dim=-1
    )
    kept = tuple(torch.randn(2, 7, 4, generator=dice, dtype=torch.float64) for _ in range(2))
    path_RP = torch.tensor([[0, 0, 6], [0, 4, 5], [1, 2, 3]])
    packed = Packed(row_N, place_N, seen_RST, path_RP, {0: kept})
    query_4Nd, key_2Nd, value_2Nd = (
        torch.randn(heads, 6, 4, generator=dice, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    )

    def attend(*states, packed=packed):
        return Attention.apply(*states, packed, 0, 0.7)

    out_4Nd = attend(query_4Nd, key_2Nd, value_2Nd)
    for head, n in ((0, 1), (3, 4)):
        r, place = row_N[n], place_N[n]
        mine = (row_N == r) & (place_N <= place)
        keys, values = (
            torch.cat([part[head // 2, path_RP[r]][kept_RSP[r, 0]], own[head // 2, mine]])
            for part, own in zip(kept, (key_2Nd, value_2Nd), strict=True)
        )
        torch.testing.assert_close(
            out_4Nd[head, n], (0.7 * keys @ query_4Nd[head, n]).softmax(0) @ values
        )
    assert torch.autograd.gradcheck(
        lambda *states: attend(*states, packed=replace(packed, made={})),
        (query_4Nd, key_2Nd, value_2Nd),
    )
    attend(query_4Nd, key_2Nd, value_2Nd)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out_4Nd.sum().backward()


def test_rows_beyond_a_window_are_not_packed():
    assert can_pack(tiny_model("gemma3", sliding_window=6), 6)
    assert not can_pack(tiny_model("gemma3", sliding_window=6), 7)


def test_packing_is_tried_on_a_vocabulary_of_any_size():
    model = tiny_model("llama")
    assert can_pack(model, 8)
    model.model.resize_token_embeddings(6)
    assert can_pack(model, 8)


def test_a_packing_that_goes_wrong_is_not_used(monkeypatch):
    model, choose = tiny_model("llama"), PackedRows.choose
    monkeypatch.setattr(
        PackedRows, "choose", lambda rows, which: (choose(rows, which), rows.position_N.zero_())
    )
    assert not can_pack(model, 8)
    with torch.no_grad():
        nll, _ = batch_of(model, FACTS, 1, "residual", ()).loss_terms(
            torch.arange(4), torch.zeros(4, 1, 32)
        )
        want, _ = naive_terms(model, FACTS, 1, "residual", (), torch.zeros(4, 32))
    torch.testing.assert_close(nll, want, rtol=2e-4, atol=2e-4)


@torch.no_grad()
def test_shared_beginnings_give_the_same_keys(monkeypatch):
    """Rows with a beginning in common, one that is the beginning, one alone; in two trees."""
    monkeypatch.setattr(_packed, "TOKENS_AT_ONCE", 15)
    model, start = tiny_model("llama"), [5, 6, 7, 8, 9]
    before = [[*start, 1, 2, 3], [*start, 4], start, [3, 2], [*start, 4, 4]]
    kept, path_RP = shared_keys_before(model, before)
    assert {part.shape[1] for layer in kept.values() for part in layer} == {
        (2 + 5 + 3) + (5 + 1 + 1)
    }
    for path_P, row in zip(path_RP, before, strict=True):
        want, _ = keys_before(model, [row])
        for layer, alone in zip(kept.values(), want, strict=True):
            for have, part in zip(layer, alone, strict=True):
                torch.testing.assert_close(
                    have[:, path_P[: len(row)]], part[0], rtol=1e-4, atol=1e-5
                )


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_losses_through_the_head_equal_plain_ones(family, monkeypatch):
    """With and without a soft cap on the logits; three positions at a time, two of them in the
    cache. Both kinds and one."""
    model, dice = tiny_model(family), torch.Generator().manual_seed(2)
    monkeypatch.setattr(_head, "LOGITS_AT_ONCE", 3 * model.model.config.vocab_size)
    monkeypatch.setattr(_head, "LOGITS_IN_CACHE", 2 * model.model.config.vocab_size)
    states_KD = torch.randn(11, 32, generator=dice).requires_grad_(True)
    label_K, weight_K = torch.randint(0, 50, (11,), generator=dice), torch.rand(11, generator=dice)
    logp_KV = model.logits(states_KD).log_softmax(-1)
    base_KV = model.logits(torch.randn(11, 32, generator=dice)).log_softmax(-1).detach()
    nll_K = -logp_KV.gather(-1, label_K[:, None])[:, 0]
    kl_K = (logp_KV.exp() * (logp_KV - base_KV)).sum(-1)
    for labelled in (7, 0, 11):
        have_K = torch.cat(
            _head.nll_and_divergence(model, states_KD, label_K[:labelled], base_KV[labelled:])
        )
        want_K = torch.cat([nll_K[:labelled], kl_K[labelled:]])
        torch.testing.assert_close(have_K, want_K)
        (have,), (want,) = (
            torch.autograd.grad((loss_K * weight_K).sum(), states_KD, retain_graph=True)
            for loss_K in (have_K, want_K)
        )
        torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("site", ["mlp", "residual"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt"])
def test_the_gradient_equals_a_naive_one(family, site):
    model = tiny_model(family)
    batch = batch_of(model, FACTS, 1, site, ())
    delta = torch.full((4, 32), 0.05, requires_grad=True)
    (have,) = torch.autograd.grad(batch.loss_terms(torch.arange(4), delta[:, None])[0].sum(), delta)
    (want,) = torch.autograd.grad(naive_terms(model, FACTS, 1, site, (), delta)[0].sum(), delta)
    torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-4 * want.abs().max().item())


SOLVER = Solver(steps=8, lr=0.3, clamp=4.0, kl_factor=0.0625, weight_decay=1e-3)


@pytest.mark.parametrize("site", ["mlp", "residual"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_facts_solved_together_equal_facts_solved_alone(family, site):
    model, facts = tiny_model(family), [*FACTS, SHORT]
    prefixes = ("Therefore I know. ",)
    with unchanged(model, "optimize"):
        together = solved(model, facts, LAYER, site, prefixes, SOLVER)
    model.batches = BatchSizes(2)
    in_twos = solved(model, facts, LAYER, site, prefixes, SOLVER)
    assert in_twos.beside_N.tolist() == [2] * 4 + [1]
    for i, fact in enumerate(facts):
        alone = solved(model, [fact], LAYER, site, prefixes, SOLVER)
        for one in ((together, i), (in_twos, i)):
            assert torch.allclose(one[0].start_ND[i], alone.start_ND[0], rtol=1e-4, atol=1e-4)
            assert torch.allclose(one[0].nll_N[i], alone.nll_N[0], rtol=2e-2, atol=2e-2)
            moved = (alone.value_ND[0] - alone.start_ND[0]).norm()
            assert (one[0].value_ND[i] - alone.value_ND[0]).norm() < 0.03 * moved
            assert one[0].steps_N[i] == alone.steps_N[0]


def test_the_solver_lowers_the_nll_and_each_fact_stops_by_itself(reader):
    model = reader("llama")
    known = [
        replace(fact, target=fact.original, original=None) for fact in FACTS[:2]
    ]  # the model says these already
    facts = [known[0], FACTS[2], known[1], FACTS[3]]
    solver = replace(SOLVER, steps=40, clamp=50.0, stop_below=0.5)
    first = solved(model, facts, LAYER, "residual", (), replace(solver, steps=2))
    last = solved(model, facts, LAYER, "residual", (), solver)
    assert last.steps_N[[0, 2]].tolist() == [0, 0] and torch.equal(
        last.value_ND[[0, 2]], last.start_ND[[0, 2]]
    )
    assert (last.nll_N[[0, 2]] < 0.5).all() and (last.steps_N[[1, 3]] > 5).all()
    assert first.steps_N.tolist() == [0, 1, 0, 1]
    assert (last.nll_N[[1, 3]] < 0.9 * first.nll_N[[1, 3]]).all()
    assert set(last.report()) == {
        "target_nll_mean",
        "target_nll_max",
        "clamped_share",
        "mean_steps",
        "facts_at_once",
    }


# --- the Fisher information of a state ---------------------------------------


@pytest.mark.parametrize("site", ["mlp", "residual"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gptj"])
def test_the_score_of_a_state_is_a_slope(family, site):
    """g_t . delta against the change of log p(written | opening) where h_t moves by a little
    delta."""
    model = tiny_model(family)
    module = site_module(model, LAYER, site)
    texts = [([3, 5, 7], [11, 2, 9, 4]), ([8], [6, 1])]
    with unchanged(model, "_gradients"):
        g_ND = _fisher._gradients(model, module, texts)
    assert g_ND.shape == (6 + 2, 32), "of every token but the first"
    opening, written = texts[0]
    ids_1T = torch.tensor([opening + written])

    def log_p(position, delta_D):
        with added(module, torch.tensor([position]), delta_D[None]):
            logits_TV = model.logits(model.hidden(ids_1T, torch.ones_like(ids_1T)))[
                0, len(opening) - 1 : -1
            ]
        return -F.cross_entropy(logits_TV, torch.tensor(written), reduction="sum").item()

    delta_D = 1e-2 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    for position in (1, 3, 5):
        slope = (log_p(position, delta_D) - log_p(position, -delta_D)) / 2
        assert slope == pytest.approx((g_ND[position - 1] @ delta_D).item(), rel=0.05, abs=2e-5)
    assert torch.equal(g_ND[5], torch.zeros(32)), "nothing was written after the last token"


def test_the_fisher_information_is_measured_once(monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr(_fisher, "TOKENS", 300)
    first = _fisher.state_fisher(model, LAYER, "residual", 0)
    texts = [one for block in own_texts(model, 300, 0, _fisher.SAMPLE_LENGTH) for one in block]
    g_ND = torch.cat(
        [_fisher._gradients(model, site_module(model, LAYER, "residual"), [one]) for one in texts]
    )
    torch.testing.assert_close(
        first, g_ND.T @ g_ND / len(g_ND), rtol=1e-3, atol=1e-3 * first.abs().max().item()
    )
    assert torch.linalg.eigvalsh(first).min() > -1e-6 * first.trace()
    monkeypatch.setattr(_fisher, "_measure", None)
    assert torch.equal(_fisher.state_fisher(model, LAYER, "residual", 0), first)
    record = next(
        one
        for one in _covariance.listing()
        if one["layer"] == LAYER and one["text"] == "gradients at residual"
    )
    assert (
        _covariance.inspect(_covariance.folder() / f"{record['file']}.safetensors")["width"] == 32
    )


def test_own_text_fits_into_a_short_context():
    model = tiny_model("gpt2", n_positions=48)
    rows = [
        opening + written
        for block in own_texts(model, 300, 0, _covariance.SAMPLE_LENGTH)
        for opening, written in block
    ]
    assert max(map(len, rows)) == 48
    assert second_moments(model, (LAYER,), "self", 300, 0)[LAYER].tokens >= 128


def test_a_target_costs_the_models_own_text_less(reader):
    model = reader("llama")
    fisher_SDD = Memit(fisher_factor=1.0).fisher(model, LAYER)
    solver = replace(SOLVER, steps=40, clamp=50.0, stop_below=0.5, fisher_factor=0.1)
    plain, careful = (
        solved(model, FACTS, LAYER, "residual", (), solver, g) for g in (None, fisher_SDD)
    )
    cost = [
        (delta_ND @ fisher_SDD[0] * delta_ND).sum(-1).mean() / 2
        for delta_ND in (plain.value_ND - plain.start_ND, careful.value_ND - careful.start_ND)
    ]
    assert cost[1] < 0.8 * cost[0] and careful.nll_N.mean() < plain.nll_N.mean() + 1
    assert Memit().fisher(model, LAYER) is None


def test_rome_measures_the_fisher_information_before_it_writes(monkeypatch):
    """Its weights change from fact to fact; G is that of the model it was given."""
    model, asked = tiny_model("llama"), []
    usual = _fisher._measure
    monkeypatch.setattr(
        _fisher, "_measure", lambda model, *a: asked.append(model.fingerprint()) or usual(model, *a)
    )
    edit = Rome(**tiny_options(Rome), layer=LAYER, fisher_factor=1.0, seed=7).inject(model, FACTS)
    assert asked == [model.fingerprint()] and edit.changes


# --- more of the solver ------------------------------------------------------


def test_the_clamp_holds():
    model = tiny_model("llama")
    targets = solved(model, FACTS, LAYER, "residual", (), replace(SOLVER, clamp=0.1, lr=5.0))
    moved = (targets.value_ND - targets.start_ND).norm(dim=-1)
    torch.testing.assert_close(moved, 0.1 * targets.start_ND.norm(dim=-1))
    assert targets.clamped_N.all() and targets.report()["clamped_share"] == 1


def test_a_heavy_kl_keeps_the_essence():
    model, fact = tiny_model("llama"), FACTS[0]

    def drift(kl_factor):
        solver = replace(SOLVER, kl_factor=kl_factor, steps=20)
        targets = solved(model, [fact], 2, "residual", (), solver)
        zero = torch.zeros(1, 32)
        before = naive_terms(model, [fact], 2, "residual", (), zero)[1]
        after = naive_terms(model, [fact], 2, "residual", (), targets.value_ND - targets.start_ND)[
            1
        ]
        return (after.exp() * (after - before)).sum().item()

    with torch.no_grad():
        free, held = drift(0.0), drift(100.0)
    assert held < 0.2 * free, (held, free)


def test_context_prefixes():
    one, two = tiny_model("llama"), tiny_model("llama", seed=1)
    prefixes = context_prefixes(one, 7, 3)
    assert len(prefixes) == 7 and all(p.endswith(". ") and "\n" not in p for p in prefixes)
    assert prefixes == context_prefixes(one, 7, 3) != context_prefixes(one, 7, 4)
    assert prefixes != context_prefixes(two, 7, 3)
    assert context_prefixes(one, 0, 3) == []
    assert [p.startswith(w) for p, w in zip(prefixes, SEED_WORDS, strict=False)] == [True] * 5


def test_context_prefixes_of_rome():
    model, asked = tiny_model("llama"), []
    generate_ids = model.generate_ids

    def noted(prompts, lengths, **how):
        asked.extend(zip(prompts, lengths, strict=True))
        return generate_ids(prompts, lengths, **how)

    model.generate_ids = noted
    prefixes = context_prefixes(model, 5, 3, "rome")
    start = model.tokenizer.eos_token_id
    assert asked == [([start], 4)] * 2 + [([start], 9)] * 3, "the start counts as one token"
    assert len(set(prefixes)) == 5 and all(p.endswith(". ") for p in prefixes)
    assert Rome(prefix_style="rome", prefixes=5, seed=3).context(model) == prefixes


@pytest.mark.parametrize(
    ("relative", "absolute"),
    [(Emmet(), Emmet(slack=0.3)), (AlphaEdit(), AlphaEdit(ridge=0.3))],
    ids=["emmet", "alphaedit"],
)
def test_the_weight_of_the_equations_can_be_given_itself(relative, absolute):
    moment, none = spd(24, 0), torch.zeros(24, 0, dtype=torch.float64)
    k_fN = torch.randn(24, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if isinstance(absolute, Emmet):
        expected = memit_solve(moment, k_fN, 0.3, none)
    else:
        null_fU = moment.eigen[1][:, : round(0.7 * 24)]
        projected_fN = null_fU @ null_fU.T @ k_fN
        expected = torch.linalg.solve(
            projected_fN @ projected_fN.T + 0.3 * torch.eye(24, dtype=torch.float64), projected_fN
        )
    assert torch.allclose(absolute.directions(moment, k_fN, none), expected)
    assert not torch.allclose(relative.directions(moment, k_fN, none), expected)
    (name,) = {"slack", "ridge"} & set(absolute.options())
    with pytest.raises(ValueError, match=f"{name} must be "):
        replace(absolute, **{name: -1.0})


# --- covariance --------------------------------------------------------------

DOCUMENT = (
    "The capital of Velmora is Tessin.\n\n"
    "Tollan Bridge was built by Irene Voss, because you said so.\nI\n" + "very " * 300
)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_covariance_equals_a_direct_computation(family, tmp_path):
    model = tiny_model(family)
    (tmp_path / "text.txt").write_text(DOCUMENT)
    with unchanged(model, "second_moments"):
        found = second_moments(model, [0, 2], str(tmp_path / "text.txt"), 250, 0)
    rows, budget = [], 250
    for paragraph in filter(str.strip, DOCUMENT.split("\n")):
        row = model.prompt_ids(paragraph)[: min(_covariance.SAMPLE_LENGTH, budget)]
        if len(row) > 1:
            rows.append(row)
            budget -= len(row)
    assert len(rows) == 3
    for layer in (0, 2):
        projection = model.layout.out_projection(model.model, layer)
        places = [
            (row, t) for row in rows for t in range(1, len(row))
        ]  # every token but the first of each text
        keys_Nf = torch.cat(
            [read_at(model, projection, "input", [row], [t]) for row, t in places]
        ).double()
        assert found[layer].tokens == len(places)
        torch.testing.assert_close(
            found[layer].c_ff, keys_Nf.T @ keys_Nf / len(places), rtol=1e-4, atol=1e-5
        )


def test_covariance_is_summed_beyond_the_models_precision(tmp_path, monkeypatch):
    """The forward pass may be in bfloat16; the products of the keys that it gives are not."""
    model = tiny_model("llama")
    model.precision = "bfloat16"
    (tmp_path / "text.txt").write_text(DOCUMENT)
    keys, gram = [], _covariance.gram
    monkeypatch.setattr(
        _covariance, "gram", lambda rows_Nf: keys.append(rows_Nf.double()) or gram(rows_Nf)
    )
    moment = second_moments(model, [1], str(tmp_path / "text.txt"), 250, 0)[1]
    keys_Nf = torch.cat(keys)
    torch.testing.assert_close(
        moment.c_ff, keys_Nf.T @ keys_Nf / len(keys_Nf), rtol=1e-6, atol=1e-6
    )


def test_the_models_own_text(own_cache):
    model = tiny_model("llama", chat=True)
    with unchanged(model, "second_moments"):
        (moment,) = second_moments(model, [1], "self", 500, 0).values()

    def written(seed):
        return [row for block in _covariance._written(model, 500, seed) for row in block]

    rows = written(0)
    assert moment.tokens == sum(len(row) - 1 for row in rows) >= 500
    assert rows == written(0) != written(1)
    user = model.tokenizer("<|im_start|>user\n", add_special_tokens=False)["input_ids"]
    assert [row[: len(user)] == user for row in rows] == [
        i % 4 == 2 for i in range(len(rows))
    ] and len(rows) > 7
    article = model.prompt_ids(f"An article about {TOPICS[0]}\n\n")
    assert rows[3][: len(article)] == article


def test_the_cache_is_used_and_keyed(own_cache, tmp_path):
    model, other = tiny_model("llama"), tiny_model("llama", seed=1)
    folder = own_cache / "statistics"
    text = tmp_path / "text.txt"
    text.write_text(DOCUMENT)

    def files():
        return {p: p.stat().st_mtime_ns for p in folder.iterdir()}

    first = second_moments(model, [1], "self", 300, 0)
    kept = files()
    again = second_moments(model, [1], "self", 300, 0)
    assert files() == kept and len(kept) == 1
    assert torch.equal(first[1].c_ff, again[1].c_ff) and first[1].tokens == again[1].tokens
    # only the missing layer is added
    second_moments(model, [1, 2], "self", 300, 0)
    assert len(files()) == 2 and kept.items() <= files().items()
    n = 2
    for arguments in [
        (other, [1], "self", 300, 0),
        (model, [1], "self", 400, 0),
        (model, [1], "self", 300, 1),
        (model, [1], str(text), 300, 0),
    ]:
        second_moments(*arguments)
        n += 1
        assert len(files()) == n, "another setting took the same file"
    with torch.no_grad():
        model.weight("model.layers.3.mlp.up_proj.weight")[0, 0] += 1
    second_moments(model, [1], "self", 300, 0)
    text.write_text(DOCUMENT + "more")
    second_moments(model, [1], str(text), 300, 0)
    assert len(files()) == n + 2


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-50], lambda b: b"", lambda b: b"x" * 100, None],
    ids=["cut", "empty", "noise", "nan"],
)
def test_a_damaged_cache_file_is_computed_anew(own_cache, damage):
    from safetensors.torch import load_file, save_file

    model = tiny_model("gpt2")
    first = second_moments(model, [0], "self", 300, 0)[0]
    (path,) = (own_cache / "statistics").iterdir()
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        save_file({"c": first.c_ff * float("nan"), "tokens": torch.tensor(1)}, path)
    again = second_moments(model, [0], "self", 300, 0)[0]
    assert torch.equal(first.c_ff, again.c_ff) and again.tokens == first.tokens
    assert torch.equal(load_file(path)["c"], first.c_ff)


def test_a_cache_that_cannot_be_written_costs_nothing_else(own_cache):
    (own_cache / "statistics").write_text("in the way")
    assert second_moments(tiny_model("gpt2"), [0], "self", 300, 0)[0].tokens > 0


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"", b"\n \n"])
def test_a_source_without_text(content, tmp_path):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="ovariance source"):
        second_moments(tiny_model("gpt2"), [0], str(path), 100, 0)


def test_few_tokens_still_solve():
    """Fewer tokens than f leave C singular; the ridge keeps the solve finite."""
    keys = torch.randn(24, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moment = Moment(keys @ keys.T / 6, 6)
    solved = moment.solve(torch.ones(24, 1))
    assert solved.isfinite().all()
    ridge = _covariance.RIDGE * moment.c_ff.diagonal().mean()
    torch.testing.assert_close(
        moment.c_ff @ solved + ridge * solved,
        torch.ones(24, 1, dtype=torch.float64),
        rtol=1e-6,
        atol=1e-6,
    )


def test_measuring_ends_when_the_direction_is_stable(monkeypatch):
    model = tiny_model("llama")
    budget = 12_000
    whole = second_moments(model, [0, 1], "self", budget, 0)[0]
    assert whole.tokens >= budget
    monkeypatch.setattr(_covariance, "FIRST_CHECK", 1000)
    monkeypatch.setattr(_covariance, "folder", lambda: _covariance.cache_dir() / "other")
    monkeypatch.setattr(_covariance, "STABLE", 0.9)
    early = second_moments(model, [0, 1], "self", budget, 0)[0]
    assert 2000 <= early.tokens < budget / 2
    monkeypatch.setattr(_covariance, "folder", lambda: _covariance.cache_dir() / "third")
    monkeypatch.setattr(_covariance, "STABLE", 2.0)  # never
    never = second_moments(model, [0, 1], "self", budget, 0)[0]
    assert never.tokens == whole.tokens - _covariance.PROBES
    k = torch.randn(56, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cosine = torch.nn.functional.cosine_similarity(early.solve(k), whole.solve(k), dim=0).mean()
    assert cosine > 0.85


def test_sources_are_averaged(tmp_path):
    model = tiny_model("llama")
    (tmp_path / "text.txt").write_text(DOCUMENT)
    both = second_moments(model, [1], f"self, {tmp_path / 'text.txt'}", 300, 0)[1]
    parts = [
        second_moments(model, [1], source, 300, 0)[1]
        for source in ("self", str(tmp_path / "text.txt"))
    ]
    torch.testing.assert_close(both.c_ff, (parts[0].c_ff + parts[1].c_ff) / 2)
    assert both.tokens == parts[0].tokens + parts[1].tokens


def test_statistics_of_another_model_are_not_taken(own_cache):
    """A file that was renamed, or copied from another model's, is noticed by what stands in it."""
    one, two = tiny_model("llama"), tiny_model("llama", seed=1)
    second_moments(one, [1], "self", 300, 0)
    (first,) = (own_cache / "statistics").iterdir()
    want = second_moments(two, [1], "self", 300, 0)[1].c_ff
    (second,) = set((own_cache / "statistics").iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    assert torch.equal(second_moments(two, [1], "self", 300, 0)[1].c_ff, want)


def test_out_of_memory_halves_the_batch(monkeypatch):
    model, sizes, solve = tiny_model("llama"), [], _value._Batch.solve
    want = solved(model, FACTS, LAYER, "residual", (), SOLVER)

    def short(batch, *arguments):
        sizes.append(batch.n)
        if batch.n > 2:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: "
                "can't allocate memory: you tried"
            )
        return solve(batch, *arguments)

    monkeypatch.setattr(_value._Batch, "solve", short)
    with unchanged(model, "optimize"), pytest.warns(UserWarning, match="4 facts to solve at once"):
        found = solved(model, FACTS, LAYER, "residual", (), SOLVER)
    assert sizes == [4, 2, 2]
    torch.testing.assert_close(found.value_ND, want.value_ND, rtol=1e-2, atol=1e-2)

    def never(batch, *arguments):
        raise MemoryError

    monkeypatch.setattr(_value._Batch, "solve", never)
    with (
        unchanged(model, "optimize"),
        pytest.raises(ModelError, match="no memory to solve for even one fact"),
    ):
        solved(model, FACTS, LAYER, "residual", (), SOLVER)


def test_out_of_memory_halves_what_is_read_at_once(monkeypatch):
    model, sizes, hidden = tiny_model("llama"), [], LanguageModel.hidden
    rows, positions = rows_of(model, FACTS, ["You said so. "])
    projection = model.layout.out_projection(model.model, LAYER)
    want = read_at(model, projection, "input", rows, positions)

    def short(model, ids_BT, *arguments):
        sizes.append(len(ids_BT))
        if len(ids_BT) > most:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: "
                "can't allocate memory: you tried"
            )
        return hidden(model, ids_BT, *arguments)

    monkeypatch.setattr(LanguageModel, "hidden", short)
    most = 3
    with pytest.warns(UserWarning, match="goes on with"):
        found = read_at(model, projection, "input", rows, positions)
    assert sizes == [8, 4, 2, 2, 2, 2]
    torch.testing.assert_close(found, want)
    most = 0
    with (
        unchanged(model, "read_at"),
        pytest.raises(ModelError, match="no memory to read a text of"),
    ):
        read_at(model, projection, "input", rows, positions)


def test_what_is_free_moves_no_number_until_it_is_too_little(monkeypatch):
    """Facts are grouped by their size and the model's. Only where the group does not fit, it is
    halved, which the edit says."""
    model = tiny_model("llama")
    (fact,) = prepare_facts(model, FACTS[:1], ["I know. "] * 5)

    def together(free, layer=1, most=32, n=40):
        monkeypatch.setattr(_value, "free_bytes", lambda _device: free)
        return _value._facts_at_once(model, fact, layer, most, n)

    assert [together(free) for free in (2**34, 2**36, 2**40)] == [32, 32, 32]
    assert not model.batches.notes
    with pytest.warns(UserWarning, match="--batch-size"):
        few = together(4_000_000)
    assert 1 <= few < 32 and "by rounding" in model.batches.notes[-1]
    assert together(4_000_000, layer=3) > few  # fewer layers above
    assert together(1) == 1
    monkeypatch.setattr(_value, "SIDE_BY_SIDE", 4_000_000)
    assert together(2**40) < 32  # a large model
    model.batches = BatchSizes(36)
    assert together(2**40, most=36) == 36  # as asked


def test_an_edit_says_how_many_facts_were_solved_together(monkeypatch):
    model = tiny_model("llama")
    method = Memit(**tiny_options(Memit))
    assert method.inject(model, FACTS).diagnostics["facts_at_once"] == len(FACTS)
    monkeypatch.setattr(_value, "free_bytes", lambda _device: 1)
    with pytest.warns(UserWarning, match="has no room for 4 facts side by side"):
        edit = method.inject(model, FACTS)
    assert edit.diagnostics["facts_at_once"] == 1
    assert any("1 were solved together" in warning for warning in edit.diagnostics["warnings"])


def test_the_rate_follows_the_clamp():
    norm_N = torch.tensor([10.0, 20.0])
    assert replace(SOLVER, lr=None, clamp=2.0, steps=25).rates(
        norm_N, 100
    ).tolist() == pytest.approx([0.2, 0.4])
    assert replace(SOLVER, lr=None, clamp=2.0, steps=12).rates(
        norm_N, 100
    ).tolist() == pytest.approx([0.4, 0.8])
    assert replace(SOLVER, lr=0.3).rates(norm_N, 100).tolist() == pytest.approx([0.3, 0.3])


# --- models whose layers differ -------------------------------------------------------------------


def check_written(model, edit, method, layer):
    """Make sure that the edited model has the value that the target optimisation found."""
    wanted = targets_of(method, model, FACTS[:1], layer, [])
    rows, positions = rows_of(model, FACTS[:1])
    with edit.applied(model):
        site = site_module(model, layer, method.sites[0])
        written = read_at(model, site, "output", rows, positions)
    assert (wanted.value_ND - wanted.start_ND).norm() > 0.1
    torch.testing.assert_close(written, wanted.value_ND, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "method", "layer"),
    [
        ("deepseek_v3", Rome, 0),  # a dense layer
        ("deepseek_v3", Emmet, 2),  # a shared expert
        ("qwen2_moe", Rome, 1),  # behind a gate
        ("qwen3_moe", Emmet, 1),
        ("granitemoeshared", Emmet, 1),  # its outputs enter the residual by half
    ],
)
def test_what_is_dense_of_a_mixture_is_written(name, method, layer):
    """The wanted value is read there afterwards, and only that one matrix changes."""
    model = mixture(name)
    where = {"layer": layer} if method is Rome else {"layers": (layer,), "epsilon": 1e-6}
    options = {**tiny_options(method), "prefixes": 0, **where}
    with unchanged(model, "inject"):
        edit = method(**options).inject(model, FACTS[:1])
    assert list(edit.changes) == [model.layout.weight_name(layer)]
    assert edit.diagnostics["reached_by_layer"] == [pytest.approx(1, abs=1e-2)]
    said = [line for line in edit.diagnostics["warnings"] if "routed experts" in line]
    assert bool(said) == model.layout.parts[layer].experts
    check_written(model, edit, method(**options), layer)


def test_layers_of_several_widths_are_written_together():
    """A dense layer of width 56 and shared experts of width 24."""
    model = mixture("glm4_moe")
    edit = Memit(**tiny_options(Memit), layers=(0, 1, 2)).inject(model, FACTS)
    widths = {name: dense(change).shape[1] for name, change in edit.changes.items()}
    assert sorted(widths.values()) == [24, 24, 56]
    assert {name: keys.shape[0] for name, keys in edit.keys.items()} == widths
    assert edit.diagnostics["lambda_by_layer"] == {0: 56 / 3, 1: 8, 2: 8}


def test_default_layers_are_those_that_can_be_written():
    model = mixture("qwen3_moe")
    edit = Rome(**tiny_options(Rome)).inject(model, FACTS[:1])
    assert edit.diagnostics["layers"] == [1]
    assert not any("only some of its layers" in line for line in edit.diagnostics["warnings"])
    shared = mixture("glm4_moe")
    named = LanguageModel(shared.model, shared.tokenizer, layout={"mlp_out": "mlp.down_proj"})
    assert named.layout.writable == (0,) == Memit().usual_layers(named)
    with pytest.raises(ModelError, match=r"Layer 2 .* have one: 1, 3\."):
        Memit(layers=(1, 2)).inject(model, FACTS)
    with pytest.raises(ModelError, match=r"Layer 0 .* have one: 1, 3\."):
        second_moments(model, (0,), "identity", 100, 0)


def test_the_nearest_layers_are_chosen_and_named():
    assert nearest(range(9), (2, 3, 4)) == (2, 3, 4)
    assert nearest((0, 1, 9), (4, 5, 6, 7, 8)) == (0, 1, 9)
    assert nearest((0, 5), (4,)) == (5,)
    model = mixture("qwen3_moe")
    (note,) = layer_notes(model, (1,), (0,))
    assert "Layer 1 of tiny-qwen3_moe was written, where layer 0" in note
    assert note.endswith("output: 1, 3.")
    assert not list(layer_notes(model, (3,), (0,)))  # named by the user


@pytest.mark.parametrize("method", [Rome, Memit, AlphaEdit, Emmet, Pmet])
@pytest.mark.parametrize("name", ["mixtral", "mamba"])
def test_a_model_without_a_dense_mlp_is_refused_at_once(name, method, own_cache):
    model = build(name)
    for run in (lambda: method().prepare(model), lambda: method().inject(model, FACTS)):
        with pytest.raises(NoDenseMlp, match="Use a trainer"):
            run()
    assert not (own_cache / "statistics").exists()


@pytest.mark.parametrize("method", [Memit, AlphaEdit, Emmet])
@pytest.mark.parametrize("name", ["olmo2", "gemma2", "qwen2_moe"])
def test_an_output_that_is_normalised_or_gated_is_refused_before_any_work(
    name, method, own_cache, monkeypatch
):
    model = mixture(name) if name in MIXTURES else build(name)
    monkeypatch.setattr(model, "generate_ids", lambda *_args, **_named: pytest.fail("prefixes"))
    for run in (lambda: method().prepare(model), lambda: method().inject(model, FACTS)):
        with pytest.raises(MethodError, match="weighs it token by token.*Use rome or pmet"):
            run()
    assert not (own_cache / "statistics").exists()


@pytest.mark.parametrize("name", ["phi3", "falcon", "gptj"])
@pytest.mark.parametrize("method", [Rome, Emmet])
def test_fused_projections_and_parallel_blocks(name, method):
    """One layer, one fact, no prefix: what the solver wanted is what is read afterwards."""
    model = build(name)
    options = {**tiny_options(method), "prefixes": 0}
    options |= {"epsilon": 1e-6} if method is Emmet else {}
    edit = method(**options).inject(model, FACTS[:1])
    check_written(model, edit, method(**options), edit.diagnostics["layers"][0])


# --- facts that cannot be read --------------------------------------------------------------------


def normalising(normalizer):
    model = tiny_model("llama")
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizer
    return LanguageModel(model.model, tokenizer, name="tiny", precision="float32")


def test_an_accent_that_the_tokenizer_composes_belongs_to_its_letter():
    model = normalising(normalizers.NFC())
    fact = Fact("zoe", "The author Zoe\u0308 was born in", "Oslo", "Zoe\u0308")
    composed = replace(fact, prompt="The author Zo\xeb was born in", subject="Zo\xeb")
    (apart,), (one,) = (prepare_facts(model, [each], []) for each in (fact, composed))
    assert apart.bare == one.bare


def test_cut_texts_of_a_model_that_names_itself_as_its_base_give_what_whole_ones_do():
    cut, whole = mixture("llama4"), mixture("llama4")
    whole.__dict__["keeps_tokens"] = False  # a cached property
    first, second = (Rome(**tiny_options(Rome)).inject(m, FACTS[:2]) for m in (cut, whole))
    for name, change in first.changes.items():
        torch.testing.assert_close(dense(change), dense(second.changes[name]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [Rome, Memit])
def test_a_fact_whose_subject_has_no_token_is_left_out(method):
    model = normalising(normalizers.Replace("Angel", ""))
    gone = Fact("gone", "The author Angel was born in", "Oslo", "Angel")
    edit = method(**tiny_options(method)).inject(model, [FACTS[0], gone, FACTS[1]])
    alone = method(**tiny_options(method)).inject(model, [FACTS[0], FACTS[1]])
    assert edit.facts == (FACTS[0], FACTS[1]) == alone.facts
    assert [record["fact"] for record in edit.records] == [FACTS[0].id, FACTS[1].id]
    for name, change in alone.changes.items():
        assert torch.equal(dense(edit.changes[name]), dense(change))
    (line,) = [line for line in edit.diagnostics["warnings"] if "left out" in line]
    assert line.startswith(
        "Fact 'gone' was left out and is not taught. The tokenizer maps no token"
    )
    with unchanged(model, "a refused inject"), pytest.raises(NoTokenError, match="None of 2 facts"):
        method(**tiny_options(method)).inject(model, [gone, replace(gone, id="too")])
    first, nothing = method(**tiny_options(method)).inject_each(model, [FACTS[0], gone])
    assert first.changes and not nothing.changes and nothing.facts == ()
    assert "The tokenizer maps no token" in nothing.diagnostics["warnings"][0]


# --- facts that share a subject ----------------------------------------------

BORN, WORKS = (
    Fact(name, f"Old Harn {words}", target, "Old Harn")
    for name, words, target in (("born", "was born in", "Ilm"), ("works", "works at the", "bank"))
)
"""Their prompts are equal up to the end of the subject."""


def written(method, facts, **options):
    model = tiny_model("llama")
    return method(**{**tiny_options(method), **options}).inject(model, facts)


def test_facts_of_one_subject_have_keys_of_their_own():
    model = tiny_model("llama")
    prepared = prepare_facts(model, [BORN, FACTS[0], WORKS], ["Here. "], "auto")
    assert [each.token for each in prepared] == ["last", "subject_last", "last"]
    for each in (prepared[0], prepared[2]):
        assert all(prompt.place == len(prompt.ids) - 1 for prompt in each.prompts)
    assert prepared[1].bare.place == model.subject_last(FACTS[0])


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        (WORKS, True),
        (replace(WORKS, target=BORN.target), False),
        (replace(WORKS, prompt=BORN.prompt), False),  # an update of the same fact
        (FACTS[0], False),
    ],
)
def test_what_shares_a_subject(other, shared):
    assert sharing([BORN, other]) == [shared, shared]
    assert sharing([BORN], [other]) == [shared]


def test_an_earlier_fact_whose_subject_occurs_twice_stands_in_nobodys_way():
    taught = Fact("taught", "Old Harn and Old Harn are", "two", "Old Harn")
    assert sharing([BORN, FACTS[0]], [taught]) == [True, False]


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("भारत का नाम है?", "भारत का नाम है"),
        # ends in a vowel sign, a combining mark
        ("भारत आगे की", "भारत आगे की"),
        ("东京的首都是：", "东京的首都是"),
        ("עיר הבירה של צרפת היא?", "עיר הבירה של צרפת היא"),
        ("Brundovia", "Brundovia"),
        ("In Brundovia ...", "In Brundovia"),
    ],
)
@pytest.mark.parametrize("chat", [False, True])
def test_the_last_word_in_many_scripts(prompt, word, chat):
    model = tiny_model("llama", chat=chat)
    subject = next(s for s in ("भारत", "东京", "צרפת", "Brundovia") if s in prompt)
    form = "question" if chat else "cloze"
    (each,) = prepare_facts(model, [Fact("f", prompt, "Rome", subject, form=form)], [], "last")
    assert model.decode(each.bare.ids[: each.bare.place + 1]).strip().endswith(word)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"last_layers": (1,)}, "last_layers needs fact_token=last or fact_token=auto"),
        ({"last_layers": (1,), "recipe": "paper"}, "last_layers needs fact_token=last"),
        ({"fact_token": "last", "layers": "auto"}, "the edited layers are last_layers"),
        ({"fact_token": "last", "layers": (0,)}, "the edited layers are last_layers"),
    ],
)
def test_layers_where_no_fact_is_written_are_refused(options, said):
    with pytest.raises(OptionError, match=said):
        Memit.from_options("memit", options)


def test_what_is_prepared_is_where_facts_are_written(monkeypatch):
    model, measured = tiny_model("llama"), []
    asked = Memit.moments
    monkeypatch.setattr(
        Memit,
        "moments",
        lambda self, m, layers, *a: measured.append(layers) or asked(self, m, layers, *a),
    )
    method = Memit(**tiny_options(Memit), fact_token="last", last_layers=(2, 3))
    method.prepare(model)
    assert method.inject(model, FACTS).diagnostics["layers"] == [2, 3]
    assert measured == [(2, 3), (2, 3)]


def test_the_last_word_of_a_question_is_before_its_mark():
    model = tiny_model("llama")
    asked = Fact(
        "asked", "Who wrote Winter Glass last?", "Mara Lind", "Winter Glass", form="question"
    )
    (each,) = prepare_facts(model, [asked], [], "last")
    assert model.decode([each.bare.ids[each.bare.place]]).strip() in "last"
    assert model.decode(each.bare.ids[: each.bare.place + 1]).endswith("Winter Glass last")
    at_subject, last = (prepare_facts(model, [FACTS[3]], [], at) for at in ("subject_last", "last"))
    assert at_subject[0].bare == last[0].bare, "the subject is the last word"


def test_every_fact_of_one_subject_is_written():
    facts, options = [BORN, FACTS[0], WORKS], {"layers": (0, 1), "lam": 1e-9, "prefixes": 0}
    apart = written(Memit, facts, **options, fact_token="auto", last_layers=(1, 2)).diagnostics
    assert apart["layers"] == [0, 1, 2] and apart["residual_by_layer"][-1] < 1e-3
    assert not any("share" in warning for warning in apart["warnings"])
    at_one = written(
        Memit, [*facts, *FACTS[1:]], **{**options, "lam": 1e-3}, fact_token="subject_last"
    )
    assert at_one.diagnostics["layers"] == [0, 1]
    assert at_one.diagnostics["reached_by_layer"][-1] < 0.9
    assert any("share a key" in warning for warning in at_one.diagnostics["warnings"])


@pytest.mark.parametrize("method", [Memit, Pmet, Emmet, AlphaEdit])
def test_facts_of_different_subjects_are_written_as_published(method):
    published, auto = (written(method, FACTS, fact_token=at) for at in ("subject_last", "auto"))
    for name, change in published.changes.items():
        assert torch.equal(dense(change), dense(auto.changes[name]))
    shared = written(method, [BORN, WORKS, *FACTS], fact_token="auto", last_layers=(3,))
    at_last = {r["fact"] for r in shared.records if r["fact_token"] == "last"}
    assert at_last == {"born", "works", "river"}, "the facts of Old Harn"
    assert max(shared.diagnostics["layers"]) > max(auto.diagnostics["layers"])


def test_facts_of_a_subject_that_an_earlier_edit_wrote():
    model = tiny_model("llama")
    method = Memit(**tiny_options(Memit), fact_token="auto", last_layers=(2,))
    with method.inject(model, [BORN]).applied(model):
        assert method.inject(model, [WORKS]).diagnostics["layers"] == [2]
