"""Token-by-token decoding: the choice of the next token, and the cache of keys and values.

# B rows, T tokens, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from editbench.errors import ModelError, NotFiniteError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

States = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each (B, heads, T, head width)."""
SPARE = 64
"""Spare tokens that a cache's buffers get each time they are enlarged."""


@dataclass
class Text:
    """A text while it is written."""

    room: int
    """Its most tokens."""
    lines: int | None = None
    """Lines, not counting empty ones, after which it ends; ``None``: any number."""
    stops: Sequence[str] = ()
    """It ends with the token that completes one of these."""
    ids: list[int] = field(default_factory=list)
    """Its tokens so far."""

    def goes_on(self, token: int, stop_ids: Container[int], ends: Ends) -> bool:
        """Append ``token``, unless it is a stop token; return whether another one may follow."""
        if token in stop_ids:
            return False
        self.ids.append(token)
        return len(self.ids) < self.room and not ends.reached(self)


class Ends:
    """Finds the token that ends a text by what it says; ``decode`` maps ids to their text."""

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode = decode
        self._ending: dict[int, bool] = {}

    def reached(self, text: Text) -> bool:
        """Return whether the last token of ``text`` ends the last of its lines, or a stop."""
        return self._stopped(text) or self._last_line(text)

    def _stopped(self, text: Text) -> bool:
        if not text.stops:
            return False
        # A token is at least one byte, and a character at most four.
        recent = self._decode(text.ids[-4 * max(map(len, text.stops)) - 4 :])
        return any(stop in recent for stop in text.stops)

    def _last_line(self, text: Text) -> bool:
        token = text.ids[-1]
        if text.lines is None:
            return False
        if token not in self._ending:  # most tokens recur, and decoding one takes a while
            self._ending[token] = "\n" in self._decode([token])
        if not self._ending[token]:
            return False
        *ended, _ = self._decode(text.ids).split("\n")
        return sum(bool(line.strip()) for line in ended) >= text.lines


@dataclass(frozen=True)
class Decoding:
    """How to continue prompts. ``LanguageModel.generate_ids`` explains the fields."""

    generator: torch.Generator | None = None
    temperature: float = 1.0
    top_k: int | None = None
    stop_ids: Collection[int] = ()
    """Tokens that end a text."""

    def uniforms(self, steps: int, rows: int) -> list[list[float]] | None:
        """Return the random numbers of each step, one a row; ``None``: nothing is drawn."""
        if self.generator is None or self.temperature == 0:
            return None
        # step by step, as ``pick`` draws them: one call for all would give others
        return [self._uniform(rows)[:, 0].tolist() for _ in range(steps)]

    def pick(self, logits_BV: torch.Tensor, uniform_B1: torch.Tensor | None = None) -> torch.Tensor:
        """Return the next ids (B,).

        They are the argmax. With a generator, or with random numbers from 0 to 1, they are drawn
        from the ``top_k`` most probable tokens at ``temperature``.

        Raises:
            NotFiniteError: if a row has no finite largest logit to draw by.
        """
        if self.generator is not None and self.temperature != 0:
            uniform_B1 = self._uniform(len(logits_BV))
        if uniform_B1 is None:
            return logits_BV.argmax(-1)
        # The maximum is not finite if a logit is NaN or +inf; single logits of -inf are fine.
        if not logits_BV.amax(-1).isfinite().all():
            raise NotFiniteError("the model's logits became infinite or NaN")
        if self.top_k is None:
            return self._draw(logits_BV, uniform_B1)[:, 0]
        values_BK, index_BK = logits_BV.topk(self.top_k, dim=-1)
        return index_BK.gather(-1, self._draw(values_BK, uniform_B1))[:, 0]

    def _uniform(self, rows: int) -> torch.Tensor:
        return torch.rand(rows, 1, generator=self.generator)

    def _draw(self, logits_BV: torch.Tensor, uniform_B1: torch.Tensor) -> torch.Tensor:
        """Return a random index (B, 1) into the last dimension.

        It inverts the distribution function with one random number per row. torch.multinomial would
        draw one for each token of the vocabulary.
        """
        cumulative_BV = (logits_BV / self.temperature).softmax(-1).cumsum(-1)
        # The last sum is 1 only up to rounding, so the number is scaled by it.
        drawn_B1 = uniform_B1.to(logits_BV.device) * cumulative_BV[:, -1:]
        # right=True passes over tokens of probability 0.
        place_B1 = torch.searchsorted(cumulative_BV, drawn_B1, right=True)
        return place_B1.clamp(max=logits_BV.shape[-1] - 1)


class Part:
    """Rows of a batch that share their passes: the ids to read next, the mask, and a cache."""

    def __init__(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, cache: DynamicCache | None):
        self.ids_BT, self.mask_BT, self.cache = ids_BT, mask_BT, cache

    def go_on(self, next_B: torch.Tensor, going: Sequence[int]) -> None:
        """Append a token to each row, and keep the rows ``going`` only."""
        if len(going) < len(self.ids_BT):
            index = torch.tensor(going, dtype=torch.long, device=self.ids_BT.device)
            if self.cache is not None and going:
                keep_rows(self.cache, index)
            next_B, self.mask_BT = next_B[index], self.mask_BT[index]
            self.ids_BT = self.ids_BT[index]
        new_B1 = next_B[:, None]
        whole = self.cache is None
        self.ids_BT = torch.cat([self.ids_BT, new_B1], dim=1) if whole else new_B1
        one_more = self.mask_BT.new_ones(len(new_B1), 1)
        self.mask_BT = torch.cat([self.mask_BT, one_more], dim=1)


class GrowingLayer(DynamicLayer):
    """Keys and values in buffers with spare space.

    ``DynamicLayer`` copies the whole cache for every token.
    """

    _room: States

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers does not annotate it

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> States:
        """Append the keys and values of new tokens, and return those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            # Empty buffers of the right shape and dtype; the first tokens enlarge them.
            self._room = (key_states[:, :, :0], value_states[:, :, :0])
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        keys, values = self._room
        if new > keys.shape[-2]:
            keys = _enlarged(keys[:, :, :old], key_states, new + SPARE)
            values = _enlarged(values[:, :, :old], value_states, new + SPARE)
            self._room = (keys, values)
        # In place, which is why decoding must run under no_grad.
        keys[:, :, old:new] = key_states
        values[:, :, old:new] = value_states
        self.keys, self.values = keys[:, :, :new], values[:, :, :new]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep the rows ``beam_idx`` only, in that order."""
        if (length := self.get_seq_length()) > 0:
            # The buffers with their spare space, so that the next token fits in without a copy.
            keys, values = (room.index_select(0, beam_idx) for room in self._room)
            self._room = (keys, values)
            self.keys, self.values = keys[:, :, :length], values[:, :, :length]


def _enlarged(old: torch.Tensor, like: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return ``old`` enlarged to ``tokens`` tokens, in the dtype of ``like``."""
    # new_empty, because a slot is written before it is read
    spare = like.new_empty(*like.shape[:2], tokens - old.shape[2], like.shape[3])
    return torch.cat([old, spare], dim=2)


def decoding_cache(
    model: PreTrainedModel, whole: bool = False, kept: Sequence[States] | None = None
) -> DynamicCache:
    """Return a cache for token-by-token decoding under ``no_grad``.

    Rows can be dropped with ``keep_rows``.

    Args:
        whole: keep every token, even where a layer's window is sliding. The mask alone then decides
            what a token sees, and tokens can be taken back with ``crop``.
        kept: initial keys and values of each layer that keeps some, in their order.

    Raises:
        ModelError: if ``whole`` is set and the model has layers that keep anything other than keys
            and values for each token.
    """
    cache = DynamicCache(config=model.config)
    if whole and not keeps_tokens(model):
        raise ModelError(
            f"{type(model).__name__} keeps states other than keys and values, from which no token "
            "can be removed again."
        )
    # DynamicLayer itself and no subclass: a sliding layer stays, as it drops tokens outside its
    # window, unless ``whole`` asks for all of them
    cache.layers = [
        GrowingLayer()
        if type(layer) is DynamicLayer or (whole and isinstance(layer, DynamicLayer))
        else layer
        for layer in cache.layers
    ]
    filled = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    for layer, (keys, values) in zip(filled, kept or (), strict=False):
        layer.update(keys, values)
    return cache


def keep_rows(cache: DynamicCache, indices: torch.Tensor) -> None:
    """Keep the rows ``indices`` of a ``decoding_cache`` only, in that order."""
    # The one way that every kind of layer knows. A state-space layer has no batch_select_indices,
    # and that of a hybrid layer forgets the state.
    cache.reorder_cache(indices)  # type: ignore[arg-type]  # any tensor of int64 is a LongTensor


def keeps_tokens(model: PreTrainedModel) -> bool:
    """Return whether a cache keeps keys and values for each token and nothing else.

    Only then can tokens be removed from it again: a state-space layer keeps one state of all of
    them. A layer that reads the keys and values of an earlier one keeps nothing itself.
    """
    # No subclass of these two: a hybrid layer is one, and keeps a state as well.
    return all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) or _is_shared(layer)
        for layer in DynamicCache(config=model.config).layers
    )


def shares_keys(model: PreTrainedModel) -> bool:
    """Return whether some layers read the keys and values of earlier layers (Gemma 3n and 4)."""
    return any(map(_is_shared, DynamicCache(config=model.config).layers))


def _is_shared(layer: object) -> bool:
    # by its name, since older releases of transformers lack the class
    return type(layer).__name__ == "DummyLayer"


def cached_states(cache: DynamicCache) -> list[States]:
    """Return the keys and values of a ``decoding_cache`` that is whole and filled.

    There is a pair for each layer that keeps some.
    """
    states = []
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer):
            assert layer.keys is not None and layer.values is not None
            states.append((layer.keys, layer.values))
    return states
