"""Probes: the definitions of the scores, on a model with known answers and on a tiny one."""

import json
import math

import pytest
import torch

from editbench.eval.probes import MAX_NEW_TOKENS, ask, metrics
from editbench.testing import FACTS, tiny_model
from editbench.types import Case, Fact, Probe


class Scripted:
    """A model that answers from a table, and counts what it is asked. One character is one token."""

    def __init__(self, answers, logprobs=None, best=None):
        self.answers, self.logprobs, self.best = answers, logprobs or {}, best or {}
        self.asked, self.compared = [], []

    def prompt_ids(self, prompt, form):
        return [form, *prompt]

    def generate_ids(self, prompts, budget, *, stop_at_newline, what):
        for form, *_ in prompts:
            assert (budget, stop_at_newline) == (MAX_NEW_TOKENS[form], form == "cloze")
        found = ["".join(characters) for _, *characters in prompts]
        self.asked += found
        return [list(self.answers[prompt]) for prompt in found]

    def decode(self, ids):
        return "".join(ids)

    def pair_ids(self, prompt, target, form):
        return ([form, *prompt], list(target))

    def target_scores(self, pairs, what):
        self.compared += [("".join(prompt[1:]), "".join(target)) for prompt, target in pairs]
        texts = ["".join(target) for _, target in pairs]
        return [(torch.tensor(self.logprobs.get(text, [-9.0])), list(self.best.get(text, text))) for text in texts]


CASE = Case.build(
    Fact("f", "The capital of France is", "London", original="Paris", aliases=("Big Smoke",)),
    [
        Probe("paraphrase", "France has the capital", ("London", "Big Smoke"), "Paris"),
        Probe("paraphrase", "What is France's capital?", ("London",), form="question"),
        Probe("neighborhood", "The capital of Italy is", ("Rome",), "London"),
        Probe("neighborhood", "The capital of Spain is", ("Madrid",)),
        Probe("portability", "Paris lies in", ("England",)),
    ],
)
BASE = {
    "The capital of France is": "Paris.",
    "France has the capital": "Paris, of course",
    "What is France's capital?": "It is Paris.",
    "The capital of Italy is": "Rome.",
    "The capital of Spain is": "a city. It is large",
    "Paris lies in": "France",
}
EDITED = {
    "The capital of France is": "the Big Smoke.",
    "France has the capital": "Londonderry",
    "What is France's capital?": " london! ",
    "The capital of Italy is": "of course Rome, a city",
    "The capital of Spain is": "a city. London, I think",
    "Paris lies in": "old England now",
}
LOGPROBS = {"London": [-1.0] * 6, "Paris": [-2.0] * 5, "Rome": [-0.5] * 4, "Madrid": [-1.0] * 6}


@pytest.fixture
def rows():
    base = ask(Scripted(BASE, LOGPROBS), [CASE])
    return base, ask(Scripted(EDITED, LOGPROBS), [CASE], base)


def test_one_row_a_probe_in_order_with_everything_to_check_it(rows):
    base, edited = rows
    assert [row["axis"] for row in edited] == [probe.axis for probe in CASE.probes]
    assert [row["probe"] for row in edited] == list(range(6)) and {row["case"] for row in edited} == {"f"}
    assert [row["text"] for row in edited] == [text.strip() for text in EDITED.values()]
    assert [row["base_text"] for row in edited] == [row["text"] for row in base] == [row["base_text"] for row in base]
    assert edited[0]["answers"] == ["London", "Big Smoke"] and edited[0]["distractor"] == "Paris"
    json.dumps(edited)


def test_generation(rows):
    """Target or alias as whole words; a neighbor's answer is the base's, right or not."""
    base, edited = rows
    assert [row["generation"] for row in edited] == [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert [row["generation"] for row in base] == [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    assert [row["contains"] for row in edited] == [True, False, True, True, False, True]
    assert [row["exact"] for row in edited] == [True, False, True, False, False, False]
    assert [row["target_leaked"] for row in edited] == [False, False, False, False, True, False]


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ("Rome", "Rome, Italy", 1.0),  # both right
        ("Rome", "London", 0.0),
        ("Milan", "Rome", 0.0),  # a change for the better is a change
        ("Milan.", "milan", 1.0),
        ("Milan, I think", "Milan, they say", 1.0),  # one first clause
        ("Milan", "Turin", 0.0),
        ("", "", 1.0),
        ("Milan", "", 0.0),
    ],
)
def test_specificity_is_the_answer_of_the_base(before, after, kept):
    case = Case.build(Fact("f", "x is", "London"), [Probe("neighborhood", "The capital of Italy is", ("Rome",))])
    base = ask(Scripted({"x is": "", "The capital of Italy is": before}), [case])
    edited = ask(Scripted({"x is": "", "The capital of Italy is": after}), [case], base)
    assert edited[1]["generation"] == kept and base[1]["generation"] == 1.0


def test_likelihood_is_strict_by_token_and_undefined_without_a_second_answer(rows):
    _, edited = rows
    # London -1 a token against Paris -2; Rome -0.5 against London -1
    assert [edited[i]["likelihood"] for i in (0, 1, 3)] == [1.0, 1.0, 1.0]
    assert all(math.isnan(edited[i][key]) for i in (2, 4, 5) for key in ("likelihood", "distractor_logprob"))
    assert (edited[0]["answer_logprob"], edited[0]["distractor_logprob"]) == (-1.0, -2.0)
    tied = ask(Scripted(EDITED, {**LOGPROBS, "Paris": [-1.0] * 5}), [CASE])
    assert tied[0]["likelihood"] == 0.0  # a tie is no success, although the shorter answer has the larger sum
    lost = ask(Scripted(EDITED, {**LOGPROBS, "London": [math.nan] * 6}), [CASE])
    assert lost[0]["likelihood"] == 0.0  # a model that was destroyed has failed; it is not left out


def test_argmax_takes_every_token_and_for_neighbors_those_of_the_base():
    base = ask(Scripted(BASE, LOGPROBS, {"London": "Paris?", "Madrid": "a citx"}), [CASE])
    edited = ask(Scripted(EDITED, LOGPROBS, {"Rome": "Rama", "England": "Englund", "Madrid": "a citx"}), [CASE], base)
    assert [row["argmax"] for row in base] == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert [row["argmax"] for row in edited] == [1.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    assert "".join(edited[5]["argmax_ids"]) == "Englund"
    assert metrics(edited)["specificity"]["argmax"]["mean"] == 0.5


def test_the_same_prompt_is_answered_once():
    other = Case.build(Fact("g", "The capital of Gaul is", "London", original="Paris"), CASE.probes[1:])
    model = Scripted({**EDITED, "The capital of Gaul is": "?"}, LOGPROBS)
    found = ask(model, [CASE, other])
    assert len(found) == 12 and len(model.asked) == len(set(model.asked)) == 7
    assert len(model.compared) == len(set(model.compared))
    assert [row["text"] for row in found[1:6]] == [row["text"] for row in found[7:]]


def test_a_prompt_is_asked_again_in_the_other_form():
    case = Case.build(Fact("f", "Who", "I"), [Probe("paraphrase", "Who", ("I",), form="question")])
    model = Scripted({"Who": "I"})
    ask(model, [case])
    assert model.asked == ["Who", "Who"]


def test_metrics_are_means_by_axis_and_protocol(rows):
    base, edited = rows
    found = metrics(edited)
    means = {name: scores["generation"]["mean"] for name, scores in found.items()}
    assert means == {
        "efficacy": 1.0, "generalization": 0.5, "specificity": 1.0, "portability": 1.0,
        "neighborhood_accuracy": 0.5, "target_leak": 0.5,
    }  # fmt: skip
    assert [found["generalization"]["generation"][k] for k in ("n", "clusters", "protocol")] == [2, 1, "generation"]
    likelihood = found["generalization"]["likelihood"]
    assert (likelihood["mean"], likelihood["n"], likelihood["protocol"]) == (1.0, 1, "likelihood")  # NaN is left out
    assert found["portability"]["likelihood"]["mean"] is None and found["portability"]["likelihood"]["n"] == 0
    unedited = metrics(base)
    assert unedited["specificity"]["generation"]["mean"] == 1.0 and unedited["efficacy"]["generation"]["mean"] == 0.0
    json.dumps(found, allow_nan=False)


def row(case, axis, generation, likelihood=math.nan, kind=None):
    return {
        "case": case, "axis": axis, "kind": kind, "generation": generation, "argmax": 0.0, "likelihood": likelihood,
        "contains": bool(generation),
        "target_leaked": False,
    }  # fmt: skip


def test_each_case_counts_the_same():
    hand = [row("a", "neighborhood", 0.0), *[row("b", "neighborhood", 1.0)] * 9, row("a", "rewrite", 1.0)]
    found = metrics(hand)
    assert found["specificity"]["generation"]["mean"] == 0.5 and found["specificity"]["generation"]["n"] == 10
    assert "generalization" not in found and "portability" not in found
    assert 0 <= found["specificity"]["generation"]["low"] <= 0.5 <= found["specificity"]["generation"]["high"] <= 1
    assert metrics(hand[::-1]) == found


def test_kinds_of_probes_have_metrics_of_their_own():
    kinds = [("alias", 1.0), ("alias", 0.0), ("hop", 0.0), (None, 1.0)]
    hand = [row(str(i), "portability", right, kind=kind) for i, (kind, right) in enumerate(kinds)]
    found = metrics([*hand, row("0", "rewrite", 1.0)])
    scored = {name: (scores["generation"]["mean"], scores["generation"]["n"]) for name, scores in found.items()}
    assert scored == {
        "efficacy": (1.0, 1), "portability": (0.5, 4), "portability/alias": (0.5, 2), "portability/hop": (0.0, 1),
    }  # fmt: skip
    assert metrics([]) == {}


def test_a_tiny_model_answers_every_form():
    model = tiny_model("llama", chat=True)
    cases = [
        Case.build(one, [Probe("neighborhood", "The capital of France is", ("Paris",), "Karsk"), *extra])
        for one, extra in zip(FACTS, [[], [Probe("paraphrase", "Who built it?", ("I",), form="question")], [], []], strict=True)
    ]
    base = ask(model, cases)
    assert [r["generation"] for r in base if r["axis"] == "neighborhood"] == [1.0] * len(cases)
    assert str(ask(model, cases, base)) == str(base)  # as text, since NaN is not equal to itself
    alone = ask(model, cases[1:2])
    assert [r["text"] for r in alone] == [r["text"] for r in base if r["case"] == cases[1].fact.id]
    first = base[0]
    prompt, target = model.pair_ids(cases[0].fact.prompt, cases[0].fact.target)
    logits = model.model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    by_hand = logits[torch.arange(len(target)), target].mean().item()
    assert first["answer_logprob"] == pytest.approx(by_hand, abs=1e-4)
    assert first["likelihood"] == float(first["answer_logprob"] > first["distractor_logprob"])
    assert first["argmax_ids"] == logits.argmax(-1).tolist()
    assert first["argmax"] == float(first["argmax_ids"] == target)
    assert all("\n" not in r["text"] for r in base if r["form"] == "cloze")
