"""Write the demo corpora from the knowledge table: ``python corpora/build_demo [--out FOLDER]``.

The same table gives the same bytes on every machine. Within a relation each subject has one role:
edited in demo-counterfact, edited in demo-zsre, or never edited. Neighborhood probes ask only about
subjects that are never edited.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeVar

from editbench.corpora.build_demo.knowledge import RELATIONS, Relation
from editbench.errors import DataError
from editbench.slices import slice_cases
from editbench.types import Case, Fact, Probe, check_facts

Value = TypeVar("Value")

SEED = 20240607
NEIGHBORS = 4
"""Neighborhood probes of a demo-counterfact case."""
UNRELATED = 2
"""Neighborhood probes of a demo-zsre case."""
CASES_PER_RELATION = {"demo_counterfact": 12, "demo_zsre": 10}
"""Most cases of each corpus about one relation."""
MAX_TARGET_SHARE = 0.06
"""Largest share of a corpus's cases that may have the same target."""


@dataclass(frozen=True)
class Item:
    """One row of the table: a subject of a relation, with its true object."""

    relation: Relation
    subject: str
    article: bool
    object: str

    @property
    def answers(self) -> tuple[str, ...]:
        return accepted(self.relation, self.object)

    def prompts(self, form: str) -> list[str]:
        """Return all templates of the relation, filled in."""
        the, The = ("the ", "The ") if self.article else ("", "")
        templates = self.relation.cloze if form == "cloze" else self.relation.question
        return [t.format(s=self.subject, the=the, The=The) for t in templates]


def accepted(relation: Relation, answer: str) -> tuple[str, ...]:
    """Return an answer with its aliases."""
    return (answer, *relation.aliases.get(answer, ()))


def items(relation: Relation) -> list[list[Item]]:
    """Return the rows of a relation, a list for each object."""
    return [
        [
            Item(relation, s.strip().removeprefix("the "), s.strip().startswith("the "), answer)
            for s in subjects.split(";")
        ]
        for answer, subjects in relation.groups.items()
    ]


@cache
def words(text: str) -> str:
    """Return the words of ``text`` with a space around each, so that ``in`` finds whole words."""
    return " ".join(["", *re.findall(r"\w+", text.lower()), ""])


def says(prompt: str, answer: str) -> bool:
    """Whether ``prompt`` has ``answer`` as whole words, ignoring case and punctuation."""
    return words(answer) in words(prompt)


def overlap(first: str, second: str) -> bool:
    """Whether either text contains the other, even inside a word."""
    return first.lower() in second.lower() or second.lower() in first.lower()


def rotate(values: list[Value], by: int) -> list[Value]:
    """Return ``values`` with the first ``by`` of them moved to the end."""
    by %= len(values)
    return values[by:] + values[:by]


def split(
    relation: Relation, rng: random.Random
) -> tuple[list[Item], list[Item], dict[str, list[Item]]]:
    """Return the rows edited in demo-counterfact, those in demo-zsre, and the others by object."""
    large, small = [], []
    quiet: dict[str, list[Item]] = defaultdict(list)
    for group in items(relation):
        rng.shuffle(group)
        # An object with enough subjects gives its own neighbors: subjects with the same original.
        if len(group) > NEIGHBORS:
            quiet[group[0].object] += group[:NEIGHBORS]
            large.append(group[NEIGHBORS:])
        else:
            small.append(group)
    # Take one row of each object in turn, so that no original answer dominates.
    pool = [item for item in chain(*zip_longest(*large)) if item]
    take = min(CASES_PER_RELATION["demo_counterfact"], (len(pool) + 1) // 2)
    rest = [item for item in chain(*zip_longest(pool[take:], chain(*small))) if item]
    asked = rest[: CASES_PER_RELATION["demo_zsre"]]
    for item in rest[len(asked) :]:
        quiet[item.object].append(item)
    return pool[:take], asked, quiet


def choose_target(item: Item, form: str, used: Counter[str], rng: random.Random) -> str:
    """Choose the least used object of the relation that is clearly a different answer.

    The prompts do not contain it either.
    """
    text = " ".join(item.prompts(form))

    def clear(other: str) -> bool:
        answers = accepted(item.relation, other)
        apart = not overlap(other, item.object) and not any(
            says(a, b) or says(b, a) for a in answers for b in item.answers
        )
        return apart and not any(says(text, a) for a in answers)

    others = [other for other in item.relation.groups if clear(other)]
    # The random number breaks ties, so that equally used objects are not taken in table order.
    target = min(others, key=lambda other: (used[other], rng.random()))
    used[target] += 1
    return target


def edit(item: Item, form: str, turn: int, target: str) -> tuple[Fact, list[Probe]]:
    """Return the fact, asked with template ``turn``, and its paraphrases: the other templates."""
    prompt, *rewordings = rotate(item.prompts(form), turn)
    answers = accepted(item.relation, target)
    fact = Fact(
        "unnumbered",
        prompt,
        target,
        item.subject,
        item.object,
        answers[1:],
        relation=item.relation.name,
        form=form,
    )
    return fact, [Probe("paraphrase", p, answers, item.object, form) for p in rewordings]


def unrelated(quiet: list[Item], fact: Fact, used: Counter[str], rng: random.Random) -> Probe:
    """Return a question about a never edited subject of another relation, with a wrong answer."""
    while True:  # draw until nothing clashes with the fact
        item = min(rng.sample(quiet, 4), key=lambda i: used[i.subject])
        wrong = rng.choice([o for o in item.relation.groups if o != item.object])
        prompt = rng.choice(item.prompts("question"))
        clash = {item.object, wrong} & {fact.target, fact.original}
        if item.relation.name != fact.relation and not clash and not says(prompt, wrong):
            used[item.subject] += 1
            return Probe("neighborhood", prompt, item.answers, wrong, "question")


def check(corpora: dict[str, list[Case]]) -> None:
    """Check everything that the demo corpora promise, comparing each prompt with the table.

    Raises:
        DataError: for the case, or the row of the table, that breaks a promise.
    """
    rows: dict[str, Item] = {}
    subjects: set[str] = set()
    for item in chain.from_iterable(chain.from_iterable(items(relation) for relation in RELATIONS)):
        need(item.subject not in subjects, item.subject, "is twice in the table")
        subjects.add(item.subject)
        for prompt in item.prompts("cloze") + item.prompts("question"):
            need(prompt not in rows, prompt, "is the prompt of two rows")
            need(
                not any(says(prompt, answer) for answer in item.answers),
                prompt,
                "gives its answer away",
            )
            rows[prompt] = item
    edited = {name: {str(case.fact.subject) for case in cases} for name, cases in corpora.items()}
    need(not set.intersection(*edited.values()), "an edited subject", "is in both corpora")
    everyone = set.union(*edited.values())
    for name, cases in corpora.items():
        check_facts(case.fact for case in cases)
        targets = Counter(case.fact.target for case in cases)
        need(
            max(targets.values()) <= MAX_TARGET_SHARE * len(cases),
            name,
            "has a target that is too common",
        )
        for case in cases:
            check_case(case, rows, everyone)
        dev, test = (slice_cases(cases, part, None, 0) for part in ("dev", "test"))
        need(len(test) >= 200, name, "has a test part of fewer than 200 cases")
        need(
            not {c.fact.subject for c in dev} & {c.fact.subject for c in test},
            name,
            "shares a subject between its parts",
        )


def check_case(case: Case, rows: dict[str, Item], edited: set[str]) -> None:
    """Check one case against the rows of the table.

    Args:
        edited: the subjects that no neighborhood probe may ask about.

    Raises:
        DataError: if the case breaks a promise.
    """
    fact = case.fact
    row = rows[fact.prompt]
    same = (row.subject, row.object, row.relation.name) == (
        fact.subject,
        fact.original,
        fact.relation,
    )
    need(same, fact.id, "is not its row")
    need(not overlap(fact.target, row.object), fact.id, "has a target like the original")
    need(
        fact.target in row.relation.groups and len(fact.target.split()) <= 4,
        fact.id,
        "has a target of another kind",
    )
    axes = Counter(probe.axis for probe in case.probes)
    least = NEIGHBORS if fact.form == "cloze" else UNRELATED
    need(axes["paraphrase"] >= 2 and axes["neighborhood"] >= least, fact.id, "has too few probes")
    need(
        len({probe.prompt for probe in case.probes}) == len(case.probes),
        fact.id,
        "asks one thing twice",
    )
    for probe in case.probes:
        other = rows[probe.prompt]
        need(probe.form == fact.form, fact.id, "has a probe of another form")
        need(
            not any(says(probe.prompt, a) for a in (*probe.answers, str(probe.distractor))),
            fact.id,
            f"leaks in {probe.prompt!r}",
        )
        if probe.axis == "neighborhood":
            need(other.subject not in edited, fact.id, f"has the edited neighbor {other.subject!r}")
            need(
                probe.answers == other.answers,
                fact.id,
                f"has a wrong answer for its neighbor {other.subject!r}",
            )
            near = (
                other.relation == row.relation
                and other.object == fact.original
                and probe.distractor == fact.target
            )
            # Neighbors share the original in demo-counterfact, and are unrelated in demo-zsre.
            need(
                near == (fact.form == "cloze"),
                fact.id,
                f"has a misplaced neighbor {other.subject!r}",
            )
        else:
            need(
                other == row and probe.answers == fact.answers,
                fact.id,
                f"has a bad {probe.axis} probe",
            )


def need(holds: bool, where: str, what: str) -> None:
    """Raise a ``DataError`` unless ``holds``."""
    if not holds:
        raise DataError(f"Demo corpora: {where} {what}.")


def build() -> dict[str, list[Case]]:
    """Return both corpora by file name, after checking them."""
    rng = random.Random(SEED)
    plans = [split(relation, rng) for relation in RELATIONS]
    quiet = [item for *_, groups in plans for group in groups.values() for item in group]
    targets: dict[str, Counter[str]] = {name: Counter() for name in CASES_PER_RELATION}
    drafts: dict[str, list[tuple[Fact, list[Probe]]]] = {name: [] for name in CASES_PER_RELATION}
    asked: Counter[str] = Counter()
    for edited, questioned, groups in plans:
        for turn, item in enumerate(edited):
            fact, probes = edit(
                item, "cloze", turn, choose_target(item, "cloze", targets["demo_counterfact"], rng)
            )
            for k, other in enumerate(rotate(groups[item.object], turn)[:NEIGHBORS]):
                prompts = rotate(other.prompts("cloze"), turn + k)
                probes.append(Probe("neighborhood", prompts[0], other.answers, fact.target))
            drafts["demo_counterfact"].append((fact, probes))
        for turn, item in enumerate(questioned):
            fact, probes = edit(
                item, "question", turn, choose_target(item, "question", targets["demo_zsre"], rng)
            )
            probes += [unrelated(quiet, fact, asked, rng) for _ in range(UNRELATED)]
            drafts["demo_zsre"].append((fact, probes))
    corpora = {}
    for name, prefix in (("demo_counterfact", "dcf"), ("demo_zsre", "dzs")):
        rng.shuffle(drafts[name])
        corpora[name] = [
            Case.build(replace(fact, id=f"{prefix}-{number:04d}"), probes)
            for number, (fact, probes) in enumerate(drafts[name], start=1)
        ]
    check(corpora)
    return corpora


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Write the demo corpora as JSONL.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "data")
    folder = parser.parse_args().out
    for name, cases in build().items():
        lines = [json.dumps(case.to_dict(), ensure_ascii=False, sort_keys=True) for case in cases]
        (folder / f"{name}.jsonl").write_text(
            "\n".join(lines) + "\n", encoding="utf-8", newline="\n"
        )
        print(f"{name}: {len(cases)} cases, {len({c.fact.relation for c in cases})} relations")


if __name__ == "__main__":
    main()
