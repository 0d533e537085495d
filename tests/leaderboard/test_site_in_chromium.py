"""The site in a browser: sort, filter, draw, open a text. No error, no request, no hostile code."""

import shutil

import pytest
from test_website import PUBLISHED
from written import HOSTILE, write_hostile

from editbench.leaderboard import website
from editbench.records.reading import visible

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium is installed (Debian: apt-get install chromium)"
)
KINDS = {"memit": "weight editor", "mixsd": "trainer", "sft": "trainer", "ice": "baseline"}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for name, text in website.pages([PUBLISHED], KINDS, "editbench site", "1").items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def visit(browser):
    """Open pages, and check at the end that no script failed and nothing but files was asked."""
    said, asked, contexts = [], [], []

    def go(path, fragment="", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{path.as_uri()}{fragment}")
        return page

    yield go
    for context in contexts:
        context.close()
    assert said == [] and all(url.startswith(("file://", "data:", "blob:")) for url in asked), asked


def names(page):
    return [name.split()[0] for name in page.locator("tbody th").all_inner_texts()]


def head(page, column):
    return page.locator(f'th[data-column="{column}"] button')


def test_a_table_sorts_by_what_is_better_and_the_address_keeps_it(visit, site):
    page = visit(site / "index.html")
    assert names(page) == ["memit", "ice", "mixsd", "sft", "base"]
    head(page, "seconds").click()
    assert names(page) == ["ice", "memit", "sft", "mixsd", "base"], "fewest seconds first"
    head(page, "seconds").click()
    assert names(page) == ["mixsd", "sft", "memit", "ice", "base"]
    head(page, "specificity").click()
    assert names(page) == ["ice", "memit", "mixsd", "sft", "base"], "highest first, base last"
    again = visit(site / "index.html", page.evaluate("location.hash"))
    assert names(again) == ["ice", "memit", "mixsd", "sft", "base"]
    head(page, "generalization").hover()
    assert "paraphrases" in page.locator("#tooltip").inner_text()


def test_filters_and_views(visit, site):
    page = visit(site / "index.html")
    page.select_option("[name=family]", "trainer")
    assert names(page) == ["mixsd", "sft", "base"], "the unedited model is always there"
    page.fill("[name=search]", "sf")
    sync_api.expect(page.locator("tbody tr")).to_have_count(2)
    assert names(page) == ["sft", "base"]
    assert page.locator("[name=model]").is_disabled(), "there is one"
    page.select_option("[name=protocol]", "likelihood")
    page.get_by_role("button", name="Tasks").click()
    assert page.locator("thead th").count() == 9
    assert "39↓ 6↑" in page.locator("tbody").inner_text()
    assert {"family", "search", "protocol", "view"} <= set(
        page.evaluate("[...new URLSearchParams(location.hash.slice(1)).keys()]")
    )


def test_the_plot_has_the_axes_that_are_chosen(visit, site):
    page = visit(site / "index.html")
    assert page.locator('figure [aria-label="dot"] a').count() == 5
    page.select_option("[name=x]", "seconds")
    page.select_option("[name=y]", "generalization")
    page.select_option("[name=size]", "none")
    drawn = page.locator("main figure").first.inner_text()
    assert "Seconds" in drawn and "Generalization ↑" in drawn and "memit" in drawn
    page.locator('figure [aria-label="dot"] a').first.click()
    page.wait_for_url("**/texts-*.html#*")


def test_a_number_is_one_click_from_its_texts(visit, site):
    page = visit(site / "index.html")
    page.locator("tbody tr", has_text="memit").get_by_role("link", name="0.63 [").click()
    assert page.locator("#count").inner_text() == "memit: 37 of 101 answers failed."
    first = page.locator("article").first.inner_text()
    for part in ("Prompt", "Expected", "Before", "After, memit", "✗ wrong", "as whole words"):
        assert part in first
    page.select_option("[name=show]", "passed")
    assert page.locator("#count").inner_text() == "memit: 64 of 101 answers passed."
    assert page.locator(".answer.wrong").count() == 0 < page.locator(".answer.right").count()
    page.locator("article header a").first.click()
    shown = page.locator("#count").inner_text()
    assert ", case dcf-" in shown and "After, sft" in page.locator("#answers").inner_text()
    page.go_back()
    assert page.locator("#count").inner_text() == "memit: 64 of 101 answers passed."
    page.fill("[name=search]", "no such text")
    sync_api.expect(page.locator("article")).to_have_count(0)
    page.locator("#back").click()
    assert names(page)[0] == "memit"


def test_each_protocol_has_its_own_verdicts(visit, site):
    page = visit(site / "index.html", "#protocol=argmax")
    row = page.locator("tbody tr", has_text="memit")
    row.get_by_role("link", name="0.51 [").click()
    assert page.locator("#count").inner_text() == "memit: 49 of 101 answers failed."
    assert "most probable one" in page.locator(".why").first.inner_text()


def test_the_table_to_copy(visit, site):
    page = visit(site / "index.html")

    def text(name):
        page.locator(".copies").get_by_role("button", name=name).click()
        shown = page.locator("dialog textarea").input_value()
        page.keyboard.press("Escape")
        return shown

    csv = text("CSV").splitlines()
    assert csv[0].startswith("method,family,efficacy,efficacy_low,efficacy_high,")
    assert csv[1].startswith("memit,weight editor,1,0.92385") and len(csv) == 6
    rows = page.evaluate("text => JSON.parse(text).rows", text("JSON"))
    assert rows[0]["generalization"]["mean"] == 0.63
    latex = text("LaTeX")
    assert r"\textbf{0.63 [0.52, 0.73]}" in latex and latex.count(r"\\") == 6
    assert text("Cite").startswith("@software{editbench,")


def test_hostile_texts_are_shown_as_texts(visit, tmp_path):
    for name, text in website.pages([write_hostile(tmp_path / "run")], {}, "x", "1").items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    page = visit(tmp_path / "index.html", "#view=tasks")
    assert "<script>alert(1)</script>" in page.locator("main h2").inner_text()
    assert page.locator("main img, main script, h1:has-text('owned')").count() == 0
    (texts,) = tmp_path.glob("texts-*.html")
    page = visit(texts, "#show=all")
    shown = page.locator("#answers").text_content()
    assert all("\n".join(map(visible, text.split("\n"))).strip() in shown for text in HOSTILE)
    assert page.locator("main img, main script, h1:has-text('owned')").count() == 0


def test_without_javascript_there_is_the_plain_table(visit, site):
    page = visit(site / "index.html", java_script_enabled=False)
    text = page.locator("body").inner_text()
    assert "Without JavaScript" in text and "0.63 [0.52, 0.73]" in text
    (texts,) = site.glob("texts-*.html")
    page = visit(texts, java_script_enabled=False)
    assert "editbench show RUN --failures" in page.locator("body").inner_text()


def test_a_phone_needs_no_sideways_scrolling(visit, site):
    (texts,) = site.glob("texts-*.html")
    for path in (site / "index.html", texts):
        page = visit(path, viewport=PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
