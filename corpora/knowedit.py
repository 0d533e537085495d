"""KnowEdit (Zhang et al. 2024, arXiv 2401.01286): edits of Wikidata facts.

Each edit comes with prompts for what follows from it and for what must stay as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from editbench.corpora._fetch import Published
from editbench.corpora._read import Record, foreign, matchable, text_at, texts_in, told_apart
from editbench.errors import DataError
from editbench.types import Case, Fact, Probe, form_of

GROUPS = {"portability": "portability", "locality": "neighborhood"}
"""Field of a record -> axis of its probes."""


class KnowEdit(Published):
    """Clozes with a new answer.

    Probes keep the published names as their kind. Portability has ``Reasoning``,
    ``Subject_Aliasing`` and ``Logical_Generalization``. Neighborhood has ``Relation_Specificity``
    (other relations of the subject) and ``Forgetfulness`` (the subject's other answers: "The
    siblings of X, which is not Y, are").

    The class reads the records of wiki_recent, wiki_counterfact and ZsRE. Corpus ``wikibio`` reads
    WikiBio. ConvSent and TriviaQA teach a tone and the answer "I don't know", not facts. A probe
    with several answers accepts any of them, while EasyEdit asks for the first one token by token.
    Codes of up to three letters are not accepted as aliases. wiki_recent names no old answer, so
    its facts have no ``original``, and its probes no second answer for protocol ``likelihood``.
    """

    summary = (
        "edits of Wikidata facts with portability and locality by kind "
        "(KnowEdit wiki_counterfact, 885 records)"
    )
    license = "MIT"
    url = (
        "https://huggingface.co/datasets/zjunlp/KnowEdit/resolve/main/benchmark/wiki_counterfact/"
        "test_cf.json"
    )
    name = "knowedit"
    source = "KnowEdit"
    one_at_a_time = True

    def read_case(self, index: int, record: Record) -> Case:
        if not {"subject", "prompt", "target_new", *GROUPS} <= set(record):
            raise foreign(
                f"{self.source} wiki_recent, wiki_counterfact or ZsRE",
                "the fields subject, prompt, target_new, portability and locality",
                record,
            )
        prompt, target, subject = (
            text_at(record, field) for field in ("prompt", "target_new", "subject")
        )
        original = (
            texts_in(record["ground_truth"], "ground_truth")[0]
            if "ground_truth" in record
            else None
        )
        told_apart((target,), original)
        fact = Fact(f"{self.name}-{index}", prompt, target, subject, original, form=form_of(prompt))
        probes = knowedit_probes(self, index, record, fact)
        if "rephrase_prompt" in record:
            asked = text_at(record, "rephrase_prompt")
            probes.insert(
                0, Probe("paraphrase", asked, fact.answers, fact.original, form_of(asked))
            )
        return Case.build(fact, probes)


def knowedit_probes(corpus: Published, index: int, record: Record, fact: Fact) -> list[Probe]:
    """Return the probes in the fields of ``GROUPS``. Each field maps kinds to prompts.

    The prompts of a kind are a list of objects or, as in the requests of EasyEdit, one object whose
    ``prompt`` and ``ground_truth`` are texts or two lists.

    Args:
        corpus: keeps the notes on probes that are left out.

    Raises:
        DataError: if a field has another shape.
    """
    probes = []
    for field, axis in GROUPS.items():
        kinds = record.get(field) or {}
        if not isinstance(kinds, Mapping):
            raise DataError(f"Field {field!r} must be an object of lists.")
        for kind, value in kinds.items():
            items = _items(field, value)
            # Before the edit, a prompt with an alias of the subject had the old answer, so that one
            # can be the distractor. The other kinds ask about other relations or subjects.
            distractor = fact.original if kind == "Subject_Aliasing" else None
            probes += corpus.read_probes(
                f"record {index}: {field} {kind}", items, partial(_probe, axis, kind, distractor)
            )
    return probes


def _items(field: str, value: object) -> list[object]:
    """Return the prompts of one kind, each as an object with ``prompt`` and ``ground_truth``."""
    if isinstance(value, list):
        return value
    if not isinstance(value, Mapping) or not {"prompt", "ground_truth"} <= value.keys():
        raise DataError(f"Field {field!r} must be an object of lists.")
    prompts, truths = value["prompt"], value["ground_truth"]
    if isinstance(prompts, str):
        prompts, truths = [prompts], [truths]
    if not isinstance(prompts, list) or not isinstance(truths, list) or len(prompts) != len(truths):
        raise DataError(f"Field {field!r} must have as many answers as prompts.")
    return [{"prompt": p, "ground_truth": t} for p, t in zip(prompts, truths, strict=True)]


def _probe(axis: str, kind: str, distractor: str | None, item: object) -> Probe:
    prompt = text_at(item, "prompt")
    truth = item.get("ground_truth") if isinstance(item, Mapping) else None
    answers = told_apart(_answers(truth), distractor)
    return Probe(axis, prompt, answers, distractor, form_of(prompt), kind=kind)


def _answers(value: object) -> tuple[str, ...]:
    """Return all answers in ``ground_truth``.

    The field is one text, a list of texts, or a list of lists that each hold one answer and its
    aliases.
    """
    # Empty entries are answers without a name in Wikidata.
    groups = [group for group in (value if isinstance(value, list) else [value]) if group]
    if not groups:
        raise DataError("Field 'ground_truth' is empty.")
    return tuple(
        answer for group in groups for answer in matchable(texts_in(group, "ground_truth"))
    )
