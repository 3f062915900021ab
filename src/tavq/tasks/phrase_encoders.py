"""Encoders of phrases for a transformer: learned word embeddings, or the token vectors of a frozen text encoder."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tavq.core.devices import default_device
from tavq.core.errors import UsageError
from tavq.nets.language import pad_sequences
from tavq.tasks.text_tokenizer import SHOWN, TextTokenizer, has_word, truncation_warning, unknown_word_warning
from tavq.text.encoder_record import EncoderRecord
from tavq.text.encoders import TextEncoder, load_encoder


class PhraseEncoder(nn.Module, ABC):
    """Turns phrases into padded inputs (`collate`, on the CPU), and inputs into embeddings (`forward`)."""

    def prepare(self, phrases: Iterable[str]) -> None:
        """Called once with the training phrases, before training."""

    def write_files(self, folder: Path) -> None:
        """Writes into the model folder what `prepare` computed, if it must be kept."""

    def read_files(self, folder: Path) -> None:
        """Reads what `write_files` wrote."""

    @abstractmethod
    def collate(self, phrases: Sequence[str]) -> tuple[Tensor, Bool[Tensor, "b m"]]:
        """The padded inputs of some phrases, and a mask that is False for padding."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Float[Tensor, "b m c"]:
        """Embeddings of padded inputs."""

    @abstractmethod
    def check_text(self, phrase: str) -> list[str]:
        """Warnings about a user's phrase, one line each; UsageError if nothing of it can be read."""


class LearnedPhraseEncoder(PhraseEncoder):
    """An embedding of the words of the training phrases, trained with the task.

    Args:
        vocabulary: number of words.
        max_length: words of a phrase that are read.
        width: c, of an embedding.
    """

    RENAMED_TENSORS: ClassVar = {"table": "embedding"}

    def __init__(self, vocabulary: int, max_length: int, width: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.embedding = nn.Embedding(vocabulary, width)
        self._text_tokenizer: TextTokenizer | None = None

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Available after `prepare` or `read_files`."""
        assert self._text_tokenizer is not None, "call prepare or read_files first"
        return self._text_tokenizer

    def prepare(self, phrases: Iterable[str]) -> None:
        self._text_tokenizer = TextTokenizer.train(phrases)

    def write_files(self, folder: Path) -> None:
        self.text_tokenizer.save(folder)

    def read_files(self, folder: Path) -> None:
        self._text_tokenizer = TextTokenizer.load(folder, self.embedding.num_embeddings, exact=True)

    def collate(self, phrases: Sequence[str]) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
        ids = [found[: self.max_length] for found in self.text_tokenizer.encode(phrases)]
        return pad_sequences(ids, self.text_tokenizer.pad_id)

    def forward(self, inputs: Int[Tensor, "b m"]) -> Float[Tensor, "b m c"]:
        return self.embedding(inputs)

    def check_text(self, phrase: str) -> list[str]:
        return self.text_tokenizer.check_text("phrase", phrase, self.max_length)


class FrozenPhraseEncoder(PhraseEncoder):
    """The last hidden states of a frozen text encoder, one per token, projected to the width by a linear layer.

    Each distinct phrase is encoded once and cached; the special tokens at both ends are left out.

    Args:
        name: name or folder of the encoder.
        record: the encoder that the task was trained with.
        max_length: tokens of a phrase that are read.
        width: c, of an embedding.
    """

    RENAMED_TENSORS: ClassVar = {"enter": "in_proj"}

    def __init__(self, name: str, record: EncoderRecord, max_length: int, width: int) -> None:
        super().__init__()
        self.name, self.record, self.max_length = name, record, max_length
        self.in_proj = nn.Linear(record.width, width)
        self._encoder: TextEncoder | None = None
        self._cache: dict[str, Tensor] = {}

    @property
    def encoder(self) -> TextEncoder:
        """The encoder, loaded on first use; UsageError if it is not the one of the training."""
        if self._encoder is None:
            loaded = load_encoder(self.name, default_device(), projection=False)
            ours, theirs = self.record, loaded.record
            if (ours.name, ours.sha256, ours.width) != (theirs.name, theirs.sha256, theirs.width):
                raise UsageError(
                    f"The model was trained with the text encoder {ours.name!r} (weights {ours.sha256[:12]}…), but "
                    f"{self.name!r} is {theirs.name!r} (weights {theirs.sha256[:12]}…); put the original one there."
                )
            self._encoder = loaded
        return self._encoder

    def prepare(self, phrases: Iterable[str]) -> None:
        self._encode(phrases)

    def _encode(self, phrases: Iterable[str]) -> None:
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self._cache]
        if new:
            tokens = [ids[: self.max_length] for ids in self.encoder.tokenize(new)]
            vectors, _ = self.encoder.encode_tokens(tokens)
            self._cache.update(zip(new, vectors.split([*map(len, tokens)]), strict=True))

    def collate(self, phrases: Sequence[str]) -> tuple[Float[Tensor, "b m t"], Bool[Tensor, "b m"]]:
        self._encode(phrases)
        vectors = [self._cache[phrase] for phrase in phrases]
        lengths = torch.tensor([len(tokens) for tokens in vectors])
        padded = torch.zeros(len(vectors), max(1, int(lengths.max())), self.record.width)
        for row, tokens in zip(padded, vectors, strict=True):
            row[: len(tokens)] = tokens
        return padded, torch.arange(padded.shape[1]) < lengths[:, None]

    def forward(self, inputs: Float[Tensor, "b m t"]) -> Float[Tensor, "b m c"]:
        return self.in_proj(inputs)

    def check_text(self, phrase: str) -> list[str]:
        """Warnings; UsageError for a phrase without a word, or with at least half of its tokens unknown."""
        if not phrase.strip():
            raise UsageError("The phrase is empty; say what to look for.")
        if not has_word(phrase):
            raise UsageError(f"The phrase {phrase.strip()[:SHOWN]!r} holds no word; say what to look for.")
        encoder: Any = self.encoder
        [tokens] = encoder.tokenize([phrase])
        unknown_id = encoder.tokenizer.unk_token_id
        if 2 * tokens.count(unknown_id) >= len(tokens):
            raise UsageError(
                f"The phrase {phrase.strip()[:SHOWN]!r} is in a script that the text encoder {encoder.name!r} does not "
                "know; write it in the language of the model's training phrases."
            )
        words = dict.fromkeys(phrase.split())
        warnings = [unknown_word_warning(word) for word in words if unknown_id in encoder.tokenize([word])[0]]
        if len(tokens) > self.max_length:
            warnings.append(truncation_warning("phrase", len(tokens), self.max_length))
        return warnings
