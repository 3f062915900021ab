"""Text of strangers in Markdown."""


def table_cell(text: str) -> str:
    """Text that stays within a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")
