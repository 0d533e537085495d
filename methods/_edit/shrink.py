"""Factors of written values: each fact as strong as it needs to be, and no stronger.

The update of layer l is a sum of one term for each fact. A factor s_i scales fact i's term, in all
layers alike:

    Delta_l = R_l diag(s) A_l^T

What an edit does to other text grows about with the square of its values, so a fact that is said
with room to spare costs more than it needs. The least factors are sought in rounds. A round asks
all facts, each with its present factor, since facts disturb each other. A fact counts as said where

    nll_i + end_i <= bar

with nll_i and end_i as in ``refine.py``. A fact that is said takes a step down (STEP times its
factor), one that is not said takes a step up, and no fact goes back to a factor that was too small
for it. The last rounds only step up. A fact that no factor made the model say keeps factor 1.

There are only forward passes, and the model stays as it is. This is ours, not from a paper.

    # N facts, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from editbench import progress
from editbench.methods._common.texts import Example
from editbench.methods._edit.prepare import PreparedFact
from editbench.methods._edit.refine import Side, Written, nll_and_end
from editbench.models import LanguageModel, batched
from editbench.placing import devices_of

STEP = 0.88
"""What one step multiplies a factor with."""
DOWN, UP = 6, 2
"""Most steps down and up from factor 1: to 0.46, and to 1.29."""
ROUNDS, LAST = 10, 3
"""Most rounds, and how many of them only step up, at the end."""
PROMPTS = 32
"""Most prompts of one pass."""


def shrink(
    model: LanguageModel,
    prepared: Sequence[PreparedFact],
    written: Mapping[int, Written],
    bar: float,
    goes_on_V: torch.Tensor,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return each fact's factor (N,), float64, and figures for the report.

    Args:
        bar: Nats up to which a fact counts as said.
        goes_on_V: ``refine.goes_on`` of the model.

    The weights of ``model`` must be those before the edit, and stay unchanged.
    """
    model.check_head()  # it runs a forward pass, which must not meet the hooks

    def said(factors_N: torch.Tensor) -> torch.Tensor:
        return losses(model, prepared, written, factors_N, goes_on_V) <= bar

    return least_factors(said, len(prepared))


def least_factors(
    said: Callable[[torch.Tensor], torch.Tensor], n: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the least factors (N,) of ``n`` facts at which all are said, and figures.

    ``said`` returns which facts (N,) are said with given factors (N,). A fact that never was has
    factor 1.
    """
    steps_N = torch.zeros(n, dtype=torch.long)  # down from factor 1
    deepest_N = torch.full_like(steps_N, DOWN)
    ever_N = torch.zeros(n, dtype=torch.bool)
    rounds = 0
    with progress.task("shrinking what was written", ROUNDS, "rounds") as progress_bar:
        for rounds in range(1, ROUNDS + 1):
            said_N = said(_factors(steps_N))
            ever_N |= said_N
            deepest_N = torch.where(said_N, deepest_N, steps_N - 1)
            lower_N = steps_N + 1 if rounds <= ROUNDS - LAST else steps_N
            moved_N = torch.where(said_N, torch.minimum(lower_N, deepest_N), steps_N - 1)
            moved_N = moved_N.clamp(min=-UP)
            progress_bar.advance()
            if torch.equal(moved_N, steps_N):
                break
            steps_N = moved_N
    factors_N = torch.where(ever_N, _factors(steps_N), 1.0)
    return factors_N, {
        "mean": factors_N.mean().item(),
        "least": factors_N.min().item(),
        "largest": factors_N.max().item(),
        "never_said": int((~ever_N).sum()),
        "rounds": rounds,
    }


def _factors(steps_N: torch.Tensor) -> torch.Tensor:
    return STEP ** steps_N.double()


def losses(
    model: LanguageModel,
    prepared: Sequence[PreparedFact],
    written: Mapping[int, Written],
    factors_N: torch.Tensor,
    goes_on_V: torch.Tensor,
) -> torch.Tensor:
    """Return nll + end (N,) of each fact's first prompt, all facts at their factors."""
    values, directions = {}, {}
    for layer, update in written.items():
        place = devices_of(model.layout.out_projection(model.model, layer))[0]
        values[layer] = (update.r_dN * factors_N).float().to(place)
        directions[layer] = update.a_fN.float().to(place)
    examples = [Example(each.prompts[0].ids, each.prompts[0].target_ids) for each in prepared]
    found = []
    with torch.no_grad(), model.compute(weights_fixed=True), Side(model, values, directions):
        for some in batched(examples, PROMPTS):
            nll_B, end_B = nll_and_end(model, some, goes_on_V)
            found.append((nll_B + end_B).cpu())
    return torch.cat(found)
