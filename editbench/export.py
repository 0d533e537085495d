"""Export edits to other tools: a PEFT LoRA adapter, a Hugging Face folder, or a GGUF file.

Each folder holds what is needed to load it elsewhere: the tokenizer, and ``editbench.json``, which
names the base and says what the edit is (``editbench.sharing``).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from editbench.changes import dense
from editbench.edit import Edit, disk_errors
from editbench.errors import ModelError, OptionError
from editbench.files import check_folder, whole_folder
from editbench.gguf_file import adds_bos, check_reading, check_shape, write_gguf
from editbench.models import LanguageModel, quiet_transformers
from editbench.sharing import about, check_base, hub_base, write_about

FORMATS = ("peft", "merged", "gguf")
GGUF_FILE = "model.gguf"
RANK_TOLERANCE = 1e-9
"""Singular values below this share of the largest one count as rounding errors."""


def export(
    edit: Edit,
    model: LanguageModel,
    form: str,
    folder: str | Path,
    overwrite: bool = False,
    *,
    base: str | None = None,
    include_facts: bool = False,
) -> Path:
    """Write ``edit`` of ``model`` to ``folder``, all of it or nothing, and return the folder.

    Args:
        edit: the edit.
        model: the model that the edit was made for.
        form: ``peft`` (an adapter for ``PeftModel.from_pretrained`` with the same base model),
            ``merged`` (the edited model itself, for ``from_pretrained``) or ``gguf`` (the edited
            model as one float32 file for llama.cpp, with an Ollama ``Modelfile`` beside it).
        folder: a new or an empty folder.
        overwrite: also replace the files of an earlier export.
        base: the hub id (OWNER/NAME) by which others load the base; by default that of ``model``,
            where it is known. An adapter needs one.
        include_facts: write the facts' text into ``editbench.json``, not only count and hash.

    Raises:
        OptionError: if the form is unknown, no adapter can hold the edit, or nobody else could load
            the base of an adapter.
        ModelError: if ``model`` is not the one the edit was made for, if the edit does not fit it,
            if it is a live edit, or if a GGUF file has no place for such a model.
        RecordError: if the folder is not empty (unless ``overwrite``), or cannot be written.
    """
    folder = Path(folder)
    if form not in FORMATS:
        raise OptionError(f"Format {form!r} is not one of {', '.join(FORMATS)}.")
    named = check_base(base) if base is not None else hub_base(model.name)
    says = about(edit, named, include_facts)
    if form == "merged":
        return edit.merge(model, folder, overwrite, also=lambda new: write_about(new, says))
    edit.check_weights("exported")
    check_folder(folder, overwrite)
    edit.check(model)
    edit.check_shapes(model)
    if form == "gguf":
        return _gguf(edit, model, folder, overwrite, says)
    return _adapter(edit, model, folder, overwrite, named, says)


def _gguf(
    edit: Edit, model: LanguageModel, folder: Path, overwrite: bool, says: dict[str, object]
) -> Path:
    """Write the edited model as a GGUF file, and a ``Modelfile`` for Ollama."""
    if edit.context is not None:
        raise ModelError("An in-context edit changes no weights, so there is no model to write.")
    check_shape(model)
    with whole_folder(folder, overwrite) as new, disk_errors():
        with edit.applied(model):
            write_gguf(model, new / GGUF_FILE, f"{says['base'] or 'model'} edited")
        texts = [f"{fact.prompt} {fact.target}" for fact in edit.facts]
        check_reading(model, new / GGUF_FILE, texts)
        (new / "Modelfile").write_text(modelfile(model), encoding="utf-8")
        write_about(new, says)
    return folder


def modelfile(model: LanguageModel) -> str:
    """Return the ``Modelfile`` by which Ollama asks as editbench does: greedy, the same template.

    https://docs.ollama.com/modelfile
    """
    lines = [
        "# ollama create NAME -f Modelfile; add --quantize q8_0 for a quarter of the size.",
        f"FROM ./{GGUF_FILE}",
        "PARAMETER temperature 0",
    ]
    if model.chat:
        rendered = model.render("x", "question")
        before, after = rendered.text[: rendered.start], rendered.text[rendered.start + 1 :]
        bos = model.tokenizer.bos_token
        if isinstance(bos, str) and adds_bos(model.tokenizer):  # Ollama puts it there itself
            before = before.removeprefix(bos)
        lines.append(f'TEMPLATE """{before}{{{{ .Prompt }}}}{after}"""')
        stops = sorted({str(model.tokenizer.decode([i])) for i in model.stop_ids})
        lines += [f'PARAMETER stop "{stop}"' for stop in stops if stop.strip()]
    else:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    return "\n".join(lines) + "\n"


def _adapter(
    edit: Edit,
    model: LanguageModel,
    folder: Path,
    overwrite: bool,
    base: str | None,
    says: dict[str, object],
) -> Path:
    """Write a LoRA adapter, which computes W + B A alpha / r (Hu et al. 2021, arXiv 2106.09685).

    alpha is set to r, so B and A are the factors of the edit themselves.
    """
    from peft import LoraConfig

    if model.adapter is not None:
        raise OptionError(
            f"{model.name} was loaded with an adapter added to its weights ({model.adapter}), and "
            "PEFT would put this edit in the place of that adapter. Use --format merged."
        )
    if base is None:
        raise OptionError(
            f"An adapter names its base, and {model.name} is a path or a name that nobody else has."
            " Name the same model on the hub with --base OWNER/NAME, or use --format merged."
        )
    _check_low_rank(edit)
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
        base_model_name_or_path=base,
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
        with quiet_transformers():
            model.tokenizer.save_pretrained(new)
        write_about(new, says)
    return folder


def _check_low_rank(edit: Edit) -> None:
    """Refuse the change of a trainer that trained whole matrices, which has no low rank.

    Raises:
        OptionError: it says which option gives an adapter.
    """
    for part in edit.parts or (edit,):
        option = next((key for key in part.options if key.rpartition(".")[2] == "lora"), None)
        is_dense = any(isinstance(change, torch.Tensor) for change in part.changes.values())
        if option and not part.options[option] and is_dense:
            raise OptionError(
                f"{part.method} changed whole weights here, and no adapter of low rank holds that. "
                f"Inject again with --option {option}=16, which trains an adapter, or use --format "
                "merged."
            )


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
