"""The options that the locate-then-edit methods share, and the settings that follow from them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import torch

from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.memory import Memory, Phase, Texts
from editbench.methods._edit.again import Kept, kept_values
from editbench.methods._edit.fast.linear import laid_out_bytes
from editbench.methods._edit.fisher import state_fisher
from editbench.methods._edit.head import LOGITS_AT_ONCE
from editbench.methods._edit.layers import nearest, traced_layers
from editbench.methods._edit.norm_anchor import norm_facts_hash, read_norm_facts
from editbench.methods._edit.prepare import PREFIX_TOKENS, context_prefixes, kept_prefixes
from editbench.methods._edit.report import FIGURES
from editbench.methods._edit.shared import Shared
from editbench.methods._edit.value import Solver, fact_bytes, side_by_side, within
from editbench.methods.statistics import (
    Moment,
    held_by_moments,
    in_memory,
    second_moments,
    source_files,
    work_of_moments,
)
from editbench.models import LanguageModel
from editbench.options import MAX_TOKENS
from editbench.outline import Outline
from editbench.pace import Work
from editbench.plugin import Choice, LogUniform, Method, Space
from editbench.report import Figure
from editbench.types import Fact

# S sites, D model width

PUBLISHED: Mapping[str, object] = {
    "v_lr": 0.5,
    "v_weight_decay": 0.5,
    "kl_factor": 0.0625,
    "fisher_factor": 0.0,
    "stop": "loss",
}
"""Settings of the target optimisation in ROME's and MEMIT's code, for GPT-J and GPT-2 XL.

The settings files name layers for these models only. For others a recipe leaves the layers to the
rule of the depth, and to ``layers``."""
NOT_NEGATIVE = ("fisher_factor", "kl_factor", "v_weight_decay", "epsilon", "slack")
POSITIVE = ("clamp", "lam", "l2", "ridge")


B = TypeVar("B")


@dataclass(frozen=True)
class WeightEditor(Method, Generic[B]):
    """Base of the locate-then-edit methods, with the options that all of them have."""

    kind: ClassVar[str] = "weight editor"
    takes_offloaded: ClassVar[bool] = True
    needs_covariance: ClassVar[bool] = True
    engine_version: ClassVar[int] = 2
    """Raised when a change of the shared engine moves the numbers of all weight editors.

    A change of one method raises that method's ``version`` instead."""
    sites: ClassVar[tuple[str, ...]]
    """Where the target optimisation adds its deltas. The value at the first site is written."""
    of_one_key: ClassVar[str] = "the written value is a compromise"
    """What happens to facts that share a key and have different targets."""
    matrices: ClassVar[int] = 2
    """Float64 matrices (f, f) that are kept of each layer, in a file if large: C and its factor."""
    one_by_one: ClassVar[bool] = False
    """Whether facts are solved one after the other, not side by side."""
    limits: ClassVar[Mapping[str, int]] = {"covariance_tokens": MAX_TOKENS}
    added: ClassVar[frozenset[str]] = frozenset(
        {
            "stop",
            "fact_token",
            "last_layers",
            "prefix_style",
            "ridge",
            "slack",
            "norm_anchor",
            "norm_facts",
            "shrink",
        }
    )
    figures: ClassVar[Mapping[str, Figure]] = FIGURES
    space: ClassVar[Space] = {
        "kl_factor": LogUniform(0.01, 1.0),
        "fisher_factor": Choice((0.0, 0.5, 1.0, 2.0)),
    }
    """The rate is not searched: it follows from the clamp."""

    quick: bool = False
    """12 steps at twice the rate and no prefixes, where these are not set: several times faster, a
    little less general."""
    steps: int | None = None
    """Forward passes of the target optimisation, one more than its updates. None: 25, or 12 with
    ``quick``."""
    v_lr: float | None = None
    """Adam's rate in the target optimisation. None: derived from the clamp (``value.py``)."""
    stop: Literal["nll", "loss"] = "nll"
    """What ends a fact's optimisation early, below 0.05 nats a token: the nll of its target, or, as
    published, the sum with the other terms."""
    kl_factor: float = 0.0625
    """Weight of the KL at "{subject} is a". The default is the published one."""
    v_weight_decay: float = 1e-3
    """Weight of ||delta|| / ||v_0||^2. EasyEdit uses 1e-3 for Llama, ROME's own settings 0.5."""
    fisher_factor: float = 0.0
    """Weight of a target's cost to the model's own text, in nats (``fisher.py``).
    0, as published, favours generalization. 1 or 2 is gentler on all other text."""
    prefixes: int | None = None
    """How many generated texts the prompt is also read behind, so that the fact holds in more than
    one context. None: 5, or 0 with ``quick``."""
    covariance: str = "self"
    """Text on which C is measured: ``self`` (the model's own), a text or JSONL file, a hub data
    set, or several of these separated by commas. ``identity``: C = I, as in EasyEdit's ROME
    settings."""
    covariance_tokens: int = 20_000
    """Tokens that C is measured on, approximately: own text is counted to the end of a batch. With
    40,000 or more, measuring ends earlier where the direction of updates is stable."""

    norm_anchor: bool = False
    """Give every written value the mean norm of the values on the unedited model, so that a long
    sequence of edits holds (``_edit/norm_anchor.py``)."""
    norm_facts: str | None = None
    """With ``norm_anchor``: a JSON Lines file of the facts whose values are measured. None: the
    facts that are injected first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_facts is not None and not self.norm_anchor:
            raise ValueError("norm_facts needs norm_anchor=true")
        if self.steps is not None and self.steps < 2:
            raise ValueError("steps must be at least 2")
        if self.v_lr is not None and self.v_lr <= 0:
            raise ValueError("v_lr must be above 0")
        if self.stop not in ("nll", "loss"):
            raise ValueError("stop must be nll or loss")
        if self.prefixes is not None and self.prefixes < 0:
            raise ValueError("prefixes must be at least 0")
        # Only some methods have an epsilon, a lam or an l2.
        for name in NOT_NEGATIVE:
            # ``not x >= 0`` instead of ``x < 0`` also refuses NaN.
            if not (getattr(self, name, None) is None or getattr(self, name) >= 0):
                raise ValueError(f"{name} must be at least 0")
        for name in POSITIVE:
            if not (getattr(self, name, None) is None or getattr(self, name) > 0):
                raise ValueError(f"{name} must be above 0")
        if self.covariance_tokens < 2:
            raise ValueError("covariance_tokens must be at least 2")

    @abstractmethod
    def rule(self, depth: int) -> tuple[int, ...]:
        """Return the layers that this method writes by default, ascending, where all can be."""

    def usual_layers(self, model: LanguageModel | Outline) -> tuple[int, ...]:
        """Return the layers that this method writes in ``model`` by default, ascending.

        Raises:
            NoDenseMlp, ModelError: No layer can be written (``Layout.check_writable``).
        """
        model.layout.check_writable()
        return nearest(model.layout.writable, self.rule(model.layout.depth))

    @abstractmethod
    def edited_layers(self, model: LanguageModel | Outline) -> tuple[int, ...] | None:
        """Return the layers that this method writes; None where the facts decide (``auto``)."""

    @abstractmethod
    def bench(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        kept: Mapping[str, Kept],
        shared: Shared | None = None,
    ) -> B:
        """Return what ``write`` needs of ``facts``, of which there are some. See ``Bench``."""

    @abstractmethod
    def write(self, bench: B) -> Edit:
        """Return the edit of the bench's facts."""

    def inject(self, model: LanguageModel, facts: Sequence[Fact]) -> Edit:
        return self._injected(model, facts, {})

    def inject_again(self, model: LanguageModel, facts: Sequence[Fact], edit: Edit) -> Edit:
        """Return the edit of ``facts``, solved again from the values that ``edit`` keeps."""
        return self._injected(model, facts, kept_values(edit))

    def _injected(
        self, model: LanguageModel, facts: Sequence[Fact], kept: Mapping[str, Kept]
    ) -> Edit:
        if not facts:
            return self.edit(model, facts)
        return self.write(self.bench(model, facts, kept))

    def choose_layers(
        self, model: LanguageModel, facts: Sequence[Fact]
    ) -> tuple[tuple[int, ...], dict[str, object]]:
        """Return the layers that this method writes for ``facts``, and figures of the choice."""
        layers = self.edited_layers(model)
        if layers is not None:
            return layers, {}
        layers, curve = traced_layers(model, facts, len(self.usual_layers(model)), self.seed)
        return layers, {"layer_curve": curve}

    def check_model(self, model: LanguageModel) -> tuple[int, ...]:
        """Return the edited layers, or the usual ones where the facts decide.

        It runs before anything is measured.

        Raises:
            MethodError, ModelError: This method cannot write ``model``.
        """
        layers = self.edited_layers(model) or self.usual_layers(model)
        if "attention" in self.sites and model.layout.parts[layers[-1]].attention is None:
            raise MethodError(
                f"{self.name} optimises the attention of the last layer that it writes, and layer "
                f"{layers[-1]} of {model.name} has none. Use rome or memit."
            )
        model.check_head()
        return layers

    def memory(self, model: Outline, texts: Texts) -> Memory:
        """Return what is held: C and its factors, the solver's activations, and copies of W."""
        # With auto layers the facts decide which, not how many.
        layers = self.edited_layers(model) or self.usual_layers(model)
        f, d, n = model.layout.mlp_width, model.layout.width, texts.facts
        measured = held_by_moments(model, layers, self.matrices)
        covariance = self.matrices * in_memory(model, layers)
        # Where values are read, in the last layer that is written, the graph begins.
        depth = model.layout.depth - layers[-1]
        rows = 2 + self.number_of_prefixes  # the bare prompt, those with prefixes, and that of KL
        # From the subject on, a prompt is computed again and again.
        tokens, cached = texts.after + texts.target, texts.prompt + PREFIX_TOKENS
        needed = fact_bytes(rows, depth, tokens, cached, model.layout, model.vocabulary)
        wanted = 1 if self.one_by_one else min(n, side_by_side(needed))
        left = model.free - model.weights - model.casts - covariance
        at_once = within(wanted, needed, left)
        activations = model.activations(at_once * rows * tokens, depth, frozen=True)
        labels = min(at_once * (rows * texts.target + 1), LOGITS_AT_ONCE // model.vocabulary)
        solver = {
            "bfloat16 copies": model.casts,
            "laid out weights": laid_out_bytes(model),
            "solver": activations,
            "logits": model.logits(labels, 2),
            "keys and values": model.cache(at_once * rows, tokens + cached),
        }
        # W + Delta is summed in float64; the copies bring the weights back.
        changed = model.held(d * f * len(layers))
        written = {"kept copy": changed, "update": 3 * 8 * d * f}
        keys = 8 * f * n * (1 + len(layers))
        edit = len(layers) * (8 * (d + f) * n + 4 * f * min(f, n))
        return Memory(
            [
                *measured,
                Phase("solver", solver, {"covariance": covariance}),
                Phase("writing the weights", written, {"covariance": covariance, "keys": keys}),
            ],
            edit,
            changed=changed,
        )

    def work(self, model: Outline, texts: Texts) -> Work:
        """Return the work of C, where it is not in the cache, of the targets, and of the writing.

        All facts take all steps; most end earlier.
        """
        layers = self.edited_layers(model) or self.usual_layers(model)
        n, depth = texts.facts, model.depth
        # With a norm anchor the values of other facts are wanted as well, or all of them first.
        anchors = len(read_norm_facts(self.norm_facts)) if self.norm_facts else n * self.one_by_one
        n_solved = n + (anchors if self.norm_anchor else 0)
        widths = [model.layout.parts[layer].mlp_width for layer in layers]
        rows = 2 + self.number_of_prefixes
        # The layers below the last written one are passed once, with the tokens before the subject.
        above = (depth - layers[-1]) / depth
        solved = self.solver(1.0).steps * n_solved * rows
        passed = n * rows * (texts.prompt + PREFIX_TOKENS)
        prefixes = self.number_of_prefixes * PREFIX_TOKENS
        return work_of_moments(model, layers, self.covariance, self.covariance_tokens) + Work(
            # for the cache of the solver, for the keys of each layer, and for what is left to write
            read=passed * (1 + 2 * len(layers)),
            solved=solved * (texts.after + texts.target) * above,
            written=prefixes,
            writing=PREFIX_TOKENS if prefixes else 0,
            learned=solved * texts.target,
            # for the statistics, twice, and for the edit
            hashed=3 * model.parameters,
            # a factor for each layer, and the solutions with it
            products=sum((self.matrices + 1) * f**3 / 3 + 2 * n * f**2 for f in widths),
        )

    def lighter(self, model: Outline) -> Iterator[Mapping[str, object]]:
        """Yield no prefixes; the methods that write several layers yield fewer of them as well."""
        yield {"prefixes": 0}

    def prepare(self, model: LanguageModel) -> None:
        self.check_model(model)
        # With auto layers nothing can be measured before the facts are known.
        if (layers := self.edited_layers(model)) is not None:
            self.moments(model, layers)
            self.fisher(model, layers[-1])

    def sources(self) -> dict[str, str]:
        facts = norm_facts_hash(self.norm_facts) if self.norm_facts else {}
        return {**source_files(self.covariance), **facts}

    def moments(
        self, model: LanguageModel, layers: tuple[int, ...], weights: str | None = None
    ) -> dict[int, Moment]:
        """Return C of each of ``layers``, from the cache or measured.

        ``weights`` is the fingerprint of ``model``, if it is known.
        """
        return second_moments(
            model, layers, self.covariance, self.covariance_tokens, self.seed, weights
        )

    def fisher(self, model: LanguageModel, layer: int) -> torch.Tensor | None:
        """Return G of each site at ``layer`` (S, D, D), or None where ``fisher_factor`` is 0.

        It comes from the cache or is measured.
        """
        if not self.fisher_factor:
            return None
        by_site = [state_fisher(model, layer, site, self.seed) for site in self.sites]
        return torch.stack(by_site).to(model.device)

    def context(self, model: LanguageModel) -> list[str]:
        """Return the generated prefixes.

        While edits are applied, they are those of the first edit, as in the reference code. The
        edited model would write others, and the facts of later batches would be read behind them.
        """
        n = self.number_of_prefixes
        return kept_prefixes(model, n) or self.new_prefixes(model, n)

    @property
    def number_of_prefixes(self) -> int:
        """``prefixes``, or what it is where it is not set."""
        return self.prefixes if self.prefixes is not None else (0 if self.quick else 5)

    def new_prefixes(self, model: LanguageModel, n: int) -> list[str]:
        """Return ``n`` prefixes that ``model`` writes now."""
        return context_prefixes(model, n, self.seed)

    def solver(self, clamp: float) -> Solver:
        """Return the settings of the target optimisation."""
        steps = self.steps if self.steps is not None else (12 if self.quick else 25)
        return Solver(
            steps,
            self.v_lr,
            clamp,
            self.kl_factor,
            self.v_weight_decay,
            self.fisher_factor,
            self.stop,
        )
