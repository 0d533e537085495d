"""Choose the cases of a corpus that a run uses: those with a new answer, a part, and how many.

``replaced`` says which of their facts are no longer valid at the end.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from editbench.errors import DataError
from editbench.types import Case, digest, same_answer_already

PARTS = ("dev", "test")
ALL = "all"
"""Both parts together; for facts of the user's own on which nothing is tuned."""
NO_FACTS = "none"
"""In place of a corpus: a run without facts, which scores retention alone (``--facts none``)."""
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
    """Return ``n`` cases (``None``: all) of a part, in the order of ``seed``.

    ``part`` is ``dev``, ``test`` or ``all``.

    The two parts share no group and, among cases without a group, no subject. The hash of a case's
    group (else its subject, else its id) decides its part, so adding a case to a corpus moves no
    other case. ``seed`` changes the order, never the parts. Groups stay together, in the order of
    the corpus. The cases of a smaller ``n`` are a prefix of those of a larger one. Probes that need
    a fact outside the slice are left out.

    Raises:
        DataError: if the part is unknown, or holds fewer than ``n`` cases.
    """
    if part not in (*PARTS, ALL):
        raise DataError(f"Slice {part!r} is neither 'dev' nor 'test'.")
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if part in (ALL, _part_of(case)):
            # tagged, so that a group and a case of the same name stay apart
            key = ("group", case.group) if case.group else ("case", case.fact.id)
            groups.setdefault(key, []).append(case)
    # sorted first, so that the shuffle does not depend on the order of the corpus
    order = sorted(groups.values(), key=lambda group: group[0].fact.id)
    random.Random(seed).shuffle(order)
    chosen = [case for group in order for case in group]
    if n is not None:
        check_enough(n, len(chosen), len(cases), part)
        chosen = chosen[:n]
    taught = {case.fact.id for case in chosen}
    return [askable(case, taught) for case in chosen]


def _part_of(case: Case) -> str:
    key = digest(["split", case.group or case.fact.subject or case.fact.id])
    # eight hex digits of the hash as a number from 0 to below 1, uniform over cases
    return "dev" if int(key[:8], 16) / 16**8 < DEV_SHARE else "test"


def check_enough(n: int, available: int, total: int, part: str) -> None:
    """Check that there are ``n`` facts among the ``available`` of the part, of ``total`` in all.

    Raises:
        DataError: if there are not.
    """
    if not available:
        if not total:
            raise DataError("There are no facts. Use a larger corpus.")
        other = "test" if part == "dev" else "dev"
        fall = "the only fact falls" if total == 1 else f"all {total} facts fall"
        raise DataError(
            f"There are no {part} facts: options are chosen on dev facts and scores reported on "
            f"test facts, and {fall} to {other}. Use --part {other}, or more facts."
        )
    if n > available:
        of = "" if part == ALL else f" {part}"
        whole = "" if part == ALL else f" (of {total} in all)"
        raise DataError(
            f"-n {n} is more than the {available}{of} facts that there are{whole}. Use a smaller "
            "-n."
        )


def askable(case: Case, taught: set[str]) -> Case:
    """Return ``case`` without the probes that need a fact whose id is not in ``taught``."""
    probes = tuple(probe for probe in case.probes if taught.issuperset(probe.needs))
    return replace(case, probes=probes)


def replaced(cases: Sequence[Case]) -> set[str]:
    """Return the ids of the facts that a later one replaces: same prompt, other target.

    Two facts that contradict each other in different words are not recognized.
    """
    last = {(case.fact.form, case.fact.prompt): case.fact.id for case in cases}
    return {case.fact.id for case in cases}.difference(last.values())
