"""The child process: ``python -m editbench.methods._easyedit.child REQUESTS REPLIES``.

It reads one JSON object a line from the file descriptor REQUESTS and writes one to REPLIES. The
first request is ``edit`` (``run.py``). If the edited model is a wrapper, which no change of weights
describes, the process keeps it and answers the requests of ``serve.py`` until it is ended.
"""

from __future__ import annotations

import json
import os
import queue
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
    """Answer requests until the parent closes its end."""
    requests, replies = map(int, sys.argv[1:])
    sys.addaudithook(_stay_offline)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(requests, lines), daemon=True).start()
    handler: Handler | None = None
    with os.fdopen(replies, "w", encoding="utf-8", buffering=1) as out:
        while True:
            request = json.loads(lines.get())
            try:
                if handler is None:
                    reply, handler = _first(request)
                else:
                    reply = handler.answer(request)
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
