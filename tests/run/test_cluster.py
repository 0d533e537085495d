"""Cells on a real Ray cluster: two nodes on this machine, one of which is killed."""

import json
import os
import re
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from unittest import mock

import psutil
import pytest
from tiny import editbench, wait_for, write_facts, write_model

from editbench.errors import EditbenchError
from editbench.run.config import RunConfig
from editbench.run.places import Request
from editbench.run.plan import make_plan

pytest.importorskip("ray", reason="Ray is not installed")
from editbench.run import cluster  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
TIMES = (
    "seconds",
    "inject_seconds",
    "seconds_by_phase",
    "steps_per_second",
    "peak_memory_bytes",
    "peak_process_bytes",
    "precompute",  # the work: the first trainer in a process pays for the model's own text
    "digest",
)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    write_facts(folder / "facts.jsonl")
    write_model(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def nodes(here):
    """Two nodes with one CPU each, and a cache of their own."""
    settings = {
        "EDITBENCH_CACHE": str(here / "cache"),
        "EDITBENCH_PLUGINS": "none",
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }
    with mock.patch.dict(os.environ, settings):
        from ray.cluster_utils import Cluster

        cluster = Cluster(True, head_node_args={**NODE, "include_dashboard": False})
        cluster.other = cluster.add_node(**NODE)
        yield cluster
        cluster.shutdown()


@pytest.fixture(autouse=True)
def settled(loopback, here, monkeypatch):
    monkeypatch.chdir(here)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


ASKED = ("--model", "tiny", "--facts", "facts.jsonl", "--tasks", "eb_grammar", "--limit", 4)
COMPARE = (
    "compare",
    *ASKED,
    "--methods",
    "sft,memit,memit@bad",
    *("--option", "sft.epochs=1", "--option", "memit.steps=2", "--option", "memit@bad.layers=9"),
    *("--option", "memit.covariance_tokens=500", "-n", 2),
    *("--seeds", "0,1"),
)


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def records(folder):
    """Return what a run has stored, apart from times and memory."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        if path.suffix == ".parquet"
        else without_times(json.loads(path.read_text()))
        for name, path in files.items()
        if path.suffix in (".parquet", ".json")
    }


def test_records_are_those_of_one_process_though_a_node_is_killed(nodes, here, server):
    local = server.start(*COMPARE, "--output", "local", cwd=here, threads=1)
    assert local.wait() == 1, local.communicate()

    def kill():
        end = time.monotonic() + 60
        while time.monotonic() < end and not list(here.glob("ray/seed*/cells/*/summary.json")):
            time.sleep(0.01)
        nodes.remove_node(nodes.other, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    said = editbench(*COMPARE, "--output", "ray", "--workers", 2, "--ray", nodes.address)
    killer.join()
    nodes.other = nodes.add_node(**NODE)
    print(said.err)
    assert said.code == 1, said.err
    assert "2 workers on" in said.err and "1 thread each" in said.err
    assert "has died" in said.err and "is handed out again" in said.err
    assert "10 of 10 done, 2 failed" in said.err
    assert said.err.count("memit@bad: FAILED") == 2, "not retried"
    assert records(here / "ray") == records(here / "local")


@pytest.mark.slow
def test_methods_are_tuned_side_by_side_with_the_same_trials(nodes, here, server):
    tune = ("tune", *ASKED, "--methods", "sft,rome", "--budget", 2, "-n", 2, "--retention", 0.5)
    tune += ("--option", "rome.steps=2", "--option", "sft.epochs=1")
    local = server.start(*tune, "--output", "tuned", cwd=here, threads=1)
    assert local.wait() == 0, local.communicate()
    said = editbench(*tune, "--output", "tuned-ray", "--workers", 2, "--ray", nodes.address)
    assert said.code == 0, said.err
    assert records(here / "tuned-ray") == records(here / "tuned")


@pytest.mark.slow
def test_a_killed_driver_loses_no_cell(nodes, here, server):
    run = (*COMPARE, "--workers", 2, "--ray", nodes.address, "--output", "killed")
    driver = server.start(*run, cwd=here)
    wait_for("killed/seed*/cells/*/summary.json", here, driver)
    second = editbench(*run)
    assert second.code == 2 and f"written by process {driver.pid}" in second.err
    driver.kill()
    driver.wait()
    files = [path for path in here.glob("killed/seed*/cells/*/*") if "bad" not in path.parent.name]
    stored = {path: path.read_bytes() for path in files}
    said = editbench(*COMPARE, "--output", "killed")  # also without a cluster
    assert "kept from an earlier run" in said.err
    assert len(list(here.glob("killed/seed*/cells/*/summary.json"))) == 10
    assert stored and all(path.read_bytes() == data for path, data in stored.items())


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(nodes, here, server):
    run = (*COMPARE, "--workers", 2, "--ray", nodes.address, "--output", "stopped")
    driver = server.start(*run, cwd=here)
    wait_for("stopped/seed*/cells/*/summary.json", here, driver)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate()
    assert driver.returncode == 130 and "Finished methods are kept" in err, err
    assert "Traceback" not in err and "has died" not in err


@pytest.mark.slow
def test_a_cell_whose_workers_die_is_a_failed_one(nodes, here, monkeypatch):
    monkeypatch.setattr(cluster, "RETRIES", 0)
    run = (*COMPARE[:-2], "--workers", 1, "--ray", nodes.address, "--output", "dies")

    def kill():
        end = time.monotonic() + 60
        while time.monotonic() < end:
            # Its own workers: others on this machine may be at work as well.
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "".join(child.cmdline()).startswith("ray::Actor.compute"):
                        child.kill()
                        return
            time.sleep(0.005)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    said = editbench(*run)
    assert "is given up" in said.err and "4 of 5 done" in said.err
    notes = [
        json.loads(path.read_text())["note"] for path in here.glob("dies/cells/*/summary.json")
    ]
    assert sum("Its worker has died 1 times" in note for note in notes) == 1


@pytest.mark.slow
def test_what_a_worker_cannot_see_is_refused_before_anything_starts(nodes, here, monkeypatch):
    """The plan is changed after it was checked, as if only the driver saw the files."""
    plan = make_plan(
        RunConfig(("base",), str(here / "tiny"), "local", str(here / "facts.jsonl"), n=4)
    )
    request = Request(1, address=nodes.address)

    def refused(plan):
        with pytest.raises(EditbenchError) as caught, cluster.Cluster([plan], "x", request, print):
            pass
        return str(caught.value)

    elsewhere = replace(plan, config=replace(plan.config, model=str(here / "nowhere")))
    assert re.match("Worker on .*: .*nowhere", refused(elsewhere))
    monkeypatch.setattr(cluster, "code_digest", lambda: "another")
    assert "editbench (its code) is another here and" in refused(plan)
