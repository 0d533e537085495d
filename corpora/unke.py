"""UnKE (Deng et al. 2024, arXiv 2405.15349): a paragraph as the answer to each question."""

from __future__ import annotations

from editbench.corpora._fetch import TOKENS, Published, scorable
from editbench.corpora._read import Record, foreign, text_at, texts_in
from editbench.errors import DataError
from editbench.types import Case, Fact, Probe

FIELDS = ("question", "answer", "para_question", "sub_question", "sub_answer")


class UnKE(Published):
    """Questions whose answers are paragraphs of about 90 words, and questions about their details.

    ``question`` is taught with the whole ``answer`` as its target. ``para_question`` is its
    paraphrase. No free answer repeats 90 words one by one, so efficacy and generalization are
    undefined under protocol ``generation``. See them under ``argmax``, best as the share of tokens
    (``efficacy_tokens``). The authors compare the free answer with the text by BLEU, ROUGE and
    sentence embeddings, which this project does not compute; ``--judge`` reads it.

    What was learned shows in portability under ``generation``: each ``sub_question`` has a short
    answer in the text (``sub_answer``, kind ``detail``). Those of more than 15 words are scored
    under ``argmax`` alone, too. The set has no neighbors. The authors ask MMLU instead: see
    ``--tasks mmlu``.
    """

    summary = "paragraphs as answers, and questions about their details (UnKE, 1,000 records)"
    license = "none stated"
    form = "question"
    url = "https://github.com/TrustedLLM/UnKE/raw/main/data/final_data_v3.json"
    name = "unke"
    source = "UnKE"

    def read_case(self, index: int, record: Record) -> Case:
        if not set(FIELDS) <= set(record):
            raise foreign(self.source, f"the fields {', '.join(FIELDS)}", record)
        fact = Fact(
            f"{self.name}-{record.get('id', index)}",
            text_at(record, "question"),
            text_at(record, "answer"),
            form="question",
        )
        questions, answers = (
            texts_in(record[field], field) for field in ("sub_question", "sub_answer")
        )
        if len(questions) != len(answers):
            raise DataError("Fields 'sub_question' and 'sub_answer' differ in length.")
        probes = [
            Probe(
                "paraphrase",
                text_at(record, "para_question"),
                fact.answers,
                form="question",
                protocols=TOKENS,
            )
        ]
        probes += [
            Probe(
                "portability",
                question,
                (answer,),
                form="question",
                kind="detail",
                protocols=scorable([answer]),
            )
            for question, answer in zip(questions, answers, strict=True)
        ]
        return Case.build(fact, probes, protocols=TOKENS)
