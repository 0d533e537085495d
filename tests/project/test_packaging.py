"""The wheel: built from a clean clone, installed apart, used from elsewhere."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]

LOOK = """
import importlib, json, sys
from editbench import registry
from editbench.cli import main
found = {"modules": {}, "corpora": {}, "tasks": []}
rooms = ("methods.rome", "corpora.demo", "eval.probes", "leaderboard.rows")
for name in ("cli", "run.runner", *rooms):
    found["modules"][name] = importlib.import_module("editbench." + name).__file__
for name in ("demo-counterfact", "demo-zsre"):
    found["corpora"][name] = len(registry.get("corpora", name)().load())
from lm_eval.tasks import TaskManager
from editbench.leaderboard import website
found["template"] = all((website.FOLDER / name).is_file() for name in website.TEXT_SCRIPTS)
from editbench.eval import retention
for name in retention.task_names():
    found["tasks"].append([name, len(list(retention.load(name, None)[name].test_docs()))])
print(json.dumps(found))
"""


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone") / "repository"
    run("git", "clone", "--quiet", "--no-local", ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # Without build isolation, pip uses the installed setuptools and asks no index.
    run(
        *PIP,
        "wheel",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
        clone,
    )
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    run(*PIP, "install", "--no-index", "--no-deps", "--target", folder, wheel)
    return folder


def place(path):
    """Return the place of a tracked file in the wheel; ``None`` if it is not shipped."""
    top = path.split("/")[0]
    if top == "editbench":
        return path
    if top not in ("methods", "corpora", "eval", "leaderboard"):
        return None
    # Generators of data stay in the repository.
    is_module = path.endswith(".py") and "/build_demo/" not in path
    is_data = path.startswith(("corpora/data/", "eval/tasks/", "leaderboard/site/"))
    return f"editbench/{path}" if is_module or is_data else None


def test_the_wheel_holds_the_modules_and_data_and_nothing_else(clone, wheel):
    tracked = run("git", "-C", clone, "ls-files").split()
    expected = {found for path in tracked if (found := place(path))}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        hashes = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == expected
    assert not [
        name
        for name in shipped
        if "build_demo" in name or name.split("/")[0] in ("tests", "benchmarks")
    ]
    for path in tracked:
        if found := place(path):
            assert hashes[found] == hashlib.sha256((clone / path).read_bytes()).hexdigest(), path
    meta = {name.split(".dist-info/")[1] for name in names if ".dist-info/" in name}
    assert {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"} <= meta


def test_the_wheel_holds_no_shared_data(wheel):
    if not SHARED.is_dir():
        pytest.skip("shared data is absent")
    # Files are compared by content only where their sizes agree.
    sizes = {}
    for path in SHARED.rglob("*"):
        if path.is_file() and path.stat().st_size:
            sizes.setdefault(path.stat().st_size, []).append(path)
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            for path in sizes.get(item.file_size, ()):
                assert archive.read(item) != path.read_bytes(), (item.filename, path)


def test_the_version_is_told_once(wheel):
    import editbench

    assert wheel.name == f"editbench-{editbench.__version__}-py3-none-any.whl"


@pytest.fixture
def elsewhere(installed, tmp_path):
    """Return options for a process that sees the installed copy and not the repository."""
    return {
        "cwd": tmp_path,
        "env": {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"},
    }


def test_the_installed_copy_works_from_elsewhere(installed, elsewhere):
    found = json.loads(run(sys.executable, "-c", LOOK, **elsewhere).splitlines()[-1])
    assert len(found["modules"]) == 6 and found["template"]
    for name, file in found["modules"].items():
        assert Path(file).is_relative_to(installed), (name, file)
    assert all(n >= 100 for n in found["corpora"].values()), found["corpora"]
    assert len(found["tasks"]) >= 8 and all(n >= 100 for _, n in found["tasks"]), found["tasks"]


def test_the_console_script_works_from_elsewhere(installed, elsewhere):
    script = installed / "bin" / "editbench"
    listed = json.loads(run(sys.executable, script, "list", "corpora", "--json", **elsewhere))
    assert "demo-counterfact" in [record["name"] for record in listed]
    assert "compare" in run(sys.executable, script, "--help", **elsewhere)
