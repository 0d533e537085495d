"""``editbench compare --seeds``: several runs in one folder, and one row for each method."""

import json
import os
import shutil

import pytest
from hostile.tasks import write_unaskable
from tiny import editbench, write_facts, write_model

from editbench.eval.retention import draw
from editbench.records.reading import load_run, read_run
from editbench.records.store import RunStore

START = ("compare", "--corpus", "local", "--data", "facts.jsonl", "-n", 4, "--part", "test")
MORE = ("--tasks", "eb_arithmetic", "--limit", 8, "--methods", "sft", "--option", "sft.epochs=2")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    write_facts(folder / "facts.jsonl")
    write_model(folder / "tiny")
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def compare(*arguments):
    return editbench(*START, "--model", "tiny", *MORE, *arguments)


@pytest.fixture(scope="module")
def both(here):
    """Two seeds in one run, in the folder ``both``."""
    said = compare("--output", "both", "--seeds", "0,1")
    assert said.code == 0, said.err
    return said


def test_a_method_is_one_row_with_the_spread_of_the_seeds(both, here):
    assert "4 a seed" not in both.err and "for each of the seeds 0, 1" in both.err
    assert "n=4 a seed" in both.out and "seeds 0, 1" in both.out
    rows = [line for line in both.out.splitlines() if "sft" in line and "±" in line]
    assert rows, both.out
    page = (here / "both/README.md").read_text()
    assert "| [sft]" not in page and "| sft (seeds [0](seed0/cells/sft-" in page
    assert (here / "both/site/index.html").is_file()


def test_cells_of_a_seed_are_those_of_a_run_of_its_own(both, here):
    assert compare("--output", "alone", "--seed", 1).code == 0
    alone, among = load_run(here / "alone"), load_run(here / "both/seed1")
    assert alone[0] == among[0]
    for one, other in zip(alone[1], among[1], strict=True):
        for name in ("key", "metrics", "retention", "corpus", "tables"):
            assert one[name] == other[name], name
    facts = [(here / f"both/seed{seed}/cases.json").read_text() for seed in (0, 1)]
    assert facts[0] != facts[1], "a seed draws facts, as --seed does"


def test_a_run_of_seeds_is_shown_checked_and_resumed(both, here):
    shown = editbench("show", "both")
    assert shown.code == 0 and "±" in shown.out
    value = json.loads(editbench("show", "both", "--json").out)
    row = next(row for row in value["rows"] if row["method"] == "sft")
    assert row["key"].count("+") == 1 and row["efficacy"]["spread"] >= 0
    verified = editbench("verify", "both", "--rerun", 1)
    assert verified.code == 0, verified.out
    assert "numbers of 6 cells" in verified.out and "Nothing differs" in verified.out
    shutil.rmtree(next((here / "both/seed1/cells").glob("sft-*")))
    again = compare("--output", "both", "--seeds", "0,1")
    assert again.code == 0
    done = [line for line in again.err.splitlines() if ": done in " in line]
    assert len(done) == 1 and done[0].startswith("seed 1, sft: done in ")
    assert done[0].endswith(" s (6 of 6 done)")


def test_the_leaderboard_is_printed_where_no_page_is_asked_for(both):
    said = editbench("leaderboard", "both/seed0", "both/seed1")
    assert said.code == 0 and "seeds 0, 1" in said.out and "±" in said.out
    shown = editbench("show", "both")
    assert said.out == shown.out, "the same cells make the same rows"


def test_an_unfinished_run_of_seeds_is_shown_as_far_as_it_goes(both, here):
    shutil.copytree(here / "both", here / "part")
    shutil.rmtree(next((here / "part/seed1/cells").glob("sft-*")))
    shown = editbench("show", "part")
    assert shown.code == 0 and "seeds 0, 1" in shown.out and "seed 0," in shown.out
    assert "seed1: sft: no record" in shown.err
    refused = editbench("show", "part", "--json")
    assert refused.code == 2 and "have not finished the same methods" in refused.err
    shutil.rmtree(here / "part/seed1")
    shown = editbench("show", "part")
    assert shown.code == 0 and "seed 1: no finished cell yet" in shown.err


def test_a_changed_page_of_seeds_is_noticed(both, here):
    shutil.copytree(here / "both", here / "changed")
    page = here / "changed/README.md"
    page.write_text(page.read_text().replace("±", "+-"))
    verified = editbench("verify", "changed", "--rerun", 0)
    assert verified.code == 1 and "README.md" in verified.out


def test_seeds_are_added_and_not_left_out(both, here):
    shutil.copytree(here / "both", here / "more")
    said = compare("--output", "more", "--seeds", "0,1,2")
    assert said.code == 0 and "seeds 0, 1, 2" in said.out
    refused = compare("--output", "more", "--seeds", "0,1")
    assert refused.code == 2 and "--seeds 0,1,2" in refused.err


def test_a_task_that_one_seed_cannot_be_asked_is_left_out_for_all(here):
    bad = write_unaskable(here, "a grader that fails at one document")
    asked = ("--tasks", f"eb_grammar,{bad}", "--limit", 1)
    # The grader fails at the second document.
    good, fails = (next(s for s in range(50) if draw("broken", 2, 1, s) == [i]) for i in (0, 1))
    assert compare(*asked, "--seed", good, "--output", "good").code == 0
    for kept in (0, 6):
        said = compare(*asked, "--seeds", f"{good},{fails}", "--output", "lost")
        assert said.code == 1 and said.err.count("kept from an earlier run") == kept, said.err
        assert "broken.yaml: not asked: " in said.err
    for seed in (good, fails):
        for summary in load_run(here / f"lost/seed{seed}")[1]:
            assert list(summary["retention"]) == ["eb_grammar"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--seeds", "0,x"), "'x' is not a seed"),
        (("--seeds", ","), "names no seed"),
        (("--seeds", "1,1"), "names 1 twice"),
        (("--seeds", "0,4294967296"), "not a whole number"),
        (("--seeds", "0,1", "--seed", 3), "exclude each other"),
        (("--seeds", "0,1", "--model", "nowhere"), "nowhere"),
    ],
)
def test_bad_seeds_leave_nothing(here, arguments, part):
    refused = compare("--output", "bad", *arguments)
    assert refused.code == 2 and part in refused.err and not (here / "bad").exists()


def test_folders_that_hold_something_else(both, here):
    for arguments, folder in ((("--seeds", "0,1"), "both/seed0"), (("--seed", 0), "both")):
        refused = compare("--output", folder, *arguments)
        assert refused.code == 2 and "Use another --output" in refused.err
    for command in (("show", "both", "--failures"), ("plot", "both", "-o", "x.png")):
        refused = editbench(*command)
        assert refused.code == 2 and "both/seed0" in refused.err


def test_another_configuration_is_refused_before_anything_is_computed(both, here):
    refused = compare("--output", "both", "--seeds", "0,1", "--limit", 4)
    assert refused.code == 2 and "limit is 8 there, 4 now" in refused.err


def test_seeds_that_are_refused_are_not_named(both, here):
    shutil.copytree(here / "both", here / "busy")
    before = (here / "busy/seeds.json").read_text()
    with RunStore(here / "busy/seed0").open(read_run(here / "busy/seed0/run.json")):
        said = compare("--output", "busy", "--seeds", "0,1,2")
    assert said.code == 2 and "is being written by" in said.err, said.err
    assert (here / "busy/seeds.json").read_text() == before and not (here / "busy/seed2").exists()


def test_a_run_of_one_seed_and_one_of_several_are_told_apart(both, here):
    said = compare("--output", "both", "--seed", 1)
    assert said.code == 2 and "holds a run of several seeds" in said.err, said.err
    assert "(--seeds 0,1)" in said.err
    said = compare("--output", "both/seed1", "--seeds", "0,1")
    assert said.code == 2 and "holds a run of one seed" in said.err, said.err
