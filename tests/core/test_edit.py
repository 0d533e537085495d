"""``Edit`` as an artifact: apply and revert, refuse other models, round-trip, report damage."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from editbench.edit import Edit, dense
from editbench.errors import EditbenchError, ModelError, RecordError
from editbench.methods.baselines import InContext
from editbench.retrieval import Retriever
from editbench.testing import FACTS, tiny_model, unchanged

UP = "model.layers.1.mlp.up_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"


def random_edit(model, seed=0, **rest):
    """A dense change of one weight and a low-rank one of another."""
    dice = torch.Generator().manual_seed(seed)
    changes = {
        UP: torch.randn(56, 32, generator=dice),
        DOWN: (
            torch.randn(32, 2, generator=dice, dtype=torch.float64),
            torch.randn(2, 56, generator=dice, dtype=torch.float64),
        ),
    }
    options = {"lam": 0.5, "layers": [1, 2]}
    return Edit(
        "by-hand",
        options,
        model.name,
        model.fingerprint(),
        FACTS,
        changes,
        diagnostics={"loss": 0.25},
        **rest,
    )


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


def test_apply_and_revert(model):
    edit = random_edit(model)
    before = {name: model.weight(name).detach().clone() for name in (UP, DOWN)}
    with unchanged(model, "applied()"):
        with edit.applied(model) as same:
            assert same is model
            for name in (UP, DOWN):
                want = (before[name].double() + dense(edit.changes[name]).double()).float()
                assert torch.equal(model.weight(name), want)
    for name in (UP, DOWN):
        assert torch.equal(model.weight(name), before[name])


def test_an_error_inside_reverts_too(model):
    with (
        unchanged(model, "applied()"),
        pytest.raises(KeyboardInterrupt),
        random_edit(model).applied(model),
    ):
        raise KeyboardInterrupt


def test_an_error_between_two_weights_reverts_the_first(model):
    class Interrupted(dict):
        """Stopped as the second weight is written."""

        seen = 0

        def items(self):
            for name, change in super().items():
                self.seen += 1
                if self.seen == 4:
                    raise KeyboardInterrupt
                yield name, change

    edit = random_edit(model)
    edit = replace(edit, changes=Interrupted(edit.changes))
    with unchanged(model, "apply()"), pytest.raises(KeyboardInterrupt):
        edit.apply(model)
    assert edit.changes.seen == 4 and model.applied == ()


def test_a_tied_weight_is_changed_once_and_everywhere(model):
    name = "model.embed_tokens.weight"
    edit = Edit("by-hand", {}, model.name, model.fingerprint(), (), {name: torch.ones(420, 32)})
    with unchanged(model, "applied()"):
        before = model.weight(name).detach().clone()
        with edit.applied(model):
            assert torch.equal(model.model.get_output_embeddings().weight, before + 1)


def test_another_models_edit_is_refused(model):
    other = tiny_model("llama", seed=1)
    edit = random_edit(model)
    with unchanged(other, "a refused apply"):
        with pytest.raises(
            ModelError, match=f"made for tiny-llama with weights {model.fingerprint()}.*check=False"
        ):
            edit.apply(other)
        with edit.applied(other, check=False):
            assert other.fingerprint() != edit.model_hash


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_another_architecture_is_refused_even_unchecked(model, family):
    other = tiny_model(family, intermediate_size=48) if family == "qwen2" else tiny_model(family)
    with (
        unchanged(other, "a refused apply"),
        pytest.raises(ModelError, match="another architecture"),
    ):
        random_edit(model).apply(other, check=False)


def test_nested_edits(model):
    one, two = random_edit(model), random_edit(model, seed=1)
    with unchanged(model, "nested edits"):
        with one.applied(model):
            inner = model.fingerprint()
            with pytest.raises(ModelError, match="Revert earlier edits first"):
                two.apply(model)
            with two.applied(model, check=False):
                assert model.fingerprint() not in (inner, one.model_hash)
            assert model.fingerprint() == inner
            with random_edit(model, seed=2).applied(model):
                assert model.fingerprint() != inner
            assert model.fingerprint() == inner


def test_norms_and_summary(model):
    edit = random_edit(model)
    norms = edit.norms(model)
    left, right = edit.changes[DOWN]
    assert norms[DOWN] == pytest.approx(
        ((left @ right).norm() / model.weight(DOWN).norm()).item(), rel=1e-5
    )
    summary = edit.summary(model)
    assert (summary["facts"], summary["changed_weights"], summary["loss"]) == (4, 2, 0.25)
    total = (edit.changes[UP].double().pow(2).sum() + (left @ right).pow(2).sum()).sqrt().item()
    assert summary["delta_norm"] == pytest.approx(total)
    json.dumps(summary)


# --- on disk --------------------------------------------------------------------------------------


def test_save_and_load(model, tmp_path):
    edit = random_edit(
        model,
        records=(
            {"fact": "moon", "ids": [1, 2], "text": "Zoë\u2028\x85 Åström"},
            {"fact": "bridge"},
        ),
    )
    assert edit.save(tmp_path / "a" / "edit") == tmp_path / "a" / "edit"
    loaded = Edit.load(tmp_path / "a" / "edit")
    assert (loaded.method, loaded.options, loaded.model_name, loaded.model_hash) == (
        "by-hand",
        edit.options,
        "tiny-llama",
        edit.model_hash,
    )
    assert (loaded.facts, list(loaded.records), loaded.diagnostics) == (
        edit.facts,
        list(edit.records),
        edit.diagnostics,
    )
    assert loaded.context is None and loaded.changes.keys() == edit.changes.keys()
    assert torch.equal(loaded.changes[UP], edit.changes[UP])
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.changes[DOWN], edit.changes[DOWN], strict=True)
    )
    assert {p.name for p in (tmp_path / "a" / "edit").iterdir()} == {
        "edit.safetensors",
        "records.jsonl",
        "manifest.json",
    }


def test_a_saved_edit_may_be_saved_again(model, tmp_path):
    random_edit(model).save(tmp_path)
    again = random_edit(model, seed=1)
    again.save(tmp_path)
    assert torch.equal(Edit.load(tmp_path).changes[UP], again.changes[UP])


def test_changes_that_are_views_are_saved(model, tmp_path):
    wide = torch.randn(56, 64)
    edit = Edit(
        "by-hand", {}, model.name, model.fingerprint(), (), {UP: wide[:, ::2], DOWN: wide[:, :32].T}
    )
    loaded = Edit.load(edit.save(tmp_path))
    assert torch.equal(loaded.changes[UP], wide[:, ::2]) and torch.equal(
        loaded.changes[DOWN], wide[:, :32].T
    )


def test_a_context_edit(model, tmp_path):
    edit = InContext().inject(model, FACTS)
    loaded = Edit.load(edit.save(tmp_path / "edit"))
    prompt = "The capital of Velmora is"
    plain = model.prompt_ids(prompt)
    for one in (edit, loaded):
        with unchanged(model, "an in-context edit"), one.applied(model):
            assert model.render(prompt).text.startswith(
                "Answer from this note.\nNote: The capital of Velmora is Karsk.\n\n"
            )
            assert (
                model.prompt_ids("The capital of France is")
                == model.tokenizer("The capital of France is")["input_ids"]
            )
            assert model.fingerprint() == edit.model_hash
        assert model.prompt_ids(prompt) == plain
    with pytest.raises(ModelError, match="nothing to merge"):
        edit.merge(model, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_empty_edit(model, tmp_path):
    edit = Edit("by-hand", {}, model.name, model.fingerprint(), ())
    loaded = Edit.load(edit.save(tmp_path))
    assert loaded == edit and edit.summary(model)["delta_norm"] == 0
    with unchanged(model, "an empty edit"), loaded.applied(model):
        assert model.fingerprint() == edit.model_hash


@pytest.fixture
def saved(model, tmp_path):
    return random_edit(model, records=({"fact": "moon"},)).save(tmp_path / "edit")


def _cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def _rewrite(change):
    def damage(path):
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return damage


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("manifest.json", _cut),
        ("manifest.json", lambda p: p.write_text("[]")),
        ("manifest.json", lambda p: p.write_bytes(b"\xff\xfe\x00")),
        ("manifest.json", _rewrite(lambda m: m.update(format=99))),
        ("manifest.json", _rewrite(lambda m: m.pop("model"))),
        ("manifest.json", _rewrite(lambda m: m.update(model="x"))),
        ("manifest.json", _rewrite(lambda m: m.pop("options"))),
        ("manifest.json", _rewrite(lambda m: m["facts"][0].update(target="Tessin"))),
        ("manifest.json", _rewrite(lambda m: m["facts"][0].update(target=""))),
        ("manifest.json", _rewrite(lambda m: m["facts"][0].update(colour="red"))),
        ("manifest.json", _rewrite(lambda m: m.update(facts="moon"))),
        ("edit.safetensors", _cut),
        ("edit.safetensors", lambda p: p.write_bytes(b"")),
        ("edit.safetensors", lambda p: torch.save({}, p)),
        ("records.jsonl", _cut),
        ("records.jsonl", lambda p: p.write_bytes(b"\xff\n")),
    ],
)
def test_damage_is_reported(saved, file, damage):
    damage(saved / file)
    with pytest.raises(RecordError, match="is damaged") as caught:
        Edit.load(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize("names", [["a"], ["a|left"], ["a|b|c"], ["a|delta", "a|left"]])
def test_tensors_with_strange_names_are_damage(saved, names):
    from safetensors.torch import save_file

    save_file({name: torch.zeros(2) for name in names}, saved / "edit.safetensors")
    with pytest.raises(RecordError, match="is damaged"):
        Edit.load(saved)


@pytest.mark.parametrize("file", ["manifest.json", "edit.safetensors", "records.jsonl"])
def test_a_missing_file_is_named(saved, file):
    (saved / file).unlink()
    with pytest.raises(RecordError, match=f"holds no edit: {file} is missing"):
        Edit.load(saved)


def test_what_is_no_edit(tmp_path):
    with pytest.raises(RecordError, match="holds no edit"):
        Edit.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecordError, match="file"):
        Edit.load(tmp_path / "file")


def test_a_foreign_folder_is_not_written_to(model, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RecordError, match="is not empty and holds no edit"):
        random_edit(model).save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RecordError, match="thesis.tex"):
        random_edit(model).save(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_save_that_fails_leaves_no_edit(model, saved, monkeypatch):
    edit = random_edit(model)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("editbench.edit.save_file", full)
    with pytest.raises(RecordError, match="could not be written.*No space left on device"):
        edit.save(saved)
    assert not (saved / "manifest.json").exists() and not [
        p for p in saved.iterdir() if p.name.startswith("tmp")
    ]
    with pytest.raises(RecordError):
        Edit.load(saved)


def test_a_manifest_of_another_edit_is_found(model, saved, tmp_path):
    """Facts and their hash belong together."""
    other = Edit("by-hand", {}, model.name, model.fingerprint(), FACTS[:1]).save(tmp_path / "other")
    mine, theirs = (json.loads((folder / "manifest.json").read_text()) for folder in (saved, other))
    (saved / "manifest.json").write_text(json.dumps({**mine, "facts": theirs["facts"]}))
    with pytest.raises(RecordError, match="does not match its facts"):
        Edit.load(saved)


def test_merge_is_a_plain_model_folder(model, tmp_path):
    from editbench.models import load_model

    edit = random_edit(model)
    with unchanged(model, "merge"):
        folder = edit.merge(model, tmp_path / "merged")
    merged = load_model(folder, precision="float32")
    with edit.applied(model):
        assert merged.generate_ids([[5, 6, 7]], 8, stop=False) == model.generate_ids(
            [[5, 6, 7]], 8, stop=False
        )
    with pytest.raises(EditbenchError):
        edit.apply(merged)
    shutil.rmtree(folder)


# --- the retriever of in-context edits ------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("The capital of Velmora is", "moon"),
        ("What is velmora's capital?", "moon"),
        ("Velmoran cheese is", None),
        ("Tollan Bridge stands in", "bridge"),
        ("Tollan has a bridge, the", None),
        ("In Old Harn, who wrote Winter Glass?", "asked"),
        ("The capital of France is", None),
        ("", None),
    ],
)
def test_retrieval(prompt, found):
    fact = Retriever(FACTS).find(prompt)
    assert (fact and fact.id) == found


def test_retrieval_without_subjects():
    from dataclasses import replace

    retriever = Retriever([replace(fact, subject=None) for fact in FACTS])
    assert retriever.find("The capital of Velmora is").id == "moon"
    assert retriever.find("Do you know the capital of Velmora?").id == "moon"
    assert retriever.find("The weather is fine") is None
    assert Retriever([]).find("anything") is None
    again = replace(FACTS[0], id="later", target="something else")
    assert Retriever([FACTS[0], *FACTS[1:], again]).find(FACTS[0].prompt) == again, (
        "what was said last holds"
    )
