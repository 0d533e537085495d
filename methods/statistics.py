"""Second moments of keys, C = E[k k^T]: what weight editors must not disturb. One service for all of them.

    # f MLP inner width

k is the input of the MLP's output projection at every token of a text, the first token of each text left out (it is an
attention sink whose activations are hundreds of times larger, and would dominate C). One forward pass serves all layers
and ends at the highest one; products are float32, sums float64.

Sources: ``self`` (the model's own text, sampled at temperature 1: see ``own_text.py``; needs no
data), a text file (a paragraph a line), a JSONL file or hub data set with a field ``text``. Several between commas are
averaged: text like yours protects your text better (``benchmarks/weight_editors.md``).

When to stop: where the tokens asked for are counted, the last batch of own text to its end. Of 2 ``FIRST_CHECK`` or more fewer
may do: the update direction of an edit is C^-1 k, so at every doubling of the tokens C^-1 K of ``PROBES`` held-out keys is
compared with that of the last time; where the mean cosine has reached ``STABLE`` at every layer, no more text is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from editbench import progress, text
from editbench.errors import DataError, MethodError
from editbench.methods._common.hooks import Captured
from editbench.methods._common.memory import check_memory
from editbench.models import LanguageModel, batched, cache_dir
from editbench.own_text import own_texts
from editbench.types import digest

SAMPLE_LENGTH = 64
"""Tokens of one text that are read."""
BATCH_TOKENS = 1024
RIDGE = 1e-6
"""Added to C as a share of its mean diagonal, so that directions no text uses keep the solve finite."""
PROBES = 64
STABLE = 0.985
"""Cosine of C^-1 k between n and 2n tokens at which measuring ends."""
FIRST_CHECK = 20_000
FORMAT = 4
"""Part of the cache key. 4: products in float32 whatever the precision of the forward pass."""


@dataclass(frozen=True)
class Moment:
    """C of one layer, factorised at most once, with what it was measured on."""

    c_ff: torch.Tensor
    """(f, f), float64, CPU, the mean over tokens."""
    tokens: int
    origin: dict[str, Any] = field(default_factory=dict)
    """Model, layer, source and settings."""

    @cached_property
    def ridged_ff(self) -> torch.Tensor:
        """C + RIDGE tr(C)/f I."""
        return self.c_ff + RIDGE * self.c_ff.diagonal().mean() * torch.eye(
            len(self.c_ff), dtype=torch.float64
        )

    @cached_property
    def cholesky_ff(self) -> torch.Tensor:
        """The lower factor of ``ridged_ff``.

        Raises:
            MethodError: C is not positive definite even with the ridge.
        """
        factor, failed = torch.linalg.cholesky_ex(self.ridged_ff)
        if failed or not factor.isfinite().all():
            raise MethodError(
                f"The covariance of layer {self.origin.get('layer', '?')} ({self.tokens} tokens) is singular or not finite, so "
                "no update can be solved with it. Measure it on more tokens (covariance_tokens) or another text (covariance)."
            )
        return factor

    @cached_property
    def eigen(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues (f,), ascending, and eigenvectors (f, f) of C."""
        values, vectors = torch.linalg.eigh(self.c_ff)
        return values.clamp(min=0), vectors

    def solve(self, keys_fN: torch.Tensor) -> torch.Tensor:
        """C^-1 K for keys (f, N), in float64."""
        return torch.cholesky_solve(keys_fN.double().cpu(), self.cholesky_ff)


def identity_moment(f: int) -> Moment:
    """C = I: what EasyEdit's ROME settings use; here for comparison only."""
    return Moment(torch.eye(f, dtype=torch.float64), 0, {"source": "identity"})


# --- the service --------------------------------------------------------------------------------------------


def second_moments(
    model: LanguageModel, layers: Sequence[int], source: str, tokens: int, seed: int
) -> dict[int, Moment]:
    """C of each of ``layers``, measured on about ``tokens`` tokens of ``source``; computed where it is not cached.

    Raises:
        DataError: a source that is neither ``self`` nor readable text.
        MethodError: no memory for the matrices.
    """
    if source == "identity":
        return {layer: identity_moment(model.layout.mlp_width) for layer in layers}
    parts = [_one_source(model, layers, name.strip(), tokens, seed) for name in source.split(",")]
    if len(parts) == 1:
        return parts[0]
    averaged = {}
    for layer in layers:
        found = [part[layer] for part in parts]
        c_ff = torch.stack([moment.c_ff for moment in found]).mean(0)
        averaged[layer] = Moment(
            c_ff, sum(m.tokens for m in found), {**found[0].origin, "source": source}
        )
    return averaged


def _one_source(
    model: LanguageModel, layers: Sequence[int], source: str, tokens: int, seed: int
) -> dict[int, Moment]:
    f = model.layout.mlp_width
    # sequential edits share the statistics of the model they began with, where these are there
    hashes = [model.applied[0].model_hash] if model.applied else []
    found: dict[int, Moment] = {}
    content = None if source == "self" else "\n".join(_documents(source, tokens))
    for model_hash in [*hashes, model.fingerprint()]:
        origin = {
            "format": FORMAT,
            "model": model_hash,
            "precision": model.precision,
            "source": source if content is None else digest(content)[:16],
            "tokens": tokens,
            "seed": seed if content is None else 0,
            "length": SAMPLE_LENGTH,
        }
        found = {
            layer: moment
            for layer in layers
            if (moment := cached({**origin, "layer": layer}, f)) is not None
        }
        if len(found) == len(set(layers)):
            return found
    missing = [layer for layer in layers if layer not in found]
    check_memory(
        3 * len(layers) * f * f * 8, f"the covariance of {len(layers)} layers of width {f}"
    )
    blocks = (
        _written(model, tokens, seed) if content is None else iter([_rows(model, content, tokens)])
    )
    for layer, moment in measure(model, missing, blocks, tokens).items():
        found[layer] = keep(moment, {**origin, "layer": layer}, model, source)
    return found


@torch.no_grad()
def measure(
    model: LanguageModel, layers: Sequence[int], blocks: Iterator[list[list[int]]], budget: int
) -> dict[int, Moment]:
    """C of ``layers`` over the texts in ``blocks`` (rows of token ids, some ``budget`` in all), until the update direction
    is stable.

    Raises:
        MethodError: activations that are not finite.
    """
    f, last = model.layout.mlp_width, max(layers)
    sums = {layer: torch.zeros(f, f, dtype=torch.float64) for layer in layers}
    held_out = PROBES if budget >= 2 * FIRST_CHECK else 0
    probes = {layer: torch.zeros(0, f) for layer in layers}
    counted: torch.Tensor | None = None

    def accumulate(layer: int) -> Any:
        def hook(_module: Any, args: Any) -> None:
            keys_Nf = args[0].reshape(-1, f)[counted.reshape(-1)].float()
            if (taken := held_out - len(probes[layer])) > 0:
                probes[layer] = torch.cat([probes[layer], keys_Nf[:taken].cpu()])
                keys_Nf = keys_Nf[taken:]
            sums[layer] += gram(keys_Nf)
            if layer == last:
                raise Captured

        return hook

    total, next_check = -held_out, FIRST_CHECK
    directions: dict[int, torch.Tensor] = {}
    with progress.task(
        f"covariance of {len(layers)} layers, cached for next time", budget, "tokens"
    ) as bar:
        for chunk in _by_tokens(blocks):
            ids_BT, mask_BT = text.pad_left(chunk, model.device)
            counted = (mask_BT.cumsum(-1) > 1) & mask_BT.bool()
            with ExitStack() as hooks, model.compute():
                for layer in layers:
                    handle = model.layout.out_projection(
                        model.model, layer
                    ).register_forward_pre_hook(accumulate(layer))
                    hooks.callback(handle.remove)
                try:
                    model.hidden(ids_BT, mask_BT)
                except Captured:
                    pass
            total += int(counted.sum())
            bar.advance(int(mask_BT.sum()))
            if held_out and total >= next_check:
                now = {
                    layer: Moment(sums[layer] / total, total).solve(probes[layer].T)
                    for layer in layers
                }
                if (
                    directions
                    and min(_agreement(now[layer], directions[layer]) for layer in layers) >= STABLE
                ):
                    break
                directions, next_check = now, 2 * next_check
    for layer, total_ff in sums.items():
        if not total_ff.isfinite().all():
            raise MethodError(
                f"The activations of {model.name} at layer {layer} are not finite in {next(model.model.parameters()).dtype}. "
                "Load the model in float32 or bfloat16."
            )
    return {layer: Moment(sums[layer] / total, total) for layer in layers}


def gram(rows_Nf: torch.Tensor) -> torch.Tensor:
    """Sum of k k^T over some float32 rows, (f, f), float64, CPU; autocast, which may be on, would multiply in bfloat16."""
    with torch.autocast(rows_Nf.device.type, enabled=False):
        return (rows_Nf.T @ rows_Nf).double().cpu()


def _agreement(now_fN: torch.Tensor, before_fN: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(now_fN, before_fN, dim=0).mean().item()


def source_files(source: str) -> dict[str, str]:
    """The SHA-256 of each file that ``source`` names."""
    names = [name for name in map(str.strip, source.split(",")) if name not in ("self", "identity")]
    paths = {name: Path(name).expanduser() for name in names}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if path.is_file()
    }


# --- texts --------------------------------------------------------------------------------------------------


def _documents(source: str, tokens: int) -> Iterator[str]:
    """The texts of a file or hub data set, enough for ``tokens`` tokens."""
    path, most = Path(source).expanduser(), 16 * tokens  # characters
    if path.suffix in (".jsonl", ".json") and path.is_file():
        texts = _jsonl(path)
    elif path.exists() or source.count("/") != 1 or source.startswith((".", "/", "~")):
        texts = iter(_read(path, source).split("\n"))
    else:
        texts = _hub(source)
    length = 0
    for one in texts:
        for paragraph in filter(str.strip, one.split("\n")):
            yield paragraph
            length += len(paragraph[: 16 * SAMPLE_LENGTH])
        if length > most:
            return


def source_texts(
    model: LanguageModel, source: str, tokens: int, seed: int
) -> list[tuple[list[int], list[int]]]:
    """Some ``tokens`` tokens of the text that C is measured on (own text where it is ``identity``): of each text the ids of its
    opening and of the rest.

    Raises:
        DataError: as ``second_moments``.
    """
    names, found = [name.strip() for name in source.split(",")], []
    for name in names:
        share = tokens // len(names)
        if name in ("self", "identity"):
            found += [
                pair for block in own_texts(model, share, seed, SAMPLE_LENGTH) for pair in block
            ]
        else:
            rows = _rows(model, "\n".join(_documents(name, share)), share)
            found += [(row[:1], row[1:]) for row in rows]
    return found


def _read(path: Path, source: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Covariance source {source!r} is neither 'self' nor a readable UTF-8 file nor a hub data set: {error}."
        ) from error


def _jsonl(path: Path) -> Iterator[str]:
    for number, line in enumerate(_read(path, str(path)).split("\n"), 1):
        if line.strip():
            try:
                yield _text(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"Covariance source {path}, line {number}: no JSON object with a field 'text'."
                ) from error


def _text(record: Any) -> str:
    if not isinstance(record["text"], str):
        raise TypeError("its field 'text' is no text")
    return record["text"]


def _hub(source: str) -> Iterator[str]:
    import datasets

    from editbench.hub import offline_if_unreachable

    try:
        with offline_if_unreachable():
            rows = datasets.load_dataset(source, split="train", streaming=True)
            for row in rows:
                yield _text(row)
    except Exception as error:  # datasets raises what it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"Covariance source {source!r} is no file, and no hub data set with a field 'text' that could be read: {reason}. "
            "Give a local text or JSONL file, or 'self'."
        ) from error


def _rows(model: LanguageModel, document: str, tokens: int) -> list[list[int]]:
    """Paragraphs of a text as ids, cut at ``SAMPLE_LENGTH``, up to the budget of ``tokens``."""
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
    """The model's own texts as whole rows."""
    for block in own_texts(model, tokens, seed, SAMPLE_LENGTH):
        yield [opening + written for opening, written in block]


def _by_tokens(blocks: Iterator[list[list[int]]]) -> Iterator[list[list[int]]]:
    """Batches of about ``BATCH_TOKENS``, of rows of like length, each stretch of rows in its turn: an early end has then seen
    texts of every kind and length."""
    for rows in blocks:
        for stretch in batched(rows, 4 * BATCH_TOKENS // SAMPLE_LENGTH):
            chunk: list[list[int]] = []
            for row in sorted(stretch, key=len):
                if chunk and (len(chunk) + 1) * len(row) > BATCH_TOKENS:
                    yield chunk
                    chunk = []
                chunk.append(row)
            yield chunk


# --- the cache ----------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where statistics are kept."""
    return cache_dir() / "statistics"


def _path(origin: dict[str, Any]) -> Path:
    return folder() / f"{digest(origin)[:24]}.safetensors"


def cached(origin: dict[str, Any], width: int) -> Moment | None:
    """The matrix measured as ``origin`` says; None where there is none, or the file is damaged or another model's (it is then
    computed anew)."""
    try:
        stat = _path(origin).stat()
        moment = load(_path(origin), stat.st_mtime_ns, stat.st_size)
    except (OSError, DataError):
        return None
    mine = all(moment.origin.get(key) == value for key, value in origin.items())
    return moment if mine and moment.c_ff.shape == (width, width) else None


def keep(moment: Moment, origin: dict[str, Any], model: LanguageModel, source: str) -> Moment:
    """``moment`` with where it is from, put into the cache as far as that can be written."""
    found = replace(
        moment,
        origin={
            **origin,
            "name": model.name,
            "text": source,
            "made": time.strftime("%Y-%m-%d %H:%M"),
        },
    )
    _save(_path(origin), found)
    return found


@lru_cache(maxsize=16)
def load(path: Path, _mtime: int = 0, _size: int = 0) -> Moment:
    """The matrix in a file of the cache.

    Raises:
        DataError: a file that is no statistics, or a damaged one.
    """
    try:
        with safe_open(path, "pt") as file:
            origin = json.loads((file.metadata() or {})["origin"])
        c_ff = load_file(path)["c"]
        if _checksum(c_ff) != origin.pop("checksum") or not c_ff.isfinite().all():
            raise ValueError("its checksum does not match")
        return Moment(c_ff, int(origin.pop("counted")), origin)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{path} holds no statistics of editbench, or is damaged: {error}."
        ) from error


def _save(path: Path, moment: Moment) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        origin = {**moment.origin, "counted": moment.tokens, "checksum": _checksum(moment.c_ff)}
        save_file({"c": moment.c_ff}, temporary, {"origin": json.dumps(origin)})
        os.replace(temporary, path)
    except (OSError, SafetensorError):
        pass  # a read-only or full cache costs time, not results


def _checksum(c_ff: torch.Tensor) -> str:
    return hashlib.sha256(c_ff.contiguous().numpy().tobytes()).hexdigest()[:16]


def listing() -> list[dict[str, Any]]:
    """One record for each file of the cache, newest last; damaged ones say so."""
    records = []
    for path in sorted(folder().glob("*.safetensors"), key=lambda p: p.stat().st_mtime):
        try:
            with safe_open(path, "pt") as file:
                origin = json.loads((file.metadata() or {})["origin"])
            kept = {
                key: origin.get(key)
                for key in ("name", "model", "layer", "text", "counted", "precision", "made")
            }
            records.append({"file": path.stem, **kept})
        except (SafetensorError, OSError, KeyError, ValueError):
            records.append({"file": path.stem, "name": "damaged or foreign: delete it"})
    return records


def inspect(path: Path) -> dict[str, Any]:
    """What a stored matrix looks like: trace, condition, and how many directions hold most of it.

    Raises:
        DataError: as ``load``.
    """
    moment = load(path)
    values = moment.eigen[0]
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
