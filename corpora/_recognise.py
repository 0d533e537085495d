"""Tell by its fields to which corpus a record belongs, for the message about a wrong ``--corpus``.

This only helps with errors: each loader decides by itself what it can read.
"""

from __future__ import annotations

from collections.abc import Mapping

from editbench.types import form_of

FIELDS = {
    "mquake": {"requested_rewrite", "questions", "new_single_hops"},
    "counterfact": {"requested_rewrite"},
    "conflictedit": {"edits", "type"},
    "ripple": {"edit", "Relation_Specificity"},
    "lre": {"prompt_templates", "samples"},
    "hallueditbench": {"subject", "object", "question", "paraphrased_question"},
    "unke": {"question", "answer", "sub_question", "sub_answer"},
    "wikibio": {"text", "labels", "concept"},
    "cknowedit": {"prompt", "target_old", "target_new", "locality"},
    "qaedit": {"prompt", "target", "rephrase", "locality"},
    "zsre": {"src", "alt", "answers"},
    "knowedit": {"subject", "prompt", "target_new", "portability", "locality"},
    "simpleqa": {"problem", "answer"},
}
"""Corpus -> fields that its records have, and that those of the corpora below it lack."""
FLAT = {"prompt", "target_new", "ground_truth", "rephrase_prompt", "locality_prompt"}
"""The fields of EasyEdit's flat records, of CounterFact (clozes) and zsRE (questions)."""


def corpus_of(value: object) -> str | None:
    """Return the name of the corpus that a record belongs to; ``None`` if it looks like none."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "templama" if {"query", "most_recent_answer"} <= value[0].keys() else None
    if not isinstance(value, Mapping):
        return None
    names = value.keys()
    if FLAT <= names:
        return "zsre" if form_of(str(value["prompt"])) == "question" else "counterfact"
    found = next((corpus for corpus, fields in FIELDS.items() if fields <= names), None)
    # One's own facts may have further columns by these names. QAEdit's locality is a list.
    if {"prompt", "target"} <= names and not (
        found == "qaedit" and isinstance(value["locality"], list)
    ):
        return None
    return found


def belongs_to(value: object, asked: str) -> str:
    """Return a sentence that names the corpus of a record, unless it is ``asked``; else ""."""
    corpus = corpus_of(value)
    if corpus is None or corpus == asked:
        return ""
    return f"Its fields are those of corpus {corpus!r}: pass the file with --corpus {corpus}."
