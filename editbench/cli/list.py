"""``editbench list``: list what is installed, or describe one method, corpus or evaluator."""

from __future__ import annotations

import difflib
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from editbench.cli import console
from editbench.cli.options import AsJson
from editbench.cli.sheet import wrapped
from editbench.errors import OptionError, PluginError

if TYPE_CHECKING:
    from editbench.cli.describe import (
        CorpusDescription,
        EvaluatorDescription,
        MethodDescription,
        OptionDescription,
    )
    from editbench.registry import Group

TEXT_WIDTH = 96
"""Width of running text in columns; a narrower terminal has less."""


def list_names(
    what: Annotated[
        str,
        typer.Argument(
            metavar="methods|corpora|evaluators|trackers|tasks|models|suites|NAME",
            help="A kind of thing, or the name of a method, corpus, evaluator or suite.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """List what is installed, or describe one method, corpus, evaluator or suite."""
    if what in LISTINGS:
        _print_listing(what, LISTINGS[what](), as_json)
    else:
        _describe(what, as_json)


# --- listings -----------------------------------------------------------------------------------


def _methods() -> list[dict[str, object]]:
    return _plugins("methods", METHOD_FIELDS) + _easyedit()


def _easyedit() -> list[dict[str, object]]:
    """Return one record for each algorithm of EasyEdit; ``lacks`` says why one cannot run here."""
    from editbench import registry

    records = registry.easyedit_records()
    for name, why in registry.not_offered().items():
        about = {**dict.fromkeys(METHOD_FIELDS), "kind": "EasyEdit", "summary": why}
        records.append({"name": name, **about, "broken": None, "lacks": why})
    return records


def _corpora() -> list[dict[str, object]]:
    return _plugins("corpora", ("form", "needs_data", "license", "summary"))


def _evaluators() -> list[dict[str, object]]:
    return _plugins("evaluators", ("title", "summary"))


def _trackers() -> list[dict[str, object]]:
    return _plugins("trackers", ("summary",))


def _tasks() -> list[dict[str, object]]:
    from editbench.run.catalog import task_names

    return [{"name": name, "summary": line} for name, line in task_names().items()]


def _models() -> list[dict[str, object]]:
    from editbench.aliases import ALIASES

    return [
        {"name": name, "summary": alias.summary, "install": "editbench setup-model"}
        for name, alias in ALIASES.items()
    ]


def _suites() -> list[dict[str, object]]:
    from editbench.run import suite

    found = map(suite.Suite.read, suite.names())
    return [
        {"name": each.name, "digest": each.digest[:12], "summary": each.summary} for each in found
    ]


METHOD_FIELDS = ("kind", "needs_subject", "needs_covariance", "paper", "summary")
HIDDEN = ("broken", "license", "needs_subject", "needs_covariance", "paper")
"""Fields of a record that the table does not show."""
LISTINGS: dict[str, Callable[[], list[dict[str, object]]]] = {
    "methods": _methods,
    "corpora": _corpora,
    "evaluators": _evaluators,
    "trackers": _trackers,
    "tasks": _tasks,
    "models": _models,
    "suites": _suites,
}
NOTES = {
    "methods": "Paper and options of a method: editbench list METHOD",
    "corpora": "More about a corpus: editbench list CORPUS",
    "evaluators": "An evaluator is a plug-in; the contract is Evaluator in editbench/plugin.py.",
    "trackers": "A tracker is told of a run with --track NAME; the contract is Tracker in"
    " editbench/plugin.py.",
    "tasks": "Any lm-eval task works by its own name; so do bfcl_simple, from a file, and your"
    " own PATH.yaml.",
    "suites": "All that a suite fixes: editbench list SUITE. Measured with compare --suite SUITE.",
}
"""Listing -> the line below it, on stderr."""


def _plugins(group: Group, attributes: Sequence[str]) -> list[dict[str, object]]:
    """Return one record for each plug-in; ``broken`` and summary say why one cannot be loaded."""
    from editbench import registry

    records: list[dict[str, object]] = []
    for name in registry.names(group):
        try:
            about = registry.about(group, name, attributes)
        except PluginError as error:
            broken = {"summary": f"BROKEN: {error}", "broken": str(error)}
            records.append({"name": name, **dict.fromkeys(attributes), **broken})
        else:
            records.append({"name": name, **about, "broken": None})
    return records


def _print_listing(what: str, records: list[dict[str, object]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(records, indent=2))
        return
    ours = [_row(record) for record in records if "lacks" not in record]
    theirs = [record for record in records if "lacks" in record]
    console.out().print(console.listing(ours, what))
    if theirs:
        _print_easyedit(theirs)
    if what in NOTES:
        console.say(NOTES[what])


def _row(record: Mapping[str, object]) -> dict[str, object]:
    """Return what the table shows of a record, so that it fits into 80 columns.

    "list NAME" and --json have the rest: a licence may be a sentence.
    """
    row = {key: value for key, value in record.items() if key not in HIDDEN}
    if "needs_subject" in record:
        needs = [word for word in ("subject", "covariance") if record[f"needs_{word}"]]
        row = {"name": row.pop("name"), "kind": row.pop("kind"), "needs": needs, **row}
    return row


def _print_easyedit(records: list[dict[str, object]]) -> None:
    """Print EasyEdit's algorithms: those that run here, then what each of the others lacks."""
    runs = [{k: r[k] for k in ("name", "summary")} for r in records if not r["lacks"]]
    if runs:
        console.out().print(console.listing(runs, "methods by EasyEdit"))
    by_reason: dict[object, list[object]] = {}
    for record in records:
        if record["lacks"]:
            by_reason.setdefault(record["lacks"], []).append(record["name"])
    others = [{"names": names, "lacks": reason} for reason, names in by_reason.items()]
    console.out().print(console.listing(others, "EasyEdit's algorithms that cannot run here"))


# --- one plug-in --------------------------------------------------------------------------------


def _describe(name: str, as_json: bool) -> None:
    """Describe the method of that name, else the corpus, the evaluator or the suite.

    Raises:
        OptionError: none of them has the name; the message suggests the nearest names.
    """
    from editbench import registry
    from editbench.cli import describe
    from editbench.run import suite

    value: MethodDescription | CorpusDescription | EvaluatorDescription | dict[str, object]
    # A pair of methods, such as memit+mixsd, is described by its parts.
    methods = (*registry.names("methods"), *registry.easyedit())
    if all(part in methods for part in name.split("+")):
        value = described = describe.describe_method(name)
        lines = _method_lines(described)
    elif name in registry.names("corpora"):
        value = corpus = describe.describe_corpus(name)
        lines = _corpus_lines(corpus)
    elif name in registry.names("evaluators"):
        value = evaluator = describe.describe_evaluator(name)
        lines = _evaluator_lines(evaluator)
    elif name in suite.names():
        value, lines = _suite(name)
    else:
        raise _unknown(name)
    if as_json:
        print(json.dumps(value, indent=2))
    else:
        page = console.out()
        for line in lines if not page.is_terminal else wrapped("\n".join(lines), page.width):
            page.print(line, markup=False, soft_wrap=True)


def _unknown(name: str) -> OptionError:
    from editbench import registry
    from editbench.run import suite

    known = [
        *LISTINGS,
        *registry.names("methods"),
        *registry.easyedit(),
        *registry.names("corpora"),
        *registry.names("evaluators"),
        *suite.names(),
    ]
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    meant = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return OptionError(
        f"There is nothing to list under {name!r}.{meant} Give {', '.join(LISTINGS)}, or the name"
        " of a method, corpus, evaluator or suite."
    )


def _suite(name: str) -> tuple[dict[str, object], list[str]]:
    """Return what a suite fixes: for JSON, and the lines of its file."""
    from editbench.run import suite

    found = suite.Suite.read(name)
    text = (suite.FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    return {**asdict(found), "digest": found.digest}, [*text.splitlines(), f"# {found.digest}"]


def _method_lines(method: MethodDescription) -> list[str]:
    needs = [
        words
        for needed, words in (
            (method["needs_subject"], "a subject in each fact"),
            (method["needs_covariance"], "covariance statistics (editbench stats)"),
        )
        if needed
    ]
    return [
        f"{method['name']} ({method['kind']}): {method['summary']}",
        *_labelled("paper", method["paper"]),
        *_labelled("needs", " and ".join(needs)),
        "",
        *_text(method["about"]),
        "",
        f"Options (inject: --option KEY=VALUE; compare: --option {method['name']}.KEY=VALUE)",
        *(line for option in method["options"] for line in _option_lines(option)),
        *_recipe_lines(method["recipes"]),
    ]


def _option_lines(option: OptionDescription) -> list[str]:
    lines = [
        "",
        f"  {option['name']}: {option['type']}; default {_default_text(option['default'])}",
    ]
    if option["about"]:
        lines += _text(option["about"], indent=6)
    if option["searched"]:
        lines.append(f"      tune tries: {option['searched']}")
    return lines


def _recipe_lines(recipes: Mapping[str, Mapping[str, object]]) -> list[str]:
    lines = [
        "",
        "Recipes (an option that stands for several; those given besides win)",
    ]
    for recipe, options in recipes.items():
        shown = ", ".join(f"{key}={_default_text(value)}" for key, value in options.items())
        lines += ["", f"  {recipe}", *_text(shown, indent=6)]
    return lines if recipes else []


def _default_text(value: object) -> str:
    from editbench.cli.describe import NONE

    if value is None:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def _corpus_lines(corpus: CorpusDescription) -> list[str]:
    data = "yes: --data, a path, a hub id or a URL" if corpus["needs_data"] else "no"
    return [
        f"{corpus['name']}: {corpus['summary']}",
        *_labelled("form", corpus["form"]),
        *_labelled("license", corpus["license"]),
        *_labelled("needs data", data),
        *_labelled("url", corpus["url"]),
        *_labelled("sha256", corpus["sha256"]),
        "",
        *_text(corpus["about"]),
    ]


def _evaluator_lines(evaluator: EvaluatorDescription) -> list[str]:
    return [
        f"{evaluator['name']}: {evaluator['summary']}",
        *_labelled("column", evaluator["title"]),
        "",
        *_text(evaluator["about"]),
    ]


def _labelled(label: str, text: str | None) -> list[str]:
    return [f"{label}: {text}"] if text else []


def _text(text: str, indent: int = 0) -> list[str]:
    """Return a docstring as lines: paragraphs are filled, lists and indented blocks are kept."""
    width = min(TEXT_WIDTH, console.out().width - 1)
    margin = " " * indent
    lines: list[str] = []
    for paragraph in text.replace("``", "'").split("\n\n"):
        lines += [""] if lines else []
        if any(line.startswith((" ", "-", "*")) for line in paragraph.split("\n")):
            lines += [margin + line for line in paragraph.split("\n")]
        else:
            lines += textwrap.wrap(
                paragraph, width, initial_indent=margin, subsequent_indent=margin
            )
    return lines
