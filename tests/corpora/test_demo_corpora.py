"""The shipped demo corpora: what they promise, and that they are what the knowledge table gives."""

import os
import re
import runpy
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

from editbench.corpora.demo import DemoCounterFact, DemoZsre
from editbench.errors import DataError
from editbench.slices import slice_cases
from editbench.types import check_facts

CORPORA = Path(__file__).resolve().parents[2] / "corpora"
DEMOS = [DemoCounterFact, DemoZsre]


@pytest.fixture(scope="module")
def cases():
    return {demo: demo().load() for demo in DEMOS}


def probes_of(case, axis):
    return [probe for probe in case.probes if probe.axis == axis]


@cache
def words(text):
    return " ".join(["", *re.findall(r"\w+", text.lower()), ""])


def says(prompt, answer):
    return words(answer) in words(prompt)


@pytest.mark.parametrize("demo", DEMOS)
def test_is_large_and_varied(demo, cases):
    targets = Counter(case.fact.target for case in cases[demo])
    assert len(cases[demo]) >= 350
    assert len({case.fact.relation for case in cases[demo]}) >= 20
    assert max(targets.values()) <= 0.06 * len(cases[demo])
    assert all(1 <= len(target.split()) <= 4 for target in targets)


@pytest.mark.parametrize("demo", DEMOS)
def test_facts_can_be_taught_together(demo, cases):
    facts = check_facts(case.fact for case in cases[demo])
    pairs = [(fact.relation, fact.subject) for fact in facts]
    assert len(set(pairs)) == len(pairs)
    assert {fact.form for fact in facts} == {demo.form}


@pytest.mark.parametrize("demo", DEMOS)
def test_target_and_original_are_apart(demo, cases):
    for case in cases[demo]:
        target, original = case.fact.target.lower(), case.fact.original.lower()
        assert target not in original and original not in target


@pytest.mark.parametrize("demo", DEMOS)
def test_no_prompt_gives_an_answer_away(demo, cases):
    for case in cases[demo]:
        for probe in case.probes:
            assert not [a for a in (*probe.answers, probe.distractor) if says(probe.prompt, a)], (
                probe
            )


@pytest.mark.parametrize("demo", DEMOS)
def test_paraphrases_ask_about_the_subject(demo, cases):
    for case in cases[demo]:
        paraphrases = probes_of(case, "paraphrase")
        assert (
            len({p.prompt for p in paraphrases} | {case.fact.prompt}) == len(paraphrases) + 1 >= 3
        )
        for probe in paraphrases:
            assert case.fact.subject in probe.prompt
            assert (probe.answers, probe.distractor, probe.form) == (
                case.fact.answers,
                case.fact.original,
                case.fact.form,
            )


def test_neighbors_share_the_original_and_are_never_edited(cases):
    edited, truths = defaultdict(set), defaultdict(set)
    for demo in DEMOS:
        for case in cases[demo]:
            edited[case.fact.relation].add(case.fact.subject)
    for case in cases[DemoCounterFact]:
        neighbors = probes_of(case, "neighborhood")
        assert len({n.prompt for n in neighbors}) == len(neighbors) >= 4
        for probe in neighbors:
            assert (probe.answers[0], probe.distractor) == (case.fact.original, case.fact.target)
            truths[case.fact.relation, probe.prompt].add(case.fact.original)
    assert all(len(originals) == 1 for originals in truths.values())
    assert not [
        (prompt, s) for relation, prompt in truths for s in edited[relation] if says(prompt, s)
    ]


def test_unrelated_questions_are_unrelated(cases):
    for case in cases[DemoZsre]:
        questions = probes_of(case, "neighborhood")
        assert questions
        for probe in questions:
            assert probe.form == "question" and not says(probe.prompt, case.fact.subject)
            assert not {probe.answers[0], probe.distractor} & {case.fact.target, case.fact.original}
            assert probe.distractor not in probe.answers


def test_the_two_share_no_prompt_and_no_subject(cases):
    one, other = ({p.prompt for c in cases[demo] for p in c.probes} for demo in DEMOS)
    assert not one & other
    one, other = ({c.fact.subject for c in cases[demo]} for demo in DEMOS)
    assert not one & other


@pytest.mark.parametrize("demo", DEMOS)
def test_parts_share_no_subject(demo, cases):
    dev, test = (slice_cases(cases[demo], part, None, 0) for part in ("dev", "test"))
    assert len(test) >= 200 and len(dev) + len(test) == len(cases[demo])
    assert not {c.fact.subject for c in dev} & {c.fact.subject for c in test}


@pytest.mark.parametrize("seed", ["0", "77"])
def test_a_rebuild_gives_the_same_bytes(seed, tmp_path):
    command = [sys.executable, CORPORA / "build_demo", "--out", tmp_path]
    subprocess.run(
        command, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True
    )
    for demo in DEMOS:
        assert (tmp_path / demo.file).read_bytes() == (CORPORA / "data" / demo.file).read_bytes()


def test_the_builder_rejects_an_edited_neighbor(cases):
    builder = runpy.run_path(str(CORPORA / "build_demo"), run_name="build_demo")
    first = cases[DemoCounterFact][0]
    rows = {
        p: i
        for r in builder["RELATIONS"]
        for g in builder["items"](r)
        for i in g
        for p in i.prompts("cloze")
    }
    builder["check_case"](first, rows, {first.fact.subject})
    neighbor = rows[probes_of(first, "neighborhood")[0].prompt].subject
    with pytest.raises(DataError, match="edited neighbor"):
        builder["check_case"](first, rows, {neighbor})


@pytest.mark.parametrize("demo", DEMOS)
def test_data_is_refused(demo):
    with pytest.raises(DataError, match="built in"):
        demo().load("mine.jsonl")
