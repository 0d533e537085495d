"""RippleEdits (Cohen et al. 2024, arXiv 2307.12976): edits of Wikidata facts.

Six criteria test what each edit entails.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

from editbench.corpora._fetch import Published
from editbench.corpora._read import Record, foreign, list_at, matchable, text_at, told_apart
from editbench.errors import DataError
from editbench.types import Case, Fact, Probe, form_of

CRITERIA = {
    "Logical_Generalization": "portability",
    "Compositionality_I": "portability",
    "Compositionality_II": "portability",
    "Subject_Aliasing": "portability",
    "Relation_Specificity": "neighborhood",
    "Forgetfulness": "neighborhood",
}
"""Criterion -> axis of its probes."""
TEMPLATES = {
    "AWARD_RECEIVED": "The name of the award {} won is",
    "CAPITAL": "The name of the capital city of {} is",
    "CAPITAL_OF": "The name of the country which {} is the capital of is",
    "CAST_MEMBER": "The names of the cast members of {} are",
    "CONTINENT": "The name of the continent which {} is part of is",
    "COUNTRY": "The name of the country which {} is associated with is",
    "CURRENCY": "The name of the currency in {} is",
    "ETHNIC_GROUP": "The name of the ethnic group which {} is associated with is",
    "FOLLOWED_BY": "{} is followed by",
    "FOLLOWS": "{} follows",
    "LEAGUE": "The name of the league which {} plays in is",
    "MEMBER_OF_SPORTS_TEAM": "The name of the sports team which {} is a member of is",
    "NATIVE_LANGUAGE": "The mother tongue of {} is",
    "NUMBER_OF_CHILDREN": "The number of children {} has is",
    "POSITION_HELD": "The name of the position held by {} is",
    "RELIGION": "The name of the religion which {} is associated with is",
    "SEX_OR_GENDER": "The gender of {} is",
    "SIBLING": "The names of the siblings of {} are",
}
"""Relation -> its prompt, unless that is "The (name of the) RELATION of {} is"."""


class Ripple(Published):
    """Clozes. The kind of a probe is the criterion that it tests.

    Portability has ``Logical_Generalization`` (a brother's brother), ``Compositionality_I`` (a hop
    from the new answer on), ``Compositionality_II`` (a hop to the subject first) and
    ``Subject_Aliasing``. Neighborhood has ``Relation_Specificity`` (the subject's other relations)
    and ``Forgetfulness`` (the relation's other answers).

    An edit is published as one sentence that does not mark its subject. The prompts of the
    relations show where the subject is and where the target begins. Queries with the same prompt
    become one probe, and every query of a test is asked. Two things differ from the paper:

    - The paper asks a test only of a model that answers the test's ``condition_queries`` before the
      edit. They are not read here, so portability also has chains whose other hop the model does
      not know. Compare with the base.
    - The paper expects all answers of a query. A probe accepts any of them. Codes of up to three
      letters are not accepted as aliases.
    """

    summary = (
        "edits of Wikidata facts and their six ripple effects "
        "(RippleEdits; popular, or random or recent by --data)"
    )
    license = "MIT"
    url = "https://github.com/edenbiran/RippleEdits/raw/main/data/benchmark/popular.json"
    name = "ripple"
    source = "RippleEdits"
    one_at_a_time = True

    def read_case(self, index: int, record: Record) -> Case:
        if not isinstance(record.get("edit"), Mapping) or not CRITERIA.keys() & record.keys():
            raise foreign(
                self.source, "the field edit, and criteria such as Compositionality_I", record
            )
        fact = _fact(f"{self.name}-{index}", record)
        probes = []
        for criterion, axis in CRITERIA.items():
            queries: dict[str, list[Record]] = {}
            for query in _queries(record, criterion):
                queries.setdefault(text_at(query, "prompt"), []).append(query)
            # Only here does the same question get the old answer before the edit.
            distractor = fact.original if criterion == "Subject_Aliasing" else None
            read = partial(_probe, axis, criterion, distractor)
            probes += self.read_probes(f"record {index}: {criterion}", queries.values(), read)
        return Case.build(fact, probes)


def _fact(fact_id: str, record: Record) -> Fact:
    edit = record["edit"]
    assert isinstance(edit, Mapping)
    subject, prompt, target = _parse(edit)
    # The authors' code and README use different names for this field.
    before = edit.get("previous_fact") or edit.get("original_fact")
    original = _parse(before)[2] if before else None
    aliases = told_apart((target, *_aliases(record, edit.get("target_id"), target)), original)[1:]
    relation = text_at(edit, "relation")
    return Fact(fact_id, prompt, target, subject, original, aliases, relation=relation)


def _parse(edit: object) -> tuple[str, str, str]:
    """Return the subject, the prompt and the target of the sentence ``edit["prompt"]``.

    Raises:
        DataError: if the sentence does not follow its relation's prompt.
    """
    sentence, relation = text_at(edit, "prompt"), text_at(edit, "relation")
    if relation in TEMPLATES:
        pattern = re.escape(TEMPLATES[relation]).replace(r"\{\}", "(?P<subject>.+?)")
    else:
        words = re.escape(relation.lower().replace("_", " "))
        pattern = rf"The (name of the )?{words} of (?P<subject>.+?) is"
    parts = re.fullmatch(rf"(?P<prompt>{pattern}) (?P<target>.+)\.", sentence)
    if not parts:
        raise DataError(f"The edit {sentence!r} does not follow the prompt of relation {relation}.")
    return parts["subject"], parts["prompt"], parts["target"]


def _aliases(record: Record, target_id: object, target: str) -> tuple[str, ...]:
    """Return other names of the target, taken from a query that it answers.

    The edit itself has only the target's id and one name.
    """
    for query in _queries(record, "Subject_Aliasing"):
        if query.get("target_ids") == [target_id]:
            answers = _answers(query)
            if answers and answers[0] == target:
                return answers[1:]
    return ()


def _queries(record: Record, criterion: str) -> list[Record]:
    """Return the queries of all tests of a criterion.

    Raises:
        DataError: if the field has another shape.
    """
    try:
        tests = list_at(record, criterion, dict, "objects")
        queries = [query for test in tests for query in test["test_queries"]]
    except (DataError, TypeError, KeyError) as error:
        raise DataError(
            f"Field {criterion!r} must be a list of objects with test_queries."
        ) from error
    if not all(isinstance(query, Mapping) for query in queries):
        raise DataError(f"Field {criterion!r} has a test query that is not an object.")
    return queries


def _probe(axis: str, criterion: str, distractor: str | None, queries: Sequence[Record]) -> Probe:
    prompt = text_at(queries[0], "prompt")
    answers = tuple(dict.fromkeys(answer for query in queries for answer in _answers(query)))
    if not answers:
        raise DataError(f"{prompt!r} has no answer.")
    return Probe(
        axis, prompt, told_apart(answers, distractor), distractor, form_of(prompt), kind=criterion
    )


def _answers(query: Record) -> tuple[str, ...]:
    """Return all answers to ``query`` that have a name, each followed by its aliases."""
    named = [answer for answer in list_at(query, "answers", dict, "objects") if answer.get("value")]
    return tuple(
        name
        for answer in named
        for name in matchable([text_at(answer, "value"), *list_at(answer, "aliases", str, "texts")])
    )
