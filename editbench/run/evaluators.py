"""Evaluator plug-ins: ask them, check their answers, and average their scores.

A plug-in is asked about the same cases of the unedited and of the edited model. Its scores become
rows of the cell's table ``scores``, and the mean of those rows a column of the leaderboard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from editbench.errors import PluginError
from editbench.models import LanguageModel
from editbench.plugin import Evaluator, Score
from editbench.records.schema import EvaluatorRow
from editbench.rows import ScoreRow
from editbench.stats import clustered_mean, number
from editbench.types import Case


def score(
    name: str, evaluator: Evaluator, model: LanguageModel, cases: Sequence[Case]
) -> list[ScoreRow]:
    """Return the scores of ``cases`` by the plug-in registered as ``name``, in their order.

    Raises:
        PluginError: the plug-in did not return exactly one score, from 0 to 1 or NaN, for each
            case.
    """
    scores = evaluator.score(model, cases)
    if not isinstance(scores, list | tuple) or not all(isinstance(one, Score) for one in scores):
        raise PluginError(
            f"Evaluator {name!r} returned {_kind(scores)}; expected a list of "
            "editbench.plugin.Score."
        )
    # Matched by id: a plug-in that sorts or shuffles must not shift scores to other cases.
    by_case: dict[str, Score] = {}
    for one in scores:
        if one.case in by_case:
            raise PluginError(
                f"Evaluator {name!r} scored case {one.case!r} twice; expected one score per case."
            )
        by_case[one.case] = one
    wanted = [case.fact.id for case in cases]
    if missing := [case for case in wanted if case not in by_case]:
        raise PluginError(
            f"Evaluator {name!r} returned no score for case {missing[0]!r} ({len(missing)} of "
            f"{len(wanted)} cases are missing). Return NaN for a case that cannot be scored."
        )
    if unknown := [case for case in by_case if case not in wanted]:
        raise PluginError(
            f"Evaluator {name!r} scored case {unknown[0]!r}, which it was not asked about."
        )
    return [
        {"evaluator": name, "case": case, "score": _value(name, by_case[case]),
         "text": str(by_case[case].text)}
        for case in wanted
    ]  # fmt: skip


def _value(name: str, one: Score) -> float:
    try:
        value = float(one.value)
    except (TypeError, ValueError):
        value = math.inf  # refused below, like any number out of range
    if not (math.isnan(value) or 0 <= value <= 1):
        raise PluginError(
            f"Evaluator {name!r} scored case {one.case!r} with {one.value!r}; expected a number "
            "from 0 to 1, or NaN."
        )
    return value


def _kind(value: object) -> str:
    if isinstance(value, list | tuple) and value:
        odd = next(item for item in value if not isinstance(item, Score))
        return f"a {type(value).__name__} with a {type(odd).__name__} in it"
    return f"a {type(value).__name__}"


def summarize(
    titles: Mapping[str, str], rows: Sequence[ScoreRow], base: Sequence[ScoreRow]
) -> dict[str, EvaluatorRow]:
    """Return the mean of each evaluator over the cases, with its 95 % interval.

    Args:
        titles: evaluator -> heading of its column.
        rows: the scores of the edited model.
        base: the scores of the unedited model.
    """
    columns: dict[str, EvaluatorRow] = {}
    for name, title in titles.items():
        mine = [row for row in rows if row["evaluator"] == name]
        interval = clustered_mean([row["score"] for row in mine], [row["case"] for row in mine])
        unedited = clustered_mean([row["score"] for row in base if row["evaluator"] == name])
        columns[name] = {
            "mean": number(interval.mean),
            "low": number(interval.low),
            "high": number(interval.high),
            "n": interval.n,
            "clusters": interval.clusters,
            "protocol": name,
            "title": title,
            "base": number(unedited.mean),
        }
    return columns
