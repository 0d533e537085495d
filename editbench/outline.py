"""A model without its weights: the sizes that its configuration gives, before anything is loaded.

The architecture is built on PyTorch's meta device, where modules have shapes and take no memory.

    # D model width, f MLP inner width, V vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import AutoTokenizer

from editbench import gguf
from editbench import layout as layouts
from editbench.checkpoints import (
    has_tokenizer,
    located,
    named_errors,
    quiet_transformers,
    whole_model,
)
from editbench.errors import ModelError, OptionError
from editbench.memory import free_bytes
from editbench.models import PRECISIONS, native_precision
from editbench.placing import DTYPES, Loading
from editbench.weights import check_depth, empty_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NUMBER, HALF = 4, 2
"""Bytes of a float32, and of a bfloat16 or float16."""


@dataclass(frozen=True)
class Outline:
    """What can be known of a model from its configuration alone."""

    name: str
    model: PreTrainedModel
    """On the meta device: it cannot compute."""
    device: torch.device
    """Where the weights would be."""
    precision: str
    """What passes would compute in: ``float32`` or ``bfloat16``."""
    free: int
    """Bytes that are available there now."""
    layout_overrides: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float32"
    """In which type the weights would be held."""
    asked_precision: str = "auto"
    """What the user says of ``precision``."""

    @cached_property
    def layout(self) -> layouts.Layout:
        """Where the layers and their MLPs are.

        Raises:
            ModelError: if they cannot be found.
        """
        return layouts.derive(self.model, self.layout_overrides)

    @cached_property
    def parameters(self) -> int:
        """Number of weights; one that several modules share counts once."""
        return sum(p.numel() for p in self.model.parameters())

    @cached_property
    def linear(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each linear layer, the head among them."""
        sizes = []
        for module in self.model.modules():
            if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
                first, second = module.get_parameter("weight").shape
                # GPT-2's Conv1D stores its weight as (inputs, outputs).
                turned = isinstance(module, nn.Linear)
                sizes.append((second, first) if turned else (first, second))
        return sizes

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def vocabulary(self) -> int:
        """V, as the embeddings have it."""
        return len(self.model.get_input_embeddings().get_parameter("weight"))

    @property
    def embeddings(self) -> int:
        """Number of weights of the input embeddings."""
        return self.model.get_input_embeddings().get_parameter("weight").numel()

    @property
    def tied(self) -> bool:
        """Whether the head is the matrix of the embeddings."""
        head, embeddings = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        if head is None:
            return False
        return head.get_parameter("weight") is embeddings.get_parameter("weight")

    @property
    def depth(self) -> int:
        """Number of layers."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    @cached_property
    def mlp_width(self) -> int:
        """f; where the layout is unknown, that of the configuration, else 4 D."""
        try:
            if width := self.layout.mlp_width:
                return width
        except ModelError:
            pass
        return int(
            getattr(self.model.config.get_text_config(), "intermediate_size", 4 * self.width)
        )

    @property
    def keys(self) -> int:
        """Numbers of the keys of one token in one layer; the values have as many."""
        config = self.model.config.get_text_config()
        heads = int(getattr(config, "num_attention_heads", 1))
        width = getattr(config, "head_dim", None) or self.width // heads
        return int((getattr(config, "num_key_value_heads", None) or heads) * width)

    # --- bytes ----------------------------------------------------------------------------------

    def held(self, numbers: int) -> int:
        """Return the bytes of so many numbers of the weights as they would be held."""
        return (NUMBER if self.dtype == "float32" else HALF) * numbers

    @property
    def weights(self) -> int:
        """Bytes of the weights as they would be held."""
        return self.held(self.parameters)

    @property
    def masters(self) -> int:
        """Bytes that training all weights adds to them, since they are float32 while it lasts."""
        return NUMBER * self.parameters - self.weights

    @property
    def casts(self) -> int:
        """Bytes of the copies in bfloat16 that autocast makes of the linear layers' weights."""
        if self.precision != "bfloat16" or self.dtype == "bfloat16":
            return 0
        return HALF * sum(a * b for a, b in self.linear)

    def cache(self, texts: int, tokens: int) -> int:
        """Return the bytes of the keys and values of texts while they are written."""
        # Rotated keys are float32 in either precision; values are as the layer computes them.
        each = NUMBER + (HALF if self.precision == "bfloat16" else NUMBER)
        return each * texts * tokens * self.depth * self.keys

    def logits(self, positions: int, copies: int) -> int:
        """Return the bytes of ``copies`` arrays of the logits of ``positions`` tokens."""
        return NUMBER * copies * positions * self.vocabulary

    def writing(self, texts: int, prompt: int, new: int) -> dict[str, int]:
        """Return what is held while ``texts`` texts are written together.

        Args:
            prompt: tokens of the longest prompt.
            new: most tokens that are written after it.
        """
        return {
            "bfloat16 copies": self.casts,
            "keys and values": self.cache(texts, prompt + new),
            # Of the one layer that reads the prompts. The allocator keeps that memory.
            "activations": self.activations(texts * prompt, layers=1, frozen=True),
            # the logits, their softmax and its sums
            "logits": self.logits(texts, 3),
        }

    def activations(self, tokens: int, layers: int | None = None, frozen: bool = False) -> int:
        """Return the bytes that autograd keeps of ``tokens`` tokens in ``layers`` decoder layers.

        They are counted for a Llama layer. ``frozen``: the weights need no gradients, so the inputs
        of linear layers and norms are not kept.
        """
        d, k, f = self.width, self.keys, self.mlp_width
        if self.precision == "bfloat16":
            # float32: the residual and the normalized state, twice; the rest is cast.
            per_token = 8 * d + 14 * d + 4 * k + 6 * f if frozen else 32 * d + 4 * k + 8 * f
        else:
            # Twice residual, normalized and scaled state; q, k, v, attention and its copy; gate,
            # its silu, up and their product.
            per_token = NUMBER * (6 * d + 2 * k + 3 * f if frozen else 10 * d + 2 * k + 4 * f)
        return tokens * per_token * (self.depth if layers is None else layers)


def read_outline(
    name: str,
    precision: str = "auto",
    layout: Mapping[str, str] | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> Outline:
    """Return the outline of the model that ``load_model`` would load as ``name``.

    Raises:
        ModelError: its configuration cannot be read. The message says why.
        UnknownNameError: there is no such model.
        OptionError: there is no such precision or device, or the device lacks the type.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"Precision {precision!r} is not one of {', '.join(PRECISIONS)}.")
    there = Loading(dtype, device).check()
    with quiet_transformers():
        place = whole_model(located(name))
        if isinstance(place, Path) and place.suffix == ".gguf":
            model = gguf.read_header(place)
        else:
            with named_errors(str(place)):
                model = empty_model(str(place))
    check_depth(model)
    if dtype == "auto":
        is_gguf = isinstance(place, Path) and place.suffix == ".gguf"
        stored = str(getattr(model.config, "dtype", None) or "").removeprefix("torch.")
        dtype = stored if stored in DTYPES and not is_gguf else "float32"
    asked_precision = precision
    if precision == "auto":
        precision = dtype if dtype != "float32" else native_precision(there)
    free = free_bytes(there)
    overrides = dict(layout or {})
    outline = Outline(name, model, there, precision, free, overrides, dtype, asked_precision)
    with named_errors(str(place)):
        # An architecture whose sizes are called otherwise is refused here, by name.
        outline.activations(1), outline.cache(1, 1), outline.logits(1, 1), outline.linear
    return outline


def read_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the model ``name``; of an adapter its own, if it has one.

    Raises:
        ModelError: it cannot be read.
        UnknownNameError: there is no such model.
    """
    place = located(name)
    with quiet_transformers():
        if not (isinstance(place, Path) and place.is_dir() and has_tokenizer(place)):
            place = whole_model(place)
        if isinstance(place, Path) and place.suffix == ".gguf":
            return gguf.read_tokenizer(place)
        with named_errors(str(place)):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(place))
    return tokenizer
