"""Text as numbers for a language model: the words of the training texts, or the pieces of a pretrained model."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tavq.core import files
from tavq.core.errors import FileError, UsageError, first_line
from tavq.nets.language import LanguageConfig, gpt2_folder, gpt2_sizes

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
ENDS = (END, "<|endoftext|>")
"""Tokens that end a text: ours, and GPT-2's."""

MOST = 20_000
"""Words that are kept, the most frequent first."""

FILE = "words.json"

WORD = r"\w+(?:['\u2019-]\w+)*|[^\w\s]"
"""A word (dog's, ice-cream), or a mark."""

CLOSE = re.compile(r" (?=[.,;:!?%)\]}])|(?<=[(\[{]) ")
"""Spaces that nobody writes: before a mark that closes, and after one that opens."""

FILES = ("tokenizer.json", "vocab.json")
"""One of which every pretrained GPT-2 has: where both lack, transformers makes a tokenizer without a word."""


class TextTokenizer:
    """A tokenizer of texts.

    Attributes:
        size: of its vocabulary: the largest number and one.
        end: the number that ends a text.
        pad: the number that fills up a row; it never counts.
        unwritten: the numbers that stand for no text, without the end.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # What a pretrained folder was saved with is about its own batches, not about ours.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # a caption that says "<end>" must not end there
        known = tokenizer.get_vocab()
        self.size: int = max(known.values(), default=-1) + 1
        ends = [known[name] for name in ENDS if name in known]
        if not ends:
            raise FileError(f"The vocabulary has no token that ends a text: neither {' nor '.join(ENDS)}.")
        self.end: int = ends[0]
        self.pad: int = known.get(PAD, self.end)
        self.unknown: int | None = known.get(UNKNOWN)
        self.unwritten = sorted({number for number in (self.pad, self.unknown) if number is not None} - {self.end})

    @classmethod
    def for_model(cls, config: LanguageConfig, texts: Iterable[str]) -> "TextTokenizer":
        """Those of the pretrained model that is named; else the words of some texts."""
        if config.pretrained is None:
            return cls.learned(texts)
        gpt2_sizes(config.pretrained)  # first: another kind of model has another kind of tokenizer
        return cls.pretrained(gpt2_folder(config.pretrained))

    @classmethod
    def learned(cls, texts: Iterable[str]) -> "TextTokenizer":
        """The words and marks of some texts in small letters, the most frequent first."""
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

        made = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        made.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
        special = [PAD, END, UNKNOWN]
        trainer = trainers.WordLevelTrainer(vocab_size=MOST, special_tokens=special, show_progress=False)
        made.train_from_iterator(texts, trainer)
        return cls(made)

    @classmethod
    def pretrained(cls, folder: Path) -> "TextTokenizer":
        """Those of a pretrained language model's folder."""
        from tavq.core.pretrained import quiet_transformers

        if not any((folder / name).is_file() for name in FILES):
            raise FileError(f"{folder} holds no tokenizer: neither {' nor '.join(FILES)}.")
        with quiet_transformers():
            from transformers import AutoTokenizer

            try:
                return cls(AutoTokenizer.from_pretrained(folder).backend_tokenizer)
            except Exception as error:  # transformers raises a dozen kinds; each means that there is none
                raise FileError(f"{folder} holds no tokenizer that can be read: {first_line(error)[:300]}") from error

    @classmethod
    def read(cls, folder: Path, vocabulary: int | None = None) -> "TextTokenizer":
        """Those that `write` has put there; FileError where a number is beyond the model's `vocabulary`."""
        from tokenizers import Tokenizer

        text = files.read_text(folder / FILE)
        try:
            words = cls(Tokenizer.from_str(text))
        except Exception as error:  # the library raises Exception itself
            raise FileError(f"{folder / FILE} is damaged: {first_line(error)[:300]}") from error
        if vocabulary is not None and words.size > vocabulary:
            raise FileError(f"{folder / FILE} has {words.size:,} words, and the model knows {vocabulary:,}.")
        return words

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
        text = " ".join(decoded.split())
        return text if self._tokenizer.decoder is not None else CLOSE.sub("", text)  # words alone know no spaces

    def strange(self, what: str, text: str) -> list[str]:
        """The words of a text that are not known, as they are written.

        Raises UsageError where there is no text, or none of its words is known.
        """
        if not text.strip():
            raise UsageError(f"The {what} is empty; write it in the words of the model's training texts.")
        text = unicodedata.normalize("NFC", text)  # an accent that is joined to its letter later would have no place
        found = self._tokenizer.encode(text, add_special_tokens=False)
        pieces = [(number, text[start:end]) for number, (start, end) in zip(found.ids, found.offsets, strict=True)]
        words = [(number, piece) for number, piece in pieces if any(map(str.isalnum, piece))]
        strange = [piece for number, piece in words if number == self.unknown]
        if len(strange) == len(words):
            raise UsageError(
                f"The {what} {text.strip()[:40]!r} has no word that the model knows; write it in the words of the "
                "model's training texts."
            )
        return list(dict.fromkeys(strange))

    def check_text(self, what: str, text: str, max_length: int) -> list[str]:
        """What to tell of a text of which `max_length` words are read, a line each: unknown words, and what is cut off.

        Raises UsageError where there is no text, or none of the words that are read is known.
        """
        told = [f"The model does not know the word {word!r}." for word in self.strange(what, text)]
        found = self._tokenizer.encode(text, add_special_tokens=False)
        if len(found.ids) <= max_length:
            return told
        self.strange(what, text[: found.offsets[max_length - 1][1]])
        return [*told, cut(what, len(found.ids), max_length)]


def cut(what: str, count: int, max_length: int) -> str:
    """Tells that a text is longer than what is read of it."""
    return f"The {what} has {count} words and marks; the model reads the first {max_length}."
