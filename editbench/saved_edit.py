"""The folder of a saved edit: write its files, and read and check them.

``edit.safetensors`` has the tensors, ``records.jsonl`` the method's notes, and ``manifest.json``
all else with the hashes of both. The edits of a stack are in ``parts/1``, ``parts/2`` and so on.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from editbench.edit import (
    Change,
    Edit,
    Keys,
    UncheckedEdit,
    Values,
    disk_errors,
    is_finite,
    misfit,
    shape,
)
from editbench.errors import DataError, RecordError
from editbench.files import (
    EDIT_FILES,
    PARTS,
    check_folder,
    jsonable,
    whole_folder,
    write_json_atomic,
)
from editbench.retrieval import Retriever
from editbench.types import Fact, digest

FORMAT = 3
"""Version of the files of a saved edit. Format 1, which had no hashes, and format 2, which had no
values and no parts, are still read."""
VALUES = "values"
"""Name of ``Edit.values`` among the tensors of a saved edit."""


class ModelName(TypedDict):
    """The model of a saved edit."""

    name: str
    hash: str
    """``LanguageModel.fingerprint`` of the weights that the edit was made for."""
    dtype: NotRequired[str]
    """In which type those weights are held, where it is not float32."""


class Manifest(TypedDict):
    """``manifest.json`` of a saved edit."""

    format: int
    method: str
    options: dict[str, Any]
    model: ModelName
    facts_hash: str
    """``digest`` of ``facts``."""
    facts: list[dict[str, object]]
    kind: str
    """``weights`` or ``context``."""
    diagnostics: dict[str, Any]
    files: NotRequired[dict[str, str]]
    """SHA-256 of the other files; from format 2 on."""
    parts: NotRequired[list[str]]
    """Of a stack: the ``digest`` of each part's manifest, in the order of ``Edit.parts``."""
    digest: NotRequired[str]
    """``digest`` of all other fields; from format 2 on."""


def write(edit: Edit, folder: Path, overwrite: bool = False) -> Path:
    """Write ``edit`` to ``folder``, as ``Edit.save`` says.

    Raises:
        RecordError: as ``Edit.save``.
    """
    check_folder(folder, overwrite, (*EDIT_FILES, PARTS))
    for part in (edit, *edit.parts):
        if flaw := _flaw(part.changes, part.keys, part.values):
            raise RecordError(f"This edit ({part.method}) cannot be saved: {flaw}.")
    with whole_folder(folder, overwrite, also=(PARTS,)) as new, disk_errors():
        _write(edit, new)
    return folder


def _write(edit: Edit, folder: Path) -> str:
    """Write the files of ``edit``, and return the digest of its manifest."""
    parts = []
    for number, part in enumerate(edit.parts, start=1):
        (folder / PARTS / str(number)).mkdir(parents=True)
        parts.append(_write(part, folder / PARTS / str(number)))
    rows = [json.dumps(record, ensure_ascii=False) + "\n" for record in edit.records]
    save_file(_tensors(edit), folder / "edit.safetensors")
    (folder / "records.jsonl").write_text("".join(rows), encoding="utf-8", newline="\n")
    hashes = {name: _sha256(folder / name) for name in EDIT_FILES if name != "manifest.json"}
    own = {**_manifest(edit), "files": hashes, **({"parts": parts} if parts else {})}
    manifest = jsonable(own)
    whole = digest(manifest)
    write_json_atomic(folder / "manifest.json", {**manifest, "digest": whole})
    return whole


def _tensors(edit: Edit) -> dict[str, torch.Tensor]:
    """Return all tensors, named ``WEIGHT|PART``, and ``values`` if there are any.

    The parts of a weight are ``delta``, or ``left`` and ``right``, and ``keys`` if it has any.
    """
    tensors = {}
    if edit.values is not None:
        tensors[VALUES] = edit.values.contiguous().cpu()
    for name, change in edit.changes.items():
        if isinstance(change, torch.Tensor):
            parts = {"delta": change}
        else:
            parts = {"left": change[0], "right": change[1]}
        if name in edit.keys:
            parts["keys"] = edit.keys[name]
        for part, tensor in parts.items():
            tensors[f"{name}|{part}"] = tensor.contiguous().cpu()
    return tensors


def _manifest(edit: Edit) -> Manifest:
    facts = [fact.to_dict() for fact in edit.facts]
    model: ModelName = {"name": edit.model_name, "hash": edit.model_hash}
    if edit.model_dtype != "float32":
        model["dtype"] = edit.model_dtype
    return {
        "format": FORMAT,
        "method": edit.method,
        "options": dict(edit.options),
        "model": model,
        "facts_hash": digest(facts),
        "facts": facts,
        "kind": "context" if edit.context is not None else "weights",
        "diagnostics": dict(edit.diagnostics),
    }


def read(folder: Path) -> Edit:
    """Return the edit in ``folder``, as ``Edit.load`` says.

    Raises:
        RecordError: as ``Edit.load``.
    """
    if not folder.is_dir():
        raise RecordError(f"There is no folder {folder}.")
    for file in EDIT_FILES:
        if not (folder / file).is_file():
            raise RecordError(f"{folder} holds no edit: {file} is missing.")
    try:
        return _read(folder)
    except (ValueError, KeyError, TypeError, OSError, DataError, SafetensorError) as error:
        raise RecordError(f"The edit in {folder} is damaged: {error}.") from error


def _read(folder: Path) -> Edit:
    manifest: Manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    hashed = _check_hashes(folder, manifest)
    facts = tuple(Fact.from_dict(fact) for fact in manifest["facts"])
    if manifest["facts_hash"] != digest([fact.to_dict() for fact in facts]):
        raise ValueError("its manifest does not match its facts")
    if manifest["kind"] not in ("weights", "context"):
        raise ValueError(f"its kind is {manifest['kind']!r}")
    parts = tuple(_read_parts(folder, manifest.get("parts", ())))
    tensors = load_file(folder / "edit.safetensors")
    values = tensors.pop(VALUES, None)
    changes = _changes(tensors)
    keys = {
        key.removesuffix("|keys"): tensor
        for key, tensor in tensors.items()
        if key.endswith("|keys")
    }
    if flaw := _flaw(changes, keys, values):
        raise ValueError(flaw)
    if values is not None and len(values) != len(facts):
        raise ValueError(f"it has {len(values)} values for {len(facts)} facts")
    # not splitlines(), which also splits at U+2028 and similar characters inside a text
    rows = (folder / "records.jsonl").read_text(encoding="utf-8").split("\n")
    edit = Edit(
        manifest["method"],
        manifest["options"],
        manifest["model"]["name"],
        manifest["model"]["hash"],
        facts,
        changes,
        keys,
        Retriever(facts) if manifest["kind"] == "context" else None,
        manifest["diagnostics"],
        tuple(json.loads(row) for row in rows if row),
        # Before it was written, weights were float32.
        model_dtype=manifest["model"].get("dtype", "float32"),
        values=values,
        parts=parts,
    )
    if not hashed:
        if facts and not changes and edit.context is None and edit.method != "base":
            raise ValueError(f"edit.safetensors has no tensors, but {edit.method} changes some")
        warnings.warn(
            f"The edit in {folder} was saved by an older editbench, without hashes of its "
            "files, so damage to them may go unnoticed. Inject again to be sure.",
            UncheckedEdit,
            stacklevel=4,
        )
    return edit


def _check_hashes(folder: Path, manifest: Manifest) -> bool:
    """Check the files against ``manifest``; return whether it has hashes to check them against.

    Raises:
        ValueError: if the manifest or a file is not the one that was saved.
    """
    if manifest["format"] == 1 and "files" not in manifest and "digest" not in manifest:
        return False
    if manifest["format"] not in (2, FORMAT):
        raise ValueError(
            f"it has format {manifest['format']!r}, and this editbench reads 1 to {FORMAT}"
        )
    rest = {name: value for name, value in manifest.items() if name != "digest"}
    if manifest["digest"] != digest(rest):
        raise ValueError("manifest.json is not the file that was saved")
    for name in ("edit.safetensors", "records.jsonl"):
        if _sha256(folder / name) != manifest["files"][name]:
            raise ValueError(f"{name} is not the file that was saved with it")
    return True


def _read_parts(folder: Path, digests: Sequence[str]) -> Iterator[Edit]:
    """Yield the parts of a stack.

    Raises:
        ValueError: if one is missing, damaged, or another one than was saved.
    """
    for number, whole in enumerate(digests, start=1):
        path = folder / PARTS / str(number)
        which = f"part {number} of its {len(digests)} parts ({path})"
        if not path.is_dir():
            raise ValueError(f"{which} is missing; copy the whole folder again")
        try:
            yield read(path)
        except RecordError as error:
            raise ValueError(f"{which} cannot be read: {str(error).rstrip('.')}") from error
        if json.loads((path / "manifest.json").read_text(encoding="utf-8"))["digest"] != whole:
            raise ValueError(f"{which} is not the one that was saved with it")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:  # read in pieces: an edit may be larger than the memory
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flaw(changes: Mapping[str, Change], keys: Keys, values: Values | None = None) -> str | None:
    """Return what keeps these tensors from being those of an edit, or ``None``."""
    parts = [(name, t) for name, c in changes.items() for t in (c if isinstance(c, tuple) else [c])]
    kept = [] if values is None else [(VALUES, values)]
    for name, tensor in [*parts, *keys.items(), *kept]:
        if not tensor.is_floating_point():
            return f"{name!r} has values of type {str(tensor.dtype).removeprefix('torch.')}"
        if not is_finite(tensor):
            return f"{name!r} has values that are infinite or NaN"
    for name, change in changes.items():
        if flaw := misfit(change):
            return f"of {name!r} {flaw}"
    for name, a_fM in keys.items():
        if a_fM.dim() != 2 or (name in changes and len(a_fM) not in shape(changes[name])):
            return f"the keys of {name!r} have shape {tuple(a_fM.shape)}"
    return None


def _changes(tensors: Mapping[str, torch.Tensor]) -> dict[str, Change]:
    """Return the changes among ``tensors``; the inverse of ``_tensors``."""
    changes: dict[str, Change] = {}
    for key, tensor in tensors.items():
        name, part = key.split("|")
        if part == "keys":
            continue
        # Either one dense tensor or two factors; both at once would be ambiguous.
        both = part == "delta" and f"{name}|left" in tensors
        if part not in ("delta", "left", "right") or both:
            raise ValueError(f"tensor {key!r} is not part of a change")
        if part == "delta":
            changes[name] = tensor
        else:
            changes[name] = (tensors[f"{name}|left"], tensors[f"{name}|right"])
    return changes
