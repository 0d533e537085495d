"""The invented worlds: what a graph promises, what a case asks, the same everywhere."""

import os
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations

import pytest

from editbench.corpora import kgfact
from editbench.corpora.kgfact import CONTEXT, DEV, TEST, KGFact, links, names, relations
from editbench.corpora.kgfact_world import DOMAINS, REAL
from editbench.errors import DataError
from editbench.matching import contains
from editbench.slices import slice_cases
from editbench.types import check_facts

SIZES = {"small": (5, 10), "large": (7, 25), "3x8": (3, 8), "2x2": (2, 2), "7x2": (7, 2)}
FEW_WORDS = set(
    "a an the of to in on at for from by with is was did does do has have had its it be been "
    "and".split()
)


@pytest.fixture(scope="module", params=SIZES)
def size(request):
    return request.param


@pytest.fixture(scope="module")
def cases(size):
    return KGFact().load(None if size == "small" else size)


def content_words(template):
    """The words of a question that carry its meaning: not its subject, not what asks."""
    asks = {"which", "what", "where", "whose"}
    return set(re.findall(r"[a-z]+", template.replace("{s}", "").lower())) - FEW_WORDS - asks


def walk(world, size):
    """(subject, relation) to object, of a world's facts."""
    return {(link.subject, link.relation.key): link.object for link in links(world, *SIZES[size])}


# The material


def test_material_has_six_relations_a_pair_under_different_keys():
    assert list(relations()) == list(combinations(DOMAINS, 2)) and len(DOMAINS) == 7
    every = [relation for kinds in relations().values() for relation in kinds]
    assert min(map(len, relations().values())) >= 6
    assert len({relation.key for relation in every}) == len(every)


def test_wordings_have_their_places_and_no_two_are_the_same():
    questions, relatives, statements = [], [], []
    for (_, target), kinds in relations().items():
        for relation in kinds:
            asked = (relation.question, *relation.rewordings)
            for text in (*asked, relation.relative):
                assert text.count("{s}") == 1 and "{o}" not in text, relation.key
            assert all(text.endswith("?") and text[0].isupper() for text in asked), relation.key
            assert relation.statement.count("{s}") == relation.statement.count(
                "{o}"
            ) == 1 and relation.statement.endswith(".")
            assert f"hich {target} " in relation.question and relation.relative.startswith(
                f"the {target} "
            ), relation.key
            # In a chain a noun phrase replaces the subject. It must neither open the question nor
            # take an 's.
            assert (
                not relation.question.startswith("{s}")
                and "{s}'" not in relation.question + relation.relative
            )
            questions += asked
            relatives.append(relation.relative)
            statements.append(relation.statement)
    for texts in (questions, relatives):
        assert [text for text, n in Counter(texts).items() if n > 1] == []
    assert len(set(zip(statements, relatives, strict=True))) == len(statements)


def test_rewordings_use_other_words():
    for kinds in relations().values():
        for relation in kinds:
            for one, other in combinations((relation.question, *relation.rewordings), 2):
                one, other = content_words(one), content_words(other)
                assert len(one & other) / len(one | other) <= 0.25, (relation.key, one & other)


def test_names_are_apart():
    every = [name for group in names().values() for name in group]
    assert len(names()) == 3 * len(DOMAINS) and len(every) == 3 * len(DOMAINS) * kgfact.MAX_ENTITIES
    assert all(re.fullmatch(r"[A-Z][a-z]+( of| [A-Z][a-z]+){0,2}", name) for name in every)
    assert not [
        pair
        for pair in combinations(every, 2)
        if contains(pair[0], pair[1:]) or contains(pair[1], pair[:1])
    ]


def test_real_questions_are_well_formed():
    lines = [line.split(" | ") for line in REAL.strip().split("\n")]
    assert len({question for question, _, _ in lines}) == len(lines) == 100
    for question, answers, wrong in lines:
        assert question.endswith("?") and not contains(question, [*answers.split("/"), wrong]), (
            question
        )
        assert not contains(wrong, answers.split("/")), question


# The graph


@pytest.mark.parametrize("world", [TEST, DEV, CONTEXT])
def test_graph_has_one_fact_for_each_entity_and_later_domain(world, size):
    domains, entities = SIZES[size]
    facts = links(world, domains, entities)
    domain_of = {name: domain for domain in DOMAINS for name in names()[world, domain][:entities]}
    assert len(facts) == entities * domains * (domains - 1) // 2
    pairs = Counter((link.subject, domain_of[link.object]) for link in facts)
    assert set(pairs.values()) == {1}
    for link in facts:
        assert link.relation in relations()[domain_of[link.subject], domain_of[link.object]]
    assert len({(link.subject, link.relation.key) for link in facts}) == len(facts)
    assert len({(link.relation.key, link.object) for link in facts}) == len(facts)


# The cases


def test_counts(size, cases):
    facts = {"small": 100, "large": 525, "3x8": 24, "2x2": 2, "7x2": 42}[size]
    assert Counter(case.group for case in cases) == {TEST: facts, DEV: facts}
    axes = Counter(probe.axis for case in cases for probe in case.probes)
    assert axes["paraphrase"] == 4 * facts and axes["rewrite"] == 2 * facts
    assert axes["neighborhood"] == 2 * min(len(range(0, facts, 2)), 50)
    assert axes["in_context"] == 2 * len(range(0, facts, 4))
    if size == "small":
        assert axes["portability"] == 200, "E*D*(D-1)*(D-2)/6 chains a world"


def test_slices_are_the_worlds_and_share_no_name(cases):
    for part, world in (("dev", DEV), ("test", TEST)):
        chosen = slice_cases(cases, part, None, seed=3)
        assert [case.fact.id for case in chosen] == [
            case.fact.id for case in cases if case.group == world
        ]
    told = {
        world: {
            name
            for case in cases
            if case.group == world
            for name in (case.fact.subject, case.fact.target)
        }
        for world in (TEST, DEV)
    }
    assert not told[TEST] & told[DEV]


def test_no_question_of_two_slices_is_the_same(cases):
    asked = [
        {probe.prompt for case in cases if case.group == world for probe in case.probes}
        for world in (TEST, DEV)
    ]
    assert not asked[0] & asked[1]
    real = [probe.prompt for case in cases for probe in case.probes if probe.axis == "neighborhood"]
    assert len(set(real)) == len(real)


def test_facts_can_be_taught_together(cases):
    check_facts(case.fact for case in cases)
    for case in cases:
        assert (
            case.fact.form == "question"
            and case.fact.demonstration == f"The answer is {case.fact.target}."
        )


def test_probes_are_whole_questions_that_do_not_give_the_answer_away(cases):
    for case in cases:
        for probe in case.probes:
            assert (
                probe.form == "question"
                and probe.prompt.endswith("?")
                and not set("{}") & set(probe.prompt)
            )
            assert contains(probe.prompt, probe.answers) == (probe.axis == "in_context"), probe
            assert probe.axis == "in_context" or not contains(
                probe.prompt, [probe.distractor or "-"]
            ), probe
            assert probe.distractor not in probe.answers and (
                probe.distractor or probe.axis == "rewrite"
            )
        assert len({probe.prompt for probe in case.probes}) == len(case.probes)


def test_distractors_are_of_the_domain_of_the_answer(size, cases):
    for case in cases:
        for probe in case.probes:
            if probe.axis not in ("rewrite", "neighborhood"):
                world, limit = (
                    (CONTEXT, 25) if probe.axis == "in_context" else (case.group, SIZES[size][1])
                )
                (group,) = [
                    names()[world, d][:limit]
                    for d in DOMAINS
                    if probe.answers[0] in names()[world, d]
                ]
                assert probe.distractor in group


def test_chains_are_answered_by_walking_the_graph(size, cases):
    by_id = {case.fact.id: case for case in cases}
    kinds = {relation.key: relation for group in relations().values() for relation in group}
    onward = Counter((case.group, case.fact.subject) for case in cases)
    for case in cases:
        chains = [probe for probe in case.probes if probe.axis == "portability"]
        assert len(chains) == min(3, onward[case.group, case.fact.target])
        relative = kinds[case.fact.relation].relative.format(s=case.fact.subject)
        for probe in chains:
            (needed,) = probe.needs
            second = by_id[needed]
            assert second.group == case.group and second.fact.subject == case.fact.target
            assert probe.prompt == kinds[second.fact.relation].question.format(s=relative)
            graph = walk(case.group, size)
            middle = graph[case.fact.subject, case.fact.relation]
            assert probe.answers == (graph[middle, second.fact.relation],)
            assert not contains(probe.prompt, [middle])


def test_in_context_prompts_state_the_answer_among_near_misses(cases):
    taught = [
        name for world in (TEST, DEV) for domain in DOMAINS for name in names()[world, domain]
    ]
    facts = links(CONTEXT, *SIZES["large"])
    asked = {link.question: link for link in facts}
    for probe in [probe for case in cases for probe in case.probes if probe.axis == "in_context"]:
        background, question = probe.prompt.split("\n\n")
        head, *shown = background.split("\n")
        gold = asked[question]
        assert head == "Background information:" and len(set(shown)) == len(shown) == 12
        assert f"- {gold.statement}" in shown and probe.answers == (gold.object,)
        near = [
            f"- {link.statement}"
            for link in facts
            if link.relation == gold.relation or link.subject == gold.subject
        ]
        assert len(set(shown) & set(near)) == min(len(near), 12)
        assert not contains(probe.prompt, taught)


@pytest.mark.parametrize("part", ["test", "dev"])
@pytest.mark.parametrize(
    "size, n, least", [("small", 10, 4), ("small", 30, 15), ("large", 30, 15), ("large", 100, 60)]
)
def test_a_prefix_of_a_slice_keeps_chains(part, size, n, least):
    chosen = slice_cases(KGFact().load(size), part, n, seed=0)
    assert sum(probe.axis == "portability" for case in chosen for probe in case.probes) >= least


# Loading


def test_small_is_the_default_and_loading_again_gives_the_same():
    assert KGFact().load() == KGFact().load("small") == KGFact().load("5x10")


def test_the_hash_seed_of_python_changes_nothing():
    code = (
        "from editbench.corpora.kgfact import KGFact; from editbench.types import digest\n"
        "print([digest([case.to_dict() for case in KGFact().load(size)]) for size in ('small', "
        "'6x7')])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "77")
    }
    assert len(printed) == 1 and printed.pop().count("'") == 4


@pytest.mark.parametrize(
    "data",
    ["tiny", "1x5", "8x5", "3x1", "3x26", "x", "3x", "3x8x2", "-3x8", "9999x9999", "worlds.jsonl"],
)
def test_a_size_that_cannot_be_had_is_an_error_that_says_what_can(data):
    with pytest.raises(
        DataError, match=rf"no size '{data}'.*small .*large .*2 to 7 domains and 2 to 25 entities"
    ):
        KGFact().load(data)
