"""lm-eval tasks beside the pack: lm-eval's own by name, and those of your own YAML by path; fed from the hub or from a file."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from editbench.errors import DataError, OptionError
from editbench.eval.task_rows import files_of, first_line, form, hub_rows
from editbench.hub import offline_if_unreachable

SHOTS = {"gsm8k": 5}
"""Tasks that ask with examples from their training split; a file without one means no examples."""
CHAT = ("ifeval",)
"""Tasks of lm-eval that speak to an assistant: asked through the chat template, as its ``--apply_chat_template`` does. A task
file of ours or yours says so itself: ``metadata: {chat: true}``."""
GROUPS = {
    "blimp": ("blimp", "blimp_{}", "{}.jsonl"),
    "mmlu": ("mmlu/default", "mmlu_{}", "{}_test.csv"),
}
"""Groups that a folder or a zip can feed: lm-eval's folder of their tasks; the name of a task, and of its file, by subject."""
GRADERS = {"ifeval": ("langdetect", "immutabledict", "nltk")}
"""Packages that lm-eval grades a task with and does not bring along."""
PACK = Path(__file__).parent / "tasks"
"""The bundled tasks, ``eb_*``; beside them, this project's tasks that need a file."""


@cache
def find(name: str) -> Path | None:
    """The YAML of the task ``name``: a path, ours, or lm-eval's where the file has the task's name; nothing is imported."""
    if is_path(name):
        return Path(name)
    if name.isidentifier() and (PACK / f"{name}.yaml").is_file():
        return PACK / f"{name}.yaml"
    root = _lm_eval()
    if root is None or not re.fullmatch(r"[\w.+-]+", name):
        return None
    for path in sorted(root.rglob(f"{name}.yaml")):
        if re.search(
            rf"^task:\s*[\"']?{re.escape(name)}[\"']?\s*$",
            path.read_text(encoding="utf-8"),
            re.MULTILINE,
        ):
            return path
    return None


def is_path(name: str) -> bool:
    """Whether ``name`` is the path of a YAML file rather than a task's name."""
    return name.endswith((".yaml", ".yml"))


def _lm_eval() -> Path | None:
    spec = find_spec("lm_eval")
    return Path(spec.origin).parent / "tasks" if spec and spec.origin else None


@cache
def _manager() -> Any:
    # Reads 14,000 files: some ten seconds, so only for names that `find` does not know.
    from lm_eval.tasks import TaskManager

    return TaskManager()


def all_names() -> list[str]:
    """Every task, group and tag of lm-eval."""
    return _manager().all_tasks


def yaml_files(path: Path) -> list[Path]:
    """``path`` and the files that it and those it includes name: more YAML, Python beside it, data.

    Raises:
        DataError: one of them cannot be read as YAML; names the line.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads ``!function checks.load`` as the file ``checks.py``."""

    Loader.add_constructor(
        "!function", lambda _, node: node.value.rpartition(".")[0].replace(".", "/") + ".py"
    )
    found: dict[Path, None] = {}
    todo = [path]
    while todo:
        file = todo.pop()
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), Loader)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"Task file {file} cannot be read ({first_line(error)}).") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark else ""
            raise DataError(
                f"Task file {file}{where}: not YAML ({getattr(error, 'problem', first_line(error))})."
            ) from error
        if not isinstance(content, dict):
            raise DataError(
                f"Task file {file} is no task of lm-eval: it wants 'task: NAME' and what is asked."
            )
        found[file] = None
        included = content.pop("include", [])
        inner = [
            file.parent / name for name in ([included] if isinstance(included, str) else included)
        ]
        todo += [one for one in inner if one not in found]
        named = [place / text for text in _texts(content) for place in (file.parent, Path())]
        found |= dict.fromkeys(one for one in named if one.is_file())
    return list(found)


def _texts(value: Any) -> Iterator[str]:
    """The short strings in a YAML's values: those that may be file names."""
    if isinstance(value, str):
        if len(value) < 200 and value.isprintable():
            yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def from_hub(name: str) -> dict[str, Any]:
    """The task objects of ``name`` with data from the hub or its cache, or from where its YAML says.

    Raises:
        DataError: the data is not there, or the hub cannot be reached; names the file or the dataset, and ``--task-data``.
        OptionError: a package that grades the answers is not installed.
    """
    _check_graders(name)
    path, known = find(name), form(name)
    if path is not None and path.parent == PACK:
        assert known is not None
        raise DataError(
            f"Task {name!r} has no data of its own. Give {known.dataset}: --task-data {name}=PATH."
        )
    try:
        with offline_if_unreachable():
            if path is None:
                return _manager().load([name])["tasks"]
            return _load(name, [path])
    except (OSError, ConnectionError) as error:
        missing = re.search(
            r"Unable to find '([^']+)'", str(error)
        )  # so datasets says it of data_files
        if is_path(name) and missing and "://" not in missing[1]:
            raise DataError(
                f"Task file {name}: its data file {missing[1]} does not exist. Mend the path under data_files (a relative one "
                f"counts from the folder that editbench runs in), or give the data: --task-data {name}=PATH."
            ) from error
        dataset = known.dataset if known else _dataset(path)
        fields = (
            f"JSON lines with {known.fields}."
            if known
            else "JSON lines, CSV or parquet with the dataset's fields."
        )
        raise DataError(
            f"Task {name!r} needs the dataset {dataset}, which is not on this machine and the Hugging Face Hub did not give "
            f"({first_line(error)}). Give it as a file: --task-data {name}=PATH. {fields}"
        ) from error


def from_file(name: str, path: Path) -> dict[str, Any]:
    """The task objects of ``name`` with its documents from ``path``.

    ``path`` is a file with the documents to ask, or a folder with ``test.*`` (or ``validation.*``) and ``train.*``;
    without a training split the task is asked with no examples. For a group in ``GROUPS``: a folder or a zip.

    Raises:
        DataError: the file cannot be read, or lacks a field; a group of other tasks.
        OptionError: a package that grades the answers is not installed.
    """
    _check_graders(name)
    with tempfile.TemporaryDirectory() as work:
        if name in GROUPS:
            members = _members(name, path, Path(work) / "unpacked")
        else:
            yaml = find(name) or getattr(_manager().task_index.get(name), "yaml_path", None)
            if yaml is None:
                raise DataError(
                    f"--task-data {name}={path}: {name!r} is a group of tasks; name its tasks, with a file for each."
                )
            members = {Path(name).stem if is_path(name) else name: (yaml, _files(path))}
        derived = [_derived(Path(work), member, *of) for member, of in members.items()]
        try:
            return _load(name, derived)
        except KeyError as error:
            raise DataError(
                f"--task-data {name}={path}: the task wants the field {error}, which the rows do not have."
            ) from error


def _load(name: str, yamls: Sequence[Path]) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    try:
        return TaskManager(include_defaults=False).load([str(path) for path in yamls])["tasks"]
    except IndexError as error:  # lm-eval looks at the first document
        raise DataError(
            f"Task {name!r} has no documents: its data is empty, or its own filtering left none ({first_line(error)})."
        ) from error


def _derived(folder: Path, task: str, yaml: Path, files: Mapping[str, Path]) -> Path:
    """A YAML that includes the task's own and takes its rows from ``files``."""
    kwargs = {
        "task_name": task,
        "files": {split: str(file.resolve()) for split, file in files.items()},
    }
    lines = [
        f"include: {json.dumps(str(yaml.resolve()))}",
        "custom_dataset: !function editbench.eval.standard_tasks.splits",
    ]
    lines.append(f"dataset_kwargs: {json.dumps(kwargs)}")
    if "train" not in files:
        lines += ["training_split: null", "fewshot_split: null", "num_fewshot: 0"]
    path = folder / f"{task}.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _members(group: str, path: Path, unpacked: Path) -> dict[str, tuple[Path, dict[str, Path]]]:
    """Task to its YAML and file, for all tasks of ``group``, which are looked up in the folder or zip ``path``."""
    folder, task, file = GROUPS[group]
    if path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpacked)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"--task-data {group}={path}: wants a folder or a zip with {file.format('SUBJECT')}."
            ) from error
    there = {
        one.name: one for one in (unpacked if path.is_file() else path).rglob("*") if one.is_file()
    }
    root = _lm_eval()
    assert root is not None
    yamls = {
        one.stem.removeprefix(f"{group}_"): one
        for one in sorted((root / folder).glob("[!_]*.yaml"))
    }
    if missing := [file.format(subject) for subject in yamls if file.format(subject) not in there]:
        raise DataError(
            f"--task-data {group}={path}: lacks {len(missing)} of {len(yamls)} files, such as {missing[0]}."
        )
    return {
        task.format(subject): (yaml, {"asked": there[file.format(subject)]})
        for subject, yaml in yamls.items()
    }


def _check_graders(name: str) -> None:
    missing = [package for package in GRADERS.get(name, ()) if find_spec(package) is None]
    if missing:
        raise OptionError(
            f"Task {name!r} grades with {', '.join(missing)}, not installed here. Run: pip install 'lm_eval[{name}]'"
        )
    if name == "ifeval":
        import langdetect
        import nltk

        langdetect.DetectorFactory.seed = 0  # it guesses at random otherwise
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError as error:
            raise OptionError(
                "Task 'ifeval' grades with NLTK's punkt_tab. Run: python -m nltk.downloader punkt_tab. Offline: the wheel "
                "llama-index-core carries it; point NLTK_DATA to its folder llama_index/core/_static/nltk_cache."
            ) from error


class _Splits(dict):
    """Splits by name; whichever split a task asks (``test``, ``validation``), it gets the file given."""

    def __missing__(self, split: str) -> Any:
        return self["asked"]


def splits(task_name: str, files: Mapping[str, str], **_: Any) -> _Splits:
    """Called by lm-eval for the data of a task: its rows in the hub's form."""
    from datasets import Dataset

    return _Splits(
        {split: Dataset.from_list(hub_rows(task_name, Path(file))) for split, file in files.items()}
    )


def data_files(name: str, path: Path) -> list[Path]:
    """All files that ``--task-data name=path`` may be read from."""
    return (
        sorted(one for one in path.rglob("*") if one.is_file())
        if path.is_dir()
        else files_of(name, path)
    )


def _files(path: Path) -> dict[str, Path]:
    """``{"asked": file, "train": file}`` out of a file or a folder."""
    if path.is_file():
        return {"asked": path}
    endings = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".csv")
    found = {}
    for split, stems in (("asked", ("test", "validation", "val")), ("train", ("train",))):
        candidates = [path / f"{stem}{ending}" for stem in stems for ending in endings]
        if present := [c for c in candidates if c.is_file()]:
            found[split] = present[0]
    if "asked" not in found:
        raise DataError(
            f"{path}: a folder for --task-data holds test.jsonl (or validation.jsonl) and, for examples, train.jsonl."
        )
    return found


@contextmanager
def in_plain_words(name: str) -> Iterator[None]:
    """What is wrong inside a YAML of the user's, which lm-eval meets with errors of any kind, in one sentence that names it."""
    import jinja2
    import yaml

    try:
        yield
    except (
        ImportError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        yaml.YAMLError,
        jinja2.TemplateError,
    ) as error:
        if not is_path(name):
            raise
        raise DataError(
            f"Task file {name}: lm-eval cannot ask it ({type(error).__name__}: {first_line(error)})."
        ) from error


def _dataset(yaml: Path | None) -> str:
    """The dataset that a task's YAML names, as well as can be told without resolving it."""
    named = (
        re.search(r"^dataset_path:\s*(\S+)", yaml.read_text(encoding="utf-8"), re.MULTILINE)
        if yaml
        else None
    )
    return named.group(1) if named else "named in its lm-eval YAML"
