"""EasyEdit's algorithms, each a method of its own: ``easyedit-memit``, ``easyedit-wise``, ...

The algorithm is that of the user's EasyEdit (github.com/zjunlp/EasyEdit), which runs in a process
of its own (``_easyedit/process.py``). It gets the model as it is now, in float32, the facts, and
hyper-parameters: EasyEdit's shipped values with layers and modules of this model
(``_easyedit/fields.py``), or a YAML file of EasyEdit's. Algorithms that read the covariance of keys
get ours in their own form of file, so nothing is downloaded, and a comparison with our methods is
one of algorithms.

All facts go to one call of the algorithm's function, or one call each where its code reads the
first request only. What a reader of the numbers should know of its code is in the report under
``notes``. What comes back is a change of weights, the factors of a LoRA adapter, or, for side
memories, a model that stays in its process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file

from editbench import progress
from editbench.changes import Change
from editbench.edit import Edit
from editbench.errors import MethodError, OptionError
from editbench.methods._easyedit.algorithm import Algorithm
from editbench.methods._easyedit.algorithms import ALGORITHMS
from editbench.methods._easyedit.fields import (
    Fields,
    base_of,
    covariance_layers,
    edited_layers,
    for_facts,
    hyperparameters,
    known_fields,
    shipped,
)
from editbench.methods._easyedit.handover import (
    model_folder,
    requests,
    write_covariance,
    write_keys,
)
from editbench.methods._easyedit.listing import lacks
from editbench.methods._easyedit.process import Child
from editbench.methods._easyedit.source import Source, find
from editbench.methods.statistics import second_moments, source_files
from editbench.models import LanguageModel
from editbench.options import MAX_TOKENS
from editbench.own_text import TOPICS
from editbench.plugin import Method
from editbench.report import Figure
from editbench.types import Fact

# d residual width, f MLP inner width, M earlier facts


@dataclass(frozen=True)
class EasyEdit(Method):
    """An algorithm of EasyEdit."""

    algorithm: ClassVar[Algorithm]
    kind: ClassVar[str] = "EasyEdit"
    figures: ClassVar[Mapping[str, Figure]] = {
        "code": Figure("First 12 hex digits of a SHA-256 of EasyEdit's code of the algorithm."),
        "hyperparameters": Figure("The hyper-parameters that the algorithm was given."),
        "notes": Figure("What the algorithm's code does that a reader should know."),
        "prefixes": Figure("Texts that the prompts were also read behind."),
        "easyedit_seconds": Figure("Seconds in EasyEdit's code, loading excluded.", adds_up=True),
    }

    source: str | None = None
    """Folder of the EasyEdit checkout. None: that of the environment variable EDITBENCH_EASYEDIT,
    else the installed package ``easyeditor``."""
    hparams: str | None = None
    """A YAML file of EasyEdit's hyper-parameters. None: the shipped values, with layers and modules
    of the model."""
    layers: tuple[int, ...] | None = None
    """Edited layers. None: those of the YAML file, else the algorithm's usual ones, scaled to the
    depth of the model; for adapters, all."""
    override: tuple[str, ...] | None = None
    """Single hyper-parameters by EasyEdit's names, such as ``v_lr=0.1,v_num_grad_steps=10``."""
    time_limit: float = 3600.0
    """Seconds after which the algorithm's process is ended."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.time_limit > 0:
            raise ValueError("time_limit must be above 0")
        shipped(self.algorithm, self.hparams, self.override)

    def sources(self) -> dict[str, str]:
        """Return the hash of the YAML file, and that of EasyEdit's code.

        Raises:
            OptionError: there is no EasyEdit, the algorithm lacks something here, or it has no such
                hyper-parameter.
        """
        found = self.found()
        known_fields(self.algorithm, found, shipped(self.algorithm, self.hparams, self.override))
        code = {self.source or "easyeditor": found.digest(self.algorithm)}
        if self.hparams is None:
            return code
        read = Path(self.hparams).expanduser().read_bytes()
        return {self.hparams: hashlib.sha256(read).hexdigest(), **code}

    def found(self) -> Source:
        """Return the EasyEdit that is used.

        Raises:
            OptionError: there is none, or the algorithm lacks something here.
        """
        found = find(self.source)
        if why := found.missing(self.algorithm):
            raise OptionError(f"{self.name}: {why}")
        return found

    @classmethod
    def lacks(cls) -> str | None:
        """Return what the algorithm lacks on this machine, in one sentence; None if it can run."""
        return lacks(cls.algorithm.title)

    def fields(self, model: LanguageModel) -> Fields:
        """Return all hyper-parameters of the algorithm for ``model``.

        Raises:
            OptionError: a value does not fit the model.
            ModelError: EasyEdit cannot edit its architecture.
        """
        values = shipped(self.algorithm, self.hparams, self.override)
        return hyperparameters(self.algorithm, self.found(), model, values, self.layers)

    def prepare(self, model: LanguageModel) -> None:
        self.fields(model)
        Child.start(self.name).close()  # what it imports takes seconds, which are no injection's

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        if not facts:
            return self.edit(model, facts)
        return self.run(model, facts, kept_prefixes(self.name, model))

    def run(
        self, model: LanguageModel, facts: Sequence[Fact], prefixes: Sequence[str] | None
    ) -> Edit:
        """Return the edit of ``facts``; ``prefixes`` stand before prompts instead of its own."""
        fields = for_facts(self.algorithm, self.fields(model), len(facts))
        request = {
            "do": "edit",
            "algorithm": self.algorithm.title,
            "package": str(self.found().package),
            "fields": fields,
            "device": str(model.device),
            "seed": self.seed,
            "contexts": None if prefixes is None else [f"{text}{{}}" for text in prefixes],
            "requests": requests(self.algorithm, model, facts, other_texts(len(facts))),
        }
        if base := base_of(self.algorithm):
            values = dict(base.values)
            request["base_fields"] = hyperparameters(base, self.found(), model, values, self.layers)
        if self.algorithm.result == "live":
            return self._live(model, facts, request)
        with Child.start(self.name) as child:
            request |= self._files(model, child.folder, fields)
            reply = self._asked(child, request, len(facts))
            changes, keys = read_changes(child.folder / reply["changes"], model)
        edit = self.edit(model, facts, changes, keys=keys, diagnostics=self._report(fields, reply))
        edit.check_shapes(model)
        return edit

    def _files(self, model: LanguageModel, folder: Path, fields: Fields) -> dict[str, Any]:
        """Write what the algorithm reads from files, and return the part of the request."""
        earlier = earlier_keys(self.name, model, edited_layers(fields))
        return {
            "model": str(model_folder(model)),
            "keys": write_keys(folder, earlier) if self.algorithm.carries_keys else None,
        }

    def _live(self, model: LanguageModel, facts: Sequence[Fact], request: dict[str, Any]) -> Edit:
        """Return an edit whose model stays in its process; a sequence goes on in the same one."""
        from editbench.methods._easyedit.live import ChildModel, live_edit

        if isinstance(model.live, ChildModel):
            child, request["number"] = model.live.child, model.live.number
        else:
            child = Child.start(self.name)
            request |= self._files(model, child.folder, request["fields"])
        reply = self._asked(child, request, len(facts))
        return live_edit(
            self,
            model,
            facts,
            child,
            number=reply.get("number", 0),
            time_limit=self.time_limit,
            diagnostics=self._report(request["fields"], reply),
        )

    def _asked(self, child: Child, request: Mapping[str, Any], facts: int) -> dict[str, Any]:
        with progress.task(f"{self.name}: EasyEdit edits", facts, "facts") as bar:
            reply = child.ask(request, self.time_limit)
            bar.advance(facts)
        return reply

    def _report(self, fields: Fields, reply: Mapping[str, Any]) -> dict[str, Any]:
        report: dict[str, Any] = {
            "code": self.found().digest(self.algorithm)[:12],
            "hyperparameters": fields,
            "notes": list(self.algorithm.notes),
            "easyedit_seconds": round(reply["seconds"], 3),
        }
        if reply["contexts"]:
            report["prefixes"] = [text.removesuffix("{}") for text in reply["contexts"]]
        return report


@dataclass(frozen=True)
class WithCovariance(EasyEdit):
    """An algorithm of EasyEdit that reads the covariance of keys."""

    limits: ClassVar[Mapping[str, int]] = {"covariance_tokens": MAX_TOKENS}

    covariance: str = "self"
    """Text on which our covariance is measured, as for our own weight editors: ``self`` (the
    model's own text), a text or JSONL file, or a hub data set."""
    covariance_tokens: int = 20_000
    """Tokens that it is measured on, approximately."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.covariance_tokens < 2:
            raise ValueError("covariance_tokens must be at least 2")

    def sources(self) -> dict[str, str]:
        return {**super().sources(), **source_files(self.covariance)}

    def prepare(self, model: LanguageModel) -> None:
        super().prepare(model)
        self._moments(model, self.fields(model))

    def _moments(self, model: LanguageModel, fields: Fields) -> dict[int, Any]:
        layers = covariance_layers(self.algorithm, fields)
        if not layers:
            return {}
        return second_moments(model, layers, self.covariance, self.covariance_tokens, self.seed)

    def _files(self, model: LanguageModel, folder: Path, fields: Fields) -> dict[str, Any]:
        if moments := self._moments(model, fields):
            write_covariance(folder, fields, moments)
        return super()._files(model, folder, fields)


def kept_prefixes(name: str, model: LanguageModel) -> list[str] | None:
    """Return the prefixes of the first edit of a sequence, as a process of EasyEdit's keeps them.

    ``None``: this is the first one.
    """
    for edit in model.applied:
        if getattr(edit, "method", None) == name and "prefixes" in edit.diagnostics:
            return list(edit.diagnostics["prefixes"])
    return None


def earlier_keys(name: str, model: LanguageModel, layers: Sequence[int]) -> dict[int, torch.Tensor]:
    """Return the keys (f, M) of the facts that applied edits of the method hold, by layer."""
    by_layer: dict[int, torch.Tensor] = {}
    for layer in layers:
        weight = model.layout.weight_name(layer)
        held = [
            edit.keys[weight]
            for edit in model.applied
            if getattr(edit, "method", None) == name and weight in edit.keys
        ]
        if held:
            by_layer[layer] = torch.cat(held, dim=1)
    return by_layer


def other_texts(n: int) -> list[str]:
    """Return for each of ``n`` facts the beginning of a text about something else."""
    return [f"An article about {TOPICS[i % len(TOPICS)]}" for i in range(n)]


def read_changes(
    path: Path, model: LanguageModel
) -> tuple[dict[str, Change], dict[str, torch.Tensor]]:
    """Return the changes of weights in a file from EasyEdit's process, and the facts' keys.

    Raises:
        MethodError: a change is infinite or NaN.
    """
    changes: dict[str, Change] = {}
    keys: dict[str, torch.Tensor] = {}
    stored = load_file(path)
    for label, tensor in stored.items():
        name, _, part = label.partition("|")
        if not torch.isfinite(tensor).all():
            raise MethodError(f"EasyEdit's edit makes {name} infinite or NaN.")
        if part == "keys":
            keys[model.layout.weight_name(int(name))] = tensor
        elif part == "left":
            changes[name] = (tensor, stored[f"{name}|right"])
        elif part == "delta":
            changes[name] = tensor
    return changes, keys


def _method(title: str) -> type[EasyEdit]:
    """Return the class of one algorithm."""
    algorithm = ALGORITHMS[title]
    base = EasyEdit if algorithm.covariance == "never" else WithCovariance
    about = f"{title} of EasyEdit: {algorithm.summary}.\n\n{_about(algorithm)}"
    return type(
        title,
        (base,),
        {
            "__doc__": about,
            "__module__": __name__,
            "algorithm": algorithm,
            "name": f"easyedit-{title.lower()}",
            "summary": algorithm.summary,
            "paper": algorithm.paper,
            "needs_subject": algorithm.slot,
            "needs_covariance": algorithm.covariance == "always",
            "live": algorithm.result == "live",
        },
    )


def _about(algorithm: Algorithm) -> str:
    back = {
        "weights": "a change of weights",
        "adapter": "the factors of a LoRA adapter",
        "live": "a model that stays in EasyEdit's process, so that the edit cannot be saved",
    }[algorithm.result]
    notes = "".join(f"\n- {note}." for note in algorithm.notes)
    return (
        f"What comes back is {back}. The values are those of {algorithm.values_from} at "
        f"zjunlp/EasyEdit 14cea82.\n\n"
        f"Of its code:{notes}"
    )


METHODS = {f"easyedit-{title.lower()}": _method(title) for title in ALGORITHMS}
"""Name -> the method."""
globals().update({cls.__name__.replace("-", "_"): cls for cls in METHODS.values()})
