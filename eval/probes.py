"""Ask a model every probe of every case.

| metric | probes | ``generation`` scores 1 if | ``likelihood`` scores 1 if |
|---|---|---|---|
| efficacy | rewrite | the answer contains the target or an alias | p(target) > p(original) |
| generalization | paraphrase | the same | the same |
| specificity | neighborhood | the answer is the base's (both right, or the same first clause) \
| p(true answer) > p(target) |
| portability | portability | the answer contains what follows from the fact | as for efficacy |
| in-context | in_context | the answer contains what follows from the prompt alone \
| as for efficacy |

``generation`` decodes greedily until the model stops (EOS; for a cloze also the end of the line) or
the answer's room is spent (``editbench.asking``). ``editbench.matching`` matches the answers.
``argmax`` is teacher-forced with the expected answer. It scores 1 if each of the answer's tokens is
the most probable one or, for neighborhood probes, if the most probable tokens are the base's.
``likelihood`` compares mean log-probabilities per token. A tie scores 0, whichever answer should
win. The score is NaN if a probe names no second answer. In a metric every case counts the same. If
a corpus names kinds of probes, ``METRIC/KIND`` is the metric over that kind alone.
``DEFINITIONS.md`` has every formula.

Each case also gets a few derived probes. Its first neighborhood prompt is asked once more with the
fact stated before it (``distracted``, scored like the neighborhood). Under ``generation`` alone,
the model also continues the case's first ``fluency`` probe, and a third of the cases have
``conversations``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from editbench.asking import Question, answers
from editbench.eval.conversations import ask_conversations
from editbench.eval.fluency import consistency, ngram_entropy
from editbench.eval.metrics import PROTOCOLS, denied_answers, metrics
from editbench.eval.probe_rows import Asked, BaseRows, new_row, share
from editbench.models import LanguageModel, NotFiniteError
from editbench.rows import ProbeRow
from editbench.types import KEPT, Case, Probe
from editbench.writing import gap

__all__ = ["PROTOCOLS", "ask", "ask_axes", "denied_answers", "metrics", "openings"]

FREE_TOKENS = 90
"""New tokens of a free text. ROME's texts have 100 tokens, prompt included."""


def ask(
    model: LanguageModel,
    cases: Sequence[Case],
    base: Sequence[ProbeRow] | None = None,
    every: Sequence[Case] | None = None,
) -> list[ProbeRow]:
    """Ask all probes of ``cases`` and score the answers.

    Args:
        model: the model as it is now, with any edit applied.
        base: the unedited model's rows for the same cases; ``None`` while that model is asked.
        every: all cases of the slice, if ``cases`` are only some of them. Their reference texts
            decide how ``consistency`` weighs words.

    Returns:
        One row per probe, the cases' own questions first, in order. ``generation``, ``argmax`` and
        ``likelihood`` are 1.0, 0.0 or NaN, as defined above. In a ``fluency`` row, ``generation``
        is an entropy in bits.
    """
    base_rows = {(row["case"], row["probe"]): row for row in base or ()}
    rows = _ask_questions(model, [*_questions(cases), *_distracted(cases)], base_rows)
    rows += _continue_texts(model, cases, base_rows, cases if every is None else every)
    return rows + (ask_conversations(model, cases, rows, base_rows) if model.chat else [])


def ask_axes(
    model: LanguageModel,
    cases: Sequence[Case],
    axes: Collection[str],
    base: Sequence[ProbeRow] | None = None,
) -> list[ProbeRow]:
    """Ask only the cases' own questions of ``axes``, and score the answers as ``ask`` does."""
    base_rows = {(row["case"], row["probe"]): row for row in base or ()}
    return _ask_questions(
        model, [asked for asked in _questions(cases) if asked[2].axis in axes], base_rows
    )


# --- questions ------------------------------------------------------------------------------------


def _questions(cases: Sequence[Case]) -> list[Asked]:
    """Return the cases' own probes, except for the openings of free texts."""
    return [
        (case, i, probe)
        for case in cases
        for i, probe in enumerate(case.probes)
        if probe.axis != "fluency"
    ]


def _distracted(cases: Sequence[Case]) -> list[Asked]:
    """Return the first neighborhood probe of each case, with the fact stated before its prompt.

    With such prompts CounterFact+ shows that an edit leaks into other answers once it is mentioned
    (Hoelscher-Obermaier et al. 2023, arXiv 2305.17553).
    """
    derived = []
    for case in cases:
        neighbors = [probe for probe in case.probes if probe.axis == "neighborhood"]
        for probe in neighbors[:1]:
            stated = case.fact.statement
            prompt = stated + gap(stated, probe.prompt) + probe.prompt
            derived.append(
                (case, len(case.probes), replace(probe, axis="distracted", prompt=prompt))
            )
    return derived


def _ask_questions(
    model: LanguageModel, asked: Sequence[Asked], base_rows: BaseRows
) -> list[ProbeRow]:
    """Ask questions under all three protocols."""
    probes = [probe for _, _, probe in asked]
    questions = [_question(case, probe) for case, _, probe in asked]
    rows = []
    for place, text, forced in zip(
        asked, answers(model, questions), _teacher_forced(model, probes), strict=True
    ):
        case, index, probe = place
        row = new_row(place, text, base_rows)
        rows.append(row)
        if forced is None:
            continue
        base_ids = base_rows[case.fact.id, index]["argmax_ids"] if base_rows else forced.argmax_ids
        accuracy = share(forced.argmax_ids, forced.target_ids)
        agreement = share(forced.argmax_ids, base_ids)
        if probe.scored_by("argmax"):
            # Exact, since a share of n / n is 1.0 in floating point.
            row["argmax"] = float((agreement if probe.axis in KEPT else accuracy) == 1)
        if probe.scored_by("likelihood"):
            row["likelihood"] = forced.likelihood
        row["answer_logprob"] = forced.answer_logprob
        row["distractor_logprob"] = forced.distractor_logprob
        row["target_ids"] = forced.target_ids
        row["argmax_ids"] = forced.argmax_ids
        row["base_argmax_ids"] = base_ids
        row["token_accuracy"] = accuracy
        row["token_agreement"] = agreement
    return rows


def _question(case: Case, probe: Probe) -> Question:
    # A neighbor's answer is also searched for the target, which must not leak into it.
    wanted = (*probe.answers, *(case.fact.answers if probe.axis in KEPT else ()))
    return Question(probe.prompt, probe.form, wanted, probe.max_new_tokens)


class _Forced(NamedTuple):
    """A model's view of a probe's expected answer, given to it token by token."""

    target_ids: list[int]
    argmax_ids: list[int]
    """The most probable token at each position of the target."""
    answer_logprob: float
    """Mean log-probability of the target's tokens, in nats."""
    distractor_logprob: float
    """The same for the distractor; NaN if there is none."""
    likelihood: float


def _teacher_forced(model: LanguageModel, probes: Sequence[Probe]) -> list[_Forced | None]:
    """Score the first accepted answer and the distractor of each probe; ``None`` without an answer.

    The model sees each distinct pair of prompt and answer once.
    """
    wanted = [
        (probe.prompt, probe.form, answer)
        for probe in probes
        for answer in (*probe.answers[:1], probe.distractor)
        if answer is not None and probe.answers
    ]
    unique = list(dict.fromkeys(wanted))
    pairs = [model.pair_ids(prompt, answer, form) for prompt, form, answer in unique]
    scores = model.target_scores(pairs, what="answers, token by token")
    scored = dict(zip(unique, scores, strict=True))
    targets = {key: list(ids) for key, (_, ids) in zip(unique, pairs, strict=True)}
    forced: list[_Forced | None] = []
    for probe in probes:
        if not probe.answers:
            forced.append(None)
            continue
        key = (probe.prompt, probe.form, probe.answers[0])
        logp, argmax_ids = scored[key]
        answer, distractor, likelihood = logp.mean().item(), math.nan, math.nan
        if probe.distractor is not None:
            distractor = scored[probe.prompt, probe.form, probe.distractor][0].mean().item()
            likelihood = float(answer > distractor)
        forced.append(_Forced(targets[key], list(argmax_ids), answer, distractor, likelihood))
    return forced


# --- free texts -----------------------------------------------------------------------------------


def openings(cases: Sequence[Case]) -> list[Asked]:
    """Return the first fluency probe of each case that has one."""
    first = []
    for case in cases:
        for index, probe in enumerate(case.probes):
            if probe.axis == "fluency":
                first.append((case, index, probe))
                break
    return first


def _continue_texts(
    model: LanguageModel, cases: Sequence[Case], base_rows: BaseRows, every: Sequence[Case]
) -> list[ProbeRow]:
    """Continue free texts as ROME does: sampled from the five most probable tokens, past EOS."""
    asked = openings(cases)
    if not asked:
        return []
    try:
        written = model.generate_ids(
            [model.prompt_ids(probe.prompt, probe.form) for _, _, probe in asked],
            FREE_TOKENS,
            # The same seed for every model: the same slice gives the same draws.
            generator=torch.Generator().manual_seed(0),
            top_k=5,
            stop=False,
            what="continuing texts",
        )
    except NotFiniteError:
        # Weights that exploded give no distribution to draw from. An empty text records that.
        written = [[] for _ in asked]
    texts = [model.decode(ids).strip() for ids in written]
    whole = [f"{probe.prompt} {text}" for (_, _, probe), text in zip(asked, texts, strict=True)]
    agreement = consistency(
        whole,
        [probe.references for _, _, probe in asked],
        [text for _, _, probe in openings(every) for text in probe.references],
    )
    rows = []
    for place, text, full, close in zip(asked, texts, whole, agreement, strict=True):
        row = new_row(place, text, base_rows, ngram_entropy(full))
        row["consistency"] = close
        rows.append(row)
    return rows
