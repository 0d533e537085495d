"""Facts that hold for a period: who held an office, what a thing cost, which version was out."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from editbench.corpora._invented import Invented, accepted, people, places
from editbench.types import Case, Fact, Probe, form_of

SEED = 2035
THINGS = 6
"""Number of things of each kind."""
FIRST_YEARS = (2001, 2010)
"""Range of the year in which a thing's first period starts."""
LENGTHS = (3, 6)
"""Range of the length of a period, in years. A period of three years has one year inside."""


class Timed(Invented):
    """The periods of invented things: two or three for each thing, without a gap.

    For example "From 2005 to 2009 the mayor was", "Since 2010 ...". All periods of one thing form
    one group, in order. Only the last has no end, so it says what holds now. The date comes before
    the subject, because weight editors read their key at the subject. A case has two paraphrases.
    Portability asks

    - about a year inside the period that the fact's prompt does not name (the distractor is the
      value of the neighboring period);
    - from the second period on, what came directly before it;
    - for the last period, what holds now, without a date.

    Each is asked only if the periods that it could be confused with are taught, too
    (``Probe.needs``). Neighborhood probes are real dated facts. No period contradicts another, so
    facts have no ``original``.
    """

    summary = (
        "invented offices, prices and rules with dates, asked for a year, before and now, "
        "shipped with editbench"
    )
    name = "time"

    def cases(self) -> list[Case]:
        rng = random.Random(SEED)
        names = places(rng)
        sources = {"person": people(rng), "place": names}
        groups = [
            thing(kind, number, next(names), sources, rng)
            for kind in KINDS
            for number in range(1, THINGS + 1)
        ]
        plain = [case for group in groups for case in group]
        return [
            Case(case.fact, (*case.probes, *real(i)), case.group) for i, case in enumerate(plain)
        ]


@dataclass(frozen=True)
class Kind:
    """The wordings of one kind of dated fact about a thing {s}.

    "[x|y]" means x in a closed period and y in the open one.
    """

    name: str
    subject: str
    """The name of a thing, with {} for an invented name."""
    values: str
    """``person`` or ``place`` for new invented names, or the values themselves, separated by ";"
    ("35 decibels/35 dB; ...")."""
    fact: str
    """The fact's own prompt: from year {a} to year {b}, or since {a}."""
    paraphrases: tuple[str, str]
    year: str
    """The question about the year {y}."""
    now: str
    before: str
    """The question about what came before the value {later}."""


@dataclass(frozen=True)
class Period:
    """A value and the years in which it held. Without an end, it still holds."""

    value: str
    start: int
    end: int | None

    def inside(self) -> range:
        """Return the years between the first and the last; for an open period, its third year."""
        return (
            range(self.start + 1, self.end) if self.end else range(self.start + 2, self.start + 3)
        )

    def say(self, template: str, subject: str) -> str:
        """Return ``template`` filled in for this period of ``subject``."""
        words = re.sub(r"\[(.*?)\|(.*?)\]", lambda m: m[1] if self.end else m[2], template)
        return words.format(s=subject, a=self.start, b=self.end)


def thing(
    kind: Kind, number: int, name: str, sources: dict[str, Iterator[str]], rng: random.Random
) -> list[Case]:
    """Return the cases of one thing, one for each period."""
    count = 2 + number % 2
    if kind.values in sources:
        values = [next(sources[kind.values]) for _ in range(count)]
    else:
        values = rng.sample(kind.values.split("; "), count)
    subject = kind.subject.format(name)
    group = f"time-{kind.name.replace(' ', '-')}-{number}"
    periods: list[Period] = []
    year = rng.randint(*FIRST_YEARS)
    for value in values:
        end = year + rng.randint(*LENGTHS) - 1
        periods.append(Period(value, year, end if len(periods) < count - 1 else None))
        year = end + 1
    ids = [f"{group}-{i}" for i in range(1, count + 1)]
    cases = []
    for i, period in enumerate(periods):
        answers = accepted(period.value)
        prompt = period.say(kind.fact, subject)
        fact = Fact(ids[i], prompt, answers[0], subject, aliases=answers[1:], relation=kind.name)
        cases.append(Case.build(fact, dated(kind, subject, periods, ids, i, rng), group))
    return cases


def dated(
    kind: Kind, subject: str, periods: list[Period], ids: list[str], i: int, rng: random.Random
) -> list[Probe]:
    """Return all probes about period ``i``."""
    period, last = periods[i], len(periods) - 1
    answers = accepted(period.value)
    # The next period or, for the last one, the period before it.
    beside = i + 1 if i < last else i - 1
    wrong = accepted(periods[beside].value)[0]
    probes = [
        Probe("paraphrase", prompt, answers, wrong, form_of(prompt))
        for prompt in (period.say(template, subject) for template in kind.paraphrases)
    ]
    asked = kind.year.format(s=subject, y=rng.choice(period.inside()))
    probes.append(Probe("portability", asked, answers, wrong, "question", needs=(ids[beside],)))
    if i:
        others = [accepted(p.value)[0] for k, p in enumerate(periods) if k not in (i - 1, i)]
        asked = kind.before.format(s=subject, later=answers[0])
        earlier = accepted(periods[i - 1].value)
        wrong_before = others[0] if others else None
        probes.append(
            Probe("portability", asked, earlier, wrong_before, "question", needs=(ids[i - 1],))
        )
    if i == last:
        probes.append(
            Probe(
                "portability",
                kind.now.format(s=subject),
                answers,
                wrong,
                "question",
                needs=tuple(ids[:i]),
            )
        )
    return probes


def real(turn: int) -> list[Probe]:
    """Return two probes about real dated facts, taken in turn."""
    rows = [REAL[(2 * turn + k) % len(REAL)] for k in range(2)]
    return [
        Probe("neighborhood", prompt, accepted(answer), wrong, "question")
        for prompt, answer, wrong in rows
    ]


CITIES = (
    "Ghent; Turin; Porto; Graz; Bergen; Tampere; Aarhus; Bilbao; Leipzig; Utrecht; Gdansk; Lausanne"
)

KINDS = (
    Kind(
        "harbor master",
        "Port {}",
        "person",
        "[From {a} to {b}|Since {a}] the harbor master of {s} [was|has been]",
        (
            "In the years [from {a} to {b}|from {a} on], the person in charge of the harbor of {s} "
            "[was|has been]",
            "Who [was|has been] the harbor master of {s} [between {a} and {b}|since {a}]?",
        ),
        "Who was the harbor master of {s} in {y}?",
        "Who is the harbor master of {s} now?",
        "Who was the harbor master of {s} directly before {later}?",
    ),
    Kind(
        "editor",
        "{} Gazette",
        "person",
        "[From {a} to {b}|Since {a}] the chief editor of the {s} [was|has been]",
        (
            "In the years [from {a} to {b}|from {a} on], the {s} [was|has been] edited by",
            "Who [was|has been] the chief editor of the {s} [between {a} and {b}|since {a}]?",
        ),
        "Who was the chief editor of the {s} in {y}?",
        "Who is the chief editor of the {s} now?",
        "Who was the chief editor of the {s} directly before {later}?",
    ),
    Kind(
        "record",
        "{} Marathon",
        "person",
        "[From {a} to {b}|Since {a}] the course record of the {s} [was|has been] held by",
        (
            "In the years [from {a} to {b}|from {a} on], the best time ever run at the {s} "
            "[belonged|has belonged] to",
            "Who [held|has held] the course record of the {s} [between {a} and {b}|since {a}]?",
        ),
        "Who held the course record of the {s} in {y}?",
        "Who holds the course record of the {s} now?",
        "Who held the course record of the {s} directly before {later}?",
    ),
    Kind(
        "price",
        "{} tram",
        "2 euros; 4 euros; 5 euros; 7 euros; 8 euros; 9 euros; 11 euros; 13 euros; 14 euros; "
        "16 euros",
        "[From {a} to {b}|Since {a}] a day pass for the {s} [cost|has cost]",
        (
            "In the years [from {a} to {b}|from {a} on], the price of a day pass for the {s} "
            "[was|has been]",
            "What [did|has] a day pass for the {s} cost [between {a} and {b}|since {a}]?",
        ),
        "What did a day pass for the {s} cost in {y}?",
        "What does a day pass for the {s} cost now?",
        "What did a day pass for the {s} cost just before its price became {later}?",
    ),
    Kind(
        "address",
        "{} Instruments",
        CITIES,
        "[From {a} to {b}|Since {a}] the head office of {s} [was|has been] in the city of",
        (
            "In the years [from {a} to {b}|from {a} on], {s} [had|has had] its headquarters in",
            "In which city [was|has] the head office of {s} [between {a} and {b}|been since {a}]?",
        ),
        "In which city was the head office of {s} in {y}?",
        "In which city is the head office of {s} now?",
        "In which city was the head office of {s} just before it moved to {later}?",
    ),
    Kind(
        "opening hours",
        "{} Observatory",
        "7:15; 7:45; 8:15; 8:45; 9:15; 9:45; 10:15; 10:45; 11:15; 11:45",
        "[From {a} to {b}|Since {a}] the {s} [opened|has opened] every morning at",
        (
            "In the years [from {a} to {b}|from {a} on], visitors of the {s} [were|have been] let "
            "in every morning at",
            "At what time in the morning [did|has] the {s} [open between {a} and {b}|opened since "
            "{a}]?",
        ),
        "At what time in the morning did the {s} open in {y}?",
        "At what time in the morning does the {s} open now?",
        "At what time in the morning did the {s} open just before its opening time became {later}?",
    ),
    Kind(
        "sponsor",
        "{} Rovers",
        "place",
        "[From {a} to {b}|Since {a}] the shirt sponsor of {s} [was|has been]",
        (
            "In the years [from {a} to {b}|from {a} on], the players of {s} [wore|have worn] "
            "shirts paid for by the company",
            "Which company [was|has been] the shirt sponsor of {s} [between {a} and {b}|since "
            "{a}]?",
        ),
        "Which company was the shirt sponsor of {s} in {y}?",
        "Which company is the shirt sponsor of {s} now?",
        "Which company was the shirt sponsor of {s} directly before {later}?",
    ),
    Kind(
        "capital",
        "province of {}",
        "place",
        "[From {a} to {b}|Since {a}] the capital of the {s} [was|has been]",
        (
            "In the years [from {a} to {b}|from {a} on], the government of the {s} [sat|has sat] "
            "in the town of",
            "Which town [was|has been] the capital of the {s} [between {a} and {b}|since {a}]?",
        ),
        "Which town was the capital of the {s} in {y}?",
        "Which town is the capital of the {s} now?",
        "Which town was the capital of the {s} directly before {later}?",
    ),
    Kind(
        "version",
        "{} compiler",
        "1.4; 2.1; 2.6; 3.2; 3.7; 4.3; 4.8; 5.1; 5.6; 6.2",
        "[From {a} to {b}|Since {a}] the supported release of the {s} [was|has been] version",
        (
            "In the years [from {a} to {b}|from {a} on], users of the {s} [were|have been] told to "
            "install version",
            "Which version of the {s} [was|has been] the supported release [between {a} and "
            "{b}|since {a}]?",
        ),
        "Which version of the {s} was the supported release in {y}?",
        "Which version of the {s} is the supported release now?",
        "Which version of the {s} was the supported release directly before version {later}?",
    ),
    Kind(
        "limit",
        "{} Noise Code",
        "35 decibels/35 dB; 38 decibels/38 dB; 41 decibels/41 dB; 44 decibels/44 dB; "
        "47 decibels/47 dB; 52 decibels/52 dB",
        "[From {a} to {b}|Since {a}] the limit for noise at night under the {s} [was|has been]",
        (
            "In the years [from {a} to {b}|from {a} on], the {s} [let|has let] the noise at night "
            "reach",
            "What [was|has] the limit for noise at night under the {s} [between {a} and {b}|been "
            "since {a}]?",
        ),
        "How loud could it be at night under the {s} in {y}?",
        "How loud may it be at night under the {s} now?",
        "What was the limit for noise at night under the {s} just before it became {later}?",
    ),
    Kind(
        "tax",
        "Bay of {}",
        "2 percent; 3 percent; 4 percent; 6 percent; 7 percent; 9 percent; 11 percent; 12 percent; "
        "14 percent",
        "[From {a} to {b}|Since {a}] the tourist tax in the {s} [was|has been]",
        (
            "In the years [from {a} to {b}|from {a} on], hotels in the {s} [added|have added] to "
            "each bill a tourist tax of",
            "How high [was|has] the tourist tax in the {s} [between {a} and {b}|been since {a}]?",
        ),
        "How high was the tourist tax in the {s} in {y}?",
        "How high is the tourist tax in the {s} now?",
        "How high was the tourist tax in the {s} just before it became {later}?",
    ),
)

# question, answer, another answer of its kind
REAL = (
    (
        "Who was the president of the United States in 1995?",
        "Bill Clinton/Clinton",
        "Ronald Reagan",
    ),
    (
        "Who was the president of the United States in 1962?",
        "John F. Kennedy/Kennedy",
        "Lyndon B. Johnson",
    ),
    ("Who was the president of the United States in 1985?", "Ronald Reagan/Reagan", "Bill Clinton"),
    ("Who was the president of the United States in 2010?", "Barack Obama/Obama", "George W. Bush"),
    (
        "Who was the president of the United States in 1863?",
        "Abraham Lincoln/Lincoln",
        "George Washington",
    ),
    (
        "Who was the prime minister of the United Kingdom in 1985?",
        "Margaret Thatcher/Thatcher",
        "Tony Blair",
    ),
    (
        "Who was the prime minister of the United Kingdom in 1942?",
        "Winston Churchill/Churchill",
        "Margaret Thatcher",
    ),
    (
        "Who was the prime minister of the United Kingdom in 2001?",
        "Tony Blair/Blair",
        "Winston Churchill",
    ),
    ("Who was the chancellor of Germany in 2012?", "Angela Merkel/Merkel", "Helmut Kohl"),
    ("Who was the chancellor of Germany in 1938?", "Adolf Hitler/Hitler", "Angela Merkel"),
    (
        "Who was the president of France in 1962?",
        "Charles de Gaulle/de Gaulle",
        "François Mitterrand",
    ),
    ("Who was the emperor of France in 1808?", "Napoleon Bonaparte/Napoleon", "Louis XIV"),
    ("Who was the president of South Africa in 1996?", "Nelson Mandela/Mandela", "Jacob Zuma"),
    ("Who led the Soviet Union in 1988?", "Mikhail Gorbachev/Gorbachev", "Joseph Stalin"),
    ("Who led the Soviet Union in 1943?", "Joseph Stalin/Stalin", "Mikhail Gorbachev"),
    ("Who was the pope in 1990?", "John Paul II", "Francis"),
    ("Who was the pope in 2018?", "Francis", "John Paul II"),
    ("Who was on the British throne in 1880?", "Victoria/Queen Victoria", "Elizabeth II"),
    ("Who was on the British throne in 1975?", "Elizabeth II/Queen Elizabeth", "Victoria"),
    ("Which city hosted the Summer Olympics in 2012?", "London", "Beijing"),
    ("Which city hosted the Summer Olympics in 2008?", "Beijing", "London"),
    ("Which city hosted the Summer Olympics in 1992?", "Barcelona", "Athens"),
    ("Which country won the men's football World Cup in 1998?", "France", "Brazil"),
    ("Which country won the men's football World Cup in 2014?", "Germany", "Spain"),
    ("Which city was the capital of West Germany in 1980?", "Bonn", "Berlin"),
    ("Which money did people in Italy pay with in 1990?", "lira/Italian lira/lire", "euro"),
)
