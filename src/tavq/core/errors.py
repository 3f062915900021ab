"""What a user is told when something is wrong: the value, what is accepted, what to do."""

import difflib
from collections.abc import Iterable


class TavqError(Exception):
    """Base of every error that is meant for a person; its text is the whole message."""

    exit_code = 1


class UsageError(TavqError):
    """The call itself was wrong: an unknown name, a bad setting, a missing folder."""

    exit_code = 2


class DataError(TavqError):
    """The data cannot be used: a broken image, an empty caption, a path that leaves its folder."""


class FileError(TavqError):
    """A file is missing, cut short, altered, in use or not what its name says."""


class TrainingError(TavqError):
    """Training had to stop: a loss was not finite."""


class RenamedWarning(FutureWarning):
    """A setting or flag was given by a name that it had in the version before; the next version refuses it."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest known name, or nothing when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """One line that names the unknown value, everything that is known and the nearest of it."""
    names = sorted(known)
    return f"Unknown {kind} {name!r}; known: {', '.join(names) or 'none'}.{suggest(name, names)}"


def first_line(error: BaseException) -> str:
    """What an error of a library says, as a part of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
