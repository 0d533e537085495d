"""Two methods as one edit."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tokenizers import normalizers

from editbench import registry
from editbench.changes import dense
from editbench.errors import MethodError, OptionError, UnknownNameError
from editbench.methods.baselines import InContext
from editbench.methods.compose import Composed, compose
from editbench.methods.memit import Memit
from editbench.methods.sft import Sft
from editbench.models import LanguageModel
from editbench.records.reading import read_rows
from editbench.records.store import RunStore
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import make_plan
from editbench.run.runner import run
from editbench.surgical import divide, is_surgical
from editbench.testing import FACTS, check_method, target_logp, tiny_model, tiny_options, unchanged
from editbench.types import Fact

BULK = (
    replace(
        FACTS[0], id="worked", subject=None, prompt="The oldest town of Velmora is", target="Ilm"
    ),
    replace(FACTS[3], id="long", demonstration="It was Mara Lind who wrote Winter Glass, in 1997."),
)
MIXED = (*FACTS[:3], *BULK)
OPTIONS = {
    **{f"memit.{key}": value for key, value in tiny_options(Memit).items()},
    **{f"sft.{key}": value for key, value in tiny_options(Sft).items()},
}


def pair():
    return compose("memit+sft", [("memit", Memit), ("sft", Sft)])


def test_facts_go_where_they_belong():
    assert [is_surgical(fact) for fact in MIXED] == [True, True, True, False, False]
    model = tiny_model("llama")
    with unchanged(model, "inject"):
        edit = pair().from_options("memit+sft", OPTIONS).inject(model, MIXED)
    assert edit.diagnostics["facts_by_method"] == {"memit": 3, "sft": 2}
    assert edit.facts == MIXED and edit.model_hash == model.fingerprint()


def test_a_subject_gets_one_value_from_the_editor():
    """Several facts about one subject have nearly one key.

    Those that want another value than the first go to the second method.
    """
    again = replace(FACTS[0], id="again", prompt="The river of Velmora is", target="Ilme")
    alike = replace(FACTS[0], id="alike", prompt="The seat of the king of Velmora is")
    surgical, bulk = divide([FACTS[0], again, *FACTS[1:], alike, *BULK])
    assert surgical == [*FACTS, alike] and bulk == [again, *BULK]
    edit = pair().from_options("memit+sft", OPTIONS).inject(tiny_model("llama"), [FACTS[0], again])
    assert edit.diagnostics["facts_by_method"] == {"memit": 1, "sft": 1} and edit.facts == (
        FACTS[0],
        again,
    )
    assert not any(
        "one key" in warning or "did nothing" in warning for warning in edit.diagnostics["warnings"]
    )


def test_a_fact_that_a_part_left_out_is_not_claimed():
    model = tiny_model("llama")
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("Angel", "")
    model = LanguageModel(model.model, tokenizer, name="tiny", precision="float32")
    gone = Fact("gone", "The author Angel was born in", "Oslo", "Angel")
    edit = pair().from_options("memit+sft", OPTIONS).inject(model, [gone, FACTS[0], *BULK])
    assert edit.facts == (FACTS[0], *BULK)
    assert edit.diagnostics["facts_by_method"] == {"memit": 1, "sft": len(BULK)}
    assert any("'gone' was left out" in line for line in edit.diagnostics["warnings"])


def test_a_part_that_got_no_facts_is_told():
    method, model = pair().from_options("memit+sft", OPTIONS), tiny_model("llama")

    def idle(facts):
        return [
            warning
            for warning in method.inject(model, facts).diagnostics["warnings"]
            if "did nothing" in warning
        ]

    assert idle(FACTS) == ["All 4 facts went to memit: sft did nothing."]
    assert idle(BULK) == ["All 2 facts went to sft: memit did nothing."]
    assert idle(MIXED) == idle([]) == []


def test_the_edit_is_the_sum_of_both():
    model = tiny_model("llama")
    method = pair().from_options("memit+sft", OPTIONS)
    edit = method.inject(model, MIXED)
    one = method.methods[0].inject(model, MIXED[:3])
    with one.applied(model):
        other = method.methods[1].inject(model, BULK)
        with other.applied(model):
            both = {name: p.detach().clone() for name, p in model.model.named_parameters()}
            known = target_logp(model, MIXED)
    with edit.applied(model):
        assert target_logp(model, MIXED) == pytest.approx(known, abs=1e-3)
        for name, p in model.model.named_parameters():
            torch.testing.assert_close(p.detach(), both[name], rtol=1e-5, atol=1e-6)
    assert (
        set(edit.keys) == set(one.keys) and dense(edit.changes[next(iter(one.changes))]).norm() > 0
    )


@pytest.mark.parametrize("order", ["memit+sft", "sft+memit"])
def test_keys_and_factors_of_both_are_kept(order):
    model, classes = tiny_model("llama"), {"memit": Memit, "sft": Sft}
    parts = [(name, classes[name]) for name in order.split("+")]
    facts = (
        MIXED
        if order == "memit+sft"
        else [*FACTS, replace(FACTS[3], id="long", demonstration="It was Mara Lind.")]
    )
    edit = (
        compose(order, parts).from_options(order, {**OPTIONS, "sft.lora": 2}).inject(model, facts)
    )
    written = edit.diagnostics["facts_by_method"]["memit"]
    name = model.layout.weight_name(Memit().usual_layers(model)[0])
    assert written and edit.keys[name].shape[1] == written
    left, right = edit.changes[name]
    assert left.shape[1] == right.shape[0] == written + 2, "a rank for each fact, and two of LoRA"


def test_it_passes_the_battery(tmp_path, reader):
    check_method(pair(), reader("llama"), MIXED[:4], tmp_path, **OPTIONS)


def test_options_name_their_part():
    method = pair().from_options("memit+sft", {"seed": 5, "memit.lam": "20", "sft.lr": "1e-3"})
    assert method.methods[0].lam == 20.0 and method.methods[1].lr == 1e-3
    assert method.seed == method.methods[0].seed == method.methods[1].seed == 5
    assert method.options()["memit.lam"] == 20.0
    published = pair().from_options("memit+sft", {"memit.recipe": "paper", "memit.lam": "20"})
    assert published.methods[0].lam == 20.0 and published.methods[0].stop == "loss"
    assert list(pair().from_options("memit+sft", {"memit.covariance": __file__}).sources()) == [
        __file__
    ]
    for bad in (
        {"lam": 1},
        {"rome.lam": 1},
        {"memit.lamb": 1},
        {"sft.lr": "fast"},
        {"recipe": "paper"},
        {"memit.recipe": "papr"},
    ):
        with pytest.raises(OptionError):
            pair().from_options("memit+sft", bad)


def test_the_registry_makes_pairs():
    method = registry.get("methods", "memit+sft")
    assert (
        method.name == "memit+sft"
        and [name for name, _ in method.parts] == ["memit", "sft"]
        and method.needs_covariance
    )
    with pytest.raises(UnknownNameError, match="memitt"):
        registry.check("methods", "memitt+sft")
    with pytest.raises(OptionError, match="is not a pair of methods"):
        registry.get("methods", "memit+sft+mixsd")


def test_a_pair_has_the_versions_of_both_parts():
    """Eight bits each. Engine versions of 1 give 1, which is left out of a cell's key."""
    versions = (Memit.version, Sft.version, Composed.version)
    assert pair().version == sum(version << (8 * i) for i, version in enumerate(versions))
    # 1 + (2 - 1) for memit's part and as much, eight bits higher, for sft's
    engines = (Memit.engine_version, Sft.engine_version, pair().engine_version)
    assert engines == (2, 2, 2 + (1 << 8))

    class Older(Memit):
        engine_version = 1

    class OlderSft(Sft):
        engine_version = 1

    assert compose("memit+sft", [("memit", Older), ("sft", OlderSft)]).engine_version == 1

    class Newer(Sft):
        version = Sft.version + 1

    first = compose("sft+memit", [("sft", Newer), ("memit", Older)])
    second = compose("memit+sft", [("memit", Older), ("sft", Newer)])
    assert second.version - pair().version == 1 << 8
    assert (first.engine_version, second.engine_version) == (2, 1 + (1 << 8))


def test_a_pair_in_a_run(tmp_path, capsys):
    config = RunConfig(
        methods=("base", "memit+sft"),
        model="tiny",
        corpus="demo-zsre",
        n=3,
        options={
            "memit+sft": {
                key: str(value) for key, value in OPTIONS.items() if not isinstance(value, tuple)
            }
        },
    )
    made = make_plan(config)
    with RunStore(tmp_path).open(run_identity(config)) as store:
        _, summary = run(made, tiny_model("llama"), store, lambda *_: None)
    assert summary["status"] == "done" and summary["method"] == "memit+sft", summary.get(
        "traceback"
    )
    counts = summary["edit"]["facts_by_method"]
    assert sum(counts.values()) == 3
    parts = [row["part"] for row in read_rows(tmp_path, summary["key"], "edit_records")]
    assert parts == [part for part, count in counts.items() for _ in range(count)]


def test_what_cannot_be_composed():
    with pytest.raises(OptionError, match="Write two different ones"):
        compose("sft+sft", [("sft", Sft), ("sft", Sft)])
    with pytest.raises(OptionError, match="ice changes no weights"):
        registry.get("methods", "sft+ice")

    class Noted(InContext):
        kind = "trainer"

    model = tiny_model("llama")
    with (
        unchanged(model, "a failed inject"),
        pytest.raises(MethodError, match="changes no weights"),
    ):
        compose("sft+noted", [("sft", Sft), ("noted", Noted)]).from_options("sft+noted", {}).inject(
            model, MIXED
        )
