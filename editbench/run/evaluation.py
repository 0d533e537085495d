"""Score what was made: a saved edit, an adapter or a fine-tuned folder, as a row beside its base.

It is the run of ``compare --artifact`` with two rows, ``base`` and ``edit``, and drift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from editbench import artifacts
from editbench.edit import Edit
from editbench.errors import OptionError
from editbench.records.schema import CellSummary
from editbench.run.config import RunConfig
from editbench.slices import ALL, NO_FACTS
from editbench.stats import mean_ratio, number

ROW = "edit"
"""The row of what is scored."""


@dataclass(frozen=True)
class Least:
    """What an evaluation must reach; ``None``: nothing is asked."""

    efficacy: float | None = None
    """Share of the facts that are answered with their target."""
    retention: float | None = None
    """Mean over the retention tasks of the edited model's score over the base's."""

    def check(self, config: RunConfig, tasks: str) -> None:
        """Check that the run measures what must be reached.

        Raises:
            OptionError: it does not, or a limit is out of range.
        """
        for name, value in (("efficacy", self.efficacy), ("retention", self.retention)):
            if value is not None and not 0 <= value <= 1:
                raise OptionError(f"--min-{name} is {value}; it is a share from 0 to 1.")
        if self.efficacy is not None and config.corpus == NO_FACTS:
            raise OptionError("--min-efficacy needs facts to ask. Pass --facts FILE.")
        if self.retention is not None and tasks == "none":
            raise OptionError("--min-retention needs retention tasks. Leave --tasks none out.")

    def alarms(self, summary: CellSummary) -> list[str]:
        """Return a sentence for each limit that ``summary`` does not reach.

        A score that could not be measured does not reach it.
        """
        found = []
        for name, least, value in (
            ("Efficacy", self.efficacy, efficacy(summary)),
            ("Retention", self.retention, retention(summary)),
        ):
            if least is None or (value is not None and value >= least):
                continue
            has = "could not be measured" if value is None else f"is {value:.3f}"
            found.append(f"{name} {has}, and --min-{name.lower()} asks for {least:g}.")
        return found


def efficacy(summary: CellSummary) -> float | None:
    """Return the share of facts that are answered with their target; ``None`` if none was asked."""
    estimate = (summary["metrics"].get("efficacy") or {}).get("generation")
    return None if estimate is None else number(estimate["mean"])


def retention(summary: CellSummary) -> float | None:
    """Return the mean ratio of edited to base score; ``None`` if no task was asked."""
    return number(mean_ratio(summary["retention"]).mean)


def own_facts(folder: Path) -> str:
    """Return the file with the facts that an edit was made for, ``none`` for what names no facts.

    Raises:
        ModelError: there is no artifact in ``folder``.
    """
    if artifacts.kind_of(folder) != "edit" or not Edit.load(folder).facts:
        return NO_FACTS
    return str(folder / "manifest.json")


def base_name(folder: Path, model: str | None) -> str:
    """Return the model that what is in ``folder`` was made from: ``model``, or the one it names.

    Raises:
        OptionError: ``folder`` names none, as fine-tuned weights do not.
        ModelError: there is no artifact in ``folder``.
    """
    if model is not None:
        return model
    name = artifacts.named_base(folder)
    if not name:
        raise OptionError(f"{folder} does not name the model it was made from. Pass it as --model.")
    return name


def evaluation(config: RunConfig, folder: Path, facts: str) -> RunConfig:
    """Return ``config`` as the configuration of a run that scores what is in ``folder``.

    Args:
        config: gives all that is not about methods and facts.
        folder: a saved edit, a PEFT adapter or a fine-tuned model.
        facts: a file, or ``none``.
    """
    is_none, kind = facts == NO_FACTS, artifacts.kind_of(folder)
    return replace(
        config,
        methods=("base", ROW),
        artifacts={ROW: str(folder)},
        corpus=NO_FACTS if is_none else "local",
        data=None if is_none else facts,
        part=ALL,
        n=None,
        diagnostics=("drift",),
        # An edit may have been made of conflicting facts on purpose.
        allow_conflicts=config.allow_conflicts or facts == str(folder / "manifest.json"),
        # The weights of the base are held as they were when the edit was made.
        dtype=Edit.load(folder).model_dtype if kind == "edit" else config.dtype,
    )
