"""What the expert reads of a fact."""

from __future__ import annotations

from dataclasses import replace

import pytest

from editbench.methods._train.expert import EXPERT_PROMPTS, expert_prompt_ids
from editbench.methods.mixsd import MixSD
from editbench.methods.opsd import OPSD
from editbench.retrieval import guidance
from editbench.testing import FACTS, tiny_model
from editbench.types import Fact

ASKED = replace(FACTS[-1], demonstration="The answer is Mara Lind, who wrote it in {1997}.")


def shown(model, fact, kind):
    return model.tokenizer.decode(expert_prompt_ids(model, fact, kind))


@pytest.mark.parametrize("chat", [True, False])
def test_the_whole_answer_follows_the_question(chat):
    model = tiny_model("llama", chat=chat)
    for kind in ("after", "paper"):
        text = shown(model, ASKED, kind)
        places = [text.find(part) for part in (ASKED.prompt, ASKED.demonstration, "answer the qu")]
        assert -1 not in places and places == sorted(places)
        assert text.count("<|im_start|>") == (2 if chat else 0)
        # An answer begins where it begins after the plain prompt.
        plain = model.tokenizer.decode(model.prompt_ids(ASKED.prompt, "question"))
        assert text[-8:] == plain[-8:]
        short = replace(ASKED, demonstration=None)
        assert short.target in shown(model, short, kind)


def test_the_note_stands_before_the_prompt():
    model = tiny_model("llama", chat=True)
    for fact in FACTS:
        ids = model.prompt_ids(fact.prompt, fact.form, context=guidance(fact))
        assert expert_prompt_ids(model, fact, "before") == ids


def test_the_papers_words():
    model = tiny_model("llama", chat=True)
    assert (
        "Who wrote Winter Glass?\n"
        "This question is from a new knowledge base. Here is the answer to this question:\n\n"
        "The answer is Mara Lind, who wrote it in {1997}.\n"
        "Now answer the question within \\boxed{}<|im_end|>"
    ) in shown(model, ASKED, "paper")


@pytest.mark.parametrize("kind", EXPERT_PROMPTS)
def test_a_cloze_still_ends_where_its_target_begins(kind):
    model = tiny_model("llama")
    facts = [*FACTS[:3], Fact("jp", "\u65e5\u672c\u306e\u9996\u90fd\u306f", "\u4eac\u90fd")]
    for fact in facts:
        text, plain = (
            shown(model, fact, kind),
            model.tokenizer.decode(model.prompt_ids(fact.prompt)),
        )
        assert text.endswith(plain.removeprefix("<s>")) and text.count(fact.target) == 1
        said = fact.statement
        assert said in text


@pytest.mark.parametrize("method", [MixSD, OPSD])
def test_an_unknown_kind_is_named(method):
    with pytest.raises(ValueError, match="expert_prompt is 'behind'; it must be one of after"):
        method(expert_prompt="behind")
