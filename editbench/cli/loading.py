"""Load the model that a command names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from editbench.cli import console
from editbench.errors import EditbenchError, ModelError

if TYPE_CHECKING:
    from editbench.models import LanguageModel


def load(model: str, precision: str, layout: Mapping[str, str]) -> LanguageModel:
    """Load ``model``; if parts of its layout are named, check that they exist.

    Raises:
        ModelError: the model cannot be loaded, whichever exception its library raises.
    """
    from editbench.models import load_model

    try:
        handle = load_model(model, precision=precision, layout=layout)
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
