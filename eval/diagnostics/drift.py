"""How far the edited model moved from the base: its distributions and the length of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

import torch

from editbench import progress
from editbench.batching import in_batches
from editbench.eval.diagnostics._cache import LENGTH, cached, setting, texts_of
from editbench.eval.intervals import interval_row
from editbench.live import LiveModel
from editbench.models import LanguageModel, batched, float64_device
from editbench.rows import IntervalRow
from editbench.stats import unbounded_mean
from editbench.text import pad_left

if TYPE_CHECKING:
    from editbench.edit import Edit

# B texts, T tokens, N tokens of all texts, D model width, V vocabulary

DRIFT_TOKENS = 2048
"""Tokens of the base's own text on which both models are compared."""
LOGITS_AT_ONCE = 2**25
"""Entries of one matrix of log-probabilities, which make 128 MiB. ``measure`` holds about four such
matrices."""
TEXTS_AT_ONCE = 16
"""Texts in one forward pass."""
ANSWER_TOKENS = 48
QUESTIONS = (
    "What is a good way to spend a rainy afternoon?",
    "Why do leaves change their colour in autumn?",
    "How do I make a cup of tea?",
    "Can you explain what a computer does?",
    "What should I pack for a weekend in the mountains?",
    "Why is it important to sleep enough?",
    "Tell me something interesting about the sea.",
    "How can I learn a new language?",
    "What is the difference between a cat and a dog?",
    "Give me some advice for a job interview.",
    "What makes a story exciting?",
    "How does a bicycle stay upright?",
)
"""Questions that no corpus asks and that take a sentence or more to answer well."""


class Drift(TypedDict):
    """Distance of the edited model from the base."""

    kl: IntervalRow
    """KL divergence of the edited model from the base, in nats a token."""
    nll_change: IntervalRow
    """Rise of the negative log-likelihood of the base's own text, in nats a token."""
    words_before: float
    """Mean number of words in the base's answers to ``QUESTIONS``."""
    words_after: float


@torch.no_grad()
def measure(model: LanguageModel, edit: Edit, seed: int) -> Drift:
    """Compare the edited model with ``model``, the base.

    The log-probabilities of all tokens under both models would take gigabytes. Instead the hidden
    states (N, D) of both are kept, and the head turns them into log-probabilities chunk by chunk.
    If the edit changes the head, that change is applied for each chunk. The result is exact. A live
    model gives its logits itself, text by text.
    """
    base = cached(
        "drift",
        [edit.model_hash, *setting(model), DRIFT_TOKENS, LENGTH, seed, ANSWER_TOKENS, QUESTIONS],
        lambda: _base_texts(model, seed),
    )
    ids_BT, mask_BT = base["ids"].to(model.device), base["mask"].to(model.device)
    before_ND = after_ND = _hidden(model, ids_BT, mask_BT)
    words_after = base["words"]
    # Checked on the base: under the edit the logits may no longer be finite.
    model.check_head()
    if edit.moves:
        with edit.applied(model, check=False):
            # An edit by context changes no weight, so the states of a bare text stay the base's.
            after_ND = _hidden(model, ids_BT, mask_BT) if edit.changes else before_ND
            words_after = _words(model)
    if edit.live is not None:
        kl, nll = _live_gaps(model, edit.live, before_ND, ids_BT, mask_BT)
    else:
        kl, nll = _gaps(model, _head_part(model, edit), before_ND, after_ND, ids_BT)
    return {
        "kl": _by_text(kl),
        "nll_change": _by_text(nll),
        "words_before": base["words"].double().mean().item(),
        "words_after": words_after.double().mean().item(),
    }


def _head_part(model: LanguageModel, edit: Edit) -> Edit:
    """Return the part of ``edit`` that changes the output head."""
    # By identity, so that an embedding matrix tied to the head counts as the head.
    head = {id(p) for p in model.model.get_output_embeddings().parameters()}
    changes = {n: change for n, change in edit.changes.items() if id(model.weight(n)) in head}
    return replace(edit, changes=changes, context=None)


def _gaps(
    model: LanguageModel,
    head_edit: Edit,
    before_ND: torch.Tensor,
    after_ND: torch.Tensor,
    ids_BT: torch.Tensor,
) -> tuple[list[float], list[float]]:
    """Return the KL divergence and the rise of the negative log-likelihood at each of N tokens."""
    labels_N = ids_BT[:, -LENGTH:].flatten()
    kl: list[float] = []
    nll: list[float] = []
    vocabulary = model.model.get_output_embeddings().weight.shape[0]
    for rows in batched(range(len(labels_N)), max(1, LOGITS_AT_ONCE // vocabulary)):
        base_NV = _logp(model, before_ND[rows])
        with head_edit.applied(model, check=False):
            gap_NV = base_NV - _logp(model, after_ND[rows])
        kl += _divergence(base_NV, gap_NV)
        nll += gap_NV.gather(-1, labels_N[rows, None])[:, 0].tolist()
    return kl, nll


def _live_gaps(
    model: LanguageModel,
    live: LiveModel,
    before_ND: torch.Tensor,
    ids_BT: torch.Tensor,
    mask_BT: torch.Tensor,
) -> tuple[list[float], list[float]]:
    """Return what ``_gaps`` returns, for a live model."""
    kl: list[float] = []
    nll: list[float] = []
    with progress.task("text of the base's own", len(ids_BT), "texts") as bar:
        for ids_T, mask_T, before_LD in zip(ids_BT, mask_BT, before_ND.split(LENGTH), strict=True):
            ids = ids_T[mask_T.bool()].tolist()
            logits_LV = live.target_logits(ids[:-LENGTH], ids[-LENGTH:]).to(model.device)
            base_LV = _logp(model, before_LD)
            gap_LV = base_LV - logits_LV.log_softmax(-1)
            kl += _divergence(base_LV, gap_LV)
            nll += gap_LV.gather(-1, ids_T[-LENGTH:, None])[:, 0].tolist()
            bar.advance()
    return kl, nll


def _divergence(base_NV: torch.Tensor, gap_NV: torch.Tensor) -> list[float]:
    """Return sum_v p0(v) log(p0(v) / p(v)) of each token, from log p0 and log p0 - log p."""
    # The terms have both signs and nearly cancel for a small edit: sum them in float64.
    terms_NV = base_NV.exp() * gap_NV
    terms_NV = terms_NV.to(float64_device(terms_NV.device))
    return terms_NV.sum(-1, dtype=torch.float64).tolist()


def _base_texts(model: LanguageModel, seed: int) -> dict[str, torch.Tensor]:
    """Return what is cached of the base: its texts, left-padded, and the words of its answers.

    The base wrote the last ``LENGTH`` tokens of each text. Left padding aligns them.
    """
    texts = [opening + written for opening, written in texts_of(model, "drift", DRIFT_TOKENS, seed)]
    ids_BT, mask_BT = pad_left(texts, "cpu")
    return {"ids": ids_BT, "mask": mask_BT, "words": _words(model)}


def _words(model: LanguageModel) -> torch.Tensor:
    """Count the words of the greedy answer to each of ``QUESTIONS``."""
    prompts = [model.prompt_ids(question, "question") for question in QUESTIONS]
    written = model.generate_ids(prompts, ANSWER_TOKENS, what="answering neutral questions")
    return torch.tensor([len(model.decode(ids).split()) for ids in written])


def _hidden(model: LanguageModel, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Return the hidden states (N, D) that predict the last ``LENGTH`` tokens of each text."""

    def read(chunk: list[int]) -> torch.Tensor:
        # The state at one position predicts the next token, so the last token is not fed in.
        return model.hidden(ids_BT[chunk, :-1], mask_BT[chunk, :-1])[:, -LENGTH:]

    with model.compute(weights_fixed=True):
        batches = in_batches(
            model.batches,
            "texts to read",
            range(len(ids_BT)),
            TEXTS_AT_ONCE,
            read,
            model.device,
            lambda _: f"read a text of {ids_BT.shape[1]} tokens",
        )
        states = [states_BLD for _, states_BLD in batches]
    return torch.cat(states).flatten(0, 1)


def _logp(model: LanguageModel, hidden_ND: torch.Tensor) -> torch.Tensor:
    with model.compute():
        return model.logits(hidden_ND).log_softmax(-1)


def _by_text(values: Sequence[float]) -> IntervalRow:
    """Average over tokens, with the interval clustered by text: each text has ``LENGTH`` tokens."""
    return interval_row(unbounded_mean(values, [n // LENGTH for n in range(len(values))]))
