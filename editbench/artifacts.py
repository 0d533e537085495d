"""Read what somebody made elsewhere as an ``Edit``: an adapter, fine-tuned weights, a saved edit.

All three are folders on this machine. Each is compared with the base that it is scored against, as
far as it says what it was made from, and ``Reading.record`` says what was compared.

=========  =======================  ==============================================================
kind       is told by               its base
=========  =======================  ==============================================================
adapter    ``adapter_config.json``  named there. If that is a folder here, its weights must be those
                                    of the model; otherwise the names must be the same.
weights    ``config.json``          not named: architecture, configuration, shapes and tokenizer
                                    must be those of the model.
edit       ``manifest.json``        its fingerprint must be that of the model.
=========  =======================  ==============================================================
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from editbench.adapters import fold_adapter
from editbench.aliases import ALIASES
from editbench.changes import Change
from editbench.checkpoints import damaged, quiet_transformers, sentence
from editbench.edit import Edit, UncheckedEdit
from editbench.errors import EditbenchError, ModelError
from editbench.files import EDIT_FILES
from editbench.finetuned import (
    INDEX,
    change_of,
    changes_of,
    check_config,
    check_tokenizer,
    has_weights_of,
    read_json,
    weight_files,
)
from editbench.models import LanguageModel
from editbench.sharing import base_weights
from editbench.tensors import read_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind = Literal["adapter", "weights", "edit"]
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
WHAT = "An artifact is a folder with a PEFT adapter, a fine-tuned model or a saved edit."
FAR = 0.5
"""Share of the base's norm above which weights may come from another training altogether: those of
two models that were trained apart differ by more than 1."""


class Reading(NamedTuple):
    """An artifact that fits the model."""

    edit: Edit
    kind: str
    """In words, such as ``PEFT adapter (LORA)``."""
    base: str
    """The model that it names as its base; empty if it names none."""
    checked: str
    """What of the base was compared with the model."""


def kind_of(path: Path) -> Kind:
    """Return what the folder ``path`` holds, by its files; nothing of it is loaded.

    Raises:
        ModelError: it is no artifact, lacks a file, names no base, or its weights are pickled.
    """
    if not path.is_dir():
        if not path.exists():
            raise ModelError(f"There is no folder {path}. {WHAT}")
        if path.suffix == ".gguf" or _starts_with(path, b"GGUF"):
            raise ModelError(f"{path} is a GGUF file, which is a whole model: pass it as --model.")
        raise ModelError(f"{path} is a file. {WHAT}")
    if any((path / file).is_file() for file in ("manifest.json", "edit.safetensors")):
        if missing := [file for file in EDIT_FILES if not (path / file).is_file()]:
            raise ModelError(f"{path} holds an incomplete edit: {missing[0]} is missing.")
        return "edit"
    is_model = (path / "config.json").is_file()
    if (path / ADAPTER_FILES[0]).is_file():
        if is_model:
            raise ModelError(
                f"{path} holds both a model and an adapter (config.json and adapter_config.json). "
                "Move one of them to a folder of its own."
            )
        _check_adapter_files(path)
        return "adapter"
    if is_model:
        weight_files(path)
        return "weights"
    if any(path.glob("*.gguf")):
        raise ModelError(f"{path} holds a GGUF file, which is a whole model: pass it as --model.")
    raise ModelError(
        f"{path} holds none of adapter_config.json, config.json and manifest.json. {WHAT}"
    )


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _check_adapter_files(path: Path) -> None:
    if not (path / ADAPTER_FILES[1]).is_file():
        if any(path.glob("adapter_model*.bin")):
            raise ModelError(
                f"{path} has its weights as a pickle (.bin), which could run code while it is "
                "read. Save the adapter again with a newer PEFT, which writes safetensors."
            )
        raise ModelError(f"{path} has no weights: {ADAPTER_FILES[1]} is missing.")
    if not _base_name(path):
        raise ModelError(
            f"The adapter in {path} does not name its base. Write the model that it was trained "
            "on into base_model_name_or_path of its adapter_config.json."
        )


def _base_name(path: Path) -> str:
    base = read_json(path / ADAPTER_FILES[0]).get("base_model_name_or_path")
    return base if isinstance(base, str) else ""


def named_base(path: Path) -> str:
    """Return the model that the artifact in ``path`` names as its base; empty if it names none.

    Raises:
        ModelError: as ``kind_of``.
        RecordError: a saved edit is damaged.
    """
    kind = kind_of(path)
    if kind == "edit":
        return Edit.load(path).model_name
    if kind != "adapter":
        return ""
    base = _base_name(path)
    # What was exported here names the hub id of an alias, and was made for the alias's weights.
    here = (name for name, alias in ALIASES.items() if alias.hub == base and base_weights(path))
    return next(here, base)


def contents(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that decides what the artifact in ``path`` is, by its path.

    Raises:
        ModelError: as ``kind_of``, or a file cannot be read.
    """
    kind = kind_of(path)
    if kind == "weights":
        files = [path / "config.json", *weight_files(path)]
        files += [path / INDEX] if len(files) > 2 else []
    else:
        files = [path / name for name in (EDIT_FILES if kind == "edit" else ADAPTER_FILES)]
    try:
        states = [(file, file.stat()) for file in files]
        return {str(file): _sha256(file, at.st_size, at.st_mtime_ns) for file, at in states}
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error


@cache
def _sha256(file: Path, size: int, changed: int) -> str:
    """Hash a file once, until its size or its time of change is another one."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read(path: Path, model: LanguageModel) -> Reading:
    """Return the artifact in ``path`` as an edit of ``model``, which is left as it is.

    Raises:
        ModelError: the artifact was made for another model, is damaged, or cannot be an edit of
            this one. The message says why, with both names.
        RecordError: a saved edit is damaged.
    """
    readers: dict[Kind, Callable[[Path, LanguageModel], Reading]] = {
        "adapter": _adapter,
        "weights": _weights,
        "edit": _saved_edit,
    }
    kind = kind_of(path)
    with _named_errors(path):
        reading = readers[kind](path, model)
    reading.edit.check_shapes(model)
    return reading


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn what libraries raise while an artifact is read into one sentence."""
    try:
        yield
    except (EditbenchError, MemoryError):
        raise
    except Exception as error:  # a damaged file can end in an error of any type
        reason = damaged(path) or sentence(error).rstrip(".")
        raise ModelError(f"{path} could not be read: {reason}.") from error


def _edit(model: LanguageModel, changes: Mapping[str, Change], notes: list[str]) -> Edit:
    report = {"warnings": notes} if notes else {}
    return Edit(
        "artifact",
        {},
        model.name,
        model.fingerprint(),
        (),
        changes,
        diagnostics=report,
        model_dtype=model.dtype_name,
    )


# --- a saved edit ---------------------------------------------------------------------------------


def _saved_edit(path: Path, model: LanguageModel) -> Reading:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UncheckedEdit)
        edit = Edit.load(path)
    if edit.model_hash != model.fingerprint():
        held = edit.held_in(model)
        hint = f"; with --dtype {held} they are the same" if held else ""
        raise ModelError(
            f"The edit in {path} was made for {edit.model_name} (weights {edit.model_hash}), and "
            f"this is {model.name} (weights {model.fingerprint()}){hint}."
        )
    notes = [str(each.message) for each in caught if each.category is UncheckedEdit]
    notes += list(edit.diagnostics.get("warnings", ()))
    # Its report is about an injection that is not a part of this run, but for its warnings.
    edit = replace(edit, diagnostics={"warnings": notes} if notes else {})
    return Reading(
        edit, f"saved edit ({edit.method})", edit.model_name, "the fingerprint of its base"
    )


# --- fine-tuned weights ---------------------------------------------------------------------------


def _weights(path: Path, model: LanguageModel) -> Reading:
    check_config(path, model)
    tokenizer, notes = check_tokenizer(path, model)
    changes = changes_of(path, model)
    moved, whole = _squares(changes.values()), _squares(model.model.parameters())
    if moved > FAR**2 * whole:
        notes.append(
            f"its weights differ from those of {model.name} by {(moved / whole) ** 0.5:.0%} of "
            "their norm, so it may have been made from another base, which such a folder does not "
            "name"
        )
    checked = f"architecture, configuration, shapes{tokenizer}"
    return Reading(_edit(model, changes, notes), "fine-tuned weights", "", checked)


def _squares(tensors: Iterable[torch.Tensor]) -> float:
    return sum(float(tensor.detach().cpu().double().pow(2).sum()) for tensor in tensors)


# --- a PEFT adapter -------------------------------------------------------------------------------


def _adapter(path: Path, model: LanguageModel) -> Reading:
    base = _base_name(path)
    checked = _check_base(path, base, model)
    tokenizer, notes = check_tokenizer(path, model)
    tensors = read_tensors(path / ADAPTER_FILES[1])
    if odd := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ModelError(
            f"The adapter in {path} has values in {odd[0]!r} that are infinite or NaN."
        )
    with (
        torch.random.fork_rng(devices=[]),
        quiet_transformers(),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        twin = _twin(model)
        fold_adapter(twin, str(path))
    # PEFT leaves out what a newer PEFT has written, and it may have changed the logits.
    if unknown := [w for w in caught if str(w.message).startswith("Unexpected keyword arguments")]:
        fields = str(unknown[0].message).partition("[")[2].partition("]")[0]
        notes.append(f"the PEFT installed here does not know the fields {fields} of its config")
    _check_still_tied(path, model, twin)
    own = {name for name, _ in model.model.named_parameters(remove_duplicate=False)}
    merged = dict(twin.named_parameters())
    if added := sorted(merged.keys() - own):
        raise ModelError(f"The adapter in {path} adds {added[0]!r}, which {model.name} has not.")
    factors = _factors(tensors)
    changes: dict[str, Change] = {}
    # The weights that the base has once; another name of a tied weight is compared above.
    for name, _ in model.model.named_parameters():
        change = change_of(model, name, merged[name].detach(), str(path))
        if change is not None:
            changes[name] = _as_product(change, factors.get(name), model.weight(name))
    config = read_json(path / ADAPTER_FILES[0])
    kind = "DoRA" if config.get("use_dora") else str(config.get("peft_type"))
    edit = _edit(model, changes, notes)
    return Reading(edit, f"PEFT adapter ({kind})", base, f"{checked}{tokenizer}")


def _twin(model: LanguageModel) -> PreTrainedModel:
    """Return a copy of a model on the CPU, in float32: PEFT can leave nothing in the model itself.

    The copy takes the memory of a second model while an adapter is read.
    """
    # The copied weights take the place of those that deepcopy would make on the model's device.
    copies: dict[int, object] = {
        id(weight): torch.nn.Parameter(weight.detach().to("cpu", torch.float32, copy=True))
        for weight in model.model.parameters()
    }
    twin = copy.deepcopy(model.model, copies)
    twin.to("cpu")  # type: ignore[arg-type]  # a decorator of transformers hides self
    return twin


def _check_base(path: Path, base: str, model: LanguageModel) -> str:
    """Check that an adapter was trained on ``model``; return what was compared.

    Raises:
        ModelError: it names another base.
    """
    if (weights := base_weights(path)) is not None:
        if weights != model.fingerprint():
            raise ModelError(
                f"The adapter in {path} was exported from an edit of {base} with weights {weights},"
                f" and {model.name} has other weights ({model.fingerprint()})."
            )
        return "the fingerprint of its base"
    folder = Path(base).expanduser()
    if (folder / "config.json").is_file():
        check_config(folder, model)
        if not has_weights_of(folder, model):
            raise ModelError(
                f"The adapter in {path} was trained on {base}, whose weights are not those of "
                f"{model.name}. Pass --model {base}."
            )
        return "the weights of its base"
    if not _same_name(base, model.name):
        raise ModelError(
            f"The adapter in {path} was trained on {base!r}, and this is {model.name!r}. Pass "
            f"--model {base}. If the two names mean the same model, write {model.name!r} into "
            "base_model_name_or_path of its adapter_config.json."
        )
    return "the name of its base, shapes"


def _same_name(one: str, other: str) -> bool:
    """Return whether two names may mean one model.

    Aliases and hub ids count in full. A folder is compared by its last part.
    """
    if one == other or other in ALIASES:
        return one == other
    ids = [name for name in (one, other) if name.count("/") == 1 and name[0] not in "/.~"]
    return len(ids) < 2 and _last_part(one) == _last_part(other)


def _last_part(name: str) -> str:
    # The hub's cache keeps owner/name in models--owner--name/snapshots/HASH.
    cached = [part for part in Path(name).parts if part.startswith("models--")]
    return cached[-1].split("--")[-1].lower() if cached else Path(name).name.lower()


def _check_still_tied(path: Path, model: LanguageModel, twin: torch.nn.Module) -> None:
    """Refuse an adapter of a head or of embeddings where the two share one weight.

    PEFT would merge it into both (https://github.com/huggingface/peft/issues/2972).
    """

    def both(of: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor] | None:
        head = of.get_output_embeddings()  # type: ignore[operator]
        if head is None:
            return None
        return of.get_input_embeddings().weight, head.weight  # type: ignore[operator]

    ours, theirs = both(model.model), both(twin)
    if ours is None or theirs is None or ours[0] is not ours[1] or theirs[0] is theirs[1]:
        return
    if not torch.equal(*theirs):
        raise ModelError(
            f"The adapter in {path} changes the embeddings or the head alone, and {model.name} "
            "uses one weight for both, so merging it would change the other one as well (PEFT "
            "issue 2972). Leave both out of target_modules and modules_to_save."
        )


def _factors(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the matrices B (out, r) and A (r, in) of a LoRA adapter, by the weight they change."""
    factors = {}
    for key, left in tensors.items():
        module, is_left, _ = key.removeprefix("base_model.model.").partition(".lora_B.weight")
        right = tensors.get(key.replace(".lora_B.weight", ".lora_A.weight"))
        if is_left and right is not None and left.dim() == right.dim() == 2:
            factors[f"{module}.weight"] = left, right
    return factors


@torch.no_grad()
def _as_product(
    change: torch.Tensor, factors: tuple[torch.Tensor, torch.Tensor] | None, weight: torch.Tensor
) -> Change:
    """Return ``change`` as s B A, where it is that but for rounding; else as it is.

    The factors take a fraction of the memory. PEFT has its own rules for s, so it is fitted, and
    the result is compared with what PEFT merged: with DoRA, for example, no s fits.
    """
    if factors is None:
        return change
    left, right = (factor.double() for factor in factors)
    for one, other in ((left, right), (right.T, left.T)):  # GPT-2's Conv1D is transposed
        if (one.shape[0], other.shape[1]) != tuple(change.shape):
            continue
        product = one @ other
        scale = (product * change).sum() / product.pow(2).sum().clamp(min=1e-30)
        # W + s B A was rounded to float32, and B A computed in it.
        rounding = 2**-23 * (weight.detach().cpu().abs() + change.abs())
        rounding = rounding + 1e-6 * scale.abs() * (one.abs() @ other.abs())
        if ((change - scale * product).abs() <= rounding).all():
            return (scale * one).float().contiguous(), other.float().contiguous()
    return change
