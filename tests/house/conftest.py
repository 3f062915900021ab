"""The files of the project, as git or the source tree lists them."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return ROOT


@pytest.fixture(scope="session")
def sources() -> list[Path]:
    """Every Python file of the package."""
    return sorted((ROOT / "src").rglob("*.py"))


@pytest.fixture(scope="session")
def documents() -> list[Path]:
    """Every page for people."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.fixture(scope="session")
def texts() -> dict[str, str]:
    """Every text file that the project keeps, by its path."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        names = listed.stdout.split("\0")
    else:  # an unpacked source archive
        folders = [ROOT / name for name in ("src", "tests", "docs")]
        names = [str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*")]
    found = {}
    for name in names:
        path = ROOT / name
        kept = path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ".js", ".css", ".html", "")
        if path.is_file() and kept and "vendor" not in path.parts:
            found[name] = path.read_text(encoding="utf-8")
    return found
