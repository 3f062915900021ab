"""Private words and stiff English that must not come back: a reader who knows the field never meets them."""

import re
from pathlib import Path

import pytest

PRIVATE = re.compile(
    r"\b(anew|laid|fitted(?=\()|critics?|alike|whoever|likeliest|seedless|in the place of|stands? beside|(is|are) told|"
    r"so many of)\b|\b(DrawingTask|ReadingTask|Seen|Told|Pointed|Looked)\b",
)
PICTURE = re.compile(r"\bpictures?\b", re.IGNORECASE)
DATA = {
    # English that the code reads or writes as data
    "src/tavq/text/vocabulary.py",
    "src/tavq/text/corrections.py",
    "src/tavq/scenes/language.py",
    "src/tavq/scenes/questions.py",
    "src/tavq/scenes/settings.py",
    "src/tavq/scenes/kinds.py",
    "src/tavq/scenes/world.py",
    "src/tavq/scenes/figures/things.py",
}
OLD_NAMES = re.compile(
    r"RENAMED|_OLD_KEYS|kind_of_pictures|`pictures`|pictures\"|'pictures'|\"picture|picture_to|to_picture",
)
"""Lines that read what an older version wrote."""


def lines_with(pattern: re.Pattern[str], text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if pattern.search(line) and not OLD_NAMES.search(line)]


@pytest.fixture(scope="session")
def written(texts: dict[str, str]) -> dict[str, str]:
    """The package and its pages."""
    return {name: text for name, text in texts.items() if name.startswith(("src/", "docs/")) or name == "README.md"}


def test_no_private_words(written: dict[str, str]) -> None:
    found = {name: lines_with(PRIVATE, text) for name, text in written.items() if name not in DATA}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_an_image_is_called_an_image(written: dict[str, str]) -> None:
    found = {name: lines_with(PICTURE, text) for name, text in written.items() if name not in DATA}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("line", ["# made anew", "class ReadingTask:", "def fitted(config):", "a picture of it"])
def test_a_private_word_would_be_seen(line: str) -> None:
    assert lines_with(PRIVATE, line) or lines_with(PICTURE, line)


def test_the_exceptions_are_files_that_exist(root: Path) -> None:
    assert [name for name in DATA if not (root / name).is_file()] == []
