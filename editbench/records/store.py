"""Write a run into one folder, from one process at a time, each cell as a whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, cast

from filelock import BaseFileLock

from editbench.errors import RecordError
from editbench.files import (
    check_outside_cells,
    in_plain_words,
    json_bytes,
    jsonable,
    sync_folder,
    write_json_atomic,
    write_synced,
)
from editbench.locks import HeldError, take_lock
from editbench.records.reading import (
    own_cells,
    read_run,
    read_summary,
    seeds_of,
    summaries_of,
    summary_path,
)
from editbench.records.schema import SCHEMA, CellSummary, StoredConfig
from editbench.types import digest


class RunStore:
    """One run folder, open for writing by one process. As a context manager it frees its lock."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.cells = self.path / "cells"
        self.config: StoredConfig = {}
        self.locked = False
        """Whether a second writer is refused. Some network drives have no locks."""
        self._lock: BaseFileLock | None = None
        self._claiming = threading.Lock()  # the methods of a search run in threads

    def open(self, config: Mapping[str, object]) -> Self:
        """Create the folder, or resume it if it holds the same ``config``.

        What a crash left unfinished is removed.

        Raises:
            RecordError: the folder is foreign, locked or not writable, it is a part of a run or
                holds a run of another configuration, or its ``run.json`` is corrupt.
        """
        self.config = cast("StoredConfig", jsonable(config))
        path = self.path / "run.json"
        check_outside_cells(self.path)
        with in_plain_words(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise RecordError(
                    f"{self.path} is a file; a run needs a folder. Use another --output."
                )
            self.path.mkdir(parents=True, exist_ok=True)
            # Hidden files do not count: a process that died early leaves .lock or .tmp-* alone.
            foreign = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            if foreign and not path.exists():
                if seeds := seeds_of(self.path):
                    raise RecordError(
                        f"{self.path} holds a run of several seeds. Use another --output, or name "
                        f"all of them, to which more can be added (--seeds "
                        f"{','.join(map(str, seeds))})."
                    )
                raise RecordError(
                    f"{self.path} is not empty and is not a run folder: it holds {foreign[0]!r} "
                    "and no run.json. Use another --output."
                )
            self._take_lock()
        try:
            with in_plain_words(self.path):
                if path.exists():
                    self._compare(read_run(path))
                else:
                    record = {"digest": digest(self.config), "config": self.config}
                    write_json_atomic(path, {"schema": SCHEMA, **record})
                self.cells.mkdir(exist_ok=True)
                # Safe once the lock is held: these are then from a process that died.
                for stale in (*self.cells.glob(".tmp-*"), *self.path.glob(".tmp-*")):
                    shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        except BaseException:  # Ctrl-C as well: the caller has no store yet that it could close
            self.close()
            raise
        return self

    def close(self) -> None:
        """Free the lock. The system does the same when the process dies."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def done(self, key: str) -> bool:
        """Return whether the cell is complete on disk."""
        return self.summary_path(key).exists()

    def summary_path(self, key: str) -> Path:
        """Return the file that holds, or will hold, the record of the cell."""
        return summary_path(self.path, key)

    def claim(self, keys: Mapping[str, str]) -> None:
        """Record the cells that belong to the run (method -> key), done or not.

        An earlier cell of one of these methods no longer belongs to the run.

        Raises:
            RecordError: ``cells.json`` is corrupt or cannot be written.
        """
        with self._claiming:
            own = own_cells(self.path)
            claimed = {**(own or {}), **keys}
            if own is None or own != claimed:
                with in_plain_words(self.path):
                    write_json_atomic(self.path / "cells.json", claimed)

    def read_summary(self, key: str) -> CellSummary:
        """Return the summary of a finished cell.

        Raises:
            RecordError: the summary is missing, corrupt, of another cell, or was changed after it
                was written.
        """
        return read_summary(self.summary_path(key))

    def write_cell(
        self,
        key: str,
        summary: Mapping[str, object],
        tables: Mapping[str, Sequence[Mapping[str, object]]],
    ) -> Path:
        """Write the ``cell_files`` of a cell, as ``write_files`` does."""
        return self.write_files(key, cell_files(key, summary, tables))

    def write_files(self, key: str, files: Mapping[str, bytes]) -> Path:
        """Write a cell as a whole, in place of an earlier one, and return its ``summary.json``.

        Args:
            key: the cell.
            files: its ``cell_files``.

        Raises:
            RecordError: the disk is full or not writable. An earlier cell of this key then stays,
                and no part of the new one does.
        """
        final = self.summary_path(key).parent
        new, old = (self.cells / f".tmp-{key}-{os.getpid()}-{state}" for state in ("new", "old"))
        try:
            with in_plain_words(final):
                new.mkdir()
                for name, data in files.items():
                    write_synced(new / name, data)
                sync_folder(new)
                # A folder cannot replace one that is not empty. The earlier cell is therefore moved
                # away first, and moved back if something fails.
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

    def summaries(self) -> list[CellSummary]:
        """Return all finished cells of the run, in the order of the configured methods."""
        return summaries_of(self.path, self.config)

    def _take_lock(self) -> None:
        if self._lock is not None:
            raise RecordError(f"{self.path} is open already.")
        try:
            self._lock = take_lock(self.path / ".lock")
        except HeldError as held:
            who = f"process {held}" if str(held) else "another process"
            raise RecordError(
                f"{self.path} is being written by {who}. Wait until it ends, stop it, or use "
                "another --output."
            ) from None
        self.locked = self._lock is not None

    def _compare(self, stored: StoredConfig) -> None:
        """Raise a ``RecordError`` that names the fields in which ``stored`` differs."""
        if stored == self.config:
            return
        old, new = _flat(stored), _flat(self.config)
        names = [
            name for name in {**old, **new} if old.get(name, _ABSENT) != new.get(name, _ABSENT)
        ]
        shown = [
            f"{name} is {_short(old.get(name, _ABSENT))} there, "
            f"{_short(new.get(name, _ABSENT))} now"
            for name in names[:6]
        ]
        more = f"; and {len(names) - 6} more" if len(names) > 6 else ""
        row = (
            " To add a row to a table, run compare --methods NAME alone, with another --output, "
            f"and then: editbench leaderboard {self.path} THAT."
        )
        raise RecordError(
            f"{self.path} holds a run with another configuration: {'; '.join(shown)}{more}. "
            "Use another --output, or repeat the old configuration to resume."
            + row
            * ("methods" in names)
        )


def cell_files(
    key: str,
    summary: Mapping[str, object],
    tables: Mapping[str, Sequence[Mapping[str, object]]],
) -> dict[str, bytes]:
    """Return the files of a cell by name, ``summary.json`` last.

    Args:
        key: the cell.
        summary: the fields of ``CellSummary`` except ``schema``, ``key``, ``tables`` and
            ``digest``, which are added here.
        tables: name (``probes``, ``retention``) -> rows. A dict inside a row is stored as JSON
            text.

    Raises:
        TypeError: the summary holds something that JSON cannot, or a table what Arrow cannot.
    """
    files = {f"{name}.parquet": _parquet(rows) for name, rows in tables.items()}
    hashes = {name: hashlib.sha256(files[f"{name}.parquet"]).hexdigest() for name in tables}
    record = jsonable({"schema": SCHEMA, **summary, "key": key, "tables": hashes})
    files["summary.json"] = json_bytes({**record, "digest": digest(record)})
    return files


def _parquet(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Return the bytes of a parquet file; its columns are the rows' keys in order of appearance."""
    import pyarrow
    import pyarrow.parquet

    # In memory, since the process that computes a cell need not be the one that writes it.
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [_cell(row.get(name)) for row in rows] for name in names}
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _cell(value: object) -> object:
    value = jsonable(value)
    # As text, because Arrow would give all dicts of a column one struct type with all their keys.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def _flat(value: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested objects as one, with names such as ``options.sft.lr``."""
    flat: dict[str, object] = {}
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            flat |= _flat(inner, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = inner
    return flat


def _short(value: object) -> str:
    text = "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


_ABSENT = object()
"""Stands for a field that a configuration lacks; ``None`` is a value of its own."""
