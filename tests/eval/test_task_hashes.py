"""The bundled tasks are the ones that the published numbers were measured with."""

import json
from pathlib import Path

from editbench.eval.retention import data_digest, task_names

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"


def test_published_cells_were_asked_from_the_tasks_as_they_are():
    """A reformatted grader changes the hash, and with it the key of every cell."""
    now = {task: data_digest(task) for task in task_names()}
    published = sorted(RESULTS.glob("*/cells/*/summary.json"))
    assert published
    for path in published:
        tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        assert tasks == {task: now[task] for task in tasks}, path.parent.name
