"""Paths that a file names: they must stay inside a folder, also where a link is on the way."""

import os
import stat
from pathlib import Path

from tavq.core.errors import FileError


def resolve_inside(folder: Path, name: str, root: Path | None = None) -> Path:
    """Resolve `name` in `folder`; raises FileError if it is absolute or leads outside the folder (links followed).

    `root` is the resolved folder, for callers with many names.
    """
    try:
        root = folder.resolve() if root is None else root
        if _is_plain(root, name):
            return root / name
        path = (root / name).resolve()
        is_inside = bool(name) and not Path(name).is_absolute() and path.is_relative_to(root)
    except (OSError, ValueError, RuntimeError):  # NUL, a lone surrogate, a loop of links
        is_inside = False
    if not is_inside:
        raise FileError(f"The path {name!r} leads outside {folder}.")
    return path


def _is_plain(root: Path, name: str) -> bool:
    """Whether a name only goes down from `root` and meets no link, so that nothing is left to resolve."""
    path = str(root)
    for part in name.split("/"):
        path = f"{path}/{part}"
        if part in ("", ".", "..") or "\\" in part or ":" in part or _is_link(path):
            return False
    return True


def _is_link(path: str) -> bool:
    """`os.path.islink`, which is False for text that cannot be a path; this raises ValueError."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False
