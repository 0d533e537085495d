"""``editbench facts FILE``: everything about a file at once, at 80 columns, and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas
import pytest
from tiny import editbench, fact, write_facts, write_model

from editbench.cli import console

HEADER = "prompt,target,subject\n"
GOOD = "The capital of Australia is,Sydney,Australia\n"
BAD = (
    HEADER
    + GOOD
    + "The capital of Austria is,,Austria\n"
    + GOOD
    + "The capital of France is,Rome,Francia\n"
    + "The capital of Australia is,Perth,Australia\n"
)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "PLAIN_WIDTH", 80)  # as in a usual terminal
    return tmp_path


def test_a_good_file_gives_0_and_the_next_command(here):
    write_facts(here / "facts.jsonl")
    said = editbench("facts", "facts.jsonl", "--model", "none")
    assert said.code == 0 and said.err == ""
    assert said.out.startswith("facts.jsonl: 10 facts, asked of no model.")
    assert "editbench compare --facts facts.jsonl\n" in said.out
    assert "--write-probes" not in said.out  # these facts have probes
    assert "The capital of France is" in said.out and "→ London" in said.out


def test_all_problems_are_shown_at_once(here):
    (here / "my facts.csv").write_text(BAD)
    said = editbench("facts", "my facts.csv", "--model", "none")
    assert said.code == 1 and "Traceback" not in said.err
    for part in (
        "*   2  refused when the file is read",
        "line 3: Fact 'my facts-2': field 'target' is empty",
        "line 5: Fact 'my facts-4': subject 'Francia' is not in its prompt",
        "*   3  with one prompt and several targets",
        "'Sydney' / 'Perth'",
        "my facts-1 (line 2), my facts-3 (line 4), my facts-5 (line 6): ",
        "editbench facts 'my facts.csv' --write-probes 'my facts-probes.csv'\n",
        "editbench compare --facts 'my facts-probes.csv' --methods memit+mixsd,mixsd,sft\n",
    ):
        assert part in said.out or part in " ".join(said.out.split()), part


def test_what_must_be_mended_comes_before_the_table(here):
    (here / "facts.csv").write_text(BAD)
    out = editbench("facts", "facts.csv", "--model", "none").out
    mend, table = out.index("'Francia' is not in its prompt"), out.index("→ target")
    assert mend < table < out.index("without paraphrases", mend)
    # What holds for all facts is in the summary alone.
    (here / "many.csv").write_text(HEADER + "".join(f"City {i} is in,Peru,\n" for i in range(8)))
    out = editbench("facts", "many.csv", "--model", "none").out
    assert out.count("without paraphrases") == 1 and "all facts" not in out


def test_up_to_15_doubtful_subjects_are_all_shown_with_their_rows(here):
    names = [f"thing{i}" for i in range(15)]
    (here / "facts.csv").write_text(HEADER + "".join(f"the use of {n} is,art,\n" for n in names))
    out = editbench("facts", "facts.csv", "--model", "none").out
    assert "15  whose subject was found and may be wrong" in out and "more" not in out
    assert "facts-15 (line 16): 'thing14'" in out and "by rule" not in out


@pytest.mark.parametrize("option", [(), ("--prompt-column", "question")])
def test_a_title_above_the_header_is_seen(here, option):
    rows = ["My facts", None], ["question", "target"], ["Who wrote Hamlet?", "Ada Lind"]
    pandas.DataFrame(rows).to_excel(here / "facts.xlsx", header=False, index=False)
    said = editbench("facts", "facts.xlsx", *option, "--model", "none")
    assert said.code == 2 and "If that is a title, take it out" in said.err


def test_nothing_that_must_be_mended_is_hidden(here):
    (here / "facts.csv").write_text(HEADER + "".join(f"City {i} is in,,\n" for i in range(30)))
    said = editbench("facts", "facts.csv", "--model", "none")
    assert said.code == 1 and said.out.startswith("facts.csv: 0 facts")
    assert said.out.count("field 'target' is empty") == 30
    said = editbench("facts", "facts.csv", "--model", "none", "--json")
    (note,) = json.loads(said.out)["notes"]
    assert said.code == 1 and note["kind"] == "unreadable" and len(note["items"]) == 30


def test_30_rows_are_read_at_80_columns(here, model):
    rows = "".join(
        f"The oldest and by far the largest city of Velmora {i} is,Karsk upon Harn {i},\n"
        for i in range(30)
    )
    (here / "facts.csv").write_text(HEADER + rows + GOOD)
    said = editbench("facts", "facts.csv", "--model", model)
    assert said.code == 0, said.err
    # commands are not broken, so that they can be copied
    lines = [line for line in said.out.splitlines() if not line.startswith("  editbench")]
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("facts-") for line in lines) == 31
    assert "30  without a given subject" in said.out and "and 25 more" in said.out
    assert f"--write-probes facts-probes.csv --model {model}\n" in said.out


def test_json_is_one_value_with_the_documented_keys(here, model):
    from editbench.run.facts import Report

    (here / "facts.csv").write_text(BAD)
    said = editbench("facts", "facts.csv", "--model", model, "--json")
    found = json.loads(said.out)
    assert said.code == 1 and found["file"] == "facts.csv" and not found["ready"]
    assert {note["kind"] for note in found["notes"]} >= {"unreadable", "contradiction"}
    (first, *_) = found["facts"]
    assert (first["id"], first["subject"], first["subject_source"]) == (
        "facts-1",
        "Australia",
        "given",
    )
    assert first["prompt_tokens"] > 0 and first["known"] is False and 0 <= first["probability"] <= 1
    documented = Report.to_dict.__doc__
    keys = {*found, *first, *found["notes"][0], *found["notes"][0]["items"][0]}
    assert [key for key in keys if f"``{key}``" not in documented] == []
    bare = json.loads(editbench("facts", "facts.csv", "--model", "none", "--json").out)
    assert bare["model"] is None and bare["facts"][0]["known"] is None
    assert bare["facts"][0].keys() == first.keys()


def test_what_the_model_knows_is_said(here, model):
    from editbench import load_model

    prompt = fact(0)["prompt"]
    own = load_model(str(model)).generate(prompt, max_new_tokens=16).split("\n")[0].strip()
    write_facts(here / "facts.jsonl", [fact(0, target=own), fact(1)])
    said = editbench("facts", "facts.jsonl", "--model", model)
    assert said.code == 0 and "    1  already known to the model" in said.out
    assert "(known)" in said.out


def test_other_names_of_columns_are_kept_in_the_next_command(here):
    (here / "facts.csv").write_text("question,reply\nWho wrote Hamlet?,Ada Lind\n")
    names = ("--prompt-column", "question", "--target-column", "reply")
    said = editbench("facts", "facts.csv", *names, "--model", "none")
    assert said.code == 0, said.err
    assert f"editbench facts facts.csv {' '.join(names)} --write-probes" in said.out
    # the drafts have the usual names, and give the subjects that were found
    assert "editbench compare --facts facts-probes.csv\n" in said.out


def test_a_file_that_cannot_be_used_is_one_sentence(here, model):
    for arguments, part in [
        (("nosuch.csv",), "does not exist"),
        (("facts.csv", "--model", "nosuch-model"), "nosuch-model"),
        (("facts.csv", "--model", model, "--layout", "layers"), "has no '='"),
    ]:
        (here / "facts.csv").write_text(HEADER + GOOD)
        said = editbench("facts", *arguments, "--json")
        assert said.code == 2 and said.out == "" and part in said.err, said
        assert len(said.err.strip().splitlines()) == 1


def test_without_a_model_the_command_loads_no_torch(here):
    (here / "facts.csv").write_text(HEADER + GOOD)
    code = (
        "import sys\nsys.argv = ['editbench', 'facts', 'facts.csv', '--model', 'none']\n"
        "from editbench.cli import main\ntry: main()\nexcept SystemExit as stop: print(stop.code)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
