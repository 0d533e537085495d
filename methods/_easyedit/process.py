"""``Child``: the process that holds EasyEdit, asked over two pipes.

EasyEdit keeps module globals, prints, and writes into its working folder, so each edit has a
process and a folder of its own. One JSON object a line goes over the pipes; tensors lie in
safetensors files in the folder. What the process prints goes into a file there.

Importing what EasyEdit needs takes seconds. One server process (``child.py``) imports it once, and
each child is a fork of it.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from editbench import helpers
from editbench.errors import MethodError
from editbench.hub import cache_dir

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
}
"""No network, whatever a library would look up."""
PRINTED = 1 << 16
"""Bytes at the end of what a process printed, among which its last line is looked for."""


class Child:
    """A process that answers requests. Close it, or use it in a ``with``."""

    def __init__(self, who: str, folder: Path, server: _Server, pid: int, ends: _Ends):
        self.who = who
        """Begins each error message, such as ``easyedit-memit``."""
        self.folder = folder
        """The process's working folder, which ``close`` removes."""
        self._server, self._pid, self._ends = server, pid, ends
        self._rest = b""
        # also when it is never closed: at garbage collection, or at the end of the interpreter
        self._finish = weakref.finalize(self, _end, server, pid, ends, folder)

    @classmethod
    def start(cls, who: str) -> Child:
        """Start the process, which has this interpreter's packages and number of threads.

        Raises:
            MethodError: the system starts no process.
        """
        server, folder = _Server.running(), new_folder()
        to_child, requests = os.pipe()
        replies, from_child = os.pipe()
        with (folder / "printed.txt").open("wb") as printed:
            fds = [to_child, from_child, printed.fileno()]
            try:
                pid = server.fork(folder, fds)
            except OSError as error:
                for end in (requests, replies):
                    os.close(end)
                raise MethodError(f"{who}: no process could be started ({error}).") from None
            finally:
                for end in (to_child, from_child):
                    os.close(end)
        helpers.PIDS.add(pid)
        return cls(who, folder, server, pid, (requests, replies))

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        if not self._finish.alive:
            return False
        poll = select.poll()
        poll.register(self._ends[1])
        return not any(event & select.POLLHUP for _, event in poll.poll(0))

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send ``request`` and return the reply.

        Raises:
            MethodError: if the process fails at the request (it then goes on), has ended, or does
                not reply in time (it is then closed). The message is one sentence.
        """
        if not self._finish.alive:
            raise MethodError(f"{self.who}: its process was closed.")
        line = json.dumps(request, allow_nan=False) + "\n"
        try:
            _write(self._ends[0], line.encode())
            reply = self._line(monotonic() + timeout_s)
        except (BrokenPipeError, EOFError):
            raise MethodError(f"{self.who}: {self._how_it_ended()}.") from None
        except TimeoutError:
            self.close()
            raise MethodError(
                f"{self.who}: no answer within {timeout_s:g} seconds, so its process was ended "
                "(option time_limit)."
            ) from None
        except BaseException:  # Ctrl-C: whatever the process does, nobody waits for it
            self.close()
            raise
        answer: dict[str, Any] = json.loads(reply)
        if "error" in answer:
            raise MethodError(f"{self.who}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process and remove its folder; again, it does nothing."""
        self._finish()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, deadline: float) -> bytes:
        """Return the next line from the process, without its end."""
        while b"\n" not in self._rest:
            left = deadline - monotonic()
            if left <= 0 or not select.select([self._ends[1]], [], [], left)[0]:
                raise TimeoutError
            part = os.read(self._ends[1], 1 << 16)
            if not part:
                raise EOFError
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _how_it_ended(self) -> str:
        """Close what is left of the process, and return how it ended and its last printed line."""
        with (self.folder / "printed.txt").open("rb") as printed:
            printed.seek(max(0, printed.seek(0, os.SEEK_END) - PRINTED))
            text = printed.read().decode("utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        last = f"; it last printed {lines[-1][:200]!r}" if lines else ""
        code = self._finish()
        if code is None:
            return f"its process ended{last}"
        if code >= 0:
            return f"its process ended with exit code {code}{last}"
        name = signal.Signals(-code).name
        why = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return f"its process was killed by {name}{why}{last}"


_Ends = tuple[int, int]
"""The parent's ends of the pipes: to write requests, and to read replies."""


class _Server:
    """The process that the children are forks of; one for this interpreter."""

    _one: _Server | None = None

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                # -P: a file in the current folder cannot stand for a package. The warning is of a
                # fork beside threads; those of the libraries sleep, and no fork needs them.
                [
                    *(sys.executable, "-P", "-W", "ignore::DeprecationWarning"),
                    *("-m", f"{__package__}.child", str(theirs.fileno())),
                ],
                env={**os.environ, **OFFLINE, "PYTHONHASHSEED": "0"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is the parent's to handle
            )
        self.socket, self.owner = ours, os.getpid()
        self.ended: list[int] = []
        """Children that were killed and not reaped, so that their ids are nobody else's."""
        self._busy = False
        self._replies = ours.makefile("r", encoding="utf-8")

    @classmethod
    def running(cls) -> _Server:
        """Return the server, started if there is none, or if this process is a fork itself."""
        one = cls._one
        if one is None or one.owner != os.getpid() or one.process.poll() is not None:
            one = cls._one = _Server()
            atexit.register(one.socket.close)  # the server ends when its socket does
        return one

    def fork(self, folder: Path, fds: list[int]) -> int:
        """Return the process id of a new child in ``folder``.

        Raises:
            OSError: the server is gone, or cannot fork.
        """
        start = {"start": str(folder), "threads": torch.get_num_threads()}
        return int(self._ask(start, fds)["pid"])

    def reap(self) -> dict[int, int]:
        """Reap the children in ``ended``, and return their exit codes by their ids.

        A child may end in the middle of another request, by garbage collection. It then waits for
        the next one that ends.
        """
        if self._busy:
            return {}
        pids, self.ended = self.ended, []
        try:
            return dict(zip(pids, self._ask({"reap": pids}, [])["codes"], strict=True))
        except OSError:  # the server is gone
            return {}

    def _ask(self, request: Mapping[str, Any], fds: list[int]) -> dict[str, Any]:
        """Send ``request`` with file descriptors, and return the reply.

        Raises:
            OSError: the server is gone, or cannot fork.
        """
        self._busy = True
        try:
            socket.send_fds(self.socket, [json.dumps(request).encode() + b"\n"], fds)
            line = self._replies.readline()
        finally:
            self._busy = False
        if not line:
            raise ConnectionError("the server process ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise OSError(answer["error"])
        return answer


def new_folder() -> Path:
    """Return a new folder in the cache, and remove those that ended processes have left there."""
    place = cache_dir() / "easyedit"
    place.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()  # machines and containers may share the cache, and not their ids
    for folder in place.iterdir():
        owner, _, rest = folder.name.removeprefix(f"{host}.").partition("-")
        if rest and owner.isdigit() and _has_ended(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{host}.{os.getpid()}-", dir=place))


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


def _write(end: int, data: bytes) -> None:
    while data:
        data = data[os.write(end, data) :]


def _end(server: _Server, pid: int, ends: _Ends, folder: Path) -> int | None:
    """Kill the process group by its id, remove the folder, and return the exit code, if known."""
    if server.owner != os.getpid():
        return None  # in a fork of this interpreter, which owns no children
    try:
        # It leads its own group, and the id cannot be another's before the server reaps it.
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    helpers.PIDS.discard(pid)
    server.ended.append(pid)
    for end in ends:
        os.close(end)
    shutil.rmtree(folder, ignore_errors=True)
    return server.reap().get(pid)
