"""The script that measures the house sees circles, arrows upwards and lengths, in both layouts."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "house.py"
METHODS = 'BUILTINS = {"rome": "editbench.methods.rome:Rome"}\n\nBASELINES = ()\n'
NEW = {
    "editbench/__init__.py": "from editbench.run import api\n",
    "editbench/edit.py": "def load():\n    from editbench import models\n",
    "editbench/models.py": "if TYPE_CHECKING:\n    from editbench.edit import Edit\n",
    "editbench/types.py": "from editbench.records import store\n\ndef digest():\n    '''Hash.'''\n",
    "editbench/records/__init__.py": "",
    "editbench/records/store.py": "import json\n",
    "editbench/run/__init__.py": "",
    "editbench/run/api.py": "from editbench.eval import probes\n"
    "from editbench.methods import rome\n",
    "eval/__init__.py": "",
    "eval/probes.py": "from editbench import types\n",
    "methods/__init__.py": METHODS,
    "methods/rome.py": "from editbench.methods._edit import value\n\nx = 1\n",
    "methods/_edit/__init__.py": "",
    "methods/_edit/value.py": "from editbench.methods._train import loop\n"
    "from editbench import edit\n",
    "methods/_train/__init__.py": "",
    "methods/_train/loop.py": "from typing import Any\n\nfound = one = 1  # type: ignore\n",
}
FLAT = {
    "editbench/__init__.py": "",
    "editbench/records.py": "",
    "editbench/edit.py": "from editbench import records\n\ndef merge():\n    pass\n",
    "editbench/cli.py": 'from editbench import edit\nx = registry.get("eval", "probes")\n',
    "methods/__init__.py": METHODS,
    "methods/rome.py": "from editbench.methods._editor import Editor\n\nx = 1\n",
    "methods/_editor.py": "from editbench.methods._train import loop\n\nx = 1\n",
    "methods/_train.py": "def loop():\n    pass\n",
}


@pytest.fixture(scope="module")
def house():
    spec = importlib.util.spec_from_file_location("house", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def build(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_circles_count_imports_in_functions_and_for_type_checkers(house, tmp_path):
    numbers = house.measure(build(tmp_path, NEW))
    assert numbers["in circles"] == [["editbench.edit", "editbench.models"]]
    assert (numbers["circles"], numbers["modules in circles"]) == (1, 2)


def test_arrows_upwards_are_named(house, tmp_path):
    assert house.measure(build(tmp_path, NEW))["upwards"] == [
        "editbench.methods._edit.value -> editbench.methods._train.loop",
        "editbench.run.api -> editbench.methods.rome",
        "editbench.types -> editbench.records.store",
    ]


def test_the_flat_layout_is_measured_by_what_its_files_became(house, tmp_path):
    numbers = house.measure(build(tmp_path, FLAT))
    assert numbers["upwards"] == [
        "editbench.edit -> editbench.records",
        "editbench.methods._editor -> editbench.methods._train",
    ]
    assert numbers["lookups of eval by string"] == 1 and numbers["circles"] == 0
    assert numbers["methods need"] == {"rome": {"files": 3, "lines": 8}}


def test_what_a_method_needs_and_the_small_numbers(house, tmp_path):
    numbers = house.measure(build(tmp_path, NEW))
    assert numbers["methods need"] == {"rome": {"files": 3, "lines": 8}}
    assert (numbers["bindings of found"], numbers["bindings of one"]) == (1, 1)
    assert (numbers["Any"], numbers["type: ignore"], numbers["noqa"]) == (1, 1, 0)
    assert numbers["documented public functions"] == 0.5
    assert numbers["function lengths"]["max"] == 2
    assert numbers["folders"]["methods/_edit"] == {"files": 2, "lines": 2}


def test_this_repository_has_no_circle_and_no_arrow_upwards(house):
    numbers = house.measure(BENCHMARK.parents[1])
    assert (numbers["in circles"], numbers["upwards"], numbers["boundaries broken"]) == ([], [], 0)
