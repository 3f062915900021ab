"""Captioning: a language model reads the codes of an image as its prefix and generates a caption.

Source: LG-VQ (arXiv 2405.14206), appendix A.1 and fig. 9 (a): codes replace ClipCap's prefix (ClipCap, arXiv
2111.09734, section 3: a two-layer MLP before GPT-2, which is fine-tuned or frozen).
Differs from the paper: GPT-2 may be a small one trained from scratch on the words of the training captions; an end
token is learned too, where ClipCap's code stops at the first full stop.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator

from tavq.core.errors import FileError
from tavq.data.records import Record, hash_name
from tavq.interfaces import Loss, Losses
from tavq.metrics import ptb
from tavq.metrics.captions import CaptionScores, cider_d_of_constants
from tavq.metrics.meteor import meteor
from tavq.metrics.record import CONSTANT, Baseline, Metric, for_baseline
from tavq.nets.language import DecodingConfig, LanguageConfig, LanguageModel
from tavq.ops.masking import IGNORED
from tavq.ops.waiting import select_rows
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.samples import PER_IMAGE, Answer, AnsweredImage, SampleImages
from tavq.tasks.text_task import TextField, TextTask, describe_texts, read_texts
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.tasks.understanding import (
    Adapter,
    ExampleBatch,
    ShapeReader,
    UnderstandingBatch,
    UnderstandingConfig,
    gather_batches,
)

SAMPLED = 200
"""Training images, and distinct captions of theirs, among which the best constant caption is searched."""

OTHERS = Baseline("shuffled", "another image's", "Captions generated for other images: chance.")


class CaptioningConfig(UnderstandingConfig):
    """The language model, its training target, and how it generates."""

    RENAMED: ClassVar = {
        **UnderstandingConfig.RENAMED,
        "of": "text_field",
        "longest": "max_length",
        "writing": "decoding",
    }

    name: Literal["captioning"] = "captioning"
    language: LanguageConfig = LanguageConfig()
    text_field: TextField = "captions"
    """Training target: each caption of a record, or its long text."""
    max_length: int = Field(48, ge=2, le=1024)
    """Maximum number of words of a caption, in training and generation; the end token counts."""
    freeze_language: bool = False
    """Freeze the pretrained language model and train the adapter only: ClipCap's second variant."""
    decoding: DecodingConfig = DecodingConfig()
    """How captions are generated in evaluation, and by default."""

    @model_validator(mode="after")
    def _check_frozen_is_pretrained(self) -> "CaptioningConfig":
        if self.freeze_language and self.language.pretrained is None:
            raise ValueError("freeze_language would freeze random weights; name a language.pretrained")
        return self


@tasks.register("captioning")
class Captioning(TextTask):
    """Generates captions of an image."""

    Config = CaptioningConfig
    commands = frozenset({"caption"})
    mean_of_examples = False
    """The loss is the mean over the words of a batch, as in ClipCap: each word counts the same, so long captions count
    more than short ones."""

    def __init__(self, config: CaptioningConfig, layout: TokenLayout, width: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        self.adapter = Adapter(config.image, layout, width, config.language.width)
        self.language = LanguageModel(config.language)
        if config.freeze_language:
            self.language.requires_grad_(False)

    def train(self, mode: bool = True) -> "Captioning":
        """A frozen language model stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.config.freeze_language:
            self.language.eval()
        return self

    # --- training -----------------------------------------------------------------------------------------------

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[str]:
        return read_texts(config.text_field, record)

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        return describe_texts(config.text_field)

    @classmethod
    def build_text_tokenizer(cls, config: Any, examples: Iterable[str]) -> TextTokenizer:
        return TextTokenizer.for_language_model(config.language, examples)

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[str]) -> CaptioningConfig:
        positions = config.image.token_count(layout) + config.max_length
        language = config.language.resolve(cls.build_text_tokenizer(config, examples).size, positions)
        return config.model_copy(update={"language": language})

    @property
    def vocabulary(self) -> int:
        return int(self.config.language.vocabulary)

    def prepare(self, examples: Sequence[str]) -> None:
        self.language.load_pretrained()
        super().prepare(examples)

    def truncate(self, ids: list[int]) -> list[int]:
        """A truncated caption has no end token to learn."""
        return [*ids, self.text_tokenizer.end_id][: self.config.max_length]

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """The next-word cross-entropy given the image and the words before, the mean over all words of the batch."""
        ids, mask = batch.examples.ids, batch.examples.mask
        image = self.adapter(batch.features)
        image_mask = torch.ones(image.shape[:2], dtype=torch.bool, device=mask.device)
        embeddings = torch.cat([image, self.language.embed(ids[:, :-1])], dim=1)
        hidden = self.language(embeddings, torch.cat([image_mask, mask[:, :-1]], dim=1))
        predicting = hidden[:, image.shape[1] - 1 :]  # the last image token predicts the first word
        rows = select_rows(mask.flatten())
        logits = self.language.logits(predicting.flatten(0, 1).index_select(0, rows))
        words = ids.masked_fill(~mask, IGNORED).flatten()[rows]
        errors = F.cross_entropy(logits, words, ignore_index=IGNORED)
        return {"captioning/word": Loss(errors, 1.0, mask.sum())}

    # --- use ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def caption(
        self,
        features: Float[torch.Tensor, "b n d"],
        decoding: DecodingConfig | None = None,
        count: int = 1,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> list[list[str]]:
        """Generates `count` captions per image, best first for beam search.

        Args:
            features: of the images.
            decoding: beam search or sampling; by default the task's own setting.
            count: captions per image.
            seed: of sampling. The same seed and file name give the same captions, whatever the batch.
            names: file names of the images; by default their indices seed the sampling.
        """
        if names is None:
            image_seeds = [*range(len(features))]
        else:
            image_seeds = [hash_name(PurePosixPath(name).name) for name in names]
        # A pretrained embedding may have unused rows after the last token.
        unused = range(self.text_tokenizer.size, self.vocabulary)
        generated = self.language.generate(
            self.adapter(features),
            decoding or self.config.decoding,
            self.text_tokenizer.end_id,
            [*self.text_tokenizer.suppressed_ids, *unused],
            self.config.max_length,
            count,
            [[seed, image_seed] for image_seed in image_seeds],
        )
        return [[*map(self.text_tokenizer.decode, texts)] for texts in generated]

    def compute_metrics(self, batches: Iterable[ExampleBatch], training: Sequence[tuple[str, Any]]) -> list[Metric]:
        """BLEU, ROUGE-L, CIDEr-D and, if its tool is installed, METEOR, against all captions of an image.

        The baselines are `constant/…`, the training caption with the best CIDEr-D on training images, and
        `shuffled/…`, what was generated for other images.
        """
        made: list[tuple[dict[str, str], list[tuple[str, str]]]] = []
        for features, keys, examples in batches:
            rows = {key: row for row, key in enumerate(keys)}
            generated = self.caption(features[list(rows.values())], names=[*rows])
            own = {key: texts[0] for key, texts in zip(rows, generated, strict=True)}
            made.append((own, list(zip(keys, examples, strict=True))))
        captions: dict[str, str] = {}
        references: dict[str, list[str]] = defaultdict(list)
        for own, pairs in gather_batches(batches, made):
            captions |= own
            for key, example in pairs:
                references[key].append(example)
        metrics = _score(captions, references)
        if training:
            constant = dict.fromkeys(captions, best_constant(training))
            metrics += for_baseline(CONSTANT, _score(constant, references))
        return metrics + for_baseline(OTHERS, _score(_shuffle(captions), references))

    def answer_samples(self, samples: SampleImages) -> list[AnsweredImage]:
        """A caption of each image, next to the first of its own."""
        generated = self.caption(samples.features, names=samples.keys)
        shown = []
        for key, captions, true in zip(samples.keys, generated, samples.examples, strict=True):
            shown.append(AnsweredImage(key, (Answer("", captions[0], " / ".join(true[:PER_IMAGE])),)))
        return shown


# --- scores -----------------------------------------------------------------------------------------------------


def _score(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> list[Metric]:
    if not captions:
        return []
    scores = CaptionScores()
    for key, caption in captions.items():
        scores.add(key, caption, references[key])
    metrics: list[Metric] = scores.compute()["metrics"]
    try:
        return metrics + meteor(scores.tokenized())["metrics"]
    except FileError:  # neither the tool nor WordNet is installed
        return metrics


def _shuffle(captions: Mapping[str, str]) -> dict[str, str]:
    """Each image with another image's caption, from half the list of names away; {} for fewer than two images.

    Neighbours by name are often similar images, such as frames of a scene.
    """
    keys = sorted(captions)
    if len(keys) < 2:
        return {}
    half = len(keys) // 2
    return {key: captions[other] for key, other in zip(keys, keys[half:] + keys[:half], strict=True)}


def best_constant(training: Sequence[tuple[str, str]]) -> str:
    """The caption with the best CIDEr-D when it is given to every image: what can be said without an image.

    The candidates are the 200 most frequent captions of 200 training images, those with the smallest hashes of their
    names; scoring all pairs of a large training set would take hours.
    """
    captions: dict[str, list[str]] = defaultdict(list)
    for key, caption in training:
        captions[key].append(caption)
    sampled = [captions[key] for key in sorted(captions, key=lambda key: (hash_name(key), key))[:SAMPLED]]
    counts = Counter(caption for texts in sampled for caption in texts)
    candidates = sorted(counts, key=lambda caption: (-counts[caption], caption))[:SAMPLED]
    references = [[*map(ptb.tokenize, texts)] for texts in sampled]
    scores = cider_d_of_constants([*map(ptb.tokenize, candidates)], references)
    return candidates[max(range(len(scores)), key=lambda i: scores[i])]
