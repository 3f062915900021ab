"""Grounding: predict the box of the object that a phrase describes, with an attention heat map.

Source: LG-VQ (arXiv 2405.14206), section 4.4.3 and appendix A.1, after TransVG (arXiv 2104.08541): a transformer over
codes and text tokens, and an MLP that regresses the box.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from tavq.core.config import require_resolved
from tavq.data.boxes import box_to_image, box_to_square
from tavq.data.images import load_image
from tavq.data.records import Box, Record, hash_name
from tavq.interfaces import Loss, Losses
from tavq.metrics import grounding
from tavq.metrics.grounding import RIGHT as MIN_IOU
from tavq.metrics.grounding import GroundingScores, iou
from tavq.metrics.record import CONSTANT, Baseline, Metric, for_baseline
from tavq.nets.transformer import Transformer
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.grounding_overlay import draw_grounding
from tavq.tasks.phrase_encoders import FrozenPhraseEncoder, LearnedPhraseEncoder, PhraseEncoder
from tavq.tasks.samples import Answer, AnsweredImage, SampleImages
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.tasks.understanding import (
    Adapter,
    ExampleBatch,
    ShapeReader,
    TransformerConfig,
    UnderstandingBatch,
    UnderstandingTask,
    gather_batches,
)
from tavq.text.encoder_record import EncoderRecord
from tavq.text.encoders import load_encoder

HIDDEN = 256
"""Width of the box head's hidden layers, as in TransVG's code."""

MIN_ATTENTION = 1e-9
"""Attention weights are clamped to it before the logarithm, which would be unbounded."""

MIN_AREA = 1e-12
"""Areas that divide are clamped to it, so that a box that shrank to a point keeps a finite gradient."""

BOXES = replace(grounding.BOXES, note="In the centre square that the task sees.")
BY_NAME = Baseline(
    "constant/name", "by the object's name", "The mean training box of objects of that name, without an image."
)


class GroundingConfig(TransformerConfig):
    """The transformer, and the encoder of the phrases."""

    RENAMED: ClassVar = {
        **TransformerConfig.RENAMED,
        "text": "text_encoder",
        "looking": "attention_supervision",
    }

    name: Literal["grounding"] = "grounding"
    text_encoder: str | None = None
    """Name or folder of a frozen text encoder for the phrases; null trains word embeddings instead."""
    encoder: EncoderRecord | None = None
    """Identity of that encoder; null is filled in by training."""
    attention_supervision: float = Field(0.0, ge=0, le=100)
    """Weight of the cross-entropy between the box token's attention and the patches that the true box covers."""


@dataclass(frozen=True)
class GroundingExample:
    """A phrase, the box of its object as fractions of the centre square's side, and the object's name."""

    phrase: str
    box: Box
    name: str


@dataclass(frozen=True)
class PhraseBatch:
    """Padded inputs of the phrase encoder, and the boxes."""

    phrases: Tensor
    mask: Bool[Tensor, "b m"]
    boxes: Float[Tensor, "b 4"]


@dataclass(frozen=True)
class GroundingResult:
    """A box as fractions of the centre square's side, and the fraction of attention on each patch of codes.

    `heatmap` sums to 1; it is None for a model that sees no image.
    """

    box: Box
    heatmap: Float[Tensor, "h w"] | None


@tasks.register("grounding")
class Grounding(UnderstandingTask):
    """Finds the box of a phrase in an image.

    The sequence is a learned [REG] token, the image tokens and the phrase tokens; the box is regressed from the hidden
    state of [REG], as centre and size in fractions of the square's side. The heat map is the attention of [REG] to the
    image tokens in the last layer, averaged over heads.

    Source: LG-VQ (arXiv 2405.14206), section 4.4.3, appendix A.1; TransVG (arXiv 2104.08541), eq. 3 for the objective
    and its code for the head (two hidden layers of 256) and for l1, the sum over the four numbers of a box.
    Differs from the paper: an optional attention loss, which ties phrases to objects long before the box losses do when
    nothing is pretrained; the plain l1 of TransVG's code instead of the smooth one; pre-norm attention; word embeddings
    may be learned with the task; only centre squares are seen, so a box with less than half of its area inside is left
    out.
    """

    Config = GroundingConfig
    commands = frozenset({"ground"})
    RENAMED_TENSORS: ClassVar = {"phrases": "phrase_encoder", "places": "position_embedding", "first": "reg_token"}

    def __init__(self, config: GroundingConfig, layout: TokenLayout, width: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        c = config.width
        self.adapter = Adapter(config.image, layout, width, c)
        self.phrase_encoder = _build_phrase_encoder(config)
        self.position_embedding = nn.Parameter(torch.randn(config.max_length, c) * 0.02)
        self.reg_token = nn.Parameter(torch.randn(c) * 0.02)
        self.transformer = Transformer(c, config.layers, config.heads, dropout=config.dropout)
        self.head = nn.Sequential(
            nn.Linear(c, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 4)
        )

    # --- training -----------------------------------------------------------------------------------------------

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[GroundingExample]:
        objects = [found for found in record.objects if found.phrases]
        # The image's file is only opened for a record with phrases.
        boxes = [box_to_square(found.box, *shape()) for found in objects]
        examples = []
        for found, box in zip(objects, boxes, strict=True):
            if box is not None:
                examples += [GroundingExample(phrase, box, found.name) for phrase in found.phrases]
        return examples

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        return "objects that have phrases and lie in the centre square of their image"

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[GroundingExample]) -> GroundingConfig:
        config.image.token_count(layout)  # raises before the text encoder is loaded
        if config.text_encoder is not None:
            record = (
                config.encoder or load_encoder(config.text_encoder, projection=False).record
            )  # only tokens are read
            return config.model_copy(update={"encoder": record})
        tokenizer = TextTokenizer.train(example.phrase for example in examples)
        return config.model_copy(update={"vocabulary": tokenizer.size})

    def prepare(self, examples: Sequence[GroundingExample]) -> None:
        self.phrase_encoder.prepare(example.phrase for example in examples)

    def write_files(self, folder: Path) -> None:
        self.phrase_encoder.write_files(folder)

    def read_files(self, folder: Path) -> None:
        self.phrase_encoder.read_files(folder)

    def collate(self, examples: Sequence[GroundingExample]) -> PhraseBatch:
        boxes = torch.tensor([example.box for example in examples], dtype=torch.float32).view(-1, 4)
        return PhraseBatch(*self.phrase_encoder.collate([example.phrase for example in examples]), boxes)

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """l1 and generalized IoU of the boxes, and the attention loss if it has a weight."""
        examples, attention = batch.examples, None
        tokens, mask = self._embed(batch.features, examples.phrases, examples.mask)
        if self.config.attention_supervision:  # attention weights cost a second, unfused pass of the last layer
            boxes, attention = self._predict_with_attention(tokens, mask)
        else:
            boxes = self._predict(tokens, mask)
        true = xywh_to_cxcywh(examples.boxes)
        losses = {
            "grounding/l1": Loss((boxes - true).abs().sum(dim=1).mean(), 1.0),
            "grounding/giou": Loss((1 - generalized_iou(boxes, true)).mean(), 1.0),
        }
        if attention is not None:
            target = coverage(examples.boxes, *attention.shape[1:])
            entropy = -(target * attention.clamp(min=MIN_ATTENTION).log()).sum(dim=(1, 2)).mean()
            losses["grounding/attention"] = Loss(entropy, self.config.attention_supervision)
        return losses

    def _embed(
        self, features: Float[Tensor, "b n d"], phrases: Tensor, mask: Bool[Tensor, "b m"]
    ) -> tuple[Float[Tensor, "b r c"], Bool[Tensor, "b r"]]:
        """The tokens [REG], image, phrase, and their mask."""
        image = self.adapter(features)
        words = self.phrase_encoder(phrases) + self.position_embedding[: mask.shape[1]]
        tokens = torch.cat([self.reg_token.expand(len(image), 1, -1), image, words], dim=1)
        visible = mask.new_ones(len(mask), 1 + image.shape[1])
        return tokens, torch.cat([visible, mask], dim=1)

    def _predict(self, tokens: Float[Tensor, "b r c"], mask: Bool[Tensor, "b r"]) -> Float[Tensor, "b 4"]:
        """Centre and size of the boxes."""
        return self._regress(self.transformer(tokens, mask))

    def _regress(self, hidden: Float[Tensor, "b r c"]) -> Float[Tensor, "b 4"]:
        return self.head(hidden[:, 0]).float().sigmoid()

    def _predict_with_attention(
        self, tokens: Float[Tensor, "b r c"], mask: Bool[Tensor, "b r"]
    ) -> tuple[Float[Tensor, "b 4"], Float[Tensor, "b h w"] | None]:
        """The boxes, and the fraction of attention on each patch; None for a model that sees no image."""
        image = self.config.image
        if image.source == "none":
            return self._predict(tokens, mask), None
        hidden, weights = self.transformer.forward_with_attention(tokens, mask)
        to_image = weights.float().mean(dim=1)[:, 0, 1 : 1 + self.adapter.length]
        grid = to_image.view(-1, self.layout.height // image.patch, self.layout.width // image.patch)
        return self._regress(hidden), grid / grid.sum(dim=(1, 2), keepdim=True).clamp(min=MIN_ATTENTION)

    # --- use ----------------------------------------------------------------------------------------------------

    def check_text(self, text: str) -> list[str]:
        """Warnings about a phrase, one line each; UsageError if nothing of it can be read."""
        return self.phrase_encoder.check_text(text)

    @torch.no_grad()
    def ground(self, features: Float[Tensor, "b n d"], phrases: Sequence[str]) -> list[GroundingResult]:
        """The box and heat map of each image and its phrase."""
        boxes, heatmaps = self._predict_with_attention(*self._embed_phrases(features, phrases))
        per_image: Iterable[Tensor | None] = [None] * len(boxes) if heatmaps is None else heatmaps
        return [
            GroundingResult((x, y, w, h), heatmap)
            for (x, y, w, h), heatmap in zip(cxcywh_to_xywh(boxes).tolist(), per_image, strict=True)
        ]

    def _embed_phrases(
        self, features: Tensor, phrases: Sequence[str]
    ) -> tuple[Float[Tensor, "b r c"], Bool[Tensor, "b r"]]:
        inputs, mask = self.phrase_encoder.collate(phrases)
        return self._embed(features, inputs.to(features.device), mask.to(features.device))

    def compute_metrics(self, batches: Iterable[ExampleBatch], training: Sequence[tuple[str, Any]]) -> list[Metric]:
        """`accuracy@0.5` and `mean_iou`; `constant/…` is the mean training box, `constant/name/…` that of the name."""
        means = _mean_boxes(example for _, example in training)
        baselines = (CONSTANT, BY_NAME) if means else ()
        scores = {baseline: GroundingScores() for baseline in (None, *baselines)}
        made: list[list[tuple[str, list[float], Box, str]]] = []
        for features, keys, examples in batches:
            phrases = [example.phrase for example in examples]
            boxes = cxcywh_to_xywh(self._predict(*self._embed_phrases(features, phrases))).tolist()
            rows = zip(keys, boxes, examples, strict=True)
            made.append([(key, box, example.box, example.name) for key, box, example in rows])
        gathered = (row for rows in gather_batches(batches, made) for row in rows)
        for count, (key, box, truth, name) in enumerate(gathered):
            given: dict[Baseline | None, Sequence[float]] = {None: box}
            if means:
                given |= {CONSTANT: means[""], BY_NAME: means.get(name, means[""])}
            for baseline, score in scores.items():
                score.add(f"{count}", given[baseline], truth, key)
        metrics: list[Metric] = []
        for baseline, score in scores.items():
            own = [replace(metric, group=BOXES) for metric in score.compute()["metrics"]]
            metrics += own if baseline is None else for_baseline(baseline, own)
        return metrics

    def answer_samples(self, samples: SampleImages) -> list[AnsweredImage]:
        """One phrase of each image, chosen by the image's name: its box, and the attention next to it."""
        chosen = [some[hash_name(key) % len(some)] for key, some in zip(samples.keys, samples.examples, strict=True)]
        found = self.ground(samples.features, [example.phrase for example in chosen])
        shown = []
        for key, example, result in zip(samples.keys, chosen, found, strict=True):
            image = load_image(samples.dataset.file(key))
            boxes = [box_to_image(box, *image.shape[:2]) for box in (example.box, result.box)]
            overlap = float(iou(*(torch.tensor([box], dtype=torch.float64) for box in boxes)))
            heatmap = None if result.heatmap is None else result.heatmap.float().cpu().numpy()
            images = (
                ("true", draw_grounding(image, boxes[0], None)),
                (
                    "predicted" if heatmap is None else "predicted, and attention",
                    draw_grounding(image, boxes[1], heatmap),
                ),
            )
            answer = Answer(example.phrase, f"IoU {overlap:.2f}", "", overlap > MIN_IOU)
            shown.append(AnsweredImage(key, (answer,), images))
        return shown


def _build_phrase_encoder(config: GroundingConfig) -> PhraseEncoder:
    if config.text_encoder is not None:
        encoder = require_resolved(config.encoder, "encoder")
        return FrozenPhraseEncoder(config.text_encoder, encoder, config.max_length, config.width)
    vocabulary = require_resolved(config.vocabulary, "vocabulary")
    return LearnedPhraseEncoder(vocabulary, config.max_length, config.width)


def _mean_boxes(examples: Iterable[GroundingExample]) -> dict[str, list[float]]:
    """The mean box of each name, and of all boxes under ""."""
    boxes: dict[str, list[Box]] = defaultdict(list)
    for example in examples:
        for name in {example.name, ""}:
            boxes[name].append(example.box)
    return {name: torch.tensor(found, dtype=torch.float64).mean(dim=0).tolist() for name, found in boxes.items()}


# --- boxes ------------------------------------------------------------------------------------------------------


def xywh_to_cxcywh(boxes: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
    """Left, top, width and height as centre, width and height."""
    return torch.cat([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], dim=1)


def cxcywh_to_xywh(boxes: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
    """Centre, width and height as left, top, width and height, clipped to the square."""
    start, end = (boxes[:, :2] - boxes[:, 2:] / 2).clamp(0, 1), (boxes[:, :2] + boxes[:, 2:] / 2).clamp(0, 1)
    return torch.cat([start, end - start], dim=1)


def coverage(boxes: Float[Tensor, "b 4"], h: int, w: int) -> Float[Tensor, "b h w"]:
    """The fraction of each box's area that lies on each patch of an h x w grid; sums to 1.

    Args:
        boxes: left, top, width and height as fractions of the square's side, with an area, inside the square.
    """
    rows, columns = _overlaps(boxes[:, 1:2], boxes[:, 3:4], h), _overlaps(boxes[:, 0:1], boxes[:, 2:3], w)
    area = rows[:, :, None] * columns[:, None, :]
    return area / area.sum(dim=(1, 2), keepdim=True).clamp(min=MIN_AREA)


def _overlaps(start: Float[Tensor, "b 1"], length: Float[Tensor, "b 1"], cells: int) -> Float[Tensor, "b n"]:
    """How much of each interval lies in each of the equal cells of [0, 1]."""
    edges = torch.linspace(0, 1, cells + 1, device=start.device)
    return (torch.minimum(start + length, edges[1:]) - torch.maximum(start, edges[:-1])).clamp(min=0)


def generalized_iou(a: Float[Tensor, "b 4"], b: Float[Tensor, "b 4"]) -> Float[Tensor, " b"]:
    """Intersection over union, minus the fraction of the enclosing box that neither covers: from -1 to 1.

    Unlike plain IoU it has a gradient for boxes that do not overlap.

    Source: Rezatofighi et al. 2019 (arXiv 1902.09630), algorithm 1.

    Args:
        a: centre, width and height.
        b: the same of the boxes that they are compared with.
    """
    starts, ends = zip(*((box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2) for box in (a, b)), strict=True)
    common = (torch.minimum(*ends) - torch.maximum(*starts)).clamp(min=0).prod(dim=1)
    union = a[:, 2:].prod(dim=1) + b[:, 2:].prod(dim=1) - common
    hull = (torch.maximum(*ends) - torch.minimum(*starts)).prod(dim=1)
    union, hull = union.clamp(min=MIN_AREA), hull.clamp(min=MIN_AREA)
    return common / union - (hull - union) / hull
