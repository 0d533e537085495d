"""Lock a file for this process, on every system. The lock is free again once the process is gone.

Locks are those of the system (``filelock``: flock on Linux and macOS, LockFileEx on Windows). Some
network drives have none.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What a drive without locks answers; Windows says EINVAL."""


class HeldError(Exception):
    """The lock is held. ``args[0]`` is the id of the process that holds it, empty if unknown."""


def take_lock(path: Path) -> BaseFileLock | None:
    """Take the lock of ``path``, a file that is made; ``None`` where the drive has no locks.

    The file stays when the lock is released, and holds the id of its last process.

    Raises:
        HeldError: it is held, by another process or by this one.
        OSError: the file cannot be made or written.
    """
    # A soft lock, which is a file that exists, would outlive a process that was killed.
    lock = FileLock(path, thread_local=False, fallback_to_soft=False, on_acquired=_write_id)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise HeldError(_holder(path)) from None
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return lock


def _write_id(file: int) -> None:
    os.ftruncate(file, 0)
    os.write(file, str(os.getpid()).encode())


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # Windows lets nobody read a file that is locked
        return ""
