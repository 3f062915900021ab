"""Pretrained models from the Hugging Face hub, and quiet loading by transformers."""

import contextlib
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from tavq.core.errors import UsageError, first_line


def download_from_hub(name: str, what: str, patterns: Sequence[str]) -> Path:
    """Download the files of `name` that match `patterns` from the hub and return their folder.

    Raises UsageError if there is no such name or no network; `what` says in the error what `name` should be, which
    also names a folder here that may be meant.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # the client raises a dozen kinds; all mean that there is no model
        reason = first_line(error)[:300]
        raise UsageError(
            f"The {what} {name[:100]!r} is not a folder{suggest_folder(name)}, and its download from the hub failed: "
            f"{reason}"
        ) from error


def suggest_folder(name: str) -> str:
    """The folder here that a mistyped path may mean, for the error; empty if there is none."""
    path = Path(name)
    folders = [child.name for child in path.parent.iterdir() if child.is_dir()] if path.parent.is_dir() else []
    meant = get_close_matches(path.name, folders, n=1)
    return f" (did you mean {str(path.parent / meant[0])!r}?)" if meant else ""


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bar and messages of transformers; our own checks report what matters."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bar = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
