"""The unedited model's answers, computed once and cached."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from editbench import progress
from editbench.eval import probes, retention
from editbench.hub import cache_dir
from editbench.models import LanguageModel
from editbench.own_text import own_texts
from editbench.records.environment import environment
from editbench.records.reading import heading
from editbench.run import regimes
from editbench.run.keys import SCORING, code_digest, machine, template_digest
from editbench.run.plan import Plan
from editbench.run.scores import Rows
from editbench.types import Case, digest

OWN_TEXT_TOKENS, OWN_TEXT_LENGTH = 512, 32


class Baseline:
    """The unedited model's answers: computed once for each model, group of cases, task setting, software and machine, and kept
    in the cache."""

    def __init__(self, plan: Plan, model: LanguageModel, weights: str):
        self.plan, self.model = plan, model
        # An upgrade or another machine moves answers by rounding: base and edited rows shall come from the same.
        made = [environment()["packages"], code_digest(), machine(model)]
        self.setting = [SCORING, weights, model.precision, template_digest(model), *made]
        self.measured = False
        """Whether the base has its scores, so that an error after that is the method's."""

    def measure(self) -> tuple[Rows, Rows]:
        """The rows of the probes and of the retention tasks."""
        if not self.measured:
            self.model.check_head()  # two passes that would be counted as the work of whoever comes first
            self._retention = (
                self._base_retention()
            )  # first: a task that cannot be asked is told before an hour of probes
            self._probes = self._base_probes()
            self._whole = [
                row
                for group in self._groups(len(self.plan.cases))
                for row in self._probes[ids_of(group)]
            ]
            if regimes.parse(self.plan.config.regime)[0] == "sequential":
                texts = own_texts(
                    self.model, OWN_TEXT_TOKENS, self.plan.config.seed, OWN_TEXT_LENGTH
                )
                self._own_text = [pair for block in texts for pair in block]
                self._base_nll = self._nll()
                self._base_targets = dict(
                    zip(ids_of(self.plan.cases), self._targets(self.plan.cases), strict=True)
                )
            self.measured = True
        return self._whole, self._retention

    def ask(self, cases: Sequence[Case], moved: bool) -> Rows:
        """The rows of the probes of ``cases``, of the model as it is: the base's own where nothing has ``moved``.

        ``cases`` are one of the groups of ``regimes.asked_together``, at a point of the curve or at the end.
        """
        base = self._probes[ids_of(cases)]
        return probes.ask(self.model, cases, base, self.plan.cases) if moved else base

    def retain(self, moved: bool) -> Rows:
        """The rows of the retention tasks, as ``ask``; the base's own, too, for tasks that only a context could change and
        does not."""
        if not moved:
            return self._retention
        if any(edit.context is None for edit in self.model.applied):
            return self._samples(self.plan.config.tasks)
        place = itemgetter("task", "member", "doc_id")
        asked = {
            place(row): row for row in self._samples(self.plan.config.tasks, changed_only=True)
        }
        return [asked.get(place(row), row) for row in self._retention]

    def own_text_nll(self) -> tuple[float, float]:
        """Mean negative log-likelihood (nats a token) of the base's own text: under the model as it is, under the base."""
        return self._nll(), self._base_nll

    def target_nlls(self, cases: Sequence[Case]) -> tuple[list[float], list[float]]:
        """So of the target of each of ``cases``, the mean over its tokens."""
        return self._targets(cases), [self._base_targets[one] for one in ids_of(cases)]

    def _targets(self, cases: Sequence[Case]) -> list[float]:
        pairs = [
            self.model.pair_ids(case.fact.prompt, case.fact.target, case.fact.form)
            for case in cases
        ]
        return [-logp.mean().item() for logp, _ in self.model.target_scores(pairs)]

    def _nll(self) -> float:
        return (
            -torch.cat([logp for logp, _ in self.model.target_scores(self._own_text)])
            .double()
            .mean()
            .item()
        )

    def _groups(self, count: int) -> list[Sequence[Case]]:
        """The first ``count`` cases as they are asked."""
        return regimes.asked_together(self.plan.config.regime, self.plan.cases[:count])

    def _base_probes(self) -> dict[tuple[str, ...], Rows]:
        """The rows by the ids of the group that was asked, for every group that an edited model will be asked in."""
        ask, every = probes.ask, self.plan.cases
        groups = [
            group
            for count in sorted({*self.plan.config.curve, len(every)})
            for group in self._groups(count)
        ]
        found = {}
        with progress.task(
            "the base, asked as the edited models will be", len(groups), "groups"
        ) as bar:
            for group in groups:
                found[ids_of(group)] = _cached(
                    ["probes", *self.setting, self.plan.slice_hash, list(ids_of(group))],
                    lambda group=group: ask(self.model, group, None, every),
                )
                bar.advance()
        return found

    def _base_retention(self) -> Rows:
        config = self.plan.config
        return [
            row
            for task in config.tasks
            for row in _cached(
                [
                    "retention",
                    *self.setting,
                    task,
                    self.plan.task_digests[task],
                    config.limit,
                    config.seed,
                ],
                lambda task=task: self._samples([task]),
            )
        ]

    def _samples(self, tasks: Sequence[str], changed_only: bool = False) -> list[dict[str, Any]]:
        if not tasks:
            return []
        config, context = self.plan.config, self.model.context_for
        bars, bar, shown = ExitStack(), None, None

        def advance(task: str, done: int, total: int) -> None:
            nonlocal bar, shown
            if shown != (task, total):
                bars.close()
                bar, shown = (
                    bars.enter_context(
                        progress.task(f"retention: {heading(task)}", total, "requests")
                    ),
                    (task, total),
                )
            bar.advance()
            if done == total:
                bars.close()
                shown = None

        with bars, self.model.compute(weights_fixed=True):
            found = retention.evaluate(
                self.model.model,
                self.model.tokenizer,
                tasks,
                limit=config.limit,
                seed=config.seed,
                batch_size=32,
                context=None
                if context is None
                else lambda prompt: f"{note}\n\n" if (note := context(prompt)) else None,
                progress=advance,
                task_data={name: Path(path) for name, path in config.task_data.items()},
                changed_only=changed_only,
            )
        return [
            {**asdict(sample), "task": task, "member": sample.task}
            for task, samples in found.items()
            for sample in samples
        ]


def ids_of(cases: Sequence[Case]) -> tuple[str, ...]:
    return tuple(case.fact.id for case in cases)


def _cached(key: Sequence[Any], compute: Callable[[], Rows]) -> Rows:
    """The rows that ``compute`` gives, from the cache where they were computed before. An entry that is damaged, edited or
    another key's is computed anew."""
    path = cache_dir() / "base" / f"{digest(list(key))[:24]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        entry = json.loads(path.read_bytes())
        if entry["key"] == list(key) and entry["sha256"] == digest(entry["rows"]):
            return entry["rows"]
    rows = json.loads(json.dumps(compute()))  # as it will be read back: NaN stays NaN
    with suppress(OSError):  # a read-only or full cache costs time, not results
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(
            json.dumps({"key": key, "sha256": digest(rows), "rows": rows}), encoding="utf-8"
        )
        temporary.replace(path)
    return rows
