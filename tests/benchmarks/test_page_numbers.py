"""The script that compares two pages sees a moved number, column and link, and no wording."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "page_numbers.py"
PAGE = """\
# Title

| Method | Efficacy ↑ | arc (acc, n = 100) |
| --- | ---: | ---: |
| [memit](cells/memit-9f/summary.json) † | **0.55 [0.46, 0.63]** | -0.06 [-0.11, +0.00] (6↓ 0↑) |

12 notes.
"""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("page_numbers", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["page_numbers"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_rows_keep_numbers_columns_and_links(script):
    header, ruler, row = script.table_rows(PAGE)
    assert header.numbers == ("100",) and ruler.numbers == () and row.columns == 3
    assert row.numbers == ("0.55", "0.46", "0.63", "-0.06", "-0.11", "+0.00", "6", "0")
    assert row.links == ("cells/memit-9f/summary.json",)


@pytest.mark.parametrize(
    ("old", "new", "count"),
    [
        ("Efficacy", "Right", 0),
        ("12 notes", "No notes", 0),
        ("0.46", "0.47", 1),
        ("-0.06", "+0.06", 1),
        ("memit-9f", "memit-9e", 1),
        ("| --- | ---: | ---: |", "| --- | ---: |", 1),
        ("| --- | ---: | ---: |\n", "", 2),
    ],
)
def test_only_wording_may_change(script, old, new, count):
    assert len(script.differences(PAGE, PAGE.replace(old, new))) == count
