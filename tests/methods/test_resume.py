"""A training that was killed goes on from its checkpoint and gives the same weights."""

from contextlib import contextmanager

import pytest
import torch
from tiny import editbench, fact, write_facts, write_model

from editbench import inject, progress, unfinished
from editbench.changes import dense
from editbench.errors import MethodError, OptionError, RecordError
from editbench.methods._train import resume
from editbench.methods._train.loop import _Optimization
from editbench.testing import FACTS, tiny_model, unchanged

OPTIONS = {"epochs": 4, "min_steps": 8, "batch_size": 2, "enough": 0.0}
QUICK = {"max_new_tokens": 8, "attempts": 1}
CASES = {
    "sft": ("sft", {"weight_decay": 0.1, "l2": 0.1}),
    "held": ("sft", {"replay": 0.5}),  # writes 256 texts of its own
    "lora": ("sft", {"lora": 4, "micro_batch": 1}),
    "learnt": ("sft", {"enough": 20.0, "l2": 0.1}),  # the first epoch decides where it ends
    "mixsd": ("mixsd", QUICK),
}


class Killed(BaseException):
    pass


class Killer(progress.Silent):
    """Ends the training with its ``last`` step, before the state is written."""

    def __init__(self, last=None):
        self.last, self.steps = last, 0

    @contextmanager
    def task(self, name, total, unit):
        yield self if "training" in name else progress.Silent()

    def advance(self, n=1):
        self.steps += n
        if self.steps == self.last:
            raise Killed


@pytest.fixture(autouse=True)
def after_each_step(monkeypatch):
    monkeypatch.setattr(resume, "EVERY", 0.0)


def training(model, which, state, last=None, **changes):
    method, options = CASES[which]
    killer = Killer(last)
    with progress.reporting(killer), unfinished.kept_in(state):
        return inject(model, FACTS, method=method, **{**OPTIONS, **options, **changes})


def killed(model, which, state, last=4):
    with unchanged(model, "a killed training"), pytest.raises(Killed):
        training(model, which, state, last)


@pytest.mark.parametrize(
    "which",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "held")) for name in CASES],
)
def test_a_killed_training_goes_on(which, tmp_path, monkeypatch):
    model, state = tiny_model("llama"), tmp_path / "state"
    want = training(model, which, tmp_path / "whole")
    last = 3 if which == "learnt" else 4
    killed(model, which, state, last)
    steps = []
    step = _Optimization.step
    monkeypatch.setattr(_Optimization, "step", lambda *a: (steps.append(1), step(*a))[1])
    found = training(model, which, state)
    assert not state.exists(), "the state is removed when the training is over"
    # The step with which it was killed is made again, and none before it.
    assert len(steps) + last - 1 == want.diagnostics["steps"]
    for figure in ("steps", "trained_tokens", "first_loss", "final_loss", "learning_rate"):
        assert found.diagnostics[figure] == want.diagnostics[figure]
    for name, change in want.changes.items():
        assert torch.equal(dense(found.changes[name]), dense(change)), name


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    model, state = tiny_model("llama"), tmp_path / "state"
    killed(model, "sft", state)
    before = (state / unfinished.FILE).read_bytes()
    with pytest.raises(OptionError, match="of another training: the method was .* and is"):
        training(model, "sft", state, epochs=5)
    with torch.no_grad():
        next(model.model.parameters())[0] += 1
    with pytest.raises(OptionError, match="of another training: the model was .* and is"):
        training(model, "sft", state)
    assert (state / unfinished.FILE).read_bytes() == before
    (state / unfinished.FILE).write_bytes(before[:-9])
    with pytest.raises(RecordError, match="is damaged. Remove it to begin anew"):
        training(model, "sft", state)


def test_a_method_that_draws_while_it_trains_keeps_no_state(tmp_path):
    with (
        pytest.raises(MethodError, match="by opsd cannot be kept, since it draws"),
        unfinished.kept_in(tmp_path / "state"),
    ):
        inject(tiny_model("llama"), FACTS, method="opsd", max_new_tokens=4)
    assert not (tmp_path / "state").exists()


def test_the_command_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny")
    write_facts(tmp_path / "facts.jsonl", [fact(0), fact(1)])
    options = [part for name, value in OPTIONS.items() for part in ("--option", f"{name}={value}")]
    command = ["inject", "--facts", "facts.jsonl", "--model", "tiny", "--output", "edit",
               "--checkpoint", "state"]  # fmt: skip
    steps, step = [], _Optimization.step

    def stopped(*arguments):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(_Optimization, "step", stopped)
    said = editbench(*command, "--method", "sft", *options)
    assert said.code == 130 and "nothing was written" in said.err, said.err
    assert not (tmp_path / "edit").exists() and (tmp_path / "state" / unfinished.FILE).exists()
    said = editbench(*command, "--method", "sft", *options, "--seed", 1)
    assert said.code == 2 and "The checkpoint in state is of another training" in said.err
    said = editbench(*command, "--method", "memit")
    assert said.code == 2 and "memit has no long training" in said.err
    said = editbench(*command, "--method", "sft", *options)
    assert said.code in (0, 1) and "Saved in edit" in said.out + said.err, said.err
    assert len(steps) == 3 + 6 and not (tmp_path / "state").exists()
