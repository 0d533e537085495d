"""``verify`` passes an honest run, and names whatever was changed in one."""

import hashlib
import json
import shutil

import pandas
import pytest
from tiny import editbench, fact, write_facts, write_model

from editbench.eval.probes import metrics
from editbench.files import jsonable, write_json_atomic
from editbench.records.reading import read_rows
from editbench.run import baseline, keys
from editbench.run.keys import SCORING, key_of
from editbench.run.scores import retention_scores
from editbench.run.verify import comparing
from editbench.types import digest

COMPARE = (
    "compare",
    "--corpus",
    "local",
    "--data",
    "facts.jsonl",
    "-n",
    3,
    "--methods",
    "sft",
    "--option",
    "sft.epochs=4",
    "--option",
    "sft.lr=1e-3",
    "--tasks",
    "eb_grammar,eb_instruct",
    "--limit",
    3,
    "--precision",
    "float32",
    "--output",
    "run",
    "--model",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def original(tmp_path_factory, model):
    """Make a folder with facts and a run of base, ice and sft on them. Tests must not change it."""
    folder = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EDITBENCH_CACHE", str(folder / "cache"))
        patch.setenv("EDITBENCH_PLUGINS", "none")
        write_facts(folder / "facts.jsonl")
        said = editbench(*COMPARE, model)
        assert said.code == 0, said.err
    return folder


@pytest.fixture
def here(original, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(original, folder)
    run = json.loads((folder / "run" / "run.json").read_text())
    run["config"]["data"] = str(folder / "facts.jsonl")  # as if the run had been made here
    write_json_atomic(folder / "run" / "run.json", {**run, "digest": digest(run["config"])})
    monkeypatch.chdir(folder)
    return folder


def cell(here, method):
    (found,) = (here / "run" / "cells").glob(f"{method}-*")
    return found


def cells_of(here, method, but):
    return [path for path in (here / "run" / "cells").glob(f"{method}-*") if path.name not in but]


def change_summary(folder, change, digested=False):
    """Change a summary; if ``digested``, also its digest, as a forger would who knows about it."""
    summary = json.loads((folder / "summary.json").read_text())
    change(summary)
    if digested:
        del summary["digest"]
        summary["digest"] = digest(summary)
    write_json_atomic(folder / "summary.json", summary)


def change_table(folder, name, change, digested=False):
    file = folder / f"{name}.parquet"
    table = pandas.read_parquet(file)
    change(table)
    table.to_parquet(file)
    if digested:
        now = hashlib.sha256(file.read_bytes()).hexdigest()
        change_summary(folder, lambda summary: summary["tables"].update({name: now}), True)


def verify(*arguments):
    said = editbench("verify", "run", *arguments, "--json")
    return said.code, json.loads(said.out)


def test_an_honest_run_passes_and_every_cell_comes_out_again(here):
    code, report = verify("--rerun", 9)
    assert (code, report["differences"]) == (0, [])
    assert report["cells"] == 3 and len(report["rerun"]) == 3 and report["notes"] == []
    assert report["rows"] == 3 * (3 * 4 + 2 * 3) and report["numbers"] > 3 * 50
    said = editbench("verify", "run", "--rerun", 0)
    assert said.code == 0 and "Nothing differs." in said.out and "computed again" not in said.out


def test_local_files_are_found_from_any_folder(here, model, monkeypatch):
    shutil.copytree(model, here / "tiny")
    said = editbench(*COMPARE[:-2], "elsewhere", "--model", "tiny")
    assert said.code == 0 and "model tiny" in said.err, said.err
    config = json.loads((here / "elsewhere" / "run.json").read_text())["config"]
    assert (config["model"], config["data"]) == (str(here / "tiny"), str(here / "facts.jsonl"))
    assert "## tiny · local" in (here / "elsewhere" / "README.md").read_text(), (
        "its name is the one that was typed"
    )
    monkeypatch.chdir(here.parent)
    said = editbench("verify", here / "elsewhere", "--rerun", 1)
    assert said.code == 0 and "Nothing differs." in said.out, said.out + said.err


def test_a_file_that_an_option_names_is_part_of_the_key_and_found_from_any_folder(
    here, model, monkeypatch
):
    tiny = ("steps=2", "prefixes=0", "covariance_tokens=200")
    options = [
        part
        for one in (*tiny, "covariance=wiki.txt, self")
        for part in ("--option", f"memit.{one}")
    ]

    def compare():
        (here / "wiki.txt").write_text(text)
        said = editbench(
            *COMPARE[:7],
            "--methods",
            "memit",
            *options,
            "--tasks",
            "none",
            "--output",
            "wiki",
            "--model",
            model,
        )
        assert said.code == 0, said.err
        (key,) = [
            key
            for method, key in json.loads((here / "wiki" / "cells.json").read_text()).items()
            if method == "memit"
        ]
        return said.err, json.loads((here / "wiki" / "cells" / key / "summary.json").read_text())

    text = "The river rises in the hills and runs to the sea.\n" * 40
    _, first = compare()
    assert first["options"]["covariance"] == f"{here / 'wiki.txt'}, self"
    assert first["sources"] == {str(here / "wiki.txt"): hashlib.sha256(text.encode()).hexdigest()}
    assert "memit: kept" in compare()[0]
    text = text.replace("river", "road")
    said, second = compare()
    assert "memit: done" in said and "base: kept" in said and second["key"] != first["key"]
    base = next(path for path in (here / "wiki" / "cells").glob("base-*"))
    assert "sources" not in json.loads((base / "summary.json").read_text())
    monkeypatch.chdir(here.parent)
    said = editbench("verify", here / "wiki", "--rerun", 9)
    assert said.code == 0 and second["key"] in said.out and "Nothing differs." in said.out, (
        said.out + said.err
    )
    (here / "wiki.txt").write_text("Changed.\n" * 40)
    said = editbench("verify", here / "wiki", "--rerun", 9, "--json")
    whats = {one["what"] for one in json.loads(said.out)["differences"]}
    assert said.code == 1 and "hashes of the files that its options name" in whats


TASK = """\
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: absent.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{land}} is"
doc_to_choice: ["Paris", "Rome"]
doc_to_target: answer
metric_list: [{metric: acc}]
"""


def test_a_task_file_is_found_from_any_folder_and_shown_by_its_name(here, model, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(here / "cache"))
    (here / "mine.yaml").write_text(TASK)
    (here / "rows.jsonl").write_text(
        '{"land": "France", "answer": 0}\n{"land": "Italy", "answer": 1}\n'
    )
    tasks = ("--tasks", "mine.yaml", "--task-data", "mine.yaml=rows.jsonl")
    said = editbench(*COMPARE[:7], "--methods", "ice", *tasks, "--output", "own", "--model", model)
    assert said.code == 0 and "mine.yaml" in said.out and str(here) not in said.out, (
        said.out + said.err
    )
    assert (here / "own" / "README.md").read_text().count(
        "\n| Method | mine.yaml (acc, n = 2) |"
    ) == 1
    config, whole = (
        json.loads((here / "own" / "run.json").read_text())["config"],
        str(here / "mine.yaml"),
    )
    assert config["tasks"] == [whole] and config["task_data"] == {whole: str(here / "rows.jsonl")}
    monkeypatch.chdir(here.parent)
    said = editbench("verify", here / "own", "--rerun", 9)
    assert said.code == 0 and "Nothing differs." in said.out, said.out + said.err


def test_the_draw_of_cells_is_seeded(here):
    drawn = {seed: verify("--seed", seed)[1]["rerun"] for seed in (0, 1, 2, 3)}
    assert (
        all(len(keys) == 1 for keys in drawn.values())
        and len({keys[0] for keys in drawn.values()}) > 1
    )
    assert verify("--seed", 1)[1]["rerun"] == drawn[1]


def test_a_changed_number_is_named_with_both_values(here):
    def better(summary):
        summary["metrics"]["efficacy"]["generation"]["mean"] = 0.987
        summary["retention"]["eb_grammar"]["delta_low"] = 0.5

    change_summary(cell(here, "sft"), better, digested=True)
    code, report = verify("--rerun", 0)
    found = {one["what"]: one for one in report["differences"]}
    assert code == 1 and set(found) == {
        "metrics.efficacy.generation.mean",
        "retention.eb_grammar.delta_low",
    }
    one = found["metrics.efficacy.generation.mean"]
    assert (
        one["cell"] == cell(here, "sft").name and one["stored"] == 0.987 and 0 <= one["found"] <= 1
    )
    said = editbench("verify", "run", "--rerun", 0)
    assert (
        said.code == 1
        and "metrics.efficacy.generation.mean" in said.out.replace("\n", "")
        and "0.987" in said.out
    )


def test_a_number_that_is_not_there_or_not_of_the_rows(here):
    def other(summary):
        del summary["metrics"]["efficacy"]["likelihood"]
        summary["retention"]["mmlu"] = dict(summary["retention"]["eb_grammar"])

    change_summary(cell(here, "ice"), other, digested=True)
    code, report = verify("--rerun", 0)
    whats = {one["what"] for one in report["differences"]}
    assert code == 1 and any(w.startswith("metrics.efficacy.likelihood") for w in whats)
    assert any(w.startswith("retention.mmlu") for w in whats)


def test_points_of_a_curve_and_probes_without_a_second_answer(here, model):
    """NaN is stored as null: an undefined score must not be taken for an unreadable one."""
    write_facts(here / "facts.jsonl", [fact(i, original=None) for i in range(10)])
    said = editbench(
        *COMPARE[:-2], "curved", "--regime", "sequential:1", "--curve", "1,3", "--model", model
    )
    assert said.code == 0, said.err
    said = editbench("verify", "curved", "--rerun", 1)
    assert said.code == 0, said.out
    (folder,) = (here / "curved" / "cells").glob("sft-*")
    change_summary(
        folder,
        lambda s: s["curve"][0]["metrics"]["efficacy"]["generation"].update(mean=0.9),
        digested=True,
    )
    said = editbench("verify", "curved", "--rerun", 0, "--json")
    assert [one["what"] for one in json.loads(said.out)["differences"]] == [
        "curve.1 facts.metrics.efficacy.generation.mean"
    ]


def test_a_judge_is_not_asked_again(here):
    """Means of its verdicts are recomputed from the rows; a rerun compares the other columns."""
    run = json.loads((here / "run" / "run.json").read_text())
    run["config"] |= {"judge": "http://127.0.0.1:1/v1", "judge_model": "gone"}
    write_json_atomic(here / "run" / "run.json", {**run, "digest": digest(run["config"])})
    for method in ("base", "ice", "sft"):
        folder = cell(here, method)
        change_table(folder, "probes", lambda rows: rows.insert(0, "judge", 1.0), digested=True)
        rows = read_rows(here / "run", folder.name, "probes")
        key = key_of(json.loads((folder / "summary.json").read_text()), run["config"])
        change_summary(
            folder,
            lambda s, rows=rows, key=key: s.update(metrics=jsonable(metrics(rows)), key=key),
            digested=True,
        )
        folder.rename(folder.with_name(key))
    for file in ("cells.json", "README.md"):  # they name the cells by their old keys
        (here / "run" / file).unlink()
    code, report = verify("--rerun", 9)
    assert (code, report["differences"]) == (0, [])


def test_a_digest_or_a_cell_that_was_taken_away_is_said(here):
    change_summary(cell(here, "sft"), lambda summary: summary.pop("digest"))
    shutil.rmtree(cell(here, "ice"))
    code, report = verify("--rerun", 0)
    assert code == 1 and [one["what"] for one in report["differences"]] == [
        "digest of summary.json: it was removed"
    ]
    assert report["notes"][0].startswith("ice: no record")


def test_cells_that_were_redone_and_cells_of_others_are_not_the_run_s(here, model, monkeypatch):
    old = {path.name for path in (here / "run" / "cells").iterdir()}
    # Both modules, since ``baseline`` holds the name as well.
    monkeypatch.setattr(keys, "SCORING", SCORING + 1)
    monkeypatch.setattr(baseline, "SCORING", SCORING + 1)
    assert editbench(*COMPARE, model).code == 0
    shutil.copytree(cells_of(here, "sft", old)[0], here / "run" / "cells" / "sft-foreign")
    assert len(list((here / "run" / "cells").iterdir())) == 7
    rows = json.loads(editbench("show", "run", "--json").out)["rows"]
    assert len(rows) == 3 and not old & {row["key"] for row in rows}
    assert editbench("show", "run", "--diff", "sft", "ice").code == 0
    page = (here / "run" / "README.md").read_text()
    assert not any(key in page for key in old)
    code, report = verify("--rerun", 0)
    others = ", ".join(sorted(old | {"sft-foreign"}))
    assert (code, report["cells"]) == (0, 3) and report["notes"][0].startswith(
        f"{others}: not of this run"
    )
    (here / "run" / "cells" / "sft-foreign" / "summary.json").unlink()
    (
        here / "run" / "cells.json"
    ).unlink()  # as in a folder from before that file existed: all cells are the run's
    said = editbench("show", "run")
    assert said.code == 2 and "Make one table for each scoring version." in said.err
    assert editbench("leaderboard", "run", "-o", "page.md").code == 0
    assert (here / "page.md").read_text().count("tiny · local (all, n = 3)") == 2, (
        "a table for each version"
    )
    (here / "run" / "cells.json").write_text("{")
    said = editbench("show", "run")
    assert (
        said.code == 2
        and "cells.json is corrupt" in said.err
        and "run the same command again" in said.err
    )


def test_any_change_of_a_summary_is_told_by_its_digest(here):
    change_summary(cell(here, "sft"), lambda summary: summary["options"].update(lr=5e-5))
    code, report = verify("--rerun", 0)
    assert code == 1 and [one["what"] for one in report["differences"]] == [
        "digest of summary.json: it was changed after it was written"
    ]
    for command in (("show", "run"), ("leaderboard", "run", "-o", "page.md")):
        said = editbench(*command)
        assert (
            said.code == 2
            and "summary.json is corrupt: digest: it was changed" in said.err
            and said.out == ""
        )


@pytest.mark.parametrize(("table", "column"), [("probes", "text"), ("retention", "output")])
def test_a_changed_text_is_told_by_the_digest_and_by_computing_anew(here, table, column):
    """The changed text has the same scores; scores would give any other change away."""

    def change(rows):
        rows.loc[len(rows) - 1, column] += " !"

    change_table(cell(here, "sft"), table, change)
    code, report = verify("--rerun", 0)
    assert code == 1 and any(
        f"digest of {table}.parquet" in one["what"] for one in report["differences"]
    )
    # With digests that fit, only the model itself can reveal the change.
    change_table(cell(here, "sft"), table, lambda rows: None, digested=True)
    assert verify("--rerun", 0)[0] == 0
    code, report = verify("--rerun", 3)
    (one,) = report["differences"]
    assert code == 1 and one["what"].startswith(f"{table}, {column}: 1 of")
    assert one["stored"] == one["found"] + " !"
    assert one["cell"] == cell(here, "sft").name


def test_a_changed_score_moves_the_numbers(here):
    def change(rows):
        rows["generation"] = 1.0 - rows["generation"]

    change_table(cell(here, "sft"), "probes", change, digested=True)
    code, report = verify("--rerun", 0)
    assert code == 1 and any(
        one["what"] == "metrics.efficacy.generation.mean" for one in report["differences"]
    )


def test_scores_that_the_text_does_not_give_are_named(here):
    """Scores, metrics and digests agree with each other, but not with the text."""

    def change(rows):
        rows.loc[rows["axis"] == "rewrite", ["generation", "base_generation"]] = 1.0
        rows.loc[rows["axis"] == "paraphrase", ["likelihood", "base_likelihood"]] = 1.0
        rows.loc[rows["axis"] == "neighborhood", "target_leaked"] = True

    folder = cell(here, "base")
    change_table(folder, "probes", change, digested=True)
    rows = read_rows(here / "run", folder.name, "probes")
    change_summary(
        folder, lambda summary: summary.update(metrics=jsonable(metrics(rows))), digested=True
    )
    code, report = verify("--rerun", 0)
    whats = [one["what"] for one in report["differences"] if one["cell"] == folder.name]
    assert code == 1 and [what.split(": not what the text gives in ")[0] for what in whats] == [
        "probes, generation", "probes, target_leaked", "probes, likelihood"
    ]  # fmt: skip
    assert "of 12 rows, the first case f" in whats[0]


def test_denials_are_checked_where_a_record_has_them(here):
    def flag(rows):
        rows.loc[rows["axis"] == "rewrite", "denied"] = True

    def drop(rows):  # as in a record from before the flag
        del rows["denied"]

    folder = cell(here, "base")
    change_table(folder, "probes", drop, digested=True)
    assert verify()[0] == 0
    folder = cell(here, "sft")
    change_table(folder, "probes", flag, digested=True)
    code, report = verify()
    whats = [one["what"] for one in report["differences"] if one["cell"] == folder.name]
    assert code == 1 and [what.partition(":")[0] for what in whats] == [
        "probes, denied",
        "denied.rewrite",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": {"lr": 0.5}}, "key: not the hash of the recorded options"),
        ({"seed": 1}, "key: not the hash of the recorded options"),
        ({"tuned": True}, "tuned: differs from run.json"),
        ({"seconds": {"inject": 0.01}}, "README.md: its tables are not those of the records"),
    ],
)
def test_what_no_row_tells_is_told_by_the_key_or_the_page(here, change, said):
    change_summary(cell(here, "sft"), lambda summary: summary.update(change), digested=True)
    code, report = verify("--rerun", 0)
    (one,) = report["differences"]
    assert code == 1 and one["what"].startswith(said)


def test_tokens_are_scored_again_where_a_record_has_them(here):
    folders = {method: cell(here, method) for method in ("base", "ice", "sft")}

    def fit(folder):
        rows = read_rows(here / "run", folder.name, "probes")
        change_summary(
            folder, lambda summary: summary.update(metrics=jsonable(metrics(rows))), digested=True
        )

    def other(rows):
        asked = rows["axis"] == "rewrite"
        rows.loc[asked, "token_accuracy"] = 0.375
        rows.loc[asked, "argmax"] = 1.0 - rows["argmax"]

    untouched = (folders["sft"] / "probes.parquet").read_bytes()
    change_table(folders["sft"], "probes", other, digested=True)
    fit(folders["sft"])
    code, report = verify("--rerun", 0)
    assert code == 1 and [one["what"].split(": ")[0] for one in report["differences"]] == [
        "probes, argmax", "probes, token_accuracy"
    ]  # fmt: skip
    (folders["sft"] / "probes.parquet").write_bytes(untouched)
    for folder in folders.values():  # as in an older record, whose token shares nobody can check
        change_table(
            folder,
            "probes",
            lambda rows: rows.drop(columns=["target_ids", "base_argmax_ids"], inplace=True),
            True,
        )
        fit(folder)
    code, report = verify("--rerun", 0)
    assert (code, report["differences"]) == (0, [])
    code, report = verify("--rerun", 3)
    assert (code, report["differences"]) == (0, [])


def test_scores_of_samples_that_the_output_does_not_give_are_named(here):
    def change(rows):
        rows["score"] = 1.0 - rows["score"]

    folder = cell(here, "sft")
    change_table(folder, "retention", change, digested=True)
    rows = read_rows(here / "run", folder.name, "retention")
    scores = retention_scores(rows, [{**row, "score": row["base_score"]} for row in rows])
    change_summary(
        folder, lambda summary: summary.update(retention=jsonable(scores)), digested=True
    )
    code, report = verify("--rerun", 0)
    whats = [one["what"] for one in report["differences"]]
    assert code == 1 and len(whats) == 2 and report["taken"] == {}
    said = "retention, score: not what the output gives in 3 of 3 samples, the first task eb_"
    assert all(what.startswith(said) for what in whats)


def test_samples_whose_data_are_gone_are_counted(here, model, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(here / "cache"))
    (here / "rows.jsonl").write_text(
        '{"question": "2 + 2?", "answer": "#### 4"}\n{"question": "1?", "answer": "#### 1"}\n'
    )
    tasks = (
        "--tasks",
        "gsm8k,eb_grammar",
        "--task-data",
        "gsm8k=rows.jsonl",
        "--option",
        "sft.epochs=1",
    )
    command = (*COMPARE[:9], *tasks, "--limit", 2, "--output", "own", "--model", model)
    said = editbench(*command)
    assert said.code == 0, said.err
    said = editbench("verify", "own", "--rerun", 0)
    assert said.code == 0 and "taken as they stand" not in said.out, said.out
    (here / "rows.jsonl").write_text('{"question": "2 + 3?", "answer": "#### 5"}\n' * 2)
    said = editbench("verify", "own", "--rerun", 0)
    assert (
        said.code == 0
        and "6 scores of samples are taken as they stand, gsm8k: its data has changed since."
        in said.out
    )
    (here / "rows.jsonl").unlink()
    said = editbench("verify", "own", "--rerun", 0)
    assert (
        said.code == 0
        and "6 scores of samples are taken as they stand, gsm8k: " in said.out
        and "rows.jsonl" in said.out
    )


def test_what_the_page_says_could_be_detected_is_of_the_records(here, model):
    said = editbench(
        *COMPARE[:7],
        "--methods",
        "sft,sft@a",
        "--tasks",
        "eb_grammar",
        "--limit",
        3,
        "--output",
        "two",
        "--model",
        model,
    )
    assert said.code == 0, said.err
    page = here / "two" / "README.md"
    assert (
        editbench("verify", "two", "--rerun", 0).code == 0
        and "Detectable with 80 % power" in page.read_text()
    )
    page.write_text(page.read_text().replace("Detectable with 80 %", "Detectable with 90 %"))
    said = editbench("verify", "two", "--rerun", 0, "--json")
    (one,) = json.loads(said.out)["differences"]
    assert (
        said.code == 1
        and one["what"].startswith("README.md")
        and "90 %" in one["stored"]
        and "80 %" in one["found"]
    )


def test_a_curve_and_a_trajectory_come_out_again(here, model):
    said = editbench(
        *COMPARE[:-2], "curved", "--regime", "sequential:1", "--curve", "1,3", "--model", model
    )
    assert said.code == 0, said.err
    (folder,) = (here / "curved" / "cells").glob("sft-*")

    def change(rows):
        rows.loc[len(rows) - 1, "text"] += " !"

    change_table(folder, "curve_probes", change, digested=True)
    change_summary(
        folder, lambda summary: summary["trajectory"][1].update(target_nll=0.0), digested=True
    )
    (here / "curved" / "README.md").unlink()
    assert editbench("verify", "curved", "--rerun", 0).code == 0
    said = editbench("verify", "curved", "--rerun", 3, "--json")
    whats = [one["what"] for one in json.loads(said.out)["differences"]]
    assert said.code == 1 and len(whats) == 2 and whats[1] == "trajectory.2.target_nll"
    assert whats[0].startswith("curve_probes, text: 1 of") and "facts 1 case f" in whats[0]


def test_what_was_asked_right_after_each_chunk_is_checked(here, model):
    chunks = ("chunks", "--regime", "sequential:1", "--tasks", "none", "--model", model)
    said = editbench(*COMPARE[:-2], *chunks)
    assert said.code == 0, said.err
    assert editbench("verify", "chunks", "--rerun", 0).code == 0
    case = json.loads((here / "chunks" / "cases.json").read_text())[0]["id"]
    story = json.loads(editbench("show", "chunks", "--case", case, "--json").out)
    told = [answer for answer in story["answers"] if "right_after" in answer]
    assert {answer["axis"] for answer in told} == {"rewrite", "paraphrase", "neighborhood"}
    (folder,) = (here / "chunks" / "cells").glob("sft-*")
    kept = {name: (folder / name).read_bytes() for name in ("summary.json", "right_after.parquet")}

    def differing(rerun=0):
        said = editbench("verify", "chunks", "--rerun", rerun, "--json")
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        return [one["what"] for one in json.loads(said.out)["differences"]]

    def better(summary):
        efficacy = summary["right_after"]["scores"]["efficacy"]["argmax"]
        efficacy["right_after"]["mean"] = efficacy["change"]["mean"] = 0.25

    change_summary(folder, better, digested=True)
    assert differing() == [
        f"right_after.scores.efficacy.argmax.{when}.mean" for when in ("right_after", "change")
    ]
    change_summary(folder, lambda summary: summary.pop("right_after"), digested=True)
    assert differing() == ["right_after"]

    def without(summary):
        del summary["right_after"], summary["tables"]["right_after"]

    not_all = "right_after: not all probes of the facts that were injected"
    change_summary(folder, without, digested=True)
    assert differing() == [not_all, "right_after"]

    def later(rows):
        rows.loc[0, "facts"] = 3

    change_table(folder, "right_after", later, digested=True)
    assert differing() == [
        "right_after, facts: not that of the facts' order in 1 of 9 rows, the first "
        f"case {pandas.read_parquet(folder / 'right_after.parquet')['case'][0]} probe 0"
    ]

    def forgotten(rows):
        rows.loc[0, "replaced"] = True

    change_table(folder, "right_after", forgotten, digested=True)
    assert any(what.startswith("right_after, replaced: not that of") for what in differing())

    def cut(rows):
        rows.drop(rows[rows["case"] == case].index, inplace=True)

    change_table(folder, "right_after", cut, digested=True)
    assert not_all in differing()

    def other_end(rows):
        rows.loc[len(rows) - 1, "text"] += " "

    change_table(folder, "right_after", other_end, digested=True)
    assert any("of the last chunk not that of the end in 1 of 3" in what for what in differing())

    def said_more(rows):
        rows.loc[0, "text"] += " !"

    (here / "chunks" / "README.md").unlink()
    change_table(folder, "right_after", said_more, digested=True)
    (what,) = differing(rerun=3)
    assert what.startswith("right_after, text: 1 of 9 rows")


def test_a_sequence_from_before_facts_were_asked_twice_comes_out_again(here, model):
    old = ("old", "--regime", "sequential:1", "--tasks", "none", "--model", model)
    said = editbench(*COMPARE[:-2], *old)
    assert said.code == 0, said.err
    config = json.loads((here / "old" / "run.json").read_text())["config"]
    own = {}
    for folder in list((here / "old" / "cells").iterdir()):
        summary = json.loads((folder / "summary.json").read_text())
        del summary["right_after"], summary["tables"]["right_after"], summary["digest"]
        (folder / "right_after.parquet").unlink()
        summary["versions"]["regime"] = 3
        summary["key"] = own[summary["method"]] = key_of(summary, config)
        write_json_atomic(folder / "summary.json", {**summary, "digest": digest(summary)})
        folder.rename(folder.with_name(summary["key"]))
    write_json_atomic(here / "old" / "cells.json", own)
    said = editbench("leaderboard", "old", "-o", "old/README.md")
    assert said.code == 0 and "Right after" not in (here / "old" / "README.md").read_text()
    assert "Right after" not in editbench("show", "old").out
    said = editbench("verify", "old", "--rerun", 3)
    assert said.code == 0 and "Nothing differs" in said.out, said.out


def test_trials_and_choices_are_those_of_their_cells(here, model):
    said = editbench(
        "tune",
        "--corpus",
        "local",
        "--data",
        "facts.jsonl",
        "-n",
        2,
        "--methods",
        "sft",
        "--budget",
        2,
        "--tasks",
        "eb_grammar",
        "--limit",
        24,
        "--precision",
        "float32",
        "--output",
        "tuned",
        "--model",
        model,
    )
    assert said.code == 0, said.err
    file = here / "tuned" / "tuned.json"
    honest = json.loads(file.read_text())["tuned"]
    assert editbench("verify", "tuned", "--rerun", 0).code == 0

    def found(change):
        changed = json.loads(json.dumps(honest))
        change(changed["methods"]["sft"])
        write_json_atomic(file, {"digest": digest(changed), "tuned": changed})
        said = editbench("verify", "tuned", "--rerun", 0, "--json")
        assert said.code == 1
        return [one["what"] for one in json.loads(said.out)["differences"]]

    chosen = honest["methods"]["sft"]["chosen"]["trial"]
    assert found(lambda one: one["trials"][1].update(recall=0.77)) == [
        "tuned.json, sft, trials.recall"
    ]
    assert found(lambda one: one["trials"][1]["options"].update(lr=0.5)) == [
        "tuned.json, sft, trials.options.lr"
    ]
    assert (
        found(lambda one: one["trials"][0].update(feasible=None))[0]
        == "tuned.json, sft, trials.feasible"
    )
    others = found(lambda one: one.update(chosen=one["trials"][1 - chosen]))
    assert "tuned.json, sft, chosen.trial" in others


def test_a_page_that_was_changed_or_drawn_by_other_code_is_told(here):
    page = here / "run" / "README.md"
    page.write_text(page.read_text().replace("| [sft](", "| [sfft]("))
    code, report = verify("--rerun", 0)
    assert (
        code == 1
        and {one["cell"] for one in report["differences"]} == {"run"}
        and report["notes"] == []
    )
    assert (
        "[sfft](" in report["differences"][0]["stored"]
        and "[sft](" in report["differences"][0]["found"]
    )
    change_summary(
        cell(here, "ice"),
        lambda summary: summary["environment"].update(code="older"),
        digested=True,
    )
    code, report = verify("--rerun", 0)
    assert (
        code == 0
        and "README.md: its tables are not those that this editbench renders" in report["notes"][-1]
    )


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("probes", "base_text", "other"),
        ("probes", "base_argmax", 0.5),
        ("retention", "base_output", "other"),
    ],
)
def test_a_row_that_misquotes_the_base_is_named(here, table, column, value):
    def change(rows):
        rows.loc[1, column] = value

    change_table(cell(here, "sft"), table, change, digested=True)
    code, report = verify("--rerun", 0)
    (one,) = report["differences"]
    assert (
        code == 1
        and one["what"].startswith(f"{table}: {column} is not that of base-")
        and one["stored"] == value
    )


def test_other_facts_beside_the_run_are_noticed(here):
    cases = json.loads((here / "run" / "cases.json").read_text())
    cases[0]["target"] = "Tokyo"
    write_json_atomic(here / "run" / "cases.json", cases)
    code, report = verify("--rerun", 0)
    assert code == 1 and {one["what"] for one in report["differences"]} == {"hash of cases.json"}


@pytest.mark.parametrize("meddled", [[1], [{"prompt": 3}], "a probe without answers"])
def test_cases_that_are_none_are_a_difference_and_the_rest_is_checked(here, meddled):
    cases = json.loads((here / "run" / "cases.json").read_text())
    del cases[0]["probes"][0]["answers"]
    write_json_atomic(here / "run" / "cases.json", cases if isinstance(meddled, str) else meddled)
    change_summary(
        cell(here, "sft"),
        lambda s: s["metrics"]["efficacy"]["argmax"].update(low=0.25),
        digested=True,
    )
    code, report = verify("--rerun", 0)
    whats = [one["what"] for one in report["differences"]]
    assert code == 1 and whats[0].startswith("cases.json: not the cases that were asked (")
    assert (
        set(whats[1:]) == {"hash of cases.json", "metrics.efficacy.argmax.low"}
        and report["numbers"] > 100
    )


def test_a_cached_answer_of_the_base_is_no_proof(here, model, monkeypatch):
    """A run that was scored against a changed cache is found out, as a rerun does not read it."""
    cache = here / "cache" / "base"
    for file in cache.iterdir():
        entry = json.loads(file.read_text())
        for row in entry["rows"]:
            row["text" if "text" in row else "output"] = "from the cache"
        file.write_text(json.dumps({**entry, "sha256": digest(entry["rows"])}))
    monkeypatch.setenv("EDITBENCH_CACHE", str(cache.parent))
    assert verify("--rerun", 3)[0] == 0, "the records themselves are honest"
    shutil.rmtree(cell(here, "base"))
    assert editbench(*COMPARE, model).code == 0
    code, report = verify("--rerun", 3)
    assert code == 1 and any(
        one["what"].startswith("probes, text: 12 of 12 rows") for one in report["differences"]
    )


def test_cells_of_other_code_and_of_before_digests_are_said_and_still_checked(here):
    def old(summary):
        for name in ("digest", "tables"):
            del summary[name]
        del summary["environment"]["code"]

    change_summary(cell(here, "sft"), old)
    code, report = verify("--rerun", 0)
    assert code == 0 and report["numbers"] > 100 and len(report["notes"]) == 2
    assert report["notes"][0].startswith("sft: computed by other code (unknown, commit ")
    assert report["notes"][1].startswith("sft: from before digests were stored")
    change_summary(
        cell(here, "sft"), lambda summary: summary["metrics"]["efficacy"]["argmax"].update(low=0.25)
    )
    code, report = verify("--rerun", 0)
    assert code == 1 and [one["what"] for one in report["differences"]] == [
        "metrics.efficacy.argmax.low"
    ]


def test_other_weights_are_named(here, model, tmp_path):
    import torch

    from editbench.models import load_model

    handle = load_model(str(model))
    with torch.no_grad():
        next(handle.model.parameters()).mul_(1.01)
    shutil.copytree(model, tmp_path / "other")
    handle.model.save_pretrained(tmp_path / "other")
    run = json.loads((here / "run" / "run.json").read_text())
    run["config"]["model"] = str(tmp_path / "other")
    write_json_atomic(here / "run" / "run.json", {**run, "digest": digest(run["config"])})
    code, report = verify()
    assert code == 1 and report["differences"][0]["what"] == "hash of the weights"


def test_a_corrupt_table_is_one_difference_and_the_rest_is_checked(here):
    (cell(here, "ice") / "probes.parquet").write_bytes(b"PAR1")
    change_summary(
        cell(here, "sft"),
        lambda s: s["metrics"]["efficacy"]["argmax"].update(low=0.25),
        digested=True,
    )
    code, report = verify("--rerun", 0)
    whats = [one["what"] for one in report["differences"]]
    assert (
        code == 1
        and any("ice" in w and "is corrupt" in w for w in whats)
        and "metrics.efficacy.argmax.low" in whats
    )


@pytest.mark.parametrize(
    ("meddle", "said"),
    [
        (lambda run: (run / "run.json").write_text("{}"), "run.json is corrupt"),
        (lambda run: (run / "cases.json").unlink(), "cases.json does not exist"),
        (
            lambda run: change_summary(next(run.glob("cells/sft-*")), lambda s: s.update(schema=0)),
            "has schema 0",
        ),
        (
            lambda run: change_summary(next(run.glob("cells/sft-*")), lambda s: s.update(corpus=3)),
            "it has no 'corpus'",
        ),
        (
            lambda run: change_summary(next(run.glob("cells/sft-*")), lambda s: s.update(key="x")),
            "is not the record of cell",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(here, meddle, said):
    meddle(here / "run")
    found = editbench("verify", "run")
    assert (
        found.code == 2 and said in found.err and found.out == "" and "Traceback" not in found.err
    )


def test_what_cannot_be_computed_anew_is_refused_in_one_sentence(here):
    (here / "facts.jsonl").unlink()
    found = editbench("verify", "run")
    assert found.code == 2 and "facts.jsonl" in found.err and "Traceback" not in found.err
    assert editbench("verify", "run", "--rerun", 0).code == 0
    found = editbench("verify", "run", "--rerun", -1)
    assert found.code == 2 and "--rerun is -1" in found.err


def test_the_words_for_a_sample_name_the_member_of_its_group():
    alone = {"task": "arc_easy", "member": "arc_easy", "doc_id": 3}
    assert comparing.words(alone, "retention") == "task arc_easy doc_id 3"
    grouped = {"task": "mmlu", "member": "mmlu_law", "doc_id": 3, "facts": 5}
    assert comparing.words(grouped, "retention") == "task mmlu member mmlu_law doc_id 3"
    assert comparing.words(grouped, "curve_samples") == "facts 5 task mmlu member mmlu_law doc_id 3"


def test_a_log_probability_in_a_text_may_round_otherwise():
    same = comparing.is_same
    assert same("greedy, log-probability -3.123", "greedy, log-probability -3.124")
    assert not same("greedy, log-probability -3.123", "greedy, log-probability -3.2")
    assert not same("greedy, log-probability -3.123", "not greedy, log-probability -3.123")
    assert not same("Rome", "Paris") and not same("Rome", None)
