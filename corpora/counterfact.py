"""CounterFact (Meng et al. 2022, arXiv 2202.05262): counterfactual triples, in ROME's records or EasyEdit's flat ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from editbench.corpora._fetch import Published, one_hop_probes
from editbench.corpora._read import text_at, texts_in
from editbench.errors import DataError
from editbench.types import Case, Fact, Probe


class CounterFact(Published):
    """Cloze facts with two paraphrases and ten neighbors each (in EasyEdit's form: one and one).

    As in the paper, a neighborhood prompt's answer is the fact's own original one (the neighbors share it) and its
    distractor is the target. Generation prompts become ``fluency`` probes. The texts that consistency is measured against
    lie in a file of their own at the publisher (attribute_snippets.json); a record may bring them as ``attribute_snippets``,
    a list of texts. Attribute and distracting-neighborhood prompts are not read.
    """

    summary = "counterfactual triples about Wikidata subjects (ROME, 21,919 records)"
    license = "MIT"
    url = "https://rome.baulab.info/data/dsets/counterfact.json"
    name = "counterfact"

    def read_case(self, index: int, record: Mapping[str, Any]) -> Case:
        fact_id = f"{self.name}-{record.get('case_id', index)}"
        if "requested_rewrite" in record:
            return _from_rome(fact_id, record)
        if {"prompt", "target_new", "ground_truth", "locality_prompt"} <= set(record):
            return _from_easyedit(fact_id, record)
        raise DataError(
            "It has neither ROME's field (requested_rewrite) nor EasyEdit's (prompt, target_new, ground_truth, "
            f"locality_prompt), but {', '.join(map(str, record)) or 'none'}."
        )


def _from_rome(fact_id: str, record: Mapping[str, Any]) -> Case:
    template, subject = (
        text_at(record, "requested_rewrite", field) for field in ("prompt", "subject")
    )
    target, original = (
        text_at(record, "requested_rewrite", field, "str")
        for field in ("target_new", "target_true")
    )
    if "{}" not in template:
        raise DataError(f"Its prompt {template!r} has no {{}} where the subject belongs.")
    fact = Fact(
        fact_id,
        template.replace("{}", subject),
        target,
        subject=subject,
        original=original,
        relation=record["requested_rewrite"].get("relation_id"),
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


def _openings(record: Mapping[str, Any], target: str) -> list[Probe]:
    """A fluency probe for each generation prompt; the ten of a record are three or four, repeated."""
    prompts, texts = (
        texts_in(record[field], field) if record.get(field) else []
        for field in ("generation_prompts", "attribute_snippets")
    )
    return [
        Probe("fluency", prompt, (target,), references=tuple(texts))
        for prompt in dict.fromkeys(prompts)
    ]


def _from_easyedit(fact_id: str, record: Mapping[str, Any]) -> Case:
    original = text_at(record, "ground_truth")
    fact = Fact(
        fact_id,
        text_at(record, "prompt"),
        text_at(record, "target_new"),
        subject=record.get("subject"),
        original=original,
        relation=record.get("relation_id"),
    )
    probes = []
    if "rephrase_prompt" in record:
        probes.append(
            Probe("paraphrase", text_at(record, "rephrase_prompt"), (fact.target,), original)
        )
    answer = text_at(record, "locality_ground_truth")
    probes.append(Probe("neighborhood", text_at(record, "locality_prompt"), (answer,), fact.target))
    return Case.build(fact, probes)
