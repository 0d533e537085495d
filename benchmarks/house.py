"""Measure the house: layers, circles, what a method needs, types, and the length of things.

    python benchmarks/house.py                             # this checkout, as a table
    python benchmarks/house.py --root OTHER_CHECKOUT       # also one from before the files moved
    python benchmarks/house.py --json FILE --label after   # adds {"after": ...} to FILE
    OTHER_CHECKOUT/.venv/bin/python benchmarks/house.py --root OTHER_CHECKOUT --counts

It reads the source and imports nothing of it, but for ``--counts``, which injects one fact into a
tiny model with memit and counts how often the fact is rendered, tokenized and searched for its
subject; run that with the checkout's own Python. Type errors come from the checkout's
``.ci/typecheck`` (minutes); ``--type-errors N`` gives the number instead, ``--no-types`` leaves it
out. Run it before and after a change of the structure. ``benchmarks/results/house.json`` holds the
numbers of commit 66d4271 (``before``) and of the restructured code (``after``).

Every import counts: at the top, inside a function, and for type checkers only. Lengths are in
lines, from ``def`` to the last line. Tests and benchmarks are no source folders.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType

ROOMS = ("methods", "corpora", "eval", "leaderboard")
CORE_LAYERS = ("nouns", "trackers", "records", "run", "cli", "api")
"""From the lowest to the highest: an import may only lead downwards."""
METHOD_LAYERS = {"_common": 0, "statistics": 1, "trace": 1, "_edit": 2, "_train": 2, "_easyedit": 3}
"""Engine -> its layer inside ``methods/``; a method itself stands above all."""
MAY_REACH = {
    "nouns": set(),
    "records": set(),
    "run": {"eval"},
    "cli": {"leaderboard", "methods.statistics", "methods.trace"},
    "api": {"leaderboard"},
    "trackers": set(),
    "methods": set(),
    "corpora": set(),
    "eval": set(),
    "leaderboard": set(),
}
"""Folder -> rooms, or single modules of one, that it may import beside its own."""
FLAT = {
    **dict.fromkeys(("records",), "records"),
    **dict.fromkeys(("api", "runner", "regimes", "tune", "verify"), "run"),
    **dict.fromkeys(("cli", "cli_records", "cli_tools", "console", "__main__"), "cli"),
    **dict.fromkeys(("compose",), "methods"),
}
"""Modules of the flat ``editbench/`` of before -> the layer that their content belongs to."""
FLAT_ENGINES = {
    **dict.fromkeys(("_context", "_hooks", "_memory"), "_common"),
    **dict.fromkeys(("_covariance",), "statistics"),
    **dict.fromkeys(("_trace",), "trace"),
    **dict.fromkeys(("_anchor", "_branches", "_divergence", "_exposure", "_tunable"), "_train"),
    **dict.fromkeys(("_attention", "_editor", "_fisher", "_head", "_linear"), "_edit"),
    **dict.fromkeys(("_refine", "_rows", "_value"), "_edit"),
}
"""Modules of the flat ``methods/`` of before -> the engine that they are part of."""
Numbers = dict[str, object]


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    """As it imports: ``editbench.methods.rome``."""
    path: Path
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text)))

    @property
    def folder(self) -> str:
        """Return the layer or the room that the module belongs to."""
        parts = self.name.split(".")
        if len(parts) < 2:
            return "nouns"
        if len(parts) == 2 and not self.path.name == "__init__.py":
            return FLAT.get(parts[1], "nouns")
        return parts[1] if parts[1] in (*ROOMS, *CORE_LAYERS) else "nouns"

    @property
    def engine(self) -> str | None:
        """Return the engine inside ``methods/``; ``None`` for a method and everywhere else."""
        parts = self.name.split(".")
        if len(parts) < 3 or parts[1] != "methods":
            return None
        package = self.path.name == "__init__.py" or len(parts) > 3
        if parts[2] in METHOD_LAYERS and (package or parts[2] in ("statistics", "trace", "_train")):
            return parts[2]
        return FLAT_ENGINES.get(parts[2])


def load(root: Path) -> dict[str, Module]:
    """Return the modules of all source folders of a checkout, by name."""
    modules = {}
    for folder in ("editbench", *ROOMS):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts if parts[0] == "editbench" else ("editbench", *parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = Module(name, path, path.read_text(encoding="utf-8"))
    return modules


def graph(modules: Mapping[str, Module]) -> dict[str, set[str]]:
    """Return which modules each module imports, the lazily loaded package itself left out."""
    return {
        module.name: {_target(name, modules) for name in _imported(module.nodes)}
        - {None, module.name, "editbench"}
        for module in modules.values()
    }


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _target(name: str, modules: Mapping[str, Module]) -> str | None:
    """Return the module that an imported name belongs to; ``None`` outside the package."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def closure(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    """Return a module and all that it needs, directly or by way of others."""
    reached: set[str] = set()
    todo = [start]
    while todo:
        if (module := todo.pop()) not in reached:
            reached.add(module)
            todo += edges[module]
    return reached


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that need each other."""
    reach = {name: closure(name, edges) for name in edges}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach[other])) for name in edges
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def arrows_upwards(modules: Mapping[str, Module], edges: Mapping[str, set[str]]) -> list[str]:
    """Return the imports that lead to a higher layer, or into a room that is out of reach."""
    return sorted(
        f"{source} -> {target}"
        for source, targets in edges.items()
        for target in targets
        # The package itself loads the names of the roof, on first use.
        if source != "editbench" and not _allowed(modules[source], modules[target])
    )


def _allowed(source: Module, target: Module) -> bool:
    here, there = source.folder, target.folder
    if here == "methods" == there and source.engine:
        level = METHOD_LAYERS[source.engine]
        if target.engine is None:  # a method, or the table of their names
            return False
        return target.engine == source.engine or METHOD_LAYERS[target.engine] < level
    if here == there:
        return True
    if here in CORE_LAYERS and there in CORE_LAYERS:
        return CORE_LAYERS.index(there) < CORE_LAYERS.index(here)
    if there in ROOMS:
        inner = f"{there}.{target.engine or ''}"
        return bool({there, inner} & MAY_REACH[here])
    return there == "nouns" or (here == "leaderboard" and there == "records")


def boundaries_broken(root: Path, modules: Mapping[str, Module]) -> int | None:
    """Return how many imports break the rules of the checkout's own boundary test, if it has one
    that reads them (``tests/project/test_boundaries.py``)."""
    test = root / "tests" / "project" / "test_boundaries.py"
    if not test.is_file():
        return None
    scope: dict[str, object] = {"__file__": str(test), "__name__": "boundaries"}
    exec(compile(test.read_text(encoding="utf-8"), str(test), "exec"), scope)
    violations = scope["violations"]
    assert callable(violations)
    # A generator of data (``build_*``) belongs to the repository, not to what is installed.
    return sum(
        len(violations(module.name, module.text))
        for module in modules.values()
        if module.name not in ("editbench", "editbench.__main__") and ".build_" not in module.name
    )


def string_lookups(modules: Mapping[str, Module]) -> int:
    """Return how often the registry is asked for a plug-in of ``eval`` by a literal name."""
    return sum(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and len(node.args) > 1
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value == "eval"
        for module in modules.values()
        for node in module.nodes
    )


def needed_by_methods(
    modules: Mapping[str, Module], edges: Mapping[str, set[str]]
) -> dict[str, dict[str, int]]:
    """Return how many files and lines of ``methods/`` each registered method needs, itself
    included and empty package files left out."""
    table = modules["editbench.methods"].text
    names = re.findall(r'"(\w+)": "(editbench\.methods\.\w+):', table)
    needed = {}
    for name, module in names:
        reached = [
            modules[m].lines
            for m in closure(module, edges)
            if m.startswith("editbench.methods.") and len(modules[m].lines) > 1
        ]
        needed[name] = {"files": len(reached), "lines": sum(map(len, reached))}
    return needed


def folder_sizes(root: Path, modules: Mapping[str, Module]) -> dict[str, dict[str, int]]:
    """Return files and lines of each source folder, sub-folders apart."""
    sizes: dict[str, dict[str, int]] = {}
    for module in modules.values():
        folder = str(module.path.parent.relative_to(root))
        size = sizes.setdefault(folder, {"files": 0, "lines": 0})
        size["files"] += 1
        size["lines"] += len(module.lines)
    return dict(sorted(sizes.items()))


def function_lengths(modules: Mapping[str, Module]) -> dict[str, float]:
    """Return the median, the 90th percentile and the maximum of all functions."""
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for module in modules.values()
        for node in module.nodes
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return {
        "functions": len(lengths),
        "median": statistics.median(lengths),
        "p90": statistics.quantiles(lengths, n=10)[-1],
        "max": max(lengths),
    }


def documented(modules: Mapping[str, Module]) -> float:
    """Return the share of public functions and methods of classes that have a docstring."""
    public = [
        node
        for module in modules.values()
        for scope in module.nodes
        if isinstance(scope, (ast.Module, ast.ClassDef))
        for node in scope.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and not node.name.startswith("_")
    ]
    return sum(ast.get_docstring(node) is not None for node in public) / len(public)


def bindings(modules: Mapping[str, Module], name: str) -> int:
    """Return how often ``name`` is bound by an assignment or a loop; parameters do not count."""
    return sum(
        isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name
        for module in modules.values()
        for node in module.nodes
    )


def type_errors(root: Path) -> int | None:
    """Return the number of errors of the checkout's type checker; ``None`` without one."""
    check = root / ".ci" / "typecheck"
    if not check.is_file():
        return None
    done = subprocess.run([str(check)], cwd=root, capture_output=True, text=True)
    if "Success" in done.stdout:
        return 0
    total = re.search(r"Found (\d+) errors?", done.stdout)
    if total is None:
        raise SystemExit(f"{check} gave no total:\n{done.stdout[-500:]}{done.stderr[-500:]}")
    return int(total[1])


def measure(root: Path) -> Numbers:
    """Return all numbers that the source alone gives."""
    modules = load(root)
    edges = graph(modules)
    lines = [line for module in modules.values() for line in module.lines]
    text = "\n".join(lines)
    rings = circles(edges)
    upwards = arrows_upwards(modules, edges)
    return {
        "files": len(modules),
        "lines": len(lines),
        "circles": len(rings),
        "modules in circles": sum(map(len, rings)),
        "in circles": rings,
        "arrows upwards": len(upwards),
        "upwards": upwards,
        "boundaries broken": boundaries_broken(root, modules),
        "lookups of eval by string": string_lookups(modules),
        "Any": len(re.findall(r"\bAny\b", text)),
        "type: ignore": len(re.findall(r"#\s*type:\s*ignore", text)),
        "noqa": len(re.findall(r"#\s*noqa", text)),
        "lines over 100": sum(len(line) > 100 for line in lines),
        "lines over 128": sum(len(line) > 128 for line in lines),
        "comment share": sum(line.lstrip().startswith("#") for line in lines) / len(lines),
        "documented public functions": documented(modules),
        "bindings of found": bindings(modules, "found"),
        "bindings of one": bindings(modules, "one"),
        "function lengths": function_lengths(modules),
        "methods need": needed_by_methods(modules, edges),
        "folders": folder_sizes(root, modules),
    }


def counts() -> dict[str, int]:
    """Return how often memit renders, tokenizes and searches one fact of a tiny model.

    A profiler counts the calls of the functions in ``editbench/text.py`` and of the tokenizer whose
    arguments hold the fact's subject, so that it works however the calls are imported.
    """
    os.environ["EDITBENCH_PLUGINS"] = "none"
    from editbench import registry
    from editbench.testing import FACTS, tiny_model, tiny_options
    from editbench.types import Fact

    model = tiny_model("llama")
    fact = next(fact for fact in FACTS if fact.subject)
    method = registry.get("methods", "memit")
    memit = method.from_options("memit", tiny_options(method))
    memit.prepare(model)  # the statistics are of the model's own text, which may name the subject
    tally = {"rendered": 0, "tokenized": 0, "searched": 0}

    def holds(values: Iterable[object]) -> bool:
        texts = (value.prompt if isinstance(value, Fact) else value for value in values)
        return any(isinstance(text, str) and str(fact.subject) in text for text in texts)

    def count(frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        kind = kinds.get((Path(code.co_filename).name, code.co_name))
        if kind and holds(frame.f_locals.values()):
            tally[kind] += 1

    kinds = {
        ("text.py", "render"): "rendered",
        ("subjects.py", "find_subject"): "searched",
        ("tokenization_utils_base.py", "__call__"): "tokenized",
    }
    sys.setprofile(count)
    try:
        memit.inject(model, [fact])
    finally:
        sys.setprofile(None)
    return tally


def show(numbers: Mapping[str, object], indent: str = "") -> None:
    """Print the numbers as an indented table."""
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            print(f"{indent}{name}")
            show(value, indent + "  ")
        elif isinstance(value, list):
            for item in value:
                print(f"{indent}  {' <-> '.join(item) if isinstance(item, list) else item}")
        else:
            text = "–" if value is None else f"{value:.3f}" if isinstance(value, float) else value
            print(f"{indent}{name:<{34 - len(indent)}}{text}")


def main() -> None:
    """Measure a checkout, print the numbers and store them where ``--json`` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the numbers in FILE")
    parser.add_argument("--label", help="under this key, beside those that FILE holds")
    parser.add_argument("--type-errors", type=int, metavar="N", help="the number, not measured")
    parser.add_argument("--no-types", action="store_true", help="leave the type checker out")
    parser.add_argument("--counts", action="store_true", help="inject one fact and count its steps")
    given = parser.parse_args()
    root = given.root.resolve()
    numbers = measure(root)
    if given.type_errors is not None:
        numbers["type errors"] = given.type_errors
    elif not given.no_types:
        numbers["type errors"] = type_errors(root)
    if given.counts:
        numbers["one fact through memit"] = counts()
    show(numbers)
    if given.json:
        stored = numbers
        if given.label:
            known = json.loads(given.json.read_text()) if given.json.is_file() else {}
            stored = {**known, given.label: numbers}
        given.json.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
