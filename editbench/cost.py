"""Measure what work costs: seconds, memory, and tokens through the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypedDict

import psutil
import torch

from editbench import helpers
from editbench.errors import ModelError
from editbench.models import LanguageModel
from editbench.rows import Work


class Measured(TypedDict):
    """What a meter measured, as JSON can hold it."""

    seconds: dict[str, float]
    work: dict[str, Work]
    peak_process: int
    peak_device: int


class Meter:
    """A context manager that measures time, memory and work, by phase, while it is open.

    ``seconds`` is wall-clock time. ``peak_process`` is the highest resident memory,
    that of the processes in ``helpers`` included, and ``peak_device`` the highest allocated memory
    of the GPUs that hold the model, added up (0 without one), both in bytes.

    ``work`` counts all forward passes through the decoder layers, whoever makes them, and their
    tokens. ``gradient_tokens`` are the tokens for which gradients were kept. ``decoded_tokens`` are
    those that came one at a time, as they do while text is generated. So the last token of a text
    is not counted, and the two branches of mixsd count twice. Where prompts that share a beginning
    are read together (``beginnings.py``), the last token of each prompt comes alone, and counts. A
    pass through some of the layers counts as its share of one. Padding counts like any other token.
    The passes that check a new model (``LanguageModel.check_head`` and ``shares``) run before it
    opens.
    """

    def __init__(self, model: LanguageModel, before: Measured | None = None):
        """Measure work on ``model``, in addition to what was measured ``before``."""
        self.model = model
        self._devices = [device for device in model.devices if device.type in ("cuda", "xpu")]
        before = before or {"seconds": {}, "work": {}, "peak_process": 0, "peak_device": 0}
        self.seconds = dict(before["seconds"])
        self.work = {phase: dict(counts) for phase, counts in before["work"].items()}
        self.peak_process, self.peak_device = before["peak_process"], before["peak_device"]
        self._phase = ""
        try:
            self._layers = [model.layout.layer(model.model, i) for i in range(model.layout.depth)]
        except ModelError:  # the layers of this architecture are unknown: its work is not counted
            self._layers = []

    @property
    def peak(self) -> int:
        """Peak use, in bytes, of the memory that holds the model."""
        return self.peak_device if self._devices else self.peak_process

    def measured(self) -> Measured:
        """Return what was measured, for another meter."""
        return {
            "seconds": self.seconds,
            "work": self.work,
            "peak_process": self.peak_process,
            "peak_device": self.peak_device,
        }

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add what happens inside the ``with`` to phase ``name``. Phases do not nest."""
        started, self._phase = time.perf_counter(), name
        try:
            yield
        finally:
            self._phase = ""
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def _count(
        self,
        layer: torch.nn.Module,
        args: tuple[torch.Tensor, ...],
        kwargs: dict[str, torch.Tensor],
    ) -> None:
        """Count one call of a decoder layer; its first argument is the hidden states (B, T, D)."""
        if not self._phase:
            return
        hidden_BTD = args[0] if args else kwargs["hidden_states"]
        done = self.work.setdefault(
            self._phase,
            dict.fromkeys(("passes", "tokens", "gradient_tokens", "decoded_tokens"), 0.0),
        )
        # Each of the n layers counts 1 / n, so a full pass adds up to 1.
        share = 1 / len(self._layers)
        tokens = share * hidden_BTD.shape[:-1].numel()
        done["passes"] += share
        done["tokens"] += tokens
        if torch.is_grad_enabled():
            done["gradient_tokens"] += tokens
        elif hidden_BTD.shape[-2] == 1:  # one token per row: text is being generated
            done["decoded_tokens"] += tokens

    def __enter__(self) -> Meter:
        with suppress(ModelError):  # whoever then uses the model gets the error
            self.model.check_head()
            self.model.shares(1)
        self._start, self._stop = time.perf_counter(), threading.Event()

        # A plain function and not the bound method: a method that copies the model copies its
        # hooks, and a bound method would bring the meter and its thread along.
        def count(
            layer: torch.nn.Module,
            args: tuple[torch.Tensor, ...],
            kwargs: dict[str, torch.Tensor],
        ) -> None:
            self._count(layer, args, kwargs)

        self._hooks = [
            layer.register_forward_pre_hook(count, with_kwargs=True) for layer in self._layers
        ]
        for device in self._devices:
            getattr(torch, device.type).reset_peak_memory_stats(device)
        # A thread, because psutil reports the current memory, not the peak over a time.
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        """Sample the resident memory ten times a second until the meter is closed."""
        process = psutil.Process()
        while True:
            used = process.memory_info().rss
            for pid in tuple(helpers.PIDS):
                with suppress(psutil.Error):  # it has just ended
                    used += psutil.Process(pid).memory_info().rss
            self.peak_process = max(self.peak_process, used)
            if self._stop.wait(0.1):
                return

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join()
        for hook in self._hooks:
            hook.remove()
        for done in self.work.values():
            # Sums of shares 1 / n are whole numbers up to rounding, apart from partial passes.
            done.update({name: round(number) for name, number in done.items()})
        before = self.seconds.get("total", 0.0)
        self.seconds["total"] = before + time.perf_counter() - self._start
        used = sum(
            getattr(torch, device.type).max_memory_allocated(device) for device in self._devices
        )
        self.peak_device = max(self.peak_device, used)
