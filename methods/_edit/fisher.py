"""The Fisher information of a hidden state: how much the model's own text depends on it.

    G = E[g_t g_t^T],   g_t = d log p(y) / d h_t     (D, D)

for texts y that the model wrote itself and the output h_t of one site at each of their tokens but
the first. To second order, 1/2 delta^T G delta is the KL in nats between what the model writes with
h_t and with h_t + delta. A weight editor's delta leaks a little into other text, wherever the keys
are alike. Of two deltas that make the model say the target, the better one costs less there, and
the norms do not tell which one that is (``benchmarks/weight_editors.md``).

    # B texts, T tokens, N tokens of all texts, D model width
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from editbench import progress
from editbench.errors import MethodError
from editbench.layout import Output, hidden_of, replace_hidden
from editbench.methods._common.hooks import site_module
from editbench.methods.statistics import (
    FORMAT,
    SAMPLE_LENGTH,
    Moment,
    Origin,
    cached,
    gram,
    keep,
)
from editbench.models import LanguageModel, batched
from editbench.own_text import own_texts

TOKENS = 4096
"""Tokens of the model's own text on which G is measured."""
Block = list[tuple[list[int], list[int]]]
"""Texts, each as the ids of its opening and of what was written."""
TOGETHER = 16
"""Texts of one pass."""


def fisher_texts(model: LanguageModel, seed: int) -> Iterable[Block]:
    """Return the blocks of the model's own text on which G is measured."""
    return own_texts(model, TOKENS, seed, SAMPLE_LENGTH)


def state_fisher(
    model: LanguageModel,
    layer: int,
    site: str,
    seed: int,
    texts: Callable[[], Iterable[Block]] | None = None,
) -> torch.Tensor:
    """Return G (D, D) of a site of ``layer``, float32, on the CPU, from the cache or measured.

    ``site`` is ``residual``, ``mlp`` or ``attention``. While edits are applied, G is that of the
    model before them if that is cached, as for C. ``texts`` returns ``fisher_texts`` that are
    written already, for a caller that asks for several layers.

    Raises:
        MethodError: The gradients are not finite.
    """
    source = f"gradients at {site}"
    # The unedited model first: a sequence of edits then shares one G.
    hashes = [edit.model_hash for edit in model.applied[:1]]
    origin: Origin = {}
    for model_hash in [*hashes, model.fingerprint()]:
        origin = {
            "format": FORMAT,
            "model": model_hash,
            "precision": model.precision,
            "source": source,
            "tokens": TOKENS,
            "seed": seed,
            "length": SAMPLE_LENGTH,
            "layer": layer,
        }
        if (moment := cached(origin, model.layout.width)) is not None:
            return moment.c_ff.float()
    blocks = texts() if texts else fisher_texts(model, seed)
    return keep(_measure(model, layer, site, blocks), origin, model, source).c_ff.float()


def _measure(model: LanguageModel, layer: int, site: str, blocks: Iterable[Block]) -> Moment:
    d = model.layout.width
    total_DD, tokens = torch.zeros(d, d, dtype=torch.float64), 0
    with progress.task(
        f"Fisher information of layer {layer}, cached for next time", TOKENS, "tokens"
    ) as bar:
        for block in blocks:
            for texts in batched(block, TOGETHER):
                g_ND = _gradients(model, site_module(model, layer, site), texts)
                total_DD += gram(g_ND).cpu()
                tokens += len(g_ND)
                bar.advance(sum(len(written) for _, written in texts))
    if not total_DD.isfinite().all():
        dtype = next(model.model.parameters()).dtype
        raise MethodError(
            f"The gradients of {model.name} at layer {layer} are not finite in {dtype}. "
            "Load the model in float32 or bfloat16."
        )
    return Moment(total_DD / tokens, tokens)


def _gradients(
    model: LanguageModel, site: nn.Module, texts: Sequence[tuple[list[int], list[int]]]
) -> torch.Tensor:
    """Return g (N, D) at every token but the first of texts (opening, written).

    The gradient is that of the log-probability of what was written.
    """
    model.check_head()  # it runs a forward pass, which must not meet the hook
    ids_BT, mask_BT, token_BT = model.in_one_pass([opening + own for opening, own in texts])
    opening_B = torch.tensor([len(opening) for opening, _ in texts], device=model.device)
    written_BT = (token_BT.cumsum(-1) > opening_B[:, None]) & token_BT.bool()
    states: list[torch.Tensor] = []

    def leaf(_module: nn.Module, _args: object, output: Output) -> Output:
        # a leaf of the graph: the backward pass ends here
        states.append(hidden_of(output).detach().requires_grad_(True))
        replaced: Output = replace_hidden(output, states[0])
        return replaced

    hook = site.register_forward_hook(leaf)
    try:
        with torch.enable_grad(), model.compute(weights_fixed=True):
            hidden_BTD = model.hidden(ids_BT, mask_BT)
            # The state at t predicts token t + 1, hence the shift by one.
            logits_NV = model.logits(hidden_BTD[:, :-1][written_BT[:, 1:]])
            # A sum over texts: no text reads another, so one backward pass gives each its own
            # gradient.
            log_p = -F.cross_entropy(
                logits_NV.float(), ids_BT[:, 1:][written_BT[:, 1:]], reduction="sum"
            )
        (g,) = torch.autograd.grad(log_p, states[0])
    finally:
        hook.remove()
    # No padding, and no first token: it is an attention sink (``statistics.py``).
    counted_BT = (token_BT.cumsum(-1) > 1) & token_BT.bool()
    return g.reshape(*ids_BT.shape, -1)[counted_BT.to(g.device)].float()
