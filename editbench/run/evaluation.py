"""Score what was made: a saved edit, an adapter or a fine-tuned folder, as a row beside its base.

It is the run of ``compare --artifact`` with two rows, ``base`` and ``edit``, and drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from editbench import artifacts
from editbench.edit import Edit
from editbench.errors import OptionError
from editbench.models import load_model
from editbench.records.schema import CellSummary
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, default_output, run_identity
from editbench.run.folder import no_empty_run, save_cases
from editbench.run.plan import resolve
from editbench.run.worker import Worker
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
    is_none = facts == NO_FACTS
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
    )


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` found out; the run in ``folder`` has it in full."""

    folder: Path
    base: CellSummary
    edit: CellSummary

    @property
    def efficacy(self) -> float | None:
        """Share of the facts that the edited model answers with their target."""
        return efficacy(self.edit)

    @property
    def retention(self) -> float | None:
        """Mean over the retention tasks of the edited model's score over the base's."""
        return retention(self.edit)

    def __repr__(self) -> str:
        """Return both scores and the folder."""
        scores = f"efficacy={_short(self.efficacy)}, retention={_short(self.retention)}"
        return f"Evaluation({scores}, folder={str(self.folder)!r})"


def _short(value: float | None) -> str:
    return "None" if value is None else f"{value:.3f}"


def evaluate(
    edit: str | Path,
    facts: str | Path | None = None,
    *,
    model: str | None = None,
    tasks: str = "default",
    limit: int | None = 100,
    seed: int = 0,
    precision: str = "auto",
    output: str | Path | None = None,
) -> Evaluation:
    """Score a saved edit, a PEFT adapter or a fine-tuned folder beside its base.

    Args:
        edit: its folder.
        facts: a file of facts with their probes, or ``none`` for retention alone. By default those
            that the edit was made for, which it keeps without paraphrases and neighbors.
        model: its base; by default the model that it names.
        tasks: the retention tasks, as ``editbench compare --tasks`` takes them.
        limit: items of each task; ``None`` for all.
        output: the run folder; by default one in ``runs/``. An unfinished run in it is resumed.

    Raises:
        EditbenchError: something of it is wrong, or the edit does not fit the base.
    """
    folder = Path(edit)
    asked = own_facts(folder) if facts is None else str(facts)
    name = base_name(folder, model)
    shared = RunConfig(
        ("base",), name, NO_FACTS, seed=seed, precision=precision, limit=limit, n=None
    )
    plan = resolve(evaluation(shared, folder, asked), tasks)
    identity = run_identity(plan.config)
    run = Path(output) if output is not None else default_output(plan.config, identity)
    kept = no_empty_run(run)
    with RunStore(run).open(identity) as store, kept:
        save_cases(run, plan)
        handle = load_model(name, precision=precision)
        job = runner.Job(plan, store, lambda name, state: None)
        base, edited = _in_order(runner.run_jobs([job], Worker(handle), leave_out=True))
    return Evaluation(run, base, edited)


def _in_order(summaries: Sequence[CellSummary]) -> tuple[CellSummary, CellSummary]:
    by_row = {summary["method"]: summary for summary in summaries}
    return by_row["base"], by_row[ROW]
