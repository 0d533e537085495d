"""The exception tree. Each message says what is wrong, where, and what to do next.

EditbenchError            the user can fix it; the command line prints the message and exits with 2
├── UnknownNameError      a method, corpus, task or model is not installed; suggests names
├── DataError             a file cannot be read as facts or cases; names file, line and field
│   ├── FactError         a fact cannot be taught (empty target, subject not in the prompt, ...)
│   └── BadRecordsError   records of a file are no facts; keeps all reasons, and the good cases
├── OptionError           the name or the value of an option is wrong
├── MissingPackageError   a package of one of editbench's extras is not installed
├── ModelError            weights, tokenizer or architecture cannot be used
│   ├── MissingModelError the default model has not been downloaded yet
│   ├── NotFiniteError    the logits have become infinite or NaN
│   ├── NoTokenError      no token of a text covers the subject
│   └── NoDenseMlp        no linear map writes an MLP's output, so weight editors do not apply
├── MethodError           a method cannot edit these facts or this model
├── PluginError           a plug-in is broken, or clashes with another one
└── RecordError           a run folder is corrupt, foreign, locked or not writable
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.util import find_spec

LISTED = 10
"""Most names that a message lists."""


def listed(names: Iterable[object], most: int = LISTED, separator: str = ", ") -> str:
    """Return ``names`` for a message: ``a, b, c``, or the first of many and ``and 25 more``."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


class EditbenchError(Exception):
    """Base of all errors that users can fix. The message is written for them."""


class UnknownNameError(EditbenchError):
    """A name is not among ``known``; the message suggests the nearest ones, or else lists all.

    Args:
        kind: the kind of thing that was looked for, such as ``method``.
        hint: a sentence to add to the message.
        shown: the names that the message lists; ``None``: all of ``known``.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str],
        hint: str = "",
        shown: Iterable[str] | None = None,
    ):
        known = sorted(known)
        # Letters in another order are a slip of the fingers, whatever else is near.
        close = [other for other in known if sorted(other) == sorted(name)]
        close += difflib.get_close_matches(name, known, n=2, cutoff=0.5)
        close = list(dict.fromkeys(close))[:2]
        text = f"Unknown {kind} {name!r}."
        if close:
            text += " Did you mean " + " or ".join(repr(c) for c in close) + "?"
        else:
            installed = known if shown is None else sorted(shown)
            text += f" Installed: {listed(installed, 30) or 'none'}."
        super().__init__(f"{text} {hint}".strip())


class DataError(EditbenchError):
    """A file or record cannot be read; the message names file, line and field."""


class FactError(DataError):
    """A fact that no method could teach."""


class OptionError(EditbenchError):
    """The name or the value of an option is wrong."""


class MissingPackageError(EditbenchError):
    """A package that only some users want is not installed; the message has the command.

    Args:
        what: what needs it, such as ``A picture``.
        package: its name.
        extra: the extra of editbench that installs it.
    """

    def __init__(self, what: str, package: str, extra: str):
        super().__init__(
            f'{what} needs {package}, which is not installed. Run: pip install "editbench[{extra}]"'
        )


def check_package(what: str, package: str, extra: str) -> None:
    """Raise a ``MissingPackageError`` unless ``package`` is installed; it is not imported."""
    if find_spec(package) is None:
        raise MissingPackageError(what, package, extra)


class ModelError(EditbenchError):
    """Weights, tokenizer or architecture cannot be used."""


class MissingModelError(ModelError):
    """The default model has not been downloaded yet; ``editbench setup-model`` does that."""


class NotFiniteError(ModelError):
    """The weights have exploded: their logits are infinite or NaN, so no token can be drawn."""


class NoTokenError(ModelError):
    """No token covers a part of a text, because the tokenizer normalises that part away."""


class NoDenseMlp(ModelError):
    """No linear map writes the output of an MLP in any layer, so weight editors do not apply."""


class MethodError(EditbenchError):
    """A method cannot edit these facts or this model."""


class PluginError(EditbenchError):
    """A plug-in is broken, or two plug-ins have the same name."""


class RecordError(EditbenchError):
    """A run folder is corrupt, foreign, locked or not writable."""
