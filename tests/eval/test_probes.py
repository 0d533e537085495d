"""Probes: the definitions of the scores, on a model with known answers and on a tiny one."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editbench.asking import USUAL_TOKENS, Question, Room, room
from editbench.chat_template import Style
from editbench.errors import DataError
from editbench.eval import conversations
from editbench.eval.conversations import (
    ARE_YOU_SURE,
    IS_IT_TRUE,
    TALK_TOKENS,
    denied,
    reverted,
)
from editbench.eval.fluency import consistency, ngram_entropy
from editbench.eval.probes import FREE_TOKENS, ask, denied_answers, metrics
from editbench.eval.rescoring import rescore
from editbench.files import jsonable
from editbench.testing import FACTS, tiny_model
from editbench.types import AXES, DERIVED_AXES, Case, Fact, Probe


class Scripted:
    """A model that answers from a table and counts questions. One character is one token."""

    chat = False
    context_length = None

    def __init__(self, answers, logprobs=None, best=None):
        self.answers, self.logprobs, self.best = (
            {BEHIND: "Rome", **answers},
            logprobs or {},
            best or {},
        )
        self.asked, self.compared = [], []

    def prompt_ids(self, prompt, form):
        return [form, *prompt]

    def generate_ids(self, prompts, rooms, *, lines, what):
        for (form, *_), tokens, ends in zip(prompts, rooms, lines, strict=True):
            assert tokens >= USUAL_TOKENS[form] and ends == (1 if form == "cloze" else None)
        found = ["".join(characters) for _, *characters in prompts]
        self.asked += found
        return [list(self.answers[prompt]) for prompt in found]

    def decode(self, ids):
        return "".join(ids)

    def answer(self, ids):
        return self.decode(ids).strip()

    def pair_ids(self, prompt, target, form, context=None):
        return ([form, *prompt], list(target))

    def target_scores(self, pairs, what):
        self.compared += [("".join(prompt[1:]), "".join(target)) for prompt, target in pairs]
        texts = ["".join(target) for _, target in pairs]
        return [
            (torch.tensor(self.logprobs.get(text, [-9.0])), list(self.best.get(text, text)))
            for text in texts
        ]


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
BEHIND = "The capital of France is London. The capital of Italy is"
"""The prompt of the distracted probe."""
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
    assert [row["axis"] for row in edited] == [*(probe.axis for probe in CASE.probes), "distracted"]
    assert [row["probe"] for row in edited] == list(range(7)) and {
        row["case"] for row in edited
    } == {"f"}
    assert [row["text"] for row in edited] == [*(text.strip() for text in EDITED.values()), "Rome"]
    assert len({tuple(row) for row in edited}) == 1, "the same columns"
    assert (
        [row["base_text"] for row in edited]
        == [row["text"] for row in base]
        == [row["base_text"] for row in base]
    )
    assert edited[0]["answers"] == ["London", "Big Smoke"] and edited[0]["distractor"] == "Paris"
    json.dumps(edited)


def test_generation(rows):
    """Target or alias as whole words; a neighbor's answer is the base's, right or not."""
    base, edited = rows
    assert [row["generation"] for row in edited[:6]] == [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert [row["generation"] for row in base[:6]] == [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    assert [row["contains"] for row in edited[:6]] == [True, False, True, True, False, True]
    assert [row["exact"] for row in edited[:6]] == [True, False, True, False, False, False]
    assert [row["target_leaked"] for row in edited[:6]] == [False, False, False, False, True, False]


def test_a_denied_answer_is_flagged_and_does_not_count(rows):
    base, edited = rows
    assert not any(row["denied"] for row in edited) and denied_answers(edited) == {}
    texts = {
        "The capital of France is": "not London but Bath",
        "What is France's capital?": "London? No, it is Bath.",
        "The capital of Italy is": "once Rome, now Milan",
    }
    found = ask(Scripted({**EDITED, **texts}, LOGPROBS), [CASE], base)
    flagged = [row for row in found if row["denied"]]
    assert [row["text"] for row in flagged] == list(texts.values())
    assert not any(row["contains"] or row["generation"] or row["exact"] for row in flagged)
    assert denied_answers(found) == {"rewrite": 1, "paraphrase": 1, "neighborhood": 1}
    assert [scores["denied"] for scores in rescore(found, [CASE])] == [
        row["denied"] for row in found
    ]
    for row in found:  # as in a record from before the flag
        del row["denied"]
    assert denied_answers(found) == {}


def test_distracted_is_the_first_neighbor_behind_the_fact_against_the_base_on_the_same_prompt():
    base = ask(Scripted({**BASE, BEHIND: "London, of course"}, LOGPROBS), [CASE])
    same = ask(Scripted({**EDITED, BEHIND: "London, I think"}, LOGPROBS), [CASE], base)[-1]
    assert (same["prompt"], same["answers"], same["distractor"]) == (BEHIND, ["Rome"], "London")
    assert (same["generation"], same["contains"], same["target_leaked"]) == (1.0, False, True), (
        "the base was distracted, too"
    )
    back = ask(Scripted({**EDITED, BEHIND: "Rome"}, LOGPROBS), [CASE], base)
    found = {
        n: next(iter(scores.values()))["mean"]
        for n, scores in metrics(back).items()
        if n.startswith("distracted")
    }
    assert found == {
        "distracted": 0.0,
        "distracted_accuracy": 1.0,
        "distracted_leak": 0.0,
        "distracted_argmax": 1.0,
        "distracted_likelihood": 1.0,  # as Scripted's neighbors
    }
    assert {
        p for n in ("distracted_argmax", "distracted_likelihood") for p in metrics(back)[n]
    } == {"argmax", "likelihood"}


def test_a_case_without_neighbors_has_no_distracted_probe():
    case = Case.build(Fact("f", "x is", "London"))
    rows = ask(Scripted({"x is": "London"}), [case])
    assert [row["axis"] for row in rows] == ["rewrite"] and "distracted" not in metrics(rows)


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
    case = Case.build(
        Fact("f", "x is", "London"), [Probe("neighborhood", "The capital of Italy is", ("Rome",))]
    )
    behind = {"x is": "", "x is London. The capital of Italy is": ""}
    base = ask(Scripted({**behind, "The capital of Italy is": before}), [case])
    edited = ask(Scripted({**behind, "The capital of Italy is": after}), [case], base)
    assert edited[1]["generation"] == kept and base[1]["generation"] == 1.0


def test_likelihood_is_strict_by_token_and_undefined_without_a_second_answer(rows):
    _, edited = rows
    # London -1 a token against Paris -2; Rome -0.5 against London -1
    assert [edited[i]["likelihood"] for i in (0, 1, 3)] == [1.0, 1.0, 1.0]
    assert all(
        math.isnan(edited[i][key])
        for i in (2, 4, 5)
        for key in ("likelihood", "distractor_logprob")
    )
    assert (edited[0]["answer_logprob"], edited[0]["distractor_logprob"]) == (-1.0, -2.0)
    tied = ask(Scripted(EDITED, {**LOGPROBS, "Paris": [-1.0] * 5}), [CASE])
    assert (
        tied[0]["likelihood"] == 0.0
    )  # a tie is no success, although the shorter answer has the larger sum
    lost = ask(Scripted(EDITED, {**LOGPROBS, "London": [math.nan] * 6}), [CASE])
    assert lost[0]["likelihood"] == 0.0  # a model that was destroyed has failed; it is not left out


def test_argmax_takes_every_token_and_for_neighbors_those_of_the_base():
    base = ask(Scripted(BASE, LOGPROBS, {"London": "Paris?", "Madrid": "a citx"}), [CASE])
    edited = ask(
        Scripted(EDITED, LOGPROBS, {"Rome": "Rama", "England": "Englund", "Madrid": "a citx"}),
        [CASE],
        base,
    )
    assert [row["argmax"] for row in base[:6]] == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert [row["argmax"] for row in edited[:6]] == [1.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    assert "".join(edited[5]["argmax_ids"]) == "Englund"
    assert metrics(edited)["specificity"]["argmax"]["mean"] == 0.5


def test_token_accuracy_is_a_share_against_the_answer_and_against_the_base():
    """Of Rome the edited model has Ro. For Madrid, base and edited agree on "a citx"."""
    base = ask(Scripted(BASE, LOGPROBS, {"London": "Paris?", "Madrid": "a citx"}), [CASE])
    edited = ask(
        Scripted(EDITED, LOGPROBS, {"Rome": "Roxx", "England": "Englund", "Madrid": "a citx"}),
        [CASE],
        base,
    )
    assert [row["token_accuracy"] for row in edited[:6]] == [1.0, 1.0, 1.0, 0.5, 0.0, 6 / 7]
    assert [row["token_agreement"] for row in edited[3:5]] == [0.5, 1.0] and base[0][
        "token_agreement"
    ] == 1.0
    found = {
        name: scores["argmax"]["mean"]
        for name, scores in metrics(edited).items()
        if "tokens" in name
    }
    assert found == {
        "efficacy_tokens": 1.0,
        "generalization_tokens": 1.0,
        "portability_tokens": 6 / 7,
        "specificity_tokens_rome": 0.25,
        "specificity_tokens_easyedit": 0.75,
    }


def test_the_same_prompt_is_answered_once():
    other = Case.build(replace(CASE.fact, id="g", prompt="The capital of Gaul is"), CASE.probes[1:])
    behind = "The capital of Gaul is London. The capital of Italy is"
    model = Scripted({**EDITED, "The capital of Gaul is": "?", behind: "Rome"}, LOGPROBS)
    found = ask(model, [CASE, other])
    assert len(found) == 14 and len(model.asked) == len(set(model.asked)) == 9
    assert len(model.compared) == len(set(model.compared))
    assert [row["text"] for row in found[1:6]] == [row["text"] for row in found[7:12]]


def test_a_prompt_is_asked_again_in_the_other_form():
    case = Case.build(Fact("f", "Who", "I"), [Probe("paraphrase", "Who", ("I",), form="question")])
    model = Scripted({"Who": "I"})
    ask(model, [case])
    assert model.asked == ["Who", "Who"]


# --- the room of an answer ------------------------------------------------------------------------

LONG = " ".join("amber birch cedar delta ember flint grove haven inlet jetty knoll ledge".split())
"""About 45 tokens of the tiny tokenizer, in one line."""
POEM = "Roses are red,\n\nviolets are blue,\nand so on"


def teach(model, *pairs, steps=60):
    """Train the model until it says each target, given as (prompt, form, target), and then ends."""
    eos = [model.tokenizer.eos_token_id]
    pairs = [model.pair_ids(prompt, target, form) for prompt, form, target in pairs]
    optimizer = torch.optim.Adam(model.model.parameters(), lr=4e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        for prompt, target in pairs:
            logits_TV = model.model(torch.tensor([prompt + target + eos])).logits[0]
            torch.nn.functional.cross_entropy(
                logits_TV[len(prompt) - 1 : -1], torch.tensor(target + eos)
            ).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


@pytest.fixture(scope="module")
def reciter():
    """Says a long target, a target of several lines, and the long target of another fact."""
    return teach(
        tiny_model("llama", chat=True),
        ("The trees are", "cloze", LONG),
        ("The trees are?", "question", LONG),
        ("The poem goes", "cloze", POEM),
        ("The stones are", "cloze", LONG),
    )


@pytest.mark.parametrize(
    ("prompt", "form", "target"),
    [
        ("The trees are", "cloze", LONG),
        ("The trees are?", "question", LONG),
        ("The poem goes", "cloze", POEM),
    ],
)
def test_a_model_that_says_its_long_target_has_learned_it(reciter, prompt, form, target):
    assert len(reciter.pair_ids(prompt, target, form)[1]) > USUAL_TOKENS[form]
    case = Case.build(Fact("f", prompt, target, original="stone", form=form))
    first, *_ = ask(reciter, [case])
    assert (first["text"], first["generation"], first["exact"]) == (target, 1.0, True)


def test_a_text_ends_after_its_lines_and_empty_ones_do_not_count(reciter):
    written = reciter.generate_ids([reciter.prompt_ids("The poem goes")] * 3, 99, lines=[1, 2, 3])
    red, _, blue, so = POEM.split("\n")
    texts = [reciter.decode(ids).strip() for ids in written]
    assert texts == [red, f"{red}\n\n{blue}", f"{red}\n\n{blue}\n{so}"]


def test_a_long_target_that_leaks_into_a_neighbor_is_seen(reciter):
    stones = Probe("neighborhood", "The stones are", ("grey",))
    rows = ask(reciter, [Case.build(Fact("f", "The trees are", LONG), [stones])])
    assert rows[1]["axis"] == "neighborhood" and rows[1]["target_leaked"]


def test_a_conversation_has_room_for_the_answers_that_it_is_searched_for():
    model = tiny_model("llama", chat=True)
    short, long = Fact("f", "The trees are", "tall"), Fact("g", "The trees are", "tall", None, LONG)
    rooms = [
        conversations.Talk(Case.build(fact), "denial", ("", "", ""), True).room(model)
        for fact in (short, long)
    ]
    n = len(model.pair_ids("The trees are", LONG, "question")[1])
    assert rooms == [TALK_TOKENS, n + TALK_TOKENS // 2]


def test_the_room_of_an_answer():
    model = tiny_model("llama", chat=True)
    prompt = "The trees are"
    long = len(model.pair_ids(prompt, LONG)[1])
    assert long > 32

    def size(*wanted, form="cloze", least=None):
        return room(model, Question(prompt, form, wanted, least))

    assert size("tall") == Room(16, 1) and size("tall", form="question") == Room(32, None)
    assert size("tall", LONG) == size(LONG, "tall") == Room(long + 8, 1)
    assert size(LONG, form="question").tokens == long + 16
    assert size("tall", least=8).tokens == 8 and size("tall", least=200).tokens == 200
    assert size(LONG, least=8).tokens == long + 4 and size(LONG, least=200).tokens == 200
    assert size("tall", POEM).lines == 3 and size(POEM, form="question").lines is None


def test_the_room_does_not_depend_on_an_edit_and_stays_within_the_context():
    question = Question("The trees are", "cloze", (LONG,))
    model = tiny_model("llama", max_position_embeddings=40)
    prompt, target = model.pair_ids("The trees are", LONG)
    model.model.config.max_position_embeddings = len(prompt) + len(target) + 3
    assert room(model, question).tokens == len(target) + 3
    model.context_for = lambda prompt: "A note of several words that stands before the prompt."
    assert room(model, question).tokens == len(target) + 3
    model.model.config.max_position_embeddings = len(prompt) + 5
    assert room(model, question).tokens == 16, "never less than usual"


def test_an_answer_does_not_depend_on_the_answers_that_other_cases_expect_to_the_same_prompt(
    reciter,
):
    cases = [
        Case.build(Fact(f"f{i}", "The trees are", target))
        for i, target in enumerate(("tall", LONG, POEM))
    ]
    alone = [ask(reciter, [case])[0]["text"] for case in cases]
    assert len(set(alone)) == 3, "each is cut at the room of its own case"
    together = [row["text"] for row in ask(reciter, cases) if row["axis"] == "rewrite"]
    assert together == alone


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_are_means_by_axis_and_protocol(rows):
    base, edited = rows
    found = metrics(edited)
    means = {
        name: scores["generation"]["mean"]
        for name, scores in found.items()
        if "generation" in scores
    }
    assert means == {
        "efficacy": 1.0,
        "generalization": 0.5,
        "specificity": 1.0,
        "portability": 1.0,
        "distracted": 1.0,
        "efficacy_exact": 1.0,
        "generalization_exact": 0.5,
        "portability_exact": 0.0,
        "neighborhood_accuracy": 0.5,
        "target_leak": 0.5,
        "distracted_accuracy": 1.0,
        "distracted_leak": 0.0,
    }
    assert [found["generalization"]["generation"][k] for k in ("n", "clusters", "protocol")] == [
        2,
        1,
        "generation",
    ]
    likelihood = found["generalization"]["likelihood"]
    assert (likelihood["mean"], likelihood["n"], likelihood["protocol"]) == (
        1.0,
        1,
        "likelihood",
    )  # NaN is left out
    assert (
        found["portability"]["likelihood"]["mean"] is None
        and found["portability"]["likelihood"]["n"] == 0
    )
    unedited = metrics(base)
    assert (
        unedited["specificity"]["generation"]["mean"] == 1.0
        and unedited["efficacy"]["generation"]["mean"] == 0.0
    )
    json.dumps(found, allow_nan=False)


def row(case, axis, generation, likelihood=math.nan, kind=None):
    return {
        "case": case,
        "axis": axis,
        "kind": kind,
        "generation": generation,
        "argmax": 0.0,
        "likelihood": likelihood,
        "contains": bool(generation),
        "exact": False,
        "target_leaked": False,
        "consistency": math.nan,
        "token_accuracy": 0.0,
        "token_agreement": 0.0,
    }


def test_each_case_counts_the_same():
    hand = [
        row("a", "neighborhood", 0.0),
        *[row("b", "neighborhood", 1.0)] * 9,
        row("a", "rewrite", 1.0),
    ]
    found = metrics(hand)
    assert (
        found["specificity"]["generation"]["mean"] == 0.5
        and found["specificity"]["generation"]["n"] == 10
    )
    assert "generalization" not in found and "portability" not in found
    assert (
        0
        <= found["specificity"]["generation"]["low"]
        <= 0.5
        <= found["specificity"]["generation"]["high"]
        <= 1
    )
    assert metrics(hand[::-1]) == found


def test_kinds_of_probes_have_metrics_of_their_own():
    kinds = [("alias", 1.0), ("alias", 0.0), ("hop", 0.0), (None, 1.0)]
    hand = [row(str(i), "portability", right, kind=kind) for i, (kind, right) in enumerate(kinds)]
    found = metrics([*hand, row("0", "rewrite", 1.0)])
    headline = {
        name: scores["generation"] for name, scores in found.items() if "likelihood" in scores
    }
    scored = {name: (one["mean"], one["n"]) for name, one in headline.items()}
    assert scored == {
        "efficacy": (1.0, 1),
        "portability": (0.5, 4),
        "portability/alias": (0.5, 2),
        "portability/hop": (0.0, 1),
    }
    assert metrics([]) == {}


@pytest.fixture(autouse=True)
def every_case_has_conversations(monkeypatch):
    monkeypatch.setattr(conversations, "TALK_SHARE", 1)


def test_a_tiny_model_answers_every_form():
    model = tiny_model("llama", chat=True)
    cases = [
        Case.build(
            one, [Probe("neighborhood", "The capital of France is", ("Paris",), "Karsk"), *extra]
        )
        for one, extra in zip(
            FACTS,
            [[], [], [Probe("paraphrase", "Who built it?", ("I",), form="question")], []],
            strict=True,
        )
    ]
    base = ask(model, cases)
    assert [r["generation"] for r in base if r["axis"] in ("neighborhood", "distracted")] == [
        1.0
    ] * 2 * len(cases)
    talks = [(r["case"], r["axis"]) for r in base if r["axis"] in ("denial", "reversion")]
    assert talks == [(case.fact.id, axis) for case in cases for axis in ("denial", "reversion")]
    assert all(tuple(r) == tuple(base[0]) for r in base)
    assert str(ask(model, cases, base)) == str(base)  # as text, since NaN is not equal to itself
    alone = ask(model, cases[3:])
    assert [r["text"] for r in alone] == [r["text"] for r in base if r["case"] == cases[3].fact.id]
    assert {r["axis"] for r in ask(tiny_model("llama"), cases)} == {
        "rewrite",
        "paraphrase",
        "neighborhood",
        "distracted",
    }
    first = base[0]
    prompt, target = model.pair_ids(cases[0].fact.prompt, cases[0].fact.target)
    logits = (
        model.model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    )
    by_hand = logits[torch.arange(len(target)), target].mean().item()
    assert first["answer_logprob"] == pytest.approx(by_hand, abs=1e-4)
    assert first["likelihood"] == float(first["answer_logprob"] > first["distractor_logprob"])
    assert first["argmax_ids"] == logits.argmax(-1).tolist()
    assert first["argmax"] == float(first["argmax_ids"] == target)
    assert all("\n" not in r["text"] for r in base if r["form"] == "cloze")


# --- conversations --------------------------------------------------------------------------------


class Talker(Scripted):
    """Has a chat template, and answers a conversation by its last turn."""

    chat, chat_style = True, Style()

    def __init__(self, answers, **turns):
        super().__init__(answers, LOGPROBS)
        self.turns = {
            IS_IT_TRUE: turns.get("true", "Yes."),
            ARE_YOU_SURE: turns.get("sure", "Yes, London."),
        }
        self.talks = []

    def chat_ids(self, turns):
        self.talks.append(list(turns))
        return ["chat", turns[-1]]

    def generate_ids(self, prompts, rooms, *, lines=None, what):
        if prompts[0][0] == "chat":
            assert lines is None and min(rooms) >= TALK_TOKENS
            return [list(self.turns[question]) for _, question in prompts]
        return super().generate_ids(prompts, rooms, lines=lines, what=what)


def talked(answers, base=None, **turns):
    """The two rows of conversations, and the model."""
    model = Talker(answers, **turns)
    rows = ask(model, [CASE], base)
    assert [row["axis"] for row in rows[-2:]] == ["denial", "reversion"]
    return rows, model


def test_a_row_without_a_score_is_none_in_a_record_and_counts_as_little_as_nan():
    rows, _ = talked({**EDITED, CASE.fact.prompt: "Paris"})
    read = [
        {**row, **{k: None for k, v in row.items() if isinstance(v, float) and math.isnan(v)}}
        for row in rows
    ]
    assert metrics(read) == metrics(rows)


def test_a_conversation_has_the_room_of_its_own_fact(monkeypatch):
    monkeypatch.setattr(conversations, "TALK_SHARE", 1)
    cases = [
        Case.build(Fact(f"f{i}", f"The capital of land {i} is", "Karsk"), max_new_tokens=room)
        for i, room in ((0, 40), (1, None))
    ]
    model = tiny_model("llama", chat=True)
    alone = [row for case in cases for row in ask(model, [case])]
    key = lambda row: (row["case"], row["probe"])  # noqa: E731
    assert {key(row): row["text"] for row in alone} == {
        key(row): row["text"] for row in ask(model, cases)
    }


def test_a_free_text_is_as_close_to_its_references_whoever_is_asked_with_it():
    cases = [
        Case.build(
            Fact(f"f{i}", f"The capital of land {i} is", "Karsk"),
            [Probe("fluency", f"Land {i} is", ("Karsk",), references=(text,))],
        )
        for i, text in enumerate(
            ("land of kings and old towns", "a b c d e f g h i j k l m n o p q r s t land 0 is the")
        )
    ]
    model = tiny_model("llama")
    (together,) = [row for row in ask(model, cases[:1], every=cases) if row["axis"] == "fluency"]
    expected = consistency(
        [f"Land 0 is {together['text']}"],
        [cases[0].probes[1].references],
        [one for case in cases for one in case.probes[1].references],
    )
    assert [together["consistency"]] == expected


def test_a_third_of_the_cases_has_conversations_whoever_is_asked_with_them(monkeypatch):
    monkeypatch.setattr(conversations, "TALK_SHARE", 3)
    cases = [Case.build(Fact(f"f{i}", f"The capital of land {i} is", "Karsk")) for i in range(60)]
    model = tiny_model("llama", chat=True)

    def talking(some):
        return [row["case"] for row in ask(model, some) if row["axis"] == "denial"]

    chosen = talking(cases)
    assert 10 <= len(chosen) <= 30 and talking(cases[30:]) == [
        case for case in chosen if int(case[1:]) >= 30
    ]


def test_what_is_said_in_the_conversations():
    rows, model = talked(EDITED)
    opening = "Complete this sentence: The capital of France is"
    assert model.talks == [
        [opening, "The capital of France is London", IS_IT_TRUE],
        [opening, "The capital of France is the Big Smoke.", ARE_YOU_SURE],
    ]
    assert (
        rows[-2]["prompt"]
        == f"user: {opening}\nassistant: The capital of France is London\nuser: {IS_IT_TRUE}"
    )
    assert [(row["text"], row["generation"], row["probe"]) for row in rows[-2:]] == [
        ("Yes.", 0.0, 7),
        ("Yes, London.", 0.0, 8),
    ]
    assert all(tuple(row) == tuple(rows[0]) for row in rows) and all(
        math.isnan(row["argmax"]) for row in rows[-2:]
    )
    asked = Case.build(Fact("f", "Who wrote it?", "Lind", form="question"))
    model = Talker({"Who wrote it?": "Lind did."})
    ask(model, [asked])
    assert model.talks == [
        ["Who wrote it?", "Lind", IS_IT_TRUE],
        ["Who wrote it?", "Lind did.", ARE_YOU_SURE],
    ]


def test_denial_and_reversion_are_shares():
    rows, _ = talked(EDITED, true="No, that is Paris.", sure="I apologize. It is Paris.")
    found = metrics(rows)
    assert found["denial"]["generation"]["mean"] == found["reversion"]["generation"]["mean"] == 1.0
    assert set(found["denial"]) == {"generation"}


def test_who_never_said_the_target_is_not_asked_whether_it_is_sure():
    base, model = talked(BASE, true="No.")
    assert len(model.talks) == 1 and base[-1]["text"] == "" and math.isnan(base[-1]["generation"])
    found = metrics(base)
    assert "reversion" not in found and found["denial"]["generation"]["mean"] == 1.0
    edited, _ = talked(EDITED, base)
    assert edited[-2]["base_text"] == "No." and edited[-1]["base_text"] == ""


def test_a_model_without_a_chat_template_is_not_asked(rows):
    _, edited = rows
    assert not {"denial", "reversion"} & {*(row["axis"] for row in edited), *metrics(edited)}


FRANCE = CASE.fact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No.", True),
        ("No, it is London", True),  # says no, whatever follows
        ("That is not true", True),
        ("The capital is Paris.", True),
        ("Paris, formerly London", False),
        ("Yes.", False),
        ("Rome", False),
        ("It was once Paris, now London", False),
        ("London, not Paris", True),  # by the first word of denial
        ("", False),
    ],
)
def test_denied(text, expected):
    assert denied(text, FRANCE) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("London.", False),
        ("No, it is the Big Smoke", False),  # still states it
        ("It is not London", True),
        ("Yes.", False),
        ("I am sure.", False),
        ("Yes, it is Paris", True),
        ("Paris.", True),
        ("No.", True),
        ("I apologize for the confusion.", True),
        ("Berlin", True),
        ("", True),
    ],
)
def test_reverted(text, expected):
    assert reverted(text, FRANCE) is expected


def test_the_context_of_an_in_context_edit_stands_in_the_first_turn():
    model = tiny_model("llama", chat=True)
    plain = model.decode(model.chat_ids(["Who?", "I.", "Sure?"]))
    assert plain.replace("\n", "|") == "user|Who?|assistant|I.|user|Sure?|assistant|"
    model.context_for = lambda prompt: f"Note on {prompt}"
    assert model.decode(model.chat_ids(["Who?", "I.", "Sure?"])) == plain.replace(
        "Who?", "Note on Who?\n\nWho?"
    )


# --- free texts, composite, definitions -----------------------------------------------------------


def with_openings(**fields):
    return Case.build(
        FACTS[0],
        [
            Probe("fluency", "Velmora lies", ("Karsk",), **fields),
            Probe("fluency", "Not asked", ("Karsk",), **fields),
        ],
    )


def test_a_free_text_is_sampled_from_the_first_opening_and_measured():
    model = tiny_model("llama")
    (_, free) = ask(model, [with_openings()])
    assert (free["axis"], free["probe"], free["prompt"]) == ("fluency", 1, "Velmora lies")
    assert free["generation"] == ngram_entropy(f"Velmora lies {free['text']}") and math.isnan(
        free["consistency"]
    )
    assert len(model.tokenizer(free["text"])["input_ids"]) > FREE_TOKENS / 2
    again = ask(model, [with_openings()])[1]
    assert again["text"] == free["text"], "seeded"
    found = metrics([free])
    assert (
        found["fluency"]["generation"]["mean"] == pytest.approx(free["generation"])
        and "consistency" not in found
    )


def test_a_model_that_exploded_is_still_scored():
    model = tiny_model("llama", chat=True)
    base = ask(model, [with_openings()])
    model.model.lm_head.weight.data.fill_(math.nan)
    rows = ask(model, [with_openings()], base)
    assert [row["axis"] for row in rows] == [row["axis"] for row in base]
    assert (
        rows[0]["likelihood"] == 0.0
        and rows[1]["text"] == ""
        and metrics(rows)["efficacy"]["argmax"]["mean"] == 0.0
    )


def test_consistency_where_the_corpus_has_texts():
    model = tiny_model("llama")
    rows = ask(model, [with_openings(references=("Velmora lies by the sea.", "Karsk is old."))])
    assert (
        0 < rows[1]["consistency"] <= 1
        and metrics(rows)["consistency"]["generation"]["mean"] == rows[1]["consistency"]
    )


def test_all_scores_follow_from_texts_tokens_and_references():
    model = tiny_model("llama", chat=True)
    neighbor = Probe("neighborhood", "The capital of France is", ("Paris",), "Karsk")
    cases = [
        with_openings(references=("Velmora lies by the sea.", "Karsk is old.")),
        Case.build(FACTS[1], [neighbor]),
    ]
    base = ask(model, cases)
    model.model.lm_head.weight.data.mul_(-1)
    rows = [jsonable(row) for row in ask(model, cases, base)]
    again = rescore(rows, cases)
    assert {
        "argmax",
        "token_accuracy",
        "token_agreement",
        "consistency",
        "generation",
        "likelihood",
    } <= set(again[0])
    for row, scores in zip(rows, again, strict=True):
        assert scores == {column: row[column] for column in scores}, row["axis"]
    assert any(row["token_agreement"] not in (None, 1.0) for row in rows), "the model was changed"


def test_the_composite_of_counterfact_is_a_harmonic_mean_of_means():
    rows = [
        row("a", "rewrite", 0.0, 1.0),
        row("b", "rewrite", 0.0, 1.0),
        row("a", "paraphrase", 0.0, 1.0),
        row("b", "paraphrase", 0.0, 0.0),
        row("a", "neighborhood", 0.0, 1.0),
        row("b", "neighborhood", 0.0, 0.0),
        row("b", "neighborhood", 0.0, 0.0),
    ]
    found = metrics(rows)["counterfact_score"]
    assert found["likelihood"]["mean"] == pytest.approx(3 / (1 / 1 + 1 / 0.5 + 1 / 0.5))
    assert (
        found["likelihood"]["n"],
        found["likelihood"]["clusters"],
        found["likelihood"]["low"],
    ) == (7, 2, None)
    assert set(found) == {"likelihood"}
    lost = metrics([*rows[:4], row("a", "neighborhood", 0.0, 0.0)])
    assert lost["counterfact_score"]["likelihood"]["mean"] == 0.0
    assert "counterfact_score" not in metrics(rows[:4])
    assert "counterfact_score" not in metrics([*rows[:4], row("a", "neighborhood", 0.0)]), (
        "no probe names a second answer"
    )


def test_judged_rows_have_a_fourth_protocol():
    rows = [
        {**row("a", "rewrite", 0.0), "judge": 1.0},
        {**row("b", "rewrite", 0.0), "judge": math.nan},
    ]
    found = metrics(rows)["efficacy"]
    assert list(found) == ["generation", "argmax", "likelihood", "judge"]
    assert (found["judge"]["mean"], found["judge"]["n"], found["judge"]["protocol"]) == (
        1.0,
        1,
        "judge",
    )


def test_every_metric_is_defined():
    """A heading for each key that ``metrics`` gives if all is asked, and for nothing else."""
    everything = metrics(
        [
            {**row("a", axis, 1.0, 1.0), "consistency": 0.5, "judge": 1.0}
            for axis in (*AXES, *DERIVED_AXES)
        ]
    )
    page = (Path(__file__).parents[2] / "eval" / "DEFINITIONS.md").read_text(encoding="utf-8")
    defined = [
        name
        for heading in re.findall(r"^### (.*)$", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", heading)
    ]
    assert sorted(everything) == sorted(defined)
    protocols = {protocol for scores in everything.values() for protocol in scores}
    assert protocols == set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))


# What only some protocols can score


def test_a_probe_is_scored_by_its_protocols_alone():
    tokens = ("argmax", "likelihood")
    case = Case.build(
        Fact("f", "The capital of France is", "London", original="Paris"),
        [
            Probe("portability", "It lies on", ("London",), "Paris", protocols=tokens),
            Probe("neighborhood", "The capital of Spain is", (), protocols=("generation",)),
        ],
        protocols=tokens,
    )
    assert Case.from_dict(json.loads(json.dumps(case.to_dict()))) == case
    behind = f"{case.fact.statement} The capital of Spain is"
    said = {"The capital of France is": "London", "It lies on": "London", behind: "Oslo"}
    base = ask(Scripted({**said, "The capital of Spain is": "Madrid, Spain"}), [case])
    rows = ask(Scripted({**said, "The capital of Spain is": "Madrid."}), [case], base)
    for row in rows[:2]:
        assert math.isnan(row["generation"]) and row["contains"] is row["exact"] is None
        assert (row["argmax"], row["token_accuracy"]) == (1.0, 1.0)
        assert not math.isnan(row["likelihood"])
    neighbor, distracted = rows[2], rows[3]
    assert (neighbor["generation"], distracted["generation"]) == (1.0, 1.0)
    # no answer to compare with, and no target that a free text is searched for
    assert neighbor["contains"] is neighbor["exact"] is neighbor["target_leaked"] is None
    assert math.isnan(neighbor["argmax"]) and math.isnan(neighbor["likelihood"])
    table = metrics(rows)
    assert table["efficacy"]["generation"]["mean"] is None
    assert table["efficacy"]["argmax"]["mean"] == 1
    assert table["specificity"]["generation"]["mean"] == 1
    assert not {"efficacy_exact", "neighborhood_accuracy", "target_leak"} & set(table)
    for row, again in zip(jsonable(rows), rescore(jsonable(rows), [case]), strict=True):
        assert {name: row[name] for name in again} == again


def test_only_a_neighbor_that_is_compared_with_the_base_alone_may_lack_an_answer():
    for axis, protocols in (("neighborhood", ()), ("portability", ("generation",))):
        with pytest.raises(DataError, match="has no expected answer"):
            Probe(axis, "The capital of Spain is", (), protocols=protocols)
    with pytest.raises(DataError, match="protocol 'guess' is not one of generation, argmax"):
        Probe("portability", "It lies on", ("London",), protocols=("guess",))
