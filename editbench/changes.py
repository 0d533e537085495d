"""Changes of weights: dense tensors or factors, their shapes, sums and flaws.

A change is kept as it was made. Factors stay factors, which take little space, and are multiplied
in float64 where they are added to a weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

Change = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
"""A dense change, or factors (left, right) whose product is the change."""
Keys = Mapping[str, torch.Tensor]
"""Keys (f, M) of an edit's facts, by the weight that they belong to."""
Values = torch.Tensor
"""(N, d), float32: what a weight editor wants each of an edit's facts to have."""
Sums = Mapping[str, torch.Tensor]
"""Sums (3, k) over the tokens of an edit's facts, float64, by the weight that they belong to."""
VALUES = "values"
"""Name of ``Edit.values`` among the tensors of a saved edit."""


def shape(change: Change) -> torch.Size:
    """Return the shape of the weight that ``change`` belongs to."""
    if isinstance(change, torch.Tensor):
        return change.shape
    left, right = change
    return torch.Size([left.shape[0], right.shape[1]])


def dense(change: Change) -> torch.Tensor:
    """Return ``change`` as one tensor on the CPU. Factors are multiplied in float64."""
    if isinstance(change, torch.Tensor):
        return change.cpu()
    left, right = change
    return left.cpu().double() @ right.cpu().double()


def summed(first: Change, second: Change) -> Change:
    """Return the sum of two changes of one weight.

    The sum of two products is one product of larger rank. Its factors take as much space as those
    of both changes together.
    """
    # L R + L' R' = [L L'] [R; R']
    if isinstance(first, tuple) and isinstance(second, tuple):
        (left, right), (more_left, more_right) = first, second
        return (
            torch.cat([left, more_left.to(left)], dim=1),
            torch.cat([right, more_right.to(right)], dim=0),
        )
    return (dense(first) + dense(second)).float()


def joined(first: Keys, second: Keys) -> dict[str, torch.Tensor]:
    """Return the keys (f, M) of two edits side by side, by weight."""
    # [A B] [A B]^T = A A^T + B B^T, the sum that ``Edit.keys`` stands for
    return {
        name: torch.cat([keys[name] for keys in (first, second) if name in keys], dim=1)
        for name in dict.fromkeys([*first, *second])
    }


def added_up(first: Sums, second: Sums) -> dict[str, torch.Tensor]:
    """Return the sums over the tokens of both edits, by weight."""
    whole = {**first, **second}
    for name in first.keys() & second.keys():
        whole[name] = first[name] + second[name]
    return whole


def part_of(tensors: Mapping[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """Return the tensors called ``WEIGHT|part``, by weight."""
    return {
        key.removesuffix(f"|{part}"): tensor
        for key, tensor in tensors.items()
        if key.endswith(f"|{part}")
    }


def changes_in(tensors: Mapping[str, torch.Tensor]) -> dict[str, Change]:
    """Return the changes among ``tensors``; the inverse of ``Edit._tensors``."""
    changes: dict[str, Change] = {}
    for key, tensor in tensors.items():
        name, part = key.split("|")
        if part in ("keys", "sums"):
            continue
        # Either one dense tensor or two factors; both at once would be ambiguous.
        both = part == "delta" and f"{name}|left" in tensors
        if part not in ("delta", "left", "right") or both:
            raise ValueError(f"tensor {key!r} is not part of a change")
        if part == "delta":
            changes[name] = tensor
        else:
            changes[name] = (tensors[f"{name}|left"], tensors[f"{name}|right"])
    return changes


def flaw_of(
    changes: Mapping[str, Change],
    keys: Keys,
    values: Values | None = None,
    sums: Sums | None = None,
) -> str | None:
    """Return what keeps these tensors from being those of an edit, or ``None``."""
    parts = [(name, t) for name, c in changes.items() for t in (c if isinstance(c, tuple) else [c])]
    kept = [] if values is None else [(VALUES, values)]
    sums = sums or {}
    for name, tensor in [*parts, *keys.items(), *sums.items(), *kept]:
        if not tensor.is_floating_point():
            return f"{name!r} has values of type {str(tensor.dtype).removeprefix('torch.')}"
        if not is_finite(tensor):
            return f"{name!r} has values that are infinite or NaN"
    for name, change in changes.items():
        if flaw := misfit(change):
            return f"of {name!r} {flaw}"
    for name, a_fM in keys.items():
        if a_fM.dim() != 2 or (name in changes and len(a_fM) not in shape(changes[name])):
            return f"the keys of {name!r} have shape {tuple(a_fM.shape)}"
    for name, sums_3k in sums.items():
        if name in changes and sums_3k.shape != (3, sum(shape(changes[name]))):
            return f"the sums of {name!r} have shape {tuple(sums_3k.shape)}"
    return None


def is_finite(tensor: torch.Tensor) -> bool:
    # isfinite() of the whole tensor would take more memory than the tensor itself.
    return not tensor.numel() or all(bool(end.isfinite()) for end in tensor.aminmax())


def misfit(change: Change) -> str | None:
    """Return why two factors have no product, ``None`` if they have one or ``change`` is dense."""
    if isinstance(change, torch.Tensor):
        return None
    left, right = change
    if left.dim() == right.dim() == 2 and left.shape[1] == right.shape[0]:
        return None
    return f"the factors {tuple(left.shape)} and {tuple(right.shape)} have no product"
