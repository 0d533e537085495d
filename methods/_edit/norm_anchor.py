"""Norm anchor: give every written value the norm that values have on the unedited model.

In a long sequence of edits the norms of the values v* grow from edit to edit, and the model
collapses. So, with n the mean norm of v* on the model before its edits:

    v* <- n v* / ||v*||,   and v* <- v_0, so that nothing is written, where ||v*|| > 2 n

v* is what the MLP adds to the residual stream at the edited token. A value that is wanted of the
residual stream (MEMIT's h) is split: the MLP's part is scaled, the rest stays. "Norm Anchors Make
Model Edits Last", arXiv 2602.02543; reference code SasyaTitech/NAS at 5acab48, ``NAS/compute_z.py``
and ``util/vstar_stats.py``.

Differences from the reference: it takes n from 1,000 facts of CounterFact, each read without
prefixes. Here n comes from the facts that are injected first, or from a file (``norm_facts``), and
they are read behind the same prefixes as all others. A single fact is its own anchor, and stays as
it is. As there, the largest 5 % of the norms are left out of the mean.

    # N facts, D model width
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch

from editbench.errors import DataError, FactError, MethodError
from editbench.layout import mlp_gain
from editbench.methods._common.hooks import read_at, site_module
from editbench.methods._edit.prepare import PreparedFact, key_rows
from editbench.methods._edit.value import Targets
from editbench.models import LanguageModel
from editbench.types import Fact

LEFT_OUT = 0.05
"""Share of the norms, the largest ones, that the mean leaves out."""
TOO_LARGE = 2.0
"""A value with more than so many times the anchor's norm is not written."""


def read_norm_facts(path: str) -> list[Fact]:
    """Return the facts of a JSON Lines file, one object with prompt, target and subject a line.

    Raises:
        DataError: The file cannot be read, holds no facts, or a line is no fact.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"norm_facts={path} is not a readable UTF-8 file: {error}.") from error
    facts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            facts.append(Fact.from_dict(_record(line)))
        except (ValueError, TypeError, KeyError, FactError) as error:
            raise DataError(
                f"norm_facts={path}, line {number}: not a fact. Each line must be a JSON object "
                f'like {{"prompt": "...", "target": "...", "subject": "..."}} '
                f"({str(error).rstrip('.')})."
            ) from error
    if not facts:
        raise DataError(f"norm_facts={path} holds no facts.")
    return facts


def _record(line: str) -> dict[str, object]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise TypeError(f"it is a {type(record).__name__}")
    return record


def norm_facts_hash(path: str) -> dict[str, str]:
    """Return the SHA-256 of a file of facts by its path, after checking the facts.

    Raises:
        DataError: As ``read_norm_facts``.
    """
    read_norm_facts(path)
    return {path: hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()}


def kept_norm(model: LanguageModel, method: str, layer: int) -> float | None:
    """Return the norm that an applied edit of ``method`` has for ``layer``, of the first one."""
    for edit in model.applied:
        # A pair of methods has one report for each of them.
        report = edit.diagnostics if edit.method == method else edit.diagnostics.get(method, {})
        norms = {str(key): value for key, value in report.get("norm_anchor_by_layer", {}).items()}
        if str(layer) in norms:
            return float(norms[str(layer)])
    return None


def mlp_part(
    model: LanguageModel, layer: int, site: str, prepared: list[PreparedFact], targets: Targets
) -> torch.Tensor:
    """Return v_0 (N, D): what the MLP of ``layer`` adds at each fact's edited token."""
    if site == "mlp":
        return targets.start_ND
    rows, positions = key_rows([each.prompts[0] for each in prepared])
    module = site_module(model, layer, "mlp")
    v_ND = read_at(model, module, "output", rows, positions).cpu().float()
    # The editors of the residual stream have made sure that there is such a constant.
    return v_ND * (mlp_gain(model.model, model.layout, layer) or 1.0)


def mean_norm(v_ND: torch.Tensor, layer: int) -> float:
    """Return n, the mean norm of values without the largest ones.

    Raises:
        MethodError: It is zero or not finite.
    """
    norms = v_ND.double().norm(dim=1).sort().values
    n = float(norms[: len(norms) - int(LEFT_OUT * len(norms))].mean())
    if not 0 < n < float("inf"):
        raise MethodError(
            f"The mean norm of the values at layer {layer} is {n}, so there is nothing to anchor "
            "them to. Leave norm_anchor out, or edit another layer."
        )
    return n


def anchored(targets: Targets, v0_ND: torch.Tensor, n: float) -> tuple[Targets, torch.Tensor]:
    """Return ``targets`` with values of norm ``n``, and which of them are not written (N,)."""
    v_ND = v0_ND + targets.value_ND - targets.start_ND
    norm_N = v_ND.norm(dim=1)
    skipped_N = norm_N > TOO_LARGE * n
    # A value of zeros has no direction, and stays.
    scaled_ND = v_ND * torch.where(norm_N > 0, n / norm_N, 1.0)[:, None]
    wanted_ND = targets.start_ND - v0_ND + scaled_ND
    value_ND = torch.where(skipped_N[:, None], targets.start_ND, wanted_ND)
    return replace(targets, value_ND=value_ND), skipped_N
