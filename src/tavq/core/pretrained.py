"""Pretrained models of others: from the hub, and loaded by transformers without its remarks."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tavq.core.errors import UsageError, first_line


def download_from_hub(name: str, what: str, patterns: Sequence[str]) -> Path:
    """The folder into which the hub's client brought the files of `name` that match `patterns`.

    Raises UsageError where there is no such name, or no way to it; `what` is what was looked for.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client raises a dozen kinds; each means that the name cannot be had
        raise UsageError(
            f"The {what} {name[:100]!r} is no folder here, and the hub did not give it: {first_line(error)[:300]}"
        ) from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers without its progress bar and remarks: who loads with it checks what matters."""
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
