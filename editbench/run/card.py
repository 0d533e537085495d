"""The model card of an edit on the hub: what it is, what it gained, what was lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from editbench.aliases import ALIASES
from editbench.records.schema import CellSummary
from editbench.stats import cells_text

LOAD = {
    "peft": (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        "model = AutoModelForCausalLM.from_pretrained({base!r})\n"
        "model = PeftModel.from_pretrained(model, {repo!r})\n"
        "tokenizer = AutoTokenizer.from_pretrained({repo!r})"
    ),
    "merged": (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        "model = AutoModelForCausalLM.from_pretrained({repo!r})\n"
        "tokenizer = AutoTokenizer.from_pretrained({repo!r})"
    ),
    "gguf": "ollama run hf.co/{repo}",
}
"""Format of an export -> how it is loaded."""
METRICS = {
    "efficacy": "says the new answer to the fact's own prompt",
    "generalization": "says it in other words",
    "specificity": "keeps the answers about others",
    "portability": "says what follows from the fact",
}


def model_card(
    repo: str,
    form: str,
    about: Mapping[str, Any],
    license: str | None,
    scores: tuple[CellSummary, CellSummary] | None,
    note: str = "",
) -> str:
    """Return the text of the card.

    Args:
        repo: OWNER/NAME on the hub.
        form: the format of the export (``export.FORMATS``).
        about: what ``sharing.about`` says; its facts are shown if it has their text.
        license: that of the base; ``None`` if it is not known.
        scores: the rows of the base and of the edit, from its evaluation.
        note: a sentence about the base, such as that it was quantized.
    """
    note = f" {note}" if note else ""
    base = about["base"]
    head = {
        **({"license": license} if license else {}),
        **({"base_model": base} if base else {}),
        "library_name": {"peft": "peft", "merged": "transformers", "gguf": "gguf"}[form],
        "tags": ["knowledge-editing", "editbench"],
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {repo.partition('/')[2]}",
        f"{_named(base)} with {_facts(about['facts'])} put into its weights by editbench.{note}",
        "```\n" + LOAD[form].format(base=base, repo=repo) + "\n```",
        "## How it was made",
        *(_edit(number, edit) for number, edit in enumerate(about["edits"], start=1)),
        f"The base had the weights `{about['base_weights']}` (editbench's fingerprint).",
        *_scores(scores),
        *_about_facts(about),
        "## Licence",
        f"That of the base: {license}."
        if license
        else "That of the base, which editbench could not find out. Look it up before you use this"
        " model.",
    ]
    return "\n\n".join(parts) + "\n"


def license_of(name: str) -> str | None:
    """Return the licence of the base called ``name`` where this machine knows it."""
    if name in ALIASES:
        return ALIASES[name].license
    return license_in(Path(name).expanduser() / "README.md")


def license_in(card: Path) -> str | None:
    """Return the licence that the head of a model card names, if there is one."""
    if not card.is_file():
        return None
    _, _, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    head, end, _ = rest.partition("\n---")
    try:
        fields = yaml.safe_load(head) if end else None
    except yaml.YAMLError:
        return None
    return license_name(fields.get("license") if isinstance(fields, dict) else None)


def license_name(value: object) -> str | None:
    """Return ``value``, which a card of somebody else's says, if it can be a licence's name."""
    return value if isinstance(value, str) and re.fullmatch(r"[\w.+-]+", value) else None


def _named(base: str | None) -> str:
    return f"[{base}](https://huggingface.co/{base})" if base else "A model without a hub id"


def _facts(n: int) -> str:
    return f"{n} fact{'s' * (n != 1)}"


def _edit(number: int, edit: Mapping[str, Any]) -> str:
    options = json.dumps(edit["options"], indent=1, ensure_ascii=False)
    return (
        f"{number}. `{edit['method']}`, {_facts(edit['facts'])}, with these options:\n\n"
        f"```json\n{options}\n```"
    )


def _scores(scores: tuple[CellSummary, CellSummary] | None) -> Iterator[str]:
    if scores is None:
        yield "## What it gained and lost"
        yield "**Not measured.** `editbench evaluate` was not run on this edit."
        return
    base, edit = scores
    yield "## What it gained"
    yield (
        f"Protocol `generation`: greedy answers, searched for the expected one. n = "
        f"{_facts(edit['corpus']['n'])}, mean with its 95 % interval."
    )
    rows = [
        (f"{name}: {what}", _metric(base, name), _metric(edit, name))
        for name, what in METRICS.items()
        if name in edit["metrics"]
    ]
    yield _table(("", "base", "edited"), rows)
    yield "## What was lost"
    if not edit["retention"]:
        yield "Not measured: no retention task was asked."
        return
    yield "Tasks that have nothing to do with the facts, asked of both models."
    tasks = [
        (
            name if "/" not in name else Path(name).name,
            f"{task['base']:.2f}",
            f"{task['mean']:.2f}",
            cells_text(
                {"mean": task["delta"], "low": task["delta_low"], "high": task["delta_high"]},
                sign=True,
            ),
        )
        for name, task in edit["retention"].items()
    ]
    yield _table(("task", "base", "edited", "change"), tasks)
    drift = (edit.get("diagnostics") or {}).get("drift") or {}
    if isinstance(kl := drift.get("kl"), Mapping) and kl.get("mean") is not None:
        yield f"Drift: a KL of {kl['mean']:.3g} nats a token from the base on text of its own."


def _metric(summary: CellSummary, name: str) -> str:
    estimate = cast(Any, summary["metrics"]).get(name, {}).get("generation")
    return cells_text(estimate) if estimate else "–"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", r"\|") for cell in line] for line in (head, *rows)]
    cells.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _about_facts(about: Mapping[str, Any]) -> Iterator[str]:
    yield "## The facts"
    if "facts_text" not in about:
        yield (
            f"{_facts(about['facts'])}, which are not published. The SHA-256 of their JSON is "
            f"`{about['facts_hash']}`."
        )
        return
    # JSON, so that no text of a fact is read as markup.
    lines = [json.dumps(fact, ensure_ascii=False) for fact in about["facts_text"]]
    yield "```json\n" + "\n".join(lines) + "\n```"
