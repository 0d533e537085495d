"""editbench: put facts into a language model, and know what it cost.

Public names are loaded on first use, so that ``import editbench`` is fast and needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Fact": "types",
    "Probe": "types",
    "Case": "types",
    "Edit": "edit",
    "LanguageModel": "models",
    "load_model": "models",
    "inject": "run.api",
}

__all__ = ["Case", "Edit", "Fact", "LanguageModel", "Probe", "__version__", "inject", "load_model"]

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel, load_model
    from editbench.run.api import inject
    from editbench.types import Case, Fact, Probe


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'editbench' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"editbench.{_HOME[name]}"), name)
