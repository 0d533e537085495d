"""Read weights and tokenizer from an alias, a folder, the hub or a GGUF file."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer
from transformers import logging as hf_logging

from editbench.adapters import adapter_base, fold_adapter
from editbench.aliases import ALIASES, alias_file
from editbench.errors import EditbenchError, ModelError, UnknownNameError
from editbench.gguf import read_gguf
from editbench.hub import offline_if_unreachable
from editbench.placing import Loading, hold, offload_folder, removed_with, spread
from editbench.weights import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
"""A folder with one of these has a tokenizer."""
LOADING = Loading()
JSON_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "model.safetensors.index.json",
    "adapter_config.json",
)
"""Files of a model's folder that are checked before it is loaded, where they exist."""


class Checkpoint(NamedTuple):
    """What a name refers to."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapter: str | None = None
    """Description of the adapter that was added to the weights, if there was one."""


def read_checkpoint(name: str, trust_remote_code: bool, how: Loading = LOADING) -> Checkpoint:
    """Return the model and the tokenizer that ``name`` refers to, held in ``how.dtype``.

    ``name`` is an alias, a local folder, a ``.gguf`` file or a hub id. If a folder or hub id holds
    a PEFT adapter, the adapter is added to the weights, and one without a model to those of the
    model that it names. The model is on the CPU unless ``how`` has a device map.

    Raises:
        ModelError: if they cannot be loaded, or weights are missing (``weights.check_weights``).
            The message says what was looked for, and where.
        UnknownNameError: if ``name`` is none of these.
    """
    place = located(name)
    if isinstance(place, Path) and place.suffix == ".gguf":
        model, tokenizer = read_gguf(place)
        # A GGUF has no type of its own, since it is unpacked.
        if how.dtype not in ("auto", "float32"):
            hold(model, how.dtype)
        return Checkpoint(_placed(model, how), tokenizer)
    if isinstance(place, Path) and is_adapter(place):
        return _read_adapter(str(place), adapter_base(str(place)), trust_remote_code, how)
    return _read_pretrained(str(place), trust_remote_code, how)


def _placed(model: PreTrainedModel, how: Loading) -> PreTrainedModel:
    """Spread a model that was loaded on the CPU, if ``how`` says so."""
    if how.device_map is not None:
        folder = offload_folder()
        removed_with(model, folder)
        spread(model, how.device_map, folder)
    return model


def located(name: str) -> Path | str:
    """Return the GGUF file, the folder or the hub id that ``name`` refers to, and read no weights.

    Raises:
        ModelError: there is no such file, or the folder holds no model that can be read.
        UnknownNameError: if ``name`` is none of these.
    """
    path = Path(name).expanduser()
    if name in ALIASES:
        return alias_file(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"There is no GGUF file {path}.")
        return path
    if path.is_dir():
        if is_adapter(path):
            _check_json(path)
        else:
            _check_folder(path)
        return path
    if path.is_file():
        raise ModelError(
            f"{path} is a file, and a model is a folder with a config.json or a .gguf file."
        )
    # owner/name; an existing folder of that name was taken above
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    if "/" in name or name.startswith((".", "~")):
        raise ModelError(f"There is no model folder or GGUF file at {path}.")
    raise UnknownNameError(
        "model", name, ALIASES, "A hub id (owner/name), a local folder or a .gguf file works too."
    )


def _check_folder(path: Path) -> None:
    """Check that a folder holds a model and a tokenizer, and that their descriptions can be read.

    Raises:
        ModelError: the message names the file.
    """
    if not (path / "config.json").is_file():
        raise ModelError(f"Folder {path} is not a model: it has no config.json.")
    if not has_tokenizer(path):
        raise ModelError(
            f"Model folder {path} has no tokenizer (no tokenizer.json). "
            f"Save it there with tokenizer.save_pretrained({str(path)!r})."
        )
    _check_json(path)


def is_adapter(path: Path) -> bool:
    """Return whether a folder holds an adapter without its model."""
    return (path / "adapter_config.json").is_file() and not (path / "config.json").is_file()


def whole_model(place: Path | str) -> Path | str:
    """Return where the model is that ``located`` returned: of an adapter, the one it belongs to.

    Raises:
        ModelError: an adapter does not name its model, or names one that cannot be found.
    """
    if isinstance(place, Path) and place.suffix == ".gguf":
        return place
    name = str(place)
    with named_errors(name):
        base = adapter_base(name)
    if base is None or base == name:
        return place
    base = _checked_base(name, base)
    try:
        return located(base)
    except EditbenchError as error:
        raise ModelError(f"{name} holds an adapter of {base!r}. {error}") from error


def _checked_base(name: str, base: str | None) -> str:
    """Return the model that the adapter in ``name`` says that it belongs to.

    Raises:
        ModelError: it names none, or an adapter.
    """
    if not base:
        raise ModelError(
            f"{name} holds an adapter, and its adapter_config.json does not name the model that it "
            "belongs to. Write that into base_model_name_or_path."
        )
    if is_adapter(Path(base)):
        raise ModelError(f"{name} holds an adapter of {base!r}, which is an adapter itself.")
    return base


def has_tokenizer(path: Path) -> bool:
    """Return whether a folder has files of a tokenizer."""
    return any((path / file).exists() for file in TOKENIZER_FILES)


def _check_json(path: Path) -> None:
    """Check the files of ``JSON_FILES``, since errors of transformers do not name them."""
    for file in (path / name for name in JSON_FILES):
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            flaw = f"is not valid JSON ({error})"
        else:
            if isinstance(content, dict):
                continue
            flaw = f"holds a {type(content).__name__} instead of an object"
        raise ModelError(f"Model {str(path)!r} could not be loaded: {file.name} {flaw}.")


def _read_adapter(name: str, base: str | None, trust_remote_code: bool, how: Loading) -> Checkpoint:
    """Return the model that the adapter in ``name`` belongs to, with the adapter in its weights.

    Raises:
        ModelError: if there is no such model, or the adapter does not fit it.
    """
    base = _checked_base(name, base)
    try:
        # On the CPU first, since an adapter cannot be added to weights that are on the disk.
        whole = replace(how, device_map=None)
        model, tokenizer, own = read_checkpoint(base, trust_remote_code, whole)
    except EditbenchError as error:
        raise ModelError(f"{name} holds an adapter of {base!r}. {error}") from error
    with named_errors(name):
        adapter = fold_adapter(model, name)
        if not Path(name).is_dir() or has_tokenizer(Path(name)):
            with contextlib.suppress(OSError, ValueError):  # a hub id may have none
                tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
        model = _placed(model, how)
    return Checkpoint(model, tokenizer, f"{own}; {adapter}" if own else adapter)


def _read_pretrained(name: str, trust_remote_code: bool, how: Loading) -> Checkpoint:
    with named_errors(name):
        base = adapter_base(name)
        if base is None or base == name:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
            options: dict[str, object] = {
                # a pickled checkpoint could run code while it is loaded
                "use_safetensors": True,
                "trust_remote_code": trust_remote_code,
            }
            if base or how.device_map is None:
                model = load_weights(name, f"Model {name!r}", how.dtype, **options)
                adapter = fold_adapter(model, name) if base else None
                return Checkpoint(_placed(model, how), tokenizer, adapter)
            # transformers puts each weight where it goes, so that no place needs to hold them all
            folder = offload_folder()
            options |= {"device_map": how.device_map, "offload_folder": folder}
            model = load_weights(name, f"Model {name!r}", how.dtype, **options)
            removed_with(model, folder)
            return Checkpoint(model, tokenizer)
    return _read_adapter(name, base, trust_remote_code, how)


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Turn what libraries raise while ``name`` is loaded into one sentence, offline if need be.

    Raises:
        ModelError: the reason, with the damaged file if there is one.
    """
    is_local = Path(name).is_dir()
    try:
        with nullcontext() if is_local else offline_if_unreachable():
            yield
    except (EditbenchError, MemoryError):
        raise
    # A wrong value in a configuration is met anywhere, as an error of any type.
    except Exception as error:
        reason = (damaged(Path(name)) if is_local else None) or sentence(error)
        hint = (
            ""
            if is_local
            else " Without a network, give a local folder: --model PATH "
            "(config.json, model.safetensors, tokenizer.json)."
        )
        raise ModelError(f"Model {name!r} could not be loaded: {reason}{hint}") from error


def sentence(error: Exception) -> str:
    """Return what an error of a library says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if isinstance(error, ZeroDivisionError):
        return f"a number of its configuration is zero and cannot be ({lines[0]})"
    if isinstance(error, KeyError):
        return f"{lines[0]} is missing, or not known"
    if "instantiate the backend tokenizer" in lines[0]:
        return "its tokenizer has no vocabulary (tokenizer.json or tokenizer.model)"
    # the next line has the reason
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def damaged(folder: Path) -> str | None:
    """Return what is wrong with a file of weights in ``folder``, ``None`` if all can be opened."""
    for file in sorted(folder.glob("*.safetensors")):
        if not file.is_file():
            continue
        with file.open("rb") as opened:
            if opened.read(24) == b"version https://git-lfs.":
                return f"{file.name} is a pointer of Git LFS, not the file itself; run git lfs pull"
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{file.name} is damaged or incomplete ({error})"
    return None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and log lines of transformers inside."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
