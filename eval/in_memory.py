"""Give lm-eval a model that is in memory, with context, progress and chat template set by task.

Importing this module imports lm-eval's model classes, which takes seconds. ``retention`` therefore
imports it only when it asks a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from editbench import chat_template
from editbench.batching import BatchSizes, free_cached, is_out_of_memory, no_memory
from editbench.errors import ModelError, OptionError
from editbench.live import LiveModel, ask_scores
from editbench.models import LanguageModel
from editbench.placing import devices_of

Context = Callable[[str], str | None]
"""Maps a prompt to the text that goes before it, or to ``None``."""
Progress = Callable[[str, int, int], None]
"""Called with the task, the number of requests done and the number of all requests."""


class Request(Protocol):
    """The part of lm-eval's ``Instance`` that is used here."""

    arguments: tuple[object, ...]
    """The prompt comes first."""
    task_name: str

    @property
    def args(self) -> tuple[object, ...]: ...


GREEDY = {"attention_mask", "do_sample", "temperature", "until", "max_gen_toks"}
"""Options of lm-eval that greedy decoding may come with."""
NOT_GREEDY = {
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
}
"""Settings of a model's own ``generate`` that change no greedy text, beyond where it ends."""
WRITTEN = 64
"""Texts that are written together. Longer prompts than those of probes take more memory."""
REQUESTS = "retention requests"
"""What is asked in batches here, as ``BatchSizes`` calls it."""


class Unchanged(Exception):
    """Raised to skip a task: none of its prompts has a context."""


class InMemoryModel(HFLM):  # type: ignore[misc]  # lm-eval has no type information
    """An ``HFLM`` over a loaded model. Call ``begin`` before each task.

    Args:
        changed_only: raise ``Unchanged`` for a task if none of its prompts has a context.
        live: the model that answers in place of ``model``.
        answering: the ``LanguageModel`` of ``model``. It then scores and writes what it can: texts
            that share a beginning, with logits where they are read, and ended texts leave. Without
            it, everything is asked as lm-eval does.
    """

    batch_size_per_gpu: int
    chat: bool
    """Whether the current task goes through the chat template."""
    max_length: int
    _done: int
    _shown: int
    """Most requests that were shown as done."""
    _total: int
    add_bos_token: bool | None

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        context: Context | None,
        changed_only: bool,
        live: LiveModel | None,
        batches: BatchSizes,
        answering: LanguageModel | None = None,
    ) -> None:
        # HFLM opens its own autocast around each call, which would end the caller's. So it
        # gets the caller's dtype.
        # nowhere: a model without weights, whose requests are counted
        place = next(iter(devices_of(model)), torch.device("cpu"))
        enabled = torch.is_autocast_enabled(place.type)
        dtype = torch.get_autocast_dtype(place.type) if enabled else None
        self._template = bool(tokenizer.chat_template)
        self._context, self._changed_only, self._live = context, changed_only, live
        self._usual, self._batches, self._answering = batch_size, batches, answering
        self._separators: dict[str, str] = {}
        """Prompt that a chat template wrote -> what goes between it and the answer."""
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            # a live model is asked one text at a time
            batch_size=1 if live else batches.of(REQUESTS, batch_size),
            mixed_precision_dtype=dtype,
        )
        # HFLM takes the first weight's, which has none of its own where it is offloaded.
        self._device = place
        self._add_bos_token: bool | None = self.add_bos_token

    def begin(self, task: str, chat: bool, progress: Progress | None) -> None:
        """Prepare for the requests of ``task``."""
        self.chat = chat and self._template
        self._changed = False
        # A chat template has written the special tokens. Otherwise lm-eval's own rule holds.
        self.add_bos_token = False if self.chat else self._add_bos_token
        self._task, self._progress = task, progress

    def add_partial(self, attr: str, request: object, result: object) -> None:
        """Count a finished request: lm-eval calls this hook of its cache for each of them."""
        self._done += 1
        # After a batch that did not fit, all requests are asked again.
        if self._progress and self._done > self._shown:
            self._shown = self._done
            self._progress(self._task, self._done, self._total)

    def _start(self, requests: Sequence[Request]) -> None:
        self._done, self._shown, self._total = 0, 0, len(requests)
        self.set_cache_hook(self)
        # lm-eval lists one object several times for a task with repeats. By identity, so that each
        # is changed once.
        for request in {id(r): r for r in requests}.values():
            prompt, *rest = request.args
            text = str(prompt)
            if not self.chat:  # otherwise ``apply_chat_template`` has added the context
                request.arguments = (self._before(text) + text, *rest)
            elif rest and isinstance(rest[0], str):  # a choice, whose likelihood is asked for
                choice = self._separators.get(text, "") + rest[0]
                request.arguments = (text, choice, *rest[1:])
        if self._changed_only and not self._changed:
            raise Unchanged

    def _before(self, prompt: str) -> str:
        """Return the context that goes before ``prompt``."""
        text = self._context(prompt) if self._context else None
        self._changed = self._changed or bool(text)
        return text or ""

    def loglikelihood(
        self, requests: list[Request], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        self._start(requests)
        scores: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return scores

    def generate_until(self, requests: list[Request], disable_tqdm: bool = True) -> list[str]:
        self._start(requests)
        ask = super().generate_until
        usual = self.batch_size_per_gpu
        if all(self._is_greedy(request.args[-1]) for request in requests):
            self.batch_size_per_gpu = len(requests)  # ``answering`` makes batches of its own
        try:
            texts: list[str] = self._in_memory(lambda: ask(requests, disable_tqdm=True))
        finally:
            # What did not fit into memory before still does not.
            self.batch_size_per_gpu = min(usual, self.batch_size_per_gpu)
        return texts

    def _in_memory(self, ask: Callable[[], list[Any]]) -> list[Any]:
        """Return what ``ask`` does, in smaller batches while the memory does not suffice.

        Raises:
            ModelError: it does not suffice for one request.
        """
        while True:
            try:
                return ask()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.batch_size == 1:
                    raise no_memory("ask even one request") from error
            free_cached()
            self._done = 0
            self.batch_size_per_gpu = self._batches.halved(
                REQUESTS, int(self.batch_size), self._device
            )

    def loglikelihood_rolling(
        self, requests: list[Request], disable_tqdm: bool = True
    ) -> list[float]:
        raise OptionError(
            f"Task {requests[0].task_name!r} measures perplexity, and retention needs a score "
            "between 0 and 1 for each document. Choose another task."
        )

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        *args: Any,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        # As lm-eval does, a text that is too long loses its beginning.
        pairs = [
            (prompt[-(self.max_length + 1 - len(choice)) :], choice)
            for _, prompt, choice in requests
        ]
        if self._live:
            scored = ask_scores(self._live, pairs)
        elif self._answering:
            scored = self._answering.scored(pairs)
        else:
            ask = super()._loglikelihood_tokens
            scores: list[tuple[float, bool]] = self._in_memory(
                lambda: ask(requests, *args, **kwargs)
            )
            return scores
        answers = {}
        for i, (logp_T, best) in scored:
            answers[i] = (logp_T.sum().item(), best == pairs[i][1])
            self.add_partial("loglikelihood", requests[i][0], answers[i])
        return [answers[i] for i in range(len(pairs))]

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **options: Any
    ) -> torch.Tensor:
        if self._is_greedy(options):
            return self._written(context, options["attention_mask"], max_length, stop)
        if self._live is None:
            texts: torch.Tensor = super()._model_generate(context, max_length, stop, **options)
            return texts
        del options["attention_mask"]  # one text alone has no padding
        if not options.get("temperature") and not options.get("do_sample"):  # as in lm-eval
            options["do_sample"] = False
            options.pop("temperature", None)
        seed = int(torch.randint(2**31, ()))
        prompt, room = context[0].tolist(), max_length - context.shape[1]
        options = {**_settings(self.model), **options}
        written = self._live.generate(prompt, room, stop, options, seed)
        return torch.tensor([[*prompt, *written]])

    def _is_greedy(self, options: object) -> bool:
        """Return whether ``answering`` writes what ``generate`` would write with these options."""
        assert isinstance(options, Mapping)
        if self._live or self._answering is None or not self._answering.honours.cache:
            return False
        changed = set(_settings(self.model)) - NOT_GREEDY
        drawn = options.get("do_sample") or options.get("temperature")
        return not drawn and not changed and set(options) <= GREEDY

    def _written(
        self, context: torch.Tensor, mask: torch.Tensor, max_length: int, stop: list[str]
    ) -> torch.Tensor:
        """Return each row of ``context`` with the text behind it, padded to one length."""
        assert self._answering is not None
        config, special = self.model.generation_config, self.tokenizer.get_added_vocab()
        eos = (
            config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        )
        ends = {*eos, *(special.get(text) for text in stop)} - {None}
        prompts = [row[seen.bool()].tolist() for row, seen in zip(context, mask, strict=True)]
        written = self._answering.generate_ids(
            prompts,
            max_length - context.shape[1],
            stop=frozenset(ends),
            stops=[text for text in stop if text and text not in special],
            batch_size=WRITTEN,
            what=f"retention: {self._task}" if self._progress else None,
        )
        longest = max(map(len, written))
        padding = self.tokenizer.pad_token_id
        behind = [[*ids, *[padding] * (longest - len(ids))] for ids in written]
        return torch.cat([context.cpu(), torch.tensor(behind, dtype=torch.long)], dim=1)

    def tok_decode(self, tokens: Sequence[int] | int, skip_special_tokens: bool = True) -> str:
        # lm-eval decodes answers with the special tokens skipped, and nothing else.
        if isinstance(tokens, int) or not skip_special_tokens:
            text: str = super().tok_decode(tokens, skip_special_tokens)
            return text
        return chat_template.answer_text(self.tokenizer, tokens)

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the prompt as probes and training write it.

        Without ``add_generation_prompt``, the last turn is the beginning of the model's answer.
        """
        turns = list(chat_history)
        begun = "" if add_generation_prompt else turns.pop()["content"]
        # Few-shot examples are earlier turns. The context belongs to the question, the last turn.
        *earlier, last = turns
        turns = [*earlier, {**last, "content": self._before(last["content"]) + last["content"]}]
        try:
            prompt = chat_template.prompt(self.tokenizer, turns)
        except ModelError:
            # As lm-eval does for templates that know no system turn.
            others = [turn for turn in turns if turn["role"] != "system"]
            if len(others) == len(turns):
                raise
            prompt = chat_template.prompt(self.tokenizer, others)
        separator = chat_template.style_of(self.tokenizer).separator
        if begun:
            return prompt + separator + begun
        self._separators[prompt] = separator
        return prompt


def _settings(model: PreTrainedModel) -> dict[str, Any]:
    """Return the arguments that a model's own ``generate`` adds to those of lm-eval."""
    no_arguments = ("transformers_version", "_from_model_config", "max_length", "max_new_tokens")
    own = model.generation_config.to_diff_dict()
    return {name: value for name, value in own.items() if name not in no_arguments}
