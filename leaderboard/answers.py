"""Every answer of a table's rows as data for the site: texts, verdict, and the rule behind it.

A question is stored once, with the unedited model's answer; each row adds its own answers. The
rules are those by which ``eval/`` scored the stored rows. Where this version of the matcher would
decide otherwise than the record did, the rule says so. Texts are raw here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from editbench.leaderboard.loading import (
    load_probes,
    load_right_after,
    load_samples,
    load_scores,
)
from editbench.leaderboard.rows import BASE
from editbench.matching import contains, first_clause
from editbench.records.reading import heading, table_path
from editbench.records.schema import CellSummary
from editbench.rows import ProbeRow, SampleRow, ScoreRow
from editbench.types import KEPT, digest

BAD = ("denial", "reversion")
"""Axes whose probes are wrong with score 1: the fact is denied or taken back."""
FREE = "fluency"
"""The axis of free texts, which are neither right nor wrong."""
METRIC_RULES = {
    "acc": "Right if the expected answer is the one that the model finds most probable.",
    "acc_norm": "Right if the expected answer is the one that the model finds most probable, for "
    "its length.",
    "exact": "Right if the answer, or the number that it ends with, is exactly the expected one.",
    "exact_match": "Right if the answer is exactly the expected one.",
    "contains": "Right if the answer contains the expected one as whole words.",
    "follow": "Right if the text does what the instruction asks, checked by rule.",
    "call": "Right if the call names the expected function with the expected arguments.",
}
"""Metric of a retention task -> how it grades."""
RIGHT, WRONG, UNSCORED = "right", "wrong", ""


class Texts(TypedDict):
    """The texts behind one table."""

    questions: list[dict[str, object]]
    rules: list[str]
    answers: dict[str, list[list[object]]]
    """Key of a row -> its answers, each as the values of ``Answer``."""


class Answer(NamedTuple):
    """One answer, as a page holds it."""

    question: int
    text: str
    verdict: str
    rule: int
    argmax: float | None = None
    likelihood: float | None = None
    judge: float | None = None
    answer_logprob: float | None = None
    other_logprob: float | None = None
    first: str | None = None
    """In a sequence: the answer right after the fact's own chunk."""


class _Store:
    """Keeps each question and each rule once."""

    def __init__(self) -> None:
        self.questions: dict[tuple[object, ...], int] = {}
        self.shown: list[dict[str, object]] = []
        self.rules: dict[str, int] = {}

    def question(self, **fields: object) -> int:
        identity = tuple(map(repr, fields.values()))
        if identity not in self.questions:
            self.questions[identity] = len(self.shown)
            self.shown.append(fields)
        return self.questions[identity]

    def rule(self, text: str) -> int:
        return self.rules.setdefault(text, len(self.rules))


def read_texts(cells: Mapping[str, Sequence[tuple[Path, CellSummary]]]) -> Texts:
    """Return the texts of rows. A row without tables has no answers.

    Args:
        cells: key of a row -> the run folder and the record of each of its seeds.

    Raises:
        RecordError: if a table is corrupt or was changed.
    """
    store = _Store()
    answers: dict[str, list[list[object]]] = {}
    for key, records in cells.items():
        mine: list[list[object]] = [
            [*answer] for run, cell in records for answer in _cell(store, run, cell)
        ]
        if mine:
            answers[key] = mine
    return {"questions": store.shown, "rules": list(store.rules), "answers": answers}


def _cell(store: _Store, run: Path, cell: CellSummary) -> list[Answer]:
    found: list[Answer] = []
    if cell.get("status") == "failed":
        return found
    if table_path(run, cell["key"], "probes").is_file():
        again = {(row["case"], row["probe"]): row["text"] for row in load_right_after(run, cell)}
        found += [
            _probe(store, cell, probe, again.get((probe["case"], probe["probe"])))
            for probe in load_probes(run, cell)
        ]
    if table_path(run, cell["key"], "retention").is_file():
        found += [_sample(store, cell, sample) for sample in load_samples(run, cell)]
    if table_path(run, cell["key"], "scores").is_file():
        found += [_score(store, cell, row) for row in load_scores(run, cell)]
    return found


def _probe(store: _Store, cell: CellSummary, probe: ProbeRow, first: str | None) -> Answer:
    fields: Mapping[str, Any] = probe
    before = "" if cell["method"] == BASE else "base_"  # the base's own cell has no other answers
    was = {
        protocol: _verdict(probe["axis"], fields.get(before + protocol))
        for protocol in ("generation", "argmax", "likelihood")
    }
    question = store.question(
        what=probe["axis"],
        kind=probe.get("kind") or "",
        case=probe["case"],
        seed=cell["seed"],
        prompt=probe["prompt"],
        expected=list(probe["answers"]),
        other=probe["distractor"] or "",
        before=probe["base_text"],
        was=was,
    )
    return Answer(
        question,
        probe["text"],
        _verdict(probe["axis"], probe["generation"]),
        store.rule(probe_rule(probe)),
        probe.get("argmax"),
        probe.get("likelihood"),
        probe.get("judge"),
        _rounded(probe.get("answer_logprob")),
        _rounded(probe.get("distractor_logprob")),
        first,
    )


def _sample(store: _Store, cell: CellSummary, sample: SampleRow) -> Answer:
    member = "" if sample["member"] == sample["task"] else f"{sample['member']} "
    own = cell["method"] == BASE
    base = sample["score"] if own else sample.get("base_score")
    before = sample["output"] if own else sample.get("base_output")
    question = store.question(
        what=place_of(sample["task"]),
        kind=heading(sample["task"]),
        case=f"{member}{sample['doc_id']}",
        seed=cell["seed"],
        prompt=sample["prompt"],
        expected=[sample["expected"]],
        other="",
        before="(not recorded)" if before is None else before,  # in older records
        was={"generation": UNSCORED if base is None else _graded(base)},
    )
    rule = METRIC_RULES.get(sample["metric"], f"Graded by lm-eval's {sample['metric']}.")
    score = sample["score"]
    if score not in (0, 1):
        rule += f" Score {score:.2f}; right from 0.5 on."
    return Answer(question, sample["output"], _graded(score), store.rule(rule))


def _score(store: _Store, cell: CellSummary, row: ScoreRow) -> Answer:
    """Return what an evaluator plug-in said of a case. A score is neither right nor wrong."""
    question = store.question(
        what=f"evaluator:{row['evaluator']}",
        kind="",
        case=row["case"],
        seed=cell["seed"],
        prompt="",
        expected=[],
        other="",
        before="",
        was={},
    )
    fields: Mapping[str, Any] = row
    score, base = fields["score"], fields.get("base_score")  # None where it cannot be scored
    rule = "Not scored." if score is None else f"Score {score:.2f}"
    if score is not None:
        rule += "." if base is None else f", the unedited model {base:.2f}."
    return Answer(question, row["text"] or "", UNSCORED, store.rule(rule))


def probe_rule(probe: ProbeRow) -> str:
    """Return why a probe is right or wrong under protocol ``generation``, in a sentence or two."""
    axis: str = probe["axis"]
    score: float | None = probe["generation"]  # None where it was not asked
    if axis == "reversion" and score is None:
        return "Not asked: only an answer that states the target can be taken back."
    if score is None:
        return "Not scored by its free text; see the other protocols."
    if axis == FREE:
        return f"A free text is neither right nor wrong. Its n-grams have {score:.2f} bits."
    if axis == "denial":
        return "The model denies the fact." if score else "The model does not deny the fact."
    if axis == "reversion":
        return "The model takes its answer back." if score else "The model stands by its answer."
    return _kept_rule(probe) if axis in KEPT else _taught_rule(probe)


def _taught_rule(probe: ProbeRow) -> str:
    """Return the rule of a probe that is right if its answer states an accepted one."""
    stated = _stated(probe["text"], probe)
    if probe["generation"]:
        return _as_stored(f"The answer states {_quoted(stated)} as whole words.", bool(stated))
    accepted = " or ".join(map(_quoted, probe["answers"][:3])) or "an accepted answer"
    if probe.get("denied"):
        return f"The answer names {accepted} only to deny or correct it, which does not count."
    return _as_stored(f"The answer does not state {accepted} as whole words.", not stated)


def _kept_rule(probe: ProbeRow) -> str:
    """Return the rule of a probe whose right answer is the one that the unedited model gave."""
    before, after = probe["base_text"], probe["text"]
    both = _stated(before, probe) if _stated(after, probe) else ""
    clauses = first_clause(before), first_clause(after)
    same = bool(both) or clauses[0] == clauses[1]
    leak = " It contains the edit's target." if probe.get("target_leaked") else ""
    if probe["generation"]:
        if both:
            return f"Kept: both answers state {_quoted(both)}.{leak}"
        return _as_stored(f"Kept: the first clause is still {_quoted(clauses[0])}.", same) + leak
    text = (
        f"Not kept: the first clause was {_quoted(clauses[0])} and is {_quoted(clauses[1])}, and "
        "not both answers state the accepted one."
    )
    return _as_stored(text, not same) + leak


def _stated(text: str, probe: ProbeRow) -> str:
    """Return the first accepted answer that ``text`` states; empty if it states none."""
    return next((a for a in probe["answers"] if contains(text, [a], probe["prompt"])), "")


def _as_stored(rule: str, agrees: bool) -> str:
    if agrees:
        return rule
    return "Scored by an earlier version of the matcher; this version would decide otherwise."


def _quoted(text: str) -> str:
    short = text if len(text) <= 80 else f"{text[:79]}…"
    return f"“{short}”"


def _verdict(axis: str, score: float | None) -> str:
    if score is None or axis == FREE:
        return UNSCORED
    return RIGHT if bool(score) != (axis in BAD) else WRONG


def place_of(task: str) -> str:
    """Return the name of a task's texts: a task file without the folder it was in."""
    name = heading(task)
    return f"task:{name}" if name == task else f"task:{name}#{digest(task)[:6]}"


def _graded(score: float) -> str:
    """Return the verdict of a document. The limit is that of the lost and gained ones."""
    return RIGHT if score >= 0.5 else WRONG


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
