"""Names of decoded images."""

import pytest

from tavq.token_file import png_names


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["a.jpg", "b/c.webp"], ["a.png", "b/c.png"]),
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png.png"]),
        (["x" * 251 + ".jpg"], ["x" * 251 + ".png"]),
        (["b/" + "é" * 125 + ".jpeg"], ["b/" + "é" * 125 + ".png"]),
    ],
)
def test_names_become_those_of_png_files(keys: list[str], expected: list[str]) -> None:
    assert png_names(keys) == expected


@pytest.mark.parametrize("stem", ["x" * 251, "é" * 125, "猫" * 83])
def test_names_that_would_be_too_long_stay_different(stem: str) -> None:
    names = png_names([f"{stem}.jpg", f"{stem}.gif", f"{stem}.bmp"])
    assert len(set(names)) == 3
    assert max(len(name.encode()) for name in names) <= 255
