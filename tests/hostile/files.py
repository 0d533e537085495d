"""Damaged edits and a full disk, made by code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def as_format_1(folder: Path) -> Path:
    """Make the edit in ``folder`` look as the versions saved it that stored no hashes."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("files", "digest"):
        del manifest[name]
    path.write_text(json.dumps({**manifest, "format": 1}))
    return folder


def flip(path: Path) -> None:
    """Change two bytes near the end of a file."""
    data = bytearray(path.read_bytes())
    for i in (-9, -5):
        data[i] ^= 1
    path.write_bytes(data)


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Replace the tensors of the edit in ``folder`` by ``change`` of them."""
    path = folder / "edit.safetensors"
    save_file(change(load_file(path)), path)


def one_nan(tensors: Tensors) -> Tensors:
    """Return ``tensors`` with a NaN in the first one."""
    name = min(tensors)
    spoiled = tensors[name].clone()
    spoiled.view(-1)[3] = torch.nan
    return {**tensors, name: spoiled}


def wrong_rank(tensors: Tensors) -> Tensors:
    """Return ``tensors`` with a left factor that lacks a column."""
    return {
        name: tensor[:, :-1].contiguous() if name.endswith("|left") else tensor
        for name, tensor in tensors.items()
    }


def times_ten(tensors: Tensors) -> Tensors:
    """Return ``tensors`` times ten."""
    return {name: 10 * tensor for name, tensor in tensors.items()}


def as_int32(tensors: Tensors) -> Tensors:
    """Return ``tensors`` rounded to whole numbers."""
    return {name: tensor.to(torch.int32) for name, tensor in tensors.items()}


def nothing(tensors: Tensors) -> Tensors:
    """Return no tensors."""
    return {}


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond ``room`` bytes inside, as on a disk that is full from there on."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below ``folder`` with their bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
