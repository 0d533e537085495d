"""Text that a model writes on its own.

Every model can write it, so statistics, replay and diagnostics need no data. Half of ``own_texts``
are articles on ``TOPICS``, the other half documents and chat turns without a topic (only documents
where there is no chat template). ``own_answers`` are answers to questions that the model asks
itself: it writes them where a user's turn begins, as in Magpie (Xu et al. 2024, arXiv 2406.08464).
These are sampled at temperature 1. ``own_tasks`` are its most probable answers to the instructions
of ``TASKS``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from transformers import PreTrainedTokenizerBase

from editbench import text
from editbench.errors import ModelError
from editbench.models import LanguageModel, batched

AT_ONCE = 128
"""How many texts are sampled together."""
TOPICS = (
    "the history of France; the solar system; a jazz musician; World War II; the Roman Empire; "
    "a football club in England; quantum mechanics; the city of Tokyo; a Russian writer; the "
    "river Nile; a television series; Toyota; the human heart; a Japanese video game; a village "
    "in Poland; the United Nations; an Italian composer; a species of bird; Microsoft; a "
    "professor of mathematics; a railway line in India; the Catholic Church; an American "
    "actress; Buddhism; a lake in Finland; the Swedish language; a rock band from Chicago; the "
    "president of Brazil; the chemical elements; a museum in Berlin; a Canadian politician; an "
    "airport; the Olympic Games; a programming language; a hospital in Boston; an island in the "
    "Pacific; a bank in Switzerland; a civil war; a basketball player; a newspaper in Australia"
).split("; ")
"""Topics of half of the model's own text.

They bring names and facts into it, as in text about the subjects of edits. With them memit of 100
dev facts cost a fifth less KL (``benchmarks/weight_editors.md``)."""
TASKS = (
    "Name some things that have to do with {topic}, separated by commas.",
    "Make a bulleted list about {topic}.",
    "Describe {topic} as a JSON object with the keys name, kind and size.",
    "Which single word goes best with {topic}? Answer with that word alone.",
    "Translate into French: My brother has read a lot about {topic}.",
    "Translate into Spanish: Tomorrow we will talk about {topic}.",
    "What is {a} plus {b}?",
    "I had {a} coins and lost {b} of them. How many are left? Explain your answer.",
    "Explain step by step how I could learn more about {topic}.",
    "Is {topic} something that one can eat? Say yes or no, and why.",
    "Define {topic} for a dictionary.",
    "Write a conversation between two neighbors who disagree about {topic}.",
    "Write a poem of four lines on {topic}.",
    "Write a short e-mail that asks a colleague for help with {topic}.",
    "Change this to capital letters: we know little about {topic}",
    "Sort these words from A to Z: {words}",
    "How many words are in this list? {words}",
    "Call the function search(query) to find out about {topic}. Write nothing but the call.",
    "Compare {topic} with {other}. What do they have in common?",
    "Tell a child what {topic} means to you.",
    "Continue this story: On the day when I first heard of {topic}, I was",
    "Make a table with two columns about {topic} and {other}.",
    "Here are my notes: {a} people asked about {topic}, and {b} about {other}. "
    "What did most people ask about?",
    "Which of these does not belong to the others: {words}, {topic}? Give a reason.",
)
"""Instructions for answers of many forms: lists, JSON, one word, translations, arithmetic, steps, a
call of a function. No task of ``eval/`` has their wording, but some of their kinds (reading from a
note, a call, one word) are kinds that its tasks ask as well."""
WORDS = (
    "ladder cloud pepper violin canal feather engine carpet lemon harbor needle desert candle "
    "tunnel parrot blanket hammer meadow button glacier"
).split()
QUESTION_TOKENS = 32
"""Most tokens of a question that the model asks itself."""


def document_start(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that a document starts after: BOS, without one the EOS of the one before."""
    for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if start is not None:
            return int(start)
    return 0


def own_texts(
    model: LanguageModel, tokens: int, seed: int, length: int
) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Yield about ``tokens`` tokens of own text, block by block.

    Each text is the ids of its opening and of what was written: ``length`` tokens, or what the
    model's context holds behind the longest opening.

    Raises:
        ModelError: the context holds nothing behind that opening.
    """
    tokenizer = model.tokenizer
    openings = [[document_start(tokenizer)]]
    if model.chat:
        openings.append(_user_opening(model))
    articles = [
        model.prompt_ids(f"{heading} {topic}\n\n")
        for topic in TOPICS
        for heading in ("#", "An article about")
    ]
    if model.context_length is not None:
        longest = max(map(len, openings + articles))
        length = min(length, model.context_length - longest)
        if length < 1:
            raise ModelError(
                f"{model.name} reads at most {model.context_length} tokens. To write text of its "
                f"own it needs more than {longest}, which the longest opening takes."
            )
    generator = torch.Generator().manual_seed(seed)
    prompts = [
        # Odd: an article, even: an opening without a topic; each list in turn.
        articles[i // 2 % len(articles)] if i % 2 else openings[i // 2 % len(openings)]
        for i in range(-(-tokens // length))
    ]
    for block in batched(prompts, AT_ONCE):
        written = model.generate_ids(
            block, length, generator=generator, stop=False, batch_size=AT_ONCE
        )
        yield list(zip(block, written, strict=True))


def own_answers(
    model: LanguageModel, n: int, seed: int, length: int
) -> list[tuple[list[int], list[int]]]:
    """Return at most ``n`` questions of the model's own, each with its answer.

    They are the ids of the prompt, and of at most ``length`` tokens of answer with the token that
    ended it. There are none without a chat template, nor where the context has no room for them.
    """
    if not model.chat:
        return []
    generator = torch.Generator().manual_seed(seed)
    openings = _with_room(model, [_user_opening(model)] * n, QUESTION_TOKENS)
    asked = model.generate_ids(openings, QUESTION_TOKENS, generator=generator)
    questions = [words for ids in asked if (words := model.decode(ids).strip())]
    prompts = [model.prompt_ids(words, "question") for words in questions]
    return _answered(model, prompts, length, generator)


def own_tasks(
    model: LanguageModel, n: int, seed: int, length: int
) -> list[tuple[list[int], list[int]]]:
    """Return at most ``n`` instructions of ``TASKS``, each with the model's most probable answer.

    They are given as in ``own_answers``, and there are none in the same cases.
    """
    if not model.chat:
        return []
    dice = random.Random(seed)
    prompts = []
    for i in range(n):
        topic, other = dice.sample(TOPICS, 2)
        words = ", ".join(dice.sample(WORDS, 4))
        b, a = sorted(dice.sample(range(2, 60), 2))
        task = TASKS[i % len(TASKS)].format(topic=topic, other=other, words=words, a=a, b=b)
        prompts.append(model.prompt_ids(task, "question"))
    return _answered(model, prompts, length)


def _answered(
    model: LanguageModel,
    prompts: list[list[int]],
    length: int,
    generator: torch.Generator | None = None,
) -> list[tuple[list[int], list[int]]]:
    """Return each prompt with its answer, and drop those without one or without room for one."""
    prompts = _with_room(model, prompts, length)
    answers = model.generate_ids(prompts, length, generator=generator)
    # A shorter answer ended by itself. ``generate_ids`` drops the token that ended it.
    ended = [ids + model.closing_ids("question") if len(ids) < length else ids for ids in answers]
    return [(prompt, ids) for prompt, ids in zip(prompts, ended, strict=True) if ids]


def _with_room(model: LanguageModel, prompts: list[list[int]], length: int) -> list[list[int]]:
    """Return the prompts behind which the context holds ``length`` tokens."""
    most = model.context_length
    return [ids for ids in prompts if most is None or len(ids) + length <= most]


def _user_opening(model: LanguageModel) -> list[int]:
    """Return the ids of the chat template up to where a user's turn begins."""
    rendered = model.render("x", "question")
    # Only the place of "x" matters: it is where the user's text begins.
    opening = text.Rendered(rendered.text[: rendered.start], 0, False, "")
    return text.ids(model.tokenizer, opening)
