"""Run lm-eval and its libraries without their output, and undo what they change."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING
from unittest import mock

from editbench.progress import Notice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGGERS = (
    "lm_eval",
    "transformers",
    "datasets",
    "huggingface_hub",
    "accelerate",
    "httpx",
    "fsspec",
    "filelock",
)
"""Loggers that ``quiet`` silences: lm-eval's and those of the libraries that it calls."""


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, which tasks of lm-eval may use."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def restored(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Restore the random state, each module's train/eval mode and the tokenizer's padding on exit.

    ``HFLM`` puts the model into eval mode, and sets the tokenizer's padding.
    """
    import numpy
    import torch

    states = random.getstate(), numpy.random.get_state()
    training = [module for module in model.modules() if module.training]
    pad, side = tokenizer.pad_token, tokenizer.padding_side
    # Saving the state of a GPU would start CUDA, and then a process that is forked later cannot use
    # it. If CUDA has not started, there is no state to save.
    started = torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if started else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        for module in training:
            module.training = True
        if tokenizer.pad_token != pad:
            tokenizer.pad_token = pad
        tokenizer.padding_side = side


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars, warnings and log lines below ERROR of the libraries in the block."""
    import datasets
    import lm_eval.api.task
    import lm_eval.utils
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from jinja2.sandbox import safe_range

    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    hub_bars, data_bars = not are_progress_bars_disabled(), datasets.is_progress_bar_enabled()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", Notice)  # ours, about memory
        # This bar has no switch, so it is replaced by the items themselves.
        stack.enter_context(
            mock.patch.object(lm_eval.api.task, "tqdm", lambda items, *args, **kwargs: items)
        )
        # Not for silence but for speed: lm-eval compiles a task's templates anew for each document.
        # Keeping them saves a tenth of the time of a multiple-choice task.
        compiled = lru_cache(lm_eval.utils.env.from_string)
        stack.enter_context(mock.patch.object(lm_eval.utils.env, "from_string", compiled))
        # A range of at most 100,000, as in chat templates: a longer one would fill the memory.
        stack.enter_context(mock.patch.dict(lm_eval.utils.env.globals, range=safe_range))
        for name, level in levels.items():
            logging.getLogger(name).setLevel(logging.ERROR)
            stack.callback(logging.getLogger(name).setLevel, level)
        disable_progress_bars()
        datasets.disable_progress_bars()
        if hub_bars:
            stack.callback(enable_progress_bars)
        if data_bars:
            stack.callback(datasets.enable_progress_bars)
        yield
