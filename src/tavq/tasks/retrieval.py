"""Retrieval: embed images and texts into one space, for a tokenizer with or without an aligner.

Source: CLIP (arXiv 2103.00020), section 2.3 and fig. 3: two encoders, a linear projection of each into one space, and a
symmetric cross-entropy over the cosines of a batch with a learned temperature; sizes and training from 2.4 and 2.5.
Differs from the paper: the image is the codes of a frozen tokenizer through an adapter; the vocabulary is that of the
training texts; the text encoder is bidirectional with a class token, like the image encoder; pairs that share an image
or a text are not negatives and are left out of the sums.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tavq.core.config import require_resolved
from tavq.data.records import Record
from tavq.interfaces import Loss, Losses
from tavq.metrics.ranking import retrieval_of_several
from tavq.metrics.record import Metric
from tavq.nets.transformer import Transformer
from tavq.ops.checks import require_finite
from tavq.ops.collective import all_gather, all_gather_with_gradient, own_rows, rank, world_size
from tavq.ops.gathering import gather_rows
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.samples import Answer, AnsweredImage, SampleImages
from tavq.tasks.text_task import TextBatch, TextField, TextTask, describe_texts, read_texts
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.tasks.understanding import (
    Adapter,
    ExampleBatch,
    ShapeReader,
    TransformerConfig,
    UnderstandingBatch,
    gather_batch_rows,
    gather_batches,
)

INITIAL_TEMPERATURE = 0.07
"""CLIP's."""

MAX_LOGIT_SCALE = 100.0
"""Without a bound on the scale of the cosines, training becomes unstable (CLIP, 2.5)."""

BATCH = 256
"""Texts that are embedded at a time."""

VECTORS = "The model's vectors"

SHOWN_TEXTS = 3
"""Texts that a report shows of an image."""
SHOWN_CANDIDATES = 512
"""Texts of the split among which they are found."""


class RetrievalConfig(TransformerConfig):
    """The texts, and the sizes of the two encoders; layers, heads and width are those of each."""

    RENAMED: ClassVar = {**TransformerConfig.RENAMED, "of": "text_field"}

    name: Literal["retrieval"] = "retrieval"
    text_field: TextField = "captions"
    """Which texts of a record are matched with its image."""
    layers: int = Field(4, ge=1, le=64)
    heads: int = Field(4, ge=1, le=64)
    width: int = Field(256, ge=8, le=4096)
    space: int = Field(256, ge=2, le=4096)
    """Width of the shared space."""
    max_length: int = Field(76, ge=1, le=1024)
    """Words of a text that are read; the rest is cut off. CLIP's."""


class Tower(nn.Module):
    """A transformer encoder whose class token is projected to a unit vector."""

    RENAMED_TENSORS: ClassVar = {"first": "cls_token", "leave": "out_proj"}

    def __init__(self, config: RetrievalConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(config.width) * 0.02)
        self.transformer = Transformer(config.width, config.layers, config.heads, dropout=config.dropout)
        self.out_proj = nn.Linear(config.width, config.space, bias=False)

    def forward(self, tokens: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b e"]:
        tokens = torch.cat([self.cls_token.expand(len(tokens), 1, -1), tokens], dim=1)
        if mask is not None:
            mask = F.pad(mask, (1, 0), value=True)
        hidden = self.transformer(tokens, mask)
        return F.normalize(self.out_proj(hidden[:, 0]).float(), dim=1)


@tasks.register("retrieval")
class Retrieval(TextTask):
    """Finds images by a text, and texts and images by an image."""

    Config = RetrievalConfig
    commands = frozenset({"search"})
    mean_of_examples = False
    contrasts_batch = True
    RENAMED_TENSORS: ClassVar = {
        "pictures": "image_tower",
        "embed": "token_embedding",
        "places": "position_embedding",
        "texts": "text_tower",
        "scale": "logit_scale",
    }

    def __init__(self, config: RetrievalConfig, layout: TokenLayout, width: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        vocabulary = require_resolved(config.vocabulary, "vocabulary")
        self.adapter = Adapter(config.image, layout, width, config.width)
        self.image_tower = Tower(config)
        self.token_embedding = nn.Embedding(vocabulary, config.width)
        self.position_embedding = nn.Parameter(torch.randn(config.max_length, config.width) * 0.02)
        self.text_tower = Tower(config)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_TEMPERATURE)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    # --- training -----------------------------------------------------------------------------------------------

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[str]:
        return read_texts(config.text_field, record)

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        return describe_texts(config.text_field)

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[str]) -> RetrievalConfig:
        return config.model_copy(update={"vocabulary": TextTokenizer.train(examples).size})

    def truncate(self, ids: list[int]) -> list[int]:
        """A text without any token is read as its end."""
        return ids[: self.config.max_length] or [self.text_tokenizer.end_id]

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """The mean of the two cross-entropies: each text's image, and each image's text."""
        images, texts = (all_gather_with_gradient(vectors) for vectors in self._embed_parts(batch))
        logits = self.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE) * images @ texts.mT
        logits = logits.masked_fill(_find_duplicates(all_gather(_number(batch))), -torch.inf)
        own = own_rows(len(batch.keys))
        matches = torch.arange(own.start, own.stop, device=logits.device)
        value = (F.cross_entropy(logits[own], matches) + F.cross_entropy(logits.mT[own], matches)) / 2
        return {"retrieval/match": Loss(value, 1.0)}

    def _embed_parts(self, batch: UnderstandingBatch) -> tuple[Float[Tensor, "b e"], Float[Tensor, "b e"]]:
        """The vectors of images and texts, of one part of the batch after the other: see `parts`."""
        ids, mask = batch.examples.ids, batch.examples.mask
        if self.parts == 1:
            return self.embed_images(batch.features), self._embed_batch(batch.examples)

        def embed(features: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return self.embed_images(features), self._embed_batch(TextBatch(ids, mask))

        pieces = (values.tensor_split(self.parts) for values in (batch.features, ids, mask))
        made = [checkpoint(embed, *piece, use_reentrant=False) for piece in zip(*pieces, strict=True)]
        images, texts = (torch.cat(vectors) for vectors in zip(*made, strict=True))
        return images, texts

    # --- use ----------------------------------------------------------------------------------------------------

    def embed_images(self, features: Float[Tensor, "b n d"]) -> Float[Tensor, "b e"]:
        """Unit vectors of images."""
        return self.image_tower(self.adapter(features))

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "b e"]:
        """Unit vectors of texts."""
        batch, device = self.tokenize(texts), self.logit_scale.device
        return self._embed_batch(TextBatch(batch.ids.to(device), batch.mask.to(device)))

    def _embed_batch(self, batch: TextBatch) -> Float[Tensor, "b e"]:
        tokens = self.token_embedding(batch.ids) + self.position_embedding[: batch.ids.shape[1]]
        return self.text_tower(tokens, batch.mask)

    def compute_metrics(self, batches: Iterable[ExampleBatch], training: Sequence[tuple[str, Any]]) -> list[Metric]:
        """Recall at 1, 5, 10 and median rank in both directions, and the same of `chance/…`.

        `image_to_text` ranks all distinct texts of the split for each image; any of its own counts. `text_to_image`
        ranks all images for the first text of each image. `metrics/ranking` has the details.
        """
        made: list[Tensor] = []
        pairs: list[list[tuple[str, str]]] = []
        for features, keys, examples in batches:
            rows = {key: row for row, key in enumerate(keys)}
            made.append(self.embed_images(features[list(rows.values())]).cpu())
            pairs.append(list(zip(keys, examples, strict=True)))
        texts_of_image: dict[str, list[int]] = {}
        text_ids: dict[str, int] = {}
        for key, text in (pair for some in gather_batches(batches, pairs) for pair in some):
            texts_of_image.setdefault(key, []).append(text_ids.setdefault(text, len(text_ids)))
        image_vectors = require_finite(gather_batch_rows(batches, made), VECTORS)
        return retrieval_of_several(image_vectors, self._embed_many([*text_ids]), [*texts_of_image.values()])

    def _embed_many(self, texts: Sequence[str]) -> Float[Tensor, "m e"]:
        """Unit vectors of any number of texts, on the CPU; each of several processes embeds a part."""
        starts = range(0, len(texts), BATCH)[rank() :: world_size()]
        parts = [self.embed_texts(texts[start : start + BATCH]).cpu() for start in starts]
        places = [start + i for start, part in zip(starts, parts, strict=True) for i in range(len(part))]
        return require_finite(gather_rows(places, parts), VECTORS)

    def answer_samples(self, samples: SampleImages) -> list[AnsweredImage]:
        """The nearest texts of each image among those of the split, and its own where it is not one of them."""
        own = [text for some in samples.examples for text in some]
        candidates = list(dict.fromkeys([*own, *samples.split_examples]))[:SHOWN_CANDIDATES]
        scores = self.embed_images(samples.features) @ self.embed_texts(candidates).mT
        shown = []
        for key, row, true in zip(samples.keys, scores.cpu(), samples.examples, strict=True):
            nearest = [candidates[i] for i in row.topk(min(SHOWN_TEXTS, len(candidates))).indices.tolist()]
            titles = [f"1. among {len(candidates)} texts", *(f"{rank}." for rank in range(2, len(nearest) + 1))]
            answers = [Answer(title, text, "", text in true) for title, text in zip(titles, nearest, strict=True)]
            if not any(answer.correct for answer in answers):
                answers.append(Answer("its own", true[0]))
            shown.append(AnsweredImage(key, tuple(answers)))
        return shown


def _number(batch: UnderstandingBatch) -> Int[Tensor, "b 2"]:
    """A number for the image and one for the text of each example: the same in every process, of 64 random bits."""
    ids = batch.examples.ids
    names = [hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in batch.keys]
    images = torch.tensor([int.from_bytes(name, signed=True) for name in names]).to(ids.device, non_blocking=True)
    # a sum modulo 2^64 with a random factor for each position; padding adds nothing
    factors = torch.randint(-(2**63), 2**63 - 1, (ids.shape[1],), generator=torch.Generator().manual_seed(0))
    texts = ((ids + 1) * batch.examples.mask * factors.to(ids.device, non_blocking=True)).sum(dim=1)
    return torch.stack([images, texts], dim=1)


def _find_duplicates(numbers: Int[Tensor, "b 2"]) -> Bool[Tensor, "b b"]:
    """True for pairs off the diagonal that share an image or a text, which are not negatives."""
    same = (numbers[:, None] == numbers).any(dim=2)
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
