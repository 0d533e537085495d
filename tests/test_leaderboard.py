"""The leaderboard: golden page, bold, escape, refusal to mix."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

from editbench.errors import RecordError
from editbench.leaderboard.markdown import DEFINITIONS, escape, render
from editbench.leaderboard.rows import ahead, harmonic_mean, row, rows
from editbench.records import RunStore


def metric(mean, low, high, protocol="generation", n=50):
    return {"mean": mean, "low": low, "high": high, "n": n, "clusters": n, "protocol": protocol}


def axes(efficacy, generalization, specificity):
    named = {"efficacy": efficacy, "generalization": generalization, "specificity": specificity}
    return {
        axis: {"generation": metric(*values), "likelihood": metric(*values, "likelihood")} for axis, values in named.items()
    }


def task(base, mean, delta, delta_low, delta_high, name="acc"):
    return {
        "base": base,
        "mean": mean,
        "delta": delta,
        "ratio": mean / base,
        "low": mean - 0.1,
        "high": mean + 0.1,
        "n": 100,
        "delta_low": delta_low,
        "delta_high": delta_high,
        "metric": name,
    }


def summary(method, key=None, **changes):
    return {
        "schema": 1,
        "key": key or method,
        "method": method,
        "options": {},
        "tuned": True,
        "model": {"name": "tiny", "hash": "a" * 64, "precision": "float32"},
        "corpus": {"name": "local", "hash": "b" * 64, "part": "test", "n": 50, "form": "cloze"},
        "regime": "batch",
        "seed": 0,
        "status": "done",
        "note": "",
        "metrics": axes((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), (0.9, 0.8, 1.0)),
        "retention": {"arc": task(0.5, 0.45, -0.05, -0.1, 0.0)},
        "seconds": {"inject": 12.34, "precompute": 0, "probes": 5, "retention": 9, "total": 30},
        "peak_memory_bytes": 3 * 2**29,
        "environment": {"platform": "x", "cpu_count": 2},
        "edit": {},
        **changes,
    }


def base():
    metrics = axes((0.0, 0.0, 0.07), (0.0, 0.0, 0.07), (1.0, 0.93, 1.0))
    retention = {"arc": task(0.5, 0.5, 0.0, 0.0, 0.0)}
    return summary("base", metrics=metrics, retention=retention, seconds={"inject": 0.0}, tuned=False, peak_memory_bytes=2**20)


def write(path, *summaries, **config):
    with RunStore(path).open({"methods": [s["method"] for s in summaries], **config}) as store:
        for one in summaries:
            store.write_cell(one["key"], one, {})
    return path


GOLDEN = f"""\
# Leaderboard

```sh
editbench leaderboard run
```

## tiny · local (test, n = 50) · batch

n = 50 cases (cloze) · protocol generation · seed 0 · precision float32 · at most 100 retention samples a task · model \
aaaaaaaaaaaa · corpus bbbbbbbbbbbb

| Method | Efficacy ↑ | Generalization ↑ | Specificity ↑ | Retention ↑ | Score ↑ | Seconds | Peak memory |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| [mixsd](run/cells/k1/summary.json) † | 0.80 [0.70, 0.90] | 0.50 [0.40, 0.60] | 0.90 [0.80, 1.00] | 0.90 | 0.73 | 12.3 + 40.0 | 1.5 GiB |
| [base](run/cells/base/summary.json) | 0.00 [0.00, 0.07] | 0.00 [0.00, 0.07] | 1.00 [0.93, 1.00] | 1.00 | 0.00 | 0.0 | 1 MiB |

- † not tuned: its hyper-parameters were not searched for on the dev slice.

### Retention by task: change against the base, paired ↑

| Method | arc (acc, n = 100) |
| --- | ---: |
| [mixsd](run/cells/k1/summary.json) † | -0.05 [-0.10, +0.00] |
| [base](run/cells/base/summary.json) | scores 0.50 [0.40, 0.60] |

### Protocol likelihood: is the target more probable than the old answer?

Not comparable with the table above, and ranked apart from it.

| Method | Efficacy ↑ | Generalization ↑ | Specificity ↑ |
| --- | ---: | ---: | ---: |
| [mixsd](run/cells/k1/summary.json) † | 0.80 [0.70, 0.90] | 0.50 [0.40, 0.60] | 0.90 [0.80, 1.00] |
| [base](run/cells/base/summary.json) | 0.00 [0.00, 0.07] | 0.00 [0.00, 0.07] | 1.00 [0.93, 1.00] |

## What the columns mean

{DEFINITIONS}
"""  # noqa: E501


def test_golden_page(tmp_path):
    seconds = {"inject": 12.34, "precompute": 40.0}
    run = write(tmp_path / "run", base(), summary("mixsd", "k1", tuned=False, seconds=seconds), limit=100)
    assert render([run], tmp_path / "README.md", "editbench leaderboard run") == GOLDEN


def line(page, label):
    return next(text for text in page.splitlines() if text.startswith(f"| [{label}]"))


def test_bold_only_where_intervals_separate(tmp_path):
    low, high = (0.3, 0.2, 0.4), (0.9, 0.8, 1.0)
    run = write(
        tmp_path / "run",
        base(),
        summary("ice", metrics=axes((1.0, 0.95, 1.0), high, high)),
        summary("mixsd", metrics=axes(high, high, high)),
        summary("sft", metrics=axes(low, (0.7, 0.6, 0.8), high), retention={"arc": task(0.5, 0.2, -0.3, -0.4, -0.2)}),
    )
    page = render([run], tmp_path / "README.md")
    # 0.80 does not lie above 0.80; ice and base are never bold and bar nobody.
    assert re.findall(r"\*\*(\S+) \[", line(page, "mixsd")) == ["0.90"]
    assert page.count("**0.90 [0.80, 1.00]**") == 2  # once under each protocol
    assert "**-0.05 [-0.10, +0.00]**" in page and "**" not in line(page, "ice") + line(page, "base") + line(page, "sft")


def test_nothing_is_bold_without_a_rival():
    one, blank = metric(0.9, 0.8, 1.0), metric(None, None, None)
    assert not ahead(one, [blank]) and not ahead(one, [])
    assert ahead(one, [metric(0.5, 0.4, 0.6), blank])
    assert not ahead(one, [metric(0.5, None, None)])
    assert not ahead(metric(0.9, None, None), [metric(0.1, 0.0, 0.2)])


def test_base_is_last_and_score_ranks():
    weak = summary("sft", metrics=axes((0.9, 0.8, 1), (0.1, 0, 0.2), (0.9, 0.8, 1)))
    failed = summary("memit", status="failed", metrics={}, retention={}, seconds={}, peak_memory_bytes=None)
    ranked = rows([base(), failed, weak, summary("mixsd")])
    assert [r["method"] for r in ranked] == ["mixsd", "sft", "memit", "base"]
    assert ranked[2]["score"] is None and ranked[2]["efficacy"]["mean"] is None and ranked[2]["retention_mean"] is None


def test_row_has_the_shape_of_the_contract():
    found = row(summary("mixsd", options={"lam": 0.5}))
    assert found["efficacy"] == {"mean": 0.8, "low": 0.7, "high": 0.9, "n": 50, "protocol": "generation"}
    assert found["retention"]["arc"]["delta"] == -0.05 and found["retention_mean"] == 0.9 and found["retention_tasks"] == 1
    assert (found["seconds"], found["peak_memory_bytes"], found["status"]) == (12.34, 3 * 2**29, "done")
    assert found["score_of"] == ["efficacy", "generalization", "specificity", "retention_mean"]
    assert found["score"] == pytest.approx(4 / (1 / 0.8 + 1 / 0.5 + 1 / 0.9 + 1 / 0.9))


def test_score_leaves_out_what_is_missing_and_says_so(tmp_path):
    one = summary("mixsd", retention={})
    one["metrics"]["generalization"]["generation"] = metric(None, None, None, n=0)
    assert row(one)["score_of"] == ["efficacy", "specificity"]
    page = render([write(tmp_path / "run", base(), one)], tmp_path / "README.md")
    assert " ‡ |" in line(page, "mixsd") and "‡ the score leaves out" in page and "| – |" in line(page, "mixsd")


def test_harmonic_mean():
    assert harmonic_mean([]) is None and harmonic_mean([0.5, 0]) == 0 and harmonic_mean([-1, 0.5]) == 0
    assert harmonic_mean([1.3, 1.0]) == 1 and harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": 1}, r"Row 2 \(sft\) with seed 1 cannot share a ranking with seed 0"),
        ({"regime": "single"}, "regime"),
        ({"model": {"name": "big", "hash": "a" * 64, "precision": "float32"}}, 'model "big"'),
        ({"corpus": {"name": "zsre"}}, "Row 2 .*corpus"),
        ({"retention": {"mmlu": task(0.5, 0.4, -0.1, -0.2, 0.0)}}, "retention tasks"),
        ({"metrics": {"efficacy": {"likelihood": metric(1, 1, 1, "likelihood")}}}, "protocol .*likelihood.*generation"),
        ({"metrics": {"efficacy": {"generation": metric(1, 1, 1, "argmax")}}}, "protocol .*argmax.*generation"),
    ],
)
def test_mixtures_are_refused(change, text):
    with pytest.raises(RecordError, match=text):
        rows([summary("mixsd"), summary("sft", **change), summary("rome")])


def test_wrong_protocol_is_named_even_if_all_share_it():
    with pytest.raises(RecordError, match=r"Rows 1 \(a\) and 2 \(b\)"):
        rows([summary("a", metrics={"efficacy": {"likelihood": {}}}), summary("b", metrics={"efficacy": {"likelihood": {}}})])


def test_settings_become_separate_tables(tmp_path):
    one = write(tmp_path / "one", base(), summary("mixsd"), limit=10)
    two = write(tmp_path / "two", summary("mixsd", "k2", seed=1), limit=10)
    three = write(tmp_path / "three", summary("mixsd", "k3"), limit=20)
    page = render([one, two, three], tmp_path / "README.md")
    assert page.count("## tiny · local") == 3 and page.count("| base | – |") == 2
    assert "scores 0.50 |" in page  # known from the other rows


def test_one_cell_in_two_runs_is_one_row(tmp_path):
    one, two = (write(tmp_path / name, base(), summary("mixsd")) for name in ("one", "two"))
    assert render([one, two], tmp_path / "README.md").count("[mixsd](one/") == 3
    assert "two/" not in render([one, two], tmp_path / "README.md")


def test_failed_and_ineffective_cells_stay_visible(tmp_path):
    failed = summary("memit", status="failed", note="no subject in\nfact | 3", metrics={}, retention={}, seconds={})
    page = render([write(tmp_path / "run", base(), failed, summary("sft", status="no_effect"))], tmp_path / "README.md")
    assert "(failed)" in line(page, "memit") and "(no effect)" in line(page, "sft")
    assert "- memit: failed. no subject in fact &#124; 3" in page


def test_rows_of_one_method_are_told_apart_by_their_options():
    cells = [summary("mixsd", str(i), options={"lam": lam, "steps": 9}) for i, lam in enumerate((0.5, 0.7))]
    assert sorted(r["label"] for r in rows([*cells, summary("sft", options={"steps": 3})])) == [
        "mixsd (lam=0.5)",
        "mixsd (lam=0.7)",
        "sft",
    ]


def test_only_likelihood_becomes_the_headline(tmp_path):
    one = summary("mixsd")
    for found in one["metrics"].values():
        del found["generation"]
    page = render([write(tmp_path / "run", one)], tmp_path / "README.md")
    assert "protocol likelihood" in page and "### Protocol likelihood" not in page and "0.80 [0.70, 0.90]" in page


def test_different_machines_are_said(tmp_path):
    run = write(tmp_path / "run", base(), summary("mixsd", environment={"platform": "y", "cpu_count": 8}))
    assert "seconds and memory cannot be compared" in render([run], tmp_path / "README.md")


NASTY = [
    "a|b",
    "a\\|b",
    "<script>x</script>",
    "a\nb\r\nc\u2028d",
    "](http://x)",
    "**bold** `code` _it_ ~~no~~",
    "&amp; $x$",
    None,
]


@pytest.mark.parametrize("name", NASTY)
def test_names_cannot_break_the_table(name):
    text = escape(name)
    assert not re.search(r"[\n\r\u2028|<>]", text)
    plain = html.unescape(re.sub(r"\\([\\`*_\[\]~$])", r"\1", text))
    assert plain == ("–" if name is None else " ".join(name.split()))


def test_nasty_names_keep_every_line_of_every_table_whole(tmp_path):
    cells = [
        summary(f"m{i} {name}", f"k{i}", retention={f"t {name}": task(0.5, 0.4, -0.1, -0.2, 0)}) for i, name in enumerate(NASTY)
    ]
    for i, cell in enumerate(cells):
        cell["model"] = {**cell["model"], "name": NASTY[i]}
        page = render([write(tmp_path / f"run {i} (|)", cell)], tmp_path / "README.md", "echo ```\n")
        widths = [text.count("|") for text in page.splitlines() if text.startswith("|")]
        assert sorted(set(widths)) == [3, 5, 9] and page.count("\n## ") == 2
        assert f"(run%20{i}%20%28%7C%29/cells/k{i}/summary.json)" in page and "````sh" in page


def test_links_lead_from_the_page_to_the_record(tmp_path):
    run = write(tmp_path / "runs" / "one", base())
    output = tmp_path / "docs" / "deep" / "README.md"
    link = re.search(r"\[base\]\((\S+)\)", render([run], output)).group(1)
    assert link == "../../runs/one/cells/base/summary.json"
    output.parent.mkdir(parents=True)
    assert (output.parent / Path(link)).is_file()


def test_no_run_is_said(tmp_path):
    with pytest.raises(RecordError, match="at least one run"):
        render([], tmp_path / "README.md")
    with pytest.raises(RecordError, match="no run folder"):
        render([tmp_path / "none"], tmp_path / "README.md")


def test_no_torch():
    script = (
        "import sys, editbench.leaderboard.markdown; print(sorted({'torch', 'lm_eval', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"
