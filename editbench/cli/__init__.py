"""The command line: one file per command, plus the options and the console that they share."""


def main() -> None:
    """Run the console script."""
    from editbench.cli.app import main as run

    run()
