"""Read runs back and check them against their digests.

Nothing here takes a lock, so a run can be read while it is being written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from editbench.errors import RecordError
from editbench.files import in_plain_words
from editbench.records.schema import COLUMNS, PARTS, SCHEMA, CellSummary, StoredConfig
from editbench.rows import ProbeRow, SampleRow, ScoreRow
from editbench.types import digest

if TYPE_CHECKING:
    import pandas
    import pyarrow

CLAIM = " Delete it and run the same command again."
_UNFINISHED = (
    "{path} has no finished cell yet. Run the same 'editbench compare' command again to resume it."
)
REDO = " Delete its folder and run again to redo the cell."


def load_run(path: str | Path, altered: bool = False) -> tuple[StoredConfig, list[CellSummary]]:
    """Return the configuration and the finished cells of a run.

    Args:
        path: the run folder.
        altered: also return cells that were changed after they were written.

    Raises:
        RecordError: there is no such folder, it is not a run folder, a file is corrupt or was
            changed, or no cell is finished yet.
    """
    path = Path(path)
    with in_plain_words(path):
        if not path.exists():
            raise RecordError(f"There is no run folder {path}.")
        if seeds := seeds_of(path):
            raise RecordError(
                f"{path} holds a run for each of the seeds {', '.join(map(str, seeds))}. Name one "
                f"of them: {seed_folder(path, seeds[0])}."
            )
        if not (path / "run.json").is_file():
            raise RecordError(f"{path} is not a run folder: it has no run.json.")
        config = read_run(path / "run.json")
        summaries = summaries_of(path, config, altered)
    if not summaries:
        raise RecordError(_UNFINISHED.format(path=path))
    return config, summaries


def seeds_of(path: str | Path) -> list[int]:
    """Return the seeds of the run in folder ``path``; none where it is a run of one seed.

    Raises:
        RecordError: ``seeds.json`` is corrupt.
    """
    file = Path(path) / "seeds.json"
    if not file.is_file():
        return []
    seeds = read_json(file).get("seeds")
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int for seed in seeds):
        raise RecordError(f"{file} is corrupt: it has no list of seeds. Use another --output.")
    return seeds


def seed_folder(path: str | Path, seed: int) -> Path:
    """Return the folder of the run of ``seed``, in the run of several seeds in ``path``."""
    return Path(path) / f"seed{seed}"


def run_folders(path: str | Path) -> list[Path]:
    """Return ``path`` or, of a run of several seeds, the folders of the seeds with finished cells.

    Raises:
        RecordError: ``seeds.json`` is corrupt, or no seed has a finished cell yet.
    """
    path = Path(path)
    seeds = seeds_of(path)
    if not seeds:
        return [path]
    begun = [folder for seed in seeds if _cell_files(folder := seed_folder(path, seed))]
    if not begun:
        raise RecordError(_UNFINISHED.format(path=path))
    return begun


def remarks(path: str | Path) -> list[str]:
    """Return what a reader of the run's numbers should know about its files, a sentence each.

    These are methods without a record, cells that do not belong to the run, cells of other facts
    or another seed than the run's, and files that are missing or were changed. Of several seeds,
    those of each.

    Raises:
        RecordError: as ``load_run``.
    """
    path = Path(path)
    if seeds := seeds_of(path):
        begun = run_folders(path)
        late = [seed for seed in seeds if seed_folder(path, seed) not in begun]
        listed = [f"seed {seed}: no finished cell yet." for seed in late]
        return listed + [f"{run.name}: {line}" for run in begun for line in remarks(run)]
    config, summaries = load_run(path)
    found = [*incomplete(path, config, summaries)]
    facts = None
    try:
        facts = digest(read_cases(path))[:16]
    except RecordError as error:  # the numbers can be read without the facts
        found.append(str(error))
    return found + [line for cell in summaries for line in _doubts(path, config, cell, facts)]


def incomplete(path: Path, config: StoredConfig, summaries: Sequence[CellSummary]) -> Iterator[str]:
    """Yield a sentence on the methods without a record, and one on cells of other runs."""
    recorded = {summary["method"] for summary in summaries}
    if missing := [name for name in _methods(config) if name not in recorded]:
        yield (
            f"{', '.join(missing)}: no record; the run was not finished, or the record was removed."
        )
    if others := strangers(path):
        yield (
            f"{', '.join(others)}: not of this run, so nothing reads them; they are older cells, "
            "or were copied here."
        )


def _doubts(
    path: Path, config: StoredConfig, cell: CellSummary, facts: str | None
) -> Iterator[str]:
    """Yield a sentence for each reason to doubt that the numbers of ``cell`` are the run's.

    ``facts`` is the hash of the run's facts, where they are known.
    """
    key, stored = cell["key"], cell["corpus"].get("hash")
    if "seed" in config and cell["seed"] != config["seed"]:
        yield f"{key}: computed with seed {cell['seed']}; the run has seed {config['seed']}."
    if stored and facts and facts != stored:
        yield f"{key}: its facts are not those of {path / 'cases.json'}."
    scored = {"probes": cell["metrics"], "retention": cell["retention"]}
    wanted = [name for name, scores in scored.items() if scores]
    for name in dict.fromkeys([*wanted, *cell.get("tables", {})]):
        file = table_path(path, key, name)
        if not file.is_file():
            yield f"{key}: {file.name} is missing, so nothing shows that its numbers are right."
        elif not _as_written(file, file.read_bytes()):
            yield f"{key}: {file.name} is not the table that was written with the cell."


def strangers(path: str | Path) -> list[str]:
    """Return the keys of cells that lie in the run folder but do not belong to the run."""
    path = Path(path)
    own = own_cells(path)
    if own is None:  # a folder from before ``cells.json``: all its cells belong to the run
        return []
    keys = [file.parent.name for file in _cell_files(path)]
    return [key for key in keys if key not in own.values()]


def read_table(path: str | Path, key: str, name: str) -> pandas.DataFrame:
    """Return table ``name`` (``probes``, ``retention``, ...) of a finished cell.

    Raises:
        RecordError: the table is missing, corrupt, or not the one that was written with the cell.
    """
    frame: pandas.DataFrame = _read_parquet(table_path(path, key, name)).to_pandas()
    return frame


@overload
def read_rows(
    path: str | Path,
    key: str,
    name: Literal["probes", "curve_probes", "right_after"],
    altered: bool = False,
) -> list[ProbeRow]: ...
@overload
def read_rows(
    path: str | Path, key: str, name: Literal["retention", "curve_samples"], altered: bool = False
) -> list[SampleRow]: ...
@overload
def read_rows(
    path: str | Path, key: str, name: Literal["scores"], altered: bool = False
) -> list[ScoreRow]: ...
@overload
def read_rows(
    path: str | Path, key: str, name: str, altered: bool = False
) -> Sequence[Mapping[str, object]]: ...
def read_rows(
    path: str | Path, key: str, name: str, altered: bool = False
) -> Sequence[Mapping[str, object]]:
    """Return table ``name`` of a finished cell as the rows that were written.

    A value that is NaN, or that a row lacks, is ``None``.

    Args:
        path: the run folder.
        key: the cell.
        name: the table.
        altered: also return a table that was changed after it was written.

    Raises:
        RecordError: the table is missing, corrupt, of another cell, or lacks a column.
    """
    file = table_path(path, key, name)
    table = _read_parquet(file, altered)
    # A table without rows was written without columns as well.
    wanted = COLUMNS.get(name, ()) if table.num_rows else ()
    missing = [column for column in wanted if column not in table.column_names]
    if missing:
        raise RecordError(
            f"{file} is no table of {name}: it has no column {missing[0]!r}. Delete its folder and "
            "run again."
        )
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


def read_cases(path: str | Path) -> list[dict[str, Any]]:
    """Return the facts of a run with their probes, as ``Case.to_dict`` wrote them.

    Raises:
        RecordError: ``cases.json`` is missing or corrupt.
    """
    return cast("list[dict[str, Any]]", read_json(Path(path) / "cases.json", list))


def not_asked(path: str | Path) -> dict[str, str]:
    """Return the retention tasks that could not be loaded and that the run leaves out -> reason.

    Raises:
        RecordError: ``not_asked.json`` is corrupt.
    """
    file = Path(path) / "not_asked.json"
    return cast("dict[str, str]", read_json(file)) if file.exists() else {}


def _read_parquet(file: Path, altered: bool = False) -> pyarrow.Table:
    # Imported here: pyarrow is slow to load, and reading summaries does not need it.
    import pyarrow
    import pyarrow.parquet

    with in_plain_words(file):
        try:
            # The bytes that are hashed are those that are parsed: a run that is still being written
            # may replace the file in between.
            data = file.read_bytes()
            if not altered and not _as_written(file, data):
                raise RecordError(
                    f"{file} is corrupt: it is not the table that was written with the cell.{REDO}"
                )
            return pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        except FileNotFoundError:
            raise RecordError(f"{file} does not exist.{REDO}") from None
        except (pyarrow.ArrowInvalid, pyarrow.ArrowIOError) as error:
            raise RecordError(f"{file} is corrupt: {error}.{REDO}") from error


def _as_written(file: Path, data: bytes) -> bool:
    """Return whether ``data`` has the hash in the summary; true for cells from before hashes."""
    hashes = read_json(file.with_name("summary.json")).get("tables")
    return hashes is None or hashlib.sha256(data).hexdigest() == hashes.get(file.stem)


def table_path(path: str | Path, key: str, name: str) -> Path:
    """Return the parquet file of table ``name`` of cell ``key`` in the run folder ``path``."""
    return summary_path(path, key).with_name(f"{name}.parquet")


def summary_path(path: str | Path, key: str) -> Path:
    """Return the ``summary.json`` of cell ``key`` in the run folder ``path``.

    Raises:
        ValueError: ``key`` cannot be the name of a folder.
    """
    # A key may come from a file, and must not lead out of the run folder.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", key):
        raise ValueError(f"Cell key {key!r} cannot be a folder name.")
    return Path(path) / "cells" / key / "summary.json"


def visible(text: str) -> str:
    """Return ``text`` on one line, with escapes for characters that are not printable.

    Control, bidirectional and zero-width characters could otherwise change how the surrounding text
    is displayed.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def heading(name: str) -> str:
    """Return the name of an axis or a task in tables: a task file without its folder."""
    return Path(name).name if name.endswith((".yaml", ".yml")) else name


def summaries_of(path: Path, config: StoredConfig, altered: bool = False) -> list[CellSummary]:
    """Return the cells that belong to the run, in the order of the methods of ``config``.

    Raises:
        RecordError: as ``read_summary``, or ``cells.json`` is that of another run.
    """
    others, own = strangers(path), own_cells(path)
    files = [file for file in _cell_files(path) if file.parent.name not in others]
    # Methods that the configuration does not name come last.
    place = {name: i for i, name in enumerate(_methods(config))}
    summaries = sorted(
        (read_summary(file, altered) for file in files),
        key=lambda summary: place.get(summary["method"], len(place)),
    )
    if own is not None:
        # The first runs stored an object for each method, from which no label can be read.
        named = [name for name in config.get("methods", ()) if isinstance(name, str)]
        odd = [name for name in own if named and name not in named]
        # The method of an altered summary says nothing about cells.json.
        whole = [summary for summary in summaries if not alteration(summary)]
        odd += [cell["method"] for cell in whole if own.get(cell["method"]) != cell["key"]]
        if odd:
            raise RecordError(
                f"{path / 'cells.json'} is not of this run: it does not fit {odd[0]!r}.{CLAIM}"
            )
    return summaries


def _methods(config: StoredConfig) -> list[str]:
    """Return the names of the methods. The first runs stored an object for each, not a name."""
    stored = cast("list[str | Mapping[str, str]]", config.get("methods") or [])
    return [
        name if isinstance(name, str) else name.get("method", name.get("name", ""))
        for name in stored
    ]


def _cell_files(path: Path) -> list[Path]:
    # Hidden folders (.tmp-*) hold cells that are still being written.
    return sorted((path / "cells").glob("[!.]*/summary.json"))


def own_cells(path: Path) -> dict[str, str] | None:
    """Return ``cells.json`` (method -> key), or ``None`` for a folder from before it existed.

    Raises:
        RecordError: the file is corrupt.
    """
    file = path / "cells.json"
    if not file.exists():
        return None
    return cast("dict[str, str]", read_json(file, hint=CLAIM))


def read_run(path: Path) -> StoredConfig:
    """Return the configuration in the file ``run.json``.

    Raises:
        RecordError: the file is missing, corrupt, changed, or of another schema.
    """
    record = read_json(path)
    config = record.get("config")
    if not isinstance(config, dict) or record.get("digest") != digest(config):
        raise RecordError(
            f"{path} is corrupt: its configuration does not match its digest. Use another --output."
        )
    if record.get("schema") != SCHEMA:
        raise RecordError(
            f"{path} has schema {record.get('schema')!r}; this editbench reads {SCHEMA}. "
            "Use another --output."
        )
    return cast("StoredConfig", config)


def alteration(summary: CellSummary) -> str | None:
    """Return how a summary differs from the one that was written, ``None`` if it does not.

    A summary from before digests were stored counts as unchanged.
    """
    if "digest" in summary:
        rest = {name: value for name, value in summary.items() if name != "digest"}
        return None if summary["digest"] == digest(rest) else "it was changed after it was written"
    environment = summary.get("environment")
    # The digests of the summary and of the code were introduced together, so a summary that has
    # only the latter has lost its own.
    if isinstance(environment, Mapping) and "code" in environment:
        return "it was removed"
    return None


def read_summary(path: Path, altered: bool = False) -> CellSummary:
    """Return the cell's record in the file ``path``.

    Args:
        path: a ``summary.json``.
        altered: also return a record that was changed after it was written.

    Raises:
        RecordError: the file is missing, corrupt, of another schema or cell, or was changed.
    """
    record = read_json(path, hint=REDO)
    if record.get("schema") != SCHEMA:
        raise RecordError(
            f"{path} has schema {record.get('schema')!r}; this editbench reads {SCHEMA}. Delete "
            "its folder and run again."
        )
    if record.get("key") != path.parent.name or not isinstance(record.get("method"), str):
        raise RecordError(
            f"{path} is not the record of cell {path.parent.name}. Delete its folder and run again."
        )
    summary = cast("CellSummary", record)
    if not altered and (how := alteration(summary)):
        raise RecordError(f"{path} is corrupt: digest: {how}.{REDO}")
    missing = [name for name, kind in PARTS.items() if not isinstance(record.get(name), kind)]
    if missing:
        raise RecordError(f"{path} is no record of a cell: it has no {missing[0]!r}.{REDO}")
    return summary


@overload
def read_json(path: Path, kind: type[dict[str, Any]] = dict, hint: str = "") -> dict[str, Any]: ...
@overload
def read_json(path: Path, kind: type[list[Any]], hint: str = "") -> list[Any]: ...
def read_json(path: Path, kind: type = dict, hint: str = "") -> object:
    """Return the JSON object, or with ``kind=list`` the JSON list, in the file ``path``.

    Raises:
        RecordError: the file is missing or holds something else. ``hint`` ends the message about
            the latter.
    """
    with in_plain_words(path):
        try:
            value: object = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise RecordError(f"{path} does not exist.") from None
        except ValueError as error:
            raise RecordError(f"{path} is corrupt: it is not JSON ({error}).{hint}") from error
    if not isinstance(value, kind):
        wanted = "object" if kind is dict else "list"
        raise RecordError(f"{path} is corrupt: it is not a JSON {wanted}.{hint}")
    return value
