"""Stored cells are found again, because a new part of a key is left out where it is not used."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from editbench import registry
from editbench.plugin import Evaluator, Method
from editbench.run.config import RunConfig, run_identity
from editbench.run.keys import SCORING, cell_key, key_of, versions_of
from editbench.run.plan import Plan
from editbench.types import Case, Fact

PUBLISHED = sorted((Path(__file__).parents[2] / "leaderboard" / "results").glob("*/run.json"))
CASE = Case.build(Fact("f", "The capital of France is", "Rome", "France"))


@dataclass(frozen=True)
class Plain(Method):
    name: ClassVar[str] = "plain"

    def inject(self, model, facts):
        return self.edit(model, facts)


@dataclass(frozen=True)
class Extended(Plain):
    added: ClassVar[frozenset[str]] = frozenset({"more"})

    more: int = 0


@dataclass(frozen=True)
class NewEngine(Plain):
    engine_version: ClassVar[int] = 2


class Brief(Evaluator):
    def score(self, model, cases):
        return []


class Brief2(Brief):
    version = 2


def key(plan, method, name="plain"):
    return cell_key(plan, name, method, "w", "float32")


def plan(config=None, **evaluators):
    config = RunConfig(("plain",), "tiny", "local") if config is None else config
    return Plan(config, {}, [CASE], evaluators={n: cls() for n, cls in evaluators.items()})


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.parent.name)
def test_every_published_cell_has_its_key(file):
    config = json.loads(file.read_text())["config"]
    summaries = list(file.parent.glob("cells/*/summary.json"))
    assert summaries
    for path in summaries:
        summary = json.loads(path.read_text())
        assert key_of(summary, config) == summary["key"] == path.parent.name


def test_there_are_published_cells():
    assert PUBLISHED


def test_an_option_that_was_added_is_part_of_a_key_where_it_is_set():
    assert key(plan(), Extended()) == key(plan(), Plain())
    assert key(plan(), Extended(seed=1)) == key(plan(), Plain(seed=1)) != key(plan(), Plain())
    assert len({key(plan(), Extended(more=more)) for more in (0, 1, 2)}) == 3


def test_the_options_that_editors_got_leave_stored_cells_their_keys():
    def left_out(name, **options):
        return set(registry.get("methods", name).from_options(name, options).left_out())

    shared = {"stop", "norm_anchor", "norm_facts"}
    batch = {"fact_token", "last_layers", "shrink", *shared}
    assert left_out("memit") == left_out("pmet") == batch
    assert left_out("memit", stop="loss") == left_out("memit") - {"stop"}
    assert left_out("memit", norm_anchor=True) == left_out("memit") - {"norm_anchor"}
    assert left_out("rome") == {"prefix_style", *shared}
    assert left_out("alphaedit") - left_out("memit") == {"ridge"}
    assert left_out("emmet") - left_out("memit") == {"slack"}
    pair = {"rome.stop": "loss"}
    assert left_out("rome+emmet", **pair) >= {"rome.prefix_style", "emmet.stop", "emmet.slack"}
    assert "rome.stop" not in left_out("rome+emmet", **pair)


def test_an_engine_is_part_of_a_key_from_its_second_version_on():
    assert versions_of(plan(), "plain", Plain()) == {"scoring": SCORING, "method": 1}
    assert versions_of(plan(), "plain", NewEngine())["engine"] == 2
    assert key(plan(), NewEngine()) != key(plan(), Plain())


def test_evaluators_are_part_of_a_key_where_there_are_some():
    usual = key(plan(), Plain())
    one, both = key(plan(brief=Brief), Plain()), key(plan(brief=Brief, other=Brief), Plain())
    assert key(plan(brief=Brief2), Plain()) != one, "their versions are"
    assert len({usual, one, both, key(plan(other=Brief), Plain())}) == 4
    assert key(plan(other=Brief, brief=Brief), Plain()) == both, "their order is not"


def test_how_a_chat_template_is_used_is_part_of_a_key_where_that_is_not_as_it_stands():
    usual, asked = plan(), Plain()
    known = cell_key(usual, "plain", asked, "w", "float32", "t")
    assert cell_key(usual, "plain", asked, "w", "float32", "t", {}) == known
    modes = [{"thinking": "off"}, {"date": "2024-07-26"}, {"separator": " "}]
    assert (
        len({known, *(cell_key(usual, "plain", asked, "w", "float32", "t", m) for m in modes)}) == 4
    )


def test_a_run_without_evaluators_has_the_configuration_that_it_had():
    config = RunConfig(("plain",), "tiny", "local")
    assert "evaluators" not in run_identity(config)
    asked = replace(config, evaluators=("brief",))
    assert run_identity(asked)["evaluators"] == ("brief",)
