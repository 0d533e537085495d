"""Prompts and targets to ids: subject positions, joint targets, templates, padding."""

from __future__ import annotations

import pytest
import torch

from editbench import text
from editbench.errors import ModelError
from editbench.subjects import find_subject
from editbench.testing import tiny_tokenizer
from editbench.types import Fact

TOKENIZERS = {
    "plain": tiny_tokenizer(),
    "bos": tiny_tokenizer(bos=True),
    "eos": tiny_tokenizer(eos_added=True),
    "bos and eos": tiny_tokenizer(bos=True, eos_added=True),
    "chat": tiny_tokenizer(chat=True),
    "chat and bos": tiny_tokenizer(chat=True, bos=True),
}
SUBJECTS = {
    "start": Fact("a", "Velmora has a capital called", "Karsk", "Velmora"),
    "one letter at the start": Fact("a", "I is the opposite of", "you", "I"),
    "middle": Fact("b", "The capital of Velmora is", "Karsk", "Velmora"),
    "end": Fact("c", "Who wrote Winter Glass", "Mara Lind", "Winter Glass"),
    "before punctuation": Fact("d", "In Velmora, the capital is", "Karsk", "Velmora"),
    "once as a word": Fact("e", "Velmorans call Velmora the", "old land", "Velmora"),
    "accents": Fact("f", "The mayor of Malmö is", "Zoë Åström", "Malmö"),
    "emoji": Fact("g", "The sign 🜚🦊 stands for", "gold", "🜚🦊"),
    "other scripts": Fact("h", "The city of Київ 東京 is", "far", "Київ 東京"),
    "decomposed": Fact("i", "The mayor of Malmo\u0308 is", "Ada", "Malmo\u0308"),
    "inside a word": Fact("j", "Velmorans say that", "yes", "Velmora"),
}
FORMS = [
    ("cloze", None, ""),
    ("cloze", None, "Therefore I know. "),
    ("cloze", "Note: Velmora is old.", ""),
    ("question", None, ""),
    ("question", "Answer from this note.\nNote: Velmora is old.", "Because. "),
]


def upto(tokenizer, ids, position):
    return tokenizer.decode(ids[: position + 1], clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(("form", "context", "prefix"), FORMS)
@pytest.mark.parametrize("fact", SUBJECTS.values(), ids=SUBJECTS)
@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_the_subjects_last_token(tokenizer, fact, form, context, prefix):
    rendered = text.render(tokenizer, fact.prompt, form, context, prefix)
    assert rendered.text[rendered.start :].startswith(fact.prompt)
    assert prefix + fact.prompt in rendered.text and (context or "") in rendered.text
    ids = text.ids(tokenizer, rendered)
    position = text.subject_last(tokenizer, rendered, fact)
    last = rendered.start + find_subject(fact).last
    assert text.ids_and_index(tokenizer, rendered, last) == (ids, position)
    before, up_to = (
        upto(tokenizer, ids, position - 1) if position else "",
        upto(tokenizer, ids, position),
    )
    place = rendered.start + (15 if fact.id == "e" else fact.prompt.index(fact.subject))
    start = "<s>" if ids[0] == tokenizer.bos_token_id else ""
    # all of the subject has been read here, and one token earlier it had not
    assert up_to.startswith(start + rendered.text[:place] + fact.subject)
    assert not before.startswith(start + rendered.text[:place] + fact.subject)
    if fact.id != "j":
        assert up_to == start + rendered.text[:place] + fact.subject


GOLDEN = [
    # tokenizer, form, the prompt's tokens up to the subject's last one, the rest, the target
    ("plain", "cloze", ["The", "Ġcapital", "Ġof", "ĠVelmora"], ["Ġis"], ["ĠKarsk"]),
    ("bos", "cloze", ["<s>", "The", "Ġcapital", "Ġof", "ĠVelmora"], ["Ġis"], ["ĠKarsk"]),
    ("eos", "cloze", ["The", "Ġcapital", "Ġof", "ĠVelmora"], ["Ġis"], ["ĠKarsk"]),
    (
        "chat",
        "question",
        ["<|im_start|>", "user", "Ċ", "The", "Ġcapital", "Ġof", "ĠVelmora"],
        ["Ġis", "<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"],
        ["Karsk"],
    ),
    (
        "plain",
        "question",
        ["Question", ":", "ĠThe", "Ġcapital", "Ġof", "ĠVelmora"],
        ["Ġis", "Ċ", "Answer", ":"],
        ["ĠKarsk"],
    ),
]


def words(tokenizer, ids):
    """Tokens joined to words, so that the goldens do not depend on the merges that BPE found."""
    joined = []
    for token in tokenizer.convert_ids_to_tokens(ids):
        glued = (
            joined
            and token[0].isalpha()
            and token[0] not in "ĠĊ"
            and joined[-1].lstrip("Ġ").isalpha()
            and joined[-1] != "Ċ"
        )
        if glued:
            joined[-1] += token
        else:
            joined.append(token)
    return joined


@pytest.mark.parametrize(("which", "form", "upto_subject", "rest", "target"), GOLDEN)
def test_golden(which, form, upto_subject, rest, target):
    tokenizer, fact = TOKENIZERS[which], SUBJECTS["middle"]
    rendered = text.render(tokenizer, fact.prompt, form)
    ids = text.ids(tokenizer, rendered)
    position = text.subject_last(tokenizer, rendered, fact)
    assert words(tokenizer, ids[: position + 1]) == upto_subject
    assert words(tokenizer, ids[position + 1 :]) == rest
    assert words(tokenizer, text.target_ids(tokenizer, rendered, ids, fact.target)) == target


@pytest.mark.parametrize(("form", "context", "prefix"), FORMS)
@pytest.mark.parametrize(
    "target", ["Karsk", "Zoë Åström", "1997", "7.5 km!", "Київ", "'s", "🦊", "a\nb"]
)
@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_prompt_and_target_are_the_joint_tokenization(tokenizer, target, form, context, prefix):
    rendered = text.render(tokenizer, "The capital of Velmora is", form, context, prefix)
    prompt_ids = text.ids(tokenizer, rendered)
    target_ids = text.target_ids(tokenizer, rendered, prompt_ids, target)
    separator = "" if rendered.text.endswith("\n") else " "
    joint = tokenizer(rendered.text + separator + target, add_special_tokens=rendered.special)[
        "input_ids"
    ]
    if joint[-1] == tokenizer.eos_token_id:
        joint.pop()
    assert prompt_ids + target_ids == joint
    assert tokenizer.decode(target_ids) == separator + target
    assert tokenizer.eos_token_id not in prompt_ids + target_ids


def test_a_border_that_merges_keeps_the_prompt():
    """A tokenizer that merges the prompt's end with the target's beginning: the prompt stays, the
    target stands alone."""

    class Merging:
        eos_token_id, chat_template = None, None

        def __call__(self, string, add_special_tokens):
            merged = string.replace("is Karsk", "\x01")
            return {"input_ids": [ord(c) for c in merged]}

    rendered = text.render(Merging(), "it is", "cloze")
    prompt_ids = text.ids(Merging(), rendered)
    assert text.target_ids(Merging(), rendered, prompt_ids, "Karsk") == [ord(c) for c in " Karsk"]


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize(
    ("prompt", "target", "between"),
    [
        ("日本の首都は", "東京", ""),
        ("เมืองหลวงของไทยคือ", "กรุงเทพ", ""),
        ('He said "', "yes", ""),
        ("The capital of Japan is", "東京", " "),
    ],
)
def test_the_targets_tokens_say_it_as_its_language_writes_it(tokenizer, prompt, target, between):
    for form, written in (("cloze", between), ("question", None)):
        rendered = text.render(tokenizer, prompt, form)
        if written is None:
            # The frame of a question ends in "Answer:" or in a template's own text.
            written = " " if rendered.special else ""
        ids = text.target_ids(tokenizer, rendered, text.ids(tokenizer, rendered), target)
        assert tokenizer.decode(ids) == written + target


def test_a_tokenizer_that_begins_each_text_with_a_space_puts_none_before_the_target():
    """As Llama 2's does. Here it also merges across the border, as tokenizers of Japanese may."""

    class Spacing:
        eos_token_id, chat_template = None, None

        def __call__(self, string, add_special_tokens):
            merged = ("\u2581" + string.replace(" ", "\u2581")).replace("は東", "\x01")
            return {"input_ids": [ord(c) for c in merged]}

    rendered = text.render(Spacing(), "首都は", "cloze")
    prompt_ids = text.ids(Spacing(), rendered)
    assert text.target_ids(Spacing(), rendered, prompt_ids, "東京") == [ord("東"), ord("京")]


def test_a_question_without_a_template():
    rendered = text.render(TOKENIZERS["plain"], "Who?", "question", context="Note.", prefix="So: ")
    assert rendered == text.Rendered("Question: Note.\n\nSo: Who?\nAnswer:", 21, True, " ")


def test_a_prompt_that_looks_like_the_frame():
    rendered = text.render(TOKENIZERS["plain"], "Answer", "question")
    assert rendered.start == len("Question: ")


def test_a_template_that_hides_the_prompt():
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = "{{ messages[0]['content'] | upper }}"
    with pytest.raises(ModelError, match="without it.*chat=False"):
        text.render(tokenizer, "Who?", "question")


@pytest.mark.parametrize("template", ["{{ raise_exception('Roles must alternate') }}", "{% if %}"])
def test_a_template_that_fails(template):
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match="chat template fails .*chat=False"):
        text.render(tokenizer, "Who?", "question")


def test_what_ends_an_answer():
    turn, eos = (
        TOKENIZERS["chat"].convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")
    )
    assert text.closing_ids(TOKENIZERS["chat"], "question", {turn, eos}) == [turn]
    assert text.closing_ids(TOKENIZERS["chat"], "question", {eos}) == [eos], (
        "what stops no answer does not end one"
    )
    assert text.closing_ids(TOKENIZERS["chat"], "cloze", {turn, eos}) == [eos]
    assert text.closing_ids(TOKENIZERS["plain"], "question", {turn, eos}) == [eos]
    single = tiny_tokenizer(chat=True)
    single.chat_template = (
        "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}"
        "{{ messages[0].content }}"
    )
    with pytest.raises(ModelError, match="one turn.*chat=False"):
        text.closing_ids(single, "question", {turn, eos})
    single.chat_template += "{% if add_generation_prompt %}:{% endif %}"
    assert text.closing_ids(single, "question", {turn, eos}) == [eos]
    single.eos_token = None
    assert text.closing_ids(single, "question", {turn}) == []


def test_offsets_are_needed():
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="use_fast=True"):
        text.token_at(Slow(), text.render(TOKENIZERS["plain"], "Who?", "cloze"), 0)
    with pytest.raises(ModelError, match="maps no token to"):
        text.token_at(TOKENIZERS["plain"], text.render(TOKENIZERS["plain"], "Who?", "cloze"), 9)


def test_stop_ids():
    tokenizer = TOKENIZERS["chat"]
    eos, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_end|>"))
    assert text.stop_ids(tokenizer) == {eos, end}

    class Model:
        class generation_config:
            eos_token_id = [7, eos]

    assert text.stop_ids(tokenizer, Model) == {eos, end, 7}
    Model.generation_config.eos_token_id = 9
    assert text.stop_ids(tokenizer, Model) == {eos, end, 9}


def test_pad_left():
    ids_BT, mask_BT = text.pad_left([[5], [1, 2, 3], []], "cpu", fill=9)
    assert ids_BT.tolist() == [[9, 9, 5], [1, 2, 3], [9, 9, 9]]
    assert mask_BT.tolist() == [[0, 0, 1], [1, 1, 1], [0, 0, 0]]
    assert ids_BT.dtype == mask_BT.dtype == torch.int64
