"""Keep the numbers of a run on real data, and none of its texts, which may not lie in this project.

    python benchmarks/harness.py RUN NAME       # writes benchmarks/results/harness_NAME.json
    python benchmarks/harness.py table NAME     # prints its scores by protocol and changes by task

The commands of the runs are in ``benchmarks/harness.md``.
"""

import json
import sys
from pathlib import Path
from typing import Any

from editbench.files import write_json_atomic
from editbench.leaderboard.rows import BASE, mean_retention
from editbench.records.reading import load_run
from editbench.stats import cells_text

RESULTS = Path(__file__).parent / "results"
AXES = ("efficacy", "generalization", "specificity", "portability", "counterfact_score")
PROTOCOLS = ("generation", "argmax", "likelihood")
KEYS = (
    "method",
    "key",
    "digest",
    "versions",
    "options",
    "tuned",
    "tuning",
    "status",
    "note",
    "metrics",
    "retention",
    "curve",
    "trajectory",
    "seconds",
    "work",
    "peak_process_bytes",
    "environment",
)


def main(run: Path, name: str) -> None:
    """Store the numbers of ``run`` as ``name``."""
    config, summaries = load_run(run)
    kept = {key: config[key] for key in ("corpus", "part", "n", "regime", "seed", "limit", "tasks")}
    cells = [{key: one[key] for key in KEYS if key in one} for one in summaries]
    write_json_atomic(RESULTS / f"harness_{name}.json", {"run": kept, "cells": cells})


def table(name: str) -> None:
    """Print two tables: scores under each protocol, and changes of the tasks."""
    cells = json.loads((RESULTS / f"harness_{name}.json").read_text())["cells"]
    axes = [axis for axis in AXES if any(axis in one["metrics"] for one in cells)]
    print(
        f"| method | protocol | {' | '.join(axes)} | retention | seconds |\n"
        + "|---" * (4 + len(axes))
        + "|"
    )
    for one in cells:
        for protocol in PROTOCOLS:
            scores = [cells_text(one["metrics"].get(axis, {}).get(protocol)) for axis in axes]
            last = (
                cells_text(mean_retention(one["method"], one["retention"])),
                f"{one['seconds']['inject']:.0f}",
            )
            shown = last if protocol == PROTOCOLS[0] else ("", "")
            print(f"| {' | '.join([one['method'], protocol, *scores, *shown])} |")
    print("\n" + changes({one["method"]: one["retention"] for one in cells}))


def changes(retention: dict[str, dict[str, Any]]) -> str:
    """Return a table of the change of each task by method; the base's row shows its scores."""
    tasks = list(next(iter(retention.values())))
    lines = [f"| change against base | {' | '.join(tasks)} |", "|---" * (1 + len(tasks)) + "|"]
    for name, by_task in retention.items():
        found = [by_task.get(task) or {} for task in tasks]
        if name == BASE:
            texts = [f"scores {cells_text(one)}" for one in found]
        else:
            ends = [
                {
                    "mean": one.get("delta"),
                    "low": one.get("delta_low"),
                    "high": one.get("delta_high"),
                }
                for one in found
            ]
            texts = [cells_text(end, sign=True) for end in ends]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1] == "table":
        table(sys.argv[2])
    else:
        main(Path(sys.argv[1]), sys.argv[2])
