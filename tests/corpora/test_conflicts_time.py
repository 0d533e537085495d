"""The corpora ``conflicts`` and ``time``: what they promise, recomputed from prompts and tables."""

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise

import pytest

from editbench.corpora import _conflict_table as table
from editbench.corpora.conflicts import Conflicts
from editbench.corpora.timed import KINDS, REAL, Timed
from editbench.errors import DataError
from editbench.matching import contains
from editbench.slices import slice_cases
from editbench.types import Case, check_facts, digest

BOTH = [Conflicts, Timed]
HELD = re.compile(r"(?:From (\d{4}) to (\d{4})|Since (\d{4})) ")


@cache
def load(corpus):
    return corpus().load()


def probes_of(case, axis):
    return [probe for probe in case.probes if probe.axis == axis]


def groups(cases):
    found = defaultdict(list)
    for case in cases:
        if case.group:
            found[case.group].append(case)
    return found


@pytest.mark.parametrize("corpus", BOTH)
def test_facts_can_be_taught_together(corpus):
    for part in ("dev", "test"):
        facts = [case.fact for case in slice_cases(load(corpus), part, None, 0)]
        for n in range(1, len(facts) + 1):
            check_facts(facts[:n])
    facts = check_facts(case.fact for case in load(corpus))
    assert len({fact.prompt for fact in facts}) == len(facts)


@pytest.mark.parametrize("corpus", BOTH)
def test_parts_are_apart(corpus):
    dev, test = (slice_cases(load(corpus), part, None, 0) for part in ("dev", "test"))
    assert dev and test and len(dev) + len(test) == len(load(corpus))
    assert not {c.fact.subject for c in dev} & {c.fact.subject for c in test}
    one, other = (
        {p.prompt for c in part for p in c.probes if p.axis != "neighborhood"}
        for part in (dev, test)
    )
    assert not one & other


@pytest.mark.parametrize("corpus", BOTH)
@pytest.mark.parametrize("seed", [0, 3])
def test_groups_stay_together_and_in_order(corpus, seed):
    whole = groups(load(corpus))
    for part in ("dev", "test"):
        order = [case.fact.id for case in slice_cases(load(corpus), part, None, seed)]
        for group in whole.values():
            ids = [case.fact.id for case in group]
            if ids[0] in order:
                place = order.index(ids[0])
                assert order[place : place + len(ids)] == ids == sorted(ids)


@pytest.mark.parametrize("corpus", BOTH)
def test_prompts_are_clean(corpus):
    for case in load(corpus):
        prompts = [probe.prompt for probe in case.probes]
        assert len(set(prompts)) == len(prompts)
        assert case.fact.prompt.count(case.fact.subject) == 1
        assert Case.from_dict(json.loads(json.dumps(case.to_dict()))) == case
        for probe in case.probes:
            texts = (probe.prompt, *probe.answers, probe.distractor or "")
            assert not re.search(r"[{}\[\]|;]|  ", " ".join(texts)), probe
            assert (probe.form == "question") == probe.prompt.endswith("?")
            assert not contains(probe.prompt, (*probe.answers, probe.distractor or "")), probe
            if probe.distractor:
                assert not contains(probe.distractor, probe.answers) and not contains(
                    probe.answers[0], [probe.distractor]
                )


@pytest.mark.parametrize("corpus", BOTH)
def test_needs_name_facts_of_the_group(corpus):
    for case in load(corpus):
        ids = {c.fact.id for c in groups(load(corpus)).get(case.group, [])} - {case.fact.id}
        assert all(set(probe.needs) <= ids for probe in case.probes)


@pytest.mark.parametrize("corpus", BOTH)
def test_neighborhoods_are_real_and_untaught(corpus):
    taught = {case.fact.prompt for case in load(corpus)}
    invented = [case.fact.subject for case in load(corpus) if case.group]
    answers = defaultdict(set)
    for case in load(corpus):
        assert probes_of(case, "neighborhood")
        for probe in probes_of(case, "neighborhood"):
            assert probe.prompt not in taught and not [
                subject for subject in invented if subject in probe.prompt
            ]
            assert case.fact.target not in probe.answers
            answers[probe.prompt].add(probe.answers)
    assert all(len(found) == 1 for found in answers.values())


@pytest.mark.parametrize("corpus", BOTH)
def test_the_hash_seed_does_not_matter(corpus):
    command = (
        f"from {corpus.__module__} import {corpus.__name__} as C\n"
        "from editbench.types import digest\n"
        "print(digest([c.to_dict() for c in C().load()]))"
    )
    here = digest([case.to_dict() for case in load(corpus)])
    for seed in ("1", "77"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        ran = subprocess.run(
            [sys.executable, "-c", command], env=env, capture_output=True, text=True, check=True
        )
        assert ran.stdout.strip() == here


@pytest.mark.parametrize("corpus", BOTH)
def test_data_is_refused(corpus):
    with pytest.raises(DataError, match=f"'{corpus.name}' is built in"):
        corpus().load("mine.jsonl")


def of_kind(kind):
    return [case for case in load(Conflicts) if case.fact.relation.startswith(f"{kind}:")]


def test_conflicts_count():
    kinds = Counter(case.fact.relation.split(":")[0] for case in load(Conflicts))
    assert kinds["known"] >= 40 and kinds["reverse"] + kinds["update"] >= 120 and len(kinds) == 3
    relations = {case.fact.relation for case in load(Conflicts)}
    assert len(relations) == len(table.KNOWN) + len(table.REVERSE) + len(table.UPDATE) >= 20


def test_known_targets_are_wrong_and_their_consequences_follow():
    rows = {
        (f"known:{theme.name}", row.subject): (theme, row)
        for theme in table.KNOWN
        for row in theme.rows
    }
    assert len(rows) == len(of_kind("known"))
    for case in of_kind("known"):
        theme, row = rows[case.fact.relation, case.fact.subject]
        assert (
            "/".join(case.fact.answers) == row.target
            and case.fact.original == row.original.split("/")[0]
        )
        assert all(
            case.fact.subject in probe.prompt and probe.answers == case.fact.answers
            for probe in case.probes[:3]
        )
        (hop,) = probes_of(case, "portability")
        follows = [
            theme.follows.get(v.split("/")[0], v).split("/") for v in (row.target, row.original)
        ]
        assert list(hop.answers) == follows[0] and hop.distractor == follows[1][0]
        assert ("{clue}" in theme.hop) == bool(row.clue) == (case.fact.subject not in hop.prompt)
        values = {value.split("/")[0] for r in theme.rows for value in (r.target, r.original)}
        assert not theme.follows or set(theme.follows) == values


def test_doubles_are_doubles():
    number = {
        "three": 3,
        "five": 5,
        "seven": 7,
        "eight": 8,
        "nine": 9,
        "ten": 10,
        "twelve": 12,
        "fifteen": 15,
    }
    number |= {"twenty-four": 24, "thirty": 30, "sixty": 60, "ninety": 90}
    (counts,) = [theme for theme in table.KNOWN if theme.name == "count"]
    assert {
        value: int(double.split("/")[0]) / 2 for value, double in counts.follows.items()
    } == number


def test_similar_subjects_are_never_edited():
    edited = {(theme.name, row.subject) for theme in table.KNOWN for row in theme.rows}
    for theme in table.KNOWN:
        assert not [subject for subject, _ in theme.similar if (theme.name, subject) in edited]
        prompts = {theme.prompt.format(s=subject) for subject, _ in theme.similar}
        for case in (
            case for case in of_kind("known") if case.fact.relation == f"known:{theme.name}"
        ):
            assert len([p for p in probes_of(case, "neighborhood") if p.prompt in prompts]) == 2


@pytest.mark.parametrize("kind", ["reverse", "update"])
def test_pairs_contradict_each_other_and_the_later_wins(kind):
    for pair in groups(of_kind(kind)).values():
        earlier, later = pair
        assert earlier.fact.relation == later.fact.relation
        assert {probe.axis for probe in earlier.probes} == {"rewrite", "neighborhood"}
        old, new = (
            (earlier.fact.subject if kind == "reverse" else earlier.fact.target),
            later.fact.target,
        )
        assert old != new and later.fact.original == old and earlier.fact.original is None
        if kind == "reverse":
            assert later.fact.subject == earlier.fact.target
        else:
            assert later.fact.subject == earlier.fact.subject
        contested = [probe for probe in later.probes if probe.needs]
        assert contested and all(probe.axis == "portability" for probe in contested)
        assert all(
            (p.answers[0], p.distractor, p.needs) == (new, old, (earlier.fact.id,))
            for p in contested
        )
        assert (earlier.fact.prompt in {p.prompt for p in contested}) == (kind == "update")
        (paraphrase,) = probes_of(later, "paraphrase")
        assert (paraphrase.answers, paraphrase.distractor) == (later.fact.answers, old)


def test_what_a_reverse_pair_says_is_said_once():
    facts = [case.fact for case in of_kind("reverse")]
    told = Counter(name for fact in facts for name in (fact.subject, fact.target))
    people = {fact.subject for earlier, fact in zip(facts[::2], facts[1::2], strict=True)}
    assert all(count == (2 if name in people else 1) for name, count in told.items())
    for case in of_kind("reverse"):
        for probe in probes_of(case, "portability"):
            if not probe.needs:
                assert case.fact.target in probe.prompt and probe.answers == (case.fact.subject,)


def test_time_counts():
    things = groups(load(Timed))
    assert len(things) >= 60 and {len(periods) for periods in things.values()} == {2, 3}
    assert len({case.fact.relation for case in load(Timed)}) == len(KINDS) >= 8
    assert (
        len({probe.prompt for case in load(Timed) for probe in probes_of(case, "neighborhood")})
        == len(REAL)
        >= 20
    )
    assert len({periods[0].fact.subject for periods in things.values()}) == len(things)


def held(case):
    """The first and the last year of the fact; the last is None where it still holds."""
    start, end, since = HELD.match(case.fact.prompt).groups()
    return (int(since), None) if since else (int(start), int(end))


def test_periods_follow_each_other():
    for periods in groups(load(Timed)).values():
        assert len({case.fact.subject for case in periods}) == 1
        assert len({case.fact.target for case in periods}) == len(periods)
        years = [held(case) for case in periods]
        assert [end is None for _, end in years] == [False] * (len(years) - 1) + [True]
        assert all(end + 1 == start for (_, end), (start, _) in pairwise(years))
        assert all(end is None or end - start >= 2 for start, end in years)
        assert years[-1][0] + 2 <= 2024


def test_time_answers_are_right():
    for periods in groups(load(Timed)).values():
        holders = {
            year: case
            for case in periods
            for year in range(held(case)[0], (held(case)[1] or 2024) + 1)
        }
        targets = {case.fact.target: case for case in periods}
        for i, case in enumerate(periods):
            asked = Counter()
            for probe in probes_of(case, "portability"):
                year = re.search(r" in (\d{4})\?$", probe.prompt)
                if year:
                    right, kind = holders[int(year[1])], "year"
                    assert year[1] not in case.fact.prompt
                elif " now?" in probe.prompt:
                    right, kind = periods[-1], "now"
                    assert probe.needs == tuple(c.fact.id for c in periods[:-1])
                else:
                    right, kind = periods[i - 1], "before"
                    assert (
                        probe.prompt.endswith(f"{case.fact.target}?") and "before" in probe.prompt
                    )
                asked[kind] += 1
                assert probe.answers == right.fact.answers
                assert probe.distractor is None or targets[probe.distractor] is not right
                assert probe.needs and (
                    kind != "year" or probe.needs == (targets[probe.distractor].fact.id,)
                )
            assert asked == Counter(year=1, before=int(i > 0), now=int(case is periods[-1]))
            assert all(p.answers == case.fact.answers for p in probes_of(case, "paraphrase"))
            for probe in probes_of(case, "paraphrase"):
                assert set(re.findall(r"\d{4}", probe.prompt)) == set(
                    re.findall(r"\d{4}", case.fact.prompt)
                )


def test_a_question_that_needs_a_period_is_not_asked_without_it():
    for part in ("dev", "test"):
        cases = load(Timed)
        (first,) = slice_cases(cases, part, 1, 0)
        assert not probes_of(first, "portability") and len(probes_of(first, "paraphrase")) == 2
