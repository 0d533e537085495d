"""The rows that every table has: the unedited model, and the facts given in context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from editbench.edit import Edit
from editbench.memory import Memory, Texts
from editbench.models import LanguageModel
from editbench.outline import Outline
from editbench.pace import Work
from editbench.plugin import Method
from editbench.retrieval import Retriever
from editbench.types import Fact


@dataclass(frozen=True)
class Base(Method):
    """Changes nothing: the model answers as it did before."""

    name: ClassVar[str] = "base"
    kind: ClassVar[str] = "baseline"
    takes_offloaded: ClassVar[bool] = True
    summary: ClassVar[str] = "the unedited model"

    def memory(self, model: Outline, texts: Texts) -> Memory:
        return Memory()

    def work(self, model: Outline, texts: Texts) -> Work:
        return Work()

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Return an edit that changes nothing."""
        return self.edit(model, facts)


@dataclass(frozen=True)
class InContext(Method):
    """In-context editing: the weights stay, and the fact stands before the prompt as a note.

    The fact is retrieved among all injected facts (``editbench.retrieval``). A prompt about none of
    them is asked as it is. This is IKE (Zheng et al. 2023, arXiv 2305.12740) without its
    demonstrations.
    """

    name: ClassVar[str] = "ice"
    kind: ClassVar[str] = "baseline"
    takes_offloaded: ClassVar[bool] = True
    summary: ClassVar[str] = "facts in context, the right one retrieved"
    paper: ClassVar[str] = "arXiv 2305.12740"

    def memory(self, model: Outline, texts: Texts) -> Memory:
        return Memory()

    def work(self, model: Outline, texts: Texts) -> Work:
        return Work()

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Return the edit that puts the retrieved fact in front of a prompt."""
        # No facts must give an empty edit, without a retriever.
        return self.edit(model, facts, context=Retriever(facts) if facts else None)
