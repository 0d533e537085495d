"""Facts on top of a saved edit: what it holds, and whether new facts go with that. No torch."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from editbench.errors import DataError, FactError, OptionError
from editbench.types import Fact, check_facts, contradictions, same_prompt


def facts_in(folder: Path) -> list[Fact]:
    """Return the facts of the edit in ``folder``; none if its manifest cannot be read.

    This is for checks before torch is loaded. ``Edit.load`` says what is wrong with the folder.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return [Fact.from_dict(fact) for fact in manifest["facts"]]
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return []


def changed(taught: Sequence[Fact], facts: Sequence[Fact]) -> list[tuple[Fact, Fact]]:
    """Return each fact of ``facts`` that gives a prompt of ``taught`` another target.

    Each comes after the fact of ``taught`` that it contradicts.
    """
    ours: defaultdict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in taught:
        ours[fact.form, same_prompt(fact.prompt)].append(fact)
    return [
        pair
        for new in facts
        for old in ours.get((new.form, same_prompt(new.prompt)), ())
        for pair in contradictions((old, new))
    ]


def clash(old: Fact, new: Fact, edit: str = "the edit") -> str:
    """Return the sentence about a new fact that contradicts an ``old`` one of ``edit``."""
    return (
        f"Fact {new.id!r} gives {new.prompt!r} the target {new.target!r}, and fact {old.id!r} of "
        f"{edit} has {old.target!r}."
    )


def check_on(taught: Sequence[Fact], facts: Sequence[Fact], allow_conflicts: bool = False) -> None:
    """Check that ``facts`` go together with the facts ``taught`` that an edit has.

    Raises:
        FactError: as ``check_facts``; a fact contradicts one of the edit.
        OptionError: the edit has an id already.
    """
    if not allow_conflicts and (pairs := changed(taught, facts)):
        raise FactError(
            f"{clash(*pairs[0])} To change a fact, take the old one out first "
            "(editbench.remove), and inject on what is left; allow_conflicts=True teaches both."
        )
    ids = {fact.id: fact for fact in taught}
    if twice := next((fact for fact in facts if fact.id in ids), None):
        raise OptionError(
            f"Fact id {twice.id!r} is taken: the edit has a fact of that id "
            f"({ids[twice.id].prompt!r}). Give the new facts ids of their own in a column id, "
            "or rename the file, after which facts without an id are called."
        )
    check_facts((*taught, *facts), allow_conflicts)
