"""Pretrained models from the Hugging Face hub, and quiet loading by transformers."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tavq.core.errors import UsageError, first_line


def download_from_hub(name: str, what: str, patterns: Sequence[str]) -> Path:
    """Download the files of `name` that match `patterns` from the hub and return their folder.

    Raises UsageError if there is no such name or no network; `what` says in the error what `name` should be.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # the client raises a dozen kinds; all mean that there is no model
        reason = first_line(error)[:300]
        raise UsageError(
            f"The {what} {name[:100]!r} is not a folder, and its download from the hub failed: {reason}"
        ) from error


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
