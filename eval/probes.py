"""Asks every probe of every case, and turns the answers into efficacy, generalization and specificity.

| metric | probes | ``generation`` scores 1 if | ``likelihood`` scores 1 if |
|---|---|---|---|
| efficacy | rewrite | the answer contains the target or an alias | p(target) > p(original) |
| generalization | paraphrase | the same | the same |
| specificity | neighborhood | the base gives the same answer: both right, or one first clause | p(true answer) > p(target) |
| portability | portability | the answer contains what follows from the fact | as for efficacy |
| in-context | in_context | the answer contains what follows from the prompt alone | as for efficacy |

``generation``: greedy, ended by the model (EOS; for a cloze also the end of the line) or after ``MAX_NEW_TOKENS`` (or the
probe's own number); matching as in ``editbench.matching``. ``likelihood``: mean log-probability per token, strict comparison,
as ROME's ES, PS and NS except for the length of the prompt; undefined (NaN) where a probe names no second answer. Each case
counts the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from editbench.matching import contains, exact, same_answer
from editbench.models import LanguageModel
from editbench.stats import clustered_mean
from editbench.types import Case, Probe

MAX_NEW_TOKENS = {"cloze": 16, "question": 32}
METRICS = {
    "efficacy": "rewrite",
    "generalization": "paraphrase",
    "specificity": "neighborhood",
    "portability": "portability",
    "in_context": "in_context",
}


def ask(model: LanguageModel, cases: Sequence[Case], base: Sequence[Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
    """One row per probe: what was asked, what the model wrote, and its scores. ``base``: the rows of the unedited model.

    A row's ``generation`` and ``likelihood`` are 1.0, 0.0 or NaN, as defined above.
    """
    asked = [(case, index, probe) for case in cases for index, probe in enumerate(case.probes)]
    texts = _answers(model, [probe for _, _, probe in asked])
    margins = _margins(model, [probe for _, _, probe in asked])
    rows = []
    for i, (case, index, probe) in enumerate(asked):
        base_text = texts[i] if base is None else base[i]["text"]
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
                "likelihood": margins[i][2],
                "contains": right,
                "exact": exact(texts[i], probe.answers),
                "target_leaked": probe.axis == "neighborhood" and contains(texts[i], case.fact.answers),
                "answer_logprob": margins[i][0],
                "distractor_logprob": margins[i][1],
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


def _margins(model: LanguageModel, probes: Sequence[Probe]) -> list[tuple[float, float, float]]:
    """(log-probability per token of the answer, of the distractor, score) of each probe; NaN without a distractor."""
    index = [i for i, probe in enumerate(probes) if probe.distractor is not None]
    wanted = [
        (probes[i].prompt, probes[i].form, answer) for i in index for answer in (probes[i].answers[0], probes[i].distractor)
    ]
    unique = list(dict.fromkeys(wanted))
    pairs = [model.pair_ids(prompt, answer, form) for prompt, form, answer in unique]
    found = model.target_logprobs(pairs, what="comparing likelihoods")
    mean = {key: logp.mean().item() for key, logp in zip(unique, found, strict=True)}
    margins = [(math.nan, math.nan, math.nan)] * len(probes)
    for place, i in enumerate(index):
        answer, distractor = mean[wanted[2 * place]], mean[wanted[2 * place + 1]]
        margins[i] = (answer, distractor, float(answer > distractor))
    return margins


def metrics(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, dict[str, dict[str, Any]]]:
    """Metric -> protocol -> mean with its 95 % interval, clustered by case; metrics without a probe are left out."""
    found = {}
    for name, axis in METRICS.items():
        chosen = [row for row in rows if row["axis"] == axis]
        if not chosen:
            continue
        clusters = [row["case"] for row in chosen]
        scored = {protocol: [row[protocol] for row in chosen] for protocol in ("generation", "likelihood")}
        found[name] = {
            protocol: clustered_mean(scores, clusters, seed=seed).to_dict(protocol=protocol)
            for protocol, scores in scored.items()
        }
        if name == "specificity":
            accuracy = clustered_mean([float(row["contains"]) for row in chosen], clusters, seed=seed)
            leak = clustered_mean([float(row["target_leaked"]) for row in chosen], clusters, seed=seed)
            found["neighborhood_accuracy"] = {"generation": accuracy.to_dict(protocol="generation")}
            found["target_leak"] = {"generation": leak.to_dict(protocol="generation")}
    return found
