"""``Algorithm``: what there is to know of one algorithm of EasyEdit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


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
