"""WikiBio as KnowEdit has it (Zhang et al. 2024, arXiv 2401.01286; Hartvigsen et al. 2023).

A true sentence replaces one that GPT-3 invented in a biography.
"""

from __future__ import annotations

from editbench.corpora._fetch import TOKENS, Published
from editbench.corpora._read import Record, foreign, text_at
from editbench.corpora.knowedit import knowedit_probes
from editbench.types import Case, Fact

FIELDS = ("text", "labels", "concept", "locality")


class WikiBio(Published):
    """Clozes that a whole sentence continues.

    ``text`` is the prompt: "This is a Wikipedia passage about", the name, and the biography so far.
    ``labels`` is the target, the next sentence of Wikipedia. ``concept`` is the subject. The
    records of one person, whose prompts contain each other, form one group.

    No free answer continues with that sentence word for word, so efficacy is undefined under
    protocol ``generation``. See it under ``argmax``, best as the share of tokens
    (``efficacy_tokens``), which is what EasyEdit reports. Specificity asks the prompts of
    ``locality`` (kind ``Relation_Specificity``: other facts about the person). The set has neither
    paraphrases nor portability.
    """

    summary = (
        "sentences that continue biographies, with neighbors (KnowEdit WikiBio, 1,392 records)"
    )
    license = "MIT"
    url = (
        "https://huggingface.co/datasets/zjunlp/KnowEdit/resolve/main/benchmark/WikiBio/"
        "wikibio-test-all.json"
    )
    name = "wikibio"
    source = "WikiBio"
    one_at_a_time = True

    def read_case(self, index: int, record: Record) -> Case:
        if not set(FIELDS) <= set(record):
            raise foreign(self.source, f"the fields {', '.join(FIELDS)}", record)
        text, target, concept = (text_at(record, field) for field in FIELDS[:3])
        fact = Fact(f"{self.name}-{index}", text, target, concept)
        probes = knowedit_probes(self, index, record, fact)
        return Case.build(fact, probes, f"{self.name}-{concept}", protocols=TOKENS)
