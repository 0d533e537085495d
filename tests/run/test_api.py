"""``inject`` is one call for every method. It refuses facts and options that no method can use."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

import editbench
from editbench import registry
from editbench.errors import FactError, MethodError, OptionError, UnknownNameError
from editbench.plugin import Method
from editbench.testing import FACTS, tiny_model, tiny_options
from editbench.types import Fact


@dataclass(frozen=True)
class Picky(Method):
    name: ClassVar[str] = "picky"
    needs_subject: ClassVar[bool] = True

    def inject(self, model, facts):
        return self.edit(model, facts)


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


def test_it_edits_and_leaves_the_model_as_it_was(model):
    weights = model.fingerprint()
    edit = editbench.inject(
        model, FACTS[:2], "rome", **tiny_options(registry.get("methods", "rome"))
    )
    assert edit.method == "rome" and edit.changes and len(edit.facts) == 2
    assert model.fingerprint() == weights and model.applied == ()


def test_a_recipe_names_options_and_the_edit_has_them_written_out(model):
    edit = editbench.inject(
        model, FACTS[:1], "memit", recipe="paper", steps=2, covariance_tokens=200
    )
    assert edit.options["lam"] == 15_000 and edit.options["steps"] == 2
    assert "recipe" not in edit.options
    with pytest.raises(OptionError, match="Method 'memit' has no recipe 'papr'. Its recipes: "):
        editbench.inject(model, FACTS[:1], "memit", recipe="papr")


def test_facts_may_be_dicts_and_the_model_one_of_transformers(model):
    fact = FACTS[0].to_dict()
    edit = editbench.inject(model.model, [fact], "ice", tokenizer=model.tokenizer)
    assert edit.facts == (FACTS[0],) and edit.context is not None


def test_a_fact_without_the_subject_that_a_method_needs_is_refused(model, monkeypatch):
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "picky", f"{__name__}:Picky")
    bare = Fact("odd", FACTS[0].prompt, FACTS[0].target, form=FACTS[0].form)
    with pytest.raises(MethodError, match="Fact 'odd' has no subject"):
        editbench.inject(model, [FACTS[1], bare], "picky")
    assert editbench.inject(model, [FACTS[1]], "picky").facts == (FACTS[1],)


def test_what_cannot_be_injected_is_refused(model):
    fact = FACTS[0]
    other = Fact("other", fact.prompt, "Timbuktu", form=fact.form)
    with pytest.raises(UnknownNameError, match="Unknown method 'mmit'"):
        editbench.inject(model, [fact], "mmit")
    with pytest.raises(OptionError, match="has no option 'nosuch'"):
        editbench.inject(model, [fact], "sft", nosuch=1)
    with pytest.raises(FactError, match="contradict each other"):
        editbench.inject(model, [fact, other], "ice")
    below = editbench.inject(model, [fact], "ice")
    with pytest.raises(FactError, match="To change a fact, take the old one out first"):
        editbench.inject(model, [other], on=below)
    with pytest.raises(FactError, match="Unknown field"):
        editbench.inject(model, [{"promt": "x"}], "ice")
    edit = editbench.inject(model, [fact, other], "ice", allow_conflicts=True)
    assert len(edit.facts) == 2
