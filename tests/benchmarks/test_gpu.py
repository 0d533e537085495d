"""The script of a GPU's measurements works where there is no GPU: the CPU against itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tiny import write_model

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu  # noqa: E402


def rows(output, *arguments):
    gpu.main([*map(str, arguments), "--facts", "3", "--output", str(output)])
    return json.loads(output.read_text())["rows"]


def test_the_cpu_does_not_differ_from_itself(tmp_path):
    folder = write_model(tmp_path / "tiny")
    found = rows(tmp_path / "cpu.json", folder, "--device", "cpu", "--methods", "rome,ice")
    assert [(row["method"], row["status"]) for row in found] == [
        ("rome", "run"),
        ("ice", "run"),
    ], found
    assert all(row["difference"] == 0 and row["battery"] == "passed" for row in found), found
    assert all(row["peak_bytes"] > 0 and row["seconds"]["total"] >= 0 for row in found)


def test_without_the_device_nothing_is_run(tmp_path):
    (row,) = rows(tmp_path / "none.json", "nothing", "--device", "cuda:7", "--methods", "rome")
    assert row["status"] == "not run" and row["why"]
    assert "difference" not in row


def test_an_edit_that_differs_is_told(tmp_path):
    (row,) = rows(tmp_path / "bad.json", "nothing", "--device", "cpu", "--methods", "rome")
    assert row["status"] == "failed" and "Unknown model 'nothing'" in row["why"]
