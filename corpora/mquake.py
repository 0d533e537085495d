"""MQuAKE (Zhong et al. 2023, arXiv 2305.14795): counterfactual edits, and multi-hop questions whose answers follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editbench.corpora._fetch import Published
from editbench.corpora._read import matchable, text_at, texts_in, told_apart
from editbench.errors import DataError
from editbench.types import Case, Fact, Probe

FIELDS = ("requested_rewrite", "questions", "answer", "new_answer", "new_single_hops")


class MQuAKE(Published):
    """One case for each edit; the multi-hop questions are portability probes that need all edits of their record.

    An edit that several records request is one case, in the first of them. A later record joins that one's group, and hangs
    its probes on its first edit that is new. So the facts of a slice chain, and none contradicts another. Left out are:

    - a record that edits an unedited hop of an earlier one, or the other way round: a question's answer would depend on which
      other facts are taught (what Zhong et al. 2025, MQuAKE-Remastered, call contamination; a third of the published records);
    - a record without a new edit, or whose edits belong to two groups, since groups would grow to hundreds of cases;
    - a record whose old answer has the new one in it ("American English", "English"), so that no matcher tells them apart.

    The chain's unedited hops are neighborhood probes: the question needs them as they are. An edit in question form is its
    paraphrase probe. The kind of a question counts its hops and those of them that are edited ("3 hops, 2 edited"). Aliases in
    the old answer are dropped, and so are those that ``matchable`` drops.
    """

    summary = "counterfactual edits with multi-hop questions that follow from them (MQuAKE-CF-3k, 3,000 records)"
    license = "MIT"
    url = "https://raw.githubusercontent.com/princeton-nlp/MQuAKE/main/datasets/MQuAKE-CF-3k.json"
    name = "mquake"

    def load(self, data: str | Path | None = None) -> list[Case]:
        self._names: set[str] = set()
        # the cases kept so far by their prompts, and their chains' unedited clozes with the names of their records
        self._edits: dict[str, Case] = {}
        self._hops: dict[str, str] = {}
        return super().load(data)

    def read_cases(self, index: int, record: Mapping[str, Any]) -> list[Case]:
        if not set(FIELDS) <= set(record):
            raise DataError(
                f"It has not MQuAKE's fields ({', '.join(FIELDS)}), but {', '.join(map(str, record)) or 'none'}."
            )
        name = f"{self.name}-{record.get('case_id', index)}"
        hops = {
            hop.cloze: hop for hop in _each(record, "new_single_hops", lambda _, hop: _hop(hop))
        }
        edits = _each(
            record, "requested_rewrite", lambda number, edit: _fact(f"{name}-{number}", edit, hops)
        )
        facts = {edit.prompt: edit for edit in edits}
        unedited = [hop for hop in hops.values() if hop.cloze not in facts]
        if len(facts) < len(edits):
            raise DataError("It requests one edit twice.")
        self._check(name, facts, unedited)
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
            if not cases:
                probes += [
                    Probe("neighborhood", hop.question, hop.answers, form="question")
                    for hop in unedited
                ]
                kind = f"{len(hops)} hops, {len(facts)} edited"
                probes += _questions(
                    record, tuple(fact_id for fact_id in ids if fact_id != fact.id), kind
                )
            cases.append(Case.build(fact, probes, group))
        self._names.add(name)
        self._edits.update({case.fact.prompt: case for case in cases})
        for hop in unedited:
            self._hops.setdefault(hop.cloze, name)
        return cases

    def _check(self, name: str, facts: Mapping[str, Fact], unedited: Sequence[_Hop]) -> None:
        """Makes sure that the record can be taught and asked beside all the earlier ones, and adds to them.

        Raises:
            DataError: it cannot; names the earlier one.
        """
        if name in self._names:
            raise DataError(f"Its case_id is that of an earlier record, {name!r}.")
        for fact in facts.values():
            earlier = self._edits.get(fact.prompt)
            if earlier and earlier.fact.target != fact.target:
                raise DataError(
                    f"It edits {fact.prompt!r} to {fact.target!r}, but {earlier.fact.id!r} to {earlier.fact.target!r}."
                )
            if fact.prompt in self._hops:
                raise DataError(
                    f"It edits {fact.prompt!r}, an unedited hop of {self._hops[fact.prompt]!r}."
                )
        for hop in unedited:
            if hop.cloze in self._edits:
                raise DataError(
                    f"Its unedited hop {hop.cloze!r} is edited by {self._edits[hop.cloze].fact.id!r}."
                )
        known = [self._edits[prompt] for prompt in facts if prompt in self._edits]
        if len(known) == len(facts):
            raise DataError(f"It edits nothing new: {', '.join(case.fact.id for case in known)}.")
        groups = list(dict.fromkeys(str(case.group) for case in known))
        if len(groups) > 1:
            raise DataError(f"Its edits belong to several groups: {', '.join(groups)}.")


@dataclass(frozen=True)
class _Hop:
    question: str
    cloze: str
    answers: tuple[str, ...]


def _each(
    record: Mapping[str, Any], field: str, read: Callable[[int, Mapping[str, Any]], Any]
) -> list[Any]:
    """What ``read`` makes of each object of the list ``record[field]``, given its number from 1."""
    items = record[field]
    if (
        not isinstance(items, list)
        or not items
        or not all(isinstance(item, Mapping) for item in items)
    ):
        raise DataError(f"Field {field!r} must be a list of objects.")
    found = []
    for number, item in enumerate(items, start=1):
        try:
            found.append(read(number, item))
        except DataError as error:
            raise DataError(f"{field} {number}: {error}") from error
    return found


def _hop(hop: Mapping[str, Any]) -> _Hop:
    return _Hop(text_at(hop, "question"), text_at(hop, "cloze"), _answers(hop, "answer"))


def _fact(fact_id: str, edit: Mapping[str, Any], hops: Mapping[str, _Hop]) -> Fact:
    template, subject = text_at(edit, "prompt"), text_at(edit, "subject")
    if "{}" not in template:
        raise DataError(f"Its prompt {template!r} has no {{}} where the subject belongs.")
    prompt = template.replace("{}", subject)
    target, original = _value(edit, "target_new"), _value(edit, "target_true")
    hop = hops.get(prompt)
    if hop is None or hop.answers[0] != target:
        raise DataError(f"{prompt!r} -> {target!r} is no hop of the new chain.")
    return Fact(
        fact_id,
        prompt,
        target,
        subject=subject,
        original=original,
        aliases=told_apart(hop.answers, original)[1:],
        relation=edit.get("relation_id"),
    )


def _value(edit: Mapping[str, Any], field: str) -> str:
    """``{field: {"str": ...}}``, or ``{field_str: ...}`` as on MQuAKE-Remastered's hub page."""
    return text_at(edit, f"{field}_str") if f"{field}_str" in edit else text_at(edit, field, "str")


def _questions(record: Mapping[str, Any], needs: tuple[str, ...], kind: str) -> list[Probe]:
    old = text_at(record, "answer")
    answers = told_apart(_answers(record, "new_answer"), old)
    questions = texts_in(record["questions"], "questions")
    return [
        Probe("portability", question, answers, old, "question", needs, kind=kind)
        for question in questions
    ]


def _answers(record: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """The answer and those of its aliases that can be matched."""
    aliases = record.get(f"{field}_alias") or []
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise DataError(f"Field '{field}_alias' must be a list of texts.")
    return matchable([text_at(record, field), *aliases])
