"""Check MixSD's claims on stored rows, one by one, and draw the frontier before and after.

    python benchmarks/claims.py check ROWS ... [-o FILE.json]
    python benchmarks/claims.py frontier --before ROWS ... --after ROWS ... -o PICTURE.png
                                         [--model MODEL]

ROWS is a run folder, or a JSON file of ``kgfact_study.py`` or ``published.py``: a list of rows with
name, metrics, retention, diagnostics, and optionally seed (0), method (the first word of the name),
model and corpus (those of ``WORLDS``). ``check`` prints markdown and stores the same in
``benchmarks/results/claims.json``. Rows of one file with one name are the seeds of one setting.

Intervals, 95 %. A figure that has an interval in its record (shares, retention, NLL) keeps the mean
width of its seeds to either side, since they ask the same documents; the spread of the seeds' means
is added in quadrature, as in ``editbench/stats.py``. A figure without one (R) has Student's
interval over the seeds, so none with one seed. Differences are paired by seed, and the widths of
both sides added in quadrature (Newcombe's method), as if the items were not shared: an interval
that errs on the wide side.
Correlations are over rows (runs), resampled by setting, so that its seeds stay together: percentile
intervals of ``DRAWS`` draws. A percentile interval of few settings is too narrow rather than too
wide, so fewer than ``FEWEST`` settings decide nothing.

The rule: a claim is ``seen`` where the whole interval lies on its side of the bound, ``not seen``
where the whole interval lies on the other side, and else it ``cannot be tested at this size``. So
it is where the rows lack the figure, or its interval; the verdict then says which.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, t

from editbench.errors import EditbenchError, RecordError
from editbench.files import jsonable, replacing, write_json_atomic
from editbench.leaderboard.loading import load_cells
from editbench.leaderboard.rows import diagnosed
from editbench.stats import mean_ratio, number, wilson

RESULT = Path(__file__).parent / "results" / "claims.json"
SEEN, NOT_SEEN, OPEN = "seen", "not seen", "cannot be tested at this size"
ABSENT = "cannot be tested: the rows lack the figure"
ALONE = "cannot be tested: one seed, and no interval"
EQUAL = 0.05
"""Recalls that differ by at most this count as equal."""
DRAWS, FEWEST = 2000, 6
Z = 1.96
PREDICTORS = {
    "R": ("fisher", "alignment_ratio"),
    "squared distance": ("fisher", "squared_norm"),
    "Fisher-weighted distance": ("fisher", "displacement"),
    "KL on own text": ("drift", "kl"),
    "target NLL": ("supervision", "nll"),
}
"""What may predict the drop -> its path in the diagnostics."""
CLASSES = ("format", "leakage", "collapse", "genuine")
EDITORS = ("memit", "rome")
KGFACT = ("smollm2-135m", "kgfact")
WORLDS = {
    "published_demo": ("smollm2-135m", "demo-counterfact"),
    "published_gemma": ("gemma-3-270m", "demo-counterfact"),
}
"""File -> model and corpus of its rows, which do not name them; of any other file: ``KGFACT``."""


@dataclass(frozen=True)
class Row:
    """One measured run."""

    source: str
    """The file or folder that it comes from."""
    name: str
    """The setting: what differs from other rows besides the seed."""
    method: str
    seed: int
    model: str
    corpus: str
    record: Mapping[str, Any]

    @property
    def world(self) -> tuple[str, str]:
        return self.model, self.corpus


@dataclass(frozen=True)
class Estimate:
    """A figure over the seeds of one setting, or a difference of two."""

    mean: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    """Standard deviation over the seeds; ``None`` with one seed."""
    seeds: int = 1

    def text(self, form: str = ".2f") -> str:
        """Return ``0.95 [0.88, 1.00] ±0.01``: the mean, the interval, and the seeds' spread."""
        ends = "" if self.low is None else f" [{self.low:{form}}, {self.high:{form}}]"
        spread = "" if self.spread is None else f" ±{self.spread:.2g}"
        return f"{self.mean:{form}}{ends}{spread}"


Value = tuple[float, float | None, float | None]
"""A figure of one run, and how far its interval reaches below and above it, if it has one."""
Figure = Callable[[Row], Value | None]


# --- rows ---------------------------------------------------------------------------------------


def load(paths: Iterable[str | Path]) -> list[Row]:
    """Return the rows of JSON files and run folders, without those that failed.

    Raises:
        RecordError: if a path has no rows, or a file has a name twice with one seed.
    """
    rows: list[Row] = []
    for path in map(Path, paths):
        found = _of_run(path) if path.is_dir() else _of_file(path)
        places = [(row.name, row.seed, row.world) for row in found]
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice is not None:
            raise RecordError(f"{path} has two rows {twice[0]!r} with seed {twice[1]}.")
        rows += found
    return rows


def _of_file(path: Path) -> list[Row]:
    model, corpus = WORLDS.get(path.stem, KGFACT)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return [
            Row(
                path.stem,
                one["name"],
                one.get("method") or one["name"].replace(",", " ").split()[0],
                one.get("seed", 0),
                one.get("model", model),
                one.get("corpus", corpus),
                one,
            )
            for one in stored
            if one.get("metrics")
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{path} is no list of rows: {error}") from None


def _of_run(path: Path) -> list[Row]:
    _, cells = load_cells(path)
    return [
        Row(
            path.name,
            cell["method"],
            cell["method"].partition("@")[0],
            cell["seed"],
            cell["model"]["name"],
            cell["corpus"]["name"],
            cell,
        )
        for cell in cells
        if cell.get("metrics")
    ]


def settings(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows by name, in their order."""
    named: dict[str, list[Row]] = {}
    for row in rows:
        named.setdefault(row.name, []).append(row)
    return named


def shared_tasks(rows: Sequence[Row]) -> list[str]:
    """Return the retention tasks that all rows were asked, so that their drops can be compared."""
    asked = [row.record.get("retention") or {} for row in rows]
    return [task for task in (asked[0] if asked else {}) if all(task in one for one in asked)]


# --- figures of one run -------------------------------------------------------------------------


def axis(name: str) -> Figure:
    """Return the figure of a metric under protocol ``generation``."""

    def figure(row: Row) -> Value | None:
        scores = (row.record["metrics"].get(name) or {}).get("generation") or {}
        return _with_ends(scores.get("mean"), scores.get("low"), scores.get("high"))

    return figure


def retention(tasks: Sequence[str]) -> Figure:
    """Return the figure of the mean over ``tasks`` of the ratio edited / base."""

    def figure(row: Row) -> Value | None:
        mean = mean_ratio({task: row.record["retention"][task] for task in tasks})
        return _with_ends(mean.mean, mean.low, mean.high)

    return figure


def ratio(task: str) -> Figure:
    """Return the figure of the ratio edited / base of one task."""

    def figure(row: Row) -> Value | None:
        scores = row.record["retention"][task]
        mean, low, high = (scores.get(name) for name in ("ratio", "ratio_low", "ratio_high"))
        return _with_ends(mean, low, high)

    return figure


def diagnostic(*path: str) -> Figure:
    """Return the figure of a diagnostic, with the interval that some have."""

    def figure(row: Row) -> Value | None:
        value = diagnosed(row.record, *path)
        if isinstance(value, Mapping):
            return _with_ends(value.get("mean"), value.get("low"), value.get("high"))
        *place, name = path
        ends = (diagnosed(row.record, *place, f"{name}_{end}") for end in ("low", "high"))
        return _with_ends(value, *ends)

    return figure


def effective_lambda(row: Row) -> Value | None:
    """Return the naive branch's share of the tokens that mixsd trained on."""
    share = number((row.record.get("edit") or {}).get("effective_lambda"))
    return None if share is None else (share, None, None)


def lost_share(kind: str) -> Figure:
    """Return the share of ``kind`` among the lost answers of the tasks that are answered freely.

    In tasks by likelihood (``acc``) the model chooses, so every error is genuine there.
    """

    def figure(row: Row) -> Value | None:
        tasks = row.record.get("retention") or {}
        return _share(
            kind,
            [
                counts
                for task, counts in _errors(row, "retention").items()
                if not str((tasks.get(task) or {}).get("metric", "")).startswith("acc")
            ],
        )

    return figure


def lost_neighbors(kind: str) -> Figure:
    """Return the share of ``kind`` among the lost answers to questions near the facts."""

    def figure(row: Row) -> Value | None:
        counts = _errors(row, "probes").get("neighborhood")
        return _share(kind, [counts] if counts else [])

    return figure


def _errors(row: Row, source: str) -> Mapping[str, Mapping[str, int]]:
    errors = (row.record.get("diagnostics") or {}).get("errors") or {}
    return errors.get(source) or {}


def _share(kind: str, counts: Sequence[Mapping[str, int]]) -> Value | None:
    lost = sum(one["lost"] for one in counts)
    if not lost:
        return None
    share = sum(one[kind] for one in counts) / lost
    return _with_ends(share, *wilson(share, Z**2 / lost))


def _with_ends(mean: Any, low: Any, high: Any) -> Value | None:
    middle, bottom, top = number(mean), number(low), number(high)
    if middle is None:
        return None
    if bottom is None or top is None:
        return middle, None, None
    return middle, middle - bottom, top - middle


# --- figures of a setting -----------------------------------------------------------------------


def pooled(rows: Sequence[Row], figure: Figure) -> Estimate | None:
    """Return a figure over the seeds of one setting; ``None`` if a seed lacks it."""
    values = [figure(row) for row in rows]
    known = [value for value in values if value is not None]
    return _estimate(known) if known and len(known) == len(values) else None


def difference(first: Sequence[Row], second: Sequence[Row], figure: Figure) -> Estimate | None:
    """Return ``first - second``, paired by seed, over the seeds that both settings have."""
    other = {row.seed: row for row in second}
    pairs = [(figure(row), figure(other[row.seed])) for row in first if row.seed in other]
    gaps = [_minus(a, b) for a, b in pairs if a is not None and b is not None]
    return _estimate(gaps) if gaps and len(gaps) == len(pairs) else None


def _minus(a: Value, b: Value) -> Value:
    if a[1] is None or a[2] is None or b[1] is None or b[2] is None:
        return a[0] - b[0], None, None
    return a[0] - b[0], math.hypot(a[1], b[2]), math.hypot(a[2], b[1])


def _estimate(values: Sequence[Value]) -> Estimate:
    means, k = [value[0] for value in values], len(values)
    mean = statistics.fmean(means)
    spread = statistics.stdev(means) if k > 1 else None
    error = 0.0 if spread is None else spread / math.sqrt(k)
    below = [value[1] for value in values if value[1] is not None]
    above = [value[2] for value in values if value[2] is not None]
    if len(below) == len(above) == k:
        low, high = (math.hypot(statistics.fmean(items), Z * error) for items in (below, above))
    elif k > 1:
        low = high = float(t.ppf(0.975, k - 1)) * error
    else:
        return Estimate(mean)
    return Estimate(mean, mean - low, mean + high, spread, k)


def worst_task(rows: Sequence[Row], tasks: Sequence[str]) -> tuple[str, Estimate] | None:
    """Return the task with the lowest ratio, pooled over the seeds."""
    found = [(task, pooled(rows, ratio(task))) for task in tasks]
    known = [(task, one) for task, one in found if one is not None]
    return min(known, key=lambda pair: pair[1].mean) if known else None


# --- correlations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correlation:
    """How well a figure predicts the drop: 1 - retention."""

    predictor: str
    pearson: Estimate
    spearman: Estimate
    rows: int
    settings: int


def correlations(rows: Sequence[Row]) -> tuple[list[Correlation], dict[str, Estimate]]:
    """Return the correlation of each predictor with the drop, over the rows that changed weights.

    Returns:
        The correlations, and by how much that of R exceeds that of each distance (Spearman).
    """
    tasks = shared_tasks(rows)
    # An unedited model has neither an R nor a drop; the same rows serve every predictor.
    figures = {name: diagnostic(*path) for name, path in PREDICTORS.items()}
    used = [row for row in rows if all(figure(row) for figure in figures.values())]
    if not tasks or len({_setting(row) for row in used}) < 3:
        return [], {}
    drop = np.array([1 - _mean(retention(tasks), row) for row in used])
    columns = {name: np.array([_mean(f, row) for row in used]) for name, f in figures.items()}
    draws = _draws([_setting(row) for row in used])
    clusters = len({_setting(row) for row in used})
    made = [
        Correlation(
            name,
            _bootstrapped(lambda at, x=x: _pearson(x[at], drop[at]), draws, len(used)),
            _bootstrapped(lambda at, x=x: _spearman(x[at], drop[at]), draws, len(used)),
            len(used),
            clusters,
        )
        for name, x in columns.items()
    ]
    gains = {
        name: _bootstrapped(
            lambda at, x=columns[name]: (
                _spearman(columns["R"][at], drop[at]) - _spearman(x[at], drop[at])
            ),
            draws,
            len(used),
        )
        for name in ("squared distance", "Fisher-weighted distance")
    }
    return made, gains


def _setting(row: Row) -> tuple[str, str]:
    return row.source, row.name


def _mean(figure: Figure, row: Row) -> float:
    value = figure(row)
    return math.nan if value is None else value[0]


def _draws(labels: Sequence[tuple[str, str]]) -> list[np.ndarray]:
    """Return the indices of the rows in each draw: settings, drawn with replacement."""
    generator = np.random.default_rng(0)
    names = list(dict.fromkeys(labels))
    members = [np.array([i for i, label in enumerate(labels) if label == name]) for name in names]
    return [
        np.concatenate([members[i] for i in generator.integers(0, len(names), len(names))])
        for _ in range(DRAWS)
    ]


def _bootstrapped(
    measure: Callable[[np.ndarray], float], draws: Sequence[np.ndarray], n: int
) -> Estimate:
    mean = measure(np.arange(n))
    values = [value for at in draws if math.isfinite(value := measure(at))]
    if len(values) < DRAWS / 2 or not math.isfinite(mean):
        return Estimate(mean)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(mean, float(low), float(high))


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's correlation; NaN where one side holds one value only."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    return _pearson(rankdata(x), rankdata(y))


# --- claims -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """One claim about one setting."""

    claim: str
    row: str
    figures: str
    verdict: str


def verdict(estimate: Estimate | None, bound: float, above: bool) -> str:
    """Apply the module's rule: does the whole interval lie on the claim's side of ``bound``?"""
    if estimate is None:
        return ABSENT
    if estimate.low is None or estimate.high is None:
        return ALONE
    if estimate.low > bound:
        return SEEN if above else NOT_SEEN
    if estimate.high < bound:
        return NOT_SEEN if above else SEEN
    return OPEN


def claims(rows: Sequence[Row]) -> list[Claim]:
    """Return the claims about the rows of one source, model and corpus.

    Each setting of mixsd is compared with sft under the same options, which is what stands behind
    the first comma of its name ("mixsd 0.3, kl 1" with "sft, kl 1"); others are left out.
    """
    named, tasks = settings(rows), shared_tasks(rows)
    recall = axis("efficacy")
    found: list[Claim] = []
    for name, group in named.items():
        if group[0].method == "mixsd" and (sft := named.get(_like(name))):
            found += _against_sft(name, group, sft, tasks)
    sft = named.get("sft") or []
    for name, group in named.items():
        if group[0].method in EDITORS and sft:
            gap = difference(group, sft, recall)
            found.append(
                Claim(
                    "A weight editor recalls less than sft",
                    name,
                    _figures(group, sft, gap, recall),
                    verdict(gap, 0, above=False),
                )
            )
    return found


def _like(name: str) -> str:
    """Return the name of the row of sft with the options of ``name``."""
    _, comma, options = name.partition(",")
    return f"sft{comma}{options}"


def _against_sft(
    name: str, mixed: Sequence[Row], sft: Sequence[Row], tasks: Sequence[str]
) -> list[Claim]:
    def claim(text: str, figure: Figure, bound: float, above: bool, only: str = "") -> Claim:
        gap = difference(mixed, sft, figure)
        decided = only or verdict(gap, bound, above)
        return Claim(text, name, _figures(mixed, sft, gap, figure), decided)

    recall = axis("efficacy")
    learned = pooled(mixed, recall)
    gap = difference(mixed, sft, recall)
    unequal = gap is None or abs(gap.mean) > EQUAL
    unlike = f"cannot be tested: the recalls differ by more than {EQUAL:.2f}" if unequal else ""
    classes = {"leak": "leakage", "collapse": "collapse"}
    return [
        claim("The targets have a lower NLL", diagnostic("supervision", "nll"), 0, False),
        claim(
            "Fewer target tokens have an NLL above 5",
            diagnostic("supervision", "nll_above_5"),
            0,
            False,
        ),
        Claim(
            "Nearly all facts are recalled (0.95)",
            name,
            "–" if learned is None else learned.text(),
            verdict(learned, 0.95, above=True),
        ),
        claim(f"Recall is no more than {EQUAL:.2f} below sft's", recall, -EQUAL, True),
        claim("More is retained at equal recall", retention(tasks), 0, True, unlike),
        claim("R is smaller", diagnostic("fisher", "alignment_ratio"), 0, False),
        *(
            claim(f"Fewer of the lost answers {verb}", lost_share(kind), 0, False)
            for verb, kind in classes.items()
        ),
        *(
            claim(f"Fewer of the lost neighbors {verb}", lost_neighbors(kind), 0, False)
            for verb, kind in classes.items()
        ),
    ]


def _figures(
    first: Sequence[Row], second: Sequence[Row], gap: Estimate | None, figure: Figure
) -> str:
    one, other = pooled(first, figure), pooled(second, figure)
    if gap is None or one is None or other is None:
        return "–"
    return f"{one.mean:.2f} against {other.mean:.2f}: {gap.text('+.2f')}"


def claims_on_correlation(
    found: Sequence[Correlation], gains: Mapping[str, Estimate]
) -> list[Claim]:
    """Return the claims that R predicts the drop, and better than the distances do."""
    if not found:
        return []
    size = f"{found[0].rows} rows of {found[0].settings} settings"
    ranks = next(one.spearman for one in found if one.predictor == "R")
    told = {"R predicts the drop": ranks}
    told |= {f"R predicts it better than the {name}": gain for name, gain in gains.items()}
    enough = found[0].settings >= FEWEST
    return [
        Claim(text, size, one.text("+.2f"), verdict(one, 0, True) if enough else OPEN)
        for text, one in told.items()
    ]


# --- the report ---------------------------------------------------------------------------------


def report(rows: Sequence[Row]) -> dict[str, Any]:
    """Return everything that ``check`` prints and stores, by model and corpus."""
    worlds = list(dict.fromkeys(row.world for row in rows))
    return {
        f"{model}, {corpus}": _world([row for row in rows if row.world == (model, corpus)])
        for model, corpus in worlds
    }


def _world(rows: Sequence[Row]) -> dict[str, Any]:
    found, gains = correlations(rows)
    trainers, _ = correlations([row for row in rows if row.method not in EDITORS])
    sources = list(dict.fromkeys(row.source for row in rows))
    by_source = {source: [row for row in rows if row.source == source] for source in sources}
    return {
        "tasks": shared_tasks(rows),
        "rows": [
            line for group in by_source.values() for line in _lines(group, shared_tasks(rows))
        ],
        "correlations": [asdict(one) for one in found],
        "without weight editors": [asdict(one) for one in trainers],
        "claims": [
            {"source": source, **asdict(claim)}
            for source, group in by_source.items()
            for claim in claims(group)
        ]
        + [{"source": "all", **asdict(one)} for one in claims_on_correlation(found, gains)],
    }


def _lines(rows: Sequence[Row], tasks: Sequence[str]) -> list[dict[str, str]]:
    """Return the table of the settings of one source, as text."""

    def cell(group: Sequence[Row], figure: Figure, form: str = ".2f") -> str:
        found = pooled(group, figure)
        return "–" if found is None else found.text(form)

    lines = []
    for name, group in settings(rows).items():
        worst = worst_task(group, tasks)
        lines.append(
            {
                "source": group[0].source,
                "row": name,
                "seeds": str(len(group)),
                "recall": cell(group, axis("efficacy")),
                "paraphrases": cell(group, axis("generalization")),
                "retention": cell(group, retention(tasks)) if tasks else "–",
                "worst task": "–" if worst is None else f"{worst[0]} {worst[1].text()}",
                "lambda": cell(group, effective_lambda),
                "target NLL": cell(group, diagnostic("supervision", "nll")),
                "NLL > 5": cell(group, diagnostic("supervision", "nll_above_5")),
                "R": cell(group, diagnostic("fisher", "alignment_ratio")),
                "D_F": cell(group, diagnostic("fisher", "displacement"), ".2g"),
                "squared distance": cell(group, diagnostic("fisher", "squared_norm"), ".3g"),
                "KL": cell(group, diagnostic("drift", "kl"), ".3f"),
                **{kind: cell(group, lost_share(kind)) for kind in CLASSES},
            }
        )
    return lines


def markdown(found: Mapping[str, Any]) -> str:
    """Return the report as markdown."""
    parts = []
    for world, told in found.items():
        parts += [
            f"## {world}",
            f"Retention over {', '.join(told['tasks']) or 'no shared task'}. Mean over the seeds "
            "[95 % interval] ±standard deviation over the seeds; lambda is the effective one. "
            "The last four columns are shares of the answers to free tasks that the base had right "
            "and the edited model has wrong.",
            _table(told["rows"]),
        ]
        for title, key in (
            ("Correlation with the drop (1 - retention)", "correlations"),
            ("The same without weight editors", "without weight editors"),
        ):
            if told[key]:
                size = f"{told[key][0]['rows']} rows of {told[key][0]['settings']} settings"
                parts += [f"### {title}, {size}", _table(list(map(_correlation, told[key])))]
        parts += ["### The claims", _table(told["claims"])]
    return "\n\n".join(parts)


def _correlation(one: Mapping[str, Any]) -> dict[str, str]:
    return {
        "predictor": one["predictor"],
        "Pearson": Estimate(**one["pearson"]).text("+.2f"),
        "Spearman": Estimate(**one["spearman"]).text("+.2f"),
    }


def _table(lines: Sequence[Mapping[str, str]]) -> str:
    if not lines:
        return "None: the rows hold no pair to compare."
    body = [f"| {' | '.join(line.values())} |" for line in lines]
    return "\n".join([f"| {' | '.join(lines[0])} |", "|---" * len(lines[0]) + "|", *body])


def check(paths: Sequence[str], output: Path) -> None:
    """Print the report on the rows of ``paths``, and store it in ``output``."""
    rows = load(paths)
    if not rows:
        raise RecordError(f"{', '.join(paths)}: no row has scores.")
    found = report(rows)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    write_json_atomic(
        output,
        jsonable({"sources": [Path(path).name for path in paths], "commit": commit, **found}),
    )
    print(markdown(found))


# --- the picture --------------------------------------------------------------------------------


def frontier(
    before: Sequence[str], after: Sequence[str], output: Path, model: str | None = None
) -> None:
    """Draw recall and paraphrases against the worst task's ratio: before hollow, after filled.

    Points are numbered in the order of the legend. Crosses are the intervals. Dotted lines mark
    the goal: recall and the worst task at 0.95, paraphrases 0.05 below those of ``sft``.

    Raises:
        RecordError: if the rows are of several models or corpora, or have no task in common.
    """
    from matplotlib.figure import Figure as Picture

    old, new = (
        [row for row in load(paths) if model in (None, row.model) and row.method != "base"]
        for paths in (before, after)
    )
    worlds = list(dict.fromkeys(row.world for row in [*old, *new]))
    if len(worlds) != 1:
        named = "; ".join(map(", ".join, worlds)) or "none"
        raise RecordError(f"A picture shows one model and corpus. These rows have: {named}.")
    tasks = shared_tasks([*old, *new])
    if not tasks:
        raise RecordError("The rows have no retention task in common.")
    picture = Picture(figsize=(11.5, 4.8), layout="constrained")
    panels = picture.subplots(1, 2, sharey=True)
    sft = pooled(settings(new).get("sft") or settings(old).get("sft") or [], axis("generalization"))
    goals = (0.95, None if sft is None else sft.mean - EQUAL)
    for panel, name, goal in zip(panels, ("efficacy", "generalization"), goals, strict=True):
        panel.axhline(0.95, color="0.6", linewidth=0.8, linestyle=":")
        if goal is not None:
            panel.axvline(goal, color="0.6", linewidth=0.8, linestyle=":")
        shown = {"efficacy": "recall", "generalization": "paraphrases"}[name]
        panel.set(xlabel=f"{shown} (95 % interval)", xlim=(-0.04, 1.06))
        count = 0
        for rows, when in ((old, "before"), (new, "after")):
            for row_name, group in settings(rows).items():
                count += 1
                _point(panel, group, axis(name), tasks, when, f"{count} {row_name} ({when})")
    panels[0].set_ylabel(f"worst of {len(tasks)} tasks: edited / base (95 % interval)")
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    picture.suptitle(f"{', '.join(worlds[0])}: what is learned against what is kept", fontsize=10)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as part:
        picture.savefig(part, dpi=150, format="png")
    print(output)


def _point(
    panel: Any, rows: Sequence[Row], figure: Figure, tasks: Sequence[str], when: str, label: str
) -> None:
    x, worst = pooled(rows, figure), worst_task(rows, tasks)
    if x is None or worst is None:
        return
    y = worst[1]
    color, face = ("0.55", "white") if when == "before" else ("black", "black")
    panel.errorbar(
        x.mean,
        y.mean,
        xerr=_ends(x),
        yerr=_ends(y),
        color=color,
        marker="o" if when == "before" else "s",
        markerfacecolor=face,
        markersize=5,
        linewidth=0.7,
        linestyle="",
        label=label,
    )
    panel.annotate(
        label.partition(" ")[0],
        (x.mean, y.mean),
        (4, 3),
        textcoords="offset points",
        fontsize=8,
        color=color,
    )


def _ends(value: Estimate) -> list[list[float]] | None:
    if value.low is None or value.high is None:
        return None
    return [[value.mean - value.low], [value.high - value.mean]]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    checks = commands.add_parser("check")
    checks.add_argument("rows", nargs="+")
    checks.add_argument("-o", "--output", type=Path, default=RESULT)
    checks.set_defaults(run=lambda told: check(told.rows, told.output))
    draws = commands.add_parser("frontier")
    draws.add_argument("--before", nargs="+", default=[])
    draws.add_argument("--after", nargs="+", default=[])
    draws.add_argument("--model")
    draws.add_argument("-o", "--output", type=Path, required=True)
    draws.set_defaults(run=lambda told: frontier(told.before, told.after, told.output, told.model))
    told = parser.parse_args(arguments)
    try:
        told.run(told)
    except EditbenchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
