"""Collapse: when a sequence of edits has wrecked the model, so that it is stopped.

A model has collapsed if one of these holds, or if one of the numbers is not finite:

- text that the base wrote is ``COLLAPSE_PERPLEXITY`` times as perplexing to the model as to the
  base;
- a changed weight is ``COLLAPSE_GROWTH`` times as large as in the base;
- the targets of the last ``WATCHED`` facts are ``COLLAPSE_TARGETS`` times as perplexing to the
  model as to the base, which has been taught none of them;
- the targets of the ``WATCHED`` facts before the chunk are ``COLLAPSE_FORGETTING`` times as
  perplexing as they were before the chunk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Protocol

from editbench.records.schema import VitalSigns
from editbench.slices import replaced
from editbench.types import Case

COLLAPSE_PERPLEXITY = 10.0
COLLAPSE_GROWTH = 10.0
COLLAPSE_TARGETS = 2.0
"""A method that teaches nothing leaves the ratio at 1. The limit of 2 allows for side effects on
unrelated texts; above it, the targets are less probable than if nobody had taught them."""
COLLAPSE_FORGETTING = 10.0
WATCHED = 50
"""Number of facts whose targets are watched. To watch all n would take time proportional to n^2."""


class Watcher(Protocol):
    """Asks the model about texts whose probabilities show a collapse."""

    def own_text_nll(self) -> tuple[float, float]:
        """Return the mean nats per token of the base's own text, under the model and the base."""
        ...

    def target_nlls(self, cases: Sequence[Case]) -> tuple[list[float], list[float]]:
        """Return the mean nats per token of each case's target, under the model and the base."""
        ...


def vital_signs(
    growth: float | None,
    taught: Sequence[Case],
    watcher: Watcher,
    earlier: Mapping[str, float],
) -> tuple[VitalSigns, dict[str, float]]:
    """Return the vital signs after the cases in ``taught``, and what the next chunk compares with.

    Args:
        growth: ``Chain.growth`` after the chunk.
        taught: the cases of all facts injected by now, in their order.
        watcher: asks the model.
        earlier: the id of each fact that was watched after the previous chunk -> nats per token of
            its target then. The second value is the same map for now.
    """
    nll_own, nll_own_base = watcher.own_text_nll()
    # Where facts replace each other, only the last one is valid.
    gone = replaced(taught)
    cases = {case.fact.id: case for case in taught if case.fact.id not in gone}
    last = list(cases)[-WATCHED:]
    held = [fact for fact in cases if fact in earlier]
    # The two windows may overlap, and each target is scored once.
    asked = list(dict.fromkeys([*held, *last]))
    nlls, nlls_base = watcher.target_nlls([cases[fact] for fact in asked])
    now = dict(zip(asked, nlls, strict=True))
    base = dict(zip(asked, nlls_base, strict=True))
    # Means of nats per token: their differences are logarithms of ratios of perplexities.
    target_nll = fmean(now[fact] for fact in last)
    risen = fmean(now[fact] - earlier[fact] for fact in held) if held else 0.0
    signs: VitalSigns = {
        "facts": len(taught),
        "perplexity_ratio": _ratio(nll_own, nll_own_base),
        "norm_growth": growth,
        "target_nll": target_nll,
        "target_ratio": _ratio(target_nll, fmean(base[fact] for fact in last)),
        "forgetting_ratio": _ratio(risen, 0.0),
    }
    return signs, {fact: now[fact] for fact in last}


def _ratio(nll: float, nll_base: float) -> float:
    """Return the ratio of two perplexities from their logarithms, capped to stay finite."""
    return math.exp(min(nll - nll_base, 700.0))  # math.exp overflows above 709; NaN stays NaN


def collapsed(signs: VitalSigns) -> str:
    """Return the first sign of collapse in words, or an empty text if there is none."""
    checks = (
        (
            signs["perplexity_ratio"],
            COLLAPSE_PERPLEXITY,
            "the model's own text is {:.3g} times as perplexing to it as to the base",
        ),
        (
            signs["norm_growth"],
            COLLAPSE_GROWTH,
            "a weight is {:.3g} times as large as in the base",
        ),
        (
            signs["target_ratio"],
            COLLAPSE_TARGETS,
            "the targets of the last facts are {:.3g} times as perplexing to it as to the base",
        ),
        (
            signs["forgetting_ratio"],
            COLLAPSE_FORGETTING,
            "the targets taught before the last chunk are {:.3g} times as perplexing as they were "
            "before it",
        ),
    )
    for value, limit, words in checks:
        if value is not None and not value < limit:  # so that NaN counts as collapse
            return words.format(value)
    return ""
