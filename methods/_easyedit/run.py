"""The child's work: import one algorithm of EasyEdit, edit the model, return what changed."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import random
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from editbench.errors import MethodError
from editbench.methods._easyedit.algorithm import Algorithm
from editbench.methods._easyedit.algorithms import ALGORITHMS
from editbench.methods._easyedit.serve import inner_model

PACKAGES = ("", "models", "util", "trainer", "trainer.algs", "evaluate", "dataset")
"""Packages whose ``__init__`` imports all of EasyEdit; empty ones stand for them."""
Again = Callable[[Mapping[str, Any], Any], tuple[dict[str, Any], Any]]
Live = tuple[Any, Any, Path, Again]
"""Arguments of ``serve.Server``: the edited model, its tokenizer, the folder, and what makes one
more edit of it."""


def run(request: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], Live | None]:
    """Edit, and return the reply: the file of the changes, seconds and contexts.

    The second value is there if the edited model is a wrapper that stays in this process.
    """
    algorithm = ALGORITHMS[request["algorithm"]]
    model, tokenizer = load(Path(request["model"]), algorithm, request["device"])
    install(Path(request["package"]), algorithm)
    if _is_old(Path(request["package"])) and tokenizer.unk_token_id is None:
        tokenizer.unk_token = tokenizer.eos_token  # as GPT-2's tokenizer has it; its FT needs one
    module, apply = function(algorithm)
    hparams = hyperparameters(algorithm, request["fields"], request.get("base_fields"))
    prepare(algorithm, module, request, hparams)
    if algorithm.own_head:
        check_head(model, request["fields"])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    keys = recorded(module) if algorithm.carries_keys else []

    def again(request: Mapping[str, Any], edited: Any) -> tuple[dict[str, Any], Any]:
        hparams = hyperparameters(algorithm, request["fields"], request.get("base_fields"))
        start = time.perf_counter()
        # the functions take the model inside a wrapper, where earlier calls left what they taught
        edited = call(apply, algorithm, inner_model(edited), tokenizer, hparams, request)
        return {"seconds": time.perf_counter() - start, "contexts": contexts(module)}, edited

    reply, edited = again(request, model)
    if algorithm.result == "live":
        return reply, (edited, tokenizer, folder, again)
    changes = factors(edited) if algorithm.result == "adapter" else differences(model, before)
    if keys:
        layers = request["fields"]["layers"]
        changes |= {
            f"{layer}|keys": k for layer, k in zip(layers, keys[-len(layers) :], strict=True)
        }
    save_file(changes, folder / "changes.safetensors")
    return {**reply, "changes": "changes.safetensors"}, None


def call(
    apply: Callable[..., Any],
    algorithm: Algorithm,
    model: Any,
    tokenizer: Any,
    hparams: Any,
    request: Mapping[str, Any],
) -> Any:
    """Return what the algorithm's function returns as the edited model, after the last call."""
    torch.manual_seed(request["seed"])
    np.random.seed(request["seed"])
    random.seed(request["seed"])
    asked = request["requests"]
    for part in [[one] for one in asked] if algorithm.one_request else [asked]:
        edited, _ = apply(
            model,
            tokenizer,
            part,
            hparams,
            copy=False,
            return_orig_weights=True,
            keep_original_weight=False,
        )
    return edited


def load(folder: Path, algorithm: Algorithm, device: str) -> tuple[Any, Any]:
    """Return the model and the tokenizer as EasyEdit's editor would have made them."""
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(load_file(folder / "weights.safetensors"), False)
    # tied weights are listed once, and some buffers are made with the model
    if unexpected:
        raise MethodError(
            f"the model cannot be built again from its configuration ({unexpected[0]})"
        )
    lacking = set(dict(model.named_parameters())) & set(missing)
    if lacking:
        raise MethodError(f"the model cannot be built again ({min(lacking)} is missing)")
    model.tie_weights()
    model.config._name_or_path = model.name_or_path = folder.name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token_id = tokenizer.eos_token_id
    tokenizer.padding_side = algorithm.pads
    return model.eval().to(device), tokenizer


@torch.no_grad()
def check_head(model: Any, fields: Mapping[str, Any]) -> None:
    """Check that the model's logits are head(norm(state)), as the algorithm computes them.

    Raises:
        MethodError: they are not, for example because they are scaled or capped.
    """
    states: list[torch.Tensor] = []
    layer = model.get_submodule(fields["layer_module_tmp"].format(fields["v_loss_layer"]))
    hook = layer.register_forward_hook(
        lambda _module, _args, out: states.append(out if torch.is_tensor(out) else out[0])
    )
    ids_BT = torch.arange(3, 9, device=model.device)[None] % model.config.vocab_size
    want = model(input_ids=ids_BT, use_cache=False).logits
    hook.remove()
    head, norm = fields["lm_head_module"], model.get_submodule(fields["ln_f_module"])
    logits = norm(states[0]) @ model.get_parameter(f"{head}.weight").T
    bias = dict(model.named_parameters()).get(f"{head}.bias")
    logits = logits if bias is None else logits + bias
    if not torch.allclose(logits, want.reshape(logits.shape), rtol=1e-3, atol=1e-3):
        raise MethodError(
            "its code computes the logits as head(norm(state)), which is not what this model does, "
            "so EasyEdit cannot edit this architecture"
        )


# --- EasyEdit's modules -------------------------------------------------------------------------


def install(package: Path, algorithm: Algorithm) -> None:
    """Make ``easyeditor.models.X`` importable without the rest of EasyEdit."""
    for name in PACKAGES:
        path = package / name.replace(".", "/") if name else package
        module = ModuleType(f"easyeditor.{name}" if name else "easyeditor")
        module.__path__ = [str(path)]
        sys.modules[module.__name__] = module
    for name in algorithm.unused:
        sys.modules.setdefault(name, ModuleType(name))
    if _is_old(package):
        sys.meta_path.insert(0, _OnAnyDevice(package))
        nethook = importlib.import_module("easyeditor.util.nethook")
        nethook.Trace = _as_tuples(nethook.Trace)  # type: ignore[attr-defined]
    if algorithm.base:
        base = ALGORITHMS[algorithm.base]
        table = ModuleType("easyeditor.util.alg_dict")
        table.ALG_DICT = {base.title: function(base)[1]}  # type: ignore[attr-defined]
        sys.modules[table.__name__] = table


def _is_old(package: Path) -> bool:
    """Return whether it is as old as the package of 2023, which runs on a GPU only."""
    return not (package / "util" / "device.py").is_file()


class _OnAnyDevice(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the package of 2023, which says ``cuda:N``, for whatever device the model is on."""

    def __init__(self, package: Path):
        self.package = package

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        root, _, rest = fullname.partition(".")
        place = self.package / rest.replace(".", "/")
        if root != "easyeditor" or not rest:
            return None
        if (place / "__init__.py").is_file():
            file, within = place / "__init__.py", [str(place)]
        elif place.with_suffix(".py").is_file():
            file, within = place.with_suffix(".py"), None
        else:
            return None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=self, submodule_search_locations=within
        )

    def exec_module(self, module: ModuleType) -> None:
        path = str(module.__file__)
        text = Path(path).read_text(encoding="utf-8")
        for quote in "\"'":
            text = text.replace(f"f{quote}cuda:{{hparams.device}}{quote}", "hparams.device")
        exec(compile(text, path, "exec"), module.__dict__)


def _as_tuples(trace: type) -> type:
    """Return ``trace`` with a decoder layer's output as the tuple that it was in 2023."""

    class Tuples(trace):  # type: ignore[misc]
        def __init__(
            self, module: Any, layer: Any = None, edit_output: Any = None, **how: Any
        ) -> None:
            self.is_block = layer.rpartition(".")[2].isdigit()
            edit = edit_output
            if self.is_block and edit_output is not None:

                def edit(output: Any, layer: Any) -> Any:
                    return edit_output((output,), layer)[0]

            super().__init__(module, layer, edit_output=edit, **how)

        @property
        def output(self) -> Any:
            return (self._output,) if self.is_block else self._output

        @output.setter
        def output(self, value: Any) -> None:
            self._output = value

    return Tuples


def function(algorithm: Algorithm) -> tuple[ModuleType, Callable[..., Any]]:
    """Return the module in which the algorithm's globals lie, and the function that edits."""
    package = importlib.import_module(f"easyeditor.models.{algorithm.package}")
    owner, _, method = algorithm.apply.partition(".")
    found = getattr(package, owner)
    module = sys.modules[found.__module__]
    return module, getattr(found(), method) if method else found


def hyperparameters(
    algorithm: Algorithm, fields: Mapping[str, Any], base_fields: Mapping[str, Any] | None
) -> Any:
    """Return the algorithm's own object of hyper-parameters."""
    package = importlib.import_module(f"easyeditor.models.{algorithm.package}")
    hparams = getattr(package, algorithm.hparams)(**fields)
    for name, value in algorithm.attributes.items():
        setattr(hparams, name, value)
    if algorithm.base and base_fields is not None:
        hparams._base_hparams = hyperparameters(ALGORITHMS[algorithm.base], base_fields, None)
    return hparams


def prepare(
    algorithm: Algorithm, module: ModuleType, request: Mapping[str, Any], hparams: Any
) -> None:
    """Set the module globals that a process of EasyEdit's would have by now."""
    given = request.get("contexts")
    if given is not None:
        bare_first = ["{}", *given] if algorithm.flat else [["{}"], given]
        _contexts_of(module).CONTEXT_TEMPLATES_CACHE = bare_first  # type: ignore[attr-defined]
    if hasattr(module, "AdaLoraConfig"):  # which today's PEFT does not make without it
        steps = max(1, hparams.num_steps)
        config = partial(module.AdaLoraConfig, total_step=steps)
        setattr(module, "AdaLoraConfig", config)  # noqa: B010
    if request.get("keys"):
        earlier = load_file(request["keys"])
        sums = [earlier[str(layer)] @ earlier[str(layer)].T for layer in hparams.layers]
        module.cache_c, module.cache_c_new = torch.stack(sums), True  # type: ignore[attr-defined]


def _contexts_of(module: ModuleType) -> ModuleType:
    """Return the module that holds the contexts: SimIE's are those of ROME, WISE's lie apart."""
    for name in (module.__name__, "easyeditor.models.rome.rome_main"):
        if hasattr(sys.modules.get(name), "CONTEXT_TEMPLATES_CACHE"):
            return sys.modules[name]
    return module


def contexts(module: ModuleType) -> list[str]:
    """Return the contexts that the prompts were read in, but for the bare one."""
    cache = getattr(_contexts_of(module), "CONTEXT_TEMPLATES_CACHE", None) or []
    flat = [text for part in cache for text in ([part] if isinstance(part, str) else part)]
    return [text for text in flat if text != "{}"]


def recorded(module: ModuleType) -> list[torch.Tensor]:
    """Return a list that ``compute_ks`` of ``module`` appends the facts' keys to, (f, N)."""
    seen: list[torch.Tensor] = []
    compute = module.compute_ks

    def compute_ks(*args: Any, **named: Any) -> torch.Tensor:
        keys_Nf: torch.Tensor = compute(*args, **named)
        seen.append(keys_Nf.detach().T.cpu().contiguous())
        return keys_Nf

    module.compute_ks = compute_ks  # type: ignore[attr-defined]
    return seen


# --- what changed -------------------------------------------------------------------------------


def differences(model: Any, before: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return edited minus earlier weights, float32, of the weights that changed."""
    changes = {}
    for name, parameter in model.named_parameters():
        if name not in before:
            raise MethodError(f"the edited model has a new weight {name!r}")
        if not torch.equal(parameter, before[name]):
            change = (parameter.detach().double() - before[name].double()).float()
            changes[f"{name}|delta"] = change.cpu().contiguous()
    return changes


def factors(edited: Any) -> dict[str, torch.Tensor]:
    """Return the adapter of a PEFT model as factors of changes of weights.

    Raises:
        MethodError: the product is not what PEFT would add.
    """
    changes = {}
    for name, layer in edited.base_model.model.named_modules():
        if not hasattr(layer, "get_delta_weight"):
            continue
        (adapter,) = layer.active_adapters
        left, right = _pair(layer, adapter)
        want = layer.get_delta_weight(adapter).detach().float().cpu()
        if getattr(layer, "fan_in_fan_out", False):  # GPT-2's weights are stored transposed
            left, right = right.T, left.T
        if not torch.allclose(
            left @ right, want, rtol=1e-3, atol=1e-6 * max(1.0, want.abs().max())
        ):
            raise MethodError(f"the adapter of {name} is no product of two matrices")
        if want.any():
            changes[f"{name}.weight|left"] = left.contiguous()
            changes[f"{name}.weight|right"] = right.contiguous()
    return changes


def _pair(layer: Any, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return B and A of one adapted module, scaled as PEFT does."""
    a, b = layer.lora_A[adapter], layer.lora_B[adapter]
    scale = layer.scaling[adapter]
    if hasattr(layer, "lora_E"):  # AdaLoRA
        a = a * layer.lora_E[adapter]
        scale = scale / (layer.ranknum[adapter] + 1e-5)
    else:
        a, b = a.weight, b.weight
    return (b * scale).detach().float().cpu(), a.detach().float().cpu()
