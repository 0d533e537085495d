"""Turn summaries into ranked rows, and refuse to rank cells that were not measured the same way.

The ranking key is ``score``: the harmonic mean of efficacy, generalization, specificity and
``retention_mean``, each clamped to [0, 1]. A harmonic mean is low if one part is low, so a method
cannot trade one part for another. Undefined parts are left out, and ``score_of`` lists the parts
that were used. The unedited base is the reference, not a competitor, and comes last. Portability,
in-context and evaluator plug-ins do not enter the score, because only some runs measure them and a
score must mean the same for all corpora.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from editbench.errors import RecordError
from editbench.leaderboard.schema import AxisRow, Mixing, Row, Summary
from editbench.records.schema import EvaluatorRow
from editbench.report import FAR, MOVED_FAR
from editbench.rows import IntervalRow, RetentionRow
from editbench.stats import Interval, cells_text, mean_ratio, number
from editbench.types import DRAFTED

AXES = ("efficacy", "generalization", "specificity")
MORE_AXES = ("portability", "in_context")
"""Metrics that only some corpora have probes for. They are not part of the score."""
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
"""Protocol -> the metrics of its second table, with their headings. They are not part of the score.
"""
MISSING = "–"
BASE = "base"
BASELINES = (BASE, "ice")
"""Reference rows. No method is compared with them, so they are never ahead and keep no other row
from being ahead."""
SETTING = {
    "model": ("model", "name"),
    "model hash": ("model", "hash"),
    "precision": ("model", "precision"),
    "dtype": ("model", "dtype"),
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
"""Condition that all rows of one ranking must share -> its path in a summary."""


def family(method: str) -> str:
    """Return the method's name without its variant: ``memit`` for ``memit@quick``."""
    return method.partition("@")[0]


def rivals(ranked: Sequence[Row]) -> list[Row]:
    """Return the rows that compete: all but the baselines."""
    return [row for row in ranked if family(row["method"]) not in BASELINES]


def setting(summary: Mapping[str, object]) -> dict[str, object]:
    """Return the conditions of a cell, by the names in ``SETTING``."""
    return {name: look_up(summary, path) for name, path in SETTING.items()}


def keyed_options(summary: Mapping[str, Any]) -> dict[str, object]:
    """Return a cell's options without those that its key leaves out, which older cells lack."""
    left_out = summary.get("left_out", ())
    options = summary.get("options") or {}
    return {key: value for key, value in options.items() if key not in left_out}


def look_up(record: object, path: Sequence[str]) -> object:
    """Return the value under ``path``, or ``None`` where an older record has no such field."""
    for part in path:
        record = record.get(part) if isinstance(record, Mapping) else None
    return record


def row(summary: Summary, protocol: str = "generation") -> Row:
    """Return one cell as a JSON-ready row, without a label."""
    metrics, seconds = summary.get("metrics") or {}, summary.get("seconds") or {}
    axes = {
        axis: _axis_row((metrics.get(axis) or {}).get(protocol), protocol)
        for axis in (*AXES, *MORE_AXES)
    }
    retention = {
        task: cast(RetentionRow, _finite(values))
        for task, values in (summary.get("retention") or {}).items()
    }
    retention_mean = mean_retention(summary["method"], retention)
    spread = number(look_up(summary, ("retention_spread",)))
    if spread is not None and summary["method"] != BASE:  # whose ratio is 1 by definition
        retention_mean["spread"] = spread
    parts = {
        **{axis: axes[axis]["mean"] for axis in AXES},
        "retention_mean": retention_mean["mean"],
    }
    measured = {name: value for name, value in parts.items() if value is not None}
    made: Row = {
        "method": summary["method"],
        "key": summary["key"],
        "options": keyed_options(summary),
        "recipe": summary.get("recipe"),
        "tuned": bool(summary.get("tuned")),
        "tuning": summary.get("tuning") or {},
        "status": summary.get("status", "done"),
        "note": summary.get("note") or "",
        "warnings": warnings(summary),
        "protocol": protocol,
        "efficacy": axes["efficacy"],
        "generalization": axes["generalization"],
        "specificity": axes["specificity"],
        "retention": retention,
        "retention_mean": retention_mean,
        "score": harmonic_mean(list(measured.values())),
        "score_of": list(measured),
        "seconds": number(seconds.get("inject")),
        "precompute_seconds": number(seconds.get("precompute")),
        "peak_memory_bytes": summary.get("peak_memory_bytes"),
    }
    for axis in MORE_AXES:
        if axes[axis]["mean"] is not None:
            _set_axis(made, axis, axes[axis])
    if (artifact := summary.get("artifact")) is not None:
        made["artifact"] = artifact
    if origins := summary.get("origins"):
        made["origins"] = origins
    if summary["corpus"].get("n") == 0:
        made["no_facts"] = True
    by_kind = {axis: metrics.get(f"{axis}/{DRAFTED}", {}) for axis in (*AXES, *MORE_AXES)}
    drafted = {
        axis: scores[protocol]["n"] for axis, scores in by_kind.items() if protocol in scores
    }
    if drafted:
        made["drafted"] = drafted
    if shares := mixing(summary):
        made["mixing"] = shares
    if twice := summary.get("right_after"):
        made["right_after"] = {
            "facts": twice["facts"],
            "replaced": twice["replaced"],
            "not_injected": twice["not_injected"],
            "scores": {
                axis: by_protocol[protocol]
                for axis, by_protocol in twice["scores"].items()
                if protocol in by_protocol
            },
        }
    if scores := summary.get("evaluators"):
        made["evaluators"] = {
            name: cast(EvaluatorRow, _finite(values)) for name, values in scores.items()
        }
    return made


def warnings(summary: Summary) -> list[str]:
    """Return what the edit reports, own text that moved far, and answers denied or not judged."""
    edit, judge = summary.get("edit") or {}, summary.get("judge") or {}
    reported = edit.get("warnings")
    texts = list(map(str, reported)) if isinstance(reported, Sequence) else []
    far = number(look_up(summary, ("diagnostics", "drift", "kl", "mean"))) or 0.0
    if far > FAR and not any(text.startswith(MOVED_FAR) for text in texts):
        texts.append(MOVED_FAR)
    if skipped := judge.get("not_judged"):
        texts.append(f"{skipped} answers were not judged; the last reason: {judge.get('reason')}")
    if isinstance(denied := look_up(summary, ("denied",)), Mapping) and denied:
        listed = ", ".join(f"{count} {axis}" for axis, count in denied.items())
        texts.append(
            "answers that name the expected answer only to deny or correct it, and so do not count "
            f"as containing it: {listed}"
        )
    return texts


def mixing(summary: Summary) -> Mixing | None:
    """Return the asked and the effective lambda of a method that mixes its training texts.

    For a pair of methods they are those of the part that mixes. ``None`` for other methods, and for
    a regime that keeps no such figure (``single``, ``sequential``).
    """
    if (several := look_up(summary, ("mixing",))) is not None:
        return cast(Mixing, several)  # the mean over seeds
    options = summary.get("options") or {}
    for part in ("", *family(summary["method"]).split("+")):
        path = ("edit", *([part] if part else []), "effective_lambda")
        effective = look_up(summary, path)
        if not isinstance(effective, (int, float)):
            continue
        prefix = f"{part}." if part else ""
        asked = options.get(f"{prefix}lam")
        is_asked = options.get(f"{prefix}mode") != "adaptive" and isinstance(asked, (int, float))
        return {"lam": number(asked) if is_asked else None, "effective_lambda": number(effective)}
    return None


def mean_retention(method: str, retention: Mapping[str, RetentionRow]) -> IntervalRow:
    """Return the mean over tasks of the ratio edited / base, with its 95 % interval.

    The base's ratio is 1 by definition, so its interval has no ends.
    """
    mean = interval_row(mean_ratio(retention))
    if method == BASE:
        mean["low"] = mean["high"] = None
    return mean


def interval_row(interval: Interval) -> IntervalRow:
    """Return an interval as a record keeps it, NaN as ``None``."""
    return {
        "mean": number(interval.mean),
        "low": number(interval.low),
        "high": number(interval.high),
        "n": interval.n,
        "clusters": interval.clusters,
    }


def rows(summaries: Sequence[Summary], protocol: str = "generation") -> list[Row]:
    """Return the rows of one ranking, best first and ``base`` last, each with a label.

    A metric of ``MORE_AXES`` that any row has is present in all of them.

    Raises:
        RecordError: if the cells differ in a condition of ``SETTING`` (model, corpus, slice, n,
            regime, seed, task data, scoring version), in their retention tasks or in the protocol;
            names the rows, counted from 1 in the order given.
    """
    settings = list(map(setting, summaries))
    for name in SETTING:
        refuse_mixture(summaries, name, [conditions[name] for conditions in settings])
    tasks = [_task_metrics(summary) for summary in summaries]
    refuse_mixture(summaries, "retention tasks", tasks, ignore=None)
    stated = [_protocol(summary, protocol) for summary in summaries]
    refuse_mixture(summaries, "protocol", stated, ignore=None, expected=protocol)
    ranked = [row(summary, protocol) for summary in summaries]
    for axis in axes_of(ranked):
        for each in ranked:
            if axis_of(each, axis) is None:
                _set_axis(each, axis, _axis_row(None, protocol))
    for each, label in zip(ranked, _labels(ranked), strict=True):
        each["label"] = label
    return sorted(
        ranked,
        # Rows without a score come after those with one, and equal scores are ordered by label.
        key=lambda r: (r["method"] == BASE, r["score"] is None, -(r["score"] or 0.0), r["label"]),
    )


def axes_of(ranked: Sequence[Row]) -> list[str]:
    """Return the metrics that a table of ``ranked`` shows.

    They are ``AXES`` and the metrics of ``MORE_AXES`` that any row has; without facts, none.
    """
    if without_facts(ranked):
        return []
    return [*AXES, *(axis for axis in MORE_AXES if any(axis in each for each in ranked))]


def without_facts(ranked: Sequence[Row]) -> bool:
    """Return whether the rows are of a run without facts. They then have retention alone."""
    return any("no_facts" in each for each in ranked)


def axis_of(row: Row, axis: str) -> AxisRow | None:
    """Return the score of ``axis`` in ``row``, or ``None`` if the row has no such field."""
    by_name: dict[str, AxisRow | None] = {
        "efficacy": row["efficacy"],
        "generalization": row["generalization"],
        "specificity": row["specificity"],
        "portability": row.get("portability"),
        "in_context": row.get("in_context"),
    }
    return by_name[axis]


def title_of(axis: str, ranked: Sequence[Row]) -> str:
    """Return the heading of an axis, with a mark if it was measured on drafted probes."""
    mark = " ¶" if any(axis in each.get("drafted", {}) for each in ranked) else ""
    return f"{axis.capitalize().replace('_', '-')} ↑{mark}"


def drafted_note(ranked: Sequence[Row]) -> str:
    """Return what the mark of ``title_of`` means; empty if no probe was drafted."""
    row = next((each for each in ranked if "drafted" in each), None)
    if row is None:
        return ""
    counts = [
        f"{count} of {score['n']} for {axis.replace('_', '-')}"
        for axis, count in row["drafted"].items()
        if (score := axis_of(row, axis))
    ]
    return (
        f"¶ editbench drafted these probes ({', '.join(counts)}): frames around the prompt, and "
        "other subjects of whose answer the unedited model is sure. Nobody may have read them."
    )


def mixing_note(ranked: Sequence[Row]) -> str:
    """Return the asked and the effective lambda of each row that mixes; empty if none does."""
    told = [_lambdas(each, shares) for each in ranked if (shares := each.get("mixing"))]
    if not told:
        return ""
    return f"lambda, the naive branch's share: {'; '.join(told)}."


def artifact_note(row: Row) -> str:
    """Return what the artifact of a row is and how far its base was checked; empty without one."""
    if (made := row.get("artifact")) is None:
        return ""
    asked = " Whether it was made for these facts is not known."
    if "taught" in made and "asked" in made:
        asked = f" It was made for {made['taught']} of the {made['asked']} facts asked here."
    return (
        f"{row.get('label', row['method'])}: {made['kind']}"
        f"{f' of {base}' if (base := made['base']) else ', which name no base'}, made elsewhere. "
        f"Checked: {made['checked']}.{'' if 'no_facts' in row else asked}"
    )


def origin_note(row: Row) -> str:
    """Return from which package the method of a row comes; empty for editbench's own."""
    return " ".join(
        f"{made['method']} comes from the package {made['package']} {made['version']}"
        f"{f' ({url})' if (url := made['url']) else ''}."
        for made in row.get("origins", ())
    )


def same_artifacts_note(ranked: Sequence[Row]) -> str:
    """Return which rows show the same artifact under several names; empty if none do."""
    names: dict[str, dict[str, None]] = {}
    for row in ranked:
        if (made := row.get("artifact")) is not None:
            names.setdefault(made["content"], {})[row["method"]] = None
    return " ".join(
        f"{' and '.join(same)} are the same files." for same in names.values() if len(same) > 1
    )


def _lambdas(row: Row, shares: Mixing) -> str:
    asked = "" if shares["lam"] is None else f"{shares['lam']:.2f} asked, "
    effective = cells_text({"mean": shares["effective_lambda"]})
    return f"{row.get('label', row['method'])} {asked}{effective} effective"


def row_notes(ranked: Sequence[Row]) -> list[str]:
    """Return the sentences about the rows that stand below a ranking, on a page and in a terminal.

    They are plain text. The warnings of the edits are not among them (``Row["warnings"]``).
    """
    made = [*map(artifact_note, ranked), same_artifacts_note(ranked)]
    packages = dict.fromkeys(map(origin_note, ranked))  # once for all variants of a method
    notes = [drafted_note(ranked), mixing_note(ranked), *made, *packages]
    return [note for note in notes if note]


def evaluators_of(ranked: Sequence[Row]) -> dict[str, str]:
    """Return the evaluator plug-ins that any row has, each with the heading of its column."""
    return {
        name: score["title"] or name
        for each in reversed(ranked)  # so that the best row's heading is kept
        for name, score in each.get("evaluators", {}).items()
    }


DIAGNOSTICS = {
    "target NLL": ("supervision", "nll"),
    "NLL > 5": ("supervision", "nll_above_5"),
    "p < .01": ("supervision", "rare"),
    "NLL, first 5 %": ("positions", "parts", "first", "nll"),
    "NLL, last quarter": ("positions", "parts", "quarter_4", "nll"),
    "gradient, first 5 %": ("positions", "parts", "first", "gradient"),
    "gradient, last quarter": ("positions", "parts", "quarter_4", "gradient"),
    "first 5 %: of tokens": ("positions", "first_token_share"),
    "first 5 %: of NLL": ("positions", "first_nll_share"),
    "first 5 %: of gradients": ("positions", "first_gradient_share"),
    "lambda, answer": ("mixing", "lam_answer"),
    "lambda, filler": ("mixing", "lam_filler"),
    "Fisher displacement": ("fisher", "displacement"),
    "squared norm": ("fisher", "squared_norm"),
    "alignment ratio R": ("fisher", "alignment_ratio"),
    "top 1 % share": ("fisher", "top_share"),
    "KL": ("drift", "kl"),
    "words": ("drift", "words_after"),
    "words before": ("drift", "words_before"),
}
"""Column -> its path in a summary's diagnostics. An estimate is shown by its mean."""
OLDER_NAMES = {("fisher", "alignment_ratio"): ("fisher", "relative_curvature")}
"""Path of a diagnostic -> its path in older records."""
LOST = ("format", "leakage", "collapse", "genuine")
"""The kinds of lost answers. Each has a column."""


def diagnostics(summaries: Sequence[Summary], labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Return one row of texts for each cell, in the order of ``labels`` (by key).

    Columns that no cell fills are left out. The list is empty if no cell was diagnosed.
    """
    order = {key: i for i, key in enumerate(labels)}
    ordered = sorted(summaries, key=lambda summary: order.get(summary["key"], len(order)))
    shown: list[dict[str, str]] = []
    for summary in ordered:
        texts = {
            title: _three_digits(diagnosed(summary, *path)) for title, path in DIAGNOSTICS.items()
        }
        texts["verified after 1 / 3 / all"] = _by_attempt(summary)
        for kind in LOST:
            texts[f"lost: {kind}"] = _count_lost(summary, kind)
        shown.append({"method": labels.get(summary["key"], summary["method"]), **texts})
    used = [title for title in (shown[0] if shown else ()) if any(line[title] for line in shown)]
    if len(used) < 2:
        return []
    return [{title: line[title] or MISSING for title in used} for line in shown]


def diagnosed(record: Mapping[str, object], *path: str) -> object:
    """Return the value of a diagnostic, under its older name if need be; ``None`` if it is absent.

    Args:
        path: the diagnostic and its field, such as ``"fisher", "alignment_ratio"``.
    """
    value = look_up(record, ("diagnostics", *path))
    if value is None and path in OLDER_NAMES:
        value = look_up(record, ("diagnostics", *OLDER_NAMES[path]))
    return value


def has(summary: Summary, protocol: str) -> bool:
    """Return whether the cell has a score under ``protocol``."""
    return any(protocol in axis for axis in (summary.get("metrics") or {}).values())


def more(
    summaries: Sequence[Summary], keys: Sequence[str], protocol: str
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the second table of ``protocol``.

    Returns:
        The headings of the metrics in ``MORE`` that any cell of ``keys`` has, and their texts by
        key.
    """
    metrics = {summary["key"]: summary.get("metrics") or {} for summary in summaries}
    titles = MORE.get(protocol, {})
    shown = [name for name in titles if any(name in metrics[key] for key in keys)]
    texts = {
        key: [cells_text(metrics[key].get(name, {}).get(protocol)) for name in shown]
        for key in keys
    }
    return [titles[name] for name in shown], texts


def harmonic_mean(values: Sequence[float]) -> float | None:
    """Return the harmonic mean of ``values`` clamped to [0, 1].

    It is 0 if any value is 0, and ``None`` if there are no values.
    """
    clamped = [min(1.0, max(0.0, v)) for v in values]
    if not clamped:
        return None
    return len(clamped) / sum(1 / v for v in clamped) if all(clamped) else 0.0


_ANY = object()  # "not given", since ``None`` is a value that can be ignored or expected


def refuse_mixture(
    summaries: Sequence[Summary],
    name: str,
    values: Sequence[object],
    ignore: object = _ANY,
    expected: object = _ANY,
) -> None:
    """Check that ``values``, one per summary, are equal. A value that is ``ignore`` is skipped.

    Raises:
        RecordError: if a value differs from ``expected`` or, without it, from the most common
            value; names the rows that differ.
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
            f"Row{'s' if len(odd) > 1 else ''} {who} with {name} {texts[odd[0]]} cannot share a "
            f"ranking with {name} {usual}. Make one table for each {name}."
        )


def _task_metrics(summary: Summary) -> dict[str, str | None] | None:
    """Return the metric of each retention task of the cell; ``None`` if it has no tasks."""
    tasks = summary.get("retention")
    return {task: values.get("metric") for task, values in tasks.items()} if tasks else None


def _protocol(summary: Summary, protocol: str) -> str | None:
    """Return the protocol that the scores state.

    It is ``protocol`` if a score states it, else another one, or ``None`` if nothing is scored.
    """
    stated = {
        name: values.get("protocol", name)
        for axis in (summary.get("metrics") or {}).values()
        for name, values in axis.items()
    }
    return stated.get(protocol, min(stated.values(), default=None))


def _axis_row(values: IntervalRow | None, protocol: str) -> AxisRow:
    if values is None:
        return {"mean": None, "low": None, "high": None, "n": 0, "protocol": protocol}
    scored: AxisRow = {
        "mean": number(values.get("mean")),
        "low": number(values.get("low")),
        "high": number(values.get("high")),
        "n": values.get("n") or 0,
        "protocol": protocol,
    }
    if (spread := number(values.get("spread"))) is not None:
        scored["spread"] = spread
    return scored


def _set_axis(row: Row, axis: str, values: AxisRow) -> None:
    if axis == "portability":
        row["portability"] = values
    else:
        row["in_context"] = values


def _finite(values: Mapping[str, object]) -> dict[str, object]:
    """Return ``values`` with ``None`` in place of NaN and infinity. Absent fields stay absent."""
    return {k: number(v) if isinstance(v, float) else v for k, v in values.items()}


def _three_digits(value: object) -> str:
    """Return a diagnostic, or the mean of an estimate, with three digits."""
    value = value.get("mean") if isinstance(value, Mapping) else value
    finite = number(value) if isinstance(value, (int, float)) else None
    return "" if finite is None else f"{finite:.3g}"


def _by_attempt(summary: Summary) -> str:
    """Return the shares of mixed targets verified after one attempt, after three and after all."""
    shares = look_up(summary, ("diagnostics", "mixing", "verified_by_attempt"))
    if not isinstance(shares, Sequence) or not shares:
        return ""
    places = sorted({0, min(2, len(shares) - 1), len(shares) - 1})
    return " / ".join(f"{shares[i]:.2f}" for i in places)


def _count_lost(summary: Summary, kind: str) -> str:
    """Return how many answers to tasks and probes were lost with an error of ``kind``."""
    errors = look_up(summary, ("diagnostics", "errors"))
    sources = errors.values() if isinstance(errors, Mapping) else ()
    counts = [counted.get(kind) or 0 for source in sources for counted in source.values()]
    return str(sum(counts)) if counts else ""


def _labels(ranked: Sequence[Row]) -> list[str]:
    """Return each row's method, followed by the options in which that method's rows differ.

    ``recipe=NAME`` stands for the options that a recipe sets.
    """
    labels = []
    for each in ranked:
        others = [r for r in ranked if r["method"] == each["method"]]
        same = [r["options"] for r in others if r["recipe"] == each["recipe"]]
        names = sorted({k for options in same for k in options})
        differing = [
            k for k in names if len({json.dumps(o.get(k), sort_keys=True) for o in same}) > 1
        ]
        parts = [f"{k}={_plain(each['options'][k])}" for k in differing if k in each["options"]]
        if each["recipe"] and len(same) < len(others):
            parts = [f"recipe={each['recipe']}", *parts]
        shown = ", ".join(parts)
        labels.append(f"{each['method']} ({shown})" if shown else each["method"])
    return labels


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
