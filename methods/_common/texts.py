"""Training texts, and the hidden states that predict their last tokens.

# B rows, T tokens, D model width, N label positions of a batch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from editbench.models import LanguageModel
from editbench.text import pad_left


@dataclass(frozen=True)
class Example:
    """One training text. Only the target's tokens carry loss."""

    prompt_ids: Sequence[int]
    target_ids: Sequence[int]
    counted: Sequence[int] | None = None
    """Places of the target tokens that carry loss; None: all."""


def label_states(
    model: LanguageModel, rows: Sequence[Sequence[int]], lengths: Sequence[int]
) -> torch.Tensor:
    """Return the states (N, D) that predict the last ``lengths[i]`` tokens of each row in turn."""
    ids_BT, mask_BT = pad_left(rows, model.device)
    # The last token of a row predicts nothing that is read. Padding is on the left, so all rows end
    # together.
    hidden_BTD = model.hidden(ids_BT[:, :-1], mask_BT[:, :-1])
    width = hidden_BTD.shape[1]
    return torch.cat([hidden_BTD[i, width - length :] for i, length in enumerate(lengths)])
