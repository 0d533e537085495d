"""The processes: ``python -m editbench.methods._easyedit.child SOCKET`` is the server.

The server imports what EasyEdit needs and forks a child for each request ``start``, which brings
the file descriptors of two pipes and of a file for what is printed. It ends with its socket.

A child reads one JSON object a line from the first pipe and writes one to the second. The first
request is an edit (``run.py``). If the edited model is a wrapper, which no change of weights
describes, the child keeps it and answers the requests of ``serve.py`` until it is ended.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Protocol


class Handler(Protocol):
    """Answers requests."""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply, ready for JSON. Whatever it raises becomes the reply's ``error``."""
        ...


def main() -> None:
    """Serve until the parent closes its end of the socket."""
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        _import()
        while True:
            message, fds, _, _ = socket.recv_fds(parent, 1 << 16, 3)
            if not message:
                return
            try:
                reply = _serve(json.loads(message), fds, parent)
            except OSError as error:
                reply = {"error": str(error)}
            for fd in fds:
                os.close(fd)
            parent.sendall(json.dumps(reply).encode() + b"\n")


def _import() -> None:
    """Import what takes long, so that the forks have it."""
    import datasets  # noqa: F401
    import matplotlib.style  # noqa: F401
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import editbench.methods._easyedit.run  # noqa: F401


def _serve(request: dict[str, Any], fds: list[int], parent: socket.socket) -> dict[str, Any]:
    if "reap" in request:
        waited = [os.waitpid(pid, 0)[1] for pid in request["reap"]]
        return {"codes": [os.waitstatus_to_exitcode(status) for status in waited]}
    if (pid := os.fork()) == 0:
        try:
            parent.close()
            _child(request, *fds)
        finally:
            os._exit(1)  # never back into the server's loop
    return {"pid": pid}


def _child(request: dict[str, Any], requests: int, replies: int, printed: int) -> None:
    """Answer requests until the parent closes its end."""
    import torch

    os.setsid()
    os.chdir(request["start"])
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", encoding="utf-8", buffering=1)
    sys.addaudithook(_stay_offline)
    torch.set_num_threads(request["threads"])
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(requests, lines), daemon=True).start()
    handler: Handler | None = None
    with os.fdopen(replies, "w", encoding="utf-8", buffering=1) as out:
        while True:
            asked = json.loads(lines.get())
            try:
                if handler is None:
                    reply, handler = _first(asked)
                else:
                    reply = handler.answer(asked)
                line = json.dumps(reply, allow_nan=False)
            except BaseException as error:  # SystemExit too: EasyEdit calls exit()
                traceback.print_exc()
                line = json.dumps({"error": sentence(error)})
            out.write(line + "\n")


def _first(request: dict[str, Any]) -> tuple[dict[str, Any], Handler | None]:
    """Make the edit; return the reply, and what serves the edited model if it stays here."""
    from editbench.methods._easyedit.run import run

    reply, live = run(request, Path.cwd())
    if live is None:
        return reply, None
    from editbench.methods._easyedit.serve import Server

    return {**reply, "live": True}, Server(*live)


def sentence(error: BaseException) -> str:
    """Return an error as one sentence: its class, its first line, and EasyEdit's line of code."""
    from editbench.errors import EditbenchError

    if isinstance(error, EditbenchError):
        return str(error)
    first = next(iter(str(error).strip().splitlines()), "").rstrip(".")
    name = type(error).__name__
    said = f"{name}: {first[:300]}" if first else name
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if "easyeditor" in frame.filename]
    if not theirs:
        return f"{said}."
    path = theirs[-1].filename.rpartition("easyeditor")[2].lstrip("/")
    return f"{said} (easyeditor/{path}, line {theirs[-1].lineno})."


def _read(requests: int, lines: queue.Queue[str]) -> None:
    with os.fdopen(requests, encoding="utf-8") as source:
        for line in source:
            lines.put(line)
    # The parent is gone: nobody waits for an edit that may be under way.
    os._exit(0)


def _stay_offline(event: str, args: tuple[Any, ...]) -> None:
    """Refuse connections to other machines: nothing may be downloaded while a cell runs."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        raise OSError(f"it tried to reach {args[1][0]}, and nothing is downloaded here")
    if event == "socket.getaddrinfo" and args[0] not in (None, "localhost"):
        raise OSError(f"it tried to reach {args[0]}, and nothing is downloaded here")


if __name__ == "__main__":
    main()
