"""The studies refuse a command line that they do not know, with a reason and their usage."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("published", [], "Give a command."),
        ("published", ["demo", "mixds"], "no row 'mixds'. Known: base; sft"),
        ("published", ["table", "mixds"], "no set 'mixds'"),
        ("published", ["gemma"], "do not fit 'gemma'"),
        ("frontier", ["run", "sgd"], "no row 'sgd'"),
        ("frontier", ["table", "more"], "do not fit 'table'"),
        ("step_size", ["run", "tiny", "rome", "5", "auto"], "no method 'rome'"),
        ("step_size", ["run", "tiny", "sft", "5", "fast"], "could not convert string"),
        ("shared_subjects", ["dve"], "no command 'dve'"),
        ("shared_subjects", ["dev", "base", "first word"], "no setting 'first word'"),
        ("shared_subjects", ["table", "looks"], "no stored table 'looks'"),
        ("easyedit", ["equal", "tiny", "3", "memit twice"], "no pair 'memit twice'"),
        ("kgfact_study", ["table", "tune"], "no table 'tune'"),
    ],
)
def test_a_wrong_command_line(study, monkeypatch, name, arguments, reason):
    module = study(name)
    monkeypatch.setattr("sys.argv", [f"{name}.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    text = str(stopped.value)
    assert reason in text
    assert f"\nUsage:\n    python benchmarks/{name}.py" in text


def test_help_and_a_command(study, capsys):
    usage, called = study("usage"), []
    usage.run("What it is.\n", {"go": lambda *names: called.append(names)}, ["--help"])
    assert capsys.readouterr().out == "What it is.\n" and not called
    usage.run("", {"go": lambda *names: called.append(names)}, ["go", "a", "b"])
    assert called == [("a", "b")]


CHANGES = """
import importlib, json, os, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
studies = sorted(path.stem for path in Path(sys.argv[1]).glob("*.py"))

def library():
    # What the modules of editbench hold, and the environment.
    found = {
        f"{name}.{key}": id(value)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in ("editbench", "methods", "eval") and module
        for key, value in vars(module).items()
        if not hasattr(value, "__path__") and not key.startswith("__")
    }
    return found | {f"${key}": value for key, value in os.environ.items()}

changed = {}
for _ in range(2):  # the first time only loads the library
    for study in studies:
        sys.modules.pop(study, None)
        before = library()
        try:
            importlib.import_module(study)
        except ImportError:
            continue  # of an extra that is not installed
        after = library()
        changed |= {key: study for key, value in before.items() if after.get(key) != value}
print(json.dumps(changed))
"""


def test_a_study_that_is_imported_changes_nothing_of_the_library():
    """Tests import studies, and what one leaves behind would be in every test after them."""
    ran = subprocess.run(
        [sys.executable, "-c", CHANGES, str(STUDIES)], capture_output=True, text=True, check=True
    )
    changed = json.loads(ran.stdout.splitlines()[-1])
    # It compares hashes of all methods, in processes of its own, and no test imports it.
    assert {key: study for key, study in changed.items() if study != "safety_net"} == {}


def test_a_sum_of_edits_trains_those_that_were_not_kept(study, monkeypatch, tmp_path):
    """As in a fresh clone, which has the stored rows and no edits."""
    from editbench.testing import FACTS, tiny_model

    frontier, model = study("frontier"), tiny_model("llama")
    monkeypatch.setattr(frontier, "KEPT", tmp_path)
    monkeypatch.setitem(
        frontier.ROWS, "quick", ("sft", {"lr": 1e-4, "epochs": 1, "min_steps": 1}, {})
    )
    for _ in range(2):  # trained, then loaded
        edit = frontier.weighted_sum(model, FACTS, {"quick": 0.5})
        whole = frontier.edit_of(model, FACTS, "quick")
        name = next(iter(edit.changes))
        assert edit.changes[name].equal(0.5 * whole.changes[name])
    assert [folder.name for folder in tmp_path.iterdir()] == ["quick"]
