"""What a run asks of a cluster: how many workers, and where; whether they fit, and who answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from editbench.errors import OptionError

ANSWER_SECONDS = 5.0
"""How long an address may take to answer."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a client of gRPC, which Ray speaks, opens a connection; the answer is a frame of type 4."""


@dataclass(frozen=True)
class Request:
    """What ``--workers``, ``--gpus-per-cell`` and ``--ray`` ask for.

    Raises:
        OptionError: a number is out of range.
    """

    workers: int | None = None
    """Number of actors; ``None`` for as many as there is room for."""
    gpus: float | None = None
    """GPUs of each actor; ``None`` for one where the cluster has any."""
    address: str = "auto"

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"--workers is {self.workers}; it must be at least 1, or auto.")
        if self.gpus is not None and not (self.gpus >= 0 and (self.gpus < 1 or self.gpus % 1 == 0)):
            raise OptionError(
                f"--gpus-per-cell is {self.gpus:g}; it must be a whole number, or below 1 for "
                "workers that share a GPU."
            )


def room(request: Request, nodes: Sequence[tuple[int, float]]) -> tuple[int, float, int]:
    """Return how many workers there are, and the GPUs and threads of each.

    The threads are ``OMP_NUM_THREADS`` if it is set, else as many as there are CPUs for. Without a
    number of workers there is one for each share of GPUs, or without GPUs one a machine.

    Args:
        request: what was asked for.
        nodes: CPUs and GPUs of each machine.

    Raises:
        OptionError: there is no room.
    """
    most_cpus, most_gpus = max(cpus for cpus, _ in nodes), max(gpus for _, gpus in nodes)
    gpus = request.gpus if request.gpus is not None else min(1.0, most_gpus)
    if gpus > most_gpus:
        have = f"no machine has more than {most_gpus:g}" if most_gpus else "there is none"
        raise OptionError(f"--gpus-per-cell is {gpus:g}, and {have}.")

    def places(threads: int) -> list[int]:
        # A little more, since 3 / 0.1 is below 30.
        return [
            min(cpus // threads, int(have / gpus + 1e-9) if gpus else cpus) for cpus, have in nodes
        ]

    fixed = os.environ.get("OMP_NUM_THREADS", "")
    choices = [int(fixed)] if fixed.isdigit() and int(fixed) else range(most_cpus, 0, -1)
    workers = request.workers or (
        sum(places(1)) if gpus else sum(n > 0 for n in places(choices[-1]))
    )
    for threads in choices:
        if workers and sum(places(threads)) >= workers:
            return workers, gpus, threads
    need = f"{choices[-1]} CPU{'s' * (choices[-1] > 1)}" + (f" and {gpus:g} GPUs" if gpus else "")
    raise OptionError(
        f"--workers is {workers}, and there is room for {sum(places(choices[-1]))}: each needs "
        f"{need}, and the machines have {sum(cpus for cpus, _ in nodes)} CPUs and "
        f"{sum(gpus for _, gpus in nodes):g} GPUs."
    )


def started_here() -> str | None:
    """Return the address that ``ray start`` has noted on this machine, if its cluster runs."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    try:
        address = note.read_text().strip()
    except OSError:
        return None
    return None if silent(address) else address  # the note of a killed cluster stays


def silent(address: str) -> str:
    """Return why no Ray cluster answers at HOST:PORT, empty if one does.

    Ray itself would try for 40 seconds and then end the process.
    """
    host, _, port = address.rpartition(":")
    try:
        if not host or not port.isdigit():
            raise ValueError("write HOST:PORT, such as 10.0.0.1:6379")
        with socket.create_connection((host, int(port)), ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":
                return ""
            connection.sendall(PREFACE)
            answer = connection.recv(9)
            return "" if answer[3:4] == b"\x04" else "something else listens"
    except (OSError, ValueError, OverflowError) as error:
        return str(error)
