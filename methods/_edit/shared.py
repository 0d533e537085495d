"""What injections into one model share, so that each of them need not compute it again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

import torch

from editbench.methods._edit.endings import goes_on
from editbench.methods._edit.passes import Passes
from editbench.methods.statistics import Moment
from editbench.models import LanguageModel

# S sites, D model width


class Editor(Protocol):
    """What is shared of a ``WeightEditor``."""

    def context(self, model: LanguageModel) -> list[str]: ...

    def moments(
        self, model: LanguageModel, layers: tuple[int, ...], weights: str | None = None
    ) -> Mapping[int, Moment]: ...

    def fisher(self, model: LanguageModel, layer: int) -> torch.Tensor | None: ...


class Shared:
    """Prefixes, statistics and passes of an editor and a model, computed when first needed.

    Whenever it is used to begin an injection, the model has the weights that it had at first.
    """

    def __init__(self, editor: Editor, model: LanguageModel):
        self.editor, self.model = editor, model
        self.passes = Passes(model)
        self.gains: dict[tuple[int, ...] | None, Mapping[int, float]] = {}
        """By layers, for the editors of several layers (``BatchEditor.gains``)."""
        self._moments: dict[tuple[int, ...], Mapping[int, Moment]] = {}
        self._fisher: dict[int, torch.Tensor | None] = {}

    @cached_property
    def weights(self) -> str:
        """The fingerprint of the model's weights."""
        return self.model.fingerprint()

    @cached_property
    def prefixes(self) -> list[str]:
        """The texts that prompts are also read behind."""
        return self.editor.context(self.model)

    @cached_property
    def goes_on_V(self) -> torch.Tensor:
        """Which tokens make another word of the word before them (``endings.py``)."""
        return goes_on(self.model)

    def moments(self, layers: tuple[int, ...]) -> Mapping[int, Moment]:
        """Return C of each of ``layers``."""
        if layers not in self._moments:
            self._moments[layers] = self.editor.moments(self.model, layers, self.weights)
        return self._moments[layers]

    def fisher_SDD(self, layer: int) -> torch.Tensor | None:
        """Return G of each site at ``layer``, if the editor weighs it."""
        if layer not in self._fisher:
            self._fisher[layer] = self.editor.fisher(self.model, layer)
        return self._fisher[layer]
