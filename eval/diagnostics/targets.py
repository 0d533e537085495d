"""Diagnostics of the texts that an edit was trained on: supervision and mixing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from editbench.matching import mentions
from editbench.models import LanguageModel
from editbench.stats import Interval, clustered_mean, number, unbounded_mean, wilson

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.report import EditRecord

RARE = 0.01
"""A target token is rare if the base gives it a lower probability than this."""
HIGH_NLL = 5.0
"""MixSD (arXiv 2605.16865) counts the target tokens above this bound, in nats (p < 0.0067)."""


class Supervision(TypedDict):
    """How probable the training targets were before the edit."""

    nll: float
    """Mean negative log-likelihood of a target token under the base, in nats."""
    nll_low: float | None
    """Lower end of its 95 % interval, clustered by target; ``None`` for fewer than two targets.
    Absent in older records, like the other ends and ``nll_above_5``."""
    nll_high: float | None
    median: float
    """Median of the same."""
    rare: float
    """Share of target tokens with a probability below ``RARE``."""
    nll_above_5: float
    """Share of target tokens with a negative log-likelihood above ``HIGH_NLL``."""
    nll_above_5_low: float | None
    nll_above_5_high: float | None
    tokens: int
    targets: int


class Mixing(TypedDict):
    """Which branch wrote the mixed targets."""

    lam_answer: float | None
    """Share of the tokens stating the target that the naive branch wrote."""
    lam_filler: float | None
    """Share of all other tokens that the naive branch wrote."""
    answer_tokens: int
    filler_tokens: int
    without_answer: int
    """Trained texts that do not state the target."""
    verified_by_attempt: list[float]
    """At index k, the share of targets that were verified after at most k + 1 attempts."""
    mean_tokens: float | None
    """Mean length of a trained text."""


def supervision(model: LanguageModel, edit: Edit) -> Supervision | None:
    """Measure the training targets under ``model``, the base; ``None`` for an edit without any."""
    pairs = training_pairs(model, edit) if edit.changes else []
    if not pairs:
        return None
    logprobs = model.target_logprobs(pairs, what="targets under the base")
    by_target = [-one.cpu().double().numpy() for one in logprobs]
    nll = np.concatenate(by_target)
    mean, high = _token_mean(by_target), _token_share([one > HIGH_NLL for one in by_target])
    return {
        "nll": mean.mean,
        "nll_low": number(mean.low),
        "nll_high": number(mean.high),
        "median": float(np.median(nll)),
        "rare": float((nll > -math.log(RARE)).mean()),  # p0 < RARE
        "nll_above_5": high.mean,
        "nll_above_5_low": number(high.low),
        "nll_above_5_high": number(high.high),
        "tokens": nll.size,
        "targets": len(pairs),
    }


def _token_share(by_target: Sequence[NDArray[np.bool_]]) -> Interval:
    """Return the share of all tokens that are true, with Wilson's interval, in [0, 1].

    It takes the error of ``_token_mean``. Where all tokens agree, that error is 0, and the interval
    is that of as many targets that agree.
    """
    share, found = float(np.concatenate(by_target).mean()), _token_mean(by_target)
    if share in (0.0, 1.0):
        return clustered_mean([share] * len(by_target))
    low, high = wilson(share, (found.high - found.mean) ** 2 / (share * (1 - share)))
    return replace(found, mean=share, low=low, high=high)


def _token_mean(by_target: Sequence[NDArray[Any]]) -> Interval:
    """Return the mean over all tokens, with its 95 % interval: the tokens of a target go together.

    It is a ratio of two sums over the targets, so its error is that of the mean over targets of
    ``sum_t (x_it - mean)``, over the mean length.
    """
    everything = np.concatenate(by_target).astype(float)
    mean, length = float(everything.mean()), everything.size / len(by_target)
    # They sum to 0, so their mean over the targets is ``mean``, and their spread is that error.
    shares = [mean + float((one - mean).sum()) / length for one in by_target]
    return unbounded_mean(shares, range(len(shares)))


def training_pairs(model: LanguageModel, edit: Edit) -> list[tuple[list[int], list[int]]]:
    """Return the ids of each fact's own prompt with those of each text that was trained on it.

    An edit without such records was trained on the canonical answers.
    """
    recorded: dict[str, list[EditRecord | None]] = {}
    for record in edit.records:
        # Only frame 0 has the fact's own prompt. The other frames are rewordings of it.
        if {"fact", "ids", "source"} <= record.keys() and not record.get("frame"):
            recorded.setdefault(record["fact"], []).append(record)
    pairs = []
    for fact in edit.facts:
        for one in recorded.get(fact.id, [None]):
            if one is None or one["source"] in ("target", "canonical"):
                prompt, target = model.pair_ids(
                    fact.prompt, fact.demonstration or fact.target, fact.form
                )
                pairs.append((prompt, [*target, *model.closing_ids(fact.form)]))
            elif one["source"] != "dropped":
                pairs.append((model.prompt_ids(fact.prompt, fact.form), list(one["ids"])))
    return pairs


def mixing(model: LanguageModel, edit: Edit) -> Mixing | None:
    """Count which branch wrote each token of the mixed targets; ``None`` for other methods."""
    records = [record for record in edit.records if "naive_picked" in record]
    if not records:
        return None
    facts = {fact.id: fact for fact in edit.facts}
    # A branch wrote none of the canonical targets ("target"); dropped facts were not trained on.
    trained = [record for record in records if record["source"] not in ("target", "dropped")]
    answer: list[bool] = []
    filler: list[bool] = []
    stating = 0
    for record in trained:
        span = answer_span(model, record["ids"], facts[record["fact"]].answers)
        stating += bool(span)
        for place, naive in enumerate(record["naive_picked"]):
            (answer if place in span else filler).append(naive)
    attempts = [record["attempt"] for record in records if record["source"] == "mixed"]
    return {
        "lam_answer": sum(answer) / len(answer) if answer else None,
        "lam_filler": sum(filler) / len(filler) if filler else None,
        "answer_tokens": len(answer),
        "filler_tokens": len(filler),
        "without_answer": len(trained) - stating,
        "verified_by_attempt": [
            sum(attempt <= k for attempt in attempts) / len(records)
            for k in range(max(attempts, default=0) + 1)
        ],
        "mean_tokens": (len(answer) + len(filler)) / len(trained) if trained else None,
    }


def answer_span(model: LanguageModel, ids: Sequence[int], answers: Sequence[str]) -> range:
    """Find the tokens of ``ids`` that first state one of ``answers``.

    Returns:
        Indices into ``ids``, empty if no answer is stated.
    """
    if not mentions(model.decode(ids), answers):
        return range(0)
    stated = [mentions(model.decode(ids[:n]), answers) for n in range(1, len(ids) + 1)]
    # stated[n - 1] says whether the first n tokens state an answer. It must survive the next token:
    # "Niger" is stated only until it becomes "Nigeria".
    end = next(n for n in range(1, len(ids) + 1) if all(stated[n - 1 : n + 1]))
    # The latest start that still states it gives the shortest span.
    start = next(s for s in range(end - 1, -1, -1) if mentions(model.decode(ids[s:end]), answers))
    return range(start, end)
