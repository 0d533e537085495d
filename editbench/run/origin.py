"""Where a plug-in comes from that is not editbench's own: its package, address and code."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from editbench import registry
from editbench.errors import EditbenchError
from editbench.records.schema import OriginRecord
from editbench.types import digest

LABELS = ("repository", "source", "sourcecode", "github", "code", "homepage")
"""Labels under which a package names its repository, the best first, as PyPI compares them."""


def origins(method: str) -> list[OriginRecord]:
    """Return the packages of ``method``, or of both parts of a pair, without those of editbench."""
    if os.environ.get("EDITBENCH_PLUGINS") == "none":
        return []
    parts = method.split("+")
    packages = {
        point.name: point.dist
        for point in entry_points(group="editbench.methods")
        if point.name in parts and point.dist
    }
    return [
        {"method": part, "package": found.name, "version": found.version, "url": _url(found)}
        for part in parts
        if (found := packages.get(part))
    ]


def is_own(method: str) -> bool:
    """Return whether editbench itself has ``method``, or all parts of a pair."""
    try:
        return all(
            registry.check("methods", part).startswith("editbench.") for part in method.split("+")
        )
    except EditbenchError:
        return False


def code_of(group: registry.Group, name: str) -> dict[str, str]:
    """Return the digest of the code of each plug-in that is ``name``, or a part of that pair.

    It is of the Python files of the plug-in's package, and nothing else that it may read. What
    editbench has itself is left out: its own ``version`` says when its numbers can move.

    Returns:
        ``method one-step`` or ``evaluator brief`` -> 16 hex digits.

    Raises:
        PluginError: a plug-in cannot be imported.
    """
    if os.environ.get("EDITBENCH_PLUGINS") == "none":
        return {}
    parts = name.split("+")
    return {
        f"{registry.KINDS[group]} {point.name}": _digest(registry.get(group, point.name), point)
        for point in sorted(entry_points(group=f"editbench.{group}"))
        if point.name in parts
    }


# Once for each class: a file that changes under a running process is not the code that runs. A
# module that is loaded again has another class.
@functools.cache
def _digest(plugin: type, point: EntryPoint) -> str:
    hashes = {
        name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in _code_files(point)
    }
    # Without any, as in a zip file, the version has to do.
    version = point.dist.version if point.dist else ""
    return digest(sorted(hashes.items()) or version)[:16]


def _code_files(point: EntryPoint) -> Iterator[tuple[str, Path]]:
    """Yield the Python files of a plug-in's package, each with its path inside the package."""
    package, names = point.dist, [point.module]
    if package is not None:
        for listed in package.files or ():
            file = Path(str(listed.locate()))
            if file.suffix == ".py" and "__editable__" not in file.name and file.is_file():
                yield listed.as_posix(), file
        # An editable install lists none of its files, and setuptools names its modules here.
        names += (package.read_text("top_level.txt") or "").split()
    home: Path | None = None
    for name in names:
        for inside, place in _places(name):
            # Only what lies beside the plug-in: a name such as tests may be another package's.
            home = home or place.parent
            if place.parent == home:
                for file in [place] if place.is_file() else place.rglob("*.py"):
                    yield (inside / file.relative_to(home)).as_posix(), file


def _places(module: str) -> Iterator[tuple[Path, Path]]:
    """Yield the file or folders of the outermost package of ``module``, and what that is inside.

    A namespace package belongs to several distributions, so the one inside it is taken.
    """
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        try:
            spec = find_spec(".".join(parts[:depth]))
        except (ImportError, ValueError):
            return
        if spec is None:
            return
        if spec.origin is not None:
            folders = spec.submodule_search_locations or [spec.origin]
            for place in map(Path, folders):
                if place.is_dir() or place.suffix == ".py":
                    yield Path(*parts[: depth - 1]), place
            return


def _url(package: Distribution) -> str:
    """Return the address that a package gives for its repository; empty if it gives none."""
    found = {}
    for line in package.metadata.get_all("Project-URL") or ():
        label, _, url = line.partition(",")
        found[re.sub(r"[\W_]", "", label).lower()] = url.strip()
    home: list[str] = package.metadata.get_all("Home-page") or [""]
    return next((found[label] for label in LABELS if found.get(label)), home[0])
