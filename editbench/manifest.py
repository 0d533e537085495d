"""``manifest.json`` of a saved edit: what it says, and whether the other files are as it says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from editbench.types import digest

FORMAT = 3
"""Version of the files of a saved edit. Format 1, which had no hashes, and format 2, which had no
values and no parts, are still read."""


class ModelName(TypedDict):
    """The model of a saved edit."""

    name: str
    hash: str
    """``LanguageModel.fingerprint`` of the weights that the edit was made for."""
    dtype: NotRequired[str]
    """In which type those weights are held, where it is not float32."""


class Manifest(TypedDict):
    """``manifest.json`` of a saved edit."""

    format: int
    method: str
    options: dict[str, Any]
    model: ModelName
    facts_hash: str
    """``digest`` of ``facts``."""
    facts: list[dict[str, object]]
    kind: str
    """``weights`` or ``context``."""
    diagnostics: dict[str, Any]
    files: NotRequired[dict[str, str]]
    """SHA-256 of the other files; from format 2 on."""
    parts: NotRequired[list[str]]
    """Of a stack: the ``digest`` of each part's manifest, in the order of ``Edit.parts``."""
    digest: NotRequired[str]
    """``digest`` of all other fields; from format 2 on."""


def check_hashes(folder: Path, manifest: Manifest) -> bool:
    """Check the files against ``manifest``; return whether it has hashes to check them against.

    Raises:
        ValueError: if the manifest or a file is not the one that was saved.
    """
    if manifest["format"] == 1 and "files" not in manifest and "digest" not in manifest:
        return False
    if manifest["format"] not in (2, FORMAT):
        raise ValueError(
            f"it has format {manifest['format']!r}, and this editbench reads 1 to {FORMAT}"
        )
    rest = {name: value for name, value in manifest.items() if name != "digest"}
    if manifest["digest"] != digest(rest):
        raise ValueError("manifest.json is not the file that was saved")
    for name in ("edit.safetensors", "records.jsonl"):
        if sha256(folder / name) != manifest["files"][name]:
            raise ValueError(f"{name} is not the file that was saved with it")
    return True


def sha256(path: Path) -> str:
    with path.open("rb") as file:  # read in pieces: an edit may be larger than the memory
        return hashlib.file_digest(file, "sha256").hexdigest()
