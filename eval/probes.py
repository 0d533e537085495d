"""Asks every probe of every case, and turns the answers into efficacy, generalization and specificity.

| metric | probes | ``generation`` scores 1 if | ``likelihood`` scores 1 if |
|---|---|---|---|
| efficacy | rewrite | the answer contains the target or an alias | p(target) > p(original) |
| generalization | paraphrase | the same | the same |
| specificity | neighborhood | the base gives the same answer: both right, or one first clause | p(true answer) > p(target) |
| portability | portability | the answer contains what follows from the fact | as for efficacy |
| in-context | in_context | the answer contains what follows from the prompt alone | as for efficacy |

``generation``: greedy, ended by the model (EOS; for a cloze also the end of the line) or after ``MAX_NEW_TOKENS`` (or the
probe's own number); matching as in ``editbench.matching``. ``argmax``: teacher-forced, the expected answer is given token by
token; 1 if each of its tokens is the most probable one, for neighborhood probes if the most probable ones are those of the
base (EasyEdit's rewrite accuracy is the share of tokens instead). ``likelihood``: mean log-probability per token, strict
comparison, as ROME's ES, PS and NS except for the length of the prompt; undefined (NaN) where a probe names no second
answer. Each case counts the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from editbench.matching import contains, exact, same_answer
from editbench.models import LanguageModel
from editbench.stats import clustered_mean
from editbench.types import METRICS, Case, Probe

MAX_NEW_TOKENS = {"cloze": 16, "question": 32}
PROTOCOLS = ("generation", "argmax", "likelihood")


def ask(model: LanguageModel, cases: Sequence[Case], base: Sequence[Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
    """One row per probe: what was asked, what the model wrote, and its scores. ``base``: the rows of the unedited model.

    A row's ``generation``, ``argmax`` and ``likelihood`` are 1.0, 0.0 or NaN, as defined above.
    """
    asked = [(case, index, probe) for case in cases for index, probe in enumerate(case.probes)]
    texts = _answers(model, [probe for _, _, probe in asked])
    forced = _forced(model, [probe for _, _, probe in asked])
    rows = []
    for i, (case, index, probe) in enumerate(asked):
        base_text = texts[i] if base is None else base[i]["text"]
        wanted = forced[i].target if probe.axis != "neighborhood" else forced[i].best if base is None else base[i]["argmax_ids"]
        right = contains(texts[i], probe.answers)
        kept = same_answer(texts[i], base_text, probe.answers)
        rows.append(
            {
                "case": case.fact.id,
                "probe": index,
                "axis": probe.axis,
                "form": probe.form,
                "prompt": probe.prompt,
                "answers": list(probe.answers),
                "distractor": probe.distractor,
                "text": texts[i],
                "base_text": base_text,
                "generation": float(kept if probe.axis == "neighborhood" else right),
                "argmax": float(forced[i].best == list(wanted)),
                "likelihood": forced[i].likelihood,
                "contains": right,
                "exact": exact(texts[i], probe.answers),
                "target_leaked": probe.axis == "neighborhood" and contains(texts[i], case.fact.answers),
                "answer_logprob": forced[i].answer,
                "distractor_logprob": forced[i].distractor,
                "argmax_ids": forced[i].best,
            }
        )
    return rows


def _answers(model: LanguageModel, probes: Sequence[Probe]) -> list[str]:
    texts = [""] * len(probes)
    kinds = [(probe.form, probe.max_new_tokens or MAX_NEW_TOKENS[probe.form]) for probe in probes]
    for form, budget in dict.fromkeys(kinds):
        index = [i for i, kind in enumerate(kinds) if kind == (form, budget)]
        # one prompt may be asked by many cases: it is answered once
        prompts = {probes[i].prompt: model.prompt_ids(probes[i].prompt, form) for i in index}
        written = model.generate_ids(
            list(prompts.values()), budget, stop_at_newline=form == "cloze", what=f"answering {form} probes"
        )
        by_prompt = {prompt: model.decode(ids).strip() for prompt, ids in zip(prompts, written, strict=True)}
        for i in index:
            texts[i] = by_prompt[probes[i].prompt]
    return texts


class Forced(NamedTuple):
    """What a model thinks of a probe's expected answer, which it is given token by token."""

    target: list[int]
    best: list[int]
    """The most probable token at each place of the target."""
    answer: float
    """Mean log-probability of its tokens; so for the distractor, NaN where there is none."""
    distractor: float
    likelihood: float


def _forced(model: LanguageModel, probes: Sequence[Probe]) -> list[Forced]:
    wanted = [
        (probe.prompt, probe.form, answer)
        for probe in probes
        for answer in (probe.answers[0], probe.distractor)
        if answer is not None
    ]
    unique = list(dict.fromkeys(wanted))
    pairs = [model.pair_ids(prompt, answer, form) for prompt, form, answer in unique]
    scores = dict(zip(unique, model.target_scores(pairs, what="answers, token by token"), strict=True))
    target = {key: list(ids) for key, (_, ids) in zip(unique, pairs, strict=True)}
    found = []
    for probe in probes:
        key = (probe.prompt, probe.form, probe.answers[0])
        logp, best = scores[key]
        answer, distractor, more = logp.mean().item(), math.nan, math.nan
        if probe.distractor is not None:
            distractor = scores[probe.prompt, probe.form, probe.distractor][0].mean().item()
            more = float(answer > distractor)
        found.append(Forced(target[key], list(best), answer, distractor, more))
    return found


def metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Metric -> protocol -> mean with its 95 % interval, clustered by case; metrics without a probe are left out."""
    found = {}
    for name, axis in METRICS.items():
        chosen = [row for row in rows if row["axis"] == axis]
        if not chosen:
            continue
        clusters = [row["case"] for row in chosen]
        scored = {protocol: [row[protocol] for row in chosen] for protocol in PROTOCOLS}
        found[name] = {
            protocol: clustered_mean(scores, clusters).to_dict(protocol=protocol)
            for protocol, scores in scored.items()
        }
        if name == "specificity":
            accuracy = clustered_mean([float(row["contains"]) for row in chosen], clusters)
            leak = clustered_mean([float(row["target_leaked"]) for row in chosen], clusters)
            found["neighborhood_accuracy"] = {"generation": accuracy.to_dict(protocol="generation")}
            found["target_leak"] = {"generation": leak.to_dict(protocol="generation")}
    return found
