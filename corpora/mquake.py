"""MQuAKE (Zhong et al. 2023, arXiv 2305.14795): counterfactual edits.

Multi-hop questions ask what follows from the edits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from editbench.corpora._fetch import Published
from editbench.corpora._read import (
    Record,
    fill,
    foreign,
    list_at,
    matchable,
    optional_text,
    text_at,
    texts_in,
    told_apart,
)
from editbench.errors import DataError
from editbench.types import Case, Fact, Probe

Parsed = TypeVar("Parsed")

FIELDS = ("requested_rewrite", "questions", "answer", "new_answer", "new_single_hops")


class MQuAKE(Published):
    """One case for each edit.

    The multi-hop questions of a record are portability probes that need all its edits.

    An edit that several records request is one case, made from the first of these records. A later
    record joins that record's group, and its probes go to its first new edit. So the facts of a
    slice form chains, and none contradicts another. These records are left out:

    - a record that edits an unedited hop of an earlier one, or the other way round: the answer to a
      question would depend on which other facts are taught (Zhong et al. 2025, MQuAKE-Remastered,
      call this contamination; it affects a third of the published records);
    - a record without a new edit, or whose edits belong to two groups, since groups would grow to
      hundreds of cases;
    - a record whose old answer contains the new one ("American English", "English"), because no
      matcher can tell the two apart.

    The unedited hops of a chain are neighborhood probes, since the question needs them unchanged.
    The question form of an edit is its paraphrase probe. The kind of a question counts its hops and
    how many of them are edited ("3 hops, 2 edited"). Aliases contained in the old answer are
    dropped, and so are those that ``matchable`` drops.
    """

    summary = (
        "counterfactual edits with multi-hop questions that follow from them "
        "(MQuAKE-CF-3k, 3,000 records)"
    )
    license = "MIT"
    url = "https://raw.githubusercontent.com/princeton-nlp/MQuAKE/main/datasets/MQuAKE-CF-3k.json"
    name = "mquake"
    source = "MQuAKE"

    def load(self, data: str | Path | None = None) -> list[Case]:
        self._names: set[str] = set()
        # The cases so far by prompt, and each unedited cloze of their chains with its record.
        self._edits: dict[str, Case] = {}
        self._hops: dict[str, str] = {}
        return super().load(data)

    def read_cases(self, index: int, record: Record) -> list[Case]:
        if not set(FIELDS) <= set(record):
            raise foreign(self.source, f"the fields {', '.join(FIELDS)}", record)
        name = f"{self.name}-{record.get('case_id', index)}"
        parsed = _each(record, "new_single_hops", lambda _, hop: _hop(hop))
        # The new chain: edited and unedited hops, each with its answer after the edit.
        hops = {hop.cloze: hop for hop in parsed}
        edits = _each(
            record, "requested_rewrite", lambda number, edit: _fact(f"{name}-{number}", edit, hops)
        )
        facts = {edit.prompt: edit for edit in edits}
        unedited = [hop for hop in hops.values() if hop.cloze not in facts]
        if len(facts) < len(edits):
            raise DataError("The record requests one edit twice.")
        # A record that fails the check must leave no trace, so it is remembered only afterwards.
        self._check(name, facts, unedited)
        cases = self._new_cases(name, record, hops, facts, unedited)
        self._names.add(name)
        self._edits.update({case.fact.prompt: case for case in cases})
        for hop in unedited:
            self._hops.setdefault(hop.cloze, name)
        return cases

    def _new_cases(
        self,
        name: str,
        record: Record,
        hops: Mapping[str, _Hop],
        facts: Mapping[str, Fact],
        unedited: Sequence[_Hop],
    ) -> list[Case]:
        """Return a case for each edit that no earlier record requests."""
        known = {prompt: self._edits[prompt] for prompt in facts if prompt in self._edits}
        group = next((case.group for case in known.values()), name)
        ids = [
            known[prompt].fact.id if prompt in known else fact.id for prompt, fact in facts.items()
        ]
        cases: list[Case] = []
        for prompt, fact in facts.items():
            if prompt in known:
                continue
            probes = [
                Probe("paraphrase", hops[prompt].question, fact.answers, fact.original, "question")
            ]
            if not cases:  # the first new edit has the probes of the whole chain
                probes += [
                    Probe("neighborhood", hop.question, hop.answers, form="question")
                    for hop in unedited
                ]
                # Of every edit of the chain but this one, under the id of the case that teaches it.
                needs = tuple(fact_id for fact_id in ids if fact_id != fact.id)
                probes += _questions(record, needs, f"{len(hops)} hops, {len(facts)} edited")
            cases.append(Case.build(fact, probes, group))
        return cases

    def _check(self, name: str, facts: Mapping[str, Fact], unedited: Sequence[_Hop]) -> None:
        """Check that a record adds a fact, and can be taught and asked together with earlier ones.

        Raises:
            DataError: if it cannot; names the earlier record.
        """
        if name in self._names:
            raise DataError(f"The case_id is already that of an earlier record, {name!r}.")
        for fact in facts.values():
            earlier = self._edits.get(fact.prompt)
            if earlier and earlier.fact.target != fact.target:
                raise DataError(
                    f"Edits {fact.prompt!r} to {fact.target!r}, "
                    f"but {earlier.fact.id!r} edits it to {earlier.fact.target!r}."
                )
            if fact.prompt in self._hops:
                raise DataError(
                    f"Edits {fact.prompt!r}, "
                    f"which is an unedited hop of {self._hops[fact.prompt]!r}."
                )
        for hop in unedited:
            if hop.cloze in self._edits:
                raise DataError(
                    f"The unedited hop {hop.cloze!r} is edited by "
                    f"{self._edits[hop.cloze].fact.id!r}."
                )
        known = [self._edits[prompt] for prompt in facts if prompt in self._edits]
        if len(known) == len(facts):
            raise DataError(f"Edits nothing new: {', '.join(case.fact.id for case in known)}.")
        groups = list(dict.fromkeys(str(case.group) for case in known))
        if len(groups) > 1:
            raise DataError(f"The edits belong to several groups: {', '.join(groups)}.")


@dataclass(frozen=True)
class _Hop:
    """One step of a chain, edited or not."""

    question: str
    cloze: str
    answers: tuple[str, ...]


def _each(record: Record, field: str, parse: Callable[[int, Record], Parsed]) -> list[Parsed]:
    """Parse each object of the list ``record[field]``, numbered from 1.

    Raises:
        DataError: if the field is not a list of objects, or one of them is refused; names it.
    """
    items = list_at(record, field, dict, "objects")
    if not items:
        raise DataError(f"Field {field!r} must be a list of objects.")
    parsed = []
    for number, item in enumerate(items, start=1):
        try:
            parsed.append(parse(number, item))
        except DataError as error:
            raise DataError(f"{field} {number}: {error}") from error
    return parsed


def _hop(hop: Record) -> _Hop:
    return _Hop(text_at(hop, "question"), text_at(hop, "cloze"), _answers(hop, "answer"))


def _fact(fact_id: str, edit: Record, hops: Mapping[str, _Hop]) -> Fact:
    subject = text_at(edit, "subject")
    prompt = fill(text_at(edit, "prompt"), subject)
    target, original = _value(edit, "target_new"), _value(edit, "target_true")
    hop = hops.get(prompt)
    if hop is None or hop.answers[0] != target:
        raise DataError(f"{prompt!r} -> {target!r} is not a hop of the new chain.")
    return Fact(
        fact_id,
        prompt,
        target,
        subject=subject,
        original=original,
        aliases=told_apart(hop.answers, original)[1:],
        relation=optional_text(edit, "relation_id"),
    )


def _value(edit: Record, field: str) -> str:
    """Return ``edit[field]["str"]``, or ``edit[field_str]`` as on MQuAKE-Remastered's hub page."""
    return text_at(edit, f"{field}_str") if f"{field}_str" in edit else text_at(edit, field, "str")


def _questions(record: Record, needs: tuple[str, ...], kind: str) -> list[Probe]:
    old = text_at(record, "answer")
    answers = told_apart(_answers(record, "new_answer"), old)
    questions = texts_in(record["questions"], "questions")
    return [
        Probe("portability", question, answers, old, "question", needs, kind=kind)
        for question in questions
    ]


def _answers(record: Record, field: str) -> tuple[str, ...]:
    """Return the answer and the aliases that can be matched."""
    aliases = list_at(record, f"{field}_alias", str, "texts")
    return matchable([text_at(record, field), *aliases])
