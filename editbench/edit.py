"""``Edit``: the result of an injection, as an ordinary artifact to apply, revert, save and load.

An edit is either a set of weight changes (dense tensors or low-rank factors) or a context to put
before prompts. A manifest says where it comes from.

    with edit.applied(model):
        model.generate("The capital of Australia is")
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from editbench.errors import DataError, ModelError, RecordError
from editbench.files import write_json_atomic
from editbench.models import LanguageModel, quiet_transformers
from editbench.report import EditRecord
from editbench.retrieval import Retriever
from editbench.types import Fact, digest

FORMAT = 1
"""Version of the files of a saved edit."""
MAX_NORMS = 12
"""``Edit.summary`` lists the norm of each changed weight if there are at most this many."""
Change = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
"""A dense change, or factors (left, right) whose product is the change."""
Keys = Mapping[str, torch.Tensor]
"""Keys (f, M) of an edit's facts, by the weight that they belong to."""


class ModelName(TypedDict):
    """The model of a saved edit."""

    name: str
    hash: str
    """``LanguageModel.fingerprint`` of the weights that the edit was made for."""


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


@dataclass(frozen=True)
class Edit:
    """The result of one injection."""

    method: str
    options: Mapping[str, Any]
    """All options of the method, as ``Method.options`` gives them."""
    model_name: str
    model_hash: str
    """``LanguageModel.fingerprint`` of the weights that the edit was made for."""
    facts: tuple[Fact, ...]
    changes: Mapping[str, Change] = field(default_factory=dict)
    """Parameter name -> its change, in the parameter's own orientation."""
    keys: Keys = field(default_factory=dict)
    """What a sequential editor must remember of these facts, by changed weight: A (f, M), float32,
    where A A^T is the sum of k k^T over the facts."""
    context: Retriever | None = None
    """Finds the fact to put before a prompt. Set for an in-context edit only."""
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    """The method's report on its own work, JSON-ready: fields of ``report.EditReport`` and figures
    that the method declares."""
    records: Sequence[EditRecord] = ()
    """JSON-ready rows, one for each fact or training text, if the method keeps any."""

    @contextmanager
    def applied(self, model: LanguageModel, check: bool = True) -> Iterator[LanguageModel]:
        """Apply the edit to ``model`` inside the ``with``, and restore it bit for bit afterwards.

        Raises:
            ModelError: if ``model`` is not the one the edit was made for (``check=False`` skips
                this check), or lacks a changed weight.
        """
        revert = self.apply(model, check)
        try:
            yield model
        finally:
            revert()

    @torch.no_grad()
    def apply(self, model: LanguageModel, check: bool = True) -> Callable[[], None]:
        """Apply the edit to ``model`` and return the function that reverts it bit for bit.

        Raises:
            ModelError: as ``applied``. ``model`` is then unchanged.
        """
        if check:
            self.check(model)
        # Copies, because subtracting a change again would leave rounding errors. All are taken and
        # checked before the first weight is touched.
        before = {name: model.weight(name).detach().clone() for name in self.changes}
        for name, change in self.changes.items():
            if shape(change) != before[name].shape:
                raise ModelError(
                    f"Weight {name!r} of {model.name} has shape {tuple(before[name].shape)}, "
                    f"but its change has shape {tuple(shape(change))}. "
                    "The edit was made for another architecture."
                )
        context_before, applied_before = model.context_for, model.applied

        @torch.no_grad()
        def revert() -> None:
            for name, weight in before.items():
                model.weight(name).copy_(weight)
            model.context_for, model.applied = context_before, applied_before

        try:
            for name, change in self.changes.items():
                weight = model.weight(name)
                # added in float64, so that the sum is rounded once, to the weight's own dtype
                changed = weight.double() + dense(change).to(weight.device, torch.float64)
                weight.copy_(changed.to(weight.dtype))
        except BaseException:  # out of memory, or Ctrl-C: leave no half-applied edit behind
            revert()
            raise
        if self.context is not None:
            model.context_for = self.context.context
        model.applied = (*applied_before, self)
        return revert

    def check(self, model: LanguageModel) -> None:
        """Check that ``model`` is the one this edit was made for.

        Raises:
            ModelError: if the weights of ``model`` differ from those of that model.
        """
        if model.fingerprint() != self.model_hash:
            raise ModelError(
                f"This edit was made for {self.model_name} with weights {self.model_hash}; "
                f"{model.name} has other weights. Revert earlier edits first, or pass the model it "
                "was made for (in Python, check=False skips this check)."
            )

    def merge(self, model: LanguageModel, folder: str | Path) -> Path:
        """Write the edited model as a plain Hugging Face folder.

        Raises:
            ModelError: if this is an in-context edit, which changes no weights, or the model has an
                adapter beside its weights.
        """
        if self.context is not None:
            raise ModelError("An in-context edit changes no weights, so there is nothing to merge.")
        if getattr(model.model, "_hf_peft_config_loaded", False):
            raise ModelError(
                f"{model.name} has a PEFT adapter beside its weights, and transformers would save "
                "the adapter alone. Load the model by the name of its folder, which adds the "
                "adapter to the weights."
            )
        with self.applied(model), quiet_transformers():
            model.model.save_pretrained(folder)
            model.tokenizer.save_pretrained(folder)
        return Path(folder)

    def norms(self, model: LanguageModel) -> dict[str, float]:
        """Return ||dW|| / ||W|| (Frobenius norms) of each changed weight."""
        norms = {}
        for name, change in self.changes.items():
            # clamped, since a bias may be all zeros
            norm = model.weight(name).detach().norm().cpu().clamp(min=1e-12)
            norms[name] = (dense(change).norm() / norm).item()
        return norms

    def summary(self, model: LanguageModel) -> dict[str, Any]:
        """Return the number of facts and of changed weights, their norms, and the report."""
        norms = self.norms(model)
        shown = norms if len(norms) <= MAX_NORMS else {}
        total = sum(dense(c).double().pow(2).sum().item() for c in self.changes.values()) ** 0.5
        return {
            "facts": len(self.facts),
            "changed_weights": len(norms),
            "delta_norm": total,
            "relative_norms": shown,
            **self.diagnostics,
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``edit.safetensors``, ``records.jsonl`` and, last, ``manifest.json`` to ``folder``.

        An edit that is already in the folder is replaced.

        Raises:
            RecordError: if the folder holds anything else, or cannot be written.
        """
        folder = Path(folder)
        if _is_foreign(folder):
            raise RecordError(f"{folder} is not empty and holds no edit. Choose another --output.")
        rows = [json.dumps(record, ensure_ascii=False) + "\n" for record in self.records]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # No manifest means no edit: removed first and written last, it keeps a half-written
            # edit from being taken for a whole one.
            (folder / "manifest.json").unlink(missing_ok=True)
            _replace(folder / "edit.safetensors", lambda path: save_file(self._tensors(), path))
            _replace(
                folder / "records.jsonl",
                lambda path: Path(path).write_text("".join(rows), encoding="utf-8"),
            )
            write_json_atomic(folder / "manifest.json", self._manifest())
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RecordError(f"The edit could not be written to {folder}: {reason}.") from error
        return folder

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors, named ``WEIGHT|PART``.

        The parts of a weight are ``delta``, or ``left`` and ``right``, and ``keys`` if it has any.
        """
        tensors = {}
        for name, change in self.changes.items():
            if isinstance(change, torch.Tensor):
                parts = {"delta": change}
            else:
                parts = {"left": change[0], "right": change[1]}
            if name in self.keys:
                parts["keys"] = self.keys[name]
            for part, tensor in parts.items():
                tensors[f"{name}|{part}"] = tensor.contiguous().cpu()
        return tensors

    def _manifest(self) -> Manifest:
        facts = [fact.to_dict() for fact in self.facts]
        return {
            "format": FORMAT,
            "method": self.method,
            "options": dict(self.options),
            "model": {"name": self.model_name, "hash": self.model_hash},
            "facts_hash": digest(facts),
            "facts": facts,
            "kind": "context" if self.context is not None else "weights",
            "diagnostics": dict(self.diagnostics),
        }

    @classmethod
    def load(cls, folder: str | Path) -> Edit:
        """Return the edit saved in ``folder``.

        Raises:
            RecordError: if the folder holds no edit, or a damaged one.
        """
        folder = Path(folder)
        for file in ("manifest.json", "edit.safetensors", "records.jsonl"):
            if not (folder / file).is_file():
                raise RecordError(f"{folder} holds no edit: {file} is missing.")
        try:
            return cls._read(folder)
        except (ValueError, KeyError, TypeError, OSError, DataError, SafetensorError) as error:
            raise RecordError(f"The edit in {folder} is damaged: {error}.") from error

    @classmethod
    def _read(cls, folder: Path) -> Edit:
        manifest: Manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        facts = tuple(Fact.from_dict(fact) for fact in manifest["facts"])
        facts_hash = digest([fact.to_dict() for fact in facts])
        if manifest["format"] != FORMAT or manifest["facts_hash"] != facts_hash:
            raise ValueError("its manifest does not match its facts or this version")
        tensors = load_file(folder / "edit.safetensors")
        # not splitlines(), which also splits at U+2028 and similar characters inside a text
        rows = (folder / "records.jsonl").read_text(encoding="utf-8").split("\n")
        return cls(
            manifest["method"],
            manifest["options"],
            manifest["model"]["name"],
            manifest["model"]["hash"],
            facts,
            _changes(tensors),
            {
                key.removesuffix("|keys"): tensor
                for key, tensor in tensors.items()
                if key.endswith("|keys")
            },
            Retriever(facts) if manifest["kind"] == "context" else None,
            manifest["diagnostics"],
            tuple(json.loads(row) for row in rows if row),
        )


def _is_foreign(folder: Path) -> bool:
    """Return whether ``folder`` is a file, or a folder that holds anything other than an edit."""
    if not folder.is_dir():
        return folder.exists()
    return any(folder.iterdir()) and not (folder / "manifest.json").is_file()


def _changes(tensors: Mapping[str, torch.Tensor]) -> dict[str, Change]:
    """Return the changes among ``tensors``; the inverse of ``Edit._tensors``."""
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


def shape(change: Change) -> torch.Size:
    """Return the shape of the weight that ``change`` belongs to."""
    if isinstance(change, torch.Tensor):
        return change.shape
    left, right = change
    return torch.Size([left.shape[0], right.shape[1]])


def dense(change: Change) -> torch.Tensor:
    """Return ``change`` as one tensor on the CPU. Factors are multiplied in float64."""
    if isinstance(change, torch.Tensor):
        return change.cpu()
    left, right = change
    return left.cpu().double() @ right.cpu().double()


def summed(first: Change, second: Change) -> Change:
    """Return the sum of two changes of one weight.

    The sum of two products is one product of larger rank. Its factors take as much space as those
    of both changes together.
    """
    # L R + L' R' = [L L'] [R; R']
    if isinstance(first, tuple) and isinstance(second, tuple):
        (left, right), (more_left, more_right) = first, second
        return (
            torch.cat([left, more_left.to(left)], dim=1),
            torch.cat([right, more_right.to(right)], dim=0),
        )
    return (dense(first) + dense(second)).float()


def joined(first: Keys, second: Keys) -> dict[str, torch.Tensor]:
    """Return the keys (f, M) of two edits side by side, by weight."""
    # [A B] [A B]^T = A A^T + B B^T, the sum that ``Edit.keys`` stands for
    return {
        name: torch.cat([keys[name] for keys in (first, second) if name in keys], dim=1)
        for name in dict.fromkeys([*first, *second])
    }


def _replace(path: Path, write: Callable[[str], object]) -> None:
    """Write ``path`` through a temporary file, so that a crash leaves the old or the new file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    os.close(handle)
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
