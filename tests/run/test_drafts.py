"""Drafted probes: their frames, their neighbors, and the marks on their scores."""

from __future__ import annotations

import inspect
from itertools import chain

import pytest

import editbench
from editbench.eval import conversations
from editbench.methods._train import lessons
from editbench.run import drafts
from editbench.testing import tiny_model
from editbench.types import Case, Fact, Probe

SUBJECTS = ("Lyon", "Munich", "Nagoya", "Seville")


def case(prompt: str, target: str, subject: str, *probes: Probe, id: str = "facts-1") -> Case:
    return Case.build(
        Fact.from_dict({"id": id, "prompt": prompt, "target": target, "subject": subject}), probes
    )


@pytest.fixture(scope="module")
def model():
    """A tiny model that has learned to say two answers, and is sure of them."""
    tiny = tiny_model("llama")
    facts = [
        {"prompt": f"The city of {name} lies in", "target": answer}
        for name, answer in zip(SUBJECTS, ("France", "Germany", "Japan", "Spain"), strict=True)
    ]
    with editbench.inject(tiny, facts, "sft", epochs=60, lr=3e-3, enough=0).applied(tiny):
        yield tiny


def test_no_trainer_uses_the_frames():
    trainers = set(chain(*lessons.FRAMES.values()))
    assert not trainers & set(chain(*drafts.FRAMES.values()))
    # Nor does a trainer's frame hold one of them, or the other way round.
    bare = [frame.replace("{}", "").strip() for frame in chain(*drafts.FRAMES.values())]
    for ours in bare:
        assert not any(ours in frame for frame in trainers)
        assert ours not in inspect.getsource(conversations)
    # What a file of facts takes a prompt for depends on its end.
    assert all(frame.endswith("{}") for frame in chain(*drafts.FRAMES.values()))


def test_paraphrases_and_neighbors_are_drafted(model):
    fact = case("The city of Bergen lies in", "Chile", "Bergen")
    made = drafts.draft(model, [fact])
    paraphrases = [p for p in made.cases[0].probes if p.axis == "paraphrase"]
    neighbors = [p for p in made.cases[0].probes if p.axis == "neighborhood"]
    assert [p.prompt for p in paraphrases] == [
        frame.format("The city of Bergen lies in") for frame in drafts.FRAMES["cloze"]
    ]
    assert all(p.answers == ("Chile",) for p in paraphrases)
    assert len(neighbors) == 2 and not made.missing
    for probe in neighbors:
        assert probe.prompt.startswith("The city of ") and "Bergen" not in probe.prompt
        assert probe.distractor == "Chile"
        # What it expects is what the model says.
        assert model.generate(probe.prompt).startswith(probe.answers[0])
    assert {p.kind for p in (*paraphrases, *neighbors)} == {"drafted"}
    assert len({p.answers for p in neighbors}) == 2
    assert drafts.draft(model, [fact]) == made


def test_probes_of_the_user_stay_alone(model):
    paraphrase = Probe("paraphrase", "Bergen is a city of", ("Chile",))
    neighbor = Probe("neighborhood", "The city of Lyon lies in", ("France",), "Chile")
    whole = case("The city of Bergen lies in", "Chile", "Bergen", paraphrase, neighbor)
    assert drafts.draft(model, [whole]).cases == [whole]
    half = case("The city of Bergen lies in", "Chile", "Bergen", paraphrase)
    made = drafts.draft(model, [half]).cases[0]
    assert [p.prompt for p in made.probes if p.axis == "paraphrase"] == [paraphrase.prompt]
    assert [p.kind for p in made.probes if p.axis == "neighborhood"] == ["drafted"] * 2


def test_a_neighbor_takes_the_subject_s_place_and_no_other(model):
    """ "Berg" is found in "Bergen" first, but there it is not the subject."""
    (made,) = drafts.draft(
        model, [case("Bergen and the city of Berg lies in", "Chile", "Berg")]
    ).cases
    neighbors = [p.prompt for p in made.probes if p.axis == "neighborhood"]
    assert neighbors and all(each.startswith("Bergen and the city of ") for each in neighbors)


def test_no_neighbor_is_taught_or_says_the_target(model):
    taught = [
        case(f"The city of {name} lies in", "Germany", name, id=f"facts-{i}")
        for i, name in enumerate(SUBJECTS)
    ]
    made = drafts.draft(model, taught)
    neighbors = [p for each in made.cases for p in each.probes if p.axis == "neighborhood"]
    assert neighbors
    assert not any(name in probe.prompt for probe in neighbors for name in SUBJECTS)
    assert not any("Germany" in answer for probe in neighbors for answer in probe.answers)


def test_an_unsure_model_gets_no_neighbors():
    made = drafts.draft(
        tiny_model("llama"), [case("The city of Bergen lies in", "Chile", "Bergen")]
    )
    assert [p.axis for p in made.cases[0].probes] == ["rewrite", "paraphrase", "paraphrase"]
    assert "sure of 0" in made.missing["facts-1"]


def test_a_question_is_drafted_as_a_question(model):
    made = drafts.draft(model, [case("Where is the city of Bergen?", "Chile", "Bergen")]).cases[0]
    assert {probe.form for probe in made.probes} == {"question"}
    # Without a subject, the rule finds it.
    fact = Case.build(Fact.from_dict({"prompt": "The city of Bergen lies in", "target": "Chile"}))
    assert sum(p.axis == "neighborhood" for p in drafts.draft(model, [fact]).cases[0].probes) == 2
