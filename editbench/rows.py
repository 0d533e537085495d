"""The rows that an evaluation writes into a cell's tables and summary.

They are plain dicts, so they can be written to JSON and parquet as they are. An undefined number is
NaN in a row that was just computed, and ``None`` in a row that was read back.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class IntervalRow(TypedDict):
    """An estimate with its 95 % interval; ``None`` where undefined."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    """Number of items scored."""
    clusters: int
    """Number of cases to which they belong."""
    protocol: NotRequired[str]
    """How the answers were obtained and graded."""
    spread: NotRequired[float | None]
    """Standard deviation of the seeds' means, of a row that pools seeds. No record has it."""


Metrics = dict[str, dict[str, IntervalRow]]
"""Metric -> protocol -> estimate."""


class TwiceRow(TypedDict):
    """A metric over probes that were asked twice, of the same items both times."""

    right_after: IntervalRow
    """By the model as the fact's own chunk left it."""
    at_end: IntervalRow
    """By the model at the end of the sequence."""
    change: IntervalRow
    """The end minus right after, paired by probe."""


class ProbeRow(TypedDict):
    """One probe of one case: its prompt, the model's text, and its scores (see ``eval/``)."""

    case: str
    """Id of the fact."""
    probe: int
    """Index among the case's probes. Probes that ``eval/`` derives come after the case's own."""
    axis: str
    kind: str | None
    """The kind of question within its axis, in the corpus's words ("Subject_Aliasing")."""
    form: str
    prompt: str
    answers: list[str]
    distractor: str | None
    text: str
    """What the model wrote."""
    base_text: str
    """What the unedited model wrote."""
    generation: float
    """1.0 or 0.0 under protocol ``generation``; for a ``fluency`` probe an entropy in bits."""
    argmax: float
    likelihood: float
    contains: bool | None
    """Whether the text contains an accepted answer; ``None`` if that is not what is asked
    (``Probe.protocols``, or a probe without an accepted answer)."""
    exact: bool | None
    denied: NotRequired[bool]
    """Whether the text names an accepted answer only to deny or correct it; ``contains`` is then
    false. Older records lack it."""
    target_leaked: bool | None
    """Whether the answer to a probe that must not move contains the fact's target; ``None`` if the
    target is a long text."""
    answer_logprob: float
    """Mean log-probability a token of the first accepted answer, in nats."""
    distractor_logprob: float
    target_ids: list[int]
    argmax_ids: list[int]
    """The most probable token at each position of the target, given the target up to there."""
    base_argmax_ids: list[int]
    token_accuracy: float
    token_agreement: float
    """Share of positions where the most probable token is also the unedited model's."""
    consistency: float
    judge: NotRequired[float]
    """1.0 or 0.0 by a judging model, where one was asked."""
    base_generation: NotRequired[float]
    """``generation`` of the unedited model. Only stored tables have this and the next two."""
    base_argmax: NotRequired[float]
    base_likelihood: NotRequired[float]
    facts: NotRequired[int]
    """In ``curve_probes`` and ``right_after``: how many facts had been injected."""
    replaced: NotRequired[bool]
    """In ``right_after``: whether a later fact of the sequence replaced this one (the same prompt,
    another target), so that the end is not asked of it."""


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
    """``score`` of the unedited model. Only stored tables have this and ``base_output``."""
    base_output: NotRequired[str]
    facts: NotRequired[int]
    """In ``curve_samples``: how many facts had been injected."""


class RetentionRow(TypedDict):
    """One retention task: base and edited score, paired by document."""

    base: float | None
    """Score of the unedited model."""
    mean: float | None
    """Score of the edited model, in [``low``, ``high``]."""
    low: float | None
    high: float | None
    n: int
    """Number of documents, each counted once for every seed."""
    clusters: NotRequired[int]
    """Number of different documents, as several seeds ask the same ones. Absent in pooled old
    records."""
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
    """From 0 to 1; NaN where the case cannot be scored."""
    text: str
    """The text that the score rests on, for the reader; may be empty."""
    base_score: NotRequired[float]
    """``score`` of the unedited model. Only stored tables have it."""


Work = dict[str, float]
"""What went through the decoder layers in one phase.

The keys are ``passes`` and ``tokens``, and among the tokens ``gradient_tokens``, for which
gradients were kept, and ``decoded_tokens``, which came one at a time. A pass through some of the
layers counts as its share of one. Phase ``inject`` also has the figures of the method that add up
(``report.Figure``), such as the ``trained_tokens`` of a trainer.
"""
