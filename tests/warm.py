"""A server that has imported everything a command needs, and runs each command in a fork of itself.

Importing torch, transformers and lm-eval takes several seconds, a run of a tiny model less than
one. A fork is a real process: it can be killed, reacts to Ctrl-C, and leaves behind the same files
as a process that started from scratch. The server itself never computes anything, because a fork
does not inherit the threads that torch would then have started.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Events of ``sys.addaudithook`` that change files.
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
PACKAGES = (
    "editbench",
    *(f"editbench.{room}" for room in ("methods", "corpora", "eval", "leaderboard")),
)
LATE = (
    "lm_eval.evaluator",
    "lm_eval.models.huggingface",
    "lm_eval.tasks",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_mixed",
    "matplotlib.backends.backend_svg",
    "matplotlib.pyplot",
    "pyarrow.parquet",
    "pydantic.main",
    "pydantic.types",
    "rich.progress",
    "torch.distributed.fsdp",
    "typer.rich_utils",
)
"""Modules that a command imports only when it needs them."""


# --- in the server ----------------------------------------------------------------------------


def serve() -> None:
    """Obey the requests on stdin, one JSON object per line, until stdin is closed."""
    # Ctrl-C in the terminal goes to all processes; the tests end the server by closing its stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load()
    gc.freeze()  # else the first garbage collection of every fork would copy all memory pages
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                obey(**request)
        print(json.dumps(answer), flush=True)


def load() -> None:
    """Import the package, and the modules that it would import later."""
    import transformers

    _ = transformers.LlamaForCausalLM  # transformers imports its models on first use
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, f"{package}."):
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)


def obey(
    arguments: list[str],
    cwd: str,
    out: str,
    err: str,
    env: dict[str, str],
    threads: int,
    watched: str | None,
    die_at: int,
) -> None:
    """Run the command, and end this process with its exit code.

    If ``watched`` is given, count the changes to files below ``watched/run`` and ``watched/cache``,
    write their number to ``watched/changes``, and die by SIGKILL at change number ``die_at``.
    """
    code, changes = 0, None
    try:
        import torch

        from editbench.cli import main

        signal.signal(signal.SIGINT, signal.default_int_handler)
        for path, number in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), number)
        os.environ.update(env)
        os.chdir(cwd)
        torch.set_num_threads(threads)
        changes = count_changes(watched, die_at) if watched else None
        sys.argv = ["editbench", *arguments]
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if changes is not None:
            Path(f"{watched}/changes").write_text(str(changes()))
        # End here: a fork that returned would go on as a second server.
        os._exit(code)


def count_changes(folder: str, die_at: int) -> Callable[[], int]:
    """Count the changes to files from here on; a write at which to die stops half way."""
    changes, write = 0, os.write

    def count() -> bool:
        nonlocal changes
        changes += 1
        return changes == die_at

    def before(event: str, args: tuple[Any, ...]) -> None:
        inside = event in CHANGES and str(args[0]).startswith((f"{folder}/run", f"{folder}/cache"))
        if inside and (event != "open" or args[2] & (os.O_WRONLY | os.O_RDWR)) and count():
            os.kill(os.getpid(), signal.SIGKILL)

    def torn(file: int, data: bytes) -> int:
        if count():
            write(file, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(file, data)

    # Python raises no audit event for writes, so they are counted in a replacement of os.write.
    sys.addaudithook(before)
    os.write = torn
    return lambda: changes


# --- in the tests -----------------------------------------------------------------------------


class Server:
    """The server's process, seen from the tests; a context manager that ends it."""

    def __enter__(self) -> Server:
        self._folder = tempfile.TemporaryDirectory(prefix="editbench-warm-")
        self._count = 0
        settings = {
            "EDITBENCH_PLUGINS": "none",
            "PYTHONHASHSEED": "7",  # other than in the tests, so no result may depend on it
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings},
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._folder.cleanup()

    def ask(self, **request: Any) -> Any:
        """Send ``request`` to the server and return its answer."""
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        *arguments: Any,
        cwd: Path,
        said: Path | None = None,
        threads: int | None = None,
        watched: Path | None = None,
        die_at: int = 0,
        **env: str,
    ) -> Running:
        """Start ``editbench`` with ``arguments`` in ``cwd``.

        Args:
            said: the file for stdout and stderr. Default: two files, which ``communicate`` reads.
            threads: number of torch's threads. Default: as many as this process has.
            watched: a folder whose changes are counted (``count_changes``).
            die_at: the change at which the process kills itself; 0 for none.
            env: variables to set in addition to this process's EDITBENCH variables.
        """
        import torch

        self._count += 1
        out, err = (f"{self._folder.name}/{self._count}.{name}" for name in ("out", "err"))
        own = {name: value for name, value in os.environ.items() if name.startswith("EDITBENCH_")}
        pid = self.ask(
            arguments=[*map(str, arguments)],
            cwd=str(cwd),
            out=str(said or out),
            err=str(said or err),
            env={**own, **env},
            threads=threads or torch.get_num_threads(),
            watched=str(watched) if watched else None,
            die_at=die_at,
        )
        return Running(self, pid, str(said or out), str(said or err))


class Running:
    """A command that a server has started, with the methods of ``subprocess.Popen``."""

    def __init__(self, server: Server, pid: int, out: str, err: str):
        self.server, self.pid, self._paths = server, pid, (out, err)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.server.ask(poll=self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 120) -> int:
        """Wait for the exit code and return it; kill the process after ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"the command still runs after {timeout} s")
            time.sleep(0.005)
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Return what the command wrote to stdout and to stderr, once it has ended."""
        self.wait(timeout)
        out, err = (Path(path).read_text(encoding="utf-8") for path in self._paths)
        return out, err


if __name__ == "__main__":
    serve()
