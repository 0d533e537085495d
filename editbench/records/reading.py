"""Reads runs back, checked against their digests. Takes no lock, so that a running one may be read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editbench.errors import RecordError
from editbench.files import in_plain_words
from editbench.records.schema import COLUMNS, PARTS, SCHEMA
from editbench.types import digest

if TYPE_CHECKING:
    import pandas
    import pyarrow

REDO = " Delete its folder and run again to redo the cell."


def load_run(
    path: str | Path, altered: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The configuration and the finished cells of a run, read only; takes no lock, so a running one may be read.

    ``altered``: also those that were changed after they were written, for who says so.

    Raises:
        RecordError: no such folder, not a run folder, a corrupt or changed file, or no finished cell yet.
    """
    path = Path(path)
    with in_plain_words(path):
        if not path.exists():
            raise RecordError(f"There is no run folder {path}.")
        if not (path / "run.json").is_file():
            raise RecordError(f"{path} is not a run folder: it has no run.json.")
        config = read_run(path / "run.json")
        summaries = summaries_of(path, config, altered)
    if not summaries:
        raise RecordError(
            f"{path} has no finished cell yet. Run the same 'editbench compare' command again to resume it."
        )
    return config, summaries


def strangers(path: str | Path) -> list[str]:
    """Keys of the cells that lie in the run folder and are not the run's, so that nothing reads them."""
    path = Path(path)
    own = own_cells(path)
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
    return read_json(Path(path) / "cases.json", list)


def not_asked(path: str | Path) -> dict[str, str]:
    """The retention tasks that the run went on without, and why.

    Raises:
        RecordError: ``not_asked.json`` is corrupt.
    """
    file = Path(path) / "not_asked.json"
    return read_json(file) if file.exists() else {}


def _read_parquet(file: Path, altered: bool = False) -> pyarrow.Table:
    import pyarrow
    import pyarrow.parquet

    with in_plain_words(file):
        try:
            data = file.read_bytes()
            if (
                not altered
                and (hashes := read_json(file.with_name("summary.json")).get("tables")) is not None
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


def visible(text: str) -> str:
    """``text`` on one line, with escapes for what is not shown or could change how the rest is: control, bidi and
    zero-width characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def heading(name: str) -> str:
    """What tables call the axis or task ``name``: a task file, whose path the record has, by the file's name."""
    return Path(name).name if name.endswith((".yaml", ".yml")) else name


def summaries_of(
    path: Path, config: Mapping[str, Any], altered: bool = False
) -> list[dict[str, Any]]:
    apart = strangers(path)
    found = [
        read_summary(file, altered) for file in _cell_files(path) if file.parent.name not in apart
    ]
    methods = [
        m.get("method", m.get("name")) if isinstance(m, Mapping) else m
        for m in config.get("methods") or ()
    ]
    order = {name: methods.index(name) for name in methods}
    return sorted(found, key=lambda s: order.get(s["method"], len(methods)))


def _cell_files(path: Path) -> list[Path]:
    return sorted((path / "cells").glob("[!.]*/summary.json"))


def own_cells(path: Path) -> dict[str, str] | None:
    """``cells.json``: method -> key; ``None`` where a folder is from before it was written."""
    file = path / "cells.json"
    return (
        read_json(file, hint=" Delete it and run the same command again.")
        if file.exists()
        else None
    )


def read_run(path: Path) -> dict[str, Any]:
    found = read_json(path)
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


def read_summary(path: Path, altered: bool = False) -> dict[str, Any]:
    found = read_json(path, hint=REDO)
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


def read_json(path: Path, kind: type = dict, hint: str = "") -> Any:
    with in_plain_words(path):
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
