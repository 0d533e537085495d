"""Every test runs without a network, without third-party plug-ins, and with a cache of its own."""

from __future__ import annotations

import socket

import pytest

from editbench.testing import FACTS, teach_to_read, tiny_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EDITBENCH_CACHE", str(folder))
    monkeypatch.setenv("EDITBENCH_PLUGINS", "none")
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
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


@pytest.fixture(scope="session")
def reader():
    """Tiny models, one a family, that answer ``FACTS`` from a note; tests leave their weights as found."""
    made = {}

    def get(family):
        if family not in made:
            made[family] = teach_to_read(tiny_model(family), FACTS)
        return made[family]

    return get
