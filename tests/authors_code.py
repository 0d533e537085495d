"""Run the authors' own code beside ours: a checkout of ROME, MEMIT, AlphaEdit or EMMET, on a CPU.

``EDITBENCH_REFERENCE`` names a folder with the checkouts ``rome`` (kmeng01/rome at 0874014),
``memit`` (kmeng01/memit at 80426fd), ``AlphaEdit`` (jianghoucheng/AlphaEdit at f5248d3) and
``unified-model-editing`` (scalable-model-editing/unified-model-editing at 23d72b5); for later
methods ``NAS`` (SasyaTitech/NAS at 5acab48) and ``UltraEdit`` (XiaojieGu/UltraEdit at 0beb222).
Their code is imported from there and not changed, but for what it needs to run here:

- "cuda" becomes "cpu", in the source text, as it is imported.
- Decoder layers return a tensor in today's transformers. ``nethook.Trace`` shows it as the tuple
  that it was.
- Second moments and prefixes are ours, so that both sides solve the same equations.
"""

from __future__ import annotations

import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

PACKAGES = (
    "rome",
    "memit",
    "AlphaEdit",
    "emmet",
    "util",
    "dsets",
    "NAS",
    "baselines",
    "prompt_templates",
)
LLAMA = {
    "rewrite_module_tmp": "model.layers.{}.mlp.down_proj",
    "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.mlp",
    "attn_module_tmp": "model.layers.{}.self_attn",
    "ln_f_module": "model.norm",
    "lm_head_module": "model.embed_tokens",
}
GPT2 = {
    "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj",
    "layer_module_tmp": "transformer.h.{}",
    "mlp_module_tmp": "transformer.h.{}.mlp",
    "attn_module_tmp": "transformer.h.{}.attn",
    "ln_f_module": "transformer.ln_f",
    "lm_head_module": "transformer.wte",
}
MODULES = {"llama": LLAMA, "gpt2": GPT2}
"""Model type -> the names of its modules in a file of hparams."""


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the packages of a checkout from their source text."""

    def __init__(self, root: Path):
        self.root = root

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        place = self.root / fullname.replace(".", "/")
        if fullname.partition(".")[0] not in PACKAGES:
            return None
        if (place / "__init__.py").exists():
            file, within = place / "__init__.py", [str(place)]
        elif place.with_suffix(".py").exists():
            file, within = place.with_suffix(".py"), None
        elif place.is_dir():  # a package without an __init__.py
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(place)]
            return spec
        else:
            return None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=self, submodule_search_locations=within
        )

    def exec_module(self, module: ModuleType) -> None:
        path = str(module.__file__)
        text = Path(path).read_text().replace('"cuda"', '"cpu"').replace(".cuda()", "")
        exec(compile(text, path, "exec"), module.__dict__)


@contextmanager
def checkout(name: str, moments: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    """Yield ``importlib.import_module`` for the checkout ``name``; skip the test without it.

    ``moments`` has C of each module whose second moments the code asks for.
    """
    folder = Path(os.environ["EDITBENCH_REFERENCE"])
    if not (folder / name).is_dir():
        pytest.skip(f"{folder} (EDITBENCH_REFERENCE) has no checkout of {name}")

    def layer_stats(model: Any, tok: Any, layer_name: str, *_: Any, **__: Any) -> Any:
        stat = ModuleType("stat")
        stat.mom2 = ModuleType("mom2")  # type: ignore[attr-defined]
        stat.mom2.moment = lambda: moments[layer_name]  # type: ignore[attr-defined]
        return stat

    def no_text(*_: Any, **__: Any) -> None:
        raise AssertionError("the prefixes are given")

    # What would read settings from the current folder, download a corpus, or write texts.
    stubs = {
        "util.globals": {"STATS_DIR": "."},
        "util.generate": {"generate_fast": no_text},
        "rome.layer_stats": {"layer_stats": layer_stats},
    }
    before = dict(sys.modules)
    finder = _Finder(folder / name)
    sys.meta_path.insert(0, finder)
    try:
        for stub, content in stubs.items():
            sys.modules[stub] = ModuleType(stub)
            vars(sys.modules[stub]).update(content)
        with redirect_stdout(StringIO()):  # the code tells of every step
            nethook = importlib.import_module("util.nethook")
            nethook.Trace = _tuples(nethook.Trace)  # type: ignore[attr-defined]
            yield importlib.import_module
    finally:
        sys.meta_path.remove(finder)
        for module in set(sys.modules) - set(before):
            if module.partition(".")[0] in PACKAGES:
                del sys.modules[module]


def _tuples(trace: type) -> type:
    """Return ``trace`` for decoder layers whose output is shown as a tuple."""

    class Tuples(trace):  # type: ignore[misc]
        def __init__(
            self, module: Any, layer: Any = None, edit_output: Any = None, **how: Any
        ) -> None:
            self.is_block = layer.rpartition(".")[2].isdigit()
            edited = edit_output
            if self.is_block and edit_output is not None:

                def edited(output: Any, layer: Any) -> Any:
                    return edit_output((output,), layer)[0]

            super().__init__(module, layer, edit_output=edited, **how)

        @property
        def output(self) -> Any:
            return (self._output,) if self.is_block else self._output

        @output.setter
        def output(self, value: Any) -> None:
            self._output = value

    return Tuples


def theirs(model: Any) -> tuple[Any, Any]:
    """Return a copy of the Hugging Face model and its tokenizer, as the code expects them."""
    copied, tokenizer = copy.deepcopy(model.model), copy.deepcopy(model.tokenizer)
    copied.config.n_embd = copied.config.hidden_size
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "right"
    return copied, tokenizer


def requests(facts: Sequence[Any]) -> list[dict[str, Any]]:
    """Return ``facts`` as the code wants them, with a slot for the subject."""
    for fact in facts:
        assert fact.prompt.count(fact.subject) == 1
    return [
        {
            "prompt": fact.prompt.replace(fact.subject, "{}"),
            "subject": fact.subject,
            "target_new": {"str": f" {fact.target}"},
        }
        for fact in facts
    ]


def templates(prefixes: Sequence[str]) -> list[str]:
    """Return ``prefixes`` as contexts for a prompt."""
    assert not any(brace in prefix for prefix in prefixes for brace in "{}"), (
        "the code reads braces in a prefix as slots"
    )
    return [f"{prefix}{{}}" for prefix in prefixes]


def settings(method: Any, model: Any, layers: Sequence[int]) -> dict[str, Any]:
    """Return the fields that all files of hparams have, from ``method``'s options."""
    config = model.model.config
    return {
        "layers": list(layers),
        "fact_token": "subject_last",
        "v_num_grad_steps": method.steps,
        "v_lr": method.v_lr,
        "v_loss_layer": config.num_hidden_layers - 1,
        "v_weight_decay": method.v_weight_decay,
        "clamp_norm_factor": method.clamp,
        "kl_factor": method.kl_factor,
        "mom2_adjustment": True,
        **MODULES[config.model_type],
        "mom2_dataset": "given",
        "mom2_n_samples": 0,
        "mom2_dtype": "float32",
    }


def by_module(model: Any, moments: Mapping[int, Any]) -> dict[str, torch.Tensor]:
    """Return C of each layer, with our ridge, under the name of its module."""
    name = MODULES[model.model.config.model_type]["rewrite_module_tmp"]
    return {name.format(layer): moment.ridged_ff for layer, moment in moments.items()}


def run_memit(
    method: Any, model: Any, facts: Sequence[Any], moments: Mapping[int, Any], prefixes: list[str]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return MEMIT's targets (N, d) and the changes by weight, both as the code computes them."""
    with checkout("memit", by_module(model, moments)) as load:
        memit, hparams = load("memit.memit_main"), load("memit.memit_hparams")
        prefixed = [templates(prefixes)] if prefixes else []
        contexts = memit.CONTEXT_TEMPLATES_CACHE = [["{}"], *prefixed]
        chosen = hparams.MEMITHyperParams(
            **settings(method, model, list(moments)),
            layer_selection="all",
            mom2_update_weight=method.lam,
        )
        copied, tokenizer = theirs(model)
        asked = requests(facts)
        z_layer = max(moments)
        wanted = [
            memit.compute_z(copied, tokenizer, one, chosen, z_layer, contexts) for one in asked
        ]
        deltas = memit.execute_memit(copied, tokenizer, asked, chosen)
        shapes = {name: copied.get_parameter(name).shape for name in deltas}
        changes = {
            name: memit.upd_matrix_match_shape(key_mat @ val_mat.T, shapes[name])
            for name, (key_mat, val_mat) in deltas.items()
        }
    return torch.stack(wanted).detach(), changes


def run_rome(
    method: Any, model: Any, facts: Sequence[Any], moments: Mapping[int, Any], prefixes: list[str]
) -> dict[str, torch.Tensor]:
    """Return the changes by weight of ``facts``, written one after the other."""
    with checkout("rome", by_module(model, moments)) as load:
        rome, hparams = load("rome.rome_main"), load("rome.rome_hparams")
        rome.CONTEXT_TEMPLATES_CACHE = ["{}", *templates(prefixes)]
        chosen = hparams.ROMEHyperParams(
            **settings(method, model, list(moments)), context_template_length_params=[]
        )
        copied, tokenizer = theirs(model)
        rome.apply_rome_to_model(copied, tokenizer, requests(facts), chosen)
    return differences(model, copied, moments)


def run_alphaedit(
    method: Any, model: Any, facts: Sequence[Any], moments: Mapping[int, Any], prefixes: list[str]
) -> dict[str, torch.Tensor]:
    """Return the changes by weight."""
    null = []
    for moment in moments.values():
        # experiments/evaluate.py, get_project
        vectors, values, _ = torch.linalg.svd(moment.c_ff)
        kept = vectors[:, values < method.threshold]
        null.append((kept @ kept.T).float())
    with checkout("AlphaEdit", {}) as load:
        main = load("AlphaEdit.AlphaEdit_main")
        main.CONTEXT_TEMPLATES_CACHE = [["{}"], templates(prefixes)]
        chosen = main.AlphaEditHyperParams(
            **settings(method, model, list(moments)),
            model_name="",
            layer_selection="all",
            mom2_update_weight=0,
            nullspace_threshold=method.threshold,
            L2=method.ridge,
        )
        chosen.lm_head_module = "lm_head"
        copied, tokenizer = theirs(model)
        projections = torch.stack(null)
        main.apply_AlphaEdit_to_model(
            copied,
            tokenizer,
            requests(facts),
            chosen,
            cache_c=torch.zeros_like(projections),
            P=projections,
        )
    return differences(model, copied, moments)


def run_emmet(
    method: Any, model: Any, facts: Sequence[Any], moments: Mapping[int, Any], prefixes: list[str]
) -> dict[str, torch.Tensor]:
    """Return the changes by weight."""
    second = by_module(model, moments)
    with checkout("unified-model-editing", {}) as load:
        main = load("emmet.emmet_main")
        main.CONTEXT_TEMPLATES_CACHE = [["{}"], templates(prefixes)]
        # Its statistics come with the keys that they were measured on, which only a report reads.
        main.get_cov = lambda _, __, layer_name, *___, **____: (second[layer_name], None)
        chosen = main.EMMETHyperParams(
            **settings(method, model, list(moments)),
            layer_selection="all",
            mom2_update_weight=1,
            calculate_objective_value=False,
            update_norm_lambda=0,
            emmet_lambda=method.slack,
        )
        copied, tokenizer = theirs(model)
        main.apply_emmet_to_model(copied, tokenizer, requests(facts), chosen)
    return differences(model, copied, moments)


def run_nas(
    method: Any, model: Any, facts: Sequence[Any], prefixes: list[str], anchor: float
) -> torch.Tensor:
    """Return the targets (N, d) of NAS for this anchor."""
    layers = method.edited_layers(model)
    with checkout("NAS", {}) as load:
        stats = ModuleType("util.vstar_stats")
        # The rest of this file looks for facts and settings of its own.
        source = (Path(os.environ["EDITBENCH_REFERENCE"]) / "NAS/util/vstar_stats.py").read_text()
        start, end = source.index("def scale_vector_to_norm"), source.index("def get_or_compute")
        vars(stats).update(torch=torch, get_or_compute_mean_vstar_norm=lambda **_: anchor)
        exec(source[start:end], vars(stats))
        sys.modules["util.vstar_stats"] = stats
        main, hparams = load("NAS.compute_z"), load("NAS.NAS_hparams")
        chosen = hparams.NASHyperParams(
            **settings(method, model, layers),
            model_name="",
            layer_selection="all",
            mom2_update_weight=0,
            nullspace_threshold=method.threshold,
            L2=method.ridge,
        )
        chosen.lm_head_module = "lm_head"
        copied, tokenizer = theirs(model)
        contexts = [["{}"], templates(prefixes)]
        wanted = [
            main.compute_z(copied, tokenizer, one, chosen, layers[-1], contexts)
            for one in requests(facts)
        ]
    return torch.stack(wanted).detach()


def differences(model: Any, edited: Any, layers: Mapping[int, Any]) -> dict[str, torch.Tensor]:
    """Return edited minus present weights, by weight."""
    names = [model.layout.weight_name(layer) for layer in layers]
    return {
        name: (edited.get_parameter(name) - model.model.get_parameter(name)).detach()
        for name in names
    }


def apart(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the norm of the difference as a share of the reference's."""
    ours, reference = ours.double(), reference.double()
    return float((ours - reference).norm() / reference.norm())
