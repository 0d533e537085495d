"""editbench: put facts into a language model, and know what it cost.

Public names are loaded on first use, so that ``import editbench`` is fast and needs no torch. The
contracts for plug-ins are in ``editbench.plugin``, the tests for them in ``editbench.testing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from editbench.api.calls import compare, evaluate, inject, load_run
    from editbench.api.results import Results
    from editbench.edit import Edit
    from editbench.models import LanguageModel, load_model
    from editbench.run.life import chat, remove
    from editbench.run.push import push
    from editbench.types import Case, Fact, Probe

__version__ = "0.2.0"

__all__ = [
    "Case",
    "Edit",
    "Fact",
    "LanguageModel",
    "Probe",
    "Results",
    "__version__",
    "chat",
    "compare",
    "evaluate",
    "inject",
    "load_model",
    "load_run",
    "push",
    "remove",
]

_HOME = {
    "Fact": "types",
    "Probe": "types",
    "Case": "types",
    "Edit": "edit",
    "LanguageModel": "models",
    "load_model": "models",
    "inject": "api.calls",
    "compare": "api.calls",
    "evaluate": "api.calls",
    "load_run": "api.calls",
    "Results": "api.results",
    "chat": "run.life",
    "remove": "run.life",
    "push": "run.push",
}
"""Public name -> the module of this package that defines it."""

if not TYPE_CHECKING:  # else a type checker would accept every misspelt name

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'editbench' has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(f"editbench.{_HOME[name]}"), name)

    def __dir__() -> list[str]:
        return sorted(__all__)
