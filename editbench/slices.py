"""Choose the cases of a corpus that a run uses: those with a new answer, a part, and how many."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from editbench.errors import DataError
from editbench.types import Case, digest, same_answer_already

PARTS = ("dev", "test")
DEV_SHARE = 0.3
"""Expected share of the cases in the dev part; the rest is the test part."""


def with_new_answers(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """Return the cases whose target can be told from the old answer, and why others are left out.

    Raises:
        DataError: if no case is left; says why for the first.
    """
    reasons = [same_answer_already(case.fact) for case in cases]
    kept = [case for case, reason in zip(cases, reasons, strict=True) if not reason]
    dropped = [
        f"fact {case.fact.id!r}: {reason}"
        for case, reason in zip(cases, reasons, strict=True)
        if reason
    ]
    if dropped and not kept:
        raise DataError(f"No fact of the corpus has a new answer; the first is {dropped[0]}")
    return kept, dropped


def slice_cases(cases: Sequence[Case], part: str, n: int | None, seed: int) -> list[Case]:
    """Return ``n`` cases (``None``: all) of the ``dev`` or ``test`` part, in the order of ``seed``.

    The two parts share no group and, among cases without a group, no subject. The hash of a case's
    group (else its subject, else its id) decides its part, so adding a case to a corpus moves no
    other case. ``seed`` changes the order, never the parts. Groups stay together, in the order of
    the corpus. The cases of a smaller ``n`` are a prefix of those of a larger one. Probes that need
    a fact outside the slice are left out.

    Raises:
        DataError: if the part is unknown, or holds fewer than ``n`` cases.
    """
    if part not in PARTS:
        raise DataError(f"Slice {part!r} is neither 'dev' nor 'test'.")
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if _part_of(case) == part:
            # tagged, so that a group and a case of the same name stay apart
            key = ("group", case.group) if case.group else ("case", case.fact.id)
            groups.setdefault(key, []).append(case)
    # sorted first, so that the shuffle does not depend on the order of the corpus
    order = sorted(groups.values(), key=lambda group: group[0].fact.id)
    random.Random(seed).shuffle(order)
    chosen = [case for group in order for case in group]
    if n is not None:
        _check_enough(n, len(chosen), len(cases), part)
        chosen = chosen[:n]
    taught = {case.fact.id for case in chosen}
    return [askable(case, taught) for case in chosen]


def _part_of(case: Case) -> str:
    key = digest(["split", case.group or case.fact.subject or case.fact.id])
    # eight hex digits of the hash as a number from 0 to below 1, uniform over cases
    return "dev" if int(key[:8], 16) / 16**8 < DEV_SHARE else "test"


def _check_enough(n: int, available: int, total: int, part: str) -> None:
    if not available:
        other = "test" if part == "dev" else "dev"
        where = f"all {total} cases of the corpus are in the {other} slice"
        raise DataError(
            f"The {part} slice is empty: {where if total else 'the corpus has no cases'}. "
            f"Use the {other} slice, or a larger corpus."
        )
    if n > available:
        raise DataError(
            f"-n {n} is more than the {available} cases of the {part} slice "
            f"({total} in the corpus). Use a smaller -n."
        )


def askable(case: Case, taught: set[str]) -> Case:
    """Return ``case`` without the probes that need a fact whose id is not in ``taught``."""
    probes = tuple(probe for probe in case.probes if taught.issuperset(probe.needs))
    return replace(case, probes=probes)
