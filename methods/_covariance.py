"""Second moments of keys, C = E[k k^T]: what ROME and MEMIT must not disturb.

    # f MLP inner width

k is the input of the MLP's output projection at every token of a text, the first token of each text left out (it is an
attention sink whose activations are hundreds of times larger, and would dominate C). One forward pass serves all layers;
sums are kept in float64. Source ``self`` is the model's own text, sampled at temperature 1, half from the start of a
document and half from a chat turn; any text file works too. Cached by weights, source and settings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from editbench import progress, text
from editbench.errors import DataError
from editbench.models import LanguageModel, batched, cache_dir
from editbench.types import digest

SAMPLE_LENGTH = 64
RIDGE = 1e-6
"""Added to C as a share of its mean diagonal, so that directions no text uses keep the solve finite."""


@dataclass(frozen=True)
class Moment:
    """C of one layer with what it was measured on."""

    c_ff: torch.Tensor
    """(f, f), float64, CPU, the mean over tokens."""
    tokens: int

    def solve(self, keys_fN: torch.Tensor) -> torch.Tensor:
        """C^-1 K for keys (f, N), in float64."""
        f = len(self.c_ff)
        ridged = self.c_ff + RIDGE * self.c_ff.diagonal().mean() * torch.eye(f, dtype=torch.float64)
        return torch.cholesky_solve(keys_fN.double().cpu(), torch.linalg.cholesky(ridged))


def second_moments(model: LanguageModel, layers: Sequence[int], source: str, tokens: int, seed: int) -> dict[int, Moment]:
    """C of each of ``layers``; computed for those that are not cached.

    Raises:
        DataError: ``source`` is neither ``self`` nor a readable text file.
    """
    origin = source if source == "self" else digest(_read(source))
    setting = [model.fingerprint(), model.precision, origin, tokens, seed, SAMPLE_LENGTH, 1]
    paths = {layer: cache_dir() / "statistics" / f"{digest([*setting, layer])[:24]}.safetensors" for layer in layers}
    found = {layer: moment for layer, path in paths.items() if (moment := _load(path, model.layout.mlp_width)) is not None}
    missing = [layer for layer in layers if layer not in found]
    if missing:
        rows = _own_text(model, tokens, seed) if source == "self" else _rows(model, _read(source), tokens)
        for layer, moment in _measure(model, missing, rows).items():
            found[layer] = moment
            _save(paths[layer], moment)
    return found


def _read(source: str) -> str:
    try:
        return Path(source).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Covariance source {source!r} is neither 'self' nor a readable UTF-8 text file: {error}.") from error


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


def _own_text(model: LanguageModel, tokens: int, seed: int) -> list[list[int]]:
    """Samples of the model itself: half documents, half chat turns (all documents where it has no chat template)."""
    tokenizer = model.tokenizer
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    openings = [[start if start is not None else 0]]
    if model.chat:
        rendered = model.render("x", "question")
        openings.append(text.ids(tokenizer, text.Rendered(rendered.text[: rendered.start], 0, False, "")))
    n = -(-tokens // SAMPLE_LENGTH)
    prompts = [openings[i % len(openings)] for i in range(n)]
    written = model.generate_ids(
        prompts,
        SAMPLE_LENGTH,
        generator=torch.Generator().manual_seed(seed),
        stop=False,
        batch_size=128,
        what="covariance: sampling the model's own text",
    )
    return [prompt + row for prompt, row in zip(prompts, written, strict=True)]


@torch.no_grad()
def _measure(model: LanguageModel, layers: Sequence[int], rows: Sequence[list[int]]) -> dict[int, Moment]:
    f = model.layout.mlp_width
    sums = {layer: torch.zeros(f, f, dtype=torch.float64) for layer in layers}
    counted: torch.Tensor | None = None

    def accumulate(layer: int):
        def hook(_module, args) -> None:
            keys_Nf = args[0].reshape(-1, f)[counted.reshape(-1)].float()
            sums[layer] += (keys_Nf.T @ keys_Nf).double().cpu()

        return hook

    hooks = [model.layout.out_projection(model.model, layer).register_forward_pre_hook(accumulate(layer)) for layer in layers]
    total = 0
    try:
        with (
            progress.task(f"covariance of {len(layers)} layers, cached for next time", sum(map(len, rows)), "tokens") as bar,
            model.compute(),
        ):
            for chunk in batched(sorted(rows, key=len), 16):
                ids_BT, mask_BT = text.pad_left(chunk, model.device)
                counted = (mask_BT.cumsum(-1) > 1) & mask_BT.bool()
                model.hidden(ids_BT, mask_BT)
                total += int(counted.sum())
                bar.advance(int(mask_BT.sum()))
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: Moment(sums[layer] / total, total) for layer in layers}


def _load(path: Path, width: int) -> Moment | None:
    """The cached matrix; None where there is none or the file is damaged (it is then computed anew)."""
    try:
        stored = load_file(path)
        c_ff = stored["c"]
        return Moment(c_ff, int(stored["tokens"])) if c_ff.shape == (width, width) and c_ff.isfinite().all() else None
    except (OSError, SafetensorError, KeyError, RuntimeError):
        return None


def _save(path: Path, moment: Moment) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        save_file({"c": moment.c_ff, "tokens": torch.tensor(moment.tokens)}, temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError):
        pass  # a read-only or full cache costs time, not results
