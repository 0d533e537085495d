"""Tensors that are kept in a file and not in memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from editbench import tensors
from editbench.hub import cache_dir
from editbench.tensors import filed, read_tensors

KINDS = {
    "matrix": torch.arange(12.0).view(3, 4),
    "number": torch.tensor(3.0, dtype=torch.float64),
    "half": torch.arange(7).to(torch.bfloat16),
    "turned": torch.arange(12.0).view(3, 4).T,
    "none": torch.zeros(0, 5),
    "counts": torch.arange(5),
}


def files():
    """Return what is in the cache; nothing of a file without a name."""
    return sorted(cache_dir().glob("*")) if cache_dir().exists() else []


def test_what_is_put_into_a_file_comes_back_and_is_a_copy():
    before = files()
    given = {name: tensor.clone() for name, tensor in KINDS.items()}
    found = filed(given.items(), sum(tensor.nbytes for tensor in given.values()))
    for tensor in given.values():
        tensor.zero_()
    assert found.keys() == KINDS.keys() and files() == before
    for name, tensor in KINDS.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    found["matrix"] += 1  # like any other tensor
    assert torch.equal(found["matrix"], KINDS["matrix"] + 1)
    (kept,) = filed([("a", torch.ones(3))], 12).values()
    del found
    assert kept.sum() == 3


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says what is resident")
def test_it_takes_no_memory():
    def resident():
        """Return size and resident part, in KiB, of what is mapped from files without a name."""
        size, inside = [0, 0], False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            key = line.split()[0]
            if not key.endswith(":"):
                inside = line.endswith("(deleted)") and str(cache_dir()) in line
            elif inside and key in ("Size:", "Rss:"):
                size[key == "Rss:"] += int(line.split()[1])
        return size

    found = filed(((str(i), torch.full((2**20,), float(i))) for i in range(32)), 2**27)
    size, held = resident()
    assert size >= 2**17 and held < 2**14
    assert [int(found[str(i)].sum() / 2**20) for i in range(32)] == list(range(32))
    assert resident()[1] >= 2**17, "what is used is there"


def test_no_more_fits_than_was_said():
    with pytest.raises(ValueError, match="'b' goes beyond the 4 bytes"):
        filed([("a", torch.zeros(1)), ("b", torch.zeros(2**21))], 4)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="of POSIX")
def test_a_full_disk_is_an_error_before_anything_is_written(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        filed([("a", torch.zeros(3))], 12)


@pytest.mark.parametrize("large", [0, 2**20])
def test_read_tensors_outlive_their_file(large, tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "LARGE", large)
    save_file({"a": torch.arange(6.0)}, tmp_path / "it")
    found = read_tensors(tmp_path / "it")["a"]
    (tmp_path / "it").unlink()
    assert torch.equal(found, torch.arange(6.0))
