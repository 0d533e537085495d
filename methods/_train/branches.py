"""Many texts written side by side, each by k prompts at once, with one cache.

Each written token takes one forward pass. Texts that have ended leave the batch, and waiting texts
take their places. When a text takes tokens back, they are cut out of the cache. So no prompt and no
token is ever encoded twice.

From the state of a state-space model no token can be cut, and some models do not continue a padded
batch from a cache. With those, texts are read again from their first token where need be.

    # R rows: text 0's k prompts, then text 1's, ...; P cached tokens, T new tokens, V vocabulary
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from editbench.decoding import cached_states, decoding_cache, keep_rows
from editbench.models import LanguageModel
from editbench.text import pad_left


@dataclass(frozen=True)
class Move:
    """The next step of a text: it keeps its first ``kept`` tokens and continues with ``token``."""

    kept: int
    token: int


class Text(ABC):
    """A text that is being written."""

    prompts: Sequence[Sequence[int]]
    """Token ids of its k prompts; k is the same for all texts."""
    encoded: int = 0
    """How many of its tokens are in the cache."""

    @abstractmethod
    def step(self, logp_kV: torch.Tensor) -> Move | None:
        """Return the next step, given each prompt's log-probabilities of the next token.

        None ends the text.
        """


AnyText = TypeVar("AnyText", bound=Text)


class Branches:
    """Writes texts with at most ``slots`` of them in flight, and counts the tokens it encodes."""

    def __init__(self, model: LanguageModel, slots: int):
        self.model, self.slots = model, slots
        self.prompt_tokens = 0
        """Tokens of prompts that were encoded."""
        self.decoded_tokens = 0
        """Tokens that went through the model one by one: k for each written token."""
        self.reread_tokens = 0
        """Tokens that were encoded again, where the model's cache cannot take tokens back."""

    @torch.no_grad()
    def write(self, texts: Sequence[AnyText]) -> Iterator[AnyText]:
        """Write all texts, and yield each one when it ends."""
        waiting = deque(texts)
        writing: list[AnyText] = []
        moves: list[Move] = []
        kind = _CachedRows if self.model.keeps_tokens else _WholeRows
        rows: _Rows | None = None
        k = len(texts[0].prompts) if texts else 1
        with self.model.compute(weights_fixed=True):
            while waiting or writing:
                # Prompts are encoded in batches, when at least half of the slots are free. Texts in
                # flight wait meanwhile: their moves stay as they are and are fed in the next round.
                if rows is None or (waiting and len(writing) <= self.slots // 2):
                    free = min(len(waiting), self.slots - len(writing))
                    new = [waiting.popleft() for _ in range(free)]
                    prompts = [prompt for text in new for prompt in text.prompts]
                    self.prompt_tokens += sum(map(len, prompts))
                    new_rows, logp_NV = kind.encode(self.model, prompts)
                    rows = new_rows if rows is None else rows.beside(new_rows)
                    writing += new
                    answers = [*moves, *self._ask(new, logp_NV)]
                else:
                    self.decoded_tokens += k * len(writing)
                    self.reread_tokens += rows.forgotten
                    # All k rows of a text get the same token: its prompts share one continuation.
                    logp_RV = rows.feed([move.token for move in moves for _ in range(k)])
                    for text in writing:
                        text.encoded += 1
                    answers = self._ask(writing, logp_RV)
                yield from (t for t, move in zip(writing, answers, strict=True) if move is None)
                stay = [i for i, move in enumerate(answers) if move is not None]
                moves = [move for move in answers if move is not None]
                ended = len(stay) < len(writing)
                writing = [writing[i] for i in stay]
                # 0 for a text that only grows; a restart also drops tokens from the cache.
                cut = [t.encoded - move.kept for t, move in zip(writing, moves, strict=True)]
                if not stay:
                    rows = None
                elif ended or any(cut):
                    rows.keep(stay, cut, k)
                for text, n in zip(writing, cut, strict=True):
                    text.encoded -= n

    @staticmethod
    def _ask(texts: Sequence[Text], logp_RV: torch.Tensor) -> list[Move | None]:
        return [
            text.step(logp_kV)
            for text, logp_kV in zip(texts, logp_RV.tensor_split(len(texts)), strict=True)
        ]


class _Rows(ABC):
    """The rows in flight. Their last tokens are aligned."""

    @classmethod
    @abstractmethod
    def encode(
        cls, model: LanguageModel, prompts: Sequence[Sequence[int]]
    ) -> tuple[Self, torch.Tensor]:
        """Encode ``prompts``; return their rows and log-probabilities (R, V) of the next tokens."""

    @property
    def forgotten(self) -> int:
        """Tokens that ``feed`` has to encode again."""
        return 0

    @abstractmethod
    def beside(self, new: Self) -> Self:
        """Return these rows followed by ``new``."""

    @abstractmethod
    def feed(self, tokens: Sequence[int]) -> torch.Tensor:
        """Add one token to each row; return log-probabilities (R, V) of the next."""

    @abstractmethod
    def keep(self, texts: Sequence[int], cut: Sequence[int], k: int) -> None:
        """Keep only the rows of these texts, each without its last ``cut`` tokens."""


@dataclass
class _CachedRows(_Rows):
    """The cache and the attention mask of rows, which are padded on the left."""

    model: LanguageModel
    cache: DynamicCache
    mask_RP: torch.Tensor

    @classmethod
    def encode(
        cls, model: LanguageModel, prompts: Sequence[Sequence[int]]
    ) -> tuple[Self, torch.Tensor]:
        ids_RT, mask_RT = pad_left(prompts, model.device)
        # whole: a sliding window would have dropped tokens that a cut makes visible again.
        rows = cls(model, decoding_cache(model.model, whole=True), mask_RT)
        return rows, rows._log_probs(ids_RT)

    def beside(self, new: Self) -> Self:
        # all padded on the left to the same width
        width = max(self.mask_RP.shape[1], new.mask_RP.shape[1])

        def padded(states: torch.Tensor) -> torch.Tensor:
            """Pad (R, heads, P, head width) to (R, heads, width, head width)."""
            # F.pad counts dimensions from the last: none for head width, left only for P.
            return F.pad(states, (0, 0, width - states.shape[2], 0))

        layers = zip(cached_states(self.cache), cached_states(new.cache), strict=True)
        kept = [
            (
                torch.cat([padded(old_keys), padded(new_keys)]),
                torch.cat([padded(old_values), padded(new_values)]),
            )
            for (old_keys, old_values), (new_keys, new_values) in layers
        ]
        masks = [F.pad(m, (width - m.shape[1], 0)) for m in (self.mask_RP, new.mask_RP)]
        cache = decoding_cache(self.model.model, whole=True, kept=kept)
        return type(self)(self.model, cache, torch.cat(masks))

    def feed(self, tokens: Sequence[int]) -> torch.Tensor:
        self.mask_RP = torch.cat([self.mask_RP, self.mask_RP.new_ones(len(tokens), 1)], dim=1)
        return self._log_probs(torch.tensor(tokens, device=self.model.device)[:, None])

    def keep(self, texts: Sequence[int], cut: Sequence[int], k: int) -> None:
        rows = torch.tensor([k * i + j for i in texts for j in range(k)], device=self.model.device)
        cut_R = torch.tensor([n for n in cut for _ in range(k)], device=self.model.device)
        mask_RP = self.mask_RP[rows]
        left_R = mask_RP.sum(1) - cut_R
        # cumsum numbers a row's tokens from 1; numbers above left_R are those taken back.
        mask_RP = mask_RP * (mask_RP.cumsum(1) <= left_R[:, None])
        # A stable sort of the mask puts padding (0) first and keeps the tokens (1) in order, so
        # rows are aligned on the right again. Columns that no row needs are dropped.
        order_RP = mask_RP.argsort(dim=1, stable=True)[:, -int(left_R.max()) :]

        def chosen(states: torch.Tensor) -> torch.Tensor:
            # a model over several GPUs has its layers' states on all of them
            index = order_RP[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
            return states[rows.to(states.device)].gather(2, index.to(states.device))

        kept = [(chosen(keys), chosen(values)) for keys, values in cached_states(self.cache)]
        self.cache = decoding_cache(self.model.model, whole=True, kept=kept)
        self.mask_RP = mask_RP.gather(1, order_RP)

    def _log_probs(self, ids_RT: torch.Tensor) -> torch.Tensor:
        # Logits only at the last position: a row of V numbers for every token would be large.
        hidden_RTD = self.model.hidden(ids_RT, self.mask_RP, self.cache)
        return self.model.logits(hidden_RTD[:, -1]).log_softmax(-1)


@dataclass
class _WholeRows(_Rows):
    """The ids of rows from whose cache no token can be taken back, if the model has one at all.

    Rows that only grow are continued from the cache. All are read again where one of them has
    taken tokens back, where new ones have come, and at each step where there is no cache.
    """

    model: LanguageModel
    ids: list[list[int]]
    cache: DynamicCache | None = None
    mask_RP: torch.Tensor | None = None
    """The attention mask of the cached tokens."""

    @classmethod
    def encode(
        cls, model: LanguageModel, prompts: Sequence[Sequence[int]]
    ) -> tuple[Self, torch.Tensor]:
        rows = cls(model, [list(prompt) for prompt in prompts])
        return rows, rows._read()

    @property
    def forgotten(self) -> int:
        return 0 if self.cache is not None else sum(map(len, self.ids))

    def beside(self, new: Self) -> Self:
        return type(self)(self.model, self.ids + new.ids)

    def feed(self, tokens: Sequence[int]) -> torch.Tensor:
        for row, token in zip(self.ids, tokens, strict=True):
            row.append(token)
        if self.cache is None or self.mask_RP is None:
            return self._read()
        self.mask_RP = torch.cat([self.mask_RP, self.mask_RP.new_ones(len(tokens), 1)], dim=1)
        new_R1 = torch.tensor(tokens, device=self.model.device)[:, None]
        return self._log_probs(new_R1, self.mask_RP)

    def keep(self, texts: Sequence[int], cut: Sequence[int], k: int) -> None:
        rows = [(k * i + j, n) for i, n in zip(texts, cut, strict=True) for j in range(k)]
        self.ids = [self.ids[r][: len(self.ids[r]) - n] for r, n in rows]
        if any(cut):
            self.cache = None
        elif self.cache is not None and self.mask_RP is not None:
            index_R = torch.tensor([r for r, _ in rows], device=self.model.device)
            keep_rows(self.cache, index_R)
            self.mask_RP = self.mask_RP[index_R]

    def _read(self) -> torch.Tensor:
        ids_RT, self.mask_RP = pad_left(self.ids, self.model.device)
        self.cache = decoding_cache(self.model.model) if self.model.honours.cache else None
        return self._log_probs(ids_RT, self.mask_RP)

    def _log_probs(self, ids_RT: torch.Tensor, mask_RP: torch.Tensor) -> torch.Tensor:
        hidden_RTD = self.model.hidden(ids_RT, mask_RP, self.cache)
        return self.model.logits(hidden_RTD[:, -1]).log_softmax(-1)
