"""The hyper-parameters of an algorithm for one model: EasyEdit's values, our layers and modules.

They are the shipped values (``algorithms.py``) or those of a YAML file, then the fields that the
option ``override`` sets. Layers, module names, the device and the folders follow from the model,
unless a YAML file or an option names layers or modules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from editbench.errors import OptionError
from editbench.methods._easyedit.algorithm import Algorithm
from editbench.methods._easyedit.algorithms import ALGORITHMS
from editbench.methods._easyedit.modules import derived, has_module
from editbench.methods._easyedit.source import Source, hparams_fields
from editbench.methods._edit.layers import check_layers, default_layers, nearest, single_layer
from editbench.models import LanguageModel

Fields = dict[str, Any]
OURS = ("alg_name", "model_name", "device", "stats_dir", "model_parallel", "fp16", "half")
"""Fields that are the bridge's: where things lie, and float32."""


def shipped(algorithm: Algorithm, hparams: str | None, override: Sequence[str] | None) -> Fields:
    """Return the values that do not depend on the model, from the YAML file if one is named.

    Raises:
        OptionError: the file cannot be read or belongs to another algorithm, or an override is no
            ``FIELD=VALUE``.
    """
    fields = dict(algorithm.values) if hparams is None else _read(algorithm, Path(hparams))
    for text in override or ():
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise OptionError(f"override={text!r} is not FIELD=VALUE, such as v_lr=0.1.")
        if name in OURS:
            raise OptionError(f"override cannot set {name}, which editbench sets itself.")
        fields[name] = _scientific(_yaml(f"override={text!r}", value))
    fields = {key: given for key, given in fields.items() if key not in OURS}
    for key, given in fields.items():
        _check_value(algorithm, key, given)
    return fields


def _yaml(origin: str, source: str | Path) -> Any:
    """Return what a text, or a file, holds as plain YAML.

    Raises:
        OptionError: it cannot be read.
    """
    try:
        text = source if isinstance(source, str) else source.expanduser().read_text("utf-8")
        return yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # 2026-13-01: ValueError
        reason = str(error).splitlines()[0].rstrip(".")
        raise OptionError(f"{origin} cannot be read as YAML: {reason}.") from None


def _check_value(algorithm: Algorithm, name: str, value: Any) -> None:
    """Check that ``value`` can be handed over, and is a number where the shipped value is one.

    Raises:
        OptionError: it is not.
    """
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise OptionError(
            f"{algorithm.title}: {name}={value!r} is no finite number, text, truth value or list."
        ) from None
    if name not in algorithm.per_layer and _is_number(algorithm.values.get(name)):
        if not _is_number(value):
            raise OptionError(f"{algorithm.title}: {name}={value!r} is no number.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read(algorithm: Algorithm, path: Path) -> Fields:
    read = _yaml(f"hparams={path}", path)
    if not isinstance(read, dict):
        raise OptionError(f"hparams={path} holds no hyper-parameters, which are FIELD: VALUE.")
    name = str(read.get("alg_name", read.get("alg", algorithm.title)))
    # The files in MEMIT-FE bear the name of MEMIT.
    if name.lower() not in (algorithm.title.lower(), algorithm.title.partition("-FE")[0].lower()):
        raise OptionError(f"hparams={path} is for {name}, and this is {algorithm.title}.")
    if "act_margin" in read:  # three fields in one, as WISE's files have it
        margins = read.pop("act_margin")
        if not isinstance(margins, list) or len(margins) != 3:
            raise OptionError(f"hparams={path}: act_margin={margins!r} is no list of 3 numbers.")
        read["alpha"], read["beta"], read["gamma"] = margins
    if "class_name" in read:  # another name of a field, in some of UltraEdit's files
        read["model_class"] = read.pop("class_name")
    return {str(key): _scientific(value) for key, value in read.items()}


def _scientific(value: Any) -> Any:
    """Return 5e-4 as a number; YAML takes it for a text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def hyperparameters(
    algorithm: Algorithm,
    source: Source,
    model: LanguageModel,
    values: Mapping[str, Any],
    layers: tuple[int, ...] | None,
) -> Fields:
    """Return all fields that ``algorithm`` takes, for ``model``.

    Args:
        values: as ``shipped`` returns them.
        layers: the layers to edit; ``None``: those in ``values``, or the usual ones.

    Raises:
        OptionError: a value is for a field that the algorithm does not have, or names a layer or
            module that the model does not have.
        ModelError: EasyEdit cannot edit this architecture.
    """
    known = known_fields(algorithm, source, values)
    chosen = _layers(algorithm, model, values, layers)
    follows = derived(algorithm, model, chosen)
    if layers is not None:  # they also say which parameters are edited
        values = {k: v for k, v in values.items() if k not in ("layers", "inner_params")}
    values = {**follows, **values, "layers": chosen}
    fields = {name: value for name, value in values.items() if name in known}
    for name in algorithm.per_layer:
        if not isinstance(fields[name], list):
            fields[name] = [fields[name]] * len(chosen)
    if lacking := [name for name, has in known.items() if not has and name not in fields]:
        raise OptionError(f"{algorithm.title} needs a value for {', '.join(lacking)} (override).")
    _check_modules(algorithm, model, fields)
    return fields


def known_fields(
    algorithm: Algorithm, source: Source, values: Mapping[str, Any]
) -> dict[str, bool]:
    """Return the fields that ``algorithm`` takes -> whether they have a default.

    Raises:
        OptionError: one of ``values`` is for none of them.
    """
    known = hparams_fields(source, algorithm)
    if unknown := sorted(set(values) - set(known) - set(algorithm.values)):
        raise OptionError(
            f"{algorithm.title} has no field {unknown[0]!r}. Its fields: {', '.join(known)}."
        )
    return known


def for_facts(algorithm: Algorithm, fields: Fields, n: int) -> Fields:
    """Return ``fields`` for a call with ``n`` facts.

    The batches divide ``n`` where the algorithm leaves out the facts behind the last full one.
    """
    if not algorithm.full_batches:
        return fields
    most = min(n, int(fields["batch_size_once"]))
    at_once = max(size for size in range(1, most + 1) if n % size == 0)
    return {**fields, "batch_size": n, "batch_size_once": at_once}


def edited_layers(fields: Mapping[str, Any]) -> list[int]:
    """Return the layers in ``fields``; empty if they name parameters, or mean all layers."""
    return _list(fields.get("layers", []))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _layers(
    algorithm: Algorithm,
    model: LanguageModel,
    values: Mapping[str, Any],
    layers: tuple[int, ...] | None,
) -> list[int]:
    depth = model.layout.depth
    named = list(layers) if layers is not None else values.get("layers")
    if named is None:
        return list(_usual(algorithm.layers, model))
    if not isinstance(named, list) or not all(type(one) is int for one in named):
        raise OptionError(f"{algorithm.title}: layers={named} is no list of layer numbers.")
    if wrong := [one for one in named if not 0 <= one < depth]:
        raise OptionError(
            f"{algorithm.title}: layers names layer {wrong[0]}, and {model.name} has the layers "
            f"0 to {depth - 1}. Leave layers out, or name layers of this model."
        )
    if not named and algorithm.layers != "all":
        raise OptionError(f"{algorithm.title}: layers names no layer.")
    return list(check_layers(model, tuple(named))) if named else []


def _usual(rule: str, model: LanguageModel) -> tuple[int, ...]:
    """Return the layers that an algorithm edits by default.

    ``one`` and ``window`` are those of our own ROME and MEMIT, so that rows compare algorithms;
    ``upper`` is layer 21 of 28 (hparams/FT), ``late`` 18 to 26 of 28 (hparams/UltraEdit) and
    ``last`` 27 of 28 (hparams/GRACE).
    """
    layout, depth = model.layout, model.layout.depth
    if rule == "all":
        return ()
    wanted = {
        "one": (single_layer(depth),),
        "window": default_layers(depth),
        "upper": (round(depth * 21 / 28),),
        "late": tuple(range(min(round(depth * 18 / 28), depth - 2), depth - 1)),
        "last": (depth - 1,),
    }[rule]
    layout.check_writable()
    return nearest(layout.writable, wanted)


def _check_modules(algorithm: Algorithm, model: LanguageModel, fields: Mapping[str, Any]) -> None:
    """Check that the model has all modules that ``fields`` name.

    Raises:
        OptionError: it has not.
    """
    names = [fields[key] for key in fields if key.endswith("_module_tmp")]
    names += _list(fields.get("rewrite_module_tmps", []))
    layers = edited_layers(fields) or [0]
    paths = [str(name).replace("{}", str(layer)) for name in names for layer in layers]
    paths += [str(fields[key]) for key in ("ln_f_module", "lm_head_module") if key in fields]
    inner = _list(fields.get("inner_params", []))
    paths += [str(name).replace("[", ".").replace("]", "") for name in inner]
    for path in paths:
        if not has_module(model, path.removesuffix(".weight")):
            raise OptionError(
                f"The hyper-parameters of {algorithm.title} name the module {path!r}, which "
                f"{model.name} does not have. Leave the field out of the file, or name a module of "
                "this model."
            )


def covariance_layers(algorithm: Algorithm, fields: Mapping[str, Any]) -> list[int]:
    """Return the layers whose covariance ``algorithm`` reads."""
    asked: Literal["never", "asked", "always"] = algorithm.covariance
    if asked == "never" or (asked == "asked" and not fields.get("mom2_adjustment")):
        return []
    return edited_layers(fields)


def base_of(algorithm: Algorithm) -> Algorithm | None:
    """Return the algorithm that ``algorithm`` wraps."""
    return ALGORITHMS[algorithm.base] if algorithm.base else None
