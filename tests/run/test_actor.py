"""What goes back from a worker process: results, errors as JSON, and what was said."""

import json

import pytest

from editbench import progress
from editbench.errors import ModelError, OptionError
from editbench.run.actor import Actor, error_of, said_of


def test_what_a_part_says_comes_back_with_its_result_or_error(monkeypatch):
    class Told(Actor):
        pass

    class Worker:
        def ask_tasks(self, plan):
            progress.say("64 texts to score at once do not fit into memory.")
            if plan == "bad":
                raise ModelError("There is no memory.")
            return b"{}", {}

    monkeypatch.setattr("editbench.run.actor.plan_from_json", lambda data: data)
    actor = Told(1)
    actor.worker = Worker()
    said = ["64 texts to score at once do not fit into memory."]
    assert actor.ask_tasks("good") == ((b"{}", "{}"), "", said)
    value, error, heard = actor.ask_tasks("bad")
    assert value is None and heard == said
    assert json.loads(error) == {"name": "ModelError", "text": "There is no memory."}


@pytest.mark.parametrize("error", [OptionError("a"), ModelError("b"), ValueError("c")])
def test_an_error_keeps_its_name_and_its_text(error):
    again = error_of(said_of(error))
    assert type(again).__name__ == type(error).__name__ and str(again) == str(error)
    assert isinstance(again, OptionError) == isinstance(error, OptionError)
