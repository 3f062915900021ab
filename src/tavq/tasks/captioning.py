"""Captioning: the codes of an image as the prefix of a language model, which goes on with a caption.

Source: LG-VQ (arXiv 2405.14206), appendix A.1 and fig. 9 (a): the codes in the place of ClipCap's prefix (ClipCap,
arXiv 2111.09734, section 3: two layers before GPT-2, which is trained too, or stays as it is).
Differs from the paper: GPT-2 may be a small one trained from nothing, with the words of the training captions; a word
that ends a caption is learned too, where ClipCap's code stops at the first full stop.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from tavq.core.errors import FileError
from tavq.data.records import Record, hash_name
from tavq.interfaces import Loss, Losses
from tavq.metrics import ptb
from tavq.metrics.captions import CaptionScores, cider_d_of_constants
from tavq.metrics.meteor import meteor
from tavq.metrics.record import CONSTANT, Baseline, Metric, for_baseline
from tavq.nets.language import DecodingConfig, LanguageConfig, LanguageModel, padded
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.tasks.understanding import (
    Adapter,
    ExampleBatch,
    ShapeReader,
    TextField,
    UnderstandingBatch,
    UnderstandingConfig,
    UnderstandingTask,
    describe_texts,
    read_texts,
)

SAMPLED = 200
"""Training images, and captions of theirs, among which the best constant caption is looked for."""


class CaptioningConfig(UnderstandingConfig):
    """The language model, what it learns to say, and how it says it."""

    RENAMED: ClassVar = {
        **UnderstandingConfig.RENAMED,
        "of": "text_field",
        "longest": "max_length",
        "writing": "decoding",
    }

    name: Literal["captioning"] = "captioning"
    language: LanguageConfig = LanguageConfig()
    text_field: TextField = "captions"
    """What of a record is learned."""
    max_length: int = Field(48, ge=2, le=1024)
    """Words of a caption, its end among them, that are learned and written; of a longer one the first."""
    freeze_language: bool = False
    """Keep the pretrained language model as it is, and train the adapter alone: ClipCap's second variant."""
    decoding: DecodingConfig = DecodingConfig()
    """How captions are written where a call does not say otherwise."""

    @model_validator(mode="after")
    def _nothing_drawn_is_frozen(self) -> "CaptioningConfig":
        if self.freeze_language and self.language.pretrained is None:
            raise ValueError("freeze_language keeps drawn weights as they are; name a language.pretrained")
        return self


@dataclass(frozen=True)
class CaptionBatch:
    """Captions as words, the end among them."""

    ids: Int[Tensor, "b m"]
    mask: Bool[Tensor, "b m"]


@tasks.register("captioning")
class Captioning(UnderstandingTask):
    """Writes captions of an image."""

    Config = CaptioningConfig
    commands = frozenset({"caption"})
    mean_of_examples = False
    """The loss is the mean over the words of a batch, as in ClipCap: the captions' likelihood, in which a word of a
    short caption counts no more than one of a long caption."""

    def __init__(self, config: CaptioningConfig, layout: TokenLayout, width: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        self.adapter = Adapter(config.image, layout, width, config.language.width)
        self.language = LanguageModel(config.language)
        if config.freeze_language:
            self.language.requires_grad_(False)
        self.text_tokenizer: TextTokenizer | None = None

    def train(self, mode: bool = True) -> "Captioning":
        """A language model that stays as it is drops nothing out either."""
        super().train(mode)
        if self.config.freeze_language:
            self.language.eval()
        return self

    # --- learning -----------------------------------------------------------------------------------------------

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[str]:
        return read_texts(config.text_field, record)

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        return describe_texts(config.text_field)

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[str]) -> CaptioningConfig:
        places = config.image.token_count(layout) + config.max_length
        language = config.language.resolve(TextTokenizer.for_model(config.language, examples).size, places)
        fitted: CaptioningConfig = config.model_copy(update={"language": language})
        return fitted

    def prepare(self, examples: Sequence[str]) -> None:
        self.language.load_pretrained()
        self.text_tokenizer = TextTokenizer.for_model(self.config.language, examples)

    def write_files(self, folder: Path) -> None:
        assert self.text_tokenizer is not None
        self.text_tokenizer.write(folder)

    def read_files(self, folder: Path) -> None:
        self.text_tokenizer = TextTokenizer.read(folder, self.config.language.vocabulary)

    def collate(self, examples: Sequence[str]) -> CaptionBatch:
        assert self.text_tokenizer is not None
        ids = [[*ids, self.text_tokenizer.end][: self.config.max_length] for ids in self.text_tokenizer.ids(examples)]
        return CaptionBatch(*padded(ids, self.text_tokenizer.pad))

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """The cross-entropy of each word after the image and the words before it, the mean over words.

        A caption that was cut has no end to learn.
        """
        ids, mask = batch.examples.ids, batch.examples.mask
        image = self.adapter(batch.features)
        seen = torch.ones(image.shape[:2], dtype=torch.bool, device=mask.device)
        rows = torch.cat([image, self.language.embed(ids[:, :-1])], dim=1)
        read = self.language(rows, torch.cat([seen, mask[:, :-1]], dim=1))
        before = read[:, image.shape[1] - 1 :]  # the last row of the image tells the first word
        return {"captioning/word": Loss(F.cross_entropy(self.language.logits(before[mask]), ids[mask]), 1.0)}

    # --- use ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def caption(
        self,
        rows: Float[Tensor, "b n d"],
        decoding: DecodingConfig | None = None,
        count: int = 1,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> list[list[str]]:
        """For each image so many captions; of a search the best first.

        The same seed and file name (without names, the place) of an image draw the same captions.
        """
        assert self.text_tokenizer is not None
        numbers = range(len(rows)) if names is None else [hash_name(PurePosixPath(name).name) for name in names]
        rest = range(
            self.text_tokenizer.size, self.config.language.vocabulary
        )  # rows of a pretrained table that are no word
        written = self.language.write(
            self.adapter(rows),
            decoding or self.config.decoding,
            self.text_tokenizer.end,
            [*self.text_tokenizer.unwritten, *rest],
            self.config.max_length,
            count,
            [[seed, number] for number in numbers],
        )
        return [[self.text_tokenizer.text(ids) for ids in texts] for texts in written]

    def compute_metrics(
        self,
        batches: Iterable[ExampleBatch],
        training: Sequence[tuple[str, Any]],
    ) -> list[Metric]:
        """BLEU, ROUGE-L, CIDEr-D and, where its tool is, METEOR, against all captions of an image.

        The baselines are `constant/…`, the training caption that fits the training images best, and `shuffled/…`, what
        was written for other images.
        """
        said: dict[str, str] = {}
        references: dict[str, list[str]] = defaultdict(list)
        count = 0
        for rows, keys, examples in batches:
            places = {key: place for place, key in enumerate(keys) if key not in said}
            if places:
                written = self.caption(rows[list(places.values())], names=[*places])
                said |= {key: captions[0] for key, captions in zip(places, written, strict=True)}
            for key, example in zip(keys, examples, strict=True):
                references[key].append(example)
            count += len(keys)
        metrics = _scored(said, references)
        if training:
            constant = dict.fromkeys(said, best_constant(training))
            metrics += for_baseline(CONSTANT, _scored(constant, references))
        return metrics + for_baseline(OTHERS, _scored(_shuffled(said), references))


# --- scores -----------------------------------------------------------------------------------------------------


OTHERS = Baseline("shuffled", "another image's", "What was written for other images: is it about this one at all?")


def _scored(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> list[Metric]:
    if not captions:
        return []
    scores = CaptionScores()
    for key, caption in captions.items():
        scores.add(key, caption, references[key])
    found: list[Metric] = scores.compute()["metrics"]
    try:
        return found + meteor(scores.tokenized())["metrics"]
    except FileError:  # neither the tool nor WordNet is installed
        return found


def _shuffled(captions: Mapping[str, str]) -> dict[str, str]:
    """Each image with the caption of another one, far from it in the order of names; {} where there is no other."""
    keys = sorted(captions)
    if len(keys) < 2:
        return {}
    half = len(keys) // 2
    return {key: captions[other] for key, other in zip(keys, keys[half:] + keys[:half], strict=True)}


def best_constant(training: Sequence[tuple[str, str]]) -> str:
    """The caption that, said of every image, has the best CIDEr-D: what can be said without looking.

    Looked for among 200 captions of 200 images, those with the smallest hashes of their names; of the captions the
    most frequent first.
    """
    captions: dict[str, list[str]] = defaultdict(list)
    for key, caption in training:
        captions[key].append(caption)
    chosen = [captions[key] for key in sorted(captions, key=lambda key: (hash_name(key), key))[:SAMPLED]]
    counts = Counter(caption for texts in chosen for caption in texts)
    candidates = sorted(counts, key=lambda caption: (-counts[caption], caption))[:SAMPLED]
    known = [[ptb.tokenize(text) for text in texts] for texts in chosen]
    scores = cider_d_of_constants([ptb.tokenize(caption) for caption in candidates], known)
    return candidates[max(range(len(scores)), key=lambda place: scores[place])]
