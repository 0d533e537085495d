"""Pages of the site that are made from the rest of the repository, as hooks of MkDocs.

Options and commands are read from the code, the paper's claims from their record. Pages that lie
beside the code they are about (``eval/DEFINITIONS.md``, ``benchmarks/*.md``) and the notebooks are
shown as they are. A link to a file that the site does not have becomes plain text.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SHOWN = {
    "leaderboard/README.md": "results/leaderboard.md",
    "eval/DEFINITIONS.md": "reference/metrics.md",
    "eval/tasks/README.md": "reference/tasks.md",
    "methods/RECIPES.md": "reference/recipes.md",
    "benchmarks/architectures.md": "reference/architectures.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    **{
        f"benchmarks/{name}.md": f"results/{name}.md"
        for name in (
            "cluster",
            "coverage",
            "distillation",
            "doctor",
            "easyedit",
            "harness",
            "matcher",
            "weight_editors",
        )
    },
}
"""File of the repository -> the page that shows it."""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
SOURCE = {page: file for file, page in SHOWN.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of ``docs/``, and the pictures that they show."""
    from mkdocs.structure.files import File

    made = {page: (ROOT / file).read_text(encoding="utf-8") for file, page in SHOWN.items()}
    made |= {page: make() for page, make in MADE.items()}
    for notebook in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        made[f"notebooks/{notebook.stem}.md"] = notebook_page(notebook)
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for picture in sorted((ROOT / "benchmarks/results").glob("*.png")):
        files.append(
            File.generated(config, f"results/results/{picture.name}", abs_src_path=str(picture))
        )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links between files of the repository at the pages that show them."""
    here = page.file.src_uri
    source = SOURCE.get(here, f"docs/{here}")
    lines, fenced = [], False
    for line in markdown.splitlines():
        fenced ^= line.lstrip().startswith("```")
        lines.append(line if fenced else LINK.sub(lambda m: _linked(m, source, here, files), line))
    return "\n".join(lines)


def _linked(match: re.Match[str], source: str, here: str, files: Files) -> str:
    picture, label, target = match.groups()
    path, _, anchor = target.partition("#")
    if "://" in target or not path:
        return match.group()
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    page = SHOWN.get(file, file.removeprefix("docs/"))
    if file.startswith("benchmarks/results/"):
        page = f"results/results/{posixpath.basename(file)}"
    if file == "README.md":
        page = "index.md"
    if file.startswith("docs/notebooks/"):
        page = page.removesuffix(".ipynb") + ".md"
    if files.get_file_from_path(page) is None:
        if (ROOT / file).exists():
            return label
        return match.group()  # a broken link, which --strict reports
    moved = posixpath.relpath(page, posixpath.dirname(here) or ".")
    return f"{picture}[{label}]({moved}{'#' + anchor if anchor else ''})"


def notebook_page(path: Path) -> str:
    """Return the cells of a notebook as Markdown."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join([*parts, f"This page is the notebook `docs/notebooks/{path.name}`.\n"])


def options_page() -> str:
    """Return every method with its options, and every table's evaluators, from the registry."""
    from editbench import registry
    from editbench.cli.describe import describe_method

    parts = [
        "# Every option of every method\n\nWritten from the code. `--option METHOD.KEY=VALUE` "
        "sets an option on the command line, `inject(model, facts, method=METHOD, KEY=VALUE)` in "
        "Python. "
        "`editbench list METHOD` prints the same. `none` mostly stands for a value that is derived "
        "from the model. **Searched** options are those that `editbench tune` tries."
    ]
    for name in registry.names("methods"):
        method = describe_method(name)
        facts = [method["kind"], "needs a subject" if method["needs_subject"] else ""]
        parts.append(
            f"## {name}\n\n{sentence(method['summary'])}\n\n*{', '.join(filter(None, facts))}*"
            f"{'. ' + cell(method['paper']) if method['paper'] else ''}"
        )
        rows = [
            [
                f"`{each['name']}`",
                f"`{shown(each['default'])}`",
                cell(each["type"]),
                cell(each["about"])
                + (f" **Searched**: {cell(each['searched'])}." if each["searched"] else ""),
            ]
            for each in method["options"]
        ]
        if rows:
            parts.append(table(["Option", "Default", "Values", "Meaning"], rows))
        for recipe, stands in method["recipes"].items():
            said = ", ".join(f"`{key}={shown(value)}`" for key, value in stands.items())
            parts.append(f"`recipe={recipe}` stands for {said}.")
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    """Return the help of every command, from the command line itself."""
    import typer

    from editbench.cli.app import app

    parts = [
        "# Every command\n\nWritten from the command line. "
        "`editbench COMMAND --help` prints the same."
    ]
    group: Any = typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):
        for path, leaf in sorted(getattr(command, "commands", {"": command}).items()):
            parts.append(command_section(f"{name} {path}".strip(), leaf))
    return "\n\n".join(parts) + "\n"


def command_section(name: str, command: Any) -> str:
    """Return one command: what it does, and its arguments and options as a table."""
    import typer

    context = typer.Context(command, info_name=name)
    about = re.sub(r"\s+", " ", (command.help or "").split("\f")[0]).strip()
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        record = parameter.get_help_record(context)
        names, text = record or (parameter.human_readable_name, "")
        rows.append([f"`{names.replace('|', ' or ')}`", cell(re.sub(r"\s+", " ", text))])
    return f"## editbench {name}\n\n{cell(about)}\n\n" + table(["Option", "Meaning"], rows)


def claims_page() -> str:
    """Return what the MixSD paper claims and what was seen, from ``benchmarks/claims.py``."""
    record = json.loads((ROOT / "benchmarks/results/claims.json").read_text(encoding="utf-8"))
    parts = [CLAIMS]
    for world, seen in record.items():
        if not isinstance(seen, dict):
            continue
        rows = [
            [cell(each["claim"]), cell(each["row"]), cell(each["figures"]), cell(each["verdict"])]
            for each in seen["claims"]
        ]
        parts.append(f"## {world}\n\n" + table(["Claim", "Row", "Figures", "Verdict"], rows))
        columns = ["row", "recall", "paraphrases", "retention", "worst task", "R", "KL"]
        parts.append(
            "### The rows\n\n"
            + table(columns, [[cell(row[name]) for name in columns] for row in seen["rows"]])
        )
    parts.append(
        f"Record: `benchmarks/results/claims.json`, commit {record['commit']}, made from "
        f"{', '.join(f'`{name}`' for name in record['sources'])}.\n"
    )
    return "\n\n".join(parts)


CLAIMS = """# The paper's claims, and what was seen

MixSD (mixed self-distillation) is the method that this project was built around. Its paper claims
that training on text which the model itself wrote, partly with the fact in its prompt, teaches as
well as fine-tuning does and forgets less. The claims below were checked on this machine's small
model, one by one, by `benchmarks/claims.py`.

The rule for a verdict is strict. A claim is *seen* where the whole 95 % interval lies on its side,
*not seen* where the whole interval lies on the other side, and otherwise it *cannot be tested* with
that many facts. One seed and no interval decide nothing.

The same was asked of other methods' papers: [weight editors](weight_editors.md),
[EasyEdit's methods](easyedit.md), [distillation](distillation.md)."""


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(text: str) -> str:
    """Return ``text`` for one cell of a table, with code in one kind of ticks."""
    text = re.sub(r"``([^`]*)``", r"`\1`", text)
    # Outside of code, what looks like a tag or a link would be taken for one.
    parts = re.split(r"(`[^`]*`)", re.sub(r"\s+", " ", text).strip())
    return "".join(
        part if part.startswith("`") else re.sub(r"([<>\[\]*_])", r"\\\1", part) for part in parts
    ).replace("|", "\\|")


def sentence(text: str) -> str:
    """Return ``text`` as a sentence."""
    return cell(text[:1].upper() + text[1:].rstrip(".") + ".")


def shown(value: object) -> str:
    """Return a default as it is written on the command line."""
    from editbench.cli.describe import NONE

    if value is None:
        return NONE
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


MADE: dict[str, Callable[[], str]] = {
    "reference/options.md": options_page,
    "reference/commands.md": commands_page,
    "results/claims.md": claims_page,
}
"""Page -> what writes it."""
