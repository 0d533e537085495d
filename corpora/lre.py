"""LRE, the relations of Hernandez et al. (2024, arXiv 2308.09124), as counterfactual edits.

One JSON file for each relation, such as ``factual/landmark_in_country.json``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from editbench.corpora._fetch import Published, read_source
from editbench.corpora._read import (
    Record,
    Row,
    fill,
    foreign,
    list_at,
    read_rows,
    text_at,
    texts_in,
)
from editbench.errors import DataError
from editbench.matching import contains
from editbench.types import Case, Fact, Probe

FIELDS = ("name", "prompt_templates", "samples")
KEPT_APART = 3
"""One sample in so many is never edited. These are the neighbors of the others."""
NEIGHBORS = 3
"""Most neighborhood probes of a fact."""


class LRE(Published):
    """Clozes about the subjects of a relation, edited to the object of another subject.

    The set holds true facts, made to study how models look them up, and no edits. A sample is
    edited as in CounterFact: its target is the ``object`` of another one, drawn by a fixed seed,
    and its own object is the ``original``. One sample in three is left as it is. Of
    these, up to three are the fact's neighbors, first those with the fact's own object.

    The prompt is the first of ``prompt_templates``. The other ones, and those of
    ``prompt_templates_zs`` (wordings for a model that sees no examples), are paraphrases. The
    relation is ``name``.

    With ``--data`` a file of one relation, or a folder: all relations below it.
    """

    summary = "facts of a relation, edited to another object of it (LRE, 47 relations by --data)"
    license = "MIT"
    url = (
        "https://raw.githubusercontent.com/evandez/relations/main/data/factual/"
        "landmark_in_country.json"
    )
    name = "lre"
    source = "LRE"

    def load(self, data: str | Path | None = None) -> list[Case]:
        self._prompts: set[str] = set()
        return super().load(data)

    def read_source(
        self, data: str | Path, sha256: str | None = None
    ) -> tuple[list[Row], str | None]:
        folder = Path(data).expanduser()
        if not folder.is_dir():
            return read_source(data, sha256)
        files = sorted(folder.rglob("*.json"))
        if not files:
            raise DataError(f"{folder} has no .json file of a relation.")
        return [row for file in files for row in read_rows(file)], None

    def read_cases(self, index: int, record: Record) -> list[Case]:
        if not set(FIELDS) <= set(record):
            raise foreign(self.source, f"the fields {', '.join(FIELDS)}", record)
        name = text_at(record, "name")
        first, *others = [
            template
            for field in ("prompt_templates", "prompt_templates_zs")
            if record.get(field)
            for template in texts_in(record[field], field)
        ]
        samples = _samples(record)
        objects = list(dict.fromkeys(held for objects in samples.values() for held in objects))
        drawn = random.Random(f"{self.name} {name}").sample(list(samples), len(samples))
        kept = drawn[::KEPT_APART]
        cases = []
        for number, (subject, held) in enumerate(samples.items()):
            if subject in kept:
                continue
            try:
                prompt = fill(first, subject)
                if prompt in self._prompts:
                    raise DataError(f"An earlier relation already edits {prompt!r}.")
                rng = random.Random(f"{self.name} {name} {subject}")
                fact = Fact(
                    f"{self.name}-{name.replace(' ', '-')}-{number}",
                    prompt,
                    _another(objects, held, rng),
                    subject,
                    held[0],
                    relation=name,
                )
            except DataError as error:
                self.skipped.append(f"record {index}: {name}, {subject}: {error}")
                continue
            self._prompts.add(prompt)
            asked = dict.fromkeys(fill(template, subject) for template in others)
            probes = [
                Probe("paraphrase", wording, fact.answers, fact.original)
                for wording in asked
                if wording != prompt
            ]
            near = [other for other in kept if not _alike(samples[other][0], fact.target)]
            near.sort(key=lambda other: fact.original not in samples[other])  # a stable sort
            probes += [
                Probe("neighborhood", fill(first, other), tuple(samples[other]), fact.target)
                for other in near[:NEIGHBORS]
            ]
            cases.append(Case.build(fact, probes))
        if not cases:
            raise DataError(f"Relation {name!r} has no two objects that can be told apart.")
        return cases


def _samples(record: Record) -> dict[str, list[str]]:
    """Return the objects of each subject, in the order of the file."""
    samples: dict[str, list[str]] = {}
    for sample in list_at(record, "samples", dict, "objects"):
        held = samples.setdefault(text_at(sample, "subject"), [])
        if (value := text_at(sample, "object")) not in held:
            held.append(value)
    return samples


def _another(objects: Sequence[str], held: Sequence[str], rng: random.Random) -> str:
    """Return an object that cannot be taken for one of ``held``.

    Raises:
        DataError: if there is none.
    """
    others = [one for one in objects if not any(_alike(one, true) for true in held)]
    if not others:
        raise DataError(f"No other object can be told apart from {held[0]!r}.")
    return rng.choice(others)


def _alike(one: str, other: str) -> bool:
    return contains(one, [other]) or contains(other, [one])
