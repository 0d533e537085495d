"""Models with edits on them: what a sequential editor may meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from editbench.edit import Edit
from editbench.methods.sft import Sft
from editbench.models import LanguageModel
from editbench.plugin import Method
from editbench.testing import tiny_options
from editbench.types import Fact


@contextmanager
def edited_by(
    methods: Sequence[Method], model: LanguageModel, facts: Sequence[Fact]
) -> Iterator[list[Edit]]:
    """Apply one edit of ``facts`` for each method, each made on top of those before it."""
    with ExitStack() as stack:
        edits = []
        for method in methods:
            edits.append(method.inject(model, facts))
            stack.enter_context(edits[-1].applied(model))
        yield edits


def reloaded(edit: Edit, folder: Path) -> Edit:
    """Save ``edit`` and load it, as another process would."""
    return Edit.load(edit.save(folder))


def trainer() -> Sft:
    """Return a trainer, whose edits move the weights and keep no prefixes."""
    return Sft(**{**tiny_options(Sft), "epochs": 2})
