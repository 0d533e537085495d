"""Measure the free memory, and work in smaller batches when it runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from editbench.errors import MethodError
from editbench.memory import free_bytes

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` is a failed allocation, on a GPU or in main memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch's allocator for the CPU raises a plain RuntimeError
    message = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in message or "can't allocate memory" in message
    )


def in_batches(
    items: Sequence[Item],
    take: Callable[[list[Item], int], list[Item]],
    size: int,
    work: Callable[[list[Item]], Result],
    describe: Callable[[Item], str],
) -> Iterator[tuple[list[Item], Result]]:
    """Yield each batch of ``items``, in order, with the result of ``work``.

    When memory runs out, the failed batch is tried again at half its size, and later batches are no
    larger.

    Args:
        take: Returns the next batch of the waiting items, of at most the given size.
        describe: Completes "There is no memory to ..." for a single item.

    Raises:
        MethodError: The memory does not suffice for a single item.
    """
    waiting = list(items)
    while waiting:
        batch = take(waiting, size)
        try:
            result = work(batch)
        # torch.OutOfMemoryError is a RuntimeError too.
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise MethodError(f"There is no memory to {describe(batch[0])}.") from error
            size = len(batch) // 2
            continue
        yield batch, result
        waiting = waiting[len(batch) :]
