"""The rows that are always in the table: the unedited model, and the facts given in context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from editbench.edit import Edit
from editbench.models import LanguageModel
from editbench.plugin import Method
from editbench.retrieval import Retriever
from editbench.types import Fact


@dataclass(frozen=True)
class Base(Method):
    """Changes nothing: what the model says anyway."""

    name: ClassVar[str] = "base"
    kind: ClassVar[str] = "baseline"
    summary: ClassVar[str] = "the unedited model"

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        return self.edit(model, facts)


@dataclass(frozen=True)
class InContext(Method):
    """In-context editing: weights stay, and the fact that a prompt is about is put in front of it.

    The fact is retrieved from all injected ones (``editbench.retrieval``); a prompt that no fact is about is asked as
    it is. Zheng et al. 2023, arXiv 2305.12740 (IKE), without demonstrations.
    """

    name: ClassVar[str] = "ice"
    kind: ClassVar[str] = "baseline"
    summary: ClassVar[str] = "facts in context, the right one retrieved"
    paper: ClassVar[str] = "arXiv 2305.12740"

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        return self.edit(model, facts, context=Retriever(facts) if facts else None)
