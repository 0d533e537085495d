"""The retriever behind in-context edits: which injected fact, if any, is a prompt about?

Pure Python, no model. Facts and prompts are bags of lower-case words, weighted by their rarity
among the facts (inverse document frequency). A fact is retrieved if its subject occurs in the
prompt. A fact without a subject is retrieved if the prompt's words cover most of the weight of its
own prompt.
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
    """Return the words of ``text``, in lower case and without punctuation."""
    return re.findall(r"\w+", text.lower())


class Retriever:
    """Finds the fact that a prompt asks about.

    Among the facts that fit, it picks the one that shares the largest word weight with the prompt.
    Ties go to the later fact, because a later fact replaces an earlier one that it contradicts.
    """

    def __init__(self, facts: Sequence[Fact]):
        self.facts = tuple(facts)
        self._bags = [Counter(words(fact.prompt)) for fact in self.facts]
        # A bag yields each of its words once, so this counts facts, not occurrences.
        counts = Counter(word for bag in self._bags for word in bag)
        # log(1 + N / n): above 0 even for a word that all facts share.
        self._weight = {word: math.log(1 + len(self.facts) / n) for word, n in counts.items()}

    def find(self, prompt: str) -> Fact | None:
        """Return the fact that ``prompt`` is about, or None."""
        asked = set(words(prompt))
        # Spaces around the words keep a subject from being found inside a longer word.
        spaced = f" {' '.join(words(prompt))} "
        best: Fact | None = None
        best_score = 0.0
        for fact, bag in zip(self.facts, self._bags, strict=True):
            shared = sum(self._weight[w] for w in bag if w in asked)
            if fact.subject is not None:
                relevant = f" {' '.join(words(fact.subject))} " in spaced
            else:
                # Weighted, so that "the" and "of" cover little of a prompt.
                relevant = shared >= MIN_COVERAGE * sum(self._weight[w] for w in bag)
            # >=, so that the later of two equal facts wins.
            if relevant and shared and shared >= best_score:
                best, best_score = fact, shared
        return best

    def context(self, prompt: str) -> str | None:
        """Return the retrieved fact as a note to put in front of ``prompt``, or None."""
        fact = self.find(prompt)
        return None if fact is None else guidance(fact)


def guidance(fact: Fact) -> str:
    """Return the fact as a note to put in front of a prompt.

    In-context edits show it. With ``expert_prompt=before`` the expert of mixsd and the teachers of
    opsd and pd read it, too.
    """
    worked = f"\n{fact.demonstration}" if fact.demonstration else ""
    return f"Answer from this note.\nNote: {fact.statement}{worked}"
