"""What the expert reads: the prompt together with the fact's whole answer.

The expert of ``mixsd`` and the teachers of ``opsd`` and ``pd`` are the base model with the fact in
its prompt. The whole answer is the fact's demonstration, or without one its target. Four prompts
show it:

    after    the question, a sentence that says that its answer follows, the whole answer, and the
             request to answer; all in one user turn. A cloze is raw text, and the expert must go on
             where the target begins; so the answered cloze stands before the cloze itself.
    before   a note with the fact, then the prompt. ``ice`` shows the same note.
    paper    as ``after``, in the words of MixSD (arXiv 2605.16865; jiarui-liu/MixSD at 37eb349,
             ``knowledge_dataset/generate_mixed_distribution_sft_data.py``, MIT licence). The paper
             asks questions only, so a cloze is shown as with ``after`` (``borrowed``).
    sdft     as ``after``, in the words of SDFT's code (arXiv 2601.19897, ``methods/sdft.py``); a
             cloze as with ``paper``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from editbench.models import LanguageModel
from editbench.retrieval import guidance
from editbench.types import Fact
from editbench.writing import full_stop, gap

ExpertPrompt = Literal["after", "before", "paper", "sdft"]
EXPERT_PROMPTS = get_args(ExpertPrompt)
QUESTION = {
    "after": (
        "{prompt}\n\nThe answer to this question is given here:\n\n"
        "{answer}\n\nPlease answer the question now."
    ),
    # The blank line before the answer is the original's: its first part ends with a line end, and
    # the code that joins the parts writes another.
    "paper": (
        "{prompt}\nThis question is from a new knowledge base. "
        "Here is the answer to this question:\n\n"
        "{answer}\nNow answer the question within \\boxed{{}}"
    ),
    "sdft": (
        "\n{prompt}\n\nThis is an example for a response to the question:\n{answer}\n\n"
        "Now answer with a response of your own, including the thinking process.\n"
    ),
}
"""The user turn of a question by ``ExpertPrompt``. ``before`` has a note of its own."""
CLOZE = "{prompt}{gap}{answer}{stop}\n\nRepeat the sentence above:\n\n{prompt}"
"""The text before a cloze's target. ``gap`` and ``stop`` are written as the language does."""


def expert_prompt_ids(model: LanguageModel, fact: Fact, kind: ExpertPrompt) -> list[int]:
    """Return the ids of x+, the prompt from which the expert answers.

    A note that an applied in-context edit would add is left out, since the prompt shows the fact.
    """
    if kind == "before":
        return model.prompt_ids(fact.prompt, fact.form, context=guidance(fact))
    answer = (fact.demonstration or fact.target).strip()
    if fact.form == "question":
        shown = QUESTION[kind].format(prompt=fact.prompt, answer=answer)
    else:
        shown = CLOZE.format(
            prompt=fact.prompt,
            gap=gap(fact.prompt, answer),
            answer=answer,
            stop=full_stop(fact.prompt, answer),
        )
    return model.prompt_ids(shown, fact.form, context="")


def borrowed(facts: Sequence[Fact], kind: ExpertPrompt) -> list[str]:
    """Return a warning if ``kind`` has no prompt of its own for some of ``facts``."""
    clozes = sum(fact.form == "cloze" for fact in facts)
    if kind not in ("paper", "sdft") or not clozes:
        return []
    return [
        f"Clozes among the facts: {clozes} of {len(facts)}. The paper asks questions only, so the "
        "expert was shown them as with expert_prompt=after."
    ]
