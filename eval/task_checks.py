"""Check that a retention task can be scored before any of it is asked.

lm-eval scores rows that make no sense without a word: a target that is none of the choices is wrong
whatever the model says. Here the task is refused, and the message names the row. What lm-eval
scores as it should is not refused, such as a row with two equal wrong choices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from editbench.errors import DataError, OptionError
from editbench.eval.task_rows import first_line, is_index
from editbench.loops import limited_templates

if TYPE_CHECKING:
    from jinja2 import Template

    from editbench.eval.standard_tasks import Doc, Task

NO_SCORE = (
    "Task {!r} gives no score between 0 and 1 for each document, so it cannot be paired with the "
    "base model. Choose another task."
)


class Senseless(Exception):
    """A row cannot be scored. The message says why."""


def check_task(name: str, task: Task, ids: Iterable[int], own: bool) -> None:
    """Check what a task measures, its fields, and its documents ``ids``.

    Args:
        own: whether the data or the task file are the user's. Then no choice may be empty and no
            prompt may print a null field. A published set with such a row stays as it is, since its
            published scores have the row too.

    Raises:
        OptionError: if no metric of the task can be a score between 0 and 1.
        DataError: if the task reads a field that its documents lack, or if a document cannot be
            scored. Names both.
    """
    from lm_eval.api.task import ConfigurableTask

    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        raise OptionError(
            f"Task {name!r} measures perplexity, and retention needs a score between 0 and 1 for "
            "each document. Choose another task."
        )
    if not any(task.higher_is_better().values()):
        raise OptionError(NO_SCORE.format(name))
    if type(task) is not ConfigurableTask:
        return  # a class of its own, which may read and grade its documents in any way
    _check_fields(name, task)
    _check_examples(name, task)
    templates = _templates(task, own)
    docs = task.eval_docs  # rebuilt at each access
    most = 0
    for i in ids:
        try:
            with limited_templates():
                most = max(most, len(set(_check_row(task, docs[i], own))))
                for template in templates:
                    template.render(**docs[i])
        except Senseless as fault:
            raise DataError(_message(name, i, docs[i], str(fault))) from None
        except Exception as error:  # the code of a task may raise anything
            why = f"lm-eval cannot read it ({type(error).__name__}: {first_line(error)})"
            raise DataError(_message(name, i, docs[i], why)) from error
    # In single documents this may be: BLiMP has one, and MMLU has equal wrong choices.
    if task.OUTPUT_TYPE == "multiple_choice" and most < 2:
        raise DataError(
            f"Task {name!r} cannot be scored: none of its documents has two different choices. "
            "Correct its data, or leave the task out."
        )


def _message(name: str, index: int, doc: Doc, why: str) -> str:
    text = str(dict(doc))
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    return (
        f"Task {name!r} cannot be scored: in document {index + 1}, {why}. Correct its data, or "
        f"leave the task out. The document: {shown}"
    )


def _check_fields(name: str, task: Task) -> None:
    """Check that the fields exist which the task names as such.

    lm-eval takes the name of a missing field for the text itself.

    Raises:
        DataError: if one does not.
    """
    keys = ["doc_to_text", "doc_to_choice"]
    if task.config.process_results is None:  # a task's own grader may have no use for a target
        keys.append("doc_to_target")
    for key in keys:
        value = task.get_config(key)
        if isinstance(value, str) and value.isidentifier() and value not in task.features:
            raise DataError(
                f"Task {name!r} reads the field {value!r} ({key}), which its documents do not "
                f"have; they have {', '.join(task.features)}. Rename the field in the data. If the "
                f"task means it as text, write {{{{ {value!r} }}}} in its file."
            )


def _check_examples(name: str, task: Task) -> None:
    """Check that there are as many examples as the task puts into each prompt.

    Raises:
        DataError: if there are fewer.
    """
    shots = task.get_config("num_fewshot")
    if not isinstance(shots, int) or shots < 1:
        return
    found = len(list(islice(task.fewshot_docs(), shots)))
    if found < shots:
        raise DataError(
            f"Task {name!r} shows {shots} examples in each prompt, and the split that it takes "
            f"them from has {found}. Add some to that split, or lower num_fewshot in its file."
        )


def _templates(task: Task, own: bool) -> list[Template]:
    """Return the task's templates, made to raise ``Senseless`` where they print a null field."""
    from jinja2 import Environment
    from lm_eval.utils import env

    strict = env.overlay(finalize=_printed)
    keys = ["doc_to_text"] if own else []
    if task.config.process_results is None:
        keys.append("doc_to_target")
    values = [task.get_config(key) for key in keys]
    return [
        # not ``strict.from_string``, in place of which ``quiet`` puts that of ``env``
        Environment.from_string(strict, value)
        for value in values
        if isinstance(value, str) and value not in task.features
    ]


def _printed(value: object) -> object:
    if _is_null(value):
        raise Senseless("a field that the prompt or the target needs is null")
    return value


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _check_row(task: Task, doc: Doc, own: bool) -> Sequence[str]:
    """Check one document by what lm-eval does with it, and return its choices.

    Raises:
        Senseless: if it cannot be scored.
    """
    text: object = task.doc_to_text(doc)
    target: object = task.doc_to_target(doc)
    choices = None if task.config.doc_to_choice is None else task.doc_to_choice(doc)
    graded = task.config.process_results is not None
    if not isinstance(text, int if task.multiple_input else str):
        raise Senseless(f"the prompt is {text!r}")
    if task.OUTPUT_TYPE == "multiple_choice" or (choices is not None and not graded):
        _check_choices(choices, own, graded)
    if task.OUTPUT_TYPE == "multiple_choice" and task.multiple_input:
        # Each choice makes a prompt, the target is the text that follows all of them, and the
        # prompt is the index of the right one.
        _check_texts([target])
        target = text
    if not graded:
        _check_target(target, choices, task)
    return choices or ()


def _check_choices(choices: object, own: bool, graded: bool) -> None:
    if not isinstance(choices, list) or not choices:
        raise Senseless(f"the choices are {choices!r}")
    for choice in choices:
        # lm-eval measures how long the texts are; a task's own grader may take numbers
        is_text = isinstance(choice, str) or (graded and choice is not None)
        if not is_text or (own and not str(choice).strip()):
            raise Senseless(f"one of the choices is {choice!r}")


def _check_target(target: object, choices: Sequence[str] | None, task: Task) -> None:
    if task.multiple_target and not isinstance(target, list):
        raise Senseless(f"the target is {target!r}, and that of the first document is a list")
    if task.OUTPUT_TYPE == "loglikelihood" and not isinstance(target, str):
        raise Senseless(f"the target is {target!r}")
    targets = target if isinstance(target, list) and task.multiple_target else [target]
    if choices is None:
        _check_texts(targets)
    elif not targets:
        raise Senseless("the list of targets is empty")
    else:
        for one in targets:
            _check_choice(one, choices, task)


def _check_choice(target: object, choices: Sequence[str], task: Task) -> None:
    """Check a target that must be the index of a choice or, in most tasks, its text."""
    if isinstance(target, str) and task.OUTPUT_TYPE == "multiple_choice":
        # lm-eval looks for the text of a single target only
        if task.multiple_input or task.multiple_target or target not in choices:
            raise Senseless(f"the target {target!r} is none of the choices {list(choices)}")
    elif not is_index(target):
        raise Senseless(f"the target is {target!r}, not the index of a choice")
    elif not 0 <= target < len(choices):
        raise Senseless(f"the target is {target}, and the last of the choices {len(choices) - 1}")


def _check_texts(targets: Sequence[object]) -> None:
    """Check that at least one of the accepted texts is one."""
    if not any(not _is_null(one) and one != [] and str(one).strip() for one in targets):
        raise Senseless(f"the target is {targets[0]!r}" if targets else "the targets are empty")
