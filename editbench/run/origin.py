"""Where a method comes from that is not editbench's own: its package, and the address of that."""

from __future__ import annotations

import os
import re
from importlib.metadata import Distribution, entry_points

from editbench import registry
from editbench.errors import EditbenchError
from editbench.records.schema import OriginRecord

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


def _url(package: Distribution) -> str:
    """Return the address that a package gives for its repository; empty if it gives none."""
    found = {}
    for line in package.metadata.get_all("Project-URL") or ():
        label, _, url = line.partition(",")
        found[re.sub(r"[\W_]", "", label).lower()] = url.strip()
    home: list[str] = package.metadata.get_all("Home-page") or [""]
    return next((found[label] for label in LABELS if found.get(label)), home[0])
