"""The models that GRACE, WISE and DEFER return answer here as they do where EasyEdit made them."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tiny import editbench as command
from tiny import fact, write_facts, write_model

from editbench import registry
from editbench.methods._easyedit.process import new_folder
from editbench.methods.easyedit import EasyEdit
from editbench.models import LanguageModel, load_model
from editbench.testing import FACTS, check_method

SOURCE = os.environ.get("EDITBENCH_EASYEDIT", "")
pytestmark = pytest.mark.skipif(
    not (Path(SOURCE) / "easyeditor" / "models" / "wise").is_dir(),
    reason="needs a checkout of EasyEdit, named by EDITBENCH_EASYEDIT",
)
DIRECTLY = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from editbench.methods._easyedit.run import run

asked = json.load(open(sys.argv[1]))
_, (edited, *_) = run(asked["request"], Path.cwd())
edited.eval()
kept = {}
for i, prompt in enumerate(asked["prompts"]):
    ids = torch.tensor([prompt])
    written = edited.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False,
        use_cache=False, eos_token_id=None, output_logits=True, return_dict_in_generate=True,
    )
    kept[f"{i} ids"] = written.sequences[0, ids.shape[1]:].contiguous()
    kept[f"{i} logits"] = torch.cat(written.logits).contiguous()
save_file(kept, "kept")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny")
    return load_model(str(folder), precision="float32")


def direct(method, model, prompts, folder):
    """Return what the wrapper answers to ``prompts`` by its own ``generate``, without a server."""
    sent = []
    with mock.patch.object(
        EasyEdit, "_live", lambda self, model, facts, request: sent.append(request)
    ):
        method.inject(model, FACTS)
    request = {**sent[0], **method._files(model, folder, sent[0]["fields"])}
    (folder / "asked").write_text(json.dumps({"request": request, "prompts": prompts}))
    subprocess.run([sys.executable, "-c", DIRECTLY, "asked"], cwd=folder, check=True)
    return load_file(folder / "kept")


def memory(name, **options):
    name, options = f"easyedit-{name}", {"override": ["n_iter=8"], **options}
    return registry.get("methods", name).from_options(name, options)


def asked(model):
    pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in FACTS]
    return torch.stack([logp_T.mean() for logp_T in model.target_logprobs(pairs)])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grace", {}),
        ("wise", {}),
        ("defer", {}),
        # below the last layer, where no cache is used
        ("wise", {"layers": [0]}),
    ],
)
def test_a_side_memory_answers_as_its_own_code_does(name, options, model):
    method = memory(name, **options)
    prompts = [model.prompt_ids(fact.prompt, fact.form) for fact in FACTS]
    prompts.append(model.prompt_ids("The capital of France is"))
    want = direct(method, model, prompts, new_folder())
    pairs = [(p, want[f"{i} ids"].tolist()) for i, p in enumerate(prompts)]
    before = asked(model)
    with method.inject(model, FACTS).applied(model):
        # in another order than there, since nothing may be left of an earlier text
        for i in reversed(range(len(prompts))):
            assert model.generate_ids([prompts[i]], 8, stop=False) == [pairs[i][1]]
            logits = model.live.target_logits(*pairs[i])
            assert torch.allclose(logits, want[f"{i} logits"], atol=1e-5)
        assert model.generate_ids(prompts, 8, stop=False) == [ids for _, ids in pairs]
        assert asked(model).mean() > before.mean()


@pytest.mark.parametrize("name", ["grace", "wise", "defer"])
def test_a_second_chunk_keeps_the_first_one_and_can_be_taken_back(name, model):
    method = memory(name)
    first = method.inject(model, FACTS[:1])
    with first.applied(model):
        early = asked(model)
        second = method.inject(model, FACTS[1:2])
        with second.applied(model):
            late = asked(model)
        assert torch.equal(asked(model), early)
    assert not torch.equal(late, early)
    if name != "defer":  # it teaches nothing in so few steps
        assert late[0] > asked(model)[0], "the first fact is kept"
        assert late[1] > early[1], "the second fact is taught"
    assert first.live.child is second.live.child


@pytest.mark.parametrize("name", ["grace", "wise"])
def test_a_side_memory_keeps_the_contract_of_a_method(name, model, tmp_path):
    method = registry.get("methods", f"easyedit-{name}")
    halves = LanguageModel(model.model, model.tokenizer, name="tiny", precision="bfloat16")
    edit = check_method(method, halves, FACTS, tmp_path, override=["n_iter=8"])
    assert "EasyEdit's model answers in float32" in edit.diagnostics["warnings"][-1]


def test_the_process_of_an_edit_ends_with_its_cell(tmp_path):
    folder = write_model(tmp_path / "tiny")
    facts = write_facts(tmp_path / "facts.jsonl", [fact(i) for i in range(2)])
    before = set(psutil.Process().children(recursive=True))
    gc.disable()  # as in a process that allocates little while the next cell runs elsewhere
    try:
        done = command(
            *("compare", "--methods", "easyedit-grace", "--facts", facts, "--model", folder),
            *("--option", "easyedit-grace.override=n_iter=2", "--output", tmp_path / "run"),
            *("--tasks", "eb_grammar", "--limit", 2),
        )
        left = set(psutil.Process().children(recursive=True)) - before
    finally:
        gc.enable()
    assert done.code == 0 and len(left) <= 1, "the server may stay"


@pytest.mark.slow
def test_real_facts_are_learned_and_the_table_shows_it(tmp_path):
    names = ("easyedit-grace", "easyedit-wise")
    done = command(
        *("compare", "--methods", ",".join(names), "--corpus", "demo-counterfact", "-n", 2),
        *("--option", "easyedit-grace.override=n_iter=20"),
        *("--option", "easyedit-wise.override=n_iter=12"),
        *("--tasks", "eb_grammar", "--limit", 4, "--output", tmp_path / "run", "--json"),
    )
    assert done.code == 0, done.err
    for name in names:
        assert done.rows[name]["status"] == "done"
        assert done.rows[name]["efficacy"]["mean"] > done.rows["base"]["efficacy"]["mean"]
