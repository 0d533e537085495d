"""The unedited model's answers, computed once and cached."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NotRequired, TypedDict, TypeVar, cast

import torch

from editbench import progress, registry
from editbench.errors import EditbenchError
from editbench.eval import probes, retention
from editbench.hub import cache_dir
from editbench.models import LanguageModel
from editbench.own_text import own_texts
from editbench.records.environment import packages
from editbench.records.reading import heading
from editbench.rows import ProbeRow, SampleRow, ScoreRow
from editbench.run import evaluators, regimes
from editbench.run.keys import SCORING, code_digest, machine, template_digest
from editbench.run.plan import Plan
from editbench.types import Case, digest

OWN_TEXT_TOKENS, OWN_TEXT_LENGTH = 512, 32
"""Tokens of the own text by which a sequence is watched, and tokens of each piece of it."""
RETENTION_BATCH = 32
"""Requests in one forward pass. The base and the edited models must share it: in bfloat16 an answer
depends on the answers computed with it."""

Row = TypeVar("Row", ProbeRow, SampleRow, ScoreRow)


class SequenceAnswers(TypedDict):
    """What a sequence is watched by."""

    own_text: list[tuple[list[int], list[int]]]
    """Ids of openings, and of what the base wrote after them."""
    own_text_nll: float
    """Nats per token."""
    target_nlls: list[float]
    """Nats per token of each case's target."""


class Answers(TypedDict):
    """The unedited model's answers to all that a run asks. JSON can hold them.

    Rows of groups of cases come with the ids of the group.
    """

    samples: dict[str, list[SampleRow]]
    """Retention task -> its rows."""
    probes: list[tuple[tuple[str, ...], list[ProbeRow]]]
    scores: list[tuple[tuple[str, ...], list[ScoreRow]]]
    chunks: list[tuple[tuple[str, ...], list[ProbeRow]]]
    sequence: NotRequired[SequenceAnswers]


class Baseline:
    """The unedited model's answers, and the ``regimes.Examiner`` of the edited models.

    The base answers once for each model, group of cases, task setting, software and machine. The
    answers are kept in the cache.
    """

    def __init__(self, plan: Plan, model: LanguageModel, weights: str):
        self.plan, self.model = plan, model
        # An upgrade or another machine changes how answers are rounded. An edited model must be
        # compared with a base that was rounded in the same way.
        same_rounding = [packages(), code_digest(), machine(model)]
        template = template_digest(model)
        self.setting: list[object] = [SCORING, weights, model.precision, template, *same_rounding]
        self.probes: list[ProbeRow] = []
        self.samples: list[SampleRow] = []
        self.scores: list[ScoreRow] = []
        self._probes_of: dict[tuple[str, ...], list[ProbeRow]] = {}
        self._chunks_of: dict[tuple[str, ...], list[ProbeRow]] = {}
        self._scores_of: dict[tuple[str, ...], list[ScoreRow]] = {}

    def ask_tasks(self) -> tuple[dict[str, list[SampleRow]], dict[str, str]]:
        """Ask the base the retention tasks.

        Some mistakes of a task show only in answers. A task that fails here has no samples at all,
        never those of a part of its documents.

        Returns:
            Task -> rows, and task -> why it cannot be asked.
        """
        samples: dict[str, list[SampleRow]] = {}
        lost: dict[str, str] = {}
        for task in self.plan.config.tasks:
            try:
                samples[task] = self._base_samples(task)
            except EditbenchError as error:
                lost[task] = str(error)
        return samples, lost

    def measure(self, samples: Mapping[str, list[SampleRow]]) -> Answers:
        """Ask the base everything, and return its answers.

        Args:
            samples: the rows of tasks that it was asked before.
        """
        # Tasks go first: one that cannot be asked should be reported before an hour of probes.
        asked = {
            task: samples[task] if task in samples else self._base_samples(task)
            for task in self.plan.config.tasks
        }
        scores = self._base_scores(self._groups(len(self.plan.cases)))
        answers: Answers = {
            "samples": asked,
            "probes": list(self._base_probes().items()),
            "scores": list(scores.items()),
            "chunks": [],
        }
        if regimes.parse(self.plan.config.regime)[0] == "sequential":
            answers["chunks"] = list(self._base_chunks().items())
            texts = own_texts(self.model, OWN_TEXT_TOKENS, self.plan.config.seed, OWN_TEXT_LENGTH)
            own_text = [pair for block in texts for pair in block]
            answers["sequence"] = {
                "own_text": own_text,
                "own_text_nll": self._nll(own_text),
                "target_nlls": self._targets(self.plan.cases),
            }
        return answers

    def take(self, answers: Answers) -> None:
        """Examine edited models against ``answers``, which ``measure`` returned, here or elsewhere.

        They may have passed through JSON.
        """
        whole = self._groups(len(self.plan.cases))
        self.samples = [row for rows in answers["samples"].values() for row in rows]
        self._probes_of = {tuple(ids): rows for ids, rows in answers["probes"]}
        self._scores_of = {tuple(ids): rows for ids, rows in answers["scores"]}
        self._chunks_of = {tuple(ids): rows for ids, rows in answers["chunks"]}
        self.probes = [row for group in whole for row in self._probes_of[ids_of(group)]]
        self.scores = [row for group in whole for row in self._scores_of[ids_of(group)]]
        if watched := answers.get("sequence"):
            self._own_text = [(prompt, text) for prompt, text in watched["own_text"]]
            self._base_nll = watched["own_text_nll"]
            nlls = zip(ids_of(self.plan.cases), watched["target_nlls"], strict=True)
            self._base_targets = dict(nlls)

    # --- regimes.Examiner ------------------------------------------------------------------------

    @property
    def evaluates(self) -> bool:
        """Whether the run has evaluator plug-ins."""
        return bool(self.plan.evaluators)

    def ask(self, cases: Sequence[Case], moved: bool) -> list[ProbeRow]:
        """Return the probe rows of ``cases`` by the model as it is now.

        ``cases`` is one of the groups of ``regimes.asked_together``, at a point of the curve or at
        the end. Where nothing has ``moved``, the rows are the base's own.
        """
        base = self._probes_of[ids_of(cases)]
        return probes.ask(self.model, cases, base, self.plan.cases) if moved else base

    def ask_chunk(self, cases: Sequence[Case], moved: bool) -> list[ProbeRow]:
        """Return the rows of the probes of ``regimes.TWICE`` by the model as it is now.

        ``cases`` is one of ``regimes.chunks``, but not the last. Where nothing has ``moved``, the
        rows are the base's own.
        """
        base = self._chunks_of[ids_of(cases)]
        return probes.ask_axes(self.model, cases, regimes.TWICE, base) if moved else base

    def retain(self, moved: bool) -> list[SampleRow]:
        """Return the rows of the retention tasks by the model as it is now.

        Where nothing has ``moved``, the rows are the base's own. So are the rows of a task whose
        prompts stay the same, if the edit is only a context in front of prompts.
        """
        if not moved:
            return self.samples
        if self.model.live or any(edit.context is None for edit in self.model.applied):
            return self._ask_tasks(self.plan.config.tasks)
        # The weights are the base's, so documents whose prompts are unchanged have its answers.
        changed = self._ask_tasks(self.plan.config.tasks, changed_only=True)
        asked = {_document(row): row for row in changed}
        return [asked.get(_document(row), row) for row in self.samples]

    def score(self, cases: Sequence[Case], moved: bool) -> list[ScoreRow]:
        """Return the evaluators' scores of ``cases``, one of the groups of the last point.

        Where nothing has ``moved``, they are the base's own.

        Raises:
            PluginError: an evaluator does not give each case one score from 0 to 1, or NaN.
        """
        if not moved:
            return self._scores_of[ids_of(cases)]
        return [
            row
            for name, evaluator in self.plan.evaluators.items()
            for row in evaluators.score(name, evaluator, self.model, cases)
        ]

    def own_text_nll(self) -> tuple[float, float]:
        """Return the mean nats per token of the base's own text, under the model and the base."""
        return self._nll(self._own_text), self._base_nll

    def target_nlls(self, cases: Sequence[Case]) -> tuple[list[float], list[float]]:
        """Return the mean nats per token of each case's target, under the model and the base."""
        return self._targets(cases), [self._base_targets[case] for case in ids_of(cases)]

    # --- what the base is asked ------------------------------------------------------------------

    def _targets(self, cases: Sequence[Case]) -> list[float]:
        pairs = [
            self.model.pair_ids(case.fact.prompt, case.fact.target, case.fact.form)
            for case in cases
        ]
        return [-logp.mean().item() for logp, _ in self.model.target_scores(pairs)]

    def _nll(self, texts: Sequence[tuple[list[int], list[int]]]) -> float:
        logps = [logp for logp, _ in self.model.target_scores(texts)]
        return -torch.cat(logps).double().mean().item()

    def _groups(self, count: int) -> list[Sequence[Case]]:
        """Return the first ``count`` cases in the groups in which they are asked."""
        return regimes.asked_together(self.plan.config.regime, self.plan.cases[:count])

    def _base_probes(self) -> dict[tuple[str, ...], list[ProbeRow]]:
        """Return the rows of every group that a model will be asked in, by the ids of its cases."""
        cases = self.plan.cases
        counts = sorted({*self.plan.config.curve, len(cases)})
        groups = [group for count in counts for group in self._groups(count)]
        rows: dict[tuple[str, ...], list[ProbeRow]] = {}
        title = "the base, asked as the edited models will be"
        with progress.task(title, len(groups), "groups") as bar:
            for group in groups:
                key = ["probes", *self.setting, self.plan.slice_hash, list(ids_of(group))]
                ask = partial(probes.ask, self.model, group, None, cases)
                rows[ids_of(group)] = _cached(key, ask)
                bar.advance()
        return rows

    def _base_chunks(self) -> dict[tuple[str, ...], list[ProbeRow]]:
        """Return the rows of every chunk but the last, by the ids of its cases."""
        # The last chunk's facts are asked with all others, at the end.
        groups = regimes.chunks(self.plan.config.regime, self.plan.cases)[:-1]
        rows: dict[tuple[str, ...], list[ProbeRow]] = {}
        with progress.task("the base, asked chunk by chunk", len(groups), "chunks") as bar:
            for group in groups:
                key = ["chunk", *self.setting, self.plan.slice_hash, list(ids_of(group))]
                ask = partial(probes.ask_axes, self.model, group, regimes.TWICE)
                rows[ids_of(group)] = _cached(key, ask)
                bar.advance()
        return rows

    def _base_scores(
        self, groups: Sequence[Sequence[Case]]
    ) -> dict[tuple[str, ...], list[ScoreRow]]:
        """Return the evaluators' scores of each group, by the ids of its cases."""
        rows: dict[tuple[str, ...], list[ScoreRow]] = {ids_of(group): [] for group in groups}
        for name, evaluator in self.plan.evaluators.items():
            # ``code_digest`` does not cover a plug-in's code, so its version takes that part.
            plugin = [name, registry.check("evaluators", name), evaluator.version]
            with progress.task(f"the base, scored by {name}", len(groups), "groups") as bar:
                for group in groups:
                    ids = ids_of(group)
                    key = ["scores", *self.setting, self.plan.slice_hash, list(ids), *plugin]
                    score = partial(evaluators.score, name, evaluator, self.model, group)
                    rows[ids] += _cached(key, score)
                    bar.advance()
        return rows

    def _base_samples(self, task: str) -> list[SampleRow]:
        config, data = self.plan.config, self.plan.task_digests[task]
        key = ["retention", *self.setting, task, data, config.limit, config.seed]
        return _cached(key, partial(self._ask_tasks, [task]))

    def _ask_tasks(self, tasks: Sequence[str], changed_only: bool = False) -> list[SampleRow]:
        """Ask the model, as it is now, the documents of retention tasks.

        ``changed_only`` leaves out tasks whose prompts the model's context does not change.
        """
        if not tasks:
            return []
        config = self.plan.config
        with _Bars() as bars, self.model.compute(weights_fixed=True):
            samples = retention.evaluate(
                self.model.model,
                self.model.tokenizer,
                tasks,
                limit=config.limit,
                seed=config.seed,
                batch_size=RETENTION_BATCH,
                context=self._paragraph if self.model.context_for is not None else None,
                progress=bars.advance,
                task_data={name: Path(path) for name, path in config.task_data.items()},
                changed_only=changed_only,
                live=self.model.live,
                batches=self.model.batches,
                answering=self.model,
            )
        return [_sample_row(task, sample) for task in samples for sample in samples[task]]

    def _paragraph(self, prompt: str) -> str | None:
        """Return the context of a prompt as a paragraph in front of it."""
        context = self.model.context_for
        note = context(prompt) if context is not None else None
        return f"{note}\n\n" if note else None


class _Bars:
    """A context manager that shows one progress bar after the other, one per retention task."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._task: tuple[str, int] | None = None

    def advance(self, task: str, done: int, total: int) -> None:
        """Show that ``done`` of the ``total`` requests of ``task`` are answered."""
        if self._task != (task, total):
            self._stack.close()
            bar = progress.task(f"retention: {heading(task)}", total, "requests")
            self._bar, self._task = self._stack.enter_context(bar), (task, total)
        self._bar.advance()
        if done == total:
            self._stack.close()
            self._task = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def ids_of(cases: Sequence[Case]) -> tuple[str, ...]:
    """Return the ids of the cases' facts."""
    return tuple(case.fact.id for case in cases)


def _document(row: SampleRow) -> tuple[str, str, int]:
    return row["task"], row["member"], row["doc_id"]


def _sample_row(task: str, sample: retention.Sample) -> SampleRow:
    return cast("SampleRow", {**asdict(sample), "task": task, "member": sample.task})


def _cached(key: Sequence[object], compute: Callable[[], list[Row]]) -> list[Row]:
    """Return the rows that ``compute`` gives, from the cache if they were computed before.

    An entry that is damaged, edited, or of another key is computed again.
    """
    # The name holds only a part of the key's hash, so the entry repeats the whole key.
    path = cache_dir() / "base" / f"{digest(list(key))[:24]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        entry: Mapping[str, object] = json.loads(path.read_bytes())
        if entry["key"] == list(key) and entry["sha256"] == digest(entry["rows"]):
            return cast("list[Row]", entry["rows"])
    # Rows pass through JSON here too, so that the first run equals those that read the cache (NaN
    # stays NaN).
    rows: list[Row] = json.loads(json.dumps(compute()))
    with suppress(OSError):  # a read-only or full cache costs time, but no results
        path.parent.mkdir(parents=True, exist_ok=True)
        # Renamed as a whole: another process may read or write the same entry.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        text = json.dumps({"key": key, "sha256": digest(rows), "rows": rows})
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    return rows
