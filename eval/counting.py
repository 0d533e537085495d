"""Count what retention tasks will ask of a model, before it is loaded.

lm-eval builds the requests as for the model itself, from its configuration and its tokenizer. They
are counted as they are asked: the longest first, in batches in which each text is as long as the
longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editbench.asked import Batch, Evaluation
from editbench.batching import BatchSizes, batched
from editbench.eval import retention, standard_tasks
from editbench.eval.in_memory import InMemoryModel, Request
from editbench.eval.sandbox import quiet, restored, seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def count(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    batch_size: int,
    *,
    limit: int | None = None,
    seed: int = 0,
    task_data: Mapping[str, Path] | None = None,
) -> Evaluation:
    """Return the batches in which ``retention.evaluate`` would ask ``tasks``.

    Args:
        model: it may be on the meta device, since it is not asked.

    Raises:
        DataError, OptionError: as ``retention.evaluate``, but for what only an answer shows.
    """
    given = task_data or {}
    with quiet(), restored(model, tokenizer):
        lm = _Counter(model, tokenizer, batch_size, None, False, None, BatchSizes())
        for name in tasks:
            seed_everything(seed)
            with standard_tasks.in_plain_words(name):
                for member, task in retention.load(name, given.get(name)).items():
                    lm.begin(name, retention.goes_through_chat(name, task), None)
                    ids = retention.drawn(name, member, task, limit, seed, name in given)
                    with suppress(_Counted):
                        retention.ask_member(lm, member, task, ids, seed)
    return Evaluation(lm.batches)


class _Counted(Exception):
    """Raised in place of answers."""


class _Counter(InMemoryModel):
    """Counts the requests of a task, and ends it in place of an answer."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.batches: list[Batch] = []

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        *args: Any,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        # Choices that differ in their last token alone are read once.
        texts = {(*prompt, *choice[:-1]) for _, prompt, choice in requests}
        self._count([len(text) for text in texts], 0)
        raise _Counted

    def generate_until(self, requests: list[Request], disable_tqdm: bool = True) -> list[str]:
        self._start(requests)
        by_room: dict[int, list[int]] = {}
        for request in requests:
            prompt, settings = request.args
            assert isinstance(settings, dict)
            room: int = settings.get("max_gen_toks") or self.max_gen_toks
            by_room.setdefault(room, []).append(len(self.tok_encode(str(prompt))))
        for room, lengths in by_room.items():
            self._count(lengths, room)
        raise _Counted

    def _count(self, lengths: Sequence[int], room: int) -> None:
        # A text that is too long loses its beginning.
        longest = sorted((min(n, self.max_length - room) for n in lengths), reverse=True)
        self.batches += [Batch(len(n), n[0], room) for n in batched(longest, self.batch_size)]
