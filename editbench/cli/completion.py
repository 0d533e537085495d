"""What a shell offers after Tab, besides commands and options. Nothing here imports a plug-in."""

from __future__ import annotations


def methods(incomplete: str) -> list[str]:
    """Return the methods that may end ``incomplete``, which may be a list between commas."""
    from editbench import registry

    begun, comma, last = incomplete.rpartition(",")
    names = [*registry.names("methods"), *registry.easyedit()]
    return [f"{begun}{comma}{name}" for name in names if name.startswith(last)]


def suites(incomplete: str) -> list[str]:
    """Return the suites whose names begin with ``incomplete``."""
    from editbench.run import suite

    return [name for name in suite.names() if name.startswith(incomplete)]


def corpora(incomplete: str) -> list[str]:
    """Return the corpora whose names begin with ``incomplete``."""
    from editbench import registry

    return [name for name in registry.names("corpora") if name.startswith(incomplete)]
