"""Grounding: the box of what a phrase speaks of, and where in the image the phrase looks.

Source: LG-VQ (arXiv 2405.14206), section 4.4.3 and appendix A.1, after TransVG (arXiv 2104.08541): codes and text
tokens side by side through a transformer, and a box by a layered perceptron.
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

from tavq.data.boxes import box_to_square
from tavq.data.records import Box, Record
from tavq.interfaces import Loss, Losses
from tavq.metrics import grounding
from tavq.metrics.grounding import GroundingScores
from tavq.metrics.record import CONSTANT, Baseline, Metric, for_baseline
from tavq.nets.transformer import Transformer
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.phrases import EncodedPhrases, LearnedPhrases, Phrases
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.tasks.understanding import (
    Adapter,
    ExampleBatch,
    ShapeReader,
    TransformerConfig,
    UnderstandingBatch,
    UnderstandingTask,
)
from tavq.text.encoders import EncoderRecord, load_encoder

HIDDEN = 256
"""Width of the box head's inner layers, as in TransVG's code."""

LEAST_SHARE = 1e-9
"""Of a look: below it a logarithm would have no bound."""

BOXES = replace(grounding.BOXES, note="In the centre square that the task sees.")
BY_NAME = Baseline(
    "constant/name", "by the object's name", "The mean training box of objects of that name; sees no image."
)

LEAST_AREA = 1e-12
"""Of a union or hull, in squares: below it a box is a point, and its gradient stays finite."""


class GroundingConfig(TransformerConfig):
    """The transformer, and what reads the phrases."""

    RENAMED: ClassVar = {
        **TransformerConfig.RENAMED,
        "text": "text_encoder",
        "looking": "attention_supervision",
    }

    name: Literal["grounding"] = "grounding"
    text_encoder: str | None = None
    """Name or folder of a frozen text encoder whose token vectors are read; null learns the words of the phrases."""
    encoder: EncoderRecord | None = None
    """Which encoder that is; null for the one that is found."""
    attention_supervision: float = Field(0.0, ge=0, le=100)
    """Weight of the cross-entropy between where the phrase looks and what its box covers."""


@dataclass(frozen=True)
class GroundingExample:
    """A phrase, the box it speaks of in shares of the side of the square that is seen, and the name of the thing."""

    phrase: str
    box: Box
    name: str


@dataclass(frozen=True)
class PhraseBatch:
    """Phrases as a table, and their boxes."""

    phrases: Tensor
    mask: Bool[Tensor, "b m"]
    boxes: Float[Tensor, "b 4"]


@dataclass(frozen=True)
class GroundingResult:
    """A box in shares of the side of the square that is seen, and what share of the look lies on each patch of codes.

    `heatmap` sums to 1, and is None where no image is seen.
    """

    box: Box
    heatmap: Float[Tensor, "h w"] | None


@tasks.register("grounding")
class Grounding(UnderstandingTask):
    """Finds the box of a phrase in an image.

    A learned row, TransVG's [REG], stands before the rows of the image and of the phrase; what the transformer makes
    of it becomes the box, centre and size in shares of the square's side. The heat map is how much that row reads of
    each patch in the last layer, the mean over its heads.

    Source: LG-VQ (arXiv 2405.14206), section 4.4.3, appendix A.1; TransVG (arXiv 2104.08541), eq. 3 for the objective
    and its code for the head (two hidden layers of 256) and for l1, the sum over the four numbers of a box.
    Differs from the paper: `attention_supervision` adds a loss that ties a phrase to its thing long before a box alone
    does where nothing is pretrained; the plain l1 of TransVG's code and not its smooth one; norms come before the
    attention; phrases may be read by words learned with the task; only whole squares are seen, so that a box of which
    less than half lies in the centre square is left out.
    """

    Config = GroundingConfig
    commands = frozenset({"ground"})

    def __init__(self, config: GroundingConfig, layout: TokenLayout, width: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        c = config.width
        self.adapter = Adapter(config.image, layout, width, c)
        self.phrases = _phrases(config)
        self.places = nn.Parameter(torch.randn(config.max_length, c) * 0.02)
        self.first = nn.Parameter(torch.randn(c) * 0.02)
        self.transformer = Transformer(c, config.layers, config.heads, dropout=config.dropout)
        self.head = nn.Sequential(
            nn.Linear(c, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 4)
        )

    # --- learning -----------------------------------------------------------------------------------------------

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[GroundingExample]:
        things = [thing for thing in record.objects if thing.phrases]
        placed = [(thing, box_to_square(thing.box, *shape())) for thing in things]
        return [
            GroundingExample(phrase, box, thing.name)
            for thing, box in placed
            if box is not None
            for phrase in thing.phrases
        ]

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        return "objects that have phrases and lie in the centre square of their image"

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[GroundingExample]) -> GroundingConfig:
        config.image.token_count(layout)
        if config.text_encoder is not None:
            return config.model_copy(update={"encoder": config.encoder or load_encoder(config.text_encoder).record})
        words = TextTokenizer.learned(example.phrase for example in examples)
        return config.model_copy(update={"vocabulary": words.size})

    def prepare(self, examples: Sequence[GroundingExample]) -> None:
        self.phrases.prepare(example.phrase for example in examples)

    def write_files(self, folder: Path) -> None:
        self.phrases.write(folder)

    def read_files(self, folder: Path) -> None:
        self.phrases.read(folder)

    def collate(self, examples: Sequence[GroundingExample]) -> PhraseBatch:
        boxes = torch.tensor([example.box for example in examples], dtype=torch.float32).view(-1, 4)
        return PhraseBatch(*self.phrases.collate([example.phrase for example in examples]), boxes)

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """The distance of the box from the true one by its numbers and by its area."""
        rows, mask = self._rows(batch.features, batch.examples.phrases, batch.examples.mask)
        found, extract_features = (
            self._read(rows, mask) if self.config.attention_supervision else (self._boxes(rows, mask), None)
        )
        true = centred(batch.examples.boxes)
        losses = {
            "grounding/l1": Loss((found - true).abs().sum(dim=1).mean(), 1.0),
            "grounding/giou": Loss((1 - generalized_iou(found, true)).mean(), 1.0),
        }
        if extract_features is not None:
            covered = coverage(batch.examples.boxes, *extract_features.shape[1:])
            apart = -(covered * extract_features.clamp(min=LEAST_SHARE).log()).sum(dim=(1, 2)).mean()
            losses["grounding/attention"] = Loss(apart, self.config.attention_supervision)
        return losses

    def _rows(
        self, rows: Float[Tensor, "b n d"], phrases: Tensor, mask: Bool[Tensor, "b m"]
    ) -> tuple[Float[Tensor, "b r c"], Bool[Tensor, "b r"]]:
        """The row of the box, those of the image and those of the phrase, and which may be read."""
        image = self.adapter(rows)
        words = self.phrases(phrases) + self.places[: mask.shape[1]]
        all_rows = torch.cat([self.first.expand(len(image), 1, -1), image, words], dim=1)
        seen = mask.new_ones(len(mask), 1 + image.shape[1])
        return all_rows, torch.cat([seen, mask], dim=1)

    def _boxes(self, rows: Float[Tensor, "b r c"], mask: Bool[Tensor, "b r"]) -> Float[Tensor, "b 4"]:
        """Centre and size of the boxes."""
        return self._box(self.transformer(rows, mask))

    def _box(self, read: Float[Tensor, "b r c"]) -> Float[Tensor, "b 4"]:
        return self.head(read[:, 0]).float().sigmoid()

    def _read(
        self, rows: Float[Tensor, "b r c"], mask: Bool[Tensor, "b r"]
    ) -> tuple[Float[Tensor, "b 4"], Float[Tensor, "b h w"] | None]:
        """The boxes, and what share of the look lies on each patch; None where no image is seen."""
        image = self.config.image
        if image.source == "none":
            return self._boxes(rows, mask), None
        read, shares = self.transformer.forward_with_attention(rows, mask)
        own = shares.float().mean(dim=1)[:, 0, 1 : 1 + self.adapter.length]
        grid = own.view(-1, self.layout.height // image.patch, self.layout.width // image.patch)
        return self._box(read), grid / grid.sum(dim=(1, 2), keepdim=True).clamp(min=LEAST_SHARE)

    # --- use ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def ground(self, rows: Float[Tensor, "b n d"], phrases: Sequence[str]) -> list[GroundingResult]:
        """For each image and its phrase the box, and where the phrase looks."""
        boxes, heats = self._read(*self._asked(rows, phrases))
        looks: Iterable[Tensor | None] = [None] * len(boxes) if heats is None else heats
        return [
            GroundingResult((x, y, w, h), heat)
            for (x, y, w, h), heat in zip(cornered(boxes).tolist(), looks, strict=True)
        ]

    def _asked(self, rows: Tensor, phrases: Sequence[str]) -> tuple[Float[Tensor, "b r c"], Bool[Tensor, "b r"]]:
        table, mask = (part.to(rows.device) for part in self.phrases.collate(phrases))
        return self._rows(rows, table, mask)

    def compute_metrics(
        self,
        batches: Iterable[ExampleBatch],
        training: Sequence[tuple[str, Any]],
    ) -> list[Metric]:
        """`accuracy@0.5` and `mean_iou`; `constant/…` of the mean training box, `constant/name/…` that of its name."""
        guesses = _mean_boxes(example for _, example in training)
        baselines = (CONSTANT, BY_NAME) if guesses else ()
        scores = {baseline: GroundingScores() for baseline in (None, *baselines)}
        count = 0
        for rows, keys, examples in batches:
            found = cornered(self._boxes(*self._asked(rows, [example.phrase for example in examples]))).tolist()
            for key, example, box in zip(keys, examples, found, strict=True):
                given: dict[Baseline | None, Sequence[float]] = {None: box}
                if guesses:
                    given |= {CONSTANT: guesses[""], BY_NAME: guesses.get(example.name, guesses[""])}
                for baseline, score in scores.items():
                    score.add(f"{count}", given[baseline], example.box, key)
                count += 1
        metrics: list[Metric] = []
        for baseline, score in scores.items():
            own = [replace(metric, group=BOXES) for metric in score.compute()["metrics"]]
            metrics += own if baseline is None else for_baseline(baseline, own)
        return metrics


def _phrases(config: GroundingConfig) -> Phrases:
    if config.text_encoder is not None:
        assert config.encoder is not None, "the settings were not fitted"
        return EncodedPhrases(config.text_encoder, config.encoder, config.max_length, config.width)
    assert config.vocabulary is not None, "the settings were not fitted"
    return LearnedPhrases(config.vocabulary, config.max_length, config.width)


def _mean_boxes(examples: Iterable[GroundingExample]) -> dict[str, list[float]]:
    """The mean box of each name, and of all under ""."""
    boxes: dict[str, list[Box]] = defaultdict(list)
    for example in examples:
        for name in {example.name, ""}:
            boxes[name].append(example.box)
    return {name: torch.tensor(found, dtype=torch.float64).mean(dim=0).tolist() for name, found in boxes.items()}


# --- boxes ------------------------------------------------------------------------------------------------------


def centred(boxes: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
    """Left, top, width and height as centre, width and height."""
    return torch.cat([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], dim=1)


def cornered(boxes: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
    """Centre, width and height as left, top, width and height, without what lies outside the square."""
    start, end = (boxes[:, :2] - boxes[:, 2:] / 2).clamp(0, 1), (boxes[:, :2] + boxes[:, 2:] / 2).clamp(0, 1)
    return torch.cat([start, end - start], dim=1)


def coverage(boxes: Float[Tensor, "b 4"], h: int, w: int) -> Float[Tensor, "b h w"]:
    """What share of each box lies on each patch of a grid; 1 in sum.

    Args:
        boxes: left, top, width and height in shares of the square's side, with an area, inside it.
    """
    rows, columns = (
        (torch.minimum(start + length, edges[1:]) - torch.maximum(start, edges[:-1])).clamp(min=0)
        for start, length, edges in (
            (boxes[:, 1:2], boxes[:, 3:4], torch.linspace(0, 1, h + 1, device=boxes.device)),
            (boxes[:, 0:1], boxes[:, 2:3], torch.linspace(0, 1, w + 1, device=boxes.device)),
        )
    )
    area = rows[:, :, None] * columns[:, None, :]
    return area / area.sum(dim=(1, 2), keepdim=True).clamp(min=LEAST_AREA)


def generalized_iou(a: Float[Tensor, "b 4"], b: Float[Tensor, "b 4"]) -> Float[Tensor, " b"]:
    """Intersection over union less the share of the hull that neither box covers: from -1 to 1, with a gradient where
    boxes are apart.

    Source: Rezatofighi et al. 2019 (arXiv 1902.09630), algorithm 1.

    Args:
        a: centre, width and height of some boxes; `b` those they are compared with.
    """
    starts, ends = zip(*((box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2) for box in (a, b)), strict=True)
    common = (torch.minimum(*ends) - torch.maximum(*starts)).clamp(min=0).prod(dim=1)
    union = a[:, 2:].prod(dim=1) + b[:, 2:].prod(dim=1) - common
    hull = (torch.maximum(*ends) - torch.minimum(*starts)).prod(dim=1)
    union, hull = union.clamp(min=LEAST_AREA), hull.clamp(min=LEAST_AREA)
    return common / union - (hull - union) / hull
