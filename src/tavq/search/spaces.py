"""Embedding spaces shared by images and texts: that of a tokenizer's aligner, and that of a retrieval task."""

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.devices import to_device
from tavq.core.errors import FileError, TrainingError, UsageError
from tavq.core.precision import Precision
from tavq.data.records import Record
from tavq.data.texts import collate_text
from tavq.interfaces import FULL_TEXT, GRANULARITIES, POOLED
from tavq.model_folder import find_model, read_config, read_model_config
from tavq.tasks.model_folder import CONDITION_TOKENIZER, KIND, MAX_SIZE, MIN_SIZE, TOKENIZER, TaskModel, load_task
from tavq.tasks.prompts import PromptEncoder
from tavq.tasks.text_task import read_texts
from tavq.tasks.understanding import extract_features
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer

COMMAND = "search"

MAX_NORM = 1.001
"""Upper bound of a vector's length; rounding to half precision may lengthen a unit vector by less."""

Text = tuple[str, str]
"""The file_name of an image, and a text of that image."""


@runtime_checkable
class Space(Protocol):
    """Embeds images and texts as vectors whose dot product ranks one against the other.

    Attributes:
        folder: the model folder.
        sha256: hash of the model's weights.
        size: side of the model's images in pixels.
        precision: in which the tokenizer's convolutions compute.
    """

    folder: Path
    sha256: str
    size: int
    precision: Precision

    @property
    def text_store(self) -> str | None:
        """The sha256 of the text store that texts come from; None if they come from none."""
        ...

    def read_texts(self, record: Record) -> Sequence[str]:
        """The texts of an image that can be embedded."""
        ...

    def embed_images(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b e"]:
        """Vectors of images in [-1, 1], on the CPU."""
        ...

    def embed_texts(self, texts: Sequence[Text]) -> Float[Tensor, "b e"]:
        """Vectors of texts that `read_texts` returned, on the CPU."""
        ...

    def embed_query(self, text: str) -> tuple[Float[Tensor, "1 e"], tuple[str, ...]]:
        """The vector of a text that a user typed, and notes for the user, such as unknown words.

        Raises UsageError if the model cannot read the text.
        """
        ...


class AlignerSpace:
    """The space of a tokenizer's aligner, in which its codes were aligned with text.

    Texts of a data set come from a text store (`use_store`), queries go through that store's encoder.

    Raises UsageError if the tokenizer has no aligner.
    """

    def __init__(self, folder: Path, encoder: str | None, device: torch.device) -> None:
        self.folder, self.encoder, self.device = folder, encoder, device
        self.metadata = read_model_config(folder)
        self.sha256, self.size = str(self.metadata.get("sha256")), _read_size(folder, self.metadata)
        self.tokenizer = Tokenizer.from_pretrained(folder).prepare(device)
        self.precision = self.tokenizer.precision
        if self.tokenizer.aligner is None:
            raise UsageError(
                f"{folder} holds a tokenizer without an aligner, so its codes and texts share no space; train one on "
                f"it: tavq task train retrieval-tiny --tokenizer {folder} --data DATA --out RUN"
            )
        self.aligner = self.tokenizer.aligner
        self.store: TextStore | None = None

    def use_store(self, store: TextStore) -> None:
        """Set the texts of a data set; UsageError unless they were encoded by the encoder of the training."""
        store.check_encoder(self.metadata.get("text"))
        self.store = store

    @property
    def text_store(self) -> str | None:
        """The sha256 of the store in use."""
        return None if self.store is None else self.store.manifest.sha256

    def read_texts(self, record: Record) -> Sequence[str]:
        """The text of an image, if the store has it."""
        if self.store is None or record.file_name not in self.store:
            return ()
        _, text = record.texts(self.store.each_caption)[0]
        return (text,)

    @torch.no_grad()
    def embed_images(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b e"]:
        """Embed the quantized grids by the aligner."""
        return _check_vectors(self.aligner.embed_images(self.tokenizer.quantize(images.to(self.device))))

    def embed_texts(self, texts: Sequence[Text]) -> Float[Tensor, "b e"]:
        """Embed the store's text by the aligner."""
        assert self.store is not None
        tables = (*GRANULARITIES, FULL_TEXT, POOLED) if self.store.manifest.full_text else GRANULARITIES
        return self._embed(collate_text(self.store, [key for key, _ in texts], tables))

    def embed_query(self, text: str) -> tuple[Float[Tensor, "1 e"], tuple[str, ...]]:
        """Split and encode a text as for the store, then embed it by the aligner."""
        prompt = self._prompt_encoder([text])
        return self._embed(prompt.features), prompt.notes

    @cached_property
    def _prompt_encoder(self) -> PromptEncoder:
        return PromptEncoder(self.metadata, self.encoder, self.device)  # loads the text encoder, which takes seconds

    @torch.no_grad()
    def _embed(self, text: Any) -> Float[Tensor, "b e"]:
        return _check_vectors(self.aligner.embed_text(to_device(text, self.device)))


class TaskSpace:
    """The space of a retrieval task."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.model: TaskModel = load_task(folder, COMMAND).to(device)
        self.sha256, self.size = str(self.model.metadata.get("sha256")), _read_size(folder, self.model.metadata)
        self.text_store: str | None = None
        self.precision = self.model.tokenizer.precision

    def read_texts(self, record: Record) -> Sequence[str]:
        """Captions or the long text, whichever the task was trained with."""
        return read_texts(self.model.config.task.text_field, record)

    @torch.no_grad()
    def embed_images(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b e"]:
        """Embed the image features by the task."""
        config = self.model.config
        features = extract_features(self.model.tokenizer, config.layout, config.task.image, images.to(self.device))
        return _check_vectors(self.model.task.embed_images(features))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[Text]) -> Float[Tensor, "b e"]:
        """Embed texts by the task."""
        return _check_vectors(self.model.task.embed_texts([text for _, text in texts]))

    def embed_query(self, text: str) -> tuple[Float[Tensor, "1 e"], tuple[str, ...]]:
        """Embed a text by the task; the notes name unknown words."""
        notes = self.model.task.check_text(text)
        return self.embed_texts([("", text)]), tuple(notes)


def open_space(
    name_or_path: str | Path, encoder: str | None = None, device: torch.device | None = None
) -> AlignerSpace | TaskSpace:
    """Load the space of a tokenizer with an aligner, or of a retrieval task.

    Args:
        name_or_path: a model folder, a run folder or a hub name.
        encoder: the folder of an aligner's text encoder, if its name is not enough to find it.
        device: by default the CPU.

    Raises:
        UsageError: there is no such model, or it has no such space.
        FileError: the model's files are damaged.
    """
    folder = find_model(name_or_path)
    stored = read_config(folder)
    device = device or torch.device("cpu")
    if isinstance(stored, dict) and stored.get("kind") == KIND:
        return TaskSpace(folder, device)
    return AlignerSpace(folder, encoder, device)


def copy_model(folder: Path, out: Path) -> None:
    """Copy the files of a model folder, and nothing else that may be there."""
    out.mkdir()
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.suffix in (".json", ".safetensors") or path.name == "README.md"):
            shutil.copyfile(path, out / path.name)
        elif path.is_dir() and path.name in (TOKENIZER, CONDITION_TOKENIZER):
            copy_model(path, out / path.name)


def _read_size(folder: Path, metadata: dict[str, Any]) -> int:
    size = metadata.get("size")
    if type(size) is not int or not MIN_SIZE <= size <= MAX_SIZE:
        raise FileError(
            f"{folder / 'config.json'} must hold the image size of the training, {MIN_SIZE} to {MAX_SIZE}; "
            f"got {size!r:.50}."
        )
    return size


def _check_vectors(vectors: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
    """The vectors in float32 on the CPU; TrainingError if one is not finite or longer than 1."""
    vectors = vectors.float().cpu()
    if not bool((vectors.norm(dim=1) <= MAX_NORM).all()):  # False for NaN too
        raise TrainingError("The model's vectors are not finite, so nothing can be found; use an earlier checkpoint.")
    return vectors
