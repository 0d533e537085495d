"""The processes of one training, as ``accelerate launch`` and ``torchrun`` start them.

All run the same command. The first one speaks, writes the files and judges the edit; the others
compute their share and keep silent. A process that ends with an error leaves its sentence where the
others find it, and the first to end says it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from editbench.errors import EditbenchError, MethodError, OptionError

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

MEET = timedelta(minutes=5)
"""How long a process waits for the others at the start."""
WAIT = timedelta(hours=12)
"""How long it waits for them later. A process that has died is noticed at once, by its closed
connection, so this only has to be longer than the longest share of work."""
_ERROR = "editbench/error"


class _Joined:
    """What connects the processes; one for each process."""

    store: Store | None = None
    group: ProcessGroup | None = None
    """For numbers and objects in main memory, whatever the device."""


class LostProcess(MethodError):
    """Another process of the training has ended, so this one cannot go on."""


def count() -> int:
    """Return how many processes were started together; 1 unless a launcher did."""
    # accelerate launch and torchrun set this variable.
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", 0)) if count() > 1 else 0


def is_first() -> bool:
    """Return whether this process speaks and writes for all."""
    return rank() == 0


def which() -> str:
    """Return what to add to the program's name in a message of this process."""
    return "" if is_first() else f", process {rank()} of {count()}"


def share(things: list[T]) -> list[T]:
    """Return this process's part of ``things``: every ``count()``-th one."""
    return things[rank() :: count()]


# --- together -----------------------------------------------------------------------------------


def join() -> None:
    """Connect to the other processes, once; a process alone does nothing.

    Raises:
        OptionError: the launcher did not say where they meet, or they did not all come.
    """
    if count() == 1 or _Joined.group is not None:
        return
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    own = int(os.environ.get("LOCAL_RANK", 0))
    try:
        if not distributed.is_initialized():
            if torch.cuda.is_available() and own < torch.cuda.device_count():
                torch.cuda.set_device(own)  # so that "cuda" is this process's own GPU
            store, number, n = next(rendezvous("env://", timeout=MEET))
            store.set_timeout(MEET)
            _Joined.store = store
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(
                backend, store=store, rank=number, world_size=n, timeout=WAIT
            )
        _Joined.group = distributed.new_group(backend="gloo", timeout=WAIT)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise OptionError(
            f"{count()} processes were launched and did not find each other: {reason}. Start them "
            "with accelerate launch or torchrun."
        ) from error


def gathered(value: T) -> list[T]:
    """Return ``value`` of each process, by rank; the same list in all of them."""
    if count() == 1:
        return [value]
    from torch import distributed

    join()
    values: list[T] = [value] * count()
    with peers():
        distributed.all_gather_object(values, value, group=_Joined.group)
    return values


def first(value: T) -> T:
    """Return ``value`` of the first process."""
    return gathered(value)[0]


def summed(*numbers: float) -> list[float]:
    """Return each of ``numbers`` summed over the processes, in float64; the same in all of them."""
    if count() == 1:
        return list(numbers)
    import torch
    from torch import distributed

    join()
    sums = torch.tensor(numbers, dtype=torch.float64)
    with peers():
        distributed.all_reduce(sums, group=_Joined.group)
    return sums.tolist()


def average(tensors: Sequence[torch.Tensor]) -> None:
    """Replace each tensor by its mean over the processes, which all have the same ones."""
    import torch
    from torch import distributed

    join()
    if count() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # one message, not hundreds
    with peers():
        distributed.all_reduce(flat)
    flat /= count()
    for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def check_alike(what: Mapping[str, object]) -> None:
    """Check that all processes have the same ``what``: name -> value.

    Raises:
        OptionError: the message names the first thing that differs, and in which process.
    """
    own = {name: str(value) for name, value in what.items()}
    first, *others = gathered(own)
    for number, other in enumerate(others, start=1):
        for name, value in first.items():
            if other.get(name) != value:
                raise OptionError(
                    f"The processes differ: {name} is {value} in process 0 and {other.get(name)} "
                    f"in process {number}. Start all of them from the same environment, on the "
                    "same files."
                )


def check_may(method: str, over_processes: bool) -> None:
    """Check that a method may run in several processes, if several were started.

    Raises:
        MethodError: it computes in one.
    """
    if count() > 1 and not over_processes:
        raise MethodError(
            f"{method} computes in one process, and {count()} were launched. Start it without "
            "accelerate launch or torchrun, or with --num_processes 1."
        )


# --- ends -----------------------------------------------------------------------------------------


@contextmanager
def together() -> Iterator[None]:
    """Inside, only the first process writes to stdout and stderr.

    An error that ends this process is left for the others to find.

    Raises:
        LostProcess: another process has ended.
    """
    with ExitStack() as stack:
        if not is_first():
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        try:
            with peers():
                yield
        except Exception as error:
            # This one ends with a traceback, of which the others say the last line.
            if not isinstance(error, (EditbenchError, OSError)):
                says(f"{type(error).__name__}: {error}")
            raise


@contextmanager
def peers() -> Iterator[None]:
    """Turn the error of a closed connection into the sentence of the process that closed it.

    Raises:
        LostProcess: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        from torch import distributed

        if count() == 1 or not (
            isinstance(error, distributed.DistError) or "gloo" in str(error).lower()
        ):
            raise
        raise LostProcess(_what_ended()) from error


def says(message: str) -> bool:
    """Return whether this process is the first to end with an error, so that it has to say it."""
    if _Joined.store is None:
        return is_first()
    own = f"{rank()}: {message}"
    try:
        return _Joined.store.compare_set(_ERROR, "", own) == own.encode()
    except RuntimeError:  # the store ended with its process
        return False


def _what_ended() -> str:
    store = _Joined.store
    try:
        if store is not None and store.check([_ERROR]):
            number, _, message = store.get(_ERROR).decode().partition(": ")
            return f"Process {number} of {count()} has ended: {message}"
    except RuntimeError:
        pass
    return (
        f"One of the {count()} processes has ended without a word, as one does that is killed for "
        "lack of memory. Nothing was written."
    )
