"""DiSC, SDFT and LocFT-BF: their losses, what they train, and the authors' numbers."""

from __future__ import annotations

import contextlib
import math
import os
import random
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hostile.architectures import build

from editbench import registry
from editbench.errors import MethodError, ModelError, OptionError
from editbench.methods._train.lessons import Lesson, opening
from editbench.methods._train.loop import target_nll
from editbench.methods._train.teacher import frozen_copy
from editbench.methods._train.trainer import Trainer
from editbench.methods.disc import DiSC, read
from editbench.methods.locft import LocFT
from editbench.methods.opsd import OPSD, Rollout
from editbench.methods.sdft import SDFT
from editbench.testing import FACTS, tiny_model, tiny_options, unchanged

TRAINERS = [
    name for name in registry.names("methods") if issubclass(registry.get("methods", name), Trainer)
]


def options(method, **changed):
    return method(**{**tiny_options(method), **changed})


def checkout(name, *parts):
    """The source text of a file of the authors' code; skip the test where there is none."""
    path = Path(os.environ.get("EDITBENCH_REFERENCE", "absent"), name, *parts)
    if not path.is_file():
        pytest.skip(f"EDITBENCH_REFERENCE names no folder with {name}")
    return path.read_text(encoding="utf-8")


def executed(source, **given):
    module = ModuleType("reference")
    vars(module).update(given)
    sys.modules["reference"] = module  # dataclasses look their module up
    try:
        exec(source, vars(module))
    finally:
        del sys.modules["reference"]
    return module


# --- disc -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bos", [False, True])
def test_a_sentence_is_read_alone_and_behind_all_before_it(bos):
    model = tiny_model("llama", bos=bos)
    document = DiSC(rewordings=2).document(model, FACTS[0])
    student = [model.decode(split.student_ids).removeprefix("<s>") for split in document]
    assert student == [
        "Here is something to remember. The capital of Velmora is Karsk.",
        "My notes say: The capital of Velmora is Karsk.",
        "The capital of Velmora is Karsk.",
    ]
    teacher = [model.decode(split.teacher_ids).removeprefix("<s>") for split in document]
    assert teacher[0] == "The capital of Velmora is Karsk.\n" + student[0]
    assert teacher[2] == "\n".join(["The capital of Velmora is Karsk.", *student])
    for split in document:
        assert split.labels == len(split.student_ids) - 1 - bos
        assert split.teacher_ids[-split.labels :] == split.student_ids[-split.labels :]
        # nothing but the first token of a text is special
        assert (model.tokenizer.bos_token_id in split.teacher_ids[1:]) is False


def test_a_question_is_taught_as_it_is_asked():
    model = tiny_model("llama", chat=True)
    for split in DiSC(rewordings=1).document(model, FACTS[3]):
        answer = model.decode(split.student_ids[-split.labels :])
        assert answer.removesuffix("<|im_end|>") == "Mara Lind"
        assert split.teacher_ids[-split.labels :] == split.student_ids[-split.labels :]
    (_, last) = DiSC(rewordings=1).document(model, FACTS[3])
    assert last.student_ids == [
        *Lesson(model, FACTS[3]).prompt_ids,
        *Lesson(model, FACTS[3]).canonical().target_ids,
    ]
    assert "Question: Who wrote Winter Glass? Answer: Mara Lind" in model.decode(last.teacher_ids)


def test_the_last_sentence_is_always_drawn():
    method, dice = DiSC(splits=3), random.Random(0)
    drawn = [method.draw(9, dice) for _ in range(200)]
    assert all(one[-1] == 8 and one == sorted(set(one)) and len(one) in (2, 3) for one in drawn)
    assert {place for one in drawn for place in one} == set(range(9))
    assert DiSC(splits=1).draw(4, dice) == [3]


def test_the_loss_of_disc_equals_its_formula():
    model = tiny_model("llama")
    student = tiny_model("llama", seed=1)
    method = DiSC(rewordings=2, temperature=3.0)
    document = method.document(model, FACTS[1])
    loss = method.loss(student, model, list(zip(document, read(model, document), strict=True)))

    def log_softmax(module, ids, labels):
        with torch.no_grad():
            logits = module.model(torch.tensor([ids]), use_cache=False).logits[0].double().numpy()
        scaled = logits[-labels - 1 : -1] / 3.0
        return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))

    want = []
    for split in document:
        p = log_softmax(model, split.teacher_ids, split.labels)
        q = log_softmax(student, split.student_ids, split.labels)
        want.append(9.0 * (np.exp(p) * (p - q)).sum(-1).mean())
    assert loss.item() == pytest.approx(np.mean(want), rel=1e-4)


def test_disc_counts_what_both_sides_read_and_micro_batches_change_nothing():
    model = tiny_model("llama")
    method = options(DiSC, rewordings=1, epochs=3, batch_size=4)
    edits = [replace(method, micro_batch=size).inject(model, FACTS) for size in (None, 1)]
    documents = [method.document(model, fact) for fact in FACTS]
    splits = [split for document in documents for split in document]
    for edit in edits:
        assert edit.diagnostics["steps"] == 3
        assert edit.diagnostics["trained_tokens"] == 3 * sum(s.labels for s in splits)
        assert edit.diagnostics["forwarded_tokens"] == sum(
            3 * len(s.student_ids) + len(s.teacher_ids) for s in splits
        )
    name = "model.layers.2.mlp.up_proj.weight"
    whole, parts = (edit.changes[name] for edit in edits)
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["sft", "locft", "mixsd"])
def test_a_trainer_on_texts_counts_the_tokens_of_all_steps(name, reader):
    method = options(registry.get("methods", name), epochs=3, min_steps=1, enough=0.0)
    edit = method.inject(model := reader("llama"), FACTS)
    written = {r["fact"]: r["ids"] for r in edit.records if r["source"] != "target"}
    read = 0
    for fact in FACTS:
        lesson = Lesson(model, fact)
        target = lesson.canonical().target_ids
        if fact.id in written:
            target = lesson.example(written[fact.id], "answer").target_ids
        read += len(lesson.prompt_ids) + len(target)
    told = edit.diagnostics
    writing = [told.get(key, 0) for key in ("prompt_tokens", "decoded_tokens", "reread_tokens")]
    assert (sum(writing) > 0) == (name == "mixsd")
    assert told["forwarded_tokens"] == 3 * read + sum(writing)


@pytest.mark.parametrize("method", [OPSD, SDFT])
def test_an_on_policy_trainer_counts_both_sides(method, monkeypatch):
    seen, real = [], OPSD._rollouts

    def rollouts(*arguments):
        seen.extend(found := real(*arguments))
        return found

    monkeypatch.setattr(OPSD, "_rollouts", rollouts)
    edit = options(method, epochs=2, min_steps=1).inject(tiny_model("llama"), FACTS)
    # Written once, read by the student once more, and by the teacher behind the fact.
    counted = sum(
        2 * len(r.lesson.prompt_ids) + len(r.lesson.expert_ids) + 3 * len(r.ids) for r in seen
    )
    assert seen and edit.diagnostics["forwarded_tokens"] == counted


def test_a_fact_without_a_second_sentence_is_refused():
    with pytest.raises(OptionError, match="disc needs a second one") as refused:
        DiSC.from_options("disc", {"rewordings": 0})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("disc", {"splits": "0"}),
        ("disc", {"temperature": "0"}),
        ("locft", {"lora": "4"}),
        ("sdft", {"lora": "4"}),
    ],
)
def test_bad_options(name, bad):
    with pytest.raises(OptionError, match=f"Bad option for {name}"):
        registry.get("methods", name).from_options(name, bad)


def test_the_splits_and_the_loss_are_the_authors(monkeypatch):
    """The loss of five splits of a text and their mean, to 1e-4."""
    objectives = executed(
        checkout("distillation-retains-capabilities", "src", "disc", "objectives.py")
    )
    splits = executed(checkout("distillation-retains-capabilities", "src", "disc", "splits.py"))
    # Theirs computes in bfloat16 on a GPU; here both sides are float32.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    model, student = tiny_model("llama"), tiny_model("llama", seed=1)
    method = DiSC(rewordings=6)
    document = method.document(model, FACTS[2])
    ours = method.draw(len(document), random.Random(3))
    # Their first sentence is never learned; ours is not among the splits.
    theirs = splits.sentence_boundary([[0, 0]] * (len(document) + 1), 5, random.Random(3))
    assert ours == [len(before) // 2 - 1 for before, _ in theirs]
    drawn = [document[i] for i in ours]
    losses = [
        objectives.disc_loss(
            model.model,
            student.model,
            list(split.teacher_ids[: -split.labels - 1]),
            list(split.student_ids),
            torch.device("cpu"),
        ).item()
        for split in drawn
    ]
    states = read(model, drawn)
    pairs = list(zip(drawn, states, strict=True))
    for pair, want in zip(pairs, losses, strict=True):
        assert method.loss(student, model, [pair]).item() == pytest.approx(want, rel=1e-4)
    assert method.loss(student, model, pairs).item() == pytest.approx(np.mean(losses), rel=1e-4)


# --- sdft -----------------------------------------------------------------------------------------


def test_sdft_is_opsd_with_other_options():
    """Also the same edit, bit for bit."""
    model = tiny_model("llama")
    changed = {**tiny_options(SDFT), "epochs": 1}
    ours = SDFT(**changed).inject(model, FACTS[:2])
    same = OPSD(**{**changed, "teacher": "ema", "ema": 0.99}).inject(model, FACTS[:2])
    for name, change in ours.changes.items():
        assert torch.equal(change, same.changes[name])
    assert SDFT().top_k == 20
    paper = SDFT.from_options("sdft", {"recipe": "paper"})
    assert (paper.teacher, paper.ema, paper.divergence, paper.top_k) == (
        "ema",
        0.99,
        "forward",
        None,
    )


def test_the_loss_of_sdft_is_that_of_trl():
    """The authors' code gives this number at ``alpha = 0``; TRL's trainer has the same formula."""
    source = checkout("trl", "trl", "experimental", "sdft", "loss_utils.py")
    source = source.replace("from ...trainer.utils import selective_log_softmax", "")
    trl = executed(source)
    model, student = tiny_model("llama", chat=True), tiny_model("llama", seed=1, chat=True)
    paper = SDFT.from_options("sdft", {"recipe": "paper"})
    lesson = Lesson(model, FACTS[3], "sdft")
    ids = [*lesson.answer_ids, *model.closing_ids("question")]
    (ours, count) = paper._loss(student, model, [Rollout(lesson, ids, True, True)], [True])
    with torch.no_grad():
        teacher_NV, student_NV = (
            each.model(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[
                0, len(prompt) - 1 : -1
            ]
            for each, prompt in ((model, lesson.expert_ids), (student, lesson.prompt_ids))
        )
    per_token = trl.compute_full_logit_self_distillation_loss(
        student_NV, teacher_NV, distillation_alpha=0.0
    )
    assert count == len(ids)
    assert ours.item() == pytest.approx(per_token.mean().item(), rel=1e-4)


def test_the_teacher_of_sdft_reads_the_papers_words():
    model = tiny_model("llama", chat=True)
    read_by_teacher = model.decode(Lesson(model, FACTS[3], "sdft").expert_ids)
    assert (
        "\nWho wrote Winter Glass?\n\nThis is an example for a response to the question:\n"
        "Mara Lind\n\nNow answer with a response of your own, including the thinking process.\n"
    ) in read_by_teacher
    paper = SDFT.from_options("sdft", {"recipe": "paper", "max_new_tokens": 4, "lr": 1e-3})
    warnings = paper.inject(model, FACTS[:1]).diagnostics["warnings"]
    assert any("Clozes among the facts: 1 of 1." in warning for warning in warnings)


# --- locft ----------------------------------------------------------------------------------------


def test_one_projection_is_trained():
    model = tiny_model("llama")
    edit = options(LocFT).inject(model, FACTS)
    assert list(edit.changes) == ["model.layers.3.mlp.down_proj.weight"]
    assert edit.diagnostics["final_loss"] < edit.diagnostics["first_loss"]
    edit = options(LocFT, layer=1).inject(model, FACTS)
    assert list(edit.changes) == ["model.layers.1.mlp.down_proj.weight"]


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_is_not_there_is_named(layer):
    model = tiny_model("llama")
    with pytest.raises(MethodError, match="which has 0 to 3"), unchanged(model, "inject"):
        options(LocFT, layer=layer).inject(model, FACTS)


def test_one_step_of_locft_is_the_authors():
    """The first loss of their code on one batch of targets that are equally long, to 1e-4."""
    source = checkout("LocFT", "fine-tune.py")
    source = source.replace("torch.device(f'cuda:{config.device}')", "torch.device('cpu')")
    hparams = ModuleType("hparams")
    hparams.FTHyperParams = object
    sys.modules["hparams"] = hparams
    try:
        theirs = executed(source, __name__="reference")
    finally:
        del sys.modules["hparams"]
    model = tiny_model("llama")
    fact = replace(FACTS[0], form="cloze")
    tokenizer = deepcopy(model.tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<|im_start|>"})
    seen = []
    theirs.AverageMeter.update = lambda self, value, n=1: (
        seen.append(value),
        setattr(self, "avg", value),
    )
    config = ModuleType("config")
    config.layer, config.rewrite_module = 3, "model.layers.{}.mlp.down_proj.weight"
    config.lr, config.weight_decay, config.num_steps, config.batch_size = 5e-4, 0, 1, 100
    copy = frozen_copy(model)
    name = "model.layers.3.mlp.down_proj.weight"
    with contextlib.redirect_stdout(None):
        theirs.execute_ft(
            copy.model, tokenizer, [{"prompt": fact.prompt, "target_new": fact.target}], config
        )
    one = LocFT.from_options("locft", {"recipe": "paper", "layer": 3, "epochs": 1})
    edit = one.inject(model, [fact])
    assert edit.diagnostics["first_loss"] == pytest.approx(seen[0], rel=1e-4)
    moved = (copy.weight(name) - model.weight(name)).detach()
    torch.testing.assert_close(edit.changes[name], moved, rtol=1e-3, atol=1e-6)


# --- the first tokens of each target --------------------------------------------------------------


def test_only_the_first_tokens_carry_loss():
    model = tiny_model("llama")
    fact = replace(FACTS[0], target="Karsk, which lies in the north of the country")
    lesson = Lesson(model, fact)
    whole = lesson.canonical()
    n = len(whole.target_ids)
    for share, kept in ((0.5, math.ceil(n / 2)), (0.05, math.ceil(0.05 * n)), (1e-9, 1)):
        example = lesson.canonical("answer", share)
        assert example.target_ids == whole.target_ids
        assert example.counted == list(range(kept))
    assert opening(30, 0.1) == [0, 1, 2] and opening(30, 1.0) is None
    logp = model.target_logprobs([(list(whole.prompt_ids), list(whole.target_ids))])[0]
    loss, count = target_nll(model, [lesson.canonical("answer", 0.5)])
    assert count == math.ceil(n / 2)
    assert loss.item() == pytest.approx(-logp[:count].mean().item(), abs=1e-4)


@pytest.mark.parametrize("name", ["sft", "locft", "mixsd"])
def test_a_share_of_each_target_is_trained(name, reader):
    model, method = reader("llama"), registry.get("methods", name)
    whole, part = (options(method, first=share).inject(model, FACTS) for share in (1.0, 0.05))
    assert 0 < part.diagnostics["trained_tokens"] < whole.diagnostics["trained_tokens"]
    # A cell's key does not know the option where it changes nothing.
    assert "first" in options(method).left_out()
    assert "first" not in options(method, first=0.05).left_out()


@pytest.mark.parametrize(
    ("name", "bad", "why"),
    [
        ("sft", {"first": "1.5"}, "above 0 and at most 1"),
        ("locft", {"first": "0"}, "above 0 and at most 1"),
        ("mixsd", {"first": "-1"}, "above 0 and at most 1"),
        ("sft", {"first": "0.5", "loss_on": "turn"}, "use loss_on=answer"),
        ("mixsd", {"first": "0.5", "signal": "0.5"}, "give one"),
    ],
)
def test_a_share_that_is_none_is_refused(name, bad, why):
    with pytest.raises(OptionError, match=why) as refused:
        registry.get("methods", name).from_options(name, bad)
    assert "\n" not in str(refused.value)


# --- mixtures of experts --------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_every_trainer_trains_a_mixture_of_experts(name, family):
    """A routed expert or a shared one changes, and the base, the teacher, stays as it was."""
    model, method = build(family), registry.get("methods", name)
    if name == "locft" and family == "mixtral":
        with pytest.raises(ModelError, match="mixtures of routed experts"):
            options(method).inject(model, FACTS[:2])
        return
    with unchanged(model, "inject"):
        edit = options(method, epochs=1).inject(model, FACTS[:2])
    assert any("expert" in weight and change.any() for weight, change in edit.changes.items())


@pytest.mark.parametrize("name", ["opsd", "disc"])
def test_the_teacher_is_the_frozen_mixture(name, monkeypatch):
    model = build("mixtral")
    module = sys.modules[registry.get("methods", name).__module__]
    made = []

    def noted(one):
        made.append(frozen_copy(one))
        return made[-1]

    monkeypatch.setattr(module, "frozen_copy", noted)
    edit = options(registry.get("methods", name), epochs=1).inject(model, FACTS[:2])
    assert edit.changes and [one.fingerprint() for one in made] == [model.fingerprint()]
