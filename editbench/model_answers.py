"""What a ``LanguageModel`` is asked: the probability of texts, and texts that it writes.

# B rows, T tokens, D model width, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from math import ceil
from typing import TYPE_CHECKING

import torch

from editbench import progress, text
from editbench.batching import (
    BatchSizes,
    batched,
    free_cached,
    in_batches,
    is_out_of_memory,
    no_memory,
)
from editbench.beginnings import Beginnings, filled_cache
from editbench.decoding import Decoding, Ends, Part, Text, decoding_cache
from editbench.errors import ModelError
from editbench.live import NOT_HERE, LiveModel, ask_scores, ask_texts
from editbench.model_passes import ModelPasses
from editbench.model_prompts import ModelPrompts
from editbench.types import form_of

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

SHARED = 4
"""How many times as many texts as usual are scored together where they share beginnings."""
SCORE, WRITE = "texts to score", "texts to write"
"""What is computed in batches here, as ``BatchSizes`` calls it."""


class ModelAnswers(ModelPasses, ModelPrompts):
    """The part of ``LanguageModel`` that scores and writes texts."""

    batches: BatchSizes
    """How much is computed together, and what was too much for the memory."""
    _ends: Ends
    _live: LiveModel | None = None
    _guard: RemovableHandle | None = None

    @property
    def live(self) -> LiveModel | None:
        """The model of a live edit that is applied now. It answers in place of this one.

        ``generate_ids`` and ``target_scores`` ask it, and all that rests on them. A forward pass
        through the weights here would show the base, so each raises a ``ModelError``.
        """
        return self._live

    @live.setter
    def live(self, answering: LiveModel | None) -> None:
        if self._guard is not None:
            self._guard.remove()
        self._live, self._guard = answering, None
        if answering is not None:
            self._guard = self.base.register_forward_pre_hook(_refuse)

    def target_logprobs(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        batch_size: int = 64,
        what: str | None = None,
    ) -> list[torch.Tensor]:
        """Return the log-probabilities of each target's tokens, float32, (len(target),).

        Args:
            pairs: prompt ids and target ids of each text.
            what: name of the step in the progress display; ``None``: not shown.
        """
        return [logp_T for logp_T, _ in self.target_scores(pairs, batch_size, what)]

    @torch.no_grad()
    def target_scores(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        batch_size: int = 64,
        what: str | None = None,
    ) -> list[tuple[torch.Tensor, list[int]]]:
        """Return ``target_logprobs``, and the most probable token at each position of the target.

        The target up to that position is given (teacher forcing). In float32 the batch size moves
        no log-probability by more than 1e-4; in bfloat16 the rounding depends on it.
        """
        scores: dict[int, tuple[torch.Tensor, list[int]]] = {}
        with progress.task(what, len(pairs), "texts") if what else nullcontext() as bar:
            for i, score in self.scored(pairs, batch_size):
                scores[i] = score
                if bar:
                    bar.advance()
        return [scores[i] for i in range(len(pairs))]

    @torch.no_grad()
    def scored(
        self, pairs: Sequence[tuple[list[int], list[int]]], batch_size: int = 64
    ) -> Iterator[tuple[int, tuple[torch.Tensor, list[int]]]]:
        """Yield the index of a pair and its ``target_scores``, in any order."""
        if self.live is not None:
            yield from ask_scores(self.live, pairs)
            return

        def score(chunk: list[int]) -> list[tuple[torch.Tensor, list[int]]]:
            with self.compute(weights_fixed=True):
                return self._score([pairs[i] for i in chunk])

        def describe(i: int) -> str:
            return f"score a text of {len(pairs[i][0]) + len(pairs[i][1])} tokens"

        if pairs and self.shares(max(len(prompt) + len(target) for prompt, target in pairs)):
            yield from self._scored_with_beginnings(pairs, batch_size, describe)
            return
        # texts of similar length share a batch, so that little of it is padding
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        for chunk, scores in in_batches(
            self.batches, SCORE, order, batch_size, score, self.device, describe
        ):
            yield from zip(chunk, scores, strict=True)

    def _scored_with_beginnings(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        batch_size: int,
        describe: Callable[[int], str],
    ) -> Iterator[tuple[int, tuple[torch.Tensor, list[int]]]]:
        """Do ``scored`` with beginnings that several texts share computed once."""
        # The last token of a text predicts nothing that is asked.
        rows = [[*prompt, *target[:-1]] for prompt, target in pairs]
        beginnings = Beginnings(self)

        def take(waiting: list[int], size: int) -> list[int]:
            return waiting[: min(size, beginnings.take([rows[i] for i in waiting]))]

        def score(chunk: list[int]) -> list[tuple[torch.Tensor, list[int]]]:
            with self.compute(weights_fixed=True):
                read = beginnings.read([rows[i] for i in chunk])
                targets = [pairs[i][1] for i in chunk]
                places = [
                    path[len(path) - len(target) :]
                    for path, target in zip(read.paths, targets, strict=True)
                ]
                # Texts that share a beginning also share the logits behind it.
                place_U, index_N = torch.cat(places).unique(return_inverse=True)
                logp_UV = self.logits(read.states_KD[place_U]).log_softmax(-1)
            label_N = torch.tensor([t for target in targets for t in target], device=self.device)
            lengths = [len(target) for target in targets]
            logp_N, best_N = logp_UV[index_N, label_N].cpu(), logp_UV.argmax(-1)[index_N].cpu()
            return [
                (logp_T.clone(), best_T.tolist())
                for logp_T, best_T in zip(logp_N.split(lengths), best_N.split(lengths), strict=True)
            ]

        order = sorted(range(len(pairs)), key=rows.__getitem__)
        usual = SHARED * batch_size  # a pass has room for so many tokens, not texts
        for chunk, scores in in_batches(
            self.batches, SCORE, order, usual, score, self.device, describe, take
        ):
            yield from zip(chunk, scores, strict=True)

    def _score(
        self, pairs: Sequence[tuple[list[int], list[int]]]
    ) -> list[tuple[torch.Tensor, list[int]]]:
        """Do ``target_scores`` for all pairs together."""
        ids_BT, mask_BT = text.pad_left(
            [[*prompt, *target] for prompt, target in pairs], self.device
        )
        keep = max(len(target) for _, target in pairs)
        # Rows are aligned at their ends. The last token predicts nothing that is asked, so it is
        # left out, and the last ``keep`` states then predict all targets.
        hidden_BTD = self.hidden(ids_BT[:, :-1], mask_BT[:, :-1])[:, -keep:]
        logp_BTV = self.logits(hidden_BTD).log_softmax(-1)
        logp_BT = logp_BTV.gather(-1, ids_BT[:, -keep:, None])[..., 0].cpu()
        best_BT = logp_BTV.argmax(-1).cpu()
        return [
            # a clone, because a slice would keep the scores of the whole batch
            (
                logp_BT[row, keep - len(target) :].clone(),
                best_BT[row, keep - len(target) :].tolist(),
            )
            for row, (_, target) in enumerate(pairs)
        ]

    @torch.no_grad()
    def generate_ids(
        self,
        prompts: Sequence[list[int]],
        max_new_tokens: int | Sequence[int],
        *,
        lines: Sequence[int | None] | None = None,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        stop: bool | frozenset[int] = True,
        stops: Sequence[str] = (),
        batch_size: int = 96,
        what: str | None = None,
    ) -> list[list[int]]:
        """Return the new ids for each prompt, without the token that ended them.

        In float32 the batch size changes no text, unless two tokens are almost equally probable
        (see ``target_scores``); in bfloat16 such near ties are more frequent.

        Args:
            max_new_tokens: most new tokens, of all texts or of each.
            lines: for each text the number of lines, not counting empty ones, after which it ends;
                ``None``: its lines are not counted.
            generator: source of the random numbers to sample with, at ``temperature`` from the
                ``top_k`` most probable tokens; ``None``: greedy decoding.
            stop: end a text at a token of ``stop_ids``, or at one of these.
            stops: end a text where it says one of these; it is not cut off.
            what: name of the step in the progress display; ``None``: not shown.

        Raises:
            NotFiniteError: if there is nothing to sample from.
        """
        stop_ids = self.stop_ids if stop is True else stop or frozenset()
        how = Decoding(generator, temperature, top_k, stop_ids)
        n = len(prompts)
        rooms = [max_new_tokens] * n if isinstance(max_new_tokens, int) else max_new_tokens
        ends = lines or [None] * n
        written: dict[int, list[int]] = {}
        # by length, as in target_scores
        waiting = sorted(range(n), key=lambda i: len(prompts[i]))
        with (
            progress.task(what, n, "texts") if what else nullcontext() as bar,
            self.compute(weights_fixed=True),
        ):
            while waiting:
                at_once = self.batches.of(WRITE, batch_size)
                # Texts that are drawn share their random numbers step by step, so they stay
                # together: less memory makes smaller passes of them, and no other texts.
                chunk = waiting[: batch_size if generator else _evenly(len(waiting), at_once)]
                texts = [Text(rooms[i], ends[i], stops) for i in chunk]
                if self._written([prompts[i] for i in chunk], texts, how, at_once, bar):
                    written |= {i: one.ids for i, one in zip(chunk, texts, strict=True)}
                    waiting = waiting[len(chunk) :]
        return [written[i] for i in range(n)]

    def _written(
        self,
        prompts: Sequence[list[int]],
        texts: Sequence[Text],
        how: Decoding,
        at_once: int,
        bar: progress.Bar | None,
    ) -> bool:
        """Append the new ids of each prompt to its text, and return whether the memory sufficed.

        If not, the next try is half as large.

        Raises:
            ModelError: it did not suffice for a single text.
        """
        state = how.generator.get_state() if how.generator else None
        shown = 0.0
        try:
            for share in self._write(prompts, texts, how, at_once):
                shown += len(prompts) * share
                if bar:
                    bar.advance(len(prompts) * share)
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if (tried := min(at_once, len(prompts))) == 1:
                longest = max(map(len, prompts))
                raise no_memory(f"continue a text of {longest} tokens") from error
        free_cached()
        self.batches.halved(WRITE, tried, self.device)
        if bar:
            bar.advance(-shown)
        if how.generator and state is not None:
            how.generator.set_state(state)
        return False

    def _write(
        self, prompts: Sequence[list[int]], texts: Sequence[Text], how: Decoding, at_once: int
    ) -> Iterator[float]:
        """Append the new ids of each prompt to its text; yield the share of the work per step."""
        if self.live is None:
            return self._continue(prompts, texts, how, at_once)
        return ask_texts(self.live, prompts, texts, how, how.stop_ids)

    def _continue(
        self, prompts: Sequence[list[int]], texts: Sequence[Text], how: Decoding, at_once: int
    ) -> Iterator[float]:
        """Do ``_write`` here, step by step for all prompts, in passes of ``at_once`` of them."""
        self.check_head()
        # Sampled texts are read whole: they must not change where a rounding does.
        longest = max(len(p) + one.room for p, one in zip(prompts, texts, strict=True))
        shared = how.generator is None and min(map(len, prompts)) > 1 and self.shares(longest)
        parts = [self._part(some, shared) for some in batched(prompts, at_once)]
        rows = list(texts)
        steps = max(one.room for one in texts)
        for step in range(steps):
            next_B = how.pick(self._next_logits(parts))
            going = []
            for row, (one, token) in enumerate(zip(rows, next_B.tolist(), strict=True)):
                if one.goes_on(token, how.stop_ids, self._ends):
                    going.append(row)
            if not going:
                yield 1 - step / steps  # report all that is left as done
                return
            yield 1 / steps
            rows, first = [rows[row] for row in going], 0
            for part in parts:
                own = [row - first for row in going if first <= row < first + len(part.ids_BT)]
                first += len(part.ids_BT)
                part.go_on(next_B[first - len(part.ids_BT) : first], own)
            parts = [part for part in parts if len(part.ids_BT)]

    def _part(self, prompts: Sequence[list[int]], shared: bool) -> Part:
        """Return rows that begin with ``prompts``; their passes then read the tokens left to read.

        Args:
            shared: whether beginnings that several prompts share are computed once.
        """
        ids_BT, mask_BT = text.pad_left(prompts, self.device)
        if shared:  # all but the last token are read here
            cache = filled_cache(self, [prompt[:-1] for prompt in prompts])
            return Part(ids_BT[:, -1:], mask_BT, cache)
        # Without a cache that is known to work, every step reads the whole text again.
        return Part(ids_BT, mask_BT, decoding_cache(self.model) if self.honours.cache else None)

    def _next_logits(self, parts: Sequence[Part]) -> torch.Tensor:
        """Return the logits (B, V) of the token that comes next in each row of ``parts``."""
        logits = [
            self.logits(self.hidden(part.ids_BT, part.mask_BT, part.cache)[:, -1]) for part in parts
        ]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def generate(self, prompt: str, form: str | None = None, max_new_tokens: int = 32) -> str:
        """Return the model's greedy answer to one prompt, as text.

        Args:
            prompt: a question, or a text to continue.
            form: ``question`` asks through the chat template, ``cloze`` continues the text;
                ``None``: a prompt that ends with a question mark is a question, as on the command
                line.
            max_new_tokens: most tokens of the answer.
        """
        ids = self.prompt_ids(prompt, form or form_of(prompt))
        return self.answer(self.generate_ids([ids], max_new_tokens)[0])


def _evenly(n: int, most: int) -> int:
    """Return the size of the first of as few batches of ``n`` as possible, all of about one size.

    A pass over a few rows takes almost as long as one over many.
    """
    return ceil(n / ceil(n / most))


def _refuse(*_: object) -> None:
    raise ModelError(NOT_HERE)
