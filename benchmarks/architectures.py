"""Try every method on tiny random models of many architectures, and make a table of it.

    python benchmarks/architectures.py [NAME ...] [--json OUT]
    python benchmarks/architectures.py --page BEFORE AFTER     # two stored results as markdown

Each model is taught to read a note, as in the tests. A cell is then one of

- ``works``: the target becomes more probable, the edited model and the same edit merged and loaded
  with plain transformers give the same logits, and reverting restores every weight bit for bit;
- ``refused``: the method says in one sentence why it cannot edit this model;
- ``does not apply``: a weight editor, on a model in which no linear map writes an MLP's output;
- ``fails``: anything else, with the error.

A cell says nothing about how good an edit is. Each architecture has a process of its own, with a
bound on its time and memory, so that one cannot spoil the others. Apart from the methods with their
usual options there is a column for ``sft`` with low-rank adapters.

The same script measures an older editbench: run it with the Python in which that one is installed.
``benchmarks/results/architectures_before.json`` is that of commit 3fe163d, which has no error class
of its own for a model without such a map, so each refusal of it counts as refused.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypedDict

os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads only slow models of this size down

import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from hostile import architectures as tiny  # noqa: E402  # the folder is on the path only now

from editbench import errors, registry  # noqa: E402
from editbench.checkpoints import quiet_transformers  # noqa: E402
from editbench.edit import Edit  # noqa: E402
from editbench.errors import EditbenchError  # noqa: E402
from editbench.models import LanguageModel  # noqa: E402
from editbench.plugin import Method  # noqa: E402
from editbench.testing import FACTS, teach_to_read, tiny_options  # noqa: E402

CHOSEN = FACTS[:2]
"""The facts of each cell: a cloze with its subject at the end, and one with it at the start."""
OUTCOMES = ("works", "refused", "does not apply", "fails")
ADAPTERS = "sft lora=4"
"""The column of a trainer with low-rank adapters."""
CAREFUL: dict[str, object] = {"steps": 25, "covariance_tokens": 4000}
"""Options for a second attempt where the target does not become more probable in the few steps, and
with the small covariance, of the tests. The methods' own defaults are higher still."""
NOT_REACHED = "the targets went"
SECONDS = 120
"""Longest time for all cells of one architecture."""
GIBIBYTES = 6
"""Most memory that one architecture may take, in addition to what Python and torch take."""
DIFFERENCE = 1e-3
"""Largest difference between the logits of an applied and of a merged edit, as a share of their
standard deviation."""


class Cell(TypedDict):
    """What one method does on one architecture."""

    outcome: str
    """One of ``OUTCOMES``."""
    why: str
    """The sentence of a refusal, or the error; empty where it works."""


Row = dict[str, Cell]
"""The cells of one architecture, by column."""


# --- one cell -------------------------------------------------------------------------------------


def build(name: str) -> LanguageModel:
    """Return a tiny model of the architecture ``name`` that has learned to read a note."""
    # Some configurations want an integer for every special token.
    ends = {"bos_token_id": 1, "pad_token_id": 2}.items()
    own = tiny.ARCHITECTURES[name][1]
    model = tiny.build(name, **{end: token for end, token in ends if end not in own})
    return teach_to_read(model, FACTS)


def columns() -> list[str]:
    """Return the columns: all methods but ``base``, and ``sft`` with adapters."""
    return [*(name for name in registry.names("methods") if name != "base"), ADAPTERS]


def cell(column: str, model: LanguageModel) -> Cell:
    """Return what the method of ``column`` does on ``model``."""
    method, *settings = column.split()
    options = dict(setting.split("=") for setting in settings)
    cls = registry.get("methods", method)
    known = cls.from_options(method, {}).options()
    careful = {name: value for name, value in CAREFUL.items() if name in known}
    result = _tried(cls, {**tiny_options(cls), **options}, model)
    if result["why"].startswith(NOT_REACHED) and careful:
        result = _tried(cls, {**tiny_options(cls), **options, **careful}, model)
    return result


def _tried(cls: type[Method], options: dict[str, object], model: LanguageModel) -> Cell:
    """Return what a method with these options does on ``model``."""
    weights = model.fingerprint()
    try:
        before = probability(model)
        edit = cls.from_options(cls.name, options).inject(model, list(CHOSEN))
    except EditbenchError as error:
        # an older editbench has no such class
        inapplicable = isinstance(error, getattr(errors, "NoDenseMlp", ()))
        return {"outcome": OUTCOMES[2 if inapplicable else 1], "why": str(error)}
    except Exception as error:  # a traceback is what this table is there to find
        return _failure(error)
    try:
        with edit.applied(model):
            after = probability(model)
        prompt, target = model.pair_ids(CHOSEN[0].prompt, CHOSEN[0].target, CHOSEN[0].form)
        far = merged_differs(edit, model, prompt + target) if edit.changes else 0.0
    except Exception as error:  # also a sentence: an edit that cannot be used is none
        return _failure(error)
    if model.fingerprint() != weights:
        return {"outcome": "fails", "why": "reverting changed the weights"}
    if not far <= DIFFERENCE:
        return {"outcome": "fails", "why": f"merged differs from applied by {far:.1e} of a spread"}
    if not after > before:
        why = f"{NOT_REACHED} from {before:.2f} to {after:.2f} nats a token"
        return {"outcome": "fails", "why": why}
    return {"outcome": "works", "why": ""}


def _failure(error: Exception) -> Cell:
    return {"outcome": "fails", "why": f"{type(error).__name__}: {str(error)[:200]}"}


def probability(model: LanguageModel) -> float:
    """Return the mean log-probability of the targets' tokens, in nats."""
    pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in CHOSEN]
    return torch.cat(model.target_logprobs(pairs)).mean().item()


def merged_differs(edit: Edit, model: LanguageModel, ids: list[int]) -> float:
    """Return how far the merged model, loaded by plain transformers, is from the applied edit."""
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        edit.merge(model, Path(folder) / "merged")
        plain = AutoModelForCausalLM.from_pretrained(Path(folder) / "merged").eval()
        with edit.applied(model):
            applied = logits(model.model, ids)
        return (logits(plain, ids) - applied).abs().max().item() / applied.std().item()


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """Return the logits (T, V) of one text, by the model's own forward pass."""
    with torch.no_grad():
        output: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return output.float()


# --- one architecture, in a process of its own ----------------------------------------------------


def row(name: str, wanted: Sequence[str]) -> Row:
    """Return the cells of one architecture, within ``SECONDS`` and ``GIBIBYTES``."""
    # A fork has everything imported already, and no thread has been started before it.
    context = multiprocessing.get_context("fork")
    results, sender = context.Pipe(duplex=False)
    process = context.Process(target=_fill, args=(name, wanted, sender), daemon=True)
    process.start()
    sender.close()  # so that the end of the process ends the pipe
    cells: Row = {}
    end, why = time.monotonic() + SECONDS, f"no result after {SECONDS} seconds"
    while len(cells) < len(wanted) and results.poll(max(0.0, end - time.monotonic())):
        try:
            column, result = results.recv()
        except EOFError:
            process.join()
            why = f"the process ended with exit code {process.exitcode}"
            break
        cells[column] = result
    process.kill()
    process.join()
    return {column: cells.get(column, {"outcome": "fails", "why": why}) for column in wanted}


def _fill(name: str, wanted: Sequence[str], sender: Connection) -> None:
    """Send the cells of one architecture, one by one."""
    _bound_memory()
    warnings.simplefilter("ignore")
    try:
        model = build(name)
    except Exception as error:  # as in a cell
        for column in wanted:
            sender.send((column, _failure(error)))
        return
    for column in wanted:
        sender.send((column, cell(column, model)))


def _bound_memory() -> None:
    import resource  # not on Windows

    pages = int(Path("/proc/self/statm").read_text().split()[0])  # Linux
    limit = pages * resource.getpagesize() + GIBIBYTES * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


# --- the page -------------------------------------------------------------------------------------


def works_with_all(cells: Row) -> bool:
    """Return whether every method that applies works, and at least one does."""
    outcomes = {one["outcome"] for one in cells.values()}
    return "works" in outcomes <= {"works", "does not apply"}


def page(before: Mapping[str, Row], after: Mapping[str, Row]) -> str:
    """Return two results as a page: what changed in numbers, all cells, all reasons."""
    reasons: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    rows = []
    for name, cells in after.items():
        shown = [_shown(name, column, one, reasons) for column, one in cells.items()]
        rows.append([name, *shown])
    heads = list(next(iter(after.values())))
    lines = [
        "# Architectures and methods",
        "",
        "<!-- Written by `python benchmarks/architectures.py --page`; do not edit by hand. -->",
        "",
        f"What each method does on a tiny random model of each of {len(after)} architectures, as "
        "`transformers` builds them. A cell *works* if the target becomes more probable, the "
        "edited model and the same edit merged and loaded with plain `transformers` give the same "
        "logits, and reverting restores every weight bit for bit. It is *refused* if the method "
        "says in one sentence why it cannot edit this model. It *does not apply* if a weight "
        "editor finds no linear map that writes an MLP's output in any layer. All else *fails*. "
        "The numbers stand for the reasons below the table. A cell says nothing about how good an "
        "edit is.",
        "",
        "The models are in `tests/hostile/architectures.py`, the stored results in "
        "`benchmarks/results/architectures.json` and `architectures_before.json` (commit 3fe163d, "
        "measured by the same script; it could not tell *does not apply* from *refused*, and had "
        "no `pd`, which the numbers leave out).",
        "",
        "## Before and after",
        "",
        *_table(["", "before", "after"], _counts(before, after)),
        "",
        "## Cells",
        "",
        *_table(["architecture", *heads], rows),
        "",
        "## Reasons",
        "",
        "MODEL and METHOD stand for the names of the model's class and of the method.",
        "",
    ]
    for number, ((outcome, why), cells_of) in enumerate(reasons.items(), 1):
        cells_named = _cells(cells_of)
        lines.append(f"{number}. *{outcome}*: {why} ({cells_named})")
    return "\n".join(lines) + "\n"


def _counts(before: Mapping[str, Row], after: Mapping[str, Row]) -> list[list[str]]:
    """Return the rows of the table of numbers. A method that is new has no part in them."""
    known = {name: {c: cells[c] for c in before[name]} for name, cells in after.items()}
    both = (before, known)
    total = ["architectures", *(str(len(rows)) for rows in both)]
    everything = [
        "work with every method that applies",
        *(str(sum(map(works_with_all, rows.values()))) for rows in both),
    ]
    counted = []
    for outcome in OUTCOMES:
        numbers = [
            sum(one["outcome"] == outcome for cells in rows.values() for one in cells.values())
            for rows in both
        ]
        counted.append([f"cells: {outcome}", *map(str, numbers)])
    return [total, everything, *counted]


def _shown(name: str, column: str, one: Cell, reasons: dict[tuple[str, str], list[str]]) -> str:
    """Return a cell's outcome with the number of its reason, which is added to ``reasons``."""
    if one["outcome"] == "works":
        return "works"
    why = re.sub(rf"\b\w+(?:ForCausalLM|LMHeadModel)\b|\btiny-{name}\b", "MODEL", one["why"])
    why = re.sub(rf"\b{column.split()[0]}\b", "METHOD", why)
    why = re.sub(r"-?\d+\.\d+ to -?\d+\.\d+", "x to y", why).replace("|", "\\|").replace("\n", " ")
    key = one["outcome"], why
    reasons[key].append(f"{name} {column}")
    return f"{one['outcome']} ({list(reasons).index(key) + 1})"


def _cells(names: Sequence[str]) -> str:
    """Return cells as text, by architecture, with the count of those that are left out."""
    shown = ", ".join(dict.fromkeys(name.split()[0] for name in names))
    return f"{len(names)} cells: {shown}" if len(names) > 1 else names[0]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def main() -> None:
    """Fill the table and print each row as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    arguments = parser.parse_args()
    if arguments.page:
        before, after = (json.loads(path.read_text(encoding="utf-8")) for path in arguments.page)
        print(page(before, after), end="")
        return
    rows: dict[str, Row] = {}
    for name in arguments.names or tiny.ARCHITECTURES:
        rows[name] = row(name, columns())
        counts = Counter(one["outcome"] for one in rows[name].values())
        print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in counts.items()), flush=True)
        for column, one in rows[name].items():
            if one["outcome"] == "fails":
                print(f"  {column}: {one['why']}", flush=True)
        if arguments.json:
            lines = [f"{json.dumps(one)}: {json.dumps(rows[one])}" for one in rows]
            text = "{\n" + ",\n".join(lines) + "\n}\n"  # a line for each architecture
            arguments.json.write_text(text, encoding="utf-8")
    every = sum(map(works_with_all, rows.values()))
    print(f"{every} of {len(rows)} architectures work with every method that applies")


if __name__ == "__main__":
    main()
