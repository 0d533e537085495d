"""Evaluator plug-ins are asked, averaged, recorded and verified like everything else."""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pandas
import pytest
import torch
from tiny import write_facts, write_model

from editbench.errors import OptionError, PluginError, UnknownNameError
from editbench.files import write_json_atomic
from editbench.models import load_model
from editbench.plugin import Evaluator, Method, Score
from editbench.records.reading import read_rows
from editbench.records.store import RunStore
from editbench.run import evaluators, runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.folder import save_cases
from editbench.run.plan import make_plan
from editbench.run.verify import verify
from editbench.stats import clustered_mean
from editbench.types import digest


@dataclass(frozen=True)
class Push(Method):
    """Adds ``size`` per fact to a weight of the last layer."""

    name: ClassVar[str] = "push"
    size: float = 0.05

    def inject(self, model, facts):
        name = model.layout.weight_name(1)
        change = torch.full_like(model.weight(name), self.size * len(facts)).cpu()
        return self.edit(model, facts, {name: change} if facts and self.size else {})


@dataclass(frozen=True)
class Mute(Method):
    """Changes nothing."""

    name: ClassVar[str] = "mute"

    def inject(self, model, facts):
        return self.edit(model, facts)


class Sure(Evaluator):
    """Scores the probability of the target, and keeps how it was called."""

    title: ClassVar[str] = "Sure ↑"
    asked: ClassVar[list[Any]] = []

    def score(self, model, cases):
        self.asked.append((len(model.applied), [case.fact.id for case in cases]))
        pairs = [model.pair_ids(c.fact.prompt, c.fact.target, c.fact.form) for c in cases]
        logps = [logp.mean().exp().item() for logp, _ in model.target_scores(pairs)]
        return [
            Score(case.fact.id, value, case.fact.target)
            for case, value in zip(cases, logps, strict=True)
        ]


class Newer(Sure):
    version = 2


class Partly(Evaluator):
    """Cannot score the first case."""

    def score(self, model, cases):
        return [Score(c.fact.id, math.nan if i == 0 else 1.0) for i, c in enumerate(cases)]


class Never(Evaluator):
    def score(self, model, cases):
        return [Score(case.fact.id, math.nan) for case in cases]


class Wrong(Evaluator):
    """Returns the result of ``make``; if ``edited``, only for an edited model."""

    make: ClassVar[Any] = None
    edited: ClassVar[bool] = False

    def score(self, model, cases):
        if self.edited and not model.applied:
            return [Score(case.fact.id, 1.0) for case in cases]
        return type(self).make([case.fact.id for case in cases])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny")
    return load_model(str(folder), precision="float32")


@pytest.fixture(autouse=True)
def plugins(monkeypatch):
    import editbench.eval
    import editbench.methods

    for name, cls in {"push": Push, "mute": Mute}.items():
        monkeypatch.setitem(editbench.methods.BUILTINS, name, f"{__name__}:{cls.__name__}")
    for name, cls in {"sure": Sure, "partly": Partly, "never": Never, "wrong": Wrong}.items():
        monkeypatch.setitem(editbench.eval.BUILTINS, name, f"{__name__}:{cls.__name__}")
    Sure.asked.clear()
    return editbench.eval.BUILTINS


@pytest.fixture
def config(tmp_path, model):
    data = write_facts(tmp_path / "facts.jsonl")
    return RunConfig(("base", "push", "mute"), model.name, "local", str(data), n=4,
                     precision="float32", evaluators=("sure",))  # fmt: skip


def run(config, model, folder):
    """Run ``config``; return the summaries by method, and the reported states of the cells."""
    said, plan = [], make_plan(config)
    with RunStore(folder).open(run_identity(config)) as store:
        save_cases(folder, plan)
        summaries = runner.run(
            plan, model, store, lambda name, state: said.append(f"{name} {state}")
        )
    return {summary["method"]: summary for summary in summaries}, said


def check(folder, model, rerun=9):
    """Verify a run and return the report."""
    return verify(folder, rerun, 0, lambda *_: model, lambda *_: None, lambda _: "")


def test_the_rows_the_mean_and_the_base_of_each_cell(config, model, tmp_path):
    summaries, _ = run(config, model, tmp_path / "run")
    ids = [case.fact.id for case in make_plan(config).cases]
    assert Sure.asked == [(0, ids), (1, ids)], "once of the base, once of the model that moved"
    for method, summary in summaries.items():
        rows = read_rows(tmp_path / "run", summary["key"], "scores")
        assert [(row["evaluator"], row["case"]) for row in rows] == [("sure", i) for i in ids]
        scores = [row["score"] for row in rows]
        found = summary["evaluators"]["sure"]
        interval = clustered_mean(scores, ids)
        assert (found["mean"], found["low"], found["high"]) == pytest.approx(
            (interval.mean, interval.low, interval.high), abs=0
        )
        assert (found["n"], found["clusters"], found["protocol"]) == (4, 4, "sure")
        assert found["title"] == "Sure ↑"
        base = [row["base_score"] for row in rows]
        assert found["base"] == clustered_mean(base, ids).mean
        assert (scores == base) == (method != "push")
        assert summary["versions"]["evaluators"] == {"sure": 1}
        assert ("evaluators" in summary["seconds"]) and rows[0]["text"]
    assert summaries["mute"]["status"] == "no_effect"


def test_a_run_without_evaluators_has_none_of_it(config, model, tmp_path):
    summaries, _ = run(replace(config, evaluators=()), model, tmp_path / "run")
    for summary in summaries.values():
        assert "evaluators" not in summary and "evaluators" not in summary["seconds"]
        assert "scores" not in summary["tables"] and "evaluators" not in summary["versions"]
    config_stored = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert "evaluators" not in config_stored


def test_a_finished_cell_is_kept_and_a_new_version_is_asked_anew(
    config, model, tmp_path, plugins, monkeypatch
):
    first, _ = run(config, model, tmp_path / "run")
    asked = len(Sure.asked)
    again, said = run(config, model, tmp_path / "run")
    assert again == first and said == ["base kept", "push kept", "mute kept"]
    assert len(Sure.asked) == asked
    run(replace(config, methods=("base", "mute")), model, tmp_path / "other")
    assert len(Sure.asked) == asked, "the base's scores are cached"
    monkeypatch.setitem(plugins, "sure", f"{__name__}:Newer")
    newer, said = run(config, model, tmp_path / "run")
    assert said[1::2] == ["base done", "push done", "mute done"]
    assert newer["push"]["key"] != first["push"]["key"]
    assert Sure.asked[asked][0] == 0, "of the base, too"


@pytest.mark.parametrize("regime", ["single", "sequential:2"])
def test_other_regimes(config, model, tmp_path, regime):
    summaries, _ = run(replace(config, regime=regime), model, tmp_path / "run")
    ids = [case.fact.id for case in make_plan(config).cases]
    rows = read_rows(tmp_path / "run", summaries["push"]["key"], "scores")
    assert [row["case"] for row in rows] == ids
    if regime == "single":
        alone = [[case] for case in ids]
        assert Sure.asked == [*((0, case) for case in alone), *((1, case) for case in alone)]
    else:
        assert Sure.asked == [(0, ids), (2, ids)], "after the last chunk"
    assert check(tmp_path / "run", model).differences == []


def test_a_curve_asks_them_at_its_end(config, model, tmp_path):
    summaries, _ = run(replace(config, curve=(2, 4)), model, tmp_path / "run")
    assert len(Sure.asked) == 2 and "evaluators" not in summaries["push"]["curve"][0]


def test_a_case_that_cannot_be_scored_is_left_out(config, model, tmp_path):
    asked = replace(config, evaluators=("partly", "never"))
    summaries, _ = run(asked, model, tmp_path / "run")
    partly, never = (summaries["push"]["evaluators"][name] for name in ("partly", "never"))
    assert (partly["mean"], partly["n"], partly["clusters"]) == (1, 3, 3)
    assert partly["title"] == "partly", "without a title, the name"
    assert (never["mean"], never["low"], never["base"], never["n"]) == (None, None, None, 0)
    rows = read_rows(tmp_path / "run", summaries["push"]["key"], "scores")
    assert [row["score"] for row in rows] == [None, 1, 1, 1, None, None, None, None]
    assert check(tmp_path / "run", model).differences == []


WRONG = [
    (lambda ids: None, "returned a NoneType; expected a list of editbench.plugin.Score"),
    (lambda ids: [1.0] * len(ids), "returned a list with a float in it; expected a list of"),
    (lambda ids: [Score(i, 1.0) for i in ids[1:]], r"no score for case 'f\d' \(1 of 4 cases"),
    (lambda ids: [Score(i, 1.0) for i in (*ids, ids[0])], r"scored case 'f\d' twice"),
    (lambda ids: [Score(i, 1.0) for i in (*ids, "f99")], "scored case 'f99', which it was not"),
    (lambda ids: [Score(i, 1.5) for i in ids], r"with 1.5; expected a number from 0 to 1, or NaN"),
    (lambda ids: [Score(i, -0.1) for i in ids], r"with -0.1; expected a number"),
    (lambda ids: [Score(i, math.inf) for i in ids], r"with inf; expected a number"),
    (lambda ids: [Score(i, "good") for i in ids], r"with 'good'; expected a number"),
    (lambda ids: [Score(i, None) for i in ids], r"with None; expected a number"),
]


@pytest.mark.parametrize(("make", "said"), WRONG)
def test_a_wrong_return_names_the_evaluator(config, model, monkeypatch, make, said):
    monkeypatch.setattr(Wrong, "make", make)
    cases = make_plan(replace(config, evaluators=())).cases
    with pytest.raises(PluginError, match=f"Evaluator 'wrong' .*{said}"):
        evaluators.score("wrong", Wrong(), model, cases)


def test_a_wrong_return_ends_the_run_on_the_base_and_fails_the_cell_later(
    config, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(Wrong, "make", WRONG[5][0])
    asked = replace(config, evaluators=("wrong",))
    with pytest.raises(PluginError, match="Evaluator 'wrong' scored case"):
        run(asked, model, tmp_path / "base")
    monkeypatch.setattr(Wrong, "edited", True)
    weights = model.fingerprint()
    summaries, said = run(asked, model, tmp_path / "edited")
    assert said[1::2] == ["base done", "push failed", "mute done"]
    assert summaries["push"]["note"].startswith("PluginError: Evaluator 'wrong' scored case")
    assert model.fingerprint() == weights and model.applied == ()


def test_names_are_checked(config, model):
    with pytest.raises(UnknownNameError, match="Unknown evaluator 'shure'. Did you mean 'sure'"):
        make_plan(replace(config, evaluators=("shure",)))
    with pytest.raises(OptionError, match="Evaluator 'sure' is listed twice. List it once."):
        replace(config, evaluators=("sure", "sure"))


# --- verify --------------------------------------------------------------------------------------


def change(folder, key, scores=None, summary=None):
    """Change a cell and all its digests, as a forger would who knows about them."""
    cell = folder / "cells" / key
    record = json.loads((cell / "summary.json").read_text())
    if scores is not None:
        table = pandas.read_parquet(cell / "scores.parquet")
        scores(table)
        table.to_parquet(cell / "scores.parquet")
        data = (cell / "scores.parquet").read_bytes()
        record["tables"]["scores"] = hashlib.sha256(data).hexdigest()
    if summary is not None:
        summary(record)
    del record["digest"]
    write_json_atomic(cell / "summary.json", {**record, "digest": digest(record)})


def test_an_honest_run_is_verified_from_its_rows_and_anew(config, model, tmp_path):
    run(config, model, tmp_path / "run")
    report = check(tmp_path / "run", model)
    assert report.differences == [] and len(report.rerun) == 3
    plain = run(replace(config, evaluators=()), model, tmp_path / "plain")
    assert plain and report.rows == check(tmp_path / "plain", model).rows + 3 * 4


def test_a_changed_mean_or_title_less_number_is_named(config, model, tmp_path):
    summaries, _ = run(config, model, tmp_path / "run")

    def better(record):
        record["evaluators"]["sure"]["mean"] = 0.99
        record["evaluators"]["sure"]["base"] = 0.01

    change(tmp_path / "run", summaries["push"]["key"], summary=better)
    whats = [one["what"] for one in check(tmp_path / "run", model, 0).differences]
    assert whats == ["evaluators.sure.mean", "evaluators.sure.base"]


def test_a_column_that_was_taken_away_is_named(config, model, tmp_path):
    summaries, _ = run(config, model, tmp_path / "run")

    def without(record):
        del record["evaluators"], record["tables"]["scores"]

    change(tmp_path / "run", summaries["push"]["key"], summary=without)
    whats = {one["what"] for one in check(tmp_path / "run", model, 0).differences}
    assert whats == {"evaluators.sure"}


def test_a_changed_score_is_noticed_by_the_mean_and_by_the_rerun(config, model, tmp_path):
    summaries, _ = run(config, model, tmp_path / "run")
    key = summaries["push"]["key"]

    def better(table):
        table["score"] = 1.0

    def fitting(record):
        record["evaluators"]["sure"] |= {"mean": 1.0}

    change(tmp_path / "run", key, scores=better, summary=fitting)
    whats = [one["what"] for one in check(tmp_path / "run", model, 9).differences]
    assert "evaluators.sure.low" in whats
    assert any(what.startswith("scores, score: 4 of 4 rows, the first evaluator") for what in whats)


def test_a_quote_of_the_base_is_checked(config, model, tmp_path):
    summaries, _ = run(config, model, tmp_path / "run")

    def worse(table):
        table["base_score"] = 0.0

    change(tmp_path / "run", summaries["push"]["key"], scores=worse)
    whats = [one["what"] for one in check(tmp_path / "run", model, 0).differences]
    assert whats[0] == "evaluators.sure.base"
    assert whats[1].startswith(f"scores: base_score is not that of {summaries['base']['key']}")


def test_a_score_outside_the_range_is_no_traceback(config, model, tmp_path):
    summaries, _ = run(config, model, tmp_path / "run")

    def wild(table):
        table["score"] = 3.0

    change(tmp_path / "run", summaries["push"]["key"], scores=wild)
    (one,) = check(tmp_path / "run", model, 0).differences
    assert "cannot be scored (ValueError" in one["what"]


def test_a_run_verifies_only_where_its_plugin_is(config, model, tmp_path, plugins, monkeypatch):
    run(config, model, tmp_path / "run")
    monkeypatch.delitem(plugins, "sure")
    assert check(tmp_path / "run", model, 0).differences == []
    with pytest.raises(UnknownNameError, match="Unknown evaluator 'sure'"):
        check(tmp_path / "run", model, 1)
