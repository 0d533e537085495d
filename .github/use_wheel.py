"""Use an installed wheel as a user does, on a tiny model: inject, compare, show, evaluate.

It runs in an empty folder, on each system, and needs no network.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import editbench
from editbench.models import quiet_transformers
from editbench.testing import tiny_model

FACTS = """prompt,target,subject
The capital of France is,London,France
The capital of Spain is,Rome,Spain
"""
COMMANDS = (
    ("--help", (0,)),
    ("list methods", (0,)),
    ("facts facts.csv --model none", (0,)),
    # A tiny model with random weights may not learn its facts, which exit code 1 says.
    ("inject --method memit --facts facts.csv --output edit --model tiny", (0, 1)),
    ("inject --method sft --facts facts.csv --output edit --model tiny --overwrite", (0, 1)),
    ("show edit", (0,)),
    (
        "compare --methods sft,memit --facts facts.csv --model tiny --tasks eb_grammar --limit 2"
        " --output run",
        (0,),
    ),
    ("show run", (0,)),
    ("verify run", (0,)),
)


def main() -> None:
    """Run all commands; an exit code that is not expected ends the script with that command."""
    root = Path(__file__).resolve().parent
    assert root not in Path(editbench.__file__).parents, editbench.__file__
    model = tiny_model("llama", num_hidden_layers=2)
    with quiet_transformers():
        model.model.save_pretrained("tiny")
        model.tokenizer.save_pretrained("tiny")
    Path("facts.csv").write_text(FACTS, encoding="utf-8")
    for command, codes in COMMANDS:
        print(f"$ editbench {command}", flush=True)
        # Through a pipe, whose encoding on Windows lacks the arrows of the tables.
        done = subprocess.run(
            [sys.executable, "-m", "editbench", *command.split()], stdout=subprocess.PIPE
        )
        sys.stdout.buffer.write(done.stdout)
        if done.returncode not in codes:
            sys.exit(f"editbench {command} ended with {done.returncode}")


if __name__ == "__main__":
    main()
