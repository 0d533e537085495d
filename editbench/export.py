"""Export edits to other tools: as a standard PEFT LoRA adapter, or a plain Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from editbench.edit import Edit, dense, disk_errors
from editbench.errors import ModelError, OptionError
from editbench.files import check_folder, whole_folder
from editbench.models import LanguageModel

FORMATS = ("peft", "merged")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
RANK_TOLERANCE = 1e-9
"""Singular values below this share of the largest one count as rounding errors."""


def export(
    edit: Edit, model: LanguageModel, form: str, folder: str | Path, overwrite: bool = False
) -> Path:
    """Write ``edit`` of ``model`` to ``folder``, all of it or nothing, and return the folder.

    Args:
        edit: the edit.
        model: the model that the edit was made for.
        form: ``peft`` (an adapter for ``PeftModel.from_pretrained`` with the same base model) or
            ``merged`` (the edited model itself, for ``from_pretrained``).
        folder: a new or an empty folder.
        overwrite: also replace the files of an earlier export.

    Raises:
        OptionError: if the form is unknown, or no adapter can hold the edit.
        ModelError: if ``model`` is not the one the edit was made for, if the edit does not fit it,
            or if it is a live edit.
        RecordError: if the folder is not empty (unless ``overwrite``), or cannot be written.
    """
    folder = Path(folder)
    if form not in FORMATS:
        raise OptionError(f"Format {form!r} is not one of {', '.join(FORMATS)}.")
    if form == "merged":
        return edit.merge(model, folder, overwrite)
    edit.check_weights("exported")
    check_folder(folder, overwrite, ADAPTER_FILES)
    edit.check(model)
    edit.check_shapes(model)
    return _adapter(edit, model, folder, overwrite)


def _adapter(edit: Edit, model: LanguageModel, folder: Path, overwrite: bool) -> Path:
    """Write a LoRA adapter, which computes W + B A alpha / r (Hu et al. 2021, arXiv 2106.09685).

    alpha is set to r, so B and A are the factors of the edit themselves.
    """
    from peft import LoraConfig

    if model.adapter is not None:
        raise OptionError(
            f"{model.name} was loaded with an adapter added to its weights ({model.adapter}), and "
            "PEFT would put this edit in the place of that adapter. Use --format merged."
        )
    factors = {name: _lora_factors(edit, model, name) for name in edit.changes}
    if not factors:
        raise OptionError("This edit changes no weights, so there is no adapter to write.")
    # at least 1, because peft refuses rank 0, which an edit of zeros would have
    rank = max(1, *(a_RI.shape[0] for a_RI, _ in factors.values()))
    tensors = {}
    for name, (a_RI, b_OR) in factors.items():
        # All layers are written at one rank, that of LoraConfig. Rows of A and columns of B that
        # are zero add nothing to B A.
        missing = rank - a_RI.shape[0]
        key = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{key}.lora_A.weight"] = (
            torch.nn.functional.pad(a_RI, (0, 0, 0, missing)).float().contiguous()
        )
        tensors[f"{key}.lora_B.weight"] = (
            torch.nn.functional.pad(b_OR, (0, missing)).float().contiguous()
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=edit.model_name,
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        bias="none",
        target_modules=sorted(name.removesuffix(".weight") for name in factors),
        fan_in_fan_out=any(_is_conv1d(model, name) for name in factors),
        inference_mode=True,
    )
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ModelError(f"{key!r} would be infinite or NaN, so the adapter is not written.")
    with whole_folder(folder, overwrite) as new, disk_errors():
        save_file(tensors, new / "adapter_model.safetensors", {"format": "pt"})
        config.save_pretrained(str(new))
    return folder


def _lora_factors(edit: Edit, model: LanguageModel, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A (rank, in) and B (out, rank), float64; B A is the change in (out, in) orientation.

    Raises:
        OptionError: if the weight does not belong to a linear layer.
    """
    module_name, _, part = name.rpartition(".")
    module = model.model.get_submodule(module_name)
    if part != "weight" or not (isinstance(module, torch.nn.Linear) or _is_conv1d(model, name)):
        raise OptionError(
            f"A LoRA adapter cannot hold this edit: {edit.method} changes {name!r}, "
            "which is not the weight of a linear layer. Use --format merged."
        )
    change = edit.changes[name]
    if isinstance(change, tuple):
        left, right = (factor.double() for factor in change)
    else:
        # Factors of the least rank that gives the dense change back, up to rounding.
        u, s, vh = torch.linalg.svd(dense(change).double(), full_matrices=False)
        kept = int((s > RANK_TOLERANCE * s[0]).sum())
        left, right = u[:, :kept] * s[:kept], vh[:kept]
    # For Conv1D the change L R is (in, out), so (L R)^T = R^T L^T gives A = L^T and B = R^T.
    return (left.T, right.T) if _is_conv1d(model, name) else (right, left)


def _is_conv1d(model: LanguageModel, name: str) -> bool:
    """Return whether the weight is stored as (in, out), as in GPT-2, instead of (out, in)."""
    return type(model.model.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D"
