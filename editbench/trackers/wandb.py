"""``--track wandb``: a run of Weights & Biases with the scores of every cell.

Project and entity are those of wandb's own settings (``WANDB_PROJECT``, ``WANDB_ENTITY``), and
``WANDB_MODE=offline`` needs no account. No fact and no answer is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editbench.errors import MissingPackageError
from editbench.plugin import Tracker

PROJECT = "editbench"
"""Project where the settings name none."""


class Wandb(Tracker):
    """Log each cell's scores as ``METHOD/SCORE``, and all of them as one table."""

    name = "wandb"
    summary = "Weights & Biases; needs editbench[wandb]"

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingPackageError("--track wandb", "wandb", "wandb") from error
        self._wandb: Any = wandb
        self._run: Any = None
        self._rows: list[Mapping[str, object]] = []

    def start(self, run: Mapping[str, object]) -> None:
        """Open a run of wandb that is named after the run folder."""
        import os

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        name = Path(str(run["folder"])).name
        self._run = self._wandb.init(project=project, name=name, config=dict(run))

    def cell(self, row: Mapping[str, object]) -> None:
        """Log the numbers of one cell."""
        self._rows.append(row)
        numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
        self._run.log({f"{row['method']}/{key}": value for key, value in numbers.items()})

    def finish(self) -> None:
        """Log the table, and close the run."""
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        rows = [[row.get(column) for column in columns] for row in self._rows]
        self._run.log({"cells": self._wandb.Table(columns=columns, data=rows)})
        self._run.finish()
