"""The software and the checkout that a record was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("editbench", "torch", "transformers", "lm_eval", "datasets", "numpy")


def environment() -> dict[str, Any]:
    """Python, platform, CPU count, package versions (``None`` if not installed) and the commit of the checkout."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": versions,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit, ``-dirty`` if tracked files differ; ``None`` if this is no checkout of editbench."""
    root = Path(__file__).resolve().parents[2]
    # Without this check a package installed below somebody's own repository would report that one's commit.
    if not (root / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        return (
            subprocess.run(
                command, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            or None
        )
    except (OSError, subprocess.SubprocessError):
        return None
