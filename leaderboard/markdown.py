"""Run folders in, one markdown page out: a table per setting, every row linked to its record."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from editbench.errors import RecordError
from editbench.leaderboard import details
from editbench.leaderboard.rows import (
    AXES,
    BASE,
    BASELINES,
    MORE_AXES,
    ahead,
    axes_of,
    diagnostics,
    family,
    rows,
    setting,
    under_generation,
)
from editbench.records import load_run, summary_path
from editbench.stats import cells_text

DEFINITIONS = """\
- **Efficacy**: share of facts whose rewrite prompt is answered with the target.
- **Generalization**: the same for paraphrases of the prompt.
- **Specificity**: under `generation`, share of neighbourhood probes on which the edited model still gives the base model's
  own answer: both are right, or their first clauses are the same. Under `argmax`, share on which the same tokens are the
  most probable as in the base. Under `likelihood`, share on which the true answer is more probable than the edit's target.
- **Retention**: score of the edited model / score of the base on lm-eval tasks, mean over the tasks; the change per task is
  paired by sample; (8↓ 2↑) says that 8 samples were right before and are wrong now, and 2 the other way.
- **Score**, the ranking key: harmonic mean of the four above, each clamped to [0, 1].
- **Seconds**: injection, then `+` what can be cached for the next one. **Peak memory**: the highest while injecting.
- **Intervals**: 95 %, percentile bootstrap over cases (Wilson's where every case is wholly right or wrong). **Bold**: the
  interval lies above that of every other method; base and ice are references and take no part. **–**: not measured."""
MORE_DEFINITIONS = """
- **Portability**: share of probes answered with what follows from the facts. **In-context**: share of probes answered right
  whose prompt holds all that is needed. Neither enters the score: only some corpora ask them."""
PROTOCOLS = {
    "generation": "does the model write it?",
    "argmax": "is each token of the target the most probable, the target given up to there?",
    "likelihood": "is the target more probable than the old answer?",
    "judge": "does another language model say that the answer means the same?",
}
"""The first that was scored makes the headline."""
UNTUNED = "† not tuned: its hyper-parameters were not searched for on the dev slice."
PARTIAL = "‡ the score leaves out what was not measured."


def render(run_paths: Sequence[Path], output: Path, command: str | None = None) -> str:
    """The page for ``run_paths`` as it should be written to ``output``, from where the links to the records lead.

    Cells of different models, corpora, slices, regimes, seeds or retention limits get separate tables. ``command`` is
    quoted as the way to make the page again.

    Raises:
        RecordError: no run, a path that is no readable run, or cells of one table that cannot be compared.
    """
    if not run_paths:
        raise RecordError("A leaderboard needs at least one run folder.")
    tables: dict[str, list[dict[str, Any]]] = {}
    headers: dict[str, dict[str, Any]] = {}
    links: dict[str, str] = {}
    for path in map(Path, run_paths):
        config, summaries = load_run(path)
        for summary in summaries:
            if summary["key"] in links:
                continue  # A key is the hash of a cell's inputs: another run holds the same cell.
            links[summary["key"]] = _link(summary_path(path, summary["key"]), output)
            where = {**setting(summary), "limit": config.get("limit"), "tasks": _tasks(summaries, summary)}
            name = json.dumps(where, sort_keys=True)
            headers[name] = where
            tables.setdefault(name, []).append(summary)
    parts = ["# Leaderboard"]
    if command:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
        parts.append(f"{fence}sh\n{command}\n{fence}")
    definitions = DEFINITIONS
    for name, summaries in tables.items():
        parts += _section(headers[name], summaries, links)
    if any(axis in (s.get("metrics") or {}) for summaries in tables.values() for s in summaries for axis in MORE_AXES):
        definitions += MORE_DEFINITIONS
    return "\n\n".join([*parts, "## What the columns mean", definitions]) + "\n"


def _section(where: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]], links: Mapping[str, str]) -> list[str]:
    scored = {p: [s for s in summaries if _has(s, p)] for p in PROTOCOLS}
    protocol = next((p for p in PROTOCOLS if scored[p]), "generation")
    # Failed cells have no scores of any protocol; they stay visible in the headline table.
    ranked = rows([s for s in summaries if s in scored[protocol] or not s.get("metrics")], protocol)
    labels = {r["key"]: r["label"] for r in ranked}
    parts = [
        "## {model} · {corpus} ({slice}, n = {n}) · {regime}".format(**{k: escape(v) for k, v in where.items()}),
        _conditions(where, protocol),
        _main_table(ranked, links),
    ]
    if notes := _notes(ranked, summaries):
        parts.append("\n".join(f"- {note}" for note in notes))
    if any(r["retention"] for r in ranked):
        parts += ["### Retention by task: change against the base, paired ↑", _retention_table(ranked, links)]
    if any("/" in metric for s in summaries for metric in s.get("metrics") or ()):
        parts += ["### By kind of probe ↑", _kinds_table(ranked, summaries, protocol, links)]
    titles, texts = under_generation(summaries, list(labels))
    if titles:
        about = "None of it enters the score; definitions in `eval/DEFINITIONS.md`. Fluency in bits."
        table = _table(["Method", *titles], [[_method(r, links), *texts[r["key"]]] for r in ranked])
        parts += ["### More under generation", about, table]
    for other, question in PROTOCOLS.items():
        if other != protocol and scored[other]:
            second = rows(scored[other], other)
            for one in second:
                one["label"] = labels.get(one["key"], one["label"])
            parts += [
                f"### Protocol {other}: {question}",
                "Not comparable with the table above, and ranked apart from it.",
                _table(["Method", *_titles(second)], [[_method(r, links), *_axes(r, second)] for r in second]),
            ]
    if found := diagnostics(summaries, labels):
        about = "What the edits did beside the scores; definitions in `eval/diagnostics.py`. Nothing is ranked by them."
        parts += ["### Diagnostics", about, _listing(found)]
    if found := details.curve(summaries, labels, protocol):
        about = "Scores of the facts injected by then, retention as a mean over the tasks; × against the base."
        parts += [f"### Curve over facts (protocol {protocol})", about, _listing(found)]
    if found := details.costs(summaries, labels):
        about = "Seconds by phase; forward passes and tokens through the decoder layers while injecting; memory at its highest."
        parts += ["### Cost", about, _listing(found)]
    left = [s["method"] for s in summaries if s.get("metrics") and not _has(s, protocol)]
    return parts + ([f"Not scored under {protocol}: {', '.join(map(escape, left))}."] if left else [])


def _listing(found: Sequence[Mapping[str, str]]) -> str:
    return _table(list(found[0]), [list(map(escape, row.values())) for row in found])


def _conditions(where: Mapping[str, Any], protocol: str) -> str:
    limit = where["limit"]
    facts = [
        f"n = {escape(where['n'])} cases ({escape(where['form'])})",
        f"protocol {protocol}",
        f"seed {escape(where['seed'])}",
        f"precision {escape(where['precision'])}",
        "all retention samples" if limit is None else f"at most {escape(limit)} retention samples a task",
        f"model {escape(str(where['model hash'])[:12])}",
        f"corpus {escape(str(where['corpus hash'])[:12])}",
    ]
    return " · ".join(facts)


def _main_table(ranked: Sequence[Mapping[str, Any]], links: Mapping[str, str]) -> str:
    header = ["Method", *_titles(ranked), "Retention ↑", "Score ↑", "Seconds", "Peak memory"]
    body = [
        [
            _method(r, links),
            *_axes(r, ranked),
            cells_text({"mean": r["retention_mean"]}),
            cells_text({"mean": r["score"]}) + (" ‡" if _partial(r) else ""),
            _seconds(r),
            _memory(r["peak_memory_bytes"]),
        ]
        for r in ranked
    ]
    if all(r["method"] != BASE for r in ranked):
        body.append([BASE, *["–"] * (len(header) - 1)])
    return _table(header, body)


def _retention_table(ranked: Sequence[Mapping[str, Any]], links: Mapping[str, str]) -> str:
    """Changes of the methods; the base's row, which has none by definition, gives its scores."""
    tasks = list(dict.fromkeys(task for r in ranked for task in r["retention"]))
    some = {task: next(r["retention"][task] for r in ranked if task in r["retention"]) for task in tasks}
    header = ["Method", *(f"{escape(t)} ({escape(f.get('metric'))}, n = {escape(f.get('n'))})" for t, f in some.items())]
    body = []
    for one in ranked:
        cells = []
        for task in tasks:
            found = one["retention"].get(task, {})
            change = {"mean": found.get("delta"), "low": found.get("delta_low"), "high": found.get("delta_high")}
            others = [r["retention"].get(task, {}) for r in _rivals(one, ranked)]
            best = bool(others) and ahead(found, others, "delta_low", "delta_high")
            base = f"scores {cells_text(found)}" if found else "–"
            flips = f" ({escape(found['lost'])}↓ {escape(found['gained'])}↑)" if "lost" in found else ""
            cells.append(base if one["method"] == BASE else _bold(cells_text(change, sign=True), best) + flips)
        body.append([_method(one, links), *cells])
    if all(r["method"] != BASE for r in ranked):
        body.append([BASE, *(f"scores {cells_text({'mean': found.get('base')})}" for found in some.values())])
    return _table(header, body)


def _kinds_table(
    ranked: Sequence[Mapping[str, Any]], summaries: Sequence[Mapping[str, Any]], protocol: str, links: Mapping[str, str]
) -> str:
    """The metrics over one kind of probes; n counts the probes of the first cell that has the metric."""
    scores: dict[str, dict[str, Any]] = {}
    for one in summaries:
        metrics = (one.get("metrics") or {}).items()
        scores[one["key"]] = {name: found[protocol] for name, found in metrics if "/" in name and protocol in found}
    numbers = {name: found["n"] for of_cell in reversed(scores.values()) for name, found in of_cell.items()}
    header = ["Method", *(f"{escape(name)} (n = {escape(n)})" for name, n in sorted(numbers.items()))]
    body = [[_method(r, links), *(cells_text(scores[r["key"]].get(name)) for name in sorted(numbers))] for r in ranked]
    return _table(header, body)


def _notes(ranked: Sequence[Mapping[str, Any]], summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = [UNTUNED] if any(map(_untuned, ranked)) else []
    notes += [PARTIAL] if any(map(_partial, ranked)) else []
    notes += [
        f"{escape(r['label'])}: {escape(r['status'].replace('_', ' '))}" + (f". {escape(r['note'])}" if r["note"] else ".")
        for r in ranked
        if r["status"] != "done"
    ]
    if all(r["method"] != BASE for r in ranked):
        notes.append("The base is not among these cells; its retention is known from the others.")
    machines = [{k: (s.get("environment") or {}).get(k) for k in ("platform", "cpu_count")} for s in summaries]
    if any(machine != machines[0] for machine in machines):
        notes.append("The cells come from different machines: seconds and memory cannot be compared.")
    return notes


def _axes(one: Mapping[str, Any], ranked: Sequence[Mapping[str, Any]]) -> list[str]:
    rivals = _rivals(one, ranked)
    return [_bold(cells_text(one[a]), bool(rivals) and ahead(one[a], [r[a] for r in rivals])) for a in axes_of(ranked)]


def _titles(ranked: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{axis.capitalize().replace('_', '-')} ↑" for axis in axes_of(ranked)]


def _rivals(one: Mapping[str, Any], ranked: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that ``one`` must be ahead of to be bold; none for a reference."""
    if family(one["method"]) in BASELINES:
        return []
    return [r for r in ranked if r is not one and family(r["method"]) not in BASELINES]


def _method(one: Mapping[str, Any], links: Mapping[str, str]) -> str:
    status = "" if one["status"] == "done" else f" ({escape(one['status'].replace('_', ' '))})"
    return f"[{escape(one['label'])}]({links[one['key']]}){status}{' †' if _untuned(one) else ''}"


def _untuned(one: Mapping[str, Any]) -> bool:
    return not one["tuned"] and family(one["method"]) not in BASELINES


def _partial(one: Mapping[str, Any]) -> bool:
    return 0 < len(one["score_of"]) < len(AXES) + 1


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def _seconds(one: Mapping[str, Any]) -> str:
    def text(seconds: float) -> str:
        return f"{seconds:.1f}" if seconds < 100 else f"{seconds:.0f}"

    if one["seconds"] is None:
        return "–"
    return text(one["seconds"]) + (f" + {text(one['precompute_seconds'])}" if one["precompute_seconds"] else "")


def _memory(size: int | None) -> str:
    if not size:
        return "–"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(value: Any) -> str:
    """``value`` as literal text in one markdown table cell: no markup, no HTML, no line break, no cell border."""
    text = " ".join(re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", "–" if value is None else str(value)).split())
    text = re.sub(r"([\\`*_\[\]~$])", r"\\\1", html.escape(text, quote=False))
    # Not ``\|``: renderers disagree on a backslash in front of it.
    return text.replace("|", "&#124;")


def _link(target: Path, output: Path) -> str:
    relative = os.path.relpath(target.resolve(), Path(output).resolve().parent)
    return quote(Path(relative).as_posix(), safe="/.")


def _has(summary: Mapping[str, Any], protocol: str) -> bool:
    return any(protocol in axis for axis in (summary.get("metrics") or {}).values())


def _tasks(summaries: Sequence[Mapping[str, Any]], like: Mapping[str, Any]) -> list[str]:
    """The retention tasks of the run under the conditions of ``like``: a failed cell belongs to its run's table."""
    same = [s for s in summaries if setting(s) == setting(like)]
    return sorted({f"{task} {found.get('metric')}" for s in same for task, found in (s.get("retention") or {}).items()})
