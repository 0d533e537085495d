"""The command line of the studies: a command, and the names behind it.

A study's docstring holds its usage as a block of lines that begin with ``python``.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from editbench.errors import EditbenchError


class UsageError(EditbenchError):
    """An argument that a study does not know."""


def check_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Check that a study knows all ``names``.

    Raises:
        UsageError: for the first name that it does not know; lists those that it knows.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise UsageError(f"There is no {what} {name!r}. Known: {'; '.join(known)}.")


def run(about: str, commands: Mapping[str, Callable[..., None]], arguments: Sequence[str]) -> None:
    """Call the command that ``arguments`` begin with, with the rest as its arguments.

    With ``--help`` the docstring is printed. A wrong command line ends the process with the reason
    and the usage.

    Args:
        about: the study's docstring.
    """
    command, *rest = arguments or ("",)
    if command in ("-h", "--help"):
        print(about.strip())
        return
    try:
        if not command:
            raise UsageError("Give a command.")
        check_names("command", [command], commands)
        try:
            inspect.signature(commands[command]).bind(*rest)
        except TypeError:
            raise UsageError(f"The arguments do not fit {command!r}.") from None
        commands[command](*rest)
    except UsageError as error:
        lines = [line for line in about.splitlines() if line.startswith("    ")]
        sys.exit("\n".join([str(error), "Usage:", *lines]))
    except EditbenchError as error:
        sys.exit(str(error))
