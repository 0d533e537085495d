"""The retriever behind in-context edits: which injected fact, if any, a prompt is about. Pure Python, no model.

Facts and prompts are bags of lower-case words, weighted by rarity among the facts (inverse document frequency). A
fact is retrieved when its subject stands in the prompt, or, without a subject, when the prompt's words cover most of
the weight of the fact's prompt.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from editbench.types import Fact

MIN_COVERAGE = 0.6
"""Share of a subject-free fact's word weight that a prompt must cover."""


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class Retriever:
    """Finds the fact that a prompt asks about.

    Among the facts whose subject stands in the prompt, the one with the largest shared word weight; ties go to the
    later fact, which is what holds where two contradict each other.
    """

    def __init__(self, facts: Sequence[Fact]):
        self.facts = tuple(facts)
        self._bags = [Counter(words(fact.prompt)) for fact in self.facts]
        counts = Counter(word for bag in self._bags for word in bag)
        self._weight = {word: math.log(1 + len(self.facts) / n) for word, n in counts.items()}

    def find(self, prompt: str) -> Fact | None:
        """The fact that ``prompt`` is about, or None."""
        asked = set(words(prompt))
        spaced = f" {' '.join(words(prompt))} "
        best, best_score = None, 0.0
        for fact, bag in zip(self.facts, self._bags, strict=True):
            shared = sum(self._weight[w] for w in bag if w in asked)
            if fact.subject is not None:
                relevant = f" {' '.join(words(fact.subject))} " in spaced
            else:
                relevant = shared >= MIN_COVERAGE * sum(self._weight[w] for w in bag)
            if relevant and shared and shared >= best_score:
                best, best_score = fact, shared
        return best

    def context(self, prompt: str) -> str | None:
        """The text to stand before ``prompt``: the retrieved fact as a note, or None."""
        fact = self.find(prompt)
        return None if fact is None else guidance(fact)


def guidance(fact: Fact) -> str:
    """The fact as a note in front of a prompt: what in-context editing shows, and what the expert and the teacher read."""
    worked = f"\n{fact.demonstration}" if fact.demonstration else ""
    return f"Answer from this note.\nNote: {fact.statement}{worked}"
