"""The pages of ``editbench site`` as files: what is in them, and what they allow a browser."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml
from tiny import editbench
from written import probe, sample, write_hostile, write_run

from editbench.leaderboard import website
from editbench.leaderboard.answers import probe_rule
from editbench.leaderboard.columns import VIEWS

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "leaderboard" / "results" / "smollm2-135m_demo-counterfact_n50"


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text)


def scripts_of(page):
    return re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)


@pytest.fixture(scope="module")
def published():
    return website.pages([PUBLISHED], {"memit": "weight editor"}, "editbench site", "1.2")


def test_a_table_has_the_numbers_of_the_markdown_page(published):
    (section,) = data_of(published["index.html"])["sections"]
    page = (ROOT / "leaderboard" / "README.md").read_text(encoding="utf-8")
    assert list(section["protocols"]) == ["generation", "argmax", "likelihood"]
    for protocol, board in section["protocols"].items():
        assert {row["label"] for row in board["rows"]} == {"base", "ice", "memit", "mixsd", "sft"}
        assert board["rows"][-1]["base"]
        for column in board["columns"]:
            assert column["about"] and column["view"] in VIEWS, column
            assert column["better"] == ("low" if "↓" in column["title"] else column["better"])
            # The markdown page has the score of the first protocol alone.
            of_page = protocol == "generation" or column["id"] != "score"
            if of_page and column["view"] in ("scores", "tasks", "more"):
                for row in board["rows"]:
                    text = row["values"].get(column["id"], {"text": "–"})["text"]
                    assert f" {text} " in page.replace("**", "").replace("|", " "), (column, text)


def test_every_text_behind_a_share_is_there(published):
    (section,) = data_of(published["index.html"])["sections"]
    texts = data_of(published[section["texts"]])
    for row in section["protocols"]["generation"]["rows"]:
        answers = texts["answers"][row["key"]]
        assert len(answers) == 429 + 800
        for axis, metric in (("rewrite", "efficacy"), ("task:eb_grammar", None)):
            mine = [one for one in answers if texts["questions"][one[0]]["what"] == axis]
            right = sum(one[2] == "right" for one in mine) / len(mine)
            if metric:
                assert right == pytest.approx(row["values"][metric]["mean"])
        assert all(texts["rules"][one[3]] for one in answers)
    earlier = [rule for rule in texts["rules"] if "earlier version" in rule]
    assert not earlier, "the published scores and this matcher disagree"


def test_only_its_own_scripts_may_run(published):
    for page in published.values():
        (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)">', page)
        policy = policy.replace("&#39;", "'")
        allowed = re.findall("'sha256-(.*?)'", policy)
        hashed = [
            base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
            for code in scripts_of(page)
        ]
        assert allowed == hashed and policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe-inline" not in policy.split("style-src")[0] and "http" not in policy
        assert not re.search(r'(src|href)="https?:', page) and "sourceMappingURL" not in page


def test_hostile_texts_stay_data(tmp_path):
    made = website.pages([write_hostile(tmp_path / "hostile")], {}, "<script>", "1")
    assert len(made) == 2
    for page in made.values():
        assert page.count("</script>") == len(scripts_of(page)) + 1
        assert "<script>alert" not in page and "<img" not in page and "<h1>owned" not in page
        assert all(c.isprintable() or c == "\n" for c in page.split('id="data">')[0])
    assert "<script>alert(1)</script>" in json.dumps(data_of(made["index.html"]))


def test_the_libraries_are_those_that_are_named():
    """Their versions are in their files, or in the hashes of the published packages."""
    folder = website.FOLDER / "vendor"
    table = (folder / "README.md").read_text(encoding="utf-8")
    for script in website.VENDOR:
        name = Path(script).name
        assert f"| `{name}` |" in table and (folder / f"{name.split('.')[0]}.LICENSE").is_file()
    d3 = (folder / "d3.min.js").read_text(encoding="utf-8")[:80]
    version = re.search(r"\| `d3` \| ([\d.]+)", table)[1]
    assert f"v{version}" in d3
    assert sum(file.stat().st_size for file in folder.iterdir()) < 600_000


def test_the_citation_is_that_of_the_repository():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["title"] in website.CITATION and cited["authors"][0]["name"] in website.CITATION


def test_runs_of_different_facts_get_tables_of_their_own(tmp_path):
    one = write_run(
        tmp_path / "one", {"sft": ([probe("a", 0, "rewrite", "Rome", "", 1.0)], [], [])}
    )
    made = website.pages([PUBLISHED, one], {}, "", "1")
    sections = data_of(made["index.html"])["sections"]
    assert [section["facets"]["corpus"] for section in sections] == ["demo-counterfact", "local"]
    assert len(made) == 3 and len({section["id"] for section in sections}) == 2


def test_without_texts_a_sentence_says_so(tmp_path):
    answered = ([probe("a", 0, "rewrite", "Rome", "", 1.0)], [sample(0, "red", 0.0)], [])
    run = write_run(
        tmp_path / "run", {"sft": answered}, retention={"arc": {"mean": 0.0, "base": 1.0, "n": 1}}
    )
    for name in ("probes", "retention"):
        (run / f"cells/sft-0/{name}.parquet").unlink()
    said = editbench("site", run, "-o", tmp_path / "site")
    assert said.code == 0 and "probes.parquet is missing" not in said.out
    (section,) = data_of((tmp_path / "site/index.html").read_text(encoding="utf-8"))["sections"]
    assert any("Not all texts of sft are here" in note for note in section["notes"])
    assert not section["protocols"]["generation"]["rows"][0]["texts"]
    said = editbench("show", run, "--html", tmp_path / "x.html")
    assert said.code == 2 and "it has no texts" in said.err and "Traceback" not in said.err


@pytest.mark.parametrize(
    ("output", "said"),
    [("cells/x", "lies among the records"), ("run.json", "cannot be written")],
)
def test_a_place_that_is_taken_is_refused(tmp_path, output, said):
    run = write_run(tmp_path / "run", {"sft": ([], [], [])})
    found = editbench("site", run, "-o", run / output)
    assert found.code == 2 and said in found.err and "Traceback" not in found.err


def test_no_run_is_refused(tmp_path):
    found = editbench("site", tmp_path, "-o", tmp_path / "site")
    assert found.code == 2 and "is not a run folder" in found.err
    assert not (tmp_path / "site").exists()


# --- the rule behind a verdict ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (probe("a", 0, "rewrite", "It is Rome.", "", 1.0), "states “Rome” as whole words"),
        (probe("a", 0, "paraphrase", "Romeo", "", 0.0), "does not state “Rome” as whole"),
        (probe("a", 0, "rewrite", "not Rome", "", 0.0, denied=True), "only to deny"),
        (probe("a", 0, "rewrite", "Oslo", "", 1.0), "earlier version of the matcher"),
        (probe("a", 0, "neighborhood", "Rome!", "in Rome", 1.0), "both answers state “Rome”"),
        (probe("a", 0, "neighborhood", "Oslo, yes", "Oslo", 1.0), "clause is still “oslo”"),
        (probe("a", 0, "neighborhood", "Bern", "Oslo", 0.0), "was “oslo” and is “bern”"),
        (probe("a", 0, "distracted", "Bern", "Oslo", 0.0, target_leaked=True), "edit's target"),
        (probe("a", 0, "denial", "No.", "", 1.0), "denies the fact"),
        (probe("a", 0, "reversion", "", "", None), "Not asked"),
        (probe("a", 0, "reversion", "Yes.", "", 0.0), "stands by"),
        (probe("a", 0, "fluency", "la la", "", 4.5), "4.50 bits"),
        (probe("a", 0, "rewrite", "x", "", None), "see the other protocols"),
    ],
)
def test_the_rule_behind_a_verdict(row, rule):
    assert rule in probe_rule(row)
