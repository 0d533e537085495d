"""The plug-in contracts on one page: ``Method``, ``Corpus`` and ``Evaluator``.

A plug-in is a class named in an entry-point group: ``editbench.methods``, ``editbench.corpora`` or
``editbench.evaluators``. A method fits in one file: a frozen dataclass derived from ``Method``,
whose fields are its options.
"""

from __future__ import annotations

import difflib
import inspect
import math
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from editbench.errors import MethodError, NoTokenError, OptionError, PluginError
from editbench.options import MAX_COUNT, check_seed, check_size, parse_option, shortened
from editbench.report import EditRecord, Figure
from editbench.types import Case, Fact

if TYPE_CHECKING:  # these import torch, which takes seconds; listing plug-ins needs no torch
    from editbench.changes import Change, Keys, Sums, Values
    from editbench.edit import Edit
    from editbench.memory import Memory, Texts
    from editbench.models import LanguageModel
    from editbench.outline import Outline
    from editbench.pace import Work
    from editbench.retrieval import Retriever


@dataclass(frozen=True)
class Uniform:
    """The values from ``low`` to ``high``; whole numbers if both ends are."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class LogUniform(Uniform):
    """The values from ``low`` to ``high`` on a logarithmic scale; ``low`` is above 0."""


@dataclass(frozen=True)
class Choice:
    """One of ``values``, which have no order."""

    values: tuple[float | str | None, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.values


Space = Mapping[str, Uniform | Choice]
"""Option name -> the values that ``editbench tune`` tries."""


@dataclass(frozen=True)
class Method(ABC):
    """A way to make facts true: facts in, edit out.

    ``inject`` keeps these promises, which ``editbench.testing.check_method`` tests:

    - It leaves the weights, hooks, ``requires_grad`` flags, train/eval mode and global random state
      of ``model`` as it found them, also when it is interrupted. It leaves no ``.grad``.
    - The same seed gives the same edit, bit for bit.
    - An empty list of facts gives an empty edit.
    """

    name: ClassVar[str] = ""
    """The name under which the method is registered."""
    kind: ClassVar[str] = "trainer"
    """``baseline``, ``trainer``, ``weight editor`` or ``EasyEdit``."""
    summary: ClassVar[str] = ""
    """One line for ``editbench list methods``."""
    paper: ClassVar[str] = ""
    """Authors, year and arXiv id of the source."""
    version: ClassVar[int] = 1
    """Raise it with every change of the algorithm that can move its numbers: it is part of a cell's
    key, so stored cells of an older version are computed again."""
    engine_version: ClassVar[int] = 1
    """Version of the engine that the method shares with others. A cell's key leaves it out while it
    is 1."""
    needs_subject: ClassVar[bool] = False
    """Whether every fact must name its subject."""
    live: ClassVar[bool] = False
    """Whether an edit is a model in a process of its own (``Edit.live``), which cannot be saved."""
    takes_offloaded: ClassVar[bool] = False
    """Whether it edits a model some of whose weights are in main memory or on the disk until a pass
    needs them (``--device-map``)."""
    over_processes: ClassVar[bool] = False
    """Whether several processes (``accelerate launch``, ``torchrun``) can share one edit."""
    needs_covariance: ClassVar[bool] = False
    """Whether ``prepare`` measures the second moments of the model's keys."""
    space: ClassVar[Space] = {}
    """The options that ``editbench tune`` searches; empty if there is nothing to tune."""
    recipes: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Recipe -> the options that it stands for, such as ``paper`` for the constants of the paper.
    The option ``recipe=NAME`` writes them out (``from_options``); a recipe does nothing else."""
    alternatives: ClassVar[Mapping[str, str]] = {}
    """Option -> the option that it replaces where it is set. A recipe leaves it unset where the
    other one is given."""
    added: ClassVar[frozenset[str]] = frozenset()
    """Options that are newer than ``version`` and change nothing by default. A cell's key leaves
    them out where they have their default, so that cells from before are found again."""
    figures: ClassVar[Mapping[str, Figure]] = {}
    """The figures that this method adds to an edit's report, by name. It may report the fields of
    ``report.EditReport`` without declaring them."""

    limits: ClassVar[Mapping[str, int]] = {}
    """Option that takes whole numbers -> the largest one. Those of a subclass are added to those of
    its bases. Without an entry here it is ``MAX_COUNT`` for an option of editbench's own methods,
    and there is none for an option that a plug-in declares."""

    seed: int = 0
    """Seed of all random choices."""

    def __post_init__(self) -> None:
        """Reject NaN and infinity. A subclass with its own checks calls this first.

        Raises:
            ValueError: if an option is NaN or infinite.
        """
        for key, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{key}={value} is not finite")

    def prepare(self, model: LanguageModel) -> None:  # noqa: B027 - most methods need none
        """Compute and cache everything that does not depend on the facts, such as the covariance.

        It is timed separately from ``inject``, which also works if it was not called.
        """

    def memory(self, model: Outline, texts: Texts) -> Memory | None:
        """Return what an injection holds beside the weights, from the model's sizes alone.

        ``None``: it is not known, so nothing is checked before a model is loaded.

        Raises:
            ModelError, MethodError: this method cannot edit such a model.
        """
        return None

    def work(self, model: Outline, texts: Texts) -> Work | None:
        """Return what ``prepare`` and ``inject`` compute at most; ``None``: it is not known.

        Raises:
            ModelError, MethodError: this method cannot edit such a model.
        """
        return None

    def lighter(self, model: Outline) -> Iterable[Mapping[str, object]]:
        """Yield options with which ``inject`` needs less memory, those that change least first."""
        return ()

    @abstractmethod
    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        """Return the edit that makes ``facts`` true in ``model``; leave ``model`` as it was."""

    def inject_each(self, model: LanguageModel, facts: Sequence[Fact]) -> Iterator[Edit]:
        """Yield, in order, an edit of each of ``facts`` alone.

        It is the one that ``inject`` makes, up to rounding. That of a fact that the tokenizer
        leaves nothing of is empty, and warns. The caller may apply an edit before it takes the next
        one, if it reverts it first. A method that finds the edits of several facts faster side by
        side than one after the other does so here.
        """
        for fact in facts:
            try:
                yield self.inject(model, [fact])
            except NoTokenError as reason:
                yield self.edit(model, [], diagnostics={"warnings": [str(reason)]})

    def inject_again(self, model: LanguageModel, facts: Sequence[Fact], edit: Edit) -> Edit:
        """Return the edit of ``facts``, which are some of those of ``edit``, by the same method.

        It is as if the other facts had never been given. A method that keeps something for each
        fact (``Edit.values``) uses it again; by default the facts are injected anew.
        """
        return self.inject(model, facts)

    def edit(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        changes: Mapping[str, Change] | None = None,
        *,
        keys: Keys | None = None,
        values: Values | None = None,
        sums: Sums | None = None,
        context: Retriever | None = None,
        diagnostics: Mapping[str, Any] | None = None,
        records: Sequence[EditRecord] = (),
        model_hash: str | None = None,
    ) -> Edit:
        """Return an ``Edit`` of ``facts`` that names this method, its options and the model.

        The other arguments are fields of ``Edit``; ``model_hash`` is computed where it is not
        given. Warnings about the model go into its diagnostics.
        """
        from editbench.edit import Edit  # imports torch, which the contracts do without

        figures = dict(diagnostics or {})
        if model.warnings:
            # once each: the parts of a composed edit have them already
            lines = [*model.warnings, *figures.get("warnings", ())]
            figures["warnings"] = list(dict.fromkeys(lines))

        return Edit(
            self.name,
            self.options(),
            model.name,
            model_hash or model.fingerprint(),
            tuple(facts),
            changes or {},
            keys or {},
            context,
            figures,
            records,
            model_dtype=model.dtype_name,
            values=values,
            sums=sums or {},
        )

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Method:
        """Return the method, registered as ``name``, with ``options``.

        Option values may be texts from a command line. ``recipe`` names one of ``recipes`` and
        stands for its options; those given besides win. The method itself knows only the options.

        Raises:
            OptionError: if an option or recipe is unknown, or a value has the wrong type or is out
                of range.
            PluginError: if the class declares options that are none (``lost_options``).
        """
        if lost := cls.lost_options():
            raise PluginError(f"Method {name!r} cannot be used: {lost}.")
        given = cls._written_out(name, _by_field(name, options))
        own = {field.name for field in fields(cls)}
        known = sorted(own | {"recipe"} if cls.recipes else own)
        for key in given:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise OptionError(
                    f"Method {name!r} has no option {key!r}.{hint} Its options: {', '.join(known)}."
                )
        # Resolves the annotations, which this package keeps as strings (PEP 563).
        kinds = get_type_hints(cls)
        values = {}
        for key, value in given.items():
            try:
                values[key] = parse_option(value, kinds[key])
                if key != "seed":
                    check_size(values[key], kinds[key], cls._largest(key))
            except (ValueError, TypeError) as error:
                shown = f"{key}={shortened(value)}"
                raise OptionError(f"Bad option for {name}: {shown}: {error}.") from error
        check_seed(values.get("seed", 0))
        try:
            # __post_init__ checks the ranges. Its message does not name the method, this one does.
            return cls(**values)
        except (ValueError, TypeError) as error:
            raise OptionError(f"Bad option for {name}: {error}.") from error

    @classmethod
    def lost_options(cls) -> str | None:
        """Return why what a class declares is no option, or ``None``: it is no dataclass."""
        for base in cls.__mro__:
            if not issubclass(base, Method) or "__dataclass_params__" in vars(base):
                continue
            # As texts, since a module may keep its annotations so (PEP 563).
            own = inspect.get_annotations(base)
            if lost := [key for key, kind in own.items() if "ClassVar" not in str(kind)]:
                return (
                    f"class {base.__name__} declares {', '.join(lost)} and is no dataclass, so "
                    "these are no options; write @dataclass(frozen=True) above it"
                )
        return None

    @classmethod
    def _written_out(cls, name: str, options: Mapping[str, object]) -> dict[str, object]:
        """Return ``options`` with the options of a recipe in place of its name."""
        # A plug-in may have an option of its own that is called so.
        if "recipe" not in options or "recipe" in {field.name for field in fields(cls)}:
            return dict(options)
        given = {key: value for key, value in options.items() if key != "recipe"}
        recipe = options["recipe"]
        if not cls.recipes:
            raise OptionError(f"Method {name!r} has no recipes. Leave recipe out.")
        if recipe is None or recipe == "none":  # a point of a sweep: the defaults
            return given
        if not isinstance(recipe, str) or recipe not in cls.recipes:
            raise OptionError(
                f"Method {name!r} has no recipe {shortened(recipe)!r}. "
                f"Its recipes: {', '.join(cls.recipes)}."
            )
        written = _by_field(name, cls.recipes[recipe])
        kept = {k: v for k, v in written.items() if cls.alternatives.get(k) not in given}
        return {**kept, **given}

    def recipe_name(self) -> str | None:
        """Return the recipe that stands for exactly these options, whatever the seed, if one does.

        Tables show it instead of the options.
        """
        for recipe in type(self).recipes:
            if type(self).from_options(self.name, {"recipe": recipe, "seed": self.seed}) == self:
                return recipe
        return None

    @classmethod
    def _largest(cls, option: str) -> float:
        """Return the largest whole number that ``option`` takes; see ``limits``."""
        named: Mapping[str, float] = ChainMap(
            *(vars(base).get("limits", {}) for base in cls.__mro__)
        )
        owner = next(base for base in cls.__mro__ if option in inspect.get_annotations(base))
        is_ours = owner.__module__.partition(".")[0] == "editbench"
        return named.get(option, MAX_COUNT if is_ours else math.inf)

    @classmethod
    def check_subjects(cls, name: str, facts: Iterable[Fact]) -> None:
        """Check that every fact has a subject if this method, registered as ``name``, needs one.

        Raises:
            MethodError: if the method needs subjects and a fact has none.
        """
        if not cls.needs_subject:
            return
        for fact in facts:
            if fact.subject is None:
                raise MethodError(
                    f"Fact {fact.id!r} has no subject, and {name} reads its key at the last "
                    'subject token. Add "subject", or use a method that needs none '
                    "(sft, mixsd, opsd, pd)."
                )

    def options(self) -> dict[str, Any]:
        """Return all options with their values, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def left_out(self) -> list[str]:
        """Return the options that a cell's key leaves out; see ``added``."""
        options = [option for option in fields(self) if option.name in self.added]
        return [each.name for each in options if getattr(self, each.name) == each.default]

    def sources(self) -> dict[str, str]:
        """Return the SHA-256 of each local file that the options name, by the path given there.

        The hashes are part of a cell's key, so a changed file makes a stored cell stale.
        """
        return {}


KEYWORDS = {"lambda": "lam"}
"""Option whose name is a keyword of Python -> the field that holds it."""


def _by_field(name: str, options: Mapping[str, object]) -> dict[str, object]:
    # The paper's name works as well as the field's; two of them on one field shrink the dict.
    given = {KEYWORDS.get(key, key): value for key, value in options.items()}
    if len(given) < len(options):
        raise OptionError(f"Method {name!r}: lam and lambda are one option. Give it once.")
    return given


class Corpus(ABC):
    """A named source of cases."""

    summary: ClassVar[str] = ""
    """One line for ``editbench list corpora``."""
    license: ClassVar[str] = ""
    form: ClassVar[str] = "cloze"
    """Form of most of its prompts: ``cloze`` or ``question``."""
    needs_data: ClassVar[bool] = False
    """Whether it needs a file: ``--data`` (a path, a hub id or a URL) or the published one."""
    url: ClassVar[str | None] = None
    """Address of the published file."""
    sha256: ClassVar[str | None] = None
    """Hash of the published file. A download must match it."""

    own_file: ClassVar[bool] = False
    """Whether it reads a file of the user's own facts, whose columns may have any names."""

    columns: Mapping[str, str] = MappingProxyType({})
    """Field of a fact -> name of its column in the user's ``own_file``. Set it before ``load``."""
    skipped: Sequence[str] = ()
    """After ``load``: one sentence for each record and probe that was left out, with the reason."""
    remarks: Sequence[str] = ()
    """After ``load``: what the user should know about how the file was read, in sentences."""
    places: Mapping[str, str] = MappingProxyType({})
    """After ``load`` of a user's ``own_file``: where each fact stands, by its id (``row 9``)."""

    @abstractmethod
    def load(self, data: str | Path | None = None) -> list[Case]:
        """Return all cases, validated, in the order of the source.

        Raises:
            DataError: if a file is missing or malformed. The message names the file, the record and
                the field.
        """


@dataclass(frozen=True)
class Score:
    """The score of one case by an evaluator."""

    case: str
    """Id of the case's fact."""
    value: float
    """From 0 to 1; NaN if the case cannot be scored."""
    text: str = ""
    """The text that the score rests on, such as the model's answer. It is kept in the record."""


class Evaluator(ABC):
    """A column of the table: model in, one score for each case out.

    The runner calls it once for the unedited model and once for each edited model, with the same
    cases. It sees neither the method nor the edit. The table shows the mean over the cases with its
    95 % interval; the ranking does not use it. An evaluator must leave the model as it found it,
    and give the same scores for the same model and cases.

    A complete plug-in:

        class Brief(Evaluator):
            name, title, summary = "brief", "Brief ↑", "share of answers of at most three words"

            def score(self, model, cases):
                texts = [model.generate(case.fact.prompt, case.fact.form) for case in cases]
                return [
                    Score(case.fact.id, float(len(text.split()) <= 3), text)
                    for case, text in zip(cases, texts)
                ]
    """

    name: ClassVar[str] = ""
    """The name under which the evaluator is registered; also its protocol's name in the record."""
    title: ClassVar[str] = ""
    """Heading of its column, with an arrow that shows which direction is better."""
    summary: ClassVar[str] = ""
    """One line for ``editbench list evaluators``."""
    version: ClassVar[int] = 1
    """Raise it with every change that can move a score, so that stored cells of an older version
    are computed again."""

    @abstractmethod
    def score(self, model: LanguageModel, cases: Sequence[Case]) -> list[Score]:
        """Score the model as it is now: one score for each of ``cases``, in their order."""


class Tracker(ABC):
    """Another system that is told of a run while it goes on (``--track NAME``).

    It is told numbers and names, and neither facts nor answers. An error costs no result: the
    tracker is then told no more, and the user reads why.

    A complete plug-in:

        class Journal(Tracker):
            name, summary = "journal", "a line for each cell in journal.txt"

            def start(self, run):
                self.file = open("journal.txt", "a")

            def cell(self, row):
                print(row["method"], row["efficacy"], row["retention"], file=self.file)

            def finish(self):
                self.file.close()
    """

    name: ClassVar[str] = ""
    """The name under which the tracker is registered (group ``editbench.trackers``)."""
    summary: ClassVar[str] = ""
    """One line for ``editbench list trackers``."""

    @abstractmethod
    def start(self, run: Mapping[str, object]) -> None:
        """Begin a run: its ``folder`` and the fields of its configuration, JSON-ready."""

    @abstractmethod
    def cell(self, row: Mapping[str, object]) -> None:
        """Take a finished cell: ``method``, ``seed``, ``status``, and its numbers by name.

        The names are those of ``Results.table``, and ``retention/TASK`` for the score in each
        task. What was not measured is ``None``. A cell that is kept from an earlier run is told
        again.
        """

    @abstractmethod
    def finish(self) -> None:
        """End the run, also one that was stopped."""
