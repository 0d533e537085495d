"""Values that an earlier edit found, so that some of its facts are written again without the rest.

A value is wanted of one layer, at one token. It holds as long as its fact is written there, which
other facts may change (``layers=auto``, ``fact_token=auto``); otherwise it is found anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from editbench.edit import Edit
from editbench.methods._edit.value import Targets


class Kept(NamedTuple):
    """The value of one fact, and where it is wanted."""

    layer: int
    token: str
    """``EditRecord.fact_token``."""
    targets: Targets
    """Of this fact alone. Its start is not kept and stands for zeros."""


def kept_values(edit: Edit) -> Mapping[str, Kept]:
    """Return the values that ``edit`` keeps, by the id of their fact.

    There are none in an edit that an older editbench saved.
    """
    if edit.values is None:
        return {}
    beside = edit.diagnostics.get("facts_at_once", 1)
    return {
        record["fact"]: Kept(
            record["value_layer"],
            record["fact_token"],
            Targets(
                torch.zeros_like(value_D)[None],
                value_D[None],
                torch.tensor([record["target_nll"]]),
                torch.tensor([record["clamped"]]),
                torch.tensor([record["steps"]]),
                torch.tensor([beside]),
            ),
        )
        for record, value_D in zip(edit.records, edit.values, strict=True)
    }
