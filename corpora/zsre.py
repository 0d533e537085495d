"""zsRE as model editors use it (Levy et al. 2017; edits by De Cao et al. 2021).

Reads MEND's records (zsre_mend_train, zsre_mend_eval and its portability form), KnowEdit's
(ZsRE-test-all) and the flat ones of EasyEdit.
"""

from __future__ import annotations

from collections.abc import Sequence

from editbench.corpora._fetch import Published, one_hop_probes
from editbench.corpora._read import Record, foreign, optional_text, text_at, texts_in
from editbench.corpora._recognise import corpus_of
from editbench.corpora.knowedit import knowedit_probes
from editbench.errors import DataError
from editbench.matching import exact
from editbench.types import Case, Fact, Probe, form_of

LOC_PREFIX = "nq question: "


class Zsre(Published):
    """Questions with a counterfactual target, one rephrasing, and questions that must not move.

    As in MEND and EasyEdit, the target is ``alt``, a wrong answer that some model gave. The authors
    of ROME and MEMIT instead teach the true answer, ``answers[0]``, so their zsRE numbers measure a
    different edit. MEND's ``loc`` is an unrelated question from Natural Questions. KnowEdit's
    locality prompts are clozes about the same subject. ``pred`` (what MEND's model said) and
    ``cond`` are not read.
    """

    summary = (
        "questions about Wikipedia relations with a counterfactual answer "
        "(MEND's evaluation set, 19,086 records)"
    )
    license = "none stated for zsRE; neighborhood questions (Natural Questions) CC BY-SA 3.0"
    form = "question"
    url = "https://rome.baulab.info/data/dsets/zsre_mend_eval.json"
    name = "zsre"
    source = "zsRE"

    def read_case(self, index: int, record: Record) -> Case:
        fact_id = f"{self.name}-{record.get('case_id', index)}"
        if {"src", "alt", "answers"} <= set(record):
            fact = _fact(fact_id, record, "src", "alt", "answers")
            return Case.build(
                fact,
                [
                    *_paraphrases(fact, record, "rephrase"),
                    *_neighbor(record, "loc", "loc_ans"),
                    *one_hop_probes(record),
                ],
            )
        if (
            {"prompt", "target_new", "ground_truth", "rephrase_prompt"} <= set(record)
            and corpus_of(record) != "counterfact"  # the same fields, but clozes
        ):
            fact = _fact(fact_id, record, "prompt", "target_new", "ground_truth")
            probes = [
                *_paraphrases(fact, record, "rephrase_prompt"),
                *_neighbor(record, "locality_prompt", "locality_ground_truth"),
                *knowedit_probes(self, index, record, fact),
            ]
            return Case.build(fact, probes)
        raise foreign(
            self.source,
            "the fields src, alt and answers (MEND), or prompt, target_new, ground_truth and "
            "rephrase_prompt (KnowEdit, EasyEdit)",
            record,
        )


def _fact(fact_id: str, record: Record, prompt: str, target: str, answers: str) -> Fact:
    known = texts_in(record[answers], answers)
    alt = text_at(record, target)
    if exact(alt, known):
        raise DataError(f"The target {alt!r} is among the true answers already.")
    return Fact(
        fact_id,
        text_at(record, prompt),
        alt,
        subject=optional_text(record, "subject"),
        original=known[0],
        form="question",
    )


def _paraphrases(fact: Fact, record: Record, field: str) -> list[Probe]:
    if field not in record:
        return []
    return [Probe("paraphrase", text_at(record, field), (fact.target,), fact.original, "question")]


def _neighbor(record: Record, field: str, answers: str) -> list[Probe]:
    """Return the unrelated question in ``field``, if there is one."""
    if field not in record:
        return []
    return [nq_probe(text_at(record, field), texts_in(record.get(answers), answers))]


def nq_probe(question: str, answers: Sequence[str]) -> Probe:
    """Return the probe of a question from Natural Questions, which have no question mark."""
    question = question.removeprefix(LOC_PREFIX)
    if form_of(question) != "question":
        question += "?"
    return Probe("neighborhood", question, tuple(answers), form="question")
