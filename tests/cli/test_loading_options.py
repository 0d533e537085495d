"""``--dtype``, ``--device``, ``--device-map`` and ``--batch-size``."""

from __future__ import annotations

import json

import pytest
from tiny import editbench, write_facts, write_model

from editbench.edit import Edit
from editbench.models import load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_facts(tmp_path / "facts.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


WRONG = [
    (["--device", "cuda:7"], "'cuda:7' cannot be used"),
    (["--device", "gpu"], "'gpu' is not known. Write auto, cpu, cuda"),
    (["--device", "meta"], "'meta' is not known"),
    (["--dtype", "int8"], "'int8' is not one of auto, float32, bfloat16, float16"),
    (["--device-map", "balanced"], "'balanced' is not known"),
    (["--device", "cpu", "--device-map", "auto"], "Give one of them"),
    (["--batch-size", "0"], "--batch-size 0 is neither auto nor a number above 0"),
    (["--batch-size", "many"], "--batch-size many is neither"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_bad_input_is_one_sentence_and_nothing_is_written(arguments, message, here, model):
    facts = ("--facts", "facts.jsonl", "--model", model, "--output", "out")
    for command in (("compare", "--methods", "ice"), ("inject", "--method", "ice")):
        said = editbench(*command, *facts, *arguments)
        assert said.code == 2 and message in said.err and "Traceback" not in said.err, said.err
    assert [path.name for path in here.iterdir()] == ["facts.jsonl"]


def test_a_run_is_of_one_type_and_says_so(here, model):
    given = ("compare", "--model", model, "--facts", "facts.jsonl", "-n", 2, "--tasks", "none")
    given = (*given, "--methods", "ice", "--output", "run")
    said = editbench(*given, "--dtype", "bfloat16", "--batch-size", 2)
    assert said.code == 0, said.err
    run = json.loads((here / "run/run.json").read_text())["config"]
    assert (run["dtype"], run["batch_size"]) == ("bfloat16", 2) and "device_map" not in run
    cells = [json.loads(path.read_text()) for path in here.glob("run/cells/*/summary.json")]
    assert cells and all(cell["model"]["dtype"] == "bfloat16" for cell in cells)
    assert all(cell["environment"]["batch_size"] == 2 for cell in cells)
    assert "weights in bfloat16" in (here / "run/README.md").read_text()
    # another type is another run
    other = editbench(*given)
    assert other.code == 2 and "run" in other.err
    assert editbench("verify", "run", "--rerun", 1).code == 0


def test_an_edit_is_exported_for_the_type_that_it_was_made_for(here, model):
    made = editbench(
        *("inject", "--method", "rome", "--facts", "facts.jsonl", "--model", model),
        *("--dtype", "bfloat16", "--output", "edit"),
        *("--option", "steps=3", "--option", "prefixes=0", "--option", "covariance=identity"),
    )
    assert made.code == 1 and "0 of 10 facts" in made.out, made.err  # in three steps
    assert Edit.load(here / "edit").model_dtype == "bfloat16"
    said = editbench("export", "edit", "--format", "merged", "--output", "merged")
    assert said.code == 0, said.err
    assert load_model(here / "merged").dtype_name == "bfloat16"
