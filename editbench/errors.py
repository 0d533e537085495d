"""The exception tree. Each message says what is wrong, where, and what to do next.

EditbenchError            anything the person at the terminal can mend; the CLI prints it and exits with 2
├── UnknownNameError      a method, corpus, task or model that is not installed; carries suggestions
├── DataError             a file or record that cannot be read as facts or cases; names file, line and field
│   └── FactError         a fact that cannot be taught (empty target, subject not in the prompt, ...)
├── OptionError           a bad option name or value
├── ModelError            weights, tokenizer or architecture that cannot be used
├── MethodError           a method that cannot edit these facts or this model, with the reason
├── PluginError           a broken or clashing plug-in
└── RecordError           a run folder that is corrupt, foreign, locked or not writable
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EditbenchError(Exception):
    """Base of all errors whose message is meant for the person at the terminal."""


class UnknownNameError(EditbenchError):
    """A name that is not among ``known``; the message suggests the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = ""):
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
        text = f"Unknown {kind} {name!r}."
        if close:
            text += " Did you mean " + " or ".join(repr(c) for c in close) + "?"
        text += f" Installed: {', '.join(known) or 'none'}."
        super().__init__(f"{text} {hint}".strip())


class DataError(EditbenchError):
    """A file or record that cannot be read; the message names file, line and field."""


class FactError(DataError):
    """A fact that no method could be taught as it stands."""


class OptionError(EditbenchError):
    """A bad option name or value."""


class ModelError(EditbenchError):
    """Weights, tokenizer or architecture that cannot be used."""


class MethodError(EditbenchError):
    """A method that cannot edit these facts or this model."""


class PluginError(EditbenchError):
    """A broken plug-in, or two plug-ins with one name."""


class RecordError(EditbenchError):
    """A run folder that is corrupt, foreign, locked or not writable."""
