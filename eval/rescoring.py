"""The scores of stored answers once more, from their texts, tokens and log-probabilities alone: no model is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from editbench.errors import EditbenchError
from editbench.eval import retention, standard_tasks
from editbench.eval.fluency import consistency, ngram_entropy
from editbench.eval.probes import denied, openings, reverted, share
from editbench.matching import contains, exact, same_answer
from editbench.types import KEPT, METRICS, Case, Fact


def rescore(rows: Sequence[Mapping[str, Any]], cases: Sequence[Case]) -> list[dict[str, Any]]:
    """For each row of ``probes.ask`` the score columns that follow from the others; ``None`` for what is not scored.

    ``cases`` are those of the whole slice. Which tokens a text has is the tokenizer's to say: they are taken as they stand.
    """
    facts = {case.fact.id: case.fact for case in cases}
    learned = {
        row["case"]: contains(row["text"], row["answers"])
        for row in rows
        if row["axis"] == "rewrite"
    }
    found = [
        {
            **_from_text(row, facts[row["case"]], learned.get(row["case"], False)),
            **_from_tokens(row),
        }
        for row in rows
    ]
    free = [
        (row, scores) for row, scores in zip(rows, found, strict=True) if row["axis"] == "fluency"
    ]
    references = {case.fact.id: probe.references for case, _, probe in openings(cases)}
    agreement = consistency(
        [f"{row['prompt']} {row['text']}" for row, _ in free],
        [references[row["case"]] for row, _ in free],
        [text for some in references.values() for text in some],
    )
    for (_, scores), close in zip(free, agreement, strict=True):
        scores["consistency"] = None if math.isnan(close) else close
    return found


def _from_text(row: Mapping[str, Any], fact: Fact, learned: bool) -> dict[str, Any]:
    axis, text, answers = row["axis"], row["text"], row["answers"]
    held = contains(text, answers)
    if axis in KEPT:
        score = float(same_answer(text, row["base_text"], answers))
    elif axis == "fluency":
        score = ngram_entropy(f"{row['prompt']} {text}")
    elif axis == "denial":
        score = float(denied(text, fact))
    elif axis == "reversion":  # asked of what was learned only
        score = float(reverted(text, fact)) if learned else None
    else:
        score = float(held)
    return {
        "generation": score,
        "contains": held,
        "exact": exact(text, answers),
        "target_leaked": axis in KEPT and contains(text, fact.answers),
        "consistency": None,
    }


def _from_tokens(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of the questions: the answer against the distractor, and the shares of tokens that are right or the base's;
    a record from before tokens were kept has only its shares."""
    if row["axis"] not in (*METRICS.values(), *KEPT):
        return dict.fromkeys(("argmax", "likelihood", "token_accuracy", "token_agreement"))
    accuracy, agreement = row["token_accuracy"], row["token_agreement"]
    if "target_ids" in row:
        accuracy, agreement = (
            share(row["argmax_ids"], row[wanted]) for wanted in ("target_ids", "base_argmax_ids")
        )
    answer, distractor = row["answer_logprob"], row["distractor_logprob"]
    compared = float(
        None not in (answer, distractor) and answer > distractor
    )  # a NaN is stored as None, and more than nothing
    return {
        "argmax": float((agreement if row["axis"] in KEPT else accuracy) == 1),
        "likelihood": None if row["distractor"] is None else compared,
        "token_accuracy": accuracy,
        "token_agreement": agreement,
    }


def rescore_samples(
    name: str, rows: Sequence[Mapping[str, Any]], data: Path | None, stored: str | None
) -> tuple[list[float | None], str]:
    """For each row of task ``name`` the score that its output has by the task's own code; ``None`` for what cannot be told
    from it, and why. ``stored`` is the hash of the data that were asked, ``data`` where they came from.

    A text is graded by the task. Of a choice and of a continuation (``loglikelihood``) the record has the outcome, which is the
    score ``acc``; other scores are of log-probabilities that it does not have.
    """
    try:
        now = retention.data_digest(name, data)
        members = _members(name, data, now) if now is not None and now == stored else None
    except (EditbenchError, OSError) as error:
        return [None] * len(rows), str(error)
    if members is None:
        why = "its data comes from the hub" if now is None else "its data is not what it was"
        return [None] * len(rows), why
    with retention.quiet():
        scores = [_sample_score(name, *members[row["member"]], row) for row in rows]
    return scores, "its scores are of log-probabilities that no record has"


@lru_cache
def _members(name: str, data: Path | None, digest: str) -> dict[str, tuple[Any, Any]]:
    """The task objects of ``name`` for the data with this ``digest``, and their documents, which lm-eval makes at each look."""
    with retention.quiet(), standard_tasks.in_plain_words(name):
        return {
            member: (task, task.eval_docs) for member, task in retention.load(name, data).items()
        }


def _sample_score(name: str, task: Any, docs: Any, row: Mapping[str, Any]) -> float | None:
    doc, metric = docs[row["doc_id"]], row["metric"].partition(",")[0]
    if task.OUTPUT_TYPE == "generate_until" and (task.config.repeats or 1) == 1:
        score = task.process_results(doc, [_filtered(name, task, doc, row["output"])])[metric]
        return 0.0 if math.isnan(score) else float(score)
    if metric != "acc" or task.config.process_results is not None:
        return None
    if task.OUTPUT_TYPE == "loglikelihood":
        return float(row["output"].startswith("greedy"))
    return (
        _choice_score(task, doc, row["output"]) if task.OUTPUT_TYPE == "multiple_choice" else None
    )


def _filtered(name: str, task: Any, doc: Any, output: str) -> Any:
    """``output`` as the task grades it, after the filter that counts."""
    from lm_eval.api.instance import Instance

    wanted = retention.FILTERS.get(name, task._filters[0].name)
    request = Instance("generate_until", doc, (), 0, resps=[output])
    next(one for one in task._filters if one.name == wanted).apply([request])
    return request.filtered_resps[wanted]


def _choice_score(task: Any, doc: Any, output: str) -> float | None:
    """Whether ``output`` is the right choice; ``None`` where choices read alike, or differ in their prompts alone."""
    choices, right = [choice.strip() for choice in task.doc_to_choice(doc)], task.doc_to_target(doc)
    if task.multiple_input or task.multiple_target or choices.count(output) > 1:
        return None
    if isinstance(right, int):
        right = choices[right] if 0 <= right < len(choices) else ""
    return float(output == right.strip())
