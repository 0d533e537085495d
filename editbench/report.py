"""The report of an edit on its own work, and how a method declares further figures.

``Edit.diagnostics`` is an ``EditReport`` plus the figures that the edit's method declares in
``Method.figures``. ``Edit.records`` holds ``EditRecord`` rows, one for each fact or training text.
Tables, the runner and the diagnostics read nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict

FAR = 0.15
"""KL on own text, in nats a token, above which a model counts as moved far. Of the rows of
``benchmarks/results/kgfact_test.json`` those at .11 or less keep 93 % or more of the base's
retention (mean ratio of eleven tasks), and those at .30 or more at most 85 %; none lies between."""
MOVED_FAR = (
    f"The model moved far on text of its own (KL above {FAR} nats a token), so other abilities "
    "have probably suffered."
)


@dataclass(frozen=True)
class Figure:
    """One number or text that a method adds to the reports of its edits."""

    about: str
    """What the figure measures, in one sentence, with its unit."""
    shown: str | None = None
    """Words that ``editbench inject`` prints after the value; ``None``: it is not printed."""
    adds_up: bool = False
    """Whether the values of several injections may be summed. The runner counts such a figure as
    work of the injection, for example trained tokens."""


class Cost(TypedDict):
    """What an injection took."""

    seconds: float
    peak_memory_bytes: int
    """Of the process, or what was allocated on the GPU that holds the model."""


class Removal(TypedDict):
    """How an edit was made by taking facts out of another one."""

    edit: str
    """The folder of that edit as it was named; empty where it had none."""
    facts: int
    """How many facts it had."""
    without: list[str]
    """Ids of the facts that were taken out; their texts are not kept."""


class EditReport(TypedDict, total=False):
    """The fields that the report of any edit may have; all are optional."""

    cost: Cost
    """What the injection took, as ``editbench.inject`` measured it."""
    removals: list[Removal]
    """Of an edit out of which facts were taken: from which edit, in order."""
    warnings: list[str]
    """Sentences for the reader of the result: what the edit failed to do, or may damage."""
    chunks: int
    """Under regime ``sequential``: number of injections."""
    edits: int
    """Under regime ``single``: number of injections, each into a fresh model."""
    mean_delta_norm: float
    """Under regime ``single``: mean over facts of the norm of the change of all weights."""
    live: str
    """Of a live edit: what is not measured, and why. Norms are then absent."""
    rounding_lost: float
    """Where weights are held in 16 bits: what rounding to their type takes from the change, as a
    share of its norm."""
    nll_before_rounding: float
    """Weight editors, where weights are held in 16 bits: mean over facts of the target's nats a
    token in the model whose edited weights are not rounded."""
    nll_after_rounding: float
    """The same in the edited model, whose weights are rounded."""
    facts_by_method: dict[str, int]
    """For a pair of methods: how many facts each received. Their own reports are under their
    names."""


class EditSummary(EditReport, total=False):
    """``Edit.summary``: the report, the size of the change, and the method's figures."""

    facts: int
    changed_weights: int
    """Number of weight matrices and vectors that changed."""
    delta_norm: float
    """Frobenius norm of the change of all weights."""
    relative_norms: dict[str, float]
    """Weight -> norm of its change / its own norm; empty if more than 12 weights changed."""


class EditRecord(TypedDict, total=False):
    """What an edit keeps about one fact, or one of its training texts. All fields are optional."""

    fact: str
    """Id of the fact."""
    chunk: int
    """Index of the injection in a sequence, from 0."""
    part: str
    """The method of a pair that received the fact."""
    frame: int
    """Trainers: 0 for the fact's own prompt, 1, 2, ... for its rewordings."""
    subject: str
    """Weight editors: the subject that was found in the prompt."""
    subject_from: str
    """How the subject was found: ``given``, ``rule`` or ``last word``."""
    fact_token: str
    """Weight editors: where the key was read. ``subject_last``: at the subject's last token;
    ``last``: at that of the prompt's last word."""
    value_layer: int
    """Weight editors: the layer at which the fact's value is wanted (``Edit.values``)."""
    target_nll: float
    """Weight editors: nats per token of the target at the end of the value's optimization."""
    clamped: bool
    """Weight editors: whether the value's change was clamped to the largest allowed norm."""
    steps: int
    """Weight editors: optimization steps taken."""
    relative_update: float
    """Weight editors: norm of the change that this fact alone makes to a weight, as a share of the
    weight's norm; the largest over the weights."""
    ids: list[int]
    """Mixed targets: token ids of the text."""
    naive_picked: list[bool]
    """Mixed targets: for each token, whether the naive branch wrote it."""
    naive_logp: list[float]
    """Mixed targets: log-probability of each token under the naive branch, in nats."""
    expert_logp: list[float]
    """Mixed targets: log-probability of each token under the expert branch, in nats."""
    attempt: int
    """Mixed targets: number of attempts that were discarded before this text."""
    verified: bool
    """Mixed targets: whether the text states the fact."""
    ended: bool
    """Mixed targets: whether the model ended the text by itself."""
    source: str
    """Mixed targets: what the trainer saw: ``mixed``, ``expert``, ``target``, ``unverified`` or
    ``dropped``; ``canonical`` for an answer that was taught besides the texts."""
    text: str
    """Mixed targets: the text of ``ids``."""


def warnings_of(reports: Iterable[Mapping[str, object]]) -> list[str]:
    """Return the warnings of several reports, each once."""
    # A dict as a set that keeps the order.
    warnings: dict[str, None] = {}
    for report in reports:
        lines = report.get("warnings", ())
        if isinstance(lines, list | tuple):
            warnings |= dict.fromkeys(lines)
    return list(warnings)


def sums(
    figures: Mapping[str, Figure], reports: Iterable[Mapping[str, object]]
) -> dict[str, float]:
    """Return the figures that add up, each summed over the reports that have it."""
    totals: dict[str, float] = {}
    for report in reports:
        for name, figure in figures.items():
            value = report.get(name)
            if figure.adds_up and isinstance(value, int | float):
                totals[name] = totals.get(name, 0) + value
    return totals
