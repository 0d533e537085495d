"""Load lm-eval tasks other than the bundled ones: its own by name, yours by the path of a YAML.

Their data come from the hub or from a file.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from editbench.errors import DataError, EditbenchError, OptionError
from editbench.eval.task_rows import (
    MISTAKES,
    check_types,
    files_of,
    first_line,
    form,
    hub_rows,
    lm_eval_tasks,
)
from editbench.hub import offline_if_unreachable

if TYPE_CHECKING:
    from datasets import Dataset
    from lm_eval.tasks import TaskManager

CHAT = ("ifeval",)
"""lm-eval tasks that speak to an assistant. They are asked through the chat template, as with
lm-eval's ``--apply_chat_template``. Bundled task files and yours ask for it with
``metadata: {chat: true}``."""
GROUPS = {
    "blimp": ("blimp", "blimp_{}", "{}.jsonl"),
    "mmlu": ("mmlu/default", "mmlu_{}", "{}_test.csv"),
}
"""Groups whose data can be a folder or a zip -> lm-eval's folder of their tasks, and the patterns
for the name of a task and of its file, with the subject in place of {}."""
WITHOUT_EXAMPLES = "without_examples"
"""Key of ``dataset_kwargs`` in the YAML that ``_derived`` writes: the task's own YAML has examples
in its prompts, and these have none, because there was no training split to take them from."""
GRADERS = {"ifeval": ("langdetect", "immutabledict", "nltk")}
"""Task -> packages that lm-eval grades it with but does not install."""
PACK = Path(__file__).parent / "tasks"
"""The bundled tasks, ``eb_*``, and this project's tasks that need a file."""

Doc = Mapping[str, object]
"""One document of a task."""


class Config(Protocol):
    """The part of lm-eval's ``TaskConfig`` that is used here."""

    metadata: Mapping[str, object] | None
    dataset_kwargs: Mapping[str, object] | None
    generation_kwargs: Mapping[str, int] | None
    repeats: int | None
    process_results: object | None
    """The task's own grader, if it has one."""
    doc_to_choice: object | None


class Filter(Protocol):
    """A chain of lm-eval's filters."""

    name: str

    def apply(self, instances: Sequence[object]) -> None: ...


class Task(Protocol):
    """The part of lm-eval's ``Task`` that is used here; lm-eval has no type information."""

    OUTPUT_TYPE: str
    config: Config
    features: Sequence[str]
    """Fields of its documents."""
    multiple_input: object
    multiple_target: object
    _filters: Sequence[Filter]

    @property
    def eval_docs(self) -> Sequence[Doc]: ...

    def get_config(self, key: str) -> object: ...

    def set_config(self, key: str, value: object) -> None: ...

    def fewshot_docs(self) -> Iterable[Doc]: ...

    def set_fewshot_seed(self, seed: int) -> None: ...

    def higher_is_better(self) -> Mapping[str, bool]: ...

    def process_results(self, doc: Doc, results: Sequence[object]) -> Mapping[str, float]: ...

    def doc_to_text(self, doc: Doc) -> int | str: ...

    def doc_to_choice(self, doc: Doc) -> Sequence[str]: ...

    def doc_to_target(self, doc: Doc) -> int | str: ...


@cache
def find(name: str) -> Path | None:
    """Return the YAML of a task without importing lm-eval; ``None`` if that is not possible.

    Finds a path, a bundled task, and a task of lm-eval whose file has the task's name.
    """
    if is_path(name):
        return Path(name)
    if name.isidentifier() and (PACK / f"{name}.yaml").is_file():
        return PACK / f"{name}.yaml"
    if not re.fullmatch(r"[\w.+-]+", name):
        return None
    # Reading the whole index takes ten seconds, so look for a file of that name first. The file may
    # define another task, or be a part that others include.
    for path in _task_files().get(f"{name}.yaml", ()):
        if re.search(
            rf"^[\"']?task[\"']?:\s*[\"']?{re.escape(name)}[\"']?\s*$",
            path.read_text(encoding="utf-8"),
            re.MULTILINE,
        ):
            return path
    return None


@cache
def _task_files() -> dict[str, list[Path]]:
    """Return the files of lm-eval's tasks by name; to look through its 14,000 takes a second."""
    root, files = lm_eval_tasks(), defaultdict(list)
    for path in sorted(root.rglob("*.yaml")) if root else ():
        files[path.name].append(path)
    return dict(files)


def is_path(name: str) -> bool:
    """Whether ``name`` is the path of a YAML file rather than a task's name."""
    return name.endswith((".yaml", ".yml"))


@cache
def _manager() -> TaskManager:
    # Reads 14,000 files in ten seconds, so it is called only for names that ``find`` does not know.
    from lm_eval.tasks import TaskManager

    return TaskManager()


def all_names() -> list[str]:
    """Return every task, group and tag of lm-eval."""
    names: list[str] = _manager().all_tasks
    return names


def yaml_files(path: Path) -> list[Path]:
    """Return ``path`` and the files that it names: included YAML, Python modules, data.

    Raises:
        DataError: if ``path`` or an included file cannot be read as YAML; names the line.
    """
    files: dict[Path, None] = {}
    todo = [path]
    while todo:
        file = todo.pop()
        content = _read_yaml(file)
        files[file] = None
        included = content.pop("include", [])
        names = included if isinstance(included, list) else [included]
        todo += [inner for name in names if (inner := file.parent / str(name)) not in files]
        # A name is relative to the YAML or, under data_files, to the working folder.
        named = [place / text for text in _texts(content) for place in (file.parent, Path())]
        files |= dict.fromkeys(inner for inner in named if inner.is_file())
    return list(files)


def _read_yaml(file: Path) -> dict[str, object]:
    """Read one task file.

    Raises:
        DataError: if it is not the YAML of a task.
    """
    import yaml

    # A class of its own, since add_constructor changes the class that it is called on.
    class Loader(yaml.SafeLoader):
        """Reads ``!function checks.load`` as the file ``checks.py``."""

    Loader.add_constructor(
        "!function", lambda _, node: node.value.rpartition(".")[0].replace(".", "/") + ".py"
    )
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read task file {file} ({first_line(error)}).") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", first_line(error))
        raise DataError(f"Task file {file}{where}: not YAML ({problem}).") from error
    if not isinstance(content, dict):
        raise DataError(
            f"Task file {file} is not an lm-eval task: expected a mapping with 'task: NAME' and "
            "what is asked."
        )
    return content


def _texts(value: object) -> Iterator[str]:
    """Yield the strings in a YAML's values that are short enough to be file names."""
    if isinstance(value, str):
        if len(value) < 200 and value.isprintable():
            yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def from_hub(name: str) -> dict[str, Task]:
    """Return the tasks of ``name`` with data from the hub, its cache, or the place in their YAML.

    Raises:
        DataError: if the data do not exist or the hub cannot be reached; names the file or the
            dataset, and ``--task-data``.
        OptionError: if a package that grades the answers is not installed.
    """
    _check_graders(name)
    _check_no_group(name)
    path, known = find(name), form(name)
    if path is not None and path.parent == PACK:
        assert known is not None
        raise DataError(
            f"Task {name!r} has no data of its own. Pass {known.dataset}: --task-data {name}=PATH."
        )
    try:
        with offline_if_unreachable():
            if path is None:
                tasks: dict[str, Task] = _manager().load([name])["tasks"]
                return tasks
            return _load(name, [path])
    except (OSError, ConnectionError) as error:
        raise DataError(_without_data(name, path, error)) from error


def _without_data(name: str, path: Path | None, error: Exception) -> str:
    """Say why a task has no data, and what to pass instead."""
    # The message of the package datasets if a file under data_files does not exist.
    missing = re.search(r"Unable to find '([^']+)'", str(error))
    if is_path(name) and missing and "://" not in missing[1]:
        return (
            f"Task file {name}: its data file {missing[1]} does not exist. Correct the path under "
            "data_files (a relative path starts at the folder that editbench runs in), or pass the "
            f"data: --task-data {name}=PATH."
        )
    known = form(name)
    dataset = known.dataset if known else _dataset(path)
    fields = (
        f"JSON lines with {known.fields}."
        if known
        else "JSON lines, CSV or parquet with the dataset's fields."
    )
    return (
        f"Task {name!r} needs the dataset {dataset}, which is neither on this machine nor "
        f"available from the Hugging Face Hub ({first_line(error)}). Pass it as a file: "
        f"--task-data {name}=PATH. Expected: {fields}"
    )


def from_file(name: str, path: Path) -> dict[str, Task]:
    """Return the tasks of ``name`` with documents from ``path``.

    Args:
        path: a file with the documents to ask, or a folder with ``test.*`` (or ``validation.*``)
            and ``train.*``. Without a training split the prompts have no examples. For a group in
            ``GROUPS``, a folder or a zip.

    Raises:
        DataError: if the file cannot be read or lacks a field, if ``name`` is a group that is not
            in ``GROUPS`` and whose tasks read several data sets, or if a task reads its data by its
            own code.
        OptionError: if a package that grades the answers is not installed.
    """
    from jinja2 import TemplateError

    _check_graders(name)
    _check_no_group(name)
    with tempfile.TemporaryDirectory() as work:
        if name in GROUPS:
            members = _members(name, path, Path(work) / "unpacked")
        else:
            files = _files(path)
            members = {task: (yaml, files) for task, yaml in _yamls(name, path).items()}
        derived = [_derived(Path(work), member, *source) for member, source in members.items()]
        try:
            return _load(name, derived)
        except (*MISTAKES, TemplateError) as error:
            missing = isinstance(error, KeyError) and str(error).strip("'").isidentifier()
            raise DataError(
                f"--task-data {name}={path}: "
                + (
                    f"the task reads the field {error}, which the rows do not have. Rename the "
                    "field in the file, or add it."
                    if missing
                    else f"lm-eval cannot read its rows ({type(error).__name__}: "
                    f"{first_line(error)}). Correct the file."
                )
            ) from error


def load_yamls(paths: Sequence[Path]) -> dict[str, Task]:
    """Return the tasks of YAML files, without reading lm-eval's own index."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    tasks: dict[str, Task] = manager.load([str(path) for path in paths])["tasks"]
    return tasks


def _load(name: str, yamls: Sequence[Path]) -> dict[str, Task]:
    try:
        return load_yamls(yamls)
    except IndexError as error:  # lm-eval looks at the first document while loading
        if "out of bounds" not in str(error):  # what the package datasets says of an empty table
            raise DataError(
                f"Task {name!r} cannot be scored: in document 1, the target is beyond the choices, "
                "or a choice is empty. Correct its data, or leave the task out."
            ) from error
        raise DataError(
            f"Task {name!r} has no documents: its data are empty, or its own filter removes them "
            f"all ({first_line(error)})."
        ) from error


def _derived(folder: Path, task: str, yaml: Path, files: Mapping[str, Path]) -> Path:
    """Write a YAML that includes the task's own YAML and takes its rows from ``files``.

    Everything but the rows (prompt, choices, filters) stays lm-eval's. So do the examples in the
    prompts where the YAML holds them itself, or where ``files`` has a training split.

    Raises:
        DataError: if the task is a class of its own, which reads its data by its own code.
    """
    content = _merged(yaml)
    if "class" in content:
        raise DataError(
            f"Task {task!r} reads its data by its own code, so a file cannot take their place. "
            "Leave out its --task-data, and let it fetch them."
        )
    own_examples = (content.get("fewshot_config") or {}).get("samples")
    examples = (content.get("num_fewshot") or 0) and not own_examples
    kwargs = {
        # A task file of the user's may have the name of a known task, and other fields.
        "task_name": task if yaml.parent == PACK or _is_known(task, content) else "",
        "files": {split: str(file.resolve()) for split, file in files.items()},
        **({WITHOUT_EXAMPLES: True} if examples and "train" not in files else {}),
    }
    lines = [
        f"include: {json.dumps(str(yaml.resolve()))}",
        "custom_dataset: !function editbench.eval.standard_tasks.splits",
        f"dataset_kwargs: {json.dumps(kwargs)}",
    ]
    if "train" not in files:
        lines += ["training_split: null", "fewshot_split: null"]
        lines += [] if own_examples else ["num_fewshot: 0"]
    elif examples:
        lines += ["fewshot_split: train"]  # not the asked documents in place of another split
    path = folder / f"{task}.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _merged(yaml: Path) -> dict[str, Any]:
    """Return the content of a task's YAML with what it includes; functions stay names."""
    from lm_eval.tasks._yaml_loader import load_yaml

    content: dict[str, Any] = load_yaml(yaml, resolve_func=False)
    return content


def _is_known(task: str, content: Mapping[str, object]) -> bool:
    """Whether the YAML of ``task`` reads the dataset of the task's form in ``task_rows``."""
    known = form(task)
    return known is not None and known.dataset.startswith(str(content.get("dataset_path")))


def _yamls(name: str, path: Path) -> dict[str, Path]:
    """Return the YAML of a task, or those of a group whose tasks read parts of one dataset.

    Raises:
        DataError: if the tasks of a group read several datasets, or are not all files.
    """
    if found := find(name):
        return {Path(name).stem if is_path(name) else name: found}
    entries = list(_leaves(name))
    datasets = {
        entry and (entry.cfg.get("dataset_path"), entry.cfg.get("dataset_name"))
        for entry in entries
    }
    if len(datasets) != 1 or None in datasets:
        raise DataError(
            f"--task-data {name}={path}: {name!r} is a group, and one file cannot feed all its "
            "tasks. Name its tasks, and pass a file for each."
        )
    return {entry.name: entry.yaml_path for entry in entries}


def _leaves(name: str) -> Iterator[Any]:
    """Yield lm-eval's index entries of the tasks in a task, tag or group, at any depth.

    A member with settings of its own, which has no file, is ``None``.
    """
    entry = _manager().task_index.get(name)
    content = (entry and entry.cfg) or {}
    if entry is None:
        yield None
    elif "group" in content:
        for member in content.get("task") or ():
            yield from _leaves(member) if isinstance(member, str) else (None,)
    elif entry.yaml_path is None:
        for member in sorted(entry.tags):
            yield from _leaves(member)
    else:
        yield entry


def _check_no_group(name: str) -> None:
    """Check that a task file is of one task.

    Raises:
        DataError: if it is of a group. Its members may be names that only a search through other
            files would find.
    """
    if not is_path(name):
        return
    content = _read_yaml(Path(name))
    members = content.get("task")
    if "group" in content and isinstance(members, str):  # as lm-eval read it before 0.4.4
        raise DataError(
            f"Task file {name} has the key 'group', which makes it a group of tasks. Write 'tag' "
            "in its place."
        )
    if "group" in content or isinstance(members, list):
        listing = members if isinstance(members, list) else ()
        names = [one for one in listing if isinstance(one, str)]
        listed = f" ({', '.join(names[:5])}{', ...' * (len(names) > 5)})" if names else ""
        raise DataError(
            f"Task file {name} is a group of tasks{listed}. Name its tasks in --tasks instead, "
            "each by lm-eval's name or by the path of its own file."
        )


def _members(group: str, path: Path, unpacked: Path) -> dict[str, tuple[Path, dict[str, Path]]]:
    """Return the YAML and the data file of each task of ``group``.

    Args:
        path: the folder or zip with the data files.
        unpacked: where a zip is unpacked to.
    """
    folder, task, file = GROUPS[group]
    if path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpacked)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"--task-data {group}={path}: expected a folder or a zip with "
                f"{file.format('SUBJECT')} ({first_line(error)})."
            ) from error
    source = unpacked if path.is_file() else path
    available = {inner.name: inner for inner in source.rglob("*") if inner.is_file()}
    root = lm_eval_tasks()
    assert root is not None
    yamls = {
        yaml.stem.removeprefix(f"{group}_"): yaml
        for yaml in sorted((root / folder).glob("[!_]*.yaml"))
    }
    missing = [name for subject in yamls if (name := file.format(subject)) not in available]
    if missing:
        raise DataError(
            f"--task-data {group}={path}: lacks {len(missing)} of {len(yamls)} files, such as "
            f"{missing[0]}. Add them."
        )
    return {
        task.format(subject): (yaml, {"asked": available[file.format(subject)]})
        for subject, yaml in yamls.items()
    }


def _check_graders(name: str) -> None:
    """Check that the packages that grade a task are installed.

    Raises:
        OptionError: if one of them, or NLTK's data, is missing.
    """
    missing = [package for package in GRADERS.get(name, ()) if find_spec(package) is None]
    if missing:
        raise OptionError(
            f"Task {name!r} grades with {', '.join(missing)}, which is not installed. "
            f'Run: pip install "lm_eval[{name}]"'
        )
    if name == "ifeval":
        import langdetect
        import nltk

        langdetect.DetectorFactory.seed = 0  # its guesses are random unless seeded
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError as error:
            raise OptionError(
                "Task 'ifeval' grades with NLTK's punkt_tab, which is not installed. "
                "Run: python -m nltk.downloader punkt_tab. Offline, install the wheel "
                "llama-index-core, which contains it, and set NLTK_DATA to its folder "
                "llama_index/core/_static/nltk_cache."
            ) from error


class _Splits(dict[str, "Dataset"]):
    """Splits by name. Whichever split a task asks for (test, validation), it gets the file."""

    def __missing__(self, split: str) -> Dataset:
        return self["asked"]


def splits(task_name: str, files: Mapping[str, str], **_: object) -> _Splits:
    """Return the rows of a task in the hub's form. The YAML of ``_derived`` names this function."""
    from datasets import Dataset

    found = _Splits()
    for split, file in files.items():
        rows = hub_rows(task_name, Path(file))
        try:
            found[split] = Dataset.from_list(rows)
        except (ValueError, TypeError, OverflowError):  # of pyarrow; it names no row
            check_types(Path(file), rows)
            raise
    return found


def data_files(name: str, path: Path) -> list[Path]:
    """Return all files that ``--task-data name=path`` may read."""
    if path.is_dir():
        return sorted(inner for inner in path.rglob("*") if inner.is_file())
    return files_of(name, path)


def _files(path: Path) -> dict[str, Path]:
    """Return ``{"asked": file, "train": file}`` for a file or a folder; train is optional.

    Raises:
        DataError: if a folder has no file to ask.
    """
    if path.is_file():
        return {"asked": path}
    endings = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".csv")
    files = {}
    for split, stems in (("asked", ("test", "validation", "val")), ("train", ("train",))):
        candidates = [path / f"{stem}{ending}" for stem in stems for ending in endings]
        if present := [c for c in candidates if c.is_file()]:
            files[split] = present[0]
    if "asked" not in files:
        raise DataError(
            f"{path}: expected test.jsonl (or validation.jsonl) in the folder and, for the "
            "examples in the prompts, train.jsonl."
        )
    return files


@contextmanager
def in_plain_words(name: str) -> Iterator[None]:
    """Turn what lm-eval, its libraries or the code of a task raise into one sentence.

    A task is a program of somebody else's, so this may be any exception.

    Raises:
        DataError: if the block raises one. Errors of editbench pass unchanged.
    """
    try:
        yield
    except EditbenchError:
        raise
    except (Exception, SystemExit) as error:
        what = f"Task file {name}" if is_path(name) else f"Task {name!r}"
        raise DataError(f"{what}: lm-eval cannot ask it ({_why(error)}).") from error


def _why(error: BaseException) -> str:
    from datasets.exceptions import DatasetGenerationError

    # This one says only that there was an error.
    while isinstance(error, DatasetGenerationError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, StopIteration):
        return "it has no documents"
    if isinstance(error, KeyError) and error.args == (None,):
        return "it names a metric that lm-eval does not have and cannot load"
    if isinstance(error, KeyError) and str(error).strip("'").isidentifier():
        return f"it looks up {error}, and its data have no split or field of that name"
    return f"{type(error).__name__}: {first_line(error)}"


def _dataset(yaml: Path | None) -> str:
    """Return the dataset that a task's YAML names, as far as its text shows it."""
    named = (
        re.search(r"^dataset_path:\s*(\S+)", yaml.read_text(encoding="utf-8"), re.MULTILINE)
        if yaml
        else None
    )
    return named.group(1) if named else "named in its lm-eval YAML"
