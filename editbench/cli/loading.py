"""Load the model that a command names, a saved edit, and the model that an edit was made for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from editbench import progress
from editbench.aliases import ALIASES, alias_file
from editbench.cli import console
from editbench.errors import EditbenchError, ModelError, OptionError, UnknownNameError
from editbench.options import shortened

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel
    from editbench.placing import Loading


def how_to_load(
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    batch_size: str = "auto",
) -> Loading:
    """Return what the options say, after checking that the device is there and has the type.

    Raises:
        OptionError: it is not, or a value is wrong.
    """
    from editbench.placing import Loading

    how = Loading(dtype, device, device_map, read_batch_size(batch_size))
    how.check()
    return how


def read_batch_size(text: str) -> int | None:
    """Return the number in ``--batch-size``; ``None`` for auto.

    Raises:
        OptionError: it is neither.
    """
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)):
        raise OptionError(f"--batch-size {shortened(text)} is neither auto nor a number above 0.")
    return int(text)


def check_is_here(model: str) -> None:
    """Raise a ``MissingModelError`` if ``model`` is an alias that was not downloaded yet."""
    if model in ALIASES:
        alias_file(model)


def load(
    model: str, precision: str, layout: Mapping[str, str], how: Loading | None = None
) -> LanguageModel:
    """Load ``model``; if parts of its layout are named, check that they exist.

    Raises:
        OptionError: there is no such device, or it lacks the type.
        ModelError: the model cannot be loaded, whichever exception its library raises.
    """
    from editbench.models import load_model

    try:
        given = {} if how is None else how.arguments()
        with progress.task(f"loading {model}"):
            handle = load_model(model, precision=precision, layout=layout, **given)
    # An EditbenchError says already what to do, and lack of memory is no damage.
    except (EditbenchError, MemoryError):
        raise
    # On damaged files, transformers and safetensors raise exceptions of any type.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"Model {model!r} could not be loaded ({type(error).__name__}: {reason})."
            " Is a file damaged?"
        ) from error
    if handle.adapter:
        console.say(f"{model}: {handle.adapter}.")
    for warning in handle.warnings:
        console.say(warning)
    if layout:
        handle.layout  # noqa: B018 - derived on first use; report a wrong name now, not later
    return handle


def read_edit(folder: Path) -> Edit:
    """Load a saved edit; what makes it less than sure is said on stderr.

    Raises:
        RecordError: there is none in ``folder``, or it is damaged.
    """
    from editbench.edit import Edit, UncheckedEdit

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UncheckedEdit)
        edit = Edit.load(folder)
    for note in notes:
        console.say(str(note.message))
    return edit


def load_base(
    folder: Path,
    edit: Edit,
    model: str | None,
    precision: str,
    layout: Mapping[str, str],
    how: Loading | None = None,
) -> LanguageModel:
    """Load the model that the edit in ``folder`` was made for, and check that it is that one.

    Args:
        model: its name now; ``None``: the name that the edit has.
        how: the weights are held as they were for the edit, unless it names another type.

    Raises:
        ModelError: it is not there, or another one.
    """
    from editbench.placing import Loading
    from editbench.stack import parts_of

    how = how or Loading()
    if how.dtype == "auto":
        how = replace(how, dtype=edit.model_dtype)
    try:
        base = load(model or edit.model_name, precision, layout, how)
    except (ModelError, UnknownNameError) as error:
        if model is not None:
            raise
        raise ModelError(
            f"The edit in {folder} was made for {edit.model_name}, which cannot be loaded here: "
            f"{error} If it is elsewhere, name it with --model."
        ) from error
    first = parts_of(edit)[0]
    if base.fingerprint() != first.model_hash:
        raise ModelError(
            f"The edit in {folder} was made for {edit.model_name} (weights {first.model_hash}), "
            f"and {base.name} has other weights ({base.fingerprint()}). Name the right model with "
            "--model."
        )
    return base
