"""Grouped help: the options of a command under one heading per panel, as plain text.

Typer shows ``rich_help_panel`` only in Rich's boxes, which wrap badly in a pipe and take square
brackets for markup. These headings look the same in a terminal and in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperCommand

if TYPE_CHECKING:
    from typer._click.core import Context  # typer's own copy of click
    from typer._click.formatting import HelpFormatter

METHODS = "Methods"
MODEL = "Model"
FACTS = "Facts"
COLUMNS = "Columns (in JSON: fields) of your own facts, if they have other names"
RETENTION = "Retention and other measurements"
OUTPUT = "Output"
WORKERS = "Several workers"
ORDER = (METHODS, MODEL, FACTS, COLUMNS, RETENTION, OUTPUT, WORKERS)


class PanelCommand(TyperCommand):
    """A command whose help lists its options by panel, in ``ORDER``; the rest come last."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write one section per panel."""
        sections: dict[str, list[tuple[str, str]]] = {panel: [] for panel in ORDER}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                panel = getattr(parameter, "rich_help_panel", None) or "Other"
                sections.setdefault(panel, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
