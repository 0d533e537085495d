"""What differs on Windows and macOS, as far as Linux can show it."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import platformdirs.macos
import pytest
import torch

from editbench import registry
from editbench.changes import dense
from editbench.edit import Edit
from editbench.errors import OptionError
from editbench.hub import cache_dir
from editbench.methods.rome import Rome
from editbench.testing import FACTS, tiny_model, tiny_options

ROOT = Path(__file__).parents[2]
RUN = ROOT / "leaderboard/results/smollm2-135m_demo-counterfact_n50"
POSIX = {"fcntl", "grp", "pwd", "pty", "resource", "termios"}
"""Modules that Windows lacks."""


def test_no_module_of_posix_is_imported():
    folders = ("editbench", "methods", "corpora", "eval", "leaderboard")
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not POSIX & set(names), path


# --- folders --------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("EDITBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="the folders are those of Linux")
def test_the_cache_is_where_linux_has_caches(home, monkeypatch):
    assert cache_dir() == home / ".cache/editbench"
    (home / ".cache/editbench").mkdir(parents=True)  # of an earlier version
    assert cache_dir() == home / ".cache/editbench"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "elsewhere"))
    assert cache_dir() == home / "elsewhere/editbench"
    monkeypatch.setenv("EDITBENCH_CACHE", "~/mine")
    assert cache_dir() == home / "mine"


def test_on_macos_a_cache_of_an_earlier_version_stays_in_use(home, monkeypatch):
    monkeypatch.setattr("platformdirs.PlatformDirs", platformdirs.macos.MacOS)
    assert cache_dir() == home / "Library/Caches/editbench"
    (home / ".cache/editbench").mkdir(parents=True)
    assert cache_dir() == home / ".cache/editbench"


# --- the console ----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_tables_are_straight_in_every_encoding(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "editbench", "show", RUN],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode(encoding).splitlines()
    head = next(line for line in lines if line.startswith("Method"))
    (row,) = (line for line in lines if line.startswith("mixsd") and "GiB" in line)
    assert len(head.rstrip()) == len(row.rstrip()) and "\\u" not in done.stdout.decode(encoding)
    assert ("Efficacy ↑" if encoding == "utf-8" else "Efficacy ^") in head


def test_facts_in_any_script_go_into_a_pipe_of_windows(tmp_path):
    file = tmp_path / "facts.csv"
    file.write_text("prompt,target,subject\n中文 🙂 is,Paris,中文\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "editbench", "facts", file, "--model", "none"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert r"\u4e2d\u6587 \U0001f642 is" in done.stdout.decode("cp1252")


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lists what is mapped")
def test_a_loaded_edit_is_not_mapped_and_can_be_replaced(tmp_path):
    model = tiny_model()
    edit = Rome(**tiny_options(Rome)).inject(model, FACTS[:1])
    edit.save(tmp_path / "edit")
    loaded = Edit.load(tmp_path / "edit")
    assert "edit.safetensors" not in Path("/proc/self/maps").read_text()
    loaded.save(tmp_path / "edit", overwrite=True)
    again = Edit.load(tmp_path / "edit")
    for name, change in edit.changes.items():
        assert torch.equal(dense(again.changes[name]), dense(change))


# --- processes ------------------------------------------------------------------------------------


def test_easyedit_says_what_windows_lacks(monkeypatch):
    if importlib.util.find_spec("easyeditor") is None:
        pytest.skip("EasyEdit is not installed")
    monkeypatch.delattr(os, "fork")
    method = registry.get("methods", "easyedit-rome")()
    with pytest.raises(OptionError, match="forks of a process, which Windows does not have"):
        method.found()
