"""Where the cells of a run are computed: in this process, or by workers on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from editbench.cli import console
from editbench.cli.board import Board
from editbench.cli.loading import load
from editbench.cli.options import RunOptions
from editbench.errors import OptionError

if TYPE_CHECKING:
    from editbench.models import LanguageModel
    from editbench.run.places import Request
    from editbench.run.plan import Plan
    from editbench.run.runner import OnCell, Workers


@dataclass(frozen=True)
class Crew:
    """What computes a run, and who is told of its cells."""

    workers: Workers
    on_cell: Callable[[str], OnCell]
    """Text in front of the names of cells, such as ``seed 1, `` -> what to call about them."""


def in_this_process(options: RunOptions) -> bool:
    """Whether the options ask for a run without workers."""
    return (options.workers, options.gpus_per_cell, options.ray) == (None, None, None)


def request_of(options: RunOptions) -> Request | None:
    """Return what is asked of a cluster; ``None`` for a run in this process.

    Raises:
        OptionError: a value is wrong, or Ray is not installed.
    """
    from editbench.run.places import Request

    if in_this_process(options):
        return None
    text = options.workers or "auto"
    if text != "auto" and not text.isdecimal():
        raise OptionError(f"--workers is {text!r}; it must be a number of workers, or auto.")
    request = Request(
        None if text == "auto" else int(text[:9]), options.gpus_per_cell, options.ray or "auto"
    )
    from editbench.run import cluster  # noqa: F401 - without Ray this says what to install

    return request


@contextmanager
def crew(
    options: RunOptions,
    plans: Sequence[Plan],
    request: Request | None,
    model: LanguageModel | None = None,
) -> Iterator[Crew]:
    """Load the model of ``plans`` here or on workers, for as long as the ``with`` lasts.

    Args:
        model: the model, if it is loaded here already.

    Raises:
        EditbenchError: the model cannot be loaded, or as ``cluster.Cluster``.
    """
    if request is None:
        from editbench.run.worker import Worker

        # Loaded by the name that was typed, which tables show; the plan has the absolute path.
        if model is None:
            config = plans[0].config
            how = config.loading(options.device)
            model = load(options.model, config.precision, config.layout, how)
        name_the_flag(model)
        with Board(1) as board:
            yield Crew(Worker(model), board.of(plans))
        return
    from editbench.run.cluster import Cluster

    console.say("Starting workers.")  # some seconds, and as long as the model takes to load
    given = options.device, options.skip_memory_check or options.device_map is not None
    with Cluster(plans, options.model, request, console.say, *given) as workers:
        with Board(workers.size) as board:
            yield Crew(workers, board.of(plans))


def name_the_flag(model: LanguageModel) -> None:
    """Say how to use all GPUs, if there are several and ``model`` is on one of them."""
    import torch

    count = torch.cuda.device_count() if model.device.type == "cuda" else 0
    if count > 1 and len(model.devices) == 1:
        console.say(
            f"This machine has {count} GPUs, and this run uses one. --workers auto computes cells"
            ' on all of them (pip install "editbench[ray]").'
        )
