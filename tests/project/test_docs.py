"""The pages hold what the records and the code say, and their code works as printed."""

from __future__ import annotations

import importlib
import json
import operator
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pretend_device
import pytest
from suites import write_suite
from tiny import editbench, write_model

from editbench import registry
from editbench.plugin import Method
from editbench.testing import FACTS, check_method

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
README = TEXTS["README.md"]
PYTHON = re.compile(r"^```python(?: title=\"(\w+\.py)\")?\n(.*?)```", re.DOTALL | re.MULTILINE)
BLOCKS = [(page, block) for page, text in TEXTS.items() for _, block in PYTHON.findall(text)]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def cited(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("cited")


def test_the_readme_is_one_page():
    assert len(README.encode()) <= 7 * 1024


def test_every_cited_number_is_that_of_its_record(cited):
    for page, text in TEXTS.items():
        assert cited.written(text) == text, f"{page}: run python docs/cited.py"


def test_a_wrong_number_is_written_again_and_an_unknown_record_is_named(cited):
    page = "memit says .10 [.00, .20]<!-- harness_zsre / memit / efficacy --> of them"
    assert "says .90 [.78, .96]<!--" in cited.written(page)
    with pytest.raises(LookupError, match="no 'nosuch'"):
        cited.written(".1<!-- harness_zsre / memit / nosuch -->")


def test_no_interval_on_a_page_is_typed_by_hand(cited):
    for page, text in TEXTS.items():
        rest = cited.TABLE.sub("", cited.CITED.sub("", text))
        assert not re.findall(cited.INTERVAL, rest), page


@pytest.fixture
def own_method(tmp_path_factory, monkeypatch):
    """Write the files of the page on a method of one's own, as its project would be installed."""
    folder, page = tmp_path_factory.mktemp("plugin"), TEXTS["docs/tutorials/my-method.md"]
    for name, block in PYTHON.findall(page):
        (folder / name).write_text(block, encoding="utf-8")
    (toml,) = re.findall(r"```toml title=\"pyproject.toml\"\n(.*?)```", page, re.DOTALL)
    project = tomllib.loads(toml)["project"]
    info = folder / "one_step-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = project["entry-points"]["editbench.methods"].items()
    (info / "entry_points.txt").write_text(
        "\n".join(["[editbench.methods]", *(f"{name} = {value}" for name, value in points)])
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("EDITBENCH_PLUGINS", raising=False)
    yield
    for name in ("editbench_one_step", "several_steps"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("module", "cls", "device"),
    [
        ("editbench_one_step", "OneStepMethod", "cpu"),
        ("editbench_one_step", "OneStepMethod", "pretend"),
        ("several_steps", "SeveralStepsMethod", "cpu"),
    ],
)
@pytest.mark.usefixtures("own_method")
def test_the_method_in_one_file_passes_the_battery(module, cls, device, reader, tmp_path):
    if device == "pretend":
        if not pretend_device.AVAILABLE:
            pytest.skip("this PyTorch takes no device from Python")
        pretend_device.register()
    model = pretend_device.moved(reader("llama"), device)
    check_method(getattr(importlib.import_module(module), cls), model, FACTS, tmp_path)


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_every_snippet_is_python(page, block):
    compile(block, page, "exec")


def test_the_table_names_only_registered_methods():
    rows = re.findall(r"^\| `([a-z]+)` \| [\d.]+ \[", README, re.MULTILINE)
    assert set(rows) <= set(registry.names("methods"))
    assert {"base", "ice", "mixsd", "memit", "sft"} <= set(rows)


def test_the_five_lines_of_the_readme_run(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = (block for page, block in BLOCKS if page == "README.md")
    exec(block.replace("smollm2-135m", str(model)), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run(path, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_cells(path, model, monkeypatch)


def run_cells(path, model, monkeypatch):
    namespace = {"__name__": "notebook"}
    monkeypatch.setitem(sys.modules, "notebook", type(sys)("notebook"))
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"]).replace("smollm2-135m", str(model))
            # This file's future import must not reach the cell.
            exec(compile(source, path.name, "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("page", ["first-edit", "my-facts", "compare"])
def test_the_commands_of_a_tutorial_run(page, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = TEXTS[f"docs/tutorials/{page}.md"]
    for name, content in re.findall(r"```csv title=\"(\S+)\"\n(.*?)```", text, re.DOTALL):
        Path(name).write_text(content, encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE):
        for line in block.strip().splitlines():
            said = run(line, model)
            # A random model says few facts, for which inject and evaluate end with 1.
            assert said.code in (0, 1) and "Traceback" not in said.err, f"{line}\n{said.err}"


@pytest.mark.usefixtures("own_method")
def test_the_commands_of_the_page_on_an_own_method_run(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (rehearsal, block) = re.findall(
        r"^```sh\n(.*?)```", TEXTS["docs/tutorials/my-method.md"], re.M | re.S
    )
    python, compare = rehearsal.splitlines()
    exec(shlex.split(python)[2], {})
    said = editbench(*shlex.split(compare)[1:])
    assert said.code == 0 and "one-step: done" in said.err, said.err
    for line in block.replace("--methods one-step,memit", "--methods one-step").splitlines():
        words = line.replace("--budget 8", "--budget 2").replace("-n 10", "-n 2").split()[1:]
        if words[0] != "list":
            words += ["--model", model, "--tasks", "eb_grammar", "--limit", "10"]
        if words[0] == "tune":
            words += ["-n", "2"]
        said = editbench(*words)
        # A random model learns nothing in one step, and then the defaults stand.
        assert said.code == (words[0] == "tune"), f"{line}\n{said.err}"
    assert "size=0.05" in said.out and "the defaults stand" in said.err


def test_the_calls_of_the_page_on_plug_ins_are_there(reader):
    model, page = reader("llama"), TEXTS["docs/reference/plugins.md"]
    first = "".join(line.split(" | ")[0] for line in page.splitlines() if line.startswith("| "))
    calls = set(re.findall(r"`(model\.[\w.]+)", first))
    assert len(calls) > 10 and "model.layout.weight_name" in calls
    for call in calls:
        operator.attrgetter(call.removeprefix("model."))(model)
    declared = page.split("## What a method declares")[1].split("## The contracts")[0]
    for name in re.findall(r"`([a-z_]+)`", declared.replace("`trainer`", "")):
        assert hasattr(Method, name), name


def test_the_notebook_on_an_own_method_shows_an_effect(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (path,) = (path for path in NOTEBOOKS if path.stem == "my_method")
    run_cells(path, "no model is loaded", monkeypatch)
    before, after = re.findall(r"(-[\d.]+) (?:before|after)", capsys.readouterr().out)
    assert float(after) > float(before) + 1


def test_the_commands_of_the_page_on_submissions_run(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suite = write_suite(tmp_path, model)
    text = TEXTS["docs/guides/submit.md"]
    said = {}
    for block in re.findall(r"^```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE):
        for line in block.strip().splitlines():
            words = shlex.split(line.replace("--suite eb-1", f"--suite {suite}"))[1:]
            if words[0] == "verify":
                words += ["--suite", suite]
            if words[0] == "compare":  # less training than the default, which takes a minute here
                words += ["--option", "sft.epochs=1", "--option", "sft.min_steps=1"]
            said[words[0]] = editbench(*words)
            assert said[words[0]].code == 0, f"{line}\n{said[words[0]].err}"
    assert "Nothing is missing" in said["verify"].out
    assert "suite tiny-1" in Path("runs/board.md").read_text(encoding="utf-8")
    assert "suite tiny-1" in Path("runs/board/index.html").read_text(encoding="utf-8")


def run(line, model):
    """Run a command of a page, on the tiny model where it loads the default one."""
    words = shlex.split(line)[1:]
    if words[0] in ("facts", "inject", "compare") and "--model" not in words:
        words += ["--model", str(model)]
    if words[0] in ("compare", "evaluate") and "--tasks" not in words:
        words += ["--tasks", "eb_grammar", "--limit", "10"]  # else eight tasks of 100 items
    return editbench(*words)
