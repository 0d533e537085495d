"""Text that a model writes by itself: the ground that every model has, for statistics, replay and diagnostics without data.

``own_texts``: half of it articles on ``TOPICS``, the other half documents and chat turns from nothing (all documents where
there is no chat template). ``own_answers``: its answers to questions that it asks itself, written where a user's turn begins,
as Magpie does (Xu et al. 2024, arXiv 2406.08464). All sampled at temperature 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from editbench import text
from editbench.models import LanguageModel, batched

AT_ONCE = 128
TOPICS = (
    "the history of France; the solar system; a jazz musician; World War II; the Roman Empire; a football club in "
    "England; quantum mechanics; the city of Tokyo; a Russian writer; the river Nile; a television series; Toyota; "
    "the human heart; a Japanese video game; a village in Poland; the United Nations; an Italian composer; a "
    "species of bird; Microsoft; a professor of mathematics; a railway line in India; the Catholic Church; an "
    "American actress; Buddhism; a lake in Finland; the Swedish language; a rock band from Chicago; the president "
    "of Brazil; the chemical elements; a museum in Berlin; a Canadian politician; an airport; the Olympic Games; a "
    "programming language; a hospital in Boston; an island in the Pacific; a bank in Switzerland; a civil war; a "
    "basketball player; a newspaper in Australia"
).split("; ")
"""What half of the model's own text is about: with names and facts in it, as text has around the subjects of edits, memit
of 100 dev facts cost a fifth less KL (``benchmarks/weight_editors.md``)."""


def own_texts(
    model: LanguageModel, tokens: int, seed: int, length: int
) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Some ``tokens`` tokens in texts of ``length``, or of what the model's context holds behind an opening, block by block: of
    each the ids of its opening and of what was written."""
    tokenizer = model.tokenizer
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    openings = [[start if start is not None else 0]]
    if model.chat:
        rendered = model.render("x", "question")
        openings.append(
            text.ids(tokenizer, text.Rendered(rendered.text[: rendered.start], 0, False, ""))
        )
    articles = [
        model.prompt_ids(f"{heading} {topic}\n\n")
        for topic in TOPICS
        for heading in ("#", "An article about")
    ]
    if model.context_length is not None:
        length = min(length, model.context_length - max(map(len, openings + articles)))
    generator = torch.Generator().manual_seed(seed)
    prompts = [
        articles[i // 2 % len(articles)] if i % 2 else openings[i // 2 % len(openings)]
        for i in range(-(-tokens // length))
    ]
    for block in batched(prompts, AT_ONCE):
        written = model.generate_ids(
            block, length, generator=generator, stop=False, batch_size=AT_ONCE
        )
        yield list(zip(block, written, strict=True))


QUESTION_TOKENS = 32


def own_answers(
    model: LanguageModel, n: int, seed: int, length: int
) -> list[tuple[list[int], list[int]]]:
    """At most ``n`` questions of the model's own, each the ids of its prompt and of at most ``length`` tokens of answer with
    the token that ended it; none where there is no chat template."""
    if not model.chat:
        return []
    generator = torch.Generator().manual_seed(seed)
    rendered = model.render("x", "question")
    opening = text.ids(
        model.tokenizer, text.Rendered(rendered.text[: rendered.start], 0, False, "")
    )
    asked = model.generate_ids([opening] * n, QUESTION_TOKENS, generator=generator)
    questions = [words for ids in asked if (words := model.decode(ids).strip())]
    prompts = [model.prompt_ids(words, "question") for words in questions]
    answers = model.generate_ids(prompts, length, generator=generator)
    ended = [ids + model.closing_ids("question") if len(ids) < length else ids for ids in answers]
    return [(prompt, ids) for prompt, ids in zip(prompts, ended, strict=True) if ids]
