"""``Edit``: what an injection made, as an ordinary artifact: apply, revert, save, load, merge.

An edit is a set of weight changes (dense, or low-rank factors), or a context to put before prompts, with a manifest.

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
from typing import Any

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
Change = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Edit:
    """One injection's result. ``changes`` maps a parameter's name to its change, in the parameter's own orientation:
    a dense tensor, or factors (left, right) whose product is the change."""

    method: str
    options: Mapping[str, Any]
    model_name: str
    model_hash: str
    facts: tuple[Fact, ...]
    changes: Mapping[str, Change] = field(default_factory=dict)
    keys: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """What a sequential editor must remember, by changed weight: A (f, M), float32; A A^T = sum of k k^T over the facts."""
    context: Retriever | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    """What the method says of its own work, JSON-ready: an ``EditReport`` (``report.py``) and the figures
    that the method declares."""
    records: Sequence[EditRecord] = ()
    """One JSON-ready row per fact, or per training text, where the method keeps some."""

    @contextmanager
    def applied(self, model: LanguageModel, check: bool = True) -> Iterator[LanguageModel]:
        """``model`` with this edit inside the ``with``; afterwards its weights are bitwise those of before.

        Raises:
            ModelError: ``model`` is not the one the edit was made for (``check=False`` skips this).
        """
        revert = self.apply(model, check)
        try:
            yield model
        finally:
            revert()

    @torch.no_grad()
    def apply(self, model: LanguageModel, check: bool = True) -> Callable[[], None]:
        """Applies the edit and returns the function that takes it back, bit for bit.

        Raises:
            ModelError: as ``applied``; ``model`` is then untouched.
        """
        if check:
            self.check(model)
        before = {name: model.weight(name).detach().clone() for name in self.changes}
        for name, change in self.changes.items():
            if shape(change) != before[name].shape:
                raise ModelError(
                    f"Weight {name!r} of {model.name} is {tuple(before[name].shape)} and its change {tuple(shape(change))}; "
                    "the edit was made for another architecture."
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
                weight.copy_(
                    (weight.double() + dense(change).to(weight.device, torch.float64)).to(
                        weight.dtype
                    )
                )
        except BaseException:  # no memory, or Ctrl-C: no half an edit stays
            revert()
            raise
        if self.context is not None:
            model.context_for = self.context.context
        model.applied = (*applied_before, self)
        return revert

    def check(self, model: LanguageModel) -> None:
        """Makes sure that ``model`` is the one this edit was made for.

        Raises:
            ModelError: it has other weights.
        """
        if model.fingerprint() != self.model_hash:
            raise ModelError(
                f"This edit was made for {self.model_name} with weights {self.model_hash}; {model.name} has other weights. "
                "Revert earlier edits first, or give the model it was made for (in Python, check=False skips this)."
            )

    def merge(self, model: LanguageModel, folder: str | Path) -> Path:
        """Writes the edited model as a plain Hugging Face folder.

        Raises:
            ModelError: an in-context edit, which changes no weight.
        """
        if self.context is not None:
            raise ModelError("An in-context edit changes no weights, so there is nothing to merge.")
        with self.applied(model), quiet_transformers():
            model.model.save_pretrained(folder)
            model.tokenizer.save_pretrained(folder)
        return Path(folder)

    def norms(self, model: LanguageModel) -> dict[str, float]:
        """||dW|| / ||W|| of every changed weight."""
        return {
            name: (
                dense(change).norm() / model.weight(name).detach().norm().cpu().clamp(min=1e-12)
            ).item()
            for name, change in self.changes.items()
        }

    def summary(self, model: LanguageModel) -> dict[str, Any]:
        """The manifest's numbers: how many facts, which weights, how far they moved, and the diagnostics."""
        norms = self.norms(model)
        shown = norms if len(norms) <= 12 else {}
        total = sum(dense(c).double().pow(2).sum().item() for c in self.changes.values()) ** 0.5
        return {
            "facts": len(self.facts),
            "changed_weights": len(norms),
            "delta_norm": total,
            "relative_norms": shown,
            **self.diagnostics,
        }

    def save(self, folder: str | Path) -> Path:
        """Writes ``edit.safetensors``, ``records.jsonl`` and, last, ``manifest.json``.

        Raises:
            RecordError: the folder holds something else, or cannot be written.
        """
        folder = Path(folder)
        foreign = (
            any(folder.iterdir()) and not (folder / "manifest.json").is_file()
            if folder.is_dir()
            else folder.exists()
        )
        if foreign:
            raise RecordError(f"{folder} is not empty and holds no edit. Choose another --output.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "manifest.json").unlink(missing_ok=True)
            _replace(folder / "edit.safetensors", lambda path: save_file(self._tensors(), path))
            lines = "".join(
                json.dumps(record, ensure_ascii=False) + "\n" for record in self.records
            )
            _replace(
                folder / "records.jsonl",
                lambda path: Path(path).write_text(lines, encoding="utf-8"),
            )
            write_json_atomic(folder / "manifest.json", self._manifest())
        except (OSError, SafetensorError) as error:
            raise RecordError(
                f"The edit could not be written to {folder}: {getattr(error, 'strerror', None) or error}."
            ) from error
        return folder

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, change in self.changes.items():
            parts = (
                {"delta": change}
                if isinstance(change, torch.Tensor)
                else {"left": change[0], "right": change[1]}
            )
            if name in self.keys:
                parts["keys"] = self.keys[name]
            tensors.update(
                {f"{name}|{part}": tensor.contiguous().cpu() for part, tensor in parts.items()}
            )
        return tensors

    def _manifest(self) -> dict[str, Any]:
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
        """The edit saved in ``folder``.

        Raises:
            RecordError: no edit there, or a damaged one.
        """
        folder = Path(folder)
        for file in ("manifest.json", "edit.safetensors", "records.jsonl"):
            if not (folder / file).is_file():
                raise RecordError(f"{folder} holds no edit: {file} is missing.")
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            # not splitlines, which also splits at U+2028 and its like
            lines = (folder / "records.jsonl").read_text(encoding="utf-8").split("\n")
            tensors = load_file(folder / "edit.safetensors")
            facts = tuple(Fact.from_dict(f) for f in manifest["facts"])
            if manifest["format"] != FORMAT or manifest["facts_hash"] != digest(
                [f.to_dict() for f in facts]
            ):
                raise ValueError("its manifest does not match its facts or this version")
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
                tuple(json.loads(line) for line in lines if line),
            )
        except (ValueError, KeyError, TypeError, OSError, DataError, SafetensorError) as error:
            raise RecordError(f"The edit in {folder} is damaged: {error}.") from error


def _changes(tensors: Mapping[str, torch.Tensor]) -> dict[str, Change]:
    """Inverse of ``Edit._tensors``."""
    changes: dict[str, Change] = {}
    for key, tensor in tensors.items():
        name, part = key.split("|")
        if part == "keys":
            continue
        if part not in ("delta", "left", "right") or (
            part == "delta" and f"{name}|left" in tensors
        ):
            raise ValueError(f"tensor {key!r} is no part of a change")
        changes[name] = (
            tensor if part == "delta" else (tensors[f"{name}|left"], tensors[f"{name}|right"])
        )
    return changes


def shape(change: Change) -> torch.Size:
    """The shape of the weight that a change belongs to."""
    return (
        change.shape
        if isinstance(change, torch.Tensor)
        else torch.Size([change[0].shape[0], change[1].shape[1]])
    )


def dense(change: Change) -> torch.Tensor:
    """A change as one tensor on the CPU; products of factors in float64."""
    if isinstance(change, torch.Tensor):
        return change.cpu()
    return change[0].cpu().double() @ change[1].cpu().double()


def summed(one: Change, other: Change) -> Change:
    """The change that is both; of two products one product, which stays as small."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        (a, b), (c, d) = one, other
        return torch.cat([a, c.to(a)], dim=1), torch.cat([b, d.to(b)], dim=0)
    return (dense(one) + dense(other)).float()


def joined(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The keys (f, N) by weight of two edits side by side."""
    return {
        name: torch.cat([keys[name] for keys in (one, other) if name in keys], dim=1)
        for name in dict.fromkeys([*one, *other])
    }


def _replace(path: Path, write: Callable[[str], Any]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    os.close(handle)
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
