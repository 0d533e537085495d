"""Prompts cut at one token each, so that a pass computes only what can change.

What lies before the cut or below a layer is computed once. Every pass computes the rest.
``PaddedRows`` pads each row to the longest. It works with any model that continues a padded batch
from the keys and values of earlier tokens. ``fast/packed.py`` holds rows without padding.
``WholeRows`` keeps nothing, and works with any causal model: every pass computes the texts from
their first token.

    # R rows, N tokens from the cuts on, D model width
    # B x T = 1 x N where rows are packed, R x S where they are padded, R x T where they are whole
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import nn
from transformers import DynamicCache

from editbench.decoding import shares_keys
from editbench.layout import Output, hidden_of
from editbench.methods._common.hooks import Captured, added, plus, resumed_above, site_module
from editbench.models import LanguageModel, cached_states
from editbench.text import pad_left, pad_right

KeysValues = tuple[torch.Tensor, torch.Tensor]


class Rows(ABC):
    """Rows of tokens whose last states are computed again and again, each with a delta."""

    def __init__(
        self, model: LanguageModel, rows: Sequence[list[int]], cuts: Sequence[int], resume: int
    ):
        """Compute what all passes share.

        Args:
            cuts: Where each row is cut, all above 0.
            resume: The highest layer that need not run again; -1: all run.
        """
        # Layers that share keys need the earlier layers that make them.
        self.model, self.resume = model, -1 if shares_keys(model.model) else resume
        self.before = [row[:cut] for row, cut in zip(rows, cuts, strict=True)]
        self.after = [row[cut:] for row, cut in zip(rows, cuts, strict=True)]
        self.everyone = torch.arange(len(rows), device=model.device)
        self.below_BTD: torch.Tensor | None = None
        self.wrapped = False
        with torch.no_grad(), model.compute():
            self.keep()
            if self.resume >= 0:
                self.below_BTD, self.wrapped = self.computed_below()
                if self.below_BTD is None:
                    self.resume = -1

    @abstractmethod
    def keep(self) -> None:
        """Compute the keys and values of the tokens before the cuts."""

    @abstractmethod
    def first(self, which_R: torch.Tensor) -> torch.Tensor:
        """Return the index of each row's first token among the B x T tokens of ``which_R``.

        The row's other tokens follow it.
        """

    @abstractmethod
    def below(self, which_R: torch.Tensor) -> torch.Tensor | None:
        """Return the output of the layer ``resume`` for some rows; None where all layers run."""

    @abstractmethod
    def forward(self, which_R: torch.Tensor, read_K: torch.Tensor | None = None) -> torch.Tensor:
        """Return last hidden states (B, T, D); with ``read_K``, other tokens' may be wrong."""

    def computed_below(self) -> tuple[torch.Tensor | None, bool]:
        """Return the output of the layer ``resume``, and whether that layer returns a tuple.

        The output is None for layers like Gemma 3n's, which pass on several streams: all must run.
        """
        seen: list[Output] = []

        def capture(_module: nn.Module, _args: object, output: Output) -> None:
            seen.append(output)
            raise Captured

        hook = self.model.layout.layer(self.model.model, self.resume).register_forward_hook(capture)
        try:
            self.forward(self.everyone)
        except Captured:
            pass
        finally:
            hook.remove()
        below = hidden_of(seen[0])
        return below if below.dim() == 3 else None, isinstance(seen[0], tuple)

    def run(
        self,
        which_R: torch.Tensor,
        layer: int,
        sites: Sequence[str],
        delta_RSD: torch.Tensor,
        read_K: torch.Tensor,
    ) -> torch.Tensor:
        """Return last hidden states (K, D) of some rows at the tokens ``read_K``.

        Tokens count as ``first`` does. Each row's delta is added at its first token, at each of
        the sites of ``layer``.
        """
        first_R, below_BTD = self.first(which_R), self.below(which_R)
        with ExitStack() as stack:
            for s, site in enumerate(sites):
                # That layer does not run again: its stored output takes the delta.
                if site == "residual" and below_BTD is not None:
                    below_BTD = plus(below_BTD, first_R, delta_RSD[:, s])
                else:
                    module = site_module(self.model, layer, site)
                    stack.enter_context(added(module, first_R, delta_RSD[:, s]))
            if below_BTD is not None:
                stack.enter_context(resumed_above(self.model, self.resume, below_BTD, self.wrapped))
            # A last MLP that skips tokens would misplace a delta inside it.
            inside_last = layer == self.model.layout.depth - 1 and "mlp" in sites
            states_BTD = self.forward(which_R, None if inside_last else read_K)
            return states_BTD.flatten(0, 1)[read_K]


class PaddedRows(Rows):
    """Rows that are padded to the longest, for any model."""

    def keep(self) -> None:
        # Padded on the right: causal attention hides the padding from all tokens that are read, so
        # the mask below may count it.
        self.ids_RS = pad_right(self.after, self.model.device)
        self.kept, mask_RP = keys_before(self.model, self.before)
        self.mask_RT = torch.cat([mask_RP, torch.ones_like(self.ids_RS)], dim=1)

    def first(self, which_R: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(which_R), device=which_R.device) * self.ids_RS.shape[1]

    def below(self, which_R: torch.Tensor) -> torch.Tensor | None:
        below_BTD = self.below_BTD
        return None if below_BTD is None else below_BTD[which_R.to(below_BTD.device)]

    def forward(self, which_R: torch.Tensor, read_K: torch.Tensor | None = None) -> torch.Tensor:
        everyone = torch.equal(which_R, self.everyone)
        # a model over several GPUs keeps them on all of them
        kept = (
            self.kept
            if everyone
            else [(k[which_R.to(k.device)], v[which_R.to(v.device)]) for k, v in self.kept]
        )
        # Without the config the cache keeps every key, and a sliding window is up to the mask.
        # A cache of its own for each pass, since a pass appends to it.
        return self.model.hidden(self.ids_RS[which_R], self.mask_RT[which_R], DynamicCache(kept))


class WholeRows(Rows):
    """Whole texts, for any causal model: nothing is kept between passes, and all layers run."""

    def __init__(
        self, model: LanguageModel, rows: Sequence[list[int]], cuts: Sequence[int], resume: int
    ):
        super().__init__(model, rows, cuts, -1)

    def keep(self) -> None:
        # Padded on the right, where a state-space model cannot see it either.
        rows = [before + after for before, after in zip(self.before, self.after, strict=True)]
        self.ids_RT = pad_right(rows, self.model.device)
        self.cut_R = torch.tensor([len(row) for row in self.before], device=self.model.device)

    def first(self, which_R: torch.Tensor) -> torch.Tensor:
        starts_R = torch.arange(len(which_R), device=which_R.device) * self.ids_RT.shape[1]
        return starts_R + self.cut_R[which_R]

    def below(self, which_R: torch.Tensor) -> torch.Tensor | None:
        return None

    def forward(self, which_R: torch.Tensor, read_K: torch.Tensor | None = None) -> torch.Tensor:
        ids_RT = self.ids_RT[which_R]
        return self.model.hidden(ids_RT, torch.ones_like(ids_RT))


def keys_before(
    model: LanguageModel, before: Sequence[list[int]]
) -> tuple[list[KeysValues], torch.Tensor]:
    """Return keys and values (R, G, P, d) of texts by layer, and the mask (R, P).

    The texts are padded on the left.
    """
    ids_RP, mask_RP = pad_left(before, model.device)
    cache = DynamicCache()
    model.hidden(ids_RP, mask_RP, cache)
    return cached_states(cache), mask_RP
