"""What ``rivals.py`` prints of its cells: scores, costs, who is ahead of whom, and the claims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas
from harness import changes

from editbench.leaderboard.comparisons import LEVEL, PROTOCOLS, RETENTION, Verdicts, judge
from editbench.leaderboard.rows import mean_retention, row
from editbench.stats import cells_text
from editbench.types import METRICS

ALL_TASKS = "retention"
"""The column in which all documents of all tasks are compared together."""
TITLES = {"efficacy": "recall", "generalization": "paraphrases"}


@dataclass(frozen=True)
class Claim:
    """What a paper says of its method, as comparisons of one row with others."""

    paper: str
    says: str
    name: str
    parts: tuple[tuple[str, str, tuple[str, ...]], ...]
    """``ahead`` or ``not behind``, a column, and the rows that it is compared with. ``keeps`` asks
    for a mean retention of at least .99 and compares with none."""


EDITORS = ("rome", "memit", "alphaedit")
CLAIMS = (
    Claim(
        "arXiv 2605.16865",
        "about SFT's recall, with most abilities kept that SFT loses",
        "mixsd",
        (("not behind", "efficacy", ("sft",)), ("ahead", ALL_TASKS, ("sft",))),
    ),
    Claim(
        "arXiv 2602.16093",
        "the best trade-off between learning and keeping abilities",
        "disc",
        (
            ("not behind", "efficacy", ("sft", "mixsd", "sdft")),
            ("ahead", ALL_TASKS, ("sft",)),
            ("not behind", ALL_TASKS, ("mixsd", "sdft")),
        ),
    ),
    Claim(
        "arXiv 2601.19897",
        "learns new knowledge better than SFT and forgets less",
        "sdft",
        (("not behind", "efficacy", ("sft",)), ("ahead", ALL_TASKS, ("sft",))),
    ),
    Claim(
        "arXiv 2509.22072",
        "fine-tuning of one matrix edits better than the editors, and keeps abilities",
        "locft",
        (
            ("not behind", "efficacy", EDITORS),
            ("not behind", "generalization", EDITORS),
            ("not behind", ALL_TASKS, EDITORS),
        ),
    ),
    Claim(
        "arXiv 2505.14679",
        "better than the editors, without subject and covariance",
        "ultraedit",
        tuple(
            ("not behind", column, EDITORS)
            for column in ("efficacy", "generalization", "specificity")
        ),
    ),
    Claim(
        "arXiv 2602.15823",
        "edits as well as the editors, and loses less than 1 % of other abilities",
        "crispedit",
        (("not behind", "efficacy", EDITORS), ("keeps", ALL_TASKS, ())),
    ),
    Claim(
        "arXiv 2410.02355",
        "MEMIT's edits at less cost for what must not change",
        "alphaedit",
        (("not behind", "efficacy", ("memit",)), ("ahead", "specificity", ("memit",))),
    ),
    Claim(
        "arXiv 2602.02543",
        "costs nothing in one batch (it is about long sequences, benchmarks/sequences.py)",
        "memit@norm_anchor",
        (("not behind", "efficacy", ("memit",)), ("not behind", ALL_TASKS, ("memit",))),
    ),
)


def print_table(which: str, corpus: str, cells: Sequence[dict]) -> None:
    """Print the cells of a command on one corpus as Markdown."""
    if which == "tune":
        print(_trials(cells))
        return
    axes = [axis for axis in METRICS if any(axis in one["metrics"] for one in cells)]
    print(_scores(cells, axes))
    for protocol in list(PROTOCOLS)[1:]:
        if any(protocol in scores for one in cells for scores in one["metrics"].values()):
            print(f"\nProtocol `{protocol}`: {PROTOCOLS[protocol]}\n")
            print(_protocol(cells, axes, protocol))
    print("\n" + changes({one["name"]: one["retention"] for one in cells if one["retention"]}))
    done = [one for one in cells if one["status"] != "failed" and one["name"] != "ice"]
    verdicts = verdicts_of([one for one in done if not _untuned(one["name"])])
    print("\n" + ahead_lines(verdicts))
    if which == "compare":
        print("\n" + claim_lines(done, verdicts))


def _untuned(name: str) -> bool:
    return name == "base" or name.startswith("easyedit-")


def _trials(cells: Sequence[dict]) -> str:
    """Return a line for each trial."""
    lines = [
        "| row | setting | score | recall | paraphrases | specificity | retention | s | note |"
    ]
    lines.append("|---" * 9 + "|")
    for one in cells:
        scores = [
            cells_text(one["metrics"].get(axis, {}).get("generation"))
            for axis in ("efficacy", "generalization", "specificity")
        ]
        setting = ", ".join(f"{key}={value}" for key, value in one["set"].items()) or "defaults"
        kept = cells_text(mean_retention(one["name"], one["retention"]))
        texts = (one["name"], setting, f"{one['score'][0]:.2f}", *scores, kept, _seconds(one))
        lines.append(f"| {' | '.join(texts)} | {one.get('note') or ''} |")
    return "\n".join(lines)


def _scores(cells: Sequence[dict], axes: Sequence[str]) -> str:
    """Return a line for each row: its setting, its scores under the headline protocol, its costs.

    ``tokens`` are those that the injection sent through the model, ``forwarded`` those that a
    trainer reports, with its teacher's; ``GiB`` is the highest memory of the process.
    """
    titles = [TITLES.get(axis, axis) for axis in axes]
    heads = ["row", "setting", *titles, ALL_TASKS, "steps", "tokens", "forwarded", "s", "GiB"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in cells:
        setting = ", ".join(f"{key}={value}" for key, value in one["set"].items()) or "defaults"
        if one["name"].startswith("easyedit-"):
            setting = "as shipped, not tuned"
        texts = [cells_text(one["metrics"].get(axis, {}).get("generation")) for axis in axes]
        if one["status"] == "failed":
            texts = [f"failed: {one['note']}", *texts[1:]]
        edit, work = one.get("edit") or {}, (one.get("work") or {}).get("inject") or {}
        memory = one.get("peak_process_bytes") or one.get("peak_memory_bytes")
        costs = (
            _count(edit.get("steps")),
            _count(work.get("tokens")),
            _count(edit.get("forwarded_tokens")),
            _seconds(one),
            "–" if memory is None else f"{memory / 2**30:.1f}",
        )
        kept = cells_text(mean_retention(one["name"], one["retention"]))
        lines.append(f"| {' | '.join([one['name'], setting, *texts, kept, *costs])} |")
    return "\n".join(lines)


def _protocol(cells: Sequence[dict], axes: Sequence[str], protocol: str) -> str:
    heads = ["row", *(TITLES.get(axis, axis) for axis in axes)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in cells:
        texts = [cells_text(one["metrics"].get(axis, {}).get(protocol)) for axis in axes]
        lines.append(f"| {' | '.join([one['name'], *texts])} |")
    return "\n".join(lines)


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _seconds(one: Mapping) -> str:
    return _count(one["seconds"].get("inject"))


def verdicts_of(cells: Sequence[dict]) -> dict[str, Verdicts]:
    """Return the comparisons of all pairs of rows: of the headline protocol, and of retention.

    Each of the two is one family for the correction. Retention is one column, in which each
    document of each task is a case.
    """
    rows = [row({**one, "key": one["name"]}) for one in cells]
    tables = {one["name"]: _table(one) for one in cells}
    headline = next(iter(PROTOCOLS))
    return {protocol: judge(rows, tables, protocol) for protocol in (headline, RETENTION)}


def _table(one: Mapping) -> pandas.DataFrame:
    """Return the stored items of a cell in the form in which ``comparisons.items`` returns them."""
    parts = []
    for protocol, columns in one["items"].items():
        for column, scores in columns.items():
            kept = protocol == RETENTION
            cases = [f"{column} {case}" if kept else case for case in scores]
            parts.append(
                pandas.DataFrame(
                    {
                        "case": cases,
                        "score": list(scores.values()),
                        "protocol": protocol,
                        "column": ALL_TASKS if kept else column,
                    }
                )
            )
    return pandas.concat(parts, ignore_index=True).assign(seed=0, item=0)


def ahead_lines(verdicts: Mapping[str, Verdicts]) -> str:
    """Return, for each column and row, the rows that it is ahead of after correction."""
    lines = [f"Ahead of others (p <= {LEVEL} after Holm's correction, over all pairs and columns):"]
    for found in verdicts.values():
        beaten: dict[str, dict[str, list[str]]] = {}
        for c in found.comparisons:
            if c.p <= LEVEL:
                better, worse = (c.one, c.other) if c.difference > 0 else (c.other, c.one)
                beaten.setdefault(c.column, {}).setdefault(better, []).append(worse)
        for column, by_row in beaten.items():
            for name in sorted(by_row, key=lambda name: (-len(by_row[name]), name)):
                lines.append(f"- {TITLES.get(column, column)}: {name} > {', '.join(by_row[name])}")
    return "\n".join(lines if len(lines) > 1 else [*lines, "- none"])


def claim_lines(cells: Sequence[dict], verdicts: Mapping[str, Verdicts]) -> str:
    """Return a table of the claims, and what is seen of each."""
    by_name = {one["name"]: one for one in cells}
    lines = ["| row | paper | says | seen here |", "|---|---|---|---|"]
    for claim in CLAIMS:
        if claim.name in by_name:
            found = "; ".join(judged(claim, by_name, verdicts)) or "not compared"
            lines.append(f"| {claim.name} | {claim.paper} | {claim.says} | {found} |")
    return "\n".join(lines)


def judged(claim: Claim, cells: Mapping[str, dict], verdicts: Mapping[str, Verdicts]) -> list[str]:
    """Return a text for each comparison of a claim, with the difference of the means.

    ``ahead`` is seen if the corrected test says so, and contradicted if it says the opposite.
    ``not behind`` is contradicted if the other row is ahead; a test cannot show more.
    """
    texts = []
    for relation, column, others in claim.parts:
        title = TITLES.get(column, column)
        if relation == "keeps":
            kept = mean_retention(claim.name, cells[claim.name]["retention"])
            mean, low, high = kept["mean"], kept["low"], kept["high"]
            if mean is not None and low is not None and high is not None:
                word = "seen" if low >= 0.99 else "not seen" if high < 0.99 else "open"
                texts.append(f"{title} {cells_text(kept)}: {word}")
            continue
        for other in others:
            if (found := _difference(verdicts, claim.name, other, column)) is None:
                continue
            difference, p = found
            sure = p <= LEVEL
            if relation == "ahead":
                word = "not seen" if not sure else "seen" if difference > 0 else "contradicted"
            else:
                word = "contradicted" if sure and difference < 0 else "not contradicted"
            texts.append(f"{title} {difference:+.2f} against {other}: {word}")
    return texts


def _difference(
    verdicts: Mapping[str, Verdicts], name: str, other: str, column: str
) -> tuple[float, float] | None:
    """Return the mean of ``name`` minus that of ``other`` with its p, if they were compared."""
    for found in verdicts.values():
        for c in found.comparisons:
            if c.column == column and {c.one, c.other} == {name, other}:
                return (c.difference if c.one == name else -c.difference), c.p
    return None
