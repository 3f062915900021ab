"""Phrases as rows for a transformer: words learned from the training phrases, or the vectors of a frozen encoder."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tavq.core.devices import default_device
from tavq.core.errors import FileError, UsageError
from tavq.nets.language import padded
from tavq.tasks.text_tokenizer import FILE, TextTokenizer, cut
from tavq.text.encoders import EncoderRecord, TextEncoder, load_encoder

SHOWN = 40
"""Characters of a phrase that a message shows."""


class Phrases(nn.Module):
    """Makes a table of some phrases, on the CPU, and rows of a table, which may be learned."""

    def prepare(self, phrases: Iterable[str]) -> None:
        """Fills what comes from the training phrases."""

    def write(self, folder: Path) -> None:
        """Puts what was taken into the model folder."""

    def read(self, folder: Path) -> None:
        """The inverse of `write`."""

    def collate(self, phrases: Sequence[str]) -> tuple[Tensor, Bool[Tensor, "b m"]]:
        """A table of the phrases, and where there is something in it."""
        raise TypeError(f"{type(self).__name__} must define collate")

    def forward(self, table: Tensor) -> Float[Tensor, "b m c"]:
        """The rows of a table."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def check_text(self, phrase: str) -> list[str]:
        """What to tell of a phrase, a line each: what of it is not known or not read; UsageError where nothing is."""
        raise TypeError(f"{type(self).__name__} must define notes")


def known_words(folder: Path, size: int) -> TextTokenizer:
    """The words of a model folder; FileError where there are not `size` of them."""
    words = TextTokenizer.read(folder)
    if words.size != size:
        raise FileError(f"{folder / FILE} holds {words.size:,} words and the model was made for {size:,}.")
    return words


class LearnedPhrases(Phrases):
    """The words of the training phrases, each with a vector of its own that is trained with the task.

    Args:
        vocabulary: how many words there are.
        max_length: words of a phrase that are read.
        width: c, of a row.
    """

    def __init__(self, vocabulary: int, max_length: int, width: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.table = nn.Embedding(vocabulary, width)
        self.text_tokenizer: TextTokenizer | None = None

    def prepare(self, phrases: Iterable[str]) -> None:
        self.text_tokenizer = TextTokenizer.learned(phrases)

    def write(self, folder: Path) -> None:
        assert self.text_tokenizer is not None
        self.text_tokenizer.write(folder)

    def read(self, folder: Path) -> None:
        self.text_tokenizer = known_words(folder, self.table.num_embeddings)

    def collate(self, phrases: Sequence[str]) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
        assert self.text_tokenizer is not None
        return padded([ids[: self.max_length] for ids in self.text_tokenizer.ids(phrases)], self.text_tokenizer.pad)

    def forward(self, table: Int[Tensor, "b m"]) -> Float[Tensor, "b m c"]:
        return self.table(table)

    def check_text(self, phrase: str) -> list[str]:
        assert self.text_tokenizer is not None
        return self.text_tokenizer.check_text("phrase", phrase, self.max_length)


class EncodedPhrases(Phrases):
    """The last hidden states of a frozen text encoder, one a token, brought to the width by a linear layer.

    Each distinct phrase is encoded once, when it is first met; the special tokens at both ends are left out.

    Args:
        place: name or folder of the encoder.
        made: the encoder that the task was trained with.
        max_length: tokens of a phrase that are read.
        width: c, of a row.
    """

    def __init__(self, place: str, made: EncoderRecord, max_length: int, width: int) -> None:
        super().__init__()
        self.place, self.made, self.max_length = place, made, max_length
        self.enter = nn.Linear(made.width, width)
        self._encoder: TextEncoder | None = None
        self._known: dict[str, Tensor] = {}

    def encoder(self) -> TextEncoder:
        """The encoder, loaded when it is first needed; UsageError where it is another one than that of the training."""
        if self._encoder is None:
            found = load_encoder(self.place, default_device())
            ours, theirs = self.made, found.record
            if (ours.name, ours.sha256, ours.width) != (theirs.name, theirs.sha256, theirs.width):
                raise UsageError(
                    f"The model reads phrases by the text encoder {ours.name!r} (weights {ours.sha256[:12]}…), and "
                    f"{self.place!r} is {theirs.name!r} (weights {theirs.sha256[:12]}…); put the model's own there."
                )
            self._encoder = found
        return self._encoder

    def prepare(self, phrases: Iterable[str]) -> None:
        self._encode(phrases)

    def _encode(self, phrases: Iterable[str]) -> None:
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self._known]
        if new:
            tokens = [ids[: self.max_length] for ids in self.encoder().tokenize(new)]
            vectors, _ = self.encoder().encode_tokens(tokens)
            self._known.update(zip(new, vectors.split([*map(len, tokens)]), strict=True))

    def collate(self, phrases: Sequence[str]) -> tuple[Float[Tensor, "b m t"], Bool[Tensor, "b m"]]:
        self._encode(phrases)
        vectors = [self._known[phrase] for phrase in phrases]
        lengths = torch.tensor([len(rows) for rows in vectors])
        table = torch.zeros(len(vectors), max(1, int(lengths.max())), self.made.width)
        for row, rows in zip(table, vectors, strict=True):
            row[: len(rows)] = rows
        return table, torch.arange(table.shape[1]) < lengths[:, None]

    def forward(self, table: Float[Tensor, "b m t"]) -> Float[Tensor, "b m c"]:
        return self.enter(table)

    def check_text(self, phrase: str) -> list[str]:
        """UsageError where there is no word, or half of the tokens or more say nothing."""
        if not any(map(str.isalnum, phrase)):
            what = f"{phrase.strip()[:SHOWN]!r} holds no word" if phrase.strip() else "is empty"
            raise UsageError(f"The phrase {what}; say what to look for.")
        encoder: Any = self.encoder()
        [tokens] = encoder.tokenize([phrase])
        unknown = tokens.count(encoder.tokenizer.unk_token_id)
        if 2 * unknown >= len(tokens):
            raise UsageError(
                f"The phrase {phrase.strip()[:SHOWN]!r} is in a script that the text encoder {encoder.name!r} does not "
                "read; write it in the language of the model's training phrases."
            )
        words = [word for word in phrase.split() if encoder.tokenizer.unk_token_id in encoder.tokenize([word])[0]]
        told = [f"The model does not know the word {word[:SHOWN]!r}." for word in dict.fromkeys(words)]
        return told + ([cut("phrase", len(tokens), self.max_length)] if len(tokens) > self.max_length else [])
