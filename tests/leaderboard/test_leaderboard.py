"""The leaderboard: golden page, bold, escape, refusal to mix."""

import html
import io
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from rich.console import Console
from tiny import editbench

from editbench.cli import console, ranking
from editbench.errors import RecordError
from editbench.leaderboard.comparisons import RETENTION, Comparison, Verdicts, items, judge
from editbench.leaderboard.definitions import DEFINITIONS, SEEDS
from editbench.leaderboard.markdown import render
from editbench.leaderboard.plots import trade_off
from editbench.leaderboard.pooling import pooled
from editbench.leaderboard.rows import MORE, harmonic_mean, mixing_note, rivals, row, rows
from editbench.leaderboard.tables import escape
from editbench.records.reading import load_run
from editbench.records.store import RunStore
from editbench.report import MOVED_FAR
from editbench.stats import (
    asked_twice,
    cells_text,
    clustered_mean,
    mean_ratio,
    retained,
    unbounded_mean,
)
from editbench.types import MORE_METRICS


def metric(mean, low, high, protocol="generation", n=50):
    return {"mean": mean, "low": low, "high": high, "n": n, "clusters": n, "protocol": protocol}


def axes(efficacy, generalization, specificity):
    named = {"efficacy": efficacy, "generalization": generalization, "specificity": specificity}
    return {
        axis: {"generation": metric(*values), "likelihood": metric(*values, "likelihood")}
        for axis, values in named.items()
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
    return summary(
        "base",
        metrics=metrics,
        retention=retention,
        seconds={"inject": 0.0},
        tuned=False,
        peak_memory_bytes=2**20,
    )


def write(path, *summaries, **config):
    """A run of cells without tables, or of ``(cell, tables)``."""
    cells = [one if isinstance(one, tuple) else (one, {}) for one in summaries]
    with RunStore(path).open({"methods": [s["method"] for s, _ in cells], **config}) as store:
        for one, tables in cells:
            store.write_cell(one["key"], one, tables)
    return path


def measured(method, efficacy, specificity, kept, seed=0, ids=None, **changes):
    """A cell with its tables: one rewrite and two neighborhood probes a case, scored by the lists.

    ``kept``: documents of task arc, all of which the base gets right.
    """
    ids = ids or range(len(efficacy))
    probes = [
        {"case": f"c{case}", "probe": i, "axis": axis, "generation": float(score)}
        for case, right, kept_ones in zip(ids, efficacy, specificity, strict=True)
        for i, (axis, score) in enumerate(
            [("rewrite", right), *(("neighborhood", one) for one in kept_ones)]
        )
    ]
    documents = [
        {"task": "arc", "member": "arc", "doc_id": i, "score": float(score), "base_score": 1.0}
        for i, score in enumerate(kept)
    ]
    cases = [row["case"] for row in probes if row["axis"] == "neighborhood"]
    scores = [row["generation"] for row in probes if row["axis"] == "neighborhood"]
    metrics = {
        "efficacy": {
            "generation": clustered_mean(list(map(float, efficacy))).to_dict(protocol="generation")
        },
        "specificity": {"generation": clustered_mean(scores, cases).to_dict(protocol="generation")},
    }
    retention = {"arc": {**retained(kept, [1.0] * len(kept)), "metric": "acc"}} if kept else {}
    shown = {
        "metrics": metrics,
        "retention": retention,
        "seed": seed,
        "options": {"seed": seed},
        **changes,
    }
    return summary(method, f"{method}-{seed}", **shown), {
        "probes": probes,
        **({"retention": documents} if kept else {}),
    }


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

- † not tuned: no search on the dev slice chose its hyper-parameters.

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
    run = write(
        tmp_path / "run", base(), summary("mixsd", "k1", tuned=False, seconds=seconds), limit=100
    )
    assert render([run], tmp_path / "README.md", "editbench leaderboard run") == GOLDEN


def line(page, label):
    return next(text for text in page.splitlines() if text.startswith(f"| [{label}]"))


GOOD, POOR = [1] * 20, [1] * 4 + [0] * 16
KEPT, LOST = [[1, 1]] * 20, [[1, 0]] * 10 + [[0, 0]] * 10


def test_bold_is_ahead_of_every_method_by_case(tmp_path):
    run = write(
        tmp_path / "run",
        measured("ice", GOOD, KEPT, [1] * 30),
        measured("mixsd", GOOD, LOST, [1] * 30),
        measured("sft", POOR, LOST, [0] * 30),
        measured("rome", POOR, KEPT, [0] * 30),
    )
    page = render([run], tmp_path / "README.md")
    # mixsd leads in efficacy and retention, rome alone in specificity: ice is a reference and
    # bars nobody.
    assert re.findall(r"\*\*(\S+) \[", line(page, "mixsd")) == ["1.00"]
    assert re.findall(r"\*\*(\S+) \[", line(page, "rome")) == ["1.00"]
    assert "**" not in line(page, "ice") + line(page, "sft") and re.search(
        r"mixsd\]\S+ \| \*\*\+0.00 \[", page
    )
    # 3 pairs in 2 columns; 16 of 20 cases differ, all in one direction
    assert "| mixsd − sft | +0.80, p < 0.001 | +0.00, p 1.000 | +1.00, p < 0.001 |" in page
    assert "for 6 comparisons: efficacy 0." in page and "for 3 comparisons: arc 0." in page
    assert render([run], tmp_path / "README.md") == page, "the same page each time"


def test_overlapping_intervals_may_hide_a_paired_difference(tmp_path):
    # 40 cases; 9 of them are better under one, none worse: the intervals of 0.5 and 0.725 overlap.
    half, more = [1, 0] * 20, [1] * 18 + [1, 0] * 11
    cells = [measured("a", half, [[1, 1]] * 40, []), measured("b", more, [[1, 1]] * 40, [])]
    ranked = rows([one for one, _ in cells])
    low, high = sorted((one["efficacy"] for one in ranked), key=lambda axis: axis["mean"])
    assert low["high"] > high["low"]
    run = write(tmp_path / "run", *cells)
    found = judge(
        rivals(ranked), {one["key"]: items(run, one) for one in load_run(run)[1]}, "generation"
    )
    assert (
        found.ahead("b-0", "efficacy")
        and not found.ahead("a-0", "efficacy")
        and not found.ahead("b-0", "specificity")
    )
    (efficacy, _) = found.comparisons
    assert (efficacy.column, efficacy.difference * (1 if efficacy.one == "b-0" else -1)) == (
        "efficacy",
        0.225,
    )
    assert efficacy.p == pytest.approx(2 * 2 / 2**9, abs=0.005), (
        "9 flips of one sign, two comparisons"
    )


def test_holm_counts_all_pairs_of_the_table(tmp_path):
    def table(*methods):
        run = write(
            tmp_path / str(len(methods)), *(measured(name, eff, KEPT, []) for name, eff in methods)
        )
        summaries = load_run(run)[1]
        return judge(
            rows(summaries), {one["key"]: items(run, one) for one in summaries}, "generation"
        )

    # 7 cases of 20 differ: p = 2 / 128, adjusted for 2, then for 12 comparisons
    two = table(("a", [1] * 20), ("b", [1] * 13 + [0] * 7))
    four = table(
        ("a", [1] * 20),
        ("b", [1] * 13 + [0] * 7),
        ("c", [1] * 13 + [0] * 7),
        ("d", [1] * 13 + [0] * 7),
    )
    assert two.ahead("a-0", "efficacy") and not four.ahead("a-0", "efficacy")
    assert len(four.comparisons) == 12 and four.detectable["efficacy"] > two.detectable["efficacy"]


def test_one_case_could_show_no_difference(tmp_path):
    run = write(
        tmp_path / "one",
        *(measured(name, [score], [[score]], []) for name, score in (("a", 1), ("b", 0))),
    )
    summaries = load_run(run)[1]
    found = judge(rows(summaries), {one["key"]: items(run, one) for one in summaries}, "generation")
    assert found.comparisons and found.detectable == {}


def test_nothing_is_bold_without_tables_or_a_rival(tmp_path):
    cells = [measured("mixsd", GOOD, KEPT, []), measured("sft", POOR, LOST, [])]
    page = render([write(tmp_path / "moved", cells[0], cells[1][0])], tmp_path / "README.md")
    assert (
        "Nothing is bold: methods are compared by their tables, and the records hold none of sft."
        in page
    )
    assert "**1.00" not in page and "Detectable with" not in page
    alone = render([write(tmp_path / "alone", cells[0])], tmp_path / "README.md")
    assert "**1.00" not in alone and "Nothing is bold" not in alone
    (probes,) = (tmp_path / "alone").glob("cells/*/probes.parquet")
    probes.write_bytes(b"PAR1")
    with pytest.raises(RecordError, match="probes.parquet is corrupt"):
        render([tmp_path / "alone"], tmp_path / "README.md")


def test_probes_of_another_cell_are_not_ranked(tmp_path):
    run = write(
        tmp_path / "run", measured("mixsd", GOOD, KEPT, []), measured("memit", POOR, LOST, [])
    )
    (run / "cells" / "mixsd-0" / "probes.parquet").write_bytes(
        (run / "cells" / "memit-0" / "probes.parquet").read_bytes()
    )
    for command in (("leaderboard", run, "-o", tmp_path / "page.md"), ("show", run)):
        said = editbench(*command)
        assert (
            said.code == 2
            and "mixsd-0/probes.parquet is corrupt: it is not the table that was" in said.err
        ), command
    assert not (tmp_path / "page.md").exists()


def seeded(seed, ids, right, **changes):
    facts = {"name": "local", "hash": f"{seed}" * 16, "part": "test", "n": 20, "form": "cloze"}
    return measured("mixsd", right, KEPT, [1, 1, 0, 0] * 5, seed, ids, corpus=facts, **changes)


def test_cells_of_several_seeds_are_one_row(tmp_path):
    more = [1] * 15 + [0] * 5
    runs = [
        write(tmp_path / "zero", seeded(0, range(20), GOOD), limit=20, data="facts.csv"),
        write(
            tmp_path / "one",
            seeded(1, range(10, 30), more, seconds={"inject": 10.0}),
            limit=20,
            data="facts.csv",
        ),
    ]
    page = render(runs, tmp_path / "README.md")
    zero, one = "zero/cells/mixsd-0/summary.json", "one/cells/mixsd-1/summary.json"
    row_of = next(text for text in page.splitlines() if text.startswith("| mixsd"))
    assert (
        row_of.startswith(f"| mixsd (seeds [0]({zero}), [1]({one}))")
        and page.count("\n## tiny") == 1
    )
    ids = [*range(20), *range(10, 30)]
    expected = clustered_mean([*GOOD, *more], ids, [0] * 20 + [1] * 20)
    spread = statistics.stdev([sum(GOOD) / 20, 15 / 20])
    assert (
        expected.clusters == 30
        and f"| {expected.mean:.2f} [{expected.low:.2f}, {expected.high:.2f}] ±{spread:.2f} |"
        in row_of
    )
    kept = retained([1, 1, 0, 0] * 10, [1.0] * 40, [*range(20)] * 2, [0] * 20 + [1] * 20)
    assert (
        f"| -0.50 [{kept['delta_low']:.2f}, {kept['delta_high']:.2f}] (20↓ 0↑) |" in page
        and "| 11.2 |" in row_of
    )
    assert "n = 20 cases a seed (cloze)" in page and "seeds 0, 1 ·" in page and SEEDS in page
    assert f"corpus {'0' * 12}, {'1' * 12}" in page
    assert render(runs[::-1], tmp_path / "README.md") == page


def test_a_seed_from_before_an_option_was_added_is_of_the_same_row(tmp_path):
    older = summary("memit", "memit-0", seed=0, options={"seed": 0, "lam": 3})
    new = {"options": {"seed": 1, "lam": 3, "stop": "nll"}, "left_out": ["stop"]}
    runs = [
        write(tmp_path / str(cell["seed"]), cell)
        for cell in (older, summary("memit", "memit-1", seed=1, **new))
    ]
    assert "| memit (seeds [0]" in render(runs, tmp_path / "README.md")
    assert [row["label"] for row in rows([older, summary("memit", "memit-1", **new)])] == [
        "memit (seed=0)",
        "memit (seed=1)",
    ]


def test_pooled_methods_are_compared_by_case_across_seeds(tmp_path):
    def run(seed, ids):
        facts = {"name": "local", "hash": f"{seed}" * 16, "part": "test", "n": 4, "form": "cloze"}
        cells = (("a", [1] * 4), ("b", [0] * 4))
        return write(
            tmp_path / str(seed),
            *(
                measured(name, right, [[1, 1]] * 4, [], seed, ids, corpus=facts)
                for name, right in cells
            ),
        )

    zero, output = run(0, range(4)), tmp_path / "README.md"
    same, other = (
        render([zero, run(1, range(4))], output),
        render([zero, run(2, range(4, 8))], output),
    )
    # 4 cases: p = 2 / 16, for two comparisons; 8 cases: 2 / 256
    assert re.search(r"\| a − b \| \+1.00, p 0\.2[345]", same) and re.search(
        r"\| a − b \| \+1.00, p 0\.01[4-7]", other
    )


@pytest.mark.parametrize(
    "changes",
    [{"limit": 5}, {"data": "other.csv"}, {"options": {"seed": 1, "lr": 2}}, {"regime": "single"}],
    ids=["limit", "data", "options", "regime"],
)
def test_seeds_under_other_conditions_are_not_pooled(tmp_path, changes):
    config = {
        "limit": 20,
        "data": "facts.csv",
        **{k: v for k, v in changes.items() if k in ("limit", "data")},
    }
    cell, tables = seeded(1, range(20), GOOD)
    cell |= {k: v for k, v in changes.items() if k not in config}
    runs = [
        write(tmp_path / "zero", seeded(0, range(20), GOOD), limit=20, data="facts.csv"),
        write(tmp_path / "one", (cell, tables), **config),
    ]
    page = render(runs, tmp_path / "README.md")
    assert page.count("\n## tiny") == 2 and "(seeds" not in page and SEEDS not in page


@pytest.mark.parametrize(
    "more",
    [
        {"diagnostics": {"drift": {"kl": 0.5}}},
        {"curve": [{"facts": 2, "metrics": {}, "retention": {}}]},
    ],
)
@pytest.mark.parametrize(
    "versions", [{}, {"versions": {"scoring": 4, "method": 1}}], ids=["older", "versions"]
)
def test_a_cell_that_was_measured_again_is_no_second_row(tmp_path, more, versions):
    zero, tables = seeded(0, range(20), GOOD, **versions)
    fuller = {**zero, **more, "key": "fuller"}
    runs = [
        write(tmp_path / str(i), cell)
        for i, cell in enumerate(
            [(zero, tables), (fuller, tables), seeded(1, range(20), GOOD, **versions)]
        )
    ]
    page = render(runs, tmp_path / "README.md")
    seeds = "(seeds [0](1/cells/fuller/summary.json), [1](2/cells/mixsd-1/summary.json))"
    assert page.count("\n## tiny") == 1 and f"| mixsd {seeds}" in page, (
        "pooled, with the fuller one"
    )
    left = "at least as many other measurements: [mixsd-0](0/cells/mixsd-0/summary.json)."
    assert left in page
    alone = render(runs[:2], tmp_path / "README.md")
    assert (
        line(alone, "mixsd").startswith("| [mixsd](1/cells/fuller/summary.json)") and left in alone
    )
    assert "### Diagnostics" in alone or "### Curve" in alone
    other = {**zero, "key": "other", "versions": {**zero.get("versions", {}), "method": 2}}
    assert "(seeds" not in render(
        [*runs, write(tmp_path / "other", (other, tables))], tmp_path / "README.md"
    )


def test_two_cells_of_one_seed_stay_apart(tmp_path):
    other, tables = seeded(0, range(20), GOOD)
    other = {**other, "key": "other", "corpus": {**other["corpus"], "hash": "f" * 16}}
    cells = [seeded(0, range(20), GOOD), (other, tables), seeded(1, range(20), GOOD)]
    runs = [write(tmp_path / f"{i}", cell) for i, cell in enumerate(cells)]
    assert "(seeds" not in render(runs, tmp_path / "README.md")


def test_a_seed_that_failed_fails_its_row(tmp_path):
    failed = {
        "status": "failed",
        "note": "no <subject>",
        "metrics": {},
        "retention": {},
        "seconds": {},
    }
    (bad, _), good = seeded(1, range(20), GOOD), seeded(0, range(20), GOOD)
    mate, lost = (
        (measured("sft", GOOD, KEPT, [1] * 20, s, corpus=c["corpus"]))
        for s, c in ((0, good[0]), (1, bad))
    )
    runs = [write(tmp_path / "zero", good, mate), write(tmp_path / "one", {**bad, **failed}, lost)]
    page = render(runs, tmp_path / "README.md")
    assert "- mixsd: failed. seed 1: no &lt;subject&gt;" in page and page.count("\n## tiny") == 1
    assert re.search(r"\| mixsd \(seeds .*\(failed\) \| – \|", page)


def test_scores_of_drafted_probes_are_marked(tmp_path):
    own = summary("memit")
    drafted = axes((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), (0.9, 0.8, 1.0))
    for axis in ("generalization", "specificity"):
        drafted[f"{axis}/drafted"] = {"generation": metric(0.5, 0.4, 0.6, n=40)}
    run = write(tmp_path / "run", base(), summary("memit", metrics=drafted))
    page = render([run], tmp_path / "page.md")
    assert "| Efficacy ↑ | Generalization ↑ ¶ | Specificity ↑ ¶ |" in page
    assert "(40 of 50 for generalization, 40 of 50 for specificity)" in page
    # The table of another protocol, of which no probe was drafted, has no mark.
    assert page.count("¶") == 3
    shown = editbench("show", run)
    assert "Specificity ↑ ¶" in shown.out and "40 of 50 for specificity" in shown.err
    plain = render([write(tmp_path / "plain", base(), own)], tmp_path / "page.md")
    assert "¶" not in plain


def test_pooled_seeds_leave_out_what_is_of_one_model_and_keep_kinds(tmp_path):
    def cell(seed, ids):
        facts = {"name": "local", "hash": f"{seed}" * 16, "part": "test", "n": 4, "form": "cloze"}
        told = {
            "curve": [{"facts": 2, "metrics": {}, "retention": {}}],
            "trajectory": [{"facts": 2}],
            "work": {"inject": {"passes": 1000 * (seed + 1), "tokens": 10, "gradient_tokens": 0}},
            "peak_process_bytes": (seed + 1) * 2**30,
            "seconds": {"inject": 1.0, "judge": 4.0},
        }
        one, tables = measured(
            "mixsd", [1, 0, 1, 1], [[1, 0]] * 4, [], seed, ids, corpus=facts, **told
        )
        for one_row in tables["probes"]:
            one_row["kind"] = (
                "Forgetfulness" if one_row["probe"] == 2 else "other" if one_row["probe"] else None
            )
        for name, score in (("Forgetfulness", 0.0), ("other", 1.0)):
            one["metrics"][f"specificity/{name}"] = {
                "generation": clustered_mean([score] * 4).to_dict(protocol="generation")
            }
        if seed:  # a kind that the first seed did not draw
            one["metrics"]["specificity/rare"] = {
                "generation": clustered_mean([1.0]).to_dict(protocol="generation")
            }
        return one, tables

    page = render(
        [write(tmp_path / str(seed), cell(seed, range(4 * seed, 4 * seed + 4))) for seed in (0, 1)],
        tmp_path / "README.md",
    )
    kinds = next(
        text for text in page.split("### By kind")[1].splitlines() if text.startswith("| mixsd")
    )
    expected = clustered_mean([0.0] * 8, range(8), [0] * 4 + [1] * 4)
    assert f"| 0.00 [{expected.low:.2f}, {expected.high:.2f}] ±" in kinds and kinds.endswith(
        "| – |"
    ), "half of the seeds is no mean"
    assert "### Curve" not in page, "the curve of one seed is not that of the row"
    cost = page.split("### Cost")[1]
    assert "judge, s" in cost and "| 1,500 |" in cost and "| 2.0 |" in cost


def in_a_sequence(method, first, last, seed=0, ids=None, replaced=(), left=0, **changes):
    """A cell of ``measured`` whose rewrite probes were scored ``first`` right after their chunk."""
    cell, tables = measured(method, last, [[1]] * len(last), [], seed, ids, **changes)
    rewrites = [row for row in tables["probes"] if row["axis"] == "rewrite"]
    tables["right_after"] = [
        {**row, "generation": float(score), "facts": i + 1, "replaced": i in replaced}
        for i, (row, score) in enumerate(zip(rewrites, first, strict=False))
    ]
    kept = [i for i in range(len(first)) if i not in replaced]
    cases = [rewrites[i]["case"] for i in kept]
    scores = [[float(values[i]) for i in kept] for values in (first, last)]
    cell["right_after"] = {
        "facts": len(kept),
        "replaced": len(replaced),
        "not_injected": left,
        "scores": {"efficacy": {"generation": asked_twice(*scores, cases, "generation")}},
    }
    cell["regime"] = "sequential:1"
    return cell, tables


def test_facts_of_a_sequence_are_shown_right_after_their_chunk_and_at_the_end(tmp_path):
    stopped = in_a_sequence("sft", [1, 1], [1, 0, 0, 0], left=2, status="stopped", note="why")
    renewed = in_a_sequence("memit", [1, 1, 1, 0], [0, 1, 1, 1], replaced=(0,))
    old, tables = in_a_sequence("rome", [1] * 4, [1] * 4)
    del old["right_after"], tables["right_after"]
    unedited = in_a_sequence("base", [0] * 4, [0] * 4)
    run = write(tmp_path / "run", unedited, stopped, renewed, (old, tables))
    page = render([run], tmp_path / "page.md")
    table = page.split("### Right after each chunk, and at the end (protocol generation)")[1]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert lines[0] == "| Method | Facts | Metric | Right after | At the end | Change |"
    told = {line.split(" | ")[0]: line.split(" | ")[1:] for line in lines[2:5]}
    assert set(told) == {"| sft", "| memit", "| rome"}, "the base was taught nothing"
    assert told["| sft"][0] == "2 of 4 facts, 2 not injected"
    assert told["| memit"][0] == "3 of 4 facts, 1 replaced"
    assert told["| rome"] == ["not asked right after", "–", "–", "–", "– |"]
    assert told["| sft"][2].startswith("1.00 ") and told["| sft"][3].startswith("0.50 ")
    assert told["| sft"][4].startswith("-0.50 ")
    assert told["| memit"][2].startswith("0.67 ") and told["| memit"][3].startswith("1.00 ")
    assert "Right after is no score of the final model" in table
    shown = editbench("show", run)
    assert "2 of 4 facts, 2 not injected" in shown.out and "+0.33" in shown.out
    ranked = json.loads(editbench("show", run, "--json").out)["rows"]
    by_method = {one["method"]: one for one in ranked}
    assert by_method["sft"]["efficacy"]["mean"] == 0.25, "the score is the end's, over all facts"
    assert by_method["sft"]["right_after"]["scores"]["efficacy"]["at_end"]["mean"] == 0.5
    assert "right_after" not in by_method["rome"]
    only_old = render([write(tmp_path / "old", (old, tables))], tmp_path / "page.md")
    assert "Right after" not in only_old


def test_the_table_of_a_sequence_breaks_no_interval_at_80_columns():
    cells = [in_a_sequence(name, [1] * 9, [0] * 9)[0] for name in ("memit", "easyedit-alphaedit")]
    table = ranking.right_after(rows(cells))
    page = Console(width=80, file=io.StringIO())
    with mock.patch.object(sys.stdout, "isatty", lambda: True, create=True):
        console.fit(page, table)
    page.print(table)
    text = page.file.getvalue()
    twice = cells[0]["right_after"]["scores"]["efficacy"]["generation"]
    change = cells_text(twice["change"], sign=True)
    texts = [cells_text(twice["right_after"]), cells_text(twice["at_end"]), change]
    assert [text.count(each) for each in texts] == [2, 2, 2] and "easyedit-alphaedit" in text
    assert ranking.right_after(rows([summary("memit")])) is None
    none = {"facts": 0, "replaced": 0, "not_injected": 9, "scores": {}}
    stopped = ranking.right_after(rows([{**cells[0], "status": "stopped", "right_after": none}]))
    texts = [[cell.text for cell in column.cells] for column in stopped.columns[1:]]
    assert texts == [["0 of 9 facts, 9 not injected"], ["–"], ["–"]]


def test_a_long_heading_is_broken_and_not_cut_at_80_columns():
    names = (
        "method",
        "facts",
        "efficacy",
        "generalization",
        "specificity",
        "retention",
        "own text's perplexity",
        "largest weight",
    )
    table = console.listing([dict.fromkeys(names, "0.00 [0.00, 0.90]")], "Curve over facts")
    page = Console(width=80, file=io.StringIO())
    with mock.patch.object(sys.stdout, "isatty", lambda: True, create=True):
        console.fit(page, table)
    page.print(table)
    assert "…" not in page.file.getvalue()


def test_sequences_of_several_seeds_are_compared_by_case(tmp_path):
    first, last = ([1, 1, 1], [0, 1, 1]), ([1, 0, 1], [1, 0, 0])
    runs = [
        write(
            tmp_path / str(seed),
            in_a_sequence("sft", *scores, seed, ids, left=seed, replaced=(2,) * (not seed)),
        )
        for seed, (scores, ids) in enumerate(((first, range(3)), (last, range(2, 5))))
    ]
    page = render(runs, tmp_path / "page.md")
    line = next(text for text in page.split("### Right after")[1].splitlines() if "| sft" in text)
    seeds, cases = [0, 0, 1, 1, 1], ["c0", "c1", "c2", "c3", "c4"]
    twice = asked_twice([1, 1, 1, 0, 1], [0, 1, 1, 0, 0], cases, "generation", seeds)
    assert "| 5 of 7 facts, 1 not injected, 1 replaced |" in line
    texts = [escape(cells_text(twice[when])) for when in ("right_after", "at_end")]
    assert f"| {texts[0]} | {texts[1]} | {escape(cells_text(twice['change'], sign=True))} |" in line


def test_further_metrics_of_several_seeds_have_intervals_and_are_compared_with_nobody(tmp_path):
    def cell(seed):
        one, tables = seeded(seed, range(20), GOOD)
        right = [i % (2 + seed) == 0 for i in range(20)]
        bits = [5.0 + seed + i % 3 for i in range(20)]
        for row_of, exact in zip(
            [r for r in tables["probes"] if r["axis"] == "rewrite"], right, strict=True
        ):
            row_of["exact"] = exact
        tables["probes"] += [
            {"case": f"c{i}", "probe": 9, "axis": "fluency", "generation": b}
            for i, b in enumerate(bits)
        ]
        one["metrics"] |= {
            "efficacy_exact": {"generation": clustered_mean(right).to_dict(protocol="generation")},
            "fluency": {
                "generation": unbounded_mean(bits, range(20)).to_dict(protocol="generation")
            },
        }
        return (one, tables), right, bits

    cells = [cell(seed) for seed in (0, 1)]
    page = render(
        [write(tmp_path / str(i), one) for i, (one, *_) in enumerate(cells)], tmp_path / "README.md"
    )
    pooled_row = next(
        text
        for text in page.split("### More under generation")[1].splitlines()
        if text.startswith("| mixsd")
    )
    where = [*range(20)] * 2, [0] * 20 + [1] * 20
    exact, free = (
        clustered_mean(cells[0][1] + cells[1][1], *where),
        unbounded_mean(cells[0][2] + cells[1][2], *where),
    )
    for found in (exact, free):
        assert f"| {found.mean:.2f} [{found.low:.2f}, {found.high:.2f}] ±" in pooled_row
    (zero, tables), *_ = cells[0]
    run = write(tmp_path / "two", (zero, tables), ({**zero, "method": "sft", "key": "sft"}, tables))
    summaries = load_run(run)[1]
    verdicts = judge(
        rows(summaries), {one["key"]: items(run, one) for one in summaries}, "generation"
    )
    assert {one.column for one in verdicts.comparisons} == {"efficacy", "specificity"}


def test_a_pair_of_methods_is_pooled_too(tmp_path):
    cells = [
        measured(
            "memit+mixsd",
            GOOD,
            KEPT,
            [1] * 20,
            seed,
            options={"memit.seed": seed, "mixsd.seed": seed, "mixsd.lam": 0.3},
        )
        for seed in (0, 1)
    ]
    runs = [write(tmp_path / str(seed), cell) for seed, cell in enumerate(cells)]
    assert "memit+mixsd (seeds" in render(runs, tmp_path / "README.md")
    other = measured(
        "memit+mixsd",
        GOOD,
        KEPT,
        [1] * 20,
        1,
        options={"memit.seed": 1, "mixsd.seed": 1, "mixsd.lam": 0.5},
    )
    assert "(seeds" not in render(
        [runs[0], write(tmp_path / "other", other)], tmp_path / "README.md"
    )


def test_repeated_injections_of_one_seed_are_not_those_of_all(tmp_path):
    cells = [
        measured("mixsd", GOOD, KEPT, [1] * 20, seed, inject_seconds=[1.0, 2.0]) for seed in (0, 1)
    ]
    runs = [write(tmp_path / str(seed), cell) for seed, cell in enumerate(cells)]
    merged, _ = pooled([cell for cell, _ in cells], [None, None])
    assert "inject_seconds" not in merged and render(runs, tmp_path / "README.md")


def test_a_cell_that_failed_elsewhere_gives_way(tmp_path):
    good = measured("sft", GOOD, KEPT, [1] * 20)
    bad = {
        **good[0],
        "status": "failed",
        "note": "no memory",
        "metrics": {},
        "retention": {},
        "seconds": {},
    }
    runs = [write(tmp_path / "bad", bad), write(tmp_path / "good", good)]
    pages = [render(order, tmp_path / "README.md") for order in (runs, runs[::-1])]
    assert all("(failed)" not in page and "| sft" in page.replace("[", "") for page in pages)


def test_seeds_without_tables_have_means_and_no_interval(tmp_path):
    runs = [
        write(tmp_path / f"{seed}", seeded(seed, range(20), right)[0])
        for seed, right in enumerate((GOOD, [0] * 20))
    ]
    page = render(runs, tmp_path / "README.md")
    assert re.search(r"\| mixsd \(seeds .* \| 0\.50 ±0\.71 \| – \| 1\.00 ±0\.00 \|", page)


def test_base_is_last_and_score_ranks():
    weak = summary("sft", metrics=axes((0.9, 0.8, 1), (0.1, 0, 0.2), (0.9, 0.8, 1)))
    failed = summary(
        "memit", status="failed", metrics={}, retention={}, seconds={}, peak_memory_bytes=None
    )
    ranked = rows([base(), failed, weak, summary("mixsd")])
    assert [r["method"] for r in ranked] == ["mixsd", "sft", "memit", "base"]
    assert (
        ranked[2]["score"] is None
        and ranked[2]["efficacy"]["mean"] is None
        and ranked[2]["retention_mean"]["mean"] is None
    )


def test_row_has_the_shape_of_the_contract():
    found = row(summary("mixsd", options={"lam": 0.5}))
    assert found["efficacy"] == {
        "mean": 0.8,
        "low": 0.7,
        "high": 0.9,
        "n": 50,
        "protocol": "generation",
    }
    assert found["retention"]["arc"]["delta"] == -0.05
    assert found["retention_mean"]["mean"] == 0.9 and found["retention_mean"]["n"] == 1
    assert (found["seconds"], found["peak_memory_bytes"], found["status"]) == (
        12.34,
        3 * 2**29,
        "done",
    )
    assert found["score_of"] == ["efficacy", "generalization", "specificity", "retention_mean"]
    assert found["score"] == pytest.approx(4 / (1 / 0.8 + 1 / 0.5 + 1 / 0.9 + 1 / 0.9))


def mixed(method, effective, asked=0.3, **changes):
    options = {"lam": asked, "mode": "bernoulli"}
    return summary(method, edit={"effective_lambda": effective}, options=options, **changes)


def test_the_effective_lambda_is_told_below_the_table(tmp_path, capsys):
    told = "lambda, the naive branch's share:"
    run = write(tmp_path / "run", base(), mixed("mixsd", 0.1749), summary("sft"))
    note = f"{told} mixsd 0.30 asked, 0.17 effective."
    assert f"\n- {note}\n" in render([run], tmp_path / "README.md")
    shown = editbench("show", str(run))
    assert note in " ".join((shown.out + shown.err).split())
    found = {
        each["method"]: each for each in json.loads(editbench("show", run, "--json").out)["rows"]
    }
    assert found["mixsd"]["mixing"] == {"lam": 0.3, "effective_lambda": 0.1749}
    assert "mixing" not in found["sft"] and "mixing" not in found["base"]
    plain = write(tmp_path / "plain", base(), summary("memit", options={"lam": 512.0}))
    assert told not in render([plain], tmp_path / "README.md")


def test_the_effective_lambda_of_variants_pairs_and_seeds():
    adaptive = summary(
        "mixsd@adaptive",
        options={"lam": 0.3, "mode": "adaptive"},
        edit={"effective_lambda": 0.48},
    )
    pair = summary(
        "memit+mixsd",
        options={"memit.lam": 512.0, "mixsd.lam": 0.5},
        edit={"memit": {"lambda": 512.0}, "mixsd": {"effective_lambda": 0.31}},
    )
    ranked = {each["method"]: each for each in rows([adaptive, pair])}
    assert ranked["mixsd@adaptive"]["mixing"] == {"lam": None, "effective_lambda": 0.48}
    assert ranked["memit+mixsd"]["mixing"] == {"lam": 0.5, "effective_lambda": 0.31}
    assert "mixsd@adaptive 0.48 effective" in mixing_note(list(ranked.values()))
    seeds = [mixed("mixsd", share, key=f"k{share}", seed=i) for i, share in enumerate((0.1, 0.2))]
    merged, _ = pooled(seeds, [None, None])
    assert row(merged)["mixing"] == {"lam": 0.3, "effective_lambda": pytest.approx(0.15)}


def test_score_leaves_out_what_is_missing_and_says_so(tmp_path):
    one = summary("mixsd", retention={})
    one["metrics"]["generalization"]["generation"] = metric(None, None, None, n=0)
    assert row(one)["score_of"] == ["efficacy", "specificity"]
    page = render([write(tmp_path / "run", base(), one)], tmp_path / "README.md")
    assert (
        " ‡ |" in line(page, "mixsd")
        and "‡ the score leaves out" in page
        and "| – |" in line(page, "mixsd")
    )


def with_more(one, **more):
    found = {name: {"generation": metric(*values)} for name, values in more.items()}
    return {**one, "metrics": {**one["metrics"], **found}}


def test_metrics_by_kind_of_probe_have_a_table_of_their_own(tmp_path):
    more = {"portability": (0.5, 0.4, 0.6), "portability/a|b_": (0.25, 0.1, 0.4)}
    cells = [
        base(),
        with_more(summary("mixsd"), **more),
        summary("sft", status="failed", metrics={}),
    ]
    page = render([write(tmp_path / "run", *cells)], tmp_path / "README.md")
    table = page.split("### By kind of probe ↑\n\n")[1].split("\n\n")[0].splitlines()
    assert table[0] == "| Method | portability/a&#124;b\\_ (n = 50) |"
    assert {line.split("](")[0]: line.split("|")[-2].strip() for line in table[2:]} == {
        "| [mixsd": "0.25 [0.10, 0.40]",
        "| [base": "–",
        "| [sft": "–",
    }
    assert "By kind" not in render(
        [write(tmp_path / "plain", base(), summary("mixsd"))], tmp_path / "README.md"
    )


def test_portability_and_in_context_have_columns_where_a_row_has_them(tmp_path):
    cells = [base(), with_more(summary("mixsd"), portability=(0.3, 0.2, 0.4)), summary("sft")]
    plain = rows([base(), summary("mixsd"), summary("sft")])
    assert not any("portability" in one or "in_context" in one for one in plain)
    ranked = rows(cells)
    assert [one["portability"]["mean"] for one in ranked] == [0.3, None, None]
    assert [(one["score"], one["score_of"]) for one in ranked] == [
        (one["score"], one["score_of"]) for one in plain
    ]
    page = render([write(tmp_path / "run", *cells)], tmp_path / "README.md")
    assert "Specificity ↑ | Portability ↑ | Retention ↑" in page and "In-context ↑" not in page
    assert "Neither enters the score" in page and "| 0.30 [0.20, 0.40] |" in line(page, "mixsd")
    likelihood = page[page.index("### Protocol likelihood") :]
    assert "Portability ↑" not in likelihood, "no probe names a second answer"

    both = with_more(summary("mixsd"), portability=(0.9, 0.8, 1.0), in_context=(0.3, 0.2, 0.4))
    both["metrics"]["portability"]["likelihood"] = metric(0.6, 0.5, 0.7, "likelihood")
    weak = with_more(summary("sft"), portability=(0.1, 0.0, 0.2))
    page = render([write(tmp_path / "two", both, weak)], tmp_path / "README.md")
    assert "Portability ↑ | In-context ↑ | Retention ↑" in page and "| 0.90 [0.80, 1.00] |" in line(
        page, "mixsd"
    )
    likelihood = page[page.index("### Protocol likelihood") :]
    assert "Specificity ↑ | Portability ↑ |\n" in likelihood and "0.60 [0.50, 0.70]" in likelihood


def test_more_under_generation_has_a_table_of_its_own_and_no_part_in_the_score(tmp_path):
    cells = [
        base(),
        with_more(
            summary("mixsd"),
            denial=(0.25, 0.1, 0.4),
            distracted=(0.5, 0.4, 0.6),
            fluency=(5.12, 5.0, 5.2),
        ),
        summary("sft", status="failed", note="no", metrics={}, retention={}),
    ]
    plain = rows([base(), summary("mixsd")])
    ranked = rows(cells)
    assert [(r["method"], r["score"]) for r in ranked[:1]] == [
        (r["method"], r["score"]) for r in plain[:1]
    ]
    page = render([write(tmp_path / "run", *cells)], tmp_path / "README.md")
    second = page[page.index("### More under generation") : page.index("### Protocol")]
    assert "| Method | Distracted ↑ | Denial ↓ | Fluency ↑ |" in second and "Reversion" not in page
    assert line(second, "mixsd").endswith(
        "| 0.50 [0.40, 0.60] | 0.25 [0.10, 0.40] | 5.12 [5.00, 5.20] |"
    )
    assert line(second, "base").endswith("| – | – | – |") and line(second, "sft").endswith(
        "| – | – | – |"
    )
    assert "Denial" not in page[: page.index("### More under generation")]
    assert "More under generation" not in render(
        [write(tmp_path / "old", base(), summary("mixsd"))], tmp_path / "README.md"
    )


def test_all_that_is_measured_has_a_table_under_its_own_protocol(tmp_path):
    measured_more = {("likelihood", "counterfact_score")} | {
        (where, name) for name, (_, where, _) in MORE_METRICS.items()
    }
    assert {
        (protocol, name) for protocol, titles in MORE.items() for name in titles
    } == measured_more
    one = summary("mixsd")
    for protocol, name in measured_more:
        one["metrics"][name] = {protocol: metric(0.123, 0.1, 0.2, protocol)}
    one["metrics"]["efficacy"]["argmax"] = metric(0.5, 0.4, 0.6, "argmax")
    page = render([write(tmp_path / "run", base(), one)], tmp_path / "README.md")
    for protocol, titles in MORE.items():
        table = page.split(f"### More under {protocol}\n")[1].split("\n###")[0]
        assert all(f"| {title} " in table for title in titles.values())
        assert line(table, "mixsd").count("0.12 [0.10, 0.20]") == len(titles), (
            "of this protocol and no other"
        )


def test_judged_scores_are_ranked_apart_and_two_judges_never_together(tmp_path):
    def judged(name, key, by):
        one = {
            **summary(name, key),
            "judge": {"model": by, "judged": 3, "not_judged": 0, "reason": ""},
        }
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
    page, (table, *_) = console.out(), ranking.results(rows([base(), one]), Verdicts(), Verdicts())
    console.fit(page, table)
    page.print(table)
    shown = capsys.readouterr().out
    assert (
        "In-context ↑" in shown
        and "0.30 [0.20, 0.40]" in shown
        and "1.5 GiB" in shown
        and "…" not in shown
    )


def test_the_terminal_stars_who_is_ahead(tmp_path, capsys):
    run = write(
        tmp_path / "run",
        measured("mixsd", GOOD, KEPT, [1] * 30),
        measured("sft", POOR, KEPT, [0] * 30),
    )
    summaries = load_run(run)[1]
    ranked, tables = rows(summaries), {one["key"]: items(run, one) for one in summaries}
    for table in ranking.results(
        ranked, *(judge(ranked, tables, part) for part in ("generation", RETENTION))
    ):
        console.out().print(table)
    shown = capsys.readouterr().out
    assert (
        "1.00 [0.81, 1.00] *" in shown
        and "+0.00 [-0.09, +0.09] *" in shown
        and shown.count("] *") == 2
    )
    assert (
        "2 comparisons, wrong in at most 5 % of such tables (Holm). Differences that are found "
        "four times out of five: efficacy 0." in " ".join(shown.split())
    )


def test_nothing_in_a_foreign_record_moves_the_cursor(tmp_path, capsys):
    hostile = summary(
        "mixsd",
        status="no_effect\x1b[2J",
        options={"lr": "\x1b[31m"},
        retention={"arc\x1b[0m": task(0.5, 0.4, -0.1, -0.2, 0.0)},
    )
    ranked = rows([hostile, {**hostile, "key": "other", "options": {"lr": "[/]"}}])
    for table in ranking.results(ranked, Verdicts(), Verdicts(missing=["\x1b[1m"])):
        console.out().print(table)
    console.say("first\nthe reason: \x1b]0;owned\x07")
    said = capsys.readouterr()
    assert (
        "\x1b" not in said.out + said.err
        and "\\x1b[31m" in said.out
        and said.err == "first\nthe reason: \\x1b]0;owned\\x07\n"
    )


def test_the_terminal_promises_no_difference_above_one(capsys):
    found = Verdicts([Comparison("efficacy", "a", "b", 0.5, 0.2)], {"efficacy": 1.4})
    console.out().print(ranking.results(rows([summary("a"), summary("b")]), found, Verdicts())[0])
    said = " ".join(capsys.readouterr().out.split())
    assert "Too few to find any difference: efficacy." in said and "four times" not in said


def test_the_terminal_marks_what_was_not_tuned_and_has_the_score(capsys):
    rowed = rows([summary("base"), summary("a", tuned=False), summary("b", tuned=True)])
    sheet = ranking.results(rowed, Verdicts(), Verdicts())[0]
    by_name = {cell.text: i for i, cell in enumerate(sheet.columns[0].cells)}
    assert set(by_name) == {"base", "a †", "b"}
    assert "† not tuned: no search on the dev slice" in sheet.caption
    (score,) = (column for column in sheet.columns if column.title == "Score ↑")
    assert score.cells[by_name["b"]].text == f"{rowed[by_name['b']]['score']:.2f}"
    tuned = [row for row in rowed if row["method"] != "a"]
    assert "†" not in ranking.results(tuned, Verdicts(), Verdicts())[0].caption


def test_variants_are_rivals_and_those_of_ice_are_not(tmp_path):
    cells = [
        measured("ice@k", GOOD, KEPT, [], tuned=False),
        measured("mixsd@a", GOOD, KEPT, []),
        measured("mixsd@b", POOR, KEPT, []),
    ]
    cells = [({**one, "key": one["method"].replace("@", "_")}, tables) for one, tables in cells]
    page = render([write(tmp_path / "run", *cells)], tmp_path / "README.md")
    assert line(page, "mixsd@a").count("**1.00 [") == 1
    assert "**" not in line(page, "ice@k") and "†" not in line(page, "ice@k")


def test_harmonic_mean():
    assert (
        harmonic_mean([]) is None and harmonic_mean([0.5, 0]) == 0 and harmonic_mean([-1, 0.5]) == 0
    )
    assert harmonic_mean([1.3, 1.0]) == 1 and harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": 1}, r"Row 2 \(sft\) with seed 1 cannot share a ranking with seed 0"),
        ({"regime": "single"}, "regime"),
        ({"model": {"name": "big", "hash": "a" * 64, "precision": "float32"}}, 'model "big"'),
        ({"corpus": {"name": "zsre"}}, "Row 2 .*corpus"),
        ({"retention": {"mmlu": task(0.5, 0.4, -0.1, -0.2, 0.0)}}, "retention tasks"),
        (
            {"metrics": {"efficacy": {"likelihood": metric(1, 1, 1, "likelihood")}}},
            "protocol .*likelihood.*generation",
        ),
        (
            {"metrics": {"efficacy": {"generation": metric(1, 1, 1, "argmax")}}},
            "protocol .*argmax.*generation",
        ),
    ],
)
def test_mixtures_are_refused(change, text):
    with pytest.raises(RecordError, match=text):
        rows([summary("mixsd"), summary("sft", **change), summary("rome")])


def test_wrong_protocol_is_named_even_if_all_share_it():
    with pytest.raises(RecordError, match=r"Rows 1 \(a\) and 2 \(b\)"):
        rows(
            [
                summary("a", metrics={"efficacy": {"likelihood": {}}}),
                summary("b", metrics={"efficacy": {"likelihood": {}}}),
            ]
        )


def test_settings_become_separate_tables(tmp_path):
    one = write(tmp_path / "one", base(), summary("mixsd"), limit=10)
    two = write(tmp_path / "two", summary("mixsd", "k2", regime="single"), limit=10)
    three = write(tmp_path / "three", summary("mixsd", "k3"), limit=20)
    page = render([one, two, three], tmp_path / "README.md")
    assert page.count("## tiny · local") == 3 and page.count("| base | – |") == 2
    assert "scores 0.50 |" in page  # known from the other rows


@pytest.mark.parametrize(
    "change",
    [{"tasks": {"arc": "two"}}, {"model": {**summary("x")["model"], "chat_template": "other"}}],
    ids=["data", "chat"],
)
def test_other_task_data_or_another_chat_template_is_another_table(tmp_path, change):
    cells = [
        summary("mixsd", tasks={"arc": "one"}),
        summary("sft", **{"tasks": {"arc": "one"}, **change}),
    ]
    page = render([write(tmp_path / one["method"], one) for one in cells], tmp_path / "README.md")
    assert page.count("\n## tiny") == 2 and "### Every pair" not in page
    conditions = [text for text in page.splitlines() if text.startswith("n = 50")]
    assert len(set(conditions)) == 2 and all("task data " in text for text in conditions)
    with pytest.raises(RecordError, match="cannot share a ranking"):
        rows(cells)


def test_the_limit_of_a_group_of_tasks_is_one_for_each_member(tmp_path):
    def page(limit):
        return render(
            [write(tmp_path / str(limit), base(), summary("mixsd"), limit=limit)],
            tmp_path / "README.md",
        )

    assert "at most 99 retention samples a task, of a group each member ·" in page(
        99
    )  # 100 were asked
    assert "at most 100 retention samples a task ·" in page(100)


def test_one_cell_in_two_runs_is_one_row(tmp_path):
    one, two = (write(tmp_path / name, base(), summary("mixsd")) for name in ("one", "two"))
    assert render([one, two], tmp_path / "README.md").count("[mixsd](one/") == 3
    assert "two/" not in render([one, two], tmp_path / "README.md")


def test_failed_and_ineffective_cells_stay_visible(tmp_path):
    failed = summary(
        "memit",
        status="failed",
        note="no subject in\nfact | 3",
        metrics={},
        retention={},
        seconds={},
    )
    page = render(
        [write(tmp_path / "run", base(), failed, summary("sft", status="no_effect"))],
        tmp_path / "README.md",
    )
    assert "(failed)" in line(page, "memit") and "(no effect)" in line(page, "sft")
    assert "- memit: failed. no subject in fact &#124; 3" in page


def test_what_an_edit_says_is_wrong_with_it_stands_below_the_table(tmp_path):
    doubtful = {"edit": {"warnings": ["2 of 3 targets\nnot <reached>"]}}
    judge = {"judge": {"model": "j", "judged": 1, "not_judged": 2, "reason": "a|b"}}
    denied = {"denied": {"rewrite": 2, "neighborhood": 1}}
    page = render(
        [write(tmp_path / "run", summary("memit", **doubtful, **judge, **denied))],
        tmp_path / "README.md",
    )
    told = page.split("Warnings:\n\n")[1].split("\n\n")[0].splitlines()
    assert told == [
        "- memit: 2 of 3 targets not &lt;reached&gt;",
        "- memit: 2 answers were not judged; the last reason: a&#124;b",
        "- memit: answers that name the expected answer only to deny or correct it, and so do not "
        "count as containing it: 2 rewrite, 1 neighborhood",
    ]
    seeds = [
        seeded(seed, range(20), GOOD, edit={"warnings": ["weak"]} if seed else {})
        for seed in (0, 1)
    ]
    page = render(
        [write(tmp_path / str(i), cell) for i, cell in enumerate(seeds)], tmp_path / "README.md"
    )
    assert "- mixsd: seed 1: weak\n" in page
    assert "Warnings" not in render(
        [write(tmp_path / "calm", summary("memit"))], tmp_path / "README.md"
    )


@pytest.mark.parametrize(
    ("kl", "reported", "said"),
    [
        (0.1, [], []),
        (0.2, [], [MOVED_FAR]),
        (0.2, [f"{MOVED_FAR} kl=1 helps."], [f"{MOVED_FAR} kl=1 helps."]),
        (None, [], []),
    ],
)
def test_own_text_that_moved_far_is_a_warning_once(kl, reported, said):
    drift = {"diagnostics": {"drift": {"kl": {"mean": kl}}}}
    (found,) = rows([summary("rome", edit={"warnings": reported}, **drift)])
    assert found["warnings"] == said


@pytest.mark.parametrize(
    ("shares", "shown"),
    [
        ([0.5], "0.50"),
        ([0.5, 0.6], "0.50 / 0.60"),
        ([0.5, 0.6, 0.7, 0.7, 0.9], "0.50 / 0.70 / 0.90"),
    ],
)
def test_targets_that_were_verified_are_shown_by_attempt(tmp_path, shares, shown):
    one = summary(
        "mixsd", diagnostics={"mixing": {"lam_answer": 0.1, "verified_by_attempt": shares}}
    )
    page = render([write(tmp_path / "run", one, base())], tmp_path / "README.md")
    table = page.split("### Diagnostics")[1]
    assert (
        "| method | lambda, answer | verified after 1 / 3 / all |" in table
        and f"| mixsd | 0.1 | {shown} |" in table
    )


def test_diagnostics_of_older_records_are_shown_and_what_they_lack_is_a_dash(tmp_path):
    new = {"supervision": {"nll": 3.0, "nll_above_5": 0.25}, "fisher": {"alignment_ratio": 0.9}}
    old = {"supervision": {"nll": 5.0}, "fisher": {"relative_curvature": 1.1}}
    cells = [summary("mixsd", diagnostics=new), summary("sft", diagnostics=old), base()]
    page = render([write(tmp_path / "run", *cells)], tmp_path / "README.md")
    table = page.split("### Diagnostics")[1].split("\n\n")[2].splitlines()
    assert table[0] == "| method | target NLL | NLL > 5 | alignment ratio R |"
    assert table[2:] == [
        "| mixsd | 3 | 0.25 | 0.9 |",
        "| sft | 5 | – | 1.1 |",
        "| base | – | – | – |",
    ]


def test_rows_of_one_method_are_told_apart_by_their_options():
    cells = [
        summary("mixsd", str(i), options={"lam": lam, "steps": 9})
        for i, lam in enumerate((0.5, 0.7))
    ]
    assert sorted(r["label"] for r in rows([*cells, summary("sft", options={"steps": 3})])) == [
        "mixsd (lam=0.5)",
        "mixsd (lam=0.7)",
        "sft",
    ]


def test_a_recipe_stands_for_its_options():
    cells = [
        summary("memit", "1", options={"lam": None, "steps": 9}),
        summary("memit", "2", options={"lam": 3, "steps": 2}, recipe="paper"),
        summary("memit", "3", options={"lam": None, "steps": 7}),
        summary("rome", options={"steps": 7}, recipe="paper"),
    ]
    assert sorted(r["label"] for r in rows(cells)) == [
        "memit (recipe=paper)",
        "memit (steps=7)",
        "memit (steps=9)",
        "rome",
    ]


def test_only_likelihood_becomes_the_headline(tmp_path):
    one = summary("mixsd")
    for found in one["metrics"].values():
        del found["generation"]
    page = render([write(tmp_path / "run", one)], tmp_path / "README.md")
    assert (
        "protocol likelihood" in page
        and "### Protocol likelihood" not in page
        and "0.80 [0.70, 0.90]" in page
    )


def test_a_search_that_found_nothing_feasible_and_searches_that_were_not_equal_are_said(tmp_path):
    search = {"budget": 8, "retention": 0.95, "n": 50, "tasks": ["arc"], "trial": 2}

    def page(*tunings):
        cells = [summary(f"m{i}", tuning={**search, **one}) for i, one in enumerate(tunings)]
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return render(
            [write(folder, *cells, summary("plain", tuned=False))], tmp_path / "README.md"
        )

    good, poor = {"feasible": True}, {"feasible": False}
    equal = page(good, poor)
    assert (
        ") § |" in line(equal, "m1")
        and "§" not in line(equal, "m0")
        and "§" not in line(equal, "plain")
    )
    assert equal.count("- § tuned, but no trial kept") == 1 and "not equal" not in equal
    assert "§" not in page(good, good)
    other = page(good, {**good, "budget": 4, "tasks": ["arc", "/home/me/mine.yaml"]}, good)
    assert "- The searches were not equal: trials 8 (m0, m2); 4 (m1).\n" in other
    assert "- The searches were not equal: tasks arc (m0, m2); arc, mine.yaml (m1).\n" in other
    seeds = [
        summary("sft", f"k{i}", seed=i, tuning={**search, **one})
        for i, one in enumerate((good, poor))
    ]
    pooled_page = render(
        [write(tmp_path / f"seed{one['seed']}", one) for one in seeds], tmp_path / "README.md"
    )
    assert "summary.json)) § |" in pooled_page


def test_other_versions_of_the_scoring_are_ranked_apart_and_of_the_code_are_said(tmp_path):
    def cell(method, code, scoring=5, torch="2.1"):
        made = {"platform": "x", "code": code, "packages": {"torch": torch, "lm_eval": "0.4"}}
        return summary(method, environment=made, versions={"scoring": scoring, "method": 1})

    with pytest.raises(
        RecordError, match=r"Row 2 \(sft\) with scoring version 4 cannot share a ranking"
    ):
        rows([cell("base", "k"), cell("sft", "k", 4), cell("memit", "k")])
    apart = render(
        [write(tmp_path / "apart", cell("rome", "k"), cell("sft", "k", 4), base())],
        tmp_path / "README.md",
    )
    assert (
        apart.count("\n## tiny · local") == 3
        and "· scoring version 4\n" in apart
        and "different software" not in apart
    )
    mixed = render(
        [write(tmp_path / "mixed", cell("rome", "k"), cell("sft", "m", torch="2.2"))],
        tmp_path / "README.md",
    )
    assert (
        "- The cells were computed with different software, which can move a number a little: "
        "code k, m; torch 2.1, 2.2.\n" in mixed
    )


def test_different_machines_are_said(tmp_path):
    here = {
        "platform": "x",
        "cpu_count": 2,
        "threads": 2,
        "device": "cuda",
        "hardware": "NVIDIA H200",
    }

    def said(*others, **seeds):
        cells = [summary(f"m{i}", environment=other) for i, other in enumerate((here, *others))]
        cells += [
            summary("pooled", seed, environment=other, seed=i)
            for i, (seed, other) in enumerate(seeds.items())
        ]
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return "seconds and memory cannot be compared" in render(
            [write(folder, *cells)], tmp_path / "README.md"
        )

    for other in (
        {"platform": "y"},
        {"cpu_count": 8},
        {"threads": 1},
        {"device": "cpu"},
        {"hardware": "NVIDIA A100"},
    ):
        assert said({**here, **other}) and said(one=here, two={**here, **other}), other
    assert not said(here, {"platform": "x", "cpu_count": 2}, {}, None), (
        "what a record does not say is not held against it"
    )
    assert not said(one=here, two={**here, "commit": "another"})


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
        summary(f"m{i} {name}", f"k{i}", retention={f"t {name}": task(0.5, 0.4, -0.1, -0.2, 0)})
        for i, name in enumerate(NASTY)
    ]
    for i, cell in enumerate(cells):
        cell["model"] = {**cell["model"], "name": NASTY[i]}
        page = render(
            [write(tmp_path / f"run {i} (|)", cell)], tmp_path / "README.md", "echo ```\n"
        )
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
        "import sys, editbench.leaderboard.markdown; "
        "print(sorted({'torch', 'lm_eval', 'transformers'} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


# --- the picture --------------------------------------------------------------------------------


def kept(*ratios, half=0.1):
    """Retention of as many tasks, each with an interval of that half-width."""
    ends = [{"ratio_low": one - half, "ratio_high": one + half} for one in ratios]
    return {f"t{i}": {**task(0.5, 0.5 * one, 0, 0, 0), **ends[i]} for i, one in enumerate(ratios)}


def test_the_interval_of_mean_retention_is_combined_from_the_tasks():
    one, half = row(summary("mixsd", retention=kept(0.9, 0.7)))["retention_mean"], 0.1 * 2**0.5 / 2
    assert (one["mean"], one["low"], one["high"]) == pytest.approx(
        (0.8, 0.8 - half, 0.8 + half)
    ) and one["n"] == 2
    alone = row(summary("mixsd", retention=kept(0.9)))["retention_mean"]
    assert (alone["low"], alone["high"]) == pytest.approx((0.8, 1.0))
    lost = retained([0.0] * 48 + [1.0] * 2, [1.0] * 33 + [0.0] * 17)  # its interval is cut off at 0
    assert lost["ratio_low"] == 0 and mean_ratio({"arc": lost}).high == lost["ratio_high"]
    lacking = kept(0.9, 0.7)
    lacking["t1"]["ratio_high"] = None
    unknown = row(summary("mixsd", retention=lacking))["retention_mean"]
    assert unknown["mean"] == pytest.approx(0.8) and unknown["low"] is None
    assert row(base())["retention_mean"]["low"] is None  # 1 by definition


def swept(method, label, mean, *ratios, **changes):
    scores = axes(
        (mean, mean - 0.1, mean + 0.1), (mean / 2, mean / 2 - 0.1, mean / 2 + 0.1), (1, 0.9, 1)
    )
    name = f"{method}@{label}" if label else method
    return summary(
        name,
        f"{method}{label}".replace("$", ""),
        metrics=scores,
        retention=kept(*ratios),
        **changes,
    )


def test_the_picture_shows_every_method_and_point(tmp_path):
    reference = {**base(), "retention": kept(1.0, 1.0)}
    one = write(
        tmp_path / "one",
        reference,
        swept("mixsd", "lam=0", 0.9, 0.6, 0.7),
        swept("mixsd", "lam=$1$", 0.4, 0.9, 1.0),
    )
    two = write(
        tmp_path / "two",
        reference,
        swept("sft", "", 0.7, 0.4, 0.5),
        summary("rome", metrics={}, retention={}),
    )
    png, svg = trade_off([one, two], tmp_path / "deep" / "picture.png")
    assert (png, svg) == (tmp_path / "deep" / "picture.png", tmp_path / "deep" / "picture.svg")
    assert png.read_bytes()[:4] == b"\x89PNG"
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())
    assert (
        {"base", "mixsd", "sft"} <= set(texts) and texts.count("base") == 1 and "rome" not in texts
    )
    assert texts.count("lam=0") == texts.count("lam=$1$") == 2, "once in each panel"
    assert any(text.startswith("efficacy") for text in texts) and any(
        text.startswith("generalization") for text in texts
    )
    assert "tiny, local (test), n = 50, protocol generation" in texts
    assert any("2 tasks" in text for text in texts)
    before = svg.read_bytes()
    assert trade_off([one, two], png) and svg.read_bytes() == before, "the same file each time"


def test_variants_are_joined_in_the_order_of_the_run(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    lines, crosses = [], []
    plot, errorbar = Axes.plot, Axes.errorbar
    monkeypatch.setattr(
        Axes,
        "plot",
        lambda self, x, y, **kw: (lines.append((list(x), list(y))), plot(self, x, y, **kw))[1],
    )
    monkeypatch.setattr(
        Axes,
        "errorbar",
        lambda self, x, y, *a, **kw: (crosses.append((x, y, a[0])), errorbar(self, x, y, *a, **kw))[
            1
        ],
    )
    points = [
        swept("mixsd", f"lam={i}", x, y)
        for i, (x, y) in enumerate([(0.9, 0.5), (0.3, 0.8), (0.6, 0.9)])
    ]
    reference = {**base(), "retention": kept(1.0)}
    run = write(tmp_path / "run", reference, swept("mixsd", "", 0.5, 0.7), *points)
    trade_off([run], tmp_path / "picture.png")
    joined = [line for line in lines if line[0]]
    assert joined[0] == ([0.9, 0.3, 0.6], pytest.approx([0.5, 0.8, 0.9])) and len(joined) == 2, (
        "not through the plain method"
    )
    x, y, ends = crosses[0]
    assert (x, y) == (0.0, 1.0) and all(math.isnan(end) for [end] in ends), (
        "the base stands at its efficacy and 1"
    )
    assert crosses[1][:2] == (0.5, pytest.approx(0.7)) and crosses[1][2] == [
        [pytest.approx(0.1)],
        [pytest.approx(0.1)],
    ]


def test_points_along_one_training_are_one_line(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    lines, plot = [], Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, x, y, **kw: (lines.append(list(x)), plot(self, x, y, **kw))[1]
    )
    found = {(1e-5, 1): 0.4, (1e-5, 0.5): 0.2, (1e-4, 1): 0.9, (1e-4, 0.5): 0.6}
    points = [
        swept("sft", f"{lr}-{share}", x, 0.5, options={"lr": lr, "stop_after": share})
        for (lr, share), x in found.items()
    ]
    trade_off([write(tmp_path / "run", *points)], tmp_path / "picture.png")
    assert [line for line in lines if line][:2] == [[0.2, 0.4], [0.6, 0.9]], (
        "by the share of the steps, not by the run's order"
    )


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
    for runs, text in [
        ([one, other], "retention limit 20"),
        ([one, zsre], 'corpus "zsre"'),
        ([blank], "nothing to draw"),
    ]:
        with pytest.raises(RecordError, match=text):
            trade_off(runs, tmp_path / "picture.png")
    assert not list(tmp_path.glob("picture*"))


# --- evaluator plug-ins -------------------------------------------------------------------------


def plugged(mean, low=None, high=None, title="Brief ↑", base_mean=0.5):
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "n": 50,
        "clusters": 50,
        "protocol": "brief",
        "title": title,
        "base": base_mean,
    }


def test_an_evaluator_has_a_column_after_retention_and_no_part_in_the_score(tmp_path):
    scored = summary("mixsd", evaluators={"brief": plugged(0.25, 0.1, 0.4)})
    ranked = rows([base(), scored, summary("sft")])
    plain = rows([base(), summary("mixsd"), summary("sft")])
    assert [(r["method"], r["score"], r["score_of"]) for r in ranked] == [
        (r["method"], r["score"], r["score_of"]) for r in plain
    ]
    assert ranked[0]["evaluators"] == {"brief": plugged(0.25, 0.1, 0.4)}
    assert all("evaluators" not in r for r in (*ranked[1:], *plain))
    page = render([write(tmp_path / "run", base(), scored, summary("sft"))], tmp_path / "README.md")
    assert "| Specificity ↑ | Retention ↑ | Brief ↑ | Score ↑ | Seconds |" in page
    assert "| 0.90 | 0.25 [0.10, 0.40] | 0.73 |" in line(page, "mixsd")
    assert "| 0.90 | – | 0.73 |" in line(page, "sft")
    assert "- **Brief ↑**: mean over cases of the scores of the evaluator plug-in brief" in page
    likelihood = page[page.index("### Protocol likelihood") :]
    assert "| Brief ↑" not in likelihood, "an evaluator has a protocol of its own"
    without = render([write(tmp_path / "none", base(), summary("mixsd"))], tmp_path / "README.md")
    assert "Brief" not in without and "evaluator" not in without


def test_a_hostile_title_of_an_evaluator_cannot_break_the_table(tmp_path):
    one = summary("mixsd", evaluators={"a|b": plugged(0.25, title="<b>|x\n"), "c": plugged(None)})
    page = render([write(tmp_path / "run", one)], tmp_path / "README.md")
    assert "| Retention ↑ | &lt;b&gt;&#124;x | Brief ↑ | Score ↑ |" in page
    assert "plug-ins a&#124;b, c" in page
    widths = {text.count("|") for text in page.split("\n\n")[3].splitlines()}
    assert len(widths) == 1 and "| 0.90 | 0.25 | – | 0.73 |" in line(page, "mixsd")


@pytest.mark.parametrize("tables", [True, False], ids=["tables", "no tables"])
def test_evaluators_of_several_seeds_are_pooled_by_case(tmp_path, tables):
    scores = {0: [1.0, 0.0] * 10, 1: [1.0] * 20}
    runs = []
    for seed, values in scores.items():
        cell, stored = seeded(seed, range(20), GOOD)
        interval = clustered_mean(values).to_dict(protocol="brief")
        cell["evaluators"] = {"brief": {**interval, "title": "Brief ↑", "base": 0.5 * seed}}
        stored["scores"] = [
            {"evaluator": "brief", "case": f"c{i}", "score": value, "base_score": 0.0, "text": ""}
            for i, value in enumerate(values)
        ]
        runs.append(write(tmp_path / str(seed), (cell, stored if tables else {})))
    page = render(runs, tmp_path / "README.md")
    ids, seeds = [*range(20)] * 2, [0] * 20 + [1] * 20
    expected = clustered_mean([*scores[0], *scores[1]], ids, seeds)
    assert expected.mean == 0.75
    shown = f"0.75 [{expected.low:.2f}, {expected.high:.2f}]" if tables else "0.75"
    row_of = next(text for text in page.splitlines() if text.startswith("| mixsd (seeds"))
    assert f"| {shown} ±0.35 |" in row_of and "| Retention ↑ | Brief ↑ | Score ↑ |" in page
    summaries = [load_run(run)[1][0] for run in runs]
    merged, _ = pooled(summaries, [items(run, s) for run, s in zip(runs, summaries, strict=True)])
    assert merged["evaluators"]["brief"]["base"] == 0.25


def test_an_evaluator_that_one_seed_lacks_has_no_mean(tmp_path):
    first, _ = seeded(0, range(20), GOOD, evaluators={"brief": plugged(0.5)})
    second, _ = seeded(1, range(20), GOOD)
    merged, _ = pooled([first, second], [None, None])
    assert merged["evaluators"]["brief"]["mean"] is None, "fewer seeds would be another mean"
