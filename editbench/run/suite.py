"""Suites: a model, facts, tasks and seeds under one name, so that records of different people meet.

A suite is one file of ``suites/``, or a file of the same form that somebody else wrote. This module
imports no torch, so that listing suites is fast.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editbench.errors import OptionError, UnknownNameError
from editbench.types import digest

if TYPE_CHECKING:
    from editbench.run.plan import Plan
    from editbench.run.worker import Identity

FOLDER = Path(__file__).parent / "suites"
PARTS: Mapping[str, Mapping[str, type]] = {
    "model": {"name": str, "weights": str, "dtype": str, "precision": str, "chat_template": str},
    "facts": {"corpus": str, "part": str, "n": int, "regime": str},
    "retention": {"limit": int, "tasks": dict},
}
"""Table of a suite's file -> its fields, with their types."""
AGAIN = "So its records could not be compared with those of others."


@dataclass(frozen=True)
class Suite:
    """What every record of a suite has in common."""

    name: str
    summary: str
    """One line for ``editbench list suites``."""
    scoring: int
    """The ``SCORING`` of ``keys.py`` that its numbers follow."""
    model: Mapping[str, str]
    """Its name for ``load_model``, the hash of its weights, how they are held (``dtype``), the
    precision of forward passes, and the hash of the chat template (empty without one)."""
    facts: Mapping[str, Any]
    """``corpus``, ``part``, ``n`` and ``regime``."""
    seeds: Mapping[str, str]
    """Seed -> hash of its facts with their probes."""
    retention: Mapping[str, Any]
    """``limit``, and ``tasks``: task -> hash of its data. No task has fewer items than ``limit``:
    a record must have that many answers."""

    @classmethod
    def read(cls, name: str) -> Suite:
        """Return the suite called ``name``, or the one in the file ``name`` that ends in ``.toml``.

        Raises:
            UnknownNameError: there is no such suite.
            OptionError: there is no such file, or it is no suite.
        """
        file = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
        if file.parent == FOLDER and name not in names():
            hint = "See 'editbench list suites'; your own is a file that ends in .toml."
            raise UnknownNameError("suite", name, names(), hint)
        try:
            record = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise OptionError(f"--suite {name}: {error.strerror}.") from error
        except ValueError as error:
            raise OptionError(f"--suite {name} is not TOML: {error}.") from error
        if fault := _fault(record):
            raise OptionError(f"--suite {name} is no suite: {fault}.")
        return cls(**record)

    @cached_property
    def digest(self) -> str:
        """Hash of all that the suite says, but for its summary."""
        return digest({f.name: getattr(self, f.name) for f in fields(self) if f.name != "summary"})

    @property
    def stored(self) -> dict[str, str]:
        """What ``run.json`` says of the suite."""
        return {"name": self.name, "digest": self.digest}

    @property
    def numbers(self) -> tuple[int, ...]:
        """Its seeds."""
        return tuple(map(int, self.seeds))

    @property
    def options(self) -> dict[str, object]:
        """Return option of ``compare`` -> the value that it has in this suite."""
        return {
            "model": self.model["name"],
            "dtype": self.model["dtype"],
            "precision": self.model["precision"],
            **self.facts,
            "tasks": ",".join(self.retention["tasks"]),
            "limit": self.retention["limit"],
            "seeds": ",".join(self.seeds),
        }

    def check_option(self, name: str, value: object) -> None:
        """Check that an option of ``compare`` that was given does not contradict the suite.

        Raises:
            OptionError: it does, or the suite has no such thing.
        """
        if name == "seed":
            raise OptionError(
                f"--seed {value} contradicts suite {self.name}, which has the seeds "
                f"{', '.join(self.seeds)}. Leave it out."
            )
        flag = "-n" if name == "n" else f"--{name.replace('_', '-')}"
        if name not in self.options:
            raise OptionError(f"{flag} is not part of suite {self.name}. Leave it out.")
        wanted = self.options[name]
        if value != wanted:
            raise OptionError(
                f"{flag} {value} contradicts suite {self.name}, which has {wanted}. Leave it out."
            )

    def check_facts(self, plan: Plan) -> None:
        """Check that ``plan`` asks the facts and tasks of the suite, scored as the suite says.

        Raises:
            OptionError: it does not.
        """
        from editbench.run.keys import SCORING

        if SCORING != self.scoring:
            raise OptionError(
                f"Suite {self.name} is scored by version {self.scoring}, and this editbench scores "
                f"by version {SCORING}. Install the editbench that has it, or take another suite."
            )
        wanted, seed = self.seeds[str(plan.config.seed)], plan.config.seed
        if plan.slice_hash != wanted:
            raise OptionError(
                f"The facts of seed {seed} are {plan.slice_hash}, and suite {self.name} has "
                f"{wanted}. {AGAIN}"
            )
        tasks = self.retention["tasks"]
        for task, data in tasks.items():
            if task in plan.not_asked:
                raise OptionError(
                    f"Suite {self.name} asks {task}, which cannot be asked here: "
                    f"{plan.not_asked[task]}"
                )
            if (now := plan.task_digests.get(task)) != data:
                raise OptionError(
                    f"The data of {task} are {now}, and suite {self.name} has {data}. {AGAIN}"
                )

    def check_model(self, model: Identity, name: str) -> None:
        """Check that the model called ``name`` is that of the suite.

        Raises:
            OptionError: it is not.
        """
        for what, now, wanted in (
            ("weights", model.weights, self.model["weights"]),
            ("precision", model.precision, self.model["precision"]),
            ("chat template", model.template or "", self.model["chat_template"]),
        ):
            if now != wanted:
                raise OptionError(
                    f"The {what} of {name}: {now or 'none'} here, and suite {self.name} has "
                    f"{wanted or 'none'}. {AGAIN}"
                )


def names() -> list[str]:
    """Return the suites that editbench ships."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def _fault(record: Mapping[str, object]) -> str | None:
    """Return why ``record`` is no suite; ``None`` if it is one."""
    known = {field.name for field in fields(Suite)}
    if odd := next(iter(known ^ set(record)), None):
        return f"it has no {odd!r}" if odd in known else f"it has {odd!r}, which no suite has"
    kinds: dict[str, type] = {"name": str, "summary": str, "scoring": int, "seeds": dict}
    for field, kind in (kinds | dict.fromkeys(PARTS, dict)).items():
        if not isinstance(record[field], kind):
            return f"{field} is not a {'table' if kind is dict else kind.__name__}"
    for part, inner in PARTS.items():
        table: Any = record[part]
        for field, kind in inner.items():
            if not isinstance(table.get(field), kind):
                return f"{part}.{field} is missing or of another type"
        if odd := next((field for field in table if field not in inner), None):
            return f"it has {part}.{odd}, which no suite has"
    seeds: Any = record["seeds"]
    if not seeds or not all(seed.isdecimal() for seed in seeds):
        return "seeds is not a table of numbers"
    return None
