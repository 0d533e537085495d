"""Two methods as one: ``memit+mixsd`` gives the surgical facts to the first, the others to the second, and makes one edit.

Surgical is a fact that one vector at its subject can carry: a given subject that stands once in the prompt, no worked
demonstration, a target of at most ``SURGICAL_WORDS`` words. Facts about one subject have nearly one key, which can hardly have
several values (``methods/_editor.py``), so those that want another target than the subject's first surgical one are not. The
second method works on the model that the first has edited, so that it neither learns nor forgets past it; the changes of both
are added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from editbench.errors import MethodError, OptionError
from editbench.plugin import Method
from editbench.types import Fact

if TYPE_CHECKING:
    from editbench.edit import Edit
    from editbench.models import LanguageModel

SURGICAL_WORDS = 4


def is_surgical(fact: Fact) -> bool:
    return (
        fact.subject is not None
        and fact.prompt.count(fact.subject) == 1
        and fact.demonstration is None
        and len(fact.target.split()) <= SURGICAL_WORDS
    )


def divide(facts: Sequence[Fact]) -> tuple[list[Fact], list[Fact]]:
    """Those that one vector each can carry, one target a subject, and the others; both in their order."""
    surgical, bulk, values = [], [], {}
    for fact in facts:
        fits = is_surgical(fact) and values.setdefault(fact.subject, fact.target) == fact.target
        (surgical if fits else bulk).append(fact)
    return surgical, bulk


@dataclass(frozen=True)
class Composed(Method):
    """The base of what ``compose`` makes."""

    summary: ClassVar[str] = "the surgical facts by one method, the others by another"
    version: ClassVar[int] = 2
    parts: ClassVar[tuple[tuple[str, type[Method]], ...]] = ()

    methods: tuple[Method, ...] = ()

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Method:
        """Options are written PART.KEY (``memit.lam``); ``seed`` is for both."""
        mine: dict[str, dict[str, Any]] = {part: {} for part, _ in cls.parts}
        for key, value in options.items():
            part, dot, option = key.partition(".")
            if key == "seed":
                for one in mine.values():
                    one.setdefault("seed", value)
            elif not dot or part not in mine:
                raise OptionError(
                    f"Method {name!r} has no option {key!r}. Write PART.KEY, with PART one of {', '.join(mine)}."
                )
            else:
                mine[part][option] = value
        built = tuple(method.from_options(part, mine[part]) for part, method in cls.parts)
        return cls(seed=built[0].seed, methods=built)

    def options(self) -> dict[str, Any]:
        return {
            f"{one.name}.{key}": value
            for one in self.methods
            for key, value in one.options().items()
        }

    def sources(self) -> dict[str, str]:
        return {path: sha for one in self.methods for path, sha in one.sources().items()}

    def prepare(self, model: LanguageModel) -> None:
        for one in self.methods:
            one.prepare(model)

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        from editbench.edit import joined, summed

        first, second = self.methods
        surgical, bulk = divide(facts)
        one = first.inject(model, surgical)
        with one.applied(model):
            other = second.inject(model, bulk)
        for edit in (one, other):  # compose() knows the built-in ones; a plugin's may turn out so
            if edit.context is not None:
                raise MethodError(
                    f"{edit.method} changes no weights, so it cannot be a part of {self.name}."
                )
        idle = [
            f"All {len(facts)} facts went to {busy.name}: {left.name} did nothing."
            for given, left, busy in ((surgical, first, second), (bulk, second, first))
            if facts and not given
        ]
        changes = {**one.changes, **other.changes}
        for name in set(one.changes) & set(other.changes):
            changes[name] = summed(one.changes[name], other.changes[name])
        return self.edit(
            model,
            facts,
            changes,
            keys=joined(one.keys, other.keys),
            diagnostics={
                "facts_by_method": {first.name: len(surgical), second.name: len(bulk)},
                first.name: dict(one.diagnostics),
                second.name: dict(other.diagnostics),
                "warnings": idle
                + [w for edit in (one, other) for w in edit.diagnostics.get("warnings", ())],
            },
            records=[
                {"part": edit.method, **record} for edit in (one, other) for record in edit.records
            ],
        )


def compose(name: str, parts: Sequence[tuple[str, type[Method]]]) -> type[Composed]:
    """The method called ``name`` made of two others.

    Raises:
        OptionError: not two different ones, or one that changes no weights.
    """
    if len(parts) != 2 or parts[0][0] == parts[1][0]:
        raise OptionError(
            f"{name!r} is no pair of methods. Write two different ones, as in memit+mixsd."
        )
    for part, method in parts:
        if method.kind == "baseline":
            raise OptionError(f"{part} changes no weights, so it cannot be a part of {name}.")
    about = {
        "name": name,
        "parts": tuple(parts),
        "version": sum(
            one.version << (8 * i)
            for i, one in enumerate((*(method for _, method in parts), Composed))
        ),
        "needs_subject": False,
        "needs_covariance": any(method.needs_covariance for _, method in parts),
        "__doc__": Composed.__doc__,
    }
    return type(name, (Composed,), about)
