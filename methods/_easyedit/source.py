"""Find the user's EasyEdit, and say what an algorithm of it lacks, without importing any of it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from editbench.errors import OptionError
from editbench.methods._easyedit.algorithm import Algorithm
from editbench.methods._easyedit.algorithms import ALGORITHMS

VARIABLE = "EDITBENCH_EASYEDIT"
"""Environment variable that names a checkout."""
INSTALL = (
    "Name a checkout of github.com/zjunlp/EasyEdit by the environment variable EDITBENCH_EASYEDIT "
    "or the option source, or install the package: pip install --no-deps easyeditor."
)
EXTERNAL = frozenset({"torch", "transformers", "peft", "datasets", "numpy", "yaml", "tqdm"})
"""Packages that editbench requires itself."""


@dataclass(frozen=True)
class Source:
    """An EasyEdit on this machine."""

    package: Path
    """The folder ``easyeditor``."""

    def folder(self, algorithm: Algorithm) -> Path:
        """Return the folder of ``algorithm``."""
        return self.package / "models" / algorithm.package

    def missing(self, algorithm: Algorithm) -> str | None:
        """Return what ``algorithm`` lacks here, in one sentence; ``None`` if it can run."""
        if not hasattr(os, "fork"):
            return "EasyEdit's algorithms run in forks of a process, which Windows does not have."
        if not (self.folder(algorithm) / "__init__.py").is_file():
            return f"The EasyEdit in {self.package.parent} does not have this algorithm."
        if algorithm.base and (why := self.missing(ALGORITHMS[algorithm.base])):
            return why
        # Its ROME imports matplotlib, and nearly all import its ROME.
        for name in sorted({"matplotlib", *_imported(self.folder(algorithm))}):
            if name not in algorithm.unused and importlib.util.find_spec(name) is None:
                return f"It needs the package {name}, which is not installed."
        return None

    def digest(self, algorithm: Algorithm) -> str:
        """Return a SHA-256 of the code of ``algorithm`` and of what all of them share."""
        shared = ("util", "models/rome", "trainer/algs/malmen")
        folders = [self.folder(algorithm), *(self.package / name for name in shared)]
        sha = hashlib.sha256()
        for folder in folders:
            for file in sorted(folder.glob("*.py")):
                sha.update(f"{file.relative_to(self.package).as_posix()}\n".encode())
                sha.update(file.read_bytes())
        return sha.hexdigest()


def find(path: str | None) -> Source:
    """Return the EasyEdit at ``path``, that of the environment, or the installed package.

    Raises:
        OptionError: there is none, or the folder holds none.
    """
    named = path or os.environ.get(VARIABLE)
    if not named:
        spec = importlib.util.find_spec("easyeditor")  # finds the package, and does not run it
        if spec is None or not spec.submodule_search_locations:
            raise OptionError(f"There is no EasyEdit on this machine. {INSTALL}")
        return Source(Path(spec.submodule_search_locations[0]))
    folder = Path(named).expanduser().resolve()
    package = folder if folder.name == "easyeditor" else folder / "easyeditor"
    if not (package / "models" / "rome" / "rome_main.py").is_file():
        origin = "source" if path else VARIABLE
        raise OptionError(f"{origin}={named} is no EasyEdit: {package}/models/rome is missing.")
    return Source(package)


def hparams_fields(source: Source, algorithm: Algorithm) -> dict[str, bool]:
    """Return the fields of the hyper-parameters of ``algorithm`` -> whether they have a default.

    Raises:
        OptionError: the class is not there.
    """
    for tree in _trees(source.folder(algorithm)):
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == algorithm.hparams:
                return {
                    line.target.id: line.value is not None
                    for line in node.body
                    if isinstance(line, ast.AnnAssign)
                    and isinstance(line.target, ast.Name)
                    and not line.target.id.startswith("_")
                }
    raise OptionError(
        f"The EasyEdit in {source.package.parent} has no class {algorithm.hparams}, so it is "
        "another version than those that this works with (the package of 2023, and 14cea82)."
    )


@lru_cache(maxsize=64)
def _imported(folder: Path) -> frozenset[str]:
    """Return the packages that the files of ``folder`` import, but for those of editbench."""
    names: set[str] = set()
    for tree in _trees(folder):
        for node in tree.body:  # imports inside functions may never run
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    return frozenset(names - EXTERNAL)


def _trees(folder: Path) -> Iterator[ast.Module]:
    for file in sorted(folder.glob("*.py")):
        yield ast.parse(file.read_text(encoding="utf-8", errors="replace"))
