"""Errors for users, which name the value, what is accepted and what to do."""

import difflib
from collections.abc import Iterable


class TavqError(Exception):
    """Base of all errors meant for users, who see its text alone."""

    exit_code = 1


class UsageError(TavqError):
    """A wrong call: an unknown name, a setting that is not accepted, a missing folder."""

    exit_code = 2


class DataError(TavqError):
    """Data that cannot be used: a damaged image, an empty caption, a path outside its folder."""


class FileError(TavqError):
    """A file that is missing, truncated, altered, in use or of another kind than expected."""


class StorageError(FileError):
    """A storage that cannot be read: the network failed, or a shard is not what it was. No image is at fault."""


class TrainingError(TavqError):
    """Training had to stop, as for a loss that is not finite."""


class StoppedError(TrainingError):
    """A signal stopped training after it had written a checkpoint."""


class RenamedWarning(FutureWarning):
    """A setting or flag was given by its old name, which the next version will refuse."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the most similar known name, or nothing if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name: the name, all known names and the most similar one."""
    names = sorted(known)
    return f"Unknown {kind} {name!r}; known: {', '.join(names) or 'none'}.{suggest(name, names)}"


def first_line(error: BaseException) -> str:
    """The first line of the text of a library's error, to quote it in one of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
