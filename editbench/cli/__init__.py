"""The command line: one file per command, plus the options and the console that they share.

Commands import torch, pandas and whatever else is slow to load inside their functions, so that
``--help`` and most wrong usage are answered at once.
"""


def main() -> None:
    """Run the console script."""
    from editbench.cli.app import main as run

    run()
