"""Text as numbers for a language model: the words of the training texts, or the pieces of a pretrained model."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tavq.core import files
from tavq.core.errors import FileError, UsageError, first_line

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
MOST = 20_000
"""Words that are kept, the most frequent first."""

FILE = "words.json"


class Words:
    """A tokenizer of texts.

    Attributes:
        size: of its vocabulary.
        end: the number that ends a text.
        pad: the number that fills up a row; it never counts.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.size: int = tokenizer.get_vocab_size()
        own = tokenizer.token_to_id(END)
        self.end: int = own if own is not None else tokenizer.token_to_id("<|endoftext|>")
        if self.end is None:
            raise FileError(f"The vocabulary has no token that ends a text: neither {END} nor <|endoftext|>.")
        self.pad: int = tokenizer.token_to_id(PAD) if own is not None else self.end
        self.unknown: int | None = tokenizer.token_to_id(UNKNOWN)

    @classmethod
    def learned(cls, texts: Iterable[str]) -> "Words":
        """The words and marks of some texts in small letters, the most frequent first."""
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        made = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # sets marks close to the word before
        special = [PAD, END, UNKNOWN]
        made.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=MOST, special_tokens=special))
        return cls(made)

    @classmethod
    def pretrained(cls, folder: Path) -> "Words":
        """Those of a pretrained language model's folder."""
        from tavq.core.pretrained import quiet_transformers

        with quiet_transformers():
            from transformers import AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(folder)
            except Exception as error:  # transformers raises a dozen kinds; each means that there is none
                raise FileError(f"{folder} holds no tokenizer that can be read: {first_line(error)[:300]}") from error
        return cls(tokenizer.backend_tokenizer)

    @classmethod
    def read(cls, folder: Path) -> "Words":
        """Those that `write` has put there."""
        from tokenizers import Tokenizer

        text = files.read_text(folder / FILE)
        try:
            return cls(Tokenizer.from_str(text))
        except Exception as error:  # the library raises Exception itself
            raise FileError(f"{folder / FILE} is damaged: {first_line(error)[:300]}") from error

    def write(self, folder: Path) -> None:
        """As one JSON file."""
        files.write_text(folder / FILE, self._tokenizer.to_str())

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers of each text, without the end."""
        return [found.ids for found in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def text(self, ids: Sequence[int]) -> str:
        """The text of numbers up to the end."""
        ids = list(ids)
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        decoded: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return " ".join(decoded.split())

    def strange(self, what: str, text: str) -> list[str]:
        """The words of a text that are not known, as they are written.

        Raises UsageError where there is no text, or none of its words is known.
        """
        if not text.strip():
            raise UsageError(f"The {what} is empty; write it in the words of the model's training texts.")
        found = self._tokenizer.encode(text, add_special_tokens=False)
        pieces = [(number, text[start:end]) for number, (start, end) in zip(found.ids, found.offsets, strict=True)]
        words = [(number, piece) for number, piece in pieces if any(map(str.isalnum, piece))]
        strange = [piece for number, piece in words if number == self.unknown]
        if len(strange) == len(words):
            raise UsageError(
                f"The {what} {text.strip()[:40]!r} has no word that the model knows; write it in the words of the "
                "model's training texts."
            )
        return strange
