"""Checkpoints on the Hugging Face hub: which files of a repository are a tokenizer, and their download."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tavq.core.config import read_yaml
from tavq.core.errors import FileError, UsageError, first_line
from tavq.core.files import read_text
from tavq.core.pretrained import TOKEN, is_hub_name, suggest_folder, without_token
from tavq.interop.reading import INDEX_FILES, WEIGHT_FILES, WEIGHT_SUFFIXES, read_index, tokenizer_shards

FOLDERS = ("", "vqvae/")
"""Where a repository may have a model: at its top, or in the part of a diffusers pipeline."""

MAX_LISTED = 20


@dataclass(frozen=True)
class HubCheckpoint:
    """Files that were downloaded."""

    path: Path  # for `read_checkpoint`
    origin: str
    licence: str | None  # as the repository's card states it


def is_on_hub(source: str) -> bool:
    """Whether a source is a name on the hub, and not a file or folder here, which may be missing."""
    return is_hub_name(source) and not source.endswith(WEIGHT_SUFFIXES) and not os.path.exists(source)


def download_checkpoint(name: str, file: str | None = None) -> HubCheckpoint:
    """Download the files of a tokenizer, all of one commit, to the hub's own cache.

    Of a model in several files those alone that hold the tokenizer are loaded. The token of a private repository comes
    from the environment (HF_TOKEN) and from nowhere else. With HF_HUB_OFFLINE=1 the cache alone is read.

    Args:
        name: OWNER/NAME, or OWNER/NAME@REVISION with a branch, tag or commit; by default the newest commit.
        file: the file of weights; by default the one with a usual name.

    Raises:
        UsageError: there is no such repository, revision or file, or no network.
    """
    repository = _Repository(name)
    path = repository.required(file) if file is not None else _find_weights(repository)
    if file is not None and Path(file).name in WEIGHT_FILES:
        repository.optional(str(Path(file).parent / "config.json"))
    card = repository.optional("README.md")
    origin = f"https://huggingface.co/{repository.name}/tree/{repository.revision}"
    return HubCheckpoint(path, origin, _stated_licence(card) if card else None)


def _find_weights(repository: "_Repository") -> Path:
    """The folder or file of the weights with a usual name."""
    for folder in FOLDERS:
        repository.optional(f"{folder}config.json")
        for index in INDEX_FILES:
            path = repository.optional(folder + index)
            if path is not None:
                for shard in tokenizer_shards(read_index(path)):
                    repository.required(folder + shard.name)
                return path.parent
        for weights in WEIGHT_FILES:
            path = repository.optional(folder + weights)
            if path is not None:
                return path
    raise repository.nothing_found()


class _Repository:
    """A repository at one commit: the one of the first file that is loaded."""

    def __init__(self, name: str) -> None:
        self.name, _, revision = name.partition("@")
        self.revision = revision or "main"
        self.unreachable: Exception | None = None

    def required(self, file: str) -> Path:
        try:
            return self._load(file)
        except Exception as error:  # the client raises a dozen kinds
            raise self._failure(error) from error

    def optional(self, file: str) -> Path | None:
        """The file, or None if the repository has none of this name."""
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return self._load(file)
        except LocalEntryNotFoundError as error:  # no network: the cache is asked for the other files
            self.unreachable = self.unreachable or error
        except EntryNotFoundError:
            pass
        except Exception as error:
            raise self._failure(error) from error
        return None

    def _load(self, file: str) -> Path:
        import huggingface_hub

        path = huggingface_hub.hf_hub_download(
            self.name,
            file,
            revision=self.revision,
            token=_token(),
            local_files_only=self.unreachable is not None,
        )
        place = Path(path)
        self.revision = _commit(place) or self.revision
        return place

    def nothing_found(self) -> UsageError:
        """Why no file of weights was found: no network, or others than the usual names."""
        if self.unreachable is not None:
            return self._failure(self.unreachable)
        names = [name for name in self._list() if name.endswith(WEIGHT_SUFFIXES)]
        listed = ", ".join(names[:MAX_LISTED]) + (" …" if len(names) > MAX_LISTED else "")
        return UsageError(
            f"{self.name} has no weights of a usual name on the hub; name a file of it with --file: {listed or 'none'}."
        )

    def _list(self) -> list[str]:
        import huggingface_hub

        list_files: Callable[..., Any] = huggingface_hub.HfApi().list_repo_files
        try:
            return sorted(list_files(self.name, revision=self.revision, token=_token()))
        except Exception as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> UsageError:
        return UsageError(
            f"{self.name!r} is not a file or folder{suggest_folder(self.name)}, and its download from the hub failed: "
            f"{without_token(first_line(error))[:300]} Without a network, HF_HUB_OFFLINE=1 reads what was loaded "
            "before; a private repository needs HF_TOKEN in the environment."
        )


def _token() -> str | bool:
    """The token of the environment; False sends none, also where one is stored on this machine."""
    return os.environ.get(TOKEN) or False


def _commit(path: Path) -> str | None:
    """The commit of a file in the hub's cache (.../snapshots/COMMIT/...)."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None


def _stated_licence(card: Path) -> str | None:
    """The licence in the first lines of a model card."""
    try:
        head = re.match(r"---\n(.*?)\n---", read_text(card), re.DOTALL)
        stated = read_yaml(head[1], str(card)).get("license") if head else None
    except (FileError, UsageError):
        return None
    return f"{stated[:100]} (as stated on the hub)" if isinstance(stated, str) else None
