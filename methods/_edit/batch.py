"""Support for injections that write all facts at once: their keys and those of earlier edits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations

import torch

from editbench.errors import MethodError
from editbench.layout import mlp_gain
from editbench.methods._common.hooks import read_at
from editbench.methods._edit.bench import Bench
from editbench.methods._edit.checks import listed
from editbench.methods._edit.prepare import FactToken, key_rows
from editbench.models import LanguageModel

# N facts, M earlier facts, f MLP inner width

ALIKE = 0.9
"""Cosine in the metric of C^-1 above which two keys can hardly hold two different values.

At layer 4 of SmolLM2 it is 0.99 between two questions about one invented person, and 0.04 between
two people. With memit the model said 3 of 100 such facts (``benchmarks/distillation.md``)."""
SAME_GAIN = 0.02
"""Relative difference below which two measured gains are the same, as in ``layout.mlp_gain``."""


class BatchBench(Bench):
    """A ``Bench`` whose facts are written together, each with a key at every edited layer."""

    @cached_property
    def _keys(self) -> dict[int, torch.Tensor]:
        """Layer -> K, as ``keys`` read it."""
        return {}

    @cached_property
    def _rows(self) -> tuple[list[list[int]], list[int]]:
        return key_rows([prompt for each in self.prepared for prompt in each.prompts])

    def keys(self, layer: int) -> torch.Tensor:
        """Return K (f, N), float64, as ``layer`` computes it now, and remember it.

        The bare prompt counts one half, the prefixed prompts share the other half.
        """
        with self.phase("keys"):
            projection = self.model.layout.out_projection(self.model.model, layer)
            rows, positions = self._rows
            read = read_at(self.model, projection, "input", rows, positions).cpu().double()
            # T prompts of each fact in a row: the bare one (or its stand-in), then one per prefix.
            keys_NTf = read.reshape(len(self.facts), 1 + len(self.prefixes), -1)
            bare_Nf = keys_NTf[:, 0]
            # MEMIT eq. 19 averages over contexts. The weights are those of the reference code
            # (``compute_ks.py``), which averages within {bare} and {prefixed} first.
            mean_Nf = (bare_Nf + keys_NTf[:, 1:].mean(dim=1)) / 2 if self.prefixes else bare_Nf
        self._keys[layer] = mean_Nf.T
        return mean_Nf.T

    def earlier_keys(self, layer: int) -> torch.Tensor:
        """Return A (f, M), where A A^T is the sum of k k^T over the facts of the applied edits.

        M is 0 where no edit is applied.
        """
        name = self.model.layout.weight_name(layer)
        # Edits of other layers, and of methods without keys, have none for this weight.
        earlier = [edit.keys[name].double() for edit in self.model.applied if name in edit.keys]
        if not earlier:
            f = self.model.layout.parts[layer].mlp_width
            return torch.zeros(f, 0, dtype=torch.float64)
        return torch.cat(earlier, dim=1)

    def kept_keys(self) -> dict[str, torch.Tensor]:
        """Return A (f, at most f), float32, by weight name; A A^T = K K^T of the facts' keys."""
        return {
            self.model.layout.weight_name(layer): compact(k_fN).float()
            for layer, k_fN in self._keys.items()
        }

    def doubts_of_keys(self) -> list[str]:
        """Return a warning about facts of one subject whose keys are nearly equal."""
        if not (alike := list(self._alike())):
            return []
        return [
            "Some facts share a subject but have different targets and nearly equal keys "
            f"({listed(alike, '; ')}): {self.editor.of_one_key}. Inject one fact per subject, or "
            f"use a trainer (sft, mixsd) or {self.editor.name}+mixsd, which gives mixsd all but "
            "one target of each subject."
        ]

    def _alike(self) -> Iterator[str]:
        """Yield pairs of facts with one subject, different targets and nearly equal keys.

        Equal keys are left out, since ``check_editable`` has already named them.
        """
        by_subject: dict[tuple[FactToken, str], list[int]] = {}
        for i, each in enumerate(self.prepared):
            by_subject.setdefault((each.token, each.subject.text), []).append(i)
        for (token, _), places in by_subject.items():
            if len(places) < 2:
                continue
            # The first layer is the only one whose keys no other layer's update has moved.
            layer = self.layers_of[token][0]
            k_fn = self._keys[layer][:, places]
            # A rank-one update for one key moves the other by this cosine.
            product_nn = k_fn.T @ self.moments[layer].solve(k_fn)
            # The clamp keeps a key of zeros from dividing by zero.
            norm_n = product_nn.diagonal().clamp(min=1e-30).sqrt()
            cosine_nn = product_nn / norm_n / norm_n[:, None]
            for (i, first), (j, second) in combinations(
                enumerate(self.facts[place] for place in places), 2
            ):
                if first.target != second.target and ALIKE < cosine_nn[i, j] < 1 - 1e-9:
                    yield f"{first.id} and {second.id}"


def compact(k_fN: torch.Tensor) -> torch.Tensor:
    """Return A (f, at most f) with A A^T = K K^T."""
    f, n = k_fN.shape
    if n <= f:
        return k_fN
    # A later edit reads only K K^T, and f columns are enough to give it.
    values, vectors = torch.linalg.eigh(k_fN @ k_fN.T)
    # Eigenvalues below 0 are rounding: K K^T has none.
    a_ff: torch.Tensor = vectors * values.clamp(min=0).sqrt()
    return a_ff


def additive_gains(model: LanguageModel, layers: Sequence[int], method: str) -> Mapping[int, float]:
    """Return, for each of ``layers``, the constant with which its MLP's output enters the residual
    stream.

    Raises:
        MethodError: A layer normalises the output before it is added, or weighs it token by token
            as a gate does, so that no linear share of the residual can be written.
    """
    gains = {}
    for layer in layers:
        gain = mlp_gain(model.model, model.layout, layer)
        if not gain:
            raise MethodError(
                f"{type(model.model).__name__} normalises the MLP's output, or weighs it token by "
                f"token, before adding it (layer {layer}), so {method}'s residual shares do not "
                "add up there. Use rome or pmet, which write the MLP's own output, or a trainer "
                "(sft, mixsd, opsd, pd)."
            )
        gains[layer] = gain
    first = gains[layers[0]]
    # Measured up to rounding: gains that hardly differ are one constant of the architecture.
    if all(abs(gain - first) < SAME_GAIN * abs(first) for gain in gains.values()):
        return dict.fromkeys(layers, first)
    return gains
