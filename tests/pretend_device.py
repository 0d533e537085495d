"""A pretend accelerator: it finds tensors that were left on the CPU, on a machine without a GPU.

    import pretend_device

    pretend_device.register()
    there = pretend_device.moved(model)  # then run the code under test on this copy

A tensor on ``pretend`` keeps its values in a CPU tensor, on which PyTorch's own kernels work. What
CUDA refuses is refused here:

- an operation on tensors of two devices. A scalar of the CPU may join a pointwise operation, and an
  index on the CPU may read a tensor on the device, but not the other way round;
- random numbers for a tensor on the device from a generator of the CPU;
- ``.numpy()`` without ``.cpu()``.

And what CUDA does is done: ``torch.zeros(3)`` is on the CPU, the device has a random state of its
own, tied weights stay tied in ``model.to("pretend")``, autocast casts operations as CUDA does.
Gradients, fused optimizers, ``non_blocking`` copies, deep copies, pickling and two devices
(``pretend:0``, ``pretend:1``) work. ``pretend:1`` has no float64, as Apple's GPUs have none.

What it cannot show:

- how a GPU rounds, in which order it adds, what it can multiply in bfloat16, and what it forgets to
  wait for: here all is computed on the CPU, at once;
- kernels that CUDA lacks, or that CUDA alone has (flash attention);
- branches for ``device.type == "cuda"``: free and peak memory, the name of the card;
- a ``torch.Generator`` of the device, pinned memory, and ``out=`` or ``resize_`` with another size.
  PyTorch has no way to provide them from Python, so they fail;
- a model that comes back: ``model.to("cpu")`` unties its weights. Move a deep copy there instead.

``register`` uses PyTorch's spare backend, which has one name for the whole process, and what lets
Python provide it (``AVAILABLE``: not in the oldest PyTorch that editbench supports).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_map_only

from editbench.models import LanguageModel

NAME = "pretend"
DEVICES = 2
WITHOUT_FLOAT64 = 1
"""The number of the device that has none."""
AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
CPU = torch.device("cpu")

_registered: list[torch.library.Library] = []
"""What ``register`` added to PyTorch. It lasts as long as these objects."""
_random = [torch.Generator().manual_seed(device).get_state() for device in range(DEVICES)]
"""The random state of each device."""


class DeviceError(RuntimeError):
    """Raised for what CUDA would refuse."""


class PretendTensor(torch.Tensor):
    """A tensor on the pretend device, whose values are the CPU tensor ``values``."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor, device: torch.device) -> PretendTensor:
        made: PretendTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=device,
        )
        made.values = values
        return made

    # Functions of torch see an ordinary tensor; only operations are intercepted.
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls,
        operation: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        return _run(operation, args, kwargs or {})

    # Module.to swaps such tensors in place, so that tied weights stay one, as with CUDA
    def __tensor_flatten__(self) -> tuple[list[str], torch.device]:
        return ["values"], self.device

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, torch.Tensor], device: torch.device, size: object, stride: object
    ) -> PretendTensor:
        return PretendTensor(inner["values"], device)

    # safetensors and transformers recognise tied weights by the address of their storage
    def untyped_storage(self) -> torch.UntypedStorage:
        return self.values.untyped_storage()

    def data_ptr(self) -> int:
        return self.values.data_ptr()

    def __deepcopy__(self, memo: dict[int, object]) -> PretendTensor:
        copied = PretendTensor(self.values.detach().clone(), self.device)
        vars(copied).update({k: v for k, v in vars(self).items() if k != "values"})
        memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return copied

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        kept = self.detach().cpu()
        is_parameter = isinstance(self, torch.nn.Parameter)
        return _unpickle, (kept, str(self.device), self.requires_grad, is_parameter)

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"{self.detach().cpu()!r} on {self.device}"


def _unpickle(
    values: torch.Tensor, device: str, requires_grad: bool, is_parameter: bool
) -> torch.Tensor:
    moved = values.to(device)
    if is_parameter:
        return torch.nn.Parameter(moved, requires_grad)
    return moved.requires_grad_(requires_grad)


def _run(operation: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on the values, and put its result on the device where CUDA would."""
    tensors: list[torch.Tensor] = []

    def take(argument: Any) -> Any:
        """Return an argument with values for our tensors, and note its tensors."""
        if isinstance(argument, torch.Tensor):
            tensors.append(argument)
            return argument.values if isinstance(argument, PretendTensor) else argument
        if isinstance(argument, (list, tuple)):
            return [take(each) for each in argument]
        return argument

    values = [take(argument) for argument in args]
    named = {name: take(argument) for name, argument in kwargs.items()}
    ours = {id(t.values): t for t in tensors if isinstance(t, PretendTensor)}
    device = next(iter(ours.values())).device
    if operation is ATEN.copy_.default:
        device = args[0].device
    elif kwargs.get("device") is not None:
        device, named["device"] = _numbered(kwargs["device"]), CPU
    elif any(tensor.device != device for tensor in tensors):
        _check_devices(operation, args, tensors, device)
    _check_generator(operation, kwargs.get("generator"), device)
    result = _compute(operation, values, named, device)
    if torch.Tag.inplace_view in operation.tags:  # squeeze_ and the like change the shape, too
        return return_and_correct_aliasing(operation, args, kwargs, args[0])

    def give(result: Any) -> Any:
        if isinstance(result, torch.Tensor):
            # an operation in place returns the tensor that it was given
            return ours[id(result)] if id(result) in ours else _wrap(result, device)
        return type(result)(map(give, result)) if isinstance(result, (list, tuple)) else result

    return give(result)


def _compute(
    operation: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any], device: torch.device
) -> Any:
    """Run an operation on CPU tensors; what it draws comes from the state of ``device``."""
    drawn = torch.Tag.nondeterministic_seeded in operation.tags
    if not drawn or device.type == "cpu":
        return operation(*args, **kwargs)
    before = torch.get_rng_state()
    torch.set_rng_state(_random[device.index])
    try:
        return operation(*args, **kwargs)
    finally:
        _random[device.index] = torch.get_rng_state()
        torch.set_rng_state(before)


def _wrap(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cpu":
        return values
    if device.index == WITHOUT_FLOAT64 and values.dtype == torch.float64:
        raise DeviceError(f"{device} has no float64, as Apple's GPUs have none.")
    return PretendTensor(values, device)


def _numbered(device: torch.device | str | int) -> torch.device:
    """Return the device with its number: ``pretend`` is ``pretend:0``."""
    device = torch.device(NAME, device) if isinstance(device, int) else torch.device(device)
    if device.type != NAME:
        return device
    if (device.index or 0) >= DEVICES:
        raise DeviceError(f"there is no {device}: invalid device ordinal")
    return torch.device(NAME, device.index or 0)


def _check_devices(
    operation: torch._ops.OpOverload,
    args: tuple[Any, ...],
    tensors: list[torch.Tensor],
    device: torch.device,
) -> None:
    """Refuse tensors of several devices, except for the scalars and indices that CUDA takes."""
    written = args[0] if operation._schema.is_mutable else None
    allowed: list[torch.Tensor] = []
    if operation in INDEXING and args[0].device == device:
        allowed += [index for index in args[1] if index is not None]
    if torch.Tag.pointwise in operation.tags or operation in TAKE_SCALARS:
        allowed += [t for t in tensors if t.dim() == 0 and t is not written]
    known = {id(tensor) for tensor in allowed if tensor.device.type == "cpu"}
    if any(tensor.device != device and id(tensor) not in known for tensor in tensors):
        shapes = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise DeviceError(
            f"Expected all tensors to be on the same device, but {operation} got {shapes}."
        )


def _check_generator(
    operation: torch._ops.OpOverload, generator: torch.Generator | None, device: torch.device
) -> None:
    if generator is not None and device.type == NAME:
        raise DeviceError(
            f"Expected a {NAME!r} device type for generator but found 'cpu' ({operation})"
        )


ATEN = torch.ops.aten
INDEXING = frozenset(
    {
        ATEN.index.Tensor,
        ATEN._unsafe_index.Tensor,
        ATEN.index_put.default,
        ATEN.index_put_.default,
        ATEN._index_put_impl_.default,
    }
)
"""They read their first argument at the places in the second, which may be on the CPU."""
TAKE_SCALARS = frozenset({*INDEXING, ATEN.masked_fill.Tensor, ATEN.masked_fill_.Tensor})
"""They take a scalar of the CPU as well, without being pointwise in PyTorch's tags."""


# --- what is registered ---------------------------------------------------------------------------


def register() -> None:
    """Make ``pretend`` a device of this process; a second call does nothing."""
    if _registered:
        return
    # Else the first backward pass of a process starts a thread for each device that it knows then.
    torch.autograd.set_multithreading_enabled(False)
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    aten = torch.library.Library("aten", "IMPL")
    for operation in _factories():
        aten.impl(operation.name().removeprefix("aten::"), _factory(operation), "PrivateUse1")
    # torch.tensor(..., device="pretend") makes an empty tensor and calls this
    aten.impl("_copy_from", _copy_from, "PrivateUse1")
    for name in LOWER:
        aten.impl(name, _in_precision(name, None), "AutocastPrivateUse1")
    for name in FLOAT32:
        aten.impl(name, _in_precision(name, torch.float32), "AutocastPrivateUse1")
    fallthrough = torch.library.Library("_", "IMPL")
    fallthrough.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    _registered.extend([aten, fallthrough])


def moved(model: LanguageModel, device: str = NAME, **settings: Any) -> LanguageModel:
    """Return a copy of ``model`` on the device; ``settings`` are arguments of the copy."""
    return LanguageModel(
        deepcopy(model.model).to(device),
        model.tokenizer,
        **{"name": model.name, "precision": model.precision, **settings},
    )


class _Module:
    """What PyTorch asks of ``torch.pretend``, as of ``torch.cuda``."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return DEVICES

    def current_device(self) -> int:
        return 0

    def synchronize(self, device: object = None) -> None:
        """Everything here happens at once."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        _random[:] = [torch.Generator().manual_seed(seed).get_state()] * DEVICES

    def get_rng_state(self, device: torch.device | str | int = NAME) -> torch.Tensor:
        return _random[_numbered(device).index]

    def set_rng_state(self, state: torch.Tensor, device: torch.device | str | int = NAME) -> None:
        _random[_numbered(device).index] = state


def _factories() -> Iterator[torch._ops.OpOverload]:
    """Yield the operations that make a tensor out of nothing: those with a device alone."""
    for full in torch._C._dispatch_get_all_op_names():
        space, _, rest = full.partition("::")
        name, _, overload = rest.partition(".")
        packet = getattr(ATEN, name, None) if space == "aten" else None
        operation = getattr(packet, overload or "default", None)
        if operation is None:
            continue
        kinds = [str(argument.type) for argument in operation._schema.arguments]
        names = [argument.name for argument in operation._schema.arguments]
        if "device" in names and not any("Tensor" in kind for kind in kinds):
            yield operation


def _factory(operation: torch._ops.OpOverload) -> Callable[..., object]:
    def make(*args: Any, device: Any = None, pin_memory: object = None, **kwargs: Any) -> object:
        chosen = _numbered(NAME if device is None else device)
        _check_generator(operation, kwargs.get("generator"), chosen)
        return _wrap(_compute(operation, args, {**kwargs, "device": CPU}, chosen), chosen)

    return make


def _copy_from(
    source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False
) -> torch.Tensor:
    into = target.values if isinstance(target, PretendTensor) else target
    into.copy_(source.values if isinstance(source, PretendTensor) else source)
    return target


LOWER = (
    *("linear", "matmul", "mm", "bmm", "mv", "addmm", "addmv", "baddbmm", "conv1d"),
    "scaled_dot_product_attention",
)
"""What CUDA's autocast computes in its lower precision."""
FLOAT32 = (
    *("softmax.int", "log_softmax.int", "exp", "log", "pow.Tensor_Scalar", "cumsum", "sum"),
    *("sum.dim_IntList", "layer_norm", "rms_norm", "nll_loss", "norm.Scalar", "rsqrt"),
)
"""What it computes in float32."""


def _in_precision(name: str, dtype: torch.dtype | None) -> Callable[..., object]:
    """Return the operation on arguments cast to ``dtype`` (``None``: autocast's own)."""
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(ATEN, packet), overload or "default")
    below = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def run(*args: Any, **kwargs: Any) -> object:
        to = dtype or torch.get_autocast_dtype(NAME)

        def cast(tensor: torch.Tensor) -> torch.Tensor:
            known = tensor.is_floating_point() and tensor.dtype != torch.float64
            return tensor.to(to) if known and tensor.device.type == NAME else tensor

        with torch._C._ExcludeDispatchKeyGuard(below):
            args, kwargs = tree_map_only(torch.Tensor, cast, (args, kwargs))
            return operation(*args, **kwargs)

    return run
