"""Writes a run: one folder, one process, each cell as a whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editbench.errors import RecordError
from editbench.files import (
    in_plain_words,
    jsonable,
    sync_folder,
    write_json_atomic,
    write_synced,
)
from editbench.records.reading import own_cells, read_run, read_summary, summaries_of, summary_path
from editbench.records.schema import SCHEMA
from editbench.types import digest

try:
    import fcntl
except ImportError:  # Windows: the pid is noted, two writers are not kept apart.
    fcntl = None  # type: ignore[assignment]


class RunStore:
    """One run folder, opened for writing by one process. A context manager: leaving it frees the lock."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.cells = self.path / "cells"
        self.config: dict[str, Any] = {}
        self.locked = False
        """Whether a second writer would be refused: not on Windows and on some network drives, where locks are missing."""
        self._lock: int | None = None

    def open(self, config: Mapping[str, Any]) -> RunStore:
        """Create the folder, or resume it if it holds the same ``config``; leftovers of a crash are removed.

        Raises:
            RecordError: the folder is foreign, locked, not writable or of another configuration; ``run.json`` is corrupt.
        """
        self.config = jsonable(config)
        path = self.path / "run.json"
        with in_plain_words(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise RecordError(
                    f"{self.path} is a file; a run needs a folder. Use another --output."
                )
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            if foreign and not path.exists():
                raise RecordError(
                    f"{self.path} is not empty and is not a run folder: it holds {foreign[0]!r} and no run.json. "
                    "Use another --output."
                )
            self._take_lock()
        try:
            with in_plain_words(self.path):
                if path.exists():
                    self._compare(read_run(path))
                else:
                    write_json_atomic(
                        path,
                        {"schema": SCHEMA, "digest": digest(self.config), "config": self.config},
                    )
                self.cells.mkdir(exist_ok=True)
                for stale in (*self.cells.glob(".tmp-*"), *self.path.glob(".tmp-*")):
                    shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Free the lock; also done by the system when the process dies."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def done(self, key: str) -> bool:
        """Whether the cell is complete on disk."""
        return self.summary_path(key).exists()

    def summary_path(self, key: str) -> Path:
        """Where the record of the cell is, or will be."""
        return summary_path(self.path, key)

    def claim(self, keys: Mapping[str, str]) -> None:
        """Note the cells that are the run's (method -> key), done or not; what a method had before is so no longer.

        Raises:
            RecordError: ``cells.json`` is corrupt or cannot be written.
        """
        own = own_cells(self.path)
        if own is None or own != own | keys:
            with in_plain_words(self.path):
                write_json_atomic(self.path / "cells.json", (own or {}) | keys)

    def read_summary(self, key: str) -> dict[str, Any]:
        """The summary of a finished cell.

        Raises:
            RecordError: it is missing, corrupt, changed after it was written or of another cell; names the file.
        """
        return read_summary(self.summary_path(key))

    def write_cell(
        self,
        key: str,
        summary: Mapping[str, Any],
        tables: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> Path:
        """Write a cell as a whole, in place of an earlier one; returns its ``summary.json``.

        ``tables`` maps a name (``probes``, ``retention``) to rows; a dict inside a row is stored as JSON text.
        ``schema``, ``key`` and the digests are added to ``summary``.

        Raises:
            RecordError: the disk is full or not writable; no part of the new cell stays, an earlier one does.
        """
        final = self.summary_path(key).parent
        new, old = (self.cells / f".tmp-{key}-{os.getpid()}-{state}" for state in ("new", "old"))
        try:
            with in_plain_words(final):
                new.mkdir()
                hashes = {}
                for name, rows in tables.items():
                    data = _parquet(rows)
                    write_synced(new / f"{name}.parquet", data)
                    hashes[name] = hashlib.sha256(data).hexdigest()
                record = jsonable({"schema": SCHEMA, **summary, "key": key, "tables": hashes})
                write_json_atomic(new / "summary.json", {**record, "digest": digest(record)})
                if final.exists():
                    os.replace(final, old)
                os.replace(new, final)
                sync_folder(self.cells)
        finally:
            if old.exists() and not final.exists():
                os.replace(old, final)
            for leftover in (new, old):
                shutil.rmtree(leftover, ignore_errors=True)
        return final / "summary.json"

    def summaries(self) -> list[dict[str, Any]]:
        """All finished cells of the run, in the order of ``config["methods"]``, methods that it does not name after them."""
        return summaries_of(self.path, self.config)

    def _take_lock(self) -> None:
        if self._lock is not None:
            raise RecordError(f"{self.path} is open already.")
        lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.locked = True
        except BlockingIOError:
            holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise RecordError(
                f"{self.path} is being written by process {holder}. Wait until it ends, stop it, or use another --output."
            ) from None
        except OSError:
            pass  # A file system without locks (some network drives): go on without one.
        try:
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
        except OSError:
            os.close(lock)
            raise
        self._lock = lock

    def _compare(self, found: dict[str, Any]) -> None:
        if found == self.config:
            return
        old, new = _flat(found), _flat(self.config)
        names = [
            name for name in {**old, **new} if old.get(name, _ABSENT) != new.get(name, _ABSENT)
        ]
        shown = [
            f"{name} is {_short(old.get(name, _ABSENT))} there, {_short(new.get(name, _ABSENT))} now"
            for name in names[:6]
        ]
        more = f"; and {len(names) - 6} more" if len(names) > 6 else ""
        raise RecordError(
            f"{self.path} holds a run with another configuration: {'; '.join(shown)}{more}. "
            "Use another --output, or repeat the old configuration to resume."
        )


def _parquet(rows: Sequence[Mapping[str, Any]]) -> memoryview:
    """The bytes of a parquet file; columns are the union of the keys, in order of appearance."""
    import pyarrow
    import pyarrow.parquet

    # Made in memory, so that writing it meets a full disk at the same place as all other files do.
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [_cell(row.get(name)) for row in rows] for name in names}
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink, compression="zstd")
    return memoryview(sink.getvalue())


def _cell(value: Any) -> Any:
    value = jsonable(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat.update(
            _flat(inner, f"{prefix}{name}.")
            if isinstance(inner, dict) and inner
            else {f"{prefix}{name}": inner}
        )
    return flat


def _short(value: Any) -> str:
    text = "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


_ABSENT = object()
