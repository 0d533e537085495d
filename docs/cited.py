"""Numbers of the pages, from the records that they cite.

    python docs/cited.py          # writes every number again from its record
    python docs/cited.py --check  # exit code 1, and the lines that differ, where one is not

A number, with its interval if it has one, is followed by a comment that names its record:

    memit says .90 [.78, .96]<!-- harness_zsre / memit / efficacy --> of them

The first part is a file of ``benchmarks/results/``, or ``published`` for the run of the default
model in ``leaderboard/results/``. The parts after it are keys. In a list, a part is the name of a
row or its index; a metric stands for its mean under protocol ``generation``, ``retention`` for the
mean over the tasks. As many decimals are shown as are written. Tables between
``<!-- table: NAME -->`` and ``<!-- end -->`` are written by the functions of ``TABLES``.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from editbench.stats import cells_text, mean_ratio

ROOT = Path(__file__).parents[1]
RUN = ROOT / "leaderboard/results/smollm2-135m_demo-counterfact_n50"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NUMBER = r"[-+]?\d*\.?\d+"
INTERVAL = rf"{NUMBER} \[{NUMBER}, {NUMBER}\]"
CITED = re.compile(rf"(?P<text>{INTERVAL}|{NUMBER})<!-- (?P<record>[^>]+? / [^>]+?) -->")
TABLE = re.compile(r"<!-- table: (?P<name>\S+) -->\n.*?<!-- end -->", re.DOTALL)


def written(page: str) -> str:
    """Return ``page`` with every cited number and every table as the records have them.

    Raises:
        LookupError: a page cites what no record holds.
    """
    page = CITED.sub(lambda m: f"{as_written(m['text'], m['record'])}<!-- {m['record']} -->", page)
    return TABLE.sub(
        lambda m: f"<!-- table: {m['name']} -->\n\n{TABLES[m['name']]()}\n\n<!-- end -->", page
    )


def as_written(text: str, record: str) -> str:
    """Return the number that ``record`` names, in the way in which ``text`` is written."""
    value = look_up(record)
    numbers = re.findall(NUMBER, text)
    wanted = [value] if len(numbers) == 1 else [value["mean"], value["low"], value["high"]]
    if isinstance(wanted[0], Mapping):
        wanted = [wanted[0]["mean"]]
    fresh = [like(old, number) for old, number in zip(numbers, wanted, strict=True)]
    return fresh[0] if len(fresh) == 1 else f"{fresh[0]} [{fresh[1]}, {fresh[2]}]"


def like(old: str, number: float) -> str:
    """Return ``number`` with the decimals of ``old``, and a zero or a sign where it has one."""
    decimals = len(old.partition(".")[2])
    number = round(number, decimals) + 0.0  # no minus before a zero
    text = f"{number:{'+' if old[0] == '+' else ''}.{decimals}f}"
    return re.sub(r"^([-+]?)0\.", r"\1.", text) if re.match(r"[-+]?\.", old) else text


def look_up(record: str) -> Any:
    """Return what ``record`` names: a number, or a mean with its interval.

    Raises:
        LookupError: there is no such record.
    """
    file, *keys = record.split(" / ")
    value = load(file)
    for key in keys:
        try:
            value = step(value, key)
        except (LookupError, TypeError, ValueError) as error:
            raise LookupError(f"{record}: no {key!r}") from error
    return value


def step(value: Any, key: str) -> Any:
    """Return the part of ``value`` that ``key`` names."""
    if isinstance(value, list):
        if key.isdigit():
            return value[int(key)]
        (row,) = [each for each in value if key in (each.get("name"), each.get("method"))]
        return row
    if "cells" in value and key not in value:
        return step(value["cells"], key)
    if key == "retention":
        return retention(value["retention"])
    if key in ("delta", "ratio"):
        return {"mean": value[key], "low": value[f"{key}_low"], "high": value[f"{key}_high"]}
    for metrics in ("metrics", "scores"):
        if key not in value and metrics in value:
            return value[metrics][key]["generation"]
    return value[key]


def retention(tasks: Mapping[str, Any]) -> Any:
    """Return the tasks' ratios, and their mean as ``mean``, ``low`` and ``high``."""
    mean = mean_ratio(tasks)
    return {**tasks, "mean": mean.mean, "low": mean.low, "high": mean.high}


@cache
def load(file: str) -> Any:
    """Read a file of records."""
    if file == "published":
        cells = [json.loads(path.read_text("utf-8")) for path in RUN.glob("cells/*/summary.json")]
        return {cell["method"]: cell for cell in cells}
    path = ROOT / f"benchmarks/results/{file}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def four_columns() -> str:
    """Return the published table: what is learned, and what is kept."""
    order = ["memit", "ice", "mixsd", "sft", "base"]
    lines = [
        "| Method | Says the fact | In other words | Keeps other facts | Keeps its abilities |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method in order:
        row = load("published")[method]
        values = [step(row, key) for key in ("efficacy", "generalization", "specificity")]
        if method != "base":
            values.append(step(row, "retention"))
        texts = [*map(cells_text, values), *["1.00"] * (4 - len(values))]
        lines.append(f"| `{method}` | {' | '.join(texts)} |")
    return "\n".join(lines)


def refined() -> str:
    """Return what refined values of ``memit`` gain, as ``weight_editors.py`` measured it."""
    both = {"fisher_factor": "2", "refine": "25"}
    text = {**both, "covariance": "self,wiki"}
    settings = [
        ("100", "as published", {}, 100, 100),
        ("100", "refined", both, 100, 100),
        ("100", "refined, with text", text, 100, 100),
        ("20", "as published", {}, 20, 20),
        ("20", "refined", both, 20, 20),
        ("20, four times", "refined", both, 20, 80),
        ("20", "refined, with text", text, 20, 20),
    ]
    metrics = ("efficacy", "generalization", "portability", "specificity")
    lines = [
        "| Facts | `memit` | Efficacy | Paraphrases | Chat questions | Specificity "
        "| KL on Wikipedia |",
        "|" + " --- |" * 7,
    ]
    for facts, label, options, n, cases in settings:
        (row,) = [
            each
            for each in load("weight_editors_test")
            if (each["method"], each["options"], each["facts"], each["cases"])
            == ("memit", options, n, cases)
        ]
        shares = [cells_text(step(row, metric)) for metric in metrics]
        lines.append(f"| {facts} | {label} | {' | '.join(shares)} | {row['kl']:.3g} |")
    return "\n".join(lines)


def chosen() -> str:
    """Return how methods do on clozes, on questions and on facts that share subjects."""
    corpora = {
        "50 clozes (CounterFact)": "harness_counterfact",
        "50 questions (zsRE)": "harness_zsre",
        "100 facts about 40 invented subjects, trainers at `lr=5e-5`": "kgfact_test",
        "the same, trainers at the fitted rate": "published_kgfact",
    }
    names = ["memit", "rome", "sft", "mixsd", "opsd", "ice"]
    lines = [f"| Method | {' | '.join(corpora)} |", "|" + " --- |" * (1 + len(corpora))]
    for name in names:
        texts = []
        for file in corpora.values():
            row = row_of(file, "mixsd 0.3" if (file, name) == ("kgfact_test", "mixsd") else name)
            parts = [step(row, metric)["mean"] for metric in RECALLED] if row else []
            texts.append(", ".join(f"{part:.2f}" for part in parts) or "not measured")
        lines.append(f"| `{name}` | {' | '.join(texts)} |")
    return "\n".join(lines)


RECALLED = ("efficacy", "generalization", "specificity")


def row_of(file: str, name: str) -> Any:
    """Return the row called ``name``, or ``None`` where the file has none."""
    rows = load(file)
    rows = rows["cells"] if isinstance(rows, dict) else rows
    return next((row for row in rows if name in (row.get("name"), row.get("method"))), None)


TABLES: dict[str, Callable[[], str]] = {
    "four-columns": four_columns,
    "refined": refined,
    "chosen": chosen,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    differ = 0
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = written(before)
        if before != after:
            differ += 1
            name = str(path.relative_to(ROOT))
            lines = difflib.unified_diff(
                before.splitlines(), after.splitlines(), name, name, n=0, lineterm=""
            )
            print(*lines, sep="\n")
            if not check:
                path.write_text(after, encoding="utf-8")
    raise SystemExit(check and bool(differ))


if __name__ == "__main__":
    main()
