"""Tasks that read images: what they see of an image, and what each of them must do.

An image is seen as rows of numbers, one a position of its grid: the entries of its codes; for comparison, the features
before they were quantized; or nothing, which shows what can be said without looking. All else is the same.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import Config, NamedConfig
from tavq.core.errors import DataError, UsageError
from tavq.data.folder import FolderDataset
from tavq.data.images import read_shape
from tavq.data.records import Record
from tavq.interfaces import Losses
from tavq.metrics.record import Metric
from tavq.nets.transformer import check_heads
from tavq.tasks.base import Task, TokenLayout
from tavq.tokenizer import Tokenizer

ShapeReader = Callable[[], tuple[int, int]]
"""Height and width of an upright image, read from its file when they are asked for; DataError where it is none."""

ExampleBatch = tuple[Float[Tensor, "b n d"], Sequence[str], Sequence[Any]]
"""Rows, file names and examples; one of each an example."""


TextField = Literal["captions", "long_text"]
"""Which texts of a record a task reads: each of its captions, or its long text."""


class ImageInput(Config):
    """What a reading task sees of an image."""

    source: Literal["codes", "features", "none"] = "codes"
    """The entries of the codes; the encoder's features before they are quantized; or no image at all."""
    patch: int = Field(1, ge=1, le=16)
    """Rows of so many by so many neighbouring positions are put side by side: fewer and wider rows, nothing lost."""
    hidden: int = Field(512, ge=8, le=8192)
    """Width of the adapter's inner layer."""

    def token_count(self, layout: TokenLayout) -> int:
        """How many rows an image becomes; UsageError where the grid cannot be cut into patches."""
        if self.source == "none":
            return 1
        if layout.height % self.patch or layout.width % self.patch:
            raise UsageError(
                f"task.image.patch {self.patch} does not divide the grid of {layout.height} x {layout.width} codes."
            )
        return layout.height * layout.width // self.patch**2


class UnderstandingConfig(NamedConfig):
    """What the settings of every reading task begin with."""

    RENAMED: ClassVar = {"picture": "image"}

    image: ImageInput = ImageInput()


class TransformerConfig(UnderstandingConfig):
    """Of the tasks whose rows of an image and of a text read each other: the size of that transformer."""

    RENAMED: ClassVar = {**UnderstandingConfig.RENAMED, "longest": "max_length"}

    layers: int = Field(3, ge=1, le=64)
    heads: int = Field(16, ge=1, le=64)
    width: int = Field(512, ge=8, le=4096)
    dropout: float = Field(0.1, ge=0, lt=1)
    max_length: int = Field(40, ge=1, le=512)
    """Words of a text that are read; of a longer one the first."""
    vocabulary: int | None = Field(None, ge=3, le=1 << 20)
    """Words that it knows; training fills in those of its texts."""

    _check_heads = model_validator(mode="after")(check_heads)


@dataclass(frozen=True)
class UnderstandingBatch:
    """Some images, and what a task's `collate` made of what is to be learned from each."""

    features: Float[Tensor, "b n d"]
    keys: tuple[str, ...]
    examples: Any


class Adapter(nn.Module):
    """The rows of an image as rows that a transformer reads: two layers with a ReLU between, and a place each.

    Source: LG-VQ (arXiv 2405.14206), appendix A.1 and fig. 9: codes take the place of ClipCap's prefix.
    Differs from the paper: rows are brought to mean 0 and spread 1 first, by the training set's own, so that tokenizers
    whose entries are of other lengths are compared alike.

    Args:
        config: what is seen.
        layout: of the images' codes.
        width: d, of a row.
        out: of the transformer's rows.
    """

    def __init__(self, config: ImageInput, layout: TokenLayout, width: int, out: int) -> None:
        super().__init__()
        p = config.patch
        self.config, self.layout = config, layout
        self.length = config.token_count(layout)
        self.places = nn.Parameter(torch.randn(self.length, out) * 0.02)
        if config.source != "none":
            self.register_buffer("middle", torch.zeros(width))
            self.register_buffer("spread", torch.ones(()))
            self.layers = nn.Sequential(
                nn.Linear(width * p**2, config.hidden), nn.ReLU(), nn.Linear(config.hidden, out)
            )

    middle: Tensor
    spread: Tensor

    def fit(self, rows: Float[Tensor, "b n d"]) -> None:
        """Takes mean and spread from images of the training set."""
        if self.config.source != "none":
            flat = rows.flatten(0, 1).float()
            self.middle.copy_(flat.mean(dim=0))
            self.spread.copy_((flat - self.middle).square().mean().sqrt().clamp(min=1e-6))

    def forward(self, rows: Float[Tensor, "b n d"]) -> Float[Tensor, "b m c"]:
        if self.config.source == "none":
            return self.places.expand(len(rows), -1, -1)
        return self.layers(self._patches((rows - self.middle) / self.spread)) + self.places

    def _patches(self, rows: Float[Tensor, "b n d"]) -> Float[Tensor, "b m e"]:
        b, p, layout = len(rows), self.config.patch, self.layout
        grid = rows.view(b, layout.height // p, p, layout.width // p, p, -1)
        return grid.permute(0, 1, 3, 2, 4, 5).reshape(b, self.length, -1)


class UnderstandingTask(Task):
    """A network that says something of images.

    Made by `(config, layout, width)`, d the width of an image's rows. What is learned from one image is a sequence
    of examples, of a type of the task's own. Every method that says something is the task's own; a command calls it.
    """

    mean_of_examples: ClassVar[bool] = True
    """The loss of a batch is the mean of its examples' losses; False where they are told apart, or places are drawn."""
    config: Any
    adapter: Adapter

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[Any]:
        """What can be learned from an image, or asked of it; none where its record lacks what it takes.

        The task sees the centre square of the image, of which its `shape` decides.
        """
        raise TypeError(f"{cls.__name__} must define examples")

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        """What a record must have to give examples, for a message: "questions"."""
        raise TypeError(f"{cls.__name__} must define wants")

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[Any]) -> Any:
        """The settings with what the training examples decide filled in (sizes of a vocabulary); most need nothing."""
        return config

    def prepare(self, examples: Sequence[Any]) -> None:
        """Fills what is not drawn and not learned from the training examples, once, before training."""

    def collate(self, examples: Sequence[Any]) -> Any:
        """Examples as tensors, for `loss`; a dataclass or a tensor."""
        raise TypeError(f"{type(self).__name__} must define collate")

    def compute_metrics(
        self,
        batches: Iterable[ExampleBatch],
        training: Sequence[tuple[str, Any]],
    ) -> list[Metric]:
        """The metrics of held-out images, and those of baselines that see no image.

        Args:
            batches: what is asked.
            training: file name and example of the training split, for the baselines.
        """
        raise TypeError(f"{type(self).__name__} must define measure")

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """The objective of a batch; draws from torch's global generator alone."""
        raise TypeError(f"{type(self).__name__} must define loss")


# --- what is seen -----------------------------------------------------------------------------------------------


@torch.no_grad()
def extract_encoder_features(tokenizer: Tokenizer, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b n d"]:
    """The encoder's features before they are quantized, in raster order."""
    return tokenizer.encoder(images)[1].flatten(2).transpose(1, 2)


@torch.no_grad()
def lookup_quantized(tokenizer: Tokenizer, layout: TokenLayout, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b m d"]:
    """The codes that the decoder reads for the tokens of some images, one row a position in raster order."""
    return tokenizer.quantizer.lookup(layout.to_indices(tokens), tokenizer.codebook).flatten(2).transpose(1, 2)


def extract_features(
    tokenizer: Tokenizer, layout: TokenLayout, config: ImageInput, images: Float[Tensor, "b 3 y x"]
) -> Float[Tensor, "b n d"]:
    """What a reading task sees of images in [-1, 1]."""
    if config.source == "features":
        return extract_encoder_features(tokenizer, images)
    return lookup_quantized(tokenizer, layout, layout.to_tokens(tokenizer.encode(images)))


# --- what is asked ----------------------------------------------------------------------------------------------


def read_texts(field: TextField, record: Record) -> list[str]:
    """The texts of a record in single spaces, without empty ones."""
    texts = record.captions if field == "captions" else (record.long_text or "",)
    return [" ".join(text.split()) for text in texts if text.strip()]


def describe_texts(field: TextField) -> str:
    """What a record must have to give such texts, for a message."""
    return "captions" if field == "captions" else "long texts (task.text_field long_text)"


def collect_examples(kind: type[UnderstandingTask], config: Any, dataset: FolderDataset) -> list[tuple[str, Any]]:
    """File name and example, in the order of the split; UsageError where there is none."""
    found = [
        (record.file_name, example)
        for record in dataset
        for example in collect_record_examples(kind, config, dataset, record)
    ]
    if not found:
        raise UsageError(
            f"The task {kind.name!r} learns from {kind.describe_requirement(config)}, and no image of the split "
            f"{dataset.split!r} of {dataset.folder} has any; see what a record can hold in docs/files.md."
        )
    return found


def collect_record_examples(
    kind: type[UnderstandingTask], config: Any, dataset: FolderDataset, record: Record
) -> Sequence[Any]:
    """The examples of one image; none where its size is needed and cannot be read, which reading its pixels tells."""
    try:
        return kind.extract_examples(config, record, lambda: read_shape(dataset.path(record.file_name))[:2])
    except DataError:
        return ()
