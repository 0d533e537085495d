"""The software and the checkout with which a record was made."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from editbench.records.schema import Environment

PACKAGES = ("editbench", "torch", "transformers", "lm_eval", "datasets", "numpy")


def environment() -> Environment:
    """Return the versions of Python and ``PACKAGES``, the platform, and the commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": packages(),
        "commit": _commit(),
    }


def packages() -> dict[str, str | None]:
    """Return the installed version of each of ``PACKAGES``, ``None`` if it is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _commit() -> str | None:
    """Return the commit, with ``-dirty`` if files differ from it; ``None`` without a checkout."""
    root = Path(__file__).resolve().parents[2]
    # Without this check, a package that is installed inside somebody else's repository would report
    # the commit of that repository.
    if not (root / ".git").exists():
        return None
    # --exclude=* hides all tags, so that git falls back to the hash (--always), here in full.
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
