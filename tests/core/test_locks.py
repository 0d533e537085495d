"""Locks hold between processes, and are free once their process is gone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from editbench.locks import HeldError, take_lock

HOLD = """
import sys
from pathlib import Path
from editbench.locks import take_lock
lock = take_lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_is_kept_out_until_it_is_killed(tmp_path):
    path = tmp_path / ".lock"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=pipe, stdout=pipe) as process:
        assert process.stdout.readline() == b"held\n"
        for _ in range(2):  # who was refused has not touched the file
            with pytest.raises(HeldError, match=str(process.pid)):
                take_lock(path)
        process.kill()
        process.wait()
        lock = take_lock(path)
    assert lock is not None and path.read_text() == str(os.getpid())
    lock.release()
    assert path.exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_drive_without_locks_gives_none(code, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert take_lock(tmp_path / ".lock") is None
    monkeypatch.undo()
    assert take_lock(tmp_path / ".lock") is not None
