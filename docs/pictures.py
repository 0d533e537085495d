"""The pictures of the pages: a chat and a table, as a terminal of 80 columns shows them.

    python docs/pictures.py chat EDIT PROMPT ...   # docs/chat.svg
    python docs/pictures.py table RUN              # docs/table.svg

The table is that of ``leaderboard/results/smollm2-135m_demo-counterfact_n50``.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, RenderableType

import editbench
from editbench.cli.chat import side_by_side

HERE = Path(__file__).parent


def save(title: str, lines: Iterable[RenderableType], path: Path) -> None:
    """Write ``lines`` to ``path`` as a terminal with ``title`` shows them."""
    page = Console(
        width=80, record=True, file=io.StringIO(), force_terminal=True, color_system="standard"
    )
    for line in lines:
        page.print(line)
    svg = page.export_svg(title=title, unique_id="editbench")
    # The font would be fetched from another site; each reader has a font of equal widths.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    path.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE), encoding="utf-8")


def main(what: str, folder: str, *prompts: str) -> None:
    """Make the picture ``what``."""
    if what == "chat":
        answers = editbench.chat(folder, *prompts)
        save(f"editbench chat {Path(folder).name}", map(side_by_side, answers), HERE / "chat.svg")
    else:
        save("editbench show RUN", [editbench.load_run(folder)], HERE / "table.svg")


if __name__ == "__main__":
    main(*sys.argv[1:])
