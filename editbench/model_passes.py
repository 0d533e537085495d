"""Forward passes of a ``LanguageModel``: last hidden states, logits, and what is tried first.

# B rows, T tokens, D model width, V vocabulary
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import torch
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from editbench import text
from editbench.beginnings import can_share, in_window
from editbench.decoding import keeps_tokens
from editbench.errors import ModelError, NotFiniteError
from editbench.model_weights import ModelWeights
from editbench.selfcheck import Honoured, honoured

_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
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


class ModelPasses(ModelWeights):
    """The part of ``LanguageModel`` that computes hidden states and logits."""

    _head_checked = False

    @property
    def context_length(self) -> int | None:
        """Tokens that the model reads at once; ``None`` if its configuration does not say."""
        config = self.model.config.get_text_config()
        length: int | None = getattr(config, "max_position_embeddings", None)
        return length if length and length > 0 else None  # XLNet's is -1: any number

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

    def shares(self, longest: int) -> bool:
        """Return whether texts of ``longest`` tokens may share beginnings; tried once."""
        return in_window(self, longest) and self._can_share

    @cached_property
    def _can_share(self) -> bool:
        return can_share(self)

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
