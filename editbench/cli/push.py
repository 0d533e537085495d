"""``editbench push``: an edit on the Hugging Face Hub, with a model card."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from editbench.cli import console
from editbench.cli.export import Base, IncludeFacts
from editbench.cli.loading import load_base, read_edit
from editbench.cli.options import BaseModel, LayoutParts
from editbench.cli.parsing import pairs


def push(
    edit: Annotated[Path, typer.Argument(help="A folder that 'editbench inject' wrote.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Its name on the hub.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="merged: the edited model; peft: a LoRA adapter; gguf: one file for Ollama.",
        ),
    ] = "merged",
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The run folder of 'editbench evaluate EDIT'. Its scores go into the card.",
        ),
    ] = None,
    base: Base = None,
    include_facts: IncludeFacts = False,
    public: Annotated[
        bool,
        typer.Option("--public", help="Let everybody see it. Default: private."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the files of a repository that exists."),
    ] = False,
    model: BaseModel = None,
    layout: LayoutParts = [],  # noqa: B006 - Typer reads it, nothing changes it
) -> None:
    """Push an edit to the Hugging Face Hub, with a model card.

    The card says the method, what was gained, what was lost, and the licence of the base. The
    facts' text stays here without --include-facts.
    """
    from editbench.run import push as pushing

    stored = read_edit(edit)
    pushing.check_push(repo, form, base)
    if scores is None:
        console.say(
            "The card will say that nothing was measured. To put scores in it: editbench evaluate"
            f" {quote(str(edit))}, and --scores RUN."
        )
    else:
        pushing.evaluation_of(edit, scores)
    handle = load_base(edit, stored, model, "auto", pairs(layout, "--layout"))
    url = pushing.push(
        edit,
        repo,
        model=handle,
        form=form,
        run=scores,
        base=base,
        include_facts=include_facts,
        public=public,
        overwrite=overwrite,
    )
    text = "with" if include_facts else "without"
    console.out().print(
        f"Pushed to {url}, {'' if public else 'private, '}{text} the facts' text.",
        markup=False,
        soft_wrap=True,
    )
