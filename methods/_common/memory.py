"""How much memory is free, and what to do when there is too little."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import psutil
import torch

from editbench.errors import MethodError

Item, Done = TypeVar("Item"), TypeVar("Done")


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
            "Name fewer layers where there is such an option, leave null_space out, or use a machine with more memory."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is an allocation that failed, on a GPU or in main memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in said or "can't allocate memory" in said
    )


def in_batches(
    items: Sequence[Item],
    take: Callable[[list[Item], int], list[Item]],
    size: int,
    work: Callable[[list[Item]], Done],
    one: Callable[[Item], str],
) -> Iterator[tuple[list[Item], Done]]:
    """Each batch of ``items``, in order, and its ``work``; where memory runs out, half as many at once from there on.

    Args:
        take: the next batch, of at most so many of the items that wait.
        one: what to call a single item for which there is no memory.

    Raises:
        MethodError: no memory for even one.
    """
    waiting = list(items)
    while waiting:
        batch = take(waiting, size)
        try:
            done = work(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise MethodError(f"There is no memory to {one(batch[0])}.") from error
            size = len(batch) // 2
            continue
        yield batch, done
        waiting = waiting[len(batch) :]
