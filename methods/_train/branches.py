"""Many texts written side by side, each by k prompts at once: one cache, one forward of k tokens for each token written.

Texts that have ended leave the batch and waiting ones take their places; tokens that a text takes back are cut out of the
cache. So no prompt and no token is ever encoded twice.

    # R rows: text 0's k prompts, then text 1's, ...; P cached tokens, V vocabulary
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from editbench.models import LanguageModel, cached_states, decoding_cache
from editbench.text import pad_left


@dataclass(frozen=True)
class Move:
    """What a text does next: it keeps its first ``kept`` tokens and goes on with ``token``."""

    kept: int
    token: int


class Text(ABC):
    """What is written."""

    prompts: Sequence[Sequence[int]]
    """Token ids of its k prompts, the same k for all texts."""
    encoded: int = 0
    """How many of its tokens are in the cache."""

    @abstractmethod
    def step(self, logp_kV: torch.Tensor) -> Move | None:
        """What follows, given each prompt's log-probabilities of the next token; None where the text ends."""


class Branches:
    """Writes texts with at most ``slots`` of them in flight, and counts what that took."""

    def __init__(self, model: LanguageModel, slots: int):
        self.model, self.slots = model, slots
        self.prompt_tokens = 0
        """Tokens of prompts that were encoded."""
        self.decoded_tokens = 0
        """Tokens that went through the model one by one: k for each token written."""

    @torch.no_grad()
    def write(self, texts: Sequence[Text]) -> Iterator[Text]:
        """Yields the texts as they end."""
        waiting, going, moves = deque(texts), [], []
        rows, k = _Rows(self.model), len(texts[0].prompts) if texts else 1
        with self.model.compute(weights_fixed=True):
            while waiting or going:
                if waiting and len(going) <= self.slots // 2:
                    new = [
                        waiting.popleft() for _ in range(min(len(waiting), self.slots - len(going)))
                    ]
                    prompts = [prompt for text in new for prompt in text.prompts]
                    self.prompt_tokens += sum(map(len, prompts))
                    found = self._ask(new, rows.join(prompts))
                    going, moves = [*going, *new], [*moves, *found]
                else:
                    self.decoded_tokens += k * len(going)
                    logp_RV = rows.feed([move.token for move in moves for _ in range(k)])
                    for text in going:
                        text.encoded += 1
                    moves = self._ask(going, logp_RV)
                yield from (text for text, move in zip(going, moves, strict=True) if move is None)
                stay = [i for i, move in enumerate(moves) if move is not None]
                cut = [going[i].encoded - moves[i].kept for i in stay]
                if not stay:
                    rows = _Rows(self.model)
                elif len(stay) < len(going) or any(cut):
                    rows.keep(stay, cut, k)
                going, moves = [going[i] for i in stay], [moves[i] for i in stay]
                for text, back in zip(going, cut, strict=True):
                    text.encoded -= back

    @staticmethod
    def _ask(texts: Sequence[Text], logp_RV: torch.Tensor) -> list[Move | None]:
        return [
            text.step(logp_kV)
            for text, logp_kV in zip(texts, logp_RV.tensor_split(len(texts)), strict=True)
        ]


class _Rows:
    """The cache and the mask of the rows in flight."""

    def __init__(self, model: LanguageModel):
        self.model, self.cache, self.mask_RP = model, None, None

    @property
    def count(self) -> int:
        return 0 if self.mask_RP is None else len(self.mask_RP)

    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Encodes the prompts of new rows; log-probabilities (new rows, V) of their next tokens."""
        ids_NP, mask_NP = pad_left(prompts, self.model.device)
        cache = decoding_cache(self.model.model, whole=True)
        logp_NV = self._log_probs(ids_NP, mask_NP, cache)
        if self.cache is None:
            self.cache, self.mask_RP = cache, mask_NP
            return logp_NV
        width = max(self.mask_RP.shape[1], mask_NP.shape[1])

        def padded(
            states: torch.Tensor,
        ) -> torch.Tensor:  # (R, heads, P, head width) to (R, heads, width, head width)
            return F.pad(states, (0, 0, width - states.shape[2], 0))

        kept = [
            tuple(
                torch.cat([padded(one), padded(other)]) for one, other in zip(old, new, strict=True)
            )
            for old, new in zip(cached_states(self.cache), cached_states(cache), strict=True)
        ]
        self.cache = decoding_cache(self.model.model, whole=True, kept=kept)
        both = (F.pad(mask, (width - mask.shape[1], 0)) for mask in (self.mask_RP, mask_NP))
        self.mask_RP = torch.cat(list(both))
        return logp_NV

    def feed(self, tokens: Sequence[int]) -> torch.Tensor:
        """One token more in each row; log-probabilities (R, V) of the next."""
        self.mask_RP = torch.cat([self.mask_RP, self.mask_RP.new_ones(self.count, 1)], dim=1)
        return self._log_probs(
            torch.tensor(tokens, device=self.model.device)[:, None], self.mask_RP, self.cache
        )

    def keep(self, texts: Sequence[int], cut: Sequence[int], k: int) -> None:
        """Only the rows of these texts stay, each without its last ``cut`` tokens."""
        rows = torch.tensor([k * i + j for i in texts for j in range(k)], device=self.model.device)
        cut_R = torch.tensor([n for n in cut for _ in range(k)], device=self.model.device)
        mask_RP = self.mask_RP[rows]
        left_R = mask_RP.sum(1) - cut_R
        mask_RP = mask_RP * (mask_RP.cumsum(1) <= left_R[:, None])
        # what counts moves to the right, in its order, and columns that no row needs fall away
        order_RP = mask_RP.argsort(dim=1, stable=True)[:, -int(left_R.max()) :]

        def chosen(states: torch.Tensor) -> torch.Tensor:
            index = order_RP[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
            return states[rows].gather(2, index)

        kept = [tuple(map(chosen, layer)) for layer in cached_states(self.cache)]
        self.cache, self.mask_RP = (
            decoding_cache(self.model.model, whole=True, kept=kept),
            mask_RP.gather(1, order_RP),
        )

    def _log_probs(
        self, ids_RT: torch.Tensor, mask_RP: torch.Tensor, cache: object
    ) -> torch.Tensor:
        return self.model.logits(self.model.hidden(ids_RT, mask_RP, cache)[:, -1]).log_softmax(-1)
