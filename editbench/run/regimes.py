"""Regimes: how the facts of a cell reach the model, and when they are asked back.

| ``--regime`` | the facts are injected | asked |
|---|---|---|
| ``batch`` | all at once | after that |
| ``sequential:CHUNK`` | in chunks, each into the model as the earlier ones left it | all of them after the last chunk |
| ``single`` | each alone into a fresh model | its own probes there; no retention tasks: there is no one edited model |

``--curve N,N`` adds points: the model is also asked after the first N facts (batch: in an injection of their own).

A sequence is watched after each chunk. Where the model has collapsed, the chunk is taken back and the sequence ends there: its
own text has become ``COLLAPSE_PERPLEXITY`` times as perplexing as to the base, a changed weight ``COLLAPSE_GROWTH`` times as
large, the targets of the last ``WATCHED`` facts taught ``COLLAPSE_TARGETS`` times as perplexing as to the base, which has been
taught none, those of the ``WATCHED`` before the chunk ``COLLAPSE_FORGETTING`` times as perplexing as they were before it, or a
number is no longer finite. Facts that were never injected are asked all the same: every method answers for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

import torch

from editbench import progress
from editbench.errors import OptionError
from editbench.plugin import Method
from editbench.retrieval import Retriever
from editbench.types import Case

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from editbench.edit import Edit
    from editbench.models import LanguageModel

Rows = list[dict[str, Any]]
COLLAPSE_PERPLEXITY = 10.0
COLLAPSE_GROWTH = 10.0
COLLAPSE_TARGETS = 2.0
"""A method that teaches nothing leaves them as they are, 1; beyond this margin, for what it does to unrelated texts, they are
less probable than if nobody had taught them."""
COLLAPSE_FORGETTING = 10.0
WATCHED = 50
"""Facts whose targets are watched: all would cost a sequence of n facts n^2."""
VERSION = 2
"""Of what a sequence is watched for; a change that can move where one ends raises it, and its cells are computed anew. 2: what
a chunk makes forgotten."""


class Examiner(Protocol):
    """What a regime has the model asked by."""

    def ask(self, cases: Sequence[Case], moved: bool) -> Rows: ...

    def retain(self, moved: bool) -> Rows: ...

    def own_text_nll(self) -> tuple[float, float]:
        """Mean negative log-likelihood (nats a token) of the base's own text: under the model as it is, under the base."""
        ...

    def target_nlls(self, cases: Sequence[Case]) -> tuple[list[float], list[float]]:
        """So of the target of each of ``cases``, the mean over its tokens."""
        ...


@dataclass
class Point:
    """The model after ``facts`` facts."""

    facts: int
    probes: Rows
    samples: Rows


@dataclass
class Outcome:
    """What a regime leaves behind. The last point has all facts asked, also those that a stopped sequence never injected."""

    edit: Edit
    """All that was done, as one edit of the base; under ``single`` without changes."""
    moved: bool
    points: list[Point]
    trajectory: list[dict[str, Any]] = field(default_factory=list)
    """``sequential``: the model's vital signs after each chunk."""
    stopped: str = ""
    """Why a sequence ended early."""


def parse(regime: str) -> tuple[str, int]:
    """Name and chunk (0 where there is none) of what ``--regime`` says.

    Raises:
        OptionError: neither of the three.
    """
    name, colon, chunk = regime.partition(":")
    if regime in ("batch", "single"):
        return regime, 0
    if name == "sequential" and chunk.isdecimal() and int(chunk) > 0:
        return name, int(chunk)
    missing = (
        " How many facts at a time? Write sequential:10."
        if name == "sequential" and not chunk
        else ""
    )
    raise OptionError(f"Regime {regime!r} is not one of batch, single, sequential:CHUNK.{missing}")


def check_curve(regime: str, curve: Sequence[int], n: int) -> None:
    """Makes sure that the model can be asked after each of ``curve`` facts.

    Raises:
        OptionError: it cannot.
    """
    name, chunk = parse(regime)
    for count in curve:
        if not 1 <= count <= n:
            raise OptionError(f"--curve {count}: a point lies between 1 and -n {n}.")
        if name == "single":
            raise OptionError(
                "--curve does not go with --regime single: there each fact has a model of its own."
            )
        if name == "sequential" and count % chunk and count != n:
            raise OptionError(
                f"--curve {count} is no multiple of the chunk: under {regime} there is no such moment."
            )


def inject(
    regime: str,
    curve: Sequence[int],
    method: Method,
    model: LanguageModel,
    cases: Sequence[Case],
    examiner: Examiner,
    phase: Callable[[str], AbstractContextManager[None]],
) -> Outcome:
    """Injects the facts of ``cases`` and asks them back; ``model`` is left as it was. ``phase`` takes the time."""
    name, chunk = parse(regime)
    if name == "batch":
        return _batch(curve, method, model, cases, examiner, phase)
    if name == "single":
        return _single(method, model, cases, examiner, phase)
    return _sequential(chunk, curve, method, model, cases, examiner, phase)


def asked_together(regime: str, cases: Sequence[Case]) -> list[Sequence[Case]]:
    """``cases`` in the groups that a model is asked in: all at once, under ``single`` each alone.

    In bfloat16 an answer depends on those computed beside it, so an edited model is compared with a base asked in the same.
    """
    return [[case] for case in cases] if parse(regime)[0] == "single" else [cases]


def _moves(edit: Edit) -> bool:
    return bool(edit.changes) or edit.context is not None


def _together(diagnostics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is told of several injections as one: each warning once, and the tokens that they trained on."""
    warnings = dict.fromkeys(
        warning for found in diagnostics for warning in found.get("warnings", ())
    )
    trained = [found["trained_tokens"] for found in diagnostics if "trained_tokens" in found]
    return {"warnings": list(warnings), **({"trained_tokens": sum(trained)} if trained else {})}


def _batch(curve, method, model, cases, examiner, phase) -> Outcome:
    points = []
    for count in sorted({*curve} - {len(cases)}) + [len(cases)]:
        some = cases[:count]
        with phase("inject" if count == len(cases) else "inject for the curve"):
            edit = method.inject(model, [case.fact for case in some])
        with edit.applied(model):
            with phase("probes"):
                probes = examiner.ask(some, _moves(edit))
            with phase("retention"):
                points.append(Point(count, probes, examiner.retain(_moves(edit))))
    return Outcome(edit, _moves(edit), points)


def _single(method, model, cases, examiner, phase) -> Outcome:
    probes, norms, found, records, moved = [], [], [], [], False
    with progress.task("facts, one at a time", len(cases), "facts") as bar:
        for case in cases:
            with phase("inject"):
                edit = method.inject(model, [case.fact])
            with edit.applied(model), phase("probes"):
                probes += examiner.ask([case], _moves(edit))
            moved = moved or _moves(edit)
            norms.append(edit.summary(model)["delta_norm"] if edit.changes else 0.0)
            found.append(edit.diagnostics)
            records += edit.records
            bar.advance()
    told = {"edits": len(cases), "mean_delta_norm": sum(norms) / len(norms), **_together(found)}
    whole = method.edit(model, [case.fact for case in cases], diagnostics=told, records=records)
    return Outcome(whole, moved, [Point(len(cases), probes, [])])


def _sequential(chunk, curve, method, model, cases, examiner, phase) -> Outcome:
    points, trajectory, stopped = [], [], ""
    taught: dict[str, float] = {}
    with Chain(model) as chain:
        with progress.task(f"facts, {chunk} at a time", len(cases), "facts") as bar:
            for start in range(0, len(cases), chunk):
                some, count = cases[start : start + chunk], min(start + chunk, len(cases))
                with phase("inject"):
                    chain.add(method.inject(model, [case.fact for case in some]))
                with phase("watch"):
                    signs, taught = _vital_signs(chain, cases[:count], examiner, taught)
                trajectory.append({"facts": count, **signs})
                if stopped := _collapsed(signs):
                    chain.take_back()
                    break
                if count in curve and count < len(cases):
                    with phase("probes"):
                        probes = examiner.ask(cases[:count], chain.moved)
                    with phase("retention"):
                        points.append(Point(count, probes, examiner.retain(chain.moved)))
                bar.advance(len(some))
        with phase("probes"):
            probes = examiner.ask(cases, chain.moved)
        with phase("retention"):
            points.append(
                Point(
                    sum(len(edit.facts) for edit in chain.edits),
                    probes,
                    examiner.retain(chain.moved),
                )
            )
        return Outcome(chain.as_one(method), chain.moved, points, trajectory, stopped)


def _vital_signs(
    chain: Chain, taught: Sequence[Case], examiner: Examiner, earlier: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """The signs, and the nll of the target of each fact that is watched, by its id; ``earlier``: those of the chunk before."""
    now, base = examiner.own_text_nll()
    valid = {
        (case.fact.form, case.fact.prompt): case for case in taught
    }  # of facts that succeed each other the last
    cases = {case.fact.id: case for case in valid.values()}
    last, held = list(cases)[-WATCHED:], [name for name in cases if name in earlier]
    asked = list(dict.fromkeys([*held, *last]))
    nll_now, nll_base = (
        dict(zip(asked, nlls, strict=True))
        for nlls in examiner.target_nlls([cases[name] for name in asked])
    )
    targets_now = fmean(nll_now[name] for name in last)
    signs = {
        "perplexity_ratio": _ratio(now, base),
        "norm_growth": chain.growth(),
        "target_nll": targets_now,
        "target_ratio": _ratio(targets_now, fmean(nll_base[name] for name in last)),
        "forgetting_ratio": _ratio(fmean(nll_now[name] - earlier[name] for name in held), 0.0)
        if held
        else 1.0,
    }
    return signs, {name: nll_now[name] for name in last}


def _ratio(now: float, base: float) -> float:
    """Of the perplexities."""
    return math.exp(min(now - base, 700.0))


def _collapsed(signs: dict[str, float]) -> str:
    """What has gone wrong, in words; empty where nothing has."""
    forgotten = "the targets taught before the last chunk are {:.3g} times as perplexing as they were before it"
    for name, limit, words in (
        (
            "perplexity_ratio",
            COLLAPSE_PERPLEXITY,
            "the model's own text is {:.3g} times as perplexing to it as to the base",
        ),
        ("norm_growth", COLLAPSE_GROWTH, "a weight is {:.3g} times as large as in the base"),
        (
            "target_ratio",
            COLLAPSE_TARGETS,
            "the targets of the last facts are {:.3g} times as perplexing to it as to the base",
        ),
        ("forgetting_ratio", COLLAPSE_FORGETTING, forgotten),
    ):
        if not signs[name] < limit:
            return words.format(signs[name])
    return ""


class Chain:
    """Edits applied one on top of the other, and taken back together, bit for bit. A context manager."""

    def __init__(self, model: LanguageModel):
        self.model, self.edits, self.taken_back = model, [], []
        self._before: dict[str, Any] = {}
        self._found = model.context_for, model.applied

    @property
    def moved(self) -> bool:
        return bool(self.edits) and (bool(self._before) or self.edits[-1].context is not None)

    def add(self, edit: Edit) -> None:
        """Applies ``edit``, which was made for the model as it is now. Contexts are joined."""
        for name in edit.changes:
            if name not in self._before:
                self._before[name] = self.model.weight(name).detach().clone()
        if edit.context is not None:
            edit = replace(
                edit, context=Retriever([fact for one in (*self.edits, edit) for fact in one.facts])
            )
        self._undo = edit.apply(self.model)
        # Later methods read hashes and keys of earlier edits; the changes of many would fill the memory.
        slim = replace(edit, changes={})
        self.model.applied = (*self.model.applied[:-1], slim)
        self.edits.append(slim)

    def take_back(self) -> None:
        """Takes back the last edit."""
        self._undo()
        self.taken_back.append(self.edits.pop())

    def growth(self) -> float:
        """The largest ||W|| / ||W of the base|| of a changed weight; one that begins as zeros (biases) has no such ratio."""
        norms = [
            (self.model.weight(name).norm(), before.norm()) for name, before in self._before.items()
        ]
        ratios = [(now / base).item() for now, base in norms if base > 0]
        return (
            torch.tensor(ratios or [1.0]).max().item()
        )  # NaN where one is, unlike the built-in max

    def as_one(self, method: Method) -> Edit:
        """The edit of the base that does the same."""
        edits = self.edits
        told = {"chunks": len(edits), **_together([edit.diagnostics for edit in edits])}
        ended_by = _together([edit.diagnostics for edit in self.taken_back])["warnings"]
        told["warnings"] += [f"Of the chunk taken back: {line}" for line in ended_by]
        changes = {
            name: (self.model.weight(name).detach() - before).cpu()
            for name, before in self._before.items()
        }
        whole = method.edit(
            self.model, [fact for edit in edits for fact in edit.facts], changes, diagnostics=told
        )
        return replace(
            whole,
            model_hash=edits[0].model_hash if edits else whole.model_hash,
            context=edits[-1].context if edits else None,
            records=[
                {"chunk": i, **record} for i, edit in enumerate(edits) for record in edit.records
            ],
        )

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for name, before in self._before.items():
                self.model.weight(name).copy_(before)
        self.model.context_for, self.model.applied = self._found
