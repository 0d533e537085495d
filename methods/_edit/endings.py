"""Where a word ends: which tokens, put behind a word, make another word of it.

# V vocabulary
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from editbench.matching import mentions
from editbench.models import LanguageModel


def goes_on(model: LanguageModel) -> torch.Tensor:
    """Return (V,), True where the token, put behind a word, makes another word of it.

    The rules of the matcher say what a word is.
    """
    tokenizer = model.tokenizer
    # Each token is tried behind the word "x", whose last id this is. Where the matcher no longer
    # finds the word, the token has made another one of it. An EOS is skipped and so ends the word.
    (*_, first) = cast("list[int]", tokenizer("x", add_special_tokens=False)["input_ids"])
    head = cast("nn.Linear", model.model.get_output_embeddings())
    size = head.weight.shape[0]
    texts = tokenizer.batch_decode(
        [[first, token] for token in range(min(size, len(tokenizer)))], skip_special_tokens=True
    )
    start = cast("str", tokenizer.decode([first]))
    goes_on = [not mentions(text, [start]) for text in texts]
    # a head may have more rows than the tokenizer has tokens
    return torch.tensor(goes_on + [False] * (size - len(goes_on)), device=model.device)
