"""SimpleQA (Wei et al. 2024, arXiv 2411.04368): short questions on little-known facts.

Each question has one undisputed answer.
"""

from __future__ import annotations

import ast
import re

from editbench.corpora._fetch import Published
from editbench.corpora._read import Record, foreign, text_at
from editbench.types import Case, Fact

THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
"""Matches a comma between thousands."""
LONG_NAME = re.compile(r"(\S+\s.*\S)\s*\([^()]*\)\.?")
"""Matches two or more words followed by a parenthesis at the end."""
ROOM_TOKENS = 32
"""New tokens that every answer to a question may have."""


class SimpleQA(Published):
    """Questions with their true answers.

    The set has neither rewordings nor neighbors, so a case has only its rewrite probe. Two kinds
    of aliases follow from the text of an answer: numbers without thousands separators ("1,234 mm"
    gives "1234 mm"), and two or more words without the parenthesis after them ("4.5 m (15 ft)"
    gives "4.5 m"). The relation is the topic.
    """

    summary = (
        "questions on little-known facts with their true answers, efficacy only "
        "(OpenAI, 4,326 records)"
    )
    license = "MIT"
    form = "question"
    url = "https://openaipublic.blob.core.windows.net/simple-evals/simple_qa_test_set.csv"
    name = "simpleqa"
    source = "SimpleQA"

    def read_case(self, index: int, record: Record) -> Case:
        if not {"problem", "answer"} <= set(record):
            raise foreign(self.source, "the fields problem and answer", record)
        answer = text_at(record, "answer")
        fact = Fact(
            f"{self.name}-{index}",
            text_at(record, "problem"),
            answer,
            aliases=_aliases(answer),
            relation=_topic(record.get("metadata")),
            form="question",
        )
        # A token has about two characters or more. Short answers fit into the usual limit.
        room = len(answer) // 2
        return Case.build(fact, max_new_tokens=room if room > ROOM_TOKENS else None)


def _aliases(answer: str) -> tuple[str, ...]:
    """Return other wordings of ``answer`` that follow from its text."""
    short = LONG_NAME.fullmatch(answer)
    wordings = [short[1]] if short else []
    wordings += [THOUSANDS.sub("", wording) for wording in (answer, *wordings)]
    return tuple(wording for wording in dict.fromkeys(wordings) if wording != answer)


def _topic(metadata: object) -> str | None:
    """Return the topic in ``metadata``, a dict in Python syntax; ``None`` if it cannot be read."""
    if not isinstance(metadata, str):
        return None
    try:
        value = ast.literal_eval(metadata)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    topic = value.get("topic") if isinstance(value, dict) else None
    return topic if isinstance(topic, str) else None
