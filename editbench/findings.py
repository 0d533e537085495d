"""What is wrong with a model on this machine beside its size, in plain sentences."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from editbench import chat_template
from editbench.checkpoints import damaged, located
from editbench.errors import ModelError
from editbench.hub import cache_dir
from editbench.memory import gibibytes
from editbench.models import native_precision
from editbench.outline import Outline, read_tokenizer


def findings(model: Outline, edits: Sequence[int], folder: Path) -> Iterator[str]:
    """Yield what to know about ``model`` on this machine, in plain sentences.

    Args:
        edits: bytes of each edit on the disk.
        folder: where edits and runs would be written.
    """
    yield from _of_files(model)
    yield from _of_architecture(model)
    yield from _of_tokenizer(model)
    yield from _of_disk(model, edits, folder)


def _of_files(model: Outline) -> Iterator[str]:
    place = located(model.name)
    if isinstance(place, Path) and place.is_dir() and (flaw := damaged(place)):
        yield f"A file of weights cannot be read: {flaw}."
    if quantized := getattr(model.model.config, "quantization_config", None):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        yield f"The weights are quantized ({method}), and the sizes here are those of float32."


NOT_TIMED = (
    "How long a method takes is not said: one layer of this model is too large to be timed here, "
    "or does not run alone."
)
UNWRITABLE = "Weight editors cannot edit it. "


def _of_architecture(model: Outline) -> Iterator[str]:
    try:
        model.layout.check_writable()
    except ModelError as error:
        yield f"{UNWRITABLE}{error}"
    stored = str(getattr(model.model.config, "dtype", None) or "").removeprefix("torch.")
    if stored in ("bfloat16", "float16") and model.dtype == "float32":
        yield (
            f"It is stored in {stored} and held in float32: {gibibytes(model.weights)} in memory, "
            f"twice its files. --dtype {stored} takes half."
        )
    if native_precision(model.device) == "float32":
        wanted = " as --precision bfloat16 wants" if model.precision == "bfloat16" else ""
        yield (
            f"The {model.device.type} here has no bfloat16 units{wanted}, so passes are faster in "
            "float32 than in bfloat16."
        )


def _of_tokenizer(model: Outline) -> Iterator[str]:
    try:
        tokenizer = read_tokenizer(model.name)
    except ModelError as error:
        yield str(error)
        return
    if len(tokenizer) > model.vocabulary:
        yield (
            f"The tokenizer has {len(tokenizer)} tokens and the model embeddings for "
            f"{model.vocabulary}, so some texts are refused."
        )
    if not tokenizer.chat_template:
        yield "Its tokenizer has no chat template, so questions are asked as plain text."
        return
    try:
        thinking = chat_template.style_of(tokenizer).thinking
    except ModelError as error:
        yield f"Its chat template cannot be used. {error}"
        return
    if thinking:
        kept = "keeps it from that" if thinking == "off" else "does not keep it from that"
        yield f"It can think before it answers; editbench asks for answers alone, and {kept}."


def _of_disk(model: Outline, edits: Sequence[int], folder: Path) -> Iterator[str]:
    largest = max(edits, default=0)
    place = located(model.name)
    converted = model.weights if isinstance(place, Path) and place.suffix == ".gguf" else 0
    for what, needed, where in (
        ("the edit", largest, folder),
        ("the unpacked model, which is kept,", converted, cache_dir()),
    ):
        free = shutil.disk_usage(_existing(where)).free
        if needed > free:
            yield f"{where} has {gibibytes(free)} free, and {what} takes {gibibytes(needed)}."


def _existing(folder: Path) -> Path:
    """Return the nearest folder above that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
