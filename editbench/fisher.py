"""The diagonal of the Fisher information: which weights the model's own text depends on.

    F_j = E_y~p [ (d log p(y) / d theta_j)^2 ] for each token of y

The score of a text is the sum of its tokens' scores. Their cross terms vanish in expectation if the
model itself wrote the text. So the squared gradient of whole texts, divided by their number of
tokens, estimates F without a pass for each token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from editbench import progress
from editbench.models import LanguageModel


def diagonal_fisher(
    model: LanguageModel, texts: Sequence[tuple[list[int], list[int]]]
) -> dict[str, torch.Tensor]:
    """Return F by parameter name, float32, on the parameter's device.

    ``texts`` were written by ``model``; each is the ids of its opening and of what was written.
    The gradient flags are restored.
    """
    parameters = dict(model.model.named_parameters())
    wanted_grad = {name: p.requires_grad for name, p in parameters.items()}
    fisher = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    tokens = sum(len(written) for _, written in texts)
    try:
        for p in parameters.values():
            p.requires_grad_(True)
        with progress.task("Fisher information", len(texts), "texts") as bar, torch.enable_grad():
            for opening, written in texts:
                # One text a pass: the square of a sum over texts would mix them.
                ids_1T = torch.tensor([opening + written], device=model.device)
                # Without ``weights_fixed``, since the weights get gradients here.
                with model.compute():
                    hidden_1TD = model.hidden(ids_1T[:, :-1], torch.ones_like(ids_1T[:, :-1]))
                    # The input lacks the last token, so these states predict what was written.
                    logits_TV = model.logits(hidden_1TD[0, -len(written) :])
                score = -F.cross_entropy(logits_TV, ids_1T[0, -len(written) :], reduction="sum")
                gradients = torch.autograd.grad(score, list(parameters.values()), allow_unused=True)
                for total, gradient in zip(fisher.values(), gradients, strict=True):
                    if gradient is not None:
                        total.addcmul_(gradient.float(), gradient.float(), value=1 / tokens)
                bar.advance()
    finally:
        for name, p in parameters.items():
            p.requires_grad_(wanted_grad[name])
    return fisher
