"""Make the row of a probe, with the columns that every probe has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from editbench.matching import contains, denies, exact, same_answer
from editbench.rows import ProbeRow
from editbench.types import KEPT, Case, Probe

Asked = tuple[Case, int, Probe]
"""A case, one of its probes, and the probe's index."""
BaseRows = Mapping[tuple[str, int], ProbeRow]
"""The unedited model's rows by fact id and probe index. Empty while that model itself is asked."""


def new_row(
    asked: Asked, text: str, base_rows: BaseRows, generation: float | None = None
) -> ProbeRow:
    """Return the row of one probe, scored by the text that the model wrote.

    Columns that need log-probabilities are NaN or empty. The caller fills them in.

    Args:
        generation: the score under protocol ``generation``. ``None`` computes the usual one: 1 if
            the text contains an accepted answer or, on axes that must not move, gives the base's
            answer.
    """
    case, index, probe = asked
    # While the base itself is asked, its own text is the reference, so it scores 1 on kept axes.
    base_text = base_rows[case.fact.id, index]["text"] if base_rows else text
    right = contains(text, probe.answers, probe.prompt)
    kept = probe.axis in KEPT
    free = probe.scored_by("generation")
    if generation is None and not free:
        generation = math.nan
    elif generation is None:
        generation = float(
            same_answer(text, base_text, probe.answers, probe.prompt) if kept else right
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
        "generation": generation,
        "argmax": math.nan,
        "likelihood": math.nan,
        "contains": right if free and probe.answers else None,
        "exact": exact(text, probe.answers) if free and probe.answers else None,
        "denied": denies(text, probe.answers, probe.prompt),
        "target_leaked": leaked(case, probe.axis, text, probe.prompt),
        "answer_logprob": math.nan,
        "distractor_logprob": math.nan,
        "target_ids": [],
        "argmax_ids": [],
        "base_argmax_ids": [],
        "token_accuracy": math.nan,
        "token_agreement": math.nan,
        "consistency": math.nan,
    }


def leaked(case: Case, axis: str, text: str, prompt: str) -> bool | None:
    """Return whether an answer that must not move names the fact's target.

    ``None`` if the target is nothing that a free answer is searched for.
    """
    if not case.probes[0].scored_by("generation"):
        return None
    return axis in KEPT and contains(text, case.fact.answers, prompt)


def share(ids: Sequence[int], wanted: Sequence[int]) -> float:
    """Return the share of positions at which both sequences have the same token."""
    return sum(a == b for a, b in zip(ids, wanted, strict=True)) / len(wanted)
