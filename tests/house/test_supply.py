"""What comes from outside: pinned versions, downloads with a known hash, no network in tests, a way to report."""

import inspect
import re
import socket
import tomllib
from pathlib import Path

import pytest

from tavq.core.download import download, fetch_if_url

ROOT = Path(__file__).parents[2]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]


def normalized(name: str) -> str:
    """A package's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_version_is_pinned_exactly_and_once() -> None:
    wrong = [line for line in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][^ *]*", line)]
    assert wrong == []
    names = [normalized(line.partition("==")[0]) for line in PINS]
    assert sorted({*names}) == sorted(names)


def test_every_package_that_is_asked_for_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(line for group in project["optional-dependencies"].values() for line in group)]
    names = {normalized(re.split(r"[\[<>=!~ ;]", line)[0]) for line in asked}
    assert names - {normalized(line.partition("==")[0]) for line in PINS} - {"tavq"} == set()


def test_installing_obeys_the_pins() -> None:
    install = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert install
    assert all("-c constraints.txt" in line or re.search(r"--no-deps [\w-]+==[\d.]+$", line) for line in install)


def test_nothing_is_downloaded_without_its_hash() -> None:
    for function in (download, fetch_if_url):
        assert inspect.signature(function).parameters["sha256"].default is inspect.Parameter.empty
    sources = {path: path.read_text() for path in (ROOT / "src").rglob("*.py")}
    openers = [path.name for path, text in sources.items() if re.search(r"urlopen|urlretrieve|requests\.get", text)]
    assert openers == ["download.py"]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_test_reaches_no_other_machine(family: socket.AddressFamily) -> None:
    address = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"  # reserved for documents: nobody answers
    with socket.socket(family) as outside, pytest.raises(RuntimeError, match="tests use no network"):
        outside.connect((address, 80))


def test_a_weakness_can_be_reported() -> None:
    assert "security advisories" in (ROOT / "SECURITY.md").read_text()
