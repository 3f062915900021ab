"""Files from an address, kept only where they are the very bytes that were asked for."""

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tavq.core.errors import FileError, UsageError
from tavq.core.files import TEMP_PREFIX, write_error

BLOCK = 1 << 20
MOST = 4_000_000_000
"""Bytes of a file at most."""

WAIT = 60.0
"""Seconds without a byte after which the server is given up."""


def is_url(source: str) -> bool:
    """True for what begins like a web address."""
    return source.startswith(("https://", "http://"))


def download(address: str, sha256: str, path: Path) -> None:
    """Writes what lies at `address` to `path`, once its SHA-256 has been found to be `sha256`.

    Raises FileError where the server does not answer or sends other bytes; then there is no file.
    """
    if not is_url(address):
        raise UsageError(f"{address!r} is no web address; it begins with https:// or http://.")
    temporary = path.parent / f"{TEMP_PREFIX}{os.getpid()}-{path.name}"
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            for block in _blocks(address):
                if file.tell() > MOST:
                    raise FileError(f"{address} sends more than {MOST:,} bytes, which no file that is known here has.")
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != sha256:
            raise FileError(
                f"{address} sent another file: its sha256 is {digest.hexdigest()[:12]}…, expected {sha256[:12]}…."
            )
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def fetch_if_url(source: str, sha256: str, beside: Path) -> Iterator[Path]:
    """The path of a file that is given by its path, or by its web address: then it lies in `beside`'s folder meanwhile.

    Only what is fetched must have the SHA-256; what a user has is the user's choice.
    """
    if not is_url(source):
        yield Path(source)
        return
    path = beside.with_name(f"{TEMP_PREFIX}{os.getpid()}-fetched-{beside.name}")
    download(source, sha256, path)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _blocks(address: str) -> Iterator[bytes]:
    """What the server sends, block by block."""
    try:
        with urllib.request.urlopen(address, timeout=WAIT) as answer:
            while block := answer.read(BLOCK):
                yield block
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise FileError(f"Could not fetch {address}: {reason}. Fetch it by other means and give its path.") from error
