"""EasyEdit's algorithms as data: where each lies, what it takes and returns, its shipped values.

Checked against zjunlp/EasyEdit at 14cea82. Line numbers are of that commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from editbench.methods._easyedit.values import (
    ALPHAEDIT_VALUES,
    DEFER_VALUES,
    DPO_VALUES,
    EAMET_VALUES,
    EMMET_VALUES,
    FT_VALUES,
    GRACE_VALUES,
    LORA_VALUES,
    MEMIT_VALUES,
    PMET_VALUES,
    QLORA_VALUES,
    ROME_VALUES,
    SIMIE_VALUES,
    SPHERE_VALUES,
    ULTRAEDIT_VALUES,
    WISE_VALUES,
)

PADDED = (
    "its editor pads prompts on the left (editors/editor.py, line 181), for which its code reads "
    "and teaches the wrong tokens; here they are padded on the right"
)
LOOPED = "its code reads the first request only, so it was called once for each fact"
PLAIN = "its shipped settings take C = I instead of the covariance of keys (mom2_adjustment: false)"
SPACED = "it puts a space before each target, after a chat template too"


@dataclass(frozen=True)
class Algorithm:
    """One algorithm of EasyEdit."""

    title: str
    """EasyEdit's name for it: ``alg_name`` of its YAML files, and the folder that they lie in."""
    package: str
    """Its folder in ``easyeditor/models``."""
    apply: str
    """The function that edits; ``CLASS.METHOD`` if it is a method."""
    hparams: str
    """The class of its hyper-parameters."""
    summary: str
    paper: str
    values: Mapping[str, object]
    """Values of its hyper-parameters that do not depend on the model."""
    values_from: str
    """The YAML file of EasyEdit that the values come from."""
    layers: Literal["one", "window", "upper", "late", "last", "all"]
    """The layers that it edits by default (``fields._usual``)."""
    result: Literal["weights", "adapter", "live"] = "weights"
    """What comes back: changed weights, a PEFT adapter, or a wrapper that lives in its process."""
    attributes: Mapping[str, object] = field(default_factory=dict)
    """Attributes that its code reads from the hyper-parameters and that are no fields of them."""
    one_request: bool = False
    """Whether a call takes one fact only."""
    flat: bool = False
    """Whether its contexts are one list; the others keep the bare prompt in a list of its own."""
    slot: bool = False
    """Whether the prompt has ``{}`` in the place of the subject."""
    fills: bool = False
    """Whether it replaces ``{}`` by the subject where the prompt itself has it."""
    pads: Literal["left", "right"] = "left"
    """The side on which prompts are padded: its editor's (editors/editor.py, lines 181-186), or the
    one that its code needs."""
    covariance: Literal["never", "asked", "always"] = "never"
    """Whether it reads the covariance of keys; ``asked``: if ``mom2_adjustment`` is true."""
    carries_keys: bool = False
    """Whether it adds the keys of earlier facts to a module global, ``cache_c``."""
    own_head: bool = False
    """Whether its code computes the logits as head(norm(state)) itself."""
    linear_only: str = ""
    """The line of its code that fails where W is stored as (f, d); empty if none does."""
    weight_suffix: str = ""
    """What its module of W ends with."""
    at_projections: bool = False
    """Whether it adds the targets to the outputs of the projections, not of attention and MLP."""
    mlp_inputs: bool = False
    """Whether it edits the gate and up projections of an MLP, where there are both."""
    per_layer: tuple[str, ...] = ()
    """Fields that take one value for each layer."""
    full_batches: bool = False
    """Whether it leaves out the facts behind the last full batch."""
    spaced: bool = True
    """Whether it puts a space before the target."""
    needs_original: bool = False
    """Whether it needs the answer before the edit."""
    base: str | None = None
    """The algorithm that it wraps."""
    unused: tuple[str, ...] = ()
    """Packages that its files import and do not use; empty modules stand for them."""
    notes: tuple[str, ...] = ()
    """What its code does that a reader of its numbers should know."""


def _locate(title: str, package: str, apply: str, hparams: str, **rest: object) -> Algorithm:
    notes = (*rest.pop("notes", ()), SPACED)  # type: ignore[misc]
    return Algorithm(
        title,
        package,
        apply,
        hparams,
        slot=True,
        pads="right",
        notes=notes,
        **rest,  # type: ignore[arg-type]
    )


_ALL = (
    _locate(
        "ROME",
        "rome",
        "apply_rome_to_model",
        "ROMEHyperParams",
        summary="rank-one update of one MLP, fact after fact",
        paper="arXiv 2202.05262",
        values=ROME_VALUES,
        values_from="hparams/ROME/llama3.2-3b.yaml",
        layers="one",
        flat=True,
        one_request=True,
        covariance="asked",
        notes=(LOOPED, PLAIN),
    ),
    _locate(
        "R-ROME",
        "r_rome",
        "apply_r_rome_to_model",
        "R_ROMEHyperParams",
        summary="ROME with one key throughout",
        paper="arXiv 2403.07175",
        values=ROME_VALUES,
        values_from="hparams/R-ROME/llama3.2-3b.yaml",
        layers="one",
        flat=True,
        one_request=True,
        covariance="asked",
        notes=(LOOPED, PLAIN),
    ),
    _locate(
        "MEMIT",
        "memit",
        "apply_memit_to_model",
        "MEMITHyperParams",
        summary="closed-form update of several MLPs, all facts at once",
        paper="arXiv 2210.07229",
        values=MEMIT_VALUES,
        values_from="hparams/MEMIT/llama3.2-3b.yaml",
        layers="window",
        covariance="always",
        own_head=True,
    ),
    _locate(
        "MEMIT-FE",
        "memit_FE",
        "apply_memit_FE_to_model",
        "MEMITFEHyperParams",
        summary="MEMIT with a target at each layer",
        paper="EasyEdit at 14cea82",
        values=MEMIT_VALUES,
        values_from="hparams/MEMIT-FE/llama3.2-3b.yaml",
        layers="window",
        covariance="always",
        own_head=True,
        notes=(PADDED,),
    ),
    _locate(
        "EMMET",
        "emmet",
        "apply_emmet_to_model",
        "EMMETHyperParams",
        summary="batched equality constraint on one MLP",
        paper="arXiv 2403.14236",
        values=EMMET_VALUES,
        values_from="hparams/EMMET/llama3.2-3b.yaml",
        layers="one",
        covariance="always",
        own_head=True,
        notes=("its copy of the weights comes back empty, so the change is measured here",),
    ),
    _locate(
        "EAMET",
        "eamet",
        "apply_eamet_to_model",
        "EAMETHyperParams",
        summary="MEMIT with targets aligned to the keys",
        paper="arXiv 2505.11876",
        values=EAMET_VALUES,
        values_from="hparams/EAMET/qwen2.5-7b.yaml",
        layers="window",
        per_layer=("mom2_update_weight",),
        covariance="always",
        own_head=True,
        linear_only="eamet_main.py, line 299",
    ),
    _locate(
        "AlphaEdit",
        "alphaedit",
        "apply_AlphaEdit_to_model",
        "AlphaEditHyperParams",
        summary="MEMIT's update in the null space of ordinary keys",
        paper="arXiv 2410.02355",
        values=ALPHAEDIT_VALUES,
        values_from="hparams/AlphaEdit/llama3-8b.yaml",
        layers="window",
        covariance="always",
        own_head=True,
        carries_keys=True,
    ),
    _locate(
        "SPHERE",
        "SPHERE",
        "apply_SPHERE_to_model",
        "SPHEREHyperParams",
        summary="AlphaEdit off the main directions of the weights",
        paper="arXiv 2510.01172",
        values=SPHERE_VALUES,
        values_from="hparams/SPHERE/llama3-8b.yaml",
        layers="window",
        covariance="always",
        own_head=True,
        carries_keys=True,
    ),
    _locate(
        "CORE",
        "core",
        "apply_core_to_model",
        "COREHyperParams",
        summary="MEMIT with a term for consistent contexts",
        paper="arXiv 2505.23026",
        values=MEMIT_VALUES,
        values_from="hparams/MEMIT/llama3.2-3b.yaml, for there is none of its own",
        layers="window",
        covariance="always",
        own_head=True,
    ),
    _locate(
        "PMET",
        "pmet",
        "apply_pmet_to_model",
        "PMETHyperParams",
        summary="MEMIT with attention optimised beside the MLP",
        paper="arXiv 2308.08742",
        values=PMET_VALUES,
        values_from="hparams/PMET/llama3.2-3b.yaml",
        layers="window",
        at_projections=True,
        spaced=False,
        covariance="always",
        own_head=True,
        notes=(
            "it writes no space before the target of a model that is not called gpt "
            "(pmet_main.py, line 84), so the target has one here",
            PADDED,
        ),
    ),
    Algorithm(
        "FT",
        "ft",
        "apply_ft_to_model",
        "FTHyperParams",
        summary="fine-tuning of one MLP matrix",
        paper="arXiv 2012.00363",
        values=FT_VALUES,
        values_from="hparams/FT/llama3.2-3b.yaml",
        layers="upper",
        weight_suffix=".weight",
        notes=(
            "with prompt_last, the shipped objective, all tokens of a target are learnt at the "
            "prompt's last token (ft_main.py, lines 197-204)",
            SPACED,
        ),
    ),
    Algorithm(
        "LoRA",
        "lora",
        "apply_lora_to_model",
        "LoRAHyperParams",
        summary="a LoRA adapter trained on the facts",
        paper="arXiv 2106.09685",
        values=LORA_VALUES,
        values_from="hparams/LoRA/llama3.2-3b.yaml",
        layers="all",
        result="adapter",
        fills=True,
        notes=("its AdaLoRA never drops a rank, for its loop does not ask for it", SPACED),
    ),
    Algorithm(
        "QLoRA",
        "qlora",
        "apply_qlora_to_model",
        "QLoRAHyperParams",
        summary="a LoRA adapter; the weights are not quantized here",
        paper="arXiv 2305.14314",
        values=QLORA_VALUES,
        values_from="hparams/QLoRA/llama3.2-3b.yaml",
        layers="all",
        result="adapter",
        notes=(
            "the weights are float32 here, not quantized",
            "it takes the target's tokens as labels of the prompt's positions, padding included "
            "(qlora_main.py, lines 73-77), so it does not learn to continue the prompt",
        ),
    ),
    Algorithm(
        "DPO",
        "dpo",
        "apply_dpo_to_model",
        "DPOHyperParams",
        summary="a LoRA adapter that prefers the new answer to the old one",
        paper="arXiv 2305.18290",
        values=DPO_VALUES,
        values_from="hparams/DPO/llama3-8b.yaml",
        layers="all",
        needs_original=True,
        result="adapter",
        notes=(SPACED,),
    ),
    _locate(
        "SimIE",
        "simie",
        "apply_simie_to_model",
        "SimIEHyperParams",
        summary="ROME, with each update fitted to those before it",
        paper="ICML 2025, openreview VdEG08ZJCH",
        values=SIMIE_VALUES,
        values_from="hparams/SimIE/llama3-8b.yaml",
        layers="one",
        flat=True,
        covariance="asked",
        base="ROME",
        notes=("its sums over earlier facts restart with each chunk of a sequence", PLAIN),
    ),
    Algorithm(
        "UltraEdit",
        "ultraedit",
        "UltraEditRewriteExecutor.apply_to_model",
        "UltraEditHyperParams",
        summary="linear regression on normalised gradients, without training",
        paper="arXiv 2505.14679",
        values=ULTRAEDIT_VALUES,
        values_from="hparams/UltraEdit/qwen2.5-7b.yaml",
        layers="late",
        mlp_inputs=True,
        full_batches=True,
        unused=("hydra",),
        notes=(
            "its normaliser restarts with each call, for is_init is never set "
            "(ultraedit_main.py, line 59)",
            "it counts padding among the labels of a batch (ultraedit_main.py, line 98)",
            SPACED,
        ),
    ),
    Algorithm(
        "GRACE",
        "grace",
        "apply_grace_to_model",
        "GraceHyperParams",
        summary="a codebook of values beside one MLP",
        paper="arXiv 2211.11031",
        values=GRACE_VALUES,
        values_from="hparams/GRACE/llama3.2-3b.yaml",
        layers="last",
        result="live",
        one_request=True,
        notes=(LOOPED, SPACED),
    ),
    Algorithm(
        "WISE",
        "wise",
        "apply_wise_to_model",
        "WISEHyperParams",
        summary="a side copy of one MLP matrix, chosen by its activations",
        paper="arXiv 2405.14768",
        values=WISE_VALUES,
        values_from="hparams/WISE/llama3.2-3b.yaml",
        layers="last",
        result="live",
        attributes={"sequential_edit": True},
        one_request=True,
        notes=(
            "it is called once for each fact, as its editor does (batch_editor.py)",
            "each call of its editor starts from the unedited layer, for no hyper-parameter sets "
            "the attribute sequential_edit (WISE.py, line 81); here it is set, so that earlier "
            "facts are kept",
            SPACED,
        ),
    ),
    Algorithm(
        "DEFER",
        "defer",
        "apply_defer_to_model",
        "DeferHyperParams",
        summary="a second MLP matrix with a gate",
        paper="arXiv 2211.11031",
        values=DEFER_VALUES,
        values_from="hparams/DEFER/llama-7b.yaml",
        layers="last",
        result="live",
        one_request=True,
        notes=(LOOPED, SPACED),
    ),
)
ALGORITHMS: Mapping[str, Algorithm] = {each.title: each for each in _ALL}
"""Title -> the algorithm."""
