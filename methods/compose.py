"""Two methods as one: ``memit+mixsd`` gives the surgical facts to memit, the others to mixsd.

A fact is surgical if one vector at its subject can carry it (``surgical.is_surgical``): it has a
subject that occurs once in the prompt, no worked demonstration, and a short target. Facts about one
subject have nearly the same key, which can hardly have several values (``_edit/batch.py``). So
a fact whose target differs from that of the first surgical fact of its subject is not surgical.

The second method works on the model that the first has edited, so it neither learns known facts
again nor forgets them. The changes of both are added up to one edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from editbench.errors import MethodError, OptionError
from editbench.memory import Memory, Phase, Texts
from editbench.plugin import Method
from editbench.report import EditRecord, Figure
from editbench.surgical import divide
from editbench.types import Fact

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel
    from editbench.outline import Outline
    from editbench.pace import Work


@dataclass(frozen=True)
class Composed(Method):
    """The base class of the pairs that ``compose`` makes."""

    summary: ClassVar[str] = "the surgical facts by one method, the others by another"
    version: ClassVar[int] = 2
    parts: ClassVar[tuple[tuple[str, type[Method]], ...]] = ()
    """Name and class of both methods."""

    methods: tuple[Method, ...] = ()
    """Both methods with their options."""

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        """Return the pair with ``options``, named PART.KEY (``memit.lam``); ``seed`` sets both.

        Raises:
            OptionError: if an option names neither part, or its part rejects it.
        """
        by_part: dict[str, dict[str, object]] = {part: {} for part, _ in cls.parts}
        for key, value in options.items():
            part, dot, option = key.partition(".")
            if key == "seed":
                for part_options in by_part.values():
                    # setdefault: PART.seed wins over seed, whichever comes first.
                    part_options.setdefault("seed", value)
            elif not dot or part not in by_part:
                raise OptionError(
                    f"Method {name!r} has no option {key!r}. Write PART.KEY, with PART one of "
                    f"{', '.join(by_part)}."
                )
            else:
                by_part[part][option] = value
        methods = tuple(method.from_options(part, by_part[part]) for part, method in cls.parts)
        return cls(seed=methods[0].seed, methods=methods)

    def options(self) -> dict[str, object]:
        """Return the options of both methods, named PART.KEY."""
        return {
            f"{method.name}.{key}": value
            for method in self.methods
            for key, value in method.options().items()
        }

    def left_out(self) -> list[str]:
        """Return the options of both methods that a cell's key leaves out, named PART.KEY."""
        return [f"{method.name}.{key}" for method in self.methods for key in method.left_out()]

    def sources(self) -> dict[str, str]:
        """Return the files that the options of both methods name, with their hashes."""
        return {path: sha for method in self.methods for path, sha in method.sources().items()}

    def memory(self, model: Outline, texts: Texts) -> Memory | None:
        """Return the phases of both methods; while the second one works, the first edit is kept."""
        parts = [method.memory(model, texts) for method in self.methods]
        if None in parts:
            return None
        first, second = (part for part in parts if part is not None)
        held = {"first edit": first.edit - first.filed}
        later = [Phase(each.name, each.device, {**each.main, **held}) for each in second.phases]
        return Memory([*first.phases, *later], first.edit + second.edit, first.filed + second.filed)

    def work(self, model: Outline, texts: Texts) -> Work | None:
        """Return the work of both methods."""
        first, second = (method.work(model, texts) for method in self.methods)
        return None if first is None or second is None else first + second

    def prepare(self, model: LanguageModel) -> None:
        """Prepare both methods."""
        for method in self.methods:
            method.prepare(model)

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Return the sum of the first method's edit and the second's on top of it.

        Raises:
            MethodError: if one of them changes no weights, or its own ``inject`` raises one.
        """
        from editbench.changes import added_up, joined, summed

        first, second = self.methods
        surgical, bulk = divide(facts)
        first_edit = first.inject(model, surgical)
        with first_edit.applied(model):
            second_edit = second.inject(model, bulk)
        edits = (first_edit, second_edit)
        for edit in edits:  # compose() refuses the baselines; only a plug-in can get this far
            if edit.context is not None:
                raise MethodError(
                    f"{edit.method} changes no weights, so it cannot be a part of {self.name}."
                )
        # Both edits are differences, the second one from the edited model, so their sum is the
        # change from the base.
        changes = {**first_edit.changes, **second_edit.changes}
        for name in set(first_edit.changes) & set(second_edit.changes):
            changes[name] = summed(first_edit.changes[name], second_edit.changes[name])
        # A method may leave out a fact that it cannot teach, and says so in its warnings.
        taught = {fact.id for edit in edits for fact in edit.facts}
        warnings = self._idle(surgical, bulk)
        for edit in edits:
            warnings += edit.diagnostics.get("warnings", ())
        records: list[EditRecord] = [
            {"part": edit.method, **record} for edit in edits for record in edit.records
        ]
        return self.edit(
            model,
            [fact for fact in facts if fact.id in taught],
            changes,
            keys=joined(first_edit.keys, second_edit.keys),
            sums=added_up(first_edit.sums, second_edit.sums),
            diagnostics={
                "facts_by_method": {edit.method: len(edit.facts) for edit in edits},
                first.name: dict(first_edit.diagnostics),
                second.name: dict(second_edit.diagnostics),
                "warnings": warnings,
            },
            records=records,
        )

    def _idle(self, surgical: Sequence[Fact], bulk: Sequence[Fact]) -> list[str]:
        """Return a warning if one method got all the facts."""
        first, second = self.methods
        if surgical and bulk or not (surgical or bulk):
            return []
        busy, idle = (first, second) if surgical else (second, first)
        n = len(surgical or bulk)
        what = "The only fact" if n == 1 else f"All {n} facts"
        return [f"{what} went to {busy.name}: {idle.name} did nothing."]


def compose(name: str, parts: Sequence[tuple[str, type[Method]]]) -> type[Composed]:
    """Return the method called ``name`` that combines two others.

    Raises:
        OptionError: if ``parts`` is not two different methods, or one of them changes no weights.
    """
    if len(parts) != 2 or parts[0][0] == parts[1][0]:
        raise OptionError(
            f"{name!r} is not a pair of methods. Write two different ones, as in memit+mixsd."
        )
    for part, method in parts:
        if method.kind == "baseline" or method.live:
            raise OptionError(f"{part} changes no weights, so it cannot be a part of {name}.")
    methods = [method for _, method in parts]
    # Several versions packed into one number, eight bits each, so that raising a part's version
    # changes the keys of the pair's cells. A key leaves an engine version of 1 out: if both parts
    # are at 1, the pair must be at 1.
    versions = [*(method.version for method in methods), Composed.version]
    engines = [method.engine_version - 1 for method in methods]
    about = {
        "name": name,
        "parts": tuple(parts),
        "version": sum(version << (8 * i) for i, version in enumerate(versions)),
        "engine_version": 1 + sum(version << (8 * i) for i, version in enumerate(engines)),
        "needs_subject": False,
        "needs_covariance": any(method.needs_covariance for method in methods),
        "figures": {part: Figure(f"The report of {part}.") for part, _ in parts},
        "__doc__": Composed.__doc__,
    }
    return type(name, (Composed,), about)
