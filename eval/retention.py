"""Retention: what is left of the model's other abilities, asked through lm-eval on the model in memory.

A pack of tasks lies in ``tasks/`` and needs no network. Every task of lm-eval works too, from the hub or from a file, and
so does a task file of your own (``standard_tasks``). One score a document, so that an edited model can be paired with its
base; a ``limit`` draws the same documents for every model.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

from editbench.errors import DataError, EditbenchError, OptionError, UnknownNameError
from editbench.eval import standard_tasks
from editbench.eval.standard_tasks import PACK
from editbench.eval.task_rows import first_line

LOGGERS = (
    "lm_eval",
    "transformers",
    "datasets",
    "huggingface_hub",
    "accelerate",
    "httpx",
    "fsspec",
    "filelock",
)
FILTERS = {"gsm8k": "flexible-extract"}
"""Where a task reads the answer in more than one way: the one that counts, if it is not the task's first."""


@dataclass(frozen=True)
class Sample:
    """One document of one task: what was asked, what came back, what it scored."""

    task: str
    """The task; for a member of a group (``mmlu``) the member."""
    doc_id: int
    """Index in the task's documents, the same for every model."""
    score: float
    """Between 0 and 1, higher is better."""
    prompt: str
    """As the model saw it: chat template and context included."""
    output: str
    """The text generated, the choice preferred, or the likelihood of the expected continuation."""
    expected: str
    metric: str
    """lm-eval's name for the score; and its filter, its number of shots or the chat template where that is not the usual."""


def task_names() -> dict[str, str]:
    """The bundled tasks: name -> one line on what each asks. Free of lm-eval."""
    first_lines = {
        path.stem: path.read_text(encoding="utf-8").split("\n", 1)[0]
        for path in sorted(PACK.glob("eb_*.yaml"))
    }
    return {name: line.lstrip("# ").rstrip(".") for name, line in first_lines.items()}


def resolve_tasks(spec: str, task_data: Mapping[str, Path] | None = None) -> list[str]:
    """The task names that ``spec`` means: ``default`` (the pack), ``none``, or names between commas; PATH.yaml is a task file.

    Raises:
        UnknownNameError: a name that neither the pack nor lm-eval has.
        DataError: a task file that is not there; a file in ``task_data`` for a task not asked for, or for one of the pack.
    """
    pack = task_names()
    names: list[str] = []
    for part in filter(None, (p.strip() for p in spec.split(","))):
        names += list(pack) if part == "default" else [] if part == "none" else [part]
    names = list(dict.fromkeys(names))
    for name in names:
        if standard_tasks.is_path(name):
            if not Path(name).is_file():
                raise DataError(f"Task file {name}: there is no such file.")
        elif (
            name not in pack
            and name not in standard_tasks.GROUPS
            and standard_tasks.find(name) is None
        ):
            # A slip in a bundled name is told at once; lm-eval's index takes ten seconds to read.
            others = (
                []
                if difflib.get_close_matches(name, pack, cutoff=0.8)
                else standard_tasks.all_names()
            )
            if name not in others:
                close = difflib.get_close_matches(name, others, n=5, cutoff=0.6)
                raise UnknownNameError(
                    "task", name, [*pack, *close], "Task names of lm-eval and PATH.yaml work, too."
                )
    for name in task_data or {}:
        if name not in names:
            raise DataError(
                f"--task-data is given for {name!r}, which is not among the tasks: {', '.join(names) or 'none'}."
            )
        if name in pack:
            raise DataError(f"--task-data is given for {name!r}, which brings its own data.")
    return names


def unloadable(names: Sequence[str], task_data: Mapping[str, Path]) -> dict[str, str]:
    """Those of ``names`` that cannot be asked, and why: data or a grader that is not there, a mistake in a task file."""
    found: dict[str, str] = {}
    with quiet() if names else nullcontext():
        for name in names:
            try:
                if standard_tasks.is_path(name):
                    standard_tasks.yaml_files(Path(name))
                data = task_data.get(name)
                if data is not None and not data.exists():
                    raise DataError(f"--task-data {name}={data}: there is no such file.")
                with standard_tasks.in_plain_words(name):
                    load(name, data)
            except EditbenchError as error:
                found[name] = str(error)
            except ImportError as error:
                found[name] = (
                    f"Task {name!r} needs a package that is not installed ({first_line(error)})."
                )
    return found


def data_digest(task: str, data: Path | None = None) -> str | None:
    """SHA-256 of the files that a task is asked from: ours, your task file's, ``data``; ``None``: from the hub."""
    yaml = standard_tasks.find(task)
    files = (
        standard_tasks.yaml_files(yaml)
        if yaml and (yaml.parent == PACK or standard_tasks.is_path(task))
        else []
    )
    if task in task_names():
        files += sorted((PACK / "data").glob(f"{task}*"))
    files += standard_tasks.data_files(task, data) if data is not None else []
    if not files:
        return None
    return hashlib.sha256(
        b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
    ).hexdigest()


def evaluate(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    context: Callable[[str], str | None] | None = None,
    changed_only: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    task_data: Mapping[str, Path] | None = None,
) -> dict[str, list[Sample]]:
    """Ask ``tasks`` and return their samples, by task in the order given, by document within a task.

    Leaves the random state, the train/eval mode, the tokenizer and the loggers as they were.

    Args:
        model: a causal LM of transformers, on its device; called under the caller's autocast if there is one.
        limit: how many documents of each task, drawn by ``seed`` (``draw``); ``None`` for all.
        batch_size: requests in one forward pass. In float32 it changes no score, but where two choices or tokens are as good as
            equally probable (log-probabilities move by less than 1e-4); in bfloat16 such near ties are more frequent.
        context: given the prompt of a document (for a chat task: the user's turn), text to put in front of it, or
            ``None``. A prompt may be empty (the choice carries the whole sentence).
        changed_only: leave out the tasks (of a group the members) none of whose prompts ``context`` changes: without it the
            same model has answered the same batches.
        progress: called as ``progress(task, requests done, requests in all)``.
        task_data: files for tasks whose data shall not come from the hub.

    Raises:
        DataError: the data of a task can neither be fetched nor read (names the dataset and ``--task-data``), or it has no
            documents; a task file that lm-eval cannot ask.
        OptionError: a task without a score between 0 and 1 for each document, or whose answers exceed the model's context.
    """
    if not tasks:
        return {}
    with quiet(), _as_found(model, tokenizer):
        lm = _wrap(model, tokenizer, batch_size, context, changed_only)
        found = {}
        for name in tasks:
            _seed(seed)
            samples: list[Sample] = []
            with standard_tasks.in_plain_words(name):
                for member, task in load(name, (task_data or {}).get(name)).items():
                    chat = name in standard_tasks.CHAT or bool(
                        (task.config.metadata or {}).get("chat")
                    )
                    lm.begin(name, chat, progress)
                    with suppress(_Unchanged):
                        samples += _ask(
                            lm, member, task, limit, seed, name, name in (task_data or {})
                        )
            found[name] = samples
        return found


def draw(task: str, n: int, limit: int | None, seed: int) -> list[int]:
    """Which of the ``n`` documents of ``task`` are asked, ascending: all, or a random ``limit`` of them.

    The same for every model, process and machine; a smaller ``limit`` draws a part of what a larger one draws.
    """
    ids = list(range(n))
    if limit is None or limit >= n:
        return ids
    random.Random(f"{task}/{seed}").shuffle(ids)
    return sorted(ids[:limit])


def load(name: str, data: Path | None) -> dict[str, Any]:
    """lm-eval's task objects of ``name`` (several for a group), their data read."""
    if name in task_names():
        from lm_eval.tasks import TaskManager

        return TaskManager(include_defaults=False).load([str(PACK / f"{name}.yaml")])["tasks"]
    return standard_tasks.from_file(name, data) if data else standard_tasks.from_hub(name)


def _ask(
    lm: Any, member: str, task: Any, limit: int | None, seed: int, name: str, local: bool
) -> list[Sample]:
    # Not simple_evaluate: it runs pip and lscpu for its report, and chat templates are one choice for all its tasks.
    from lm_eval.evaluator import evaluate as lm_evaluate

    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=seed)
    n = len(task.eval_docs)
    answer = (task.config.generation_kwargs or {}).get("max_gen_toks", 0)
    if answer >= lm.max_length:
        raise OptionError(
            f"Task {member!r} asks for up to {answer} tokens, but the model's whole context is {lm.max_length}."
        )
    ids = draw(member, n, limit, seed)
    results = lm_evaluate(
        lm=lm, task_dict={"tasks": {member: task}}, samples={member: ids} if len(ids) < n else None, bootstrap_iters=0,
        log_samples=True, apply_chat_template=lm.chat, fewshot_as_multiturn=True,
    )  # fmt: skip
    rows = results["samples"][member]
    kept = FILTERS.get(name, rows[0]["filter"])
    rows = sorted((row for row in rows if row["filter"] == kept), key=lambda row: row["doc_id"])
    metric = _metric(member, task, rows)
    label = metric if kept in ("none", "take_first") else f"{metric},{kept}"
    if local and not task.get_config("num_fewshot") and name in standard_tasks.SHOTS:
        label += ",0-shot"
    if lm.chat and name in standard_tasks.CHAT:
        label += ",chat"
    scores = [0.0 if math.isnan(row[metric]) else float(row[metric]) for row in rows]
    return [
        Sample(member, int(row["doc_id"]), score, *_texts(task.OUTPUT_TYPE, row), metric=label)
        for row, score in zip(rows, scores, strict=True)
    ]


def _metric(name: str, task: Any, rows: list[dict[str, Any]]) -> str:
    """The first metric of the task that is a number from 0 (bad) to 1 (good) for every document. NaN passes: a model that has
    come apart gives it, which is a score of 0 and no fault of the task."""
    better = task.higher_is_better()
    for metric in rows[0]["metrics"]:
        numbers = all(isinstance(row[metric], int | float) for row in rows)
        if (
            better.get(metric)
            and numbers
            and not any(row[metric] < 0 or row[metric] > 1 for row in rows)
        ):
            return metric
    raise OptionError(
        f"Task {name!r} gives no score between 0 and 1 for each document, so it cannot be paired with the base model."
    )


def _texts(kind: str, row: dict[str, Any]) -> tuple[str, str, str]:
    """Prompt, output and expected text of a logged sample."""
    import numpy

    arguments, answers, target = row["arguments"], [r[0] for r in row["resps"]], row["target"]
    prompt = arguments[0][0]
    if kind == "generate_until":
        return prompt, str(answers[0]), str(target)
    likelihoods = [float(a[0]) for a in answers]
    if kind == "loglikelihood":
        greedy = "greedy" if answers[0][1] else "not greedy"
        return prompt, f"{greedy}, log-probability {likelihoods[0]:.3f}", str(target).strip()
    # Some tasks (winogrande) vary the prompt and keep the continuation: then the prompt is the choice.
    choices = (
        [a[1].strip() for a in arguments]
        if len({a[0] for a in arguments}) == 1
        else [a[0] for a in arguments]
    )
    expected = (
        choices[target] if isinstance(target, int) and 0 <= target < len(choices) else str(target)
    )
    return (
        prompt,
        choices[int(numpy.argmax(likelihoods))],
        expected,
    )  # as lm-eval scores it, NaN included


class _Unchanged(Exception):
    """No prompt of a task has a context."""


def _wrap(
    model: Any,
    tokenizer: Any,
    batch_size: int,
    context: Callable[[str], str | None] | None,
    changed_only: bool,
) -> Any:
    """lm-eval's view of the model, with context, progress and chat template decided task by task."""
    import torch
    from lm_eval.models.huggingface import HFLM

    class InMemory(HFLM):
        def begin(
            self, task: str, chat: bool, progress: Callable[[str, int, int], None] | None
        ) -> None:
            self.chat = chat and bool(tokenizer.chat_template)
            self.changed = False
            self.tick = (lambda done, total: progress(task, done, total)) if progress else None

        def add_partial(self, attr: str, request: Any, result: Any) -> None:
            # lm-eval calls its cache hook once for each request that is done.
            self.done += 1
            if self.tick:
                self.tick(self.done, self.total)

        def start(self, requests: list[Any]) -> None:
            self.done, self.total = 0, len(requests)
            self.set_cache_hook(self)
            if not self.chat:
                for request in {id(r): r for r in requests}.values():
                    prompt, *rest = request.args
                    request.arguments = (self.note(prompt) + prompt, *rest)
            if changed_only and not self.changed:
                raise _Unchanged

        def note(self, prompt: str) -> str:
            """What stands in front of ``prompt``."""
            found = context(prompt) if context else None
            self.changed = self.changed or bool(found)
            return found or ""

        def loglikelihood(
            self, requests: list[Any], disable_tqdm: bool = True
        ) -> list[tuple[float, bool]]:
            self.start(requests)
            return super().loglikelihood(requests, disable_tqdm=True)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
            self.start(requests)
            return super().generate_until(requests, disable_tqdm=True)

        def loglikelihood_rolling(
            self, requests: list[Any], disable_tqdm: bool = True
        ) -> list[float]:
            raise OptionError(
                f"Task {requests[0].task_name!r} measures perplexity; retention needs a score between 0 and 1."
            )

        def apply_chat_template(
            self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
        ) -> str:
            *earlier, last = chat_history
            chat_history = [
                *earlier,
                {**last, "content": self.note(last["content"]) + last["content"]},
            ]
            return super().apply_chat_template(chat_history, add_generation_prompt)

    # HFLM opens an autocast of its own around each call, which would end the caller's.
    device = model.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return InMemory(
        pretrained=model, tokenizer=tokenizer, batch_size=batch_size, mixed_precision_dtype=dtype
    )


def _seed(seed: int) -> None:
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def _as_found(model: Any, tokenizer: Any) -> Iterator[None]:
    """Put back the random state, the train/eval mode of each module, and what lm-eval sets on the tokenizer."""
    import numpy
    import torch

    states = random.getstate(), numpy.random.get_state()
    training = [module for module in model.modules() if module.training]
    pad, side = tokenizer.pad_token, tokenizer.padding_side
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        for module in training:
            module.training = True
        if tokenizer.pad_token != pad:
            tokenizer.pad_token = pad
        tokenizer.padding_side = side


@contextmanager
def quiet() -> Iterator[None]:
    """No bars, no warnings and no log lines below ERROR from the libraries, within the block only."""
    import datasets
    import lm_eval.api.task
    import lm_eval.utils
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    hub_bars, data_bars = not are_progress_bars_disabled(), datasets.is_progress_bar_enabled()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(
            mock.patch.object(lm_eval.api.task, "tqdm", lambda items, *args, **kwargs: items)
        )
        # lm-eval compiles the templates of a task again for each document: a tenth of the time of a task of choices
        compiled = lru_cache(lm_eval.utils.env.from_string)
        stack.enter_context(mock.patch.object(lm_eval.utils.env, "from_string", compiled))
        for name, level in levels.items():
            logging.getLogger(name).setLevel(logging.ERROR)
            stack.callback(logging.getLogger(name).setLevel, level)
        disable_progress_bars()
        datasets.disable_progress_bars()
        if hub_bars:
            stack.callback(enable_progress_bars)
        if data_bars:
            stack.callback(datasets.enable_progress_bars)
        yield
