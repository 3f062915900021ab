"""Addresses of data: paths of this machine, and what fsspec reads, such as `s3://`, `gs://`, `hf://` and `https://`.

An address travels as a Path, as every other place of data does; a Path joins the two slashes after the scheme, which
`full_address` restores.
"""

import os
import re
from pathlib import Path

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")  # two letters or more: `C:/` is a drive

SECRETS = re.compile(r"(?<=://)[^/@\s'\"]+@|\?[^\s'\"]*")
"""What an address may hold that must not be shown: a user with a password, and a signed query."""


def is_remote(place: Path | str) -> bool:
    """Whether data are read by fsspec; a path of this machine that exists never is."""
    return SCHEME.match(str(place)) is not None and not os.path.lexists(place)


def full_address(place: Path | str) -> str:
    """The address with its two slashes, or the absolute path on this machine."""
    found = SCHEME.match(str(place))
    if found is None or not is_remote(place):
        return str(Path(place).resolve())
    return f"{found[1].lower()}://{str(place)[found.end() :]}"


def hide_secrets(text: str) -> str:
    """A text about an address without passwords and signatures."""
    return SECRETS.sub("", text)


def cache_folder() -> Path:
    """The folder of what can be made again: TAVQ_CACHE, else `tavq` in the user's folder for such files."""
    own = os.environ.get("TAVQ_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tavq"
