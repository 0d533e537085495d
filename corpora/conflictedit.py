"""ConflictEdit (Li et al. 2024, arXiv 2310.02129): pairs of edits that contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from editbench.corpora._fetch import Published
from editbench.corpora._read import Record, fill, foreign, text_at, told_apart
from editbench.errors import DataError
from editbench.types import Case, Fact, Probe

TYPES = ("reverse", "composite", "coverage")


class ConflictEdit(Published):
    """Each record gives two cases in one group. The later one should win.

    The type of a record is the kind of its portability probe:

    - ``reverse``: the same relation from its other end;
    - ``composite``: a relation that follows from the earlier edit and an unedited fact (a parent's
      spouse is a parent);
    - ``coverage``: the same prompt with another answer. The later fact is taught as a question,
      since two facts of one batch cannot share a prompt. The cloze is its portability probe.

    The later fact's ``original`` is the answer that follows from the earlier fact, so protocol
    ``likelihood`` measures the same as the paper's conflict score. Portability asks for the later
    fact in its other published form, if both facts are taught (``Probe.needs``). The unedited facts
    of a composite are neighborhood probes. The earlier case has only its rewrite probe, which
    rightly fails if the later fact wins.

    RoundEdit (easy.json, hard.json) is not read. It edits a fact away and back again and measures
    the probabilities of the other true answers. Its second edit teaches what was true before the
    first.
    """

    summary = (
        "pairs of edits in which the later contradicts the earlier "
        "(ConflictEdit, composite; others by --data)"
    )
    license = "MIT"
    url = (
        "https://raw.githubusercontent.com/zjunlp/PitfallsKnowledgeEditing/main/data/GPT2-XL/"
        "composite_edit.json"
    )
    name = "conflictedit"
    source = "ConflictEdit"
    one_at_a_time = True

    def read_cases(self, index: int, record: Record) -> list[Case]:
        edits, kind = record.get("edits"), record.get("type")
        if (
            not isinstance(edits, list)
            or len(edits) != 2
            or not isinstance(kind, str)
            or kind not in TYPES
        ):
            raise foreign(self.source, f"two edits, and a type out of {', '.join(TYPES)}", record)
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


def _wordings(triple: object) -> dict[str, str]:
    """Return the prompts that ask for a triple's object, as a ``cloze`` and as a ``question``."""
    subject = text_at(triple, "subject", "label")
    return {
        form: fill(text_at(triple, "relation", field), subject, field)
        for form, field in (("cloze", "prompt"), ("question", "query"))
    }


def _fact(fact_id: str, edit: object, prompt: str, form: str) -> Fact:
    subject, target = (text_at(edit, field, "label") for field in ("subject", "new_object"))
    has_true = isinstance(edit, dict) and "true_object" in edit
    original = text_at(edit, "true_object" if has_true else "object", "label")
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


def _prerequisites(record: Record) -> Sequence[object]:
    """Return the unedited triples that the conflict follows from.

    Raises:
        DataError: if ``prerequisites`` are not indices of ``triples``.
    """
    triples, places = record.get("triples"), record.get("prerequisites")
    if isinstance(triples, list) and isinstance(places, list):
        with suppress(IndexError, TypeError):  # a bad index falls through to the error below
            return [triples[place] for place in places]
    raise DataError("The prerequisites are not indices of the triples.")
