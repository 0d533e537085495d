"""What is asked of a cluster, before Ray is asked."""

import socket
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from tiny import editbench, write_facts, write_model

from editbench.cli.workers import name_the_flag
from editbench.errors import OptionError
from editbench.run.places import Request, room, silent

EIGHT, TWO = [(64, 8.0)], [(16, 0.0), (16, 0.0)]


@pytest.mark.parametrize(
    ("request_", "nodes", "threads", "found"),
    [
        (Request(), EIGHT, "", (8, 1.0, 8)),
        (Request(), EIGHT, "4", (8, 1.0, 4)),
        (Request(gpus=2), EIGHT, "", (4, 2, 16)),
        (Request(gpus=0.1), [(64, 3.0)], "", (30, 0.1, 2)),
        (Request(3), EIGHT, "", (3, 1.0, 21)),
        (Request(gpus=0), EIGHT, "", (1, 0, 64)),
        (Request(), TWO, "", (2, 0, 16)),
        (Request(), TWO, "1", (2, 0, 1)),
        (Request(32), TWO, "", (32, 0, 1)),
        (Request(3), TWO, "", (3, 0, 8)),
        (Request(), [(8, 0.0), (4, 2.0)], "", (2, 1.0, 2)),
    ],
)
def test_workers_and_threads_fill_the_machines(monkeypatch, request_, nodes, threads, found):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert room(request_, nodes) == found


@pytest.mark.parametrize(
    ("request_", "nodes", "threads", "part"),
    [
        (Request(gpus=1), TWO, "", "--gpus-per-cell is 1, and there is none."),
        (Request(gpus=9), EIGHT, "", "no machine has more than 8"),
        (Request(9), EIGHT, "", "--workers is 9, and there is room for 8: each needs 1 CPU and 1"),
        (Request(33), TWO, "", "there is room for 32"),
        (
            Request(3),
            TWO,
            "16",
            "there is room for 2: each needs 16 CPUs, and the machines have 32",
        ),
        (Request(), TWO, "17", "room for 0"),
    ],
)
def test_what_does_not_fit_is_refused(monkeypatch, request_, nodes, threads, part):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    with pytest.raises(OptionError, match=part):
        room(request_, nodes)


def test_an_address_that_is_not_rays_is_noticed_within_seconds(loopback):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        start = time.monotonic()
        assert "refused" in silent(f"127.0.0.1:{port}")
        other.listen()
        assert "timed out" in silent(f"127.0.0.1:{port}")
        assert time.monotonic() - start < 20
    for odd in ("", "x", "127.0.0.1", ":1", "127.0.0.1:99999999"):
        assert silent(odd)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (("--workers", "many"), "--workers is 'many'"),
        (("--workers", 0), "at least 1, or auto"),
        (("--workers", -1), "--workers is '-1'"),
        (("--gpus-per-cell", -1), "--gpus-per-cell is -1"),
        (("--gpus-per-cell", 1.5), "--gpus-per-cell is 1.5"),
        (("--gpus-per-cell", "nan"), "--gpus-per-cell is nan"),
        (("--ray", "127.0.0.1:9"), "no Ray cluster answers there"),
        (("--ray", "nowhere"), "write HOST:PORT"),
        (("--ray", "ray://127.0.0.1:10001"), "client protocol"),
    ],
)
def test_bad_requests_leave_nothing(tmp_path, loopback, monkeypatch, given, part):
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.chdir(tmp_path)
    said = editbench(*command(tmp_path), *given)
    assert said.code == 2 and part in said.err, said.err
    assert not (tmp_path / "run").exists() and "Traceback" not in said.err


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "editbench.run.cluster", raising=False)
    monkeypatch.delattr("editbench.run.cluster", raising=False)
    for given in (("--workers", 2), ("--ray", "auto"), ("--gpus-per-cell", 1)):
        said = editbench(*command(tmp_path), *given)
        assert said.code == 2 and 'pip install "editbench[ray]"' in said.err


def test_several_gpus_name_the_flag_unless_they_are_not_used_or_all(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    cpu, gpus = torch.device("cpu"), [torch.device("cuda", i) for i in range(8)]
    name_the_flag(SimpleNamespace(device=cpu, devices=[cpu]))
    name_the_flag(SimpleNamespace(device=gpus[0], devices=gpus))
    assert not capsys.readouterr().err
    name_the_flag(SimpleNamespace(device=gpus[0], devices=gpus[:1]))
    assert "This machine has 8 GPUs, and this run uses one. --workers" in capsys.readouterr().err


def command(folder):
    write_model(folder / "tiny")
    facts = write_facts(folder / "facts.jsonl")
    given = ("--model", folder / "tiny", "--facts", facts, "--tasks", "none", "-n", 2)
    return ("compare", *given, "--methods", "base", "--output", folder / "run")
