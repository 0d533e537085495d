"""Joint refinement: the values of written keys, trained together through the edited model.

A locate-then-edit method finds each fact's value by itself and writes all values by least squares.
What was reached for one fact is then partly lost to the others, and no loss term covers what all of
them together do to other text. Here the values R_l of the update Delta_l = R_l A_l^T of every layer
l are trained together,

    min over R_1 ... R_m of   mean_i [nll_i - s]_+ + [end_i - s]_+
                              +  KL_WEIGHT KL(p_0 || p_Delta)[text]

with s = STOP_NLL, by Adam, starting from what the method wrote. The directions A_l stay fixed: they
are the method's own answer to what keys of ordinary text look like. So the rank remains the number
of facts, and alphaedit's update remains in its null space. nll_i is that of the target after the
bare prompt or one of the prefixes. end_i = -log P(the target's last word ends there): "Paris", not
"Parisian". The KL is over the whole vocabulary, at every token of text of the kind that C was
measured on. While earlier edits are applied, p_0 is the model with them, and where C's text is the
model's own, p_0 writes this text: what the KL keeps is the edited model, with the facts in it.

This is ours, not from a paper. ``benchmarks/weight_editors.md`` shows what it gains.

    # N facts, f MLP inner width, d residual width, V vocabulary, B prompts of a step
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil

import torch
import torch.nn.functional as F
from torch import nn

from editbench import progress
from editbench.errors import MethodError
from editbench.methods._common.texts import Example, label_states
from editbench.methods._edit.endings import goes_on
from editbench.methods._edit.prepare import PreparedFact
from editbench.models import LanguageModel
from editbench.placing import devices_of

KL_WEIGHT = 6.0
STOP_NLL = 0.05
"""As in the solver: a target as probable as this is not pushed further."""
RATE = 0.05
"""Adam's rate, as a share of the root mean square of R_l."""
PROMPTS, TEXTS = 32, 8
"""Most prompts, and most texts, of one step."""
MIN_STEPS = 60
TEXT_TOKENS = 12_000
"""Tokens of text on which the KL is computed."""

OwnText = tuple[list[int], list[int]]
"""Ids of a text's opening, and ids of the rest, where the KL is computed."""


@dataclass
class Written:
    """Update of one layer, Delta = R A^T: R (d, N) is trained, A (f, N) stays."""

    r_dN: torch.Tensor
    a_fN: torch.Tensor


def refine(
    model: LanguageModel,
    prepared: Sequence[PreparedFact],
    written: Mapping[int, Written],
    texts: Sequence[OwnText],
    passes: int,
    seed: int,
) -> tuple[dict[int, torch.Tensor], dict[str, float]]:
    """Return the trained values (d, N), float64, of each layer, and losses for the report.

    Args:
        passes: How often each fact is seen bare, and as often behind a prefix.
        texts: Where the KL is computed.

    The weights of ``model`` must be those before the edit, and stay unchanged.

    Raises:
        MethodError: A loss is not finite.
    """
    # A pass shows each fact twice: bare, and behind a prefix.
    together = min(PROMPTS, 2 * len(prepared))
    steps = max(MIN_STEPS, ceil(2 * passes * len(prepared) / together))
    # Float32 where the layer computes; the written values were float64 on the CPU.
    places = {
        layer: devices_of(model.layout.out_projection(model.model, layer))[0] for layer in written
    }
    values = {
        layer: w.r_dN.float().to(places[layer]).requires_grad_(True) for layer, w in written.items()
    }
    directions = {layer: w.a_fN.float().to(places[layer]) for layer, w in written.items()}
    side = Side(model, values, directions)
    optimizer, rates = _adam(values)
    prompts, held = _prompts(prepared, seed), _in_turns(texts, seed)
    goes_on_V = goes_on(model)
    model.check_head()  # it runs a forward pass, which must not meet the hooks
    nlls: list[float] = []
    kls: list[float] = []
    with progress.task("refining what was written", steps, "steps") as bar:
        for step in range(steps):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * _schedule(step, steps)
            with torch.enable_grad(), model.compute(weights_fixed=True):
                with side:
                    nll_B, end_B = _nll(model, [next(prompts) for _ in range(together)], goes_on_V)
                kl = _kl(model, side, [next(held) for _ in range(min(TEXTS, len(texts)))])
                missing_B = (nll_B - STOP_NLL).clamp(min=0) + (end_B - STOP_NLL).clamp(min=0)
                loss = missing_B.mean() + KL_WEIGHT * kl
            if not loss.isfinite():
                raise MethodError(
                    f"The joint refinement's loss became {loss.item()} at step {step + 1}. "
                    "Leave refine out."
                )
            # Not ``backward``: in bfloat16 the weights require gradients too, and would collect
            # them.
            gradients = torch.autograd.grad(loss, list(values.values()))
            for r, gradient in zip(values.values(), gradients, strict=True):
                r.grad = gradient
            optimizer.step()
            nlls.append(nll_B.mean().item())
            kls.append(kl.item())
            bar.advance()
    # Single steps see different prompts, so the report has means over a sixth of the steps.
    few = max(1, steps // 6)
    report = {"first_nll": sum(nlls[:few]) / few, "last_nll": sum(nlls[-few:]) / few}
    report |= {"first_kl": sum(kls[:few]) / few, "last_kl": sum(kls[-few:]) / few}
    return {layer: r.detach().cpu().double() for layer, r in values.items()}, report


def _adam(values: Mapping[int, torch.Tensor]) -> tuple[torch.optim.Adam, list[float]]:
    """Return an optimizer of the values, and the largest rate of each layer."""
    # Without the least rate, values that are all zero would never move.
    rates = [RATE * max(r.detach().square().mean().sqrt().item(), 1e-8) for r in values.values()]
    groups = [{"params": [r], "lr": rate} for r, rate in zip(values.values(), rates, strict=True)]
    return torch.optim.Adam(groups, betas=(0.9, 0.99)), rates


def _schedule(step: int, steps: int) -> float:
    """Return the share of the rate: it rises over 5 steps and falls over the last 2/5 of all."""
    return min((step + 1) / 5, 1.0, 0.1 + 2.25 * (1 - step / steps))


@dataclass
class Side:
    """Context in which the model computes with W + R A^T at each written layer.

    The update is a hook, so gradients reach R, and outside the model is the unedited one.
    """

    model: LanguageModel
    values: Mapping[int, torch.Tensor]
    directions: Mapping[int, torch.Tensor]
    _hooks: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> None:
        for layer, r_dN in self.values.items():
            module = self.model.layout.out_projection(self.model.model, layer)
            hook = module.register_forward_hook(_beside(r_dN, self.directions[layer]))
            self._hooks.callback(hook.remove)

    def __exit__(self, *_: object) -> None:
        self._hooks.close()


def _beside(
    r_dN: torch.Tensor, a_fN: torch.Tensor
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
    """Return a hook that adds R A^T x to a projection's output."""

    def hook(
        _module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        # x A first: it has N columns, and R A^T (d, f) is never formed.
        return output + (args[0].to(a_fN.dtype) @ a_fN @ r_dN.T).to(output.dtype)

    return hook


def _prompts(prepared: Sequence[PreparedFact], seed: int) -> Iterator[Example]:
    """Yield, without end, each fact bare and behind a random prefix, in a new order each time."""
    rng = random.Random(seed)
    while True:
        order = [(each, bare) for each in prepared for bare in (True, False)]
        rng.shuffle(order)
        for each, bare in order:
            first, *others = each.prompts
            prompt = first if bare or not others else rng.choice(others)
            yield Example(prompt.ids, prompt.target_ids)


def _in_turns(texts: Sequence[OwnText], seed: int) -> Iterator[OwnText]:
    """Yield the texts without end, in a new order each time."""
    rng, order = random.Random(seed), list(texts)
    while True:
        rng.shuffle(order)
        yield from order


def _nll(
    model: LanguageModel, examples: Sequence[Example], goes_on_V: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, for each target, its nll per token and -log P(no token of ``goes_on_V`` follows it).

    Both are (B,).
    """
    read = list(target_and_end(model, examples, goes_on_V))
    return (
        torch.stack([-target_T.mean() for target_T, _ in read]),
        torch.stack([-end for _, end in read]),
    )


def target_and_end(
    model: LanguageModel, examples: Sequence[Example], goes_on_V: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the log-probabilities (T,) of each target's tokens, and that of its end.

    A target ends where no token of ``goes_on_V`` follows it.
    """
    # the last token of each row is a placeholder for what comes next
    rows = [[*e.prompt_ids, *e.target_ids, e.target_ids[-1]] for e in examples]
    lengths = [len(e.target_ids) + 1 for e in examples]
    logp_NV = model.logits(label_states(model, rows, lengths)).log_softmax(-1)
    for example, logp_TV in zip(examples, torch.split(logp_NV, lengths), strict=True):
        ids_T1 = torch.tensor(example.target_ids, device=model.device)[:, None]
        yield logp_TV[:-1].gather(-1, ids_T1)[:, 0], logp_TV[-1, ~goes_on_V].logsumexp(-1)


def _kl(model: LanguageModel, side: Side, texts: Sequence[OwnText]) -> torch.Tensor:
    """Return KL(p_0 || p_Delta) per token, over the whole vocabulary."""
    rows, lengths = [opening + held for opening, held in texts], [len(held) for _, held in texts]
    # Outside ``side`` the model is the unedited one; no copy of it is needed.
    with torch.no_grad():
        base_NV = model.logits(label_states(model, rows, lengths)).log_softmax(-1)
    with side:
        edited_NV = model.logits(label_states(model, rows, lengths)).log_softmax(-1)
    return F.kl_div(edited_NV, base_NV, reduction="none", log_target=True).sum(-1).mean()
