"""Regimes: how the facts of a cell reach the model, and when the model is asked about them.

``batch``
    All facts are injected at once, then the model is asked.
``sequential:CHUNK``
    Facts are injected in chunks, each into the model that the earlier chunks left. The model is
    asked about all facts after the last chunk; these answers give the scores of the cell. Right
    after each chunk it is asked about the facts of that chunk (the probes of ``TWICE``), so that
    the difference shows what later chunks made it forget.
``single``
    Each fact is injected alone into a fresh model, which is asked about that fact. Retention tasks
    cannot run, since there is no one edited model.

``--curve N,N`` adds points: the model is also asked after the first N facts. Under ``batch``, those
N facts are injected on their own for this purpose.

A sequence is watched after each chunk (``editbench.run.collapse``). It ends when the model has
collapsed, and the last chunk is then taken back. The model is then asked about the facts that were
never injected as well, so that every method is scored on all facts. Those facts, and the facts of
the chunk that was taken back, have no answers right after a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from editbench import progress
from editbench.errors import MethodError, NoTokenError, OptionError
from editbench.live import NOT_MEASURED
from editbench.options import shortened
from editbench.plugin import Method
from editbench.records.schema import VitalSigns
from editbench.report import EditRecord, sums, warnings_of
from editbench.rows import ProbeRow, SampleRow, ScoreRow
from editbench.run.chain import Chain
from editbench.run.collapse import Watcher, collapsed, vital_signs
from editbench.slices import replaced
from editbench.types import Case, Fact

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel

TWICE = ("rewrite", "paraphrase", "neighborhood")
"""Axes of the probes that are also asked right after a chunk: those of the metrics in the score.
Probes of other axes may need facts of later chunks."""
ASKED_TWICE = 4
"""The first ``VERSION`` in which facts are asked right after their chunk."""
VERSION = 4
"""Version of the rules by which a sequence is stopped (``collapse``) and asked. Raise it with every
change that can move the end of a sequence or that adds answers to its cell: stored cells are then
computed again. Version 2 has the rule on forgetting. In version 3 a fact that replaces another is
watched as long as the facts taught with it. Version 4 asks twice, and moves no other number."""

Phase = Callable[[str], AbstractContextManager[None]]
"""``phase(name)`` times what happens inside the ``with``, and adds it to the phase ``name``."""


class Examiner(Watcher, Protocol):
    """Asks the model on behalf of a regime.

    ``moved`` says whether the model differs from the base.
    """

    @property
    def evaluates(self) -> bool:
        """Whether the run has evaluator plug-ins."""
        ...

    def ask(self, cases: Sequence[Case], moved: bool) -> list[ProbeRow]:
        """Return the probe rows of ``cases``."""
        ...

    def ask_chunk(self, cases: Sequence[Case], moved: bool) -> list[ProbeRow]:
        """Return the rows of the probes of ``TWICE`` of ``cases``, which are one chunk."""
        ...

    def retain(self, moved: bool) -> list[SampleRow]:
        """Return the rows of the retention tasks."""
        ...

    def score(self, cases: Sequence[Case], moved: bool) -> list[ScoreRow]:
        """Return the evaluators' scores of ``cases``."""
        ...


@dataclass
class Point:
    """The model's answers after ``facts`` facts."""

    facts: int
    probes: list[ProbeRow]
    samples: list[SampleRow]
    scores: list[ScoreRow] = field(default_factory=list)
    """The evaluators' scores; only the last point has them."""


@dataclass
class Outcome:
    """The result of a regime.

    At the last point all facts are asked, including those that a stopped sequence never injected.
    """

    edit: Edit
    """All injections as one edit of the base. Under ``single`` it has no changes, since no model
    has had all facts."""
    moved: bool
    """Whether any injection changed the model."""
    points: list[Point]
    trajectory: list[VitalSigns] = field(default_factory=list)
    """``sequential``: the model's vital signs after each chunk."""
    stopped: str = ""
    """Why a sequence ended early; empty if it did not."""
    right_after: list[ProbeRow] | None = None
    """``sequential``: the answers about each fact right after its chunk, with the columns ``facts``
    and ``replaced``. Facts that were not injected have none."""


def parse(regime: str) -> tuple[str, int]:
    """Return the name and the chunk size of a regime in the form of ``--regime``.

    The size is 0 for a regime without chunks.

    Raises:
        OptionError: ``regime`` is none of the three.
    """
    name, colon, chunk = regime.partition(":")
    if regime in ("batch", "single"):
        return regime, 0
    if name == "sequential" and chunk.isdecimal() and len(chunk) < 19 and int(chunk) > 0:
        return name, int(chunk)
    missing = (
        " How many facts at a time? Write sequential:10."
        if name == "sequential" and not chunk
        else ""
    )
    raise OptionError(
        f"Regime {shortened(regime)!r} is not one of batch, single, sequential:CHUNK.{missing}"
    )


def check_curve(regime: str, curve: Sequence[int], n: int | None) -> None:
    """Check that the model can be asked after each number of facts in ``curve``.

    Args:
        n: the number of facts, if it is known by now.

    Raises:
        OptionError: a number is out of range or falls inside a chunk, the regime is ``single``, or
            there is no such regime.
    """
    name, chunk = parse(regime)
    for count in curve:
        if count < 1 or (n is not None and count > n):
            most = "the number of facts" if n is None else f"-n {n}"
            raise OptionError(f"--curve {count}: a point lies between 1 and {most}.")
        if name == "single":
            raise OptionError(
                "--curve does not go with --regime single: a fresh model is edited for each fact. "
                "Use --regime batch or sequential:CHUNK."
            )
        # The last chunk may be smaller, so n is a point in any case.
        if name == "sequential" and count % chunk and n not in (None, count):
            raise OptionError(
                f"--curve {count} is no multiple of the chunk, so --regime {regime} never has "
                f"{count} facts injected. Use multiples of {chunk}."
            )


def asked_together(regime: str, cases: Sequence[Case]) -> list[Sequence[Case]]:
    """Return ``cases`` in the groups in which a model is asked: all at once, or each alone.

    In bfloat16 an answer depends on the other answers in its batch. An edited model is therefore
    compared with a base that was asked in the same groups.
    """
    return [[case] for case in cases] if parse(regime)[0] == "single" else [cases]


def chunks(regime: str, cases: Sequence[Case]) -> list[Sequence[Case]]:
    """Return ``cases`` in the chunks of a sequence; none under another regime."""
    size = parse(regime)[1]
    return [cases[i : i + size] for i in range(0, len(cases), size)] if size else []


@dataclass(frozen=True)
class _Job:
    """One method's facts on one model."""

    method: Method
    model: LanguageModel
    cases: Sequence[Case]
    examiner: Examiner
    phase: Phase

    def inject(self, cases: Sequence[Case], phase: str = "inject") -> Edit:
        with self.phase(phase):
            return self.method.inject(self.model, [case.fact for case in cases])

    def inject_part(self, cases: Sequence[Case]) -> Edit:
        """Inject some of the facts; those that the tokenizer leaves nothing of are left out."""
        try:
            return self.inject(cases)
        except NoTokenError as reason:
            return self.method.edit(self.model, [], diagnostics={"warnings": [str(reason)]})

    def point(self, cases: Sequence[Case], facts: int, moved: bool, last: bool) -> Point:
        """Ask the model, which has had ``facts`` facts, about ``cases``."""
        with self.phase("probes"):
            probes = self.examiner.ask(cases, moved)
        with self.phase("retention"):
            samples = self.examiner.retain(moved)
        return Point(facts, probes, samples, self.scores(cases, moved) if last else [])

    def right_after(self, cases: Sequence[Case], facts: int, moved: bool) -> list[ProbeRow]:
        """Ask the model, which has had ``facts`` facts, about ``cases``, the last of them."""
        with self.phase("right after"):
            return [{**row, "facts": facts} for row in self.examiner.ask_chunk(cases, moved)]

    def scores(self, cases: Sequence[Case], moved: bool) -> list[ScoreRow]:
        if not self.examiner.evaluates:
            return []
        with self.phase("evaluators"):
            return self.examiner.score(cases, moved)


def inject(
    regime: str,
    curve: Sequence[int],
    method: Method,
    model: LanguageModel,
    cases: Sequence[Case],
    examiner: Examiner,
    phase: Phase,
) -> Outcome:
    """Inject the facts of ``cases`` and ask the model about them. ``model`` is left as it was."""
    job = _Job(method, model, cases, examiner, phase)
    name, chunk = parse(regime)
    if name == "batch":
        return _batch(job, curve)
    if name == "single":
        return _single(job)
    return _sequential(job, curve, chunk)


def _check(edit: Edit) -> None:
    """Check that an edit can be applied. One chunk of a sequence may not: that is a collapse.

    Raises:
        MethodError: a change is infinite or NaN, or has no tensor of numbers that could be saved.
    """
    from editbench.changes import flaw_of  # imports torch

    # Answers of such a model would be scored like any others.
    if flaw := flaw_of(edit.changes, edit.keys, edit.values, edit.sums):
        raise MethodError(f"The edit of {edit.method} cannot be applied: {flaw}.")


def _batch(job: _Job, curve: Sequence[int]) -> Outcome:
    points, total = [], len(job.cases)
    # A batch edit depends on all of its facts, so each point needs an edit of its own. The last
    # count is ``total``, so ``edit`` is afterwards that of all facts.
    for count in sorted({*curve, total}):
        cases = job.cases[:count]
        edit = job.inject(cases, "inject" if count == total else "inject for the curve")
        _check(edit)
        with edit.applied(job.model):
            points.append(job.point(cases, count, edit.moves, last=count == total))
    return Outcome(edit, edit.moves, points)


def _single(job: _Job) -> Outcome:
    last, norms, moved = Point(len(job.cases), [], []), [], False
    reports: list[Mapping[str, object]] = []
    facts: list[Fact] = []
    records: list[EditRecord] = []
    weights = job.model.fingerprint()
    edits = job.method.inject_each(job.model, [case.fact for case in job.cases])
    with progress.task("facts, one at a time", len(job.cases), "facts") as bar:
        for case in job.cases:
            with job.phase("inject"):
                edit = next(edits)
            _check(edit)
            # The weights are hashed once, not for each fact.
            with edit.applied(job.model, check=edit.model_hash != weights):
                with job.phase("probes"):
                    last.probes += job.examiner.ask([case], edit.moves)
                last.scores += job.scores([case], edit.moves)
            moved = moved or edit.moves
            norms.append(edit.summary(job.model).get("delta_norm"))
            reports.append(edit.diagnostics)
            facts += edit.facts
            records += edit.records
            bar.advance()
            del edit  # the process of a live one ends before the next one begins
    report = {
        "edits": len(job.cases),
        **_mean_norm(norms),
        "warnings": warnings_of(reports),
        **sums(job.method.figures, reports),
    }
    whole = job.method.edit(job.model, facts, diagnostics=report, records=records)
    return Outcome(whole, moved, [last])


def _mean_norm(norms: Sequence[float | None]) -> dict[str, object]:
    """Return the mean norm as a field of the report; where edits are live, why there is none."""
    known = [norm for norm in norms if norm is not None]
    if len(known) < len(norms):
        return {"live": NOT_MEASURED}
    return {"mean_delta_norm": sum(known) / len(known)}


def _sequential(job: _Job, curve: Sequence[int], chunk: int) -> Outcome:
    cases, stopped = job.cases, ""
    points: list[Point] = []
    right_after: list[ProbeRow] = []
    trajectory: list[VitalSigns] = []
    taught: dict[str, float] = {}
    with Chain(job.model) as chain:
        with progress.task(f"facts, {chunk} at a time", len(cases), "facts") as bar:
            for start in range(0, len(cases), chunk):
                count = min(start + chunk, len(cases))
                edit = job.inject_part(cases[start:count])
                with job.phase("inject"):
                    chain.add(edit)
                with job.phase("watch"):
                    signs, taught = vital_signs(chain.growth(), cases[:count], job.examiner, taught)
                trajectory.append(signs)
                if stopped := collapsed(signs):
                    chain.take_back()
                    break
                # The last point is asked below, whether or not the model has collapsed. It also has
                # the answers right after the last chunk.
                if count < len(cases):
                    right_after += job.right_after(cases[start:count], count, chain.moved)
                    if count in curve:
                        points.append(job.point(cases[:count], count, chain.moved, last=False))
                bar.advance(count - start)
        # Without the facts of a chunk that was taken back. Those that a method left out count: the
        # number is a place in ``cases``.
        injected = min(chunk * len(chain.edits), len(cases))
        points.append(job.point(cases, injected, chain.moved, last=True))
        if not stopped:
            right_after += _of_last_chunk(points[-1], cases[start:])
        gone = replaced(cases[:injected])
        asked: list[ProbeRow] = [{**row, "replaced": row["case"] in gone} for row in right_after]
        return Outcome(chain.as_one(job.method), chain.moved, points, trajectory, stopped, asked)


def _of_last_chunk(point: Point, cases: Sequence[Case]) -> list[ProbeRow]:
    """Return the rows of ``point`` that ``right_after`` would have asked of its last chunk."""
    ids = {case.fact.id for case in cases}
    return [
        {**row, "facts": point.facts}
        for row in point.probes
        if row["case"] in ids and row["axis"] in TWICE
    ]
