"""A suite fixes what is measured, and ``verify --submission`` names what a record lacks."""

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pandas
import pytest
from suites import TASK, write_fields, write_suite
from tiny import editbench, write_model

from editbench.eval import retention
from editbench.files import write_json_atomic
from editbench.leaderboard import website
from editbench.leaderboard.sections import read_sections
from editbench.run.config import RunConfig
from editbench.run.keys import SCORING
from editbench.run.plan import make_plan
from editbench.run.suite import FOLDER, Suite, names
from editbench.run.verify.submission import faults
from editbench.types import digest

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "leaderboard" / "results" / "smollm2-135m_demo-counterfact_n50"
URL = "https://example.org/nudge"
NUDGE = """
from dataclasses import dataclass
from typing import ClassVar

import torch

from editbench.plugin import Method


@dataclass(frozen=True)
class Nudge(Method):
    name: ClassVar[str] = "nudge"
    kind: ClassVar[str] = "weight editor"
    summary: ClassVar[str] = "adds a little to one matrix"

    def inject(self, model, facts):
        if not facts:
            return self.edit(model, facts)
        name = model.layout.weight_name(0)
        return self.edit(model, facts, {name: torch.full_like(model.weight(name), 1e-3)})
"""


def install(folder, url=URL):
    """Write a distribution with the method ``nudge`` into ``folder``, as pip would."""
    info = folder / "nudge-1.2.dist-info"
    info.mkdir(parents=True)
    line = f"Project-URL: Source Code, {url}\n" if url else ""
    about = f"Metadata-Version: 2.1\nName: nudge\nVersion: 1.2\n{line}"
    (info / "METADATA").write_text(about)
    (info / "entry_points.txt").write_text("[editbench.methods]\nnudge = nudge_plugin:Nudge\n")
    (folder / "nudge_plugin.py").write_text(NUDGE)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def suite(tmp_path_factory, model):
    return write_suite(tmp_path_factory.mktemp("suite"), model)


@pytest.fixture(scope="module")
def records(tmp_path_factory, suite):
    """Make the records of two people: one with sft, one with a plug-in. Tests change copies."""
    folder = tmp_path_factory.mktemp("records")
    install(folder / "site-packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDITBENCH_CACHE", str(folder / "cache"))
        patch.delenv("EDITBENCH_PLUGINS", raising=False)
        patch.syspath_prepend(str(folder / "site-packages"))
        for name, options in {
            "sft": ("--option", "sft.epochs=1", "--option", "sft.min_steps=1"),
            "nudge": (),
        }.items():
            where = folder / name
            said = editbench(
                "compare", "--suite", suite, "--methods", name, *options, "--output", where
            )
            assert said.code == 0, said.err
            assert "Suite tiny-1: 2 facts" in said.err and "names no repository" not in said.err
    sys.modules.pop("nudge_plugin", None)
    return folder


@pytest.fixture
def record(records, tmp_path):
    """Return a function that copies the record called ``name``."""

    def copied(name="sft"):
        shutil.copytree(records / name, tmp_path / name)
        return tmp_path / name

    return copied


def verify(folder, suite):
    said = editbench("verify", "--submission", folder, "--suite", suite)
    return said.code, said.out


def cell(folder, method, seed=0):
    (found,) = (folder / f"seed{seed}" / "cells").glob(f"{method}-*")
    return found


def change_json(file, change):
    """Change a record with a digest, as a forger would who knows about it."""
    value = json.loads(file.read_text())
    change(value)
    if file.name == "run.json":
        value["digest"] = digest(value["config"])
    else:
        value.pop("digest")
        value["digest"] = digest(value)
    write_json_atomic(file, value)


def change_table(folder, name, change):
    file = folder / f"{name}.parquet"
    change(pandas.read_parquet(file)).to_parquet(file)
    now = hashlib.sha256(file.read_bytes()).hexdigest()
    change_json(folder / "summary.json", lambda summary: summary["tables"].update({name: now}))


# --- the suites that are shipped ------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_a_shipped_suite_is_what_this_code_measures(name):
    """If this fails, remove the suite and write the next one (CONTRIBUTING.md, Suites)."""
    suite = Suite.read(name)
    assert suite.name == name and suite.scoring == SCORING
    for task, data in suite.retention["tasks"].items():
        assert retention.data_digest(task, None) == data
        items = (ROOT / "eval/tasks/data" / f"{task}.jsonl").read_text().splitlines()
        assert len(items) >= suite.retention["limit"]
    for seed in suite.numbers:
        corpus, part, n = (suite.facts[key] for key in ("corpus", "part", "n"))
        plan = make_plan(RunConfig(("base",), "none", corpus, part=part, n=n, seed=seed))
        assert plan.slice_hash == suite.seeds[str(seed)]
    record = json.loads(next(PUBLISHED.glob("cells/base-*/summary.json")).read_text())
    assert record["model"]["hash"] == suite.model["weights"]
    assert record["model"]["chat_template"] == suite.model["chat_template"]


def test_suites_are_listed_and_shown():
    (record,) = json.loads(editbench("list", "suites", "--json").out)
    suite = Suite.read("eb-1")
    assert record["name"] == "eb-1" and suite.digest.startswith(record["digest"])
    assert json.loads(editbench("list", "eb-1", "--json").out)["digest"] == suite.digest
    said = editbench("list", "eb-1").out
    assert tomllib.loads(said) == tomllib.loads((FOLDER / "eb-1.toml").read_text())


# --- compare --suite ------------------------------------------------------------------------------


def test_a_record_names_its_suite_and_its_conditions(records, suite):
    for seed in (0, 1):
        config = json.loads((records / f"sft/seed{seed}/run.json").read_text())["config"]
        assert config["suite"] == {"name": "tiny-1", "digest": Suite.read(str(suite)).digest}
        assert (config["n"], config["limit"], config["tasks"]) == (2, 3, [TASK])
        assert config["precision"] == "float32"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--limit", 100), "--limit 100 contradicts suite tiny-1, which has 3"),
        (("-n", 3), "-n 3 contradicts suite tiny-1, which has 2"),
        (("--seed", 0), "--seed 0 contradicts suite tiny-1, which has the seeds 0, 1"),
        (("--seeds", "0"), "--seeds 0 contradicts suite tiny-1, which has 0,1"),
        (("--regime", "single"), "--regime single contradicts suite tiny-1, which has batch"),
        (("--tasks", "default"), f"--tasks default contradicts suite tiny-1, which has {TASK}"),
        (("--model", "other"), "--model other contradicts suite tiny-1, which has MODEL"),
        (("--part", "dev"), "--part dev contradicts suite tiny-1, which has test"),
        (("--precision", "auto"), "--precision auto contradicts suite tiny-1, which has float32"),
        (("--facts", "x.csv"), "--facts is not part of suite tiny-1"),
        (("--judge", "http://x"), "--judge is not part of suite tiny-1"),
        (("--artifact", "a=b"), "--artifact is not part of suite tiny-1"),
        (("--diagnostics", "drift"), "--diagnostics is not part of suite tiny-1"),
    ],
)
def test_an_option_that_contradicts_the_suite_is_named(suite, model, option, words):
    said = editbench("compare", "--suite", suite, *option)
    assert (said.code, said.err) == (
        2,
        f"editbench: {words.replace('MODEL', str(model))}. Leave it out.\n",
    )


def test_what_the_suite_says_as_well_may_be_said(suite, tmp_path):
    said = editbench(
        "compare", "--suite", suite, "--methods", "sft", "-n", 2, "--limit", 3, "--seeds", "0,1",
        "--option", "sft.nosuch=1", "--output", tmp_path / "run",
    )  # fmt: skip
    assert said.code == 2 and "has no option 'nosuch'" in said.err


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("scoring", SCORING - 1, f"is scored by version {SCORING - 1}, and this editbench"),
        ("seeds", {"0": "0123456789abcdef"}, "has 0123456789abcdef. So its records could not"),
        ("retention", {"limit": 3, "tasks": {TASK: "0"}}, f"The data of {TASK} are "),
        ("model", {"weights": "0"}, "The weights of "),
    ],
)
def test_other_data_than_the_suites_are_refused(suite, tmp_path, field, value, words):
    fields = asdict(Suite.read(str(suite)))
    fields[field] = value if field != "model" else {**fields["model"], **value}
    file = write_fields(tmp_path, fields)
    said = editbench("compare", "--suite", file, "--methods", "sft", "--output", tmp_path / "run")
    assert said.code == 2 and words in said.err and "Traceback" not in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name =", "is not TOML"),
        ('name = "x"', "is no suite: it has no '"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path, text, words):
    file = tmp_path / "odd.toml"
    if text:
        file.write_text(text)
    said = editbench("compare", "--suite", file)
    assert said.code == 2 and words in said.err
    assert "Did you mean 'eb-1'" in editbench("compare", "--suite", "eb-2").err


def test_a_method_without_a_repository_is_told_before_the_run(suite, tmp_path, monkeypatch):
    install(tmp_path / "site-packages", url="")
    monkeypatch.delenv("EDITBENCH_PLUGINS")
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    said = editbench(
        "compare", "--suite", suite, "--methods", "nudge", "--option", "nudge.nosuch=1"
    )
    assert "nudge comes from the package nudge, which names no repository" in said.err


# --- verify --submission --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sft", "nudge"])
def test_a_whole_record_passes_where_its_method_is_not_installed(records, suite, name):
    code, said = verify(records / name, suite)
    assert code == 0 and "Nothing is missing, and " in said


def forge_text(folder):
    def change(table):
        wrong = table["generation"].eq(0) & table["axis"].eq("rewrite")
        assert wrong.any()
        table.loc[wrong, "text"] = table.loc[wrong, "answers"].map(lambda answers: answers[0])
        return table

    change_table(cell(folder, "sft"), "probes", change)


def lose_text(folder):
    def change(table):
        table.loc[0, "output"] = None
        return table

    change_table(cell(folder, "sft"), "retention", change)


def edit_base(folder):
    def change(table):
        table.loc[0, "text"] = "something else"
        return table

    change_table(cell(folder, "base"), "probes", change)


def drop_question(folder):
    change_table(cell(folder, "sft"), "probes", lambda table: table.iloc[1:])


def drop_seed(folder):
    shutil.rmtree(folder / "seed1")
    write_json_atomic(folder / "seeds.json", {"seeds": [0]})


def forget_suite(folder):
    change_json(folder / "seed0" / "run.json", lambda run: run["config"].pop("suite"))


def older_suite(folder):
    def change(run):
        run["config"]["suite"]["digest"] = "0" * 64

    change_json(folder / "seed1" / "run.json", change)


def summary_with(part, **changes):
    def forge(folder):
        def change(summary):
            (summary[part] if part else summary).update(changes)

        change_json(cell(folder, "sft") / "summary.json", change)

    return forge


FAULTS = {
    "no base": (
        lambda folder: shutil.rmtree(cell(folder, "base")),
        "seed 0: The row of the unedited model (base) is missing.",
    ),
    "no texts": (lambda folder: (cell(folder, "sft") / "probes.parquet").unlink(), "not exist"),
    "no seed": (drop_seed, "Seed 1 is missing; suite tiny-1 has 0, 1."),
    "no suite": (forget_suite, "The record is of no suite. Make it with "),
    "older suite": (older_suite, "seed 1: run.json was made with tiny-1 of digest 000000000000;"),
    "lost text": (lose_text, f"seed 0: sft: {TASK} has 2 texts, and suite tiny-1 asks 3 items."),
    "edited base": (edit_base, "seed 0: base: 1 texts are not those of the unedited model."),
    "lost question": (drop_question, "seed 0: sft: 1 questions have no text: "),
    "other weights": (
        summary_with("model", hash="0" * 16),
        "sft: weights: 0000000000000000, and suite tiny-1 has ",
    ),
    "older scoring": (summary_with("versions", scoring=1), "sft: scoring version: 1, and suite"),
    "failed": (summary_with(None, status="failed", note="it broke"), "it failed (it broke)."),
    "no version": (summary_with(None, versions={}), "the version of the method is missing."),
    "no software": (summary_with(None, environment={}), "which version of editbench computed it."),
    "malformed": (summary_with(None, versions=[]), "its record is malformed"),
    "own file": (summary_with(None, sources={"/home/me/cov.npz": "0"}), "the file cov.npz, which"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_a_sentence(record, suite, name):
    forge, words = FAULTS[name]
    folder = record()
    forge(folder)
    found = faults(folder, str(suite))
    assert [line for line in found if words in line], found
    assert all(line.endswith(".") and "\n" not in line for line in found), found


def test_a_number_that_does_not_follow_from_its_text_is_a_sentence(record, suite):
    folder = record()
    forge_text(folder)
    change_json(cell(folder, "sft", 1) / "summary.json", lambda cell: cell.update(denied={"a": 3}))
    code, said = verify(folder, suite)
    assert code == 1 and "probes, generation: not what the text gives in " in said
    assert ": denied.a: 3 is stored, and null was found." in said
    assert "it cannot be submitted yet." in said


@pytest.mark.parametrize(
    ("origins", "words"),
    [
        ([], "nudge is no method of editbench, and its record names no package."),
        (
            [{"method": "nudge", "package": "nudge", "version": "1.2", "url": ""}],
            "nudge comes from the package nudge, which names no repository. Add [project.urls] with"
            ' repository = "https://..." to its pyproject.toml, install it again, delete the cell'
            " and run again.",
        ),
    ],
)
def test_a_plug_in_needs_a_repository(record, suite, origins, words):
    folder = record("nudge")
    for seed in (0, 1):
        summary = cell(folder, "nudge", seed) / "summary.json"
        change_json(summary, lambda record: record.update(origins=origins))
    found = faults(folder, str(suite))
    assert found == [f"seed {seed}: nudge: {words}" for seed in (0, 1)]


def test_a_row_is_computed_again_where_that_is_asked(records, suite):
    said = editbench(
        "verify", "--submission", records / "sft", "--suite", suite, "--rerun", 1, "--seed", 4
    )
    assert said.code == 0 and ": done" in said.err


def test_a_record_of_a_suite_that_is_not_known_is_refused(records):
    said = editbench("verify", "--submission", records / "sft")
    assert said.code == 1 and "Unknown suite 'tiny-1'" in said.out
    said = editbench("verify", "--submission", records / "nowhere")
    assert said.code == 1 and "There is no run folder" in said.out
    said = editbench("verify", records / "sft", "--suite", "x.toml")
    assert said.code == 2 and "Add --submission" in said.err


# --- records of several people --------------------------------------------------------------------


def test_records_of_one_suite_share_a_table(records, tmp_path):
    runs = [records / "sft", records / "nudge"]
    (section,) = read_sections(runs).sections
    assert section.suite == "tiny-1"
    assert sorted(row["method"] for row in section.summaries) == ["base", "ice", "nudge", "sft"]
    said = editbench("leaderboard", *runs, "-o", tmp_path / "page.md")
    assert said.code == 0, said.err
    page = (tmp_path / "page.md").read_text()
    assert page.count("\n## ") == 2 and "suite tiny-1 · n = 2 cases a seed" in page
    assert "seeds 0, 1" in page and "nudge comes from the package nudge 1.2 (" in page
    pages = website.pages(runs, {}, "editbench site", "1")
    assert len(pages) == 2 and URL in pages["index.html"]


def test_a_record_that_somebody_else_has_made_before_is_named(records, record, tmp_path):
    said = editbench("leaderboard", records / "sft", record(), "-o", tmp_path / "page.md")
    assert said.code == 0, said.err
    page = (tmp_path / "page.md").read_text().replace("\\", "")
    assert f"sft: {tmp_path}/sft/seed0, {tmp_path}/sft/seed1 have the same cells once more" in page
    assert "base: " not in page and "ice: " not in page


def test_two_methods_of_one_name_are_refused(records, record):
    folder = record("nudge")
    for seed in (0, 1):
        change_json(
            cell(folder, "nudge", seed) / "summary.json",
            lambda summary: summary["origins"][0].update(package="other", url="https://other"),
        )
    said = editbench("leaderboard", records / "nudge", folder)
    assert said.code == 2
    assert f"nudge comes from nudge ({URL}) in one run, and from other (https://other)" in said.err


def test_the_workflow_verifies_the_records_that_changed(tmp_path):
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "editbench").write_text(
        '#!/bin/sh\necho "asked: $*"\n! grep -q bad "$3/run.json"\n'
    )
    (commands / "editbench").chmod(0o755)
    repository = tmp_path / "repository"

    def git(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        command = ("git", *identity, "-C", str(repository), *arguments)
        subprocess.run(command, check=True, capture_output=True)

    def commit(**files):
        for name, text in files.items():
            file = repository / "leaderboard/submissions/eb-1" / name / "run.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        git("add", "-A")
        git("commit", "-qm", "change")

    def check():
        done = subprocess.run(
            [str(ROOT / ".github/verify_submissions"), "base"], cwd=repository,
            env={"PATH": f"{commands}:/usr/bin:/bin"}, capture_output=True, text=True,
        )  # fmt: skip
        asked = [line for line in done.stdout.splitlines() if line.startswith("asked")]
        return done.returncode, [line.rpartition("/")[2] for line in asked]

    repository.mkdir()
    git("init", "-q")
    commit(old="bad", other="good")
    git("branch", "base")
    assert check() == (0, [])
    commit(other="better", new="good")
    assert check() == (0, ["new", "other"])
    commit(worse="bad")
    assert check() == (1, ["new", "other", "worse"])
