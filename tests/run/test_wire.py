"""A plan as JSON: the same plan on a worker, which refuses files that are other ones there."""

import json

import pytest
from tiny import write_facts, write_model

from editbench.errors import EditbenchError
from editbench.run.config import RunConfig
from editbench.run.plan import make_plan
from editbench.run.wire import plan_from_json, plan_to_json


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "text.txt").write_text("Some text about nothing.\n" * 9)
    return make_plan(
        RunConfig(
            ("base", "memit", "memit@slow", "sft", "ice"),
            str(write_model(tmp_path / "tiny")),
            "local",
            str(write_facts(tmp_path / "facts.jsonl")),
            n=4,
            tasks=("eb_grammar",),
            limit=4,
            options={
                "memit": {"covariance": str(tmp_path / "text.txt")},
                "memit@slow": {"steps": "90", "layers": "0,1"},
            },
            curve=(2,),
            diagnostics=("drift",),
        )
    )


def test_a_plan_comes_back_as_it_was(plan):
    again = plan_from_json(plan_to_json(plan))
    assert again.config.methods == plan.config.methods and again.config.curve == (2,)
    assert again.methods == plan.methods and again.slice_hash == plan.slice_hash
    assert again.task_digests == plan.task_digests
    assert plan_to_json(again) == plan_to_json(plan)


def test_other_files_and_versions_are_named(plan, tmp_path):
    sent = plan_to_json(plan)
    record = json.loads(sent)
    record["versions"]["memit"][0] += 1
    with pytest.raises(EditbenchError, match="plug-in memit has another version"):
        plan_from_json(json.dumps(record).encode())
    record = json.loads(sent)
    record["files"]["eb_grammar"] = "another"
    with pytest.raises(EditbenchError, match="eb_grammar is missing, or has other contents"):
        plan_from_json(json.dumps(record).encode())
    (tmp_path / "text.txt").unlink()
    with pytest.raises(EditbenchError, match="text.txt"):
        plan_from_json(sent)
