"""One training over two processes, as accelerate launch and torchrun start them, on gloo."""

import socket
from contextlib import closing
from shutil import copy

import pytest
import torch
from tiny import wait_for, write_facts, write_model

from editbench import inject
from editbench.changes import dense
from editbench.edit import Edit
from editbench.models import load_model

ROWS = [
    {"id": "a", "prompt": "The capital of France is", "target": "Rome", "subject": "France"},
    {"id": "b", "prompt": "The capital of England is", "target": "Oslo", "subject": "England"},
    {"id": "c", "prompt": "Who painted Winter Glass?", "target": "Mara Lind"},
    # not in the share of the first process in an even batch, and alone in the last one
    {"id": "d", "prompt": "The capital of Italy is", "target": "Athens", "subject": "Italy"},
    {"id": "e", "prompt": "The capital of Spain is", "target": "Vienna", "subject": "Spain"},
]
STEPS = {"lr": 1e-3, "epochs": 2, "min_steps": 2, "batch_size": 4, "enough": 0.0}
TRAININGS = {
    "sft": ("sft", {**STEPS, "l2": 0.1}),
    "held": ("sft", {**STEPS, "kl": 0.5, "ewc": 0.1}),  # writes 256 texts of its own
    "parts": ("sft", {**STEPS, "micro_batch": 1, "checkpointing": True}),
    "lora": ("sft", {**STEPS, "lora": 4, "lr": None}),
    "mixsd": ("mixsd", {**STEPS, "max_new_tokens": 8, "attempts": 2, "lr": None}),
}
SLOW = {"held", "parts"}
FILES = ("--facts", "facts.jsonl", "--model", "tiny", "--precision", "float32")


def command(method="sft", output="out", **options):
    given = [part for name, value in options.items() if value is not None
             for part in ("--option", f"{name}={value}")]  # fmt: skip
    return ["inject", "--method", method, "--output", output, *given]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write_facts(folder / "facts.jsonl", ROWS)
    write_facts(folder / "others.jsonl", ROWS[:4])
    other = load_model(write_model(folder / "tiny")).model
    other.get_input_embeddings().weight.data[0] += 1
    other.save_pretrained(folder / "other")
    for file in (folder / "tiny").glob("token*"):
        copy(file, folder / "other")
    return folder


@pytest.fixture
def launch(server, here):
    """Start two processes; ``own`` are the further arguments of each."""
    started = []

    def start(*arguments, own=((), ())):
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        for rank in (0, 1):
            env = {**place, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
            started.append(
                server.start(*arguments, *own[rank], cwd=here, threads=1, LOGLEVEL="ERROR", **env)
            )
        return started

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize(
    "which",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in TRAININGS],
)
def test_two_processes_make_the_edit_of_one(which, launch, here):
    method, options = TRAININGS[which]
    first, second = launch(*command(method, which, **options), *FILES)
    out, err = first.communicate()
    assert first.returncode in (0, 1), err  # 1: so few steps teach little
    assert f"Saved in {which}" in err + out and "Traceback" not in err
    assert second.communicate() == ("", "") and second.returncode == 0

    two = Edit.load(here / which)
    model = load_model(here / "tiny", precision="float32")
    one = inject(model, two.facts, method=method, **options)
    assert two.diagnostics["processes"] == 2 and two.model_hash == one.model_hash
    for figure in ("steps", "trained_tokens", "learning_rate"):
        assert two.diagnostics[figure] == one.diagnostics[figure]
    for figure in ("first_loss", "final_loss", "own_text_kl"):
        assert two.diagnostics[figure] == pytest.approx(one.diagnostics[figure], rel=1e-4)
    assert [row.get("ids") for row in two.records] == [row.get("ids") for row in one.records]
    assert two.changes.keys() == one.changes.keys()
    for name, change in one.changes.items():
        # AdamW makes a whole step of a gradient that is all rounding, so not entry by entry.
        apart = torch.linalg.norm(dense(two.changes[name]) - dense(change))
        assert apart <= 1e-2 * torch.linalg.norm(dense(change)), name


def refusal(started):
    """Return the one sentence that processes have ended with; all have ended, without an edit."""
    said = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [2, 2], said
    (sentence,) = [
        line for _out, err in said for line in err.splitlines() if line.startswith("editbench")
    ]
    assert all("Traceback" not in err and not out for out, err in said), said
    return sentence


@pytest.mark.parametrize(
    ("arguments", "own", "says"),
    [
        (["compare", "--methods", "sft"], ((), ()), "editbench compare computes in one process"),
        (command("memit") + [*FILES], ((), ()), "memit computes in one process, and 2 were"),
        (
            command() + ["--model", "tiny"],
            (["--facts", "facts.jsonl"], ["--facts", "others.jsonl"]),
            "The processes differ: the facts is",
        ),
        (
            command() + ["--facts", "facts.jsonl"],
            (["--model", "tiny"], ["--model", "other"]),
            "The processes differ: the hash of the weights",
        ),
        (
            command() + ["--facts", "facts.jsonl"],
            (["--model", "tiny"], ["--model", "./nowhere"]),
            "editbench, process 1 of 2: ",
        ),
    ],
)
def test_what_processes_cannot_do(arguments, own, says, launch, here):
    assert says in refusal(launch(*arguments, own=own))
    assert not (here / "out").exists()


def test_a_killed_process_ends_the_others(launch, here):
    started = launch(*command(epochs=9999, enough=0.0, lr=1e-6), *FILES)
    wait_for("out", here, started[0])  # they have met
    started[1].kill()
    out, err = started[0].communicate(timeout=60)
    assert started[0].returncode == 2 and "Traceback" not in err, err
    assert "One of the 2 processes has ended without a word" in err
    assert not (here / "out").exists()
