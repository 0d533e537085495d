"""What somebody made elsewhere, as a row of a run.

To a run an artifact is a method whose injection is to read it, whatever the facts are. Everything
after that is shared with the methods: applying and reverting, the probes, the tasks, the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from editbench import artifacts
from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.models import LanguageModel
from editbench.plugin import Method
from editbench.records.schema import ArtifactRecord
from editbench.types import Fact, digest


@dataclass(frozen=True)
class Artifact(Method):
    """The edit in a folder. Nobody knows the facts that it was made for."""

    name: ClassVar[str] = "artifact"
    kind: ClassVar[str] = "artifact"

    path: str = ""
    """Its folder."""

    def __post_init__(self) -> None:
        """Check that there is an artifact.

        Raises:
            ModelError: as ``artifacts.kind_of``.
        """
        super().__post_init__()
        artifacts.kind_of(Path(self.path))

    def check(self, model: LanguageModel, facts: Sequence[Fact]) -> ArtifactRecord:
        """Return what the record of the row says of the artifact, which fits ``model``.

        Args:
            facts: the facts that will be asked.

        Raises:
            ModelError: it does not fit, or cannot be read (``artifacts.read``).
        """
        reading = artifacts.read(Path(self.path), model)
        record: ArtifactRecord = {
            "path": self.path,
            "content": self._content,
            "kind": reading.kind,
            "base": reading.base,
            "checked": reading.checked,
        }
        # Only a saved edit says what it was made for.
        made_for = {(fact.prompt, fact.target) for fact in reading.edit.facts}
        if made_for and facts:
            record["taught"] = sum((fact.prompt, fact.target) in made_for for fact in facts)
            record["asked"] = len(facts)
        return record

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Return the artifact as an edit of ``model``. ``facts`` do not matter.

        Raises:
            ModelError: as ``check``.
            MethodError: a file was changed since the run was planned.
        """
        edit = artifacts.read(Path(self.path), model).edit
        if artifacts.contents(Path(self.path)) != self._files:
            raise MethodError(f"{self.path} was changed while the run was under way. Run again.")
        return replace(edit, options=self.options())

    def options(self) -> dict[str, object]:
        """Return the path and the hash of the contents, by which two artifacts differ."""
        return {"path": self.path, "content": self._content}

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of the files of the artifact."""
        return self._files

    @cached_property
    def _files(self) -> dict[str, str]:
        return artifacts.contents(Path(self.path))

    @cached_property
    def _content(self) -> str:
        return digest(sorted((Path(file).name, sha) for file, sha in self._files.items()))[:16]


def artifacts_of(methods: Mapping[str, Method]) -> dict[str, Artifact]:
    """Return the rows that are artifacts."""
    return {name: method for name, method in methods.items() if isinstance(method, Artifact)}
