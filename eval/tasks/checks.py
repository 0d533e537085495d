"""What the bundled task files refer to with ``!function``: reading their data, and grading what was generated.

Beside the YAML files, so that ``lm_eval --include_path`` runs them without this package.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


def load(data: str, **_: Any) -> dict[str, Any]:
    """Split ``test`` out of ``data/<data>``, held in memory: nothing is cached, nothing is fetched."""
    from datasets import Dataset

    lines = (DATA / data).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def answered(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Metric ``contains``: 1 if the expected answer stands, as whole words, in the first line of the text."""
    return {"contains": float(says(results[0].strip().split("\n")[0], doc["answer"]))}


def computed(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Metric ``exact``: 1 if the first number of the text is the expected one."""
    found = re.search(r"-?\d+", results[0].replace(",", ""))
    return {"exact": float(bool(found) and found.group() == doc["answer"])}


def concluded(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Metric ``exact``: 1 if the word after the first ``answer is`` of the first line is the expected one."""
    found = re.search(r"answer is (?:the )?(\w+)", results[0].strip().split("\n")[0], re.IGNORECASE)
    return {"exact": float(bool(found) and found.group(1).lower() == doc["answer"].lower())}


def called(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Metric ``call``: 1 if the first JSON object of the text is the expected call: the tool's name, and each argument of the
    schema with its value and type, no other. The case of texts is free."""
    start = results[0].find("{")
    try:
        found, _ = json.JSONDecoder().raw_decode(results[0][max(start, 0) :])
    except ValueError:
        return {"call": 0.0}
    return {"call": float(_plain(found) == _plain(json.loads(doc["answer"])))}


def _plain(value: Any) -> str:
    # As text, in which 1, 1.0, true and "1" differ; in Python the first three are equal.
    return json.dumps(value, sort_keys=True).lower()


def followed(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Metric ``follow``: 1 if the text passes the check of the item's kind."""
    return {"follow": float(bool(results[0].strip()) and CHECKS[doc["kind"]](results[0].strip(), doc["n"], doc["words"]))}


def says(text: str, phrase: str) -> bool:
    """Whether ``phrase`` stands in ``text`` as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


def count_words(text: str) -> int:
    """How many words ``text`` has; the same word said over and over counts three times at most."""
    words = [w.strip(string.punctuation).lower() for w in text.split()]
    return sum(min(words.count(w), 3) for w in set(words) if w)


def sentences(text: str) -> list[str]:
    """The sentences of ``text``, by their final marks."""
    return [s for s in re.split(r"(?<=[.!?])[\"'”’)]*\s+", text.strip()) if count_words(s)]


def _one_sentence(text: str, n: int, words: list[str]) -> bool:
    return len(sentences(text)) == 1 and count_words(text) >= n and text.rstrip("\"'”’)").endswith((".", "!"))


def _keywords(text: str, n: int, words: list[str]) -> bool:
    return all(says(text, w) for w in words) and count_words(text) >= n


def _opening(text: str, n: int, words: list[str]) -> bool:
    return text.lstrip("\"'“‘*").lower().startswith(words[0].lower()) and count_words(text) >= n


def _numbered_list(text: str, n: int, words: list[str]) -> bool:
    return [int(m) for m in re.findall(r"^\s*(\d+)[.)]\s+\S", text, re.MULTILINE)] == list(range(1, n + 1))


def _question(text: str, n: int, words: list[str]) -> bool:
    return text.rstrip("\"'”’)*").endswith("?") and count_words(text) >= n


def _repeat(text: str, n: int, words: list[str]) -> bool:
    return text.strip("\"'“”‘’ ").rstrip(".").lower() == words[0].rstrip(".").lower()


def _title(text: str, n: int, words: list[str]) -> bool:
    return "\n" not in text and 2 <= count_words(text) <= n and not text.endswith(".")


CHECKS: dict[str, Callable[[str, int, list[str]], bool]] = {
    "min-words": _keywords,
    "one-sentence": _one_sentence,
    "keyword": _keywords,
    "two-keywords": _keywords,
    "opening": _opening,
    "letter": _opening,
    "numbered-list": _numbered_list,
    "question": _question,
    "repeat": _repeat,
    "long-keyword": _keywords,
    "title": _title,
}
