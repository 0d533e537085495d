"""What a training of all weights keeps beside them, in a file where it is large.

The memory then holds the weights, their gradients and AdamW's two moments alone: 16 bytes a
parameter. The weights as they were, and the edit, are on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from editbench.errors import MethodError
from editbench.hub import cache_dir
from editbench.memory import gibibytes
from editbench.tensors import filed

FILED = 2**30
"""Bytes in float32 from which they are in a file."""


def kept(
    tensors: Iterable[tuple[str, torch.Tensor]], size: int, what: str
) -> dict[str, torch.Tensor]:
    """Return tensors, from a file if they are large; ``size`` is that of all, in bytes.

    Raises:
        MethodError: the disk has no room for them. ``what`` says what they are.
    """
    if size < FILED:
        return dict(tensors)
    try:
        return filed(tensors, size)
    except OSError as error:
        raise MethodError(
            f"There is no room for {what} ({gibibytes(size)}) in {cache_dir()}: {error.strerror}. "
            "Free the disk, let EDITBENCH_CACHE name a folder on another one, or use lora."
        ) from error
