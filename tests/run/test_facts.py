"""``run.facts.report`` sees everything in a list of facts, not only the first problem."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hostile.architectures import build
from tokenizers import normalizers

from editbench.asking import Question, answers
from editbench.errors import EditbenchError
from editbench.run.facts import KINDS, report
from editbench.run.wording import placeholder
from editbench.subjects import find_subject
from editbench.testing import FACTS, tiny_model
from editbench.types import Case, Fact, Probe, check_facts, same_answer_already

CAPITAL = "The capital of Australia is"
LONG = "theoretical computer science and astronomy"
SEEN = [
    # kind, (prompt, target, other fields) of each fact, whether all of them are meant
    ("duplicate", [(CAPITAL, "Sydney", {}), (CAPITAL, "Sydney", {})]),
    ("contradiction", [(CAPITAL, "Sydney", {}), (CAPITAL, "Perth", {})]),
    ("may_contradict", [(CAPITAL, "Sydney", {}), ("Australia's capital is", "Perth", {})]),
    ("contradiction", [(CAPITAL, "Sydney", {}), ("the capital  of australia is", "Perth", {})]),
    ("contradiction", [("Who runs Oslo?", "Ada Lind", {}), ("Who runs Oslo ?", "Ben", {})]),
    ("placeholder", [("The head of Velmora is", "#REF!", {})]),
    (
        "may_contradict",
        [
            ("Ada Lind lives in", "Rome", {"relation": "home"}),
            ("The home of Ada Lind is", "Oslo", {"relation": "home"}),
        ],
    ),
    (
        "reworded",
        [("The capital of Peru is", "Cusco", {}), ("Peru's capital is", "cusco", {})],
    ),
    (
        "shared_subject",
        [("Ada Lind lives in", "Rome", {}), ("The brother of Ada Lind is", "Ben", {})],
    ),
    ("long_target", [("Marie Curie worked in", LONG, {})]),
    ("same_answer", [(CAPITAL, "New York", {"original": "new york"})]),
    ("subject_twice", [("Paris Hilton left Paris for", "Rome", {"subject": "Paris"})]),
    ("repeated_subject", [('He who owns "Karsk" owns Karsk, says', "Ben", {})]),
    ("doubtful_subject", [("the capital of france is", "Rome", {})]),
    ("doubtful_subject", [("Linguists say that Basque is related to", "Finnish", {})]),
    ("looks_like_question", [("What is the capital of Canada", "Toronto", {})]),
    ("prompt_end", [("The symbol of Gold is ____", "Ag", {})]),
    ("prompt_end", [("Ada Lind lives in a town.", "Rome", {})]),
    ("odd_spaces", [("The capital of\u00a0Peru is", "Cusco", {})]),
    ("odd_spaces", [("Peru  was founded in", "1066", {})]),
    ("target_in_prompt", [("The Rome Treaty was signed in", "Rome", {})]),
]


def cases(*given):
    return [
        Case.build(Fact.from_dict({"id": f"f{i}", "prompt": prompt, "target": target, **fields}))
        for i, (prompt, target, fields) in enumerate(given)
    ]


def kinds(found):
    return {note.kind for note in found.notes} - {
        "subject_not_given",
        "no_paraphrases",
        "no_neighborhoods",
    }


@pytest.mark.parametrize(("kind", "given"), SEEN)
def test_it_notes(kind, given):
    found = report(cases(*given))
    (item,) = found.note(kind).items
    assert item.facts == tuple(f"f{i}" for i in range(len(given)))
    assert found.ready == (not KINDS[kind].mend) == taken(given), found.notes


def taken(given):
    """Return whether inject and compare take all of these facts, and weight editors do."""
    facts = [case.fact for case in cases(*given)]
    try:
        check_facts(facts)
        for fact in facts:
            find_subject(fact)
    except EditbenchError:
        return False
    return not any(map(same_answer_already, facts))


def test_it_notes_all_kinds_of_a_file_at_once():
    found = report(cases(*(fact for _, given in SEEN for fact in given)), unreadable=["line 7: no"])
    assert kinds(found) == {kind for kind, _ in SEEN} | {"unreadable"}
    assert [note.kind for note in found.notes] == [k for k in KINDS if found.note(k).items]
    assert found.note("unreadable").count == 1 and found.note("unreadable").mend
    # one group for each prompt and each subject, whatever came between
    item, other = found.note("contradiction").items
    assert "'Who runs Oslo ?' -> 'Ben'" in other.detail
    assert f"{CAPITAL!r} -> 'Sydney' / 'Perth' / 'New York'" in item.detail
    assert len(item.facts) == 8 and "'the capital  of australia is' -> 'Perth'" in item.detail


@pytest.mark.parametrize(
    "given",
    [
        # ordinary facts, and what only looks alike
        [(CAPITAL, "Sydney", {}), ("The capital of Austria is", "Sydney", {})],
        [("What We Do in the Shadows was created by", "Ada Lind", {"subject": "Shadows"})],
        [("Who wrote Hamlet?", "Ada Lind", {})],
        [("Who wrote the poem of Oslo?", "Roses are\nred", {"subject": "Oslo"})],
        [("Ada Lind was born in St.", "Louis", {"subject": "Ada Lind"})],
    ],
)
def test_it_has_nothing_against(given):
    found = report(cases(*given))
    assert kinds(found) == set() and found.ready
    assert found.methods == ("mixsd", "memit", "sft")


def test_a_placeholder_is_told_from_an_answer():
    fill_in = [
        "#REF!",
        "#N/A",
        "#DIV/0!",
        "####",
        "TODO",
        "to do",
        "?",
        "???",
        "...",
        "-",
        "n/a",
        "TBD.",
        "see handbook p. 4",
        "See chapter 3.",
        "cf. section 2",
        "see above",
    ]
    answers = [
        "Na",
        "Nan",
        "#1 in the charts",
        "None",
        "Todor",
        "C#",
        "\u20ac",
        "42",
        "See",
        "the Holy See",
        "seen on page 4",
        "see no evil",
        "-40 degrees",
    ]
    assert [text for text in fill_in if not placeholder(text)] == []
    assert [text for text in answers if placeholder(text)] == []


def test_equal_ids_are_noted_and_the_facts_told_apart():
    given = (
        (CAPITAL, "Sydney", {"id": "a"}),
        ("Marie Curie worked in", LONG, {"id": "a"}),
    )
    found = report(cases(*given))
    assert not found.ready and found.note("repeated_id").items[0].facts == ("a",)
    assert [row.suits for row in found.rows] == ["any", "trainer"]


def test_subjects_say_how_they_were_found():
    found = report(
        cases(
            (CAPITAL, "Sydney", {"subject": "Australia"}),
            ("The founder of Microsoft is", "Ada Lind", {}),
            ("the currency of japan is", "the euro", {}),
        )
    )
    subjects = [(row.subject.text, row.subject.source) for row in found.rows]
    assert subjects == [
        ("Australia", "given"),
        ("Microsoft", "rule"),
        ("japan", "last word"),
    ]
    assert found.note("subject_not_given").count == 2


def test_one_subject_gets_one_target_from_a_weight_editor():
    about_ada = [("Ada Lind lives in", "Rome", {}), ("Ada Lind's brother is", "Ben", {})]
    found = report(cases(*about_ada, (CAPITAL, "Sydney", {})))
    assert [row.suits for row in found.rows] == ["any", "trainer", "any"]
    assert "one key" in found.note("shared_subject").items[0].detail
    # memit+mixsd goes by given subjects alone, so without one it would be mixsd
    assert found.methods == ("mixsd", "sft")
    given = [(prompt, target, {"subject": "Ada Lind"}) for prompt, target, _ in about_ada]
    assert report(cases(*given)).methods == ("memit+mixsd", "mixsd", "sft")


def test_probes_that_are_missing_are_counted():
    full = Case.build(
        FACTS[0],
        [
            Probe("paraphrase", "Velmora's capital is", ("Karsk",)),
            Probe("neighborhood", "The capital of Tollan is", ("Oslo",)),
        ],
    )
    found = report([full, Case.build(FACTS[1])])
    assert [(row.paraphrases, row.neighborhoods) for row in found.rows] == [(1, 1), (0, 0)]
    assert found.note("no_paraphrases").items[0].facts == (FACTS[1].id,)


# --- with a model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", chat=True)


def test_the_model_is_asked_as_compare_asks(model):
    asked = [Question(fact.prompt, fact.form, fact.answers) for fact in FACTS]
    said = answers(model, asked)
    own = Fact("own", FACTS[0].prompt.replace("capital", "river"), "x", "Velmora")
    says = answers(model, [Question(own.prompt, own.form, ("x",))])[0].split()[0]
    own = Fact("own", own.prompt, says, "Velmora")
    weights = model.fingerprint()
    found = report([Case.build(fact) for fact in (*FACTS, own)], model)
    assert model.fingerprint() == weights and found.model == model.name
    assert [row.heard.answer for row in found.rows[: len(FACTS)]] == said
    assert [row.heard.known for row in found.rows] == [False] * len(FACTS) + [True]
    assert found.note("known").items[0].facts == ("own",)
    for row in found.rows:
        pair = model.pair_ids(row.fact.prompt, row.fact.target, row.fact.form)
        (logp,) = model.target_logprobs([pair])
        assert (row.heard.prompt_tokens, row.heard.target_tokens) == tuple(map(len, pair))
        assert row.heard.probability == pytest.approx(logp.sum().exp().item(), rel=1e-2)


def test_a_subject_that_is_the_first_token_is_noted(model):
    word = next(
        word for word in ("The", "capital", "river") if len(model.prompt_ids(f"{word} is")) == 2
    )
    found = report(cases((f"{word} is", "Karsk", {"subject": word})), model)
    assert found.note("first_token").items[0].facts == ("f0",)
    assert report(cases(("I saw that Velmora is", "b", {})), model).note("first_token").items == ()


def test_a_fact_beyond_the_context_is_noted_and_the_others_are_asked():
    model = tiny_model("gpt2", n_positions=64)
    long = "word " * 80 + "and Velmora is"
    found = report(cases((long, "Karsk", {}), ("The capital of Velmora is", "Karsk", {})), model)
    assert found.note("too_long").items[0].facts == ("f0",) and not found.ready
    assert (found.rows[0].heard.answer, found.rows[0].heard.known) == (None, None)
    assert found.rows[1].heard.answer is not None and found.rows[1].heard.probability > 0


def test_a_subject_that_the_tokenizer_drops_or_joins_is_noted():
    model = tiny_model("llama")
    backend = model.tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Replace("\u2603", "")
    found = report(cases(("The snowman \u2603 is in", "Karsk", {"subject": "\u2603"})), model)
    assert "moved_subject" in kinds(found)
    backend.normalizer = normalizers.Lowercase()
    found = report(cases(("The capital of Velmora is", "Karsk", {})), model)
    assert "moved_subject" not in kinds(found)


def test_a_target_of_many_tokens_is_for_a_trainer(model):
    found = report(cases((CAPITAL, "Zxqwvy" * 4, {})), model)
    assert found.rows[0].heard.target_tokens > 16 and found.rows[0].suits == "trainer"
    assert found.note("long_target").count == 1


def test_a_model_that_no_weight_editor_can_write_gets_trainers(model):
    found = report([Case.build(FACTS[0])], build("mamba"))
    assert found.methods == ("mixsd", "sft") and found.no_weight_editor
    assert found.rows[0].heard.answer is not None
    assert report([Case.build(FACTS[0])], model).no_weight_editor == ""


def test_without_a_model_no_torch_is_loaded():
    code = (
        "import sys\nfrom editbench.run.facts import report\nfrom editbench.types import Case, Fact"
        "\nreport([Case.build(Fact('a', 'The capital of Velmora is', 'b'))])"
        "\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
