"""Second moments of keys, C = E[k k^T]: what weight editors must not disturb.

One service measures and caches them for all editors.

    # N tokens, f MLP inner width

k is the input of the MLP's output projection at every token of a text but the first. The first
token is an attention sink whose activations are hundreds of times larger, and would dominate C. One
forward pass serves all layers and ends at the highest one. Products are float32, sums float64.

Sources are ``self`` (the model's own text, sampled at temperature 1, which needs no data: see
``own_text.py``), a text file with one paragraph per line, and a JSONL file or hub data set with a
field ``text``. Several separated by commas are averaged: text that resembles yours protects yours
better (``benchmarks/weight_editors.md``).

Measuring ends when the requested tokens are counted, or for own text at the end of the last batch.
With 2 ``FIRST_CHECK`` tokens or more it may end earlier. The update direction of an edit is C^-1 k,
so at every doubling of the tokens C^-1 K of ``PROBES`` held-out keys is compared with that of the
previous check. Once the mean cosine has reached ``STABLE`` at every layer, no more text is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import ceil
from pathlib import Path
from typing import TypedDict, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from editbench import progress, tensors
from editbench.changes import is_finite
from editbench.errors import DataError, MethodError
from editbench.hub import cache_dir
from editbench.memory import TEMPLATE_TOKENS, Phase, free_bytes
from editbench.methods._common.hooks import Captured
from editbench.methods._common.memory import check_memory
from editbench.models import LanguageModel, batched, float64_device
from editbench.outline import Outline
from editbench.own_text import AT_ONCE as TEXTS_AT_ONCE
from editbench.own_text import own_texts
from editbench.pace import Work
from editbench.tensors import filed, read_tensors
from editbench.types import digest

SAMPLE_LENGTH = 64
"""Most tokens of one text that are read."""
BATCH_TOKENS = 1024
"""Most tokens of one forward pass, padding included."""
RIDGE = 1e-6
"""Added to C as a share of its mean diagonal, so that unused directions keep the solve finite."""
PROBES = 64
"""Held-out keys that tell whether the update direction is stable."""
STABLE = 0.985
"""Cosine of C^-1 k between n and 2n tokens at which measuring ends."""
FIRST_CHECK = 20_000
"""Tokens after which stability is checked for the first time."""
FORMAT = 4
"""Part of the cache key. 4: products in float32 whatever the precision of the forward pass."""


class Origin(TypedDict, total=False):
    """What a matrix was measured on. The fields up to ``layer`` are its key in the cache."""

    format: int
    model: str
    """Fingerprint of the weights."""
    precision: str
    source: str
    """``self``, the hash of another text, or ``gradients at SITE`` of a Fisher information."""
    tokens: int
    """Tokens asked for."""
    seed: int
    length: int
    layer: int
    name: str
    """Name of the model."""
    text: str
    """The source as the user wrote it."""
    made: str
    """Date and time."""


class _Stored(Origin):
    """What a file of the cache says about its matrix."""

    counted: int
    """Tokens that were counted."""
    checksum: str


@dataclass(frozen=True)
class Moment:
    """C of one layer, factorised at most once, with what it was measured on."""

    c_ff: torch.Tensor
    """(f, f), float64, CPU, the mean over tokens."""
    tokens: int
    origin: Origin = field(default_factory=Origin)

    @property
    def ridged_ff(self) -> torch.Tensor:
        """C + RIDGE tr(C)/f I."""
        ridged_ff = self.c_ff.clone()
        ridged_ff.diagonal().add_(RIDGE * self.c_ff.diagonal().mean())
        return ridged_ff

    @cached_property
    def cholesky_ff(self) -> torch.Tensor:
        """The lower factor of ``ridged_ff``.

        Raises:
            MethodError: C is not positive definite even with the ridge.
        """
        # It reports failure without raising, so that the error below can name the layer.
        factor, failed = torch.linalg.cholesky_ex(self.ridged_ff)
        if failed or not is_finite(factor):
            raise MethodError(
                f"The covariance of layer {self.origin.get('layer', '?')} ({self.tokens} tokens) "
                "is singular or not finite, so no update can be solved with it. Measure it on more "
                "tokens (covariance_tokens) or another text (covariance)."
            )
        return _in_file(factor)

    @cached_property
    def eigen(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues (f,), ascending, and eigenvectors (f, f) of C."""
        values, vectors = torch.linalg.eigh(self.c_ff)
        # Eigenvalues below 0 are rounding: C has none.
        return values.clamp(min=0), _in_file(vectors)

    def solve(self, keys_fN: torch.Tensor) -> torch.Tensor:
        """Return C^-1 K for keys (f, N), in float64."""
        # In float64: with the ridge the condition number is bounded only by f / RIDGE, beyond
        # float32.
        return torch.cholesky_solve(keys_fN.cpu().double(), self.cholesky_ff)


def _in_file(matrix_ff: torch.Tensor) -> torch.Tensor:
    """Return a large matrix from a file, so that only the layer that is written takes memory."""
    if matrix_ff.nbytes < tensors.LARGE:
        return matrix_ff
    try:
        return filed([("matrix", matrix_ff)], matrix_ff.nbytes)["matrix"]
    except OSError:
        return matrix_ff  # a full disk costs memory, not results


def identity_moment(f: int) -> Moment:
    """Return C = I, as EasyEdit's ROME settings have it; here for comparison only."""
    return Moment(torch.eye(f, dtype=torch.float64), 0, {"source": "identity"})


# --- the service --------------------------------------------------------------------------------


def second_moments(
    model: LanguageModel,
    layers: Sequence[int],
    source: str,
    tokens: int,
    seed: int,
    weights: str | None = None,
) -> dict[int, Moment]:
    """Return C of each of ``layers`` over about ``tokens`` tokens, from the cache or measured.

    ``weights`` is the fingerprint of ``model``, if it is known.

    Raises:
        DataError: ``source`` is neither ``self`` nor readable text.
        MethodError: The matrices do not fit into memory, or the activations are not finite.
        ModelError: A layer has no projection that reads keys, or the model ignores padding.
    """
    if source == "identity":
        return {layer: identity_moment(_width(model, layer)) for layer in layers}
    weights = weights or model.fingerprint()
    names = [name.strip() for name in source.split(",")]
    parts = [_one_source(model, layers, name, tokens, seed, weights) for name in names]
    if len(parts) == 1:
        return parts[0]
    averaged = {}
    for layer in layers:
        moments = [part[layer] for part in parts]
        origin: Origin = {**moments[0].origin, "source": source}
        # Each source has the same weight, however many tokens it gave.
        c_ff = _in_file(torch.stack([moment.c_ff for moment in moments]).mean(0))
        averaged[layer] = Moment(c_ff, sum(moment.tokens for moment in moments), origin)
    return averaged


def held_by_moments(model: Outline, layers: Sequence[int], matrices: int) -> list[Phase]:
    """Return what is held until C of ``layers`` is there, and then solved with.

    Args:
        matrices: f x f matrices of float64 that are kept of each layer.
    """
    sizes = [8 * model.layout.parts[layer].mlp_width ** 2 for layer in layers]
    kept = matrices * in_memory(model, layers)
    return [
        # A chat turn of the model's own opens with the template.
        Phase("own text", model.writing(TEXTS_AT_ONCE, TEMPLATE_TOKENS, SAMPLE_LENGTH)),
        # The sums, and nearly two matrices while one is added to or saved (1.7 were measured).
        Phase("covariance", {}, {"covariance": sum(sizes) + 2 * max(sizes)}),
        # One more of the ridge and of the factor while they are computed.
        Phase("factors of the covariance", {}, {"covariance": kept + 2 * max(sizes)}),
    ]


def in_memory(model: Outline, layers: Sequence[int]) -> int:
    """Return the bytes of one float64 matrix (f, f) of each layer, but for those in files."""
    sizes = [8 * model.layout.parts[layer].mlp_width ** 2 for layer in layers]
    return sum(size for size in sizes if size < tensors.LARGE)


def work_of_moments(model: Outline, layers: Sequence[int], source: str, tokens: int) -> Work:
    """Return the work of measuring C of ``layers`` from ``source``, if nothing is in the cache."""
    if source == "identity":
        return Work()
    texts = ceil(tokens / SAMPLE_LENGTH)
    read = tokens + texts * TEMPLATE_TOKENS
    widths = [model.layout.parts[layer].mlp_width for layer in layers]
    own = source == "self"
    return Work(
        # the openings, and the whole texts up to the highest layer
        read=read * (layers[-1] + 1) / model.depth + (texts * TEMPLATE_TOKENS if own else 0),
        written=tokens if own else 0,
        writing=SAMPLE_LENGTH * ceil(texts / TEXTS_AT_ONCE) if own else 0,
        # in float32, which takes half as long
        products=sum(read * f**2 / 2 for f in widths),
    )


def _one_source(
    model: LanguageModel, layers: Sequence[int], source: str, tokens: int, seed: int, weights: str
) -> dict[int, Moment]:
    widths = {layer: _width(model, layer) for layer in layers}
    content = None if source == "self" else "\n".join(_documents(source, tokens))
    # edits in a sequence share the statistics of the unedited model, where these are cached
    hashes = [model.applied[0].model_hash] if model.applied else []
    moments: dict[int, Moment] = {}
    origin: Origin = {}
    for model_hash in [*hashes, weights]:
        origin = {
            "format": FORMAT,
            "model": model_hash,
            "precision": model.precision,
            # A hash of the text, not its path: a changed file is measured anew. Given text is
            # read in order, so no seed enters.
            "source": source if content is None else digest(content)[:16],
            "tokens": tokens,
            "seed": seed if content is None else 0,
            "length": SAMPLE_LENGTH,
        }
        moments = _all_cached(origin, widths)
        if len(moments) == len(set(layers)):
            return moments
    # ``origin`` and ``moments`` are now those of the present weights.
    missing = [layer for layer in dict.fromkeys(layers) if layer not in moments]
    check_memory(
        # the sums, then one matrix with its ridge and its factor
        8 * (sum(f * f for f in widths.values()) + 2 * max(widths.values()) ** 2),
        f"the covariance of {len(widths)} layers of width {max(widths.values())}",
    )
    blocks = (
        _written(model, tokens, seed) if content is None else iter([_rows(model, content, tokens)])
    )
    measured = measure(model, missing, blocks, tokens)
    for layer in missing:
        # Taken out, so that its memory is free once it is in the cache.
        moment = measured.pop(layer)
        moments[layer] = keep(moment, {**origin, "layer": layer}, model, source)
    return moments


def _width(model: LanguageModel, layer: int) -> int:
    """Return the width f of the keys at ``layer``.

    Raises:
        ModelError: The layer has no projection that reads keys.
    """
    model.layout.weight_name(layer)
    return model.layout.parts[layer].mlp_width


def _all_cached(origin: Origin, widths: Mapping[int, int]) -> dict[int, Moment]:
    """Return those matrices of the layers in ``widths`` that are cached."""
    by_layer = {layer: cached({**origin, "layer": layer}, f) for layer, f in widths.items()}
    return {layer: moment for layer, moment in by_layer.items() if moment is not None}


@torch.no_grad()
def measure(
    model: LanguageModel, layers: Sequence[int], blocks: Iterator[list[list[int]]], budget: int
) -> dict[int, Moment]:
    """Return C of ``layers`` over ``blocks`` of texts, read until the update direction is stable.

    ``blocks`` holds rows of token ids, about ``budget`` tokens in all.

    Raises:
        MethodError: The activations are not finite.
    """
    model.check_head()  # it runs forward passes, which must not meet the hooks
    # A smaller budget ends before there would be two checks to compare.
    held_out = PROBES if budget >= 2 * FIRST_CHECK else 0
    sums = _Sums({layer: _width(model, layer) for layer in layers}, held_out)
    # The held-out keys pass through the same hooks, and are not counted.
    total, next_check = -held_out, FIRST_CHECK
    with progress.task(
        f"covariance of {len(layers)} layers, cached for next time", budget, "tokens"
    ) as bar:
        for chunk in _by_tokens(blocks):
            ids_BT, mask_BT, own_BT = model.in_one_pass(chunk)
            # every token but the first of each row, and no padding
            sums.counted_BT = (own_BT.cumsum(-1) > 1) & own_BT.bool()
            with ExitStack() as hooks, model.compute():
                for layer in layers:
                    projection = model.layout.out_projection(model.model, layer)
                    handle = projection.register_forward_pre_hook(sums.hook(layer))
                    hooks.callback(handle.remove)
                try:
                    model.hidden(ids_BT, mask_BT)
                except Captured:
                    pass
            total += int(sums.counted_BT.sum())
            bar.advance(int(own_BT.sum()))
            if held_out and total >= next_check:
                if sums.stable(total):
                    break
                next_check *= 2
    for layer, total_ff in sums.total_ff.items():
        if not is_finite(total_ff):
            dtype = next(model.model.parameters()).dtype
            raise MethodError(
                f"The activations of {model.name} at layer {layer} are not finite in {dtype}. "
                "Load the model in float32 or bfloat16."
            )
    return {layer: sums.taken(layer, total) for layer in layers}


class _Sums:
    """Sums of k k^T by layer, and the held-out keys that tell when to stop."""

    def __init__(self, widths: Mapping[int, int], held_out: int):
        self.held_out, self.last = held_out, max(widths)
        self.widths = widths
        self.total_ff: dict[int, torch.Tensor] = {}
        self.probes = {layer: torch.zeros(0, f) for layer, f in widths.items()}
        self.directions: dict[int, torch.Tensor] = {}
        self.counted_BT = torch.zeros(0, 0, dtype=torch.bool)
        """Which tokens of the present batch are counted."""

    def hook(self, layer: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        """Return a hook that adds the keys of a pass and ends the pass at the highest layer."""

        def add(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            counted_N = self.counted_BT.reshape(-1).to(args[0].device)
            keys_Nf = args[0].reshape(-1, args[0].shape[-1])[counted_N].float()
            # The first keys are held out and stay out of the sum.
            if (taken := self.held_out - len(self.probes[layer])) > 0:
                self.probes[layer] = torch.cat([self.probes[layer], keys_Nf[:taken].cpu()])
                keys_Nf = keys_Nf[taken:]
            if layer not in self.total_ff:
                self.total_ff[layer] = self.zeros(layer, keys_Nf.device)
            # Adding in place makes a float32 number float64 without a copy of the whole.
            self.total_ff[layer] += gram(keys_Nf).to(self.total_ff[layer].device)
            if layer == self.last:
                raise Captured

        return add

    def zeros(self, layer: int, device: torch.device) -> torch.Tensor:
        """Return a sum of nothing (f, f), on ``device`` if that has float64 and room for all."""
        f, all_f = self.widths[layer], sum(f * f for f in self.widths.values())
        there = float64_device(device)
        if there.type != "cpu" and 2 * 8 * all_f > free_bytes(there):
            there = torch.device("cpu")
        return torch.zeros(f, f, dtype=torch.float64, device=there)

    def moment(self, layer: int, total: int) -> Moment:
        """Return C of ``layer`` over ``total`` tokens."""
        return Moment(self.total_ff[layer].cpu() / total, total)

    def taken(self, layer: int, total: int) -> Moment:
        """Return ``moment`` in place of the sum, which is then no longer there."""
        return Moment(self.total_ff.pop(layer).cpu().div_(total), total)

    def stable(self, total: int) -> bool:
        """Return whether C^-1 K of the held-out keys agrees with the last call's at every layer."""
        now = {
            layer: self.moment(layer, total).solve(self.probes[layer].T) for layer in self.total_ff
        }
        before, self.directions = self.directions, now
        return bool(before) and min(_agreement(now[i], before[i]) for i in now) >= STABLE


def gram(rows_Nf: torch.Tensor) -> torch.Tensor:
    """Return the sum of k k^T over float32 rows, (f, f), float32."""
    # autocast may be on, and would multiply in bfloat16
    with torch.autocast(rows_Nf.device.type, enabled=False):
        return rows_Nf.T @ rows_Nf


def _agreement(now_fN: torch.Tensor, before_fN: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(now_fN, before_fN, dim=0).mean().item()


def source_files(source: str) -> dict[str, str]:
    """Return the SHA-256 of each file that ``source`` names."""
    names = [name for name in map(str.strip, source.split(",")) if name not in ("self", "identity")]
    paths = {name: Path(name).expanduser() for name in names}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if path.is_file()
    }


# --- texts --------------------------------------------------------------------------------------


def _documents(source: str, tokens: int) -> Iterator[str]:
    """Yield the paragraphs of a file or hub data set, enough for ``tokens`` tokens."""
    path, most = Path(source).expanduser(), 16 * tokens  # characters
    if path.suffix in (".jsonl", ".json") and path.is_file():
        documents = _jsonl(path)
    elif path.exists() or source.count("/") != 1 or source.startswith((".", "/", "~")):
        # A path that does not exist comes here too, for the error of ``_read``.
        documents = iter(_read(path, source).split("\n"))
    else:  # the form of a hub id: owner/name
        documents = _hub(source)
    # About 4 characters make a token, and texts are cut, so 16 per token are plenty.
    length = 0
    for document in documents:
        for paragraph in filter(str.strip, document.split("\n")):
            yield paragraph
            length += len(paragraph[: 16 * SAMPLE_LENGTH])
        if length > most:
            return


def source_texts(
    model: LanguageModel, source: str, tokens: int, seed: int
) -> list[tuple[list[int], list[int]]]:
    """Return about ``tokens`` tokens of the text that C is measured on.

    For ``identity``, which has no text, it is the model's own. Each text is a pair: the ids of its
    opening and the ids of the rest.

    Raises:
        DataError: As ``second_moments``.
    """
    names = [name.strip() for name in source.split(",")]
    share = tokens // len(names)
    pairs: list[tuple[list[int], list[int]]] = []
    for name in names:
        if name in ("self", "identity"):
            for block in own_texts(model, share, seed, SAMPLE_LENGTH):
                pairs += block
        else:
            rows = _rows(model, "\n".join(_documents(name, share)), share)
            # The first token is the opening, since nothing before it predicts it.
            pairs += [(row[:1], row[1:]) for row in rows]
    return pairs


def _read(path: Path, source: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Covariance source {source!r} is neither 'self' nor a readable UTF-8 file nor a hub "
            f"data set: {error}."
        ) from error


def _jsonl(path: Path) -> Iterator[str]:
    for number, line in enumerate(_read(path, str(path)).split("\n"), 1):
        if line.strip():
            try:
                yield _text(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"Covariance source {path}, line {number}: not a JSON object with a field "
                    "'text' that holds a string."
                ) from error


def _text(record: dict[str, object]) -> str:
    value = record["text"]
    if not isinstance(value, str):
        raise TypeError("the field 'text' holds no string")
    return value


def _hub(source: str) -> Iterator[str]:
    # Imported here, since only a hub source needs it.
    import datasets

    from editbench.hub import offline_if_unreachable

    try:
        with offline_if_unreachable():
            rows = datasets.load_dataset(source, split="train", streaming=True)
            for row in rows:
                yield _text(row)
    except Exception as error:  # datasets raises errors of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"Covariance source {source!r} is no file, and could not be read as a hub data set "
            f"with a field 'text': {reason}. Give a local text or JSONL file, or 'self'."
        ) from error


def _rows(model: LanguageModel, document: str, tokens: int) -> list[list[int]]:
    """Return paragraphs of a text as ids, cut at ``SAMPLE_LENGTH``, up to ``tokens`` in all."""
    rows, budget = [], tokens
    for paragraph in filter(str.strip, document.split("\n")):
        row = model.prompt_ids(paragraph)[: min(SAMPLE_LENGTH, budget)]
        if len(row) > 1:
            rows.append(row)
            budget -= len(row)
        if budget <= 1:
            break
    if not rows:
        raise DataError("The covariance source holds no text of two tokens or more.")
    return rows


def _written(model: LanguageModel, tokens: int, seed: int) -> Iterator[list[list[int]]]:
    """Yield the model's own texts as whole rows."""
    for block in own_texts(model, tokens, seed, SAMPLE_LENGTH):
        yield [opening + written for opening, written in block]


def _by_tokens(blocks: Iterator[list[list[int]]]) -> Iterator[list[list[int]]]:
    """Yield batches of about ``BATCH_TOKENS`` tokens, of rows of like length.

    Each stretch of rows is sorted by itself, so that an early end has still seen texts of every
    kind and length.
    """
    for rows in blocks:
        for stretch in batched(rows, 4 * BATCH_TOKENS // SAMPLE_LENGTH):
            chunk: list[list[int]] = []
            for row in sorted(stretch, key=len):
                # Rows ascend in length, so this row's length is the width of the padded batch.
                if chunk and (len(chunk) + 1) * len(row) > BATCH_TOKENS:
                    yield chunk
                    chunk = []
                chunk.append(row)
            yield chunk


# --- the cache ----------------------------------------------------------------------------------


def folder() -> Path:
    """Return the folder that statistics are kept in."""
    return cache_dir() / "statistics"


def _path(origin: Origin) -> Path:
    return folder() / f"{digest(origin)[:24]}.safetensors"


def cached(origin: Origin, width: int) -> Moment | None:
    """Return the matrix that was measured as ``origin`` says, if it is in the cache.

    A file that is damaged or belongs to another model counts as missing and is later overwritten.
    """
    try:
        stat = _path(origin).stat()
        moment = load(_path(origin), stat.st_mtime_ns, stat.st_size)
    except (OSError, DataError):
        return None
    # A file may have been renamed, or copied from another machine.
    mine = all(moment.origin.get(key) == value for key, value in origin.items())
    return moment if mine and moment.c_ff.shape == (width, width) else None


def keep(moment: Moment, origin: Origin, model: LanguageModel, source: str) -> Moment:
    """Return ``moment`` with its origin, and put it into the cache if that can be written.

    A large matrix is returned from there.
    """
    whole: Origin = {
        **origin,
        "name": model.name,
        "text": source,
        "made": time.strftime("%Y-%m-%d %H:%M"),
    }
    kept = replace(moment, origin=whole)
    _save(_path(origin), kept)
    in_cache = cached(origin, len(kept.c_ff)) if kept.c_ff.nbytes >= tensors.LARGE else None
    return in_cache or kept


@lru_cache(maxsize=16)
def load(path: Path, _mtime: int = 0, _size: int = 0) -> Moment:
    """Return the matrix in a file of the cache. The last two arguments tell versions apart.

    Raises:
        DataError: The file holds no statistics, or is damaged.
    """
    try:
        stored = _stored(path)
        c_ff = read_tensors(path)["c"]
        checksum, counted = stored["checksum"], stored["counted"]
        if _checksum(c_ff) != checksum or not is_finite(c_ff):
            raise ValueError("its checksum does not match")
        rest = {k: v for k, v in stored.items() if k not in ("checksum", "counted")}
        return Moment(c_ff, int(counted), cast("Origin", rest))
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{path} holds no statistics of editbench, or is damaged: {error}."
        ) from error


def _stored(path: Path) -> _Stored:
    """Return what a file says about its matrix."""
    with safe_open(path, "pt") as file:
        return cast("_Stored", json.loads((file.metadata() or {})["origin"]))


def _save(path: Path, moment: Moment) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written under a name of this process's own, so that no reader sees half a file.
        temporary = path.with_suffix(f".{os.getpid()}")
        stored = {**moment.origin, "counted": moment.tokens, "checksum": _checksum(moment.c_ff)}
        save_file({"c": moment.c_ff}, temporary, {"origin": json.dumps(stored)})
        os.replace(temporary, path)
    except (OSError, SafetensorError):
        pass  # a read-only or full cache costs time, not results


def _checksum(c_ff: torch.Tensor) -> str:
    return hashlib.sha256(c_ff.contiguous().view(-1).numpy().data).hexdigest()[:16]


def listing() -> list[dict[str, object]]:
    """Return one record for each file of the cache, newest last. Damaged ones say so."""
    fields = ("name", "model", "layer", "text", "counted", "precision", "made")
    records: list[dict[str, object]] = []
    for path in sorted(folder().glob("*.safetensors"), key=lambda p: p.stat().st_mtime):
        try:
            stored = _stored(path)
            records.append({"file": path.stem, **{key: stored.get(key) for key in fields}})
        except (SafetensorError, OSError, KeyError, ValueError):
            records.append({"file": path.stem, "name": "damaged or foreign: delete it"})
    return records


def inspect(path: Path) -> dict[str, object]:
    """Return the origin, trace and condition of a stored matrix, and how concentrated it is.

    Raises:
        DataError: As ``load``.
    """
    moment = load(path)
    values = moment.eigen[0]
    # Eigenvalues ascend; the shares of tr(C) are added up from the largest on.
    share = values.flip(0).cumsum(0) / values.sum()
    return {
        **moment.origin,
        "counted": moment.tokens,
        "width": len(values),
        "trace": values.sum().item(),
        "condition": (values[-1] / values[0].clamp(min=1e-300)).item(),
        "directions_for_90_percent": int((share < 0.9).sum()) + 1,
        "largest_direction_share": (values[-1] / values.sum()).item(),
    }
