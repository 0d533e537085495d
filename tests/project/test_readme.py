"""The code in the README works as printed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pretend_device
import pytest

from editbench import registry
from editbench.testing import FACTS, check_method

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("device", ["cpu", "pretend"])
def test_the_method_in_one_file_passes_the_battery(
    device, reader, tmp_path_factory, tmp_path, monkeypatch
):
    if device == "pretend":
        if not pretend_device.AVAILABLE:
            pytest.skip("this PyTorch takes no device from Python")
        pretend_device.register()
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "my_method.py").write_text(
        next(block for block in BLOCKS if "class OneStep" in block), encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(folder))
    model = pretend_device.moved(reader("llama"), device)
    check_method(importlib.import_module("my_method").OneStep, model, FACTS, tmp_path)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_snippet_is_python(block):
    compile(block, "README.md", "exec")


def test_the_table_names_only_registered_methods():
    rows = re.findall(r"^\| \*{0,2}\[([a-z]+)\]", README, re.MULTILINE)
    assert set(rows) <= set(registry.names("methods"))
    assert {"base", "ice", "mixsd", "memit", "sft"} <= set(rows)
