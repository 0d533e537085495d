"""How much memory is free, and what to do when there is too little."""

from __future__ import annotations

import psutil
import torch

from editbench.errors import MethodError


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had on ``device``."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def check_memory(needed: int, what: str) -> None:
    """Makes sure that the main memory holds ``needed`` more bytes.

    Raises:
        MethodError: it does not.
    """
    free = psutil.virtual_memory().available
    if needed > free:
        raise MethodError(
            f"{what[0].upper()}{what[1:]} takes {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free. "
            "Edit fewer layers (--option METHOD.layers=...), or use a machine with more memory."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is an allocation that failed, on a GPU or in main memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("not enough memory" in said or "can't allocate memory" in said)
