"""Facts that contradict what every model knows, or each other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from editbench.corpora._conflict_table import KNOWN, REVERSE, UPDATE, Known, Reverse, Update
from editbench.corpora._invented import Invented, accepted, people, places
from editbench.types import Case, Fact, Probe, form_of

SEED = 1914
PAIRS = 5
"""Number of pairs for each relation."""
SIMILAR = 2
"""Number of neighborhood probes about other subjects of the relation."""


class Conflicts(Invented):
    """Three kinds of conflict. ``relation`` starts with the kind ("update:price").

    - ``known``: a counterfactual of common knowledge (France's capital is Lyon). Neighborhood
      probes ask what stays true of the same things, and ask about the relation's other subjects.
      Portability asks what follows (the capital of the country with Marseille).
    - ``reverse``: two facts from opposite ends that cannot both be true. An invented town's mayor
      is P; then P is the mayor of another town.
    - ``update``: an invented thing gets a value and then, in other words, another value.

    The two facts of a ``reverse`` or ``update`` form one group, and the later one should win. Its
    ``original`` is the value that the earlier one gave. Its paraphrase has a wording of its own.
    Portability asks questions that the earlier fact would answer wrongly or, for ``update``,
    repeats the earlier fact's own prompt. These probes expect the later value if both facts are
    taught (``Probe.needs``). The earlier case has only its rewrite probe, which expects the earlier
    value: if both are taught, a method that follows the order of the facts rightly fails it. So the
    figures to read here are portability, and the efficacy of the later facts.
    """

    summary = (
        "facts against common knowledge, and pairs in which the later fact should win, "
        "shipped with editbench"
    )
    name = "conflicts"

    def cases(self) -> list[Case]:
        rng = random.Random(SEED)
        names = Names(places(rng), people(rng))
        cases = [case for known in KNOWN for case in against_knowledge(known)]
        for holders in REVERSE:
            for number in range(1, PAIRS + 1):
                cases += reverse(holders, number, names)
        for values in UPDATE:
            cases += updates(values, names, rng)
        return cases


@dataclass
class Names:
    """The invented names that have not been used yet."""

    places: Iterator[str]
    people: Iterator[str]

    def make(self, pattern: str) -> str:
        """Return ``pattern`` with a new name for its {place} or {person}."""
        if "{person}" in pattern:
            return pattern.format(person=next(self.people))
        return pattern.format(place=next(self.places))


def against_knowledge(theme: Known) -> list[Case]:
    """Return one case for each row of the theme."""
    cases = []
    for i, row in enumerate(theme.rows):
        target, original = accepted(row.target), accepted(row.original)
        # What the hop should answer after the edit, and what it answers before. Without an entry
        # in ``follows`` it is the value itself.
        follows, instead = (
            accepted(theme.follows.get(value[0], "/".join(value))) for value in (target, original)
        )
        prompts = [template.format(s=row.subject) for template in theme.paraphrases]
        probes = [
            Probe("paraphrase", prompt, target, original[0], form_of(prompt)) for prompt in prompts
        ]
        hop = theme.hop.format(s=row.subject, clue=row.clue)
        probes.append(Probe("portability", hop, follows, instead[0], form_of(hop)))
        prompt, answer, wrong = row.stays
        probes.append(Probe("neighborhood", prompt, accepted(answer), wrong))
        others = [other for other in theme.similar if other[1].split("/")[0] != target[0]]
        for k in range(SIMILAR):
            # In turn, so that all similar subjects are asked about equally often.
            subject, answer = others[(SIMILAR * i + k) % len(others)]
            probes.append(
                Probe("neighborhood", theme.prompt.format(s=subject), accepted(answer), target[0])
            )
        fact = Fact(
            f"conflicts-known-{theme.name}-{i + 1}",
            theme.prompt.format(s=row.subject),
            target[0],
            row.subject,
            original[0],
            target[1:],
            relation=f"known:{theme.name}",
        )
        cases.append(Case.build(fact, probes))
    return cases


def reverse(theme: Reverse, number: int, names: Names) -> list[Case]:
    """Return the cases of the two holders of one {p}: first ``old``, then ``new``."""
    group = f"conflicts-reverse-{theme.name.replace(' ', '-')}-{number}"
    p, old, new, other = (
        names.make(pattern) for pattern in (theme.single, theme.holder, theme.holder, theme.single)
    )
    relation = f"reverse:{theme.name}"
    earlier = Fact(f"{group}-1", theme.earlier.format(h=old), p, old, relation=relation)
    later = Fact(f"{group}-2", theme.later.format(p=p), new, p, old, relation=relation)
    back = theme.back.format(h=new)
    probes = [
        Probe("paraphrase", theme.paraphrase.format(p=p), (new,), old),
        Probe(
            "portability", theme.question.format(p=p), (new,), old, "question", needs=(earlier.id,)
        ),
        Probe("portability", back, (p,), other, "question"),
        *real(theme.stays, number),
    ]
    return [
        Case.build(earlier, real(theme.stays, number + 1), group),
        Case.build(later, probes, group),
    ]


def updates(theme: Update, names: Names, rng: random.Random) -> list[Case]:
    """Return the pairs of one kind of value."""
    if "{" in theme.values:
        values = [names.make(theme.values) for _ in range(2 * PAIRS)]
    else:
        values = theme.values.split("; ")
    rng.shuffle(values)
    cases = []
    for number in range(1, PAIRS + 1):
        old, new = (values[(2 * number + k) % len(values)] for k in range(2))
        cases += update(theme, number, names.make(theme.subject), old, new)
    return cases


def update(theme: Update, number: int, subject: str, old: str, new: str) -> list[Case]:
    """Return the cases of one {s}: first with the value ``old``, then with ``new``."""
    group = f"conflicts-update-{theme.name.replace(' ', '-')}-{number}"
    relation = f"update:{theme.name}"
    was, now = accepted(old), accepted(new)
    earlier = Fact(
        f"{group}-1",
        theme.earlier.format(s=subject),
        was[0],
        subject,
        None,
        was[1:],
        relation=relation,
    )
    later = Fact(
        f"{group}-2",
        theme.later.format(s=subject),
        now[0],
        subject,
        was[0],
        now[1:],
        relation=relation,
    )
    probes = [
        Probe("paraphrase", theme.paraphrase.format(s=subject), now, was[0]),
        Probe("portability", earlier.prompt, now, was[0], needs=(earlier.id,)),
        Probe(
            "portability",
            theme.question.format(s=subject),
            now,
            was[0],
            "question",
            needs=(earlier.id,),
        ),
        *real(theme.stays, number),
    ]
    return [
        Case.build(earlier, real(theme.stays, number + 1), group),
        Case.build(later, probes, group),
    ]


def real(rows: tuple[tuple[str, str, str], ...], turn: int) -> list[Probe]:
    """Return a probe about one real fact of a related kind, taken in turn."""
    prompt, answer, wrong = rows[turn % len(rows)]
    return [Probe("neighborhood", prompt, accepted(answer), wrong)]
