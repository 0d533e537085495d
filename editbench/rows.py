"""The rows that an evaluation writes, as they stand in a cell's tables and in its summary.

Plain dicts, so that they go to JSON and parquet as they are. A number that is undefined is NaN in a
row that was just made and ``None`` in one that was read back.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class IntervalRow(TypedDict):
    """An estimate with its 95 % interval; ``None`` where undefined."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    """Items scored."""
    clusters: int
    """Cases they belong to."""
    protocol: NotRequired[str]
    """How the answers were asked for and graded."""


Metrics = dict[str, dict[str, IntervalRow]]
"""Metric -> protocol -> estimate."""


class ProbeRow(TypedDict):
    """One probe of one case: what was asked, what the model wrote, and its scores (``eval/DEFINITIONS.md``)."""

    case: str
    """Id of the fact."""
    probe: int
    """Place among the case's probes; what ``eval/`` derives comes after the case's own."""
    axis: str
    kind: str | None
    """What the question takes within its axis, in the corpus's words."""
    form: str
    prompt: str
    answers: list[str]
    distractor: str | None
    text: str
    """What the model wrote."""
    base_text: str
    """What the unedited model wrote."""
    generation: float
    """1.0 or 0.0 under protocol ``generation``; of a ``fluency`` probe an entropy in bits."""
    argmax: float
    likelihood: float
    contains: bool
    """Whether an accepted answer stands in the text."""
    exact: bool
    target_leaked: bool
    """Whether the fact's target stands in an answer that must not move."""
    answer_logprob: float
    """Mean log-probability a token of the first accepted answer, in nats."""
    distractor_logprob: float
    target_ids: list[int]
    argmax_ids: list[int]
    """The most probable token at each place of the target, the target given up to there."""
    base_argmax_ids: list[int]
    token_accuracy: float
    token_agreement: float
    """Share of places where the most probable token is the base's."""
    consistency: float
    judge: NotRequired[float]
    """1.0 or 0.0 by a judging model, where one was asked."""


class SampleRow(TypedDict):
    """One document of one retention task."""

    task: str
    member: str
    """The task itself, or the member of a group (``mmlu``)."""
    doc_id: int
    score: float
    """Between 0 and 1, higher is better."""
    prompt: str
    output: str
    expected: str
    metric: str
    """lm-eval's name for the score."""
    base_score: NotRequired[float]
    base_output: NotRequired[str]


class RetentionRow(TypedDict):
    """One retention task: base and edited score, paired by document."""

    base: float | None
    """Score of the unedited model."""
    mean: float | None
    """Score of the edited model, in [``low``, ``high``]."""
    low: float | None
    high: float | None
    n: int
    """Documents."""
    clusters: NotRequired[int]
    """Different documents, since several seeds ask the same ones. Absent in pooled old records."""
    delta: float | None
    """Edited minus base, in [``delta_low``, ``delta_high``]."""
    delta_low: float | None
    delta_high: float | None
    ratio: float | None
    """Edited / base, in [``ratio_low``, ``ratio_high``]."""
    ratio_low: float | None
    ratio_high: float | None
    lost: int
    """Documents that scored at least 0.5 before and less after."""
    gained: int
    metric: NotRequired[str]


class ScoreRow(TypedDict):
    """One score of one case by an evaluator plug-in (``editbench.plugin.Evaluator``)."""

    evaluator: str
    case: str
    score: float
    """NaN: not scored."""
    base_score: NotRequired[float]
    """The same of the unedited model."""
    text: str
    """What the score rests on, for the reader; may be empty."""


class Work(TypedDict, total=False):
    """What went through the decoder layers in one phase; a pass through some layers counts as its share."""

    passes: float
    tokens: float
    gradient_tokens: float
    """Tokens for which gradients were kept."""
    decoded_tokens: float
    """Tokens that came one at a time."""
    trained_tokens: float
    """Label tokens that a trainer's loss was computed on; under ``inject`` only."""
