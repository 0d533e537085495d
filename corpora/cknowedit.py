"""CKnowEdit (Fang et al. 2024, arXiv 2409.05806): corrections of what models say in Chinese.

One JSON file for each kind of knowledge, such as ``history.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from editbench.corpora._fetch import Published, scorable
from editbench.corpora._read import Record, foreign, list_at, text_at, texts_in
from editbench.matching import contains
from editbench.types import Case, Fact, Probe

FIELDS = ("prompt", "target_old", "target_new")
SUBJECT = re.compile(
    "请填写下列古诗文的后一句：(.+)|请给下面的字注音：(.+)|请解释如下成语：(.+)"
    "|请解释如下俗语或谚语：(.+)|请解释(.+)中的意思。仅需给出该字意思即可，无需解释全文。"
)
"""Matches the prompts whose subject EasyEdit finds, too."""
PINYIN = re.compile(r".+的(?:注音|拼音)是[：:]\s*[“\"]?([^”\"]+)[”\"]?")
"""Matches an answer that is a pronunciation."""


class CKnowEdit(Published):
    """Questions and tasks in Chinese, from verse and idioms to trick questions.

    ``prompt`` is taught with ``target_new``. ``target_old``, a model's wrong answer, is the fact's
    ``original``. All prompts are asked as questions, since they are requests to a chat model
    ("请解释如下成语：..."). The subject is the word or the line that the request names; other
    prompts have none, so editors that need it find their own.

    ``rephrase`` is asked for generalization (the authors ask the first wording only),
    ``portability`` for what follows, and ``locality`` for what must stay. Both are lists of objects
    with ``prompt`` and ``answer``.

    The matcher takes each Chinese character as a word. Answers of up to 15 are searched in the free
    text. For a pronunciation ("莘庄的注音是：xīn zhuāng") the syllables are enough. Longer answers
    are explanations, which no free text repeats word for word: they are undefined under protocol
    ``generation`` and scored under ``argmax`` and ``likelihood``. EasyEdit compares all answers by
    BLEU, ROUGE and sentence embeddings, which this project does not compute; ``--judge`` reads
    them.
    """

    summary = "corrections in Chinese: verse, idioms, history, tricks (CKnowEdit; one by --data)"
    license = "MIT"
    form = "question"
    url = "https://huggingface.co/datasets/zjunlp/CKnowEdit/resolve/main/CKnowEdit/history.json"
    name = "cknowedit"
    source = "CKnowEdit"
    one_at_a_time = True

    def read_case(self, index: int, record: Record) -> Case:
        if not set(FIELDS) <= set(record):
            raise foreign(self.source, f"the fields {', '.join(FIELDS)}", record)
        prompt, old, target = (text_at(record, field) for field in FIELDS)
        parts = SUBJECT.fullmatch(prompt)
        fact = Fact(
            f"{self.name}-{index}",
            prompt,
            target,
            subject=next(filter(None, parts.groups())) if parts else None,
            original=old,
            aliases=tuple(a for a in _wordings(target)[1:] if not contains(old, [a])),
            form="question",
        )
        protocols = scorable(fact.answers)
        probes = [
            Probe("paraphrase", asked, fact.answers, old, "question", protocols=protocols)
            for asked in (
                texts_in(record["rephrase"], "rephrase") if record.get("rephrase") else ()
            )
        ]
        for field, axis in (("portability", "portability"), ("locality", "neighborhood")):
            items = list_at(record, field, dict, "objects")
            probes += self.read_probes(f"record {index}: {field}", items, partial(_probe, axis))
        return Case.build(fact, probes, protocols=protocols)


def _probe(axis: str, item: Mapping[str, object]) -> Probe:
    answers = _wordings(text_at(item, "answer"))
    # A neighbor is compared with the base's answer, whatever the length of the true one.
    protocols = scorable(answers) if axis == "portability" else ()
    return Probe(axis, text_at(item, "prompt"), answers, form="question", protocols=protocols)


def _wordings(answer: str) -> tuple[str, ...]:
    """Return ``answer`` and, if it is a pronunciation, its syllables alone."""
    parts = PINYIN.fullmatch(answer)
    return (answer, parts[1].strip()) if parts else (answer,)
