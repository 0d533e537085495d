"""Help comes in panels, and ``list`` shows a plug-in's options with type, default and docstring."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, get_type_hints

import pytest
from tiny import editbench

from editbench import registry
from editbench.cli import console, describe, panels
from editbench.cli.options import RunOptions
from editbench.plugin import Choice, LogUniform, Method, Space, Uniform

METHODS = registry.names("methods")


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["compare", "tune", "sweep"])
def test_help_comes_in_panels_of_80_columns(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = editbench(command, "--help")
    lines = said.out.splitlines()
    headings = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == [*panels.ORDER, "Other"]
    assert all(len(line) <= 80 for line in lines)
    where = {heading: lines.index(f"{heading}:") for heading in headings}
    for option, panel in [
        ("--model", panels.MODEL),
        ("--layout", panels.MODEL),
        ("--corpus", panels.FACTS),
        ("-n", panels.FACTS),
        ("--tasks", panels.RETENTION),
        ("--output", panels.OUTPUT),
        ("--json", panels.OUTPUT),
    ]:
        (place,) = (i for i, line in enumerate(lines) if line.startswith(f"  {option} "))
        assert max((h for h in headings if where[h] < place), key=where.get) == panel


def test_the_shared_options_are_those_of_all_three_commands():
    flags = {"n": "-n", "as_json": "--json"}
    for command in ("compare", "tune", "sweep"):
        said = editbench(command, "--help").out
        for option in fields(RunOptions):
            flag = flags.get(option.name, f"--{option.name.replace('_', '-')}")
            assert f"  {flag} " in said, (command, flag)


def test_the_other_commands_keep_plain_help():
    assert "Options:" in editbench("verify", "--help").out
    assert "Arguments:" in editbench("show", "--help").out


def test_the_list_of_methods_cuts_no_word_at_80_columns(monkeypatch):
    monkeypatch.setattr(console, "PLAIN_WIDTH", 80)
    said = editbench("list", "methods").out
    assert all(len(line) <= 80 for line in said.splitlines())
    words = {word for name in METHODS for word in registry.get("methods", name).summary.split()}
    assert words <= set(said.split())


def test_the_list_of_methods_is_right_and_imports_no_torch():
    code = (
        "import sys; from editbench.cli.list import list_names; list_names('methods', True); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    records = {record["name"]: record for record in json.loads(done.stdout)}
    for name in (*METHODS, *registry.easyedit()):
        method = registry.get("methods", name)
        for field in ("kind", "needs_subject", "needs_covariance", "paper", "summary"):
            assert records[name][field] == getattr(method, field), (name, field)


# --- list METHOD --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_option_of_every_method_has_a_docstring_that_is_shown(name):
    method = registry.get("methods", name)
    found = json.loads(editbench("list", name, "--json").out)
    shown = " ".join(editbench("list", name).out.split())
    assert {option["name"] for option in found["options"]} == {f.name for f in fields(method)}
    for option in found["options"]:
        assert option["about"] and option["type"], option
        assert " ".join(option["about"].replace("``", "'").split()) in shown, option
        assert f"{option['name']}: {option['type']}; default " in shown
        assert bool(option["searched"]) == (option["name"] in method.space)
        assert not option["searched"] or f"tune tries: {option['searched']}" in shown


def test_what_is_shown_of_memit():
    found = json.loads(editbench("list", "memit", "--json").out)
    assert (found["name"], found["kind"]) == ("memit", "weight editor")
    options = {option["name"]: option for option in found["options"]}
    assert options["layers"]["type"].startswith("whole numbers separated by commas")
    assert options["layers"]["type"].endswith("auto or none")
    assert options["layers"]["choices"] == ["auto"] and options["layers"]["default"] is None
    assert options["clamp"]["searched"] == "0.3 to 3, on a logarithmic scale"
    assert options["refine"]["searched"] == "0, 25"
    said = editbench("list", "memit").out
    assert "clamp: number; default 0.75" in said and "paper: arXiv 2210.07229" in said


def test_recipes_are_shown_with_the_options_that_they_stand_for():
    found = json.loads(editbench("list", "memit", "--json").out)["recipes"]
    assert found["recipe=paper"] == registry.get("methods", "memit").recipes["paper"]
    said = " ".join(editbench("list", "memit").out.split())
    assert "recipe=paper" in said and "lam=15000.0" in said
    pair = json.loads(editbench("list", "memit+sft", "--json").out)["recipes"]
    assert pair["memit.recipe=paper"]["memit.lam"] == 15_000
    assert "Recipes" not in editbench("list", "ice").out


def test_a_pair_has_the_options_of_both():
    found = json.loads(editbench("list", "memit+sft", "--json").out)
    names = {option["name"] for option in found["options"]}
    for part in ("memit", "sft"):
        assert {f"{part}.{f.name}" for f in fields(registry.get("methods", part))} <= names
    assert editbench("list", "sft+sft").code == 2


@dataclass(frozen=True)
class Parent(Method):
    """A method whose fields ``Child`` overrides."""

    name: ClassVar[str] = "parent"
    space: ClassVar[Space] = {"rate": LogUniform(1e-5, 1e-3), "mode": Choice(("a", None))}

    rate: float = 1e-4
    """Step size
    of the example."""
    mode: Literal["a", "b"] | None = None
    """Which way."""
    bare: bool = False

    def inject(self, model, facts):
        return self.edit(model, facts)


@dataclass(frozen=True)
class Child(Parent):
    name: ClassVar[str] = "child"
    space: ClassVar[Space] = {"rate": Uniform(0.1, 0.5)}

    rate: float = 0.2
    mode: Literal["a", "b"] | None = "b"
    """Another way."""
    several: tuple[int, ...] = (1, 2)
    """Places."""


def test_docstrings_come_from_the_nearest_class_that_has_one():
    options = {option["name"]: option for option in describe.options_of(Child)}
    assert options["rate"] == {
        "name": "rate",
        "type": "number",
        "default": 0.2,
        "choices": [],
        "searched": "0.1 to 0.5",
        "about": "Step size of the example.",
    }
    assert options["mode"]["type"] == "a, b or none"
    assert options["mode"]["choices"] == ["a", "b"]
    assert options["mode"]["about"] == "Another way." and options["mode"]["default"] == "b"
    assert options["bare"]["about"] == "" and options["bare"]["type"] == "true or false"
    assert options["several"]["default"] == [1, 2]
    parent = {option["name"]: option for option in describe.options_of(Parent)}
    assert parent["mode"]["searched"] == "a, none"
    assert parent["rate"]["searched"] == "1e-05 to 0.001, on a logarithmic scale"


@pytest.mark.parametrize("name", METHODS)
def test_types_are_in_words(name):
    for kind in get_type_hints(registry.get("methods", name)).values():
        assert "typing" not in describe.type_words(kind)


# --- list CORPUS --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("corpora"))
def test_every_corpus_is_described(name):
    corpus = registry.get("corpora", name)
    found = json.loads(editbench("list", name, "--json").out)
    assert found["name"] == name and found["about"]
    for attribute in ("summary", "form", "license", "needs_data", "url", "sha256"):
        assert found[attribute] == getattr(corpus, attribute)
    said = editbench("list", name).out
    assert said.startswith(f"{name}: {corpus.summary}") and f"form: {corpus.form}" in said
    assert f"needs data: {'yes' if corpus.needs_data else 'no'}" in said
