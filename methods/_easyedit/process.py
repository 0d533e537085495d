"""``Child``: the process that holds EasyEdit, asked over two pipes.

EasyEdit keeps module globals, prints, and writes into its working folder, so each cell has a
process and a temporary folder of its own. One JSON object a line goes over the pipes; tensors lie
in safetensors files in the folder. What the process prints goes into a file there.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from editbench.errors import MethodError

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
}
"""No network, whatever a library would look up."""


class Child:
    """A child process that answers requests. Close it, or use it in a ``with``."""

    def __init__(self, who: str, folder: Path, process: subprocess.Popen[bytes], ends: _Ends):
        self.who = who
        """Begins each error message, such as ``easyedit-memit``."""
        self.folder = folder
        """The process's working folder, which ``close`` removes."""
        self._process, self._ends = process, ends
        self._rest = b""
        # also when it is never closed: at garbage collection, or at the end of the interpreter
        self._finish = weakref.finalize(self, _end, process, ends, folder)

    @classmethod
    def start(cls, who: str) -> Child:
        """Start the process, which has this interpreter's packages and number of threads."""
        folder = Path(tempfile.mkdtemp(prefix="editbench-easyedit-"))
        to_child, requests = os.pipe()
        replies, from_child = os.pipe()
        with (folder / "printed.txt").open("wb") as printed:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    f"{__package__}.child",
                    *map(str, (to_child, from_child)),
                ],
                cwd=folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                pass_fds=(to_child, from_child),
                start_new_session=True,  # a process group of its own, and no Ctrl-C from the terminal
            )
        os.close(to_child)
        os.close(from_child)
        return cls(who, folder, process, (requests, replies))

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._finish.alive and self._process.poll() is None

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
            reply = self._line(time.monotonic() + timeout_s)
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
            left = deadline - time.monotonic()
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
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        printed = (self.folder / "printed.txt").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        self.close()
        last = f"; it last printed {lines[-1][:200]!r}" if lines else ""
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            why = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
            return f"its process was killed by {name}{why}{last}"
        return f"its process ended with exit code {code}{last}"


_Ends = tuple[int, int]
"""The parent's ends of the pipes: to write requests, and to read replies."""


def _environment() -> dict[str, str]:
    threads = str(torch.get_num_threads())
    return {**os.environ, **OFFLINE, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": "0"}


def _write(end: int, data: bytes) -> None:
    while data:
        data = data[os.write(end, data) :]


def _end(process: subprocess.Popen[bytes], ends: _Ends, folder: Path) -> None:
    """Kill the process group by its id, and remove the folder."""
    try:
        # It leads its own group, which no other process can take over before ``wait``.
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    for end in ends:
        os.close(end)
    shutil.rmtree(folder, ignore_errors=True)
