"""HalluEditBench (Huang et al. 2024, arXiv 2410.16251): hallucinations of three models, corrected.

One CSV file for each model and topic, such as ``meta_llama_3_8b_instruct/places_landmark.csv``.
"""

from __future__ import annotations

from editbench.corpora._fetch import Published, scorable
from editbench.corpora._read import Record, foreign, text_at
from editbench.errors import DataError
from editbench.matching import contains
from editbench.types import Case, Fact, Probe

FIELDS = ("subject", "relation", "object", "question")
HOPS = (2, 3, 4, 5, 6)


class HalluEditBench(Published):
    """Questions with their true answers, which a model was seen to answer wrongly.

    ``question`` is taught with ``object`` as its answer. What the model said (``output_MODEL``) is
    the fact's ``original``, unless it contains the object. It is the answer of the model that the
    file is named after, not of yours: the share of facts that the base knows shows the difference.

    Generalization asks ``paraphrased_question``. Specificity asks ``locality_question``, another
    question about the subject or the object. It is published without an answer, so it is scored
    under protocol ``generation`` alone: does the edited model still say what the base says?

    Portability has the rest by kind: ``2 hops`` to ``6 hops``, ``reversed`` (from the object back
    to the subject), ``yes`` and ``no`` (is it the object? is it what the model said?) and
    ``multiple choice`` (four options; the letter or the object is right). The authors count the
    last four under generalization. Here they are kept out of it, and so out of the Score, since a
    model that says yes to everything has half of the yes/no questions right. The questions of
    several hops and their answers are the authors', not checked by this project.

    The authors' robustness (ten turns of "your answer is wrong") is not read; metric ``reversion``
    asks "Are you sure?" once.
    """

    summary = (
        "questions that models answered wrongly, with their true answers "
        "(HalluEditBench, 26 topics; one by --data)"
    )
    license = "MIT"
    form = "question"
    url = (
        "https://raw.githubusercontent.com/llm-editing/HalluEditBench/main/data/questions/"
        "hallucination_final/meta_llama_3_8b_instruct/places_landmark.csv"
    )
    name = "hallueditbench"
    source = "HalluEditBench"
    one_at_a_time = True

    def read_case(self, index: int, record: Record) -> Case:
        if not set(FIELDS) <= set(record):
            raise foreign(self.source, f"the fields {', '.join(FIELDS)}", record)
        subject, relation, target, question = (text_at(record, field) for field in FIELDS)
        fact = Fact(
            f"{self.name}-{index}",
            question,
            target,
            # a question may name the subject in other letters
            subject=subject if subject in question else None,
            original=_hallucination(record, target),
            relation=relation,
            form="question",
        )
        probes = [
            *_asked(record, "paraphrase", None, "paraphrased_question", fact.answers, fact.original)
        ]
        for hops in HOPS:
            answers = _texts(record.get(f"answer_{hops}hop"))
            kind = f"{hops} hops"
            probes += _asked(record, "portability", kind, f"question_{hops}hop", answers)
        for kind, field, answer, wrong in (
            ("reversed", "reversed_relation_question", subject, None),
            ("yes", "yes_question", "Yes", "No"),
            ("no", "no_question", "No", "Yes"),
        ):
            probes += _asked(record, "portability", kind, field, (answer,), wrong)
        choices = [record] if _texts(record.get("multiple_choice_with_letters")) else []
        probes += self.read_probes(f"record {index}: multiple choice", choices, _multiple_choice)
        probes += _asked(record, "neighborhood", None, "locality_question", ())
        return Case.build(fact, probes, protocols=scorable(fact.answers))


def _asked(
    record: Record,
    axis: str,
    kind: str | None,
    field: str,
    answers: tuple[str, ...],
    distractor: str | None = None,
) -> list[Probe]:
    """Return the probe of the question in ``field``, if there is one."""
    if not _texts(record.get(field)) or not (answers or axis == "neighborhood"):
        return []
    protocols = scorable(answers) if answers else ("generation",)
    question = text_at(record, field)
    return [Probe(axis, question, answers, distractor, "question", kind=kind, protocols=protocols)]


def _hallucination(record: Record, target: str) -> str | None:
    """Return what the model of this file answered; ``None`` if that may count as the target."""
    for field, value in record.items():
        if field.startswith("output_"):
            said = _texts(value)
            if said and not contains(said[0], [target]) and not contains(target, said):
                return said[0]
    return None


def _multiple_choice(record: Record) -> Probe:
    """Return the question with its options, as the authors ask it."""
    options = text_at(record, "multiple_choice_with_letters")
    letter, target = text_at(record, "multiple_choice_labels"), text_at(record, "object")
    if f"{letter}. {target}" not in options:
        raise DataError(f"Option {letter} of {options!r} is not {target!r}.")
    return Probe(
        "portability",
        f"{text_at(record, 'question')} {options}",
        (letter, target),
        form="question",
        kind="multiple choice",
    )


def _texts(value: object) -> tuple[str, ...]:
    """Return the text of a cell; nothing, if the cell is empty."""
    return (value.strip(),) if isinstance(value, str) and value.strip() else ()
