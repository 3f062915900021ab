"""Retrieval: images and texts as vectors of one space, for a tokenizer with or without an aligner.

Source: CLIP (arXiv 2103.00020), section 2.3 and fig. 3: two encoders, a linear map of each to one space, and a
symmetric cross-entropy over the cosines of a batch, with a learned temperature; its sizes and training in 2.4 and 2.5.
Differs from the paper: the image is the codes of a frozen tokenizer through an adapter; the words are those of the
training texts; the text is read both ways, and its vector is that of a row of its own as the image's is; pairs of one
image or of one text are no mistakes and are left out of the sums.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from tavq.core.errors import TrainingError
from tavq.data.records import Record
from tavq.interfaces import Loss, Losses
from tavq.metrics.ranking import retrieval_of_several
from tavq.metrics.record import Metric
from tavq.nets.language import padded
from tavq.nets.transformer import Transformer
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.tasks.understanding import (
    Adapter,
    ExampleBatch,
    ShapeReader,
    TextField,
    TransformerConfig,
    UnderstandingBatch,
    UnderstandingTask,
    describe_texts,
    read_texts,
)

TEMPERATURE = 0.07
"""That training begins with; CLIP's."""

MOST = 100.0
"""The cosines are never multiplied by more (CLIP, 2.5)."""

BATCH = 256
"""Texts that become vectors at a time."""


class RetrievalConfig(TransformerConfig):
    """The texts, and the sizes of the two encoders: layers, heads and width are of each."""

    RENAMED: ClassVar = {**TransformerConfig.RENAMED, "of": "text_field"}

    name: Literal["retrieval"] = "retrieval"
    text_field: TextField = "captions"
    """What is a text of an image."""
    layers: int = Field(4, ge=1, le=64)
    heads: int = Field(4, ge=1, le=64)
    width: int = Field(256, ge=8, le=4096)
    space: int = Field(256, ge=2, le=4096)
    """Width of the vectors."""
    max_length: int = Field(76, ge=1, le=1024)
    """Words of a text that are read; of a longer one the first. CLIP's."""


@dataclass(frozen=True)
class TextBatch:
    """Texts as words."""

    ids: Int[Tensor, "b m"]
    mask: Bool[Tensor, "b m"]


class Tower(nn.Module):
    """The unit vector of some rows: what a transformer makes of a row of its own that stands before them."""

    def __init__(self, config: RetrievalConfig) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(config.width) * 0.02)
        self.transformer = Transformer(config.width, config.layers, config.heads, dropout=config.dropout)
        self.leave = nn.Linear(config.width, config.space, bias=False)

    def forward(self, rows: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b e"]:
        rows = torch.cat([self.first.expand(len(rows), 1, -1), rows], dim=1)
        read = self.transformer(rows, None if mask is None else F.pad(mask, (1, 0), value=True))
        return F.normalize(self.leave(read[:, 0]).float(), dim=1)


@tasks.register("retrieval")
class Retrieval(UnderstandingTask):
    """Finds images by a text, and texts and images by an image."""

    Config = RetrievalConfig
    commands = frozenset({"search"})
    mean_of_examples = False
    RENAMED_TENSORS: ClassVar = {"pictures": "images"}

    def __init__(self, config: RetrievalConfig, layout: TokenLayout, width: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        assert config.vocabulary is not None, "the settings were not fitted"
        self.adapter = Adapter(config.image, layout, width, config.width)
        self.images = Tower(config)
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.places = nn.Parameter(torch.randn(config.max_length, config.width) * 0.02)
        self.texts = Tower(config)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))
        nn.init.normal_(self.embed.weight, std=0.02)
        self.text_tokenizer: TextTokenizer | None = None

    # --- learning -----------------------------------------------------------------------------------------------

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[str]:
        return read_texts(config.text_field, record)

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        return describe_texts(config.text_field)

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[str]) -> RetrievalConfig:
        return config.model_copy(update={"vocabulary": TextTokenizer.learned(examples).size})

    def prepare(self, examples: Sequence[str]) -> None:
        self.text_tokenizer = TextTokenizer.learned(examples)

    def write_files(self, folder: Path) -> None:
        assert self.text_tokenizer is not None
        self.text_tokenizer.write(folder)

    def read_files(self, folder: Path) -> None:
        self.text_tokenizer = TextTokenizer.read(folder, self.config.vocabulary)

    def collate(self, examples: Sequence[str]) -> TextBatch:
        assert self.text_tokenizer is not None
        ids = [
            found[: self.config.max_length] or [self.text_tokenizer.end] for found in self.text_tokenizer.ids(examples)
        ]
        return TextBatch(*padded(ids, self.text_tokenizer.pad))

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """The mean of the cross-entropies of each text's image and of each image's text."""
        images, texts = self.embed_images(batch.features), self._told(batch.examples)
        cosines = self.scale.exp().clamp(max=MOST) * images @ texts.mT
        cosines = cosines.masked_fill(_no_mistakes(batch), -torch.inf)
        wanted = torch.arange(len(cosines), device=cosines.device)
        value = (F.cross_entropy(cosines, wanted) + F.cross_entropy(cosines.mT, wanted)) / 2
        return {"retrieval/match": Loss(value, 1.0)}

    # --- use ----------------------------------------------------------------------------------------------------

    def embed_images(self, rows: Float[Tensor, "b n d"]) -> Float[Tensor, "b e"]:
        """Unit vectors of images."""
        return self.images(self.adapter(rows))

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "b e"]:
        """Unit vectors of texts."""
        told = self.collate(texts)
        return self._told(TextBatch(told.ids.to(self.scale.device), told.mask.to(self.scale.device)))

    def _told(self, told: TextBatch) -> Float[Tensor, "b e"]:
        return self.texts(self.embed(told.ids) + self.places[: told.ids.shape[1]], told.mask)

    def compute_metrics(
        self,
        batches: Iterable[ExampleBatch],
        training: Sequence[tuple[str, Any]],
    ) -> list[Metric]:
        """Recall at 1, 5, 10 and median rank both ways, beside `chance/…`.

        `image_to_text`: each image asks among all distinct texts of the split, and any of its own counts.
        `text_to_image`: the first text of each image asks among all images. `metrics/ranking` has the rest.
        """
        images: dict[str, Tensor] = {}
        own: dict[str, list[int]] = {}
        numbers: dict[str, int] = {}
        count = 0
        for rows, keys, examples in batches:
            places = {key: place for place, key in enumerate(keys) if key not in images}
            vectors = self.embed_images(rows[list(places.values())]).cpu() if places else ()
            images |= dict(zip(places, vectors, strict=True))
            for key, text in zip(keys, examples, strict=True):
                own.setdefault(key, []).append(numbers.setdefault(text, len(numbers)))
            count += len(examples)
        return retrieval_of_several(
            _finite(torch.stack([*images.values()])), self._vectors([*numbers]), [*own.values()]
        )

    def _vectors(self, texts: Sequence[str]) -> Float[Tensor, "m e"]:
        """Vectors of any number of texts, on the CPU."""
        parts = [self.embed_texts(texts[start : start + BATCH]).cpu() for start in range(0, len(texts), BATCH)]
        return _finite(torch.cat(parts))


def _finite(vectors: Float[Tensor, "n e"]) -> Float[Tensor, "n e"]:
    if not bool(vectors.isfinite().all()):
        raise TrainingError(
            "The model's vectors are not finite, so nothing can be measured; use an earlier checkpoint."
        )
    return vectors


def _no_mistakes(batch: UnderstandingBatch) -> Bool[Tensor, "b b"]:
    """Which pairs of a batch's image and another's text are of one image or of one text."""
    numbers = {key: number for number, key in enumerate(batch.keys)}
    image = torch.tensor([numbers[key] for key in batch.keys], device=batch.examples.ids.device)
    text = batch.examples.ids
    same = (image[:, None] == image) | (text[:, None] == text).all(dim=2)
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
