"""A tiny model folder, a small file of facts and the command: all that a user needs."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from warm import Running

ANSWERS = (
    "Paris",
    "London",
    "Rome",
    "Berlin",
    "Madrid",
    "Lisbon",
    "Vienna",
    "Prague",
    "Oslo",
    "Athens",
)
LANDS = (
    "France",
    "England",
    "Italy",
    "Germany",
    "Spain",
    "Portugal",
    "Austria",
    "Bohemia",
    "Norway",
    "Greece",
)


def write_model(folder: Path) -> Path:
    """Write a random Llama of two layers as a plain Hugging Face folder."""
    from editbench.models import quiet_transformers
    from editbench.testing import tiny_model

    model = tiny_model("llama", num_hidden_layers=2)
    with quiet_transformers():
        model.model.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    return folder


def fact(i: int, **changes: object) -> dict[str, object]:
    """Return record ``i``, in which a country gets the capital of the next one in the list.

    The record has one paraphrase and one neighborhood prompt. ``changes`` replace or add fields.
    """
    land, other = LANDS[i], (i + 5) % len(LANDS)
    return {
        "id": f"f{i}",
        "prompt": f"The capital of {land} is",
        "target": ANSWERS[(i + 1) % len(ANSWERS)],
        "subject": land,
        "original": ANSWERS[i],
        "paraphrases": [f"{land} has the capital"],
        "neighborhoods": [
            {"prompt": f"The capital of {LANDS[other]} is", "answer": ANSWERS[other]}
        ],
        **changes,
    }


def write_facts(path: Path, records: Sequence[Mapping[str, object]] | None = None) -> Path:
    """Write ``records``, by default ten facts, as JSON lines."""
    records = [fact(i) for i in range(10)] if records is None else records
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Said:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows of ``compare --json``, by method."""
        return {row["method"]: row for row in json.loads(self.out)["rows"]}


def editbench(*arguments: object) -> Said:
    """Run the command in this process, from the entry point of the console script."""
    from editbench.cli.app import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["editbench", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Said(code, out.getvalue(), err.getvalue())


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """Start the command in a process of its own that reacts to Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-c", "from editbench.cli import main; main()", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        # Tests that a shell runs in the background ignore Ctrl-C, and child processes inherit this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(
    pattern: str, folder: Path, process: subprocess.Popen[str] | Running, seconds: float = 120
) -> Path:
    """Return the first file below ``folder`` that matches, once ``process`` has written it.

    Raises:
        AssertionError: the process ended first, or ``seconds`` have passed.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := list(folder.glob(pattern)):
            return found[0]
        if process.poll() is not None:
            raise AssertionError(
                f"the process ended with {process.returncode} first: {process.communicate()}"
            )
        time.sleep(0.005)  # short, as callers stop the process in the middle of its work
    process.kill()
    raise AssertionError(f"no {pattern} after {seconds} s")


def targets_of(
    method: Any, model: Any, facts: Sequence[Any], layer: int, prefixes: Sequence[str]
) -> Any:
    """Run the target optimization of a weight editor on ``facts`` and return its result."""
    from editbench.methods._edit.prepare import prepare_facts
    from editbench.methods._edit.value import optimize

    return optimize(
        model,
        prepare_facts(model, facts, prefixes),
        layer,
        method.sites,
        method.solver(method.clamp),
        fisher_SDD=method.fisher(model, layer),
    )


def rows_of(
    model: Any, facts: Sequence[Any], prefixes: Sequence[str] = ()
) -> tuple[list[list[int]], list[int]]:
    """Return the prompts of ``facts``, bare and after each prefix, and the places of subjects."""
    from editbench.methods._edit.prepare import key_rows, prepare_facts

    prepared = prepare_facts(model, facts, prefixes)
    return key_rows([prompt for each in prepared for prompt in each.prompts])
