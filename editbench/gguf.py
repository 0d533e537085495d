"""Read a GGUF file: unpack it to float32 once, and keep the result in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from transformers import AutoTokenizer, GgufConfig

from editbench import progress
from editbench.errors import EditbenchError, ModelError
from editbench.files import write_json_atomic
from editbench.hub import cache_dir
from editbench.locks import HeldError, take_lock
from editbench.weights import empty_model, load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONVERSION = 1
"""Raised when the conversion changes, so that older ones in the cache are made again."""
LISTING = "conversion.json"
"""Lists the files of a conversion with their hashes. It is written last."""
ABANDONED = 24 * 3600
"""Seconds after which a temporary folder counts as left behind where locks do not tell."""


def read_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the unpacked float32 model and the tokenizer of a GGUF file.

    They are kept in the cache by the hash of the file, because unpacking takes 20 s. A model that
    is refused is not kept, and a conversion that is damaged or incomplete is made again.

    Raises:
        ModelError: if the file cannot be read, is one part of several, or lacks weights.
    """
    cached = _conversion(path)
    _remove_abandoned(cached.parent)
    if _is_whole(cached):
        with contextlib.suppress(Exception):  # whatever is wrong with it, it is made again
            model = load_weights(cached, str(cached), use_safetensors=True)
            return model, AutoTokenizer.from_pretrained(str(cached))
    shutil.rmtree(cached, ignore_errors=True)
    model, tokenizer = _unpacked(path)
    # a read-only or full cache costs time at the next load, but no results
    with contextlib.suppress(OSError, SafetensorError):
        _keep(model, tokenizer, cached)
    return model, tokenizer


def read_header(path: Path) -> PreTrainedModel:
    """Return the model that a GGUF file describes, on the meta device; no weight is read.

    Raises:
        ModelError: if the file cannot be read.
    """
    with _named_errors(path):
        # From the conversion in the cache if there is one, since parsing a header takes seconds.
        cached = _conversion(path)
        if (cached / "config.json").is_file():
            return empty_model(cached)
        return empty_model(path.parent, gguf_file=path.name, **_overlooked(path))


def read_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file.

    Raises:
        ModelError: if the file cannot be read.
    """
    tokenizer: PreTrainedTokenizerBase
    with _named_errors(path):
        cached = _conversion(path)
        if (cached / "tokenizer.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(str(cached))
        else:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return tokenizer


def _conversion(path: Path) -> Path:
    """Return the folder of the cache in which the unpacked model of a file is kept."""
    with path.open("rb") as file:
        key = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return cache_dir() / "models" / key


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn what libraries raise while a file is read into one sentence."""
    try:
        yield
    except (EditbenchError, MemoryError):
        raise
    # on damaged files, gguf and transformers raise exceptions of any type
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"GGUF file {path} could not be loaded: {reason}. Is it complete?"
        ) from error


def _unpacked(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    # gguf's own progress bar cannot be switched off, hence the redirection
    with (
        progress.task(f"unpacking {path.name}, cached for next time"),
        contextlib.redirect_stderr(io.StringIO()),
        _named_errors(path),
    ):
        stored = _stored(path)
        model = load_weights(
            path.parent,
            f"GGUF file {path}",
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            **_overlooked(path),
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    _check_stored(model, stored, path)
    return model, tokenizer


def _overlooked(path: Path) -> dict[str, Any]:
    """Return what transformers does not read from the file: the width of Qwen 3's heads."""
    import gguf

    width = gguf.GGUFReader(path).get_field("qwen3.attention.key_length")
    return {} if width is None else {"head_dim": int(width.contents())}


def _stored(path: Path) -> dict[str, int]:
    """Return the number of values of each tensor in the file, by its name there.

    Raises:
        ModelError: if the file is one part of several.
    """
    import gguf

    reader = gguf.GGUFReader(path)
    count = reader.get_field("split.count")
    if count is not None and (parts := int(count.contents())) > 1:
        number = reader.get_field("split.no")
        part = int(number.contents()) + 1 if number is not None else "?"
        raise ModelError(
            f"GGUF file {path} is part {part} of {parts}. Join the parts into one file: "
            "llama-gguf-split --merge FIRST_PART OUTPUT.gguf"
        )
    return {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}


def _check_stored(model: PreTrainedModel, stored: Mapping[str, int], path: Path) -> None:
    """Check that no layer and no bias of the file was left out, which transformers does not report.

    Raises:
        ModelError: if one was.
    """
    depth: int = model.config.get_text_config().num_hidden_layers
    layers: dict[int, set[str]] = {}
    for name in stored:
        block, _, rest = name.removeprefix("blk.").partition(".")
        if name.startswith("blk.") and block.isdigit():
            layers.setdefault(int(block), set()).add(rest)
    usual = set().union(*(rests for block, rests in layers.items() if block < depth))
    # a layer for the prediction of several tokens has more weights than the others
    if extra := [block for block in sorted(layers) if block >= depth and layers[block] <= usual]:
        raise ModelError(
            f"GGUF file {path} stores layer {extra[0]} (blk.{extra[0]}), but its metadata counts "
            f"{depth} layers. The model would be cut off there."
        )
    biases = {name: size for name, size in stored.items() if name.endswith(".bias")}
    taken = sum(
        tensor.numel()
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if name.endswith("bias")
    )
    if sum(biases.values()) > taken:
        raise ModelError(
            f"GGUF file {path} stores biases, such as {min(biases)}, for which "
            f"{type(model).__name__} has no place. The model would compute something else."
        )


# --- the cache ------------------------------------------------------------------------------------


def _keep(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save both so that ``folder`` is complete or absent, even if several processes do so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix="tmp", dir=folder.parent))
    try:
        with _locked(temporary):
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            files = {file.name: _hash(file) for file in _files(temporary)}
            write_json_atomic(temporary / LISTING, {"conversion": CONVERSION, "files": files})
            # fails if another process was first: its folder is not empty
            os.replace(temporary, folder)
    except BaseException:  # a full disk, or Ctrl-C
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _is_whole(folder: Path) -> bool:
    """Return whether the conversion in ``folder`` has all its files, and as they were written."""
    try:
        listing: dict[str, Any] = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        return listing["conversion"] == CONVERSION and all(
            _hash(folder / name) == digest for name, digest in listing["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _files(folder: Path) -> Iterable[Path]:
    return (file for file in sorted(folder.iterdir()) if file.is_file())


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _lock_of(folder: Path) -> Path:
    # Beside the folder: Windows renames no folder in which a file is open.
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a temporary folder, which tells others that its process is alive."""
    path = _lock_of(folder)
    lock = take_lock(path)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
        path.unlink(missing_ok=True)


def _remove_abandoned(models: Path) -> None:
    """Remove the temporary folders of processes that were killed."""
    for folder in (path for path in models.glob("tmp*") if path.is_dir()):
        with contextlib.suppress(OSError):
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
                _lock_of(folder).unlink(missing_ok=True)


def _is_abandoned(folder: Path) -> bool:
    if _lock_of(folder).exists():
        try:
            lock = take_lock(_lock_of(folder))
        except HeldError:
            return False
        if lock is not None:
            lock.release()
            return True  # whoever held it is gone
    # it has no lock yet, or the drive has none
    newest = max(file.stat().st_mtime for file in (folder, *folder.iterdir()))
    return time.time() - newest > ABANDONED
