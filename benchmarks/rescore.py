"""Score the texts of a stored run again with the matcher of today, and name each changed verdict.

    python benchmarks/rescore.py RUN [--json OUT] [--texts]

No model is asked, so what moves is moved by the matcher alone. ``--texts`` prints the texts behind
each change. They are left out of ``--json``, since the texts of a published set may not be stored.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from editbench.eval.metrics import metrics
from editbench.eval.rescoring import Scores, rescore
from editbench.records.reading import load_run, read_cases, read_rows
from editbench.rows import ProbeRow
from editbench.types import Case


def means(rows: Sequence[ProbeRow]) -> dict[str, float | None]:
    """Return the mean of each metric under the protocol ``generation``."""
    return {
        name: by_protocol["generation"]["mean"]
        for name, by_protocol in metrics(rows).items()
        if "generation" in by_protocol
    }


def changed(rows: Sequence[ProbeRow], scores: Sequence[Scores]) -> list[tuple[ProbeRow, bool]]:
    """Return the rows whose score under ``generation`` moved, and whether it rose."""
    moved = []
    for row, score in zip(rows, scores, strict=True):
        before, after = row["generation"], score["generation"]
        if before is not None and after is not None and before != after:
            moved.append((row, after > before))
    return moved


def main() -> None:
    """Print the means before and after, and how many verdicts changed, for each method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--texts", action="store_true")
    arguments = parser.parse_args()
    cases = [Case.from_dict(record) for record in read_cases(arguments.run)]
    result: dict[str, dict[str, object]] = {}
    for summary in load_run(arguments.run)[1]:
        rows = read_rows(arguments.run, summary["key"], "probes")
        scores = rescore(rows, cases)
        again = [cast(ProbeRow, {**row, **new}) for row, new in zip(rows, scores, strict=True)]
        before, after = means(rows), means(again)
        moved = changed(rows, scores)
        by_axis: dict[str, dict[str, int]] = {}
        for row, rose in moved:
            counts = by_axis.setdefault(row["axis"], {"now right": 0, "now wrong": 0})
            counts["now right" if rose else "now wrong"] += 1
        result[summary["method"]] = {"before": before, "after": after, "verdicts": by_axis}
        print(f"{summary['method']}: {len(moved)} of {len(rows)} verdicts differ")
        for name, mean in before.items():
            if mean is not None and after[name] is not None and mean != after[name]:
                print(f"  {name}: {mean:.3f} -> {after[name]:.3f}")
        if arguments.texts:
            for row, rose in moved:
                sign, base = ("+" if rose else "-"), row["base_text"]
                print(f"    {sign} {row['axis']} {row['answers']} {row['text']!r} (base {base!r})")
    if arguments.json:
        text = json.dumps(result, indent=1, ensure_ascii=False)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
