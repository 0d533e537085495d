"""Which folder may import which, read from the source; and what stays light, in a fresh process.

Every import counts: at the top of a file, inside a function, and for type checkers only.
"""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("methods", "corpora", "eval", "leaderboard")
FLOORS = ("records", "run", "cli", "api", "trackers")
"""Folders of the core that build on the nouns."""
NOUNS = {path.stem for path in (ROOT / "editbench").glob("*.py")} - {"__init__", "__main__"}
ABOVE_METHODS = {"registry", "testing", "rows", "cost", "slices"}
"""Nouns that know the rooms, the probes or the scores."""
MAY_IMPORT = {
    "nouns": NOUNS,
    "records": {"errors", "files", "locks", "report", "rows", "types", "records"},
    "run": NOUNS - {"testing"} | {"records", "run", "eval"},
    "cli": NOUNS - {"testing"}
    | {"records", "run", "cli", "leaderboard", "methods.statistics", "methods.trace"},
    "api": NOUNS - {"testing"} | {"records", "run", "cli", "leaderboard", "api"},
    "trackers": {"errors", "plugin", "trackers"},
    "methods": NOUNS - ABOVE_METHODS | {"methods"},
    "corpora": {"errors", "files", "hub", "matching", "plugin", "types", "corpora"},
    "eval": NOUNS - {"registry", "testing", "changes", "edit", "cost"} | {"eval"},
    "leaderboard": {
        "matching",  # to say why an answer is right or wrong
        "errors",
        "files",
        "records",
        "report",
        "rows",
        "stats",
        "types",
        "leaderboard",
    },
}
"""Folder -> the parts of ``editbench`` that it may import: nouns, folders, or single modules."""
EXCEPTIONS = {
    (f"eval/diagnostics{part}.py", "edit")
    for part in ("", "/drift", "/fisher", "/positions", "/targets")
} | {("eval/diagnostics/fisher.py", "changes")}
"""Diagnostics describe an edit. No other evaluation may know that there is one."""
PROBES = {"Case", "Probe", "Corpus", "Evaluator", "Score"}
"""Names in core modules that lead to the probes that a method will be asked."""
ENGINES = {
    "_common": {"_common"},
    "statistics": {"_common", "statistics"},
    "trace": {"_common", "trace"},
    "_edit": {"_common", "statistics", "trace", "_edit"},
    "_train": {"_common", "statistics", "_train"},
    "_easyedit": {"_common", "statistics", "trace", "_edit", "_easyedit"},
}
"""Inside ``methods/``: which engine may import which."""
HEAVY = {"torch", "transformers", "lm_eval", "datasets", "safetensors", "accelerate"}
LIGHT_NOUNS = {
    "aliases",
    "errors",
    "files",
    "hub",
    "locks",
    "matching",
    "options",
    "plugin",
    "progress",
    "registry",
    "report",
    "retrieval",
    "rows",
    "slices",
    "stats",
    "surgical",
    "types",
}
"""Nouns that import nothing of ``HEAVY`` themselves."""


def sources(folder):
    """Return the Python files below a folder of the repository, except generators (``build_*``)."""
    found = (ROOT / folder).rglob("*.py")
    return sorted(p for p in found if not any(part.startswith("build_") for part in p.parts))


@cache
def imports(source):
    """Return the dotted names that a source imports anywhere; ``from a import b`` gives ``a.b``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} is a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_of(path):
    """Return the dotted name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "editbench" else ("editbench", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


ALL = {module_of(path): path for folder in ("editbench", *ROOMS) for path in sources(folder)}


def target(name):
    """Return the module that an imported name belongs to, or None outside the package."""
    # The name may be a module, or something inside one: drop its last part until a module is found.
    while name:
        if name in ALL:
            return name
        name = name.rpartition(".")[0]
    return None


def folder_of(module):
    """Return the folder whose rules hold for a module."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in (*ROOMS, *FLOORS) else "nouns"


def violations(module, source):
    """Return the imports of a source that break the rules of its folder."""
    folder, found = folder_of(module), []
    file = "/".join(module.split(".")[1:]) + ".py"
    for name in sorted(imports(source)):
        parts = name.split(".")
        if parts[0] != "editbench" or len(parts) == 1:
            continue
        inner = parts[1]
        allowed = {inner, ".".join(parts[1:3])} & MAY_IMPORT[folder] or (file, inner) in EXCEPTIONS
        if inner not in (*NOUNS, *ROOMS, *FLOORS):  # a name of the package itself
            allowed = inner == "__version__"
        if not allowed:
            found.append(f"{module} imports {name}")
        elif folder == "methods" and parts[-1] in PROBES:
            found.append(f"{module} imports {name}, which leads to probes")
    return found


@pytest.mark.parametrize("folder", ["editbench", *ROOMS])
def test_a_folder_imports_only_what_it_may(folder):
    modules = [module for module, path in ALL.items() if path.is_relative_to(ROOT / folder)]
    assert len(modules) >= 3
    for module in modules:
        # The names of the first are loaded from the roof on first use, and the second is the roof.
        if module not in ("editbench", "editbench.__main__"):
            assert violations(module, ALL[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "from editbench.cli import tools",
        "from editbench.run import tune",
        "import editbench.run.verify",
        "from editbench.records.reading import read_cases",
        "from editbench.eval import probes",
        "from editbench.corpora.zsre import Zsre",
        "from editbench import registry",
        "from editbench.types import Case",
        "from editbench.plugin import Corpus",
        "from editbench.slices import slice_cases",
    ],
)
@pytest.mark.parametrize("where", ["top", "function", "type checking"])
def test_a_method_that_reached_for_probes_records_or_scores_would_be_caught(line, where):
    source = ALL["editbench.methods.rome"].read_text(encoding="utf-8")
    assert violations("editbench.methods.rome", source) == []
    source += {
        "top": f"\n{line}\n",
        "function": f"\ndef late():\n    {line}\n",
        "type checking": f"\nif TYPE_CHECKING:\n    {line}\n",
    }[where]
    assert len(violations("editbench.methods.rome", source)) == 1


@cache
def graph():
    """Map each module to the modules that it imports."""
    edges = {}
    for module, path in ALL.items():
        found = {target(name) for name in imports(path.read_text(encoding="utf-8"))}
        edges[module] = found - {None, module, "editbench"}
    return edges


def test_no_module_imports_itself_by_way_of_others():
    edges, done = graph(), set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in edges[module]:
                visit(other, [*path, module])
            done.add(module)

    for module in edges:
        visit(module, [])


def closure(module):
    """Return the module and all modules that it imports, directly or through others."""
    edges, found, todo = graph(), set(), [module]
    while todo:
        if (one := todo.pop()) not in found:
            found.add(one)
            todo += edges[one]
    return found


@pytest.mark.parametrize("method", ["rome", "emmet", "alphaedit"])
def test_a_weight_editor_needs_no_trainer(method):
    needed = closure(f"editbench.methods.{method}")
    assert not [name for name in needed if name.startswith("editbench.methods._train")]


def test_rome_needs_no_refinement():
    assert "editbench.methods._edit.refine" not in closure("editbench.methods.rome")
    assert "editbench.methods._edit.refine" in closure("editbench.methods.memit")


@pytest.mark.parametrize("method", ["sft", "opsd"])
def test_a_trainer_needs_no_editor(method):
    needed = closure(f"editbench.methods.{method}")
    assert not [name for name in needed if name.startswith("editbench.methods._edit")]


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_stand_below_the_methods(engine):
    for module in ALL:
        if module.startswith(f"editbench.methods.{engine}"):
            for name in graph()[module]:
                parts = name.split(".")
                inner = parts[2] if parts[1] == "methods" and len(parts) > 2 else None
                assert inner is None or inner in ENGINES[engine], f"{module} imports {name}"


def test_nobody_imports_a_room_past_the_package():
    """``import methods`` works in the repository's root, but would copy every class."""
    for folder in ("editbench", *ROOMS, "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in imports(path.read_text(encoding="utf-8")):
                assert name.split(".")[0] not in ROOMS, f"{path.relative_to(ROOT)} imports {name}"


def test_light_nouns_import_nothing_heavy():
    assert LIGHT_NOUNS <= NOUNS
    for name in LIGHT_NOUNS - {"hub"}:  # hub patches a library that is loaded already
        source = (ROOT / "editbench" / f"{name}.py").read_text(encoding="utf-8")
        tree = ast.parse(source)
        names = (
            {n for node in tree.body for n in imports(ast.unparse(node))} if tree.body else set()
        )
        assert not {name.split(".")[0] for name in names} & HEAVY, name


def test_strings_of_the_registry_lead_into_their_own_room():
    import importlib

    for room in ("methods", "corpora", "eval"):
        found = importlib.import_module(f"editbench.{room}")
        for name, place in {**found.BUILTINS, **getattr(found, "EASYEDIT", {})}.items():
            assert place.startswith(f"editbench.{room}."), (name, place)


def loaded_after(code):
    """Return the heavy modules that a fresh Python has loaded after running ``code``."""
    heavy = f"set({sorted(HEAVY)!r}) & sys.modules.keys()"
    code += f"\nimport sys, json\nprint(json.dumps(sorted({heavy})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LIGHT = {
    "import": "import editbench; editbench.Fact('a', 'b is', 'c')\n"
    "from editbench import errors, plugin, stats, types; from editbench.records import reading",
    "help": "import sys; sys.argv = ['editbench', '--help']\nfrom editbench.cli import main\n"
    "try: main()\nexcept SystemExit as stop: assert not stop.code",
    "compare --help": "import sys; sys.argv = ['editbench', 'compare', '--help']\n"
    "from editbench.cli import main\n"
    "try: main()\nexcept SystemExit as stop: assert not stop.code",
    "list": "import sys\nfrom editbench.cli import main\n"
    "for what in ('corpora', 'models', 'tasks'):\n    sys.argv = ['editbench', 'list', what]\n"
    "    try: main()\n    except SystemExit as stop: assert not stop.code",
    "unknown method": "import sys; sys.argv = ['editbench', 'compare', '--methods', 'nosuch']\n"
    "from editbench.cli import main\n"
    "try: main()\nexcept SystemExit as stop: assert stop.code == 2",
    "corpora": "import editbench.corpora.zsre, editbench.corpora.counterfact\n"
    "from editbench import registry\n"
    "for name in registry.names('corpora'): registry.get('corpora', name)\n"
    "assert registry.get('corpora', 'demo-zsre')().load()",
    "leaderboard": "from editbench.leaderboard import failures, markdown, rows",
}


@pytest.mark.parametrize("what", LIGHT)
def test_what_needs_no_model_loads_no_torch(what):
    assert loaded_after(LIGHT[what]) == []


def test_public_names_are_there_and_load_on_use():
    import editbench

    for name in editbench.__all__:
        assert getattr(editbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = editbench.nosuch
