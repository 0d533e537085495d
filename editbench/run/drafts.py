"""Draft probes for facts that have none, so that a table can show more than efficacy.

A spreadsheet of facts has neither paraphrases nor neighbors. For each fact this module drafts

- paraphrases: the prompt itself behind two lead-ins that no trainer uses (``FRAMES``);
- neighbors: the prompt with another subject in the place of the fact's, where the unedited model is
  sure of its answer. The subjects are those of the built-in demo corpora that the model represents
  most like the fact's own: for a city other cities, for a product other products.

They are drafts. Read the file and mend it before you trust a score: the same words behind a lead-in
are no rewording, and the model's sure answer may be wrong. Scores from drafted probes are marked in
every table.

# S subjects, D model width
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from editbench import progress, registry, text
from editbench.asking import USUAL_TOKENS
from editbench.matching import contains, first_clause
from editbench.models import LanguageModel, batched
from editbench.normal_form import folded
from editbench.subjects import find_subject, places, with_subject
from editbench.types import DRAFTED, Case, Fact, Probe

FRAMES = {
    "question": ("I need an answer to this: {}", "Here is the next one on my list. {}"),
    # A cloze must still end where its target begins, and a question with its mark.
    "cloze": ("The following was in the paper today. {}", "She read the sentence aloud. {}"),
}
"""Form of a prompt -> the frames of its drafted paraphrases."""
NEIGHBORS = 2
"""Drafted neighbors of a fact."""
TRIED = 32
"""Most similar subjects of which a fact's neighbors are chosen."""
AT_ONCE = 16
"""Of these, how many are asked before those of the next round."""
CONFIDENCE = 0.5
"""Least probability of each token of a neighbor's answer, as a geometric mean."""
POOLS = ("demo-counterfact", "demo-zsre")
"""Corpora whose subjects may be neighbors."""


@dataclass(frozen=True)
class Drafts:
    """Cases with their drafted probes, and what could not be drafted."""

    cases: list[Case]
    missing: dict[str, str]
    """Fact id -> why it has fewer than ``NEIGHBORS`` neighbors."""

    def to_dict(self) -> dict[str, object]:
        """Return how many paraphrases and neighborhood prompts were drafted, and ``missing``."""
        axes = [p.axis for case in self.cases for p in case.probes if p.kind == DRAFTED]
        return {
            "paraphrases": axes.count("paraphrase"),
            "neighborhoods": axes.count("neighborhood"),
            "missing": self.missing,
        }


@dataclass(frozen=True)
class _Candidate:
    """A neighbor that may be asked: the prompt of ``fact`` with ``name`` in its subject's place."""

    fact: Fact
    name: str
    prompt: str


def draft(model: LanguageModel, cases: Sequence[Case]) -> Drafts:
    """Return ``cases`` with drafted paraphrases and neighbors where they have none of their own.

    A fact without a subject gets the one that was found, to be checked like the rest.
    The probes have the kind ``drafted``. The same model, cases and precision give the same drafts.

    Args:
        model: the unedited model.
    """
    lacking = [case.fact for case in cases if not _has(case, "neighborhood")]
    neighbors = _neighbors(model, lacking, [case.fact for case in cases])
    drafted, missing = [], {}
    for case in cases:
        added = [] if _has(case, "paraphrase") else _paraphrases(case.fact)
        if case.fact.id in neighbors:
            found = neighbors[case.fact.id]
            added += found
            if len(found) < NEIGHBORS:
                missing[case.fact.id] = (
                    f"the model is sure of {len(found)} of the {TRIED} neighbors that were tried"
                )
        fact = with_subject(case.fact)
        drafted.append(replace(case, fact=fact, probes=(*case.probes, *added)))
    return Drafts(drafted, missing)


def _has(case: Case, axis: str) -> bool:
    return any(probe.axis == axis for probe in case.probes)


def _paraphrases(fact: Fact) -> list[Probe]:
    return [
        Probe(
            "paraphrase",
            frame.format(fact.prompt),
            fact.answers,
            fact.original,
            fact.form,
            kind=DRAFTED,
        )
        for frame in FRAMES[fact.form]
    ]


# --- neighbors ------------------------------------------------------------------------------------


def _neighbors(
    model: LanguageModel, facts: Sequence[Fact], taught: Sequence[Fact]
) -> dict[str, list[Probe]]:
    """Return the drafted neighbors of each fact, those of whose answer the model is most sure.

    Args:
        taught: all facts; none of their subjects becomes a neighbor.
    """
    if not facts:
        return {}
    subjects = [find_subject(replace(fact, subject=_once(fact))) for fact in facts]
    known = {folded(fact.subject or find_subject(fact).text) for fact in taught}
    pool = [name for name in _pool() if folded(name) not in known]
    alike = list(_most_similar(model, [subject.text for subject in subjects], pool))
    found: dict[str, list[tuple[float, Probe]]] = {fact.id: [] for fact in facts}
    for start in range(0, TRIED, AT_ONCE):
        candidates = [
            _Candidate(
                fact,
                name,
                fact.prompt[: subject.start] + name + fact.prompt[subject.last + 1 :],
            )
            for fact, subject, names in zip(facts, subjects, alike, strict=True)
            if len(_surest(found[fact.id])) < NEIGHBORS
            for name in names[start : start + AT_ONCE]
        ]
        answers = _sure_answers(model, candidates)
        for candidate, (answer, confidence) in zip(candidates, answers, strict=True):
            fact = candidate.fact
            if confidence >= CONFIDENCE and _is_answer(answer, candidate):
                found[fact.id].append(
                    (
                        confidence,
                        Probe(
                            "neighborhood",
                            candidate.prompt,
                            (answer,),
                            fact.target,
                            fact.form,
                            kind=DRAFTED,
                        ),
                    )
                )
    return {name: _surest(probes) for name, probes in found.items()}


def _once(fact: Fact) -> str | None:
    """Return the given subject if it occurs once in the prompt, so that its place is known."""
    if fact.subject is None or len(places(fact.subject, fact.prompt)) != 1:
        return None
    return fact.subject


def _surest(probes: Sequence[tuple[float, Probe]]) -> list[Probe]:
    """Return the ``NEIGHBORS`` probes with the highest confidence, no two with one answer."""
    by_answer: dict[str, Probe] = {}
    for _, probe in sorted(probes, key=lambda each: -each[0]):
        by_answer.setdefault(folded(probe.answers[0]), probe)
    different = list(by_answer.values())
    return different[:NEIGHBORS]


def _is_answer(answer: str, candidate: _Candidate) -> bool:
    """Return whether a neighbor's answer says something, and not what is taught."""
    fact = candidate.fact
    # The answer to a question may repeat the question; a cloze that does goes round in circles.
    echoes = fact.form == "cloze" and contains(answer, [candidate.name])
    # A table separates several neighbors, and each from its answer, by these signs.
    is_text = answer.isprintable() and bool(folded(answer)) and not re.search(r"\||=>", answer)
    says_something = is_text and not echoes and not contains(candidate.prompt, [answer])
    # A prompt that mentions what is taught is no neighbor either.
    return says_something and not contains(f"{candidate.name}. {answer}", fact.answers)


def _pool() -> list[str]:
    """Return the subjects of the demo corpora, each once."""
    cases = (case for name in POOLS for case in registry.get("corpora", name)().load())
    return list(dict.fromkeys(case.fact.subject for case in cases if case.fact.subject))


def _most_similar(
    model: LanguageModel, subjects: Sequence[str], pool: Sequence[str]
) -> Iterator[list[str]]:
    """Yield, for each subject, the ``TRIED`` names of ``pool`` most like it to the model.

    The measure is the cosine of the states at the end of each name, after the mean of the pool is
    subtracted: the states share a large part that says nothing.
    """
    states_SD = _states(model, [*subjects, *pool])
    states_SD = states_SD - states_SD[len(subjects) :].mean(0)
    states_SD = torch.nn.functional.normalize(states_SD, dim=-1)
    ours_SD, theirs_SD = states_SD[: len(subjects)], states_SD[len(subjects) :]
    for row in (ours_SD @ theirs_SD.T).topk(min(TRIED, len(pool))).indices.tolist():
        yield [pool[i] for i in row]


@torch.no_grad()
def _states(model: LanguageModel, names: Sequence[str]) -> torch.Tensor:
    """Return the model's last states (S, D) at the end of each name."""
    rows = [model.prompt_ids(f"I read something about {name}", "cloze") for name in names]
    states = []
    with progress.task("comparing subjects", len(names), "names") as bar, model.compute():
        for chunk in batched(rows, 64):
            ids_BT, mask_BT = text.pad_left(chunk, model.device)
            states.append(model.hidden(ids_BT, mask_BT)[:, -1].float().cpu())
            bar.advance(len(chunk))
    return torch.cat(states)


def _sure_answers(
    model: LanguageModel, candidates: Sequence[_Candidate]
) -> list[tuple[str, float]]:
    """Return the first clause of the model's answer to each prompt, and how sure of it it is.

    The confidence is the geometric mean of the probabilities of the clause's tokens.
    """
    prompts = [model.prompt_ids(each.prompt, each.fact.form) for each in candidates]
    written = model.generate_ids(
        prompts,
        [USUAL_TOKENS[each.fact.form] for each in candidates],
        lines=[1] * len(candidates),
        what="asking possible neighbors",
    )
    answers = [_opening(model.answer(ids)) for ids in written]
    pairs = [
        model.pair_ids(each.prompt, answer or "-", each.fact.form)
        for each, answer in zip(candidates, answers, strict=True)
    ]
    confidences = (logp_T.mean().exp().item() for logp_T in model.target_logprobs(pairs))
    return list(zip(answers, confidences, strict=True))


def _opening(answer: str) -> str:
    """Return the first clause of ``answer`` as the model wrote it, without its last mark."""
    clause, words = first_clause(answer), answer.split()
    lengths = range(1, len(words) + 1)
    whole = next((n for n in lengths if first_clause(" ".join(words[:n])) == clause), len(words))
    return " ".join(words[:whole]).rstrip(".,;:!?")
