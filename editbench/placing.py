"""In which type weights are held, and where they are: on one device, on several, or on the disk.

Accelerate spreads a model over devices (``device_map``). A weight for which no device has room is
on the meta device, and its values are in main memory or on the disk; hooks bring them to a device
for each pass. Here such values are read and replaced.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from editbench.errors import ModelError, OptionError
from editbench.hub import cache_dir

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Types in which weights may be held. ``auto``: the checkpoint's own."""
DeviceMap = str | Mapping[str, str | int | torch.device]
"""``auto``, or module -> device, ``cpu`` or ``disk``, as in transformers."""
OFFLOADED = (
    "Some weights of this model are on the meta device, so they have no values here. Load the "
    "model whole, or with load_model(..., device_map=...)."
)


@dataclass(frozen=True)
class Loading:
    """How a model is loaded, as options give it.

    Raises:
        OptionError: a value is none of those that are known, or two exclude each other.
    """

    dtype: str = "auto"
    """In which type weights are held: one of ``DTYPES``."""
    device: str = "auto"
    """``auto`` is CUDA if available, else the CPU."""
    device_map: DeviceMap | None = None
    """Spreads the model over several devices, the CPU and the disk."""
    batch_size: int | None = None
    """How much is computed together; ``None``: what each kind of work has by default."""

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise OptionError(
                f"The batch size is {self.batch_size}; it must be at least 1, or auto."
            )
        if self.dtype not in DTYPES:
            raise OptionError(f"Dtype {self.dtype!r} is not one of {', '.join(DTYPES)}.")
        if self.device_map is not None and self.device != "auto":
            raise OptionError(
                f"Device {self.device!r} and a device map both say where the weights go. Give one "
                "of them."
            )
        if isinstance(self.device_map, str) and self.device_map != "auto":
            raise OptionError(f"Device map {self.device_map!r} is not known; there is auto.")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``load_model``."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def check(self) -> torch.device:
        """Return the device, after checking that it is there and computes in the type.

        Of a device map it is the first device.

        Raises:
            OptionError: PyTorch has no such device here, or it lacks the type.
        """
        gpu = "cuda" if torch.cuda.is_available() else "cpu"
        device = usable(gpu if self.device == "auto" else self.device)
        if self.dtype != "auto":
            _check_dtype(device, self.dtype)
        return device


def usable(device: str) -> torch.device:
    """Return the device of this name.

    Raises:
        OptionError: PyTorch has none of this name here.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind in ("", "meta"):  # torch's own message lists names of devices that nobody has
        raise OptionError(
            f"Device {device!r} is not known. Write auto, cpu, cuda, cuda:1, mps or xpu."
        )
    try:
        return torch.zeros((), device=device).device
    except (RuntimeError, AssertionError, ValueError) as error:  # CUDA's absence: AssertionError
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise OptionError(f"Device {device!r} cannot be used: {reason}.") from error


def _check_dtype(device: torch.device, dtype: str) -> None:
    try:
        one = torch.ones(2, 2, dtype=getattr(torch, dtype), device=device)
        finite = bool((one @ one).float().isfinite().all())
    except (RuntimeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise OptionError(f"{device} does not compute in {dtype}: {reason}.") from error
    if not finite:
        raise OptionError(f"{device} does not compute in {dtype}. Use --dtype float32.")


@torch.no_grad()
def hold(model: PreTrainedModel, dtype: str) -> None:
    """Round the weights of ``model`` to a type, as transformers does when it loads a checkpoint.

    Buffers stay, among them the rotary frequencies: rounded, they would move every position.
    """
    whole = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == "float16":
        whole |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and whole.isdisjoint(name.split(".")):
            weight.data = weight.data.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)


def offload_folder() -> str:
    """Return a new folder for weights on the disk."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix="offloaded-", dir=cache_dir())


def removed_with(model: nn.Module, folder: str) -> None:
    """Remove ``folder`` when ``model`` is gone, at the latest when the process ends."""
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)


def spread(model: PreTrainedModel, device_map: DeviceMap, folder: str) -> None:
    """Spread a model that is on the CPU over devices; ``folder`` is for weights on the disk."""
    # It ships no type information.
    from accelerate import (  # type: ignore[import-untyped]
        dispatch_model,
        infer_auto_device_map,
    )

    if isinstance(device_map, str):
        kept_whole: Any = model._no_split_modules  # a list or a set
        found = infer_auto_device_map(model, no_split_module_classes=list(kept_whole or ()))
    else:
        found = dict(device_map)
    dispatch_model(model, found, offload_dir=folder)


# --- weights that are not on a device -------------------------------------------------------------


def _align_hook(module: nn.Module) -> Any:
    """Return Accelerate's hook that brings the weights of ``module``, if it has one."""
    hook = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", [hook]):
        if getattr(each, "offload", False) and getattr(each, "weights_map", None) is not None:
            return each
    return None


def _kept_in(model: nn.Module, name: str) -> tuple[Mapping[str, torch.Tensor], str]:
    """Return the mapping that has the values of an offloaded weight, and its name there.

    Raises:
        ModelError: no hook knows them.
    """
    module, _, last = name.rpartition(".")
    hook = _align_hook(model.get_submodule(module))
    if hook is None:
        raise ModelError(OFFLOADED)
    kept = hook.weights_map
    # Accelerate gives a module a view of the values of the whole model.
    if hasattr(kept, "prefix"):
        return kept.dataset, f"{kept.prefix}{last}"
    return kept, last


def offloaded(model: nn.Module, name: str) -> torch.Tensor:
    """Return the values of a weight that is on the meta device, from main memory or the disk.

    Raises:
        ModelError: they are not known.
    """
    kept, key = _kept_in(model, name)
    return kept[key]


def replaced(model: nn.Module, name: str, values: torch.Tensor) -> Callable[[], None]:
    """Give an offloaded weight other values, kept in main memory; return what takes them back.

    Raises:
        ModelError: its values are not known.
    """
    kept, key = _kept_in(model, name)
    # Accelerate reads this part first, and the disk for what it lacks.
    changed = cast("MutableMapping[str, torch.Tensor]", getattr(kept, "state_dict", kept))
    before = changed.get(key)
    changed[key] = values

    def take_back() -> None:
        if before is None:
            changed.pop(key, None)
        else:
            changed[key] = before

    return take_back


def devices_of(model: nn.Module) -> list[torch.device]:
    """Return the devices on which ``model`` computes, in the order of its modules."""
    return list(dict.fromkeys(_devices(model)))


def _devices(model: nn.Module) -> Iterator[torch.device]:
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if not weight.is_meta:
                yield weight.device
            elif (hook := _align_hook(module)) is not None:
                with suppress(RuntimeError):
                    yield torch.empty(0, device=hook.execution_device).device


@cache
def float64_device(device: torch.device) -> torch.device:
    """Return ``device`` if it computes in float64, else the CPU; Apple's GPUs have no float64."""
    try:
        torch.zeros((), dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return torch.device("cpu")
    return device
