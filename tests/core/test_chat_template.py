"""Chat templates: what is asked and trained is what the template itself would write."""

from __future__ import annotations

import datetime

import pytest
from hostile.templates import REFUSED, TEMPLATES, hostile_model, hostile_tokenizer

from editbench import chat_template, text
from editbench.chat_template import DATE, SYSTEM, prompt, style_of, without_thoughts
from editbench.errors import ModelError
from editbench.models import LanguageModel
from editbench.testing import CHAT_TEMPLATE, tiny_model, tiny_tokenizer

START, END = "<|im_start|>", "<|im_end|>\n"
ASKED = f"{START}user\nWho?{END}{START}assistant\n"
SYSTEM_TURN = f"{START}system\n{SYSTEM}{END}"
NO_THOUGHT = "<think>\n\n</think>\n\n"
PROMPTS = {
    "opens a thought": ASKED + NO_THOUGHT,
    "writes thoughts": ASKED + NO_THOUGHT,
    "takes enable_thinking": ASKED + NO_THOUGHT,
    "no generation prompt": ASKED,
    "a space before the answer": "[INST] Who? [/INST]",
    "no last turn of the model": "[INST]Who?[/INST]",
    "other white space": "<|user|>\nWho?<|assistant|>\n",
    "a channel before the answer": f"{START}user\nWho?<|im_end|>{START}assistant<channel>final\n",
    "content in parts": ASKED,
    "a system turn is required": SYSTEM_TURN + ASKED,
    "the first turn is the system's": SYSTEM_TURN + ASKED,
    "the date": f"{START}system\nToday Date: 26 Jul 2024{END}{ASKED}",
    "one question only": ASKED,
    "forgets what the model said": ASKED,
}
RECORDS = {
    "opens a thought": {"thinking": "off", "added": "\n</think>\n\n"},
    "writes thoughts": {"thinking": "off", "added": "\n</think>\n\n"},
    "takes enable_thinking": {"thinking": "off"},
    "no generation prompt": {"added": f"{START}assistant\n"},
    "a space before the answer": {"separator": " "},
    "no last turn of the model": {"separator": " "},
    "a channel before the answer": {"added": "<channel>final\n"},
    "content in parts": {"content": "parts"},
    "a system turn is required": {"system": SYSTEM},
    "the first turn is the system's": {"system": SYSTEM},
    "the date": {"date": "2024-07-26"},
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_and_what_is_recorded_of_it(name):
    tokenizer = hostile_tokenizer(name)
    rendered = text.render(tokenizer, "Who?", "question")
    assert rendered.text == PROMPTS[name]
    assert rendered.text[rendered.start :].startswith("Who?")
    assert style_of(tokenizer).record() == RECORDS.get(name, {})


# These do not write a model's last turn where they ask for it.
ELSEWHERE = {"no last turn of the model", "other white space"}


@pytest.mark.parametrize("name", sorted({*TEMPLATES} - {"the date"} - ELSEWHERE))
def test_what_is_trained_is_what_the_template_writes(name):
    """Prompt and target are the template's own text, but for thoughts, which some of them drop."""
    tokenizer = hostile_tokenizer(name)
    rendered = text.render(tokenizer, "Who?", "question")
    ids = text.ids(tokenizer, rendered)
    trained = tokenizer.decode(ids + text.target_ids(tokenizer, rendered, ids, "Mara Lind"))
    style = style_of(tokenizer)
    if not style.conversations:
        pytest.skip("it cannot write the model's turn")
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Mara Lind"}]
    own = chat_template._write(tokenizer, turns, style, opens=False)
    if "thinking" in RECORDS[name] and "<think>" not in own:
        trained = trained.replace(NO_THOUGHT, "")
    assert own.startswith(trained)


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_cannot_be_used(name):
    tokenizer, model = hostile_tokenizer(name), tiny_model("llama", num_hidden_layers=2)
    for ask in (
        lambda: text.render(tokenizer, "Who?", "question"),
        lambda: LanguageModel(model.model, tokenizer, chat=True),
    ):
        with pytest.raises(ModelError, match="chat=False"):
            ask()
    # What asks no question goes on as before.
    cloze = LanguageModel(model.model, tokenizer, precision="float32")
    assert cloze.prompt_ids("It is") == model.prompt_ids("It is")
    plain = LanguageModel(model.model, tokenizer, chat=False, precision="float32")
    assert plain.chat_style is None and plain.prompt_ids("Who?", "question")


def test_several_templates_without_a_default_one():
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = {"rag": CHAT_TEMPLATE, "tool_use": CHAT_TEMPLATE}
    with pytest.raises(ModelError, match=r"no default one.*chat=False"):
        text.render(tokenizer, "Who?", "question")
    tokenizer.chat_template["default"] = CHAT_TEMPLATE
    assert text.render(tokenizer, "Who?", "question").text == ASKED


def test_a_conversation_keeps_the_models_turns():
    for name in TEMPLATES:
        tokenizer = hostile_tokenizer(name)
        if not style_of(tokenizer).conversations:
            continue
        written = text.render_chat(tokenizer, ["Who?", "Mara Lind", "Sure?"]).text
        places = [written.index(words) for words in ("Who?", "Mara Lind", "Sure?")]
        assert places == sorted(places), name
        assert written.endswith(style_of(tokenizer).after), name


@pytest.mark.parametrize(
    ("name", "own"),
    [("one question only", "raises"), ("forgets what the model said", "leaves out")],
)
def test_a_template_that_cannot_write_the_models_turn_holds_no_conversation(name, own):
    model = hostile_model(name)
    assert model.chat_style.conversations is False, own
    assert model.closing_ids("question") == [model.tokenizer.eos_token_id]


def test_the_end_of_the_models_turn():
    ends = {
        name: hostile_model(name).closing_ids("question")
        for name in ("opens a thought", "a space before the answer", "content in parts")
    }
    turn, eos = (
        tiny_tokenizer(chat=True).convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>")
    )
    assert list(ends.values()) == [[turn], [eos], [turn]]


def test_the_usual_template_is_used_as_it_stands():
    tokenizer = tiny_tokenizer(chat=True)
    assert style_of(tokenizer).record() == {}
    for turns in (["Who?"], ["Who?", "I.", "Sure?"]):
        messages = [
            {"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)
        ]
        assert prompt(tokenizer, messages) == tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )


def test_a_template_that_is_changed_is_looked_at_again():
    tokenizer = tiny_tokenizer(chat=True)
    assert style_of(tokenizer).record() == {}
    tokenizer.chat_template = TEMPLATES["a space before the answer"]
    assert style_of(tokenizer).separator == " "


def test_the_place_of_a_prompt_that_the_template_holds_too():
    for name in ("opens a thought", "the date"):
        rendered = text.render(hostile_tokenizer(name), "assistant", "question", "An assistant.")
        assert rendered.text[: rendered.start].endswith("An assistant.\n\n")
        assert rendered.text[rendered.start :].startswith(f"assistant{END}")


@pytest.mark.parametrize("code", ["%d %b %Y", "%Y-%m-%d", "%A, %B %d", "%-d.%-m.%y", "%H:%M", "no"])
def test_the_date_is_fixed_in_every_format(code):
    tokenizer = tiny_tokenizer(chat=True)
    head = "\n  {% if true %}a{% endif %}"  # white space that a template's head may have
    tokenizer.chat_template = head + TEMPLATES["the date"].replace("%d %b %Y", code)
    want = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who?"}],
        chat_template=tokenizer.chat_template.replace("strftime_now is defined", "true").replace(
            f"strftime_now('{code}')", f"'{DATE.strftime(code)}'"
        ),
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text.render(tokenizer, "Who?", "question").text == want
    assert DATE == datetime.datetime(2024, 7, 26)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Paris", "Paris"),
        ("<think>\nIt is London.\n</think>\n\nParis", "\n\nParis"),
        ("It is London.</think>Paris", "Paris"),
        ("<think>It is London", ""),
        ("<think>a</think>b<think>c", "b"),
        ("<think>a <think> b</think>c", "c"),
        ("a</think>b<think>c</think>d", "bd"),
        ("[THINK]It is London.[/THINK]Paris", "Paris"),
        ("<|channel>thought\nLondon<channel|>Paris", "Paris"),
        ("a < b, and I think> so", "a < b, and I think> so"),
    ],
)
def test_thoughts_are_no_answer(said, answer):
    assert without_thoughts(said) == answer


def test_thoughts_between_special_tokens():
    """``decode`` leaves the tokens out, so that the thought would stand there as an answer."""
    model = hostile_model("opens a thought")
    tokenizer = model.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    ids = tokenizer("<think>It is London.</think> Paris<|im_end|>")["input_ids"]
    assert model.decode(ids) == "It is London. Paris"
    assert model.answer(ids) == "Paris"
    assert model.answer(ids[:3]) == ""
    assert model.answer(tokenizer(" Paris<|im_end|>")["input_ids"]) == "Paris"
