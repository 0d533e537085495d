"""Keeps the numbers of a run on real data, and none of its texts, which may not lie in this project.

    python benchmarks/harness.py RUN NAME     # benchmarks/results/harness_NAME.json; the commands of the runs are in harness.md
"""

import sys
from pathlib import Path

from editbench.records import load_run, write_json_atomic

KEYS = ("method", "options", "tuned", "tuning", "status", "note", "metrics", "retention", "curve", "trajectory", "seconds",
        "work", "peak_process_bytes", "environment")  # fmt: skip


def main(run: Path, name: str) -> None:
    config, summaries = load_run(run)
    kept = {key: config[key] for key in ("corpus", "part", "n", "regime", "seed", "limit", "tasks")}
    cells = [{key: one[key] for key in KEYS if key in one} for one in summaries]
    write_json_atomic(Path(__file__).parent / "results" / f"harness_{name}.json", {"run": kept, "cells": cells})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
