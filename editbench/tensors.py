"""Read tensors from a file, and keep no hold of the file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return copies of the tensors in a safetensors file.

    safetensors maps the file into memory, and Windows replaces and removes no file that is mapped.

    Raises:
        SafetensorError: the file is damaged.
    """
    return {name: tensor.clone() for name, tensor in load_file(path).items()}
