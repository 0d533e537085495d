"""The texts behind the numbers of one run: what failed, where two methods differ, all about one case; and a page of it.

A probe failed where the answer lacks the expected one (its score under protocol ``generation`` is 0), where a neighborhood or
distracted probe is not answered as the base answers it (0, too), and where the fact is denied or taken back (1). A ``fluency``
probe has an entropy, and never fails. Texts are raw here; whoever shows them makes them harmless.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editbench.errors import RecordError
from editbench.leaderboard.comparisons import PROTOCOLS
from editbench.leaderboard.rows import BASE, row, setting
from editbench.records.reading import heading, load_run, read_cases, read_rows, visible

TEMPLATE = "failures.html.j2"
WORST = {"denial": 1.0, "reversion": 1.0, "fluency": None}
"""Axis to the score of a failure, where that is not 0."""


def failures(run: Path, method: str | None = None) -> list[dict[str, Any]]:
    """The probes that failed, in the order of the methods and of the cases; of one method, else of all but the base.

    Raises:
        RecordError: no readable run, or no such method in it.
    """
    cells = _answered(run) if method is None else [_cell(run, method)]
    found = []
    for cell in cells:
        if method is not None or cell["method"] != BASE:
            found += [
                _shown(cell, one) for one in read_rows(run, cell["key"], "probes") if _failed(one)
            ]
    return found


def differences(run: Path, one: str, other: str) -> list[dict[str, Any]]:
    """The probes and retention samples that two methods score differently, with both texts: ``what`` is the axis or task,
    ``item`` the case or document. Fluency is left out: no two entropies are the same.

    Raises:
        RecordError: no readable run, no such method in it, or records that do not hold the same items.
    """
    cells = [_cell(run, one), _cell(run, other)]
    found = []
    for name, place, text, score in (
        ("probes", ("axis", "case", "probe", "prompt"), "text", "generation"),
        ("retention", ("task", "doc_id", "member", "prompt"), "output", "score"),
    ):
        tables = [
            {tuple(r[k] for k in place[:3]): r for r in read_rows(run, cell["key"], name)}
            for cell in cells
        ]
        if tables[0].keys() != tables[1].keys():
            raise RecordError(
                f"{one} and {other} were not asked the same {name} in {run}, so they cannot be compared there."
            )
        for key, a in tables[0].items():
            if a[score] != (b := tables[1][key])[score] and WORST.get(key[0], 0.0) is not None:
                found.append(
                    {
                        "what": heading(key[0]),
                        "item": str(key[1]),
                        "prompt": a["prompt"],
                        "expected": a["answers"][0] if name == "probes" else a["expected"],
                        "base": a.get(f"base_{text}"),
                        one: a[text],
                        f"{one} scores": a[score],
                        other: b[text],
                        f"{other} scores": b[score],
                    }
                )
    return found


def case(run: Path, name: str) -> dict[str, Any]:
    """All about the case called ``name``: its fact, each method's answer to each of its probes, what the edits noted on it.

    Raises:
        RecordError: no readable run, or no such case in it; suggests the nearest ids.
    """
    facts = {str(fact.get("id")): fact for fact in read_cases(run) if isinstance(fact, dict)}
    if name not in facts:
        near = difflib.get_close_matches(name, facts, n=3) or list(facts)[:3]
        raise RecordError(
            f"{run} has no case {name!r}. Some of its {len(facts)}: {', '.join(near)}."
        )
    answers, notes = [], []
    for cell in _answered(run):
        answers += [
            (one["probe"], _shown(cell, one))
            for one in read_rows(run, cell["key"], "probes")
            if one["case"] == name
        ]
        edited = read_rows(run, cell["key"], "edit_records")
        notes += [{**one, "method": cell["method"]} for one in edited if one.get("fact") == name]
    answers.sort(key=lambda answer: answer[0])  # stable: the methods keep their order
    return {
        "fact": {key: value for key, value in facts[name].items() if key != "probes"},
        "answers": [shown for _, shown in answers],
        "edit_records": notes,
    }


def page(run: Path) -> str:
    """The failures of each method as one HTML page without scripts: cases before and after, and the samples that were lost.

    A case shows its rewrite and paraphrases, and of its other probes those that failed.

    Raises:
        RecordError: no readable run.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    _, summaries = load_run(run)
    facts = {str(fact.get("id")): fact for fact in read_cases(run)}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, finalize=_lines,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        heading=heading,
        where=setting(summaries[0]),
        methods=[_story(run, cell, facts) for cell in summaries if cell["method"] != BASE],
        made={
            key: value
            for key, value in (summaries[0].get("environment") or {}).items()
            if not isinstance(value, dict)
        },
        versions=(summaries[0].get("environment") or {}).get("packages") or {},
    )


def _story(
    run: Path, cell: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """One method's part of the page."""
    probes = read_rows(run, cell["key"], "probes") if cell.get("status") != "failed" else []
    samples = read_rows(run, cell["key"], "retention") if cell.get("status") != "failed" else []
    by_case: dict[str, list[dict[str, Any]]] = {}
    for one in probes:
        by_case.setdefault(one["case"], []).append(one)
    lost: dict[str, list[dict[str, Any]]] = {}
    for one in samples:
        if one.get("base_score") is not None and one["score"] < one["base_score"]:
            lost.setdefault(one["task"], []).append({"base_output": "(not recorded)", **one})
    return {
        **row(cell),
        "cases": [
            {
                "id": name,
                "fact": {"prompt": name, "target": None, "original": None, **facts.get(name, {})},
                "failed": sum(map(_failed, asked)),
                "asked": len(asked),
                "probes": [
                    {**one, "failed": _failed(one)}
                    for one in asked
                    if one["axis"] in ("rewrite", "paraphrase") or _failed(one)
                ],
            }
            for name, asked in by_case.items()
            if any(map(_failed, asked))
        ],
        "of": len(by_case),
        "lost": lost,
    }


def _failed(probe: Mapping[str, Any]) -> bool:
    return probe["generation"] is not None and probe["generation"] == WORST.get(probe["axis"], 0.0)


def _shown(cell: Mapping[str, Any], probe: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "method": cell["method"],
        "case": probe["case"],
        "axis": probe["axis"],
        "prompt": probe["prompt"],
        "expected": probe["answers"][0],
        "base": probe["base_text"],
        "edited": probe["text"],
        "scores": {protocol: probe[protocol] for protocol in PROTOCOLS if protocol in probe},
    }


def _answered(run: Path) -> list[dict[str, Any]]:
    """The cells that hold answers."""
    return [summary for summary in load_run(run)[1] if summary.get("status") != "failed"]


def _cell(run: Path, name: str) -> dict[str, Any]:
    """The cell whose method or key is ``name``."""
    _, summaries = load_run(run)
    found = [summary for summary in summaries if name in (summary["method"], summary["key"])]
    if not found:
        raise RecordError(
            f"{run} holds no method {name!r}. It holds: {', '.join(s['method'] for s in summaries)}."
        )
    if len(found) > 1:
        raise RecordError(
            f"{run} holds {len(found)} cells of {name!r}. Name one: {', '.join(s['key'] for s in found)}."
        )
    if found[0].get("status") == "failed":
        raise RecordError(
            f"{name!r} failed in {run}, so it has no answers ({found[0].get('note')})."
        )
    return found[0]


def _lines(value: Any) -> Any:
    """What the template shows of a value: of a text its lines, each with escapes for what is not shown."""
    if type(value) is str:  # not Markup, which is the template's own
        return "\n".join(map(visible, value.split("\n")))
    return "" if value is None else value
