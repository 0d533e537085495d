"""Compare the matcher with a human reader on texts that models wrote.

    python benchmarks/matcher.py

``results/matcher_pairs.json`` holds 140 pairs of a text and its accepted answers, from the stored
run of the published table (``leaderboard/results``). Hard ones were drawn more often: texts that
deny something, and texts that share a word with an answer without containing it. A reader judged
them before version 8 of the scoring was written: does this text, as the answer to this prompt,
give one of the accepted answers, and not deny it? One half (``visible``) was at hand while the
matcher was written. The other (``held back``) was first seen by the finished matcher.

A false accept is a text that matches although the reader says no; a false reject is the reverse.
``version_7`` is the verdict of the matcher before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from editbench.matching import contains

PAIRS = Path(__file__).parent / "results" / "matcher_pairs.json"


class Pair(TypedDict):
    """One judged pair."""

    half: str
    axis: str
    method: str
    prompt: str
    text: str
    answers: list[str]
    right: bool
    """The reader's verdict."""
    version_7: bool
    """The verdict of the matcher of scoring version 7."""


def wrong(pairs: Sequence[Pair], verdicts: Sequence[bool], kind: str) -> list[Pair]:
    """Return the pairs on which a matcher and the reader differ.

    Args:
        kind: ``accepts`` for false accepts, ``rejects`` for false rejects.
    """
    return [
        pair
        for pair, verdict in zip(pairs, verdicts, strict=True)
        if verdict != pair["right"] and verdict == (kind == "accepts")
    ]


def main() -> None:
    """Print the errors on each half, before and after, and the texts behind those of today."""
    every: list[Pair] = json.loads(PAIRS.read_text(encoding="utf-8"))
    for half in ("visible", "held back"):
        pairs = [pair for pair in every if pair["half"] == half]
        right = sum(pair["right"] for pair in pairs)
        print(f"{half}: {len(pairs)} pairs, {right} of them right")
        now = [contains(pair["text"], pair["answers"]) for pair in pairs]
        for kind in ("accepts", "rejects"):
            before = wrong(pairs, [pair["version_7"] for pair in pairs], kind)
            after = wrong(pairs, now, kind)
            print(f"  false {kind}: {len(before)} before, {len(after)} now")
            for pair in after:
                print(f"    {pair['answers']} / {pair['text']!r}")


if __name__ == "__main__":
    main()
