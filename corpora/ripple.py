"""RippleEdits (Cohen et al. 2024, arXiv 2307.12976): edits of Wikidata facts, and six criteria for what they entail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from editbench.corpora._fetch import Published
from editbench.corpora._read import matchable, text_at, told_apart
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
"""Relation -> its prompt, where that is not "The (name of the) RELATION of {} is"."""


class Ripple(Published):
    """Clozes; the kind of a probe is its criterion.

    Portability: ``Logical_Generalization`` (a brother's brother), ``Compositionality_I`` (a hop from the new answer on),
    ``Compositionality_II`` (a hop to the subject first), ``Subject_Aliasing``. Neighborhood: ``Relation_Specificity`` (the
    subject's other relations), ``Forgetfulness`` (the relation's other answers).

    An edit is published as one sentence, without its subject; the prompts of the relations tell where it is and where the
    target begins. Queries with one prompt are one probe, and every query of a test is asked. Two things differ from the paper:

    - It asks a test only of a model that answers the test's ``condition_queries`` before the edit. They are not read, so
      portability has chains, too, of which the model does not know the other hop: compare with the base.
    - It wants all answers of a query. A probe takes any; codes of up to three letters are no aliases.
    """

    summary = "edits of Wikidata facts and their six ripple effects (RippleEdits; popular, or random or recent by --data)"
    license = "MIT"
    url = "https://github.com/edenbiran/RippleEdits/raw/main/data/benchmark/popular.json"
    name = "ripple"
    one_at_a_time = True

    def read_case(self, index: int, record: Mapping[str, Any]) -> Case:
        if not isinstance(record.get("edit"), Mapping) or not CRITERIA.keys() & record.keys():
            found = ", ".join(map(str, record)) or "none"
            raise DataError(
                f"It has not RippleEdits' fields (edit, and criteria such as Compositionality_I), but {found}."
            )
        fact = _fact(f"{self.name}-{index}", record)
        probes = []
        for criterion, axis in CRITERIA.items():
            queries: dict[str, list[Mapping[str, Any]]] = {}
            for query in _queries(record, criterion):
                queries.setdefault(text_at(query, "prompt"), []).append(query)
            distractor = fact.original if criterion == "Subject_Aliasing" else None
            read = partial(_probe, axis, criterion, distractor)
            probes += self.read_probes(f"record {index}: {criterion}", queries.values(), read)
        return Case.build(fact, probes)


def _fact(fact_id: str, record: Mapping[str, Any]) -> Fact:
    edit = record["edit"]
    subject, prompt, target = _parse(edit)
    before = edit.get("previous_fact") or edit.get(
        "original_fact"
    )  # the authors' code and README use either name
    original = _parse(before)[2] if before else None
    aliases = told_apart((target, *_aliases(record, edit.get("target_id"), target)), original)[1:]
    return Fact(fact_id, prompt, target, subject, original, aliases, relation=edit["relation"])


def _parse(edit: Mapping[str, Any]) -> tuple[str, str, str]:
    """Subject, prompt and target of the sentence ``edit["prompt"]``."""
    sentence, relation = text_at(edit, "prompt"), text_at(edit, "relation")
    if relation in TEMPLATES:
        pattern = re.escape(TEMPLATES[relation]).replace(r"\{\}", "(?P<subject>.+?)")
    else:
        pattern = rf"The (name of the )?{re.escape(relation.lower().replace('_', ' '))} of (?P<subject>.+?) is"
    found = re.fullmatch(rf"(?P<prompt>{pattern}) (?P<target>.+)\.", sentence)
    if not found:
        raise DataError(f"Its edit {sentence!r} does not read like one of relation {relation}.")
    return found["subject"], found["prompt"], found["target"]


def _aliases(record: Mapping[str, Any], target_id: Any, target: str) -> tuple[str, ...]:
    """Other names of the target, from a query that it answers."""
    for query in _queries(record, "Subject_Aliasing"):
        if (
            query.get("target_ids") == [target_id]
            and (found := _answers(query))
            and found[0] == target
        ):
            return found[1:]
    return ()


def _queries(record: Mapping[str, Any], criterion: str) -> list[Mapping[str, Any]]:
    try:
        queries = [query for test in record.get(criterion) or () for query in test["test_queries"]]
    except (TypeError, KeyError) as error:
        raise DataError(
            f"Field {criterion!r} must be a list of objects with test_queries."
        ) from error
    if not all(isinstance(query, Mapping) for query in queries):
        raise DataError(f"Field {criterion!r} has a test query that is no object.")
    return queries


def _probe(
    axis: str, criterion: str, distractor: str | None, queries: list[Mapping[str, Any]]
) -> Probe:
    prompt = text_at(queries[0], "prompt")
    answers = tuple(dict.fromkeys(answer for query in queries for answer in _answers(query)))
    if not answers:
        raise DataError(f"{prompt!r} has no answer.")
    return Probe(
        axis, prompt, told_apart(answers, distractor), distractor, form_of(prompt), kind=criterion
    )


def _answers(query: Mapping[str, Any]) -> tuple[str, ...]:
    """All answers to ``query`` that have a name, each followed by its aliases."""
    answers = query.get("answers") or []
    if not isinstance(answers, list) or not all(isinstance(answer, Mapping) for answer in answers):
        raise DataError("Field 'answers' must be a list of objects.")
    named = [answer for answer in answers if answer.get("value")]
    return tuple(
        name
        for answer in named
        for name in matchable([text_at(answer, "value"), *_texts(answer, "aliases")])
    )


def _texts(answer: Mapping[str, Any], field: str) -> list[str]:
    values = answer.get(field) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"Field {field!r} must be a list of texts.")
    return values
