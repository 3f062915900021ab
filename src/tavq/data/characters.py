"""Characters that texts and names of other people's files hold: what cannot be printed, and two forms of one letter."""

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

UNPRINTABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""Unicode's categories Cc and Cs (control characters and surrogates), which are closed to new characters."""

WINDOWS = {code: bytes([code]).decode("cp1252", "ignore") or " " for code in range(0x80, 0xA0)} | {0x85: " "}
"""What U+0080 to U+009F stand for in a text: Windows' quotation marks and dashes that were read as Latin-1.

U+0085 alone is a real character, which ends a line.
"""


def is_printable(text: str, allowed: str = "") -> bool:
    """Whether the text can be shown and stored as UTF-8: no control characters, no half of a surrogate pair."""
    return all(letter in allowed for letter in UNPRINTABLE.findall(text))


def replace_unprintable(value: Any) -> Any:
    """A text with spaces for control characters and halves of surrogate pairs, so that the rest of it is kept.

    Other values are returned as they are.
    """
    if not isinstance(value, str):
        return value
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] in "\n\r\t" else " ", value.translate(WINDOWS))


def find_name(folder: Path, name: str) -> str:
    """The name of an image as it is stored: lists may have `é` as one character, and macOS stores it as two."""
    if name.isascii() or os.path.exists(folder / name):
        return name
    forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return next((form for form in forms if os.path.exists(folder / form)), name)
