"""Opens models and tasks for the explorer, and builds their stores."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tavq.core.errors import UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.explore.building import build_store
from tavq.explore.encoding import Progress
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel, Sources
from tavq.explore.store import Source
from tavq.explore.units import describe_text
from tavq.model_folder import find_model, read_config, read_model_config
from tavq.tasks.model_folder import KIND as TASK
from tavq.tasks.model_folder import TOKENIZER, TaskModel, load_task
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer

DEFAULT_SIZE = 256
"""Side in pixels of the images of a model that does not say it, as some imported ones."""

NUMBERED = re.compile(r"(seed-)?[0-9]+")
"""A name that says nothing without the folder above it."""

GENERIC = frozenset({"model", TOKENIZER})
"""Names of folders that say nothing of what is in them."""


@dataclass(frozen=True)
class Setup:
    """How models are explored.

    Attributes:
        dataset: the images.
        text: their text store; None without one.
        folder: where stores are kept.
        config: how images are read; its size is that of each model.
        encoder: folder of the text encoder, where its name is not enough.
        device: of the networks.
        progress: called with (done, total, note) while a store is built.
    """

    dataset: FolderDataset
    text: TextStore | None
    folder: Path
    config: DataConfig
    encoder: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress | None = None


@dataclass
class _Found:
    """A tokenizer and the tasks on it."""

    name: str
    folder: Path
    metadata: dict[str, Any]
    tasks: dict[str, TaskModel]


def open_explorer(names: Sequence[str], setup: Setup) -> Explorer:
    """Open models, the folders of tokenizers or of tasks, and build the stores that are missing.

    A task joins its tokenizer; where that was not named, the task's own copy is explored, which has no aligner.

    Raises:
        UsageError: there is no model, or one is named twice.
        FileError: a file is damaged.
        DataError: too many images cannot be read.
    """
    found = _find(names, setup.device)
    ids = _make_ids([each.name for each in found])
    models = [_open(id, each, setup) for id, each in zip(ids, found, strict=True)]
    return Explorer(setup.dataset, models, setup.folder)


def _find(names: Sequence[str], device: torch.device) -> list[_Found]:
    found: dict[str, _Found] = {}
    tasks: list[tuple[str, Path]] = []
    for name in names:
        folder = find_model(name)
        stored = read_config(folder)
        if isinstance(stored, dict) and stored.get("kind") == TASK:
            tasks.append((name, folder))
        else:
            metadata = read_model_config(folder)
            if str(metadata.get("sha256")) in found:
                raise UsageError(f"{name} holds the same model as {found[str(metadata['sha256'])].name}; name it once.")
            found[str(metadata.get("sha256"))] = _Found(name, folder, metadata, {})
    for name, folder in tasks:
        task = load_task(folder).to(device)
        metadata = {**task.metadata, **read_model_config(folder / TOKENIZER)}
        # A task keeps its tokenizer without the aligner, and so with another hash than that of the tokenizer's folder.
        own = found.get(str(task.metadata.get("tokenizer")))
        own = own or found.setdefault(str(metadata.get("sha256")), _Found(name, folder / TOKENIZER, metadata, {}))
        if task.config.task.name in own.tasks:
            raise UsageError(f"{name} is a second model of the task {task.config.task.name!r} on one tokenizer.")
        own.tasks[task.config.task.name] = task
    return list(found.values())


def _make_ids(names: Sequence[str]) -> list[str]:
    """Short distinct names for addresses: the last parts of the paths, as many as needed."""
    parts = [[part for part in Path(name).resolve().parts if part not in GENERIC] or ["model"] for name in names]
    for length in range(1, max(map(len, parts)) + 1):
        ids = [re.sub(r"[^a-z0-9]+", "-", "-".join(part[-length:]).lower()).strip("-") or "model" for part in parts]
        if len(set(ids)) == len(ids) and not any(NUMBERED.fullmatch(id) for id in ids):
            return ids
    return [f"model-{number}" for number in range(len(names))]


def _open(id: str, found: _Found, setup: Setup) -> ExploredModel:
    tokenizer = Tokenizer.from_pretrained(found.folder).prepare(setup.device, "fp32")
    size = found.metadata.get("size")
    size = size if isinstance(size, int) else DEFAULT_SIZE // tokenizer.factor * tokenizer.factor
    text = setup.text
    if text is not None and tokenizer.aligner is not None:
        text.check_encoder(found.metadata.get("text"))
    source = Source(
        model=str(found.metadata.get("sha256")), size=size, data=setup.dataset.fingerprint, split=setup.dataset.split,
        images=len(setup.dataset), text=describe_text(text, setup.dataset),
    )  # fmt: skip
    config = setup.config.model_copy(update={"size": size})
    store = build_store(tokenizer, source, setup.dataset, text, setup.folder / source.key, config, setup.progress)
    return ExploredModel(id, tokenizer, Sources(found.name, found.metadata, store, text, setup.encoder, found.tasks))
