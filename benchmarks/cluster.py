"""Compare one process with a two-node Ray cluster, one node of which is killed.

    python benchmarks/cluster.py          # about 10 minutes on one core

``editbench compare`` of base, ice and four methods, two seeds, on the default model: once as a
local process, once on two nodes that ``ray.cluster_utils.Cluster`` starts on this machine, each
with one worker of one thread. The second node is killed with SIGKILL after the third cell. Records
and tables are compared byte by byte, apart from times and memory.

Ray's overhead: the cell of ``base`` is computed some times by a ``Worker`` in this process and by
one on the cluster. What a call takes beyond the seconds in the cell's own record is the overhead,
and the difference between the two is Ray's. Stored in ``benchmarks/results/cluster.json``;
``benchmarks/cluster.md`` tells of it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from editbench.files import write_json_atomic
from editbench.records.environment import environment

RESULT = Path(__file__).parent / "results" / "cluster.json"
FACTS = 3
CALLS = 5
METHODS = "sft,mixsd,memit,rome"
COMPARE = (
    *("compare", "--methods", METHODS, "-n", str(FACTS), "--seeds", "0,1"),
    *("--tasks", "eb_grammar", "--limit", "5"),
    *("--option", "memit.covariance_tokens=2000", "--option", "rome.covariance_tokens=2000"),
)
MAIN = "from editbench.cli import main; main()"
TIMES = {
    *("seconds", "inject_seconds", "seconds_by_phase", "steps_per_second", "digest"),
    *("peak_memory_bytes", "peak_process_bytes"),
    # Which row pays for the model's own text depends on which trainer is a process's first.
    "precompute",
}
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


def compare(folder: Path, cache: Path, *more: str) -> tuple[list[str], float]:
    """Run the command with a cache of its own; return what it said and its seconds."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *COMPARE, "--output", str(folder), *more],
        env={**os.environ, "OMP_NUM_THREADS": "1", "EDITBENCH_CACHE": str(cache)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stderr.splitlines(), time.monotonic() - start


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Yield the places in which two JSON values differ, apart from times and memory."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if key not in TIMES:
                yield from differences(one.get(key), other.get(key), f"{place}.{key}")
    elif one != other:
        yield f"{place}: {one!r} and {other!r}"


def compared(one: Path, other: Path) -> dict[str, Any]:
    """Return how many records and tables of two runs were compared, and what differs."""
    found: list[str] = []
    files = [path for path in one.rglob("*") if path.suffix in (".json", ".parquet")]
    for path in files:
        name = path.relative_to(one)
        twin = other / name
        if not twin.exists():
            found.append(f"{name} is missing")
        elif path.suffix == ".parquet":
            found += [str(name)] if path.read_bytes() != twin.read_bytes() else []
        else:
            pair = json.loads(path.read_text()), json.loads(twin.read_text())
            found += [f"{name}{place}" for place in differences(*pair)]
    return {
        "records": sum(path.name == "summary.json" for path in files),
        "tables": sum(path.suffix == ".parquet" for path in files),
        "differences": found,
    }


def overhead(address: str) -> dict[str, Any]:
    """Return the seconds of calls that are not in the record of the cell, here and by Ray."""
    from editbench.models import load_model
    from editbench.run.cluster import Cluster
    from editbench.run.config import RunConfig
    from editbench.run.places import Request
    from editbench.run.plan import make_plan
    from editbench.run.worker import Worker

    plan = make_plan(RunConfig(("base",), "smollm2-135m", "demo-counterfact", n=FACTS))
    start = time.monotonic()
    here = Worker(load_model())
    loaded, start = time.monotonic() - start, time.monotonic()
    with Cluster([plan], "smollm2-135m", Request(1, address=address), print) as there:
        found = {"load here": loaded, "start a worker and load there": time.monotonic() - start}
        answers = here.ask_base(plan, b"{}")
        for name, workers in (("here", here), ("by Ray", there)):
            beyond = []
            for _ in range(CALLS + 1):
                start = time.monotonic()
                cell = workers.compute(plan, "base", "base-0", answers, None)
                seconds = json.loads(cell.files["summary.json"])["seconds"]["total"]
                beyond.append(time.monotonic() - start - seconds)
            found[f"beyond the cell, {name}"] = statistics.median(beyond[1:])
    found["of it Ray"] = found["beyond the cell, by Ray"] - found["beyond the cell, here"]
    found["bytes of answers"] = len(answers)
    found["bytes of the cell"] = sum(map(len, cell.files.values()))
    return found


def main() -> None:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    from ray.cluster_utils import Cluster

    folder = Path(tempfile.mkdtemp(prefix="editbench-cluster-"))
    _, local = compare(folder / "local", folder / "cache")
    os.environ["EDITBENCH_CACHE"] = str(folder / "cache-ray")  # that of the workers
    cluster = Cluster(True, head_node_args={**NODE, "include_dashboard": False})
    other = cluster.add_node(**NODE)

    def kill() -> None:
        while len(list(folder.glob("ray/seed*/cells/*/summary.json"))) < 3:
            time.sleep(0.05)
        cluster.remove_node(other, allow_graceful=False)

    threading.Thread(target=kill, daemon=True).start()
    address = ("--ray", cluster.address)
    said, ray = compare(folder / "ray", folder / "cache-ray", "--workers", "2", *address)
    equal = compared(folder / "local", folder / "ray")
    print("\n".join(said), json.dumps(equal, indent=2), sep="\n")
    spent = overhead(cluster.address)
    print(json.dumps(spent, indent=2))
    cluster.shutdown()
    write_json_atomic(
        RESULT,
        {
            "command": ["editbench", *COMPARE],
            "seconds": {"local": local, "two nodes, one killed": ray},
            "compared": equal,
            "log": [line for line in said if "worker" in line.lower() or "seed" in line],
            "overhead_seconds": spent,
            "environment": environment(),
        },
    )


if __name__ == "__main__":
    main()
