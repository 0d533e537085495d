"""The code in CONTRIBUTING.md works as printed, and its lists agree with the repository."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from editbench.plugin import Corpus, Evaluator
from editbench.testing import FACTS, tiny_model
from editbench.types import Case

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def recipe(tmp_path_factory, monkeypatch):
    """Import a recipe of the page by the name of its file."""
    folder = tmp_path_factory.mktemp("plugin")

    def load(name):
        (folder / f"{name}.py").write_text(RECIPES[name], encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder))
        return importlib.import_module(name)

    return load


def test_the_recipes_are_there_with_their_entry_points():
    assert set(RECIPES) == {"my_corpus", "my_evaluator"}
    declared = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    points = [tomllib.loads(block)["project"]["entry-points"] for block in declared]
    assert points == [
        {"editbench.corpora": {"capitals": "my_corpus:Capitals"}},
        {"editbench.evaluators": {"brief": "my_evaluator:Brief"}},
    ]


def test_the_corpus_yields_cases_with_their_probes(recipe, tmp_path):
    corpus = recipe("my_corpus").Capitals()
    assert isinstance(corpus, Corpus) and corpus.license
    data = tmp_path / "capitals.csv"
    data.write_text("country,target,true\nAustralia,Sydney,Canberra\nBrazil,Rio,Brasilia\n")
    cases = corpus.load(data)
    assert [case.fact.target for case in cases] == ["Sydney", "Rio"]
    assert len({case.fact.id for case in cases}) == 2
    assert [probe.axis for probe in cases[0].probes] == ["rewrite", "paraphrase", "neighborhood"]


def test_the_evaluator_scores_every_case_and_keeps_the_text(recipe):
    evaluator = recipe("my_evaluator").Brief()
    assert isinstance(evaluator, Evaluator) and evaluator.title and evaluator.summary
    model, cases = tiny_model("llama"), [Case.build(fact) for fact in FACTS]
    before = model.fingerprint()
    scores = evaluator.score(model, cases)
    assert [score.case for score in scores] == [case.fact.id for case in cases]
    assert all(score.value in (0.0, 1.0) for score in scores)
    for score in scores:
        assert score.value == (len(score.text.split()) <= 3)
    assert model.fingerprint() == before and evaluator.score(model, cases) == scores


def test_the_targets_of_make_are_those_of_the_page():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"^    make ([\w-]+)", PAGE, re.MULTILINE))
    assert named == {"setup", "lint", "test", "test-all", "docs", "ci"}
    assert named <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))


def test_every_file_that_the_page_names_is_there():
    names = re.findall(r"`((?:benchmarks|methods|tests|editbench|eval)/[\w/.]*)`", PAGE)
    names += re.findall(r"(benchmarks/\w+\.py)", PAGE)
    assert len(names) >= 10
    for name in names:
        if name != "methods/NAME.py":
            assert (ROOT / name).exists(), name


def pinned(name):
    """Return the versions in a constraints file, by package."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub("[-_.]+", "-", package).lower(): Version(version) for package, version in pairs}


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-lowest.txt"])
def test_constraints_pin_every_dependency_within_its_range(file):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = pinned(file)
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["plot"], *extras["tune"], *extras["dev"]]:
        requirement = Requirement(text)
        if requirement.name == "editbench":  # stands for extras of its own
            continue
        version = versions[re.sub("[-_.]+", "-", requirement.name).lower()]
        assert requirement.specifier.contains(version, prereleases=True), text


def test_the_lowest_versions_are_the_bounds():
    """Where a dependency's own dependencies allow its bound, the file has exactly that version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = pinned("constraints-lowest.txt")
    raised = {
        requirement.name
        for requirement in map(Requirement, project["dependencies"])
        for bound in requirement.specifier
        if bound.operator == ">="
        and versions[requirement.name.lower()].release[:2]
        != (*Version(bound.version).release, 0)[:2]
    }
    assert raised == set(), "raise these bounds, or name them here"
