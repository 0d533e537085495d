"""The state of a training on the disk: killed, it goes on and gives the same weights bit for bit.

One safetensors file holds the trained parameters and AdamW's two moments (12 bytes a trained
parameter), and as its metadata the course of the training and what the training is of.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from editbench import __version__, processes, unfinished
from editbench.errors import MethodError, OptionError, RecordError
from editbench.files import replacing
from editbench.methods._train.trainer import Trainer
from editbench.models import LanguageModel

EVERY = 300.0
"""Seconds of training between two times that its state is written."""


@dataclass
class Course:
    """How far a training is: all that the next step depends on, beside the tensors."""

    end: int
    """Number of steps at which it ends."""
    lr: float = 0.0
    losses: list[float] = field(default_factory=list)
    steps: int = 0
    tokens: int = 0
    forwarded: int = 0
    learnt: bool = False
    anchor: list[Any] | None = None
    """The order in which the anchor draws its texts (``Anchor.order``)."""


class Kept:
    """The file of a training's state.

    Args:
        texts: the hash of the texts that are trained on; None: the method draws while it trains.

    Raises:
        MethodError: the state of this method cannot be kept.
    """

    def __init__(self, options: Trainer, model: LanguageModel, texts: str | None, path: Path):
        if texts is None or processes.count() > 1:
            why = "it draws while it trains" if texts is None else "several processes train"
            raise MethodError(
                f"The state of this training by {options.name} cannot be kept, since {why}. Leave "
                "the checkpoint out."
            )
        self.path, self.written = path, time.monotonic()
        self.about = {
            "the model": f"{model.name} ({model.fingerprint()})",
            "the method": str(options),
            "the hash of the training texts": texts,
            "the precision": f"{model.precision} on {model.device}, {torch.get_num_threads()} "
            "threads",
            "editbench": __version__,
            "torch": torch.__version__,
        }

    @torch.no_grad()
    def read(
        self, weights: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> Course | None:
        """Set weights and optimizer to the state in the file; None if there is no file.

        Raises:
            OptionError: it is the state of another training.
            RecordError: the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                about, course = (json.loads(file.metadata()[key]) for key in ("about", "course"))
                self._check(about)
                names = set(file.keys())
                for name, p in weights.items():
                    p.copy_(file.get_tensor(f"weight {name}"))
                    if f"step {name}" in names:
                        optimizer.state[p] = {
                            key: file.get_tensor(f"{key} {name}").to(p.device, copy=True)
                            for key in ("step", "exp_avg", "exp_avg_sq")
                        }
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RecordError(
                f"The checkpoint {self.path} is damaged. Remove it to begin anew."
            ) from error
        return Course(**course)

    def _check(self, about: Mapping[str, str]) -> None:
        for what, ours in self.about.items():
            if about.get(what) != ours:
                raise OptionError(
                    f"The checkpoint in {self.path.parent} is of another training: {what} was "
                    f"{about.get(what)} and is {ours}. Repeat the command that wrote it, or name "
                    "another folder."
                )

    def write(
        self,
        course: Course,
        weights: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Write the state, if the last time was long enough ago.

        Raises:
            RecordError: the disk is full, or the folder cannot be written.
        """
        if time.monotonic() - self.written < EVERY:
            return
        tensors = {f"weight {name}": p.detach().contiguous() for name, p in weights.items()}
        for name, p in weights.items():
            for key, value in optimizer.state.get(p, {}).items():
                tensors[f"{key} {name}"] = value.contiguous()
        texts = {"about": json.dumps(self.about), "course": json.dumps(asdict(course))}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as temporary:
                save_file(tensors, temporary, texts)
        except (OSError, SafetensorError) as error:
            raise RecordError(f"The checkpoint {self.path} cannot be written: {error}.") from error
        self.written = time.monotonic()


def kept(options: Trainer, model: LanguageModel, texts: str | None) -> Kept | None:
    """Return where this training keeps its state; None unless the caller has named a folder.

    Raises:
        MethodError: as ``Kept``.
    """
    path = unfinished.file()
    return None if path is None else Kept(options, model, texts, path)
