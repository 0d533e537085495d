"""Loss and gradient of the training targets, by position in the target.

LongAct says that the signal of a long training text sits in its first 5 % of tokens. So the tokens
of each target are put into ``PARTS``: the first 5 %, at least one token, as the trainers' option
``first=0.05`` has them, and the rest in quarters. A token's gradient is that of its own loss,
-log p0(y_t; x, y_<t), with respect to all weights of the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, TypedDict

import torch
import torch.nn.functional as F

from editbench import progress
from editbench.eval.diagnostics.targets import training_pairs
from editbench.models import LanguageModel

if TYPE_CHECKING:
    from editbench.edit import Edit

FIRST = 0.05
"""Share of a target that is its first part."""
PARTS = ("first", "quarter_1", "quarter_2", "quarter_3", "quarter_4")
"""The first 5 % of a target, then its quarters without them."""
TOKENS = 256
"""About as many tokens are measured: each needs a backward pass of its own. They are those of whole
targets, spread evenly over all."""


class Part(TypedDict):
    """One part of all targets. Its means are ``None`` if it has no tokens."""

    tokens: int
    nll: float | None
    """Mean over its tokens of the loss, in nats."""
    gradient: float | None
    """Mean over its tokens of the norm of the loss's gradient."""


class Positions(TypedDict):
    """Loss and gradient norm by position in the target, under the base."""

    parts: dict[str, Part]
    """In the order of ``PARTS``."""
    first_nll_share: float | None
    """Share of the loss of all tokens that the first part has."""
    first_gradient_share: float | None
    """Share of the gradient norms of all tokens, added up, that the first part has."""
    first_token_share: float
    """Share of all tokens that are in the first part: what it would have if all were alike."""
    targets: int
    """Targets that were measured."""


def measure(model: LanguageModel, edit: Edit) -> Positions | None:
    """Measure the training targets under ``model``, the base; ``None`` for an edit without any.

    The gradient flags of the weights are restored.
    """
    pairs = chosen(training_pairs(model, edit)) if edit.changes else []
    if not pairs:
        return None
    nll: dict[str, list[float]] = {part: [] for part in PARTS}
    norms: dict[str, list[float]] = {part: [] for part in PARTS}
    weights = list(model.model.parameters())
    wanted = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with progress.task("gradients by position", len(pairs), "targets") as bar:
            for prompt, target in pairs:
                for part, (loss, norm) in zip(
                    parts_of(len(target)), _tokens(model, weights, prompt, target), strict=True
                ):
                    nll[part].append(loss)
                    norms[part].append(norm)
                bar.advance()
    finally:
        for weight, flag in zip(weights, wanted, strict=True):
            weight.requires_grad_(flag)
    return {
        "parts": {
            part: {
                "tokens": len(nll[part]),
                "nll": _mean(nll[part]),
                "gradient": _mean(norms[part]),
            }
            for part in PARTS
        },
        "first_nll_share": _share(nll),
        "first_gradient_share": _share(norms),
        "first_token_share": len(nll["first"]) / sum(map(len, nll.values())),
        "targets": len(pairs),
    }


def chosen(pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[list[int], list[int]]]:
    """Return pairs, spread evenly over all, whose targets have about ``TOKENS`` tokens."""
    tokens = sum(len(target) for _, target in pairs)
    step = max(1, ceil(tokens / TOKENS))
    return [pair for pair in pairs[::step] if pair[1]]


def parts_of(length: int) -> list[str]:
    """Return the part of each token of a target that is ``length`` tokens long."""
    # Below the rounding error of the product, as in the trainers.
    first = max(1, ceil(FIRST * length - 1e-9))
    return ["first" if t < first else PARTS[1 + 4 * t // length] for t in range(length)]


def _tokens(
    model: LanguageModel,
    weights: Sequence[torch.nn.Parameter],
    prompt: Sequence[int],
    target: Sequence[int],
) -> list[tuple[float, float]]:
    """Return the loss of each token of a target, and the norm of its gradient."""
    ids_1T = torch.tensor([[*prompt, *target]], device=model.device)
    found = []
    # Without ``weights_fixed``, since the weights get gradients here.
    with torch.enable_grad(), model.compute():
        hidden_1TD = model.hidden(ids_1T[:, :-1], torch.ones_like(ids_1T[:, :-1]))
        # The input lacks the last token, so the last states predict the target.
        logits_NV = model.logits(hidden_1TD[0, -len(target) :])
        losses_N = F.cross_entropy(logits_NV, ids_1T[0, -len(target) :], reduction="none")
    for t, loss in enumerate(losses_N):
        # The graph is needed until the last token.
        more = t + 1 < len(losses_N)
        gradients = torch.autograd.grad(loss, weights, retain_graph=more, allow_unused=True)
        squares = sum(float(g.float().square().sum()) for g in gradients if g is not None)
        found.append((float(loss.detach()), squares**0.5))
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _share(values: dict[str, list[float]]) -> float | None:
    total = sum(map(sum, values.values()))
    return sum(values["first"]) / total if total > 0 else None
