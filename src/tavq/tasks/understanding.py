"""Understanding tasks: the image features that they read, and what each of them must implement.

An image is a sequence of feature vectors, one per position of its grid: the entries of its codes; for comparison, the
encoder's features before quantization; or nothing, which shows what can be answered without the image. Everything else
stays the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from tavq.ops.gathering import gather_in_order, gather_rows
from tavq.tasks.base import Task, TokenLayout
from tavq.tasks.samples import AnsweredImage, SampleImages
from tavq.tokenizer import Tokenizer

ShapeReader = Callable[[], tuple[int, int]]
"""Reads height and width of an upright image from its file; DataError if it is not an image."""

ExampleBatch = tuple[Float[Tensor, "b n d"], Sequence[str], Sequence[Any]]
"""Image features, file names and examples, aligned: an image appears once per example."""


class ImageInput(Config):
    """What an understanding task reads of an image."""

    source: Literal["codes", "features", "none"] = "codes"
    """The entries of the codes; the encoder's features before quantization; or no image at all."""
    patch: int = Field(1, ge=1, le=16)
    """Concatenate the features of patch x patch neighbouring positions: fewer and wider tokens, nothing lost."""
    hidden: int = Field(512, ge=8, le=8192)
    """Width of the adapter's hidden layer."""

    def token_count(self, layout: TokenLayout) -> int:
        """Tokens per image; UsageError if the patches do not tile the grid."""
        if self.source == "none":
            return 1
        if layout.height % self.patch or layout.width % self.patch:
            raise UsageError(
                f"task.image.patch {self.patch} does not divide the grid of {layout.height} x {layout.width} codes."
            )
        return layout.height * layout.width // self.patch**2


class UnderstandingConfig(NamedConfig):
    """The settings that all understanding tasks have."""

    RENAMED: ClassVar = {"picture": "image"}

    image: ImageInput = ImageInput()


class TransformerConfig(UnderstandingConfig):
    """The settings of tasks that join image tokens and text tokens in a transformer."""

    RENAMED: ClassVar = {**UnderstandingConfig.RENAMED, "longest": "max_length"}

    layers: int = Field(3, ge=1, le=64)
    heads: int = Field(16, ge=1, le=64)
    width: int = Field(512, ge=8, le=4096)
    dropout: float = Field(0.1, ge=0, lt=1)
    max_length: int = Field(40, ge=1, le=512)
    """Words of a text that are read; the rest is cut off."""
    vocabulary: int | None = Field(None, ge=3, le=1 << 20)
    """Vocabulary size; null for that of the training texts."""

    _check_heads = model_validator(mode="after")(check_heads)


@dataclass(frozen=True)
class UnderstandingBatch:
    """Image features, and the examples of these images as the task's `collate` returns them."""

    features: Float[Tensor, "b n d"]
    keys: tuple[str, ...]
    examples: Any


class Adapter(nn.Module):
    """Projects image features to transformer tokens: a two-layer MLP with ReLU, plus learned position embeddings.

    Source: LG-VQ (arXiv 2405.14206), appendix A.1 and fig. 9: codes replace ClipCap's prefix.
    Differs from the paper: features are normalized first, to mean 0 (per channel) and standard deviation 1 (over all)
    on the training set, so that codebooks whose entries differ in scale are compared fairly.

    Args:
        config: what is read of an image.
        layout: of the image's tokens.
        width: d, of a feature.
        out: width of the transformer.
    """

    RENAMED_TENSORS: ClassVar = {
        "places": "position_embedding",
        "middle": "mean",
        "spread": "std",
        "layers": "mlp",
    }

    def __init__(self, config: ImageInput, layout: TokenLayout, width: int, out: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        self.length = config.token_count(layout)
        self.position_embedding = nn.Parameter(torch.randn(self.length, out) * 0.02)
        if config.source != "none":
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("std", torch.ones(()))
            self.mlp = nn.Sequential(
                nn.Linear(width * config.patch**2, config.hidden), nn.ReLU(), nn.Linear(config.hidden, out)
            )

    mean: Tensor
    std: Tensor

    def fit(self, features: Float[Tensor, "b n d"]) -> None:
        """Computes mean and standard deviation from images of the training set."""
        if self.config.source != "none":
            flat = features.flatten(0, 1).to(self.mean.device, torch.float32)
            self.mean.copy_(flat.mean(dim=0))
            self.std.copy_((flat - self.mean).square().mean().sqrt().clamp(min=1e-6))

    def forward(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b m c"]:
        if self.config.source == "none":
            return self.position_embedding.expand(len(features), -1, -1)
        return self.mlp(self._patchify((features - self.mean) / self.std)) + self.position_embedding

    def _patchify(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b m e"]:
        b, p, layout = len(features), self.config.patch, self.layout
        grid = features.view(b, layout.height // p, p, layout.width // p, p, -1)
        return grid.permute(0, 1, 3, 2, 4, 5).reshape(b, self.length, -1)


class UnderstandingTask(Task, ABC):
    """A network that predicts text, boxes or matches from image features.

    The constructor takes `(config, layout, width)`, with d, the width of a feature. An image yields any number of
    training examples, of a type of the task's own. Each task has prediction methods of its own, which its command
    calls.
    """

    mean_of_examples: ClassVar[bool] = True
    """The loss of a batch is the mean of its examples' losses; False if examples are contrasted or masks are random."""
    config: Any
    adapter: Adapter

    @classmethod
    @abstractmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[Any]:
        """The examples of one image; none if its record lacks the annotation.

        `shape` reads the image's size, for tasks whose examples depend on the centre square that the model sees.
        """

    @classmethod
    @abstractmethod
    def describe_requirement(cls, config: Any) -> str:
        """What a record must have to yield examples, for a message: "questions"."""

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[Any]) -> Any:
        """The settings with the values that the training examples decide filled in, such as a vocabulary size."""
        return config

    def prepare(self, examples: Sequence[Any]) -> None:
        """Called once before training: builds vocabularies from the training examples, loads pretrained weights."""

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Any:
        """Examples as a dataclass of tensors, for `loss`."""

    @abstractmethod
    def compute_metrics(self, batches: Iterable[ExampleBatch], training: Sequence[tuple[str, Any]]) -> list[Metric]:
        """The metrics of held-out images, and those of baselines that see no image.

        Args:
            batches: features and examples of the held-out images.
            training: file name and example of the training split, for the baselines; may be empty.
        """

    def answer_samples(self, samples: SampleImages) -> list[AnsweredImage]:
        """The answers about some images, for a report; images without an answer are left out. By default none."""
        return []

    @abstractmethod
    def loss(self, batch: UnderstandingBatch) -> Losses:
        """The losses of a batch; random numbers come from torch's global generator alone."""


# --- image features ---------------------------------------------------------------------------------------------


@torch.no_grad()
def extract_encoder_features(tokenizer: Tokenizer, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b n d"]:
    """The encoder's features before quantization, in raster order."""
    return tokenizer.encoder(images)[1].flatten(2).transpose(1, 2)


@torch.no_grad()
def lookup_quantized(tokenizer: Tokenizer, layout: TokenLayout, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b m d"]:
    """The quantized vectors that the decoder reads for some images' tokens, one per position in raster order."""
    return tokenizer.quantizer.lookup(layout.to_indices(tokens), tokenizer.codebook).flatten(2).transpose(1, 2)


def extract_features(
    tokenizer: Tokenizer, layout: TokenLayout, config: ImageInput, images: Float[Tensor, "b 3 y x"]
) -> Float[Tensor, "b n d"]:
    """The features that an understanding task reads.

    Args:
        tokenizer: the frozen tokenizer.
        layout: of its tokens.
        config: which features.
        images: in [-1, 1].
    """
    if config.source == "features":
        return extract_encoder_features(tokenizer, images)
    return lookup_quantized(tokenizer, layout, layout.to_tokens(tokenizer.encode(images)))


# --- batches of several processes -------------------------------------------------------------------------------


class ExampleBatches:
    """The batches of one process, which knows where they belong among those of all.

    Args:
        batches: each with its place: that of its first image in the split.
    """

    def __init__(self, batches: Iterable[tuple[int, ExampleBatch]]) -> None:
        self._batches = batches
        self.places: list[int] = []

    def __iter__(self) -> Iterator[ExampleBatch]:
        for place, batch in self._batches:
            self.places.append(place)
            yield batch


def gather_batches(batches: Iterable[ExampleBatch], values: Sequence[Any]) -> list[Any]:
    """The plain values of all batches of all processes, in the order of one; the process's own of other batches.

    Args:
        batches: after all of them were read.
        values: one for each.
    """
    return gather_in_order(batches.places, values) if isinstance(batches, ExampleBatches) else list(values)


def gather_batch_rows(batches: Iterable[ExampleBatch], parts: Sequence[Float[Tensor, "_n e"]]) -> Float[Tensor, "m e"]:
    """As `gather_batches`, of one row for each image of a batch."""
    if not isinstance(batches, ExampleBatches):
        return torch.cat(list(parts))
    # a batch of n images begins at least n places before the next one
    places = [place + i for place, part in zip(batches.places, parts, strict=True) for i in range(len(part))]
    return gather_rows(places, parts)


# --- examples ---------------------------------------------------------------------------------------------------


def collect_examples(kind: type[UnderstandingTask], config: Any, dataset: FolderDataset) -> list[tuple[str, Any]]:
    """File name and example of every example of a split, in order; UsageError if there is none."""
    found: list[tuple[str, Any]] = []
    for record in dataset:
        found += ((record.file_name, example) for example in collect_record_examples(kind, config, dataset, record))
    if not found:
        raise UsageError(
            f"The task {kind.name!r} learns from {kind.describe_requirement(config)}, and no image of the split "
            f"{dataset.split!r} of {dataset.folder} has any; docs/files.md lists what a record can hold."
        )
    return found


def collect_record_examples(
    kind: type[UnderstandingTask], config: Any, dataset: FolderDataset, record: Record
) -> Sequence[Any]:
    """The examples of one image; none if its size cannot be read.

    The unreadable file is reported where its pixels are loaded, so that it is reported once.

    Args:
        kind: the task's class.
        config: the task's settings.
        dataset: the folder that holds the image.
        record: the image's record.
    """
    try:
        return kind.extract_examples(config, record, lambda: read_shape(dataset.file(record.file_name))[:2])
    except DataError:
        return ()
