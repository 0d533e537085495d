"""TempLAMA (Dhingra et al. 2022, arXiv 2106.15110) as IKE edits time.

A record is one query with its answers in several years.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from editbench.corpora._fetch import Published
from editbench.corpora._read import Record, foreign, list_at, text_at, told_apart
from editbench.errors import DataError
from editbench.types import Case, Fact, Probe

QUERY = re.compile(
    r"((.+) (?:attended|holds the position of|is a member of the|is owned by|plays for|works for))"
    r" _X_\."
)
"""Matches the queries of six of TempLAMA's nine relations: those that end with the answer."""


class TempLAMA(Published):
    """One case for each year of a query, in chronological order: "In 2019, Tom Brady plays for".

    Each fact is true of its year. The years of one subject form one group. No fact contradicts
    another, so none has an ``original``. If the last year's answer is the most recent one that
    TempLAMA knows, that case has a portability probe of kind ``now``: the query without a year,
    with the previous answer as its distractor. It is asked only if all years are taught. The set
    has neither rewordings nor neighbors.
    """

    summary = (
        "who worked, played or held office where in which year, and now "
        "(TempLAMA's 928 queries of IKE)"
    )
    license = "none stated for IKE's selection; TempLAMA Apache-2.0, Wikidata CC0"
    url = (
        "https://raw.githubusercontent.com/Zce1112zslx/IKE/6ffd87232f626baf8d5c24c2ed4a1d21cc896935/"
        "time_editing.json"
    )
    name = "templama"
    source = "TempLAMA"

    def as_record(self, value: object) -> Record:
        """Return a row, which is a list with one entry per year, as a record with ``years``."""
        if not isinstance(value, list):
            raise foreign(self.source, "a list of years", value)
        return {"years": value}

    def read_cases(self, index: int, record: Record) -> list[Case]:
        years = list_at(record, "years", object, "objects")
        if not years:
            raise DataError("The list of years is empty.")
        entries = sorted(years, key=lambda entry: text_at(entry, "date"))
        query = text_at(entries[0], "query")
        parts = QUERY.fullmatch(query)
        if not parts or any(text_at(entry, "query") != query for entry in entries):
            raise DataError(
                "The years do not share one query that ends with the answer; "
                f"the first is {query!r}."
            )
        prompt, subject = parts.groups()
        facts = [_fact(entry, prompt, subject) for entry in entries]
        # An id is SUBJECT_RELATION_YEAR. The group is the subject.
        group = facts[0].id.rpartition("_")[0].rpartition("_")[0]
        cases = [Case.build(fact, group=group) for fact in facts]
        if (
            len(facts) > 1
            and text_at(entries[-1], "most_recent_answer", "name") == facts[-1].target
        ):
            now = self.read_probes(
                f"record {index}: portability now", [facts], partial(_now, prompt)
            )
            cases[-1] = Case.build(facts[-1], now, group)
        return cases


def _now(prompt: str, facts: Sequence[Fact]) -> Probe:
    """Return the probe that asks for the present answer."""
    *earlier, last = facts
    answers = told_apart(last.answers, earlier[-1].target)
    return Probe(
        "portability",
        prompt,
        answers,
        earlier[-1].target,
        needs=tuple(fact.id for fact in earlier),
        kind="now",
    )


def _fact(entry: object, prompt: str, subject: str) -> Fact:
    """Return the fact of one year."""
    answers = entry.get("answer") if isinstance(entry, dict) else None
    if not isinstance(answers, list) or not answers:
        raise DataError("Field 'answer' must be a list of objects.")
    target, *aliases = (text_at(answer, "name") for answer in answers)
    fact_id = f"templama-{text_at(entry, 'id')}"
    year = text_at(entry, "date")
    return Fact(
        fact_id,
        f"In {year}, {prompt}",
        target,
        subject,
        None,
        tuple(aliases),
        relation=text_at(entry, "relation"),
    )
