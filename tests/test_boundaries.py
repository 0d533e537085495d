"""Who may import whom, read from the source; and what stays light, seen in a fresh process."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("methods", "corpora", "eval", "leaderboard")
CORE = {path.stem for path in (ROOT / "editbench").glob("*.py")} - {"__init__"}
ABOVE = {"api", "cli", "console", "registry", "runner", "testing"}
"""Core modules that know the rooms: nothing in a room may lead back to them."""
MAY_IMPORT = {
    "methods": CORE - ABOVE,
    "corpora": {"errors", "hub", "matching", "plugin", "types"},
    "eval": CORE - ABOVE - {"plugin", "edit"},
    "leaderboard": {"errors", "records", "stats", "types"},
}
HEAVY = {"torch", "transformers", "lm_eval", "datasets", "safetensors", "accelerate"}
WITH_TORCH = {
    "cost",
    "edit",
    "export",
    "fisher",
    "layout",
    "models",
    "own_text",
    "regimes",
    "runner",
    "testing",
    "text",
}


def sources(room):
    """The Python files of a room; its generators (``build_*``) are not part of what is installed as a room's work."""
    return sorted(
        path
        for path in (ROOT / room).rglob("*.py")
        if not any(p.startswith("build_") for p in path.parts)
    )


def imports(path, top_only=False):
    """Dotted names that the file imports, wherever in it; ``from a import b`` gives ``a.b``. Not for type checkers only."""
    found, todo = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        if top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        todo += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room):
    files = sources(room)
    assert len(files) >= 3
    for path in files:
        for name in imports(path):
            first, _, rest = name.partition(".")
            if first != "editbench":
                continue
            inner = rest.split(".")[0]
            assert inner == room or inner in MAY_IMPORT[room], (
                f"{path.relative_to(ROOT)} imports {name}"
            )


def test_core_imports_a_room_only_to_show_results():
    found = set()
    for path in sources("editbench"):
        for name in imports(path, top_only=True) | imports(path):
            parts = name.split(".")
            if parts[0] == "editbench" and len(parts) > 1 and parts[1] in ROOMS:
                found.add((path.stem, ".".join(parts[:3])))
        at_top = {name for name in imports(path, top_only=True) if name.startswith("editbench.")}
        assert not any(name.split(".")[1] in ROOMS for name in at_top), path
    rooms = ("rows", "markdown", "plots", "curves", "details", "failures", "comparisons")
    assert found == {("cli_records", f"editbench.leaderboard.{name}") for name in rooms}


def test_nobody_imports_a_room_past_the_package():
    """``import methods`` works from the repository's root, and would make second classes of the same name."""
    for folder in ("editbench", *ROOMS, "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in imports(path):
                assert name.split(".")[0] not in ROOMS, f"{path.relative_to(ROOT)} imports {name}"
                assert name != "editbench.eval", (
                    f"{path.relative_to(ROOT)}: write from editbench.eval import ..."
                )


def test_only_some_of_core_needs_torch():
    for path in sources("editbench"):
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & HEAVY or path.stem in WITH_TORCH, (
            f"{path.name} imports {sorted(names & HEAVY)}"
        )


def test_strings_of_the_registry_lead_into_their_own_room():
    import importlib

    for room in ("methods", "corpora", "eval"):
        for name, place in importlib.import_module(f"editbench.{room}").BUILTINS.items():
            assert place.startswith(f"editbench.{room}."), (name, place)


def loaded_after(code):
    """The heavy modules that a fresh Python has loaded after ``code``."""
    code += f"\nimport sys, json\nprint(json.dumps(sorted(set({sorted(HEAVY)!r}) & sys.modules.keys())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LIGHT = {
    "import": "import editbench; editbench.Fact('a', 'b is', 'c'); from editbench import errors, plugin, records, stats, types",
    "help": "import sys; sys.argv = ['editbench', '--help']\nfrom editbench.cli import main\n"
    "try: main()\nexcept SystemExit as stop: assert not stop.code",
    "compare --help": "import sys; sys.argv = ['editbench', 'compare', '--help']\nfrom editbench.cli import main\n"
    "try: main()\nexcept SystemExit as stop: assert not stop.code",
    "list": "import sys\nfrom editbench.cli import main\n"
    "for what in ('corpora', 'models', 'tasks'):\n    sys.argv = ['editbench', 'list', what]\n"
    "    try: main()\n    except SystemExit as stop: assert not stop.code",
    "unknown method": "import sys; sys.argv = ['editbench', 'compare', '--methods', 'nosuch']\nfrom editbench.cli import main\n"
    "try: main()\nexcept SystemExit as stop: assert stop.code == 2",
    "corpora": "import editbench.corpora.zsre, editbench.corpora.counterfact\nfrom editbench import registry\n"
    "for name in registry.names('corpora'): registry.get('corpora', name)\n"
    "assert registry.get('corpora', 'demo-zsre')().load()",
    "leaderboard": "import editbench.leaderboard.rows, editbench.leaderboard.markdown, editbench.leaderboard.failures",
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
