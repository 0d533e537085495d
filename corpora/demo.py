"""The project's own two corpora, shipped with the package.

``data/README.md`` says how they were made.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

from editbench.errors import DataError
from editbench.plugin import Corpus
from editbench.types import Case


class Demo(Corpus):
    """A corpus whose cases are a JSONL file in this package."""

    license = "Apache-2.0"
    name: ClassVar[str]
    file: ClassVar[str]

    def load(self, data: str | Path | None = None) -> list[Case]:
        if data is not None:
            raise DataError(
                f"Corpus {self.name!r} is built in and takes no --data (got {str(data)!r}). "
                "Leave it out."
            )
        text = (files("editbench.corpora") / "data" / self.file).read_text(encoding="utf-8")
        return [Case.from_dict(json.loads(line)) for line in text.splitlines()]


class DemoCounterFact(Demo):
    """Counterfactual clozes. Neighbors are other subjects with the same original answer."""

    summary = "counterfactual clozes with paraphrases and neighbors, shipped with editbench"
    name = "demo-counterfact"
    file = "demo_counterfact.jsonl"


class DemoZsre(Demo):
    """Counterfactual questions with rephrasings. Neighborhood probes ask about other relations."""

    summary = (
        "counterfactual questions with rephrasings and unrelated questions, shipped with editbench"
    )
    form = "question"
    name = "demo-zsre"
    file = "demo_zsre.jsonl"
