"""Load the model that a plan names, wherever its cells are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from editbench import doctor
from editbench.asked import Evaluation
from editbench.errors import EditbenchError
from editbench.eval import retention
from editbench.models import LanguageModel, load_model
from editbench.outline import read_outline, read_tokenizer
from editbench.run import regimes
from editbench.run.baseline import RETENTION_BATCH
from editbench.run.config import RunConfig
from editbench.run.plan import Plan


def load_planned(config: RunConfig, device: str = "auto") -> LanguageModel:
    """Load the model of ``config``.

    Raises:
        ModelError: it cannot be loaded.
    """
    return load_model(
        config.model,
        precision=config.precision,
        layout=config.layout,
        **config.loading(device).arguments(),
    )


def check_memory(plan: Plan, device: str = "auto") -> None:
    """Check that the methods of ``plan`` fit into the memory of this machine.

    Raises:
        MethodError: one clearly does not. The message says which, and what would make it fit.
    """
    config, (regime, chunk) = plan.config, regimes.parse(plan.config.regime)
    asked = Evaluation()
    with suppress(EditbenchError):  # said by whoever loads the model, or asks the task
        asked = asked_of(
            config.model,
            config.tasks,
            config.limit,
            config.seed,
            config.task_data,
            config.batch_size,
        )
    doctor.check_memory(
        config.model,
        plan.methods,
        [case.fact for case in plan.cases],
        config.precision,
        config.layout,
        1 if regime == "single" else chunk,
        config.dtype or "auto",
        device,
        asked,
    )


def asked_of(
    model: str,
    tasks: Sequence[str],
    limit: int | None = None,
    seed: int = 0,
    task_data: Mapping[str, str] = {},
    batch_size: int | None = None,
) -> Evaluation:
    """Return what the retention ``tasks`` ask of a model that is not loaded.

    Raises:
        EditbenchError: the model or a task cannot be read.
    """
    if not tasks:
        return Evaluation()
    from editbench.eval import counting  # imports lm-eval's model classes

    return counting.count(
        read_outline(model).model,
        read_tokenizer(model),
        tasks,
        batch_size or RETENTION_BATCH,
        limit=limit,
        seed=seed,
        task_data={name: Path(path) for name, path in task_data.items()},
    )


def asked_by_name(
    model: str,
    tasks: str,
    limit: int | None,
    task_data: Mapping[str, str],
    batch_size: int | None,
) -> Evaluation:
    """Return ``asked_of`` the tasks that the text of ``--tasks`` names.

    Raises:
        EditbenchError: as ``asked_of``, or there is no such task.
    """
    files = {name: Path(path) for name, path in task_data.items()}
    names = retention.resolve_tasks(tasks, files)
    return asked_of(model, names, limit, task_data=task_data, batch_size=batch_size)
