"""Equal tuning gives the same trials for the same seed, also after an interruption.

``compare`` uses the chosen options, and refuses those that do not fit its run.
"""

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from tiny import editbench, fact, write_facts, write_model

from editbench import registry
from editbench.errors import OptionError, RecordError
from editbench.methods.sft import Sft
from editbench.models import load_model
from editbench.plugin import Choice, LogUniform, Method, Space, Uniform
from editbench.records.reading import load_run
from editbench.records.store import RunStore
from editbench.run.config import RunConfig
from editbench.run.plan import make_plan
from editbench.run.tune import Search, Tuned, chosen, judge, tune
from editbench.run.worker import Worker
from editbench.types import digest


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(str(model_folder), precision="float32")


@dataclass(frozen=True)
class Nudge(Method):
    """Applies the change that sft learns, scaled by ``times`` and ``size``, and keeps the sizes.

    Too small a share teaches nothing, and too large a one spoils everything.
    """

    name: ClassVar[str] = "nudge"
    space: ClassVar[Space] = {
        "size": LogUniform(0.01, 10.0),
        "sign": Choice((1, -1)),
        "times": LogUniform(1, 4),
    }
    recipes: ClassVar[dict[str, dict[str, object]]] = {
        "strong": {"size": 0.5, "times": 3},
        "exact": {"share": 0.7},
    }
    alternatives: ClassVar[dict[str, str]] = {"share": "size"}
    learned: ClassVar[dict[str, Any]] = {}
    seen: ClassVar[list[float]] = []
    stop_at: ClassVar[list[int]] = []
    fail_above: ClassVar[list[float]] = []

    size: float | None = None
    sign: int = 1
    times: int = 2
    share: float | None = None

    def inject(self, model, facts):
        if self.stop_at and len(self.seen) == self.stop_at[0]:
            raise KeyboardInterrupt
        size = self.share or self.size or 0.1
        self.seen.append(size)
        if self.fail_above and size > self.fail_above[0]:
            raise ValueError("too large")
        # Trained once for each model and set of facts; a trial only scales the change.
        who = digest([model.fingerprint(), [fact.id for fact in facts]])
        if who not in self.learned:
            self.learned[who] = Sft(epochs=60, lr=3e-3).inject(model, facts).changes
        share = self.sign * self.times * size
        return self.edit(
            model, facts, {name: share * change for name, change in self.learned[who].items()}
        )


class Twin(Nudge):
    name: ClassVar[str] = "twin"
    space: ClassVar[Space] = {"size": LogUniform(0.01, 10.0)}


@pytest.fixture
def nudge(monkeypatch):
    import editbench.methods

    for switch in ("seen", "stop_at", "fail_above"):
        monkeypatch.setattr(Nudge, switch, [])
    for name, cls in (("nudge", Nudge), ("twin", Twin)):
        monkeypatch.setitem(editbench.methods.BUILTINS, name, f"{__name__}:{cls.__name__}")
    return Nudge


@pytest.fixture
def config(tmp_path, model_folder):
    return RunConfig(
        ("base",),
        str(model_folder),
        "local",
        str(write_facts(tmp_path / "facts.jsonl")),
        part="dev",
        n=2,
        tasks=("eb_grammar",),
        limit=24,
        precision="float32",
    )


def run(search, config, model, folder):
    """Run the search; return its record, and the reported states of the cells."""
    names = tuple(name for method in search.methods for name in search.trials(method))
    config, told = replace(config, methods=("base", *names)), []
    with RunStore(folder).open(search.identity(config)) as store:
        found = tune(
            search,
            make_plan(config),
            Worker(model),
            store,
            lambda name, state: told.append(f"{name} {state}"),
        )
    return found, told


def options_of(summary):
    return {key: summary["options"][key] for key in ("size", "sign", "times")}


def untimed(found):
    return {
        method: [{k: v for k, v in trial.items() if k != "seconds"} for trial in tried["trials"]]
        for method, tried in found["methods"].items()
    }


# --- the space and the objective -----------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("methods"))
def test_every_declared_space_is_one_of_options_that_the_method_takes(name):
    method = registry.get("methods", name)
    assert bool(method.space) == (method.kind != "baseline")
    for key, values in method.space.items():
        ends = values.values if isinstance(values, Choice) else (values.low, values.high)
        for value in ends:
            assert (
                getattr(method.from_options(name, {key: value}), key) == value and value in values
            )
        default = getattr(method(), key)
        assert default is None or default in values, (
            f"{name}.{key}: the default {default} is not in {values}"
        )
        assert not isinstance(values, LogUniform) or values.low > 0


def test_what_lies_in_a_space():
    assert (
        0.5 in Uniform(0, 1)
        and 1 in Uniform(0, 1)
        and 1.1 not in Uniform(0, 1)
        and None not in LogUniform(1, 2)
    )
    assert 0.3 in Choice((0.0, 0.3)) and None not in Choice((0.0, 0.3))


def summary(efficacy=None, generalization=None, ratios=(), status="done"):
    axes = {"efficacy": efficacy, "generalization": generalization}
    return {
        "status": status,
        "note": "",
        "seconds": {"inject": 2.0},
        "metrics": {
            axis: {"generation": {"mean": mean}, "argmax": {"mean": 0.9}}
            for axis, mean in axes.items()
        },
        "retention": {f"task {i}": {"ratio": ratio} for i, ratio in enumerate(ratios)},
    }


def test_the_objective_by_hand():
    kept = judge(summary(1.0, 0.5, (1.0, 0.9)), 0.95)
    assert (
        kept["recall"] == 0.75
        and kept["retention"] == pytest.approx(0.95)
        and kept["seconds"] == 2.0
    )
    assert kept["feasible"] and kept["value"] == 0.75, "0.95 is enough"
    lost = judge(summary(1.0, 1.0, (0.9, 0.9)), 0.95)
    assert not lost["feasible"] and lost["recall"] == 1.0 and lost["value"] == pytest.approx(-0.05)
    assert judge(summary(1.0, None, (None, 1.0)), 0.95)["value"] == 1.0, (
        "what is not measured does not count"
    )
    failed = judge({**summary(status="failed"), "metrics": {}, "retention": {}}, 1.0)
    assert failed["value"] == -1 and failed["recall"] is None and not failed["feasible"]


def test_a_trial_that_keeps_nothing_is_not_a_failed_one():
    """With a minimum of 1 both have the value -1."""
    failed = judge({**summary(status="failed"), "metrics": {}, "retention": {}}, 1.0)
    empty = judge(summary(0.5, 0.5, (0.0,)), 1.0)
    assert failed["value"] == empty["value"] == -1
    assert chosen([failed, empty]) is empty and chosen([empty, failed]) is empty
    assert chosen([failed, failed]) is None and not empty["feasible"]


def test_the_order_of_trials():
    best_first = [
        summary(0.8, 0.6, (1.2,)),
        summary(0.7, 0.5, (0.95,)),
        summary(0.0, 0.0, (1.0,)),
        summary(1.0, 1.0, (0.94,)),
        summary(1.0, 1.0, (0.5,)),
        summary(1.0, 1.0, (0.0,)),
        summary(status="failed"),
    ]
    values = [judge(one, 0.95)["value"] for one in best_first]
    assert values == sorted(values, reverse=True) and len(set(values)) == len(values)


# --- the search ----------------------------------------------------------------------------------


def test_equally_many_trials_that_are_the_same_for_the_same_seed(config, model, tmp_path, nudge):
    search = Search(("nudge", "twin"), 7, 0.9)
    found, told = run(search, config, model, tmp_path / "one")
    again, _ = run(search, config, model, tmp_path / "two")
    assert untimed(found) == untimed(again) and found["budget"] == 7 and found["retention"] == 0.9
    assert [len(tried["trials"]) for tried in found["methods"].values()] == [7, 7]
    assert (
        found["facts"] == [case.fact.id for case in make_plan(config).cases]
        and found["corpus"]["part"] == "dev"
    )
    trials = found["methods"]["nudge"]["trials"]
    assert trials[0]["options"] == {"size": None, "sign": 1, "times": 2}, "first the defaults"
    for trial in trials[1:]:
        size, sign, times = trial["options"].values()
        assert (
            0.01 <= size <= 10
            and float(f"{size:.3g}") == size
            and sign in (1, -1)
            and times in (1, 2, 3, 4)
        )
    assert len({str(trial["options"]) for trial in trials}) == 7
    chosen = found["methods"]["nudge"]["chosen"]
    assert chosen["value"] == max(trial["value"] for trial in trials), (
        "the best, and the first of equals"
    )
    assert chosen == next(trial for trial in trials if trial["value"] == chosen["value"])
    assert chosen["recall"] > trials[0]["recall"], (
        "a tenth of what sft learned says nothing, the whole of it does"
    )
    other, _ = run(Search(("nudge",), 2, 0.9), replace(config, seed=1), model, tmp_path / "three")
    assert other["methods"]["nudge"]["trials"][1]["options"] != trials[1]["options"]

    stored, summaries = load_run(tmp_path / "one")
    assert (
        stored["tune"]["budget"] == 7
        and "LogUniform(low=0.01, high=10.0)" in stored["tune"]["spaces"]["nudge"]["size"]
    )
    assert [s["method"] for s in summaries] == [
        "base",
        *search.trials("nudge"),
        *search.trials("twin"),
    ]
    assert [s["key"] for s in summaries[1:8]] == [trial["key"] for trial in trials]
    assert not any(s["tuned"] for s in summaries) and told[:2] == ["base start", "base done"]


def test_all_trials_share_the_options_that_are_given(config, model, tmp_path, nudge):
    search = Search(("nudge",), 2, 0.9, {"nudge": {"recipe": "strong", "sign": "-1"}})
    found, _ = run(search, config, model, tmp_path / "run")
    tried = found["methods"]["nudge"]
    first, second = tried["trials"]
    assert first["options"] == {"size": 0.5, "times": 3}, "the recipe, and sign is not searched"
    _, (_, one, two) = load_run(tmp_path / "run")
    assert options_of(one) == {"size": 0.5, "sign": -1, "times": 3}
    assert options_of(two) == {**second["options"], "sign": -1}
    assert "recipe" not in one and "options" in search.identity(config)["tune"]
    strong = replace(search, options={"nudge": {"recipe": "strong"}})
    chosen = run(strong, config, model, tmp_path / "two")[0]["methods"]["nudge"]["chosen"]
    options, _ = Tuned.read(tmp_path / "two").options(("nudge",), {})
    assert options["nudge"] == {"recipe": "strong", **chosen["options"]}
    assert load_run(tmp_path / "two")[1][1]["recipe"] == "strong", "exactly the recipe"
    exact = replace(search, options={"nudge": {"recipe": "exact"}})
    first, second = run(exact, config, model, tmp_path / "three")[0]["methods"]["nudge"]["trials"]
    assert first["options"] == {"sign": 1, "times": 2} and "size" in second["options"]
    shares = [s["options"]["share"] for s in load_run(tmp_path / "three")[1][1:]]
    assert shares == [0.7, None], "where size is searched, the share of the recipe gives way"
    assert "options" not in Search(("nudge",), 2, 0.9).identity(config)["tune"], "as before"


def test_an_interrupted_search_goes_on_where_it_was(config, model, tmp_path, nudge, monkeypatch):
    search = Search(("nudge",), 8, 0.9)
    monkeypatch.setattr(nudge, "fail_above", [3.0])
    whole, _ = run(search, config, model, tmp_path / "whole")
    sizes = list(nudge.seen)
    assert len(sizes) == 8 and max(sizes) > 3, "one fails"

    monkeypatch.setattr(nudge, "seen", [])
    monkeypatch.setattr(nudge, "stop_at", [6])
    with pytest.raises(KeyboardInterrupt):
        run(search, config, model, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "tuned.json").exists() and nudge.seen == sizes[:6]
    with pytest.raises(
        RecordError, match="has no tuned.json. Run its 'editbench tune' command to the end"
    ):
        Tuned.read(tmp_path / "stopped")
    monkeypatch.setattr(nudge, "stop_at", [])
    resumed, told = run(search, config, model, tmp_path / "stopped")
    assert untimed(resumed) == untimed(whole) and nudge.seen == sizes, (
        "nothing is tried twice, not even what failed"
    )
    assert told[1:7] == [f"nudge@trial{i} kept" for i in range(6)] and told[7:9] == [
        "nudge@trial6 start",
        told[8],
    ]

    digests = [json.loads((tmp_path / "stopped" / "tuned.json").read_text())["digest"]]
    run(search, config, model, tmp_path / "stopped")
    digests.append(Tuned.read(tmp_path / "stopped").digest)
    assert nudge.seen == sizes and digests[0] == digests[1], "again, it is the same file"
    with pytest.raises(RecordError, match="tune.retention is 0.9 there, 0.8 now"):
        run(replace(search, retention=0.8), config, model, tmp_path / "stopped")


def test_a_trial_that_fails_is_the_worst_and_kept(config, model, tmp_path, nudge, monkeypatch):
    monkeypatch.setattr(nudge, "fail_above", [0.5])
    found, _ = run(Search(("nudge",), 6, 0.9), config, model, tmp_path / "run")
    trials = found["methods"]["nudge"]["trials"]
    failed = [trial for trial in trials if trial["status"] == "failed"]
    assert (
        failed
        and len(trials) == 6
        and all(trial["value"] == -1 and not trial["feasible"] for trial in failed)
    )
    assert (
        failed[0]["note"] == "ValueError: too large"
        and found["methods"]["nudge"]["chosen"] not in failed
    )
    monkeypatch.setattr(nudge, "fail_above", [0.0])
    found, _ = run(Search(("nudge",), 2, 0.9), config, model, tmp_path / "none")
    assert found["methods"]["nudge"]["chosen"] is None


def test_without_retention_there_is_nothing_to_hold(config, model, tmp_path, nudge):
    with pytest.raises(OptionError, match="scores 0 on every retention task .asked: none"):
        run(Search(("nudge",), 2, 0.9), replace(config, tasks=()), model, tmp_path / "run")


def test_targets_that_no_free_answer_repeats_give_nothing_to_tune_for(
    config, model, tmp_path, nudge
):
    path = tmp_path / "bio.json"
    record = {"labels": "She was born.", "locality": {}}
    path.write_text(
        json.dumps([{**record, "text": f"About Ann {i}.", "concept": f"Ann {i}"} for i in range(9)])
    )
    texts = replace(config, corpus="wikibio", data=str(path))
    with pytest.raises(OptionError, match="All targets of corpus wikibio are long texts"):
        run(Search(("nudge",), 2, 0.9), texts, model, tmp_path / "run")


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, model_folder, nudge):
    """Run the smallest ``editbench tune`` or ``compare``.

    Further arguments follow the usual ones and override them.
    """
    monkeypatch.chdir(tmp_path)
    write_facts(tmp_path / "facts.jsonl")

    def run(name, *arguments):
        start = (
            name,
            "--methods",
            "nudge",
            "--model",
            model_folder,
            "--corpus",
            "local",
            "--data",
            "facts.jsonl",
            "-n",
            2,
        )
        more = ("--budget", 3) if name == "tune" else ()
        return editbench(
            *start, "--tasks", "eb_grammar", "--limit", 6, "--output", name, *more, *arguments
        )

    return run


def test_what_was_chosen_is_what_compare_runs(command, tmp_path):
    said = command("tune", "--retention", 0.5)
    assert said.code == 0, said.err
    assert (
        "3 trials each, the first with the defaults, on 2 dev facts; "
        "keeps enough: a retention of at least 0.5" in said.out
    )
    assert said.out.count("nudge ") == 3 and "size=auto, sign=1, times=2" in said.out
    assert (
        "editbench compare --methods nudge --tuned tune --corpus local --data facts.jsonl"
        " --tasks eb_grammar --limit 6 --model" in said.err
    )
    as_json = command("tune", "--retention", 0.5, "--json")
    found = json.loads(as_json.out)
    assert (
        as_json.err.count("kept from an earlier run") == 5
        and found["run"] == "tune"
        and found["budget"] == 3
    )
    assert "keeps enough: a" not in as_json.out and editbench("show", "tune").code == 0

    chosen = found["methods"]["nudge"]["chosen"]
    said = command(
        "compare",
        "--methods",
        "nudge,nudge@mine",
        "--tuned",
        "tune",
        "--json",
        "--option",
        "nudge@mine.size=0.2",
    )
    assert said.code == 0, said.err
    row = said.rows["nudge"]
    assert (
        row["tuned"]
        and {key: row["options"][key] for key in chosen["options"]} == chosen["options"]
    )
    assert (
        not said.rows["nudge@mine"]["tuned"] and said.rows["nudge@mine"]["options"]["size"] == 0.2
    )
    _, summaries = load_run(tmp_path / "compare")
    (tuned,) = (s for s in summaries if s["tuned"])
    assert tuned["method"] == "nudge" and tuned["tuning"] == {
        "budget": 3,
        "retention": 0.5,
        "seed": 0,
        "digest": Tuned.read(tmp_path / "tune").digest,
        "n": 2,
        "regime": "batch",
        "tasks": ["eb_grammar"],
        "trial": chosen["trial"],
        "feasible": chosen["feasible"],
    }
    assert not any("tuning" in s for s in summaries if not s["tuned"])
    other = command("compare", "--methods", "nudge", "--tuned", "tune", "--regime", "sequential:1")
    assert other.code == 2 and "tuned under regime batch, not sequential:1" in other.err
    board = editbench("leaderboard", "compare", "-o", "board.md")
    lines = [
        line
        for line in (tmp_path / "board.md").read_text().splitlines()
        if line.startswith("| [nudge")
    ]
    assert board.code == 0 and {
        line.startswith("| [nudge](") != (") † |" in line) for line in lines
    } == {True}


def test_two_searches_go_into_one_table(command, tmp_path):
    said = command("tune", "--methods", "sft", "--budget", 1, "--output", "second")
    assert command("tune").code == said.code == 0, said.err
    said = command(
        "compare", "--methods", "nudge,sft", "--tuned", "tune", "--tuned", "second", "--json"
    )
    assert said.code == 0 and [said.rows[name]["tuned"] for name in ("nudge", "sft")] == [
        True,
        True,
    ], said.err
    _, summaries = load_run(tmp_path / "compare")
    from_which = {s["method"]: s["tuning"]["digest"] for s in summaries if s["tuned"]}
    assert from_which == {
        "nudge": Tuned.read(tmp_path / "tune").digest,
        "sft": Tuned.read(tmp_path / "second").digest,
    }
    assert editbench("leaderboard", "compare", "-o", "board.md").code == 0
    page = (tmp_path / "board.md").read_text()
    assert (
        "The searches were not equal: trials " in page and "3 (nudge)" in page and "1 (sft)" in page
    )


def test_where_no_trial_taught_anything_the_defaults_stand(command, tmp_path):
    said = command("tune", "--option", "nudge.share=1e-9", "--retention", 0.5)
    assert said.code == 1 and "nudge: no trial taught anything; the defaults stand." in said.err
    assert "--tuned" not in said.err
    record = Tuned.read(tmp_path / "tune").record["methods"]["nudge"]
    assert record["chosen"] is None and {trial["recall"] for trial in record["trials"]} == {0.0}
    assert editbench("verify", "tune").code == 0
    said = command("compare", "--methods", "nudge", "--tuned", "tune")
    assert said.code == 2 and "tune has chosen options for no method" in said.err


def test_trials_that_fail_are_said(command, nudge, monkeypatch):
    monkeypatch.setattr(nudge, "fail_above", [0.0])
    said = command("tune")
    assert said.code == 1 and "nudge@trial2: failed: ValueError: too large" in said.err
    assert (
        "nudge: every trial failed, so nothing is chosen." in said.err and "--tuned" not in said.err
    )
    said = command("compare", "--tuned", "tune")
    assert (
        said.code == 2 and "tune has chosen options for no method; compared are nudge" in said.err
    )


def test_what_keeps_too_little_is_marked(capsys, tmp_path):
    from editbench.cli.options import RunOptions
    from editbench.cli.tune import show_trials

    near, far = (
        {"trial": i, "options": {"lr": 0.1}, **judge(summary(1.0, 1.0, (ratio,)), 0.95)}
        for i, ratio in enumerate((0.9, 0.5))
    )
    tried = {"options": {"recipe": "keep"}, "trials": [near, far], "chosen": near}
    show_trials(
        {"budget": 2, "retention": 0.95, "corpus": {"n": 5}, "methods": {"sft": tried}},
        tmp_path,
        RunOptions(),
    )
    said = capsys.readouterr()
    assert (
        "sft: no trial keeps a retention of 0.95; the nearest one, with 0.90, is chosen."
        in said.err
    )
    assert "sft: all trials start from recipe=keep." in said.err
    marked = [line for line in said.out.splitlines() if "yes" in line]
    assert len(marked) == 1 and "0.90" in marked[0], "chosen, and not feasible"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--methods", "nudge,ice"], "ice declares nothing to tune"),
        (["--methods", "nudge@a"], "nudge@a is a variant. Tune the method: --methods nudge."),
        (["--methods", "nudge,nudge"], "Method 'nudge' is listed twice"),
        (["--methods", "nugde"], "Unknown method 'nugde'"),
        (["--budget", 0], "--budget is 0"),
        (["--budget", 10**9], "--budget is 1000000000; it must be at most 10,000"),
        (["--retention", 1.2], "--retention is 1.2"),
        (["--retention", "nan"], "--retention is nan"),
        (["--tasks", "none"], "no retention task is asked"),
        (["--regime", "single", "--tasks", "default"], "tune does not go with --regime single"),
        (["-n", 99], "-n 99 is more than"),
        (["--option", "nudge.recipe=weak"], "has no recipe 'weak'. Its recipes: strong, exact."),
        (["--option", "sft.lr=1"], "--option sft.… is for a method that is not tuned"),
        (
            ["--methods", "twin", "--option", "twin.size=1"],
            "--option sets all that tune searches for twin",
        ),
        (
            ["--methods", "twin", "--option", "twin.share=1"],  # size would do nothing
            "--option sets all that tune searches for twin",
        ),
    ],
)
def test_bad_arguments_of_tune(command, tmp_path, arguments, part):
    said = command("tune", *arguments)
    assert said.code == 2 and said.out == "" and part in said.err and "Traceback" not in said.err, (
        said
    )
    assert not (tmp_path / "tune").exists()


def test_a_tune_run_of_something_else_is_refused(command, tmp_path, model_folder):
    assert command("tune").code == 0
    other = load_model(str(model_folder))
    next(other.model.parameters()).data.mul_(1.01)
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    write_facts(tmp_path / "more.jsonl", [fact(i, target="Tokyo") for i in range(10)])
    (unlike,) = {"float32", "bfloat16"} - {
        Tuned.read(tmp_path / "tune").record["model"]["precision"]
    }
    for arguments, part in [
        (
            ["--option", "nudge.size=0.1"],
            "--option nudge.size and --tuned tune both set options of nudge",
        ),
        (["--methods", "rome"], "tune has chosen options for nudge; compared are rome"),
        (["--part", "dev"], "2 of these facts"),
        (["--data", "more.jsonl"], "tune was tuned on other data: its 2 dev facts of local were"),
        (["--model", "other"], "those of other are"),
        (["--precision", unlike], f"not in {unlike}. Tune again"),
        (["--tuned", "facts.jsonl"], "facts.jsonl"),
        (["--tuned", "nosuch"], "nosuch has no tuned.json"),
        (
            ["--tuned", "tune"],
            "--tuned tune and --tuned tune both have options for nudge. Leave one out.",
        ),
    ]:
        said = command("compare", "--tuned", "tune", *arguments)
        assert (
            said.code == 2 and said.out == "" and part in said.err and "Traceback" not in said.err
        ), said
        assert not (tmp_path / "compare").exists()
    demo = make_plan(RunConfig(("base",), "tiny", "demo-counterfact", n=2))
    with pytest.raises(RecordError, match="tuned on corpus local, not demo-counterfact"):
        Tuned.read(tmp_path / "tune").check_facts(demo)
    path = tmp_path / "tune" / "tuned.json"
    whole = json.loads(path.read_text())
    assert whole["digest"] == digest(whole["tuned"])
    for damaged in (
        "",
        "[]",
        '{"tuned": {}}',
        json.dumps({**whole, "tuned": {**whole["tuned"], "budget": 99}}),
    ):
        path.write_text(damaged)
        said = command("compare", "--tuned", "tune")
        assert (
            said.code == 2 and "tuned.json is corrupt" in said.err and "Traceback" not in said.err
        )
