"""What the understanding tasks with a text tokenizer of their own share: captioning, VQA, retrieval, masked words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from tavq.data.records import Record
from tavq.nets.language import pad_sequences
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.tasks.understanding import UnderstandingTask

TextField = Literal["captions", "long_text"]
"""Which texts of a record a task uses: each of its captions, or its long text."""


@dataclass(frozen=True)
class TextBatch:
    """Texts as token ids, padded at the end; `mask` is False for padding."""

    ids: Int[Tensor, "b m"]
    mask: Bool[Tensor, "b m"]


class TextTask(UnderstandingTask):
    """An understanding task with a text tokenizer of its own, which is saved in its model folder."""

    _text_tokenizer: TextTokenizer | None = None

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Available after `prepare` or `read_files`."""
        assert self._text_tokenizer is not None, "call prepare or read_files first"
        return self._text_tokenizer

    @property
    def vocabulary(self) -> int:
        """Rows of the word embedding."""
        return int(self.config.vocabulary)

    @classmethod
    def build_text_tokenizer(cls, config: Any, examples: Iterable[Any]) -> TextTokenizer:
        """The tokenizer for these training examples; here words, learned from examples that are texts."""
        return TextTokenizer.train(examples)

    def prepare(self, examples: Sequence[Any]) -> None:
        self._text_tokenizer = self.build_text_tokenizer(self.config, examples)

    def write_files(self, folder: Path) -> None:
        self.text_tokenizer.save(folder)

    def read_files(self, folder: Path) -> None:
        self._text_tokenizer = TextTokenizer.load(folder, self.vocabulary)

    def truncate(self, ids: list[int]) -> list[int]:
        """The tokens of one text that the network reads."""
        return ids[: self.config.max_length]

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Texts as a batch of truncated, padded token ids."""
        ids = [self.truncate(text) for text in self.text_tokenizer.encode(texts)]
        return TextBatch(*pad_sequences(ids, self.text_tokenizer.pad_id))

    def collate(self, examples: Sequence[Any]) -> Any:
        return self.tokenize(examples)

    def check_text(self, text: str) -> list[str]:
        """Warnings about a user's text, one line each; UsageError if nothing of it can be read."""
        return self.text_tokenizer.check_text("text", text, self.config.max_length)


def rank(probabilities: Float[Tensor, "n k"], names: Sequence[str]) -> list[list[tuple[str, float]]]:
    """The names with their probabilities in each row, the most probable first."""
    ordered = probabilities.sort(dim=1, descending=True)
    rows = zip(ordered.indices.tolist(), ordered.values.tolist(), strict=True)
    ranked = []
    for indices, values in rows:
        ranked.append([(names[i], value) for i, value in zip(indices, values, strict=True)])
    return ranked


def read_texts(field: TextField, record: Record) -> list[str]:
    """The non-empty texts of a record, with single spaces."""
    texts = record.captions if field == "captions" else (record.long_text or "",)
    return [" ".join(text.split()) for text in texts if text.strip()]


def describe_texts(field: TextField) -> str:
    """What a record must have for `read_texts`, for a message."""
    return "captions" if field == "captions" else "long texts (task.text_field long_text)"
