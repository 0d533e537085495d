"""Retention: how much of the model's other abilities an edit leaves.

lm-eval asks the tasks, of the model in memory. The bundled tasks in ``tasks/`` need no network.
Every task of lm-eval works too, with data from the hub or from a file, and so does a task file of
your own (``standard_tasks``). Each document has one score, so that an edited model can be paired
with its base. A ``limit`` draws the same documents for every model.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict, cast

from editbench.batching import BatchSizes
from editbench.errors import DataError, EditbenchError, OptionError, UnknownNameError
from editbench.eval import standard_tasks, task_rows
from editbench.eval.sandbox import quiet, restored, seed_everything
from editbench.eval.standard_tasks import PACK, Doc, Task
from editbench.eval.task_checks import NO_SCORE, check_task
from editbench.loops import limited_templates

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from editbench.eval.in_memory import InMemoryModel
    from editbench.live import LiveModel
    from editbench.models import LanguageModel

__all__ = [
    "FILTERS",
    "Sample",
    "data_digest",
    "draw",
    "evaluate",
    "load",
    "quiet",
    "resolve_tasks",
    "task_names",
    "unloadable",
]

FILTERS = {"gsm8k": "flexible-extract"}
"""Task -> the filter that counts, if the task reads answers in several ways. Other tasks use their
first filter."""


@dataclass(frozen=True)
class Sample:
    """One document of one task: what was asked, what came back, and its score."""

    task: str
    """The task, or the member of a group (``mmlu``)."""
    doc_id: int
    """Index in the task's documents, the same for every model."""
    score: float
    """Between 0 and 1, higher is better."""
    prompt: str
    """As the model saw it, with chat template and context."""
    output: str
    """The generated text, the preferred choice, or the likelihood of the expected continuation."""
    expected: str
    metric: str
    """lm-eval's name for the score. The filter, the number of shots and the chat template follow,
    each only if it differs from lm-eval's default. Scores of different metrics never share a
    table."""


class Logged(TypedDict):
    """The part of lm-eval's log of one document that is used here. Each metric is a key too."""

    doc_id: int
    doc: Doc
    filter: str
    metrics: list[str]
    arguments: list[tuple[str, str]]
    """(prompt, continuation) of each request."""
    resps: list[list[object]]
    """The answers to each request: a text, or (log-probability, whether greedy)."""
    target: str | int


class Ranked(Protocol):
    """A task that says for each of its metrics whether higher is better."""

    def higher_is_better(self) -> Mapping[str, bool]: ...


def task_names() -> dict[str, str]:
    """Return the bundled tasks, each with a line on what it asks. Does not import lm-eval."""
    # The first line of each YAML is a comment that describes the task.
    first_lines = {
        path.stem: path.read_text(encoding="utf-8").split("\n", 1)[0]
        for path in sorted(PACK.glob("eb_*.yaml"))
    }
    return {name: line.lstrip("# ").rstrip(".") for name, line in first_lines.items()}


def resolve_tasks(spec: str, task_data: Mapping[str, Path] | None = None) -> list[str]:
    """Return the task names that ``spec`` means.

    Args:
        spec: ``default`` (the bundled tasks), ``none``, or names separated by commas. PATH.yaml is
            a task file.
        task_data: files with the data of tasks, by task.

    Raises:
        UnknownNameError: for a name that is neither bundled nor in lm-eval.
        DataError: if a task file does not exist, or if ``task_data`` has a file for a task that is
            not asked or that is bundled.
    """
    pack = task_names()
    names: list[str] = []
    for part in filter(None, (p.strip() for p in spec.split(","))):
        names += list(pack) if part == "default" else [] if part == "none" else [part]
    names = list(dict.fromkeys(names))
    for name in names:
        _check_known(name, pack)
    for name in task_data or {}:
        if name not in names:
            raise DataError(
                f"--task-data is given for {name!r}, which is not among the tasks: "
                f"{', '.join(names) or 'none'}. Add it to --tasks, or leave its data out."
            )
        if name in pack:
            raise DataError(
                f"--task-data is given for {name!r}, which brings its own data. Leave it out."
            )
    return names


def _check_known(name: str, pack: Mapping[str, str]) -> None:
    """Check that a task exists.

    Raises:
        DataError: for a path without a file.
        UnknownNameError: for a name that neither ``pack`` nor lm-eval has.
    """
    if standard_tasks.is_path(name):
        if not Path(name).is_file():
            raise DataError(f"Task file {name} does not exist. Check the path in --tasks.")
        return
    if name in pack or name in standard_tasks.GROUPS or standard_tasks.find(name) is not None:
        return
    # lm-eval's index takes ten seconds to read. A typo in a bundled name is found without it.
    slip = difflib.get_close_matches(name, pack, cutoff=0.8)
    others = [] if slip else standard_tasks.all_names()
    if name not in others:
        close = difflib.get_close_matches(name, others, n=5, cutoff=0.6)
        raise UnknownNameError(
            "task", name, [*pack, *close], "Task names of lm-eval and PATH.yaml work too."
        )


def unloadable(
    names: Sequence[str],
    task_data: Mapping[str, Path],
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, str]:
    """Return the tasks of ``names`` that cannot be asked, each with the reason in one sentence.

    Either their data or a grader is missing, or their task file, its code or one of the documents
    that ``limit`` and ``seed`` draw has a mistake. What only an answer shows, such as a grader that
    fails, is found while asking: see ``evaluate``.
    """
    reasons: dict[str, str] = {}
    with quiet() if names else nullcontext():
        for name in names:
            try:
                if standard_tasks.is_path(name):
                    standard_tasks.yaml_files(Path(name))
                data = task_data.get(name)
                if data is not None and not data.exists():
                    raise DataError(
                        f"--task-data {name}={data}: this file does not exist. Check the path."
                    )
                with standard_tasks.in_plain_words(name):
                    for member, task in load(name, data).items():
                        drawn(name, member, task, limit, seed, data is not None)
            except EditbenchError as error:
                reasons[name] = str(error)
    return reasons


def data_digest(task: str, data: Path | None = None) -> str | None:
    """Return the SHA-256 of the files that a task reads; ``None`` if it reads only the hub.

    These are the files of a bundled task, those of your own task file, and ``data``.
    """
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
    # A hash of hashes: joining the contents would not tell where one file ends.
    return hashlib.sha256(
        b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
    ).hexdigest()


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    context: Callable[[str], str | None] | None = None,
    changed_only: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    task_data: Mapping[str, Path] | None = None,
    live: LiveModel | None = None,
    batches: BatchSizes | None = None,
    answering: LanguageModel | None = None,
) -> dict[str, list[Sample]]:
    """Ask ``tasks`` and return their samples, by task in the order given and then by document.

    Leaves the random state, the train/eval mode, the tokenizer and the loggers as they were.

    Args:
        model: a causal LM of transformers, on its device. It runs under the caller's autocast.
        limit: number of documents of each task, drawn by ``seed`` (see ``draw``); ``None`` for all.
        batch_size: requests in one forward pass. In float32 it changes no score unless two choices
            or tokens are almost equally probable (log-probabilities move by less than 1e-4). In
            bfloat16 such near ties are more frequent.
        context: maps the prompt of a document (for a chat task, the user's turn) to the text that
            goes before it, or to ``None``. A prompt may be empty: then the choice is the whole
            sentence.
        changed_only: leave out tasks and members of groups in which ``context`` changes no prompt.
            Their answers are those that the same model gave to the same batches without it.
        progress: called as ``progress(task, requests done, all requests)``.
        task_data: files for tasks that should not read their data from the hub.
        live: the model that answers in place of ``model``, whose own weights are then not asked.
        batches: what ``--batch-size`` says in place of ``batch_size``, and what did not fit into
            memory before.
        answering: the ``LanguageModel`` of ``model``. Requests that share a beginning, and texts
            that have ended, then cost less; the samples are the same to rounding.

    Raises:
        DataError: if the data of a task cannot be fetched or read (names the dataset and
            ``--task-data``) or has no documents, if a document cannot be scored, or if lm-eval, its
            libraries or the code of the task raise anything. There are then no samples of the task,
            also where some of its documents were asked.
        OptionError: if a task gives no score between 0 and 1 for each document, or if its answers
            are longer than the model's context.
    """
    if not tasks:
        return {}
    given = task_data or {}
    with quiet(), restored(model, tokenizer):
        from editbench.eval.in_memory import InMemoryModel, Unchanged

        lm = InMemoryModel(
            model,
            tokenizer,
            batch_size,
            context,
            changed_only,
            live,
            batches or BatchSizes(),
            answering,
        )
        by_task = {}
        for name in tasks:
            # Before each task, so that its score does not depend on which tasks came before it.
            seed_everything(seed)
            samples: list[Sample] = []
            with standard_tasks.in_plain_words(name):
                for member, task in load(name, given.get(name)).items():
                    lm.begin(name, goes_through_chat(name, task), progress)
                    with suppress(Unchanged):
                        ids = drawn(name, member, task, limit, seed, name in given)
                        rows = ask_member(lm, member, task, ids, seed)
                        samples += _samples(lm, name, member, task, rows)
            by_task[name] = samples
        return by_task


def goes_through_chat(name: str, task: Task) -> bool:
    """Return whether ``task`` of ``name`` is asked through the chat template, if there is one."""
    # Our own task files ask for it with ``metadata: {chat: true}``.
    return name in standard_tasks.CHAT or bool((task.config.metadata or {}).get("chat"))


def draw(task: str, n: int, limit: int | None, seed: int) -> list[int]:
    """Choose which of the ``n`` documents of ``task`` are asked, in ascending order.

    Without a ``limit`` these are all of them. The choice is the same for every model, process and
    machine. A smaller ``limit`` draws a subset of what a larger one draws.
    """
    ids = list(range(n))
    if limit is None or limit >= n:
        return ids
    # All ids are shuffled and then cut, which is what makes a smaller draw part of a larger one.
    random.Random(f"{task}/{seed}").shuffle(ids)
    return sorted(ids[:limit])


def drawn(
    name: str, member: str, task: Task, limit: int | None, seed: int, local: bool
) -> list[int]:
    """Return the documents to ask, after checking that each of them can be scored.

    Args:
        local: whether the data came from the user's own file.

    Raises:
        EditbenchError: as ``check_task``.
    """
    ids = draw(member, len(task.eval_docs), limit, seed)
    own = standard_tasks.is_path(name)
    check_task(name if own else member, task, ids, own or local)
    return ids


def load(name: str, data: Path | None) -> dict[str, Task]:
    """Return lm-eval's tasks of ``name`` with their data; several for a group.

    Raises:
        DataError: if there are none, as in a group without members.
        EditbenchError: as ``standard_tasks.from_file`` and ``standard_tasks.from_hub``.
    """
    if name in task_names():
        return standard_tasks.load_yamls([PACK / f"{name}.yaml"])
    with limited_templates():  # lm-eval reads the first document while loading
        tasks = standard_tasks.from_file(name, data) if data else standard_tasks.from_hub(name)
    if not tasks:
        raise DataError(f"Task {name!r} is a group in which lm-eval finds no tasks.")
    return tasks


def ask_member(
    lm: InMemoryModel, member: str, task: Task, ids: Sequence[int], seed: int
) -> list[Logged]:
    """Ask documents of one task and return lm-eval's log of each document and filter."""
    # Not simple_evaluate: it runs pip and lscpu for its report, and it has one chat-template
    # setting for all tasks.
    from lm_eval.evaluator import evaluate as lm_evaluate

    # As simple_evaluate prepares a task: no examples unless its YAML says otherwise.
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=seed)
    # The answer must leave space in the context for at least one token of the prompt.
    answer = (task.config.generation_kwargs or {}).get("max_gen_toks", 0)
    if answer >= lm.max_length:
        raise OptionError(
            f"Task {member!r} asks for up to {answer} tokens, but the model's whole context is "
            f"{lm.max_length}. Choose another task, or a model with a longer context."
        )
    results = lm_evaluate(
        lm=lm,
        task_dict={"tasks": {member: task}},
        samples={member: ids} if len(ids) < len(task.eval_docs) else None,
        bootstrap_iters=0,  # only the samples are used; ``stats`` computes the intervals
        log_samples=True,
        apply_chat_template=lm.chat,
        fewshot_as_multiturn=True,
    )
    logged: list[Logged] = results["samples"][member]
    return logged


def _samples(
    lm: InMemoryModel, name: str, member: str, task: Task, rows: list[Logged]
) -> list[Sample]:
    """Turn lm-eval's log into samples, in the order of the documents."""
    kept = FILTERS.get(name, rows[0]["filter"])
    # The log has a row for each document and filter.
    rows = sorted((row for row in rows if row["filter"] == kept), key=lambda row: row["doc_id"])
    metric = _metric(member, task, rows)
    label = metric if kept in ("none", "take_first") else f"{metric},{kept}"
    if (task.config.dataset_kwargs or {}).get(standard_tasks.WITHOUT_EXAMPLES):
        label += ",0-shot"
    if lm.chat and name in standard_tasks.CHAT:
        label += ",chat"
    samples = []
    for row in rows:
        score = float(cast(float, _value(row, metric)))
        texts = _texts(task, row)
        # NaN comes from a model whose weights exploded: the answer is wrong, not unscored.
        samples.append(
            Sample(member, row["doc_id"], 0.0 if math.isnan(score) else score, *texts, label)
        )
    return samples


def _value(row: Mapping[str, object], metric: str) -> object:
    return row[metric]


def _metric(name: str, task: Ranked, rows: Sequence[Logged]) -> str:
    """Return the task's first metric that is a number from 0 (bad) to 1 (good) in every document.

    NaN passes: it comes from a model whose weights exploded, not from a wrong kind of metric.

    Raises:
        OptionError: if there is no such metric.
    """
    better = task.higher_is_better()
    for metric in rows[0]["metrics"]:
        values = [_value(row, metric) for row in rows]
        if better.get(metric) and all(
            # Not ``0 <= value <= 1``, which is False for NaN.
            isinstance(value, int | float) and not (value < 0 or value > 1)
            for value in values
        ):
            return metric
    raise OptionError(NO_SCORE.format(name))


def _texts(task: Task, row: Logged) -> tuple[str, str, str]:
    """Return the prompt, the output and the expected text of a logged document."""
    import numpy

    arguments, answers, target = row["arguments"], [r[0] for r in row["resps"]], row["target"]
    prompt = arguments[0][0]
    if task.OUTPUT_TYPE == "generate_until":
        return prompt, str(answers[0]), str(target)
    scored = cast("list[tuple[float, bool]]", answers)
    likelihoods = [float(pair[0]) for pair in scored]
    if task.OUTPUT_TYPE == "loglikelihood":
        greedy = "greedy" if scored[0][1] else "not greedy"
        return prompt, f"{greedy}, log-probability {likelihoods[0]:.3f}", str(target).strip()
    if task.multiple_input:
        # Such tasks (winogrande) vary the prompt instead of the continuation: each choice is a
        # prompt, the target is what follows all of them, and ``doc_to_text`` gives the right one.
        choices, right = [pair[0] for pair in arguments], task.doc_to_text(row["doc"])
    else:
        # Under acc_mutual_info, lm-eval asks each choice once more, without the prompt.
        n = len(task.doc_to_choice(row["doc"]))
        choices, right = [pair[1].strip() for pair in arguments[:n]], target
    is_index = task_rows.is_index(right) and 0 <= right < len(choices)
    expected = choices[int(right)] if is_index else str(right)
    # lm-eval scores with numpy's argmax, so use it here: it decides which choice a NaN gives.
    return prompt, choices[int(numpy.argmax(likelihoods[: len(choices)]))], expected
