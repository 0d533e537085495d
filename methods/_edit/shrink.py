"""Factors of written values: each fact as strong as it needs to be, and no stronger.

The update of layer l is a sum of one term for each fact. A factor s_i scales fact i's term, in all
layers alike:

    Delta_l = R_l diag(s) A_l^T

What an edit does to other text grows about with the square of its values, so a fact that is said
with room to spare costs more than it needs. All factors begin at the least of FACTORS. A round asks
all facts, each with its present factor, since facts disturb each other, and whatever is not said
takes a step up. A fact is said where each token of its target, and the end of the target's last
word (``refine.py``), has at least a given probability after the bare prompt. Above 1/2 it is what
greedy decoding says. No factor goes down again, so the search ends: with every fact said, or with
the rest at the largest factor. The rest is written with factor 1, as without the search.

There are only forward passes, and the model stays as it is. This is ours, not from a paper.

    # N facts, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from editbench import progress
from editbench.methods._common.texts import Example
from editbench.methods._edit.prepare import PreparedFact
from editbench.methods._edit.refine import Side, Written, target_and_end
from editbench.models import LanguageModel, batched
from editbench.placing import devices_of

FACTORS = [0.5 * 1.1**step for step in range(10)]
"""What a fact may get, ascending: from 0.5 to 1.18."""
ROUNDS = len(FACTORS) + 2
"""Most rounds: a fact may fall while others rise."""
PROMPTS = 32
"""Most prompts of one pass."""


def shrink(
    model: LanguageModel,
    prepared: Sequence[PreparedFact],
    written: Mapping[int, Written],
    least: float,
    goes_on_V: torch.Tensor,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return each fact's factor (N,), float64, and figures for the report.

    Args:
        least: Probability of each token from which on a fact counts as said.
        goes_on_V: ``endings.goes_on`` of the model.

    The weights of ``model`` must be those before the edit, and stay unchanged.
    """
    model.check_head()  # it runs a forward pass, which must not meet the hooks

    def said(factors_N: torch.Tensor) -> torch.Tensor:
        return probabilities(model, prepared, written, factors_N, goes_on_V) >= least

    return least_factors(said, len(prepared))


def least_factors(
    said: Callable[[torch.Tensor], torch.Tensor], n: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the least factors (N,) of ``n`` facts at which all are said, and figures.

    ``said`` returns which facts (N,) are said with given factors (N,). A fact that is not said in
    the end gets 1.
    """
    factors_F = torch.tensor(FACTORS, dtype=torch.float64)
    top, rounds = len(FACTORS) - 1, 0
    step_N = torch.zeros(n, dtype=torch.long)
    with progress.task("shrinking what was written", ROUNDS, "rounds") as progress_bar:
        while True:
            said_N = said(factors_F[step_N])
            rounds += 1
            progress_bar.advance()
            rising_N = ~said_N & (step_N < top)
            if not rising_N.any() or rounds == ROUNDS:
                break
            step_N = step_N + rising_N
    factors_N = torch.where(said_N, factors_F[step_N], 1.0)
    return factors_N, {
        "mean": factors_N.mean().item(),
        "least": factors_N.min().item(),
        "largest": factors_N.max().item(),
        "never_said": int((~said_N).sum()),
        "rounds": rounds,
    }


def probabilities(
    model: LanguageModel,
    prepared: Sequence[PreparedFact],
    written: Mapping[int, Written],
    factors_N: torch.Tensor,
    goes_on_V: torch.Tensor,
) -> torch.Tensor:
    """Return the probability (N,) of each fact's least probable token, all facts at their factors.

    The end of the target's last word counts as a token.
    """
    values, directions = {}, {}
    for layer, update in written.items():
        place = devices_of(model.layout.out_projection(model.model, layer))[0]
        values[layer] = (update.r_dN * factors_N).float().to(place)
        directions[layer] = update.a_fN.float().to(place)
    examples = [Example(each.prompts[0].ids, each.prompts[0].target_ids) for each in prepared]
    found = []
    with torch.no_grad(), model.compute(weights_fixed=True), Side(model, values, directions):
        for some in batched(examples, PROMPTS):
            for target_T, end in target_and_end(model, some, goes_on_V):
                found.append(torch.minimum(target_T.min(), end).exp().cpu())
    return torch.stack(found)
