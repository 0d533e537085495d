"""The configuration of a run, and the names that follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from editbench import registry
from editbench.errors import OptionError
from editbench.models import PRECISIONS
from editbench.options import check_count, check_seed, shortened
from editbench.placing import Loading
from editbench.run import regimes
from editbench.slices import NO_FACTS
from editbench.types import digest

LATER = (
    "diagnostics",
    "evaluators",
    "curve",
    "tuned",
    "judge",
    "judge_model",
    "repeats",
    "columns",
    "artifacts",
    "dtype",
    "device_map",
    "batch_size",
    "suite",
)
"""Fields that ``run.json`` leaves out where they are unused. Runs from before a field existed thus
keep their identity, and can be resumed."""


@dataclass(frozen=True)
class RunConfig:
    """The request behind ``editbench compare``. All fields are part of the run's identity.

    Raises:
        OptionError: a value is out of range, or two values exclude each other.
    """

    methods: tuple[str, ...]
    """The rows: names of methods, NAME@LABEL for variants of one, and names of artifacts."""
    model: str
    corpus: str
    data: str | None = None
    """File, hub id or URL of a corpus that is not built in."""
    part: str = "test"
    n: int | None = 50
    """Number of facts; ``None`` for all of the part. A plan has their number in its place."""
    tasks: tuple[str, ...] = ()
    """Retention tasks."""
    limit: int | None = None
    """Documents per retention task, drawn by ``seed``; ``None`` for all."""
    regime: str = "batch"
    curve: tuple[int, ...] = ()
    """Numbers of facts after which the model is also asked (see ``editbench.run.regimes``)."""
    seed: int = 0
    precision: str = "auto"
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Method or variant -> option -> value. A variant inherits no options from its method."""
    task_data: Mapping[str, str] = field(default_factory=dict)
    """Retention task -> local file with its data."""
    allow_conflicts: bool = False
    layout: Mapping[str, str] = field(default_factory=dict)
    """Part of an unknown architecture -> path of its module."""
    diagnostics: tuple[str, ...] = ()
    """Names of measurements made in addition to the scores; see ``eval/diagnostics/``."""
    tuned: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Method -> record of the search that chose its ``options``; see ``tune.py``."""
    judge: str | None = None
    """Endpoint of a language model that also judges the answers; see ``eval/judge.py``."""
    judge_model: str | None = None
    repeats: int = 0
    """Further injections by each method, only to time them; ``seconds`` has the median of all."""
    evaluators: tuple[str, ...] = ()
    """Names of evaluator plug-ins; see ``editbench.plugin.Evaluator``."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of a fact -> name of its column in ``data``; for files of the user's own facts."""
    artifacts: Mapping[str, str] = field(default_factory=dict)
    """Row -> folder of what somebody made elsewhere; see ``editbench.artifacts``."""
    dtype: str | None = None
    """In which type weights are held; ``None``: the checkpoint's own."""
    device_map: str | None = None
    """``auto`` spreads the model over several devices, the CPU and the disk."""
    batch_size: int | None = None
    """How much is computed together; ``None``: what each kind of work has by default."""
    suite: Mapping[str, str] = field(default_factory=dict)
    """``name`` and ``digest`` of the suite that fixes the other fields; see ``suite.py``."""

    def __post_init__(self) -> None:
        self._check_artifacts()
        self._check_no_facts()
        self._check_regime()
        self._check_ranges()
        self._check_names()

    def _check_artifacts(self) -> None:
        for name, path in self.artifacts.items():
            check_artifact_name(name)
            if not path:
                raise OptionError(f"--artifact {name} names no folder. Write {name}=FOLDER.")
            if name not in self.methods:
                raise OptionError(f"Artifact {name!r} is not among the rows of the run. List it.")
            if name in self.options:
                raise OptionError(f"--option {name}.…: {name} is an artifact and has no options.")
        if self.artifacts and self.regime != "batch":
            raise OptionError(
                f"--artifact does not go with --regime {self.regime}: an artifact is made already, "
                "as one change of the base. Use --regime batch."
            )
        if self.artifacts and self.curve:
            raise OptionError(
                "--artifact does not go with --curve: an artifact cannot be made again from fewer "
                "facts. Leave --curve out."
            )

    def _check_no_facts(self) -> None:
        if self.corpus != NO_FACTS:
            return
        taught = [name for name in self.methods if name not in ("base", *self.artifacts)]
        if taught:
            raise OptionError(
                f"--facts none injects nothing, so {', '.join(taught)} would have nothing to do. "
                "Leave --methods out, or name facts."
            )
        unused = {
            "-n": self.n,
            "--curve": self.curve,
            "--evaluators": self.evaluators,
            "--judge": self.judge,
            "--repeats": self.repeats,
            "--regime": self.regime != "batch",
            "--allow-conflicts": self.allow_conflicts,
            **{f"--{name}-column": True for name in self.columns},
        }
        if flag := next((flag for flag, value in unused.items() if value), None):
            raise OptionError(f"{flag} is about facts, and --facts none asks none. Leave it out.")

    def _check_regime(self) -> None:
        regimes.check_curve(self.regime, self.curve, self.n)  # also refuses an unknown regime
        if self.tasks and self.regime == "single":
            raise OptionError(
                "--regime single edits a fresh model for each fact, so retention tasks cannot run. "
                "Pass --tasks none."
            )
        if self.diagnostics and self.regime == "single":
            raise OptionError(
                "--diagnostics does not go with --regime single: diagnostics describe one edited "
                "model, and there is one for each fact. Use --regime batch, or leave it out."
            )
        if self.repeats < 0:
            raise OptionError(f"--repeats is {self.repeats}; it must be at least 0.")
        check_count("--repeats", self.repeats)
        if self.repeats and self.regime != "batch":
            raise OptionError(
                f"--repeats times one injection again, and --regime {self.regime} makes several. "
                "Use --regime batch."
            )

    def _check_ranges(self) -> None:
        if self.precision not in PRECISIONS:
            raise OptionError(
                f"Precision {self.precision!r} is not one of {', '.join(PRECISIONS)}."
            )
        self.loading()  # refuses a dtype or a batch size that is none
        check_seed(self.seed)
        if self.n is not None and self.n < 1 and self.corpus != NO_FACTS:
            raise OptionError(f"-n is {self.n}; at least one fact is needed.")
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit is {self.limit}; at least one item per task is needed.")

    def loading(self, device: str = "auto") -> Loading:
        """Return how the model is loaded, on ``device`` unless it has a device map."""
        return Loading(self.dtype or "auto", device, self.device_map, self.batch_size)

    def _check_names(self) -> None:
        for kind, names in (("Method", self.methods), ("Evaluator", self.evaluators)):
            if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
                raise OptionError(f"{kind} {twice!r} is listed twice. List it once.")
        for name in self.methods:
            if name.endswith("@"):
                raise OptionError(
                    f"Variant {name!r} has an empty label. Write it as NAME@LABEL, such as "
                    f"{name}slow."
                )
            if name.startswith("base@"):
                raise OptionError(
                    f"Variant {name!r} makes no sense: base is the unedited model, which has no "
                    "options. Leave it out."
                )
        for name in self.options:
            if name not in self.methods:
                compared = ", ".join(self.methods)
                raise OptionError(
                    f"--option {name}.… is for a method that is not compared. Compared: {compared}."
                )


def check_artifact_name(name: str) -> None:
    """Check that an artifact's row can be called ``name``.

    Raises:
        OptionError: it has odd characters or is too long, or a method or tool is called so.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", name):
        raise OptionError(
            f"--artifact {shortened(name)}: a name has at most 40 letters, digits, - and _, and "
            "begins with a letter or digit. Write --artifact mine=FOLDER."
        )
    if registry.is_taken(name):
        raise OptionError(f"--artifact {name}: a method is called {name}. Choose another name.")


def with_baselines(methods: Sequence[str]) -> tuple[str, ...]:
    """Return ``methods`` with the baselines, which are in every table, put in front."""
    return (*(name for name in registry.baselines() if name not in methods), *methods)


def method_of(name: str) -> str:
    """Return the registered method of a variant: the part of ``name`` before the @."""
    return name.partition("@")[0]


def run_identity(config: RunConfig) -> dict[str, object]:
    """Return the configuration as ``run.json`` stores it; only an equal one resumes a run."""
    fields = asdict(config)
    # Before there was a choice, all weights were held in float32: those runs can be resumed so.
    if config.dtype == "float32":
        fields["dtype"] = None
    return {name: value for name, value in fields.items() if value or name not in LATER}


def default_output(config: RunConfig, stored: Mapping[str, object]) -> Path:
    """Return ``runs/MODEL_CORPUS_nN_HASH``, ``runs/MODEL_no-facts_HASH`` or ``runs/SUITE_HASH``.

    The hash is that of ``stored``, the content of ``run.json``, so the same command finds its run
    again.
    """
    if config.suite:
        return Path("runs") / f"{config.suite['name']}_{digest(stored)[:8]}"
    # An alias, a hub id or a path: the last part serves as the name.
    model = Path(config.model).name.replace(".gguf", "")
    facts = "no-facts" if config.corpus == NO_FACTS else f"{config.corpus}_n{config.n}"
    return Path("runs") / f"{model}_{facts}_{digest(stored)[:8]}"
