"""Make sure that the main memory suffices."""

from __future__ import annotations

import torch

from editbench.errors import MethodError
from editbench.memory import free_bytes


def check_memory(needed: int, use: str) -> None:
    """Make sure that the main memory holds ``needed`` more bytes.

    Raises:
        MethodError: It does not. ``use`` tells the user what the bytes are for.
    """
    free = free_bytes(torch.device("cpu"))
    if needed > free:
        raise MethodError(
            f"{use[0].upper()}{use[1:]} takes {needed / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB are free. Name fewer layers in a weight editor, leave "
            "null_space out in a trainer, or use a machine with more memory."
        )
