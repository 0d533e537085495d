"""The plan of a run leaves out facts whose new answer is the old one, and says so."""

from dataclasses import replace

import pytest
from tiny import fact, write_facts

from editbench.errors import DataError, OptionError
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


def test_a_file_of_ones_own_is_split_for_tuning_alone(tmp_path):
    path = tmp_path / "mine.csv"
    rows = "".join(f"The capital of Land{i} is,Town{i},Land{i}\n" for i in range(20))
    path.write_text(f"prompt,target,subject\n{rows}")
    counts = {}
    for part in ("all", "dev", "test"):
        config = RunConfig(("base",), "tiny", "local", str(path), part=part, n=None)
        counts[part] = make_plan(config).config.n
    assert counts["all"] == 20 == counts["dev"] + counts["test"] and counts["dev"] > 0
    with pytest.raises(DataError, match=r"-n 20 is more than the \d+ test facts .*of 20 in all"):
        make_plan(replace(config, n=20))
    with pytest.raises(OptionError, match="a point lies between 1 and -n 20"):
        make_plan(replace(config, part="all", curve=(1, 21)))
    path.write_text("prompt,target\nThe capital of Land is,Town\n")
    assert len(make_plan(replace(config, part="all")).cases) == 1
    with pytest.raises(DataError, match="the only fact falls to .* Use --part"):
        [make_plan(replace(config, part=part)) for part in ("dev", "test")]
