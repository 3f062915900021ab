"""Spaces that images and texts share: that of a tokenizer's aligner, and that of a retrieval task."""

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core import files
from tavq.core.devices import to_device
from tavq.core.errors import FileError, TrainingError, UsageError
from tavq.data.records import Record
from tavq.data.texts import collate_text
from tavq.interfaces import FULL_TEXT, GRANULARITIES, POOLED
from tavq.model_folder import find_model, read_model_config
from tavq.tasks.model_folder import CONDITION_TOKENIZER, KIND, TOKENIZER, TaskModel, load_task
from tavq.tasks.prompts import PromptEncoder
from tavq.tasks.text_task import read_texts
from tavq.tasks.understanding import extract_features
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer

COMMAND = "search"

LONGEST = 1.001
"""No vector is longer; half precision may lengthen a unit vector by less."""

Text = tuple[str, str]
"""The file_name of an image and a text of it."""


@runtime_checkable
class Space(Protocol):
    """What gives vectors whose dot product ranks images against texts.

    Attributes:
        folder: the model folder.
        sha256: of the model's weights.
        size: side of the images that it reads.
    """

    folder: Path
    sha256: str
    size: int

    @property
    def text_store(self) -> str | None:
        """The sha256 of the store that texts come from; None where they come from none."""
        ...

    def texts_of(self, record: Record) -> Sequence[str]:
        """The texts of an image that can become vectors."""
        ...

    def embed_images(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b e"]:
        """Vectors of images in [-1, 1], on the CPU."""
        ...

    def embed_texts(self, texts: Sequence[Text]) -> Float[Tensor, "b e"]:
        """Vectors of texts that `texts_of` gave, on the CPU."""
        ...

    def embed_typed(self, text: str) -> tuple[Float[Tensor, "1 e"], tuple[str, ...]]:
        """The vector of what a person typed, and what they should be told of it, one line each.

        Raises UsageError where the model cannot read it.
        """
        ...


class AlignerSpace:
    """The space of a tokenizer's aligner, in which its codes were drawn towards text.

    Texts of a data set come from the text store that it is given by `read`, typed ones through that store's encoder.

    Raises UsageError where the tokenizer has no aligner.
    """

    def __init__(self, folder: Path, encoder: str | None, device: torch.device) -> None:
        self.folder, self.encoder, self.device = folder, encoder, device
        self.facts = read_model_config(folder)
        self.sha256, self.size = str(self.facts.get("sha256")), _size(folder, self.facts)
        self.tokenizer = Tokenizer.from_pretrained(folder).to(device)
        if self.tokenizer.aligner is None:
            raise UsageError(
                f"{folder} holds a tokenizer without an aligner, so its codes and texts share no space; train one on "
                f"it: tavq task train retrieval-tiny --tokenizer {folder} --data DATA --out RUN"
            )
        self.aligner = self.tokenizer.aligner
        self.store: TextStore | None = None

    def read(self, store: TextStore) -> None:
        """Takes the texts of a data set; UsageError where they were encoded by another encoder than the training's."""
        store.check_encoder(self.facts.get("text"))
        self.store = store

    @property
    def text_store(self) -> str | None:
        """Of the store that was read."""
        return None if self.store is None else self.store.manifest.sha256

    def texts_of(self, record: Record) -> Sequence[str]:
        """The text of an image that the store holds."""
        if self.store is None or record.file_name not in self.store:
            return ()
        return (record.text or "",)

    @torch.no_grad()
    def embed_images(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b e"]:
        """By the aligner, of the quantised grids."""
        return _checked(self.aligner.embed_images(self.tokenizer.quantize(images.to(self.device))))

    def embed_texts(self, texts: Sequence[Text]) -> Float[Tensor, "b e"]:
        """By the aligner, of what the store holds."""
        assert self.store is not None
        tables = (*GRANULARITIES, FULL_TEXT, POOLED) if self.store.manifest.full_text else GRANULARITIES
        return self._embed(collate_text(self.store, [key for key, _ in texts], tables))

    def embed_typed(self, text: str) -> tuple[Float[Tensor, "1 e"], tuple[str, ...]]:
        """By the aligner, split and encoded as the store was."""
        typed = self._prompter([text])
        return self._embed(typed.features), typed.notes

    @cached_property
    def _prompter(self) -> PromptEncoder:
        return PromptEncoder(self.facts, self.encoder, self.device)  # loads the text encoder, which takes seconds

    @torch.no_grad()
    def _embed(self, text: Any) -> Float[Tensor, "b e"]:
        return _checked(self.aligner.embed_text(to_device(text, self.device)))


class TaskSpace:
    """The space of a retrieval task, whose words are those of its training texts."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.model: TaskModel = load_task(folder, COMMAND).to(device)
        self.sha256, self.size = str(self.model.metadata.get("sha256")), _size(folder, self.model.metadata)
        self.text_store: str | None = None

    def texts_of(self, record: Record) -> Sequence[str]:
        """Captions, or the long text, as the task was trained."""
        return read_texts(self.model.config.task.text_field, record)

    @torch.no_grad()
    def embed_images(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b e"]:
        """By the task, of what it sees of images."""
        config = self.model.config
        rows = extract_features(self.model.tokenizer, config.layout, config.task.image, images.to(self.device))
        return _checked(self.model.task.embed_images(rows))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[Text]) -> Float[Tensor, "b e"]:
        """By the task."""
        return _checked(self.model.task.embed_texts([text for _, text in texts]))

    def embed_typed(self, text: str) -> tuple[Float[Tensor, "1 e"], tuple[str, ...]]:
        """By the task; the notes name the words that it does not know."""
        notes = self.model.task.check_text(text)
        return self.embed_texts([("", text)]), tuple(notes)


def open_space(
    name_or_path: str | Path, encoder: str | None = None, device: torch.device | None = None
) -> AlignerSpace | TaskSpace:
    """The space of a model folder, a run folder or a hub name: a tokenizer with an aligner, or a retrieval task.

    Args:
        name_or_path: the model.
        encoder: where the text encoder is, where an aligner's name for it is not enough (a folder).
        device: by default the CPU.

    Raises:
        UsageError: there is none, or it is a model without such a space.
        FileError: its files are damaged.
    """
    folder = find_model(name_or_path)
    stored = files.read_json(folder / "config.json")
    device = device or torch.device("cpu")
    if isinstance(stored, dict) and stored.get("kind") == KIND:
        return TaskSpace(folder, device)
    return AlignerSpace(folder, encoder, device)


def copy_model(folder: Path, out: Path) -> None:
    """Copies what a model folder consists of, and nothing else that may lie there."""
    out.mkdir()
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.suffix in (".json", ".safetensors") or path.name == "README.md"):
            shutil.copyfile(path, out / path.name)
        elif path.is_dir() and path.name in (TOKENIZER, CONDITION_TOKENIZER):
            copy_model(path, out / path.name)


def _size(folder: Path, facts: dict[str, Any]) -> int:
    size = facts.get("size")
    if type(size) is not int or not 16 <= size <= 2048:
        raise FileError(f"{folder / 'config.json'} does not say which image size it was trained at; got {size!r:.50}.")
    return size


def _checked(vectors: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
    """The vectors in float32 on the CPU; TrainingError where one is not finite or longer than 1."""
    vectors = vectors.float().cpu()
    if not bool((vectors.norm(dim=1) <= LONGEST).all()):  # False for NaN too
        raise TrainingError("The model's vectors are not finite, so nothing can be found; use an earlier checkpoint.")
    return vectors
