"""Load the model that a command names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from editbench.cli import console
from editbench.errors import EditbenchError, ModelError, OptionError
from editbench.options import shortened

if TYPE_CHECKING:
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
