"""The pictures of the pages: a chat and a table as a terminal shows them, and the site.

    python docs/pictures.py chat EDIT PROMPT ...   # docs/chat.svg
    python docs/pictures.py table RUN              # docs/table.svg
    python docs/pictures.py site RUN               # docs/site*.png; needs Chromium and playwright

The table and the site are those of ``leaderboard/results/smollm2-135m_demo-counterfact_n50``.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, RenderableType

import editbench
from editbench.cli.chat import side_by_side
from editbench.cli.site import write_site

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


def photograph(run: Path) -> None:
    """Write pictures of the site of ``run``: its tables, and the texts behind a number of memit."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        index = write_site([run], Path(folder), f"editbench site {run} -o site/")
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page(viewport={"width": 1000, "height": 640}, color_scheme="light")
        page.goto(index.as_uri())
        for name in ("site", "site-texts"):
            if name == "site-texts":
                page.locator("tbody tr", has_text="memit").locator("a").nth(2).click()
                page.locator("article").first.wait_for()
            page.screenshot(path=HERE / f"{name}.png")
            # Text and lines need few colours, and a picture is a third of the size with them.
            few = Image.open(HERE / f"{name}.png").convert("RGB").quantize(64)
            few.save(HERE / f"{name}.png", optimize=True)
        browser.close()


def main(what: str, folder: str, *prompts: str) -> None:
    """Make the picture ``what``."""
    if what == "chat":
        answers = editbench.chat(folder, *prompts)
        save(f"editbench chat {Path(folder).name}", map(side_by_side, answers), HERE / "chat.svg")
    elif what == "site":
        photograph(Path(folder))
    else:
        save("editbench show RUN", [editbench.load_run(folder)], HERE / "table.svg")


if __name__ == "__main__":
    main(*sys.argv[1:])
