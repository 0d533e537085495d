"""The run folder: resume, crash, lock, full disk."""

import errno
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from editbench.errors import RecordError
from editbench.files import jsonable, write_json_atomic
from editbench.records import store as records
from editbench.records.reading import load_run, read_rows, read_table, remarks
from editbench.records.store import RunStore
from editbench.types import digest

CONFIG = {
    "methods": ["base", "mixsd"],
    "model": "m",
    "corpus": {"name": "local", "n": 3},
    "seed": 0,
}
PARTS = {
    "status": "done",
    "metrics": {},
    "retention": {},
    "options": {},
    "model": {},
    "corpus": {},
    "seed": 0,
}
PLAIN = {"method": "mixsd", **PARTS}
SUMMARY = {**PLAIN, "peak_memory_bytes": np.int64(7)}
TABLES = {
    "probes": [{"case": "a", "score": 1.0}, {"case": "b", "score": math.nan, "text": "x"}],
    "retention": [],
}


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def leftovers(run):
    return [p for p in run.rglob("*") if ".tmp-" in p.name]


def test_a_cell_round_trips(run):
    with RunStore(run).open(CONFIG) as store:
        assert not store.done("k1")
        path = store.write_cell("k1", SUMMARY, TABLES)
        assert store.done("k1") and path == run / "cells" / "k1" / "summary.json"
        summary = store.read_summary("k1")
    stored = summary.pop("digest")
    assert stored == digest(summary) and set(summary.pop("tables")) == {"probes", "retention"}
    assert summary == {"schema": 1, "key": "k1", **SUMMARY}
    probes = read_table(run, "k1", "probes")
    assert list(probes.columns) == ["case", "score", "text"] and probes[
        "score"
    ].isna().tolist() == [False, True]
    assert read_table(run, "k1", "retention").empty and read_rows(run, "k1", "retention") == []
    assert not leftovers(run)


def test_a_folder_with_a_colon_is_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunStore("sequential:2").open(CONFIG) as store:
        store.write_cell("k1", SUMMARY, TABLES)
    assert [
        row["case"] for row in read_table("sequential:2", "k1", "probes").to_dict("records")
    ] == ["a", "b"]


def test_nan_becomes_null_and_numpy_becomes_plain(tmp_path):
    path = tmp_path / "x.json"
    write_json_atomic(
        path,
        {
            "a": math.nan,
            "b": np.float32("inf"),
            "c": np.arange(2),
            "d": (np.bool_(True), {3, 1}),
            5: "\ud800",
        },
    )
    assert json.loads(path.read_text()) == {
        "a": None,
        "b": None,
        "c": [0, 1],
        "d": [True, [1, 3]],
        "5": "?",
    }
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        jsonable(object())


def test_json_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json_atomic(path, {"a": 1})
    monkeypatch.setattr(os, "replace", raises(errno.ENOSPC))
    with pytest.raises(OSError):
        write_json_atomic(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1} and os.listdir(tmp_path) == ["x.json"]


def test_rows_of_any_keys_and_dicts_become_columns(run):
    with RunStore(run).open(CONFIG) as store:
        store.write_cell(
            "k", SUMMARY, {"probes": [{"a": [1, 2], "b": {"x": np.nan}}, {"c": np.int64(3)}]}
        )
    table = read_table(run, "k", "probes")
    assert json.loads(table["b"][0]) == {"x": None} and table["b"].isna()[1]
    assert table["a"][0].tolist() == [1, 2] and table["c"][1] == 3


def test_same_configuration_resumes(run):
    with RunStore(run).open(CONFIG) as store:
        store.write_cell("k1", SUMMARY, TABLES)
    with RunStore(run).open({**CONFIG, "methods": ("base", "mixsd")}) as store:
        assert store.done("k1") and not store.done("k2")


def test_other_configuration_is_refused_and_named(run):
    RunStore(run).open(CONFIG).close()
    with pytest.raises(
        RecordError,
        match=r"corpus\.n is 3 there, 5 now; limit is absent there, 2 now.*another --output",
    ):
        RunStore(run).open({**CONFIG, "corpus": {"name": "local", "n": 5}, "limit": 2})
    RunStore(run).open(CONFIG).close()  # The refusal left no lock.


def test_foreign_folder_is_left_alone(run):
    run.mkdir()
    (run / "thesis.tex").write_text("x")
    with pytest.raises(RecordError, match="'thesis.tex' and no run.json"):
        RunStore(run).open(CONFIG)
    assert os.listdir(run) == ["thesis.tex"]
    with pytest.raises(RecordError, match="is a file"):
        RunStore(run / "thesis.tex").open(CONFIG)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"config": {}}', '{"schema": 1, "digest": "x", "config": {}}']
)
def test_corrupt_run_json_is_named(run, content):
    RunStore(run).open(CONFIG).close()
    (run / "run.json").write_text(content)
    for read in (lambda: RunStore(run).open(CONFIG), lambda: load_run(run)):
        with pytest.raises(RecordError, match="run.json is corrupt"):
            read()


@pytest.mark.parametrize("content", [b"", b'{"schema"', b"\xff\xfe", b"3"])
def test_corrupt_summary_is_named(run, content):
    with RunStore(run).open(CONFIG) as store:
        path = store.write_cell("k1", SUMMARY, TABLES)
        path.write_bytes(content)
        for read in (lambda: store.read_summary("k1"), store.summaries, lambda: load_run(run)):
            with pytest.raises(RecordError, match=r"k1/summary.json is corrupt.*Delete its folder"):
                read()


def test_summary_of_another_cell_or_schema_is_refused(run):
    with RunStore(run).open(CONFIG) as store:
        path = store.write_cell("k1", SUMMARY, TABLES)
        write_json_atomic(path, {"schema": 1, "key": "k9", "method": "x"})
        with pytest.raises(RecordError, match="not the record of cell k1"):
            store.read_summary("k1")
        write_json_atomic(path, {"schema": 2, "key": "k1", "method": "x"})
        with pytest.raises(RecordError, match="has schema 2"):
            store.read_summary("k1")
        with pytest.raises(RecordError, match="does not exist"):
            store.read_summary("k2")


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {"efficacy": 3}},
        {"seconds": {"inject": 0}},
        {"digest": None},
        {"environment": {"code": "x"}, "digest": ...},
    ],
)
def test_a_summary_that_was_changed_is_read_by_nobody(run, change):
    with RunStore(run).open(CONFIG) as store:
        path = store.write_cell("k1", SUMMARY, TABLES)
        changed = json.loads(path.read_text()) | change
        write_json_atomic(
            path, {name: value for name, value in changed.items() if value is not ...}
        )
        for read in (lambda: store.read_summary("k1"), store.summaries, lambda: load_run(run)):
            with pytest.raises(
                RecordError, match=r"k1/summary.json is corrupt: digest: it was .*Delete its folder"
            ):
                read()
        assert [one["key"] for one in load_run(run, altered=True)[1]] == ["k1"]


def test_corrupt_table_is_named(run):
    with RunStore(run).open(CONFIG) as store:
        path = store.write_cell("k1", SUMMARY, TABLES)
    path.with_name("probes.parquet").write_bytes(b"junk")
    with pytest.raises(RecordError, match="probes.parquet is corrupt"):
        read_table(run, "k1", "probes")
    with pytest.raises(RecordError, match="nothing.parquet does not exist. Delete its folder"):
        read_table(run, "k1", "nothing")


@pytest.mark.parametrize("part", ["seed", "corpus", "status", "retention"])
def test_a_summary_without_a_part_is_no_record(run, part):
    with RunStore(run).open(CONFIG) as store:
        store.write_cell(
            "k1", {name: value for name, value in SUMMARY.items() if name != part}, TABLES
        )
        for read in (
            lambda: store.read_summary("k1"),
            lambda: load_run(run),
            lambda: load_run(run, altered=True),
        ):
            with pytest.raises(
                RecordError,
                match=rf"k1/summary.json is no record of a cell: it has no '{part}'. Delete its",
            ):
                read()


def test_a_table_of_another_cell_is_read_by_nobody(run):
    with RunStore(run).open(CONFIG) as store:
        mine = store.write_cell("k1", SUMMARY, TABLES).with_name("probes.parquet")
        other = store.write_cell("k2", SUMMARY, {**TABLES, "probes": [{"case": "a", "score": 0.5}]})
    mine.write_bytes(other.with_name("probes.parquet").read_bytes())
    for read in (
        lambda: read_table(run, "k1", "probes"),
        lambda: read_rows(run, "k1", "edit_records"),
    ):
        if not mine.with_name(
            "edit_records.parquet"
        ).exists():  # nor is a table read that was added to the cell's folder
            mine.with_name("edit_records.parquet").write_bytes(mine.read_bytes())
        with pytest.raises(
            RecordError,
            match=r"k1/\w+.parquet is corrupt: it is not the table that was written with the cell",
        ):
            read()
    assert len(read_table(run, "k2", "probes")) == len(read_table(run, "k1", "retention")) + 1


def test_summaries_come_in_the_order_of_the_methods(run):
    config = {**CONFIG, "methods": [{"name": "sft"}, {"name": "base"}]}
    with RunStore(run).open(config) as store:
        for key, method in [("a", "ice"), ("b", "base"), ("c", "sft"), ("d", "base")]:
            store.write_cell(key, {**SUMMARY, "method": method}, {})
        assert [s["key"] for s in store.summaries()] == ["c", "b", "d", "a"]
        assert load_run(run)[0] == config  # Reading needs no lock.


def test_what_a_reader_should_know_about_a_run(run):
    scored = {**SUMMARY, "metrics": {"efficacy": {}}}
    with RunStore(run).open(CONFIG) as store:
        store.claim({"base": "b", "mixsd": "k1"})
        store.write_cell("k1", scored, TABLES)
        (run / "cases.json").write_text("[]")
        assert remarks(run) == [
            "base: no record; the run was not finished, or the record was removed."
        ]
        store.write_cell("b", {**PLAIN, "method": "base"}, {})
        assert remarks(run) == []
        store.write_cell("k0", SUMMARY, TABLES)
        assert [line[:20] for line in remarks(run)] == ["k0: not of this run,"]
        store.claim({"mixsd": "k0"})
        store.write_cell("k0", {**scored, "seed": 1, "corpus": {"hash": "x"}}, {})
    (run / "cases.json").unlink()
    said = " ".join(remarks(run))
    for part in ("k1: not of this run", "seed 1; the run has seed 0", "probes.parquet is missing"):
        assert part in said
    assert f"{run / 'cases.json'} does not exist" in said


@pytest.mark.parametrize(
    "claimed", [{"base": "k1"}, {"mixsd": "k1", "rome": "x"}, {"base": "k1", "mixsd": "b"}]
)
def test_the_cells_json_of_another_run_is_refused(run, claimed):
    with RunStore(run).open(CONFIG) as store:
        store.write_cell("k1", SUMMARY, TABLES)
        store.write_cell("b", {**PLAIN, "method": "base"}, {})
    (run / "cells.json").write_text(json.dumps(claimed))
    with pytest.raises(RecordError, match=r"cells.json is not of this run.*Delete it and run"):
        load_run(run)
    (run / "cells.json").unlink()
    assert len(load_run(run)[1]) == 2


def test_a_run_among_the_cells_of_another_is_refused(run):
    with (
        RunStore(run).open(CONFIG),
        pytest.raises(RecordError, match="among the records of the run"),
    ):
        RunStore(run / "cells" / "inner").open(CONFIG)
    assert not (run / "cells" / "inner").exists()


def test_bad_keys_cannot_leave_the_folder(run):
    with RunStore(run).open(CONFIG) as store:
        for key in ("../x", "", ".tmp-x", "a/b"):
            with pytest.raises(ValueError, match="cannot be a folder name"):
                store.write_cell(key, SUMMARY, {})


# Crashes.


def test_crash_between_tables_and_summary_leaves_nothing(run, monkeypatch):
    store = RunStore(run).open(CONFIG)
    # The summary is the last file of a cell and the only one that is JSON.
    write = records.write_synced

    def interrupted(file, data):
        if file.name == "summary.json":
            raise KeyboardInterrupt
        write(file, data)

    monkeypatch.setattr(records, "write_synced", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write_cell("k1", SUMMARY, TABLES)
    assert not store.done("k1") and not leftovers(run)


def test_kill_between_tables_and_summary_is_cleaned_up_on_resume(run):
    script = """
import json, os, signal, sys
from editbench.records import store as records
store = records.RunStore(sys.argv[1]).open({"a": 1})
store.write_cell("k1", json.loads(sys.argv[2]), {})
write = records.write_synced
def killed(file, data):
    if file.name == "summary.json":
        os.kill(os.getpid(), signal.SIGKILL)
    write(file, data)
records.write_synced = killed
store.write_cell("k2", {"method": "x"}, {"probes": [{"a": 1}]})
"""
    done = subprocess.run([sys.executable, "-c", script, str(run), json.dumps(PLAIN)])
    assert done.returncode == -signal.SIGKILL and leftovers(run)
    assert [s["key"] for s in load_run(run)[1]] == ["k1"]
    with RunStore(run).open({"a": 1}) as store:  # The lock died with its process.
        assert store.done("k1") and not store.done("k2") and not leftovers(run)


def test_failed_rewrite_keeps_the_finished_cell(run, monkeypatch):
    with RunStore(run).open(CONFIG) as store:
        store.write_cell("k1", SUMMARY, TABLES)
        real = os.replace
        final = store.summary_path("k1").parent

        def replace(source, target):
            if target == final and "-new" in str(source):
                raise OSError(errno.EIO, "Input/output error", str(target))
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(RecordError, match="Input/output error"):
            store.write_cell("k1", {**SUMMARY, "note": "new"}, TABLES)
        assert "note" not in store.read_summary("k1") and not leftovers(run)
        monkeypatch.undo()
        store.write_cell("k1", {**SUMMARY, "note": "new"}, TABLES)
        assert store.read_summary("k1")["note"] == "new" and not leftovers(run)


# The disk.


@pytest.mark.parametrize("function", ["write", "replace", "fsync"])
def test_full_disk_is_said_plainly_and_leaves_no_part(run, monkeypatch, function):
    with RunStore(run).open(CONFIG) as store:
        monkeypatch.setattr(os, function, raises(errno.ENOSPC))
        with pytest.raises(RecordError, match="The disk is full: .*Free some space"):
            store.write_cell("k1", SUMMARY, TABLES)
        assert not store.done("k1") and not leftovers(run)
        monkeypatch.undo()
        store.write_cell("k1", SUMMARY, TABLES)
        assert store.done("k1")


def test_full_disk_on_open_frees_the_lock(run, monkeypatch):
    monkeypatch.setattr(os, "write", raises(errno.ENOSPC))
    with pytest.raises(RecordError, match="disk is full"):
        RunStore(run).open(CONFIG)
    monkeypatch.undo()
    RunStore(run).open(CONFIG).close()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_no_permission_is_said_plainly(run, monkeypatch, code):
    monkeypatch.setattr(os, "open", raises(code))
    with pytest.raises(RecordError, match="No permission to use .* Use another --output"):
        RunStore(run).open(CONFIG)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RecordError, match="No permission"):
        RunStore(tmp_path / "run").open(CONFIG)


# The lock.


def test_second_writer_is_refused_by_pid(run):
    with RunStore(run).open(CONFIG) as store:
        with pytest.raises(RecordError, match=f"being written by process {os.getpid()}"):
            RunStore(run).open(CONFIG)
        with pytest.raises(RecordError, match="open already"):
            store.open(CONFIG)
    RunStore(run).open(CONFIG).close()


def test_file_system_without_locks_is_no_obstacle(run, monkeypatch):
    with RunStore(run).open(CONFIG) as store:
        assert store.locked
    monkeypatch.setattr("fcntl.flock", raises(errno.ENOLCK))
    with RunStore(run).open(CONFIG) as store:
        assert not store.locked


# Reading.


def test_what_is_no_run_is_said(run):
    with pytest.raises(RecordError, match="There is no run folder"):
        load_run(run)
    run.mkdir()
    with pytest.raises(RecordError, match="is not a run folder: it has no run.json"):
        load_run(run)
    RunStore(run).open(CONFIG).close()
    with pytest.raises(RecordError, match="no finished cell yet"):
        load_run(run)


def test_environment_needs_no_torch():
    script = (
        "import sys; from editbench.records.environment import environment; e = environment(); "
        "print(sorted(e), 'torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "['commit', 'cpu_count', 'packages', 'platform', 'python'] False"


def raises(code):
    """Return a function that fails with errno ``code``, or as Ctrl-C does for ``None``."""

    def fail(*args, **kwargs):
        raise KeyboardInterrupt if code is None else OSError(code, os.strerror(code))

    return fail
