"""How much memory work needs, said before it begins, and how much there is.

A method says in ``Method.memory`` what it holds at once, as the sizes of tensors. There are no
fitted constants: what a prediction leaves out (the allocator's gaps, small tensors) it gets wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

    from editbench.types import Fact

BYTES_PER_TOKEN = 4
"""Bytes of text that make a token, about: English in the usual vocabularies."""
TEMPLATE_TOKENS = 32
"""Tokens that a chat template puts around a question, about."""


@dataclass(frozen=True)
class Texts:
    """The facts of an injection, as far as memory depends on them; lengths in tokens."""

    facts: int
    prompt: int = 40
    """Of the longest prompt, as the model reads it."""
    target: int = 6
    """Of the longest target."""
    after: int = 8
    """From a subject's last token to the end of its prompt, the mean."""
    usual_prompt: int = 16
    """Of a prompt, the mean: what time depends on."""
    usual_target: int = 4
    """Of a target, the mean."""

    @classmethod
    def of(cls, facts: Sequence[Fact]) -> Texts:
        """Return the size of ``facts``. Their tokens are estimated: no tokenizer is read."""
        around = TEMPLATE_TOKENS if any(fact.form == "question" for fact in facts) else 1
        prompts = [_tokens(fact.prompt) + around for fact in facts] or [1 + around]
        targets = [_tokens(fact.target) for fact in facts] or [1]
        # Without a subject, none of the editors that begin there is used.
        ends = [fact.prompt.rpartition(fact.subject or " ")[2] for fact in facts]
        after = fmean(map(_tokens, ends)) if ends else 1
        usual = [ceil(fmean(lengths)) for lengths in (prompts, targets)]
        return cls(len(facts), max(prompts), max(targets), ceil(after), *usual)

    @property
    def usual(self) -> Texts:
        """The same number of facts, all as long as the mean."""
        return replace(self, prompt=self.usual_prompt, target=self.usual_target)


def _tokens(text: str) -> int:
    return len(text.encode()) // BYTES_PER_TOKEN + 1


@dataclass(frozen=True)
class Phase:
    """A moment of an injection: bytes that are held beside the weights, by what they are."""

    name: str
    device: Mapping[str, int] = field(default_factory=dict)
    """Held where the model is."""
    main: Mapping[str, int] = field(default_factory=dict)
    """Held in the main memory, wherever the model is."""


@dataclass(frozen=True)
class Memory:
    """What a method needs."""

    phases: Sequence[Phase] = ()
    edit: int = 0
    """Bytes of the edit, in the main memory and on the disk."""
    filed: int = 0
    """Bytes of it that are in a file from the start, and take no main memory."""
    changed: int | None = None
    """Bytes of the weights that it changes, of which copies are kept while it is applied; ``None``:
    as many as the edit has, at most those of the model."""


def free_bytes(device: torch.device) -> int:
    """Return the memory that is available on ``device``: on a CPU, to this process and its group.

    A container's limit counts, since what exceeds it is killed.
    """
    if device.type in ("cuda", "xpu"):
        import torch  # loaded already, or there would be no device

        module = getattr(torch, device.type)
        # What the driver has free, and the blocks that torch's allocator keeps without using them.
        kept = module.memory_reserved(device) - module.memory_allocated(device)
        return int(module.mem_get_info(device)[0]) + int(kept)
    if device.type == "mps":
        import torch

        most = torch.mps.recommended_max_memory()
        return max(0, int(most) - int(torch.mps.current_allocated_memory()))
    return min([int(psutil.virtual_memory().available), *left_in_group()])


def free_on_all(kind: str) -> list[int]:
    """Return ``free_bytes`` of each device of a type, such as ``cuda``."""
    import torch  # loaded already, or there would be no device

    return [free_bytes(torch.device(kind, i)) for i in range(getattr(torch, kind).device_count())]


def left_in_group(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return what limits on this process's control group leave, if there are any.

    Inside a container ``root`` is its own group, in either version of Linux's control groups.
    """
    left = []
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        # "max" where there is no limit, no file without control groups
        with suppress(OSError, ValueError):
            most, taken = (int((root / name).read_text()) for name in (limit, used))
            # Cached files count as used, and are given up when memory is short.
            left.append(most - taken + _cached_files(root / limit))
    return left


def _cached_files(limit: Path) -> int:
    """Return the bytes of cached files in the control group of the file ``limit``."""
    with suppress(OSError, ValueError):
        for line in (limit.parent / "memory.stat").read_text().splitlines():
            name, _, size = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(size)
    return 0


def gibibytes(size: float) -> str:
    """Return a number of bytes as a text, such as "2.4 GiB"; a size below 0.1 or above 999 of
    them is given in another unit.
    """
    if size >= 1000 * 2**30:
        return f"{size / 2**40:,.1f} TiB"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit / 10:
            return f"{size / unit:.1f} {name}"
    return "0"
