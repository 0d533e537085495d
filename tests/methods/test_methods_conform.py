"""The shared battery: every registered method keeps the contract of ``editbench.plugin.Method``."""

from __future__ import annotations

import os
import tempfile
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import ClassVar, get_args, get_type_hints

import pytest
import torch

from editbench import registry
from editbench.errors import EditbenchError, OptionError
from editbench.methods._common.texts import Example
from editbench.methods._edit.options import WeightEditor
from editbench.methods._train.loop import target_nll
from editbench.models import LanguageModel
from editbench.options import MAX_COUNT, MAX_FLOAT, MAX_SEED
from editbench.placing import hold
from editbench.plugin import Method
from editbench.report import EditReport
from editbench.testing import (
    FACTS,
    check_method,
    check_report,
    check_same_seed,
    tiny_model,
    tiny_options,
    unchanged,
)

METHODS = registry.names("methods")
LOCATE_THEN_EDIT = [
    name for name in METHODS if issubclass(registry.get("methods", name), WeightEditor)
]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", METHODS)
def test_the_contract(name, family, reader, tmp_path):
    method = registry.get("methods", name)
    assert method.name == name
    check_method(method, reader(family), FACTS, tmp_path)


@pytest.mark.parametrize("family", ["gpt_neox", "opt"])
@pytest.mark.parametrize("name", LOCATE_THEN_EDIT)
def test_the_contract_of_weight_editors_in_other_layouts(name, family, reader, tmp_path):
    check_method(registry.get("methods", name), reader(family), FACTS, tmp_path, fisher_factor=1.0)


@pytest.mark.parametrize("name", METHODS)
def test_the_contract_in_bfloat16_and_with_chat(name, reader, tmp_path):
    exact = reader("llama", chat=True)
    model = LanguageModel(exact.model, exact.tokenizer, name="tiny-chat", precision="bfloat16")
    check_method(registry.get("methods", name), model, FACTS, tmp_path)


@pytest.mark.parametrize("name", METHODS)
def test_the_contract_with_weights_held_in_bfloat16(name, reader, tmp_path):
    """Also ``revert`` bit for bit, and save, load and merge."""
    exact = reader("llama")
    held = deepcopy(exact.model)
    hold(held, "bfloat16")
    model = LanguageModel(held, exact.tokenizer, name="tiny-bfloat16")
    assert model.precision == "bfloat16"
    edit = check_method(registry.get("methods", name), model, FACTS, tmp_path)
    assert model.dtype == torch.bfloat16
    if edit.changes and "rounding_lost" in edit.diagnostics:
        assert 0 < edit.diagnostics["rounding_lost"] < 1


@pytest.mark.parametrize("name", METHODS)
def test_the_callers_gradient_mode_does_not_matter(name, reader):
    model, method = reader("llama"), registry.get("methods", name)
    chosen = method(**tiny_options(method))
    with torch.no_grad(), unchanged(model, "inject"):
        edit = chosen.inject(model, FACTS)
    check_same_seed(chosen, model, FACTS, edit)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", METHODS)
def test_no_option_is_nan_or_infinite(name, value):
    method = registry.get("methods", name)
    hints = get_type_hints(method)
    numbers = [f.name for f in fields(method) if float in (hints[f.name], *get_args(hints[f.name]))]
    assert numbers or method.kind == "baseline"
    for option in numbers:
        with pytest.raises(ValueError, match=f"{option}=.* is not finite"):
            method(**{option: value})


def numeric_options(method):
    """Return the options that take a number, each with whether it must be whole."""
    kinds = get_type_hints(method)
    inner = {f.name: (kinds[f.name], *get_args(kinds[f.name])) for f in fields(method)}
    return {key: float not in of for key, of in inner.items() if {int, float} & set(of)}


ENDLESS = ["99999999999", 10**11, 10**400, "9" * 5000, -(10**400), "1e999"]
EDGES = [0, -1, 1e38]


@pytest.mark.parametrize("name", METHODS)
def test_a_number_that_no_run_ends_with_is_refused_in_one_sentence(name):
    method = registry.get("methods", name)
    for option, whole in numeric_options(method).items():
        for value in ENDLESS:
            try:
                built = method.from_options(name, {option: value})
            except OptionError as error:
                assert (
                    option in str(error).lower()
                    and len(str(error)) < 250
                    and "\n" not in str(error)
                )
            else:
                limit = method.limits.get(option, MAX_SEED if option == "seed" else MAX_COUNT)
                assert getattr(built, option) <= (limit if whole else MAX_FLOAT), (option, value)


def declared_once():
    """Return each numeric option of each class that declares it, with a method that has it."""
    found = {}
    for name in METHODS:
        method = registry.get("methods", name)
        for option in numeric_options(method):
            owner = next(base for base in method.__mro__ if option in vars(base)["__annotations__"])
            found.setdefault((owner, option), name)
    return [(name, option) for (_, option), name in found.items()]


@pytest.mark.parametrize(("name", "option"), declared_once())
def test_a_number_at_the_edge_gives_an_edit_or_one_sentence(name, option, reader):
    model, method = reader("llama"), registry.get("methods", name)
    for value in EDGES:
        try:
            chosen = method.from_options(name, {**tiny_options(method), option: value})
            chosen.inject(model, FACTS[:1])
        except EditbenchError as error:
            assert "\n" not in str(error), value


def test_a_rank_above_the_width_and_too_many_steps_are_refused_before_any_work(reader):
    model = reader("llama")
    for name in ("sft", "mixsd", "opsd"):
        method, small = registry.get("methods", name), tiny_options(registry.get("methods", name))
        with pytest.raises(OptionError, match="lora=99999 is above the rank of every weight"):
            method(**{**small, "lora": 99999}).inject(model, FACTS)
        with pytest.raises(OptionError, match="training steps is .*at most 1,000,000"):
            method(**{**small, "epochs": 1_000_000, "batch_size": 1}).inject(model, FACTS)


def test_more_facts_in_a_step_than_there_are_means_all(reader):
    model, sft = reader("llama"), registry.get("methods", "sft")
    small = tiny_options(sft) | {"epochs": 1, "min_steps": 1}
    for size in ({"batch_size": 10**12}, {"batch_size": 10**12, "micro_batch": 10**12}):
        edit = sft.from_options("sft", {**small, **size}).inject(model, FACTS)
        assert edit.diagnostics["steps"] == 1


REPORTING = [
    *((name, {}) for name in METHODS),
    ("mixsd", {"lam": 1.0, "on_fail": "drop"}),
    ("opsd", {"exposure": "adaptive"}),
    ("sft+mixsd", {}),
    ("memit+opsd", {}),
]


@pytest.mark.parametrize(("name", "changed"), REPORTING, ids=str)
@pytest.mark.parametrize("facts", [FACTS, FACTS[:1], ()], ids=len)
def test_every_figure_is_declared(name, changed, facts, reader):
    method = registry.get("methods", name)
    parts = {part: registry.get("methods", part) for part in name.split("+")}
    chosen = (
        {
            f"{part}.{key}": v
            for part, kind in parts.items()
            for key, v in tiny_options(kind).items()
        }
        if "+" in name
        else tiny_options(method)
    )
    edit = method.from_options(name, {**chosen, **changed}).inject(reader("llama"), facts)
    check_report(method, edit)
    if "+" in name:  # the report of each part stands under its name
        for part, kind in parts.items():
            assert edit.diagnostics[part].keys() <= {*EditReport.__annotations__, *kind.figures}


@pytest.mark.parametrize("name", METHODS)
def test_figures_say_what_they_are(name):
    for figure in registry.get("methods", name).figures.values():
        assert figure.about.endswith(".") and figure.shown != ""
        assert not figure.shown or not figure.shown.endswith(".")


@pytest.mark.parametrize("name", ["sft", "mixsd", "opsd"])
def test_trained_tokens_alone_add_up(name):
    figures = registry.get("methods", name).figures
    assert [key for key, figure in figures.items() if figure.adds_up] == ["trained_tokens"]


# --- the battery itself: it must find a method that breaks a promise ------------------------------


@dataclass(frozen=True)
class Honest(Method):
    """Full fine-tuning by hand on a copy; the others break one promise each."""

    name: ClassVar[str] = "honest"

    def inject(self, model, facts):
        if not facts:
            return self.edit(model, facts)
        copy = LanguageModel(
            deepcopy(model.model).requires_grad_(True), model.tokenizer, precision="float32"
        )
        optimizer = torch.optim.SGD(copy.model.parameters(), lr=0.02)
        for _ in range(6):
            pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in facts]
            loss, _count = target_nll(copy, [Example(*pair) for pair in pairs])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        changes = {
            name: copy.weight(name).detach() - p.detach()
            for name, p in model.model.named_parameters()
        }
        return self.edit(model, facts, self.changed(changes))

    def changed(self, changes):
        return changes


class LeavesWeights(Honest):
    def inject(self, model, facts):
        edit = super().inject(model, facts)
        edit.apply(model)
        return edit


class LeavesHook(Honest):
    def inject(self, model, facts):
        model.model.register_forward_hook(lambda *_: None)
        return super().inject(model, facts)


class LeavesGradients(Honest):
    def inject(self, model, facts):
        model.weight(model.layout.weight_name(1)).sum().backward()
        return super().inject(model, facts)


class SeedsGlobally(Honest):
    def inject(self, model, facts):
        torch.manual_seed(self.seed)
        return super().inject(model, facts)


class DrawsGlobally(Honest):
    def changed(self, changes):
        with torch.random.fork_rng(devices=[]):
            return {
                name: change + 1e-4 * torch.rand(change.shape) for name, change in changes.items()
            }


class SwitchesMode(Honest):
    def inject(self, model, facts):
        model.model.eval()
        return super().inject(model, facts)


class Thaws(Honest):
    def inject(self, model, facts):
        model.model.requires_grad_(True)
        return super().inject(model, facts)


class Unteaches(Honest):
    def changed(self, changes):
        return {name: -change for name, change in changes.items()}


class DoesNothing(Honest):
    def changed(self, changes):
        return {}


class WritesAbroad(Honest):
    def inject(self, model, facts):
        with open(tempfile.gettempdir() + "/editbench-test-stray", "w") as file:
            file.write("x")
        os.remove(file.name)
        return super().inject(model, facts)


class MutatesFacts(Honest):
    def inject(self, model, facts):
        edit = super().inject(model, facts)
        facts.reverse()
        return edit


class ReportsUndeclared(Honest):
    def inject(self, model, facts):
        return replace(super().inject(model, facts), diagnostics={"luck": 7})


class RecordsUnknown(Honest):
    def inject(self, model, facts):
        return replace(super().inject(model, facts), records=[{"fact": "moon", "luck": 7}])


class NeverEmpty(Honest):
    def inject(self, model, facts):
        return super().inject(model, facts or FACTS)


class WantsSubjects(Honest):
    needs_subject = True


@pytest.mark.parametrize("method", [Honest, WantsSubjects])
def test_an_honest_method_passes(reader, tmp_path, method):
    check_method(method, reader("llama"), FACTS, tmp_path)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (LeavesWeights, "inject changed the weights"),
        (LeavesHook, "inject changed the hooks: the whole model"),
        (
            LeavesGradients,
            r"inject changed the gradients: model.layers.1.mlp.down_proj.weight; leave no .grad",
        ),
        (SeedsGlobally, "inject changed the torch random state"),
        (DrawsGlobally, "two runs with one seed"),
        (SwitchesMode, "inject changed the train or eval mode"),
        (Thaws, "inject changed the requires_grad: model.embed_tokens.weight"),
        (Unteaches, "did not become more probable"),
        (DoesNothing, "changed no weight"),
        (WritesAbroad, "written outside the cache"),
        (MutatesFacts, "changed the list of facts"),
        (ReportsUndeclared, "figures that it does not declare: {'luck'}"),
        (RecordsUnknown, "fields that EditRecord does not have: {'luck'}"),
        (NeverEmpty, "not empty"),
    ],
)
def test_a_broken_promise_is_found(broken, complaint, tmp_path):
    with pytest.raises(AssertionError, match=complaint):
        check_method(broken, tiny_model("llama"), FACTS, tmp_path)
