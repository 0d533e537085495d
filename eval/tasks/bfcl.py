"""One function call of the Berkeley Function Calling Leaderboard, checked on its syntax tree.

Patil, S. et al. (2025), "The Berkeley Function Calling Leaderboard". Rules of ``simple_function_checker`` in
``bfcl_eval/eval_checker/ast_eval/ast_checker.py`` of ShishirPatil/gorilla, for Python and one call.

Differs from the original: the prompt is shorter; a type is right where the value is (5.0 passes for 5, but "5" does not).
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

PROMPT = """\
Here is a function that you can call, as JSON:
{functions}

Answer the question with one call of it, in the form [function_name(argument=value, argument=value)], and nothing else.

Question: {question}"""


def asked(doc: dict[str, Any]) -> str:
    """What the model is given: the function's description, the form of a call, the question."""
    return PROMPT.format(**doc)


def called(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Metric ``call``: 1 if the text is one call of the right function whose arguments are all among the possible answers."""
    ((name, possible),) = json.loads(doc["answers"])[0].items()
    (function,) = json.loads(doc["functions"])
    required = function["parameters"].get("required", [])
    return {"call": float(_is_accepted(parsed(results[0]), name, possible, required))}


def parsed(text: str) -> tuple[str, dict[str, Any]] | None:
    """Name and keyword arguments of the one call that ``text`` is, in brackets or a code fence or bare; else ``None``."""
    text = re.sub(r"^```\w*\n|\n?```$", "", text.strip())
    try:
        call = ast.parse(text.strip("`\n "), mode="eval").body
        if isinstance(call, ast.List | ast.Tuple):
            (call,) = call.elts
        if not isinstance(call, ast.Call) or call.args:
            return None
        return ast.unparse(call.func), {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None


def _is_accepted(
    call: tuple[str, dict[str, Any]] | None, name: str, possible: dict[str, list[Any]], required: list[str]
) -> bool:
    if call is None or call[0] != name or not set(required) <= set(call[1]) <= set(possible):
        return False
    left_out = set(possible) - set(call[1])
    # The empty text among an argument's answers says that it may be left out.
    return all("" in possible[key] for key in left_out) and all(_among(value, possible[key]) for key, value in call[1].items())


def _among(value: Any, answers: list[Any]) -> bool:
    """Whether ``value`` is one of ``answers``, of its type; a dictionary's answer lists the answers of each key."""
    if isinstance(value, dict):
        return any(
            set(value) <= set(answer)
            and all(_among(value[key], answer[key]) if key in value else "" in answer[key] for key in answer)
            for answer in answers
            if isinstance(answer, dict)
        )
    if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        return any(
            len(value) == len(answer) and all(_among(item, [wanted]) for item, wanted in zip(value, answer, strict=True))
            for answer in answers
            if isinstance(answer, list)
        )
    return _plain(value) in [_plain(answer) for answer in answers]


def _plain(value: Any) -> Any:
    """``value`` without what does not count: case, blanks and punctuation of texts, tuple or list, whole or float."""
    if isinstance(value, str):
        return re.sub(r"[ ,./\-_*^]", "", value).lower().replace("'", '"')
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return (isinstance(value, bool), value)  # True is no 1
