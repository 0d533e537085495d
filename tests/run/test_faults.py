"""Runs give the same numbers after a kill, with a spoiled cache, twice, and at any batch size."""

import json
import random
import signal
from dataclasses import astuple

import pytest
import torch
from tiny import editbench, fact, write_facts, write_model

from editbench import registry
from editbench.models import cache_dir
from editbench.records.reading import load_run, read_table
from editbench.testing import tiny_model, tiny_options

KILLS = 20


# --- a process to kill -------------------------------------------------------


@pytest.fixture(scope="module")
def warm(server):
    """Run a command in a process of its own and return its exit code.

    The arguments are those of the command, its folder, and the change at which to die, 0 for none.
    """

    def ask(arguments, folder, die_at=0):
        folder.mkdir(exist_ok=True)
        arguments = [*arguments, "--output", f"{folder}/run"]
        return server.start(
            *arguments,
            cwd=folder,
            said=folder / "said",
            threads=1,
            watched=folder,
            die_at=die_at,
            EDITBENCH_CACHE=f"{folder}/cache",
        ).wait()

    return ask


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Give the arguments of a tiny ``compare``, without methods."""
    folder = tmp_path_factory.mktemp("given")
    model, data = write_model(folder / "tiny"), write_facts(folder / "facts.jsonl")
    return [
        "compare",
        "--model",
        model,
        "--corpus",
        "local",
        "--data",
        data,
        "--precision",
        "float32",
    ]


def everything(folder):
    """Return all numbers and texts of a run, except those that may differ between two equal runs.

    These are times, memory, the environment, and work that a cache may save.
    """
    config, summaries = load_run(folder)
    tables = {}
    for summary in summaries:
        for path in sorted((folder / "cells" / summary["key"]).glob("*.parquet")):
            table = read_table(folder, summary["key"], path.stem)
            tables[summary["key"], path.stem] = table[
                [name for name in table if not timed(name)]
            ].to_json()
    return config, without_times(summaries), tables, (folder / "cases.json").read_text()


def timed(name):
    return "second" in name or name.startswith("peak_")


def without_times(value):
    if isinstance(value, dict):
        apart = (
            "precompute",
            "environment",
            "digest",
        )  # the digest covers the whole record, including times
        return {
            key: without_times(inner)
            for key, inner in value.items()
            if not timed(key) and key not in apart
        }
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


# --- killed anywhere ---------------------------------------------------------


@pytest.mark.parametrize(
    ("kills", "setting"),
    [
        (KILLS, ["-n", "2", "--tasks", "eb_grammar", "--limit", "2"]),
        (KILLS // 2, ["-n", "4", "--tasks", "none", "--regime", "sequential:2", "--curve", "2,4"]),
    ],
    ids=["batch", "sequential"],
)
def test_killed_anywhere_and_run_again(kills, setting, warm, command, tmp_path):
    """Only changes of files matter to what a killed process leaves behind, so it is killed at them.

    It dies at changes spread over the whole run, also half way through a write. The same command
    must then finish the run.
    """
    options = (
        "sft.epochs=2",
        "sft.min_steps=1",
        "rome.steps=3",
        "rome.prefixes=2",
        "rome.covariance_tokens=300",
    )
    arguments = [
        *command,
        "--methods",
        "rome,sft",
        *(f"--option={one}" for one in options),
        *setting,
    ]
    assert warm(arguments, tmp_path / "undisturbed") == 0, (
        tmp_path / "undisturbed" / "said"
    ).read_text()
    wanted, changes = (
        everything(tmp_path / "undisturbed" / "run"),
        int((tmp_path / "undisturbed" / "changes").read_text()),
    )
    dice = random.Random(0)
    # One kill at a random change in each of ``kills`` equal parts of the run.
    for i in range(kills):
        die_at, folder = 1 + (i * changes + dice.randrange(changes)) // kills, tmp_path / f"{i}"
        assert warm(arguments, folder, die_at) == -signal.SIGKILL, f"change {die_at} of {changes}"
        assert warm(arguments, folder) == 0, (die_at, (folder / "said").read_text())
        assert everything(folder / "run") == wanted, f"killed at change {die_at} of {changes}"
        strays = {path.name for path in (folder / "run").rglob(".*")}
        assert strays == {".lock"}, f"left by a kill at change {die_at} of {changes}"


# --- the same again ----------------------------------------------------------


def test_the_same_command_gives_the_same_numbers_bit_for_bit(warm, command, tmp_path):
    """Run every registered method in two processes, each with its own cache and hash seed."""
    arguments, names = (
        [*command, "-n", "4", "--tasks", "eb_completion,eb_instruct", "--limit", "2"],
        [],
    )
    for name in registry.names("methods"):
        method = registry.get("methods", name)
        names += [name] * (method.kind != "baseline")
        options = {**tiny_options(method), "epochs": 2, "steps": 3}
        arguments += [
            f"--option={name}.{key}={value}"
            for key, value in options.items()
            if key in tiny_options(method)
        ]
    arguments += ["--methods", ",".join(names), "--diagnostics", "all"]
    assert warm(arguments, tmp_path / "one") == 0, (tmp_path / "one" / "said").read_text()
    # One thread, as in the first process: another number would add in another order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        said = editbench(*arguments, "--output", tmp_path / "two")
    finally:
        torch.set_num_threads(threads)
    assert said.code == 0, said.err
    one, two = everything(tmp_path / "one" / "run"), everything(tmp_path / "two")
    assert {summary["method"] for summary in one[1]} == set(registry.names("methods"))
    assert one == two


# --- the batch size ----------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_batch_size_moves_no_answer(family):
    model = tiny_model(family)
    records = [fact(i) for i in range(10)]
    prompts = [record["prompt"] for record in records] + [
        text for record in records for text in record["paraphrases"]
    ]
    prompts += [f"They say that {record['prompt']}" for record in records]
    pairs = [model.pair_ids(prompt, records[i % 10]["target"]) for i, prompt in enumerate(prompts)]
    written, scored = [], []
    for size in (1, 4, 32):
        written.append(model.generate_ids([prompt for prompt, _ in pairs], 8, batch_size=size))
        scored.append(model.target_scores(pairs, size))
    assert written[0] == written[1] == written[2]
    for other in scored[1:]:
        for (logp, best), (logp_alone, best_alone) in zip(other, scored[0], strict=True):
            assert best == best_alone and torch.allclose(logp, logp_alone, rtol=0, atol=1e-4)


def test_the_batch_size_moves_no_retention_score():
    from editbench.eval.retention import evaluate

    model = tiny_model("llama", chat=True)
    tasks = ["eb_completion", "eb_grammar", "eb_instruct", "eb_reading"]
    alone, *others = (
        evaluate(model.model, model.tokenizer, tasks, limit=6, batch_size=size)
        for size in (1, 4, 32)
    )
    assert sum(map(len, alone.values())) >= 24
    for other in others:
        assert {task: list(map(astuple, samples)) for task, samples in other.items()} == {
            task: list(map(astuple, samples)) for task, samples in alone.items()
        }


# --- the cache of the base's scores ------------------------------------------


def edit_a_score(entry):
    entry["rows"][0]["generation"] = 0.5
    return entry


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry, other: edit_a_score(entry),
        lambda entry, other: other,
        lambda entry, other: entry["rows"],
        lambda entry, other: {},
        lambda entry, other: None,
        lambda entry, other: {**entry, "rows": entry["rows"][:-1]},
    ],
    ids=["edited", "foreign", "of an older version", "empty", "null", "a row short"],
)
def test_a_cache_entry_that_is_not_whole_is_computed_anew(damage, command, tmp_path):
    def compare(folder, n):
        assert (
            editbench(
                *command, "-n", n, "--tasks", "none", "--methods", "ice", "--output", folder
            ).code
            == 0
        )
        return everything(folder)

    wanted = compare(tmp_path / "one", 2)
    (path,) = (cache_dir() / "base").iterdir()
    whole = path.read_bytes()
    compare(tmp_path / "two", 3)
    (other,) = set((cache_dir() / "base").iterdir()) - {path}
    path.write_text(json.dumps(damage(json.loads(whole), json.loads(other.read_bytes()))))
    assert compare(tmp_path / "three", 2) == wanted and path.read_bytes() == whole
