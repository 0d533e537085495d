"""Causal tracing against a direct computation, one state at a time."""

from __future__ import annotations

import pytest
import torch
from hostile.architectures import build
from hostile.mixtures import MIXTURES, mixture

from editbench import inject, registry
from editbench.errors import MethodError, OptionError
from editbench.layout import hidden_of, replace_hidden
from editbench.methods import trace as _trace
from editbench.methods._common.hooks import site_module
from editbench.methods._edit import layers as _layers
from editbench.methods.trace import heat_map, layer_curve, trace
from editbench.testing import FACTS, tiny_model, tiny_options, unchanged

FACT = FACTS[1]  # its subject opens the prompt


def direct(model, fact, kind, layers, token, found):
    """p(answer) with the states of ``kind`` at ``layers`` clean at ``token``: full passes, one
    noise sample at a time."""
    ids = torch.tensor([model.prompt_ids(fact.prompt)])
    embeddings = model.model.get_input_embeddings()
    first, last = found.subject
    width = model.layout.width
    noise = _trace.NOISE * embeddings(ids[0]).float().std().item() * torch.randn(
        _trace.SAMPLES, last + 1 - first, width, generator=torch.Generator().manual_seed(0)
    )  # fmt: skip
    clean = {}
    hooks = [
        site_module(model, layer, kind).register_forward_hook(
            lambda _m, _a, out, layer=layer: clean.__setitem__(
                layer, hidden_of(out).reshape(ids.shape[1], -1)[token].clone()
            )
        )
        for layer in layers
    ]
    answer = model.model(input_ids=ids, use_cache=False).logits[0, -1].argmax()
    for hook in hooks:
        hook.remove()

    def put_back(layer):
        def hook(_m, _a, out):
            states = hidden_of(out).clone()
            states.view(ids.shape[1], -1)[token] = clean[layer]
            return replace_hidden(out, states)

        return hook

    p = []
    for sample in noise:

        def corrupt(_m, _a, out, sample=sample):
            changed = out.clone()
            changed[0, first : last + 1] += sample
            return changed

        hooks = [embeddings.register_forward_hook(corrupt)]
        hooks += [
            site_module(model, layer, kind).register_forward_hook(put_back(layer))
            for layer in layers
        ]
        p.append(
            model.model(input_ids=ids, use_cache=False).logits[0, -1].softmax(-1)[answer].item()
        )
        for hook in hooks:
            hook.remove()
    return sum(p) / len(p)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gptj", "opt"])
def test_a_trace_equals_direct_passes(family, reader):
    model = reader(family)
    with unchanged(model, "trace"):
        found = trace(model, FACT, window=2)
    first, last = found.subject
    assert "".join(found.tokens[first : last + 1]).strip() == FACT.subject
    with torch.no_grad():
        for kind, layer, layers in [
            ("residual", 0, [0]),
            ("residual", 2, [2]),
            ("mlp", 1, [0, 1]),
            ("attention", 3, [2, 3]),
        ]:
            for token in (0, last, len(found.tokens) - 1):
                want = direct(model, FACT, kind, layers, token, found)
                assert found.scores[kind][token, layer].item() == pytest.approx(want, abs=2e-4), (
                    kind,
                    layer,
                    token,
                )


def test_what_a_trace_means(reader):
    model = reader("llama")
    found = trace(model, FACT)
    depth = model.layout.depth
    assert found.answer and found.high > found.low
    # The last layer's state at the last token is the answer itself. After it, no state of another
    # token can matter.
    assert found.scores["residual"][-1, depth - 1].item() == pytest.approx(found.high, abs=1e-4)
    assert found.scores["residual"][0, depth - 1].item() == pytest.approx(found.low, abs=1e-4)
    assert trace(model, FACT).to_dict() == found.to_dict()


@pytest.mark.parametrize(("method", "count"), [("memit", 1), ("rome", 1)])
def test_layers_by_trace(method, count, reader, own_cache):
    model = reader("llama")
    option = {"layers" if method == "memit" else "layer": "auto"}
    edit = inject(
        model, FACTS, method, **{**tiny_options(registry.get("methods", method)), **option}
    )
    curve = edit.diagnostics["layer_curve"]
    assert curve == [round(value, 4) for value in layer_curve(model, FACTS)]
    best = max(range(len(curve)), key=curve.__getitem__)
    assert edit.diagnostics["layers"] == [best] and list(edit.changes) == [
        model.layout.weight_name(best)
    ]


def test_the_subjects_row_alone(reader):
    model = reader("gpt2")
    whole, row = trace(model, FACT, ("mlp",)), trace(model, FACT, ("mlp",), subject_only=True)
    last = whole.subject[1]
    torch.testing.assert_close(
        row.scores["mlp"][last], whole.scores["mlp"][last], rtol=1e-4, atol=1e-5
    )
    assert row.scores["mlp"][:last].isnan().all()


def test_a_trace_that_finds_nothing():
    model = tiny_model("llama")
    with torch.no_grad():
        for layer in range(
            4
        ):  # no token hears of another, and the prompts end behind their subjects
            model.weight(f"model.layers.{layer}.self_attn.o_proj.weight").zero_()
    with (
        unchanged(model, "a refused inject"),
        pytest.raises(MethodError, match="causal trace of 2 prompts found no layer"),
    ):
        inject(model, FACTS[:2], "memit", layers="auto")


def test_the_curve_and_the_picture(reader, tmp_path):
    model = reader("llama")
    curve = layer_curve(model, FACTS[:3])
    assert len(curve) == model.layout.depth and all(abs(x) <= 1.5 for x in curve)
    heat_map(trace(model, FACT), str(tmp_path / "map.png"))
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe"])
def test_the_mlp_of_a_mixture_is_traced_whole(name):
    model = mixture(name) if name in MIXTURES else build(name)
    found = trace(model, FACT, ("mlp",), window=1, subject_only=True)
    last, seen = found.subject[1], []
    mlp = model.layout.mlp_module(model.model, 0)
    assert mlp is model.model.model.layers[0].mlp
    handle = mlp.register_forward_hook(lambda _module, _args, output: seen.append(output))
    trace(model, FACT, ("mlp",), window=1, subject_only=True)
    handle.remove()
    assert seen and found.scores["mlp"][last].isfinite().all()


def test_auto_layers_are_among_those_that_can_be_written(monkeypatch):
    model = mixture("qwen3_moe")
    monkeypatch.setattr(_layers, "layer_curve", lambda *_args: [0.9, 0.1, 0.9, 0.2])
    assert _layers.traced_layers(model, [FACT], 1, 0)[0] == (3,)
    assert _layers.traced_layers(model, [FACT], 2, 0)[0] == (1, 3)


def test_trace_is_no_editor():
    with pytest.raises(OptionError, match=r"trace edits nothing.*Use 'editbench trace'\."):
        registry.get("methods", "trace")
