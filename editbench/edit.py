"""``Edit``: the result of an injection, as an ordinary artifact to apply, revert, save and load.

An edit is a set of weight changes (dense tensors or low-rank factors), a context to put before
prompts, or a model that answers in a process of its own (``live.py``), which cannot be saved. A
manifest says where it comes from.

    with edit.applied(model):
        model.generate("The capital of Australia is")
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from editbench.changes import (
    VALUES,
    Change,
    Keys,
    Sums,
    Values,
    changes_in,
    dense,
    flaw_of,
    is_finite,
    misfit,
    part_of,
    shape,
)
from editbench.errors import DataError, ModelError, RecordError
from editbench.files import (
    EDIT_FILES,
    PARTS,
    check_folder,
    jsonable,
    whole_folder,
    write_json_atomic,
)
from editbench.live import NOT_MEASURED, LiveModel
from editbench.manifest import FORMAT, Manifest, ModelName, check_hashes, sha256
from editbench.models import LanguageModel, float64_device, quiet_transformers
from editbench.report import EditRecord
from editbench.retrieval import Retriever
from editbench.tensors import read_tensors
from editbench.types import Fact, digest

HELD = (torch.float32, torch.bfloat16, torch.float16)
"""Types in which weights may be held."""
AT_ONCE = 2**24
"""Numbers of a weight to which a dense change is added at once."""
MAX_NORMS = 12
"""``Edit.summary`` lists the norm of each changed weight if there are at most this many."""


class UncheckedEdit(UserWarning):
    """A loaded edit has no hashes, so that damage to its files may go unnoticed."""


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
    live: LiveModel | None = None
    """The edited model, where no change of weights describes it. It answers as long as this edit,
    or one made from it, exists."""
    model_dtype: str = "float32"
    """In which type the model held its weights."""
    values: Values | None = None
    """Of a weight editor: the value of each of ``facts``, in their order. ``Method.inject_again``
    writes some of them again without finding them anew."""
    parts: tuple[Edit, ...] = ()
    """Of a stack (``stack.stacked``): its edits, each made for the model with those before it."""
    sums: Sums = field(default_factory=dict)
    """Of ``ultraedit``: what it read at the tokens of these facts, by changed weight. The first row
    is the number of tokens, the second their sum, the third the sum of their squares."""

    def __repr__(self) -> str:
        """Return method, facts, changed weights and base, on one line."""
        n = len(self.changes)
        made = f"{n} weight{'s' * (n != 1)}" if self.live is None else "a live model"
        made = "a context" if self.context is not None else made
        facts = f"{len(self.facts)} fact{'s' * (len(self.facts) != 1)}"
        return f"Edit({self.method!r}, {facts}, {made}, of {self.model_name!r})"

    @property
    def moves(self) -> bool:
        """Whether the edit changes what a model answers."""
        return bool(self.changes) or self.context is not None or self.live is not None

    @contextmanager
    def applied(self, model: LanguageModel, check: bool = True) -> Iterator[LanguageModel]:
        """Apply the edit to ``model`` inside the ``with``, and restore it bit for bit afterwards.

        Raises:
            ModelError: if ``model`` is not the one the edit was made for (``check=False`` skips
                this check), or lacks a changed weight; at the end, if an edit that was applied
                inside is still applied. The model then keeps both, and has to be loaded again.
                If another error ended the ``with``, that one goes on, with a note about the edits.
        """
        revert = self.apply(model, check)
        try:
            yield model
        except BaseException as error:
            try:
                revert()
            except ModelError as left:
                error.add_note(str(left))
            raise
        revert()

    @torch.no_grad()
    def apply(self, model: LanguageModel, check: bool = True) -> Callable[[], None]:
        """Apply the edit to ``model`` and return the function that reverts it bit for bit.

        Edits are reverted in the reverse order, the last one first. The function raises a
        ``ModelError``, and changes nothing, as long as a later edit is applied. Calling it again
        has no effect.

        Raises:
            ModelError: as ``applied``, or if a live edit is applied and this one changes weights.
                ``model`` is then unchanged.
        """
        if check:
            self.check(model)
        self.check_shapes(model)
        if self.changes and model.live is not None:
            raise ModelError(
                f"This edit ({self.method}) changes weights, and the model applied before it lives "
                "in a process of its own, where they would change nothing. Revert that edit first."
            )
        # What restores the bits, because subtracting a change again would leave rounding errors.
        undo: list[Callable[[], None]] = []
        context_before, applied_before = model.context_for, model.applied
        live_before = model.live
        reverted = False

        def restore() -> None:
            for restore_weight in reversed(undo):
                restore_weight()
            model.context_for, model.applied = context_before, applied_before
            model.live = live_before

        def revert() -> None:
            nonlocal reverted
            if reverted:
                return
            # The copies would undo a part of every edit that was applied later.
            *earlier, _ = model.applied or (None,)
            if list(map(id, earlier)) != list(map(id, applied_before)):
                raise ModelError(
                    f"This edit ({self.method}) of {model.name} cannot be reverted now, because "
                    "it is not the last one that was applied. Revert the later edits first."
                )
            restore()
            reverted = True

        try:
            for name, change in self.changes.items():
                undo.append(model.write(name, _changed(model.weight(name), change)))
        except BaseException:  # out of memory, or Ctrl-C: leave no half-applied edit behind
            restore()
            raise
        if self.context is not None:
            model.context_for = self.context.context
        if self.live is not None:
            model.live = self.live
        model.applied = (*applied_before, self)
        return revert

    def check_shapes(self, model: LanguageModel) -> None:
        """Check that each change has the shape of its weight.

        Raises:
            ModelError: if one has not, or ``model`` lacks the weight.
        """
        for name, change in self.changes.items():
            if flaw := misfit(change):
                raise ModelError(f"The change of {name!r} cannot be applied: {flaw}.")
            weight = model.weight(name)
            if shape(change) != weight.shape:
                raise ModelError(
                    f"Weight {name!r} of {model.name} has shape {tuple(weight.shape)}, "
                    f"but its change has shape {tuple(shape(change))}. "
                    "The edit was made for another architecture."
                )

    def check(self, model: LanguageModel) -> None:
        """Check that ``model`` is the one this edit was made for.

        Raises:
            ModelError: if the weights of ``model`` differ from those of that model.
        """
        if model.fingerprint() == self.model_hash:
            return
        if held := self.held_in(model):
            raise ModelError(
                f"This edit was made for {self.model_name} with its weights in {held}, and "
                f"{model.name} holds the same weights in {model.dtype_name}. Load it with "
                f"--dtype {held} (in Python load_model(..., dtype={held!r}))."
            )
        raise ModelError(
            f"This edit was made for {self.model_name} with weights {self.model_hash}; "
            f"{model.name} has other weights. Revert earlier edits first, or pass the model it "
            "was made for (in Python, check=False skips this check)."
        )

    def held_in(self, model: LanguageModel) -> str | None:
        """Return the type in which the weights of ``model`` are those this edit was made for."""
        others = (dtype for dtype in HELD if dtype != model.dtype)
        return next(
            (_named(dtype) for dtype in others if model.fingerprint(dtype) == self.model_hash), None
        )

    def check_weights(self, what: str) -> None:
        """Check that files can hold this edit; ``what`` names what it should be, such as "saved".

        Raises:
            ModelError: if it is a live edit.
        """
        if self.live is not None:
            raise ModelError(
                f"This edit ({self.method}) is a model in a process of its own and no change of "
                f"weights, so it cannot be {what}."
            )

    def merge(
        self,
        model: LanguageModel,
        folder: str | Path,
        overwrite: bool = False,
        also: Callable[[Path], None] | None = None,
    ) -> Path:
        """Write the edited model as a plain Hugging Face folder: all of it, or nothing.

        Args:
            model: the model that the edit was made for.
            folder: a new or an empty folder.
            overwrite: also replace the files of a folder that holds only files of the same names,
                such as those of an earlier merge.
            also: writes further files into the folder that it is given.

        Raises:
            ModelError: if this is an in-context or a live edit, which changes no weights, if the
                model is another one or has an adapter beside its weights, or if the edited weights
                would be infinite or NaN.
            RecordError: if the folder is not empty (unless ``overwrite``), is that of the model
                itself, or cannot be written.
        """
        self.check_weights("merged")
        if self.context is not None:
            raise ModelError("An in-context edit changes no weights, so there is nothing to merge.")
        if getattr(model.model, "_hf_peft_config_loaded", False):
            raise ModelError(
                f"{model.name} has a PEFT adapter beside its weights, and transformers would save "
                "the adapter alone. Load the model by the name of its folder, which adds the "
                "adapter to the weights."
            )
        folder = Path(folder)
        _check_not_origin(model, folder)
        check_folder(folder, overwrite)
        with self.applied(model), quiet_transformers():
            for name in self.changes:
                if not is_finite(model.weight(name)):
                    raise ModelError(
                        f"The edit makes {name!r} of {model.name} infinite or NaN, so the model "
                        "is not written."
                    )
            with whole_folder(folder, overwrite) as new, disk_errors():
                model.model.save_pretrained(new)
                model.tokenizer.save_pretrained(new)
                if also is not None:
                    also(new)
        return folder

    def norms(self, model: LanguageModel) -> dict[str, float]:
        """Return ||dW|| / ||W|| (Frobenius norms) of each changed weight."""
        norms = {}
        for name, change in self.changes.items():
            # clamped, since a bias may be all zeros
            norm = model.weight(name).detach().float().norm().cpu().clamp(min=1e-12)
            norms[name] = (dense(change).norm() / norm).item()
        return norms

    def summary(self, model: LanguageModel) -> dict[str, Any]:
        """Return the number of facts and of changed weights, their norms, and the report.

        A live edit has no weights to measure; ``live`` says so.
        """
        if self.live is not None:
            return {"facts": len(self.facts), "live": NOT_MEASURED, **self.diagnostics}
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

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write ``edit.safetensors``, ``records.jsonl`` and ``manifest.json``: all or nothing.

        A stack has its edits, each with these files, in the folder ``parts``.

        Args:
            folder: a new or an empty folder.
            overwrite: also replace an edit that is in the folder.

        Raises:
            ModelError: if this is a live edit.
            RecordError: if the folder holds anything else, or cannot be written, or if the edit
                could not be loaded again, for example because of a NaN.
        """
        self.check_weights("saved")
        folder = Path(folder)
        check_folder(folder, overwrite, (*EDIT_FILES, PARTS))
        for edit in (self, *self.parts):
            if flaw := flaw_of(edit.changes, edit.keys, edit.values, edit.sums):
                raise RecordError(f"This edit ({edit.method}) cannot be saved: {flaw}.")
        with whole_folder(folder, overwrite, also=(PARTS,)) as new, disk_errors():
            self._write(new)
        return folder

    def _write(self, folder: Path) -> str:
        """Write the files of this edit, and return the digest of its manifest."""
        parts = []
        for number, part in enumerate(self.parts, start=1):
            (folder / PARTS / str(number)).mkdir(parents=True)
            parts.append(part._write(folder / PARTS / str(number)))
        rows = [json.dumps(record, ensure_ascii=False) + "\n" for record in self.records]
        save_file(self._tensors(), folder / "edit.safetensors")
        (folder / "records.jsonl").write_text("".join(rows), encoding="utf-8", newline="\n")
        hashes = {name: sha256(folder / name) for name in EDIT_FILES if name != "manifest.json"}
        own = {**self._manifest(), "files": hashes, **({"parts": parts} if parts else {})}
        manifest = jsonable(own)
        whole = digest(manifest)
        write_json_atomic(folder / "manifest.json", {**manifest, "digest": whole})
        return whole

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors, named ``WEIGHT|PART``, and ``values`` if there are any.

        The parts of a weight are ``delta``, or ``left`` and ``right``, and ``keys`` and ``sums`` if
        it has any.
        """
        tensors = {}
        if self.values is not None:
            tensors[VALUES] = self.values.contiguous().cpu()
        for name, change in self.changes.items():
            if isinstance(change, torch.Tensor):
                parts = {"delta": change}
            else:
                parts = {"left": change[0], "right": change[1]}
            if name in self.keys:
                parts["keys"] = self.keys[name]
            if name in self.sums:
                parts["sums"] = self.sums[name]
            for part, tensor in parts.items():
                tensors[f"{name}|{part}"] = tensor.contiguous().cpu()
        return tensors

    def _manifest(self) -> Manifest:
        facts = [fact.to_dict() for fact in self.facts]
        model: ModelName = {"name": self.model_name, "hash": self.model_hash}
        if self.model_dtype != "float32":
            model["dtype"] = self.model_dtype
        return {
            "format": FORMAT,
            "method": self.method,
            "options": dict(self.options),
            "model": model,
            "facts_hash": digest(facts),
            "facts": facts,
            "kind": "context" if self.context is not None else "weights",
            "diagnostics": dict(self.diagnostics),
        }

    @classmethod
    def load(cls, folder: str | Path) -> Edit:
        """Return the edit saved in ``folder``, after checking its files against their hashes.

        An edit from before hashes were stored (format 1) is checked for values, types and shapes
        only, and an ``UncheckedEdit`` warning says so.

        Raises:
            RecordError: if the folder holds no edit, or a damaged one.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise RecordError(f"There is no folder {folder}.")
        for file in EDIT_FILES:
            if not (folder / file).is_file():
                raise RecordError(f"{folder} holds no edit: {file} is missing.")
        try:
            return cls._read(folder)
        except (ValueError, KeyError, TypeError, OSError, DataError, SafetensorError) as error:
            raise RecordError(f"The edit in {folder} is damaged: {error}.") from error

    @classmethod
    def _read(cls, folder: Path) -> Edit:
        manifest: Manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        hashed = check_hashes(folder, manifest)
        facts = tuple(Fact.from_dict(fact) for fact in manifest["facts"])
        if manifest["facts_hash"] != digest([fact.to_dict() for fact in facts]):
            raise ValueError("its manifest does not match its facts")
        if manifest["kind"] not in ("weights", "context"):
            raise ValueError(f"its kind is {manifest['kind']!r}")
        parts = tuple(_read_parts(folder, manifest.get("parts", ())))
        tensors = read_tensors(folder / "edit.safetensors")
        values = tensors.pop(VALUES, None)
        changes = changes_in(tensors)
        keys, sums = part_of(tensors, "keys"), part_of(tensors, "sums")
        if flaw := flaw_of(changes, keys, values, sums):
            raise ValueError(flaw)
        if values is not None and len(values) != len(facts):
            raise ValueError(f"it has {len(values)} values for {len(facts)} facts")
        # not splitlines(), which also splits at U+2028 and similar characters inside a text
        rows = (folder / "records.jsonl").read_text(encoding="utf-8").split("\n")
        edit = cls(
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
            sums=sums,
        )
        if not hashed:
            if facts and not changes and edit.context is None and edit.method != "base":
                raise ValueError(f"edit.safetensors has no tensors, but {edit.method} changes some")
            warnings.warn(
                f"The edit in {folder} was saved by an older editbench, without hashes of its "
                "files, so damage to them may go unnoticed. Inject again to be sure.",
                UncheckedEdit,
                stacklevel=3,
            )
        return edit


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
            yield Edit.load(path)
        except RecordError as error:
            raise ValueError(f"{which} cannot be read: {str(error).rstrip('.')}") from error
        if json.loads((path / "manifest.json").read_text(encoding="utf-8"))["digest"] != whole:
            raise ValueError(f"{which} is not the one that was saved with it")


def _changed(weight: torch.Tensor, change: Change) -> torch.Tensor:
    """Return the weight with its change, in its own type.

    They are added in float64, so that the sum is rounded once, and a few rows at a time, so that
    the embeddings of a large vocabulary take no more memory than a matrix of a layer.
    """
    place = float64_device(weight.device)
    if isinstance(change, tuple) or not weight.dim():
        whole = weight.to(place).double() + dense(change).to(place, torch.float64)
        return whole.to(weight.dtype)
    changed = torch.empty_like(weight, device=place)
    rows = max(1, AT_ONCE // max(1, weight[:1].numel()))
    for here, now, more in zip(
        changed.split(rows), weight.split(rows), change.split(rows), strict=True
    ):
        here.copy_(now.to(place).double() + more.to(place, torch.float64))
    return changed


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_not_origin(model: LanguageModel, folder: Path) -> None:
    """Raise a ``RecordError`` if ``model`` or its tokenizer was loaded from ``folder``."""
    own = (getattr(part, "name_or_path", "") for part in (model.model, model.tokenizer))
    for origin in (model.name, *own):
        if origin and os.path.isdir(origin) and folder.is_dir() and folder.samefile(origin):
            raise RecordError(
                f"{folder} is the folder of {model.name} itself. Choose another --output."
            )


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn the errors of writers in Rust (safetensors, tokenizers) into ``OSError``."""
    try:
        yield
    except Exception as error:
        # tokenizers has no type of its own for them
        if isinstance(error, SafetensorError) or type(error) is Exception:
            raise OSError(str(error)) from error
        raise
