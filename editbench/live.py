"""``LiveModel``: an edited model that no change of weights describes.

Editors with a memory beside the weights (GRACE, WISE) return the model in a wrapper that decides,
text by text, what it computes. Such a model stays in the process that made it, and is asked there.
While its edit is applied to a ``LanguageModel``, that one passes on what it is asked, by the
functions of this module.

# T tokens, V vocabulary
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from editbench.decoding import Decoding, Text

Pair = tuple[Sequence[int], Sequence[int]]
"""Ids of a prompt and of the target after it."""
Score = tuple[torch.Tensor, list[int]]
"""Log-probabilities (T,) of a target's tokens, and the most probable token at each position."""
NOT_HERE = (
    "The edited model lives in a process of its own and has no weights here. Ask it through "
    "generate, generate_ids, target_scores or target_logprobs."
)
NOT_MEASURED = (
    "The edited model lives in a process of its own, so its norms and its Fisher displacement are "
    "not measured, nor are its passes and its memory on a GPU counted."
)
"""Stands in the record of such an edit in place of its norms."""


@dataclass(frozen=True)
class Writing:
    """How a text is written; ready for JSON."""

    room: int
    """Its most tokens."""
    lines: int | None
    """Lines, not counting empty ones, after which it ends; ``None``: any number."""
    stop_ids: Sequence[int]
    """Tokens that end it. They are not part of it."""
    temperature: float
    top_k: int | None
    draws: Sequence[float] | None
    """A random number from 0 to 1 for each token; ``None``: greedy decoding."""


class LiveModel(Protocol):
    """Answers for an edited model, one text at a time."""

    def target_logits(self, prompt: Sequence[int], target: Sequence[int]) -> torch.Tensor:
        """Return the logits (T, V), float32, on the CPU, from which each target token is written.

        Those of a token are what the model computes when it has written the tokens before it.
        """
        ...

    def write(self, prompt: Sequence[int], how: Writing) -> list[int]:
        """Return the new ids behind ``prompt``.

        Raises:
            NotFiniteError: if there is nothing to sample from.
        """
        ...

    def generate(
        self,
        prompt: Sequence[int],
        room: int,
        until: Sequence[str],
        options: Mapping[str, Any],
        seed: int,
    ) -> list[int]:
        """Return the new ids behind ``prompt`` by the ``generate`` of transformers.

        Args:
            room: most new tokens.
            until: the text ends once it contains one of these.
            options: further arguments of ``generate``, ready for JSON.
            seed: where they ask for a sample, the seed of the random numbers.
        """
        ...


def ask_scores(live: LiveModel, pairs: Sequence[Pair]) -> Iterator[tuple[int, Score]]:
    """Yield the index of each pair, in any order, and its ``LanguageModel.target_scores``."""
    # The last token of a target is never read, so targets that differ in it alone share a pass.
    shared: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for i, (prompt, target) in enumerate(pairs):
        shared.setdefault((tuple(prompt), tuple(target[:-1])), []).append(i)
    for places in shared.values():
        logp_TV = live.target_logits(*pairs[places[0]]).log_softmax(-1)
        for i in places:
            logp_T1 = logp_TV.gather(-1, torch.tensor(pairs[i][1])[:, None])
            yield i, (logp_T1[:, 0], logp_TV.argmax(-1).tolist())


def ask_texts(
    live: LiveModel,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Text],
    how: Decoding,
    stop_ids: Collection[int],
) -> Iterator[float]:
    """Answer a batch of ``LanguageModel.generate_ids``: append the new ids of each prompt.

    The random numbers are those of the batch, so where no text ends early, the same are drawn as
    from a model that is here. Yields each text's share of the work.
    """
    draws = how.uniforms(max(text.room for text in texts), len(texts))
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        own = None if draws is None else [step[row] for step in draws[: text.room]]
        writing = Writing(text.room, text.lines, list(stop_ids), how.temperature, how.top_k, own)
        text.ids += live.write(prompt, writing)
        yield 1 / len(texts)
