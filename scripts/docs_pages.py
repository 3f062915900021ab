"""Writes the pages of the docs site into build/docs: docs/, the Markdown files at the top, and the reference.

They are written as plain files, and not by a hook of one site generator, so that another one can take its place.
"""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "docs"
TOP = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""Files at the top of the repository and their pages."""


def main() -> None:
    """Replaces build/docs."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES)
    for name, page in TOP.items():
        (PAGES / page).write_text(with_site_links((ROOT / name).read_text()))
    (PAGES / "reference").mkdir()
    for name, content in reference_pages().items():
        (PAGES / "reference" / name).write_text(content)


def with_site_links(text: str) -> str:
    """The text with links to files of the repository as links to their pages; one to a file without a page is cut."""

    def link(match: re.Match[str]) -> str:
        words, target = match[1], match[2]
        if "://" in target or target.startswith("#"):
            return match[0]
        path, hash_sign, anchor = target.partition("#")
        if path not in TOP and not path.startswith("docs/"):
            return f"`{words}`"
        page = TOP.get(path) or path.removeprefix("docs/")
        return f"[{words}]({page}{hash_sign}{anchor})"

    return re.sub(r"\[([^\]\n]*)\]\(([^)\s]+)\)", link, text)


def reference_pages() -> dict[str, str]:
    """A page for each room of the package, with the public classes and functions of all its modules."""
    package = ROOT / "src" / "tavq"
    rooms: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] != "cli" and not any(part.startswith("__") for part in parts):
            rooms.setdefault(parts[0], []).append(".".join(("tavq", *parts)))
    pages = {f"{room}.md": room_page(room, modules) for room, modules in rooms.items()}
    listed = "\n".join(f"- [tavq.{room}]({room}.md)" for room in sorted(rooms))
    return {**pages, "index.md": f"# Reference\n\nThe rooms of the package.\n\n{listed}\n"}


def room_page(room: str, modules: list[str]) -> str:
    """Markdown that mkdocstrings fills in."""
    listed = "\n\n".join(f"::: {module}" for module in modules)
    return f"# tavq.{room}\n\n{listed}\n"


if __name__ == "__main__":
    main()
