"""``editbench new``: write the smallest working plug-in project."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from editbench.cli import console
from editbench.cli.output import make_folder
from editbench.errors import OptionError

FILES = {
    "pyproject.toml": "pyproject.toml.j2",
    "README.md": "README.md.j2",
    "{module}.py": "method.py.j2",
    "tests/test_{module}.py": "test_method.py.j2",
}
"""File of the project -> its template."""

new = typer.Typer(
    help="Start a plug-in project of your own.", no_args_is_help=True, rich_markup_mode=None
)


@new.callback()
def _group() -> None:
    # Without a callback, Typer replaces a group that has one command by that command.
    pass


@new.command("method")
def new_method(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder of the project. Default: NAME.")
    ] = None,
) -> None:
    """Write a method that works: a package with an entry point and a test."""
    check_name(name)
    folder = output or Path(name)
    make_folder(folder)
    for path, text in method_project(name).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        console.out().print(str(file), markup=False, soft_wrap=True)
    console.say(
        f"\nInstall and test it:\n  pip install --editable {folder}\n  python -m pytest {folder}\n"
        f"Then: editbench compare --methods {name},memit"
    )


def check_name(name: str) -> None:
    """Check that a method may be called ``name``.

    Raises:
        OptionError: the name has other characters, or an installed method has it.
    """
    from editbench import registry

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise OptionError(
            f"Method name {name!r} must be lower-case letters, digits and single hyphens, and begin"
            " with a letter, as in one-step."
        )
    if name in registry.names("methods"):
        raise OptionError(f"There is a method {name!r} already. Choose another name.")


def method_project(name: str) -> dict[str, str]:
    """Return the files of a project for the method ``name``: path -> text."""
    from jinja2 import Environment, StrictUndefined

    from editbench import __version__

    # StrictUndefined: a misspelt variable in a template is an error instead of an empty text.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    words = {
        "name": name,
        # The prefix avoids a clash with a module of Python, such as json or copy.
        "module": f"editbench_{name.replace('-', '_')}",
        "class_name": "".join(part.capitalize() for part in name.split("-")) + "Method",
        "version": __version__,
    }
    templates = files("editbench.cli") / "templates"
    return {
        path.format(**words): environment.from_string(
            (templates / template).read_text(encoding="utf-8")
        ).render(words)
        for path, template in FILES.items()
    }
