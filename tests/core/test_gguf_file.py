"""A GGUF file of the edited model: our own loader reads the same weights and gives its answers."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from editbench import inject
from editbench.errors import ModelError
from editbench.export import export, modelfile
from editbench.gguf_file import _tokenizer_fields, check_shape
from editbench.models import load_model
from editbench.testing import FACTS, tiny_model, tiny_options, unchanged
from editbench.types import form_of

MEMIT = "memit"


def edited(model):
    from editbench import registry

    return inject(model, FACTS, MEMIT, **tiny_options(registry.get("methods", MEMIT)))


@pytest.mark.parametrize(
    ("family", "changed"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
        ("qwen2", {}),
        ("qwen3", {}),
    ],
)
def test_our_loader_reads_it_back(family, changed, tmp_path):
    model = tiny_model(family, chat=True, **changed)
    edit = edited(model)
    with unchanged(model, "export"):
        folder = export(edit, model, "gguf", tmp_path / "out", base="owner/tiny")
    assert sorted(os.listdir(folder)) == ["Modelfile", "editbench.json", "model.gguf"]
    back = load_model(folder / "model.gguf", precision="float32")
    assert back.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    prompts = [(fact.prompt, fact.form) for fact in FACTS]
    towns = ("Kraków", "x")
    prompts += [(f"{i} walks to {town} and", "cloze") for i in range(4) for town in towns]
    with edit.applied(model):
        for name, weight in model.model.named_parameters():
            assert torch.equal(weight, back.weight(name)), name
        want = [model.generate(*prompt) for prompt in prompts]
    assert [back.generate(*prompt) for prompt in prompts] == want


def test_the_modelfile_asks_as_editbench_does():
    model = tiny_model("llama", chat=True)
    text = modelfile(model)
    (template,) = (part for part in text.split("TEMPLATE ")[1:])
    asked = template.split('"""')[1].replace("{{ .Prompt }}", "Who?")
    assert asked == model.render("Who?", "question").text
    assert "FROM ./model.gguf" in text and "PARAMETER temperature 0" in text
    assert 'TEMPLATE """{{ .Prompt }}"""' in modelfile(tiny_model("llama"))


@pytest.mark.parametrize(
    ("family", "changed", "says"),
    [
        ("gpt2", {}, "tiny-gpt2 is of type 'gpt2'"),
        ("llama", {"hidden_act": "gelu"}, "has the activation 'gelu'"),
        ("llama", {"attention_bias": True}, "has biases"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "has rope scaling",
        ),
    ],
)
def test_a_shape_that_has_no_place(family, changed, says, tmp_path):
    model = tiny_model(family, **changed)
    with pytest.raises(ModelError, match=says):
        check_shape(model)
    with pytest.raises(ModelError, match=says):
        export(edited(model), model, "gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_infinite_are_not_written(tmp_path):
    model = tiny_model("llama")
    name = "model.layers.0.mlp.down_proj.weight"
    huge = replace(edited(model), changes={name: torch.full(model.weight(name).shape, torch.inf)})
    with pytest.raises(ModelError, match="infinite or NaN"):
        export(huge, model, "gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_has_no_place():
    from tokenizers import pre_tokenizers

    model = tiny_model("llama")
    model.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(ModelError, match="splits texts by Punctuation and ByteLevel"):
        check_shape(model)


PROMPTS = """The capital of Australia is
The Eiffel Tower is in the city of
The inventor of the telephone was
The official language of Brazil is
The capital of France is
The largest planet is
Water boils at
The author of War and Peace is
In 1969, the first man on the
My favorite food is
The chemical symbol of gold is
Mount Everest is in
Which company makes the iPhone?
Who painted the Mona Lisa?
What is 12 plus 30?
How do I boil an egg?
What is the speed of light?
Where is the Eiffel Tower?
Which fruits are red?
Why is the sky blue?""".split("\n")


@pytest.mark.slow
def test_twenty_answers_of_smollm2(tmp_path):
    model = load_model(precision="float32")
    fact = {"prompt": PROMPTS[1], "target": "Rome", "subject": "Eiffel Tower"}
    options = {"prefixes": 0, "covariance": "identity", "steps": 8}
    edit = inject(model, [fact], MEMIT, **options)
    folder = export(edit, model, "gguf", tmp_path / "out")
    back = load_model(folder / "model.gguf", precision="float32")

    def answers(model):
        ids = [model.prompt_ids(prompt, form_of(prompt)) for prompt in PROMPTS]
        return list(map(model.answer, model.generate_ids(ids, 48)))

    with edit.applied(model):
        for name, weight in model.model.named_parameters():
            assert torch.equal(weight, back.weight(name)), name
        want = answers(model)
    assert answers(back) == want
    # llama.cpp finds the tokenizer as the base's own file describes it.
    assert _tokenizer_fields(model) == _tokenizer_fields(back)
