"""What a command leaves unloaded, and what it says where a package of an extra is missing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tiny import editbench, write_facts, write_model

ROOT = Path(__file__).parents[2]
FOLDERS = ("editbench", "methods", "corpora", "eval", "leaderboard")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
TABLES = {"datasets", "lm_eval", "nltk", "openpyxl", "pandas", "pyarrow", "sklearn"}
"""What reading benchmarks, asking tasks and making tables needs, and no injection."""
OPTIONAL = {"matplotlib", "optuna", "peft", "ray", "wandb"}
MODELS = {"accelerate", "gguf", "safetensors", "scipy", "torch", "transformers"}
RUN = """
import json, shlex, sys
from editbench.cli import main
for line in sys.argv[2:]:
    sys.argv[1:] = shlex.split(line)
    try:
        main()
    except SystemExit as stop:
        assert stop.code in (None, 0, 1), stop.code
json.dump(sorted({name.partition(".")[0] for name in sys.modules}), open(OUT, "w"))
"""


def loaded_after(*commands, folder):
    """Return the top modules that a fresh process has loaded after running ``commands``."""
    out = folder / "loaded.json"
    code = RUN.replace("OUT", repr(str(out)))
    done = subprocess.run(
        [sys.executable, "-c", code, "editbench", *commands],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(out.read_text()))


@pytest.mark.parametrize("command", ["--help", "inject --help", "--version"])
def test_help_loads_no_model_and_no_table(command, tmp_path):
    assert not loaded_after(command, folder=tmp_path) & (TABLES | OPTIONAL | MODELS)


def test_an_injection_loads_nothing_of_benchmarks_tables_and_pictures(tmp_path):
    write_model(tmp_path / "model")
    write_facts(tmp_path / "facts.jsonl")
    loaded = loaded_after(
        "inject --method memit --facts facts.jsonl --output memit --model model",
        "inject --method sft --facts facts.jsonl --output sft --model model",
        folder=tmp_path,
    )
    assert (tmp_path / "sft/manifest.json").is_file() and "torch" in loaded
    assert not loaded & (TABLES | OPTIONAL)


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("matplotlib", "plot", "plot run -o it.png"),
        ("matplotlib", "plot", "plot run -o it.png --over-facts"),
        ("matplotlib", "plot", "trace prompt -o it.png --model none"),
        ("matplotlib", "plot", "compare --curve 1,2 --model none"),
        ("optuna", "tune", "tune --model none"),
    ],
)
def test_what_needs_an_extra_names_it_before_the_work(package, extra, command, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    said = editbench(*command.split())
    assert said.code == 2 and said.err.endswith(f'Run: pip install "editbench[{extra}]"\n')
    assert package in said.err and len(said.err.splitlines()) == 1


def test_each_extra_that_is_named_installs_its_package():
    named = set()
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in ("check_package", "MissingPackageError"):
                    named.add(tuple(getattr(word, "value", None) for word in node.args[1:]))
    named.discard((None, None))  # where check_package passes them on
    assert {extra for _, extra in named} == set(EXTRAS) - {"dev", "docs"}
    for package, extra in named:
        assert any(need.startswith(f"{package}>=") for need in EXTRAS[extra]), (package, extra)
