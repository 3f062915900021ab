"""The explorer's page in a real browser, from a typed word to a shared edit.

One server, one browser and one of its windows for all of these tests. Every wait has an end: the waits of playwright
that have no timeout end when `ending_within` kills the browser's driver.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from browsers import ending_within, find_chromium, open_browser

import tavq
from tavq.explore.explorer import Explorer

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

WAIT_MS = 60_000
"""How long one act may take on a busy machine."""

LIMIT = 240.0
"""Seconds of a test, after which the browser is killed."""

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

FOLLOW = """hash => window.location.hash === hash || new Promise(followed => {
    window.addEventListener("hashchange", () => setTimeout(followed, 50), { once: true });
    window.location.hash = hash;
})"""
"""Ends after the page has drawn what the address names, or that it loads."""

DRAWN = "document.querySelector('canvas.entries').toDataURL()"
"""The pixels of the map."""


@pytest.fixture(scope="module")
def server(
    explorer: Explorer, data: Path, plain: Path, aligned: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """The address that `tavq explore` prints, and its process."""
    stores = tmp_path_factory.mktemp("browser") / "stores"  # where the game logs guesses that are none of other tests
    shutil.copytree(explorer.folder, stores)
    command = [sys.executable, "-u", "-m", "tavq", "explore", str(plain), str(aligned), "--data", str(data)]
    log = stores / "server.log"  # a pipe that nobody reads would stop the server when it is full
    environment = {**os.environ, "PYTHONPATH": str(Path(tavq.__file__).parents[1]), "PYTHONFAULTHANDLER": "1"}
    with (
        log.open("w") as told,
        subprocess.Popen(
            [*command, "--store", str(stores)], stdout=told, stderr=subprocess.STDOUT, env=environment
        ) as process,
    ):
        try:
            yield read_address(process, log), process.pid
            process.terminate()
            process.wait(60)
        finally:
            process.kill()
            print(log.read_text())


def read_address(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address in what a server printed, once it is there."""
    deadline = time.monotonic() + LIMIT
    while (found := re.search(r"http://\S+(?=\n)", log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    return found[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[tuple[Any, int]]:
    """The browser and its driver's process; a skip where this machine has none."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("this machine has no Chromium that runs (Debian: apt-get install chromium)")
    with open_browser(api, chromium) as (browser, driver):
        yield browser, driver


@pytest.fixture(scope="module")
def context(browser: tuple[Any, int], server: tuple[str, int]) -> Iterator[Any]:
    """A profile that has the token's cookie."""
    context = browser[0].new_context(viewport=DESKTOP)
    context.set_default_timeout(WAIT_MS)
    yield context
    context.close()


@pytest.fixture(scope="module")
def window(context: Any, server: tuple[str, int]) -> Any:
    """The window of all tests."""
    window = context.new_page()
    window.goto(server[0])
    return window


@pytest.fixture
def page(window: Any, browser: tuple[Any, int], server: tuple[str, int]) -> Iterator[Any]:
    """The first page, loaded again; whatever the browser complains of fails the test."""
    complaints: list[str] = []
    told = {
        "pageerror": lambda error: complaints.append(str(error)),
        "console": lambda line: complaints.append(line.text) if _is_fault(line) else None,
        "dialog": lambda dialog: (complaints.append("a dialog: markup was run"), dialog.dismiss()),
    }
    with ending_within(LIMIT, server[1], browser[1]):
        window.goto("about:blank")
        for event, tell in told.items():
            window.on(event, tell)
        window.goto(server[0].partition("?")[0])
        window.wait_for_selector("h1:has-text('walls')")
        yield window
        for event, tell in told.items():
            window.remove_listener(event, tell)
    assert complaints == []


def _is_fault(line: Any) -> bool:
    # An answer with a status of 400 or more is told to the user, and to the console by the browser itself.
    return line.type in ("error", "warning") and "Failed to load resource" not in line.text


def show(page: Any, view: str) -> None:
    """Follow an address of the page and wait until nothing loads."""
    page.evaluate(FOLLOW, view)
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
    assert "brightness" in page.get_attribute("img[alt='Where the pixels changed']", "style")
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
    page.locator(".canvas .board").hover()  # the page is drawn again before the number is chosen
    page.wait_for_selector(".canvas .cursor")
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
    other.click("button:has-text('Undo')")  # what was opened is one step
    other.wait_for_selector("text=/^0 positions changed/")
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


def test_a_patch_is_drawn_and_found_again(page: Any) -> None:
    show(page, "#/m/aligned/image/0")
    box = page.locator(".board >> nth=0").bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 4)
    page.mouse.up()
    page.wait_for_selector("h2:has-text('Kept: 1 × 2 positions')")
    page.locator(".board >> nth=0").press("ArrowDown")
    page.locator(".board >> nth=0").press("Shift+Enter")
    page.wait_for_selector("h2:has-text('Kept: 2 × 2 positions')")
    page.click("button:has-text('Find patches like this one')")
    found = page.wait_for_selector(".patches a.patch").get_attribute("href")
    assert found.endswith("at=0%2C0%2C2%2C2")


def test_positions_outside_of_the_grid_are_not_shown(page: Any) -> None:
    for at in ("99,99", "-1,0", "3,3,2,2", "x"):
        show(page, f"#/m/aligned/image/1?at={at}")
        assert "001.png" in page.inner_text("h1")
    show(page, "#/m/aligned/image/0?level=low")
    page.focus(".board")
    for _ in range(8):
        page.keyboard.press("ArrowDown")
    page.press("button:has-text('deep')", "Enter")  # the cursor stays where the smaller grid has nothing
    page.wait_for_selector("button[aria-pressed=true]:has-text('deep')")
    assert "000.png" in page.inner_text("h1")


def test_a_fault_of_the_page_is_said(page: Any, context: Any) -> None:
    other = context.new_page()
    other.route("**/api/v1/units/words", lambda route: route.fulfill(json={}))
    other.goto(page.url.partition("#")[0] + "#/units/words")
    other.wait_for_selector("h1:has-text('This page failed')")
    other.click("header a:has-text('Images')")
    other.wait_for_selector("h1:has-text('Images')")
    other.close()


def test_captions_stay_text(page: Any) -> None:
    show(page, "#/m/aligned/image/0")
    assert "<script>alert(1)</script>" in page.inner_text("main")
    assert page.query_selector("main script") is None
    turned = page.locator("main p", has_text="gnp.exe")
    assert turned.count() == turned.locator("bdi").count() > 0


def test_views_are_accessible_in_light_and_dark_and_fit_a_phone(page: Any) -> None:
    faults = {}
    page.evaluate(axe.Axe().axe_script)
    for view, address in VIEWS.items():
        show(page, address)
        found = [*check(page, {}), *check(page, {"runOnly": ["color-contrast"]}, dark=True)]
        page.set_viewport_size(PHONE)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        page.set_viewport_size(DESKTOP)
        faults[view] = [*found, *([f"{wide} px too wide for a phone"] if wide > 0 else [])]
    assert not {view: found for view, found in faults.items() if found}


def check(page: Any, options: dict[str, Any], dark: bool = False) -> list[str]:
    """What axe finds on the page, in the light or dark theme."""
    if dark:
        page.keyboard.press("d")
    found = page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **options})
    if dark:
        page.keyboard.press("d")
    return [f"{fault['id']}: {node['html'][:200]}" for fault in found["violations"] for node in fault["nodes"]]


def test_the_map_is_dragged_and_pinched(page: Any, context: Any) -> None:
    show(page, "#/m/aligned/deep/map")
    canvas = page.locator("canvas.entries")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 200
    touch = context.new_cdp_session(page)
    for kind, apart in (("touchStart", 60), ("touchMove", 80), ("touchMove", 100), ("touchEnd", None)):
        points = [] if apart is None else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_selector("canvas.entries.closer")
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")  # when it is drawn
    before = page.evaluate(DRAWN)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y + 60, steps=4)
    page.mouse.up()
    page.wait_for_function(f"before => {DRAWN} !== before", arg=before)
    assert page.url.endswith("/map")  # a drag opens no entry
    canvas.press("Enter")
    page.wait_for_selector("h1:has-text('Code ')")


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


def test_an_exported_page_works_without_a_server(browser: tuple[Any, int], explorer: Explorer, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as thread:  # the browser's loop runs in this one
        thread.submit(tavq.export_explorer, explorer, tmp_path / "page.html", codes=4, words=4, images=4).result()
    context = browser[0].new_context(viewport=DESKTOP, offline=True)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("h1:has-text('walls')")
    page.click("summary:has-text('It holds')")
    page.click("main details a:has-text('code ') >> nth=0")
    page.wait_for_selector("h1:has-text('Code ')")
    assert page.evaluate("document.querySelector('img.tile').naturalWidth") > 0
    context.close()
    assert complaints == []
