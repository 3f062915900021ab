"""Flags that were renamed: the old name works for one version, with a warning."""

import warnings
from collections.abc import Mapping, Sequence

from tavq.core.errors import RenamedWarning

RENAMED_FLAGS: Mapping[str, Mapping[str, str]] = {
    "text": {"--whole": "--full-text", "--half": "--float16", "--fewest": "--min-count"},
    "search index": {"--half": "--float16"},
}
"""By command: old names and their names now."""


def with_new_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments of a call with every old flag of its command replaced by the new one; each is warned about."""
    renamed = RENAMED_FLAGS.get(" ".join(arguments[:2])) or RENAMED_FLAGS.get(" ".join(arguments[:1]), {})
    return [_with_new_name(argument, renamed) for argument in arguments]


def _with_new_name(argument: str, renamed: Mapping[str, str]) -> str:
    flag, equals, value = argument.partition("=")
    positive = "--" + flag.removeprefix("--no-") if flag.startswith("--no-") else flag
    if positive not in renamed:
        return argument
    new = flag.replace(positive[2:], renamed[positive][2:])
    warnings.warn(f"The flag {flag} is now called {new}; use the new name.", RenamedWarning, stacklevel=2)
    return new + equals + value
