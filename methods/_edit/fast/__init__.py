"""Fast paths of the editors. All private calls of torch and transformers are here.

``attention`` and ``packed`` lay many short texts into one row and replace the model's attention.
``linear`` lays out weights for oneDNN. Both are tried on a small example before they are used. The
plain paths need no private call and give the same up to rounding in float32: ``_edit/rows.py`` with
padded rows, and torch's own linear layers.

Set ``EDITBENCH_FAST=0`` in the environment to use the plain paths: to compare the two, or where a
new release of torch or transformers breaks a private call in a way that the trial does not notice.
"""

from __future__ import annotations

import os

SWITCH = "EDITBENCH_FAST"


def enabled() -> bool:
    """Return whether the fast paths may be used. They are unless ``EDITBENCH_FAST`` is 0."""
    return os.environ.get(SWITCH, "1") != "0"
