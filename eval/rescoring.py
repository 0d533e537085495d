"""Compute the scores of stored answers again, from their texts, tokens and log-probabilities.

No model is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from editbench.errors import EditbenchError
from editbench.eval import retention, standard_tasks
from editbench.eval.conversations import denied, reverted
from editbench.eval.fluency import consistency, ngram_entropy
from editbench.eval.probe_rows import leaked, share
from editbench.eval.probes import openings
from editbench.eval.standard_tasks import Doc, Task
from editbench.matching import contains, denies, exact, same_answer
from editbench.rows import ProbeRow, SampleRow
from editbench.types import KEPT, METRICS, PROTOCOLS, Case, Fact

Scores = dict[str, float | None]
"""Column -> score; ``None`` where there is none."""


def rescore(rows: Sequence[ProbeRow], cases: Sequence[Case]) -> list[Scores]:
    """Compute the score columns of each row of ``probes.ask`` from its other columns.

    Tokens are taken as stored, since only the tokenizer knows which tokens a text has.

    Args:
        cases: the cases of the whole slice, because ``consistency`` depends on all of them.
    """
    by_id = {case.fact.id: case for case in cases}
    learned = {
        row["case"]: contains(row["text"], row["answers"], row["prompt"])
        for row in rows
        if row["axis"] == "rewrite" and by_id[row["case"]].probes[0].scored_by("generation")
    }
    scored = [
        {
            **_from_text(row, by_id[row["case"]], learned.get(row["case"], False)),
            **_from_tokens(row, _protocols(row, by_id[row["case"]])),
        }
        for row in rows
    ]
    free = [
        (row, scores) for row, scores in zip(rows, scored, strict=True) if row["axis"] == "fluency"
    ]
    references = {case.fact.id: probe.references for case, _, probe in openings(cases)}
    agreement = consistency(
        [f"{row['prompt']} {row['text']}" for row, _ in free],
        [references[row["case"]] for row, _ in free],
        [text for group in references.values() for text in group],
    )
    for (_, scores), close in zip(free, agreement, strict=True):
        scores["consistency"] = None if math.isnan(close) else close
    return scored


def _protocols(row: ProbeRow, case: Case) -> tuple[str, ...]:
    """Return the protocols that score a row; empty: all. See ``Probe.protocols``."""
    if row["probe"] < len(case.probes):
        return case.probes[row["probe"]].protocols
    if row["axis"] == "distracted":  # derived from the first neighborhood probe
        return next(probe.protocols for probe in case.probes if probe.axis == "neighborhood")
    return ()


def _from_text(row: ProbeRow, case: Case, learned: bool) -> Scores:
    """Return the scores that follow from the text.

    Args:
        learned: whether the rewrite answer of the same case contained the target.
    """
    text, answers, prompt = row["text"], row["answers"], row["prompt"]
    free = "generation" in (_protocols(row, case) or PROTOCOLS)
    matched = free and bool(answers)
    return {
        "generation": _generation(row, case.fact, learned) if free else None,
        "contains": contains(text, answers, prompt) if matched else None,
        "exact": exact(text, answers) if matched else None,
        "denied": denies(text, answers, prompt),
        "target_leaked": leaked(case, row["axis"], text, prompt),
        "consistency": None,
    }


def _generation(row: ProbeRow, fact: Fact, learned: bool) -> float | None:
    axis, text, answers = row["axis"], row["text"], row["answers"]
    if axis in KEPT:
        return float(same_answer(text, row["base_text"], answers, row["prompt"]))
    if axis == "fluency":
        return ngram_entropy(f"{row['prompt']} {text}")
    if axis == "denial":
        return float(denied(text, fact))
    if axis == "reversion":  # only asked where the fact was learned
        return float(reverted(text, fact)) if learned else None
    return float(contains(text, answers, row["prompt"]))


def _from_tokens(row: ProbeRow, protocols: tuple[str, ...]) -> Scores:
    """Return the scores that follow from tokens and log-probabilities.

    Only questions with an expected answer have them.
    """
    if row["axis"] not in (*METRICS.values(), *KEPT) or not len(row["answers"]):
        return dict.fromkeys(("argmax", "likelihood", "token_accuracy", "token_agreement"))
    accuracy, agreement = row["token_accuracy"], row["token_agreement"]
    if "target_ids" in row:  # older records have no tokens, only these shares
        accuracy = share(row["argmax_ids"], row["target_ids"])
        agreement = share(row["argmax_ids"], row["base_argmax_ids"])
    answer, distractor = row["answer_logprob"], row["distractor_logprob"]
    # A stored NaN is read as None. It counts as less probable, as NaN > x is False when asking.
    more_probable = None not in (answer, distractor) and answer > distractor
    tokens: Scores = {"token_accuracy": accuracy, "token_agreement": agreement}
    scores: Scores = {
        "argmax": float((agreement if row["axis"] in KEPT else accuracy) == 1),
        "likelihood": None if row["distractor"] is None else float(more_probable),
    }
    asked = protocols or PROTOCOLS
    return {name: score if name in asked else None for name, score in scores.items()} | tokens


def rescore_samples(
    name: str, rows: Sequence[SampleRow], data: Path | None, stored: str | None
) -> tuple[list[float | None], str]:
    """Grade the stored outputs of task ``name`` again, with the task's own code.

    A generated text is graded again by the task. For a choice or a continuation
    (``loglikelihood``) the record holds the outcome, which gives the score ``acc``. Other scores
    need log-probabilities, which no record holds.

    Args:
        data: the file or folder that the task's documents came from, if any.
        stored: hash of the data at the time when they were asked.

    Returns:
        A score for each row, or ``None`` where it cannot be computed, and the reason for that.
    """
    try:
        now = retention.data_digest(name, data)
        members = _members(name, data, now) if now is not None and now == stored else None
    except (EditbenchError, OSError) as error:
        return [None] * len(rows), str(error)
    if members is None:
        why = "its data comes from the hub" if now is None else "its data has changed since"
        return [None] * len(rows), why
    with retention.quiet():
        scores = [_sample_score(name, *members[row["member"]], row) for row in rows]
    return scores, "its scores need log-probabilities that no record has"


@lru_cache
def _members(name: str, data: Path | None, digest: str) -> dict[str, tuple[Task, Sequence[Doc]]]:
    """Return the tasks of ``name`` with their documents, which lm-eval rebuilds at each access.

    Args:
        digest: hash of the data. It is here so that the cache notices when they change.
    """
    with retention.quiet(), standard_tasks.in_plain_words(name):
        tasks = retention.load(name, data)
        return {member: (task, task.eval_docs) for member, task in tasks.items()}


def _sample_score(name: str, task: Task, docs: Sequence[Doc], row: SampleRow) -> float | None:
    doc, metric = docs[row["doc_id"]], row["metric"].partition(",")[0]
    if task.OUTPUT_TYPE == "generate_until" and (task.config.repeats or 1) == 1:
        score = task.process_results(doc, [_filtered(name, task, doc, row["output"])])[metric]
        return 0.0 if math.isnan(score) else float(score)
    # A task with its own grader may define ``acc`` in another way.
    if metric != "acc" or task.config.process_results is not None:
        return None
    if task.OUTPUT_TYPE == "loglikelihood":
        return float(row["output"].startswith("greedy"))
    if task.OUTPUT_TYPE == "multiple_choice":
        return _choice_score(task, doc, row["output"])
    return None


def _filtered(name: str, task: Task, doc: Doc, output: str) -> object:
    """Return ``output`` as the task grades it, after the filter that counts."""
    from lm_eval.api.instance import Instance

    wanted = retention.FILTERS.get(name, task._filters[0].name)
    request = Instance("generate_until", doc, (), 0, resps=[output])
    next(chain for chain in task._filters if chain.name == wanted).apply([request])
    filtered: object = request.filtered_resps[wanted]
    return filtered


def _choice_score(task: Task, doc: Doc, output: str) -> float | None:
    """Return 1.0 if ``output`` is the right choice, else 0.0.

    ``None`` if the text does not identify the choice: if choices read alike, or differ in their
    prompts alone.
    """
    choices, right = [choice.strip() for choice in task.doc_to_choice(doc)], task.doc_to_target(doc)
    if task.multiple_input or task.multiple_target or choices.count(output) > 1:
        return None
    # A target is an index or the text itself; lm-eval accepts both.
    if isinstance(right, int):
        right = choices[right] if 0 <= right < len(choices) else ""
    return float(output == right.strip())
