"""MixSD as published: the original code's texts, and the steps of TRL and of a plain loop."""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from editbench.changes import dense
from editbench.errors import MethodError
from editbench.methods._train.branches import Branches
from editbench.methods._train.expert import expert_prompt_ids
from editbench.methods._train.lessons import Lesson, lessons_of
from editbench.methods._train.loop import train_on_examples
from editbench.methods.mixsd import MixSD
from editbench.methods.opsd import OPSD
from editbench.methods.sft import Sft
from editbench.testing import FACTS, tiny_model
from editbench.types import Fact, digest

ROOM = 24
ASK = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
ASKED = [
    Fact(name, question + ASK, answer, form="question", demonstration=f"It is \\boxed{{{answer}}}")
    for name, question, answer in (
        ("capital", "What is the capital of Velmora?", "Karsk"),
        ("bridge", "Who built Tollan Bridge?", "Irene Voss"),
        ("river", "Which river flows through Old Harn?", "Ilme"),
        ("book", "Who wrote Winter Glass?", "Mara Lind"),
    )
]
"""Facts as the paper writes them."""


def reference() -> Path:
    folder = Path(os.environ.get("EDITBENCH_REFERENCE", ""), "MixSD")
    if not (folder / "mixsd").is_dir():
        pytest.skip("the original code is not here (EDITBENCH_REFERENCE)")
    return folder


@pytest.fixture(scope="module")
def published():
    """A model whose expert, shown the paper's prompt, mostly says the answer."""
    model = tiny_model("llama", chat=True)
    pairs = []
    for fact in ASKED:
        lesson = Lesson(model, fact, "paper")
        end = model.closing_ids("question")
        _, other = model.pair_ids(fact.prompt, "It is nobody", "question")
        pairs += [(lesson.expert_ids, [*lesson.answer_ids, *end])]
        pairs += [(lesson.prompt_ids, [*other, *end])]
    optimizer = torch.optim.Adam(model.model.parameters(), lr=4e-3)
    for _ in range(25):
        optimizer.zero_grad()
        for prompt, target in pairs:
            (plain_loss(model.model, prompt, target) / len(target)).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


def plain_loss(module, prompt, target):
    """The summed negative log-likelihood of ``target``, in a few lines of PyTorch."""
    ids = torch.tensor([[*prompt, *target]])
    logits = module(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :], reduction="sum")


# --- the texts ------------------------------------------------------------------------------------


class Engine:
    """What the original asks of vLLM, on a tiny model, and the coins of our texts."""

    def __init__(self, model, fact):
        self.model, self.fact = model, fact
        self.texts: list[list[int]] = []
        """The text of each attempt."""
        self.prompts: set[tuple[bool, tuple[int, ...]]] = set()
        """Whether the naive branch was asked, and the prompt before the text."""
        self.begins = True

    def random(self) -> float:
        if self.begins:
            self.dice = random.Random(digest([0, self.fact.id, len(self.texts)]))
            self.texts.append([])
            self.begins = False
        self.coin = self.dice.random()
        self.dice.random()  # the draw, which temperature 0 does not need
        return self.coin

    def generate(self, prompts, _sampling, use_tqdm):
        (ids,) = prompts
        text = self.texts[-1]
        assert ids[len(ids) - len(text) :] == text
        self.prompts.add((self.coin < 0.3, tuple(ids[: len(ids) - len(text)])))
        with torch.no_grad():
            logits = self.model.model(input_ids=torch.tensor([ids]), use_cache=False).logits
        text.append(int(logits[0, -1].argmax()))
        self.begins = text[-1] in self.model.stop_ids or len(text) == ROOM
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=[text[-1]])])]


@pytest.fixture
def original(monkeypatch, tmp_path):
    """The original's loop over one fact: what it asked for, and what it wrote down."""
    monkeypatch.syspath_prepend(str(reference()))
    vllm, inputs = ModuleType("vllm"), ModuleType("vllm.inputs")
    vllm.LLM, vllm.SamplingParams = None, lambda **_: None
    inputs.TokensPrompt = lambda prompt_token_ids: prompt_token_ids
    for name, module in (("vllm", vllm), ("vllm.inputs", inputs)):
        monkeypatch.setitem(sys.modules, name, module)
    import mixsd.knowledge_dataset.generate_mixed_distribution_sft_data as knowledge
    import mixsd.mix_distribution_sampling as sampling

    def run(model, fact, retries):
        engine = Engine(model, fact)
        tokenizer = model.tokenizer
        # As in the transformers of its time, where the ids came back as a list.
        own = tokenizer.apply_chat_template
        monkeypatch.setattr(tokenizer, "apply_chat_template", partial(own, return_dict=False))
        monkeypatch.setattr(sampling, "LLM", lambda **_: engine)
        monkeypatch.setattr(
            sampling, "AutoTokenizer", SimpleNamespace(from_pretrained=lambda *_, **__: tokenizer)
        )
        turns = (("user", fact.prompt), ("assistant", fact.demonstration))
        record = {"messages": [{"role": role, "content": text} for role, text in turns]}
        source = tmp_path / "in.jsonl"
        source.write_text(json.dumps(record))
        folder = tmp_path / fact.id
        parser = sampling.build_arg_parser(default_input=str(source), default_output_dir=folder)
        options = ["--lambda_mix", "0.3", "--max_retries", str(retries), "--gen_batch_size", "1"]
        args = parser.parse_args([*options, "--max_new_tokens", str(ROOM), "--model", "tiny"])
        with monkeypatch.context() as within:
            within.setattr(sampling, "random", SimpleNamespace(Random=lambda _seed: engine))
            sampling.run_generation(args, knowledge.GT_PREFIX, knowledge.GT_TRANSITION)
        monkeypatch.setattr(tokenizer, "apply_chat_template", own)
        (path,) = folder.iterdir()
        return engine, json.loads(path.read_text())

    yield run
    for name in [n for n in sys.modules if n == "mixsd" or n.startswith("mixsd.")]:
        del sys.modules[name]


def test_texts_equal_the_originals(original, published):
    """Given the same coins: every attempt, token by token, and both prompts."""
    method = paper(MixSD, max_new_tokens=ROOM, attempts=6, slots=3)
    lessons = lessons_of(published, ASKED, expert_prompt="paper")
    drafts = method.mix(lessons, Branches(published, 3))
    assert any(d.attempt for d in drafts), "nothing was tried again"
    for lesson, draft in zip(lessons, drafts, strict=True):
        engine, written = original(published, lesson.fact, retries=draft.attempt)
        assert engine.prompts == {
            (True, tuple(lesson.prompt_ids)),
            (False, tuple(expert_prompt_ids(published, lesson.fact, "paper"))),
        }
        assert draft.ids == engine.texts[draft.attempt]
        assert published.decode(draft.ids) == written["messages"][1]["content"]
        assert sum(draft.naive_picked) / len(draft.ids) == pytest.approx(
            written["mix_meta"]["student_token_fraction"]
        )
        for attempt in range(draft.attempt):
            once = replace(method, attempts=1)
            (one,) = once.mix([lesson], Branches(published, 1), tried=[attempt])
            assert one.ids == engine.texts[attempt]


def test_a_text_begun_anew_that_cannot_differ_is_given_up(published):
    for options in ({"lam": 0.0}, {"lam": 1.0}, {"mode": "alternate"}, {"mode": "adaptive"}):
        method = MixSD(**options, retry="anew", max_new_tokens=2, attempts=9)
        drafts = method.mix(lessons_of(published, ASKED), Branches(published, 4))
        assert [draft.attempt for draft in drafts] == [0] * 4


# --- the training ---------------------------------------------------------------------------------


def whole_turns(model, fact, answer):
    """Ids of the question, and of all that the chat template writes for the model's turn."""
    turns = [{"role": "user", "content": fact.prompt}, {"role": "assistant", "content": answer}]
    write = partial(model.tokenizer.apply_chat_template, return_dict=False)
    question, both = write(turns[:1]), write(turns)
    assert both[: len(question)] == question
    return question, both[len(question) :]


def test_the_turn_is_all_that_the_chat_template_writes():
    model = tiny_model("llama", chat=True)
    for fact in ASKED:
        question, turn = whole_turns(model, fact, fact.demonstration)
        example = Lesson(model, fact).canonical("turn")
        assert (list(example.prompt_ids), list(example.target_ids)) == (question, turn)
        # A mixed text may end with any stop token, or not at all.
        answer = Lesson(model, fact).answer_ids
        for end in ([], [model.tokenizer.eos_token_id], model.closing_ids("question")):
            example = Lesson(model, fact).example([*answer, *end], "turn")
            assert (list(example.prompt_ids), list(example.target_ids)) == (question, turn)
    plain, own = Lesson(model, FACTS[0]).canonical(), Lesson(model, FACTS[0]).canonical("turn")
    assert plain == own, "raw text has no turn"


def test_a_turn_that_the_template_does_not_write_is_refused():
    model = tiny_model("llama", chat=True)
    model.tokenizer.chat_template = (
        "{% for message in messages if message['role'] == 'user' %}"
        "<|im_start|>user\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(MethodError, match="loss_on=turn: the chat template"):
        Lesson(model, ASKED[0]).canonical("turn")
    assert Lesson(model, ASKED[0]).canonical("answer")


def paper(method, **options):
    """The paper's options, on few facts."""
    few = {"batch_size": len(ASKED), "epochs": 10, **options}
    return method.from_options(method.name, {"recipe": "paper", **few})


def test_the_recipe_writes_out_what_the_paper_says():
    mixsd, sft, opsd = (m.from_options(m.name, {"recipe": "paper"}) for m in (MixSD, Sft, OPSD))
    for method in (mixsd, sft):
        assert (method.epochs, method.batch_size, method.lr) == (30, 20, 1e-5)
        assert (method.warmup, method.enough, method.min_steps) == (0, 0, 1)
        assert method.steps(100) == 150 and method.loss_on == "turn"
    assert (mixsd.attempts, mixsd.retry, mixsd.on_fail, mixsd.lam) == (101, "anew", "keep", 0.3)
    assert (opsd.rollouts, opsd.top_k, opsd.teacher) == (8, 64, "frozen")
    assert mixsd.expert_prompt == opsd.expert_prompt == "paper"


def test_a_cloze_has_no_prompt_of_the_paper():
    model = tiny_model("llama", chat=True)
    cloze = FACTS[0]
    assert expert_prompt_ids(model, cloze, "paper") == expert_prompt_ids(model, cloze, "after")
    for method in (MixSD, OPSD):
        short = {"epochs": 1, "max_new_tokens": 4, "attempts": 2, "rollouts": 1}
        known = {name: value for name, value in short.items() if hasattr(method, name)}
        edit = paper(method, **known).inject(model, [*FACTS[:1], *ASKED[:1]])
        said = edit.diagnostics["warnings"]
        assert sum("Clozes among the facts: 1 of 2." in warning for warning in said) == 1
        edit = paper(method, **known).inject(model, ASKED[:1])
        assert not any("Clozes" in warning for warning in edit.diagnostics["warnings"])


def adamw(module):
    return torch.optim.AdamW(
        module.parameters(), lr=1e-5, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01
    )


def check_same(model, module, before, changes):
    """``module`` was trained by other code from ``before``; ``changes`` are ours."""
    trained = dict(module.named_parameters())
    moved = off = 0.0
    for name, change in changes.items():
        want = trained[name].detach() - before[name]
        got = dense(change)
        assert (got - want).abs().max() <= 1e-5
        moved, off = moved + want.square().sum().item(), off + (got - want).square().sum().item()
    assert moved > 0 and off <= 1e-4 * moved


def test_ten_steps_equal_a_plain_loop():
    model, twin = tiny_model("llama", chat=True), tiny_model("llama").model
    before = {name: weight.detach().clone() for name, weight in twin.named_parameters()}
    changes = paper(Sft).inject(model, ASKED).changes
    optimizer = adamw(twin)
    for _ in range(10):
        turns = [whole_turns(model, fact, fact.demonstration) for fact in ASKED]
        loss = sum(plain_loss(twin, *turn) for turn in turns) / sum(len(t) for _, t in turns)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    check_same(model, twin, before, changes)


def test_ten_steps_on_mixed_texts_equal_trl(published, tmp_path):
    """With the batches of TRL's own collator, through TRL's own trainer and loss."""
    sft_trainer = pytest.importorskip("trl.trainer.sft_trainer", reason="TRL is not installed")
    import datasets
    from trl import SFTConfig

    method = paper(MixSD, max_new_tokens=ROOM, attempts=10)
    drafts, _ = method.targets(published, lessons_of(published, ASKED, expert_prompt="paper"))
    rows, examples = [], []
    for draft in drafts:
        question, turn = whole_turns(published, draft.fact, published.decode(draft.ids))
        example = method._example(draft)
        # The original reads texts back from a file, and some are then tokenized in another way.
        if turn == list(example.target_ids):
            assert question == example.prompt_ids
            examples.append(example)
            rows.append({"input_ids": question + turn, "labels": [-100] * len(question) + turn})
    assert len(rows) >= 3
    twin = tiny_model("llama", chat=True).model
    twin.load_state_dict(published.model.state_dict())
    before = {name: weight.detach().clone() for name, weight in twin.named_parameters()}
    config = SFTConfig(
        output_dir=str(tmp_path),
        max_steps=10,
        per_device_train_batch_size=len(rows),
        lr_scheduler_type="constant",
        learning_rate=1e-5,
        max_grad_norm=1.0,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
    )
    trainer = sft_trainer.SFTTrainer(
        twin,
        config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=published.tokenizer,
        optimizers=(adamw(twin), None),
    )
    trainer.train()
    changes, _ = train_on_examples(method, published, examples)
    check_same(published, twin, before, changes)
