"""Joint refinement: the values of written keys, trained together through the edited model.

A locate-then-edit method finds each fact's value alone and writes all by least squares, so what was reached for one fact is
lost again to the others, and what all of them together do to other text is nobody's loss. Here the values R_l of the update
Delta_l = R_l A_l^T of every layer l are trained together,

    min over R_1 ... R_m of   mean_i [nll_i - s]_+ + [end_i - s]_+   +   KL_WEIGHT KL(p_0 || p_Delta)[text],   s = STOP_NLL

with Adam, from what the method wrote, while the directions A_l, its own answer to what keys of ordinary text look like, stay.
So the rank stays the number of facts, and alphaedit's update in its null space. nll_i is of the target behind the bare
prompt or one of the prefixes, end_i = -log P(the target's last word ends there): "Paris", not "Parisian". The KL is over the
whole vocabulary, at every token of text of the kind C was measured on.

Ours, not of a paper; what it gains: ``benchmarks/weight_editors.md``.

    # N facts, f MLP inner width, d residual width, V vocabulary
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F

from editbench import progress
from editbench.errors import MethodError
from editbench.matching import contains
from editbench.methods._common.texts import Example, label_states
from editbench.methods._edit.value import contexts
from editbench.models import LanguageModel
from editbench.types import Fact

KL_WEIGHT = 6.0
STOP_NLL = 0.05
"""As the solver's: a target that is said so surely is not pushed on."""
RATE = 0.05
"""Adam's, of the root mean square of R_l."""
PROMPTS, TEXTS = 32, 8
"""In one step, at most."""
MIN_STEPS = 60
TEXT_TOKENS = 12_000


@dataclass
class Written:
    """Update of one layer, Delta = R A^T: R (d, N) is trained, A (f, N) stays."""

    r_dN: torch.Tensor
    a_fN: torch.Tensor


def refine(
    model: LanguageModel,
    facts: Sequence[Fact],
    prefixes: Sequence[str],
    written: Mapping[int, Written],
    texts: Sequence[tuple[list[int], list[int]]],
    passes: int,
    seed: int,
) -> tuple[dict[int, torch.Tensor], dict[str, float]]:
    """The trained values (d, N), float64, of each layer, and losses of the first and last steps. ``passes``: how often each
    fact is seen bare, and as often behind a prefix. ``texts``: of each the ids of its opening and of what is held. The
    weights of ``model`` are those before the edit, and are left so.

    Raises:
        MethodError: a loss that is not finite.
    """
    together = min(PROMPTS, 2 * len(facts))
    steps = max(MIN_STEPS, ceil(2 * passes * len(facts) / together))
    values = {
        layer: w.r_dN.float().to(model.device).requires_grad_(True) for layer, w in written.items()
    }
    side = _Side(
        model, values, {layer: w.a_fN.float().to(model.device) for layer, w in written.items()}
    )
    optimizer = torch.optim.Adam(
        [
            {"params": [r], "lr": RATE * max(r.detach().square().mean().sqrt().item(), 1e-8)}
            for r in values.values()
        ],
        betas=(0.9, 0.99),
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    prompts, held, goes_on_V = (
        _prompts(model, facts, prefixes, seed),
        _in_turns(texts, seed),
        _goes_on(model),
    )
    model.check_head()  # by a forward pass that must not meet the hooks
    nlls, kls = [], []
    with progress.task("refining what was written", steps, "steps") as bar:
        for step in range(steps):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min(
                    (step + 1) / 5, 1.0, 0.1 + 2.25 * (1 - step / steps)
                )  # falls from 3/5 on
            with torch.enable_grad(), model.compute(weights_fixed=True):
                with side:
                    nll_B, end_B = _nll(model, [next(prompts) for _ in range(together)], goes_on_V)
                kl = _kl(model, side, [next(held) for _ in range(min(TEXTS, len(texts)))])
                missing_B = (nll_B - STOP_NLL).clamp(min=0) + (end_B - STOP_NLL).clamp(min=0)
                loss = missing_B.mean() + KL_WEIGHT * kl
            if not loss.isfinite():
                raise MethodError(
                    f"The joint refinement's loss became {loss.item()} at step {step + 1}. Leave refine out."
                )
            for r, gradient in zip(
                values.values(), torch.autograd.grad(loss, list(values.values())), strict=True
            ):
                r.grad = gradient
            optimizer.step()
            nlls.append(nll_B.mean().item())
            kls.append(kl.item())
            bar.advance()
    few = max(1, steps // 6)
    report = {"first_nll": sum(nlls[:few]) / few, "last_nll": sum(nlls[-few:]) / few}
    report |= {"first_kl": sum(kls[:few]) / few, "last_kl": sum(kls[-few:]) / few}
    return {layer: r.detach().double().cpu() for layer, r in values.items()}, report


@dataclass
class _Side:
    """Inside a ``with``, the model with R A^T beside each written weight."""

    model: LanguageModel
    values: Mapping[int, torch.Tensor]
    directions: Mapping[int, torch.Tensor]
    _hooks: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> None:
        for layer, r_dN in self.values.items():
            module = self.model.layout.out_projection(self.model.model, layer)
            self._hooks.callback(
                module.register_forward_hook(self._beside(r_dN, self.directions[layer])).remove
            )

    def __exit__(self, *_: Any) -> None:
        self._hooks.close()

    @staticmethod
    def _beside(r_dN: torch.Tensor, a_fN: torch.Tensor) -> Any:
        def hook(_module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            return output + (args[0].to(a_fN.dtype) @ a_fN @ r_dN.T).to(output.dtype)

        return hook


def _prompts(
    model: LanguageModel, facts: Sequence[Fact], prefixes: Sequence[str], seed: int
) -> Iterator[Example]:
    """Without end, each fact once bare and once behind a drawn prefix, in a new order each time."""
    rng = random.Random(seed)
    while True:
        order = [(fact, bare) for fact in facts for bare in (True, False)]
        rng.shuffle(order)
        for fact, bare in order:
            first, *others = contexts(model, fact, prefixes)
            before = first if bare or not others else rng.choice(others)
            yield Example(*model.pair_ids(fact.prompt, fact.target, fact.form, prefix=before))


def _in_turns(
    texts: Sequence[tuple[list[int], list[int]]], seed: int
) -> Iterator[tuple[list[int], list[int]]]:
    rng, order = random.Random(seed), list(texts)
    while True:
        rng.shuffle(order)
        yield from order


def _nll(
    model: LanguageModel, examples: Sequence[Example], goes_on_V: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each target, (B,): mean nll a token, and -log P(no token of ``goes_on_V`` comes after it)."""
    rows = [
        [*e.prompt_ids, *e.target_ids, e.target_ids[-1]] for e in examples
    ]  # the last one stands for what comes next
    lengths = [len(e.target_ids) + 1 for e in examples]
    logp_NV = model.logits(label_states(model, rows, lengths)).log_softmax(-1)
    nlls, ends = [], []
    for example, logp_TV in zip(examples, logp_NV.split(lengths), strict=True):
        ids_T1 = torch.tensor(example.target_ids, device=model.device)[:, None]
        nlls.append(-logp_TV[:-1].gather(-1, ids_T1).mean())
        ends.append(-logp_TV[-1, ~goes_on_V].logsumexp(-1))
    return torch.stack(nlls), torch.stack(ends)


def _goes_on(model: LanguageModel) -> torch.Tensor:
    """(V,) True: behind a word, this token makes another word of it, by the rules of the matcher."""
    tokenizer = model.tokenizer
    (*_, first) = tokenizer("x", add_special_tokens=False)["input_ids"]
    size = model.model.get_output_embeddings().weight.shape[0]
    texts = tokenizer.batch_decode(
        [[first, token] for token in range(min(size, len(tokenizer)))], skip_special_tokens=True
    )
    start = tokenizer.decode([first])
    found = [not contains(text, [start]) for text in texts]
    return torch.tensor(found + [False] * (size - len(found)), device=model.device)


def _kl(
    model: LanguageModel, side: _Side, texts: Sequence[tuple[list[int], list[int]]]
) -> torch.Tensor:
    """KL(p_0 || p_Delta) a token, over the whole vocabulary."""
    rows, lengths = [opening + held for opening, held in texts], [len(held) for _, held in texts]
    with torch.no_grad():
        base_NV = model.logits(label_states(model, rows, lengths)).log_softmax(-1)
    with side:
        edited_NV = model.logits(label_states(model, rows, lengths)).log_softmax(-1)
    return F.kl_div(edited_NV, base_NV, reduction="none", log_target=True).sum(-1).mean()
