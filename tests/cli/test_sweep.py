"""``sweep``, one run with a variant for each value, and ``plot``, the picture of several runs."""

import json
import re
from pathlib import Path

import pytest
from tiny import editbench, write_facts, write_model

from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import make_plan


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def sweep(tmp_path, monkeypatch, model):
    """Run the smallest ``editbench sweep``; further arguments override the usual ones."""
    monkeypatch.chdir(tmp_path)
    write_facts(tmp_path / "facts.jsonl")

    def run(*arguments, method="sft"):
        start = (
            "sweep",
            "--method",
            method,
            "--model",
            model,
            "--corpus",
            "local",
            "--data",
            "facts.jsonl",
            "-n",
            2,
        )
        return editbench(
            *start, "--tasks", "eb_grammar", "--limit", 6, "--output", "run", *arguments
        )

    return run


HUNDRED = ",".join(map(str, range(1, 101)))
POINTS = ("--over", "lr=1e-6,1e-4", "--option", "epochs=1")


def test_a_sweep_is_a_run_with_a_variant_for_each_value(sweep, tmp_path):
    said = sweep(*POINTS, "--json")
    assert said.code == 0, said.err
    points = ("sft@lr=1e-6", "sft@lr=1e-4")
    assert set(said.rows) == {"base", "ice", *points}
    assert [said.rows[name]["options"]["lr"] for name in points] == [1e-6, 1e-4]
    assert all(
        said.rows[name]["options"]["epochs"] == 1 and said.rows[name]["label"] == name
        for name in points
    )
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["methods"] == ["base", "ice", *points] and config["part"] == "dev", (
        "hyper-parameters are chosen on dev"
    )
    assert (tmp_path / "run" / "trade_off.png").read_bytes()[
        :4
    ] == b"\x89PNG" and "run/trade_off.svg" in said.err

    again = sweep(*POINTS)
    assert (
        again.code == 0
        and again.err.count("kept from an earlier run") == 4
        and "run/trade_off.png" in again.err
    )
    assert editbench("show", "run").out == again.out and "sft@lr=1e-6" in again.out
    assert "[sft@lr=1e-4](cells/sft_lr%3D1e-4-" in (tmp_path / "run" / "README.md").read_text()
    assert editbench("leaderboard", "run", "-o", "board.md").code == 0


def test_a_recipe_is_a_value_like_others(sweep):
    small = ("--option", "covariance_tokens=200", "--option", "steps=2", "--json")
    said = sweep("--over", "recipe=paper,none", *small, method="memit")
    assert said.code == 0, said.err
    paper, plain = (said.rows[f"memit@recipe={name}"] for name in ("paper", "none"))
    assert paper["options"]["lam"] == 15_000 and plain["options"]["lam"] is None
    assert paper["options"]["steps"] == 2, "options given besides win"


def test_several_options_give_every_combination(sweep):
    said = sweep(
        "--over", "lr=1e-6, 1e-5", "--over", "sft.epochs=1,2", "--option", "sft.seed=3", "--json"
    )
    assert said.code == 0, said.err
    found = {
        name: (row["options"]["lr"], row["options"]["epochs"])
        for name, row in said.rows.items()
        if "@" in name
    }
    assert found == {
        "sft@lr=1e-6,epochs=1": (1e-6, 1), "sft@lr=1e-6,epochs=2": (1e-6, 2),
        "sft@lr=1e-5,epochs=1": (1e-5, 1), "sft@lr=1e-5,epochs=2": (1e-5, 2),
    }  # fmt: skip
    assert {row["options"]["seed"] for name, row in said.rows.items() if "@" in name} == {3}


def test_the_same_point_gives_the_same_numbers_in_compare(sweep, model):
    swept = sweep(*POINTS, "--json").rows["sft@lr=1e-4"]
    said = editbench(
        "compare", "--model", model, "--corpus", "local", "--data", "facts.jsonl",
        "-n", 2, "--part", "dev", "--tasks", "eb_grammar", "--limit", 6,
        "--methods", "sft@fast,rome", "--option", "sft@fast.lr=1e-4",
        "--option", "sft@fast.epochs=1", "--option", "rome.steps=3",
        "--output", "other", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    row = said.rows["sft@fast"]
    assert all(
        row[what] == swept[what]
        for what in ("options", "efficacy", "generalization", "specificity", "retention")
    )

    said = editbench("plot", "run", "other", "-o", "deep/both.png")
    assert said.code == 0 and said.out.strip() == "deep/both.png and deep/both.svg", said.err
    picture = Path("deep/both.svg").read_text()
    assert all(picture.count(f">{name}<") == 1 for name in ("base", "ice", "sft", "rome")), (
        "the methods of both runs"
    )


def test_without_retention_there_is_no_picture(sweep, tmp_path):
    said = sweep("--over", "epochs=1", "--tasks", "none")
    assert said.code == 0 and "No picture: No cell of run has both" in said.err
    assert not list(tmp_path.rglob("trade_off*"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--over", "lam=0.1"], ["Method 'sft' has no option 'lam'"]),
        (["--over", "lambda=0.1"], ["Method 'sft' has no option 'lam'"]),
        (["--over", "lr=1e-5,fast"], ["Bad option for sft: lr=fast: 'fast' is not a number."]),
        (["--over", "epochs=1,0"], ["Bad option for sft: epochs"]),
        (["--over", "lr"], ["--over 'lr' has no '='"]),
        (["--over", "lr= ,"], ["--over lr names no value"]),
        (["--over", "lr=1e-5,1e-5"], ["--over lr names 1e-5 twice"]),
        (["--over", "lr=1e-5", "--over", "sft.lr=1e-4"], ["--over lr is given twice"]),
        (["--over", "lr=1e-5", "--option", "sft.lr=1e-4"], ["Both --over and --option set 'lr'"]),
        (["--over", "lr=1e-5", "--option", "nosuch=1"], ["'sft' has no option 'nosuch'"]),
        (["--over", "lr=1e-5", "--option", "mixsd.lam=1"], ["'sft' has no option 'mixsd.lam'"]),
        (["--over", "lr=1e-5", "--method", "stf"], ["Unknown method 'stf'", "'sft'"]),
        (["--over", "lr=1e-5", "--method", "sft@a"], ["Unknown method 'sft@a'"]),
        (
            ["--over", "lr=" + ",".join(map(str, range(101))), "--over", "epochs=" + HUNDRED],
            ["combinations of --over is 10100", "at most 10,000"],
        ),
        (["--over", "seed=1", "--method", "base"], ["base is the unedited model"]),
    ],
)
def test_bad_points_are_told_before_any_weight_is_loaded(
    sweep, tmp_path, monkeypatch, arguments, parts
):
    from editbench.cli import workers

    monkeypatch.setattr(workers, "load", lambda *_: pytest.fail("the model was loaded"))
    said = sweep(*arguments)
    assert (
        said.code == 2
        and said.out == ""
        and "Traceback" not in said.err
        and not (tmp_path / "run").exists()
    )
    for part in parts:
        assert part in said.err


def test_bad_input_of_plot(sweep, tmp_path):
    assert sweep(*POINTS).code == 0 and sweep(*POINTS, "-n", 1, "--output", "other").code == 0
    for arguments, parts in [
        (("run", "-o", "picture.txt"), ["picture.txt is not a .png file"]),
        (("nosuch", "-o", "x.png"), ["no run folder nosuch"]),
        (("run", "other", "-o", "x.png"), ["cannot share a ranking", "corpus hash"]),
        (("run", "-o", "facts.jsonl/x.png"), ["facts.jsonl/x.png cannot be written"]),
    ]:
        said = editbench("plot", *arguments)
        assert said.code == 2 and said.out == "" and "Traceback" not in said.err, said
        assert all(part in said.err for part in parts), said.err
    assert not list(tmp_path.glob("x.*"))


# --- diagnostics in a run -----------------------------------------------------------------------


def test_diagnostics_are_kept_and_shown(tmp_path, capsys):
    from editbench.cli.show import print_run
    from editbench.errors import UnknownNameError
    from editbench.leaderboard.markdown import render
    from editbench.leaderboard.rows import diagnostics
    from editbench.records.store import RunStore
    from editbench.run import runner
    from editbench.testing import tiny_model

    config = RunConfig(
        methods=("base", "mixsd", "rome"), model="tiny", corpus="demo-counterfact", n=3,
        diagnostics=("supervision", "mixing"),
        options={
            "mixsd": {
                "epochs": 1, "min_steps": 1, "max_new_tokens": 4, "rewordings": 1, "on_fail": "keep"
            },
            "rome": {"steps": 3},
        },
    )  # fmt: skip
    plain = RunConfig(methods=("base",), model="tiny", corpus="demo-counterfact", n=3)
    assert "diagnostics" not in run_identity(plain) and run_identity(config)["diagnostics"] == (
        "supervision",
        "mixing",
    )
    plan = make_plan(config)
    with RunStore(tmp_path).open(run_identity(config)) as store:
        summaries = runner.run(plan, tiny_model("llama"), store, lambda *_: None)
    assert [s["status"] for s in summaries] == ["done"] * 3, [s.get("traceback") for s in summaries]
    base, mixsd, rome = (s["diagnostics"] for s in summaries)
    assert base == {"supervision": None, "mixing": None} and rome["mixing"] is None
    assert (
        rome["supervision"]["targets"] == mixsd["supervision"]["targets"] == 3
        and mixsd["mixing"]["mean_tokens"] > 0
    )
    shown = {
        row["method"]: row
        for row in diagnostics(summaries, {s["key"]: s["method"] for s in summaries})
    }
    assert float(shown["rome"]["target NLL"]) == pytest.approx(rome["supervision"]["nll"], rel=1e-2)
    assert shown["base"]["target NLL"] == "–" and "KL" not in shown["base"]
    assert "### Diagnostics" in render([tmp_path], tmp_path / "page.md")
    print_run(tmp_path, summaries, as_json=False)
    line = next(x for x in capsys.readouterr().out.splitlines() if "target NLL" in x)
    scores = [shown[method]["target NLL"] for method in ("base", "mixsd", "rome")]
    assert sorted(re.findall(r"\d[\d.]*|–", line)) == sorted(scores), "a column for each method"
    with pytest.raises(UnknownNameError, match="fishr"):
        make_plan(
            RunConfig(
                methods=("base",),
                model="tiny",
                corpus="demo-counterfact",
                n=3,
                diagnostics=("fishr",),
            )
        )
