"""Read what a class declares from its source text: importing a method would import torch."""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path


def declared(module: str, name: str, attribute: str) -> object:
    """Return the constant that the class ``name`` of ``module``, or a base of it, gives a name.

    Raises:
        LookupError: none does, as far as the text shows.
    """
    tree = _tree(module)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise LookupError(name)
    for line in classes[name].body:
        if getattr(line, "name", "") == attribute:  # a property, which is computed
            raise LookupError(attribute)
        if not isinstance(line, ast.AnnAssign | ast.Assign) or line.value is None:
            continue
        targets = line.targets if isinstance(line, ast.Assign) else [line.target]
        if attribute in map(ast.unparse, targets):
            try:
                return ast.literal_eval(line.value)
            except ValueError:  # computed
                raise LookupError(attribute) from None
    origins = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for base in classes[name].bases:
        # A generic base, such as ``BatchEditor[Bench]``, is the class before the brackets.
        parent = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
        origin = module if parent in classes else origins.get(parent)
        if origin and origin.startswith("editbench."):
            try:
                return declared(origin, parent, attribute)
            except LookupError:
                continue
    raise LookupError(attribute)


@lru_cache(maxsize=64)
def _tree(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise LookupError(module)
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
