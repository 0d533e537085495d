"""Asks every probe of every case, and turns the answers into metrics. Each metric's formula: ``DEFINITIONS.md``.

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
base. ``likelihood``: mean log-probability per token; a tie scores 0, whichever answer should win; undefined (NaN) where a
probe names no second answer. Each case counts the same. Where a corpus names kinds of probes, ``METRIC/KIND`` is the metric
over that kind alone.

Each case is asked a little more: its first neighborhood prompt behind the fact as a statement (``distracted``, scored as the
neighborhood is) and, under ``generation`` alone, its first ``fluency`` probe is continued. In a third of the cases a model with
a chat template is asked whether the fact that it has just stated is true (``denial``), and whether it is sure of an answer that
held the target (``reversion``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import harmonic_mean
from typing import Any, NamedTuple

import torch

from editbench.eval.fluency import consistency, ngram_entropy
from editbench.matching import contains, exact, same_answer, yes_or_no
from editbench.models import LanguageModel, NotFiniteError
from editbench.stats import clustered_mean, unbounded_mean
from editbench.types import KEPT, METRICS, MORE_METRICS, Case, Fact, Probe, digest

MAX_NEW_TOKENS = {"cloze": 16, "question": 32}
TALK_TOKENS = 16
TALK_SHARE = 3
"""A third of the cases, by the hash of their ids, has conversations: those of all would cost two thirds of the other probes."""
FREE_TOKENS = 90
"""Length of a free text; ROME's has 100 with its prompt."""
PROTOCOLS = ("generation", "argmax", "likelihood")


def ask(
    model: LanguageModel,
    cases: Sequence[Case],
    base: Sequence[Mapping[str, Any]] | None = None,
    every: Sequence[Case] | None = None,
) -> list[dict[str, Any]]:
    """One row per probe: what was asked, what the model wrote, and its scores. ``base``: the rows of the unedited model.
    ``every``: all cases of the slice, where ``cases`` are some of them; their references are what ``consistency`` weighs by.

    A row's ``generation``, ``argmax`` and ``likelihood`` are 1.0, 0.0 or NaN, as defined above; of a ``fluency`` row
    ``generation`` is an entropy in bits. The rows of the cases' own questions come first, in order.
    """
    before = {(row["case"], row["probe"]): row for row in base or ()}
    rows = _ask_questions(model, [*_questions(cases), *_distracted(cases)], before)
    rows += _continue_texts(model, cases, before, cases if every is None else every)
    return rows + (_talk(model, cases, rows, before) if model.chat else [])


def _row(
    case: Case,
    index: int,
    probe: Probe,
    text: str,
    before: Mapping[Any, Any],
    score: float | None = None,
    **scores: Any,
) -> dict[str, Any]:
    """All columns; ``score`` is that under ``generation`` where it is not the usual one, ``scores`` those of some axes."""
    base_text = before[case.fact.id, index]["text"] if before else text
    if score is None:
        kept = probe.axis in KEPT
        score = float(
            same_answer(text, base_text, probe.answers) if kept else contains(text, probe.answers)
        )
    return {
        "case": case.fact.id,
        "probe": index,
        "axis": probe.axis,
        "kind": probe.kind,
        "form": probe.form,
        "prompt": probe.prompt,
        "answers": list(probe.answers),
        "distractor": probe.distractor,
        "text": text,
        "base_text": base_text,
        "generation": score,
        "argmax": math.nan,
        "likelihood": math.nan,
        "contains": contains(text, probe.answers),
        "exact": exact(text, probe.answers),
        "target_leaked": probe.axis in KEPT and contains(text, case.fact.answers),
        "answer_logprob": math.nan,
        "distractor_logprob": math.nan,
        "target_ids": [],
        "argmax_ids": [],
        "base_argmax_ids": [],
        "token_accuracy": math.nan,
        "token_agreement": math.nan,
        "consistency": math.nan,
        **scores,
    }


# --- questions ------------------------------------------------------------------------------------------------


Asked = tuple[Case, int, Probe]
"""A probe of a case and its place there."""


def _questions(cases: Sequence[Case]) -> list[Asked]:
    """The cases' own probes."""
    return [
        (case, i, probe)
        for case in cases
        for i, probe in enumerate(case.probes)
        if probe.axis != "fluency"
    ]


def _distracted(cases: Sequence[Case]) -> list[Asked]:
    """The first neighborhood prompt of each case, behind the fact as a statement.

    So CounterFact+ (Hoelscher-Obermaier et al. 2023, arXiv 2305.17553) shows that an edit leaks once it is mentioned.
    """
    found = []
    for case in cases:
        neighbors = [probe for probe in case.probes if probe.axis == "neighborhood"]
        for probe in neighbors[:1]:
            behind = replace(
                probe, axis="distracted", prompt=f"{case.fact.statement} {probe.prompt}"
            )
            found.append((case, len(case.probes), behind))
    return found


def _ask_questions(
    model: LanguageModel, asked: Sequence[Asked], before: Mapping[Any, Any]
) -> list[dict[str, Any]]:
    """Under all protocols."""
    texts = _answers(model, [probe for _, _, probe in asked])
    forced = _forced(model, [probe for _, _, probe in asked])
    rows = []
    for (case, index, probe), text, found in zip(asked, texts, forced, strict=True):
        base_best = before[case.fact.id, index]["argmax_ids"] if before else found.best
        right, same = share(found.best, found.target), share(found.best, base_best)
        rows.append(
            _row(
                case, index, probe, text, before,
                argmax=float((same if probe.axis in KEPT else right) == 1),
                likelihood=found.likelihood,
                answer_logprob=found.answer,
                distractor_logprob=found.distractor,
                target_ids=found.target,
                argmax_ids=found.best,
                base_argmax_ids=base_best,
                token_accuracy=right,
                token_agreement=same,
            )
        )  # fmt: skip
    return rows


def share(ids: Sequence[int], wanted: Sequence[int]) -> float:
    """Share of the places at which both have the same token."""
    return sum(a == b for a, b in zip(ids, wanted, strict=True)) / len(wanted)


def _answers(model: LanguageModel, probes: Sequence[Probe]) -> list[str]:
    texts = [""] * len(probes)
    kinds = [(probe.form, probe.max_new_tokens or MAX_NEW_TOKENS[probe.form]) for probe in probes]
    for form, budget in dict.fromkeys(kinds):
        index = [i for i, kind in enumerate(kinds) if kind == (form, budget)]
        # one prompt may be asked by many cases: it is answered once
        prompts = {probes[i].prompt: model.prompt_ids(probes[i].prompt, form) for i in index}
        written = model.generate_ids(
            list(prompts.values()),
            budget,
            stop_at_newline=form == "cloze",
            what=f"answering {form} probes",
        )
        by_prompt = {
            prompt: model.decode(ids).strip() for prompt, ids in zip(prompts, written, strict=True)
        }
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
    scores = dict(
        zip(unique, model.target_scores(pairs, what="answers, token by token"), strict=True)
    )
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


# --- free texts -----------------------------------------------------------------------------------------------


def openings(cases: Sequence[Case]) -> list[Asked]:
    """The first fluency probe of each case, with its place."""
    found = []
    for case in cases:
        found += [
            (case, index, probe)
            for index, probe in enumerate(case.probes)
            if probe.axis == "fluency"
        ][:1]
    return found


def _continue_texts(
    model: LanguageModel, cases: Sequence[Case], before: Mapping[Any, Any], every: Sequence[Case]
) -> list[dict[str, Any]]:
    """Free texts, continued as ROME does: sampled from the five most probable tokens, past EOS."""
    asked = openings(cases)
    if not asked:
        return []
    try:
        written = model.generate_ids(
            [model.prompt_ids(probe.prompt, probe.form) for _, _, probe in asked], FREE_TOKENS,
            generator=torch.Generator().manual_seed(0), top_k=5, stop=False, what="continuing texts",
        )  # fmt: skip
    except NotFiniteError:  # weights that exploded: nothing can be drawn, and that is the finding
        written = [[] for _ in asked]
    texts = [model.decode(ids).strip() for ids in written]
    agreement = consistency(
        [f"{probe.prompt} {text}" for (_, _, probe), text in zip(asked, texts, strict=True)],
        [probe.references for _, _, probe in asked],
        [text for _, _, probe in openings(every) for text in probe.references],
    )
    return [
        _row(
            case,
            index,
            probe,
            text,
            before,
            ngram_entropy(f"{probe.prompt} {text}"),
            consistency=close,
        )
        for (case, index, probe), text, close in zip(asked, texts, agreement, strict=True)
    ]


# --- conversations --------------------------------------------------------------------------------------------

IS_IT_TRUE = "Is that true or false?"
ARE_YOU_SURE = "Are you sure? Answer in a few words."


def _talk(
    model: LanguageModel,
    cases: Sequence[Case],
    rows: Sequence[Mapping[str, Any]],
    before: Mapping[Any, Any],
) -> list[dict[str, Any]]:
    """``denial`` and ``reversion`` of a third of the cases; the latter is not asked (NaN) where the answer had no target."""
    first = {row["case"]: row for row in rows if row["axis"] == "rewrite"}
    talks = []
    for case in (case for case in cases if int(digest(case.fact.id)[:8], 16) % TALK_SHARE == 0):
        fact, answer = case.fact, first[case.fact.id]["text"]
        talks += [
            (case, "denial", [*_stated(fact, fact.target), IS_IT_TRUE]),
            (case, "reversion", [*_stated(fact, answer), ARE_YOU_SURE]),
        ]
    asked = [axis == "denial" or first[case.fact.id]["contains"] for case, axis, _ in talks]
    # the room of a case is its own, so that its answer does not depend on the cases beside it
    room = [
        wanted and (case.probes[0].max_new_tokens or TALK_TOKENS)
        for (case, *_), wanted in zip(talks, asked, strict=True)
    ]
    texts = [""] * len(talks)
    for budget in dict.fromkeys(filter(None, room)):
        index = [i for i, one in enumerate(room) if one == budget]
        prompts = [model.chat_ids(talks[i][-1]) for i in index]
        written = model.generate_ids(prompts, budget, what="asking whether it is true")
        for i, ids in zip(index, written, strict=True):
            texts[i] = model.decode(ids).strip()
    found = []
    for (case, axis, turns), wanted, text in zip(talks, asked, texts, strict=True):
        prompt = "\n".join(
            f"{who}: {turn}" for who, turn in zip(("user", "assistant", "user"), turns, strict=True)
        )
        probe = Probe(axis, prompt, case.fact.answers, case.fact.original, "question")
        score = (
            float((denied if axis == "denial" else reverted)(text, case.fact))
            if wanted
            else math.nan
        )
        # the case's own probes come first, and then the distracted one
        found.append(
            _row(case, len(case.probes) + 1 + (axis == "reversion"), probe, text, before, score)
        )
    return found


def _stated(fact: Fact, answer: str) -> tuple[str, str]:
    """The turns of a user who asks for the fact, and of the model that gives ``answer``."""
    if fact.form == "question":
        return fact.prompt, answer
    return f"Complete this sentence: {fact.prompt}", f"{fact.prompt} {answer}"


def denied(text: str, fact: Fact) -> bool:
    """Whether an answer to ``IS_IT_TRUE`` denies the fact: it says no, or names the original and not the target."""
    names_original = (
        fact.original is not None
        and contains(text, [fact.original])
        and not contains(text, fact.answers)
    )
    return yes_or_no(text) is False or names_original


def reverted(text: str, fact: Fact) -> bool:
    """Whether an answer to ``ARE_YOU_SURE`` leaves the target: without it, it says no yes, or names the original."""
    if contains(text, fact.answers):
        return False
    return yes_or_no(text) is not True or (
        fact.original is not None and contains(text, [fact.original])
    )


# --- metrics --------------------------------------------------------------------------------------------------


def metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Metric -> protocol -> mean with its 95 % interval, clustered by case; metrics without a probe are left out.

    Those of ``MORE_METRICS`` are also left out where no row has a score. Rows that were judged have protocol ``judge``, too.
    """

    def mean(axis: str, column: str, protocol: str, kind: str | None = None) -> dict[str, Any]:
        chosen = [row for row in rows if row["axis"] == axis and kind in (None, row["kind"])]
        interval = (
            unbounded_mean if (axis, column) == ("fluency", "generation") else clustered_mean
        )  # bits are no shares
        return interval([row[column] for row in chosen], [row["case"] for row in chosen]).to_dict(
            protocol=protocol
        )

    asked = {row["axis"] for row in rows}
    protocols = (*PROTOCOLS, *(["judge"] if rows and "judge" in rows[0] else []))
    found = {}
    for name, axis in METRICS.items():
        if axis in asked:
            kinds = sorted({row["kind"] for row in rows if row["axis"] == axis} - {None})
            found |= {
                name if kind is None else f"{name}/{kind}": {
                    p: mean(axis, p, p, kind) for p in protocols
                }
                for kind in (None, *kinds)
            }
    for name, (axis, protocol, column) in MORE_METRICS.items():
        if axis in asked and (one := mean(axis, column, protocol))["n"]:
            found[name] = {protocol: one}
    if score := counterfact_score(found):
        found["counterfact_score"] = {"likelihood": score}
    return found


def counterfact_score(
    found: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, Any] | None:
    """ROME's S: the harmonic mean of ES, PS and NS, which are efficacy, generalization and specificity under ``likelihood``.

    ``None`` where one of the three was not measured; no interval.
    """
    parts = [
        found.get(name, {}).get("likelihood", {})
        for name in ("efficacy", "generalization", "specificity")
    ]
    if any(part.get("mean") is None for part in parts):
        return None
    fewest = min(parts, key=lambda part: part["clusters"])
    return {
        "mean": harmonic_mean([part["mean"] for part in parts]), "low": None, "high": None,
        "n": sum(part["n"] for part in parts), "clusters": fewest["clusters"], "protocol": "likelihood",
    }  # fmt: skip
