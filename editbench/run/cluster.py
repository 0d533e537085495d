"""Workers on a Ray cluster. This is the only file that knows Ray, and it writes nothing.

Each worker is an actor: a process that holds the model and computes one part of a run at a time
(``editbench.run.worker``). ``Cluster`` has the methods of a ``Worker``, which several threads may
call at once; each call waits for a free actor. What goes to an actor and comes back is bytes and
texts, so that nothing of ours is pickled.

Statistics are measured once on each machine, before the cells, as a task of their own. They are
not sent: those of a large model take gigabytes a layer, and the machines measure at the same time.
Their cost is in the record of the first row that needed them, as in a run without a cluster.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from editbench.cost import Measured
from editbench.errors import (
    EditbenchError,
    MethodError,
    MissingPackageError,
    ModelError,
    OptionError,
)
from editbench.records.environment import packages
from editbench.records.schema import ArtifactRecord
from editbench.run.actor import Actor, error_of, said_of
from editbench.run.keys import code_digest
from editbench.run.places import ANSWER_SECONDS, Request, room, silent, started_here
from editbench.run.plan import Plan
from editbench.run.wire import plan_to_json
from editbench.run.worker import Computed, Identity

# Read at the import: nothing is reported to Ray's makers, and no call after the end of a run joins
# a cluster again.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
try:
    import ray
except ImportError:
    raise MissingPackageError("--workers", "ray", "ray") from None

PLACE_SECONDS = 120.0
"""How long an actor may take to start on a machine that has room for it."""
RETRIES = 3
"""How often a part is handed out again after its worker has died."""
OBJECT_STORE = 200 * 2**20
"""Bytes of shared memory of a cluster that is started here: a cell's files are small."""
SENT = 32
"""How many plans and answers Ray keeps for the workers."""


@dataclass(frozen=True)
class Seat:
    """An actor that has loaded the model."""

    handle: Any
    host: str
    machine: str


class Cluster:
    """Workers that hold the model of ``plans``, on the cluster that ``request`` names.

    A context manager, which stops the workers at its end. ``tell`` gets sentences about what
    happens, also from other threads.

    Raises:
        OptionError: nothing answers at the address, or there is no room for the workers.
        ModelError: a worker cannot load the model or has another version of editbench, or two
            workers differ in what they hold or in their hardware.
        EditbenchError: a worker cannot see a file that a plan names.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        name: str,
        request: Request,
        tell: Callable[[str], None],
        device: str = "auto",
        skip_memory_check: bool = False,
    ):
        self._tell = tell
        self._loading = ([plan_to_json(plan) for plan in plans], name, device, skip_memory_check)
        self._changed = threading.Condition()
        self._seats: list[Seat] = []
        """All living actors; the idle ones are also in ``_free``."""
        self._free: list[Seat] = []
        self._starting: dict[threading.Thread, Any] = {}
        """The actors that will take the place of dead ones, by the thread that waits for each."""
        self._closed = False
        self._about: dict[str, Any] = {}
        """What the first actor said when it had loaded the model; all others must agree."""
        self._measured: dict[str, dict[str, Measured]] = {}
        """Key of a cell -> machine -> what its statistics took there."""
        self._sent: dict[int, tuple[object, Any]] = {}
        """What several calls share, by its id: the object itself, and Ray's reference to it."""
        address = connect(request.address)
        if request.address == "auto" and address != "local":
            tell(f"Workers run on the Ray cluster at {address}.")
        try:
            self._start(request)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers, and the cluster if it was started here. Calls under way fail."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            starting = dict(self._starting)
        for handle in (*(seat.handle for seat in self._seats), *starting.values()):
            ray.kill(handle)
        for thread in starting:
            thread.join(ANSWER_SECONDS)
        ray.shutdown()

    # --- the methods of a worker -----------------------------------------------------------------

    def check_artifacts(self, plan: Plan, names: Iterable[str]) -> dict[str, ArtifactRecord]:
        """As ``Worker.check_artifacts``."""
        said = self._call(
            "the check of artifacts", "check_artifacts", self._plan(plan), _text(names)
        )
        return cast("dict[str, ArtifactRecord]", json.loads(said))

    def ask_tasks(self, plan: Plan) -> tuple[bytes, dict[str, str]]:
        """As ``Worker.ask_tasks``."""
        if plan.config.tasks:
            self._tell(f"Seed {plan.config.seed}: the base is asked the retention tasks.")
        samples, lost = self._call("the retention tasks", "ask_tasks", self._plan(plan))
        return samples, json.loads(lost)

    def ask_base(self, plan: Plan, samples: bytes) -> bytes:
        """As ``Worker.ask_base``."""
        self._tell(f"Seed {plan.config.seed}: the base is asked about the facts.")
        return cast("bytes", self._call("the base", "ask_base", self._plan(plan), samples))

    def statistics(self, plan: Plan, keys: Mapping[str, str]) -> list[Callable[[], None]]:
        """Return one task for each machine, if any row has statistics."""
        rows = {name: key for name, key in keys.items() if plan.methods[name].needs_covariance}
        machines = dict.fromkeys(seat.machine for seat in self._seats)
        return [functools.partial(self._measure, plan, rows, at) for at in machines if rows]

    def compute(
        self, plan: Plan, name: str, key: str, answers: bytes, artifact: ArtifactRecord | None
    ) -> Computed:
        """As ``Worker.compute``. A cell whose workers have all died is a failed one."""
        prepared, what = _text(self._measured.get(key, {})), f"{name}, seed {plan.config.seed}"
        arguments = self._plan(plan), name, key, self._shared(answers), _text(artifact), prepared
        try:
            files, failed, _ = self._call(what, "compute", *arguments)
        except WorkerDied as error:
            return self.fail(plan, name, key, error, artifact)
        return Computed(files, failed)

    def fail(
        self, plan: Plan, name: str, key: str, error: Exception, artifact: ArtifactRecord | None
    ) -> Computed:
        """As ``Worker.fail``."""
        said = said_of(error)
        arguments = self._plan(plan), name, key, said, _text(artifact)
        return Computed(self._call(f"the record of {name}", "fail", *arguments), True)

    def _measure(self, plan: Plan, rows: Mapping[str, str], at: str) -> None:
        """Have a worker on the machine ``at`` measure the statistics of ``rows``: row -> key."""
        try:
            said = self._call(
                f"the statistics of {', '.join(rows)}",
                "prepare",
                self._plan(plan),
                _text(rows),
                at=at,
            )
        except WorkerDied:
            return  # whoever needs them next measures them in its cell
        for name, taken in json.loads(said).items():
            self._measured.setdefault(rows[name], {})[at] = taken
            if (seconds := taken["seconds"]["precompute"]) >= 1:  # else they were there already
                self._tell(f"Statistics of {name} on {at.partition(':')[0]}: {seconds:.0f} s.")

    # --- calls ------------------------------------------------------------------------------------

    def _call(self, what: str, method: str, *arguments: Any, at: str | None = None) -> Any:
        """Return what a free worker's ``method`` returns; hand ``what`` out again if it dies.

        Args:
            at: the machine that the worker must be on.

        Raises:
            WorkerDied: it has died ``RETRIES`` + 1 times, or none is left on the machine.
            MethodError: no worker is left at all.
        """
        for again in range(RETRIES + 1):
            seat = self._take(at)
            try:
                value, error, heard = ray.get(getattr(seat.handle, method).remote(*arguments))
            except ray.exceptions.RayError as died:
                reason = _first_line(died)
                self._lose(seat)
                next_step = "is handed out again" if again < RETRIES else "is given up"
                self._say(f"The worker on {seat.host} has died; {what} {next_step}. {reason}")
                continue
            # A method has left the model's weights changed for good.
            if method == "compute" and not error and value[2]:
                self._lose(seat)
            else:
                self._give_back(seat)
            for sentence in heard:
                self._tell(f"{seat.host}, {what}: {sentence}")
            if error:
                raise error_of(error)
            return value
        raise WorkerDied(f"Its worker has died {RETRIES + 1} times. {reason}")

    def _say(self, text: str) -> None:
        """Tell of a death, unless it is that of all at the end."""
        if not self._closed:
            self._tell(text)

    def _take(self, at: str | None) -> Seat:
        """Wait for a free worker, on the machine ``at`` if one is named."""
        with self._changed:
            while True:
                if self._closed:
                    raise WorkerDied("The run was stopped.")
                if not self._seats and not self._starting:
                    raise MethodError(
                        "All workers have died. Finished cells are kept; the same command goes on "
                        "from there."
                    )
                if at and all(seat.machine != at for seat in self._seats):
                    raise WorkerDied(f"No worker is left on {at}.")
                for seat in self._free:
                    if at in (None, seat.machine):
                        self._free.remove(seat)
                        return seat
                self._changed.wait()

    def _give_back(self, seat: Seat) -> None:
        with self._changed:
            self._free.append(seat)
            self._changed.notify_all()

    def _lose(self, seat: Seat) -> None:
        """Take ``seat`` out, and start a worker in its place meanwhile."""
        with self._changed:
            if self._closed:
                return
            self._seats.remove(seat)
            ray.kill(seat.handle)
            handle = self._actors.remote(self.threads)
            thread = threading.Thread(target=self._replace, args=[handle], daemon=True)
            self._starting[thread] = handle
            thread.start()
            self._changed.notify_all()

    def _replace(self, handle: Any) -> None:
        found: list[Seat] = []
        try:
            found = self._seated([handle])
        except Exception as error:
            self._say(f"No worker takes its place: {_first_line(error)}")
        with self._changed:
            del self._starting[threading.current_thread()]
            self._seats += found
            self._free += found
            self._changed.notify_all()

    def _plan(self, plan: Plan) -> Any:
        return self._shared(plan, plan_to_json)

    def _shared(self, value: Any, to_bytes: Callable[[Any], bytes] = bytes) -> Any:
        """Return Ray's reference to ``value``, which is sent to each machine once."""
        with self._changed:
            if id(value) not in self._sent:
                while len(self._sent) >= SENT:
                    del self._sent[next(iter(self._sent))]
                self._sent[id(value)] = value, ray.put(to_bytes(value))
            return self._sent[id(value)][1]

    # --- the start --------------------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.size, gpus, self.threads = room(
            request, [(int(node.get("CPU", 0)), float(node.get("GPU", 0))) for node in nodes]
        )
        _check_free(self.size * self.threads, self.size * gpus)
        self._actors = ray.remote(Actor).options(
            num_cpus=self.threads,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": _environment(self.threads, gpus)},
        )
        self._seats = self._seated([self._actors.remote(self.threads) for _ in range(self.size)])
        self._free = list(self._seats)
        self.identity = Identity(**self._about["identity"])
        hosts = ", ".join(dict.fromkeys(seat.host for seat in self._seats))
        each = f"{self.threads} thread{'s' * (self.threads > 1)}"
        each += f" and {gpus:g} GPU{'s' * (gpus > 1)}" if gpus else ""
        self._tell(f"{self.size} worker{'s' * (self.size > 1)} on {hosts}, {each} each.")
        for warning in self._about["warnings"]:
            self._tell(warning)

    def _seated(self, handles: Sequence[Any]) -> list[Seat]:
        """Wait until actors have started, have the driver's version, and hold the same model.

        Raises:
            ModelError: one has not, or does not. None of ``handles`` is then left.
            EditbenchError: one cannot see a file.
        """
        try:
            seats = self._greeted(handles)
            said = [seat.handle.load.remote(*self._loading) for seat in seats]
            for seat, loaded in zip(seats, said, strict=True):
                self._agree(seat, json.loads(_answer(loaded, f"Worker on {seat.host}: ")))
            return seats
        except BaseException:
            for handle in handles:
                ray.kill(handle)
            raise

    def _greeted(self, handles: Sequence[Any]) -> list[Seat]:
        asked = [handle.about.remote() for handle in handles]
        _, late = ray.wait(asked, num_returns=len(asked), timeout=PLACE_SECONDS)
        if late:
            raise ModelError(
                f"{len(late)} of {len(asked)} workers have not started in {PLACE_SECONDS:.0f} s. "
                "Are the machines busy? Use fewer --workers."
            )
        seats = []
        ours = {"code": code_digest(), **packages()}
        for handle, reference in zip(handles, asked, strict=True):
            about = json.loads(_answer(reference, "A worker could not start: "))
            theirs = {"code": about["code"], **about["packages"]}
            if other := next((name for name in ours if ours[name] != theirs.get(name)), None):
                raise ModelError(
                    f"{'editbench (its code)' if other == 'code' else other} is {ours[other]} here "
                    f"and {theirs.get(other)} on {about['host']}. Install the same versions on all "
                    "machines."
                )
            seats.append(Seat(handle, about["host"], about["machine"]))
        return seats

    def _agree(self, seat: Seat, about: dict[str, Any]) -> None:
        """Check that an actor has the model and the hardware of the first one.

        Rows are compared with one base, and another processor rounds otherwise.
        """
        first = self._about = self._about or {**about, "host": seat.host}
        for part in ("identity", "computes"):
            for name, value in about[part].items():
                if value != first[part][name]:
                    raise ModelError(
                        f"Workers differ: {name} is {first[part][name]} on {first['host']} and "
                        f"{value} on {seat.host}. All rows of a table need the same."
                    )


class WorkerDied(EditbenchError):
    """Too many workers have died of the same part of a run."""


def _answer(reference: Any, where: str) -> Any:
    """Return what an actor said at the start of a run.

    Raises:
        EditbenchError: what it raised, with ``where`` in front.
        ModelError: it raised something else, or could not be started.
    """
    try:
        value, error, _ = ray.get(reference)
    except ray.exceptions.RayError as died:
        raise ModelError(
            f"{where}{_first_line(died)} Is the same editbench installed on all machines?"
        ) from None
    if not error:
        return value
    raised = error_of(error, where)
    if isinstance(raised, EditbenchError):
        raise raised
    raise ModelError(f"{where}{json.loads(error)['name']}: {json.loads(error)['text']}")


def _text(value: object) -> str:
    plain = value if value is None or isinstance(value, Mapping) else list(cast("Any", value))
    return json.dumps(plain)


def _first_line(error: BaseException) -> str:
    """Return the first lines of Ray's long explanations, as one, without those that name ids."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not re.match(r"\w+: ", line)]
    # What follows are guesses.
    return " ".join((told or lines)[:2]).partition(" Some common causes")[0][:300]


def _environment(threads: int, gpus: float) -> dict[str, str]:
    """Return the variables that fix an actor's threads, and hide GPUs that are not its own."""
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return {"OMP_NUM_THREADS": str(threads), **hidden}


def _check_free(cpus: int, gpus: float) -> None:
    """Check that nobody else uses the CPUs and GPUs; those of a run that has just ended come back.

    Raises:
        OptionError: they are in use.
    """
    end = time.monotonic() + ANSWER_SECONDS
    while True:
        free = ray.available_resources()
        if free.get("CPU", 0) >= cpus and free.get("GPU", 0) >= gpus:
            return
        if time.monotonic() > end:
            raise OptionError(
                f"The workers need {cpus} CPUs and {gpus:g} GPUs, and {free.get('CPU', 0):g} CPUs "
                f"and {free.get('GPU', 0):g} GPUs of the cluster are free. Use fewer --workers, or "
                "wait until others have ended."
            )
        time.sleep(0.2)


def connect(address: str) -> str:
    """Join the Ray cluster at ``address``, and return the address that was used.

    ``auto`` is the one that RAY_ADDRESS names, else the one that ``ray start`` has started on this
    machine, else one that is started here for this run, which is called ``local``.

    Raises:
        OptionError: nothing answers there, or Ray refuses.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or started_here() or "local"
    if "://" in address:
        raise OptionError(
            f"--ray {address}: Ray's client protocol is not supported. Run this command on a "
            "machine of the cluster, with --ray auto."
        )
    more: dict[str, Any] = {}
    if address == "local":
        more = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    elif why := silent(address):
        raise OptionError(f"--ray {address}: no Ray cluster answers there ({why}).")
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **more)
    # Ray raises errors of many types, and ends the process where it gets no answer.
    except (Exception, SystemExit) as error:
        raise OptionError(f"--ray {address}: {_first_line(error)}") from None
    return address
