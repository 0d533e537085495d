"""CounterFact (Meng et al. 2022, arXiv 2202.05262): counterfactual triples.

Reads ROME's records, also with the one-hop questions of Yao et al., and EasyEdit's flat ones
(counterfact-edit, -train and -val).
"""

from __future__ import annotations

from editbench.corpora._fetch import Published, one_hop_probes
from editbench.corpora._read import Record, fill, foreign, optional_text, text_at, texts_in
from editbench.corpora._recognise import corpus_of
from editbench.types import Case, Fact, Probe


class CounterFact(Published):
    """Cloze facts with two paraphrases and ten neighbors each (in EasyEdit's form: one and one).

    As in the paper, the neighbors share the fact's original answer. So it is the answer to a
    neighborhood prompt, and the target is its distractor. Generation prompts become ``fluency``
    probes. The authors publish the reference texts of consistency in a separate file
    (attribute_snippets.json). A record may contain them as ``attribute_snippets``, a list of texts.
    Attribute and distracting-neighborhood prompts are not read.

    EasyEdit's records have ``prompt``, ``target_new``, ``ground_truth`` (the old answer),
    ``rephrase_prompt``, and the neighbor in ``locality_prompt`` and ``locality_ground_truth``.
    Records with ``locality`` and ``portability`` by kind are read by corpus ``knowedit``.
    """

    summary = "counterfactual triples about Wikidata subjects (ROME, 21,919 records)"
    license = "MIT"
    url = "https://rome.baulab.info/data/dsets/counterfact.json"
    name = "counterfact"
    source = "CounterFact"

    def read_case(self, index: int, record: Record) -> Case:
        fact_id = f"{self.name}-{record.get('case_id', index)}"
        if "requested_rewrite" in record:
            return _from_rome(fact_id, record)
        if {"prompt", "target_new", "ground_truth", "locality_prompt"} <= set(record) and (
            corpus_of(record) != "zsre"  # the same fields, but questions
        ):
            return _from_easyedit(fact_id, record)
        raise foreign(
            self.source,
            "the field requested_rewrite (ROME), or prompt, target_new, ground_truth and "
            "locality_prompt (EasyEdit)",
            record,
        )


def _from_rome(fact_id: str, record: Record) -> Case:
    template, subject = (
        text_at(record, "requested_rewrite", field) for field in ("prompt", "subject")
    )
    target, original = (
        text_at(record, "requested_rewrite", field, "str")
        for field in ("target_new", "target_true")
    )
    prompt = fill(template, subject)
    rewrite = record["requested_rewrite"]
    fact = Fact(
        fact_id,
        prompt,
        target,
        subject=subject,
        original=original,
        relation=optional_text(rewrite, "relation_id") if isinstance(rewrite, dict) else None,
    )
    probes = []
    for axis, answer, distractor in (
        ("paraphrase", target, original),
        ("neighborhood", original, target),
    ):
        field = f"{axis}_prompts"
        prompts = texts_in(record[field], field) if record.get(field) else []
        probes += [Probe(axis, prompt, (answer,), distractor) for prompt in prompts]
    return Case.build(fact, [*probes, *one_hop_probes(record), *_openings(record, target)])


def _openings(record: Record, target: str) -> list[Probe]:
    """Return a fluency probe for each distinct generation prompt.

    A record lists ten prompts, which repeat three or four different ones.
    """
    prompts, texts = (
        texts_in(record[field], field) if record.get(field) else []
        for field in ("generation_prompts", "attribute_snippets")
    )
    return [
        Probe("fluency", prompt, (target,), references=tuple(texts))
        for prompt in dict.fromkeys(prompts)
    ]


def _from_easyedit(fact_id: str, record: Record) -> Case:
    original = text_at(record, "ground_truth")
    fact = Fact(
        fact_id,
        text_at(record, "prompt"),
        text_at(record, "target_new"),
        subject=optional_text(record, "subject"),
        original=original,
        relation=optional_text(record, "relation_id"),
    )
    probes = []
    if "rephrase_prompt" in record:
        probes.append(
            Probe("paraphrase", text_at(record, "rephrase_prompt"), (fact.target,), original)
        )
    answer = text_at(record, "locality_ground_truth")
    probes.append(Probe("neighborhood", text_at(record, "locality_prompt"), (answer,), fact.target))
    return Case.build(fact, [*probes, *one_hop_probes(record)])
