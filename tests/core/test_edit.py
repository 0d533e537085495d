"""``Edit`` as an artifact: apply and revert, refuse other models, round-trip, report damage."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace

import pytest
import torch
from hostile.files import (
    as_format_1,
    as_int32,
    contents,
    flip,
    full_disk,
    nothing,
    one_nan,
    rewrite,
    times_ten,
    wrong_rank,
)
from tiny import write_model

from editbench.changes import dense
from editbench.edit import Edit, UncheckedEdit
from editbench.errors import EditbenchError, ModelError, RecordError
from editbench.files import check_folder
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


def test_edits_are_reverted_in_the_reverse_order_only(model):
    with unchanged(model, "three edits, reverted in order"):
        one = random_edit(model).apply(model)
        two = random_edit(model, seed=1).apply(model, check=False)
        three = InContext().inject(model, FACTS).apply(model)
        edited = model.fingerprint()
        for early in (one, two):
            with pytest.raises(ModelError, match="Revert the later edits first"):
                early()
        assert model.fingerprint() == edited and model.context_for and len(model.applied) == 3
        for last in (three, two, one):
            last()
        assert model.applied == () and model.context_for is None


def test_a_second_revert_leaves_a_later_edit_alone(model):
    revert = random_edit(model).apply(model)
    revert()
    with unchanged(model, "a second revert"), random_edit(model, seed=1).applied(model):
        edited = model.fingerprint()
        revert()
        assert model.fingerprint() == edited and len(model.applied) == 1


def test_an_edit_left_behind_inside_is_reported():
    model = tiny_model("llama")
    with (
        pytest.raises(ModelError, match="Revert the later edits first"),
        random_edit(model).applied(model),
    ):
        random_edit(model, seed=1).apply(model, check=False)
    assert len(model.applied) == 2


def test_an_edit_left_behind_does_not_hide_the_error_that_left_it():
    model = tiny_model("llama")
    with pytest.raises(KeyboardInterrupt) as stopped, random_edit(model).applied(model):
        random_edit(model, seed=1).apply(model, check=False)
        raise KeyboardInterrupt
    assert "Revert the later edits first" in stopped.value.__notes__[0]


@pytest.mark.parametrize(
    "spoil", [wrong_rank, lambda t: {**t, f"{DOWN}|left": t[f"{DOWN}|left"].T}]
)
def test_factors_without_a_product_are_refused_before_a_weight_is_touched(model, spoil):
    edit = random_edit(model)
    parts = spoil({f"{DOWN}|left": edit.changes[DOWN][0], f"{DOWN}|right": edit.changes[DOWN][1]})
    edit = replace(edit, changes={**edit.changes, DOWN: tuple(parts.values())})
    with unchanged(model, "a refused apply"), pytest.raises(ModelError, match="have no product"):
        edit.apply(model)


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


def test_an_older_edit_is_replaced_only_when_told(model, tmp_path):
    old = random_edit(model).save(tmp_path / "edit")
    again, before = random_edit(model, seed=1), contents(old)
    with pytest.raises(RecordError, match="is not an empty folder.*--overwrite replaces"):
        again.save(old)
    assert contents(old) == before
    again.save(old, overwrite=True)
    assert torch.equal(Edit.load(old).changes[UP], again.changes[UP])
    (old / "notes.txt").write_text("mine")
    with pytest.raises(RecordError, match=r"also holds notes.txt, which would be lost"):
        random_edit(model).save(old, overwrite=True)
    assert torch.equal(Edit.load(old).changes[UP], again.changes[UP])


def test_a_read_only_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    # not by chmod, which does not bind an administrator
    monkeypatch.setattr("os.access", lambda path, mode: False)
    check_folder(tmp_path / "new")
    with pytest.raises(RecordError, match="cannot be used: it is read-only"):
        check_folder(tmp_path)


def test_a_file_is_no_folder_even_when_told_to_overwrite(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecordError, match=r"file exists and is not an empty folder\. Choose"):
        check_folder(tmp_path / "file", True, ["file"])


def test_the_current_folder_and_the_rest_of_a_killed_process(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tmp-new-1").mkdir()
    edit = random_edit(model)
    edit.save(".")
    assert not (tmp_path / ".tmp-new-1").exists()
    assert torch.equal(Edit.load(tmp_path).changes[UP], edit.changes[UP])
    assert torch.equal(Edit.load(".").changes[UP], edit.changes[UP]), "a shell would be lost"


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
    as_format_1(saved)
    damage(saved / file)
    with pytest.raises(RecordError, match="is damaged") as caught:
        Edit.load(saved)
    assert str(saved) in str(caught.value)


TENSORS = [one_nan, as_int32, wrong_rank, nothing, times_ten]


@pytest.mark.parametrize("spoil", TENSORS)
def test_other_tensors_are_damage(saved, spoil):
    rewrite(saved, spoil)
    with pytest.raises(RecordError, match="edit.safetensors is not the file that was saved"):
        Edit.load(saved)


@pytest.mark.parametrize("file", ["manifest.json", "edit.safetensors", "records.jsonl"])
def test_two_flipped_bytes_are_damage(saved, file):
    flip(saved / file)
    with pytest.raises(RecordError, match=f"damaged: .*{file} is not the file|damaged: .*JSON"):
        Edit.load(saved)


def test_the_tensors_of_another_edit_are_damage(model, saved, tmp_path):
    other = random_edit(model, seed=1).save(tmp_path / "other")
    shutil.copy(other / "edit.safetensors", saved)
    with pytest.raises(RecordError, match="edit.safetensors is not the file that was saved"):
        Edit.load(saved)


@pytest.mark.parametrize(
    ("field", "value"), [("method", "memit"), ("kind", "context"), ("diagnostics", {"loss": 0})]
)
def test_a_changed_manifest_is_damage(saved, field, value):
    _rewrite(lambda m: m.update({field: value}))(saved / "manifest.json")
    with pytest.raises(RecordError, match="manifest.json is not the file that was saved"):
        Edit.load(saved)


def test_an_edit_without_hashes_loads_with_a_note(model, saved):
    edit = Edit.load(saved)
    as_format_1(saved)
    with pytest.warns(UncheckedEdit, match="without hashes of its files"):
        old = Edit.load(saved)
    assert torch.equal(old.changes[UP], edit.changes[UP]) and old.facts == edit.facts
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Edit.load(old.save(saved, overwrite=True))  # now with hashes


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (one_nan, "infinite or NaN"),
        (as_int32, "type int32"),
        (wrong_rank, "have no product"),
        (nothing, "has no tensors"),
    ],
)
def test_an_edit_without_hashes_is_checked_for_values_types_and_ranks(saved, spoil, why):
    rewrite(as_format_1(saved), spoil)
    with pytest.raises(RecordError, match=f"is damaged: .*{why}"):
        Edit.load(saved)


def test_an_edit_that_could_not_be_loaded_is_not_saved(model, tmp_path):
    edit = replace(random_edit(model), changes={UP: torch.full((56, 32), torch.nan)})
    with pytest.raises(RecordError, match="cannot be saved.*NaN"):
        edit.save(tmp_path / "edit")
    with pytest.raises(ModelError, match="infinite or NaN, so the model is not written"):
        edit.merge(model, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [["a"], ["a|left"], ["a|b|c"], ["a|delta", "a|left"]])
def test_tensors_with_strange_names_are_damage(saved, names):
    from safetensors.torch import save_file

    as_format_1(saved)
    save_file({name: torch.zeros(2) for name in names}, saved / "edit.safetensors")
    with pytest.raises(RecordError, match="is damaged"):
        Edit.load(saved)


@pytest.mark.parametrize("file", ["manifest.json", "edit.safetensors", "records.jsonl"])
def test_a_missing_file_is_named(saved, file):
    (saved / file).unlink()
    with pytest.raises(RecordError, match=f"holds no edit: {file} is missing"):
        Edit.load(saved)


def test_what_is_no_edit(tmp_path):
    with pytest.raises(RecordError, match="There is no folder .*nowhere"):
        Edit.load(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="holds no edit: edit.safetensors is missing"):
        Edit.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecordError, match="file"):
        Edit.load(tmp_path / "file")


def test_a_foreign_folder_is_not_written_to(model, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RecordError, match="is not an empty folder"):
        random_edit(model).save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RecordError, match="thesis.tex"):
        random_edit(model).save(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_full_disk_leaves_the_old_edit_or_nothing(model, saved, tmp_path):
    edit, before = random_edit(model, seed=1), contents(saved)
    with full_disk(5_000):  # the tensors take 12 KB
        with pytest.raises(RecordError, match="could not be written.*too large.*was changed"):
            edit.save(saved, overwrite=True)
        with pytest.raises(RecordError, match="could not be written"):
            edit.save(tmp_path / "a" / "new")
    assert contents(saved) == before and not (tmp_path / "a").exists()


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_a_replacement_that_stops_half_way_is_taken_back(model, saved, monkeypatch, fails_at):
    import os

    before, moved, move = contents(saved), [], os.replace

    def stop(source, target):
        if "-new-" not in str(target):  # the manifest is itself replaced as a whole, elsewhere
            moved.append(target)
            if len(moved) == fails_at:
                raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        random_edit(model, seed=1).save(saved, overwrite=True)
    assert contents(saved) == before and len(moved) >= fails_at


def test_a_manifest_of_another_edit_is_found(model, saved, tmp_path):
    """Facts and their hash belong together."""
    other = Edit("by-hand", {}, model.name, model.fingerprint(), FACTS[:1]).save(tmp_path / "other")
    mine, theirs = (json.loads((folder / "manifest.json").read_text()) for folder in (saved, other))
    (saved / "manifest.json").write_text(json.dumps({**mine, "facts": theirs["facts"]}))
    as_format_1(saved)
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


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_merge_writes_over_nothing(model, saved, tmp_path):
    edit = random_edit(model)
    other, earlier = write_model(tmp_path / "other"), edit.merge(model, tmp_path / "earlier")
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    for taken in (other, earlier, saved, tmp_path / "file"):
        with pytest.raises(RecordError, match="is not an empty folder"):
            edit.merge(model, taken)
    for taken, lost in ((saved, "edit.safetensors"), (tmp_path, "earlier")):
        with pytest.raises(RecordError, match=f"also holds {lost}, which would be lost"):
            edit.merge(model, taken, overwrite=True)
    with full_disk(20_000), pytest.raises(RecordError, match="could not be written"):
        edit.merge(model, earlier, overwrite=True)
    with full_disk(20_000), pytest.raises(RecordError, match="could not be written"):
        edit.merge(model, tmp_path / "new")
    assert contents(tmp_path) == before and not (tmp_path / "new").exists()
    random_edit(model, seed=1).merge(model, earlier, overwrite=True)
    assert contents(earlier) != before and contents(earlier).keys() == {
        name.removeprefix("earlier/") for name in before if name.startswith("earlier/")
    }


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_models_own_folder_is_never_written_to(tmp_path, monkeypatch):
    from editbench.models import load_model

    folder = write_model(tmp_path / "model")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    own, before = load_model("model", precision="float32"), contents(folder)
    edit = Edit("by-hand", {}, own.name, own.fingerprint(), (), {DOWN: torch.ones(32, 56)})
    for place in (folder, "model", tmp_path / "link"):
        for overwrite in (False, True):
            with pytest.raises(RecordError, match="is the folder of model itself"):
                edit.merge(own, place, overwrite)
    assert contents(folder) == before


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
