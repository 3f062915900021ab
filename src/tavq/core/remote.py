"""Reading files of any storage that fsspec knows: ranges of bytes, with retries, and errors that name the address.

fsspec comes with torch; a storage may need a package of its own, such as s3fs for `s3://`.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tavq.core.addresses import hide_secrets
from tavq.core.errors import StorageError, TavqError, UsageError, first_line

ATTEMPTS = 5
FIRST_WAIT = 0.25
"""Seconds before the second attempt; each further wait is twice as long, and up to half of it is random."""

BLOCK = 4_000_000
"""Bytes that are read ahead where a file is read in order."""

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
            "http": "aiohttp", "https": "aiohttp"}  # fmt: skip
"""The packages that storages need besides fsspec."""

FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
"""Errors that another attempt would meet again."""

T = TypeVar("T")


@dataclass(frozen=True)
class FileState:
    """The size of a file in bytes, and what changes with its content: an ETag, or the time of its last change."""

    size: int
    stamp: str


def retry(address: str, work: Callable[[], T]) -> T:
    """Do `work`, again where the storage fails for the moment.

    Raises:
        UsageError: the storage is unknown, or its package is not installed.
        StorageError: the file does not exist, may not be read, or every attempt failed.
    """
    wait = FIRST_WAIT
    for attempt in range(ATTEMPTS):
        try:
            return work()
        except TavqError:
            raise
        except ImportError as error:
            raise _missing_package(address) from error
        except FINAL as error:
            raise _failed(address, error) from error
        except Exception as error:  # each storage has errors of its own
            if attempt == ATTEMPTS - 1:
                raise _failed(address, error, f" after {ATTEMPTS} attempts") from error
        time.sleep(wait * (1 - random.SystemRandom().random() / 2))  # not from the generator that a run has seeded
        wait *= 2
    raise AssertionError("the last attempt returns or raises")


def _missing_package(address: str) -> UsageError:
    scheme = address.partition("://")[0]
    more = f" {PACKAGES[scheme]}" if scheme in PACKAGES else ""
    return UsageError(
        f"Reading {hide_secrets(address)} needs a package for {scheme}://; install it with: "
        f"pip install 'tavq[remote]'{more}"
    )


def _failed(address: str, error: Exception, when: str = "") -> StorageError:
    if isinstance(error, FileNotFoundError):
        return StorageError(f"{hide_secrets(address)} does not exist; check the address.")
    if isinstance(error, PermissionError):
        return StorageError(
            f"{hide_secrets(address)} may not be read; give its storage's credentials in the environment, as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://."
        )
    reason = hide_secrets(first_line(error))
    return StorageError(f"{hide_secrets(address)} could not be read{when}: {reason}.")


def open_file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, one for each process and thread, and the path in it.

    Raises UsageError for a scheme that fsspec does not know.
    """
    import fsspec  # type: ignore[import-untyped]  # here, because few data sets need it

    scheme = address.partition("://")[0]
    if "::" in address or scheme not in fsspec.available_protocols():
        raise UsageError(
            f"{hide_secrets(address)} has an unknown scheme; known: a path, s3://, gs://, hf://, https:// and others "
            "that the package fsspec reads."
        )
    file_system, path = fsspec.core.url_to_fs(address)
    return file_system, path


def read_state(address: str) -> FileState:
    """The state of a file."""
    return retry(address, lambda: _read_state(address))


def _read_state(address: str) -> FileState:
    file_system, path = open_file_system(address)
    file_system.invalidate_cache()
    info = file_system.info(path)
    if info.get("type") == "directory" or not isinstance(info.get("size"), int):
        raise FileNotFoundError(path)
    names = ("ETag", "etag", "md5Hash", "md5", "sha256", "mtime", "LastModified", "last_modified", "created")
    return FileState(info["size"], next((str(info[name]) for name in names if info.get(name)), ""))


def find_files(address: str, suffix: str) -> list[str]:
    """The sorted addresses of the files under an address whose names end in `suffix`."""
    return retry(address, lambda: _find_files(address, suffix))


def _find_files(address: str, suffix: str) -> list[str]:
    file_system, path = open_file_system(address)
    file_system.invalidate_cache()
    found = [name for name in file_system.find(path) if name.lower().endswith(suffix)]
    root = path.rstrip("/")
    inside = [name.removeprefix(root) for name in found]
    if all(name.startswith("/") for name in inside):
        return sorted(address.rstrip("/") + name for name in inside)
    return sorted(str(file_system.unstrip_protocol(name)) for name in found)


def read_range(address: str, start: int, size: int) -> bytes:
    """The bytes of a part of a file; StorageError where it is shorter."""

    def read() -> bytes:
        file_system, path = open_file_system(address)
        return bytes(file_system.cat_file(path, start=start, end=start + size))

    data = retry(address, read)
    if len(data) != size:
        raise StorageError(f"{hide_secrets(address)} changed while it was read: it is shorter than it was.")
    return data


def open_stream(address: str) -> Any:
    """Open a file for reading in order; seeking forwards skips what lies between."""
    file_system, path = open_file_system(address)
    return file_system.open(path, "rb", block_size=BLOCK, cache_type="readahead")
