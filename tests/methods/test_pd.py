"""Prompt distillation: what the teacher writes and thinks, and that the student learns it."""

from dataclasses import replace

import pytest
import torch

from editbench.errors import OptionError
from editbench.matching import contains
from editbench.methods._train.divergence import divergence
from editbench.methods._train.lessons import lessons_of
from editbench.methods.pd import PD
from editbench.testing import FACTS, target_logp, tiny_model, tiny_options, unchanged
from editbench.text import pad_left


def options(**changed):
    return PD(**{**tiny_options(PD), **changed})


def noted(model):
    # As in tiny_options(): tiny models learn to answer from a note before the prompt.
    return lessons_of(model, FACTS, 0, "before")


def logits_after(model, prompts, texts):
    """Return the logits (N, V) at all tokens of ``texts``, each row by itself."""
    rows = []
    for prompt, ids in zip(prompts, texts, strict=True):
        ids_BT, mask_BT = pad_left([prompt + ids], model.device)
        with torch.no_grad():
            rows.append(model.logits(model.hidden(ids_BT, mask_BT))[0, -len(ids) - 1 : -1])
    return torch.cat(rows)


def test_the_student_comes_near_the_teacher(reader):
    """The divergence falls on the texts that were taught, and so does the loss reported."""
    model = reader("llama")
    method, before = options(epochs=20, temperature=0.5), target_logp(model, FACTS)
    with unchanged(model, "inject"):
        edit = method.inject(model, FACTS)
    lessons = [lesson for lesson in noted(model) for _ in range(method.texts)]
    texts = [record["ids"] for record in edit.records]
    teacher_NV = logits_after(model, [lesson.expert_ids for lesson in lessons], texts)

    def left():
        student_NV = logits_after(model, [lesson.prompt_ids for lesson in lessons], texts)
        return divergence(teacher_NV, student_NV, method.top_k, "forward").item()

    at_first = left()
    with edit.applied(model):
        assert left() < 0.3 * at_first
        assert target_logp(model, FACTS) > before + 0.1
    assert edit.diagnostics["final_loss"] < 0.5 * edit.diagnostics["first_loss"]


@pytest.mark.parametrize("top_k", [5, None])
def test_the_teacher_is_the_model_that_reads_the_fact(top_k):
    model, method = tiny_model("llama"), options(top_k=top_k, texts=1)
    lessons = noted(model)
    texts = method.write(model, lessons)
    read = method.read(model, texts)
    want_NV = logits_after(model, [one.expert_ids for one in lessons], [t.ids for t in texts])
    values_NK, ids_NK = want_NV.topk(top_k or want_NV.shape[-1], dim=-1)
    assert [len(ids) for ids, _ in read] == [len(text.ids) for text in texts]
    torch.testing.assert_close(torch.cat([v for _, v in read]), values_NK, rtol=1e-4, atol=1e-4)
    if top_k:
        assert torch.equal(torch.cat([ids for ids, _ in read]), ids_NK)


def test_each_text_states_its_fact_and_ends(reader):
    model = reader("llama")
    edit = options(texts=3, attempts=8, temperature=0.7, epochs=1).inject(model, FACTS)
    assert [r["fact"] for r in edit.records] == [fact.id for fact in FACTS for _ in range(3)]
    facts = {fact.id: fact for fact in FACTS}
    for record in edit.records:
        fact, text = facts[record["fact"]], model.answer(record["ids"])
        assert contains(text, fact.answers, fact.prompt)
        assert record["source"] == ("expert" if record["verified"] else "target")
    assert edit.diagnostics["target_sources"]["expert"] > len(FACTS)


def test_facts_that_no_text_states_are_taught_on_their_answer():
    model = tiny_model("llama")
    edit = options(texts=1, epochs=1).inject(model, FACTS)
    lessons = noted(model)
    assert [r["ids"] for r in edit.records] == [[*one.canonical().target_ids] for one in lessons]
    assert edit.diagnostics["target_sources"] == {"target": len(FACTS)}
    assert any("never stated their fact" in said for said in edit.diagnostics["warnings"])


def test_a_teacher_that_reads_nothing_new_teaches_nothing(monkeypatch):
    monkeypatch.setattr("editbench.methods._train.expert.guidance", lambda fact: None)
    method = options(weight_decay=0.0, epochs=1)
    edit = method.inject(tiny_model("llama"), FACTS)
    assert abs(edit.diagnostics["first_loss"]) < 1e-6


def test_frames_are_told(reader):
    edit = options(texts=2, rewordings=1, epochs=1).inject(reader("llama"), FACTS[:2])
    assert [r["frame"] for r in edit.records] == [0, 0, 1, 1] * 2
    assert {r["fact"] for r in edit.records} == {fact.id for fact in FACTS[:2]}


def test_the_seed_alone_decides_the_texts(reader):
    model, lessons = reader("llama"), noted(reader("llama")) * 4
    method = options(temperature=1.5, attempts=8, max_new_tokens=20)
    first, again, other = (
        [(text.ids, text.attempt) for text in chosen.write(model, lessons)]
        for chosen in (method, method, replace(method, seed=1))
    )
    assert first == again != other


@pytest.mark.parametrize(
    "bad",
    [
        {"texts": "0"},
        {"temperature": "0"},
        {"attempts": "0"},
        {"top_k": "0"},
        {"max_new_tokens": "0"},
        {"expert_prompt": "between"},
    ],
    ids=str,
)
def test_bad_options(bad):
    with pytest.raises(OptionError, match="Bad option for pd"):
        PD.from_options("pd", bad)
