"""What a run leaves on disk, written so that a crash at any moment loses at most the cell in work.

    RUN/run.json                       {"schema", "digest", "config"}; written first
    RUN/.lock                          flock of the process that writes; free again when that process is gone
    RUN/cells/<key>/summary.json       its presence means that the cell is done
    RUN/cells/<key>/probes.parquet     one row a probe, with the text that the model wrote
    RUN/cells/<key>/retention.parquet  one row a task sample
    RUN/cells/<key>/edit_records.parquet             what the edit noted on its facts
    RUN/cells/<key>/curve_{probes,samples}.parquet   rows of the points of a curve but the last, with their ``facts``
    RUN/cases.json                     the facts and their probes
    RUN/cells.json                     {method: key}: the cells that are the run's; others beside them are older or foreign
    RUN/not_asked.json                 {task: why}: retention tasks that were asked for and could not be loaded, if any

A cell is written into ``RUN/cells/.tmp-*``, summary last, and renamed as a whole. JSON has no NaN: null stands for it.

``summary.json``:

    {"schema": 1, "key": str, "method": str, "options": {...}, "tuned": bool, "tuning": {...} where tuned (tune.py),
     "sources": {path: SHA-256},                                                   where options name files
     "model": {"name": str, "hash": str, "precision": str, "chat_template": str | null},
     "corpus": {"name": str, "hash": str, "part": "dev" | "test", "n": int, "form": "cloze" | "question"},
     "tasks": {task: hash of its data},
     "versions": {"scoring": int, "method": int, "regime": int of a sequence},     with what stands here, all that key is of
     "regime": "batch" | "single" | "sequential:CHUNK", "seed": int, "limit": int | null,
     "status": "done" | "no_effect" | "stopped" | "failed", "note": str,
     "metrics": {axis: {protocol: {"mean", "low", "high", "n", "clusters", "protocol"}}},
     "retention": {task: {"base", "mean", "delta", "ratio", "low", "high", "n", "delta_low", "delta_high", "ratio_low",
                          "ratio_high", "metric", "lost", "gained"}},
     "seconds": {phase: float, "total": float},                                    phases: runner.py, regimes.py
     "inject_seconds": [float],                                                    where --repeats was given
     "work": {phase: {"passes", "tokens", "gradient_tokens", "decoded_tokens", under inject "trained_tokens"}},
     "trajectory": [{"facts", "perplexity_ratio", "norm_growth", "target_nll", "target_ratio", "forgetting_ratio"}],
                                                                                   of a sequence, by chunk
     "curve": [{"facts", "metrics", "retention"}],                                 where --curve was given
     "peak_memory_bytes": int, "peak_process_bytes": int, "environment": {...}, "edit": {...diagnostics},
     "diagnostics": {name: {...} | null},                                          where --diagnostics was given
     "judge": {"model", "judged", "not_judged", "reason"},                         only where one was asked
     "tables": {name: SHA-256 of its parquet file}, "digest": hash of all of the above}

``axis`` is a metric of ``eval/DEFINITIONS.md`` (``efficacy``, ...), or one over one kind of probes alone,
``portability/KIND``; ``protocol`` is ``generation``, ``argmax``, ``likelihood`` or ``judge``. In ``retention``, ``low`` and
``high`` bound ``mean``, ``delta_low`` and ``delta_high`` bound ``delta``, which is paired; ``lost`` and ``gained`` count the
documents that scored at least 0.5 before and less after, and the other way.
A failed cell has empty ``metrics`` and ``retention``, its reason in ``note`` and a ``traceback``. The hash of the model is
that of its weights, the corpus's that of the chosen cases with their probes (``cases.json``). Cells from before ``tables``
and ``digest`` were stored are read all the same, and all cells of a folder from before it had a ``cells.json``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from editbench.errors import RecordError
from editbench.types import digest

try:
    import fcntl
except ImportError:  # Windows: the pid is noted, two writers are not kept apart.
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import pandas
    import pyarrow

SCHEMA = 1
PACKAGES = ("editbench", "torch", "transformers", "lm_eval", "datasets", "numpy")
COLUMNS = {
    "probes": (
        "case",
        "probe",
        "axis",
        "form",
        "prompt",
        "answers",
        "text",
        "base_text",
        "generation",
    ),
    "retention": ("task", "member", "doc_id", "prompt", "expected", "output", "score", "metric"),
}
"""What a table must have to be one."""
PARTS = {
    "status": str,
    "corpus": dict,
    "model": dict,
    "options": dict,
    "metrics": dict,
    "retention": dict,
    "seed": int,
}
"""What a summary must have to be one."""


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
        with _in_plain_words(self.path):
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
            with _in_plain_words(self.path):
                if path.exists():
                    self._compare(_read_run(path))
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
        own = _own_cells(self.path)
        if own is None or own != own | keys:
            with _in_plain_words(self.path):
                write_json_atomic(self.path / "cells.json", (own or {}) | keys)

    def read_summary(self, key: str) -> dict[str, Any]:
        """The summary of a finished cell.

        Raises:
            RecordError: it is missing, corrupt, changed after it was written or of another cell; names the file.
        """
        return _read_summary(self.summary_path(key))

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
            with _in_plain_words(final):
                new.mkdir()
                hashes = {}
                for name, rows in tables.items():
                    data = _parquet(rows)
                    _write_synced(new / f"{name}.parquet", data)
                    hashes[name] = hashlib.sha256(data).hexdigest()
                record = jsonable({"schema": SCHEMA, **summary, "key": key, "tables": hashes})
                write_json_atomic(new / "summary.json", {**record, "digest": digest(record)})
                if final.exists():
                    os.replace(final, old)
                os.replace(new, final)
                _sync_folder(self.cells)
        finally:
            if old.exists() and not final.exists():
                os.replace(old, final)
            for leftover in (new, old):
                shutil.rmtree(leftover, ignore_errors=True)
        return final / "summary.json"

    def summaries(self) -> list[dict[str, Any]]:
        """All finished cells of the run, in the order of ``config["methods"]``, methods that it does not name after them."""
        return _summaries(self.path, self.config)

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


def load_run(
    path: str | Path, altered: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The configuration and the finished cells of a run, read only; takes no lock, so a running one may be read.

    ``altered``: also those that were changed after they were written, for who says so.

    Raises:
        RecordError: no such folder, not a run folder, a corrupt or changed file, or no finished cell yet.
    """
    path = Path(path)
    with _in_plain_words(path):
        if not path.exists():
            raise RecordError(f"There is no run folder {path}.")
        if not (path / "run.json").is_file():
            raise RecordError(f"{path} is not a run folder: it has no run.json.")
        config = _read_run(path / "run.json")
        summaries = _summaries(path, config, altered)
    if not summaries:
        raise RecordError(
            f"{path} has no finished cell yet. Run the same 'editbench compare' command again to resume it."
        )
    return config, summaries


def strangers(path: str | Path) -> list[str]:
    """Keys of the cells that lie in the run folder and are not the run's, so that nothing reads them."""
    path = Path(path)
    own = _own_cells(path)
    return (
        []
        if own is None
        else [
            file.parent.name for file in _cell_files(path) if file.parent.name not in own.values()
        ]
    )


def read_table(path: str | Path, key: str, name: str) -> pandas.DataFrame:
    """Table ``name`` (``probes``, ``retention``) of a finished cell.

    Raises:
        RecordError: it is missing, corrupt, or not the one that was written with the cell; names the file.
    """
    return _read_parquet(table_path(path, key, name)).to_pandas()


def read_rows(path: str | Path, key: str, name: str, altered: bool = False) -> list[dict[str, Any]]:
    """As ``read_table``, as the rows that were written; what a row lacks, and NaN, is ``None``.

    ``altered``: also those of a table that was changed after it was written, for who says so.

    Raises:
        RecordError: it is missing, corrupt, another's, or without a column that table ``name`` has; names the file.
    """
    file = table_path(path, key, name)
    table = _read_parquet(file, altered)
    lacking = [
        column
        for column in COLUMNS.get(name, ())
        if table.num_rows and column not in table.column_names
    ]
    if lacking:
        raise RecordError(
            f"{file} is no table of {name}: it has no column {lacking[0]!r}. Delete its folder and run again."
        )
    return table.to_pylist()


def read_cases(path: str | Path) -> list[dict[str, Any]]:
    """The facts of a run with their probes, as ``Case.to_dict`` gives them.

    Raises:
        RecordError: ``cases.json`` is missing or corrupt.
    """
    return _read_json(Path(path) / "cases.json", list)


def not_asked(path: str | Path) -> dict[str, str]:
    """The retention tasks that the run went on without, and why.

    Raises:
        RecordError: ``not_asked.json`` is corrupt.
    """
    file = Path(path) / "not_asked.json"
    return _read_json(file) if file.exists() else {}


def _read_parquet(file: Path, altered: bool = False) -> pyarrow.Table:
    import pyarrow
    import pyarrow.parquet

    with _in_plain_words(file):
        try:
            data = file.read_bytes()
            if (
                not altered
                and (hashes := _read_json(file.with_name("summary.json")).get("tables")) is not None
            ):
                if hashlib.sha256(data).hexdigest() != hashes.get(file.stem):
                    raise RecordError(
                        f"{file} is corrupt: it is not the table that was written with the cell.{REDO}"
                    )
            return pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        except FileNotFoundError:
            raise RecordError(f"{file} does not exist.") from None
        except (pyarrow.ArrowInvalid, pyarrow.ArrowIOError) as error:
            raise RecordError(f"{file} is corrupt: {error}.{REDO}") from error


def table_path(path: str | Path, key: str, name: str) -> Path:
    """The parquet file of table ``name`` of cell ``key`` in the run folder ``path``."""
    return summary_path(path, key).with_name(f"{name}.parquet")


def summary_path(path: str | Path, key: str) -> Path:
    """The ``summary.json`` of cell ``key`` in the run folder ``path``."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", key):
        raise ValueError(f"Cell key {key!r} cannot be a folder name.")
    return Path(path) / "cells" / key / "summary.json"


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Write ``value`` as JSON: the file is either the old one or the whole new one, also after a power cut.

    Raises:
        OSError: as the system reports it.
        TypeError: a value that ``jsonable`` does not know.
    """
    path = Path(path)
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        _write_synced(temporary, text.encode())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def jsonable(value: Any) -> Any:
    """``value`` as plain JSON types: NaN and infinity become ``None``, tuples lists, NumPy scalars numbers, paths text.

    Raises:
        TypeError: any other type.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        # A lone surrogate in a model's text must not cost the cell: it cannot be encoded.
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(jsonable(v) for v in value)
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, Path):
        return value.as_posix()
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    raise TypeError(f"A {type(value).__name__} cannot be written as JSON: {value!r}.")


def environment() -> dict[str, Any]:
    """Python, platform, CPU count, package versions (``None`` if not installed) and the commit of the checkout."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": versions,
        "commit": _commit(),
    }


def visible(text: str) -> str:
    """``text`` on one line, with escapes for what is not shown or could change how the rest is: control, bidi and
    zero-width characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def heading(name: str) -> str:
    """What tables call the axis or task ``name``: a task file, whose path the record has, by the file's name."""
    return Path(name).name if name.endswith((".yaml", ".yml")) else name


REDO = " Delete its folder and run again to redo the cell."
_ABSENT = object()


def _summaries(
    path: Path, config: Mapping[str, Any], altered: bool = False
) -> list[dict[str, Any]]:
    apart = strangers(path)
    found = [
        _read_summary(file, altered) for file in _cell_files(path) if file.parent.name not in apart
    ]
    methods = [
        m.get("method", m.get("name")) if isinstance(m, Mapping) else m
        for m in config.get("methods") or ()
    ]
    order = {name: methods.index(name) for name in methods}
    return sorted(found, key=lambda s: order.get(s["method"], len(methods)))


def _cell_files(path: Path) -> list[Path]:
    return sorted((path / "cells").glob("[!.]*/summary.json"))


def _own_cells(path: Path) -> dict[str, str] | None:
    """``cells.json``: method -> key; ``None`` where a folder is from before it was written."""
    file = path / "cells.json"
    return (
        _read_json(file, hint=" Delete it and run the same command again.")
        if file.exists()
        else None
    )


def _read_run(path: Path) -> dict[str, Any]:
    found = _read_json(path)
    if not isinstance(found.get("config"), dict) or found.get("digest") != digest(found["config"]):
        raise RecordError(
            f"{path} is corrupt: its configuration does not match its digest. Use another --output."
        )
    if found.get("schema") != SCHEMA:
        raise RecordError(
            f"{path} has schema {found.get('schema')!r}; this editbench reads {SCHEMA}. Use another --output."
        )
    return found["config"]


def alteration(summary: Mapping[str, Any]) -> str | None:
    """How a summary is not as it was written, by its digest; ``None`` where it is, or is from before there were digests."""
    if "digest" in summary:
        same = summary["digest"] == digest(
            {name: value for name, value in summary.items() if name != "digest"}
        )
        return None if same else "it was changed after it was written"
    made = summary.get("environment")
    # the code's digest and the summary's own are stored since the same day
    return "it was taken out" if isinstance(made, Mapping) and "code" in made else None


def _read_summary(path: Path, altered: bool = False) -> dict[str, Any]:
    found = _read_json(path, hint=REDO)
    if found.get("schema") != SCHEMA:
        raise RecordError(
            f"{path} has schema {found.get('schema')!r}; this editbench reads {SCHEMA}. Delete its folder and run again."
        )
    if found.get("key") != path.parent.name or not isinstance(found.get("method"), str):
        raise RecordError(
            f"{path} is not the record of cell {path.parent.name}. Delete its folder and run again."
        )
    if not altered and (how := alteration(found)):
        raise RecordError(f"{path} is corrupt: digest: {how}.{REDO}")
    if lacking := next(
        (name for name, kind in PARTS.items() if not isinstance(found.get(name), kind)), None
    ):
        raise RecordError(f"{path} is no record of a cell: it has no {lacking!r}.{REDO}")
    return found


def _read_json(path: Path, kind: type = dict, hint: str = "") -> Any:
    with _in_plain_words(path):
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise RecordError(f"{path} does not exist.") from None
        except ValueError as error:
            raise RecordError(f"{path} is corrupt: it is not JSON ({error}).{hint}") from error
    if not isinstance(found, kind):
        raise RecordError(
            f"{path} is corrupt: it is not a JSON {'object' if kind is dict else 'list'}.{hint}"
        )
    return found


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


def _write_synced(path: Path, data: bytes | memoryview) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(path: Path) -> None:
    if os.name != "posix":
        return  # Folders cannot be opened there.
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _in_plain_words(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a ``RecordError`` that says what to do; ``path`` where the error names none."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            text = f"The disk is full: {place} could not be written. Free some space and run again; finished cells are kept."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            text = f"No permission to use {place} ({error.strerror}). Use another --output."
        else:
            text = f"{place} cannot be used: {error.strerror or error}."
        raise RecordError(text) from error


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


def _commit() -> str | None:
    """The commit, ``-dirty`` if tracked files differ; ``None`` if this is no checkout of editbench."""
    root = Path(__file__).resolve().parents[2]
    # Without this check a package installed below somebody's own repository would report that one's commit.
    if not (root / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        return (
            subprocess.run(
                command, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            or None
        )
    except (OSError, subprocess.SubprocessError):
        return None
