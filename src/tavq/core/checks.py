"""Checks of values that come from outside."""

import math
from collections.abc import Iterable
from typing import Any

from tavq.core.errors import UsageError


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def check_unicode(texts: Iterable[str]) -> None:
    """Raise UsageError where a text is not Unicode: an argument of the command line may hold any bytes."""
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"The text {text[:80]!r} holds bytes that are not UTF-8, first at character {error.start + 1}; write "
                "it in UTF-8."
            ) from error


JSON_TYPES = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}


def json_type(value: Any) -> str:
    """What a value read from JSON is called in messages."""
    return "null" if value is None else JSON_TYPES[type(value)]
