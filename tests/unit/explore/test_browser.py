"""The explorer's page in a real browser, from a typed word to a shared edit."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tavq
from tavq.explore.explorer import Explorer

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

CHROMIUM = Path("/usr/bin/chromium")
if "TAVQ_BROWSER" not in os.environ:
    pytest.skip("a browser is tried on request: set TAVQ_BROWSER=1", allow_module_level=True)
if not CHROMIUM.exists():
    pytest.skip("no Chromium at /usr/bin/chromium (Debian: apt-get install chromium)", allow_module_level=True)

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
TOLD: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
PHONE, DESKTOP = {"width": 320, "height": 640}, {"width": 1440, "height": 900}
VIEWS = {
    "overview": "#/",
    "codes": "#/m/aligned/deep/codes",
    "code": "#/m/aligned/deep/code/0",
    "map": "#/m/aligned/deep/map",
    "words": "#/units/words",
    "word": "#/m/aligned/deep/unit/words/0",
    "images": "#/images",
    "image": "#/m/aligned/image/0",
    "edit": "#/m/aligned/image/0?edit=1",
    "upload": "#/m/aligned/search",
    "models": "#/compare/models",
    "pair": "#/compare/codes?first=aligned:deep:0&second=plain:deep:1",
    "game": "#/m/aligned/deep/game",
    "nothing": "#/m/aligned/deep/code/999999",
}


@pytest.fixture(scope="module")
def address(explorer: Explorer, data: Path, plain: Path, aligned: Path, stores: Path) -> Iterator[str]:
    """The address that `tavq explore` prints."""
    command = [sys.executable, "-u", "-m", "tavq", "explore", str(plain), str(aligned), "--data", str(data)]
    with subprocess.Popen([*command, "--store", str(stores)], **TOLD) as process:
        try:
            assert process.stdout is not None
            found = next(match for line in process.stdout if (match := re.search(r"http://\S+", line)))
            yield found[0]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser: Any, address: str) -> Iterator[Any]:
    """A window that has the token's cookie."""
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.goto(address)
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(context: Any, address: str) -> Iterator[Any]:
    """The first page; whatever the browser complains of fails the test."""
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if _is_fault(line) else None)
    page.on("dialog", lambda dialog: complaints.append("a dialog: markup was run"))
    page.goto(address.partition("?")[0])
    page.wait_for_selector("h1:has-text('walls')")
    yield page
    page.close()
    assert complaints == []


def _is_fault(line: Any) -> bool:
    # An answer with a status of 400 or more is told to the user, and to the console by the browser itself.
    return line.type in ("error", "warning") and "Failed to load resource" not in line.text


def show(page: Any, view: str) -> None:
    """Follow an address of the page and wait until nothing loads."""
    page.evaluate("hash => { window.location.hash = hash; }", view)
    page.wait_for_load_state("networkidle")
    page.wait_for_selector(".loading, [aria-busy=true]", state="detached")
    page.wait_for_selector("h1")


def test_a_typed_word_leads_to_a_code_a_patch_and_an_edit(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("red")
    page.keyboard.press("Enter")
    page.click("main a.chip:has-text('red')")
    page.wait_for_selector("h1:has-text('“red”')")
    page.click("main a.code-card >> nth=0")
    page.wait_for_selector("h1:has-text('Code ')")
    page.click("main .patches a.patch >> nth=0")
    page.wait_for_selector("h2:has-text('Row ')")
    page.click("button:has-text('Edit the codes')")
    page.wait_for_selector("text=/0 positions changed/")
    page.click(".palette button >> nth=1")
    board = page.locator(".canvas .board")
    before = board.locator("img").get_attribute("src")
    board.click(position={"x": 8, "y": 8})
    page.wait_for_selector("text=/[1-9]\\d* positions changed/")
    assert board.locator("img").get_attribute("src") != before
    assert "edit=" in page.url
    page.keyboard.press("Control+z")
    page.wait_for_selector("text=/ 0 positions changed|^0 positions changed/")
    page.keyboard.press("Control+Shift+z")
    page.wait_for_selector("text=/[1-9]\\d* positions changed/")


def test_edits_faster_than_their_answers_are_kept(page: Any) -> None:
    show(page, "#/m/aligned/image/2?edit=1")
    page.click("button:has-text('Remove') >> nth=0")
    page.focus(".canvas .board")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
    page.wait_for_selector(".canvas[aria-busy=false]")
    for _ in range(3):
        assert page.is_enabled("button:has-text('Undo')")
        page.click("button:has-text('Undo')")
    assert page.is_disabled("button:has-text('Undo')")


def test_a_fast_stroke_leaves_no_gaps(page: Any) -> None:
    show(page, "#/m/aligned/image/2?edit=1")
    page.click(".palette button >> nth=1")
    box = page.locator(".canvas .board").bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 3)
    cells = page.locator(".canvas .board .painted").count()
    page.mouse.up()
    assert cells == len(page.evaluate("fetch('/api/v1/models/aligned/images/2').then(r => r.json())")["grids"]["deep"])


def test_a_patch_is_copied_from_another_image(page: Any) -> None:
    show(page, "#/m/aligned/image/2?edit=1")
    page.click("button:has-text('Copy a patch')")
    page.fill("label:has-text('Its number') >> input", "1")
    page.keyboard.press("Tab")
    page.locator(".tools .board").click(position={"x": 8, "y": 8})
    page.wait_for_selector(".tools .board .marked")
    page.locator(".canvas .board").click(position={"x": 100, "y": 8})
    page.wait_for_selector("text=/[0-9]+ positions changed/")
    assert page.is_enabled("button:has-text('Undo')")


def test_a_shared_edit_opens_in_another_window(page: Any, context: Any) -> None:
    show(page, "#/m/aligned/image/1?edit=1")
    page.select_option("label:has-text('Code') >> select", index=1)
    page.click("fieldset button:has-text('Remove')")
    told = page.wait_for_selector("text=/[1-9]\\d* positions changed/").text_content()
    link = page.get_attribute("a:has-text('Link to this edit')", "href")
    other = context.new_page()
    other.goto(page.url.partition("#")[0] + link)
    shared = other.wait_for_selector("text=/[1-9]\\d* positions changed/").text_content()
    assert shared.partition(";")[0] == told.partition(";")[0]
    other.close()


def test_a_word_of_a_caption_becomes_a_map(page: Any) -> None:
    show(page, "#/m/aligned/image/0")
    page.click("button.chip:has-text('red')")
    page.wait_for_selector(".board canvas.heat")
    assert "unit=words" in page.url


def test_positions_are_read_with_the_keyboard(page: Any) -> None:
    show(page, "#/m/aligned/image/0")
    page.focus(".board")
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("h2:has-text('Row 1, column 1')")
    assert "at=1%2C1" in page.url


def test_captions_stay_text(page: Any) -> None:
    show(page, "#/m/aligned/image/0")
    assert "<script>alert(1)</script>" in page.inner_text("main")
    assert page.query_selector("main script") is None
    turned = page.locator("main p", has_text="gnp.exe")
    assert turned.count() == turned.locator("bdi").count() > 0


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_accessible_and_fit_a_phone(page: Any, view: str) -> None:
    show(page, VIEWS[view])
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.set_viewport_size(DESKTOP)


def test_views_are_accessible_in_the_dark(page: Any) -> None:
    page.keyboard.press("d")
    for view in ("overview", "code", "edit"):
        show(page, VIEWS[view])
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    page.keyboard.press("d")


def test_pinned_codes_are_compared(page: Any) -> None:
    for code in (0, 1):
        show(page, f"#/m/aligned/deep/code/{code}")
        page.click("button:has-text('Pin to compare')")
    page.click("a:has-text('Compare the last two')")
    page.wait_for_selector("h1:has-text('Two codes')")


def test_the_game_says_whether_a_guess_is_right(page: Any) -> None:
    show(page, "#/m/plain/deep/game")
    page.click(".choices button >> nth=0")
    page.wait_for_selector(".verdict")


def test_an_upload_finds_images(page: Any, data: Path) -> None:
    show(page, "#/m/aligned/search")
    page.set_input_files("input[type=file]", data / "images" / "000.png")
    page.wait_for_selector("h2:has-text('Like it by codes')")
    assert page.query_selector_all("main .image-card")


def test_an_exported_page_works_without_a_server(browser: Any, explorer: Explorer, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as thread:  # the browser's loop runs in this one
        thread.submit(tavq.export_explorer, explorer, tmp_path / "page.html", codes=4, words=4, images=4).result()
    context = browser.new_context(viewport=DESKTOP, offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("h1:has-text('walls')")
    page.click("main a.code-card >> nth=0")
    page.wait_for_selector("h1:has-text('Code ')")
    assert page.evaluate("document.querySelector('img.tile').naturalWidth") > 0
    context.close()
    assert complaints == []
