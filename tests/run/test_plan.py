"""The plan of a run leaves out facts whose new answer is the old one, and says so."""

import pytest
from tiny import fact, write_facts

from editbench.errors import DataError
from editbench.run.config import RunConfig
from editbench.run.plan import make_plan

SAME = fact(0, target="mezzo soprano", original="Mezzo-soprano")


def plan_of(path, records, n):
    write_facts(path, records)
    return make_plan(RunConfig(("base",), "no-model", "local", str(path), n=n))


def test_facts_whose_new_answer_is_the_old_one_are_left_out_and_named(tmp_path):
    records = [fact(i) for i in range(1, 10)]
    without = plan_of(tmp_path / "facts.jsonl", records, 3)
    made = plan_of(tmp_path / "same.jsonl", [SAME, *records], 3)
    assert made.cases == without.cases and without.left_out == ()
    assert made.left_out == (
        "fact 'f0': the old answer 'Mezzo-soprano' already counts as the new answer "
        "'mezzo soprano'.",
    )


def test_a_corpus_without_a_new_answer_is_refused(tmp_path):
    with pytest.raises(DataError, match="No fact of the corpus has a new answer; .*Mezzo-soprano"):
        plan_of(tmp_path / "same.jsonl", [SAME], 1)
