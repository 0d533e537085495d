"""``compare``, ``evaluate`` and ``load_run``: what the commands of these names do, in Python."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from editbench import artifacts, progress
from editbench.aliases import DEFAULT
from editbench.api.results import Results
from editbench.cli import console, running
from editbench.cli.compare import DEFAULT_METHODS
from editbench.cli.options import RunOptions
from editbench.edit import Edit
from editbench.errors import OptionError
from editbench.files import jsonable
from editbench.models import LanguageModel
from editbench.placing import Loading
from editbench.run import evaluation
from editbench.run.api import inject as quiet_inject
from editbench.types import Fact, digest

P = ParamSpec("P")
R = TypeVar("R")
Facts = str | Path | Iterable[Fact | Mapping[str, object]]
RUNS = Path("runs")
"""Where facts and edits that have no file of their own are written."""


def _shown(call: Callable[P, R]) -> Callable[P, R]:
    """Return ``call``, which in an interactive session also shows its progress on stderr."""

    @functools.wraps(call)
    def showing(*args: P.args, **kwargs: P.kwargs) -> R:
        if not hasattr(sys, "ps1"):  # a notebook has it, too
            return call(*args, **kwargs)
        with progress.reporting(console.reporter()):
            return call(*args, **kwargs)

    return showing


inject = _shown(quiet_inject)


def compare(
    methods: str | Iterable[str] = DEFAULT_METHODS,
    *,
    model: str | Path | LanguageModel = DEFAULT,
    facts: Facts | None = None,
    corpus: str | None = None,
    data: str | None = None,
    n: int | None = None,
    part: str | None = None,
    regime: str = "batch",
    tasks: str = "default",
    limit: int | None = 100,
    options: Mapping[str, Mapping[str, object]] | None = None,
    artifacts: Mapping[str, str | Path] | None = None,
    diagnostics: Iterable[str] = (),
    evaluators: Iterable[str] = (),
    seeds: int | Iterable[int] = 0,
    precision: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    batch_size: int | None = None,
    workers: int | str | None = None,
    gpus_per_cell: float | None = None,
    ray: str | None = None,
    allow_conflicts: bool = False,
    output: str | Path | None = None,
    track: str = "",
) -> Results:
    """Inject the same facts by each method, and return what each gained and destroyed.

    It is ``editbench compare``: the same checks before anything is computed, the same record, and
    an unfinished run in ``output`` is resumed. Progress goes to stderr.

    Args:
        methods: names, separated by commas or as a list; ``base`` and ``ice`` are always added.
        model: a name for ``load_model``, or a model that is loaded already.
        facts: your own: a file, or ``Fact`` objects or dicts as in a JSON file of facts, with
            ``paraphrases`` and ``neighborhoods`` if they have any. Those without a file are
            written to one in ``runs/``, since a run names its facts by a file.
        corpus: a corpus instead of ``facts``; by default ``demo-counterfact``.
        data: the file of a corpus that is not built in.
        n: number of facts; by default 50, of your own all.
        part: ``test`` or ``dev``.
        regime: ``batch``, ``sequential:CHUNK`` or ``single``.
        tasks: retention tasks between commas, ``default`` or ``none``.
        limit: items of each task; ``None`` for all.
        options: method -> its options, such as ``{"memit": {"lam": 1500}}``.
        artifacts: row -> folder of what was made elsewhere.
        diagnostics: names of diagnostics.
        evaluators: names of evaluator plug-ins.
        seeds: one seed or several; several give one row for each method, with their spread.
        dtype, device, device_map, batch_size: as in ``load_model``; a model that is loaded already
            has its own.
        workers, gpus_per_cell, ray: compute cells on a Ray cluster, as the options of these names.
        output: the run folder; by default one in ``runs/``.
        track: a tracker that is also told of each cell, such as ``wandb``.

    Raises:
        EditbenchError: something of it is wrong, as on the command line.
    """
    from editbench.cli import parsing

    typed = methods if isinstance(methods, str) else ",".join(methods)
    names = parsing.method_names(typed) if typed or not artifacts else ()
    several = [seeds] if isinstance(seeds, int) else list(seeds)
    handle = model if isinstance(model, LanguageModel) else None
    how = Loading(dtype, device, device_map, batch_size)
    if handle:
        if (workers, gpus_per_cell, ray) != (None, None, None):
            raise OptionError("Workers load the model themselves. Pass its name, not a model.")
        how = handle.loading or Loading()
    request = RunOptions(
        model=handle.name if handle else str(model),
        precision=handle.precision if handle else precision,
        dtype=how.dtype,
        device=how.device,
        device_map=None if how.device_map is None else "auto",
        batch_size="auto" if how.batch_size is None else str(how.batch_size),
        workers=None if workers is None else str(workers),
        gpus_per_cell=gpus_per_cell,
        ray=ray,
        skip_memory_check=handle is not None,
        corpus=corpus,
        facts=None if facts is None else _file_of(facts),
        data=data,
        n=n,
        regime=regime,
        tasks=tasks,
        limit=limit,
        allow_conflicts=allow_conflicts,
        output=None if output is None else Path(output),
        track=track,
    )
    made = {name: str(folder) for name, folder in (artifacts or {}).items()}
    config = replace(
        running.request(request, names, options or {}, part, made),
        seed=several[0],
        diagnostics=tuple(diagnostics),
        evaluators=tuple(evaluators),
    )
    folder, _ = running.run_cells(config, request, seeds=several, handle=handle)
    return Results(folder)


def evaluate(
    edit: str | Path | Edit,
    facts: Facts | None = None,
    *,
    model: str | Path | LanguageModel | None = None,
    tasks: str = "default",
    limit: int | None = 100,
    seed: int = 0,
    precision: str = "auto",
    output: str | Path | None = None,
) -> Results:
    """Score a saved edit, a PEFT adapter or a fine-tuned folder beside its base.

    It is ``editbench evaluate``. The rows are ``base`` and ``edit``.

    Args:
        edit: its folder, or an ``Edit``, which is saved in ``runs/`` for it.
        facts: as in ``compare``; by default those that the edit was made for.
        model: its base, by name or loaded already; by default the model that it names.
        tasks: retention tasks between commas, ``default`` or ``none``.
        limit: items of each task; ``None`` for all.
        output: the run folder; by default one in ``runs/``.

    Raises:
        EditbenchError: something of it is wrong, or the edit does not fit the base.
    """
    place = _saved(edit) if isinstance(edit, Edit) else Path(edit)
    handle = model if isinstance(model, LanguageModel) else None
    named = handle.name if handle else None if model is None else str(model)
    request = RunOptions(
        model=evaluation.base_name(place, named),
        precision=handle.precision if handle else precision,
        skip_memory_check=handle is not None,
        facts=evaluation.own_facts(place) if facts is None else _file_of(facts),
        seed=seed,
        tasks=tasks,
        limit=limit,
        output=None if output is None else Path(output),
    )
    folder, _ = running.run_cells(running.scoring(place, request), request, handle=handle)
    return Results(folder)


def load_run(folder: str | Path) -> Results:
    """Return the results of a stored run, of one seed or of several.

    Raises:
        RecordError: ``folder`` is no readable run, or no cell is finished yet.
    """
    return Results(folder)


def _file_of(facts: Facts) -> str:
    """Return the file of ``facts``; those without one are written to a file named by their hash.

    Raises:
        OptionError: there are none.
    """
    if isinstance(facts, str | Path):
        return str(facts)
    records: Sequence[object] = [
        fact.to_dict() if isinstance(fact, Fact) else dict(fact) for fact in facts
    ]
    if not records:
        raise OptionError("facts is empty. Give at least one fact.")
    lines = [json.dumps(jsonable(record), ensure_ascii=False) + "\n" for record in records]
    file = RUNS / f"facts_{digest(lines)[:12]}.jsonl"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines), encoding="utf-8", newline="\n")
    return str(file)


def _saved(edit: Edit) -> Path:
    """Return the folder of ``edit``, saved in a folder named by the hash of its files."""
    new = edit.save(RUNS / f".tmp-edit-{id(edit)}", overwrite=True)
    hashes = artifacts.contents(new).items()
    content = digest(sorted((Path(file).name, sha) for file, sha in hashes))
    folder = RUNS / f"edit_{edit.method.replace('/', '_')}_{content[:12]}"
    if folder.exists():
        shutil.rmtree(new)
        return folder
    return new.rename(folder)
