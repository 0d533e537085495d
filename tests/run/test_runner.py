"""Cells are resumed, killed, repeated and failed, and methods see facts only."""

import gc
import importlib.metadata
import json
import os
import platform
import signal
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hostile.artifacts import adapter
from hostile.templates import hostile_tokenizer
from tiny import editbench, fact, wait_for, write_facts, write_model

from editbench import progress
from editbench.errors import DataError, EditbenchError, MethodError, OptionError, PluginError
from editbench.eval import conversations
from editbench.eval.probes import ask
from editbench.leaderboard import details
from editbench.models import LanguageModel, cache_dir, load_model
from editbench.plugin import Evaluator, Method
from editbench.records.reading import load_run, read_table
from editbench.records.store import RunStore
from editbench.run import baseline, regimes, runner
from editbench.run.config import RunConfig, default_output, run_identity, with_baselines
from editbench.run.folder import no_empty_run
from editbench.run.keys import cell_key, code_digest
from editbench.run.plan import Plan, make_plan
from editbench.run.scores import curve_scores
from editbench.testing import FACTS, check_method
from editbench.types import Case, Fact, Probe, digest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def model(model_folder):
    return load_model(str(model_folder), precision="float32")


@pytest.fixture
def config(tmp_path, model_folder):
    data = write_facts(tmp_path / "facts.jsonl")
    return RunConfig(
        ("base", "sft"),
        str(model_folder),
        "local",
        str(data),
        n=3,
        options={"sft": {"epochs": 2}},
        precision="float32",
    )


@pytest.fixture
def plug(monkeypatch):
    """Return a function that registers methods of this file."""
    import editbench.methods

    def add(**classes):
        for name, cls in classes.items():
            monkeypatch.setitem(editbench.methods.BUILTINS, name, f"{__name__}:{cls.__name__}")

    Spy.seen.clear()
    return add


def run(config, model, folder):
    """Run ``config``; return the summaries by method, and the reported states of the cells."""
    told = []
    with RunStore(folder).open(run_identity(config)) as store:
        summaries = runner.run(
            make_plan(config), model, store, lambda name, state: told.append(f"{name} {state}")
        )
    return {summary["method"]: summary for summary in summaries}, told


@dataclass(frozen=True)
class Spy(Method):
    """Changes nothing, and keeps the arguments that it was given."""

    name: ClassVar[str] = "spy"
    seen: ClassVar[list[Any]] = []

    def inject(self, model, facts):
        self.seen.append((model, facts))
        return self.edit(model, facts)


@dataclass(frozen=True)
class Raises(Method):
    name: ClassVar[str] = "raises"
    fixed: ClassVar[list[bool]] = []

    def inject(self, model, facts):
        if not self.fixed:
            raise ZeroDivisionError("the third layer is missing")
        return self.edit(model, facts)


@dataclass(frozen=True)
class Needs(Method):
    name: ClassVar[str] = "needs"

    def inject(self, model, facts):
        raise MethodError("This model has no third layer.")


@dataclass(frozen=True)
class Spoils(Method):
    """Breaks the promise to leave weights as found; if ``silently``, it does not even raise."""

    name: ClassVar[str] = "spoils"
    silently: bool = False

    def inject(self, model, facts):
        next(model.model.parameters()).data.add_(1.0)
        if not self.silently:
            raise ValueError("half way")
        return self.edit(model, facts)


@dataclass(frozen=True)
class Babbles(Method):
    """Keeps records that no table can hold, or diagnostics that JSON cannot."""

    name: ClassVar[str] = "babbles"
    where: str = "records"

    def inject(self, model, facts):
        if self.where == "records":
            return self.edit(model, facts, records=[{"a": 1}, {"a": "text"}])
        return self.edit(model, facts, diagnostics={"thing": object()})


@dataclass(frozen=True)
class Odd(Method):
    name: ClassVar[str] = "odd"
    thing: Any = object

    def inject(self, model, facts):
        return self.edit(model, facts)


# --- configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n": 0}, "-n is 0"),
        ({"n": -1}, "-n is -1"),
        ({"limit": 0}, "--limit is 0"),
        ({"limit": -1}, "--limit is -1"),
        ({"regime": "both"}, "'both' is not one of batch, single, sequential:CHUNK"),
        ({"regime": "sequential"}, "How many facts at a time"),
        ({"regime": "sequential:0"}, "'sequential:0' is not one of"),
        ({"regime": "single", "tasks": ("eb_grammar",)}, "--tasks none"),
        ({"regime": "single", "diagnostics": ("drift",)}, "--diagnostics does not go with"),
        ({"regime": "single", "curve": (1,)}, "--curve does not go with"),
        ({"curve": (4,)}, "--curve 4: a point lies between 1 and -n 3"),
        ({"curve": (1,), "regime": "sequential:2"}, "no multiple of the chunk"),
        ({"precision": "half"}, "'half' is not one of"),
        ({"seed": -1}, "Seed -1"),
        ({"seed": 2**32}, "Seed 4294967296"),
        ({"methods": ("sft", "rome", "sft")}, "'sft' is listed twice"),
        ({"options": {"rome": {}}}, "rome.* not compared. Compared: base, sft"),
        ({"options": {"": {}}}, "not compared"),
        ({"methods": ("base", "sft@")}, "'sft@' has an empty label. Write it as NAME@LABEL"),
        ({"methods": ("base", "sft", "base@a")}, "'base@a' makes no sense"),
        ({"methods": ("sft", "sft@a", "sft@a")}, "'sft@a' is listed twice"),
        ({"options": {"sft@a": {}}}, "sft@a.* not compared. Compared: base, sft"),
    ],
)
def test_a_bad_configuration_is_refused(config, changes, said):
    with pytest.raises(OptionError, match=said):
        replace(config, **changes)


def test_baselines_come_first_and_once():
    assert with_baselines(("sft",)) == ("base", "ice", "sft")
    assert with_baselines(("sft", "base")) == ("ice", "sft", "base")


def test_a_plan_builds_methods_and_cases(config):
    plan = make_plan(config)
    assert plan.methods["sft"].epochs == 2 and plan.methods["sft"].seed == config.seed
    assert len(plan.cases) == 3 and plan.left_out == ()
    assert make_plan(replace(config, seed=5)).methods["sft"].seed == 5
    for changes in ({"n": 99}, {"data": "nosuch"}, {"data": None}, {"part": "train"}):
        with pytest.raises(DataError):
            make_plan(replace(config, **changes))


def test_a_judge_needs_an_address_and_a_name_and_an_unused_one_leaves_no_trace(config):
    with pytest.raises(OptionError, match="--judge is given without --judge-model"):
        make_plan(replace(config, judge="http://localhost:1/v1"))
    assert not {"judge", "judge_model", "diagnostics"} & set(run_identity(config))
    asked = replace(config, judge="http://localhost:1/v1", judge_model="a")
    assert {"judge", "judge_model"} <= set(run_identity(asked))
    assert default_output(asked, run_identity(asked)) != default_output(
        config, run_identity(config)
    )


def test_an_empty_slice_is_told(config, tmp_path):
    data = write_facts(tmp_path / "one.jsonl", [fact(0)])
    config = replace(config, data=str(data), n=1)
    empty = next(part for part in ("dev", "test") if not _cases(config, part))
    with pytest.raises(
        DataError, match=f"There are no {empty} facts: .* and the only fact falls to"
    ):
        make_plan(replace(config, part=empty))


def _cases(config, part):
    with suppress(DataError):
        return make_plan(replace(config, part=part)).cases


def test_options_that_no_record_can_hold(config, plug):
    plug(odd=Odd)
    with pytest.raises(PluginError, match="'odd' cannot be recorded as JSON"):
        make_plan(replace(config, methods=("odd",), options={}))


class Brief(Evaluator):
    """Scores nothing, since only its name matters here."""

    def score(self, model, cases):
        return []


def test_the_key_of_a_cell_changes_with_what_can_change_its_numbers(config, tmp_path, monkeypatch):
    import editbench.eval

    monkeypatch.setitem(editbench.eval.BUILTINS, "brief", f"{__name__}:Brief")

    def key(config, name="sft", weights="w", precision="float32", template=None):
        plan = make_plan(config)
        return cell_key(plan, name, plan.methods[name], weights, precision, template)

    classified = {
        "methods",
        "model",
        "corpus",
        "data",
        "part",
        "n",
        "tasks",
        "limit",
        "regime",
        "seed",
        "precision",
        "options",
        "task_data",
        "allow_conflicts",
        "layout",
        "diagnostics",
        "curve",
        "tuned",
        "judge",
        "judge_model",
        "repeats",
        "evaluators",
        "columns",  # what is read by them is in the hash of the cases
        "artifacts",  # they are rows of their own, keyed by their contents
        "dtype",  # a part of the weights' hash
        "device_map",  # these two move a number by rounding alone
        "batch_size",
        "suite",  # only a name for what the other fields say
    }
    assert set(RunConfig.__dataclass_fields__) == classified, (
        "a new field: say below whether it changes a cell"
    )
    usual = key(config)
    copy = write_facts(tmp_path / "elsewhere.jsonl")
    assert (
        key(
            replace(
                config,
                data=str(copy),
                model="other",
                methods=("sft", "mine"),
                tuned={"sft": {}},
                repeats=1,
                dtype="bfloat16",
                device_map="auto",
                batch_size=3,
                artifacts={"mine": str(adapter(tmp_path / "mine", "base"))},
            )
        )
        == usual
    )
    other = write_facts(tmp_path / "other.jsonl", [fact(i, target="Tokyo") for i in range(10)])
    (tmp_path / "t.jsonl").write_text("{}")
    data = {"gsm8k": str(tmp_path / "t.jsonl")}
    changed = [
        key(config, "base"),
        key(config, weights="x"),
        key(config, precision="bfloat16"),
        key(config, template="t"),
        key(replace(config, layout={"layers": "model.layers"})),
        key(replace(config, data=str(other))),
        key(replace(config, part="dev", n=1)),
        key(replace(config, n=2)),
        key(replace(config, seed=1)),
        key(replace(config, limit=5)),
        key(replace(config, diagnostics=("drift",))),
        key(replace(config, curve=(1,))),
        key(replace(config, regime="single")),
        key(replace(config, regime="sequential:1")),
        key(replace(config, judge="http://localhost:1/v1", judge_model="a")),
        key(replace(config, judge="http://localhost:1/v1", judge_model="b")),
        key(replace(config, tasks=("eb_grammar",))),
        key(replace(config, options={"sft": {"epochs": 3}})),
        key(replace(config, options={})),
        key(replace(config, evaluators=("brief",))),
        key(replace(config, tasks=("gsm8k",), task_data=data)),
    ]
    (tmp_path / "t.jsonl").write_text("{}\n")
    changed.append(key(replace(config, tasks=("gsm8k",), task_data=data)))
    assert len({usual, *changed}) == 1 + len(changed)
    assert usual.startswith("sft-")


def test_the_key_of_a_known_cell():
    """Published records and started runs are found by key, so a change here loses them all."""
    case = Case.build(Fact("f", "The capital of France is", "Rome", "France"))
    plan = Plan(RunConfig(("spy",), "tiny", "local"), {}, [case])
    assert cell_key(plan, "spy", Spy(), "w", "float32") == "spy-4a0834f4b77e"


def test_the_key_of_a_variant_is_a_folder_s_name(config):
    plan = make_plan(config)

    def key(name):
        return cell_key(plan, name, plan.methods["sft"], "w", "float32")

    names = [
        "sft",
        "sft@slow",
        "sft@lr=1e-5,epochs=3",
        "sft@text=a/b.txt",
        "sft@text=a b.txt",
        "sft@" + "9" * 300,
    ]
    keys = [key(name) for name in names]
    assert len(set(keys)) == len(names), "the hash has the whole name"
    assert keys[1].startswith("sft_slow-") and keys[2].startswith("sft_lr=1e-5_epochs=3-")
    assert keys[3].startswith("sft_text=a_b.txt-") and len(keys[-1]) < 120
    assert all(RunStore("run").summary_path(key) for key in keys), (
        "a key that is no folder's name is refused there"
    )


def test_a_variant_has_its_own_options_and_no_other(config):
    options = {"sft": {"epochs": 2}, "sft@a": {"lr": "1e-3"}}
    methods = make_plan(
        replace(config, methods=("sft", "sft@a", "sft@b"), options=options, seed=4)
    ).methods
    assert methods["sft"].epochs == 2 and methods["sft@a"].epochs == methods["sft@b"].epochs != 2
    assert methods["sft@a"].lr == 1e-3 != methods["sft@b"].lr and {
        m.seed for m in methods.values()
    } == {4}
    with pytest.raises(OptionError, match="'sft' has no option 'nosuch'"):
        make_plan(replace(config, methods=("sft@a",), options={"sft@a": {"nosuch": 1}}))


# --- one run -------------------------------------------------------------------------------------


def test_a_run_leaves_complete_cells(config, model, tmp_path):
    config = replace(config, tasks=("eb_grammar", "eb_instruct"), limit=2)
    before = model.fingerprint()
    found, told = run(config, model, tmp_path / "run")
    assert (
        told == ["base start", "base done", "sft start", "sft done"]
        and model.fingerprint() == before
    )
    base, sft = found["base"], found["sft"]
    for summary in (base, sft):
        assert summary["status"] == "done" and summary["note"] == ""
        assert summary["corpus"]["n"] == 3 and summary["corpus"]["form"] == "cloze"
        assert (
            summary["model"]["precision"] == "float32" and summary["model"]["chat_template"] is None
        )
        assert (
            set(summary["tasks"]) == {"eb_grammar", "eb_instruct"}
            and summary["environment"]["threads"] >= 1
        )
        assert (
            summary["environment"]["code"] == code_digest()
            and summary["environment"]["device"] == "cpu"
        )
        assert summary["environment"]["hardware"].startswith(platform.machine())
        assert set(summary["seconds"]) == {"precompute", "inject", "probes", "retention", "total"}
        assert summary["peak_memory_bytes"] > 2**20 and summary["environment"]["packages"]["torch"]
        assert set(summary["retention"]) == {"eb_grammar", "eb_instruct"}
        for score in summary["retention"].values():
            assert score["n"] == 2 and score["delta"] == pytest.approx(
                score["mean"] - score["base"]
            )
    assert base["metrics"]["specificity"]["generation"]["mean"] == 1.0
    assert all(
        score["delta"] == 0 and score["ratio"] in (1.0, None)
        for score in base["retention"].values()
    )
    assert (
        sft["edit"]["changed_weights"] > 0
        and sft["options"]["epochs"] == 2
        and base["edit"]["changed_weights"] == 0
    )

    probes = read_table(tmp_path / "run", sft["key"], "probes")
    assert len(probes) == 3 * 4 and set(probes["axis"]) == {
        "rewrite",
        "paraphrase",
        "neighborhood",
        "distracted",
    }
    mean = probes[probes["axis"] == "rewrite"]["generation"].mean()
    assert sft["metrics"]["efficacy"]["generation"]["mean"] == pytest.approx(mean)
    samples = read_table(tmp_path / "run", sft["key"], "retention")
    assert len(samples) == 4 and {
        "task",
        "member",
        "doc_id",
        "score",
        "base_score",
        "prompt",
        "output",
    } <= set(samples.columns)
    for column in ("base_generation", "base_argmax", "base_likelihood"):
        own = read_table(tmp_path / "run", base["key"], "probes")[column.removeprefix("base_")]
        assert probes[column].equals(own), column
    assert (
        samples["base_output"] == read_table(tmp_path / "run", base["key"], "retention")["output"]
    ).all()
    config_there, summaries = load_run(tmp_path / "run")
    assert config_there["n"] == 3 and [s["method"] for s in summaries] == ["base", "sft"]


def test_base_is_always_there_with_specificity_one(tmp_path, model_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_facts(tmp_path / "facts.jsonl")
    said = editbench(
        "compare",
        "--model",
        model_folder,
        "--corpus",
        "local",
        "--data",
        "facts.jsonl",
        "-n",
        3,
        "--tasks",
        "none",
        "--methods",
        "rome",
        "--json",
        "--output",
        "run",
    )
    assert set(said.rows) == {"base", "ice", "rome"}
    base = said.rows["base"]
    assert (
        base["specificity"]["mean"] == 1.0
        and base["specificity"]["n"] == 3
        and base["retention"] == {}
    )


def test_methods_see_facts_and_no_probe(config, model, tmp_path, plug):
    plug(spy=Spy)
    run(replace(config, methods=("base", "spy"), options={}), model, tmp_path / "run")
    ((given, facts),) = Spy.seen
    assert given is model and len(facts) == 3 and all(type(one) is Fact for one in facts)
    seen, todo = set(), list(facts)
    while todo:  # all objects that can be reached from the facts
        one = todo.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        assert not isinstance(one, Probe | Case), one
        todo += gc.get_referents(one)


def test_a_method_that_changes_nothing_is_called_that(config, model, tmp_path, plug):
    plug(spy=Spy)
    found, _ = run(replace(config, methods=("base", "spy"), options={}), model, tmp_path / "run")
    assert (
        found["spy"]["status"] == "no_effect" and found["spy"]["note"] == "the edit changes nothing"
    )
    assert found["spy"]["metrics"] == found["base"]["metrics"] and found["base"]["status"] == "done"


def test_records_of_an_edit_are_kept(config, model, tmp_path):
    config = replace(
        config, methods=("base", "mixsd"), options={"mixsd": {"epochs": 1, "max_new_tokens": 4}}
    )
    found, _ = run(config, model, tmp_path / "run")
    assert found["mixsd"]["status"] in ("done", "no_effect"), found["mixsd"].get("traceback")
    assert len(read_table(tmp_path / "run", found["mixsd"]["key"], "edit_records")) >= 3
    work, told = found["mixsd"]["work"]["inject"], found["mixsd"]["edit"]
    assert (
        work["decoded_tokens"] == told["decoded_tokens"] > 0
        and work["trained_tokens"] == told["trained_tokens"] > 0
    )


def test_scores_are_those_of_the_edited_model(config, model, tmp_path):
    """Both probes and retention tasks are asked while the edit is applied."""
    config = replace(
        config, tasks=("eb_completion",), limit=2, options={"sft": {"epochs": 8, "lr": 3e-3}}
    )
    found, _ = run(config, model, tmp_path / "run")
    base, sft = (
        [
            read_table(tmp_path / "run", found[name]["key"], table)
            for table in ("probes", "retention")
        ]
        for name in ("base", "sft")
    )
    rewrites = base[0]["axis"] == "rewrite"
    assert (sft[0]["answer_logprob"][rewrites] > base[0]["answer_logprob"][rewrites]).all()
    assert (sft[1]["output"] != base[1]["output"]).all() and (
        sft[1]["prompt"] == base[1]["prompt"]
    ).all()
    assert (sft[0]["base_text"] == base[0]["text"]).all() and (
        sft[1]["base_score"] == base[1]["score"]
    ).all()


# --- again ---------------------------------------------------------------------------------------


def numbers(summaries):
    """All that must not differ between two runs of one configuration."""
    return {
        name: [
            summary["key"],
            summary["status"],
            summary["metrics"],
            summary["retention"],
            summary["edit"].get("delta_norm"),
        ]
        for name, summary in summaries.items()
    }


def test_the_same_twice_gives_the_same_numbers(config, model, tmp_path, monkeypatch):
    config = replace(
        config,
        methods=("base", "ice", "sft", "mixsd", "rome"),
        tasks=("eb_completion",),
        limit=2,
        options={"mixsd": {"epochs": 1, "max_new_tokens": 4}, "rome": {"steps": 3}},
    )
    first, _ = run(config, model, tmp_path / "one")
    monkeypatch.setenv("EDITBENCH_CACHE", str(tmp_path / "other cache"))
    second, _ = run(config, model, tmp_path / "two")
    assert numbers(first) == numbers(second)
    for name in first:
        for table in ("probes", "retention"):
            one, two = (
                read_table(tmp_path / folder, first[name]["key"], table)
                for folder in ("one", "two")
            )
            assert one.equals(two), (name, table)


def test_tasks_that_a_context_leaves_as_they_are_keep_the_base_s_answers(config, model, tmp_path):
    found, _ = run(
        replace(config, methods=("base", "ice", "sft"), tasks=("eb_grammar",), limit=2),
        model,
        tmp_path / "run",
    )
    assert (
        found["sft"]["work"]["retention"]["passes"] > 0 and "retention" not in found["ice"]["work"]
    )
    assert found["ice"]["work"]["probes"]["passes"] > 0
    base, ice = (
        read_table(tmp_path / "run", found[name]["key"], "retention") for name in ("base", "ice")
    )
    assert base.equals(ice) and found["ice"]["retention"]["eb_grammar"]["n"] == 2


def test_base_scores_are_computed_once_for_all_runs(config, model, tmp_path):
    config = replace(config, tasks=("eb_grammar",), limit=2)
    run(config, model, tmp_path / "one")
    files = sorted((cache_dir() / "base").iterdir())
    assert len(files) == 2 and all(path.suffix == ".json" for path in files), (
        "one for the probes, one a task"
    )
    stamps = [path.stat().st_mtime_ns for path in files]

    # A mark in the cached rows shows that the second run takes the base's answers from them.
    for path in files:
        entry = json.loads(path.read_text())
        for row in entry["rows"]:
            row["text" if "text" in row else "output"] = "from the cache"
        path.write_text(json.dumps({**entry, "sha256": digest(entry["rows"])}))
        os.utime(path, ns=(1, 1))
    found, _ = run(replace(config, options={"sft": {"epochs": 3}}), model, tmp_path / "two")
    assert (
        sorted((cache_dir() / "base").iterdir()) == files
        and [p.stat().st_mtime_ns for p in files] == [1, 1] != stamps
    )
    assert set(read_table(tmp_path / "two", found["base"]["key"], "probes")["text"]) == {
        "from the cache"
    }
    assert set(read_table(tmp_path / "two", found["base"]["key"], "retention")["output"]) == {
        "from the cache"
    }

    run(replace(config, n=2, limit=1), model, tmp_path / "three")
    assert len(list((cache_dir() / "base").iterdir())) == 4, (
        "other facts and another limit have scores of their own"
    )


def test_other_libraries_code_or_machines_ask_the_base_anew(config, model, tmp_path, monkeypatch):
    config = replace(config, methods=("base",), options={}, n=1)
    version, threads = importlib.metadata.version, torch.get_num_threads()

    def computed(name):
        before = set((cache_dir() / "base").glob("*"))
        run(config, model, tmp_path / name)
        return len(set((cache_dir() / "base").glob("*")) - before)

    assert computed("first") == 1 and computed("again") == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.metadata,
            "version",
            lambda name: "99.0" if name == "transformers" else version(name),
        )
        assert computed("upgraded") == 1
    with monkeypatch.context() as patch:
        patch.setattr(baseline, "code_digest", lambda: "0" * 16)
        assert computed("changed") == 1
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
        assert computed("elsewhere") == 1
    try:
        torch.set_num_threads(threads + 1)
        assert computed("threads") == 1
    finally:
        torch.set_num_threads(threads)
    assert computed("as before") == 0


def test_a_damaged_or_read_only_cache_costs_no_result(config, model, tmp_path, monkeypatch):
    first, _ = run(config, model, tmp_path / "one")
    for path in (cache_dir() / "base").iterdir():
        path.write_text('[{"case": "f')
    second, _ = run(config, model, tmp_path / "two")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDITBENCH_CACHE", str(tmp_path / "file" / "below"))
    third, _ = run(config, model, tmp_path / "three")
    assert numbers(first) == numbers(second) == numbers(third)


def test_a_changed_option_is_another_cell(config, model, tmp_path):
    first, _ = run(config, model, tmp_path / "one")
    second, _ = run(replace(config, options={"sft": {"epochs": 50}}), model, tmp_path / "two")
    assert (
        first["sft"]["key"] != second["sft"]["key"]
        and first["base"]["key"] == second["base"]["key"]
    )
    assert first["sft"]["edit"]["steps"] != second["sft"]["edit"]["steps"]


def cells(folder):
    return {
        path.parent.name: path.stat().st_mtime_ns for path in folder.glob("cells/*/summary.json")
    }


def test_finished_cells_are_kept(config, model, tmp_path):
    first, _ = run(config, model, tmp_path / "run")
    before = cells(tmp_path / "run")
    again, told = run(config, model, tmp_path / "run")
    assert (
        told == ["base kept", "sft kept"] and again == first and cells(tmp_path / "run") == before
    )


COMMAND = (
    "--methods",
    "rome,sft",
    "--option",
    "sft.epochs=200",
    "--option",
    "sft.lr=0.001",
    "--option",
    "rome.steps=5",
)


@pytest.fixture(scope="module")
def undisturbed():
    """Hold the rows of a run that was not killed; the first test that needs them adds them."""
    return []


@pytest.mark.parametrize("killed_after", ["base", "ice", "rome"])
def test_killed_in_the_middle_and_run_again(
    killed_after, tmp_path, model_folder, monkeypatch, undisturbed, server
):
    """The table equals that of an undisturbed run, and finished cells are not computed again."""
    monkeypatch.chdir(tmp_path)
    write_facts(tmp_path / "facts.jsonl")
    arguments = (
        "compare",
        "--model",
        model_folder,
        "--corpus",
        "local",
        "--data",
        "facts.jsonl",
        "-n",
        2,
        "--tasks",
        "none",
        *COMMAND,
        "--json",
    )
    process = server.start(*arguments, "--output", "killed", cwd=tmp_path)
    wait_for(f"killed/cells/{killed_after}-*/summary.json", tmp_path, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    before = cells(tmp_path / "killed")
    done = {key.rpartition("-")[0] for key in before}
    assert killed_after in done and "sft" not in done, "killed too late to be of use"

    again = editbench(*arguments, "--output", "killed")
    assert again.code == 0, again.err
    assert all(f"{name}: kept from an earlier run" in again.err for name in done)
    assert again.err.count("kept") == len(done) and "sft: done" in again.err
    after = cells(tmp_path / "killed")
    assert len(after) == 4 and {key: after[key] for key in before} == before
    assert not list((tmp_path / "killed").rglob(".tmp-*"))

    if not undisturbed:
        undisturbed += comparable(editbench(*arguments, "--output", "undisturbed"))
    assert comparable(again) == undisturbed


def comparable(said):
    timed = ("seconds", "precompute_seconds", "peak_memory_bytes")
    return [
        {k: v for k, v in row.items() if k not in timed} for row in json.loads(said.out)["rows"]
    ]


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_method_that_fails_costs_only_its_own_cell(
    tmp_path, model_folder, monkeypatch, plug, json_too
):
    plug(raises=Raises)
    monkeypatch.chdir(tmp_path)
    write_facts(tmp_path / "facts.jsonl")
    command = (
        "compare",
        "--model",
        model_folder,
        "--corpus",
        "local",
        "--data",
        "facts.jsonl",
        "-n",
        2,
        "--tasks",
        "none",
        "--methods",
        "raises,rome",
        "--output",
        "run",
        *json_too,
    )
    said = editbench(*command)
    assert (
        said.code == 1
        and "raises: FAILED" in said.err
        and "rome: done" in said.err
        and "Traceback" not in said.err
    )
    (path,) = (tmp_path / "run").glob("cells/raises-*/summary.json")
    record = json.loads(path.read_text())
    assert (
        record["status"] == "failed"
        and record["note"] == "ZeroDivisionError: the third layer is missing"
    )
    assert "in inject" in record["traceback"] and "ZeroDivisionError" in record["traceback"]
    where = f"raises failed; its traceback is in {path.relative_to(tmp_path)}"
    assert where in said.err and "rome failed" not in said.err
    if json_too:
        row = said.rows["raises"]
        assert (
            row["status"] == "failed" and row["efficacy"]["mean"] is None and row["retention"] == {}
        )
        assert said.rows["rome"]["status"] == "done"
    else:
        assert "raises (failed)" in said.out and "the third layer is missing" in said.err
        assert "the third layer is missing" in (tmp_path / "run" / "README.md").read_text()

    shown = editbench("show", "run", *json_too)
    assert shown.code == 0 and shown.out == said.out

    stamps = cells(tmp_path / "run")
    monkeypatch.setattr(Raises, "fixed", [True])
    again = editbench(*command)
    assert again.code == 0 and "rome: kept" in again.err and "raises: done" in again.err
    changed = {key for key, stamp in cells(tmp_path / "run").items() if stamps[key] != stamp}
    assert {key.split("-")[0] for key in changed} == {"raises"}, (
        "a failed cell is computed again, in place"
    )


def test_an_error_for_the_person_is_the_method_s_failure_too(config, model, tmp_path, plug):
    plug(needs=Needs)
    config = replace(config, methods=("base", "needs", "sft"))
    found, told = run(config, model, tmp_path / "run")
    assert told == [
        "base start",
        "base done",
        "needs start",
        "needs failed",
        "sft start",
        "sft done",
    ]
    assert found["needs"]["note"] == "MethodError: This model has no third layer."


@pytest.mark.parametrize("silently", [False, True])
def test_a_method_that_spoils_the_model_costs_only_its_own_cell(
    config, model, tmp_path, plug, model_folder, silently
):
    plug(spoils=Spoils)
    alone, _ = run(config, model, tmp_path / "alone")
    config = replace(
        config,
        methods=("base", "spoils", "sft"),
        options={**config.options, "spoils": {"silently": silently}},
    )
    mine = load_model(str(model_folder), precision="float32")
    found, told = run(config, mine, tmp_path / "run")
    assert told[2:] == ["spoils start", "spoils failed", "sft start", "sft done"]
    assert (
        numbers({"sft": found["sft"]}) == numbers({"sft": alone["sft"]})
        and mine.fingerprint() == model.fingerprint()
    )


def test_a_spoiled_model_that_cannot_be_read_again_ends_the_run(
    config, tmp_path, plug, model_folder
):
    plug(spoils=Spoils)
    mine, other = load_model(str(model_folder), precision="float32"), tmp_path / "other"
    for why in ("they cannot be read again .*no model folder", "now has other weights"):
        spoiling = replace(config, methods=("base", "spoils", "sft"), model=str(other))
        with pytest.raises(
            MethodError,
            match=f"spoils failed and left the model's weights changed.*{why}.*Run again without",
        ):
            run(spoiling, mine, tmp_path / why[:4])
        _, summaries = load_run(tmp_path / why[:4])
        assert {s["method"]: s["status"] for s in summaries} == {"base": "done", "spoils": "failed"}
        mine.model.save_pretrained(other)  # the weights on disk are now the spoiled ones
        mine.tokenizer.save_pretrained(other)
        mine = load_model(str(model_folder), precision="float32")


@pytest.mark.parametrize("where", ["records", "diagnostics"])
def test_a_method_whose_records_no_file_can_hold(config, model, tmp_path, plug, where):
    plug(babbles=Babbles)
    config = replace(
        config, methods=("base", "babbles", "sft"), options={"babbles": {"where": where}}
    )
    found, told = run(config, model, tmp_path / "run")
    assert told[-4:] == ["babbles start", "babbles failed", "sft start", "sft done"]
    assert (
        found["babbles"]["note"].startswith(("ArrowInvalid", "TypeError"))
        and found["babbles"]["metrics"] == {}
    )


def test_an_error_of_the_base_s_scores_is_no_method_s_failure(config, model, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"nothing": "useful"}\n')
    config = replace(
        config, tasks=("gsm8k",), task_data={"gsm8k": str(tmp_path / "bad.jsonl")}, limit=1
    )
    with pytest.raises(DataError, match="bad.jsonl"):
        run(config, model, tmp_path / "run")
    assert not cells(tmp_path / "run")


def test_no_empty_run_clears_only_what_is_new(tmp_path):
    folder = tmp_path / "deep" / "run"

    def fail(kind, before=lambda store: None):
        guard = no_empty_run(folder)
        with RunStore(folder).open({"methods": []}) as store, guard:
            before(store)
            raise kind("bad")

    for kind in (EditbenchError, OSError):
        with pytest.raises(kind):
            fail(kind)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt)
    assert (folder / "run.json").exists(), "Ctrl-C is no mistake"
    with pytest.raises(EditbenchError):
        fail(EditbenchError)
    assert (folder / "run.json").exists(), "it was there before"


def test_progress_is_closed_when_retention_fails(config, model, tmp_path, monkeypatch):
    """A progress bar that is left open hides the cursor of the terminal."""
    open_now, seen = [], []

    class Watch:
        def task(self, name, total, unit):
            watch = self

            class Step:
                def __enter__(self):
                    open_now.append(name)
                    return watch

                def __exit__(self, *_):
                    open_now.remove(name)

            return Step()

        def advance(self, n=1):
            seen.append(n)
            if any("retention" in name for name in open_now):
                raise MethodError("stop")

    with progress.reporting(Watch()), pytest.raises(MethodError):
        run(replace(config, tasks=("eb_grammar",), limit=2), model, tmp_path / "run")
    assert seen and not open_now


def test_progress_calls_a_task_file_by_its_name(config, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text('{"land": "France", "answer": 0}\n')
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        'test_split: test\noutput_type: multiple_choice\ndoc_to_text: "{{land}}:"\n'
        'doc_to_choice: ["Paris", "Rome"]\n'
        "doc_to_target: answer\nmetric_list: [{metric: acc}]\n"
    )
    named = []

    class Watch:
        def task(self, name, total, unit):
            named.append(name)
            return nullcontext(self)

        def advance(self, n=1):
            pass

    with progress.reporting(Watch()):
        run(
            replace(config, methods=("base",), options={}, tasks=(str(tmp_path / "mine.yaml"),)),
            model,
            tmp_path / "run",
        )
    assert "retention: mine.yaml" in named


def test_another_chat_template_is_another_base(config, model, model_folder, tmp_path):
    """Equal weights answer differently under another template.

    Neither the cache nor the folder may mix their answers.
    """
    run(replace(config, methods=("base",), options={}), model, tmp_path / "run")
    before = len(list((cache_dir() / "base").iterdir()))
    tokenizer = load_model(str(model_folder)).tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    other = LanguageModel(model.model, tokenizer, precision="float32")
    with pytest.raises(EditbenchError, match="other chat template under the same names"):
        run(replace(config, methods=("base",), options={}), other, tmp_path / "run")
    found, _ = run(replace(config, methods=("base",), options={}), other, tmp_path / "elsewhere")
    assert len(found["base"]["model"]["chat_template"]) == 16
    assert len(list((cache_dir() / "base").iterdir())) == 2 * before


def test_the_mode_of_a_chat_template_is_recorded(config, model, tmp_path):
    asked = replace(config, methods=("base",), options={})
    tokenizer = hostile_tokenizer("takes enable_thinking")
    other = LanguageModel(model.model, tokenizer, precision="float32")
    found, _ = run(asked, other, tmp_path / "thinking")
    assert found["base"]["model"]["chat"] == {"thinking": "off"}
    found, _ = run(asked, model, tmp_path / "plain")
    assert "chat" not in found["base"]["model"]


@pytest.mark.parametrize(
    "name", ["content in parts", "a system turn is required", "one question only"]
)
def test_a_template_that_needs_care_fails_no_cell(name, config, model, tmp_path, monkeypatch):
    monkeypatch.setattr(conversations, "TALK_SHARE", 1)
    other = LanguageModel(model.model, hostile_tokenizer(name), precision="float32")
    found, _ = run(config, other, tmp_path / "run")
    assert [cell["status"] for cell in found.values()] == ["done", "done"]


def test_the_digest_of_the_code_is_that_of_what_can_move_a_number(tmp_path, monkeypatch):
    code_digest.cache_clear()
    whole = code_digest()
    read = Path.read_bytes
    for changed, moved in (
        ("probes.py", True),
        ("rome.py", True),
        ("runner.py", True),
        ("attention.py", True),  # two folders down
        ("markdown.py", False),
    ):
        code_digest.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(
                Path, "read_bytes", lambda p, name=changed: read(p) + b"#" * (p.name == name)
            )
            assert (code_digest() != whole) == moved, changed
    code_digest.cache_clear()


def test_a_probe_that_needs_another_fact_is_not_asked_of_a_model_that_knows_one():
    config = RunConfig(("base",), "tiny", "conflicts", n=20)
    asked, alone = (
        make_plan(replace(config, regime=regime)).cases for regime in ("batch", "single")
    )
    assert any(probe.needs for case in asked for probe in case.probes)
    assert not any(probe.needs for case in alone for probe in case.probes)
    assert [case.fact for case in alone] == [case.fact for case in asked]


def test_a_point_of_the_curve_asks_no_probe_of_a_fact_to_come(model):
    probe = Probe("portability", "What follows?", ("Oslo",), needs=("f1",))
    cases = [
        Case.build(Fact(f"f{i}", f"Prompt {i} is", "Rome"), [probe] * (i == 0)) for i in range(2)
    ]
    rows = ask(model, cases)
    early, late = curve_scores([regimes.Point(1, rows, []), regimes.Point(2, rows, [])], cases, [])
    assert (
        "portability" not in early["metrics"]
        and late["metrics"]["portability"]["generation"]["n"] == 1
    )
    assert early["metrics"]["efficacy"]["generation"]["n"] == 1


def test_repeated_injections_are_for_the_time_alone(config, model, tmp_path):
    once, _ = run(config, model, tmp_path / "once")
    found, _ = run(replace(config, repeats=2), model, tmp_path / "again")
    seconds = found["sft"]["inject_seconds"]
    assert len(seconds) == 3 and found["sft"]["seconds"]["inject"] == sorted(seconds)[1]
    assert found["sft"]["seconds"]["inject again"] == pytest.approx(sum(seconds[1:]), rel=1e-6)
    assert (
        found["sft"]["key"] == once["sft"]["key"]
        and found["sft"]["metrics"] == once["sft"]["metrics"]
    )
    assert (
        found["sft"]["work"]["inject"] == once["sft"]["work"]["inject"]
        and "inject_seconds" not in once["sft"]
    )
    shown = details.costs(list(found.values()), {})
    assert (
        shown[1]["injections"].startswith("median of 3: ")
        and "injections" not in details.costs(list(once.values()), {})[1]
    )
    for wrong, said in (
        ({"repeats": -1}, "--repeats is -1; it must be at least 0"),
        ({"repeats": 1, "regime": "sequential:1"}, "--regime batch"),
    ):
        with pytest.raises(OptionError, match=said):
            replace(config, **wrong)


def test_a_run_from_before_weights_had_a_type_goes_on_in_float32(config, model_folder, tmp_path):
    """It held a bfloat16 checkpoint in float32, and its record names no type."""
    folder = tmp_path / "bfloat16"
    held = load_model(str(model_folder), dtype="bfloat16")
    held.model.save_pretrained(folder)
    held.tokenizer.save_pretrained(folder)
    alone = {"methods": ("base",), "options": {}}
    plan = make_plan(replace(config, model=str(folder), dtype="float32", **alone))
    assert "dtype" not in run_identity(plan.config)
    store = RunStore(tmp_path / "run")

    def states(plan, **how):
        seen = []
        with store.open(run_identity(plan.config)):
            runner.run(
                plan, load_model(str(folder), **how), store, lambda _, state: seen.append(state)
            )
        return seen

    assert states(plan, dtype="float32") == ["start", "done"]
    # the same command, without a type, now holds the weights as they are stored
    with pytest.raises(
        EditbenchError,
        match="held in float32, and those here in bfloat16: the "
        "same command with --dtype float32 goes on there",
    ):
        states(replace(plan, config=replace(plan.config, dtype=None)))
    assert states(plan, dtype="float32") == ["kept"]


def test_tasks_in_threads_are_told_of_to_the_same_reporter():
    said = []

    class Reporter(progress.Silent):
        def say(self, sentence):
            said.append(sentence)

    with progress.reporting(Reporter()):
        tasks = [lambda i=i: progress.say(str(i)) for i in range(4)]
        assert len(list(runner.side_by_side(2, tasks))) == 4
    assert sorted(said) == ["0", "1", "2", "3"]


@dataclass(frozen=True)
class NotFinite(Method):
    """Divides by nothing, as a method does that normalises a gradient of zero."""

    name: ClassVar[str] = "not-finite"
    kind: ClassVar[str] = "weight editor"

    def inject(self, model, facts):
        if not facts:
            return self.edit(model, facts)
        name = model.layout.weight_name(1)
        zero = torch.zeros_like(model.weight(name))
        return self.edit(model, facts, {name: zero / zero.norm()})


def test_an_edit_that_is_not_finite_is_no_row(config, model, plug, tmp_path):
    plug(**{"not-finite": NotFinite})
    config = replace(config, methods=("base", "not-finite"), options={})
    done, _ = run(config, model, tmp_path / "run")
    row = done["not-finite"]
    assert row["status"] == "failed" and row["metrics"] == {}
    flaw = f"'{model.layout.weight_name(1)}' has values that are infinite or NaN"
    assert row["note"] == f"MethodError: The edit of not-finite cannot be applied: {flaw}."


def test_the_battery_says_that_an_edit_is_not_finite(model, tmp_path):
    with pytest.raises(MethodError, match="'model.layers.1.*' has values that are infinite or NaN"):
        check_method(NotFinite, model, FACTS, tmp_path)
