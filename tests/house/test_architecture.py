"""ARCHITECTURE.md names only what exists, and shows the floors that import-linter enforces."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()
NAMES = sorted(set(re.findall(r"`(tavq\.[\w.]+)`", PAGE)))


def find(dotted: str) -> object:
    """The module, class, function or attribute of a dotted name."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AttributeError(dotted)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_walks_exists(name: str) -> None:
    assert find(name) is not None


def test_the_walks_name_enough_to_follow() -> None:
    assert len(NAMES) > 30
    with pytest.raises(AttributeError):
        find("tavq.tokenizer.Tokenizer.encrypt")


def test_the_floors_are_those_of_the_linter(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    enforced = [sorted(re.findall(r"tavq\.(\w+)", layer)) for layer in layers]
    block = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    shown = [sorted(re.split(r"\s{2,}", line)[0].split(" · ")) for line in block[1].splitlines()]
    assert shown == enforced
