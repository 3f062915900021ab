"""Downloads of files with a known SHA-256."""

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tavq.core.errors import FileError, UsageError
from tavq.core.files import write_error
from tavq.core.temporary import temporary_path

BLOCK = 1 << 20
MAX_BYTES = 4_000_000_000
"""Largest file to download."""

TIMEOUT = 60.0
"""Seconds without a byte from the server."""


def is_url(source: str) -> bool:
    """Whether `source` starts like a web address."""
    return source.startswith(("https://", "http://"))


def download(url: str, sha256: str, path: Path) -> None:
    """Download `url` to `path` and check that its SHA-256 is `sha256`.

    Raises FileError if the server does not answer or sends another file; `path` is not written then.
    """
    if not is_url(url):
        raise UsageError(f"{url!r} is not a URL; it must start with https:// or http://.")
    temporary = temporary_path(path)
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            for block in _blocks(url):
                if file.tell() > MAX_BYTES:
                    raise FileError(f"{url} sends more than {MAX_BYTES:,} bytes, the most that is downloaded.")
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != sha256:
            raise FileError(
                f"{url} sent another file: its sha256 is {digest.hexdigest()[:12]}…, expected {sha256[:12]}…."
            )
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def fetch_if_url(source: str, sha256: str, near: Path) -> Iterator[Path]:
    """Yield the path of a file; a URL is downloaded to the folder of `near` and removed afterwards.

    Only a download is checked against the SHA-256; a local file is the user's choice.
    """
    if not is_url(source):
        yield Path(source)
        return
    path = temporary_path(near)
    download(source, sha256, path)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _blocks(url: str) -> Iterator[bytes]:
    """Yield the response block by block."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            while block := response.read(BLOCK):
                yield block
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise FileError(f"Could not download {url}: {reason}. Download it by other means and pass its path.") from error
