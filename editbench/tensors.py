"""Tensors in files: read without a copy, or put there so that no main memory is taken.

What is in a file is mapped into memory. The system reads a page of it when it is used, and gives it
up again when memory is short, so that a large copy costs disk and not memory.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import IO

import torch
from safetensors.torch import load_file

from editbench.errors import MethodError
from editbench.hub import cache_dir
from editbench.memory import gibibytes

LARGE = 2**27
"""Bytes from which tensors stay in their file. Smaller ones are copied out of it."""
ALIGNED = 64
"""Bytes: each tensor in a file begins at a multiple of them."""
FILED = 2**30
"""Bytes from which copies of weights, and a change of all weights, are in a file (``kept``)."""
BETWEEN = 2**22
"""Bytes for the gaps between tensors, enough for 65,000 of them."""


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors in a safetensors file. Those of a file of ``LARGE`` bytes stay in it.

    Smaller ones are copied, and on Windows all are, since it replaces and removes no file that is
    mapped.

    Raises:
        SafetensorError: the file is damaged.
    """
    tensors = load_file(path)
    if os.name != "nt" and path.stat().st_size >= LARGE:
        return tensors
    return {name: tensor.clone() for name, tensor in tensors.items()}


def kept(
    tensors: Iterable[tuple[str, torch.Tensor]], size: int, what: str
) -> dict[str, torch.Tensor]:
    """Return tensors, from a file if they are large; ``size`` is that of all, in bytes.

    So a training of all weights holds the weights, their gradients and AdamW's two moments alone:
    16 bytes a parameter. The weights as they were, and the edit, are on the disk.

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


def filed(tensors: Iterable[tuple[str, torch.Tensor]], size: int) -> dict[str, torch.Tensor]:
    """Copy tensors to a file, one after the other, and return them from there, on the CPU.

    The file is in ``cache_dir()`` and has no name: it is gone when the last of them is. On Windows
    they are copies in memory.

    Args:
        size: bytes of all tensors, at least.

    Raises:
        OSError: the disk has no room for them.
    """
    if os.name == "nt" or not size:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors}
    cache_dir().mkdir(parents=True, exist_ok=True)
    found: dict[str, torch.Tensor] = {}
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        mapped, begin = _mapped(file, size), 0
        for name, tensor in tensors:
            shape, count = tensor.shape, prod(tensor.shape)
            if not count:
                found[name] = tensor.detach().to("cpu", copy=True)
                continue
            end = begin + count * tensor.itemsize
            if end > len(mapped):
                raise ValueError(f"{name!r} goes beyond the {size} bytes that were said")
            flat = torch.frombuffer(mapped, dtype=tensor.dtype, count=count, offset=begin)
            found[name] = flat.view(shape)
            found[name].copy_(tensor.detach())
            # The pages are in the file now, and need not stay in this process.
            if hasattr(mapped, "madvise"):
                mapped.madvise(mmap.MADV_DONTNEED)
            begin = end + -end % ALIGNED
    return found


def _mapped(file: IO[bytes], size: int) -> mmap.mmap:
    """Return a map of ``size`` bytes of ``file`` and some more, after taking them on the disk."""
    room = size + BETWEEN
    if hasattr(os, "posix_fallocate"):
        # Without it, writing to a full disk would kill the process.
        os.posix_fallocate(file.fileno(), 0, room)
    else:
        file.truncate(room)
    return mmap.mmap(file.fileno(), room)
