"""The weights of a ``LanguageModel``: in which type and where they are held, read, replaced."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from editbench.errors import ModelError
from editbench.placing import devices_of, offloaded, replaced

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ModelWeights:
    """The part of ``LanguageModel`` that holds the weights."""

    model: PreTrainedModel
    name: str
    precision: str

    @property
    def device(self) -> torch.device:
        """The device to which texts go: that of the first weight, or where it computes."""
        first = next(self.model.parameters())
        return devices_of(self.model)[0] if first.is_meta else first.device

    @property
    def devices(self) -> list[torch.device]:
        """The devices on which the model computes; several if it is spread over them."""
        return devices_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the weights are held: that of the first."""
        return next(self.model.parameters()).dtype

    @property
    def dtype_name(self) -> str:
        """``dtype`` as options and records name it, such as ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def has_offloaded(self) -> bool:
        """Whether some weights are in main memory or on the disk until a pass needs them."""
        return any(weight.is_meta for weight in self.model.parameters())

    @property
    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        # Each pass makes new objects of the weights that it brings, so none are kept here.
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        return {
            name: weight
            for name, weight in self.model.named_parameters()
            if not (weight.is_meta and name in tied)
        }

    def weight(self, name: str) -> torch.Tensor:
        """Return the parameter called ``name``, or its values if it is offloaded.

        Change it with ``write``.

        Raises:
            ModelError: if this model has no such parameter, or its values are not known.
        """
        weight = self._parameters.get(name)
        if weight is None:
            close = difflib.get_close_matches(name, self._parameters, n=1, cutoff=0.8)
            other = "the edit was made for another architecture."
            meant = f"Did you mean {close[0]!r}? If not, {other}" if close else other.capitalize()
            raise ModelError(f"{self.name} has no weight {name!r}. {meant}")
        return offloaded(self.model, name) if weight.is_meta else weight

    @torch.no_grad()
    def write(self, name: str, values: torch.Tensor) -> Callable[[], None]:
        """Give the parameter called ``name`` other values; return what restores it bit for bit.

        Raises:
            ModelError: as ``weight``.
        """
        weight = self.weight(name)
        if not isinstance(weight, torch.nn.Parameter):
            return replaced(self.model, name, values.to(weight.device, weight.dtype))
        before = weight.detach().clone()
        weight.copy_(values)

        @torch.no_grad()
        def restore() -> None:
            weight.copy_(before)

        return restore

    def fingerprint(self, dtype: torch.dtype | None = None) -> str:
        """Return the first 16 hex digits of a SHA-256 over all weights as they are now.

        Their names, shapes and dtypes count as well. With ``dtype`` it is what the weights would
        have if they were held in that type.

        Raises:
            ModelError: if the values of some weights are not known.
        """
        weights = sorted(self._parameters.items())
        kinds = {
            name: dtype if dtype is not None and weight.is_floating_point() else weight.dtype
            for name, weight in weights
        }

        def read(name: str) -> torch.Tensor:
            return self.weight(name).detach().to("cpu", kinds[name]).contiguous().view(-1)

        sha = hashlib.sha256()
        for (name, weight), values in zip(weights, _one_ahead(read, list(kinds)), strict=True):
            sha.update(f"{name}{tuple(weight.shape)}{kinds[name]}".encode())
            sha.update(values.view(torch.uint8).numpy().data)  # bytes, as NumPy has no bfloat16
        return sha.hexdigest()[:16]

    def compute(self, weights_fixed: bool = False) -> AbstractContextManager[object]:
        """Return the context in which forward passes run.

        ``weights_fixed`` promises that no weight changes or gets a gradient inside. In bfloat16
        this halves the time on a CPU: each weight is cast once instead of once per pass. In float32
        it saves memory: nothing is kept for gradients of weights.
        """
        if self.precision != "bfloat16":
            return _without_gradients(self.model) if weights_fixed else nullcontext()
        # requires_grad stays on here: autocast caches the casts of such weights only
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=weights_fixed)


def _one_ahead(read: Callable[[str], torch.Tensor], names: Sequence[str]) -> Iterator[torch.Tensor]:
    """Yield what ``read`` returns for each name; the next is read while the caller has the last.

    So a weight comes from its device or its file while another is hashed.
    """
    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(read, name) for name in names[:1]]
        for name in names[1:]:
            values = coming.pop().result()
            coming.append(reader.submit(read, name))
            yield values
        yield from (last.result() for last in coming)


@contextmanager
def _without_gradients(model: torch.nn.Module) -> Iterator[None]:
    """Clear ``requires_grad`` of all parameters inside, and set it again afterwards."""
    wanted = [name for name, weight in model.named_parameters() if weight.requires_grad]
    try:
        for weight in model.parameters():
            weight.requires_grad_(False)
        yield
    finally:
        # By name, since a pass makes new objects of weights that are offloaded.
        weights = dict(model.named_parameters())
        for name in wanted:
            weights[name].requires_grad_(True)
