"""``LanguageModel``: a causal LM with its tokenizer, and how it is loaded.

Its parts have a file each: ``model_weights``, ``model_prompts``, ``model_passes``,
``model_answers``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import DataParallel
from torch.nn.parallel import DistributedDataParallel

from editbench import chat_template
from editbench import layout as layouts
from editbench.aliases import DEFAULT
from editbench.batching import BatchSizes, batched
from editbench.checkpoints import quiet_transformers, read_checkpoint
from editbench.decoding import Ends, cached_states, decoding_cache
from editbench.errors import ModelError, NotFiniteError, OptionError
from editbench.hub import cache_dir
from editbench.model_answers import ModelAnswers
from editbench.model_passes import computing
from editbench.placing import DeviceMap, Loading, float64_device
from editbench.types import Fact
from editbench.weights import check_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "PRECISIONS",
    "AppliedEdit",
    "LanguageModel",
    "NotFiniteError",
    "batched",
    "cache_dir",
    "cached_states",
    "computing",
    "decoding_cache",
    "float64_device",
    "load_model",
    "native_precision",
    "quiet_transformers",
]

PRECISIONS = ("auto", "float32", "bfloat16")


class AppliedEdit(Protocol):
    """The part of ``editbench.edit.Edit`` that a model knows about the edits applied to it.

    It is a protocol, because ``edit.py`` imports this module.
    """

    @property
    def model_hash(self) -> str:
        """Fingerprint of the weights that the edit was made for."""
        ...

    @property
    def keys(self) -> Mapping[str, torch.Tensor]:
        """Keys (f, M) of the edit's facts, by the weight that they belong to."""
        ...

    @property
    def method(self) -> str:
        """The method that made the edit."""
        ...

    @property
    def sums(self) -> Mapping[str, torch.Tensor]:
        """Sums over the tokens of the edit's facts, by the weight that they belong to."""
        ...

    @property
    def facts(self) -> Sequence[Fact]:
        """The facts that the edit teaches."""
        ...

    @property
    def context(self) -> object | None:
        """The retriever of an in-context edit; ``None`` for edits of weights."""
        ...

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """The method's report on the edit."""
        ...


class LanguageModel(ModelAnswers):
    """A Hugging Face causal LM with its tokenizer, and all that the rest of editbench needs of it.

    The wrapped model stays yours: its weights change only inside ``with edit.applied(model)``. Of a
    ``DataParallel`` object it is the module inside.

    Args:
        name: the model's name in messages and records; default: its ``_name_or_path``.
        chat: whether questions go through the chat template; ``None``: if the tokenizer has one.
        precision: how forward passes compute. ``bfloat16`` is autocast over the stored weights.
            ``float32`` means no autocast, so weights held in another dtype compute in their own.
            ``auto`` is bfloat16 over bfloat16 weights and where the hardware multiplies it
            natively, else float32; float16 weights on a CPU always compute in their own dtype. The
            choice is part of every record.
        layout: module paths by part, for a model in which ``editbench.layout`` cannot find them.
        batch_size: how many texts, or facts, are computed together; ``None``: what each kind of
            work has by default. Results depend on it by rounding alone.

    Raises:
        ModelError: if ``model`` is no model of transformers, has no layers, is wrapped by PEFT, has
            weights that are infinite, NaN or on the meta device; if the tokenizer is missing; or if
            ``chat`` is true and the chat template is missing or cannot be used.
        OptionError: if the precision is unknown, or the weights cannot compute in it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        name: str | None = None,
        chat: bool | None = None,
        precision: str = "auto",
        layout: Mapping[str, str] | None = None,
        batch_size: int | None = None,
    ):
        if tokenizer is None:
            raise ModelError("A model object needs its tokenizer. Pass tokenizer=... as well.")
        if not hasattr(tokenizer, "apply_chat_template"):
            raise ModelError(
                f"A {type(tokenizer).__name__} is no tokenizer of transformers. Load one with "
                "AutoTokenizer.from_pretrained."
            )
        if precision not in (*PRECISIONS, _own_precision(model)):
            raise OptionError(f"Precision {precision!r} is not one of {', '.join(PRECISIONS)}.")
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module  # the same weights
        check_object(model)
        if chat and not tokenizer.chat_template:
            raise ModelError(
                "This tokenizer has no chat template, so chat=True is not possible. Leave chat out."
            )
        if chat:
            chat_template.style_of(tokenizer)  # fails here if the template cannot be used
        if not tokenizer.chat_template:  # an empty one is none
            chat = False
        if chat is False and tokenizer.chat_template is not None:
            # a copy, since the tokenizer is the caller's
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.chat_template = None
        # eval mode: no dropout, in training as in scoring.
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name or getattr(model.config, "_name_or_path", "") or type(model).__name__
        self.chat = tokenizer.chat_template is not None
        _check_ids(self.model, tokenizer)
        half = self.device.type == "cpu" and self.dtype == torch.float16
        if half and precision == "bfloat16":
            raise OptionError(
                "A CPU cannot compute in bfloat16 over float16 weights. Load the model in float32 "
                "or bfloat16 (from_pretrained(..., dtype=torch.float32)), or leave the precision "
                "out."
            )
        if precision == "auto":
            own = half or self.dtype == torch.bfloat16
            precision = _own_precision(model) if own else native_precision(self.device)
        self.precision = precision
        self.batches = BatchSizes(batch_size)
        self._layout_overrides = layout
        self._ends = Ends(self.decode)
        self._closing = {}
        self.context_for = None
        self.loading: Loading | None = None
        """How ``load_model`` was told to load it; ``None`` of a model object."""
        self.adapter: str | None = None
        """Description of the PEFT adapter that ``load_model`` added to the weights."""
        self.applied: tuple[AppliedEdit, ...] = ()
        """The edits that are applied now, oldest first. A sequential editor reads the keys of
        earlier facts from them."""

    @property
    def warnings(self) -> list[str]:
        """What a user should know about this model on this machine, in plain sentences."""
        if "bfloat16" not in (self.precision, str(self.dtype).removeprefix("torch.")):
            return []
        if native_precision(self.device) == "bfloat16":
            return []
        return [
            f"The {self.device.type} here has no bfloat16 units, so bfloat16 is slower than "
            "float32 and less exact; load the weights and compute in float32 (--dtype float32)."
        ]

    @cached_property
    def layout(self) -> layouts.Layout:
        """Where the layers and their MLPs are.

        Raises:
            ModelError: if they cannot be found.
        """
        return layouts.derive(self.model, self._layout_overrides)

    def __repr__(self) -> str:
        """Return name, layers, precision, device and applied edits, on one line."""
        n = len(self.applied)
        applied = f", {n} applied edit{'s' * (n != 1)}" if n else ""
        depth = getattr(self.model.config.get_text_config(), "num_hidden_layers", "unknown")
        how = f"{depth} layers, {self.precision}, {self.device}{applied}"
        return f"LanguageModel({self.name!r}, {how})"


def native_precision(device: torch.device) -> str:
    """Return ``bfloat16`` if this device multiplies it in hardware, else ``float32``."""
    if device.type == "cpu":
        # a CPU multiplies bfloat16 natively with AMX tiles or AVX-512 BF16
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    else:
        native = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bfloat16" if native else "float32"


def load_model(
    source: str | Path | PreTrainedModel | LanguageModel = DEFAULT,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    chat: bool | None = None,
    precision: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
    device_map: DeviceMap | None = None,
    layout: Mapping[str, str] | None = None,
    batch_size: int | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Return a ``LanguageModel``.

    Args:
        source: an alias, a hub id, a local folder, a GGUF file, a model object (then give its
            ``tokenizer``), or a ``LanguageModel``, which is returned unchanged.
        dtype: in which type weights are held: ``float32``, ``bfloat16`` or ``float16``. ``auto`` is
            the checkpoint's own type, float32 for a GGUF.
        device: a torch device, such as ``cuda:1``; ``auto`` is CUDA if available, else the CPU.
        device_map: spreads the model over several devices, the CPU and the disk, in place of
            ``device``: ``auto``, or module -> device, ``cpu`` or ``disk``.

    The other arguments are those of ``LanguageModel``. ``dtype`` and the places are those of a
    model object already.

    Raises:
        ModelError: if the weights or the tokenizer cannot be loaded, or some weights are missing.
            The message says what was looked for, and where.
        UnknownNameError: if ``source`` is none of the above.
        OptionError: if there is no such device, if it lacks the type, or if weights of that type do
            not compute in ``precision``.
    """
    if isinstance(source, LanguageModel):
        return source
    if not isinstance(source, (str, Path)):
        return LanguageModel(
            source,
            tokenizer,
            chat=chat,
            precision=precision,
            layout=layout,
            batch_size=batch_size,
        )
    name, how = str(source), Loading(dtype, device, device_map, batch_size)
    target = how.check()  # before loading, so that a wrong name fails at once
    with quiet_transformers():
        model, own_tokenizer, adapter = read_checkpoint(name, trust_remote_code, how)
    if device_map is None:
        model.to(target)  # type: ignore[arg-type]  # a decorator of transformers hides self
    own = _own_precision(model)
    if own != precision == "float32" and next(model.parameters()).itemsize < 4:
        raise OptionError(
            f"The weights of {name} are held in {own}, so passes do not compute in float32. Use "
            "--dtype float32 as well, or leave --precision out."
        )
    loaded = LanguageModel(
        model,
        tokenizer or own_tokenizer,
        name=name,
        chat=chat,
        precision=precision,
        layout=layout,
        batch_size=batch_size,
    )
    loaded.adapter, loaded.loading = adapter, how
    return loaded


def _own_precision(model: PreTrainedModel) -> str:
    """Return the name of the type in which the weights are held, as precisions are named."""
    first = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    return "float32" if first is None else str(first.dtype).removeprefix("torch.")


def _check_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a model refuse tokens that it has no embeddings for, where the tokenizer has such ones.

    They are refused where they are read, as many a tokenizer has a padding token that is never
    used. A GPU would stop for good at such a token.
    """
    # a model of somebody else's may lack the method
    embeddings = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    weight = getattr(embeddings, "weight", None)
    if embeddings is None or weight is None or len(tokenizer) <= len(weight):
        return

    def check(module: torch.nn.Module, ids: tuple[torch.Tensor, ...]) -> None:
        rows = len(module.get_parameter("weight"))  # they may have been resized since
        if ids and (last := int(ids[0].max())) >= rows:
            raise ModelError(
                f"The tokenizer has {len(tokenizer)} tokens and {type(model).__name__} has "
                f"embeddings for {rows}: none for {tokenizer.convert_ids_to_tokens(last)!r}, token "
                f"{last}. Use the model's own tokenizer, or, if tokens were added, call "
                "model.resize_token_embeddings(len(tokenizer)) and train the new embeddings."
            )

    embeddings.register_forward_pre_hook(check)
