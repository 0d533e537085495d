"""Summaries in, ranked rows out; refuses to rank what was not measured the same way.

Ranking key, ``score``: the harmonic mean of efficacy, generalization, specificity and ``retention_mean``, each clamped
to [0, 1], so that a method cannot buy one with another. Undefined parts are left out, and ``score_of`` says which
went in. The unedited base is the reference, not a competitor: it comes last. Portability and in-context, which only some
corpora ask, do not enter it, so that it means the same for all corpora.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from editbench.errors import RecordError
from editbench.stats import cells_text, mean_ratio, number

AXES = ("efficacy", "generalization", "specificity")
MORE_AXES = ("portability", "in_context")
"""Metrics of the corpora that have such probes; not part of the score."""
MORE = {
    "generation": {
        "efficacy_exact": "Efficacy, exact ↑",
        "generalization_exact": "Generalization, exact ↑",
        "portability_exact": "Portability, exact ↑",
        "in_context_exact": "In-context, exact ↑",
        "neighborhood_accuracy": "Neighbors right ↑",
        "target_leak": "Target leaked ↓",
        "distracted": "Distracted ↑",
        "distracted_accuracy": "Right, distracted ↑",
        "distracted_leak": "Leaked, distracted ↓",
        "denial": "Denial ↓",
        "reversion": "Reversion ↓",
        "fluency": "Fluency ↑",
        "consistency": "Consistency ↑",
    },
    "argmax": {
        "efficacy_tokens": "Efficacy, tokens ↑",
        "generalization_tokens": "Generalization, tokens ↑",
        "specificity_tokens_rome": "Specificity, tokens (ROME) ↑",
        "specificity_tokens_easyedit": "Specificity, tokens (EasyEdit) ↑",
        "portability_tokens": "Portability, tokens ↑",
        "in_context_tokens": "In-context, tokens ↑",
        "distracted_argmax": "Distracted ↑",
    },
    "likelihood": {
        "counterfact_score": "CounterFact score ↑",
        "distracted_likelihood": "Distracted ↑",
    },
}
"""Metrics of a second table of each protocol, not part of the score, and their titles."""
BASE = "base"
BASELINES = (BASE, "ice")
"""Rows that are references: compared with nobody, so they are never ahead, and no obstacle to another row."""
SETTING = {
    "model": ("model", "name"),
    "model hash": ("model", "hash"),
    "precision": ("model", "precision"),
    "chat template": ("model", "chat_template"),
    "corpus": ("corpus", "name"),
    "corpus hash": ("corpus", "hash"),
    "slice": ("corpus", "part"),
    "n": ("corpus", "n"),
    "form": ("corpus", "form"),
    "regime": ("regime",),
    "seed": ("seed",),
    "task data": ("tasks",),
    "judge": ("judge", "model"),
    "scoring version": ("versions", "scoring"),
}
"""What all rows of one ranking must share, and where a summary keeps it."""


def family(method: str) -> str:
    """The method that ``method`` is, or is a variant of: NAME@LABEL is a variant of NAME."""
    return method.partition("@")[0]


def rivals(ranked: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that compete."""
    return [row for row in ranked if family(row["method"]) not in BASELINES]


def setting(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions of a cell, by the names in ``SETTING``."""
    return {name: look_up(summary, path) for name, path in SETTING.items()}


def look_up(record: Any, path: Sequence[str]) -> Any:
    """What stands under ``path``; ``None`` where an older record has nothing there."""
    for part in path:
        record = record.get(part) if isinstance(record, Mapping) else None
    return record


def row(summary: Mapping[str, Any], protocol: str = "generation") -> dict[str, Any]:
    """One cell as a JSON-ready row; what was not measured is ``None``, never 0.

    ``seconds`` is the injection alone, ``precompute_seconds`` what can be cached for the next one. ``retention_mean``
    is the mean over its n tasks of the ratio edited / base.
    """
    metrics, seconds = summary.get("metrics") or {}, summary.get("seconds") or {}
    axes = {
        axis: _interval((metrics.get(axis) or {}).get(protocol), protocol)
        for axis in (*AXES, *MORE_AXES)
    }
    retention = {task: _numbers(found) for task, found in (summary.get("retention") or {}).items()}
    retention_mean = mean_retention(summary["method"], retention)
    parts = {
        **{axis: axes[axis]["mean"] for axis in AXES},
        "retention_mean": retention_mean["mean"],
    }
    return {
        "method": summary["method"],
        "key": summary.get("key"),
        "options": summary.get("options") or {},
        "tuned": bool(summary.get("tuned")),
        "tuning": summary.get("tuning") or {},
        "status": summary.get("status", "done"),
        "note": summary.get("note") or "",
        "warnings": warnings(summary),
        "protocol": protocol,
        **{
            axis: found for axis, found in axes.items() if axis in AXES or found["mean"] is not None
        },
        "retention": retention,
        "retention_mean": retention_mean,
        "score": harmonic_mean([value for value in parts.values() if value is not None]),
        "score_of": [name for name, value in parts.items() if value is not None],
        "seconds": number(seconds.get("inject")),
        "precompute_seconds": number(seconds.get("precompute")),
        "peak_memory_bytes": summary.get("peak_memory_bytes"),
    }


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """What the edit itself says is wrong with it, and how many answers the judge left out."""
    judge = summary.get("judge") or {}
    told = list((summary.get("edit") or {}).get("warnings") or ())
    if missed := judge.get("not_judged"):
        told.append(f"{missed} answers were not judged; the last reason: {judge.get('reason')}")
    return told


def mean_retention(method: str, retention: Mapping[str, Any]) -> dict[str, Any]:
    """The mean ratio over the tasks with its interval; the base's is 1 by definition and has none."""
    return mean_ratio(retention).to_dict() | ({"low": None, "high": None} if method == BASE else {})


def rows(
    summaries: Sequence[Mapping[str, Any]], protocol: str = "generation"
) -> list[dict[str, Any]]:
    """The rows of one ranking, best first, ``base`` last; each gets a ``label`` that tells it from its neighbours.

    One of ``MORE_AXES`` that any row has stands in all of them.

    Raises:
        RecordError: the cells differ in a condition (model, corpus, slice, n, regime, seed, data of the tasks, version of the
            scoring), in their retention tasks or in protocol; names the rows (counted from 1 in the order given).
    """
    for name in SETTING:
        refuse_mixture(summaries, name, [setting(s)[name] for s in summaries])
    refuse_mixture(
        summaries,
        "retention tasks",
        [
            {t: found.get("metric") for t, found in s["retention"].items()}
            if s.get("retention")
            else None
            for s in summaries
        ],
        ignore=None,
    )
    refuse_mixture(
        summaries,
        "protocol",
        [_protocol(s, protocol) for s in summaries],
        ignore=None,
        expected=protocol,
    )
    found = [row(s, protocol) for s in summaries]
    for axis in axes_of(found):
        for one in found:
            one.setdefault(axis, _interval(None, protocol))
    for one, label in zip(found, _labels(found), strict=True):
        one["label"] = label
    return sorted(
        found,
        key=lambda r: (r["method"] == BASE, r["score"] is None, -(r["score"] or 0.0), r["label"]),
    )


def axes_of(ranked: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics that a table of ``ranked`` shows: ``AXES``, and those of ``MORE_AXES`` that a row has."""
    return [*AXES, *(axis for axis in MORE_AXES if any(axis in one for one in ranked))]


DIAGNOSTICS = {
    "target nll": ("supervision", "nll"),
    "rare targets": ("supervision", "rare"),
    "lambda, answer": ("mixing", "lam_answer"),
    "lambda, filler": ("mixing", "lam_filler"),
    "Fisher displacement": ("fisher", "displacement"),
    "squared norm": ("fisher", "squared_norm"),
    "curvature": ("fisher", "relative_curvature"),
    "top 1 % share": ("fisher", "top_share"),
    "KL": ("drift", "kl"),
    "words": ("drift", "words_after"),
    "words before": ("drift", "words_before"),
}
"""Columns, and where a summary's diagnostics keep them; an estimate is given by its mean."""


def diagnostics(
    summaries: Sequence[Mapping[str, Any]], labels: Mapping[str, str]
) -> list[dict[str, str]]:
    """One row of texts a cell, in the order of ``labels`` (by key); columns that no cell has are left out, and so is the
    table where no cell was diagnosed."""
    place = {key: i for i, key in enumerate(labels)}
    summaries = sorted(summaries, key=lambda summary: place.get(summary.get("key"), len(place)))
    shown: list[dict[str, str]] = []
    for summary in summaries:
        values = {}
        for title, (name, key) in DIAGNOSTICS.items():
            value = ((summary.get("diagnostics") or {}).get(name) or {}).get(key)
            value = number(value.get("mean") if isinstance(value, Mapping) else value)
            values[title] = "" if value is None else f"{value:.3g}"
        values["verified after 1 / 3 / all"] = _by_attempt(summary)
        for kind in ("format", "leakage", "collapse", "genuine"):
            counted = [
                found.get(kind) or 0 for place in _errors(summary) for found in place.values()
            ]
            values[f"lost: {kind}"] = str(sum(counted)) if counted else ""
        shown.append({"method": labels.get(summary.get("key"), summary["method"]), **values})
    used = [title for title in (shown[0] if shown else ()) if any(row[title] for row in shown)]
    return [{title: row[title] for title in used} for row in shown] if len(used) > 1 else []


def has(summary: Mapping[str, Any], protocol: str) -> bool:
    """Whether the cell has a score under ``protocol``."""
    return any(protocol in axis for axis in (summary.get("metrics") or {}).values())


def more(
    summaries: Sequence[Mapping[str, Any]], keys: Sequence[str], protocol: str
) -> tuple[list[str], dict[str, list[str]]]:
    """Titles of the metrics in ``MORE`` under ``protocol`` that a cell of ``keys`` has, and their texts by key."""
    metrics = {s["key"]: s.get("metrics") or {} for s in summaries}
    titles = MORE.get(protocol, {})
    shown = [name for name in titles if any(name in metrics[key] for key in keys)]
    texts = {
        key: [cells_text(metrics[key].get(name, {}).get(protocol)) for name in shown]
        for key in keys
    }
    return [titles[name] for name in shown], texts


def _by_attempt(summary: Mapping[str, Any]) -> str:
    """Shares of the mixed targets that were verified after one attempt, three and all; once where one was all."""
    shares = ((summary.get("diagnostics") or {}).get("mixing") or {}).get(
        "verified_by_attempt"
    ) or ()
    return (
        " / ".join(
            f"{shares[i]:.2f}" for i in sorted({0, min(2, len(shares) - 1), len(shares) - 1})
        )
        if shares
        else ""
    )


def _errors(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The counts of lost answers: those of the retention tasks and those of the probes."""
    return list(((summary.get("diagnostics") or {}).get("errors") or {}).values())


def harmonic_mean(values: Sequence[float]) -> float | None:
    """Harmonic mean of ``values`` clamped to [0, 1]; 0 if one is 0, ``None`` if there are none."""
    clamped = [min(1.0, max(0.0, v)) for v in values]
    if not clamped:
        return None
    return len(clamped) / sum(1 / v for v in clamped) if all(clamped) else 0.0


def _interval(found: Mapping[str, Any] | None, protocol: str) -> dict[str, Any]:
    found = found or {}
    return {
        **{k: number(found.get(k)) for k in ("mean", "low", "high")},
        "n": found.get("n") or 0,
        "protocol": protocol,
    }


def _numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    return {k: number(v) if isinstance(v, float) else v for k, v in found.items()}


def _protocol(summary: Mapping[str, Any], protocol: str) -> str | None:
    """The protocol that the scores are of: ``protocol`` if there, else another, ``None`` where nothing is scored."""
    metrics = (summary.get("metrics") or {}).values()
    stated = {
        name: (found or {}).get("protocol", name)
        for axis in metrics
        for name, found in axis.items()
    }
    return stated.get(protocol, min(stated.values(), default=None))


_ANY = object()


def refuse_mixture(
    summaries: Sequence[Mapping[str, Any]],
    name: str,
    values: Sequence[Any],
    ignore: Any = _ANY,
    expected: Any = _ANY,
) -> None:
    """Makes sure that ``values``, one a summary, are all the same.

    Raises:
        RecordError: they differ; names the odd rows. A value that is ``ignore`` is never odd.
    """
    texts = [json.dumps(v, sort_keys=True, ensure_ascii=False) for v in values]
    counted = Counter(t for t, v in zip(texts, values, strict=True) if v is not ignore)
    if not counted:
        return
    usual = json.dumps(expected) if expected is not _ANY else counted.most_common(1)[0][0]
    odd = [i for i, t in enumerate(texts) if t != usual and values[i] is not ignore]
    if odd:
        who = " and ".join(f"{i + 1} ({summaries[i]['method']})" for i in odd)
        raise RecordError(
            f"Row{'s' if len(odd) > 1 else ''} {who} with {name} {texts[odd[0]]} cannot share a ranking with {name} {usual}. "
            f"Make one table for each {name}."
        )


def _labels(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The method's name, followed by the options in which rows of one method differ."""
    labels = []
    for one in found:
        same = [r["options"] for r in found if r["method"] == one["method"]]
        names = sorted({k for options in same for k in options})
        differing = [
            k for k in names if len({json.dumps(o.get(k), sort_keys=True) for o in same}) > 1
        ]
        shown = ", ".join(
            f"{k}={_plain(one['options'][k])}" for k in differing if k in one["options"]
        )
        labels.append(f"{one['method']} ({shown})" if shown else one["method"])
    return labels


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
