"""What a run leaves on disk, written so that a crash at any moment loses at most the cell in work.

    RUN/run.json                       {"schema", "digest", "config"}; written first
    RUN/.lock                          flock of the process that writes; free again when that process is gone
    RUN/cells/<key>/summary.json       its presence means that the cell is done
    RUN/cells/<key>/probes.parquet     one row a probe, with the text that the model wrote
    RUN/cells/<key>/retention.parquet  one row a task sample
    RUN/cells/<key>/edit_records.parquet             what the edit noted on its facts
    RUN/cells/<key>/curve_{probes,samples}.parquet   rows of the points of a curve but the last, with their ``facts``
    RUN/cases.json                     the facts and their probes
    RUN/cells.json                     {method: key}: the cells that are the run's; others beside them are older or foreign
    RUN/not_asked.json                 {task: why}: retention tasks that were asked for and could not be loaded, if any

A cell is written into ``RUN/cells/.tmp-*``, summary last, and renamed as a whole. JSON has no NaN: null stands for it.

``summary.json``:

    {"schema": 1, "key": str, "method": str, "options": {...}, "tuned": bool, "tuning": {...} where tuned (tune.py),
     "sources": {path: SHA-256},                                                   where options name files
     "model": {"name": str, "hash": str, "precision": str, "chat_template": str | null},
     "corpus": {"name": str, "hash": str, "part": "dev" | "test", "n": int, "form": "cloze" | "question"},
     "tasks": {task: hash of its data},
     "versions": {"scoring": int, "method": int, "regime": int of a sequence},     with what stands here, all that key is of
     "regime": "batch" | "single" | "sequential:CHUNK", "seed": int, "limit": int | null,
     "status": "done" | "no_effect" | "stopped" | "failed", "note": str,
     "metrics": {axis: {protocol: {"mean", "low", "high", "n", "clusters", "protocol"}}},
     "retention": {task: {"base", "mean", "delta", "ratio", "low", "high", "n", "delta_low", "delta_high", "ratio_low",
                          "ratio_high", "metric", "lost", "gained"}},
     "seconds": {phase: float, "total": float},                                    phases: runner.py, regimes.py
     "inject_seconds": [float],                                                    where --repeats was given
     "work": {phase: {"passes", "tokens", "gradient_tokens", "decoded_tokens", under inject "trained_tokens"}},
     "trajectory": [{"facts", "perplexity_ratio", "norm_growth", "target_nll", "target_ratio", "forgetting_ratio"}],
                                                                                   of a sequence, by chunk
     "curve": [{"facts", "metrics", "retention"}],                                 where --curve was given
     "peak_memory_bytes": int, "peak_process_bytes": int, "environment": {...}, "edit": {...diagnostics},
     "diagnostics": {name: {...} | null},                                          where --diagnostics was given
     "judge": {"model", "judged", "not_judged", "reason"},                         only where one was asked
     "tables": {name: SHA-256 of its parquet file}, "digest": hash of all of the above}

``axis`` is a metric of ``eval/DEFINITIONS.md`` (``efficacy``, ...), or one over one kind of probes alone,
``portability/KIND``; ``protocol`` is ``generation``, ``argmax``, ``likelihood`` or ``judge``. In ``retention``, ``low`` and
``high`` bound ``mean``, ``delta_low`` and ``delta_high`` bound ``delta``, which is paired; ``lost`` and ``gained`` count the
documents that scored at least 0.5 before and less after, and the other way.
A failed cell has empty ``metrics`` and ``retention``, its reason in ``note`` and a ``traceback``. The hash of the model is
that of its weights, the corpus's that of the chosen cases with their probes (``cases.json``). Cells from before ``tables``
and ``digest`` were stored are read all the same, and all cells of a folder from before it had a ``cells.json``.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from editbench.rows import IntervalRow, Metrics, RetentionRow, Work

Status = Literal["done", "no_effect", "stopped", "failed"]


class ModelRecord(TypedDict):
    """The model that a cell was computed with."""

    name: str
    hash: str
    """Fingerprint of the weights."""
    precision: str
    chat_template: NotRequired[str | None]
    """Hash of the template; ``None`` where there is none."""


class CorpusRecord(TypedDict):
    """The slice whose facts were injected."""

    name: str
    hash: str
    """Hash of the chosen cases with their probes."""
    part: str
    n: int
    form: str


class Versions(TypedDict):
    """Versions of what can move a number; with the rest of the summary all that the key is of."""

    scoring: int
    method: int
    engine: NotRequired[int]
    """Version of the engine that the method runs on, where it is above 1."""
    regime: NotRequired[int]
    """Of what a sequence is watched for."""
    evaluators: NotRequired[dict[str, int]]


class VitalSigns(TypedDict):
    """A model in a sequence, after one chunk; ratios are of perplexities to the base's."""

    facts: int
    perplexity_ratio: float
    norm_growth: float
    target_nll: float
    target_ratio: float
    forgetting_ratio: float


class CurvePoint(TypedDict):
    """The scores after the first ``facts`` facts."""

    facts: int
    metrics: Metrics
    retention: dict[str, RetentionRow]


class EvaluatorRow(IntervalRow):
    """The mean of an evaluator plug-in over the cases."""

    title: str
    """The heading of its column."""
    base: float | None
    """The same of the unedited model."""


class CellSummary(TypedDict):
    """``summary.json``. Fields that only some cells have, or that older ones lack, are not required."""

    schema: NotRequired[int]
    key: str
    method: str
    """NAME, or NAME@LABEL for a variant."""
    options: dict[str, Any]
    tuned: NotRequired[bool]
    tuning: NotRequired[dict[str, Any]]
    """Where ``tuned``: the search that chose the options."""
    sources: NotRequired[dict[str, str]]
    """Path -> SHA-256 of the files that options name."""
    model: ModelRecord
    corpus: CorpusRecord
    tasks: NotRequired[dict[str, str | None]]
    """Retention task -> hash of its data; ``None``: from the hub."""
    versions: NotRequired[Versions]
    regime: str
    seed: int
    limit: int | None
    status: Status
    note: str
    metrics: Metrics
    retention: dict[str, RetentionRow]
    evaluators: NotRequired[dict[str, EvaluatorRow]]
    """Evaluator plug-in -> its mean, where ``--evaluators`` was given."""
    seconds: dict[str, float]
    """Phase -> wall-clock seconds, and ``total``."""
    inject_seconds: NotRequired[list[float]]
    work: NotRequired[dict[str, Work]]
    trajectory: NotRequired[list[VitalSigns]]
    curve: NotRequired[list[CurvePoint]]
    peak_memory_bytes: NotRequired[int]
    peak_process_bytes: NotRequired[int]
    environment: NotRequired[dict[str, Any]]
    edit: NotRequired[dict[str, Any]]
    """The edit's report (``editbench.report``), with how many weights it changed and by how much."""
    diagnostics: NotRequired[dict[str, dict[str, Any] | None]]
    judge: NotRequired[dict[str, Any]]
    traceback: NotRequired[str]
    """Of a failed cell."""
    tables: NotRequired[dict[str, str]]
    """Table -> SHA-256 of its parquet file."""
    digest: NotRequired[str]
    """Hash of all of the above."""


SCHEMA = 1


COLUMNS = {
    "probes": (
        "case",
        "probe",
        "axis",
        "form",
        "prompt",
        "answers",
        "text",
        "base_text",
        "generation",
    ),
    "retention": ("task", "member", "doc_id", "prompt", "expected", "output", "score", "metric"),
}
"""What a table must have to be one."""


PARTS = {
    "status": str,
    "corpus": dict,
    "model": dict,
    "options": dict,
    "metrics": dict,
    "retention": dict,
    "seed": int,
}
"""What a summary must have to be one."""
