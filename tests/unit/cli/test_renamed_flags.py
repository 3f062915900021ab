"""Old flags still work, with a warning."""

import pytest

from tavq.cli.renamed_flags import with_new_flags
from tavq.core.errors import RenamedWarning


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("text scenes --whole --half --jobs 2", "text scenes --full-text --float16 --jobs 2"),
        ("text scenes --whole=true --no-half", "text scenes --full-text=true --no-float16"),
        ("search index run --half", "search index run --float16"),
    ],
)
def test_old_flags_are_replaced(arguments: str, expected: str) -> None:
    with pytest.warns(RenamedWarning, match=r"The flag --\S+ is now called --\S+; use the new name\."):
        assert with_new_flags(arguments.split()) == expected.split()


@pytest.mark.parametrize("arguments", ["text scenes --full-text", "train whole --half", ""])
def test_other_flags_stay(arguments: str) -> None:
    assert with_new_flags(arguments.split()) == arguments.split()
