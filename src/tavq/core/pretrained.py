"""Pretrained models from the Hugging Face hub, and quiet loading by transformers."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from tavq.core.errors import UsageError, first_line

TOKEN = "HF_TOKEN"
"""The variable of the environment with the user's access token: never an option, never written, never shown."""


def download_from_hub(name: str, what: str, patterns: Sequence[str]) -> Path:
    """Download the files of `name` that match `patterns` from the hub to its client's cache, and return their folder.

    `OWNER/NAME@REVISION` pins a branch, a tag or a commit. What is in the cache is taken without a network where
    HF_HUB_OFFLINE is set or the hub cannot be reached. The client reads HF_TOKEN for what is private.

    Raises UsageError if there is no such name or no network; `what` says in the error what `name` should be, which
    also names a folder here that may be meant.
    """
    import huggingface_hub

    repository, _, revision = name.partition("@")
    try:
        folder = huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns))
        return Path(folder)
    except Exception as error:  # the client raises a dozen kinds; all mean that there is no model
        reason = without_token(first_line(error))[:300]
        raise UsageError(
            f"The {what} {name[:100]!r} is not a folder{suggest_folder(name)}, and its download from the hub failed: "
            f"{reason}"
        ) from error


def is_hub_name(name: str) -> bool:
    """Whether a name can be one of the hub, `OWNER/NAME` or `OWNER/NAME@REVISION`, and not a path."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@.+)?", name) is not None


def without_token(message: str) -> str:
    """A message of the hub's client with the user's token blotted out."""
    token = os.environ.get(TOKEN, "").strip()
    return message.replace(token, "***") if token else message


def upload_to_hub(
    name: str, contents: Mapping[str, bytes | Path], message: str, branch: str | None = None, private: bool = False
) -> str:
    """Upload files to the hub in one commit, creating what is missing; return the commit.

    Args:
        name: `OWNER/NAME`.
        contents: files, or what they hold, by their names in the repository.
        message: of the commit.
        branch: to commit to; the main one by default.
        private: make a new repository private, and accept no public one.

    Raises UsageError if there is no token in the environment, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UsageError(f"An upload needs an access token with the right to write in the environment: {TOKEN}.")
    client = HfApi(token=token)
    operations = [CommitOperationAdd(path, content) for path, content in contents.items()]
    try:
        client.create_repo(name, private=private, exist_ok=True)
        if private and not client.repo_info(name).private:
            raise UsageError(f"{name} exists and is public; leave out --private, or choose another name.")
        if branch is not None:
            client.create_branch(name, branch=branch, exist_ok=True)
        with _quiet_bars():
            done = client.create_commit(name, operations, commit_message=message, revision=branch)
    except UsageError:
        raise
    except Exception as error:  # as for downloads
        reason = without_token(first_line(error))[:300]
        raise UsageError(f"The upload to {name[:100]!r} failed: {reason}") from None  # its cause may hold the token
    return str(done.oid)


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


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
