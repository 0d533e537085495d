"""``editbench new method``: the project installs, passes its own test and is listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tiny import editbench

from editbench.cli import new

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new") / "one-step"
    said = editbench("new", "method", "one-step", "--output", folder)
    assert said.code == 0, said.err
    assert f"pip install --editable {folder}" in said.err
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    module, test = "editbench_one_step.py", "tests/test_editbench_one_step.py"
    assert written == {"pyproject.toml", "README.md", module, test}
    assert all(str(folder / path) in said.out for path in written)
    return folder


@pytest.fixture(scope="module")
def elsewhere(project, tmp_path_factory):
    """Return options for a process that has the project installed, outside this environment."""
    installed = tmp_path_factory.mktemp("installed")
    # Without build isolation, pip uses the installed setuptools and asks no index.
    flags = ("--no-index", "--no-deps", "--no-build-isolation", "--target", installed)
    run(*PIP, "install", *flags, project)
    environment = {key: value for key, value in os.environ.items() if key != "EDITBENCH_PLUGINS"}
    return {
        "cwd": tmp_path_factory.mktemp("elsewhere"),
        "env": {**environment, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
    }


def test_its_own_test_passes(project, elsewhere):
    said = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", project, **elsewhere)
    assert "3 passed" in said, said


def test_it_is_listed_with_its_options(elsewhere):
    def listed(what):
        code = "from editbench.cli import main; main()"
        return json.loads(run(sys.executable, "-c", code, "list", what, "--json", **elsewhere))

    (record,) = (record for record in listed("methods") if record["name"] == "one-step")
    assert record["kind"] == "weight editor" and record["broken"] is None
    options = {option["name"]: option for option in listed("one-step")["options"]}
    assert set(options) == {"layer", "seed", "size"}
    assert all(option["about"] for option in options.values())
    assert options["size"]["searched"] == "0.01 to 0.2, on a logarithmic scale"


def test_every_line_fits(project):
    for path, text in new.method_project("one-step").items():
        assert (project / path).read_text(encoding="utf-8") == text
        assert max(map(len, text.splitlines())) <= 100, path


@pytest.mark.parametrize("name", ["a", "json", "none", "class", "my-method-2"])
def test_any_good_name_gives_python(name):
    for path, text in new.method_project(name).items():
        if path.endswith(".py"):
            compile(text, path, "exec")


@pytest.mark.parametrize(
    "name", ["", "One", "2step", "one_step", "-a", "a-", "a--b", "a/b", "..", "a b", "é"]
)
def test_bad_names_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = editbench("new", "method", "--", name)
    assert said.code == 2 and repr(name) in said.err and "lower-case" in said.err
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for folder in ("full", "file"):
        said = editbench("new", "method", "fresh", "--output", folder)
        assert said.code == 2 and f"{folder} exists and is not an empty folder" in said.err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note.txt"]
    said = editbench("new", "method", "memit")
    assert said.code == 2 and "There is a method 'memit' already" in said.err
    assert not (tmp_path / "memit").exists()
    (tmp_path / "fresh").mkdir()
    assert editbench("new", "method", "fresh").code == 0, "an empty folder is as good as none"


def test_wrong_usage_shows_how_it_is_used():
    for arguments in ((), ("method",), ("corpus", "x")):
        said = editbench("new", *arguments)
        assert said.code == 2 and "Usage: editbench new" in said.out + said.err
