"""Causal tracing: where in the model does the answer to a prompt come from?

The prompt is run three times: clean; with noise on the subject's embeddings, so that the answer's probability falls from
``high`` to ``low``; and with the noise, but with one hidden state put back to its clean value. What the probability then is
shows how much that state carries. Meng et al. 2022, arXiv 2202.05262, section 2; reference code kmeng01/rome,
``experiments/causal_trace.py``.

Three kinds of states: ``residual`` (the output of one layer), ``mlp`` and ``attention`` (their outputs in a window of layers).

    # L layers, T tokens, S noise samples, D width
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from editbench import progress, text
from editbench.layout import hidden_of, replace_hidden
from editbench.methods._common.hooks import resumed_above, site_module
from editbench.models import LanguageModel
from editbench.text import find_subject
from editbench.types import Fact

KINDS = ("residual", "mlp", "attention")
NOISE = 3.0
"""Standard deviations of the prompt's embeddings."""
SAMPLES = 10
LEAST_EFFECT = 0.02
"""A prompt whose answer loses less than this by the noise says nothing about layers."""


@dataclass(frozen=True)
class Trace:
    """Probabilities of ``answer`` after one prompt, with each state restored in turn."""

    prompt: str
    answer: str
    tokens: list[str]
    subject: tuple[int, int]
    """First and last token of the subject."""
    high: float
    low: float
    scores: dict[str, torch.Tensor]
    """Kind to (T, L): the probability with that state restored, mean over the noise samples."""

    def effect(self, kind: str) -> torch.Tensor:
        """Indirect effect (T, L): what restoring wins over the noised run."""
        return self.scores[kind] - self.low

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "prompt": self.prompt,
            "answer": self.answer,
            "tokens": self.tokens,
            "subject": list(self.subject),
            "high": self.high,
            "low": self.low,
            "scores": {kind: table.tolist() for kind, table in self.scores.items()},
        }


@torch.no_grad()
def trace(
    model: LanguageModel,
    fact: Fact,
    kinds: Sequence[str] = KINDS,
    window: int | None = None,
    seed: int = 0,
    subject_only: bool = False,
) -> Trace:
    """Traces the model's own next token after the fact's prompt.

    Args:
        subject_only: restore states at the subject's last token only; the other rows of the tables are then NaN.
        window: layers that are restored together for ``mlp`` and ``attention``; None: a fifth of the depth (the paper's 10
            of 48).
        seed: of the noise.
    """
    model.check_head()  # by a forward pass that must not meet the hooks of the later ones
    window = window or max(1, round(model.layout.depth / 5))
    rendered = model.render(fact.prompt, fact.form)
    ids = text.ids(model.tokenizer, rendered)
    subject = find_subject(fact)
    first = text.token_at(model.tokenizer, rendered, rendered.start + subject.start)
    last = model.subject_last(fact)
    depth, length = model.layout.depth, len(ids)
    ids_ST = torch.tensor([ids] * (1 + SAMPLES), device=model.device)
    embeddings = model.model.get_input_embeddings()
    scale = NOISE * embeddings(ids_ST[0]).float().std().item()
    generator = torch.Generator().manual_seed(seed)
    noise_STD = torch.zeros(1 + SAMPLES, length, model.layout.width)
    noise_STD[1:, first : last + 1] = scale * torch.randn(
        SAMPLES, last + 1 - first, model.layout.width, generator=generator
    )

    def corrupt(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        return output + noise_STD.to(output)

    # one pass: row 0 is clean, the others are noised
    hook = embeddings.register_forward_hook(corrupt)
    try:
        with _recorded(model, kinds) as states, model.compute(weights_fixed=True):
            final_SD = model.hidden(ids_ST, torch.ones_like(ids_ST))[:, -1]
            p_SV = model.logits(final_SD).softmax(-1)
    finally:
        hook.remove()
    answer = int(p_SV[0].argmax())
    high, low = p_SV[0, answer].item(), p_SV[1:, answer].mean().item()
    scores = {}
    with (
        progress.task(f"tracing {fact.prompt!r}", len(kinds) * depth, "layers") as bar,
        model.compute(weights_fixed=True),
    ):
        for kind in kinds:
            table = torch.full((length, depth), float("nan"))
            for layer in range(depth):
                half = 0 if kind == "residual" else window
                lowest = max(0, layer - half // 2)
                layers = range(lowest, min(depth, layer - half // 2 + max(half, 1)))
                places = [last] if subject_only else list(range(length))
                table[places, layer] = _restored(model, states, kind, layers, ids, places, answer)
                bar.advance()
            scores[kind] = table
    tokens = [model.tokenizer.decode([i]) for i in ids]
    return Trace(fact.prompt, model.decode([answer]), tokens, (first, last), high, low, scores)


def _restored(
    model: LanguageModel,
    states: dict[tuple[str, int], Any],
    kind: str,
    layers: range,
    ids: list[int],
    places: list[int],
    answer: int,
) -> torch.Tensor:
    """p(answer), when the states of ``kind`` at ``layers`` are clean at one of ``places`` each: places x S rows, one pass.

    The pass starts at the first of ``layers``: below, the noised states are those of the first pass.
    """
    length, device = len(ids), model.device
    rows = torch.tensor(places, device=device).repeat_interleave(
        SAMPLES
    )  # the token that each row restores
    start = layers[0] - (kind != "residual")
    ids_RT = torch.tensor([ids], device=device).expand(len(rows), -1)
    every = torch.arange(len(rows), device=device)

    def put_back(clean_TD: torch.Tensor, states_RTD: torch.Tensor) -> torch.Tensor:
        patched = states_RTD.reshape(len(rows), length, -1).clone()
        patched[every, rows] = clean_TD[rows].to(patched.dtype)
        return patched.reshape(states_RTD.shape)

    def patch(layer: int) -> Any:
        clean_TD = hidden_of(states[kind, layer]).reshape(1 + SAMPLES, length, -1)[
            0
        ]  # OPT flattens before its MLP
        return lambda _m, _a, output: replace_hidden(output, put_back(clean_TD, hidden_of(output)))

    hooks = []
    try:
        if kind != "residual":
            hooks = [
                site_module(model, layer, kind).register_forward_hook(patch(layer))
                for layer in layers
            ]
        if start < 0:
            below = states["embedding", 0][1:].repeat(len(places), 1, 1)
            final = _from_embeddings(model, ids_RT, below)
        else:
            output = states["residual", start]
            below = hidden_of(output)[1:].repeat(len(places), 1, 1)
            if kind == "residual":
                below = put_back(hidden_of(output)[0], below)
            with resumed_above(model, start, below, isinstance(output, tuple)):
                final = model.hidden(ids_RT, torch.ones_like(ids_RT))[:, -1]
        p_R = model.logits(final).softmax(-1)[:, answer]
    finally:
        for hook in hooks:
            hook.remove()
    return p_R.reshape(len(places), SAMPLES).mean(-1).cpu()


def _from_embeddings(
    model: LanguageModel, ids_RT: torch.Tensor, embedded_RTD: torch.Tensor
) -> torch.Tensor:
    """Last hidden states at the final token, the embeddings replaced."""
    hook = model.model.get_input_embeddings().register_forward_hook(lambda _m, _a, _o: embedded_RTD)
    try:
        return model.hidden(ids_RT, torch.ones_like(ids_RT))[:, -1]
    finally:
        hook.remove()


@contextmanager
def _recorded(model: LanguageModel, kinds: Sequence[str]) -> Iterator[dict[tuple[str, int], Any]]:
    """Inside, the outputs of all layers and sites are kept, by kind and layer; and the embeddings, noise included."""
    states: dict[tuple[str, int], Any] = {}

    def keep(key: tuple[str, int]) -> Any:
        return lambda _m, _a, output: states.__setitem__(key, output)

    hooks = [model.model.get_input_embeddings().register_forward_hook(keep(("embedding", 0)))]
    for layer in range(model.layout.depth):
        for kind in {"residual", *kinds}:
            hooks.append(site_module(model, layer, kind).register_forward_hook(keep((kind, layer))))
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


# --- choosing layers ----------------------------------------------------------------------------------------


def layer_curve(model: LanguageModel, facts: Sequence[Fact], seed: int = 0) -> list[float]:
    """For each layer, the mean over ``facts`` of the MLPs' indirect effect at the subject's last token, as a share of what
    the noise took."""
    rows = []
    for fact in facts:
        found = trace(model, fact, ("mlp",), seed=seed, subject_only=True)
        if found.high - found.low > LEAST_EFFECT:  # else there is no answer to be found anywhere
            rows.append(found.effect("mlp")[found.subject[1]] / (found.high - found.low))
    return torch.stack(rows).mean(0).tolist() if rows else [0.0] * model.layout.depth


def heat_map(found: Trace, path: str) -> None:
    """The picture of ROME's figure 1: token x layer, one panel a kind of state."""
    from matplotlib.figure import Figure

    kinds = list(found.scores)
    figure = Figure(
        figsize=(4.2 * len(kinds), 0.6 + 0.24 * len(found.tokens)), layout="constrained"
    )
    top = max(found.high, max(table.max().item() for table in found.scores.values()))
    first, last = found.subject
    labels = [
        repr(t)[1:-1].replace("$", r"\$") + ("*" if first <= i <= last else "")
        for i, t in enumerate(found.tokens)
    ]
    for place, kind in enumerate(kinds):
        axes = figure.add_subplot(1, len(kinds), place + 1)
        image = axes.imshow(found.scores[kind].numpy(), aspect="auto", cmap=("Purples", "Greens", "Reds")[place % 3],
                            vmin=min(found.low, top), vmax=top)  # fmt: skip
        axes.set_yticks(
            range(len(labels)), labels if place == 0 else [""] * len(labels), fontsize=7
        )
        axes.set_xlabel(f"layer ({kind} restored)", fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        figure.colorbar(image, ax=axes, label=f"p({found.answer.strip()})".replace("$", r"\$"))
    figure.savefig(path, dpi=150)
