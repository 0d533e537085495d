"""alphaedit, emmet, pmet, rome's keys and memit's memory against NumPy transcriptions of the
papers; diagnostics; bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import rows_of, targets_of

from editbench import text
from editbench.changes import dense
from editbench.edit import Edit
from editbench.errors import EditbenchError, MethodError, OptionError
from editbench.methods import memit as _memit
from editbench.methods._common.hooks import read_at, site_module
from editbench.methods._edit import batch as _batch
from editbench.methods._edit import options as _options
from editbench.methods._edit import prepare as _prepare
from editbench.methods._edit import refine as _refine
from editbench.methods._edit import report as _report
from editbench.methods._edit.batch import BatchBench, compact
from editbench.methods._edit.options import WeightEditor
from editbench.methods._edit.prepare import prepare_facts
from editbench.methods._edit.value import optimize
from editbench.methods.alphaedit import AlphaEdit, alphaedit_solve, null_width
from editbench.methods.emmet import Emmet
from editbench.methods.memit import BatchEditor, Memit, memit_solve
from editbench.methods.pmet import Pmet
from editbench.methods.rome import Rome
from editbench.methods.statistics import RIDGE, Moment, identity_moment, source_texts
from editbench.models import LanguageModel
from editbench.report import EditRecord, EditReport
from editbench.testing import FACTS, tiny_model, tiny_options, unchanged
from editbench.text import pad_left
from editbench.types import Fact

FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gpt_neox"])
LAYER = 1
F, N, M = 24, 5, 3


def spd(seed):
    keys = torch.randn(F, 4 * F, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Moment(keys @ keys.T / keys.shape[1], keys.shape[1])


def draw(rows, columns, seed):
    return torch.randn(
        rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def delta_of(edit, model, layer=LAYER):
    change = dense(edit.changes[model.layout.weight_name(layer)]).double()
    return change.T if model.layout.transposed else change


def close(have, want, tolerance=1e-6):
    want = np.asarray(want)
    assert np.abs(np.asarray(have) - want).max() <= tolerance * np.abs(want).max()


# --- the papers' formulas, transcribed in NumPy ------------------------------


@pytest.mark.parametrize("n", [1, N, F + 6])
@pytest.mark.parametrize("m", [0, M, 2 * F])
def test_memit_with_memory(n, m):
    moment, k, earlier, r = spd(0), draw(F, n, 1), draw(F, m, 2), draw(8, n, 3)
    c = moment.ridged_ff.numpy()
    want = (
        r.numpy()
        @ k.numpy().T
        @ np.linalg.inv(7.0 * c + (earlier @ earlier.T).numpy() + (k @ k.T).numpy())
    )
    close(r @ memit_solve(moment, k, 7.0, earlier).T, want)


@pytest.mark.parametrize("n", [1, N, F + 6])
@pytest.mark.parametrize("m", [0, M, 2 * F])
def test_alphaedit(n, m):
    moment, k, earlier, r, l2 = spd(0), draw(F, n, 1), draw(F, m, 2), draw(8, n, 3), 2.5
    values, vectors = moment.eigen
    u0 = vectors[:, : null_width(values, 0.6, None)]
    assert u0.shape[1] == round(0.6 * F)
    p = (u0 @ u0.T).numpy()
    # the reference: Delta^T = solve(P (K K^T + M) + L2 I, P K R^T)
    left = p @ ((k @ k.T) + (earlier @ earlier.T)).numpy() + l2 * np.eye(F)
    want = np.linalg.solve(left, p @ k.numpy() @ r.numpy().T).T
    have = r @ alphaedit_solve(u0, k, l2, earlier).T
    close(have, want)
    # and what it is for
    np.testing.assert_allclose(p @ p, p, atol=1e-12)
    np.testing.assert_allclose(p, p.T)
    kept = torch.eye(F, dtype=torch.float64) - u0 @ u0.T
    assert (have @ kept).norm() < 1e-10 * have.norm()


def test_alphaedit_without_a_kept_space_is_ridge_regression():
    k, r = draw(F, N, 1), draw(8, N, 3)
    have = (
        r
        @ alphaedit_solve(
            torch.eye(F, dtype=torch.float64), k, 3.0, torch.zeros(F, 0, dtype=torch.float64)
        ).T
    )
    close(have, r.numpy() @ k.numpy().T @ np.linalg.inv((k @ k.T).numpy() + 3.0 * np.eye(F)))


def test_the_papers_threshold():
    values = torch.tensor([0.001, 0.01, 0.03, 5.0])
    assert null_width(values, 0.9, 0.02) == 2 and null_width(values, 0.75, None) == 3
    with pytest.raises(MethodError, match="least second moment is 0.001"):
        null_width(values, 0.9, 1e-5)


def test_emmet_keeps_every_constraint():
    moment, k, r = spd(0), draw(F, N, 1), draw(8, N, 3)
    none = torch.zeros(F, 0, dtype=torch.float64)
    exact = r @ Emmet(epsilon=0.0).directions(moment, k, none).T
    close(exact @ k, r, 1e-9)
    # the least change in the norm of C among all that keep them
    other = exact + (lambda x: x - x @ k @ torch.linalg.inv(k.T @ k) @ k.T)(draw(8, F, 9) * 0.1)
    close(other @ k, r, 1e-9)
    c = moment.ridged_ff
    assert torch.trace(exact @ c @ exact.T) < torch.trace(other @ c @ other.T)
    # with epsilon: the equation
    ci = np.linalg.inv(c.numpy())
    d = k.numpy().T @ ci @ k.numpy()
    want = r.numpy() @ np.linalg.inv(d + 0.1 * np.diag(d).mean() * np.eye(N)) @ k.numpy().T @ ci
    close(r @ Emmet(epsilon=0.1).directions(moment, k, none).T, want)


def test_emmet_with_more_facts_than_the_width():
    have = Emmet().directions(spd(0), draw(F, 2 * F, 1), torch.zeros(F, 0, dtype=torch.float64))
    assert have.shape == (F, 2 * F) and have.isfinite().all()


def test_ordinary_keys_measure_f():
    """E[k^T C^-1 k] = f: what lambda is measured against."""
    keys = draw(F, 400, 1)
    moment = Moment(keys @ keys.T / 400, 400)
    assert (keys * moment.solve(keys)).sum(0).mean().item() == pytest.approx(F, rel=1e-4)


@pytest.mark.parametrize("n", [3, F, 3 * F])
def test_compact_keys(n):
    k = draw(F, n, 1)
    a = compact(k)
    assert a.shape == (F, min(n, F))
    close(a @ a.T, k @ k.T, 1e-9)


# --- in a model --------------------------------------------------------------


@FAMILIES
def test_romes_original_key(family):
    model, fact = tiny_model(family), FACTS[1]
    method = Rome(**tiny_options(Rome), layer=LAYER, key="original")
    edit = method.inject(model, [fact])
    prefixes = edit.diagnostics["prefixes"]
    v_star = targets_of(method, model, [fact], LAYER, prefixes).value_ND[0].double().numpy()
    rows, positions = rows_of(model, [fact], prefixes)
    projection = model.layout.out_projection(model.model, LAYER)
    keys = read_at(model, projection, "input", rows, positions).double().numpy()
    bare = read_at(model, projection, "input", rows[:1], positions[:1])[0].double().numpy()
    value = read_at(model, projection, "output", rows[:1], positions[:1])[0].double().numpy()
    c = method.moments(model, (LAYER,))[LAYER].c_ff.numpy()
    u = np.linalg.solve(c + RIDGE * np.diag(c).mean() * np.eye(len(c)), keys.mean(0))
    close(delta_of(edit, model), np.outer(v_star - value, u) / (u @ bare))
    close(delta_of(edit, model).numpy() @ bare, v_star - value)
    assert len(prefixes) == 2 and not np.allclose(keys.mean(0), keys[0])
    assert not torch.allclose(
        delta_of(edit, model),
        delta_of(replace(method, key="consistent").inject(model, [fact]), model),
    )


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "gptj"])
def test_pmet_writes_the_mlps_value(family):
    model = tiny_model(family)
    method = Pmet(**{**tiny_options(Pmet), "prefixes": 0}, layers=(LAYER,), lam=1e-9)
    edit = method.inject(model, FACTS)
    target = targets_of(method, model, FACTS, LAYER, [])
    solver, prepared = method.solver(method.clamp), prepare_facts(model, FACTS, [])
    alone = optimize(model, prepared, LAYER, ("mlp",), solver)
    assert not torch.allclose(target.value_ND, alone.value_ND, atol=1e-3), (
        "the attention's delta plays no part"
    )
    rows, positions = rows_of(model, FACTS)
    k_fN = read_at(
        model, model.layout.out_projection(model.model, LAYER), "input", rows, positions
    ).T.double()
    r_dN = (target.value_ND - target.start_ND).T.double()
    torch.testing.assert_close(delta_of(edit, model) @ k_fN, r_dN, rtol=1e-3, atol=1e-3)


EXACT = (
    (Rome, {}),
    (Memit, {"lam": 1e-9}),
    (Emmet, {"epsilon": 0.0}),
    (Pmet, {"lam": 1e-9}),
    (AlphaEdit, {"l2": 1e-9, "null_space": 1.0}),
)


@pytest.mark.parametrize(
    ("family", "method", "options"),
    [
        (family, *one)
        for family in ("gpt2", "llama", "qwen3", "gpt_neox", "gemma3")
        for one in EXACT
        if family != "gemma3" or one[0] in (Rome, Pmet)
    ],
)
def test_in_float64_every_value_is_written_exactly(family, method, options):
    """W' K = W K + R, in a float64 model, where nothing is weighed against the facts."""
    model, facts = tiny_model(family), FACTS[:1] if method is Rome else FACTS
    model.model.double()
    place = {"layer": LAYER} if method is Rome else {"layers": (LAYER,)}
    editor = method(
        **{
            **tiny_options(method),
            "prefixes": 0,
            "steps": 3,
            "covariance_tokens": 200,
            **options,
            **place,
        }
    )
    edit = editor.inject(model, facts)
    rows, positions = rows_of(model, facts)
    k_fN = read_at(
        model, model.layout.out_projection(model.model, LAYER), "input", rows, positions
    ).T
    start_dN = read_at(
        model, site_module(model, LAYER, method.sites[0]), "output", rows, positions
    ).T
    r_dN = targets_of(editor, model, facts, LAYER, []).value_ND.T.double() - start_dN
    assert k_fN.dtype == torch.float64 and r_dN.norm(dim=0).min() > 0.05
    close(delta_of(edit, model) @ k_fN, r_dN, 1e-7)
    assert edit.diagnostics["reached_by_layer"] == [pytest.approx(1, abs=1e-7)]


def test_pmet_spreads_by_the_square_root():
    assert torch.equal(Pmet().share(torch.ones(2, 2), 4), torch.full((2, 2), 0.5))
    assert torch.equal(Memit().share(torch.ones(2, 2), 4), torch.full((2, 2), 0.25))


@pytest.mark.parametrize("method", [Memit, AlphaEdit])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_edit_in_a_sequence_keeps_the_one_before(method, family):
    """With the earlier keys in the solve, the second edit moves the first one's keys less."""
    model, options = tiny_model(family), {**tiny_options(method), "prefixes": 0, "layers": (LAYER,)}
    options |= {"lam": 0.5} if method is Memit else {"l2": 0.05}
    editor = method(**options)
    first = editor.inject(model, FACTS[:2])
    name = model.layout.weight_name(LAYER)
    assert first.keys[name].shape == (model.layout.mlp_width, 2)
    with first.applied(model):
        assert model.applied == (first,)
        second = editor.inject(model, FACTS[2:])
        bench = BatchBench(editor, model, FACTS[2:])
        torch.testing.assert_close(bench.earlier_keys(LAYER), first.keys[name].double())
        model.applied = ()
        forgetful = editor.inject(model, FACTS[2:])
        model.applied = (first,)
    assert model.applied == ()
    k_fM = first.keys[name].double()
    disturbed = [(delta_of(edit, model) @ k_fM).norm().item() for edit in (second, forgetful)]
    assert disturbed[0] < 0.5 * disturbed[1], disturbed


def test_keys_are_saved_with_the_edit(tmp_path):
    model = tiny_model("llama")
    edit = Memit(**tiny_options(Memit)).inject(model, FACTS)
    again = Edit.load(edit.save(tmp_path / "edit"))
    assert again.keys.keys() == edit.keys.keys() == edit.changes.keys()
    assert all(torch.equal(again.keys[name], edit.keys[name]) for name in edit.keys)
    assert again.changes.keys() == edit.changes.keys()


def test_a_sequence_shares_the_statistics_of_its_first_model(own_cache):
    model = tiny_model("llama")
    editor = Memit(**tiny_options(Memit))
    first = editor.inject(model, FACTS[:2])
    files = set((own_cache / "statistics").iterdir())
    with first.applied(model):
        second = editor.inject(model, FACTS[2:])
        assert set((own_cache / "statistics").iterdir()) == files
        for file in files:
            file.unlink()
        late = editor.inject(model, FACTS[2:])
    told = "measured on the edited model"
    assert any(told in warning for warning in late.diagnostics["warnings"])
    assert not any(
        told in warning for edit in (first, second) for warning in edit.diagnostics["warnings"]
    )


def test_a_square_projection_is_written_in_its_own_orientation():
    """f = d: the shape says nothing, the class of the module does."""
    for family, size in (("gpt2", {"n_inner": 32}), ("llama", {"intermediate_size": 32})):
        model = tiny_model(family, **size)
        assert model.layout.width == model.layout.mlp_width
        method = Rome(**tiny_options(Rome), layer=LAYER)
        edit = method.inject(model, FACTS[:1])
        target = targets_of(method, model, FACTS[:1], LAYER, edit.diagnostics["prefixes"])
        rows, positions = rows_of(model, FACTS[:1])
        with edit.applied(model):
            projection = model.layout.out_projection(model.model, LAYER)
            written_d = read_at(model, projection, "output", rows, positions)[0]
        torch.testing.assert_close(written_d, target.value_ND[0], rtol=1e-3, atol=1e-3)


def test_the_size_of_the_factors():
    """Factors while they are smaller than the product, the product from there on."""
    model = tiny_model("llama")
    few = Memit(**tiny_options(Memit)).inject(model, FACTS)
    assert all(
        isinstance(change, tuple) and change[0].shape[1] == 4 for change in few.changes.values()
    )
    many = [
        Fact(f"f{i}", f"Item {i:03d} stands in hall", f"{i % 7}", f"Item {i:03d}")
        for i in range(40)
    ]
    full = Memit(**{**tiny_options(Memit), "steps": 2, "prefixes": 0}).inject(model, many)
    assert all(isinstance(change, torch.Tensor) for change in full.changes.values())
    assert all(keys.shape[1] == 40 for keys in full.keys.values())


# --- joint refinement --------------------------------------------------------


@pytest.fixture
def little_text(monkeypatch):
    monkeypatch.setattr(_memit, "TEXT_TOKENS", 600)


@pytest.fixture
def few_steps(little_text, monkeypatch):
    """A refinement of a third of the steps that it has at least."""
    monkeypatch.setattr(_refine, "MIN_STEPS", 20)


def nll_of(model, edit):
    with edit.applied(model):
        pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in edit.facts]
        return (
            torch.stack([logp_T.mean() for logp_T in model.target_logprobs(pairs)])
            .neg()
            .mean()
            .item()
        )


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_refined_values_say_more_along_the_same_directions(family, reader, little_text):
    """Of an edit that wrote little (a heavy lambda), in both orientations of the weight."""
    model = reader(family)
    plain, refined, again = (
        Memit(**tiny_options(Memit), layers=(0, 1), lam=200.0, refine=passes).inject(model, FACTS)
        for passes in (0, 5, 5)
    )
    assert nll_of(model, refined) < 0.85 * nll_of(model, plain)
    for name, change in plain.changes.items():
        kept = 0 if model.layout.transposed else 1
        assert torch.equal(change[kept], refined.changes[name][kept])
        assert not torch.equal(change[1 - kept], refined.changes[name][1 - kept])
        assert all(map(torch.equal, refined.changes[name], again.changes[name]))
    said = refined.diagnostics["refined"]
    assert (
        said["last_nll"] < said["first_nll"] and "refine" in refined.diagnostics["seconds_by_phase"]
    )
    assert "refined" not in plain.diagnostics


def test_refinement_leaves_the_model_and_the_null_space(reader, few_steps):
    model = reader("llama")
    editor = AlphaEdit(**tiny_options(AlphaEdit), layers=(LAYER,), refine=1)
    with unchanged(model, "inject"):
        edit = editor.inject(model, FACTS)
    values, vectors = editor.moments(model, (LAYER,))[LAYER].eigen
    kept = vectors[:, null_width(values, editor.null_space, None) :]
    assert (
        delta_of(edit, model).norm() > 0.01
        and (delta_of(edit, model) @ kept).norm() < 1e-6 * delta_of(edit, model).norm()
    )


def test_the_text_that_is_held_is_that_of_the_covariance(tmp_path, monkeypatch):
    """Without KL_WEIGHT the text that C is measured on moves farther."""
    lines = (f"The sea of the land {i} is green and the river {i} is blue." for i in range(40))
    (tmp_path / "text.txt").write_text("\n".join(lines))
    model, moved = tiny_model("llama"), []
    texts = source_texts(model, str(tmp_path / "text.txt"), 400, 0)
    assert (
        all(len(opening) == 1 for opening, _ in texts)
        and 300 < sum(1 + len(rest) for _, rest in texts) <= 400
    )
    base = model.target_logprobs(texts)
    for weight in (0.0, 30.0):
        monkeypatch.setattr(_refine, "KL_WEIGHT", weight)
        options = {**tiny_options(Memit), "covariance": str(tmp_path / "text.txt")}
        edit = Memit(**options, layers=(0, 1), refine=5).inject(model, FACTS)
        with edit.applied(model):
            after = model.target_logprobs(texts)
        moved.append(
            torch.stack(
                [(one - other).abs().mean() for one, other in zip(base, after, strict=True)]
            ).mean()
        )
    assert moved[1] < 0.8 * moved[0]


def test_what_goes_on_makes_another_word(smollm2_tokenizer):
    """By the matcher's rules: "Parisian" is another word than "Paris", and "Paris." is not."""
    tokenizer = smollm2_tokenizer()
    tiny = tiny_model("llama", vocab_size=len(tokenizer))
    model = LanguageModel(tiny.model, tokenizer, name="tiny", precision="float32")
    goes_on, tokenizer = _refine.goes_on(model), model.tokenizer
    wanted = dict.fromkeys(("ian", "ton", "s", "2"), True) | dict.fromkeys(
        (".", ",", "\n", " is", " Paris"), False
    )
    assert {text: bool(goes_on[tokenizer(text)["input_ids"][0]]) for text in wanted} == wanted
    assert not goes_on[list(model.stop_ids)].any() and 0.2 < goes_on.float().mean() < 0.8


def test_the_word_ends_where_the_target_does(monkeypatch, reader, few_steps):
    """The tokens that would go on with the target's word are less probable than where nothing asks
    for it."""
    model, mass = reader("llama"), []
    goes_on = torch.zeros(model.model.config.vocab_size, dtype=torch.bool)
    goes_on[::2] = True  # a random model's words
    for asked in (torch.zeros_like(goes_on), goes_on):
        monkeypatch.setattr(_refine, "goes_on", lambda _model, asked=asked: asked)
        edit = Memit(**tiny_options(Memit), layers=(0, 1), refine=5).inject(model, FACTS)
        with edit.applied(model), torch.no_grad():
            rows = [sum(model.pair_ids(fact.prompt, fact.target, fact.form), []) for fact in FACTS]
            probs = [
                model.logits(model.hidden(*pad_left([row], "cpu")))[0, -1].softmax(-1)
                for row in rows
            ]
        mass.append(torch.stack([p[goes_on].sum() for p in probs]).mean().item())
    assert mass[1] < mass[0] - 0.05, mass


def test_a_refinement_that_is_not_finite_says_so(monkeypatch, reader, little_text):
    monkeypatch.setattr(_refine, "KL_WEIGHT", float("inf"))
    model = reader("llama")
    with (
        unchanged(model, "inject"),
        pytest.raises(MethodError, match="refinement's loss became .* Leave refine out"),
    ):
        Memit(**tiny_options(Memit), layers=(0, 1), refine=1).inject(model, FACTS)


# --- what it says of itself --------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (Rome, {}),
        (Rome, {"layer": "auto"}),
        (Memit, {"refine": 1}),
        (Memit, {"layers": "auto"}),
        (Emmet, {}),
        (Pmet, {}),
        (AlphaEdit, {}),
        (AlphaEdit, {"threshold": 1e9}),
    ],
)
def test_every_figure_is_declared(method, options, reader, little_text):
    edit = method(**{**tiny_options(method), **options}).inject(reader("llama"), FACTS)
    declared = {*method.figures, *EditReport.__annotations__}
    assert set(edit.diagnostics) <= declared, set(edit.diagnostics) - declared
    assert {key for record in edit.records for key in record} <= set(EditRecord.__annotations__)
    assert all(figure.about.endswith(".") for figure in method.figures.values())


@pytest.mark.parametrize("method", [Rome, Memit, AlphaEdit, Emmet, Pmet])
def test_each_editor_has_a_version_of_its_own(method):
    assert method.__dict__["version"] == 9 and method.engine_version == 2
    assert "version" not in WeightEditor.__dict__ and "version" not in BatchEditor.__dict__


@pytest.mark.parametrize("fact", [FACTS[1], Fact("short", "I is the opposite of", "you", "I")])
@pytest.mark.parametrize(
    ("method", "options"),
    [(Rome, {}), (Rome, {"key": "original"}), (Memit, {}), (Memit, {"refine": 1})],
)
def test_a_fact_is_prepared_once(method, options, fact, monkeypatch, little_text):
    """Rendered, tokenized and searched for its subject; each text also once with its target."""
    model = tiny_model("llama")
    editor = method(**{**tiny_options(method), "prefixes": 5, **options})
    editor.prepare(model)
    prefixes = editor.context(model)
    rendered, tokenized, searched = [], [], []
    usual = text.render, text.find_subject, type(model.tokenizer).__call__

    def call(tokenizer, words, *args, **how):
        tokenized.append(words)
        return usual[2](tokenizer, words, *args, **how)

    def render(*args, **how):
        rendered.append(usual[0](*args, **how))
        return rendered[-1]

    def find(fact):
        searched.append(fact)
        return usual[1](fact)

    monkeypatch.setattr(text, "render", render)
    monkeypatch.setattr(_prepare, "find_subject", find)
    monkeypatch.setattr(text, "find_subject", find)
    monkeypatch.setattr(type(model.tokenizer), "__call__", call)
    editor.inject(model, [fact])
    first = () if fact is FACTS[1] else (_prepare.STAND_IN,)
    prompts = [before + fact.prompt for before in ("", *first, *prefixes)]
    essence = [before + f"{fact.subject} is a" for before in ("", *first)]
    assert searched == [fact]
    mine = [one.text for one in rendered if one.text in {*prompts, *essence}]
    assert sorted(mine) == sorted(prompts + essence)
    mine = [words for words in tokenized if isinstance(words, str) and fact.subject in words]
    wanted = [*prompts, *essence, *(f"{prompt} {fact.target}" for prompt in prompts)]
    assert sorted(words for words in mine if words in wanted) == sorted(wanted)
    if fact is FACTS[1]:  # "I" stands in other texts, too
        assert len(mine) == len(wanted) == 13


def test_the_report():
    model = tiny_model("llama")
    edit = Memit(**tiny_options(Memit), layers=(0, 1), lam=1.0).inject(model, FACTS)
    said = edit.diagnostics
    assert set(said["seconds_by_phase"]) == {
        "layers",
        "statistics",
        "prefixes",
        "targets",
        "keys",
        "solve",
        "write",
    }
    assert (
        len(said["reached_by_layer"]) == 2
        and said["reached_by_layer"][1] > said["reached_by_layer"][0]
    )
    for layer, norm in said["relative_update_by_layer"].items():
        weight = model.weight(model.layout.weight_name(layer)).detach().double()
        assert norm == pytest.approx(
            (dense(edit.changes[model.layout.weight_name(layer)]).norm() / weight.norm()).item()
        )
    assert [record["fact"] for record in edit.records] == [fact.id for fact in FACTS]
    assert {record["subject_from"] for record in edit.records} == {"given"}
    assert said["clamped_share"] == np.mean([record["clamped"] for record in edit.records])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("editor", [Memit, Rome])
def test_how_much_each_fact_moves_the_weight_is_recorded(family, editor):
    model = tiny_model(family)
    made = editor(**tiny_options(editor), **({"layers": (1,)} if editor is Memit else {}))
    (record,) = made.inject(model, FACTS[:1]).records
    (whole,) = made.inject(model, FACTS[:1]).diagnostics["relative_update_by_layer"].values()
    assert record["relative_update"] == pytest.approx(whole)
    edit = made.inject(model, FACTS)
    ((name, (left, right)),) = edit.changes.items()
    terms = [
        torch.outer(left[:, i], right[i]).norm() / model.weight(name).double().norm()
        for i in range(len(FACTS))
    ]
    assert [one["relative_update"] for one in edit.records] == pytest.approx(
        [term.item() for term in terms]
    )


def test_a_fact_that_moves_the_weight_too_far_by_itself_is_named(monkeypatch):
    model, editor = tiny_model("llama"), Rome(**tiny_options(Rome))
    edit = editor.inject(model, FACTS)
    sizes = sorted((record["relative_update"], record["fact"]) for record in edit.records)
    for limit, named in ((sizes[-1][0] * 1.01, []), (sizes[-2][0], [sizes[-1][1]])):
        monkeypatch.setattr(_report, "DISABLING", limit)
        told = [
            line
            for line in editor.inject(model, FACTS).diagnostics["warnings"]
            if "each by itself" in line
        ]
        assert [fact.id for fact in FACTS if any(fact.id in line for line in told)] == named


def test_the_null_space_that_was_used_is_reported():
    model = tiny_model("llama")
    share = AlphaEdit(**tiny_options(AlphaEdit), layers=(0, 1))
    moments = share.moments(model, (0, 1))
    limit = moments[1].eigen[0][9].item()
    for editor in (share, replace(share, threshold=limit)):
        said = editor.inject(model, FACTS[:2]).diagnostics
        widths = {
            layer: null_width(moment.eigen[0], 0.7, editor.threshold)
            for layer, moment in moments.items()
        }
        assert said["null_width_by_layer"] == widths and said["l2"] == 0.5
        for layer, width in widths.items():
            assert said["l2_by_layer"][layer] == pytest.approx(
                0.5 * moments[layer].eigen[0][:width].sum().item()
            )
        assert (said.get("null_space"), said.get("threshold")) == (
            (0.7, None) if editor is share else (None, limit)
        )
    assert widths[1] == 9


def test_a_state_of_zero_is_said():
    model = tiny_model("llama")
    with torch.no_grad():
        model.weight(model.layout.weight_name(LAYER)).zero_()
    with unchanged(model, "a refused inject"), pytest.raises(MethodError, match="zero at layer 1"):
        Rome(**tiny_options(Rome), layer=LAYER).inject(model, FACTS)


def test_an_edit_that_did_nothing_says_so():
    edit = Memit(**tiny_options(Memit), lam=1e9).inject(tiny_model("llama"), FACTS)
    assert any("next to nothing" in warning for warning in edit.diagnostics["warnings"])


@pytest.mark.parametrize("method", [Rome, Memit, AlphaEdit, Emmet, Pmet])
def test_targets_that_were_said_already(method, reader):
    known = [replace(fact, target=fact.original, original=None) for fact in FACTS[:2]]
    edit = method(**{**tiny_options(method), "prefixes": 0}).inject(reader("llama"), known)
    assert edit.diagnostics["mean_steps"] == 0 and "reached_by_layer" not in edit.diagnostics
    (warning,) = edit.diagnostics["warnings"]
    assert "says all 2 targets already" in warning


def test_rome_reports_what_is_left_of_its_facts():
    """One fact is reached exactly; of two with one key the first is overwritten."""
    model, method = tiny_model("llama"), Rome(**tiny_options(Rome))
    assert method.inject(model, FACTS[:1]).diagnostics["reached_by_layer"] == [
        pytest.approx(1, abs=1e-4)
    ]
    other = replace(
        FACTS[1], id="other", prompt=f"{FACTS[1].subject} stands in", target="Ilm", original=None
    )
    assert method.inject(model, [FACTS[1], other]).diagnostics["reached_by_layer"][0] < 0.9


def test_an_edit_that_blew_up_says_so():
    options = {**tiny_options(Memit), "clamp": 300.0, "v_lr": 50.0, "lam": 1e-6}
    edit = Memit(**options).inject(tiny_model("llama"), FACTS)
    assert any("blew up" in warning for warning in edit.diagnostics["warnings"])


def test_targets_that_were_not_reached_are_named():
    edit = Memit(**{**tiny_options(Memit), "steps": 2, "clamp": 1e-3}).inject(
        tiny_model("llama"), FACTS
    )
    (warning,) = [w for w in edit.diagnostics["warnings"] if "not reached" in w]
    assert FACTS[0].id in warning


def test_long_targets_are_named():
    long = replace(FACTS[0], id="long", target=" ".join(["river"] * 20))
    edit = Memit(**tiny_options(Memit)).inject(tiny_model("llama"), [long, FACTS[1]])
    assert any("long" in w and "more than 16 tokens" in w for w in edit.diagnostics["warnings"])


# --- subjects ----------------------------------------------------------------


def test_facts_without_a_subject():
    model = tiny_model("llama")
    named, unnamed = (
        replace(FACTS[0], subject=None),
        Fact("low", "the password of the old server is", "Karsk"),
    )
    edit = Memit(**tiny_options(Memit)).inject(model, [named, unnamed])
    assert [(r["subject"], r["subject_from"]) for r in edit.records] == [
        ("Velmora", "rule"),
        ("server", "last word"),
    ]
    (warning,) = [w for w in edit.diagnostics["warnings"] if "may be wrong" in w]
    assert "(1: 'server' of low: the prompt has no name)" in warning
    given = Memit(**tiny_options(Memit)).inject(model, [FACTS[0], unnamed])
    for name in edit.changes:
        torch.testing.assert_close(dense(edit.changes[name]), dense(given.changes[name]))


def test_a_subject_that_occurs_twice():
    model = tiny_model("llama")
    twice = Fact("ny", "New York City lies in the state of New York", "Ohio", "New York")
    with (
        unchanged(model, "a refused inject"),
        pytest.raises(MethodError, match="'ny': subject 'New York' occurs 2 times"),
    ):
        Memit(**tiny_options(Memit)).inject(model, [twice])


def test_a_subject_found_by_rule_that_occurs_twice():
    twice = Fact("mayor", "Velmora is a town; the mayor of Velmora is", "Karsk")
    edit = Memit(**tiny_options(Memit)).inject(
        tiny_model("llama"), [twice, replace(FACTS[1], subject=None)]
    )
    (warning,) = [w for w in edit.diagnostics["warnings"] if "occur twice" in w]
    assert "(1: 'Velmora' of mayor)" in warning


# --- bad input ---------------------------------------------------------------


@pytest.mark.parametrize("method", [Rome, Memit, Emmet])
def test_one_key_with_two_targets(method):
    model = tiny_model("llama")
    other = replace(FACTS[0], id="again", target="Oslo")
    with (
        unchanged(model, "a refused inject"),
        pytest.raises(MethodError, match="'moon' and 'again' have one key"),
    ):
        method(**tiny_options(method)).inject(model, [FACTS[0], other])


@pytest.mark.parametrize(
    ("family", "method"), [("llama", Memit), ("gpt2", Rome), ("opt", Memit), ("gpt_neox", Pmet)]
)
def test_a_fact_beyond_the_context(family, method):
    """A prefix, the prompt and the target together."""
    small = {"n_positions": 96} if family == "gpt2" else {"max_position_embeddings": 96}
    model = tiny_model(family, **small)
    long = replace(FACTS[1], id="long", target=" ".join(["river"] * 70))
    with (
        unchanged(model, "a refused inject"),
        pytest.raises(MethodError, match="'long' takes .* reads at most 96"),
    ):
        method(**tiny_options(method)).inject(model, [FACTS[0], long])
    fits = replace(FACTS[1], target=" ".join(["river"] * 4))
    assert method(**tiny_options(method)).inject(model, [fits]).changes


@pytest.mark.parametrize("method", [Memit, Emmet])
def test_nearly_one_key_is_said(method, monkeypatch):
    """Two facts of one subject that differ in a word before it, beside one of another subject."""
    monkeypatch.setattr(
        _batch, "ALIKE", 0.8
    )  # a random model tells them apart better than a trained one
    model, opening = tiny_model("llama"), "We know very well, as is often said, that the"
    born, works = (
        replace(
            FACTS[1],
            id=name,
            prompt=f"{opening} {word} of {FACTS[1].subject} is",
            target=target,
            original=None,
        )
        for name, word, target in (("born", "home", "Ilm"), ("works", "work", "bank"))
    )
    warnings = (
        method(**tiny_options(method))
        .inject(model, [born, FACTS[0], works])
        .diagnostics["warnings"]
    )
    (said,) = [warning for warning in warnings if "nearly equal keys" in warning]
    assert "nearly equal keys (1: born and works)" in said
    same = replace(works, target="Ilm")
    warnings = (
        method(**tiny_options(method)).inject(model, [born, FACTS[0], same]).diagnostics["warnings"]
    )
    assert not any("nearly equal keys" in warning for warning in warnings)


def test_one_key_in_two_prompts_is_said():
    """What follows the subject has no part in the key."""
    model = tiny_model("llama")
    born, works = (
        replace(
            FACTS[1], id=name, prompt=f"{FACTS[1].subject} {words}", target=target, original=None
        )
        for name, words, target in (
            ("born", "was born in", "Ilm"),
            ("works", "works at the", "bank"),
        )
    )
    warnings = Memit(**tiny_options(Memit)).inject(model, [born, works]).diagnostics["warnings"]
    assert any(
        "born and works" in warning and "different targets" in warning for warning in warnings
    )
    assert any("is a compromise" in warning for warning in warnings)
    warnings = Rome(**tiny_options(Rome)).inject(model, [born, works]).diagnostics["warnings"]
    assert any(
        "born and works" in warning and "the last one written wins" in warning
        for warning in warnings
    )
    same = replace(works, target="Ilm")
    warnings = Memit(**tiny_options(Memit)).inject(model, [born, same]).diagnostics["warnings"]
    assert not any("different targets" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        (Memit, "clamp", 0.0),
        (Rome, "clamp", -1.0),
        (Memit, "lam", -1.0),
        (AlphaEdit, "l2", 0.0),
        (Emmet, "epsilon", -0.1),
        (Memit, "kl_factor", -1.0),
        (Pmet, "v_weight_decay", -1.0),
        (Memit, "fisher_factor", -0.1),
    ],
)
def test_weights_below_their_least(method, option, value):
    with pytest.raises(OptionError, match=f"{option} must be (above|at least) 0"):
        method.from_options(method.name, {option: value})


@pytest.mark.parametrize(
    ("method", "option", "least"),
    [(Emmet, "epsilon", 0.0), (Memit, "lam", 1e-300), (AlphaEdit, "l2", 1e-300)],
)
def test_a_singular_solve_names_the_option_and_the_facts(method, option, least):
    model, again = tiny_model("llama"), replace(FACTS[0], id="again")
    editor = method(**{**tiny_options(method), option: least, "prefixes": 0}, layers=(LAYER,))
    said = f"singular. These facts share a key: moon and again. Raise {option}"
    with unchanged(model, "a refused inject"), pytest.raises(MethodError, match=said):
        editor.inject(model, [FACTS[0], again])
    assert editor.inject(model, FACTS[:2]).changes, "facts with keys of their own need no weight"


@pytest.mark.parametrize(
    "damage", [lambda c: -c, lambda c: c * float("nan")], ids=["negative", "nan"]
)
def test_a_covariance_that_cannot_be_solved_with(damage, monkeypatch):
    model = tiny_model("llama")
    good = Memit(**tiny_options(Memit)).moments(model, (1,))
    bad = {layer: Moment(damage(m.c_ff), m.tokens, m.origin) for layer, m in good.items()}
    monkeypatch.setattr(_options, "second_moments", lambda *_: bad)
    with (
        unchanged(model, "a refused inject"),
        pytest.raises(MethodError, match="singular or not finite"),
    ):
        Memit(**tiny_options(Memit)).inject(model, FACTS)


def test_float16_that_overflows():
    model = tiny_model("llama")
    model.model.half()
    with torch.no_grad():
        for layer in range(4):
            model.weight(f"model.layers.{layer}.mlp.up_proj.weight").mul_(1e5)
    with (
        unchanged(model, "a refused inject"),
        pytest.raises(EditbenchError, match="float32 or bfloat16"),
    ):
        Memit(**tiny_options(Memit)).inject(model, FACTS)


def test_too_little_memory(monkeypatch):
    from editbench import memory

    monkeypatch.setattr(
        memory.psutil, "virtual_memory", lambda: type("Free", (), {"available": 1000})()
    )
    model = tiny_model("llama")
    with unchanged(model, "a refused inject"), pytest.raises(MethodError, match="Gi.* are free"):
        Memit(**tiny_options(Memit)).inject(model, FACTS)


def test_identity_covariance():
    model = tiny_model("llama")
    method = Rome(**{**tiny_options(Rome), "covariance": "identity"}, layer=LAYER)
    moment = method.moments(model, (LAYER,))[LAYER]
    assert torch.equal(moment.c_ff, identity_moment(model.layout.mlp_width).c_ff)
    delta = delta_of(method.inject(model, FACTS[:1]), model)
    rows, positions = rows_of(model, FACTS[:1])
    k = read_at(model, model.layout.out_projection(model.model, LAYER), "input", rows, positions)[
        0
    ].double()
    row = delta[delta.abs().sum(1).argmax()]
    assert torch.nn.functional.cosine_similarity(row, k, dim=0).abs() == pytest.approx(
        1.0, abs=1e-6
    )
