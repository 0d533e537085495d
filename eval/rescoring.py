"""The scores of stored answers once more, from their texts and log-probabilities alone: no model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editbench.eval.fluency import ngram_entropy
from editbench.eval.probes import KEPT, denied, reverted
from editbench.matching import contains, exact, same_answer
from editbench.types import METRICS, Case, Fact


def rescore(rows: Sequence[Mapping[str, Any]], cases: Sequence[Case]) -> list[dict[str, Any]]:
    """For each row of ``probes.ask`` the score columns that follow from the others; ``None`` for what is not scored.

    What needs the tokenizer (``token_accuracy``) or the references of all cases (``consistency``) is left out.
    """
    facts = {case.fact.id: case.fact for case in cases}
    learned = {row["case"]: contains(row["text"], row["answers"]) for row in rows if row["axis"] == "rewrite"}
    return [{**_from_text(row, facts[row["case"]], learned.get(row["case"], False)), **_from_tokens(row)} for row in rows]


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
    }


def _from_tokens(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of the cases' own questions: the answer against the distractor, and whether all tokens are right or the base's."""
    if row["axis"] not in METRICS.values():
        return {"argmax": None, "likelihood": None}
    share = row["token_agreement" if row["axis"] in KEPT else "token_accuracy"]
    answer, distractor = row["answer_logprob"], row["distractor_logprob"]
    compared = float(None not in (answer, distractor) and answer > distractor)  # a NaN is stored as None, and more than nothing
    return {"argmax": float(share == 1), "likelihood": None if row["distractor"] is None else compared}
