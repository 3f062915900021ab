"""Masked words: the words that are missing in a caption of an image, from its codes and the other words.

Source: LG-VQ (arXiv 2405.14206), section 3.2, masked text prediction (eq. 6), as a task of its own on finished codes;
its table 3 for how it is measured.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tavq.core.errors import UsageError
from tavq.data.records import Record
from tavq.interfaces import Loss, Losses
from tavq.metrics import intervals
from tavq.metrics.record import CONSTANT, Baseline, Group, Metric
from tavq.metrics.words import MASKED, keyed_noise
from tavq.nets.language import padded
from tavq.nets.transformer import Transformer
from tavq.ops.masking import mask_least_noise, sample_mask_ratios
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.phrases import known_words
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.tasks.understanding import (
    Adapter,
    ExampleBatch,
    ShapeReader,
    TransformerConfig,
    UnderstandingBatch,
    UnderstandingTask,
    describe_texts,
    read_texts,
)
from tavq.text.vocabulary import FUNCTION

GAP = re.compile(r"(?<!\w)_+(?!\w)")
"""What stands for a missing word."""

CONTENT = "content"
"""The kind of the words that name things, looks and deeds; the others are articles, prepositions and the like."""

RECALLED = (1, 5)

BY_PREVIOUS = Baseline(
    "constant/previous",
    "by the previous word",
    "The words that most often follow the previous word in training; sees no image.",
)


class MaskedWordsConfig(TransformerConfig):
    """The transformer that reads codes and words."""

    name: Literal["masked-words"] = "masked-words"


@dataclass(frozen=True)
class Captions:
    """Captions as words, where there are any, and which of them may be masked."""

    ids: Int[Tensor, "b m"]
    mask: Bool[Tensor, "b m"]
    words: Bool[Tensor, "b m"]


@tasks.register("masked-words")
class MaskedWordsTask(UnderstandingTask):
    """Fills in the missing words of a caption.

    The rows of the image and of the words stand side by side in a bidirectional transformer; a learned vector stands
    for a missing word, whose row becomes the logits of the words of the training captions. Marks are read and never
    masked, and neither are words that training has not seen.

    Source: LG-VQ (arXiv 2405.14206), eq. 6, and its public code for the share of masked words.
    Differs from the paper: words and not CLIP's tokens, learned with the task; one transformer for both in place of
    self-attention and then cross-attention; one vector for a missing word at any place, to which the place is added;
    no label smoothing; a caption is one sentence of an image and not all of them.
    """

    Config = MaskedWordsConfig
    commands = frozenset({"fill"})
    mean_of_examples = False

    def __init__(self, config: MaskedWordsConfig, layout: TokenLayout, width: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        assert config.vocabulary is not None, "the settings were not fitted"
        c = config.width
        self.adapter = Adapter(config.image, layout, width, c)
        self.table = nn.Embedding(config.vocabulary + 1, c)  # the last stands for a missing word
        self.places = nn.Parameter(torch.randn(config.max_length, c) * 0.02)
        self.transformer = Transformer(c, config.layers, config.heads, dropout=config.dropout)
        self.head = nn.Linear(c, config.vocabulary)
        self.text_tokenizer: TextTokenizer | None = None
        self._is_word = torch.zeros(config.vocabulary, dtype=torch.bool, device="cpu")

    # --- learning -----------------------------------------------------------------------------------------------

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[str]:
        return [caption for caption in read_texts("captions", record) if any(map(str.isalnum, caption))]

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        return describe_texts("captions")

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[str]) -> MaskedWordsConfig:
        config.image.token_count(layout)
        return config.model_copy(update={"vocabulary": TextTokenizer.learned(examples).size})

    def prepare(self, examples: Sequence[str]) -> None:
        self._know(TextTokenizer.learned(examples))

    def write_files(self, folder: Path) -> None:
        assert self.text_tokenizer is not None
        self.text_tokenizer.write(folder)

    def read_files(self, folder: Path) -> None:
        self._know(known_words(folder, self.missing))

    def _know(self, words: TextTokenizer) -> None:
        self.text_tokenizer = words
        known = [any(map(str.isalnum, words.text([number]))) for number in range(words.size)]
        self._is_word = torch.tensor(known)

    @property
    def missing(self) -> int:
        """The number that stands for a missing word."""
        return self.table.num_embeddings - 1

    def collate(self, examples: Sequence[str]) -> Captions:
        assert self.text_tokenizer is not None
        ids, mask = padded(
            [ids[: self.config.max_length] for ids in self.text_tokenizer.ids(examples)], self.text_tokenizer.pad
        )
        return Captions(ids, mask, self._is_word[ids] & mask)

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """Cross-entropy, the mean over the missing words of the batch; which are missing is drawn."""
        asked = batch.examples
        share = sample_mask_ratios(len(asked.ids), asked.ids.device)
        counts = (share * asked.words.sum(dim=1)).round().long().clamp(min=1)
        hidden = mask_least_noise(torch.rand(asked.ids.shape, device=asked.ids.device), asked.words, counts)
        logits = self._logits(batch.features, asked.ids, asked.mask, hidden)
        value = F.cross_entropy(logits, asked.ids[hidden], reduction="sum") / hidden.sum().clamp(min=1)
        return {"masked-words/word": Loss(value, 1.0)}

    def _logits(
        self,
        rows: Float[Tensor, "b n d"],
        ids: Int[Tensor, "b m"],
        mask: Bool[Tensor, "b m"],
        hidden: Bool[Tensor, "b m"],
    ) -> Float[Tensor, "p v"]:
        """Of the hidden words alone, in the order of `hidden`."""
        image = self.adapter(rows)
        words = self.table(ids.masked_fill(hidden, self.missing)) + self.places[: ids.shape[1]]
        seen = mask.new_ones(image.shape[:2])
        read = self.transformer(torch.cat([image, words], dim=1), torch.cat([seen, mask], dim=1))
        return self.head(read[:, image.shape[1] :][hidden]).float()

    # --- use ----------------------------------------------------------------------------------------------------

    def check_text(self, caption: str) -> list[str]:
        """What to tell of a caption, a line each; UsageError where there is no gap, or no word beside it is known."""
        assert self.text_tokenizer is not None
        rest = GAP.sub(" ", caption)
        if not GAP.search(caption):
            raise UsageError(
                f"The caption {caption.strip()[:40]!r} has no gap; write ___ in place of each missing word."
            )
        if not any(map(str.isalnum, rest)):
            return []
        return self.text_tokenizer.check_text("caption", rest, self.config.max_length - len(GAP.findall(caption)))

    @torch.no_grad()
    def fill(self, rows: Float[Tensor, "b n d"], captions: Sequence[str]) -> list[list[list[tuple[str, float]]]]:
        """For each image and its caption and each gap ___ the words and their probabilities, the likeliest first.

        Raises UsageError where a gap lies beyond the words that are read.
        """
        assert self.text_tokenizer is not None
        ids, mask = (
            table.to(rows.device) for table in padded([*map(self._with_gaps, captions)], self.text_tokenizer.pad)
        )
        hidden = (ids == self.missing) & mask
        ordered = self._shares(self._logits(rows, ids, mask, hidden)).sort(dim=1, descending=True)
        count = int(self._is_word.sum())
        names = [self.text_tokenizer.text([number]) for number in range(self.text_tokenizer.size)]
        found = [
            [(names[number], share) for share, number in zip(shares[:count], numbers[:count], strict=True)]
            for shares, numbers in zip(ordered.values.tolist(), ordered.indices.tolist(), strict=True)
        ]
        ends = hidden.sum(dim=1).cumsum(dim=0).tolist()
        return [found[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _with_gaps(self, caption: str) -> list[int]:
        assert self.text_tokenizer is not None
        first, *others = self.text_tokenizer.ids(GAP.split(caption))
        ids = [*first, *(number for part in others for number in (self.missing, *part))]
        if self.missing in ids[self.config.max_length :]:
            raise UsageError(
                f"The caption {caption.strip()[:40]!r} has a gap after the first {self.config.max_length} words, which "
                "alone are read; shorten it."
            )
        return ids[: self.config.max_length]

    def _shares(self, logits: Float[Tensor, "p v"]) -> Float[Tensor, "p v"]:
        """Probabilities of words; marks have none."""
        return logits.masked_fill(~self._is_word.to(logits.device), -torch.inf).softmax(dim=1)

    def compute_metrics(
        self,
        batches: Iterable[ExampleBatch],
        training: Sequence[tuple[str, Any]],
    ) -> list[Metric]:
        """`masked-N/recall@1` and `@5` of captions with N words missing, of all words and of `content` words.

        `constant/…` answers the commonest words of training, `constant/previous/…` those that follow the word before.
        """
        guesser = Guesser(self.collate([caption for _, caption in training])) if training else None
        tallies: dict[tuple[Baseline | None, int], Tally] = defaultdict(Tally)
        count = 0
        for rows, keys, examples in batches:
            asked = self.collate(examples)
            noise = keyed_noise(
                [f"{key}\n{text}" for key, text in zip(keys, examples, strict=True)], asked.ids.shape[1]
            )
            for missing in MASKED:
                hidden = mask_least_noise(noise, asked.words, torch.full((len(keys),), missing))
                for baseline, answers in self._answers(rows, asked, hidden, guesser).items():
                    kinds = [self._kind(number) for number in asked.ids[hidden].tolist()]
                    owners = [keys[row] for row in hidden.nonzero()[:, 0].tolist()]
                    tallies[baseline, missing].add(answers, asked.ids[hidden], kinds, owners)
            count += len(examples)
        return [
            replace(metric, baseline=baseline)
            for (baseline, missing), tally in tallies.items()
            for metric in tally.metrics(missing)
        ]

    def _answers(
        self, rows: Tensor, asked: Captions, hidden: Bool[Tensor, "b m"], guesser: "Guesser | None"
    ) -> dict[Baseline | None, Int[Tensor, "p r"]]:
        """The likeliest words at each gap, by the task and without looking."""
        ids, mask, gaps = (table.to(rows.device) for table in (asked.ids, asked.mask, hidden))
        most = min(max(RECALLED), self.missing)
        shares = self._shares(self._logits(rows, ids, mask, gaps))
        found: dict[Baseline | None, Tensor] = {None: shares.topk(most, dim=1).indices.cpu()}
        if guesser is not None:
            found |= {CONSTANT: guesser.commonest(hidden), BY_PREVIOUS: guesser.following(asked.ids, hidden)}
        return found

    def _kind(self, number: int) -> str:
        assert self.text_tokenizer is not None
        return "" if self.text_tokenizer.text([number]) in FUNCTION else CONTENT


class Guesser:
    """Answers without looking, from the training captions: the commonest words, and those that follow a word."""

    START, NONE = -1, -2
    """What stands before the first word, and in place of answers that there are not."""

    def __init__(self, captions: Captions) -> None:
        self.all: Counter[int] = Counter(captions.ids[captions.words].tolist())
        self.after: dict[int, Counter[int]] = defaultdict(Counter)
        before = F.pad(captions.ids[:, :-1], (1, 0), value=self.START)
        pairs = torch.stack([before[captions.words], captions.ids[captions.words]], dim=1)
        for previous, number in pairs.tolist():
            self.after[previous][number] += 1

    def commonest(self, hidden: Bool[Tensor, "b m"]) -> Int[Tensor, "p r"]:
        """The same words for each gap."""
        return torch.tensor([self._ranked(self.NONE)]).expand(int(hidden.sum()), -1)

    def following(self, ids: Int[Tensor, "b m"], hidden: Bool[Tensor, "b m"]) -> Int[Tensor, "p r"]:
        """Those that follow the word before most often; the commonest where that word is missing too."""
        before = F.pad(ids.masked_fill(hidden, self.NONE)[:, :-1], (1, 0), value=self.START)[hidden].tolist()
        ranked = {previous: self._ranked(previous) for previous in set(before)}
        return torch.tensor([ranked[previous] for previous in before]).view(-1, max(RECALLED))

    def _ranked(self, previous: int) -> list[int]:
        ordered = [
            *_ordered(self.after.get(previous, Counter())),
            *_ordered(self.all),
        ]
        found = list(dict.fromkeys(ordered))[: max(RECALLED)]
        return found + [self.NONE] * (max(RECALLED) - len(found))


def _ordered(counts: Counter[int]) -> list[int]:
    """The most frequent first; of the same frequency the lower number, which is the commoner word."""
    return sorted(counts, key=lambda number: (-counts[number], number))


class Tally:
    """What was answered at the gaps, and how often it was right."""

    def __init__(self) -> None:
        self.each: list[dict[str, float]] = []
        self.kinds: list[str] = []
        self.owners: list[str | None] = []

    def add(
        self, answers: Int[Tensor, "p r"], truth: Int[Tensor, " p"], kinds: Sequence[str], owners: Sequence[str]
    ) -> None:
        """Counts the gaps of a batch."""
        right = answers == truth[:, None]
        hits = {f"recall@{most}": right[:, :most].any(dim=1).double().tolist() for most in RECALLED}
        self.each += [dict(zip(hits, row, strict=True)) for row in zip(*hits.values(), strict=True)]
        self.kinds += kinds
        self.owners += owners

    def metrics(self, missing: int) -> list[Metric]:
        """Each recall of all words and of the kinds of words, where `missing` words of a caption were masked."""
        if not self.each:
            return []
        plain = [Metric(f"recall@{most}", "", MISSING_WORDS) for most in RECALLED]
        groups = intervals.grouped(plain, self.each, self.kinds, self.owners)
        return [
            _described(metric, missing, kind, most)
            for kind, found in groups.items()
            for metric, most in zip(found, RECALLED, strict=True)
        ]


MISSING_WORDS = Group(
    "words",
    "Missing words",
    "In captions with one and with three words missing. Content words are all but articles, prepositions and the like.",
)


def _described(recall: Metric, missing: int, kind: str, most: int) -> Metric:
    """A recall with its full name and title."""
    every = kind == intervals.ALL
    words = "all words" if every else f"{kind} words"
    among = "the most probable" if most == 1 else f"among the {most} most probable"
    return replace(
        recall,
        name=f"masked-{missing}/{'' if every else f'{kind}/'}{recall.name}",
        title=f"{missing} missing, {words}, R@{most}",
        better=1,
        meaning=f"Fraction of the missing words that were {among}.",
        percent=True,
        main=kind == CONTENT and most == 1,
    )
