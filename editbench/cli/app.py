"""The Typer application. Results go to stdout, everything else to stderr.

Exit codes: 0 done; 1 a cell failed, a task could not be asked, or something differs; 2 wrong usage
or input; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from editbench import processes
from editbench.cli import console
from editbench.cli.chat import chat
from editbench.cli.compare import compare
from editbench.cli.doctor import doctor
from editbench.cli.evaluate import evaluate
from editbench.cli.export import export
from editbench.cli.facts import facts
from editbench.cli.inject import inject
from editbench.cli.leaderboard import leaderboard
from editbench.cli.list import list_names
from editbench.cli.new import new
from editbench.cli.panels import PanelCommand
from editbench.cli.plot import plot
from editbench.cli.push import push
from editbench.cli.remove import remove
from editbench.cli.setup_model import offered, setup_model
from editbench.cli.show import show
from editbench.cli.site import site
from editbench.cli.stats import stats
from editbench.cli.sweep import sweep
from editbench.cli.trace import trace
from editbench.cli.tune import tune
from editbench.cli.verify import verify
from editbench.errors import EditbenchError

app = typer.Typer(
    help="Knowledge editing: put facts into a language model's weights, and know what it cost.",
    no_args_is_help=True,
    # Plain help, since boxes and colours do not survive a pipe. PanelCommand groups the options.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from editbench import __version__

        print(f"editbench {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it, and end."
        ),
    ] = False,
) -> None:
    name = context.invoked_subcommand
    processes.check_may(f"editbench {name}", name == "inject")


for command in (facts, inject, evaluate, compare, tune, sweep):
    app.command(cls=PanelCommand)(command)
app.command("list")(list_names)
app.command()(doctor)
for command in (show, chat, remove, verify, leaderboard, site, plot):
    app.command()(command)
app.add_typer(stats, name="stats")
for command in (trace, export, push):
    app.command()(command)
app.command("setup-model")(setup_model)
app.add_typer(new, name="new")


def main() -> None:
    """Run the command line. An error that the user can fix becomes one sentence and exit code 2."""
    # Tokenizers that have run in parallel print a warning at every fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore")  # those of libraries speak to programmers
    console.accept_any_encoding()
    try:
        with processes.together():
            try:
                app(prog_name="editbench")
            except EditbenchError as error:
                if processes.count() > 1 or not offered(error):
                    raise
                app(prog_name="editbench")  # a missing model is found before anything is done
    except EditbenchError as error:
        if processes.says(str(error)):
            console.say(f"editbench{processes.which()}: {error}")
        sys.exit(2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if processes.says(message := f"{error.strerror or error}{where}."):
            print(f"editbench{processes.which()}: {message}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\neditbench: stopped.", file=sys.stderr)
        sys.exit(130)
