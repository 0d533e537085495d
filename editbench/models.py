"""``LanguageModel``: weights, tokenizer, chat template and layout; batched scoring and decoding.

# B rows, T tokens, D model width, V vocabulary
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import torch
from torch.nn import DataParallel
from torch.nn.parallel import DistributedDataParallel
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from editbench import chat_template, progress, text
from editbench import layout as layouts
from editbench.aliases import DEFAULT
from editbench.batching import BatchSizes, free_cached, in_batches, is_out_of_memory, no_memory
from editbench.checkpoints import quiet_transformers, read_checkpoint
from editbench.decoding import (
    Decoding,
    LineEnds,
    Part,
    Text,
    cached_states,
    decoding_cache,
    keeps_tokens,
)
from editbench.errors import ModelError, NotFiniteError, OptionError
from editbench.hub import cache_dir
from editbench.live import NOT_HERE, LiveModel, ask_scores, ask_texts
from editbench.placing import DeviceMap, Loading, devices_of, offloaded, replaced
from editbench.selfcheck import Honoured, honoured
from editbench.types import Fact, form_of
from editbench.weights import check_object

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
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

T = TypeVar("T")
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
PRECISIONS = ("auto", "float32", "bfloat16")
SCORE, WRITE = "texts to score", "texts to write"
"""What is computed in batches here, as ``BatchSizes`` calls it."""
_SAME = 1e-2
"""Difference of logits, relative to the largest, up to which they are the same but for rounding."""


class _Way(NamedTuple):
    """A way to compute a model's last hidden states and its logits."""

    positions: bool
    """Whether tokens get ``position_ids``, counted from 0."""
    own_head: bool
    """Whether the model's own forward makes the logits, not the head's matrix alone."""
    apart: float
    """How far the logits are from the model's own, relative to the largest."""


class _OnlyStates(BaseModelOutput):
    """What a base model returns, of which nothing but the last hidden states is known."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


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


class LanguageModel:
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
        self.model: PreTrainedModel = model.eval()
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        self.name: str = name or getattr(model.config, "_name_or_path", "") or type(model).__name__
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
        """How much is computed together, and what was too much for the memory."""
        self._layout_overrides = layout
        self._head_checked = False
        self._line_ends = LineEnds(self.decode)
        self._closing: dict[str, list[int]] = {}
        self.context_for: Callable[[str], str | None] | None = None
        """Maps a prompt to the text to put before it. Set while an in-context edit is applied."""
        self.loading: Loading | None = None
        """How ``load_model`` was told to load it; ``None`` of a model object."""
        self.adapter: str | None = None
        """Description of the PEFT adapter that ``load_model`` added to the weights."""
        self.applied: tuple[AppliedEdit, ...] = ()
        """The edits that are applied now, oldest first. A sequential editor reads the keys of
        earlier facts from them."""
        self._live: LiveModel | None = None
        self._guard: RemovableHandle | None = None

    @property
    def device(self) -> torch.device:
        """The device to which texts go: that of the first weight, or where it computes."""
        first = next(self.model.parameters())
        return devices_of(self.model)[0] if first.is_meta else first.device

    @property
    def devices(self) -> list[torch.device]:
        """The devices on which the model computes; several if it is spread over them."""
        return devices_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the weights are held: that of the first."""
        return next(self.model.parameters()).dtype

    @property
    def dtype_name(self) -> str:
        """``dtype`` as options and records name it, such as ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def has_offloaded(self) -> bool:
        """Whether some weights are in main memory or on the disk until a pass needs them."""
        return any(weight.is_meta for weight in self.model.parameters())

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

    @property
    def live(self) -> LiveModel | None:
        """The model of a live edit that is applied now. It answers in place of this one.

        ``generate_ids`` and ``target_scores`` ask it, and all that rests on them. A forward pass
        through the weights here would show the base, so each raises a ``ModelError``.
        """
        return self._live

    @live.setter
    def live(self, answering: LiveModel | None) -> None:
        if self._guard is not None:
            self._guard.remove()
        self._live, self._guard = answering, None
        if answering is not None:
            self._guard = self.base.register_forward_pre_hook(_refuse)

    @cached_property
    def layout(self) -> layouts.Layout:
        """Where the layers and their MLPs are.

        Raises:
            ModelError: if they cannot be found.
        """
        return layouts.derive(self.model, self._layout_overrides)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return text.stop_ids(self.tokenizer, self.model)

    @property
    def chat_style(self) -> chat_template.Style | None:
        """How the chat template is used; ``None`` where questions go without it.

        Raises:
            ModelError: The template cannot be used.
        """
        return chat_template.style_of(self.tokenizer) if self.chat else None

    @property
    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        # Each pass makes new objects of the weights that it brings, so none are kept here.
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        return {
            name: weight
            for name, weight in self.model.named_parameters()
            if not (weight.is_meta and name in tied)
        }

    def weight(self, name: str) -> torch.Tensor:
        """Return the parameter called ``name``, or its values if it is offloaded.

        Change it with ``write``.

        Raises:
            ModelError: if this model has no such parameter, or its values are not known.
        """
        weight = self._parameters.get(name)
        if weight is None:
            raise ModelError(
                f"{self.name} has no weight {name!r}. The edit was made for another architecture."
            )
        return offloaded(self.model, name) if weight.is_meta else weight

    @torch.no_grad()
    def write(self, name: str, values: torch.Tensor) -> Callable[[], None]:
        """Give the parameter called ``name`` other values; return what restores it bit for bit.

        Raises:
            ModelError: as ``weight``.
        """
        weight = self.weight(name)
        if not isinstance(weight, torch.nn.Parameter):
            return replaced(self.model, name, values.to(weight.device, weight.dtype))
        before = weight.detach().clone()
        weight.copy_(values)

        @torch.no_grad()
        def restore() -> None:
            weight.copy_(before)

        return restore

    def fingerprint(self, dtype: torch.dtype | None = None) -> str:
        """Return the first 16 hex digits of a SHA-256 over all weights as they are now.

        Their names, shapes and dtypes count as well. With ``dtype`` it is what the weights would
        have if they were held in that type.

        Raises:
            ModelError: if the values of some weights are not known.
        """
        sha = hashlib.sha256()
        for name, parameter in sorted(self._parameters.items()):
            held = dtype if dtype is not None and parameter.is_floating_point() else parameter.dtype
            sha.update(f"{name}{tuple(parameter.shape)}{held}".encode())
            values = self.weight(name).detach().to("cpu", held).contiguous().view(-1)
            sha.update(values.view(torch.uint8).numpy().data)  # bytes, as NumPy has no bfloat16
        return sha.hexdigest()[:16]

    def compute(self, weights_fixed: bool = False) -> AbstractContextManager[object]:
        """Return the context in which forward passes run.

        ``weights_fixed`` promises that no weight changes or gets a gradient inside. In bfloat16
        this halves the time on a CPU: each weight is cast once instead of once per pass. In float32
        it saves memory: nothing is kept for gradients of weights.
        """
        if self.precision != "bfloat16":
            return _without_gradients(self.model) if weights_fixed else nullcontext()
        # requires_grad stays on here: autocast caches the casts of such weights only
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=weights_fixed)

    # --- text -----------------------------------------------------------------------------------

    @property
    def context_length(self) -> int | None:
        """Tokens that the model reads at once; ``None`` if its configuration does not say."""
        config = self.model.config.get_text_config()
        length: int | None = getattr(config, "max_position_embeddings", None)
        return length if length and length > 0 else None  # XLNet's is -1: any number

    def render(
        self, prompt: str, form: str = "cloze", context: str | None = None, prefix: str = ""
    ) -> text.Rendered:
        """Return the prompt as the model reads it.

        ``context`` becomes a paragraph before it; ``prefix`` stands before it on the same line.
        Without a ``context``, an applied in-context edit adds its own.
        """
        if context is None and self.context_for is not None:
            context = self.context_for(prompt)
        return text.render(self.tokenizer, prompt, form, context, prefix)

    def prompt_ids(self, prompt: str, form: str = "cloze", context: str | None = None) -> list[int]:
        """Return the ids of the rendered prompt."""
        return text.ids(self.tokenizer, self.render(prompt, form, context))

    def chat_ids(self, turns: Sequence[str]) -> list[int]:
        """Return the ids of a conversation up to where the model's next turn begins.

        ``turns`` are the user's and the model's, alternately.
        """
        # an in-context edit retrieves by the first question, and its note opens the conversation
        note = self.context_for(turns[0]) if self.context_for else None
        first = f"{note}\n\n{turns[0]}" if note else turns[0]
        return text.ids(self.tokenizer, text.render_chat(self.tokenizer, [first, *turns[1:]]))

    def pair_ids(
        self,
        prompt: str,
        target: str,
        form: str = "cloze",
        context: str | None = None,
        prefix: str = "",
    ) -> tuple[list[int], list[int]]:
        """Return the ids of the prompt and of the target after it, without ``closing_ids``."""
        rendered = self.render(prompt, form, context, prefix)
        prompt_ids = text.ids(self.tokenizer, rendered)
        return prompt_ids, text.target_ids(self.tokenizer, rendered, prompt_ids, target)

    def closing_ids(self, form: str = "cloze") -> list[int]:
        """Return the id that ends an answer to a prompt of ``form``, if there is one.

        It is the chat template's end of turn, or EOS.
        """
        if form not in self._closing:
            self._closing[form] = text.closing_ids(self.tokenizer, form, self.stop_ids)
        return self._closing[form]

    def subject_last(self, fact: Fact, prefix: str = "") -> int:
        """Return the index of the subject's last token in the fact's prompt, after ``prefix``."""
        rendered = self.render(fact.prompt, fact.form, prefix=prefix)
        return text.subject_last(self.tokenizer, rendered, fact)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids`` without special tokens."""
        decoded = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(decoded)  # for one list of ids it is a string

    def answer(self, ids: Sequence[int]) -> str:
        """Return the text of an answer without special tokens, thoughts and white space around it.

        An answer that ends inside a thought is empty.
        """
        return chat_template.answer_text(self.tokenizer, ids).strip()

    # --- forward passes -------------------------------------------------------------------------

    def hidden(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, cache: DynamicCache | None = None
    ) -> torch.Tensor:
        """Return the last hidden states (B, T, D), after the final norm.

        With a cache, ``ids_BT`` are the new tokens, and ``mask_BT`` covers the cached ones as well.
        A model that ignores the mask gets a pass for each length of a row; its padding has zeros.
        The first call runs ``honours``, so call ``check_head`` before you register hooks.

        Raises:
            ModelError: with a cache, if this model does not decode with one.
        """
        if cache is not None:
            self.check_cache()
        if cache is not None or self.honours.padding:
            return self.states(ids_BT, mask_BT, cache)
        length_B = mask_BT.sum(-1)
        parts = [(length_B == n, n) for n in length_B.unique().tolist()]
        passes = [self.states(ids_BT[which, -n:], mask_BT[which, -n:]) for which, n in parts]
        hidden_BTD = passes[0].new_zeros(*ids_BT.shape, passes[0].shape[-1])
        for (which, n), states in zip(parts, passes, strict=True):
            hidden_BTD[which, -n:] = states
        return hidden_BTD

    @cached_property
    def honours(self) -> Honoured:
        """Whether this model honours the order of tokens, padding and a cache; tried once."""
        with self.compute():
            takes_cache = self.cache_argument is not None
            return honoured(self.model, self._plain_logits, takes_cache, self.context_length)

    @cached_property
    def keeps_tokens(self) -> bool:
        """Whether texts can be continued from a cache, and shortened in it again.

        Otherwise a text that changes is read again from its first token.
        """
        return self.honours.cache and keeps_tokens(self.model)

    def in_one_pass(
        self, rows: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return rows of ids as a batch that ``hidden`` computes in one pass, as hooks need it.

        Padding is on the left. Where the model does not honour that, it is on the right: no token
        of a row sees it there, so the mask may count it.

        Returns:
            The ids, the mask for ``hidden``, and 1 at each token of the rows; all (B, T), int64.
        """
        if self.honours.padding:
            ids_BT, mask_BT = text.pad_left(rows, self.device)
            return ids_BT, mask_BT, mask_BT
        ids_BT = text.pad_right(rows, self.device)
        length_B = torch.tensor([len(row) for row in rows], device=self.device)
        own_BT = torch.arange(ids_BT.shape[1], device=self.device) < length_B[:, None]
        return ids_BT, torch.ones_like(ids_BT), own_BT.long()

    def _plain_logits(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, cache: DynamicCache | None = None
    ) -> torch.Tensor:
        return self.head(self.states(ids_BT, mask_BT, cache)).float()

    def check_cache(self) -> None:
        """Check that texts can be continued from a cache, in a padded batch.

        Raises:
            ModelError: if the model honours the padding or its cache differently.
        """
        if not self.honours.cache:
            raise ModelError(
                f"{type(self.model).__name__} does not give the same logits for a padded batch "
                "that is continued from a cache as for single texts, and this method needs that. "
                "Use a trainer that needs neither (sft)."
            )

    def states(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, cache: DynamicCache | None = None
    ) -> torch.Tensor:
        """Return ``hidden`` by one pass, whatever the model honours.

        Raises:
            ModelError: if ``base_model`` returns none, as in a model that PEFT has wrapped.
        """
        return self._states(ids_BT, mask_BT, cache, self._way.positions)

    def _states(
        self,
        ids_BT: torch.Tensor,
        mask_BT: torch.Tensor,
        cache: DynamicCache | None,
        with_positions: bool,
    ) -> torch.Tensor:
        extra: dict[str, object] = {}
        if with_positions:
            # counted without the padding, so that a row's states do not depend on its batch; the
            # padding itself would count from -1, hence the clamp
            positions = (mask_BT.cumsum(-1) - 1).clamp(min=0)
            extra["position_ids"] = positions[:, -ids_BT.shape[1] :]
        if cache is not None:
            extra[self.cache_argument or "past_key_values"] = cache
            if self.cache_argument == "cache_params":
                # a state-space model keeps no padding, and masks the new tokens only
                mask_BT = mask_BT[:, -ids_BT.shape[1] :]
        output = self.base(
            input_ids=ids_BT, attention_mask=mask_BT, use_cache=cache is not None, **extra
        )
        states: torch.Tensor | None = getattr(output, "last_hidden_state", None)
        if states is None:
            raise ModelError(
                f"{type(self.model).__name__} does not return the last hidden states of its base "
                "model. Pass a causal LM of transformers itself; for one with a PEFT adapter, pass "
                "what its merge_and_unload() returns."
            )
        # a model over several GPUs ends on its last one
        return states.to(ids_BT.device)

    @property
    def base(self) -> torch.nn.Module:
        """The part of the model that makes the last hidden states."""
        base = self.model.base_model
        return self._found_base if base is self.model else base

    @cached_property
    def _found_base(self) -> torch.nn.Module:
        """The base model of a class that gives transformers a wrong name for it (Llama 4)."""
        made: list[torch.nn.Module] = []

        def note(module: torch.nn.Module, _args: object, output: object) -> None:
            if getattr(output, "last_hidden_state", None) is not None:
                made.append(module)

        hooks = [child.register_forward_hook(note) for child in self.model.children()]
        try:
            with torch.no_grad(), self.compute():
                self.model(input_ids=self._few_ids(), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return made[-1] if made else self.model  # the model's output then has no such states

    def _few_ids(self) -> torch.Tensor:
        return torch.arange(3, device=self.device)[None]

    @cached_property
    def cache_argument(self) -> str | None:
        """The argument in which the model takes a cache, if it takes one of transformers' own."""
        known = inspect.signature(self.base.forward).parameters
        names = ("past_key_values", "cache_params")
        # A wrapped forward (torch.compile) shows no names. Whether it takes one is tried then.
        wrapped = all(parameter.kind in _ANY for parameter in known.values())
        return next((name for name in names if name in known), names[0] if wrapped else None)

    @cached_property
    def takes_positions(self) -> bool:
        """Whether the model's forward takes ``position_ids``."""
        return "position_ids" in inspect.signature(self.model.forward).parameters

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (..., V), in float32, of last hidden states (..., D).

        They are the head's output, with the scaling and the soft cap of the configuration, or where
        those are not the model's own logits, what the model itself makes of the states.

        Raises:
            ModelError: as ``check_head``.
        """
        self.check_head()
        return self.head(hidden).float()

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return ``logits`` in the head's own precision, and without its check."""
        return self._own_head(hidden) if self._way.own_head else self._known_head(hidden)

    def _known_head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the output of the head's matrix, scaled and capped as the configuration says."""
        config = self.model.config.get_text_config()
        logits: torch.Tensor = self.model.get_output_embeddings()(hidden).to(hidden.device)
        # the factors of Cohere and of Granite, and the soft caps of Gemma 2 and of RecurrentGemma
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if scaling := getattr(config, "logits_scaling", None):
            logits = logits / scaling
        caps = ("final_logit_softcapping", "logits_soft_cap")
        if cap := next((cap for name in caps if (cap := getattr(config, name, None))), None):
            logits = cap * torch.tanh(logits / cap)
        return logits

    def _own_head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return what the model's own forward makes of its base model's output."""
        states_1ND = hidden.reshape(1, -1, hidden.shape[-1])

        def forward(*_args: object, **_named: object) -> _OnlyStates:
            return _OnlyStates(last_hidden_state=states_1ND)

        ids_1N = torch.zeros(states_1ND.shape[:2], dtype=torch.long, device=hidden.device)
        with computing(self.base, forward):
            logits: torch.Tensor = self.model(input_ids=ids_1N, use_cache=False).logits
        # no view, since the losses of ``methods/_edit/head.py`` overwrite their logits
        return logits.reshape(*hidden.shape[:-1], -1).clone()

    @cached_property
    @torch.no_grad()
    def _way(self) -> _Way:
        """The usual way to states and logits, or where another gives the model's own logits, that.

        It is tried once.

        Raises:
            NotFiniteError: if the model's own logits are infinite or NaN, so none can be compared.
            ModelError: if the model gives no logits.
        """
        positions = self.takes_positions
        # as all passes compute: some weights of 16 bits (Mamba's) need autocast
        with self.compute():
            try:
                want = self.model(input_ids=self._few_ids(), use_cache=False).logits.float()
            except Exception as error:
                # the model's own code: XMOD's, for example, wants a language first
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ModelError(
                    f"{type(self.model).__name__} gives no logits for three tokens alone: {reason}"
                ) from error
            if not want.isfinite().all():
                # Not kept: an edit may be to blame, and will be reverted.
                hint = " Load it in float32 or bfloat16." if self.dtype == torch.float16 else ""
                raise NotFiniteError(
                    f"The logits of {self.name} are not finite in {self.dtype}.{hint}"
                )
            ways = [self._tried(want, positions, own_head=False)]
            exact = self.precision == "float32" and self.dtype.itemsize >= 4
            if ways[0].apart > (_SAME / 10 if exact else _SAME):
                # RoBERTa's positions do not begin at 0, BERT's head has a layer before its matrix
                others = [(positions, True), (False, False), (False, True)]
                ways += [self._tried(want, counted, own_head) for counted, own_head in others]
        return min(ways, key=lambda way: way.apart)

    def _tried(self, want_BTV: torch.Tensor, positions: bool, own_head: bool) -> _Way:
        ids_BT = self._few_ids()
        try:
            states_BTD = self._states(ids_BT, torch.ones_like(ids_BT), None, positions)
            have_BTV = (
                # one token at a time, since a head may not depend on the token's place
                torch.cat([self._own_head(one) for one in states_BTD.split(1, dim=1)], dim=1)
                if own_head
                else self._known_head(states_BTD)
            )
        except ModelError:  # no states at all
            raise
        except Exception:
            # the model's own code, which may come from anywhere, cannot do it in this way
            return _Way(positions, own_head, math.inf)
        size_BTV = (want_BTV.abs().max() + want_BTV.abs()).clamp(min=1e-30)
        apart_BTV = ((have_BTV - want_BTV).abs() / size_BTV).nan_to_num(nan=math.inf)
        return _Way(positions, own_head, apart_BTV.max().item())

    def check_head(self) -> None:
        """Check once that ``hidden`` and the head give the model's own logits, and ``honours``.

        Raises:
            ModelError: if the logits differ, because the architecture changes them in an unknown
                way, or if a token's depend on the tokens behind it.
            NotFiniteError: if the logits are infinite or NaN.
        """
        if self._head_checked:
            return
        if self._way.apart > _SAME:
            raise ModelError(
                f"{type(self.model).__name__} changes its logits after the head in a way that "
                "editbench does not know, so it cannot be used."
            )
        if not self.honours.order:
            raise ModelError(
                f"{type(self.model).__name__} lets a token see the tokens behind it, so a target "
                "cannot be scored after its prompt. Use a causal language model."
            )
        self._head_checked = True

    def target_logprobs(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        batch_size: int = 64,
        what: str | None = None,
    ) -> list[torch.Tensor]:
        """Return the log-probabilities of each target's tokens, float32, (len(target),).

        Args:
            pairs: prompt ids and target ids of each text.
            what: name of the step in the progress display; ``None``: not shown.
        """
        return [logp_T for logp_T, _ in self.target_scores(pairs, batch_size, what)]

    @torch.no_grad()
    def target_scores(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        batch_size: int = 64,
        what: str | None = None,
    ) -> list[tuple[torch.Tensor, list[int]]]:
        """Return ``target_logprobs``, and the most probable token at each position of the target.

        The target up to that position is given (teacher forcing). In float32 the batch size moves
        no log-probability by more than 1e-4; in bfloat16 the rounding depends on it.
        """
        scores: dict[int, tuple[torch.Tensor, list[int]]] = {}
        with progress.task(what, len(pairs), "texts") if what else nullcontext() as bar:
            for i, score in self._scored(pairs, batch_size):
                scores[i] = score
                if bar:
                    bar.advance()
        return [scores[i] for i in range(len(pairs))]

    def _scored(
        self, pairs: Sequence[tuple[list[int], list[int]]], batch_size: int
    ) -> Iterator[tuple[int, tuple[torch.Tensor, list[int]]]]:
        """Yield the index of a pair and its score, in any order."""
        if self.live is not None:
            yield from ask_scores(self.live, pairs)
            return

        def score(chunk: list[int]) -> list[tuple[torch.Tensor, list[int]]]:
            with self.compute(weights_fixed=True):
                return self._score([pairs[i] for i in chunk])

        def describe(i: int) -> str:
            return f"score a text of {len(pairs[i][0]) + len(pairs[i][1])} tokens"

        # texts of similar length share a batch, so that little of it is padding
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        for chunk, scores in in_batches(
            self.batches, SCORE, order, batch_size, score, self.device, describe
        ):
            yield from zip(chunk, scores, strict=True)

    def _score(
        self, pairs: Sequence[tuple[list[int], list[int]]]
    ) -> list[tuple[torch.Tensor, list[int]]]:
        """Do ``target_scores`` for all pairs together."""
        ids_BT, mask_BT = text.pad_left(
            [[*prompt, *target] for prompt, target in pairs], self.device
        )
        keep = max(len(target) for _, target in pairs)
        # Rows are aligned at their ends. The last token predicts nothing that is asked, so it is
        # left out, and the last ``keep`` states then predict all targets.
        hidden_BTD = self.hidden(ids_BT[:, :-1], mask_BT[:, :-1])[:, -keep:]
        logp_BTV = self.logits(hidden_BTD).log_softmax(-1)
        logp_BT = logp_BTV.gather(-1, ids_BT[:, -keep:, None])[..., 0].cpu()
        best_BT = logp_BTV.argmax(-1).cpu()
        return [
            # a clone, because a slice would keep the scores of the whole batch
            (
                logp_BT[row, keep - len(target) :].clone(),
                best_BT[row, keep - len(target) :].tolist(),
            )
            for row, (_, target) in enumerate(pairs)
        ]

    @torch.no_grad()
    def generate_ids(
        self,
        prompts: Sequence[list[int]],
        max_new_tokens: int | Sequence[int],
        *,
        lines: Sequence[int | None] | None = None,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        stop: bool = True,
        batch_size: int = 96,
        what: str | None = None,
    ) -> list[list[int]]:
        """Return the new ids for each prompt, without the token that ended them.

        In float32 the batch size changes no text, unless two tokens are almost equally probable
        (see ``target_scores``); in bfloat16 such near ties are more frequent.

        Args:
            max_new_tokens: most new tokens, of all texts or of each.
            lines: for each text the number of lines, not counting empty ones, after which it ends;
                ``None``: its lines are not counted.
            generator: source of the random numbers to sample with, at ``temperature`` from the
                ``top_k`` most probable tokens; ``None``: greedy decoding.
            stop: end a text at a token of ``stop_ids``.
            what: name of the step in the progress display; ``None``: not shown.

        Raises:
            NotFiniteError: if there is nothing to sample from.
        """
        how = Decoding(generator, temperature, top_k, stop)
        n = len(prompts)
        rooms = [max_new_tokens] * n if isinstance(max_new_tokens, int) else max_new_tokens
        ends = lines or [None] * n
        written: dict[int, list[int]] = {}
        # by length, as in target_scores
        waiting = sorted(range(n), key=lambda i: len(prompts[i]))
        with (
            progress.task(what, n, "texts") if what else nullcontext() as bar,
            self.compute(weights_fixed=True),
        ):
            while waiting:
                at_once = self.batches.of(WRITE, batch_size)
                # Texts that are drawn share their random numbers step by step, so they stay
                # together: less memory makes smaller passes of them, and no other texts.
                chunk = waiting[: batch_size if generator else at_once]
                texts = [Text(rooms[i], ends[i]) for i in chunk]
                if self._written([prompts[i] for i in chunk], texts, how, at_once, bar):
                    written |= {i: one.ids for i, one in zip(chunk, texts, strict=True)}
                    waiting = waiting[len(chunk) :]
        return [written[i] for i in range(n)]

    def _written(
        self,
        prompts: Sequence[list[int]],
        texts: Sequence[Text],
        how: Decoding,
        at_once: int,
        bar: progress.Bar | None,
    ) -> bool:
        """Append the new ids of each prompt to its text, and return whether the memory sufficed.

        If not, the next try is half as large.

        Raises:
            ModelError: it did not suffice for a single text.
        """
        state = how.generator.get_state() if how.generator else None
        shown = 0.0
        try:
            for share in self._write(prompts, texts, how, at_once):
                shown += len(prompts) * share
                if bar:
                    bar.advance(len(prompts) * share)
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if (tried := min(at_once, len(prompts))) == 1:
                longest = max(map(len, prompts))
                raise no_memory(f"continue a text of {longest} tokens") from error
        free_cached()
        self.batches.halved(WRITE, tried, self.device)
        if bar:
            bar.advance(-shown)
        if how.generator and state is not None:
            how.generator.set_state(state)
        return False

    def _write(
        self, prompts: Sequence[list[int]], texts: Sequence[Text], how: Decoding, at_once: int
    ) -> Iterator[float]:
        """Append the new ids of each prompt to its text; yield the share of the work per step."""
        if self.live is None:
            return self._continue(prompts, texts, how, at_once)
        return ask_texts(self.live, prompts, texts, how, self.stop_ids if how.stop else ())

    def _continue(
        self, prompts: Sequence[list[int]], texts: Sequence[Text], how: Decoding, at_once: int
    ) -> Iterator[float]:
        """Do ``_write`` here, step by step for all prompts, in passes of ``at_once`` of them."""
        self.check_head()
        parts = [
            Part(
                *text.pad_left(some, self.device),
                # Without a cache that is known to work, every step reads the whole text again.
                decoding_cache(self.model) if self.honours.cache else None,
            )
            for some in batched(prompts, at_once)
        ]
        rows, stop_ids = list(texts), self.stop_ids if how.stop else frozenset()
        steps = max(one.room for one in texts)
        for step in range(steps):
            next_B = how.pick(self._next_logits(parts))
            going = []
            for row, (one, token) in enumerate(zip(rows, next_B.tolist(), strict=True)):
                if one.goes_on(token, stop_ids, self._line_ends):
                    going.append(row)
            if not going:
                yield 1 - step / steps  # report all that is left as done
                return
            yield 1 / steps
            rows, first = [rows[row] for row in going], 0
            for part in parts:
                own = [row - first for row in going if first <= row < first + len(part.ids_BT)]
                first += len(part.ids_BT)
                part.go_on(next_B[first - len(part.ids_BT) : first], own)
            parts = [part for part in parts if len(part.ids_BT)]

    def _next_logits(self, parts: Sequence[Part]) -> torch.Tensor:
        """Return the logits (B, V) of the token that comes next in each row of ``parts``."""
        logits = [
            self.logits(self.hidden(part.ids_BT, part.mask_BT, part.cache)[:, -1]) for part in parts
        ]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def generate(self, prompt: str, form: str | None = None, max_new_tokens: int = 32) -> str:
        """Return the model's greedy answer to one prompt, as text.

        Args:
            prompt: a question, or a text to continue.
            form: ``question`` asks through the chat template, ``cloze`` continues the text;
                ``None``: a prompt that ends with a question mark is a question, as on the command
                line.
            max_new_tokens: most tokens of the answer.
        """
        ids = self.prompt_ids(prompt, form or form_of(prompt))
        return self.answer(self.generate_ids([ids], max_new_tokens)[0])

    def __repr__(self) -> str:
        """Return name, layers, precision, device and applied edits, on one line."""
        n = len(self.applied)
        applied = f", {n} applied edit{'s' * (n != 1)}" if n else ""
        depth = getattr(self.model.config.get_text_config(), "num_hidden_layers", "unknown")
        how = f"{depth} layers, {self.precision}, {self.device}{applied}"
        return f"LanguageModel({self.name!r}, {how})"


def _refuse(*_: object) -> None:
    raise ModelError(NOT_HERE)


def batched(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Yield consecutive chunks of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


@cache
def float64_device(device: torch.device) -> torch.device:
    """Return ``device`` if it computes in float64, else the CPU; Apple's GPUs have no float64."""
    try:
        torch.zeros((), dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return torch.device("cpu")
    return device


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


@contextmanager
def computing(module: torch.nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Inside, let the module compute ``forward``.

    Afterwards it computes what it did before, be that its class's forward or a replacement.
    """
    # Only a replaced forward is an attribute of the module itself.
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextmanager
def _without_gradients(model: torch.nn.Module) -> Iterator[None]:
    """Clear ``requires_grad`` of all parameters inside, and set it again afterwards."""
    wanted = [name for name, weight in model.named_parameters() if weight.requires_grad]
    try:
        for weight in model.parameters():
            weight.requires_grad_(False)
        yield
    finally:
        # By name, since a pass makes new objects of weights that are offloaded.
        weights = dict(model.named_parameters())
        for name in wanted:
            weights[name].requires_grad_(True)
