"""QAEdit (Yang et al. 2025, arXiv 2502.11177): questions of three QA sets as edits."""

from __future__ import annotations

from editbench.corpora._fetch import Published, scorable
from editbench.corpora._read import Record, foreign, list_at, optional_text, text_at
from editbench.corpora.zsre import nq_probe
from editbench.types import Case, Fact, Probe

FIELDS = ("prompt", "target", "rephrase", "locality")


class QAEdit(Published):
    """Questions with their true answers, each with one rephrasing and five unrelated questions.

    ``prompt`` is taught with ``target`` as its answer. Generalization asks ``rephrase``, and
    specificity the questions ``loc`` of ``locality``, which are from Natural Questions with the
    answer ``loc_ans``. The authors ask only the first of them. The relation is ``source``, the QA
    set of the question: NQ, TQA (TriviaQA) or SQA (SimpleQA). No old answer is published, so
    protocol ``likelihood`` scores neither efficacy nor generalization. A target of more than 15
    words, which no free answer repeats word for word, is scored under ``argmax`` alone.
    """

    summary = (
        "questions of NQ, TriviaQA and SimpleQA with their true answers (QAEdit, 19,200 records)"
    )
    license = "Apache-2.0"
    form = "question"
    url = "https://github.com/WanliYoung/Revisit-Editing-Evaluation/raw/main/data/QAEdit.json"
    name = "qaedit"
    source = "QAEdit"
    one_at_a_time = True

    def read_case(self, index: int, record: Record) -> Case:
        if not set(FIELDS) <= set(record):
            raise foreign(self.source, f"the fields {', '.join(FIELDS)}", record)
        # an id is unique among the records of one source
        source = optional_text(record, "source")
        fact = Fact(
            f"{self.name}-{source}-{record['id']}" if "id" in record else f"{self.name}-{index}",
            text_at(record, "prompt"),
            text_at(record, "target"),
            subject=optional_text(record, "subject"),
            relation=source,
            form="question",
        )
        protocols = scorable(fact.answers)
        probes = [
            Probe(
                "paraphrase",
                text_at(record, "rephrase"),
                fact.answers,
                form="question",
                protocols=protocols,
            )
        ]
        probes += self.read_probes(
            f"record {index}: locality",
            list_at(record, "locality", dict, "objects"),
            lambda item: nq_probe(text_at(item, "loc"), [text_at(item, "loc_ans")]),
        )
        return Case.build(fact, probes, protocols=protocols)
