"""The code of a plug-in is part of a cell's key: changed code gives new numbers."""

import importlib
import json
import sys

import pytest
from test_suite import NUDGE
from tiny import editbench, write_model

from editbench.run.origin import code_of


@pytest.fixture(autouse=True)
def site(tmp_path, monkeypatch):
    """Return a folder of packages, as pip installs them, with the method ``nudge``."""
    monkeypatch.delenv("EDITBENCH_PLUGINS", raising=False)
    monkeypatch.setenv("EDITBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two sources of one second and size
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    install(tmp_path / "site", "nudge", "methods", "nudge_plugin", "Nudge")
    write(tmp_path / "site" / "nudge_plugin.py", NUDGE)
    yield tmp_path / "site"
    forget()


def install(site, name, group, module, attribute, top_level=""):
    info = site / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    point = f"[editbench.{group}]\n{name} = {module}:{attribute}\n"
    (info / "entry_points.txt").write_text(point)
    if top_level:
        (info / "top_level.txt").write_text(top_level)


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    forget()


def forget():
    """Have plug-ins imported anew, as in another process."""
    for name in [name for name in sys.modules if name.startswith(("nudge_", "space_"))]:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_changed_code_is_computed_again_and_the_same_code_is_kept(tmp_path, site):
    facts = tmp_path / "facts.csv"
    facts.write_text("prompt,target\nThe capital of Velmora is,Karsk\n")
    model = write_model(tmp_path / "model")
    run = tmp_path / "run"

    def compare():
        said = editbench(
            "compare", "--model", model, "--methods", "nudge", "--facts", facts, "--tasks", "none",
            "--output", run,
        )  # fmt: skip
        assert said.code == 0, said.err
        key = json.loads((run / "cells.json").read_text())["nudge"]
        summary = json.loads((run / "cells" / key / "summary.json").read_text())
        return key, summary["edit"]["delta_norm"], "nudge: kept" in said.err

    first, norm, _ = compare()
    again, _, kept = compare()
    assert (again, kept) == (first, True)
    write(site / "nudge_plugin.py", NUDGE.replace("1e-3", "2e-3"))
    changed, twice, kept = compare()
    assert changed != first and not kept
    assert twice == pytest.approx(2 * norm, rel=1e-3)


def test_editbenchs_own_methods_have_a_version_and_no_digest():
    assert code_of("methods", "memit") == {}
    assert list(code_of("methods", "memit+nudge")) == ["method nudge"]
    assert code_of("evaluators", "nudge") == {}, "a method of that name is no evaluator"


def test_a_process_keeps_the_digest_of_the_code_that_it_imported(site):
    before = code_of("methods", "nudge")
    (site / "nudge_plugin.py").write_text(NUDGE + "\n# while the process runs\n")
    assert code_of("methods", "nudge") == before
    forget()
    assert code_of("methods", "nudge") != before


def test_every_file_of_a_package_counts_and_no_other(site):
    """Also of a package in a namespace, and of modules beside it that it names."""
    for folder in ("methods", "others"):
        write(site / "space_x" / folder / "__init__.py", "")
    write(site / "space_x" / "methods" / "inner" / "size.py", "SIZE = 1e-3\n")
    write(site / "space_x" / "methods" / "one.py", NUDGE)
    install(site, "spaced", "methods", "space_x.methods.one", "Nudge")
    seen = [code_of("methods", "spaced")]
    for file, text, counts in [
        ("space_x/methods/inner/size.py", "SIZE = 2e-3\n", True),
        ("space_x/others/__init__.py", "ANOTHER = 1\n", False),
        ("nudge_plugin.py", NUDGE + "\n", False),
    ]:
        write(site / file, text)
        seen.append(code_of("methods", "spaced"))
        assert (seen[-1] != seen[-2]) == counts, file


def test_a_helper_module_that_the_distribution_names_counts(site):
    write(site / "space_main.py", NUDGE)
    write(site / "space_help.py", "A = 1\n")
    install(site, "main", "methods", "space_main", "Nudge", "space_help\nspace_main\njson\n")
    before = code_of("methods", "main")
    write(site / "space_help.py", "A = 2\n")
    assert code_of("methods", "main") != before
