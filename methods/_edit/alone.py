"""Edits of single facts, whose values are found side by side.

Each edit is the one that its fact gets alone, up to rounding: the products of the optimisation then
have more rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from editbench.edit import Edit
from editbench.errors import NoTokenError
from editbench.methods._edit.again import Kept
from editbench.methods._edit.bench import Bench
from editbench.methods._edit.options import WeightEditor
from editbench.methods._edit.prepare import FactToken, PreparedFact
from editbench.methods._edit.shared import Shared
from editbench.methods._edit.value import FACTS_AT_ONCE, optimize
from editbench.models import LanguageModel, batched
from editbench.types import Fact

B = TypeVar("B", bound=Bench)


def each_alone(
    editor: WeightEditor[B], model: LanguageModel, facts: Sequence[Fact], clamp: float
) -> Iterator[Edit]:
    """Yield the edit of each of ``facts`` alone, in order.

    ``clamp`` is as in ``Bench.solve``. The edits of some facts are made before the first of them is
    yielded, so that the model may be used in between, if its weights are restored.
    """
    shared = Shared(editor, model)
    for some in batched(facts, FACTS_AT_ONCE):
        benches = [_begun(editor, model, fact, shared) for fact in some]
        found = [bench for bench in benches if not isinstance(bench, NoTokenError)]
        _solve(editor, found, shared, clamp)
        yield from [
            editor.edit(model, [], diagnostics={"warnings": [str(bench)]})
            if isinstance(bench, NoTokenError)
            else editor.write(bench)
            for bench in benches
        ]


def _begun(
    editor: WeightEditor[B], model: LanguageModel, fact: Fact, shared: Shared
) -> B | NoTokenError:
    """Return the bench of one fact, or why its subject cannot be read."""
    try:
        return editor.bench(model, [fact], {}, shared)
    except NoTokenError as reason:
        return reason


def _solve(editor: WeightEditor[B], benches: Sequence[Bench], shared: Shared, clamp: float) -> None:
    """Find the value of each bench's one fact, and leave it to the bench to write."""
    model = shared.model
    by_place: dict[tuple[int, FactToken], list[tuple[Bench, PreparedFact]]] = {}
    for bench in benches:
        (each,) = bench.prepared
        layer = bench.layers_of[each.token][-1]
        by_place.setdefault((layer, each.token), []).append((bench, each))
    for (layer, token), group in by_place.items():
        started = time.perf_counter()
        prepared = [each for _, each in group]
        fisher_SDD, solver = shared.fisher_SDD(layer), editor.solver(clamp)
        targets = optimize(
            model, prepared, layer, editor.sites, solver, None, fisher_SDD, shared.passes
        )
        seconds = (time.perf_counter() - started) / len(group)
        for i, (bench, each) in enumerate(group):
            found = bench.settled([each], token, clamp, targets.row(i))
            bench.kept = {each.fact.id: Kept(layer, token, found)}
            bench.seconds["targets"] = seconds
