"""Write runs as static pages to explore: tables, a plot, and every text behind a number.

The pages open from disk. Libraries, styles and data are inside them, and their security policy
forbids everything else, so no page asks for anything. Data is JSON in a script element of a type
that browsers do not run, and the scripts show texts as texts.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editbench.errors import RecordError
from editbench.leaderboard.answers import Texts, place_of, read_texts
from editbench.leaderboard.columns import VIEWS, Value, Values, parts
from editbench.leaderboard.comparisons import RETENTION, judge
from editbench.leaderboard.markdown import conditions, title_of
from editbench.leaderboard.notes import notes
from editbench.leaderboard.rows import BASE, family, rivals, rows, without_facts
from editbench.leaderboard.schema import Row
from editbench.leaderboard.sections import Section, Sections, read_sections
from editbench.leaderboard.tables import (
    detectable_line,
    is_infeasible,
    is_partial,
    is_untuned,
    unescaped,
)
from editbench.leaderboard.tooltips import PROTOCOLS
from editbench.records.reading import heading, read_summary, visible
from editbench.types import digest

INDEX = "index.html"
FOLDER = Path(__file__).parent / "site"
VENDOR = ("vendor/table-core.min.js", "vendor/d3.min.js", "vendor/plot.umd.min.js")
INDEX_SCRIPTS = (*VENDOR, "common.js", "copies.js", "table.js", "plot.js", "index.js")
TEXT_SCRIPTS = ("common.js", "texts.js")
CITATION = """\
@software{editbench,
  title = {editbench: knowledge editing for language models},
  author = {{The editbench authors}},
  version = {VERSION},
  license = {Apache-2.0}
}
"""


def pages(
    run_paths: Sequence[Path], kinds: Mapping[str, str], command: str, version: str
) -> dict[str, str]:
    """Return the pages of runs by file name: ``index.html``, and one of texts for each setting.

    Cells make sections and rows as on a markdown page (``sections.read_sections``).

    Args:
        kinds: method -> its family, such as ``trainer``.
        command: the command that makes the pages, to be told on them.
        version: that of editbench, for the citation.

    Raises:
        RecordError: if there is no run, a path is not a readable run, or a table was changed.
    """
    read = read_sections(run_paths)
    made: dict[str, str] = {}
    shown = []
    for section in read.sections:
        setting = _Setting(section, read, kinds)
        if setting.texts["answers"]:
            made[setting.page] = _page("texts.html.j2", setting.texts_data(INDEX), TEXT_SCRIPTS)
        shown.append(setting.tables_data())
    data = {
        "sections": shown,
        "views": VIEWS,
        "citation": CITATION.replace("VERSION", version),
        "command": command,
    }
    return {INDEX: _page("index.html.j2", data, INDEX_SCRIPTS), **made}


def texts_page(run: Path) -> str:
    """Return the texts of one run as one page.

    Raises:
        RecordError: as ``pages``, if the cells of the run make several tables, or if there are no
            texts.
    """
    read = read_sections([run])
    if len(read.sections) > 1:
        raise RecordError(
            f"{run} holds cells that were measured under {len(read.sections)} different "
            "conditions, so they have no common page. 'editbench site' makes one for each."
        )
    setting = _Setting(read.sections[0], read, {})
    if not setting.texts["answers"]:
        raise RecordError(f"{run} has no page of texts, since it has no texts: only its scores.")
    return _page("texts.html.j2", setting.texts_data(""), TEXT_SCRIPTS)


class _Setting:
    """One section of runs, as the pages hold it."""

    def __init__(self, section: Section, read: Sections, kinds: Mapping[str, str]):
        self.section, self.read, self.kinds = section, read, kinds
        self.id = digest(section.where)[:10]
        self.page = f"texts-{self.id}.html"
        self.ranked = {
            protocol: rows(summaries, protocol)
            for protocol, summaries in section.by_protocol().items()
        }
        self.headline = next(iter(self.ranked))
        self.labels = {
            row["key"]: row.get("label", row["method"]) for row in self.ranked[self.headline]
        }
        self.texts: Texts = read_texts(
            {
                summary["key"]: [
                    (path.parents[2], read_summary(path))
                    for _, path in read.records[summary["key"]]
                ]
                for summary in section.summaries
            }
        )

    def tables_data(self) -> dict[str, Any]:
        """Return the tables of all protocols, with the remarks below them."""
        where = self.section.where
        line = unescaped(
            conditions(where, self.headline, self.ranked[self.headline], self.section.suite)
        )
        shown, *hashes = line.split(" · model ")  # what identifies the inputs comes last
        return {
            "id": self.id,
            "title": unescaped(title_of(where)).removeprefix("## "),
            "line": shown,
            "inputs": f"model {''.join(hashes)}",
            "facets": {
                "model": where["model"],
                "corpus": "no facts" if where["n"] == 0 else where["corpus"],
                "regime": where["regime"],
            },
            "texts": self.page,
            "protocols": {protocol: self._board(protocol) for protocol in self.ranked},
            "notes": self._remarks(),
        }

    def texts_data(self, index: str) -> dict[str, Any]:
        """Return the texts. ``index`` is the page of the tables, empty where there is none."""
        listed = [
            {
                "key": row["key"],
                "label": self.labels[row["key"]],
                "base": row["method"] == BASE,
                "status": "" if row["status"] == "done" else row["status"],
                "note": row["note"],
            }
            for row in self.ranked[self.headline]
        ]
        title = unescaped(title_of(self.section.where)).removeprefix("## ")
        return {
            "title": title,
            "rows": listed,
            "index": index,
            "protocols": PROTOCOLS,
            **self.texts,
        }

    def _board(self, protocol: str) -> dict[str, Any]:
        ranked, tables = self.ranked[protocol], self.read.tables
        verdicts, kept = (judge(rivals(ranked), tables, part) for part in (protocol, RETENTION))
        columns, values = parts(ranked, self.section.summaries, protocol, verdicts, kept)
        lines = [self._line(row, values[row["key"]]) for row in ranked]
        if not any(line["base"] for line in lines):
            lines.append(_absent_base(ranked))
        return {
            "about": "" if without_facts(ranked) else PROTOCOLS[protocol],
            "columns": columns,
            "rows": lines,
            "detectable": [
                unescaped(line) for part in (verdicts, kept) for line in detectable_line(part)
            ],
        }

    def _line(self, row: Row, values: Values) -> dict[str, Any]:
        return {
            "key": row["key"],
            "label": self.labels.get(row["key"], row["method"]),
            "family": _family(row, self.kinds),
            "base": row["method"] == BASE,
            "status": "" if row["status"] == "done" else row["status"].replace("_", " "),
            "marks": _marks(row),
            "texts": row["key"] in self.texts["answers"],
            "values": values,
        }

    def _remarks(self) -> list[str]:
        ranked = self.ranked[self.headline]
        verdicts = judge(rivals(ranked), self.read.tables, self.headline)
        remarks = [unescaped(note) for note in notes(ranked, self.section.summaries, verdicts)]
        remarks += self.section.repeats
        remarks += [
            f"{heading(task)} was requested but could not be asked: {why}"
            for task, why in self.section.not_asked.items()
        ]
        remarks += [
            f"{self.labels[row['key']]}: {text}" for row in ranked for text in row["warnings"]
        ]
        silent = [
            self.labels[row["key"]]
            for row in ranked
            if (row["score_of"] or row["retention"]) and self.read.tables.get(row["key"]) is None
        ]
        if silent:
            remarks.append(
                f"Not all texts of {', '.join(silent)} are here: the record was kept without them."
            )
        return remarks


def _absent_base(ranked: Sequence[Row]) -> dict[str, Any]:
    """Return a row for the unedited model where it has no cell: other cells know its scores."""
    values: Values = {}
    for row in ranked:
        for task, score in row["retention"].items():
            text = "–" if score["base"] is None else f"scores {score['base']:.2f}"
            value: Value = {"mean": 0.0, "low": None, "high": None, "text": text}
            values.setdefault(place_of(task), value)
    return {
        "key": "", "label": BASE, "family": "baseline", "base": True, "status": "", "marks": "",
        "texts": False, "values": values,
    }  # fmt: skip


def _family(row: Row, kinds: Mapping[str, str]) -> str:
    if "artifact" in row:
        return "made elsewhere"
    return kinds.get(family(row["method"]), "pair" if "+" in row["method"] else "other")


def _marks(row: Row) -> str:
    """Return the marks of a row, whose meaning stands in the remarks."""
    mark = "†" if is_untuned(row) else "§" if is_infeasible(row) else ""
    return mark + ("‡" if is_partial(row) else "")


# --- pages --------------------------------------------------------------------------------------


def _page(template: str, data: Mapping[str, Any], scripts: Sequence[str]) -> str:
    """Return a page that holds its data, its styles and its scripts."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = _visible(data)
    codes = [_script(name) for name in scripts]
    # Only these scripts may run, and nothing may be loaded.
    allowed = " ".join(
        f"'sha256-{b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in codes
    )
    return environment.get_template(template).render(
        data=shown,
        json=Markup(_json(shown)),
        scripts=list(map(Markup, codes)),
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        policy=f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'",
    )


def _script(name: str) -> str:
    code = (FOLDER / name).read_text(encoding="utf-8")
    # A page has no source maps beside it, for which a debugger would ask.
    return "\n".join(line for line in code.splitlines() if not line.startswith("//# source"))


def _json(value: object) -> str:
    """Return JSON that ends no script element and starts no comment in one."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _visible(value: Any) -> Any:
    """Return ``value`` with escapes in its texts for characters that cannot be seen."""
    if isinstance(value, str):
        if value.isprintable():
            return value
        return "\n".join(map(visible, value.split("\n")))
    if isinstance(value, Mapping):
        return {_visible(name): _visible(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(_visible, value))
    return value
