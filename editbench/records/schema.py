"""The files that a run leaves on disk, and the types of their contents.

A run folder is written so that a crash at any moment costs at most the cell that is being computed:

    RUN/run.json                 the configuration, with its digest; written first
    RUN/.lock                    lock of the writing process; free again once that process is gone
    RUN/cases.json               the facts and their probes
    RUN/cells.json               {method: key}: the cells that belong to the run
    RUN/not_asked.json           {task: reason}: retention tasks that could not be asked, if any
    RUN/tuned.json               what a search chose (``editbench.run.tune``), if the run is one
    RUN/cells/<key>/summary.json           ``CellSummary``; its presence means that the cell is done
    RUN/cells/<key>/probes.parquet         one ``ProbeRow`` per probe, with the text of the model
    RUN/cells/<key>/retention.parquet      one ``SampleRow`` per document of a retention task
    RUN/cells/<key>/scores.parquet         one ``ScoreRow`` per case and evaluator plug-in, if any
    RUN/cells/<key>/edit_records.parquet   one ``EditRecord`` per fact
    RUN/cells/<key>/curve_probes.parquet   the rows of every point of a curve but the last,
    RUN/cells/<key>/curve_samples.parquet  each with its number of ``facts``
    RUN/cells/<key>/right_after.parquet    sequences: one ``ProbeRow`` per probe that was also asked
                                           right after its fact's chunk

A cell is written into ``RUN/cells/.tmp-*``, its summary last, and renamed as a whole. Cells that
are not in ``cells.json`` are older or foreign, and nothing reads them. JSON has no NaN; null stands
for it.

A run of several seeds is a folder of such run folders, each a run like any other:

    RUN/seeds.json               {"seeds": [0, 1]}
    RUN/seed0/, RUN/seed1/       the runs; a page over all of them is RUN/README.md

A failed cell has empty ``metrics`` and ``retention``, its reason in ``note`` and a ``traceback``.
Older runs are read as well: cells from before ``tables`` and ``digest`` were stored, and all
cells of a folder that has no ``cells.json``.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from editbench.report import EditSummary
from editbench.rows import IntervalRow, Metrics, RetentionRow, TwiceRow, Work

SCHEMA = 1
Status = Literal["done", "no_effect", "stopped", "failed"]


class StoredConfig(TypedDict, total=False):
    """``config`` of ``run.json``: the fields of ``RunConfig``, the later ones only where used."""

    methods: list[str]
    model: str
    corpus: str
    data: str | None
    part: str
    n: int
    tasks: list[str]
    limit: int | None
    regime: str
    curve: list[int]
    seed: int
    precision: str
    options: dict[str, dict[str, object]]
    task_data: dict[str, str]
    allow_conflicts: bool
    layout: dict[str, str]
    diagnostics: list[str]
    evaluators: list[str]
    tuned: dict[str, dict[str, object]]
    judge: str
    judge_model: str
    repeats: int
    columns: dict[str, str]
    artifacts: dict[str, str]
    dtype: str
    device_map: str
    batch_size: int
    suite: dict[str, str]
    """``name`` and ``digest`` of the suite, where the run is of one."""
    tune: dict[str, object]
    """Search runs only: all that decides which trials are made."""


class ChatRecord(TypedDict, total=False):
    """How a chat template is used (``editbench.chat_template``): what not every template needs."""

    thinking: str
    """``off``: the prompt asks a model that can think for an immediate answer. ``free``: the
    template names thoughts, but leaves them to the model."""
    date: str
    """What the template gets as today's date, where it asks for it."""
    system: str
    """The system turn, where the template requires one."""
    content: str
    """``parts``: the template reads content as a list of parts."""
    dropped: str
    """What is cut from the end of the template's generation prompt."""
    added: str
    """What follows the generation prompt, so that an answer stands where the template writes it."""
    separator: str
    """White space that the template writes before an answer."""


class OriginRecord(TypedDict):
    """The package that a method comes from, where it is not one of editbench's own."""

    method: str
    package: str
    version: str
    url: str
    """Address of its repository; empty where the package gives none."""


class ArtifactRecord(TypedDict):
    """The artifact that a row shows (``editbench.artifacts``)."""

    path: str
    content: str
    """Hash of its files."""
    kind: str
    """In words, such as ``PEFT adapter (LORA)``."""
    base: str
    """The model that it names as its base; empty if it names none."""
    checked: str
    """What of the base was compared with the model."""
    taught: NotRequired[int]
    """How many of the facts in ``asked`` it was made for. Both are absent where nothing says so."""
    asked: NotRequired[int]


class ModelRecord(TypedDict):
    """The model of a cell."""

    name: str
    hash: str
    """Fingerprint of the weights."""
    precision: str
    dtype: NotRequired[str]
    """In which type the weights are held, where it is not float32."""
    chat_template: NotRequired[str | None]
    """Hash of the template; ``None`` without one."""
    chat: NotRequired[ChatRecord]
    """How the template is used, where that is not as it stands."""
    adapter: NotRequired[str]
    """The PEFT adapter that was added to the weights when the model was loaded."""


class CorpusRecord(TypedDict):
    """The slice whose facts were injected."""

    name: str
    hash: str
    """Hash of the chosen cases with their probes, which are in ``cases.json``."""
    part: str
    """``dev``, ``test`` or ``all``."""
    n: int
    """0 in a run without facts (``--facts none``)."""
    form: str
    """``cloze`` or ``question``; ``none`` without facts."""


class Versions(TypedDict):
    """Versions of the code that can move a number; part of the cell's key."""

    scoring: int
    method: int
    engine: NotRequired[int]
    """Version of the engine that the method runs on; left out while it is 1."""
    regime: NotRequired[int]
    """Sequences only: version of the rules by which they are watched, stopped and asked."""
    evaluators: NotRequired[dict[str, int]]
    plugins: NotRequired[dict[str, str]]
    """``method NAME`` or ``evaluator NAME`` -> digest of the code of a plug-in, where there is one.
    Older cells lack it."""


class VitalSigns(TypedDict):
    """The state of a model in a sequence after one chunk (``editbench.run.regimes``)."""

    facts: int
    perplexity_ratio: float
    norm_growth: float | None
    """``None``: the edited model lives in a process of its own, and its weights are unknown."""
    target_nll: float
    """Nats per token."""
    target_ratio: float
    forgetting_ratio: float


class RightAfter(TypedDict):
    """Scores of the facts of a sequence right after their own chunk and at the end."""

    facts: int
    """Facts that are compared: injected, and not replaced."""
    replaced: int
    """Facts that a later fact replaced (the same prompt, another target): what they were taught is
    wrong at the end."""
    not_injected: int
    """Facts that a stopped sequence never reached or took back."""
    scores: dict[str, dict[str, TwiceRow]]
    """Metric (efficacy, generalization, specificity) -> protocol -> scores of these facts. The
    cell's ``metrics`` are those of the end alone, over all facts."""


class CurvePoint(TypedDict):
    """The scores after the first ``facts`` facts."""

    facts: int
    metrics: Metrics
    retention: dict[str, RetentionRow]


class EvaluatorRow(IntervalRow):
    """The mean score of an evaluator plug-in, whose name is the ``protocol``, over the cases."""

    title: str
    """The heading of its column."""
    base: float | None
    """The mean score of the unedited model."""


class JudgeRecord(TypedDict, total=False):
    """How many answers a judging model judged."""

    model: str | None
    judged: int
    """Rows that received a verdict."""
    not_judged: int
    """Rows that should have received one."""
    reason: str
    """Why the last of the answers without a verdict has none."""


class Tuning(TypedDict):
    """The search that chose a cell's options."""

    budget: int
    """Trials per method."""
    retention: float
    """The minimum mean retention ratio that the search asked for."""
    seed: int
    regime: str
    tasks: list[str]
    n: int
    """Number of facts of the search."""
    digest: str
    """Hash of the search's ``tuned.json``."""
    trial: int
    """Index of the chosen trial."""
    feasible: bool
    """Whether the chosen trial reaches ``retention``."""


class Environment(TypedDict, total=False):
    """The software and the machine that computed a cell."""

    python: str
    platform: str
    cpu_count: int | None
    packages: dict[str, str | None]
    """Distribution -> version; ``None`` if it is not installed."""
    commit: str | None
    """Commit of the checkout, with ``-dirty`` if tracked files differ from it."""
    code: str
    """Digest of the code that can move a number."""
    threads: int
    device: str
    hardware: str


class CellSummary(TypedDict):
    """``summary.json``. Fields that some cells have or that older cells lack are optional."""

    schema: NotRequired[int]
    key: str
    """The method, and the hash of everything that can change the cell's numbers."""
    method: str
    """NAME, or NAME@LABEL for a variant."""
    options: dict[str, object]
    left_out: NotRequired[list[str]]
    """Options that the key leaves out: they are newer than the method's version and have their
    default. Absent where there are none."""
    recipe: NotRequired[str]
    """The recipe that stands for these options, if one did when the cell was computed."""
    tuned: NotRequired[bool]
    tuning: NotRequired[Tuning]
    """The search that chose the options, where ``tuned``."""
    sources: NotRequired[dict[str, str]]
    """Path -> SHA-256 of the files that options name."""
    artifact: NotRequired[ArtifactRecord]
    """Only where the row is something made elsewhere, and not a method."""
    origins: NotRequired[list[OriginRecord]]
    """Only where the method, or a part of a pair, is not one of editbench's own."""
    model: ModelRecord
    corpus: CorpusRecord
    tasks: NotRequired[dict[str, str | None]]
    """Retention task -> hash of its data; ``None`` for data from the hub."""
    versions: NotRequired[Versions]
    regime: str
    """``batch``, ``single`` or ``sequential:CHUNK``."""
    seed: int
    limit: int | None
    """Documents per retention task; ``None`` for all."""
    status: Status
    note: str
    """Why the status is not ``done``."""
    metrics: Metrics
    """Metric of ``eval/DEFINITIONS.md``, or METRIC/KIND for one kind of probes alone -> protocol
    (``generation``, ``argmax``, ``likelihood`` or ``judge``) -> estimate."""
    denied: NotRequired[dict[str, int]]
    """Axis -> number of answers that name an accepted answer only to deny or correct it. Absent
    where there are none, and in older cells."""
    retention: dict[str, RetentionRow]
    evaluators: NotRequired[dict[str, EvaluatorRow]]
    """Evaluator plug-in -> its mean, where ``--evaluators`` was given."""
    seconds: dict[str, float]
    """Phase -> wall-clock seconds, and ``total``."""
    inject_seconds: NotRequired[list[float]]
    """With ``--repeats``: the seconds of each injection; ``seconds`` has their median."""
    work: NotRequired[dict[str, Work]]
    """Phase -> forward passes and tokens that went through the model."""
    trajectory: NotRequired[list[VitalSigns]]
    """Sequences only: vital signs after each chunk."""
    curve: NotRequired[list[CurvePoint]]
    right_after: NotRequired[RightAfter]
    """Sequences only; absent in cells from before version 4 of the regime."""
    peak_memory_bytes: NotRequired[int]
    """Highest use of the memory that holds the model: a GPU's, else that of the process."""
    peak_process_bytes: NotRequired[int]
    environment: NotRequired[Environment]
    edit: NotRequired[EditSummary]
    """The edit's report, with the figures of its method and the size of the change."""
    diagnostics: NotRequired[dict[str, dict[str, Any] | None]]
    """Diagnostic -> its values (``eval/diagnostics/``); ``None`` where it does not apply."""
    judge: NotRequired[JudgeRecord]
    traceback: NotRequired[str]
    """Failed cells only: the traceback of the error."""
    tables: NotRequired[dict[str, str]]
    """Table -> SHA-256 of its parquet file."""
    digest: NotRequired[str]
    """Hash of all other fields."""


_PROBES = (
    "case",
    "probe",
    "axis",
    "form",
    "prompt",
    "answers",
    "text",
    "base_text",
    "generation",
)
COLUMNS: dict[str, tuple[str, ...]] = {
    "probes": _PROBES,
    "right_after": (*_PROBES, "facts", "replaced"),
    "retention": ("task", "member", "doc_id", "prompt", "expected", "output", "score", "metric"),
    "scores": ("evaluator", "case", "score", "text"),
}
"""Columns that a table must have to be read as such."""
PARTS: dict[str, type] = {
    "status": str,
    "corpus": dict,
    "model": dict,
    "options": dict,
    "metrics": dict,
    "retention": dict,
    "seed": int,
}
"""Fields that a summary must have to be read as such, and their JSON types."""
