"""KGFact, after Liu et al. 2026 (arXiv 2605.16865): facts of an invented world.

No model can know these facts before it is taught. A world is a graph. Its entities belong to
ordered domains, and each entity has exactly one fact about each later domain, so D domains of E
entities give E*D*(D-1)/2 facts. Within a relation no object is used twice: subject and relation
determine the object, and relation and object determine the subject. The dev and the test slice are
two worlds that share no name.

Differences from the paper's corpus: names, relations and wordings are our own. Paraphrases reword
the question, while the paper puts a phrase before it. Chains are not thinned out by their pattern.
A prompt with context has 12 statements; the paper's have up to 50.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import ClassVar, TypeVar

from editbench.corpora.kgfact_world import DOMAINS, MIDDLES, NAMES, ONSETS, REAL, RELATIONS, VOWELS
from editbench.errors import DataError
from editbench.plugin import Corpus
from editbench.types import Case, Fact, Probe, digest

Item = TypeVar("Item")

TEST, DEV, CONTEXT = "kgfact-a", "kgfact-b", "kgfact-c"
"""The worlds. The first two are also the groups of their cases. The hash of a group decides which
slice it is in, and these names fall into the test and the dev slice."""
SIZES = {"small": (5, 10), "large": (7, 25)}
"""Name of a size -> number of domains, and number of entities in each domain."""
MAX_ENTITIES = 25
"""Most entities of one domain."""
MAX_CHAINS = 3
"""Most two-hop questions of one case."""
STATEMENTS = 12
"""Number of statements in a prompt with context."""


@dataclass(frozen=True)
class Relation:
    """A kind of fact and its wordings, with ``{s}`` and ``{o}`` where subject and object go."""

    key: str
    target: str
    """The domain of the object."""
    statement: str
    question: str
    rewordings: tuple[str, str]
    relative: str
    """A noun phrase that identifies the object by the subject ("the town where {s} was born")."""


@dataclass(frozen=True)
class Link:
    """One fact of a world."""

    subject: str
    relation: Relation
    object: str

    @property
    def statement(self) -> str:
        return self.relation.statement.format(s=self.subject, o=self.object)

    @property
    def question(self) -> str:
        return self.relation.question.format(s=self.subject)


class KGFact(Corpus):
    """Questions about two invented worlds.

    The size is ``small`` (5x10, the default), ``large`` (7x25) or DOMAINSxENTITIES.
    """

    summary = (
        "questions about an invented world, with two-hop chains; "
        "--data small, large or DxE, such as 4x12"
    )
    license = "Apache-2.0"
    form = "question"
    name: ClassVar[str] = "kgfact"

    def load(self, data: str | Path | None = None) -> list[Case]:
        domains, entities = _size(str(data or "small"))
        return [case for world in (TEST, DEV) for case in _cases(world, domains, entities)]


def _size(text: str) -> tuple[int, int]:
    if text in SIZES:
        return SIZES[text]
    match = re.fullmatch(r"([0-9]{1,3})x([0-9]{1,3})", text)
    domains, entities = map(int, match.groups()) if match else (0, 0)
    if not (2 <= domains <= len(DOMAINS) and 2 <= entities <= MAX_ENTITIES):
        raise DataError(
            f"Corpus 'kgfact' has no size {text!r}. Pass --data small (5x10), large (7x25) or "
            f"DOMAINSxENTITIES, with 2 to {len(DOMAINS)} domains and 2 to {MAX_ENTITIES} entities."
        )
    return domains, entities


@cache
def relations() -> dict[tuple[str, str], list[Relation]]:
    """Return the relations of each pair of domains, an earlier one and a later one."""
    by_pair: dict[tuple[str, str], list[Relation]] = {}
    for pair, text in RELATIONS.items():
        lines = text.strip().split("\n")
        by_pair[pair] = []
        # The same iterator five times: zip takes the lines in groups of five.
        for head, question, reworded, again, relative in zip(*[iter(lines)] * 5, strict=True):
            key, statement = head.split(": ", 1)
            by_pair[pair].append(
                Relation(key, pair[1], statement, question, (reworded, again), relative)
            )
    return by_pair


@cache
def names() -> dict[tuple[str, str], list[str]]:
    """Return the names of the entities of each world and domain.

    No invented word is used twice, so no name contains another.
    """
    stems = [onset + vowel + middle for onset in ONSETS for vowel in VOWELS for middle in MIDDLES]
    rng = random.Random(20260630)
    rng.shuffle(stems)

    def name(pattern: str) -> str:
        words = [rng.choice(choices.split("|")) for choices in pattern.split()]
        return " ".join(word.replace("*", stems.pop()) if "*" in word else word for word in words)

    return {
        (w, d): [name(NAMES[d]) for _ in range(MAX_ENTITIES)]
        for w in (TEST, DEV, CONTEXT)
        for d in DOMAINS
    }


@cache
def links(world: str, domains: int, entities: int) -> tuple[Link, ...]:
    """Return the facts of a world with the first ``domains`` domains and ``entities`` of each.

    They are in the order of a depth-first walk: the facts of a subject, then those of each of its
    objects. So even the first few facts contain many complete chains of two.
    """
    rng = random.Random(digest(["links", world, domains, entities]))
    facts_of: dict[str, list[Link]] = {}
    free = {
        relation: names()[world, pair[1]][:entities]
        for pair, kinds in relations().items()
        for relation in kinds
    }
    for place, source in enumerate(DOMAINS[:domains]):
        for subject in rng.sample(names()[world, source][:entities], entities):
            facts_of[subject] = []
            for target in DOMAINS[place + 1 : domains]:
                relation = rng.choice(relations()[source, target])
                # Used up within its relation, so that relation and object determine the subject.
                chosen = rng.choice(free[relation])
                free[relation].remove(chosen)
                facts_of[subject].append(Link(subject, relation, chosen))
    order: dict[str, list[Link]] = {}

    def visit(subject: str) -> None:
        if subject not in order:
            order[subject] = facts_of[subject]
            for link in facts_of[subject]:
                visit(link.object)

    for subject in facts_of:
        visit(subject)
    return tuple(link for facts in order.values() for link in facts)


def _cases(world: str, domains: int, entities: int) -> list[Case]:
    facts = links(world, domains, entities)
    ids = {link: f"{world}-{number:03}" for number, link in enumerate(facts, start=1)}
    pool = {domain: names()[world, domain][:entities] for domain in DOMAINS}
    real, skills = _real(world), _in_context(world)
    cases = []
    for number, link in enumerate(facts):
        rng = random.Random(digest([ids[link], domains, entities]))
        probes = [
            _probe("paraphrase", text.format(s=link.subject), link, pool, rng)
            for text in link.relation.rewordings
        ]
        # A chain asks the second fact's question about "the town where X was born" instead of the
        # town's name, so it needs both facts.
        relative = link.relation.relative.format(s=link.subject)
        onward = [second for second in facts if second.subject == link.object]
        for second in rng.sample(onward, min(MAX_CHAINS, len(onward))):
            probes.append(
                _probe(
                    "portability",
                    second.relation.question.format(s=relative),
                    second,
                    pool,
                    rng,
                    ids[second],
                )
            )
        # ``real`` and ``skills`` are iterators: each question is asked once in the whole slice.
        if number % 2 == 0:
            probes += islice(real, 1)
        if number % 4 == 0:
            probes += islice(skills, 1)
        fact = Fact(
            ids[link],
            link.question,
            link.object,
            link.subject,
            demonstration=f"The answer is {link.object}.",
            relation=link.relation.key,
            form="question",
        )
        cases.append(Case.build(fact, probes, world))
    return cases


def _probe(
    axis: str,
    prompt: str,
    answer: Link,
    pool: dict[str, list[str]],
    rng: random.Random,
    *needs: str,
) -> Probe:
    """Return a question whose answer is the object of ``answer``.

    The distractor is another entity of its domain in ``pool``.
    """
    wrong = rng.choice([name for name in pool[answer.relation.target] if name != answer.object])
    return Probe(axis, prompt, (answer.object,), wrong, "question", needs)


def _half(values: Sequence[Item], world: str) -> list[Item]:
    """Return every second one of the shuffled ``values``. The other world gets the rest."""
    return random.Random(len(values)).sample(values, len(values))[world == DEV :: 2]


def _real(world: str) -> Iterator[Probe]:
    """Yield questions about the real world, which invented facts should not change."""
    for line in _half(REAL.strip().split("\n"), world):
        question, answers, wrong = line.split(" | ")
        yield Probe("neighborhood", question, tuple(answers.split("/")), wrong, "question")


def _in_context(world: str) -> Iterator[Probe]:
    """Yield questions about a third world, with statements about it in the prompt.

    Statements with the same relation or subject come first, because they are the hardest to tell
    apart.
    """
    facts = links(CONTEXT, *SIZES["large"])
    for gold in _half(facts, world):
        rng = random.Random(digest(["context", gold.subject, gold.relation.key]))
        others = [link for link in rng.sample(facts, len(facts)) if link != gold]
        near: list[Link] = []
        far: list[Link] = []
        for link in others:
            related = link.relation == gold.relation or link.subject == gold.subject
            (near if related else far).append(link)
        others = [*near, *far]
        shown = rng.sample([gold, *others[: STATEMENTS - 1]], STATEMENTS)
        background = "\n".join(
            ["Background information:", *(f"- {link.statement}" for link in shown)]
        )
        # If possible, the wrong answer is one that the prompt states of another subject.
        pool = {domain: names()[CONTEXT, domain] for domain in DOMAINS}
        rivals = [link.object for link in shown if link.relation == gold.relation and link != gold]
        if rivals:
            pool[gold.relation.target] = rivals
        yield _probe("in_context", f"{background}\n\n{gold.question}", gold, pool, rng)
