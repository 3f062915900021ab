"""The files of the explorer's page, as they are in the package."""

from importlib import resources
from importlib.resources.abc import Traversable

STATIC, INDEX = "static", "index.html"
KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "woff2": "font/woff2",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
}
"""Types of the page's files by the end of their names; files of other types are not served."""


def read_static() -> dict[str, bytes]:
    """The files of the page by their path."""
    folder = resources.files("tavq.explore").joinpath(STATIC)
    return dict(_read_folder(folder, "")) if folder.is_dir() else {}


def _read_folder(folder: Traversable, path: str) -> list[tuple[str, bytes]]:
    found = []
    for item in folder.iterdir():
        if item.is_dir():
            found += _read_folder(item, f"{path}{item.name}/")
        elif item.name.rpartition(".")[2] in KINDS:
            found.append((path + item.name, item.read_bytes()))
    return found
