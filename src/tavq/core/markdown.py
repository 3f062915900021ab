"""Text of strangers in Markdown."""

from collections.abc import Sequence


def table_cell(text: str) -> str:
    """Text that stays within a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")


def table_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(map(table_cell, line)) + " |" for line in lines]
