"""The leaderboard: golden page, bold, escape, refusal to mix."""

import html
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from editbench import console
from editbench.errors import RecordError
from editbench.leaderboard.markdown import DEFINITIONS, escape, render
from editbench.leaderboard.plots import retention_half, trade_off
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


def with_more(one, **more):
    found = {name: {"generation": metric(*values)} for name, values in more.items()}
    return {**one, "metrics": {**one["metrics"], **found}}


def test_metrics_by_kind_of_probe_have_a_table_of_their_own(tmp_path):
    more = {"portability": (0.5, 0.4, 0.6), "portability/a|b_": (0.25, 0.1, 0.4)}
    cells = [base(), with_more(summary("mixsd"), **more), summary("sft", status="failed", metrics={})]
    page = render([write(tmp_path / "run", *cells)], tmp_path / "README.md")
    table = page.split("### By kind of probe ↑\n\n")[1].split("\n\n")[0].splitlines()
    assert table[0] == "| Method | portability/a&#124;b\\_ (n = 50) |"
    assert {line.split("](")[0]: line.split("|")[-2].strip() for line in table[2:]} == {
        "| [mixsd": "0.25 [0.10, 0.40]", "| [base": "–", "| [sft": "–",
    }  # fmt: skip
    assert "By kind" not in render([write(tmp_path / "plain", base(), summary("mixsd"))], tmp_path / "README.md")


def test_portability_and_in_context_have_columns_where_a_row_has_them(tmp_path):
    cells = [base(), with_more(summary("mixsd"), portability=(0.3, 0.2, 0.4)), summary("sft")]
    plain = rows([base(), summary("mixsd"), summary("sft")])
    assert not any("portability" in one or "in_context" in one for one in plain)
    ranked = rows(cells)
    assert [one["portability"]["mean"] for one in ranked] == [0.3, None, None]
    assert [(one["score"], one["score_of"]) for one in ranked] == [(one["score"], one["score_of"]) for one in plain]
    page = render([write(tmp_path / "run", *cells)], tmp_path / "README.md")
    assert "Specificity ↑ | Portability ↑ | Retention ↑" in page and "In-context ↑" not in page
    assert "Neither enters the score" in page and "| 0.30 [0.20, 0.40] |" in line(page, "mixsd")
    likelihood = page[page.index("### Protocol likelihood") :]
    assert "Portability ↑" not in likelihood, "no probe names a second answer"

    both = with_more(summary("mixsd"), portability=(0.9, 0.8, 1.0), in_context=(0.3, 0.2, 0.4))
    both["metrics"]["portability"]["likelihood"] = metric(0.6, 0.5, 0.7, "likelihood")
    weak = with_more(summary("sft"), portability=(0.1, 0.0, 0.2))
    page = render([write(tmp_path / "two", both, weak)], tmp_path / "README.md")
    assert "Portability ↑ | In-context ↑ | Retention ↑" in page and "**0.90 [0.80, 1.00]**" in line(page, "mixsd")
    likelihood = page[page.index("### Protocol likelihood") :]
    assert "Specificity ↑ | Portability ↑ |\n" in likelihood and "0.60 [0.50, 0.70]" in likelihood


def test_more_under_generation_has_a_table_of_its_own_and_no_part_in_the_score(tmp_path):
    cells = [
        base(),
        with_more(summary("mixsd"), denial=(0.25, 0.1, 0.4), distracted=(0.5, 0.4, 0.6), fluency=(5.12, 5.0, 5.2)),
        summary("sft", status="failed", note="no", metrics={}, retention={}),
    ]
    plain = rows([base(), summary("mixsd")])
    ranked = rows(cells)
    assert [(r["method"], r["score"]) for r in ranked[:1]] == [(r["method"], r["score"]) for r in plain[:1]]
    page = render([write(tmp_path / "run", *cells)], tmp_path / "README.md")
    second = page[page.index("### More under generation") : page.index("### Protocol")]
    assert "| Method | Distracted ↑ | Denial ↓ | Fluency ↑ |" in second and "Reversion" not in page
    assert line(second, "mixsd").endswith("| 0.50 [0.40, 0.60] | 0.25 [0.10, 0.40] | 5.12 [5.00, 5.20] |")
    assert line(second, "base").endswith("| – | – | – |") and line(second, "sft").endswith("| – | – | – |")
    assert "Denial" not in page[: page.index("### More under generation")]
    assert "More under generation" not in render([write(tmp_path / "old", base(), summary("mixsd"))], tmp_path / "README.md")


def test_judged_scores_are_ranked_apart_and_two_judges_never_together(tmp_path):
    def judged(name, key, by):
        one = {**summary(name, key), "judge": {"model": by, "judged": 3, "not_judged": 0, "reason": ""}}
        one["metrics"]["efficacy"]["judge"] = metric(0.4, 0.3, 0.5, "judge")
        return one

    page = render([write(tmp_path / "run", judged("mixsd", "a", "one"))], tmp_path / "README.md")
    table = page[page.index("### Protocol judge") :]
    assert "ranked apart" in table and "| 0.40 [0.30, 0.50] |" in line(table, "mixsd")
    with pytest.raises(RecordError, match="judge"):
        rows([judged("mixsd", "a", "one"), judged("sft", "b", "two")])


def test_the_terminal_cuts_no_number_off(capsys):
    name = "mixsd@lam=0.3,lr=1e-5,epochs=14,batch_size=8"
    one = with_more(summary(name), portability=(0.9, 0.8, 1), in_context=(0.3, 0.2, 0.4))
    page, (table, *_) = console.out(), console.results(rows([base(), one]))
    console.fit(page, table)
    page.print(table)
    shown = capsys.readouterr().out
    assert "In-context ↑" in shown and "0.30 [0.20, 0.40]" in shown and "1.5 GiB" in shown and "…" not in shown


def test_variants_are_rivals_and_those_of_ice_are_not(tmp_path):
    low, high = (0.3, 0.2, 0.4), (0.9, 0.8, 1.0)
    cells = [
        summary("ice@k", "i", metrics=axes((1.0, 0.95, 1.0), high, high), tuned=False),
        summary("mixsd@a", "a", metrics=axes(high, high, high)),
        summary("mixsd@b", "b", metrics=axes(low, high, high)),
    ]
    page = render([write(tmp_path / "run", *cells)], tmp_path / "README.md")
    assert "**0.90 [0.80, 1.00]**" in line(page, "mixsd@a")
    assert "**" not in line(page, "ice@k") and "†" not in line(page, "ice@k")


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


# --- the picture --------------------------------------------------------------------------------------------


def kept(*ratios, half=0.1):
    """Retention of as many tasks, each with an interval of that half-width."""
    ends = [{"ratio_low": one - half, "ratio_high": one + half} for one in ratios]
    return {f"t{i}": {**task(0.5, 0.5 * one, 0, 0, 0), **ends[i]} for i, one in enumerate(ratios)}


def test_the_interval_of_mean_retention_is_combined_from_the_tasks():
    one = row(summary("mixsd", retention=kept(0.9, 0.7)))
    assert one["retention_mean"] == pytest.approx(0.8) and retention_half(one) == pytest.approx(0.1 * 2**0.5 / 2)
    assert retention_half(row(summary("mixsd", retention=kept(0.9)))) == pytest.approx(0.1)
    lacking = kept(0.9, 0.7)
    lacking["t1"]["ratio_low"] = None
    assert math.isnan(retention_half(row(summary("mixsd", retention=lacking)))) and math.isnan(retention_half(row(base())))


def swept(method, label, mean, *ratios, **changes):
    scores = axes((mean, mean - 0.1, mean + 0.1), (mean / 2, mean / 2 - 0.1, mean / 2 + 0.1), (1, 0.9, 1))
    name = f"{method}@{label}" if label else method
    return summary(name, f"{method}{label}".replace("$", ""), metrics=scores, retention=kept(*ratios), **changes)


def test_the_picture_shows_every_method_and_point(tmp_path):
    reference = {**base(), "retention": kept(1.0, 1.0)}
    one = write(tmp_path / "one", reference, swept("mixsd", "lam=0", 0.9, 0.6, 0.7), swept("mixsd", "lam=$1$", 0.4, 0.9, 1.0))
    two = write(tmp_path / "two", reference, swept("sft", "", 0.7, 0.4, 0.5), summary("rome", metrics={}, retention={}))
    png, svg = trade_off([one, two], tmp_path / "deep" / "picture.png")
    assert (png, svg) == (tmp_path / "deep" / "picture.png", tmp_path / "deep" / "picture.svg")
    assert png.read_bytes()[:4] == b"\x89PNG"
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())
    assert {"base", "mixsd", "sft"} <= set(texts) and texts.count("base") == 1 and "rome" not in texts
    assert texts.count("lam=0") == texts.count("lam=$1$") == 2, "once in each panel"
    assert any(text.startswith("efficacy") for text in texts) and any(text.startswith("generalization") for text in texts)
    assert "tiny, local (test), n = 50, protocol generation" in texts
    assert any("2 tasks" in text for text in texts)
    before = svg.read_bytes()
    assert trade_off([one, two], png) and svg.read_bytes() == before, "the same file each time"


def test_variants_are_joined_in_the_order_of_the_run(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    lines, crosses = [], []
    plot, errorbar = Axes.plot, Axes.errorbar
    monkeypatch.setattr(Axes, "plot", lambda self, x, y, **kw: (lines.append((list(x), list(y))), plot(self, x, y, **kw))[1])
    monkeypatch.setattr(
        Axes, "errorbar", lambda self, x, y, *a, **kw: (crosses.append((x, y, a[0])), errorbar(self, x, y, *a, **kw))[1]
    )
    points = [swept("mixsd", f"lam={i}", x, y) for i, (x, y) in enumerate([(0.9, 0.5), (0.3, 0.8), (0.6, 0.9)])]
    reference = {**base(), "retention": kept(1.0)}
    run = write(tmp_path / "run", reference, swept("mixsd", "", 0.5, 0.7), *points)
    trade_off([run], tmp_path / "picture.png")
    joined = [line for line in lines if line[0]]
    assert joined[0] == ([0.9, 0.3, 0.6], pytest.approx([0.5, 0.8, 0.9])) and len(joined) == 2, "not through the plain method"
    x, y, half = crosses[0]
    assert (x, y) == (0.0, 1.0) and math.isnan(half), "the base stands at its efficacy and 1"
    assert crosses[1][:2] == (0.5, pytest.approx(0.7)) and crosses[1][2] == pytest.approx(0.1)


def test_points_along_one_training_are_one_line(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    lines, plot = [], Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, x, y, **kw: (lines.append(list(x)), plot(self, x, y, **kw))[1])
    found = {(1e-5, 1): 0.4, (1e-5, 0.5): 0.2, (1e-4, 1): 0.9, (1e-4, 0.5): 0.6}
    points = [
        swept("sft", f"{lr}-{share}", x, 0.5, options={"lr": lr, "stop_after": share}) for (lr, share), x in found.items()
    ]
    trade_off([write(tmp_path / "run", *points)], tmp_path / "picture.png")
    assert [line for line in lines if line][:2] == [[0.2, 0.4], [0.6, 0.9]], "by the share of the steps, not by the run's order"


def test_crowded_labels_are_left_out(tmp_path):
    cells = [swept("mixsd", f"lam={i}", 0.5, 0.7) for i in range(20)]
    _, svg = trade_off([write(tmp_path / "run", *cells)], tmp_path / "picture.png")
    assert 2 <= svg.read_text().count(">lam=") < 20


def test_what_cannot_be_drawn_together(tmp_path):
    one = write(tmp_path / "one", swept("mixsd", "a", 0.9, 0.5), limit=10)
    other = write(tmp_path / "other", swept("mixsd", "b", 0.9, 0.5), limit=20)
    corpus = {"name": "zsre", "hash": "b" * 64, "part": "test", "n": 50, "form": "cloze"}
    zsre = write(tmp_path / "zsre", swept("mixsd", "c", 0.9, 0.5, corpus=corpus), limit=10)
    blank = write(tmp_path / "blank", summary("sft", metrics={}, retention={}))
    for runs, text in [([one, other], "retention limit 20"), ([one, zsre], 'corpus "zsre"'), ([blank], "nothing to draw")]:
        with pytest.raises(RecordError, match=text):
            trade_off(runs, tmp_path / "picture.png")
    assert not list(tmp_path.glob("picture*"))
