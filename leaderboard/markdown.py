"""Run folders in, one markdown page out: a table per setting, every row linked to its record."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas

from editbench.errors import RecordError
from editbench.leaderboard import details
from editbench.leaderboard.comparisons import (
    PROTOCOLS,
    RETENTION,
    Comparison,
    Verdicts,
    items,
    judge,
)
from editbench.leaderboard.pooling import pooled, without_seed
from editbench.leaderboard.rows import (
    AXES,
    BASE,
    BASELINES,
    MORE_AXES,
    axes_of,
    diagnostics,
    family,
    has,
    look_up,
    more,
    rivals,
    rows,
    setting,
)
from editbench.records.reading import heading, load_run, not_asked, summary_path
from editbench.stats import cells_text
from editbench.types import digest

DEFINITIONS = """\
- **Efficacy**: share of facts whose rewrite prompt is answered with the target.
- **Generalization**: the same for paraphrases of the prompt.
- **Specificity**: under `generation`, share of neighbourhood probes on which the edited model still gives the base model's
  own answer: both are right, or their first clauses are the same. Under `argmax`, share on which the same tokens are the
  most probable as in the base. Under `likelihood`, share on which the true answer is more probable than the edit's target.
- **Retention**: score of the edited model / score of the base on lm-eval tasks, mean over the tasks that the base scores on,
  whose errors are taken as independent; the change per task is paired by sample; (8↓ 2↑) says that 8 samples were right before
  and are wrong now, and 2 the other way.
- **Score**, the ranking key: harmonic mean of the four above, each clamped to [0, 1].
- **Seconds**: injection, then `+` what can be cached for the next one. **Peak memory**: the highest of the whole
  cell, what it takes to ask included.
- **Intervals**: 95 %, over cases: Wilson's on the effective sample size for shares, Bonett and Price's for paired changes;
  formulas in `editbench/stats.py`, their coverage in `benchmarks/coverage.md`. **–**: not measured.
- **Bold**: ahead of every other method. Every pair is compared case by case in every column (sign-flip permutation test of the
  mean difference), and all p of one table are adjusted by Holm; bold is better than all others at a family-wise 5 %. Base and
  ice are references and take no part. No bold, no winner.
- **Detectable**: the difference that any two methods of the table would show with 80 % power at that corrected level, from
  the widest spread of the paired differences. Smaller ones may be there unseen."""
MORE_DEFINITIONS = """
- **Portability**: share of probes answered with what follows from the facts. **In-context**: share of probes answered right
  whose prompt holds all that is needed. Neither enters the score: only some corpora ask them."""
SEEDS = """
- **Seeds**: means over the seeds. The intervals hold the spread of the cases (a case that several seeds drew is one) and that
  of the seeds' means. Few seeds tell little of their own spread: a shift between seeds that is larger than the standard error
  of one seed is not bounded by two or three. Bold speaks for the seeds that were run."""
ABOUT_MORE = {
    "generation": "Denial and reversion are asked of a third of the cases. Fluency in bits.",
    "argmax": "Tokens: the share of the expected answer's tokens that are the most probable ones, or (EasyEdit) the base's.",
    "likelihood": "CounterFact score: ROME's S, the harmonic mean of efficacy, generalization and specificity above.",
}
Links = dict[str, list[tuple[Any, str]]]
"""Key of a row -> the seed and the link of each of its records."""
UNTUNED = "† not tuned: its hyper-parameters were not searched for on the dev slice."
INFEASIBLE = "§ tuned, and no trial kept the retention that was wanted: the nearest one was chosen."
SEARCH = {"budget": "trials", "retention": "least retention", "n": "dev facts", "tasks": "tasks"}
"""What searches must share to be equal, and what it is called."""
PARTIAL = "‡ the score leaves out what was not measured."
MACHINE = ("platform", "cpu_count", "device", "threads", "hardware")
"""Fields of a record's environment that seconds and memory hang on; what an older record lacks is not held against it."""
SOFTWARE = {"code": ("code",), "torch": ("packages", "torch"), "lm\\_eval": ("packages", "lm_eval")}
"""What may move a number a little, and where a record's environment keeps it."""
OTHERS = "The cells come from different machines, devices or numbers of threads: seconds and memory cannot be compared."


def render(run_paths: Sequence[Path], output: Path, command: str | None = None) -> str:
    """The page for ``run_paths`` as it should be written to ``output``, from where the links to the records lead.

    Cells that differ by their seed only make one row. Of cells that differ by what was measured beside the scores only
    (diagnostics, points of a curve, repeated injections) the fullest stands, and the page names the others. Cells of different
    models, chat templates, corpora, slices, regimes, (sets of) seeds, task data, retention limits or versions of the scoring
    get separate tables. ``command`` is quoted as the way to make the page again.

    Raises:
        RecordError: no run, a path that is no readable run, or cells of one table that cannot be compared.
    """
    if not run_paths:
        raise RecordError("A leaderboard needs at least one run folder.")
    cells: dict[str, dict[str, Any]] = {}
    links: Links = {}
    tables: dict[str, pandas.DataFrame | None] = {}
    for path in map(Path, run_paths):
        config, summaries = load_run(path)
        lost = not_asked(path)
        for summary in summaries:
            key = summary["key"]
            if key in cells and cells[key]["summary"].get("status") != "failed":
                continue  # A key is the hash of a cell's inputs: another run holds the same cell.
            run = {"limit": config.get("limit"), "tasks": _tasks(summaries, summary)}
            cells[key] = {
                "summary": summary,
                "run": run,
                "data": config.get("data"),
                "not asked": lost,
            }
            links[key] = [(summary["seed"], _link(summary_path(path, key), output))]
            tables[key] = items(path, summary)
    sections: dict[str, list[dict[str, Any]]] = {}
    headers: dict[str, dict[str, Any]] = {}
    apart: dict[str, list[str]] = {}
    without: dict[str, dict[str, str]] = {}
    for group, again in _by_seed(cells.values()):
        summary = group[0]["summary"]
        if len(group) > 1:
            keys = [cell["summary"]["key"] for cell in group]
            summary, table = pooled(
                [cell["summary"] for cell in group], [tables[key] for key in keys]
            )
            tables[summary["key"]], links[summary["key"]] = (
                table,
                [place for key in keys for place in links[key]],
            )
        where = {**setting(summary), **group[0]["run"]}
        name = json.dumps(where, sort_keys=True)
        headers[name] = where
        sections.setdefault(name, []).append(summary)
        apart.setdefault(name, []).extend(cell["summary"]["key"] for cell in again)
        without.setdefault(name, {}).update(
            task for cell in group for task in cell["not asked"].items()
        )
    parts = ["# Leaderboard"]
    if command:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
        parts.append(f"{fence}sh\n{command}\n{fence}")
    definitions = DEFINITIONS
    for name, summaries in sections.items():
        parts += _section(headers[name], summaries, links, tables, apart[name], without[name])
    if any(
        axis in (s.get("metrics") or {})
        for summaries in sections.values()
        for s in summaries
        for axis in MORE_AXES
    ):
        definitions += MORE_DEFINITIONS
    if any(isinstance(where["seed"], list) for where in headers.values()):
        definitions += SEEDS
    return "\n\n".join([*parts, "## What the columns mean", definitions]) + "\n"


def _by_seed(
    cells: Iterable[dict[str, Any]],
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """The cells, together where they differ by their seed (and so by the facts that it chose) only; and those that measured
    one of them again. Where one seed has two cells, of other facts under one name, nobody knows which belongs to which, so each
    stays alone."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        summary = cell["summary"]
        same = {
            name: value
            for name, value in setting(summary).items()
            if name not in ("seed", "corpus hash")
        }
        identity = [
            same,
            cell["run"],
            cell["data"],
            summary["method"],
            without_seed(summary.get("options")),
        ]
        groups.setdefault(json.dumps(identity, sort_keys=True), []).append(cell)
    for group in groups.values():
        kept = _fullest(group)
        kept.sort(key=lambda cell: cell["summary"]["seed"])
        again = [cell for cell in group if cell not in kept]
        clear = len({cell["summary"]["seed"] for cell in kept}) == len(kept)
        for together in [kept] if clear else [[cell] for cell in kept]:
            yield together, again
            again = []


def _fullest(group: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of cells of one seed, facts and versions, the first of those that measured most beside the scores."""

    def measured(cell: dict[str, Any]) -> tuple[bool, int]:
        summary = cell["summary"]
        beside = [name for name in ("curve", "inject_seconds") if summary.get(name)]
        return summary.get("status") != "failed", len(beside) + len(
            summary.get("diagnostics") or ()
        )

    same: dict[str, list[dict[str, Any]]] = {}
    for cell in group:
        summary = cell["summary"]
        # records from before versions were stored are the same where their scores are
        identity = [
            summary["seed"],
            summary["corpus"].get("hash"),
            summary.get("versions") or summary.get("metrics"),
        ]
        same.setdefault(json.dumps(identity, sort_keys=True), []).append(cell)
    return [max(cells, key=measured) for cells in same.values()]


def _section(
    where: Mapping[str, Any],
    summaries: Sequence[Mapping[str, Any]],
    links: Links,
    tables: Mapping[str, pandas.DataFrame | None],
    again: Sequence[str],
    lost: Mapping[str, str],
) -> list[str]:
    scored = {p: [s for s in summaries if has(s, p)] for p in PROTOCOLS}
    protocol = next((p for p in PROTOCOLS if scored[p]), "generation")
    # Failed cells have no scores of any protocol; they stay visible in the headline table.
    ranked = rows([s for s in summaries if s in scored[protocol] or not s.get("metrics")], protocol)
    labels = {r["key"]: r["label"] for r in ranked}
    verdicts, kept = (judge(rivals(ranked), tables, part) for part in (protocol, RETENTION))
    parts = [
        "## {model} · {corpus} ({slice}, n = {n}) · {regime}".format(
            **{k: escape(v) for k, v in where.items()}
        ),
        _conditions(where, protocol, ranked),
        _main_table(ranked, links, verdicts),
        *_detectable(verdicts),
    ]
    notes = _notes(ranked, summaries, verdicts)
    if again:
        left = ", ".join(f"[{escape(key)}]({links[key][0][1]})" for key in again)
        notes.append(
            f"Left out, since a row's cell was measured again with less or nothing more beside its scores: {left}."
        )
    notes += [
        f"{escape(heading(task))} was asked for and could not be: {escape(why)}"
        for task, why in lost.items()
    ]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    if told := [
        f"- {escape(r['label'])}: {escape(warning)}" for r in ranked for warning in r["warnings"]
    ]:
        parts += ["Warnings:", "\n".join(told)]
    if any(r["retention"] for r in ranked):
        parts += [
            "### Retention by task: change against the base, paired ↑",
            _retention_table(ranked, links, kept),
        ]
        parts += _detectable(kept)
    if any("/" in metric for s in summaries for metric in s.get("metrics") or ()):
        parts += ["### By kind of probe ↑", _kinds_table(ranked, summaries, protocol, links)]
    parts += _more(ranked, summaries, protocol, links)
    for other, question in PROTOCOLS.items():
        if other != protocol and scored[other]:
            second = rows(scored[other], other)
            for one in second:
                one["label"] = labels.get(one["key"], one["label"])
            found = judge(rivals(second), tables, other)
            parts += [
                f"### Protocol {other}: {question}",
                "Not comparable with the table above, and ranked apart from it.",
                _table(
                    ["Method", *_titles(second)],
                    [[_method(r, links), *_axes(r, second, found)] for r in second],
                ),
                *_detectable(found),
                *_more(second, summaries, other, links),
            ]
    if verdicts.comparisons or kept.comparisons:
        about = f"### Every pair, protocol {protocol}: mean difference by case, and p adjusted by Holm in each table"
        parts += [about, _pairs_table([*verdicts.comparisons, *kept.comparisons], labels)]
    if found := diagnostics(summaries, labels):
        about = "What the edits did beside the scores; definitions in `eval/diagnostics.py`. Nothing is ranked by them."
        parts += ["### Diagnostics", about, _listing(found)]
    if found := details.curve(summaries, labels, protocol):
        about = "Scores of the facts injected by then, retention as a mean over the tasks; × against the base."
        parts += [f"### Curve over facts (protocol {protocol})", about, _listing(found)]
    if found := details.costs(summaries, labels):
        about = (
            "Seconds by phase; forward passes and tokens through the decoder layers while injecting, and tokens trained on; "
            "memory at its highest."
        )
        parts += ["### Cost", about, _listing(found)]
    left = [s["method"] for s in summaries if s.get("metrics") and not has(s, protocol)]
    return parts + (
        [f"Not scored under {protocol}: {', '.join(map(escape, left))}."] if left else []
    )


def _listing(found: Sequence[Mapping[str, str]]) -> str:
    return _table(list(found[0]), [list(map(escape, row.values())) for row in found])


def _conditions(
    where: Mapping[str, Any], protocol: str, ranked: Sequence[Mapping[str, Any]]
) -> str:
    several = isinstance(where["seed"], list)
    hashes = where["corpus hash"] if several else [where["corpus hash"]]
    facts = [
        f"n = {escape(where['n'])} cases{' a seed' * several} ({escape(where['form'])})",
        f"protocol {protocol}",
        f"seeds {escape(', '.join(map(str, where['seed'])))}"
        if several
        else f"seed {escape(where['seed'])}",
        f"precision {escape(where['precision'])}",
        _samples(where["limit"], len(where["seed"]) if several else 1, ranked),
        f"model {escape(str(where['model hash'])[:12])}",
        f"corpus {escape(', '.join(str(one)[:12] for one in hashes))}",
        *(
            [f"chat template {escape(where['chat template'][:12])}"]
            if where["chat template"]
            else []
        ),
        *([f"task data {digest(where['task data'])[:12]}"] if where["task data"] else []),
        *(
            [f"scoring version {escape(where['scoring version'])}"]
            if where["scoring version"]
            else []
        ),
    ]
    return " · ".join(facts)


def _samples(limit: int | None, seeds: int, ranked: Sequence[Mapping[str, Any]]) -> str:
    """How many samples were asked. The limit is one for each member of a group of tasks: such a task has more."""
    if limit is None:
        return "all retention samples"
    groups = any(
        (found.get("n") or 0) > limit * seeds for r in ranked for found in r["retention"].values()
    )
    return f"at most {escape(limit)} retention samples a task{', of a group each member' * groups}"


def _detectable(verdicts: Verdicts) -> list[str]:
    """One line: what difference the table could have shown."""
    if not verdicts.detectable:
        return []
    count = len(verdicts.comparisons)
    found = ", ".join(
        f"{escape(heading(name))} {f'{d:.2f}' if d <= 1 else 'none'}"
        for name, d in verdicts.detectable.items()
    )
    return [
        f"Detectable with 80 % power at 5 % corrected for {count} comparison{'s' * (count > 1)}: {found}."
    ]


def _main_table(ranked: Sequence[Mapping[str, Any]], links: Links, verdicts: Verdicts) -> str:
    header = ["Method", *_titles(ranked), "Retention ↑", "Score ↑", "Seconds", "Peak memory"]
    body = [
        [
            _method(r, links),
            *_axes(r, ranked, verdicts),
            cells_text(r["retention_mean"]),
            cells_text({"mean": r["score"]}) + (" ‡" if _partial(r) else ""),
            _seconds(r),
            _memory(r["peak_memory_bytes"]),
        ]
        for r in ranked
    ]
    if all(r["method"] != BASE for r in ranked):
        body.append([BASE, *["–"] * (len(header) - 1)])
    return _table(header, body)


def _retention_table(ranked: Sequence[Mapping[str, Any]], links: Links, verdicts: Verdicts) -> str:
    """Changes of the methods; the base's row, which has none by definition, gives its scores."""
    tasks = list(dict.fromkeys(task for r in ranked for task in r["retention"]))
    some = {
        task: next(r["retention"][task] for r in ranked if task in r["retention"]) for task in tasks
    }
    header = ["Method"]
    header += [
        f"{escape(heading(t))} ({escape(f.get('metric'))}, n = {escape(f.get('n'))})"
        for t, f in some.items()
    ]
    body = []
    for one in ranked:
        cells = []
        for task in tasks:
            found = one["retention"].get(task, {})
            change = {
                "mean": found.get("delta"),
                "low": found.get("delta_low"),
                "high": found.get("delta_high"),
            }
            base = f"scores {cells_text(found)}" if found else "–"
            flips = (
                f" ({escape(found['lost'])}↓ {escape(found['gained'])}↑)" if "lost" in found else ""
            )
            bold = _bold(cells_text(change, sign=True), verdicts.ahead(one["key"], task))
            cells.append(base if one["method"] == BASE else bold + flips)
        body.append([_method(one, links), *cells])
    if all(r["method"] != BASE for r in ranked):
        body.append(
            [
                BASE,
                *(f"scores {cells_text({'mean': found.get('base')})}" for found in some.values()),
            ]
        )
    return _table(header, body)


def _kinds_table(
    ranked: Sequence[Mapping[str, Any]],
    summaries: Sequence[Mapping[str, Any]],
    protocol: str,
    links: Links,
) -> str:
    """The metrics over one kind of probes; n counts the probes of the first cell that has the metric."""
    scores: dict[str, dict[str, Any]] = {}
    for one in summaries:
        metrics = (one.get("metrics") or {}).items()
        scores[one["key"]] = {
            name: found[protocol] for name, found in metrics if "/" in name and protocol in found
        }
    numbers = {
        name: found["n"] for of_cell in reversed(scores.values()) for name, found in of_cell.items()
    }
    header = [
        "Method",
        *(f"{escape(name)} (n = {escape(n)})" for name, n in sorted(numbers.items())),
    ]
    body = [
        [_method(r, links), *(cells_text(scores[r["key"]].get(name)) for name in sorted(numbers))]
        for r in ranked
    ]
    return _table(header, body)


def _more(
    ranked: Sequence[Mapping[str, Any]],
    summaries: Sequence[Mapping[str, Any]],
    protocol: str,
    links: Links,
) -> list[str]:
    """What else was measured under ``protocol``; nothing where nothing was."""
    titles, texts = more(summaries, [r["key"] for r in ranked], protocol)
    if not titles:
        return []
    about = (
        f"None of it enters the score; definitions in `eval/DEFINITIONS.md`. {ABOUT_MORE[protocol]}"
    )
    table = _table(["Method", *titles], [[_method(r, links), *texts[r["key"]]] for r in ranked])
    return [f"### More under {protocol}", about, table]


def _notes(
    ranked: Sequence[Mapping[str, Any]], summaries: Sequence[Mapping[str, Any]], verdicts: Verdicts
) -> list[str]:
    notes = [UNTUNED] if any(map(_untuned, ranked)) else []
    notes += [INFEASIBLE] if any(map(_infeasible, ranked)) else []
    for part, words in SEARCH.items():
        searches: dict[str, list[str]] = {}
        for one in (r for r in ranked if r["tuning"]):
            found = one["tuning"].get(part)
            text = ", ".join(map(heading, found)) if isinstance(found, list) else str(found)
            searches.setdefault(text, []).append(one["label"])
        if len(searches) > 1:
            told = "; ".join(f"{text} ({', '.join(labels)})" for text, labels in searches.items())
            notes.append(f"The searches were not equal: {words} {escape(told)}.")
    notes += [PARTIAL] if any(map(_partial, ranked)) else []
    notes += [
        f"{escape(r['label'])}: {escape(r['status'].replace('_', ' '))}"
        + (f". {escape(r['note'])}" if r["note"] else ".")
        for r in ranked
        if r["status"] != "done"
    ]
    if verdicts.missing:
        who = ", ".join(map(escape, verdicts.missing))
        notes.append(
            f"Nothing is bold: methods are compared by their tables, and the records hold none of {who}."
        )
    if all(r["method"] != BASE for r in ranked):
        notes.append("The base is not among these cells; its retention is known from the others.")
    machines = [
        one for s in summaries for one in s.get("environments") or [s.get("environment") or {}]
    ]
    if any(len({one.get(field) for one in machines} - {None}) > 1 for field in MACHINE):
        notes.append(OTHERS)
    made = {
        name: sorted({str(found) for one in machines if (found := look_up(one, path))})
        for name, path in SOFTWARE.items()
    }
    if several := [
        f"{name} {escape(', '.join(found))}" for name, found in made.items() if len(found) > 1
    ]:
        notes.append(
            f"The cells are not of one making, which can move a number a little: {'; '.join(several)}."
        )
    return notes


def _axes(
    one: Mapping[str, Any], ranked: Sequence[Mapping[str, Any]], verdicts: Verdicts
) -> list[str]:
    return [
        _bold(cells_text(one[axis]), verdicts.ahead(one["key"], axis)) for axis in axes_of(ranked)
    ]


def _titles(ranked: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{axis.capitalize().replace('_', '-')} ↑" for axis in axes_of(ranked)]


def _pairs_table(comparisons: Sequence[Comparison], labels: Mapping[str, str]) -> str:
    columns = list(dict.fromkeys(c.column for c in comparisons))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for c in comparisons:
        p = "p < 0.001" if c.p < 0.001 else f"p {c.p:.3f}"
        cells.setdefault((c.one, c.other), {})[c.column] = (
            f"{cells_text({'mean': c.difference}, sign=True)}, {p}"
        )
    body = [
        [
            f"{escape(labels[one])} − {escape(labels[other])}",
            *(found.get(column, "–") for column in columns),
        ]
        for (one, other), found in cells.items()
    ]
    return _table(["Pair", *map(escape, map(heading, columns))], body)


def _method(one: Mapping[str, Any], links: Links) -> str:
    status = "" if one["status"] == "done" else f" ({escape(one['status'].replace('_', ' '))})"
    (_, link), *more = links[one["key"]]
    name = f"[{escape(one['label'])}]({link})"
    if more:
        seeds = ", ".join(f"[{escape(seed)}]({place})" for seed, place in links[one["key"]])
        name = f"{escape(one['label'])} (seeds {seeds})"
    return f"{name}{status}{' †' if _untuned(one) else ' §' if _infeasible(one) else ''}"


def _untuned(one: Mapping[str, Any]) -> bool:
    return not one["tuned"] and family(one["method"]) not in BASELINES


def _infeasible(one: Mapping[str, Any]) -> bool:
    return one["tuning"].get("feasible") is False


def _partial(one: Mapping[str, Any]) -> bool:
    return 0 < len(one["score_of"]) < len(AXES) + 1


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def _seconds(one: Mapping[str, Any]) -> str:
    def text(seconds: float) -> str:
        return f"{seconds:.1f}" if seconds < 100 else f"{seconds:.0f}"

    if one["seconds"] is None:
        return "–"
    return text(one["seconds"]) + (
        f" + {text(one['precompute_seconds'])}" if one["precompute_seconds"] else ""
    )


def _memory(size: int | None) -> str:
    if not size:
        return "–"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(value: Any) -> str:
    """``value`` as literal text in one markdown table cell: no markup, no HTML, no line break, no cell border."""
    text = " ".join(
        re.sub(
            r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", "–" if value is None else str(value)
        ).split()
    )
    text = re.sub(r"([\\`*_\[\]~$])", r"\\\1", html.escape(text, quote=False))
    # Not ``\|``: renderers disagree on a backslash in front of it.
    return text.replace("|", "&#124;")


def _link(target: Path, output: Path) -> str:
    relative = os.path.relpath(target.resolve(), Path(output).resolve().parent)
    return quote(Path(relative).as_posix(), safe="/.")


def _tasks(summaries: Sequence[Mapping[str, Any]], like: Mapping[str, Any]) -> list[str]:
    """The retention tasks of the run under the conditions of ``like``: a failed cell belongs to its run's table."""
    same = [s for s in summaries if setting(s) == setting(like)]
    return sorted(
        {
            f"{task} {found.get('metric')}"
            for s in same
            for task, found in (s.get("retention") or {}).items()
        }
    )
