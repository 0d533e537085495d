"""The command line: one file a command."""


def main() -> None:
    """The console script."""
    from editbench.cli.app import main as run

    run()
