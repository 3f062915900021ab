"""Masked words: predict the missing words of a caption from the image's codes and the other words.

Source: LG-VQ (arXiv 2405.14206), section 3.2, masked text prediction (eq. 6), here as a task of its own on a frozen
tokenizer; its table 3 for the evaluation.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tavq.core.config import require_resolved
from tavq.core.errors import UsageError
from tavq.data.records import Record, hash_name
from tavq.interfaces import Loss, Losses
from tavq.metrics import intervals
from tavq.metrics.record import CONSTANT, Baseline, Group, Metric
from tavq.metrics.words import MASKED, keyed_noise
from tavq.nets.language import pad_sequences
from tavq.nets.transformer import Transformer
from tavq.ops.masking import IGNORED, mask_least_noise, sample_mask_ratios
from tavq.ops.waiting import select_rows
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.samples import PER_IMAGE, Answer, AnsweredImage, SampleImages
from tavq.tasks.text_task import TextBatch, TextTask, describe_texts, rank, read_texts
from tavq.tasks.text_tokenizer import SHOWN, WORD, TextTokenizer, has_word
from tavq.tasks.understanding import (
    Adapter,
    ExampleBatch,
    ShapeReader,
    TransformerConfig,
    UnderstandingBatch,
    gather_batches,
)
from tavq.text.vocabulary import FUNCTION

GAP = re.compile(r"(?<!\w)_+(?!\w)")
"""What a user writes for a missing word."""

BLANK = "___"
"""What a report shows for a missing word."""

CONTENT = "content"
"""All words but articles, prepositions, auxiliaries and the like, which can be guessed without the image."""

RECALL_AT = (1, 5)

MISSING_WORDS = Group(
    "words",
    "Missing words",
    "In captions with one or three words missing. Content words exclude articles, prepositions and the like.",
)
BY_PREVIOUS = Baseline(
    "constant/previous",
    "by the previous word",
    "The words that most often follow the previous word in training, without an image.",
)
GUESSERS: tuple[Baseline | None, ...] = (None, CONSTANT, BY_PREVIOUS)


class MaskedWordsConfig(TransformerConfig):
    """The transformer over codes and words."""

    name: Literal["masked-words"] = "masked-words"


@dataclass(frozen=True)
class MaskableBatch(TextBatch):
    """Captions as token ids; `maskable` is True for known words, False for punctuation and unknown words."""

    maskable: Bool[Tensor, "b m"]


@tasks.register("masked-words")
class MaskedWordsTask(TextTask):
    """Predicts the missing words of a caption.

    A bidirectional transformer reads image tokens and word tokens; a missing word is replaced by a learned mask token,
    whose hidden state is classified into the words of the training captions. Punctuation is read but never masked, and
    neither are words outside the vocabulary.

    Source: LG-VQ (arXiv 2405.14206), eq. 6, and its public code for the fraction of masked words.
    Differs from the paper: words instead of CLIP's tokens, learned with the task; one transformer over both instead of
    self-attention followed by cross-attention; one mask token for all positions, plus the position embedding; no label
    smoothing; a caption is one sentence of an image and not all of them.
    """

    Config = MaskedWordsConfig
    commands = frozenset({"fill"})
    mean_of_examples = False
    RENAMED_TENSORS: ClassVar = {"table": "token_embedding", "places": "position_embedding"}

    def __init__(self, config: MaskedWordsConfig, layout: TokenLayout, width: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        vocabulary = require_resolved(config.vocabulary, "vocabulary")
        c = config.width
        self.adapter = Adapter(config.image, layout, width, c)
        self.token_embedding = nn.Embedding(vocabulary + 1, c)  # the last is the mask token
        self.position_embedding = nn.Parameter(torch.randn(config.max_length, c) * 0.02)
        self.transformer = Transformer(c, config.layers, config.heads, dropout=config.dropout)
        self.head = nn.Linear(c, vocabulary)
        # On the CPU whatever the default device: load_task makes networks on the meta device, without values.
        self._is_word = torch.zeros(vocabulary, dtype=torch.bool, device="cpu")

    # --- training -----------------------------------------------------------------------------------------------

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[str]:
        return [caption for caption in read_texts("captions", record) if has_word(caption)]

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        return describe_texts("captions")

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[str]) -> MaskedWordsConfig:
        config.image.token_count(layout)  # raises before the training starts
        return config.model_copy(update={"vocabulary": TextTokenizer.train(examples).size})

    def prepare(self, examples: Sequence[str]) -> None:
        super().prepare(examples)
        self._mark_words()

    def read_files(self, folder: Path) -> None:
        self._text_tokenizer = TextTokenizer.load(folder, self.vocabulary, exact=True)
        self._mark_words()

    def _mark_words(self) -> None:
        words = [self.text_tokenizer.decode([i]) for i in range(self.text_tokenizer.size)]
        self._is_word = torch.tensor([has_word(word) for word in words])

    @property
    def mask_id(self) -> int:
        """The id of the mask token."""
        return self.token_embedding.num_embeddings - 1

    def collate(self, examples: Sequence[str]) -> MaskableBatch:
        batch = self.tokenize(examples)
        return MaskableBatch(batch.ids, batch.mask, self._is_word[batch.ids] & batch.mask)

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """The cross-entropy of randomly masked words, the mean over all of the batch; each caption has at least one."""
        captions = batch.examples
        fraction = sample_mask_ratios(len(captions.ids), captions.ids.device)
        counts = (fraction * captions.maskable.sum(dim=1)).round().long().clamp(min=1)
        masked = mask_least_noise(torch.rand(captions.ids.shape, device=captions.ids.device), captions.maskable, counts)
        rows = select_rows(masked.flatten())
        logits = self._logits(batch.features, captions.ids, captions.mask, masked)
        words = captions.ids.masked_fill(~masked, IGNORED).flatten()[rows]
        total = F.cross_entropy(logits, words, reduction="sum", ignore_index=IGNORED)
        return {"masked-words/word": Loss(total / masked.sum().clamp(min=1), 1.0, masked.sum())}

    def _logits(
        self,
        features: Float[Tensor, "b n d"],
        ids: Int[Tensor, "b m"],
        mask: Bool[Tensor, "b m"],
        masked: Bool[Tensor, "b m"],
    ) -> Float[Tensor, "p v"]:
        """Logits of the masked words, in the order of `masked`; on a GPU of all words, as `select_rows` says."""
        image = self.adapter(features)
        words = self.token_embedding(ids.masked_fill(masked, self.mask_id)) + self.position_embedding[: ids.shape[1]]
        visible = mask.new_ones(image.shape[:2])
        hidden = self.transformer(torch.cat([image, words], dim=1), torch.cat([visible, mask], dim=1))
        return self.head(hidden[:, image.shape[1] :].flatten(0, 1)[select_rows(masked.flatten())]).float()

    # --- use ----------------------------------------------------------------------------------------------------

    def check_text(self, text: str) -> list[str]:
        """Warnings about a caption, one line each; UsageError if it has no gap, or none of its words is known."""
        if not GAP.search(text):
            raise UsageError(
                f"The caption {text.strip()[:SHOWN]!r} has no gap; write ___ in place of each missing word."
            )
        rest = GAP.sub(" ", text)
        if not has_word(rest):
            return []
        return self.text_tokenizer.check_text("caption", rest, self.config.max_length - len(GAP.findall(text)))

    @torch.no_grad()
    def fill(self, features: Float[Tensor, "b n d"], captions: Sequence[str]) -> list[list[list[tuple[str, float]]]]:
        """All words with their probabilities, the most probable first, per image and gap ___ of its caption.

        Gaps are filled independently of each other. Raises UsageError if a gap lies beyond the words that are read.
        """
        ids, mask = pad_sequences([*map(self._encode_with_gaps, captions)], self.text_tokenizer.pad_id)
        ids, mask = ids.to(features.device), mask.to(features.device)
        masked = (ids == self.mask_id) & mask
        words = [self.text_tokenizer.decode([i]) for i in range(self.text_tokenizer.size)]
        count = int(self._is_word.sum())  # all other tokens have probability 0
        ranked = rank(self._probabilities(self._logits(features, ids, mask, masked), masked), words)
        gaps = [row[:count] for row in ranked]
        ends = masked.sum(dim=1).cumsum(dim=0).tolist()
        return [gaps[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _encode_with_gaps(self, caption: str) -> list[int]:
        first, *others = self.text_tokenizer.encode(GAP.split(caption))
        ids = first
        for part in others:
            ids = [*ids, self.mask_id, *part]
        if self.mask_id in ids[self.config.max_length :]:
            raise UsageError(
                f"The caption {caption.strip()[:SHOWN]!r} has a gap after its first {self.config.max_length} words, "
                "and the model reads no further; shorten it."
            )
        return ids[: self.config.max_length]

    def _probabilities(self, logits: Float[Tensor, "n v"], masked: Bool[Tensor, "b m"]) -> Float[Tensor, "p v"]:
        """Probabilities of the masked words from `_logits`; those of punctuation and special tokens are 0."""
        logits = logits[masked.flatten()[select_rows(masked.flatten())]]
        return logits.masked_fill(~self._is_word.to(logits.device), -torch.inf).softmax(dim=1)

    def compute_metrics(self, batches: Iterable[ExampleBatch], training: Sequence[tuple[str, Any]]) -> list[Metric]:
        """`masked-N/recall@1` and `@5` of captions with N words missing, of all words and of `content` words.

        `constant/…` gives the most frequent training words, `constant/previous/…` those that follow the previous word.
        """
        guesser = WordFrequencies(self.collate([caption for _, caption in training])) if training else None
        made: list[list[tuple[int, int, list[Gap]]]] = []
        for features, keys, examples in batches:
            made.append([])
            captions = self.collate(examples)
            # The image's name and the caption decide which words are masked, so every model fills the same gaps.
            names = [f"{key}\n{text}" for key, text in zip(keys, examples, strict=True)]
            noise = keyed_noise(names, captions.ids.shape[1])
            for missing in MASKED:
                masked = mask_least_noise(noise, captions.maskable, torch.full((len(keys),), missing))
                true = captions.ids[masked]
                kinds = [self._kind(i) for i in true.tolist()]
                owners = [keys[row] for row in masked.nonzero()[:, 0].tolist()]
                for baseline, predicted in self._predict(features, captions, masked, guesser).items():
                    gaps = score_gaps(predicted, true, kinds, owners)
                    made[-1].append((GUESSERS.index(baseline), missing, gaps))
        recalls: dict[tuple[Baseline | None, int], WordRecall] = defaultdict(WordRecall)
        for batch in gather_batches(batches, made):
            for guesser_index, missing, gaps in batch:
                recalls[GUESSERS[guesser_index], missing].gaps += gaps
        return [
            replace(metric, baseline=baseline)
            for (baseline, missing), recall in recalls.items()
            for metric in recall.metrics(missing)
        ]

    def _predict(
        self,
        features: Tensor,
        captions: MaskableBatch,
        masked: Bool[Tensor, "b m"],
        guesser: "WordFrequencies | None",
    ) -> dict[Baseline | None, Int[Tensor, "p r"]]:
        """The most probable words of each gap, by the task (None) and by the baselines."""
        ids, mask, gaps = (tensor.to(features.device) for tensor in (captions.ids, captions.mask, masked))
        count = min(max(RECALL_AT), self.vocabulary)
        probabilities = self._probabilities(self._logits(features, ids, mask, gaps), gaps)
        predicted: dict[Baseline | None, Tensor] = {None: probabilities.topk(count, dim=1).indices.cpu()}
        if guesser is not None:
            predicted[CONSTANT] = guesser.most_frequent(masked)
            predicted[BY_PREVIOUS] = guesser.most_frequent_after(captions.ids, masked)
        return predicted

    def _kind(self, i: int) -> str:
        return "" if self.text_tokenizer.decode([i]) in FUNCTION else CONTENT

    def answer_samples(self, samples: SampleImages) -> list[AnsweredImage]:
        """A word missing in each of the first captions of an image, filled in."""
        shown = []
        for row, (key, captions) in enumerate(zip(samples.keys, samples.examples, strict=True)):
            filled = [self._answer_gap(samples.features[row : row + 1], key, text) for text in captions[:PER_IMAGE]]
            answers = tuple(answer for answer in filled if answer is not None)
            if answers:
                shown.append(AnsweredImage(key, answers))
        return shown

    def _answer_gap(self, features: Float[Tensor, "1 n d"], key: str, caption: str) -> Answer | None:
        """None where no word of the caption can be missing."""
        hidden = hide_word(caption, key, self._is_known)
        if hidden is None:
            return None
        with_gap, word = hidden
        try:
            [[[(filled, probability), *_]]] = self.fill(features, [with_gap])
        except UsageError:  # the gap is after the words that are read
            return None
        answer = f"{with_gap.replace(BLANK, filled)} ({probability:.0%})"
        return Answer(with_gap, answer, caption, filled.casefold() == word.casefold())

    def _is_known(self, word: str) -> bool:
        return self.text_tokenizer.encode([word])[0] != [self.text_tokenizer.unknown_id]


def hide_word(caption: str, key: str, is_known: Callable[[str], bool]) -> tuple[str, str] | None:
    """A caption with `BLANK` for one of its content words, and the word; which one follows from the image's name."""
    every = [found for found in re.finditer(WORD, caption) if found[0].isalpha()]
    words = [found for found in every if found[0].casefold() not in FUNCTION and is_known(found[0])]
    if not words:
        return None
    chosen = words[hash_name(f"{key}\n{caption}") % len(words)]
    return caption[: chosen.start()] + BLANK + caption[chosen.end() :], chosen[0]


class WordFrequencies:
    """Predicts words without the image, from counts over the training captions."""

    START, NONE = -1, -2
    """Stand for the word before the first, and for missing predictions where the vocabulary is tiny."""

    def __init__(self, captions: MaskableBatch) -> None:
        self.counts: Counter[int] = Counter(captions.ids[captions.maskable].tolist())
        self.counts_after: dict[int, Counter[int]] = defaultdict(Counter)
        previous = F.pad(captions.ids[:, :-1], (1, 0), value=self.START)
        pairs = torch.stack([previous[captions.maskable], captions.ids[captions.maskable]], dim=1)
        for before, word in pairs.tolist():
            self.counts_after[before][word] += 1

    def most_frequent(self, masked: Bool[Tensor, "b m"]) -> Int[Tensor, "p r"]:
        """The same words for each gap."""
        return torch.tensor([self._rank(self.NONE)]).expand(int(masked.sum()), -1)

    def most_frequent_after(self, ids: Int[Tensor, "b m"], masked: Bool[Tensor, "b m"]) -> Int[Tensor, "p r"]:
        """The words that most often follow the previous word; the most frequent of all if it is masked too."""
        previous = F.pad(ids.masked_fill(masked, self.NONE)[:, :-1], (1, 0), value=self.START)[masked].tolist()
        ranked = {before: self._rank(before) for before in set(previous)}
        return torch.tensor([ranked[before] for before in previous]).view(-1, max(RECALL_AT))

    def _rank(self, before: int) -> list[int]:
        ranked = [*_by_count(self.counts_after.get(before, Counter())), *_by_count(self.counts)]
        best = list(dict.fromkeys(ranked))[: max(RECALL_AT)]
        return best + [self.NONE] * (max(RECALL_AT) - len(best))


def _by_count(counts: Counter[int]) -> list[int]:
    """Ids by falling count; ties by id, which is the order of frequency in the whole training set."""
    return sorted(counts, key=lambda i: (-counts[i], i))


Gap = tuple[dict[str, float], str, str]
"""Whether the missing word was among the most probable ones, by metric; its kind; the image it belongs to."""


def score_gaps(
    predicted: Int[Tensor, "p r"], true: Int[Tensor, " p"], kinds: Sequence[str], owners: Sequence[str]
) -> list[Gap]:
    """Whether each missing word was found.

    Args:
        predicted: words by falling probability.
        true: the missing word.
        kinds: CONTENT, or "" for a function word.
        owners: the image that each gap belongs to.
    """
    right = predicted == true[:, None]
    columns = [right[:, :count].any(dim=1).double().tolist() for count in RECALL_AT]
    names = [f"recall@{count}" for count in RECALL_AT]
    hits = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return list(zip(hits, kinds, owners, strict=True))


class WordRecall:
    """Counts how often the missing word was among the most probable ones."""

    def __init__(self) -> None:
        self.gaps: list[Gap] = []

    def metrics(self, missing: int) -> list[Metric]:
        """The recalls over all words and over each kind, for captions with `missing` masked words."""
        if not self.gaps:
            return []
        hits, kinds, owners = zip(*self.gaps, strict=True)
        plain = [Metric(f"recall@{count}", "", MISSING_WORDS) for count in RECALL_AT]
        groups = intervals.score_groups(plain, hits, kinds, owners)
        return [
            _describe(metric, missing, kind, count)
            for kind, found in groups.items()
            for metric, count in zip(found, RECALL_AT, strict=True)
        ]


def _describe(recall: Metric, missing: int, kind: str, count: int) -> Metric:
    """A recall with its full name and title."""
    every = kind == intervals.ALL
    path, words = ("", "all words") if every else (f"{kind}/", f"{kind} words")
    among = "the most probable" if count == 1 else f"among the {count} most probable"
    return replace(
        recall,
        name=f"masked-{missing}/{path}{recall.name}",
        title=f"{missing} missing, {words}, R@{count}",
        better=1,
        meaning=f"Fraction of the missing words that were {among}.",
        percent=True,
        main=kind == CONTENT and count == 1,
    )
