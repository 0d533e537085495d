"""Facts arrive at once, in chunks, or each alone, and a sequence stops when the model collapses."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from tiny import editbench, fact, write_facts, write_model

import editbench as package
from editbench.errors import NoTokenError
from editbench.eval.probes import ask
from editbench.models import LanguageModel, load_model
from editbench.plugin import Method
from editbench.records.reading import read_table
from editbench.records.store import RunStore
from editbench.run import collapse, regimes, runner
from editbench.run.baseline import Baseline
from editbench.run.chain import Chain
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import make_plan
from editbench.stats import paired_delta
from editbench.testing import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(
        str(write_model(tmp_path_factory.mktemp("models") / "tiny")), precision="float32"
    )


@pytest.fixture
def config(tmp_path, model):
    data = write_facts(tmp_path / "facts.jsonl")
    return RunConfig(("base", "rome"), model.name, "local", str(data), n=4, precision="float32")


@dataclass(frozen=True)
class Bomb(Method):
    """Each edit adds ``size`` to one weight, or infinity at fact ``at``."""

    name: ClassVar[str] = "bomb"
    size: float = 0.01
    at: str = ""

    def inject(self, model, facts):
        name = model.layout.weight_name(1)
        size = math.inf if any(fact.id == self.at for fact in facts) else self.size
        change = {name: torch.full_like(model.weight(name), size).cpu()}
        return self.edit(
            model,
            facts,
            change,
            diagnostics={"warnings": ["It ticks."] if size == math.inf else []},
        )


def run(config, model, folder):
    with RunStore(folder).open(run_identity(config)) as store:
        summaries = runner.run(make_plan(config), model, store, lambda name, state: None)
    return {summary["method"]: summary for summary in summaries}


def probes(folder, summary, name="probes"):
    return read_table(folder, summary["key"], name)


def test_a_sequence_is_the_edits_one_on_top_of_the_other(config, model, tmp_path):
    config = replace(config, regime="sequential:2", curve=(2, 4))
    weights = model.fingerprint()
    found = run(config, model, tmp_path / "run")["rome"]
    assert model.fingerprint() == weights and model.applied == ()
    assert found["status"] == "done" and found["edit"]["chunks"] == 2
    plan = make_plan(config)
    facts = [case.fact for case in plan.cases]
    asked = ask
    first = package.inject(model, facts[:2], "rome")
    base = asked(model, plan.cases, None)
    with first.applied(model):
        early = {fact.id for fact in facts[:2]}
        half = asked(model, plan.cases[:2], [row for row in base if row["case"] in early])
        second = package.inject(model, facts[2:], "rome")
        with second.applied(model):
            whole = asked(model, plan.cases, base)
    written = probes(tmp_path / "run", found)
    assert list(written["text"]) == [row["text"] for row in whole]
    assert list(written["answer_logprob"]) == pytest.approx(
        [row["answer_logprob"] for row in whole], nan_ok=True, abs=0
    )
    at_two = probes(tmp_path / "run", found, "curve_probes")
    assert set(at_two["facts"]) == {2} and list(at_two["text"]) == [row["text"] for row in half]
    assert [point["facts"] for point in found["curve"]] == [2, 4]
    assert found["curve"][-1]["metrics"]["efficacy"] == found["metrics"]["efficacy"]
    assert [signs["facts"] for signs in found["trajectory"]] == [2, 4]
    assert (
        found["trajectory"][0]["norm_growth"] > 0 and found["trajectory"][0]["perplexity_ratio"] > 0
    )


def test_each_fact_alone(config, model, tmp_path):
    config = replace(config, regime="single")
    found = run(config, model, tmp_path / "run")["rome"]
    plan = make_plan(config)
    texts = []
    for case in plan.cases:
        with package.inject(model, [case.fact], "rome").applied(model):
            texts += [row["text"] for row in ask(model, [case], None)]
    assert list(probes(tmp_path / "run", found)["text"]) == texts
    assert (
        found["retention"] == {}
        and found["edit"]["edits"] == 4
        and found["edit"]["mean_delta_norm"] > 0
    )


@pytest.mark.parametrize(
    ("regime", "curve"), [("single", ()), ("batch", (1, 3)), ("sequential:2", (2, 4))]
)
def test_rounding_in_bfloat16_is_not_the_edits_doing(config, tmp_path, monkeypatch, regime, curve):
    """A change of size zero keeps every neighbor, however few cases are asked at once.

    It counts as a change, so the model is asked, and in bfloat16 the batch decides the rounding.
    """
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "bomb", f"{__name__}:Bomb")
    model = tiny_model("gpt2")
    model = LanguageModel(model.model, model.tokenizer, name="tiny", precision="bfloat16")
    config = replace(
        config,
        methods=("base", "bomb"),
        n=5,
        regime=regime,
        curve=curve,
        options={"bomb": {"size": 0.0}},
    )
    found = run(replace(config, precision="bfloat16"), model, tmp_path / "run")
    assert found["bomb"]["status"] == "done", "not asked where an edit is known to change nothing"
    assert found["bomb"]["metrics"] == found["base"]["metrics"]
    tables = [
        probes(tmp_path / "run", found["bomb"], name)
        for name in ("probes", *(["curve_probes"] if curve else []))
    ]
    for table in tables:
        assert list(table["text"]) == list(table["base_text"])
    for point in found["bomb"].get("curve", []):
        assert all(
            point["metrics"][name]["generation"]["mean"] == 1
            for name in ("specificity", "distracted")
        )


def test_a_last_fact_without_effect_does_not_hide_the_others(config, model, tmp_path, monkeypatch):
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "bomb", f"{__name__}:Bomb")
    inject = Bomb.inject

    def all_but_the_last(self, model, facts):
        edit = inject(self, model, facts)
        return replace(edit, changes={}) if facts[0].id == last else edit

    config = replace(
        config, methods=("base", "bomb"), regime="single", options={"bomb": {"size": 1e-4}}
    )
    last = make_plan(replace(config, methods=("base",), options={})).cases[-1].fact.id
    monkeypatch.setattr(Bomb, "inject", all_but_the_last)
    assert run(config, model, tmp_path / "run")["bomb"]["status"] == "done"


@pytest.mark.parametrize("regime", ["single", "sequential:1"])
def test_a_fact_that_has_no_token_is_left_out_and_the_others_are_taught(
    config, model, tmp_path, monkeypatch, regime
):
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "bomb", f"{__name__}:Bomb")
    inject = Bomb.inject

    def all_but_the_second(self, model, facts):
        if facts[0].id == second:
            raise NoTokenError(f"Fact {second!r} was left out.")
        return inject(self, model, facts)

    config = replace(
        config, methods=("base", "bomb"), regime=regime, options={"bomb": {"size": 1e-4}}
    )
    second = make_plan(replace(config, methods=("base",), options={})).cases[1].fact.id
    monkeypatch.setattr(Bomb, "inject", all_but_the_second)
    found = run(config, model, tmp_path / "run")["bomb"]
    assert found["status"] == "done" and found["edit"]["facts"] == 3
    assert f"Fact {second!r} was left out." in found["edit"]["warnings"]
    assert probes(tmp_path / "run", found)["case"].nunique() == 4


def test_a_fact_that_a_method_left_out_does_not_shift_the_others(
    config, model, tmp_path, monkeypatch
):
    """The number of a point is a place among the cases, of which the first is not taught."""
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "bomb", f"{__name__}:Bomb")
    inject = Bomb.inject

    def all_but_the_first(self, model, facts):
        return inject(self, model, [fact for fact in facts if fact.id != first])

    config = replace(
        config,
        methods=("base", "bomb"),
        regime="sequential:2",
        curve=(2, 4),
        options={"bomb": {"size": 1e-4}},
    )
    first = make_plan(replace(config, methods=("base",), options={})).cases[0].fact.id
    monkeypatch.setattr(Bomb, "inject", all_but_the_first)
    found = run(config, model, tmp_path / "run")["bomb"]
    assert found["edit"]["facts"] == 3 and [point["facts"] for point in found["curve"]] == [2, 4]
    assert found["curve"][-1]["metrics"] == found["metrics"]


def test_a_batch_with_points_injects_anew_for_each(config, model, tmp_path):
    found = run(replace(config, curve=(1, 4)), model, tmp_path / "run")["rome"]
    plain = run(config, model, tmp_path / "plain")["rome"]
    one = run(replace(config, n=1), model, tmp_path / "one")["rome"]
    assert found["metrics"] == plain["metrics"]
    assert found["curve"][0]["metrics"] == one["metrics"]
    assert found["edit"]["facts"] == 4 and found["seconds"]["inject for the curve"] > 0


def test_a_collapsed_chunk_is_taken_back_and_said(config, model, tmp_path, monkeypatch):
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "bomb", f"{__name__}:Bomb")
    config = replace(config, methods=("base", "bomb"), regime="sequential:1", curve=(1, 2, 3, 4))
    weights = model.fingerprint()
    calm = run(replace(config, options={"bomb": {"size": 1e-4}}), model, tmp_path / "calm")["bomb"]
    assert calm["status"] == "done" and len(calm["trajectory"]) == 4
    third = make_plan(replace(config, methods=("base",))).cases[2].fact.id
    loud = run(
        replace(config, options={"bomb": {"size": 1e-4, "at": third}}), model, tmp_path / "loud"
    )["bomb"]
    assert loud["status"] == "stopped" and "stopped after 2 of 4 facts" in loud["note"]
    assert len(loud["trajectory"]) == 3 and loud["edit"]["facts"] == 2
    assert loud["curve"] == calm["curve"][:2] and calm["edit"]["warnings"] == []
    assert loud["edit"]["warnings"] == ["Of the chunk taken back: It ticks."]
    assert loud["metrics"]["efficacy"]["generation"]["n"] == 4, (
        "facts that were never injected are asked all the same"
    )
    counts = [[found["right_after"][key] for key in ("facts", "not_injected")]
              for found in (calm, loud)]  # fmt: skip
    assert counts == [[4, 0], [2, 2]], "the chunk that was taken back was not asked right after"
    assert loud["right_after"]["scores"]["efficacy"]["argmax"]["at_end"]["n"] == 2
    asked = probes(tmp_path / "loud", loud, "right_after")
    assert third not in set(asked["case"]) and sorted(set(asked["facts"])) == [1, 2]
    assert model.fingerprint() == weights
    huge = run(replace(config, options={"bomb": {"size": 1e3}}), model, tmp_path / "huge")["bomb"]
    assert huge["status"] == "stopped" and (
        "perplexing" in huge["note"] or "times as large" in huge["note"]
    )
    assert huge["right_after"] == {"facts": 0, "replaced": 0, "not_injected": 4, "scores": {}}


@dataclass(frozen=True)
class Backwards(Method):
    """Teaches next to nothing, except that at fact ``at`` it climbs the loss.

    It does so by applying three times the opposite of what sft would do.
    """

    name: ClassVar[str] = "backwards"
    at: str = ""

    def inject(self, model, facts):
        if self.at not in [fact.id for fact in facts]:
            return package.inject(model, facts, "sft", epochs=1, lr=1e-6)
        edit = package.inject(model, facts, "sft", epochs=1, lr=2e-5)
        return replace(edit, changes={name: -3 * change for name, change in edit.changes.items()})


def test_a_sequence_whose_targets_lose_by_being_taught_is_stopped(
    config, model, tmp_path, monkeypatch
):
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "backwards", f"{__name__}:Backwards")
    config = replace(config, methods=("base", "backwards"), regime="sequential:1")
    calm = run(config, model, tmp_path / "calm")
    assert [found["status"] for found in calm.values()] == ["done", "done"], (
        "learning nothing is no collapse"
    )
    assert all(
        signs["target_ratio"] == pytest.approx(1, abs=1e-4) for signs in calm["base"]["trajectory"]
    )
    assert all(0.8 < signs["target_ratio"] < 1 for signs in calm["backwards"]["trajectory"])
    third = make_plan(replace(config, methods=("base",))).cases[2].fact.id
    found = run(replace(config, options={"backwards": {"at": third}}), model, tmp_path / "back")[
        "backwards"
    ]
    assert found["status"] == "stopped" and "the targets of the last facts are" in found["note"]
    last = found["trajectory"][-1]
    assert (
        last["target_ratio"] >= collapse.COLLAPSE_TARGETS
        and last["perplexity_ratio"] < 2
        and found["edit"]["facts"] == 2
    )


def test_of_facts_that_succeed_each_other_the_last_is_watched(config, model):
    cases = make_plan(config).cases
    old = replace(cases[0], fact=replace(cases[0].fact, id="old", target="Tokyo"))
    seen = []

    class Examiner:
        def own_text_nll(self):
            return 1.0, 1.0

        def target_nlls(self, watched):
            seen.extend(case.fact.id for case in watched)
            return [math.inf] * len(watched), [1.0] * len(watched)

    signs, nlls = collapse.vital_signs(1.0, [old, *cases], Examiner(), {"old": 0.1})
    assert seen == list(nlls) == [case.fact.id for case in cases]
    assert signs["forgetting_ratio"] == 1, "what is no longer valid is not forgotten"
    assert collapse.collapsed(signs) and not collapse.collapsed({**signs, "target_ratio": 1.9})
    assert collapse.collapsed({**signs, "target_ratio": math.nan})


def test_a_fact_that_replaces_an_earlier_one_is_among_the_last(config, model, monkeypatch):
    monkeypatch.setattr(collapse, "WATCHED", 2)
    first, *others = make_plan(config).cases
    new = replace(first, fact=replace(first.fact, id="new", target="Tokyo"))
    seen = []

    class Examiner:
        def own_text_nll(self):
            return 1.0, 1.0

        def target_nlls(self, watched):
            seen.extend(case.fact.id for case in watched)
            return [1.0] * len(watched), [1.0] * len(watched)

    collapse.vital_signs(1.0, [first, *others, new], Examiner(), {})
    assert seen == [others[-1].fact.id, "new"], "the facts taught last, in their order"


@dataclass(frozen=True)
class Forgetful(Method):
    """Teaches well, but at fact ``at`` takes back all that it has taught."""

    name: ClassVar[str] = "forgetful"
    at: str = ""
    found: ClassVar[dict] = {}

    def inject(self, model, facts):
        if not model.applied:
            self.found.update(
                {name: weight.detach().clone() for name, weight in model.model.named_parameters()}
            )
        if self.at in [fact.id for fact in facts]:
            lost = {
                name: self.found[name] - weight.detach()
                for name, weight in model.model.named_parameters()
            }
            return self.edit(
                model, facts, {name: change for name, change in lost.items() if change.any()}
            )
        return package.inject(model, facts, "sft", epochs=60, lr=1e-3)


def test_a_chunk_that_makes_the_earlier_facts_forgotten_is_taken_back(
    config, model, tmp_path, monkeypatch
):
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "forgetful", f"{__name__}:Forgetful")
    config = replace(config, methods=("base", "forgetful"), regime="sequential:1")
    third = make_plan(replace(config, methods=("base",))).cases[2].fact.id
    found = run(replace(config, options={"forgetful": {"at": third}}), model, tmp_path / "run")[
        "forgetful"
    ]
    first, second, last = found["trajectory"]
    assert (
        first["forgetting_ratio"] == 1 and second["forgetting_ratio"] < collapse.COLLAPSE_FORGETTING
    )
    assert last["forgetting_ratio"] > collapse.COLLAPSE_FORGETTING, (
        "though the model is the base again:"
    )
    assert [
        last[sign] for sign in ("perplexity_ratio", "norm_growth", "target_ratio")
    ] == pytest.approx([1, 1, 1], abs=1e-3)
    assert (
        found["status"] == "stopped"
        and "taught before the last chunk" in found["note"]
        and found["edit"]["facts"] == 2
    )


@dataclass(frozen=True)
class Goldfish(Forgetful):
    """Knows only the chunk that it was taught last."""

    name: ClassVar[str] = "goldfish"

    def inject(self, model, facts):
        if not model.applied:
            return super().inject(model, facts)
        weights = dict(model.model.named_parameters())
        back = {name: self.found[name] - weight.detach() for name, weight in weights.items()}
        with self.edit(model, [], back).applied(model):
            edit = super().inject(model, facts)
        total = {name: back[name] + edit.changes.get(name, 0) for name in back}
        return self.edit(model, facts, total)


def test_what_later_chunks_made_a_model_forget_is_the_difference(
    config, model, tmp_path, monkeypatch
):
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "goldfish", f"{__name__}:Goldfish")
    monkeypatch.setattr(collapse, "COLLAPSE_FORGETTING", math.inf)
    config = replace(config, methods=("base", "goldfish"), regime="sequential:2")
    found = run(config, model, tmp_path / "run")
    twice = found["goldfish"]["right_after"]
    assert (twice["facts"], twice["replaced"], twice["not_injected"]) == (4, 0, 0)
    assert set(twice["scores"]) == {"efficacy", "generalization", "specificity"}
    efficacy = twice["scores"]["efficacy"]["argmax"]
    assert efficacy["right_after"]["mean"] == 1 and efficacy["at_end"]["mean"] == 0.5
    assert efficacy["change"] == paired_delta([0, 0, 1, 1], [1, 1, 1, 1]).to_dict("argmax")
    assert efficacy["at_end"] == found["goldfish"]["metrics"]["efficacy"]["argmax"]
    rows = probes(tmp_path / "run", found["goldfish"], "right_after")
    assert rows.groupby("facts")["case"].nunique().to_dict() == {2: 2, 4: 2}
    end = probes(tmp_path / "run", found["goldfish"]).set_index(["case", "probe"])["argmax"]
    early = rows[(rows["facts"] == 2) & (rows["axis"] == "rewrite")]
    assert list(early["argmax"]) == [1, 1]
    assert [end[tuple(row)] for row in early[["case", "probe"]].itertuples(index=False)] == [0, 0]
    unedited = found["base"]["right_after"]["scores"]["specificity"]["generation"]
    assert unedited["right_after"]["mean"] == unedited["at_end"]["mean"] == 1


def test_a_fact_that_a_later_one_replaced_is_not_compared(config, model, tmp_path, monkeypatch):
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "bomb", f"{__name__}:Bomb")
    records = [fact(0), fact(1), fact(2), fact(0, id="new", target="Tokyo")]
    data = write_facts(tmp_path / "new.jsonl", records)
    config = replace(
        config,
        methods=("base", "bomb"),
        data=str(data),
        part="all",
        allow_conflicts=True,
        regime="sequential:2",
        options={"bomb": {"size": 1e-4}},
    )
    found = run(config, model, tmp_path / "run")["bomb"]
    order = [
        case.fact.id for case in make_plan(replace(config, methods=("base",), options={})).cases
    ]
    first = min(("f0", "new"), key=order.index)
    rows = probes(tmp_path / "run", found, "right_after")
    assert set(rows[rows["replaced"]]["case"]) == {first}
    assert found["right_after"]["facts"] == 3 and found["right_after"]["replaced"] == 1
    assert found["right_after"]["scores"]["efficacy"]["argmax"]["at_end"]["n"] == 3
    assert found["metrics"]["efficacy"]["generation"]["n"] == 4, "the end is asked of all"


def test_ctrl_c_while_a_chunk_is_asked_leaves_the_model_and_the_run_can_be_resumed(
    config, model, tmp_path, monkeypatch
):
    config = replace(config, regime="sequential:2")
    weights = model.fingerprint()

    def interrupted(self, cases, moved):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Baseline, "ask_chunk", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, model, tmp_path / "run")
    assert model.fingerprint() == weights and model.applied == ()
    assert run(config, model, tmp_path / "run")["rome"]["right_after"]["facts"] == 4


def test_a_sequence_that_was_not_asked_right_after_is_computed_again(
    config, model, tmp_path, monkeypatch
):
    config = replace(config, regime="sequential:2")
    with monkeypatch.context() as patch:
        patch.setattr(regimes, "VERSION", 3)
        old = run(config, model, tmp_path / "run")
    new = run(config, model, tmp_path / "run")
    assert not {cell["key"] for cell in old.values()} & {cell["key"] for cell in new.values()}
    batch = replace(config, regime="batch")
    assert all("right_after" not in cell for cell in run(batch, model, tmp_path / "b").values())


def test_contexts_are_joined(config, model, tmp_path):
    found = run(
        replace(config, methods=("base", "ice"), regime="sequential:1"), model, tmp_path / "run"
    )
    at_once = run(replace(config, methods=("base", "ice")), model, tmp_path / "once")
    assert found["ice"]["metrics"] == at_once["ice"]["metrics"]


def test_what_was_trained_on_is_summed(config, model, tmp_path):
    config = replace(
        config, methods=("base", "sft"), n=2, options={"sft": {"epochs": 1, "enough": 0}}
    )
    tokens = [
        run(replace(config, regime=regime), model, tmp_path / regime)["sft"]["work"]["inject"][
            "trained_tokens"
        ]
        for regime in ("batch", "single", "sequential:1")
    ]
    assert tokens[0] == tokens[1] == tokens[2] > 0


def test_dense_edits_leave_no_copies_behind(model, config):
    facts = [case.fact for case in make_plan(config).cases]
    with Chain(model) as chain:
        for fact in facts:
            chain.add(package.inject(model, [fact], "sft", epochs=1))
        assert all(not edit.changes for edit in model.applied)
        assert len(model.applied) == 4


def test_growth_is_of_weights_that_had_a_size(model):
    name, empty = model.layout.weight_name(1), model.layout.weight_name(0)
    before = model.weight(empty).detach().clone()
    with torch.no_grad():
        model.weight(empty).zero_()
    try:
        method = Bomb()
        doubled = {name: model.weight(name).detach().cpu().clone(), empty: torch.ones_like(before)}
        with Chain(model) as chain:
            assert chain.growth() == 1.0
            chain.add(method.edit(model, [], doubled))
            assert chain.growth() == pytest.approx(2.0)
        with Chain(model) as chain:
            chain.add(method.edit(model, [], {**doubled, empty: doubled[name].fill_(math.nan)}))
            assert math.isnan(chain.growth())
    finally:
        with torch.no_grad():
            model.weight(empty).copy_(before)


def test_the_command_draws_the_curve(config, tmp_path, model):
    folder = tmp_path / "run"
    said = editbench(
        "compare",
        "--methods",
        "rome",
        "--model",
        config.model,
        "--corpus",
        "local",
        "--data",
        config.data,
        "-n",
        4,
        "--tasks",
        "none",
        "--regime",
        "sequential:2",
        "--curve",
        "2,4",
        "--output",
        folder,
    )
    assert said.code == 0, said.err
    assert (folder / "curve.png").stat().st_size > 5000 and "<svg" in (
        folder / "curve.svg"
    ).read_text()
    again = editbench("plot", folder, "-o", tmp_path / "again.png", "--over-facts")
    assert (
        again.code == 0
        and (tmp_path / "again.svg").read_bytes() == (folder / "curve.svg").read_bytes()
    )


def test_the_command_asks_no_tasks_of_single_facts(config, tmp_path):
    said = editbench(
        "compare",
        "--methods",
        "rome",
        "--model",
        config.model,
        "--corpus",
        "local",
        "--data",
        config.data,
        "-n",
        1,
        "--regime",
        "single",
        "--output",
        tmp_path / "run",
    )
    assert said.code == 0 and "retention tasks are not asked" in said.err
