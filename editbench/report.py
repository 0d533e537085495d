"""What an edit says of its own work: the report, one record a fact, and how a method declares its figures.

``Edit.diagnostics`` is an ``EditReport`` plus the figures that the edit's method declares in
``Method.figures``. ``Edit.records`` holds ``EditRecord``s. Tables, the runner and the diagnostics read
only what is declared here or there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


@dataclass(frozen=True)
class Figure:
    """One number or text that a method puts into its edits' reports."""

    about: str
    """What it is, in one sentence, with its unit."""
    shown: str | None = None
    """Words that follow the value in the line that ``editbench inject`` prints; ``None``: not printed."""
    adds_up: bool = False
    """Whether the figures of several injections are summed. Such a figure counts as work, as trained
    tokens do, and stands beside the seconds of injecting."""


class EditReport(TypedDict, total=False):
    """The fields that any edit's report may have; all are optional."""

    warnings: list[str]
    """Sentences for the person who reads the result: what the edit did not reach, or may damage."""
    chunks: int
    """How many injections a sequence is made of."""
    mean_delta_norm: float
    """Under regime ``single``: the mean over facts of the norm of the change of all weights."""
    facts_by_method: dict[str, int]
    """Of a pair of methods: how many facts each was given. The report of each stands under its name."""


class EditRecord(TypedDict, total=False):
    """What an edit keeps of one fact (of one training text, where a fact has several). All optional."""

    fact: str
    """Id of the fact."""
    chunk: int
    """Which injection of a sequence it was in, from 0."""
    part: str
    """Which method of a pair it was given to."""
    frame: int
    """Trainers: 0 for the fact's own prompt, 1, 2, ... for its rewordings."""
    subject: str
    """Weight editors: the span of the prompt whose last token was edited."""
    subject_from: str
    """How the subject was found: ``given``, ``rule`` or ``last word``."""
    target_nll: float
    """Weight editors: nats a token of the target at the end of the target optimisation."""
    clamped: bool
    """Weight editors: whether the wanted change was cut to its largest allowed norm."""
    steps: int
    """Weight editors: optimisation steps that were taken."""
    relative_update: float
    """Weight editors: the largest share of a weight's norm that this fact alone moves."""
    ids: list[int]
    """Mixed targets: token ids of the text."""
    naive_picked: list[bool]
    """Mixed targets: whether the naive branch wrote each token."""
    naive_logp: list[float]
    """Mixed targets: log-probability of each token under the naive branch, in nats."""
    expert_logp: list[float]
    """Mixed targets: the same under the expert branch."""
    attempt: int
    """Mixed targets: attempts before the text that was kept, from 0."""
    verified: bool
    """Mixed targets: whether the text states the fact."""
    ended: bool
    """Mixed targets: whether the model ended the text by itself."""
    source: str
    """Mixed targets: what was trained on: ``mixed``, ``expert``, ``target``, ``unverified``, ``dropped``."""
    text: str
    """Mixed targets: the text of ``ids``."""
