"""Teach facts in chunks, and score each fact right after its own chunk and at the end.

    python benchmarks/sequences.py memit alphaedit sft --output FOLDER \\
        --data SHARED/counterfact/counterfact-edit.json

The model is SmolLM2-135M-Instruct, the facts are 100 of the test slice of CounterFact in chunks of
10, without retention tasks; without ``--data`` they are those of ``demo-counterfact``. Each method
gets a run folder of its own in FOLDER. A finished one is kept, so the command can be stopped and
repeated, and methods can be added later; ``editbench leaderboard FOLDER/*`` renders all of them as
one table. The numbers of all methods in FOLDER, and none of the texts, are stored in
``benchmarks/results/sequences.json``, and a table of them is printed. ``--table`` only prints it.
A second table says how each sequence went: where it collapsed, and what text of the base's own
costs the model by then.

Of 200 facts, the methods that claim long sequences (each line can be stopped and repeated):

    python benchmarks/sequences.py ultraedit crispedit alphaedit alphaedit@norm_anchor memit \\
        memit@norm_anchor --facts 200 --data SHARED/counterfact/counterfact.json \\
        --output FOLDER --result benchmarks/results/sequences_200.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import KEYS, PROTOCOLS, RESULTS

from editbench import progress
from editbench.cli import console
from editbench.cli.board import Board
from editbench.files import write_json_atomic
from editbench.models import load_model
from editbench.records.reading import load_run
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.folder import save_cases
from editbench.run.plan import make_plan
from editbench.stats import cells_text

VARIANTS = {
    f"{method}@norm_anchor": {"norm_anchor": True} for method in ("memit", "alphaedit", "rome")
}
"""Options of the rows that are no method's defaults."""
CONDITIONS = ("model", "corpus", "part", "n", "regime", "seed")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--chunk", type=int, default=10)
    parser.add_argument("--result", type=Path, default=RESULTS / "sequences.json")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        if asked.output is None:
            parser.error("--output is the folder of the runs.")
        teach(asked)
        store(asked.output, asked.result)
    stored = json.loads(asked.result.read_text())
    print(table(stored), course(stored), sep="\n\n")


def teach(asked: argparse.Namespace) -> None:
    """Compute the cells of the base and of each method that are not done yet."""
    model = None
    with progress.reporting(console.reporter()):
        for method in dict.fromkeys(("base", *asked.methods)):
            config = RunConfig(
                methods=(method,),
                model=asked.model,
                corpus="counterfact" if asked.data else "demo-counterfact",
                data=asked.data,
                n=asked.facts,
                regime=f"sequential:{asked.chunk}",
                options={method: VARIANTS[method]} if method in VARIANTS else {},
            )
            plan = make_plan(config)
            model = model or load_model(asked.model)
            with RunStore(asked.output / method).open(run_identity(plan.config)) as run:
                save_cases(run.path, plan)
                with Board(1) as board:
                    runner.run(plan, model, run, board.of([plan])(""))


def store(output: Path, result: Path) -> None:
    """Write the numbers of all runs in ``output`` to ``result``."""
    runs = [load_run(file.parent) for file in sorted(output.glob("*/run.json"))]
    kept = [{key: config.get(key) for key in CONDITIONS} for config, _ in runs]
    if any(conditions != kept[0] for conditions in kept):
        raise SystemExit(f"The runs in {output} differ in one of {', '.join(CONDITIONS)}.")
    keys = (*KEYS, "right_after")
    cells = [{key: cell[key] for key in keys if key in cell} for _, run in runs for cell in run]
    write_json_atomic(result, {"run": kept[0], "cells": cells})


def table(stored: Mapping[str, Any]) -> str:
    """Return a line for each method, protocol and metric; a failed method has one line."""
    lines = ["| method, facts | protocol | metric | right after | at the end | change |"]
    lines.append("|---|---|---|---|---|---|")
    for cell in stored["cells"]:
        if cell["method"] == "base":
            continue
        if not (twice := cell.get("right_after")):
            lines.append(f"| {cell['method']} | {cell['status']} | | | | |")
            continue
        for protocol in PROTOCOLS:
            for metric, by_protocol in twice["scores"].items():
                scores = by_protocol[protocol]
                texts = (
                    f"{cell['method']}, {twice['facts']} of {stored['run']['n']}",
                    protocol,
                    metric,
                    cells_text(scores["right_after"]),
                    cells_text(scores["at_end"]),
                    cells_text(scores["change"], sign=True),
                )
                lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)


def course(stored: Mapping[str, Any]) -> str:
    """Return a line for each method: the facts that it held, and the vital signs at the end.

    They are those of ``editbench.run.collapse``, after the last chunk that was injected; a chunk
    that ended the sequence is among them.
    """
    lines = ["| method | facts held | perplexity of own text | target nll | forgetting | note |"]
    lines.append("|---|---|---|---|---|---|")
    for cell in stored["cells"]:
        if cell["method"] == "base" or not (signs := cell.get("trajectory")):
            continue
        n, last = stored["run"]["n"], signs[-1]
        left = cell.get("right_after", {}).get("not_injected", 0)
        lines.append(
            f"| {cell['method']} | {n - left} of {n} | x {last['perplexity_ratio']:.2f} | "
            f"{last['target_nll']:.2f} | x {last['forgetting_ratio']:.2f} | {cell['note']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
