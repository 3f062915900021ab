"""Names bound to classes: every file of a package is found, and nothing but a name is ever looked up."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tavq.core.errors import UsageError, suggest, unknown_name
from tavq.core.registry import Registry

HOME = "from tavq.core.registry import Registry\nshapes = Registry('shape', 'registry_example')\n"
ROUND = "from registry_example import shapes\n@shapes.register('round')\nclass Round: ...\n"
SQUARE = "from registry_example import shapes\n@shapes.register('square')\nclass Square: ...\n"


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[Any]]:
    package = tmp_path / "registry_example"
    (package / "corners").mkdir(parents=True)
    for name, text in (("__init__", HOME), ("round", ROUND), ("corners/__init__", SQUARE)):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import registry_example

    yield registry_example.shapes
    for name in [name for name in sys.modules if name.startswith("registry_example")]:
        del sys.modules[name]


def test_every_file_of_the_package_is_known_on_first_use(shapes: Registry[Any]) -> None:
    assert "registry_example.round" not in sys.modules
    assert list(shapes) == ["round", "square"]
    assert len(shapes) == 2
    assert shapes["square"].__qualname__ == "Square"
    assert shapes["round"].name == "round"
    assert "round" in shapes
    assert "triangle" not in shapes


def test_a_lookup_imports_the_package(shapes: Registry[Any]) -> None:
    assert shapes["round"].__qualname__ == "Round"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rond", "Unknown shape 'rond'; known: round, square. Did you mean 'round'?"),
        ("registry_example.round", "Unknown shape 'registry_example.round'; known: round, square."),
        ("zzz", "Unknown shape 'zzz'; known: round, square."),
        ("", "Unknown shape ''; known: round, square."),
    ],
)
def test_an_unknown_name(shapes: Registry[Any], name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        shapes[name]
    assert str(caught.value) == message


@pytest.mark.parametrize("name", [["round"], {"round": 1}, None, 3, True])
def test_values_that_are_not_names(shapes: Registry[Any], name: Any) -> None:
    assert name not in shapes
    with pytest.raises(UsageError, match="Unknown shape"):
        shapes[name]


def test_one_name_for_two_classes_is_a_bug(shapes: Registry[Any]) -> None:
    class Oval: ...

    shapes.register("oval")(Oval)
    shapes.register("oval")(Oval)  # a module that is loaded anew
    with pytest.raises(AssertionError, match="registered twice"):
        shapes.register("oval")(Path)


def test_the_nearest_name_is_suggested_and_only_a_near_one() -> None:
    assert suggest("nearst", ["gumbel", "nearest"]) == " Did you mean 'nearest'?"
    assert suggest("xyz", ["gumbel", "nearest"]) == ""
    assert unknown_name("codebook", "x", []) == "Unknown codebook 'x'; known: none."
