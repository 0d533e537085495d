"""ConflictEdit (Li et al. 2024, arXiv 2310.02129): pairs of edits of which the later contradicts the earlier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from editbench.corpora._fetch import Published
from editbench.corpora._read import text_at, told_apart
from editbench.errors import DataError
from editbench.types import Case, Fact, Probe

TYPES = ("reverse", "composite", "coverage")


class ConflictEdit(Published):
    """Two cases a record, in one group; the later wins. Its type is the kind of its portability probe:

    - ``reverse``: the same relation from its other end;
    - ``composite``: a relation that follows from the earlier edit and an unedited fact (a parent's spouse is a parent);
    - ``coverage``: the same prompt with another answer. The later one is taught as a question, since two facts of one batch
      cannot share a prompt; the cloze is its portability probe.

    The later fact's ``original`` is what the earlier one makes of it, so that protocol ``likelihood`` asks what the paper's
    conflict score does. Portability asks the later fact in its other published form, where both are taught (``Probe.needs``).
    Unedited facts of a composite are neighborhood probes. The earlier case has only its rewrite probe: where the later wins, it
    may fail, rightly.

    Not read: RoundEdit (easy.json, hard.json), which edits a fact away and back again and measures the other true answers'
    probabilities. Its second edit teaches what was true before the first.
    """

    summary = "pairs of edits of which the later contradicts the earlier (ConflictEdit, composite; others by --data)"
    license = "MIT"
    url = "https://raw.githubusercontent.com/zjunlp/PitfallsKnowledgeEditing/main/data/GPT2-XL/composite_edit.json"
    name = "conflictedit"
    one_at_a_time = True

    def read_cases(self, index: int, record: Mapping[str, Any]) -> list[Case]:
        edits, kind = record.get("edits"), record.get("type")
        if not isinstance(edits, list) or len(edits) != 2 or kind not in TYPES:
            found = ", ".join(map(str, record)) or "none"
            raise DataError(
                f"It has not ConflictEdit's fields (edits: two; type: one of {', '.join(TYPES)}), but {found}."
            )
        group = f"{self.name}-{index}"
        first, second = (_wordings(edit) for edit in edits)
        form, other = (
            ("question", "cloze") if first["cloze"] == second["cloze"] else ("cloze", "question")
        )
        earlier = _fact(f"{group}-1", edits[0], first["cloze"], "cloze")
        later = _fact(f"{group}-2", edits[1], second[form], form)
        probes = [
            Probe(
                "portability",
                second[other],
                later.answers,
                later.original,
                other,
                (earlier.id,),
                kind=kind,
            )
        ]
        for triple in _prerequisites(record):
            probes.append(
                Probe(
                    "neighborhood",
                    _wordings(triple)["cloze"],
                    (text_at(triple, "object", "label"),),
                )
            )
        return [Case.build(earlier, group=group), Case.build(later, probes, group)]


def _wordings(triple: Mapping[str, Any]) -> dict[str, str]:
    """How the relation of ``triple`` is asked of its subject: as a ``cloze`` and as a ``question``."""
    subject = text_at(triple, "subject", "label")
    found = {}
    for form, field in (("cloze", "prompt"), ("question", "query")):
        template = text_at(triple, "relation", field)
        if "{}" not in template:
            raise DataError(f"Its {field} {template!r} has no {{}} where the subject belongs.")
        found[form] = template.replace("{}", subject)
    return found


def _fact(fact_id: str, edit: Mapping[str, Any], prompt: str, form: str) -> Fact:
    subject, target = (text_at(edit, field, "label") for field in ("subject", "new_object"))
    original = text_at(edit, "true_object" if "true_object" in edit else "object", "label")
    told_apart((target,), original)
    return Fact(
        fact_id,
        prompt,
        target,
        subject,
        original,
        relation=text_at(edit, "relation", "label"),
        form=form,
    )


def _prerequisites(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The unedited triples that the conflict follows from."""
    try:
        return [record["triples"][place] for place in record["prerequisites"]]
    except (KeyError, IndexError, TypeError) as error:
        raise DataError("Its prerequisites are no places in its triples.") from error
