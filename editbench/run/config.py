"""What a run was asked for, and how it is identified and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from editbench import registry
from editbench.errors import (
    OptionError,
)
from editbench.models import PRECISIONS
from editbench.options import check_seed
from editbench.run import regimes
from editbench.types import digest


@dataclass(frozen=True)
class RunConfig:
    """What ``editbench compare`` was asked for. Every field is part of the run's identity."""

    methods: tuple[str, ...]
    """Names of methods, or NAME@LABEL for variants of one."""
    model: str
    corpus: str
    data: str | None = None
    part: str = "test"
    n: int = 50
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    """Documents per retention task, drawn by ``seed``."""
    regime: str = "batch"
    curve: tuple[int, ...] = ()
    """Numbers of facts after which the model is asked, too; see ``editbench.run.regimes``."""
    seed: int = 0
    precision: str = "auto"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Method or variant to option to value; a variant takes none from its method."""
    task_data: Mapping[str, str] = field(default_factory=dict)
    allow_conflicts: bool = False
    layout: Mapping[str, str] = field(default_factory=dict)
    diagnostics: tuple[str, ...] = ()
    """Names of what is measured beside the scores; see ``eval/diagnostics.py``."""
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Method whose ``options`` were searched for, to the record of that search; see ``tune.py``."""
    judge: str | None = None
    """The address of a language model that judges the answers, too; see ``eval/judge.py``."""
    judge_model: str | None = None
    repeats: int = 0
    """Further injections by each method, for the time alone: the seconds of an injection are then the median of all."""

    def __post_init__(self) -> None:
        regimes.check_curve(self.regime, self.curve, self.n)
        if self.tasks and self.regime == "single":
            raise OptionError(
                "Under --regime single each fact has a model of its own, none to ask tasks. Pass --tasks none."
            )
        if self.diagnostics and self.regime == "single":
            raise OptionError(
                "--diagnostics does not go with --regime single: they are of one edited model."
            )
        if self.repeats < 0:
            raise OptionError(f"--repeats is {self.repeats}; 0 is the least.")
        if self.repeats and self.regime != "batch":
            raise OptionError(
                f"--repeats times one injection again, and --regime {self.regime} has many. Use --regime batch."
            )
        if self.precision not in PRECISIONS:
            raise OptionError(
                f"Precision {self.precision!r} is not one of {', '.join(PRECISIONS)}."
            )
        check_seed(self.seed)
        if self.n < 1:
            raise OptionError(f"-n is {self.n}; at least one fact is needed.")
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit is {self.limit}; at least one item per task is needed.")
        twice = next((m for i, m in enumerate(self.methods) if m in self.methods[:i]), None)
        if twice:
            raise OptionError(f"Method {twice!r} is listed twice. List it once.")
        for name in self.methods:
            if name.endswith("@"):
                raise OptionError(
                    f"Variant {name!r} has an empty label. Write it as NAME@LABEL, such as {name}slow."
                )
            if name.startswith("base@"):
                raise OptionError(
                    f"Variant {name!r} makes no sense: base is the unedited model. Leave it out."
                )
        for other in self.options:
            if other not in self.methods:
                compared = ", ".join(self.methods)
                raise OptionError(
                    f"--option {other}.… is for a method that is not compared. Compared: {compared}."
                )


def with_baselines(methods: Sequence[str]) -> tuple[str, ...]:
    """``methods``, preceded by the baselines that are always in the table."""
    return (*(name for name in registry.baselines() if name not in methods), *methods)


def method_of(name: str) -> str:
    """The registered method behind ``name``: its part before the @."""
    return name.partition("@")[0]


def run_identity(config: RunConfig) -> dict[str, Any]:
    """The configuration as it is stored in ``run.json``: a run folder is resumed only by the same one."""
    # left out where not used: older runs are found again
    later = ("diagnostics", "curve", "tuned", "judge", "judge_model", "repeats")
    return {name: value for name, value in asdict(config).items() if value or name not in later}


def default_output(config: RunConfig, stored: Mapping[str, Any]) -> Path:
    """``runs/MODEL_CORPUS_nN_HASH``, the hash that of what ``run.json`` has: the same command finds its run again."""
    model = Path(config.model).name.replace(".gguf", "")
    return Path("runs") / f"{model}_{config.corpus}_n{config.n}_{digest(stored)[:8]}"
