"""Compute a beginning that several texts share once, and no padding.

Texts that are asked together often begin alike: the examples of a task, the description of a tool,
the question before each of its choices. Sorted, they make a tree of their tokens, which is read in
one row: each token attends to the tokens on the path from the root to itself. What the next texts
share with the last one is kept. This needs a model whose attention can be replaced; ``can_share``
tries it, and other models read every text for itself.

    # R texts, N tokens read now, K tokens in all; G key heads, H query heads of width d; D width
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache

from editbench.decoding import States, cached_states, decoding_cache
from editbench.text import pad_left

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from transformers import PreTrainedModel

NAME = "editbench_beginnings"
TOKENS = {"cpu": 512}
"""Tokens of one pass, by the type of device; a GPU needs more of them to be busy."""
TOKENS_ELSEWHERE = 2048
WINDOWS = ("sliding_window", "attention_chunk_size")


class Reader(Protocol):
    """The part of a ``LanguageModel`` that is used here; its passes use this file."""

    model: PreTrainedModel
    precision: str

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def base(self) -> torch.nn.Module: ...
    @property
    def takes_positions(self) -> bool: ...
    @property
    def cache_argument(self) -> str | None: ...
    @property
    def keeps_tokens(self) -> bool: ...
    def compute(self) -> AbstractContextManager[object]: ...
    def hidden(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, cache: DynamicCache | None = None
    ) -> torch.Tensor: ...


class NotShared(Exception):
    """Raised when a model attends in a way that this file does not know."""


@dataclass(frozen=True)
class Read:
    """Texts that were read, as places in an array of K tokens."""

    states_KD: torch.Tensor
    """Last hidden states, after the final norm."""
    kept: list[States]
    """Keys and values (1, G, K, d) of each layer."""
    paths: list[torch.Tensor]
    """The places of each text's tokens."""


class Beginnings:
    """Reads sorted texts, and keeps the last one for those that come after it."""

    def __init__(self, model: Reader):
        self.model = model
        self._last: Sequence[int] = ()
        self._read: Read | None = None

    def take(self, rows: Sequence[Sequence[int]]) -> int:
        """Return how many of the next ``rows`` make one pass; at least one."""
        most = TOKENS.get(self.model.device.type, TOKENS_ELSEWHERE)
        new, last = 0, self._last
        for i, row in enumerate(rows):
            new += len(row) - _common(last, row)
            if i and new > most:
                return i
            last = row
        return len(rows)

    @torch.no_grad()
    def read(self, rows: Sequence[Sequence[int]]) -> Read:
        """Read ``rows``, which sort behind each other and behind those of the last call.

        Raises:
            NotShared: the model attends in another way.
        """
        old = _common(self._last, rows[0])
        # (place of the token before, token) -> place; -1 is the root. A token that is there
        # already adds no place.
        place = {(t - 1, token): t for t, token in enumerate(self._last[:old])}
        paths = []
        for row in rows:
            places = [-1]
            for token in row:
                places.append(place.setdefault((places[-1], token), len(place)))
            paths.append(torch.tensor(places[1:], dtype=torch.long))
        new = [token for _, token in place][old:]
        seen_NK = torch.zeros(len(new), len(place), dtype=torch.bool)
        for path in paths:
            known = int((path < old).sum())
            causal = torch.ones(len(path), len(path), dtype=torch.bool).tril()[known:]
            seen_NK[path[known:, None] - old, path] = causal
        read = self._forward(new, seen_NK, old, [path.to(self.model.device) for path in paths])
        self._last, self._read = rows[-1], _only(read, read.paths[-1])
        return read

    def _forward(
        self, new: list[int], seen_NK: torch.Tensor, old: int, paths: list[torch.Tensor]
    ) -> Read:
        """Read the tokens ``new`` behind the first ``old`` ones of the last text."""
        states, kept = [], None
        if self._read is not None and old:
            kept = [(k[:, :, :old], v[:, :, :old]) for k, v in self._read.kept]
            states = [self._read.states_KD[:old]]
        if kept and not new:  # these texts were read before
            return Read(states[0], kept, paths)
        model, device = self.model, self.model.device
        cache = decoding_cache(model.model, whole=True, kept=kept)
        seen_NK = seen_NK.to(device)
        with _attending(model, seen_NK):
            output = model.base(
                input_ids=torch.tensor([new], device=device),
                # A token's position is how many tokens it sees before itself.
                position_ids=(seen_NK.sum(-1) - 1)[None],
                past_key_values=cache,
                use_cache=True,
            )
        return Read(torch.cat([*states, output.last_hidden_state[0]]), cached_states(cache), paths)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of tokens with which both texts begin."""
    return sum(1 for _ in takewhile(bool, map(int.__eq__, first, second)))


def _only(read: Read, path: torch.Tensor) -> Read:
    """Return what was read of one text, as a copy."""
    kept = [(k.index_select(2, path), v.index_select(2, path)) for k, v in read.kept]
    return Read(read.states_KD[path], kept, [])


def read_all(model: Reader, rows: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Read]]:
    """Yield the indices of the texts of each pass, and what was read.

    Raises:
        NotShared: the model attends in another way.
    """
    beginnings, waiting = Beginnings(model), sorted(range(len(rows)), key=lambda i: list(rows[i]))
    while waiting:
        count = beginnings.take([rows[i] for i in waiting])
        chunk, waiting = waiting[:count], waiting[count:]
        yield chunk, beginnings.read([rows[i] for i in chunk])


def filled_cache(model: Reader, rows: Sequence[Sequence[int]]) -> DynamicCache:
    """Return a ``decoding_cache`` that has read ``rows``, each padded on the left.

    Raises:
        NotShared: the model attends in another way.
    """
    width = max(map(len, rows))
    order: list[int] = []
    parts: list[list[States]] = []
    for chunk, read in read_all(model, rows):
        # Any place will do for the padding, which the mask hides.
        padded = [torch.nn.functional.pad(path, (width - len(path), 0)) for path in read.paths]
        path_RT = torch.stack(padded)
        parts.append(
            [
                (k[0][:, path_RT].transpose(0, 1), v[0][:, path_RT].transpose(0, 1))
                for k, v in read.kept
            ]
        )
        order += chunk
    back = torch.tensor(order, device=model.device).argsort()
    kept = []
    for layer in range(len(parts[0])):
        keys, values = (torch.cat([part[layer][i] for part in parts])[back] for i in (0, 1))
        kept.append((keys, values))
        for part in parts:
            part[layer] = (keys[:0], values[:0])  # frees it
    return decoding_cache(model.model, kept=kept)


# --- the attention --------------------------------------------------------------------------------


Attention = Callable[..., tuple[torch.Tensor, None]]

# No mask is built: ``seen_NK`` says which token sees which.
AttentionMaskInterface.register(NAME, lambda *_args, **_how: None)


def _attention(seen_NK: torch.Tensor) -> Attention:
    """Return an attention function for transformers in which token n sees ``seen_NK[n]``."""

    def attend(
        _module: torch.nn.Module,
        query_1HNd: torch.Tensor,
        key_1GKd: torch.Tensor,
        value_1GKd: torch.Tensor,
        attention_mask: object = None,
        scaling: float | None = None,
        **how: object,
    ) -> tuple[torch.Tensor, None]:
        # Position biases (T5), soft-capped scores (Gemma 2) and attention sinks (GPT-OSS) are not
        # in the formula, nor is a mask that the model makes itself.
        unknown = any(how.get(name) is not None for name in ("position_bias", "softcap", "s_aux"))
        if unknown or attention_mask is not None or key_1GKd.shape[-2] != seen_NK.shape[1]:
            raise NotShared
        out_1HNd = scaled_dot_product_attention(
            # Rotated queries and keys may be float32 where the values are bfloat16.
            query_1HNd.to(value_1GKd.dtype),
            key_1GKd.to(value_1GKd.dtype),
            value_1GKd,
            attn_mask=seen_NK,
            scale=scaling,
            enable_gqa=True,
        )
        return out_1HNd.transpose(1, 2).contiguous(), None

    return attend


@contextmanager
def _attending(model: Reader, seen_NK: torch.Tensor) -> Iterator[None]:
    """Inside, let the model attend by ``seen_NK``."""
    config = model.model.config.get_text_config()
    usual = config._attn_implementation
    # Registering again replaces the function that an earlier pass left under this name.
    AttentionInterface.register(NAME, _attention(seen_NK))
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual


# --- whether a model can do it --------------------------------------------------------------------


def in_window(model: Reader, longest: int) -> bool:
    """Return whether each token of a text of ``longest`` tokens sees all tokens before it."""
    config = model.model.config.get_text_config()
    windows = [getattr(config, name, None) for name in WINDOWS]
    return not any(window and window < longest for window in windows)


@torch.no_grad()
def can_share(model: Reader) -> bool:
    """Return whether texts of a shared beginning give the same as texts that are read whole.

    It tries a few short texts, and one more token behind each.
    """
    config = model.model.config.get_text_config()
    one_device = len({parameter.device for parameter in model.model.parameters()}) == 1
    replaceable = (
        getattr(config, "_attn_implementation", None) == "sdpa"
        and getattr(model.model, "_supports_attention_backend", False)
        and model.takes_positions
        and model.cache_argument == "past_key_values"
    )
    if not (one_device and replaceable and model.keeps_tokens):
        return False
    size = config.vocab_size
    rows = [[i % size for i in row] for row in ([3, 4, 5, 6, 7], [3, 4, 8], [3, 4, 8, 9, 10, 11])]
    with model.compute():
        try:
            whole = [model.hidden(*pad_left([row], model.device))[0] for row in rows]
            have = [*_read_in_two(model, rows), *_continued(model, rows)]
        except Exception:
            # The model's own code, which may come from anywhere, cannot do it at all.
            return False
    want = [*whole, *(states[-1] for states in whole)]
    # Half of the digits of the coarser of the two number formats must agree.
    formats = (getattr(torch, model.precision), model.dtype)
    limit = max(torch.finfo(dtype).eps for dtype in formats) ** 0.5
    return all(
        bool((a.float() - b.float()).norm() < limit * b.float().norm())
        for a, b in zip(have, want, strict=True)
    )


def _read_in_two(model: Reader, rows: Sequence[list[int]]) -> list[torch.Tensor]:
    """Return the states of each text: the first is read by one pass, the others by the next."""
    beginnings = Beginnings(model)
    reads = [beginnings.read(rows[:1]), beginnings.read(rows[1:])]
    return [read.states_KD[path] for read in reads for path in read.paths]


def _continued(model: Reader, rows: Sequence[list[int]]) -> list[torch.Tensor]:
    """Return the state of each text's last token, continued from a cache of the others."""
    cache = filled_cache(model, [row[:-1] for row in rows])
    ids_RT, mask_RT = pad_left(rows, model.device)
    return list(model.hidden(ids_RT[:, -1:], mask_RT, cache)[:, -1])
