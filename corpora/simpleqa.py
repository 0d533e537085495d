"""SimpleQA (Wei et al. 2024, arXiv 2411.04368): short questions on little-known facts, each with one undisputed answer."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from editbench.corpora._fetch import Published
from editbench.corpora._read import text_at
from editbench.errors import DataError
from editbench.types import Case, Fact

THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
LONG_NAME = re.compile(r"(\S+\s.*\S)\s*\([^()]*\)\.?")
ROOM_TOKENS = 32


class SimpleQA(Published):
    """Questions with their true answers: nothing but the rewrite probe, for the set has neither rewordings nor neighbors.

    Two kinds of aliases follow from an answer's text: numbers without thousands separators ("1,234 mm" is "1234 mm"), and two
    or more words without the parenthesis that ends the answer ("4.5 m (15 ft)" is "4.5 m"). The relation is the topic.
    """

    summary = "questions on little-known facts with their true answers, efficacy only (OpenAI, 4,326 records)"
    license = "MIT"
    form = "question"
    url = "https://openaipublic.blob.core.windows.net/simple-evals/simple_qa_test_set.csv"
    name = "simpleqa"

    def read_case(self, index: int, record: Mapping[str, Any]) -> Case:
        if not {"problem", "answer"} <= set(record):
            raise DataError(
                f"It has not SimpleQA's fields (problem, answer), but {', '.join(map(str, record)) or 'none'}."
            )
        answer = text_at(record, "answer")
        fact = Fact(
            f"{self.name}-{index}",
            text_at(record, "problem"),
            answer,
            aliases=_aliases(answer),
            relation=_topic(record.get("metadata")),
            form="question",
        )
        # half a token a character, where that is more than a question's answer gets anyway
        return Case.build(
            fact, max_new_tokens=len(answer) // 2 if len(answer) // 2 > ROOM_TOKENS else None
        )


def _aliases(answer: str) -> tuple[str, ...]:
    short = LONG_NAME.fullmatch(answer)
    wordings = [short[1]] if short else []
    wordings += [THOUSANDS.sub("", wording) for wording in (answer, *wordings)]
    return tuple(wording for wording in dict.fromkeys(wordings) if wording != answer)


def _topic(metadata: Any) -> str | None:
    """The topic in ``metadata``, a dict written in Python; ``None`` where it cannot be read, which costs no fact."""
    try:
        found = ast.literal_eval(metadata)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    topic = found.get("topic") if isinstance(found, dict) else None
    return topic if isinstance(topic, str) else None
