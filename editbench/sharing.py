"""What an edit may tell others: a base that they can load, and facts as a count and a hash.

An alias and a path mean something on this machine alone, and facts may be internal. So an export
names the base by its hub id, and carries the facts' text only where that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from editbench.aliases import ALIASES
from editbench.edit import Edit
from editbench.errors import OptionError
from editbench.files import jsonable, write_json_atomic
from editbench.finetuned import read_json
from editbench.stack import parts_of
from editbench.types import digest

ABOUT = "editbench.json"
"""The file of an export that says what it was made of."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def hub_base(name: str) -> str | None:
    """Return the hub id of the model called ``name``; ``None`` if it is not known.

    A folder of the hub's cache has it in its path, and some models in their ``config.json``.
    """
    if name in ALIASES:
        return ALIASES[name].hub
    folder = Path(name).expanduser()
    if not folder.exists():
        return name if HUB_ID.fullmatch(name) else None
    for part in folder.absolute().parts:
        if part.startswith("models--") and part.count("--") == 2:
            return part.removeprefix("models--").replace("--", "/")
    if (folder / "config.json").is_file():
        own = read_json(folder / "config.json").get("_name_or_path")
        if isinstance(own, str) and HUB_ID.fullmatch(own) and not Path(own).exists():
            return own
    return None


def check_base(base: str) -> str:
    """Return ``base`` if a colleague can load it by this name.

    Raises:
        OptionError: it is an alias or a path of this machine.
    """
    if base in ALIASES or not HUB_ID.fullmatch(base) or Path(base).expanduser().exists():
        raise OptionError(
            f"--base {base!r} is no hub id. Write it as OWNER/NAME, the name by which others load"
            " the base."
        )
    return base


def about(edit: Edit, base: str | None, include_facts: bool = False) -> dict[str, object]:
    """Return what an export says of ``edit``, ready for JSON.

    Args:
        edit: any edit.
        base: the hub id of its base, if it has one.
        include_facts: give the facts in full; otherwise their number and hash.
    """
    facts = [fact.to_dict() for fact in edit.facts]
    return {
        "made_by": "editbench",
        "base": base,
        "base_weights": edit.model_hash,
        "edits": [
            {
                "method": part.method,
                "options": _without_paths(part.options),
                "facts": len(part.facts),
            }
            for part in parts_of(edit)
        ],
        "facts": len(facts),
        "facts_hash": digest(facts),
        **({"facts_text": facts} if include_facts else {}),
    }


def write_about(folder: Path, about: Mapping[str, object]) -> None:
    """Write ``about`` into ``folder``."""
    write_json_atomic(folder / ABOUT, about)


def base_weights(folder: Path) -> str | None:
    """Return the fingerprint of the base of what was exported into ``folder``, if it says so."""
    if not (folder / ABOUT).is_file():
        return None
    weights = read_json(folder / ABOUT).get("base_weights")
    return weights if isinstance(weights, str) else None


def _without_paths(options: Mapping[str, object]) -> dict[str, object]:
    """Return ``options`` with the files that they name by their last part alone."""

    def last(text: str) -> str:
        return ",".join(part if "/" not in part else Path(part).name for part in text.split(","))

    plain = jsonable(options)
    assert isinstance(plain, dict)
    return {key: last(value) if isinstance(value, str) else value for key, value in plain.items()}
