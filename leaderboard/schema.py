"""Typed records of the leaderboard: a ranked row, and one summary for the cells of several seeds.

A number that was not measured is ``None``, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from editbench.records.schema import (
    ArtifactRecord,
    CellSummary,
    CurvePoint,
    EvaluatorRow,
    ModelRecord,
    OriginRecord,
    RightAfter,
    Status,
    VitalSigns,
)
from editbench.rows import IntervalRow, Metrics, RetentionRow, TwiceRow, Work


class AxisRow(TypedDict):
    """The score of one axis under one protocol, with its 95 % interval."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    """Items scored; 0 where the axis was not measured."""
    protocol: str
    spread: NotRequired[float]
    """Standard deviation of the seeds' means; absent for one seed."""


class Mixing(TypedDict):
    """How much of its training texts a method's naive branch wrote (mixsd)."""

    lam: float | None
    """The share that was asked for; ``None`` for ``mode=adaptive``, which asks for none."""
    effective_lambda: float | None
    """The share of the tokens trained on. It is usually smaller than ``lam``: only texts that state
    their fact are trained on, and rewriting one replaces naive tokens by the expert's."""


class TwiceScores(TypedDict):
    """Scores of a sequence's facts right after their own chunk and at the end, by one protocol."""

    facts: int
    """Facts that are compared."""
    replaced: int
    """Facts that a later fact replaced."""
    not_injected: int
    """Facts that a stopped sequence never reached or took back."""
    scores: dict[str, TwiceRow]
    """Metric -> its scores."""


class Row(TypedDict):
    """One row of a ranking: one cell, or the cells of several seeds pooled."""

    method: str
    """NAME, or NAME@LABEL for a variant."""
    key: str
    """Key of the cell; the keys of pooled cells are joined by ``+``."""
    options: Mapping[str, object]
    """The options without those that the key leaves out."""
    recipe: str | None
    """The recipe that stands for these options."""
    tuned: bool
    """Whether a search on dev facts chose the options."""
    tuning: Mapping[str, object]
    """That search; empty where there was none."""
    status: Status
    note: str
    """Why the cell is not ``done``."""
    warnings: list[str]
    """Problems that the edit reports, and how many answers the judge skipped."""
    protocol: str
    """The protocol that all scores of this row belong to."""
    efficacy: AxisRow
    generalization: AxisRow
    specificity: AxisRow
    portability: NotRequired[AxisRow]
    """Present if any row of the ranking has it; no part of the score."""
    in_context: NotRequired[AxisRow]
    """Present if any row of the ranking has it; no part of the score."""
    drafted: NotRequired[dict[str, int]]
    """Metric -> how many of its probes editbench drafted; absent where it drafted none."""
    mixing: NotRequired[Mixing]
    """Present if the method mixes its training texts from two branches."""
    right_after: NotRequired[TwiceScores]
    """Sequences only; no part of the score, which is that of the end over all facts."""
    retention: dict[str, RetentionRow]
    """Retention task -> base and edited score."""
    retention_mean: IntervalRow
    """Mean over the tasks (``n``) of the ratio edited / base."""
    evaluators: NotRequired[dict[str, EvaluatorRow]]
    """Evaluator plug-in -> its mean over the cases; no part of the score."""
    score: float | None
    """Ranking key: the harmonic mean of the parts in ``score_of``, each clamped to [0, 1]."""
    score_of: list[str]
    """The parts of the score that were measured."""
    seconds: float | None
    """Wall-clock seconds of the injection alone."""
    precompute_seconds: float | None
    """Seconds for results that the next injection finds in the cache (covariance)."""
    peak_memory_bytes: int | None
    """Peak memory of the whole cell, evaluation included."""
    artifact: NotRequired[ArtifactRecord]
    """Present if the row is something made elsewhere, and not a method."""
    origins: NotRequired[list[OriginRecord]]
    """Present if the method, or a part of a pair, is not one of editbench's own."""
    no_facts: NotRequired[bool]
    """Present if the run asked no facts, so that the row has retention alone."""
    label: NotRequired[str]
    """The method, with its recipe or the options in which it differs from its other rows."""


class PooledCorpus(TypedDict):
    """The slices of several seeds."""

    name: str
    hash: list[str | None]
    """One hash for each seed."""
    part: str
    n: int
    """Cases of each seed."""
    form: str


class PooledSummary(TypedDict):
    """One summary for cells that differ only by their seed.

    Fields without a description mean the same as in ``CellSummary``. Diagnostics, curve and
    trajectory describe a single model, so they stay empty.
    """

    key: str
    """The keys of the cells, joined by ``+``."""
    method: str
    options: dict[str, object]
    """The options without the seed."""
    recipe: str | None
    tuned: bool
    """Whether the options of all seeds were tuned."""
    tuning: Mapping[str, object]
    """The search of the first seed, or of one that found no feasible trial."""
    model: ModelRecord
    corpus: PooledCorpus
    tasks: dict[str, str | None] | None
    versions: Mapping[str, object] | None
    regime: str
    seed: list[int]
    limit: int | None
    status: Status
    """``done`` if all seeds are, ``failed`` if one failed, else the first other status."""
    note: str
    metrics: Metrics
    """Means over the seeds. Like ``retention``, it is empty if a seed failed."""
    retention: dict[str, RetentionRow]
    retention_spread: float | None
    """Standard deviation of the seeds' mean retention ratios."""
    right_after: NotRequired[RightAfter]
    """Sequences only. The counts of facts are sums over the seeds."""
    evaluators: dict[str, EvaluatorRow]
    seconds: dict[str, float | None]
    work: dict[str, Work]
    peak_memory_bytes: int | None
    """The largest of the seeds."""
    peak_process_bytes: int | None
    edit: dict[str, object]
    artifact: NotRequired[ArtifactRecord]
    origins: NotRequired[list[OriginRecord]]
    mixing: NotRequired[Mixing]
    """Present if the method mixes its training texts; the effective share is the seeds' mean."""
    judge: dict[str, object]
    environment: dict[str, object]
    """The environment that all seeds share; empty if they differ."""
    environments: list[Mapping[str, object]]
    """One for each seed."""
    diagnostics: dict[str, dict[str, object] | None]
    curve: list[CurvePoint]
    trajectory: list[VitalSigns]


Summary = CellSummary | PooledSummary
