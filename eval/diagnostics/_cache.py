"""Let the base write its own texts, and cache what depends on the base alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from editbench.hub import cache_dir
from editbench.models import LanguageModel
from editbench.own_text import own_texts
from editbench.types import digest

VERSION = 1
"""Version of the cached values. Raise it when a change here or in a caller can change a value."""
LENGTH = 32
"""Tokens that the model writes in each text."""


def texts_of(
    model: LanguageModel, purpose: str, tokens: int, seed: int
) -> list[tuple[list[int], list[int]]]:
    """Let the model write about ``tokens`` tokens of text, different text for each ``purpose``.

    Returns:
        For each text, the ids of its opening and the ids that the model wrote after it.
    """
    # The purpose is part of the texts' seed.
    blocks = own_texts(model, tokens, int(digest([purpose, seed])[:8], 16), LENGTH)
    return [text for block in blocks for text in block]


def setting(model: LanguageModel) -> list[object]:
    """Return what a model's numbers depend on besides its weights: part of every cache key."""
    return [model.precision, model.chat]


def cached(
    kind: str, key: Sequence[object], compute: Callable[[], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Return the result of ``compute`` on the CPU, from the cache if it was computed before.

    A damaged or foreign file is replaced. If the cache cannot be written, the result is computed
    again next time.
    """
    name = digest([VERSION, *key])
    # The file's name is shortened. The checksum holds the whole name, so a clash is noticed.
    path = cache_dir() / kind / f"{name[:24]}.safetensors"
    with suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
        # Clones: Windows replaces no file while a tensor lies in it (``read_tensors``).
        stored = {tensor: file.get_tensor(tensor).clone() for tensor in file.keys()}
        if (file.metadata() or {}).get("sha256") == _checksum(name, stored):
            return stored
    computed = {tensor: values.cpu().contiguous() for tensor, values in compute().items()}
    # Write a temporary file next to it and rename that, so that nobody ever reads half a file.
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(computed, temporary, {"sha256": _checksum(name, computed)})
        os.replace(temporary, path)
    except (OSError, SafetensorError):
        with suppress(OSError):
            temporary.unlink()
    return computed


def _checksum(key: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Hash the key with the values, so that a file renamed by hand does not pass either."""
    sha = hashlib.sha256(key.encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode())
        # As bytes: NumPy has no bfloat16.
        sha.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
