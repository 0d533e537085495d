"""Work in batches, and in smaller ones when memory runs out.

A model has one ``BatchSizes``. What it computes in batches has a usual size each (texts to score,
facts to solve), which ``--batch-size N`` replaces for all of them. A batch that does not fit into
memory is computed again in halves. Results are then equal to rounding, and a sentence says so.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from editbench import progress
from editbench.errors import ModelError, OptionError

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchSizes:
    """How many items a model computes together, by what they are.

    Raises:
        OptionError: ``given`` is below 1.
    """

    def __init__(self, given: int | None = None):
        if given is not None and given < 1:
            raise OptionError(f"The batch size is {given}; it must be at least 1, or auto.")
        self.given = given
        """The user's size; ``None``: each kind of work has its own."""
        self.notes: list[str] = []
        """The sentences about memory that ran out, in order."""
        self._most: dict[str, int] = {}

    def of(self, what: str, usual: int) -> int:
        """Return the size for work whose usual size is ``usual``, or what memory had room for."""
        size = self.given or usual
        return min(size, self._most.get(what, size))

    def halved(self, what: str, size: int, device: torch.device) -> int:
        """Note that ``size`` of them do not fit into memory, and return half of that."""
        self._most[what] = size // 2
        place = "memory" if device.type == "cpu" else f"the memory of {device}"
        self.note(
            f"{size} {what} at once do not fit into {place}, so it goes on with {size // 2}. "
            "Results differ by rounding at most."
        )
        return size // 2

    def note(self, sentence: str) -> None:
        """Keep a sentence, and show it unless it was shown before."""
        if sentence not in self.notes:
            progress.say(sentence)
        self.notes.append(sentence)


def in_batches(
    sizes: BatchSizes,
    what: str,
    items: Sequence[Item],
    usual: int,
    work: Callable[[list[Item]], Result],
    device: torch.device,
    describe: Callable[[Item], str],
    take: Callable[[list[Item], int], list[Item]] | None = None,
) -> Iterator[tuple[list[Item], Result]]:
    """Yield each batch of ``items``, in order, with the result of ``work``.

    When memory runs out, the failed batch is tried again at half its size, and later batches of the
    same kind are no larger.

    Args:
        what: the kind of the items, in plural: "texts to score".
        usual: the size of a batch, unless ``sizes`` says another.
        describe: completes "There is no memory to ..." for a single item.
        take: returns the next batch of the waiting items, of at most the given size; by default the
            first ones.

    Raises:
        ModelError: the memory does not suffice for a single item.
    """
    waiting = list(items)
    while waiting:
        size = sizes.of(what, usual)
        batch = take(waiting, size) if take else waiting[:size]
        try:
            result = work(batch)
        # torch.OutOfMemoryError is a RuntimeError too.
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise no_memory(describe(batch[0])) from error
        else:
            yield batch, result
            waiting = waiting[len(batch) :]
            continue
        # Out here the error is gone, and with it the arrays of the failed pass.
        free_cached()
        sizes.halved(what, len(batch), device)


def no_memory(what: str) -> ModelError:
    """Return the error for a single item that does not fit; ``what`` begins with a verb."""
    return ModelError(
        f"There is no memory to {what}. Shorten the text, hold the weights in fewer bits (--dtype "
        "bfloat16), or use a larger machine."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` is a failed allocation, on a device or in main memory."""
    import torch  # 'editbench list' loads this module, and needs no torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch's allocators for the CPU and for Apple's GPUs raise a plain RuntimeError
    message = str(error)
    return isinstance(error, RuntimeError) and any(
        known in message
        for known in ("not enough memory", "can't allocate memory", "backend out of memory")
    )


def free_cached() -> None:
    """Give back the blocks that torch's allocator keeps, so that smaller ones find room."""
    import torch

    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def batched(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Yield consecutive chunks of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
