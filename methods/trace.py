"""Causal tracing: find where in the model the answer to a prompt comes from.

The prompt is run three times: clean; with noise on the subject's embeddings, so that the answer's
probability falls from ``high`` to ``low``; and with the noise, but one hidden state put back to its
clean value. How far the probability then recovers shows how much that state carries. Meng et al.
2022, arXiv 2202.05262, section 2; reference code kmeng01/rome, ``experiments/causal_trace.py``.

The states come in three kinds: ``residual`` (the output of one layer), ``mlp`` and ``attention``
(their outputs in a window of layers).

Differs from the reference: the noise is three standard deviations of the embeddings of the prompt's
own tokens. The reference measures one number for all prompts, over the subjects of its 1,209 known
facts. Here a trace needs no other facts, and it does not change with the facts traced beside it.

    # L layers, T tokens, S noise samples, D width, V vocabulary
    # R rows = places x S
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from editbench import progress, text
from editbench.layout import Output, hidden_of, replace_hidden
from editbench.methods._common.hooks import resumed_above, site_module
from editbench.models import LanguageModel
from editbench.subjects import find_subject
from editbench.types import Fact

KINDS = ("residual", "mlp", "attention")
NOISE = 3.0
"""Size of the noise, in standard deviations of the prompt's embeddings."""
SAMPLES = 10
"""Noised runs, as in the reference."""
LEAST_EFFECT = 0.02
"""Drop of the answer's probability below which a prompt says nothing about layers."""

States = dict[tuple[str, int], Output]
"""Outputs of one pass by kind and layer; row 0 is clean, the others are noised."""


@dataclass(frozen=True)
class Trace:
    """Probabilities of ``answer`` after one prompt, with each state restored in turn."""

    prompt: str
    answer: str
    tokens: list[str]
    subject: tuple[int, int]
    """First and last token of the subject."""
    high: float
    """Probability of the answer in the clean run."""
    low: float
    """Probability of the answer in the noised runs, mean over the samples."""
    scores: dict[str, torch.Tensor]
    """Kind to (T, L): the probability with that state restored, mean over the samples."""

    def effect(self, kind: str) -> torch.Tensor:
        """Return the indirect effect (T, L): what restoring gains over the noised run."""
        return self.scores[kind] - self.low

    def to_dict(self) -> dict[str, object]:
        """Return the trace as JSON types."""
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
    """Trace the model's own next token after the fact's prompt.

    Args:
        kinds: Which states to restore.
        window: Layers that are restored together for ``mlp`` and ``attention``. None: a fifth of
            the depth (the paper has 10 of 48).
        seed: Seed of the noise.
        subject_only: Restore states at the subject's last token only. The other rows of the tables
            are then NaN.
    """
    model.check_head()  # it runs a forward pass, which must not meet the hooks of later ones
    depth = model.layout.depth
    window = window or max(1, round(depth / 5))
    ids, first, last = _subject_tokens(model, fact)
    states, p_SV = _noised(model, kinds, ids, (first, last), seed)
    # The answer traced is the model's own, whatever the fact's target is.
    answer = int(p_SV[0].argmax())
    high, low = p_SV[0, answer].item(), p_SV[1:, answer].mean().item()
    places = [last] if subject_only else list(range(len(ids)))
    scores = {}
    with (
        progress.task(f"tracing {fact.prompt!r}", len(kinds) * depth, "layers") as bar,
        model.compute(weights_fixed=True),
    ):
        for kind in kinds:
            table = torch.full((len(ids), depth), float("nan"))
            for layer in range(depth):
                # one residual state carries all that is below it; MLPs and attentions add up
                half = 0 if kind == "residual" else window
                # A window around ``layer``, cut off at the ends of the model.
                lowest = max(0, layer - half // 2)
                layers = range(lowest, min(depth, layer - half // 2 + max(half, 1)))
                table[places, layer] = _restored(model, states, kind, layers, ids, places, answer)
                bar.advance()
            scores[kind] = table
    tokens = [str(model.tokenizer.decode([i])) for i in ids]
    return Trace(fact.prompt, model.decode([answer]), tokens, (first, last), high, low, scores)


def _module(model: LanguageModel, layer: int, kind: str) -> nn.Module:
    """Return the module whose output is a state of ``kind``."""
    parts = model.layout.parts[layer]
    # A shared expert writes only a part of what a mixture adds, so the whole mixture is taken.
    if kind == "mlp" and (parts.experts or parts.mlp_out is None):
        return model.layout.mlp_module(model.model, layer)
    return site_module(model, layer, kind)


def _subject_tokens(model: LanguageModel, fact: Fact) -> tuple[list[int], int, int]:
    """Return the ids of the fact's prompt, and the subject's first and last token."""
    rendered, subject = model.render(fact.prompt, fact.form), find_subject(fact)
    start, end = rendered.start + subject.start, rendered.start + subject.last
    first = text.token_at(model.tokenizer, rendered, start)
    ids, last = text.ids_and_index(model.tokenizer, rendered, end, start)
    return ids, first, last


def _noised(
    model: LanguageModel, kinds: Sequence[str], ids: list[int], span: tuple[int, int], seed: int
) -> tuple[States, torch.Tensor]:
    """Return the states of one pass and p (1 + S, V) of the next token.

    Row 0 is clean. The others have noise on the embeddings of the tokens from the first to the last
    of ``span``.
    """
    first, last = span
    ids_ST = torch.tensor([ids] * (1 + SAMPLES), device=model.device)
    embeddings = model.model.get_input_embeddings()
    scale = NOISE * embeddings(ids_ST[0]).float().std().item()
    # On the CPU, so that a seed gives the same noise on every device.
    generator = torch.Generator().manual_seed(seed)
    noise_STD = torch.zeros(1 + SAMPLES, len(ids), model.layout.width)
    noise_STD[1:, first : last + 1] = scale * torch.randn(
        SAMPLES, last + 1 - first, model.layout.width, generator=generator
    )

    def corrupt(_module: nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        return output + noise_STD.to(output)

    hook = embeddings.register_forward_hook(corrupt)
    try:
        # Its hooks come after ``corrupt``, so the embeddings that it records carry the noise.
        with _recorded(model, kinds) as states, model.compute(weights_fixed=True):
            final_SD = model.hidden(ids_ST, torch.ones_like(ids_ST))[:, -1]
            p_SV = model.logits(final_SD).softmax(-1)
    finally:
        hook.remove()
    return states, p_SV


def _restored(
    model: LanguageModel,
    states: States,
    kind: str,
    layers: range,
    ids: list[int],
    places: list[int],
    answer: int,
) -> torch.Tensor:
    """Return p(answer), for each place, when the states of ``kind`` are clean there at ``layers``.

    This takes one pass over places x S rows. It starts at the first of ``layers``, since the noised
    states below are those of the first pass.
    """
    length, device = len(ids), model.device
    # The token that each row restores. Rows run place by place, within a place sample by sample.
    token_R = torch.tensor(places, device=device).repeat_interleave(SAMPLES)
    # A residual state is restored in the layer's output itself, other states inside the layer.
    start = layers[0] - (kind != "residual")
    ids_RT = torch.tensor([ids], device=device).expand(len(token_R), -1)
    every_R = torch.arange(len(token_R), device=device)

    def put_back(clean_TD: torch.Tensor, states_RTD: torch.Tensor) -> torch.Tensor:
        patched = states_RTD.reshape(len(token_R), length, -1).clone()
        # The layer may be on another device than the ids.
        every, tokens = every_R.to(patched.device), token_R.to(patched.device)
        patched[every, tokens] = clean_TD.to(patched)[tokens]
        return patched.reshape(states_RTD.shape)

    def patch(layer: int) -> Callable[[nn.Module, object, Output], Output]:
        # OPT flattens (B, T) before its MLP.
        clean_TD = hidden_of(states[kind, layer]).reshape(1 + SAMPLES, length, -1)[0]

        def hook(_module: nn.Module, _args: object, output: Output) -> Output:
            patched: Output = replace_hidden(output, put_back(clean_TD, hidden_of(output)))
            return patched

        return hook

    with ExitStack() as stack:
        if kind != "residual":
            for layer in layers:
                hook = _module(model, layer, kind).register_forward_hook(patch(layer))
                stack.callback(hook.remove)
        # Layer 0 has no layer below it to resume from.
        if start < 0:
            below = hidden_of(states["embedding", 0])[1:].repeat(len(places), 1, 1)
            final = _from_embeddings(model, ids_RT, below)
        else:
            output = states["residual", start]
            below = hidden_of(output)[1:].repeat(len(places), 1, 1)
            if kind == "residual":
                below = put_back(hidden_of(output)[0], below)
            stack.enter_context(resumed_above(model, start, below, isinstance(output, tuple)))
            final = model.hidden(ids_RT, torch.ones_like(ids_RT))[:, -1]
        p_R = model.logits(final).softmax(-1)[:, answer]
    return p_R.reshape(len(places), SAMPLES).mean(-1).cpu()


def _from_embeddings(
    model: LanguageModel, ids_RT: torch.Tensor, embedded_RTD: torch.Tensor
) -> torch.Tensor:
    """Return last hidden states at the final token, with the embeddings replaced."""
    hook = model.model.get_input_embeddings().register_forward_hook(lambda _m, _a, _o: embedded_RTD)
    try:
        return model.hidden(ids_RT, torch.ones_like(ids_RT))[:, -1]
    finally:
        hook.remove()


@contextmanager
def _recorded(model: LanguageModel, kinds: Sequence[str]) -> Iterator[States]:
    """Inside, keep the outputs of all layers and sites, and the embeddings with their noise."""
    states: States = {}

    def keep(kind: str, layer: int) -> Callable[[nn.Module, object, Output], None]:
        def hook(_module: nn.Module, _args: object, output: Output) -> None:
            states[kind, layer] = output

        return hook

    embeddings = model.model.get_input_embeddings()
    hooks = [embeddings.register_forward_hook(keep("embedding", 0))]
    for layer in range(model.layout.depth):
        # Residual states always: ``_restored`` resumes from them.
        for kind in {"residual", *kinds}:
            module = _module(model, layer, kind)
            hooks.append(module.register_forward_hook(keep(kind, layer)))
    try:
        yield states
    finally:
        for handle in hooks:
            handle.remove()


# --- choosing layers ----------------------------------------------------------------------------


def layer_curve(model: LanguageModel, facts: Sequence[Fact], seed: int = 0) -> list[float]:
    """Return, for each layer, the MLPs' indirect effect at the subject's last token.

    The effect is a share of the probability that the noise took, averaged over ``facts``. Facts
    whose answer hardly depends on the subject are left out. If none is left, all layers have 0.
    """
    rows = []
    for fact in facts:
        traced = trace(model, fact, ("mlp",), seed=seed, subject_only=True)
        if traced.high - traced.low > LEAST_EFFECT:
            rows.append(traced.effect("mlp")[traced.subject[1]] / (traced.high - traced.low))
    if not rows:
        return [0.0] * model.layout.depth
    curve: list[float] = torch.stack(rows).mean(0).tolist()
    return curve


def heat_map(traced: Trace, path: str) -> None:
    """Write the picture of ROME's figure 1: token x layer, one panel for each kind of state."""
    from matplotlib.figure import Figure

    kinds = list(traced.scores)
    figure = Figure(
        figsize=(4.2 * len(kinds), 0.6 + 0.24 * len(traced.tokens)), layout="constrained"
    )
    top = max(traced.high, max(table.max().item() for table in traced.scores.values()))
    first, last = traced.subject
    # repr shows line breaks as escapes, matplotlib would read $ as mathematics, and a star marks
    # the tokens of the subject.
    labels = [
        repr(token)[1:-1].replace("$", r"\$") + ("*" if first <= i <= last else "")
        for i, token in enumerate(traced.tokens)
    ]
    for place, kind in enumerate(kinds):
        axes = figure.add_subplot(1, len(kinds), place + 1)
        image = axes.imshow(
            traced.scores[kind].numpy(),
            aspect="auto",
            cmap=("Purples", "Greens", "Reds")[place % 3],
            vmin=min(traced.low, top),
            vmax=top,
        )
        shown = labels if place == 0 else [""] * len(labels)
        axes.set_yticks(range(len(labels)), shown, fontsize=7)
        axes.set_xlabel(f"layer ({kind} restored)", fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        figure.colorbar(image, ax=axes, label=f"p({traced.answer.strip()})".replace("$", r"\$"))
    figure.savefig(path, dpi=150)
