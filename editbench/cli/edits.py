"""Show what a folder holds that is no run: a saved edit, an adapter, a fine-tuned model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from editbench.cli import console
from editbench.cli.loading import read_edit
from editbench.errors import EditbenchError, listed
from editbench.files import jsonable
from editbench.records.reading import visible

if TYPE_CHECKING:
    from editbench.edit import Edit

FILES = ("manifest.json", "edit.safetensors", "adapter_config.json", "config.json")
"""A folder with one of these, and without a run's files, is shown here."""


def is_shown_here(folder: Path) -> bool:
    """Return whether ``folder`` holds an artifact and no run."""
    is_run = any((folder / name).is_file() for name in ("run.json", "seeds.json"))
    return not is_run and any((folder / name).is_file() for name in FILES)


def show_artifact(folder: Path, as_json: bool) -> None:
    """Print what is in ``folder``.

    Raises:
        ModelError: it lacks a file.
        RecordError: a saved edit is damaged.
    """
    from editbench import artifacts

    if artifacts.kind_of(folder) == "edit":
        _show_edit(folder, as_json)
        return
    about = _about_others(folder)
    if as_json:
        print(json.dumps({"folder": str(folder), **about}, indent=2))
        return
    _print_fields(about)
    base = "" if "made from" in about else " --model BASE"
    _print_next({"Score it": f"evaluate {quote(str(folder))}{base}"})


def _about_others(folder: Path) -> dict[str, object]:
    """Return what an adapter or a fine-tuned model says of itself."""
    from editbench import artifacts
    from editbench.finetuned import read_json, weight_files

    if artifacts.kind_of(folder) == "adapter":
        config = read_json(folder / "adapter_config.json")
        return {
            "holds": f"a PEFT adapter ({config.get('peft_type')})",
            "made from": artifacts.named_base(folder),
            "rank": config.get("r"),
            "modules": config.get("target_modules"),
        }
    config = read_json(folder / "config.json")
    size = sum(file.stat().st_size for file in weight_files(folder))
    return {
        "holds": f"a whole model of type {config.get('model_type')!r}; it names no base",
        "weights": f"{size / 2**20:.0f} MiB",
    }


# --- a saved edit -------------------------------------------------------------------------------


def _show_edit(folder: Path, as_json: bool) -> None:
    edit = read_edit(folder)
    if as_json:
        print(json.dumps(jsonable({"folder": str(folder), **_as_record(edit)}), indent=2))
        return
    _print_fields(_about(folder, edit))
    page = console.out()
    table = console.listing([_fact_row(fact.to_dict()) for fact in edit.facts], "Facts")
    console.fit(page, table)
    page.print(table)
    if edit.parts:
        page.print(console.listing(list(_lineage(edit)), "Lineage, the first edit first"))
    for warning in edit.diagnostics.get("warnings", ()):
        console.say(f"{edit.method}: {warning}")
    name = quote(str(folder))
    _print_next({"Score it": f"evaluate {name}", "Ask it": f"chat {name}"})


def _as_record(edit: Edit) -> dict[str, object]:
    from editbench.changes import shape

    return {
        "method": edit.method,
        "options": edit.options,
        "model": {"name": edit.model_name, "hash": edit.model_hash},
        "facts": [fact.to_dict() for fact in edit.facts],
        "changes": {name: list(shape(change)) for name, change in edit.changes.items()},
        "diagnostics": edit.diagnostics,
        "parts": [_as_record(part) for part in edit.parts],
    }


def _about(folder: Path, edit: Edit) -> dict[str, object]:
    n = len(edit.facts)
    about: dict[str, object] = {
        "holds": f"{'a stack of edits' if edit.parts else 'an edit'} by {edit.method},"
        f" {n} fact{'s' * (n != 1)}",
        "made for": f"{edit.model_name}, weights {edit.model_hash}",
        **_removals(edit),
        "changes": _changes(edit),
    }
    if not edit.parts:
        about["options"] = ", ".join(_own_options(edit)) or "the method's defaults"
    about["cost"] = "; ".join(filter(None, map(_cost, edit.parts or [edit]))) or "not recorded"
    if edit.values is not None:
        about["kept"] = "a value for each fact: 'editbench remove' solves the rest again"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    about["files"] = f"{size / 2**20:.1f} MiB"
    return about


def _removals(edit: Edit) -> Mapping[str, str]:
    """Return from which edits this one was made by ``editbench remove``; nothing for others."""
    made = [
        f"{each['edit'] or 'an edit'} ({each['facts']} fact{'s' * (each['facts'] != 1)}) without"
        f" {listed(each['without'])}"
        for each in edit.diagnostics.get("removals", ())
    ]
    return {"made from": ", then ".join(made)} if made else {}


def _changes(edit: Edit) -> str:
    from editbench.changes import dense

    if edit.context is not None:
        return "no weights: it puts the facts before the prompts"
    total = sum(dense(c).double().pow(2).sum().item() for c in edit.changes.values()) ** 0.5
    n = len(edit.changes)
    ranks = {c[0].shape[1] if isinstance(c, tuple) else None for c in edit.changes.values()}
    rank = max((rank for rank in ranks if rank), default=0)
    low = f", rank {rank} at most" if rank and None not in ranks else ""
    return f"{n} weight{'s' * (n != 1)}{low}, by {total:.3g} (norm)"


def _own_options(edit: Edit) -> Iterator[str]:
    """Yield the options of an edit that are not the method's defaults; all of an unknown method."""
    from editbench import registry

    try:
        usual = registry.get("methods", edit.method).from_options(edit.method, {}).options()
    except EditbenchError:  # a plug-in that is not installed here
        usual = {}
    for name, value in edit.options.items():
        if name not in usual or jsonable(usual[name]) != value:
            yield f"{name}={value}"


def _cost(edit: Edit) -> str:
    cost = edit.diagnostics.get("cost")
    if not isinstance(cost, Mapping):
        return ""
    return f"{cost['seconds']:.0f} s, {cost['peak_memory_bytes'] / 2**30:.1f} GiB at most"


def _fact_row(fact: Mapping[str, object]) -> dict[str, object]:
    shown = ("id", "prompt", "target", "subject")
    return {name: console.cut(fact[name]) for name in shown if fact.get(name) is not None}


def _lineage(edit: Edit) -> Iterator[dict[str, object]]:
    for number, part in enumerate(edit.parts, start=1):
        yield {
            "edit": number,
            "method": part.method,
            "facts": len(part.facts),
            "made for weights": part.model_hash,
            "options": ", ".join(_own_options(part)) or "defaults",
        }


# --- printing -----------------------------------------------------------------------------------


def _print_fields(fields: Mapping[str, object]) -> None:
    """Print a line for each field; a long one goes on below its beginning."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None:
            texts = value if isinstance(value, list) else [value]
            table.add_row(Text(name, style="bold"), Text(visible(", ".join(map(str, texts)))))
    console.out().print(table)


def _print_next(lines: Mapping[str, str]) -> None:
    for what, command in lines.items():
        console.say(f"{what}: editbench {command}")
