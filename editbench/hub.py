"""Reach the Hugging Face Hub, or its cache when the hub is unreachable; editbench's own cache."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock
from urllib.parse import urlparse

from platformdirs import user_cache_path


def cache_dir() -> Path:
    """Return the folder for downloads, converted models, statistics and base scores.

    It is ``EDITBENCH_CACHE`` if set, else the folder ``editbench`` in the system's folder for
    caches: ``XDG_CACHE_HOME`` or ``~/.cache`` on Linux, ``~/Library/Caches`` on macOS,
    ``%LOCALAPPDATA%`` on Windows. The environment is read at every call.
    """
    if own := os.environ.get("EDITBENCH_CACHE"):
        return Path(own).expanduser()
    earlier = Path("~/.cache/editbench").expanduser()
    # Where versions before 0.2 kept it on every system.
    if earlier.is_dir() and not os.environ.get("XDG_CACHE_HOME"):
        return earlier
    return user_cache_path("editbench", appauthor=False)


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """If the hub cannot be reached, read only its cache inside.

    Otherwise the libraries would retry for half a minute before they report the failure.
    """
    import huggingface_hub.constants as hub

    with ExitStack() as stack:
        if not _reachable(hub.ENDPOINT):
            # The library reads the environment at import only, so its constant is patched.
            stack.enter_context(mock.patch.object(hub, "HF_HUB_OFFLINE", True))
            if "datasets" in sys.modules:  # datasets keeps a copy of the switch
                stack.enter_context(
                    mock.patch.object(sys.modules["datasets"].config, "HF_HUB_OFFLINE", True)
                )
        yield


def _reachable(endpoint: str) -> bool:
    if any(
        os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    ):
        return True  # only the proxy can tell
    url = urlparse(endpoint)
    try:
        socket.create_connection(
            (url.hostname, url.port or (80 if url.scheme == "http" else 443)), timeout=5
        ).close()
    except OSError:
        return False
    return True
